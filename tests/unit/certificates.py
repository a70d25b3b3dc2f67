"""A throw-away certificate authority for tests with TLS."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID


@dataclass
class Pair:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make(
    name: str,
    signer: Pair | None = None,
    *,
    starts_in: dt.timedelta = dt.timedelta(),
    address: str = "127.0.0.1",
) -> Pair:
    """A certificate for an address, its own CA when nobody signs it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1) + starts_in
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.certificate.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]),
            critical=False,
        )
        .sign(signer.key if signer else key, hashes.SHA256())
    )
    return Pair(certificate, key)


def server_context(server: Pair, client_ca: Pair, folder: Path) -> ssl.SSLContext:
    """TLS of a server that asks for client certificates of a CA."""
    chain, key = folder / "server.pem", folder / "server.key"
    chain.write_bytes(server.pem)
    key.write_bytes(server.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    context.load_verify_locations(cadata=client_ca.pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def kubeconfig(ca: Pair, client: Pair, server: str = "https://127.0.0.1:6443") -> str:
    """An admin kubeconfig as K3s writes it."""

    def encoded(pem: bytes) -> str:
        return base64.b64encode(pem).decode()

    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "default",
                    "cluster": {"certificate-authority-data": encoded(ca.pem), "server": server},
                }
            ],
            "contexts": [{"name": "default", "context": {"cluster": "default", "user": "default"}}],
            "current-context": "default",
            "users": [
                {
                    "name": "default",
                    "user": {
                        "client-certificate-data": encoded(client.pem),
                        "client-key-data": encoded(client.key_pem),
                    },
                }
            ],
        }
    )
