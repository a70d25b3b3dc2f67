"""Inventory and group_data files that cannot be read: said in one line each, as other bad input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from traceback import extract_tb
from typing import Any

from pyinfra.api.exceptions import PyinfraError
from pyinfra_cli import inventory, util
from pyinfra_cli.exceptions import UnexpectedExternalError

from cluster.problem import Problem, Problems
from runtime.inventory import CONTROL, ROLES

HERE = ["@local"]  # what the group control holds
_HOST = '("node1", {"ip": "10.0.0.11", ...})'
_PYTHON = {"true": "True", "false": "False", "null": "None", "none": "None"}


def install(refuse: Callable[[Problems], object] | None = None) -> None:
    """Let pyinfra read them by `run`; refuse: ends the run where Problems would be no answer."""

    def read(filename: str, *options: bool, **named: bool) -> dict[str, Any]:
        try:
            return run(filename, *options, **named)
        except Problems as error:
            if refuse:
                refuse(error)
            raise

    inventory.exec_file = read


def run(filename: str, return_locals: bool = False, is_deploy_code: bool = False) -> dict[str, Any]:
    """What pyinfra's own function does, for files whose groups hold hosts; raises Problems."""
    try:
        found: dict[str, Any] = util.exec_file(filename, return_locals, is_deploy_code)
    except PyinfraError:
        raise
    except SyntaxError as error:
        raise Problems([_broken(error.filename or filename, error.lineno, error.msg)]) from None
    except UnexpectedExternalError as error:
        raise Problems([_failed(filename, error.exception)]) from None
    except OSError as error:  # to open it: what it does itself is the case before
        raise Problems([Problem(_shown(filename), str(error.strerror), "a file")]) from None
    except UnicodeDecodeError as error:
        raise Problems([Problem(_shown(filename), str(error), "text in UTF-8")]) from None
    if Path(filename).parent.name != "group_data" and (
        problems := list(_misshapen(_shown(filename), found))
    ):
        raise Problems(problems)
    return found


def _broken(filename: str, line: int | None, what: str) -> Problem:
    place = f"{_shown(filename)}: line {line}" if line else _shown(filename)
    return Problem(place, f"not Python: {what}")


def _failed(filename: str, error: Exception) -> Problem:
    """An error while the file ran, with the last line of it that was reached."""
    lines = [frame.lineno for frame in extract_tb(error._traceback) if frame.filename == filename]  # type: ignore[attr-defined]
    where = f"{_shown(filename)}: line {lines[-1]}" if lines else _shown(filename)
    known = _PYTHON.get(getattr(error, "name", None) or "", "")
    return Problem(where, f"{type(error).__name__}: {error}", suggestion=known)


def _misshapen(filename: str, found: dict[str, Any]) -> Iterator[Problem]:
    for group in ROLES:
        hosts = found.get(group, [])
        if isinstance(hosts, tuple) and len(hosts) == 2 and isinstance(hosts[0], list):
            hosts = hosts[0]  # with data for all of them
        if not isinstance(hosts, list):
            yield Problem(f"{filename}: {group}", _short(hosts), f"a list of hosts: [{_HOST}]")
            continue
        for host in hosts:
            named = isinstance(host, tuple) and len(host) == 2 and isinstance(host[0], str)
            if not isinstance(host, str) and not (named and isinstance(host[1], dict)):
                yield Problem(f"{filename}: {group}", _short(host), _HOST)

    if (control := found.get(CONTROL, HERE)) != HERE and any(group in found for group in ROLES):
        yield Problem(f"{filename}: {CONTROL}", _short(control), f"{HERE}, where pyinfra runs")


def _shown(filename: str) -> str:
    """The file as other problems name it: from here, where it lies below."""
    path, here = Path(filename).absolute(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else filename


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
