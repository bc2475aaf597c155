"""A small HTTP proxy in front of several receivers, as a load balancer is: it passes on to those that are ready."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "host"})


class Proxy(ThreadingHTTPServer):
    """Passes each request to one of the ports, a connection for each; 502 where one breaks off."""

    daemon_threads = True

    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.ports = tuple(ports)
        self.turn = itertools.count()
        self.ready = set(self.ports)
        self._closed = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        threading.Thread(target=self._probe, daemon=True).start()

    def _probe(self) -> None:
        """Ask each again and again whether it is ready."""
        while not self._closed.wait(0.1):
            self.ready = {port for port in self.ports if _is_ready(port)}

    def server_close(self) -> None:
        self._closed.set()
        self.shutdown()
        super().server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def connect(self) -> HTTPConnection | None:
        """A connection to a receiver that is ready; None where none is."""
        ready = sorted(self.ready)
        if not ready:
            return None
        connection = HTTPConnection("127.0.0.1", ready[next(self.turn) % len(ready)], timeout=20)
        connection.connect()
        return connection


def _is_ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        assert isinstance(self.server, Proxy)
        body = self.rfile.read(int(self.headers["content-length"]))
        kept = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        try:
            connection = self.server.connect()
        except OSError:
            self._answer(502, b"it does not listen")
            return
        if connection is None:
            self._answer(503, b"nobody is ready")
            return
        try:
            connection.request("POST", self.path, body, kept)
            response = connection.getresponse()
            self._answer(response.status, response.read())
        except (TimeoutError, OSError):
            self._answer(502, b"it broke off")
        finally:
            connection.close()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        pass
