"""A delivery engine that dies by SIGKILL where an order says: the workers of `test_deliveries_killed` load this file.

An order is a file in the folder that the workers run in, such as `order.answered.process`: the process that comes by
that point first carries it out, and nobody else does. `….worker` has the whole worker die. Endpoints are
held off for a second at most: these are many accidents in a short time.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from workers.delivery import flight, health, notices
from workers.delivery.sender import Sender

health.THROTTLED = timedelta(seconds=0.2)
health.SHORTEST_HOLD = health.LONGEST_HOLD = timedelta(seconds=1)

_MOMENT = 0.02
"""Seconds in which a request has gone out to the slow endpoint, and its answer has not come back."""


def die(point: str, after: float = 0.0) -> None:
    """Die here if that is ordered, `after` seconds later."""
    for who in ("process", "worker"):
        if _carried_out(f"{point}.{who}"):
            time.sleep(after)
            if who == "worker":
                os.killpg(os.getpgrp(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)


def _carried_out(order: str) -> bool:
    try:
        Path(f"order.{order}").unlink()
    except FileNotFoundError:
        return False
    return True


def before(owner: Any, name: str, point: str) -> None:
    """Die on the way into a function of the engine."""
    original: Callable[..., Any] = getattr(owner, name)

    def deadly(*arguments: Any, **named: Any) -> Any:
        die(point)
        return original(*arguments, **named)

    setattr(owner, name, deadly)


def after(owner: Any, name: str, point: str, moment: float = 0.0) -> None:
    """Die on the way out of a function of the engine; where it returned something empty, nothing was done."""
    original: Callable[..., Any] = getattr(owner, name)

    def deadly(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        if result is None or result:
            die(point, moment)
        return result

    setattr(owner, name, deadly)


before(flight, "prepare", "unclaimed")
after(flight, "prepare", "claim_uncommitted")
before(Sender, "begin", "claimed")
after(Sender, "begin", "under_way", _MOMENT)
before(flight, "record", "answered")
before(notices, "tell", "record_uncommitted")
after(flight, "record", "recorded")
