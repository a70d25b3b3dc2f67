"""Which releases may follow each other."""

import pytest

from cluster import versions
from cluster.versions import Step, upgrade_path


def test_a_jump_over_minors_walks_every_rung() -> None:
    assert upgrade_path("v1.33.4+k3s1", "v1.36.3+k3s1") == (
        Step("v1.34.10+k3s1", minor=True),
        Step("v1.35.7+k3s1", minor=True),
        Step("v1.36.3+k3s1", minor=True),
    )


def test_a_patch_is_one_step_without_drain() -> None:
    assert upgrade_path("v1.36.2+k3s1", "v1.36.3+k3s1") == (Step("v1.36.3+k3s1", minor=False),)


def test_a_k3s_rebuild_of_the_same_patch_is_a_step() -> None:
    assert upgrade_path("v1.33.13+k3s1", "v1.33.13+k3s2") == (Step("v1.33.13+k3s2", minor=False),)


def test_the_same_version_needs_no_step() -> None:
    assert upgrade_path("v1.36.3+k3s1", "v1.36.3+k3s1") == ()


def test_a_downgrade_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"v1\.35\.7\+k3s1 is older than .*restore"):
        upgrade_path("v1.36.3+k3s1", "v1.35.7+k3s1")


def test_a_missing_rung_is_named() -> None:
    with pytest.raises(ValueError, match=r"no release of 1\.29 is pinned"):
        upgrade_path("v1.28.5+k3s1", "v1.30.14+k3s2")


def test_the_ladder_has_one_release_of_each_minor_in_order() -> None:
    minors = [versions.minor(version) for version in versions.K3S_LADDER]
    assert minors == [(1, n) for n in range(30, 30 + len(minors))]
    assert versions.K3S_LADDER[-1] == versions.K3S_DEFAULT


@pytest.mark.parametrize("version", versions.K3S_SHA256)
def test_checksums_are_of_known_releases(version: str) -> None:
    assert versions.known(version)
    for arch, checksum in versions.K3S_SHA256[version].items():
        assert arch in versions.K3S_ASSET
        assert len(checksum) == 64 and int(checksum, 16)


def test_an_agent_may_lag_three_minors_but_not_run_ahead() -> None:
    assert versions.skew_problem("v1.36.3+k3s1", "v1.33.13+k3s2") is None
    assert "more than three" in str(versions.skew_problem("v1.36.3+k3s1", "v1.32.13+k3s1"))
    assert "newer" in str(versions.skew_problem("v1.35.7+k3s1", "v1.36.3+k3s1"))


@pytest.mark.parametrize(
    ("allowed", "fits"),
    [
        ("", True),
        (">=1.25.0-0", True),
        (">= 1.22.0-0", True),
        ("^1.25.0-0", True),
        (">=1.25.0-0 <1.36.0", False),
        (">=1.25, <1.37", True),
        ("~1.36.1", True),
        ("~1.35.1", False),
        ("^2.0.0", False),
        ("1.36.3", True),
        (">1.36.3", False),
    ],
)
def test_charts_state_the_kubernetes_versions_they_work_with(allowed: str, fits: bool) -> None:
    assert versions.fits("v1.36.3+k3s1", allowed) is fits


def test_an_unknown_comparison_is_named() -> None:
    with pytest.raises(ValueError, match="the comparison != is not known"):
        versions.fits("v1.36.3+k3s1", "!=1.2.3")
