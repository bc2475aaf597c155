from __future__ import annotations

import asyncio
import functools
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import handlers as public
from handlers import Context, Event
from handlers.errors import RegistrationError
from handlers.registry import REGISTRY, Registry, load, matches, valid_pattern

NOW = datetime(2026, 6, 5, 14, 0, tzinfo=UTC)


def event(event_type: str = "invoice.paid", *, provider: str = "hisab", source: str = "shop") -> Event:
    return Event(type=event_type, data={}, occurred_at=NOW, provider=provider, source=source)


def nothing(event: Event, ctx: Context) -> None:
    pass


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """What a test loads, registers or puts on the path is gone after it."""
    registered, modules, path = dict(REGISTRY._handlers), dict(sys.modules), list(sys.path)
    yield
    REGISTRY._handlers.clear()
    REGISTRY._handlers.update(registered)
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.modules.update(modules)
    sys.path[:] = path


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


BAD = ["", ".", "invoice.", ".paid", "*.paid", "invoice*", "invoice.**", "**", "Invoice.Paid", "a b", "é", "a.b\n"]


@pytest.mark.parametrize("pattern", BAD)
def test_a_pattern_that_could_never_match_is_refused(registry: Registry, pattern: str) -> None:
    assert not valid_pattern(pattern)
    with pytest.raises(RegistrationError, match="is not an event type") as failed:
        registry.on("invoice.paid", pattern)(nothing)

    assert repr(pattern) in str(failed.value)
    assert list(registry) == []


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


def test_two_handlers_of_one_name_are_refused(registry: Registry) -> None:
    registry.on("invoice.paid", name="receipts")(nothing)

    with pytest.raises(RegistrationError, match="receipts: registered twice"):
        registry.on("customer.*", name="receipts")(nothing)

    assert len(list(registry)) == 1


@pytest.mark.parametrize(
    "options",
    [{"retries": -1}, {"backoff": 0}, {"backoff": -1.0}, {"timeout": 0}],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(registry: Registry, options: dict[str, Any]) -> None:
    with pytest.raises(RegistrationError, match="retries must not be negative"):
        registry.on("invoice.paid", **options)(nothing)


def test_no_type_at_all_is_refused(registry: Registry) -> None:
    with pytest.raises(RegistrationError, match="@on needs an event type"):
        registry.on()(nothing)


def test_on_without_parentheses_is_refused_rather_than_silently_nothing(registry: Registry) -> None:
    with pytest.raises(RegistrationError, match="@on needs an event type"):
        registry.on(nothing)  # type: ignore[arg-type]


def _none() -> None: ...
def _one(event: Event) -> None: ...
def _three(event: Event, ctx: Context, more: int) -> None: ...
def _named(event: Event, ctx: Context, *, more: int) -> None: ...


@pytest.mark.parametrize("function", [_none, _one, _three, _named])
def test_a_function_that_cannot_take_event_and_context_is_refused(
    registry: Registry, function: Callable[..., None]
) -> None:
    with pytest.raises(RegistrationError, match=r"must take \(event, context\)"):
        registry.on("invoice.paid")(function)


def _more(event: Event, ctx: Context, more: int = 1, *rest: int, other: int = 2) -> None: ...
def _any(*arguments: Any) -> None: ...
async def _async(event: Event, ctx: Context) -> None: ...


@pytest.mark.parametrize("function", [_more, _any, _async])
def test_a_function_that_can_is_taken(registry: Registry, function: Callable[..., Any]) -> None:
    registry.on("invoice.paid")(function)

    assert len(registry.wanting(event())) == 1


def _yields(event: Event, ctx: Context) -> Iterator[None]:
    yield


async def _yields_async(event: Event, ctx: Context) -> AsyncIterator[None]:
    await asyncio.sleep(0)
    yield


@pytest.mark.parametrize("function", [_yields, _yields_async])
def test_a_generator_is_refused_since_calling_it_runs_nothing(registry: Registry, function: Any) -> None:
    with pytest.raises(RegistrationError, match="yield"):
        registry.on("invoice.paid")(function)


class _Callable:
    def __call__(self, event: Event, ctx: Context) -> None: ...


@pytest.mark.parametrize("thing", [_Callable(), functools.partial(_more, more=2)], ids=["object", "partial"])
def test_what_has_no_name_of_its_own_is_asked_for_one(registry: Registry, thing: Any) -> None:
    with pytest.raises(RegistrationError, match="name="):
        registry.on("invoice.paid")(thing)

    registry.on("invoice.paid", name="named")(thing)
    assert registry.get("named") is not None


# Loading

GOOD = """
from handlers import on

@on("invoice.paid")
def receipt(event, ctx):
    pass
"""


def written(path: Path, text: str = GOOD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def loaded() -> set[str]:
    return {handler.name for handler in REGISTRY if handler.name.endswith(".receipt")}


def test_a_module_is_loaded_by_name_from_the_folder_one_stands_in(tmp_path: Path) -> None:
    written(tmp_path / "shop_one.py")
    sys.path[:] = [entry for entry in sys.path if entry not in ("", str(tmp_path))]

    (module,) = load(["shop_one"])

    assert module.__name__ == "shop_one"
    assert loaded() == {"shop_one.receipt"}


def test_a_module_in_a_package_is_loaded_by_its_dotted_name(tmp_path: Path) -> None:
    written(tmp_path / "shop_two" / "__init__.py", "")
    written(tmp_path / "shop_two" / "billing.py")

    load(["shop_two.billing"])

    assert loaded() == {"shop_two.billing.receipt"}


def test_a_file_is_loaded_by_its_path(tmp_path: Path) -> None:
    file = written(tmp_path / "elsewhere" / "shop_three.py")

    load([str(file)])

    assert loaded() == {"shop_three.receipt"}


def test_a_glob_loads_every_file_in_order(tmp_path: Path) -> None:
    for name in ("b_shop", "a_shop"):
        written(tmp_path / "plugins" / f"{name}.py")
    written(tmp_path / "plugins" / "notes.txt", "not Python")
    written(tmp_path / "plugins" / "deep" / "c_shop.py")

    modules = load(["plugins/*.py", str(tmp_path / "plugins" / "**" / "c_*.py")])

    assert [module.__name__ for module in modules] == ["a_shop", "b_shop", "c_shop"]
    assert loaded() == {"a_shop.receipt", "b_shop.receipt", "c_shop.receipt"}


def test_a_handler_that_is_loaded_is_found_by_the_public_registry(tmp_path: Path) -> None:
    written(tmp_path / "shop_four.py")
    load(["shop_four"])

    assert "shop_four.receipt" in [handler.name for handler in REGISTRY.wanting(event())]
    assert public.on == REGISTRY.on


def test_nothing_to_load_is_nothing() -> None:
    assert load([]) == []


@pytest.mark.parametrize("name", ["nowhere/*.py", "missing.py", "./missing.py"])
def test_a_path_that_matches_no_file_is_named(name: str) -> None:
    with pytest.raises(RegistrationError) as failed:
        load([name])

    assert str(failed.value) == f"no file matches {name}"


@pytest.mark.parametrize("name", ["handlers", "handlers.py", "plugins/handlers.py"])
def test_a_module_named_handlers_gets_an_error_that_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    if name.endswith(".py"):
        written(tmp_path / name)

    with pytest.raises(RegistrationError, match="`handlers` is Billhook's own package: give your module another name"):
        load([name])

    assert sys.modules["handlers"] is public


@pytest.mark.parametrize("name", ["json.py", "workers.py"])
def test_a_file_does_not_take_the_place_of_another_module_of_its_name(tmp_path: Path, name: str) -> None:
    # Whoever imports that module later would get the handlers instead.
    import workers

    file = written(tmp_path / "plugins" / name)

    with pytest.raises(RegistrationError, match=name.removesuffix(".py")):
        load([str(file)])

    assert sys.modules["json"] is json
    assert sys.modules["workers"] is workers


def test_two_files_of_one_name_are_told_apart_or_refused(tmp_path: Path) -> None:
    files = [written(tmp_path / folder / "shop_five.py") for folder in ("one", "two")]

    with pytest.raises(RegistrationError, match="shop_five"):
        load([str(file) for file in files])


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError: invalid syntax"),
        ("on('Not A Type')(lambda event, ctx: None)", "'Not A Type' is not an event type"),
        ("on('invoice.paid')(lambda: None)", "must take (event, context)"),
        ("raise RuntimeError('one\\ntwo')", "RuntimeError: one"),
    ],
    ids=["import", "error", "syntax", "pattern", "signature", "two lines"],
)
@pytest.mark.parametrize("by", ["name", "file"])
def test_a_module_that_does_not_load_is_one_line_with_file_and_line(
    tmp_path: Path, line: str, error: str, by: str
) -> None:
    file = written(tmp_path / "shop_broken.py", f"from handlers import on\n\n\n{line}\n")

    with pytest.raises(RegistrationError) as failed:
        load([str(file) if by == "file" else "shop_broken"])

    message = str(failed.value)
    assert "\n" not in message
    assert error in message
    assert "shop_broken.py:4" in message
    assert "shop_broken" not in sys.modules


def test_a_module_that_is_not_there_is_named_and_no_line_of_ours_is_shown() -> None:
    with pytest.raises(
        RegistrationError, match=r"^shop_missing does not load: .*No module named 'shop_missing'"
    ) as failed:
        load(["shop_missing"])

    assert "registry.py" not in str(failed.value)


def test_a_module_that_exits_while_it_loads_is_an_error_and_no_exit(tmp_path: Path) -> None:
    file = written(tmp_path / "shop_exits.py", "import sys\nsys.exit(3)\n")

    with pytest.raises(RegistrationError, match="SystemExit"):
        load([str(file)])
