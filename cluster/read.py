"""From plain values to the validated Cluster, or to every problem with them. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Annotated, Any, TypeVar, cast, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from cluster import options, presets, rules
from cluster.frozen import Model
from cluster.kinds import Unfit
from cluster.model import Cluster, Host, Role
from cluster.problem import Given, HostEntry, Problem, Problems, Source, meant
from cluster.services import s3

__all__ = ["Given", "HostEntry", "Problem", "Problems", "Source", "read"]

# Keys of group_data for the whole cluster, by the field of Cluster they set.
CLUSTER_KEYS = {
    "cluster_name": "name",
    **{
        key: key
        for key in (
            "domain timezone locale network stack k3s first_boot nodes platform backup acme "
            "services secrets_file age_key_file"
        ).split()
    },
}
_KEY_OF_FIELD = {field: key for key, field in CLUSTER_KEYS.items()}
HOST_KEYS = tuple(key for key in Host.model_fields if key not in ("name", "role"))

M = TypeVar("M", bound=Model)


def read(sources: Sequence[Source], hosts: Sequence[HostEntry], given: Given) -> Cluster:
    """The cluster described by the keys of group_data and the hosts of the inventory.

    + sources: what each place sets, later ones win
    + hosts: in the order of the inventory
    + given: what is known besides

    Raises Problems with every problem found. What is allowed but doubtful is in `warnings` of the
    result.
    """
    known = [*CLUSTER_KEYS, *HOST_KEYS, *given.foreign]
    problems = [
        *options.problems(given.options, known),
        *_strange_keys(sources, given),
        *_strange_host_keys(hosts, given),
    ]
    values = {key: value for source in sources for key, value in source.values.items()}
    given = replace(
        given,
        origins={key: source.origin for source in sources for key in source.values},
        host_origins={host.name: host.origin for host in hosts},
    )
    members, found = _hosts(hosts, given)
    problems += found
    cluster, found = _whole(values, given)
    problems += found
    cluster = _derived(_with(cluster, hosts=members), given)
    problems += _ruled(cluster, given, partial=bool(problems))
    if any(not problem.warning for problem in problems):
        raise Problems(dict.fromkeys(problems))
    return cluster.model_copy(update={"warnings": tuple(map(str, problems))})


def _strange_keys(sources: Sequence[Source], given: Given) -> Iterator[Problem]:
    known = [*CLUSTER_KEYS, *HOST_KEYS]
    for source in sources:
        for key in source.values:
            where = f"{source.origin}: {key}"
            if key in CLUSTER_KEYS and not source.whole:
                allowed = f"it in group_data/all.py or group_data/{given.inventory}.py"
                yield Problem(where, "belongs to the whole cluster", allowed)
            elif key.startswith("_"):
                # A typing error in _sudo would go unseen; a person's own _helper is fine.
                if key not in given.foreign and (close := meant(key, _global(given))):
                    yield Problem(where, "unknown key", suggestion=close)
            elif key not in known and key not in given.foreign:
                yield _unknown(where, key, [*known, *given.foreign], CLUSTER_KEYS)


def _global(given: Given) -> list[str]:
    return [key for key in given.foreign if key.startswith("_")]


def _strange_host_keys(hosts: Sequence[HostEntry], given: Given) -> Iterator[Problem]:
    for host in hosts:
        for key in host.values:
            where = f"{host.origin}: {host.name}: {key}"
            if key in CLUSTER_KEYS:
                allowed = f"it in group_data/all.py or group_data/{given.inventory}.py"
                yield Problem(where, "belongs to the whole cluster", allowed)
            elif not key.startswith("_") and key not in HOST_KEYS and key not in given.foreign:
                yield _unknown(where, key, [*HOST_KEYS, *given.foreign], HOST_KEYS)


def _unknown(where: str, key: str, known: Sequence[str], listed: Any) -> Problem:
    close = meant(key, known)
    return Problem(where, "unknown key", "" if close else f"one of {', '.join(listed)}", close)


def _hosts(entries: Sequence[HostEntry], given: Given) -> tuple[list[Host], list[Problem]]:
    hosts: dict[str, Host] = {}
    problems = []
    for entry in entries:
        if entry.name in hosts:
            problems.append(Problem(given.at_host(entry.name), "stands twice", "every name once"))
            continue
        data = {key: entry.values[key] for key in HOST_KEYS if key in entry.values}
        data |= {"name": entry.name, "role": (entry.roles or (Role.AGENTS,))[0]}

        def at(path: str, name: str = entry.name) -> str:
            return given.at_host(name, "" if path == "name" else path)

        hosts[entry.name], found = _parse(Host, data, at)
        problems += found
        if len(entry.roles) != 1:
            found_in = f"is in {' and '.join(entry.roles) or 'no group'}"
            allowed = f"one of the groups {', '.join(Role)}"
            problems.append(Problem(given.at_host(entry.name), found_in, allowed))
            hosts[entry.name].__dict__.pop("role", None)  # so that no rule counts on it
    return list(hosts.values()), problems


def _whole(values: Mapping[str, Any], given: Given) -> tuple[Cluster, list[Problem]]:
    data = {field: values[key] for key, field in CLUSTER_KEYS.items() if key in values}
    data.setdefault("secrets_file", f"secrets/{given.inventory}.sops.yaml")
    if isinstance(data.get("stack"), Mapping):
        data["stack"] = presets.fill(data["stack"])
    data["hosts"] = ()

    def at(path: str) -> str:
        top, dot, rest = path.partition(".")
        return given.at(f"{_KEY_OF_FIELD.get(top, top)}{dot}{rest}")

    return _parse(Cluster, data, at)


def _derived(cluster: Cluster, given: Given) -> Cluster:
    """The cluster, be it whole or partial, with values that follow from others."""
    try:
        return s3.derived(cluster, given.ca)
    except AttributeError:  # what it would follow from cannot be read
        return cluster


def _ruled(cluster: Cluster, given: Given, partial: bool) -> Iterator[Problem]:
    for rule in rules.RULES:
        try:
            yield from list(rule(cluster, given))
        except AttributeError:
            # An unreadable value has no attribute: what depends on it is said the next time.
            if not partial:
                raise


def _with(cluster: Cluster, **fields: Any) -> Cluster:
    """The cluster, be it whole or partial, with these fields."""
    data = {**cluster.__dict__, **{key: tuple(value) for key, value in fields.items()}}
    result = Cluster.model_construct(**data)
    for field in Cluster.model_fields.keys() - data.keys():
        result.__dict__.pop(field, None)
    return result


def _parse(model: type[M], data: Any, at: Callable[[str], str]) -> tuple[M, list[Problem]]:
    """The model, or what can be read of it and the problems with the rest."""
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        errors = [one for one in error.errors() if not _is_echo(one, error.errors())]
        return _readable(model, data), [_translated(one, model, at) for one in errors]


def _is_echo(error: ErrorDetails, errors: Sequence[ErrorDetails]) -> bool:
    """Whether a list is only too short because its items could not be read."""
    location = error["loc"]
    return error["type"] == "too_short" and any(
        len(other["loc"]) > len(location) and other["loc"][: len(location)] == location
        for other in errors
    )


def _readable(model: type[M], data: Any) -> M:
    """The fields that can be read; the others have no attribute, unlike absent optional ones."""
    part = cast(M, model.model_construct())
    if not isinstance(data, Mapping):
        data = dict.fromkeys(model.model_fields)
    for name, field in model.model_fields.items():
        if name not in data:
            continue
        kind: Any = field.annotation
        adapter: TypeAdapter[Any] = TypeAdapter(
            Annotated[(kind, *field.metadata)] if field.metadata else kind
        )
        try:
            part.__dict__[name] = adapter.validate_python(data[name])
        except ValidationError:
            part.__dict__.pop(name, None)
            if isinstance(kind, type) and issubclass(kind, Model):
                part.__dict__[name] = _readable(kind, data[name])
    return part


def _dotted(location: Sequence[str | int]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path.removesuffix(".[key]")


def _inner(kind: Any) -> type[Model] | None:
    """The model inside an annotation such as tuple[User, ...] or S3 | None."""
    if isinstance(kind, type) and issubclass(kind, Model):
        return kind
    return next(filter(None, map(_inner, get_args(kind))), None)


def _keys_at(model: type[Model], location: Sequence[str | int]) -> list[str]:
    """The keys the model at a location has."""
    here: type[Model] | None = model
    for part in location:
        if isinstance(part, str) and here is not None:
            field = here.model_fields.get(part)
            here = _inner(field.annotation) if field else None
    return list(here.model_fields) if here else []


_ALLOWED = {
    "string_type": "a text in quotes",
    "bool_type": "True or False",
    "bool_parsing": "True or False",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "tuple_type": "a list [...]",
    "list_type": "a list [...]",
    "dict_type": "keys and values in {...}",
    "model_type": "keys and values in {...}",
    "model_attributes_type": "keys and values in {...}",
    "too_short": "at least one",
    "string_too_short": "a text that is not empty",
}
# Other names of what we know under one.
_ALIASES = {"aarch64": "arm64", "arm": "arm64", "armv8": "arm64", "x86_64": "amd64", "x86": "amd64"}


def _translated(error: ErrorDetails, model: type[Model], at: Callable[[str], str]) -> Problem:
    """pydantic's error as a line of ours."""
    location = [part for part in error["loc"] if part != "[key]"]
    where, value, kind = at(_dotted(location)), error["input"], error["type"]
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        keys = _keys_at(model, location[:-1])
        return _unknown(where, str(location[-1]), keys, keys)
    if kind == "missing":
        return Problem(where, "missing", _missing(location))
    unfit = context.get("error")
    if isinstance(unfit, Unfit):
        return Problem(where, _shown(value), unfit.allowed, unfit.suggestion)
    if kind in ("literal_error", "enum"):
        names = [name.strip("'") for name in context["expected"].replace(" or ", ", ").split(", ")]
        close = _ALIASES.get(str(value).lower()) or meant(value, names)
        return Problem(where, _shown(value), f"one of {', '.join(names)}", close)
    limits = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    for limit, words in limits.items():
        if limit in context:
            return Problem(where, _shown(value), f"{words} {context[limit]}")
    if kind in ("tuple_type", "list_type") and isinstance(value, str):
        return Problem(where, _shown(value), _ALLOWED[kind], repr([value]))
    return Problem(where, _shown(value), _ALLOWED.get(kind, error["msg"]))


def _missing(location: Sequence[str | int]) -> str:
    """What is expected at a place that is empty."""
    return _ALLOWED_KEYS.get(_dotted(location)) or _ALLOWED_KEYS.get(str(location[-1]), "a value")


_ALLOWED_KEYS = {
    "ip": "the host's address, such as 10.0.0.11",
    "arch": "arm64 or amd64",
    "name": "a name of a-z, 0-9 and -",
    "keys": "a list of public SSH keys",
    "domain": "a DNS name such as home.example.com",
    "network": "keys and values in {...}: lan, gateway, dns, ...",
    "network.lan": "a network such as 10.0.0.0/24",
    "network.gateway": "the router's address, such as 10.0.0.1",
    "network.dns": "a list of addresses, such as ['10.0.0.1']",
    "k3s.snapshots.s3.endpoint": "host[:port], such as s3.example.com:9091",
    "k3s.snapshots.s3.bucket": "the bucket's name",
}


def _shown(value: object) -> str:
    """A value as the user wrote it, shortened; a secret never."""
    if "PRIVATE KEY" in str(value):
        return "a private key"
    text = str(value) if isinstance(value, str | IPv4Address) and value else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
