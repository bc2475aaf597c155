"""The CRM of the customer recipe, as a small server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Crm:
    """The other system: customers by their path; it answers with the next of `statuses`, where there is one."""

    customers: dict[str, Any] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    retry_after: str = "30"
    url: str = ""

    def answer(self, method: str, path: str, body: bytes) -> int:
        self.asked.append(method)
        if self.statuses:
            return self.statuses.pop(0)
        if method == "PUT":
            self.customers[path] = json.loads(body)
            return 200
        return 204 if self.customers.pop(path, None) else 404


@contextmanager
def serving_crm() -> Iterator[Crm]:
    crm = Crm()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(crm.answer(self.command, self.path, body))
            self.send_header("retry-after", crm.retry_after)
            self.end_headers()

        do_DELETE = do_PUT

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        crm.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield crm
        finally:
            server.shutdown()
            thread.join(10)
