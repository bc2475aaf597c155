"""Certificates that tests make."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | Ed25519PrivateKey


@dataclass(frozen=True)
class Certificate:
    """A certificate that signs itself, and its key."""

    issued: x509.Certificate
    key: Key


def certificate(kind: str = "ec") -> Certificate:
    """A new one of a key of this kind: rsa, ec or ed25519."""
    key: Key
    match kind:
        case "rsa":
            key = rsa.generate_private_key(65537, 2048)
        case "ec":
            key = ec.generate_private_key(ec.SECP256R1())
        case _:
            key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "billhook")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1)
    )
    issued = builder.sign(key, None if isinstance(key, Ed25519PrivateKey) else hashes.SHA256())
    return Certificate(issued, key)


def pem(one: Certificate) -> str:
    """The certificate."""
    return one.issued.public_bytes(Encoding.PEM).decode()


def key_of(one: Certificate, *, password: bytes | None = None) -> str:
    """Its private key."""
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return one.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()
