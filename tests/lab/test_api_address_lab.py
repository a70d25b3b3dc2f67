"""deploys/services/api_address.py on real hosts: haproxy, keepalived, and what clients see of it.

Simulated: kube-vip's own work, as its image cannot run here; its objects go through the lab's API,
and a test sets the address on a server by hand in its place.
"""

from __future__ import annotations

import base64
import csv
import json
import shlex
import socket
import ssl
import threading
import time
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest
import yaml

from cluster.services import api_address
from operations import text
from operations.api_address import CHECK
from tests.lab import accounts
from tests.lab.lab import Lab
from tests.lab.living import kubectl, wait_for
from tests.lab.runs import Run, plan, run

pytestmark = pytest.mark.lab(servers=3, agents=0, gateways=1, externals=1)

DEPLOY, K3S = "deploys/services/api_address.py", "deploys/k3s.py"
SERVERS, CARRIERS = ("node1", "node2", "node3"), ("gateway", "external")
HAPROXY = "Address of the API | haproxy before the servers"
KEEPALIVED = "Address of the API | keepalived has the address by turns"
NONE_OF_OURS = "Address of the API | No haproxy of ours"
KUBE_VIP = "Address of the API | kube-vip for K3s to apply"
NO_KUBE_VIP = "Address of the API | No kube-vip"
CLIENTS = 12
THEIRS = "# mine\nglobal\n    maxconn 5\n"


def address(lab: Lab, number: int) -> str:
    return str(lab.names.subnet.network_address + number)


def vip(lab: Lab) -> str:
    return address(lab, 60)


def settings(lab: Lab, carrier: str = "haproxy", **haproxy: Any) -> dict[str, str]:
    wanted = {"hosts": list(CARRIERS)} | haproxy
    network = {
        "lan": str(lab.names.subnet),
        "gateway": lab.names.gateway,
        "dns": [lab.names.gateway],
        "load_balancer_pool": f"{address(lab, 225)}-{address(lab, 250)}",
        "api": {"vip": vip(lab), "carrier": carrier, "haproxy": wanted},
    }
    return {"LAB_DATA": json.dumps({"network": network})}


def without_address(lab: Lab) -> dict[str, str]:
    """The data after `network.api` was taken out of it."""
    data = json.loads(settings(lab)["LAB_DATA"])
    del data["network"]["api"]
    return {"LAB_DATA": json.dumps(data)}


Built = tuple[Lab, Run, Run]


@pytest.fixture(scope="module")
def refused(lab: Lab) -> Run:
    """A run where one carrier has somebody's haproxy, the other one as its package brought it."""
    lab.clear_faults()
    lab.recreate(*SERVERS, *CARRIERS)
    state, environment = lab.names.state, settings(lab)
    accounts.make(
        {**lab.environment, **environment}, 3, state / "secrets.sops.yaml", state / "age.txt"
    )
    install = "DEBIAN_FRONTEND=noninteractive apt-get -qy install haproxy"
    lab.check("gateway", f"apt-get -q update && {install}")
    lab.check("external", f"mkdir -p {api_address.HAPROXY.rpartition('/')[0]}")
    lab.put("external", api_address.HAPROXY, THEIRS)
    return run(lab, DEPLOY, **environment)


def test_a_file_of_somebody_else_is_refused_by_its_name(lab: Lab, refused: Run) -> None:
    assert refused.code == 1 and not refused.changed, refused.text
    assert f"external: {api_address.HAPROXY} was not written by picluster" in refused.text
    assert "gateway:" not in refused.text, refused.text
    assert lab.read("external", api_address.HAPROXY) == THEIRS


@pytest.fixture(scope="module")
def built(lab: Lab, refused: Run) -> Built:
    """The lab with carriers and then a cluster of three servers, and both runs."""
    lab.check("external", f"mv {api_address.HAPROXY} {api_address.HAPROXY}.before")
    environment = settings(lab)
    first = run(lab, DEPLOY, **environment)
    return lab, first, run(lab, K3S, **environment)


def holders(lab: Lab) -> list[str]:
    """Which running hosts have the address."""
    running = [host.name for host, doing in lab.status() if doing == "running"]
    return [name for name in running if f" {vip(lab)}/" in lab.check(name, "ip -o -4 addr")]


def test_carriers_are_there_before_k3s_and_then_the_api_answers(built: Built) -> None:
    lab, first, k3s = built
    assert first.code == 0, first.text
    assert sorted(first.changed[HAPROXY]) == sorted(first.changed[KEEPALIVED]) == sorted(CARRIERS)
    assert k3s.code == 0, k3s.text
    again = run(lab, DEPLOY, **settings(lab))
    assert (again.code, again.changed) == (0, {}), again.text
    assert plan(lab, DEPLOY, **settings(lab)).changed == {}
    assert holders(lab) == ["gateway"]
    assert "auth_pass" not in lab.read("gateway", api_address.KEEPALIVED)
    mode = lab.check("gateway", f"stat -c %a {api_address.KEEPALIVED_SECRET}")
    assert mode.strip() == "600"


class Clients:
    """Connections to the API at its address with the CA's check: new ones, and some that stay."""

    def __init__(self, lab: Lab) -> None:
        config = yaml.safe_load(lab.read("node1", "/etc/rancher/k3s/k3s.yaml"))
        ca = config["clusters"][0]["cluster"]["certificate-authority-data"]
        self.context = ssl.create_default_context(cadata=base64.b64decode(ca).decode())
        self.address = vip(lab)
        self.answered: list[float] = []  # when
        self.failed: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Clients:
        self.answered.append(time.monotonic())
        self._thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._over.set()
        self._thread.join()

    def connect(self, limit: float = 2.0, port: int = 6443) -> ssl.SSLSocket:
        """A connection whose certificate is right for the address."""
        plain = socket.create_connection((self.address, port), timeout=limit)
        return self.context.wrap_socket(plain, server_hostname=self.address)

    def once(self) -> str:
        """The status of one question on a connection of its own."""
        with self.connect() as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n")
            return connection.recv(64).decode().split()[1]

    def _ask(self) -> None:
        while not self._over.wait(0.1):
            try:
                status = self.once()
            except (OSError, IndexError) as error:
                self.failed.append(str(error))
            else:
                if status in ("200", "401"):  # 401: its API server asks who we are
                    self.answered.append(time.monotonic())
                else:
                    self.failed.append(status)

    def more(self, count: int) -> None:
        """Wait for so many further answers."""
        wanted = len(self.answered) + count
        wait_for(lambda: len(self.answered) >= wanted, "answers at the address")

    def told(self, what: str) -> str:
        """How it went, as one line."""
        moments = [*self.answered, time.monotonic()]
        longest = max(after - before for before, after in pairwise(moments))
        answered = len(self.answered) - 1
        line = f"{what}: {answered} new connections answered, {len(self.failed)} failed, "
        return line + f"longest time without an answer {longest:.1f} s"


def shares(lab: Lab, carrier: str = "gateway") -> dict[str, dict[str, str]]:
    """haproxy's own statistics of each server."""
    script = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/haproxy/admin.sock'); "
        "s.sendall(b'show stat\\n'); print(s.makefile().read())"
    )
    lines = lab.check(carrier, f"python3 -c {shlex.quote(script)}").strip().lstrip("# ")
    rows = csv.DictReader(lines.splitlines())
    return {row["svname"]: row for row in rows if row["pxname"] == "servers"}


def up(lab: Lab, carrier: str = "gateway") -> list[str]:
    return [name for name in SERVERS if shares(lab, carrier)[name]["status"].startswith("UP")]


def closed(connections: list[ssl.SSLSocket]) -> int:
    """How many of these idle connections have been ended by the other side."""
    count = 0
    for connection in connections:
        connection.settimeout(0.1)
        try:
            count += connection.recv(1) == b""
        except TimeoutError:
            pass
        except OSError:
            count += 1
    return count


def test_a_server_dies_and_the_api_goes_on_at_its_address(built: Built) -> None:
    lab = built[0]
    wait_for(lambda: up(lab) == list(SERVERS), "all servers behind haproxy")
    with Clients(lab) as clients, ExitStack() as stack:
        kept = [stack.enter_context(clients.connect()) for _ in range(CLIENTS)]
        clients.more(20)
        before = {name: int(shares(lab)[name]["scur"]) for name in SERVERS}
        lab.kill("node3")
        wait_for(lambda: up(lab) == ["node1", "node2"], "haproxy to leave the dead server out")
        dead = int(shares(lab)["node3"]["stot"])
        clients.more(30)
        lost = closed(kept)
        kubectl(lab, "node1", "create configmap written-while-a-server-is-dead")
        assert int(shares(lab)["node3"]["stot"]) == dead
        print(clients.told("server killed"))
        print(f"of {CLIENTS} open connections by server {before}, {lost} were closed")
    # Those that stood on the dead server have ended, so that their owners connect anew.
    assert 0 < lost <= before["node3"] < CLIENTS
    lab.start("node3")
    wait_for(lambda: up(lab) == list(SERVERS), "the server to be back")


def test_k3s_stops_on_a_server_and_haproxy_asks_the_others(built: Built) -> None:
    lab = built[0]
    with Clients(lab) as clients:
        clients.more(10)
        lab.check("node2", "systemctl stop k3s")
        wait_for(lambda: "node2" not in up(lab), "haproxy to leave the stopped server out")
        clients.more(20)
        print(clients.told("K3s stopped on a server"))
        lab.check("node2", "systemctl start --no-block k3s")
    wait_for(lambda: up(lab) == list(SERVERS), "the server to be back")


def test_a_carrier_dies_and_the_other_has_the_address(built: Built) -> None:
    lab = built[0]
    with Clients(lab) as clients:
        clients.more(10)
        lab.kill("gateway")
        wait_for(lambda: holders(lab) == ["external"], "the other carrier to have the address")
        clients.more(20)
        print(clients.told("carrier killed"))
    lab.start("gateway")
    wait_for(lambda: holders(lab) == ["gateway"], "the address to be back")


def test_haproxy_dies_and_the_address_leaves_its_host(built: Built) -> None:
    lab = built[0]
    with Clients(lab) as clients:
        clients.more(10)
        lab.check("gateway", "systemctl stop haproxy")
        wait_for(lambda: holders(lab) == ["external"], "the other carrier to have the address")
        clients.more(20)
        print(clients.told("haproxy stopped"))
    again = run(lab, DEPLOY, **settings(lab))
    assert again.code == 0 and again.changed == {HAPROXY: ["gateway"]}, again.text
    wait_for(lambda: holders(lab) == ["gateway"], "the address to be back")


def test_what_somebody_changed_by_hand_is_put_back(built: Built) -> None:
    lab = built[0]
    lab.check("external", f"sed -i s/leastconn/source/ {api_address.HAPROXY}")
    lab.check("gateway", f"sed -i 's/priority 200/priority 1/' {api_address.KEEPALIVED}")
    again = run(lab, DEPLOY, **settings(lab))
    assert again.changed == {HAPROXY: ["external"], KEEPALIVED: ["gateway"]}, again.text
    assert run(lab, DEPLOY, **settings(lab)).changed == {}


@pytest.mark.parametrize(
    ("path", "check", "wrong"),
    [
        (api_address.HAPROXY, ("haproxy", "-c", "-f"), "frontend x\n  nonsense y"),
        (api_address.KEEPALIVED, CHECK, "vrrp_script x {\n}\nnonsense {"),
    ],
)
def test_what_its_checker_refuses_is_not_put_in_place(
    built: Built, path: str, check: tuple[str, ...], wrong: str
) -> None:
    lab = built[0]
    before = lab.read("gateway", path)
    command = text.write(path, wrong, "644", check).get_raw_value()
    code, said = lab.run("gateway", f"printf '%s\\n' {shlex.quote(wrong)} | {command}")
    assert code != 0 and "nonsense" in said, said
    assert lab.read("gateway", path) == before


def test_servers_carry_it_themselves_on_another_port(built: Built) -> None:
    lab = built[0]
    environment = settings(lab, hosts=["node2", "node3"], port=7443)
    done = run(lab, DEPLOY, **environment)
    assert done.code == 0 and sorted(done.changed[NONE_OF_OURS]) == sorted(CARRIERS)
    assert run(lab, DEPLOY, **environment).changed == {}
    wait_for(lambda: holders(lab) == ["node2"], "the first of the servers to have the address")
    with Clients(lab).connect(port=7443) as connection:
        assert connection.getpeername()[0] == vip(lab)
    back = run(lab, DEPLOY, **settings(lab))
    assert back.code == 0 and sorted(back.changed[NONE_OF_OURS]) == ["node2", "node3"]
    wait_for(lambda: holders(lab) == ["gateway"], "the address to be back")


def is_applied(lab: Lab) -> bool:
    return not lab.run("node1", "k3s kubectl get -n kube-system daemonset kube-vip")[0]


def of_kube_vip(lab: Lab) -> set[str]:
    """Kinds of all objects of kube-vip's and of K3s' note of them."""
    kinds = "daemonsets,roles,rolebindings,serviceaccounts,addons.k3s.cattle.io"
    found = kubectl(lab, "node1", f"get -n kube-system {kinds} -o json")
    found_too = kubectl(lab, "node1", "get clusterroles,clusterrolebindings -o json")
    items = [*json.loads(found)["items"], *json.loads(found_too)["items"]]
    return {item["kind"] for item in items if "kube-vip" in item["metadata"]["name"]}


def test_the_api_takes_kube_vip_and_haproxy_leaves(built: Built) -> None:
    lab = built[0]
    environment = settings(lab, "kube-vip")
    lab.check("node1", f"ip addr add {vip(lab)}/32 dev eth0")  # what kube-vip would do
    done = run(lab, DEPLOY, **environment)
    assert done.code == 0, done.text
    assert done.changed[KUBE_VIP] and sorted(done.changed[NONE_OF_OURS]) == sorted(CARRIERS)
    assert run(lab, DEPLOY, **environment).changed == {}
    assert holders(lab) == ["node1"]
    for carrier in CARRIERS:
        states = lab.run(carrier, "systemctl is-active haproxy keepalived")[1].split()
        assert states == ["inactive", "inactive"]

    wait_for(lambda: is_applied(lab), "K3s to apply kube-vip's manifests")
    found = json.loads(kubectl(lab, "node1", "get -n kube-system daemonset kube-vip -o json"))
    assert found["status"]["desiredNumberScheduled"] == len(SERVERS)
    # As the API has it after admission, and what we want of it, are the same.
    manifest = lab.read("node1", api_address.MANIFEST)
    difference = "diff --server-side --force-conflicts --field-manager=picluster -f -"
    kubectl(lab, "node1", f"{difference} > /dev/null", manifest)
    may = "auth can-i {} --as=system:serviceaccount:kube-system:kube-vip -n kube-system"
    assert kubectl(lab, "node1", may.format("update leases.coordination.k8s.io")) == "yes"
    assert lab.run("node1", f"k3s kubectl {may.format('get secrets')}")[1].strip() == "no"


def test_kube_vip_leaves_when_the_address_is_taken_out_of_the_data(built: Built) -> None:
    lab = built[0]
    planned = plan(lab, DEPLOY, **without_address(lab))
    done = run(lab, DEPLOY, **without_address(lab))
    assert done.changed == planned.changed
    assert done.code == 0 and sorted(done.changed[NO_KUBE_VIP]) == list(SERVERS), done.text
    assert not of_kube_vip(lab)
    lab.check("node1", f"ip addr del {vip(lab)}/32 dev eth0")
    assert run(lab, DEPLOY, **without_address(lab)).changed == {}


def test_kube_vip_comes_again_and_leaves_though_k3s_was_stopped_meanwhile(built: Built) -> None:
    lab = built[0]
    lab.check("node1", f"ip addr add {vip(lab)}/32 dev eth0")
    back = run(lab, DEPLOY, **settings(lab, "kube-vip"))
    assert back.code == 0 and sorted(back.changed[KUBE_VIP]) == list(SERVERS), back.text
    wait_for(lambda: is_applied(lab), "K3s to apply the same manifests again")
    everything = of_kube_vip(lab)
    assert len(everything) == 7, everything
    for server in SERVERS:
        lab.check(server, "systemctl stop k3s")
    lab.check("node1", f"ip addr del {vip(lab)}/32 dev eth0")
    stopped = run(lab, DEPLOY, **without_address(lab))
    assert stopped.code == 0 and sorted(stopped.changed[NO_KUBE_VIP]) == list(SERVERS), stopped.text
    for server in SERVERS:
        assert f"{server}: K3s does not run: the next run" in stopped.text
    assert run(lab, DEPLOY, **without_address(lab)).changed == {}
    for server in SERVERS:
        lab.check(server, "systemctl start --no-block k3s")
    wait_for(lambda: all(active(lab, server) for server in SERVERS), "K3s on every server")
    wait_for(lambda: is_applied(lab), "the API, which still has kube-vip's objects")
    assert of_kube_vip(lab) == everything
    planned = plan(lab, DEPLOY, **without_address(lab))
    done = run(lab, DEPLOY, **without_address(lab))
    assert done.code == 0 and done.changed == planned.changed, done.text
    assert sorted(done.changed[NO_KUBE_VIP]) == list(SERVERS)
    assert not of_kube_vip(lab)
    assert run(lab, DEPLOY, **without_address(lab)).changed == {}


def active(lab: Lab, server: str) -> bool:
    return not lab.run(server, "systemctl -q is-active k3s")[0]


def test_haproxy_leaves_when_the_address_is_taken_out_of_the_data(built: Built) -> None:
    lab = built[0]
    back = run(lab, DEPLOY, **settings(lab))
    assert back.code == 0 and KEEPALIVED in back.changed, back.text
    wait_for(lambda: holders(lab) == ["gateway"], "the address to be back")
    lab.put("external", api_address.HAPROXY, THEIRS)  # somebody has put it there since
    refused = run(lab, DEPLOY, **settings(lab))
    assert refused.code == 1 and not refused.changed, refused.text
    line = f"external: {api_address.HAPROXY} was not written by picluster"
    assert f"{line}, and would be replaced" in refused.text, refused.text
    done = run(lab, DEPLOY, **without_address(lab))
    assert done.code == 0 and sorted(done.changed[NONE_OF_OURS]) == sorted(CARRIERS), done.text
    assert holders(lab) == []
    assert f"{line}: it stays" in done.text, done.text
    assert lab.read("external", api_address.HAPROXY) == THEIRS
    there = "ls /etc/keepalived/*.conf /etc/haproxy/haproxy.cfg; systemctl is-active haproxy"
    assert lab.run("external", there)[1].split()[-2:] == [api_address.HAPROXY, "active"]
    assert lab.run("gateway", there)[1].split()[-1] == "inactive"
    assert run(lab, DEPLOY, **without_address(lab)).changed == {}
