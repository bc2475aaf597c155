"""From a due date to exactly one invoice: create, finalize, send, or capture, each step resumed and none repeated.

Before the provider is asked to create, the step `intended` is committed with what is asked, word for word. Whoever
takes up an occurrence that was intended asks for the same under the same key, while the provider knows its keys; later,
or where it has none, looks for the marker in the invoice before it creates. What comes after creation is read off the
invoice itself. A payment under an agreement is looked for in the same way before it is captured again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import update

from handlers.errors import ProviderUnavailable
from handlers.invoicing import Billing, Draft, Invoice, Invoicing, Mode, Payment, Stage, read_draft
from workers import database, leases
from workers.models import HELD, RUNNING, AnyRow, Occurrence, Schedule
from workers.schedule import rhythm, schedules
from workers.schedule.drafts import draft_of
from workers.schedule.generator import LEASE, Generator, billing, client
from workers.schedule.outcomes import HAS_ENDED, WAS_CANCELLED, Outcome

SETTLES_WITHIN = 120.0
"""Seconds in which a call that we did not hear the end of may still take effect at the provider."""
LATE = timedelta(minutes=15)
"""How long after its due moment an occurrence that was never begun is looked for at the provider all the same."""
TOO_MANY = 429


def issue(generator: Generator, row: AnyRow) -> Outcome | None:
    """Do what is left to do for a leased occurrence. None: it is held, or the lease was lost, and is not ours any more.

    Raises ProviderError and ProviderUnavailable.
    """
    found = billing(generator, row.source)
    invoicing = found.invoicing(client(generator, row.source))
    if row.step == "planned":
        begun = _begin(generator, found, invoicing, row)
        if begun is None or isinstance(begun, Outcome):
            return begun
        draft, invoice = begun
    else:
        draft = _draft(generator, row)
        made = _made(generator, found, invoicing, row, draft)
        if made is None:
            return None
        invoice = made
    if draft.finalize and invoice.stage == Stage.DRAFT:
        invoice = invoicing.finalize(draft, invoice)
    if draft.send and invoice.stage == Stage.FINALIZED:
        invoice = invoicing.send(draft, invoice)
    if found.mode(draft.options) != Mode.CAPTURED:
        return Outcome(invoice=invoice)
    payment = _captured(generator, found, row, draft, invoice)
    return None if payment is None else Outcome(invoice=invoice, payment=payment)


def _begin(
    generator: Generator, found: Billing, invoicing: Invoicing, row: AnyRow
) -> tuple[Draft, Invoice] | Outcome | None:
    """Create the invoice for the first time, or take that of the agreement which is there."""
    with database.read(generator.engine) as connection:
        schedule = schedules.read(connection, row.schedule_id)
    if found.mode(schedule.options) == Mode.AUTOMATIC and schedule.agreement is not None:
        return Outcome(reason="the provider takes this payment itself")
    invoicing.check_customer(schedule.customer_id)
    draft = _intend(generator, found, row)
    if draft is None or isinstance(draft, Outcome):
        return draft
    if found.mode(draft.options) != Mode.EACH and schedule.agreement is not None:
        return draft, invoicing.get(schedule.agreement)
    invoice = invoicing.find(draft, sure=False) if _late(generator, row, schedule) else None
    if invoice is None:
        invoice = _create(invoicing, draft)
    return (draft, invoice) if _note_invoice(generator, found, row, draft, invoice) else None


def _late(generator: Generator, row: AnyRow, schedule: AnyRow) -> bool:
    """Whether it should have been begun long ago: then a database that was set back may have forgotten that it was."""
    # Only who added it a moment ago is a reason for being late that leaves nothing to forget: a pause may be of a time
    # before the backup that is restored now.
    known = (rhythm.start_of_day(row.due_on, schedule.timezone), schedule.created_at)
    return bool(generator.clock() - max(known) > LATE)


def _made(generator: Generator, found: Billing, invoicing: Invoicing, row: AnyRow, draft: Draft) -> Invoice | None:
    """The invoice of an occurrence that was begun before: what there is, else a new one. None: the lease was lost."""
    if row.invoice_id is not None:
        return invoicing.get(row.invoice_id)
    now = generator.clock()
    invoice: Invoice | None = None
    if row.intended_at is None or now - row.intended_at >= found.remembers:
        invoice = invoicing.find(draft)
        if invoice is None and not _note(generator, row, intended_at=now):
            return None
    if invoice is None:
        invoice = _create(invoicing, draft)
    return invoice if _note_invoice(generator, found, row, draft, invoice) else None


def _intend(generator: Generator, found: Billing, row: AnyRow) -> Draft | Outcome | None:
    """Commit what is about to be asked. None: the schedule was paused meanwhile, or the lease is over."""
    now = generator.clock()
    with database.write(generator.engine) as connection:
        schedule = schedules.read(connection, row.schedule_id, share=True)
        if schedule.status == "paused":
            # It has not begun, so it does not count as a start that never ended.
            leases.finish(connection, Occurrence, row, status=HELD, starts=row.starts - 1, next_attempt_at=now)
            return None
        if schedule.status == "cancelled":
            return Outcome(reason=WAS_CANCELLED)
        if schedule.end_date is not None and row.due_on > schedule.end_date and not row.retries:
            return Outcome(reason=HAS_ENDED)
        draft = fresh_draft(schedule, row, now)
        values: dict[str, Any] = {"step": "intended", "intended_at": now, "draft": draft.written()}
        if found.mode(draft.options) != Mode.EACH and schedule.agreement is not None:
            values |= {"step": "created", "invoice_id": schedule.agreement}
        held = _held(connection, row, now, values)
    return draft if held else None


def fresh_draft(schedule: AnyRow, row: AnyRow, now: datetime) -> Draft:
    """The draft of an occurrence, by what its schedule says now."""
    return draft_of(
        schedule,
        row.issue_on or row.due_on,
        occurrence_id=row.id,
        retries=row.retries,
        recurrences=_recurrences(schedule, row),
        now=now,
    )


def _recurrences(schedule: AnyRow, row: AnyRow) -> int | None:
    """How many due dates there are from this one on."""
    found = rhythm.due_from(schedule, row.due_on)
    return rhythm.left(schedule, found[0] if found else schedule.next_index)


def _draft(generator: Generator, row: AnyRow) -> Draft:
    if row.draft is not None:
        return read_draft(row.draft)
    # An older version of ours intended it, or somebody asked for it anew after it had failed.
    with database.write(generator.engine) as connection:
        draft = fresh_draft(schedules.read(connection, row.schedule_id), row, row.intended_at or row.created_at)
        _held(connection, row, generator.clock(), {"draft": draft.written()})
    return draft


def _create(invoicing: Invoicing, draft: Draft) -> Invoice:
    try:
        return invoicing.create(draft)
    except ProviderUnavailable as error:
        raise _settling(error) from None


def _settling(error: ProviderUnavailable) -> ProviderUnavailable:
    # Looked for sooner, what is still under way there would not be found, and be done twice.
    if error.status != TOO_MANY:
        error.retry_after = max(error.retry_after or 0.0, SETTLES_WITHIN)
    return error


def _captured(generator: Generator, found: Billing, row: AnyRow, draft: Draft, invoice: Invoice) -> Payment | None:
    """The payment of this due date. None: the lease was lost."""
    if found.capturing is None:
        raise ProviderUnavailable("NO_CAPTURE", "this provider captures no payments")
    capturing = found.capturing(client(generator, row.source))
    with database.read(generator.engine) as connection:
        schedule = schedules.read(connection, row.schedule_id)
    if row.step == "capturing" or _late(generator, row, schedule):
        payment = capturing.find_payment(draft)
        if payment is not None:
            return payment
    token = schedule.agreement_token
    token = token or capturing.token(invoice.id)
    if not _note(generator, row, {"agreement_token": token}, step="capturing", intended_at=generator.clock()):
        return None
    try:
        return capturing.capture(draft, token)
    except ProviderUnavailable as error:
        raise _settling(error) from None


def _note_invoice(generator: Generator, found: Billing, row: AnyRow, draft: Draft, invoice: Invoice) -> bool:
    agreed = {} if found.mode(draft.options) == Mode.EACH else {"agreement": invoice.id}
    step = row.step if row.step == "capturing" else "created"
    return _note(generator, row, agreed, step=step, invoice_id=invoice.id)


def _note(generator: Generator, row: AnyRow, of_schedule: dict[str, Any] | None = None, **values: Any) -> bool:
    """Commit how far an occurrence came, under its lease. False: the lease is over."""
    with database.write(generator.engine) as connection:
        if not _held(connection, row, generator.clock(), values):
            return False
        if of_schedule:
            connection.execute(update(Schedule).where(Schedule.id == row.schedule_id).values(**of_schedule))
    return True


def _held(connection: Any, row: AnyRow, now: datetime, values: dict[str, Any]) -> bool:
    statement = (
        update(Occurrence)
        .where(
            Occurrence.id == row.id,
            Occurrence.fence == row.fence,
            Occurrence.status == RUNNING,
            Occurrence.next_attempt_at > now,
        )
        # A full lease from here on: no other may look for the invoice while our call that creates it is under way.
        .values(next_attempt_at=now + LEASE, ring_at=now + LEASE, **values)
    )
    return bool(connection.execute(statement).rowcount == 1)
