"""Options of single runs, given as `--data name=value`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from cluster.problem import Problem, meant

OPTIONS = {
    "repair": "true: a cluster that lost servers is worked on, an even number of them may pass",
    "confirm": "the cluster's name, typed by who wants to remove or replace data",
    "node": "reset: the one node to remove",
    "forget": "reset: the lost node whose traces are cleared",
    "keep_snapshots": "reset: false removes etcd's snapshots too",
    "forget_password": "reset: true removes the node's identity too",
    "wipe_data": "reset: names of nodes whose data directories are emptied",
    "wipe_disk": "san: host:/dev/disk by comma, disks that lose what they hold",
    "list": "restore: true shows the snapshots",
    "snapshot": "restore: which snapshot",
    "from": "restore: the server to restore on",
    "again": "restore: whether one that all servers have done begins anew or only ends",
    "kubeconfig": "kubeconfig: path of the operator's file",
    "components": "platform: names by comma; they and what they need are worked on, nothing else",
    "remove": "platform: names by comma of components that go with all the data they hold",
}


def problems(data: Mapping[str, Any], keys: Collection[str]) -> Iterator[Problem]:
    """Options that look like a typing error; those of a deploy of one's own pass.

    + data: what --data says
    + keys: names that are known besides OPTIONS
    """
    known = [*OPTIONS, *keys]
    if "repair" in data and not isinstance(data["repair"], bool):
        yield Problem("--data: repair", repr(data["repair"]), "true or false")
    for name in data:
        if (whole := name.partition(".")[0]) != name and whole in keys:
            yield Problem(
                f"--data: {name}", "a part of a key", f"a whole key, as in {whole}={{...}}"
            )
            continue
        if name not in known and (close := meant(name, known, cutoff=0.8)):
            yield Problem(f"--data: {name}", "unknown option", suggestion=close)
