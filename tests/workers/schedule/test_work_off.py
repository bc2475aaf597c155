"""Working off what is due at a source: within the limit of its API, and many processes at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import httpx
import pytest
from prometheus_client import REGISTRY
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from handlers.providers.hisab.client import HisabClient
from tests.services import free_port
from tests.workers.given import NOW, Clock, rows, rung
from tests.workers.schedule.given import (
    DAY,
    KEY,
    Network,
    OneClient,
    added,
    away,
    made,
    of_another_process,
    of_shop,
    planned,
    refusing,
    reported,
    served,
    several,
)
from workers.app import GENERATE, Runtime
from workers.models import EventRow, Occurrence
from workers.schedule import generate as generating
from workers.schedule.generate import work_off
from workers.schedule.generator import Generator
from workers.schedule.tick import tick
from workers.settings import Source


def limited(generator: Generator, calls_a_minute: int) -> Generator:
    """The generator of a source that makes so many calls a minute."""
    return replace(generator, settings=of_shop(generator.settings, calls_a_minute=calls_a_minute))


def bucket(generator: Generator) -> dict[str, float]:
    """What is kept of the budget of the key."""
    (name,) = generator.redis.scan_iter(f"{generator.settings.redis_prefix}budget:*")
    kept = generator.redis.hgetall(name)
    return {field.decode(): float(value) for field, value in kept.items()}  # type: ignore[union-attr]


def a_minute_passes(generator: Generator) -> None:
    """For the budget: what it remembers was a minute earlier."""
    (name,) = generator.redis.scan_iter(f"{generator.settings.redis_prefix}budget:*")
    for field, value in bucket(generator).items():
        if field in {"at", "held"}:
            generator.redis.hset(name, field, round(value - 60_000))


def waits() -> float:
    return REGISTRY.get_sample_value("billhook_budget_waits_total", {"source": "shop"}) or 0.0


def statuses(generator: Generator) -> list[str]:
    return [row.status for row in rows(generator.engine, Occurrence)]


# The limit


def test_when_the_budget_is_spent_the_rest_waits_and_nothing_is_given_up(
    generator: Generator, books: HisabClient, customer: str, network: Network
) -> None:
    several(generator, customer, 3)
    slow, before = limited(generator, 8), waits()

    shift = work_off(slow, "shop")

    assert (len(shift.events), shift.more, waits() - before) == (1, False, 1)
    assert len(made(books, customer)) == 1
    left = [row for row in rows(generator.engine, Occurrence) if row.status == "waiting"]
    assert [(row.starts, row.attempts, row.error, row.ring_at == row.next_attempt_at) for row in left] == [
        (0, 0, None, True)
    ] * 2

    assert work_off(slow, "shop").events == []
    assert waits() - before == 2
    for _ in range(2):
        a_minute_passes(generator)
        assert len(work_off(slow, "shop").events) == 1
    assert len(made(books, customer)) == 3


def test_the_sweep_rings_for_what_waits_for_the_budget(runtime: Runtime, generator: Generator, customer: str) -> None:
    several(generator, customer, 2)
    work_off(limited(generator, 8), "shop")

    assert generating.sweep(generator) == 1

    assert rung(runtime, "schedules") == [(GENERATE, ["shop"])]


def test_an_invoice_takes_as_many_calls_as_it_makes(generator: Generator, customer: str, network: Network) -> None:
    # A tenth of 40 at once: two drafts, or one that is finalized and sent.
    several(generator, customer, 3, auto_finalize=False, auto_send=False)

    work_off(limited(generator, 40), "shop")

    assert statuses(generator).count("generated") == 2


def test_nothing_due_takes_nothing_of_the_budget(generator: Generator, customer: str) -> None:
    added(generator.engine, generator.settings, customer_id=customer)

    assert work_off(generator, "shop") == generating.Shift([], more=False)

    assert list(generator.redis.scan_iter(f"{generator.settings.redis_prefix}budget:*")) == []


def test_another_source_with_the_same_key_shares_its_budget(generator: Generator, customer: str) -> None:
    shop = generator.settings.sources["shop"].model_copy(update={"calls_a_minute": 8})
    other = shop.model_copy(update={"timezone": "Africa/Casablanca"})
    foreign = Source(provider="hisab", secrets=shop.secrets, api_key="hisab_another_key", calls_a_minute=8)
    sources = {"shop": shop, "other": other, "foreign": foreign}
    both = replace(generator, settings=generator.settings.model_copy(update={"sources": sources}))
    for source in sources:
        several(both, customer, 1, source=source)

    events = [work_off(both, source).events for source in sources]

    assert [len(found) for found in events] == [1, 0, 1]


def test_what_the_api_says_of_its_limit_is_learnt(generator: Generator, customer: str, network: Network) -> None:
    with served(rate_limit=70) as url, HisabClient(api_key=KEY, api_url=url, max_wait=0) as client:
        its_own = client.customers.create(name="Rif", type="b2c")["id"]
        planned(generator, its_own)

        work_off(replace(generator, clients=OneClient(generator.settings, client)), "shop")

        said = client.rate_limit
    assert said is not None
    assert (said.limit, statuses(generator)) == (70, ["generated"])
    kept = bucket(generator)
    assert kept["limit"] == 70
    assert "held" not in kept
    assert kept["tokens"] <= said.remaining


def test_what_is_left_by_others_is_all_there_is(generator: Generator, customer: str) -> None:
    # Whoever else uses the key has used up most of this minute, which stands still here.
    with (
        served(rate_limit=70, now=lambda: 1_780_000_000.0) as url,
        HisabClient(api_key=KEY, api_url=url, max_wait=0) as client,
    ):
        its_own = client.customers.create(name="Rif", type="b2c")["id"]
        several(generator, its_own, 3)
        for _ in range(63):
            client.customers.get(its_own)

        work_off(replace(generator, clients=OneClient(generator.settings, client)), "shop")

    # Six were left: four for an invoice, and two do not make another.
    assert sorted(statuses(generator)) == ["generated", "waiting", "waiting"]
    assert bucket(generator)["tokens"] < 4
    assert {row.attempts for row in rows(generator.engine, Occurrence) if row.status == "waiting"} == {0}


def test_who_is_told_to_wait_holds_everybody_off(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    several(generator, customer, 3)
    network.before = lambda _: refusing("RATE_LIMIT_EXCEEDED", 429, Retry_After="30")
    before = waits()

    with of_another_process(generator) as other:
        assert work_off(generator, "shop") == generating.Shift([], more=False)
        network.heal()
        assert work_off(other, "shop") == generating.Shift([], more=False)

    assert (len(network.calls), waits() - before) == (1, 2)
    (turned_away,) = [row for row in rows(generator.engine, Occurrence) if row.attempts]
    assert (turned_away.status, (turned_away.next_attempt_at - NOW).total_seconds()) == ("waiting", 30.0)
    a_minute_passes(generator)
    clock.turn(DAY)
    assert len(work_off(generator, "shop").events) == 3
    assert len(made(books, customer)) == 3


def test_without_redis_they_are_made_all_the_same(generator: Generator, books: HisabClient, customer: str) -> None:
    several(generator, customer, 2)
    nowhere = Redis(port=free_port(), retry=Retry(NoBackoff(), 0))
    with_none = replace(limited(generator, 1), redis=nowhere)

    assert len(work_off(with_none, "shop").events) == 2

    assert len(made(books, customer)) == 2
    nowhere.close()


# Setbacks


def plenty(generator: Generator) -> Generator:
    return limited(generator, 10**6)


@pytest.mark.parametrize(
    "answer",
    [away, lambda _: refusing("DOWN", 503), lambda _: refusing("UNAUTHORIZED", 401), lambda _: httpx.Response(200)],
    ids=["no answer", "503", "401", "out of shape"],
)
def test_three_setbacks_in_a_row_end_the_shift(
    generator: Generator, customer: str, network: Network, answer: Callable[[int], httpx.Response]
) -> None:
    several(generator, customer, 5)
    network.before = answer

    assert work_off(plenty(generator), "shop") == generating.Shift([], more=False)

    assert sorted(row.attempts for row in rows(generator.engine, Occurrence)) == [0, 0, 1, 1, 1]
    assert set(statuses(generator)) == {"waiting"}


def test_an_invoice_in_between_begins_the_count_anew(generator: Generator, customer: str, network: Network) -> None:
    several(generator, customer, 7)
    turns = 0

    def befall(_: int) -> httpx.Response | None:
        nonlocal turns
        turns += network.calls[-1].startswith("GET cus_")
        return None if turns == 3 else refusing("DOWN", 503)

    network.before = befall
    work_off(plenty(generator), "shop")

    # Two setbacks, an invoice, three setbacks.
    assert turns == 6
    assert statuses(generator).count("generated") == 1
    assert sorted(row.attempts for row in rows(generator.engine, Occurrence)) == [0, 1, 1, 1, 1, 1, 1]


def test_a_refusal_is_no_setback(generator: Generator, customer: str, network: Network) -> None:
    several(generator, customer, 5)
    network.before = lambda _: refusing("NO")

    work_off(plenty(generator), "shop")

    assert statuses(generator) == ["failed"] * 5


# Time and processes


def test_when_its_time_is_up_it_says_that_there_is_more(
    generator: Generator, customer: str, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    several(generator, customer, 2)
    monkeypatch.setattr(generating, "SLICE", 0.0)

    assert work_off(generator, "shop") == generating.Shift([], more=True)

    assert network.calls == []
    assert set(statuses(generator)) == {"waiting"}


@pytest.fixture
def _own_generator(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generating, "_generator", lambda: generator)


@pytest.mark.usefixtures("_own_generator")
def test_who_has_more_to_do_rings_for_it(
    runtime: Runtime, generator: Generator, customer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    several(generator, customer, 1)

    generating.generate_task(["shop"])
    assert rung(runtime, "schedules") == []

    monkeypatch.setattr(generating, "SLICE", 0.0)
    generating.generate_task(["shop"])
    assert rung(runtime, "schedules") == [(GENERATE, ["shop"])]


def test_what_is_due_elsewhere_is_left_alone(generator: Generator, customer: str, network: Network) -> None:
    several(generator, customer, 1)

    assert work_off(generator, "elsewhere") == generating.Shift([], more=False)

    assert (network.calls, statuses(generator)) == ([], ["waiting"])


def test_processes_that_work_off_one_source_make_each_invoice_once(
    generator: Generator, books: HisabClient, customer: str
) -> None:
    count, processes = 40, 4
    for number in range(count // 2):  # of each schedule two due dates
        added(generator.engine, generator.settings, customer_id=customer, frequency="weekly", name=str(number))
    generator.clock.turn(7 * DAY)  # type: ignore[attr-defined]
    assert len(tick(generator.engine, now=generator.clock())) == count
    barrier = threading.Barrier(processes)

    def work(own: Generator) -> list[str]:
        barrier.wait(10)
        events: list[str] = []
        while "waiting" in statuses(own):
            events += work_off(own, "shop").events
        return events

    with ExitStack() as stack, ThreadPoolExecutor(processes) as threads:
        own = [stack.enter_context(of_another_process(plenty(generator))) for _ in range(processes)]
        events = [event for found in threads.map(work, own) for event in found]

    assert statuses(generator) == ["generated"] * count
    invoices = {row.id: row.invoice_id for row in rows(generator.engine, Occurrence)}
    assert {one["internal_notes"]: one["id"] for one in made(books, customer)} == {
        f"billhook:{occurrence}": invoice for occurrence, invoice in invoices.items()
    }
    assert len(made(books, customer)) == len(set(invoices.values())) == count
    assert sorted(events) == [row.id for row in rows(generator.engine, EventRow)]
    assert len(reported(generator)) == count
    assert {(row.starts, row.attempts) for row in rows(generator.engine, Occurrence)} == {(1, 1)}


# What is counted of it


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("billhook_occurrences_total", {"source": "shop", "outcome": outcome}) or 0.0


def delayed() -> float:
    return REGISTRY.get_sample_value("billhook_occurrence_delay_seconds_count", {"source": "shop"}) or 0.0


def test_what_becomes_of_due_dates_is_counted_by_source(generator: Generator, customer: str, network: Network) -> None:
    generated, postponed, delays = counted("generated"), counted("postponed"), delayed()

    several(generator, customer, 1)
    work_off(generator, "shop")
    network.before = away
    several(generator, customer, 1)
    work_off(generator, "shop")

    assert (counted("generated"), counted("postponed"), delayed()) == (generated + 1, postponed + 1, delays + 1)
