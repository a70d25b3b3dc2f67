"""What K3s leaves on a node, topic by topic: how it is found and how it is removed. Pure text.

What and in which order: K3s' `k3s-killall.sh` and `k3s-uninstall.sh` (`install.sh` of its
repository), and beyond them what those scripts leave: other CNIs, logs, ipsets, downloads.
Each topic is found and removed by the same conditions, so nothing is removed that was not named
before, and a topic whose things are still there after the removal fails with their names.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cluster import k3s_config

KEPT = "/var/backups/picluster"  # snapshots that outlive a reset, one folder a cluster
PASSWORD = "/etc/rancher/node"
RESTORE_UNIT = "picluster-restore"  # the transient unit of a restore


@dataclass(frozen=True)
class Options:
    """What a reset of one node spares.

    Args:
        cluster: name of the cluster, for the folder that snapshots are kept in.
        keep_snapshots: move snapshots, copies of the datastore and their tokens to that folder.
        forget_password: remove the node's password and id too.
        user_data: directories with data of users; a mount point among them is not emptied.
        wipe: the ones of them that are emptied all the same.
    """

    cluster: str
    keep_snapshots: bool = True
    forget_password: bool = False
    user_data: tuple[str, ...] = ()
    wipe: tuple[str, ...] = ()

    @property
    def kept_in(self) -> str:
        """Folder on the node for what is kept."""
        return f"{KEPT}/{self.cluster}"


@dataclass(frozen=True)
class Topic:
    """One kind of leftovers.

    Args:
        title: for people.
        find: shell text that prints one line for each thing that is there.
        remove: shell text that removes them.
    """

    title: str
    find: str
    remove: str


# Functions of all scripts. A tree is removed without ever entering a mount: `rm` would follow a
# bind mount of the same file system, which --one-file-system does not stop at.
_PRELUDE = r"""
LC_ALL=C; export LC_ALL
D=@DATA@
PATH=$PATH:/usr/sbin:/sbin
for p in "$D"/data/*/bin "$D"/data/*/bin/aux; do [ -d "$p" ] && PATH=$PATH:$p; done
look() {
  M=$(awk '{print $5}' /proc/self/mountinfo | while IFS= read -r m; do printf '%b\n' "$m"; done)
}
mounted() { printf '%s\n' "$M" | grep -Fxq -- "$1"; }
mounts_below() { printf '%s\n' "$M" | awk -v p="$1/" 'index($0, p) == 1' | grep -q .; }
there() { [ -e "$1" ] || [ -L "$1" ]; }
# The directory of user data: itself, or where a device is mounted; never one of the system.
dir_of() {
  case $1 in /dev/*) d=$(findmnt -nro TARGET -S "$1" | head -n 1) ;; *) d=$1 ;; esac
  case $d in
    ""|/|/boot*|/etc|/etc/*|/usr|/usr/*|/home|/root|/run|/tmp) ;;
    /var|/var/lib|/opt|/srv|/mnt|/media) ;;
    /*) echo "$d" ;;
  esac
}
K="|"; for p in @SPARED@; do K="$K$(dir_of "$p")|"; done
kept() { case "$K" in *"|$1|"*) return 0 ;; esac; return 1; }
# What `wipe` would remove: whole trees, or what is beside the mounts in them.
left() {
  there "$1" || return 0
  if ! mounted "$1" && ! mounts_below "$1"; then echo "$1"; return 0; fi
  if [ "$1" != "$2" ] && mounted "$1" && { kept "$1" || [ "$3" != into ]; }; then return 0; fi
  for e in "$1"/* "$1"/.[!.]* "$1"/..?*; do left "$e" "$2" "$3"; done
}
wipe() {
  there "$1" || return 0
  if ! mounted "$1" && ! mounts_below "$1"; then rm -rf -- "$1"; return 0; fi
  if [ "$1" != "$2" ] && mounted "$1" && { kept "$1" || [ "$3" != into ]; }; then return 0; fi
  for e in "$1"/* "$1"/.[!.]* "$1"/..?*; do wipe "$e" "$2" "$3"; done
}
empty_dir() { [ -d "$1" ] && ! mounted "$1" && [ -z "$(ls -A "$1")" ]; }
owned() { command -v dpkg > /dev/null && dpkg -S "$1" > /dev/null 2>&1; }
look
"""

_UNITS = Topic(
    "Stop and remove K3s' units",
    r"""
for u in k3s k3s-agent; do
  for f in /etc/systemd/system/$u.service /etc/systemd/system/$u.service.env \
    /etc/systemd/system/$u.service.d /run/systemd/system/$u.service.d; do
    if there "$f"; then echo "$f"; fi
  done
done
systemctl list-units --all --plain --no-legend k3s.service k3s-agent.service @RESTORE@.service |
  awk '$2 != "not-found" {print $1}'
""",
    r"""
for u in k3s k3s-agent @RESTORE@; do
  systemctl disable --quiet $u.service 2> /dev/null
  systemctl stop $u.service 2> /dev/null
  rm -rf /etc/systemd/system/$u.service /etc/systemd/system/$u.service.env \
    /etc/systemd/system/$u.service.d /run/systemd/system/$u.service.d
done
systemctl daemon-reload
systemctl reset-failed k3s.service k3s-agent.service @RESTORE@.service 2> /dev/null
""",
)

# Before the containers end: with Cilium's links left in place the host may lose its network
# (K3s documentation, basic network options).
_CILIUM = Topic(
    "Remove Cilium's links and programs",
    r"""
for n in /sys/class/net/*; do
  case ${n##*/} in cilium_*|lxc_health|lxc[0-9a-f][0-9a-f]*) echo "link ${n##*/}" ;; esac
done
for n in /sys/class/net/*; do
  n=${n##*/}
  for way in ingress egress; do
    if tc filter show dev "$n" $way 2> /dev/null | grep -q ' cil_'; then echo "programs of $n"; fi
  done
done | sort -u
for f in /sys/fs/bpf/cilium /sys/fs/bpf/tc/globals/cilium_*; do
  if there "$f"; then echo "$f"; fi
done
""",
    r"""
for n in /sys/class/net/*; do
  n=${n##*/}
  case $n in
    cilium_*|lxc_health|lxc[0-9a-f][0-9a-f]*) ip link delete "$n" 2> /dev/null; continue ;;
  esac
  for way in ingress egress; do
    if tc filter show dev "$n" $way 2> /dev/null | grep -q ' cil_'; then
      tc filter del dev "$n" $way
    fi
  done
done
rm -rf /sys/fs/bpf/cilium /sys/fs/bpf/tc/globals/cilium_*
""",
)

_PROCESSES = Topic(
    "End what runs in containers",
    r"""
ls -l /proc/[0-9]*/exe 2> /dev/null | awk -v d="-> $D/data/" '
  (at = index($0, d)) {
    sub(" [(]deleted[)]$", ""); sub(".*/", ""); name = $0; print name
  }' | sort | uniq -c | awk '{print $2 " (" $1 ")"}'
""",
    r"""
tree() {
  echo "$1"
  for c in $(ps -e -o ppid= -o pid= | awk -v p="$1" '$1 == p {print $2}'); do tree "$c"; done
}
for p in $(ls -l /proc/[0-9]*/exe 2> /dev/null |
  awk -v d="-> $D/data/" 'index($0, d) {print $9}' | cut -d/ -f3); do
  kill -9 $(tree "$p") 2> /dev/null
done
n=0
while [ $n -lt 50 ] && ls -l /proc/[0-9]*/exe 2> /dev/null | grep -qF -- "-> $D/data/"; do
  n=$((n + 1)); sleep 0.2
done
""",
)

_PODS = (
    "grep -E '^/run/k3s(/|$)|^/var/lib/kubelet/(pods|plugins)(/|$)"
    "|^/run/netns/cni-|^/run/cilium(/|$)'"
)
_MOUNTS = Topic(
    "Unmount what containers used",
    r"""
printf '%s\n' "$M" | @PODS@
""",
    r"""
printf '%s\n' "$M" | @PODS@ |
  awk '{print length($0) "\t" $0}' | sort -rn | cut -f2- |
  while IFS= read -r m; do timeout 20 umount -f "$m" 2> /dev/null || umount -l "$m"; done
""",
)

_NAMESPACES = Topic(
    "Remove the network namespaces of pods",
    r"""
ip netns list 2> /dev/null | awk '$1 ~ /^cni-/ {print $1}'
if [ -d /run/netns ] && [ -z "$(ls -A /run/netns)" ]; then echo /run/netns; fi
""",
    r"""
for n in $(ip netns list 2> /dev/null | awk '$1 ~ /^cni-/ {print $1}'); do
  ip netns delete "$n"
done
if [ -d /run/netns ] && [ -z "$(ls -A /run/netns)" ]; then
  while umount /run/netns 2> /dev/null; do :; done
  rmdir /run/netns
fi
""",
)

_LINKS = Topic(
    "Remove K3s' network links",
    r"""
for n in /sys/class/net/*; do
  m=$(readlink "$n/master" 2> /dev/null)
  case ${n##*/}:${m##*/} in
    *:cni0|cni0:*|flannel.*:*|flannel-v6.*:*|flannel-wg:*|flannel-wg-v6:*|kube-ipvs0:*)
      echo "${n##*/}" ;;
  esac
done
""",
    r"""
for n in /sys/class/net/*; do
  m=$(readlink "$n/master" 2> /dev/null)
  case ${n##*/}:${m##*/} in *:cni0) ip link delete "${n##*/}" 2> /dev/null ;; esac
done
for n in /sys/class/net/*; do
  case ${n##*/} in
    cni0|flannel.*|flannel-v6.*|flannel-wg|flannel-wg-v6|kube-ipvs0) ip link delete "${n##*/}" ;;
  esac
done
""",
)

# As K3s' own script does it; the chains of Cilium and Istio too, which it leaves.
_OURS = r"grep -E 'KUBE-|CNI-|CILIUM_|ISTIO_|[Ff][Ll][Aa][Nn][Nn][Ee][Ll]'"
_RULES = Topic(
    "Remove packet filter rules",
    r"""
for t in iptables ip6tables; do
  n=$($t-save 2> /dev/null | @OURS@ | grep -c .)
  if [ "$n" != 0 ]; then echo "$t ($n lines)"; fi
done
for s in $(ipset list -name 2> /dev/null | grep -E '^(inet6:)?(KUBE-|kube-router-)'); do
  echo "set $s"
done
nft list tables 2> /dev/null | grep -E ' (kube-proxy|flannel-ipv[46])$'
""",
    r"""
for t in iptables ip6tables; do
  s=$($t-save 2> /dev/null) || continue
  if printf '%s\n' "$s" | @OURS@ > /dev/null; then
    printf '%s\n' "$s" | @OTHERS@ | $t-restore -w 5
  fi
done
for s in $(ipset list -name 2> /dev/null | grep -E '^(inet6:)?(KUBE-|kube-router-)'); do
  ipset destroy "$s"
done
nft list tables 2> /dev/null | grep -E ' (kube-proxy|flannel-ipv[46])$' |
  while read -r _ family name; do nft delete table "$family" "$name"; done
""".replace("@OTHERS@", _OURS.replace("grep ", "grep -v ")),
)

_KEEP = Topic(
    "Keep snapshots and copies of the datastore",
    r"""
if [ "@KEEP@" = yes ]; then
  if ! mounted "$D/server/db/snapshots"; then
    for f in "$D"/server/db/snapshots/*; do if there "$f"; then echo "$f"; fi; done
  fi
  for f in "$D"/server/db-* "$D"/server/tokens/*; do if there "$f"; then echo "$f"; fi; done
fi
""",
    r"""
into=@FOLDER@
umask 077
mkdir -p "$into/tokens" || exit 1
put() {
  there "$1" || return 0
  t=$2/${1##*/}; n=1
  while there "$t"; do t=$2/${1##*/}.$n; n=$((n + 1)); done
  mv -- "$1" "$t" || exit 1
}
if ! mounted "$D/server/db/snapshots"; then
  for f in "$D"/server/db/snapshots/*; do put "$f" "$into"; done
fi
for f in "$D"/server/db-*; do put "$f" "$into"; done
if [ -f @TOKEN@ ]; then (@KEEP_TOKEN@) || exit 1; fi
for f in "$D"/server/tokens/*; do put "$f" "$into/tokens"; done
""",
)

_DATA = Topic(
    "Remove K3s' data",
    r"""
v=$(ls "$D"/storage 2> /dev/null | grep -c .)
left "$D" "$D" into | while IFS= read -r f; do
  if [ "$v" != 0 ] && [ "$f" = "$D" -o "$f" = "$D/storage" ]; then echo "$f ($v local-path volumes)"
  else echo "$f"; fi
done
""",
    r"""
wipe "$D" "$D" into
if empty_dir /var/lib/rancher; then rmdir /var/lib/rancher; fi
""",
)

_STATE = (
    "/var/lib/kubelet /var/lib/cni /run/k3s /run/flannel /run/cilium "
    "/var/log/pods /var/log/containers"
)
_FOLDERS = Topic(
    "Remove the state of kubelet and containers",
    r"""
for f in @STATE@ @REVISION@; do left "$f" "$f" beside; done
for d in /etc/cni/net.d /opt/cni/bin; do
  for f in "$d"/*; do if there "$f" && ! owned "$f"; then echo "$f"; fi; done
  if empty_dir "$d" && ! owned "$d"; then echo "$d"; fi
done
""",
    r"""
for f in @STATE@ @REVISION@; do wipe "$f" "$f" beside; done
if empty_dir /run/picluster; then rmdir /run/picluster; fi
for d in /etc/cni/net.d /opt/cni/bin; do
  for f in "$d"/*; do if there "$f" && ! owned "$f"; then rm -rf -- "$f"; fi; done
  for e in "$d" "${d%/*}"; do if empty_dir "$e" && ! owned "$e"; then rmdir "$e"; fi; done
done
""",
)

_BINARIES = Topic(
    "Remove K3s' programs",
    r"""
for f in @RELEASES@ @LINK@ /usr/local/bin/k3s-killall.sh /usr/local/bin/k3s-uninstall.sh \
  /usr/local/bin/k3s-agent-uninstall.sh; do
  if there "$f"; then echo "$f"; fi
done
for f in kubectl crictl ctr; do
  case $(readlink /usr/local/bin/$f 2> /dev/null) in k3s|@LINK@) echo /usr/local/bin/$f ;; esac
done
""",
    r"""
for f in kubectl crictl ctr; do
  case $(readlink /usr/local/bin/$f 2> /dev/null) in k3s|@LINK@) rm -f /usr/local/bin/$f ;; esac
done
rm -rf @RELEASES@ @LINK@ /usr/local/bin/k3s-killall.sh /usr/local/bin/k3s-uninstall.sh \
  /usr/local/bin/k3s-agent-uninstall.sh
""",
)

_CONFIG = Topic(
    "Remove K3s' configuration",
    r"""
if there /etc/rancher/k3s; then echo /etc/rancher/k3s; fi
if empty_dir /etc/rancher; then echo /etc/rancher; fi
""",
    r"""
rm -rf /etc/rancher/k3s
if empty_dir /etc/rancher; then rmdir /etc/rancher; fi
""",
)

_PASSWORD = Topic(
    "Forget the node's password",
    r"""
if [ "@FORGET@" = yes ] && there @PASSWORD@; then echo @PASSWORD@; fi
""",
    r"""
rm -rf @PASSWORD@
if empty_dir /etc/rancher; then rmdir /etc/rancher; fi
""",
)

_USER_DATA = Topic(
    "Empty the data directories that were named",
    r"""
for p in @WIPE@; do
  d=$(dir_of "$p"); [ -n "$d" ] || continue
  for f in "$d"/* "$d"/.[!.]* "$d"/..?*; do
    case $f in */lost+found) ;; *) left "$f" "$d" beside ;; esac
  done
done
""",
    r"""
for p in @WIPE@; do
  d=$(dir_of "$p"); [ -n "$d" ] || continue
  for f in "$d"/* "$d"/.[!.]* "$d"/..?*; do
    case $f in */lost+found) ;; *) wipe "$f" "$d" beside ;; esac
  done
done
""",
)

# In the order in which they are removed.
TOPICS: Mapping[str, Topic] = {
    "units": _UNITS,
    "cilium": _CILIUM,
    "processes": _PROCESSES,
    "mounts": _MOUNTS,
    "namespaces": _NAMESPACES,
    "links": _LINKS,
    "rules": _RULES,
    "kept": _KEEP,
    "data": _DATA,
    "folders": _FOLDERS,
    "programs": _BINARIES,
    "config": _CONFIG,
    "password": _PASSWORD,
    "user_data": _USER_DATA,
}


def find_script(options: Options, topics: Iterable[str] = TOPICS) -> str:
    """Shell text that prints `topic<TAB>thing` for all that is there, and `end`."""
    parts = [f"{{ {TOPICS[key].find.strip()}\n}} | sed 's/^/{key}\t/'" for key in topics]
    return _filled("\n".join([_PRELUDE, *parts, "echo end"]), options)


def remove_script(key: str, options: Options) -> str:
    """Shell text that removes the things of a topic; it fails naming what is still there."""
    topic = TOPICS[key]
    check = f"""
look
rest=$({topic.find.strip()}
)
if [ -n "$rest" ]; then
  printf 'still there: %s\\n' "$(printf '%s' "$rest" | tr '\\n' ' ')" >&2
  exit 1
fi
"""
    return _filled("\n".join([_PRELUDE, topic.remove, check]), options)


def summary(found: Mapping[str, Sequence[str]]) -> str:
    """What is on a node in one line: data by name, the rest by number; empty for nothing."""
    named = [thing for topic in _NAMED for thing in found.get(topic, ())]
    counted = [f"{len(things)} {topic}" for topic, things in found.items() if topic not in _NAMED]
    return "; ".join(part for part in (", ".join(named), ", ".join(counted)) if part)


_NAMED = ("data", "user_data")


def _filled(text: str, options: Options) -> str:
    spared = [path for path in options.user_data if path not in options.wipe]
    if options.keep_snapshots:
        spared.append(f"{k3s_config.DATA}/server/db/snapshots")
    values = {
        "OURS": _OURS,
        "PODS": _PODS,
        "DATA": k3s_config.DATA,
        "STATE": _STATE,
        "REVISION": k3s_config.REVISION,
        "RELEASES": k3s_config.RELEASES,
        "LINK": k3s_config.LINK,
        "TOKEN": k3s_config.SERVER_TOKEN,
        "KEEP_TOKEN": k3s_config.KEEP_TOKEN,
        "PASSWORD": PASSWORD,
        "RESTORE": RESTORE_UNIT,
        "KEEP": "yes" if options.keep_snapshots else "no",
        "FORGET": "yes" if options.forget_password else "no",
        "FOLDER": shlex.quote(options.kept_in),
        "SPARED": " ".join(map(shlex.quote, spared)),
        "WIPE": " ".join(map(shlex.quote, options.wipe)),
    }
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text.strip() + "\n"
