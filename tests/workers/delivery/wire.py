"""Real servers for the sender to speak to, well-behaved and not, and a sender that may speak to them."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from ipaddress import ip_network
from typing import Any

from workers.delivery import trust
from workers.delivery.egress import Egress, Lookup
from workers.delivery.sender import Answer, Request, Sender

HERE = Egress(networks=(ip_network("127.0.0.0/8"),), ports=None)
"""What lets the sender speak to the servers of these tests."""
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@dataclass
class Endpoint:
    """A small real server on 127.0.0.1, and what it has seen."""

    port: int = 0
    connections: int = 0
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)
    """Set when a connection has ended."""

    def request(self, path: str = "/hook", *, host: str = "127.0.0.1", scheme: str = "http", **rest: Any) -> Request:
        body = rest.pop("body", b"{}")
        return Request(f"{scheme}://{host}:{self.port}{path}", rest.pop("headers", ()), body)


Behaviour = Callable[[asyncio.StreamWriter, Endpoint], Awaitable[None]]


@contextmanager
def serving(behave: Behaviour, tls: ssl.SSLContext | None = None) -> Iterator[Endpoint]:
    """An endpoint that reads each request and then behaves so; its event loop runs in a thread."""
    endpoint = Endpoint()
    ready = threading.Event()
    tasks: set[object] = set()  # asyncio itself forgets a task that waits for nothing but itself

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoint.connections += 1
        tasks.add(asyncio.current_task())
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(int(line[15:]) for line in head.splitlines() if line.startswith(b"content-length:"))
                endpoint.bodies.append(await reader.readexactly(length))
                endpoint.heads.append(head)
                await behave(writer, endpoint)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the sender went away, as many of these tests want, or the test is over
        finally:
            writer.close()
            endpoint.gone.set()

    async def serve() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
        endpoint.port = server.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        server.close()

    stop = asyncio.Event()
    with asyncio.Runner() as runner:
        thread = threading.Thread(target=runner.run, args=(serve(),))
        thread.start()
        ready.wait()
        try:
            yield endpoint
        finally:
            runner.get_loop().call_soon_threadsafe(stop.set)
            thread.join()


@cache
def _usual() -> ssl.SSLContext:
    """What a sender makes of its own accord, made once: reading the authorities takes long."""
    return trust.usual()


@contextmanager
def sending(
    *,
    egress: Egress = HERE,
    deadline: float = 5.0,
    connect: float = 5.0,
    tls: ssl.SSLContext | None = None,
    lookup: Lookup | None = None,
) -> Iterator[Sender]:
    sender = Sender(
        user_agent="Billhook/9.8",
        egress=egress,
        deadline=deadline,
        connect=connect,
        tls=tls or _usual(),
        lookup=lookup,
        now=NOW.timestamp,
    )
    try:
        yield sender
    finally:
        sender.close()


def saying(raw: bytes, *, then_close: bool = False) -> Behaviour:
    """Answers each request with these bytes."""

    async def behave(writer: asyncio.StreamWriter, endpoint: Endpoint) -> None:
        writer.write(raw)
        await writer.drain()
        if then_close:
            writer.close()

    return behave


def whole(body: bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]).encode() + body


async def never(writer: asyncio.StreamWriter, endpoint: Endpoint) -> None:
    await asyncio.Event().wait()


def exchange(behave: Behaviour, *, deadline: float = 5.0) -> Answer:
    with serving(behave) as endpoint, sending(deadline=deadline) as sender:
        return sender.send([endpoint.request()])[0]


def naming(**names: Sequence[str]) -> Lookup:
    """A DNS that knows these names, each under .test."""

    async def lookup(host: str, port: int, family: socket.AddressFamily) -> Sequence[str]:
        return names[host.removesuffix(".test")]

    return lookup


async def drip(writer: asyncio.StreamWriter, endpoint: Endpoint) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nRetry-After: 7\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x")
        await asyncio.sleep(0.02)


async def drip_head(writer: asyncio.StreamWriter, endpoint: Endpoint) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while not writer.is_closing():
        writer.write(b"x")
        await asyncio.sleep(0.02)


async def endless_hints(writer: asyncio.StreamWriter, endpoint: Endpoint) -> None:
    while not writer.is_closing():
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await asyncio.sleep(0.001)


async def endless_header(writer: asyncio.StreamWriter, endpoint: Endpoint) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while not writer.is_closing():
        writer.write(b"x" * 65536)
        await writer.drain()


async def hang_up(writer: asyncio.StreamWriter, endpoint: Endpoint) -> None:
    writer.close()


async def reset(writer: asyncio.StreamWriter, endpoint: Endpoint) -> None:
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


@contextmanager
def speaking(speak: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that does this with its first connection, and does not read it by itself."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                speak(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()
