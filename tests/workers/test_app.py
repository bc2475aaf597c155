from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from kombu.transport.redis import Channel
from prometheus_client import REGISTRY as METRICS
from pydantic import SecretStr
from structlog.testing import capture_logs

import workers
from tests.services import free_port
from tests.workers.given import fill_queue, restarted, rung
from workers import app, embedded
from workers.app import CHUNK, DELIVER, GENERATE, PROCESS, QUEUES, Runtime, ring, ringing
from workers.delivery.flight import courier_of
from workers.schedule.generator import LEASE
from workers.settings import Settings

SOURCES = sorted(Path(workers.__file__).parent.rglob("*.py"))


def failures() -> float:
    return METRICS.get_sample_value("billhook_redis_errors_total", {"call": "ring"}) or 0.0


@pytest.fixture
def unreachable(tmp_path: Path) -> Iterator[Runtime]:
    """A process whose Redis is not there; nobody listens on its port."""
    url = f"redis://:s3cret@127.0.0.1:{free_port()}/0"
    started = restarted(Settings(state_dir=tmp_path / "state", redis_url=url))
    yield started
    started.redis.close()
    started.engine.dispose()


def test_a_process_has_what_it_was_started_with(runtime: Runtime) -> None:
    assert app.runtime() is runtime


def test_a_ring_carries_the_ids_in_one_message(runtime: Runtime) -> None:
    assert ring(PROCESS, ["evt_1", "evt_2"])

    assert rung(runtime, "events") == [(PROCESS, ["evt_1", "evt_2"])]


def test_each_task_has_the_queue_that_its_name_says(runtime: Runtime) -> None:
    for queue, task in zip(QUEUES, (PROCESS, DELIVER, GENERATE), strict=True):
        ring(task, ["id_1"])
        assert rung(runtime, queue) == [(task, ["id_1"])]


def test_many_ids_are_several_messages(runtime: Runtime) -> None:
    ids = [f"dlv_{number}" for number in range(2 * CHUNK + 1)]

    ring(DELIVER, ids)

    chunks = [chunk for _, chunk in rung(runtime, "deliveries")]
    assert [len(chunk) for chunk in chunks] == [CHUNK, CHUNK, 1]
    assert [one for chunk in chunks for one in chunk] == ids


def test_no_ids_are_no_message(runtime: Runtime) -> None:
    assert ring(PROCESS, [])

    assert rung(runtime, "events") == []


def test_a_ring_without_redis_fails_soon_and_quietly(unreachable: Runtime) -> None:
    before = failures()

    with capture_logs() as lines:
        assert not ring(PROCESS, ["evt_1"])

    assert failures() == before + 1
    assert [(line["action"], line["log_level"]) for line in lines] == [("ring_failed", "warning")]
    assert "s3cret" not in str(lines)


def test_a_ring_is_heard_again_once_redis_is_back(unreachable: Runtime, tmp_path: Path) -> None:
    url = unreachable.settings.redis_url
    assert url is not None
    port = url.get_secret_value().rpartition(":")[2].partition("/")[0]
    assert not ring(PROCESS, ["evt_1"])
    # Without a password, which a server then takes for one of its default user.
    settings = unreachable.settings.model_copy(update={"redis_url": SecretStr(f"redis://127.0.0.1:{port}/0")})
    server = subprocess.Popen(
        [embedded.binary(), "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", tmp_path],
        stdout=subprocess.DEVNULL,
    )
    try:
        back = restarted(settings)
        while not ring(PROCESS, ["evt_2"]):
            assert server.poll() is None

        assert rung(back, "events") == [(PROCESS, ["evt_2"])]

        server.terminate()
        server.wait(10)
        assert not ring(PROCESS, ["evt_3"])
        back.redis.close()
        back.engine.dispose()
    finally:
        server.kill()
        server.wait(10)


def test_a_channel_that_was_closed_meanwhile_is_no_more_than_a_ring_that_failed(runtime: Runtime) -> None:
    before, put = failures(), Channel._put

    def close_first(channel: Channel, *args: Any, **kwargs: Any) -> Any:
        channel.close()
        return put(channel, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patched, capture_logs() as lines:
        patched.setattr(Channel, "_put", close_first)
        assert not ring(PROCESS, ["evt_1"])

    assert failures() == before + 1
    assert [(line["action"], line["error"]) for line in lines] == [("ring_failed", "AttributeError")]
    assert ring(PROCESS, ["evt_2"])
    assert rung(runtime, "events") == [(PROCESS, ["evt_2"])]


def test_a_queue_is_ringing_when_it_holds_enough(runtime: Runtime) -> None:
    assert not ringing(runtime.redis, runtime.settings, "events")
    fill_queue(runtime, "events")

    assert ringing(runtime.redis, runtime.settings, "events")
    assert not ringing(runtime.redis, runtime.settings, "deliveries")


def test_without_redis_nobody_rings(unreachable: Runtime) -> None:
    assert ringing(unreachable.redis, unreachable.settings, "events")


def test_a_message_is_given_back_when_its_worker_dies(runtime: Runtime) -> None:
    conf = app.app.conf

    assert (conf.task_acks_late, conf.task_reject_on_worker_lost) == (True, True)
    assert conf.worker_prefetch_multiplier == 1


def test_a_message_becomes_visible_again_later_than_any_lease_ends(runtime: Runtime) -> None:
    delivery = courier_of(runtime).lease

    visible = timedelta(seconds=app.app.conf.broker_transport_options["visibility_timeout"])

    assert max(LEASE, delivery) < visible <= timedelta(hours=1)


def test_a_message_is_json_and_nothing_else(runtime: Runtime) -> None:
    conf = app.app.conf

    assert conf.task_serializer == "json"
    assert conf.accept_content == ["json"]


def test_results_are_kept_nowhere(runtime: Runtime) -> None:
    conf = app.app.conf

    assert conf.task_ignore_result
    assert not conf.task_store_errors_even_if_ignored
    assert conf.result_backend is None


@pytest.mark.parametrize("path", SOURCES, ids=[path.name for path in SOURCES])
def test_all_waiting_is_in_the_database(path: Path) -> None:
    """Celery's own waiting (countdown, eta, rate_limit, retry) is used nowhere."""
    tree = ast.parse(path.read_text())
    words = {keyword.arg for keyword in ast.walk(tree) if isinstance(keyword, ast.keyword)}

    assert words & {"countdown", "eta", "rate_limit", "autoretry_for", "max_retries"} == set()


def test_the_pool_forgets_the_connections_of_its_parent(runtime: Runtime) -> None:
    with runtime.engine.connect():
        pass
    before = runtime.engine.pool

    app._after_fork()

    assert runtime.engine.pool is not before
    before.dispose()


def test_without_a_redis_url_the_embedded_server_is_used_and_every_key_has_our_prefix(tmp_path: Path) -> None:
    started = restarted(Settings(state_dir=tmp_path / "state", redis_prefix="mine:"))
    try:
        assert ring(PROCESS, ["evt_1"])
        assert all(key.startswith(b"mine:") for key in started.redis.scan_iter("*"))
        assert rung(started, "events") == [(PROCESS, ["evt_1"])]
        assert app.app.conf.broker_url.startswith("redis+socket://")
    finally:
        started.redis.close()
        started.engine.dispose()
        app.app.close()


def test_a_socket_url_is_spelt_as_celery_wants_it(tmp_path: Path) -> None:
    server = embedded.ensure(tmp_path / "state")
    settings = Settings(state_dir=tmp_path / "state", redis_url=f"unix://{server.socket}?db=0")
    started = restarted(settings)
    try:
        assert started.redis.ping()
        assert ring(PROCESS, ["evt_1"])
        assert rung(started, "events") == [(PROCESS, ["evt_1"])]
    finally:
        started.redis.close()
        started.engine.dispose()
        app.app.close()
    assert os.fspath(server.socket) in app.app.conf.broker_url
