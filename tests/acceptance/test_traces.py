"""Traces through real processes, to a real collector: one trace from a delivery to what is sent on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.acceptance.stack import SECRET, Sink, Stack, await_, delivery
from tests.acceptance.watchers import Collector, Span
from tests.services import free_port

HANDLERS = f"""
import os, pathlib, time
from handlers import on

here = pathlib.Path(__file__).parent

@on("invoice.paid", timeout=3)
def receipt(event, ctx):
    ctx.logger.info("at work")
    ctx.step("written", lambda: 1)
    while event.object_id == "inv_2" and not (here / "go").exists():
        (here / "began").touch()
        time.sleep(0.01)
    ctx.emit("receipt.issued", {{"invoice": event.object_id}})

@on("invoice.created", retries=1, backoff=0.1, timeout=2)
async def failing(event, ctx):
    async def step():
        raise ValueError("refused: {SECRET}")
    await ctx.step("asked", step)
"""
FOREIGN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        yield server


@pytest.fixture
def traced(server_stack: Stack, collector: Collector) -> Stack:
    (server_stack.folder / "my_handlers.py").write_text(HANDLERS)
    server_stack.environment |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_SERVICE_NAME": "shop-billhook",
        "BILLHOOK_DELIVERY_TRACEPARENT": "true",
    }
    return server_stack


def post(stack: Stack, number: int, event_type: str = "invoice.paid", **headers: str) -> str:
    """Deliver, and the event's id. With `connection: close` it goes the ordinary way, else the short one."""
    request = delivery(number, event_type)
    url = f"{stack.url}/webhooks/shop"
    answer = httpx.post(url, content=request.body, headers={**request.headers, **headers}, trust_env=False)
    assert answer.status_code == 202
    return str(answer.json()["data"]["id"])


def of_event(collector: Collector, event_id: str) -> dict[str, Span]:
    """The spans of the trace that an event came by; the first of each name."""
    (root,) = [
        span for span in collector.named("POST /webhooks/") if span.attributes.get("billhook.event.id") == event_id
    ]
    spans = [span for span in collector.spans if span.trace_id == root.trace_id]
    return {span.name: span for span in reversed(spans)}


def test_a_delivery_is_one_trace_to_its_endpoints_also_when_the_worker_is_killed(
    traced: Stack, collector: Collector
) -> None:
    with Sink() as sink:
        assert traced.run("endpoints", "add", sink.url).returncode == 0
        traced.start("serve", "work", "beat")
        short = post(traced, 1, traceparent=FOREIGN)
        await_(lambda: len(sink.received) == 1, "the first is sent on")
        assert httpx.get(f"{traced.url}/api/v1/events", trust_env=False).status_code == 401
        killed = post(traced, 2, connection="close")
        await_((traced.folder / "began").exists, "the handler has begun")
        traced.kill("work")
        (traced.folder / "go").touch()
        traced.start("work")
        failing = post(traced, 3, "invoice.created")
        await_(lambda: len(sink.received) == 2, "the second is sent on")
        await_(lambda: len(collector.named("deliver")) == 2, "the spans have come")
        await_(lambda: len(collector.named("run my_handlers.failing")) == 2, "the failures have come")

    for event_id in (short, killed):
        spans = of_event(collector, event_id)
        server, run, attempt = (spans[name] for name in ("POST /webhooks/shop", "run my_handlers.receipt", "deliver"))
        assert (server.kind, server.parent, server.attributes["http.response.status_code"]) == ("SERVER", "", 202)
        assert (run.kind, run.parent, run.attributes["billhook.outcome"]) == ("CONSUMER", server.id, "succeeded")
        assert run.attributes["billhook.event.id"] == event_id
        assert (attempt.kind, attempt.parent) == ("CLIENT", run.id)
        assert attempt.attributes["http.response.status_code"] == 204
        headers = [headers for headers, _ in sink.received if headers["traceparent"].split("-")[1] == run.trace_id]
        assert [one["traceparent"].split("-")[2] for one in headers] == [attempt.id]
    spans = of_event(collector, short)
    assert spans["step written"].parent == spans["run my_handlers.receipt"].id
    assert spans["POST /webhooks/shop"].links == (FOREIGN.split("-")[1],), "a stranger's trace is linked to"
    assert spans["POST /webhooks/shop"].trace_id not in FOREIGN, "and not continued"

    failed = collector.named("run my_handlers.failing")
    assert {span.trace_id for span in failed} == {of_event(collector, failing)["POST /webhooks/shop"].trace_id}
    assert {span.attributes["error.type"] for span in failed} == {"ValueError"}
    assert failed[0].exceptions[0]["exception.message"] == "refused: ********"
    assert "in step" in failed[0].exceptions[0]["exception.stacktrace"]
    assert [(span.failed, span.parent) for span in collector.named("step asked")] == [(True, one.id) for one in failed]
    assert not [span for span in collector.spans if SECRET in span.everything or sink.url in span.everything]
    assert {span.name.split()[0] for span in collector.spans} == {"POST", "run", "step", "deliver"}
    assert {path for path, _ in collector.posted} == {"/v1/traces"}
    assert {span.process["service.name"] for span in collector.spans} == {"shop-billhook"}
    assert {span.process["billhook.process"] for span in collector.spans} == {"serve", "work"}
    assert f'"trace_id":"{of_event(collector, short)["deliver"].trace_id}"' in traced.log("work")


def test_a_collector_that_hangs_or_is_down_slows_and_loses_nothing(traced: Stack, collector: Collector) -> None:
    holding = threading.Event()
    collector.hold = lambda: holding.wait(60)
    traced.environment |= {"OTEL_BSP_MAX_QUEUE_SIZE": "20", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10"}
    traced.start("serve")  # whose collector hangs
    traced.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
    traced.start("work")  # whose collector is down
    waits = []
    for number in range(10, 50):
        began = time.monotonic()
        post(traced, number)
        waits.append(time.monotonic() - began)
    await_(lambda: traced.events("processed") == 40, "all are handled")
    await_(lambda: "the collector does not take spans" in traced.log("work"), "it is said, once")
    took = {name: stopped(traced, name) for name in ("serve", "work")}
    holding.set()

    assert max(waits) < 2, "nobody waits for a collector"
    assert max(took.values()) < 10, "at the end it is waited for two seconds"
    assert traced.balance().holds
    assert traced.log("work").count("does not take spans") <= 2, "once for each process of the pool"


def stopped(stack: Stack, name: str) -> float:
    """Tell a process to stop; seconds until it has ended, well."""
    began = time.monotonic()
    stack.processes[name].terminate()
    assert stack.processes[name].wait(30) == 0, stack.log(name)
    return time.monotonic() - began
