"""How an endpoint is: sound, failing, held off, to be warned about or disabled. Pure: state and answers in, state out.

After `OPENS_AFTER` failures in a row, the last of which speaks of the endpoint rather than of one message (no answer,
5xx, 408, 429), nothing is sent to it for 30 seconds, and then, while it keeps failing, for as long as it has been, up
to 5 minutes; after each hold one delivery goes out to see.
An endpoint that asks for patience (Retry-After with 429 or a 5xx; 429, 502, 503, 504 without) is held off at once:
Standard Webhooks, "Operational considerations" of senders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from workers.delivery.sender import Answer
from workers.retry import JITTER

OPENS_AFTER = 5
SHORTEST_HOLD = timedelta(seconds=30)
LONGEST_HOLD = timedelta(minutes=5)
THROTTLED = timedelta(seconds=5)
"""The hold after an answer that asks for patience without saying how much."""
LONGEST_WISH = timedelta(hours=1)
"""The longest hold that an endpoint can ask for with one answer; the delivery itself waits for up to a day."""

WARN_AFTER = timedelta(hours=12)
DISABLE_AFTER = timedelta(days=5)
DISABLE_BUSY_AFTER = timedelta(days=1)
"""The same, for an endpoint that has failed `MANY` times in a row."""
FEW, MANY = 10, 100
"""Below FEW failures in a row nobody is warned and nothing is disabled: perhaps there was just nothing to send."""

_ASKS_FOR_PATIENCE = frozenset({429, 502, 503, 504})

Notice = Literal["warned", "disabled", "recovered"]


@dataclass(frozen=True, slots=True)
class Health:
    """The columns of an endpoint that say how it is."""

    enabled: bool = True
    failures: int = 0
    failing_since: datetime | None = None
    warned_at: datetime | None = None
    held_until: datetime | None = None
    disabled_reason: str | None = None

    @property
    def sound(self) -> bool:
        """Whether nothing is to be written after a success."""
        return self.failures == 0 and self.held_until is None

    @property
    def probing(self) -> bool:
        """Whether, its hold being over, one delivery at a time shows whether it is well again."""
        return self.held_until is not None


def after(
    health: Health, answers: Sequence[Answer], *, now: datetime, chance: float
) -> tuple[Health, tuple[Notice, ...]]:
    """The health after these answers, oldest first, and what is to be told about the endpoint."""
    notices: list[Notice] = []
    for answer in answers:
        if answer.ok:
            if health.warned_at is not None and health.enabled:
                notices.append("recovered")
            health = replace(health, failures=0, failing_since=None, warned_at=None, held_until=None)
        elif health.enabled:
            health, notice = _failed(health, answer, now, chance)
            notices += notice
    return health, tuple(notices)


def turned(before: Health, then: Health) -> tuple[Literal["held", "released"], ...]:
    """Whether the breaker opened or closed between the two: a hold that follows another is one and the same."""
    if before.held_until is None and then.held_until is not None:
        return ("held",)
    closed = before.held_until is not None and then.held_until is None and then.enabled
    return ("released",) if closed else ()


def _failed(health: Health, answer: Answer, now: datetime, chance: float) -> tuple[Health, list[Notice]]:
    since = health.failing_since or now
    health = replace(health, failures=health.failures + 1, failing_since=since)
    reason = _disabling(health, answer, now - since)
    if reason is not None:
        return replace(health, enabled=False, disabled_reason=reason, held_until=None), ["disabled"]
    health = replace(health, held_until=_held_until(health, answer, now, chance))
    if health.warned_at is None and health.failures >= FEW and now - since >= WARN_AFTER:
        return replace(health, warned_at=now), ["warned"]
    return health, []


def _disabling(health: Health, answer: Answer, failing: timedelta) -> str | None:
    if answer.status == 410:
        return "it answered 410 Gone"
    if answer.refused:
        return answer.detail
    if failing >= DISABLE_AFTER and health.failures >= FEW:
        return f"every attempt failed for {DISABLE_AFTER.days} days"
    if failing >= DISABLE_BUSY_AFTER and health.failures >= MANY:
        return f"{MANY} attempts in a row failed, over more than a day"
    return None


def _held_until(health: Health, answer: Answer, now: datetime, chance: float) -> datetime | None:
    if not _sick(answer):
        return None  # it lives, and refuses this message
    holds = [now]
    if health.held_until is not None:
        holds.append(health.held_until)
    if answer.status in _ASKS_FOR_PATIENCE or (answer.status is not None and answer.retry_after is not None):
        wish = THROTTLED if answer.retry_after is None else timedelta(seconds=answer.retry_after)
        holds.append(now + min(wish, LONGEST_WISH))
    if health.failures >= OPENS_AFTER and health.failing_since is not None:
        # Before its first hold what failed may have been single messages.
        failing = now - health.failing_since if health.probing else SHORTEST_HOLD
        hold = min(max(failing, SHORTEST_HOLD), LONGEST_HOLD)
        holds.append(now + hold * (1 + JITTER * chance))
    latest = max(holds)
    return latest if latest > now else health.held_until


def _sick(answer: Answer) -> bool:
    """Whether an answer speaks of the endpoint rather than of what it was sent."""
    return answer.status is None or answer.status >= 500 or answer.status in (408, 429)
