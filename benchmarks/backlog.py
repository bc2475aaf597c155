"""Events to be processed, and history that stands in their way: both written past the receiver, for speed."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime

import orjson
from sqlalchemy import Engine, text

from handlers.providers import PROVIDERS
from workers import database, ids, inbox
from workers.inbox import Arrival

_TOGETHER = 500
_number = itertools.count(1)


def store(engine: Engine, count: int) -> list[str]:
    """Store so many different events as the receiver does, without ringing; their ids."""
    stored: list[str] = []
    arrivals = _arrivals()
    while len(stored) < count:
        batch = list(itertools.islice(arrivals, min(_TOGETHER, count - len(stored))))
        inbox.accept(engine, batch)
        stored += [arrival.id for arrival in batch]
    return stored


def _arrivals() -> Iterator[Arrival]:
    provider = PROVIDERS["hisab"]
    inbound = provider.inbound({})
    sample = provider.sample("invoice.paid")
    for number in _number:
        body = orjson.dumps({**sample, "data": {**sample["data"], "id": f"inv_{number}"}})
        digest = hashlib.sha256(body)
        yield Arrival(
            id=ids.new("evt"),
            source="shop",
            received_at=datetime.now(UTC),
            event=inbound.parse([], body),
            delivery_id=f"del_{number}",
            event_key=digest.hexdigest(),
            body_hash=digest.digest(),
            headers={},
        )


_EVENTS = """
INSERT INTO events (id, source, provider, delivery_id, event_key, type, object_kind, object_id, occurred_at,
                    received_at, headers, body, body_hash, status)
SELECT 'evt_00' || lpad(n::text, 24, '0'), 'shop', 'hisab', 'old_' || n, md5(n::text) || md5((-n)::text),
       'invoice.paid', 'invoice', 'old_' || n % 100000, moment, moment, '{}', :body, sha256(n::text::bytea), 'processed'
FROM (SELECT n, now() - interval '30 days' + n * interval '1 second' AS moment
      FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n) AS numbered
"""
_RUNS = """
INSERT INTO handler_runs (id, event_id, handler, status, starts, fence, attempts, next_attempt_at, created_at, ended_at,
                          lane, occurred_at)
SELECT replace(id, 'evt', 'run'), id, 'bench_handlers.nothing', 'succeeded', 1, 1, 1, received_at, received_at,
       received_at, 'shop/invoice/' || object_id, occurred_at
FROM events WHERE id BETWEEN :first AND :last
"""
_AT_ONCE = 50_000


def age(engine: Engine, upto: int) -> None:
    """Have an empty database hold so many ended events with their runs. PostgreSQL only."""
    body = orjson.dumps(PROVIDERS["hisab"].sample("invoice.paid"))
    for first in range(1, upto + 1, _AT_ONCE):
        last = min(first + _AT_ONCE - 1, upto)
        with database.write(engine) as connection:
            connection.execute(text(_EVENTS), {"first": first, "last": last, "body": body})
            named = {"first": f"evt_00{first:024d}", "last": f"evt_00{last:024d}"}
            connection.execute(text(_RUNS), named)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
