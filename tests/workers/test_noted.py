from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from redis import Redis

from tests.services import free_port
from tests.workers.given import NOW
from workers import app, audited, beat, budget, noted
from workers.app import Runtime
from workers.audit import audit_task
from workers.audited import Audited
from workers.leases import utcnow
from workers.noted import Noted
from workers.settings import Settings, Source

KEY = "hisab_test_key"


def source(key: str | None = KEY, **options: Any) -> Source:
    return Source(provider="hisab", secrets="whsec_1", api_key=key, **options)


def told(redis: Redis, settings: Settings) -> dict[str, float]:
    """What a beat tells that begins now, by name and source."""
    return samples(Noted(redis, settings))


def samples(gauges: Noted) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(gauges)
    text = generate_latest(registry).decode()
    return {
        " ".join((sample.name.removeprefix("billhook_"), *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def shops(settings: Settings) -> Settings:
    """Two sources that share a key, one with a key of its own, and one that makes no invoices."""
    sources = {
        "shop": source(),
        "branch": source(),
        "mall": source("hisab_other_key", calls_a_minute=50),
        "quiet": source(None),
    }
    return settings.model_copy(update={"sources": sources, "audit_hours": 0})


def spend(redis: Redis, settings: Settings, name: str) -> None:
    """Have the API of this source want to be left alone, so that no time that passes gives a call."""
    allowed = budget.of_source(redis, settings, name)
    assert allowed is not None
    allowed.told(leave_alone=600.0)


def test_each_source_tells_its_limit_and_what_is_left_of_it_and_none_its_key(redis: Redis, shops: Settings) -> None:
    spend(redis, shops, "shop")

    found = told(redis, shops)

    assert found == {
        "budget_limit shop": 120,
        "budget_limit branch": 120,
        "budget_limit mall": 50,
        "budget_remaining shop": 0,
        "budget_remaining branch": 0,  # the same key
        "budget_remaining mall": 5,
    }
    assert not any(KEY in name for name in found)


def test_a_look_is_good_for_some_seconds(redis: Redis, shops: Settings) -> None:
    gauges = Noted(redis, shops)
    first = samples(gauges)
    spend(redis, shops, "shop")

    assert samples(gauges) == first


def test_an_audit_by_the_workers_is_told_of_by_every_beat(runtime: Runtime) -> None:
    before = time.time()

    audit_task()

    found = told(runtime.redis, runtime.settings)
    assert before <= found["audit_timestamp_seconds"] <= time.time()
    assert (found["audit_faults"], found["audit_interval_seconds"]) == (0, 6 * 3600)


def test_before_the_first_audit_its_moment_is_0_and_its_faults_are_not_known(redis: Redis, settings: Settings) -> None:
    found = told(redis, settings)

    assert found["audit_timestamp_seconds"] == 0
    assert "audit_faults" not in found


def test_where_the_settings_want_no_audit_none_is_told_of(redis: Redis, shops: Settings) -> None:
    audited.note(redis, shops.redis_prefix, Audited(NOW, 1))

    assert not any("audit" in name for name in told(redis, shops))


@pytest.fixture(params=["gone", "silent"])
def away(request: pytest.FixtureRequest) -> Iterator[SecretStr]:
    """The URL of a Redis that refuses connections, or takes them and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = free_port() if request.param == "gone" else deaf.getsockname()[1]
        yield SecretStr(f"redis://127.0.0.1:{port}")


def test_without_redis_no_budget_is_told_it_is_counted_and_nobody_waits_for_long(
    away: SecretStr, shops: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.noted._WITHIN", 0.2)
    failed = REGISTRY.get_sample_value("billhook_redis_errors_total", {"call": "budget"}) or 0
    began = time.monotonic()

    assert samples(noted.of(shops.model_copy(update={"redis_url": away}))) == {}

    assert time.monotonic() - began < 5
    assert REGISTRY.get_sample_value("billhook_redis_errors_total", {"call": "budget"}) == failed + 1


def test_a_fault_that_was_found_stays_known_when_redis_has_lost_it(
    redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.noted._GOOD_FOR", -1.0)
    audited.note(redis, settings.redis_prefix, Audited(NOW, 2))
    gauges = Noted(redis, settings)
    first = samples(gauges)
    redis.delete(f"{settings.redis_prefix}audited")

    assert samples(gauges) == first
    assert (first["audit_faults"], first["audit_timestamp_seconds"]) == (2, NOW.timestamp())


# --- a beat that is started anew ------------------------------------------------------------------


def audit_is_due(runtime: Runtime) -> bool:
    entry = beat.service(runtime.settings).get_scheduler().schedule["billhook.events.audit"]
    app.app.conf.beat_schedule = {}
    return bool(entry.is_due()[0])


@pytest.mark.parametrize(("hours", "due"), [(None, True), (5, False), (7, True)])
def test_the_next_audit_is_due_after_the_last_one_however_often_a_beat_is_started(
    runtime: Runtime, hours: float | None, due: bool
) -> None:
    if hours is not None:
        audited.note(runtime.redis, runtime.settings.redis_prefix, Audited(utcnow() - timedelta(hours=hours), 0))

    assert audit_is_due(runtime) is due
