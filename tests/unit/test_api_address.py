"""Who carries the API's address: texts from the model, and operations that do what differs.

The texts are read by haproxy, keepalived and the API in tests/lab/test_api_address_lab.py.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import kubeconfig, secret_table, versions
from cluster.host_state import Clock, File, HostState, Unit
from cluster.model import Cluster
from cluster.services import api_address
from facts.api_address import ApiAnswer
from facts.own_files import StrangeFiles
from operations import api_address as operations
from tests.unit.cluster_example import example
from tests.unit.node_ops import Inventory, Runner

UP = Unit("loaded", "active", "enabled")
LAN = {"lan": "10.0.0.0/24", "gateway": "10.0.0.1", "dns": ("10.0.0.1",)}


def model(carrier: str = "haproxy", port: int = 7443, **haproxy: Any) -> Cluster:
    """Three servers; two of them, or others, carry the address."""
    wanted = {"hosts": ("node2", "node1"), "port": port} | haproxy
    api = {"vip": "10.0.0.5", "carrier": carrier, "haproxy": wanted}
    return example(agents=0, network=LAN | {"api": api})


def test_clients_go_to_haproxys_port_and_servers_stay_on_k3s_own() -> None:
    assert model().api_url == "https://10.0.0.5:7443"
    assert model("kube-vip").api_url == model("none").api_url == "https://10.0.0.5:6443"
    assert {"10.0.0.5:7443", "10.0.0.11:6443"} <= kubeconfig.endpoints(model())
    assert "10.0.0.5" in model().tls_sans


def test_haproxy_leads_to_every_server_whose_api_is_ready() -> None:
    found = [line.strip() for line in api_address.haproxy(model()).splitlines()]
    servers = [line for line in found if line.startswith("server ")]
    assert servers == [f"server node{n} 10.0.0.1{n}:6443" for n in (1, 2, 3)]
    assert "bind :7443" in found
    assert "option httpchk GET /readyz" in found
    # One kind of check only: of two, the last one wins.
    assert len([line for line in found if line.startswith("option") and "chk" in line]) == 1


def test_the_first_host_has_the_address_and_each_knows_the_others() -> None:
    cluster = model()
    first, second = api_address.haproxy_hosts(cluster)
    assert (first.name, second.name) == ("node2", "node1")
    one, other = (api_address.keepalived(cluster, me, "eth0") for me in (first, second))
    assert "priority 200" in one and "priority 199" in other
    assert f"unicast_src_ip {first.ip}" in one and f"        {second.ip}\n" in one
    assert "virtual_router_id 51" in one and "10.0.0.5/32 dev eth0" in one
    assert f"include {api_address.KEEPALIVED_SECRET}" in one


def test_one_host_alone_has_no_peers_and_no_password() -> None:
    cluster = model(hosts=("node3",))
    text = api_address.keepalived(cluster, cluster.hosts[2], "eth0")
    assert "unicast" not in text and "include" not in text
    wanted = {kind.name for kind in secret_table.wanted(cluster)}
    assert api_address.PASSWORD not in wanted
    assert api_address.PASSWORD in {kind.name for kind in secret_table.wanted(model())}


def test_the_password_fits_into_vrrp() -> None:
    (kind,) = (one for one in secret_table.TABLE if one.name == api_address.PASSWORD)
    assert kind.make
    made = kind.make()
    assert kind.fits(made) and len(made) == 8
    assert f"auth_pass {made}\n" in api_address.authentication(made)


def objects(cluster: Cluster) -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all(api_address.kube_vip(cluster))}


def test_kube_vip_runs_on_servers_with_the_pinned_image_and_the_address() -> None:
    daemons = objects(model("kube-vip"))["DaemonSet"]["spec"]["template"]["spec"]
    (container,) = daemons["containers"]
    settings = {one["name"]: one.get("value") for one in container["env"]}
    assert container["image"] == versions.KUBE_VIP_IMAGE and "@sha256:" in container["image"]
    assert (settings["address"], settings["port"]) == ("10.0.0.5", "6443")
    assert (settings["cp_enable"], settings["svc_enable"]) == ("true", "false")
    assert settings["KUBERNETES_SERVICE_HOST"] == "127.0.0.1"
    assert daemons["hostNetwork"] and daemons["tolerations"]
    assert list(daemons["nodeSelector"]) == ["node-role.kubernetes.io/control-plane"]


def test_kube_vip_may_read_no_secrets() -> None:
    found = objects(model("kube-vip"))
    rules = [rule for kind in ("Role", "ClusterRole") for rule in found[kind]["rules"]]
    assert {name for rule in rules for name in rule["resources"]} == {"leases", "events", "nodes"}
    assert all("*" not in rule["verbs"] for rule in rules)


# ---- operations

Run = Callable[..., list[str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    runner = Runner(monkeypatch)

    def go(operation: Any, cluster: Cluster, states: Any, answer: str = "", **more: Any) -> Any:
        monkeypatch.setattr("runtime.cache.cached", lambda *_, **__: answer)
        monkeypatch.setattr("operations.api_address.inventory", Inventory())
        return [one.text for one in runner(operation, cluster, states, **more)]

    return go


def written(content: str, mode: str = "644") -> File:
    return File(mode, sha256=hashlib.sha256(content.encode()).hexdigest())


def carrier(cluster: Cluster) -> HostState:
    """The first server as the deploy leaves it."""
    text = api_address.keepalived(cluster, cluster.hosts[0], "eth0")
    return HostState(
        clock=Clock(2000.0, 2000.0, 2000.0),
        uptime=1000.0,
        files={
            api_address.KEEPALIVED: written(text),
            api_address.MARK: written(api_address.MARK_TEXT),
        },
        units={api_address.KEEPALIVED_UNIT: UP, api_address.HAPROXY_UNIT: UP, "k3s.service": UP},
        interfaces={"10.0.0.11": "eth0"},
    )


def test_keepalived_is_left_alone_as_long_as_nothing_changes(run: Run) -> None:
    assert run(operations.keepalived, model(), carrier(model())) == []


def test_keepalived_is_reloaded_after_a_change_and_after_a_new_password(run: Run) -> None:
    reload = f"systemctl reload {api_address.KEEPALIVED_UNIT}"
    changed = run(operations.keepalived, model(router_id=7), carrier(model()))
    assert len(changed) == 2 and changed[1] == reload
    now = carrier(model())
    secret = {api_address.KEEPALIVED_SECRET: File("600", changed=1900)}
    newer = replace(now, files=now.files | secret)
    assert run(operations.keepalived, model(), newer) == [reload]


def test_a_host_that_is_no_carrier_any_more_lets_go_and_strangers_stay(run: Run) -> None:
    found = run(operations.no_haproxy, model("none"), carrier(model()))
    assert found[0] == "systemctl disable --now keepalived.service"
    assert found[1] == "systemctl disable --now haproxy.service"
    assert found[2].startswith("rm -f ") and api_address.MARK in found[2]
    gone = replace(carrier(model()), units={})  # the packages were removed by hand
    assert len(run(operations.no_haproxy, model("none"), gone)) == 1
    own = replace(carrier(model()), files={api_address.KEEPALIVED: written("theirs")})
    assert run(operations.no_haproxy, model("none"), own) == []


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        (api_address.KEEPALIVED, api_address.KEEPALIVED_UNIT),
        (api_address.HAPROXY, api_address.HAPROXY_UNIT),
    ],
)
def test_what_somebody_has_replaced_since_stays_with_its_program(
    run: Run, path: str, unit: str
) -> None:
    found = run(operations.no_haproxy, model("none"), carrier(model()), (path,))
    both = {api_address.KEEPALIVED_UNIT, api_address.HAPROXY_UNIT}
    assert found[:-1] == [f"systemctl disable --now {other}" for other in both - {unit}]
    # keepalived's own file may include the one with the password.
    ours = {*api_address.UNITS, api_address.KEEPALIVED_SECRET, api_address.MARK} - {path}
    ours -= {api_address.KEEPALIVED_SECRET} if path == api_address.KEEPALIVED else set()
    assert set(found[-1].removeprefix("rm -f ").split()) == ours
    (line,) = api_address.foreign_left("gateway", [path])
    assert line == f"gateway: {path} was not written by picluster: it stays, and {unit} as it is"


def test_an_address_that_was_taken_out_of_the_data_leaves_no_carrier_unseen() -> None:
    without = example(agents=0, network=LAN)
    first, haproxy = without.hosts[0], {api_address.MARK: written(api_address.MARK_TEXT)}
    wanted = HostState(files=haproxy)
    assert set(api_address.asks(without).files) >= {api_address.MARK, api_address.MANIFEST}
    assert api_address.left(without, first, wanted)
    for path in (api_address.MANIFEST, api_address.UNWANTED):
        assert api_address.left(without, first, HostState(files={path: File("600")}))
    assert not api_address.left(without, first, HostState())
    assert not api_address.left(model(), model().hosts[0], wanted)  # a carrier
    assert api_address.left(model(), model().hosts[2], wanted)


@pytest.mark.parametrize(
    ("text", "strange"),
    [
        ("# brought by the package\n", False),
        ("global\n    maxconn 5\n", True),
        (api_address.haproxy(model()), False),
        (api_address.keepalived(model(), model().hosts[0], "eth0"), False),
        (None, False),
    ],
)
def test_a_file_of_somebody_else_is_told_from_ours_and_the_packages(
    tmp_path: Path, text: str | None, strange: bool
) -> None:
    file, program = tmp_path / "haproxy.cfg", tmp_path / "dpkg-query"
    if text is not None:
        file.write_text(text)
    brought = hashlib.md5(b"# brought by the package\n").hexdigest()
    program.write_text(f"#!/bin/sh\nprintf '\\n {file} {brought}\\n\\n'\n")
    program.chmod(0o755)
    script = StrangeFiles().command(paths=(str(file),), packages=("haproxy",))
    command = ["sh", "-c", f"PATH={tmp_path}:$PATH\n{script}"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = StrangeFiles().process(done.stdout.splitlines())
    assert found == ((str(file),) if strange else ())
    lines = api_address.foreign_refusals("gateway", found)
    assert [line.startswith(f"gateway: {file} was not written by") for line in lines] == [
        True
    ] * strange


def test_kube_vips_manifests_are_written_once(run: Run) -> None:
    cluster = model("kube-vip")
    there = {api_address.MANIFEST: written(api_address.kube_vip(cluster), "600")}
    assert run(operations.kube_vip, cluster, HostState(files=there)) == []
    folder, write = run(operations.kube_vip, cluster, HostState())
    assert "mkdir -m 700" in folder and write.endswith(f"{api_address.MANIFEST} 600")
    back = run(operations.kube_vip, cluster, HostState(files=there | UNWANTED))
    assert back == [f"rm -f {api_address.UNWANTED}"]


UNWANTED = {api_address.UNWANTED: File("600")}
AWAY = f"mv -f {api_address.MANIFEST} {api_address.UNWANTED}"


@pytest.mark.parametrize(
    ("files", "runs", "moved", "deleted"),
    [
        ({}, True, False, False),
        ({api_address.MANIFEST: File("600")}, True, True, True),
        # K3s would apply it again at its next start; what is there waits for that.
        ({api_address.MANIFEST: File("600")}, False, True, False),
        (UNWANTED, False, False, False),
        (UNWANTED, True, False, True),
    ],
)
def test_kube_vips_objects_are_deleted_once_k3s_runs(
    run: Run, files: dict[str, File], runs: bool, moved: bool, deleted: bool
) -> None:
    state = HostState(files=files, units={"k3s.service": UP} if runs else {})
    found = run(operations.no_kube_vip, model("none"), state)
    assert [one == AWAY for one in found] == [True] * moved + [False] * deleted
    assert all("kubectl delete" in one for one in found[moved:])


def test_what_says_which_objects_to_delete_goes_after_them(tmp_path: Path) -> None:
    said, file, program = tmp_path / "said", tmp_path / "picluster-kube-vip.yaml", tmp_path / "k3s"
    program.write_text(f'#!/bin/sh\necho "$@" >> {said}; [ ! -e {tmp_path}/down ]\n')
    program.chmod(0o755)
    file.touch()
    (tmp_path / "down").touch()
    script = f"PATH={tmp_path}:$PATH\n{operations._DELETE}"
    command = ["sh", "-c", script, "delete", str(file)]
    assert subprocess.run(command).returncode and file.exists()
    (tmp_path / "down").unlink()
    assert not subprocess.run(command).returncode and not file.exists()
    assert said.read_text().splitlines()[-1].endswith("addons.k3s.cattle.io picluster-kube-vip")


@pytest.mark.parametrize(
    ("runs", "answer", "waits"),
    [(False, "", False), (True, "pong", False), (True, "Connection refused", True)],
)
def test_the_address_is_waited_for_once_k3s_runs(
    run: Run, runs: bool, answer: str, waits: bool
) -> None:
    now = carrier(model())
    state = now if runs else replace(now, units={})
    assert bool(run(operations.answers, model(), state, answer, runs=False)) is waits
    # A run that brings K3s up waits for it, and so its plan says.
    assert bool(run(operations.answers, model(), state, answer, runs=True)) is (answer != "pong")


def test_the_last_line_of_an_answer_says_why() -> None:
    assert ApiAnswer().process(["pong"]) == "pong"
    assert ApiAnswer().process(["", "curl: (7) Failed to connect", ""]).startswith("curl: (7)")
    assert ApiAnswer().process([]) == "no answer"
