"""The sandbox's own time: the machine's, moved forward as far as somebody asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import Float
from sqlalchemy.orm import Mapped, Session, mapped_column

from handlers.providers.sandbox.store import Model, Store


class ClockRow(Model):
    """One row: how far the sandbox is ahead of the machine, in seconds."""

    __tablename__ = "sandbox_clock"

    id: Mapped[int] = mapped_column(primary_key=True)
    ahead: Mapped[float] = mapped_column(Float)


class Clock:
    """`wall` gives Unix seconds. `start` is where the time of a new file begins; an old one goes on where it was.

    A `start` without a zone is UTC.
    """

    def __init__(self, store: Store, wall: Callable[[], float], start: datetime | None = None) -> None:
        self.wall = wall
        self._still: datetime | None = None
        with store.transaction() as session:
            row = session.get(ClockRow, 1)
            if row is None:
                ahead = 0.0 if start is None else _in_utc(start).timestamp() - wall()
                row = ClockRow(id=1, ahead=ahead)
                session.add(row)
            self._ahead = row.ahead

    def now(self) -> datetime:
        """The sandbox's time, in UTC and without fractions of a second, as APIs write it."""
        moment = self._still or datetime.fromtimestamp(self.wall() + self._ahead, UTC)
        return moment.replace(microsecond=0)

    def move(self, session: Session, to: datetime) -> None:
        """Set the sandbox's time forward; it goes on from there. Raises ValueError for a moment that has passed."""
        ahead = to.timestamp() - self.wall()
        if timedelta(seconds=ahead - self._ahead) < timedelta(seconds=-1):
            raise ValueError("the sandbox's clock only goes forward")
        session.get_one(ClockRow, 1).ahead = self._ahead = max(ahead, self._ahead)

    @contextmanager
    def at(self, moment: datetime) -> Iterator[None]:
        """The time is `moment` for the block: what fell due at it happens at it, however late that is noticed."""
        self._still = moment
        try:
            yield
        finally:
            self._still = None


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
