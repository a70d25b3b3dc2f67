"""What a run needs around pyinfra: the model before the first connection, refusals, its end."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click
import gevent
from pyinfra import logger
from pyinfra.api import FunctionCommand, Host, Inventory, State
from pyinfra.api.command import PyinfraCommand
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.state import BaseStateCallback, StateStage
from pyinfra.context import ctx_state

from cluster.model import Cluster
from cluster.problem import Problems
from runtime import frames, lock, secrets, signals, trace
from runtime.cache import ForgetChanged
from runtime.inventory import (
    ROLES,
    cluster_of,
    inventory_file,
    is_project,
    missing,
    node_name,
    prepare_hosts,
)
from runtime.phases import Phases
from runtime.quiet import Quiet, quiet_ssh
from runtime.sudo import Sudo
from runtime.summary import Summary, names

KEEPALIVE = 15  # seconds between two signs of life on an idle SSH connection
SILENCE = 60_000  # milliseconds without an answer after which a connection is given up
REFUSAL_LIMIT = 10.0  # seconds a refusal waits for the refusals of other hosts
VERSIONS_LIMIT = 3.0  # seconds for the versions of the summary
DEPLOYS = Path(__file__).resolve().parents[1] / "deploys"
_READERS = ("fact", "exec", "debug-inventory")  # pyinfra's commands beside deploys and operations


class ProjectState(State):
    """pyinfra's State with the cluster's model and this project's manners."""

    cluster: Cluster
    options: Mapping[str, Any]  # of pyinfra's command line; empty when there is none
    summary: Summary
    sudo: Sudo
    lock: lock.Lock | None
    refusals: list[str]
    reports: list[Callable[[], Iterable[str]]]
    _refused: set[Any]
    _ended: bool

    def begin(self) -> None:
        """Take over a state of pyinfra's, and the signals when there is a command line."""
        context = click.get_current_context(silent=True)
        self.options = context.params if context else {}
        self.summary, self.sudo, self.lock = Summary(_versions), Sudo(), None
        self.refusals, self._refused, self._ended = [], set(), False
        self.reports = []
        if self.options:
            quiet_ssh()
            signals.install(self, partial(self.finish, broken_off=True))
            if not self.options.get("verbosity"):
                logger.addFilter(Quiet())

    def set_stage(self, stage: StateStage) -> None:
        """Do what belongs before and after connecting, preparing and executing."""
        signals.hold()
        if is_project(self.inventory):
            if stage == StateStage.Connect:
                self._before_connect()
            elif stage == StateStage.Prepare:
                self._before_prepare()
            elif stage == StateStage.Execute:
                self._before_execute()
        elif stage == StateStage.Connect:
            _check_project(self.options)
        super().set_stage(stage)
        if stage == StateStage.Disconnect and self.options:
            self.finish()
            if not self.options.get("json_output"):
                raise SystemExit(1 if self.failed_hosts else 0)  # in place of pyinfra's own table

    def _before_connect(self) -> None:
        """Read and check everything that needs no connection."""
        _check_options(self.options)
        _check_limit(self)
        self.cluster = _validated(self.inventory)
        secrets.use(self.cluster, inventory_file(self.inventory))
        prepare_hosts(self.inventory)
        frames.know(one for one in self.options.get("operations", ()) if str(one).endswith(".py"))
        traces = [trace.Trace()] if trace.requested() else []
        for handler in (FastConnection(), *traces, self.sudo, ForgetChanged(), self.summary):
            self.add_callback_handler(handler)  # type: ignore[no-untyped-call]

    def _before_prepare(self) -> None:
        if self.sudo.problems:
            _refuse(sorted(self.sudo.problems))
        if not _only_reads(self.options) and _goes_on(self.options):
            self._take_lock()  # before anything is read that another run is about to change

    def _before_execute(self) -> None:
        try:
            secrets.require()
        except secrets.SecretsUnavailable as error:
            _refuse([*str(error).splitlines(), "refused; nothing was changed"])
        asked = not _goes_on(self.options)  # nobody is kept waiting while a person reads the plan
        if asked and not _only_reads(self.options) and self.get_op_order():  # type: ignore[no-untyped-call]
            self._take_lock()
        for handler in (Held(), Told(), Phases(self)):
            self.add_callback_handler(handler)  # type: ignore[no-untyped-call]

    def _take_lock(self) -> None:
        self.lock = lock.Lock(what=" ".join(map(str, self.options.get("operations", ()))))
        try:
            self.lock.acquire(self, self.inventory.get_group("servers", default=[]))
        except lock.Busy as busy:
            _refuse([f"{busy}; nothing was changed"])

    def fail_hosts(self, hosts_to_fail: set[Host], activated_count: int | None = None) -> None:
        """End the run at the first failed hosts: undo, show the table, name them."""
        if not hosts_to_fail:
            return
        if not self.options or self.config.FAIL_PERCENT:
            super().fail_hosts(hosts_to_fail, activated_count)  # type: ignore[no-untyped-call]
            return
        signals.hold()
        self.failed_hosts.update(hosts_to_fail)
        self.active_hosts -= hosts_to_fail
        if self._ended:
            raise PyinfraError("the run ends")
        self._ended = True
        signals.undo()
        self.finish()
        logger.error(f"--> {self._failure(hosts_to_fail)}")
        signals.leave(1)

    def finish(self, broken_off: bool = False) -> None:
        """The table, what deploys add to it, and the lock freed."""
        self.summary.print_once(self, broken_off)
        while self.reports and self.is_executing and not broken_off and not self.failed_hosts:
            for line in self.reports.pop(0)():
                logger.info(line)
        if self.lock:
            self.lock.release()

    def _failure(self, hosts: set[Host]) -> str:
        who = names(hosts)
        if self.current_stage == StateStage.Connect:
            return f"{who}: cannot be reached; nothing was changed on any host"
        if not self.is_executing:
            return f"{who}: cannot be read; nothing was changed on any host"
        where = ", ".join(dict.fromkeys(self.summary.failure(self, host) for host in hosts))
        return f"{who}: failed in {where}; nothing was begun after it"


class Held(BaseStateCallback):
    """Keeps the run held while it is being stopped, and its lock over a reboot."""

    @staticmethod
    def operation_start(state: State, op_hash: str) -> None:
        """Wait for the end of the run: a killed operation looks like a success to pyinfra."""
        signals.hold()

    @staticmethod
    def host_connect(state: State, host: Host) -> None:
        """Take the lock on a server that was away; its file is gone with a reboot."""
        assert isinstance(state, ProjectState)
        servers = state.inventory.get_group("servers", default=[])
        if not state.lock or host not in servers or host.name in state.lock.held:
            return
        try:
            why = state.lock.take(state, host)
        except lock.Busy as busy:
            why = str(busy)
        if why:
            logger.warning(why)


class Told(BaseStateCallback):
    """Lets an operation that raises PyinfraError fail with its text, without a traceback."""

    @staticmethod
    def operation_host_start(state: State, host: Host, op_hash: str) -> None:
        """The last moment before pyinfra asks the operation for its commands."""
        if data := state.ops[host].get(op_hash):
            data.command_generator = partial(_commands, host, data.command_generator)


def _commands(host: Host, make: Callable[[], Iterator[PyinfraCommand]]) -> Iterator[PyinfraCommand]:
    try:
        yield from make()
    except PyinfraError as error:
        yield FunctionCommand(_failed, (str(error).removeprefix(f"{host.name}: "),), {})


def _failed(state: State, host: Host, cause: str) -> bool:
    host.log_styled(cause, fg="red", log_func=logger.error)
    return False


def _only_reads(options: Mapping[str, Any]) -> bool:
    """Whether pyinfra was called for something else than a deploy or an operation."""
    return (options.get("operations") or _READERS)[0] in _READERS


def _goes_on(options: Mapping[str, Any]) -> bool:
    """Whether the run changes hosts without asking first."""
    shows = any(options.get(name) for name in ("dry", "debug_operations", "debug_facts"))
    return bool(options.get("yes")) and not shows


def _check_options(options: Mapping[str, Any]) -> None:
    """Refuse a run without order among hosts, and a question that nobody can answer."""
    if _only_reads(options):
        return
    for name in ("serial", "no_wait"):
        if options.get(name):
            _refuse([f"--{name.replace('_', '-')} breaks the order among hosts: leave it out"])
    answered = any(options.get(name) for name in ("yes", "dry", "json_output", "debug_operations"))
    if not answered and not options.get("debug_facts") and not sys.stdin.isatty():
        _refuse(["no terminal to ask at: -y applies the changes, --dry only shows them"])


def _check_words(options: Mapping[str, Any]) -> None:
    """Refuse what pyinfra itself would misread: an inventory that is no file, data of no form."""
    data = options.get("data", ())
    lines = [f"--data {one}: expected name=value" for one in data if "=" not in one]
    inventory = str(options.get("inventory"))
    if DEPLOYS in Path(inventory).resolve().parents:
        lines.append(f"{inventory}: a deploy: expected the inventory before it")
    elif _runs_ours(options) and (why := missing(inventory)):
        lines.append(why)
    if lines:
        _refuse(lines)


def _runs_ours(options: Mapping[str, Any]) -> bool:
    """Whether a deploy of this project is to run."""
    return any(DEPLOYS in Path(one).resolve().parents for one in options.get("operations", ()))


def _check_project(options: Mapping[str, Any]) -> None:
    """Refuse a deploy of ours without a cluster: an inventory file that has no host of ours."""
    if _runs_ours(options):
        groups, given = ", ".join(ROLES), options.get("inventory")
        _refuse([f"{given}: no inventory of a cluster: expected a file with the groups {groups}"])


def _check_limit(state: ProjectState) -> None:
    if state.limit_hosts != []:
        return
    groups = [group for group in ROLES if state.inventory.get_group(group, default=[])]
    given = " ".join(
        f"--{name} {value}"
        for name in ("limit", "exclude")
        for value in state.options.get(name, ())
    )
    hosts = ", ".join(node_name(host) for host in state.inventory)
    _refuse([f"{given}: no host is left; groups: {', '.join(groups)}; hosts: {hosts}"])


def _refuse(lines: Iterable[str]) -> NoReturn:
    """End the run from the main greenlet before anything has changed."""
    for line in lines:
        logger.error(f"--> {line}")
    raise SystemExit(1)


def _say(error: Problems) -> NoReturn:
    """End the run before it begins, with one line a problem."""
    for problem in error.problems:
        logger.error(problem)
    raise SystemExit(1) from None


def _validated(inventory: Inventory) -> Cluster:
    """The model of the inventory, or every problem with it, one line each, and exit code 1."""
    try:
        model = cluster_of(inventory)
    except Problems as error:
        _say(error)
    for warning in model.warnings:
        logger.warning(warning)
    return model


def _versions(state: State) -> Mapping[str, str]:
    """K3s version by node as the API says; nothing when this run did not need the API."""
    from cluster.answer import Present
    from runtime.api import NODE, api_of

    found: dict[str, str] = {}
    api = api_of(state)
    with gevent.Timeout(VERSIONS_LIMIT, False):
        match api.list(NODE) if api.current else None:
            case Present(value=nodes):
                for node in nodes:
                    version = node.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", "-")
                    found[node["metadata"]["name"]] = version
    return found


class FastConnection(BaseStateCallback):
    """SSH without the wait of some 40 ms for a delayed ACK, and with an end when a host dies."""

    @staticmethod
    def host_connect(state: State, host: Host) -> None:
        """Set the options of the connection's socket."""
        client: Any = getattr(host.connector, "client", None)
        transport = client.get_transport() if client else None
        if transport and isinstance(transport.sock, socket.socket):
            transport.set_keepalive(KEEPALIVE)
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
                transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE)


def install() -> None:
    """Give the run's State our class, and its plan our table; called by config.py."""
    state = ctx_state.get()
    state.__class__ = ProjectState
    state.begin()
    if state.options:
        from runtime import input_files  # only where pyinfra's command runs

        _check_words(state.options)
        input_files.install(_say)
    if state.options and not state.options.get("verbosity"):
        from runtime import detected

        detected.install()


def cluster() -> Cluster:
    """The model of the run's cluster."""
    model: Cluster = ctx_state.get().cluster
    return model


def fail(problems: Iterable[str]) -> NoReturn:
    """Refuse the run from deploy code, before anything changed: one line a problem, exit 1.

    Hosts that are still being prepared get a moment to add their problems.
    """
    state: ProjectState = ctx_state.get()
    for line in dict.fromkeys(problems):
        if line not in state.refusals:  # deploy code runs for every host
            state.refusals.append(line)
            logger.error(f"--> {line}")
    if state.options:
        state._refused.add(gevent.getcurrent())
        with gevent.Timeout(REFUSAL_LIMIT, False):
            while any(one not in state._refused for one in state.pool):
                gevent.sleep(0.02)
        if not state._ended:
            state._ended = True
            state.finish()
            logger.error("--> refused; nothing was changed")
            signals.leave(1)
    raise PyinfraError("refused; nothing was changed")


def report(lines: Callable[[], Iterable[str]]) -> None:
    """Print further lines below the table of a run that has executed and not failed."""
    ctx_state.get().reports.append(lines)


def started_directly(name: str) -> bool:
    """Whether pyinfra runs the deploy file itself, rather than another deploy importing it.

    pyinfra executes a deploy file without a module name, so that its `__name__` is the one of
    the builtins.
    """
    return name == "builtins"
