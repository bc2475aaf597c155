"""Log lines: JSON, one a line, with a sentence, an `action` from a closed vocabulary, and ids.

Secrets and bodies are never logged; what is passed to a logger is ids, counts, reasons and durations.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Any

import orjson
import structlog

from workers.settings import Settings

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("billhook")


def configure(settings: Settings) -> None:
    """Send our lines and those of the libraries to stderr in one format."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    _ours(settings, shared)
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if settings.log_format == "console" else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    # Whoever sends garbage would fill the log with warnings about it.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    # Celery's trace logger would repeat each of our own lines, and its errors carry arguments.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)


def _ours(settings: Settings, shared: list[structlog.typing.Processor]) -> None:
    """Our own lines go past the standard library's logging, which takes four times as long for each."""
    people = settings.log_format == "console"
    last: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if people
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        logger_factory=(structlog.PrintLoggerFactory(sys.stderr) if people else lambda *_: _Lines(sys.stderr.buffer)),
        cache_logger_on_first_use=True,
    )


class _Lines(structlog.BytesLogger):
    """Drops a line that stderr does not take (a full disk, a closed pipe): the work it tells of goes on."""

    def msg(self, message: bytes) -> None:
        with suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _json(value: object, **options: Any) -> bytes:
    return orjson.dumps(value, **options)
