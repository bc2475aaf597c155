"""Hisab's own recurring invoices are taken over: none of their due dates is billed twice, and none is left out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from handlers.errors import ProviderError
from handlers.providers.hisab.client import HisabClient
from handlers.providers.hisab.invoicing import HisabKeeping
from tests.conftest import SECRET
from tests.workers.given import Clock, only, rows
from tests.workers.schedule.given import ACTOR, KEY, Died, Network, dies_before, served
from workers.audit import audit
from workers.models import AuditEntry, Schedule
from workers.schedule import rhythm
from workers.schedule.schedules import find, preview
from workers.schedule.taking_over import Taken, TakingOver, take_over
from workers.schedule.tick import tick
from workers.settings import Settings, Source

BEGINNING = datetime(2026, 6, 5, 14, 0, tzinfo=UTC)
once = pytest.mark.parametrize("backend", ["embedded"], indirect=True)  # what the database has no part in
ITEM = {"description": "Monthly retainer", "quantity": 1, "unit_price": 10400, "tax_rate": 20}


@pytest.fixture
def api_url() -> Iterator[str]:
    """A sandbox of this test alone: what it keeps is taken over as a whole."""
    with served(rate_limit=10**9, clock=BEGINNING) as url:
        yield url


@pytest.fixture
def hisab(api_url: str) -> Iterator[HisabClient]:
    with HisabClient(api_key=KEY, api_url=api_url) as client:
        yield client


@pytest.fixture
def settings(settings: Settings, api_url: str) -> Settings:
    source = Source(provider="hisab", secrets=SECRET, api_key=KEY, api_url=api_url, timezone="Africa/Casablanca")
    return settings.model_copy(update={"sources": {"shop": source}})


@pytest.fixture
def clock() -> Clock:
    return Clock(BEGINNING)


@pytest.fixture
def work(engine: Engine, settings: Settings, clock: Clock, api_url: str, network: Network) -> Iterator[TakingOver]:
    with HisabClient(api_key=KEY, api_url=api_url, transport=network, max_wait=0, retries=0) as client:
        yield TakingOver(
            engine=engine,
            settings=settings,
            source="shop",
            keeping=HisabKeeping(client),
            actor=ACTOR,
            clock=clock,
        )


def keep(hisab: HisabClient, **fields: Any) -> str:
    """A recurring invoice that Hisab keeps; its id."""
    given: dict[str, Any] = {"customer_id": "cus_2b81fe", "frequency": "monthly", "items": [ITEM]}
    created = hisab.recurring_invoices.create(**{**given, "start_date": "2026-06-20", **fields})
    return str(created["id"])


def set_clock(api_url: str, clock: Clock, to: datetime) -> None:
    """Hisab's time and ours."""
    surface = api_url.removesuffix("/api/v1") + "/sandbox/clock"
    assert httpx.post(surface, json={"to": to.isoformat()}).is_success
    clock.now = to


def outcomes(taken: list[Taken]) -> list[str]:
    return [one.outcome for one in taken]


def test_a_schedule_is_paused_there_and_goes_on_here(work: TakingOver, hisab: HisabClient, settings: Settings) -> None:
    kept = keep(hisab, name="Retainer", auto_finalize=True, auto_send=True, days_until_due=15, end_date="2027-06-20")

    (taken,) = take_over(work)

    row = only(work.engine, Schedule)
    assert (taken.outcome, taken.schedule_id, taken.kept.id) == ("taken", row.id, kept)
    assert hisab.recurring_invoices.get(kept)["status"] == "paused"
    assert (row.status, row.reason, row.external_id) == ("active", None, f"hisab:{kept}")
    assert (row.name, row.customer_id, row.frequency) == ("Retainer", "cus_2b81fe", "monthly")
    assert (row.auto_finalize, row.auto_send, row.days_until_due, row.currency) == (True, True, 15, "MAD")
    assert (row.start_date, row.end_date) == (date(2026, 6, 20), date(2027, 6, 20))
    assert row.items == [
        {"description": "Monthly retainer", "quantity": "1", "unit_price": "10400.00", "tax_rate": "20"}
    ]
    assert row.next_run_at == rhythm.start_of_day(date(2026, 6, 20), "Africa/Casablanca")
    first = preview(settings, row, 1, BEGINNING)[0]
    assert (first.due_on, str(first.total)) == (date(2026, 6, 20), "12480.00")


def test_what_hisab_made_before_is_not_made_again_and_counts(
    work: TakingOver, hisab: HisabClient, api_url: str, clock: Clock, settings: Settings
) -> None:
    keep(hisab, max_occurrences=4)
    set_clock(api_url, clock, datetime(2026, 8, 1, tzinfo=UTC))
    assert len(list(hisab.invoices.list())) == 2

    list(take_over(work))

    days = [coming.due_on for coming in preview(settings, only(work.engine, Schedule), 9, clock.now)]
    assert days == [date(2026, 8, 20), date(2026, 9, 20)]


def test_the_last_day_of_a_month_goes_on_as_the_last_day(
    work: TakingOver, hisab: HisabClient, api_url: str, clock: Clock, settings: Settings
) -> None:
    keep(hisab, start_date="2026-08-31")
    set_clock(api_url, clock, datetime(2027, 2, 10, tzinfo=UTC))

    list(take_over(work))

    days = [coming.due_on for coming in preview(settings, only(work.engine, Schedule), 3, clock.now)]
    assert days == [date(2027, 2, 28), date(2027, 3, 31), date(2027, 4, 30)]


def test_another_next_run_date_that_somebody_chose_there_is_kept(
    work: TakingOver, hisab: HisabClient, settings: Settings, clock: Clock
) -> None:
    kept = keep(hisab, day_of_month=20)
    hisab.recurring_invoices.pause(kept)
    hisab.recurring_invoices.resume(kept, next_run_date="2026-07-03")

    list(take_over(work))

    days = [coming.due_on for coming in preview(settings, only(work.engine, Schedule), 2, clock.now)]
    assert days == [date(2026, 7, 3), date(2026, 8, 3)]


def test_what_is_paused_there_is_paused_here_and_what_has_ended_is_left(work: TakingOver, hisab: HisabClient) -> None:
    hisab.recurring_invoices.pause(keep(hisab))
    keep(hisab, start_date="2026-06-05", max_occurrences=1)  # due today, and so over at once
    assert [one["status"] for one in hisab.recurring_invoices.list(status="completed")] == ["completed"]

    taken = list(take_over(work))

    assert outcomes(taken) == ["paused"]
    assert (only(work.engine, Schedule).status, only(work.engine, Schedule).next_run_at) == ("paused", None)


def test_taking_over_twice_changes_nothing(work: TakingOver, hisab: HisabClient) -> None:
    keep(hisab)
    hisab.recurring_invoices.pause(keep(hisab, name="paused"))
    first = list(take_over(work))
    before = find(work.engine)

    second = list(take_over(work))

    assert sorted(outcomes(first)) == ["paused", "taken"]
    assert outcomes(second) == ["known", "known"]
    assert find(work.engine) == before


def test_a_dry_run_lists_and_changes_nothing(work: TakingOver, hisab: HisabClient) -> None:
    kept = keep(hisab)
    dry = TakingOver(**{**{name: getattr(work, name) for name in TakingOver.__slots__}, "dry_run": True})

    assert outcomes(list(take_over(dry))) == ["taken"]

    assert find(work.engine) == []
    assert hisab.recurring_invoices.get(kept)["status"] == "active"


def test_what_cannot_be_here_is_refused_with_the_reason_and_goes_on_there(work: TakingOver, hisab: HisabClient) -> None:
    refused = keep(hisab, auto_send=True)  # without auto_finalize, of which Hisab says nothing
    keep(hisab)

    taken = {one.kept.id: one for one in take_over(work)}

    assert taken[refused].outcome == "refused"
    assert "auto_send: needs auto_finalize" in taken[refused].reason
    assert hisab.recurring_invoices.get(refused)["status"] == "active"
    assert sorted(outcomes(list(taken.values()))) == ["refused", "taken"]


@once
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_death_at_any_call_leaves_every_due_date_billed_once(
    work: TakingOver, hisab: HisabClient, network: Network, api_url: str, clock: Clock, when: str, call: int
) -> None:
    """It is done again only days after the due date came: by then either Hisab has billed it, or we make up for it."""
    keep(hisab)
    setattr(network, when, dies_before(network, call))
    with pytest.raises(Died):
        list(take_over(work))
    network.heal()
    set_clock(api_url, clock, datetime(2026, 6, 25, tzinfo=UTC))

    list(take_over(work))
    made_here = len(tick(work.engine, now=clock.now))

    made_there = len(list(hisab.invoices.list()))
    assert made_here + made_there == 1
    row = only(work.engine, Schedule)
    assert (row.status, row.next_run_at) == ("active", rhythm.start_of_day(date(2026, 7, 20), "Africa/Casablanca"))
    assert audit(work.engine, clock).holds


def test_hisab_bills_between_our_look_and_its_pause(
    work: TakingOver, hisab: HisabClient, network: Network, api_url: str, clock: Clock
) -> None:
    keep(hisab)

    def due_meanwhile(number: int) -> None:
        if network.calls[-1] == "POST pause":
            set_clock(api_url, clock, datetime(2026, 6, 21, tzinfo=UTC))

    network.before = due_meanwhile

    list(take_over(work))

    assert len(list(hisab.invoices.list())) == 1
    assert tick(work.engine, now=clock.now) == []
    assert only(work.engine, Schedule).next_run_at == rhythm.start_of_day(date(2026, 7, 20), "Africa/Casablanca")


def test_an_api_that_refuses_ends_it_and_it_goes_on_when_done_again(
    work: TakingOver, hisab: HisabClient, network: Network
) -> None:
    for number in range(3):
        keep(hisab, name=str(number))
    fatal = iter([True])

    def refuse(_: int) -> httpx.Response | None:
        return httpx.Response(503) if network.calls[-1] == "POST pause" and next(fatal, False) else None

    network.before = refuse
    with pytest.raises(ProviderError):
        list(take_over(work))

    assert sorted(outcomes(list(take_over(work)))) == ["taken", "taken", "taken"]
    assert {row.status for row in rows(work.engine, Schedule)} == {"active"}


def test_it_is_written_down_who_took_over_what(work: TakingOver, hisab: HisabClient) -> None:
    kept = keep(hisab)

    list(take_over(work))

    entries = rows(work.engine, AuditEntry)
    assert {(entry.actor, entry.action, entry.detail["kept"]) for entry in entries} == {
        (ACTOR, "schedules.take_over", kept)
    }
