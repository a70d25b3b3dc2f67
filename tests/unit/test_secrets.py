"""Secrets: made once, kept, read lazily, and answered for when they cannot be read."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyrage
import pytest
from pyinfra.api import QuoteString, StringCommand

from cluster import secret_table, secret_text
from cluster.k3s_token import FILES
from cluster.model import Cluster
from cluster.services import s3, tls
from commands import secrets as command
from runtime import age, secrets, sops
from runtime.secrets import MASK, Secret, SecretsUnavailable, Store
from tests.unit.cluster_example import example

FILE = Path("secrets/pi.sops.yaml")
INVENTORY = "inventories/pi.py"
S3 = {"snapshots": {"s3": {"endpoint": "s3.example.com", "bucket": "etcd"}}}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project and an empty home, without keys from elsewhere."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("SOPS_AGE_KEY_FILE", "SOPS_AGE_KEY", "SOPS_AGE_KEY_CMD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(secrets, "_run", {})
    yield tmp_path


def _keys(folder: Path) -> Path:
    return folder / "config/sops/age/keys.txt"


def _values(path: Path = FILE) -> dict[str, str]:
    return sops.flat(sops.load(path, sops.key_file(None)))


def _rewrite(plaintext: str, folder: Path) -> None:
    recipients = sops.readers(FILE.read_text())["age"]
    FILE.write_text(sops.encrypt(plaintext, FILE, _keys(folder), recipients))


# ---- making


def test_first_run_makes_key_rule_and_secrets(folder: Path) -> None:
    assert command.make(example()) == 0
    assert stat.S_IMODE(_keys(folder).stat().st_mode) == 0o600
    assert stat.S_IMODE(_keys(folder).parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(FILE.stat().st_mode) == 0o600
    values = _values()
    assert set(values) == {"k3s.server_token", "k3s.agent_token"}
    assert values["k3s.server_token"] != values["k3s.agent_token"]
    assert all(len(value) == 64 and int(value, 16) for value in values.values())
    assert not any(value in FILE.read_text() for value in values.values())
    assert secret_text.unencrypted(str(FILE), FILE.read_text()) == []


def test_rule_for_readers_lets_sops_itself_write_the_folder(folder: Path) -> None:
    command.make(example())
    other = Path("secrets/other.sops.yaml")
    other.write_text("a: b\n")
    run = subprocess.run([sops.program(), "encrypt", str(other)], capture_output=True, check=False)
    assert run.returncode == 0, run.stderr
    assert sops.readers(run.stdout.decode()) == sops.readers(FILE.read_text())


def test_a_service_of_ours_gets_accounts_and_a_ca_whose_certificate_lies_beside(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hosts = [
        {"name": "node1", "role": "servers", "ip": "10.0.0.11", "arch": "arm64"},
        {"name": "nas", "role": "external", "ip": "10.0.0.9", "arch": "arm64"},
    ]
    model = example(hosts=hosts, services={"s3": {}, "backup": {}})
    model = s3.derived(model, None)
    assert command.make(model) == 0
    values, file = _values(), Path("secrets/pi-ca.pem")
    assert file.read_text() == values["ca.certificate"]
    assert s3.derived(model, file.read_text()).backup.ca == values["ca.certificate"]
    ca = tls.Pair(values["ca.certificate"], values["ca.key"])
    assert tls.issue(ca, ["nas"], datetime.now(UTC)).certificate
    assert values["s3.restic.access_key"].startswith("restic-")
    file.unlink()
    before = FILE.read_bytes()
    assert command.make(model) == 0  # the lost certificate comes back, nothing else is made
    assert (file.read_text(), FILE.read_bytes()) == (values["ca.certificate"], before)


def test_second_run_touches_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    command.make(example())
    before = FILE.read_bytes(), Path(".sops.yaml").read_bytes()
    capsys.readouterr()
    assert command.make(example()) == 0
    assert (FILE.read_bytes(), Path(".sops.yaml").read_bytes()) == before
    assert capsys.readouterr().out == f"{FILE}: nothing to make\n"


def test_only_missing_secrets_are_made_and_comments_survive(folder: Path) -> None:
    command.make(example())
    mine = "# mine\nk3s:\n    # since 2024\n    server_token: keep-this-token-as-is\nextra: 'yes'\n"
    _rewrite(mine, folder)
    assert command.make(example()) == 0
    text = sops.decrypt(FILE, _keys(folder))
    assert text.startswith(
        "# mine\nk3s:\n    # since 2024\n    server_token: keep-this-token-as-is\n"
    )
    assert "extra: " in text
    assert len(_values()["k3s.agent_token"]) == 64


def test_new_tokens_take_the_place_of_both_and_of_nothing_else(folder: Path) -> None:
    command.make(example())
    _rewrite(sops.decrypt(FILE, _keys(folder)) + "extra: mine\n", folder)
    before = _values()
    assert command.make(example(), FILES.values()) == 0
    after = _values()
    assert {name for name in before if after[name] != before[name]} == set(FILES.values())
    assert after["k3s.server_token"] != after["k3s.agent_token"]
    assert "Servers join with it" in sops.decrypt(FILE, _keys(folder))


def test_what_only_the_user_knows_gets_an_empty_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_cluster", lambda path: example(k3s=S3))
    assert command.main(["inventories/pi.py"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{FILE}: etcd_s3.access_key: missing: expected a text without spaces",
        f"{FILE}: etcd_s3.secret_key: missing: expected a text without spaces",
        "edit them: python -m commands.secrets inventories/pi.py --edit",
    ]
    assert "Account of the bucket for etcd snapshots." in sops.decrypt(FILE, sops.key_file(None))
    before = FILE.read_bytes()
    assert command.make(example(k3s=S3)) == 1
    assert FILE.read_bytes() == before


def test_malformed_secret_is_named_and_kept(folder: Path) -> None:
    command.make(example())
    _rewrite("k3s: {server_token: short, agent_token: short}\n", folder)
    assert command.make(example()) == 1
    assert command.check(example()) == [
        f"{FILE}: k3s.server_token: malformed: "
        "expected 16 or more printable characters without '::'",
        f"{FILE}: k3s.agent_token: malformed: "
        "expected 16 or more printable characters without '::'",
        f"{FILE}: k3s.agent_token: equals k3s.server_token: expected a token of its own",
    ]
    assert _values()["k3s.server_token"] == "short"


def test_new_reader_in_the_rule_can_read_after_the_next_run(folder: Path) -> None:
    command.make(example())
    values = _values()
    friend = pyrage.x25519.Identity.generate()
    rule = Path(".sops.yaml").read_text()
    Path(".sops.yaml").write_text(f"{rule.rstrip()}\n      - {friend.to_public()}\n")
    command.make(example())
    theirs = folder / "friend.txt"
    theirs.write_text(f"{friend}\n")
    assert sops.flat(sops.load(FILE, theirs)) == values


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "creation_rules:\n\t- age: x\n",
            "line 2: not YAML: found character '\\t' that cannot start",
        ),
        ("- age\n", "no creation_rules: expected the settings of sops"),
        ("creation_rules: [age]\n", "creation_rules: age: expected a rule of sops"),
        ("creation_rules: [{path_regex: '['}]\n", "creation_rules: {'path_regex': '['}: expected"),
    ],
)
def test_rules_that_cannot_be_read_are_answered(text: str, said: str) -> None:
    Path(".sops.yaml").write_text(text)
    with pytest.raises(sops.SopsError) as refused:
        command.make(example())
    assert str(refused.value).startswith(f".sops.yaml: {said}")
    assert (Path(".sops.yaml").read_text(), FILE.exists()) == (text, False)


def test_readers_of_other_kinds_are_not_dropped(folder: Path) -> None:
    command.make(example())
    text = FILE.read_text().replace(
        "sops:\n",
        "sops:\n    pgp:\n        - {fp: ABCD, enc: x, created_at: '2026-01-01T00:00:00Z'}\n",
    )
    FILE.write_text(text)
    with pytest.raises(sops.SopsError, match="has readers by pgp besides age"):
        command.make(example(k3s=S3))
    assert FILE.read_text() == text


def test_new_key_beside_a_file_of_another_key_says_how_it_gets_in(folder: Path) -> None:
    command.make(example())
    before = FILE.read_bytes()
    _keys(folder).unlink()
    with pytest.raises(sops.SopsError) as refused:
        command.make(example())
    public = age.recipient(_keys(folder))[0]
    assert f"no age key was in {_keys(folder)}, and the new one does not open it" in str(
        refused.value
    )
    assert f"add {public} to .sops.yaml" in str(refused.value)
    assert FILE.read_bytes() == before


# ---- editing


def _editor(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "editor"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    monkeypatch.setenv("EDITOR", str(program))


def test_a_look_in_the_editor_changes_nothing_and_is_no_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.make(example())
    before = FILE.read_bytes()
    _editor(folder, monkeypatch, "true")
    assert command.edit(example()) == 0
    assert FILE.read_bytes() == before


def test_what_an_edit_broke_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command.make(example())
    _editor(folder, monkeypatch, "printf 'k3s: {server_token: long-enough-for-it}' > \"$1\"")
    assert command.edit(example()) == 1
    assert f"{FILE}: k3s.agent_token: missing: expected" in capsys.readouterr().err
    assert _values() == {"k3s.server_token": "long-enough-for-it"}


def test_editor_that_fails_is_a_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command.make(example())
    _editor(folder, monkeypatch, "exit 3")
    assert command.edit(example()) == 1


def test_file_that_is_missing_is_made_before_it_is_edited(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _editor(folder, monkeypatch, 'echo k3s: {} > "$1"')
    with pytest.raises(sops.SopsError, match=f"{FILE} does not exist"):
        command.edit(example())
    assert not FILE.exists()


def test_file_outside_the_folder_has_its_own_key(folder: Path) -> None:
    own = example(secrets_file="build/lab/secrets.sops.yaml", age_key_file="build/lab/age.txt")
    assert command.make(own) == 0
    assert not _keys(folder).exists()
    assert not Path(".sops.yaml").exists()
    assert command.check(own) == []


def test_key_file_of_the_environment_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", str(folder / "my.key"))
    assert command.make(example()) == 0
    assert (folder / "my.key").exists()
    assert not _keys(folder).exists()


def test_open_key_file_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.make(example())
    _keys(folder).chmod(0o644)
    capsys.readouterr()
    command.make(example())
    assert "has mode 0644: expected 0600" in capsys.readouterr().err


def test_no_secret_is_in_an_argument_or_another_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    run = subprocess.run

    def watched(arguments: list[str], **options: Any) -> Any:
        seen.extend([*arguments, *options.get("env", {}).values()])
        return run(arguments, **options)

    monkeypatch.setattr(subprocess, "run", watched)
    command.make(example())
    values = _values()
    assert seen
    assert not any(value in argument for value in values.values() for argument in seen)
    for path in folder.rglob("*"):
        if path.is_file():
            assert not any(value in path.read_text() for value in values.values()), path


# ---- reading


def _store() -> Store:
    return Store(str(FILE), None)


def test_store_decrypts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    command.make(example())
    values, calls = _values(), []
    load = sops.load
    monkeypatch.setattr(sops, "load", lambda *args: calls.append(args) or load(*args))
    secrets.use(example(), INVENTORY)
    asked = [secrets.secret(name) for name in values]
    assert calls == []
    assert [one.unmask() for one in asked] == list(values.values())
    assert len(calls) == 1


def test_derived_secret_is_a_part_of_k3s_configuration(folder: Path) -> None:
    command.make(example(k3s=S3))
    _rewrite("etcd_s3: {access_key: AK, secret_key: 'S:K'}\n", folder)
    secrets.use(example(k3s=S3), INVENTORY)
    config = json.loads(json.dumps(secrets.secret("etcd_s3.config").unmask()))
    assert config == "etcd-s3-access-key: AK\netcd-s3-secret-key: S:K\n"


def _message(store: Store, name: str = "k3s.server_token") -> str:
    with pytest.raises(SecretsUnavailable) as unavailable:
        store.get(name)
    return str(unavailable.value)


def test_missing_file_is_answered() -> None:
    assert _message(_store()) == f"{FILE} does not exist"


def test_what_cannot_be_opened_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, store = [], _store()
    monkeypatch.setattr(sops, "load", lambda *args: calls.append(args) or _no())
    assert _message(store) == _message(store) == "no"
    assert len(calls) == 1


def _no() -> None:
    raise sops.SopsError("no")


def test_missing_key_is_answered(folder: Path) -> None:
    command.make(example())
    _keys(folder).unlink()
    assert _message(_store()) == (
        f"no age key to open {FILE}: {_keys(folder)} does not exist "
        "(SOPS_AGE_KEY_FILE names another place)"
    )


def test_wrong_key_is_answered(folder: Path) -> None:
    command.make(example())
    reader = sops.readers(FILE.read_text())["age"][0]
    _keys(folder).write_text(f"{pyrage.x25519.Identity.generate()}\n")
    assert _message(_store()) == (
        f"the age key in {_keys(folder)} does not open {FILE}, which is for {reader}"
    )


def test_plaintext_file_is_answered() -> None:
    FILE.parent.mkdir()
    FILE.write_text("k3s: {server_token: visible}\n")
    assert _message(_store()) == (
        f"{FILE} is not encrypted: expected a file that sops wrote for an age key"
    )


def test_file_with_a_conflict_is_no_plaintext(folder: Path) -> None:
    command.make(example())
    FILE.write_text(f"<<<<<<< mine\n{FILE.read_text()}")
    assert _message(_store()) == (
        f"{FILE} is damaged: expected it as sops wrote it, such as from Git"
    )


def test_missing_secret_is_answered_with_what_adds_it(folder: Path) -> None:
    command.make(example())
    secrets.use(example(), INVENTORY)
    assert _message(_store(), "k3s.sever_token") == (
        f"{FILE} has no k3s.sever_token; did you mean k3s.server_token"
    )
    assert _message(_store(), "registry.password") == (
        f"{FILE} has no registry.password; `python -m commands.secrets {INVENTORY} --edit` lets "
        "you add it"
    )
    _rewrite("{}\n", folder)
    assert _message(_store()) == (
        f"{FILE} has no k3s.server_token; `make secrets INVENTORY={INVENTORY}` adds it"
    )


def test_missing_program_is_answered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command.make(example())
    monkeypatch.setattr(sops, "program", lambda: str(folder / "no-sops"))
    assert _message(_store()) == (
        "the sops program cannot be run (No such file or directory): run `make setup`"
    )


def test_changed_ciphertext_is_answered(folder: Path) -> None:
    command.make(example())
    text = FILE.read_text()
    start = text.index("server_token: ENC[AES256_GCM,data:") + len(
        "server_token: ENC[AES256_GCM,data:"
    )
    other = "A" if text[start] != "A" else "B"
    FILE.write_text(text[:start] + other + text[start + 1 :])
    assert _message(_store()).startswith(f"sops cannot open {FILE}: ")


def _use(cluster: Cluster) -> None:
    secrets.use(cluster, INVENTORY)
    secrets.need()


def test_run_that_needs_secrets_is_refused_before_it_begins(folder: Path) -> None:
    command.make(example())
    _rewrite("k3s: {server_token: 0123456789abcdef}\n", folder)
    _use(example())
    with pytest.raises(SecretsUnavailable) as unavailable:
        secrets.require()
    assert str(unavailable.value) == (
        f"{FILE}: k3s.agent_token: missing: expected 16 or more printable characters without '::'"
    )


def test_run_without_need_of_secrets_needs_no_key() -> None:
    secrets.use(example(), INVENTORY)
    secrets.require()


# ---- the class


def test_secret_shows_nothing() -> None:
    one = Secret("token", lambda: "planted")
    shown = [str(one), repr(one), f"{one}", one.to_json(), repr({"a": one}), repr(vars(one))]
    shown.append(StringCommand("echo", QuoteString(one)).get_masked_value())
    assert not any("planted" in text for text in shown)
    assert str(one) == MASK
    assert StringCommand("echo", one).get_raw_value() == "echo planted"
    assert one.unmask() == one.raw_value == "planted"


def test_secret_as_standard_input_is_read_when_the_command_runs() -> None:
    def unreadable() -> str:
        raise AssertionError("read too early")

    StringCommand("cat", _stdin=Secret("token", unreadable))  # type: ignore[arg-type]


# ---- before a commit


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.sops.yaml", "k3s: {token: x}\n", ["a.sops.yaml: not encrypted by sops"]),
        ("a.sops.yaml", "", ["a.sops.yaml: not encrypted by sops"]),
        (
            "a.sops.yaml",
            "a: [1\n",
            ["a.sops.yaml: cannot be read, so nobody knows whether it is encrypted"],
        ),
        ("a.sops.json", '{"sops": {}, "a": "b"}', ["a.sops.json: not encrypted by sops"]),
        (
            "a.sops.yaml",
            "a: {b: ['ENC[x]', plain]}\nc_unencrypted: open\nsops: {mac: x}\n",
            ["a.sops.yaml: a.b.0 is plaintext", "a.sops.yaml: a.b.1 is plaintext"],
        ),
        (
            "a.sops.yaml",
            "kind: Secret\ndata: {p: open}\nsops: {mac: x, encrypted_regex: ^data$}\n",
            ["a.sops.yaml: data.p is plaintext"],
        ),
        ("a.sops.env", "TOKEN=x\n", ["a.sops.env: not encrypted by sops"]),
    ],
)
def test_plaintext_is_found(name: str, text: str, found: list[str]) -> None:
    assert secret_text.unencrypted(name, text) == found


def test_commit_of_plaintext_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    command.make(example())
    subprocess.run(["git", "init", "-q", "."], check=True)
    subprocess.run(["git", "add", "."], check=True)
    assert command.main(["--check-files"]) == 0
    Path("secrets/new.sops.yaml").write_text("password: planted\n")
    Path("key.txt").write_text(f"{pyrage.x25519.Identity.generate()}\n")
    subprocess.run(["git", "add", "."], check=True)
    Path("secrets/new.sops.yaml").unlink()  # what counts is what would be committed
    capsys.readouterr()
    assert command.main(["--check-files"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "key.txt: holds a private age key",
        "secrets/new.sops.yaml: not encrypted by sops",
    ]


def test_fill_refuses_what_it_would_destroy() -> None:
    with pytest.raises(ValueError, match="k3s holds a value, expected names below it"):
        secret_text.fill("k3s: x\n", secret_table.TABLE)
    with pytest.raises(ValueError, match="not a mapping"):
        secret_text.fill("- x\n", secret_table.TABLE)
