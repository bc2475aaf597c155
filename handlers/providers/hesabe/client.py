"""The client of Hesabe's merchant API and of its payment gateway.

    with HesabeClient(api_key="842217:c333…:PkW6…:5NVd…:Test:Test@1234", api_url=SANDBOX_API_URL) as hesabe:
        invoice = hesabe.invoices.create(SingleInvoice(
            mobile_number="66666666", customer_name="TEST", amount="20.000", invoice_type=InvoiceType.SMS,
            invoice_sub_type=InvoiceSubType.URL, payment_types=[PaymentType.KNET], expires_at="2026-12-12",
        ))

Requests are encrypted, answers read in whatever form they come. Resources are dicts as Hesabe sends them, in which a
fraction is a Decimal; the same amount is text in one place and a number in another. Errors are ProviderError with a
code of `answers.CODES`, and ProviderUnavailable where the same call may succeed later. Hesabe has no idempotency
keys: a call that changes something is not repeated when its answer was lost, and may have been carried out.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

import httpx

from handlers.providers.answers import bad_answer
from handlers.providers.hesabe import credentials, fields
from handlers.providers.hesabe.models import InvoiceKind, RefundMethod, SingleInvoice, SubscriptionInvoice
from handlers.providers.hesabe.wire import Wire
from handlers.providers.http import segment

DEFAULT_API_URL = "https://merchantapi.hesabe.com"
SANDBOX_API_URL = "https://merchantapisandbox.hesabe.com"
GATEWAYS: Mapping[str, str] = {
    DEFAULT_API_URL: "https://api.hesabe.com",
    SANDBOX_API_URL: "https://sandbox.hesabe.com",
}
"""The payment gateway that belongs to a merchant API. Behind another address both are expected to be."""

CANCELLED = "3"

Resource = dict[str, Any]


class HesabeClient:
    """Calls are grouped by resource: `invoices`, `transactions`, `refunds`, `subscriptions`.

    `api_key` carries all credentials, as `merchant_code:access_code:secret_key:iv_key`, with `:username:password` (the
    login to the merchant panel) behind it or not, or as a JSON object with these names; each may be given by itself
    too. Without a login the merchant API is called with the access code alone. `api_url` is the merchant API's
    address, from which follows the gateway's; `merchant_api_url` and `gateway_url` set each by itself. The other
    options are those of RestClient: with `max_wait=0` nothing is waited for and nothing repeated.

    Raises ValueError, which quotes nothing, on credentials that cannot be right. Close it, or use it in `with`.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        api_url: str = DEFAULT_API_URL,
        merchant_code: str | None = None,
        access_code: str | None = None,
        secret_key: str | None = None,
        iv_key: str | None = None,
        username: str | None = None,
        password: str | None = None,
        merchant_api_url: str | None = None,
        gateway_url: str | None = None,
        transport: httpx.BaseTransport | None = None,
        max_wait: float = 60.0,
        deadline: float = 90.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        keys = credentials.read(
            api_key,
            merchant_code=merchant_code,
            access_code=access_code,
            secret_key=secret_key,
            iv_key=iv_key,
            username=username,
            password=password,
        )
        merchant_api = (merchant_api_url or api_url).rstrip("/")
        self._wire = Wire(
            keys,
            merchant_api,
            gateway_url or GATEWAYS.get(merchant_api, merchant_api),
            transport=transport,
            max_wait=max_wait,
            deadline=deadline,
            sleep=sleep,
            clock=clock,
        )
        self.invoices = Invoices(self._wire)
        self.transactions = Transactions(self._wire)
        self.refunds = Refunds(self._wire)
        self.subscriptions = Subscriptions(self._wire)

    def close(self) -> None:
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Invoices:
    """Created at once and sent by Hesabe; unpaid (`invoice_status` null or 0), paid (1) or cancelled (3)."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def create(self, invoice: SingleInvoice) -> Resource:
        """Create an invoice and have it sent. Its `id` and `token` name it; `url` is where it is paid.

        A lost answer (NO_ANSWER, BAD_ANSWER) does not mean that there is no invoice.
        """
        return _resource(self._wire.merchant("POST", "/api/v1/invoice", **invoice.members()))

    def create_subscription(self, invoice: SubscriptionInvoice) -> Resource:
        """Create an invoice that recurs. As `create`."""
        return _resource(self._wire.merchant("POST", "/api/v1/invoice/", **invoice.members()))

    def get(self, invoice_id: int | str) -> Resource:
        """One invoice by its `id`; `transaction` is null until it is paid. Refused with NOT_FOUND."""
        return _resource(self._wire.merchant("GET", f"/api/v1/invoice/{_id(invoice_id)}"))

    def list(
        self, *, from_date: date | str, to_date: date | str, search: str | None = None, invoice_type: InvoiceKind | str
    ) -> Iterator[Resource]:
        """The invoices of one kind that were made from the one day to the other, page by page as they are asked for.

        What Hesabe compares `search` with is not documented: whoever looks for one invoice compares what comes.
        """
        return self._pages(
            fromDate=fields.day("fromDate", from_date),
            toDate=fields.day("toDate", to_date),
            search=fields.optional_text("search", search),
            invoiceType=fields.choice("invoiceType", invoice_type, InvoiceKind),
        )

    def _pages(self, **query: str | None) -> Iterator[Resource]:
        # What `pagination` says is not published, so that the list ends with a page that is empty or has nothing new.
        before: Sequence[Any] = ()
        for page in itertools.count(1):
            found = self._wire.merchant("GET", "/api/v1/invoice-dashboard", query={**query, "page": page})
            invoices = _listed(found)
            ids = [invoice.get("id") for invoice in invoices]
            if not ids or ids == before:
                return
            before = ids
            yield from invoices

    def cancel(self, token: str) -> None:
        """Cancel an unpaid invoice by its `token`, so that it cannot be paid any more."""
        self._wire.merchant("PUT", f"/api/v1/invoice/{segment(token)}", statusId=CANCELLED)

    def resend(self, invoice_id: int | str, *, mobile_number: str, country_code: str = "965") -> Resource:
        """Send the link of an invoice again, by its `id`."""
        answer = self._wire.merchant(
            "POST",
            "/api/v1/invoice/resend",
            mobileNumber=fields.mobile_number("mobileNumber", mobile_number),
            resendId=fields.whole("resendId", invoice_id),
            countryCode=fields.country_code("countryCode", country_code),
        )
        return _resource(answer)


class Transactions:
    """What became of a payment: SUCCESSFUL, FAILED, AUTHORIZED, REFUNDED (Hesabe, Transaction enquiry)."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def get(self, token: str) -> Resource:
        """A transaction by its payment token.

        Raises ProviderError with NOT_FOUND where Hesabe says that there is none, ProviderUnavailable where it does not
        say.
        """
        envelope = self._wire.enquire(f"/api/transaction/{segment(token)}")
        entries = [*_attempts(envelope.get("data")), *_attempts(envelope.get("results"))]
        if not entries:
            raise bad_answer("it has no transaction")
        return next((entry for entry in entries if str(entry.get("token")) == token), entries[0])

    def find(self, reference_number: str) -> Sequence[Resource]:
        """Every attempt to pay under a merchant's reference number; at least one. Raises as `get`."""
        envelope = self._wire.enquire(f"/api/transaction/{segment(reference_number)}", isOrderReference=1)
        entries = _attempts(envelope.get("results")) or _attempts(envelope.get("data"))
        if not entries:
            raise bad_answer("it has no transaction")
        return entries


class Refunds:
    """Asked for here, approved by Hesabe: `status` 0 is pending, 1 approved."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def create(self, *, token: str, amount: Decimal | str, method: RefundMethod | str) -> Resource:
        """Ask for a refund of the transaction `token`; `amount` in KWD with three decimals, also where it is FULL."""
        answer = self._wire.merchant(
            "POST",
            "/api/v1/refund",
            refundAmount=fields.money("refundAmount", amount),
            refundMethod=fields.choice("refundMethod", method, RefundMethod),
            token=fields.text("token", token),
        )
        return _resource(answer)

    def get(self, refund_id: int | str) -> Resource:
        """One refund by its `id`. Refused with NOT_FOUND."""
        return _resource(self._wire.merchant("GET", f"/api/v1/refund/{_id(refund_id)}"))

    def cancel(self, refund_id: int | str) -> None:
        """Take back a refund that is not approved yet, by its `id`."""
        self._wire.merchant("DELETE", f"/api/v1/refund/{_id(refund_id)}")


class Subscriptions:
    """What follows on a customer's consent to pay again and again."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def capture(self, *, token: str, amount: Decimal | str, reference_number: str) -> Resource:
        """Take one payment of an on-demand subscription; `token` is that of its first, authorised transaction.

        Money moves: after NO_ANSWER, look for it with `transactions.find(reference_number)` before trying again.
        """
        answer = self._wire.order(
            "POST",
            "/api/subscription/capture",
            amount=fields.money("amount", amount),
            orderReferenceNumber=fields.text("orderReferenceNumber", reference_number),
            paymentToken=fields.text("paymentToken", token),
        )
        return _resource(answer)

    def cancel(self, token: str) -> None:
        """End a subscription: nothing is taken any more. Hesabe asks for no authorisation but the token."""
        self._wire.bare("DELETE", f"/api/subscription/cancel/{segment(token)}")


def _id(value: int | str) -> str:
    """Hesabe's ids of invoices and refunds are whole numbers, in answers as numbers and as text."""
    return fields.whole("id", value)


def _resource(found: Any) -> Resource:
    if not isinstance(found, dict):
        raise bad_answer("it has no resource")
    return found


def _listed(found: Any) -> Sequence[Resource]:
    """One page of the list of invoices."""
    invoices = _resource(found).get("invoices")
    listed = invoices.get("data") if isinstance(invoices, dict) else None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise bad_answer("it has no list of invoices")
    return listed


def _attempts(found: Any) -> list[Resource]:
    """The transactions in a member: one, several, or wrapped once more (`{"data": [...]}`)."""
    if isinstance(found, dict) and isinstance(found.get("data"), list):
        found = found["data"]
    listed = found if isinstance(found, list) else [found]
    return [one for one in listed if isinstance(one, dict)]
