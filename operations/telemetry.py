"""Metrics and logs of hosts outside the cluster."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.command import QuoteString

from cluster.managed import METRICS
from cluster.services import telemetry
from facts.node import host_state
from operations import config_files, text
from runtime.run import cluster

Commands = Generator[StringCommand, None, None]


@operation()
def exporter() -> Commands:
    """Node exporter listens on the host's own address, with the folder for metrics of services."""
    model, now = cluster(), host_state(host, cluster())
    files = telemetry.exporter_files(model, model.host(host.name))
    unit = text.differs(
        now.files.get(telemetry.EXPORTER_UNIT), files[telemetry.EXPORTER_UNIT], config_files.MODE
    )
    changed = yield from config_files.write(now, files)
    if METRICS not in now.files:
        changed = True
        yield StringCommand("install", "-d", "-m", "755", METRICS)
    yield from _running(telemetry.EXPORTER, unit, changed, *files)


@operation()
def repository() -> Commands:
    """The repository of Fluent Bit's makers, its key checked by the fingerprint."""
    now, wanted = host_state(host, cluster()), telemetry.section(cluster()).repository
    path = telemetry.keyring(wanted)
    changed = path not in now.files
    if changed:
        url = f"{wanted.url.rstrip('/')}/fluentbit.key"
        words = (QuoteString(word) for word in (url, wanted.fingerprint, path))
        yield StringCommand("sh", "-c", QuoteString(telemetry.FETCH_KEY), "key", *words)
    source = {telemetry.SOURCES: telemetry.sources(wanted, now)}
    changed = (yield from config_files.write(now, source)) or changed
    if not changed:
        host.noop("the repository of Fluent Bit is known")


@operation()
def sender() -> Commands:
    """Fluent Bit sends the journal to the aggregator; what it refuses itself is never in force."""
    model, now = cluster(), host_state(host, cluster())
    wanted = {telemetry.CONFIG: telemetry.sender_config(model, model.host(host.name))}
    ca = telemetry.section(model).ca
    new_ca = False
    if ca and telemetry.secured(model):
        new_ca = yield from config_files.write(now, {telemetry.CA: f"{ca.strip()}\n"})
    changed = yield from config_files.write(now, wanted, check=telemetry.CHECK)
    unit = yield from config_files.write(now, {telemetry.SENDER_UNIT: telemetry.sender_unit()})
    read = (telemetry.CONFIG, telemetry.CA, telemetry.KEY_FILE, telemetry.SENDER_UNIT)
    yield from _running(telemetry.SENDER, unit, new_ca or changed or unit, *read)


def _running(unit: str, reload: bool, changed: bool, *paths: str) -> Commands:
    """The unit runs with its files as they are, now and after a boot."""
    now = host_state(host, cluster())
    found = now.unit(unit)
    if reload:
        yield StringCommand("systemctl", "daemon-reload")
    if found.enabled != "enabled":
        yield StringCommand("systemctl", "enable", unit)
    if changed or not found.running or now.stale(unit, *paths):
        yield StringCommand("systemctl", "restart", unit)
    elif found.enabled == "enabled":
        host.noop(f"{unit} runs as wanted")
