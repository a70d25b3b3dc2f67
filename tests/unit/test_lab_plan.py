"""The lab's plan: names and addresses, and the refusal of what Docker would choke on later."""

from __future__ import annotations

import pytest

from tests.lab.errors import LabError
from tests.lab.plan import IFNAME_LENGTH, names


def test_servers_come_first_then_agents_then_spare_hosts_with_consecutive_addresses() -> None:
    hosts = names().hosts(servers=2, agents=1, spare=1)
    assert [(host.name, host.role, host.ip) for host in hosts] == [
        ("node1", "server", "198.18.10.11"),
        ("node2", "server", "198.18.10.12"),
        ("node3", "agent", "198.18.10.13"),
        ("node4", "spare", "198.18.10.14"),
    ]


def test_hosts_beside_the_cluster_have_names_by_role_and_addresses_before_the_nodes() -> None:
    hosts = names().hosts(1, 0, 0, gateways=2, externals=2)
    assert [(host.name, host.role, host.ip) for host in hosts[1:]] == [
        ("gateway", "gateway", "198.18.10.2"),
        ("gateway2", "gateway", "198.18.10.3"),
        ("external", "external", "198.18.10.6"),
        ("external2", "external", "198.18.10.7"),
    ]
    with pytest.raises(LabError, match="room for 5"):
        names().hosts(1, 0, 0, externals=6)


def test_labs_of_different_names_share_no_name_path_or_address() -> None:
    one, other, third = names("lab"), names("test"), names("demo")
    for attribute in ("network", "bridge", "mirror", "state", "ssh_key", "known_hosts"):
        assert len({getattr(lab, attribute) for lab in (one, other, third)}) == 3
    assert one.container("node1") != other.container("node1")
    assert not one.subnet.overlaps(other.subnet)
    assert not one.subnet.overlaps(third.subnet)


def test_a_bridge_name_fits_into_the_kernels_limit_and_differs_for_names_that_begin_alike() -> None:
    one, other = names("abcdefghijklmnop"), names("abcdefghijklmnoq")
    assert len(one.bridge) <= IFNAME_LENGTH
    assert one.bridge != other.bridge


def test_a_subnet_of_ones_own_moves_gateway_and_hosts() -> None:
    lab = names("lab", "192.0.2.0/24")
    assert lab.gateway == "192.0.2.1"
    assert lab.hosts(1, 0, 0)[0].ip == "192.0.2.11"


@pytest.mark.parametrize(
    ("name", "subnet", "message"),
    [
        ("Lab", None, "lower-case letter"),
        ("a-b", None, "lower-case letter"),
        ("", None, "lower-case letter"),
        ("lab", "198.18.10.5/24", "host bits set"),
        ("lab", "fd00::/64", "4 octets"),
        ("lab", "198.18.10.0/30", "too small"),
    ],
)
def test_unusable_names_and_subnets_are_refused(
    name: str, subnet: str | None, message: str
) -> None:
    with pytest.raises(LabError, match=message):
        names(name, subnet)


@pytest.mark.parametrize("size", [(0, 1, 0), (1, -1, 0), (1, 0, -1), (200, 1, 0), (1, 0, 0, -1)])
def test_sizes_that_are_no_lab_are_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(LabError):
        names().hosts(*size)


def test_a_small_subnet_refuses_more_hosts_than_it_has_addresses() -> None:
    lab = names("lab", "198.18.10.0/27")
    assert str(lab.hosts(20, 0, 0)[-1].ip) == "198.18.10.30"
    with pytest.raises(LabError, match="do not fit"):
        lab.hosts(21, 0, 0)
