"""Alerts about jobs on hosts of the model that say nothing: one that never ran has no metric.

What a job has said is judged by `rules/kube-prometheus-stack.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cluster.model import Cluster, Host
from cluster.services import backup, certbot
from cluster.services.telemetry import EXPORTER_PORT

BACKUP = 'picluster_backup_last_success_timestamp_seconds{task="backup",'
RENEWAL = "picluster_certificate_renewal_time_seconds{"


def rules(cluster: Cluster) -> list[dict[str, Any]]:
    """Groups for the hosts that have backups, and for those with certificates."""
    found = [
        *_silent("HostBackupMissing", "critical", "2d", BACKUP, "a backup", backup.hosts(cluster)),
        *_silent(
            "CertificateRenewalMissing",
            "warning",
            "3d",
            RENEWAL,
            "a renewal of certificates",
            certbot.hosts(cluster),
        ),
    ]
    return [{"name": "picluster-jobs-of-the-model", "rules": found}] if found else []


def _silent(
    alert: str, severity: str, time: str, metric: str, what: str, hosts: Iterable[Host]
) -> list[dict[str, Any]]:
    """A rule for each host; time: Prometheus' duration that the first run may take."""
    return [
        {
            "alert": alert,
            "expr": f'absent({metric}instance="{host.ip}:{EXPORTER_PORT}"}})',
            "for": time,
            "labels": {"severity": severity, "host": host.name},
            "annotations": {
                "summary": f"Nothing is known of {what} on {host.name} for {time}.",
                "description": "The job never ran, or the node exporter there is silent.",
            },
        }
        for host in hosts
    ]
