"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import sqlite3
from pathlib import Path

from benchmarks.services import Services


def hardware(found: Services | None, folder: Path) -> str:
    """The line without which the figures say nothing."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(": ")[2] for line in cpuinfo.splitlines() if line.startswith("model name")), "?")
    parts = [
        f"{len(os.sched_getaffinity(0))} cores, {model}, {platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
        *([found.versions] if found else []),
        f"SQLite {sqlite3.sqlite_version}, synchronous FULL, on {_filesystem(folder)}",
    ]
    return "; ".join(parts)


def _filesystem(folder: Path) -> str:
    """The type of the filesystem a folder is on; on tmpfs an fsync costs nothing."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [(point, kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(holding, key=lambda mount: len(mount[0]))[1]
