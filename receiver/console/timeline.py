"""The timeline of an event: from its arrival over runs, steps and messages to the last attempt of each delivery."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from workers.dossier import Dossier
from workers.models import AnyRow


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened, or is going to."""

    at: datetime
    what: str
    state: str = ""
    delivery: str = ""
    """The delivery that it is about, to be linked."""


def timeline(found: Dossier) -> Sequence[Happening]:
    """What happened to an event, oldest first; what is going to stands at the end."""
    return sorted(_happenings(found), key=lambda one: one.at)


def _happenings(found: Dossier) -> Iterator[Happening]:
    event = found.event
    yield Happening(event.received_at, f"received from {event.source}")
    for run in found.runs:
        yield from _of_run(run)
        for step in found.steps.get(run.id, ()):
            yield Happening(step.created_at, f"{run.handler}: step {step.name} done")
    for message in found.messages:
        deliveries = found.deliveries.get(message.id, ())
        to = "nobody wanted it" if not deliveries else f"for {len(deliveries)} endpoint{'s'[: len(deliveries) > 1]}"
        yield Happening(message.created_at, f"message {message.type}, {to}")
        for delivery in deliveries:
            yield from _of_delivery(delivery)
    if event.acknowledged_at is not None:
        yield Happening(event.acknowledged_at, "acknowledged")


def _of_run(run: AnyRow) -> Iterator[Happening]:
    yield Happening(run.created_at, f"{run.handler}: planned")
    if run.ended_at is not None:
        yield Happening(run.ended_at, f"{run.handler}: ended at attempt {run.attempts}", run.status)
    elif run.status == "waiting":
        what = f"attempt {run.attempts + 1}" if run.attempts else "first attempt"
        yield Happening(run.next_attempt_at, f"{run.handler}: {what} is due", run.status)
    else:
        yield Happening(run.next_attempt_at, f"{run.handler}: running, leased until then", run.status)


def _of_delivery(delivery: AnyRow) -> Iterator[Happening]:
    if delivery.last_at is not None:
        what = f"attempt {delivery.attempts} to {delivery.endpoint_id}: {delivery.last}"
        yield Happening(delivery.last_at, what, delivery.status, delivery.id)
    if delivery.status == "waiting":
        yield Happening(delivery.next_attempt_at, f"next attempt to {delivery.endpoint_id}", "waiting", delivery.id)
