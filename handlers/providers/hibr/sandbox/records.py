"""The verbs that every resource has, over records whose fields are free (HIBR API reference, Resource catalog).

Of the fields of most resources nothing is published, so that a record keeps what it was given. The sandbox's own
choices are what `Kind` says of a resource, and: a create is answered 200 like any single resource, a delete 204
without a body; `customer_id`, `supplier_id` and the like must name a record of the account (422), and what is so
named cannot be deleted (409); an action is answered with the record; a field that only HIBR sets is refused (400).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from starlette.responses import JSONResponse, Response

from handlers.providers.hibr.models import RESOURCES
from handlers.providers.hibr.sandbox import bodies, listing
from handlers.providers.hibr.sandbox.access import Visit
from handlers.providers.hibr.sandbox.answers import against_rules, conflict, malformed, moment, new_id, not_found
from handlers.providers.hibr.sandbox.listing import Row
from handlers.providers.hibr.sandbox.tables import Record, Resource

Change = Callable[[Visit, Resource, Resource], Resource]
"""A record's fields and what was asked, to its new fields."""

_OF_ALL = frozenset({"id", "object", "created_at", "updated_at"})
_REFERENCES = {
    "customer_id": "customers",
    "supplier_id": "suppliers",
    "invoice_id": "invoices",
    "bill_id": "bills",
    "item_id": "items",
    "account_id": "accounts",
    "employee_id": "employees",
}


def _as_asked(visit: Visit, before: Resource, asked: Resource) -> Resource:
    return before | asked


def _freely(visit: Visit, record: Record) -> None:
    """Nothing stands in the way of a deletion."""


def _nothing(visit: Visit, record: Record, before: Resource) -> None:
    """Nothing follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A change of state, by which `follow` then happens elsewhere."""

    change: Change
    follow: Callable[[Visit, Record, Resource], None] = _nothing
    """With the record, and how it was shown before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One resource: what is special about it."""

    resource: str
    object: str
    scope: str | None
    """What `read:…` and `write:…` are named by; None: no scope is, and only `*` opens it."""
    required: tuple[str, ...] = ()
    fixed: frozenset[str] = frozenset()
    """Fields that only HIBR sets."""
    create: Change = _as_asked
    """From no fields."""
    created: Callable[[Visit, Record, Resource], None] = _nothing
    change: Change = _as_asked
    check_delete: Callable[[Visit, Record], None] = _freely
    actions: Mapping[str, Action] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        return RESOURCES[self.resource]

    def listed(self, visit: Visit) -> Response:
        query = visit.call.request.query_params
        return JSONResponse(listing.page(rows(visit, self.resource), query, visit.zone))

    def got(self, visit: Visit) -> Response:
        return JSONResponse(shown(record_of(visit, self, visit.call.id)))

    def made(self, visit: Visit) -> Response:
        return JSONResponse(shown(make(visit, self, visit.body())))

    def changed(self, visit: Visit) -> Response:
        record = record_of(visit, self, visit.call.id)
        asked = self._asked(visit.body(record.fields.get("currency") or bodies.CURRENCY))
        for name in self.required:
            if name in asked and asked[name] is None:
                raise bodies.required(name)
        check_references(visit, asked)
        update(visit, record, self.change(visit, record.fields, asked))
        return JSONResponse(shown(record))

    def deleted(self, visit: Visit) -> Response:
        record = record_of(visit, self, visit.call.id)
        visit.body()
        self.check_delete(visit, record)
        check_unnamed(visit, record)
        visit.session.delete(record)
        return Response(status_code=204)

    def acted(self, visit: Visit) -> Response:
        name = str(visit.call.request.path_params["action"])
        action = self.actions.get(name)
        if action is None:
            raise not_found("action")
        record = record_of(visit, self, visit.call.id)
        before = shown(record)
        update(visit, record, action.change(visit, record.fields, visit.body()))
        action.follow(visit, record, before)
        return JSONResponse(shown(record))

    def _asked(self, asked: Resource) -> Resource:
        for name in asked:
            if name in _OF_ALL or name in self.fixed:
                raise malformed(f"The '{name}' field is set by HIBR and cannot be given.", name)
        return asked

    def fields_of(self, visit: Visit, asked: Resource) -> Resource:
        """The fields of a record to be. Raises invalid_request_error or validation_error."""
        self._asked(asked)
        for name in self.required:
            if asked.get(name) is None:
                raise bodies.required(name)
        check_references(visit, asked)
        return self.create(visit, {}, asked)


def make(visit: Visit, kind: Kind, asked: Resource, record_id: str | None = None) -> Record:
    """Make a record."""
    record = Record(
        id=record_id or new_id(kind.prefix, visit.now),
        account_id=visit.account.id,
        resource=kind.resource,
        object=kind.object,
        fields=kind.fields_of(visit, asked),
        created_at=visit.now,
        updated_at=visit.now,
    )
    visit.session.add(record)
    visit.session.flush()
    kind.created(visit, record, {})
    return record


def update(visit: Visit, record: Record, fields: Resource) -> None:
    # Assigned as a whole: a change inside the JSON would go unnoticed.
    record.fields, record.updated_at = fields, visit.now
    visit.session.flush()


def record_of(visit: Visit, kind: Kind, record_id: str) -> Record:
    """A record of this account. Raises not_found."""
    record = found(visit, kind.resource, record_id)
    if record is None:
        raise not_found(kind.object.replace("_", " "))
    return record


def found(visit: Visit, resource: str, record_id: object) -> Record | None:
    rows = select(Record).where(
        Record.id == str(record_id), Record.account_id == visit.account.id, Record.resource == resource
    )
    return visit.session.scalars(rows).one_or_none()


def rows(visit: Visit, resource: str) -> Iterable[Row]:
    stored = select(Record).where(Record.account_id == visit.account.id, Record.resource == resource)
    return ((record.number, shown(record)) for record in visit.session.scalars(stored))


def shown(record: Record) -> Resource:
    """A record as the API gives it."""
    moments = {"created_at": moment(record.created_at), "updated_at": moment(record.updated_at)}
    return {"id": record.id, "object": record.object, **record.fields, **moments}


def check_references(visit: Visit, asked: Mapping[str, Any]) -> None:
    for name, resource in _REFERENCES.items():
        if asked.get(name) is not None and found(visit, resource, asked[name]) is None:
            raise against_rules(f"The '{name}' field names no record of {resource}.", name)


def check_unnamed(visit: Visit, record: Record) -> None:
    """Raise conflict_error where another record names this one."""
    names = [name for name, resource in _REFERENCES.items() if resource == record.resource]
    for name in names:
        naming = select(Record).where(
            Record.account_id == visit.account.id, Record.fields[name].as_string() == record.id
        )
        other = visit.session.scalars(naming.limit(1)).one_or_none()
        if other is not None:
            raise conflict(f"The {record.object} is used by {other.id} and cannot be deleted.")
