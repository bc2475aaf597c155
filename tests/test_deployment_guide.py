"""The pages for those who deploy and look after it: what they compute is right, what they name is there."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase

from tests.alerts.test_runbooks import find
from tests.conftest import new_database
from workers import database, metrics
from workers.settings import OF_COMMANDS, Settings, Source

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {name: (DOCS / name).read_text("utf-8") for name in ("operations.md", "deployment.md")}
DEPLOYMENT = PAGES["deployment.md"]
each_page = pytest.mark.parametrize("text", PAGES.values(), ids=PAGES)


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@each_page
def test_every_command_that_is_named_is_one(text: str) -> None:
    shown = re.findall(r"^ *\$ (billhook .*?)(?: \||$)", text, re.MULTILINE)
    for line in (*shown, *re.findall(r"`(billhook [^`]+)`", text)):
        command, rest = find([word for word in shlex.split(line)[1:] if word != "…"])
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in rest if word.startswith("--")} <= options, line


@each_page
def test_every_setting_metric_and_link_leads_somewhere(text: str) -> None:
    settings = {f"BILLHOOK_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"BILLHOOK_\w+", text)) <= settings | OF_COMMANDS
    declared = {value._name for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)}
    named = re.findall(r"`(billhook_\w+?)(?:_total)?(?:{[^`]*})?`", text)
    assert set(named) <= declared | {"billhook_waiting"}
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", text):
        linked = (DOCS / target).read_text("utf-8") if target else text
        assert not anchor or anchor in anchors(linked), (target, anchor)


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a line that begins so, without marks."""
    _, _, rest = DEPLOYMENT.partition(f"\n{heading}")
    table = re.search(r"(?:^\|.*\n)+", heading + rest, re.MULTILINE)
    assert table is not None
    lines = [line.strip().strip("|").split("|") for line in table[0].splitlines()[2:]]
    return [[cell.strip().strip("`") for cell in line] for line in lines]


def number(cell: str) -> float:
    return float(cell.split(maxsplit=1)[0].replace(",", ""))


def test_the_sizes_are_what_the_rules_above_them_come_to() -> None:
    told = {row[0]: row[1].replace("\N{MULTIPLICATION SIGN}", "x") for row in rows("| what | how much |")}
    assert "(2.2 + 0.65 x H + 1.2 x M) kB x 1.6" in told["disk of PostgreSQL"]
    assert "x 3 x 232 bytes`, and 50 MiB" in told["memory of Redis"]
    sizes = rows("| events a day |")
    assert len(sizes) == 3

    for row in sizes:
        a_day, *shown = map(number, row)
        peak = a_day / 86_400 * 10
        assert shown == [
            pytest.approx(peak, rel=0.05),
            max(2, math.ceil(peak / 2_000)),
            math.ceil(peak * (0.05 + 0.0001) / 0.7),
            max(2, math.ceil(peak / 1_000)),
            math.ceil(peak * 0.0005 / 0.5),
            pytest.approx(a_day * 35 * (2.2 + 0.65 + 1.2) * 1.6 / 1e6, abs=0.5),
            pytest.approx(a_day * 3 * 232 / 2**20 + 50, abs=0.5),
        ]


def test_what_they_were_computed_from_is_what_was_measured() -> None:
    measured = (DOCS / "performance.md").read_text("utf-8")
    bytes_of = {
        name: number(size) for name, size in re.findall(r"^\| `(\w+)`[^|]*\| ([\d,]+) \|", measured, re.MULTILINE)
    }

    assert bytes_of["events"] / 1e3 == pytest.approx(2.2, abs=0.05)
    assert bytes_of["handler_runs"] / 1e3 == pytest.approx(0.65, abs=0.05)
    assert sum(bytes_of[name] for name in ("messages", "deliveries", "attempts")) / 1e3 == pytest.approx(1.2, abs=0.05)
    for figure in ("232 bytes", "465 µs", "111 µs", "634 µs of CPU"):
        assert figure in measured


def test_several_servers_can_be_named_and_the_one_that_writes_is_found(postgres_url: str) -> None:
    (shown,) = re.findall(r"`(postgresql://[^`]+target_session_attrs=read-write)`", DEPLOYMENT)
    host, port = re.findall(r"@([\w.]+):(\d+)", postgres_url)[0]
    with new_database(postgres_url) as own:
        url = shown.replace("billhook:…", "postgres").replace("/billhook", f"/{own.rpartition('/')[2]}")
        url = url.replace("db-a,db-b", f"{host},{host}").replace("5432,5432", f"1,{port}")
        engine = database.connect(Settings(database_url=url))

        assert database.revision(engine) is None
        engine.dispose()


def test_the_connections_are_as_many_as_the_page_says() -> None:
    pool = database.connect(Settings(database_url="postgresql://nowhere/billhook")).pool

    assert "At most: 16 for each process" in DEPLOYMENT
    assert pool.size() + pool._max_overflow + 1 == 16  # type: ignore[attr-defined]


def test_the_source_with_two_secrets_tries_both() -> None:
    (written,) = re.findall(r'`secrets = (\["current", "new"\])`', DEPLOYMENT)

    assert len(Source(provider="hisab", secrets=written).keys()) == 2
