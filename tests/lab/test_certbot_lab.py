"""deploys/services/certbot.py against a real ACME server; tests build on each other.

Real: certbot, its IONOS plugin, Pebble with its DNS, systemd, the packages' checksums. Simulated:
IONOS' API (tests/lab/acme.py), and the time that passes until a certificate is to be renewed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.managed import METRICS
from cluster.services import certbot as rules
from runtime import age, sops
from tests.lab.acme import INDEX, Acme, acme, wheels
from tests.lab.lab import Lab
from tests.lab.runs import ROOT, Run, command, environment, plan, run

pytestmark = pytest.mark.lab(servers=1, agents=0, externals=1, k3s=False)

DEPLOY = "deploys/services/certbot.py"
HOST = "external"
ZONE = "lab.example.com"
PREFIX, SECRET = "simulated-prefix", "simulated-secret"
BUNDLE = "/etc/lab-web/web.pem"
UNIT = """[Service]
ExecStart=/bin/sleep infinity
ExecReload=/bin/sh -c 'echo reload >> /run/web.reloads'
"""
ISSUE = "Certificates | Issue what is missing"
HAND_ON = "Certificates | Hand on to services"
WEB = {
    "name": "web",
    "names": [f"web.{ZONE}", f"*.apps.{ZONE}", f"apps.{ZONE}"],
    "copies": [{"bundle": BUNDLE}, {"certificate": "/etc/lab-web/public.crt", "owner": "daemon"}],
    "reload": ["web.service"],
}


@pytest.fixture(scope="module")
def server(lab: Lab) -> Iterator[Acme]:
    python = lab.check(HOST, "python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'")
    packages = wheels(python.strip(), "dns-ionos")
    folder = lab.names.state / "acme"
    with acme(lab.names.gateway, folder, ZONE, f"{PREFIX}.{SECRET}", packages) as found:
        yield found


def secrets_file(lab: Lab, secret: str) -> str:
    """The lab's secrets with an account at the simulated provider."""
    state = lab.names.state
    key, known = state / "age.txt", state / "secrets.sops.yaml"
    values = yaml.safe_load(sops.decrypt(known, key))
    values["acme"] = {"ionos": {"public_prefix": PREFIX, "secret": secret}}
    path = state / f"acme-{len(secret)}.sops.yaml"  # a name that does not tell it
    readers = sops.readers(known.read_text())["age"]
    age.replace(path, sops.encrypt(yaml.safe_dump(values), path, key, readers), 0o600)
    return str(path)


def data(lab: Lab, server: Acme, *, secret: str = SECRET, **section: Any) -> dict[str, Any]:
    certbot = {
        "certificates": [WEB],
        "directory": server.directory,
        "ca": server.ca,
        "settings": {"dns_ionos_endpoint": server.provider},
        "propagation_seconds": 0,
        "index": f"http://{server.address}:{INDEX}/",
    }
    return {
        "services": {"certbot": certbot | section},
        "secrets_file": secrets_file(lab, secret),
    }


def serial(lab: Lab, path: str = f"{rules.CONFIG}/live/web/cert.pem") -> str:
    return lab.check(HOST, f"openssl x509 -noout -serial -in {path}").strip()


def reloads(lab: Lab) -> int:
    return int(lab.check(HOST, "cat /run/web.reloads 2>/dev/null | wc -l"))


def metric(lab: Lab, name: str) -> float:
    text = lab.check(HOST, f"cat {METRICS}/*.prom")
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def come_due(lab: Lab) -> None:
    """Simulated: the time until a month before the end passes."""
    conf = f"{rules.CONFIG}/renewal/web.conf"
    lab.check(HOST, f"sed -i '1i renew_before_expiry = 9000 days' {conf}")


def renew(lab: Lab) -> int:
    """What the timer does; the unit's exit code."""
    return lab.run(HOST, f"systemctl start {rules.SERVICE}")[0]


@pytest.fixture(scope="module")
def done(lab: Lab, server: Acme) -> Iterator[tuple[Lab, Acme, Run]]:
    """The lab, the server, and the run that issued the first certificate on a bare host."""
    lab.clear_faults()
    lab.recreate(HOST)
    lab.put(HOST, "/etc/systemd/system/web.service", UNIT)
    lab.check(HOST, "systemctl daemon-reload && systemctl start web.service")
    shown = plan(lab, DEPLOY, data=data(lab, server))
    assert shown.code == 0 and shown.changed[ISSUE] == [HOST], shown.text
    yield lab, server, run(lab, DEPLOY, data=data(lab, server))


Done = tuple[Lab, Acme, Run]


def test_a_bare_host_gets_its_certificate(done: Done) -> None:
    lab, _, first = done
    assert first.code == 0, first.text
    assert all(hosts == [HOST] for hosts in first.changed.values())
    names = lab.check(HOST, f"openssl x509 -noout -ext subjectAltName -issuer -in {BUNDLE}")
    assert all(f"DNS:{name}" in names for name in WEB["names"]) and "Pebble" in names
    assert serial(lab, BUNDLE) == serial(lab)
    assert lab.check(HOST, f"stat -c '%a %U:%G' {BUNDLE}").strip() == "600 root:root"
    copy = lab.check(HOST, "stat -c '%a %U:%G' /etc/lab-web/public.crt").strip()
    assert copy == "644 daemon:root"
    assert "PRIVATE KEY" in lab.read(HOST, BUNDLE)
    assert reloads(lab) == 1
    assert metric(lab, "picluster_certificate_not_after_seconds") > 1.7e9


def test_secrets_are_roots_alone_and_the_timer_runs(done: Done) -> None:
    lab, _, first = done
    assert lab.check(HOST, f"stat -c '%a %U' {rules.CREDENTIALS}").strip() == "600 root"
    assert f"dns_ionos_secret = {SECRET}" in lab.read(HOST, rules.CREDENTIALS)
    assert SECRET not in first.text
    assert lab.check(HOST, f"systemctl is-enabled {rules.TIMER}").strip() == "enabled"
    timers = lab.check(HOST, "systemctl list-timers --all --no-legend")
    assert timers.count("certbot") == 2  # one line: the timer and what it starts


def test_a_second_run_changes_nothing(done: Done) -> None:
    lab, server, _ = done
    before = serial(lab)
    again = run(lab, DEPLOY, data=data(lab, server))
    assert (again.code, again.changed) == (0, {}), again.text
    assert plan(lab, DEPLOY, data=data(lab, server)).changed == {}
    assert serial(lab) == before and reloads(lab) == 1


def test_what_is_valid_is_not_renewed_by_the_timer(done: Done) -> None:
    lab, _, _ = done
    before = serial(lab)
    assert renew(lab) == 0
    assert serial(lab) == before
    assert metric(lab, "picluster_certificate_renewal_failed") == 0


def test_a_renewal_reaches_the_service(done: Done) -> None:
    lab, server, _ = done
    before = serial(lab)
    come_due(lab)
    assert renew(lab) == 0
    assert serial(lab) != before and serial(lab, BUNDLE) == serial(lab)
    assert reloads(lab) == 2
    lab.check(HOST, f"sed -i /renew_before_expiry/d {rules.CONFIG}/renewal/web.conf")
    assert run(lab, DEPLOY, data=data(lab, server)).changed == {}


def test_a_refused_key_is_named_and_leaves_what_is_there(done: Done) -> None:
    lab, server, _ = done
    before = serial(lab)
    other = WEB | {"names": [*WEB["names"], f"more.{ZONE}"]}
    failed = run(lab, DEPLOY, data=data(lab, server, secret="wrong", certificates=[other]))
    assert failed.code == 1
    assert (
        "certificate web: the DNS provider refuses its key (acme.ionos.public_prefix and "
        "acme.ionos.secret in the file of secrets)" in failed.text
    ), failed.text
    assert serial(lab) == before and serial(lab, BUNDLE) == before
    come_due(lab)
    assert renew(lab) != 0
    assert metric(lab, "picluster_certificate_renewal_failed") == 1
    assert serial(lab) == before and reloads(lab) == 2
    shown = run(lab, DEPLOY, data=data(lab, server))
    assert "the last renewal of certificates failed" in shown.text
    assert list(shown.changed) == ["Certificates | Account at the DNS provider"], shown.text
    assert renew(lab) == 0 and reloads(lab) == 3
    lab.check(HOST, f"sed -i /renew_before_expiry/d {rules.CONFIG}/renewal/web.conf")


def test_a_server_that_does_not_answer_is_a_failure_that_is_seen(done: Done) -> None:
    lab, server, _ = done
    before = serial(lab)
    server.stop()
    come_due(lab)
    assert renew(lab) != 0
    assert metric(lab, "picluster_certificate_renewal_failed") == 1
    assert serial(lab) == before
    more = [WEB, {"name": "more", "names": [f"more.{ZONE}"]}]
    failed = run(lab, DEPLOY, data=data(lab, server, certificates=more))
    assert failed.code == 1 and "a server cannot be reached" in failed.text
    server.start()
    lab.check(HOST, f"sed -i /renew_before_expiry/d {rules.CONFIG}/renewal/web.conf")
    lab.check(HOST, f"rm -rf {rules.CONFIG}/accounts")  # Pebble forgets with its end
    after = run(lab, DEPLOY, data=data(lab, server))
    assert list(after.changed) == ["Certificates | Settings of certbot"], after.text  # more's hook


def test_other_names_are_issued_once(done: Done) -> None:
    lab, server, _ = done
    other = WEB | {"names": [f"web.{ZONE}", f"www.{ZONE}"]}
    changed = run(lab, DEPLOY, data=data(lab, server, certificates=[other]))
    assert changed.code == 0 and list(changed.changed) == [ISSUE], changed.text
    names = lab.check(HOST, f"openssl x509 -noout -ext subjectAltName -in {BUNDLE}")
    assert f"DNS:www.{ZONE}" in names and "apps" not in names
    assert run(lab, DEPLOY, data=data(lab, server, certificates=[other])).changed == {}
    assert lab.run(HOST, f"ls {rules.CONFIG}/live | grep -c web-")[1].strip() == "0"


def test_a_copy_that_was_lost_is_made_again(done: Done) -> None:
    lab, server, _ = done
    wanted = data(lab, server, certificates=[WEB | {"names": [f"web.{ZONE}", f"www.{ZONE}"]}])
    lab.check(HOST, f"rm {BUNDLE}; mkdir -p {rules.MARKS}")
    before, counted = serial(lab), reloads(lab)
    again = run(lab, DEPLOY, data=wanted)
    assert (again.code, list(again.changed)) == (0, [HAND_ON]), again.text
    assert serial(lab, BUNDLE) == before and reloads(lab) == counted + 1
    lab.check(HOST, f"touch {rules.MARKS}/web")  # a hook that was broken off
    assert renew(lab) == 0 and reloads(lab) == counted + 2
    assert run(lab, DEPLOY, data=wanted).changed == {}


def test_a_certificate_that_cannot_be_read_is_refused(done: Done) -> None:
    lab, server, _ = done
    live = f"{rules.CONFIG}/live/web/cert.pem"
    lab.check(HOST, f"mv {live} {live}.away")
    refused = run(lab, DEPLOY, data=data(lab, server))
    assert refused.code == 1
    assert "external: the certificate web cannot be read" in refused.text
    lab.check(HOST, f"mv {live}.away {live}")


def test_commands_of_your_own_prove_a_name(done: Done) -> None:
    lab, server, _ = done
    by_hand: dict[str, Any] = {
        "certificates": [{"name": "plain", "names": [f"plain.{ZONE}"], "hosts": ["node1"]}],
        "hooks": server.hooks,
        "settings": {},
    }
    wanted = data(lab, server, **by_hand)
    wanted["acme"] = {"email": "ada@example.com"}
    issued = run(lab, DEPLOY, data=wanted)
    assert issued.code == 0 and issued.changed[ISSUE] == ["node1"], issued.text
    assert run(lab, DEPLOY, data=wanted).changed == {}


def test_a_package_that_was_tampered_with_is_not_installed(done: Done, tmp_path: Path) -> None:
    lab, server, _ = done
    lab.check(HOST, f"rm -f {rules.PROGRAM}")
    lab.check(HOST, f"rm -rf {rules.PROGRAM}-*")
    packages = wheels_folder(lab)
    wheel = next(packages.glob("parsedatetime/*.whl"))
    kept = wheel.read_bytes()
    wheel.write_bytes(kept + b"more")
    try:
        failed = run(lab, DEPLOY, data=data(lab, server))
    finally:
        wheel.write_bytes(kept)
    assert failed.code == 1 and "DO NOT MATCH THE HASHES" in failed.text
    assert lab.run(HOST, f"test -e {rules.PROGRAM}")[0] != 0


def wheels_folder(lab: Lab) -> Path:
    python = lab.check(HOST, "python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'")
    return wheels(python.strip(), "dns-ionos")


def test_a_loud_run_shows_no_secret(done: Done) -> None:
    lab, server, _ = done
    lab.check(HOST, f"rm {rules.CREDENTIALS}")
    words = command(DEPLOY, "-y", "-vvv", "--diff", data=data(lab, server))
    loud = subprocess.run(
        words, cwd=ROOT, env=environment(lab), capture_output=True, text=True, timeout=300,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    said = loud.stdout + loud.stderr
    assert loud.returncode == 0 and "Account at the DNS provider" in said, said
    assert SECRET not in said and "PRIVATE KEY" not in said
    assert SECRET in lab.read(HOST, rules.CREDENTIALS)
