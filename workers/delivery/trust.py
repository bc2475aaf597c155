"""TLS towards endpoints: whom we believe, and the certificate we show where an endpoint asks for ours."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import NamedTemporaryFile

import httpx

from handlers.errors import BillhookError


class Unusable(BillhookError):
    """An authority or a certificate cannot be used; the message says what is expected, and nothing of the PEM."""


def usual() -> ssl.SSLContext:
    """Trust in the bundled authorities, or in what SSL_CERT_FILE names. Takes some 60 ms."""
    return _restricted(httpx.create_ssl_context())


def special(ca: str | None, certificate: str | None) -> ssl.SSLContext:
    """Trust in the authorities of `ca` alone (None: in the usual ones), showing `certificate` where that is asked for.

    Both are PEM; `certificate` begins with a certificate, followed by what leads up to its authority, and contains its
    unencrypted key. Raises Unusable.
    """
    context = usual() if ca is None else _restricted(_believing(ca))
    if certificate is not None:
        _show(context, certificate)
    return context


def _restricted(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _believing(ca: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # What was given is believed as it stands, also when it is not the root of its authority.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=ca)
    except (ssl.SSLError, ValueError, TypeError):
        raise Unusable("the endpoint's authorities cannot be used: PEM certificates are expected") from None
    return context


def _show(context: ssl.SSLContext, certificate: str) -> None:
    try:
        with _readable(certificate.encode()) as path:
            # With no password at all OpenSSL would ask for one at the terminal.
            context.load_cert_chain(path, password="")
    except (ssl.SSLError, ValueError):
        raise Unusable(
            "the endpoint's client certificate cannot be used: PEM of a certificate and its unencrypted key is expected"
        ) from None


@contextmanager
def _readable(content: bytes) -> Iterator[str]:
    """A path at which OpenSSL can read this, for us alone; on Linux it never reaches a disk."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("billhook-certificate"), "wb", buffering=0) as memory:
            memory.write(content)
            yield f"/proc/self/fd/{memory.fileno()}"
    else:
        with NamedTemporaryFile(prefix="billhook-", buffering=0) as file:
            file.write(content)
            yield file.name
