"""What a Billhook worker is compared with: a Celery application with a task that does nothing and one that delivers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time
from functools import cache

import httpx
import psycopg
from celery import Celery

QUEUE = "bare"

app = Celery("bare", broker=os.environ.get("BENCHMARK_REDIS_URL", "redis://127.0.0.1:6379/0"), set_as_current=False)
app.conf.update(
    broker_transport_options={"global_keyprefix": os.environ.get("BENCHMARK_PREFIX", "")},
    broker_connection_retry_on_startup=True,
    task_default_queue=QUEUE,
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=100,  # its fastest; with 1, as a Billhook worker has it, it loses a tenth
    worker_enable_remote_control=False,
    worker_send_task_events=False,
)


@app.task(name="bare.nothing")
def nothing(event_id: str) -> None:
    """The least a task can do."""


TABLE = "CREATE TABLE naive_attempts (delivery_id text, started_at float, duration float, status int, response bytea)"
_BODY = b"n" * 1024
_SECRET = b"benchmark-secret-0123456789abcde"


@cache
def _client() -> httpx.Client:
    return httpx.Client(trust_env=False, timeout=20.0)


@cache
def _connection() -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(os.environ["BENCHMARK_DATABASE_URL"], autocommit=True)


@app.task(name="bare.deliver")
def deliver(delivery_id: str) -> None:
    """Sign, POST with a pooled client, write the attempt down: what everybody writes first, and no retries yet."""
    began, timestamp = time.time(), str(int(time.time()))
    signed = hmac.digest(_SECRET, f"{delivery_id}.{timestamp}.".encode() + _BODY, hashlib.sha256)
    headers = {
        "content-type": "application/json",
        "webhook-id": delivery_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }
    answer = _client().post(os.environ["BENCHMARK_URL"], content=_BODY, headers=headers)
    attempt = (delivery_id, began, time.time() - began, answer.status_code, answer.content)
    _connection().execute("INSERT INTO naive_attempts VALUES (%s, %s, %s, %s, %s)", attempt)
