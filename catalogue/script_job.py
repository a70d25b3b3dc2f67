"""A script that runs once in the cluster: a Job, and the ConfigMap with its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.component import Object


def objects(
    name: str,
    namespace: str,
    files: Mapping[str, str],
    container: Mapping[str, Any],
    *,
    limit: int,
    volumes: tuple[Object, ...] = (),
) -> list[Object]:
    """Both under one name, which must follow from all that the Job does: its pods cannot change.

    Args:
        files: of the ConfigMap by name.
        container: mounts them as the volume of its own name.
        limit: seconds that the Job may take, tries included.
        volumes: more of them.
    """
    metadata = {"name": name, "namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(files)},
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": metadata,
            "spec": {
                "backoffLimit": 3,
                "activeDeadlineSeconds": limit,
                "template": {
                    # A mesh's proxy would keep the pod from ending.
                    "metadata": {"annotations": {"linkerd.io/inject": "disabled"}},
                    "spec": {
                        "restartPolicy": "Never",
                        "automountServiceAccountToken": False,
                        "securityContext": {
                            "runAsNonRoot": True,
                            "runAsUser": 1000,
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                        "containers": [container],
                        "volumes": [
                            {"name": container["name"], "configMap": {"name": name}},
                            *volumes,
                        ],
                    },
                },
            },
        },
    ]
