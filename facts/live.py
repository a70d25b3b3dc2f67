"""The live objects of whole kinds, read once and looked up many times."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import gevent
from gevent.lock import RLock

from cluster.answer import Answer, Present
from cluster.helm_release import RECORD_TYPE
from cluster.readiness import Ref
from runtime.api import CRD, SECRET, Api, Kind, Object
from runtime.endpoint import ApiError, value_of

# Records of Helm are Secrets, too, and by far the largest ones: facts/helm.py reads those.
FIELDS: Mapping[Kind, str] = {SECRET: f"type!={RECORD_TYPE}"}
Key = tuple[str, str | None]  # name, namespace


class Live:
    """Objects by reference: one LIST for each kind that is asked about, kept until forgotten.

    Safe in concurrent greenlets. CustomResourceDefinitions come as metadata only, because whole
    ones take megabytes; those that are served have the condition Established.
    """

    def __init__(self, api: Api) -> None:
        self.api = api
        self._known: dict[Kind, Answer[dict[Key, Object]]] = {}
        self._locks: dict[Kind, RLock] = {}

    def load(self, kinds: Iterable[Kind]) -> None:
        """Read these kinds at the same time, those that are not known yet."""
        missing = [kind for kind in dict.fromkeys(kinds) if kind not in self._known]
        gevent.joinall([gevent.spawn(self.of, kind) for kind in missing], raise_error=True)

    def of(self, kind: Kind) -> Answer[dict[Key, Object]]:
        """All objects of a kind by name and namespace; Absent when the cluster lacks the kind."""
        with self._locks.setdefault(kind, RLock()):
            if kind not in self._known:
                self._known[kind] = self._read(kind)
            return self._known[kind]

    def look(self, ref: Ref) -> Object | None:
        """One object, None when it is not there or the cluster does not know its kind.

        Raises: ApiError when that cannot be known.
        """
        objects = value_of(self.of(Kind(ref.api_version, ref.kind))) or {}
        return objects.get((ref.name, ref.namespace))

    def forget(self, kinds: Iterable[Kind] | None = None) -> None:
        """Read these kinds anew at the next question, all when none are given."""
        for kind in list(self._known) if kinds is None else kinds:
            self._known.pop(kind, None)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds that were read and that the cluster has."""
        return tuple(kind for kind, answer in self._known.items() if isinstance(answer, Present))

    def _read(self, kind: Kind) -> Answer[dict[Key, Object]]:
        match self.api.list(kind, fields=FIELDS.get(kind), metadata_only=kind == CRD):
            case Present(value=items):
                found = {_key(item): item for item in items}
            case answer:
                return answer
        if kind != CRD:
            return Present(found)
        try:
            return Present(judged(found, self.api.served()))
        except ApiError as error:
            return error.answer


def look_now(api: Api, ref: Ref) -> Object | None:
    """One object as it is at this moment, None when it is not there. Raises: ApiError."""
    return value_of(api.get(Kind(ref.api_version, ref.kind), ref.name, ref.namespace))


def judged(crds: Mapping[Key, Object], served: Collection[str]) -> dict[Key, Object]:
    """Metadata of CRDs with the condition that the discovery proves: Established is served."""
    return {
        key: crd | {"status": {"conditions": [_established(key[0] in served)]}}
        for key, crd in crds.items()
    }


def _established(served: bool) -> dict[str, str]:
    return {"type": "Established", "status": str(served)}


def _key(item: Object) -> Key:
    return item["metadata"]["name"], item["metadata"].get("namespace")
