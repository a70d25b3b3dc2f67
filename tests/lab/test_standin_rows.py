"""The k3s stand-in answers as K3s does: one test for each row of the reference's table of calls.

The numbers are those of that table. Texts are compared only as far as they come from K3s' source or
documentation; what the stand-in does by inference (standin/simulated.go) is not asserted. The tests
run in order: one cluster is built, watched, disturbed and in the end destroyed.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab import binaries
from tests.lab.by_hand import RELEASES
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab(servers=1, agents=0)

OLD, NEW = binaries.VERSIONS[-2], binaries.VERSIONS[-1]
TOKEN = "planted-server-token"
AGENT_TOKEN = "planted-agent-token"
DATA = "/var/lib/rancher/k3s"
LIMIT_S = 60
UNIT = """[Unit]
Description=stand-in under test
[Service]
Type=notify
EnvironmentFile=-/etc/systemd/system/k3s.service.env
KillMode=process
TimeoutStartSec=0
ExecStart=/usr/local/bin/k3s {role}
StandardError=append:/var/log/k3s.err
StandardOutput=append:/var/log/k3s.out
"""
WIPE = """systemctl kill -s KILL k3s 2>/dev/null; systemctl stop k3s 2>/dev/null
for p in /proc/[0-9]*/exe; do case "$(readlink $p)" in /var/lib/rancher/*|/usr/local/bin/k3s*)
kill -9 "$(echo $p | cut -d/ -f3)";; esac; done; sleep 0.2
grep -E ' (/run/k3s|/var/lib/kubelet)/' /proc/mounts | cut -d' ' -f2 | xargs -r umount
rm -rf /var/lib/rancher /etc/rancher /run/k3s /run/flannel /var/lib/kubelet /etc/cni /var/log/k3s.*
rm -f /etc/systemd/system/k3s.service.env; systemctl reset-failed k3s 2>/dev/null
for l in cni0 flannel.1 veth5a9d0001 cilium_host cilium_vxlan; do ip link del $l 2>/dev/null; done
iptables-save | grep -vE 'stand-in|:(KUBE|FLANNEL|CILIUM)' | iptables-restore
ip netns list | cut -d' ' -f1 | xargs -r -n1 ip netns del; true"""


class Machine:
    """One host of the lab with the stand-in on it."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab, self.name = lab, name
        self.ip = lab.record.host(name).ip

    def run(self, command: str) -> tuple[int, str]:
        """Return exit code and output."""
        return self.lab.run(self.name, command)

    def check(self, command: str) -> str:
        return self.lab.check(self.name, command)

    def split(self, command: str) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error of a command."""
        code, _ = self.run(f"{{ {command}; }} >/tmp/out 2>/tmp/err")
        return code, self.check("cat /tmp/out"), self.check("cat /tmp/err")

    def install(self, version: str) -> None:
        """Put a binary in place by rename, as a deploy does."""
        url = f"{self.lab.names.mirror}/{RELEASES}/{version}/k3s"
        self.check(
            f"curl -fsS -o /usr/local/bin/k3s.new '{url}' && chmod 755 /usr/local/bin/k3s.new"
            " && mv /usr/local/bin/k3s.new /usr/local/bin/k3s"
        )

    def wipe(self) -> None:
        self.run(WIPE)

    def begin(self, role: str, config: dict[str, Any] | None = None, env: str = "") -> None:
        """Write config and unit, and start the unit without waiting."""
        if config is not None:
            self.check("mkdir -p /etc/rancher/k3s")
            self.lab.put(self.name, "/etc/rancher/k3s/config.yaml", json.dumps(config), 0o600)
        self.lab.put(self.name, "/etc/systemd/system/k3s.service.env", env, 0o600)
        self.lab.put(self.name, "/etc/systemd/system/k3s.service", UNIT.format(role=role))
        self.check(
            "systemctl daemon-reload; systemctl stop k3s; systemctl reset-failed k3s 2>/dev/null;"
            " rm -f /var/log/k3s.err /var/log/k3s.out; systemctl start --no-block k3s"
        )

    def start(self, role: str, config: dict[str, Any] | None = None, env: str = "") -> None:
        """Start and wait for READY."""
        self.begin(role, config, env)
        wait(self.settled, f"{self.name}: {role} neither ready nor failed", self.log)
        assert self.state() == "active", self.log()

    def refused(self, role: str, config: dict[str, Any], env: str = "") -> str:
        """Start, expect exit code 1, and return the log."""
        self.begin(role, config, env)
        wait(lambda: self.state() == "failed", f"{self.name}: {role} did not fail", self.log)
        assert self.check("systemctl show -P ExecMainStatus k3s").strip() == "1"
        return self.log()

    def state(self) -> str:
        return self.run("systemctl show -P ActiveState k3s")[1].strip()

    def settled(self) -> bool:
        return self.state() in ("active", "failed", "inactive")

    def pid(self) -> str:
        return self.check("systemctl show -P MainPID k3s").strip()

    def log(self) -> str:
        return self.run("cat /var/log/k3s.err")[1]

    def kubectl(self, arguments: str) -> str:
        return self.check(f"k3s kubectl {arguments}")

    def nodes(self) -> dict[str, Any]:
        items = json.loads(self.kubectl("get nodes -o json"))["items"]
        return {item["metadata"]["name"]: item for item in items}

    def members(self) -> list[dict[str, Any]]:
        """The etcd members by the supervisor's own end point."""
        answer = self.run("curl -ks --max-time 5 https://127.0.0.1:6443/db/info")[1]
        return list(json.loads(answer)["members"]) if answer.startswith('{"members"') else []

    def http(self, path: str, user: str = "") -> tuple[int, str]:
        login = f"-u '{user}'" if user else ""
        text = self.check(
            f"curl -ks --max-time 10 {login} -w '\\n%{{http_code}}' https://127.0.0.1:6443{path}"
        )
        body, _, code = text.rstrip("\n").rpartition("\n")
        return int(code), body


def wait(
    condition: Callable[[], bool], what: str, log: Callable[[], str] = str, limit: int = LIMIT_S
) -> None:
    """Wait until `condition` holds; or fail after `limit` seconds with `what` and the log's end."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"{what}\n{log()[-1500:]}"
        time.sleep(0.2)


def condition_of(node: dict[str, Any], kind: str) -> str:
    found = [c["status"] for c in node["status"]["conditions"] if c["type"] == kind]
    return found[0] if found else "absent"


@pytest.fixture(scope="module")
def rack() -> Iterator[dict[str, Machine]]:
    """Five hosts with the newest binary: three for servers, one agent, one spare."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_K3S", "stand-in")
        lab = Lab(f"{os.environ.get('LAB_NAME', 'test')}rows")
        lab.down()
        try:
            lab.up(servers=3, agents=1, spare=1)
            names = ("s1", "s2", "s3", "agent", "spare")
            machines = {
                name: Machine(lab, host.name) for name, host in zip(names, lab.hosts, strict=True)
            }
            for machine in machines.values():
                machine.install(NEW)
            yield machines
        finally:
            lab.down()


@pytest.fixture
def spare(rack: dict[str, Machine]) -> Iterator[Machine]:
    """A host without any trace of K3s but the binary; its old node is forgotten by the cluster."""
    rack["spare"].wipe()
    yield rack["spare"]
    rack["spare"].wipe()
    if "s1" in rack and rack["s1"].state() == "active":
        rack["s1"].run(
            f"k3s kubectl delete node {rack['spare'].name} --ignore-not-found --timeout=20s"
        )


SERVER: dict[str, Any] = {
    "token": TOKEN,
    "agent-token": AGENT_TOKEN,
    "secrets-encryption": True,
    "tls-san": ["cluster.test"],
    "disable": ["traefik"],
}


@pytest.fixture(scope="module")
def cluster(rack: dict[str, Machine]) -> dict[str, Machine]:
    """Three servers and an agent; the second and third server join at the same time."""
    first = rack["s1"]
    first.start("server", SERVER | {"cluster-init": True, "foo": "not-a-key"})
    joiner = SERVER | {"server": f"https://{first.ip}:6443"}
    rack["s2"].begin("server", joiner)
    rack["s3"].begin("server", joiner)
    rack["agent"].begin(
        "agent",
        {
            "token": AGENT_TOKEN,
            "server": f"https://{first.ip}:6443",
            "node-label": ["tier=gold"],
            "node-taint": ["only=first:NoSchedule"],
        },
    )
    for name in ("s2", "s3", "agent"):
        machine = rack[name]
        wait(machine.settled, f"{name} is not ready", machine.log)
        assert machine.state() == "active", machine.log()
    wait(
        lambda: [condition_of(n, "Ready") for n in first.nodes().values()] == ["True"] * 4,
        "four nodes are not Ready",
        lambda: first.kubectl("get nodes,pods -A"),
    )
    return rack


# --- without a cluster ------------------------------------------------------------------------


def test_row_1_version(spare: Machine) -> None:
    code, out, err = spare.split("k3s --version")
    lines = out.splitlines()
    assert code == 0 and err == ""
    assert re.fullmatch(rf"k3s version {re.escape(NEW)} \([0-9a-f]{{8}}\)", lines[0])
    assert re.fullmatch(r"go version go1\.\d+(\.\d+)?", lines[1])
    assert "stand-in" in lines[2]
    assert spare.run(f"test -e {DATA}")[0] != 0, "nothing is unpacked for --version"


def test_row_3_server_unknown_flag(spare: Machine) -> None:
    code, out, err = spare.split("k3s server --bogus")
    assert code == 1
    assert out.startswith("Incorrect Usage: flag provided but not defined: -bogus")
    assert "level=fatal" in err


def test_row_5_agent_refuses_a_servers_key(spare: Machine) -> None:
    config = {"token": TOKEN, "server": "https://127.0.0.1:1", "disable": ["traefik"]}
    assert "flag provided but not defined: -disable" in spare.refused("agent", config)
    assert "Incorrect Usage: flag provided but not defined: -disable" in spare.check(
        "cat /var/log/k3s.out"
    )


def test_row_5_flags_follow_the_version(spare: Machine) -> None:
    spare.check("mkdir -p /etc/rancher/k3s")
    code, out, _ = spare.split("k3s agent --token x --server ftp://x --helm-controller-arg=a")
    assert code == 1 and "not defined: -helm-controller-arg" in out, (
        "a server's flag is no agent's flag"
    )


def test_row_6_agent_without_token_or_url(spare: Machine) -> None:
    assert "--token is required" in spare.split("k3s agent --server https://127.0.0.1:1")[2]
    assert "--server is required" in spare.split("k3s agent --token x")[2]
    text = spare.split("k3s agent --token x --server http://127.0.0.1:1")[2]
    assert "only https:// URLs are supported, invalid scheme: http" in text


def test_combination_rules_of_servers(spare: Machine) -> None:
    for flags, text in {
        "--cluster-reset-restore-path=/x": "--cluster-reset required with --cluster-reset-res",
        "--disable-etcd": "--server is required with --disable-etcd",
        "--cluster-reset --server=https://x:6443": "cluster-reset while server URL is set",
        "--cluster-cidr=10.42.0.0": "invalid cluster-cidr 10.42.0.0",
        "--egress-selector-mode=x": "invalid egress-selector-mode x",
        "--cluster-cidr=fd00::/56": "must share the same IP version",
        "--cluster-init=maybe": "for -cluster-init: parse error",
    }.items():
        code, _, err = spare.split(f"k3s server --token x {flags}")
        assert code == 1 and text in err, (flags, err)


def test_row_7_agent_with_unreachable_url(spare: Machine) -> None:
    spare.begin("agent", {"token": AGENT_TOKEN, "server": "https://127.0.0.1:1"})
    text = (
        "Failed to validate connection to cluster at https://127.0.0.1:6444: failed to get CA certs"
    )
    wait(lambda: spare.log().count(text) >= 2, "the agent does not repeat its complaint", spare.log)
    assert spare.state() == "activating"


def test_row_19_kubectl_without_cluster(spare: Machine) -> None:
    spare.check("mkdir -p /etc/rancher/k3s")
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "d", "cluster": {"server": "https://127.0.0.1:6443"}}],
        "contexts": [{"name": "d", "context": {"cluster": "d", "user": "d"}}],
        "users": [{"name": "d", "user": {"token": "x"}}],
        "current-context": "d",
    }
    spare.lab.put(spare.name, "/etc/rancher/k3s/k3s.yaml", json.dumps(config))
    code, _, err = spare.split("k3s kubectl get nodes")
    assert code == 1
    assert (
        "The connection to the server 127.0.0.1:6443 was refused - did you specify the right host"
        in err
    )


def test_row_35_check_config(spare: Machine) -> None:
    code, out, _ = spare.split("NO_COLOR=1 k3s check-config")
    assert code == 0 and out.rstrip().splitlines()[-1] == "STATUS: pass"


# --- a cluster of three servers and one agent -------------------------------------------------


def test_row_2_server_is_ready_at_api_and_etcd(cluster: dict[str, Machine]) -> None:
    log = cluster["s1"].log()
    assert "Kube API server is now running" in log and "k3s is up and running" in log
    assert cluster["s1"].check("cat /var/log/k3s.out") == ""
    title = cluster["s1"].check(f"tr '\\0' ' ' < /proc/{cluster['s1'].pid()}/cmdline").strip()
    assert title == "/usr/local/bin/k3s server", "arguments are hidden"


def test_row_4_unknown_key_on_a_server(cluster: dict[str, Machine]) -> None:
    assert "Unknown flag --foo found in config.yaml, skipping" in cluster["s1"].log()
    assert "not-a-key" not in cluster["s1"].log()


def test_row_8_agent_with_wrong_password(cluster: dict[str, Machine], spare: Machine) -> None:
    spare.begin("agent", {"token": "wrong", "server": f"https://{cluster['s1'].ip}:6443"})
    text = "Waiting to retrieve agent configuration; server is not ready: not authorized"
    wait(lambda: text in spare.log(), "no complaint about the password", spare.log)
    assert spare.state() == "activating"


def test_row_7_agent_with_wrong_hash(cluster: dict[str, Machine], spare: Machine) -> None:
    token = "K10" + "0" * 64 + "::node:" + AGENT_TOKEN
    spare.begin("agent", {"token": token, "server": f"https://{cluster['s1'].ip}:6443"})
    text = "token CA hash does not match the Cluster CA certificate hash"
    wait(lambda: spare.log().count(text) >= 2, "no complaint about the hash", spare.log)
    assert spare.state() == "activating"


def test_row_9_agent_with_foreign_node_password(
    cluster: dict[str, Machine], spare: Machine
) -> None:
    spare.begin(
        "agent",
        {
            "token": AGENT_TOKEN,
            "server": f"https://{cluster['s1'].ip}:6443",
            "node-name": cluster["agent"].name,
        },
    )
    wait(
        lambda: "Node password rejected, duplicate hostname" in spare.log(),
        "not rejected",
        spare.log,
    )
    assert spare.state() == "activating"


def test_row_10_server_join_wrong_hash(cluster: dict[str, Machine], spare: Machine) -> None:
    token = "K10" + "0" * 64 + "::server:" + TOKEN
    log = spare.refused(
        "server", SERVER | {"token": token, "server": f"https://{cluster['s1'].ip}:6443"}
    )
    assert "token CA hash does not match the Cluster CA certificate hash" in log


def test_row_10_server_join_wrong_password(cluster: dict[str, Machine], spare: Machine) -> None:
    log = spare.refused(
        "server", SERVER | {"token": "wrong", "server": f"https://{cluster['s1'].ip}:6443"}
    )
    assert "not authorized" in log


def test_row_11_critical_mismatch(cluster: dict[str, Machine], spare: Machine) -> None:
    config = SERVER | {"server": f"https://{cluster['s1'].ip}:6443", "secrets-encryption": False}
    log = spare.refused("server", config | {"flannel-backend": "none"})
    assert "critical configuration mismatched: secrets-encryption" in log
    assert "critical configuration mismatched: flannel-backend" in log
    assert (
        "validate server configuration: critical configuration value mismatch between servers"
        in log
    )


def test_row_12_second_learner_waits(cluster: dict[str, Machine]) -> None:
    """Both joined at the same time; at most one had to wait, and both are voters."""
    members = cluster["s1"].members()
    assert len(members) == 3 and not any(m.get("isLearner") for m in members)
    for node in cluster["s1"].nodes().values():
        if "node-role.kubernetes.io/etcd" in node["metadata"]["labels"]:
            assert condition_of(node, "EtcdIsVoter") == "True"
    assert "etcd cluster join failed" not in cluster["s2"].log() + cluster["s3"].log()


def test_row_13_duplicate_member_name(cluster: dict[str, Machine], spare: Machine) -> None:
    config = SERVER | {
        "server": f"https://{cluster['s1'].ip}:6443",
        "node-name": cluster["s2"].name,
    }
    log = spare.refused("server", config)
    assert (
        "etcd cluster join failed: duplicate node name found, please use a unique name for this"
        in log
    )
    assert len(cluster["s1"].members()) == 3


def test_row_17_readyz(cluster: dict[str, Machine]) -> None:
    assert cluster["s2"].split("k3s kubectl get --raw /readyz")[:2] == (0, "ok")


def test_row_18_nodes(cluster: dict[str, Machine]) -> None:
    nodes = cluster["s1"].nodes()
    server, agent = nodes[cluster["s1"].name], nodes[cluster["agent"].name]
    labels, annotations = server["metadata"]["labels"], server["metadata"]["annotations"]
    assert server["status"]["nodeInfo"]["kubeletVersion"] == NEW
    assert labels["node-role.kubernetes.io/control-plane"] == "true"
    assert labels["node-role.kubernetes.io/etcd"] == "true"
    assert "node-role.kubernetes.io/master" not in labels
    assert labels["node.kubernetes.io/instance-type"] == "k3s"
    assert annotations["k3s.io/hostname"] == cluster["s1"].name
    assert annotations["k3s.io/internal-ip"] == cluster["s1"].ip
    assert annotations["etcd.k3s.cattle.io/node-address"] == cluster["s1"].ip
    assert annotations["etcd.k3s.cattle.io/node-name"].startswith(cluster["s1"].name + "-")
    arguments = json.loads(annotations["k3s.io/node-args"])
    assert arguments[0] == "server" and TOKEN not in arguments and "--token" in arguments
    assert "k3s.io/node-env" in annotations and "k3s.io/node-config-hash" in annotations
    assert agent["metadata"]["labels"]["tier"] == "gold"
    assert {"key": "only", "value": "first", "effect": "NoSchedule"} in agent["spec"]["taints"]
    assert not any("uninitialized" in taint["key"] for taint in agent["spec"]["taints"])
    addresses = {entry["type"]: entry["address"] for entry in agent["status"]["addresses"]}
    assert addresses == {"InternalIP": cluster["agent"].ip, "Hostname": cluster["agent"].name}


def test_node_label_again_and_taint_once(cluster: dict[str, Machine]) -> None:
    name, agent = cluster["agent"].name, cluster["agent"]
    cluster["s1"].kubectl(f"label node {name} tier=tin --overwrite")
    cluster["s1"].kubectl(f"taint node {name} only-")
    agent.start("agent")
    node = cluster["s1"].nodes()[name]
    assert node["metadata"]["labels"]["tier"] == "gold", "labels are applied at each start"
    assert not node["spec"].get("taints"), "taints only at the first registration"


def test_row_20_crictl(cluster: dict[str, Machine], spare: Machine) -> None:
    found = json.loads(cluster["s1"].check("k3s crictl ps -o json"))["containers"]
    assert all(container["state"] == "CONTAINER_RUNNING" for container in found)
    assert cluster["s1"].split("k3s crictl images")[0] == 0
    code, _, err = spare.split("k3s crictl ps")
    assert code == 1 and "containerd.sock" in err


def test_row_21_to_24_snapshots(cluster: dict[str, Machine]) -> None:
    server = cluster["s1"]
    saved = rf"Snapshot on-demand-{server.name}-\d+ saved\."
    code, out, err = server.split("k3s etcd-snapshot save")
    assert (code, out) == (0, "") and re.search(saved, err), err
    assert "Unknown flag --foo found in config.yaml, skipping" in err, (
        "the file's other keys are warned about"
    )
    for name in ("a", "b", "c"):
        server.check(f"k3s etcd-snapshot save --name {name}; sleep 1.1")
    listed = server.check("k3s etcd-snapshot ls 2>/dev/null").splitlines()
    assert listed[0].split() == ["Name", "Location", "Size", "Created"] and len(listed) == 5
    items = json.loads(server.check("k3s etcd-snapshot ls -o json 2>/dev/null"))
    assert items["kind"] == "ETCDSnapshotFileList" and items["apiVersion"] == "k3s.cattle.io/v1"
    first = items["items"][0]
    assert first["spec"]["nodeName"] == server.name and first["status"]["readyToUse"] is True
    assert first["spec"]["location"].startswith(f"file://{DATA}/server/db/snapshots/on-demand-")
    name = items["items"][1]["spec"]["snapshotName"]
    code, out, err = server.split(f"k3s etcd-snapshot delete {name} nothing")
    assert (code, out) == (0, "")
    assert f"Snapshot {name} deleted." in err and "Snapshot nothing not found." in err
    assert "no snapshots given for removal" in server.split("k3s etcd-snapshot delete")[2]
    for _ in range(2):
        server.check("k3s etcd-snapshot save --name c; sleep 1.1")
    code, out, err = server.split("k3s etcd-snapshot prune --name c --snapshot-retention 1")
    assert (code, out) == (0, "") and len(re.findall(r"Snapshot c-\S+ deleted\.", err)) == 2
    assert server.split("k3s etcd-snapshot ls -o wide")[0] == 1


def test_row_29_certificate_check(cluster: dict[str, Machine]) -> None:
    code, out, err = cluster["s1"].split("k3s certificate check --output json")
    found = json.loads(out)["Certificates"]
    assert code == 0 and "Server detected, checking agent and server certificates" in err
    assert {entry["Status"] for entry in found} == {"OK"}
    assert set(found[0]) == {
        "Filename",
        "Subject",
        "Issuer",
        "Usages",
        "ExpiryTime",
        "ResidualTime",
        "Status",
    }
    assert "FILENAME" in cluster["s1"].check("k3s certificate check --output table 2>/dev/null")
    assert "invalid output format x" in cluster["s1"].split("k3s certificate check --output x")[2]
    assert "Agent detected" in cluster["agent"].split("k3s certificate check")[2]


def test_row_30_certificate_rotate(cluster: dict[str, Machine]) -> None:
    agent = cluster["agent"]
    before = agent.check(f"sha256sum < {DATA}/agent/client-kubelet.crt")
    code, out, err = agent.split("k3s certificate rotate --service kubelet")
    assert (code, out) == (0, "") and "Rotating certificates for kubelet" in err
    assert "please restart k3s server or agent to rotate certificates" in err
    assert agent.run(f"ls {DATA}/agent/client-kubelet.crt")[0] != 0, "the file is really gone"
    assert agent.run(f"ls {DATA}/agent/tls-*/client-kubelet.crt")[0] == 0
    agent.start("agent")
    assert agent.check(f"sha256sum < {DATA}/agent/client-kubelet.crt") != before


def test_row_31_32_secrets_encryption(cluster: dict[str, Machine], spare: Machine) -> None:
    server = cluster["s1"]
    server.kubectl("create secret generic planted --from-literal=word=open-sesame")
    raw = (
        f"strings {DATA}/server/db/etcd/member/snap/db {DATA}/server/db/etcd/member/wal/*.wal"
        " | grep -c open-sesame || true"
    )
    assert server.run("command -v strings")[0] != 0 or server.check(raw).strip() == "0"
    out = server.check("k3s secrets-encrypt status")
    assert out.startswith("Encryption Status: Enabled\nCurrent Rotation Stage: start\n")
    assert "All hashes match" in out and re.search(r"\* +AES-CBC +aescbckey", out)
    assert server.split("k3s secrets-encrypt rotate-keys")[:2] == (
        0,
        "keys rotated, reencryption finished\n",
    )
    state = json.loads(server.check("k3s secrets-encrypt status -o json"))
    assert state["stage"] == "reencrypt_finished" and state["enable"] is True
    word = server.kubectl("get secret planted -o jsonpath='{.data.word}'")
    assert word == "b3Blbi1zZXNhbWU="
    wait(
        lambda: "does not match" in server.check("k3s secrets-encrypt status"),
        "the other servers' hashes still match",
    )
    for name in ("s2", "s3"):
        cluster[name].start("server")
    wait(
        lambda: "All hashes match" in server.check("k3s secrets-encrypt status"),
        "hashes do not match after the restarts",
    )
    assert spare.run("k3s secrets-encrypt status")[0] == 1


def test_row_33_token_create(cluster: dict[str, Machine], spare: Machine) -> None:
    server = cluster["s1"]
    token = server.check("k3s token create --ttl 1h").strip()
    assert re.fullmatch(r"K10[0-9a-f]{64}::[a-z0-9]{6}\.[a-z0-9]{16}", token)
    identity = token.split("::")[1].split(".")[0]
    listed = server.check("k3s token list").splitlines()
    assert listed[0].split() == [
        "TOKEN",
        "TTL",
        "EXPIRES",
        "USAGES",
        "DESCRIPTION",
        "EXTRA",
        "GROUPS",
    ]
    spare.start("agent", {"token": token, "server": f"https://{server.ip}:6443"})
    assert (
        server.check(f"k3s token delete {identity}").strip()
        == f'bootstrap token "{identity}" deleted'
    )


def test_row_36_multi_call(cluster: dict[str, Machine]) -> None:
    for name in ("kubectl", "crictl", "ctr"):
        cluster["s1"].check(f"ln -sf k3s /usr/local/bin/{name}")
    assert cluster["s1"].check("kubectl get --raw /readyz") == "ok"
    assert "containers" in cluster["s1"].check("crictl ps -o json")


def test_row_37_to_41_front(cluster: dict[str, Machine]) -> None:
    server = cluster["s1"]
    assert server.http("/ping") == (200, "pong")
    code, pem = server.http("/cacerts")
    assert code == 200 and pem.startswith("-----BEGIN CERTIFICATE-----")
    digest = server.check("curl -ks https://127.0.0.1:6443/cacerts | sha256sum").split()[0]
    token = server.check(f"cat {DATA}/server/token")
    assert token == f"K10{digest}::server:{TOKEN}\n"
    code, body = server.http("/readyz")
    assert code == 401 and json.loads(body)["message"] == "Unauthorized"
    assert server.http("/v1-k3s/readyz", f"node:{AGENT_TOKEN}") == (200, "ok")
    assert server.http("/v1-k3s/readyz", "node:wrong")[0] == 401
    assert server.http("/v1-k3s/config", f"server:{TOKEN}")[0] == 403
    code, body = server.http("/db/info", f"server:{TOKEN}")
    assert code == 200 and set(json.loads(body)["members"][0]) == {
        "ID",
        "name",
        "peerURLs",
        "clientURLs",
    }
    assert server.http("/db/info", f"node:{AGENT_TOKEN}")[0] == 403
    config = json.loads(server.http("/v1-k3s/config", f"node:{AGENT_TOKEN}")[1])
    assert config["FlannelBackend"] == "vxlan" and config["EncryptSecrets"] is True
    assert server.http("/v1-k3s/server-bootstrap", f"node:{AGENT_TOKEN}")[0] == 403
    names = server.check(
        "openssl s_client -connect 127.0.0.1:6443 </dev/null 2>/dev/null"
        " | openssl x509 -text -noout"
    )
    assert "DNS:cluster.test" in names


def test_row_45_disable_later(cluster: dict[str, Machine]) -> None:
    """Every server disables the item; the one that leads deletes objects, each one its file."""
    for name in ("s1", "s2", "s3"):
        machine = cluster[name]
        config = json.loads(machine.check("cat /etc/rancher/k3s/config.yaml"))
        machine.start("server", config | {"disable": ["traefik", "local-storage"]})
    first = cluster["s1"]
    wait(
        lambda: (
            "NotFound" in first.run("k3s kubectl get addon -n kube-system local-storage")[1]
            and "NotFound" in first.run("k3s kubectl get storageclass local-path")[1]
        ),
        "the AddOn or its StorageClass is still there",
        first.log,
    )
    for name in ("s1", "s2", "s3"):
        files = cluster[name].check(f"ls {DATA}/server/manifests")
        assert "coredns.yaml" in files
        assert "traefik.yaml" not in files and "local-storage.yaml" not in files


def test_row_46_manifest(cluster: dict[str, Machine]) -> None:
    for name in ("s1", "s2", "s3"):
        cluster[name].lab.put(
            cluster[name].name,
            f"{DATA}/server/manifests/mine.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: mine}\ndata: {word: first}\n",
        )
        cluster[name].lab.put(
            cluster[name].name, f"{DATA}/server/manifests/broken.yaml", "kind: [\n"
        )
    first = cluster["s1"]
    wait(lambda: first.run("k3s kubectl get configmap mine")[0] == 0, "the content was not applied")
    assert first.kubectl("get addon -n kube-system mine -o jsonpath={.spec.checksum}")
    # Without that, the same content is new again.
    first.kubectl("delete configmap mine")
    first.kubectl("delete addon -n kube-system mine")
    for name in ("s1", "s2", "s3"):
        cluster[name].check(f"touch {DATA}/server/manifests/mine.yaml")
    wait(lambda: first.run("k3s kubectl get configmap mine")[0] == 0, "it was not applied again")
    wait(
        lambda: "ParseManifestFailed" in first.kubectl("get events -n kube-system"),
        "no Event about the broken file",
    )
    assert [cluster[name].state() for name in ("s1", "s2", "s3")] == ["active"] * 3


def test_side_effects_on_disk(cluster: dict[str, Machine]) -> None:
    server, agent = cluster["s1"], cluster["agent"]
    modes = {
        f"{DATA}/server": "700",
        f"{DATA}/server/token": "600",
        f"{DATA}/server/db/etcd": "700",
        "/etc/rancher/k3s/k3s.yaml": "600",
        "/etc/rancher/node/password": "600",
        "/etc/rancher/node": "755",
    }
    for path, mode in modes.items():
        assert server.check(f"stat -c %a {path}").strip() == mode, path
    assert server.check(f"readlink {DATA}/server/node-token").strip() == f"{DATA}/server/token"
    assert server.check(f"cat {DATA}/server/agent-token").rstrip().endswith(f"::node:{AGENT_TOKEN}")
    config = server.kubectl("config view --raw -o json")
    assert json.loads(config)["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    server.check("echo '# mine' >> /etc/rancher/k3s/k3s.yaml")
    agent.check(f"echo x > {DATA}/agent/etc/cni/net.d/10-flannel.conflist")
    agent.start("agent")
    assert (
        json.loads(agent.check(f"cat {DATA}/agent/etc/cni/net.d/10-flannel.conflist"))["name"]
        == "cbr0"
    )
    assert f"{DATA}/data/cni" in agent.check(f"cat {DATA}/agent/etc/containerd/config.toml")
    saved = json.loads(agent.check(f"cat {DATA}/agent/etc/k3s-agent-load-balancer.json"))
    assert set(saved["ServerAddresses"]) == {f"{cluster[n].ip}:6443" for n in ("s1", "s2", "s3")}
    links = agent.check("ip -br link")
    assert "flannel.1" in links and "cni0" in links
    assert "FLANNEL_SUBNET=10.42." in agent.check("cat /run/flannel/subnet.env")
    assert "KUBE-SERVICES" in agent.check("iptables-save -t nat")
    listening = server.check("ss -tln")
    for address in (
        f"{server.ip}:2379",
        f"{server.ip}:2380",
        "127.0.0.1:2381",
        "127.0.0.1:6444",
        "*:6443",
        "*:10250",
    ):
        assert address in listening, address


def test_one_registry_on_every_port(cluster: dict[str, Machine]) -> None:
    server = cluster["s1"]
    series = server.check("curl -s http://127.0.0.1:10249/metrics")
    assert "apiserver_request_total" in series and "workqueue_adds_total" in series


def test_row_15_restart_with_other_critical_values(cluster: dict[str, Machine]) -> None:
    machine = cluster["s3"]
    config = json.loads(machine.check("cat /etc/rancher/k3s/config.yaml"))
    machine.start("server", config | {"supervisor-metrics": True})
    assert "mismatched" not in machine.log()
    machine.start("server", config)


def test_row_16_restart_with_another_token(cluster: dict[str, Machine]) -> None:
    machine = cluster["s3"]
    config = json.loads(machine.check("cat /etc/rancher/k3s/config.yaml"))
    log = machine.refused("server", config | {"token": "changed"})
    assert "bootstrap data already found and encrypted with different token" in log
    machine.start("server", config)


def test_row_34_token_rotate(cluster: dict[str, Machine]) -> None:
    first = cluster["s1"]
    code, out, _ = first.split(f"k3s token rotate --token {TOKEN} --new-token rotated")
    lines = out.splitlines()
    assert code == 0 and "Recommended to keep a record of the old token" in lines[0]
    assert lines[1] == "Token rotated, restart k3s nodes with new token"
    for name in ("s1", "s2", "s3"):
        config = json.loads(cluster[name].check("cat /etc/rancher/k3s/config.yaml"))
        cluster[name].start("server", config | {"token": "rotated"})
        assert cluster[name].check(f"cat {DATA}/server/token").rstrip().endswith("::server:rotated")


def test_another_agent_token_is_stored_by_a_rotation_only(spare: Machine) -> None:
    """Until then the server starts once with it, and not again (k3s.md §8.3)."""
    config = {"token": TOKEN, "agent-token": AGENT_TOKEN}
    spare.start("server", config)
    other = config | {"agent-token": "another-agent-token"}
    time.sleep(1.1)  # files have their times in seconds
    spare.start("server", other)
    newer = f"{DATA}/server/cred/passwd newer than datastore and could cause a cluster outage"
    assert newer in spare.refused("server", other)
    spare.wipe()
    spare.start("server", config)
    time.sleep(1.1)
    spare.start("server", other)
    assert spare.split("k3s token rotate --new-token rotated")[0] == 0
    for _ in range(2):
        spare.start("server", other | {"token": "rotated"})


def test_row_47_new_binary(cluster: dict[str, Machine]) -> None:
    agent = cluster["agent"]
    agent.install(OLD)
    agent.start("agent")
    old = agent.check(f"readlink {DATA}/data/current")
    wait(
        lambda: cluster["s1"].nodes()[agent.name]["status"]["nodeInfo"]["kubeletVersion"] == OLD,
        "the node does not report its version",
    )
    agent.install(NEW)
    agent.start("agent")
    assert agent.check(f"readlink {DATA}/data/previous") == old
    assert agent.check(f"readlink {DATA}/data/current") != old
    assert agent.check(f"readlink {DATA}/data/cni/bridge").startswith(
        agent.check(f"readlink {DATA}/data/current").strip()
    )


def test_agent_survives_the_loss_of_its_server(cluster: dict[str, Machine]) -> None:
    """The configured URL is dead; the agent restarts with its saved list."""
    cluster["s1"].check("systemctl stop k3s")
    cluster["agent"].start("agent")
    assert cluster["agent"].name in cluster["s2"].nodes()
    cluster["s1"].start("server")


def test_row_42_sigterm(cluster: dict[str, Machine]) -> None:
    agent = cluster["agent"]
    agent.check("systemctl stop k3s")
    assert agent.check("systemctl show -P ExecMainStatus k3s").strip() == "0"
    assert agent.run("pgrep -f containerd-shim-runc-v2")[0] == 0, "pods live on"
    wait(
        lambda: condition_of(cluster["s1"].nodes()[agent.name], "Ready") == "Unknown",
        "the node of a stopped agent stays Ready",
    )
    cluster["s3"].check("systemctl stop k3s")
    assert cluster["s3"].check("systemctl show -P ExecMainStatus k3s").strip() == "0"
    cluster["s3"].start("server")
    agent.start("agent")


def test_bad_day_switches(spare: Machine) -> None:
    assert 'level=fatal msg="Error: planted"' in spare.refused(
        "server", {"token": "x"}, "K3S_STANDIN_FAIL=planted\n"
    )
    spare.wipe()
    future = "2099-01-01T00:00:00Z"
    spare.start("server", {"token": "x"}, f"K3S_STANDIN_CERT_NOT_BEFORE={future}\n")
    code, _, err = spare.split("k3s kubectl get nodes")
    assert code == 1 and "certificate has expired or is not yet valid" in err
    spare.wipe()
    spare.begin("server", {"token": "x"}, "K3S_STANDIN_NEVER_READY=1\n")
    wait(
        lambda: "K3S_STANDIN_NEVER_READY is set" in spare.log(),
        "no word about the switch",
        spare.log,
    )
    assert spare.http("/ping") == (200, "pong") and spare.state() == "activating"


# --- a single server with sqlite, and its conversion ------------------------------------------


def test_row_14_join_to_sqlite(rack: dict[str, Machine], spare: Machine) -> None:
    joiner = rack["agent"]
    joiner.wipe()
    spare.start("server", {"token": "x"})
    assert spare.run(f"test -f {DATA}/server/db/state.db")[0] == 0
    log = joiner.refused("server", {"token": "x", "server": f"https://{spare.ip}:6443"})
    assert "etcd disabled" in log
    assert spare.split("k3s etcd-snapshot save")[0] == 1
    joiner.wipe()


CILIUM = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "cilium", "namespace": "kube-system"},
    "spec": {
        "selector": {"matchLabels": {"k8s-app": "cilium"}},
        "template": {
            "metadata": {"labels": {"k8s-app": "cilium"}},
            "spec": {
                "hostNetwork": True,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "agent", "image": "cilium"}],
            },
        },
    },
}


def test_node_is_ready_only_with_a_cni(spare: Machine) -> None:
    config = {"token": "x", "flannel-backend": "none", "disable-network-policy": True}
    spare.start("server", config | {"disable-kube-proxy": True})

    def ready() -> str:
        return condition_of(spare.nodes()[spare.name], "Ready")

    wait(lambda: spare.name in spare.nodes(), "the node is not registered", spare.log)
    time.sleep(3)
    assert ready() == "False", "no CNI, so not Ready"
    assert "conf_dir" not in spare.check(f"cat {DATA}/agent/etc/containerd/config.toml")
    assert "KUBE-SERVICES" not in spare.check("iptables-save")
    spare.lab.put(spare.name, "/tmp/cilium.json", json.dumps(CILIUM))
    spare.kubectl("apply -f /tmp/cilium.json")
    wait(lambda: ready() == "True", "the CNI's pod does not make the node Ready", spare.log)
    assert "05-cilium.conflist" in spare.check("ls /etc/cni/net.d")
    assert "cilium_host" in spare.check("ip -br link")


def test_row_43_conversion_to_etcd(spare: Machine) -> None:
    spare.start("server", {"token": "x"})
    spare.kubectl("create configmap kept --from-literal=a=b")
    uid = spare.kubectl("get namespace kube-system -o jsonpath={.metadata.uid}")
    spare.start("server", {"token": "x", "cluster-init": True})
    assert "Migrating content from sqlite to etcd" in spare.log()
    assert spare.check(f"ls {DATA}/server/db").split().count("state.db.migrated") == 1
    assert spare.run(f"test -e {DATA}/server/db/state.db")[0] != 0
    assert spare.kubectl("get namespace kube-system -o jsonpath={.metadata.uid}") == uid
    assert spare.kubectl("get configmap kept -o jsonpath={.data.a}") == "b"


def test_row_43_crash_during_conversion(spare: Machine) -> None:
    spare.start("server", {"token": "x"})
    spare.kubectl("create configmap kept --from-literal=a=b")
    spare.begin(
        "server", {"token": "x", "cluster-init": True}, "K3S_STANDIN_SLOW_MIGRATION=200ms\n"
    )
    wait(lambda: "Migrating etcd key" in spare.log(), "the conversion did not start", spare.log)
    spare.check("systemctl kill -s KILL k3s; sleep 0.5")
    assert (
        spare.run(f"test -e {DATA}/server/db/state.db -a -d {DATA}/server/db/etcd/member/wal")[0]
        == 0
    )
    spare.start("server")
    assert "Migrating" not in spare.log(), "the trap: the next start takes the partial copy"
    assert "NotFound" in spare.run("k3s kubectl get configmap kept")[1]


# --- losing and repairing servers -------------------------------------------------------------


def test_row_44_delete_of_a_servers_node(cluster: dict[str, Machine]) -> None:
    first, lost = cluster["s1"], cluster["s3"]
    first.kubectl(f"delete node {lost.name} --timeout=30s")
    assert len(first.members()) == 2
    wait(lambda: lost.state() == "failed", "the removed server goes on", lost.log)
    assert lost.check("systemctl show -P ExecMainStatus k3s").strip() == "1"
    secrets = first.kubectl("get secrets -n kube-system -o name")
    assert f"{lost.name}.node-password.k3s" not in secrets
    config = json.loads(lost.check("cat /etc/rancher/k3s/config.yaml"))
    lost.refused("server", config)
    lost.check(f"rm -rf {DATA}/server/db/etcd")
    lost.start("server", config)
    assert len(first.members()) == 3


def test_lost_quorum_is_real(cluster: dict[str, Machine]) -> None:
    """The survivor writes nothing more; it ends by itself only if it held a leader election."""
    for name in ("s2", "s3"):
        cluster[name].check("systemctl kill -s KILL k3s")
    code, _ = cluster["s1"].run("timeout 12 k3s kubectl create configmap lost")
    assert code != 0, "a write went through without a quorum"
    assert cluster["s1"].run("timeout 12 k3s kubectl get --raw /readyz")[0] != 0


def test_row_27_reset_with_server_url(cluster: dict[str, Machine]) -> None:
    code, _, err = cluster["s2"].split("k3s server --cluster-reset")
    assert code == 1 and "cannot perform cluster-reset while server URL is set" in err


def test_row_25_26_cluster_reset(cluster: dict[str, Machine]) -> None:
    first = cluster["s1"]
    first.check("systemctl stop k3s")
    name = first.check(f"cat {DATA}/server/db/etcd/name")
    code, out, err = first.split("k3s server --cluster-reset")
    assert code == 0 and out == "", err
    assert (
        "Managed etcd cluster membership has been reset, restart without --cluster-reset flag now."
        in err
    )
    assert first.check(f"stat -c '%a %s' {DATA}/server/db/reset-flag").strip() == "600 0"
    assert first.check(f"cat {DATA}/server/db/etcd/name") != name
    assert first.run(f"ls -d {DATA}/server/tls-[0-9]*")[0] == 0
    code, _, err = first.split("k3s server --cluster-reset")
    assert code == 1 and "Managed etcd cluster membership was previously reset" in err
    first.start("server")
    assert len(first.members()) == 1
    assert first.run(f"test -e {DATA}/server/db/reset-flag")[0] != 0, (
        "a normal start removes the flag"
    )
    assert first.kubectl("get secret planted -o name").strip() == "secret/planted"


def test_row_28_restore_of_a_missing_file(cluster: dict[str, Machine]) -> None:
    code, _, err = cluster["s1"].split(
        "k3s server --cluster-reset --cluster-reset-restore-path /nowhere"
    )
    assert code == 1 and "etcd: snapshot path does not exist: /nowhere" in err


def test_row_25_restore_from_a_snapshot(cluster: dict[str, Machine]) -> None:
    first = cluster["s1"]
    first.kubectl("create configmap before")
    first.check("k3s etcd-snapshot save --name good")
    first.kubectl("create configmap after")
    path = first.check(f"ls {DATA}/server/db/snapshots/good-*").strip()
    first.check("systemctl stop k3s")
    reset = f"k3s server --cluster-reset --cluster-reset-restore-path {path}"
    config = first.check("cat /etc/rancher/k3s/config.yaml")
    wrong = json.loads(config) | {"token": "wrong"}
    first.lab.put(first.name, "/etc/rancher/k3s/config.yaml", json.dumps(wrong), 0o600)
    code, _, err = first.split(reset)
    assert code == 1 and "encrypted with different token" in err, "a snapshot needs its token"
    first.lab.put(first.name, "/etc/rancher/k3s/config.yaml", config, 0o600)
    code, _, err = first.split(reset)
    assert code == 0 and "membership has been reset" in err, err
    assert first.run(f"ls -d {DATA}/server/db/etcd-old-[0-9]*")[0] == 0
    first.start("server")
    assert first.kubectl("get configmap before -o name").strip() == "configmap/before"
    assert "NotFound" in first.run("k3s kubectl get configmap after")[1]
    second = cluster["s2"]
    second.check(f"rm -rf {DATA}/server/db")
    second.start("server")
    assert len(first.members()) == 2
