"""When certbot issues, what it is told, what its failures mean, and how services get a result."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import rules, secret_table
from cluster.host_state import Clock, File, HostState, Unit
from cluster.managed import METRICS
from cluster.problem import Given
from cluster.services import certbot, certbot_pins
from cluster.services.certbot import Certificate, Copy, CopyFound, Found
from facts.certbot import parse
from operations import certbot as operations
from runtime import endpoint
from tests.unit.cluster_example import example
from tests.unit.node_ops import Runner

STAGING, PRODUCTION = certbot.DIRECTORIES["staging"], certbot.DIRECTORIES["production"]
WEB = Certificate(name="web", names=("web.example.com", "*.example.com"))
VALID = Found(frozenset(WEB.names), 2000.0, PRODUCTION)


def model(provider: str | None = "ionos", **section: Any) -> Any:
    """The example with certificates on its first node."""
    wanted = {"hosts": ["node1"], "certificates": [WEB]} | section
    acme: dict[str, Any] = {"email": "ada@example.com", "dns_provider": provider}
    if provider == "rfc2136":
        acme["rfc2136"] = {"server": "10.0.0.1:5353", "key_name": "acme"}
    return example(acme=acme, services={"certbot": wanted})


@pytest.mark.parametrize(
    ("found", "server", "reason"),
    [
        (None, PRODUCTION, "it is missing"),
        (VALID, PRODUCTION, None),
        (Found(frozenset({"web.example.com"}), 2000.0, PRODUCTION), PRODUCTION, "its names change"),
        (Found(VALID.names, 999.0, PRODUCTION), PRODUCTION, "it has expired"),
        (Found(VALID.names, 2000.0, STAGING), PRODUCTION, "it moves from"),
        (VALID, "https://ca.lan/dir", "it moves from"),
        (VALID, STAGING, None),
        (Found(), PRODUCTION, None),
    ],
)
def test_only_what_is_not_as_wanted_is_issued(
    found: Found | None, server: str, reason: str | None
) -> None:
    said = certbot.due(WEB, found, server, now=1000.0)
    assert (said is None) if reason is None else (said is not None and said.startswith(reason))


def test_names_in_another_order_are_the_same() -> None:
    other = Certificate(name="web", names=tuple(reversed(WEB.names)))
    assert certbot.due(other, VALID, PRODUCTION, 1000.0) is None


def test_a_certificate_that_cannot_be_read_is_neither_there_nor_missing() -> None:
    assert certbot.damage("web", VALID) is None
    assert "delete --cert-name web" in str(certbot.damage("web", Found(server=PRODUCTION)))


def test_a_move_to_another_server_is_forced_and_nothing_else_is() -> None:
    old = Found(VALID.names, 2000.0, STAGING)
    words = certbot.arguments(model(server="production"), WEB, old)
    assert "--force-renewal" in words and words[words.index("--server") + 1] == PRODUCTION
    for found in (None, VALID):
        words = certbot.arguments(model(server="production"), WEB, found)
        assert "--force-renewal" not in words
    assert words[-4:] == ("-d", "web.example.com", "-d", "*.example.com")


@pytest.mark.parametrize(
    ("provider", "lines"),
    [
        ("ionos", ["dns_ionos_prefix = A", "dns_ionos_secret = B",
                   "dns_ionos_endpoint = https://api.hosting.ionos.com"]),
        ("cloudflare", ["dns_cloudflare_api_token = A"]),
        ("route53", ["[default]", "aws_access_key_id = A", "aws_secret_access_key = B"]),
        ("rfc2136", ["dns_rfc2136_secret = A", "dns_rfc2136_server = 10.0.0.1",
                     "dns_rfc2136_port = 5353", "dns_rfc2136_name = acme",
                     "dns_rfc2136_algorithm = HMAC-SHA256"]),
    ],
)  # fmt: skip
def test_each_provider_has_its_plugin_and_the_secrets_of_cert_manager(
    provider: str, lines: list[str]
) -> None:
    wanted = model(provider)
    names = certbot.secret_names(wanted)
    text = certbot.credentials_text(wanted, dict(zip(names, "AB", strict=False)))
    assert text.splitlines() == lines
    known = {kind.name for kind in secret_table.wanted(wanted)}
    assert set(names) <= known
    assert certbot_pins.PINS[f"dns-{provider}"]
    option = f"dns-{provider}-credentials = {certbot.CREDENTIALS}"
    assert (option in certbot.settings_text(wanted)) == (provider != "route53")


def test_another_plugin_comes_by_data_with_its_own_secrets() -> None:
    plugin = {
        "name": "dns-hetzner",
        "packages": ["certbot-dns-hetzner==2.0.1"],
        "credentials": {"dns_hetzner_api_token": "acme.hetzner.token"},
    }
    wanted = model(None, plugin=plugin, settings={"dns_hetzner_zone": "x"})
    assert [kind.name for kind in secret_table.wanted(wanted)][-1] == "acme.hetzner.token"
    text = certbot.credentials_text(wanted, {"acme.hetzner.token": "t"})
    assert text == "dns_hetzner_api_token = t\ndns_hetzner_zone = x\n"
    assert "authenticator = dns-hetzner\n" in certbot.settings_text(wanted)
    program = certbot.program(wanted)
    assert program.further == ("certbot-dns-hetzner==2.0.1",)
    assert program.digest != certbot.program(model()).digest
    assert not list(rules.certbot_can_prove_names(wanted, Given()))


def test_every_release_is_pinned_with_checksums() -> None:
    for plugin in certbot_pins.PINS:
        for line in certbot_pins.requirements(plugin).splitlines():
            assert re.fullmatch(
                r"[a-z0-9.-]+==\S+( ; python_\w+ [<>=]+ '[\d.]+')?( --hash=sha256:[0-9a-f]{64})+",
                line,
            ), line
    assert "\ncertbot==" in certbot_pins.requirements("")
    assert "certbot-dns-ionos==" not in certbot_pins.requirements("dns-route53")


IONOS_401 = [
    "Saving debug log to /var/log/picluster-certbot/letsencrypt.log",
    "Requesting a certificate for web.example.com",
    "HTTP Error during request Unauthorized(401): The customer is not authorized.",
    "Ask for help or search for solutions at https://community.letsencrypt.org.",
]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (IONOS_401, "the DNS provider refuses its key (acme.ionos.public_prefix and "
         "acme.ionos.secret in the file of secrets): HTTP Error during request Unauthorized(401)"),
        (["Error creating new order :: too many certificates already issued"],
         "the ACME server's limit is reached: Error creating new order"),
        (["Detail: Incorrect TXT record found"], "the record was not seen in time"),
        (["Domain not known"], "the DNS account has no zone for the name: Domain not known"),
        (["requests.exceptions.ConnectionError: refused"], "a server cannot be reached"),
        (["An unexpected error: boom"], "An unexpected error: boom"),
        (
            ["An unexpected error occurred:", "HTTPSConnectionPool: Read timed out."],
            "a server cannot be reached: HTTPSConnectionPool: Read timed out.",
        ),
        ([], "it said nothing"),
    ],
)  # fmt: skip
def test_a_failure_is_said_with_its_cause(lines: list[str], said: str) -> None:
    assert certbot.cause(model(), lines).startswith(said)


def test_services_get_what_they_have_not_got() -> None:
    wanted = Certificate(
        name="web", names=WEB.names, copies=(Copy(bundle="/etc/web.pem", owner="web"),)
    )
    found = Found(VALID.names, 2000.0, PRODUCTION, {"bundle": "b", "privkey.pem": "k"})
    right = {"/etc/web.pem": CopyFound("web:root", "600", "b")}
    assert not certbot.undeployed(wanted, found, right, ())
    assert certbot.undeployed(wanted, found, right, ("web",))
    for wrong in ("web:web", "600", "b"), ("web:root", "644", "b"), ("web:root", "600", "old"):
        assert certbot.undeployed(wanted, found, {"/etc/web.pem": CopyFound(*wrong)}, ())
    assert certbot.undeployed(wanted, found, {}, ())


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A hook on this computer, with its folders below tmp_path; and the certificate's folder."""
    monkeypatch.setattr(certbot, "MARKS", str(tmp_path / "marks"))
    live = tmp_path / "live" / "web"
    live.mkdir(parents=True)
    (live / "fullchain.pem").write_text("chain\n")
    (live / "privkey.pem").write_text("key\n")
    user, group = (subprocess.check_output(["id", f"-{one}n"], text=True).strip() for one in "ug")
    copy = Copy(
        bundle=f"{tmp_path}/new/web.pem", key=f"{tmp_path}/web.key", owner=user, group=group
    )
    certificate = Certificate(name="web", names=WEB.names, copies=(copy,), reload=("web.service",))
    path = tmp_path / "hook"
    path.write_text(certbot.deploy_hook(certificate))
    return path, live


def run_hook(hook: Path, live: Path, systemctl: str) -> int:
    folder = hook.parent / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "systemctl").write_text(f"#!/bin/sh\n{systemctl}\n")
    (folder / "systemctl").chmod(0o755)
    env = os.environ | {"RENEWED_LINEAGE": str(live), "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(["sh", str(hook)], env=env).returncode


def test_a_hook_copies_and_reloads(hook: tuple[Path, Path]) -> None:
    path, live = hook
    said = path.parent / "said"
    assert run_hook(path, live, f'echo "$@" >> {said}') == 0
    bundle = path.parent / "new" / "web.pem"
    assert bundle.read_text() == "chain\nkey\n" and bundle.stat().st_mode & 0o777 == 0o600
    assert (path.parent / "web.key").read_text() == "key\n"
    assert said.read_text().splitlines()[-1] == "try-reload-or-restart web.service"
    assert not list((path.parent / "marks").iterdir())


def test_a_hook_whose_service_is_not_there_yet_comes_to_its_end(hook: tuple[Path, Path]) -> None:
    path, live = hook
    assert run_hook(path, live, "[ $1 = show ] && echo not-found") == 0
    assert not list((path.parent / "marks").iterdir())


def test_a_hook_that_fails_leaves_its_mark(hook: tuple[Path, Path]) -> None:
    path, live = hook
    assert run_hook(path, live, "exit 3") == 3
    assert [mark.name for mark in (path.parent / "marks").iterdir()] == ["web"]


def test_a_hook_leaves_other_certificates_alone(hook: tuple[Path, Path]) -> None:
    path, live = hook
    other = live.with_name("other")
    live.rename(other)
    assert run_hook(path, other, "exit 3") == 0
    assert not (path.parent / "marks").exists()


@pytest.mark.parametrize("name", [certbot.COMMAND, certbot.RENEW, certbot.REPORT])
def test_scripts_are_shell(name: str) -> None:
    for wanted in (model(), model("route53"), model(None, hooks={"publish": "true"})):
        text = certbot.scripts(wanted)[name]
        subprocess.run(["sh", "-n"], input=text, text=True, check=True)


def test_the_report_is_metrics_with_the_end_and_the_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = certbot.scripts(model())[certbot.REPORT]
    live = tmp_path / "live" / "web"
    live.mkdir(parents=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=x", "-days", "9",
         "-keyout", "/dev/null", "-out", live / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    text = text.replace(certbot.CONFIG, str(tmp_path)).replace(METRICS, str(tmp_path / "metrics"))
    for result, failed in (("success", 0), ("exit-code", 1)):
        env = os.environ | {"SERVICE_RESULT": result}
        subprocess.run(["sh"], input=text, text=True, check=True, env=env)
        shown = (tmp_path / "metrics" / "picluster_certificate_renewal.prom").read_text()
        assert f"picluster_certificate_renewal_failed {failed}\n" in shown
    ends = (tmp_path / "metrics" / "picluster_certificates.prom").read_text()
    assert re.search(r'^picluster_certificate_not_after_seconds\{certificate="web"\} \d{10}$', ends,
                     re.MULTILINE)  # fmt: skip


def test_a_damaged_certificate_hides_no_other_in_the_report(tmp_path: Path) -> None:
    for name in ("broken", "web"):
        (tmp_path / "live" / name).mkdir(parents=True)
    (tmp_path / "live/broken/cert.pem").write_text("no certificate")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=x", "-days", "9",
         "-keyout", "/dev/null", "-out", tmp_path / "live/web/cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    text = certbot.scripts(model())[certbot.REPORT]
    text = text.replace(certbot.CONFIG, str(tmp_path)).replace(METRICS, str(tmp_path))
    subprocess.run(["sh"], input=text, text=True, check=True, capture_output=True)
    shown = (tmp_path / "picluster_certificates.prom").read_text()
    assert '{certificate="web"}' in shown and "broken" not in shown


def test_a_mark_of_a_certificate_that_is_gone_fails_no_renewal(tmp_path: Path) -> None:
    text = certbot.scripts(model())[certbot.RENEW].replace(certbot.COMMAND, "true")
    for old, new in ((certbot.MARKS, "marks"), (certbot.HOOKS, "hooks")):
        text = text.replace(old, str(tmp_path / new))
        (tmp_path / new).mkdir()
    (tmp_path / "marks/gone").touch()
    assert subprocess.run(["sh"], input=text, text=True).returncode == 0
    (tmp_path / "marks/web").touch()
    (tmp_path / "hooks/web").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "hooks/web").chmod(0o755)
    assert subprocess.run(["sh"], input=text, text=True).returncode == 1


def test_certbot_runs_with_the_password_of_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    def run(command: object, **arguments: object) -> tuple[bool, None]:
        given.update(arguments)
        return True, None

    monkeypatch.setattr(endpoint, "as_root", lambda _: {"_sudo_password": "p", "_timeout": 1})
    host = SimpleNamespace(run_shell_command=run)
    assert operations._issue(None, host, "web", ("certonly",))  # type: ignore[arg-type]
    assert given["_sudo_password"] == "p" and given["_timeout"] == operations.ISSUE_LIMIT


LINES = [
    "program\tabc123",
    f"certificate\tweb\t{PRODUCTION}",
    "ends\tweb\t2026-11-26 10:10:00Z",
    "names\tweb\tDNS:web.example.com, DNS:*.example.com",
    "sum\tweb\tfullchain.pem\tf",
    "sum\tweb\tbundle\tb",
    "certificate\tbroken\thttps://x/dir",
    "copy\t/etc/web.pem\troot:root 600\tb",
    "mark\tweb",
    "hook\tweb",
    "result\tsuccess",
    "end",
]


def test_the_fact_is_read() -> None:
    found = parse(LINES)
    assert found.certificates["web"] == Found(
        frozenset(WEB.names), 1795687800.0, PRODUCTION, {"fullchain.pem": "f", "bundle": "b"}
    )
    assert found.certificates["broken"].ends is None
    assert found.copies == {"/etc/web.pem": CopyFound("root:root", "600", "b")}
    assert (found.program, found.marks, found.hooks, found.result) == (
        "abc123", ("web",), ("web",), "success",
    )  # fmt: skip
    with pytest.raises(Exception, match="ended early"):
        parse(LINES[:-1])


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setattr(operations, "state_of", lambda _: parse(LINES))
    return Runner(monkeypatch)


BARE = HostState(clock=Clock(1_795_636_765.0), uptime=1000.0)


def test_a_certificate_that_is_there_asks_for_nothing(runner: Runner) -> None:
    there = HostState(
        clock=BARE.clock, files={certbot.EXPIRY_METRIC: File("644")},
        units={certbot.TIMER: Unit("loaded", "active", "enabled")},
    )  # fmt: skip
    wanted = model(server="production")
    assert runner(operations.issue, wanted, there) == []
    assert runner(operations.timer, wanted, there) == []


def test_staging_does_not_take_a_trusted_certificate_away(runner: Runner) -> None:
    there = HostState(clock=BARE.clock, files={certbot.EXPIRY_METRIC: File("644")})
    assert runner(operations.issue, model(server="staging"), there) == []
    assert runner.host.said == [f"certificate web: kept, it is valid and of {PRODUCTION}"]


def test_what_is_missing_is_issued_and_reported(runner: Runner) -> None:
    more = [WEB, {"name": "more", "names": ["more.example.com"]}]
    issue, report = runner(operations.issue, model(server="production", certificates=more), BARE)
    assert "_issue('more', ('certonly', '--cert-name', 'more'" in issue
    assert report.text == certbot.REPORT


def test_hooks_of_certificates_that_are_gone_go(runner: Runner) -> None:
    other = [{"name": "more", "names": ["more.example.com"]}]
    commands = runner(operations.settings, model(certificates=other), BARE)
    assert f"rm -f {certbot.HOOKS}/web" in [command.text for command in commands]
    assert commands[-1].text == "systemctl daemon-reload"


def test_the_secrets_are_in_no_argument_and_in_no_plain_file() -> None:
    wanted = model()
    for text in (*certbot.plain_files(wanted).values(), *certbot.scripts(wanted).values()):
        assert "dns_ionos_secret" not in text
