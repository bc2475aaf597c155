"""Which function handles which event: `@on`, and loading the modules of a user that call it."""

from __future__ import annotations

import glob
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from handlers.context import Context
from handlers.errors import RegistrationError
from handlers.event import Event

Function = Callable[[Event, Context], Awaitable[None] | None]
F = TypeVar("F", bound=Function)

_PATTERN = re.compile(r"\*|[a-z0-9_]+(\.[a-z0-9_]+)*(\.\*)?")


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

    def wants(self, event: Event) -> bool:
        """Whether this handler is for that event."""
        return (
            any(matches(pattern, event.type) for pattern in self.patterns)
            and self.provider in (None, event.provider)
            and self.source in (None, event.source)
        )


def matches(pattern: str, event_type: str) -> bool:
    """Whether `invoice.paid` is meant by `invoice.paid`, `invoice.*` or `*`."""
    if pattern.endswith("*"):
        return event_type.startswith(pattern[:-1])
    return pattern == event_type


def valid_pattern(pattern: str) -> bool:
    """Whether this is an event type, or one that ends in `.*`, or `*`."""
    return _PATTERN.fullmatch(pattern) is not None


class Registry:
    """The handlers of one process, in order of registration."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def on(
        self,
        *patterns: str,
        provider: str | None = None,
        source: str | None = None,
        retries: int = 8,
        backoff: float = 2.0,
        timeout: float = 30.0,
        name: str | None = None,
    ) -> Callable[[F], F]:
        """Register the decorated function for events whose type matches one of `patterns`.

        `retries` after the first attempt, waiting `backoff` seconds, then twice as long each time; `timeout`
        in seconds ends one attempt. `name` (default: module and function) is what its runs are recorded under:
        keep it when the function moves. Raises RegistrationError at import when something is wrong.
        """

        if any(not isinstance(pattern, str) for pattern in patterns):
            raise RegistrationError('@on needs an event type, such as @on("invoice.paid")')

        def register(function: F) -> F:
            handler = Handler(
                name=name or _name(function),
                function=function,
                patterns=patterns,
                provider=provider,
                source=source,
                retries=retries,
                backoff=backoff,
                timeout=timeout,
            )
            _check(handler, self._handlers)
            self._handlers[handler.name] = handler
            return function

        return register

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._handlers.values())

    def wanting(self, event: Event) -> list[Handler]:
        """The handlers for an event."""
        return [handler for handler in self._handlers.values() if handler.wants(event)]

    def get(self, name: str) -> Handler | None:
        """The handler of that name; None where this process has not loaded it."""
        return self._handlers.get(name)


def _name(function: Function) -> str:
    try:
        return f"{function.__module__}.{function.__qualname__}"
    except AttributeError:
        raise RegistrationError(f"{function!r} has no name of its own: give it one with name=") from None


def _check(handler: Handler, known: dict[str, Handler]) -> None:
    where = f"handler {handler.name}"
    if not handler.patterns:
        raise RegistrationError(f'{where}: @on needs an event type, such as @on("invoice.paid")')
    for pattern in handler.patterns:
        if not valid_pattern(pattern):
            raise RegistrationError(f"{where}: {pattern!r} is not an event type, a prefix with .* or *")
    if handler.name in known:
        raise RegistrationError(f"{where}: registered twice; give one of them another name=")
    if handler.retries < 0 or handler.backoff <= 0 or handler.timeout <= 0:
        raise RegistrationError(f"{where}: retries must not be negative, backoff and timeout must be above 0")
    try:
        inspect.signature(handler.function).bind(object(), object())
    except TypeError:
        raise RegistrationError(f"{where}: the function must take (event, context)") from None
    if inspect.isgeneratorfunction(handler.function) or inspect.isasyncgenfunction(handler.function):
        raise RegistrationError(f"{where}: the function must not yield: calling a generator runs nothing of it")


REGISTRY = Registry()
on = REGISTRY.on


def load(names: Iterable[str]) -> list[ModuleType]:
    """Import modules of handlers by dotted name, file or glob. Raises RegistrationError in one line."""
    modules = []
    for name in names:
        if name.endswith(".py") or "/" in name:
            files = sorted(glob.glob(name, recursive=True))
            if not files:
                raise RegistrationError(f"no file matches {name}")
            modules += [_load(Path(file).stem, file) for file in files]
        else:
            modules.append(_load(name, None))
    return modules


def _load(name: str, file: str | None) -> ModuleType:
    if name == "handlers":
        raise RegistrationError("`handlers` is Billhook's own package: give your module another name")
    # A console script does not look in the folder it is started in; users' modules stand there.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    if file is not None and name in sys.modules:
        raise RegistrationError(f"{file}: there is another module named {name}: give the file another name")
    try:
        if file is None:
            return importlib.import_module(name)
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ImportError("not a Python file")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        reason = " ".join(str(error).split())
        raise RegistrationError(
            f"{file or name} does not load: {type(error).__name__}: {reason}{_place(error)}"
        ) from None


def _place(error: BaseException) -> str:
    """Where in the user's code it went wrong; nothing where no line of theirs ran."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno})"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        ours = frame.filename == __file__ or frame.filename.startswith("<frozen") or "/importlib/" in frame.filename
        if not ours:
            return f" ({frame.filename}:{frame.lineno})"
    return ""
