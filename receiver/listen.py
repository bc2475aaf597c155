"""A sink for those who build against Billhook: it verifies what it gets, shows it, and answers as it was told.

It keeps nothing but how often each webhook-id came. How a delivery is shown is for `receiver.cli.listen`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from handlers.errors import VerificationError
from handlers.event import Headers
from handlers.signing import STANDARD, SVIX, key_of, verify
from receiver.answers import Receive, Scope, Send

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_BODY = 5 * 1024 * 1024
"""Bytes of a body after which it is answered 413."""
MAX_IDS = 100_000
"""Of so many ids it is known how often they came; then the oldest is forgotten."""

_SCHEMES = (STANDARD, SVIX)


@dataclass(frozen=True, slots=True)
class Secret:
    """What signatures are checked with, and its name: `secret 2 (v1a)`, by the order in which they were given."""

    name: str
    key: bytes | Ed25519PublicKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a delivery is genuine; None: no secret was given. `reason` is VerificationError's, `words` for people."""

    verified: bool | None
    reason: str
    words: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request as it came, and what becomes of it.

    `at` is Unix seconds; `path` has the query; `before` is how often its webhook-id came already; `status` what it is
    answered. A body that is too large is cut off where it was given up.
    """

    at: float
    method: str
    path: str
    headers: Headers
    body: bytes
    id: str | None
    before: int
    verdict: Verdict
    status: int


@dataclass(frozen=True, slots=True)
class Answers:
    """How to answer. `statuses` are those of a message's first, second, … attempt, and the last of all after it.

    Without any it is 204, and 401 to what does not verify. `delay` in seconds; `retry_after` goes with what is no 2xx.
    """

    statuses: tuple[int, ...] = ()
    delay: float = 0.0
    retry_after: int | None = None

    def status(self, verdict: Verdict, before: int) -> int:
        """For a delivery whose id came `before` times already."""
        if self.statuses:
            return self.statuses[min(before, len(self.statuses) - 1)]
        return 401 if verdict.verified is False else 204

    def headers(self, status: int) -> dict[str, str]:
        """Beside the status."""
        if self.retry_after is None or 200 <= status < 300:
            return {}
        return {"retry-after": str(self.retry_after)}


def read_secrets(written: Sequence[str]) -> tuple[Secret, ...]:
    """Secrets `whsec_…` and public keys `whpk_…`. Raises ValueError that counts to the wrong one, unquoted."""
    secrets = []
    for number, text in enumerate(written, 1):
        if text.startswith("whsk_"):
            raise ValueError(f"secret {number} is a private key; to verify takes the public one, whpk_…")
        try:
            key = key_of(STANDARD, text)
        except ValueError as error:
            raise ValueError(f"secret {number}: {error}") from None
        secrets.append(Secret(f"secret {number} ({_kind(key)})", key))
    return tuple(secrets)


def judge(secrets: Sequence[Secret], headers: Headers, body: bytes, now: float) -> Verdict:
    """Verify a delivery, at `now` (Unix seconds), and tell which secrets fit: in a rotation it may be several."""
    if not secrets:
        return Verdict(None, "", "not verified: no secret was given")
    try:
        verify(_SCHEMES, headers, body, [secret.key for secret in secrets], now)
    except VerificationError as error:
        words = _misfit(secrets, headers) if error.reason == "bad_signature" else str(error)
        return Verdict(False, error.reason, f"refused: {words}")
    fitting = [secret.name for secret in secrets if _fits(secret, headers, body, now)]
    return Verdict(True, "", f"verified with {' and '.join(fitting)}")


def create_app(
    secrets: Sequence[Secret],
    answers: Answers,
    *,
    now: Callable[[], float],
    seen: Callable[[Delivery], None],
    answered: Callable[[Delivery], None],
) -> Starlette:
    """The sink, for every method and path. `seen` is called before a delivery is answered, `answered` after."""
    return Starlette(routes=[Route("/{path:path}", _Sink(secrets, answers, now, seen, answered))])


class _Sink:
    def __init__(
        self,
        secrets: Sequence[Secret],
        answers: Answers,
        now: Callable[[], float],
        seen: Callable[[Delivery], None],
        answered: Callable[[Delivery], None],
    ) -> None:
        self._secrets = secrets
        self._answers = answers
        self._now = now
        self._seen = seen
        self._answered = answered
        self._came: dict[str, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body, complete = await _body(request)
        except ClientDisconnect:
            return
        delivery = self._taken(request, body, complete)
        self._seen(delivery)
        await asyncio.sleep(self._answers.delay)
        headers = self._answers.headers(delivery.status)
        if not complete:
            headers["connection"] = "close"
        await Response(status_code=delivery.status, headers=headers)(scope, receive, send)
        self._answered(delivery)

    def _taken(self, request: Request, body: bytes, complete: bool) -> Delivery:
        now = self._now()
        headers = request.headers.raw
        name = request.headers.get("webhook-id", request.headers.get("svix-id"))
        before = self._count(name)
        if complete:
            verdict = judge(self._secrets, headers, body, now)
            status = self._answers.status(verdict, before)
        else:
            verdict, status = Verdict(False, "too_large", f"refused: the body exceeds {MAX_BODY} bytes"), 413
        query = request.scope["query_string"]
        path = request.scope["raw_path"] + (b"?" + query if query else b"")
        return Delivery(now, request.method, path.decode("latin-1"), headers, body, name, before, verdict, status)

    def _count(self, name: str | None) -> int:
        """How often the id came before this time."""
        known = name or ""
        before = self._came.pop(known, 0)
        self._came[known] = before + 1  # at the end again: what was seen last is forgotten last
        if len(self._came) > MAX_IDS:
            del self._came[next(iter(self._came))]
        return before


async def _body(request: Request) -> tuple[bytes, bool]:
    """The body, and whether it is all of it."""
    parts, size = [], 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > MAX_BODY:
            return b"".join(parts)[:MAX_BODY], False
    return b"".join(parts), True


def _fits(secret: Secret, headers: Headers, body: bytes, now: float) -> bool:
    try:
        verify(_SCHEMES, headers, body, [secret.key], now)
    except VerificationError:
        return False
    return True


def _misfit(secrets: Sequence[Secret], headers: Headers) -> str:
    """Why no signature fits, as far as one can tell."""
    signatures = next((value for name, value in headers if name in {STANDARD.signature, SVIX.signature}), b"")
    offered = {part.partition(b",")[0].decode("latin-1") for part in signatures.split(b" ")} & {"v1", "v1a"}
    if not offered & {_kind(secret.key) for secret in secrets}:
        wanted = " or ".join({"v1": "a secret whsec_…", "v1a": "a public key whpk_…"}[kind] for kind in sorted(offered))
        return f"it is signed by {' and '.join(sorted(offered))}, which takes {wanted}"
    return "no signature fits id, timestamp and body under any secret given"


def _kind(key: bytes | Ed25519PublicKey) -> str:
    return "v1" if isinstance(key, bytes) else "v1a"
