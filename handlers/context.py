"""What a handler gets beside the event: which attempt this is, a logger, and ways to have an effect that lasts."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

import orjson

from handlers.errors import StepError
from handlers.event import Event, valid_type

if TYPE_CHECKING:
    import structlog

T = TypeVar("T")

MAX_STEP_BYTES = 1_048_576
"""The largest result of a step, written out."""
LONGEST_PAUSE = timedelta(days=366)
_JSON, _BYTES = b"j", b"b"
_PLAIN, _AWAITED = b"-", b"a"
_OURS = "billhook."
"""How the names of steps begin that are not a handler's own."""


@dataclass(frozen=True, slots=True)
class Emit:
    """An outbound event that a handler asked for; `data` is its JSON."""

    type: str
    data: bytes
    key: str


class Pause(BaseException):
    """Ends this start of a run until `until`. Not an Exception, so that a handler that catches those lets it pass."""

    def __init__(self, until: datetime) -> None:
        super().__init__(f"until {until.isoformat()}")
        self.until = until


class Durable(Protocol):
    """What outlives one start of a run: the engine keeps it in the database, a test in memory."""

    def now(self) -> datetime:
        """The time, UTC."""

    def client(self, source: str | None) -> Any:
        """The API client of a source. Raises ProviderUnavailable where there is none."""

    def recall(self, step: str) -> bytes | None:
        """What `record` kept under that name in this or an earlier start of the run."""

    def stepping(self, step: str) -> AbstractContextManager[Callable[[], object]]:
        """Note that a step is under way in the block; calling what it gives says that it is so in another block."""

    def record(self, step: str, value: bytes) -> None:
        """Keep a step's result from this moment on. Raises LeaseLost where the run is another process's by now."""

    def once(self, key: str) -> bool:
        """Take a key for this run; whether it is this run's and the run has not yet succeeded with it."""

    def is_stale(self) -> bool:
        """Whether this handler has succeeded on a newer event of the same object."""


@dataclass(slots=True, kw_only=True)
class Context:
    """One start of one handler on one event."""

    event: Event
    attempt: int
    """From 1; the same event was tried before when it is more."""
    first_seen: datetime
    """When the event was received, UTC."""
    replay: bool = False
    """Whether somebody asked for this run again after it had ended."""
    logger: structlog.typing.FilteringBoundLogger = field(repr=False)
    """Its lines carry the event's id and the handler's name."""
    durable: Durable = field(repr=False)
    emitted: list[Emit] = field(default_factory=list)
    paused_until: datetime | None = field(default=None, repr=False)
    """Set once this start has asked for a pause: then it has ended, whatever its code made of the Pause."""
    _named: set[str] = field(default_factory=set, repr=False)
    _pauses: int = field(default=0, repr=False)

    def emit(self, type: str, data: Mapping[str, Any], *, key: str | None = None) -> None:  # noqa: A002 - the field's word
        """Send an event on to every endpoint that wants its type, if and when this run succeeds.

        The message's id follows from event, handler and `key` (default: how many were emitted before), so
        that a repeated run sends nothing twice. Raises ValueError for a type that is not dotted lower-case
        words or begins with `billhook.`, a key used twice, or data that JSON cannot hold.
        """
        if not valid_type(type):
            raise ValueError(f"{type!r} is not an event type: dotted lower-case words, such as receipt.issued")
        if type.startswith("billhook."):
            raise ValueError(f"{type!r}: types that begin with billhook. are its own; choose another")
        key = str(len(self.emitted)) if key is None else f"={key}"
        if not key.isprintable():
            raise ValueError("an emit key has printable characters only")
        if any(emit.key == key for emit in self.emitted):
            raise ValueError(f"emit key {key[1:]!r} was used before in this run")
        try:
            # Decimal is money: written as a string, never as a float.
            encoded = orjson.dumps(dict(data), default=_encode)
        except TypeError as error:
            raise ValueError(f"the data of {type} is not JSON: {error}") from None
        self.emitted.append(Emit(type, encoded, key))

    def client(self, source: str | None = None) -> Any:
        """The API client of the event's source, or of another one by its name or its provider's.

        Raises ProviderUnavailable where there is no such source, or it has no API key.
        """
        return self.durable.client(source)

    @overload
    def step(self, name: str, function: Callable[[], Awaitable[T]]) -> Awaitable[T]: ...
    @overload
    def step(self, name: str, function: Callable[[], T]) -> T: ...
    def step(self, name: str, function: Callable[[], Any]) -> Any:
        """What `function()` returned, now or in an earlier start of this run: having returned, it is not called again.

        Its result is JSON or bytes, of at most 1 MiB, and comes back as JSON gives it: a tuple as a list, a date as a
        string. In an `async def` handler `function` may return an awaitable; then await the step. The result is kept
        the moment it is there; a process that dies between the effect and that moment repeats the step.
        Raises StepError for a name used twice in a start, or a result that cannot be kept.
        """
        if name.startswith(_OURS):
            raise StepError(f"a step's name does not begin with {_OURS}")
        self._name(name)
        kept = self.durable.recall(name)
        if kept is not None:
            value = decode(kept)
            return _done(value) if kept[:1] == _AWAITED else value
        with self.durable.stepping(name) as goes_on_later:
            value = function()
            if inspect.isawaitable(value):
                goes_on_later()
                return self._await_step(name, value)
        return self._keep(name, value, _PLAIN)

    def sleep_until(self, when: datetime) -> None:
        """Pause the run until `when`: the handler ends here, and is called again from its top then.

        The pause survives restarts, holds no process and counts as no attempt. Steps that have returned are not called
        again; what was emitted before the pause is emitted when the run is called again, and sent with its success. The
        first `when` of each pause is kept, so it may be reckoned from the present: pauses of one run are told apart
        by their order. Raises ValueError for a time without a zone, or more than 366 days away.
        """
        if when.tzinfo is None:
            raise ValueError("sleep_until needs a time with a zone, such as datetime.now(UTC) + timedelta(days=3)")
        self._pauses += 1
        name = f"{_OURS}pause.{self._pauses}"
        self._name(name)
        kept = self.durable.recall(name)
        now = self.durable.now()
        if kept is None:
            if when > now + LONGEST_PAUSE:
                raise ValueError(f"sleep_until reaches {LONGEST_PAUSE.days} days at most")
            self._keep(name, when.isoformat(), _PLAIN)
        else:
            when = datetime.fromisoformat(decode(kept))
        if when > now:
            self.paused_until = when
            raise Pause(when)

    def once(self, key: str) -> bool:
        """Whether the effect that `key` stands for is this run's to have: of all runs of this handler, one gets True.

        The run that asked first keeps the key through its retries, and when it is dead or discarded, for a replay that
        has the effect. Once it has succeeded it gets False, so that a replay does not repeat the effect. All others get
        False from the first moment on.
        """
        if not key or not key.isprintable() or len(key) > 200:
            raise ValueError("a once key has 1 to 200 printable characters")
        return self.durable.once(key)

    @property
    def is_stale(self) -> bool:
        """Whether this handler has already succeeded on a newer event of the same object (by `occurred_at`)."""
        return self.durable.is_stale()

    def _name(self, name: str) -> None:
        if not name or not name.isprintable() or len(name) > 200:
            raise StepError("a step's name has 1 to 200 printable characters")
        if name in self._named:
            raise StepError(f"step {name!r} was used before in this run: give each step its own name")
        self._named.add(name)

    def _keep(self, name: str, value: Any, called: bytes) -> Any:
        encoded = called + _encoded(name, value)
        if len(encoded) > MAX_STEP_BYTES:
            raise StepError(
                f"the result of step {name!r} has {len(encoded)} bytes, at most {MAX_STEP_BYTES} can be kept: "
                "return a reference to it"
            )
        self.durable.record(name, encoded)
        return decode(encoded)

    async def _await_step(self, name: str, value: Awaitable[Any]) -> Any:
        with self.durable.stepping(name):
            returned = await value
        return self._keep(name, returned, _AWAITED)


def _encoded(name: str, value: Any) -> bytes:
    if isinstance(value, bytes):
        return _BYTES + value
    try:
        return _JSON + orjson.dumps(value)
    except TypeError as error:
        raise StepError(
            f"the result of step {name!r} is neither JSON nor bytes: {error}; return what is needed of it"
        ) from None


def decode(kept: bytes) -> Any:
    """The result of a step as `Durable` keeps it: behind two letters that say how it was called, and what it is."""
    return kept[2:] if kept[1:2] == _BYTES else orjson.loads(kept[2:])


async def _done(value: Any) -> Any:
    return value


def _encode(value: object) -> str:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{value.__class__.__name__} has no JSON form")
