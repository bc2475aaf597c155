"""The same commands on the database and over the API of a receiver that runs: what they print is the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Engine, update

from tests.receiver.cli.conftest import Billhook
from tests.receiver.cli.terminal import Ended
from tests.receiver.cli.test_deliveries import attempted, published
from tests.receiver.cli.test_deliveries import ended as failed
from tests.receiver.cli.test_schedules import GOOD
from tests.receiver.edge import Edge
from tests.workers.given import NOW, change, endpoint, only, rows
from tests.workers.history import ended, followed
from workers import api_keys, database
from workers.app import Runtime
from workers.audit_log import note
from workers.leases import utcnow
from workers.models import ApiKey, AuditEntry, Delivery, Endpoint, EventRow, HandlerRun, Schedule

pytestmark = [
    pytest.mark.usefixtures("configured"),
    pytest.mark.parametrize("backend", ["embedded"], indirect=True),  # the API's own tests are on both
]
both = pytest.mark.parametrize("over", ["database", "api"])

Over = Callable[..., Ended]


@pytest.fixture
def api(billhook: Billhook, edge: Edge, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Over:
    """Run a command over the API, with a key that may do everything."""
    made = api_keys.create(runtime.engine, "from elsewhere", ("full",), actor="test", now=utcnow())
    monkeypatch.setenv("BILLHOOK_KEY", made.key)
    return lambda *arguments: billhook("--url", f"http://127.0.0.1:{edge.port}", *arguments)


@pytest.fixture
def run(over: str, billhook: Billhook, api: Over) -> Over:
    """Run a command where the test says."""
    return api if over == "api" else billhook


@pytest.fixture
def same(billhook: Billhook, api: Over) -> Over:
    """Run a command on both, and check that they end and print alike; how they ended."""

    def compare(*arguments: str) -> Ended:
        here, elsewhere = billhook(*arguments), api(*arguments)
        assert here.status == 0, here.err
        assert (elsewhere.status, elsewhere.out, elsewhere.err) == (here.status, here.out, here.err)
        return here

    return compare


# --- looking --------------------------------------------------------------------------------------


def test_events_are_listed_alike(same: Over, engine: Engine) -> None:
    assert same("events").err == "no events\n"
    events = [*ended(engine, 2), *ended(engine, run=None)]

    assert [one["id"] for one in same("events", "--json").objects] == sorted(events, reverse=True)
    assert len(same("events", "--status", "dead", "--type", "invoice.*").out.splitlines()) == 3
    assert len(same("events", "--limit", "1").out.splitlines()) == 2


def test_a_list_of_many_pages_is_as_long_as_it_is_asked_for(same: Over, engine: Engine) -> None:
    ended(engine, 450)

    assert len(same("events", "--limit", "401", "--json").objects) == 401
    assert len(same("events", "--limit", "1000", "--json").objects) == 450


def test_all_of_an_event_is_shown_alike(same: Over, engine: Engine) -> None:
    (event_id,) = ended(engine, run="succeeded", headers='{"x-a": "1"}', organization="org_1", conflicts=2)
    followed(engine, [event_id], delivery="waiting")
    change(engine, HandlerRun, duration_ms=12)

    shown = same("event", event_id).out

    assert "the last start took 12 ms" in shown

    assert "  step pdf: 2 bytes" in shown
    assert "waiting, 1 attempt, next 2026-06-05 14:00:00Z" in shown
    assert json.loads(same("event", event_id, "--body").out)["event"] == "invoice.paid"


@pytest.mark.parametrize("status", ["waiting", "running"])
def test_a_run_that_has_not_ended_is_shown_alike(status: str, same: Over, engine: Engine) -> None:
    (event_id,) = ended(engine)
    change(engine, HandlerRun, status=status, ended_at=None, ring_at=NOW)

    assert "2026-06-05 14:00:00Z" in same("event", event_id).out.split("run run_")[1]


def test_a_body_that_is_no_text_is_shown_alike(same: Over, engine: Engine) -> None:
    (event_id,) = ended(engine, run=None, body=bytes(range(100, 200)))

    assert "64 65 66" in same("event", event_id).out


def test_deliveries_are_shown_alike(same: Over, api: Over, runtime: Runtime, engine: Engine) -> None:
    to = endpoint(runtime)
    first, second = published(engine, 2)
    failed(engine, first)
    attempted(engine, first, status=500, response=b"no \xff such")
    change(engine, Delivery, prior=1)
    with database.write(engine) as connection:
        connection.execute(update(Delivery).where(Delivery.id == second).values(status="running"))

    assert [line.split()[0] for line in same("deliveries", "list").out.splitlines()[1:]] == [second, first]
    assert [one["id"] for one in api("deliveries", "list", "--json").objects] == [second, first]
    assert len(same("deliveries", "list", "--endpoint", to, "--status", "exhausted").out.splitlines()) == 2
    assert "no \\xff such" in same("deliveries", "show", first).out
    assert "leased    until" in same("deliveries", "show", second).out


def test_endpoints_are_shown_alike(same: Over, runtime: Runtime, engine: Engine) -> None:
    own = endpoint(runtime, "receipt.*", headers={"x-token": "s3cret"}, rate=7, signing="v1,v1a", schedule=(0.0, 5.0))
    endpoint(runtime)
    change(engine, Endpoint, failures=3, failing_since=NOW, held_until=NOW)

    assert same("endpoints", "list").out.splitlines()[1].startswith(own)
    shown = same("endpoints", "show", own).out
    assert "7 a second" in shown
    assert "(the setting)" in shown
    assert "3 since 2026-06-05 14:00:00Z" in shown
    assert "s3cret" not in shown


def test_how_things_are_is_told_alike(same: Over, engine: Engine) -> None:
    ended(engine, 2, at=utcnow() - timedelta(minutes=5))

    assert "2 that nobody has acknowledged" in same("stats").out
    assert "failing" in same("sources").out
    (source,) = same("sources").out.splitlines()[1:]
    assert source.startswith("shop")


def test_runs_are_listed_alike(same: Over, engine: Engine) -> None:
    ended(engine)
    (event_id,) = ended(engine, run="succeeded", handler="ledger.book")

    (one,) = same("runs", "--handler", "ledger.book", "--status", "succeeded", "--json").objects
    assert one["event_id"] == event_id
    assert len(same("runs", "--since", "2026-06-01").out.splitlines()) == 3
    assert same("runs", "--event", "evt_1").err == "no runs\n"


def test_the_audit_log_is_listed_alike(same: Over, engine: Engine) -> None:
    with database.write(engine) as connection:
        note(connection, "ann@desk", "replay", {"asked": {"status": "dead"}, "said": "é"}, NOW)

    assert same("audit-log", "--actor", "ann@desk", "--json").objects[0]["detail"]["said"] == "é"
    assert "ann@desk" in same("audit-log").out


def test_keys_are_listed_alike(same: Over, engine: Engine) -> None:
    change(engine, ApiKey, created_at=NOW, last_used_at=utcnow())

    assert "from elsewhere" in same("keys", "list").out


# --- changing -------------------------------------------------------------------------------------


@both
def test_events_are_replayed(run: Over, engine: Engine) -> None:
    ended(engine, 3)
    ended(engine, run="succeeded")
    asked = ("replay", "--status", "dead", "--handler", "shop.receipt", "--limit", "2")

    assert run(*asked, "--dry-run").out == "would replay 2 events: 2 runs\n"
    assert run(*asked, "--yes").out.startswith("replayed 2 events: 2 runs; the last is due ")
    assert sorted(row.status for row in rows(engine, EventRow)) == ["dead", "processed", "waiting", "waiting"]
    again = run("replay", "--type", "*", "--handler", "shop.receipt", "--yes", "--json").objects
    assert again == [{"events": 2, "runs": 2, "new": 0, "waiting": 2, "dry_run": False}]


@both
def test_dead_events_are_acknowledged(run: Over, engine: Engine) -> None:
    first, *_ = ended(engine, 3)

    assert run("acknowledge", "--event", first, "--dry-run").out == "would acknowledge 1 dead event\n"
    assert run("acknowledge", "--type", "invoice.*", "--yes").out == "acknowledged 3 dead events\n"
    assert run("acknowledge", "--type", "invoice.*", "--yes").out == "nothing to acknowledge\n"
    assert all(row.acknowledged_at for row in rows(engine, EventRow))


@both
def test_an_endpoint_is_set_up_changed_and_taken_out(run: Over, engine: Engine) -> None:
    made = run("endpoints", "add", "https://1.1.1.1/h", "--type", "receipt.*", "--header", "X-Token: a", "--json")
    (made_as,) = made.objects
    made_id = made_as["id"]
    assert set(made_as) == {"id", "url", "secret", "public_key"}
    assert made_as["secret"].startswith("whsec_")

    changed = run("endpoints", "update", made_id, "--rate", "5", "--description", "é", "--reset", "header")
    assert changed.out == f"{made_id} is changed: rate, description, headers\n"
    row = only(engine, Endpoint)
    assert (row.url, row.event_types, row.rate, row.description) == ("https://1.1.1.1/h", ["receipt.*"], 5, "é")

    rotated = run("endpoints", "rotate", made_id, "--overlap", "0").out.splitlines()
    assert rotated[1] == "what signed before does so no more"
    assert run("endpoints", "disable", made_id, "--reason", "moved").out == f"{made_id} is disabled\n"
    assert run("endpoints", "disable", made_id).out == f"{made_id} was disabled before\n"
    change(engine, Endpoint, failures=4)
    assert run("endpoints", "enable", made_id).out == f"{made_id} is enabled; failures that are forgotten: 4\n"
    assert run("endpoints", "test", made_id).out.endswith(f" is on its way to {made_id}\n")
    assert only(engine, Delivery).endpoint_id == made_id


@both
def test_what_failed_or_is_missing_is_sent(run: Over, runtime: Runtime, engine: Engine) -> None:
    published(engine, 2)
    to = endpoint(runtime)
    first, second = published(engine, 2)
    failed(engine, first, second)
    since = ("--since", "2026-06-05")

    assert run("deliveries", "retry", first).out == "1 delivery due now\n"
    assert run("endpoints", "recover", to, *since, "--dry-run").out == f"would send 1 delivery to {to} again\n"
    assert run("endpoints", "recover", to, *since, "--yes").out == f"1 delivery to {to} is due again\n"
    assert run("endpoints", "recover", to, *since, "--yes").out == f"nothing failed at {to} in that time\n"
    assert run("endpoints", "missing", to, *since, "--yes").out == f"2 messages to {to} are due\n"
    assert [row.status for row in rows(engine, Delivery)] == ["waiting"] * 4


@both
def test_a_schedule_lives(run: Over, engine: Engine) -> None:
    added = run("schedules", "add", *GOOD, "--name", "Hosting", "--start", "2026-01-28", "--max-occurrences", "90")
    schedule = added.out.strip()
    assert only(engine, Schedule).id == schedule, added.err

    updated = run("schedules", "update", schedule, "--name", "é", "--reset", "max-occurrences", "--json").objects[0]
    assert (updated["name"], updated["max_occurrences"]) == ("é", None)
    assert run("schedules", "pause", schedule, "--json").objects[0]["status"] == "paused"
    assert "active" in run("schedules", "resume", schedule).out
    assert run("schedules", "retry", schedule).complaint().startswith("INVALID_STATE: ")
    assert "cancelled" in run("schedules", "cancel", schedule, "--yes").out
    assert "INVALID_STATE: " in run("schedules", "pause", schedule).complaint()
    assert run("schedules", "delete", schedule, "--yes").out == f"{schedule} is deleted\n"
    assert rows(engine, Schedule) == []


def test_schedules_are_shown_alike(same: Over, billhook: Billhook, engine: Engine) -> None:
    assert same("schedules", "list").err == "no schedules; add one with `billhook schedules add`\n"
    first, second = (billhook("schedules", "add", *GOOD, "--days-until-due", "5").out.strip() for _ in range(2))
    change(engine, Schedule, created_at=NOW)

    assert [one["id"] for one in same("schedules", "list", "--json").objects] == [first, second]
    assert len(same("schedules", "list", "--customer", "cus_1", "--limit", "1").out.splitlines()) == 2
    assert same("schedules", "list", "--search", "nobody").err == "no such schedules\n"
    assert "1300.00" in same("schedules", "show", first).out
    assert len(same("schedules", "preview", first, "--next", "3").out.splitlines()) == 4
    assert "2027-02-05" not in same("schedules", "generate", first, "--dry-run").out
    assert "2027-02-06" in same("schedules", "generate", first, "--dry-run", "--issue-date", "2027-02-01").out
    assert same("schedules", "history", first).err == "nothing was due yet\n"


def test_a_schedule_begins_today_where_its_source_is(api: Over, engine: Engine) -> None:
    assert api("schedules", "add", *GOOD).status == 0
    assert only(engine, Schedule).start_date <= (utcnow() + timedelta(days=1)).date()
    said = api("schedules", "add", *GOOD, "--dry-run").complaint(2)
    assert said.startswith("--dry-run: the API cannot say")


@both
def test_a_key_is_made_and_ended(over: str, run: Over, api: Over, engine: Engine) -> None:
    (made,) = run("keys", "create", "--name", "ci", "--scopes", "events:read", "--expires", "90d", "--json").objects

    assert made["scopes"] == ["events:read"]
    assert run("keys", "revoke", made["id"], "--yes").out == f"{made['id']} is revoked\n"
    assert {row.name: row.revoked_at is not None for row in rows(engine, ApiKey)} == {
        "from elsewhere": False,
        "ci": True,
    }
    actors = {row.actor for row in rows(engine, AuditEntry) if row.action == "keys.revoke"}
    assert all("from elsewhere" in actor for actor in actors) is (over == "api")


# --- what is refused ------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["event", "evt_1"], "there is no event evt_1"),
        (["deliveries", "show", ".."], "there is no delivery .."),
        (["endpoints", "disable", ".."], "there is no endpoint .."),
        (["schedules", "show", "sch_1"], "NOT_FOUND"),
        (["keys", "revoke", "key_1", "--yes"], "there is no key key_1"),
        (["replay", "--event", "evt_1", "--yes"], "there is no event evt_1"),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, list) else "",
)
def test_what_is_not_there_is_named(command: list[str], named: str, run: Over) -> None:
    assert named in run(*command).complaint()


@both
def test_what_cannot_be_is_a_wrong_use(run: Over) -> None:
    assert "url" in run("endpoints", "add", "ftp://example.com").complaint(2).lower()
    assert "rate" in run("endpoints", "add", "https://1.1.1.1/", "--rate", "-1").complaint(2)
    assert "--since: 'soon'" in run("runs", "--since", "soon").complaint(2)


def test_a_key_without_the_scope_hears_which(api: Over, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = api_keys.create(engine, "narrow", ("events:read",), actor="test", now=utcnow())
    monkeypatch.setenv("BILLHOOK_KEY", narrow.key)

    assert api("events").status == 0
    said = api("endpoints", "list").complaint()
    assert said.startswith("FORBIDDEN: the key 'narrow' lacks endpoints:read")
    assert narrow.key not in said


def test_a_key_that_is_revoked_is_told_so(api: Over, engine: Engine) -> None:
    change(engine, ApiKey, revoked_at=NOW)

    assert api("events").complaint().endswith(": the key is missing, wrong, expired or revoked")


def test_more_than_the_api_replays_at_once_is_refused_before_anything_is_done(
    api: Over, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended(engine, 4)
    monkeypatch.setattr("receiver.cli.remote.events.MOST", 3)

    assert "say --limit 3" in api("replay", "--status", "dead", "--yes").complaint(2)
    assert "3 events at once" in api("replay", "--status", "dead", "--limit", "4", "--yes").complaint(2)
    assert {row.status for row in rows(engine, EventRow)} == {"dead"}
    assert api("acknowledge", "--type", "*", "--yes").out == "acknowledged 4 dead events\n"
