"""The cluster's admin credential: held in memory, never in a file."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import yaml


class CredentialError(ValueError):
    """A kubeconfig cannot be used; the text says why and holds nothing secret."""


@dataclass(frozen=True)
class Credential:
    """What one kubeconfig says: where, whom to trust, who we are."""

    server: str  # URL as the machine that holds the kubeconfig reaches it
    ca: str = ""  # PEM
    certificate: bytes = field(default=b"", repr=False)  # PEM chain
    key: bytes = field(default=b"", repr=False)  # PEM
    token: str = field(default="", repr=False)

    @property
    def port(self) -> int:
        """Port of the API server."""
        return urlsplit(self.server).port or 443

    def context(self) -> ssl.SSLContext:
        """A TLS context with our certificate that trusts this cluster's CA only."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks host name and chain
        try:
            if self.ca:
                context.load_verify_locations(cadata=self.ca)
            else:
                context.load_default_certs()
            if self.certificate:
                with _readable(self.certificate + b"\n" + self.key) as path:
                    context.load_cert_chain(path)
        except ssl.SSLError as error:
            raise CredentialError(f"its certificates cannot be read ({error.reason})") from None
        return context


def parse_kubeconfig(text: str) -> Credential:
    """Read the current context of a kubeconfig whose data are inside it, as K3s writes it.

    Raises CredentialError for anything else.
    """
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError:
        raise CredentialError("not YAML") from None
    if not isinstance(config, dict):
        raise CredentialError("not a kubeconfig")
    context = _named(config, "contexts", config.get("current-context"), "context")
    cluster = _named(config, "clusters", context.get("cluster"), "cluster")
    user = _named(config, "users", context.get("user"), "user")
    if not cluster.get("server"):
        raise CredentialError("no server in it")
    for part, key in (
        (cluster, "certificate-authority"),
        (user, "client-certificate"),
        (user, "client-key"),
        (user, "exec"),
    ):
        if part.get(key):
            raise CredentialError(f"{key} points elsewhere; allowed: a kubeconfig with its data")
    return Credential(
        server=str(cluster["server"]),
        ca=_decoded(cluster, "certificate-authority-data").decode("ascii", "replace"),
        certificate=_decoded(user, "client-certificate-data"),
        key=_decoded(user, "client-key-data"),
        token=str(user.get("token") or ""),
    )


def _named(config: Mapping[str, Any], section: str, name: object, item: str) -> dict[str, Any]:
    for entry in config.get(section) or ():
        if isinstance(entry, dict) and entry.get("name") == name:
            value = entry.get(item)
            if isinstance(value, dict):
                return value
    raise CredentialError(f"no {item} named {name!r} in it")


def _decoded(part: Mapping[str, Any], key: str) -> bytes:
    try:
        return base64.b64decode(str(part.get(key) or ""), validate=True)
    except binascii.Error:
        raise CredentialError(f"{key} is not base64") from None


@contextlib.contextmanager
def _readable(data: bytes) -> Iterator[str]:
    """A path at which OpenSSL can read the data: `ssl` takes a client key from a path only.

    Anonymous memory where the kernel has it (Linux), else a file 0600 that is removed at once.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("credential", os.MFD_CLOEXEC)
        path = f"/proc/self/fd/{fd}"
    else:
        fd, path = tempfile.mkstemp()
    try:
        os.write(fd, data)
        yield path
    finally:
        os.close(fd)
        if not path.startswith("/proc/"):
            os.unlink(path)
