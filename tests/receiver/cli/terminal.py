"""Commands as someone at a terminal runs them, and how they ended."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

COMMAND = (sys.executable, "-m", "receiver.cli")


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def objects(self) -> list[Any]:
        """What was printed, as one JSON value a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    def complaint(self, status: int = 1) -> str:
        """Check that it failed with this status and one line on stderr; what the line says."""
        assert self.status == status, self
        assert self.out == ""
        assert self.err.startswith("billhook: "), self.err
        assert self.err.count("\n") == 1, self.err
        assert "unexpected" not in self.err
        return self.err.removeprefix("billhook: ").rstrip("\n")

    def misuse(self) -> str:
        """Check that its options or arguments were refused before it began; what was said."""
        assert self.status == 2, self
        assert self.out == ""
        assert "Traceback" not in self.err
        return self.err


def run(*arguments: str, **options: Any) -> Ended:
    """Run a command as a process of its own."""
    ended = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False, **options)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs during the block."""
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@contextmanager
def at_a_terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command with a terminal of its own, and the descriptor of its other side."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"}
    command = [*COMMAND, *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        try:
            yield process, ours
        finally:
            os.close(ours)
            if process.poll() is None:
                process.kill()
