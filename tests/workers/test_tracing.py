"""When there are traces, and what is in them; sent to a real collector, from this process."""

from __future__ import annotations

import time
from types import SimpleNamespace

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from sqlalchemy import Engine, update
from structlog.testing import capture_logs

from handlers import Context, Event
from handlers.errors import ProviderUnavailable
from handlers.providers.http import RestClient
from handlers.registry import Registry
from tests.acceptance.watchers import Collector
from tests.conftest import SECRET
from tests.services import free_port
from tests.workers import given
from tests.workers.given import change, endpoint, only, received, rows
from workers import database, tracing
from workers.app import Runtime
from workers.delivery.deliver import Prepared, request
from workers.dispatch import Dispatcher, process
from workers.models import EventRow, HandlerRun, Message
from workers.settings import SettingsError
from workers.telemetry import Masking

FOREIGN = f"00-{1:032x}-{2:016x}-01"


@pytest.mark.parametrize(
    ("variables", "exporter"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "shop", "OTEL_TRACES_SAMPLER": "always_on"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://u:p@c/v1/traces"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, None),
    ],
)
def test_there_are_traces_where_the_environment_names_an_exporter(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], exporter: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert tracing.wanted() == exporter


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "'zipkin' is none of: otlp, console, none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "'grpc' is none of: http/protobuf"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "'sometimes' is none of: always_on"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "not an http:// or https:// URL"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://user:s3cret@[c", "not an http:// or https:// URL"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError) as refused:
        tracing.wanted()
    assert str(refused.value).startswith(f"{variable}: {said}")
    assert "s3cret" not in str(refused.value)


def test_without_the_extra_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda _name: None)
    tracing.wanted()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")

    with pytest.raises(SettingsError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT is set, .* pip install 'billhook\[otel\]'"):
        tracing.wanted()


def test_who_is_not_traced_has_spans_that_do_nothing() -> None:
    headers = [(b"traceparent", FOREIGN.encode())]
    spans = [
        tracing.received("POST", headers, {}),
        tracing.continued("run", "consumer", FOREIGN, {}),
        tracing.inside("GET", "client", {}),
    ]

    assert spans == [tracing.OFF] * 3
    with tracing.OFF as span:
        span.note({"a": 1})
        span.fail("ValueError")
        assert (span.traceparent, tracing.here(), tracing.trace_id(FOREIGN)) == (None, None, {})


def test_spans_of_a_handlers_own_are_below_ours_and_without_secrets(traced: Collector) -> None:
    provider = tracing._tracers[0]._provider  # type: ignore[attr-defined]
    own = provider.get_tracer("handlers.own")
    with tracing.continued("run shop", "consumer", FOREIGN, {}) as run:
        with own.start_as_current_span(f"asked {SECRET}") as span:
            span.set_attribute("http.url", f"https://x/?token={SECRET}")
            span.set_attribute("keys", [SECRET, "b"])
            span.record_exception(ValueError(SECRET))
        run.fail("ValueError", f"no {SECRET}", f"Traceback\n{SECRET}")
    tracing.stop()

    inner, outer = traced.spans
    assert (inner.name, inner.parent, inner.trace_id) == ("asked ********", outer.id, f"{1:032x}")
    assert inner.attributes["http.url"] == "https://x/?token=********"
    assert outer.exceptions[0]["exception.stacktrace"] == "Traceback\n********"
    assert SECRET not in inner.everything + outer.everything


def test_a_call_of_a_provider_is_a_span_that_it_is_told_nothing_of(traced: Collector) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200 if request.url.path == "/invoices/inv_1" else 503, json={})

    with RestClient("https://api.test", {}, transport=httpx.MockTransport(answer), retries=0) as client:
        client.request("GET", "/invoices/inv_1")  # nobody's: no trace begins with it
        with tracing.continued("run shop", "consumer", None, {}):
            client.request("GET", "/invoices/inv_1", params={"token": "t0ken"})
            with pytest.raises(ProviderUnavailable):
                client.request("POST", "/invoices", json={})
    tracing.stop()

    get, post, run = traced.spans
    assert [(span.name, span.kind, span.parent, span.failed) for span in (get, post)] == [
        ("GET", "CLIENT", run.id, False),
        ("POST", "CLIENT", run.id, True),
    ]
    assert get.attributes["server.address"] == "api.test"
    assert (get.attributes["http.response.status_code"], post.attributes["error.type"]) == (200, "503")
    assert not [span for span in traced.spans if "inv_1" in span.everything or "t0ken" in span.everything]
    assert not [request for request in asked if "traceparent" in request.headers]


@pytest.mark.parametrize("sampler", ["always_off", "parentbased_always_off"])
def test_what_is_not_sampled_keeps_its_trace_and_sends_nothing(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setattr(trace, "set_tracer_provider", lambda _provider: None)
    tracing.start("test", lambda text: text)
    with tracing.received("POST", [(b"traceparent", FOREIGN.encode())], {}) as span:
        kept = tracing.here()
    with tracing.continued("run", "consumer", kept, {}) as run:
        pass
    tracing.stop()

    assert kept is not None
    assert int(kept[-2:], 16) & 1 == 0, "the flag that says that it is sampled"
    assert span.traceparent == kept
    assert run.traceparent is not None
    assert run.traceparent.split("-")[1] == kept.split("-")[1]
    assert collector.posted == []


@pytest.mark.parametrize("header", [b"", b"00-zz-1-01", b"\xff" * 400, FOREIGN.encode() + b"-x", b"00-" + b"0" * 52])
def test_a_traceparent_that_is_none_is_no_link(traced: Collector, header: bytes) -> None:
    tracing.received("POST", [(b"traceparent", header)], {}).end()
    tracing.received("POST", [(b"traceparent", FOREIGN.encode())] * 2, {}).end()
    tracing.stop()

    assert [(span.parent, span.links) for span in traced.spans] == [("", ()), ("", ())]


def test_a_collector_that_is_down_is_told_of_once() -> None:
    results = iter([SpanExportResult.FAILURE, SpanExportResult.FAILURE, SpanExportResult.SUCCESS])

    class Fake(SpanExporter):
        def export(self, spans: object) -> SpanExportResult:
            return next(results)

    exporter = Masking(Fake(), str)
    with capture_logs() as lines:
        for _ in range(3):
            exporter.export([])
    assert [line["action"] for line in lines] == ["traces_dropped", "traces_sent"]


def test_the_end_of_a_process_waits_for_a_collector_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(trace, "set_tracer_provider", lambda _provider: None)
    monkeypatch.setattr("workers.telemetry.CLOSES_WITHIN", 0.2)
    tracing.start("test", str)
    tracing.continued("run", "consumer", None, {}).end()
    began = time.monotonic()

    tracing.stop()

    assert time.monotonic() - began < 5  # without a bound, its exporter would try again for a minute


@pytest.mark.parametrize("replayed", [False, True])
def test_a_run_and_what_it_emits_are_of_the_trace_of_its_event(
    dispatcher: Dispatcher, registry: Registry, runtime: Runtime, traced: Collector, replayed: bool
) -> None:
    @registry.on("invoice.paid")
    async def receipt(event: Event, ctx: Context) -> None:
        async def pdf() -> str:
            return "pdf"

        await ctx.step("pdf", pdf)
        ctx.emit("receipt.issued", {})

    endpoint(runtime, forward=True)
    event_id = received(runtime.engine)
    change(runtime.engine, EventRow, traceparent=FOREIGN)
    process(dispatcher, [event_id])
    if replayed:
        given.sent_back(runtime.engine, only(runtime.engine, HandlerRun).id)
        process(dispatcher, [event_id])
    tracing.stop()

    runs = [span for span in traced.spans if span.name.startswith("run ")]
    steps = [span for span in traced.spans if span.name == "step pdf"]
    assert [(run.trace_id, run.parent) for run in runs] == [(f"{1:032x}", f"{2:016x}")] * (1 + replayed)
    assert [step.parent for step in steps] == [run.id for run in runs]
    kept = {row.forwarded: row.traceparent for row in rows(runtime.engine, Message)}
    assert kept == {True: FOREIGN, False: f"00-{1:032x}-{runs[0].id}-01"}


def test_to_accept_an_event_that_nobody_traces_costs_what_it_did(engine: Engine) -> None:
    with given.statements(engine) as asked:
        received(engine)

    assert [statement for statement in asked if "INSERT INTO events" in statement]
    assert not [statement for statement in asked if "traceparent" in statement]


def test_a_worker_that_makes_no_spans_hands_the_trace_on_and_begins_none(
    dispatcher: Dispatcher, registry: Registry, runtime: Runtime
) -> None:
    @registry.on("invoice.paid")
    def receipt(event: Event, ctx: Context) -> None:
        ctx.emit("receipt.issued", {})

    traced, untraced = (received(runtime.engine) for _ in range(2))
    with database.write(runtime.engine) as connection:
        connection.execute(update(EventRow).where(EventRow.id == traced).values(traceparent=FOREIGN))
    process(dispatcher, [traced])
    process(dispatcher, [untraced])

    kept = {row.event_id: row.traceparent for row in rows(runtime.engine, Message)}
    assert kept == {traced: FOREIGN, untraced: None}


def test_a_request_bears_the_header_where_it_is_wanted_and_the_endpoint_has_none_of_its_own() -> None:
    span = SimpleNamespace(traceparent=FOREIGN)

    def headers(wanted: bool, **own: str) -> list[str]:
        target = SimpleNamespace(
            url="https://x/", keys=(b"k" * 32,), headers=tuple(own.items()), ca=None, certificate=None
        )
        message = SimpleNamespace(id="msg_1", body=b"{}", content_type="application/json")
        one = Prepared(SimpleNamespace(), target, message, span)  # type: ignore[arg-type]
        return [value for name, value in request(one, 1, traceparent=wanted).headers if name.lower() == "traceparent"]

    assert headers(False) == []
    assert headers(True) == [FOREIGN]
    assert headers(True, Traceparent="mine") == ["mine"]
