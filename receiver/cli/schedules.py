"""Commands about schedules: recurring invoices, and what becomes of their due dates."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from receiver.cli import schedule_import
from receiver.cli.actor import actor
from receiver.cli.asking import Yes, ask, refuse_to_ask
from receiver.cli.options import one_of
from receiver.cli.output import WrongUse, many, show
from receiver.cli.records import Json, open_database
from receiver.cli.remote import schedules as remote
from receiver.cli.remote.place import elsewhere
from receiver.cli.schedule_fields import (
    AutoFinalize,
    AutoSend,
    CatchUp,
    DayOfMonth,
    DayOfWeek,
    DaysUntilDue,
    DryRun,
    Due,
    End,
    Id,
    IntervalCount,
    Items,
    MaxOccurrences,
    Name,
    NextRunDate,
    Options,
    Start,
    day,
    written,
)
from receiver.cli.schedule_generate import generate
from receiver.cli.schedule_output import (
    LISTED,
    SHOWN_FIRST,
    coming_of,
    dates_of,
    explained,
    public,
    say,
    say_all,
    say_coming,
    say_history,
)

if TYPE_CHECKING:
    from workers.schedule.plans import Plan
    from workers.settings import Settings

Frequency = Annotated[str, typer.Option(help="weekly, biweekly, monthly, quarterly, biannually or yearly.")]


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
    fields = written(
        items=item, options=options, start=start, name=name, interval_count=interval_count, day_of_month=day_of_month,
        day_of_week=day_of_week, end=end, max_occurrences=max_occurrences, auto_finalize=auto_finalize,
        auto_send=auto_send, days_until_due=days_until_due, currency=currency, catch_up=catch_up, frequency=frequency,
    )  # fmt: skip
    fields |= {"source": source, "customer_id": customer}
    if (api := elsewhere()) is not None:
        _refuse_dry_run(dry_run)
        schedule_id = remote.add(api, fields)
    else:
        from workers.leases import utcnow
        from workers.schedule.schedules import add as store

        configured, engine = open_database()
        plan = _plan(configured, fields)
        with explained():
            if dry_run:
                say_coming(coming_of(configured, plan), as_json=as_json)
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
    meant = Filter(source=source, status=status, customer_id=customer, frequency=frequency, search=search)
    if (api := elsewhere()) is not None:
        rows = remote.find(api, meant, limit=limit)
    else:
        _, engine = open_database()
        rows = [public(row) for row in find(engine, meant, limit=limit)]
    empty = "no such schedules" if meant != Filter() else "no schedules; add one with `billhook schedules add`"
    show(rows, LISTED, as_json=as_json, empty=empty)


def show_one(schedule_id: Id, as_json: Json = False) -> None:
    """Show one schedule, and what became of its latest due dates."""
    if (api := elsewhere()) is not None:
        shown, entries = remote.get(api, schedule_id)
    else:
        from workers.schedule import schedules

        _, engine = open_database()
        with explained():
            shown = public(schedules.get(engine, schedule_id))
            entries = [asdict(entry) for entry in schedules.history(engine, schedule_id, limit=5)]
    say_all(shown, entries, as_json=as_json)


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
    changes = written(
        items=item, options=options, name=name, interval_count=interval_count, day_of_month=day_of_month,
        day_of_week=day_of_week, end=end, max_occurrences=max_occurrences, auto_finalize=auto_finalize,
        auto_send=auto_send, days_until_due=days_until_due, catch_up=catch_up, frequency=frequency,
    )  # fmt: skip
    changes |= _without(reset or (), changes)
    if not changes:
        raise WrongUse("say what is to change; `billhook schedules update --help` has the options")
    if (api := elsewhere()) is not None:
        _refuse_dry_run(dry_run)
        say(remote.update(api, schedule_id, changes), as_json=as_json)
        return
    from workers.leases import utcnow
    from workers.schedule.verbs import preview_update, update_schedule

    configured, engine = open_database()
    with explained():
        if dry_run:
            after = preview_update(engine, configured, schedule_id, changes, now=utcnow())
            coming = dates_of(configured, after, SHOWN_FIRST)
            say_coming(coming, as_json=as_json, empty=f"nothing to come: it is {after.status}")
            return
        row = update_schedule(engine, configured, schedule_id, changes, actor=actor(), now=utcnow())
    say(public(row), as_json=as_json)


def pause(schedule_id: Id, as_json: Json = False) -> None:
    """Make no invoices until it is resumed."""
    if (api := elsewhere()) is not None:
        say(remote.do(api, "pause", schedule_id), as_json=as_json)
        return
    from workers.leases import utcnow
    from workers.schedule import verbs

    _, engine = open_database()
    with explained():
        row = verbs.pause(engine, schedule_id, actor=actor(), now=utcnow())
    say(public(row), as_json=as_json)


def resume(schedule_id: Id, next_run_date: NextRunDate = None, as_json: Json = False) -> None:
    """Go on with a paused schedule; its catch-up says from where."""
    if (api := elsewhere()) is not None:
        say(remote.do(api, "resume", schedule_id, next_run_date=day(next_run_date)), as_json=as_json)
        return
    from workers.leases import utcnow
    from workers.schedule import verbs

    _, engine = open_database()
    with explained():
        row = verbs.resume(engine, schedule_id, next_run_date=day(next_run_date), actor=actor(), now=utcnow())
    say(public(row), as_json=as_json)


def cancel(schedule_id: Id, yes: Yes = False, as_json: Json = False) -> None:
    """End a schedule for good; its history stays."""
    refuse_to_ask(yes, instead="")
    question = f"Cancel {schedule_id} for good?"
    if (api := elsewhere()) is not None:
        remote.get(api, schedule_id)
        ask(question, yes)
        say(remote.do(api, "cancel", schedule_id), as_json=as_json)
        return
    from workers.leases import utcnow
    from workers.schedule import schedules, verbs

    _, engine = open_database()
    with explained():
        schedules.get(engine, schedule_id)
        ask(question, yes)
        row = verbs.cancel(engine, schedule_id, actor=actor(), now=utcnow())
    say(public(row), as_json=as_json)


def delete(schedule_id: Id, yes: Yes = False) -> None:
    """Remove a schedule and its history; invoices that were made stay."""
    refuse_to_ask(yes, instead="")
    question = f"Delete {schedule_id} and its history?"
    if (api := elsewhere()) is not None:
        remote.get(api, schedule_id)
        ask(question, yes)
        remote.delete(api, schedule_id)
    else:
        from workers.leases import utcnow
        from workers.schedule import schedules, verbs

        _, engine = open_database()
        with explained():
            schedules.get(engine, schedule_id)
            ask(question, yes)
            verbs.delete_schedule(engine, schedule_id, actor=actor(), now=utcnow())
    print(f"{schedule_id} is deleted")


def retry(schedule_id: Id, due: Due = None, as_json: Json = False) -> None:
    """Try again what failed, and at once what was postponed.

    It is done as the schedule is now, and no invoice is made twice.
    """
    dates = [moment.date() for moment in due] if due else None
    if (api := elsewhere()) is not None:
        count = remote.retry(api, schedule_id, dates)
    else:
        from workers.leases import utcnow
        from workers.schedule import verbs

        _, engine = open_database()
        with explained():
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
    if (api := elsewhere()) is not None:
        entries = remote.history(api, schedule_id, limit=limit)
    else:
        from workers.schedule import schedules

        _, engine = open_database()
        with explained():
            entries = [asdict(entry) for entry in schedules.history(engine, schedule_id, limit=limit)]
    say_history(entries, as_json=as_json)


def preview(
    schedule_id: Id,
    following: Annotated[int, typer.Option("--next", min=1, max=10_000, help="How many due dates.")] = SHOWN_FIRST,
    as_json: Json = False,
) -> None:
    """List due dates to come, and what their invoices will come to."""
    if (api := elsewhere()) is not None:
        shown, _ = remote.get(api, schedule_id)
        coming, status = remote.preview(api, schedule_id, following), shown["status"]
    else:
        from workers.schedule import schedules

        configured, engine = open_database()
        with explained():
            row = schedules.get(engine, schedule_id)
            coming, status = dates_of(configured, row, following), row.status
    say_coming(coming, as_json=as_json, empty=f"nothing to come: it is {status}")


def _refuse_dry_run(dry_run: bool) -> None:
    if dry_run:
        raise WrongUse(
            "--dry-run: the API cannot say what would be; `billhook schedules preview` tells it of one there is"
        )


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


def _plan(configured: Settings, fields: dict[str, Any]) -> Plan:
    from workers.leases import utcnow
    from workers.schedule import rhythm
    from workers.schedule.plans import Plan

    known = configured.sources.get(fields["source"])
    today = rhythm.today(utcnow(), known.timezone if known is not None else "UTC")
    return Plan(**{"start_date": today, "items": [], **fields})
