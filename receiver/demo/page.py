"""The demo's page: numbered lines as things happen, and a table at the end. Colours only at a terminal."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from handlers.errors import BillhookError
from receiver.cli.output import Output

WIDTH = 100


class Missing(BillhookError):
    """Something did not happen: which of the table's happenings, and what there was instead."""

    def __init__(self, happening: str, what: str) -> None:
        super().__init__(what)
        self.happening = happening


class Page:
    """Writes to stdout, and counts the happenings it has written."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self.counts: Counter[str] = Counter()
        self._missing: list[str] = []
        self._lines = 0
        self._good, self._bad = _marks()
        # `force_terminal`, because a pipe is no terminal whatever FORCE_COLOR says.
        self._console = Output(
            force_terminal=self.terminal, highlight=False, width=None if self.terminal else WIDTH, soft_wrap=True
        )

    def say(self, text: str = "", style: str = "") -> None:
        """A line without a number."""
        self._print(Text(text, style))

    def title(self, text: str) -> None:
        """What the next lines are about."""
        self.say()
        self.say(text, "bold")

    def happened(self, happening: str, subject: str, detail: str, at: datetime | None = None) -> None:
        """A numbered line for something that went as it should, at `at` (default: now)."""
        self.counts[happening] += 1
        self._line(self._good, "green", happening, f"{subject:<20} {detail}", at)

    def missing(self, missing: Missing) -> None:
        """A numbered line for something that did not."""
        self._missing.append(missing.happening)
        self._line(self._bad, "red", missing.happening, str(missing), None)

    def table(self, promises: Mapping[str, str]) -> None:
        """The happenings that were promised: how often each was seen, and what that shows."""
        table = Table(box=SIMPLE, pad_edge=False, header_style="bold")
        for name in ("happening", "count", "result"):
            table.add_column(name, justify="right" if name == "count" else "left")
        if not self.terminal:
            self.say("happening  count  result")
        for happening, shown in promises.items():
            count = self.counts[happening]
            good = count > 0 and happening not in self._missing
            mark, style = (self._good, "green") if good else (self._bad, "red")
            result = f"{mark} {shown if good else 'did not happen'}"
            table.add_row(happening, str(count), Text(result, style))
            if not self.terminal:
                self.say(f"{happening:<9}  {count:>5}  {result}")
        if self.terminal:
            self._console.print(table)

    def _line(self, mark: str, style: str, happening: str, rest: str, at: datetime | None) -> None:
        self._lines += 1
        time = (at or datetime.now(UTC)).strftime("%H:%M:%S.%f")[:-3]
        self._print(
            Text.assemble(
                f"{self._lines:>2} ", (mark, style), " ", (time, "dim"), " ", (f"{happening:<9}", "bold"), " ", rest
            )
        )

    def _print(self, text: Text) -> None:
        text.rstrip()
        self._console.print(text)
        sys.stdout.flush()


def _marks() -> tuple[str, str]:
    try:
        "✓✗".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "+", "!"
    return "✓", "✗"
