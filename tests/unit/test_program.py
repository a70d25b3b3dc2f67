"""Programs of releases: where each comes from, and what the host is told to do."""

from __future__ import annotations

import pytest

from cluster import programs, versions
from cluster.model import Arch, Source
from cluster.program import Program


@pytest.mark.parametrize(
    ("program", "version", "url"),
    [
        (programs.HELM, "4.2.4", "https://get.helm.sh/helm-v4.2.4-linux-arm64.tar.gz"),
        (
            programs.VERSITYGW,
            "1.8.0",
            "https://github.com/versity/versitygw/releases/download/v1.8.0/"
            "versitygw_v1.8.0_Linux_arm64.tar.gz",
        ),
    ],
)
def test_a_program_comes_from_its_public_release(program: Program, version: str, url: str) -> None:
    item = program.asset(Source(), version, Arch.ARM64)
    assert item.url == url
    assert item.sums_url == f"{url.rpartition('/')[0]}/{item.sums}"


@pytest.mark.parametrize("program", programs.BY_NAME.values(), ids=str)
def test_what_is_installed_by_default_has_a_checksum_of_its_own(program: Program) -> None:
    default = {"helm": versions.HELM, "versitygw": versions.VERSITYGW}[program.name]
    assert {*program.sha256[default]} == {"amd64", "arm64"}


def test_the_release_may_call_an_architecture_by_another_name() -> None:
    item = programs.VERSITYGW.asset(Source(), "1.8.0", Arch.AMD64)
    assert item.name == "versitygw_v1.8.0_Linux_x86_64.tar.gz"
    script = programs.VERSITYGW.install_script(item, "1.8.0", Arch.AMD64)
    assert "versitygw_v1.8.0_Linux_x86_64/versitygw" in script


def test_a_mirror_has_the_layout_of_the_public_site() -> None:
    source = Source(mirror="http://10.0.0.1:8480/", checksums="beside")
    item = programs.VERSITYGW.asset(source, "1.8.0", Arch.ARM64)
    assert item.url == (
        "http://10.0.0.1:8480/versity/versitygw/releases/download/v1.8.0/"
        "versitygw_v1.8.0_Linux_arm64.tar.gz"
    )


def test_a_folder_of_the_operators_machine_has_one_folder_a_version() -> None:
    item = programs.HELM.asset(Source(folder="/srv/k3s"), "4.2.4", Arch.ARM64)
    assert (item.url, item.folder) == (None, "/srv/k3s/helm-v4.2.4")


def test_a_pinned_checksum_counts_unless_the_mirror_vouches() -> None:
    pinned = {versions.HELM: {"arm64": "a" * 64}}
    program = Program(**(programs.HELM.__dict__ | {"sha256": pinned}))
    assert program.asset(Source(), versions.HELM, Arch.ARM64).sha256 == "a" * 64
    own = Source(mirror="http://10.0.0.1", checksums="beside")
    assert program.asset(own, versions.HELM, Arch.ARM64).sha256 is None
