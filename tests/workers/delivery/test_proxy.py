from __future__ import annotations

import base64
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest

from tests.workers.delivery.authority import Authority
from tests.workers.delivery.wire import Endpoint, saying, sending, serving, whole
from workers.delivery.egress import Egress
from workers.delivery.sender import Request

AUTHORITY = Authority("somebody")


@dataclass
class Proxy:
    """A forward proxy that leads every name to one endpoint, and what it was asked."""

    port: int = 0
    refusal: bytes = b""
    asked: list[str] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)

    def egress(self, *, login: str = "", scheme: str = "http", ports: frozenset[int] | None = None) -> Egress:
        return Egress(ports=ports, proxy=f"{scheme}://{login}localhost:{self.port}")


@contextmanager
def proxying(endpoint: Endpoint, tls: ssl.SSLContext | None = None, refusal: bytes = b"") -> Iterator[Proxy]:
    proxy = Proxy(refusal=refusal)

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                self.lead(tls.wrap_socket(self.request, server_side=True) if tls else self.request)

        def lead(self, client: socket.socket) -> None:
            with client, socket.create_connection(("127.0.0.1", endpoint.port)) as server:
                head = client.recv(65536)
                proxy.heads.append(head)
                proxy.asked.append(head.split(b"\r\n")[0].decode())
                if proxy.refusal:
                    client.sendall(proxy.refusal)
                    return
                if head.startswith(b"CONNECT"):
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    server.sendall(head)
                pass_on(client, server)

    class Server(ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


def pass_on(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes between two connections until one of them ends."""
    while True:
        waiting = [side for side in (one, other) if isinstance(side, ssl.SSLSocket) and side.pending()]
        for side in waiting or select.select([one, other], [], [], 10)[0]:
            data = side.recv(65536)
            if not data:
                return
            (other if side is one else one).sendall(data)


def test_a_name_is_left_to_the_proxy_to_resolve() -> None:
    with (
        serving(saying(whole(b"hello"))) as endpoint,
        proxying(endpoint) as proxy,
        sending(egress=proxy.egress()) as sender,
    ):
        for _ in range(2):
            (answer,) = sender.send([Request("http://customer.test:81/hook?a=1", (), b"{}")])
            assert (answer.ok, answer.body) == (True, b"hello")
    assert proxy.asked == ["POST http://customer.test:81/hook?a=1 HTTP/1.1"]  # and the connection was kept
    assert b"host: customer.test:81\r\n" in endpoint.heads[0].lower()


def test_a_server_behind_the_proxy_must_prove_its_name() -> None:
    with (
        serving(saying(whole()), AUTHORITY.server("customer.test")) as endpoint,
        proxying(endpoint) as proxy,
        sending(egress=proxy.egress()) as sender,
    ):
        requests = [
            Request(f"https://{host}.test/hook", (), b"{}", ca=ca)
            for host, ca in (
                ("customer", AUTHORITY.certificate),
                ("other", AUTHORITY.certificate),
                ("customer", None),
            )
        ]
        right, wrong, unknown = sender.send(requests)
        assert sender.send(requests[:1])[0].ok
    assert right.ok
    assert (wrong.error, unknown.error) == ("tls", "tls")
    assert sorted(proxy.asked) == sorted(
        ["CONNECT customer.test:443 HTTP/1.1"] * 2 + ["CONNECT other.test:443 HTTP/1.1"]
    )
    assert len(endpoint.heads) == 2


def test_an_endpoint_behind_the_proxy_may_ask_who_we_are() -> None:
    server = AUTHORITY.server("customer.test", asks=AUTHORITY.certificate)
    with (
        serving(saying(whole()), server) as endpoint,
        proxying(endpoint) as proxy,
        sending(egress=proxy.egress()) as sender,
    ):
        certificate = AUTHORITY.issue("billhook").both()
        (answer,) = sender.send(
            [Request("https://customer.test/", (), b"{}", ca=AUTHORITY.certificate, certificate=certificate)]
        )
    assert answer.ok


def test_a_proxy_that_speaks_tls_is_checked_by_the_usual_authorities_not_by_the_endpoints() -> None:
    proxys = Authority("the operator's")
    usual = ssl.create_default_context(cadata=proxys.certificate)
    request = Request("https://customer.test/", (), b"{}", ca=AUTHORITY.certificate)
    with serving(saying(whole()), AUTHORITY.server("customer.test")) as endpoint:
        with proxying(endpoint, proxys.server("localhost")) as proxy:
            with sending(egress=proxy.egress(scheme="https"), tls=usual) as sender:
                assert sender.send([request])[0].ok
            with sending(egress=proxy.egress(scheme="https")) as sender:
                assert sender.send([request])[0].error == "tls"
        with proxying(endpoint, AUTHORITY.server("localhost")) as forged:
            with sending(egress=forged.egress(scheme="https"), tls=usual) as sender:
                assert sender.send([request])[0].error == "tls"
            assert forged.asked == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_proxy_is_told_who_we_are_and_the_endpoint_is_not(scheme: str) -> None:
    tls = AUTHORITY.server("customer.test") if scheme == "https" else None
    with (
        serving(saying(whole()), tls) as endpoint,
        proxying(endpoint) as proxy,
        sending(egress=proxy.egress(login="billhook:p%40ss@")) as sender,
    ):
        (answer,) = sender.send([Request(f"{scheme}://customer.test/", (), b"{}", ca=AUTHORITY.certificate)])
    assert answer.ok
    login = b"proxy-authorization: Basic " + base64.b64encode(b"billhook:p@ss")
    assert login.lower() in proxy.heads[0].lower()
    if tls:
        assert b"authorization" not in endpoint.heads[0].lower()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "https://[::ffff:10.0.0.1]/", "http://169.254.169.254/", "http://0x7f.1/"]
)
def test_addresses_and_ports_are_checked_before_the_proxy_is_asked(url: str) -> None:
    with (
        serving(saying(whole())) as endpoint,
        proxying(endpoint) as proxy,
        sending(egress=proxy.egress(ports=frozenset({80, 443}))) as sender,
    ):
        answers = sender.send([Request(url, (), b""), Request("http://customer.test:6379/", (), b"")])
    assert [answer.error for answer in answers] == ["refused", "refused"]
    assert proxy.asked == []


def test_a_proxy_that_refuses_is_not_the_endpoints_fault() -> None:
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    with (
        serving(saying(whole())) as endpoint,
        proxying(endpoint, refusal=refusal) as proxy,
        sending(egress=proxy.egress()) as sender,
    ):
        (answer,) = sender.send([Request("https://customer.test/", (), b"")])
    assert (answer.status, answer.error, answer.detail) == (None, "proxy", "the proxy answered 407")
    assert not answer.refused


@pytest.mark.parametrize("status", [b"403 Forbidden", b"502 Bad Gateway", b"504 Gateway Timeout"])
def test_what_a_proxy_cannot_reach_or_forbids_is_an_attempt_at_the_endpoint(status: bytes) -> None:
    refusal = b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"
    with (
        serving(saying(whole())) as endpoint,
        proxying(endpoint, refusal=refusal) as proxy,
        sending(egress=proxy.egress()) as sender,
    ):
        (answer,) = sender.send([Request("https://customer.test/", (), b"")])
    assert (answer.status, answer.error) == (None, "connect")
    assert answer.detail == f"no connection: the proxy answered {status.split()[0].decode()}"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there_is_not_the_endpoints_fault(scheme: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening
        proxy = f"http://u:pa55word@127.0.0.1:{taken.getsockname()[1]}"
        with sending(egress=Egress(proxy=proxy)) as sender:
            (answer,) = sender.send([Request(f"{scheme}://customer.test/", (), b"")])
    assert (answer.error, answer.detail) == ("proxy", "no connection to the proxy: connection refused")


def test_a_proxy_without_an_address_is_not_the_endpoints_fault() -> None:
    async def lookup(host: str, port: int, family: socket.AddressFamily) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with sending(egress=Egress(proxy="http://proxy.test:3128"), lookup=lookup) as sender:
        (answer,) = sender.send([Request("https://customer.test/", (), b"")])
    assert (answer.error, answer.detail) == ("proxy", "the proxy's name does not resolve")
