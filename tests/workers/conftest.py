"""What tests of the engine stand on: a dispatcher with handlers of the test's own, by a clock that is turned."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from handlers.registry import Registry
from tests.workers.given import Clock
from workers.app import Runtime
from workers.clients import Clients
from workers.dispatch import Dispatcher


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry() -> Registry:
    """The handlers of this test."""
    return Registry()


@pytest.fixture
def dispatcher(
    runtime: Runtime, registry: Registry, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Dispatcher]:
    """In no hurry: however slow the machine is, it hands nothing back."""
    monkeypatch.setattr("workers.dispatcher.SLICE", 60.0)
    monkeypatch.setattr("workers.batch._PATIENCE", 60.0)
    with Clients(runtime.settings) as clients:
        yield Dispatcher(
            engine=runtime.engine,
            settings=runtime.settings.model_copy(update={"lease_grace": 240.0}),
            registry=registry,
            clients=clients,
            clock=clock,
            chance=lambda: 0.0,
        )
