"""What tests of delivering are given: a subscriber on a real socket, endpoints, and messages for them."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from typing import Any

from sqlalchemy import select

from tests.workers.given import NOW, rows
from workers import database, ids
from workers.delivery import endpoints
from workers.delivery.deliver import Courier
from workers.delivery.egress import Egress
from workers.delivery.messages import Outgoing, publish
from workers.delivery.sender import Sender
from workers.delivery.specs import EndpointSpec, Rules
from workers.models import AnyRow, Delivery

LEASE = timedelta(seconds=55)
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody; none of this is encrypted, and reading the authorities takes long."""
HERE = Egress(networks=(ip_network("127.0.0.0/8"),), ports=None)
Reply = tuple[int, dict[str, str], bytes]


@dataclass
class Subscriber:
    """A real server: what arrived at it, and what it does then."""

    url: str = ""
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    reply: Callable[[], Reply] = lambda: (204, {}, b"")


@contextmanager
def subscribing() -> Iterator[Subscriber]:
    seen = Subscriber()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            seen.headers.append({name.lower(): value for name, value in self.headers.items()})
            status, headers, body = seen.reply()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # the sender went away, as some tests want

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        seen.url = f"http://127.0.0.1:{server.server_port}/hook?token=t0ken"
        yield seen
        server.shutdown()
        thread.join()


def a_sender(*, egress: Egress = HERE, deadline: float = 20.0, now: Callable[[], float] = time.time) -> Sender:
    return Sender(user_agent="Billhook/test", egress=egress, deadline=deadline, tls=TLS, now=now)


def add(courier: Courier, url: str, **fields: Any) -> tuple[str, str]:
    """An endpoint that wants everything; its id and secret."""
    spec = EndpointSpec(url=url, **fields)
    made = endpoints.add(courier.engine, courier.vault, spec, Rules(HERE, ()), actor="tester", now=NOW)
    assert made.secret is not None
    return made.id, made.secret


def publish_some(courier: Courier, count: int = 1) -> list[str]:
    """Messages for every endpoint there is; the deliveries' ids."""
    outgoing = [Outgoing(ids.new("msg"), None, "receipt.issued", b'{"invoice":"inv_1"}') for _ in range(count)]
    with database.write(courier.engine) as connection:
        publish(connection, outgoing, now=NOW)
        mine = Delivery.message_id.in_([one.id for one in outgoing])
        return list(connection.execute(select(Delivery.id).where(mine).order_by(Delivery.id)).scalars())


def by_endpoint(courier: Courier) -> dict[str, AnyRow]:
    return {row.endpoint_id: row for row in rows(courier.engine, Delivery)}


def answering(status: int, body: bytes = b"", **headers: str) -> Callable[[], Reply]:
    return lambda: (status, {name.replace("_", "-"): value for name, value in headers.items()}, body)
