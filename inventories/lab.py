"""The lab's containers, as `make lab` recorded them in build/lab/lab.json.

LAB_NAME is another lab than `lab`, LAB_STATE another record of one. Settings that do not follow
from the record are in group_data/lab.py, those of a single test in LAB_DATA (JSON). LAB_PRESET
names the stack (v1_5, v1_8, v1_9); empty: K3s alone, as is the default with a real K3s, because
containers lack the kernel modules of Cilium and Longhorn.
"""

import json as _json
import os as _os
from ipaddress import ip_address as _ip_address
from ipaddress import ip_network as _ip_network
from pathlib import Path as _Path
from typing import Any as _Any

_name = _os.environ.get("LAB_NAME", "lab")
_file = _Path(_os.environ.get("LAB_STATE", f"build/{_name}/lab.json"))
try:
    _lab = _json.loads(_file.read_text())
except FileNotFoundError:
    raise SystemExit(f"no lab is up ({_file} does not exist): run `make lab`") from None
except ValueError:
    raise SystemExit(f"{_file} is not JSON: run `make lab` again") from None


def _of(role: str) -> list[tuple[str, dict[str, _Any]]]:
    more = ("mac", "labels")  # which tests add
    return [
        (
            host["name"],
            {"ip": host["ip"], "arch": _lab["arch"]}
            | {key: host[key] for key in more if key in host},
        )
        for host in _lab["hosts"]
        if host["role"] == role
    ]


def _pool(subnet: str) -> str:
    """Addresses for Services, behind those of the hosts."""
    last = int(_ip_network(subnet).broadcast_address)
    return f"{_ip_address(last - 30)}-{_ip_address(last - 5)}"


_default = "v1_9" if _lab["k3s_kind"] == "stand-in" else ""
_preset = _os.environ.get("LAB_PRESET", _default)
servers = _of("server")
agents = _of("agent")
gateway = _of("gateway")
external = _of("external")
control = ["@local"]

lab = (
    [name for name, _ in servers + agents + gateway + external] + control,
    {
        "network": {
            "lan": _lab["subnet"],
            "gateway": _lab["gateway"],
            "dns": [_lab["gateway"]],
            "load_balancer_pool": _pool(_lab["subnet"]),
        },
        "stack": {"preset": _preset} if _preset else {},
        "platform": {"charts": _lab["charts"]},
        # A lab has no S3 service but where a test makes one: what would use it is simulated.
        "backup": {"s3_endpoint": "s3.lab.example.com:9000"},
        "k3s": {"source": {"mirror": _lab["mirror"], "checksums": "beside"}},
        **_json.loads(_os.environ.get("LAB_DATA", "{}")),
        "secrets_file": str(_file.with_name("secrets.sops.yaml")),
        "age_key_file": str(_file.with_name("age.txt")),
        "ssh_user": _lab["ssh_user"],
        "ssh_key": _lab["ssh_key"],
        # Host keys change with every lab, so they are kept apart from the user's own.
        "ssh_known_hosts_file": _lab["ssh_known_hosts"],
    },
)
