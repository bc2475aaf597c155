"""What happens by the sandbox's clock: captures of automatic subscriptions, approvals of full refunds."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from handlers.providers.hesabe.sandbox import refunds, subscriptions
from handlers.providers.sandbox.machine import Machine

REMARKS = "Auto Refund Approved"


class Due:
    """The alarm of the sandbox: one thing at a time, the earliest first."""

    def next(self, session: Session) -> datetime | None:
        subscription, refund = subscriptions.next_due(session), refunds.next_due(session)
        capture_at = None if subscription is None else subscription.next_at
        approve_at = None if refund is None else refund.approve_at
        return min((moment for moment in (capture_at, approve_at) if moment is not None), default=None)

    def ring(self, machine: Machine, session: Session, moment: datetime) -> None:
        refund = refunds.next_due(session)
        if refund is not None and refund.approve_at == moment:
            refunds.decide(machine, session, refund, machine.clock.now(), approved=True, remarks=REMARKS)
            return
        subscription = subscriptions.next_due(session)
        if subscription is not None:
            subscriptions.capture_due(machine, session, subscription, machine.clock.now())
