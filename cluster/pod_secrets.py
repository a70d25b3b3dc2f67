"""Secrets that pods read when they start: who uses them, and who has to start anew.

What the pods of a workload have read is written down in an annotation, right before the first
change of it; from then on the annotation tells whether they know what there is now. A workload
whose Secrets never changed has none, so nothing starts twice at its first install.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from cluster.component import COMPONENT
from cluster.objects import Object
from cluster.readiness import Ref

READ = "picluster.io/secrets"  # annotation: `<Secret>:<stamp>` of each, with spaces between
ROLLED = frozenset({"Deployment", "StatefulSet", "DaemonSet"})
WORKLOADS = ROLLED | {"Job"}

Look = Callable[[Ref], Mapping[str, Any] | None]  # the live object, None when it is not there


def used(workload: Mapping[str, Any]) -> tuple[Ref, ...]:
    """The Secrets that a workload's pods read, as environment or as files."""
    pod = ((workload.get("spec") or {}).get("template") or {}).get("spec") or {}
    names = dict.fromkeys(name for name in _names(pod) if name)
    return tuple(Ref("v1", "Secret", name, workload["metadata"]["namespace"]) for name in names)


def _names(pod: Mapping[str, Any]) -> Iterator[str | None]:
    for container in (*(pod.get("initContainers") or ()), *(pod.get("containers") or ())):
        for source in container.get("envFrom") or ():
            yield (source.get("secretRef") or {}).get("name")
        for variable in container.get("env") or ():
            yield ((variable.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name")
    for volume in pod.get("volumes") or ():
        yield (volume.get("secret") or {}).get("secretName")
        for source in (volume.get("projected") or {}).get("sources") or ():
            yield (source.get("secret") or {}).get("name")


def stamp(secret: Mapping[str, Any]) -> str:
    """A short hash of a live Secret's content, under its UID as the key.

    Only who may read the Secret itself learns its UID, so that the stamp, which others may see,
    tells nobody whether a guess was right. One that is yet to be made has none.
    """
    content = json.dumps(secret.get("data") or {}, sort_keys=True).encode()
    key = str(secret["metadata"].get("uid") or "")
    return hmac.new(key.encode(), content, "sha256").hexdigest()[:16]


def read(workload: Mapping[str, Any]) -> dict[str, str]:
    """The stamps of what the pods have read, by Secret, as far as it was written down."""
    text = (workload["metadata"].get("annotations") or {}).get(READ, "")
    pairs = (word.partition(":") for word in text.split())
    return {name: found for name, _, found in pairs}


def outdated(
    workload: Mapping[str, Any], look: Look, renewed: Collection[Ref] = ()
) -> tuple[Ref, ...]:
    """The Secrets of ours of which the workload's pods have read another content.

    Args:
        look: finds a Secret as it is, or as it is about to become.
        renewed: Secrets whose content is about to change.
    """
    known = read(workload)
    return tuple(
        which
        for which in used(workload)
        if (secret := _own(look(which)))
        and (known[which.name] != stamp(secret) if which.name in known else which in renewed)
    )


def _own(secret: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The Secret if it is one of ours: others renew theirs by themselves."""
    return secret if secret and COMPONENT in (secret["metadata"].get("labels") or {}) else None


def remembered(workload: Mapping[str, Any], look: Look, which: Collection[Ref]) -> Object | None:
    """The merge patch that writes down what the pods have read of some Secrets; None: it is."""
    known = read(workload)
    new = {one.name: stamp(found) for one in which if (found := look(one))}
    if new.keys() <= known.keys():
        return None
    return _annotated(new | known)


def restarted(workload: Mapping[str, Any], look: Look) -> Object:
    """The merge patch that starts the pods anew and writes down what they read then."""
    now = {which.name: stamp(secret) for which in used(workload) if (secret := _own(look(which)))}
    noted = _annotated(now)
    return noted | {"spec": {"template": noted}}


def _annotated(stamps: Mapping[str, str]) -> Object:
    text = " ".join(f"{name}:{found}" for name, found in sorted(stamps.items()))
    return {"metadata": {"annotations": {READ: text}}}
