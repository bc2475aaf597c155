from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest

from handlers import Discard, Retry
from handlers.recipes import customers
from handlers.recipes.customers import sync_customer
from handlers.testing import event, run
from tests.handlers.recipes.crm import Crm, serving_crm


@pytest.fixture
def crm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Crm]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving_crm() as crm:
        monkeypatch.setattr(customers, "CRM_URL", crm.url)
        yield crm


@pytest.mark.parametrize("event_type", ["customer.created", "customer.updated"])
def test_a_customer_is_written_under_its_id(event_type: str, crm: Crm) -> None:
    ran = run(sync_customer, event(event_type, data={"name": "MERIT Sarl", "email": "finance@example.ma"}))

    assert ran.outcome == "succeeded", ran.trace
    assert crm.customers == {
        "/customers/cus_2b81fe": {"name": "MERIT Sarl", "email": "finance@example.ma", "tax_id": "001234567000089"}
    }
    assert [line["status"] for line in ran.log] == [200]


def test_a_repeated_start_leaves_the_crm_as_it_is(crm: Crm) -> None:
    first = run(sync_customer, event("customer.updated"))
    before = dict(crm.customers)
    run(sync_customer, event("customer.updated"), store=first.store)

    assert crm.customers == before


def test_a_deleted_customer_goes_and_may_be_gone_already(crm: Crm) -> None:
    store = run(sync_customer, event("customer.created")).store
    deleted = event("customer.deleted")

    outcomes = [run(sync_customer, deleted, store=store).outcome for _ in range(2)]

    assert outcomes == ["succeeded", "succeeded"]
    assert crm.customers == {}


def test_an_older_event_that_comes_late_does_not_overwrite_a_newer_state(crm: Crm) -> None:
    newer = event("customer.updated", data={"name": "New"})
    older = event("customer.updated", data={"name": "Old"}, occurred_at=newer.occurred_at - timedelta(minutes=1))

    store = run(sync_customer, newer).store
    late = run(sync_customer, older, store=store)

    assert isinstance(late.error, Discard)
    assert crm.asked == ["PUT"]
    assert crm.customers["/customers/cus_2b81fe"]["name"] == "New"


@pytest.mark.parametrize(("asked", "after"), [("30", 30.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("", None)])
def test_a_crm_over_its_limit_decides_when_it_is_asked_again(asked: str, after: float | None, crm: Crm) -> None:
    crm.statuses, crm.retry_after = [429], asked

    first = run(sync_customer, event("customer.updated"))
    again = run(sync_customer, event("customer.updated"), store=first.store)

    assert isinstance(first.error, Retry)
    assert (first.outcome, first.error.after, again.outcome) == ("retry", after, "succeeded")


@pytest.mark.parametrize("status", [400, 500, 503])
@pytest.mark.parametrize("event_type", ["customer.updated", "customer.deleted"])
def test_any_other_refusal_is_a_failure(event_type: str, status: int, crm: Crm) -> None:
    crm.statuses = [status]

    ran = run(sync_customer, event(event_type))

    assert ran.outcome == "failed"
    assert isinstance(ran.error, httpx.HTTPStatusError)


def test_a_crm_that_does_not_answer_is_a_failure(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(customers, "CRM_URL", "http://127.0.0.1:1")

    assert isinstance(run(sync_customer, event("customer.updated")).error, httpx.ConnectError)


def test_an_id_stays_one_segment_of_the_address(crm: Crm) -> None:
    run(sync_customer, event("customer.updated", data={"id": "a/../b?c"}))

    assert list(crm.customers) == ["/customers/a%2F..%2Fb%3Fc"]
