"""Invoices that somebody waits for: made in this process, a few at a time, and waited for so long and no longer.

Who waits for one plans its occurrence first, and commits that. A thread then makes the invoice, and goes on when nobody
waits any more. If the process dies, it is as when a worker does: the lease ends, and a worker finds what is left to do.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from handlers.errors import ProviderUnavailable
from workers.app import GENERATE, PROCESS, ring
from workers.logs import log
from workers.models import WAITING, AnyRow
from workers.schedule import on_demand
from workers.schedule.generate import generate
from workers.schedule.generator import Generator

PLACES = 8
"""Threads that may wait for providers; what else the process does needs some too."""
WITHIN = 10.0
"""Seconds that somebody waits."""


class AtOnce:
    """Makes invoices for those who wait for them."""

    def __init__(self, generator: Generator, *, places: int = PLACES, within: float = WITHIN) -> None:
        self._generator = generator
        self._places = threading.BoundedSemaphore(places)
        self._within = within

    @property
    def generator(self) -> Generator:
        """What they are made with."""
        return self._generator

    def expect_billable(self, schedule_id: str) -> None:
        """As `on_demand.expect_billable`; and raises ProviderUnavailable (BUSY) where too many wait already."""
        with self._place() as free:
            if not free:
                raise ProviderUnavailable("BUSY", "too many invoices are waited for: ask again", retry_after=5.0)
            on_demand.expect_billable(self._generator, schedule_id)

    def make(self, occurrence_id: str) -> None:
        """Make the invoice of an occurrence that was planned, or have it made: by then it may be under way still."""
        if not self._places.acquire(blocking=False):
            return
        # A daemon: to end this process does not take as long as a provider may.
        thread = threading.Thread(target=self._generate, args=(occurrence_id,), name="at-once", daemon=True)
        thread.start()
        thread.join(self._within)

    def look(self, occurrence_id: str) -> AnyRow:
        """The occurrence as it is now; the workers are told of one that waits. Raises ScheduleError (NOT_FOUND)."""
        row = on_demand.occurrence_of(self._generator.engine, occurrence_id)
        if row.status == WAITING:
            ring(GENERATE, [row.source])
        return row

    @contextmanager
    def _place(self) -> Iterator[bool]:
        free = self._places.acquire(blocking=False)
        try:
            yield free
        finally:
            if free:
                self._places.release()

    def _generate(self, occurrence_id: str) -> None:
        try:
            ring(PROCESS, generate(self._generator, [occurrence_id]))
        except Exception:  # the database is away: its lease ends, and a worker goes on
            log.exception("generating failed", action="generation_failed", occurrence_id=occurrence_id)
        finally:
            self._places.release()
