"""The sandbox's organisation: its customers and invoices in memory, and the rules of Hisab's API reference.

Where the reference is silent, this is chosen: refused transitions are HTTP 409; an invoice may be paid, or be
voided, whether or not it was sent; an unknown customer or a doubled ICE is a VALIDATION_ERROR.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Self

Resource = dict[str, Any]
Details = list[dict[str, str]]

TAX_RATES = (0, 7, 10, 14, 20)
STATUSES = ("draft", "finalized", "sent", "paid", "void")
MAX_NUMBER = Decimal(10) ** 9
MAX_PLACES = 6

_CENT = Decimal("0.01")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ICE = re.compile(r"[0-9]{15}")
_MERIT = {"id": "cus_2b81fe", "name": "MERIT Sarl", "type": "b2b", "ice": "001234567000089"}


class Refusal(Exception):
    """An answer with `success: false`."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: Details | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.details, self.headers = details or [], headers or {}

    @classmethod
    def of(cls, *problems: dict[str, str]) -> Self:
        """A VALIDATION_ERROR."""
        return cls(400, "VALIDATION_ERROR", "The request is not valid", list(problems))


class Books:
    """One organisation. Not safe between threads: the sandbox calls it from one event loop."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._invoices: dict[str, Resource] = {}
        self._customers: dict[str, Resource] = {}
        self._next_number = 1
        self._add_customer(_MERIT)

    def invoice(self, invoice_id: str) -> Resource:
        return _found(self._invoices, invoice_id)

    def customer(self, customer_id: str) -> Resource:
        return _found(self._customers, customer_id)

    def invoices(self, filters: Mapping[str, str]) -> list[Resource]:
        """Newest first, unless `order` is asc."""
        selected = [invoice for invoice in self._invoices.values() if _selected(invoice, filters)]
        return selected if filters.get("order") == "asc" else selected[::-1]

    def customers(self, filters: Mapping[str, str]) -> list[Resource]:
        listed = list(self._customers.values())
        return listed if filters.get("order") == "asc" else listed[::-1]

    def create_customer(self, fields: Mapping[str, Any]) -> Resource:
        problems = []
        if not _text(fields.get("name")):
            problems.append(problem("name", "is required"))
        if fields.get("type") not in ("b2b", "b2c"):
            problems.append(problem("type", "must be b2b or b2c"))
        ice = fields.get("ice")
        if ice is not None and not (isinstance(ice, str) and _ICE.fullmatch(ice)):
            problems.append(problem("ice", "must have 15 digits"))
        elif ice is not None and any(customer["ice"] == ice for customer in self._customers.values()):
            problems.append(problem("ice", "belongs to another customer"))
        if problems:
            raise Refusal.of(*problems)
        return self._add_customer(fields)

    def create_invoice(self, fields: Mapping[str, Any]) -> Resource:
        """A draft; totals and taxes are computed here, each line rounded half up to the cent."""
        customer = self._customers.get(str(fields.get("customer_id")))
        problems = _invoice_problems(fields, customer)
        if customer is None or problems:
            raise Refusal.of(*problems)
        items = [_line(item, position) for position, item in enumerate(fields["items"])]
        moment = self._stamp()
        invoice: Resource = {
            "id": _new_id("inv"),
            "invoice_number": None,
            "status": "draft",
            "customer": {name: customer[name] for name in ("id", "name", "ice")},
            "issue_date": fields["issue_date"],
            "due_date": fields.get("due_date"),
            "currency": fields.get("currency") or "MAD",
            **{total: _sum(items, total) for total in ("subtotal", "total_tax", "total")},
            **{name: fields.get(name) for name in ("payment_terms", "notes", "internal_notes")},
            "items": [{name: value for name, value in item.items() if name != "total_tax"} for item in items],
            "created_at": moment,
            "updated_at": moment,
            **dict.fromkeys(("finalized_at", "sent_at", "paid_at", "voided_at")),
        }
        self._invoices[invoice["id"]] = invoice
        return invoice

    def finalize(self, invoice_id: str) -> Resource:
        invoice = self.invoice(invoice_id)
        if invoice["status"] != "draft":
            raise Refusal(409, "INVOICE_NOT_DRAFT", "Only a draft can be finalized")
        invoice["invoice_number"] = f"FAC-{invoice['issue_date'][:4]}-{self._next_number:04d}"
        self._next_number += 1
        return self._moved(invoice, "finalized", "finalized_at")

    def send(self, invoice_id: str) -> Resource:
        invoice = self.invoice(invoice_id)
        _expect(invoice, {"finalized"}, "sent")
        return self._moved(invoice, "sent", "sent_at")

    def pay(self, invoice_id: str, fields: Mapping[str, Any]) -> Resource:
        invoice = self.invoice(invoice_id)
        paid_at = fields.get("paid_at")
        if paid_at is not None and not _is_moment(paid_at):
            raise Refusal.of(problem("paid_at", "must be an ISO 8601 date and time"))
        _expect(invoice, {"finalized", "sent"}, "paid")
        self._moved(invoice, "paid", "paid_at")
        invoice["paid_at"] = paid_at or invoice["paid_at"]
        return invoice

    def void(self, invoice_id: str, fields: Mapping[str, Any]) -> Resource:
        invoice = self.invoice(invoice_id)
        if not _text(fields.get("reason")):
            raise Refusal.of(problem("reason", "is required"))
        if invoice["status"] == "paid":
            raise Refusal(409, "CANNOT_VOID_PAID", "A paid invoice cannot be voided")
        if invoice["status"] == "void":
            raise Refusal(409, "ALREADY_VOIDED", "The invoice is already void")
        _expect(invoice, {"finalized", "sent"}, "void")
        return self._moved(invoice, "void", "voided_at")

    def _add_customer(self, fields: Mapping[str, Any]) -> Resource:
        moment = self._stamp()
        customer: Resource = {"id": fields["id"] if fields is _MERIT else _new_id("cus"), "status": "active"}
        for name in ("name", "type", "ice", "legal_name", "rc", "email", "phone", "address", "notes", "tags"):
            customer[name] = fields.get(name)
        customer |= {"created_at": moment, "updated_at": moment}
        self._customers[customer["id"]] = customer
        return customer

    def _moved(self, invoice: Resource, status: str, moment: str) -> Resource:
        stamp = self._stamp()
        invoice |= {"status": status, moment: stamp, "updated_at": stamp}
        return invoice

    def _stamp(self) -> str:
        return datetime.fromtimestamp(int(self._now()), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _found(resources: Mapping[str, Resource], resource_id: str) -> Resource:
    if resource_id not in resources:
        raise Refusal(404, "NOT_FOUND", "Resource not found")
    return resources[resource_id]


def _selected(invoice: Resource, filters: Mapping[str, str]) -> bool:
    issued: str = invoice["issue_date"]  # YYYY-MM-DD: compares as text
    return (
        filters.get("status") in {None, invoice["status"]}
        and filters.get("customer_id") in {None, invoice["customer"]["id"]}
        and filters.get("date_from", "") <= issued <= filters.get("date_to", "9999-12-31")
    )


def _expect(invoice: Resource, statuses: set[str], wanted: str) -> None:
    if invoice["status"] not in statuses:
        raise Refusal(409, "INVALID_STATUS_TRANSITION", f"Cannot go from {invoice['status']} to {wanted}")


def _invoice_problems(fields: Mapping[str, Any], customer: Resource | None) -> Details:
    problems = []
    if customer is None:
        problems.append(problem("customer_id", "is not a customer of this organization"))
    if not is_date(fields.get("issue_date")):
        problems.append(problem("issue_date", "must be a date (YYYY-MM-DD)"))
    if fields.get("due_date") is not None and not is_date(fields["due_date"]):
        problems.append(problem("due_date", "must be a date (YYYY-MM-DD)"))
    texts = ("currency", "payment_terms", "notes", "internal_notes")
    problems += [problem(name, "must be a string") for name in texts if not isinstance(fields.get(name), str | None)]
    items = fields.get("items")
    if not isinstance(items, list) or not items:
        return [*problems, problem("items", "must have at least one item")]
    for position, item in enumerate(items):
        problems += _item_problems(item, f"items[{position}]")
    return problems


def _item_problems(item: Any, place: str) -> Details:
    if not isinstance(item, dict):
        return [problem(place, "must be an object")]
    problems = []
    if not _text(item.get("description")):
        problems.append(problem(f"{place}.description", "is required"))
    wrong = [name for name in ("quantity", "unit_price") if not _is_amount(item.get(name))]
    problems += [problem(f"{place}.{name}", "must be a number that is not negative") for name in wrong]
    if not _is_amount(item.get("tax_rate", 20)) or item.get("tax_rate", 20) not in TAX_RATES:
        problems.append(problem(f"{place}.tax_rate", "must be one of 0, 7, 10, 14, 20"))
    return problems


def _line(item: Mapping[str, Any], position: int) -> dict[str, Any]:
    quantity, price, rate = (Decimal(item.get(name, 20)) for name in ("quantity", "unit_price", "tax_rate"))
    subtotal = (quantity * price).quantize(_CENT, ROUND_HALF_UP)
    tax = (subtotal * rate / 100).quantize(_CENT, ROUND_HALF_UP)
    return {
        "id": _new_id("itm"),
        "description": item["description"],
        "quantity": format(quantity, "f"),
        "unit_price": format(price if _places(price) > 2 else price.quantize(_CENT), "f"),
        "tax_rate": format(rate, "f"),
        "tax_amount": str(tax),
        "subtotal": str(subtotal),
        "total_tax": str(tax),
        "total": str(subtotal + tax),
        "sort_order": position,
    }


def _sum(items: Sequence[Mapping[str, Any]], name: str) -> str:
    return str(sum((Decimal(item[name]) for item in items), Decimal("0.00")))


def _is_amount(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return False
    return 0 <= value <= MAX_NUMBER and _places(Decimal(value)) <= MAX_PLACES


def _places(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def is_date(value: object) -> bool:
    return isinstance(value, str) and _DATE.fullmatch(value) is not None and _is_moment(value)


def _is_moment(value: object) -> bool:
    try:
        datetime.fromisoformat(value)  # type: ignore[arg-type]  # what is not text is a TypeError
    except (TypeError, ValueError):
        return False
    return True


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def problem(field: str, message: str) -> dict[str, str]:
    return {"field": field, "message": message}


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(8)}"
