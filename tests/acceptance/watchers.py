"""Where traces and reports of faults are sent to: a collector of OTLP over HTTP, and a Sentry. Small real servers."""

from __future__ import annotations

import gzip
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent


@dataclass(frozen=True)
class Span:
    """A span as a collector gets it; `parent` is empty at the root of a trace."""

    name: str
    kind: str
    trace_id: str
    id: str
    parent: str
    attributes: dict[str, Any]
    links: tuple[str, ...]
    """Ids of traces."""
    failed: bool
    exceptions: tuple[dict[str, Any], ...]
    process: dict[str, Any]
    """Attributes of the process that it was made in."""

    @property
    def everything(self) -> str:
        """All that it says."""
        return repr((self.name, self.attributes, self.exceptions, self.process))


class Watcher(ThreadingHTTPServer):
    """A server that takes what is posted to it, once `hold` allows it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.posted: list[tuple[str, bytes]] = []
        self.hold: Callable[[], object] = lambda: None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def server_close(self) -> None:
        self.shutdown()
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """That a sender was killed is no news."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Collector(Watcher):
    """Takes traces."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def spans(self) -> list[Span]:
        """What has come so far."""
        return [span for path, body in list(self.posted) if path == "/v1/traces" for span in _decoded(body)]

    def named(self, name: str) -> list[Span]:
        """Those whose names begin so."""
        return [span for span in self.spans if span.name.startswith(name)]


class Sentry(Watcher):
    """Takes envelopes."""

    @property
    def dsn(self) -> str:
        return f"http://0123456789abcdef@127.0.0.1:{self.port}/7"

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events in the envelopes that have come so far (a header, then items: a header and a body each)."""
        found = []
        for path, body in list(self.posted):
            assert path == "/api/7/envelope/"
            lines = body.split(b"\n")[1:]
            for header, item in zip(lines[::2], lines[1::2], strict=False):
                if json.loads(header)["type"] == "event":
                    found.append(json.loads(item))
        return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        assert isinstance(self.server, Watcher)
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.hold()
        zipped = self.headers.get("content-encoding") == "gzip"
        self.server.posted.append((self.path, gzip.decompress(body) if zipped else body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        pass


def _decoded(body: bytes) -> list[Span]:
    request = ExportTraceServiceRequest.FromString(body)
    return [
        _span(span, _values(resource.resource.attributes))
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _span(sent: Sent, process: dict[str, Any]) -> Span:
    return Span(
        name=sent.name,
        kind=Sent.SpanKind.Name(sent.kind).removeprefix("SPAN_KIND_"),
        trace_id=sent.trace_id.hex(),
        id=sent.span_id.hex(),
        parent=sent.parent_span_id.hex(),
        attributes=_values(sent.attributes),
        links=tuple(link.trace_id.hex() for link in sent.links),
        failed=sent.status.code == 2,
        exceptions=tuple(_values(event.attributes) for event in sent.events if event.name == "exception"),
        process=process,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
