"""Faults: what nobody handled, and runs that are dead, are reported to Sentry. Needs the extra `sentry`.

A report has ids, names and a traceback: no body, no values of variables, no command line, and none of our secrets.
Reports leave by a thread with a queue of limited length; without a DSN all of this does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from workers.settings import Settings, SettingsError

CLOSES_WITHIN = 2.0
"""Seconds that the last reports of a process get."""
_FRAME = re.compile(
    r'^  File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>.+)\n(?:    (?P<code>.*)\n)?', re.M
)
_LAST = "Traceback (most recent call last):\n"
_KIND = re.compile(r"[A-Za-z_][\w.]*")
_on: list[str] = []
"""The name of this process, once it reports."""


def start(settings: Settings, process: str, mask: Callable[[str], str]) -> None:
    """Report from this process on, if there is a DSN; after a fork. `process` is the name of its command.

    Raises SettingsError where the extra is missing.
    """
    if settings.sentry_dsn is None:
        return
    if find_spec("sentry_sdk") is None:
        raise SettingsError(
            "BILLHOOK_SENTRY_DSN: reports need an extra: pip install 'billhook[sentry]', or leave it out"
        )
    import sentry_sdk
    from sentry_sdk.integrations.atexit import AtexitIntegration
    from sentry_sdk.integrations.dedupe import DedupeIntegration
    from sentry_sdk.integrations.threading import ThreadingIntegration

    def before_send(event: Any, _hint: object) -> Any:
        return _masked(event, mask)

    sentry_sdk.init(
        settings.sentry_dsn.get_secret_value(),
        release=f"billhook@{version('billhook')}",
        # Each of those it finds by itself would bring what it sees: requests, queries, arguments of tasks, log lines.
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[
            AtexitIntegration(callback=lambda *_: None),
            DedupeIntegration(),
            ThreadingIntegration(propagate_scope=False),
        ],
        before_send=before_send,
        include_local_variables=False,  # nor is anything of persons sent: that has to be asked for
        max_request_body_size="never",
        max_breadcrumbs=0,
        shutdown_timeout=CLOSES_WITHIN,
        auto_session_tracking=False,
        send_client_reports=False,
        propagate_traces=False,
        in_app_include=["handlers", "workers", "receiver"],
    )
    sentry_sdk.get_global_scope().set_tag("process", process)  # whichever thread reports
    _on[:] = [process]


def stop() -> None:
    """Send what has not been sent, for a bounded time."""
    if _on:
        import sentry_sdk

        sentry_sdk.flush(CLOSES_WITHIN)


def report(error: BaseException, **tags: str) -> None:
    """Report an exception that nobody handled."""
    if _on:
        import sentry_sdk

        with sentry_sdk.new_scope() as scope:
            scope.set_tags(tags)
            sentry_sdk.capture_exception(error)


def logged(_logger: object, _method: str, line: Any) -> Any:
    """A step in writing a log line: what our own code logs with its traceback is a fault.

    Not what a handler logs: whether that is one, the end of its run says.
    """
    if _on and line.get("exc_info") and "handler" not in line:
        import sys

        error = line["exc_info"] if isinstance(line["exc_info"], BaseException) else sys.exception()
        if error is not None:
            report(error, action=str(line.get("action", "")))
    return line


def dead(error: str, tags: Mapping[str, str]) -> None:
    """Report a run that is dead, by what is stored of its last failure: a traceback as text, or a sentence."""
    if not _on:
        return
    import sentry_sdk

    last = error.rstrip().rpartition("\n")[2]
    kind, colon, message = last.partition(": ")
    if _KIND.fullmatch(kind) is None:
        kind, message = "DeadRun", last
    found: dict[str, Any] = {"type": kind, "value": message if colon else last}
    if frames := _frames(error):
        found["stacktrace"] = {"frames": frames}
    event: Any = {
        "level": "error",
        "tags": dict(tags),
        "transaction": f"run {tags['handler']}",
        "fingerprint": [tags["handler"], kind],
        "exception": {"values": [found]},
    }
    sentry_sdk.capture_event(event)


def _frames(error: str) -> list[dict[str, Any]]:
    """Of the last traceback in a text, oldest call first, as Sentry has them."""
    return [
        {
            "filename": frame["file"],
            "abs_path": frame["file"],
            "lineno": int(frame["line"]),
            "function": frame["function"],
            "context_line": frame["code"],
        }
        for frame in _FRAME.finditer(error.rpartition(_LAST)[2])
    ]


def _masked(value: Any, mask: Callable[[str], str]) -> Any:
    match value:
        case str():
            return mask(value)
        case dict():
            return {name: _masked(one, mask) for name, one in value.items()}
        case list() | tuple():
            return [_masked(one, mask) for one in value]
    return value
