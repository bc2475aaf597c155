from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers import Context, Event
from handlers.checks import LONGEST_BACKOFF, OPTIONS
from handlers.errors import RegistrationError
from handlers.registry import Registry, valid_pattern
from workers import retry


def nothing(event: Event, ctx: Context) -> None:
    pass


@pytest.fixture
def registry() -> Registry:
    return Registry()


def refused(register: Callable[[], object]) -> str:
    """What is said when this is refused, without the place, which is a line of this file."""
    with pytest.raises(RegistrationError) as failed:
        register()
    place, _, message = str(failed.value).partition(": ")
    assert re.fullmatch(r".*test_registry_refusals\.py:[0-9]+", place), str(failed.value)
    assert "\n" not in message
    return message


def _none() -> None: ...
def _one(event: Event) -> None: ...
def _three(event: Event, ctx: Context, more: int) -> None: ...
def _named(event: Event, ctx: Context, *, more: int) -> None: ...
def _swapped(ctx: Context, event: Event, more: int = 1) -> None: ...
def _more(event: Event, ctx: Context, more: int = 1, *rest: int, other: int = 2) -> None: ...
def _any(*arguments: Any) -> None: ...
async def _async(event: Event, ctx: Context) -> None: ...
async def _waits(event: Event) -> bool: ...  # type: ignore[empty-body]


def _counts(event: Event) -> Iterator[bool]:
    yield True


def _yields(event: Event, ctx: Context) -> Iterator[None]:
    yield


async def _yields_async(event: Event, ctx: Context) -> AsyncIterator[None]:
    await asyncio.sleep(0)
    yield


class _Methods:
    def send(self, event: Event, ctx: Context) -> None: ...

    @staticmethod
    def plain(event: Event, ctx: Context) -> None: ...


class _Broken:
    """What cannot even be shown."""

    def __repr__(self) -> str:
        raise ValueError

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("", "write invoice.paid, invoice.* or *"),
        (".", "write invoice.paid, invoice.* or *"),
        ("é", "write invoice.paid, invoice.* or *"),
        ("invoice.", "did you mean invoice.*?"),
        ("invoice*", "did you mean invoice.*?"),
        ("invoice.**", "did you mean invoice.*?"),
        ("invoice.paid\n", "did you mean invoice.paid?"),
        (" invoice.paid", "did you mean invoice.paid?"),
        ("invoice paid", "did you mean invoice.paid?"),
        ("invoice..paid", "did you mean invoice.paid? Where a sender does write it so: "),
        ("InvoicePaid", "did you mean invoice.paid? Where a sender does write it so: "),
        ("orders/paid", 'Where a sender does write it so: @on("*", when=lambda event: event.type == "orders/paid")'),
        ("*.paid", "a * stands alone, or at the end of a prefix as in invoice.*"),
        ("**", "a * stands alone, or at the end of a prefix as in invoice.*"),
        ("invoice.paid, invoice.sent", 'write @on("invoice.paid", "invoice.voided")'),
    ],
    ids=repr,
)
def test_a_pattern_that_could_never_match_is_refused_with_what_was_meant(
    registry: Registry, pattern: str, hint: str
) -> None:
    assert not valid_pattern(pattern)

    message = refused(lambda: registry.on("invoice.paid", pattern)(nothing))

    assert message.startswith(repr(pattern))
    assert hint in message
    assert list(registry) == []


def test_two_handlers_of_one_name_are_refused_with_both_places(registry: Registry) -> None:
    registry.on("invoice.paid", name="receipts")(nothing)
    (first,) = registry

    message = refused(lambda: registry.on("customer.*", name="receipts")(nothing))

    assert message == (
        f"there is a handler receipts already, at {first.place}: "
        'give one of them a name of its own, as in @on("invoice.paid", name="receipts")'
    )
    assert list(registry) == [first]


WHEN = "when is a function of the event, as in when=lambda event: event.object_id is not None, not "
WHEN_ONE = "when is a function of one argument, the event, as in when=lambda event: event.object_id is not None; "
WHEN_PLAIN = "when is asked before the handler runs and cannot wait: "
PLACES = "concurrency is a whole number from 1 to 10000, not "
UNLIMITED = "; without it there is no limit"
NAME = "name is 1 to 200 printable characters, not "
WHOLE = "retries is a whole number from 0 to 1000, not "
SECONDS = "timeout is a number of seconds above 0, at most 86400, not "


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retries": -1}, f"{WHOLE}-1"),
        ({"retries": 1_001}, f"{WHOLE}1001"),
        ({"retries": "3"}, f"{WHOLE}'3': write retries=3"),
        ({"retries": "2000"}, f"{WHOLE}'2000'"),
        ({"retries": 3.0}, f"{WHOLE}3.0: write retries=3"),
        ({"retries": 3.5}, f"{WHOLE}3.5"),
        ({"retries": True}, f"{WHOLE}True"),
        ({"retries": None}, f"{WHOLE}None"),
        ({"retries": 10**5_000}, f"{WHOLE}a value of type int"),
        ({"timeout": 0}, f"{SECONDS}0"),
        ({"timeout": -1.5}, f"{SECONDS}-1.5"),
        ({"timeout": 86_401}, f"{SECONDS}86401"),
        ({"timeout": float("nan")}, f"{SECONDS}nan"),
        ({"timeout": float("inf")}, f"{SECONDS}inf"),
        ({"timeout": 10**400}, f"{SECONDS}1{'0' * 58}…"),
        ({"timeout": True}, f"{SECONDS}True"),
        ({"timeout": None}, f"{SECONDS}None"),
        ({"timeout": "30"}, f"{SECONDS}'30': write timeout=30"),
        ({"timeout": "2.5"}, f"{SECONDS}'2.5': write timeout=2.5"),
        ({"timeout": "half a minute"}, f"{SECONDS}'half a minute'"),
        ({"timeout": timedelta(minutes=2)}, f"{SECONDS}datetime.timedelta(seconds=120): write timeout=120"),
        ({"timeout": timedelta(days=2)}, f"{SECONDS}datetime.timedelta(days=2)"),
        ({"timeout": Decimal(30)}, f"{SECONDS}Decimal('30')"),
        ({"backoff": 0}, "backoff is a number of seconds above 0, at most 21600, not 0"),
        ({"backoff": 21_601}, "backoff is a number of seconds above 0, at most 21600, not 21601"),
        ({"ordered": 1}, "ordered is True or False, not 1"),
        ({"ordered": None}, "ordered is True or False, not None"),
        ({"concurrency": 0}, f"{PLACES}0{UNLIMITED}"),
        ({"concurrency": 10_001}, f"{PLACES}10001{UNLIMITED}"),
        ({"concurrency": "2"}, f"{PLACES}'2': write concurrency=2{UNLIMITED}"),
        ({"name": ""}, f"{NAME}''"),
        ({"name": "a\x00"}, f"{NAME}'a\\x00'"),
        ({"name": "\ud83d"}, f"{NAME}'\\ud83d'"),
        ({"name": "x" * 201}, f"{NAME}'{'x' * 58}…"),
        ({"name": nothing}, f"{NAME}nothing"),
        ({"provider": ""}, "provider is the name of one provider, as text, not ''"),
        ({"provider": ["hisab", "hibr"]}, "provider is the name of one provider, as text, not ['hisab', 'hibr']"),
        ({"source": 5}, "source is the name of one source, as text, not 5"),
        ({"when": "invoice"}, f"{WHEN}'invoice'"),
        ({"when": True}, f"{WHEN}True"),
        ({"when": _none}, f"{WHEN_ONE}_none takes nothing"),
        ({"when": nothing}, f"{WHEN_ONE}nothing takes (event, ctx)"),
        ({"when": _waits}, f"{WHEN_PLAIN}_waits must be a plain function"),
        ({"when": _counts}, f"{WHEN_PLAIN}_counts must be a plain function"),
        ({"retrys": 3}, "@on has no option retrys: did you mean retries?"),
        ({"max_retries": 3}, "@on has no option max_retries: did you mean retries?"),
        ({"queue": "fast"}, f"@on has no option queue: there are {', '.join(OPTIONS)}"),
        ({"self": 1}, f"@on has no option self: there are {', '.join(OPTIONS)}"),
        ({"a b": 1}, f"@on has no option 'a b': there are {', '.join(OPTIONS)}"),
        ({"event": "invoice.paid"}, 'the event types come first and without a name: @on("invoice.paid"), not event='),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_option_that_makes_no_sense_is_refused(registry: Registry, options: dict[str, Any], message: str) -> None:
    assert refused(lambda: registry.on("invoice.paid", **options)(nothing)) == message
    assert list(registry) == []


def test_the_longest_backoff_is_the_longest_pause_that_the_engine_makes() -> None:
    assert LONGEST_BACKOFF == retry.MAX_BACKOFF


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ((), '@on needs an event type: @on("invoice.paid")'),
        ((nothing,), '@on stands above nothing without an event type: write @on("invoice.paid")'),
        ((["invoice.paid"],), 'the event types stand one by one, not in a list: @on("invoice.paid", "invoice.voided")'),
        ((5,), 'an event type is a text such as "invoice.paid", not 5'),
        (("invoice.paid", None), 'an event type is a text such as "invoice.paid", not None'),
        ((b"invoice.paid",), "an event type is a text such as \"invoice.paid\", not b'invoice.paid'"),
    ],
    ids=["none", "function", "list", "number", "None", "bytes"],
)
def test_what_is_no_event_type_is_refused(registry: Registry, patterns: tuple[Any, ...], message: str) -> None:
    assert refused(lambda: registry.on(*patterns)) == message


TWO = "but a handler takes an event and a context: def"
YIELDS = "has a yield in it, so calling it runs nothing of it: a handler returns, and sends by ctx.emit"
SIGNATURE = "(event: Event, ctx: Context)"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_none, f"_none takes nothing, {TWO} _none{SIGNATURE}"),
        (_one, f"_one takes (event), {TWO} _one{SIGNATURE}"),
        (_three, f"_three takes (event, ctx, more), {TWO} _three{SIGNATURE}"),
        (_named, f"_named takes (event, ctx, *, more), {TWO} _named{SIGNATURE}"),
        (_swapped, f"_swapped takes (ctx, event, more=…), but the event comes first: def _swapped{SIGNATURE}"),
        (lambda event: None, f"<lambda> takes (event), {TWO} handler{SIGNATURE}"),
        (
            _Methods.send,
            f"send is a method, since it takes self, and has no object yet: make it a function, def send{SIGNATURE}",
        ),
        (_Methods, f"_Methods is a class: @on stands above a function, def handler{SIGNATURE}"),
        (_yields, f"_yields {YIELDS}"),
        (_yields_async, f"_yields_async {YIELDS}"),
        (staticmethod(_yields), f"_yields {YIELDS}"),
        (None, "@on decorates None: does the decorator below it return the function?"),
        (5, "@on decorates 5, which is no function"),
    ],
    ids=lambda value: "" if isinstance(value, str) else getattr(value, "__name__", str(value)),
)
def test_what_cannot_be_called_with_event_and_context_is_refused(
    registry: Registry, function: Any, message: str
) -> None:
    assert refused(lambda: registry.on("invoice.paid")(function)) == message
    assert list(registry) == []


def test_a_callable_object_that_yields_is_refused(registry: Registry) -> None:
    class Yields:
        def __call__(self, event: Event, ctx: Context) -> Iterator[None]:
            yield

    message = refused(lambda: registry.on("invoice.paid", name="yields")(Yields()))  # type: ignore[type-var]

    assert "has a yield in it" in message


class _Callable:
    def __call__(self, event: Event, ctx: Context) -> None: ...


@pytest.mark.parametrize("thing", [_Callable(), functools.partial(_more, more=2)], ids=["object", "partial"])
def test_what_has_no_name_of_its_own_is_asked_for_one(registry: Registry, thing: Any) -> None:
    assert 'has no name of its own: give it one, name="receipts"' in refused(lambda: registry.on("invoice.paid")(thing))

    registry.on("invoice.paid", name="named")(thing)
    assert registry.get("named") is not None


# Whatever is passed

_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**5_000),
    st.floats(),
    st.decimals(),
    st.text(max_size=20),
    st.binary(max_size=5),
    st.timedeltas(),
    st.lists(st.text(max_size=3), max_size=2),
    st.sampled_from([_none, _one, _waits, _counts, bool, print]),
    st.just(_Broken()),
)
_WORDS = st.from_regex(r"[a-zA-Z0-9_.*\- /]{0,12}", fullmatch=True)
_PATTERNS = st.lists(st.one_of(_WORDS, _WORDS, _VALUES), max_size=3)


@given(
    patterns=_PATTERNS,
    options=st.dictionaries(st.one_of(st.sampled_from(OPTIONS), _WORDS, st.text(max_size=5)), _VALUES, max_size=3),
)
def test_whatever_is_passed_it_is_registered_or_refused_in_one_line(
    patterns: list[Any], options: dict[str, Any]
) -> None:
    registry = Registry()

    try:
        registry.on(*patterns, **options)(nothing)
    except RegistrationError as error:
        said = str(error)
    else:
        said = ""

    assert said.isprintable()
    assert len(said) < 500
    assert len(list(registry)) == (0 if said else 1)
    for handler in registry:
        assert handler.patterns == tuple(patterns) != ()
        assert 0 <= handler.retries <= 1_000
        assert 0 < handler.timeout < float("inf")
        assert set(options) <= set(OPTIONS)
