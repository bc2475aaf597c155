"""Whether the workers and beats of a machine or container do their work, for its probe.

Each touches a file there, so the probe needs no server; and it is asked every few seconds, so it needs no library. Who
looks from elsewhere asks Redis (`workers.presence`).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path


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
