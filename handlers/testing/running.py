"""One start of a handler in memory: `run` calls it as a worker does, and says what came of it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import orjson
import structlog
from structlog.testing import LogCapture

from handlers.context import Context, Pause, decode
from handlers.errors import Discard, Retry
from handlers.event import Event
from handlers.registry import REGISTRY, Function, Handler
from handlers.testing import trace
from handlers.testing.memory import Clients, InMemory, Run, Store

When = Callable[[Event], bool]
Outcome = Literal["succeeded", "discarded", "paused", "retry", "failed"]


class Emitted(NamedTuple):
    """A message that would be sent on."""

    type: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What came of one start of a handler."""

    handler: str
    event: Event
    attempt: int
    outcome: Outcome
    """`retry`: it raised Retry; `failed`: anything else but Discard."""
    error: BaseException | None = None
    """What it raised: Retry and Discard too."""
    emitted: list[Emitted] = field(default_factory=list)
    """Empty unless it succeeded: only then is anything sent."""
    keys: list[str] = field(default_factory=list)
    """What tells the emitted ones apart; a start that repeats them sends nothing twice."""
    steps: dict[str, Any] = field(default_factory=dict)
    """The results of its steps so far, those of earlier starts too, by name. `pause 1` is one."""
    paused_until: datetime | None = None
    log: list[MutableMapping[str, Any]] = field(default_factory=list)
    """What it logged: `event` is the sentence, `log_level` the level."""
    seconds: float
    store: Store = field(repr=False)
    """For the next start."""

    @property
    def trace(self) -> str:
        """The traceback of `error`, of the author's own code alone; empty where nothing was raised."""
        return "" if self.error is None else trace.of(self.error)


def run(
    handler: Function | Handler,
    event: Event,
    *,
    clients: Clients | None = None,
    now: datetime | None = None,
    store: Store | None = None,
    attempt: int | None = None,
    replay: bool = False,
) -> Ran:
    """Start a handler on an event in memory, plain or `async def`, registered or not, and say what came of it.

    `clients` has what `ctx.client` returns, by source or provider; another one is ProviderUnavailable, as it is where
    a source has no API key. `now` is the time for pauses (default: the clock). With the `store` of an earlier start
    this is another start of the same run: its steps have returned, its pauses are over when `now` says so; a start
    after a success stands for a process that died before the success was written, unless it is a `replay`. A
    store with other events makes `once` and `is_stale` know those. `attempt` follows from the store where it is not
    given. Whether the handler wants the event is not asked, except of its `when`; its timeout does not end it.
    """
    name, function, when = _known(handler)
    durable = InMemory(
        store=Store() if store is None else store,
        handler=name,
        event=event,
        clock=lambda: datetime.now(UTC) if now is None else now,
        clients={} if clients is None else clients,
        replay=replay,
    )
    kept = durable.begin()
    lines = LogCapture()
    context = Context(
        event=event,
        attempt=kept.failures + 1 if attempt is None else attempt,
        first_seen=event.received_at or event.occurred_at,
        replay=replay,
        logger=_logger(lines, event, name),
        durable=durable,
    )
    started = time.perf_counter()
    outcome, error = _start(function, when, event, context)
    if context.paused_until is not None:  # whatever became of the Pause on its way, as in a worker
        outcome, error = "paused", Pause(context.paused_until)
    seconds = time.perf_counter() - started
    _write(durable, kept, outcome)
    sent = context.emitted if outcome == "succeeded" else []
    return Ran(
        handler=name,
        event=event,
        attempt=context.attempt,
        outcome=outcome,
        error=None if isinstance(error, Pause) else error,
        emitted=[Emitted(emit.type, orjson.loads(emit.data)) for emit in sent],
        keys=[emit.key for emit in sent],
        steps={step: decode(value) for step, value in kept.steps.items()},
        paused_until=error.until if isinstance(error, Pause) else None,
        log=lines.entries,
        seconds=seconds,
        store=durable.store,
    )


def _known(handler: Function | Handler) -> tuple[str, Function, When | None]:
    if not isinstance(handler, Handler):
        function = handler
        registered = next((one for one in REGISTRY if one.function is function), None)
        if registered is None:
            own = getattr(function, "__qualname__", type(function).__qualname__)
            return f"{function.__module__}.{own}", function, None
        handler = registered
    return handler.name, handler.function, handler.when


def _logger(lines: LogCapture, event: Event, handler: str) -> structlog.typing.FilteringBoundLogger:
    everything = structlog.make_filtering_bound_logger(logging.NOTSET)
    made = structlog.wrap_logger(None, processors=[lines], wrapper_class=everything, context_class=dict)
    bound: structlog.typing.FilteringBoundLogger = made.bind(event_id=event.id, handler=handler)
    return bound


def _start(
    function: Function, when: When | None, event: Event, context: Context
) -> tuple[Outcome, BaseException | None]:
    """Call it as a worker does, without a time limit."""
    try:
        if when is not None and not when(event):
            raise Discard("its `when` does not want this event")
        returned: Any = function(event, context)
        if inspect.isawaitable(returned):
            asyncio.run(_awaited(returned))
    except Pause as pause:
        return "paused", pause
    except Discard as discard:
        return "discarded", discard
    except Retry as retry:
        return "retry", retry
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a handler that exits or is cancelled has failed, here as in a worker
        return "failed", error
    return "succeeded", None


async def _awaited(returned: Awaitable[None]) -> None:
    await returned


def _write(durable: InMemory, kept: Run, outcome: Outcome) -> None:
    if outcome == "succeeded":
        durable.succeed()
    elif outcome in {"failed", "retry"}:
        kept.failures += 1
