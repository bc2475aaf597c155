"""`POST /webhooks/{source}`: limits, then verify over the raw bytes, then parse, then store, then answer.

A plain ASGI function ahead of the router, because this is the path that everything else waits for. Nothing is
stored for a request that does not verify. What each answer means to a sender:

    202  stored, with the event's id          401  the signature does not verify
    200  stored before, with the same id      404  no such source
    400  not an event, or a malformed request 409  this delivery id came with another body before
    405  not a POST                           413  the body is too large
    408  the body did not arrive in time      415  the body is compressed
    429  too many failed verifications        431  too many or too large headers
    503  cannot store now; send it again after Retry-After

The Content-Type is not looked at: it is not signed, and a body that verifies and parses is an event.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from prometheus_client import Counter

from handlers.errors import ParseError, ProviderError, VerificationError
from handlers.event import Event, Headers
from handlers.providers import PROVIDERS, Inbound
from receiver.answers import CLOSE, Answer, Receive, Scope, Send, failure, success
from receiver.gather import Gatherer, Overloaded, Unavailable
from receiver.throttle import Throttle, origin
from workers import ids, tracing
from workers.inbox import Arrival, Outcome
from workers.logs import log
from workers.metrics import DELIVERIES
from workers.settings import Settings, Source
from workers.tracing import OFF, Span

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PREFIX = "/webhooks/"
NO_UPGRADE = failure(400, "BAD_REQUEST", "send the request without an Upgrade header", CLOSE)
"""The parser takes what follows such an offer for another request, body or not."""
_LATER = failure(503, "UNAVAILABLE", "cannot store deliveries now; send it again later", (b"retry-after", b"5"))
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
_KEPT = frozenset({b"user-agent", b"content-type"})


class Refused(Exception):
    """The request is answered with `answer`; `reason` is the metric's label."""

    def __init__(self, reason: str, answer: Answer) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answer = answer


class Gone(Exception):
    """The sender went away before its request was complete."""


@dataclass(frozen=True, slots=True)
class Sender:
    """A source, prepared once: what its requests are checked with."""

    name: str
    inbound: Inbound
    keys: tuple[bytes | Ed25519PublicKey, ...] = field(repr=False)
    once: frozenset[bytes]
    """Headers that may stand only once."""
    kept: frozenset[bytes]
    """Headers that are stored with the event; never the signature."""


class Webhooks:
    """The ASGI application of `/webhooks/`."""

    def __init__(
        self,
        settings: Settings,
        gatherer: Gatherer,
        clock: Callable[[], float] = time.time,
        client: Callable[[str], Any] | None = None,
    ) -> None:
        self._senders = {name: _sender(name, source) for name, source in settings.sources.items()}
        self._by_target = {
            f"{PREFIX}{name}".encode(): sender
            for name, sender in self._senders.items()
            if sender.inbound.schemes and sender.inbound.confirm is None
        }
        # A source that does not exist is treated like one whose secret nobody knows, so that it takes as long.
        self._nobody = _sender("", Source(provider=next(iter(PROVIDERS)), secrets=(secrets.token_hex(),)))
        self._client = client
        self._gatherer = gatherer
        self._max_body = settings.max_body_bytes
        self._read_timeout = settings.read_timeout
        self._throttle = Throttle(settings.failed_verifications)
        self._clock = clock
        self._counters: dict[tuple[str, str, str], Counter] = {}

    def take(self, target: bytes, headers: Headers, body: bytes, reply: Callable[[Answer], None]) -> bool:
        """Take a POST that came in one piece, if it is a delivery to be stored; `reply` is called when it is.

        False for any other: nothing has happened then, and it is refused, counted and throttled by `__call__`.
        """
        sender = self._by_target.get(target)
        if sender is None:
            return False
        try:
            self._check_limits(sender, "POST", headers)
            if len(body) > self._max_body:
                return False
            arrival = self._arrival(sender, headers, body, self._clock())
            span = _span(sender, headers, arrival)
            if span is not OFF:
                arrival = replace(arrival, traceparent=span.traceparent)
            self._gatherer.put(arrival, partial(self._reply, sender, reply, span))
        except (Refused, VerificationError, ParseError, Overloaded):
            return False
        except Exception as error:  # a fault of ours: the ordinary way answers 500, so that it is sent again
            log.exception("taking a delivery failed", action="take_failed", error=type(error).__name__)
            return False
        return True

    def _reply(
        self, sender: Sender, reply: Callable[[Answer], None], span: Span, result: Outcome | Unavailable
    ) -> None:
        with span:
            try:
                answer = self._stored(sender, result, span)
            except Refused as refused:
                self._count(sender, "refused", refused.reason)
                answer = refused.answer
            reply(answer)
            _answered(span, answer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name, slash, token = scope["path"][len(PREFIX) :].partition("/")
        sender = self._senders.get(name, self._nobody)
        if bool(slash) is bool(sender.inbound.schemes):
            sender = self._nobody
        try:
            answer = await self._answer(sender, scope, receive, token.encode())
        except Refused as refused:
            self._count(sender, "refused", refused.reason)
            answer = refused.answer
        except Gone:
            self._count(sender, "refused", "disconnected")
            return
        await answer.send(send)

    async def _answer(self, sender: Sender, scope: Scope, receive: Receive, token: bytes) -> Answer:
        self._check_limits(sender, scope["method"], scope["headers"])
        body = await self._read(receive)
        now = self._clock()
        arrival = self._verify(sender, scope, body, now, token)
        with _span(sender, scope["headers"], arrival) as span:
            try:
                if sender.inbound.confirm is not None:
                    await self._confirm(sender, scope, arrival.event, now)
                answer = await self._store(sender, replace(arrival, traceparent=span.traceparent), span)
            except Refused as refused:
                _answered(span, refused.answer)
                raise
            _answered(span, answer)
            return answer

    async def _store(self, sender: Sender, arrival: Arrival, span: Span) -> Answer:
        try:
            return self._stored(sender, await self._gatherer.submit(arrival), span)
        except Overloaded:
            raise Refused("overloaded", _LATER) from None

    def _check_limits(self, sender: Sender, method: str, headers: Headers) -> None:
        if method != "POST":
            raise Refused(
                "method", failure(405, "METHOD_NOT_ALLOWED", "deliveries are sent by POST", (b"allow", b"POST"))
            )
        size = hosts = 0
        seen: set[bytes] = set()
        for name, value in headers:
            size += len(name) + len(value)
            if name in sender.once:
                if name in seen:
                    raise Refused("duplicate_header", failure(400, "BAD_REQUEST", f"{name.decode()} stands twice"))
                seen.add(name)
            elif name == b"content-length":
                if int(value) > self._max_body:
                    raise self._too_large()
            elif name == b"content-encoding":
                if value.strip().lower() not in {b"", b"identity"}:
                    raise Refused("encoding", failure(415, "UNSUPPORTED_ENCODING", "send the body uncompressed", CLOSE))
            elif name == b"host":
                hosts += 1
            elif name == b"upgrade":
                raise Refused("upgrade", NO_UPGRADE)
        if size > MAX_HEADER_BYTES or len(headers) > MAX_HEADERS:
            raise Refused("headers", failure(431, "HEADERS_TOO_LARGE", "too many or too large headers", CLOSE))
        if hosts != 1:
            raise Refused("host", failure(400, "BAD_REQUEST", "a request has one Host header", CLOSE))

    async def _read(self, receive: Receive) -> bytes:
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._read_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > self._max_body:
                        raise self._too_large()
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        except TimeoutError:
            raise Refused(
                "timeout", failure(408, "REQUEST_TIMEOUT", f"the body took over {self._read_timeout:g} s", CLOSE)
            ) from None

    def _too_large(self) -> Refused:
        message = f"the body exceeds {self._max_body} bytes"
        return Refused("too_large", failure(413, "PAYLOAD_TOO_LARGE", message, CLOSE))

    def _verify(self, sender: Sender, scope: Scope, body: bytes, now: float, token: bytes) -> Arrival:
        try:
            return self._arrival(sender, scope["headers"], body, now, token)
        except VerificationError as error:
            raise self._unverified(sender, scope, error, now) from None
        except ParseError as error:
            log.warning(
                "a verified delivery is not an event", action="parse_failed", source=sender.name, error=str(error)
            )
            raise Refused("not_an_event", failure(400, "VALIDATION_ERROR", str(error))) from None

    async def _confirm(self, sender: Sender, scope: Scope, event: Event, now: float) -> None:
        """Ask the provider itself, in a thread: its client blocks."""
        confirm, client = sender.inbound.confirm, self._client
        if confirm is None or client is None:  # what cannot be asked is not taken for granted
            raise Refused("unconfirmed", _LATER)
        try:
            await asyncio.to_thread(lambda: confirm(client(sender.name), event))
        except VerificationError as error:
            raise self._unverified(sender, scope, error, now) from None
        except ProviderError as error:
            log.warning("the provider could not be asked", action="unconfirmed", source=sender.name, code=error.code)
            raise Refused("unconfirmed", _LATER) from None

    def _arrival(self, sender: Sender, headers: Headers, body: bytes, now: float, token: bytes = b"") -> Arrival:
        verified = sender.inbound.verify(headers, body, sender.keys, now, token)
        event = sender.inbound.parse(headers, body)
        digest = hashlib.sha256(body)
        signed_id = verified.delivery_id if sender.inbound.signs_id else None
        event_key = event.key or signed_id or digest.hexdigest()
        return Arrival(
            id=ids.new("evt"),
            source=sender.name,
            received_at=datetime.fromtimestamp(now, UTC),
            event=event,
            delivery_id=verified.delivery_id or event_key,
            event_key=event_key,
            body_hash=digest.digest(),
            headers={name.decode(): value.decode("latin-1") for name, value in headers if name in sender.kept},
        )

    def _unverified(self, sender: Sender, scope: Scope, error: VerificationError, now: float) -> Refused:
        if sender is self._nobody:
            return Refused("unknown_source", failure(404, "NOT_FOUND", "there is no such source"))
        if wait := self._throttle.wait((sender.name, origin(scope.get("client"))), now):
            message = "too many failed verifications from this address"
            return Refused("throttled", failure(429, "RATE_LIMIT_EXCEEDED", message, (b"retry-after", b"%d" % wait)))
        log.warning("a delivery failed verification", action="unverified", source=sender.name, reason=error.reason)
        return Refused(error.reason, failure(401, "UNAUTHORIZED", str(error)))

    def _stored(self, sender: Sender, outcome: Outcome | Unavailable, span: Span) -> Answer:
        if isinstance(outcome, Unavailable):
            raise Refused("unavailable", _LATER)
        if span is not OFF:
            span.note({"billhook.event.id": outcome.event_id, "billhook.outcome": outcome.kind})
        self._count(sender, outcome.kind, "")
        if outcome.kind == "conflict":
            log.error(
                "a delivery id came again with another body",
                action="conflict",
                source=sender.name,
                event_id=outcome.event_id,
            )
            return failure(409, "CONFLICT", "this delivery id was received before with another body")
        repeated = outcome.kind == "duplicate"
        return success(200 if repeated else 202, {"id": outcome.event_id, "duplicate": repeated})

    def _count(self, sender: Sender, outcome: str, reason: str) -> None:
        key = (sender.name, outcome, reason)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = DELIVERIES.labels(*key)
        counter.inc()


def _span(sender: Sender, headers: Headers, arrival: Arrival) -> Span:
    """Of a delivery that verified. What did not is counted and logged: strangers must not fill a collector.

    Its path is not on it: of a provider that does not sign there is a secret in it.
    """
    if not tracing.is_on():  # the path that everything else waits for
        return OFF
    about = {
        "http.request.method": "POST",
        "http.route": f"{PREFIX}{sender.name}",
        "billhook.source": sender.name,
        "billhook.event.type": arrival.event.type,
    }
    return tracing.received(f"POST {PREFIX}{sender.name}", headers, about)


def _answered(span: Span, answer: Answer) -> None:
    if span is OFF:
        return
    span.note({"http.response.status_code": answer.status})
    if answer.status >= 500:
        span.fail(str(answer.status))
    span.end()


def _sender(name: str, source: Source) -> Sender:
    inbound, event_header = source.inbound(), PROVIDERS[source.provider].event_header
    kept = inbound.kept | _KEPT | ({event_header} if event_header else set())
    return Sender(name, inbound, source.keys(), inbound.once, kept)
