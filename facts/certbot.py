"""certbot on a host: its program, its certificates, and which services have got them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from cluster.services import certbot
from cluster.services.certbot import CopyFound, Found
from facts.tagged import words


@dataclass(frozen=True)
class CertbotState:
    """What there is of it on a host.

    Args:
        program: digest of the packages in force, empty when they have to be installed.
        certificates: by name.
        copies: files made from them, by path.
        marks: names of certificates whose hook has not come to its end.
        hooks: names of the hooks that are there.
        result: how the last renewal ended, in systemd's words.
    """

    program: str = ""
    certificates: dict[str, Found] = field(default_factory=dict)
    copies: dict[str, CopyFound] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    result: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data for `pyinfra --json`."""
        data = asdict(self)
        for one in data["certificates"].values():
            one["names"] = sorted(one["names"])
        return data


_SCRIPT = rf"""
LC_ALL=C; export LC_ALL; t=$(printf '\t')
program=$(readlink {certbot.PROGRAM} 2>/dev/null)
python=$(readlink -f "$(command -v python3)")
if [ -f "$program/complete" ] && [ -d "$program/lib/${{python##*/}}" ]; then
  printf 'program\t%s\n' "${{program#{certbot.PROGRAM}-}}"
fi
for conf in {certbot.CONFIG}/renewal/*.conf; do
  [ -f "$conf" ] || continue
  name=${{conf##*/}}; name=${{name%.conf}}; live={certbot.CONFIG}/live/$name
  printf 'certificate\t%s\t%s\n' "$name" "$(sed -n 's/^server *= *//p' "$conf")"
  cert=$(openssl x509 -noout -enddate -dateopt iso_8601 -ext subjectAltName \
    -in "$live/cert.pem" 2>/dev/null)
  printf '%s\n' "$cert" | sed -n "s/^notAfter=/ends$t$name$t/p; s/^ *DNS:/names$t$name${{t}}DNS:/p"
  for part in fullchain privkey; do
    printf 'sum\t%s\t%s.pem\t%s\n' "$name" "$part" "$(sha256sum < "$live/$part.pem" | cut -c1-64)"
  done 2>/dev/null
  printf 'sum\t%s\tbundle\t%s\n' "$name" \
    "$(cat "$live/fullchain.pem" "$live/privkey.pem" 2>/dev/null | sha256sum | cut -c1-64)"
done
for path in @PATHS@; do
  [ -f "$path" ] && printf 'copy\t%s\t%s\t%s\n' "$path" "$(stat -c '%U:%G %a' "$path")" \
    "$(sha256sum < "$path" | cut -c1-64)"
done
for mark in {certbot.MARKS}/*; do [ -f "$mark" ] && printf 'mark\t%s\n' "${{mark##*/}}"; done
for hook in {certbot.HOOKS}/*; do [ -f "$hook" ] && printf 'hook\t%s\n' "${{hook##*/}}"; done
printf 'result\t%s\n' "$(systemctl show -p Result --value {certbot.SERVICE} 2>/dev/null)"
echo end
"""


class Certbot(FactBase[CertbotState | None]):
    """certbot's program, certificates and what was made of them.

    + paths: copies of certificates to look at
    """

    def command(self, paths: tuple[str, ...] = ()) -> str:
        return _SCRIPT.replace("@PATHS@", " ".join(map(shlex.quote, paths))).strip()

    def process(self, output: Iterable[str]) -> CertbotState:
        try:
            return parse(output)
        except ValueError as error:
            raise FactProcessError(f"the certificates of the host: {error}") from error


def parse(lines: Iterable[str]) -> CertbotState:
    """Read the script's lines; raises ValueError when they end early."""
    plain = {"program": "", "result": ""}
    lists: dict[str, list[str]] = {"mark": [], "hook": []}
    servers: dict[str, str] = {}
    names: dict[str, frozenset[str]] = {}
    ends: dict[str, float | None] = {}
    sums: dict[str, dict[str, str]] = {}
    copies: dict[str, CopyFound] = {}
    for line in words(lines):
        match line:
            case ("program" | "result" as key, [value]):
                plain[key] = value
            case ("mark" | "hook" as key, [value]):
                lists[key].append(value)
            case ("certificate", [name, server]):
                servers[name] = server
            case ("ends", [name, value]):
                ends[name] = certbot.instant(value)
            case ("names", [name, value]):
                names[name] = frozenset(re.findall(r"DNS:([^\s,]+)", value))
            case ("sum", [name, part, value]):
                sums.setdefault(name, {})[part] = value
            case ("copy", [path, owner_and_mode, value]):
                owner, _, mode = owner_and_mode.partition(" ")
                copies[path] = CopyFound(owner, mode, value)
    return CertbotState(
        program=plain["program"],
        certificates={
            name: Found(names.get(name, frozenset()), ends.get(name), server, sums.get(name, {}))
            for name, server in servers.items()
        },
        copies=copies,
        marks=tuple(lists["mark"]),
        hooks=tuple(lists["hook"]),
        result=plain["result"],
    )
