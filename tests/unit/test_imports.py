"""The layout of the code: imports go one way, names are ours, and known traps are not used."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Each may import itself and those after it.
LAYERS = (
    {"commands", "deploys"},
    {"operations"},
    {"facts"},
    {"runtime"},
    {"catalogue", "cluster"},
)
LEVEL = {package: number for number, layer in enumerate(LAYERS) for package in layer}
PACKAGES = sorted(package for package in LEVEL if (ROOT / package).is_dir())
# A package that is installed beside us would win over ours of the same name.
OURS = [package for package in PACKAGES if (ROOT / package / "__init__.py").exists()]


def sources(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text())


def imported(tree: ast.Module) -> Iterator[str]:
    """Full names of modules that the code imports, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports do not work in deploy files"
            yield node.module or ""


def test_imports_go_one_way() -> None:
    wrong = [
        f"{path}: {name}"
        for package in PACKAGES
        for path, tree in sources(package)
        for name in imported(tree)
        if LEVEL.get(name.partition(".")[0], len(LAYERS)) < LEVEL[package]
    ]
    assert wrong == []


def test_the_product_does_not_import_its_tests() -> None:
    wrong = [
        str(path)
        for path, tree in sources(*PACKAGES, "group_data", "inventories")
        for name in imported(tree)
        if name.partition(".")[0] == "tests"
    ]
    assert wrong == []


def test_the_model_is_pure() -> None:
    """No pyinfra, no network, no files: what `cluster` decides can be tested in memory."""
    impure = {"pyinfra", "gevent", "kubernetes", "requests", "subprocess", "socket", "paramiko"}
    wrong = [
        f"{path}: {name}"
        for path, tree in sources("cluster")
        for name in imported(tree)
        if name.partition(".")[0] in impure
    ]
    assert wrong == []


@pytest.mark.parametrize("package", OURS)
def test_a_package_is_ours(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__file__ == str(ROOT / package / "__init__.py")


def test_no_module_hides_behind_a_package_of_its_name() -> None:
    hidden = [
        str(path)
        for package in PACKAGES
        for path, _ in sources(package)
        if path.stem != "__init__" and (ROOT / path.with_suffix("")).is_dir()
    ]
    assert hidden == []


def test_data_files_import_nothing_of_ours() -> None:
    """pyinfra executes every group_data file for every inventory, before anything is checked."""
    wrong = [
        f"{path}: {name}"
        for path, tree in sources("group_data", "inventories")
        for name in imported(tree)
        if name.partition(".")[0] in LEVEL
    ]
    assert wrong == []


def test_change_of_an_operation_is_never_asked_for_while_preparing() -> None:
    """`.changed`, `_run_once` and `--no-wait` do in pyinfra what nobody expects."""
    wrong = []
    for path, tree in sources("deploys", "operations"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in ("changed", "will_change"):
                wrong.append(f"{path}:{node.lineno}: .{node.attr}")
            if isinstance(node, ast.keyword) and node.arg == "_run_once":
                wrong.append(f"{path}:{node.value.lineno}: _run_once")
            if isinstance(node, ast.Constant) and node.value == "--no-wait":
                wrong.append(f"{path}:{node.lineno}: --no-wait")
    assert wrong == []
