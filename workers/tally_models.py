"""The tables that statistics are read from; `workers.tally` fills them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from workers.columns import Model


class Tally(Model):
    """How many there were in a minute or hour that is over; `workers.tally` says of what."""

    __tablename__ = "tallies"

    what: Mapped[str] = mapped_column(String(8), primary_key=True)
    """events, runs or attempts."""
    step: Mapped[str] = mapped_column(String(6), primary_key=True)
    """minute or hour."""
    at: Mapped[datetime] = mapped_column(primary_key=True)
    """When that began."""
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    """Of events the source, of runs the handler."""
    kind: Mapped[str] = mapped_column(Text, primary_key=True)
    """Of events the type, of runs and attempts the class of their duration; empty where a run has none yet."""
    outcome: Mapped[str] = mapped_column(String(12), primary_key=True)
    amount: Mapped[int]


class StaleHour(Model):
    """That something of an hour has changed which may have been tallied; the hour is tallied again."""

    __tablename__ = "stale_hours"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    at: Mapped[datetime]
