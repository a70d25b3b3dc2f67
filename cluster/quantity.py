"""Values that the API writes in its own way: quantities and durations."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_SUFFIX: dict[str, Decimal] = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal("1e3"), "M": Decimal("1e6"), "G": Decimal("1e9"),
    "T": Decimal("1e12"), "P": Decimal("1e15"), "E": Decimal("1e18"),
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}  # fmt: skip
_QUANTITY = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([a-zA-Z]{0,2})")
# Go's time.ParseDuration, in nanoseconds.
_UNITS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6,
    "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")


def quantity(value: str | int | float) -> Decimal | None:
    """The number a quantity such as `500m` or `1Gi` stands for, None when it is none."""
    found = _QUANTITY.fullmatch(str(value).strip())
    if not found or found[2] not in _SUFFIX:
        return None
    try:
        return Decimal(found[1]) * _SUFFIX[found[2]]
    except InvalidOperation:
        return None


def same_quantity(one: str | int | float, other: str | int | float) -> bool:
    """Whether two quantities are the same number; texts that are none must be equal."""
    left, right = quantity(one), quantity(other)
    if left is None or right is None:
        return str(one) == str(other)
    return left == right


def nanoseconds(text: str) -> Decimal | None:
    """The length of a duration such as `1h30m`, None when it is none."""
    sign = -1 if text.startswith("-") else 1
    rest = text.lstrip("+-")
    parts = list(_PART.finditer(rest))
    if not parts or "".join(part[0] for part in parts) != rest:
        return None
    return sign * sum((Decimal(part[1]) * _UNITS[part[2]] for part in parts), Decimal(0))


def same_duration(one: str, other: str) -> bool:
    """Whether two texts are durations of the same length; other texts must be equal."""
    left = nanoseconds(one)
    return one == other if left is None else left == nanoseconds(other)
