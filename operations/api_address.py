"""The virtual address of the API: its carriers, and whether the API answers there."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host, inventory
from pyinfra.api import FunctionCommand, Host, State, StringCommand, operation
from pyinfra.api.command import PyinfraCommand
from pyinfra.api.exceptions import PyinfraError

from cluster.probe import Done, Pending, Probe
from cluster.services import api_address
from facts.api_address import ApiAnswer
from facts.node import host_state
from facts.own_files import StrangeFiles
from operations import config_files, text
from runtime import cache
from runtime.inventory import hosts_of_run
from runtime.run import cluster
from runtime.wait import until

Commands = Generator[PyinfraCommand, None, None]

PONG = "pong"
K3S = "k3s.service"
LIMIT = 180  # seconds; kube-vip's image has to be pulled first

# The folders as K3s makes them: what is in `server` is for root alone.
_FOLDER = (
    "mkdir -p /var/lib/rancher/k3s && "
    "for d in server server/manifests; do d=/var/lib/rancher/k3s/$d; "
    '[ -d "$d" ] || mkdir -m 700 "$d"; done'
)
# keepalived before 2.2.8 ends its own test of a file that has a script (acassen/keepalived#2587);
# then the rest of the file is tested without the script.
_TEST = (
    'out=$(keepalived -t -f "$1" 2>&1); rc=$?; if [ $rc = 143 ]; then '
    'sed \'/^vrrp_script/,/^}/d; /track_script {/,/}/d\' "$1" > "$1.part"; '
    'out=$(keepalived -t -f "$1.part" 2>&1); rc=$?; rm -f "$1.part"; fi; '
    '[ $rc = 0 ] || printf "%s\\n" "$out"; exit $rc'
)
CHECK = ("sh", "-c", _TEST, "check")
# What K3s has applied stays when the file goes, and so does its note (an Addon) of the file's sum:
# with that, it would not apply the same file again.
_DELETE = (
    'set -e; k3s kubectl delete --ignore-not-found --timeout=60s -f "$1"; '
    "k3s kubectl delete --ignore-not-found --timeout=60s -n kube-system "
    'addons.k3s.cattle.io "$(basename "$1" .yaml)"; rm -f "$1"'
)


def interface(one: Host) -> str:
    """The interface that gets the address; raises PyinfraError, which the deploy refuses before."""
    model = cluster()
    me = model.host(one.name)
    wanted = model.network.api.haproxy.interface
    found = wanted or host_state(one, model).interfaces.get(str(me.ip))
    if found is None:
        raise PyinfraError(f"{me.name}: no interface has {me.ip}")
    return found


def foreign(one: Host) -> tuple[str, ...]:
    """The configuration of haproxy and keepalived on a host, where it is somebody else's."""
    paths = tuple(api_address.UNITS)
    return cache.cached(one, StrangeFiles, paths=paths, packages=api_address.PACKAGES)


@operation()
def keepalived() -> Commands:
    """keepalived, told about its peers, checked by itself; it takes the address or lets it go."""
    model, now = cluster(), host_state(host, cluster())
    me, unit = model.host(host.name), api_address.KEEPALIVED_UNIT
    wanted = {api_address.KEEPALIVED: api_address.keepalived(model, me, interface(host))}
    changed = yield from config_files.write(now, wanted, check=CHECK)
    found = now.unit(unit)
    read = (api_address.KEEPALIVED, api_address.KEEPALIVED_SECRET)
    if found.running and (changed or now.stale(unit, *read)):
        changed = True
        yield StringCommand("systemctl", "reload", unit)
    # Debian's package enables it and lets it wait for this file.
    if not found.running or found.enabled != "enabled":
        changed = True
        yield StringCommand("systemctl", "enable", "--now", unit)
    if not changed:
        host.noop("keepalived runs as wanted")


@operation()
def no_haproxy() -> Commands:
    """No haproxy and keepalived of ours where they are not wanted any more."""
    now = host_state(host, cluster())
    if api_address.MARK not in now.files:
        host.noop("no haproxy of ours")
        return
    theirs = foreign(host)
    gone = list[str]()
    for path, unit in api_address.UNITS.items():
        if path in theirs:
            continue
        gone.append(path)
        if path == api_address.KEEPALIVED:
            gone.append(api_address.KEEPALIVED_SECRET)
        if now.unit(unit).exists:
            yield StringCommand("systemctl", "disable", "--now", unit)
    yield StringCommand("rm", "-f", *gone, api_address.MARK)


@operation()
def kube_vip() -> Commands:
    """kube-vip's manifests where K3s finds them, on each server; K3s applies them by itself."""
    model, now = cluster(), host_state(host, cluster())
    path, wanted = api_address.MANIFEST, api_address.kube_vip(model)
    if forgotten := api_address.UNWANTED in now.files:
        yield text.remove(api_address.UNWANTED)
    if not text.differs(now.files.get(path), wanted, "600"):
        if not forgotten:
            host.noop("kube-vip's manifests are there")
        return
    config_files.show_difference(path, wanted, known=path in now.files)
    yield StringCommand("sh", "-c", f"'{_FOLDER}'")
    yield text.write(path, wanted, "600")


@operation()
def no_kube_vip() -> Commands:
    """No kube-vip where somebody else carries the address: two would quarrel.

    Where K3s does not run, its objects wait for a run that finds it running.
    """
    now = host_state(host, cluster())
    if api_address.MANIFEST in now.files:
        # A server that does not run applies it when it starts; from there it does not.
        yield StringCommand("mv", "-f", api_address.MANIFEST, api_address.UNWANTED)
    if now.unit(K3S).running and api_address.has_kube_vip(now):
        yield StringCommand("sh", "-c", f"'{_DELETE}'", "delete", api_address.UNWANTED)
    elif api_address.MANIFEST not in now.files:
        host.noop("no kube-vip that could be deleted now")


@operation()
def answers(runs: bool) -> Commands:
    """Wait until K3s answers this host at the address.

    runs: K3s must be there by then; False: nothing is asked while no server runs it.
    """
    model = cluster()
    if not runs and not any(map(_runs_k3s, hosts_of_run(inventory))):
        host.noop("no server runs K3s yet")
        return
    if cache.cached(host, ApiAnswer, url=model.api_url) == PONG:
        host.noop(f"the API answers at {model.api_url}")
        return
    yield FunctionCommand(_wait, (model.api_url,), {})


def _runs_k3s(one: Host) -> bool:
    model = cluster()
    member = model.member(one.name)
    if member is None or not member.is_server:
        return False
    return host_state(one, model).unit(K3S).running


def _wait(state: State, host: Host, url: str) -> bool:
    def probe() -> Probe:
        answer = host.get_fact(ApiAnswer, url=url)
        return Done(PONG) if answer == PONG else Pending(answer)

    return until(probe, what=f"the API at {url}", timeout=LIMIT, host=host)
