"""The documents of a finalized invoice: PDF and UBL 2.1 XML (API reference, Invoices).

The libraries that write them are imported when a document is asked for: `pip install 'billhook[sandbox]'`.
"""

from __future__ import annotations

from typing import Annotated

from starlette.responses import Response

from handlers.providers.hisab.sandbox.access import Visit
from handlers.providers.hisab.sandbox.answers import refusal
from handlers.providers.hisab.sandbox.invoices import invoice_of
from handlers.providers.hisab.sandbox.paper import Paper, paper
from handlers.providers.hisab.sandbox.wording import LOCALES
from handlers.providers.sandbox import fields
from handlers.providers.sandbox.fields import Fields
from handlers.providers.sandbox.machine import Later


class PdfQuery(Fields):
    locale: Annotated[str, fields.one_of(*LOCALES)] = "fr"


def pdf(visit: Visit) -> Later:
    """The PDF of an invoice, in the language of `locale`. Refused with PDF_NOT_AVAILABLE."""
    shown = _shown(visit, "PDF_NOT_AVAILABLE")
    locale = visit.query(PdfQuery).locale

    def write() -> Response:
        try:
            from handlers.providers.hisab.sandbox.pdf import written
        except ImportError as error:
            raise _missing(error) from None
        return _file(written(shown, locale), "application/pdf", f"{shown.number}.pdf")

    return write


def xml(visit: Visit) -> Later:
    """The UBL 2.1 XML of an invoice. Refused with XML_NOT_AVAILABLE."""
    shown = _shown(visit, "XML_NOT_AVAILABLE")

    def write() -> Response:
        try:
            from handlers.providers.hisab.sandbox.ubl import written
        except ImportError as error:
            raise _missing(error) from None
        return _file(written(shown), "application/xml", f"{shown.number}.xml")

    return write


def _shown(visit: Visit, code: str) -> Paper:
    invoice = invoice_of(visit.desk, visit.id)
    if invoice.invoice_number is None:
        raise refusal(code, "The document is available once the invoice is finalized")
    return paper(invoice)


def _file(content: bytes, media_type: str, name: str) -> Response:
    return Response(content, media_type=media_type, headers={"Content-Disposition": f'inline; filename="{name}"'})


def _missing(error: ImportError) -> Exception:
    message = f"This sandbox lacks {error.name}, which makes documents: pip install 'billhook[sandbox]'"
    return refusal("INTERNAL_ERROR", message)
