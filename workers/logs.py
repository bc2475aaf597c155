"""Log lines: JSON, one a line, with a sentence, an `action` from a closed vocabulary, and ids.

Secrets and bodies are never logged; what is passed to a logger is ids, counts, reasons and durations. What a handler
logs, and what an exception says, is not ours to choose: so each line is searched for our secrets when it is written.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import orjson
import structlog

from workers import faults, redis_url
from workers.settings import Settings

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("billhook")

_SHORTEST = 6
"""Characters; what is shorter would be found in words that are no secrets."""
_hidden: list[str] = []
"""What `hidden` gave for this process."""


def hidden(settings: Settings) -> tuple[str, ...]:
    """The secrets of the settings in all forms, which nothing may show; longest first: one may be part of another."""
    found = {secret for source in settings.sources.values() for secret in source.hidden()}
    found |= {key.get_secret_value() for key in settings.encryption_keys}
    if settings.database_url is not None:
        found |= _of_database(settings.database_url.get_secret_value())
    if settings.redis_url is not None:
        found |= _of_redis(settings.redis_url.get_secret_value())
    if settings.sentry_dsn is not None:
        dsn = urlsplit(settings.sentry_dsn.get_secret_value())
        found |= {part for part in (dsn.username, dsn.password) if part}
    forms = {form for secret in found for form in _forms(secret) if len(form) >= _SHORTEST}
    return tuple(sorted(forms, key=lambda form: (-len(form), form)))


def masked(text: str, secrets: Iterable[str]) -> str:
    """The text without these secrets."""
    for secret in secrets:
        text = text.replace(secret, "********")
    return text


def _forms(secret: str) -> Iterable[str]:
    """A secret as it is, and as JSON and Python write it."""
    return secret, *(form[1:-1] for form in (orjson.dumps(secret).decode(), json.dumps(secret), repr(secret)))


def _of_database(url: str) -> set[str]:
    parts = urlsplit(url)
    given = [parts.password or "", *(value for name, value in parse_qsl(parts.query) if "password" in name)]
    return _quoted_or_not(given, {parts.username, parts.hostname, parts.path[1:]})


def _of_redis(url: str) -> set[str]:
    servers = redis_url.parse(url)
    return _quoted_or_not(servers.passwords(), {servers.username, servers.name, *(host for host, _ in servers.hosts)})


def _quoted_or_not(passwords: Iterable[str], names: set[str | None]) -> set[str]:
    forms = {form for one in passwords for form in (one, unquote(one), quote(one, safe=""))}
    # One that is a name as well, as on developers' machines, is no secret; masked, it would spoil every line.
    return forms - {*names, "billhook"}


def configure(settings: Settings) -> None:
    """Send our lines and those of the libraries to stderr in one format, without the secrets of the settings."""
    _hidden[:] = hidden(settings)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    _ours(settings, shared)
    renderer: structlog.typing.Processor = (
        _for_people() if settings.log_format == "console" else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
                _mask,
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
        [_for_people()]
        if people
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]
    )
    structlog.configure(
        processors=[*shared, faults.logged, *last, _mask],
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


def _for_people() -> structlog.dev.ConsoleRenderer:
    # Its own tracebacks show the values of variables, cut short: so what is cut could not be found and masked.
    return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)


def _mask(_logger: object, _method: str, line: Any) -> str | bytes:
    """The last processor: at the end, so that nothing escapes, however deep it stands."""
    if isinstance(line, bytes):
        return masked(line.decode(), _hidden).encode()
    return masked(str(line), _hidden)


def _json(value: object, **options: Any) -> bytes:
    return orjson.dumps(value, **options)
