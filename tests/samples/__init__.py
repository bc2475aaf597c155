"""Recorded deliveries: raw bytes, one folder per provider and case."""

from __future__ import annotations

import json
from pathlib import Path

from handlers.event import Headers

_HERE = Path(__file__).parent


def cases(provider: str) -> list[str]:
    return sorted(path.name for path in (_HERE / provider).iterdir())


def recorded(provider: str, case: str) -> tuple[Headers, bytes]:
    """Headers as a server hands them over, and the body."""
    folder = _HERE / provider / case
    headers = json.loads((folder / "headers.json").read_text())
    wire = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return wire, (folder / "body").read_bytes()
