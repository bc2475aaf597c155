"""Every event of an invoice goes into a queue, for programs that are not Billhook's.

The queue is yours. `queue` makes the connection; here a folder stands in for it, `QUEUE_FOLDER`, with a file for each
message, so that the recipe runs as it is. What to write in its place:

    SQS         sqs.send_message(QueueUrl=URL, MessageBody=body, MessageDeduplicationId=key, MessageGroupId=group)
    RabbitMQ    channel.basic_publish(EXCHANGE, "invoices", body, BasicProperties(message_id=key, delivery_mode=2))
    Redis       client.xadd("invoices", {"id": key, "body": body})

Only for one that speaks no HTTP: to an address on the web, emit an event and add an endpoint.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

from handlers import Context, Event, on


@on("invoice.*", concurrency=4)
def forward(event: Event, ctx: Context) -> None:
    """Put the event into the queue, under its id: a process may die before this is written down, and do it again.

    `concurrency`: at most four at a time over all workers, which is as many connections as the queue gets to see.
    """
    message = {
        "id": event.id,
        "type": event.type,
        "occurred_at": event.occurred_at.isoformat(),
        "data": dict(event.data),
    }
    queue().publish(event.id, json.dumps(message))


@cache
def queue() -> FolderQueue:
    """The connection, made when it is first needed: a worker forks after it has loaded this module."""
    return FolderQueue(Path(os.environ.get("QUEUE_FOLDER", "queue")))


class FolderQueue:
    """A file for each message; whoever takes one deletes its file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def publish(self, key: str, body: str) -> None:
        """Raises OSError where the message cannot be kept."""
        unfinished = self._folder / f"{key}.{os.getpid()}"
        unfinished.write_text(body, "utf-8")
        unfinished.replace(self._folder / f"{key}.json")
