"""The receiver on a real socket, and what can be sent to it: signed deliveries, and bytes that no client would send."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx
import orjson
import uvicorn
from prometheus_client import REGISTRY
from pydantic import SecretStr
from sqlalchemy import Engine, func, select

from handlers.providers import PROVIDERS
from handlers.testing import SignedRequest, signed_request
from receiver.answers import Message, Receive, Scope, Send
from receiver.gather import Gatherer
from receiver.server import Take, configuration
from receiver.webhooks import Webhooks
from tests.conftest import SECRET
from tests.services import free_port
from workers import database
from workers.app import Runtime
from workers.inbox import Arrival, Outcome
from workers.models import EventRow
from workers.settings import Settings

T = TypeVar("T")
HISAB = PROVIDERS["hisab"]
NOW = 1_780_668_000.0

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the default one reads every certificate of the machine


def delivery(
    number: int = 1,
    *,
    id: str | None = None,  # noqa: A002 - the delivery's
    secret: str = SECRET,
    now: float | None = None,
    forged: bool = False,
) -> SignedRequest:
    """A signed delivery of the event `number`."""
    body = {**HISAB.sample("invoice.paid"), "data": {"id": f"inv_{number}", "total": "12480.00"}}
    return signed_request(HISAB, "invoice.paid", secret, body=body, delivery_id=id, now=now, forged=forged)


def of_bytes(body: bytes, *, id: str | None = None, now: float | None = None) -> SignedRequest:  # noqa: A002 - as above
    """A signed delivery of exactly this body."""
    return signed_request(HISAB, "invoice.paid", SECRET, body=body, delivery_id=id, now=now)


def wire(
    request: SignedRequest,
    *lines: bytes,
    target: bytes = b"/webhooks/shop",
    hosts: Sequence[bytes] = (b"127.0.0.1",),
    without: Sequence[str] = (),
    length: bytes | None = b"",
    body: bytes | None = None,
) -> bytes:
    """The request as bytes; `lines` are further header lines.

    `length` is the Content-Length where it should not be the true one, None for none.
    """
    content = request.body if body is None else body
    head = [b"POST " + target + b" HTTP/1.1"]
    head += [b"Host: " + host for host in hosts]
    head += [f"{name}: {value}".encode() for name, value in request.headers.items() if name not in without]
    if length is not None:
        head.append(b"Content-Length: " + (length or b"%d" % len(content)))
    return b"\r\n".join([*head, *lines, b"", b""]) + content


def chunked(body: bytes, *trailers: bytes) -> bytes:
    """A body as one chunk and the end, with trailer lines."""
    return b"\r\n".join([b"%x" % len(body), body, b"0", *trailers, b"", b""])


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came over the wire; names of headers in lower case."""

    status_code: int
    headers: dict[str, str]
    content: bytes

    def json(self) -> Any:
        return orjson.loads(self.content)


Answer = httpx.Response | Reply


def refused(answer: Answer, status: int, code: str) -> str:
    """Check that the answer is this refusal, in the envelope of all refusals; its message."""
    assert answer.status_code == status, answer.content
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert set(document) == {"success", "error"}
    assert document["success"] is False
    assert set(document["error"]) == {"code", "message"}
    assert document["error"]["code"] == code
    return str(document["error"]["message"])


def accepted(answer: Answer, status: int = 202) -> str:
    """Check that the answer is a success; the event's id."""
    assert answer.status_code == status, answer.content
    document = answer.json()
    assert document["success"] is True
    assert document["data"]["duplicate"] is (status == 200)
    return str(document["data"]["id"])


class Line:
    """A connection to the receiver on which any bytes can be sent."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file: BufferedReader = self._socket.makefile("rb")

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, content: bytes) -> None:
        self._socket.sendall(content)

    def reply(self) -> Reply:
        """The next answer. Raises EOFError where the receiver has closed the connection instead."""
        status = self._file.readline()
        if not status:
            raise EOFError
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return Reply(int(status.split()[1]), headers, self._file.read(int(headers["content-length"])))

    def informed(self) -> int:
        """The status of an interim answer, which has no body."""
        status = self._file.readline()
        assert self._file.readline() == b"\r\n"
        return int(status.split()[1])

    def reset(self) -> None:
        """Leave without a goodbye."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def silent(self, seconds: float) -> bool:
        """Whether no further answer comes in this time."""
        self._socket.settimeout(seconds)
        try:
            return self._file.read(1) == b""
        except (TimeoutError, ConnectionResetError):
            return True

    def cut_off(self, content: bytes) -> bool:
        """Whether the receiver ends the connection before it has read all of this, or soon after."""
        self._socket.settimeout(1.0)
        try:
            self._socket.sendall(content)
            return len(self._socket.recv(1)) <= 1
        except TimeoutError:
            return False
        except OSError:
            return True

    def ended(self) -> bool:
        """Wait until the receiver closes the connection; False when it goes on talking."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True


@dataclass(frozen=True, slots=True)
class Edge:
    """A receiver that runs."""

    port: int
    client: httpx.Client
    server: uvicorn.Server

    def stop(self) -> None:
        """Begin to end it, as a signal does; those who wait are still answered."""
        self.server.should_exit = True

    def post(self, request: SignedRequest, source: str = "shop", **headers: str) -> httpx.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(f"/webhooks/{source}", content=request.body, headers=request.headers | given)

    def line(self) -> Line:
        return Line(self.port)

    def exchange(self, content: bytes) -> Reply:
        """Send these bytes on a connection of their own; the first answer."""
        with self.line() as line:
            line.send(content)
            return line.reply()


class _Server(uvicorn.Server):
    """Ends within milliseconds; the original looks ten times a second whether it should, and waits as long again."""

    async def main_loop(self) -> None:
        while not self.should_exit:
            await asyncio.sleep(0.005)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while self.server_state.tasks or any(_busy(connection) for connection in self.server_state.connections):
            await asyncio.sleep(0.005)
        await self.lifespan.shutdown()


def _busy(connection: Any) -> bool:
    return connection.cycle is not None and not connection.cycle.response_complete


@contextmanager
def serving(
    app: Callable[..., Any], *, trusted_proxies: Sequence[str] = (), lifespan: bool = True, take: Take | None = None
) -> Iterator[Edge]:
    """Run the application as `billhook serve` does, in a thread."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = configuration(app, trusted_proxies, take)
    config.lifespan = "on" if lifespan else "off"
    server = _Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    wait_until(lambda: server.started)
    port = listening.getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", verify=_NO_TLS, trust_env=False, timeout=20) as client:
            yield Edge(port, client, server)
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until `condition` holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@contextmanager
def connected(settings: Settings) -> Iterator[Engine]:
    """An engine of its own for the block."""
    engine = database.connect(settings)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def gone(runtime: Runtime, folder: Path) -> Iterator[Runtime]:
    """The runtime with a database that does not answer."""
    settings = runtime.settings
    if settings.embedded_database:
        (folder / "gone" / "billhook.db").mkdir(parents=True)
        settings = settings.model_copy(update={"state_dir": folder / "gone"})
    else:
        url = f"postgresql://postgres:pa55word@127.0.0.1:{free_port()}/billhook"
        settings = settings.model_copy(update={"database_url": SecretStr(url)})
    with connected(settings) as engine:
        yield replace(runtime, settings=settings, engine=engine)


@contextmanager
def held(engine: Engine) -> Iterator[None]:
    """Nobody else can write an event in the block."""
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        yield


def stored(engine: Engine) -> int:
    """How many events there are."""
    with database.read(engine) as connection:
        return connection.execute(select(func.count()).select_from(EventRow)).scalar_one()


def counted(outcome: str, reason: str = "", source: str = "shop") -> float:
    """What the metric of deliveries says."""
    labels = {"source": source, "outcome": outcome, "reason": reason}
    return REGISTRY.get_sample_value("billhook_deliveries_total", labels) or 0.0


class Door:
    """The webhooks alone, in this process: a clock of the test's own, and what they would store, in a list."""

    def __init__(
        self,
        settings: Settings,
        now: float = NOW,
        accept: Callable[[Sequence[Arrival]], list[Outcome]] | None = None,
    ) -> None:
        self.now = now
        self.arrivals: list[Arrival] = []
        self.gatherer = Gatherer(accept or self._accept, lambda _arrivals: None, max_waiting=10)
        self.app = Webhooks(settings, self.gatherer, lambda: self.now)
        self._runner = asyncio.Runner()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run in the one event loop that the gatherer lives in."""
        return self._runner.run(coroutine)

    def close(self) -> None:
        self._runner.run(self.gatherer.close())
        self._runner.close()

    def _accept(self, arrivals: Sequence[Arrival]) -> list[Outcome]:
        self.arrivals += arrivals
        return [Outcome("accepted", arrival.id) for arrival in arrivals]

    async def post(
        self, request: SignedRequest, path: str = "/webhooks/shop", headers: Sequence[tuple[bytes, bytes]] | None = None
    ) -> Reply:
        """Hand a request to the application as the server would."""
        given = [(b"host", b"127.0.0.1"), *request.wire] if headers is None else list(headers)
        scope: Scope = {"type": "http", "method": "POST", "path": path, "headers": given, "client": ("127.0.0.1", 1)}
        return await asgi(self.app, scope, request.body)


async def asgi(app: Callable[[Scope, Receive, Send], Any], scope: Scope, body: bytes) -> Reply:
    """Call an ASGI application with a whole body; its answer."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *rest = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return Reply(start["status"], headers, b"".join(cast(bytes, message["body"]) for message in rest))
