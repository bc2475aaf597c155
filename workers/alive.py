"""Whether this machine's worker or beat does its work, as a file that it touches, for who watches it from outside."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

WITHIN = 60.0
"""Seconds after which a process that has not touched its file is taken for stuck."""


def path(name: str) -> Path:
    """The file of a worker (`work`) or beat (`beat`) of this machine or container."""
    return Path(tempfile.gettempdir()) / f"billhook-{name}.alive"


def touch(name: str) -> None:
    """Say that it does its work. A full or read-only disk is no reason to end it."""
    try:
        path(name).touch()
    except OSError:
        return


def silent_for(name: str) -> float | None:
    """Seconds since it last said so; None: it never did."""
    try:
        return time.time() - path(name).stat().st_mtime
    except OSError:
        return None
