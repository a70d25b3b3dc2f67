"""The S3 server on a host outside the cluster: its section of the model and what follows from it.

Why versitygw is the default: docs/services.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from cluster import kinds, versions
from cluster.frozen import Model
from cluster.managed import UNITS
from cluster.question import Question

if TYPE_CHECKING:
    from cluster.model import Cluster, Host

USER = "s3"
FOLDER = "/etc/picluster/s3"
ROOT = f"{FOLDER}/root.env"  # root's account
ACCOUNTS = f"{FOLDER}/accounts"
USERS = f"{ACCOUNTS}/users.json"  # all others
TLS = f"{FOLDER}/tls.pem"  # certificate and key in one file: the two can never be apart
PROOF = f"{FOLDER}/proved"  # hash of what the last proof was about
HEALTH = {"versitygw": "/health", "minio": "/minio/health/live"}

# What programs that keep their data in a bucket need of it, and no more. Sources: Velero's plugin
# for AWS (its README), Longhorn's and restic's documentation, Barman's and Loki's.
_OF_BUCKET = ("s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads")
_OF_OBJECTS = (
    "s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:GetObjectTagging",
    "s3:ListMultipartUploadParts", "s3:PutObject", "s3:PutObjectTagging",
)  # fmt: skip


class Minio(Model):
    """Where MinIO's programs are on the host; none are published any more."""

    program: kinds.Folder = "/usr/local/bin/minio"
    client: kinds.Folder = "/usr/local/bin/mc"


class S3Server(Model):
    """The S3 server for backups."""

    # external: somebody else's at backup.s3_endpoint; its accounts are only proved.
    product: Literal["versitygw", "minio", "external"] = "versitygw"
    host: kinds.HostName | None = None  # None: the only host of role external
    version: str = versions.VERSITYGW
    path: kinds.Folder = "/var/lib/s3"  # of its data
    port: kinds.Whole = Field(9000, ge=1, le=65535)
    name: kinds.DnsName | None = None  # clients call it so; None: the host's address
    # Files on the host, such as certbot's; None: signed by the CA of the secrets file.
    certificate: kinds.Folder | None = None
    key: kinds.Folder | None = None
    minio: Minio = Minio()


@dataclass(frozen=True)
class Account:
    """One user of the service: it has one bucket, and its keys are `<secrets>.access_key` and
    `<secrets>.secret_key`."""

    name: str
    bucket: str
    secrets: str


def server(cluster: Cluster) -> S3Server | None:
    """The section when the server is ours; None for somebody else's, or none."""
    section = cluster.services.s3
    return section if section and section.product != "external" else None


def home(cluster: Cluster) -> Host | None:
    """The host that runs it."""
    section = server(cluster)
    if section is None:
        return None
    if section.host:
        return next((host for host in cluster.hosts if host.name == section.host), None)
    outside = [host for host in cluster.hosts if host.role == "external"]
    return outside[0] if len(outside) == 1 else None


def endpoint(cluster: Cluster) -> str | None:
    """Where clients find our server, `host:port`; None when there is none of ours."""
    section, host = server(cluster), home(cluster)
    return f"{section.name or host.ip}:{section.port}" if section and host else None


def address(cluster: Cluster) -> dict[str, IPv4Address]:
    """The address of our server by its name, where it has one."""
    section, host = server(cluster), home(cluster)
    return {section.name: host.ip} if section and section.name and host else {}


def signed_by_us(cluster: Cluster) -> bool:
    """Whether the CA of the secrets file signs its certificate."""
    section = server(cluster)
    return section is not None and section.certificate is None


def ca_file(secrets_file: str) -> str:
    """Where `make secrets` writes the CA's certificate, which is no secret: beside the secrets."""
    return f"{secrets_file.removesuffix('.yaml').removesuffix('.sops')}-ca.pem"


def derived(cluster: Cluster, ca: str | None) -> Cluster:
    """The cluster with what follows from our server: `backup.s3_endpoint` and `backup.ca`.

    ca: the CA's certificate as `make secrets` wrote it beside the secrets file.
    """
    found = endpoint(cluster)
    if found is None:
        return cluster
    changes: dict[str, Any] = {"s3_endpoint": cluster.backup.s3_endpoint or found}
    if signed_by_us(cluster) and not cluster.backup.ca and ca:
        changes["ca"] = ca
    return cluster.model_copy(update={"backup": cluster.backup.model_copy(update=changes)})


def names(cluster: Cluster) -> tuple[str, ...]:
    """Names and addresses that the server's certificate is for."""
    section, host = server(cluster), home(cluster)
    if section is None or host is None:
        return ()
    wanted = [section.name, str(host.ip), host.name, cluster.fqdn(host), "localhost", "127.0.0.1"]
    return tuple(dict.fromkeys(name for name in wanted if name))


def accounts(cluster: Cluster) -> tuple[Account, ...]:
    """The users of the service: what of this cluster keeps something in it."""
    stack, buckets, snapshots = cluster.stack, cluster.backup.buckets, cluster.k3s.snapshots.s3
    found = [
        Account(name, bucket, f"s3.{name}")
        for name, bucket, wanted in (
            ("longhorn", buckets.longhorn, stack.storage == "longhorn"),
            ("velero", buckets.velero, stack.backup == "velero"),
            ("database", buckets.database, stack.database == "cloudnative-pg"),
            ("loki", buckets.loki, stack.logs == "loki" and cluster.platform.logs.in_s3),
            ("restic", buckets.restic, keeps_hosts(cluster)),
        )
        if wanted
    ]
    if snapshots and snapshots.endpoint == cluster.backup.s3_endpoint:
        found.append(Account("etcd", snapshots.bucket, "etcd_s3"))
    return tuple(found)


def keeps_hosts(cluster: Cluster) -> bool:
    """Whether the repository of the hosts' backups is a bucket of the service."""
    backup = cluster.services.backup
    return backup is not None and backup.repository is None


def policy(account: Account, access_key: str | None = None) -> dict[str, Any]:
    """What the account may do in its bucket.

    access_key: of the account, for the bucket's own policy; None for a policy of the user's.
    """
    arn = f"arn:aws:s3:::{account.bucket}"
    who = {"Principal": {"AWS": [access_key]}} if access_key else {}

    def allow(actions: tuple[str, ...], resource: str) -> dict[str, Any]:
        return {"Effect": "Allow", **who, "Action": list(actions), "Resource": [resource]}

    statements = [allow(_OF_BUCKET, arn), allow(_OF_OBJECTS, f"{arn}/*")]
    return {"Version": "2012-10-17", "Statement": statements}


def bucket_policy(cluster: Cluster, account: Account, access_key: str) -> dict[str, Any]:
    """The policy of the account's bucket: nobody but the account, and root, has anything there.

    MinIO's are of users; a bucket's own would be for everybody, so there it has none.
    """
    section = server(cluster)
    return {} if section and section.product == "minio" else policy(account, access_key)


def users(cluster: Cluster, values: Mapping[str, str]) -> str:
    """The file of accounts: what versitygw reads, and what MinIO was told last.

    values: secrets by name; raises KeyError for one that is missing.
    """
    found = {}
    for account in accounts(cluster):
        access = values[f"{account.secrets}.access_key"]
        secret = values[f"{account.secrets}.secret_key"]
        ids = {"userID": 0, "groupID": 0, "projectID": 0}
        found[access] = {"access": access, "secret": secret, "role": "user", **ids}
    return json.dumps({"accessAccounts": found}, indent=1, sort_keys=True) + "\n"


def root_environment(section: S3Server, values: Mapping[str, str]) -> str:
    """The environment file with the account that may do everything."""
    words = {
        "versitygw": ("ROOT_ACCESS_KEY_ID", "ROOT_SECRET_ACCESS_KEY"),
        "minio": ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"),
    }
    access, secret = words[section.product]
    return f"{access}={values['s3.root.access_key']}\n{secret}={values['s3.root.secret_key']}\n"


def minio_accounts(cluster: Cluster, values: Mapping[str, str]) -> str:
    """What `s3_minio.script` reads: root's keys, then a line for each account with its bucket.

    values: secrets by name; raises KeyError for one that is missing.
    """
    lines = [("root", values["s3.root.access_key"], values["s3.root.secret_key"])]
    lines += [
        (one.bucket, values[f"{one.secrets}.access_key"], values[f"{one.secrets}.secret_key"])
        for one in accounts(cluster)
    ]
    return "".join("\t".join(line) + "\n" for line in lines)


def unit_name(section: S3Server) -> str:
    """The systemd unit."""
    return f"{section.product}.service"


def unit_file(section: S3Server) -> str:
    """Its file."""
    return f"{UNITS}/{unit_name(section)}"


def certificate_files(section: S3Server) -> tuple[str, str]:
    """Paths of certificate and key on the host."""
    return section.certificate or TLS, section.key or TLS


def asks(cluster: Cluster) -> Question:
    """What the fact of a host is asked for it."""
    section = server(cluster)
    if section is None:
        return Question(files=(PROOF,)) if cluster.services.s3 else Question()
    files = (unit_file(section), ROOT, USERS, PROOF, *certificate_files(section))
    return Question(units=(unit_name(section),), files=files)
