"""The lab's small pure parts: time packets, checksums, records, fingerprints, cache keys."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab import binaries, engine, hosts, image, machine, ntp, plan, removals
from tests.lab.cache import files_digest
from tests.lab.charts import repository
from tests.lab.errors import LabError
from tests.lab.fingerprint import difference, parse
from tests.lab.lab import Lab
from tests.lab.plan import ROOT, names
from tests.lab.record import Record, as_json, from_json, load_record


def request(mode: int = 3, version: int = 4, sent: int = 0x1122334455667788) -> bytes:
    return struct.pack("!B39xQ", version << 3 | mode, sent)


def test_a_time_answer_repeats_the_clients_stamp_and_version() -> None:
    packet = ntp.answer(request(version=3), 1_000_000_000.5, 1_000_000_000.75)
    assert packet is not None
    assert packet[0] == 3 << 3 | 4
    origin, received, sent = struct.unpack("!24xQQQ", packet)
    assert origin == 0x1122334455667788
    assert received >> 32 == 1_000_000_000 + 2_208_988_800
    assert (received & 0xFFFFFFFF, sent & 0xFFFFFFFF) == (1 << 31, 3 << 30)


@pytest.mark.parametrize("packet", [b"", b"\x23", request(mode=4), request(mode=6)])
def test_what_is_no_clients_question_gets_no_time_answer(packet: bytes) -> None:
    assert ntp.answer(packet, 0.0, 0.0) is None


def release(folder: Path, line: str) -> Path:
    (folder / "k3s").write_bytes(b"binary")
    (folder / "sha256sum-amd64.txt").write_text(line)
    return folder


BINARY_SUM = "9a3a45d01531a20e89ac6ae10b0b0beb0492acd7216a368aa062d1a5fecaf9cd"


def test_a_binary_that_matches_its_sum_is_accepted(tmp_path: Path) -> None:
    binaries.check_sums(release(tmp_path, f"{BINARY_SUM}  k3s\n"), "amd64")


@pytest.mark.parametrize("line", ["", f"{'0' * 64}  k3s\n", f"{BINARY_SUM}  k3s-arm64\n"])
def test_a_binary_without_its_sum_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(LabError, match="sha256"):
        binaries.check_sums(release(tmp_path, line), "amd64")


def test_an_unknown_kind_of_binaries_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_K3S", "relase")
    with pytest.raises(LabError, match="auto, release, stand-in, none"):
        binaries.choose()


def test_what_is_simulated_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_K3S", "stand-in")
    assert "stand-in (one build under 4 version strings)" in binaries.choose().description


def record() -> Record:
    return Record(
        hosts=names().hosts(1, 1, 0),
        image="picluster-lab-host:1",
        image_kind="bookworm",
        k3s_kind="stand-in",
        k3s_versions=("v1.36.3+k3s1",),
        arch="amd64",
        charts_kind="surrogate",
    )


def test_the_record_survives_json_and_holds_no_absolute_path() -> None:
    data = as_json(names(), record())
    assert from_json(json.loads(json.dumps(data))) == record()
    assert str(ROOT) not in json.dumps(data)
    assert data["ssh_key"] == "build/lab/id_ed25519"


def test_real_charts_come_from_their_own_repositories() -> None:
    assert as_json(names(), record())["charts"] == "http://198.18.10.1:8480/charts"
    assert as_json(names(), replace(record(), charts_kind="real"))["charts"] is None


def test_an_unknown_kind_of_charts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_CHARTS", "reel")
    with pytest.raises(LabError, match="auto, real, surrogate"):
        repository.choose()


def test_an_unknown_host_is_named_with_those_that_exist() -> None:
    with pytest.raises(LabError, match="no host 'node9' in this lab: node1, node2"):
        record().host("node9")


def test_a_missing_record_is_no_lab_and_a_broken_one_says_so(tmp_path: Path) -> None:
    assert load_record(tmp_path / "lab.json") is None
    (tmp_path / "lab.json").write_text('{"hosts": []}')
    with pytest.raises(LabError, match=r"lab\.json: not a lab record"):
        load_record(tmp_path / "lab.json")


def test_a_fingerprint_joins_the_values_of_one_thing() -> None:
    assert parse("file\t/a\tf 644 0:0 \nlink\teth0\tpresent\nfile\t/a\tabcd\n") == {
        "file /a": "f 644 0:0 abcd",
        "link eth0": "present",
    }


def test_a_difference_names_what_came_went_and_changed() -> None:
    before = {"file /a": "1", "link x": "present", "unit u": "active"}
    after = {"file /a": "2", "unit u": "active", "mount /m": "ext4"}
    assert difference(before, after) == [
        "~ file /a: 1 -> 2",
        "- link x: present",
        "+ mount /m: ext4",
    ]


def test_a_cache_key_follows_content_name_and_mode_but_not_documents(tmp_path: Path) -> None:
    (tmp_path / "main.go").write_text("package main")
    keys = [files_digest(tmp_path)]
    (tmp_path / "README.md").write_text("text")
    (tmp_path / "main_test.go").write_text("package main")
    assert files_digest(tmp_path) == keys[0]
    (tmp_path / "main.go").write_text("package other")
    keys.append(files_digest(tmp_path))
    (tmp_path / "main.go").chmod(0o755)
    keys.append(files_digest(tmp_path))
    (tmp_path / "main.go").rename(tmp_path / "other.go")
    keys += [files_digest(tmp_path), files_digest(tmp_path, "arm64")]
    assert len(set(keys)) == 5


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "max_user_instances"
    file.write_text("128\n")
    return file


def test_a_low_limit_of_the_machine_is_raised_and_said_and_put_back(limit: Path) -> None:
    line = machine.ensure(limit)
    assert line is not None and "from 128 to 8192" in line
    assert machine.ensure(limit) is None
    assert limit.read_text() == "8192"
    machine.restore(limit)
    assert limit.read_text() == "128"


def test_a_limit_that_is_high_enough_is_never_touched(limit: Path) -> None:
    limit.write_text("1024\n")
    assert machine.ensure(limit) is None
    machine.restore(limit)
    assert limit.read_text() == "1024\n"


def shown(text: bytes, code: int = 0) -> bytes:
    return text + f"\n{len(text)} {code} {hosts.MARK}".encode()


@pytest.mark.parametrize("text", [b"", b"one\ntwo\n", b"no newline at the end", b"\xff\n"])
def test_an_output_that_came_whole_is_taken(text: bytes) -> None:
    assert hosts._whole(shown(text, 3)) == (3, text.decode(errors="replace"))


@pytest.mark.parametrize(
    "output",
    [b"", b"one\ntwo\n", shown(b"one\ntwo\n")[4:], shown(b"one\n")[:-4], shown(b"one\n")[5:]],
)
def test_an_output_of_which_something_is_missing_is_not_taken(output: bytes) -> None:
    assert hosts._whole(output) is None


def test_the_first_line_of_a_start_says_what_is_real(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def connect(say: Callable[[str], None]) -> None:
        say("started the Docker engine")

    def stop(*given: object) -> None:
        raise LabError("far enough")

    monkeypatch.setattr(engine, "connect", connect)
    monkeypatch.setattr(engine, "arch", lambda client: "amd64")
    monkeypatch.setattr(image, "choose", lambda client: image.Source(None, None, "of the test"))
    monkeypatch.setattr(image, "build", stop)
    monkeypatch.setattr(plan, "ROOT", tmp_path)
    monkeypatch.setenv("LAB_K3S", "stand-in")
    said: list[str] = []
    with pytest.raises(LabError, match="far enough"):
        Lab("firstline", say=said.append).up()
    assert said[0].startswith("lab firstline: hosts of the test; k3s stand-in")
    assert said[1:] == ["started the Docker engine"]


def test_a_helm_that_takes_away_what_no_test_names_is_found(tmp_path: Path) -> None:
    argvs = [
        ["upgrade", "velero", "velero.tgz"],
        ["uninstall", "velero", "--namespace", "velero"],
        ["uninstall", "longhorn", "--namespace", "longhorn-system"],
        ["rollback", "oauth2-proxy", "3"],  # its component says that it may go back
        ["rollback", "velero", "3"],
    ]
    lines = [{"host": "node1", "seconds": 1}, *({"server": "node1", "helm": one} for one in argvs)]
    file = tmp_path / "trace"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert removals.helms(file) == argvs
    found = removals.unmeant(removals.helms(file), {"velero"})
    assert found == ["uninstall longhorn", "rollback velero"]
    assert removals.helms(tmp_path / "none") == []
