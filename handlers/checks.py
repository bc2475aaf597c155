"""What `on` accepts: its event types, its options, and the function. Each complaint says what to write instead.

What takes the table of providers or the settings to judge is in `handlers.vocabulary`; this here is cheap enough for
every import of a handler's module.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

PATTERN = re.compile(r"\*|[a-z0-9_]+(\.[a-z0-9_]+)*(\.\*)?")
MAX_RETRIES = 1_000
MAX_CONCURRENCY = 10_000
MAX_NAME = 200
LONGEST_BACKOFF = 6 * 3600.0
"""Seconds: no pause between two attempts grows beyond it, so a longer first one would be a promise not kept."""
LONGEST_TIMEOUT = 24 * 3600.0
"""Seconds: what waits longer sleeps (`ctx.sleep_until`) rather than holding a process."""

OPTIONS = ("provider", "source", "retries", "backoff", "timeout", "ordered", "concurrency", "when", "name")
_FOR_THE_PATTERN = frozenset({"event", "events", "event_type", "pattern", "patterns", "type", "types"})
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_OTHER_TYPE = re.compile(r"[a-zA-Z0-9_./:-]{0,50}[a-zA-Z0-9_]")
_CONTEXT_NAMES = frozenset({"context", "ctx"})
_RECEIVER_NAMES = frozenset({"cls", "self"})


def shown(value: object) -> str:
    """A value as a complaint quotes it: one short line, whatever it is."""
    try:
        name = getattr(value, "__name__", None)
        if callable(value) and isinstance(name, str):
            return name
        text = " ".join(repr(value).split())
    except Exception:  # whatever a stranger's object does, or an integer with too many digits
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:59]}…"


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that was probably meant."""
    import difflib

    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.6)), None)


def of_patterns(patterns: Sequence[object]) -> Iterator[str]:
    """What is wrong with the event types."""
    if not patterns:
        yield '@on needs an event type: @on("invoice.paid")'
    for pattern in patterns:
        if isinstance(pattern, str):
            if PATTERN.fullmatch(pattern) is None:
                yield _of_pattern(pattern)
        elif callable(pattern):
            yield f'@on stands above {shown(pattern)} without an event type: write @on("invoice.paid")'
        elif isinstance(pattern, (list, tuple, set, frozenset)):
            yield 'the event types stand one by one, not in a list: @on("invoice.paid", "invoice.voided")'
        else:
            yield f'an event type is a text such as "invoice.paid", not {shown(pattern)}'


def _of_pattern(pattern: str) -> str:
    """What to say about a text that is none; with what was probably meant."""
    if "," in pattern:
        return f'{shown(pattern)} is several event types in one text: write @on("invoice.paid", "invoice.voided")'
    if pattern.startswith("*"):
        return f"{shown(pattern)} is not an event type: a * stands alone, or at the end of a prefix as in invoice.*"
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", ".", pattern).lower()  # invoicePaid
    meant = re.sub(r"[^a-z0-9_]+", ".", words).strip(".")
    if meant and words.endswith((".", "*")):
        meant += ".*"
    hint = f"did you mean {meant}?" if meant and PATTERN.fullmatch(meant) else "write invoice.paid, invoice.* or *"
    if _OTHER_TYPE.fullmatch(pattern):  # senders have words of their own, such as orders/paid
        hint += f' Where a sender does write it so: @on("*", when=lambda event: event.type == "{pattern}")'
    return f"{shown(pattern)} is not an event type, which is lower-case words joined by dots: {hint}"


def of_options(options: Mapping[str, object], unknown: Mapping[str, object]) -> Iterator[str]:
    """What is wrong with the options; `unknown` are those that `on` does not have."""
    for name in unknown:
        yield _of_unknown(name)
    yield from _of_text("provider", options["provider"], "the name of one provider")
    yield from _of_text("source", options["source"], "the name of one source")
    yield from _of_whole("retries", options["retries"], 0, MAX_RETRIES)
    yield from _of_seconds("backoff", options["backoff"], LONGEST_BACKOFF)
    yield from _of_seconds("timeout", options["timeout"], LONGEST_TIMEOUT)
    if not isinstance(options["ordered"], bool):
        yield f"ordered is True or False, not {shown(options['ordered'])}"
    if options["concurrency"] is not None:
        yield from _of_whole(
            "concurrency", options["concurrency"], 1, MAX_CONCURRENCY, "; without it there is no limit"
        )
    if options["when"] is not None:
        yield from _of_when(options["when"])
    yield from of_name(options["name"])


def of_name(name: object) -> Iterator[str]:
    """What is wrong with the name that runs are recorded under; None is the function's own."""
    if name is None or (isinstance(name, str) and 0 < len(name) <= MAX_NAME and name.isprintable()):
        return
    yield f"name is 1 to {MAX_NAME} printable characters, not {shown(name)}"


def _of_unknown(name: str) -> str:
    if name in _FOR_THE_PATTERN:
        return f'the event types come first and without a name: @on("invoice.paid"), not {name}='
    near = nearest(name, OPTIONS)
    hint = f"did you mean {near}?" if near else f"there are {', '.join(OPTIONS)}"
    return f"@on has no option {name if name.isidentifier() else shown(name)}: {hint}"


def _of_text(name: str, value: object, what: str) -> Iterator[str]:
    if value is not None and not (isinstance(value, str) and value.strip()):
        yield f"{name} is {what}, as text, not {shown(value)}"


def _of_whole(name: str, value: object, least: int, most: int, more: str = "") -> Iterator[str]:
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return
    number = _as_number(value)
    hint = f": write {name}={number:.0f}" if number is not None and number % 1 == 0 and least <= number <= most else ""
    yield f"{name} is a whole number from {least} to {most}, not {shown(value)}{hint}{more}"


def _of_seconds(name: str, value: object, most: float) -> Iterator[str]:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= most:
        return
    number = _as_number(value)
    hint = f": write {name}={number:g}" if number is not None and 0 < number <= most else ""
    yield f"{name} is a number of seconds above 0, at most {most:.0f}, not {shown(value)}{hint}"


def _as_number(value: object) -> float | None:
    """The number that something else than a number stands for, where that is plain."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, float):
        return value
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else None


def _of_when(when: object) -> Iterator[str]:
    example = "when=lambda event: event.object_id is not None"
    if not callable(when):
        yield f"when is a function of the event, as in {example}, not {shown(when)}"
    elif _takes(when, 1) is False:
        yield f"when is a function of one argument, the event, as in {example}; {shown(when)} takes {_parameters(when)}"
    elif _is(inspect.iscoroutinefunction, when) or _yields(when):
        yield f"when is asked before the handler runs and cannot wait: {shown(when)} must be a plain function"


def of_function(function: object) -> Iterator[str]:
    """What is wrong with what `on` decorates."""
    name = shown(function)
    wanted = f"def {name if name.isidentifier() else 'handler'}(event: Event, ctx: Context)"
    if inspect.isclass(function):
        yield f"{name} is a class: @on stands above a function, def handler(event: Event, ctx: Context)"
    elif not callable(function):
        below = ": does the decorator below it return the function?" if function is None else ", which is no function"
        yield f"@on decorates {name}{below}"
    elif (first := _names(function)[:1]) and first[0] in _RECEIVER_NAMES:
        yield f"{name} is a method, since it takes {first[0]}, and has no object yet: make it a function, {wanted}"
    elif _takes(function, 2) is False:
        yield f"{name} takes {_parameters(function)}, but a handler takes an event and a context: {wanted}"
    elif (names := _names(function)[:2]) and names[0] in _CONTEXT_NAMES and names[1:] == ["event"]:
        yield f"{name} takes {_parameters(function)}, but the event comes first: {wanted}"
    elif _yields(function):
        yield f"{name} has a yield in it, so calling it runs nothing of it: a handler returns, and sends by ctx.emit"


def _signature(function: Any) -> inspect.Signature | None:
    """None where it does not say: not all of C does."""
    try:
        return inspect.signature(function)
    except Exception:
        return None


def _takes(function: Any, count: int) -> bool | None:
    """Whether it can be called with so many arguments; None where that is not known."""
    signature = _signature(function)
    if signature is None:
        return None
    try:
        signature.bind(*([None] * count))
    except TypeError:
        return False
    return True


def _names(function: Any) -> list[str]:
    signature = _signature(function)
    return list(signature.parameters) if signature else []


class _Dots:
    """Stands for a default value, whose own text may be long."""

    def __repr__(self) -> str:
        return "…"


def _parameters(function: Any) -> str:
    """`(event, more=…)`, without types; or that it takes nothing."""
    signature = _signature(function)
    if signature is None or not signature.parameters:
        return "nothing"
    empty = inspect.Parameter.empty
    plain = [
        parameter.replace(annotation=empty, default=empty if parameter.default is empty else _Dots())
        for parameter in signature.parameters.values()
    ]
    return str(inspect.Signature(plain))


def _yields(function: Any) -> bool:
    return _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function)


def _is(kind: Callable[[object], bool], function: object) -> bool:
    """Whether a function is of a kind, also where it stands behind an object that is called as one."""
    plain = getattr(function, "__func__", function)
    return kind(plain) or kind(getattr(type(plain), "__call__", None))  # noqa: B004 - it is looked at, not looked for
