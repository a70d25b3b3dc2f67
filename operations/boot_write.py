"""The script that replaces a file of the boot partition.

The partition is FAT: it has no journal, owners or modes. So the new file is written beside the old
one and flushed before it takes its name, and is read again afterwards; whenever the power fails,
the file is the old or the new one. The copy to go back to lies on the root file system, which has
room for it. The time stays that of the old file: FAT keeps local times, and after `timedatectl
set-timezone` those of this boot are read otherwise by the next one, which must not take our edit
for one that was made after it. What waits for a reboot is noted apart, where a boot forgets it.
"""

from __future__ import annotations

from cluster.boot import places

# Folder, path below it, sha256 of the old and of the new content, a line for what waits for a
# reboot; the new content in base64 on standard input.
_SCRIPT = r"""set -e
folder=$1 p=$1/$2 old=$3 new=$4 note=$5
die() { echo "$p $1" >&2; exit 1; }
sum() { sha256sum < "$1" | cut -d ' ' -f 1; }
mountpoint -q "$folder" || die "is not on a boot partition: $folder is not mounted"
[ "$(cat "$folder/new/state" 2> /dev/null)" != trying ] || die "is being tried by this very boot"
[ "$(sum "$p")" = "$old" ] || die "was changed by somebody else just now: run again"
rm -f "$p".tmp-*
backups=@BACKUPS@; name=$(printf %s "$2" | tr / -)
mkdir -p "$backups"
b=$backups/$name.$(date -u +%Y%m%dT%H%M%SZ)
[ ! -e "$b" ] || b=$b-$$
cp "$p" "$b"; sync "$b"
t=$p.tmp-$$
trap 'rm -f "$t"' EXIT
base64 -d > "$t"
[ "$(sum "$t")" = "$new" ] || die "could not be written whole: is $folder full?"
touch -r "$p" "$t"
sync "$t"; mv -f "$t" "$p"; sync "${p%/*}"; sync -f "$p"
trap - EXIT
[ "$(sum "$p")" = "$new" ] || die "does not read back as it was written; the copy is $b"
if [ -n "$note" ]; then echo "$note" >> @PENDING@; fi
ls -1 "$backups/$name".* | sort -r | tail -n +@MORE@ | while read -r f; do rm -f "$f"; done
"""


def script() -> str:
    """The shell text."""
    return (
        _SCRIPT.replace("@BACKUPS@", places.BACKUPS)
        .replace("@PENDING@", places.PENDING)
        .replace("@MORE@", str(places.KEPT + 1))
    )
