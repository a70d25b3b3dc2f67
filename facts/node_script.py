"""The shell text of the combined node fact.

POSIX sh and what a minimal Debian or Ubuntu has, without options that only GNU's tools know:
26.04 has others. It changes nothing, and exits 0 also where half of the programs are missing.
"""

from __future__ import annotations

from cluster import base
from cluster.question import EVERYWHERE, Question
from facts.tagged import HEAD, MODULES, filled, quoted

_SCRIPT = (
    HEAD
    + r"""now=$(date +%s.%N)
first() { head -n 1 "$1" 2>/dev/null; }
text() { [ -f "$1" ] && base64 < "$1" | tr -d '\n'; }
say clock "$now" "$(first /proc/uptime)"
(. /etc/os-release 2>/dev/null; say os "$ID" "$VERSION_ID" "$PRETTY_NAME")
say arch "$(dpkg --print-architecture 2>/dev/null || uname -m)"
kernel=$(uname -r); say kernel "$kernel"
for f in /proc/device-tree/model /sys/firmware/devicetree/base/model; do
  [ -f $f ] && model=$(tr -d '\000' < $f) && break
done
say board "$model" \
  "$(first /sys/class/dmi/id/product_name)"
say hostname "$(first /proc/sys/kernel/hostname)" "$(first /etc/hostname)"
say timezone "$(readlink /etc/localtime 2>/dev/null)"
say locale "$(sed -n 's/^LANG=//p' /etc/default/locale 2>/dev/null | tail -n 1)" \
  "$(locale -a 2>/dev/null | tr '\n' ' ')"
say ids "$(first /etc/machine-id)" "$(first /proc/sys/kernel/random/boot_id)"
say memory "$(awk '/^MemTotal:/ {print $2}' /proc/meminfo)" "$(getconf PAGESIZE 2>/dev/null)"
say stack "$(sed -n 's/-.*\[stack\]$//p' /proc/self/maps)"
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
  say cgroup v2 "$(cat /sys/fs/cgroup/cgroup.controllers)"
else
  say cgroup v1 "$(awk '$4 == 1 {print $1}' /proc/cgroups 2>/dev/null | tr '\n' ' ')"
fi
dpkg-query -W -f 'package\t${Package}\t${Version}\t${db:Status-Abbrev}\n' @PACKAGES@ 2>/dev/null
limited 'systemctl show' systemctl show -p Id -p LoadState -p ActiveState -p UnitFileState \
  -p StateChangeTimestampMonotonic @UNITS@ | sed 's/^/unit\t/'
stat -c "file$t%n$t%a$t%U:%G$t%Y" @FILES@ 2>/dev/null
# A name with a backslash comes escaped, and its line begins with one more (sha256sum(1)).
sha256sum @FILES@ 2>/dev/null | awk '{
  if (sub(/^\\/, "")) gsub(/\\\\/, "\\")
  print "sha256\t" substr($0, 67) "\t" substr($0, 1, 64)
}'
for f in @LINKS@; do [ -L "$f" ] && say link "$f" "$(readlink "$f")"; done
for f in @EDITED@; do [ -f "$f" ] && say text "$f" "$(text "$f")"; done
awk 'NR > 1 {print "swap\t" $1}' /proc/swaps 2>/dev/null
"""
    + MODULES
    + r"""# Not with `read`: dash reads byte by byte, and these files end after the first.
grep -s '' /dev/null @SETTINGS@ | sed 's/^/sysctl\t/'
say login "${SUDO_USER:-$(id -un)}"
limited 'getent passwd' getent passwd | awk -F: '$3 == 0 || ($3 >= 1000 && $3 < 60000)' |
while IFS=: read -r n x u g c h s; do
  say account "$n" "$u" "$h" "$s" "$(id -nG "$n")" "$(text "$h/.ssh/authorized_keys")"
done
if have snap; then
  list=$(limited 'snap list' sh -c 'snap list 2>&1 && echo listed')
  case $list in
    *listed) printf '%s\n' "$list" | awk 'NR > 1 && NF > 1 {print "snap\t" $1 "\t" $NF}' ;;
    '') say snaps_unread 'snap list does not end' ;;
    *) say snaps_unread "$(printf '%s\n' "$list" | tail -n 1)" ;;
  esac
  for d in /var/snap/lxd/common/lxd/containers/* /var/snap/lxd/common/lxd/virtual-machines/*; do
    if [ -e "$d" ] || [ -L "$d" ]; then say lxd "${d##*/}"; fi
  done
fi
ip -4 route show default 2>/dev/null | sed 's/^/route\t/'
ip -o -4 addr show 2>/dev/null | awk '{sub(/\/.*/, "", $4); print "address\t" $4 "\t" $2}'
ss -H -lntup 2>/dev/null | awk '{print "listen\t" $1 "\t" $5 "\t" $7}'
for d in / /var/lib/rancher /var/lib/longhorn; do
  limited "df $d" sh -c '[ -d "$1" ] && df -Pk "$1"' df $d |
    awk -v d=$d 'NR == 2 {print "disk\t" d "\t" $2 "\t" $4}' &
done
wait
say iscsi "$(sed -n 's/^InitiatorName=//p' @INITIATOR@ 2>/dev/null)" \
  "$(ls /sys/class/iscsi_session 2>/dev/null | wc -l)"
sshd -T 2>/dev/null | sed -n 's/^\(@SSHD@\) /sshd\t\1\t/p'
grep -qiE '^[[:space:]]*include[[:space:]].*sshd_config\.d/\*\.conf' @SSHD_MAIN@ 2>/dev/null &&
  say has sshd-include
[ -d /etc/cloud/cloud.cfg.d ] && say has cloud-init
for d in /usr/lib /lib /usr/local/lib; do
  [ -x $d/systemd/system-generators/zram-generator ] && say has zram-generator
done
if limited 'systemctl is-active' systemctl is-active systemd-logind.service | grep -qx active; then
  say inhibit "$(limited busctl busctl get-property org.freedesktop.login1 \
    /org/freedesktop/login1 org.freedesktop.login1.Manager InhibitDelayMaxUSec)"
fi
have chronyc && say tracking "$(limited chronyc chronyc -c tracking)"
[ -f /run/reboot-required ] &&
  say reboot "$(sort -u /run/reboot-required.pkgs 2>/dev/null | tr '\n' ' ')"
say end
"""
)


def script(ask: Question = EVERYWHERE) -> str:
    """The shell text that answers the question."""
    files = (*base.FILES, *map(base.sudoers, ask.users), *ask.files)
    settings = dict.fromkeys((*base.SETTINGS, *ask.settings))
    return filled(
        _SCRIPT,
        PACKAGES=quoted((*base.PACKAGES, *ask.packages)),
        UNITS=quoted((*base.UNITS, *ask.units)),
        FILES=quoted(files),
        LINKS=quoted(base.LINKS),
        EDITED=quoted(base.EDITED),
        MODULES=quoted(base.ALL_MODULES),
        SETTINGS=quoted(map(base.kernel_path, settings)),
        INITIATOR=base.INITIATOR,
        SSHD=r"\|".join(base.SSHD_SETTINGS),
        SSHD_MAIN=base.SSHD_MAIN,
    )
