from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from receiver import app as receiver_app
from tests.receiver.edge import Edge, serving
from workers.app import Runtime

Serve = Callable[..., Edge]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, runtime: Runtime) -> Iterator[Serve]:
    """Start a receiver over a runtime, with other settings where the test gives some; ended before `runtime`."""
    # The application tunes the collector of a process of its own; this process is not.
    monkeypatch.setattr(receiver_app, "gc", SimpleNamespace(collect=int, freeze=int, set_threshold=lambda *_: None))
    with ExitStack() as running:

        def start(runtime: Runtime, **changes: Any) -> Edge:
            changed = Runtime(runtime.settings.model_copy(update=changes), runtime.engine, runtime.redis)
            app = receiver_app.create_app(changed)
            proxies = changed.settings.trusted_proxies
            return running.enter_context(serving(app, trusted_proxies=proxies, take=app.take))

        yield start


@pytest.fixture
def edge(serve: Serve, runtime: Runtime) -> Edge:
    """A receiver that runs, on each of the two pairs of servers."""
    return serve(runtime)
