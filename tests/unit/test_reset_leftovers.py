"""The shell text that finds and removes what K3s left, run for real in a scratch folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cluster import k3s_config, leftovers
from cluster.leftovers import TOPICS, Options, find_script, remove_script, summary
from facts.leftovers import parse

SHELL = shutil.which("dash") or "sh"


class Root:
    """A node's file system below a folder; mounts are simulated by their list."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mounts: list[str] = []

    def __call__(self, path: str) -> Path:
        return self.folder / path.lstrip("/")

    def file(self, path: str) -> Path:
        target = self(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("x")
        return target

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script whose absolute paths lie below the folder."""
        start, end = script.index("look() {"), script.index("mounted() {")
        listed = "\n".join(self.mounts)
        script = f"{script[:start]}look() {{ M='{listed}'; }}\n{script[end:]}"
        for top in ("/var/", "/etc/", "/run/", "/opt/", "/usr/local/", "/mnt/"):
            script = script.replace(top, f"{self.folder}{top}")
        script = script.replace(f"|{self.folder}/etc/*", "")
        return subprocess.run([SHELL, "-s"], input=script, text=True, capture_output=True)

    def find(self, topic: str, options: Options) -> tuple[str, ...]:
        found = parse(self.run(find_script(options, [topic])).stdout.splitlines()).of(topic)
        return tuple(line.replace(str(self.folder), "") for line in found)

    def remove(self, topic: str, options: Options) -> subprocess.CompletedProcess[str]:
        return self.run(remove_script(topic, options))


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


DATA = k3s_config.DATA
SPARE = Options("pi", user_data=(f"{DATA}/storage", "/mnt/disk"))


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="Linux tools")
@pytest.mark.parametrize("topic", TOPICS)
def test_every_script_is_posix_shell(topic: str) -> None:
    for script in (find_script(SPARE), remove_script(topic, SPARE)):
        checked = subprocess.run([SHELL, "-n"], input=script, text=True, capture_output=True)
        assert checked.stderr == ""


def test_the_data_go_with_their_empty_parent(root: Root) -> None:
    root.file(f"{DATA}/server/db/state.db")
    assert root.find("data", SPARE) == (DATA,)
    assert root.remove("data", SPARE).returncode == 0
    assert not root("/var/lib/rancher").exists()
    assert root.find("data", SPARE) == ()


def test_volumes_in_the_data_are_counted_before_they_go(root: Root) -> None:
    root.file(f"{DATA}/storage/pvc-1/file")
    root.file(f"{DATA}/storage/pvc-2/file")
    assert root.find("data", SPARE) == (f"{DATA} (2 local-path volumes)",)


def test_a_data_disk_inside_the_data_is_spared_and_its_mount_point_stays(root: Root) -> None:
    kept = root.file(f"{DATA}/storage/pvc-1/file")
    gone = root.file(f"{DATA}/server/db/state.db")
    root.mounts = ["/", f"{DATA}/storage"]
    assert root.find("data", SPARE) == (f"{DATA}/server",)
    assert root.remove("data", SPARE).returncode == 0
    assert kept.exists() and not gone.exists()
    assert root.find("data", SPARE) == ()


def test_any_other_mount_inside_the_data_is_emptied_but_not_removed(root: Root) -> None:
    gone = root.file(f"{DATA}/agent/containerd/image")
    root.mounts = [f"{DATA}/agent/containerd", DATA]
    assert root.remove("data", SPARE).returncode == 0
    assert not gone.exists() and gone.parent.is_dir()
    assert root.find("data", SPARE) == ()


def test_a_data_disk_is_emptied_when_it_is_named(root: Root) -> None:
    gone = root.file(f"{DATA}/storage/pvc-1/file")
    root.mounts = [f"{DATA}/storage"]
    named = Options("pi", user_data=(f"{DATA}/storage",), wipe=(f"{DATA}/storage",))
    assert root.remove("data", named).returncode == 0
    assert not gone.exists() and root(f"{DATA}/storage").is_dir()


def test_user_data_stay_unless_named_and_never_past_a_mount(root: Root) -> None:
    root.file("/mnt/disk/replicas/volume")
    deep = root.file("/mnt/disk/backup/file")
    root.file("/mnt/disk/lost+found/x")
    root.mounts = ["/mnt/disk", "/mnt/disk/backup"]
    assert root.find("user_data", SPARE) == ()
    named = Options("pi", user_data=("/mnt/disk",), wipe=("/mnt/disk",))
    assert root.find("user_data", named) == ("/mnt/disk/replicas",)
    assert root.remove("user_data", named).returncode == 0
    assert [p.name for p in sorted(root("/mnt/disk").iterdir())] == ["backup", "lost+found"]
    assert deep.exists()


def test_a_volume_that_is_still_mounted_is_not_deleted_with_kubelet(root: Root) -> None:
    volume = root.file("/var/lib/kubelet/pods/a/volumes/nfs/precious")
    state = root.file("/var/lib/kubelet/pods/a/etc-hosts")
    root.mounts = ["/var/lib/kubelet/pods/a/volumes/nfs"]
    result = root.remove("folders", SPARE)
    assert volume.exists() and not state.exists()
    assert result.returncode == 0


def test_snapshots_are_moved_away_with_their_tokens(root: Root) -> None:
    root.file(f"{DATA}/server/db/snapshots/on-demand-node1-1")
    root.file(f"{DATA}/server/db-before-v1.36.2-1/state.db")
    root.file(f"{DATA}/server/tokens/1-0123456789ab")
    root.file(k3s_config.SERVER_TOKEN)
    assert len(root.find("kept", SPARE)) == 3
    assert root.remove("kept", SPARE).returncode == 0
    kept = root(f"{leftovers.KEPT}/pi")
    assert {p.name for p in kept.iterdir()} == {
        "on-demand-node1-1",
        "db-before-v1.36.2-1",
        "tokens",
    }
    assert len(list((kept / "tokens").iterdir())) == 2
    assert kept.stat().st_mode & 0o777 == 0o700
    assert root.find("kept", SPARE) == ()
    again = root.file(f"{DATA}/server/db/snapshots/on-demand-node1-1")
    again.write_text("newer")
    assert root.remove("kept", SPARE).returncode == 0
    assert (kept / "on-demand-node1-1").read_text() == "x"
    assert (kept / "on-demand-node1-1.1").read_text() == "newer"


def test_snapshots_on_a_mount_of_their_own_stay_where_they_are(root: Root) -> None:
    snapshot = root.file(f"{DATA}/server/db/snapshots/on-demand-node1-1")
    root.mounts = [f"{DATA}/server/db/snapshots"]
    assert root.find("kept", SPARE) == ()
    assert root.remove("data", SPARE).returncode == 0
    assert snapshot.exists()
    careless = Options("pi", keep_snapshots=False)
    assert root.remove("data", careless).returncode == 0
    assert not snapshot.exists()


def test_only_our_links_among_the_tools_go(root: Root) -> None:
    link = root(k3s_config.LINK)
    root.file(f"{k3s_config.RELEASES}/v1/k3s")
    link.parent.mkdir(parents=True)
    link.symlink_to("/x/k3s")
    (link.parent / "kubectl").symlink_to("k3s")
    (link.parent / "crictl").write_text("somebody's own")
    assert root.remove("programs", SPARE).returncode == 0
    assert [p.name for p in link.parent.iterdir()] == ["crictl"]
    assert root.find("programs", SPARE) == ()


def test_the_password_stays_by_default(root: Root) -> None:
    password = root.file(f"{leftovers.PASSWORD}/password")
    root.file(k3s_config.CONFIG)
    assert root.find("password", SPARE) == ()
    root.remove("config", SPARE)
    assert password.exists()
    forget = Options("pi", forget_password=True)
    assert root.find("password", forget) == ("/etc/rancher/node",)
    assert root.remove("password", forget).returncode == 0
    assert not root("/etc/rancher").exists()


def test_what_cannot_be_removed_is_named(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    root.file(k3s_config.CONFIG)
    stuck = leftovers.Topic("x", TOPICS["config"].find, "true")
    monkeypatch.setitem(leftovers.TOPICS, "config", stuck)  # type: ignore[arg-type]
    result = root.remove("config", SPARE)
    assert result.returncode == 1
    assert result.stderr.startswith(f"still there: {root('/etc/rancher/k3s')}")


def test_a_system_directory_is_never_user_data(root: Root) -> None:
    script = find_script(Options("pi", user_data=("/", "/etc/x", "/var/lib"), wipe=("/usr/x",)))
    probe = script + '\necho "K=$K"; for p in / /usr/x /etc /home; do dir_of $p; done\n'
    result = subprocess.run([SHELL, "-s"], input=probe, text=True, capture_output=True)
    assert result.stdout.splitlines()[-1] == f"K=||||{DATA}/server/db/snapshots|"


def test_a_fact_that_ends_early_is_no_answer() -> None:
    with pytest.raises(ValueError, match="ended early"):
        parse(["units\tk3s.service"])


def test_the_summary_names_data_and_counts_the_rest() -> None:
    found = {"links": ("a", "b"), "units": ("k3s.service",), "data": (f"{DATA} (2 volumes)",)}
    assert summary(found) == f"{DATA} (2 volumes); 2 links, 1 units"
