"""What a host looks like from outside the cluster's software: compared before and after a reset."""

from __future__ import annotations

# One line "kind<TAB>name<TAB>value" each; the values of equal names belong together. Left out is
# what changes by itself: addresses that the kernel chooses, counters, caches, logs, login sessions,
# Docker's DNS rules and the lab's own mounts.
SCRIPT = r"""
set -u
LC_ALL=C; export LC_ALL
entries() {
    find /etc /usr/local /opt /root /home /var/lib/rancher /var/lib/kubelet /var/lib/cni \
        /var/log/pods /var/log/containers /run/k3s /run/flannel /run/netns -xdev \
        ! -path /etc/.pwd.lock ! -path /etc/mtab ! -path '*/.cache/*' ! -name .bash_history \
        "$@" 2>/dev/null
}
entries -printf 'file\t%p\t%y %m %U:%G %l\n'
entries -type f -print0 | xargs -0 sha256sum | sed -E 's/^(.{16})[^ ]*  (.*)/file\t\2\t\1/'
systemctl list-unit-files --no-legend --no-pager --plain |
    awk '{print "unit-file\t" $1 "\t" $2}'
systemctl list-units --type=service,socket,timer,mount --all --no-legend --no-pager --plain |
    grep -Ev '^(user|session|run-user|run-credentials|systemd-tmpfiles|apt-|lab-)' |
    awk '$2 != "not-found" {print "unit\t" $1 "\t" $2 " " $3}'
ip -oneline link show | sed -E 's/^[0-9]+: ([^:@]+).*/link\t\1\tpresent/'
ip -oneline address show scope global | awk '{print "address\t" $2 " " $4 "\tpresent"}'
ip route show | awk '{print "route\t" $0 "\tpresent"}'
for table in nat filter mangle raw; do
    for tool in iptables ip6tables; do
        $tool-save -t $table 2>/dev/null | grep -v DOCKER_ | sed -nE \
            -e "s/^:([^ ]+) ([^ ]+).*/$tool\t$table \1\t\2/p" \
            -e "s/^-A (.*)/$tool-rule\t$table \1\tpresent/p"
    done
done
nft list tables 2>/dev/null | grep -v 'table ip6\? \(nat\|filter\|mangle\|raw\)$' |
    sed -E 's/^(.*)/nft\t\1\tpresent/'
ipset list -name 2>/dev/null | sed -E 's/^(.*)/ipset\t\1\tpresent/'
findmnt --raw --noheadings --output TARGET,FSTYPE |
    grep -Ev '^/(proc|sys|dev|run/user|run/credentials)' | awk '{print "mount\t" $1 "\t" $2}'
ip netns list | awk '{print "netns\t" $1 "\tpresent"}'
getent passwd | awk -F: '{print "user\t" $1 "\t" $3 ":" $6 ":" $7}'
dpkg-query -W -f 'package\t${Package}\t${Version} ${db:Status-Abbrev}\n'
sysctl -n net.ipv4.ip_forward | sed 's/^/sysctl\tnet.ipv4.ip_forward\t/'
ps -eo comm= | grep -E '^(k3s|containerd|kwok|etcd)' | sort -u |
    sed 's/^/process\t/; s/$/\trunning/'
true
"""


def parse(output: str) -> dict[str, str]:
    """Return the fingerprint that SCRIPT printed: `kind name` -> value."""
    found: dict[str, str] = {}
    for line in output.splitlines():
        kind, name, value = [*line.split("\t", 2), "", ""][:3]
        key = f"{kind} {name}"
        found[key] = f"{found[key]} {value}".strip() if key in found else value.strip()
    return found


def difference(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return one line for each entry that differs: `+` only after, `-` only before, `~` changed."""
    lines = []
    for key in sorted(before.keys() | after.keys()):
        if key not in before:
            lines.append(f"+ {key}: {after[key]}")
        elif key not in after:
            lines.append(f"- {key}: {before[key]}")
        elif before[key] != after[key]:
            lines.append(f"~ {key}: {before[key]} -> {after[key]}")
    return lines
