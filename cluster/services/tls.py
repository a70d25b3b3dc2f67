"""Certificates of services outside the cluster, signed by the CA of the secrets file. No I/O.

Pure but for randomness and the moment that is given.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
DAYS = 730
RENEW_DAYS = 90  # a certificate that ends sooner is replaced by the next run
BACKDATED = timedelta(hours=1)  # for clocks that are behind


class Pair(NamedTuple):
    """A certificate and its private key, PEM."""

    certificate: str
    key: str


class TlsError(Exception):
    """The CA of the secrets file cannot sign; the text says why."""


def new_ca(now: datetime, name: str = "picluster") -> Pair:
    """A CA of our own."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} CA")])
    usage = _usage(key_cert_sign=True, crl_sign=True)
    made = (
        _builder(subject, subject, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pem(made, key)


def issue(ca: Pair, names: Iterable[str], now: datetime) -> Pair:
    """A new certificate of a server for these names and addresses.

    Raises TlsError as `signer` does.
    """
    authority, key_of_ca = signer(ca, now)
    wanted = list(names)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted[0])])
    made = (
        _builder(subject, authority.subject, key.public_key(), now, DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(list(map(_general, wanted))), critical=False)
        .add_extension(_authority(authority), critical=False)
        .sign(key_of_ca, hashes.SHA256())
    )
    return _pem(made, key)


def signer(ca: Pair, now: datetime) -> tuple[x509.Certificate, Any]:
    """The CA's certificate and key, ready to sign.

    Raises TlsError when one cannot be read, they do not fit each other, or the CA ends soon.
    """
    try:
        authority = x509.load_pem_x509_certificate(ca.certificate.encode())
        key = serialization.load_pem_private_key(ca.key.encode(), None)
    except (ValueError, TypeError):
        raise TlsError("ca.certificate or ca.key of the secrets cannot be read") from None
    if key.public_key() != authority.public_key():
        raise TlsError("ca.key of the secrets is not the key of ca.certificate")
    if authority.not_valid_after_utc < now + timedelta(days=RENEW_DAYS):
        raise TlsError(f"ca.certificate of the secrets ends {authority.not_valid_after_utc:%F}")
    return authority, key


def flaw(certificate: str, ca: str, names: Iterable[str], now: datetime) -> str | None:
    """Why a server's certificate has to be replaced, None when it is good.

    certificate, ca: PEM; names: what it must be good for.
    """
    if not certificate.strip():
        return "missing"
    try:
        found = x509.load_pem_x509_certificate(certificate.encode())
        authority = x509.load_pem_x509_certificate(ca.encode())
    except ValueError:
        return "unreadable"
    try:
        found.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return "of another CA"
    left = found.not_valid_after_utc - now
    if left < timedelta(days=RENEW_DAYS):
        return f"ends {found.not_valid_after_utc:%F}"
    try:
        extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return "without names"
    has = {str(one.value) for one in extension.value}
    missing = [name for name in names if name not in has]
    return f"not for {', '.join(missing)}" if missing else None


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=days))
    )


def _authority(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """What names the CA's key: strict clients ask for it (Python from 3.13 on)."""
    public: Any = ca.public_key()
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(public)


def _usage(**given: bool) -> x509.KeyUsage:
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**(dict.fromkeys(every.split(), False) | given))


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode())
