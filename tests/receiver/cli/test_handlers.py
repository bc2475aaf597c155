"""`billhook handlers` and `billhook check`: who listens to what, and what is said of handler files that are wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SECRET
from tests.handlers.loaded import nothing_loaded, written
from tests.receiver.cli.conftest import Billhook
from tests.receiver.cli.terminal import run

WRONG = Path(__file__).parents[2] / "samples" / "wrong_handlers"

SHOP = """
from handlers import on

print("loading")

@on("invoice.paid", "invoice.voided", retries=3, timeout=2.5, ordered=True, concurrency=4)
def book(event, ctx): ...

@on("customer.*", provider="hisab", when=lambda event: event.object_id is not None)
def welcome(event, ctx): ...

@on("recurring.*", source="shop", name="renewals")
def renew(event, ctx): ...
"""


@pytest.fixture(autouse=True)
def _nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    with nothing_loaded():
        yield


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A source named shop, another named till, and three handlers."""
    monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__PROVIDER", "hisab")
    monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__SECRETS", SECRET)
    monkeypatch.setenv("BILLHOOK_SOURCES__TILL__PROVIDER", "hibr")
    monkeypatch.setenv("BILLHOOK_SOURCES__TILL__SECRETS", SECRET)
    monkeypatch.setenv("BILLHOOK_HANDLERS", "my_shop.py")
    written(tmp_path / "my_shop.py", SHOP)


# --- billhook handlers ----------------------------------------------------------------------------


@pytest.mark.usefixtures("shop")
def test_handlers_are_listed_with_what_they_want_and_where_they_stand(billhook: Billhook) -> None:
    ended = billhook("handlers")

    lines = [line.split() for line in ended.out.splitlines()]
    assert lines[0] == ["handler", "events", "provider", "source", "options", "place"]
    assert [" ".join(line) for line in lines[1:]] == [
        "my_shop.book invoice.paid, invoice.voided retries=3 timeout=2.5 ordered concurrency=4 my_shop.py:6",
        "my_shop.welcome customer.* hisab retries=8 timeout=30 when my_shop.py:9",
        "renewals recurring.* shop retries=8 timeout=30 my_shop.py:12",
    ]
    assert (ended.status, ended.err) == (0, "loading\n")


@pytest.mark.usefixtures("shop")
def test_handlers_are_listed_as_json(billhook: Billhook) -> None:
    rows = billhook("handlers", "--json").objects

    assert [row["handler"] for row in rows] == ["my_shop.book", "my_shop.welcome", "renewals"]
    assert rows[0] == {
        "handler": "my_shop.book",
        "events": ["invoice.paid", "invoice.voided"],
        "provider": None,
        "source": None,
        "retries": 3,
        "backoff": 2.0,
        "timeout": 2.5,
        "ordered": True,
        "concurrency": 4,
        "when": False,
        "place": "my_shop.py:6",
    }


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--event", "invoice.paid"], ["my_shop.book"]),
        (["--event", "customer.created"], ["my_shop.welcome"]),
        (["--event", "customer.created", "--source", "shop"], ["my_shop.welcome"]),
        (["--event", "recurring.failed", "--source", "shop"], ["renewals"]),
        (["--source", "shop"], ["my_shop.book", "my_shop.welcome", "renewals"]),
        (["--source", "till"], ["my_shop.book"]),
    ],
    ids=" ".join,
)
def test_handlers_are_chosen_by_what_they_get(billhook: Billhook, options: list[str], names: list[str]) -> None:
    assert [row["handler"] for row in billhook("handlers", "--json", *options).objects] == names


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--event", "invoice.sent"], "no handler gets invoice.sent"),
        (["--event", "invoice.payed"], "no handler gets invoice.payed; did you mean invoice.paid?"),
        (["--event", "customer.created", "--source", "till"], "no handler gets customer.created of till"),
    ],
    ids=" ".join,
)
def test_an_event_that_nobody_gets_is_told(billhook: Billhook, options: list[str], said: str) -> None:
    ended = billhook("handlers", *options)

    assert (ended.status, ended.out, ended.err) == (0, "", f"loading\n{said}\n")
    assert billhook("handlers", "--json", *options).objects == []


def test_without_handlers_it_is_said_how_to_get_some(billhook: Billhook) -> None:
    ended = billhook("handlers")

    assert (ended.status, ended.out) == (0, "")
    assert ended.err == (
        "no handlers are configured: set BILLHOOK_HANDLERS to their modules or files, such as receipts.py\n"
    )


@pytest.mark.usefixtures("shop")
def test_an_unknown_source_is_refused(billhook: Billhook) -> None:
    said = billhook("handlers", "--source", "shpo").complaint(2)

    assert said == "--source: there is no source 'shpo'; did you mean shop? configured: shop, till"


def test_handlers_that_do_not_load_are_not_listed(billhook: Billhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLHOOK_HANDLERS", str(WRONG / "syntax_error.py"))

    assert billhook("handlers").complaint() == f"{WRONG}/syntax_error.py:5: does not load: SyntaxError: expected ':'"


# --- billhook check -------------------------------------------------------------------------------


@pytest.mark.usefixtures("shop")
def test_what_is_right_is_counted(billhook: Billhook, tmp_path: Path) -> None:
    written(tmp_path / "nothing.py", "")

    ended = billhook("check")
    assert (ended.status, ended.out, ended.err) == (0, "3 handlers in 1 module: ok\n", "loading\n")

    both = billhook("check", "my_shop.py", "nothing")
    assert (both.status, both.out) == (0, "3 handlers in 2 modules: ok\n")


def test_the_worked_examples_are_right(billhook: Billhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__PROVIDER", "hisab")
    monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__SECRETS", SECRET)

    ended = billhook("check", "handlers.examples")

    assert (ended.status, ended.err) == (0, "")
    assert ended.out.endswith(" handlers in 1 module: ok\n")


MESSAGES = {
    "a_class": (
        "a_class.py:4: Receipt is a class: @on stands above a function, def handler(event: Event, ctx: Context)"
    ),
    "capital_letters": (
        "capital_letters.py:4: 'Invoice.Paid' is not an event type, which is lower-case words joined by dots: "
        "did you mean invoice.paid? "
        'Where a sender does write it so: @on("*", when=lambda event: event.type == "Invoice.Paid")'
    ),
    "concurrency_of_none": (
        "concurrency_of_none.py:4: concurrency is a whole number from 1 to 10000, not 0; without it there is no limit"
    ),
    "condition_of_two": (
        "condition_of_two.py:4: when is a function of one argument, the event, "
        "as in when=lambda event: event.object_id is not None; <lambda> takes (event, ctx)"
    ),
    "condition_that_waits": (
        "condition_that_waits.py:8: when is asked before the handler runs and cannot wait: "
        "is_large must be a plain function"
    ),
    "context_first": (
        "context_first.py:4: send_receipt takes (ctx, event), but the event comes first: "
        "def send_receipt(event: Event, ctx: Context)"
    ),
    "decorator_that_returns_nothing": (
        "decorator_that_returns_nothing.py:10: @on decorates None: does the decorator below it return the function?"
    ),
    "endless_timeout": "endless_timeout.py:4: timeout is a number of seconds above 0, at most 86400, not inf",
    "event_as_option": (
        'event_as_option.py:4: the event types come first and without a name: @on("invoice.paid"), not event='
    ),
    "events_in_one_text": (
        "events_in_one_text.py:4: 'invoice.paid, invoice.voided' is several event types in one text: "
        'write @on("invoice.paid", "invoice.voided")'
    ),
    "fails_while_it_loads": "fails_while_it_loads.py:7: does not load: KeyError: 'PRINTER_OF_THE_SHOP'",
    "forgotten_at": ("forgotten_at.py:3: on(…) decorates nothing here: write it as @on(…), right above its function"),
    "generator": (
        "generator.py:6: send_receipt has a yield in it, so calling it runs nothing of it: "
        "a handler returns, and sends by ctx.emit"
    ),
    "handlers": "handlers.py: `handlers` is Billhook's own package: give your module another name",
    "json": "json.py: there is another module named json, which comes with Python: give the file another name",
    "list_of_events": (
        'list_of_events.py:4: the event types stand one by one, not in a list: @on("invoice.paid", "invoice.voided")'
    ),
    "method": (
        "method.py:5: send is a method, since it takes self, and has no object yet: "
        "make it a function, def send(event: Event, ctx: Context)"
    ),
    "missing_package": (
        "missing_package.py:1: does not load: ModuleNotFoundError: No module named 'stripe_of_my_own'; "
        "is it installed where Billhook runs?"
    ),
    "misspelt_event": (
        "misspelt_event.py:4: hisab documents no event invoice.payed: did you mean invoice.paid? "
        "If it does send that, name the source (source=) instead"
    ),
    "misspelt_event_of_anybody": (
        "misspelt_event_of_anybody.py:4: no provider documents an event invoice.finalised: "
        "did you mean invoice.finalized? If a sender of yours does send that, name the sender: source= or provider="
    ),
    "misspelt_prefix": (
        "misspelt_prefix.py:4: no provider documents an event invoices.*: did you mean invoice.*? "
        "If a sender of yours does send that, name the sender: source= or provider="
    ),
    "name_that_does_not_print": (
        "name_that_does_not_print.py:4: name is 1 to 200 printable characters, not 'send\\nreceipt'"
    ),
    "no_context": (
        "no_context.py:4: send_receipt takes (event, copies=…, *, printer), "
        "but a handler takes an event and a context: def send_receipt(event: Event, ctx: Context)"
    ),
    "no_parameters": (
        "no_parameters.py:4: ring_the_bell takes nothing, but a handler takes an event and a context: "
        "def ring_the_bell(event: Event, ctx: Context)"
    ),
    "object_alone": (
        "object_alone.py:4: no provider documents an event invoice: did you mean invoice.*? "
        "If a sender of yours does send that, name the sender: source= or provider="
    ),
    "ordered_by_a_field": "ordered_by_a_field.py:4: ordered is True or False, not 'customer_id'",
    "retries_as_text": ("retries_as_text.py:4: retries is a whole number from 0 to 1000, not '3': write retries=3"),
    "source_of_another_provider": (
        "source_of_another_provider.py:4: the source 'shop' is of hisab, so no event of it is of hibr: "
        "leave out provider= or source="
    ),
    "star_in_front": (
        "star_in_front.py:4: '*.paid' is not an event type: a * stands alone, or at the end of a prefix as in invoice.*"
    ),
    "star_without_dot": (
        "star_without_dot.py:4: 'invoice*' is not an event type, which is lower-case words joined by dots: "
        "did you mean invoice.*?"
    ),
    "syntax_error": "syntax_error.py:5: does not load: SyntaxError: expected ':'",
    "timeout_as_timedelta": (
        "timeout_as_timedelta.py:6: timeout is a number of seconds above 0, at most 86400, "
        "not datetime.timedelta(seconds=120): write timeout=120"
    ),
    "two_of_one_name": (
        "two_of_one_name.py:9: there is a handler two_of_one_name.book already, at two_of_one_name.py:4: "
        'give one of them a name of its own, as in @on("invoice.paid", name="receipts")'
    ),
    "unknown_option": "unknown_option.py:4: @on has no option retrys: did you mean retries?",
    "unknown_provider": (
        "unknown_provider.py:4: there is no provider 'hisb': did you mean 'hisab'? "
        "There are generic, hesabe, hibr, hisab, standard, and billhook for its own events"
    ),
    "unknown_source": ("unknown_source.py:4: there is no source 'shpo': did you mean 'shop'? configured: shop, till"),
    "without_an_event": 'without_an_event.py:4: @on needs an event type: @on("invoice.paid")',
    "without_parentheses": (
        'without_parentheses.py:4: @on stands above send_receipt without an event type: write @on("invoice.paid")'
    ),
}


def test_every_sample_of_a_wrong_file_has_its_message() -> None:
    assert sorted(MESSAGES) == sorted(path.stem for path in WRONG.glob("*.py"))


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("name", MESSAGES)
def test_a_wrong_file_is_told_in_one_line_that_says_what_to_write(
    billhook: Billhook, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(WRONG)

    ended = billhook("check", f"{name}.py")

    said = [line for line in ended.err.splitlines() if not line.startswith("audited ")]  # what a sample prints
    assert (ended.status, ended.out, said) == (1, "", [MESSAGES[name]])


@pytest.mark.usefixtures("shop")
def test_every_module_has_its_line_and_those_that_are_right_are_not_named(billhook: Billhook, tmp_path: Path) -> None:
    for name in ("syntax_error", "no_context", "unknown_source"):
        written(tmp_path / f"{name}.py", (WRONG / f"{name}.py").read_text())

    ended = billhook("check", "*.py", "nowhere.py")

    assert (ended.status, ended.out) == (1, "")
    assert ended.err.splitlines() == [
        "loading",
        MESSAGES["no_context"],
        MESSAGES["syntax_error"],
        "no file matches nowhere.py",
        MESSAGES["unknown_source"],
    ]


@pytest.mark.usefixtures("shop")
def test_what_may_not_be_meant_is_a_warning(
    billhook: Billhook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BILLHOOK_HANDLER", "my_shop.py")
    text = SHOP.replace('"customer.*", provider="hisab"', '"stock.*", provider="hesabe"').replace(
        "recurring.", "stock."
    )
    written(tmp_path / "my_shop.py", text)

    ended = billhook("check")

    assert (ended.status, ended.out) == (0, "3 handlers in 1 module: ok\n")
    assert ended.err.splitlines() == [
        "loading",
        "warning: BILLHOOK_HANDLER is set but is no option; it has no effect",
        "my_shop.py:9: warning: no source of hesabe is configured, so it is never called",
        "my_shop.py:12: warning: no configured source documents an event stock.*",
    ]


def test_without_sources_and_handlers_both_are_told(billhook: Billhook) -> None:
    ended = billhook("check")

    assert (ended.status, ended.out) == (0, "0 handlers in 0 modules: ok\n")
    assert ended.err.splitlines() == [
        "warning: no handlers are configured: set BILLHOOK_HANDLERS to their modules or files, such as receipts.py",
        "warning: no source is configured yet, so no event comes; see BILLHOOK_SOURCES in `billhook settings`",
    ]


def test_files_that_register_nothing_are_named(
    billhook: Billhook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        written(tmp_path / f"{name}.py", "def receipt(event, ctx): ...\n")
    none = 'registers no handler: decorate a function with @on("invoice.paid")'

    one, both = billhook("check", "one.py"), billhook("check", "one.py", "two.py")
    monkeypatch.setenv("BILLHOOK_HANDLERS", "two.py")
    configured, listed = billhook("check"), billhook("handlers")

    assert one.err.splitlines()[0] == f"warning: one.py {none}"
    assert both.err.splitlines()[0] == "warning: one.py, two.py register" + none.removeprefix("registers")
    assert configured.err.splitlines()[0] == f"warning: two.py {none}"
    assert listed.err == f"two.py {none}\n"
    assert (one.status, one.out) == (0, "0 handlers in 1 module: ok\n")


def test_an_error_of_a_module_cannot_colour_the_terminal(billhook: Billhook, tmp_path: Path) -> None:
    written(tmp_path / "red.py", r'raise ValueError("\x1b[31mred")')

    ended = billhook("check", "red.py")

    assert ended.err == "red.py:1: does not load: ValueError: \\x1b[31mred\n"


@pytest.mark.parametrize("command", ["check", "handlers"])
def test_wrong_settings_end_with_2(billhook: Billhook, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("BILLHOOK_LISTEN", "8000")

    assert billhook(command).complaint(2).startswith("BILLHOOK_LISTEN: not host:port.")


def test_nothing_is_connected_to_and_nothing_is_left_behind(tmp_path: Path) -> None:
    written(tmp_path / "my_shop.py", SHOP)
    variables = {
        "BILLHOOK_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        "BILLHOOK_REDIS_URL": "redis://127.0.0.1:1/0",
        "BILLHOOK_SOURCES__SHOP__PROVIDER": "hisab",
        "BILLHOOK_SOURCES__SHOP__SECRETS": SECRET,
        "BILLHOOK_HANDLERS": "my_shop",
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    checked, listed = (run(command, env=os.environ | variables) for command in ("check", "handlers"))

    assert (checked.status, checked.out) == (0, "3 handlers in 1 module: ok\n")
    assert listed.status == 0
    assert len(listed.out.splitlines()) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["my_shop.py"]


# --- billhook work --------------------------------------------------------------------------------


def test_a_worker_does_not_start_with_a_handler_for_a_source_there_is_not(tmp_path: Path, redis_url: str) -> None:
    written(tmp_path / "my_shop.py", (WRONG / "unknown_source.py").read_text())
    variables = {
        "BILLHOOK_DATABASE_URL": f"sqlite:///{tmp_path}/billhook.db",
        "BILLHOOK_REDIS_URL": redis_url,
        "BILLHOOK_REDIS_PREFIX": f"billhook-test-{tmp_path.name}:",
        "BILLHOOK_ENCRYPTION_KEYS": "nZ2VzT0m3Sl7H5m3kq7sVQ8n3mQ0o8r1m6Xo3yq5b3E=",
        "BILLHOOK_SOURCES__SHOP__PROVIDER": "hisab",
        "BILLHOOK_SOURCES__SHOP__SECRETS": SECRET,
        "BILLHOOK_HANDLERS": "my_shop.py",
    }
    environment = os.environ | variables
    assert run("migrate", env=environment).status == 0

    said = run("work", env=environment).complaint()

    assert said == "my_shop.py:4: there is no source 'shpo': did you mean 'shop'? configured: shop"
