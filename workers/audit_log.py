"""The audit log: what people had done, and to how much of what.

An entry is written in the transaction of what it tells of, so that neither is there without the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, update

from workers import ids
from workers.models import AuditEntry


def note(connection: Connection, actor: str, action: str, detail: Mapping[str, Any], now: datetime) -> str:
    """Write an entry and return its id; `detail` is JSON without a secret."""
    entry = {"id": ids.new("log"), "at": now, "actor": actor, "action": action, "detail": dict(detail)}
    connection.execute(insert(AuditEntry).values(entry))
    return str(entry["id"])


def amend(connection: Connection, entry_id: str, detail: Mapping[str, Any]) -> None:
    """Tell in an entry how far what it tells of has come."""
    connection.execute(update(AuditEntry).where(AuditEntry.id == entry_id).values(detail=dict(detail)))
