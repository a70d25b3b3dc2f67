"""Operations of the S3 server and of backups: fresh, converged and half-way hosts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.answer import Absent, Answer, Forbidden, Present, Unreachable
from cluster.host_state import File, HostState, Package, Unit
from cluster.managed import METRICS
from cluster.services import backup as backups
from cluster.services import s3 as service
from cluster.services import s3_unit, tls
from facts.s3 import S3Host, S3HostState
from operations import backup, s3
from runtime import secrets
from runtime.s3 import S3Error
from runtime.secrets import SecretsUnavailable
from tests.unit.cluster_example import example
from tests.unit.node_ops import Command
from tests.unit.node_ops import Runner as Run
from tests.unit.node_world import NOW, pi

CA = tls.new_ca(datetime.now(UTC))
SECTIONS: dict[str, Any] = {"s3": {}, "backup": {"hosts": ["nas"]}}
MODEL = service.derived(
    example(
        hosts=[
            {"name": "nas", "role": "external", "ip": "10.0.0.9", "arch": "arm64"},
            {"name": "node1", "role": "servers", "ip": "10.0.0.11", "arch": "arm64"},
        ],
        services=SECTIONS,
        stack={"storage": "longhorn"},
    ),
    CA.certificate,
)
NAS = MODEL.hosts[0]
SERVER = service.server(MODEL)
assert SERVER
UNIT, UNIT_FILE = service.unit_name(SERVER), service.unit_file(SERVER)
VALUES = {
    "ca.certificate": CA.certificate,
    "ca.key": CA.key,
    "restic.password": "p" * 20,
    **{
        f"s3.{name}.{key}": f"{name}-{key}"
        for name in ("root", "longhorn", "restic")
        for key in ("access_key", "secret_key")
    },
}
CERTIFICATE = tls.issue(CA, service.names(MODEL), datetime.now(UTC)).certificate
HOME = S3Host(user=True, folder="directory 700 s3:s3", certificate=CERTIFICATE)
UP = Unit("loaded", "active", "enabled", since=900.0)


def file(text: str, mode: str = "600", owner: str = "root:root") -> File:
    text = text if text.endswith("\n") else f"{text}\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    return File(mode, owner, changed=int(NOW) - 10_000, sha256=digest)


FRESH = pi(NAS)
FINISHED = replace(
    FRESH,
    units={
        **FRESH.units,
        UNIT: UP,
        **{backups.timer(job): UP for job in backups.jobs(MODEL, NAS)},
    },
    packages={**FRESH.packages, "restic": Package("0.16.4", "ii")},
    files={
        **FRESH.files,
        service.ROOT: file(service.root_environment(SERVER, VALUES)),
        service.USERS: file(service.users(MODEL, VALUES), owner="s3:s3"),
        service.TLS: file("key"),
        UNIT_FILE: file(s3_unit.unit(MODEL, SERVER), "644"),
        backups.ENVIRONMENT: file(backups.environment(MODEL, VALUES)),
        backups.TOOL: file(backup.TOOL.read_text(), "755"),
        backups.COMMAND: file(backups.command(), "755"),
        **{path: file(text, "644") for path, text in backups.files(MODEL, NAS).items()},
        **{path: File("700") for path in (backups.STATE, backups.CACHE, METRICS)},
    },
)


class Store:
    """The secrets of a run."""

    path = "secrets/pi.sops.yaml"

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    def values(self) -> dict[str, str]:
        return self._values


class Locked:
    """The same without the key."""

    def values(self) -> dict[str, str]:
        raise SecretsUnavailable("no key opens it")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(secrets, "_run", {})
    monkeypatch.setattr(secrets, "_store", lambda: Store(VALUES))
    monkeypatch.setattr(s3, "transport_of", lambda _: None)  # no SSH below
    return Run(monkeypatch)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Callable[[S3Host], None]:
    def given(state: S3Host) -> None:
        monkeypatch.setattr(s3, "cached", lambda *_, **__: state)

    given(HOME)
    return given


def texts(commands: list[Command]) -> str:
    return "\n".join(command.text for command in commands)


def with_file(state: HostState, path: str, **changes: Any) -> HostState:
    return replace(state, files={**state.files, path: replace(state.files[path], **changes)})


# ---- the server


@pytest.mark.parametrize("operation", [s3.home, s3.server, s3.accounts])
def test_a_finished_host_needs_no_command(run: Run, home: Any, operation: Any) -> None:
    assert run(operation, MODEL, FINISHED, on="nas") == []
    assert len(run.host.noops) == 1


def test_a_fresh_host_gets_everything_and_one_start(run: Run, home: Any) -> None:
    home(S3Host())
    assert "install -d -m 0700" in texts(run(s3.home, MODEL, FRESH, on="nas"))
    commands = run(s3.server, MODEL, FRESH, on="nas")
    said = texts(commands)
    for part in (service.ROOT, service.TLS, UNIT_FILE, "daemon-reload", "enable"):
        assert part in said
    assert said.count("restart(") == 1
    assert said.endswith(f"['{service.TLS}', '{service.TLS}'])")
    assert "https://127.0.0.1:9000/health" in said
    assert not any(value in said for value in VALUES.values())


@pytest.mark.parametrize(
    "state",
    [
        with_file(FINISHED, service.ROOT, sha256="0" * 64),
        with_file(FINISHED, service.ROOT, mode="644"),
        with_file(FINISHED, UNIT_FILE, sha256="0" * 64),
        with_file(FINISHED, service.TLS, changed=int(NOW) - 10),  # written, then cut off
        replace(FINISHED, units={**FINISHED.units, UNIT: replace(UP, active="failed")}),
    ],
)
def test_what_the_server_reads_at_its_start_restarts_it(
    run: Run, home: Any, state: HostState
) -> None:
    assert "restart(" in texts(run(s3.server, MODEL, state, on="nas"))


def test_a_changed_account_restarts_nothing(run: Run, home: Any) -> None:
    state = with_file(FINISHED, service.USERS, sha256="0" * 64)
    (command,) = run(s3.accounts, MODEL, state, on="nas")
    assert "-o s3 -g s3" in command and service.USERS in command
    assert run(s3.server, MODEL, state, on="nas") == []


def test_a_certificate_for_an_old_address_is_issued_anew(run: Run, home: Any) -> None:
    old = tls.issue(CA, ["10.0.0.8"], datetime.now(UTC)).certificate
    home(replace(HOME, certificate=old))
    said = texts(run(s3.server, MODEL, FINISHED, on="nas"))
    assert service.TLS in said and "restart(" in said
    assert any("not for" in line for line in run.host.said)


def test_the_data_of_another_product_is_not_taken_over(run: Run, home: Any) -> None:
    home(replace(HOME, holds="minio"))
    (command,) = run(s3.home, MODEL, FINISHED, on="nas")
    assert "refuse('/var/lib/s3', 'minio', 'versitygw')" in command
    home(replace(HOME, holds="versitygw"))
    assert run(s3.home, MODEL, FINISHED, on="nas") == []


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (VALUES, None),
        (
            {**VALUES, "ca.certificate": tls.new_ca(datetime.now(UTC)).certificate},
            "make secrets INVENTORY=inventories/pi.py` writes",
        ),
        ({**VALUES, "ca.key": tls.new_ca(datetime.now(UTC)).key}, "not the key of ca.certificate"),
        ({}, None),  # what is missing is said of the secrets as a whole
    ],
)
def test_a_ca_that_cannot_sign_is_refused_before_anything_is_done(
    run: Run, monkeypatch: pytest.MonkeyPatch, values: dict[str, str], why: str | None
) -> None:
    monkeypatch.setattr(secrets, "_store", lambda: Store(values))
    monkeypatch.setattr(s3, "cluster", lambda: MODEL)
    monkeypatch.setitem(secrets._run, "inventory", "inventories/pi.py")
    found = s3.ca_problems()
    assert (found == []) if why is None else why in found[0]


def test_without_the_key_a_plan_says_what_it_cannot_compare(
    run: Run, home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "_store", Locked)
    run(s3.accounts, MODEL, FINISHED, on="nas")
    assert any("cannot be compared without the key" in line for line in run.host.said)


def test_the_fact_reads_certificates_and_no_key() -> None:
    fact = S3HostState()
    assert "PRIVATE" not in fact.command("/var/lib/s3", service.TLS)
    lines = ["user", "folder directory 700 s3:s3", "holds minio", *CERTIFICATE.splitlines()]
    assert fact.process(lines) == replace(HOME, holds="minio")
    assert fact.process([]) == S3Host()


# ---- buckets and accounts


class Service:
    """An S3 service in memory: the policy of each bucket."""

    def __init__(self, policies: dict[str, Any], down: bool = False) -> None:
        self.policies, self.down = policies, down
        self.tried: list[str] = []

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def policy(self, bucket: str) -> Answer[Any]:
        if self.down:
            return Unreachable("nobody there")
        return Present(self.policies[bucket]) if bucket in self.policies else Absent("no bucket")

    def make_bucket(self, bucket: str) -> None:
        self.policies[bucket] = {}

    def set_policy(self, bucket: str, policy: Any) -> None:
        self.policies[bucket] = policy

    def try_out(self, bucket: str, key: str, content: bytes) -> None:
        self.tried.append(bucket)
        if bucket not in self.policies:
            raise S3Error(Absent(f"{bucket} is not there"))

    def listed(self, bucket: str) -> Answer[int]:
        policy = self.policies.get(bucket) or {}
        return Present(0) if policy.get("open") else Forbidden("AccessDenied")


def wanted() -> dict[str, Any]:
    return {
        one.bucket: service.policy(one, VALUES[f"{one.secrets}.access_key"])
        for one in service.accounts(MODEL)
    }


def test_buckets_as_wanted_need_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "S3", lambda *_: Service(wanted()))
    assert run(s3.buckets, MODEL, FINISHED, on="nas") == []


@pytest.mark.parametrize("lost", ["k3s-longhorn", "k3s-restic"])
def test_a_missing_bucket_and_a_changed_policy_are_made_good(
    run: Run, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    known = wanted()
    del known[lost]
    other = next(iter(known))
    known[other] = {"open": True}
    known["somebody-elses"] = {"open": True}
    there = Service(known)
    monkeypatch.setattr(s3, "S3", lambda *_: there)
    monkeypatch.setattr(s3, "cluster", lambda: MODEL)
    assert len(run(s3.buckets, MODEL, FINISHED, on="nas")) == 1
    host: Any = SimpleNamespace(log=lambda _: None)
    assert s3.make_buckets(None, host)  # type: ignore[arg-type]
    assert there.policies == wanted() | {"somebody-elses": {"open": True}}


def test_a_service_that_is_not_up_yet_is_a_change_and_no_crash(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "S3", lambda *_: Service({}, down=True))
    assert len(run(s3.buckets, MODEL, FRESH, on="nas")) == 1
    assert any("cannot be compared yet" in line for line in run.host.said)


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        ({}, None),
        ({"k3s-longhorn": None}, "longhorn in k3s-longhorn"),
        ({"k3s-restic": {"open": True}}, "longhorn can read k3s-restic, which is restic's"),
    ],
)
def test_an_account_that_reads_anothers_bucket_is_no_good(
    run: Run, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], flaw: str | None
) -> None:
    known = {name: policy for name, policy in (wanted() | change).items() if policy is not None}
    monkeypatch.setattr(s3, "S3", lambda *_: Service(known))
    found = s3._account_flaw(MODEL, service.accounts(MODEL)[0])
    assert (found is None) if flaw is None else (found or "").startswith(flaw)


def test_a_proof_is_made_once_for_the_same_accounts(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(s3.proof, MODEL, FINISHED, on="nas")
    assert [("prove" in first[0]), (service.PROOF in first[1])] == [True, True]
    mark = s3.proof_mark(MODEL).unmask()
    proved = replace(FINISHED, files={**FINISHED.files, service.PROOF: file(mark)})
    assert run(s3.proof, MODEL, proved, on="nas") == []
    monkeypatch.setattr(
        secrets, "_store", lambda: Store(VALUES | {"s3.longhorn.secret_key": "another"})
    )
    assert len(run(s3.proof, MODEL, proved, on="nas")) == 2


# ---- backups


def test_a_host_that_is_backed_up_needs_no_command(run: Run) -> None:
    assert run(backup.on_host, MODEL, FINISHED, on="nas") == []


def test_a_fresh_host_gets_keys_tool_and_timers(run: Run) -> None:
    said = texts(run(backup.on_host, MODEL, FRESH, on="nas"))
    for part in (backups.ENVIRONMENT, backups.TOOL, backups.SETTINGS, METRICS):
        assert part in said
    assert "systemctl enable --now picluster-backup@backup.timer" in said
    assert VALUES["restic.password"] not in said


def test_a_timer_that_changed_is_started_anew_and_no_other(run: Run) -> None:
    path = f"{backups.UNITS}/{backups.timer('prune')}"
    commands = run(backup.on_host, MODEL, with_file(FINISHED, path, sha256="0" * 64), on="nas")
    assert commands[0].text.startswith("systemd-analyze calendar 'Sun *-*-* 05:00:00'")
    assert [command.text for command in commands[2:]] == [
        "systemctl daemon-reload",
        f"systemctl restart {backups.timer('prune')}",
    ]


def test_a_keeper_that_is_none_any_more_loses_its_timers(run: Run) -> None:
    section = {"hosts": ["nas", "node1"], "keeper": "node1"}
    moved = service.derived(
        MODEL.model_copy(
            update={
                "services": MODEL.services.model_copy(
                    update={"backup": backups.HostBackup.model_validate(section)}
                )
            }
        ),
        None,
    )
    said = texts(run(backup.on_host, moved, FINISHED, on="nas"))
    assert f"systemctl disable --now {backups.timer('prune')}" in said
    assert f"rm -f {backups.UNITS}/{backups.timer('check')}" in said


def test_the_ca_goes_when_the_service_has_a_public_certificate(run: Run) -> None:
    there = replace(FINISHED, files={**FINISHED.files, backups.CA: file("a CA")})
    public = MODEL.model_copy(update={"backup": MODEL.backup.model_copy(update={"ca": None})})
    assert f"rm -f {backups.CA}" in texts(run(backup.on_host, public, there, on="nas"))


@pytest.mark.parametrize(
    ("found", "done", "said"),
    [
        (Present(None), True, ""),
        (Absent("no key"), True, "makes the repository"),
        (Forbidden("another password"), False, "nothing was made there"),
        (Unreachable("refused"), False, "nothing was made there"),
    ],
)
def test_only_an_absent_repository_is_made(
    monkeypatch: pytest.MonkeyPatch, found: Answer[None], done: bool, said: str
) -> None:
    asked: list[str] = []
    lines: list[str] = []
    monkeypatch.setattr(backup, "look", lambda _: found)
    monkeypatch.setattr(backup, "cluster", lambda: MODEL)
    monkeypatch.setattr(backup, "_restic", lambda _, *words: asked.append(words[0]) or (0, ""))
    host: Any = SimpleNamespace(log=lines.append, log_styled=lambda text, **_: lines.append(text))
    assert backup.make_repository(None, host) is done  # type: ignore[arg-type]
    assert asked == (["init"] if isinstance(found, Absent) else [])
    assert said in "\n".join(lines)
