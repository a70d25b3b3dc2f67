"""Components of the platform, one file each; `CATALOGUE` has them by name."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from cluster.component import Component


def _read() -> dict[str, Component]:
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    found = [module.component for module in modules if hasattr(module, "component")]
    return {component.name: component for component in found}


CATALOGUE: dict[str, Component] = _read()
