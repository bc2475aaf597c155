"""Commands about the handlers of a user: which there are, and whether they are right. They connect to nothing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from receiver.bodies import escaped
from receiver.cli.options import no_source
from receiver.cli.output import many, show
from receiver.cli.records import Json, quiet
from workers import settings
from workers.settings import Settings

if TYPE_CHECKING:
    from handlers.loading import Loaded
    from handlers.registry import Handler

_COLUMNS = ("handler", "events", "provider", "source", "options", "place")
_NONE = "no handlers are configured: set BILLHOOK_HANDLERS to their modules or files, such as receipts.py"


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    app.command("handlers")(list_handlers)
    app.command()(check)


def list_handlers(
    event: Annotated[str | None, typer.Option(help="Only who gets events of this type, such as invoice.paid.")] = None,
    source: Annotated[str | None, typer.Option(help="Only who gets events of this source.")] = None,
    as_json: Json = False,
) -> None:
    """List who listens to what, how, and where it stands.

    Example: billhook handlers --event invoice.paid
    """
    from handlers.registry import REGISTRY

    configured = settings.load()
    if source is not None and source not in configured.sources:
        raise no_source("--source", source, configured.sources)
    for error in load(configured, configured.handlers).errors:
        raise error
    chosen = [handler for handler in REGISTRY if _gets(handler, event, source, configured)]
    empty = _nobody(event, source) if list(REGISTRY) else _nothing(configured.handlers)
    if as_json:
        show([_as_json(handler) for handler in chosen], (), as_json=True, empty=empty)
    else:
        show([_as_row(handler) for handler in chosen], _COLUMNS, as_json=False, empty=empty)


def check(
    files: Annotated[
        list[str] | None, typer.Argument(help="Files or modules; default: what BILLHOOK_HANDLERS names.")
    ] = None,
) -> None:
    """Check settings and handlers without starting anything.

    Each error is one line with its file and line number, and the exit status is 1.

    Example: billhook check receipts.py
    """
    from handlers.registry import REGISTRY

    configured = settings.load()
    names = files or configured.handlers
    loaded = load(configured, names, installed=not files)
    for error in loaded.errors:
        print(escaped(str(error)), file=sys.stderr)
    if loaded.errors:
        raise typer.Exit(1)
    for line in _warnings(configured, names):
        print(escaped(line), file=sys.stderr)
    print(f"{many(len(list(REGISTRY)), 'handler')} in {many(len(loaded.modules), 'module')}: ok")


def load(configured: Settings, names: Sequence[str], *, installed: bool = True) -> Loaded:
    """Load handlers as a worker does; what their modules print or log is no part of what a command says."""
    from handlers import loading

    quiet(configured)
    sources = {name: source.provider for name, source in configured.sources.items()}
    with contextlib.redirect_stdout(sys.stderr):  # what a module prints is no part of what was asked for
        return loading.load_all(names, sources=sources, installed=installed)


def _gets(handler: Handler, event: str | None, source: str | None, configured: Settings) -> bool:
    """Whether it gets such events, as far as that can be told without one for its `when`."""
    from handlers.vocabulary import INTERNAL, INTERNAL_EVENTS

    if source is None:
        return event is None or handler.hears(event)
    provider = configured.sources[source].provider
    if event is None:  # Billhook's own events name the source of their schedule
        return handler.source in (None, source) and handler.provider in (None, provider, INTERNAL)
    return handler.hears(event, provider=INTERNAL if event in INTERNAL_EVENTS else provider, source=source)


def _nobody(event: str | None, source: str | None) -> str:
    from handlers.vocabulary import everything, misspelt

    near = misspelt(event, everything()) if event is not None else None
    of = f" of {source}" if source is not None else ""
    return f"no handler gets {event or 'events'}{of}" + (f"; did you mean {near}?" if near else "")


def _as_row(handler: Handler) -> dict[str, Any]:
    options = [f"retries={handler.retries}", f"timeout={handler.timeout:g}"]
    if handler.ordered:
        options.append("ordered")
    if handler.concurrency is not None:
        options.append(f"concurrency={handler.concurrency}")
    if handler.when is not None:
        options.append("when")
    return {**_as_json(handler), "options": " ".join(options)}


def _as_json(handler: Handler) -> dict[str, Any]:
    return {
        "handler": handler.name,
        "events": list(handler.patterns),
        "provider": handler.provider,
        "source": handler.source,
        "retries": handler.retries,
        "backoff": handler.backoff,
        "timeout": handler.timeout,
        "ordered": handler.ordered,
        "concurrency": handler.concurrency,
        "when": handler.when is not None,
        "place": str(handler.place) if handler.place else None,
    }


def _nothing(names: Sequence[str]) -> str:
    """What to say where these modules and files registered no handler."""
    if not names:
        return _NONE
    register = "registers" if len(names) == 1 else "register"
    return f'{", ".join(names)} {register} no handler: decorate a function with @on("invoice.paid")'


def _warnings(configured: Settings, names: Sequence[str]) -> Iterator[str]:
    """What is no error, but may not be meant."""
    for variable in settings.unknown_variables():
        yield f"warning: {variable} is set but is no option; it has no effect"
    yield from (f"{place}warning: {doubt}" for place, doubt in doubts(configured, names))
    if not configured.sources:
        yield "warning: no source is configured yet, so no event comes; see BILLHOOK_SOURCES in `billhook settings`"


def doubts(configured: Settings, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What may not be meant about the handlers that are loaded: where (`file:line: `, or nothing), and what."""
    from handlers.registry import REGISTRY
    from handlers.vocabulary import doubts as doubts_of

    if not list(REGISTRY):
        yield "", _nothing(names)
    sources = {name: source.provider for name, source in configured.sources.items()}
    for handler in REGISTRY if sources else ():
        for doubt in doubts_of(handler, sources):
            yield f"{handler.place}: ", doubt
