"""`/endpoints/{id}/health`: how an endpoint is, and how it did lately."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Security
from pydantic import Field

from receiver.api.access import Running, caller
from receiver.api.answers import Model, Moment, One, refusals
from receiver.api.endpoint_fields import EndpointId
from workers.api_keys import Caller
from workers.delivery import endpoints, figures
from workers.delivery.endpoints import State
from workers.delivery.figures import Figures
from workers.leases import utcnow

router = APIRouter(prefix="/endpoints", tags=["endpoints"])

Read = Annotated[Caller, Security(caller, scopes=["endpoints:read"])]


class Health(Model):
    """How an endpoint is."""

    state: State = Field(description="`held`: nothing is sent to it until `held_until`, for it failed or asked for it.")
    failures: int = Field(description="Attempts that failed since the last success.")
    failing_since: Moment | None
    held_until: Moment | None


class EndpointAttempt(Model):
    """One exchange with the endpoint."""

    delivery_id: str
    number: int
    started_at: Moment
    duration_ms: int
    status: int | None = Field(description="Of the answer; null where none came.")
    error: str | None = Field(description="Why none came, in one word.")


class Lately(Model):
    """What became of the attempts of a span of time."""

    attempts: int
    succeeded: int
    success_rate: float | None = Field(description="From 0 to 1; null where there was no attempt.")
    p50_ms: int | None = Field(description="Half of the answers took no longer.")
    p95_ms: int | None


class WholeHealth(Health):
    """How an endpoint is, and how it did lately."""

    endpoint_id: str
    warned_at: Moment | None = Field(description="When it was told that it has failed for long.")
    disabled_reason: str | None
    last_success_at: Moment | None
    waiting: int = Field(description="Deliveries to it that have not ended.")
    last_attempts: list[EndpointAttempt] = Field(description=f"The last {figures.LAST}, newest first.")
    hour: Lately
    day: Lately


@router.get("/{endpoint_id}/health", summary="Show how an endpoint does", responses=refusals(404))
def show_health(endpoint_id: EndpointId, running: Running, _caller: Read) -> One[WholeHealth]:
    """How it is, its last attempts, and the figures of the last hour and day.

    Counted are the attempts of its newest 5,000 deliveries; of an endpoint with fewer the figures are exact.
    """
    now = utcnow()
    row = endpoints.get(running.engine, endpoint_id)
    vitals = figures.vitals(running.engine, endpoint_id, now)
    return One(
        data=WholeHealth.of(
            row,
            endpoint_id=endpoint_id,
            state=endpoints.state(row, now),
            last_success_at=vitals.last_success_at,
            waiting=vitals.waiting,
            last_attempts=[EndpointAttempt.of(attempt) for attempt in vitals.last_attempts],
            hour=_lately(vitals.hour),
            day=_lately(vitals.day),
        )
    )


def _lately(found: Figures) -> Lately:
    rate = round(found.succeeded / found.attempts, 4) if found.attempts else None
    return Lately(
        attempts=found.attempts, succeeded=found.succeeded, success_rate=rate, p50_ms=found.p50_ms, p95_ms=found.p95_ms
    )
