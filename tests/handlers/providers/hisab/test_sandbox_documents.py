"""The documents: a PDF that can be read in three languages, and XML that the schemas of UBL 2.1 accept."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import xmlschema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pypdf import PdfReader

from tests.handlers.providers.hisab.sandbox_given import ITEM, Sandbox, fields, refusal

CBC = "{urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2}"
CAC = "{urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2}"
LINES = [
    ITEM,
    {"description": "خدمات الاستشارة 2026 (API)", "quantity": 1.5, "unit_price": 99.999, "tax_rate": 10},
    {"description": "Hébergement <annuel> & « sauvegardes »", "quantity": 2, "unit_price": 50, "tax_rate": 20},
    {"description": "Livre", "quantity": 1, "unit_price": 100, "tax_rate": 0},
]


@pytest.fixture(scope="module")
def schema() -> xmlschema.XMLSchema:
    return xmlschema.XMLSchema(Path(__file__).with_name("ubl21") / "maindoc" / "UBL-Invoice-2.1.xsd")


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(rate_limit=10**6)


def issued(sandbox: Sandbox, **changes: Any) -> str:
    invoice_id = sandbox.create(**changes)
    sandbox.done("POST", f"/invoices/{invoice_id}/finalize")
    return invoice_id


def text_of(pdf: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)


@pytest.mark.parametrize(("kind", "code"), [("pdf", "PDF_NOT_AVAILABLE"), ("xml", "XML_NOT_AVAILABLE")])
def test_a_draft_has_no_documents(sandbox: Sandbox, kind: str, code: str) -> None:
    invoice_id = sandbox.create()

    assert refusal(sandbox.call("GET", f"/invoices/{invoice_id}/{kind}")) == (409, code)
    assert sandbox.done("GET", f"/invoices/{invoice_id}")[f"{kind}_url"] is None


@pytest.mark.parametrize(
    ("locale", "words"),
    [
        ("fr", ["FACTURE", "Date d'émission", "05/06/2026", "10 400,00", "Total TTC", "12 615,00 MAD"]),
        ("en", ["INVOICE", "Issue date", "2026-06-05", "10,400.00", "Total", "12,615.00 MAD"]),
        ("ar", ["05/06/2026", "10 400,00", "12 615,00 MAD"]),
    ],
)
def test_a_pdf_says_what_the_invoice_says(sandbox: Sandbox, locale: str, words: list[str]) -> None:
    lines = [ITEM, {"description": "Hosting", "quantity": 1.25, "unit_price": 90, "tax_rate": 20}]
    invoice_id = issued(sandbox, items=lines)
    number = sandbox.done("GET", f"/invoices/{invoice_id}")["invoice_number"]

    response = sandbox.call("GET", f"/invoices/{invoice_id}/pdf?locale={locale}")

    assert response.headers["content-type"] == "application/pdf"
    assert response.headers["content-disposition"] == f'inline; filename="{number}.pdf"'
    text = text_of(response.content).replace("\N{NO-BREAK SPACE}", " ")
    seller = ["Atelier Numérique SARL", "001122334000055", "Atlas Distribution SARL", "001987654000032"]
    assert [word for word in [number, *seller, "Integration services", *words] if word not in text] == []


def test_the_pdf_is_french_unless_asked_otherwise(sandbox: Sandbox) -> None:
    invoice_id = issued(sandbox)

    assert "FACTURE" in text_of(sandbox.call("GET", f"/invoices/{invoice_id}/pdf").content)
    assert fields(sandbox.call("GET", f"/invoices/{invoice_id}/pdf?locale=de")) == ["locale"]


def test_a_void_invoice_says_so_on_paper(sandbox: Sandbox) -> None:
    invoice_id = sandbox.in_status("void")

    assert "ANNULÉE" in text_of(sandbox.call("GET", f"/invoices/{invoice_id}/pdf").content)


@pytest.mark.parametrize("locale", ["fr", "ar"])
def test_a_long_invoice_goes_on_over_pages_with_all_its_lines(sandbox: Sandbox, locale: str) -> None:
    lines = [ITEM | {"description": f"Line{number:03d} " + "mot " * 20} for number in range(40)]
    long = {"description": "x" * 10_000, "quantity": 999_999_999, "unit_price": 999_999_999.999999, "tax_rate": 20}
    invoice_id = issued(sandbox, items=[*lines, long], notes="note " * 300)

    pdf = PdfReader(io.BytesIO(sandbox.call("GET", f"/invoices/{invoice_id}/pdf?locale={locale}").content))

    text = "\n".join(page.extract_text() for page in pdf.pages)
    assert len(pdf.pages) > 2
    assert [number for number in range(40) if f"Line{number:03d}" not in text] == []


def test_the_xml_is_ubl_that_says_what_the_invoice_says(sandbox: Sandbox, schema: xmlschema.XMLSchema) -> None:
    invoice_id = issued(sandbox, items=LINES, due_date="2026-07-05", payment_terms="30 jours", notes="شكرا")
    invoice = sandbox.done("GET", f"/invoices/{invoice_id}")

    response = sandbox.call("GET", f"/invoices/{invoice_id}/xml")

    schema.validate(response.content)
    root = ElementTree.fromstring(response.content)  # noqa: S314 - our own
    assert response.headers["content-type"] == "application/xml"
    assert root.findtext(f"{CBC}UBLVersionID") == "2.1"
    assert root.findtext(f"{CBC}ID") == invoice["invoice_number"]
    total = root.find(f"{CAC}LegalMonetaryTotal")
    assert total is not None
    assert total.findtext(f"{CBC}TaxExclusiveAmount") == invoice["subtotal"]
    assert total.findtext(f"{CBC}PayableAmount") == invoice["total"]
    assert root.findtext(f"{CAC}TaxTotal/{CBC}TaxAmount") == invoice["total_tax"]
    found = [(one.findtext(f"{CAC}Item/{CBC}Name"), one.findtext(f"{CBC}LineExtensionAmount")) for one in lines(root)]
    assert found == [(item["description"], item["subtotal"]) for item in invoice["items"]]


def lines(root: ElementTree.Element) -> list[ElementTree.Element]:
    return root.findall(f"{CAC}InvoiceLine")


def test_the_taxes_are_summed_by_rate(sandbox: Sandbox) -> None:
    root = ElementTree.fromstring(  # noqa: S314 - our own
        sandbox.call("GET", f"/invoices/{issued(sandbox, items=LINES)}/xml").content
    )

    found = [
        [part.findtext(f"{CBC}{name}") for name in ("TaxableAmount", "TaxAmount")]
        + [part.findtext(f"{CAC}TaxCategory/{CBC}{name}") for name in ("ID", "Percent")]
        for part in root.findall(f"{CAC}TaxTotal/{CAC}TaxSubtotal")
    ]

    assert found == [["10500.00", "2100.00", "S", "20"], ["150.00", "15.00", "S", "10"], ["100.00", "0.00", "Z", "0"]]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=60).filter(str.strip))
def test_whatever_is_written_in_it_the_xml_is_valid(sandbox: Sandbox, schema: xmlschema.XMLSchema, text: str) -> None:
    invoice_id = issued(sandbox, items=[ITEM | {"description": text}], notes=text)

    schema.validate(sandbox.call("GET", f"/invoices/{invoice_id}/xml").content)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=60).filter(str.strip))
def test_whatever_is_written_in_it_there_is_a_pdf(sandbox: Sandbox, text: str) -> None:
    invoice_id = issued(sandbox, items=[ITEM | {"description": text}], notes=text)

    response = sandbox.call("GET", f"/invoices/{invoice_id}/pdf?locale=ar")

    assert (response.status_code, response.content[:5]) == (200, b"%PDF-")


@pytest.mark.parametrize(("kind", "library"), [("pdf", "fpdf"), ("xml", "xsdata")])
def test_a_library_that_is_missing_is_named_with_the_way_to_get_it(
    sandbox: Sandbox, kind: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoice_id = issued(sandbox)
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("pdf", "ubl", "ubl_types"):
        monkeypatch.delitem(sys.modules, f"handlers.providers.hisab.sandbox.{name}", raising=False)

    response = sandbox.call("GET", f"/invoices/{invoice_id}/{kind}")

    assert refusal(response) == (500, "INTERNAL_ERROR")
    assert "pip install 'billhook[sandbox]'" in response.json()["error"]["message"]
