"""The PEM texts of an endpoint: the authorities that vouch for it, and the certificate that it knows us by."""

from __future__ import annotations

import re

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from workers.delivery.errors import EndpointError

MAX_PEM = 64 * 1024
"""Characters of one text."""

_KEY = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.+?-----END \1-----", re.DOTALL)


def check_authorities(pem: str) -> None:
    """Raise EndpointError unless this is one certificate or more, and nothing that is secret."""
    _certificates(pem, "the authorities of an endpoint (ca)")
    if _KEY.search(pem):
        raise EndpointError(
            "the authorities of an endpoint (ca) have a private key among them, which belongs elsewhere"
        )


def check_client_certificate(pem: str) -> None:
    """Raise EndpointError unless this is a certificate, what it was issued by if any, and its unencrypted key."""
    what = "the client certificate"
    first, *_chain = _certificates(pem, what)
    found = list(_KEY.finditer(pem))
    if len(found) != 1:
        raise EndpointError(f"{what} needs one private key beside it, in the same PEM text; it has {len(found)}")
    try:
        key = load_pem_private_key(found[0][0].encode(), password=None)
    except TypeError:
        raise EndpointError(f"the key of {what} is encrypted: bring it without its password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise EndpointError(f"the key of {what} cannot be read") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if first.public_key().public_bytes(*form) != key.public_key().public_bytes(*form):
        raise EndpointError(f"{what} and its key do not belong together; the certificate of the key stands first")


def _certificates(pem: str, what: str) -> list[x509.Certificate]:
    if len(pem) > MAX_PEM:
        raise EndpointError(f"{what}: more than {MAX_PEM} characters")
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise EndpointError(f"{what}: there is no certificate in PEM that can be read") from None
