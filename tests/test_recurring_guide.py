"""The guide to recurring invoices shows commands that work, dates that are right, and names that there are."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import httpx
import orjson
import pytest
import typer
from redis import Redis
from sqlalchemy import Engine

from handlers import invoicing
from handlers.providers import PROVIDERS
from handlers.providers.hisab.sandbox import create_app
from handlers.testing import event
from handlers.vocabulary import OF_SCHEDULES
from receiver.cli import app
from tests.handlers.providers.sandbox.served import serving
from tests.receiver.cli import conftest as terminal
from tests.receiver.cli.conftest import Billhook
from tests.test_provider_pages import FILLED
from tests.workers.given import rows as every
from workers import leases, retry
from workers import settings as options
from workers.clients import Clients
from workers.models import EventRow
from workers.schedule import errors, importing, outcomes, rhythm, schedules
from workers.schedule.completion import OPEN
from workers.schedule.generate import work_off
from workers.schedule.generator import LEASE, Generator
from workers.schedule.outcomes import RETRIES
from workers.schedule.plans import CATCH_UP, Plan
from workers.schedule.tick import tick
from workers.settings import Settings, Source

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "recurring.md").read_text("utf-8")
SECTION = re.compile(r"^## (.*?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (billhook|curl) ((?:.*\\\n)*(?:[^'\n]|'[^']*')*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
"""A command, which may go on over several lines, and what is shown of its answer."""
KEY, CUSTOMER = "hisab_live_***", "cus_2b81fe"

billhook, configured = terminal.billhook, terminal.configured
once = pytest.mark.parametrize("backend", ["embedded"], indirect=True)


def blocks(language: str, text: str = GUIDE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a line that begins so."""
    _, _, rest = GUIDE.partition(f"\n{heading}")
    assert rest, heading
    table = re.search(r"(?:^\|.*\n)+", heading + rest, re.MULTILINE)
    assert table is not None
    lines = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in table[0].splitlines()]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def sections() -> dict[str, str]:
    return dict(SECTION.findall(GUIDE))


def words(line: str) -> str:
    return " ".join(line.split())


def arguments(line: str) -> list[str]:
    return shlex.split(line.replace("\\\n", " "))


# What is shown happens


@dataclass
class Clock:
    now: datetime = datetime(2026, 11, 22, 9, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The day on which the guide is read."""
    for name in ("workers.audit", "workers.reconcile"):  # which would keep this clock for good
        import_module(name)
    moved = Clock()
    monkeypatch.setattr(leases, "utcnow", moved)
    return moved


@dataclass(frozen=True)
class Reader:
    """Who does what the guide shows, against a sandbox, and sees to it that time passes and workers work."""

    billhook: Billhook
    url: str
    clock: Clock
    engine: Engine
    redis: Redis

    def call(self, method: str, path: str, body: object = None) -> Any:
        headers = {"authorization": f"Bearer {KEY}"}
        content = None if body is None else orjson.dumps(body)
        answer = httpx.request(method, self.url + path, headers=headers, content=content, trust_env=False)
        assert answer.is_success, answer.text
        return answer.json()

    def works(self, moment: datetime) -> None:
        """Whatever is due by then is worked off."""
        self.clock.now = moment
        settings = options.load()
        with Clients(settings) as clients:
            generator = Generator(
                engine=self.engine, settings=settings, clients=clients, redis=self.redis, clock=self.clock
            )
            tick(self.engine, now=moment)
            work_off(generator, "shop")

    def follow(self, added: str, line: str, answer: str) -> str:
        """Give a command of the guide; the id of the schedule that it is about from then on."""
        ended = self.billhook(*(part.replace("sch_…", added) for part in arguments(line)))

        assert ended.status == 0, (line, ended)
        said = [words(one) for one in ended.out.splitlines()]
        shown = [words(one) for one in answer.splitlines()]
        assert len(said) >= len(shown), (line, said)
        for expected, found in zip(shown, said, strict=False):
            assert re.fullmatch(re.escape(expected).replace("…", ".*"), found), (line, expected, found)
        return ended.out.strip() if re.fullmatch(r"sch_\S+", ended.out.strip()) else added

    def curl(self, line: str) -> None:
        given = arguments(line)
        address = next(one for one in given if one.startswith("http"))
        assert address.startswith("http://127.0.0.1:8801/")
        body = json.loads(given[given.index("-d") + 1])
        self.call("POST", address.removeprefix("http://127.0.0.1:8801"), body)


@pytest.fixture
def reader(
    monkeypatch: pytest.MonkeyPatch,
    billhook: Billhook,
    configured: Settings,
    engine: Engine,
    redis: Redis,
    clock: Clock,
) -> Iterator[Reader]:
    with serving(create_app(rate_limit=10**6, clock=clock.now), lifespan="off") as url:
        monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__API_URL", f"{url}/api/v1")
        monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__API_KEY", KEY)
        monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__CALLS_A_MINUTE", str(10**6))
        yield Reader(billhook, url, clock, engine, redis)


def nothing(_: Reader) -> None:
    """Nothing has happened."""


def months_without_the_customer(reader: Reader) -> None:
    reader.call("DELETE", f"/api/v1/customers/{CUSTOMER}")
    reader.works(datetime(2027, 4, 1, 9, tzinfo=UTC))


def the_customer_is_back(reader: Reader) -> None:
    reader.call("PATCH", f"/api/v1/customers/{CUSTOMER}", {"status": "active"})
    reader.works(reader.clock.now)


def a_file(_: Reader) -> None:
    (written,) = blocks("csv")
    Path("schedules.csv").write_text(written, "utf-8")


def schedules_at_hisab(reader: Reader) -> None:
    reader.clock.now = Clock.now
    item = {"description": "Hosting", "quantity": 1, "unit_price": 1300}
    of_month = {"customer_id": CUSTOMER, "frequency": "monthly", "start_date": "2027-01-31", "items": [item]}
    reader.call("POST", "/api/v1/recurring-invoices", of_month)
    of_week = {**of_month, "frequency": "weekly", "start_date": "2026-12-07"}
    stopped = reader.call("POST", "/api/v1/recurring-invoices", of_week)["data"]["id"]
    reader.call("POST", f"/api/v1/recurring-invoices/{stopped}/pause")


BEFORE: dict[str, Callable[[Reader], None]] = {
    "When the provider does not do it": months_without_the_customer,
    "What can be done to it": the_customer_is_back,
    "Importing a file": a_file,
    "Taking over from Hisab": schedules_at_hisab,
}
"""What has happened when the commands below a heading are given."""


@once
def test_every_command_does_what_is_shown(reader: Reader) -> None:
    added, given = "", 0
    for heading, text in re.findall(r"^##+ (.*?)\n(.*?)(?=^##+ |\Z)", GUIDE, re.MULTILINE | re.DOTALL):
        BEFORE.get(heading, nothing)(reader)
        for program, line, answer in COMMAND.findall("".join(blocks("console", text))):
            if line.endswith("&"):
                continue  # a process that runs on
            given += 1
            if program == "curl":
                reader.curl(line)
            else:
                added = reader.follow(added, line, answer)
    assert given > 20
    _expect_the_events_of_the_table(reader)


def _expect_the_events_of_the_table(reader: Reader) -> None:
    """What was reported while the guide was followed has the data that the guide names, and no other."""
    told = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[2])) for row in rows("| event | when |")}
    assert tuple(told) == OF_SCHEDULES
    of_schedule = set(re.findall(r"`(\w+)`", re.findall(r"^\| event \| when \| (.*) \|$", GUIDE, re.MULTILINE)[0]))
    assert of_schedule == {"data", "schedule_id", "name", "customer_id"}
    found = {row.type: orjson.loads(row.body)["data"] for row in every(reader.engine, EventRow)}
    of_captures = {"payment", *(one.name for one in fields(invoicing.Payment))}
    known = told["recurring.generated"] - of_captures | {"status"}

    assert found["recurring.generated"].keys() | found["recurring.generated"]["invoice"].keys() == (
        known | of_schedule - {"data"}
    )
    assert found["recurring.failed"].keys() | found["recurring.failed"]["error"].keys() == (
        told["recurring.failed"] | of_schedule - {"data"}
    )
    assert of_captures <= told["recurring.generated"]
    assert event("recurring.completed", provider="billhook").data.keys() == (
        told["recurring.completed"] | of_schedule - {"data"}
    )


@once
@pytest.mark.usefixtures("configured", "clock")
def test_every_due_date_is_right(billhook: Billhook) -> None:
    examples = rows("| schedule | due on |")
    assert len(examples) > 5
    for written, dates in examples:
        ended = billhook(
            *("schedules", "add", "--source", "shop", "--customer", CUSTOMER, "--item", "Hosting; 1; 1", "--dry-run"),
            *(*shlex.split(written.strip("`")), "--json"),
        )

        assert [one["due_on"] for one in ended.objects][: len(dates.split(", "))] == dates.split(", "), written
        if {"--end", "--max-occurrences"} & set(written.split()):
            assert len(ended.objects) == len(dates.split(", ")), written


def test_a_day_begins_when_the_guide_says() -> None:
    def hour(day: date, zone: str) -> str:
        return rhythm.start_of_day(day, zone).astimezone(ZoneInfo(zone)).strftime("%H:%M %z")

    assert "Cairo, 26 April 2024) the day begins at 01:00" in GUIDE
    assert hour(date(2024, 4, 26), "Africa/Cairo") == "01:00 +0300"
    assert "Havana, 3 November 2024), with the first" in GUIDE
    assert hour(date(2024, 11, 3), "America/Havana") == "00:00 -0400"


@once
@pytest.mark.parametrize(("column", "catch_up"), list(enumerate(CATCH_UP, start=1)))
def test_what_was_missed_becomes_what_the_table_says(
    column: int, catch_up: str, engine: Engine, settings: Settings
) -> None:
    table = rows("| missed |")
    item = {"description": "Hosting", "quantity": "1", "unit_price": "1"}
    plan = Plan(
        source="shop", customer_id=CUSTOMER, frequency="monthly", start_date=date(2027, 2, 1), items=[item],
        catch_up=catch_up,
    )  # fmt: skip
    schedule = schedules.add(engine, settings, plan, actor="reader", now=datetime(2027, 1, 15, tzinfo=UTC))

    tick(engine, now=datetime(2027, 4, 10, 9, tzinfo=UTC))

    found = {one.scheduled_date.isoformat(): one for one in schedules.history(engine, schedule)}
    says = {"generated": "waiting", "skipped": "skipped"}
    assert {day: one.status for day, one in found.items()} == {row[0]: says[row[column]] for row in table}
    if catch_up == "latest":
        assert f"`{found['2027-02-01'].error_message}`" in GUIDE


# What is named is there


def test_every_field_is_in_the_table_with_its_option_and_default() -> None:
    table = {name.strip("`"): (option.strip("`"), default) for name, option, default, _ in rows("| field | option |")}
    commands = typer.main.get_command(app).commands["schedules"].commands  # type: ignore[attr-defined]
    of_add = {option for parameter in commands["add"].params for option in parameter.opts}
    words_for = {MISSING: "needed", "": "none", False: "no", None: "none"}

    assert table.keys() == {one.name for one in fields(Plan)}
    for one in fields(Plan):
        option, default = table[one.name]
        assert option in of_add, one.name
        expected = words_for.get(one.default, str(one.default))
        if one.name in DEFAULTS:
            expected = DEFAULTS[one.name]
        assert default.strip("`") == expected, one.name


DEFAULTS = {
    "start_date": "today",
    "options": "none",
    "day_of_month": "that of the start",
    "day_of_week": "that of the start",
}
"""What a field has that is not given, where the command or the calendar says so."""


def test_every_command_and_option_that_is_named_is_one() -> None:
    command = typer.main.get_command(app)
    known = set(command.commands)  # type: ignore[attr-defined]
    group = command.commands["schedules"].commands  # type: ignore[attr-defined]
    known_options = set(_options(command))

    assert set(re.findall(r"billhook ([a-z-]+)", GUIDE)) - known == set()
    assert set(re.findall(r"billhook schedules ([a-z-]+)", GUIDE)) - set(group) == set()
    # Each is told of, be it in a command or in a row of its own.
    assert [name for name in group if f"schedules {name}" not in GUIDE and f"| `{name}` |" not in GUIDE] == []
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", GUIDE)) - known_options == set()
    resets = re.findall(r"`--reset ([a-z-]+)` \(or `([a-z-]+)`, `([a-z-]+)`, `([a-z-]+)`\)", GUIDE)
    (update,) = [one for one in group["update"].params if one.name == "reset"]
    assert all(name in update.help for name in resets[0])


def _options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for one in getattr(command, "commands", {}).values():
        yield from _options(one)


def test_every_setting_that_is_named_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = set(re.findall(r"BILLHOOK_(?!SOURCES__)([A-Z_]+)", GUIDE))
    of_sources = set(re.findall(r"BILLHOOK_SOURCES__SHOP__([A-Z_]+)", GUIDE)) | {"MAX_SCHEDULES", "CALLS_A_MINUTE"}
    (block,) = blocks("toml")
    (tmp_path / "billhook.toml").write_text(block.replace("…", FILLED["…"]), "utf-8")
    monkeypatch.setenv(options.CONFIG, str(tmp_path / "billhook.toml"))

    assert {name.lower() for name in named} - Settings.model_fields.keys() == set()
    assert {name.lower() for name in of_sources} - Source.model_fields.keys() == set()
    assert options.load().sources["shop"].timezone == "Africa/Casablanca"


def test_every_metric_and_log_action_that_is_named_is_one() -> None:
    declared = set(re.findall(r"`(billhook_\w+)`", (ROOT / "docs" / "metrics.md").read_text("utf-8")))
    text = "".join(path.read_text("utf-8") for path in (ROOT / "workers" / "schedule").glob("*.py"))
    (paragraph,) = re.findall(r"^In the log: (.*?)\n\n", GUIDE, re.MULTILINE | re.DOTALL)
    actions = re.findall(r"`(\w+)`", paragraph)

    named = set(re.findall(r"`(billhook_\w+)`", GUIDE))
    assert len(named) == 7
    assert named - declared == set()
    assert len(actions) == 5
    assert [action for action in actions if f'action="{action}"' not in text] == []


def test_every_error_code_that_is_named_is_one() -> None:
    of_commands = [row[0].strip("`") for row in rows("| code | when | exit status |")]
    constants = {value for module in (errors, invoicing) for name, value in vars(module).items() if name.isupper()}
    named = set(re.findall(r"`([A-Z]+_[A-Z_]+|DIED|AMBIGUOUS)`", GUIDE)) - {"BILLHOOK_"}
    ours = {name for name in named if not name.startswith("BILLHOOK_")}
    text = "".join(
        path.read_text("utf-8")
        for folder in ("handlers", "workers", "receiver")
        for path in (ROOT / folder).rglob("*.py")
    )

    assert set(of_commands) - constants == set()
    assert {errors.VALIDATION_ERROR, errors.INVALID_STATE, errors.QUOTA_EXCEEDED, errors.NOT_FOUND} - {
        *of_commands
    } == set()
    assert [name for name in ours if f'"{name}"' not in text] == []


def test_every_status_that_is_named_is_one() -> None:
    of_schedules = [row[0].strip("`") for row in rows("| `status` of a schedule |")]
    of_history = {row[0].strip("`") for row in rows("| `status` in the history |")}

    assert of_schedules == list(schedules.STATUSES)
    assert of_history == {*OPEN, "success", "failed", "skipped"}


def test_the_numbers_are_those_of_the_code() -> None:
    limit = PROVIDERS["hisab"].billing.calls_a_minute  # type: ignore[union-attr]
    waits = [retry.backoff(attempt, first=outcomes.FIRST_WAIT, chance=0.0) for attempt in range(1, RETRIES + 1)]
    week = sum(waits, timedelta())

    def minutes(of: int) -> int:
        return round((1_000 * 4 - of / 10) / (of * 0.9))

    assert limit == 120
    assert f"12 are made at once and 108 every minute after that: **{minutes(limit)} minutes**" in words(GUIDE)
    assert f"At 300 a minute it is {minutes(300)}." in GUIDE
    assert f"after {RETRIES + 1} attempts, {week.days} to {(week * (1 + retry.JITTER)).days + 1} days" in GUIDE
    assert f"its lease ends ({LEASE.total_seconds():.0f} s)" in GUIDE
    assert f"BILLHOOK_PAUSE_AFTER_FAILURES` failures in a row ({Settings().pause_after_failures})" in GUIDE
    assert f"`BILLHOOK_MAX_STARTS` times ({Settings().max_starts})" in GUIDE
    for name in ("hisab", "hibr", "hesabe"):
        billing = PROVIDERS[name].billing
        assert billing is not None
        assert re.search(rf"^\| calls a minute.*\| {billing.calls_a_minute}\b", GUIDE, re.MULTILINE), name


def test_the_columns_of_a_file_are_told() -> None:
    (paragraph,) = re.findall(r"^- \*\*Columns\*\* .*?(?=^- )", GUIDE, re.MULTILINE | re.DOTALL)
    needed = re.findall(r"`(\w+)`", paragraph.partition("default.")[2].partition(" are needed")[0])
    told = {*re.findall(r"`(\w+)`", paragraph), *(row[0].strip("`") for row in rows("| field | option |"))}

    assert tuple(needed) == importing.REQUIRED
    assert set(importing.COLUMNS) - told == set()


def test_the_handler_runs_as_it_stands(tmp_path: Path) -> None:
    (block,) = blocks("python")
    (tmp_path / "billing.py").write_text(block, "utf-8")
    program = (
        "from billing import tell_billing\n"
        "from handlers.testing import event, run\n"
        "sample = event('recurring.failed', provider='billhook', data={'schedule_paused': True})\n"
        "print(run(tell_billing, sample).emitted)\n"
    )

    # In a process of its own: what is registered stays registered.
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert "'billing.alert'" in done.stdout
    assert "'paused: CUSTOMER_INACTIVE'" in done.stdout


def test_every_link_to_a_heading_leads_to_one() -> None:
    for target, heading in re.findall(r"\]\(([\w/.]*)#([^)]+)\)", GUIDE):
        page = (ROOT / "docs" / target).read_text("utf-8") if target else GUIDE
        assert heading in {line.lower().replace(" ", "-") for line in re.findall(r"^#+ (.*)$", page, re.MULTILINE)}


def test_the_picture_is_shown_and_says_what_it_shows() -> None:
    assert "](occurrence.svg)" in GUIDE
    picture = ElementTree.parse(ROOT / "docs" / "occurrence.svg").getroot()  # noqa: S314 - our own
    name = "{http://www.w3.org/2000/svg}"
    texts = [element.text or "" for element in picture.iter(f"{name}text")]

    assert picture.get("role") == "img"
    assert picture.get("aria-labelledby") == "t d"
    assert {(element.tag, element.get("id")) for element in list(picture)[:2]} == {
        (f"{name}title", "t"),
        (f"{name}desc", "d"),
    }
    assert {"planned", "intended", "created", "finalized", "sent", "generated", "held", "failed", "skipped"} <= set(
        texts
    )
    assert not [element for element in picture.iter() if element.get("href") or "url(http" in str(element.attrib)]
