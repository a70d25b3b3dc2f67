"""What Longhorn's own objects say to somebody who wants to take a node down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

BAD = ("degraded", "faulted")  # `status.robustness`; detached volumes are `unknown`
NAMESPACE = "longhorn-system"
DRAIN_POLICY = "node-drain-policy"  # name of the Setting
INSTANCE_MANAGER = "instance-manager"  # prefix of the budgets with which Longhorn holds a node

# Longhorn's documentation, settings reference, "Node Drain Policy".
POLICIES: Mapping[str, str] = {
    "block-if-contains-last-replica": (
        "the node holds the last healthy replica of a volume, or a volume is attached there by "
        "hand: let replicas rebuild elsewhere, or detach it"
    ),
    "allow-if-replica-is-stopped": (
        "the node holds the last healthy replica of a volume that is in use"
    ),
    "always-allow": "a volume is still attached there",
    "block-for-eviction": "all replicas of the node are moved to other nodes first",
    "block-for-eviction-if-contains-last-replica": (
        "last healthy replicas of the node are moved to other nodes first"
    ),
}


def unhealthy(volumes: Iterable[Mapping[str, Any]]) -> list[str]:
    """The volumes that lack replicas, one line each with what Longhorn says about it.

    Args:
        volumes: objects of the kind Volume, longhorn.io/v1beta2.
    """
    return sorted(
        _line(volume) for volume in volumes if (volume.get("status") or {}).get("robustness") in BAD
    )


def why_held(policy: str) -> str:
    """Why Longhorn's disruption budget holds a node, by the value of its drain policy."""
    reason = POLICIES.get(policy, "see its documentation")
    return f"Longhorn's node-drain-policy is {policy}: {reason}"


def _line(volume: Mapping[str, Any]) -> str:
    status = volume["status"]
    claim = status.get("kubernetesStatus") or {}
    name = str(volume["metadata"]["name"])
    if claim.get("pvcName"):
        name = f"{claim.get('namespace')}/{claim['pvcName']}"
    said = next(
        (
            f" ({entry.get('message') or entry.get('reason')})"
            for entry in status.get("conditions") or ()
            if entry.get("type") == "Scheduled" and entry.get("status") == "False"
        ),
        "",
    )
    return f"{name} is {status['robustness']}{said}"
