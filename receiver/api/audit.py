"""`/audit-log`: what people had done, by the command line, this API and the console."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Security

from receiver.api.access import Running, caller
from receiver.api.answers import Many, Model, Moment, Pages, Text, many, refusals
from workers import browsing
from workers.api_keys import Caller

router = APIRouter(prefix="/audit-log", tags=["audit log"])

Read = Annotated[Caller, Security(caller, scopes=["audit:read"])]


class Entry(Model):
    """Something that somebody had done."""

    id: str
    at: Moment
    actor: str
    action: str
    detail: dict[str, Any]


class Wanted(Pages):
    """Which entries; all that is given must fit."""

    listed = "log"

    actor: Annotated[Text | None, Query(max_length=200, description="Exactly as entries have it.")] = None
    action: Annotated[Text | None, Query(max_length=100, description="Such as `replay` or `keys.create`.")] = None
    since: Annotated[Moment | None, Query(description="Done then or later.")] = None
    until: Annotated[Moment | None, Query(description="Done earlier.")] = None


@router.get("", summary="List the audit log", responses=refusals())
def list_entries(wanted: Annotated[Wanted, Query()], running: Running, _caller: Read) -> Many[Entry]:
    """The newest first. An entry is written in the transaction of what it tells of."""
    found = browsing.audit_entries(
        running.engine,
        actor=wanted.actor,
        action=wanted.action,
        since=wanted.since,
        until=wanted.until,
        after=wanted.after,
        limit=wanted.limit,
    )
    return many(found, Entry.of)
