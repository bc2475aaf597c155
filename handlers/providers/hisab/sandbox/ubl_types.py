"""The part of OASIS UBL 2.1 that an invoice of Hisab's uses, as dataclasses that xsdata writes.

Names, order and namespaces are those of UBL-Invoice-2.1.xsd and the schemas it imports; xsdata writes the fields in the
order they have here. All but the values of basic components are elements.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from xsdata.models.datatype import XmlDate

INVOICE = "urn:oasis:names:specification:ubl:schema:xsd:Invoice-2"
CAC = "urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2"
CBC = "urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2"


def _cbc(name: str) -> dict[str, str]:
    return {"name": name, "type": "Element", "namespace": CBC}


def _cac(name: str) -> dict[str, str]:
    return {"name": name, "type": "Element", "namespace": CAC}


@dataclass(kw_only=True)
class Amount:
    value: Decimal
    currency_id: str = field(metadata={"name": "currencyID", "type": "Attribute"})


@dataclass(kw_only=True)
class Quantity:
    value: Decimal
    unit_code: str = field(metadata={"name": "unitCode", "type": "Attribute"})


@dataclass(kw_only=True)
class Identifier:
    value: str
    scheme_id: str | None = field(default=None, metadata={"name": "schemeID", "type": "Attribute"})


@dataclass(kw_only=True)
class TaxScheme:
    id: str = field(metadata=_cbc("ID"))


@dataclass(kw_only=True)
class TaxCategory:
    id: str = field(metadata=_cbc("ID"))
    percent: Decimal = field(metadata=_cbc("Percent"))
    tax_scheme: TaxScheme = field(metadata=_cac("TaxScheme"))


@dataclass(kw_only=True)
class TaxSubtotal:
    taxable_amount: Amount = field(metadata=_cbc("TaxableAmount"))
    tax_amount: Amount = field(metadata=_cbc("TaxAmount"))
    tax_category: TaxCategory = field(metadata=_cac("TaxCategory"))


@dataclass(kw_only=True)
class TaxTotal:
    tax_amount: Amount = field(metadata=_cbc("TaxAmount"))
    subtotals: list[TaxSubtotal] = field(default_factory=list, metadata=_cac("TaxSubtotal"))


@dataclass(kw_only=True)
class Country:
    identification_code: str = field(metadata=_cbc("IdentificationCode"))


@dataclass(kw_only=True)
class PostalAddress:
    street_name: str | None = field(default=None, metadata=_cbc("StreetName"))
    city_name: str | None = field(default=None, metadata=_cbc("CityName"))
    postal_zone: str | None = field(default=None, metadata=_cbc("PostalZone"))
    country: Country = field(metadata=_cac("Country"))


@dataclass(kw_only=True)
class PartyIdentification:
    id: Identifier = field(metadata=_cbc("ID"))


@dataclass(kw_only=True)
class PartyName:
    name: str = field(metadata=_cbc("Name"))


@dataclass(kw_only=True)
class PartyTaxScheme:
    company_id: str = field(metadata=_cbc("CompanyID"))
    tax_scheme: TaxScheme = field(metadata=_cac("TaxScheme"))


@dataclass(kw_only=True)
class PartyLegalEntity:
    registration_name: str = field(metadata=_cbc("RegistrationName"))
    company_id: Identifier | None = field(default=None, metadata=_cbc("CompanyID"))


@dataclass(kw_only=True)
class Contact:
    telephone: str | None = field(default=None, metadata=_cbc("Telephone"))
    electronic_mail: str | None = field(default=None, metadata=_cbc("ElectronicMail"))


@dataclass(kw_only=True)
class Party:
    website_uri: str | None = field(default=None, metadata=_cbc("WebsiteURI"))
    identifications: list[PartyIdentification] = field(default_factory=list, metadata=_cac("PartyIdentification"))
    name: PartyName = field(metadata=_cac("PartyName"))
    postal_address: PostalAddress = field(metadata=_cac("PostalAddress"))
    tax_scheme: PartyTaxScheme | None = field(default=None, metadata=_cac("PartyTaxScheme"))
    legal_entity: PartyLegalEntity = field(metadata=_cac("PartyLegalEntity"))
    contact: Contact | None = field(default=None, metadata=_cac("Contact"))


@dataclass(kw_only=True)
class AccountingParty:
    party: Party = field(metadata=_cac("Party"))


@dataclass(kw_only=True)
class PaymentTerms:
    note: str = field(metadata=_cbc("Note"))


@dataclass(kw_only=True)
class MonetaryTotal:
    line_extension_amount: Amount = field(metadata=_cbc("LineExtensionAmount"))
    tax_exclusive_amount: Amount = field(metadata=_cbc("TaxExclusiveAmount"))
    tax_inclusive_amount: Amount = field(metadata=_cbc("TaxInclusiveAmount"))
    payable_amount: Amount = field(metadata=_cbc("PayableAmount"))


@dataclass(kw_only=True)
class Item:
    name: str = field(metadata=_cbc("Name"))
    tax_category: TaxCategory = field(metadata=_cac("ClassifiedTaxCategory"))


@dataclass(kw_only=True)
class Price:
    price_amount: Amount = field(metadata=_cbc("PriceAmount"))


@dataclass(kw_only=True)
class InvoiceLine:
    id: str = field(metadata=_cbc("ID"))
    invoiced_quantity: Quantity = field(metadata=_cbc("InvoicedQuantity"))
    line_extension_amount: Amount = field(metadata=_cbc("LineExtensionAmount"))
    tax_total: TaxTotal = field(metadata=_cac("TaxTotal"))
    item: Item = field(metadata=_cac("Item"))
    price: Price = field(metadata=_cac("Price"))


@dataclass(kw_only=True)
class Invoice:
    class Meta:
        namespace = INVOICE

    ubl_version_id: str = field(metadata=_cbc("UBLVersionID"))
    id: str = field(metadata=_cbc("ID"))
    issue_date: XmlDate = field(metadata=_cbc("IssueDate"))
    due_date: XmlDate | None = field(default=None, metadata=_cbc("DueDate"))
    invoice_type_code: str = field(metadata=_cbc("InvoiceTypeCode"))
    notes: list[str] = field(default_factory=list, metadata=_cbc("Note"))
    document_currency_code: str = field(metadata=_cbc("DocumentCurrencyCode"))
    line_count_numeric: Decimal = field(metadata=_cbc("LineCountNumeric"))
    supplier: AccountingParty = field(metadata=_cac("AccountingSupplierParty"))
    customer: AccountingParty = field(metadata=_cac("AccountingCustomerParty"))
    payment_terms: PaymentTerms | None = field(default=None, metadata=_cac("PaymentTerms"))
    tax_total: TaxTotal = field(metadata=_cac("TaxTotal"))
    legal_monetary_total: MonetaryTotal = field(metadata=_cac("LegalMonetaryTotal"))
    lines: list[InvoiceLine] = field(default_factory=list, metadata=_cac("InvoiceLine"))


def xml_date(value: date) -> XmlDate:
    return XmlDate(value.year, value.month, value.day)
