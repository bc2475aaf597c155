from __future__ import annotations

import os
import pty
import pwd
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from tests.handlers.loaded import nothing_loaded, written
from tests.receiver.cli.conftest import Billhook
from tests.receiver.cli.terminal import COMMAND, run, running
from tests.workers.given import NOW, only, received, rows
from tests.workers.history import ended, followed
from tests.workers.test_replay import replayed, waits_for_a_lock
from workers import database
from workers.audit import audit
from workers.errands import BATCH
from workers.leases import utcnow
from workers.models import AuditEntry, EventRow, HandlerRun

pytestmark = pytest.mark.usefixtures("configured")
once = pytest.mark.parametrize("backend", ["embedded"], indirect=True)  # where one database is as good as the other


SHOP = """
from handlers import on

@on("invoice.paid")
def receipt(event, ctx): ...

@on("invoice.*", when=lambda event: False)
def never(event, ctx): ...

@on("customer.created", name="shop.receipt")
def of_all_runs(event, ctx): ...
"""


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module of handlers that the environment names; one of them has the name that runs have here."""
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.setenv("BILLHOOK_HANDLERS", "my_shop.py")
    with nothing_loaded():
        yield written(tmp_path / "my_shop.py", SHOP)


def statuses(engine: Engine) -> list[str]:
    return [row.status for row in rows(engine, EventRow)]


# --- replay ---------------------------------------------------------------------------------------


def test_dead_events_are_replayed_and_counted(billhook: Billhook, engine: Engine) -> None:
    ended(engine, 3)
    ended(engine, run="succeeded")

    ended_so = billhook("replay", "--status", "dead", "--yes")

    assert ended_so.status == 0, ended_so.err
    assert re.fullmatch(r"replayed 3 events: 3 runs; the last is due [0-9-]+ [0-9:]+Z\n", ended_so.out)
    assert sorted(statuses(engine)) == ["processed", "waiting", "waiting", "waiting"]
    entry = only(engine, AuditEntry)
    assert entry.actor == f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"
    assert entry.detail["asked"] == {"status": "dead", "rate": 50.0}


@once
def test_a_user_without_a_name_is_written_down_by_number(
    billhook: Billhook, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    ended(engine)
    billhook("replay", "--status", "dead", "--yes")

    assert only(engine, AuditEntry).actor == f"{os.getuid()}@{socket.gethostname()}"


def test_a_replay_is_told_as_json(billhook: Billhook, engine: Engine) -> None:
    ended(engine, 3)
    ended(engine, status="waiting", ring_at=NOW, run="succeeded")

    asked = ("replay", "--type", "*", "--limit", "2", "--json")

    assert billhook(*asked, "--dry-run").objects == [{"events": 2, "runs": 2, "new": 0, "waiting": 0, "dry_run": True}]
    assert billhook(*asked, "--yes").objects == [{"events": 2, "runs": 2, "new": 0, "waiting": 0, "dry_run": False}]
    assert billhook(*asked, "--yes").objects == [{"events": 2, "runs": 2, "new": 0, "waiting": 2, "dry_run": False}]
    assert billhook(*asked, "--yes").objects == [{"events": 0, "runs": 0, "new": 0, "waiting": 4, "dry_run": False}]


def test_a_dry_run_changes_nothing(billhook: Billhook, engine: Engine) -> None:
    ended(engine)
    before = rows(engine, EventRow), rows(engine, HandlerRun)

    told = billhook("replay", "--status", "dead", "--dry-run")

    assert (told.status, told.out) == (0, "would replay 1 event: 1 run\n"), told.err
    assert (rows(engine, EventRow), rows(engine, HandlerRun), rows(engine, AuditEntry)) == (*before, [])


def test_where_nothing_is_to_be_replayed_it_is_said_and_why(billhook: Billhook, engine: Engine) -> None:
    assert billhook("replay", "--type", "*", "--yes").out == "nothing to replay\n"
    ended(engine)
    billhook("replay", "--type", "*", "--yes")

    assert billhook("replay", "--type", "*", "--yes").out == "nothing to replay; 1 run not ended and left alone\n"


def test_events_are_replayed_by_id_and_a_wrong_one_is_named(billhook: Billhook, engine: Engine) -> None:
    first, second, _ = ended(engine, 3)

    assert billhook("replay", "--event", first, "--event", "evt_1", "--yes").complaint() == "there is no event evt_1"
    assert replayed(engine) == []
    billhook("replay", "--event", first, "--event", second, "--yes")
    assert replayed(engine) == [first, second]


@once
@pytest.mark.parametrize(
    ("option", "meant"),
    [
        (["--since", "7d"], "bc"),
        (["--since", "36h"], "c"),
        (["--since", "90m"], "c"),
        (["--until", "2h"], "ab"),
        (["--since", "2020-01-01", "--until", "2020-01-03"], "a"),
        (["--until", "2020-01-02"], ""),
        (["--until", "2020-01-02T12:00:01"], "a"),
        (["--until", "2020-01-02T12:00:01Z"], "a"),
        (["--until", "2020-01-02T12:00:01+01:00"], ""),
        (["--source", "shop"], "abc"),
        (["--type", "invoice.*"], "abc"),
        (["--type", "x[/b]y"], ""),
        (["--handler", "shop.receipt"], "abc"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else None,
)
def test_events_are_chosen(option: list[str], meant: str, billhook: Billhook, engine: Engine) -> None:
    ages = {"a": datetime(2020, 1, 2, 12, tzinfo=UTC), "b": utcnow() - timedelta(days=3), "c": utcnow()}
    there = {name: ended(engine, at=at - timedelta(hours=1 if name == "c" else 0)) for name, at in ages.items()}

    assert billhook("replay", *option, "--yes", "--rate", "1000").status == 0

    assert replayed(engine) == sorted(event_id for name in meant for event_id in there[name])


@once
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["replay"], "say which events: --event, --type, --source, --since, --until, --status or --handler"),
        (["replay", "--yes", "--rate", "10"], "say which events"),
        (["replay", "--status", "dead"], "no terminal to ask at: say --yes to go ahead, or --dry-run to see how many"),
        (["replay", "--status", "waiting"], "--status: 'waiting' is none of dead, ignored, processed"),
        (["replay", "--since", "yesterday"], "--since: 'yesterday' is not a date"),
        (["replay", "--until", "2026-02-30"], "--until: '2026-02-30' is not a date"),
        (["replay", "--since", "99999999999d"], "--since: '99999999999d' is not a date"),
        (["replay", "--since", "-1d"], "--since: '-1d' is not a date"),
        (["replay", "--since", "\u0661d"], "is not a date"),
        (["replay", "--type", "*.paid"], "--type: '*.paid' is not an event type, a prefix with .* or *"),
        (["acknowledge"], "say which events: --event, --type, --source, --since or --until"),
        (["acknowledge", "--type", "*"], "no terminal to ask at"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_command_line_is_told_in_one_line(
    arguments: list[str], said: str, billhook: Billhook, engine: Engine
) -> None:
    ended(engine)

    assert said in billhook(*arguments).complaint(2)
    assert statuses(engine) == ["dead"]


@once
@pytest.mark.parametrize(
    "option",
    [["--rate", "0"], ["--rate", "-1"], ["--rate", "inf"], ["--rate", "nan"], ["--limit", "0"], ["--limit", "9" * 30]],
    ids="_".join,
)
def test_numbers_that_are_none_are_refused(option: list[str], billhook: Billhook) -> None:
    assert option[0] in billhook("replay", "--type", "*", *option).misuse()


def at_a_terminal(*arguments: str, typed: str) -> str:
    """What a command shows at a terminal where this is typed."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        os.write(ours, typed.encode())
        shown = b""
        try:
            while True:
                shown += os.read(ours, 65536)
        except OSError:  # how a terminal says that nobody writes to it any more
            os.close(ours)
    return shown.decode()


@once
def test_at_a_terminal_it_is_asked_first(engine: Engine) -> None:
    ended(engine, 3)

    shown = at_a_terminal("replay", "--status", "dead", typed="n\n")
    assert "3 events: 3 runs. Replay them? [y/N]:" in shown
    assert "billhook: nothing was changed" in shown
    assert statuses(engine) == ["dead"] * 3

    assert "replayed 3 events: 3 runs" in at_a_terminal("replay", "--status", "dead", typed="y\n")
    assert statuses(engine) == ["waiting"] * 3


@once
def test_a_question_that_is_broken_off_changes_nothing(engine: Engine) -> None:
    ended(engine)

    shown = at_a_terminal("replay", "--status", "dead", typed="\x04")  # Ctrl-D
    assert "billhook: nothing was changed" in shown
    assert statuses(engine) == ["dead"]


# --- one handler ----------------------------------------------------------------------------------


def test_a_new_handler_gets_the_events_it_missed(billhook: Billhook, engine: Engine) -> None:
    ended(engine, 2, run=None)
    ended(engine, run=None, type="invoice.sent", at=NOW + timedelta(days=1))
    asked = ("replay", "--handler", "my_shop.receipt")

    assert billhook(*asked, "--dry-run").out == "would replay 2 events: 0 runs, 2 new runs\n"
    told = billhook(*asked, "--yes")

    assert told.out.startswith("replayed 2 events: 0 runs, 2 new runs; the last is due ")
    assert statuses(engine) == ["waiting", "waiting", "ignored"]


@once
def test_how_many_events_a_condition_lets_pass_is_not_promised(billhook: Billhook, engine: Engine) -> None:
    ended(engine, 2, run=None)

    told = billhook("replay", "--handler", "my_shop.never", "--dry-run")

    assert told.out == "would replay at most 2 events: 0 runs, 2 new runs\n"


@once
def test_a_misspelt_handler_is_told_with_the_likely_one(billhook: Billhook, engine: Engine) -> None:
    said = billhook("replay", "--handler", "my_shop.receit", "--yes").complaint(2)

    assert said == "--handler: there is no handler my_shop.receit; did you mean my_shop.receipt?"


@once
def test_handlers_that_do_not_load_stop_a_replay_before_it_begins(
    shop: Path, billhook: Billhook, engine: Engine
) -> None:
    ended(engine)
    shop.write_text("import no_such_module\n")

    assert "no_such_module" in billhook("replay", "--handler", "my_shop.receipt", "--yes").complaint()
    assert statuses(engine) == ["dead"]


@once
def test_a_handler_that_is_not_loaded_here_is_known_by_its_runs(billhook: Billhook, engine: Engine) -> None:
    ended(engine, handler="old.receipt")

    told = billhook("replay", "--handler", "old.receipt", "--yes")
    unknown = billhook("replay", "--handler", "other", "--yes").complaint(2)

    assert told.out.startswith("replayed 1 event: 1 run;")
    assert "old.receipt is not among BILLHOOK_HANDLERS here: only runs that it had are replayed" in told.err
    known = "my_shop.never, my_shop.receipt, old.receipt, shop.receipt"
    assert unknown == f"--handler: there is no handler other; known: {known}; see BILLHOOK_HANDLERS"


@once
@pytest.mark.parametrize("command", ["replay", "acknowledge"])
def test_a_source_that_is_none_is_refused_unless_events_of_it_are_stored(
    command: str, billhook: Billhook, engine: Engine
) -> None:
    ended(engine, source="closed")

    said = billhook(command, "--source", "shpo", "--yes").complaint(2)

    assert said == "--source: there is no source 'shpo'; did you mean shop? configured: shop"
    assert billhook(command, "--source", "closed", "--dry-run").out.startswith("would ")
    assert billhook(command, "--source", "shop", "--yes").out.startswith("nothing to ")


@once
@pytest.mark.parametrize("command", ["replay", "acknowledge"])
def test_of_a_misspelt_type_it_is_said_what_was_meant(command: str, billhook: Billhook, engine: Engine) -> None:
    told = billhook(command, "--type", "invoice.piad", "--yes")
    ended(engine, type="invoice.piad")  # as a sender of one's own may name it
    theirs = billhook(command, "--type", "invoice.piad", "--dry-run")

    assert (told.status, told.out.startswith("nothing to ")) == (0, True)
    assert told.err == "billhook: --type: no event invoice.piad is stored; did you mean invoice.paid?\n"
    assert (theirs.err, theirs.out.startswith("would ")) == ("", True)


@once
@pytest.mark.parametrize("option", ["--event", "--type", "--source"])
def test_an_empty_value_is_refused(option: str, billhook: Billhook) -> None:
    assert billhook("replay", option, "", "--yes").complaint(2).startswith(f"{option}: nothing is written there")


# --- handlers that are not there ------------------------------------------------------------------


@once
def test_runs_that_nobody_here_could_carry_out_are_counted_before_it_begins(billhook: Billhook, engine: Engine) -> None:
    ended(engine, 2)
    ended(engine, 3, handler="old.receipt")
    ended(engine, handler="old.stock", run="succeeded")

    dead = billhook("replay", "--status", "dead", "--dry-run")
    everything = billhook("replay", "--type", "*", "--limit", "2", "--dry-run")
    none = billhook("replay", "--status", "processed", "--source", "shop", "--handler", "shop.receipt", "--dry-run")

    assert dead.out == "would replay 5 events: 5 runs\n"
    assert dead.err == (
        "billhook: 3 runs of handlers that BILLHOOK_HANDLERS does not name here, and that end dead again if no worker "
        "has them: old.receipt\n"
    )
    assert everything.err.startswith("billhook: up to 4 runs of handlers")
    assert everything.err.endswith(": old.receipt, old.stock\n")
    assert none.err == ""


@once
def test_without_any_handler_a_replay_is_refused(
    billhook: Billhook, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BILLHOOK_HANDLERS")
    assert billhook("replay", "--status", "dead", "--yes").out == "nothing to replay\n"
    ended(engine)

    said = billhook("replay", "--status", "dead", "--yes").complaint()

    assert said.startswith("no handler is loaded here, so what is replayed would end as before: set BILLHOOK_HANDLERS")
    assert statuses(engine) == ["dead"]
    assert billhook("replay", "--handler", "shop.receipt", "--yes").status == 0


# --- killed in the middle -------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["servers"], indirect=True)
def test_a_replay_that_was_killed_leaves_whole_events_and_the_next_does_the_rest(
    billhook: Billhook, engine: Engine
) -> None:
    event_ids = ended(engine, 3 * BATCH)
    asked = ("replay", "--status", "dead", "--yes", "--json")

    with database.write(engine) as connection:
        # The third batch waits for this event in the middle of its transaction.
        connection.execute(select(EventRow.id).where(EventRow.id == event_ids[-1]).with_for_update())
        with running(*asked) as process:
            while not waits_for_a_lock(engine):
                assert process.poll() is None
            os.kill(process.pid, signal.SIGKILL)

    assert replayed(engine) == event_ids[: 2 * BATCH]
    assert audit(engine).holds
    assert only(engine, AuditEntry).detail["finished"] is False
    assert only(engine, AuditEntry).detail["events"] == 2 * BATCH

    (told,) = billhook(*asked).objects

    assert told["events"] == BATCH
    assert {row.replays for row in rows(engine, HandlerRun)} == {1}
    assert statuses(engine) == ["waiting"] * 3 * BATCH
    assert audit(engine).holds


# --- acknowledge and prune ------------------------------------------------------------------------


def test_dead_events_are_acknowledged(billhook: Billhook, engine: Engine) -> None:
    first, _ = ended(engine, 2)
    received(engine)

    assert billhook("acknowledge", "--type", "*", "--dry-run").out == "would acknowledge 2 dead events\n"
    assert billhook("acknowledge", "--event", first, "--yes").out == "acknowledged 1 dead event\n"
    assert billhook("acknowledge", "--event", first, "--yes").out == "nothing to acknowledge\n"
    assert billhook("acknowledge", "--type", "*", "--yes", "--json").objects == [{"events": 1, "dry_run": False}]
    assert billhook("acknowledge", "--event", "evt_1", "--yes").complaint() == "there is no event evt_1"
    assert [row.acknowledged_at is not None for row in rows(engine, EventRow)].count(True) == 2


def test_what_is_too_old_is_deleted(billhook: Billhook, engine: Engine) -> None:
    followed(engine, ended(engine, 2, run="succeeded", at=utcnow() - timedelta(days=36)))
    ended(engine, at=utcnow() - timedelta(days=36))
    ended(engine, run="succeeded", at=utcnow() - timedelta(days=34))

    assert billhook("prune", "--dry-run").out == "would delete 2 events\n"
    assert len(rows(engine, EventRow)) == 4
    told = billhook("prune").out
    assert told == "deleted 2 attempts, 2 deliveries, 2 messages, 2 steps, 2 runs, 2 events\n"
    assert billhook("prune").out == "deleted nothing\n"


@once
def test_a_program_is_told_of_every_table_what_was_deleted(billhook: Billhook, engine: Engine) -> None:
    followed(engine, ended(engine, run="succeeded", at=utcnow() - timedelta(days=36)))

    (would,) = billhook("prune", "--dry-run", "--json").objects
    (first,) = billhook("prune", "--json").objects
    (again,) = billhook("prune", "--json").objects

    gone = {"attempts": 1, "deliveries": 1, "messages": 1, "steps": 1, "runs": 1, "events": 1}
    assert would == {
        "events": 1,
        "messages": 0,
        "once_keys": 0,
        "idempotency_keys": 0,
        "ended_sessions": 0,
        "dry_run": True,
    }
    assert first == {**gone, "once_keys": 0, "idempotency_keys": 0, "ended_sessions": 0, "dry_run": False}
    assert again == {**dict.fromkeys(first, 0), "dry_run": False}


@once
def test_one_of_each_is_said_in_the_singular(billhook: Billhook, engine: Engine) -> None:
    followed(engine, ended(engine, run="succeeded", at=utcnow() - timedelta(days=36)))

    assert billhook("prune").out == "deleted 1 attempt, 1 delivery, 1 message, 1 step, 1 run, 1 event\n"


@once
@pytest.mark.parametrize(
    "command", [["replay", "--type", "*", "--yes"], ["acknowledge", "--type", "*", "--yes"], ["prune"]]
)
def test_no_log_line_stands_among_what_people_read(command: list[str], engine: Engine) -> None:
    ended(engine)
    ended(engine, run="succeeded", at=utcnow() - timedelta(days=36))

    told = run(*command)

    assert (told.status, told.err, told.out.count("\n")) == (0, "", 1)


@once
def test_a_shorter_retention_than_the_providers_replay_is_refused(
    billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_RETENTION_DAYS", "34")

    assert billhook("prune").complaint(2).startswith("BILLHOOK_RETENTION_DAYS: ")
