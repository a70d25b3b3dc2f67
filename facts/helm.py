"""What Helm has recorded about releases, as a fact of any host."""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakKeyDictionary

import gevent

from cluster.answer import Absent, Answer, Present, Refused
from cluster.helm_release import RECORDS, HelmRelease, RecordError, decode, latest
from facts.kube import KubeFact
from runtime.api import SECRET, Api, Object

_Decoded = dict[tuple[str, str], HelmRelease]  # by UID and version of the record

_KEPT: WeakKeyDictionary[Api, _Decoded] = WeakKeyDictionary()


def read_releases(api: Api) -> Answer[dict[tuple[str, str], HelmRelease]]:
    """The newest revision of every release, by namespace and name.

    One LIST the first time in a run; later metadata only, and the records that have changed since.
    """
    known = _KEPT.setdefault(api, {})
    match api.list(SECRET, labels=RECORDS, metadata_only=bool(known)):
        case Present(value=secrets):
            newest = latest(secrets)
        case answer:
            return answer
    changed = {key: one for key, one in newest.items() if _version(one) not in known}
    if known:
        match _whole(api, changed.values()):
            case Present(value=secrets):
                changed = latest(secrets)
            case answer:
                return answer
    try:
        for one in changed.values():
            known[_version(one)] = decode(one)
    except RecordError as error:
        return Refused(str(error))
    versions = {key: _version(changed.get(key, one)) for key, one in newest.items()}
    return Present({key: known[v] for key, v in versions.items() if v in known})


def read_release(api: Api, namespace: str, name: str) -> Answer[HelmRelease]:
    """The newest revision of one release: one request."""
    match api.list(SECRET, namespace, labels=f"{RECORDS},name={name}"):
        case Present(value=secrets):
            found = latest(secrets).get((namespace, name))
        case answer:
            return answer
    if found is None:
        return Absent(f"there is no release {namespace}/{name}")
    try:
        return Present(decode(found))
    except RecordError as error:
        return Refused(str(error))


def _whole(api: Api, records: Iterable[Object]) -> Answer[list[Object]]:
    """These records with their data, at the same time; Present of those that are still there."""
    jobs = [
        gevent.spawn(api.get, SECRET, one["metadata"]["name"], one["metadata"]["namespace"])
        for one in records
    ]
    gevent.joinall(jobs, raise_error=True)
    found: list[Object] = []
    for job in jobs:
        match job.value:
            case Present(value=secret):
                found.append(secret)
            case Absent():
                continue
            case answer:
                failure: Answer[list[Object]] = answer
                return failure
    return Present(found)


def _version(secret: Object) -> tuple[str, str]:
    return secret["metadata"]["uid"], secret["metadata"]["resourceVersion"]


class Releases(KubeFact):
    """Helm's releases by `<namespace>/<name>`: `Answer[dict[str, HelmRelease]]`, one request."""

    def read(self, api: Api) -> Answer[dict[str, HelmRelease]]:
        """All releases."""
        match read_releases(api):
            case Present(value=releases):
                return Present({f"{space}/{name}": one for (space, name), one in releases.items()})
            case other:
                return other
