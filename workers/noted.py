"""Gauges of what is noted in Redis: the budgets of the sources' API keys, and the last audit by the workers.

Like those of the database they are the same whoever asks, and the beat serves them. Where Redis does not answer, no
budget is told, and of the audit what was known before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis import Redis, RedisError

from workers import audited, budget
from workers.app import client
from workers.audited import Audited
from workers.metrics import REDIS_ERRORS
from workers.settings import Settings

_GOOD_FOR = 5.0
"""Seconds for which a look is good."""
_WITHIN = 1.0
"""Seconds that Redis gets to answer: whoever scrapes does not wait for long, and the other metrics are due too."""


def of(settings: Settings) -> Noted:
    """The gauges of what these settings name, with a client of their own."""
    return Noted(client(settings, answer_within=_WITHIN), settings)


class Noted(Collector):
    """Asks Redis when it is scraped."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis, self._settings = redis, settings
        self._looked = 0.0
        self._found: list[Metric] = []
        self._audited: Audited | None = None

    def describe(self) -> Iterator[Metric]:
        """Nothing, so that to register it asks no Redis."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        if time.monotonic() - self._looked > _GOOD_FOR:
            self._found = [*self._budgets(), *self._audits()]
            self._looked = time.monotonic()
        yield from self._found

    def _budgets(self) -> Iterator[Metric]:
        limit = GaugeMetricFamily("billhook_budget_limit", "Calls a minute that an API allows.", labels=["source"])
        remaining = GaugeMetricFamily(
            "billhook_budget_remaining", "Calls of them that schedules may make at once now.", labels=["source"]
        )
        for source in self._settings.sources:
            allowed = budget.of_source(self._redis, self._settings, source)
            if allowed is None:
                continue
            left = allowed.look()
            if left is None:  # and it will not answer for the next one either
                return
            limit.add_metric([source], left.limit)
            remaining.add_metric([source], left.calls)
        yield limit
        yield remaining

    def _audits(self) -> Iterator[Metric]:
        if not self._settings.audit_hours:
            return
        yield GaugeMetricFamily(
            "billhook_audit_interval_seconds",
            "Seconds between two audits by the workers.",
            value=self._settings.audit_hours * 3600,
        )
        try:
            # What was known stays known, should Redis have lost it.
            self._audited = audited.last(self._redis, self._settings.redis_prefix) or self._audited
        except RedisError:
            REDIS_ERRORS.labels("gauges").inc()
            if self._audited is None:
                return
        ended = 0.0 if self._audited is None else self._audited.at.timestamp()
        yield GaugeMetricFamily(
            "billhook_audit_timestamp_seconds",
            "When the last audit by the workers ended; 0: none has yet.",
            value=ended,
        )
        if self._audited is not None:
            yield GaugeMetricFamily(
                "billhook_audit_faults", "Rules that the last audit found broken.", value=self._audited.faults
            )
