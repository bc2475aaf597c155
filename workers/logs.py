"""Log lines: JSON, one a line, with a sentence, an `action` from a closed vocabulary, and ids.

Secrets and bodies are never logged; what is passed to a logger is ids, counts, reasons and durations.
"""

from __future__ import annotations

import logging
import sys

import structlog

from workers.settings import Settings

log: structlog.stdlib.BoundLogger = structlog.get_logger("billhook")


def configure(settings: Settings) -> None:
    """Send our lines and those of the libraries to stderr in one format."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
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
    logging.getLogger("billhook").setLevel(settings.log_level.upper())
    # Whoever sends garbage would fill the log with warnings about it.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    # Celery's trace logger would repeat each of our own lines, and its errors carry arguments.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
