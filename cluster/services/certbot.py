"""Certificates of hosts outside the cluster: certbot, its plugin for the DNS provider, its timer.

Everything is in folders of its own, so that a certbot that somebody else has set up on the host
(with its own timer) neither renews these certificates nor is touched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from shlex import quote
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import Field

from cluster import kinds
from cluster.frozen import Model
from cluster.managed import MANAGED, METRICS, UNITS
from cluster.question import Question
from cluster.services import certbot_pins
from cluster.services.placement import placed

if TYPE_CHECKING:
    from cluster.model import Cluster, Host

PROGRAM = "/opt/picluster/certbot"  # link to the virtual environment in force
CONFIG = "/etc/picluster/certbot"
WORK = "/var/lib/picluster/certbot"
LOGS = "/var/log/picluster-certbot"
SETTINGS = f"{CONFIG}/cli.ini"
CREDENTIALS = f"{CONFIG}/credentials.ini"
CA = f"{CONFIG}/acme-ca.pem"
HOOKS = f"{CONFIG}/renewal-hooks/deploy"
MARKS = f"{WORK}/undeployed"  # a file for each certificate whose hook has not come to its end
COMMAND = "/usr/local/sbin/picluster-certbot"
RENEW = "/usr/local/sbin/picluster-certbot-renew"
REPORT = "/usr/local/sbin/picluster-certbot-report"
SERVICE = "picluster-certbot.service"
TIMER = "picluster-certbot.timer"
EXPIRY_METRIC = f"{METRICS}/picluster_certificates.prom"
RENEWAL_METRIC = f"{METRICS}/picluster_certificate_renewal.prom"
PACKAGES = ("ca-certificates", "openssl", "python3-venv")

# Source: Let's Encrypt's documentation of its two environments.
DIRECTORIES = {
    "staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
    "production": "https://acme-v02.api.letsencrypt.org/directory",
}
# Source: Let's Encrypt's limits: certificates for one set of names within a week.
SAME_NAMES_A_WEEK = 5
EXTERNAL = "external"  # the role
SOON = 14 * 86400  # seconds; certbot renews a month before the end


class Copy(Model):
    """Files that a service reads its certificate from, each written when it is renewed."""

    certificate: kinds.Folder | None = None  # with its chain
    key: kinds.Folder | None = None
    bundle: kinds.Folder | None = None  # both in one file, as HAProxy reads them
    owner: kinds.UserName = "root"
    group: kinds.UserName = "root"


class Certificate(Model):
    """A certificate, and what is done when there is a new one."""

    name: kinds.HostName  # of its folder
    names: tuple[kinds.CertificateName, ...] = Field(min_length=1)
    hosts: tuple[kinds.HostName, ...] = ()  # empty: where certbot runs
    copies: tuple[Copy, ...] = ()
    reload: tuple[kinds.Service, ...] = ()  # units that are reloaded, or restarted


class Plugin(Model):
    """A plugin of certbot for a DNS provider, by certbot's own names."""

    name: kinds.HostName  # e.g. dns-hetzner
    packages: tuple[kinds.Release, ...] = ()  # of PyPI
    credentials: dict[str, str] = Field(default_factory=dict)  # key of its file: secret
    settings: dict[str, str] = Field(default_factory=dict)  # further keys of its file
    section: str = ""  # heading of its file
    variable: str = ""  # of the environment, by which it finds its file; empty: an option
    waits: bool = True  # whether it has the option for propagation


class Hooks(Model):
    """Shell commands in place of a plugin; certbot's CERTBOT_DOMAIN and CERTBOT_VALIDATION."""

    publish: str = Field(min_length=1)
    clean: str = "true"


class Certbot(Model):
    """Certificates by certbot on hosts outside the cluster."""

    certificates: tuple[Certificate, ...] = Field(min_length=1)
    hosts: tuple[kinds.HostName, ...] = ()  # empty: every host of the role external
    server: Literal["staging", "production"] | None = None  # None: acme.server
    directory: kinds.Url | None = None  # of an ACME server of your own, in place of Let's Encrypt
    ca: kinds.Pem | None = None  # of the CA that signed that server's certificate
    plugin: Plugin | None = None  # None: of acme.dns_provider
    hooks: Hooks | None = None
    settings: dict[str, str] = Field(default_factory=dict)  # of the plugin's file, merged last
    propagation_seconds: kinds.Whole = Field(300, ge=0, le=3600)  # until it is seen everywhere
    key: Literal["ecdsa", "rsa"] = "ecdsa"
    index: kinds.Url | None = None  # of Python packages, in place of PyPI


def _own(name: str, /, *secrets: tuple[str, str], **settings: str) -> Plugin:
    """A plugin whose releases are pinned with their checksums."""
    prefix = name.replace("-", "_")
    return Plugin(
        name=name,
        credentials={f"{prefix}_{key}": secret for key, secret in secrets},
        settings={f"{prefix}_{key}": value for key, value in settings.items()},
    )


def _plugin_of_provider(cluster: Cluster) -> Plugin:
    """certbot's plugin for acme.dns_provider, with the secrets that cert-manager has too."""
    acme = cluster.acme
    match acme.dns_provider:
        case "ionos":
            return _own(
                "dns-ionos",
                ("prefix", "acme.ionos.public_prefix"),
                ("secret", "acme.ionos.secret"),
                endpoint="https://api.hosting.ionos.com",
            )
        case "cloudflare":
            return _own("dns-cloudflare", ("api_token", "acme.cloudflare.token"))
        case "route53":
            return Plugin(
                name="dns-route53",
                credentials={
                    "aws_access_key_id": "acme.route53.access_key",
                    "aws_secret_access_key": "acme.route53.secret_key",
                },
                section="default",
                variable="AWS_SHARED_CREDENTIALS_FILE",
                waits=False,
            )
        case "rfc2136":
            wanted = acme.rfc2136
            assert wanted is not None, "a rule demands it of the inputs"
            server, _, port = wanted.server.partition(":")
            return _own(
                "dns-rfc2136",
                ("secret", "acme.rfc2136.secret"),
                server=server,
                port=port or "53",
                name=wanted.key_name,
                algorithm=f"HMAC-{wanted.algorithm.removeprefix('HMAC')}",
            )
    raise ValueError("a rule demands a plugin, hooks or acme.dns_provider")


def section(cluster: Cluster) -> Certbot:
    """The section of a cluster that has one."""
    found = cluster.services.certbot
    assert found is not None, "asked only where the service is wanted"
    return found


def plugin(cluster: Cluster) -> Plugin | None:
    """The plugin that proves names; None where hooks do."""
    wanted = section(cluster)
    if wanted.hooks:
        return None
    return wanted.plugin or _plugin_of_provider(cluster)


def hosts(cluster: Cluster) -> tuple[Host, ...]:
    """The hosts that have certbot."""
    wanted = cluster.services.certbot
    if wanted is None:
        return ()
    named = {name for one in wanted.certificates for name in one.hosts}
    own = placed(cluster, wanted.hosts, EXTERNAL)
    return tuple(host for host in cluster.hosts if host in own or host.name in named)


def certificates(cluster: Cluster, me: Host) -> tuple[Certificate, ...]:
    """The certificates of a host."""
    wanted = section(cluster)
    own = me in placed(cluster, wanted.hosts, EXTERNAL)
    return tuple(one for one in wanted.certificates if (me.name in one.hosts if one.hosts else own))


def directory(cluster: Cluster) -> str:
    """URL of the ACME server."""
    wanted = section(cluster)
    return wanted.directory or DIRECTORIES[wanted.server or cluster.acme.server]


def secret_names(cluster: Cluster) -> tuple[str, ...]:
    """Names of the secrets in the plugin's file."""
    if cluster.services.certbot is None:
        return ()
    try:
        used = plugin(cluster)
    except ValueError:  # said by a rule
        return ()
    return tuple(used.credentials.values()) if used else ()


def asks(cluster: Cluster) -> Question:
    """What the node fact reads for it."""
    if cluster.services.certbot is None:
        return Question()
    texts = (*scripts(cluster), *plain_files(cluster), *hook_files(cluster))
    hooks = (f"{HOOKS}/{one.name}" for one in section(cluster).certificates)
    return Question(
        packages=PACKAGES,
        files=(*texts, *hooks, CA, EXPIRY_METRIC),
        units=(TIMER, SERVICE),
    )


# ---- the program


@dataclass(frozen=True)
class Program:
    """What is installed: a text for pip with checksums, further releases, the folder's name."""

    requirements: str
    further: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Tells one set of packages from another."""
        text = "\n".join((self.requirements, *self.further))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def program(cluster: Cluster) -> Program:
    """The packages that a host gets."""
    used = plugin(cluster)
    name = used.name if used else ""
    return Program(certbot_pins.requirements(name), used.packages if used else ())


INSTALL = f"""\
set -eu
umask 022
target={PROGRAM}-$1 index=$2; shift 2
python=$(readlink -f "$(command -v python3)")
if ! [ -f "$target/complete" ] || ! [ -d "$target/lib/${{python##*/}}" ]; then
  rm -rf "$target"
  mkdir -p "${{target%/*}}"
  python3 -m venv "$target"
  cat > "$target/requirements.txt"
  sed 's/ *--hash=[^ ]*//g' "$target/requirements.txt" > "$target/constraints.txt"
  set -- "$@" --no-input --disable-pip-version-check --no-cache-dir --quiet
  [ -z "$index" ] || set -- "$@" --index-url "$index"
  case $index in
    http://*) site=${{index#http://}}; set -- "$@" --trusted-host "${{site%%/*}}" ;;
  esac
  further=; options=
  for word; do case $word in *==*) further="$further $word" ;; *) options="$options $word" ;; esac
  done
  "$target/bin/pip" install $options --only-binary=:all: --require-hashes \\
    -r "$target/requirements.txt"
  [ -z "$further" ] ||
    "$target/bin/pip" install $options -c "$target/constraints.txt" $further
  "$target/bin/certbot" --version > /dev/null
  : > "$target/complete"
fi
ln -sfn "$target" {PROGRAM}.new
mv -Tf {PROGRAM}.new {PROGRAM}
for old in {PROGRAM}-*; do [ "$old" = "$target" ] || rm -rf "$old"; done
"""


# ---- files


def settings_text(cluster: Cluster) -> str:
    """certbot's own settings; the server stays what each certificate was issued by."""
    wanted, used = section(cluster), plugin(cluster)
    lines = {
        "config-dir": CONFIG,
        "work-dir": WORK,
        "logs-dir": LOGS,
        "max-log-backups": "30",
        "non-interactive": "true",
        "agree-tos": "true",
        "email": str(cluster.acme.email),
        "key-type": wanted.key,
        "preferred-challenges": "dns",
        "authenticator": used.name if used else "manual",
    }
    if used is None:
        lines |= {
            "manual-auth-hook": f"{CONFIG}/publish",
            "manual-cleanup-hook": f"{CONFIG}/clean",
        }
    else:
        if used.waits:
            lines[f"{used.name}-propagation-seconds"] = str(wanted.propagation_seconds)
        if not used.variable:
            lines[f"{used.name}-credentials"] = CREDENTIALS
    return MANAGED + "".join(f"{key} = {value}\n" for key, value in lines.items())


def credentials_text(cluster: Cluster, values: Mapping[str, str]) -> str:
    """The plugin's file; values: the secrets by name."""
    used, wanted = plugin(cluster), section(cluster)
    assert used is not None, "hooks have no file"
    lines = {key: values[name] for key, name in used.credentials.items()}
    lines |= used.settings | wanted.settings
    heading = f"[{used.section}]\n" if used.section else ""
    return heading + "".join(f"{key} = {value}\n" for key, value in lines.items())


def hook_files(cluster: Cluster) -> dict[str, str]:
    """The commands that publish a proof, where no plugin does; mode 0700."""
    hooks = section(cluster).hooks
    if hooks is None:
        return {}
    return {
        f"{CONFIG}/{name}": f"#!/bin/sh\n{MANAGED}set -eu\n{text.strip()}\n"
        for name, text in (("publish", hooks.publish), ("clean", hooks.clean))
    }


def plain_files(cluster: Cluster) -> dict[str, str]:
    """Settings and units; mode 0644."""
    ca = section(cluster).ca
    return {
        SETTINGS: settings_text(cluster),
        **({CA: f"{ca.strip()}\n"} if ca else {}),
        f"{UNITS}/{SERVICE}": _SERVICE,
        f"{UNITS}/{TIMER}": _TIMER,
    }


def scripts(cluster: Cluster) -> dict[str, str]:
    """The commands of the host; mode 0755."""
    return {COMMAND: _command(cluster), RENEW: _RENEW, REPORT: _REPORT}


def deploy_hooks(cluster: Cluster, me: Host) -> dict[str, str]:
    """A file for each certificate, which certbot runs when there is a new one; mode 0755."""
    return {f"{HOOKS}/{one.name}": deploy_hook(one) for one in certificates(cluster, me)}


def _command(cluster: Cluster) -> str:
    used, lines = plugin(cluster), []
    if section(cluster).ca:
        # requests takes one file; the system's CAs are in it for the DNS provider's own API.
        lines += [
            f"cat /etc/ssl/certs/ca-certificates.crt {CA} > /run/picluster-certbot-ca.pem",
            "export REQUESTS_CA_BUNDLE=/run/picluster-certbot-ca.pem",
        ]
    if used and used.variable:
        lines += [f"export {used.variable}={CREDENTIALS}"]
    return (
        f"#!/bin/sh\n{MANAGED}# certbot with the folders and settings of these certificates.\n"
        "set -eu\numask 022\nexec 9> /run/picluster-certbot.lock\nflock -w 1800 9\n"
        + "".join(f"{line}\n" for line in lines)
        + f'exec {PROGRAM}/bin/certbot --config {SETTINGS} "$@"\n'
    )


_RENEW = f"""\
#!/bin/sh
{MANAGED}# Renews what is due, and ends what an earlier hook began; fails when either does.
set -u
status=0
{COMMAND} renew --quiet --no-random-sleep-on-renew || status=$?
for mark in {MARKS}/*; do
  [ -f "$mark" ] || continue
  name=${{mark##*/}}
  [ -f {HOOKS}/"$name" ] || continue  # nobody wants the certificate any more
  RENEWED_LINEAGE={CONFIG}/live/$name {HOOKS}/"$name" || status=1
done
exit $status
"""

_REPORT = f"""\
#!/bin/sh
{MANAGED}# Metrics for node exporter: when each certificate ends, and how the last renewal went.
set -eu
umask 022
mkdir -p {METRICS}
put() {{ new=$(mktemp {METRICS}/.new.XXXXXX); cat > "$new"; chmod 644 "$new"; mv -f "$new" "$1"; }}
{{
  echo '# HELP picluster_certificate_not_after_seconds When a certificate ends, Unix time.'
  echo '# TYPE picluster_certificate_not_after_seconds gauge'
  for file in {CONFIG}/live/*/cert.pem; do
    [ -f "$file" ] || continue
    name=${{file%/cert.pem}}
    end=$(openssl x509 -noout -enddate -dateopt iso_8601 -in "$file") || continue
    echo "picluster_certificate_not_after_seconds{{certificate=\\"${{name##*/}}\\"}}" \\
      "$(date -u -d "${{end#notAfter=}}" +%s)"
  done
}} | put {EXPIRY_METRIC}
[ -n "${{SERVICE_RESULT:-}}" ] || exit 0
{{
  echo '# HELP picluster_certificate_renewal_failed Whether the last renewal failed.'
  echo '# TYPE picluster_certificate_renewal_failed gauge'
  if [ "$SERVICE_RESULT" = success ]; then failed=0; else failed=1; fi
  echo "picluster_certificate_renewal_failed $failed"
  echo '# HELP picluster_certificate_renewal_time_seconds When it ended, Unix time.'
  echo '# TYPE picluster_certificate_renewal_time_seconds gauge'
  echo "picluster_certificate_renewal_time_seconds $(date +%s)"
}} | put {RENEWAL_METRIC}
"""

_SERVICE = f"""\
{MANAGED}[Unit]
Description=Renewal of certificates
Wants=network-online.target
After=network-online.target time-sync.target

[Service]
Type=oneshot
ExecStart={RENEW}
ExecStopPost={REPORT}
TimeoutStartSec=2h
"""

# Let's Encrypt asks clients not to come all at the same minute.
_TIMER = f"""\
{MANAGED}[Unit]
Description=Renewal of certificates twice a day

[Timer]
OnCalendar=*-*-* 00,12:00:00
RandomizedDelaySec=6h
Persistent=true

[Install]
WantedBy=timers.target
"""


def deploy_hook(wanted: Certificate) -> str:
    """The shell text that puts a new certificate where services read it, and reloads them.

    Its mark stays until it has come to its end: the next renewal or run does it again then.
    """
    lines = []
    for copy in wanted.copies:
        owner = quote(f"{copy.owner}:{copy.group}")
        for path, mode, parts in _parts(copy):
            sources = " ".join(f'"$RENEWED_LINEAGE/{part}"' for part in parts)
            lines.append(f"put {quote(path)} {owner} {mode} {sources}")
    lines += [f"reload {quote(unit)}" for unit in wanted.reload]
    return (
        f"#!/bin/sh\n{MANAGED}"
        f'[ "${{RENEWED_LINEAGE##*/}}" = {wanted.name} ] || exit 0\n'
        f"set -eu\numask 077\nmkdir -p {MARKS}\n: > {MARKS}/{wanted.name}\n"
        "put() {\n"
        "  path=$1 owner=$2 mode=$3; shift 3\n"
        '  [ -d "${path%/*}" ] || install -d -m 755 "${path%/*}"\n'
        '  new=$(mktemp "$path.XXXXXX"); trap \'rm -f "$new"\' EXIT\n'
        '  cat "$@" > "$new"; chown "$owner" "$new"; chmod "$mode" "$new"; mv -f "$new" "$path"\n'
        "  trap - EXIT\n"
        "}\n"
        "reload() {  # a service may come after its certificate\n"
        '  if [ "$(systemctl show -p LoadState --value "$1")" = not-found ]; then\n'
        '    echo "$1 is not there (yet): nothing is reloaded" >&2; return\n'
        "  fi\n"
        '  systemctl try-reload-or-restart "$1"\n'
        "}\n" + "".join(f"{line}\n" for line in lines) + f"rm -f {MARKS}/{wanted.name}\n"
    )


def _parts(copy: Copy) -> Iterable[tuple[str, str, tuple[str, ...]]]:
    """Path, mode and the files it is made of."""
    if copy.certificate:
        yield copy.certificate, "644", ("fullchain.pem",)
    if copy.key:
        yield copy.key, "600", ("privkey.pem",)
    if copy.bundle:
        yield copy.bundle, "600", ("fullchain.pem", "privkey.pem")


# ---- decisions


@dataclass(frozen=True)
class Found:
    """A certificate on a host.

    Args:
        names: whom it is for.
        ends: Unix seconds, None when it cannot be read.
        server: URL of the ACME server that it is renewed by.
        sums: sha256 of its chain (`fullchain.pem`), key (`privkey.pem`) and of both (`bundle`).
    """

    names: frozenset[str] = frozenset()
    ends: float | None = None
    server: str = ""
    sums: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CopyFound:
    """A file that was copied from a certificate."""

    owner: str
    mode: str
    sha256: str


def is_staging(url: str) -> bool:
    """Whether certificates of an ACME server are for trials only, by Let's Encrypt's names."""
    return "staging" in (urlsplit(url).hostname or "")


def due(wanted: Certificate, found: Found | None, server: str, now: float) -> str | None:
    """Why a certificate must be issued; None: it does as it is. What is valid is never renewed.

    A valid certificate of a real server stays when the settings go back to staging.
    """
    if found is None:
        return "it is missing"
    if found.ends is None:
        return None  # refused before: see `damage`
    if found.names != frozenset(wanted.names):
        return f"its names change from {', '.join(sorted(found.names))}"
    if found.ends <= now:
        return "it has expired"
    if found.server != server and not kept(found, server):
        return f"it moves from {found.server}"
    return None


def kept(found: Found, server: str) -> bool:
    """Whether a trusted certificate would be replaced by one for trials."""
    return is_staging(server) and not is_staging(found.server)


def damage(name: str, found: Found) -> str | None:
    """What to do about a certificate that certbot knows and that cannot be read."""
    if found.ends is not None:
        return None
    return (
        f"the certificate {name} cannot be read in {CONFIG}/live/{name}: put its files back, or "
        f"remove it with `{COMMAND} delete --cert-name {name}`"
    )


def arguments(cluster: Cluster, wanted: Certificate, found: Found | None) -> tuple[str, ...]:
    """certbot's arguments that issue it."""
    server = directory(cluster)
    moves = found is not None and found.server != server
    return (
        *("certonly", "--cert-name", wanted.name, "--server", server),
        "--renew-with-new-domains",
        *(("--force-renewal",) if moves else ()),
        *(word for name in wanted.names for word in ("-d", name)),
    )


def undeployed(
    wanted: Certificate,
    found: Found,
    copies: Mapping[str, CopyFound],
    marks: Iterable[str],
) -> bool:
    """Whether services have not got the certificate that there is."""
    if wanted.name in marks:
        return True
    for copy in wanted.copies:
        for path, mode, parts in _parts(copy):
            key = parts[0] if len(parts) == 1 else "bundle"
            known = CopyFound(f"{copy.owner}:{copy.group}", mode, found.sums.get(key, ""))
            if copies.get(path) != known:
                return True
    return False


def paths(cluster: Cluster, me: Host) -> tuple[str, ...]:
    """Where copies of the host's certificates are."""
    return tuple(
        path
        for one in certificates(cluster, me)
        for copy in one.copies
        for path, _, _ in _parts(copy)
    )


# What certbot and its plugins say, and what it means. Sources: the plugins, RFC 8555 §6.7.
_CAUSES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("unauthorized(401)", "forbidden(403)", "invalidclienttokenid", "signaturedoesnotmatch",
         "authentication error", "invalid access token", "9109", "badsig", "badkey", "notauth"),
        "the DNS provider refuses its key ({secrets} in the file of secrets)",
    ),
    (("too many certificates", "ratelimited", "rate limit"), "the ACME server's limit is reached"),
    (
        ("incorrect txt record", "no txt record found", "nxdomain", "dns problem"),
        "the record was not seen in time (services.certbot.propagation_seconds)",
    ),
    (
        ("domain not known", "unable to determine zone", "unable to find a route53 hosted zone",
         "unable to determine base domain"),
        "the DNS account has no zone for the name",
    ),
    (
        ("certificate verify failed", "sslerror"),
        "the server's certificate is not trusted (services.certbot.ca)",
    ),
    (
        ("connectionerror", "max retries exceeded", "name or service not known",
         "temporary failure in name resolution", "connection refused", "timed out"),
        "a server cannot be reached",
    ),
)  # fmt: skip


def cause(cluster: Cluster, lines: Sequence[str]) -> str:
    """Why certbot failed, in one line that ends with its own words."""
    text = " ".join(lines).lower()
    secrets = " and ".join(secret_names(cluster)) or "services.certbot.hooks"
    said = _said(lines)
    for words, meaning in _CAUSES:
        if any(word in text for word in words):
            return f"{meaning.format(secrets=secrets)}: {said}"
    return said


def _said(lines: Sequence[str]) -> str:
    """certbot's own words without what it says every time."""
    noise = (
        *("saving debug log", "ask for help", "see the logfile", "- - -", "some challenges"),
        "an unexpected error occurred",  # the next line says which
    )
    useful = [
        line.strip()
        for line in lines
        if line.strip() and not any(word in line.lower() for word in noise)
    ]
    errors = [line for line in useful if "error" in line.lower() or "detail:" in line.lower()]
    return (errors or useful or ["it said nothing"])[-1]


def instant(text: str) -> float | None:
    """`2026-11-26 10:10:00Z`, as openssl writes it, in Unix seconds; None for anything else."""
    try:
        return datetime.fromisoformat(text.strip().replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None
