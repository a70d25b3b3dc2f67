"""The tool that hosts run, with a restic that a script plays: what it asks, tells and compares."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from operations.tools import backup

RESTIC = """#!/bin/sh
echo "$*" >> {folder}/asked
for word; do case $word in
  backup|forget|check|restore|ls|stats) exec {folder}/$word "$@" ;;
esac; done
"""


class World:
    """A folder with settings, live files and programs that play restic's commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.live = folder / "live"
        self.live.mkdir()
        (folder / "cache").mkdir()
        self.settings: dict[str, Any] = {
            "host": "node1",
            "paths": [str(self.live), str(folder / "nowhere")],
            "exclude": ["*.tmp"],
            "keep": {"daily": 7, "weekly": 0, "monthly": 6},
            "check_share": 5,
            "ca": "/etc/ca.pem",
            "cache": str(folder / "cache"),
            "state": str(folder / "state"),
            "metrics": str(folder / "metrics" / "picluster_backup.prom"),
            "locked_wait": 5,
            "locked_pause": 0.01,
        }
        self.program("restic", RESTIC.format(folder=folder))

    def program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)

    def run(self, task: str) -> int:
        file = self.folder / "settings.json"
        file.write_text(json.dumps(self.settings))
        return backup.main([task], str(file))

    @property
    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().splitlines()

    def metric(self, name: str, task: str) -> float:
        text = Path(self.settings["metrics"]).read_text()
        line = f'picluster_backup_{name}{{task="{task}"}} '
        return float(text.partition(line)[2].partition("\n")[0])

    def restores(self, **contents: str) -> None:
        """Play a backup that has files below the live folder with these contents."""
        nodes = [
            {"type": "file", "path": str(self.live / name), "size": len(text)}
            for name, text in contents.items()
        ]
        lines = "\n".join(map(json.dumps, [{"struct_type": "snapshot"}, *nodes]))
        self.program("ls", f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\n")
        copies = "".join(
            f'mkdir -p "$to{self.live}"; printf %s {text!r} > "$to{self.live}/{name}"; '
            f'touch -d @1000000000 "$to{self.live}/{name}"\n'
            for name, text in contents.items()
        )
        find = 'while [ "$1" != --target ]; do shift; done; to=$2\n'
        self.program("restore", f"#!/bin/sh\n{find}{copies}")

    def has(self, name: str, text: str, at: int = 1_000_000_000) -> None:
        path = self.live / name
        path.write_text(text)
        os.utime(path, (at, at))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return World(tmp_path)


SUMMARY = json.dumps(
    {
        "message_type": "summary",
        "total_files_processed": 12,
        "total_bytes_processed": 3400,
        "data_added": 560,
    }
)


def test_a_backup_takes_what_is_there_and_shows_its_figures(world: World) -> None:
    world.program("backup", f"#!/bin/sh\necho '{SUMMARY}'\n")
    assert world.run("backup") == 0
    (line,) = world.asked
    assert f"--cacert /etc/ca.pem backup --json --host node1 --tag {backup.TAG}" in line
    assert f"--exclude=*.tmp -- {world.live}" in line and "nowhere" not in line
    assert world.metric("files", "backup") == 12
    assert world.metric("added_bytes", "backup") == 560
    assert world.metric("exit_code", "backup") == 0
    assert world.metric("last_success_timestamp_seconds", "backup") > 0


def test_a_failure_shows_and_the_last_success_and_figures_stay(world: World) -> None:
    world.program("backup", f"#!/bin/sh\necho '{SUMMARY}'\n")
    world.run("backup")
    good = world.metric("last_success_timestamp_seconds", "backup")
    world.program("backup", "#!/bin/sh\necho 'Fatal: no space' >&2\nexit 1\n")
    assert world.run("backup") == 1
    assert world.metric("exit_code", "backup") == 1
    assert world.metric("last_success_timestamp_seconds", "backup") == good
    assert world.metric("files", "backup") == 12


def test_a_backup_that_could_not_read_everything_is_a_failure(world: World) -> None:
    world.program("backup", f"#!/bin/sh\necho '{SUMMARY}'\nexit 3\n")
    assert world.run("backup") == 3
    assert world.metric("exit_code", "backup") == 3


def test_a_lock_of_another_host_is_waited_for_and_never_removed(world: World) -> None:
    world.program(
        "check",
        f"#!/bin/sh\n[ -e {world.folder}/second ] && exit 0\ntouch {world.folder}/second\n"
        "echo 'Fatal: unable to create lock: repository is already locked by PID 7' >&2; exit 1\n",
    )
    assert world.run("check") == 0
    assert len(world.asked) == 2
    assert not any("unlock" in line for line in world.asked)


def test_prune_forgets_all_hosts_backups_by_what_is_kept(world: World) -> None:
    world.program("forget", "#!/bin/sh\n")
    world.program("stats", "#!/bin/sh\necho '{\"total_size\": 789}'\n")
    assert world.run("prune") == 0
    assert (
        "--prune --tag picluster --group-by host --keep-daily=7 --keep-monthly=6"
        in (world.asked[0])
    )
    assert "--host" not in world.asked[0] and "weekly" not in world.asked[0]
    assert world.metric("repository_bytes", "prune") == 789


def test_unchanged_files_must_come_back_the_same(world: World) -> None:
    world.restores(same="abc", changed="old", gone="x")
    world.has("same", "abc")
    world.has("changed", "new content", at=1_700_000_000)
    assert world.run("restore") == 0
    assert world.metric("compared_files", "restore") == 1
    assert list((world.folder / "cache").iterdir()) == []


def test_an_unchanged_file_that_comes_back_different_is_a_failure(world: World) -> None:
    world.restores(same="abc", rotten="abd")
    world.has("same", "abc")
    world.has("rotten", "abc")
    assert world.run("restore") == 1
    assert world.metric("different_files", "restore") == 1


def test_a_test_that_could_compare_nothing_is_no_success(world: World) -> None:
    world.restores(changed="old")
    world.has("changed", "new", at=1_700_000_000)
    assert world.run("restore") == 1


def test_a_file_that_does_not_come_back_is_a_failure(world: World) -> None:
    world.restores(same="abc", lost="abc")
    restore = (world.folder / "restore").read_text()
    kept = [line for line in restore.splitlines() if "/lost" not in line]
    world.program("restore", "\n".join(kept))
    world.has("same", "abc")
    world.has("lost", "abc")
    assert world.run("restore") == 1
    assert world.metric("compared_files", "restore") == 1


def test_what_a_power_cut_left_of_a_restore_is_removed(world: World) -> None:
    (world.folder / "cache" / "restore-old").mkdir()
    world.restores(same="abc")
    world.has("same", "abc")
    world.run("restore")
    assert list((world.folder / "cache").iterdir()) == []


def test_a_broken_tool_leaves_a_failure_and_not_silence(world: World) -> None:
    del world.settings["check_share"]
    with pytest.raises(KeyError):
        world.run("check")
    assert world.metric("exit_code", "check") == 1


@pytest.mark.parametrize(
    ("result", "code", "shown"), [("success", 0, 0), ("timeout", 0, 1), ("exit-code", 3, 3)]
)
def test_a_job_that_was_killed_is_a_failure(
    world: World, monkeypatch: pytest.MonkeyPatch, result: str, code: int, shown: int
) -> None:
    world.program("backup", f"#!/bin/sh\necho '{SUMMARY}'\nexit {code}\n")
    world.run("backup")
    good = world.metric("last_success_timestamp_seconds", "backup")
    monkeypatch.setenv("SERVICE_RESULT", result)
    assert backup.main(["ended", "backup"], str(world.folder / "settings.json")) == 0
    assert world.metric("exit_code", "backup") == shown
    assert world.metric("last_success_timestamp_seconds", "backup") == good
    assert world.metric("files", "backup") == 12


def test_the_sample_keeps_within_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "SAMPLE_FILES", 3)
    monkeypatch.setattr(backup, "SAMPLE_BYTES", 100)
    nodes = [{"type": "file", "path": f"/f{n}", "size": 40} for n in range(9)]
    nodes += [{"type": "dir", "path": "/d"}, {"type": "file", "path": "/big", "size": 1000}]
    chosen = backup.sample(nodes)
    assert len(chosen) == 2 and "/big" not in chosen


def test_a_path_means_itself_as_a_pattern() -> None:
    assert backup.escaped("/a[1]*?\\b") == "/a\\[1\\]\\*\\?\\\\b"


def test_an_unknown_job_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert backup.main(["unlock"]) == backup.main(["ended"]) == backup.main(["ended", "x"]) == 2
    assert "usage" in capsys.readouterr().err
