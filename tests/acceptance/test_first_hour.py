"""What a newcomer reads, the tutorial and the README's first example, carried out by a shell as it stands there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.acceptance.forked import forking
from tests.services import free_port

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
PROGRAM = """#!/bin/sh
case "$1" in
up | listen) exec {python} -m receiver.cli "$@" ;;
*) exec {forked} "$@" ;;
esac
"""
"""What runs on is a process that can be told to end; any other command is spared its start."""
ASKS = ("billhook doctor", "billhook events", "billhook event ", "billhook deliveries")
"""Commands that a reader gives again until what is to happen has happened."""
PATIENCE = 90.0
"""Seconds."""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `billhook`."""
    folder = tmp_path_factory.mktemp("bin")
    with forking(folder / "forked"):
        (folder / "billhook").write_text(PROGRAM.format(python=sys.executable, forked=folder / "forked"))
        (folder / "billhook").chmod(0o755)
        yield folder


@dataclass
class Reader:
    """Who reads a page at a terminal: one shell, and what it answered last."""

    folder: Path
    programs: Path
    ports: dict[str, str] = field(default_factory=lambda: {"8000": str(free_port()), "8802": str(free_port())})
    last: dict[str, str] = field(default_factory=dict)
    """By its prefix: the last id, or secret, that was shown."""

    def __enter__(self) -> Reader:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("BILLHOOK_")},
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # those of this project, which take longer than the reader's tests
            "BILLHOOK_WORKER_PROCESSES": "1",
            "BILLHOOK_LISTEN": f"127.0.0.1:{self.ports['8000']}",
            "PATH": ":".join([str(self.programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
        }
        with (self.folder / "stderr").open("wb") as errors:
            self.shell = subprocess.Popen(
                ["sh"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=self.folder,
                env=environment,
                text=True,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        """All that was started is told to end, and has ended."""
        with self.shell:
            os.killpg(self.shell.pid, signal.SIGTERM)
            assert self.shell.stdout is not None
            self.shell.stdout.read()  # to its end, which is that of the last who could write to it

    def read(self, page: str) -> None:
        """Do what each block of the page shows, in their order."""
        for language, block in BLOCK.findall(page):
            if language == "python":
                self.save(block)
                continue
            given = COMMAND.findall(block)
            assert given, block
            for command, shown in given:
                self.follow(command, shown)

    def save(self, block: str) -> None:
        """Put the code into the file that its first line names, and wait until the worker has read it."""
        named = re.match(r"# (\w+\.py)\n", block)
        begun = self.said().count("working on")
        (self.folder / "shop" / named[1] if named else self.folder / "receipts.py").write_text(block)
        if named:
            self.until(lambda: self.said().count("working on") > begun, "the worker begins anew")

    def follow(self, command: str, shown: str) -> None:
        """Give a command; what is shown of its answer must come."""
        if command.startswith("pip install "):
            self.installable(command)
            return
        command = re.sub(r"\b(evt|whsec)_…", lambda found: self.last[found[1]], command)
        command = command.replace("8802", self.ports["8802"])
        if command.endswith("&"):
            self.begin(command)
            return
        deadline = time.monotonic() + (PATIENCE if command.startswith(ASKS) else 0)
        while (missing := self.missing(shown, status_and_answer := self.give(command))) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not missing, (command, missing, status_and_answer, self.said())
        for kind, made in re.findall(r"\b(evt|whsec)(_[\w+/=]+)", status_and_answer[1]):
            self.last[kind] = kind + made

    def give(self, command: str) -> tuple[int, str]:
        """The status and the answer of a command."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write(f'{command}\necho "\n--ended $?"\n')
        self.shell.stdin.flush()
        answer = ""
        while (ended := re.search(r"\n--ended ([0-9]+)\n\Z", answer)) is None:
            line = self.shell.stdout.readline()
            assert line, (command, answer, self.said())
            answer += line
        return int(ended[1]), answer[: ended.start()]

    def begin(self, command: str) -> None:
        """Start what goes on in a terminal of its own, and wait until it says that it is ready."""
        before = self.said()
        assert self.shell.stdin is not None
        self.shell.stdin.write(f"{command}\n")
        self.shell.stdin.flush()
        for word in ("receiving on", "working on", "ticking") if " up " in command else ("listening on",):
            self.until(lambda word=word: word in self.said()[len(before) :], f"{command} says {word}")

    def missing(self, shown: str, given: tuple[int, str]) -> list[str]:
        """Lines of the page that the answer has not; where a command failed, that."""
        status, answer = given
        if status:
            return [f"status {status}"]
        return [line for line in shown.splitlines() if not re.search(_pattern(line), answer)]

    def installable(self, command: str) -> None:
        """What is to be installed is this project, with extras that it has."""
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        (extra,) = re.findall(r"'billhook\[(\w+)\]'", command)
        assert extra in extras

    def said(self) -> str:
        """What came on stderr so far."""
        return (self.folder / "stderr").read_text("utf-8", "replace")

    def until(self, condition: object, what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < deadline, (what, self.said())
            time.sleep(0.02)


def _pattern(line: str) -> str:
    """A line as it is matched: what differs each time, and how wide a column is, may be anything."""
    words = (re.escape(part) for part in re.split(r"\s*…\s*", line.strip()))
    return re.sub(r"(?:\\ )+", r"\\s+", r".*".join(words))


def test_the_tutorial_does_what_it_says(tmp_path: Path, programs: Path) -> None:
    with Reader(tmp_path, programs) as reader:
        reader.read(TUTORIAL)

        assert reader.give("cat .gitignore")[1].count(".billhook/") == 1
    assert "Traceback" not in reader.said().replace("KeyError", "")


def test_the_first_example_of_the_readme_does_what_it_says(tmp_path: Path, programs: Path) -> None:
    section = re.search(r"^## A handler\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    assert section is not None
    text = re.sub(r"evt_01M802JFQ4BKP1Z2J476R6XRE8|2026-11-21 22:10:32Z", "…", section[1])
    with Reader(tmp_path, programs) as reader:
        reader.read(text)
        answer = httpx.get(f"http://127.0.0.1:{reader.ports['8000']}/readyz", trust_env=False)

    assert answer.status_code == 200
