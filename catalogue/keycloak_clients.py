"""Keeps the clients of Keycloak's realm as they are wanted, once the realm is there.

Keycloak imports a realm only once: a client that the stack gets later, or a secret that was
replaced, would never reach it. So a Job enters both through Keycloak's own command line.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from catalogue import pods, realm, script_job
from cluster.component import Object
from cluster.model import Cluster
from cluster.readiness import Check, Completed
from cluster.versions import KEYCLOAK

NAMESPACE = realm.NAMESPACE
FOLDER = "/clients"
# Of a client that is there these alone are ours; what people have set there besides stays.
OURS = ("secret", "redirectUris")

# Secrets reach Keycloak through the environment and standard input: an argument would be seen in a
# process list. The image has bash, and neither sed nor jq.
_SCRIPT = """\
set -euo pipefail
kcadm() { /opt/keycloak/bin/kcadm.sh "$@" --config /tmp/kcadm.config; }
filled() {  # the file with the secret in place of its name
  local text before value=${!2}
  text=$(< "$1")
  before=${text%%"\\${$2}"*}
  value=${value//\\\\/\\\\\\\\}
  printf '%s' "$before${value//\\"/\\\\\\"}${text#*"\\${$2}"}"
}
kcadm config credentials --server "$KEYCLOAK" --realm master --user "$ADMIN" || {
  echo "keycloak.admin_password does not open Keycloak as $ADMIN:" \\
    "the realm master needs that user, with that password and the role admin"
  exit 1
}
for client in $CLIENTS; do
  variable=${client^^}
  variable=${variable//-/_}_SECRET
  id=$(kcadm get clients --target-realm "$REALM" --query "clientId=$client" \\
    --fields id --format csv --noquotes)
  if [ -n "$id" ]; then
    filled "$FOLDER/$client.ours.json" "$variable" |
      kcadm update "clients/$id" --target-realm "$REALM" --merge --file -
  else
    filled "$FOLDER/$client.json" "$variable" |
      kcadm create clients --target-realm "$REALM" --file -
  fi
done
"""


def objects(cluster: Cluster, service: str) -> list[Object]:
    """The Job and what it reads.

    Its name follows from what it sends, but for the secrets: when those change it is made anew.

    Args:
        service: of Keycloak, which answers over HTTP on port 80.
    """
    environment = {
        "KEYCLOAK": f"http://{service}.{NAMESPACE}",
        "ADMIN": realm.USER,
        "REALM": realm.NAME,
        "CLIENTS": " ".join(realm.clients(cluster)),
        "FOLDER": FOLDER,
        "HOME": "/tmp",
    }
    return script_job.objects(
        name(cluster),
        NAMESPACE,
        _files(cluster),
        _container(environment),
        limit=1800,
        volumes=({"name": "tmp", "emptyDir": {}},),
    )


def _container(environment: dict[str, str]) -> dict[str, Any]:
    password = {"name": realm.ADMIN_SECRET, "key": "password"}
    return {
        "name": "clients",
        "image": f"quay.io/keycloak/keycloak:{KEYCLOAK}",
        "command": ["/bin/bash", f"{FOLDER}/clients.sh"],
        "env": [
            *({"name": key, "value": value} for key, value in environment.items()),
            {"name": "KC_CLI_PASSWORD", "valueFrom": {"secretKeyRef": password}},
        ],
        "envFrom": [{"secretRef": {"name": realm.CONFIG}}],
        # What it said last tells why it failed.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": pods.resources("128Mi", "512Mi"),
        "securityContext": pods.UNPRIVILEGED,
        "volumeMounts": [
            {"name": "clients", "mountPath": FOLDER},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }


def _files(cluster: Cluster) -> dict[str, str]:
    found = {"clients.sh": _SCRIPT}
    for client in realm.realm(cluster)["clients"]:
        whole, known = client["clientId"], {key: client[key] for key in OURS}
        found[f"{whole}.json"] = json.dumps(client, indent=2)
        found[f"{whole}.ours.json"] = json.dumps(known, indent=2)
    return found


def name(cluster: Cluster) -> str:
    """Name of the Job, from all that it does."""
    whole = json.dumps([_files(cluster), _container({})])  # a Job's pods cannot be changed
    return f"keycloak-clients-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def ready(cluster: Cluster) -> list[Check]:
    """The Job is done."""
    return [Completed(name(cluster), NAMESPACE)]
