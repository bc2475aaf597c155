"""What of the providers' documents is covered: `python -m tests.handlers.providers.test_coverage` writes the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from handlers.providers.hesabe.client import HesabeClient
from handlers.providers.hibr import failures as hibr_failures
from handlers.providers.hibr.client import HibrClient
from handlers.providers.hibr.models import RESOURCES
from handlers.providers.hisab.client import HisabClient
from handlers.providers.hisab.models import ERROR_CODES
from handlers.providers.hisab.sandbox.app import ACCOUNT_ENDPOINTS, ENDPOINTS
from tests.handlers.providers.hisab.test_sandbox_contract import TABLE

PAGE = Path(__file__).parents[3] / "docs" / "providers" / "coverage.md"

HISAB = {
    "GET /invoices": "invoices.list",
    "GET /invoices/{id}": "invoices.get",
    "POST /invoices": "invoices.create",
    "PATCH /invoices/{id}": "invoices.update",
    "POST /invoices/{id}/finalize": "invoices.finalize",
    "POST /invoices/{id}/send": "invoices.send",
    "POST /invoices/{id}/pay": "invoices.pay",
    "POST /invoices/{id}/void": "invoices.void",
    "GET /invoices/{id}/pdf": "invoices.pdf",
    "GET /invoices/{id}/xml": "invoices.xml",
    "GET /customers": "customers.list",
    "GET /customers/{id}": "customers.get",
    "POST /customers": "customers.create",
    "PATCH /customers/{id}": "customers.update",
    "DELETE /customers/{id}": "customers.archive",
    "GET /recurring-invoices": "recurring_invoices.list",
    "GET /recurring-invoices/{id}": "recurring_invoices.get",
    "POST /recurring-invoices": "recurring_invoices.create",
    "PUT /recurring-invoices/{id}": "recurring_invoices.update",
    "DELETE /recurring-invoices/{id}": "recurring_invoices.delete",
    "POST /recurring-invoices/{id}/generate": "recurring_invoices.generate",
    "GET /recurring-invoices/{id}/history": "recurring_invoices.history",
    "POST /recurring-invoices/{id}/pause": "recurring_invoices.pause",
    "POST /recurring-invoices/{id}/resume": "recurring_invoices.resume",
    "GET /organization": "organization.get",
    "PATCH /organization": "organization.update",
    "GET /organizations": "organizations.list",
    "POST /organizations": "organizations.create",
    "GET /organizations/{id}": "organizations.get",
    "POST /organizations/{id}/archive": "organizations.archive",
    "POST /organizations/{id}/restore": "organizations.restore",
}
HESABE = {
    "POST /api/v1/login, POST /api/v1/token-refresh": "by itself, when a call needs it",
    "POST /api/v1/invoice": "invoices.create",
    "POST /api/v1/invoice/": "invoices.create_subscription",
    "GET /api/v1/invoice/{id}": "invoices.get",
    "GET /api/v1/invoice-dashboard": "invoices.list",
    "PUT /api/v1/invoice/{token}": "invoices.cancel",
    "POST /api/v1/invoice/resend": "invoices.resend",
    "GET /api/transaction/{token}": "transactions.get",
    "GET /api/transaction/{reference}?isOrderReference=1": "transactions.find",
    "POST /api/v1/refund": "refunds.create",
    "GET /api/v1/refund/{id}": "refunds.get",
    "DELETE /api/v1/refund/{id}": "refunds.cancel",
    "POST /api/subscription/capture": "subscriptions.capture",
    "DELETE /api/subscription/cancel/{token}": "subscriptions.cancel",
}
HIBR = {
    "GET /v1/{resource}": "list, page",
    "GET /v1/{resource}/{id}": "get",
    "POST /v1/{resource}": "create",
    "PATCH /v1/{resource}/{id}": "update",
    "DELETE /v1/{resource}/{id}": "delete",
    "POST /v1/{resource}/{id}/{action}": "action",
}
NOT_COVERED = (
    ("Hisab", "`webhooks:read`, `webhooks:write`", "the scopes exist, the reference has no endpoint for them"),
    (
        "Hisab",
        "the scopes `invoices:payment`, `invoices:void`, `recurring:*`",
        "the endpoints are annotated with others, which count",
    ),
    ("Hisab", "credit notes", "no endpoint is documented"),
    (
        "HIBR",
        "2 of 16 resources, 30 of 32 event types, the fields of most resources",
        "their names are not public; `client.resource(…)` reaches any",
    ),
    ("HIBR", "making invoices for schedules", "no field is known by which a draft could be found again"),
    ("Hesabe", "checkout, direct payment, split, EMI, bulk and open invoices, other lists", "not in its two documents"),
)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def page() -> str:
    """The page as Markdown."""
    scopes = {f"{method} {path}": scope for method, path, scope in TABLE}
    hisab = [(f"`{call}`", f"`{scopes[call]}`", f"`{method}`", "yes") for call, method in HISAB.items()]
    codes = [(f"`{code}`", str(status or "not documented; 409 in the sandbox")) for code, status in ERROR_CODES.items()]
    hibr = [
        (f"`{call}`", ", ".join(f"`{name}`" for name in method.split(", ")), "yes") for call, method in HIBR.items()
    ]
    hibr_codes = [(f"`{code}`", str(status)) for code, status in hibr_failures.ERROR_CODES.items()]
    hesabe = [(f"`{call}`", f"`{method}`" if "." in method else method, "yes") for call, method in HESABE.items()]
    return (
        "# What of the providers' documents is covered\n\n"
        "Each row is exercised by the tests in `tests/handlers/providers/`; this page is made from what they check. A\n"
        "test compares it; constraints of single fields are rows of the tests named `test_sandbox_contract`,\n"
        "`test_client_requests`, `test_sandbox_fields` and `test_models`.\n\n"
        "## Hisab: endpoints\n\n"
        + _table(("endpoint", "scope", "client", "sandbox"), hisab)
        + "\n## Hisab: error codes\n\nAll are raised by the client and answered by the sandbox.\n\n"
        + _table(("code", "HTTP status"), codes)
        + "\n## HIBR: verbs\n\nOver "
        + ", ".join(f"`{name}`" for name in RESOURCES)
        + ".\n\n"
        + _table(("endpoint", "client", "sandbox"), hibr)
        + "\nOAuth 2: authorize, token, revoke, introspect, in `handlers/providers/hibr/oauth.py` and the sandbox.\n"
        + "\n## HIBR: error codes\n\n"
        + _table(("code", "HTTP status"), hibr_codes)
        + "\n## Hesabe: endpoints\n\n"
        + _table(("endpoint", "client", "sandbox"), hesabe)
        + "\n## Not covered\n\n"
        + _table(("provider", "what", "why"), NOT_COVERED)
    )


def test_the_page_says_what_the_code_has() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.handlers.providers.test_coverage"


def test_every_endpoint_of_the_reference_has_a_call_and_a_fake() -> None:
    documented = {(method, path) for method, path, _ in TABLE}

    assert {tuple(call.split()) for call in HISAB} == documented
    assert {(method, path) for method, path, *_ in (*ENDPOINTS, *ACCOUNT_ENDPOINTS)} == documented


@pytest.mark.parametrize("method", HISAB.values())
def test_the_client_of_hisab_has_every_call(method: str) -> None:
    with HisabClient(api_key="hisab_test_1") as client:
        group, _, verb = method.partition(".")
        assert callable(getattr(getattr(client, group), verb))


@pytest.mark.parametrize("method", [method for method in HESABE.values() if "." in method])
def test_the_client_of_hesabe_has_every_call(method: str) -> None:
    key = "842217:c333729b-d060-4b74-a49d-7686a8353481:PkW64zMe5NVdrlPVNnjo2Jy9nOb7v1Xg:5NVdrlPVNnjo2Jy9"
    with HesabeClient(api_key=key) as client:
        group, _, verb = method.partition(".")
        assert callable(getattr(getattr(client, group), verb))


@pytest.mark.parametrize("resource", RESOURCES)
def test_the_client_of_hibr_has_every_verb_of_every_resource(resource: str) -> None:
    with HibrClient(api_key="hibr_test_1") as client:
        for verb in ("list", "page", "get", "create", "update", "delete", "action"):
            assert callable(getattr(getattr(client, resource), verb))


if __name__ == "__main__":
    PAGE.write_text(page())
