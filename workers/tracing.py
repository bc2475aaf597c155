"""Traces: what the rest of Billhook says of its spans, whether anybody listens or not.

Tracing is on where the environment names an exporter, in OpenTelemetry's own variables; `workers.telemetry` then makes
the spans. Otherwise each is `OFF`, which does nothing. A trace travels with the row (`events.traceparent`,
`messages.traceparent`) and not with a message of Celery, so a lost message, a retry or a replay leaves it whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import TracebackType
from typing import Literal, Protocol, Self
from urllib.parse import urlsplit

from handlers.event import Headers
from workers.settings import SettingsError

Kind = Literal["server", "consumer", "client", "internal"]
Attributes = Mapping[str, str | int | float | bool | None]
"""By name; what is None is left out."""

HEADER = "traceparent"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_OTLP, _NONE = "otlp", "none"
_EXPORTERS = (_OTLP, "console", _NONE)
_PROTOCOL = "http/protobuf"
_SAMPLERS = tuple(
    parent + name
    for parent in ("", "parentbased_")
    for name in ("always_on", "always_off", "traceidratio")
)  # fmt: skip


class Span(Protocol):
    """One piece of work in a trace. As a context it is the current one, and ends with its block."""

    @property
    def traceparent(self) -> str | None:
        """What a row keeps, so that whoever takes it up continues the trace (W3C Trace Context); None: none is made."""

    def note(self, attributes: Attributes) -> None:
        """Add attributes. Never a body, a secret, or a URL that may hold one."""

    def fail(self, kind: str, message: str = "", stack: str = "") -> None:
        """Say that it failed: by a word of few (`error.type`), with a text and a traceback, masked here."""

    def enter(self) -> Callable[[], object]:
        """Make it the current one, until what is returned is called."""

    def end(self) -> None:
        """End it; what is said of it later is not heard."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Tracer(Protocol):
    """Makes the spans of a process."""

    def begin(
        self, name: str, kind: Kind, attributes: Attributes, *, parent: str | None = None, link: str | None = None
    ) -> Span:
        """A span of the trace of `parent`, else of a new one; `link` points at another that it does not belong to."""

    def inside(self, name: str, kind: Kind, attributes: Attributes) -> Span | None:
        """A span below the current one; None where there is none."""

    def here(self) -> str | None:
        """The `traceparent` of the current span."""

    def close(self) -> None:
        """Send what has not been sent, for a bounded time."""


def _nothing() -> None:
    pass


class _Off:
    """The span of whoever is not traced."""

    traceparent = None

    def note(self, attributes: Attributes) -> None:
        pass

    def fail(self, kind: str, message: str = "", stack: str = "") -> None:
        pass

    def enter(self) -> Callable[[], object]:
        return _nothing

    def end(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


OFF = _Off()
_tracers: list[Tracer] = []
"""The tracer of this process; empty where tracing is off."""


def wanted() -> str | None:
    """Which exporter the environment names; None: tracing is off.

    Raises SettingsError with one line for people, also where the extra is missing.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    exporter = _word("OTEL_TRACES_EXPORTER")
    named = next((name for name in _ENDPOINTS if os.environ.get(name, "").strip()), None)
    if exporter == _NONE or (exporter is None and named is None):
        return None
    _check("OTEL_TRACES_EXPORTER", exporter, _EXPORTERS)
    _check("OTEL_TRACES_SAMPLER", _word("OTEL_TRACES_SAMPLER"), _SAMPLERS)
    if exporter != "console":
        protocol = next((name for name in _PROTOCOLS if _word(name)), _PROTOCOLS[0])
        _check(protocol, _word(protocol), (_PROTOCOL,))
        if named is not None:
            _check_url(named)
    if not _has_extra():
        cause = named if exporter is None else "OTEL_TRACES_EXPORTER"
        raise SettingsError(
            f"{cause} is set, and traces need an extra: pip install 'billhook[otel]', or set OTEL_SDK_DISABLED=true"
        )
    return exporter or _OTLP


def start(process: str, mask: Callable[[str], str]) -> None:
    """Turn tracing on in this process if it is wanted; after a fork, for no thread survives one.

    `process` is the name of its command; `mask` takes secrets out of a text. Raises SettingsError.
    """
    exporter = wanted()
    if exporter is not None:
        from workers.telemetry import Telemetry

        _tracers[:] = [Telemetry(exporter, process, mask)]


def stop() -> None:
    """Send what has not been sent, for a bounded time, and turn tracing off."""
    while _tracers:
        _tracers.pop().close()


def is_on() -> bool:
    """Whether this process makes spans."""
    return bool(_tracers)


def received(name: str, headers: Headers, attributes: Attributes) -> Span:
    """The span of a request from outside: a trace of its own.

    A `traceparent` that it brings is anybody's word, and would let a stranger write into our traces and decide what is
    sampled: so it is linked to and not continued.
    """
    if not _tracers:
        return OFF
    brought = [value for header, value in headers if header == b"traceparent"]
    link = brought[0].decode("latin-1") if len(brought) == 1 else None
    return _tracers[0].begin(name, "server", attributes, link=link)


def continued(name: str, kind: Kind, traceparent: str | None, attributes: Attributes) -> Span:
    """A span of the trace that a row keeps; of a new one where it keeps none."""
    return _tracers[0].begin(name, kind, attributes, parent=traceparent) if _tracers else OFF


def inside(name: str, kind: Kind, attributes: Attributes) -> Span:
    """A span below the current one; `OFF` where nothing is traced."""
    return (_tracers[0].inside(name, kind, attributes) if _tracers else None) or OFF


def here() -> str | None:
    """The `traceparent` of the current span."""
    return _tracers[0].here() if _tracers else None


def trace_id(traceparent: str | None) -> dict[str, str]:
    """For a log line outside the span that it tells of: `trace_id`, where tracing is on."""
    return {"trace_id": traceparent.split("-")[1]} if _tracers and traceparent else {}


def _has_extra() -> bool:
    """OpenTelemetry's API alone may be there without it, because somebody's library needs it."""
    try:
        return all(find_spec(name) for name in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"))
    except ModuleNotFoundError:  # of what one of them is part of
        return False


def _word(variable: str) -> str | None:
    return os.environ.get(variable, "").strip().lower() or None


def _check(variable: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise SettingsError(f"{variable}: {value!r} is none of: {', '.join(known)}")


def _check_url(variable: str) -> None:
    """It may hold a password, so no error quotes it."""
    try:
        parts = urlsplit(os.environ[variable].strip())
        complete = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        complete = False
    if not complete:
        raise SettingsError(f"{variable}: not an http:// or https:// URL, such as http://collector:4318")
