"""What generating invoices needs in one process, as a value."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from redis import Redis
from sqlalchemy import Engine

from handlers.errors import ProviderUnavailable
from handlers.invoicing import Billing
from handlers.providers import PROVIDERS
from workers.budget import Budget, of_source
from workers.clients import Clients
from workers.leases import Clock, utcnow
from workers.settings import Settings

LEASE = timedelta(seconds=90)
"""Longer than a call of an API may take, and than what it began needs to settle."""
DEADLINE = 30.0
"""Seconds that one call may take: far less than a lease, so that nobody else takes up what is under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """The database, the clients of the sources, the budgets of their keys, the clock, and a dice."""

    engine: Engine
    settings: Settings
    clients: Clients
    redis: Redis
    clock: Clock = utcnow
    chance: Callable[[], float] = field(default=random.random)


def billing(generator: Generator, source: str) -> Billing:
    """How invoices of this source are made. Raises ProviderUnavailable where settings lack what that needs."""
    configured = generator.settings.sources.get(source)
    if configured is None:
        raise ProviderUnavailable("NO_SOURCE", f"there is no source {source!r} in the settings")
    found = PROVIDERS[configured.provider].billing
    if found is None:
        raise ProviderUnavailable("NO_INVOICING", f"{configured.provider} is no provider that invoices are made with")
    return found


def client(generator: Generator, source: str) -> Any:
    """The client of the source. Raises ProviderUnavailable as `Clients.get`."""
    return generator.clients.get(source)


def budget(generator: Generator, source: str) -> Budget | None:
    """What the source's API key may be used for; None where it has none."""
    return of_source(generator.redis, generator.settings, source)
