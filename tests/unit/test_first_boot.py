"""What a first boot is told by `make images`, and what is refused before a file is written."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from cluster.doctor.system import SUPPORTED
from cluster.first_boot import disks, seed, shell
from cluster.first_boot.cloud_config import Login, mebibytes
from cluster.first_boot.settings import Release
from cluster.model import Cluster, Host
from cluster.problem import Problems
from commands import images
from runtime import secrets
from tests.unit.cluster_example import example

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPq3Xq5K0lbPRnUu3PIe9ChdbYwTgYvCDnQYuHmZCvrO ada@laptop"
LOGIN = Login("ubuntu", (KEY,))
HASH = "$6$rounds=5000$saltsalt$" + "x" * 86
PI = {
    "name": "pi1",
    "role": "servers",
    "ip": "10.0.0.11",
    "arch": "arm64",
    "boot_disk": "/dev/sda",
    "data_disk": "/dev/sda3",
}
PC = {
    "name": "pc1",
    "role": "agents",
    "ip": "10.0.0.21",
    "arch": "amd64",
    "mac": "00:00:5e:00:53:21",
    "boot_disk": "/dev/disk/by-id/ata-Samsung_SSD_860_S3Z",
    "data_disk": "/dev/ubuntu-vg/lv-data",
}


def made(host: dict[str, Any], **changes: Any) -> tuple[Cluster, Host]:
    others = [PI] if host["role"] == "agents" else []
    model = example(hosts=[host, *others], **changes)
    return model, model.hosts[0]


def read(host: dict[str, Any], login: Login = LOGIN, **changes: Any) -> dict[str, Any]:
    """The files of a host, by name, as they are read."""
    files = seed.files(*made(host, **changes), login)
    assert files["user-data"].startswith("#cloud-config\n")
    return {name: yaml.safe_load(text) for name, text in files.items()}


def without(host: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in host.items() if key not in keys}


# ---- a Raspberry Pi


def test_the_user_of_pyinfra_logs_in_with_keys_and_is_root_without_a_password() -> None:
    data = read(PI)["user-data"]
    (user,) = data["users"]
    assert user["ssh_authorized_keys"] == [KEY]
    assert (user["name"], user["sudo"]) == ("ubuntu", "ALL=(ALL) NOPASSWD:ALL")
    assert user["lock_passwd"] is True
    assert "passwd" not in user
    assert data["ssh_pwauth"] is False


def test_a_password_is_a_hash_for_the_screen_and_never_for_ssh() -> None:
    data = read(PI, Login("ubuntu", (KEY,), HASH))["user-data"]
    (user,) = data["users"]
    assert (user["passwd"], user["lock_passwd"]) == (HASH, False)
    assert data["ssh_pwauth"] is False


def test_name_zone_language_and_clock_are_the_clusters() -> None:
    data = read(PI, timezone="Europe/Madrid", locale="es_ES.UTF-8")["user-data"]
    assert (data["hostname"], data["fqdn"]) == ("pi1", "pi1.picluster.example.com")
    assert (data["timezone"], data["locale"]) == ("Europe/Madrid", "es_ES.UTF-8")
    assert data["ntp"] == {"servers": ["10.0.0.1"]}


def test_a_time_server_is_not_its_own_client() -> None:
    assert "ntp" not in read({**PI, "role": "gateway", "ip": "10.0.0.1"})["user-data"]


def test_a_static_address_is_the_hosts_own() -> None:
    assert read(PI)["network-config"]["ethernets"] == {
        "eth0": {
            "dhcp4": False,
            "addresses": ["10.0.0.11/24"],
            "routes": [{"to": "default", "via": "10.0.0.1"}],
            "nameservers": {"addresses": ["10.0.0.1"], "search": ["picluster.example.com"]},
        }
    }


def test_a_reserved_address_comes_by_the_mac() -> None:
    host = {**PI, "mac": "dc:a6:32:00:00:01"}
    config = read(host, first_boot={"address": "reserved"})["network-config"]
    assert config["ethernets"] == {"eth0": {"dhcp4": True, "dhcp-identifier": "mac"}}


def test_the_router_is_no_way_out_of_itself() -> None:
    card = read({**PI, "role": "gateway", "ip": "10.0.0.1"})["network-config"]["ethernets"]["eth0"]
    assert "routes" not in card
    assert "nameservers" not in card


def test_the_router_gets_its_way_out_by_dhcp_unless_that_needs_a_password() -> None:
    router = {**PI, "role": "gateway", "ip": "10.0.0.1"}
    for card, wanted in (("eth1", {"dhcp4": True, "optional": True}), ("wlan0", None)):
        services = {"gateway": {"wan_interface": card}}
        found = read(router, services=services)["network-config"]["ethernets"]
        assert found.get(card) == wanted
        assert card not in read(PI, services=services)["network-config"]["ethernets"]


def test_a_routers_card_towards_the_lan_is_the_one_that_is_named() -> None:
    router = {**PI, "role": "gateway", "ip": "10.0.0.1"}
    services = {"gateway": {"lan_interface": "eth1", "wan_interface": "eth0"}}
    found = read(router, services=services)["network-config"]["ethernets"]
    assert found["eth0"] == {"dhcp4": True, "optional": True}
    assert found["eth1"]["addresses"] == ["10.0.0.1/24"]


@pytest.mark.parametrize(
    ("release", "file", "tokens"),
    [
        ("22.04", "/boot/firmware/cmdline.txt", ["cgroup_memory=1", "cgroup_enable=memory"]),
        ("24.04", "/boot/firmware/cmdline.txt", ["cgroup_enable=memory"]),
        ("26.04", "/boot/firmware/current/cmdline.txt", ["cgroup_enable=memory"]),
    ],
)
def test_the_command_line_is_edited_where_the_release_reads_it(
    release: str, file: str, tokens: list[str]
) -> None:
    for settings in ({"release": release}, {"hosts": {"pi1": {"release": release}}}):
        commands = read(PI, first_boot=settings)["user-data"]["runcmd"]
        (edit,) = [one for one in commands if "command-line" in one]
        assert edit[4:] == [file, *tokens]


def test_no_image_is_made_for_a_release_that_every_deploy_refuses() -> None:
    assert set(get_args(Release)) <= set(SUPPORTED["ubuntu"])


def test_root_gets_its_part_and_the_rest_is_for_volumes() -> None:
    data = read(PI, first_boot={"root_size": "30G", "storage_path": "/data"})["user-data"]
    (divide,) = data["bootcmd"]
    assert divide[:3] == ["cloud-init-per", "once", "divide-disk"]
    assert divide[-2:] == ["sd", str(30 * 1024)]
    (mount,) = [one for one in data["runcmd"] if "mount-volumes" in one]
    assert mount[4:] == ["", "/data"]


def test_a_disk_that_is_set_up_by_hand_is_mounted_as_a_first_boot_does_it() -> None:
    page = (Path(__file__).parents[2] / "docs" / "first-boot.md").read_text()
    assert f"'LABEL={shell.LABEL} /storage ext4 defaults,{shell.OPTIONS} 0 2'" in page


def test_a_disk_without_volumes_is_left_to_ubuntu() -> None:
    data = read(without(PI, "data_disk"))["user-data"]
    assert "bootcmd" not in data
    assert not [one for one in data["runcmd"] if "mount-volumes" in one]


def test_volumes_on_another_disk_leave_the_systems_whole() -> None:
    data = read({**PI, "boot_disk": "/dev/mmcblk0", "data_disk": "/dev/sda"})["user-data"]
    assert "bootcmd" not in data
    (mount,) = [one for one in data["runcmd"] if "mount-volumes" in one]
    assert mount[4:] == ["/dev/sda", "/storage"]


@pytest.mark.parametrize("host", [PI, PC])
def test_cloud_init_ends_itself_only_after_all_else_went_well(host: dict[str, Any]) -> None:
    data = read(host)["user-data"]
    commands = data.get("autoinstall", {}).get("user-data", data)["runcmd"]
    assert commands[0] == "set -e"
    assert commands[-1] == ["touch", "/etc/cloud/cloud-init.disabled"]


def test_a_second_rendering_is_the_same_first_boot() -> None:
    """A new instance-id would let cloud-init make users, keys and disks once more."""
    first = read(PI)["meta-data"]
    other = read(PI, timezone="Europe/Madrid", first_boot={"release": "26.04"})["meta-data"]
    assert first == other == {"instance-id": "pi-pi1", "local-hostname": "pi1"}
    assert seed.files(*made(PI), LOGIN) == seed.files(*made(PI), LOGIN)


def test_no_join_token_and_no_private_key_gets_into_a_seed() -> None:
    for host in (PI, PC):
        text = "".join(seed.files(*made(host), LOGIN).values())
        for word in ("token", "K10", "PRIVATE", "age1"):
            assert word not in text


# ---- a PC


def storage(host: dict[str, Any], **changes: Any) -> dict[str, dict[str, Any]]:
    config = read(host, **changes)["user-data"]["autoinstall"]["storage"]["config"]
    return {action["id"]: action for action in config}


@pytest.mark.parametrize(
    ("disk", "match"),
    [
        (PC["boot_disk"], {"serial": "Samsung_SSD_860_S3Z*"}),
        ("/dev/disk/by-id/nvme-WD_SN580_24", {"serial": "WD_SN580_24*"}),
        ("/dev/disk/by-id/mmc-DF4064_0x4a5b6c7d", {"serial": "0x4a5b6c7d*"}),
        ("/dev/nvme0n1", {"path": "/dev/nvme0n1"}),
        (None, {"size": "largest"}),
    ],
)
def test_the_installers_disk_is_named_as_well_as_the_data_can(
    disk: str | None, match: dict[str, str]
) -> None:
    assert storage({**PC, "boot_disk": disk, "data_disk": None})["disk"]["match"] == match


def test_volumes_have_what_root_leaves() -> None:
    found = storage(PC)
    assert (found["group"]["name"], found["root"]["name"]) == ("ubuntu-vg", "ubuntu-lv")
    assert (found["root"]["size"], found["data"]["size"]) == ("50G", -1)
    assert (found["data"]["name"], found["data-format"]["label"]) == ("lv-data", "DATA")
    assert found["data-mount"]["path"] == "/storage"
    assert "nofail" in found["data-mount"]["options"]


def test_without_volumes_root_has_all() -> None:
    found = storage(without(PC, "data_disk"))
    assert found["root"]["size"] == -1
    assert "data" not in found


def test_every_action_comes_after_what_it_stands_on() -> None:
    seen: set[str] = set()
    for action in storage(PC).values():
        needs = [action.get(key) for key in ("device", "volume", "volgroup")]
        assert {one for one in [*needs, *action.get("devices", ())] if one} <= seen
        seen.add(action["id"])


def test_the_installer_does_not_start_again() -> None:
    config = read(PC)["user-data"]["autoinstall"]
    assert config["shutdown"] == "poweroff"
    assert config["storage"]["grub"] == {"reorder_uefi": False}
    (guard,) = config["early-commands"]
    assert guard[4:] == ["pc1", PC["mac"], PC["boot_disk"], "no"]
    assert len(config["late-commands"]) == 1


def test_the_installer_knows_every_key() -> None:
    """It ignores others silently. Source: subiquity's autoinstall reference and curtin's storage.

    Its own schema is asked in tests/vm, where it can be had.
    """
    keys = {
        "version", "early-commands", "locale", "timezone", "keyboard", "network", "ssh", "storage",
        "user-data", "late-commands", "shutdown",
    }  # fmt: skip
    assert read(PC)["user-data"]["autoinstall"].keys() == keys
    known = {
        "disk": {"match", "ptable", "wipe", "preserve"},
        "partition": {"device", "size", "wipe", "flag", "grub_device"},
        "format": {"fstype", "volume", "label"},
        "mount": {"path", "device", "options"},
        "lvm_volgroup": {"name", "devices"},
        "lvm_partition": {"name", "volgroup", "size"},
    }
    for action in storage(PC).values():
        assert action.keys() <= {"type", "id", *known[action["type"]]}


def test_only_a_disk_that_was_named_is_erased() -> None:
    model, _ = made(PC)
    logins = {"pi1": LOGIN, "pc1": LOGIN}
    files = images.rendered(model, "home", logins, erase=["pc1"])
    (guard,) = yaml.safe_load(files["pc1"]["user-data"])["autoinstall"]["early-commands"]
    assert guard[-1] == "yes"


# ---- refusals

AT = "inventories/home.py: "
REFUSED = {
    "no user": (PI, {}, None, f"{AT}pi1: ssh_user: missing: expected the user that pyinfra"),
    "root": (PI, {}, Login("root", (KEY,)), f"{AT}pi1: ssh_user: root may not log in over SSH"),
    "no key": (PI, {}, Login("ubuntu", ()), "group_data/home.py: first_boot.keys: missing"),
    "reserved without a mac": (
        PI,
        {"address": "reserved"},
        LOGIN,
        f"{AT}pi1: mac: missing, but its address is reserved",
    ),
    "a PC without a mac": (without(PC, "mac"), {}, LOGIN, f"{AT}pc1: mac: missing: a PC's"),
    "an image without the board": (
        {**PI, "model": "pi5"},
        {"release": "22.04"},
        LOGIN,
        "group_data/home.py: first_boot.release: 22.04 does not start on pi1, a Raspberry Pi 5: "
        "expected 24.04 or later",
    ),
    "outside the LAN": (
        {**PI, "role": "external", "ip": "192.168.1.5"},
        {},
        LOGIN,
        f"{AT}pi1: ip: 192.168.1.5 lies outside network.lan 10.0.0.0/24: expected "
        "first_boot.hosts.pi1.address reserved",
    ),
    "two disks, and not said which": (
        {**without(PC, "boot_disk"), "data_disk": "/dev/sdb"},
        {},
        LOGIN,
        f"{AT}pc1: boot_disk: missing, but data_disk is /dev/sdb: expected the disk of the system",
    ),
    "a third disk's partition": (
        {**PI, "data_disk": "/dev/sda4"},
        {},
        LOGIN,
        f"{AT}pi1: data_disk: /dev/sda4: the image has two partitions, so the next is 3",
    ),
    "volumes on the system's disk": (
        {**PI, "data_disk": "/dev/sda"},
        {},
        LOGIN,
        f"{AT}pi1: data_disk: /dev/sda is boot_disk",
    ),
    "a PC's partition": (
        {**PC, "data_disk": f"{PC['boot_disk']}-part4"},
        {},
        LOGIN,
        f"{AT}pc1: data_disk: {PC['boot_disk']}-part4 is a partition of boot_disk",
    ),
    "a name that the installer does not know": (
        {**without(PC, "data_disk"), "boot_disk": "/dev/disk/by-id/wwn-0x5002538e"},
        {},
        LOGIN,
        f"{AT}pc1: boot_disk: /dev/disk/by-id/wwn-0x5002538e is none by which the installer finds",
    ),
    "a place in the machine": (
        {**without(PC, "data_disk"), "boot_disk": "/dev/disk/by-path/pci-0000:00:17.0-ata-1"},
        {},
        LOGIN,
        f"{AT}pc1: boot_disk: /dev/disk/by-path/pci-0000:00:17.0-ata-1 is none by which",
    ),
    "a Pi's logical volume": (
        {**PI, "data_disk": "/dev/vg/lv"},
        {},
        LOGIN,
        f"{AT}pi1: data_disk: /dev/vg/lv: images for arm64 have no logical volumes",
    ),
    "a router with one card for both sides": (
        {**PI, "role": "gateway", "ip": "10.0.0.1"},
        {},
        LOGIN,
        "group_data/home.py: services.gateway.lan_interface: missing, but "
        "services.gateway.wan_interface is eth0: expected the card of the LAN",
    ),
    "a DHCP server that asks itself": (
        {**PI, "role": "gateway", "ip": "10.0.0.1", "mac": "dc:a6:32:00:00:01"},
        {"address": "reserved"},
        LOGIN,
        "group_data/home.py: first_boot.hosts.pi1.address: reserved, but it is the DHCP server "
        "itself: expected static",
    ),
    "no room for the system": (
        PI,
        {"root_size": "4G"},
        LOGIN,
        "group_data/home.py: first_boot.root_size: 4G: expected at least 8G",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_missing_is_one_line_and_nothing_is_rendered(case: str) -> None:
    host, settings, login, line = REFUSED[case]
    card = "eth1" if "address" in settings else "eth0"
    services = {"gateway": {"wan_interface": card}} if host["role"] == "gateway" else {}
    model, me = made(host, first_boot=settings, services=services)
    with pytest.raises(Problems) as refused:
        images.rendered(model, "home", {me.name: login}, chosen=[me.name])
    (problem,) = refused.value.problems
    assert str(problem).startswith(line)


def test_all_problems_are_said_at_once() -> None:
    model, _ = made(without(PC, "mac"))
    with pytest.raises(Problems) as refused:
        images.rendered(model, "home", {"pc1": None, "pi1": None}, ["pc1", "pi2"], ["pi1"])
    assert [str(problem).partition(":")[0] for problem in refused.value.problems] == [
        "pi2",
        "--erase pi1",
        "inventories/home.py",
        "inventories/home.py",
    ]


def test_who_is_to_be_erased_gets_files() -> None:
    model, _ = made(PC)
    logins = {"pc1": LOGIN, "pi1": LOGIN}
    with pytest.raises(Problems, match="--erase pc1: its files are not written: expected pi1"):
        images.rendered(model, "home", logins, ["pi1"], ["pc1"])


def test_a_password_itself_is_refused() -> None:
    model, _ = made(PI)
    with pytest.raises(Problems, match="malformed: expected a hash"):
        images._hash("hunter2hunter2hunter2hunter2", model)
    assert images._hash(HASH, model) == HASH


def test_keys_are_those_of_the_section_else_those_of_the_user() -> None:
    users = {"users": [{"name": "ubuntu", "keys": [KEY]}]}
    assert seed.login_of(example(nodes=users), "ubuntu") == LOGIN
    assert seed.login_of(example(first_boot={"keys": [KEY]}), "ubuntu") == LOGIN
    assert seed.login_of(example(nodes=users), None) is None


# ---- files


def test_files_are_for_their_owner_and_written_once(tmp_path: Path) -> None:
    model, _ = made(PC)
    wanted = images.rendered(model, "home", {"pc1": LOGIN, "pi1": LOGIN})
    said = list(images.written(tmp_path, wanted))
    assert said == [
        f"{tmp_path}/pc1: user-data, meta-data",
        f"{tmp_path}/pi1: user-data, network-config, meta-data",
    ]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    before = {path: path.stat().st_mtime_ns for path in files}
    assert {line.rpartition(": ")[2] for line in images.written(tmp_path, wanted)} == {"unchanged"}
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_what_a_host_needs_no_more_goes(tmp_path: Path) -> None:
    list(images.written(tmp_path, {"pc1": {"user-data": "a", "network-config": "b"}}))
    (said,) = images.written(tmp_path, {"pc1": {"user-data": "a"}})
    assert said.endswith(": network-config removed")
    assert [path.name for path in (tmp_path / "pc1").iterdir()] == ["user-data"]


def test_a_file_that_others_can_read_is_written_anew(tmp_path: Path) -> None:
    list(images.written(tmp_path, {"pc1": {"user-data": "a"}}))
    (tmp_path / "pc1" / "user-data").chmod(0o644)
    list(images.written(tmp_path, {"pc1": {"user-data": "a"}}))
    assert stat.S_IMODE((tmp_path / "pc1" / "user-data").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("disk", "kind"),
    [
        ("/dev/sda", "sd"),
        ("/dev/nvme0n1", "nvme"),
        ("/dev/mmcblk0", "mmcblk"),
        ("/dev/disk/by-id/usb-X", "/dev/disk/by-id/usb-X"),
    ],
)
def test_names_that_the_kernel_deals_out_say_only_the_kind(disk: str, kind: str) -> None:
    assert disks.expected(disk) == kind


@pytest.mark.parametrize(("size", "number"), [("50G", 51200), ("1T", 1048576), ("512M", 512)])
def test_sizes_in_mebibytes(size: str, number: int) -> None:
    assert mebibytes(size) == number


# ---- the command

INVENTORY = f"""
servers = [("pi1", {{"ip": "10.0.0.11", "arch": "arm64"}})]
agents = [("pc1", {{"ip": "10.0.0.21", "arch": "amd64", "mac": "{PC["mac"]}"}})]
control = ["@local"]
"""
DATA = f"""
cluster_name = "pi"
domain = "picluster.example.com"
network = {{"lan": "10.0.0.0/24", "gateway": "10.0.0.1", "dns": ["10.0.0.1"]}}
ssh_user = "ada"
first_boot = {{"keys": ["{KEY}"], "password": True}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in (("inventories", INVENTORY), ("group_data", DATA)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pi.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(secrets, "_run", {})
    monkeypatch.setattr(secrets.Store, "get", lambda store, name: {images.PASSWORD: HASH}[name])
    return tmp_path


def test_the_command_writes_what_inventory_data_and_secrets_say(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert images.main(["inventories/pi.py"]) == 0
    data = yaml.safe_load((project / "build/images/pi/pi1/user-data").read_text())
    (user,) = data["users"]
    assert (user["name"], user["ssh_authorized_keys"], user["passwd"]) == ("ada", [KEY], HASH)
    assert HASH not in capsys.readouterr().out


def test_the_command_writes_nothing_when_something_is_missing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Another name: pyinfra reads a file of the same name only once in a process.
    (project / "group_data/other.py").write_text(DATA)
    text = INVENTORY.replace(f', "mac": "{PC["mac"]}"', "")
    (project / "inventories/other.py").write_text(text)
    assert images.main(["inventories/other.py"]) == 1
    assert capsys.readouterr().err.startswith("inventories/other.py: pc1: mac: missing")
    assert not (project / "build").exists()
