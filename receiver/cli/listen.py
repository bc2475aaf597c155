"""`billhook listen`: a sink to build against, which verifies each delivery and shows it live."""

from __future__ import annotations

import base64
import json
import logging
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from receiver.bodies import escaped, of_body
from receiver.cli.output import FAILED, WrongUse, console
from receiver.cli.processes import listen as listen_on
from receiver.cli.records import Json

if TYPE_CHECKING:
    from receiver.listen import Delivery, Secret

SECRET = "BILLHOOK_LISTEN_SECRET"  # noqa: S105 - the variable's name
HEADERS = ("content-type", "user-agent")
PREFIXES = ("webhook-", "svix-")
"""The headers that are shown unasked; others may carry what is nobody's business."""

_DELAY = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s|m)?")
_HOST = re.compile(r"[0-9A-Za-z.:-]{1,253}")
_SEPARATORS = re.compile(r"[,\s]+")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}
_VERDICTS = {True: "green", False: "bold red", None: "yellow"}


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    app.command()(listen)


def listen(
    port: Annotated[int, typer.Argument(min=0, max=65535, help="Where it listens; 0: a free port.")] = 8802,
    host: Annotated[str, typer.Option(help="The address it listens on.")] = "127.0.0.1",
    secret: Annotated[
        list[str] | None, typer.Option(envvar=SECRET, help="Verify with it: whsec_… or whpk_…. Repeatable.")
    ] = None,
    secret_file: Annotated[Path | None, typer.Option(help="A file of such secrets, one a line.")] = None,
    answer: Annotated[
        str | None,
        typer.Option(
            help="Status to answer; 503,503,204: in turn, for each message anew. Default: 204, unverified 401."
        ),
    ] = None,
    delay: Annotated[str, typer.Option(help="Wait so long before the answer: 500ms, 2s, 1m.")] = "0s",
    retry_after: Annotated[
        int | None, typer.Option(min=0, help="Seconds of a Retry-After, sent with what is no 2xx.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="Show this header too; * shows every one. Repeatable.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="End after so many; with status 1 if one did not verify.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Be an endpoint to build against: verify and show deliveries.

    Example: billhook listen 8802 --secret whsec_…
    """
    from receiver import listen as sink
    from receiver import server

    secrets = _secrets(secret or (), secret_file)
    answers = sink.Answers(_statuses(answer), _seconds(delay), retry_after)
    if _HOST.fullmatch(host) is None:
        raise WrongUse(f"--host: {host!r} is no address")
    listening = listen_on(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", "another PORT")
    show = Show([*HEADERS, *(name.lower() for name in header or ())], count, as_json=as_json)
    app = sink.create_app(secrets, answers, now=time.time, seen=show.seen, answered=show.answered)
    config = server.configuration(app)
    config.timeout_graceful_shutdown = 1  # who waits for a long --delay is not waited for
    _silence()
    server.serve(config, listening, lambda: _introduce(listening, secrets))
    if show.unwritable is not None:
        raise show.unwritable
    print(f"received {show.came}, refused {show.refused}", file=sys.stderr)
    if count is not None and show.refused:
        raise typer.Exit(FAILED)


class Show:
    """Prints deliveries as they come, and ends the command when enough were answered."""

    def __init__(self, names: Sequence[str], count: int | None, *, as_json: bool) -> None:
        self.came = 0
        self.refused = 0
        self.unwritable: OSError | None = None
        self._answered = 0
        self._names = names
        self._count = count
        self._as_json = as_json
        self._console = console()

    def seen(self, delivery: Delivery) -> None:
        """A delivery came, and is about to be answered."""
        self.came += 1
        self.refused += delivery.verdict.verified is False
        try:
            sys.stdout.write(self._written(delivery))
            sys.stdout.flush()
        except OSError as error:  # not to be answered with 500: it is the end of the command
            self.unwritable = error
            _end()

    def answered(self, _delivery: Delivery) -> None:
        """A delivery was answered."""
        self._answered += 1
        if self._answered == self._count:
            _end()

    def _written(self, delivery: Delivery) -> str:
        if self._as_json:
            return json.dumps(as_object(delivery, self._names)) + "\n"
        with self._console.capture() as capture:  # in colour where the output is a terminal
            self._console.print(as_text(delivery, self._names))
        return capture.get()


def as_object(delivery: Delivery, names: Sequence[str]) -> dict[str, Any]:
    """A delivery for programs. `body` is its text as it came, or None where it is no UTF-8: see `body_base64`."""
    try:
        text, binary = delivery.body.decode(), None
    except UnicodeDecodeError:
        text, binary = None, base64.b64encode(delivery.body).decode()
    return {
        "at": datetime.fromtimestamp(delivery.at, UTC).isoformat(),
        "method": delivery.method,
        "path": delivery.path,
        "id": delivery.id,
        "before": delivery.before,
        "verified": delivery.verdict.verified,
        "reason": delivery.verdict.reason or None,
        "verdict": delivery.verdict.words,
        "headers": dict(_chosen(delivery, names)),
        "body": text,
        "body_base64": binary,
        "answered": delivery.status,
    }


def as_text(delivery: Delivery, names: Sequence[str]) -> Text:
    """A delivery for people. Whatever came with it is shown as characters, and cannot act on the terminal."""
    at = datetime.fromtimestamp(delivery.at, UTC).strftime("%H:%M:%SZ")
    again = f"  came before: {delivery.before}" if delivery.id and delivery.before else ""
    text = Text.assemble(
        (at, "dim"),
        f"  {escaped(delivery.method)} {escaped(delivery.path)}  ",
        (delivery.verdict.words, _VERDICTS[delivery.verdict.verified]),
        (f"  answered {delivery.status}", "dim"),
        (again, "yellow"),
        "\n",
    )
    for name, value in _chosen(delivery, names):
        text.append(f"  {escaped(name)}: ", "dim").append(f"{escaped(value)}\n")
    for piece, colour in of_body(delivery.body):
        text.append(piece, colour)
    return text.append("\n")


def _chosen(delivery: Delivery, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for raw, value in delivery.headers:
        name = raw.decode("latin-1")
        if "*" in names or name in names or name.startswith(PREFIXES):
            yield name, value.decode("latin-1")


def _secrets(given: Sequence[str], file: Path | None) -> tuple[Secret, ...]:
    from receiver.listen import read_secrets

    written = [one for text in given for one in _SEPARATORS.split(text) if one]
    if file is not None:
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise WrongUse(f"--secret-file: cannot read {file}: {getattr(error, 'strerror', 'no text')}") from None
        if not text.strip():
            raise WrongUse(f"--secret-file: {file} is empty")
        written += [one for one in _SEPARATORS.split(text) if one]
    try:
        return read_secrets(written)
    except ValueError as error:
        raise WrongUse(str(error)) from None


def _statuses(written: str | None) -> tuple[int, ...]:
    if written is None:
        return ()
    statuses = [one.strip() for one in written.split(",")]
    for one in statuses:
        if re.fullmatch("[2-5][0-9][0-9]", one) is None:
            raise WrongUse(f"--answer: {one!r} is no status from 200 to 599; write 503, or 503,503,204")
    return tuple(map(int, statuses))


def _seconds(written: str) -> float:
    found = _DELAY.fullmatch(written)
    if found is None:
        raise WrongUse(f"--delay: {written!r} is no time such as 500ms, 2s or 1m")
    return float(found[1]) * _UNITS[found[2]]


def _introduce(listening: socket.socket, secrets: Sequence[Secret]) -> None:
    """Say where it listens, and how to have Billhook send there."""
    host, port = listening.getsockname()[:2]
    address = ip_address(host)
    if address.is_unspecified:
        address = ip_address("127.0.0.1" if address.version == 4 else "::1")
    url = f"http://{address if address.version == 4 else f'[{address}]'}:{port}/"
    network = "127.0.0.0/8" if address.is_loopback and address.version == 4 else str(address)
    known = ", ".join(secret.name for secret in secrets)
    for line in (
        f"listening on {url}; Ctrl-C ends it",
        f"verifying with {known}" if known else f"not verifying: no secret given; see --secret, or set {SECRET}",
        "to have Billhook send here, which its workers need these two settings for as well:",
        f"  BILLHOOK_EGRESS_NETWORKS={network} BILLHOOK_EGRESS_PORTS=* billhook endpoints add {url}",
    ):
        print(line, file=sys.stderr)
    sys.stderr.flush()


def _silence() -> None:
    """uvicorn would tell of a request that was cut off, with a traceback."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


def _end() -> None:
    """End as if told to: what is being answered is answered."""
    signal.raise_signal(signal.SIGTERM)
