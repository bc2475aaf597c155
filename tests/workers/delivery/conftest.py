"""A courier whose clock is turned, and a subscriber."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.workers.delivery.given import LEASE, Subscriber, a_sender, subscribing
from tests.workers.given import Clock
from workers.app import Runtime
from workers.delivery.deliver import Courier
from workers.delivery.gate import Gate
from workers.vault import open_vault


@pytest.fixture
def subscriber() -> Iterator[Subscriber]:
    with subscribing() as seen:
        yield seen


@pytest.fixture
def courier(runtime: Runtime, clock: Clock) -> Iterator[Courier]:
    sender = a_sender(deadline=5.0, now=clock.seconds)
    yield Courier(
        engine=runtime.engine,
        vault=open_vault(runtime.settings),
        sender=sender,
        gate=Gate(runtime.redis, runtime.settings.redis_prefix, LEASE),
        lease=LEASE,
        clock=clock,
        chance=lambda: 0.0,
    )
    sender.close()
