from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, date, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import orjson
import pytest
import structlog

from handlers.context import Context, Emit
from handlers.errors import ProviderUnavailable

NOW = datetime(2026, 6, 5, 14, 0, tzinfo=UTC)


@pytest.fixture
def ctx() -> Context:
    return Context(attempt=1, first_seen=NOW, logger=structlog.get_logger(), clients=lambda name: f"client of {name}")


def test_an_emit_is_kept_as_json_until_the_run_succeeds(ctx: Context) -> None:
    data = {"invoice": "inv_1", "lines": [1, None, True], "name": "Été"}

    ctx.emit("receipt.issued", data)
    data["invoice"] = "changed after"

    (emit,) = ctx.emitted
    assert emit.type == "receipt.issued"
    assert orjson.loads(emit.data) == {"invoice": "inv_1", "lines": [1, None, True], "name": "Été"}


def test_emits_are_told_apart_by_their_order(ctx: Context) -> None:
    for _ in range(3):
        ctx.emit("receipt.issued", {})

    assert [emit.key for emit in ctx.emitted] == ["0", "1", "2"]


def test_a_key_of_the_authors_never_meets_one_of_ours(ctx: Context) -> None:
    ctx.emit("receipt.issued", {}, key="1")
    ctx.emit("receipt.issued", {})
    ctx.emit("receipt.issued", {}, key="")

    assert len({emit.key for emit in ctx.emitted}) == 3


def test_a_key_is_used_once(ctx: Context) -> None:
    ctx.emit("receipt.issued", {}, key="june")

    with pytest.raises(ValueError, match="'june' was used before"):
        ctx.emit("reminder.sent", {}, key="june")

    assert len(ctx.emitted) == 1


@pytest.mark.parametrize("name", ["receipt", "Receipt.Issued", "receipt.*", "", "receipt.issued ", "receipt-issued.x"])
def test_a_type_that_no_endpoint_could_want_is_refused(ctx: Context, name: str) -> None:
    with pytest.raises(ValueError, match="is not an event type"):
        ctx.emit(name, {})

    assert ctx.emitted == []


def test_money_is_written_as_an_exact_string(ctx: Context) -> None:
    ctx.emit("receipt.issued", {"total": Decimal("12480.00"), "lines": [{"tax": Decimal("0.1")}]})

    assert ctx.emitted[0].data == b'{"total":"12480.00","lines":[{"tax":"0.1"}]}'


def test_moments_are_written_as_iso_8601(ctx: Context) -> None:
    ctx.emit("receipt.issued", {"at": NOW, "on": date(2026, 6, 5)})

    assert orjson.loads(ctx.emitted[0].data) == {"at": "2026-06-05T14:00:00+00:00", "on": "2026-06-05"}


@pytest.mark.parametrize("data", [MappingProxyType({"a": 1}), OrderedDict(a=1)])
def test_any_mapping_can_be_emitted(ctx: Context, data: Any) -> None:
    ctx.emit("receipt.issued", data)

    assert ctx.emitted[0].data == b'{"a":1}'


@pytest.mark.parametrize(
    "data",
    [{"a": object()}, {"a": b"bytes"}, {1: "a"}, {"a": {1, 2}}, {"a": 2**70}, {"a": "\ud800"}, None, [1]],
    ids=str,
)
def test_what_json_cannot_hold_is_refused_at_once(ctx: Context, data: Any) -> None:
    with pytest.raises(ValueError, match=r"receipt\.issued"):
        ctx.emit("receipt.issued", data)

    assert ctx.emitted == []


def test_data_that_contains_itself_is_refused(ctx: Context) -> None:
    data: dict[str, Any] = {}
    data["self"] = data

    with pytest.raises(ValueError, match=r"receipt\.issued"):
        ctx.emit("receipt.issued", data)


def test_a_client_is_that_of_the_source_asked_for(ctx: Context) -> None:
    assert ctx.client("other") == "client of other"
    assert ctx.client() == "client of None"


def test_a_missing_client_is_the_errors_of_whoever_makes_them() -> None:
    def none(name: str | None) -> Any:
        raise ProviderUnavailable("NO_API_KEY", "no key")

    ctx = Context(attempt=1, first_seen=NOW, logger=structlog.get_logger(), clients=none)

    with pytest.raises(ProviderUnavailable):
        ctx.client()


def test_each_run_emits_for_itself() -> None:
    one, two = (
        Context(attempt=1, first_seen=NOW, logger=structlog.get_logger(), clients=lambda _: None) for _ in range(2)
    )

    one.emit("receipt.issued", {})

    assert two.emitted == []
    assert one.emitted == [Emit("receipt.issued", b"{}", "0")]


@pytest.mark.parametrize("key", ["\ud800", "a\x00b", "a\nb"])
def test_a_key_that_cannot_be_written_is_refused(ctx: Context, key: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        ctx.emit("receipt.issued", {}, key=key)
