from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import orjson
import pytest
import structlog

from handlers.context import LONGEST_PAUSE, MAX_STEP_BYTES, Context, Emit, Pause
from handlers.errors import LeaseLost, ProviderUnavailable, StepError
from handlers.testing import event

NOW = datetime(2026, 6, 5, 14, 0, tzinfo=UTC)


@dataclass
class Kept:
    """The plainest `Durable`: what a run keeps, and what it is told."""

    steps: dict[str, bytes] = field(default_factory=dict)
    clock: datetime = NOW
    mine: bool = True
    stale: bool = False
    asked: list[str] = field(default_factory=list)
    held: bool = True

    def now(self) -> datetime:
        return self.clock

    def client(self, source: str | None) -> Any:
        if source == "none":
            raise ProviderUnavailable("NO_API_KEY", "no key")
        return f"client of {source}"

    def recall(self, step: str) -> bytes | None:
        return self.steps.get(step)

    def stepping(self, step: str) -> AbstractContextManager[Callable[[], object]]:
        return nullcontext(lambda: None)

    def record(self, step: str, value: bytes) -> None:
        if not self.held:
            raise LeaseLost("given to another process")
        self.steps[step] = value

    def once(self, key: str) -> bool:
        self.asked.append(key)
        return self.mine

    def is_stale(self) -> bool:
        return self.stale


def start(kept: Kept) -> Context:
    """Another start of the run that left this behind."""
    return Context(event=event("invoice.paid"), attempt=1, first_seen=NOW, logger=structlog.get_logger(), durable=kept)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def ctx(kept: Kept) -> Context:
    return start(kept)


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


def test_no_handler_can_speak_for_billhook_itself(ctx: Context) -> None:
    with pytest.raises(ValueError, match="begin with billhook"):
        ctx.emit("billhook.endpoint.disabled", {})


@pytest.mark.parametrize("data", [MappingProxyType({"a": 1}), OrderedDict(a=1)])
def test_any_mapping_can_be_emitted(ctx: Context, data: Any) -> None:
    ctx.emit("receipt.issued", data)

    assert ctx.emitted[0].data == b'{"a":1}'


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({"a": object()}, id="an object"),
        {"a": b"bytes"},
        {1: "a"},
        {"a": {1, 2}},
        {"a": 2**70},
        {"a": "\ud800"},
        None,
        [1],
    ],
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


def test_a_missing_client_is_the_error_of_whoever_makes_them(ctx: Context) -> None:
    with pytest.raises(ProviderUnavailable):
        ctx.client("none")


def test_each_run_emits_for_itself() -> None:
    one, two = start(Kept()), start(Kept())

    one.emit("receipt.issued", {})

    assert two.emitted == []
    assert one.emitted == [Emit("receipt.issued", b"{}", "0")]


@pytest.mark.parametrize("key", ["\ud800", "a\x00b", "a\nb"])
def test_a_key_that_cannot_be_written_is_refused(ctx: Context, key: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        ctx.emit("receipt.issued", {}, key=key)


# --- steps ----------------------------------------------------------------------------------------


def never() -> Any:
    raise AssertionError("the step was called again")


@pytest.mark.parametrize(
    ("result", "known"),
    [
        (None, None),
        (False, False),
        ("Été", "Été"),
        ({"lines": [1, 2.5, None]}, {"lines": [1, 2.5, None]}),
        ((1, 2), [1, 2]),
        (date(2026, 6, 5), "2026-06-05"),
        (b"", b""),
        (b"\x00\xffj", b"\x00\xffj"),
    ],
    ids=str,
)
def test_the_result_of_a_step_is_the_same_at_once_and_in_every_later_start(result: Any, known: Any, kept: Kept) -> None:
    at_once = start(kept).step("look", lambda: result)
    later = start(kept).step("look", never)

    assert (at_once, type(at_once)) == (later, type(later)) == (known, type(known))


def test_a_step_is_kept_the_moment_it_has_returned(ctx: Context, kept: Kept) -> None:
    ctx.step("one", lambda: 1)
    with pytest.raises(ConnectionError):
        ctx.step("two", lambda: (_ for _ in ()).throw(ConnectionError()))

    assert set(kept.steps) == {"one"}
    again = start(kept)
    assert (again.step("one", never), again.step("two", lambda: 2)) == (1, 2)


def test_a_step_of_an_async_handler_is_awaited_in_every_start(kept: Kept) -> None:
    calls: list[int] = []

    async def look() -> dict[str, int]:
        calls.append(1)
        await asyncio.sleep(0)
        return {"found": 7}

    async def handler(ctx: Context) -> Any:
        return await ctx.step("look", look)

    found = [asyncio.run(handler(start(kept))) for _ in range(2)]

    assert found == [{"found": 7}, {"found": 7}]
    assert calls == [1]


def test_a_plain_step_of_an_async_handler_is_not_awaited(kept: Kept) -> None:
    async def handler(ctx: Context, function: Callable[[], int]) -> int:
        return ctx.step("look", function)

    assert asyncio.run(handler(start(kept), lambda: 7)) == 7
    assert asyncio.run(handler(start(kept), never)) == 7


def test_a_name_of_a_step_is_used_once_in_a_start(ctx: Context, kept: Kept) -> None:
    ctx.step("pay", lambda: 1)

    with pytest.raises(StepError, match="'pay' was used before in this run"):
        ctx.step("pay", never)

    assert start(kept).step("pay", never) == 1


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00b", "\ud800", "x" * 201], ids=ascii)
def test_a_name_that_cannot_be_kept_is_refused(ctx: Context, name: str) -> None:
    with pytest.raises(StepError, match="1 to 200 printable characters"):
        ctx.step(name, never)


@pytest.mark.parametrize(
    "result",
    [pytest.param(object(), id="an object"), {1, 2}, Decimal("1.00"), {"a": b"bytes"}, {1: "a"}, "\ud800", 2**70],
    ids=ascii,
)
def test_a_result_that_cannot_be_kept_is_refused_with_the_steps_name(ctx: Context, kept: Kept, result: Any) -> None:
    with pytest.raises(StepError, match="the result of step 'look' is neither JSON nor bytes"):
        ctx.step("look", lambda: result)

    assert kept.steps == {}


def test_a_result_that_is_too_large_is_refused_with_its_size(ctx: Context, kept: Kept) -> None:
    with pytest.raises(StepError, match=rf"step 'pdf' has \d+ bytes, at most {MAX_STEP_BYTES} .* a reference"):
        ctx.step("pdf", lambda: b"x" * MAX_STEP_BYTES)

    assert kept.steps == {}
    assert len(start(kept).step("pdf", lambda: b"x" * (MAX_STEP_BYTES - 2))) == MAX_STEP_BYTES - 2


def test_a_run_that_is_another_processs_by_now_learns_it_at_its_next_step(ctx: Context, kept: Kept) -> None:
    kept.held = False

    with pytest.raises(LeaseLost):
        ctx.step("look", lambda: 1)


# --- pauses ---------------------------------------------------------------------------------------


def paused(ctx: Context, until: datetime) -> datetime:
    """Where a pause until then really ends."""
    with pytest.raises(Pause) as pause:
        ctx.sleep_until(until)
    return pause.value.until


def test_a_pause_ends_the_start_until_its_time_has_come(kept: Kept) -> None:
    until = NOW + timedelta(days=3)

    assert paused(start(kept), until) == until
    kept.clock = until - timedelta(seconds=1)
    assert paused(start(kept), until) == until
    kept.clock = until
    start(kept).sleep_until(until)


def test_a_pause_that_is_reckoned_from_the_present_does_not_move(kept: Kept) -> None:
    first = paused(start(kept), kept.clock + timedelta(days=3))
    kept.clock += timedelta(days=1)

    assert paused(start(kept), kept.clock + timedelta(days=3)) == first


def test_pauses_are_told_apart_by_their_order(kept: Kept) -> None:
    days = [NOW + timedelta(days=number) for number in (1, 2)]

    def handler(ctx: Context) -> None:
        for day in days:
            ctx.sleep_until(day)

    for day in days:
        with pytest.raises(Pause) as pause:
            handler(start(kept))
        assert pause.value.until == day
        kept.clock = day
    handler(start(kept))


def test_a_time_that_is_past_is_no_pause(ctx: Context) -> None:
    ctx.sleep_until(NOW - timedelta(days=400))
    ctx.sleep_until(NOW)


def test_a_pause_is_caught_by_no_except_exception(ctx: Context) -> None:
    def handler() -> None:
        try:
            ctx.sleep_until(NOW + timedelta(days=1))
        except Exception:
            pytest.fail("the pause was swallowed")

    with pytest.raises(Pause):
        handler()


def test_a_time_of_any_zone_is_the_moment_it_says(kept: Kept) -> None:
    until = datetime(2026, 6, 6, 9, 0, tzinfo=timezone(timedelta(hours=1)))

    assert paused(start(kept), until) == paused(start(kept), until) == datetime(2026, 6, 6, 8, 0, tzinfo=UTC)


def test_a_time_without_a_zone_is_refused(ctx: Context) -> None:
    with pytest.raises(ValueError, match="a time with a zone"):
        ctx.sleep_until(datetime(2026, 6, 6, 9, 0))  # noqa: DTZ001 - what is refused


def test_a_pause_of_more_than_a_year_is_refused(ctx: Context, kept: Kept) -> None:
    with pytest.raises(ValueError, match="366 days"):
        ctx.sleep_until(NOW + LONGEST_PAUSE + timedelta(seconds=1))

    assert kept.steps == {}
    assert paused(start(kept), NOW + LONGEST_PAUSE) == NOW + LONGEST_PAUSE


# --- once, is_stale -------------------------------------------------------------------------------


@pytest.mark.parametrize("mine", [True, False])
def test_whose_a_key_is_decides_what_is_kept(ctx: Context, kept: Kept, mine: bool) -> None:
    kept.mine = mine

    assert ctx.once("pay inv_1") is mine
    assert kept.asked == ["pay inv_1"]


@pytest.mark.parametrize("key", ["", "a\nb", "a\x00b", "\ud800", "x" * 201], ids=ascii)
def test_a_key_of_once_that_cannot_be_kept_is_refused(ctx: Context, kept: Kept, key: str) -> None:
    with pytest.raises(ValueError, match="1 to 200 printable characters"):
        ctx.once(key)

    assert kept.asked == []


@pytest.mark.parametrize("stale", [True, False])
def test_whether_an_event_is_stale_is_asked_when_it_is_needed(ctx: Context, kept: Kept, stale: bool) -> None:
    kept.stale = stale

    assert ctx.is_stale is stale
