"""The S3 server on its host: its files and process, its buckets, and a proof of each account."""

from __future__ import annotations

import hashlib
import secrets as random
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime

from pyinfra import host
from pyinfra.api import FunctionCommand, Host, State, StringCommand, operation
from pyinfra.api.command import PyinfraCommand, QuoteString

from cluster.answer import Absent, Forbidden, Present
from cluster.model import Cluster
from cluster.probe import Done, Failed, Pending, Probe
from cluster.services import s3, s3_minio, s3_unit, tls
from cluster.services.s3 import Account, S3Server
from facts.node import host_state
from facts.s3 import S3Host, S3HostState
from operations import config_files, secret
from operations.flow import ended
from operations.k3s_process import shell
from runtime.cache import cached
from runtime.endpoint import transport_of
from runtime.run import cluster
from runtime.s3 import S3, S3Error
from runtime.secrets import Secret, SecretsUnavailable, fill, rendered
from runtime.tunnel import Proxy
from runtime.wait import until

Commands = Generator[PyinfraCommand, None, None]

START_TIMEOUT = 30.0  # seconds
STARTS = 2  # after so many vain ones it is not waited for any longer
PROOF_TIMEOUT = 20.0  # seconds until a service has noticed new accounts and policies
OBJECT = "picluster-proof"

# A file system that is not mounted would be filled below its mount point: RequiresMountsFor= of
# the unit looks at /etc/fstab. A folder with other people's things is left as it is.
_HOME = r"""set -e
user=$1 folder=$2
getent passwd "$user" > /dev/null ||
  useradd --system --user-group --no-create-home --home-dir "$folder" \
    --shell /usr/sbin/nologin "$user"
if [ -e "$folder" ] && [ -n "$(ls -A "$folder")" ] &&
  [ "$(stat -c %U "$folder")" != "$user" ]; then
  echo "$folder is not empty and belongs to $(stat -c %U "$folder"): services.s3.path must be" \
    "a folder of its own" >&2
  exit 1
fi
install -d -m 0700 -o "$user" -g "$user" "$folder"
"""


def section() -> S3Server:
    """The run's section of the model; only asked for where the server is ours."""
    found = s3.server(cluster())
    assert found is not None
    return found


def _state(wanted: S3Server) -> S3Host:
    return cached(host, S3HostState, path=wanted.path, certificate=s3.certificate_files(wanted)[0])


@operation()
def home() -> Commands:
    """The server's user, and the folder of its data that nobody else reads.

    A folder that is not empty and belongs to somebody else, or to another product, is refused,
    not taken over.
    """
    wanted = section()
    found = _state(wanted)
    if found.holds not in ("", wanted.product):
        yield FunctionCommand(refuse, (wanted.path, found.holds, wanted.product), {})
        return
    if found.user and found.folder == f"directory 700 {s3.USER}:{s3.USER}":
        host.noop(f"{wanted.path} is there")
        return
    words = (QuoteString(word) for word in (_HOME, "home", s3.USER, wanted.path))
    yield StringCommand("sh", "-c", *words)


def refuse(state: State, host: Host, path: str, found: str, wanted: str) -> bool:
    """Fail: two products cannot share a folder of data."""
    return ended(host, f"{path} holds the data of {found}: {wanted} needs a folder of its own")


@operation()
def server() -> Commands:
    """The server runs with the wanted unit, root's account and certificate, and answers.

    It is restarted only when one of these has changed, or was changed after its start. A
    certificate of our own CA is issued anew when it does not fit or ends soon.
    """
    model, wanted, now = cluster(), section(), host_state(host, cluster())
    name, path = s3.unit_name(wanted), s3.unit_file(wanted)
    root = rendered(
        "root's account of the S3 server", lambda values: s3.root_environment(wanted, values)
    )
    new_root = secret.outdated(s3.ROOT, now.files.get(s3.ROOT), root)
    if new_root:
        yield secret.write(s3.ROOT, root)
    why = None if wanted.certificate else _flaw(model, wanted)
    if why:
        host.log(f"the certificate is issued: {why}")
        yield secret.write(s3.TLS, _issued(model))
    changed = yield from config_files.write(now, {path: s3_unit.unit(model, wanted)})
    if changed:
        yield StringCommand("systemctl", "daemon-reload")
    unit, files = now.unit(name), s3.certificate_files(wanted)
    if unit.enabled != "enabled":
        yield StringCommand("systemctl", "enable", name)
    stale = now.stale(name, path, s3.ROOT, *files)
    if new_root or why or changed or stale or not unit.running:
        needed = [*files, *([wanted.minio.program] if wanted.product == "minio" else [])]
        health = f"https://127.0.0.1:{wanted.port}{s3.HEALTH[wanted.product]}"
        yield FunctionCommand(restart, (name, health, needed), {})
    elif unit.enabled == "enabled":
        host.noop("the S3 server runs")


def _flaw(model: Cluster, wanted: S3Server) -> str | None:
    certificate = _state(wanted).certificate
    return tls.flaw(certificate, model.backup.ca or "", s3.names(model), datetime.now(UTC))


def _issued(model: Cluster) -> Secret:
    """A new certificate with its key, made when it is written."""

    def make(values: Mapping[str, str]) -> str:
        ca = tls.Pair(values["ca.certificate"], values["ca.key"])
        return "".join(tls.issue(ca, s3.names(model), datetime.now(UTC)))

    return rendered("certificate and key of the S3 server", make)


def ca_problems() -> list[str]:
    """Why the CA of the secrets cannot sign for the server; what is missing is said elsewhere."""
    model = cluster()
    if not s3.signed_by_us(model):
        return []
    try:
        ca = tls.Pair(_value("ca.certificate"), _value("ca.key"))
    except (SecretsUnavailable, KeyError):
        return []
    if ca.certificate.strip() != (model.backup.ca or "").strip():
        file = s3.ca_file(model.secrets_file)
        return [f"{file}: is not ca.certificate of the secrets: {fill()} writes it anew"]
    try:
        tls.signer(ca, datetime.now(UTC))
    except tls.TlsError as error:
        return [f"{model.secrets_file}: {error}"]
    return []


def restart(state: State, host: Host, unit: str, health: str, needed: list[str]) -> bool:
    """(Re)start the server and wait until it answers; False with its last words when not.

    health: URL; needed: files without which it would start in vain.
    """
    for path in dict.fromkeys(needed):
        if not shell(host, f"[ -s {path} ]")[0]:
            return ended(host, f"{path} is not there")
    if not shell(host, f"systemctl reset-failed {unit}; systemctl restart {unit}")[0]:
        return ended(host, f"{unit} cannot be started: {_last_words(host, unit)}")

    def probe() -> Probe:
        if shell(host, f"curl -fsk -m 5 {health}")[0]:
            return Done("answers")
        _, lines = shell(host, f"systemctl show {unit} --value -p ActiveState -p NRestarts")
        if "failed" in lines or any(one.isdigit() and int(one) >= STARTS for one in lines):
            return Failed(_last_words(host, unit))
        return Pending(_last_words(host, unit))

    return until(probe, what="the S3 server", timeout=START_TIMEOUT, interval=1.0, host=host)


def _last_words(host: Host, unit: str) -> str:
    """What the program itself said last: systemd's own lines only say that it has ended."""
    only = f"-u {unit} -t {unit.partition('.')[0]}"
    lines = shell(host, f"journalctl {only} -o cat --no-pager -n 5 2> /dev/null")[1]
    said = [line.strip() for line in lines if line.strip()]
    return said[-1] if said else "it says nothing"


@operation()
def accounts() -> Commands:
    """The accounts, in a file that the server reads at each request: nothing is restarted.

    MinIO keeps them itself: its client makes them, and the file says what it was told last.
    """
    model, now, wanted = cluster(), host_state(host, cluster()), section()
    known = now.files.get(s3.USERS)
    content = accounts_file(model)
    owned = known is not None and known.owner == f"{s3.USER}:{s3.USER}"
    if owned and not secret.outdated(s3.USERS, known, content):
        host.noop("the accounts are as wanted")
        return
    if wanted.product == "minio":
        told = rendered("MinIO's accounts", lambda values: s3.minio_accounts(model, values))
        text = QuoteString(s3_minio.script(model, wanted))
        yield StringCommand("sh", "-c", text, _stdin=told)  # type: ignore[arg-type]  # file-like
    yield secret.write(s3.USERS, content, s3.USER, s3.USER)


def accounts_file(model: Cluster) -> Secret:
    """The file of accounts."""
    return rendered("the accounts of the S3 server", lambda values: s3.users(model, values))


# ---- buckets


@operation()
def buckets() -> Commands:
    """Each account's bucket, with the policy that lets in this account alone.

    Buckets of others stay, and so does all that is in one.
    """
    try:
        with _as_root(cluster()) as service:
            todo = [one.bucket for one in s3.accounts(cluster()) if _todo(service, one)]
    except SecretsUnavailable as error:
        host.log(f"the buckets cannot be compared without the key: {error}")
        todo = ["?"]
    except S3Error as error:
        host.log(f"the buckets cannot be compared yet: {error}")
        todo = ["?"]
    if not todo:
        host.noop("the buckets are as wanted")
        return
    yield FunctionCommand(make_buckets, (), {})


def make_buckets(state: State, host: Host) -> bool:
    """Make what is missing; False with the cause when the service does not let us."""
    model = cluster()
    try:
        with _as_root(model) as service:
            for account in s3.accounts(model):
                if _todo(service, account) == "bucket":
                    host.log(f"makes the bucket {account.bucket}")
                    service.make_bucket(account.bucket)
                if _todo(service, account):
                    host.log(f"{account.bucket} is for {account.name}")
                    service.set_policy(account.bucket, _policy(model, account))
    except S3Error as error:
        return ended(host, str(error))
    return True


def _todo(service: S3, account: Account) -> str | None:
    """What the account's bucket lacks: `bucket`, `policy`, or nothing. Raises S3Error."""
    match service.policy(account.bucket):
        case Absent():
            return "bucket"
        case Present(value=policy):
            return None if policy == _policy(cluster(), account) else "policy"
        case answer:
            raise S3Error(answer)


def _policy(model: Cluster, account: Account) -> dict[str, object]:
    return s3.bucket_policy(model, account, _value(f"{account.secrets}.access_key"))


def _value(name: str) -> str:
    return rendered(name, lambda values: values[name]).unmask()


def _as_root(model: Cluster) -> AbstractContextManager[S3]:
    return _as(model, "s3.root")


@contextmanager
def _as(model: Cluster, secrets: str) -> Iterator[S3]:
    """The service as an account sees it; raises SecretsUnavailable.

    A server of ours is reached through the SSH connection to its host: this computer may stand
    outside of the LAN, and need not know its name.
    """
    keys = (_value(f"{secrets}.access_key"), _value(f"{secrets}.secret_key"))
    told = (str(model.backup.s3_endpoint), model.backup.region, *keys, model.backup.ca)
    home, ours = s3.home(model), s3.server(model)
    transport = transport_of(host) if ours else None
    if home is None or ours is None or transport is None:
        with S3(*told) as service:
            yield service
        return
    target = (str(home.ip), ours.port)
    with closing(Proxy(transport, target)) as proxy, S3(*told, proxy.url) as service:
        yield service


# ---- proof


@operation()
def proof() -> Commands:
    """Every account puts, gets and deletes an object in its bucket, and sees no other's.

    Done when accounts, buckets or the service have changed since the last proof, which the host
    remembers by a hash.
    """
    model, now = cluster(), host_state(host, cluster())
    mark = proof_mark(model)
    if not secret.outdated(s3.PROOF, now.files.get(s3.PROOF), mark):
        host.noop("the accounts were proved")
        return
    yield FunctionCommand(prove, (), {})
    yield secret.write(s3.PROOF, mark)


def proof_mark(model: Cluster) -> Secret:
    """What a proof is about, as a hash."""
    about = (str(model.backup.s3_endpoint), model.backup.region, model.backup.ca or "")

    def make(values: Mapping[str, str]) -> str:
        buckets = [one.bucket for one in s3.accounts(model)]
        text = "\n".join((*about, *buckets, s3.users(model, values)))
        return hashlib.sha256(text.encode()).hexdigest()

    return rendered("what was proved of the S3 service", make)


def prove(state: State, host: Host) -> bool:
    """Try every account; False with the first that does not work as it should."""
    model = cluster()

    def probe() -> Probe:
        for account in s3.accounts(model):
            if flaw := _account_flaw(model, account):
                return Pending(flaw)
        return Done("they work")

    if not until(probe, what="the accounts", timeout=PROOF_TIMEOUT, interval=1.0, host=host):
        return False
    for account in s3.accounts(model):
        host.log(f"{account.name}: put, get and delete work in {account.bucket}, no other's does")
    return True


def _account_flaw(model: Cluster, account: Account) -> str | None:
    """What an account cannot do in its bucket, or can in another's."""
    content = random.token_bytes(32)
    with _as(model, account.secrets) as service:
        try:
            service.try_out(account.bucket, f"{OBJECT}-{random.token_hex(8)}", content)
        except S3Error as error:
            return f"{account.name} in {account.bucket}: {error}"
        for other in s3.accounts(model):
            if other.bucket == account.bucket:
                continue
            match service.listed(other.bucket):
                case Forbidden():
                    continue
                case Present():
                    return f"{account.name} can read {other.bucket}, which is {other.name}'s"
                case answer:
                    return f"{account.name} in {other.bucket}: {answer}"
    return None
