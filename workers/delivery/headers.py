"""The headers that an endpoint brings itself, such as a token for the gateway in front of it.

They are refused where they would change how a request is read on its way (request smuggling), pretend where it came
from, or stand in for what Billhook says. Their values are secrets: no error repeats one, and they are stored
encrypted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from cryptography.fernet import MultiFernet

from workers.delivery.errors import EndpointError
from workers.vault import decrypt

MAX_HEADERS = 20
MAX_BYTES = 8 * 1024
"""Of all names and values, with the four bytes that stand around each of them."""

_SHORTEST = 6
"""Characters of a value that is looked for in answers."""
_MASK = b"********"

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token (RFC 9110, section 5.6.2)."""
VALUE = re.compile(r"[\t -~]*")

DENIED = frozenset(
    (
        # What the sender sets, and what ends at the next hop (RFC 9110, section 7.6.1).
        *("accept-encoding", "connection", "expect", "host", "http2-settings", "keep-alive", "te", "trailer"),
        *("transfer-encoding", "upgrade", "user-agent"),
        # Where a request came from and by which way; what method it stands for.
        *("forwarded", "via", "x-real-ip", "x-http-method", "x-http-method-override", "x-method-override"),
        # A session of somebody's browser; nothing here keeps one.
        *("cookie", "cookie2"),
    )
)
"""Names (lower case) that an endpoint cannot set."""
DENIED_PREFIXES = ("content-", "proxy-", "webhook-", "svix-", "billhook-", "x-forwarded-")


def check(headers: Mapping[str, str]) -> None:
    """Raise EndpointError, which names the header and never its value, unless all of these can be sent."""
    if len(headers) > MAX_HEADERS:
        raise EndpointError(f"an endpoint has at most {MAX_HEADERS} headers of its own, not {len(headers)}")
    seen: set[str] = set()
    for name, value in headers.items():
        if NAME.fullmatch(name) is None:
            raise EndpointError(f"{_shown(name)} is not the name of a header: letters, digits and - are")
        if denied(name):
            raise EndpointError(f"the header {_shown(name)} cannot be set")
        if name.lower() in seen:
            raise EndpointError(f"the header {_shown(name)} stands twice")
        seen.add(name.lower())
        _check_value(name, value)
    if sum(len(name) + len(value) + 4 for name, value in headers.items()) > MAX_BYTES:
        raise EndpointError(f"the headers of an endpoint are longer than {MAX_BYTES} bytes in all")


def denied(name: str) -> bool:
    """Whether an endpoint cannot set this header."""
    return name.lower() in DENIED or name.lower().startswith(DENIED_PREFIXES)


def stored(vault: MultiFernet, headers: Mapping[str, str]) -> bytes | None:
    """Checked headers as they are stored; None where there is none. Raises EndpointError."""
    check(headers)
    return vault.encrypt(json.dumps(dict(headers)).encode()) if headers else None


def opened(vault: MultiFernet, stored: bytes | None) -> tuple[tuple[str, str], ...]:
    """Names and values as they are sent, in the order they were given. Raises VaultError."""
    return () if stored is None else _opened(vault, stored)


def names(vault: MultiFernet, stored: bytes | None) -> list[str]:
    """Names alone, for people. Raises VaultError."""
    # Not out of the cache of what is sent, which would keep every vault that was opened to look at one.
    return [] if stored is None else list(json.loads(decrypt(vault, stored)))


def masked(answered: bytes, headers: Sequence[tuple[str, str]]) -> bytes:
    """What was heard of an endpoint, without the values that it was sent: many an error page repeats its request.

    What was heard may end within a value: too long answers are cut, others broke off.
    """
    if not answered:
        return answered
    secrets = sorted({form.encode() for _, value in headers for form in _forms(value)}, key=len, reverse=True)
    begun = max((_begun(answered, secret) for secret in secrets), default=0)
    whole, end = (answered[:-begun], _MASK) if begun else (answered, b"")
    for secret in secrets:
        whole = whole.replace(secret, _MASK)
    return whole + end


def _begun(answered: bytes, secret: bytes) -> int:
    """How much of a value, from its beginning, an answer ends with; 0 where it is too little to tell."""
    sizes = range(len(secret), _SHORTEST - 1, -1)
    return next((size for size in sizes if answered.endswith(secret[:size])), 0)


def _forms(value: str) -> list[str]:
    """A value, what stands behind its scheme (`Bearer …`), and both as JSON has them; nothing that is shorter."""
    parts = (value, value.rpartition(" ")[2])
    return [form for part in parts if len(part) >= _SHORTEST for form in (part, json.dumps(part)[1:-1])]


@lru_cache(maxsize=4096)  # to decrypt them takes longer than to sign, and they seldom change
def _opened(vault: MultiFernet, stored: bytes) -> tuple[tuple[str, str], ...]:
    return tuple(json.loads(decrypt(vault, stored)).items())


def _check_value(name: str, value: str) -> None:
    if not value:
        raise EndpointError(f"the header {_shown(name)} has no value")
    if VALUE.fullmatch(value) is None:
        raise EndpointError(f"the value of the header {_shown(name)} has more in it than printable ASCII")
    if value != value.strip():
        raise EndpointError(f"the value of the header {_shown(name)} begins or ends with a blank")


def _shown(name: str) -> str:
    """A name as a sentence can have it; a value may have been put in its place, so not all of a long one."""
    return ascii(name if len(name) <= 40 else f"{name[:40]}…")
