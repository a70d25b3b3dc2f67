"""pyinfra's walks up the stack do not search all modules for the frames of deploy files."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType

import pytest

from runtime import frames


class Spy(ModuleType):
    """A loaded module that counts how often it is looked at."""

    seen = 0

    def __getattribute__(self, name: str) -> object:
        if name == "__file__":
            Spy.seen += 1
            return f"spy{Spy.seen}.py"
        return super().__getattribute__(name)


@pytest.fixture
def frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FrameType]:
    """A frame of a file that is executed as pyinfra does it, from a relative path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "spy", Spy("spy"))
    Path("site.py").write_text("import sys; frame = sys._getframe()\n")
    data: dict[str, FrameType] = {}
    exec(compile(Path("site.py").read_text(), "site.py", "exec"), data)
    yield data["frame"]
    inspect.modulesbyfile.pop(str(tmp_path / "site.py"), None)


def test_a_known_file_costs_no_search(frame: FrameType) -> None:
    assert inspect.getmodule(frame) is None
    assert Spy.seen > 0, "the search is there to be saved"
    frames.know(["site.py"])
    before = Spy.seen
    assert inspect.getmodule(frame) is None
    assert Spy.seen == before


def test_lines_of_a_known_file_are_still_found(frame: FrameType) -> None:
    """pyinfra tells operations apart by them."""
    before = inspect.getframeinfo(frame)
    frames.know(["site.py"])
    assert inspect.getframeinfo(frame) == before
