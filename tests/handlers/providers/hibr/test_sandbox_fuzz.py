"""Whatever is sent to the sandbox, it answers: a resource, or a documented error that is not its own fault."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.providers.hibr.encoding import OPERATORS
from handlers.providers.hibr.sandbox.catalog import KINDS
from handlers.providers.hibr.sandbox.seeds import CUSTOMER, DRAFT_INVOICE
from handlers.providers.hibr.sandbox.seeds import INVOICE as OPEN_INVOICE
from tests.handlers.providers.hibr.sandboxes import INVOICE, LINE, Sandbox, refusal

FIELDS = """
    name customer_id supplier_id invoice_id invoice_date due_date currency lines amount amount_currency unit_price
    unit_price_currency quantity vat_rate vat_amount vat_amount_currency met_at status url active secret x x_currency
"""
NAMES = st.sampled_from(FIELDS.split())
TEXTS = st.one_of(
    st.sampled_from(
        ["", "AED", "USD", "KWD", "JPY", "XXX", "2026-10-15", "0001-01-01T00:00:00", "9999-12-31T23:59:59-12:00"]
    ),
    st.sampled_from([CUSTOMER, DRAFT_INVOICE, OPEN_INVOICE, "http://a.example", "1.5", "0"]),
    st.text(max_size=8),
)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.integers(-2, 9),
        st.floats(allow_nan=False),
        TEXTS,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=8,
)
LINES = st.lists(st.builds(lambda changes: LINE | changes, st.dictionaries(NAMES, VALUES, max_size=2)), max_size=2)
BODIES = st.one_of(
    st.dictionaries(NAMES, VALUES, max_size=6),
    st.builds(lambda changes: INVOICE | changes, st.dictionaries(NAMES, VALUES, max_size=2)),
    st.builds(lambda lines: INVOICE | {"lines": lines}, LINES),
)
CALLS = st.one_of(
    st.tuples(st.just("POST"), st.sampled_from([f"/v1/{resource}" for resource in KINDS])),
    st.tuples(st.just("PATCH"), st.sampled_from([f"/v1/invoices/{DRAFT_INVOICE}", f"/v1/customers/{CUSTOMER}"])),
)


def answered(sandbox: Sandbox, method: str, path: str, **content: Any) -> None:
    response = sandbox.call(method, path, **content)
    if response.status_code >= 400:
        assert refusal(response)[0] in {400, 404, 409, 422}, response.text


@settings(max_examples=150, deadline=None)
@given(call=CALLS, body=BODIES)
def test_no_body_breaks_it(call: tuple[str, str], body: dict[str, Any]) -> None:
    method, path = call
    try:
        raw = orjson.dumps(body)
    except orjson.JSONEncodeError:  # half of a surrogate pair
        return
    answered(SANDBOX, method, path, content=raw, headers={"Content-Type": "application/json"})
    # and what was kept can be listed, sent and shown
    resource = path.split("/")[2]
    assert SANDBOX.call("GET", f"/v1/{resource}?limit=200").status_code == 200


FILTERS = st.builds(
    lambda name, operator, value: (f"{name}{operator}", value),
    st.one_of(NAMES, st.sampled_from(["id", "total", "created_at", "sort", "limit", "cursor", ""])),
    st.sampled_from(["", *(f".{operator}" for operator in OPERATORS), ".no", "."]),
    st.one_of(TEXTS, st.sampled_from(["total:desc", "due_date", "3", "eyJ0IjpbXSwibiI6MSwicSI6ImEifQ"])),
)


@settings(max_examples=100, deadline=None)
@given(query=st.lists(FILTERS, max_size=3))
def test_no_query_breaks_it(query: list[tuple[str, str]]) -> None:
    try:
        encoded = urlencode(query)
    except UnicodeEncodeError:
        return
    answered(SANDBOX, "GET", f"/v1/invoices?{encoded}")


SANDBOX = Sandbox()
