"""The resources at `/v1/{resource}` and their verbs (HIBR API reference, Resource catalog).

Names in paths are the client's (`handlers.providers.hibr.models.RESOURCES`); only `/v1/invoices` is published. So
are the scopes: which of them opens what beside its namesake is the sandbox's own choice, and `read:reports` opens
nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from starlette.responses import Response
from starlette.routing import Route

from handlers.providers.hibr.sandbox import invoices, payments, repeats
from handlers.providers.hibr.sandbox.access import Visit
from handlers.providers.hibr.sandbox.answers import malformed, not_found
from handlers.providers.hibr.sandbox.endpoints import Endpoints
from handlers.providers.hibr.sandbox.records import Kind
from handlers.providers.hibr.sandbox.states import kind
from handlers.providers.sandbox.machine import Call, Machine


class Verbs(Protocol):
    """What can be done with a resource."""

    @property
    def scope(self) -> str | None: ...
    def listed(self, visit: Visit) -> Response: ...
    def got(self, visit: Visit) -> Response: ...
    def made(self, visit: Visit) -> Response: ...
    def changed(self, visit: Visit) -> Response: ...
    def deleted(self, visit: Visit) -> Response: ...
    def acted(self, visit: Visit) -> Response: ...


CUSTOMERS = Kind(resource="customers", object="customer", scope="customers", required=("name",))
SUPPLIERS = Kind(resource="suppliers", object="supplier", scope=None, required=("name",))
ITEMS = Kind(resource="items", object="item", scope=None, required=("name",))
ACCOUNTS = Kind(resource="accounts", object="account", scope=None, required=("name",))
EMPLOYEES = Kind(resource="employees", object="employee", scope="payroll", required=("name",))
INVOICES = invoices.kind(payments.PAY)
KINDS: Mapping[str, Verbs] = {
    "customers": CUSTOMERS,
    "suppliers": SUPPLIERS,
    "invoices": INVOICES,
    "bills": kind("bills", "bill", None, required=("supplier_id",)),
    "credit_notes": kind("credit_notes", "credit_note", "invoices", required=("customer_id",)),
    "payments": payments.KIND,
    "journal_entries": kind("journal_entries", "journal_entry", None),
    "items": ITEMS,
    "accounts": ACCOUNTS,
    "employees": EMPLOYEES,
    "vat_returns": kind("vat_returns", "vat_return", "vat", filed=True),
    "corporate_tax_returns": kind("corporate_tax_returns", "corporate_tax_return", None, filed=True),
    "payroll_runs": kind("payroll_runs", "payroll_run", "payroll"),
    "webhook_endpoints": Endpoints(),
}

_VERBS: tuple[tuple[str, str, Callable[[Verbs, Visit], Response]], ...] = (
    ("GET", "/v1/{resource}", lambda verbs, visit: verbs.listed(visit)),
    ("POST", "/v1/{resource}", lambda verbs, visit: verbs.made(visit)),
    ("GET", "/v1/{resource}/{id}", lambda verbs, visit: verbs.got(visit)),
    ("PATCH", "/v1/{resource}/{id}", lambda verbs, visit: verbs.changed(visit)),
    ("DELETE", "/v1/{resource}/{id}", lambda verbs, visit: verbs.deleted(visit)),
    ("POST", "/v1/{resource}/{id}/{action}", lambda verbs, visit: verbs.acted(visit)),
)


def routes(machine: Machine) -> list[Route]:
    return [Route(path, machine.endpoint(partial(_answer, work)), methods=[method]) for method, path, work in _VERBS]


def _answer(work: Callable[[Verbs, Visit], Response], call: Call) -> Response:
    verbs = KINDS.get(call.request.path_params["resource"])
    if verbs is None:
        raise not_found()
    visit = Visit.of(call)
    if call.request.method in {"GET", "HEAD"}:
        visit.need("read", verbs.scope)
        if call.raw:
            raise malformed("A GET request has no body.")
        return work(verbs, visit)
    visit.need("write", verbs.scope)
    return repeats.once(visit, partial(work, verbs, visit))
