"""The text of a file of secrets: what is missing is filled in, what is plaintext found. Pure."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from cluster.secret_table import SecretKind

_INDENT = 4  # as sops writes it


class Filled(NamedTuple):
    """The new text, the names that were made, and the empty ones added for the user to fill in."""

    text: str
    made: tuple[str, ...]
    blank: tuple[str, ...]


def header(name: str) -> str:
    """The first lines of a new file of secrets."""
    return (
        f"# Secrets of the cluster {name}, readable with the age keys that .sops.yaml names.\n"
        "# `make secrets INVENTORY=...` fills in what is missing and keeps everything else.\n"
    )


def fill(text: str, kinds: Sequence[SecretKind], anew: Collection[str] = ()) -> Filled:
    """Add the secrets that a plaintext YAML file lacks; what is there stays, comments too.

    anew: names of secrets that are made although they are there.

    Raises ValueError when the text is no mapping, or a value stands where names must nest.
    """
    editor = _editor()
    data = _load(editor, text)
    made, blank, before = [], [], _names(data)
    for kind in kinds:
        section, key = _place(data, kind)
        if section.get(key) not in (None, "") and kind.name not in anew:
            continue
        if kind.make:
            section[key] = kind.make()
            made.append(kind.name)
        elif kind.name not in before:
            section[key] = ""
            blank.append(kind.name)
        if kind.name not in before:
            depth = kind.name.count(".") * _INDENT
            section.yaml_set_comment_before_after_key(key, before=kind.purpose, indent=depth)
    out = io.StringIO()
    if data:
        editor.dump(data, out)
    # ruamel gives an empty mapping no place to hang its comments on.
    start = text if not before and not data.ca.comment else ""
    return Filled(start + out.getvalue(), tuple(made), tuple(blank))


def _editor() -> YAML:
    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 4096  # a long value stays on its line
    editor.indent(mapping=_INDENT, sequence=_INDENT + 2, offset=_INDENT)
    return editor


def _load(editor: YAML, text: str) -> CommentedMap:
    try:
        data = editor.load(text)
    except YAMLError:
        raise ValueError("not YAML") from None
    if data is None:
        return CommentedMap()
    if not isinstance(data, CommentedMap):
        raise ValueError("not a mapping of names to secrets")
    return data


def _names(data: Mapping[str, Any], prefix: str = "") -> set[str]:
    names = set()
    for key, value in data.items():
        names.add(f"{prefix}{key}")
        if isinstance(value, Mapping):
            names |= _names(value, f"{prefix}{key}.")
    return names


def _place(data: CommentedMap, kind: SecretKind) -> tuple[CommentedMap, str]:
    *parents, key = kind.name.split(".")
    for parent in parents:
        data = data.setdefault(parent, CommentedMap())
        if not isinstance(data, CommentedMap):
            raise ValueError(f"{parent} holds a value, expected names below it ({kind.name})")
    return data, key


_ENCRYPTED = re.compile(r"ENC\[[A-Z0-9_]+,data:.*\]", re.DOTALL)


def unencrypted(name: str, text: str) -> list[str]:
    """What keeps a `*.sops.*` file from being committed, one line each; never a value."""
    if not name.endswith((".yaml", ".yml", ".json")):
        return [] if re.search(r"sops_mac|\"sops\"", text) else [f"{name}: not encrypted by sops"]
    try:
        documents = (
            [json.loads(text)] if name.endswith(".json") else [*yaml.safe_load_all(text)] or [None]
        )
    except (ValueError, yaml.YAMLError):
        return [f"{name}: cannot be read, so nobody knows whether it is encrypted"]
    found = []
    for document in documents:
        metadata = document.get("sops") if isinstance(document, dict) else None
        if not isinstance(metadata, dict) or "mac" not in metadata:
            found.append(f"{name}: not encrypted by sops")
            continue
        rest = {key: value for key, value in document.items() if key != "sops"}
        found += [
            f"{name}: {'.'.join(path)} is plaintext"
            for path, value in _leaves(rest)
            if _must_be_encrypted(path, metadata) and not _is_encrypted(value)
        ]
    return found


def _leaves(data: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from _leaves(value, (*path, str(key)))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _leaves(value, (*path, str(index)))
    else:
        yield path, data


def _is_encrypted(value: Any) -> bool:
    if value is None or value == "":  # sops leaves these as they are
        return True
    return isinstance(value, str) and _ENCRYPTED.fullmatch(value) is not None


def _must_be_encrypted(path: Sequence[str], metadata: Mapping[str, Any]) -> bool:
    """Whether sops encrypts this value, by the rule its metadata record."""
    for rule, matches in (
        ("encrypted_regex", re.search),
        ("encrypted_suffix", lambda rule, key: key.endswith(rule)),
    ):
        if wanted := metadata.get(rule):
            return any(matches(wanted, key) for key in path)
    if regex := metadata.get("unencrypted_regex"):
        return not any(re.search(regex, key) for key in path)
    suffix = metadata.get("unencrypted_suffix", "_unencrypted")
    return not suffix or not any(key.endswith(suffix) for key in path)


def holds_age_key(text: str) -> bool:
    """Whether a private age key stands in the text."""
    # In pieces, so that this file does not look like one.
    return (
        re.search("AGE-SECRET-KEY-" + r"1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}", text) is not None
    )
