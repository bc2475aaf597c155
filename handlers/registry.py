"""Which function handles which event: `@on`, and the table of what it registered."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import FrameType
from typing import Any, Never, Self, TypeVar

from handlers import checks
from handlers.context import Context
from handlers.errors import RegistrationError
from handlers.event import Event

Function = Callable[[Event, Context], Awaitable[None] | None]
F = TypeVar("F", bound=Function)
Limit = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where `on` was called."""

    file: str
    line: int
    module: str

    @classmethod
    def of(cls, frame: FrameType) -> Self:
        """The line that a frame is at."""
        name = frame.f_code.co_filename
        file = name if name.startswith("<") else os.path.abspath(name)  # <stdin> is no file
        return cls(file, frame.f_lineno, str(frame.f_globals.get("__name__", "")))

    def __str__(self) -> str:
        return f"{short(self.file)}:{self.line}"


def short(path: str) -> str:
    """A path as people read it: from the folder they stand in, where it lies below that."""
    here = os.path.join(os.getcwd(), "")
    return path.removeprefix(here)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A registered function and how it wants to be run. `timeout` and `backoff` are seconds."""

    name: str
    function: Function
    patterns: tuple[str, ...]
    provider: str | None
    source: str | None
    retries: int
    backoff: float
    timeout: float
    ordered: bool = False
    """Whether the runs of one object follow each other, by `occurred_at`."""
    concurrency: int | None = None
    """How many of its runs may be at work at once, over all workers."""
    when: Callable[[Event], bool] | None = None
    """A further condition on the event."""
    place: Place | None = None
    """Where it was registered."""

    def hears(self, event_type: str, *, provider: str | None = None, source: str | None = None) -> bool:
        """Whether events of that type are for this handler, as far as `when` does not say; None stands for any."""
        return (
            any(matches(pattern, event_type) for pattern in self.patterns)
            and (provider is None or self.provider in (None, provider))
            and (source is None or self.source in (None, source))
        )

    def wants(self, event: Event, limit: Limit = nullcontext) -> bool:
        """Whether this handler is for that event.

        `limit` bounds the time of `when`. Where that raises anything, or takes longer, it is: the run that follows
        asks `when` again, and its failure is recorded and tried again like any other. An event is never dropped
        because a condition could not be told.
        """
        if not self.hears(event.type, provider=event.provider, source=event.source):
            return False
        if self.when is None:
            return True
        try:
            with limit():
                return bool(self.when(event))
        except KeyboardInterrupt:
            raise
        except BaseException:
            return True


def matches(pattern: str, event_type: str) -> bool:
    """Whether `invoice.paid` is meant by `invoice.paid`, `invoice.*` or `*`."""
    if pattern.endswith("*"):
        return event_type.startswith(pattern[:-1])
    return pattern == event_type


def valid_pattern(pattern: str) -> bool:
    """Whether this is an event type, or one that ends in `.*`, or `*`."""
    return checks.PATTERN.fullmatch(pattern) is not None


class Registry:
    """The handlers of one process, in order of registration."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._unused: dict[object, Place] = {}

    def on(
        self,
        /,
        *patterns: str,
        provider: str | None = None,
        source: str | None = None,
        retries: int = 8,
        backoff: float = 2.0,
        timeout: float = 30.0,
        ordered: bool = False,
        concurrency: int | None = None,
        when: Callable[[Event], bool] | None = None,
        name: str | None = None,
        **unknown: Never,
    ) -> Callable[[F], F]:
        """Register the decorated function for events whose type matches one of `patterns`.

        A pattern is `invoice.paid`, `invoice.*` or `*`. `provider` and `source` narrow down whose events, and `when`, a
        plain function of the event, which of them. `retries` after the first attempt (0 to 1000), waiting `backoff`
        seconds, then twice as long each time, up to six hours; `timeout` in seconds, up to a day, ends one attempt.
        `ordered` has the runs of one object follow each other; `concurrency` is how many runs may be at work at
        once, over all workers. `name` (default: module and function) is what its runs are recorded under: keep it
        when the function moves. Raises RegistrationError, which names file and line, when something is wrong.
        """
        place = Place.of(sys._getframe(1))
        options: dict[str, Any] = {
            "provider": provider,
            "source": source,
            "retries": retries,
            "backoff": backoff,
            "timeout": timeout,
            "ordered": ordered,
            "concurrency": concurrency,
            "when": when,
            "name": name,
        }
        _refuse(place, checks.of_options(options, unknown))
        _refuse(place, checks.of_patterns(patterns))
        token = object()
        self._unused[token] = place

        def register(function: F) -> F:
            self._unused.pop(token, None)
            _refuse(place, checks.of_function(function))
            chosen = options | {"name": name or _name(function, place)}
            self._add(Handler(function=function, patterns=patterns, place=place, **chosen), place)
            return function

        return register

    def _add(self, handler: Handler, place: Place) -> None:
        other = self._handlers.get(handler.name)
        if other is not None:
            raise RegistrationError(
                f"{place}: there is a handler {handler.name} already, at {other.place}: "
                'give one of them a name of its own, as in @on("invoice.paid", name="receipts")'
            )
        self._handlers[handler.name] = handler

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._handlers.values())

    def wanting(self, event: Event, limit: Limit = nullcontext) -> list[Handler]:
        """The handlers for an event; `limit` bounds the time of each one's `when`."""
        return [handler for handler in self._handlers.values() if handler.wants(event, limit)]

    def get(self, name: str) -> Handler | None:
        """The handler of that name; None where this process has not loaded it."""
        return self._handlers.get(name)

    def forget(self, names: Iterable[str]) -> None:
        """Drop handlers, as those of a module that did not load to its end."""
        for name in names:
            del self._handlers[name]

    @property
    def unused(self) -> list[Place]:
        """Where `on` was called and decorated nothing."""
        return list(self._unused.values())


def _refuse(place: Place, complaints: Iterator[str]) -> None:
    for complaint in complaints:
        raise RegistrationError(f"{place}: {complaint}")


def _name(function: Function, place: Place) -> str:
    try:
        name = f"{function.__module__}.{function.__qualname__}"
    except AttributeError:
        shown = checks.shown(function)
        raise RegistrationError(f'{place}: {shown} has no name of its own: give it one, name="receipts"') from None
    _refuse(place, checks.of_name(name))
    return name


REGISTRY = Registry()
on = REGISTRY.on
