"""Who may log in, and how."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.command import QuoteString

from cluster import base
from cluster.host_state import HostState
from cluster.model import User
from cluster.text import block, drop_ins
from facts.node import host_state
from operations import config_files, text
from runtime.run import cluster

Commands = Generator[StringCommand, None, None]

SSH = "ssh.service"

# As the user: in a directory of theirs root must not follow links.
_KEYS = r"""set -e
home=$(getent passwd "$1" | cut -d: -f6)
exec runuser -u "$1" -- sh -c 'set -e; umask 077; mkdir -p "$1/.ssh"
f=$1/.ssh/authorized_keys; cat > "$f.new"; mv -f "$f.new" "$f"' sh "$home"
"""

_SUDO = r"""set -e
umask 227; t=$(mktemp); trap 'rm -f "$t"' EXIT
cat > "$t"; visudo -qcf "$t"; chmod 440 "$t"; mv -f "$t" "$1.new"; mv -f "$1.new" "$1"
trap - EXIT
"""

# Checked before sshd sees it; what sshd would refuse is undone. A session that is open stays open.
_SSHD = r"""set -e
PATH=$PATH:/usr/sbin:/sbin; f=$1 main=$2; shift 2
mkdir -p "${f%/*}" /run/sshd
for p in "$f" "$main"; do if [ -f "$p" ]; then cp -p "$p" "$p.before"; fi; done
back() {
  for p in "$f" "$main"; do
    if [ -f "$p.before" ]; then mv -f "$p.before" "$p"; else rm -f "$p"; fi
  done
}
cat > "$f"; chmod 644 "$f"
grep -qiE '^[[:space:]]*include[[:space:]].*sshd_config\.d/\*\.conf' "$main" ||
  { echo "Include ${f%/*}/*.conf"; cat "$main.before"; } > "$main"
sshd -t || { back; exit 1; }
bad=0
while [ $# -gt 0 ]; do
  v=$(sshd -T | sed -n "s/^$1 //p")
  [ "$v" = without-password ] && v=prohibit-password
  [ "$v" = "$2" ] || {
    echo "sshd: $1 would be $v, wanted is $2: an earlier line of $main or its folder sets it" >&2
    bad=1
  }
  shift 2
done
[ $bad = 0 ] || { back; exit 1; }
rm -f "$f.before" "$main.before"
if systemctl -q is-active ssh.service; then systemctl reload ssh.service; fi
"""


def _script(script: str, *arguments: str, content: str) -> StringCommand:
    words = (QuoteString(word) for word in arguments)
    return StringCommand("sh", "-c", QuoteString(script), "sh", *words, _stdin=content)


@operation()
def users() -> Commands:
    """Logins of `nodes.users`: account, public keys, and a rule to become root.

    Keys that somebody else added to an account stay, accounts that are not named stay too.
    """
    now, changed = host_state(host, cluster()), False
    for user in cluster().nodes.users:
        for command in _of_user(user, now):
            changed = True
            yield command
    if not changed:
        host.noop("the users are there")


def _of_user(user: User, now: HostState) -> Commands:
    account = now.accounts.get(user.name)
    if account is None:
        yield StringCommand(
            "useradd",
            "--create-home",
            "--user-group",
            "--shell",
            QuoteString(user.shell),
            user.name,
        )
    elif account.shell != user.shell:
        yield StringCommand("usermod", "--shell", QuoteString(user.shell), user.name)
    known = account.authorized_keys if account else ""
    if (wanted := block.put(known, user.keys)) != known:
        yield _script(_KEYS, user.name, content=wanted)
    rule, path = drop_ins.sudo(user.name) if user.sudo else None, base.sudoers(user.name)
    if text.differs(now.files.get(path), rule, "440"):
        yield text.remove(path) if rule is None else _script(_SUDO, path, content=rule)


@operation()
def sshd() -> Commands:
    """sshd takes keys only; checked with `sshd -t` and `sshd -T` before it is reloaded.

    What is effective counts: an earlier file that says otherwise fails with its setting's name. A
    host without a key for who logs in is refused before (cluster/doctor/system.py).
    """
    now = host_state(host, cluster())
    settings = drop_ins.sshd("prohibit-password" if now.login == "root" else "no")
    wanted = drop_ins.sshd_text(settings)
    differs = text.differs(now.files.get(base.SSHD), wanted, config_files.MODE)
    if differs or "sshd-include" not in now.has or _ineffective(settings, now):
        config_files.show_difference(base.SSHD, wanted, known=base.SSHD in now.files)
        pairs = [word for key, value in settings.items() for word in (key.lower(), value)]
        yield _script(_SSHD, base.SSHD, base.SSHD_MAIN, *pairs, content=wanted)
    elif now.stale(SSH, base.SSHD):
        yield StringCommand("systemctl", "reload", SSH)
    else:
        host.noop("sshd takes keys only")


def _ineffective(settings: dict[str, str], now: HostState) -> bool:
    """Whether sshd would do otherwise; unknown when `sshd -T` could not say."""
    aliases = {"without-password": "prohibit-password"}
    found = {key: aliases.get(value, value) for key, value in now.sshd.items()}
    return any(found.get(key.lower(), value) != value for key, value in settings.items())
