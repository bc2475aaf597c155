"""`/sources`: who sends, as it is configured, and how it does. No secret is shown."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Security
from pydantic import Field

from receiver.api.access import Running, caller
from receiver.api.answers import Many, Model, Moment, One, all_of, refusals
from receiver.api.errors import missing
from receiver.webhooks import PREFIX
from workers import senders
from workers.api_keys import Caller
from workers.leases import utcnow
from workers.senders import Health, Sender

router = APIRouter(prefix="/sources", tags=["sources"])

Read = Annotated[Caller, Security(caller, scopes=["sources:read"])]


class Counts(Model):
    """Events by what became of them."""

    received: int
    processed: int
    ignored: int
    dead: int
    waiting: int


class Source(Model):
    """A sender."""

    name: str
    configured: bool = Field(description="false: only events of it are stored; what it sends is refused.")
    provider: str
    webhook_path: str | None = Field(
        description="Where it sends to. Of a provider that does not sign, a secret belongs in the place of `{secret}`."
    )
    timezone: str | None
    options: dict[str, Any] | None = Field(description="What its provider was told; no secret is among that.")
    secrets: int = Field(description="How many signing secrets it has; more than one during a rotation.")
    has_api_key: bool = Field(description="Whether Billhook can call its API.")
    calls_a_minute: int | None
    max_schedules: int | None
    reconcile_hours: float | None
    last_received_at: Moment | None = Field(description="When the newest of its events that are stored was received.")
    last_day: Counts = Field(description="Events received in the last 24 hours.")
    health: Health = Field(
        description="ok; new (no event yet); quiet (none for 24 hours); troubled (some of the last 24 hours are dead); "
        "failing (a tenth or more of them are); unconfigured."
    )
    health_reason: str


def counts(by_status: dict[str, int]) -> Counts:
    """Counts by status, with their sum."""
    each = {name: by_status.get(name, 0) for name in ("processed", "ignored", "dead", "waiting")}
    return Counts(received=sum(each.values()), **each)


def shown(sender: Sender) -> Source:
    """A source as the API shows it."""
    configured = sender.configured
    path = None
    if configured is not None:
        path = f"{PREFIX}{sender.name}" + ("" if configured.inbound().schemes else "/{secret}")
    return Source(
        name=sender.name,
        configured=configured is not None,
        provider=sender.provider,
        webhook_path=path,
        timezone=configured and configured.timezone,
        options=configured and configured.options,
        secrets=len(configured.secrets) if configured else 0,
        has_api_key=configured is not None and configured.api_key is not None,
        calls_a_minute=configured and configured.calls_a_minute,
        max_schedules=configured and configured.max_schedules,
        reconcile_hours=configured and configured.reconcile_hours,
        last_received_at=sender.last_received_at,
        last_day=counts(dict(sender.last_day)),
        health=sender.health,
        health_reason=sender.reason,
    )


@router.get("", summary="List sources", responses=refusals())
def list_sources(running: Running, _caller: Read) -> Many[Source]:
    """All that are configured, and those of which only events are stored; there is one page."""
    return all_of([shown(one) for one in senders.senders(running.engine, running.settings, utcnow())])


@router.get("/{name}", summary="Show a source", responses=refusals(404))
def show_source(name: str, running: Running, _caller: Read) -> One[Source]:
    """One source."""
    for one in senders.senders(running.engine, running.settings, utcnow()):
        if one.name == name:
            return One(data=shown(one))
    raise missing("source", name)
