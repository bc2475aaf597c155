"""The runbooks: a page for each alert, and nothing on them that is not there: commands, options, metrics, settings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from receiver.cli import app
from tests.alerts.rules import OF_OTHERS, ROOT, alerts, declared, literals, unknown
from workers.settings import Settings

FOLDER = ROOT / "docs" / "runbooks"
PAGES = sorted(FOLDER.glob("*.md"))
INDEX = FOLDER / "README.md"
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_each_alert_has_its_page_and_each_page_its_alert() -> None:
    named = {alert.name: FOLDER.parent.parent / alert.annotations["runbook"] for alert in alerts()}

    assert sorted({*named.values(), INDEX}) == PAGES
    assert {page.read_text("utf-8").partition("\n")[0] for page in PAGES if page != INDEX} == {
        f"# {name}" for name in named
    }
    assert {name: page.read_text("utf-8").partition("\n")[0] for name, page in named.items()} == {
        name: f"# {name}" for name in named
    }


def test_the_index_has_each_alert_with_its_severity_in_their_order() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\((.+?)\) \| (\w+) \| .+ \|$", INDEX.read_text("utf-8"), re.MULTILINE)

    assert rows == [
        (alert.name, Path(alert.annotations["runbook"]).name, alert.labels["severity"]) for alert in alerts()
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if page != INDEX], ids=lambda page: page.stem)
def test_a_page_says_what_to_look_at_what_to_do_and_when_it_is_over(page: Path) -> None:
    text = page.read_text("utf-8")

    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
        "What to look at",
        "What to do",
        "How to know it is over",
    ]
    assert re.search(r"^\$ billhook ", text, re.MULTILINE)
    assert _FENCED.search(text)


@each_page
def test_each_command_can_be_given_as_it_stands(page: Path) -> None:
    for line in re.findall(r"^\$ (.+)$", page.read_text("utf-8"), re.MULTILINE):
        program, *words = shlex.split(line)
        assert program == "billhook", line
        command, rest = find(words)
        command.make_context(command.name, rest)  # raises where an argument or an option cannot be


@each_page
def test_each_command_and_option_in_the_text_exists(page: Path) -> None:
    prose = _FENCED.sub("", page.read_text("utf-8"))
    for code in re.findall(r"`(billhook [^`]+)`", prose):
        command, rest = find(shlex.split(code)[1:])
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in rest if word.startswith("--")} <= options, code
    for option in re.findall(r"`(--[\w-]+)`", prose):
        assert option in all_options(), option


@each_page
def test_each_query_is_promql_of_metrics_that_there_are(page: Path) -> None:
    text = page.read_text("utf-8")
    for kind, block in _FENCED.findall(text):
        assert kind in {"console", "promql", "sql"}
        for query in block.splitlines() if kind == "promql" else ():
            assert unknown(query) == [], query
    prose = _FENCED.sub("", text)
    for code in re.findall(r"`(billhook_[^`]+)`", prose):
        assert unknown(code) == [], code
    for label, value in re.findall(r"`(\w+)=\"(\w+)\"`", prose):
        assert any(label in labels for labels in declared().values()), label
        assert value in literals()


@each_page
def test_each_setting_log_line_and_link_leads_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    settings = {f"BILLHOOK_{name.upper()}" for name in Settings.model_fields}
    source = "".join(
        path.read_text("utf-8") for package in ("receiver", "workers") for path in (ROOT / package).rglob("*.py")
    )

    assert set(re.findall(r"BILLHOOK_\w+", text)) <= settings
    assert [action for action in re.findall(r'"action": "(\w+)"', text) if f'action="{action}"' not in source] == []
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", text):
        linked = page.parent / target if target else page
        assert linked.is_file(), target
        headings = re.findall(r"^#+ (.+)$", linked.read_text("utf-8"), re.MULTILINE)
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings}


def test_what_the_documents_call_a_command_is_found_out_if_it_is_none() -> None:
    with pytest.raises(AssertionError):
        find(["schedules", "repair"])
    with pytest.raises(AssertionError):
        find(["mend"])
    assert unknown("billhook_nothing_total") == ["billhook_nothing_total"]
    assert unknown('billhook_runs_total{outcom="dead"}') == ["billhook_runs_total{outcom}"]
    assert unknown('billhook_runs_total{outcome="deadly"}') == ['billhook_runs_total{outcome="deadly"}']
    assert not OF_OTHERS & declared().keys()


def find(words: list[str]) -> tuple[Any, list[str]]:
    """The command that these words give, and what is left of them."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert words, command.name
        name, *words = words
        assert name in command.commands, name
        command = command.commands[name]
    return command, words


@cache
def all_options() -> frozenset[str]:
    def below(command: Any) -> Iterator[str]:
        yield from (name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts))
        for inner in getattr(command, "commands", {}).values():
            yield from below(inner)

    return frozenset(below(typer.main.get_command(app)))
