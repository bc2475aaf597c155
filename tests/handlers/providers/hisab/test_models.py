"""The models against the tables of Hisab's API reference, as they stand there."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest

from handlers.providers.hisab import models
from handlers.providers.hisab.models import ERROR_CODES, SCOPES

STANDARD_CODES = """
VALIDATION_ERROR | 400 |
INVALID_JSON | 400 |
UNAUTHORIZED | 401 |
FORBIDDEN | 403 |
API_DISABLED | 403 |
SUBSCRIPTION_EXPIRED | 403 |
API_TIER_NOT_SUPPORTED | 403 |
ORG_HEADER_REQUIRED | 400 |
ACCOUNT_KEY_REQUIRED | 403 |
ENTITY_CAP_REACHED | 403 |
NOT_FOUND | 404 |
RATE_LIMIT_EXCEEDED | 429 |
INTERNAL_ERROR | 500 |
"""

CODES_OF_ENDPOINTS = """
INVOICE_NOT_EDITABLE
INVOICE_NOT_DRAFTVALIDATION_ERROR
INVALID_STATUS_TRANSITION
CANNOT_VOID_PAIDALREADY_VOIDED
PDF_NOT_AVAILABLE
XML_NOT_AVAILABLE
ALREADY_ARCHIVED
QUOTA_EXCEEDED
INVALID_STATE
INVALID_STATECUSTOMER_INACTIVE
ACCOUNT_KEY_REQUIREDENTITY_CAP_REACHED
ACCOUNT_KEY_REQUIREDALREADY_ARCHIVED
ACCOUNT_KEY_REQUIREDNOT_ARCHIVED
"""

ALL_SCOPES = (
    "invoices:readinvoices:writeinvoices:finalizeinvoices:sendinvoices:paymentinvoices:voidinvoices:export"
    "recurring:readrecurring:writerecurring:deletecustomers:readcustomers:writecustomers:delete"
    "organization:readorganization:writewebhooks:readwebhooks:write"
    "organizations:readorganizations:writeorganizations:archive"
)

ITEM = {"items[].description", "items[].quantity", "items[].unit_price", "items[].tax_rate"}

FIELDS = {
    "NewInvoice": """
        customer_idrequired | uuid |
        issue_daterequired | date (YYYY-MM-DD) |
        due_date | date (YYYY-MM-DD) |
        currency | stringdefault: MAD |
        payment_terms | string |
        notes | string |
        internal_notes | string |
        items[].descriptionrequired | string |
        items[].quantityrequired | number |
        items[].unit_pricerequired | number |
        items[].tax_rate | numberdefault: 20 |
        """,
    "InvoiceChanges": """
        customer_id | uuid |
        issue_date | date (YYYY-MM-DD) |
        due_date | date (YYYY-MM-DD) |
        currency | string |
        payment_terms | string |
        notes | string |
        items[].description | string |
        items[].quantity | number |
        items[].unit_price | number |
        items[].tax_rate | numberdefault: 20 |
        """,
    "Payment": """
        paid_at | datetime (ISO 8601) |
        payment_method | string |
        payment_reference | string |
        """,
    "InvoiceFilter": """
        page | integerdefault: 1 |
        per_page | integerdefault: 20 (max 100) |
        order | stringdefault: descascdesc |
        status | stringdraftfinalizedsentpaidvoid |
        customer_id | uuid |
        date_from | date (YYYY-MM-DD) |
        date_to | date (YYYY-MM-DD) |
        """,
    "NewCustomer": """
        namerequired | string |
        typerequired | stringb2bb2c |
        ice | string (15 digits) |
        legal_name | string |
        rc | string |
        email | string |
        phone | string |
        address.street | string |
        address.city | string |
        address.postal_code | string |
        address.country | stringdefault: MA |
        notes | string |
        tags | string[] |
        """,
    "CustomerChanges": """
        name | string |
        type | stringb2bb2c |
        ice | string (15 digits) |
        email | string |
        phone | string |
        address | object |
        notes | string |
        tags | string[] |
        status | stringactiveinactivearchived |
        """,
    "CustomerFilter": """
        page | integerdefault: 1 |
        per_page | integerdefault: 20 (max 100) |
        order | stringdefault: descascdesc |
        search | string |
        type | stringb2bb2c |
        status | stringactiveinactivearchived |
        """,
    "NewRecurringInvoice": """
        customer_idrequired | uuid |
        frequencyrequired | stringweeklybiweeklymonthlyquarterlybiannuallyyearly |
        start_daterequired | date (YYYY-MM-DD) |
        name | string |
        interval_count | integer (1-12)default: 1 |
        day_of_month | integer (1-28) |
        day_of_week | integer (0-6) |
        end_date | date (YYYY-MM-DD) |
        max_occurrences | integer |
        auto_finalize | booleandefault: false |
        auto_send | booleandefault: false |
        days_until_due | integer (0-365)default: 30 |
        currency | stringdefault: MAD |
        items[].descriptionrequired | string |
        items[].quantityrequired | number |
        items[].unit_pricerequired | number |
        items[].tax_rate | numberdefault: 20 |
        """,
    "RecurringInvoiceChanges": """
        frequency | stringweeklybiweeklymonthlyquarterlybiannuallyyearly |
        end_date | date (YYYY-MM-DD) |
        auto_finalize | boolean |
        auto_send | boolean |
        days_until_due | integer (0-365) |
        items | array |
        """,
    "RecurringInvoiceFilter": """
        page | integerdefault: 1 |
        per_page | integerdefault: 20 (max 100) |
        order | stringdefault: descascdesc |
        status | stringactivepausedcompletedcancelled |
        customer_id | uuid |
        frequency | stringweeklybiweeklymonthlyquarterlybiannuallyyearly |
        search | string |
        """,
    "OrganizationChanges": """
        legal_name | string |
        ice | string |
        rc | string |
        if_number | string |
        vat_number | string |
        phone | string |
        email | string |
        website | string (URL) |
        billing_address | object |
        """,
    "NewOrganization": """
        legal_namerequired | string |
        ice | string (15 digits) |
        rc | string |
        if_number | string |
        phone | string |
        email | string |
        address_street | string |
        address_city | string |
        address_postal_code | string |
        """,
}


def test_every_documented_code_has_its_status() -> None:
    standard = {code: int(status) for code, status in re.findall(r"(\w+) \| (\d+)", STANDARD_CODES)}

    assert {code: status for code, status in ERROR_CODES.items() if status is not None} == standard


def test_the_codes_of_the_endpoints_are_known() -> None:
    run_together = "".join(CODES_OF_ENDPOINTS.split())
    for code in sorted(ERROR_CODES, key=len, reverse=True):
        run_together = run_together.replace(code, " ")

    assert run_together.strip() == ""
    assert all(code in CODES_OF_ENDPOINTS for code, status in ERROR_CODES.items() if status is None)


def test_the_scopes_are_those_of_the_reference() -> None:
    assert "".join(SCOPES) == ALL_SCOPES


@pytest.mark.parametrize("form", FIELDS)
def test_a_request_has_the_fields_of_the_reference(form: str) -> None:
    rows = [row.strip().split(" | ") for row in FIELDS[form].strip().splitlines()]
    documented = {re.split(r"\[\]\.|\.", name.removesuffix("required"))[0] for name, _ in rows}
    required = {re.split(r"\[", name.removesuffix("required"))[0] for name, _ in rows if name.endswith("required")}

    typed: Any = getattr(models, form)

    assert set(typed.__annotations__) == documented
    assert typed.__required_keys__ == required


def test_an_item_has_the_fields_of_the_reference() -> None:
    assert {f"items[].{name}" for name in models.InvoiceItem.__annotations__} == ITEM
    assert models.InvoiceItem.__required_keys__ == {"description", "quantity", "unit_price"}
    assert {f"items[].{name}" for name in models.InvoiceItemChanges.__annotations__} == ITEM
    assert models.InvoiceItemChanges.__required_keys__ == frozenset()
    assert set(models.Address.__annotations__) == {"street", "city", "postal_code", "country"}


@pytest.mark.parametrize(
    ("words", "documented"),
    [
        (models.InvoiceStatus, "draftfinalizedsentpaidvoid"),
        (models.CustomerType, "b2bb2c"),
        (models.CustomerStatus, "activeinactivearchived"),
        (models.RecurringStatus, "activepausedcompletedcancelled"),
        (models.Frequency, "weeklybiweeklymonthlyquarterlybiannuallyyearly"),
        (models.Locale, "frenar"),
        (models.Order, "descasc"),
    ],
)
def test_the_words_are_those_of_the_reference(words: Any, documented: str) -> None:
    assert "".join(get_args(words)) == documented
