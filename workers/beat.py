"""Beat: sends the ticks, and nothing else.

What a tick finds due is claimed in the database, so two beats are harmless.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from celery.beat import ScheduleEntry, Scheduler, SchedulingError, Service
from celery.schedules import schedule
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


class Ticks(Scheduler):
    """Celery's scheduler without its file, that leaves out ticks for a queue nobody empties.

    One that comes seldom, such as an audit's, is not left out until its next time, but tried again soon; also where
    only the answer of Redis got lost, and it comes twice, which is harmless. A clock that is set back, by which Celery
    would stand still for as long, puts nothing off.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._at = app.now()
        self._left_out: dict[str, timedelta] = {}
        """Ticks, and how much less than its interval each waits for the next."""
        super().__init__(*args, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        alive.touch("beat")
        presence.announce(runtime().redis, runtime().settings.redis_prefix, "beat")
        now = app.now()
        if now < self._at:
            self._move({str(name): self._at - now for name in self.schedule})
        self._at = now
        pause = super().tick(*args, **kwargs)
        self._move(self._left_out)
        self._left_out.clear()
        return pause

    def _move(self, sooner: Mapping[str, timedelta]) -> None:
        """Have these ticks be due so much sooner."""
        for name, time in sooner.items():
            entry: Any = self.schedule[name]
            entry.last_run_at -= time
            self._heap = None  # without it, Celery asks each when it is due

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
            log.warning("could not send a tick; another follows", action="tick_failed", task=entry.task, error=cause)
            self._leave_out(entry)
            return None

    def _leave_out(self, entry: ScheduleEntry) -> None:
        sooner = timedelta(seconds=cast(schedule, entry.schedule).seconds) - _AGAIN
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
            "schedule": schedule(timedelta(seconds=seconds)),
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
