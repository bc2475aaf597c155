"""What is read off HIBR's lists, against what its sandbox told by webhooks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from handlers.errors import ParseError, ProviderError
from handlers.event import Event
from handlers.providers.hibr import PROVIDER
from handlers.providers.hibr.changes import PAID_WITHIN, changes
from handlers.providers.hibr.client import HibrClient
from handlers.providers.hibr.sandbox.seeds import API_KEY, PAID_INVOICE
from handlers.reconciling import Change
from tests.handlers.providers.hibr.sandboxes import NOW, Sandbox
from tests.handlers.providers.sandbox.bridged import Bridge

START = datetime.fromtimestamp(NOW, UTC)
LATER = START + timedelta(seconds=1)


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox()


def found(sandbox: Sandbox, since: datetime = LATER, transport: httpx.BaseTransport | None = None) -> list[Change]:
    """Without the invoice that a new sandbox has."""
    client = HibrClient(
        api_key=API_KEY, api_url="http://127.0.0.1", max_wait=0, transport=transport or Bridge(sandbox.app)
    )
    return [change for change in changes(client, since) if change.object_id != PAID_INVOICE]


def pass_time(sandbox: Sandbox, **time: float) -> datetime:
    sandbox.now += timedelta(**time).total_seconds()
    return datetime.fromtimestamp(sandbox.now, UTC)


def read(body: bytes, **options: Any) -> Event:
    return PROVIDER.inbound(options).parse([], body)


def test_a_paid_invoice_is_found_as_its_webhook_told_it(sandbox: Sandbox) -> None:
    created = pass_time(sandbox, hours=1)
    invoice = sandbox.invoice("open")
    paid = pass_time(sandbox, days=10)
    sandbox.act(invoice, "pay")
    told = read(sandbox.posted[-1].content)

    (change,) = found(sandbox, paid)

    event = read(change.body, livemode=False)
    for one in (change, event):
        assert (one.type, one.occurred_at, one.object_kind, one.object_id) == (
            told.type,
            told.occurred_at,
            told.object_kind,
            told.object_id,
        )
    assert event.data == {**told.data, "previous_attributes": {}}
    assert (change.earliest, change.repeats) == (created, False)


def test_what_is_not_paid_or_was_paid_before_is_left_out(sandbox: Sandbox) -> None:
    pass_time(sandbox, hours=1)
    for status in ("draft", "open", "void", "paid"):
        sandbox.invoice(status)
    since = pass_time(sandbox, hours=1)

    assert found(sandbox, since) == []
    assert len(found(sandbox)) == 1


def test_an_invoice_is_found_for_30_days_after_its_creation(sandbox: Sandbox) -> None:
    created = pass_time(sandbox, hours=1)
    invoice = sandbox.invoice("open")
    pass_time(sandbox, days=70)
    sandbox.act(invoice, "pay")

    assert [change.object_id for change in found(sandbox, created + PAID_WITHIN)] == [invoice["id"]]
    assert found(sandbox, created + PAID_WITHIN + timedelta(seconds=1)) == []


def test_all_pages_are_read(sandbox: Sandbox) -> None:
    pass_time(sandbox, hours=1)
    paid = {sandbox.invoice("paid")["id"] for _ in range(3)}
    transport = Rewritten(sandbox, limit="2")

    assert {change.object_id for change in found(sandbox, transport=transport)} == paid
    assert len(transport.calls) == 2


class Rewritten(Bridge):
    """The API understands other filters, and its records have other fields."""

    def __init__(self, sandbox: Sandbox, *, without: tuple[str, ...] = (), limit: str = "200", **fields: Any) -> None:
        super().__init__(sandbox.app)
        self._without, self._limit, self._fields = without, limit, fields

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        query = {name: value for name, value in request.url.params.items() if name not in self._without}
        request.url = request.url.copy_with(params={**query, "limit": self._limit})
        answer = super().handle_request(request)
        document = json.loads(answer.content)
        for record in document["data"]:
            record.update(self._fields)
        return httpx.Response(answer.status_code, json=document)


def test_filters_that_the_api_does_not_know_change_nothing(sandbox: Sandbox) -> None:
    pass_time(sandbox, hours=1)
    sandbox.invoice("paid")
    since = pass_time(sandbox, days=40)
    invoice = sandbox.invoice("paid")
    sandbox.invoice("open")

    listed = found(sandbox, since, Rewritten(sandbox, without=("status", "created_at.gte")))

    assert [change.object_id for change in listed] == [invoice["id"]]


@pytest.mark.parametrize(
    ("fields", "hours"), [({}, 2), ({"paid_at": None}, 3), ({"paid_at": None, "updated_at": None}, 1)], ids=str
)
def test_when_it_was_paid_is_told_by_what_the_record_has(fields: dict[str, Any], hours: int, sandbox: Sandbox) -> None:
    pass_time(sandbox, hours=1)
    invoice = sandbox.invoice("open")
    pass_time(sandbox, hours=1)
    sandbox.act(invoice, "pay")
    later = {"updated_at": (START + timedelta(hours=3)).isoformat()}

    (change,) = found(sandbox, transport=Rewritten(sandbox, **(later | fields)))

    assert change.occurred_at == START + timedelta(hours=hours)


def test_an_old_invoice_that_does_not_tell_when_it_was_paid_is_still_found(sandbox: Sandbox) -> None:
    created = pass_time(sandbox, hours=1)
    sandbox.invoice("paid")
    since = pass_time(sandbox, days=20)

    (change,) = found(sandbox, since, Rewritten(sandbox, paid_at=None, updated_at=None))

    assert (change.occurred_at, change.earliest) == (created, created)


@pytest.mark.parametrize("fields", [{"created_at": None}, {"created_at": "x"}, {"paid_at": "x"}, {"id": None}], ids=str)
def test_a_list_out_of_shape_is_said(fields: dict[str, Any], sandbox: Sandbox) -> None:
    pass_time(sandbox, hours=1)
    sandbox.invoice("paid")

    with pytest.raises(ParseError, match=f"{next(iter(fields))} of a listed invoice"):
        found(sandbox, transport=Rewritten(sandbox, **fields))


def test_what_production_lists_is_marked_as_live(sandbox: Sandbox) -> None:
    pass_time(sandbox, hours=1)
    invoice = sandbox.invoice("paid")
    page = {"object": "list", "data": [invoice], "pagination": {"next_cursor": None, "has_more": False}}
    production = httpx.MockTransport(lambda _: httpx.Response(200, json=page))

    with HibrClient(api_key="hibr_live_0123456789", transport=production) as client:
        (change,) = changes(client, LATER)

    assert read(change.body, livemode=True).object_id == invoice["id"]
    with pytest.raises(ParseError, match="livemode is not false"):
        read(change.body, livemode=False)


def test_a_key_that_may_not_read_invoices_is_an_error(sandbox: Sandbox) -> None:
    key = sandbox.key("read:customers")
    with (
        HibrClient(api_key=key, api_url="http://127.0.0.1", transport=Bridge(sandbox.app)) as client,
        pytest.raises(ProviderError) as refused,
    ):
        list(changes(client, START))

    assert refused.value.code == "permission_error"
