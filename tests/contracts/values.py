"""Values of a release against the keys and the schema of the real chart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft7Validator, validators

from tests.contracts.contract import Contract, merge
from tests.contracts.free_form import is_free


def unknown_keys(contract: Contract, values: Mapping[str, Any]) -> list[str]:
    """Each key that the real chart does not know, with the keys it has at that place."""
    return list(_unknown(contract, values, contract.defaults, contract.schema or {}, ()))


def schema_problems(contract: Contract, values: Mapping[str, Any]) -> list[str]:
    """What the chart's own schema says about these values merged over its defaults."""
    if contract.schema is None:
        return []
    # Two charts name a metaschema that does not exist; Helm reads them as draft 7 all the same.
    kind = validators.validator_for(contract.schema, default=Draft7Validator)
    validator = kind({k: v for k, v in contract.schema.items() if k != "$schema"})
    merged = merge(contract.defaults, values)
    if contract.name.startswith("istio-"):
        merged = dict(values)  # the schema describes what users write, not the wrapped defaults
    return [
        f"{'.'.join(map(str, error.absolute_path)) or 'values'}: {error.message[:200]}"
        for error in sorted(validator.iter_errors(merged), key=lambda error: str(error.path))
    ]


def _unknown(
    contract: Contract,
    values: Mapping[str, Any],
    defaults: Mapping[str, Any],
    schema: Mapping[str, Any],
    path: tuple[str, ...],
) -> Iterator[str]:
    properties = schema.get("properties") or {}
    for key, value in values.items():
        here = (*path, str(key))
        if is_free(contract.name, here) or (key == "global" and not path):
            continue
        below = _resolved(contract, properties.get(key) or _of_any_key(schema))
        if key not in defaults and not below:
            known = ", ".join(sorted(map(str, {*defaults, *properties})))
            yield f"{'.'.join(here)}: unknown to chart {contract.chart}; it has {known}"
        elif isinstance(value, Mapping):
            default = defaults.get(key)
            if isinstance(default, Mapping):
                if default or below.get("properties"):
                    yield from _unknown(contract, value, default, below, here)
            elif default not in (None, [], "") and not below.get("properties"):
                yield f"{'.'.join(here)}: a map, where chart {contract.chart} has {default!r}"


def _of_any_key(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of keys that are not named, {} where it does not describe them."""
    found = schema.get("additionalProperties")
    return found if isinstance(found, Mapping) else {}


def _resolved(contract: Contract, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref", "")
    if not reference.startswith("#/"):
        return schema
    found: Any = contract.schema
    for part in reference[2:].split("/"):
        found = found[part]
    return found if isinstance(found, Mapping) else {}
