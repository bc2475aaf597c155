"""A sandbox on a real socket, and an endpoint that its webhooks go to."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import uvicorn
from starlette.applications import Starlette

PATIENCE = 20.0


@dataclass(frozen=True)
class Arrived:
    headers: dict[str, str]
    """Their names in lower case."""
    body: bytes

    @property
    def wire(self) -> list[tuple[bytes, bytes]]:
        return [(name.encode(), value.encode()) for name, value in self.headers.items()]


class Sink:
    """What arrived, in order. Answers come while `answering` is set: the statuses that were put in, then 204."""

    def __init__(self) -> None:
        self.url = ""
        self.arrived: queue.Queue[Arrived] = queue.Queue()
        self.statuses: queue.Queue[int] = queue.Queue()
        self.answering = threading.Event()
        self.answering.set()

    def take(self, count: int) -> list[Arrived]:
        return [self.arrived.get(timeout=PATIENCE) for _ in range(count)]


@contextlib.contextmanager
def receiving() -> Iterator[Sink]:
    sink = Sink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            sink.arrived.put(Arrived({name.lower(): value for name, value in self.headers.items()}, body))
            sink.answering.wait(PATIENCE)
            try:
                status = sink.statuses.get_nowait()
            except queue.Empty:
                status = 204
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        sink.url = f"http://127.0.0.1:{server.server_port}/webhooks/shop"
        try:
            yield sink
        finally:
            sink.answering.set()
            server.shutdown()
            thread.join(PATIENCE)


@contextlib.contextmanager
def serving(app: Starlette, *, lifespan: Literal["on", "off"] = "on") -> Iterator[str]:
    """The address of the app, served in a thread; stopped abruptly enough that what waits stays unsent."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", lifespan=lifespan, timeout_graceful_shutdown=3)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()
