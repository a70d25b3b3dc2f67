"""docs/configuration.md names every key, with the default it really has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from cluster import options, secret_table
from cluster.frozen import Model
from cluster.model import Cluster, Host, Parts
from cluster.read import CLUSTER_KEYS

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
ROWS = dict(re.findall(r"^\| `([\w.]+)` \| (.+?) \|", PAGE, re.MULTILINE))
PROSE = ("version", "datastore", "parts", "reserved", "eviction_hard", "secrets_file")


def _fields(model: type[Model], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, Model) and kind is not Parts:
            yield from _fields(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _documented() -> Iterator[tuple[str, FieldInfo]]:
    for name, field in _fields(Cluster):
        top, _, rest = name.partition(".")
        key = next((key for key, target in CLUSTER_KEYS.items() if target == top), None)
        if key:
            # Sections have a table of their own, where keys stand without the section's name.
            own = top in ("platform", "backup", "acme", "services", "first_boot") or not rest
            yield (f"{key}{'.' if rest else ''}{rest}" if own else rest), field
    for name, field in _fields(Host):
        if name not in ("name", "role"):
            yield name, field


@pytest.mark.parametrize(("key", "field"), list(_documented()))
def test_every_key_is_documented_with_its_default(key: str, field: FieldInfo) -> None:
    assert key in ROWS
    if field.is_required():
        expected = "required"
    else:
        value = field.get_default(call_default_factory=True)
        expected = "none" if value is None else f"`{list(value) if value == () else value}`"
    if not any(name in key for name in PROSE):
        assert ROWS[key] == expected


def test_every_part_of_the_nodes_is_named() -> None:
    assert [part for part in Parts.model_fields if f"`{part}`" not in PAGE] == []


def test_every_option_of_a_single_run_is_named() -> None:
    assert set(re.findall(r"^\| `(\w+)=", PAGE, re.MULTILINE)) >= options.OPTIONS.keys()


def test_every_secret_is_named() -> None:
    for kind in secret_table.TABLE:
        made_elsewhere = "you (ours: us)" if kind.make_ours else "you"
        assert ROWS[kind.name] == ("us" if kind.make else made_elsewhere)
