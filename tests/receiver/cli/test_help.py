"""What `--help` says of each command reads as the summary of a manual page; and the shell completes it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from receiver.cli import app
from receiver.cli.panels import PANELS
from tests.receiver.cli.conftest import Billhook

ROOT: Any = typer.main.get_command(app)


def every(command: Any, *path: str) -> Iterator[tuple[str, Any]]:
    """Each command by its name, as it is given."""
    for name, one in getattr(command, "commands", {}).items():
        yield " ".join((*path, name)), one
        yield from every(one, *path, name)


COMMANDS = dict(every(ROOT))
EXAMPLES = [
    (name, found[1])
    for name, one in COMMANDS.items()
    if (found := re.search(r"^Example: (billhook .*)$", one.help or "", re.MULTILINE))
]


def test_every_command_stands_in_one_panel_and_every_panel_has_commands_that_are(billhook: Billhook) -> None:
    placed = [name for names in PANELS.values() for name in names]

    assert sorted(placed) == sorted(ROOT.commands)

    shown = billhook("--help").out
    positions = [shown.index(f"─ {heading} ─") for heading in PANELS]
    assert positions == sorted(positions)
    assert "─ Commands ─" not in shown


@pytest.mark.parametrize(("name", "command"), COMMANDS.items())
def test_a_summary_is_one_sentence_that_fits_a_line(name: str, command: Any) -> None:
    summary, _, _ = (command.help or "").partition("\n")

    assert re.fullmatch(r"[A-Z][a-z]+,? [^\n]*\.", summary), summary
    assert len(summary) <= 65, f"{name}: {len(summary)}"
    assert ". " not in summary


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_an_example_is_of_its_command_and_has_options_that_it_has(name: str, example: str) -> None:
    words = shlex.split(example.partition(" && ")[0])[1:]

    assert " ".join(words).startswith(name)
    known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("name", [name for name, one in COMMANDS.items() if not hasattr(one, "commands")])
def test_every_option_says_what_it_is(name: str) -> None:
    silent = [one.name for one in COMMANDS[name].params if not one.hidden and not (one.help or "").strip()]

    assert silent == []


COMPLETIONS = [
    ("ev", ["event", "events"]),
    ("endpoints re", ["recover"]),
    ("events --sta", ["--status"]),
    ("events --status d", ["dead"]),
    ("tail --status un", ["undelivered"]),
    ("work --queues s", ["schedules"]),
]


@pytest.mark.parametrize(("typed", "offered"), COMPLETIONS)
def test_bash_is_offered_commands_options_and_values(billhook: Billhook, typed: str, offered: list[str]) -> None:
    ended = _completed(billhook, "bash", COMP_WORDS=f"billhook {typed}", COMP_CWORD=str(len(typed.split())))

    assert sorted(ended) == offered


def test_zsh_is_offered_them_with_what_they_do(billhook: Billhook) -> None:
    offered = "\n".join(_completed(billhook, "zsh", _TYPER_COMPLETE_ARGS="billhook aud"))

    assert '"audit":"Prove that nothing is lost."' in offered


def _completed(billhook: Billhook, shell: str, **asked: str) -> list[str]:
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {"_BILLHOOK_COMPLETE": f"complete_{shell}", **asked}.items():
            environment.setenv(name, value)
        ended = billhook()
    assert (ended.status, ended.err) == (0, "")
    return ended.out.splitlines()


def test_completion_is_installed_in_the_shell_that_asks(tmp_path: Path) -> None:
    """bash is there wherever the tests run; the script for it is read by one, and completes."""
    program = tmp_path / "billhook"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m receiver.cli "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    shell = ["bash", "--norc", "-c"]
    install = "billhook --install-completion; :"  # `:` so that bash stays the parent, which is how it is recognised
    done = subprocess.run([*shell, install], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "bash completion installed" in done.stdout, done

    given = "COMP_WORDS=(billhook acknow); COMP_CWORD=1; _billhook_completion billhook"
    ask = f"source ~/.bashrc; {given}; echo ${{COMPREPLY[@]}}"
    asked = subprocess.run([*shell, ask], env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert (asked.stdout, asked.stderr) == ("acknowledge\n", "")
