"""Commands about schedules: recurring invoices, and what becomes of their due dates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from receiver.cli import schedule_import
from receiver.cli.actor import actor
from receiver.cli.asking import Yes, ask, refuse_to_ask
from receiver.cli.options import one_of
from receiver.cli.output import CommandError, WrongUse, many, show
from receiver.cli.records import Json, open_database
from receiver.cli.schedule_fields import (
    AutoFinalize,
    AutoSend,
    CatchUp,
    DayOfMonth,
    DayOfWeek,
    DaysUntilDue,
    Due,
    End,
    IntervalCount,
    IssueDate,
    Items,
    MaxOccurrences,
    Name,
    NextRunDate,
    Options,
    Start,
    day,
    written,
)

if TYPE_CHECKING:
    from workers.models import AnyRow
    from workers.schedule.plans import Plan
    from workers.settings import Settings

Id = Annotated[str, typer.Argument(metavar="ID", help="The schedule's id: sch_…")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be, and change nothing.")]
Frequency = Annotated[str, typer.Option(help="weekly, biweekly, monthly, quarterly, biannually or yearly.")]
_LISTED = ("id", "name", "source", "customer_id", "frequency", "status", "next_run_date")
_HISTORY = (
    "scheduled_date", "status", "invoice_number", "invoice_total", "invoice_id", "attempts", "next_attempt_at",
    "error_message",
)  # fmt: skip
_SHOWN_FIRST = 12


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    group = typer.Typer(help="Add and look after recurring invoices.", no_args_is_help=True)
    for name, command in (
        ("add", add), ("list", list_all), ("show", show_one), ("update", update), ("pause", pause),
        ("resume", resume), ("cancel", cancel), ("delete", delete), ("generate", generate), ("retry", retry),
        ("history", history), ("preview", preview),
    ):  # fmt: skip
        group.command(name)(command)
    schedule_import.add_to(group)
    app.add_typer(group, name="schedules")


def add(
    source: Annotated[str, typer.Option(help="The source whose API makes the invoices.")],
    customer: Annotated[str, typer.Option(help="The customer's id at the provider.")],
    frequency: Frequency,
    item: Items = None,
    start: Start = None,
    name: Name = None,
    interval_count: IntervalCount = None,
    day_of_month: DayOfMonth = None,
    day_of_week: DayOfWeek = None,
    end: End = None,
    max_occurrences: MaxOccurrences = None,
    auto_finalize: AutoFinalize = None,
    auto_send: AutoSend = None,
    days_until_due: DaysUntilDue = None,
    currency: Annotated[str | None, typer.Option(help="Three letters. Default: MAD.")] = None,
    catch_up: CatchUp = None,
    options: Options = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Add a recurring invoice.

    A start in the past only anchors the rhythm.

    Example: billhook schedules add --source shop --customer cus_2b81fe --frequency monthly --item 'Care; 1; 10400; 20'
    """
    from workers.leases import utcnow
    from workers.schedule import rhythm
    from workers.schedule.plans import Plan
    from workers.schedule.schedules import add as store

    fields = written(
        items=item, options=options, start=start, name=name, interval_count=interval_count, day_of_month=day_of_month,
        day_of_week=day_of_week, end=end, max_occurrences=max_occurrences, auto_finalize=auto_finalize,
        auto_send=auto_send, days_until_due=days_until_due, currency=currency, catch_up=catch_up, frequency=frequency,
    )  # fmt: skip
    configured, engine = open_database()
    zone = configured.sources[source].timezone if source in configured.sources else "UTC"
    started = {"start_date": rhythm.today(utcnow(), zone), "items": []}
    plan = Plan(source=source, customer_id=customer, **{**started, **fields})
    with _explained():
        if dry_run:
            _show_coming(configured, plan, as_json=as_json)
            return
        schedule_id = store(engine, configured, plan, actor=actor(), now=utcnow())
    print(json.dumps({"id": schedule_id}) if as_json else schedule_id)


def list_all(
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    status: Annotated[
        str | None,
        one_of("active", "paused", "completed", "cancelled"),
    ] = None,
    customer: Annotated[str | None, typer.Option(help="Only of this customer.")] = None,
    frequency: Annotated[str | None, typer.Option(help="Only these: weekly, monthly, …")] = None,
    search: Annotated[str | None, typer.Option(help="What stands in name, customer or id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, oldest first.")] = 1000,
    as_json: Json = False,
) -> None:
    """List the schedules."""
    from workers.schedule.schedules import STATUSES, Filter, find

    if status is not None and status not in STATUSES:
        raise WrongUse(f"--status: {status!r} is none of {', '.join(STATUSES)}")
    _, engine = open_database()
    meant = Filter(source=source, status=status, customer_id=customer, frequency=frequency, search=search)
    rows = [_public(row) for row in find(engine, meant, limit=limit)]
    empty = "no such schedules" if meant != Filter() else "no schedules; add one with `billhook schedules add`"
    show(rows, _LISTED, as_json=as_json, empty=empty)


def show_one(schedule_id: Id, as_json: Json = False) -> None:
    """Show one schedule, and what became of its latest due dates."""
    from workers.schedule import schedules

    _, engine = open_database()
    with _explained():
        row = _public(schedules.get(engine, schedule_id))
        entries = schedules.history(engine, schedule_id, limit=5)
    if as_json:
        show([row | {"history": [_plain(asdict(entry)) for entry in entries]}], (), as_json=True, empty="")
        return
    known = [{"field": name, "value": _told(value)} for name, value in row.items() if value is not None]
    show(known, ("field", "value"), as_json=False, empty="")
    print()
    show([asdict(entry) for entry in entries], _HISTORY, as_json=False, empty="nothing was due yet")


def update(
    schedule_id: Id,
    frequency: Annotated[str | None, typer.Option(help="Counted from the next due date on.")] = None,
    item: Items = None,
    name: Name = None,
    interval_count: IntervalCount = None,
    day_of_month: DayOfMonth = None,
    day_of_week: DayOfWeek = None,
    end: End = None,
    max_occurrences: MaxOccurrences = None,
    auto_finalize: AutoFinalize = None,
    auto_send: AutoSend = None,
    days_until_due: DaysUntilDue = None,
    catch_up: CatchUp = None,
    options: Options = None,
    reset: Annotated[
        list[str] | None, typer.Option(help="end-date, max-occurrences, day-of-month or day-of-week: without one.")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Change an active or paused schedule; `--item` replaces all items."""
    from workers.leases import utcnow
    from workers.schedule.verbs import preview_update, update_schedule

    changes = written(
        items=item, options=options, name=name, interval_count=interval_count, day_of_month=day_of_month,
        day_of_week=day_of_week, end=end, max_occurrences=max_occurrences, auto_finalize=auto_finalize,
        auto_send=auto_send, days_until_due=days_until_due, catch_up=catch_up, frequency=frequency,
    )  # fmt: skip
    changes |= _without(reset or (), changes)
    if not changes:
        raise WrongUse("say what is to change; `billhook schedules update --help` has the options")
    configured, engine = open_database()
    with _explained():
        if dry_run:
            after = preview_update(engine, configured, schedule_id, changes, now=utcnow())
            _show_dates(configured, after, _SHOWN_FIRST, as_json=as_json)
            return
        row = update_schedule(engine, configured, schedule_id, changes, actor=actor(), now=utcnow())
    _say(row, as_json=as_json)


def pause(schedule_id: Id, as_json: Json = False) -> None:
    """Make no invoices until it is resumed."""
    from workers.leases import utcnow
    from workers.schedule import verbs

    _, engine = open_database()
    with _explained():
        row = verbs.pause(engine, schedule_id, actor=actor(), now=utcnow())
    _say(row, as_json=as_json)


def resume(schedule_id: Id, next_run_date: NextRunDate = None, as_json: Json = False) -> None:
    """Go on with a paused schedule; its catch-up says from where."""
    from workers.leases import utcnow
    from workers.schedule import verbs

    _, engine = open_database()
    with _explained():
        row = verbs.resume(engine, schedule_id, next_run_date=day(next_run_date), actor=actor(), now=utcnow())
    _say(row, as_json=as_json)


def cancel(schedule_id: Id, yes: Yes = False, as_json: Json = False) -> None:
    """End a schedule for good; its history stays."""
    from workers.leases import utcnow
    from workers.schedule import schedules, verbs

    refuse_to_ask(yes, instead="")
    _, engine = open_database()
    with _explained():
        schedules.get(engine, schedule_id)
        ask(f"Cancel {schedule_id} for good?", yes)
        row = verbs.cancel(engine, schedule_id, actor=actor(), now=utcnow())
    _say(row, as_json=as_json)


def delete(schedule_id: Id, yes: Yes = False) -> None:
    """Remove a schedule and its history; invoices that were made stay."""
    from workers.leases import utcnow
    from workers.schedule import schedules, verbs

    refuse_to_ask(yes, instead="")
    _, engine = open_database()
    with _explained():
        schedules.get(engine, schedule_id)
        ask(f"Delete {schedule_id} and its history?", yes)
        verbs.delete_schedule(engine, schedule_id, actor=actor(), now=utcnow())
    print(f"{schedule_id} is deleted")


def generate(schedule_id: Id, issue_date: IssueDate = None, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Make the next invoice now; its due date is used up by it."""
    from workers.clients import Clients
    from workers.embedded import EmbeddedError
    from workers.leases import utcnow
    from workers.schedule import schedules
    from workers.schedule.generator import DEADLINE, Generator
    from workers.schedule.on_demand import generate_now
    from workers.schedule.rhythm import today

    configured, engine = open_database()
    with _explained():
        if dry_run:
            row = schedules.get(engine, schedule_id)
            _show_dates(configured, row, 1, issued=day(issue_date) or today(utcnow(), row.timezone), as_json=as_json)
            return
        from workers.app import PROCESS, ring, start

        try:
            process = start(configured, answer_within=3.0)
        except EmbeddedError as error:
            raise CommandError(str(error)) from None
        with Clients(configured, deadline=DEADLINE) as clients:
            generator = Generator(engine=engine, settings=configured, clients=clients, redis=process.redis)
            row = generate_now(generator, schedule_id, issue_date=day(issue_date), actor=actor())
    if row.event_id is not None:
        ring(PROCESS, [row.event_id])
    entry = schedules.entry(row)
    show([asdict(entry)], _HISTORY, as_json=as_json, empty="")
    if entry.status == "failed":
        raise typer.Exit(1)


def retry(schedule_id: Id, due: Due = None, as_json: Json = False) -> None:
    """Try again what failed, and at once what was postponed.

    It is done as the schedule is now, and no invoice is made twice.
    """
    from workers.leases import utcnow
    from workers.schedule import verbs

    _, engine = open_database()
    dates = [moment.date() for moment in due] if due else None
    with _explained():
        count = verbs.retry(engine, schedule_id, due_on=dates, actor=actor(), now=utcnow())
    print(json.dumps({"occurrences": count}) if as_json else f"{many(count, 'occurrence')} will be tried again")


def history(
    schedule_id: Id,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, the latest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List what became of the due dates of a schedule.

    They end as success, failed or skipped, and before are waiting, running or held.
    """
    from workers.schedule import schedules

    _, engine = open_database()
    with _explained():
        entries = schedules.history(engine, schedule_id, limit=limit)
    show([asdict(entry) for entry in entries], _HISTORY, as_json=as_json, empty="nothing was due yet")


def preview(
    schedule_id: Id,
    following: Annotated[int, typer.Option("--next", min=1, max=10_000, help="How many due dates.")] = _SHOWN_FIRST,
    as_json: Json = False,
) -> None:
    """List due dates to come, and what their invoices will come to."""
    from workers.schedule import schedules

    configured, engine = open_database()
    with _explained():
        _show_dates(configured, schedules.get(engine, schedule_id), following, as_json=as_json)


def _without(reset: tuple[str, ...] | list[str], changes: dict[str, Any]) -> dict[str, None]:
    names = ("end_date", "max_occurrences", "day_of_month", "day_of_week")
    found: dict[str, None] = {}
    for option in reset:
        name = option.replace("-", "_")
        if name not in names:
            raise WrongUse(f"--reset: {option!r} is none of {', '.join(one.replace('_', '-') for one in names)}")
        if name in changes:
            raise WrongUse(f"--reset: {option} is given a value too")
        found[name] = None
    return found


def _show_coming(configured: Settings, plan: Plan, *, as_json: bool) -> None:
    """What a schedule that is not added would do. Raises ScheduleError."""
    from workers.leases import utcnow
    from workers.schedule.schedules import coming_of

    coming = coming_of(configured, plan, _SHOWN_FIRST, utcnow())
    show([asdict(one) for one in coming], ("due_on", "pay_by", "total", "currency"), as_json=as_json, empty="")


def _show_dates(configured: Settings, row: Any, count: int, *, as_json: bool, issued: date | None = None) -> None:
    from workers.leases import utcnow
    from workers.schedule.schedules import preview as coming

    dates = [asdict(one) for one in coming(configured, row, count, utcnow(), issued=issued)]
    show(
        dates, ("due_on", "pay_by", "total", "currency"), as_json=as_json, empty=f"nothing to come: it is {row.status}"
    )


def _say(row: Any, *, as_json: bool) -> None:
    show([_public(row)], _LISTED, as_json=as_json, empty="")


def _public(row: AnyRow) -> dict[str, Any]:
    """A schedule without what only the engine has use for, and with its next due date as people know it."""
    from workers.schedule.schedules import next_run_date

    hidden = {"anchor_date", "anchor_day", "prior", "next_index", "agreement_token"}
    shown = {name: value for name, value in row._asdict().items() if name not in hidden}
    return shown | {"next_run_date": next_run_date(row)}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in values.items()}


def _told(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


@contextmanager
def _explained() -> Iterator[None]:
    """What a schedule cannot be is a wrong use of the command; what it cannot do now, a failure."""
    from workers.schedule.errors import VALIDATION_ERROR, ScheduleError

    try:
        yield
    except ScheduleError as error:
        if error.code == VALIDATION_ERROR:
            raise WrongUse(str(error)) from None
        raise CommandError(f"{error.code}: {error}") from None
