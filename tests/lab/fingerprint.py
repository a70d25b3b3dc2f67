"""What a host looks like from outside the cluster's software: compared before and after a reset."""

from __future__ import annotations

# One line "kind<TAB>name<TAB>value" each. Left out is what changes by itself: addresses that the
# kernel chooses, counters, caches, logs, and the lab's own mounts over /proc.
SCRIPT = r"""
set -u
LC_ALL=C; export LC_ALL
find /etc /usr/local /opt /root /home /var/lib/rancher /var/lib/kubelet /var/lib/cni /var/log/pods \
    /var/log/containers /run/k3s /run/flannel /run/netns -xdev \
    ! -path '/etc/.pwd.lock' ! -path '/etc/mtab' ! -path '*/.cache/*' ! -path '*/.bash_history' \
    -printf '%y\t%m %U:%G\t%l\t%p\n' 2>/dev/null | sort -t "$(printf '\t')" -k 4 |
while IFS="$(printf '\t')" read -r type mode link path; do
    case $type in
        f) printf 'file\t%s\t%s %s\n' "$path" "$mode" "$(sha256sum <"$path" | cut -c 1-16)" ;;
        *) printf 'file\t%s\t%s %s %s\n' "$path" "$type" "$mode" "$link" ;;
    esac
done
systemctl list-unit-files --no-legend --no-pager --plain |
    awk '{print "unit-file\t" $1 "\t" $2}'
systemctl list-units --type=service,socket,timer,mount --all --no-legend --no-pager --plain |
    awk '$2 != "not-found" && $1 !~ /^(user|session|run-user|systemd-tmpfiles|apt-)/ {
        print "unit\t" $1 "\t" $2 " " $3}'
ip -oneline link show | sed -E 's/^[0-9]+: ([^:@]+).*/link\t\1\tpresent/'
ip -oneline address show scope global | awk '{print "address\t" $2 " " $4 "\tpresent"}'
ip route show | awk '{print "route\t" $0 "\tpresent"}'
for table in nat filter mangle raw; do
    for tool in iptables ip6tables; do
        $tool-save -t $table 2>/dev/null | sed -nE "s/^:([^ ]+) ([^ ]+).*/$tool\t$table \1\t\2/p"
        $tool-save -t $table 2>/dev/null | sed -nE "s/^-A (.*)/$tool-rule\t$table \1\tpresent/p"
    done
done
nft list tables 2>/dev/null | grep -v 'table ip6\? \(nat\|filter\|mangle\|raw\)$' |
    sed -E 's/^(.*)/nft\t\1\tpresent/'
ipset list -name 2>/dev/null | sed -E 's/^(.*)/ipset\t\1\tpresent/'
findmnt --raw --noheadings --output TARGET,FSTYPE | awk '$1 !~ "^/(proc|sys|dev)" {
    print "mount\t" $1 "\t" $2}'
ip netns list | awk '{print "netns\t" $1 "\tpresent"}'
getent passwd | awk -F: '{print "user\t" $1 "\t" $3 ":" $6 ":" $7}'
dpkg-query -W -f 'package\t${Package}\t${Version} ${db:Status-Abbrev}\n'
sysctl -n net.ipv4.ip_forward | sed 's/^/sysctl\tnet.ipv4.ip_forward\t/'
ps -eo comm= | grep -E '^(k3s|containerd|kwok|etcd)' | sort -u |
    sed 's/^/process\t/; s/$/\trunning/'
true
"""


def parse(output: str) -> dict[str, str]:
    """Return the fingerprint that SCRIPT printed: "kind name" -> value."""
    found = {}
    for line in output.splitlines():
        kind, name, value = [*line.split("\t", 2), "", ""][:3]
        found[f"{kind} {name}"] = value.strip()
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
