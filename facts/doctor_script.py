"""The shell texts of the doctor's facts.

The first reads the host alone, in POSIX sh and with what every Ubuntu has. The second asks the
network; all its questions run at the same time, in bash, and end with one limit. Neither changes
anything; the third one writes, to measure how long that takes.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from textwrap import indent

from cluster import k3s_config
from cluster.doctor import cloud, network, system
from facts.tagged import HEAD, MODULES, filled, quoted

_LOCAL = (
    r"""
say container "$(systemd-detect-virt --container 2> /dev/null)"
have ip && ip -4 -o addr show 2> /dev/null | awk '{
  d = ""; for (i = 5; i <= NF; i++) if ($i == "dynamic") d = "dynamic"
  print "addr\t" $2 "\t" $4 "\t" d }'
nics=; for d in /sys/class/net/*/; do d=${d%/}; [ -d "$d" ] && nics="$nics ${d##*/}"; done
say interfaces "$nics"
links=$({ for d in /sys/class/net/*/device; do d=${d%/device}; echo "${d##*/}"; done
  ip -4 route show default 2> /dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p'; } | sort -u)
files=; for l in $links; do
  for f in address mtu carrier speed duplex; do files="$files /sys/class/net/$l/$f"; done
done
# One grep reads all of them; -a for those that end with a NUL.
grep -a -s '' /dev/null $files /sys/class/dmi/id/product_uuid /proc/device-tree/serial-number \
  /sys/fs/ext4/*/errors_count /sys/class/rtc/rtc0/name \
  /sys/module/apparmor/parameters/enabled | tr -d '\000' | sed 's/^/value\t/'
for d in / /var/lib/rancher /var/lib/longhorn @STORAGE@; do
  limited "df $d" sh -c '[ -d "$1" ] && { df -Pk "$1"; df -Pi "$1"; }' df "$d" | awk -v d="$d" '
    NR % 2 == 0 {print (NR == 2 ? "space\t" : "inodes\t") d "\t" $2 "\t" $4}' &
done
wait
for f in @RESOLV@; do
  [ -r "$f" ] && say resolver "$f" "$(sed -n 's/^nameserver[[:space:]]*//p' "$f" | tr '\n' ' ')"
done
kernel=$(uname -r)
if [ -f "/lib/modules/$kernel/modules.dep" ]; then
  say modules
"""
    + indent(MODULES, "  ")
    + r"""fi
# chrony is asked for the host's state; timedatectl starts a service to answer.
if [ -e /run/systemd/timesync/synchronized ]; then say clock NTPSynchronized=yes
elif [ ! -S /run/chrony/chronyd.sock ] && have timedatectl; then
  limited timedatectl timedatectl show -p NTP -p NTPSynchronized | sed 's/^/clock\t/'
fi
for f in /etc/ssh/ssh_host_*_key.pub; do
  [ -r "$f" ] && awk '{print "hostkey\t" $1 " " $2}' "$f"
done
limited 'systemctl --failed' sh -c 'systemctl --failed --plain --no-legend --no-pager &&
  echo ended' | awk 'NF > 1 {print "failed\t" $1} $0 == "ended" {print "units"}'
if have apt-config; then
  say reboots "$(limited apt-config apt-config dump Unattended-Upgrade::Automatic-Reboot |
    sed -n 's/^[^ ]* "\(.*\)";$/\1/p')"
fi
cloud=/run/cloud-init
if ! have cloud-init && [ ! -d $cloud ]; then say cloud absent
else
  off=; if [ -e @OFF@ ] || [ -e $cloud/disabled ]; then off=off; fi
  json() { [ -r "$1" ] && tr -d '\n\t' < "$1"; }
  say cloud "$off" "$(json $cloud/status.json)" "$(json $cloud/result.json)" \
    "$(limited 'systemctl show' systemctl show -p ActiveState -p Job @CLOUD@ | tr '\n' ' ')"
fi
grep -hsE 'devnode|protocol|vendor|product|property' /etc/multipath.conf \
  /etc/multipath/conf.d/*.conf | sed 's/^/multipath\t/'
for p in @THERE@; do [ -e "$p" ] && say there "$p"; done
set -- @UNITS@
limited 'systemctl is-active' systemctl is-active "$@" | while read -r state; do
  say runs "$1" "$state"; shift
done
have iptables && say iptables "$(iptables --version 2> /dev/null)"
[ -r /etc/ufw/ufw.conf ] && say ufw "$(sed -n 's/^ENABLED=//p' /etc/ufw/ufw.conf)"
say k3s "$(readlink @LINK@ 2> /dev/null)"
say end
"""
)

# bash has /dev/tcp and /dev/udp; it reads octet by octet, and a datagram is gone after the first.
# Whoever has an address answers ARP, whatever its firewall says.
_NETWORK = r"""
say() { local IFS=$'\t'; printf '%s\n' "$*"; }
for a in @NEIGHBOURS@; do { echo > "/dev/udp/$a/9"; } 2> /dev/null; done
for p in @CONNECTS@; do (
  a=${p%:*}; n=${p##*:}; from=$EPOCHREALTIME
  if answer=$( { exec 3<> "/dev/tcp/$a/$n"; } 2>&1 ); then
    say connect "$a" "$n" "$from" "$EPOCHREALTIME"
  else
    case $answer in *refused*) say refused "$a" "$n" ;; esac
  fi ) & done
for n in @NAMES@; do
  ( found=$(getent ahostsv4 "$n"); say name "$n" "${found%%[[:space:]]*}" ) &
done
for s in @SERVERS@; do (
  exec 3<> "/dev/udp/$s/53" && printf '@QUERY@' >&3 &&
    IFS= read -r -t 1.5 -n 1 -u 3 _ && say dns "$s" ) 2> /dev/null & done
if [ -n "@GATEWAY@" ] && command -v ping > /dev/null; then (
  mtu=$(cat "/sys/class/net/$(ip -4 route get @GATEWAY@ | sed -n 's/.* dev \([^ ]*\).*/\1/p')/mtu")
  if ping -c 1 -W 1 -n @GATEWAY@ > /dev/null; then
    ping -M do -s $((mtu - 28)) -c 1 -W 1 -n @GATEWAY@ > /dev/null && say path yes || say path no
  fi ) 2> /dev/null & fi
for d in @SMART@; do (
  say asked "${d%%:*}"
  found=$(timeout -k 1 2 smartctl -j -H -A ${d#*:} "/dev/${d%%:*}" | tr -d '\n\t')
  [ -n "$found" ] && say smart "${d%%:*}" "$found" ) 2> /dev/null & done
# An address that nobody answers for stays incomplete until the kernel gives up.
if [ -n "@NEIGHBOURS@" ]; then for _ in {1..11}; do
  sleep 0.1
  ip -4 neigh show | awk -v w=" @NEIGHBOURS@ " '
    index(w, " " $1 " ") && $NF == "INCOMPLETE" { n++ } END { exit !n }' || break
done; fi
wait
"""
_PROBE = r"""
for p in bash ip ping smartctl; do have $p && say tool $p; done
known() { ip -4 neigh show 2> /dev/null | awk -v w=" @NEIGHBOURS@ " 'index(w, " " $1 " ")'; }
# What the kernel remembers may be gone, and REACHABLE holds for most of a minute: forgotten, it is
# asked for anew. Entries of Cilium (managed, extern_learn) are Cilium's to renew.
known | awk '$NF != "PERMANENT" && !/ (managed|extern_learn) / {print $1, $3}' |
while read -r a d; do
  ip neigh del "$a" dev "$d" 2> /dev/null
done
have bash && timeout -k 1 @LIMIT@ bash -c @NETWORK@ < /dev/null 2> /dev/null 3>&-
known | awk '{
  m = ""; for (i = 2; i < NF; i++) if ($i == "lladdr") m = $(i + 1)
  print "neighbour\t" $1 "\t" m "\t" $NF }'
say end
"""

_FSYNC = r"""
import os, tempfile, time
end = time.monotonic() + @LIMIT@
folder = next((p for p in ("@DATA@/server/db", "@DATA@", "/var/lib") if os.path.isdir(p)), "/")
fd, path = tempfile.mkstemp(dir=folder)
os.unlink(path)  # at once: nothing is left behind, however this ends
os.posix_fallocate(fd, 0, @COUNT@ * @SIZE@)
os.fsync(fd)
for n in range(@COUNT@):
    start = time.perf_counter()
    os.pwrite(fd, b"x" * @SIZE@, n * @SIZE@)
    os.fdatasync(fd)
    print("write\t%.6f" % (time.perf_counter() - start))
    if time.monotonic() > end:
        break
"""

LIMIT = 3  # seconds for all questions to the network
WRITES, WRITE_SIZE = 300, 2300  # as many bytes as an entry of etcd's log has
WRITE_LIMIT = 20  # seconds


@dataclass(frozen=True)
class NetworkQuestion:
    """What a host is to ask the network.

    neighbours: addresses that are looked for in its LAN. connects: `address:port`. names: to look
    up. servers: name servers. domain: what they are asked for. gateway: to which whole packets
    are sent. smart: `disk:option of smartctl`. limit: seconds.
    """

    neighbours: tuple[str, ...] = ()
    connects: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    domain: str = "example.com"
    gateway: str = ""
    smart: tuple[str, ...] = ()
    limit: int = LIMIT

    def __str__(self) -> str:
        return " ".join((*self.neighbours, *self.connects, *self.names, *self.servers))


def local(modules: Iterable[str] = ()) -> str:
    """The script that reads a host. modules: kernel modules to look for."""
    return filled(
        HEAD + _LOCAL,
        STORAGE="/storage",
        RESOLV=f"{network.RESOLV} {network.RESOLVED}",
        MODULES=quoted(modules),
        THERE=quoted(system.OLD_CLUSTERS),
        UNITS=quoted((*system.RUNTIMES, "firewalld.service")),
        CLOUD=quoted(f"{unit}.service" for unit in cloud.UNITS),
        OFF=cloud.OFF,
        LINK=k3s_config.LINK,
    )


def probe(ask: NetworkQuestion) -> str:
    """The script that asks the network."""
    inner = filled(
        _NETWORK,
        NEIGHBOURS=quoted(ask.neighbours),
        CONNECTS=quoted(ask.connects),
        NAMES=quoted(ask.names),
        SERVERS=quoted(ask.servers),
        QUERY=_query(ask.domain),
        GATEWAY=ask.gateway,
        SMART=quoted(ask.smart),
    )
    return filled(
        HEAD + _PROBE,
        LIMIT=str(ask.limit),
        NEIGHBOURS=quoted(ask.neighbours),
        NETWORK=shlex.quote(inner),
    )


def fsync() -> str:
    """The script that measures writes as etcd's log makes them, 0.7 MB in all."""
    program = filled(
        _FSYNC,
        LIMIT=str(WRITE_LIMIT),
        DATA=k3s_config.DATA,
        COUNT=str(WRITES),
        SIZE=str(WRITE_SIZE),
    )
    return f"command -v python3 > /dev/null && python3 -c {shlex.quote(program)}; echo end"


def _query(name: str) -> str:
    """A DNS question for the address of a name, as printf writes it (RFC 1035, section 4)."""
    octets = bytes.fromhex("706901000001000000000000")
    for label in name.split("."):
        octets += bytes([len(label)]) + label.encode("idna")
    return "".join(f"\\x{octet:02x}" for octet in octets + bytes.fromhex("0000010001"))
