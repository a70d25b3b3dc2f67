"""The lab's hosts use the mirror that this machine's apt uses, and nothing else of it."""

from __future__ import annotations

import pytest

from tests.lab.apt import parse_apt_setup
from tests.lab.errors import LabError

TARGETS = """\
Packages|http://mirror.example/debian|bookworm|main
DEP-11|http://mirror.example/debian|bookworm|main
Packages|http://mirror.example/debian|bookworm|contrib
Packages|http://mirror.example/debian|bookworm-updates|main
Packages|http://mirror.example/security|bookworm-security|main
Packages|http://vendor.example/linux|bookworm|stable
Packages|http://vendor.example/node|nodistro|main
"""
DUMP = """\
APT "";
Acquire::Check-Date "false";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::https::Proxy "http://127.0.0.1:3128";
Acquire::Languages "none";
"""


def test_suite_mirror_and_components_are_those_of_the_distribution() -> None:
    setup = parse_apt_setup("bookworm", TARGETS, "")
    assert (setup.suite, setup.mirror) == ("bookworm", "http://mirror.example/debian")
    assert setup.components == ("main", "contrib")


def test_updates_and_security_are_kept_and_archives_of_others_left_out() -> None:
    assert parse_apt_setup("bookworm", TARGETS, "").sources == (
        "deb http://mirror.example/debian bookworm main contrib",
        "deb http://mirror.example/debian bookworm-updates main",
        "deb http://mirror.example/security bookworm-security main",
    )


def test_a_proxy_is_taken_over_unless_it_lives_on_this_machine() -> None:
    assert parse_apt_setup("bookworm", TARGETS, DUMP).conf == (
        'Acquire::Check-Date "false";',
        'Acquire::http::Proxy "http://proxy.example:3128";',
    )


@pytest.mark.parametrize("codename", ["trixie", ""])
def test_no_archive_of_this_system_is_an_answer_not_a_traceback(codename: str) -> None:
    with pytest.raises(LabError, match="no archive"):
        parse_apt_setup(codename, TARGETS, DUMP)
