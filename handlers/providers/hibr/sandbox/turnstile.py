"""What every call passes: its key, the limits of that, the version of the API (HIBR API reference, Rate limits).

The sandbox's own choices. Calls are counted by the minute of the clock. A burst is that a key which has used up its
minute may go on for 10 seconds, until it has made 2 or 3 times as many calls in all; Enterprise, whose bursts are
negotiable, has none. A call that is refused counts too. Calls without a valid key are counted together, and
reported, but not limited, because limits belong to keys. An unknown Hibr-Version is answered 400.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.providers.hibr.client import VERSION
from handlers.providers.hibr.sandbox.access import Visitor, visitor_of
from handlers.providers.hibr.sandbox.answers import malformed, refusal, refused
from handlers.providers.hibr.sandbox.tables import Account
from handlers.providers.sandbox.limits import Limits, Usage
from handlers.providers.sandbox.machine import Machine, Refusal

VERSIONS = (VERSION,)
BURST = 10.0
"""Seconds."""

_NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Tier:
    """Calls a minute and at once, and by what calls may be multiplied in a burst."""

    calls: int
    at_once: int
    burst: int = 1


TIERS: Mapping[str, Tier] = {
    "lite": Tier(60, 5, 2),
    "pro": Tier(300, 20, 3),
    "enterprise": Tier(1500, 50),
    "sandbox": Tier(30, 3),
}


@dataclass(slots=True, kw_only=True)
class Limiter:
    """The counts. `rate_limit` stands in for the calls of the tier; `out_until` is the end of an outage."""

    limits: Limits
    rate_limit: int | None = None
    out_until: float = 0.0
    """Unix seconds by the machine's clock."""
    under_way: dict[str, int] = field(default_factory=dict)
    bursts: dict[str, tuple[int, float]] = field(default_factory=dict)
    """By key: the end of the minute that was used up, and when it was."""

    def count(self, name: str, tier: Tier) -> Usage:
        return self.limits.count(name, self.rate_limit or tier.calls)

    def check(self, name: str, tier: Tier, usage: Usage, wall: float) -> None:
        """Raise rate_limit_error where this call is one too many."""
        if usage.exceeded and not self._in_burst(name, tier, usage, wall):
            raise refusal(
                "rate_limit_error",
                f"Rate limit exceeded: {usage.limit} requests per minute.",
                headers={"Retry-After": str(usage.retry_after)},
            )
        if self.under_way.get(name, 0) >= tier.at_once:
            raise refusal(
                "rate_limit_error",
                f"Rate limit exceeded: {tier.at_once} requests at once.",
                headers={"Retry-After": "1"},
            )

    def enter(self, name: str) -> None:
        self.under_way[name] = self.under_way.get(name, 0) + 1

    def leave(self, name: str) -> None:
        self.under_way[name] -= 1
        if not self.under_way[name]:
            del self.under_way[name]

    def _in_burst(self, name: str, tier: Tier, usage: Usage, wall: float) -> bool:
        if tier.burst == 1 or usage.used > usage.limit * tier.burst:
            return False
        minute, began = self.bursts.get(name, (0, 0.0))
        if minute != usage.reset:
            began = wall
            self.bursts[name] = (usage.reset, began)
        return wall < began + BURST


class Turnstile:
    """Middleware around all but `/sandbox`; a call to `/v1` finds who makes it in its scope as `hibr.visitor`."""

    def __init__(self, app: ASGIApp, machine: Machine, limiter: Limiter) -> None:
        self._app, self._machine, self._limiter = app, machine, limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/sandbox" or scope["path"].startswith("/sandbox/"):
            await self._app(scope, receive, send)
            return
        name, headers, error = self._admit(scope)
        entered = [name]
        self._limiter.enter(name)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = [(key.lower().encode(), value.encode()) for key, value in headers.items()]
                message = {**message, "headers": [*message["headers"], *given]}
            elif message["type"] == "http.response.body" and not message.get("more_body") and entered:
                # Not at the end of the call, which may go on to send webhooks.
                self._limiter.leave(entered.pop())
            await send(message)

        try:
            await (self._app if error is None else refused(error))(scope, receive, answer)
        finally:
            if entered:
                self._limiter.leave(entered.pop())

    def _admit(self, scope: Scope) -> tuple[str, dict[str, str], Refusal | None]:
        """By whose name the call is counted, the headers of its answer, and the refusal if there is one."""
        given = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
        wall = self._machine.clock.wall()
        visitor, tier, version, error = self._who(scope, given, wall)
        name = _NOBODY if visitor is None else visitor.name
        usage = self._limiter.count(name, tier)
        headers = {**usage.headers, "Hibr-Version": version}
        try:
            if wall < self._limiter.out_until:
                wait = str(max(1, round(self._limiter.out_until - wall)))
                raise refusal("service_unavailable", "HIBR is unavailable for a moment.", headers={"Retry-After": wait})
            if visitor is not None:
                self._limiter.check(name, tier, usage, wall)
                scope["hibr.visitor"] = visitor
            if error is None and given.get("hibr-version", version) != version:
                error = malformed(f"The Hibr-Version must be one of {', '.join(VERSIONS)}.", "Hibr-Version")
        except Refusal as refused_now:
            error = refused_now
        return name, headers, error

    def _who(
        self, scope: Scope, given: Mapping[str, str], wall: float
    ) -> tuple[Visitor | None, Tier, str, Refusal | None]:
        asked = given.get("hibr-version", "")
        version = asked if asked in VERSIONS else VERSION
        if not scope["path"].startswith("/v1/"):
            return None, TIERS["sandbox"], version, None
        try:
            with self._machine.store.transaction() as session:
                visitor = visitor_of(session, given.get("authorization"), wall)
                account = session.get_one(Account, visitor.account_id)
        except Refusal as error:
            return None, TIERS["sandbox"], version, error
        return visitor, TIERS[account.tier], version if asked in VERSIONS else account.version, None
