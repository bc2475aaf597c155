"""An authority for TLS, made in the test: it vouches for servers and for clients."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

LOOPBACK = IPv4Address("127.0.0.1")


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, both PEM."""

    certificate: str
    key: ec.EllipticCurvePrivateKey

    def both(self, password: bytes | None = None) -> str:
        encryption = BestAvailableEncryption(password) if password else NoEncryption()
        return self.certificate + self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Authority:
    """Vouches for what it issued; `certificate` is what its believers need."""

    name: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=_key)

    @cached_property
    def certificate(self) -> str:
        return self._sign(self.name, self.key, ca=True)

    def issue(self, *names: str | IPv4Address) -> Issued:
        """A certificate for these names, for three days around now."""
        key = _key()
        return Issued(self._sign(str(names[0]), key, ca=False, names=names), key)

    def server(self, *names: str | IPv4Address, asks: str | None = None) -> ssl.SSLContext:
        """What a server of these names speaks TLS with; `asks`: PEM of whose certificates clients must show."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "both.pem"
            path.write_text(self.issue(*names).both())
            context.load_cert_chain(path)
        if asks is not None:
            context.load_verify_locations(cadata=asks)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _sign(
        self, name: str, key: ec.EllipticCurvePrivateKey, *, ca: bool, names: tuple[str | IPv4Address, ...] = ()
    ) -> str:
        start = datetime.now(UTC) - timedelta(days=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(_named(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=3))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            alternatives = [x509.DNSName(one) if isinstance(one, str) else x509.IPAddress(one) for one in names]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
