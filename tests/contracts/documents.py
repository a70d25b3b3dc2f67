"""YAML as charts write it: megabytes of CRDs, and the bare `=` that PyYAML alone refuses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import yaml

# Libyaml reads and writes the megabytes in seconds instead of minutes.
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads a scalar `=`, an enum's value in monitoring CRDs, as text."""


Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)


def read(text: str) -> Any:
    """One document."""
    return yaml.load(text, Loader)


def read_all(text: str) -> Iterator[Any]:
    """All documents that are not empty."""
    return (one for one in yaml.load_all(text, Loader) if one)


def write_all(documents: Iterable[Any]) -> str:
    """The text of documents, their keys in the order given."""
    return str(yaml.dump_all(documents, Dumper=_DUMPER, sort_keys=False))
