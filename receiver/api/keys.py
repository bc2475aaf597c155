"""`/keys`: who may call this API, and for what."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response, Security
from pydantic import Field

from receiver.api.access import Running, caller
from receiver.api.answers import Many, Model, Moment, One, all_of, refusals
from receiver.api.changes import Change, changing
from workers import api_keys
from workers.api_keys import SCOPES, Caller
from workers.models import AnyRow

router = APIRouter(prefix="/keys", tags=["keys"])

Read = Annotated[Caller, Security(caller, scopes=["keys:read"])]
Changes = Annotated[Change, changing("keys:write")]


class Key(Model):
    """An API key. The key itself is shown once, when it is made."""

    id: str
    name: str
    hint: str = Field(description="The last characters of the key.")
    scopes: list[str]
    created_at: Moment
    created_by: str
    expires_at: Moment | None
    revoked_at: Moment | None
    last_used_at: Moment | None = Field(description="To the minute.")


class NewKey(Key):
    """A key that was just made."""

    key: str = Field(description="Shown only now.")


class WantedKey(Model):
    """A key as it is asked for."""

    name: str = Field(min_length=1, max_length=api_keys.LONGEST_NAME, description="What it is for.")
    scopes: list[str] = Field(
        min_length=1,
        max_length=len(SCOPES) + 2,
        description=f"Of {', '.join(SCOPES)}; or `read` or `full`, which stand for several. "
        "Only scopes that the calling key has itself.",
    )
    expires_at: Moment | None = Field(None, description="When it ends by itself.")


def shown(row: AnyRow) -> Key:
    """A key as the API shows it."""
    return Key.of(row)


@router.get("", summary="List API keys", responses=refusals())
def list_keys(running: Running, _caller: Read) -> Many[Key]:
    """All of them, the newest first; there are few, so there is one page."""
    return all_of([shown(row) for row in api_keys.everyone(running.engine)])


@router.post("", status_code=201, summary="Create an API key", response_model=One[NewKey], responses=refusals(409))
def create_key(wanted: WantedKey, change: Changes) -> Response:
    """Make a key for scopes that the calling key has itself. The key is shown in this answer, and never again."""

    def make() -> NewKey:
        engine = change.runtime.engine
        made = api_keys.create(
            engine,
            wanted.name,
            wanted.scopes,
            actor=change.actor,
            now=change.now,
            expires_at=wanted.expires_at,
            maker=change.caller,
        )
        return NewKey.of(api_keys.get(engine, made.id), key=made.key)

    return change.carry_out(make, status=201)


@router.get("/{key_id}", summary="Show an API key", responses=refusals(404))
def show_key(key_id: str, running: Running, _caller: Read) -> One[Key]:
    """One key, without the key itself."""
    return One(data=shown(api_keys.get(running.engine, key_id)))


@router.post("/{key_id}/revoke", summary="Revoke an API key", response_model=One[Key], responses=refusals(404, 409))
def revoke_key(key_id: str, change: Changes) -> Response:
    """End a key at once, and for good. One that was revoked stays as it is."""
    return change.carry_out(
        lambda: shown(api_keys.revoke(change.runtime.engine, key_id, actor=change.actor, now=change.now))
    )
