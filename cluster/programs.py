"""The programs that hosts run and that no package brings."""

from __future__ import annotations

from cluster import versions
from cluster.model import Arch
from cluster.program import Program

HELM = Program(
    name="helm",
    archive="helm-v{version}-linux-{arch}.tar.gz",
    member="linux-{arch}/helm",
    site="https://get.helm.sh",
    place="",
    sums="helm-v{version}-linux-{arch}.tar.gz.sha256sum",
    sha256=versions.HELM_SHA256,
)

# Source: the release's .goreleaser.yaml.
VERSITYGW = Program(
    name="versitygw",
    archive="versitygw_v{version}_Linux_{arch}.tar.gz",
    member="versitygw_v{version}_Linux_{arch}/versitygw",
    site="https://github.com",
    place="versity/versitygw/releases/download/v{version}",
    sums="checksums.txt",
    arches={Arch.AMD64: "x86_64"},
    sha256=versions.VERSITYGW_SHA256,
)

BY_NAME = {program.name: program for program in (HELM, VERSITYGW)}
