"""Where webhooks go, and the outbox: what is to be sent is written in the transaction of what it tells."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any, Final

import httpx
from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from handlers.providers.sandbox import faults
from handlers.providers.sandbox.store import Model

WAITING: Final = "waiting"
DELIVERED: Final = "delivered"
FAILED: Final = "failed"


class Endpoint(Model):
    """An address somebody configured."""

    __tablename__ = "sandbox_endpoints"

    id: Mapped[str] = mapped_column(primary_key=True)
    url: Mapped[str]
    secret: Mapped[str]
    owner: Mapped[str | None]
    """The account or organization it is told of; None: all."""
    active: Mapped[bool]
    created_at: Mapped[datetime]

    def shown(self) -> dict[str, Any]:
        return {"id": self.id, "url": self.url, "owner": self.owner, "active": self.active}


class Delivery(Model):
    """One webhook to one address. Two rows may have the same `delivery_id`: a duplicate, or a replay."""

    __tablename__ = "sandbox_deliveries"

    number: Mapped[int] = mapped_column(primary_key=True)
    delivery_id: Mapped[str] = mapped_column(index=True)
    endpoint_id: Mapped[str | None] = mapped_column(ForeignKey("sandbox_endpoints.id"))
    """None where a request named the address."""
    url: Mapped[str]
    event_type: Mapped[str]
    body: Mapped[bytes]
    state: Mapped[str] = mapped_column(index=True)
    due_at: Mapped[float]
    """Unix seconds by the machine's clock."""
    held: Mapped[bool]
    """It waits for the next one to the same address."""
    after: Mapped[int | None]
    """The number of that one, which leaves first."""
    faults: Mapped[list[str]]
    """Those that strike its first attempt."""
    tried: Mapped[int]
    attempts: Mapped[list[Attempt]] = relationship(order_by="Attempt.id")
    endpoint: Mapped[Endpoint | None] = relationship(lazy="joined")

    def shown(self) -> dict[str, Any]:
        return {
            "delivery_id": self.delivery_id,
            "event": self.event_type,
            "url": self.url,
            "state": self.state,
            "attempts": [attempt.shown() for attempt in self.attempts],
        }


class Attempt(Model):
    """One try; `status` is None where no answer came."""

    __tablename__ = "sandbox_attempts"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(ForeignKey("sandbox_deliveries.number"), index=True)
    at: Mapped[float]
    status: Mapped[int | None]
    faults: Mapped[list[str]]

    def shown(self) -> dict[str, Any]:
        return {"at": round(self.at, 3), "status": self.status, "faults": self.faults}


def add(session: Session, url: str, secret: str, *, owner: str | None = None, now: datetime) -> Endpoint:
    """Have webhooks sent to `url`, signed with `secret`. One that is there already gets the new secret.

    Raises ValueError where the URL is none.
    """
    check_url(url)
    endpoint = session.scalars(select(Endpoint).where(Endpoint.url == url, Endpoint.owner == owner)).one_or_none()
    if endpoint is None:
        endpoint = Endpoint(id=f"whe_{secrets.token_hex(6)}", url=url, owner=owner, active=True, created_at=now)
        session.add(endpoint)
    endpoint.secret = secret
    session.flush()
    return endpoint


def enqueue(
    session: Session,
    event_type: str,
    body: bytes,
    *,
    delivery_id: str,
    at: float,
    owner: str | None = None,
    url: str | None = None,
) -> None:
    """Put a webhook into the outbox, for each active endpoint of `owner`, or for `url` alone.

    `at` is the machine's time. The faults that are armed strike here; their outcome is stored.
    """
    if url is not None:
        _put(session, event_type, body, delivery_id, at, url, None)
        return
    endpoints = select(Endpoint).where(Endpoint.active, (Endpoint.owner == owner) | Endpoint.owner.is_(None))
    for endpoint in session.scalars(endpoints.order_by(Endpoint.created_at, Endpoint.id)).all():
        _put(session, event_type, body, delivery_id, at, endpoint.url, endpoint)


def remove(session: Session, endpoint: Endpoint) -> None:
    """Send nothing more there; what was sent stays listed."""
    for delivery in session.scalars(select(Delivery).where(Delivery.endpoint_id == endpoint.id)):
        delivery.endpoint_id = None
        if delivery.state == WAITING:
            delivery.state = FAILED
    session.flush()
    session.delete(endpoint)


def replay(session: Session, delivery_id: str, at: float) -> Delivery | None:
    """Send a delivery once more, under its id; None if there is none."""
    found = session.scalars(select(Delivery).where(Delivery.delivery_id == delivery_id).limit(1)).one_or_none()
    return None if found is None else _copy(session, found, delivery_id, at)


def check_url(url: str) -> None:
    """Raise ValueError unless it is the absolute address of a web server."""
    try:
        if httpx.URL(url).host and url.startswith(("http://", "https://")):
            return
    except httpx.InvalidURL:
        pass
    raise ValueError("the URL of a webhook begins with http:// or https:// and names a host")


def _put(
    session: Session,
    event_type: str,
    body: bytes,
    delivery_id: str,
    at: float,
    url: str,
    endpoint: Endpoint | None,
) -> None:
    struck = faults.strike(session, faults.OF_WEBHOOKS, event_type)
    held = session.scalars(select(Delivery).where(Delivery.url == url, Delivery.held, Delivery.state == WAITING)).all()
    delivery = Delivery(
        delivery_id=delivery_id,
        endpoint=endpoint,
        url=url,
        event_type=event_type,
        body=body,
        state=WAITING,
        due_at=at + max(struck.get("delay", 0.0), struck.get("reorder", 0.0)),
        held="reorder" in struck,
        tried=0,
        faults=[kind for kind in ("drop", "wrong_signature", "stale_timestamp") if kind in struck],
    )
    session.add(delivery)
    session.flush()
    for one in held:
        one.held, one.after, one.due_at = False, delivery.number, at
    if "duplicate" in struck:
        _copy(session, delivery, delivery_id, delivery.due_at)
    if "duplicate_other_id" in struck:
        prefix = delivery_id.partition("_")[0]
        _copy(session, delivery, f"{prefix}_{secrets.token_hex(8)}", delivery.due_at)


def _copy(session: Session, delivery: Delivery, delivery_id: str, at: float) -> Delivery:
    names = ("endpoint_id", "url", "event_type", "body")
    same = {name: getattr(delivery, name) for name in names}
    copy = Delivery(**same, delivery_id=delivery_id, state=WAITING, due_at=at, held=False, faults=[], tried=0)
    session.add(copy)
    session.flush()
    return copy
