"""Operations of the node base: what they do to a fresh, a finished and an odd host."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import base
from cluster.host_state import Account, File, HostState, Package, Snap, Unit
from cluster.text import block, drop_ins, fstab
from operations import clock, config_files, kernel, login, power, storage_clients, system
from tests.unit.cluster_example import example
from tests.unit.node_ops import Runner as Run
from tests.unit.node_world import KEY, NOW, finished, pi

ADA = {"name": "ada", "keys": (KEY,)}
MODEL = example(nodes={"users": (ADA,)})
ME = MODEL.hosts[0]
FRESH, FINISHED = pi(ME), finished(MODEL, ME)
LIMITS: dict[str, Any] = {"wanted": {base.LIMITS: drop_ins.limits()}}
JOURNAL: dict[str, Any] = {
    "wanted": {base.JOURNALD: drop_ins.journald("persistent", "200M")},
    "unit": "systemd-journald.service",
}
OPERATIONS: list[tuple[Any, dict[str, Any]]] = [
    (config_files.files, LIMITS),
    (config_files.files, JOURNAL),
    (system.hostname, {}),
    (system.packages, {}),
    (system.timezone, {}),
    (system.locale, {}),
    (system.trim, {}),
    (system.kernel_hold, {}),
    (system.snapd_absent, {}),
    (kernel.swap_off, {}),
    (kernel.modules, {}),
    (kernel.settings, {}),
    (storage_clients.iscsi, {}),
    (power.logind, {}),
    (clock.chrony, {}),
    (clock.synchronised, {}),
    (login.users, {}),
    (login.sshd, {}),
]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(monkeypatch)


def with_file(state: HostState, path: str, **changes: Any) -> HostState:
    return replace(state, files=state.files | {path: replace(state.files[path], **changes)})


def with_unit(state: HostState, name: str, **changes: Any) -> HostState:
    return replace(state, units=state.units | {name: replace(state.unit(name), **changes)})


@pytest.mark.parametrize(
    ("operation", "arguments"), OPERATIONS, ids=[one[0]._inner.__name__ for one in OPERATIONS]
)
def test_a_finished_host_needs_no_command(run: Run, operation: Any, arguments: Any) -> None:
    assert run(operation, MODEL, FINISHED, **arguments) == []
    assert len(run.host.noops) == 1


@pytest.mark.parametrize("release", ["22.04", "24.04", "26.04"])
@pytest.mark.parametrize(
    ("operation", "arguments"), OPERATIONS, ids=[one[0]._inner.__name__ for one in OPERATIONS]
)
def test_each_release_has_something_to_do_and_is_then_finished(
    run: Run, operation: Any, arguments: Any, release: str
) -> None:
    fresh = run(operation, MODEL, pi(ME, release), **arguments)
    unchanged = {system.timezone, system.locale, system.trim}
    assert bool(fresh) == (operation not in unchanged)
    assert run(operation, MODEL, finished(MODEL, ME, release), **arguments) == []


# ---- files and their services


def test_a_file_is_written_through_standard_input(run: Run) -> None:
    (command,) = run(config_files.files, MODEL, FRESH, **LIMITS)
    assert base.LIMITS in command and command.stdin == drop_ins.limits()
    assert "nofile" not in command


def test_a_file_with_another_mode_is_put_back(run: Run) -> None:
    odd = with_file(FINISHED, base.LIMITS, mode="666")
    assert len(run(config_files.files, MODEL, odd, **LIMITS)) == 1


def test_the_service_is_restarted_once_after_its_file(run: Run) -> None:
    write, restart = run(config_files.files, MODEL, FRESH, **JOURNAL)
    assert base.JOURNALD in write
    assert restart.text == "systemctl restart systemd-journald.service"


def test_a_service_that_does_not_run_is_not_started(run: Run) -> None:
    stopped = with_unit(FRESH, "systemd-journald.service", active="inactive")
    (write,) = run(config_files.files, MODEL, stopped, **JOURNAL)
    assert base.JOURNALD in write


def test_a_restart_that_an_earlier_run_did_not_reach_is_made_up_for(run: Run) -> None:
    late = with_file(FINISHED, base.JOURNALD, changed=int(NOW) - 5)
    (restart,) = run(config_files.files, MODEL, late, **JOURNAL)
    assert restart.text == "systemctl restart systemd-journald.service"


def test_differences_are_shown_when_asked_for(run: Run, caplog: Any) -> None:
    with caplog.at_level("INFO"):
        run(config_files.files, MODEL, with_file(FINISHED, base.LIMITS, sha256="x"), **LIMITS)
        assert "nofile" not in caplog.text
        run(
            config_files.files,
            MODEL,
            with_file(FINISHED, base.LIMITS, sha256="x"),
            diff=True,
            **LIMITS,
        )
    assert "old line" in caplog.text and "nofile" in caplog.text


# ---- system


def test_a_host_gets_its_name_and_knows_the_others_first(run: Run) -> None:
    hosts, cloud, file, name = run(system.hostname, MODEL, FRESH)
    assert base.HOSTS in hosts and "10.0.0.12 node2." in str(hosts.stdin)
    assert "127.0.1.1 ubuntu\n\n# mine\n10.0.0.250 nas\n" in str(hosts.stdin)
    assert base.CLOUD_INIT in cloud
    assert base.HOSTNAME in file and file.stdin == "node1\n"
    assert name.text == "hostname node1"


def test_cloud_init_is_left_alone_where_it_is_not(run: Run) -> None:
    found = run(system.hostname, MODEL, replace(FRESH, has=frozenset()))
    assert not any(base.CLOUD_INIT in command for command in found)


def test_a_running_name_that_differs_from_the_file_is_set(run: Run) -> None:
    (command,) = run(system.hostname, MODEL, replace(FINISHED, hostname="other"))
    assert command.text == "hostname node1"


def test_missing_packages_come_in_one_run_of_apt(run: Run) -> None:
    (command,) = run(system.packages, MODEL, FRESH)
    assert sorted(command.text.split()[-3:]) == ["chrony", "cryptsetup", "nfs-common"]
    assert "DPkg::Lock::Timeout" in command and "--no-install-recommends" in command


def test_a_package_that_was_removed_is_missing(run: Run) -> None:
    gone = replace(FINISHED, packages=FINISHED.packages | {"chrony": Package("1", "rc")})
    (command,) = run(system.packages, MODEL, gone)
    assert command.text.endswith(" chrony")


@pytest.mark.parametrize(("release", "wanted"), [("22.04", True), ("24.04", False)])
def test_only_jammys_raspi_kernel_has_modules_in_a_package_of_their_own(
    release: str, wanted: bool
) -> None:
    found = base.packages(MODEL, ME, pi(ME, release))
    assert ("linux-modules-extra-raspi" in found) == wanted


def test_a_host_outside_the_cluster_gets_no_storage_clients() -> None:
    gateway = {"name": "gateway", "role": "gateway", "ip": "10.0.0.1", "arch": "arm64"}
    hosts = [*(host.model_dump() for host in MODEL.hosts), gateway]
    model = example(hosts=hosts)
    found = base.packages(model, model.host("gateway"), FRESH)
    assert "chrony" in found and "open-iscsi" not in found


def test_users_packages_come_along() -> None:
    model = example(nodes={"packages": ("htop", "curl")})
    found = base.packages(model, model.hosts[0], FRESH)
    assert found.count("curl") == 1 and "htop" in found


def test_the_time_zone_is_set(run: Run) -> None:
    model = example(timezone="Europe/Madrid")
    (command,) = run(system.timezone, model, FRESH)
    assert command.text == "timedatectl set-timezone Europe/Madrid"


@pytest.mark.parametrize("present", ["", "UTC", "Etc/UTC"])
def test_utc_is_utc_under_each_of_its_names(run: Run, present: str) -> None:
    assert run(system.timezone, MODEL, replace(FRESH, timezone=present)) == []


def test_a_missing_locale_is_generated_and_one_that_is_there_is_not(run: Run) -> None:
    model = example(locale="es_ES.UTF-8")
    (command,) = run(system.locale, model, FRESH)
    assert command.text.endswith(" sh es_ES.UTF-8 generate")
    known = replace(FRESH, locales=("C", "es_ES.utf8"))
    (command,) = run(system.locale, model, known)
    assert command.text.endswith(" sh es_ES.UTF-8 ''")
    assert "locales" in base.packages(model, ME, FRESH)


def test_snaps_go_before_their_bases_and_snapd_last(run: Run) -> None:
    snaps = (
        Snap("core20", "base"), Snap("snapd", "snapd"), Snap("bare", "base"), Snap("lxd"),
        Snap("core", "core"), Snap("core22", "base,disabled"),
    )  # fmt: skip
    pin, remove = run(system.snapd_absent, MODEL, replace(FRESH, snaps=snaps))
    assert base.NO_SNAPD in pin
    assert remove.text.endswith(" sh lxd bare core core20 core22 snapd")
    assert "purge snapd" in remove


def test_the_pin_alone_where_snapd_never_was(run: Run) -> None:
    packages = {name: one for name, one in FRESH.packages.items() if name != "snapd"}
    (pin,) = run(system.snapd_absent, MODEL, replace(FRESH, packages=packages))
    assert base.NO_SNAPD in pin


def test_kernels_of_etcds_nodes_are_held_and_those_of_agents_are_not(run: Run) -> None:
    (command,) = run(system.kernel_hold, MODEL, FRESH)
    assert command.text == "apt-mark hold linux-image-raspi linux-raspi"
    agent = MODEL.agents[0]
    assert run(system.kernel_hold, MODEL, {agent.name: pi(agent)}) == []
    single = example(servers=1, agents=1)
    assert run(system.kernel_hold, single, FRESH) == []


@pytest.mark.parametrize(
    ("name", "pulls"),
    [
        ("linux-raspi", True),
        ("linux-image-generic-hwe-24.04", True),
        ("linux-image-amd64", True),
        ("linux-image-cloud-arm64", True),
        ("linux-modules-extra-raspi", True),
        ("linux-image-6.8.0-1031-raspi", False),
        ("linux-base", False),
        ("linux-firmware", False),
        ("linux-libc-dev", False),
    ],
)
def test_packages_that_pull_kernels_in_are_known(name: str, pulls: bool) -> None:
    found = base.kernel_packages(HostState(packages={name: Package("1", "ii")}))
    assert bool(found) == pulls


# ---- kernel


def test_swap_is_switched_off_now_and_for_good(run: Run) -> None:
    table, mask, off = run(kernel.swap_off, MODEL, FRESH)
    assert base.FSTAB in table and fstab.OFF in str(table.stdin)
    assert [mask.text, off.text] == ["systemctl mask swap.target", "swapoff -a"]


def test_compressed_swap_is_switched_off_at_its_source(run: Run) -> None:
    odd = replace(FINISHED, swaps=("/dev/zram0",), has=FINISHED.has | {"zram-generator"})
    odd = replace(odd, units=odd.units | {"dphys-swapfile.service": Unit("loaded", "active")})
    zram, service, off = run(kernel.swap_off, MODEL, odd)
    assert base.ZRAM in zram and zram.stdin == drop_ins.zram()
    assert service.text == "systemctl disable --now dphys-swapfile.service"
    assert off.text == "swapoff -a"


def test_only_missing_modules_are_loaded_and_built_in_ones_are_not_missing(run: Run) -> None:
    known = {"overlay": "builtin", "br_netfilter": "loaded", "nf_conntrack": "available"}
    file, load = run(kernel.modules, MODEL, replace(FRESH, modules=known))
    assert file.stdin and file.stdin.splitlines()[1:] == sorted(base.ALL_MODULES)
    assert load.text == "modprobe -a dm_crypt iscsi_tcp nf_conntrack"


def test_a_setting_changed_by_hand_is_put_back_although_the_file_is_right(run: Run) -> None:
    odd = replace(FINISHED, sysctls=FINISHED.sysctls | {"net.ipv4.ip_forward": "0"})
    (command,) = run(kernel.settings, MODEL, odd)
    assert "sysctl -q -e -p" in command and "net.ipv4.ip_forward" in command


def test_a_higher_limit_is_never_lowered(run: Run) -> None:
    model = example()
    for effective, kept in (("2000000", False), ("1048576", True), ("65530", True)):
        sysctls = FRESH.sysctls | {"vm.max_map_count": effective}
        file, _ = run(kernel.settings, model, replace(FRESH, sysctls=sysctls))
        assert ("vm.max_map_count = 1048576\n" in str(file.stdin)) == kept


def test_a_limit_that_may_be_higher_is_met_by_more_and_others_only_by_themselves() -> None:
    wanted = {"a": base.Setting("10", at_least=True), "b": base.Setting("10")}
    assert base.unmet(wanted, {"a": "11", "b": "11"}) == ("b",)
    assert base.unmet(wanted, {"a": "9", "b": "10"}) == ("a",)
    assert base.unmet({"c": base.Setting("4096 131072")}, {"c": "4096\t131072"}) == ()


def test_a_setting_that_the_kernel_does_not_have_yet_is_written_and_not_unmet() -> None:
    wanted = base.settings(MODEL, ME)
    assert "net.bridge.bridge-nf-call-iptables" not in FRESH.sysctls
    assert "net.bridge.bridge-nf-call-iptables" in base.persistent(wanted, FRESH.sysctls)
    assert "net.bridge.bridge-nf-call-iptables" not in base.unmet(wanted, FRESH.sysctls)


def test_reverse_path_filters_follow_the_cni() -> None:
    def filter_of(stack: dict[str, str]) -> str:
        model = example(stack=stack)
        return base.settings(model, model.hosts[0])["net.ipv4.conf.all.rp_filter"].value

    assert filter_of({"cni": "flannel"}) == "2"
    assert filter_of({"cni": "cilium", "load_balancer": "none"}) == "0"


def test_the_users_settings_win_and_parts_can_be_left_out() -> None:
    nodes: dict[str, Any] = {"sysctl": {"net/ipv4/conf/eth0.5/forwarding": 1, "kernel.panic": 0}}
    model = example(nodes=nodes)
    found = base.settings(model, model.hosts[0])
    assert found["kernel.panic"].value == "0"
    assert found["net.ipv4.conf.eth0/5.forwarding"].value == "1"
    assert base.kernel_path("net.ipv4.conf.eth0/5.forwarding").endswith("/eth0.5/forwarding")
    container = example(nodes=nodes | {"parts": {"sysctl_machine": False}})
    assert all(key.startswith("net.") for key in base.settings(container, container.hosts[0]))
    assert base.question(model).settings == ("kernel.panic", "net.ipv4.conf.eth0/5.forwarding")


def test_bursts_of_writes_are_smoothed_on_etcds_nodes_only() -> None:
    assert "vm.dirty_ratio" in base.settings(MODEL, ME)
    assert "vm.dirty_ratio" not in base.settings(MODEL, MODEL.agents[0])


# ---- storage, power


def test_a_cloned_initiator_gets_a_name_of_its_own_and_the_first_keeps_it(run: Run) -> None:
    first, second = (replace(finished(MODEL, one), initiator="iqn.x") for one in MODEL.hosts[:2])
    (command,) = run(storage_clients.iscsi, MODEL, {"node1": first, "node2": second})
    assert "iscsi-iname" in command and "iscsi_session" in command
    assert run(storage_clients.iscsi, MODEL, {"node2": second, "node1": first}) != []
    assert run(storage_clients.iscsi, MODEL, {"node1": first, "node2": second}, on="node1") == []


def test_logind_reads_its_files_again_and_is_not_restarted(run: Run) -> None:
    file, mask, hangup = run(power.logind, MODEL, FRESH)
    assert "InhibitDelayMaxSec=30" in str(file.stdin)
    assert "/dev/null" in mask and base.LOGIND_OF_UPGRADES in mask
    assert hangup.text == "systemctl kill --signal=HUP systemd-logind.service"


def test_a_delay_that_is_too_short_in_effect_is_seen(run: Run) -> None:
    short = replace(FINISHED, inhibit_delay=5.0)
    (hangup,) = run(power.logind, MODEL, short)
    assert "HUP" in hangup
    kubelets = replace(short, files=short.files | {base.LOGIND_OF_KUBELET: File("644")})
    assert run(power.logind, MODEL, kubelets) == []


# ---- clock


def test_chrony_takes_over_from_another_daemon(run: Run) -> None:
    commands = [command.text for command in run(clock.chrony, MODEL, FRESH)[1:]]
    assert commands == [
        "systemctl restart chrony.service",
        "systemctl disable --now systemd-timesyncd.service",
        "systemctl enable --now chrony.service",
        "systemctl enable chrony-wait.service",
    ]


def test_jammys_chrony_gets_the_unit_that_it_does_not_have(run: Run) -> None:
    old = finished(MODEL, ME, "22.04")
    files = {path: file for path, file in old.files.items() if path != base.CHRONY_WAIT}
    bare = replace(old, files=files, units=old.units | {clock.WAIT: Unit()})
    unit, reload, enable = run(clock.chrony, MODEL, bare)
    assert base.CHRONY_WAIT in unit and "Before=time-sync.target" in str(unit.stdin)
    assert [reload.text, enable.text] == [
        "systemctl daemon-reload",
        "systemctl enable chrony-wait.service",
    ]
    assert run(clock.chrony, MODEL, with_unit(old, clock.WAIT, load="loaded")) == []


def test_a_clock_that_follows_nobody_is_waited_for(run: Run) -> None:
    lost = replace(FINISHED, time_synchronised=False)
    (wait,) = run(clock.synchronised, MODEL, lost)
    assert wait.text == "_wait(['10.0.0.1'], 90)"
    (wait,) = run(clock.synchronised, MODEL, with_unit(FINISHED, clock.CHRONY, active="failed"))
    assert wait.text.startswith("_wait")


# ---- logins


def test_a_user_is_made_with_key_and_rule(run: Run) -> None:
    add, keys, rule = run(login.users, MODEL, FRESH)
    assert add.text == "useradd --create-home --user-group --shell /bin/bash ada"
    assert keys.stdin == block.put("", (KEY,)) and KEY not in keys.text
    assert "visudo -qcf" in rule and rule.stdin == drop_ins.sudo("ada")


def test_keys_that_others_added_stay(run: Run) -> None:
    mine = f"ssh-rsa AAAA mine\n{block.BEGIN}\nssh-rsa AAAA old\n{block.END}\n"
    account = Account("ada", 1001, "/home/ada", "/bin/bash", (), mine)
    odd = replace(FINISHED, accounts=FINISHED.accounts | {"ada": account})
    (keys,) = run(login.users, MODEL, odd)
    assert keys.stdin == f"ssh-rsa AAAA mine\n{block.BEGIN}\n{KEY}\n{block.END}\n"


def test_a_user_without_sudo_loses_the_rule_and_gets_the_shell(run: Run) -> None:
    model = example(nodes={"users": (ADA | {"sudo": False, "shell": "/bin/sh"},)})
    shell, rule = run(login.users, model, FINISHED)
    assert shell.text == "usermod --shell /bin/sh ada"
    assert rule.text == f"rm -f {base.sudoers('ada')}"


def test_sshd_is_checked_before_it_is_reloaded_and_undone_when_wrong(run: Run) -> None:
    (command,) = run(login.sshd, MODEL, FRESH)
    assert command.text.index("sshd -t") < command.text.index("systemctl reload")
    assert "|| { back; exit 1; }" in command
    assert "PasswordAuthentication no" in str(command.stdin)
    assert "PermitRootLogin no" in str(command.stdin)


def test_who_logs_in_as_root_stays_able_to(run: Run) -> None:
    (command,) = run(login.sshd, MODEL, replace(FRESH, login="root"))
    assert "PermitRootLogin prohibit-password" in str(command.stdin)


def test_sshds_file_sorts_before_cloud_inits() -> None:
    assert sorted([base.SSHD, "/etc/ssh/sshd_config.d/50-cloud-init.conf"])[0] == base.SSHD


@pytest.mark.parametrize(
    "odd",
    [
        replace(FINISHED, sshd=FINISHED.sshd | {"passwordauthentication": "yes"}),
        replace(FINISHED, has=frozenset()),
        with_file(FINISHED, base.SSHD, sha256="x"),
    ],
    ids=["another file wins", "the folder is not read", "edited"],
)
def test_what_sshd_really_does_counts(run: Run, odd: HostState) -> None:
    (command,) = run(login.sshd, MODEL, odd)
    assert "sshd -T" in command


def test_what_sshd_does_not_say_is_not_wrong(run: Run) -> None:
    assert run(login.sshd, MODEL, replace(FINISHED, sshd={})) == []


def test_a_reload_that_was_not_reached_is_made_up_for(run: Run) -> None:
    late = with_file(FINISHED, base.SSHD, changed=int(NOW) - 5)
    (command,) = run(login.sshd, MODEL, late)
    assert command.text == "systemctl reload ssh.service"


def test_lists_of_packages_are_read_once_a_run_and_when_a_source_comes(tmp_path: Path) -> None:
    log, sources, said = (tmp_path / name for name in ("log", "sources.list.d", "said"))
    said.touch()
    sources.mkdir()
    (tmp_path / "lists").mkdir()
    text = system._INSTALL.replace("/var/lib/apt/lists", f"{tmp_path}/lists")
    text = text.replace("/etc/apt/sources", f"{tmp_path}/sources")
    text = text.replace("/run/picluster", f"{tmp_path}/run").replace("exec apt-get", "apt-get")
    update = f': > {tmp_path}/lists/x_Packages; echo "$*" >> {log}; cat {tmp_path}/said'
    (tmp_path / "apt-get").write_text(f"#!/bin/sh\n{update}\n")
    (tmp_path / "dpkg").write_text("#!/bin/sh\n")
    for name in ("apt-get", "dpkg"):
        (tmp_path / name).chmod(0o755)

    def updates() -> int:
        """How often the lists were read by one more installation."""
        log.write_text("")
        script = f"PATH={tmp_path}:$PATH\n{text}"
        subprocess.run(["sh", "-c", script, "install", "curl"], check=True)
        lines = log.read_text().splitlines()
        assert lines[-1].endswith("install curl")
        return lines.count("-q update")

    mark = tmp_path / "run" / "apt-lists"
    assert [updates(), updates()] == [1, 0]
    (sources / "new.sources").write_text("")
    assert [updates(), updates()] == [1, 0]
    old = mark.stat().st_mtime - 660
    for path in (mark, sources, sources / "new.sources"):
        os.utime(path, (old, old))
    assert [updates(), updates()] == [1, 0]
    (tmp_path / "lists" / "x_Packages").unlink()
    assert updates() == 1
    # apt ends with 0 where a source does not answer: the next installation tries it again.
    mark.unlink()
    said.write_text("W: Some index files failed to download. They have been ignored.")
    assert [updates(), updates()] == [1, 1]
