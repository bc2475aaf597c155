"""What tests of the engine stand on: a dispatcher with handlers of the test's own, by a clock that is turned."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from pydantic import SecretStr

from handlers.providers.http import watch
from handlers.registry import Registry
from tests.acceptance.watchers import Collector
from tests.conftest import SECRET
from tests.workers.given import Clock
from workers import observing
from workers.app import Runtime
from workers.clients import Clients
from workers.dispatch import Dispatcher
from workers.settings import Settings, Source


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


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector of traces; nobody is told of it."""
    with Collector() as server:
        yield server


@pytest.fixture
def traced(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Where the spans of this process go, with `tracing.stop` at the latest."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    # OpenTelemetry allows a process one provider; each test has its own.
    monkeypatch.setattr(trace, "set_tracer_provider", lambda _provider: None)
    source = Source(provider="hisab", secrets=(SecretStr(SECRET),))
    observing.start(Settings(sources={"shop": source}), "test")
    yield collector
    observing.stop()
    watch(None)
