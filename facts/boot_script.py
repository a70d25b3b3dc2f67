"""The shell text of the boot fact.

POSIX sh and what busybox has too, so that it also runs in an initramfs; /proc and /sys rather than
programs. It changes nothing, and exits 0 also where half of what it looks for is missing.
"""

from __future__ import annotations

import shlex

from cluster.boot import places
from facts.tagged import HEAD, filled, quoted

_SCRIPT = (
    HEAD
    + r"""now=$(date +%s)
tree=/proc/device-tree
[ -e "$tree/model" ] || tree=/sys/firmware/devicetree/base
get() { v=; [ -r "$1" ] && { read -r v < "$1"; } 2> /dev/null; }
text() { { base64 < "$1" | tr -d '\n'; } 2> /dev/null; }
hex() { od -An -v -tx1 "$1" 2> /dev/null | tr -d ' \n'; }
octets() { od -An -v -tx1 "$1" 2> /dev/null | tr -s ' \n' ' '; }
plain() { { tr -d '\000' < "$1"; } 2> /dev/null; }
# The whole disk under a block device: partitions belong to their parent, LVM and LUKS to slaves.
whole() {
  d=$(readlink -f "$1")
  while [ -n "$d" ]; do
    [ -f "$d/partition" ] && d=${d%/*}
    for s in "$d"/slaves/*; do [ -e "$s" ] && { d=$(readlink -f "$s"); continue 2; }; break; done
    break
  done
  printf '%s' "${d##*/}"
}
get /proc/uptime; say clock "$now" "${v%% *}"
(. /etc/os-release 2> /dev/null; say release "$VERSION_ID")
kernel=$(uname -r); say kernel "$kernel"
for d in /lib/modules/*/; do [ -d "$d" ] && d=${d%/} && say installed "${d##*/}"; done
get /proc/sys/kernel/random/boot_id; say boot_id "$v"
get /sys/class/dmi/id/product_name; product=$v
revision=$(hex "$tree/system/linux,revision"); serial=$(hex "$tree/system/linux,serial")
[ -n "$revision" ] || revision=$(sed -n 's/^Revision[[:space:]]*: //p' /proc/cpuinfo 2> /dev/null)
[ -n "$serial" ] || serial=$(sed -n 's/^Serial[[:space:]]*: //p' /proc/cpuinfo 2> /dev/null)
model=$(plain "$tree/model"); say board "$model" "$revision" "$serial" "$product"
for m in / @FOLDER@; do
  set -- $(awk -v m="$m" '$5 == m { for (i = 7; $i != "-"; i++); l = $3 " " $(i + 2) " " $(i + 1) \
    " " $6 "," $(i + 3) } END { print l }' /proc/self/mountinfo 2> /dev/null)
  [ $# -ge 4 ] || continue
  b=/sys/dev/block/$1; [ -e "$b" ] || b=/sys/class/block/${2##*/}
  free=$(limited "df $m" df -Pk "$m" | awk 'NR == 2 { print $4 }')
  [ -e "$b" ] && disk=$(whole "$b") || disk=
  say mount "$m" "$2" "$3" "$4" "$disk" "$free"
done
say running "$(cat /proc/cmdline 2> /dev/null)"
case $model in *"Raspberry Pi"*) pi=1 ;; *) pi= ;; esac
if [ -n "$pi" ]; then
  cd @FOLDER@ 2> /dev/null && {
    more=$(sed -n 's/\r$//; s/^include //p; s/^cmdline=//p' config.txt 2> /dev/null)
    folders=$(sed -n 's/\r$//; s/^os_prefix=//p' config.txt 2> /dev/null)
    for f in config.txt autoboot.txt cmdline.txt state $more; do
      for p in '' current/ new/ old/ $folders; do [ -f "$p$f" ] && printf '%s\n' "$p$f"; done
    done | sort -u | while read -r f; do
      say file "$f" "$(stat -c %Y "$f" 2> /dev/null)" "$(text "$f")"
    done
    [ -f pieeprom.upd ] && say eeprom staged yes
    cd /
  }
  chosen=$tree/chosen/bootloader
  say eeprom built "$(hex $chosen/build-timestamp)"; say eeprom version "$(plain $chosen/version)"
  say eeprom updated "$(hex $chosen/update-timestamp)"
  node=$(plain $tree/aliases/blconfig)
  [ -n "$node" ] && for d in /sys/bus/nvmem/devices/*; do
    case $(readlink -f "$tree")$node in
      "$(readlink -f "$d/of_node")"*) say eeprom config "$(text "$d/nvmem")"; node=; break ;;
    esac
  done
  if have vcgencmd; then
    [ -e $chosen/build-timestamp ] ||
      say eeprom said "$(limited vcgencmd vcgencmd bootloader_version | base64 | tr -d '\n')"
    [ -r /sys/bus/nvmem/devices/blconfig0/nvmem ] ||
      say eeprom asked "$(limited vcgencmd vcgencmd bootloader_config | base64 | tr -d '\n')"
    say throttled "$(limited vcgencmd vcgencmd get_throttled)"
  fi
  for f in /sys/devices/platform/soc/soc:firmware/get_throttled \
      /sys/devices/platform/soc@*/*firmware*/get_throttled; do
    [ -r "$f" ] && get "$f" && say throttled "$v"
  done
  # Not by rpi-eeprom-update: older ones forget a staged update when they are only asked.
  if have rpi-eeprom-update; then
    say eeprom tool yes
    (
      FIRMWARE_ROOT=/usr/lib/firmware/raspberrypi/bootloader FIRMWARE_RELEASE_STATUS=default
      [ ! -r /etc/default/rpi-eeprom-update ] || . /etc/default/rpi-eeprom-update
      case $(plain $tree/compatible) in *bcm2712*) chip=2712 ;; *) chip=2711 ;; esac
      for d in "$FIRMWARE_ROOT-$chip" "$FIRMWARE_ROOT" "/lib${FIRMWARE_ROOT#/usr/lib}"; do
        [ -d "$d/$FIRMWARE_RELEASE_STATUS" ] || continue
        f=$(ls "$d/$FIRMWARE_RELEASE_STATUS"/pieeprom-????-??-??.bin | sort | tail -n 1)
        say eeprom latest "$(grep -a -o 'BUILD_TIMESTAMP=[0-9]*' "$f" | head -n 1)"
        break
      done
    ) 2> /dev/null
  fi
  say supply "$(hex $tree/chosen/power/max_current)"
  for d in /sys/class/hwmon/hwmon*; do
    get "$d/name"; [ "$v" = rpi_volt ] && get "$d/in0_lcrit_alarm" && say alarm "$v"
  done
fi
for d in /sys/class/thermal/thermal_zone*; do
  get "$d/type"; k=$v; get "$d/temp"; [ -n "$v" ] && say thermal "$k" "$v"
done
for b in /sys/block/sd* /sys/block/nvme*n* /sys/block/mmcblk* /sys/block/vd*; do
  n=${b##*/}
  case $n in *boot[0-9]|*rpmb|nvme*c*) continue ;; esac
  [ -e "$b" ] || continue
  device=$(readlink -f "$b/device"); say disk "$n" device "$device"
  for f in size queue/discard_max_bytes queue/rotational device/model; do
    get "$b/$f"; [ -n "$v" ] && say disk "$n" "${f##*/}" "$v"
  done
  case $n in mmcblk*) get "$b/device/type"; say disk "$n" mmc_type "$v" ;; esac
  for f in "$b"/device/scsi_disk/*/provisioning_mode; do
    get "$f"; [ -n "$v" ] && say disk "$n" provisioning_mode "$v"
  done
  [ -r "$b/device/vpd_pgb2" ] && say disk "$n" vpd_pgb2 "$(octets "$b/device/vpd_pgb2")"
  u=$device
  while [ -n "$u" ] && [ ! -f "$u/idVendor" ]; do u=${u%/*}; done
  [ -n "$u" ] || continue
  rest=${device#"$u"/}; driver=$(readlink "$u/${rest%%/*}/driver")
  say disk "$n" port "${u##*/}"; say disk "$n" driver "${driver##*/}"
  for f in idVendor idProduct bcdDevice product serial speed power/control; do
    get "$u/$f"; [ -n "$v" ] && say disk "$n" "${f##*/}" "$v"
  done
done
have lsblk &&
  limited lsblk lsblk -P -o NAME,PKNAME,LABEL,PARTUUID,FSTYPE,MOUNTPOINT | sed 's/^/partition\t/'
say page "$(getconf PAGESIZE 2> /dev/null ||
  awk '/^KernelPageSize/ { print $2 * 1024; exit }' /proc/self/smaps 2> /dev/null)"
say bits "$(grep -h '^CONFIG_ARM64_VA_BITS=' "/boot/config-$kernel" 2> /dev/null)" \
  "$(sed -n 's/-.*\[stack\]$//p' /proc/self/maps 2> /dev/null)"
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
  say controllers v2 "$(cat /sys/fs/cgroup/cgroup.controllers)"
else say controllers v1 ''; fi
for d in /sys/class/net/*; do
  if [ -e "$d/wireless" ] || [ -e "$d/phy80211" ]; then
    n=${d##*/}
    say radio wifi "$n" "$(ip -o -4 addr show dev "$n" 2> /dev/null |
      awk '{ sub("/.*", "", $4); print $4 }' | tr '\n' ' ')"
  fi
done
for d in /sys/class/bluetooth/hci*; do [ -e "$d" ] && say radio bluetooth "${d##*/}"; done
awk '$2 == "00000000" && $8 == "00000000" { print "route\t" $1 }' /proc/net/route 2> /dev/null
awk '$1 == "00000000000000000000000000000000" && $2 == "00" && $10 != "lo" {
  print "route\t" $10 }' /proc/net/ipv6_route 2> /dev/null
say swaps "$(text /proc/swaps)"
get /sys/class/watchdog/watchdog0/identity; k=$v; get /sys/class/watchdog/watchdog0/state
say watchdog "$k" "$v"
limited 'systemctl show' systemctl show -p RuntimeWatchdogUSec -p RebootWatchdogUSec \
  -p UserspaceTimestampMonotonic | sed 's/^/systemd\t/'
for f in @OURS@; do [ -f "$f" ] && say ours "$f" "$(text "$f")"; done
dmesg 2> /dev/null | sed 's/^\[[ 0-9.]*\] //' | grep -E @LOG@ | tail -n 60 | sed 's/^/log\t/'
[ -f @PENDING@ ] && sed 's/^/pending\t/' @PENDING@
say end
"""
)

# What the kernel says about bridges, disks and power; `cluster/boot/bridges.py` reads it.
_LOG = (
    "uas_eh_|data cmplt err|reset (SuperSpeed|high-speed) USB|xHCI host|UAS is ignored"
    "|Quirks match|USB disconnect|I/O error|controller is down|Remounting filesystem"
    "|[Uu]ndervoltage|Voltage normalised"
)


def script() -> str:
    """The shell text."""
    return filled(
        _SCRIPT,
        FOLDER=places.FOLDER,
        OURS=quoted((places.UDEV_RULE, places.WATCHDOG)),
        PENDING=places.PENDING,
        LOG=shlex.quote(_LOG),
    )
