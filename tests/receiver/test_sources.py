"""Sources of every provider at the receiver: signed, with their secret in the path, to be confirmed."""

from __future__ import annotations

import hashlib
import statistics
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import Engine, select
from structlog.testing import capture_logs

from handlers.errors import ProviderError, ProviderUnavailable, VerificationError
from handlers.event import AT_RECEIPT, Event, Headers
from handlers.providers import PROVIDERS, Inbound, Provider
from handlers.providers.json_body import read_object, text
from handlers.testing import SignedRequest
from receiver.app import create_app
from tests.handlers.providers.senders import (
    ASYMMETRIC,
    BODY,
    GITHUB,
    HIBR,
    HISAB,
    SENDERS,
    SLACK,
    STANDARD,
    STRIPE,
    SVIX,
    Sender,
)
from tests.receiver.conftest import Serve
from tests.receiver.edge import Door, Edge, accepted, counted, delivery, refused, stored, wait_until, wire
from workers import database
from workers.app import Runtime
from workers.models import AnyRow, EventRow
from workers.settings import Settings, SettingsError, Source


def rows(engine: Engine) -> list[AnyRow]:
    with database.read(engine) as connection:
        return list(connection.execute(select(*EventRow.__table__.columns).order_by(EventRow.id)))


# --- senders that sign ----------------------------------------------------------------------------


@pytest.fixture
def signed(serve: Serve, runtime: Runtime) -> Edge:
    """A receiver with a source for each sender of the conformance suite, named as it is."""
    return serve(
        runtime,
        sources={
            sender.name: Source(provider=sender.provider, secrets=[sender.secret], options=dict(sender.options))
            for sender in SENDERS
        },
    )


def request(sender: Sender, body: bytes = BODY, **circumstances: Any) -> SignedRequest:
    """A delivery of now, as this sender signs it."""
    headers = sender.headers(body, stamp=sender.stamp(int(time.time())), **circumstances)
    return SignedRequest({name.decode(): value.decode() for name, value in headers}, body)


def test_every_sender_is_received_by_the_short_way_and_by_the_ordinary_one(signed: Edge, engine: Engine) -> None:
    for sender in SENDERS:
        first = accepted(signed.exchange(wire(request(sender), target=f"/webhooks/{sender.name}".encode())))

        assert accepted(signed.post(request(sender), sender.name), 200) == first
    found = rows(engine)
    assert [(row.source, row.provider) for row in found] == [(sender.name, sender.provider) for sender in SENDERS]
    assert {row.type for row in found} == {"invoice.paid"}
    assert {row.body for row in found} == {BODY}


def test_of_every_sender_a_delivery_under_another_secret_or_altered_is_refused(signed: Edge, engine: Engine) -> None:
    for sender in SENDERS:
        before = counted("refused", "bad_signature", sender.name)
        genuine = request(sender)
        for wrong in (request(sender, secret=sender.other), SignedRequest(genuine.headers, BODY + b" ")):
            refused(signed.post(wrong, sender.name), 401, "UNAUTHORIZED")
            refused(signed.exchange(wire(wrong, target=f"/webhooks/{sender.name}".encode())), 401, "UNAUTHORIZED")
        assert counted("refused", "bad_signature", sender.name) == before + 4
    assert stored(engine) == 0


def test_a_delivery_of_one_sender_is_not_one_of_another(signed: Edge, engine: Engine) -> None:
    for sender in SENDERS:
        for other in SENDERS:
            if (sender.provider, sender.secret, sender.options) != (other.provider, other.secret, other.options):
                refused(signed.post(request(sender), other.name), 401, "UNAUTHORIZED")
    assert stored(engine) == 0


@pytest.mark.parametrize("tail", ["/", "/a-secret-of-the-sender", "/x/y", "//", "%2Fx"])
def test_a_source_that_is_signed_has_nothing_behind_its_name(tail: str, signed: Edge, engine: Engine) -> None:
    for sender in (GITHUB, HIBR):
        answer = signed.post(request(sender), sender.name + tail)

        refused(answer, 404, "NOT_FOUND")
        assert answer.content == signed.post(request(sender), "nobody").content
    assert stored(engine) == 0


def test_a_header_of_any_of_the_schemes_may_not_stand_twice(signed: Edge, engine: Engine) -> None:
    for sender in SENDERS:
        for name in sender.names:
            line = name + b": " + request(sender).headers[name.decode()].encode()
            content = wire(request(sender), line, target=f"/webhooks/{sender.name}".encode())

            assert "twice" in refused(signed.exchange(content), 400, "BAD_REQUEST")
    assert stored(engine) == 0


def test_no_signature_is_stored_and_the_headers_of_the_scheme_are(signed: Edge, engine: Engine) -> None:
    for sender in SENDERS:
        accepted(signed.post(request(sender), sender.name))

    for sender, row in zip(SENDERS, rows(engine), strict=True):
        kept = orjson.loads(row.headers)
        assert {name.decode() for name in sender.names} - set(kept) == {sender.signature.decode()}


# --- what an event is known by --------------------------------------------------------------------

DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.mark.parametrize(
    ("sender", "keys"),
    [
        (HISAB, ("del_1", DIGEST)),
        (HIBR, ("del_1", "evt_1")),
        (GITHUB, ("del_1", DIGEST)),
        (STRIPE, ("evt_1", "evt_1")),
        (SLACK, (DIGEST, DIGEST)),
    ],
    ids=lambda value: value.name if isinstance(value, Sender) else "",
)
def test_where_no_delivery_id_is_given_the_key_of_the_event_stands_in(
    sender: Sender, keys: tuple[str, str], signed: Edge, engine: Engine
) -> None:
    accepted(signed.post(request(sender), sender.name))

    (row,) = rows(engine)
    assert (row.delivery_id, row.event_key) == keys


@pytest.mark.parametrize("sender", [HISAB, GITHUB], ids=lambda sender: sender.name)
def test_an_id_that_is_not_signed_does_not_make_another_event(sender: Sender, signed: Edge, engine: Engine) -> None:
    first = accepted(signed.post(request(sender), sender.name))

    assert accepted(signed.post(request(sender, delivery_id=b"del_2"), sender.name), 200) == first
    assert stored(engine) == 1


@pytest.mark.parametrize("sender", [STANDARD, SVIX, ASYMMETRIC], ids=lambda sender: sender.name)
def test_an_id_that_is_signed_makes_another_event_of_the_same_body(
    sender: Sender, signed: Edge, engine: Engine
) -> None:
    # Two messages may say the same, such as {"type":"ping"}; that they are two is what the sender signed.
    first = accepted(signed.post(request(sender, delivery_id=b"msg_1"), sender.name))
    second = accepted(signed.post(request(sender, delivery_id=b"msg_2"), sender.name))

    assert first != second
    assert accepted(signed.post(request(sender, delivery_id=b"msg_1"), sender.name), 200) == first
    assert {row.event_key for row in rows(engine)} == {"msg_1", "msg_2"}


def test_the_event_of_hibr_is_one_under_whatever_delivery(signed: Edge, engine: Engine) -> None:
    first = accepted(signed.post(request(HIBR), "hibr"))

    assert accepted(signed.post(request(HIBR, delivery_id=b"evt_other"), "hibr"), 200) == first
    altered = BODY.replace(b"120.00", b"999.00")
    refused(signed.post(request(HIBR, altered, delivery_id=b"evt_another"), "hibr"), 409, "CONFLICT")
    assert stored(engine) == 1


def test_an_event_whose_sender_does_not_say_when_happened_when_it_came(signed: Edge, engine: Engine) -> None:
    accepted(signed.post(request(GITHUB), "github"))
    accepted(signed.post(request(HISAB), "hisab"))

    unknown, known = rows(engine)
    assert unknown.occurred_at == unknown.received_at
    assert abs(unknown.received_at - datetime.now(UTC)) < timedelta(seconds=30)
    assert known.occurred_at == datetime(2026, 6, 5, 14, tzinfo=UTC)


def test_an_event_of_the_other_environment_is_refused(serve: Serve, runtime: Runtime, engine: Engine) -> None:
    source = Source(provider="hibr", secrets=[HIBR.secret], options={"livemode": True})
    edge = serve(runtime, sources={"live": source})
    before = counted("refused", "not_an_event", "live")

    message = refused(edge.post(request(HIBR), "live"), 400, "VALIDATION_ERROR")

    assert message.startswith("livemode is not true")
    assert counted("refused", "not_an_event", "live") == before + 1
    assert stored(engine) == 0
    accepted(edge.post(request(HIBR, BODY.replace(b"false", b"true")), "live"))


# --- a sender that does not sign ------------------------------------------------------------------

TOKEN, NEXT = "a-token-that-nobody-can-guess-1", "a-token-that-nobody-can-guess-2"
PAYMENT = b'{"id":"pay_1","amount":"20.000"}'


@dataclass
class Books:
    """The API of a provider that does not sign: what it knows of payments; and what it was asked, by which key."""

    amounts: dict[str, str] = field(default_factory=lambda: {"pay_1": "20.000"})
    failure: Exception | None = None
    open: threading.Event = field(default_factory=threading.Event)
    """Nobody is answered while it is not set."""
    asked: list[tuple[str, str]] = field(default_factory=list)

    def client(self, *, api_key: str, **_: object) -> Asking:
        return Asking(self, api_key)


@dataclass
class Asking:
    books: Books
    api_key: str

    def amount(self, payment: str) -> str | None:
        self.books.asked.append((self.api_key, payment))
        self.books.open.wait(10)
        if self.books.failure is not None:
            raise self.books.failure
        return self.books.amounts.get(payment)

    def close(self) -> None:
        pass


def parse(headers: Headers, body: bytes) -> Event:
    payment = read_object(body)
    return Event(
        type="payment.received",
        data=payment,
        occurred_at=AT_RECEIPT,
        object_kind="payment",
        object_id=text("id", payment.get("id")),
        body=body,
        provider="cash",
    )


def confirm(client: Asking, event: Event) -> None:
    assert event.object_id is not None
    if client.amount(event.object_id) != event.data.get("amount"):
        raise VerificationError("mismatch", "the API knows another amount")


def provider(inbound: Inbound, **more: Any) -> Provider:
    def sample(event_type: str) -> Mapping[str, Any]:
        raise KeyError(event_type)

    return Provider(
        name="cash",
        inbound=lambda _options: inbound,
        data=read_object,
        sample=sample,
        renewed=lambda body, _moment: dict(body),
        **more,
    )


@pytest.fixture
def books() -> Books:
    books = Books()
    books.open.set()
    return books


@pytest.fixture
def cash(serve: Serve, runtime: Runtime, books: Books, monkeypatch: pytest.MonkeyPatch) -> Edge:
    """A receiver with two sources that are not signed, `cash` and `till`, beside `shop`, which is."""
    inbound = Inbound(schemes=(), parse=parse, confirm=confirm)
    monkeypatch.setitem(PROVIDERS, "cash", provider(inbound, client=books.client))
    return serve(
        runtime,
        sources={
            **runtime.settings.sources,
            "cash": Source(provider="cash", secrets=[TOKEN, NEXT], api_key="key-of-cash"),
            "till": Source(provider="cash", secrets=["x" * 24], api_key="key-of-till"),
        },
        failed_verifications=1_000,
    )


def pay(edge: Edge, path: str, body: bytes = PAYMENT) -> httpx.Response:
    return edge.client.post(f"/webhooks/{path}", content=body)


def test_with_the_secret_in_the_path_a_delivery_is_confirmed_and_stored(
    cash: Edge, books: Books, engine: Engine
) -> None:
    event_id = accepted(pay(cash, f"cash/{TOKEN}"))

    (row,) = rows(engine)
    assert (row.id, row.source, row.provider, row.type) == (event_id, "cash", "cash", "payment.received")
    assert row.delivery_id == row.event_key == hashlib.sha256(PAYMENT).hexdigest()
    assert row.occurred_at == row.received_at
    assert row.body == PAYMENT
    assert books.asked == [("key-of-cash", "pay_1")]


def test_every_secret_of_the_source_serves_however_a_url_spells_it(cash: Edge, engine: Engine) -> None:
    first = accepted(pay(cash, f"cash/{TOKEN}"))

    for path in (f"cash/{NEXT}", f"cash/%61{TOKEN[1:]}", f"cash/{TOKEN}?attempt=2", f"%63ash/{TOKEN}"):
        assert accepted(pay(cash, path), 200) == first
    plain = wire(SignedRequest({}, PAYMENT), target=f"/webhooks/cash/{TOKEN}".encode())
    assert accepted(cash.exchange(plain), 200) == first
    assert stored(engine) == 1


WRONG = ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), f"{TOKEN}/", f"/{TOKEN}", f"{TOKEN}/{TOKEN}", f"{TOKEN},{NEXT}"]
WRONG += ["x" * 24, f"{TOKEN}%00", f"{TOKEN}%20", "%ff", "%D9%A3", "x" * 10_000, f"{TOKEN}%0A"]


@pytest.mark.parametrize("token", WRONG)
def test_with_another_secret_a_delivery_is_refused_and_nobody_is_asked(
    token: str, cash: Edge, books: Books, engine: Engine
) -> None:
    before = counted("refused", "bad_token", "cash")

    answer = pay(cash, f"cash/{token}")

    refused(answer, 401, "UNAUTHORIZED")
    assert answer.content == pay(cash, "cash/another").content
    assert counted("refused", "bad_token", "cash") == before + 2
    assert books.asked == []
    assert stored(engine) == 0


def test_without_a_secret_in_the_path_there_is_no_such_source(cash: Edge, engine: Engine) -> None:
    answer = pay(cash, "cash")

    refused(answer, 404, "NOT_FOUND")
    assert answer.content == pay(cash, "nobody").content == pay(cash, f"nobody/{TOKEN}").content
    assert cash.exchange(wire(SignedRequest({}, PAYMENT), target=b"/webhooks/cash")).content == answer.content
    refused(cash.post(delivery(), f"shop/{TOKEN}"), 404, "NOT_FOUND")
    assert stored(engine) == 0


def test_a_secret_that_is_wrong_is_told_before_a_body_that_is(cash: Edge) -> None:
    refused(pay(cash, "cash/another", b"no json"), 401, "UNAUTHORIZED")
    refused(pay(cash, f"cash/{TOKEN}", b"no json"), 400, "VALIDATION_ERROR")


def test_a_secret_of_the_path_is_written_nowhere(cash: Edge, books: Books, engine: Engine) -> None:
    with capture_logs() as lines:
        accepted(pay(cash, f"cash/{TOKEN}"))
        refused(pay(cash, f"cash/{TOKEN}x"), 401, "UNAUTHORIZED")
        refused(pay(cash, f"cash/{TOKEN}", b"{}"), 400, "VALIDATION_ERROR")
        books.failure = ProviderUnavailable("TIMEOUT", "it did not answer")
        refused(pay(cash, f"cash/{TOKEN}"), 503, "UNAVAILABLE")
        wait_until(lambda: any(line["action"] == "accepted" for line in lines))

    metrics = cash.client.get("/metrics").text
    for written in (repr(lines), metrics, rows(engine)[0].headers):
        assert TOKEN not in written


def test_a_wrong_secret_takes_as_long_however_much_of_it_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "cash", provider(Inbound(schemes=(), parse=parse)))
    source = Source(provider="cash", secrets=[TOKEN, NEXT])
    door = Door(Settings(sources={"cash": source}, failed_verifications=1_000_000))
    taken: dict[str, list[float]] = {"x" + TOKEN[1:]: [], TOKEN[:-1] + "x": [], "x" * len(TOKEN): []}

    for _ in range(300):
        for token, seconds in taken.items():
            started = time.perf_counter()
            answer = door.run(door.post(SignedRequest({}, PAYMENT), f"/webhooks/cash/{token}"))
            seconds.append(time.perf_counter() - started)
            assert answer.status_code == 401

    medians = [statistics.median(seconds) for seconds in taken.values()]
    door.close()
    assert max(medians) < 2 * min(medians)


def test_a_source_without_a_confirmation_needs_only_the_secret(
    serve: Serve, runtime: Runtime, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROVIDERS, "cash", provider(Inbound(schemes=(), parse=parse)))
    edge = serve(runtime, sources={"cash": Source(provider="cash", secrets=[TOKEN])})

    accepted(pay(edge, f"cash/{TOKEN}"))
    refused(pay(edge, f"cash/{NEXT}"), 401, "UNAUTHORIZED")
    assert stored(engine) == 1


# --- what the provider says to it -----------------------------------------------------------------


def test_what_the_provider_contradicts_is_refused_under_its_reason(cash: Edge, books: Books, engine: Engine) -> None:
    before = counted("refused", "mismatch", "cash")

    for false in (b'{"id":"pay_1","amount":"20000.000"}', b'{"id":"pay_2","amount":"20.000"}'):
        refused(pay(cash, f"cash/{TOKEN}", false), 401, "UNAUTHORIZED")

    assert counted("refused", "mismatch", "cash") == before + 2
    assert [payment for _, payment in books.asked] == ["pay_1", "pay_2"]
    assert stored(engine) == 0


def test_contradicting_too_often_is_throttled(serve: Serve, runtime: Runtime, cash: Edge) -> None:
    edge = serve(
        runtime, sources={"cash": Source(provider="cash", secrets=[TOKEN], api_key="k")}, failed_verifications=2
    )

    answers = [pay(edge, f"cash/{TOKEN}", b'{"id":"pay_2","amount":"1"}') for _ in range(4)]

    assert [answer.status_code for answer in answers] == [401, 401, 429, 429]
    accepted(pay(edge, f"cash/{TOKEN}"))


@pytest.mark.parametrize(
    "failure",
    [
        ProviderUnavailable("TIMEOUT", "it did not answer"),
        ProviderUnavailable("RATE_LIMIT_EXCEEDED", "too many requests", status=429, retry_after=900),
        ProviderError("UNAUTHORIZED", "the key is revoked", status=401),
    ],
    ids=lambda error: error.code,
)
def test_what_cannot_be_confirmed_now_is_to_be_sent_again(
    failure: ProviderError, cash: Edge, books: Books, engine: Engine
) -> None:
    before = counted("refused", "unconfirmed", "cash")
    books.failure = failure

    with capture_logs() as lines:
        answer = pay(cash, f"cash/{TOKEN}")

    refused(answer, 503, "UNAVAILABLE")
    assert int(answer.headers["retry-after"]) > 0
    assert counted("refused", "unconfirmed", "cash") == before + 1
    assert [(line["source"], line["code"]) for line in lines if line["action"] == "unconfirmed"] == [
        ("cash", failure.code)
    ]
    assert stored(engine) == 0
    books.failure = None
    accepted(pay(cash, f"cash/{TOKEN}"))
    assert stored(engine) == 1


def test_while_one_delivery_is_confirmed_others_are_received(cash: Edge, books: Books, engine: Engine) -> None:
    books.open.clear()
    with ThreadPoolExecutor(1) as sender:
        answer = sender.submit(pay, cash, f"cash/{TOKEN}")
        wait_until(lambda: len(books.asked) == 1)

        accepted(cash.post(delivery()))

        assert not answer.done()
        assert stored(engine) == 1
        books.open.set()
        accepted(answer.result(10))


def test_each_source_is_confirmed_by_its_own_key(cash: Edge, books: Books, engine: Engine) -> None:
    accepted(pay(cash, f"cash/{TOKEN}"))
    accepted(pay(cash, f"till/{'x' * 24}"))

    refused(pay(cash, f"till/{TOKEN}"), 401, "UNAUTHORIZED")
    assert [key for key, _ in books.asked] == ["key-of-cash", "key-of-till"]
    assert {row.source for row in rows(engine)} == {"cash", "till"}


def test_a_source_whose_provider_cannot_be_asked_is_refused_at_the_start(runtime: Runtime) -> None:
    source = Source(provider="hesabe", secrets="a" * 24, api_key="842217:only-half")
    changed = replace(runtime, settings=runtime.settings.model_copy(update={"sources": {"pay": source}}))

    with pytest.raises(SettingsError, match="BILLHOOK_SOURCES__PAY__API_KEY") as refused:
        create_app(changed)
    assert "only-half" not in str(refused.value)
