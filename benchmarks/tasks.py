"""What a Billhook worker is compared with: a Celery application with one task that does nothing."""

from __future__ import annotations

import os

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
