"""The words and spellings of an invoice on paper, in French, English and Arabic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from handlers.providers.sandbox.fields import places

NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """One language. `mark` and `group` are the decimal mark and what parts thousands."""

    title: str
    number: str
    issued: str
    due: str
    seller: str
    customer: str
    description: str
    quantity: str
    unit_price: str
    tax_rate: str
    amount: str
    subtotal: str
    tax: str
    total: str
    terms: str
    notes: str
    page: str
    void: str
    group: str
    mark: str
    colon: str
    write_day: Callable[[date], str]
    rtl: bool = False

    def day(self, value: date) -> str:
        return self.write_day(value)

    def decimal(self, value: Decimal, least: int = 2) -> str:
        """A number with at least so many decimal places, and as many more as it has."""
        text = f"{value:,.{max(least, places(value.normalize()))}f}"
        return text.translate({ord(","): self.group, ord("."): self.mark})


def _slashes(value: date) -> str:
    return value.strftime("%d/%m/") + f"{value.year:04d}"


WORDINGS = {
    "fr": Wording(
        title="FACTURE",
        number="Numéro",
        issued="Date d'émission",
        due="Date d'échéance",
        seller="Émetteur",
        customer="Client",
        description="Désignation",
        quantity="Quantité",
        unit_price="Prix unitaire HT",
        tax_rate="TVA",
        amount="Montant HT",
        subtotal="Total HT",
        tax="TVA",
        total="Total TTC",
        terms="Conditions de règlement",
        notes="Notes",
        page="Page",
        void="ANNULÉE",
        group=NO_BREAK,
        mark=",",
        colon=f"{NO_BREAK}:",
        write_day=_slashes,
    ),
    "en": Wording(
        title="INVOICE",
        number="Number",
        issued="Issue date",
        due="Due date",
        seller="From",
        customer="Bill to",
        description="Description",
        quantity="Quantity",
        unit_price="Unit price",
        tax_rate="VAT",
        amount="Amount",
        subtotal="Subtotal",
        tax="VAT",
        total="Total",
        terms="Payment terms",
        notes="Notes",
        page="Page",
        void="VOID",
        group=",",
        mark=".",
        colon=":",
        write_day=date.isoformat,
    ),
    "ar": Wording(
        title="فاتورة",
        number="رقم الفاتورة",
        issued="تاريخ الإصدار",
        due="تاريخ الاستحقاق",
        seller="المورد",
        customer="الزبون",
        description="البيان",
        quantity="الكمية",
        unit_price="ثمن الوحدة",
        tax_rate="الضريبة",
        amount="المبلغ",
        subtotal="المجموع دون الرسوم",
        tax="الضريبة على القيمة المضافة",
        total="المجموع مع احتساب الرسوم",
        terms="شروط الأداء",
        notes="ملاحظات",
        page="صفحة",
        void="ملغاة",
        group=NO_BREAK,
        mark=",",
        colon=":",
        write_day=_slashes,
        rtl=True,
    ),
}
LOCALES = tuple(WORDINGS)
