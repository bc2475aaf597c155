"""HTTP that no well-behaved client sends, over raw sockets: what the server and the receiver refuse together."""

from __future__ import annotations

import select
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace

import orjson
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from handlers.testing import SignedRequest
from receiver import app as receiver_app
from tests.conftest import SECRET, Backend
from tests.receiver.edge import (
    Edge,
    Reply,
    accepted,
    chunked,
    counted,
    delivery,
    of_bytes,
    refused,
    serving,
    stored,
    wait_until,
    wire,
)
from workers import app
from workers.settings import Settings, Source

BODY_LIMIT = 20_000
READ_TIMEOUT = 0.4


@pytest.fixture(scope="module", params=["the short way", "the ordinary way"])
def whole(
    request: pytest.FixtureRequest, _embedded: Backend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Edge, Engine]]:
    """One receiver for this module and each of the ways in it.

    What is asked here is refused before a database would make a difference.
    """
    folder = tmp_path_factory.mktemp("state")
    assert _embedded.sqlite_template is not None
    shutil.copy(_embedded.sqlite_template, folder / "billhook.db")
    settings = Settings(
        state_dir=folder,
        redis_url=SecretStr(_embedded.redis_url),
        redis_prefix=f"billhook-test-{uuid.uuid4().hex[:12]}:",
        sources={"shop": Source(provider="hisab", secrets=(SecretStr(SECRET),))},
        max_body_bytes=BODY_LIMIT,
        read_timeout=READ_TIMEOUT,
    )
    runtime = app.start(settings)
    with pytest.MonkeyPatch.context() as patched:
        # The application tunes the collector of a process of its own; this process is not.
        patched.setattr(receiver_app, "gc", SimpleNamespace(collect=int, freeze=int, set_threshold=lambda *_: None))
        receiver = receiver_app.create_app(runtime)
        with serving(receiver, take=receiver.take if request.param == "the short way" else None) as edge:
            yield edge, runtime.engine
    for key in runtime.redis.scan_iter(f"{settings.redis_prefix}*"):
        runtime.redis.delete(key)
    runtime.redis.close()
    runtime.engine.dispose()


@pytest.fixture
def edge(whole: tuple[Edge, Engine], caplog: pytest.LogCaptureFixture) -> Iterator[Edge]:
    """The receiver, which must go on working and must not trip over what a test sends."""
    edge, _ = whole
    yield edge
    accepted(edge.post(fresh()))
    assert [record for record in caplog.records if record.exc_info or record.levelname == "ERROR"] == []


@pytest.fixture
def engine(whole: tuple[Edge, Engine]) -> Engine:
    return whole[1]


def fresh() -> SignedRequest:
    """A delivery that was never sent before."""
    return delivery(uuid.uuid4().int)


# --- size and time --------------------------------------------------------------------------------


def padded(size: int) -> bytes:
    """An event in a body of exactly this size."""
    body = fresh().body
    return body + b" " * (size - len(body))


def test_a_body_of_the_allowed_size_is_accepted(edge: Edge) -> None:
    accepted(edge.exchange(wire(of_bytes(padded(BODY_LIMIT)))))


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(edge: Edge, engine: Engine) -> None:
    before = stored(engine), counted("refused", "too_large")
    request = of_bytes(padded(BODY_LIMIT + 1))

    with edge.line() as line:
        line.send(wire(request, b"Expect: 100-continue", length=b"%d" % len(request.body), body=b""))
        reply = line.reply()
        ended = line.ended()

    assert str(BODY_LIMIT) in refused(reply, 413, "PAYLOAD_TOO_LARGE")
    assert reply.headers["connection"] == "close"
    assert ended
    assert (stored(engine), counted("refused", "too_large")) == (before[0], before[1] + 1)


def test_a_body_in_chunks_is_refused_when_it_has_become_too_large(edge: Edge, engine: Engine) -> None:
    before = stored(engine)
    request = of_bytes(padded(BODY_LIMIT + 1))
    half = len(request.body) // 2

    with edge.line() as line:
        line.send(wire(request, b"Transfer-Encoding: chunked", length=None, body=b""))
        for part in (request.body[:half], request.body[half:]):
            line.send(b"%x\r\n%b\r\n" % (len(part), part))  # and no end
        reply = line.reply()
        ended = line.ended()

    refused(reply, 413, "PAYLOAD_TOO_LARGE")
    assert ended
    assert stored(engine) == before


def test_who_sends_far_too_much_still_reads_the_answer(edge: Edge) -> None:
    request = of_bytes(b" " * 5_000_000)

    refused(edge.post(request), 413, "PAYLOAD_TOO_LARGE")
    refused(
        edge.client.post("/webhooks/shop", content=iter([request.body]), headers=request.headers),
        413,
        "PAYLOAD_TOO_LARGE",
    )


def test_a_body_in_chunks_is_verified_as_a_whole(edge: Edge, engine: Engine) -> None:
    request = fresh()
    chunks = b"".join(b"1;ext=1\r\n%c\r\n" % byte for byte in request.body) + b"0\r\n\r\n"

    event_id = accepted(edge.exchange(wire(request, b"Transfer-Encoding: chunked", length=None, body=chunks)))

    assert accepted(edge.post(request), 200) == event_id


def test_a_body_that_does_not_come_is_given_up(edge: Edge, engine: Engine) -> None:
    before = stored(engine)
    request = fresh()
    started = time.monotonic()

    with edge.line() as line:
        line.send(wire(request)[:-1])
        reply = line.reply()
        seconds = time.monotonic() - started
        ended = line.ended()

    refused(reply, 408, "REQUEST_TIMEOUT")
    assert reply.headers["connection"] == "close"
    assert ended
    assert seconds > READ_TIMEOUT * 0.9
    assert stored(engine) == before


def test_a_body_that_drips_is_given_up_after_the_same_time(edge: Edge) -> None:
    request = fresh()
    drops = iter(request.body)

    with edge.line() as line:
        line.send(wire(request, body=b"", length=b"%d" % len(request.body)))
        while not select.select([line], (), (), READ_TIMEOUT / 10)[0]:
            line.send(bytes([next(drops)]))
        reply = line.reply()

    # Were each of them given the whole time, all would have come, and been accepted.
    refused(reply, 408, "REQUEST_TIMEOUT")


@pytest.mark.parametrize("framing", ["a length", "chunks"])
def test_a_sender_that_goes_away_leaves_nothing_behind(framing: str, edge: Edge, engine: Engine) -> None:
    before = stored(engine), counted("refused", "disconnected")
    request = fresh()
    half = request.body[: len(request.body) // 2]

    with edge.line() as line:
        if framing == "a length":
            line.send(wire(request, body=half, length=b"%d" % len(request.body)))
        else:
            line.send(wire(request, b"Transfer-Encoding: chunked", length=None, body=chunked(half)[:-5]))

    wait_until(lambda: counted("refused", "disconnected") == before[1] + 1)
    assert stored(engine) == before[0]


def test_a_sender_that_resets_its_connection_leaves_nothing_behind(edge: Edge, engine: Engine) -> None:
    before = stored(engine), counted("refused", "disconnected")

    with edge.line() as line:
        line.send(wire(fresh())[:-1])
        time.sleep(0.05)
        line.reset()

    wait_until(lambda: counted("refused", "disconnected") == before[1] + 1)
    assert stored(engine) == before[0]


def test_a_sender_that_does_not_wait_for_the_answer_has_delivered(edge: Edge, engine: Engine) -> None:
    before = stored(engine)

    with edge.line() as line:
        line.send(wire(fresh()))

    wait_until(lambda: stored(engine) == before + 1)


def test_a_client_that_asks_first_is_told_to_go_on(edge: Edge) -> None:
    request = fresh()

    with edge.line() as line:
        line.send(wire(request, b"Expect: 100-continue", length=b"%d" % len(request.body), body=b""))
        assert line.informed() == 100
        line.send(request.body)
        accepted(line.reply())


# --- headers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"X-Webhook-Signature", b"X-Webhook-Timestamp", b"X-Webhook-Delivery-Id"])
@pytest.mark.parametrize("spelling", [bytes.lower, bytes.upper])
def test_a_header_that_counts_may_stand_only_once(
    name: bytes, spelling: Callable[[bytes], bytes], edge: Edge, engine: Engine
) -> None:
    before = stored(engine), counted("refused", "duplicate_header")
    request = fresh()
    value = request.headers[name.decode().lower()].encode()

    reply = edge.exchange(wire(request, spelling(name) + b": " + value))

    refused(reply, 400, "BAD_REQUEST")
    assert (stored(engine), counted("refused", "duplicate_header")) == (before[0], before[1] + 1)


@pytest.mark.parametrize("name", ["x-webhook-signature", "x-webhook-timestamp"])
def test_two_values_that_a_proxy_joined_do_not_count(name: str, edge: Edge, engine: Engine) -> None:
    before = stored(engine)
    request = fresh()
    value = request.headers[name]

    for joined in (f"{value}, {value}", f"{value},{value}", f"{value}; {value}"):
        reply = edge.exchange(wire(request, f"{name}: {joined}".encode(), without=[name]))

        refused(reply, 401, "UNAUTHORIZED")
    assert stored(engine) == before


@pytest.mark.parametrize("name", ["x-webhook-signature", "x-webhook-timestamp", "x-webhook-delivery-id"])
def test_a_name_with_underscores_is_another_header(name: str, edge: Edge, engine: Engine) -> None:
    before = stored(engine)
    request = fresh()
    other = name.replace("-", "_").encode()

    instead = edge.exchange(wire(request, other + b": " + request.headers[name].encode(), without=[name]))
    refused(instead, 401, "UNAUTHORIZED")
    assert stored(engine) == before

    accepted(edge.exchange(wire(request, other + b": nonsense")))


@pytest.mark.parametrize("name", ["x-webhook-signature", "x-webhook-timestamp", "x-webhook-delivery-id"])
def test_a_trailer_is_no_header(name: str, edge: Edge, engine: Engine) -> None:
    before = stored(engine)
    request = fresh()
    trailer = f"{name}: {request.headers[name]}".encode()

    reply = edge.exchange(
        wire(request, b"Transfer-Encoding: chunked", without=[name], length=None, body=chunked(request.body, trailer))
    )

    assert reply.status_code in {400, 401}
    assert stored(engine) == before


def test_a_trailer_changes_no_header(edge: Edge) -> None:
    request = fresh()

    reply = edge.exchange(
        wire(
            request,
            b"Transfer-Encoding: chunked",
            length=None,
            body=chunked(request.body, b"X-Webhook-Delivery-Id: another"),
        )
    )

    # Ignored or refused as malformed, but not taken for a failed signature.
    assert reply.status_code in {202, 400}


@pytest.mark.parametrize("hosts", [[], [b"a", b"b"], [b"127.0.0.1", b"127.0.0.1"]])
def test_a_request_has_one_host(hosts: list[bytes], edge: Edge, engine: Engine) -> None:
    before = stored(engine)

    reply = edge.exchange(wire(fresh(), hosts=hosts))

    refused(reply, 400, "BAD_REQUEST")
    assert stored(engine) == before


@pytest.mark.parametrize(
    "lines", [[b"X-%d: 1" % n for n in range(200)], [b"X-Large: " + b"x" * 33_000], [b"X: " + b"x" * 900] * 40]
)
def test_too_many_or_too_large_headers_are_refused(lines: list[bytes], edge: Edge, engine: Engine) -> None:
    before = stored(engine), counted("refused", "headers")

    reply = edge.exchange(wire(fresh(), *lines))

    refused(reply, 431, "HEADERS_TOO_LARGE")
    assert reply.headers["connection"] == "close"
    assert (stored(engine), counted("refused", "headers")) == (before[0], before[1] + 1)


def test_many_and_large_headers_are_accepted(edge: Edge) -> None:
    accepted(edge.exchange(wire(fresh(), *[b"X-%d: " % n + b"x" * 300 for n in range(90)])))


def test_headers_without_an_end_are_cut_off(edge: Edge) -> None:
    with edge.line() as line:
        line.send(b"POST /webhooks/shop HTTP/1.1\r\nHost: h\r\nX-Endless: ")

        assert line.cut_off(b"x" * 4_000_000)


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"identity, zstd"])
def test_a_compressed_body_is_refused(encoding: bytes, edge: Edge, engine: Engine) -> None:
    before = stored(engine)

    reply = edge.exchange(wire(fresh(), b"Content-Encoding: " + encoding))

    refused(reply, 415, "UNSUPPORTED_ENCODING")
    assert stored(engine) == before


# --- one request that two parsers would read as two, or the other way round -----------------------

AMBIGUOUS = {
    "a length and chunks": (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "two lengths": (b"Content-Length: %(n)d", b"Content-Length: %(n)d"),
    "two lengths that differ": (b"Content-Length: %(n)d", b"Content-Length: 1"),
    "two lengths in one": (b"Content-Length: %(n)d, %(n)d",),
    "a length with a plus": (b"Content-Length: +%(n)d",),
    "a length with a minus": (b"Content-Length: -%(n)d",),
    "a length in hexadecimal": (b"Content-Length: 0x%(n)x",),
    "a length with a point": (b"Content-Length: %(n)d.0",),
    "an empty length": (b"Content-Length: ",),
    "a length beyond all numbers": (b"Content-Length: " + b"9" * 5000,),
    "a folded header": (b"Content-Length: %(n)d", b"X-Folded: a", b" b"),
    "a folded length": (b"Content-Length:", b" %(n)d"),
    "a NUL in a value": (b"Content-Length: %(n)d", b"X-Nul: a\x00b"),
    "a NUL in a name": (b"Content-Length: %(n)d", b"X-N\x00ul: a"),
    "a bare CR": (b"Content-Length: %(n)d", b"X-Cr: a\rb"),
    "a bare LF": (b"Content-Length: %(n)d", b"X-Lf: a\nX-B: b"),
    "a space before the colon": (b"Content-Length: %(n)d", b"X-Space : a"),
    "a space before the length's colon": (b"Content-Length : %(n)d",),
    "no name": (b"Content-Length: %(n)d", b": a"),
    "no colon": (b"Content-Length: %(n)d", b"X-Nothing"),
    "unknown coding": (b"Transfer-Encoding: xchunked",),
    "a coding after chunks": (b"Transfer-Encoding: chunked, gzip",),
    "chunks twice": (b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
    "an odd chunked": (b"Transfer-Encoding: \x0bchunked",),
}


@pytest.mark.parametrize("lines", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_an_ambiguous_request_is_refused(lines: tuple[bytes, ...], edge: Edge, engine: Engine) -> None:
    before = stored(engine)
    request = fresh()
    filled = [line % {b"n": len(request.body)} if b"%(" in line else line for line in lines]
    body = chunked(request.body) if any(b"chunked" in line for line in lines) else request.body

    with edge.line() as line:
        line.send(wire(request, *filled, length=None, body=body))
        reply = line.reply()
        ended = line.ended()

    assert reply.status_code == 400
    assert ended
    assert stored(engine) == before


CHUNKS = {
    "a size with a sign": b"+%(n)x\r\n%(body)b\r\n0\r\n\r\n",
    "a size with 0x": b"0x%(n)x\r\n%(body)b\r\n0\r\n\r\n",
    "a size that overflows": b"1%(n)016x\r\n%(body)b\r\n0\r\n\r\n",
    "a size that is short": b"1\r\n%(body)b\r\n0\r\n\r\n",
    "no size": b"\r\n%(body)b\r\n0\r\n\r\n",
    "bare line feeds": b"%(n)x\n%(body)b\n0\n\n",
}


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_malformed_chunks_are_refused(chunks: bytes, edge: Edge, engine: Engine) -> None:
    before = stored(engine)
    request = fresh()
    body = chunks % {b"n": len(request.body), b"body": request.body}

    reply = edge.exchange(wire(request, b"Transfer-Encoding: chunked", length=None, body=body))

    assert reply.status_code == 400
    assert stored(engine) == before


@pytest.mark.parametrize(
    "start",
    [
        b"POST /webhooks/\xff HTTP/1.1",
        b"POST /webhooks/a b HTTP/1.1",
        b"POST webhooks/shop HTTP/1.1",
        b"POST  HTTP/1.1",
        b"post /webhooks/shop HTTP/1.1",
        b"BREW /webhooks/shop HTTP/1.1",
        b"CONNECT shop:443 HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"POST /webhooks/shop HTTP/9.9",
        b"POST /webhooks/shop\x00 HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_a_request_line_that_is_none_is_refused(start: bytes, edge: Edge, engine: Engine) -> None:
    before = stored(engine)
    request = fresh()
    content = wire(request).split(b"\r\n", 1)[1]

    reply = edge.exchange(start + b"\r\n" + content)

    assert reply.status_code in {400, 404, 405}
    assert stored(engine) == before


def test_a_target_may_name_the_host(edge: Edge) -> None:
    accepted(edge.exchange(wire(fresh(), target=b"http://127.0.0.1/webhooks/shop")))


# --- several requests on one connection -----------------------------------------------------------


def talk(edge: Edge, content: bytes, count: int) -> list[Reply]:
    with edge.line() as line:
        line.send(content)
        return [line.reply() for _ in range(count)]


def test_a_pipelined_request_is_verified_on_its_own(edge: Edge, engine: Engine) -> None:
    before = stored(engine)
    genuine, forged = fresh(), delivery(uuid.uuid4().int, forged=True)
    unsigned = wire(genuine, without=["x-webhook-signature"])

    replies = talk(edge, wire(genuine) + wire(forged) + unsigned + wire(genuine), 4)

    assert [reply.status_code for reply in replies] == [202, 401, 401, 200]
    assert stored(engine) == before + 1


def test_a_refused_request_does_not_spoil_the_next(edge: Edge) -> None:
    request = fresh()
    twice = wire(request, b"X-Webhook-Delivery-Id: other")
    nowhere = wire(request, target=b"/webhooks/nobody")

    replies = talk(edge, twice + nowhere + wire(request), 3)

    assert [reply.status_code for reply in replies] == [400, 404, 202]


def test_nothing_is_read_after_a_request_that_closes_the_connection(edge: Edge, engine: Engine) -> None:
    before = stored(engine)
    large = of_bytes(b" " * (BODY_LIMIT + 1))

    with edge.line() as line:
        line.send(wire(large) + wire(fresh()))
        refused(line.reply(), 413, "PAYLOAD_TOO_LARGE")
        assert line.ended()

    assert stored(engine) == before


def test_a_body_cannot_hide_a_second_request(edge: Edge, engine: Engine) -> None:
    before = stored(engine)
    hidden = wire(fresh())
    outer = of_bytes(hidden)

    with edge.line() as line:
        line.send(wire(outer))
        refused(line.reply(), 400, "VALIDATION_ERROR")
        line.send(wire(outer, target=b"/webhooks/nobody"))
        refused(line.reply(), 404, "NOT_FOUND")

    assert stored(engine) == before


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"TLS/1.0, HTTP/1.1"])
def test_an_offer_to_upgrade_is_ignored_or_refused_for_what_it_is(upgrade: bytes, edge: Edge) -> None:
    # Java's HTTP client offers HTTP/2 with each request that is not over TLS.
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + upgrade, b"HTTP2-Settings: AAEAAEAAAAIAAAAB")

    reply = edge.exchange(wire(fresh(), *offer))

    if reply.status_code != 202:
        assert "upgrade" in refused(reply, 400, "BAD_REQUEST").lower()
        assert reply.headers["connection"] == "close"


@pytest.mark.parametrize("target", [b"/webhooks/shop", b"/webhooks/nobody", b"/livez", b"/nothing"])
def test_a_body_behind_an_offer_to_upgrade_is_not_a_second_request(target: bytes, edge: Edge) -> None:
    hidden = b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n"
    outer = wire(of_bytes(hidden), b"Connection: Upgrade", b"Upgrade: h2c", target=target)
    head, body = outer[: -len(hidden)], outer[-len(hidden) :]

    with edge.line() as line:
        line.send(head)
        time.sleep(0.05)
        with suppress(ConnectionError):  # it may have been closed on us
            line.send(body)
        reply = line.reply()

        assert reply.status_code in {400, 401, 404, 405}
        assert line.silent(0.2)


def test_http_1_0_is_answered_and_closed(edge: Edge) -> None:
    with edge.line() as line:
        line.send(wire(fresh()).replace(b"HTTP/1.1", b"HTTP/1.0"))
        accepted(line.reply())
        assert line.ended()


def test_a_refusal_is_json_that_names_no_part_of_the_request(edge: Edge) -> None:
    request = fresh()
    reply = edge.exchange(wire(request, b"X-Webhook-Delivery-Id: <script>"))

    text = orjson.dumps(reply.json()).decode()
    assert "script" not in text
    assert request.headers["x-webhook-signature"] not in text
