"""How an endpoint did lately: its last attempts, how many succeeded, how long they took, what waits.

Attempts are found by their deliveries, of which the newest `SAMPLE` are looked at: so much is read at most, and of an
endpoint with fewer in these hours the figures are exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, func, select

from workers import database
from workers.delivery.deliveries import OPEN, Wanted, among, newest_ids
from workers.models import AnyRow, Attempt, Delivery

SAMPLE = 5_000
LAST = 20
"""Attempts that are shown one by one."""
_NEAR = 1_000
"""Deliveries among which the last attempts, and the last success, are looked for."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What became of the attempts of a span of time."""

    attempts: int
    succeeded: int
    p50_ms: int | None
    """Of those that were answered; None where none was."""
    p95_ms: int | None


@dataclass(frozen=True, slots=True)
class Vitals:
    """How an endpoint did lately."""

    waiting: int
    """Deliveries that are not ended."""
    last_success_at: datetime | None
    last_attempts: Sequence[AnyRow]
    """Newest first: the columns of the attempt but its response."""
    hour: Figures
    day: Figures


def vitals(engine: Engine, endpoint_id: str, now: datetime) -> Vitals:
    """How an endpoint did lately; nothing of one that is not there."""
    with database.read(engine) as connection:
        day = _attempts(connection, endpoint_id, now - timedelta(days=1))
        return Vitals(
            waiting=_waiting(connection, endpoint_id),
            last_success_at=_last_success(connection, endpoint_id),
            last_attempts=_last(connection, endpoint_id),
            hour=_figures([row for row in day if row.started_at >= now - timedelta(hours=1)]),
            day=_figures(day),
        )


def succeeded(attempt: AnyRow) -> bool:
    """Whether an attempt was answered with a 2xx, whole."""
    return attempt.error is None and attempt.status is not None and 200 <= attempt.status < 300


def _attempts(connection: Connection, endpoint_id: str, since: datetime) -> Sequence[AnyRow]:
    mine = newest_ids(Wanted(endpoint_id=endpoint_id), limit=SAMPLE)
    columns = (Attempt.started_at, Attempt.duration_ms, Attempt.status, Attempt.error)
    return connection.execute(select(*columns).where(Attempt.delivery_id.in_(mine), Attempt.started_at >= since)).all()


def _last(connection: Connection, endpoint_id: str) -> Sequence[AnyRow]:
    mine = newest_ids(Wanted(endpoint_id=endpoint_id), limit=_NEAR)
    columns = (Attempt.delivery_id, Attempt.number, Attempt.started_at, Attempt.duration_ms, Attempt.status)
    made = select(*columns, Attempt.error).where(Attempt.delivery_id.in_(mine))
    return connection.execute(made.order_by(Attempt.started_at.desc(), Attempt.id.desc()).limit(LAST)).all()


def _waiting(connection: Connection, endpoint_id: str) -> int:
    mine = (Delivery.endpoint_id == endpoint_id, among(OPEN))
    return connection.execute(select(func.count()).select_from(Delivery).where(*mine)).scalar_one()


def _last_success(connection: Connection, endpoint_id: str) -> datetime | None:
    near = newest_ids(Wanted(endpoint_id=endpoint_id, statuses=("succeeded",)), limit=_NEAR)
    return connection.execute(select(func.max(Delivery.ended_at)).where(Delivery.id.in_(near))).scalar()


def _figures(attempts: Sequence[AnyRow]) -> Figures:
    took = sorted(row.duration_ms for row in attempts if row.status is not None)
    done = sum(succeeded(row) for row in attempts)
    return Figures(len(attempts), done, _quantile(took, 0.5), _quantile(took, 0.95))


def _quantile(ordered: Sequence[int], share: float) -> int | None:
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None
