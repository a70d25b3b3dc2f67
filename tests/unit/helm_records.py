"""Records as Helm writes them, for tests."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from typing import Any


def record(
    name: str,
    revision: int,
    *,
    namespace: str = "longhorn-system",
    status: str = "deployed",
    labels: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    manifest: str = "",
    hooks: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
    modified: int = 1,
) -> dict[str, Any]:
    """The Secret of one revision of a release of the chart longhorn 1.12.1."""
    about = {
        "name": "longhorn",
        "version": "1.12.1",
        "appVersion": "v1.12",
        "kubeVersion": ">=1.25",
    }
    packed_files = [
        {"name": path, "data": base64.b64encode(text.encode()).decode()}
        for path, text in (files or {}).items()
    ]
    body = {
        "name": name,
        "namespace": namespace,
        "version": revision,
        "info": {"status": status, "description": "Install complete"},
        "chart": {"metadata": about, "files": packed_files, "templates": [], "values": {}},
        "config": config,
        "manifest": manifest,
        "hooks": [{"manifest": text} for text in hooks],
    }
    text = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(body).encode())))
    own = {
        "owner": "helm",
        "name": name,
        "status": status,
        "version": str(revision),
        "modifiedAt": str(modified),
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "helm.sh/release.v1",
        "metadata": {
            "name": f"sh.helm.release.v1.{name}.v{revision}",
            "namespace": namespace,
            "uid": f"uid-{name}-{revision}",
            "resourceVersion": "1",
            "labels": own | dict(labels or {}),
        },
        "data": {"release": text.decode()},
    }
