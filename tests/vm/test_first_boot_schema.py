"""The files of first boots pass the checkers of who reads them: cloud-init, netplan, subiquity.

Each checker is the real one: Debian's packages, unpacked; subiquity's own schema, where GitHub
answers. A wrong file must be refused by each, or it checks nothing.
"""

from __future__ import annotations

import json
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.lab.cache import cache_dir, made
from tests.lab.net import reachable
from tests.vm.examples import HOSTS, files
from tests.vm.tools import Done, Tools, system_python, tools

pytestmark = pytest.mark.vm

CLOUD_INIT = (
    "cloud-init", "python3-attr", "python3-certifi", "python3-chardet", "python3-configobj",
    "python3-idna", "python3-jinja2", "python3-json-pointer", "python3-jsonpatch",
    "python3-jsonschema", "python3-markupsafe", "python3-oauthlib", "python3-pyrsistent",
    "python3-requests", "python3-six", "python3-urllib3", "python3-yaml",
)  # fmt: skip
NAMES = [host["name"] for host in HOSTS]
SETTINGS: dict[str, dict[str, Any]] = {
    "24.04 static": {},
    "26.04 reserved": {"release": "26.04", "address": "reserved"},
}
# Source: subiquity's repository, from which its documentation is made.
SUBIQUITY = "raw.githubusercontent.com"
SUBIQUITY_PATH = "/canonical/subiquity/main/autoinstall-schema.json"


@pytest.fixture(scope="module")
def cloud_init() -> Tools:
    return tools(*CLOUD_INIT)


@pytest.fixture(scope="module")
def netplan() -> Tools:
    return tools("netplan.io", "libnetplan0")


def checked(cloud_init: Tools, file: Path, text: str) -> Done:
    file.write_text(text)
    command = ("-m", "cloudinit.cmd.main", "schema", "-c")
    return cloud_init.run(system_python(), *command, file)


@pytest.mark.parametrize("settings", SETTINGS)
def test_cloud_init_accepts_the_user_data_of_every_host(
    settings: str, cloud_init: Tools, tmp_path: Path
) -> None:
    for name, found in files(**SETTINGS[settings]).items():
        done = checked(cloud_init, tmp_path / name, found["user-data"])
        assert (done.code, "Valid cloud-config" in done.output) == (0, True), done.output


def test_cloud_init_accepts_what_the_installer_leaves_behind(
    cloud_init: Tools, tmp_path: Path
) -> None:
    for name in ("node21", "node22", "node23"):
        data = yaml.safe_load(files()[name]["user-data"])["autoinstall"]["user-data"]
        done = checked(cloud_init, tmp_path / name, f"#cloud-config\n{yaml.safe_dump(data)}")
        assert done.code == 0, done.output


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("ssh_pwauth: false", "ssh_pwauth: [1]"),
        ("runcmd:", "runcmd: 7\nrest:"),
        ("package_update: false", "package_update: maybe"),
    ],
)
def test_cloud_init_refuses_a_wrong_one(
    right: str, wrong: str, cloud_init: Tools, tmp_path: Path
) -> None:
    text = files()["node11"]["user-data"]
    assert right in text
    assert checked(cloud_init, tmp_path / "wrong", text.replace(right, wrong)).code == 1


def generated(netplan: Tools, root: Path, config: Any) -> tuple[Done, str]:
    """What netplan says of a configuration, and what it makes of it for networkd."""
    file = root / "etc" / "netplan" / "50-cloud-init.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump({"network": config}))
    file.chmod(0o600)
    (program,) = netplan.roots[0].glob("usr/libexec/netplan/generate")
    done = netplan.run(program, "--root-dir", root)
    return done, "\n".join(one.read_text() for one in root.glob("run/systemd/network/*.network"))


def network(name: str, **settings: Any) -> Any:
    found = files(**settings)[name]
    if "network-config" in found:
        return yaml.safe_load(found["network-config"])
    return yaml.safe_load(found["user-data"])["autoinstall"]["network"]


@pytest.mark.parametrize("settings", SETTINGS)
def test_netplan_takes_the_network_of_every_host(
    settings: str, netplan: Tools, tmp_path: Path
) -> None:
    for name in NAMES:
        config = network(name, **SETTINGS[settings])
        done, made = generated(netplan, tmp_path / name, config)
        assert (done.code, done.output) == (0, "")
        assert "[Network]" in made


def test_a_static_address_reaches_networkd(netplan: Tools, tmp_path: Path) -> None:
    _, made = generated(netplan, tmp_path / "pi", network("node11"))
    lines = made.splitlines()
    for line in ("Name=eth0", "Address=10.0.0.11/24", "Gateway=10.0.0.1", "DNS=10.0.0.1"):
        assert line in lines
    assert not [line for line in lines if line.startswith("DHCP=")]


def test_a_reserved_address_is_asked_for_by_the_mac(netplan: Tools, tmp_path: Path) -> None:
    _, made = generated(netplan, tmp_path / "pc", network("node21", address="reserved"))
    lines = made.splitlines()
    for line in ("PermanentMACAddress=00:00:5e:00:53:21", "DHCP=ipv4", "ClientIdentifier=mac"):
        assert line in lines


def test_netplan_refuses_a_wrong_network(netplan: Tools, tmp_path: Path) -> None:
    config = network("node11")
    config["ethernets"]["eth0"]["addresses"] = ["10.0.0.11"]
    done, _ = generated(netplan, tmp_path, config)
    assert done.code != 0


def _fetch(scratch: Path) -> None:
    with urllib.request.urlopen(f"https://{SUBIQUITY}{SUBIQUITY_PATH}", timeout=30) as answer:
        (scratch / "schema.json").write_bytes(answer.read())


@pytest.fixture(scope="module")
def autoinstall() -> jsonschema.Draft7Validator:
    folder = cache_dir() / "subiquity"
    if not folder.exists() and not reachable(SUBIQUITY, 443):
        pytest.skip(f"needs subiquity's schema from {SUBIQUITY}")
    schema = made(folder, partial(_fetch)) / "schema.json"
    return jsonschema.Draft7Validator(json.loads(schema.read_text()))


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_installer_accepts_its_answers(
    settings: str, autoinstall: jsonschema.Draft7Validator
) -> None:
    for name in ("node21", "node22", "node23"):
        data = yaml.safe_load(files(**SETTINGS[settings])[name]["user-data"])
        autoinstall.validate(data["autoinstall"])


def test_the_installer_refuses_wrong_answers(autoinstall: jsonschema.Draft7Validator) -> None:
    data = yaml.safe_load(files()["node21"]["user-data"])["autoinstall"]
    assert not autoinstall.is_valid({**data, "shutdown": "never"})
    assert not autoinstall.is_valid({**data, "early-commands": "true"})
