"""The operator's kubeconfig: one cluster's entries put among those of others. Pure text."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from io import StringIO
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from cluster.model import Cluster
from cluster.services.api_address import API_PORT

# K3s renews a certificate at a start within this time of its end (documentation, k3s certificate).
RENEWED = timedelta(days=120)
SECTIONS = {"clusters": "cluster", "users": "user", "contexts": "context"}


class Refusal(ValueError):
    """The kubeconfig cannot be changed; the text says why and holds nothing secret."""


@dataclass(frozen=True)
class Entry:
    """What the kubeconfig says about our cluster: all three entries have its name."""

    name: str
    server: str  # URL
    ca: str  # PEM
    certificate: bytes = field(default=b"", repr=False)  # PEM
    key: bytes = field(default=b"", repr=False)  # PEM
    token: str = field(default="", repr=False)


def endpoints(cluster: Cluster) -> frozenset[str]:
    """`host:port` of everything that is our API's address: it tells our entry from another's."""
    names = (*cluster.tls_sans, str(cluster.api_address))
    ports = {API_PORT, cluster.api_port}
    return frozenset(f"{name}:{port}" for name in names for port in ports)


def choose(files: Sequence[tuple[str, str | None]], name: str) -> str:
    """Path of the file of a KUBECONFIG list that is changed, as kubectl chooses it.

    The file that has our context, else the first that exists, else the last.

    files: path and text, None when there is no file.
    """
    for path, text in files:
        if text is not None and _defines(text, name):
            return path
    return next((path for path, text in files if text is not None), files[-1][0])


def merged(text: str | None, entry: Entry, ours: Collection[str], now: datetime) -> str:
    """The kubeconfig with our entries as wanted; the very same text when nothing differs.

    Entries of other clusters, their order and comments stay. Further keys of our entries stay too
    (a namespace, a proxy). `current-context` is set only when there is none.

    text: the file as it is, None when there is none. ours: see `endpoints`. now: with time zone.
    Raises Refusal.
    """
    config = _load(text) if text and text.strip() else _empty()
    changes = _cluster(config, entry, ours) | _user(config, entry, now) | _context(config, entry)
    if not any(changes.values()) and config.get("current-context"):
        return text or ""
    for section, values in changes.items():
        _update(config, section, entry.name, values)
    if not config.get("current-context"):
        config["current-context"] = entry.name
    return _dump(config, text or "")


def problem(text: str | None, name: str, ours: Collection[str]) -> str:
    """Why the kubeconfig will be refused whatever the cluster says; empty when it will not."""
    try:
        config = _load(text) if text and text.strip() else _empty()
        found = _named(config, "clusters", name)
        if found is None:
            _refuse_strays(config, name)
        elif not found.get("certificate-authority-data") and _endpoint(found) not in ours:
            raise _foreign(name, found)
    except Refusal as error:
        return str(error)
    return ""


Changes = dict[str, dict[str, Any]]


def _cluster(config: Mapping[str, Any], entry: Entry, ours: Collection[str]) -> Changes:
    found = _named(config, "clusters", entry.name)
    wanted = {"certificate-authority-data": _encoded(entry.ca.encode()), "server": entry.server}
    if found is None:
        _refuse_strays(config, entry.name)
        return {"clusters": wanted}
    same_ca = _decoded(found.get("certificate-authority-data")) == entry.ca.encode()
    if not same_ca and _endpoint(found) not in ours:
        raise _foreign(entry.name, found)
    return {
        "clusters": _differing(found, wanted, ("certificate-authority", "insecure-skip-tls-verify"))
    }


def _user(config: Mapping[str, Any], entry: Entry, now: datetime) -> Changes:
    found = _named(config, "users", entry.name)
    if found is not None and _still_good(found, entry, now):
        return {"users": {}}
    wanted = {
        "client-certificate-data": _encoded(entry.certificate),
        "client-key-data": _encoded(entry.key),
        "token": entry.token,
    }
    others = ("client-certificate", "client-key", "tokenFile", "exec", "auth-provider")
    return {"users": _differing(found or {}, wanted, (*others, "username", "password"))}


def _context(config: Mapping[str, Any], entry: Entry) -> Changes:
    found = _named(config, "contexts", entry.name)
    wanted = {"cluster": entry.name, "user": entry.name}
    return {"contexts": _differing(found or {}, wanted, ())}


def _differing(
    found: Mapping[str, Any], wanted: Mapping[str, str], unwanted: Collection[str]
) -> dict[str, Any]:
    """The keys to set, and as None the keys to remove."""
    result: dict[str, Any] = {
        key: value or None
        for key, value in wanted.items()
        if (value or None) != (found.get(key) or None)
    }
    return result | {key: None for key in unwanted if key in found}


def _still_good(found: Mapping[str, Any], entry: Entry, now: datetime) -> bool:
    """Whether the user's own certificate may stay.

    Every server has an admin certificate of its own from the same CA, so the one of another
    server is no change.
    """
    if not entry.certificate:
        return bool(entry.token) and found.get("token") == entry.token
    try:
        mine = x509.load_pem_x509_certificate(_decoded(found.get("client-certificate-data")))
        theirs = x509.load_pem_x509_certificate(entry.certificate)
        key = load_pem_private_key(_decoded(found.get("client-key-data")), None)
    except (ValueError, TypeError):
        return False
    lasts = mine.not_valid_after_utc - now >= RENEWED
    return (
        _differing(found, {}, ("client-certificate", "client-key", "exec", "token")) == {}
        and mine.issuer == theirs.issuer
        and mine.subject == theirs.subject
        and _public(mine) == _public(key)
        and (lasts or mine.not_valid_after_utc >= theirs.not_valid_after_utc)
    )


def _public(holder: Any) -> bytes:
    encoded: bytes = holder.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def _refuse_strays(config: Mapping[str, Any], name: str) -> None:
    """A user or a context of our name without a cluster of it belongs to somebody else."""
    for section in ("users", "contexts"):
        if _named(config, section, name) is not None:
            raise Refusal(
                f"it has a {SECTIONS[section]} named {name} but no such cluster: that entry is "
                "not ours; rename it (kubectl config rename-context) or use another file"
            )


def _foreign(name: str, found: Mapping[str, Any]) -> Refusal:
    return Refusal(
        f"its entry {name} is another cluster ({found.get('server') or 'no server'}); rename "
        "that entry, change cluster_name, or use another file (--data kubeconfig=PATH)"
    )


def _load(text: str) -> Any:
    try:
        config = _yaml(text).load(text)
    except YAMLError as error:
        # The error's own text quotes the file, which holds keys.
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise Refusal(f"it is not YAML{where}; nothing was changed") from None
    if not isinstance(config, dict) or config.get("kind", "Config") != "Config":
        raise Refusal("it is not a kubeconfig (kind: Config); nothing was changed")
    for section, item in SECTIONS.items():
        entries = config.get(section) or []
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and isinstance(entry.get(item), dict | None)
            for entry in entries
        ):
            raise Refusal(f"its {section} are not a list of named entries; nothing was changed")
    return config


def _empty() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Config", "clusters": [], "contexts": [], "users": []}


def _named(config: Mapping[str, Any], section: str, name: str) -> dict[str, Any] | None:
    item = SECTIONS[section]
    found = [entry for entry in config.get(section) or () if entry.get("name") == name]
    if len(found) > 1:
        raise Refusal(f"it has {len(found)} {section} named {name}; remove all but one")
    return (found[0].get(item) or {}) if found else None


def _update(config: dict[str, Any], section: str, name: str, values: Mapping[str, Any]) -> None:
    item = SECTIONS[section]
    if not config.get(section):
        config[section] = []
    entry = next((one for one in config[section] if one.get("name") == name), None)
    if entry is None:
        entry = {item: {}, "name": name}
        config[section].append(entry)
    if not entry.get(item):
        entry[item] = {}
    for key, value in values.items():
        if value is None:
            entry[item].pop(key, None)
        else:
            entry[item][key] = value


def _defines(text: str, name: str) -> bool:
    try:
        return _named(_load(text), "contexts", name) is not None if text.strip() else False
    except Refusal:
        return False


def _endpoint(found: Mapping[str, Any]) -> str:
    url = urlsplit(str(found.get("server") or ""))
    try:
        return f"{url.hostname}:{url.port or 443}"
    except ValueError:
        return ""


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(value: object) -> bytes:
    try:
        return base64.b64decode(str(value or ""), validate=True)
    except binascii.Error:
        return b""


def _yaml(text: str) -> YAML:
    """A parser that keeps comments, quotes and the indentation of lists."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1 << 20  # never break a long value
    style = re.search(r"^[a-z-]+:[ \t]*\n( *)- ", text, re.MULTILINE)
    offset = len(style.group(1)) if style else 0
    yaml.indent(mapping=2, sequence=2 + offset, offset=offset)
    return yaml


def _dump(config: dict[str, Any], text: str) -> str:
    out = StringIO()
    _yaml(text).dump(config, out)
    return out.getvalue()
