"""Switches for what goes wrong: each strikes the next calls or webhooks, by a rule that repeats itself exactly.

Of a webhook: `duplicate` (it is sent twice under one delivery id), `duplicate_other_id` (its body is sent again under a
new id), `reorder` (it waits until the next webhook to the same address has left, or for `seconds`), `delay` (by
`seconds`), `drop` (the first attempt never leaves, and is made again like any that failed), `wrong_signature` and
`stale_timestamp` (so is the first attempt; the next one is sound).

Of a call: `error` (500 before anything is done), `error_after` (500 although it was done), `too_many` (429), `slow`
(the answer comes `seconds` later).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Mapped, Session, mapped_column

from handlers.providers.sandbox.store import Model

OF_WEBHOOKS = (
    "duplicate",
    "duplicate_other_id",
    "reorder",
    "delay",
    "drop",
    "wrong_signature",
    "stale_timestamp",
)
OF_CALLS = ("error", "error_after", "too_many", "slow")
SECONDS = 2.0
"""What `delay`, `reorder` and `slow` take unless told."""


class Fault(Model):
    """A switch that is on."""

    __tablename__ = "sandbox_faults"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    match: Mapped[str]
    """A pattern (`*`, `?`) for the event type, or for `METHOD /path`."""
    rate: Mapped[float]
    seed: Mapped[int]
    seconds: Mapped[float]
    left: Mapped[int | None]
    """How many more calls or webhooks it looks at; None: all."""
    seen: Mapped[int]

    def strikes(self) -> bool:
        """Whether it strikes the one it looks at now: a function of its seed and of how many it has seen."""
        digest = hashlib.sha256(f"{self.seed}:{self.kind}:{self.seen}".encode()).digest()
        return int.from_bytes(digest[:8]) < self.rate * 2**64

    def shown(self) -> dict[str, Any]:
        names = ("id", "kind", "match", "rate", "seed", "seconds", "left", "seen")
        return {name: getattr(self, name) for name in names}


def arm(
    session: Session,
    kind: str,
    *,
    times: int | None = 1,
    rate: float = 1.0,
    seed: int = 0,
    seconds: float = SECONDS,
    match: str = "*",
) -> Fault:
    """Switch a fault on for the next `times` calls or webhooks that `match` (None: for all that come).

    Each of them is struck with the probability `rate`; the same `seed` strikes the same ones. Raises ValueError.
    """
    if kind not in OF_WEBHOOKS + OF_CALLS:
        raise ValueError(f"a fault is one of {', '.join(OF_WEBHOOKS + OF_CALLS)}")
    if not 0 < rate <= 1 or seconds < 0 or (times is not None and times < 1):
        raise ValueError("rate is above 0 and at most 1, seconds is not negative, times is at least 1")
    fault = Fault(kind=kind, match=match, rate=rate, seed=seed, seconds=seconds, left=times, seen=0)
    session.add(fault)
    session.flush()
    return fault


def arm_all(session: Session, rates: Mapping[str, float], seed: int = 0) -> None:
    """Switch faults on for good, each at its rate: `{"duplicate": 0.1, "error": 0.02}`. Raises ValueError."""
    for kind, rate in rates.items():
        arm(session, kind, times=None, rate=rate, seed=seed)


def strike(session: Session, kinds: Iterable[str], subject: str) -> dict[str, float]:
    """The faults that strike this call or webhook, with their seconds. Each one that looks at it is counted."""
    struck = {}
    for fault in session.scalars(select(Fault).where(Fault.kind.in_(list(kinds))).order_by(Fault.id)):
        if not fnmatchcase(subject, fault.match):
            continue
        if fault.strikes():
            struck[fault.kind] = fault.seconds
        fault.seen += 1
        if fault.left is not None:
            fault.left -= 1
            if fault.left == 0:
                session.delete(fault)
    return struck


def disarm_lasting(session: Session) -> None:
    """Switch off what was switched on for good, by a run of the sandbox before this one."""
    for fault in session.scalars(select(Fault).where(Fault.left.is_(None))):
        session.delete(fault)


def disarm(session: Session) -> None:
    """Switch all faults off."""
    for fault in session.scalars(select(Fault)):
        session.delete(fault)
