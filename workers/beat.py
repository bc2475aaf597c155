"""Beat: sends the ticks, and nothing else.

What a tick finds due is claimed in the database, so two beats are harmless.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

from celery.beat import ScheduleEntry, Scheduler, SchedulingError, Service
from celery.schedules import schedstate, schedule
from redis import RedisError

from workers import alive, audited, presence
from workers.app import app, ringing, runtime
from workers.logs import log
from workers.metrics import REDIS_ERRORS
from workers.settings import Settings

_EXPIRES = 30
"""Seconds after which a tick that no worker took is worth nothing: later ones follow."""
_AUDIT = "billhook.events.audit"
_PRUNE_INTERVAL = 3600.0
_TALLY_INTERVAL = 60.0
_AGAIN = timedelta(minutes=1)
"""After which a tick that was left out is tried again, where it comes more seldom than that."""
_RECONCILE_INTERVAL = 60.0
"""Seconds between looks for a source whose time has come to be compared with its provider."""


class Every(schedule):
    """Celery's interval, which would stand still for as long as the clock was set back by."""

    def is_due(self, last_run_at: datetime) -> Any:
        if last_run_at > self.now():
            return schedstate(is_due=True, next=self.seconds)
        return super().is_due(last_run_at)


class Ticks(Scheduler):
    """Celery's scheduler without its file, that leaves out ticks for a queue nobody empties.

    One that comes seldom, such as an audit's, is not left out until its next time, but tried again soon.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._left_out: dict[str, timedelta] = {}
        """Ticks, and how much less than its interval each waits for the next."""
        super().__init__(*args, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        alive.touch("beat")
        presence.announce(runtime().redis, runtime().settings.redis_prefix, "beat")
        pause = super().tick(*args, **kwargs)
        for name, sooner in self._left_out.items():
            # Celery has noted it as sent by now, and asks again when each is due where there is no heap.
            entry: Any = self.schedule[name]
            entry.last_run_at -= sooner
            self._heap = None
        self._left_out.clear()
        return pause

    def apply_async(self, entry: ScheduleEntry, *args: Any, **kwargs: Any) -> Any:
        queue = str(entry.task).split(".")[1]
        if ringing(runtime().redis, runtime().settings, queue):
            self._leave_out(entry)
            return None
        try:
            return super().apply_async(entry, *args, **kwargs)
        except SchedulingError as error:  # Celery would log it with a traceback, each second
            REDIS_ERRORS.labels("tick").inc()
            cause = type(error.__context__).__name__
            log.warning("could not send a tick; the next follows", action="tick_failed", task=entry.task, error=cause)
            self._leave_out(entry)
            return None

    def _leave_out(self, entry: ScheduleEntry) -> None:
        sooner = timedelta(seconds=cast(Every, entry.schedule).seconds) - _AGAIN
        if sooner > timedelta():
            self._left_out[str(entry.name)] = sooner


def service(settings: Settings) -> Service:
    """The beat of this process; `start()` runs until `stop()`."""
    intervals = {
        "billhook.events.sweep": settings.sweep_interval,
        "billhook.deliveries.sweep": settings.sweep_interval,
        "billhook.schedules.sweep": settings.schedule_interval,
        "billhook.events.prune": _PRUNE_INTERVAL,
        "billhook.events.tally": _TALLY_INTERVAL,
    }
    if settings.audit_hours:
        intervals[_AUDIT] = settings.audit_hours * 3600
    if any(source.reconcile_hours is not None for source in settings.sources.values()):
        intervals["billhook.schedules.reconcile"] = _RECONCILE_INTERVAL
    app.conf.beat_schedule = {
        task: {
            "task": task,
            "schedule": Every(timedelta(seconds=seconds)),
            "options": {"expires": max(_EXPIRES, seconds)},
            "last_run_at": _last_audit(settings) if task == _AUDIT else None,
        }
        for task, seconds in intervals.items()
    }
    return Service(app, scheduler_cls=Ticks, max_interval=1)


def _last_audit(settings: Settings) -> datetime | None:
    """When the last audit ended: a beat that is often started anew would otherwise never come to the next one.

    Long ago where there was none; None, which is now, where Redis does not say.
    """
    try:
        known = audited.last(runtime().redis, settings.redis_prefix)
    except RedisError:
        return None
    return datetime.fromtimestamp(0, UTC) if known is None else known.at
