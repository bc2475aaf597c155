"""A history to look through: a million events over five weeks, with what handlers and endpoints made of them.

Shares are uneven on purpose: some types, sources, objects and outcomes are rare, and some go only with each other.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta

import psycopg
from ulid_transform import bytes_to_ulid

DAYS = 34
"""Within the retention time, so that nothing of it is deleted meanwhile."""

_EVENTS = """
INSERT INTO events (id, source, provider, delivery_id, event_key, type, organization, object_kind, object_id,
                    occurred_at, received_at, headers, body, body_hash, status, ring_at)
SELECT 'evt_' || ulid, source, 'hisab', 'del_' || n, md5('a' || n) || md5('b' || n),
       CASE WHEN source = 'kiosk' THEN 'charge.captured' WHEN n % 100000 = 7 THEN 'customer.merged'
            ELSE (ARRAY['invoice.paid', 'invoice.created', 'invoice.sent', 'invoice.finalized', 'invoice.overdue',
                        'customer.created', 'customer.updated', 'invoice.voided'])[1 + (n * 7919::bigint) % 8] END,
       'org_' || n % 3, 'invoice', 'inv_' || CASE WHEN n % 50 = 0 THEN 0 ELSE n / 4 END, at, at, '{}',
       convert_to('{"event":"invoice.paid","data":{"number":' || n || ',"note":"' || repeat('x', 900) || '"}}', 'UTF8'),
       decode(md5('a' || n) || md5('b' || n), 'hex'), status,
       CASE WHEN status = 'waiting' THEN at + interval '5 s' END
FROM (SELECT *,
        CASE WHEN n % 100 < 50 THEN 'shop' WHEN n % 100 < 80 THEN 'outlet' WHEN n % 100 < 98 THEN 'market'
             WHEN n % 20000 = 98 THEN 'rare' ELSE 'kiosk' END AS source,
        CASE WHEN n > %(events)s - 20 THEN 'waiting' WHEN n % 1000 < 3 THEN 'dead' WHEN n % 1000 < 60 THEN 'ignored'
             ELSE 'processed' END AS status
      FROM seeds) AS drawn
"""
_RUNS = """
INSERT INTO handler_runs (id, event_id, handler, status, starts, fence, next_attempt_at, ring_at, attempts, pauses,
                          replays, lane, ordered, occurred_at, created_at, ended_at, duration_ms, error)
SELECT 'run_' || left(ulid, 25) || k, 'evt_' || ulid, handler,
       CASE WHEN n % 1000 < 3 THEN 'dead' ELSE 'succeeded' END, 1, 1, at, NULL, 1, 0, 0, NULL, false, at, at, at,
       k * (1 + (n * 37) % 400) + CASE WHEN n % 50 = 0 THEN (n * 13) % 45000 ELSE 0 END, NULL
FROM seeds,
     (VALUES (1, 'receipts.send', 1), (2, 'ledger.book', 5), (3, 'crm.sync', 20000)) AS handlers (k, handler, every)
WHERE (n % 1000 < 3 OR n % 1000 >= 60) AND n <= %(events)s - 20 AND n % every = 0
"""
_ENDPOINTS = """
INSERT INTO endpoints (id, url, description, event_types, status, created_at)
SELECT 'ep_' || k, 'https://example.com/' || k, '', '["*"]', 'enabled', now() FROM generate_series(1, 3) AS k
"""
_MESSAGES = """
INSERT INTO messages (id, event_id, source, type, body, created_at)
SELECT 'msg_' || ulid, 'evt_' || ulid, 'shop', 'receipt.issued', '{}', at FROM seeds
WHERE n % 4 = 0 AND n % 1000 >= 60 AND n <= %(events)s - 20
"""
_DELIVERIES = """
INSERT INTO deliveries (id, message_id, endpoint_id, status, starts, fence, next_attempt_at, attempts, created_at,
                        ended_at)
SELECT 'dlv_' || ulid, 'msg_' || ulid, 'ep_' || 1 + n % 3, 'succeeded', 1, 1, at, 1, at, at FROM seeds
WHERE n % 4 = 0 AND n % 1000 >= 60 AND n <= %(events)s - 20
"""
_ATTEMPTS = """
INSERT INTO attempts (id, delivery_id, number, started_at, duration_ms, status, error, response)
SELECT 'att_' || left(ulid, 25) || k, 'dlv_' || ulid, k, at,
       5 + (n * 31) % 200 + CASE WHEN n % 40 = 0 THEN 3000 ELSE 0 END,
       CASE WHEN k = 1 AND n % 40 = 0 THEN 500 ELSE 200 END, NULL, ''
FROM seeds, (VALUES (1), (2)) AS tries (k)
WHERE n % 4 = 0 AND n % 1000 >= 60 AND n <= %(events)s - 20 AND (k = 1 OR n % 40 = 0)
"""


def write_history(database_url: str, events: int, now: datetime, days: float = DAYS) -> None:
    """Fill an empty, migrated PostgreSQL database, up to `now`; a million events take about two minutes."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE seeds (n int, ulid text, at timestamptz)")
        began, apart = now - timedelta(days=days), timedelta(days=days) / events
        with connection.cursor().copy("COPY seeds FROM STDIN") as copy:
            for n in range(1, events + 1):
                at = began + n * apart
                stamp = int(at.timestamp() * 1000).to_bytes(6)
                copy.write_row((n, bytes_to_ulid(stamp + os.urandom(10)), at))
        for statement in (_EVENTS, _RUNS, _ENDPOINTS, _MESSAGES, _DELIVERIES, _ATTEMPTS):
            connection.execute(statement.replace("%(events)s", str(events)).encode())
        connection.execute("VACUUM (ANALYZE)")
