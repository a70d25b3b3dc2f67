"""The shell texts of a first boot, each run as `sh -c TEXT name argument ...`.

POSIX sh and what is on Ubuntu's images. Each says on standard error, which cloud-init and the
installer log, what it did not do and why; what it has done already it does not do again.
"""

from __future__ import annotations

LABEL = "DATA"  # of the file system for volumes
PARTITION = "storage"  # name of its partition in the table
# A node without its volumes still starts and can be reached.
OPTIONS = "noatime,nofail,x-systemd.device-timeout=30"
FINISHED = "picluster"  # name that a finished installation gives to its second partition

_SAY = r"""set -eu
PATH=$PATH:/usr/sbin:/sbin; LC_ALL=C; export LC_ALL
say() { echo "first boot: $*" >&2; }
"""

# expected size: where root must lie (sd, nvme, mmcblk, or a path of /dev/disk), MiB that root gets.
#
# Runs before growpart, which grows root only up to the next partition. A disk that was divided
# like this before and got a new image has the old table in its last sectors still: sgdisk refuses
# such a disk, and growpart would let root grow over the old volumes. So the old table says where
# they begin; only then is it removed, as the image has replaced it already.
DIVIDE = (
    _SAY
    + r"""expected=$1 size=$2 name=@PARTITION@
keep() {
  say "$*; root does not grow (/etc/growroot-disabled), see docs/first-boot.md"
  touch /etc/growroot-disabled; exit 1
}
root=$(findmnt -no SOURCE /)
disk=$(lsblk -npo PKNAME "$root" | head -n 1)
case $expected in
  /dev/*) [ "$(readlink -f "$expected")" = "$disk" ] || where=wrong ;;
  *) case ${disk##*/} in "$expected"*) ;; *) where=wrong ;; esac ;;
esac
if [ "${where:-}" ]; then
  keep "root is on $disk, not on $expected as the inventory says: it is not divided"
fi
parts=$(sfdisk --dump "$disk" | grep -c 'start=') || keep "$disk has no readable partition table"
if [ "$parts" -gt 2 ]; then say "$disk has $parts partitions: it stays as it is"; exit 0; fi
if grep -qs 'root=PARTUUID=' /proc/cmdline || grep -qs '^PARTUUID=' /etc/fstab
then keep "$disk is named by PARTUUID, which a new partition table would change"; fi
bytes=$(blockdev --getsize64 "$disk") sector=$(blockdev --getss "$disk")
at() { dd if="$disk" iflag=skip_bytes,count_bytes bs=4096 skip="$1" count="$2" 2>/dev/null; }
number() { at "$1" "$2" | od -An -t "u$2" | tr -d ' '; }
start=${size}M last=$((bytes - sector))
if [ "$(at "$last" 8)" = "EFI PART" ] && [ "$(at "$sector" 8)" != "EFI PART" ]; then
  entry=$(($(number $((last + 72)) 8) * sector + 2 * $(number $((last + 84)) 4)))
  old=$(at $((entry + 56)) 72 | tr -d '\000')
  [ "$old" = "$name" ] || keep "$disk has a partition table of before at its end, not of ours"
  start=$(number $((entry + 32)) 8)
  say "$disk has been divided before: its volumes begin at sector $start as they did"
  dd if=/dev/zero of="$disk" oflag=seek_bytes bs="$sector" seek="$last" count=1 conv=notrunc \
    2>/dev/null
elif [ "$bytes" -lt $(((size + 1024) * 1048576)) ]; then
  say "$disk is too small for $size MiB of root and a partition behind it: root gets all"; exit 1
fi
sgdisk "$disk" -g -e -n "3:$start:0" -t 3:8300 -c "3:$name" >&2 || keep "sgdisk failed on $disk"
partx --add --nr 3 "$disk" 2>/dev/null || :
"""
).replace("@PARTITION@", PARTITION)

# place folder: a partition or disk; empty: the third partition of root's disk.
#
# wipefs without --all only lists: every signature of a file system, RAID, LVM or partition table.
MOUNT = (
    (
        _SAY
        + r"""place=$1 folder=$2 label=@LABEL@
disk=$(lsblk -npo PKNAME "$(findmnt -no SOURCE /)" | head -n 1)
if [ -z "$place" ]; then
  case $disk in *[0-9]) place=${disk}p3 ;; *) place=${disk}3 ;; esac
elif [ "$(readlink -f "$place")" = "$disk" ]; then
  say "$place holds the system: it is not formatted"; exit 1
fi
udevadm settle --timeout=20 || :
[ -e "$place" ] || { say "there is no $place"; exit 1; }
found=$(wipefs --noheadings --output TYPE,LABEL "$place") ||
  { say "wipefs cannot tell what $place holds: it is not formatted"; exit 1; }
case $(echo $found) in
  "") mkfs.ext4 -q -L "$label" "$place" ;;
  "ext4 $label") say "$place keeps what it holds" ;;
  *) say "$place holds something else: it is not formatted:" $found; exit 1 ;;
esac
grep -q "[[:space:]]$folder[[:space:]]" /etc/fstab ||
  echo "LABEL=$label $folder ext4 defaults,@OPTIONS@ 0 2" >> /etc/fstab
mkdir -p "$folder"
systemctl daemon-reload
mountpoint -q "$folder" || mount "$folder"
"""
    )
    .replace("@LABEL@", LABEL)
    .replace("@OPTIONS@", OPTIONS)
)

# file words: the first argument names the file, words of the kernel command line follow.
CMDLINE = (
    _SAY
    + r"""file=$1; shift
[ -f "$file" ] || { say "there is no $file"; exit 1; }
[ "$(grep -c '[^[:space:]]' "$file")" = 1 ] || { say "$file is not one line: it stays"; exit 1; }
before=$(tr -d '\r\000' < "$file" | sed '/[^[:space:]]/!d; s/[[:space:]]*$//') after=$before
for word in "$@"; do
  case " $after " in *" $word "*) ;; *) after="$after $word" ;; esac
done
[ "$after" = "$before" ] && exit 0
mkdir -p /var/backups; cp "$file" /var/backups/cmdline.txt.first-boot
printf '%s\n' "$after" > "$file.new"; sync "$file.new"
mv -f "$file.new" "$file"; sync "${file%/*}"
[ "$(cat "$file")" = "$after" ] || { say "$file was not written"; exit 1; }
"""
)

# name mac disk erase: what must hold before the installer touches a disk.
#
# Exit 1 ends the installation before anything is changed (autoinstall's early-commands).
GUARD = (
    _SAY
    + r"""name=$1 mac=$2 wanted=$3 erase=$4
stop() {
  say "$*"; say "nothing was changed"
  say "$*; nothing was changed" 2> /dev/console || :
  exit 1
}
grep -qsix "$mac" /sys/class/net/*/address || stop "this is not $name: no network card has $mac"
fixed=$(lsblk -dnpo NAME,TYPE,TRAN |
  awk '$2 == "disk" && $3 != "usb" && $1 !~ /boot[0-9]$|rpmb$/ {print $1}' | sort)
names() { for f in /dev/disk/by-id/*; do
  case $f in *-part[0-9]* | *-boot[0-9] | *wwn-* | *nvme-eui* | */usb-*) ;; *) echo "$f" ;; esac
done; }
if [ -z "$wanted" ]; then
  [ "$(echo "$fixed" | grep -c .)" = 1 ] ||
    stop "$name has" $fixed "and boot_disk does not say which: one of" $(names)
  disk=$fixed
else
  disk=$(readlink -f "$wanted")
  [ -e "$disk" ] || stop "there is no disk $wanted (boot_disk): one of" $(names)
  case $wanted in
    /dev/disk/*) ;;
    *) kind=$(echo "$disk" | sed -E 's#^(.*/([sv]d|nvme|mmcblk)).*#\1#')
       echo "$fixed" | grep -qx "$disk" || stop "$wanted (boot_disk) is no fixed disk of $name"
       [ "$(echo "$fixed" | grep -c "^$kind")" = 1 ] ||
         stop "$wanted (boot_disk) can be another disk at each start: write one of" $(names) ;;
  esac
fi
for place in /cdrom /run/live/medium; do
  media=$(findmnt -no SOURCE "$place" 2>/dev/null) || continue
  [ "$media" != "$disk" ] && [ "$(lsblk -npo PKNAME "$media" | head -n 1)" != "$disk" ] ||
    stop "$disk is what the installer was started from"
done
[ "$(sfdisk --part-label "$disk" 2 2>/dev/null)" != "@FINISHED@" ] ||
  stop "$disk has a finished installation: take the installer's stick out and start again;" \
    "to install anew, first type: wipefs --all --force $disk"
found=$(wipefs --noheadings --output TYPE "$disk") || stop "$disk cannot be read"
[ -z "$found" ] || [ "$erase" = yes ] ||
  stop "$disk is not empty ("$found"): render with ERASE=$name to let the installer erase it"
"""
).replace("@FINISHED@", FINISHED)

# The installation is finished: the guard knows it by this name.
FINISH = (
    _SAY
    + r"""disk=$(lsblk -npo PKNAME "$(findmnt -no SOURCE "${1:-/target}/boot")" | head -n 1)
sfdisk --no-reread --no-tell-kernel --force --part-label "$disk" 2 @FINISHED@
"""
).replace("@FINISHED@", FINISHED)
