from __future__ import annotations

import asyncio
import gzip
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from aiohttp import AddrInfoType
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.workers.delivery.authority import LOOPBACK, Authority
from tests.workers.delivery.wire import (
    HERE,
    NOW,
    Behaviour,
    Endpoint,
    drip,
    drip_head,
    endless_header,
    exchange,
    hang_up,
    naming,
    never,
    reset,
    saying,
    sending,
    serving,
    speaking,
    whole,
)
from workers.delivery.egress import Egress
from workers.delivery.exchange import Terms
from workers.delivery.exchange import exchange as deliver
from workers.delivery.sender import MAX_KEPT, MAX_READ, Answer, Request, retry_after
from workers.delivery.wires import Wires

DAY = 86400.0


# What is sent


def test_the_request_carries_our_headers_and_no_others() -> None:
    with serving(saying(whole())) as endpoint, sending() as sender:
        headers = (("content-type", "application/json"), ("webhook-id", "msg_1"))
        sender.send([endpoint.request("/hook?a=1", headers=headers, body=b'{"n":1.50}')])

    request, *lines = endpoint.heads[0].decode().rstrip().split("\r\n")
    assert request == "POST /hook?a=1 HTTP/1.1"
    assert sorted(lines) == [
        "accept-encoding: identity",
        "content-length: 10",
        "content-type: application/json",
        f"host: 127.0.0.1:{endpoint.port}",
        "user-agent: Billhook/9.8",
        "webhook-id: msg_1",
    ]
    assert endpoint.bodies == [b'{"n":1.50}']


def test_an_empty_body_is_sent_with_its_length() -> None:
    with serving(saying(whole())) as endpoint, sending() as sender:
        assert sender.send([endpoint.request(body=b"")])[0].ok
    assert b"content-length: 0\r\n" in endpoint.heads[0]
    assert b"content-type" not in endpoint.heads[0]


@pytest.mark.parametrize(
    "header",
    [
        *(
            ("Host", "evil.example"),
            ("Transfer-Encoding", "chunked"),
            ("content-length", "1"),
            ("Expect", "100-continue"),
        ),
        *(("User-Agent", "x"), ("Accept-Encoding", "gzip"), ("Connection", "upgrade"), ("Proxy-Authorization", "x")),
        *(("x", "a\r\nEvil: b"), ("x", "a\nb"), ("x", "a\x00"), ("x", "é"), ("x y", "a"), ("", "a"), ("x:", "a")),
    ],
)
def test_a_header_that_is_ours_or_not_http_is_not_sent(header: tuple[str, str]) -> None:
    with serving(saying(whole())) as endpoint, sending() as sender:
        (answer,) = sender.send([endpoint.request(headers=(header,))])
    assert (answer.error, answer.refused, answer.status) == ("unsendable", True, None)
    assert endpoint.connections == 0


def test_cookies_are_not_sent_back() -> None:
    with serving(saying(whole(b"", "200 OK", "Set-Cookie: a=b"))) as endpoint, sending() as sender:
        sender.send([endpoint.request()])
        sender.send([endpoint.request()])
    assert b"cookie" not in endpoint.heads[1]


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert exchange(saying(whole())).ok


def test_nothing_of_a_request_or_a_body_is_in_a_repr() -> None:
    request = Request("https://example.com/token", (("authorization", "token"),), b"token")
    answer = Answer(status=200, duration_ms=1, body=b"token")
    assert "token" not in repr(request) + repr(answer)


# How an exchange ends


def test_a_2xx_is_a_delivery() -> None:
    answer = exchange(saying(whole(b"thanks", "201 Created")))
    assert (answer.ok, answer.status, answer.body, answer.error, answer.detail) == (True, 201, b"thanks", None, "")
    assert 0 <= answer.duration_ms < 5000


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "410 Gone", "500 Oops", "503 Later", "999 Odd"])
def test_any_other_status_is_a_verdict_but_no_delivery(status: str) -> None:
    answer = exchange(saying(whole(b"why", status)))
    assert (answer.ok, answer.status, answer.body, answer.error) == (False, int(status[:3]), b"why", None)
    assert answer.detail == f"the endpoint answered {status[:3]}"


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 Other", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize("location", ["/elsewhere", "http://127.0.0.1:9/", "http://[", "http://host:port/", "\\"])
def test_a_redirect_is_not_followed(status: str, location: str) -> None:
    with serving(saying(whole(b"", status, f"Location: {location}"))) as endpoint, sending() as sender:
        (answer,) = sender.send([endpoint.request()])
    assert (answer.ok, answer.status, len(endpoint.heads)) == (False, int(status[:3]), 1)


def test_a_reason_phrase_need_not_be_utf_8() -> None:
    assert exchange(saying(b"HTTP/1.1 200 Tr\xe8s bien\r\nContent-Length: 0\r\n\r\n")).ok


def test_a_large_body_is_read_to_the_cap_and_its_beginning_kept() -> None:
    with serving(saying(whole(b"x" * 10_000_000))) as endpoint, sending() as sender:
        (answer,) = sender.send([endpoint.request()])
        assert endpoint.gone.wait(30)  # closed by us: the server never gets rid of the rest
    assert (answer.ok, answer.body) == (True, b"x" * MAX_KEPT)


def test_a_body_below_the_cap_keeps_the_connection() -> None:
    with serving(saying(whole(b"x" * (MAX_READ - 1)))) as endpoint, sending() as sender:
        assert sender.send([endpoint.request()])[0].ok
        assert sender.send([endpoint.request()])[0].ok
    assert endpoint.connections == 1


def test_a_compressed_body_is_not_inflated() -> None:
    bomb = gzip.compress(bytes(50_000_000))[:MAX_KEPT]
    answer = exchange(saying(whole(bomb, "200 OK", "Content-Encoding: gzip")))
    assert answer.body == bomb


def test_a_body_is_kept_byte_for_byte() -> None:
    answer = exchange(saying(b"HTTP/1.1 200 OK\r\n\r\n\x00\xff\x00", then_close=True))
    assert (answer.ok, answer.body) == (True, b"\x00\xff\x00")


@pytest.mark.parametrize("behave", [never, drip, drip_head])
def test_the_deadline_is_for_the_whole_exchange(behave: Behaviour) -> None:
    answer = exchange(behave, deadline=0.3)
    assert (answer.status, answer.ok, answer.error) == (None, False, "timeout")
    assert answer.detail == "no complete answer within 0.3 seconds"
    assert answer.duration_ms >= 290


def test_what_was_heard_before_the_deadline_is_kept() -> None:
    answer = exchange(drip, deadline=0.3)
    assert answer.body.startswith(b"xx")
    assert answer.retry_after == 7


@pytest.mark.parametrize(
    "behave",
    [
        hang_up,
        reset,
        saying(b"HTTP/1.1 200 OK\r\nX: cut", then_close=True),
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", then_close=True),
        saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ncut", then_close=True),
    ],
)
def test_an_answer_that_breaks_off_is_none(behave: Behaviour) -> None:
    with serving(behave) as endpoint, sending() as sender:
        (answer,) = sender.send([endpoint.request()])
    assert (answer.status, answer.ok, answer.error) == (None, False, "disconnected")
    assert len(endpoint.heads) == 1  # a fresh connection: not sent again


@pytest.mark.parametrize(
    "raw",
    [
        b"hello\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 5000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_not_http_is_no_answer(raw: bytes) -> None:
    answer = exchange(saying(raw))
    assert (answer.status, answer.error, answer.detail) == (None, "protocol", "the answer is not valid HTTP")


def test_an_endless_header_is_cut_off() -> None:
    assert exchange(endless_header).error == "protocol"


TOO_LARGE = whole(b"too large", "413 Too Large", "Connection: close")


def test_an_answer_before_the_request_was_read_counts() -> None:
    answered = threading.Event()

    def speak(connection: socket.socket) -> None:
        connection.sendall(TOO_LARGE)
        answered.wait(5)

    with sending() as sender, speaking(speak) as port:
        (answer,) = sender.send([Request(f"http://127.0.0.1:{port}/", (), b"x" * 1_000_000)])
        answered.set()
    assert (answer.status, answer.body) == (413, b"too large")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no TCP_USER_TIMEOUT")
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
def test_a_server_that_never_reads_does_not_hold_a_socket() -> None:
    done = threading.Event()

    def speak(connection: socket.socket) -> None:
        connection.sendall(TOO_LARGE)
        done.wait(20)

    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    with serving(saying(whole())) as other, sending(deadline=0.5) as sender, speaking(speak) as port:
        assert sender.send([other.request()])[0].ok
        before = open_files()
        (answer,) = sender.send([Request(f"http://127.0.0.1:{port}/", (), b"x" * 20_000_000)])
        assert answer.status == 413
        until = time.monotonic() + 10
        while open_files() > before + 1 and time.monotonic() < until:  # one more: the server's end
            assert sender.send([other.request()])[0].ok
        held = open_files() - before
        done.set()
    assert held == 1


def test_a_closed_port_is_no_connection() -> None:
    with socket.socket() as taken, sending() as sender:
        taken.bind(("127.0.0.1", 0))  # bound but not listening
        (answer,) = sender.send([Request(f"http://127.0.0.1:{taken.getsockname()[1]}/secret", (), b"")])
    assert (answer.error, answer.detail) == ("connect", "no connection: connection refused")


def test_an_unknown_name_is_a_failed_lookup() -> None:
    async def lookup(host: str, port: int, family: socket.AddressFamily) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    with sending(lookup=lookup) as sender:
        (answer,) = sender.send([Request("https://nowhere.test/secret", (), b"")])
    assert (answer.error, answer.refused) == ("dns", False)
    assert answer.detail == "the endpoint's name does not resolve"


@pytest.mark.parametrize(("connect", "deadline", "limit"), [(0.2, 5.0, "connection"), (5.0, 0.2, "complete answer")])
def test_a_name_that_takes_too_long_is_a_timeout(connect: float, deadline: float, limit: str) -> None:
    async def lookup(host: str, port: int, family: socket.AddressFamily) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    with sending(lookup=lookup, connect=connect, deadline=deadline) as sender:
        (answer,) = sender.send([Request("https://slow.test/", (), b"")])
    assert (answer.error, answer.detail) == ("timeout", f"no {limit} within 0.2 seconds")


def test_a_handshake_that_takes_too_long_is_a_timeout() -> None:
    done = threading.Event()

    def speak(connection: socket.socket) -> None:
        done.wait(5)

    with sending(connect=0.2) as sender, speaking(speak) as port:
        (answer,) = sender.send([Request(f"https://127.0.0.1:{port}/", (), b"")])
        done.set()
    assert (answer.error, answer.detail) == ("timeout", "no connection within 0.2 seconds")


def test_a_surprise_is_an_answer_too() -> None:
    async def lookup(host: str, port: int, family: socket.AddressFamily) -> Sequence[str]:
        raise ZeroDivisionError("a secret")

    with sending(lookup=lookup) as sender:
        (answer,) = sender.send([Request("https://nowhere.test/", (), b"")])
    assert (answer.error, answer.detail) == ("unexpected", "an unexpected ZeroDivisionError")


# Where it may not go


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::1]", "localhost"),
        *("0177.0.0.1", "0x7f.1", "0x7f000001", "2130706433", "127.1", "①②⑦.0.0.1", "127。0。0。1", "127.0.0.1."),
        *("user@127.0.0.1", "%31%32%37.0.0.1", "[::1%25lo]"),
    ],
)
def test_no_spelling_of_loopback_is_connected_to(host: str) -> None:
    with serving(saying(whole())) as endpoint, sending(egress=Egress(ports=None)) as sender:
        (answer,) = sender.send([endpoint.request(host=host)])
    assert (answer.error, answer.refused, answer.ok) == ("refused", True, False)
    assert endpoint.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "0x7f.1", "2130706433", "localhost"])
def test_the_address_is_refused_even_if_the_url_were_not_checked(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.delivery.exchange.check_url", lambda url, egress: None)
    with serving(saying(whole())) as endpoint, sending(egress=Egress(ports=None)) as sender:
        (answer,) = sender.send([endpoint.request(host=host)])
    assert not answer.ok
    assert endpoint.connections == 0


def test_a_name_that_turns_to_loopback_is_refused() -> None:
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])

    async def lookup(host: str, port: int, family: socket.AddressFamily) -> Sequence[str]:
        return next(answers)

    with serving(saying(whole(), then_close=True)) as endpoint, sending(lookup=lookup) as sender:
        first = sender.send([endpoint.request(host="rebind.test")])[0]
        second = sender.send([endpoint.request(host="rebind.test")])[0]
    assert first.ok
    assert (second.error, second.detail) == ("refused", "deliveries to metadata addresses are refused")


def test_a_name_with_one_bad_address_is_refused() -> None:
    with serving(saying(whole())) as endpoint, sending(lookup=naming(mixed=["127.0.0.1", "224.0.0.1"])) as sender:
        (answer,) = sender.send([endpoint.request(host="mixed.test")])
    assert answer.refused
    assert endpoint.connections == 0


def test_the_name_stays_in_host_while_the_connection_goes_to_the_checked_address() -> None:
    with serving(saying(whole())) as endpoint, sending(lookup=naming(customer=["127.0.0.1"])) as sender:
        assert sender.send([endpoint.request(host="customer.test")])[0].ok
    assert f"host: customer.test:{endpoint.port}\r\n".encode() in endpoint.heads[0]


# TLS


@dataclass(frozen=True)
class Certificates:
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    """A certificate for customer.test and 127.0.0.1, and a client that believes who issued it."""
    authority = Authority("somebody")
    return Certificates(
        authority.server("customer.test", LOOPBACK), ssl.create_default_context(cadata=authority.certificate)
    )


def test_the_name_is_what_tls_asks_for_and_checks(certificates: Certificates) -> None:
    asked: list[str | None] = []

    def note(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        asked.append(name)

    certificates.server.sni_callback = note
    lookup = naming(customer=["127.0.0.1"], other=["127.0.0.1"])
    server = serving(saying(whole()), certificates.server)
    with server as endpoint, sending(tls=certificates.client, lookup=lookup) as sender:
        hosts = ("customer.test", "other.test", "127.0.0.1")
        right, wrong, numeric = sender.send([endpoint.request(host=host, scheme="https") for host in hosts])
    assert sorted(asked, key=str) == [None, "customer.test", "other.test"]
    assert right.ok
    assert numeric.ok
    assert (wrong.error, wrong.status) == ("tls", None)
    assert "Hostname mismatch" in wrong.detail


def test_an_untrusted_certificate_is_no_connection(certificates: Certificates) -> None:
    with serving(saying(whole()), certificates.server) as endpoint, sending() as sender:
        (answer,) = sender.send([endpoint.request("/secret", scheme="https")])
    assert (answer.error, answer.detail) == ("tls", "no secure connection: unable to get local issuer certificate")
    assert endpoint.heads == []


def test_a_server_without_tls_is_no_secure_connection() -> None:
    def speak(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        connection.recv(4096)

    with speaking(speak) as port, sending() as sender:
        (answer,) = sender.send([Request(f"https://127.0.0.1:{port}/", (), b"")])
    assert (answer.error, answer.detail) == ("tls", "no secure connection: wrong version number")


def test_a_hang_up_during_the_handshake_is_no_connection() -> None:
    with speaking(lambda connection: None) as port, sending() as sender:
        (answer,) = sender.send([Request(f"https://127.0.0.1:{port}/", (), b"")])
    assert answer.error == "connect"


# Connections


def test_connections_are_kept_between_sends() -> None:
    with serving(saying(whole())) as endpoint, sending() as sender:
        for _ in range(5):
            assert sender.send([endpoint.request()])[0].ok
    assert (endpoint.connections, len(endpoint.heads)) == (1, 5)


@pytest.mark.parametrize("secure", [False, True])
def test_a_connection_closed_while_idle_is_not_used_again(secure: bool, certificates: Certificates) -> None:
    certificates.server.sni_callback = None
    tls = certificates.server if secure else None
    with serving(saying(whole(), then_close=True), tls) as endpoint, sending(tls=certificates.client) as sender:
        for count in range(1, 4):
            endpoint.gone.clear()
            assert sender.send([endpoint.request(scheme="https" if secure else "http")])[0].ok
            assert endpoint.gone.wait(30)
            assert (endpoint.connections, len(endpoint.heads)) == (count, count)


@pytest.mark.parametrize("end", [hang_up, reset])
def test_a_kept_connection_that_closes_on_the_request_is_replaced_once(end: Behaviour) -> None:
    async def behave(writer: asyncio.StreamWriter, endpoint: Endpoint) -> None:
        if len(endpoint.heads) == 2:
            await end(writer, endpoint)
        else:
            await saying(whole())(writer, endpoint)

    with serving(behave) as endpoint, sending() as sender:
        assert sender.send([endpoint.request()])[0].ok
        assert sender.send([endpoint.request()])[0].ok
    assert (endpoint.connections, len(endpoint.heads)) == (2, 3)


def test_a_server_that_keeps_hanging_up_is_asked_twice_at_most() -> None:
    async def behave(writer: asyncio.StreamWriter, endpoint: Endpoint) -> None:
        if len(endpoint.heads) == 1:
            await saying(whole())(writer, endpoint)
        else:
            await hang_up(writer, endpoint)

    with serving(behave) as endpoint, sending() as sender:
        assert sender.send([endpoint.request()])[0].ok
        assert sender.send([endpoint.request()])[0].error == "disconnected"
    assert len(endpoint.heads) == 3


def test_exchanges_go_on_together_without_a_bound() -> None:
    busy = 0
    full = asyncio.Event()

    async def behave(writer: asyncio.StreamWriter, endpoint: Endpoint) -> None:
        nonlocal busy
        busy += 1
        if busy == 150:
            full.set()
        await full.wait()  # nobody is answered before all are there
        await saying(whole())(writer, endpoint)

    with serving(behave) as endpoint, sending() as sender:
        answers = sender.send([endpoint.request() for _ in range(150)])
    assert [answer.status for answer in answers] == [200] * 150


def test_answers_come_in_the_order_of_the_requests() -> None:
    async def echo(writer: asyncio.StreamWriter, endpoint: Endpoint) -> None:
        body = endpoint.bodies[-1]
        await asyncio.sleep(0.02 if body == b"0" else 0)
        writer.write(whole(body))

    with serving(echo) as endpoint, sending() as sender:
        answers = sender.send([endpoint.request(body=str(n).encode()) for n in range(5)])
    assert [answer.body for answer in answers] == [b"0", b"1", b"2", b"3", b"4"]


def test_one_failure_leaves_the_others_alone() -> None:
    with serving(saying(whole())) as good, serving(hang_up) as bad, sending() as sender:
        answers = sender.send([good.request(), bad.request(), Request("nonsense", (), b""), good.request()])
    assert [answer.error for answer in answers] == [None, "disconnected", "refused", None]


def test_nothing_to_send_opens_nothing() -> None:
    with sending() as sender:
        assert sender.send([]) == []
        assert sender._engine is None


def test_a_closed_sender_opens_again() -> None:
    with serving(saying(whole())) as endpoint, sending() as sender:
        assert sender.send([endpoint.request()])[0].ok
        sender.close()
        sender.close()
        assert sender.send([endpoint.request()])[0].ok
    assert endpoint.connections == 2


def test_an_interrupted_send_leaves_the_sender_at_work() -> None:
    async def silent_at_first(writer: asyncio.StreamWriter, endpoint: Endpoint) -> None:
        if len(endpoint.heads) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        await saying(whole())(writer, endpoint)

    with serving(silent_at_first) as endpoint, sending() as sender:
        with pytest.raises(KeyboardInterrupt):
            sender.send([endpoint.request()])
        assert sender.send([endpoint.request()])[0].ok
    assert len(endpoint.heads) == 2


FORKING = """
import os, sys
from ipaddress import ip_network
from workers.delivery.egress import Egress
from workers.delivery.sender import Request, Sender

def deliver():
    answer = sender.send([Request(sys.argv[1], (), b"{}")])[0]
    assert answer.ok, answer

sender = Sender(user_agent="Billhook/9.8", egress=Egress((ip_network("127.0.0.0/8"),), None))
deliver()
child = os.fork()
deliver()
deliver()
sender.close()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_child_has_connections_of_its_own() -> None:
    root = str(Path(__file__).parents[3])
    with serving(saying(whole())) as endpoint:
        url = f"http://127.0.0.1:{endpoint.port}/"
        subprocess.run([sys.executable, "-W", "error", "-c", FORKING, url], check=True, cwd=root, timeout=30)
    assert (endpoint.connections, len(endpoint.heads)) == (2, 5)


# Many at once


class Hearing:
    """Takes what has ended, on the sender's thread."""

    def __init__(self) -> None:
        self.calls: list[Mapping[str, Answer]] = []
        self._heard = threading.Condition()

    def ended(self, answers: Mapping[str, Answer]) -> None:
        with self._heard:
            self.calls.append(answers)
            self._heard.notify_all()

    def wait(self, count: int) -> dict[str, Answer]:
        with self._heard:
            assert self._heard.wait_for(lambda: len(self.keys()) >= count, 10)
        return {key: answer for call in self.calls for key, answer in call.items()}

    def keys(self) -> list[str]:
        return [key for call in self.calls for key in call]


def test_what_has_begun_is_answered_by_key_each_once() -> None:
    hearing = Hearing()
    with serving(saying(whole())) as good, serving(hang_up) as bad, sending() as sender:
        sender.begin({"a": good.request(), "b": bad.request()}, hearing.ended)
        sender.begin({"c": good.request(), "d": Request("nonsense", (), b"")}, hearing.ended)
        answers = hearing.wait(4)
    assert {key: answer.error for key, answer in answers.items()} == {
        "a": None,
        "b": "disconnected",
        "c": None,
        "d": "refused",
    }
    assert sorted(hearing.keys()) == ["a", "b", "c", "d"]


def test_beginning_nothing_starts_nothing() -> None:
    with sending() as sender:
        sender.begin({}, Hearing().ended)
        assert sender._engine is None


def test_answers_that_come_together_are_handed_over_together_and_a_slow_one_holds_none() -> None:
    answer_at_last = threading.Event()

    async def behave(writer: asyncio.StreamWriter, endpoint: Endpoint) -> None:
        slow = endpoint.bodies[-1] == b"slow"
        while slow and not answer_at_last.is_set():
            await asyncio.sleep(0.001)
        await saying(whole())(writer, endpoint)

    hearing = Hearing()
    with serving(behave) as endpoint, sending() as sender:
        quick = {str(number): endpoint.request() for number in range(40)}
        sender.begin({"slow": endpoint.request(body=b"slow"), **quick}, hearing.ended)
        answers = hearing.wait(40)
        assert "slow" not in answers
        assert len(hearing.calls) < 40
        answer_at_last.set()
        assert hearing.wait(41)["slow"].ok


def test_a_slow_name_holds_no_other() -> None:
    async def lookup(host: str, port: int, family: socket.AddressFamily) -> Sequence[str]:
        if host == "slow.test":
            await asyncio.Event().wait()
        return ["127.0.0.1"]

    hearing = Hearing()
    with serving(saying(whole())) as endpoint, sending(lookup=lookup, connect=0.5) as sender:
        slow = {f"slow-{number}": endpoint.request(host="slow.test") for number in range(100)}
        sender.begin({**slow, "quick": endpoint.request(host="quick.test")}, hearing.ended)
        assert list(hearing.wait(1)) == ["quick"]
        answers = hearing.wait(101)
    assert {answers[key].error for key in slow} == {"timeout"}


def test_any_thread_may_begin() -> None:
    hearing = Hearing()
    with serving(saying(whole())) as endpoint, sending() as sender:
        threads = [
            threading.Thread(target=sender.begin, args=({str(number): endpoint.request()}, hearing.ended))
            for number in range(20)
        ]
        for thread in threads:
            thread.start()
        assert all(answer.ok for answer in hearing.wait(20).values())
        for thread in threads:
            thread.join()


def test_who_fails_to_take_answers_harms_no_other() -> None:
    def ended(answers: Mapping[str, Answer]) -> None:
        raise ZeroDivisionError

    hearing = Hearing()
    with serving(saying(whole())) as endpoint, sending() as sender, capture_logs() as lines:
        sender.begin({"a": endpoint.request()}, ended)
        sender.begin({"b": endpoint.request()}, hearing.ended)
        assert hearing.wait(1)["b"].ok
    assert [(line["action"], line["count"]) for line in lines] == [("answers_lost", 1)]


def test_closing_cuts_off_what_is_under_way_and_says_so() -> None:
    hearing = Hearing()
    with serving(never) as endpoint, sending() as sender:
        sender.begin({"a": endpoint.request(), "b": endpoint.request()}, hearing.ended)
        while len(endpoint.heads) < 2:
            time.sleep(0.001)
        sender.close()
        assert sorted(hearing.keys()) == ["a", "b"]
        for answer in hearing.wait(2).values():
            assert (answer.status, answer.error, answer.started) == (None, "interrupted", NOW.timestamp())
            assert answer.detail == "the sender stopped before the endpoint had answered"
            assert not answer.refused


def test_closing_at_once_answers_for_what_has_hardly_begun() -> None:
    hearing = Hearing()
    with serving(never) as endpoint, sending() as sender:
        for _ in range(20):
            sender.begin({"a": endpoint.request()}, hearing.ended)
            sender.close()
    assert hearing.keys() == ["a"] * 20
    assert {answer.error for call in hearing.calls for answer in call.values()} == {"interrupted"}


def test_closing_with_patience_lets_what_is_under_way_end() -> None:
    async def behave(writer: asyncio.StreamWriter, endpoint: Endpoint) -> None:
        await asyncio.sleep(0.1)
        await saying(whole())(writer, endpoint)

    hearing = Hearing()
    with serving(behave) as endpoint, serving(never) as silent, sending() as sender:
        sender.begin({"a": endpoint.request()}, hearing.ended)
        sender.close(within=10)
        assert hearing.wait(1)["a"].ok
        sender.begin({"b": endpoint.request(), "c": silent.request()}, hearing.ended)
        sender.close(within=0.3)
        answers = hearing.wait(3)
    assert (answers["b"].ok, answers["c"].error) == (True, "interrupted")


@pytest.mark.parametrize("secure", [False, True])
def test_cut_off_at_any_moment_an_exchange_leaves_no_socket_open(secure: bool, certificates: Certificates) -> None:
    certificates.server.sni_callback = None
    terms = Terms(user_agent="Billhook/9.8", egress=HERE, deadline=5.0, connect=5.0, now=NOW.timestamp)
    lookup = naming(customer=["127.0.0.1", "127.0.0.2"])

    async def cut_off(request: Request, turns: int) -> bool:
        """Whether the exchange had ended by itself after so many turns of the loop."""
        opened: list[socket.socket] = []
        wires = Wires(egress=HERE, deadline=5.0, connect=5.0, tls=certificates.client, lookup=lookup)
        make = wires._socket

        def note(target: AddrInfoType) -> socket.socket:
            opened.append(make(target))
            return opened[-1]

        wires._socket = note  # type: ignore[method-assign]
        task = asyncio.create_task(deliver(wires, request, terms))
        for _ in range(turns):
            await asyncio.sleep(0)
        ended = task.done()
        task.cancel()
        answer = await asyncio.wait_for(task, 1) if not ended else task.result()
        assert answer.ok or answer.error == "interrupted"
        await wires.close()
        assert [one for one in opened if one.fileno() != -1] == [], f"after {turns} turns"
        return ended

    async def at_every_turn(request: Request) -> None:
        turns = 1
        while not await cut_off(request, turns):
            turns += 1

    with serving(saying(whole()), certificates.server if secure else None) as endpoint:
        asyncio.run(at_every_turn(endpoint.request(host="customer.test", scheme="https" if secure else "http")))


# Retry-After


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 120 ", 120.0),
        ("1.5", 1.5),
        ("-5", 0.0),
        ("86401", DAY),
        ("9" * 5000, DAY),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        ("Sunday, 01-Mar-26 12:01:00 GMT", 60.0),
        (format_datetime(NOW - timedelta(days=400), usegmt=True), 0.0),
        (format_datetime(NOW + timedelta(days=400), usegmt=True), DAY),
        ("Sun, 01 Mar 2026 12:00:30 -0000", 30.0),
        ("", None),
        ("soon", None),
        ("1e3", None),
        ("nan", None),
        ("inf", None),
        ("1_0", None),
        ("٣", None),
        ("Sun, 99 Mar 2026 99:00:30 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_within_a_day(value: str, seconds: float | None) -> None:
    assert retry_after(value, NOW.timestamp()) == seconds


@given(st.text())
def test_any_retry_after_is_nothing_or_within_a_day(value: str) -> None:
    seconds = retry_after(value, NOW.timestamp())
    assert seconds is None or 0 <= seconds <= DAY


def test_the_wish_of_an_endpoint_is_in_the_answer() -> None:
    answer = exchange(saying(whole(b"", "429 Too Many Requests", "Retry-After: 120")))
    assert (answer.status, answer.retry_after) == (429, 120.0)
