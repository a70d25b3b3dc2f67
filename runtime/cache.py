"""Facts are read once a phase and host, and again after something changed on that host.

pyinfra keeps no facts: every `get_fact` is a remote command. In prepare nothing changes; in
execute what was read holds until an operation of that host changes something.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import gevent
from gevent.lock import RLock
from pyinfra.api import FactBase, Host, State
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.state import BaseStateCallback

T = TypeVar("T")


class _Kept:
    """What is known of one host, or was made of what is known of all."""

    def __init__(self) -> None:
        self.values: dict[Hashable, Any] = {}
        self.lock = RLock()  # two readers of one host ask once


_kept: WeakKeyDictionary[Host, _Kept] = WeakKeyDictionary()
_made: WeakKeyDictionary[State, _Kept] = WeakKeyDictionary()


def cached(host: Host, fact: type[FactBase[T]], **kwargs: Any) -> T:
    """The fact of the host, read at most once while nothing changes there.

    kwargs: arguments of the fact and global arguments of pyinfra; all hashable.
    """
    return _once(*_place(host, fact, kwargs), lambda: asked(host, fact, **kwargs))


def asked(host: Host, fact: type[FactBase[T]], **kwargs: Any) -> T:
    """The fact of the host, read now.

    `_timeout` is a limit for all of it: pyinfra's own begins when the host has begun to run the
    command, which one whose logins hang never does. Raises PyinfraError then.
    """
    limit = kwargs.pop("_timeout", None)
    with gevent.Timeout(limit, False):
        value: T = host.get_fact(fact, **kwargs)
        return value
    raise PyinfraError(f"{host.name}: no answer to {fact.__name__} within {limit} seconds")


def keep(host: Host, value: T, fact: type[FactBase[T]], **kwargs: Any) -> None:
    """Know the fact of a host without asking: another one has read the same.

    kwargs: as `cached` gets them.
    """
    _once(*_place(host, fact, kwargs), lambda: value)


def _place(
    host: Host, fact: type[FactBase[Any]], kwargs: Mapping[str, Any]
) -> tuple[_Kept, Hashable]:
    """Where a fact of a host is kept, and under which key."""
    key = (fact, tuple(sorted(kwargs.items())), host.state.is_executing)
    return _kept.setdefault(_real(host), _Kept()), key


def made(state: State, key: Hashable, make: Callable[[], T]) -> T:
    """What is made of the facts of many hosts, at most once while nothing changes on any of them.

    key: what it is, and of which hosts.
    """
    return _once(_made.setdefault(state, _Kept()), (key, state.is_executing), make)


def _once(known: _Kept, key: Hashable, make: Callable[[], T]) -> T:
    with known.lock:
        if key not in known.values:
            known.values[key] = make()
        value: T = known.values[key]
        return value


def forget(host: Host) -> None:
    """Read all facts of the host anew: something changed there."""
    for known in (_kept.get(_real(host)), _made.get(host.state)):
        if known:
            known.values.clear()


def _real(host: Host) -> Host:
    """The host itself, also when it comes as pyinfra's context proxy."""
    real: Host = host.inventory.get_host(host.name)
    return real


class ForgetChanged(BaseStateCallback):
    """Forgets what was known of a host when an operation changed something there."""

    @staticmethod
    def operation_end(state: State, op_hash: str) -> None:
        """The first moment at which pyinfra knows which hosts the operation changed."""
        for host in state.activated_hosts:
            data = state.ops[host].get(op_hash)
            if data and data.operation_meta.is_complete() and data.operation_meta.did_change():
                forget(host)
