"""The operator's kubeconfig as a file: mode, links, lists of files, refusals, second run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.answer import Absent, Answer, Present
from operations import kubeconfig
from runtime.credential import Credential
from tests.unit.certificates import make
from tests.unit.cluster_example import example

CA, CLIENT_CA = make("server-ca"), make("client-ca")


def credential(name: str = "system:admin") -> Credential:
    client = make(name, CLIENT_CA)
    return Credential("https://127.0.0.1:6443", CA.pem.decode(), client.pem, client.key_pem)


class Host:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def log(self, text: str) -> None:
        self.said.append(text)

    def log_styled(self, text: str, **_: Any) -> None:
        self.said.append(text)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Answer[Credential]]:
    """What the cluster says, to be replaced; HOME is a scratch folder."""
    answers: list[Answer[Credential]] = [Present(credential())]
    api = SimpleNamespace(credential=lambda: answers[0])
    monkeypatch.setattr(kubeconfig, "cluster", example)
    monkeypatch.setattr(kubeconfig, "api", lambda: api)
    monkeypatch.setattr(kubeconfig, "api_of", lambda _state: api)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return answers


def write(path: str | None = None) -> tuple[bool, list[str]]:
    host = Host()
    return kubeconfig.write(None, host, path), host.said  # type: ignore[arg-type]


def test_the_file_is_made_for_its_owner_only(
    answer: list[Answer[Credential]], tmp_path: Path
) -> None:
    done, said = write()
    file = tmp_path / ".kube" / "config"
    assert done and said == [f"kubectl --context pi ({file})"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in file.parent.iterdir()] == ["config"]


def test_a_file_that_others_could_read_is_closed(
    answer: list[Answer[Credential]], tmp_path: Path
) -> None:
    file = tmp_path / "config"
    write(str(file))
    file.chmod(0o644)
    text = file.read_text()
    wanted = kubeconfig._wanted(kubeconfig.api(), example())
    assert isinstance(wanted, Present)
    assert not kubeconfig._is_there(file, wanted.value, example())
    write(str(file))
    assert file.stat().st_mode & 0o777 == 0o600 and file.read_text() == text
    assert kubeconfig._is_there(file, wanted.value, example())


def test_a_link_stays_a_link(answer: list[Answer[Credential]], tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("")
    link.symlink_to(real)
    assert write(str(link))[0]
    assert link.is_symlink() and "name: pi" in real.read_text()


def test_the_environment_names_the_file(
    answer: list[Answer[Credential]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b").write_text("")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/a:{tmp_path}/b")
    assert write()[0]
    assert not (tmp_path / "a").exists() and "name: pi" in (tmp_path / "b").read_text()


def test_a_broken_file_is_refused_before_and_left_as_it_is(
    answer: list[Answer[Credential]], tmp_path: Path
) -> None:
    file = tmp_path / "config"
    file.write_text("clusters: [oops")
    assert kubeconfig.problem(str(file)).startswith(f"kubeconfig {file}: it is not YAML")
    done, said = write(str(file))
    assert not done and "not YAML" in said[0]
    assert file.read_text() == "clusters: [oops"


def test_another_clusters_entry_is_refused_by_its_authority(
    answer: list[Answer[Credential]], tmp_path: Path
) -> None:
    file = tmp_path / "config"
    write(str(file))
    text = file.read_text().replace("10.0.0.11", "192.168.7.7")
    file.write_text(text)
    assert kubeconfig.problem(str(file)) == ""  # the same authority: our cluster moved
    client = make("system:admin", make("client-ca"))
    answer[0] = Present(
        Credential("https://x:6443", make("ca").pem.decode(), client.pem, client.key_pem)
    )
    assert "another cluster (https://192.168.7.7:6443)" in kubeconfig.problem(str(file))


def test_without_a_cluster_nothing_is_written(
    answer: list[Answer[Credential]], tmp_path: Path
) -> None:
    answer[0] = Absent("node1 has no k3s.yaml")
    done, said = write(str(tmp_path / "config"))
    assert not done
    assert said == ["the kubeconfig is not written: absent: node1 has no k3s.yaml"]
    assert not (tmp_path / "config").exists()
    assert kubeconfig.problem(str(tmp_path / "config")) == ""


def test_a_folder_in_the_way_is_one_line(answer: list[Answer[Credential]], tmp_path: Path) -> None:
    assert "cannot be read" in kubeconfig.problem(str(tmp_path))
