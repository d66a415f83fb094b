"""A private certificate authority: makes and reads certificates of this cluster, which nobody else knows or trusts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLOCKS_DIFFER = timedelta(hours=1)
"""A certificate holds from this long before it was made: the clock of another host may be behind."""

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
# The scheduler and the workers accept connections and make some, the client only makes them.
USAGES = {"scheduler": (SERVER, CLIENT), "worker": (SERVER, CLIENT), "client": (CLIENT,)}


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both as PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True)
class Facts:
    """What one wants to know of a certificate.

    Parameters
    ----------
    expires : datetime
        In UTC.
    fingerprint : str
        SHA-256 of the certificate, in hexadecimal.
    """

    expires: datetime
    fingerprint: str


def make_authority(now: datetime, days: int) -> Pair:
    """Return a new authority.

    Parameters
    ----------
    now : datetime
        With a time zone.
    days : int
        For which it holds.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    subject = _name(f"binworks {x509.random_serial_number():x}"[:24])
    builder = (
        _builder(subject, subject, public, now, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
    )
    return _signed(builder, key, key)


def make_role(authority: Pair, role: str, now: datetime, days: int) -> Pair:
    """Return a new certificate of a role, with a new key; it does not outlive the authority.

    Parameters
    ----------
    authority : Pair
    role : str
        A key of `USAGES`.
    now : datetime
        With a time zone.
    days : int
        For which it holds.

    Raises
    ------
    ValueError
        If the authority is not PEM, its key is not that of its certificate, or it has expired.
    """
    ca = x509.load_pem_x509_certificate(authority.certificate)
    signer = serialization.load_pem_private_key(authority.key, password=None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey) or signer.public_key() != ca.public_key():
        raise ValueError("the key is not that of the certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(now + timedelta(days=days), ca.not_valid_after_utc)
    if end <= now:
        raise ValueError("the authority has expired; `binworks tls init --replace` makes a new one")
    builder = (
        _builder(_name(f"binworks {role}"), ca.subject, key.public_key(), now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(USAGES[role]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(f"{role}.binworks")]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    return _signed(builder, key, signer)


def facts(certificate: bytes) -> Facts:
    """Return what a certificate says.

    Raises
    ------
    ValueError
        If it is not PEM.
    """
    read = x509.load_pem_x509_certificate(certificate)
    return Facts(read.not_valid_after_utc, read.fingerprint(hashes.SHA256()).hex())


def fault(authority: bytes, pair: Pair) -> str | None:
    """Return why a role cannot be used with this authority's certificate, or None if it can."""
    read = x509.load_pem_x509_certificate(pair.certificate)
    try:
        read.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    except (InvalidSignature, TypeError, ValueError):
        return "its certificate is not signed by its authority"
    key = serialization.load_pem_private_key(pair.key, password=None)
    return None if key.public_key() == read.public_key() else "its key is not that of its certificate"


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_DIFFER)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> Pair:
    certificate = builder.sign(signer, hashes.SHA256())
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
