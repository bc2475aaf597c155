"""The guide to endpoints shows commands that work, and what they answer."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from receiver.cli import endpoints as commands
from tests.receiver.cli.conftest import Billhook
from workers import settings
from workers.delivery.headers import denied

GUIDE = (Path(__file__).parents[3] / "docs" / "outbound.md").read_text("utf-8")
COMMAND = re.compile(r"^\$ billhook (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
"""A command and what is shown of its answer."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
@pytest.mark.usefixtures("configured")
def test_every_command_does_what_is_shown(billhook: Billhook, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ken")
    added = ""
    for line, answer in COMMAND.findall("".join(blocks("console"))):
        ended = billhook(*(part.replace("ep_…", added) for part in shlex.split(line)))

        assert ended.status == 0, ended
        said = [" ".join(one.split()) for one in ended.out.splitlines()]
        shown = [" ".join(one.split()) for one in answer.splitlines()]
        assert len(said) >= len(shown), (line, said)
        for expected, found in zip(shown, said, strict=False):
            assert re.fullmatch(re.escape(expected).replace("…", ".*"), found), (line, expected, found)
        added = added if " add " not in f" {line} " else said[0].split()[0]


def test_every_command_that_is_named_is_one() -> None:
    import typer

    app = typer.Typer()
    commands.add_to(app)
    (group,) = app.registered_groups
    assert group.typer_instance is not None
    names = {command.name for command in group.typer_instance.registered_commands}

    assert set(re.findall(r"billhook endpoints ([a-z]+)", GUIDE)) - names == set()


def test_the_headers_that_are_named_as_refused_are() -> None:
    (paragraph,) = re.findall(r"^Refused are headers.*?\n\n", GUIDE, re.MULTILINE | re.DOTALL)
    names = re.findall(r"`([A-Z][A-Za-z-]+…?)`", paragraph)

    assert len(names) > 15
    assert [name for name in names if not denied(name.replace("…", "x"))] == []


def test_the_settings_that_are_shown_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (block,) = blocks("toml")
    (tmp_path / "billhook.toml").write_text(block)

    loaded = settings.load()

    assert list(loaded.egress_networks) == tomllib.loads(block)["egress_networks"]


def test_every_link_to_a_heading_leads_to_one() -> None:
    headings = {line.lower().replace(" ", "-") for line in re.findall(r"^#+ (.*)$", GUIDE, re.MULTILINE)}

    assert set(re.findall(r"\]\(#([^)]+)\)", GUIDE)) - headings == set()
