"""Schedules: recurring invoices, what became of their due dates, and what may be done about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette_admin.actions import row_action

from receiver.console.rows import LIMIT, Asked, Cell, Doing, Filter, Rows, say
from workers.app import Runtime
from workers.clients import Clients
from workers.leases import utcnow
from workers.listing import Page
from workers.models import AnyRow
from workers.schedule import browsing, on_demand, schedules, verbs
from workers.schedule.at_once import AtOnce
from workers.schedule.errors import NOT_FOUND, ScheduleError
from workers.schedule.generator import Generator
from workers.schedule.schedules import Coming, Entry

_HISTORY = 50
_COMING = 6


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as its page has it."""

    id: str
    row: AnyRow
    next_run_date: Any
    history: Sequence[Entry]
    coming: Sequence[Coming]


class ScheduleView(Rows):
    """The schedules."""

    key = "schedules"
    menu_label = "Schedules"
    display_name = "schedule"
    icon = "fa-solid fa-calendar-days"
    sees = "recurring:read"
    changes = "recurring:write"
    searched = "Name, customer or id"
    empty = "No schedules yet. A schedule is a recurring invoice: `billhook schedules add --help` says how to make one."
    detail_template = "schedule.html"
    row_actions = ("generate", "pause", "resume", "retry", "cancel")
    fields = (
        Cell("id", "Schedule", shown="code"),
        Cell("name", "Name"),
        Cell("source", "Source"),
        Cell("customer_id", "Customer"),
        Cell("frequency", "Frequency"),
        Cell("status", "Status", shown="state"),
        Cell("next", "Next due", getter=lambda _request, row: schedules.next_run_date(row)),
    )

    def __init__(self, runtime: Runtime, clients: Clients) -> None:
        settings, redis = runtime.settings, runtime.redis
        self._at_once = AtOnce(Generator(engine=runtime.engine, settings=settings, clients=clients, redis=redis))
        super().__init__(runtime)

    def filters(self) -> Sequence[Filter]:
        return (
            Filter("status", "Status", schedules.STATUSES),
            Filter("source", "Source", tuple(sorted(self._runtime.settings.sources))),
        )

    def page(self, asked: Asked) -> Page:
        meant = schedules.Filter(source=asked["source"], status=asked["status"], search=asked.q)
        return browsing.schedules(self._engine, meant, after=asked.after, limit=LIMIT)

    def one(self, row_id: str) -> Any:
        try:
            row = schedules.get(self._engine, row_id)
            history = schedules.history(self._engine, row_id, limit=_HISTORY)
        except ScheduleError as error:
            if error.code != NOT_FOUND:
                raise
            return None
        return Schedule(row_id, row, schedules.next_run_date(row), history, self._coming(row, utcnow()))

    def _coming(self, row: AnyRow, now: datetime) -> Sequence[Coming]:
        if row.source not in self._runtime.settings.sources:  # it was taken out of the settings
            return ()
        return schedules.preview(self._runtime.settings, row, _COMING, now)

    def offered(self, name: str, row: Any) -> bool:
        possible = {
            "generate": ("active",),
            "pause": ("active",),
            "resume": ("paused",),
            "retry": ("active", "completed"),
            "cancel": ("active", "paused"),
        }
        return row.status in possible[name]

    @row_action(
        name="generate",
        text="Generate now",
        header="Generate its next invoice now?",
        confirmation="The invoice of the next due date is made at the provider at once, dated today. The due date is "
        "used up.",
        submit_btn_text="Generate",
        icon_class="fa-solid fa-bolt",
    )
    async def generate(self, request: Request, pk: str) -> None:
        row = await self.carry_out(request, lambda doing: self._generate(pk, doing))
        entry = schedules.entry(row)
        if entry.status == "failed":
            raise ScheduleError(entry.error_code or "FAILED", f"the invoice could not be made: {entry.error_message}")
        made = f"The invoice {entry.invoice_number or entry.invoice_id} is made." if entry.invoice_id else ""
        say(request, made or "The provider has not answered yet; it is tried again.")

    def _generate(self, schedule_id: str, doing: Doing) -> AnyRow:
        self._at_once.expect_billable(schedule_id)
        occurrence = on_demand.plan_now(self._at_once.generator, schedule_id, actor=doing.actor)
        self._at_once.make(occurrence)
        return self._at_once.look(occurrence)

    @row_action(
        name="pause",
        text="Pause",
        header="Pause this schedule?",
        confirmation="No further invoices are made until it is resumed. What has been begun is brought to its end.",
        submit_btn_text="Pause",
        icon_class="fa-solid fa-pause",
        action_btn_class="btn btn-primary",
    )
    async def pause(self, request: Request, pk: str) -> None:
        await self._do(request, pk, verbs.pause, "The schedule is paused.")

    @row_action(
        name="resume",
        text="Resume",
        header="Resume this schedule?",
        confirmation="It goes on; what came due meanwhile is made up for as its catch-up says.",
        submit_btn_text="Resume",
        icon_class="fa-solid fa-play",
        action_btn_class="btn btn-primary",
    )
    async def resume(self, request: Request, pk: str) -> None:
        await self._do(request, pk, verbs.resume, "The schedule is active again.")

    @row_action(
        name="retry",
        text="Try again",
        header="Try again what failed?",
        confirmation="Occurrences that failed are made as the schedule is now. No invoice is made twice.",
        submit_btn_text="Try again",
        icon_class="fa-solid fa-rotate-right",
    )
    async def retry(self, request: Request, pk: str) -> None:
        await self._do(request, pk, verbs.retry, "What failed is tried again.")

    @row_action(
        name="cancel",
        text="Cancel",
        header="Cancel this schedule for good?",
        confirmation="It makes no more invoices, and cannot be resumed. Its history stays.",
        submit_btn_text="Cancel it for good",
        submit_btn_class="btn btn-danger",
        icon_class="fa-solid fa-ban",
    )
    async def cancel(self, request: Request, pk: str) -> None:
        await self._do(request, pk, verbs.cancel, "The schedule is cancelled.")

    async def _do(self, request: Request, pk: str, verb: Callable[..., Any], sentence: str) -> None:
        await self.carry_out(request, lambda doing: verb(self._engine, pk, actor=doing.actor, now=doing.now))
        say(request, sentence)
