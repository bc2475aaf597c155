from __future__ import annotations

import functools
import operator
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from handlers import Context, Event
from handlers.registry import Place, Registry, matches, valid_pattern

NOW = datetime(2026, 6, 5, 14, 0, tzinfo=UTC)


def event(event_type: str = "invoice.paid", *, provider: str = "hisab", source: str = "shop") -> Event:
    return Event(type=event_type, data={}, occurred_at=NOW, provider=provider, source=source)


def nothing(event: Event, ctx: Context) -> None:
    pass


@pytest.fixture
def registry() -> Registry:
    return Registry()


# Patterns


@pytest.mark.parametrize(
    ("pattern", "event_type", "fits"),
    [
        ("invoice.paid", "invoice.paid", True),
        ("invoice.paid", "invoice.paid_late", False),
        ("invoice.paid", "invoice.paid.late", False),
        ("invoice.*", "invoice.paid", True),
        ("invoice.*", "invoice.line.added", True),
        ("invoice.*", "invoice", False),
        ("invoice.*", "invoices.paid", False),
        ("invoice.line.*", "invoice.paid", False),
        ("*", "invoice.paid", True),
        ("*", "Anything:At-All", True),
    ],
)
def test_a_pattern_means_a_type_a_prefix_or_all(pattern: str, event_type: str, fits: bool) -> None:
    assert valid_pattern(pattern)
    assert matches(pattern, event_type) is fits


# Registering


def test_a_handler_is_registered_under_its_module_and_name_and_left_as_it_is(registry: Registry) -> None:
    assert registry.on("invoice.paid")(nothing) is nothing

    (handler,) = registry
    assert handler.name == "tests.handlers.test_registry.nothing"
    assert registry.get(handler.name) is handler
    assert (handler.retries, handler.backoff, handler.timeout) == (8, 2.0, 30.0)


def test_an_unknown_name_is_nobody(registry: Registry) -> None:
    assert registry.get("nobody") is None


def test_the_handlers_of_an_event_come_in_order_of_registration(registry: Registry) -> None:
    for name in ("b", "a", "c"):
        registry.on("invoice.*", name=name)(nothing)
    registry.on("customer.*", name="other")(nothing)

    assert [handler.name for handler in registry.wanting(event())] == ["b", "a", "c"]


def test_a_handler_may_want_several_types(registry: Registry) -> None:
    registry.on("invoice.paid", "customer.*")(nothing)

    assert len(registry.wanting(event("customer.created"))) == 1
    assert len(registry.wanting(event("invoice.paid"))) == 1
    assert registry.wanting(event("invoice.voided")) == []


def test_a_handler_may_want_one_provider_or_one_source_only(registry: Registry) -> None:
    registry.on("*", provider="hisab", name="hisab")(nothing)
    registry.on("*", source="shop", name="shop")(nothing)
    registry.on("*", provider="hisab", source="shop", name="both")(nothing)

    def wanting(**where: str) -> list[str]:
        return [handler.name for handler in registry.wanting(event(**where))]

    assert wanting(provider="hisab", source="shop") == ["hisab", "shop", "both"]
    assert wanting(provider="hibr", source="shop") == ["shop"]
    assert wanting(provider="hisab", source="other") == ["hisab"]


def test_one_function_may_be_registered_twice_under_two_names(registry: Registry) -> None:
    registry.on("invoice.paid", name="one")(nothing)
    registry.on("invoice.voided", name="two")(nothing)

    assert [handler.name for handler in registry] == ["one", "two"]


def test_the_place_of_a_handler_is_the_line_of_its_decorator(registry: Registry) -> None:
    frame = sys._getframe()
    line = frame.f_lineno

    @registry.on(
        "invoice.paid",
        retries=3,
    )
    @registry.on("invoice.voided", name="voided")
    def _(event: Event, ctx: Context) -> None: ...

    places = [handler.place for handler in registry]
    assert [(place.file, place.line, place.module) for place in places if place] == [
        (__file__, line + 6, __name__),
        (__file__, line + 2, __name__),
    ]


def test_a_place_is_read_from_the_folder_one_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(__file__, 3, __name__)
    assert str(place) == f"{__file__}:3"

    monkeypatch.chdir(Path(__file__).parent)

    assert str(place) == "test_registry.py:3"


# Conditions


def test_a_condition_decides_about_the_event_after_its_type_and_sender(registry: Registry) -> None:
    asked: list[str] = []

    def is_ours(event: Event) -> bool:
        asked.append(event.type)
        return event.source == "shop"

    registry.on("invoice.*", provider="hisab", when=is_ours)(nothing)

    assert len(registry.wanting(event("invoice.paid"))) == 1
    assert registry.wanting(event("invoice.paid", source="till")) == []
    assert registry.wanting(event("invoice.paid", provider="hibr")) == []
    assert registry.wanting(event("customer.created")) == []
    assert asked == ["invoice.paid", "invoice.paid"]


@pytest.mark.parametrize("answer", [None, 0, "", []], ids=repr)
def test_what_a_condition_says_counts_as_yes_or_no(registry: Registry, answer: Any) -> None:
    registry.on("*", when=lambda event: answer)(nothing)

    assert registry.wanting(event()) == []


def _fails(event: Event) -> bool:
    raise KeyError("total")


class _NeitherYesNorNo:
    def __bool__(self) -> bool:
        raise ValueError


@pytest.mark.parametrize("when", [_fails, lambda event: _NeitherYesNorNo()], ids=["raises", "no truth"])
def test_where_a_condition_fails_the_event_is_wanted_so_that_its_run_tells(registry: Registry, when: Any) -> None:
    registry.on("*", when=when)(nothing)

    assert len(registry.wanting(event())) == 1


@pytest.mark.parametrize(
    "when",
    [
        bool,
        operator.attrgetter("object_id"),
        functools.partial(lambda least, event: True, 5),
        lambda event, least=5: True,
    ],
    ids=["class", "of C", "partial", "default"],
)
def test_whatever_takes_an_event_is_a_condition(registry: Registry, when: Any) -> None:
    registry.on("*", when=when)(nothing)

    assert len(list(registry)) == 1


def test_a_handler_hears_a_type_from_whoever_is_not_excluded(registry: Registry) -> None:
    registry.on("invoice.*", provider="hisab", source="shop", when=_fails)(nothing)
    (handler,) = registry

    assert handler.hears("invoice.paid")
    assert handler.hears("invoice.paid", provider="hisab", source="shop")
    assert not handler.hears("invoice.paid", provider="hibr")
    assert not handler.hears("invoice.paid", source="till")
    assert not handler.hears("customer.created")


@pytest.mark.parametrize(
    "options",
    [
        {"retries": 0},
        {"retries": 1_000},
        {"timeout": 0.05},
        {"timeout": 86_400},
        {"backoff": 21_600},
        {"concurrency": 1},
        {"concurrency": 10_000},
        {"name": "Reçu de la boutique"},
        {"name": "x" * 200},
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_option_at_its_limit_is_taken(registry: Registry, options: dict[str, Any]) -> None:
    registry.on("invoice.paid", **options)(nothing)

    ((option, value),) = options.items()
    assert [getattr(handler, option) for handler in registry] == [value]


def _more(event: Event, ctx: Context, more: int = 1, *rest: int, other: int = 2) -> None: ...
def _any(*arguments: Any) -> None: ...
async def _async(event: Event, ctx: Context) -> None: ...


class _Methods:
    def send(self, event: Event, ctx: Context) -> None: ...

    @staticmethod
    def plain(event: Event, ctx: Context) -> None: ...


@pytest.mark.parametrize(
    "function",
    [_more, _any, _async, _Methods().send, _Methods.plain, staticmethod(_more)],
    ids=["more", "any", "async", "bound", "static", "staticmethod"],
)
def test_a_function_that_can_is_taken(registry: Registry, function: Any) -> None:
    registry.on("invoice.paid")(function)

    assert len(registry.wanting(event())) == 1


def test_where_on_decorated_nothing_is_remembered_until_it_does(registry: Registry) -> None:
    decorate = registry.on("invoice.paid")
    assert [place.module for place in registry.unused] == [__name__]

    decorate(nothing)

    assert registry.unused == []
