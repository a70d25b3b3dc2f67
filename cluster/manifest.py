"""Manifests: YAML documents into objects, as the tools of Kubernetes read them.

PyYAML reads YAML 1.1, where `12:30` is a number, `2026-01-01` a date and a bare `=` an error;
Kubernetes' reader knows none of the three.
Source: https://github.com/kubernetes-sigs/yaml (its fork of go-yaml v2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

Object = dict[str, Any]


class ManifestError(ValueError):
    """A manifest cannot be read; the text says where and why."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The fast safe loader with Kubernetes' idea of plain scalars."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"y|Y|yes|Yes|YES|on|On|ON|true|True|TRUE|n|N|no|No|NO|off|Off|OFF|false|False|FALSE",
     "yYnNtTfFoO"),
    ("int", r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)"
     r"|\.(nan|NaN|NAN)", "-+0123456789."),
    ("merge", r"<<", "<"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
):  # fmt: skip
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}",
        re.compile(f"^(?:{_pattern})$"),
        [*_first.replace("\0", ""), *([""] if "\0" in _first else [])],
    )


def _int(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    digits = text.lstrip("+-")
    base = {"0b": 2, "0o": 8, "0x": 16}.get(digits[:2].lower())
    if base:
        value = int(digits[2:], base)
    else:
        value = int(digits, 8 if len(digits) > 1 and digits[0] == "0" else 10)
    return -value if text.startswith("-") else value


def _float(loader: Any, node: Any) -> float:
    text = loader.construct_scalar(node).replace("_", "").lower()
    if text.endswith((".inf", ".nan")):
        return float(text.replace(".", ""))
    return float(text)


def _bool(loader: Any, node: Any) -> bool:
    return str(loader.construct_scalar(node)).lower() in ("y", "yes", "on", "true")


_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)
_Loader.add_constructor("tag:yaml.org,2002:bool", _bool)


def load(text: str) -> Iterator[Any]:
    """The documents of a YAML text as plain data; raises ManifestError."""
    try:
        yield from yaml.load_all(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        raise ManifestError(f"{place}{getattr(error, 'problem', None) or error}") from None


def manifest(text: str) -> list[Object]:
    """The objects of a manifest: empty documents dropped, Lists taken apart.

    Raises: ManifestError.
    """
    found: list[Object] = []
    for document in load(text):
        if document is None:
            continue
        if not isinstance(document, dict):
            raise ManifestError(f"an object is a map, not {type(document).__name__}")
        found += _expanded(document)
    return found


def _expanded(document: Object) -> Iterator[Object]:
    if str(document.get("kind", "")).endswith("List") and "items" in document:
        for item in document["items"] or ():
            yield from _expanded(item)
    elif document:
        if not document.get("kind") or not document.get("apiVersion"):
            raise ManifestError("an object without apiVersion and kind")
        yield document
