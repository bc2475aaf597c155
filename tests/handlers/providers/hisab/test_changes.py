"""What is read off Hisab's lists, against what its sandbox told by webhooks."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from handlers.errors import ParseError, ProviderError
from handlers.event import Event
from handlers.providers.hisab import PROVIDER
from handlers.providers.hisab.changes import changes
from handlers.providers.hisab.client import HisabClient
from handlers.reconciling import Change
from tests.handlers.providers.hisab.sandbox_given import INVOICE, KEY, NOW, Sandbox
from tests.handlers.providers.sandbox.bridged import Bridge

BUSINESS = {"name": "MERIT Sarl", "type": "b2b", "ice": "001234567000089"}
UNTOLD = {"changes", "reason"}
"""What a webhook has beside the object, and the object does not."""
START = datetime.fromtimestamp(NOW, UTC)


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(rate_limit=10_000)


def client(sandbox: Sandbox, key: str = KEY, transport: httpx.BaseTransport | None = None) -> HisabClient:
    return HisabClient(
        api_key=key, api_url="http://sandbox.test/api/v1", max_wait=0, transport=transport or Bridge(sandbox.app)
    )


def found(sandbox: Sandbox, since: datetime = START + timedelta(seconds=1)) -> list[Change]:
    """Without the customers that a new sandbox has."""
    return list(changes(client(sandbox), since))


def pass_time(sandbox: Sandbox, **time: float) -> datetime:
    sandbox.now += timedelta(**time).total_seconds()
    return datetime.fromtimestamp(sandbox.now, UTC)


def read(body: bytes) -> Event:
    return PROVIDER.inbound({}).parse([], body)


def told(sandbox: Sandbox) -> list[Event]:
    """What the webhooks said, oldest first."""
    return [read(request.content) for request in sandbox.posted]


def outline(event: Event | Change) -> tuple[str, datetime, str | None, str | None]:
    return event.type, event.occurred_at, event.object_kind, event.object_id


def lives(sandbox: Sandbox, object_id: str, *steps: tuple[str, str, dict[str, Any]]) -> None:
    """Take each step an hour after the one before, and find it by what it changed alone, as its webhook told it."""
    for method, path, body in steps:
        since = pass_time(sandbox, hours=1)
        sandbox.done(method, path.format(object_id), json=body)

        (change,) = found(sandbox, since)

        event, read_again = told(sandbox)[-1], read(change.body)
        assert outline(change) == outline(read_again) == outline(event)
        assert read_again.organization == event.organization
        assert read_again.data == {name: value for name, value in event.data.items() if name not in UNTOLD}
        assert change.earliest == since


def test_each_step_of_an_invoice_is_found_as_its_webhook_told_it(sandbox: Sandbox) -> None:
    lives(
        sandbox,
        sandbox.create(),
        ("PATCH", "/invoices/{}", {"due_date": "2026-08-05"}),
        ("PATCH", "/invoices/{}", {"due_date": "2026-08-06"}),
        ("POST", "/invoices/{}/finalize", {}),
        ("POST", "/invoices/{}/send", {}),
        ("POST", "/invoices/{}/pay", {"payment_method": "bank_transfer", "payment_reference": "VIR-20260605"}),
    )
    lives(sandbox, sandbox.in_status("finalized"), ("POST", "/invoices/{}/void", {"reason": "Duplicate billing"}))


def test_each_step_of_a_customer_is_found_as_its_webhook_told_it(sandbox: Sandbox) -> None:
    since = pass_time(sandbox, hours=1)
    customer = sandbox.done("POST", "/customers", json=BUSINESS)
    assert [outline(change) for change in found(sandbox, since)] == [outline(told(sandbox)[-1])]

    lives(
        sandbox,
        customer["id"],
        ("PATCH", "/customers/{}", {"email": "finance@example.ma"}),
        ("DELETE", "/customers/{}", {}),
    )


def test_what_happened_once_and_what_repeats_are_told_apart(sandbox: Sandbox) -> None:
    pass_time(sandbox, hours=1)
    sandbox.in_status("void")
    sandbox.in_status("paid")
    sandbox.done("POST", f"/invoices/{sandbox.in_status('finalized')}/send")
    draft = sandbox.create()
    one, another = (sandbox.done("POST", "/customers", json={"name": name, "type": "b2c"})["id"] for name in "AB")
    pass_time(sandbox, hours=1)
    sandbox.done("PATCH", f"/invoices/{draft}", json={"notes": "Thanks"})
    sandbox.done("PATCH", f"/customers/{one}", json={"phone": "+212 5 22 00 00 01"})
    sandbox.done("DELETE", f"/customers/{another}")

    repeats = {change.type: change.repeats for change in found(sandbox)}

    assert {kind for kind, again in repeats.items() if again} == {
        "invoice.updated",
        "customer.updated",
        "customer.deleted",
    }
    assert set(repeats) == set(PROVIDER.events)


def test_what_one_second_saw_is_in_the_order_of_an_invoices_life(sandbox: Sandbox) -> None:
    pass_time(sandbox, hours=1)
    invoice = sandbox.create()
    for verb in ("finalize", "send", "pay"):
        sandbox.done("POST", f"/invoices/{invoice}/{verb}")

    assert [change.type for change in found(sandbox)] == [
        "invoice.created",
        "invoice.finalized",
        "invoice.sent",
        "invoice.paid",
    ]


def test_an_update_is_not_seen_behind_what_came_after_it(sandbox: Sandbox) -> None:
    pass_time(sandbox, hours=1)
    invoice = sandbox.create()
    pass_time(sandbox, hours=1)
    sandbox.done("PATCH", f"/invoices/{invoice}", json={"notes": "Thanks"})
    pass_time(sandbox, hours=1)
    sandbox.done("POST", f"/invoices/{invoice}/finalize")

    assert [change.type for change in found(sandbox)] == ["invoice.created", "invoice.finalized"]


def test_what_happened_before_is_left_out(sandbox: Sandbox) -> None:
    pass_time(sandbox, hours=1)
    sandbox.in_status("paid")
    invoice = sandbox.in_status("finalized")
    since = pass_time(sandbox, days=40)
    sandbox.done("POST", f"/invoices/{invoice}/send")

    assert [(change.type, change.object_id) for change in found(sandbox, since)] == [("invoice.sent", invoice)]


@pytest.mark.parametrize("paid_at", ["2026-01-01T00:00:00Z", "2027-01-01T00:00:00+01:00"])
def test_a_payment_happened_when_it_was_recorded_whatever_its_date(paid_at: str, sandbox: Sandbox) -> None:
    issued = pass_time(sandbox, hours=1)
    invoice = sandbox.in_status("finalized")
    recorded = pass_time(sandbox, days=9)
    sandbox.done("POST", f"/invoices/{invoice}/pay", json={"paid_at": paid_at})

    (change,) = found(sandbox, recorded)

    assert (change.type, change.occurred_at) == ("invoice.paid", recorded)
    assert change.earliest == (issued if paid_at < "2026-06" else recorded)
    assert outline(read(change.body)) == outline(told(sandbox)[-1])


def test_an_archived_customer_is_told_of_once(sandbox: Sandbox) -> None:
    pass_time(sandbox, hours=1)
    customer = sandbox.done("POST", "/customers", json=BUSINESS)["id"]
    sandbox.done("DELETE", f"/customers/{customer}")
    assert customer in {one["id"] for one in sandbox.listed("/customers")}

    assert [change.type for change in found(sandbox)] == ["customer.created", "customer.deleted"]


def test_a_key_that_may_not_read_the_organization_leaves_it_open(sandbox: Sandbox) -> None:
    pass_time(sandbox, hours=1)
    sandbox.create()
    key = sandbox.key(scopes=["invoices:read", "customers:read"])

    (change,) = changes(client(sandbox, key), START + timedelta(seconds=1))

    assert read(change.body).organization is None


@pytest.mark.parametrize("key", ["hisab_test_revoked", "hisab_acct_***"])
def test_a_key_that_may_not_read_the_lists_is_an_error(key: str, sandbox: Sandbox) -> None:
    with pytest.raises(ProviderError) as refused:
        list(changes(client(sandbox, key), START))

    assert refused.value.code in {"UNAUTHORIZED", "ORG_HEADER_REQUIRED"}


# --- lists of another shape than the sandbox's ----------------------------------------------------


class Reshaped(Bridge):
    """What the lists have in them is changed on its way; two stand on a page."""

    def __init__(self, sandbox: Sandbox, reshape: Callable[[dict[str, Any]], object] = bool) -> None:
        super().__init__(sandbox.app)
        self._reshape = reshape

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if "per_page" in request.url.params:
            request.url = request.url.copy_set_param("per_page", 2)
        answer = super().handle_request(request)
        document = json.loads(answer.content)
        if isinstance(document["data"], list):
            for resource in document["data"]:
                self._reshape(resource)
        return httpx.Response(answer.status_code, json=document)


def test_an_old_invoice_on_a_later_page_is_found(sandbox: Sandbox) -> None:
    invoice = sandbox.in_status("finalized")
    for _ in range(4):
        sandbox.create()
    since = pass_time(sandbox, hours=1)
    sandbox.done("POST", f"/invoices/{invoice}/pay")
    transport = Reshaped(sandbox)

    assert [change.object_id for change in changes(client(sandbox, transport=transport), since)] == [invoice]
    assert [call for call in transport.calls if "/invoices" in call][-1].endswith("page=3")


def test_an_invoice_that_is_listed_without_its_items_is_read_whole_if_it_changed(sandbox: Sandbox) -> None:
    sandbox.create()
    pass_time(sandbox, hours=1)
    invoice = sandbox.create()
    transport = Reshaped(sandbox, lambda resource: resource.pop("items", None))

    (change,) = changes(client(sandbox, transport=transport), START + timedelta(seconds=1))

    assert read(change.body).data == told(sandbox)[-1].data
    assert [call for call in transport.calls if "/invoices/" in call] == [f"GET /api/v1/invoices/{invoice}"]


def test_an_old_payment_that_something_touched_can_have_been_reported_long_ago(sandbox: Sandbox) -> None:
    invoice = sandbox.in_status("paid")
    since = pass_time(sandbox, days=400)
    touched = since.isoformat()
    transport = Reshaped(sandbox, lambda resource: resource.update(updated_at=touched))

    found = [change for change in changes(client(sandbox, transport=transport), since) if change.object_id == invoice]

    assert [(change.type, change.occurred_at, change.earliest) for change in found] == [("invoice.paid", since, START)]


def test_without_the_time_of_an_update_the_other_moments_tell(sandbox: Sandbox) -> None:
    pass_time(sandbox, hours=1)
    sandbox.done("POST", "/customers", json=BUSINESS)
    sandbox.in_status("paid")
    transport = Reshaped(sandbox, lambda resource: resource.pop("updated_at", None))

    found = [change.type for change in changes(client(sandbox, transport=transport), START + timedelta(seconds=1))]

    assert found == ["customer.created", "invoice.created", "invoice.finalized", "invoice.paid"]


@pytest.mark.parametrize(
    "fault",
    [{"created_at": None}, {"created_at": "yesterday"}, {"updated_at": 1780668000}, {"id": None}, {"id": {"a": 1}}],
    ids=str,
)
@pytest.mark.parametrize("kind", ["invoice", "customer"])
def test_a_list_out_of_shape_is_said_and_nothing_of_it_quoted(
    kind: str, fault: dict[str, Any], sandbox: Sandbox
) -> None:
    since = pass_time(sandbox, hours=1)
    sandbox.done("POST", f"/{kind}s", json=INVOICE if kind == "invoice" else BUSINESS)
    transport = Reshaped(sandbox, lambda resource: resource.update(fault if kind == _kind(resource) else {}))

    with pytest.raises(ParseError, match=f"{next(iter(fault))} of a listed {kind}") as failed:
        list(changes(client(sandbox, transport=transport), since))

    assert "yesterday" not in str(failed.value)


def _kind(resource: dict[str, Any]) -> str:
    return "invoice" if "invoice_number" in resource else "customer"
