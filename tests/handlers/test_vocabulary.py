"""Names in handlers, judged by what providers document and which sources are configured."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from handlers import Context, Event
from handlers.providers import PROVIDERS
from handlers.registry import Handler, Registry
from handlers.vocabulary import (
    INTERNAL,
    OF_SCHEDULES,
    OPERATIONAL,
    complaints,
    documented,
    doubts,
    everything,
    misspelt,
    of_sources,
)
from workers.delivery import health

SHOP = {"shop": "hisab"}


def handler(*patterns: str, **options: Any) -> Handler:
    def receive(event: Event, ctx: Context) -> None: ...

    registry = Registry()
    registry.on(*patterns, **options)(receive)
    return next(iter(registry))


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("invoice.payed", "invoice.paid"),
        ("invoice.piad", "invoice.paid"),
        ("invoice.payd", "invoice.paid"),
        ("invoce.paid", "invoice.paid"),
        ("invoices.paid", "invoice.paid"),
        ("invoice_paid", "invoice.paid"),
        ("paid.invoice", "invoice.paid"),
        ("invoice.send", "invoice.sent"),
        ("invoice.void", "invoice.voided"),
        ("invoice.finalised", "invoice.finalized"),
        ("customer.create", "customer.created"),
        ("costumer.updated", "customer.updated"),
        ("transaction.succesful", "transaction.successful"),
        ("hibr.api.deprecations", "hibr.api.deprecation"),
        ("recurring.generate", "recurring.generated"),
        ("recuring.*", "recurring.*"),
        ("billhook.endpoint.disabeld", "billhook.endpoint.disabled"),
        ("billhook.endpoints.*", "billhook.endpoint.*"),
        ("billhook", "billhook.*"),
        ("invoices.*", "invoice.*"),
        ("invoice.paid.*", "invoice.paid"),
        ("invoice", "invoice.*"),
    ],
)
def test_a_slip_of_the_hand_is_noticed(pattern: str, meant: str) -> None:
    assert misspelt(pattern, everything()) == meant


@pytest.mark.parametrize("pattern", ["*", "invoice.*", "hibr.api.*", *everything()])
def test_what_is_documented_is_no_slip(pattern: str) -> None:
    assert misspelt(pattern, everything()) is None


@pytest.mark.parametrize(
    "pattern",
    [
        *("invoice.viewed", "invoice.overdue", "invoice.unpaid", "invoice.overpaid", "invoice.resent", "invoice.seen"),
        *("invoice.refunded", "invoice.deleted", "invoice.issued", "invoice.line.added", "invoice.payment_failed"),
        *("customer.merged", "customer.subscription.created", "payment.received", "subscription.created", "bill.paid"),
        *(
            "transaction.voided",
            "transaction.captured",
            "credit_note.created",
            "recurring.skipped",
            "order",
            "orders.*",
        ),
    ],
)
def test_a_type_of_somebody_elses_is_no_slip(pattern: str) -> None:
    assert misspelt(pattern, everything()) is None
    assert list(complaints(handler(pattern))) == []


def test_billhooks_own_events_are_known_as_the_engine_sends_them() -> None:
    assert documented(INTERNAL) == (*OF_SCHEDULES, *OPERATIONAL)
    assert OF_SCHEDULES == ("recurring.generated", "recurring.failed", "recurring.completed")
    assert set(get_args(health.Notice)) == {one.rpartition(".")[2] for one in OPERATIONAL if ".endpoint." in one}
    assert list(complaints(handler("recurring.*", "billhook.*", provider=INTERNAL))) == []
    assert list(complaints(handler("billhook.endpoint.disabled"))) == []


def test_a_provider_that_stands_for_any_sender_documents_nothing() -> None:
    assert [name for name in PROVIDERS if not documented(name)] == ["standard", "generic"]
    assert documented("nobody") == ()


def test_an_unknown_provider_is_told_with_those_there_are() -> None:
    there_are = "generic, hesabe, hibr, hisab, standard, and billhook for its own events"

    assert list(complaints(handler("invoice.payed", provider="hisb"))) == [
        f"there is no provider 'hisb': did you mean 'hisab'? There are {there_are}"
    ]
    assert list(complaints(handler("*", provider="quickbooks"))) == [
        f"there is no provider 'quickbooks': there are {there_are}"
    ]


def test_a_misspelt_event_is_told_for_its_provider_or_for_all() -> None:
    (of_hisab,) = complaints(handler("invoice.paid", "invoice.payed", provider="hisab"))
    (of_anybody,) = complaints(handler("invoice.payed"))

    assert of_hisab == (
        "hisab documents no event invoice.payed: did you mean invoice.paid? "
        "If it does send that, name the source (source=) instead"
    )
    assert of_anybody == (
        "no provider documents an event invoice.payed: did you mean invoice.paid? "
        "If a sender of yours does send that, name the sender: source= or provider="
    )


@pytest.mark.parametrize(
    "options",
    [{"provider": "standard"}, {"provider": "generic"}, {"source": "shop"}, {"source": "shop", "provider": "hisab"}],
    ids=str,
)
def test_who_names_a_sender_that_may_send_anything_is_believed(options: dict[str, str]) -> None:
    assert list(complaints(handler("invoice.payed", **options))) == []


def test_a_providers_events_are_judged_by_its_own_documents_only() -> None:
    assert list(complaints(handler("invoice.created", "customer.created", provider="hibr"))) == []
    assert list(complaints(handler("transaction.refund", provider="hisab"))) == []


def test_a_source_is_one_of_those_configured() -> None:
    assert list(of_sources(handler("*"), {})) == []
    assert list(of_sources(handler("*", source="shop"), SHOP)) == []
    assert list(of_sources(handler("*", source="shpo"), {**SHOP, "till": "hibr"})) == [
        "there is no source 'shpo': did you mean 'shop'? configured: shop, till"
    ]
    assert list(of_sources(handler("*", source="warehouse"), SHOP)) == [
        "there is no source 'warehouse': configured: shop"
    ]
    assert list(of_sources(handler("*", source="shop"), {})) == [
        "there is no source 'shop': none is configured, see BILLHOOK_SOURCES"
    ]
    assert list(of_sources(handler("billhook.*", source=INTERNAL), SHOP)) == [
        'billhook is no source that is configured: for Billhook\'s own events write provider="billhook"'
    ]


def test_a_source_is_of_the_provider_that_stands_beside_it() -> None:
    assert list(of_sources(handler("*", source="shop", provider="hisab"), SHOP)) == []
    assert list(of_sources(handler("recurring.*", source="shop", provider=INTERNAL), SHOP)) == []
    assert list(of_sources(handler("*", source="shop", provider="hibr"), SHOP)) == [
        "the source 'shop' is of hisab, so no event of it is of hibr: leave out provider= or source="
    ]


@pytest.mark.parametrize(
    ("listening", "sources", "doubt"),
    [
        (handler("invoice.paid", "customer.*", "recurring.failed", "*"), SHOP, None),
        (handler("invoice.archived"), SHOP, "no configured source documents an event invoice.archived"),
        (handler("invoice.payed", source="shop"), SHOP, "an event invoice.payed: did you mean invoice.paid?"),
        (handler("transaction.refunded"), SHOP, "no configured source documents an event transaction.refunded"),
        (handler("transaction.refunded"), {**SHOP, "till": "hesabe"}, None),
        (handler("transaction.refunded", source="shop"), {**SHOP, "till": "hesabe"}, "no configured source documents"),
        (handler("invoice.archived"), {**SHOP, "any": "standard"}, None),
        (handler("invoice.archived", provider="hisab"), {**SHOP, "any": "standard"}, "no configured source documents"),
        (handler("invoice.paid", provider="hibr"), SHOP, "no source of hibr is configured, so it is never called"),
        (handler("invoice.paid", provider=INTERNAL), SHOP, "no configured source documents an event invoice.paid"),
        (handler("recurring.*", provider=INTERNAL), SHOP, None),
        (handler("recurring.*", source="shop"), SHOP, None),
        (handler("billhook.endpoint.disabled"), SHOP, None),
        (
            handler("billhook.endpoint.disabled", source="shop"),
            SHOP,
            "no configured source documents an event billhook",
        ),
    ],
    ids=lambda value: "" if isinstance(value, Handler) else str(value)[:40],
)
def test_what_may_be_waited_for_in_vain_is_a_doubt(
    listening: Handler, sources: dict[str, str], doubt: str | None
) -> None:
    found = list(doubts(listening, sources))

    assert len(found) == (0 if doubt is None else 1)
    assert doubt is None or doubt in found[0]
