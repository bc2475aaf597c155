"""Which hours have to be tallied again: what happens late to an event is noted in the transaction that does it.

What happens to an event soon after its receipt is seen by the first tally of its minute. What happens later (a retry,
a replay, a backlog that is worked off) leaves a note here, and the tally reads the notes. A process that dies has left
both or neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, insert

from workers import ids
from workers.models import StaleHour

SOON = timedelta(minutes=1)
"""So long after its receipt nothing needs to be noted: its minute is tallied much later than that."""
_NEAR = timedelta(seconds=5)
"""How far the time in an event's id may be from that of its receipt."""


def mark(connection: Connection, event_ids: Sequence[str], now: datetime) -> None:
    """Note that these events, or their runs, have changed; of those that were received just now, nothing."""
    latest = ids.first("evt", now - SOON)
    late = [event_id for event_id in event_ids if event_id < latest]
    if not late:
        return
    moments = {ids.moment(event_id) for event_id in late}
    hours = {hour_of(moment - away) for moment in moments for away in (timedelta(0), _NEAR)}
    connection.execute(insert(StaleHour), [{"id": ids.new("sth"), "at": at} for at in sorted(hours)])


def hour_of(moment: datetime) -> datetime:
    """When the hour of a moment began."""
    return moment.replace(minute=0, second=0, microsecond=0)
