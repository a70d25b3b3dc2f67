"""The lab's API from this machine, with the administrator's certificate of a server."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
import yaml

from tests.lab.lab import Lab
from tests.lab.living import kubectl

Object = dict[str, Any]
LIMIT_S = 60
# Plural names of the kinds that are sent here.
PLURALS = {
    "Namespace": "namespaces",
    "ServiceAccount": "serviceaccounts",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "CustomResourceDefinition": "customresourcedefinitions",
    "Service": "services",
    "Endpoints": "endpoints",
    "ServiceMonitor": "servicemonitors",
    "ScrapeConfig": "scrapeconfigs",
    "PrometheusRule": "prometheusrules",
    "Prometheus": "prometheuses",
    "Secret": "secrets",
    "ConfigMap": "configmaps",
    "DaemonSet": "daemonsets",
    "StatefulSet": "statefulsets",
    "Job": "jobs",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "ResourceQuota": "resourcequotas",
    "ETCDSnapshotFile": "etcdsnapshotfiles",
}


class Kube:
    """Requests to the API; files of its credential are in `folder`, which ends with the test."""

    def __init__(self, lab: Lab, server: str, folder: Path) -> None:
        config = yaml.safe_load(kubectl(lab, server, "config view --raw"))
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.url = f"https://{lab.record.host(server).ip}:6443"
        self.ca = folder / "ca.crt"
        self.certificate = folder / "client.crt"
        self.key = folder / "client.key"
        self.kubeconfig = folder / "kubeconfig"
        for path, data in (
            (self.ca, cluster["certificate-authority-data"]),
            (self.certificate, user["client-certificate-data"]),
            (self.key, user["client-key-data"]),
        ):
            path.touch(mode=0o600)
            path.write_bytes(base64.b64decode(data))
        cluster["server"] = self.url
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(yaml.safe_dump(config))
        self._session = requests.Session()
        self._session.trust_env = False  # neither its CA nor a proxy of this machine
        self._session.verify = str(self.ca)
        self._session.cert = (str(self.certificate), str(self.key))

    def apply(self, obj: Mapping[str, Any], text: str = "") -> None:
        """Server-side apply of one object, of its status too where it has one.

        text: its YAML, where Python would read it otherwise.
        """
        body = text or json.dumps(obj)
        self._patch(path_of(obj), body)
        if "status" in obj and not text:
            self._patch(f"{path_of(obj)}/status", body)

    def _patch(self, path: str, body: str) -> None:
        answer = self._session.patch(
            f"{self.url}{path}",
            params={"fieldManager": "metrics-test", "force": "true"},
            headers={"Content-Type": "application/apply-patch+yaml"},
            data=body.encode(),
            timeout=LIMIT_S,
        )
        assert answer.ok, f"{path}: {answer.text}"

    def get(self, path: str) -> Object | None:
        """What is at a path, None when nothing is."""
        answer = self._session.get(f"{self.url}{path}", timeout=LIMIT_S)
        if answer.status_code == 404:
            return None
        assert answer.ok, f"{path}: {answer.text}"
        found: Object = answer.json()
        return found

    def token(self, namespace: str, account: str) -> str:
        """A token of a service account, for an hour."""
        answer = self._session.post(
            f"{self.url}/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token",
            json={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
            | {"spec": {"expirationSeconds": 3600}},
            timeout=LIMIT_S,
        )
        assert answer.ok, answer.text
        return str(answer.json()["status"]["token"])


def path_of(obj: Mapping[str, Any]) -> str:
    """The object's path in the API."""
    api, meta = obj["apiVersion"], obj["metadata"]
    base = f"/apis/{api}" if "/" in api else f"/api/{api}"
    place = f"/namespaces/{meta['namespace']}" if meta.get("namespace") else ""
    return f"{base}{place}/{PLURALS[obj['kind']]}/{meta['name']}"
