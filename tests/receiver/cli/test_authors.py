from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handlers.providers.hisab.sandbox import create_app
from handlers.registry import REGISTRY
from tests.handlers.providers.sandbox.served import serving
from tests.receiver.cli.conftest import Billhook
from tests.receiver.cli.terminal import run

TOTALS = """
from handlers import Discard, Retry, on

print("hello from the module")

@on("invoice.paid")
def receipt(event, ctx):
    print("hello from the handler")
    ctx.logger.warning("counted", total=event.data["total"])
    pdf = ctx.step("pdf", lambda: b"%PDF")
    number = ctx.step("number", lambda: {"n": 7})
    ctx.emit("receipt.issued", {"total": event.invoice.total, "name": "\\u00c9t\\u00e9"})
"""


@pytest.fixture(autouse=True)
def _nothing_stays_registered(tmp_path: Path) -> Iterator[None]:
    before, modules = {handler.name for handler in REGISTRY}, set(sys.modules)
    path = list(sys.path)
    yield
    REGISTRY.forget([handler.name for handler in REGISTRY if handler.name not in before])
    for name in set(sys.modules) - modules:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
    sys.path[:] = path


TIMES = "from datetime import UTC, datetime, timedelta"


def written(text: str, name: str = "totals.py") -> str:
    Path(name).write_text(text)
    return name


def handler(body: str, decorator: str = '@on("invoice.paid")', name: str = "totals.py") -> str:
    """A file with one handler."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return written(f"from handlers import Discard, Retry, on\n\n{decorator}\ndef handle(event, ctx):\n{lines}\n", name)


# --- run-handler ----------------------------------------------------------------------------------


def test_a_handler_is_run_without_anything_and_what_it_does_is_shown(tmp_path: Path) -> None:
    written(TOTALS)

    ended = run("run-handler", "totals.py", "--event", "invoice.paid")

    assert (ended.status, ended.err) == (0, "")
    first, second, title, *shown, end = ended.out.splitlines()
    assert (first, second) == ("hello from the module", "hello from the handler")
    assert title.startswith("totals.receipt on invoice.paid of hisab, evt_")
    assert shown == [
        "  warning  counted total=12480.00",
        '  step     pdf: "4 bytes"',
        '  step     number: {"n": 7}',
        '  emitted  receipt.issued {"total": "12480.00", "name": "Été"}',
    ]
    assert end.startswith("succeeded in 0.")
    # No state folder, no database.
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["totals.py"]


def test_a_program_reads_it_as_one_object(billhook: Billhook) -> None:
    ended = billhook("run-handler", written(TOTALS), "--json")

    (ran,) = ended.objects
    assert ended.status == 0
    assert ended.err == "hello from the module\nhello from the handler\n"
    assert (ran["handler"], ran["outcome"], ran["attempt"]) == ("totals.receipt", "succeeded", 1)
    assert (ran["event"]["type"], ran["event"]["provider"]) == ("invoice.paid", "hisab")
    assert ran["emitted"] == [{"type": "receipt.issued", "data": {"total": "12480.00", "name": "Été"}}]
    assert ran["steps"] == {"pdf": "4 bytes", "number": {"n": 7}}
    assert [line["event"] for line in ran["log"]] == ["counted"]
    assert ran["error"] is ran["trace"] is ran["paused_until"] is None


def test_data_overrules_the_sample(billhook: Billhook) -> None:
    target = handler('ctx.emit("seen.it", dict(event.data))')
    Path("given.json").write_text('{"total": "2.00"}')

    for data, total in (('{"total": "1.00"}', "1.00"), ("@given.json", "2.00")):
        (ran,) = billhook("run-handler", target, "--data", data, "--json").objects
        assert ran["emitted"][0]["data"]["total"] == total
        assert ran["emitted"][0]["data"]["status"] == "paid"


def test_a_provider_without_a_format_of_its_own_has_that_of_a_configured_source(
    billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_SOURCES__TILL__PROVIDER", "generic")
    monkeypatch.setenv("BILLHOOK_SOURCES__TILL__SECRETS", "a secret")
    monkeypatch.setenv("BILLHOOK_SOURCES__TILL__OPTIONS", '{"signature": "X-Signature"}')

    (ran,) = billhook("run-handler", handler("pass", '@on("*", provider="generic")'), "--json").objects

    assert (ran["outcome"], ran["event"]["provider"]) == ("succeeded", "generic")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{", "--data: not JSON in UTF-8, or nested too deeply, from line 1, column "),
        ("[" * 100_000, "--data: not JSON in UTF-8, or nested too deeply, from line 1, column 1026 on"),
        ('{"total": "\\ud800"}', "--data: not JSON in UTF-8, or nested too deeply, from line 1, column "),
        ('{"total": "\udcff"}', "--data: not JSON in UTF-8, or nested too deeply, from line 1, column "),
        ('{"total": NaN}', "--data: not JSON in UTF-8, or nested too deeply, from line 1, column "),
        ("@bytes.json", "--data: not JSON in UTF-8, or nested too deeply, from line 1, column "),
        ("@.", "--data: cannot read .: Is a directory"),
        ("[1]", '--data: write a JSON object, such as {"total": "120.00"}'),
        ("@nothing.json", "--data: cannot read nothing.json: No such file or directory"),
    ],
)
def test_data_that_is_none_is_refused(data: str, said: str, billhook: Billhook) -> None:
    Path("bytes.json").write_bytes(b'{"total": "\xff"}')

    assert billhook("run-handler", handler("pass"), "--data", data).complaint(2).startswith(said)


def test_a_failure_shows_the_authors_lines_and_no_frames_of_ours(billhook: Billhook) -> None:
    target = handler(
        'import json\n\ndef parse(text):\n    return json.loads(text)\n\nctx.step("parse", lambda: parse("{"))'
    )

    ended = billhook("run-handler", target)

    assert ended.status == 1
    assert ended.err == ""
    assert [line.split('"')[1].rpartition("/")[2] for line in ended.out.splitlines() if "File " in line] == [
        "totals.py",
        "totals.py",
        "totals.py",
    ]
    assert "json.decoder.JSONDecodeError: Expecting property name" in ended.out
    assert ended.out.splitlines()[-1].startswith("failed in 0.")


@pytest.mark.parametrize(
    ("body", "status", "last"),
    [
        ('raise Discard("not ours")', 0, "discarded in 0.000 s: not ours"),
        ('raise Retry("busy", after=30)', 1, "asks to be run again in 30 s: busy"),
        ("raise Retry", 1, "asks to be run again: asked to be run again"),
        (
            f"{TIMES}\nctx.sleep_until(datetime.now(UTC) + timedelta(days=3))",
            0,
            "paused until ",
        ),
    ],
    ids=["Discard", "Retry", "Retry by itself", "a pause"],
)
def test_each_outcome_is_told_and_has_its_status(body: str, status: int, last: str, billhook: Billhook) -> None:
    ended = billhook("run-handler", handler(body))

    assert ended.status == status
    assert ended.out.splitlines()[-1].replace("0.001 s", "0.000 s").startswith(last)


def test_starts_of_one_run_keep_its_steps_and_go_on_after_its_pause(billhook: Billhook) -> None:
    target = handler(
        f"{TIMES}\n"
        'ctx.step("paid", lambda: print("money moved"))\n'
        "if ctx.attempt == 1: raise ConnectionError\n"
        "ctx.sleep_until(datetime.now(UTC) + timedelta(days=3))\n"
        'ctx.emit("payment.made", {})'
    )

    ended = billhook("run-handler", target, "--times", "3")
    as_json = billhook("run-handler", target, "--times", "3", "--json")

    assert ended.status == as_json.status == 0
    assert ended.out.count("money moved") == as_json.err.count("money moved") == 1
    assert [line.rpartition(", ")[2] for line in ended.out.splitlines() if " on invoice.paid of " in line] == [
        "start 1 of 3",
        "start 2 of 3",
        "start 3 of 3",
    ]
    assert [(ran["outcome"], ran["attempt"]) for ran in as_json.objects] == [
        ("failed", 1),
        ("paused", 2),
        ("succeeded", 2),
    ]


@pytest.mark.parametrize(
    ("decorator", "options", "event"),
    [
        ('@on("invoice.sent")', [], ("hisab", "invoice.sent")),
        ('@on("customer.*")', [], ("hisab", "customer.created")),
        ('@on("*")', ["--event", "customer.deleted"], ("hisab", "customer.deleted")),
        ('@on("invoice.paid")', ["--provider", "hibr"], ("hibr", "invoice.paid")),
        ('@on("invoice.paid", provider="hibr")', [], ("hibr", "invoice.paid")),
        ('@on("transaction.failed")', [], ("hesabe", "transaction.failed")),
        ('@on("recurring.*")', [], ("billhook", "recurring.generated")),
        ('@on("order.made")', ["--data", "{}"], ("hisab", "order.made")),
        (
            '@on("order.*")',
            ["--event", "order.made", "--data", "{}", "--provider", "standard"],
            ("standard", "order.made"),
        ),
    ],
)
def test_the_event_is_what_the_handler_listens_to(
    decorator: str, options: list[str], event: tuple[str, str], billhook: Billhook
) -> None:
    ended = billhook("run-handler", handler("pass", decorator), *options, "--json")

    assert (ended.status, ended.err) == (0, "")
    (ran,) = ended.objects
    assert (ran["event"]["provider"], ran["event"]["type"]) == event


def test_an_event_that_a_worker_would_not_give_it_is_run_with_a_word(billhook: Billhook) -> None:
    ended = billhook("run-handler", handler("pass", '@on("invoice.paid", provider="hisab")'), "--event", "invoice.sent")

    assert ended.status == 0
    assert ended.err == (
        "billhook: a worker would not give totals.handle this event: it listens to invoice.paid of hisab\n"
    )


def test_a_condition_that_does_not_hold_discards_the_event(billhook: Billhook) -> None:
    target = handler("pass", '@on("invoice.paid", when=lambda event: event.data["total"] == "1.00")')

    ended = billhook("run-handler", target)

    assert ended.status == 0
    assert "`when` does not want this event" in ended.out


@pytest.mark.parametrize(
    ("decorator", "options", "said"),
    [
        ('@on("order.*")', [], "there is no sample of order.*: give the event's data, as in --event order.made --data"),
        ('@on("invoice.paid")', ["--event", "order.made"], "there is no sample of order.made: give the event's data"),
        (
            '@on("invoice.paid")',
            ["--provider", "generic"],
            "generic has no format of its own: configure a source of it",
        ),
    ],
)
def test_an_event_that_cannot_be_made_is_refused(
    decorator: str, options: list[str], said: str, billhook: Billhook
) -> None:
    assert said in billhook("run-handler", handler("pass", decorator), *options).complaint()


def test_an_unknown_provider_is_refused(billhook: Billhook) -> None:
    said = billhook("run-handler", handler("pass"), "--provider", "hisba").complaint(2)

    assert said.startswith("--provider: there is no provider 'hisba'; there is hisab,")


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ("invoice.*", "--event: invoice.* stands for many types, and an event has one: write invoice.paid, say"),
        ("*", "--event: * stands for many types, and an event has one: write invoice.paid, say"),
        ("invoice.payé", "--event: 'invoice.payé' is no event type: write it in ASCII, such as invoice.paid"),
        ("invoice.\udcff", "--event: 'invoice.\\udcff' is no event type"),
        ("invoice.\x1b[31m", "--event: 'invoice.\\x1b[31m' is no event type"),
        ("", "--event: '' is no event type"),
    ],
)
def test_what_is_no_event_type_is_refused(event: str, said: str, billhook: Billhook) -> None:
    target = handler("pass", '@on("invoice.paid")')

    assert billhook("run-handler", target, "--event", event, "--data", "{}").complaint(2).startswith(said)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (r'raise ValueError("\x1b[31mred")', r"ValueError: \x1b[31mred"),
        (r'raise Discard("\x9b2J")', r": \x9b2J"),
        (r'raise ValueError("half \ud800")', r"ValueError: half \ud800"),
        (r'ctx.logger.info("\x1b]0;title", name="\x07")', r"  info     \x1b]0;title name=\x07"),
        (r'ctx.emit("a.b", {"name": "\u202e"})', r'  emitted  a.b {"name": "\u202e"}'),
    ],
)
def test_nothing_of_a_handler_moves_the_cursor_or_colours_the_terminal(
    body: str, shown: str, billhook: Billhook
) -> None:
    ended = billhook("run-handler", handler(body))

    assert shown in ended.out
    assert ended.err == ""
    assert all(line.isprintable() for line in ended.out.splitlines())


TWO = """
from handlers import on

@on("invoice.paid")
def one(event, ctx): ...

@on("invoice.sent", name="second")
def other(event, ctx): ...
"""


@pytest.mark.parametrize(
    ("name", "ran"), [("one", "totals.one"), ("totals.one", "totals.one"), ("other", "second"), ("second", "second")]
)
def test_of_several_handlers_one_is_chosen_by_its_name(name: str, ran: str, billhook: Billhook) -> None:
    (found,) = billhook("run-handler", f"{written(TWO)}:{name}", "--json").objects

    assert found["handler"] == ran


@pytest.mark.parametrize(
    ("text", "target", "said"),
    [
        (
            TWO,
            "totals.py",
            "totals.py has several handlers, so say which, as in totals.py:totals.one; it has totals.one, second",
        ),
        (TWO, "totals.py:three", "totals.py has no handler 'three'; it has totals.one, second"),
        ("", "totals.py", 'totals.py has no handler: put @on("invoice.paid") above its function'),
        ("", "missing.py", "no file matches missing.py"),
        ("1 +", "totals.py", "totals.py:1: does not load: SyntaxError: invalid syntax"),
    ],
    ids=["which", "unknown", "none", "no file", "broken"],
)
def test_a_handler_that_cannot_be_found_is_named(text: str, target: str, said: str, billhook: Billhook) -> None:
    written(text)

    assert billhook("run-handler", target).complaint() == said


def test_a_module_is_named_by_its_dots(billhook: Billhook) -> None:
    Path("parcel").mkdir()
    Path("parcel/__init__.py").touch()
    handler("pass", name="parcel/totals.py")

    (ran,) = billhook("run-handler", "parcel.totals:handle", "--json").objects

    assert ran["handler"] == "parcel.totals.handle"


def test_a_client_is_not_there_unless_it_is_asked_for(billhook: Billhook) -> None:
    ended = billhook("run-handler", handler("ctx.client()"))

    assert ended.status == 1
    assert "--live" in ended.out
    assert "billhook sandbox" in ended.out


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A source, shop, whose API is a sandbox."""
    now = datetime(2026, 6, 5, 14, 0, tzinfo=UTC).timestamp
    with serving(create_app(rate_limit=1_000, now=now)) as url:
        for name, value in {
            "PROVIDER": "hisab",
            "SECRETS": "whsec_test_secret_key_123456",
            "API_KEY": "hisab_live_***",
            "API_URL": f"{url}/api/v1",
        }.items():
            monkeypatch.setenv(f"BILLHOOK_SOURCES__SHOP__{name}", value)
        yield


@pytest.mark.usefixtures("sandbox")
def test_live_clients_are_those_of_the_configured_sources() -> None:
    body = (
        'for name in (None, "hisab", "shop"):\n'
        '    ctx.emit("seen.it", {"id": ctx.client(name).customers.get("cus_2b81fe")["id"]})'
    )

    (ran,) = run("run-handler", handler(body), "--live", "--json").objects

    assert ran["outcome"] == "succeeded", ran["trace"]
    assert [emitted["data"] for emitted in ran["emitted"]] == [{"id": "cus_2b81fe"}] * 3


@pytest.mark.parametrize("how", ["--json", None])
def test_what_is_shown_of_a_live_run_has_no_secret_of_the_settings_in_it(
    how: str | None, billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__PROVIDER", "hisab")
    monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__SECRETS", "whsec_test_secret_key_123456")
    body = 'ctx.logger.info("with whsec_test_secret_key_123456", of="whsec_test_secret_key_123456")'

    ended = billhook("run-handler", handler(body), "--live", *([how] if how else []))

    assert "with ********" in ended.out
    assert "whsec_test" not in ended.out + ended.err


def test_without_a_source_a_live_client_says_what_is_missing(billhook: Billhook) -> None:
    (ran,) = billhook("run-handler", handler("ctx.client()"), "--live", "--json").objects

    assert ran["error"] == "ProviderUnavailable: NO_SOURCE: there is no source 'hisab' in the settings"


# --- new handler ----------------------------------------------------------------------------------


def passes(folder: Path) -> subprocess.CompletedProcess[str]:
    """pytest, as an author runs it."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_new_handler_has_a_test_that_passes_and_runs_at_once(billhook: Billhook, tmp_path: Path) -> None:
    ended = billhook("new", "handler", "receipts")
    made = [
        billhook("new", "handler", name, "--event", event)
        for name, event in (
            ("on_refund", "transaction.refunded"),
            ("on_anything", "*"),
            ("on_order", "order.*"),
            ("on_renewal", "recurring.generated"),
        )
    ]

    assert (ended.status, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "wrote receipts.py and test_receipts.py; next:",
        "  pytest test_receipts.py",
        "  billhook run-handler receipts.py",
        "  BILLHOOK_HANDLERS=receipts.py billhook work --reload",
    ]
    assert [one.status for one in made] == [0, 0, 0, 0]
    passed = passes(tmp_path)
    assert passed.returncode == 0, passed.stdout
    assert "10 passed" in passed.stdout
    (ran,) = billhook("run-handler", "receipts.py", "--json").objects
    assert ran["emitted"] == [{"type": "receipts.done", "data": {"object": "inv_8f3a91"}}]


def test_what_is_written_is_as_a_formatter_would_have_it(billhook: Billhook, tmp_path: Path) -> None:
    billhook("new", "handler", "receipts", "--folder", "deep/in/here")

    files = sorted(str(path) for path in (tmp_path / "deep" / "in" / "here").iterdir())
    assert [Path(file).name for file in files] == ["receipts.py", "test_receipts.py"]
    for command in (["format", "--diff"], ["check", "--select", "E,F,W,B,UP"]):
        subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length", "120", *files], check=True
        )


@pytest.mark.parametrize("there", ["receipts.py", "test_receipts.py"])
def test_nothing_that_is_there_is_overwritten(there: str, billhook: Billhook, tmp_path: Path) -> None:
    (tmp_path / there).write_text("mine")

    said = billhook("new", "handler", "receipts").complaint()

    assert said == f"{there} is there already, and is left as it is; choose another name"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(there, "mine")]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my-handler", "cannot be a module's name"),
        ("Receipts", "cannot be a module's name"),
        ("2nd", "cannot be a module's name"),
        ("../up", "cannot be a module's name"),
        ("class", "cannot be a module's name"),
        ("x" * 61, "cannot be a module's name"),
        ("handlers", "is a name that is taken: choose another, as in my_handlers"),
        ("workers", "is a name that is taken"),
        ("billhook", "is a name that is taken: choose another, as in my_billhook"),
        ("test_x", "pytest would take test_x.py for a test: choose another name"),
        ("x_test", "pytest would take x_test.py for a test"),
        ("json", "a module named json already, which comes with Python: choose another name, as in my_json"),
        ("antigravity", "which comes with Python"),
        ("httpx", "a module named httpx already, "),
    ],
)
def test_a_name_that_would_not_work_is_refused(name: str, said: str, billhook: Billhook, tmp_path: Path) -> None:
    assert said in billhook("new", "handler", name).complaint(2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ("invoice.payed", "no provider documents an event invoice.payed: did you mean invoice.paid?"),
        ("Invoice", "'Invoice' is none; write invoice.paid, invoice.* or *"),
    ],
)
def test_an_event_that_is_none_is_refused(event: str, said: str, billhook: Billhook, tmp_path: Path) -> None:
    assert billhook("new", "handler", "receipts", "--event", event).complaint(2) == f"--event: {said}"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(billhook: Billhook, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert billhook("new", "handler", "receipts", "--folder", "file").complaint().startswith("cannot write file")


def test_new_by_itself_says_what_it_makes() -> None:
    ended = run("new")

    assert ended.status == 2
    assert "handler" in ended.out + ended.err
