"""A fake of Hisab's documented API that needs no account, and sends the same signed webhooks.

Paths, envelope, error codes, transitions and limits are those of the API reference. The reference does not say,
so this is chosen: a refused transition is HTTP 409, a creation 201; a webhook that was not answered with 2xx is
sent again under the same delivery id with a fresh timestamp; `data` is flat, with `payment` and `reason` beside
the resource's own fields. State lives in memory and belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from handlers.providers.hisab import PROVIDER
from handlers.providers.hisab.books import STATUSES, Books, Refusal, Resource, is_date, problem
from handlers.testing import signed_request

RETRY_DELAYS = (1.0, 5.0, 25.0)
"""Seconds before a webhook that failed is sent again."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One attempt to deliver a webhook; `status` is None where no answer came."""

    delivery_id: str
    event_type: str
    status: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    id: str
    query: Mapping[str, str]
    body: Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`data` as bytes is a PDF; `event` names the webhook that the call causes, `beside` what it says more."""

    data: Any
    meta: Mapping[str, Any] | None = None
    status: int = 200
    event: str | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)


def create_app(
    *,
    webhook_url: str,
    secret: str,
    api_key: str = "hisab_test_sandbox",
    organization_id: str = "org_4d11a7",
    rate_limit: int = 120,
    retry_delays: Sequence[float] = RETRY_DELAYS,
    now: Callable[[], float] = time.time,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Starlette:
    """Build the fake; its API is under `/api/v1`.

    `webhook_url` and `secret` are what Settings > Webhooks of the dashboard would hold. Webhooks are sent after
    the answer, in the order of the changes; one that is sent again has lost its place. `app.state.sent` lists the
    attempts. `rate_limit` is calls per minute. `transport` stands in for the network that webhooks go through.
    """
    webhooks = _Webhooks(
        webhook_url,
        secret,
        organization_id=organization_id,
        retry_delays=retry_delays,
        now=now,
        transport=transport,
    )
    api = _Api(Books(now), webhooks, api_key, rate_limit, now)
    routes = [Route(f"/api/v1{path}", partial(api.answer, call), methods=[method]) for method, path, call in _CALLS]
    app = Starlette(routes=routes, exception_handlers={404: _no_such_path, 405: _no_such_path})
    app.state.sent = webhooks.sent
    return app


class _Api:
    """Key, limit, JSON and envelope of every call."""

    def __init__(
        self, books: Books, webhooks: _Webhooks, api_key: str, rate_limit: int, now: Callable[[], float]
    ) -> None:
        self._books, self._webhooks, self._now = books, webhooks, now
        self._authorization = f"Bearer {api_key}".encode()
        self._rate_limit = rate_limit
        self._window, self._used = 0, 0

    async def answer(self, call: Callable[[Books, Call], Answer], request: Request) -> Response:
        raw = await request.body()
        # From here to the answer nothing is awaited, so calls cannot overlap.
        usage: dict[str, str] = {}
        try:
            self._authorise(request)
            usage = self._count()
            done = call(
                self._books,
                Call(id=request.path_params.get("id", ""), query=request.query_params, body=_json(raw)),
            )
        except Refusal as refusal:
            return _refused(refusal, usage)
        if isinstance(done.data, bytes):
            return Response(done.data, media_type="application/pdf", headers=usage)
        task = None
        if done.event is not None:
            task = BackgroundTask(self._webhooks.deliver, done.event, self._webhooks.body(done.event, done))
        document = {"success": True, "data": done.data} | ({} if done.meta is None else {"meta": done.meta})
        return JSONResponse(document, done.status, usage, background=task)

    def _authorise(self, request: Request) -> None:
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, self._authorization):
            raise Refusal(401, "UNAUTHORIZED", "Invalid or missing API key")

    def _count(self) -> dict[str, str]:
        """Count the call in the current minute, and say so in headers."""
        now = self._now()
        window = int(now // 60)
        if window != self._window:
            self._window, self._used = window, 0
        self._used += 1
        reset = (window + 1) * 60
        usage = {
            "X-RateLimit-Limit": str(self._rate_limit),
            "X-RateLimit-Remaining": str(max(0, self._rate_limit - self._used)),
            "X-RateLimit-Reset": str(reset),
        }
        if self._used > self._rate_limit:
            raise Refusal(
                429,
                "RATE_LIMIT_EXCEEDED",
                "Too many requests",
                headers=usage | {"Retry-After": str(math.ceil(reset - now))},
            )
        return usage


class _Webhooks:
    """Signs and posts one webhook per change, until it is answered with 2xx or the delays are used up."""

    def __init__(
        self,
        url: str,
        secret: str,
        *,
        organization_id: str,
        retry_delays: Sequence[float],
        now: Callable[[], float],
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        self.sent: list[Sent] = []
        self._url, self._secret, self._organization_id = url, secret, organization_id
        self._retry_delays, self._now = retry_delays, now
        # Between two webhooks nothing stays open, so nobody has to close this client.
        self._http = httpx.AsyncClient(
            transport=transport, trust_env=False, timeout=10, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self._turn = asyncio.Lock()

    def body(self, event_type: str, done: Answer) -> bytes:
        """The body, fixed at the moment of the change: the resource lives on."""
        document = {
            "event": event_type,
            "data": {**done.data, **done.beside},
            "organization_id": self._organization_id,
            "created_at": datetime.fromtimestamp(int(self._now()), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()

    async def deliver(self, event_type: str, body: bytes) -> None:
        delivery_id = f"del_{secrets.token_hex(8)}"
        for delay in (0.0, *self._retry_delays):
            if delay:
                await asyncio.sleep(delay)
            async with self._turn:
                status = await self._attempt(delivery_id, event_type, body)
            self.sent.append(Sent(delivery_id, event_type, status))
            if status is not None and 200 <= status < 300:
                return

    async def _attempt(self, delivery_id: str, event_type: str, body: bytes) -> int | None:
        request = signed_request(
            PROVIDER, event_type, self._secret, body=body, delivery_id=delivery_id, now=self._now()
        )
        headers = {**request.headers, "user-agent": "Hisab-Webhooks/1.0"}
        try:
            response = await self._http.post(self._url, content=request.body, headers=headers)
        except httpx.RequestError:
            return None
        return response.status_code


def _list_invoices(books: Books, call: Call) -> Answer:
    if call.query.get("status", "draft") not in STATUSES:
        raise Refusal.of(problem("status", f"must be one of {', '.join(STATUSES)}"))
    for name in ("date_from", "date_to"):
        if name in call.query and not is_date(call.query[name]):
            raise Refusal.of(problem(name, "must be a date (YYYY-MM-DD)"))
    return _page(books.invoices(call.query), call.query)


def _create_invoice(books: Books, call: Call) -> Answer:
    return Answer(data=books.create_invoice(call.body), status=201, event="invoice.created")


def _get_invoice(books: Books, call: Call) -> Answer:
    return Answer(data=books.invoice(call.id))


def _finalize(books: Books, call: Call) -> Answer:
    return Answer(data=books.finalize(call.id), event="invoice.finalized")


def _send(books: Books, call: Call) -> Answer:
    return Answer(data=books.send(call.id), event="invoice.sent")


def _pay(books: Books, call: Call) -> Answer:
    payment = {"method": call.body.get("payment_method"), "reference": call.body.get("payment_reference")}
    return Answer(data=books.pay(call.id, call.body), event="invoice.paid", beside={"payment": payment})


def _void(books: Books, call: Call) -> Answer:
    return Answer(
        data=books.void(call.id, call.body), event="invoice.voided", beside={"reason": call.body.get("reason")}
    )


def _invoice_pdf(books: Books, call: Call) -> Answer:
    invoice = books.invoice(call.id)
    if invoice["invoice_number"] is None:
        raise Refusal(409, "PDF_NOT_AVAILABLE", "The invoice is not finalized")
    if call.query.get("locale", "fr") not in {"fr", "en", "ar"}:
        raise Refusal.of(problem("locale", "must be one of fr, en, ar"))
    return Answer(data=_pdf(f"{invoice['invoice_number']}  {invoice['total']} {invoice['currency']}"))


def _list_customers(books: Books, call: Call) -> Answer:
    return _page(books.customers(call.query), call.query)


def _create_customer(books: Books, call: Call) -> Answer:
    return Answer(data=books.create_customer(call.body), status=201, event="customer.created")


def _get_customer(books: Books, call: Call) -> Answer:
    return Answer(data=books.customer(call.id))


_CALLS: tuple[tuple[str, str, Callable[[Books, Call], Answer]], ...] = (
    ("GET", "/invoices", _list_invoices),
    ("POST", "/invoices", _create_invoice),
    ("GET", "/invoices/{id}", _get_invoice),
    ("POST", "/invoices/{id}/finalize", _finalize),
    ("POST", "/invoices/{id}/send", _send),
    ("POST", "/invoices/{id}/pay", _pay),
    ("POST", "/invoices/{id}/void", _void),
    ("GET", "/invoices/{id}/pdf", _invoice_pdf),
    ("GET", "/customers", _list_customers),
    ("POST", "/customers", _create_customer),
    ("GET", "/customers/{id}", _get_customer),
)


def _page(resources: Sequence[Resource], query: Mapping[str, str]) -> Answer:
    page, per_page = _whole(query, "page", 1, 1_000_000), _whole(query, "per_page", 20, 100)
    pagination = {
        "total": len(resources),
        "page": page,
        "perPage": per_page,
        "totalPages": math.ceil(len(resources) / per_page),
    }
    return Answer(data=resources[(page - 1) * per_page : page * per_page], meta={"pagination": pagination})


def _whole(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    value = query.get(name, str(default))
    if not (value.isascii() and value.isdigit() and len(value) < 8 and 1 <= int(value) <= most):
        raise Refusal.of(problem(name, f"must be an integer from 1 to {most}"))
    return int(value)


def _json(raw: bytes) -> Resource:
    """The body as an object, its fractions as Decimal; no body is an empty object."""
    try:
        document = json.loads(raw or b"{}", parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refusal(400, "INVALID_JSON", "The body is not valid JSON") from None
    if not isinstance(document, dict):
        raise Refusal(400, "INVALID_JSON", "The body must be an object")
    return document


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _refused(refusal: Refusal, headers: Mapping[str, str]) -> JSONResponse:
    error: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if refusal.details:
        error["details"] = refusal.details
    return JSONResponse({"success": False, "error": error}, refusal.status, {**headers, **refusal.headers})


async def _no_such_path(request: Request, error: Exception) -> Response:
    return _refused(Refusal(404, "NOT_FOUND", "No such endpoint"), {})


def _pdf(line: str) -> bytes:
    """The smallest PDF that a reader opens: one page with one line."""
    text = f"BT /F1 18 Tf 72 770 Td ({line}) Tj ET".encode("ascii", "replace")
    objects = (
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 5 0 R/Resources<</Font<</F1 4 0 R>>>>>>",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(text), text),
    )
    written, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(written))
        written += b"%d 0 obj%s endobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return written + b"xref\n0 6\n0000000000 65535 f \n%strailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (
        table,
        len(written),
    )
