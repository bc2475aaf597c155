from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from sqlalchemy import Engine, text

from tests.receiver.conftest import Serve
from tests.receiver.edge import Edge, accepted, connected, delivery, gone, held, refused
from tests.services import free_port
from workers import database
from workers.app import Runtime
from workers.settings import Settings


def test_a_process_that_answers_is_alive(edge: Edge) -> None:
    answer = edge.client.get("/livez")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ok"}


def test_a_receiver_over_its_schema_is_ready(edge: Edge) -> None:
    answer = edge.client.get("/readyz")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ok"}


def test_without_redis_a_receiver_is_ready(serve: Serve, runtime: Runtime) -> None:
    with Redis.from_url(f"redis://127.0.0.1:{free_port()}") as nobody:
        assert serve(replace(runtime, redis=nobody)).client.get("/readyz").status_code == 200


def test_without_a_database_a_receiver_is_alive_and_not_ready(serve: Serve, runtime: Runtime, tmp_path: Path) -> None:
    with gone(runtime, tmp_path) as broken:
        edge = serve(broken)

        ready = edge.client.get("/readyz")

        assert ready.status_code == 503
        assert ready.json() == {"status": "unavailable", "database": "does not answer"}
        assert edge.client.get("/livez").status_code == 200


@contextmanager
def at(revision: str | None, engine: Engine) -> Iterator[None]:
    """For the block the database says that it is at this revision."""

    def set_to(value: str | None) -> None:
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM alembic_version"))
            if value:
                connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": value})

    set_to(revision)
    try:
        yield
    finally:
        set_to(database.SCHEMA)


@pytest.mark.parametrize("revision", ["0003", None])
def test_a_receiver_is_not_ready_before_its_migration_has_run(revision: str | None, edge: Edge, engine: Engine) -> None:
    with at(revision, engine):
        answer = edge.client.get("/readyz")

    assert answer.status_code == 503
    assert "billhook migrate" in answer.json()["database"]


def test_while_a_newer_version_takes_over_a_receiver_stays_ready_and_receives(edge: Edge, engine: Engine) -> None:
    with at("9999", engine):
        ready = edge.client.get("/readyz")
        received = edge.post(delivery())

    assert (ready.status_code, ready.json()) == (200, {"status": "ok"})
    assert received.status_code == 202


def test_an_empty_database_is_not_ready(serve: Serve, runtime: Runtime, tmp_path: Path) -> None:
    with connected(Settings(state_dir=tmp_path / "empty")) as engine:
        answer = serve(replace(runtime, engine=engine)).client.get("/readyz")

    assert answer.status_code == 503
    assert "billhook migrate" in answer.json()["database"]


def test_a_receiver_is_ready_while_another_writes(edge: Edge, runtime: Runtime) -> None:
    with held(runtime.engine):
        assert edge.client.get("/readyz").status_code == 200
        assert edge.client.get("/livez").status_code == 200


def test_the_metrics_say_what_became_of_deliveries(edge: Edge) -> None:
    request = delivery()
    edge.post(request)
    edge.post(request)
    edge.post(delivery(forged=True))

    answer = edge.client.get("/metrics")

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    outcomes = {
        (sample.labels["source"], sample.labels["outcome"], sample.labels["reason"])
        for sample in families["billhook_deliveries"].samples
    }
    assert {("shop", "accepted", ""), ("shop", "duplicate", ""), ("shop", "refused", "bad_signature")} <= outcomes
    assert {"billhook_accept_seconds", "billhook_accept_batch_size", "process_cpu_seconds"} <= set(families)
    assert all(family.documentation for family in families.values())


def test_the_metrics_hold_no_id_and_no_address(edge: Edge) -> None:
    event_id = accepted(edge.post(delivery(77, id="del_secret_id"), x_forwarded_for="198.51.100.7"))

    shown = edge.client.get("/metrics").text

    for value in (event_id, "inv_77", "del_secret_id", "198.51.100.7"):
        assert value not in shown


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/webhooks", "/livez/", "/metrics/x", "/consoles", "//livez", "/%00"]
)
@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_an_unknown_path_is_not_found(path: str, edge: Edge) -> None:
    reply = edge.exchange(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: h\r\n\r\n")

    refused(reply, 404, "NOT_FOUND")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_another_method_is_refused(method: str, path: str, edge: Edge) -> None:
    answer = edge.client.request(method, path)

    refused(answer, 405, "METHOD_NOT_ALLOWED")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_a_probe_may_ask_for_the_head_alone(edge: Edge) -> None:
    for path in ("/livez", "/readyz"):
        answer = edge.client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
