"""The Kubernetes API of one server: how it is reached, one request, and what each failure means."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from cluster.answer import (
    Absent,
    Answer,
    Forbidden,
    NoValue,
    Present,
    Refused,
    Stopped,
    Unreachable,
)
from cluster.k3s_config import KUBECONFIG
from runtime.credential import Credential, CredentialError, parse_kubeconfig

if TYPE_CHECKING:
    from kubernetes.client.exceptions import ApiException
    from kubernetes.dynamic.client import DynamicClient
    from pyinfra.api import Host, StringCommand
    from pyinfra.connectors.util import CommandOutput

    from runtime.tunnel import Tunnel

T = TypeVar("T")
Request = Callable[["DynamicClient"], Any]  # makes a request with `serialize=False`

TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two reads
POOL = 16  # connections kept; more are opened when needed
NO_KUBECONFIG = "#absent"
ADMINISTRATIVELY_PROHIBITED = 1  # RFC 4254 §5.1


class Cause(Enum):
    """Where a request failed, which decides what is worth trying next."""

    ANSWER = "the API answered with an error"
    CREDENTIAL = "the credential or the certificate does not fit"
    CONNECTION = "an open connection was cut"
    SERVER = "this server cannot be asked"


class ApiError(Exception):
    """A request got no value; `answer` says which of the other answers it was.

    `status` is the HTTP status (0 when there was none), `details` the `details` of the API's Status
    object, `after` the seconds the API asks to wait.
    """

    def __init__(
        self,
        answer: NoValue,
        cause: Cause = Cause.ANSWER,
        *,
        status: int = 0,
        details: dict[str, Any] | None = None,
        after: float = 0.0,
    ) -> None:
        super().__init__(answer.reason)
        self.answer = answer
        self.cause = cause
        self.status = status
        self.details = details or {}
        self.after = after

    @property
    def causes(self) -> list[dict[str, Any]]:
        """The API's own list of causes: dictionaries with `reason`, `message`, `field`."""
        return list(self.details.get("causes") or ())

    @property
    def other_manager(self) -> bool:
        """Whether server-side apply met fields that another manager owns."""
        return any(cause.get("reason") == "FieldManagerConflict" for cause in self.causes)


def value_of(answer: Answer[T]) -> T | None:
    """What was read, None for what is not there; raises ApiError for every other answer."""
    match answer:
        case Present(value=value):
            return value
        case Absent():
            return None
        case _:
            raise ApiError(answer)


class Endpoint:
    """One server's API with an open client.

    `requests` counts what was sent, `received` the bytes of the answers' bodies as they came,
    compressed or not.
    """

    def __init__(
        self, name: str, url: str, credential: Credential, tunnel: Tunnel | None = None
    ) -> None:
        self.name = name
        self.requests = 0
        self.received = 0
        self._tunnel = tunnel
        self._client = _client(url, credential)

    @property
    def alive(self) -> bool:
        """Whether the connection below still stands."""
        return self._tunnel is None or self._tunnel.alive

    def send(self, call: Request) -> Any:
        """Make one request; its answer, read from JSON where it is that. Raises ApiError."""
        return self._sent(call, self._parsed)

    def stream(self, call: Request) -> Any:
        """Make one request whose answer comes in parts; raises ApiError."""
        return self._sent(call, lambda response: response)

    def _parsed(self, response: Any) -> Any:
        body = response.data
        self.received += response.tell()
        try:
            return json.loads(body)
        except ValueError:
            return body.decode(errors="replace")

    def _sent(self, call: Request, read: Callable[[Any], T]) -> T:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        self.requests += 1
        started = time.monotonic()
        try:
            return read(call(self._client))
        except ApiException as error:
            if error.status:
                raise _answered(self.name, error) from None
            raise self._cut(started, _tls_words(str(error.reason))) from None
        except (HTTPError, OSError) as error:
            raise self._cut(started, _text(error)) from None

    def close(self) -> None:
        """Close its connections; the SSH connection stays."""
        self._client.client.close()
        if self._tunnel:
            self._tunnel.close()

    def _cut(self, started: float, text: str) -> ApiError:
        """Tell why no HTTP answer came."""
        if self._tunnel and not self._tunnel.alive:
            lost = Unreachable(f"the SSH connection to {self.name} is lost")
            return ApiError(lost, Cause.CONNECTION)
        if self._tunnel and (failure := self._tunnel.failure(since=started)):
            return _gone(_channel_failure(self.name, self._tunnel.target, failure))
        lower = text.lower()
        if "refused" in lower:
            return _gone(Stopped(f"nothing listens at the API port of {self.name}"))
        if "timed out" in lower:
            reason = f"{self.name} did not answer within {TIMEOUT[1]:.0f} s"
            return _gone(Stopped(reason) if self._tunnel else Unreachable(reason))
        if "certificate" in lower or "tlsv1" in lower:
            return ApiError(Forbidden(_tls_text(self.name, text)), Cause.CREDENTIAL)
        reason = f"{self.name} cut the connection ({text})"
        return ApiError(Stopped(reason) if self._tunnel else Unreachable(reason), Cause.CONNECTION)


def open_endpoint(host: Host, credential: Credential | None) -> tuple[Endpoint, Credential]:
    """Reach the API of a server.

    Through the SSH connection that pyinfra holds (made here when `--limit` left the host out),
    directly on `@local`, and otherwise at the address in the host's data: `api_address` (URL) with
    `api_kubeconfig` (path of a kubeconfig on this machine).

    Args:
        host: the server.
        credential: the admin credential when it is known; else it is read from the server.

    Returns: the endpoint, and the credential it uses.
    Raises: ApiError.
    """
    if address := host.data.get("api_address"):
        credential = _configured(host)
        return _endpoint(host, str(address), credential, None), credential
    connect(host)
    credential = credential or _read_credential(host)
    transport = transport_of(host)
    if transport is None:
        if type(host.connector).__name__ != "LocalConnector":
            reason = f"{host.name} is not reached by SSH: set its api_address and api_kubeconfig"
            raise _gone(Unreachable(reason))
        return _endpoint(host, credential.server, credential, None), credential
    from runtime.tunnel import Tunnel

    tunnel = Tunnel(transport, ("127.0.0.1", credential.port))
    return _endpoint(host, f"https://127.0.0.1:{tunnel.port}", credential, tunnel), credential


def read_credential(host: Host) -> Credential:
    """The admin credential as this server has it now, without showing it.

    Raises: ApiError.
    """
    if host.data.get("api_address"):
        return _configured(host)
    connect(host)
    return _read_credential(host)


def _endpoint(host: Host, url: str, credential: Credential, tunnel: Tunnel | None) -> Endpoint:
    try:
        return Endpoint(host.name, url, credential, tunnel)
    except CredentialError as error:
        if tunnel:
            tunnel.close()
        raise _gone(Forbidden(f"kubeconfig of {host.name}: {error}")) from None


def _client(url: str, credential: Credential) -> DynamicClient:
    """A dynamic client without discovery cache on disk, proxies, or certificates in files."""
    import urllib3
    from kubernetes.client.api_client import ApiClient
    from kubernetes.client.configuration import Configuration
    from kubernetes.dynamic.client import DynamicClient

    configuration = Configuration(host=url, retries=False)
    client = ApiClient(configuration)
    client.user_agent = "picluster"
    client.set_default_header("Accept-Encoding", "gzip")  # the API compresses from 128 KiB on
    if credential.token:
        client.set_default_header("Authorization", f"Bearer {credential.token}")
    client.rest_client.pool_manager = urllib3.PoolManager(
        retries=False,
        maxsize=POOL,
        ssl_context=credential.context() if url.startswith("https") else None,
    )
    return DynamicClient(client, discoverer=lambda _client, _cache_file: None)


def connect(host: Host) -> None:
    """Make sure that pyinfra's connection to the host stands; raises ApiError."""
    from paramiko import SSHException
    from pyinfra.api.exceptions import ConnectError

    transport = transport_of(host)
    if transport is not None and not transport.is_active():
        host.connected = False  # it rebooted or the network broke: pyinfra does not look again
    if host.connected:
        return
    try:
        host.connect(reason="for the Kubernetes API", show_errors=False, raise_exceptions=True)
    except (ConnectError, SSHException, OSError, EOFError) as error:
        raise _gone(Unreachable(f"{host.name}: {_text(error)}")) from None


def transport_of(host: Host) -> Any:
    """The paramiko transport of the host's SSH connector; None for other connectors."""
    client = getattr(host.connector, "client", None)
    get = getattr(client, "get_transport", None)
    return get() if get else None


def _read_credential(host: Host) -> Credential:
    """Read K3s' admin kubeconfig of a server without showing it in any output mode."""
    from paramiko import SSHException
    from pyinfra.api import StringCommand

    command = StringCommand(
        f"if test -e {KUBECONFIG}; then cat {KUBECONFIG}; else echo '{NO_KUBECONFIG}'; fi"
    )
    try:
        done, output = quietly(host, command)
    except (SSHException, OSError, EOFError) as error:
        transport = transport_of(host)
        alive = transport is not None and transport.is_active()
        answer = Refused if alive else Unreachable
        raise _gone(answer(f"{host.name}: {_text(error)}")) from None
    if not done:
        said = output.stderr_lines[-1] if output.stderr_lines else "no message"
        raise _gone(Forbidden(f"{KUBECONFIG} of {host.name} cannot be read: {said}"))
    if NO_KUBECONFIG in output.stdout_lines[:1]:
        raise _gone(Absent(f"{host.name} has no {KUBECONFIG}"))
    return _parsed(host, KUBECONFIG, "\n".join(output.stdout_lines))


def quietly(host: Host, command: StringCommand, **arguments: Any) -> tuple[bool, CommandOutput]:
    """Run a command on a host as root without showing it; its success and what it said.

    Args:
        arguments: connector arguments in place of those of `as_root`.
    """
    return host.run_shell_command(
        command, print_output=False, print_input=False, **as_root(host) | arguments
    )


def as_root(host: Host) -> dict[str, Any]:
    """Connector arguments of the host's data (sudo password and the like), with root asked for."""
    from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, pop_global_arguments

    found = cast("dict[str, Any]", pop_global_arguments(host.state, host, {})[0])
    arguments = {key: found[key] for key in CONNECTOR_ARGUMENT_KEYS if key in found}
    if host.data.get("_sudo") is None and not (arguments.get("_su_user") or arguments.get("_doas")):
        arguments["_sudo"] = host.data.get("ssh_user") != "root"
    return arguments | {"_sudo_user": None, "_stdin": None, "_timeout": int(TIMEOUT[1])}


def _configured(host: Host) -> Credential:
    path = host.data.get("api_kubeconfig")
    if not path:
        return Credential(server=str(host.data.get("api_address")))
    try:
        text = Path(str(path)).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        reason = f"api_kubeconfig of {host.name}: {path}: {error.strerror}"
        raise _gone(Forbidden(reason)) from None
    return _parsed(host, str(path), text)


def _parsed(host: Host, path: str, text: str) -> Credential:
    try:
        return parse_kubeconfig(text)
    except CredentialError as error:
        raise _gone(Forbidden(f"{path} of {host.name}: {error}")) from None


def _gone(answer: NoValue) -> ApiError:
    return ApiError(answer, Cause.SERVER)


def _channel_failure(name: str, target: tuple[str, int], failure: Exception) -> NoValue:
    from paramiko import ChannelException

    if not isinstance(failure, ChannelException):
        return Unreachable(f"no channel through the SSH connection to {name}: {_text(failure)}")
    if failure.code == ADMINISTRATIVELY_PROHIBITED:
        return Forbidden(f"sshd of {name} forbids forwarding (AllowTcpForwarding must be local)")
    return Stopped(f"nothing listens on {target[0]}:{target[1]} of {name}: K3s is not running")


def _tls_words(reason: str) -> str:
    """What OpenSSL said, without the names of its source files."""
    words = " ".join(reason.split()).removeprefix("SSLError ")
    return re.sub(r"\[SSL[^]]*\] | \(_ssl\.c:\d+\)", "", words)


def _tls_text(name: str, text: str) -> str:
    """What a failed TLS handshake means to the operator."""
    if "not yet valid" in text:
        return f"the certificate of {name} is not valid yet: its clock is ahead of this machine's"
    if "has expired" in text:
        return f"the certificate of {name} has expired, or this machine's clock is ahead"
    if "tlsv1" in text.lower() or "alert" in text.lower():
        return f"{name} does not accept the admin certificate ({text})"
    return f"the certificate of {name} is not from this cluster ({text})"


def _answered(name: str, error: ApiException) -> ApiError:
    """Translate an HTTP error status."""
    status = int(error.status)
    body = _status_object(error.body)
    message = str(body.get("message") or error.body or error.reason or "").strip() or str(status)
    details = body.get("details") or {}
    after = _seconds((error.headers or {}).get("Retry-After"))
    cause = Cause.CREDENTIAL if status == 401 else Cause.ANSWER
    answer: NoValue
    if status == 401:
        answer = Forbidden(f"{name} does not accept the admin credential")
    elif status == 403:
        answer = Forbidden(message)
    elif status == 404:
        answer = Absent(message)
    elif status == 429 or status >= 500:
        answer = Stopped(f"{name}: {message}")
    else:
        answer = Refused(message)
    return ApiError(answer, cause, status=status, details=details, after=after)


def _status_object(body: str | bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(body or "")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _seconds(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return 0.0


def _text(error: BaseException) -> str:
    """What went wrong, without the layers around it."""
    inner = next((part for part in error.args if isinstance(part, BaseException)), error)
    return " ".join(str(inner).split()) or type(inner).__name__
