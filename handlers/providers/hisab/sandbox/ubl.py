"""An invoice as UBL 2.1 XML. Only what the standard itself asks for: Hisab's own profile of it is not published."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from xsdata.formats.dataclass.serializers import XmlSerializer
from xsdata.formats.dataclass.serializers.config import SerializerConfig

from handlers.providers.hisab.sandbox import ubl_types as ubl
from handlers.providers.hisab.sandbox.paper import Line, Paper, Party, Tax

COMMERCIAL_INVOICE = "380"
"""UNTDID 1001."""
ONE = "C62"
"""UN/ECE Recommendation 20: a unit that is none in particular; Hisab's lines have no units."""

_VAT = "VAT"


def written(paper: Paper) -> bytes:
    """The XML, in UTF-8."""
    serializer = XmlSerializer(config=SerializerConfig(indent="  "))
    text = serializer.render(_invoice(paper), ns_map={None: ubl.INVOICE, "cac": ubl.CAC, "cbc": ubl.CBC})
    return text.encode()


def _invoice(paper: Paper) -> ubl.Invoice:
    return ubl.Invoice(
        ubl_version_id="2.1",
        id=paper.number,
        issue_date=ubl.xml_date(paper.issue_date),
        due_date=None if paper.due_date is None else ubl.xml_date(paper.due_date),
        invoice_type_code=COMMERCIAL_INVOICE,
        notes=[] if paper.notes is None else [paper.notes],
        document_currency_code=paper.currency,
        line_count_numeric=Decimal(len(paper.lines)),
        supplier=ubl.AccountingParty(party=_party(paper.seller)),
        customer=ubl.AccountingParty(party=_party(paper.customer)),
        payment_terms=None if paper.payment_terms is None else ubl.PaymentTerms(note=paper.payment_terms),
        tax_total=_tax_total(paper.taxes, paper.currency),
        legal_monetary_total=ubl.MonetaryTotal(
            line_extension_amount=_amount(paper.subtotal, paper.currency),
            tax_exclusive_amount=_amount(paper.subtotal, paper.currency),
            tax_inclusive_amount=_amount(paper.total, paper.currency),
            payable_amount=_amount(paper.total, paper.currency),
        ),
        lines=[_line(place, line, paper.currency) for place, line in enumerate(paper.lines, start=1)],
    )


def _party(party: Party) -> ubl.Party:
    numbers = dict(party.identifiers)
    tax_number = numbers.get("TVA") or numbers.get("IF")
    contact = ubl.Contact(telephone=party.phone, electronic_mail=party.email)
    return ubl.Party(
        website_uri=party.website,
        identifications=[
            ubl.PartyIdentification(id=ubl.Identifier(value=number, scheme_id=kind))
            for kind, number in party.identifiers
        ],
        name=ubl.PartyName(name=party.name),
        postal_address=ubl.PostalAddress(
            street_name=party.street,
            city_name=party.city,
            postal_zone=party.postal_code,
            country=ubl.Country(identification_code=party.country),
        ),
        tax_scheme=None if tax_number is None else ubl.PartyTaxScheme(company_id=tax_number, tax_scheme=_scheme()),
        legal_entity=ubl.PartyLegalEntity(
            registration_name=party.legal_name,
            company_id=ubl.Identifier(value=numbers["RC"], scheme_id="RC") if "RC" in numbers else None,
        ),
        contact=contact if party.phone or party.email else None,
    )


def _line(place: int, line: Line, currency: str) -> ubl.InvoiceLine:
    tax = Tax(rate=line.tax_rate, taxable=line.subtotal, amount=line.tax_amount)
    return ubl.InvoiceLine(
        id=str(place),
        invoiced_quantity=ubl.Quantity(value=line.quantity, unit_code=ONE),
        line_extension_amount=_amount(line.subtotal, currency),
        tax_total=_tax_total([tax], currency),
        item=ubl.Item(name=line.description, tax_category=_category(line.tax_rate)),
        price=ubl.Price(price_amount=_amount(line.unit_price, currency)),
    )


def _tax_total(taxes: Iterable[Tax], currency: str) -> ubl.TaxTotal:
    taxes = list(taxes)
    return ubl.TaxTotal(
        tax_amount=_amount(sum((tax.amount for tax in taxes), Decimal("0.00")), currency),
        subtotals=[
            ubl.TaxSubtotal(
                taxable_amount=_amount(tax.taxable, currency),
                tax_amount=_amount(tax.amount, currency),
                tax_category=_category(tax.rate),
            )
            for tax in taxes
        ],
    )


def _category(rate: Decimal) -> ubl.TaxCategory:
    """UNCL 5305: S is taxed, Z is taxed at nothing."""
    return ubl.TaxCategory(id="S" if rate else "Z", percent=rate, tax_scheme=_scheme())


def _scheme() -> ubl.TaxScheme:
    return ubl.TaxScheme(id=_VAT)


def _amount(value: Decimal, currency: str) -> ubl.Amount:
    return ubl.Amount(value=value, currency_id=currency)
