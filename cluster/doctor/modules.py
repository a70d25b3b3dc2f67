"""Kernel modules that the chosen network, mesh and storage need.

Sources: K3s' requirements, Cilium's system requirements, Istio's platform requirements, Longhorn's
installation guide. Names have underscores, as /sys/module has them. Of names with `|` between them
one is enough: newer kernels have nftables' modules in the place of iptables' tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cluster.model import Cluster

_RUNTIME = ("overlay", "br_netfilter", "nf_conntrack", "veth", "bridge")
_PROXY = (
    "ip_tables|nf_tables", "iptable_nat|nft_chain_nat", "iptable_filter|nf_tables", "xt_comment",
    "xt_mark", "xt_conntrack", "xt_addrtype", "xt_MASQUERADE|nft_masq", "xt_statistic", "xt_nat",
    "ip_set", "ip_set_hash_ip", "ip_set_hash_net",
)  # fmt: skip
_CILIUM = ("vxlan", "xt_mark", "xt_socket", "xt_TPROXY", "xt_CT", "ip_set", "sch_fq")
_ISTIO = (
    "iptable_mangle|nf_tables", "iptable_nat|nft_chain_nat", "xt_REDIRECT|nft_redir", "xt_connmark",
    "xt_conntrack", "xt_mark", "xt_owner", "xt_multiport", "ip_set", "ip_set_hash_ip",
)  # fmt: skip
_LINKERD = ("iptable_nat|nft_chain_nat", "xt_REDIRECT|nft_redir", "xt_owner", "xt_multiport")
_LONGHORN = ("iscsi_tcp", "nfs", "dm_crypt")


@dataclass(frozen=True, slots=True)
class Need:
    """A module, or others of which one is enough, and who needs it."""

    names: tuple[str, ...]
    who: str

    def __str__(self) -> str:
        return f"{' or '.join(self.names)} for {self.who}"


def needs(model: Cluster) -> tuple[Need, ...]:
    """What the stack of the cluster needs, each once."""
    stack = model.stack
    wanted: list[tuple[str, tuple[str, ...]]] = [("containerd", _RUNTIME)]
    if stack.kube_proxy == "k3s":
        wanted.append(("kube-proxy", _PROXY))
    wanted.append(("Cilium", _CILIUM) if stack.cni == "cilium" else ("Flannel", ("vxlan",)))
    if stack.mesh != "none":
        wanted.append(("Istio", _ISTIO) if stack.mesh == "istio" else ("Linkerd", _LINKERD))
    if stack.storage == "longhorn":
        wanted.append(("Longhorn", _LONGHORN))
    found: dict[str, Need] = {}
    for who, names in wanted:
        for name in names:
            found.setdefault(name, Need(tuple(name.split("|")), who))
    return tuple(found.values())


def names(wanted: Iterable[Need]) -> tuple[str, ...]:
    """All names in them, sorted."""
    return tuple(sorted({name for need in wanted for name in need.names}))
