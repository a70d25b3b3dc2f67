"""A cluster in the lab as its API and its hosts tell it, and what tests put into it."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable
from typing import Any

import testinfra

from operations.helm_process import JOURNAL
from tests.lab.lab import Lab

LIMIT_S = 120
Object = dict[str, Any]


def kubectl(lab: Lab, server: str, arguments: str, manifest: str = "") -> str:
    """Run kubectl on a server and return its output; raises LabError."""
    given = f"printf %s {shlex.quote(manifest)} | " if manifest else ""
    return lab.check(server, f"{given}HOME=/tmp k3s kubectl {arguments}").strip()


def seen(lab: Lab, host: str) -> Any:
    """A host through testinfra, which shares no code with the facts."""
    return testinfra.get_host(f"docker://{lab.names.container(host)}")


def wait_for(condition: Callable[[], bool], what: str, limit: float = LIMIT_S) -> None:
    """Wait until a condition holds, at most `limit` seconds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {limit} s"
        time.sleep(0.5)


def wait_for_api(lab: Lab, *servers: str) -> None:
    """Wait until the API of each server is ready."""
    ready = "HOME=/tmp k3s kubectl get --raw /readyz"
    for name in servers:
        wait_for(lambda server=name: not lab.run(server, ready)[0], f"the API of {name}")  # type: ignore[misc]


def helms(lab: Lab, *servers: str) -> list[str]:
    """Every helm that the servers have started, by their journals: `<server> <time> <line>`."""
    shown = f"journalctl -q -o short-unix -t {JOURNAL}"
    return [f"{name} {line}" for name in servers for line in lab.check(name, shown).splitlines()]


def labelled(lab: Lab, label: str, left_out: str, server: str = "node1") -> list[Object]:
    """Objects of all kinds that carry a label, but those of kinds a pattern matches from the start.

    What is of an API that does not answer is left out, as kubectl does.
    """
    kinds = kubectl(lab, server, "api-resources --verbs=list -o name").split()
    listed = ",".join(kind for kind in kinds if not re.match(left_out, kind))
    text = kubectl(lab, server, f"get {listed} -A -l {label} -o json 2>/dev/null")
    items: list[Object] = json.loads(text)["items"]
    return items


def nodes(lab: Lab, server: str = "node1") -> dict[str, Object]:
    """The Node objects by name."""
    items = json.loads(kubectl(lab, server, "get nodes -o json"))["items"]
    return {item["metadata"]["name"]: item for item in items}


def versions(lab: Lab, server: str = "node1") -> dict[str, str]:
    """The kubelet's version by node."""
    found = nodes(lab, server).items()
    return {name: node["status"]["nodeInfo"]["kubeletVersion"] for name, node in found}


def condition(node: Object, kind: str) -> str:
    """The status of a node's condition; empty when it has none of that kind."""
    found = node["status"].get("conditions", ())
    return next((one["status"] for one in found if one["type"] == kind), "")


def voters(lab: Lab, server: str = "node1") -> set[str]:
    """The servers that vote in etcd."""
    found = nodes(lab, server).items()
    return {name for name, node in found if condition(node, "EtcdIsVoter") == "True"}


def cordoned(lab: Lab, server: str = "node1") -> list[str]:
    """The nodes that take no new pods."""
    return [n for n, node in nodes(lab, server).items() if node["spec"].get("unschedulable")]


def web(node: str = "") -> str:
    """A manifest: two pods under a budget that allows no disruption; on `node` when it is given."""
    match = {"matchLabels": {"app": "web"}}
    pod: Object = {"containers": [{"name": "web", "image": "registry.k8s.io/pause:3.10"}]}
    template = {"metadata": {"labels": match["matchLabels"]}, "spec": pod}
    if node:
        pod["nodeName"] = node
    items = [
        ("apps/v1", "Deployment", {"replicas": 2, "selector": match, "template": template}),
        ("policy/v1", "PodDisruptionBudget", {"minAvailable": 2, "selector": match}),
    ]
    listed = [
        {"apiVersion": api, "kind": kind, "spec": spec}
        | {"metadata": {"name": "web", "namespace": "default"}}
        for api, kind, spec in items
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": listed})
