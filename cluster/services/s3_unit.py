"""The systemd unit of the S3 server."""

from __future__ import annotations

from cluster import programs
from cluster.managed import MANAGED
from cluster.model import Cluster
from cluster.services.s3 import (
    ACCOUNTS,
    HEALTH,
    ROOT,
    USER,
    S3Server,
    certificate_files,
)


def unit(cluster: Cluster, section: S3Server) -> str:
    """The systemd unit.

    Keys of accounts come by files, never by arguments. systemd reads certificate and key as root
    and hands copies over, so that the server's user needs no right to them.
    """
    product = _minio if section.product == "minio" else _versitygw
    return f"""\
{MANAGED}[Unit]
Description=S3 server for backups
Wants=network-online.target
After=network-online.target
RequiresMountsFor={section.path}

[Service]
User={USER}
Group={USER}
EnvironmentFile={ROOT}
{product(cluster, section)}
Restart=always
RestartSec=5
UMask=0077
LimitNOFILE=65536

NoNewPrivileges=yes
CapabilityBoundingSet={_capability(section.port)}
AmbientCapabilities={_capability(section.port)}
ProtectSystem=strict
ReadWritePaths={section.path}
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


def _versitygw(cluster: Cluster, section: S3Server) -> str:
    program = programs.VERSITYGW.path(section.version)
    certificate, key = certificate_files(section)
    return f"""\
Environment=VGW_PORT=:{section.port}
Environment=VGW_REGION={cluster.backup.region}
Environment=VGW_IAM_DIR={ACCOUNTS}
# A new key of an account counts at once.
Environment=VGW_IAM_CACHE_DISABLE=true
Environment=VGW_HEALTH={HEALTH["versitygw"]}
# Policies of buckets alone decide.
Environment=VGW_DISABLE_ACL=true
Environment=VGW_QUIET=true
LoadCredential=tls.crt:{certificate}
LoadCredential=tls.key:{key}
ExecStart={program} --cert ${{CREDENTIALS_DIRECTORY}}/tls.crt \\
  --key ${{CREDENTIALS_DIRECTORY}}/tls.key \\
  posix --dir-perms 0700 --file-perms 0600 {section.path}"""


def _minio(cluster: Cluster, section: S3Server) -> str:
    # Source: MinIO's documentation of its environment, and of TLS for the names of the two files.
    certificate, key = certificate_files(section)
    return f"""\
Environment=MINIO_REGION={cluster.backup.region}
Environment=MINIO_BROWSER=off
LoadCredential=public.crt:{certificate}
LoadCredential=private.key:{key}
ExecStart={section.minio.program} server --quiet --address :{section.port} \\
  --certs-dir ${{CREDENTIALS_DIRECTORY}} {section.path}"""


def _capability(port: int) -> str:
    return "CAP_NET_BIND_SERVICE" if port < 1024 else ""
