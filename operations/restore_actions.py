"""The steps of a restore on a server, and what is waited for after each.

Functions for FunctionCommands: called with the state and the host first, they answer False when
the operation has failed.
"""

from __future__ import annotations

from pyinfra.api import Host, State

from cluster import k3s_config, restore
from cluster.answer import Present
from cluster.k3s_errors import explain, message
from cluster.leftovers import RESTORE_UNIT
from cluster.probe import Done, Failed, Pending, Probe
from cluster.restore import Plan
from facts.k3s import k3s_state
from facts.kube import read_nodes
from facts.snapshots import on_server
from operations import gates
from operations.k3s_process import LOG_LINES, restart, say_error, shell, unit_and_logs
from runtime import cache
from runtime.api import Api, api_of
from runtime.inventory import node_name
from runtime.run import cluster
from runtime.wait import until

_SHOW = (
    f"systemctl show {RESTORE_UNIT} -p ActiveState -p Result; "
    f"[ -e {restore.FLAG} ] && echo Flag=yes; echo ---; "
    f"journalctl -u {RESTORE_UNIT} -o cat --no-pager -n {LOG_LINES} 2> /dev/null"
)


def rebuild(state: State, host: Host, plan: Plan, timeout: float) -> bool:
    """Put the snapshot in place of the server's datastore.

    A restore that goes on since an earlier run is watched, not begun again. timeout: seconds.
    """
    if plan.datastore == "sqlite":
        return _done(host, restore.copy_script(plan), "the copy of the datastore")
    begun = restore.reached(plan, on_server(host, cluster()).mark, "restoring")
    goes_on = begun and (_runs(host) or isinstance(_look(host), Done))
    if not goes_on and not _done(host, restore.restore_script(plan), "the restore"):
        return False
    what = f"the restore on {node_name(host)}"
    if not until(lambda: _look(host), what=what, timeout=timeout, host=host):
        host.log(
            f"the datastore that was there before is in {k3s_config.DATA}/server/db, as etcd or "
            "etcd-old-*; how to go back to it: docs/recovery.md"
        )
        return False
    return _done(
        host,
        f"systemctl stop {RESTORE_UNIT}; {restore.mark_command(plan, 'restored')}",
        "the mark of the restore",
    )


def _runs(host: Host) -> bool:
    ok, _ = shell(host, f"systemctl is-active {RESTORE_UNIT} | grep -q activating")
    return ok


def _look(host: Host) -> Probe:
    """One look at the restore; the flag that K3s leaves says that it has ended well."""
    if (seen := unit_and_logs(host, _SHOW)) is None:
        return Pending("the node does not answer")
    values, logs = seen
    active = values.get("ActiveState", "")
    if values.get("Flag") == "yes" and active != "activating":
        return Done("restored")
    if active in ("failed", "active", "inactive"):
        cause = explain(logs, node_name(host))
        said = cause.text if cause else message(logs[-1]) if logs else values.get("Result", "")
        return Failed(said or "K3s ended without a word")
    return Pending(message(logs[-1]) if logs else active)


def use_token(state: State, host: Host, path: str) -> bool:
    """Put a kept server token in force on a server whose K3s is down."""
    if not _done(host, restore.token_script(path), "the token"):
        return False
    host.log_styled(
        f"{node_name(host)}: the server token of {path} is in force again; now rotate it with "
        "deploys/tokens.py, or put it into the secrets (k3s.server_token)",
        fg="yellow",
    )
    return True


def start(state: State, host: Host, plan: Plan, timeout: float) -> bool:
    """Start K3s with the restored datastore and wait for its API. timeout: seconds."""
    api = _again(state, host)
    return (
        _up(host, timeout)
        and until(
            gates.api_ready(api, node_name(host)),
            what=f"the API of {node_name(host)}",
            timeout=timeout,
            host=host,
        )
        and _done(host, restore.mark_command(plan, "started"), "the mark of the start")
    )


def rejoin(state: State, host: Host, plan: Plan, timeout: float) -> bool:
    """Start K3s on a server without datastore and wait until it takes part. timeout: seconds."""
    api = _again(state, host)
    return (
        _up(host, timeout)
        and until(
            lambda: _member(api, plan, host),
            what=f"the etcd member of {node_name(host)}",
            timeout=timeout,
            host=host,
        )
        and until(
            gates.api_ready(api, node_name(host)),
            what=f"the API of {node_name(host)}",
            timeout=timeout,
            host=host,
        )
        and until(
            gates.etcd_voters(api, [node_name(host)]),
            what=f"the vote of {node_name(host)}",
            timeout=timeout,
            host=host,
        )
        and _done(host, restore.mark_command(plan, "joined"), "the mark of the join")
    )


def _member(api: Api, plan: Plan, host: Host) -> Probe:
    """Whether the restored server counts this one; its Node object may be older than the member."""
    own = k3s_state(host).member
    match api.etcd_members(plan.server):
        case Present(value=members) if own and own in members:
            return Done(f"{own} is a member")
        case Present(value=members):
            cache.forget(host)
            return Pending(f"{own or node_name(host)} is not among {', '.join(members)}")
        case answer:
            return Pending(str(answer))


def wake(state: State, host: Host, timeout: float) -> bool:
    """Restart an agent, whose watches know a future that no longer exists, and see it registered.

    Source: Kubernetes documentation, restoring an etcd cluster: restart the components, they may
    rely on stale data. timeout: seconds.
    """
    cache.forget(host)
    unit = k3s_config.unit_name(cluster().host(node_name(host)))
    return restart(host, unit, timeout) and until(
        gates.nodes_registered(api_of(state), [node_name(host)]),
        what=f"the registration of {node_name(host)}",
        timeout=timeout,
        host=host,
    )


def name_strangers(state: State, host: Host) -> bool:
    """Say which nodes came back that are no longer there; nothing is deleted."""
    match read_nodes(api_of(state)):
        case Present(value=nodes):
            for line in restore.strangers(cluster(), nodes):
                host.log_styled(line, fg="yellow")
        case answer:
            host.log_styled(f"the nodes cannot be compared: {answer}", fg="yellow")
    return True


def _again(state: State, host: Host) -> Api:
    """The API without what was known before: certificates may be others now."""
    cache.forget(host)
    api = api_of(state)
    api.close()
    return api


def _up(host: Host, timeout: float) -> bool:
    unit = k3s_config.unit_name(cluster().host(node_name(host)))
    if not _done(host, f"systemctl enable --quiet {unit}", unit):
        return False
    return restart(host, unit, timeout)


def _done(host: Host, script: str, what: str) -> bool:
    ok, lines = shell(host, f"{{ {script}; }} 2>&1")
    cache.forget(host)
    if not ok:
        say_error(host, f"{what} failed: {lines[-1] if lines else 'no message'}")
    return ok
