"""Central storage as it is: the target host's disk, volumes and targets, and a node's volume."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from cluster.answer import Absent, Answer, Forbidden, Present
from cluster.managed import MANAGED, UNITS
from cluster.services import san, san_scripts
from cluster.services.san import Contents, InitiatorState, Mount, TargetState
from facts.tagged import HEAD, words

# What a disk holds. Reading says nothing of a disk that cannot be read: then nobody knows.
_CONTENTS = (
    HEAD
    + san_scripts.CONTENTS
    + r"""contents() {
  [ -e "$1" ] || { say disk absent; return; }
  real=$(readlink -f "$1"); base=${real##*/}; say real "$real"
  found=$(wipefs --noheadings --output TYPE "$real" 2>&1) || { say disk unread "$found"; return; }
  said=$(readable "$real") || { say disk unread "$said"; return; }
  say disk read "$(printf '%s' "$found" | tr -s ' \n' '  ')"
  blank "$real" && say blank
  begun "$1" && say begun
  unused "$1" "$found" && say unused
  for one in /sys/class/block/"$base" /sys/class/block/"$base"/"$base"*; do
    [ -d "$one" ] || continue
    part=${one##*/}; [ "$part" = "$base" ] || say part "$part"
    # By number too: the kernel may call the root's device otherwise, and btrfs numbers its own.
    awk -v n="$(cat "$one/dev")" -v d="/dev/$part" '{
      for (i = 7; $i != "-"; i++); if ($3 == n || $(i + 2) == d) print "user\tmount " $5
    }' /proc/self/mountinfo
    awk -v d="/dev/$part" '$1 == d {print "user\tswap"}' /proc/swaps
    for held in "$one"/holders/*; do
      [ -e "$held" ] && say user "$(cat "$held/dm/name" 2>/dev/null || echo "${held##*/}")"
    done
  done
  # A host that was set up anew has no lvm2 yet, and its disk may be full of volumes of ours.
  case $found in *LVM2_member*) have pvs || say nolvm ;; esac
  say group "$(pvs --noheadings -o vg_name "$real" 2>/dev/null | tr -d ' ')"
}
"""
)

_TARGET = (
    _CONTENTS
    + rf"""
[ -z @DISK@ ] || contents @DISK@
for path in @PATHS@; do
  if [ -b "$path" ]; then
    say volume "$path" "$(blockdev --getsize64 "$path")"
    lvs --noheadings -o lv_tags "$path" 2>/dev/null | grep -qF {san_scripts.NEW} && say new "$path"
  elif [ -f "$path" ]; then say volume "$path" "$(stat -c %s "$path")"; fi
done
tgtadm --lld iscsi --mode target --op show 2>/dev/null | awk '
  /^Target / {{name = $3; lun = ""}}
  /^ +LUN: / {{lun = $2}}
  /Backing store path: / && lun == "{san.LUN}" {{
    sub(/.*Backing store path: /, ""); print "target\t" name "\t" $0
  }}'
root=/sys/kernel/config/target/iscsi
for dir in "$root"/iqn.*; do
  [ -d "$dir" ] || continue
  for lun in "$dir"/tpgt_1/lun/lun_{san.LUN}/*; do
    [ -L "$lun" ] && say target "${{dir##*/}}" "$(cat "$lun/udev_path" 2>/dev/null)"
  done
  say password "${{dir##*/}}" \
    "$(tr -d '\n' < "$dir/tpgt_1/auth/password" 2>/dev/null | sha256sum | cut -c1-64)"
done
[ -f {san_scripts.TGT_CONFIG} ] && say config "$(sha256sum < {san_scripts.TGT_CONFIG} | cut -c1-64)"
[ -f {san_scripts.TGT_APPLIED} ] && say applied "$(cat {san_scripts.TGT_APPLIED})"
for name in target_core_mod iscsi_target_mod; do
  [ -d /sys/module/$name ] || modinfo $name > /dev/null 2>&1 || {{ say nokernel; break; }}
done
say end
"""
)

_INITIATOR = (
    _CONTENTS
    + r"""
contents @DISK@
for one in /sys/class/iscsi_session/*/targetname; do [ -f "$one" ] && say session "$(cat "$one")"
done
for one in /etc/iscsi/nodes/@NAME@/* /etc/iscsi/nodes/@NAME@/*/* \
  /var/lib/iscsi/nodes/@NAME@/* /var/lib/iscsi/nodes/@NAME@/*/*; do
  [ -f "$one" ] || continue
  sed -n '/^node\.session\.auth\.password = /!s/^\(node\.[a-z_.]*\) = /setting\t\1\t/p' "$one"
  say password "$(sed -n 's/^node\.session\.auth\.password = //p' "$one" | tr -d '\n' |
    sha256sum | cut -c1-64)"
done
awk -v p=@PATH@ '$2 == p {print "mounted\t" $1; if ($4 ~ /^ro(,|$)/) print "readonly\tyes"}' \
  /proc/mounts
grep -qs " "@PATH@" " /proc/mounts || say hidden "$(ls -A @PATH@ 2>/dev/null | head -n 1)"
say end
"""
)


# What keeps a mount: processes with a file there; other mounts of the disk, but for the copies of
# services with a view of their own, which go with it.
_MOUNTS = (
    HEAD
    + rf"""
held() {{
  number=$(mountpoint -d "$1")
  awk -v n="$number" -v p="$1" '$3 == n && $5 != p {{print "mount " $5}}' /proc/self/mountinfo
  mine=$(readlink /proc/self/ns/mnt)
  {{
    find /proc/[0-9]*/cwd /proc/[0-9]*/root /proc/[0-9]*/exe /proc/[0-9]*/fd \
      \( -lname "$1" -o -lname "$1/*" \) 2> /dev/null
    grep -HE "^[0-9]+ [0-9]+ $number " /proc/[0-9]*/mountinfo 2> /dev/null |
      grep -vE " (shared|master):" | while IFS=/ read -r _ _ pid _; do
      other=$(readlink "/proc/$pid/ns/mnt") && [ "$other" != "$mine" ] && echo "//$pid"
    done
  }} | cut -d / -f 3 | sort -un | while read -r pid; do
    echo "$(cat "/proc/$pid/comm" 2> /dev/null || echo process) ($pid)"
  done
}}
for unit in {UNITS}/*.mount; do
  [ -f "$unit" ] && head -n 1 "$unit" | grep -qxF {shlex.quote(MANAGED.strip())} || continue
  what=$(sed -n 's/^What=//p' "$unit") where=$(sed -n 's/^Where=//p' "$unit")
  case $what in {san.BY_PATH}*-iscsi-*) ;; *) continue ;; esac
  say mount "${{unit##*/}}" "$what" "$where"
  grep -qF " $where " /proc/mounts || continue
  say mounted "$where"
  held "$where" | head -n 3 | while read -r one; do say held "$where" "$one"; done
done
say end
"""
)


class Mounts(FactBase[tuple[Mount, ...] | None]):
    """The mounts of volumes by units of ours, wanted or not."""

    def command(self) -> str:
        return _MOUNTS.strip()

    def process(self, output: Iterable[str]) -> tuple[Mount, ...]:
        found = _read(output)
        mounted = {path for (path,) in found.get("mounted", ())}
        ours = {f"mount {path}" for *_, path in found.get("mount", ())}
        return tuple(
            Mount(
                unit,
                device,
                path,
                path in mounted,
                tuple(by for at, by in found.get("held", ()) if at == path and by not in ours),
            )
            for unit, device, path in found.get("mount", ())
        )


class Target(FactBase[TargetState | None]):
    """The target host's disk, volumes and targets.

    + disk: for LVM, empty where volumes are files
    + paths: of volumes
    """

    def command(self, disk: str = "", paths: tuple[str, ...] = ()) -> str:
        text = _TARGET.replace("@DISK@", shlex.quote(disk))
        return text.replace("@PATHS@", " ".join(map(shlex.quote, paths))).strip()

    def process(self, output: Iterable[str]) -> TargetState:
        found = _read(output)
        return TargetState(
            disk=_disk(found),
            volumes={path: int(size) for path, size in found.get("volume", ())},
            new=frozenset(path for (path,) in found.get("new", ())),
            targets=dict(found.get("target", ())),
            passwords=dict(found.get("password", ())),
            config=_one(found, "config"),
            applied=_one(found, "applied"),
            kernel="nokernel" not in found,
        )


class Initiator(FactBase[InitiatorState | None]):
    """A node's volume of the target host.

    + device: the volume
    + target: its name
    + path: where it is mounted
    """

    def command(self, device: str, target: str, path: str) -> str:
        text = _INITIATOR
        for word, value in {"DISK": device, "NAME": target, "PATH": path}.items():
            text = text.replace(f"@{word}@", shlex.quote(value))
        return text.strip()

    def process(self, output: Iterable[str]) -> InitiatorState:
        found = _read(output)
        return InitiatorState(
            sessions=frozenset(value for (value,) in found.get("session", ())),
            settings=dict(found.get("setting", ())),
            password=_one(found, "password"),
            disk=_disk(found),
            real=_one(found, "real"),
            mounted=_one(found, "mounted"),
            read_only="readonly" in found,
            hidden=_one(found, "hidden"),
        )


def _read(lines: Iterable[str]) -> dict[str, list[Any]]:
    """Values by the first word of a line; raises FactProcessError when they end early."""
    found: dict[str, list[Any]] = {}
    try:
        for key, values in words(lines):
            found.setdefault(key, []).append(tuple(values))
    except ValueError as error:
        raise FactProcessError(f"the storage of the host: {error}") from error
    return found


def _one(found: dict[str, list[Any]], key: str) -> str:
    values = found.get(key)
    return str(values[-1][0]) if values and values[-1] else ""


def _disk(found: dict[str, list[Any]]) -> Answer[Contents]:
    match found.get("disk", [()])[0]:
        case ("read", signatures):
            return Present(
                Contents(
                    signatures=tuple(signatures.split()),
                    blank="blank" in found,
                    users=tuple(value for (value,) in found.get("user", ())),
                    parts=tuple(value for (value,) in found.get("part", ())),
                    group=_one(found, "group"),
                    asked="nolvm" not in found,
                    begun="begun" in found,
                    unused="unused" in found,
                )
            )
        case ("unread", reason):
            return Forbidden(reason)
        case ("absent",):
            return Absent("no such device")
    return Absent("not asked for")
