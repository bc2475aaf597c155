"""OpenTelemetry's side of `workers.tracing`. Needs the extra `otel`; imported only where traces are wanted.

Spans leave by a thread with a queue of limited length: a collector that is slow or down costs spans, never an event.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self

import structlog
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

CLOSES_WITHIN = 2.0
"""Seconds that the last spans of a process get."""
_KEPT = 8_000
"""Characters of a message or traceback that are kept, once it is masked."""
_log: structlog.typing.FilteringBoundLogger = structlog.get_logger("billhook")
_PROPAGATOR = TraceContextTextMapPropagator()


class Telemetry:
    """The `workers.tracing.Tracer` of a process. Make it after the fork."""

    def __init__(self, exporter: str, process: str, mask: Callable[[str], str]) -> None:
        # It would write a line, and a traceback, for each batch that a collector does not take.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        self._mask = mask
        chosen = ConsoleSpanExporter() if exporter == "console" else OTLPSpanExporter()
        self._provider = TracerProvider(resource=_resource(process), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(Masking(chosen, mask)))
        # So that spans of a handler's own, and of what it calls, are found below ours.
        trace.set_tracer_provider(self._provider)
        self._tracer = self._provider.get_tracer("billhook", version("billhook"))

    def begin(
        self,
        name: str,
        kind: str,
        attributes: Mapping[str, Any],
        *,
        parent: str | None = None,
        link: str | None = None,
    ) -> Traced:
        """As `workers.tracing.Tracer`."""
        links = () if link is None else _links(link)
        return self._begin(name, kind, attributes, Context() if parent is None else _context(parent), links)

    def inside(self, name: str, kind: str, attributes: Mapping[str, Any]) -> Traced | None:
        """As `workers.tracing.Tracer`."""
        if not trace.get_current_span().get_span_context().is_valid:
            return None
        return self._begin(name, kind, attributes, contexts.get_current(), ())

    def here(self) -> str | None:
        """As `workers.tracing.Tracer`."""
        current = trace.get_current_span()
        return _traceparent(current) if current.get_span_context().is_valid else None

    def close(self) -> None:
        """As `workers.tracing.Tracer`. Its own shutdown may wait for a collector much longer."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(CLOSES_WITHIN)

    def _begin(
        self, name: str, kind: str, attributes: Mapping[str, Any], context: Context, links: Sequence[Link]
    ) -> Traced:
        span = self._tracer.start_span(
            name, context=context, kind=SpanKind[kind.upper()], attributes=_given(attributes), links=links
        )
        return Traced(span, self._mask)


class Traced:
    """A `workers.tracing.Span` that is one of OpenTelemetry's."""

    __slots__ = ("_leave", "_mask", "_span", "traceparent")

    def __init__(self, span: trace.Span, mask: Callable[[str], str]) -> None:
        self._span = span
        self._mask = mask
        self.traceparent = _traceparent(span)

    def note(self, attributes: Mapping[str, Any]) -> None:
        """As `workers.tracing.Span`."""
        self._span.set_attributes(_given(attributes))

    def fail(self, kind: str, message: str = "", stack: str = "") -> None:
        """As `workers.tracing.Span`. Masked before it is cut: a part of a secret would not be found."""
        if not self._span.is_recording():
            return
        message, stack = self._mask(message)[:_KEPT], self._mask(stack)[-_KEPT:]
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR, message or kind))
        if message or stack:
            told = {"exception.type": kind, "exception.message": message, "exception.stacktrace": stack}
            self._span.add_event("exception", {name: value for name, value in told.items() if value})

    def end(self) -> None:
        """As `workers.tracing.Span`; a second time changes nothing."""
        if self._span.is_recording():
            self._span.end()

    def enter(self) -> Callable[[], object]:
        """As `workers.tracing.Span`. Log lines have its `trace_id` meanwhile."""
        token = contexts.attach(trace.set_span_in_context(self._span))
        bound = structlog.contextvars.bind_contextvars(trace_id=self.traceparent.split("-")[1])

        def leave() -> None:
            contexts.detach(token)
            with suppress(ValueError):  # a coroutine that is collected elsewhere leaves nothing there
                structlog.contextvars.reset_contextvars(**bound)

        return leave

    def __enter__(self) -> Self:
        self._leave = self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()
        if isinstance(error, Exception):
            self.fail(type(error).__name__, str(error))
        self.end()


class Masking(SpanExporter):
    """Takes the secrets out of whatever a span says, also of those that a handler or a library made.

    It says in the log when a collector begins, and ceases, not to take them.
    """

    def __init__(self, exporter: SpanExporter, mask: Callable[[str], str]) -> None:
        self._exporter = exporter
        self._mask = mask
        self._last = SpanExportResult.SUCCESS

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        last, self._last = self._last, self._exporter.export([self._masked(span) for span in spans])
        if self._last != last:
            if self._last == SpanExportResult.SUCCESS:
                _log.info("the collector takes spans again", action="traces_sent")
            else:
                _log.warning("the collector does not take spans; they are dropped", action="traces_dropped")
        return self._last

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def _masked(self, span: ReadableSpan) -> ReadableSpan:
        # Looked through in one piece: a secret is rare, and to search each text by itself takes long.
        whole = "\n".join(_texts(span))
        if self._mask(whole) == whole:
            return span
        return ReadableSpan(
            name=self._mask(span.name),
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes=self._all(span.attributes),
            events=[Event(self._mask(one.name), self._all(one.attributes), one.timestamp) for one in span.events],
            links=[Link(one.context, self._all(one.attributes)) for one in span.links],
            kind=span.kind,
            status=Status(span.status.status_code, self._mask(span.status.description or "") or None),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )

    def _all(self, attributes: Mapping[str, Any] | None) -> dict[str, Any]:
        return {name: self._value(value) for name, value in (attributes or {}).items()}

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._mask(value)
        return [self._value(one) for one in value] if isinstance(value, list | tuple) else value


def _texts(span: ReadableSpan) -> list[str]:
    parts = (span.attributes, *(one.attributes for one in span.events), *(one.attributes for one in span.links))
    values = [value for attributes in parts for value in (attributes or {}).values()]
    texts = [str(value) for value in values if isinstance(value, str)]
    texts += [str(one) for value in values if isinstance(value, list | tuple) for one in value]
    return [span.name, span.status.description or "", *(one.name for one in span.events), *texts]


def _resource(process: str) -> Resource:
    """Who we are; what the environment says of it (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) goes before."""
    own = {"service.name": "billhook", "service.version": version("billhook"), "billhook.process": process}
    return Resource.create(own).merge(OTELResourceDetector().detect())


def _context(traceparent: str) -> Context:
    return _PROPAGATOR.extract({"traceparent": traceparent}, context=Context())


def _links(traceparent: str) -> Sequence[Link]:
    there = trace.get_current_span(_context(traceparent)).get_span_context()
    return [Link(there)] if there.is_valid else ()


def _traceparent(span: trace.Span) -> str:
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _given(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
