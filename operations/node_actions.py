"""What is done to a node through the API: marks, cordon, drain.

Functions for FunctionCommands and for the rolling engine: called with the state and the host
first (the host only lends its name to the log), they answer False when the operation has failed.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from pyinfra.api import Host, State

from cluster import drain as rules
from cluster import longhorn, marks
from cluster.answer import Present
from cluster.drain import PodRef
from cluster.few import some
from cluster.model import Taint
from cluster.node import Node
from cluster.probe import Done, Failed, Pending, Probe
from facts.kube import disruption_budgets, pods_on, read_node, read_nodes
from operations import gates
from runtime import signals
from runtime.api import NODE, Api, Object, api_of
from runtime.endpoint import ApiError
from runtime.wait import until

EDITS = 5  # attempts when others change the node at the same time
INTERVAL = 2.0  # seconds between two looks
Decide = Callable[[Node], marks.Change | None]


def set_labels(state: State, host: Host, wanted: Mapping[str, Mapping[str, str]]) -> bool:
    """Give nodes exactly these labels among ours.

    Args:
        wanted: labels by node name.
    """
    return all(
        _edit(state, host, name, partial(marks.labels_change, wanted=labels))
        for name, labels in wanted.items()
    )


def set_taints(state: State, host: Host, wanted: Mapping[str, Sequence[Taint]]) -> bool:
    """Give nodes exactly these taints among ours.

    Args:
        wanted: taints by node name.
    """
    return all(
        _edit(state, host, name, partial(marks.taints_change, wanted=taints))
        for name, taints in wanted.items()
    )


def cordon(state: State, host: Host, node: str, why: str) -> bool:
    """Make a node unschedulable in our name; one that is so already stays as it is.

    Args:
        why: what the cordon is for, a few words; it is kept at the node.
    """
    mark = marks.Cordon(
        by=f"{getpass.getuser()}@{socket.gethostname()}",
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        why=why,
    )
    return _edit(state, host, node, partial(marks.cordon_change, cordon=mark))


def uncordon(state: State, host: Host, node: str) -> bool:
    """Undo our cordon of a node; a cordon that is not ours stays."""
    if not _edit(state, host, node, marks.uncordon_change):
        return False
    signals.drop(_key(node))
    return True


def gone(node: str) -> None:
    """A node has left the cluster: there is no cordon left to undo or to speak of."""
    signals.drop(_key(node))


def keep_cordon(state: State, host: Host, node: str, why: str) -> bool:
    """From now on our cordon outlives a run that is broken off: the node is being changed.

    The reason is kept at the node, so that a run after this one knows it too. Nothing happens
    when the node has no cordon of ours.
    """
    if not _edit(state, host, node, partial(marks.reason_change, why=why)):
        return False
    if signals.pushed(_key(node)):
        signals.keep(
            _key(node), f"{node} stays cordoned ({why}); the next run uncordons it after its gates"
        )
    return True


def drain(state: State, host: Host, node: str, timeout: float, unmanaged: bool = False) -> bool:
    """Cordon a node and evict its pods through the Eviction API, so that budgets are respected.

    Waits for Longhorn's volumes before, and for the end of every pod. A node whose pods have
    nowhere to go is not drained: True when it is the only one that takes pods, False when others
    are down or cordoned. A run that is broken off undoes the cordon, until `keep_cordon`; also
    the cordon of an earlier run that was killed before it.

    Args:
        timeout: seconds for the volumes, and again for the pods.
        unmanaged: evict also pods that nobody makes again.
    """
    api = api_of(state)
    match read_nodes(api):
        case Present(value=nodes):
            verdict = rules.no_drain(node, nodes)
        case answer:
            return _fail(host, f"{node} is not drained: {answer}")
    if verdict:
        if verdict.fatal:
            return _fail(host, verdict.reason)
        host.log(f"{node} is not drained: {verdict.reason}")
        return True
    volumes = f"Longhorn's volumes before the drain of {node}"
    gate = gates.volumes_healthy(api)
    if not until(gate, what=volumes, timeout=timeout, interval=INTERVAL, host=host):
        return False
    earlier = marks.cordon_of(nodes[node])
    if nodes[node].schedulable or (earlier and earlier.why == marks.DRAIN):
        undo = partial(uncordon, state, host, node)
        signals.push(_key(node), f"uncordoning {node}: it was not changed", undo)
    elif earlier:
        signals.keep(
            _key(node), f"{node} stays cordoned ({earlier.why}), as an earlier run left it"
        )
    evacuation = Evacuation(api, node, unmanaged)
    return cordon(state, host, node, marks.DRAIN) and until(
        evacuation.probe, what=f"drain of {node}", timeout=timeout, interval=INTERVAL, host=host
    )


class Evacuation:
    """Evicts the pods that were on a node at the first look, and tells what keeps the others."""

    def __init__(self, api: Api, node: str, unmanaged: bool) -> None:
        self._api = api
        self._node = node
        self._unmanaged = unmanaged
        self._plan: rules.Plan | None = None
        self._policy = ""

    def probe(self) -> Probe:
        """Evict what may go now."""
        match pods_on(self._api, self._node):
            case Present(value=items):
                pods = {rules.ref_of(pod): pod for pod in items}
            case answer:
                return Pending(str(answer))
        self._plan = self._plan or rules.plan(pods.values(), unmanaged=self._unmanaged)
        if self._plan.refusals:
            return Failed("; ".join(self._plan.refusals))
        left = [[ref for ref in wave if ref in pods] for wave in self._plan.waves]
        wave = next(filter(None, left), None)
        if wave is None:
            return Done(f"pods gone: {len(self._plan.evict)}")
        blocked: list[PodRef] = []
        try:
            for ref in wave:
                if not _terminating(pods[ref]) and not self._evict(ref):
                    blocked.append(ref)
        except ApiError as error:
            if error.status == 500 and "more than one" in str(error):
                return Failed(str(error))
            return Pending(str(error))
        return Pending("; ".join(self._reasons(sum(map(len, left)), wave, blocked, pods)))

    def _evict(self, pod: PodRef) -> bool:
        """Ask for the eviction; False when a budget refuses it now."""
        try:
            self._api.evict(pod.name, pod.namespace)
        except ApiError as error:
            if error.status == 429:
                return False
            raise
        return True

    def _reasons(
        self,
        left: int,
        wave: Sequence[PodRef],
        blocked: Sequence[PodRef],
        pods: Mapping[PodRef, Object],
    ) -> list[str]:
        reasons = [f"{left} pod{'s' if left > 1 else ''} left"]
        if blocked:
            reasons += self._keepers({ref: pods[ref] for ref in blocked})
        now = datetime.now(UTC)
        for ref in wave:
            if _terminating(pods[ref]) and (why := rules.overdue(pods[ref], now)):
                reasons.append(f"{ref}: {why}")
        return reasons

    def _keepers(self, blocked: Mapping[PodRef, Object]) -> list[str]:
        """The budgets that keep pods, with the pods."""
        match disruption_budgets(self._api):
            case Present(value=budgets):
                pass
            case answer:
                return [f"{some(blocked)} may not be evicted now (budgets: {answer})"]
        kept: dict[str, list[PodRef]] = {}
        held = False
        for ref, pod in blocked.items():
            for budget in rules.budgets_of(pod, budgets):
                kept.setdefault(rules.budget_text(budget), []).append(ref)
                metadata = budget["metadata"]
                held |= metadata["namespace"] == longhorn.NAMESPACE and metadata["name"].startswith(
                    longhorn.INSTANCE_MANAGER
                )
        if not kept:
            return [f"the API is too busy to evict {some(blocked)}"]
        reasons = [f"budget {text} keeps {some(refs)}" for text, refs in kept.items()]
        return reasons + ([self._longhorn()] if held else [])

    def _longhorn(self) -> str:
        if not self._policy:
            setting = self._api.get(
                gates.LONGHORN_SETTING, longhorn.DRAIN_POLICY, longhorn.NAMESPACE
            )
            self._policy = (
                str(setting.value.get("value")) if isinstance(setting, Present) else "unknown"
            )
        return longhorn.why_held(self._policy)


def _edit(state: State, host: Host, name: str, decide: Decide) -> bool:
    """Read a node, decide, patch on condition that nobody was faster."""
    api = api_of(state)
    try:
        for _ in range(EDITS):
            match read_node(api, name):
                case Present(value=node):
                    change = decide(node)
                case answer:
                    return _fail(host, f"node {name}: {answer}")
            if change is None:
                return True
            try:
                api.patch(NODE, name, change.patch)
            except ApiError as error:
                if error.status != 409:
                    raise
                continue
            for line in change.lines:
                host.log(line)
            return True
    except ApiError as error:
        return _fail(host, f"node {name}: {error}")
    return _fail(host, f"node {name}: others change it all the time")


def _key(node: str) -> str:
    return f"cordon of {node}"


def _terminating(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _fail(host: Host, text: str) -> bool:
    host.log_styled(text, fg="red")
    return False
