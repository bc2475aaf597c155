"""What a handler leaves behind, in memory: a test's stand-in for the database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from handlers.errors import ProviderUnavailable
from handlers.event import Event

Clients = Mapping[str, Any] | Callable[[str | None], Any]
"""By source or provider, or what `ctx.client` is to call."""


@dataclass(slots=True)
class Run:
    """One handler on one event: what its starts have left so far."""

    steps: dict[str, bytes] = field(default_factory=dict)
    failures: int = 0
    succeeded: bool = False


@dataclass(slots=True)
class Store:
    """What outlives a start: steps, once keys, and what was handled. Give it to the next `run` that shall know it.

    It may hold the runs of several handlers on several events, as the database does.
    """

    runs: dict[tuple[str, str], Run] = field(default_factory=dict)
    """By handler and event id."""
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    """By handler and once key: the event whose run took it."""
    spent: set[tuple[str, str]] = field(default_factory=set)
    """The once keys whose runs succeeded."""
    newest: dict[tuple[str, str, str, str], datetime] = field(default_factory=dict)
    """By handler, source, kind and id of an object: when the newest event of it occurred that was handled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InMemory:
    """The `Durable` of one start."""

    store: Store
    handler: str
    event: Event
    clock: Callable[[], datetime]
    clients: Clients
    replay: bool

    def begin(self) -> Run:
        """The run as this start finds it.

        A success that is started again without being a replay was not written down: its process died just before.
        """
        run = self._run
        if self.replay:
            run.failures = 0
            if run.succeeded:
                run.steps.clear()
        else:
            self.store.spent -= self._keys
        run.succeeded = False
        return run

    def succeed(self) -> None:
        """Write down that the handler returned."""
        self._run.succeeded = True
        self.store.spent |= self._keys
        if (object_ := self._object) is not None:
            occurred_at = self.event.occurred_at
            self.store.newest[object_] = max(self.store.newest.get(object_, occurred_at), occurred_at)

    def now(self) -> datetime:
        return self.clock()

    def client(self, source: str | None) -> Any:
        if callable(self.clients):
            return self.clients(source)
        own = (self.event.source, self.event.provider)
        names = own if source is None or source in own else (source,)
        for name in (source, *names):
            if name is not None and name in self.clients:
                return self.clients[name]
        raise ProviderUnavailable("NO_SOURCE", f"there is no client {names[0]!r}: run(…, clients={{{names[0]!r}: …}})")

    def recall(self, step: str) -> bytes | None:
        return self._run.steps.get(step)

    def stepping(self, step: str) -> AbstractContextManager[Callable[[], object]]:
        return nullcontext(lambda: None)

    def record(self, step: str, value: bytes) -> None:
        self._run.steps[step] = value

    def once(self, key: str) -> bool:
        taken = (self.handler, key)
        return self.store.keys.setdefault(taken, self.event.id) == self.event.id and taken not in self.store.spent

    def is_stale(self) -> bool:
        newest = None if self._object is None else self.store.newest.get(self._object)
        return newest is not None and newest > self.event.occurred_at

    @property
    def _run(self) -> Run:
        return self.store.runs.setdefault((self.handler, self.event.id), Run())

    @property
    def _keys(self) -> set[tuple[str, str]]:
        return {
            key for key, event_id in self.store.keys.items() if key[0] == self.handler and event_id == self.event.id
        }

    @property
    def _object(self) -> tuple[str, str, str, str] | None:
        if self.event.object_id is None:
            return None
        return (self.handler, self.event.source, self.event.object_kind or "", self.event.object_id)
