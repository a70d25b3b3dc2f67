"""The firewall of the gateway as nftables rules: one table of ours, tables of others stay.

Never `flush ruleset`: it would delete what Docker, fail2ban or Kubernetes have in tables of theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from cluster.managed import MANAGED
from cluster.services import api_address, s3, san, telemetry
from cluster.services.gateway import FIREWALL, FIREWALL_COMMAND, Opening, section

if TYPE_CHECKING:
    from cluster.model import Cluster, Host

TABLE = "inet picluster"
BACK_UNIT = "picluster-firewall-back"
RUN = "/run/picluster-firewall"


def rules(cluster: Cluster, me: Host, lan: str) -> str:
    """The whole rule set of a gateway; loading it replaces our table in one step.

    + lan: interface towards the LAN
    """
    wan = section(cluster).wan_interface
    chains = [_input(cluster, me, lan, wan)]
    if wan:
        chains += [_forward(cluster, lan, wan), _masquerade(cluster, wan)]
    body = "\n".join(chains)
    # Made before it is deleted, so that this works whether it is there or not.
    return f"{MANAGED}table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n{body}}}\n"


def _chain(name: str, head: str, lines: Iterable[str]) -> str:
    return f"\tchain {name} {{\n\t\t{head}\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"


_FIRST = ("ct state established,related accept", "ct state invalid drop")


def _input(cluster: Cluster, me: Host, lan: str, wan: str | None) -> str:
    wanted = section(cluster)
    tcp = [str(wanted.ssh_port), *(["53"] if wanted.dns else []), *_served(cluster, me)]
    udp = [
        *(["53"] if wanted.dns else []),
        *(["67"] if wanted.dhcp else []),
        *(["123"] if wanted.time else []),
    ]
    carries = me in api_address.haproxy_hosts(cluster)
    peers = api_address.peers(cluster, me) if carries else ()
    lines = [
        *_FIRST,
        'iifname "lo" accept',
        "icmp type { destination-unreachable, echo-request, parameter-problem, time-exceeded }"
        " accept",
        "meta l4proto ipv6-icmp accept",
        f'iifname "{lan}" tcp dport {_set(tcp)} accept',
    ]
    if udp:
        lines.append(f'iifname "{lan}" udp dport {_set(udp)} accept')
    if peers:
        addresses = _set(str(peer.ip) for peer in peers)
        lines.append(f'iifname "{lan}" ip saddr {addresses} ip protocol 112 accept')
    lines += _opened(cluster, "lan-to-gateway", f'iifname "{lan}"')
    if wan:
        lines += _opened(cluster, "wan-to-gateway", f'iifname "{wan}"')
    return _chain("input", "type filter hook input priority filter; policy drop;", lines)


def _served(cluster: Cluster, me: Host) -> Iterator[str]:
    """Ports of other services of ours on the gateway."""
    if me in api_address.haproxy_hosts(cluster):
        yield str(cluster.api_port)
    home, server = s3.home(cluster), cluster.services.s3
    if server and home and home.name == me.name:
        yield str(server.port)
    if cluster.services.telemetry and me in telemetry.hosts(cluster):
        yield str(telemetry.EXPORTER_PORT)
    if cluster.services.san and san.target_host(cluster) == me:
        yield str(san.PORT)


def _forward(cluster: Cluster, lan: str, wan: str) -> str:
    network = cluster.network.lan
    out = f'iifname "{lan}" oifname "{wan}" ip saddr {network}'
    into = f'iifname "{wan}" oifname "{lan}" ip daddr {network}'
    lines = [*_FIRST, f'iifname "{lan}" oifname "{lan}" accept']
    if section(cluster).forward == "all":
        lines.append(f"{out} accept")
    else:
        lines += [f"{out} icmp type echo-request accept", *_opened(cluster, "lan-to-wan", out)]
    lines += _opened(cluster, "wan-to-lan", into)
    return _chain("forward", "type filter hook forward priority filter; policy drop;", lines)


def _masquerade(cluster: Cluster, wan: str) -> str:
    return _chain(
        "postrouting",
        "type nat hook postrouting priority srcnat; policy accept;",
        [f'ip saddr {cluster.network.lan} oifname "{wan}" masquerade'],
    )


def _opened(cluster: Cluster, way: str, between: str) -> Iterator[str]:
    """A line for each opening of that way."""
    for one in section(cluster).openings:
        if one.way == way:
            yield (
                " ".join((between, *_addresses(one), one.protocol, "dport", _set(one.ports)))
                + " accept"
            )


def _addresses(one: Opening) -> Iterator[str]:
    if one.source:
        yield f"ip saddr {one.source}"
    if one.target:
        yield f"ip daddr {one.target}"


def _set(items: Iterable[str]) -> str:
    return f"{{ {', '.join(dict.fromkeys(items))} }}"


# A rule set that locks everybody out goes by itself: it is loaded with a timer that puts the former
# one back, and only a connection made after it was loaded may stop that timer. What is loaded at
# boot is always a confirmed one.
COMMAND = f"""\
#!/bin/sh
{MANAGED}# try SECONDS: load {FIREWALL}.new, the former rules come back after that time.
# confirm: keep the new rules. back: the former rules.
set -eu
rules={FIREWALL} run={RUN} timer={BACK_UNIT}
before=$run/before.nft
mkdir -p $run
exec 9> $run/lock
flock 9
unarm() {{
  systemctl stop $timer.timer 2>/dev/null || true
  systemctl reset-failed $timer.timer $timer.service 2>/dev/null || true
}}
case $1 in
try)
  nft -c -f $rules.new
  if [ ! -f $before ]; then
    {{
      echo 'table {TABLE}'
      echo 'delete table {TABLE}'
      nft -s list table {TABLE} 2>/dev/null || true
    }} > $before.part
    nft -c -f $before.part  # what cannot be loaded again is no way back
    mv -f $before.part $before
  fi
  unarm
  systemd-run --quiet --unit=$timer --on-active="$2" --timer-property=AccuracySec=100ms \\
    {FIREWALL_COMMAND} back 9>&-
  nft -f $rules.new
  ;;
confirm)
  unarm
  [ -f $before ] || {{ echo 'the former rules are back already' >&2; exit 1; }}
  mv -f $rules.new $rules
  rm -f $before
  ;;
back)
  [ -f $before ] || exit 0
  nft -f $before
  rm -f $before $rules.new
  echo 'nobody confirmed the new rules: the former ones are back' >&2
  ;;
esac
"""

UNIT_TEXT = f"""\
{MANAGED}[Unit]
Description=Firewall of the gateway
Documentation=man:nft(8)
Wants=network-pre.target
Before=network-pre.target shutdown.target
After=nftables.service
Conflicts=shutdown.target
DefaultDependencies=no
ConditionPathExists={FIREWALL}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f {FIREWALL}
ExecReload=/usr/sbin/nft -f {FIREWALL}

[Install]
WantedBy=sysinit.target
"""

# Debian's own service flushes everything when it starts and when it is reloaded.
DROP_IN_TEXT = f"""\
{MANAGED}[Service]
ExecStartPost=-/usr/sbin/nft -f {FIREWALL}
ExecReload=-/usr/sbin/nft -f {FIREWALL}
"""
