"""Commands that read and write records: events, schedules, audit. They speak to the database directly."""

from __future__ import annotations

import json
import sys
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from receiver.cli.output import WrongUse, show
from workers import settings
from workers.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    app.command()(events)
    app.command()(audit)
    schedules = typer.Typer(help="Recurring invoices.", no_args_is_help=True)
    schedules.command("add")(add_schedule)
    schedules.command("list")(list_schedules)
    app.add_typer(schedules, name="schedules")


def open_database() -> tuple[Settings, Engine]:
    """The settings and a database whose schema is right."""
    from workers import database

    configured = settings.load()
    quiet(configured)
    engine = database.connect(configured)
    database.ensure_schema(configured, engine)
    return configured, engine


def rung_for(configured: Settings, delivery_ids: Sequence[str]) -> bool:
    """Whether the workers could be told that these deliveries are due; if not, their sweep finds them."""
    from workers.app import DELIVER, ring, start
    from workers.embedded import EmbeddedError

    try:
        start(configured, answer_within=3.0)
        return ring(DELIVER, delivery_ids)
    except EmbeddedError:
        return False


def quiet(configured: Settings) -> None:
    """Leave log lines to the processes that run on and on: who gives a command is told by the command itself."""
    from workers import logs

    logs.configure(configured.model_copy(update={"log_level": "error"}))


def events(
    status: Annotated[str | None, typer.Option(help="waiting, processed, ignored or dead.")] = None,
    event_type: Annotated[str | None, typer.Option("--type", help="Such as invoice.paid, invoice.* or *.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List the newest events; `billhook event ID` shows all about one, its errors too."""
    from workers import inbox
    from workers.audit import STATUSES

    if status is not None and status not in STATUSES:
        raise WrongUse(f"--status: {status!r} is none of {', '.join(sorted(STATUSES))}")
    _, engine = open_database()
    rows = inbox.latest(engine, status=status, type=event_type, limit=limit)
    columns = ("id", "received_at", "source", "type", "object_id", "status", "runs")
    show([row._asdict() for row in rows], columns, as_json=as_json, empty="no events")


def audit(as_json: Json = False) -> None:
    """Prove that nothing is lost; exit 1 with the ids where something is."""
    from workers.audit import audit as check

    _, engine = open_database()
    balance = check(engine)
    if as_json:
        counts = {name: getattr(balance, name) for name in ("received", "processed", "ignored", "dead", "waiting")}
        faults = [{"rule": fault.rule, "ids": fault.ids} for fault in balance.faults]
        print(json.dumps({**counts, "holds": balance.holds, "faults": faults}))
    else:
        print(balance)
        for fault in balance.faults:
            print(f"  {fault.rule}: {' '.join(fault.ids)}", file=sys.stderr)
    if not balance.holds:
        raise typer.Exit(1)


def add_schedule(
    source: Annotated[str, typer.Option(help="The source whose API makes the invoices.")],
    customer: Annotated[str, typer.Option(help="The customer's id at the provider.")],
    frequency: Annotated[str, typer.Option(help="weekly, biweekly, monthly, quarterly, biannually or yearly.")],
    item: Annotated[
        list[str], typer.Option(help='"DESCRIPTION; QUANTITY; UNIT PRICE[; TAX RATE]"; once for each item.')
    ],
    start: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day, YYYY-MM-DD; default: today.")
    ] = None,
    name: Annotated[str, typer.Option(help="For people.")] = "",
    interval_count: Annotated[int, typer.Option(help="Every how many weeks, months, …: 1 to 12.")] = 1,
    day_of_month: Annotated[int | None, typer.Option(help="1 to 28.")] = None,
    day_of_week: Annotated[int | None, typer.Option(help="0 (Sunday) to 6.")] = None,
    end: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day, YYYY-MM-DD.")] = None,
    max_occurrences: Annotated[int | None, typer.Option(min=1, help="End after so many.")] = None,
    auto_finalize: Annotated[bool, typer.Option(help="Finalize each invoice.")] = False,
    auto_send: Annotated[bool, typer.Option(help="And send it.")] = False,
    days_until_due: Annotated[int, typer.Option(help="0 to 365.")] = 30,
    currency: Annotated[str, typer.Option(help="Three letters.")] = "MAD",
    as_json: Json = False,
) -> None:
    """Add a recurring invoice. A start in the past only anchors the rhythm."""
    from zoneinfo import ZoneInfo

    from workers.leases import utcnow
    from workers.schedule.schedules import Plan, ScheduleError, add

    configured, engine = open_database()
    zone = configured.sources[source].timezone if source in configured.sources else "UTC"
    plan = Plan(
        source=source,
        customer_id=customer,
        frequency=frequency,
        start_date=start.date() if start else utcnow().astimezone(ZoneInfo(zone)).date(),
        items=[_item(text) for text in item],
        name=name,
        interval_count=interval_count,
        day_of_month=day_of_month,
        day_of_week=day_of_week,
        end_date=_date(end),
        max_occurrences=max_occurrences,
        auto_finalize=auto_finalize,
        auto_send=auto_send,
        days_until_due=days_until_due,
        currency=currency,
    )
    try:
        schedule_id = add(engine, configured, plan, now=utcnow())
    except ScheduleError as error:
        raise WrongUse(str(error)) from None
    print(json.dumps({"id": schedule_id}) if as_json else schedule_id)


def list_schedules(as_json: Json = False) -> None:
    """List the schedules."""
    from workers.schedule.schedules import everyone

    _, engine = open_database()
    columns = ("id", "name", "source", "customer_id", "frequency", "status", "next_run_at")
    rows: list[dict[str, Any]] = [row._asdict() for row in everyone(engine)]
    show(rows, columns, as_json=as_json, empty="no schedules; add one with `billhook schedules add`")


def _item(text: str) -> dict[str, str]:
    parts = [part.strip() for part in text.split(";")]
    if not 3 <= len(parts) <= 4:
        raise WrongUse(f'--item: {text!r} is not "DESCRIPTION; QUANTITY; UNIT PRICE[; TAX RATE]"')
    return dict(zip(("description", "quantity", "unit_price", "tax_rate"), parts, strict=False))


def _date(moment: datetime | None) -> date | None:
    return moment.date() if moment else None
