"""What is run on hosts for central storage. Each script refuses by itself what holds anything.

What a fact said of a disk may be over when a script runs, so each looks again. It writes down which
disk it begins to write to, and that it has ended: what a cut in between leaves there (no signature,
LVM's mark without a group, a part of a file system) is ours, and the next run goes on.
"""

from __future__ import annotations

from cluster.managed import MANAGED
from cluster.services.san import LUN

TGT_CONFIG = "/etc/tgt/conf.d/picluster.conf"
TGT_APPLIED = "/run/picluster/tgt.applied"  # sha256 of the file that tgtd has read
TGT_MARK = (
    f"mkdir -p {TGT_APPLIED.rpartition('/')[0]}; "
    f"sha256sum < {TGT_CONFIG} | cut -c1-64 > {TGT_APPLIED}"
)
BEGUN = "/var/lib/picluster/san.begun"  # the disk that a script has begun to write to
NEW = "picluster.new"  # LVM's tag of a volume that is not empty yet, and was never offered
EMPTY = 4 << 20  # bytes at the start of a disk, which are zeros where it is empty

# Where a superblock tells that nothing can be in a file system yet. mkfs.xfs writes it first, as in
# progress, and takes that back at its end: no kernel mounts it before. mke2fs writes it last, but
# the disk may get it first; what was mounted has a time of that.
EXT4_MOUNTED = 1024 + 0x2C  # s_mtime
XFS_IN_PROGRESS = 126  # sb_inprogress

# `identity` does not change with the name of a disk alone: another one may have that after a boot.
CONTENTS = rf"""
readable() {{ head -c {EMPTY} "$1" 2>&1 > /dev/null; }}
blank() {{ [ "$(head -c {EMPTY} "$1" | tr -d '\000' | head -c 1 | wc -c)" -eq 0 ]; }}
identity() {{
  echo "$1" $(lsblk -dnbo SIZE,WWN,SERIAL,PARTUUID "$(readlink -f "$1")" 2> /dev/null)
}}
begun() {{ [ -f {BEGUN} ] && [ "$(cat {BEGUN})" = "$(identity "$1")" ]; }}
bytes() {{ od -An -tu1 -j "$2" -N "$3" "$1" | tr -d ' \n'; }}
unused() {{
  case $2 in
    ext4) [ "$(bytes "$1" {EXT4_MOUNTED} 4)" = 0000 ] ;;
    xfs) [ "$(bytes "$1" {XFS_IN_PROGRESS} 1)" = 1 ] ;;
    *) return 1 ;;
  esac
}}
"""
_WRITE = (
    CONTENTS
    + rf"""set -eu
begin() {{
  mkdir -p {BEGUN.rpartition("/")[0]}
  identity "$1" > {BEGUN}.new; mv -f {BEGUN}.new {BEGUN}; sync
}}
leave() {{ echo "$1: left alone" >&2; exit 1; }}
signatures() {{ wipefs --noheadings --output TYPE "$1"; }}
"""
)
ENDED = f"rm -f {BEGUN}"

MAKE_GROUP = (
    _WRITE
    + rf"""disk=$1 group=$2 wipe=$3
if [ -z "$wipe" ] && begun "$disk"; then
  [ -z "$(pvs --noheadings -o vg_name "$disk" 2> /dev/null | tr -d ' ')" ] ||
    leave "$disk belongs to a volume group"
  case $(signatures "$disk") in ""|LVM2_member) wipe=again ;; esac
fi
if [ -z "$wipe" ]; then
  found=$(signatures "$disk")
  [ -z "$found" ] || leave "$disk holds $found"
  blank "$disk" || leave "$disk holds data without a signature"
fi
begin "$disk"
if [ -n "$wipe" ]; then
  real=$(readlink -f "$disk"); base=${{real##*/}}
  for one in /sys/class/block/"$base"/"$base"*; do
    [ ! -d "$one" ] || wipefs --all "/dev/${{one##*/}}"
  done
  wipefs --all "$disk"
fi
pvcreate "$disk" < /dev/null
vgcreate "$group" "$disk"
{ENDED}
"""
)
# The disk may have held something before, and its remains would be taken for data of the node.
MAKE_VOLUME = rf"""set -eu
group=$1 node=$2 size=$3; path=/dev/$group/$node
if [ ! -e "$path" ]; then
  if lvs "$group/$node" > /dev/null 2>&1; then
    lvchange --activate y "$group/$node"; late=yes
  else
    lvcreate --yes --wipesignatures n --zero n --addtag {NEW} --size "${{size}}b" \
      --name "$node" "$group"
  fi
fi
case ,$(lvs --noheadings -o lv_tags "$group/$node" | tr -d ' '), in
  *,{NEW},*) ;;
  *) [ -z "${{late-}}" ] || exit 0; echo "$path is there: left alone" >&2; exit 1 ;;
esac
head -c {EMPTY} /dev/zero | dd of="$path" conv=notrunc,fsync 2> /dev/null
wipefs --all "$path"
lvchange --deltag {NEW} "$group/$node"
"""
MAKE_FILE = r"""set -eu
umask 077
mkdir -p "${1%/*}"
[ ! -e "$1" ] || { echo "$1 is there: left alone" >&2; exit 1; }
truncate -s "$2" "$1.new"
mv -n "$1.new" "$1"
"""
MAKE_FILE_SYSTEM = (
    _WRITE
    + rf"""found=$(signatures "$1")
if begun "$1" && unused "$1" "$found"; then wipefs --all "$1" > /dev/null; found=; fi
[ -z "$found" ] || leave "$1 holds $found"
begun "$1" || blank "$1" || leave "$1 holds data without a signature"
begin "$1"
"mkfs.$2" -q "$1"
sync
{ENDED}
"""
)

# Reads what is wanted on standard input, with the password in it. What is there stays, and so do
# sessions. By rtslib itself: targetcli would print the password, and needs a message bus.
LIO_OFFER = """\
import json, os, sys
from rtslib_fb import (LUN, TPG, BlockStorageObject, FabricModule, FileIOStorageObject,
                       NetworkPortal, RTSRoot, Target)

wanted, root = json.load(sys.stdin), RTSRoot()
store = next((one for one in root.storage_objects if one.name == wanted["node"]), None)
if store is None:
    path = wanted["path"]
    if os.path.isfile(path):
        store = FileIOStorageObject(wanted["node"], dev=path, size=os.path.getsize(path))
    else:
        store = BlockStorageObject(wanted["node"], dev=path)
group = TPG(Target(FabricModule("iscsi"), wanted["target"]), 1)
if not list(group.luns):
    LUN(group, wanted["lun"], storage_object=store)
for portal in list(group.network_portals):
    if portal.ip_address != wanted["address"]:
        portal.delete()
NetworkPortal(group, wanted["address"], wanted["port"])
for key in ("authentication", "generate_node_acls", "cache_dynamic_acls"):
    group.set_attribute(key, "1")
group.set_attribute("demo_mode_write_protect", "0")
group.chap_userid, group.chap_password = wanted["node"], wanted["password"]
group.enable = True
root.save_to_file()
"""
# What is run when a volume appears, with its path: the targets that wait for it get it. At a boot
# tgt and LIO offer what is there, and the other targets have no disk until then.
OFFER = "/usr/local/lib/picluster/san-offer"
LOCK = "/run/picluster.san.lock"  # a run and an appearing volume do not offer at the same time
LIO_LATE = (
    MANAGED
    + f"""\
import json, subprocess, sys
from rtslib_fb import RTSRoot

path, root, saved_in = sys.argv[1], RTSRoot(), "/etc/rtslib-fb-target/saveconfig.json"
tags = subprocess.check_output(["lvs", "--noheadings", "-o", "lv_tags", path], text=True)
if "{NEW}" in tags or any(one.udev_path == path for one in root.storage_objects):
    sys.exit()
try:
    with open(saved_in) as file:
        saved = json.load(file)
except FileNotFoundError:
    sys.exit()
errors = []
for store in (one for one in saved["storage_objects"] if one.get("dev") == path):
    luns = f"/backstores/{{store['plugin']}}/{{store['name']}}"
    for target in saved["targets"]:
        if luns in (lun["storage_object"] for group in target["tpgs"] for lun in group["luns"]):
            errors += root.restore_from_file(saved_in, True, target["wwn"], store["name"])
sys.exit("\\n".join(errors))
"""
)
_TGT_LUN = rf"""lun() {{
  ! lvs --noheadings -o lv_tags "$1" 2> /dev/null | grep -qF {NEW} || return 0
  name=$(awk -v path="$1" '/^<target / {{gsub(/[<>]/, ""); name = $2}}
    $1 == "<backing-store" && $2 == path ">" {{print name}}' {TGT_CONFIG})
  id=$(tgtadm --lld iscsi --mode target --op show | awk -v name="$name" '
    $1 == "Target" {{id = ""; if ($3 == name) {{sub(":", "", $2); id = $2; found = id}}}}
    id && $1 == "LUN:" && $2 == {LUN} {{found = ""}}
    END {{print found}}')
  [ -z "$id" ] || tgtadm --lld iscsi --mode logicalunit --op new --tid "$id" --lun {LUN} \
    --backing-store "$1"
}}
"""
TGT_LATE = f'{MANAGED}set -eu\n{_TGT_LUN}[ ! -f {TGT_CONFIG} ] || lun "$1"\n'

# tgt-admin leaves the password of an account that there is as it is; so that is set first. Sessions
# go on: a password is asked for at log-in. What is in use is not made anew by --update.
TGT_APPLY = rf"""set -eu
tgt-admin --pretend --execute --conf {TGT_CONFIG} > /dev/null
do_() {{ tgtadm --lld iscsi "$@"; }}
offered=$(do_ --mode target --op show)
awk '/^<target / {{gsub(/[<>]/, ""); name = $2}} $1 == "incominguser" {{print name, $2, $3}}' \
  {TGT_CONFIG} | while read -r name user password; do
  do_ --mode account --op delete --user "$user" 2> /dev/null || true
  id=$(printf '%s\n' "$offered" | awk -v name="$name" '
    $1 == "Target" && $3 == name {{sub(":", "", $2); print $2}}')
  [ -n "$id" ] || continue
  do_ --mode account --op new --user "$user" --password "$password"
  do_ --mode account --op bind --tid "$id" --user "$user"
done
tgt-admin --update ALL --conf {TGT_CONFIG}
{_TGT_LUN}awk '$1 == "<backing-store" {{sub(">", "", $2); print $2}}' {TGT_CONFIG} |
  while read -r path; do lun "$path"; done
{TGT_MARK}
"""
# Ends a former mount: its unit, its path, the target to leave and its portal (empty: it is still
# wanted), files. The unit's own file goes last: by it the next run finds what a cut left.
LEAVE = r"""set -eu
unit=$1 path=$2 name=$3 portal=$4; shift 4
! grep -qF " $path " /proc/mounts || umount "$path"
systemctl disable "$unit"
if [ -n "$name" ]; then
  ! iscsiadm -m session 2> /dev/null | grep -qF " $name " ||
    iscsiadm -m node -T "$name" -p "$portal" --logout
  ! iscsiadm -m node -T "$name" -p "$portal" > /dev/null 2>&1 ||
    iscsiadm -m node -T "$name" -p "$portal" -o delete
fi
for file; do
  rm -f "$file"; rmdir "${file%/*}" 2> /dev/null || true
done
systemctl daemon-reload
"""
# The password comes on standard input, and goes into the file that only root reads. The new file
# is made outside of the records: open-iscsi takes whatever a power cut leaves there for one.
LOGIN = r"""set -eu
umask 077
name=$1 portal=$2 device=$3; shift 3
iscsiadm -m node -o new -T "$name" -p "$portal" > /dev/null
file=
for one in /etc/iscsi/nodes/"$name"/* /etc/iscsi/nodes/"$name"/*/* \
  /var/lib/iscsi/nodes/"$name"/* /var/lib/iscsi/nodes/"$name"/*/*; do
  [ ! -f "$one" ] || file=$one
done
[ -n "$file" ] || { echo "open-iscsi keeps no record of $name" >&2; exit 1; }
new=${file%%/nodes/*}/picluster.new
{
  grep -v -e '^# END RECORD' -e '^node\.session\.auth\.password = ' "$file" > "$new"
  for setting; do
    key=${setting%% = *}
    grep -vF "$key = " "$new" > "$new.2" || true
    mv -f "$new.2" "$new"; printf '%s\n' "$setting" >> "$new"
  done
  printf 'node.session.auth.password = %s\n# END RECORD\n' "$(cat)" >> "$new"
  mv -f "$new" "$file"
}
iscsiadm -m session 2>/dev/null | grep -qF " $name " ||
  iscsiadm -m node -T "$name" -p "$portal" --login
n=0
until [ -e "$device" ]; do
  n=$((n + 1)); [ $n -lt 60 ] || {
    iscsiadm -m node -T "$name" -p "$portal" --logout > /dev/null || true
    echo "$device did not appear within 30 s" >&2; exit 1
  }
  sleep 0.5
done
"""
