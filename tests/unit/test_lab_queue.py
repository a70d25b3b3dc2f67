"""In which order files of lab tests are begun (tests/lab/run_all.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.run_all import Queue

MARKS = {
    "cluster": "servers=3, agents=2",
    "lonely": "servers=1, agents=1",
    "plain": "servers=1, agents=1, gateways=1, k3s=False",
    "machine": None,  # no lab at all
}


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    """One file of each kind."""
    for name, asked in MARKS.items():
        text = "" if asked is None else f"pytestmark = pytest.mark.lab({asked})\n"
        (tmp_path / name).write_text(text)
    return Queue(tmp_path.iterdir())


def names(queue: Queue, count: int, only_small: bool = False) -> list[str]:
    found = [queue.next(only_small) for _ in range(count)]
    return [file.name if file else "" for file in found]


def test_what_needs_no_k3s_does_not_wait_for_it(queue: Queue) -> None:
    assert names(queue, 2) == ["machine", "plain"]


def test_once_it_is_built_a_large_lab_comes_first(queue: Queue) -> None:
    queue.built()
    assert names(queue, 5) == ["cluster", "lonely", "machine", "plain", ""]


def test_a_worker_for_small_labs_leaves_the_others_alone(queue: Queue) -> None:
    queue.built()
    assert names(queue, 4, only_small=True) == ["lonely", "machine", "plain", ""]
    assert names(queue, 2) == ["cluster", ""]


def test_a_mark_without_numbers_asks_for_a_whole_cluster(tmp_path: Path) -> None:
    (tmp_path / "default").write_text("pytestmark = pytest.mark.lab\n")
    assert names(Queue(tmp_path.iterdir()), 1, only_small=True) == [""]
