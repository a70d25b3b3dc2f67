"""Accounts of MinIO, which are made by its own client on the host. Pure text."""

from __future__ import annotations

import json
from shlex import quote

from cluster.model import Cluster
from cluster.services import s3
from cluster.services.s3 import S3Server


def script(cluster: Cluster, section: S3Server) -> str:
    """Shell text that makes users, and lets each into its bucket alone; it may run again.

    It reads `s3.minio_accounts` from standard input. Keys are in no argument: the client takes
    root's from its environment, and a user's from standard input (`mc admin user add`).
    """
    ca = (cluster.backup.ca or "").strip()
    policies = "".join(
        f"printf '%s\\n' {quote(json.dumps(s3.policy(one)))} > \"$dir/{one.bucket}.json\"\n"
        for one in s3.accounts(cluster)
    )
    return f"""set -e
umask 077
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/certs/CAs"
printf '%s\\n' {quote(ca)} > "$dir/certs/CAs/ca.pem"
{policies}\
tab=$(printf '\\t')
IFS=$tab read -r _ access secret
MC_HOST_picluster="https://$access:$secret@127.0.0.1:{section.port}"; export MC_HOST_picluster
mc() {{ {quote(section.minio.client)} --config-dir "$dir" --quiet admin "$@"; }}
while IFS=$tab read -r bucket access secret; do
  printf '%s\\n%s\\n' "$access" "$secret" | mc user add picluster > /dev/null
  mc policy create picluster "$bucket" "$dir/$bucket.json" > /dev/null
  mc policy attach picluster "$bucket" --user "$access" > /dev/null 2> "$dir/said" ||
    grep -q 'already in effect' "$dir/said" || {{ cat "$dir/said" >&2; exit 1; }}
done
"""
