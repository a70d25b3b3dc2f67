"""The lab's binaries: built once for each state of the sources, checked before they are served."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.lab import binaries, cache, go
from tests.lab.errors import LabError

BUILD = """\
#!/bin/sh
# A builder in the place of the stand-in's: each "binary" holds its version.
echo run >>"$(dirname "$0")/../runs"
while [ $# -gt 0 ]; do
    case $1 in
        --output) output=$2 ;;
        --arch) arch=$2 ;;
        --version)
            mkdir -p "$output/$2" && echo "$2" >"$output/$2/k3s"
            (cd "$output/$2" && sha256sum k3s >sha256sum-amd64.txt) ;;
    esac
    shift 2
done
[ "$arch" = amd64 ]
"""


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "standin"
    folder.mkdir()
    (folder / "build").write_text(BUILD)
    (folder / "build").chmod(0o755)
    monkeypatch.setattr(go, "STANDIN", folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def runs(sources: Path) -> int:
    return len((sources.parent / "runs").read_text().splitlines())


def test_every_version_gets_a_folder_with_its_own_binary(sources: Path) -> None:
    folders = binaries.folders("stand-in", "amd64")
    assert set(folders) == set(binaries.VERSIONS)
    for version, folder in folders.items():
        assert (folder / "k3s").read_text() == f"{version}\n"


def test_the_list_of_sums_names_the_binary_and_the_images(sources: Path) -> None:
    for folder in binaries.folders("stand-in", "amd64").values():
        lines = (folder / "sha256sum-amd64.txt").read_text().splitlines()
        names = ["k3s", "k3s-airgap-images-amd64.tar.zst"]
        assert [line.split("  ")[1] for line in lines] == names
        for line, name in zip(lines, names, strict=True):
            assert line.split()[0] == hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_an_unchanged_source_is_not_built_again_and_a_changed_one_is(sources: Path) -> None:
    first = binaries.folders("stand-in", "amd64")
    assert binaries.folders("stand-in", "amd64") == first
    assert runs(sources) == 1
    (sources / "main.go").write_text("package main")
    assert binaries.folders("stand-in", "amd64") != first
    assert runs(sources) == 2


def test_old_builds_do_not_pile_up(sources: Path, tmp_path: Path) -> None:
    for number in range(cache.KEPT + 2):
        (sources / "main.go").write_text(str(number))
        binaries.folders("stand-in", "amd64")
    left = list((tmp_path / "cache" / "picluster" / "k3s").iterdir())
    assert len(left) == cache.KEPT


def test_a_failed_build_says_why_and_leaves_nothing_behind(sources: Path, tmp_path: Path) -> None:
    (sources / "build").write_text("#!/bin/sh\necho 'main.go:1: undefined: x' >&2\nexit 2\n")
    with pytest.raises(LabError, match=r"main\.go:1: undefined: x"):
        binaries.folders("stand-in", "amd64")
    assert list((tmp_path / "cache" / "picluster" / "k3s").iterdir()) == []


def test_a_build_with_a_wrong_sum_is_not_served(sources: Path, tmp_path: Path) -> None:
    build = (sources / "build").read_text()
    (sources / "build").write_text(f"{build}\necho damaged >>$output/{binaries.VERSIONS[0]}/k3s\n")
    with pytest.raises(LabError, match="sha256"):
        binaries.folders("stand-in", "amd64")
    assert list((tmp_path / "cache" / "picluster" / "k3s").iterdir()) == []


def test_a_machine_without_go_says_what_to_do(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LabError, match="needs Go"):
        binaries.folders("stand-in", "amd64")


def test_a_checkout_without_the_stand_in_says_what_to_do(sources: Path) -> None:
    (sources / "build").unlink()
    with pytest.raises(LabError, match=r"LAB_K3S=release or LAB_K3S=none"):
        binaries.folders("stand-in", "amd64")


@pytest.fixture
def github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the release pages; its binaries are not the real ones."""
    releases = tmp_path / "github"
    for version in binaries.VERSIONS:
        folder = releases / version
        folder.mkdir(parents=True)
        (folder / "k3s").write_text(version)
        value = hashlib.sha256(version.encode()).hexdigest()
        (folder / "sha256sum-amd64.txt").write_text(f"{value}  k3s\n")
    monkeypatch.setattr(binaries, "RELEASES", releases.as_uri())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return releases


UNPINNED = "v1.36.2+k3s1"


def test_a_release_is_downloaded_once(github: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "VERSIONS", (UNPINNED,))
    folders = binaries.folders("release", "amd64")
    assert (folders[UNPINNED] / "k3s").read_text() == UNPINNED
    (github / UNPINNED / "k3s").unlink()
    assert binaries.folders("release", "amd64") == folders


def test_a_release_that_is_not_the_pinned_one_is_refused(
    github: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(binaries, "VERSIONS", ("v1.36.3+k3s1",))
    with pytest.raises(LabError, match="pinned is"):
        binaries.folders("release", "amd64")
    assert list((tmp_path / "cache" / "picluster" / "k3s" / "release").iterdir()) == []


def test_a_release_that_cannot_be_had_says_which(github: Path) -> None:
    (github / binaries.VERSIONS[0] / "sha256sum-amd64.txt").unlink()
    with pytest.raises(LabError, match=rf"K3s {binaries.VERSIONS[0].replace('+', '.')}:"):
        binaries.folders("release", "amd64")
