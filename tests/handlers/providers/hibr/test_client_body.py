from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.providers.hibr.client import HibrClient
from handlers.providers.hibr.encoding import body

names = st.from_regex("[a-z_]{1,8}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=8
)
fractions = st.floats() | st.decimals().filter(lambda number: not number.is_finite() or "." in f"{number:f}")


def written(fields: dict[str, Any]) -> Any:
    """What the API receives; None: nothing."""
    arrived: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        arrived.append(orjson.loads(request.content))
        return httpx.Response(200, json={"id": "inv_1"})

    with HibrClient(api_key="hibr_test_1", transport=httpx.MockTransport(answer)) as client:
        client.invoices.create(**fields)
    return arrived[0]


@given(st.dictionaries(names, values, max_size=4))
def test_whatever_json_has_arrives_as_it_is(fields: dict[str, Any]) -> None:
    assert written(fields) == fields


@given(st.data(), fractions)
def test_a_number_with_a_fraction_is_refused_wherever_it_stands(data: st.DataObject, fraction: float | Decimal) -> None:
    path = "total"
    value: Any = fraction
    for _ in range(data.draw(st.integers(0, 4))):
        if data.draw(st.booleans()):
            before = data.draw(st.lists(scalars, max_size=2))
            path, value = f"[{len(before)}]{path.removeprefix('total')}", [*before, value]
        else:
            name = data.draw(names)
            path, value = f".{name}{path.removeprefix('total')}", {name: value}
        path = f"total{path}"

    with pytest.raises(TypeError) as refused:
        body({"customer_id": "cust_1", "total": value})

    assert str(refused.value).startswith(f"{path} is the {type(fraction).__name__} ")


@pytest.mark.parametrize("price", [5250.0, 5250.5, Decimal("5250.00"), Decimal("5250.5"), Decimal("NaN"), 1e300])
def test_the_price_that_the_reference_forbids_is_named_and_nothing_is_sent(price: float | Decimal) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"id": "inv_1"})

    client = HibrClient(api_key="hibr_test_1", transport=httpx.MockTransport(answer))
    lines = [{"description": "Design", "unit_price": price}]
    calls: list[Callable[[], Any]] = [
        lambda: client.invoices.create(lines=lines),
        lambda: client.invoices.update("inv_1", lines=lines),
        lambda: client.invoices.action("inv_1", "post", lines=lines),
    ]

    for call in calls:
        with pytest.raises(TypeError, match=r"^lines\[0\]\.unit_price is the (float|Decimal) .*to_minor"):
            call()

    assert asked == []


@pytest.mark.parametrize(("given", "sent"), [("525000", 525_000), ("5.25E+5", 525_000), ("-0", 0), ("1E+18", 10**18)])
def test_a_decimal_without_decimals_is_an_integer(given: str, sent: int) -> None:
    assert written({"total": Decimal(given)}) == {"total": sent}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (date(2026, 10, 15), "2026-10-15"),
        (datetime(2026, 10, 15, 9, 32, 14, tzinfo=UTC), "2026-10-15T09:32:14Z"),
        (datetime(2026, 10, 15, 1, 32, 14, tzinfo=timezone(timedelta(hours=4))), "2026-10-14T21:32:14Z"),
        (datetime(2026, 10, 15, 9, 32, 14, 5, tzinfo=UTC), "2026-10-15T09:32:14.000005Z"),
        ((1, "a"), [1, "a"]),
    ],
)
def test_days_moments_and_tuples_are_written_as_documented(given: Any, sent: Any) -> None:
    assert written({"lines": [{"at": given}]}) == {"lines": [{"at": sent}]}


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.timezones()))  # noqa: DTZ001 - bounds
def test_any_moment_is_written_in_utc_and_read_back(moment: datetime) -> None:
    text = body({"at": moment})["at"]

    assert text.endswith("Z")
    assert datetime.fromisoformat(text) == moment.astimezone(UTC)


def test_a_moment_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^lines\[1\]\.at has no time zone"):
        body({"lines": [{}, {"at": datetime(2026, 10, 15)}]})  # noqa: DTZ001 - what is refused


@pytest.mark.parametrize("value", [object(), {1, 2}, b"5", UUID(int=1), timedelta(1)])
def test_what_json_does_not_have_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^lines\[0\] is a .*, which JSON does not have"):
        body({"lines": [value]})


def test_a_name_is_a_string() -> None:
    with pytest.raises(TypeError, match=r"^metadata has a name"):
        body({"metadata": {1: "a"}})
