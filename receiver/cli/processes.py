"""Commands that start processes: serve, work, beat, up; and migrate, which comes before them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from receiver.cli.options import one_of
from receiver.cli.output import CommandError, WrongUse, many
from workers import settings
from workers.settings import Settings

if TYPE_CHECKING:
    from workers.app import Runtime


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    for command in (serve, work, beat, up, migrate, alive):
        app.command()(command)


def _stoppable(status: int = 0) -> None:
    """End well, with this status, when told to before there is anything to bring to an end.

    Until a process has a handler of its own for it, SIGTERM would kill it, and as the first process of a container it
    would not even do that.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(status))


def serve() -> None:
    """Receive deliveries over HTTP."""
    _stoppable()
    from receiver import server
    from receiver.app import create_app
    from workers import observing

    # A paused Redis must not hold an answer: without it deliveries are accepted all the same.
    runtime = _start(answer_within=1.0)
    listening = listen(runtime.settings.listen, "BILLHOOK_LISTEN")
    host, port = listening.getsockname()[:2]
    nobody = _told_to_the_first(runtime) if runtime.settings.management else ""

    def ready() -> None:
        lines = [f"receiving on http://{host}:{port}/webhooks/{{source}}"]
        if not runtime.settings.sources:
            lines.append("no source is configured yet: see BILLHOOK_SOURCES in `billhook settings`")
        if nobody:
            lines.append(nobody)
        # In one piece: whoever reads the first line may end us at once, and would find half of the rest.
        print("\n".join(lines) + "\n", end="", file=sys.stderr, flush=True)

    observing.start(runtime.settings, "serve")
    receiver = create_app(runtime)
    config = server.configuration(receiver, runtime.settings.trusted_proxies, receiver.take)
    server.serve(config, listening, ready, drain=runtime.settings.drain_seconds, draining=receiver.drain)
    observing.stop()


def _told_to_the_first(runtime: Runtime) -> str:
    """How to come in to the console, where nobody can yet."""
    from workers import api_keys, users

    if not (api_keys.there_are_none(runtime.engine) and users.there_are_none(runtime.engine)):
        return ""
    return (
        "nobody can sign in to /console or call /api/v1 yet: `billhook keys create --scopes full` makes the first API "
        "key, `billhook users add NAME` the first user"
    )


Reload = Annotated[
    bool, typer.Option("--reload", help="For development: start the worker anew when a file of the handlers changes.")
]


def work(
    queues: Annotated[
        str,
        one_of("events", "deliveries", "schedules", before="Which queues to work on, with commas: "),
    ] = "events,deliveries,schedules",
    reload: Reload = False,
    supervised: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run handlers, deliver messages, generate invoices.

    Example: billhook work --queues events,deliveries
    """
    _stoppable()
    from receiver.cli import reload as reloading

    if reload:
        command = ["work", "--supervised", "--queues", ",".join(_chosen(queues))]
        sys.exit(reloading.supervise(command, settings.load().handlers))
    if supervised:
        reloading.end_with_parent()
    # Read when the metrics are imported: what the worker's processes count is added up from files in here.
    counted = tempfile.TemporaryDirectory(prefix="billhook-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = counted.name
    from handlers import loading, registry
    from workers import observing, worker
    from workers.vault import open_vault

    chosen = _chosen(queues)
    runtime = _start()
    observing.start_parent(runtime.settings, "work")
    if "deliveries" in chosen:
        open_vault(runtime.settings)  # better refused here than found out by the first message
    sources = {name: source.provider for name, source in runtime.settings.sources.items()}
    modules = loading.load(runtime.settings.handlers, sources=sources)
    _serve_metrics(runtime.settings)
    if not modules:
        print("no handlers are configured: events will be ignored; see BILLHOOK_HANDLERS", file=sys.stderr)
    line = f"working on {', '.join(chosen)} with {many(len(list(registry.REGISTRY)), 'handler')}"
    status = worker.run(runtime, chosen, lambda: print(line, file=sys.stderr, flush=True))
    counted.cleanup()
    sys.exit(status)


def _chosen(queues: str) -> list[str]:
    from workers.app import QUEUES

    chosen = [queue.strip() for queue in queues.split(",")]
    if unknown := [queue for queue in chosen if queue not in QUEUES]:
        raise WrongUse(f"--queues: {unknown[0]!r} is none of {', '.join(QUEUES)}")
    return chosen


def beat(metrics: Annotated[bool, typer.Option(hidden=True)] = True) -> None:
    """Look for what is due, every second.

    Run one; two of them are harmless.
    """
    _stoppable()
    from workers import observing
    from workers.beat import service
    from workers.presence import withdraw

    runtime = _start()
    observing.start_parent(runtime.settings, "beat")
    if metrics and runtime.settings.metrics_listen is not None:
        from prometheus_client import REGISTRY

        from workers import noted
        from workers.gauges import Gauges

        REGISTRY.register(Gauges(runtime.engine))
        REGISTRY.register(noted.of(runtime.settings))
        _serve_metrics(runtime.settings)
    ticking = service(runtime.settings)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ticking.stop())
    print("ticking", file=sys.stderr, flush=True)
    ticking.start()
    withdraw(runtime.redis, runtime.settings.redis_prefix, "beat")


def up(reload: Reload = False) -> None:
    """Run serve, work and beat together, until Ctrl-C.

    Example: billhook up --reload
    """
    from workers import database

    configured = settings.load()
    if configured.embedded_database:
        database.ensure_schema(configured, database.connect(configured))
    # One address for metrics can be one process's only; the worker has the most to tell.
    commands = (["serve"], ["work", *(["--reload"] if reload else [])], ["beat", "--no-metrics"])
    program = [sys.executable, "-P", "-m", "receiver.cli"]
    children = {command[0]: subprocess.Popen([*program, *command]) for command in commands}
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: stopping.append(number))
    ended = None
    while not stopping and ended is None:
        ended = next((name for name, child in children.items() if child.poll() is not None), None)
        time.sleep(0.1)
    for child in children.values():
        if child.poll() is None:
            child.terminate()
    for child in children.values():
        child.wait()
    if ended is not None:
        raise CommandError(f"`billhook {ended}` ended with status {children[ended].returncode}, so all were stopped")


def alive(
    within: Annotated[float, typer.Option(min=1, help="Seconds in which it must have done something.")] = 60.0,
) -> None:
    """Tell whether the worker or beat of this machine does its work.

    For probes: the exit status is 1 if not.
    """
    from workers.alive import silent_for

    silences = {name: silent_for(name) for name in ("work", "beat")}
    known = {name: silence for name, silence in silences.items() if silence is not None}
    if not known:
        raise CommandError("no worker and no beat has begun here")
    name = min(known, key=lambda one: known[one])
    if known[name] > within:
        raise CommandError(f"`billhook {name}` has done nothing for {known[name]:.0f} s")
    print(f"`billhook {name}` did something {known[name]:.0f} s ago")


def migrate() -> None:
    """Bring the database's schema to this version's.

    Safe to run again, and from several machines at once.
    """
    # Not 0: what waits for a migration to have succeeded must not take one that was stopped for that.
    _stoppable(128 + signal.SIGTERM)
    from workers import database, logs

    configured = settings.load()
    logs.configure(configured)
    before, after = database.migrate(database.connect(configured))
    if before != after:
        print(f"migrated the schema: {before or 'none'} -> {after}")
    elif after == database.SCHEMA:
        print(f"the schema is at {after}")
    else:
        print(f"the schema is at {after}, newer than this version's {database.SCHEMA}: nothing to do")


def _start(answer_within: float = 10.0) -> Any:
    from workers import database, logs
    from workers.app import start

    configured = settings.load()
    logs.configure(configured)
    runtime = start(configured, answer_within=answer_within)
    database.ensure_schema(configured, runtime.engine)
    return runtime


def listen(address: str, named: str) -> socket.socket:
    """A socket at host:port. Raises CommandError, which says to set `named`."""
    host, _, port = address.rpartition(":")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=2048)
    except OSError as error:
        raise CommandError(f"cannot listen on {address}: {error.strerror or error}; set {named}") from None


def _serve_metrics(configured: Settings) -> None:
    if configured.metrics_listen is None:
        return
    from prometheus_client import REGISTRY, CollectorRegistry, multiprocess, start_http_server

    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    host, _, port = configured.metrics_listen.rpartition(":")
    try:
        start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise CommandError(
            f"cannot listen on {configured.metrics_listen}: {error.strerror}; set BILLHOOK_METRICS_LISTEN"
        ) from None
