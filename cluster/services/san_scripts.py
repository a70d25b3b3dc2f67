"""What is run on hosts for central storage. Each script refuses by itself what holds anything.

What a fact said of a disk may be over when a script runs, so each looks again. It writes down which
disk it begins to write to, and that it has ended: what a cut in between leaves there (no signature,
LVM's mark without a group, a part of a file system) is ours, and the next run goes on.
"""

from __future__ import annotations

TGT_CONFIG = "/etc/tgt/conf.d/picluster.conf"
TGT_APPLIED = "/run/picluster/tgt.applied"  # sha256 of the file that tgtd has read
TGT_MARK = (
    f"mkdir -p {TGT_APPLIED.rpartition('/')[0]}; "
    f"sha256sum < {TGT_CONFIG} | cut -c1-64 > {TGT_APPLIED}"
)
BEGUN = "/var/lib/picluster/san.begun"  # the disk that a script has begun to write to
NEW = "picluster.new"  # LVM's tag of a volume that is not empty yet, and was never offered
EMPTY = 4 << 20  # bytes at the start of a disk, which are zeros where it is empty

# `identity` does not change with the name of a disk alone: another one may have that after a boot.
CONTENTS = rf"""
readable() {{ head -c {EMPTY} "$1" 2>&1 > /dev/null; }}
blank() {{ [ "$(head -c {EMPTY} "$1" | tr -d '\000' | head -c 1 | wc -c)" -eq 0 ]; }}
identity() {{
  echo "$1" $(lsblk -dnbo SIZE,WWN,SERIAL,PARTUUID "$(readlink -f "$1")" 2> /dev/null)
}}
begun() {{ [ -f {BEGUN} ] && [ "$(cat {BEGUN})" = "$(identity "$1")" ]; }}
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
[ -e "$path" ] || lvcreate --yes --wipesignatures n --zero n --addtag {NEW} --size "${{size}}b" \
  --name "$node" "$group"
case ,$(lvs --noheadings -o lv_tags "$group/$node" | tr -d ' '), in
  *,{NEW},*) ;;
  *) echo "$path is there: left alone" >&2; exit 1 ;;
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
{TGT_MARK}
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
  n=$((n + 1)); [ $n -lt 60 ] || { echo "$device did not appear within 30 s" >&2; exit 1; }
  sleep 0.5
done
"""
