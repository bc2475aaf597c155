"""What one endpoint does to the others, and what an endpoint that comes back is met with."""

from __future__ import annotations

import socket
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from benchmarks.outbound import Ours, until
from benchmarks.servers import ServerError
from workers import app
from workers.leases import utcnow

GOOD = 5
"""Endpoints that messages trickle to."""
PACE = 0.05


@dataclass(frozen=True, slots=True)
class Lateness:
    """Seconds from a message's commit to its arrival."""

    p50: float
    p99: float


def lateness(ours: Ours, count: int, beside: str | None = None, queued: int = 0) -> Lateness:
    """How late so many messages arrive that trickle to good endpoints.

    `beside` is the URL of another, at which so many deliveries are queued all at once when the first trickles.
    """
    other = None
    if beside is not None:
        other = ours.endpoint(beside, "beside")
        _, delivery_ids = ours.publish("beside", queued)
        app.ring(app.DELIVER, delivery_ids)
        ours.sink.arrivals()
    committed = _trickle(ours, count)
    arrived: dict[str, float] = {}

    def all_arrived() -> bool:
        for message_id, at in ours.sink.arrivals():
            arrived.setdefault(message_id, at)
        return committed.keys() <= arrived.keys()

    until(all_arrived, 60.0)
    if other is not None:
        ours.give_up(other)
    # One may arrive before the clock is read after its commit.
    late = sorted(max(0.0, arrived[message_id] - at) for message_id, at in committed.items())
    return Lateness(late[count // 2], late[count * 99 // 100])


def _trickle(ours: Ours, count: int) -> dict[str, float]:
    """Publish so many messages, one each PACE seconds; when each was committed, by id."""
    committed, began = {}, time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, began + number * PACE - time.monotonic()))
        (message_id,), delivery_ids = ours.publish(f"good.{number % GOOD}", 1)
        committed[message_id] = time.time()
        app.ring(app.DELIVER, delivery_ids)
    return committed


def dead_url() -> str:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"http://127.0.0.1:{closed.getsockname()[1]}/hook"


def returning(ours: Ours, url: str, waiting: int, longest: float = 120.0) -> list[int]:
    """Arrivals in each second from the first on, at an endpoint that comes back after an hour, with so many waiting."""
    endpoint_id = ours.endpoint(url, "returning")
    began = utcnow() - timedelta(hours=1)
    ours.fail(endpoint_id, began, held_until=utcnow() + timedelta(hours=1))
    ours.publish("returning", waiting)
    ours.sink.arrivals()
    ours.fail(endpoint_id, began, held_until=utcnow())
    until(lambda: ours.sink.count() >= waiting, longest)
    arrivals = [at for _, at in ours.sink.arrivals()]
    if len(arrivals) != waiting:
        raise ServerError(f"{len(arrivals)} deliveries arrived of {waiting}")
    seconds = Counter(int(at - arrivals[0]) for at in arrivals)
    return [seconds[second] for second in range(max(seconds) + 1)]
