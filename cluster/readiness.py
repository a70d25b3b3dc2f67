"""What is waited for after a release or objects were sent, judged from live objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from cluster.probe import Done, Failed, Pending, Probe

CRD_API = "apiextensions.k8s.io/v1"


class Ref(NamedTuple):
    """One object; namespace is None for kinds without."""

    api_version: str
    kind: str
    name: str
    namespace: str | None = None

    def __str__(self) -> str:
        place = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {place}{self.name}"


Look = Callable[[Ref], Mapping[str, Any] | None]  # the live object, None when it is not there


@dataclass(frozen=True)
class Rollout:
    """All pods of a Deployment, DaemonSet or StatefulSet run its newest template and are ready."""

    kind: str
    name: str
    namespace: str

    @property
    def refs(self) -> tuple[Ref, ...]:
        """What it looks at."""
        return (Ref("apps/v1", self.kind, self.name, self.namespace),)

    def judge(self, look: Look) -> Probe:
        """Done, or how many pods are missing."""
        (ref,) = self.refs
        live = look(ref)
        if live is None:
            return Pending(f"{ref} does not exist")
        spec, status = live.get("spec", {}), live.get("status", {})
        if status.get("observedGeneration", 0) < live["metadata"].get("generation", 0):
            return Pending(f"{ref} is not looked at yet")
        wanted, updated, ready = pods(self.kind, spec, status)
        # The pods of a Deployment's older templates go when the new ones are ready, and the ready
        # ones are counted together: no more of them are new than this.
        older = max(status.get("replicas", 0) - updated, 0) if self.kind == "Deployment" else 0
        new = max(min(updated, ready - older), 0)
        if new >= wanted:
            return Done(f"{ready} pods")
        # Kubernetes' own deadline of ten minutes ends nothing: a slow line may need more for an
        # image, and how long this one may take is the limit of the wait.
        late = any(
            condition.get("reason") == "ProgressDeadlineExceeded"
            for condition in status.get("conditions", ())
        )
        slow = ", no progress for its progressDeadlineSeconds" if late else ""
        return Pending(f"{ref}: {new} of {wanted} pods ready{slow}")


def pods(kind: str, spec: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[int, int, int]:
    """How many pods a workload wants, has of its newest template, and has ready."""
    if kind == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        return wanted, status.get("updatedNumberScheduled", 0), status.get("numberReady", 0)
    wanted = spec.get("replicas", 1)
    updated = status.get("updatedReplicas", 0)
    if kind == "StatefulSet" and (spec.get("updateStrategy") or {}).get("type") == "OnDelete":
        updated = wanted
    return wanted, updated, status.get("readyReplicas", 0)


@dataclass(frozen=True)
class Exists:
    """An object that somebody else makes is there."""

    api_version: str
    kind: str
    name: str
    namespace: str | None = None

    @property
    def refs(self) -> tuple[Ref, ...]:
        """What it looks at."""
        return (Ref(self.api_version, self.kind, self.name, self.namespace),)

    def judge(self, look: Look) -> Probe:
        """Done, or what does not exist."""
        (ref,) = self.refs
        live = look(ref)
        return Pending(f"{ref} does not exist") if live is None else self._of(ref, live)

    def _of(self, ref: Ref, live: Mapping[str, Any]) -> Probe:
        return Done(str(ref))


@dataclass(frozen=True)
class Condition(Exists):
    """A condition of an object's status has the wanted value."""

    type: str = "Ready"
    status: str = "True"

    def _of(self, ref: Ref, live: Mapping[str, Any]) -> Probe:
        for condition in (live.get("status") or {}).get("conditions") or ():
            if condition.get("type") != self.type:
                continue
            if condition.get("status") == self.status:
                return Done(str(ref))
            why = condition.get("message") or condition.get("reason") or condition.get("status")
            return Pending(f"{ref}: {self.type}: {why}")
        return Pending(f"{ref} has no condition {self.type}")


@dataclass(frozen=True)
class Field(Exists):
    """A field of an object has one of some values, any value when none is given.

    path: dotted, as `status.phase`.
    """

    path: str = ""
    values: tuple[str, ...] = ()

    def _of(self, ref: Ref, live: Mapping[str, Any]) -> Probe:
        found: Any = live
        for key in self.path.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        if found and (not self.values or str(found) in self.values):
            return Done(f"{ref}: {found}")
        return Pending(f"{ref}: {self.path} is {found or 'empty'}")


@dataclass(frozen=True)
class Established:
    """CustomResourceDefinitions are served, by their names (`volumes.longhorn.io`)."""

    names: tuple[str, ...]

    @property
    def refs(self) -> tuple[Ref, ...]:
        """What it looks at."""
        return tuple(Ref(CRD_API, "CustomResourceDefinition", name) for name in self.names)

    def judge(self, look: Look) -> Probe:
        """Done, or the first that is not."""
        return _all(
            Condition(CRD_API, "CustomResourceDefinition", name, type="Established").judge(look)
            for name in self.names
        )


@dataclass(frozen=True)
class Completed:
    """A Job has succeeded."""

    name: str
    namespace: str

    @property
    def refs(self) -> tuple[Ref, ...]:
        """What it looks at."""
        return (Ref("batch/v1", "Job", self.name, self.namespace),)

    def judge(self, look: Look) -> Probe:
        """Done, or failed with the Job's own message."""
        (ref,) = self.refs
        live = look(ref)
        if live is None:
            return Pending(f"{ref} does not exist")
        for condition in (live.get("status") or {}).get("conditions") or ():
            if condition.get("status") == "True" and condition.get("type") == "Failed":
                return Failed(f"{ref}: {condition.get('message') or condition.get('reason')}")
            if condition.get("status") == "True" and condition.get("type") == "Complete":
                return Done(str(ref))
        return Pending(f"{ref} runs")


@dataclass(frozen=True)
class Address:
    """A Service of type LoadBalancer has an address, that one when it is given."""

    name: str
    namespace: str
    address: str | None = None

    @property
    def refs(self) -> tuple[Ref, ...]:
        """What it looks at."""
        return (Ref("v1", "Service", self.name, self.namespace),)

    def judge(self, look: Look) -> Probe:
        """Done, or what is missing."""
        (ref,) = self.refs
        live = look(ref)
        if live is None:
            return Pending(f"{ref} does not exist")
        given = ((live.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        found = [entry["ip"] for entry in given if entry.get("ip")]
        if not found:
            return Pending(f"{ref} has no address")
        if self.address and self.address not in found:
            return Pending(f"{ref} has the address {found[0]}, not {self.address}")
        return Done(found[0])


@dataclass(frozen=True)
class Webhook:
    """An admission webhook can be called: it knows its CA, and its Service has a ready pod.

    kind: ValidatingWebhookConfiguration or MutatingWebhookConfiguration.
    service: name of the Service behind it, in `namespace`.
    """

    kind: str
    name: str
    service: str
    namespace: str

    @property
    def refs(self) -> tuple[Ref, ...]:
        """What it looks at."""
        return (
            Ref("admissionregistration.k8s.io/v1", self.kind, self.name),
            Ref("v1", "Endpoints", self.service, self.namespace),
        )

    def judge(self, look: Look) -> Probe:
        """Done, or what is missing."""
        configuration, endpoints = self.refs
        live = look(configuration)
        if live is None:
            return Pending(f"{configuration} does not exist")
        if not all(hook.get("clientConfig", {}).get("caBundle") for hook in live["webhooks"]):
            return Pending(f"{configuration} has no CA yet")
        subsets = (look(endpoints) or {}).get("subsets") or ()
        if not any(subset.get("addresses") for subset in subsets):
            return Pending(f"Service {self.namespace}/{self.service} has no ready pod")
        return Done(str(configuration))


Check = Rollout | Condition | Field | Exists | Established | Completed | Address | Webhook


def judge(checks: Iterable[Check], look: Look) -> Probe:
    """All checks together: Failed when one failed, else the first that is pending."""
    return _all(check.judge(look) for check in checks)


def _all(probes: Iterable[Probe]) -> Probe:
    found = list(probes)
    for wanted in (Failed, Pending):
        for probe in found:
            if isinstance(probe, wanted):
                return probe
    return Done()
