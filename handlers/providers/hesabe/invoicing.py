"""Invoices for schedules at Hesabe, and captures under a customer's agreement.

The marker is the reference number of the invoice, by which the list is searched. A capture has one of its own made of
it: the first due date makes the agreement and is captured, and its consent is a transaction under the marker already.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.invoicing import NOT_AGREED, Draft, Invoice, Payment, Stage
from handlers.providers.answers import bad_answer
from handlers.providers.hesabe.answers import NOT_FOUND
from handlers.providers.hesabe.client import CANCELLED, HesabeClient
from handlers.providers.hesabe.drafts import CURRENCY, request_of, total_of
from handlers.providers.hesabe.models import InvoiceKind, InvoiceSubType, SubscriptionInvoice
from handlers.providers.hesabe.options import options_of

BEFORE, AFTER = timedelta(days=1), timedelta(days=400)
"""Around the day on which a draft was begun: it may be another one in Kuwait, and be taken up again much later."""
ASK_AGAIN = 3600.0
"""Seconds until a customer is expected to have agreed; ours."""

UNPAID = "unpaid"

_STATUSES = {"None": UNPAID, "0": UNPAID, "1": "paid", CANCELLED: "cancelled"}
"""What `invoice_status` means; it is null in one answer and 0 in another."""


class HesabeInvoicing:
    """`handlers.invoicing.Invoicing` over Hesabe's API, which has no idempotency key and no drafts."""

    def __init__(self, client: HesabeClient) -> None:
        self._invoices = client.invoices

    def check_customer(self, customer_id: str) -> None:
        """Hesabe keeps no customers."""

    def find(self, draft: Draft, *, sure: bool = True) -> Invoice | None:
        recurs = options_of(draft.options).subscription is not None
        # What a search compares is not documented. If it finds nothing, all invoices of these days are looked through:
        # one that is there and not found would be made twice.
        for search in (draft.marker, None) if sure else (draft.marker,):
            listed = self._invoices.list(
                from_date=draft.begun_on - BEFORE,
                to_date=draft.begun_on + AFTER,
                search=search,
                invoice_type=InvoiceKind.SUBSCRIPTION if recurs else InvoiceKind.SINGLE,
            )
            found = next((_invoice(one) for one in listed if _has(one, draft.marker)), None)
            if found is not None:
                return found
        return None

    def create(self, draft: Draft) -> Invoice:
        request = request_of(draft)
        if isinstance(request, SubscriptionInvoice):
            return _invoice(self._invoices.create_subscription(request))
        return _invoice(self._invoices.create(request))

    def get(self, invoice_id: str) -> Invoice:
        return _invoice(self._invoices.get(invoice_id))

    def finalize(self, draft: Draft, invoice: Invoice) -> Invoice:
        """It was issued when it was made."""
        return invoice

    def send(self, draft: Draft, invoice: Invoice) -> Invoice:
        """By SMS: only an invoice that was made for its link, before the schedule was changed, is still to be sent."""
        options = options_of(draft.options)
        sent = self._invoices.resend(invoice.id, mobile_number=options.mobile_number, country_code=options.country_code)
        return dataclasses.replace(_invoice(sent), stage=Stage.SENT)


class HesabeCapturing:
    """`handlers.invoicing.Capturing`: subscriptions on demand."""

    def __init__(self, client: HesabeClient) -> None:
        self._invoices, self._transactions = client.invoices, client.transactions
        self._subscriptions = client.subscriptions

    def token(self, invoice_id: str) -> str:
        invoice = self._invoices.get(invoice_id)
        if invoice.get("transaction") is None:
            raise ProviderUnavailable(NOT_AGREED, "the customer has not agreed yet", retry_after=ASK_AGAIN)
        # The invoice may show the latest capture; what counts is the authorised transaction (Capture subscription).
        attempts = self._attempts(str(invoice.get("reference_number")))
        agreed = next((one for one in attempts if one.get("status") == "AUTHORIZED"), invoice["transaction"])
        try:
            return str(agreed["token"])
        except (KeyError, TypeError):
            raise bad_answer("its transaction has no token") from None

    def find_payment(self, draft: Draft) -> Payment | None:
        attempts = [one for one in self._attempts(_reference(draft)) if one.get("status") != "FAILED"]
        attempts.sort(key=lambda one: one.get("status") != "SUCCESSFUL")
        return _payment(attempts[0]) if attempts else None

    def capture(self, draft: Draft, token: str) -> Payment:
        captured = self._subscriptions.capture(token=token, amount=total_of(draft), reference_number=_reference(draft))
        return _payment(captured)

    def _attempts(self, reference_number: str) -> Sequence[Mapping[str, Any]]:
        try:
            found = self._transactions.find(reference_number)
        except ProviderError as error:
            if isinstance(error, ProviderUnavailable) or error.code != NOT_FOUND:
                raise
            return []
        return [one for one in found if _has(one, reference_number)]


def _reference(draft: Draft) -> str:
    return f"{draft.marker}:capture"


def _has(resource: Mapping[str, Any], reference_number: str) -> bool:
    return resource.get("reference_number") == reference_number


def _invoice(resource: Mapping[str, Any]) -> Invoice:
    try:
        status = str(resource.get("invoice_status"))
        status = _STATUSES.get(status, status)
        # Text in the answer to a creation, a number later on.
        by_url = str(resource["invoice_sub_type"]) == InvoiceSubType.URL
        # What is paid, agreed to or cancelled is beyond what a schedule does.
        waits = status == UNPAID and resource.get("transaction") is None
        return Invoice(
            id=str(resource["id"]),
            number=resource["reference_number"],
            stage=Stage.FINALIZED if by_url and waits else Stage.SENT,
            status=status,
            total=Decimal(str(resource["amount"])),
            currency=CURRENCY,
        )
    except (KeyError, InvalidOperation):
        raise bad_answer("it is not an invoice") from None


def _payment(resource: Mapping[str, Any]) -> Payment:
    try:
        return Payment(
            token=str(resource["token"]), status=str(resource["status"]), amount=Decimal(str(resource["amount"]))
        )
    except (KeyError, InvalidOperation):
        raise bad_answer("it is not a payment") from None
