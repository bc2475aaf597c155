"""The command `billhook`, in a process that goes by a clock of the test's: the machine's, ahead by what a file says.

What goes under with a process is looked for after seconds rather than minutes: many accidents happen in a short time.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from workers import leases


def shifted() -> datetime:
    """The time by that clock."""
    return datetime.now(UTC) + timedelta(seconds=float(Path(os.environ["TEST_AHEAD"]).read_text()))


def main() -> None:
    """Run the command."""
    # Before anybody takes a copy of it.
    leases.utcnow = shifted
    leases.RING_AGAIN = timedelta(seconds=5)

    from workers.schedule import generator

    generator.LEASE, generator.DEADLINE = timedelta(seconds=3), 2.0

    from workers.schedule import issuing, outcomes

    issuing.SETTLES_WITHIN, outcomes.FIRST_WAIT = 1.0, 0.2

    from receiver import cli

    cli.main()


if __name__ == "__main__":
    main()
