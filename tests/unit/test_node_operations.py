"""Operations of the node base: a fresh host, one as wanted, one that changed, one that is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster import base
from cluster.host_state import Account, File, HostState, Package, Snap, Unit
from cluster.text import drop_ins, fstab
from operations import clock, config_files, kernel, login, power, storage_clients, system
from tests.unit.cluster_example import example
from tests.unit.node_case import (
    DOWN,
    KEY,
    MODEL,
    UP,
    Ran,
    bare,
    files,
    installed,
    run,
    with_files,
)

SQLITE = example(servers=1, agents=1)
OTHER_KEY = KEY.replace("ada@desk", "bob@desk")


def with_nodes(**nodes: Any) -> Any:
    return example(nodes=nodes)


# Host name


def named(state: HostState) -> HostState:
    """The state after the name was set."""
    ran = run(system.hostname, state)
    return replace(with_files(state, ran.written), hostname="node1", hostname_file="node1")


def test_a_fresh_host_gets_its_name_and_finds_all_hosts_before_it_has_it() -> None:
    ran = run(system.hostname, bare())
    written = ran.written
    assert list(written) == ["/etc/hosts", base.CLOUD_INIT, "/etc/hostname"]
    assert "10.0.0.15 node5.picluster.example.com node5\n" in written["/etc/hosts"]
    assert written["/etc/hosts"].endswith("127.0.0.1 localhost\n127.0.1.1 ubuntu\n")
    assert ran.texts[-1] == "hostname node1"


def test_a_named_host_is_left_alone() -> None:
    assert run(system.hostname, named(bare())).said == ["its name is node1"]


def test_a_line_of_the_users_own_in_the_hosts_file_is_no_difference() -> None:
    state = named(bare())
    mine = state.texts["/etc/hosts"] + "10.9.9.9 printer\n"
    assert run(system.hostname, replace(state, texts={"/etc/hosts": mine})).empty


def test_an_edited_line_of_ours_is_set_right_and_the_users_stay() -> None:
    state = named(bare())
    bad = state.texts["/etc/hosts"].replace("10.0.0.12 ", "10.0.0.99 ") + "10.9.9.9 printer\n"
    ran = run(system.hostname, replace(state, texts={"/etc/hosts": bad}))
    assert list(ran.written) == ["/etc/hosts"]
    assert ran.written["/etc/hosts"] == bad.replace("10.0.0.99 ", "10.0.0.12 ")


# Time zone and locale


@pytest.mark.parametrize(
    ("found", "wanted", "changes"),
    [
        ("Etc/UTC", "Etc/UTC", False),
        ("", "Etc/UTC", False),
        ("UTC", "Etc/UTC", False),
        ("Etc/UTC", "Europe/Madrid", True),
        ("Europe/Madrid", "Etc/UTC", True),
    ],
)
def test_the_time_zone_is_set_when_it_is_another(found: str, wanted: str, changes: bool) -> None:
    ran = run(system.timezone, bare(timezone=found), model=example(timezone=wanted))
    assert ran.texts == ([f"timedatectl set-timezone {wanted}"] if changes else [])


def test_a_locale_that_is_missing_is_generated_and_one_that_is_there_is_not() -> None:
    model = example(locale="en_GB.UTF-8")
    assert run(system.locale, bare(), model=model).has("en_GB.UTF-8 generate")
    there = bare(locales=("C.utf8", "en_GB.utf8"))
    ran = run(system.locale, there, model=model)
    assert len(ran.commands) == 1 and not ran.has("en_GB.UTF-8 generate")
    assert run(system.locale, replace(there, locale="en_GB.UTF-8"), model=model).empty


# Packages, snapd, kernel


def test_missing_packages_are_installed_by_one_run_of_apt() -> None:
    state = bare(packages=installed("curl", "ca-certificates", "chrony"))
    ran = run(system.packages, state)
    assert len(ran.commands) == 1
    missing = ran.texts[0].split(" sh ")[-1].split()
    assert missing == ["unattended-upgrades", "cryptsetup", "dmsetup", "nfs-common", "open-iscsi"]


def test_nothing_is_asked_of_apt_when_all_packages_are_there() -> None:
    names = base.packages(MODEL, MODEL.host("node1"), bare())
    assert run(system.packages, bare(packages=installed(*names))).empty


def test_a_package_that_was_removed_or_never_configured_is_missing() -> None:
    names = base.packages(MODEL, MODEL.host("node1"), bare())
    for status in ("rc", "iU"):
        packages = {**installed(*names), "open-iscsi": Package("1", status)}
        assert run(system.packages, bare(packages=packages)).has("open-iscsi")


def test_the_users_packages_are_wanted_too() -> None:
    ran = run(system.packages, bare(), model=with_nodes(packages=("htop",)))
    assert ran.has("htop")


def test_storage_clients_are_not_installed_where_they_are_switched_off() -> None:
    ran = run(system.packages, bare(), model=with_nodes(parts={"storage_clients": False}))
    assert not ran.has("open-iscsi") and ran.has("chrony")


def test_snaps_go_before_snapd_and_applications_before_their_bases() -> None:
    snaps = (Snap("core22", "base"), Snap("snapd", "snapd"), Snap("lxd"))
    state = bare(snaps=snaps, packages=installed("snapd"))
    ran = run(system.snapd_absent, state)
    assert base.NO_SNAPD in ran.written and ran.texts[1].endswith(" sh lxd core22 snapd")
    gone = with_files(bare(packages={"snapd": Package("", "un")}), ran.written)
    assert run(system.snapd_absent, gone).empty


def test_snapd_that_came_back_goes_again_though_it_is_pinned() -> None:
    there = with_files(bare(packages=installed("snapd")), {base.NO_SNAPD: drop_ins.no_snapd()})
    assert len(run(system.snapd_absent, there).commands) == 1


def test_kernels_are_held_on_servers_of_etcd_only() -> None:
    names = ("linux-raspi", "linux-image-raspi", "linux-base", "linux-image-6.8.0-1031-raspi")
    state = bare(packages=installed(*names))
    assert run(system.kernel_hold, state).texts == ["apt-mark hold linux-image-raspi linux-raspi"]
    assert run(system.kernel_hold, state, name="node4").empty
    assert run(system.kernel_hold, state, model=SQLITE).empty
    assert run(system.kernel_hold, bare(packages=installed(*names, held=True))).empty


# Files and their services


def changed_files(state: HostState) -> Ran:
    return run(config_files.files, state, {"/etc/x.conf": "a\n"}, unit="x.service")


def test_a_file_is_written_once_and_its_service_restarted_once() -> None:
    running = bare(units={"x.service": UP})
    ran = changed_files(running)
    assert ran.written == {"/etc/x.conf": "a\n"}
    assert ran.texts[1:] == ["systemctl restart x.service"]
    assert changed_files(with_files(running, ran.written)).empty


def test_a_service_that_does_not_run_is_not_started() -> None:
    assert len(changed_files(bare(units={"x.service": DOWN})).commands) == 1
    assert len(changed_files(bare()).commands) == 1


@pytest.mark.parametrize("broken", [{"mode": "600"}, {"sha256": "0" * 64}])
def test_another_mode_or_content_is_set_right(broken: dict[str, str]) -> None:
    state = with_files(bare(), {"/etc/x.conf": "a\n"})
    wrong = replace(state.files["/etc/x.conf"], **broken)  # type: ignore[arg-type]
    ran = changed_files(replace(state, files={"/etc/x.conf": wrong}))
    assert ran.written == {"/etc/x.conf": "a\n"}


def test_a_run_that_was_cut_off_before_the_restart_is_made_up_for() -> None:
    late = files({"/etc/x.conf": "a\n"}, changed=60_000)  # booted at 50,000, started at 50,010
    state = bare(units={"x.service": UP}, files=late)
    assert changed_files(state).texts == ["systemctl restart x.service"]


# Kernel

FSTAB = "LABEL=writable / ext4 noatime 0 1\n/swapfile none swap sw 0 0\n"
MASKED = {"swap.target": Unit(load="masked")}


def test_swap_goes_now_and_stays_away() -> None:
    zram = frozenset({"zram-generator"})
    state = bare(
        texts={base.FSTAB: FSTAB},
        swaps=("/swapfile", "/dev/zram0"),
        has=zram,
        units={"dphys-swapfile.service": UP},
    )
    ran = run(kernel.swap_off, state)
    assert ran.written == {
        base.FSTAB: FSTAB.replace("/swapfile", f"{fstab.OFF}/swapfile"),
        base.ZRAM: drop_ins.zram(),
    }
    assert ran.texts[2:] == [
        "systemctl disable --now dphys-swapfile.service",
        "systemctl mask swap.target",
        "swapoff -a",
    ]
    off = {**MASKED, "dphys-swapfile.service": DOWN}
    after = with_files(bare(texts={base.FSTAB: FSTAB}, has=zram, units=off), ran.written)
    assert run(kernel.swap_off, after).empty


def test_swap_that_somebody_switched_on_by_hand_is_the_only_change() -> None:
    assert run(kernel.swap_off, bare(units=MASKED, swaps=("/swap.img",))).texts == ["swapoff -a"]


def test_modules_are_loaded_now_and_at_boot_unless_they_are_built_in() -> None:
    state = bare(modules={"overlay": "builtin", "br_netfilter": "available"})
    ran = run(kernel.modules, state)
    assert ran.texts[1:] == ["modprobe -a br_netfilter dm_crypt iscsi_tcp nf_conntrack"]
    loaded = dict.fromkeys(base.ALL_MODULES, "loaded") | {"overlay": "builtin"}
    assert run(kernel.modules, with_files(bare(modules=loaded), ran.written)).empty


def effective(model: Any = MODEL, **changes: str) -> dict[str, str]:
    wanted = base.settings(model, model.host("node1"))
    return {key: one.value for key, one in wanted.items()} | changes


def set_up(sysctls: dict[str, str], model: Any = MODEL) -> HostState:
    ours = base.persistent(base.settings(model, model.host("node1")), sysctls)
    return with_files(bare(sysctls=sysctls), {base.SYSCTL: drop_ins.sysctl(ours)})


def test_kernel_settings_are_written_and_applied_and_then_left_alone() -> None:
    ran = run(kernel.settings, bare(sysctls=effective() | {"vm.overcommit_memory": "0"}))
    assert list(ran.written) == [base.SYSCTL] and len(ran.commands) == 2
    assert "vm.overcommit_memory = 1\n" in ran.written[base.SYSCTL]
    assert run(kernel.settings, set_up(effective())).empty


def test_an_effective_value_that_another_file_changed_is_set_right_without_writing() -> None:
    state = set_up(effective())
    wrong = replace(state, sysctls={**state.sysctls, "kernel.panic": "0"})
    ran = run(kernel.settings, wrong)
    assert ran.written == {} and len(ran.commands) == 1


def test_a_limit_that_the_system_has_set_higher_is_never_lowered() -> None:
    high = effective() | {"fs.inotify.max_user_instances": "8192"}
    ran = run(kernel.settings, bare(sysctls=high))
    assert "max_user_instances" not in ran.written[base.SYSCTL]
    assert run(kernel.settings, set_up(high)).empty


def test_a_setting_the_kernel_does_not_have_is_no_difference() -> None:
    known = effective()
    del known["net.bridge.bridge-nf-call-iptables"]
    assert run(kernel.settings, set_up(known)).empty


def test_the_users_own_settings_win() -> None:
    model = with_nodes(sysctl={"vm.panic_on_oom": 1})
    ran = run(kernel.settings, bare(sysctls=effective()), model=model)
    assert "vm.panic_on_oom = 1\n" in ran.written[base.SYSCTL]


# iSCSI

READY = {"iscsid.service": UP}


def test_iscsid_runs_under_a_name_of_its_own() -> None:
    first = bare(initiator="iqn.1993-08.org.debian:01:aa", units=READY)
    cloned = replace(first, hostname="node2")
    assert run(storage_clients.iscsi, bare()).texts == ["systemctl enable --now iscsid.service"]
    assert run(storage_clients.iscsi, first, others={"node2": cloned}).empty
    ran = run(storage_clients.iscsi, cloned, name="node2", others={"node1": first})
    assert len(ran.commands) == 1 and ran.has("iscsi-iname", "iscsi_session")


# Shutdown


def test_logind_waits_and_the_file_of_the_upgrades_is_masked() -> None:
    ran = run(power.logind, bare(inhibit_delay=30.0))
    assert ran.written == {base.LOGIND: drop_ins.logind(30)}
    assert ran.has("ln -sfn /dev/null", base.LOGIND_OF_UPGRADES)
    assert ran.texts[-1] == "systemctl kill --signal=HUP systemd-logind.service"
    after = replace(
        with_files(bare(inhibit_delay=30.0), ran.written),
        links={base.LOGIND_OF_UPGRADES: "/dev/null"},
    )
    assert run(power.logind, after).empty
    short = replace(after, inhibit_delay=5.0)
    assert run(power.logind, short).texts == ran.texts[-1:]
    kubelets = replace(short, files={**short.files, base.LOGIND_OF_KUBELET: File("644")})
    assert run(power.logind, kubelets).empty


# Clock


def test_chrony_takes_the_place_of_timesyncd_and_boots_wait_for_it() -> None:
    ran = run(clock.chrony, bare())
    assert "server 10.0.0.1 iburst\n" in ran.written[base.CHRONY]
    assert ran.texts[1:] == [
        "systemctl restart chrony.service",
        "systemctl disable --now systemd-timesyncd.service",
        "systemctl enable --now chrony.service",
        "systemctl enable chrony-wait.service",
    ]
    units = {"chrony.service": UP, "chrony-wait.service": replace(DOWN, enabled="enabled")}
    after = with_files(bare(units=units), ran.written)
    assert run(clock.chrony, after).empty
    both = replace(after, units={**units, "systemd-timesyncd.service": UP})
    assert run(clock.chrony, both).texts == ["systemctl disable --now systemd-timesyncd.service"]


def test_other_time_servers_restart_chrony_once() -> None:
    units = {"chrony.service": UP, "chrony-wait.service": UP}
    state = with_files(bare(units=units), {base.CHRONY: drop_ins.chrony(["10.0.0.1"])})
    network = {**MODEL.network.model_dump(), "ntp": ("10.0.0.7", "10.0.0.8")}
    ran = run(clock.chrony, state, model=example(network=network))
    assert "server 10.0.0.7 iburst\nserver 10.0.0.8 iburst\n" in ran.written[base.CHRONY]
    assert ran.texts[1:] == ["systemctl restart chrony.service"]


def test_the_clock_is_waited_for_only_while_it_is_not_right() -> None:
    right = bare(units={"chrony.service": UP}, time_synchronised=True)
    assert run(clock.synchronised, right).empty
    assert run(clock.synchronised, replace(right, time_synchronised=False)).has("_wait")
    assert run(clock.synchronised, replace(right, units={})).has("_wait")


# Logins

ADA = {"name": "ada", "keys": (KEY,)}


def grown(account: Account) -> HostState:
    return bare(
        accounts={"ada": account}, files=files({base.sudoers("ada"): drop_ins.sudo("ada")}, "440")
    )


def test_a_user_is_made_with_keys_and_a_rule_for_sudo() -> None:
    model = with_nodes(users=(ADA,))
    ran = run(login.users, bare(), model=model)
    assert ran.texts[0] == "useradd --create-home --user-group --shell /bin/bash ada"
    keys, rule = ran.commands[1:]
    assert KEY in keys.stdin and keys.text.endswith(" sh ada")
    assert rule.stdin == drop_ins.sudo("ada") and base.sudoers("ada") in rule.text
    there = Account("ada", 1001, "/home/ada", "/bin/bash", (), keys.stdin)
    assert run(login.users, grown(there), model=model).empty


def test_keys_of_others_stay_and_a_key_that_left_the_data_goes() -> None:
    model = with_nodes(users=({"name": "ada", "keys": (OTHER_KEY,)},))
    first = run(login.users, bare(), model=with_nodes(users=(ADA,))).commands[1].stdin
    own = "ssh-ed25519 AAAA by-hand\n"
    there = Account("ada", 1001, "/home/ada", "/bin/bash", (), own + first)
    ran = run(login.users, grown(there), model=model)
    assert len(ran.commands) == 1
    text = ran.commands[0].stdin
    assert text.startswith(own) and OTHER_KEY in text and KEY not in text


def test_sudo_is_taken_away_when_the_data_says_so() -> None:
    keys = run(login.users, bare(), model=with_nodes(users=(ADA,))).commands[1].stdin
    there = Account("ada", 1001, "/home/ada", "/bin/bash", (), keys)
    ran = run(login.users, grown(there), model=with_nodes(users=({**ADA, "sudo": False},)))
    assert ran.texts == [f"rm -f {base.sudoers('ada')}"]


def hardened(**sshd: str) -> HostState:
    settings = drop_ins.sshd("no")
    sshd = {key.lower(): value for key, value in settings.items()} | sshd
    return with_files(bare(sshd=sshd), {base.SSHD: drop_ins.sshd_text(settings)})


def test_sshd_is_checked_before_it_is_reloaded() -> None:
    ran = run(login.sshd, bare())
    assert len(ran.commands) == 1
    text = ran.texts[0]
    assert text.index("sshd -t ||") < text.index("systemctl reload ssh.service")
    assert "PasswordAuthentication no\n" in ran.commands[0].stdin
    assert run(login.sshd, hardened()).empty


def test_a_setting_that_is_not_effective_is_a_difference_though_the_file_is_right() -> None:
    assert not run(login.sshd, hardened(passwordauthentication="yes")).empty


def test_root_may_come_with_a_key_where_pyinfra_logs_in_as_root() -> None:
    ran = run(login.sshd, bare(login="root"))
    assert "PermitRootLogin prohibit-password\n" in ran.commands[0].stdin
    settings = drop_ins.sshd("prohibit-password")
    sshd = {key.lower(): value for key, value in settings.items()}
    sshd["permitrootlogin"] = "without-password"  # as `sshd -T` says it
    state = bare(login="root", sshd=sshd)
    assert run(login.sshd, with_files(state, {base.SSHD: drop_ins.sshd_text(settings)})).empty


# The rest


def test_trim_is_enabled_once() -> None:
    assert run(system.trim, bare()).texts == ["systemctl enable --now fstrim.timer"]
    assert run(system.trim, bare(units={"fstrim.timer": UP})).empty


def test_a_pending_reboot_is_said_and_not_done() -> None:
    ran = run(system.reboot_report, bare(reboot_required=("linux-image-raspi",)))
    assert ran.empty and ran.said == ["wants a reboot: linux-image-raspi"]
