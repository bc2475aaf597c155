"""What a sender is answered, and what is stored by then."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import Engine, select
from structlog.testing import capture_logs

from tests.conftest import SECRET
from tests.receiver.conftest import Serve
from tests.receiver.edge import (
    HISAB,
    NOW,
    Door,
    Edge,
    accepted,
    connected,
    counted,
    delivery,
    of_bytes,
    refused,
    stored,
    wait_until,
    wire,
)
from workers import database, inbox
from workers.app import Runtime
from workers.models import AnyRow, EventRow
from workers.settings import Settings, Source


def rows(engine: Engine) -> list[AnyRow]:
    with database.read(engine) as connection:
        return list(connection.execute(select(*EventRow.__table__.columns).order_by(EventRow.id)))


def conflicts(engine: Engine) -> int:
    return sum(row.conflicts for row in rows(engine))


@pytest.fixture
def door() -> Iterator[Door]:
    """The webhooks in this process, at a time of the test's own, with three secrets."""
    secrets = [SECRET, "whsec_the_next_secret_7654321", "sécret-of-last-year"]
    source = Source(provider="hisab", secrets=secrets)
    door = Door(Settings(sources={"shop": source}))
    yield door
    door.close()


# --- stored ---------------------------------------------------------------------------------------


def test_a_delivery_is_stored_as_it_came_before_it_is_answered(edge: Edge, engine: Engine) -> None:
    request = of_bytes(orjson.dumps(HISAB.sample("invoice.paid"), option=orjson.OPT_INDENT_2) + b"\r\n", id="del_1")

    answer = edge.post(request)

    event_id = accepted(answer)
    (row,) = rows(engine)
    assert (row.id, row.source, row.provider, row.type) == (event_id, "shop", "hisab", "invoice.paid")
    assert (row.delivery_id, row.object_kind, row.object_id) == ("del_1", "invoice", "inv_8f3a91")
    assert row.body == request.body
    assert row.body_hash == hashlib.sha256(request.body).digest()
    assert row.status == "waiting"
    assert abs(row.received_at - datetime.now(UTC)) < timedelta(seconds=30)
    assert set(answer.headers) == {"content-type", "content-length"}


def test_of_the_headers_only_a_few_are_kept_and_never_a_signature(edge: Edge, engine: Engine) -> None:
    request = delivery(id="del_1")

    accepted(edge.post(request, authorization="Bearer x", cookie="a=b", user_agent="Hisab-Webhooks/1.0", x_any="1"))

    (row,) = rows(engine)
    assert orjson.loads(row.headers) == {
        "content-type": "application/json",
        "user-agent": "Hisab-Webhooks/1.0",
        "x-webhook-delivery-id": "del_1",
        "x-webhook-event": "invoice.paid",
        "x-webhook-timestamp": request.headers["x-webhook-timestamp"],
    }


def test_the_workers_are_rung_and_the_delivery_is_remembered(edge: Edge, runtime: Runtime) -> None:
    accepted(edge.post(delivery()))

    prefix = runtime.settings.redis_prefix
    wait_until(lambda: runtime.redis.llen(f"{prefix}events") == 1)
    assert len(list(runtime.redis.scan_iter(f"{prefix}seen:*"))) == 1


def test_the_same_delivery_again_is_answered_200_with_the_same_id(edge: Edge, engine: Engine) -> None:
    request = delivery()
    first = accepted(edge.post(request))

    again = [accepted(edge.post(request), 200) for _ in range(3)]

    assert again == [first] * 3
    assert stored(engine) == 1


def test_the_same_body_under_another_id_and_a_fresh_timestamp_is_a_duplicate(edge: Edge, engine: Engine) -> None:
    first = accepted(edge.post(delivery(id="del_1", now=time.time() - 60)))

    again = accepted(edge.post(delivery(id="del_2")), 200)

    assert again == first
    assert stored(engine) == 1


def test_a_known_id_with_another_body_is_a_conflict_that_is_counted(edge: Edge, engine: Engine) -> None:
    event_id = accepted(edge.post(delivery(1, id="del_1")))
    before = counted("conflict")

    with capture_logs() as lines:
        answers = [edge.post(delivery(number, id="del_1")) for number in (2, 3)]

    for answer in answers:
        refused(answer, 409, "CONFLICT")
    assert conflicts(engine) == 2
    assert stored(engine) == 1
    assert counted("conflict") == before + 2
    assert [(line["event_id"], line["log_level"]) for line in lines if line["action"] == "conflict"] == [
        (event_id, "error")
    ] * 2


def test_a_conflict_does_not_change_what_was_stored(edge: Edge, engine: Engine) -> None:
    first = delivery(1, id="del_1")
    event_id = accepted(edge.post(first))

    refused(edge.post(delivery(2, id="del_1")), 409, "CONFLICT")

    assert accepted(edge.post(first), 200) == event_id
    assert rows(engine)[0].body == first.body


def test_fifty_posts_of_one_delivery_at_once_are_one_event(edge: Edge, engine: Engine) -> None:
    content = wire(delivery())
    with ExitStack() as opened:
        lines = [opened.enter_context(edge.line()) for _ in range(50)]
        for line in lines:
            line.send(content)

        replies = [line.reply() for line in lines]

    assert sorted(reply.status_code for reply in replies) == [200] * 49 + [202]
    assert len({reply.json()["data"]["id"] for reply in replies}) == 1
    assert stored(engine) == 1


def test_two_sources_may_send_the_same_delivery(serve: Serve, runtime: Runtime, engine: Engine) -> None:
    source = runtime.settings.sources["shop"]
    edge = serve(runtime, sources={"shop": source, "other-1": source})
    request = delivery()

    one, two = accepted(edge.post(request)), accepted(edge.post(request, "other-1"))

    assert one != two
    assert {row.source for row in rows(engine)} == {"shop", "other-1"}


def test_the_content_type_is_not_looked_at(edge: Edge, engine: Engine) -> None:
    for number, content_type in enumerate(
        ["text/plain", "application/json; charset=utf-16", "multipart/form-data", ""]
    ):
        accepted(edge.post(delivery(number), content_type=content_type))

    assert stored(engine) == 4


def test_an_unknown_event_type_is_stored(edge: Edge, engine: Engine) -> None:
    body = orjson.dumps({**HISAB.sample("invoice.paid"), "event": "[plan]/changed!"})

    accepted(edge.post(of_bytes(body)))

    assert rows(engine)[0].type == "[plan]/changed!"


@pytest.mark.parametrize("backend", ["servers"], indirect=True)
@pytest.mark.parametrize("zone", ["Asia/Dubai", "Africa/Casablanca"])
def test_an_event_at_the_end_of_time_is_readable_whatever_zone_the_database_is_in(
    zone: str, serve: Serve, runtime: Runtime
) -> None:
    assert runtime.settings.database_url is not None
    url = f"{runtime.settings.database_url.get_secret_value()}?options=-c%20timezone%3D{zone}"
    end = delivery().body.replace(b"2026-06-05T14:00:00Z", b"9999-12-31T23:59:59Z")
    with connected(runtime.settings.model_copy(update={"database_url": SecretStr(url)})) as engine:
        accepted(serve(replace(runtime, engine=engine)).post(of_bytes(end)))

        (row,) = rows(engine)

    assert row.occurred_at == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


# --- refused: nothing is stored -------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_another_method_is_refused(method: str, door: Door) -> None:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door.app), trust_env=False) as client:
            return await client.request(method, "http://127.0.0.1/webhooks/shop", headers=delivery(now=NOW).headers)

    answer = door.run(ask())

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    if method != "HEAD":
        refused(answer, 405, "METHOD_NOT_ALLOWED")
    assert door.arrivals == []


def test_a_forged_delivery_is_refused(edge: Edge, engine: Engine) -> None:
    before = counted("refused", "bad_signature")

    answer = edge.post(delivery(forged=True))

    refused(answer, 401, "UNAUTHORIZED")
    assert stored(engine) == 0
    assert counted("refused", "bad_signature") == before + 1


@pytest.mark.parametrize("name", ["x-webhook-signature", "x-webhook-timestamp", "x-webhook-delivery-id"])
def test_a_header_that_is_missing_is_named(name: str, door: Door) -> None:
    request = delivery(now=NOW)
    headers = [(b"host", b"h"), *(pair for pair in request.wire if pair[0] != name.encode())]

    answer = door.run(door.post(request, headers=headers))

    assert name in refused(answer, 401, "UNAUTHORIZED").lower()
    assert door.arrivals == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-webhook-signature", value)
        for value in (
            "",
            "v1=",
            "v1",
            "=",
            "v2=" + "0" * 64,
            "v1=" + "0" * 63,
            "v1=" + "0" * 65,
            "v1=" + "g" * 64,
            "v1=" + "٣" * 64,
            "v1=" + "0" * 64 + ", v1=" + "0" * 64,
            "v1=" + "0" * 5000,
        )
    ]
    + [
        ("x-webhook-timestamp", value)
        for value in ("", "-1", "+1", " 1", "1.0", "1e9", "1_0", "NaN", "0x1", "٣", "9" * 14, "9" * 5000)
    ]
    + [("x-webhook-delivery-id", value) for value in ("", "a b", "é", "x" * 201, "del_1\x7f")],
)
def test_a_malformed_header_is_refused(name: str, value: str, door: Door) -> None:
    request = delivery(now=NOW)

    answer = door.run(door.post(replace(request, headers=request.headers | {name: value})))

    refused(answer, 401, "UNAUTHORIZED")
    assert door.arrivals == []


def test_a_changed_body_is_refused(door: Door) -> None:
    request = delivery(now=NOW)
    text = request.body.decode()
    for changed in (text + " ", text.replace(":", ": "), text.replace("inv_1", r"inv_\u0031"), text[1:], ""):
        assert changed != text

        answer = door.run(door.post(replace(request, body=changed.encode())))

        refused(answer, 401, "UNAUTHORIZED")
    assert door.arrivals == []


@pytest.mark.parametrize("secret", [SECRET, "whsec_the_next_secret_7654321", "sécret-of-last-year"])
def test_every_secret_of_a_source_is_tried(secret: str, door: Door) -> None:
    accepted(door.run(door.post(delivery(secret=secret, now=NOW))))


@pytest.mark.parametrize("secret", ["whsec_", "whsec_test_secret_key_12345", "WHSEC_TEST_SECRET_KEY_123456", " "])
def test_no_other_secret_serves(secret: str, door: Door) -> None:
    refused(door.run(door.post(delivery(secret=secret, now=NOW))), 401, "UNAUTHORIZED")


@pytest.mark.parametrize("seconds", [-300, -1, 0, 299, 300])
def test_a_timestamp_within_five_minutes_is_fresh(seconds: int, door: Door) -> None:
    accepted(door.run(door.post(delivery(now=NOW + seconds))))


@pytest.mark.parametrize("seconds", [-NOW, -86_400, -301, 301, 86_400, NOW * 999])
def test_an_older_or_newer_timestamp_is_refused(seconds: float, door: Door) -> None:
    answer = door.run(door.post(delivery(now=NOW + seconds)))

    assert "300 seconds" in refused(answer, 401, "UNAUTHORIZED")
    assert door.arrivals == []


def test_a_stale_delivery_is_refused_on_the_wire_too(edge: Edge, engine: Engine) -> None:
    for now in (time.time() - 310, time.time() + 310):
        refused(edge.post(delivery(now=now)), 401, "UNAUTHORIZED")

    assert stored(engine) == 0


def test_a_stranger_is_not_told_whether_the_timestamp_was_right(door: Door) -> None:
    now, long_ago = (delivery(now=NOW - seconds, forged=True) for seconds in (0, 1000))

    assert door.run(door.post(now)).content == door.run(door.post(long_ago)).content


HAZARDS = {
    "empty": b"",
    "a BOM": b"\xef\xbb\xbf" + delivery().body,
    "invalid UTF-8": delivery().body.replace(b"inv_1", b"\xff\xfe"),
    "UTF-16": delivery().body.decode().encode("utf-16"),
    "null": b"null",
    "a list": b"[]",
    "a string": b'"invoice.paid"',
    "NaN": delivery().body.replace(b'"12480.00"', b"NaN"),
    "Infinity": delivery().body.replace(b'"12480.00"', b"-Infinity"),
    "nested": delivery().body.replace(b'"12480.00"', b"[" * 10_000 + b"]" * 10_000),
    "nested, unclosed": b'{"a":' * 10_000,
    "a huge integer": delivery().body.replace(b'"12480.00"', b"9" * 1_000_000),
    "a lone surrogate": delivery().body.replace(b"inv_1", rb"\ud800"),
    "a NUL in an id": delivery().body.replace(b"inv_1", rb"a\u0000b"),
    "a NUL in the type": delivery().body.replace(b"invoice.paid", rb"invoice\u0000paid"),
    "bytes after the end": delivery().body + b"\x00",
    "the year 10000": delivery().body.replace(b"2026-06-05T14:00:00Z", b"10000-01-01T00:00:00Z"),
    "no zone": delivery().body.replace(b"14:00:00Z", b"14:00:00"),
    "repeated keys": delivery().body[:-1] + b',"event":"invoice.sent"}',
    "a form": b"event=invoice.paid&data=1",
}


def test_a_verified_body_that_is_no_event_is_refused(edge: Edge, engine: Engine) -> None:
    before = counted("refused", "not_an_event")

    for body in HAZARDS.values():
        refused(edge.post(of_bytes(body)), 400, "VALIDATION_ERROR")

    assert stored(engine) == 0
    assert counted("refused", "not_an_event") == before + len(HAZARDS)


ODD = {
    "a deep body": delivery().body.replace(b'"12480.00"', b"[" * 60 + b"]" * 60),
    "a NUL in the data": delivery().body.replace(b"12480.00", rb"\u0000"),
    "the year 1": delivery().body.replace(b"2026-06-05T14:00:00Z", b"0001-01-01T00:00:00Z"),
    "the year 9999": delivery().body.replace(b"2026-06-05T14:00:00Z", b"9999-12-31T23:59:59.999999Z"),
    "letters of all kinds": delivery().body.replace(b"inv_1", "é—شركة𝄞".encode()),
}


def test_an_odd_body_that_is_an_event_is_stored(edge: Edge, engine: Engine) -> None:
    for body in ODD.values():
        accepted(edge.post(of_bytes(body)))

    assert [row.body for row in rows(engine)] == list(ODD.values())


@pytest.mark.parametrize("path", ["nobody", "shop2", "", "a/b", "shop/", "Shop", "shop%00", "shop%20", "%2e%2e", "%ff"])
def test_an_unknown_source_is_not_found_whatever_its_name(path: str, edge: Edge, engine: Engine) -> None:
    genuine = edge.post(delivery(), path)

    assert path not in refused(genuine, 404, "NOT_FOUND").split()
    assert edge.post(delivery(), "nobody").content == genuine.content
    assert edge.post(delivery(forged=True), path).content == genuine.content
    assert edge.client.post(f"/webhooks/{path}").content == genuine.content
    assert stored(engine) == 0


def test_a_very_long_name_is_not_found(edge: Edge) -> None:
    refused(edge.post(delivery(), "x" * 30_000), 404, "NOT_FOUND")


def test_names_of_sources_that_are_none_do_not_become_labels_of_metrics(edge: Edge) -> None:
    before = counted("refused", "unknown_source", "")

    edge.post(delivery(), "somebody")

    assert counted("refused", "unknown_source", "") == before + 1
    assert "somebody" not in edge.client.get("/metrics").text


def test_a_source_may_be_spelt_in_any_way_that_a_url_may(edge: Edge, engine: Engine) -> None:
    first = accepted(edge.post(delivery()))

    assert accepted(edge.post(delivery(), "%73hop"), 200) == first
    assert accepted(edge.post(delivery(), "shop?attempt=2"), 200) == first


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate", "GZIP", "identity, gzip", "gzip, identity", "x"])
def test_a_compressed_body_is_refused(encoding: str, door: Door) -> None:
    request = delivery(now=NOW)

    answer = door.run(door.post(replace(request, headers=request.headers | {"content-encoding": encoding})))

    refused(answer, 415, "UNSUPPORTED_ENCODING")
    assert door.arrivals == []


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
def test_a_body_that_is_called_uncompressed_is_accepted(encoding: str, door: Door) -> None:
    request = delivery(now=NOW)

    accepted(door.run(door.post(replace(request, headers=request.headers | {"content-encoding": encoding}))))


def test_failing_too_often_is_throttled_without_harm_to_the_genuine(serve: Serve, runtime: Runtime) -> None:
    edge = serve(runtime, failed_verifications=3)
    before = counted("refused", "throttled")

    failed = [edge.post(delivery(forged=True)) for _ in range(5)]

    assert [answer.status_code for answer in failed] == [401] * 3 + [429] * 2
    refused(failed[-1], 429, "RATE_LIMIT_EXCEEDED")
    assert 1 <= int(failed[-1].headers["retry-after"]) <= 60
    assert counted("refused", "throttled") == before + 2
    accepted(edge.post(delivery()))


def test_each_source_and_each_minute_has_its_own_throttle() -> None:
    shop = Source(provider="hisab", secrets=SECRET)
    door = Door(Settings(sources={"shop": shop, "other": shop}, failed_verifications=1))

    async def statuses() -> list[int]:
        forged = delivery(now=NOW, forged=True)
        answers = [await door.post(forged, path) for path in ["/webhooks/shop"] * 2 + ["/webhooks/other"]]
        door.now += 60
        answers.append(await door.post(forged))
        return [answer.status_code for answer in answers]

    assert door.run(statuses()) == [401, 429, 401, 401]
    door.close()


def test_a_forged_forwarded_for_does_not_escape_the_throttle(serve: Serve, runtime: Runtime) -> None:
    edge = serve(runtime, failed_verifications=1)

    answers = [edge.post(delivery(forged=True), x_forwarded_for=f"198.51.100.{n}") for n in range(2)]

    assert [answer.status_code for answer in answers] == [401, 429]


def test_behind_a_trusted_proxy_each_address_has_its_own_throttle(serve: Serve, runtime: Runtime) -> None:
    edge = serve(runtime, trusted_proxies=("127.0.0.1",), failed_verifications=1)
    addresses = ["198.51.100.1", "198.51.100.2", "203.0.113.9, 198.51.100.2"]

    answers = [edge.post(delivery(forged=True), x_forwarded_for=address) for address in addresses]

    assert [answer.status_code for answer in answers] == [401, 401, 429]


def test_no_secret_signature_or_body_is_logged(door: Door) -> None:
    genuine, forged = delivery(now=NOW), delivery(now=NOW, forged=True)
    broken = replace(of_bytes(b'{"total": "12480.00"}'), headers={})
    broken = replace(broken, headers=delivery(now=NOW).headers)

    with capture_logs() as lines:
        for request in (genuine, forged, broken):
            door.run(door.post(request))

    assert [line["action"] for line in lines if line["log_level"] == "warning"] == ["unverified"] * 2
    text = repr(lines)
    for secret in (SECRET, "12480", genuine.headers["x-webhook-signature"], forged.headers["x-webhook-signature"]):
        assert secret not in text


# --- any input ------------------------------------------------------------------------------------

HEADERS = st.lists(
    st.tuples(st.just(b"content-length"), st.integers(min_value=0).map(lambda n: b"%d" % n))
    | st.tuples(
        st.sampled_from(
            [
                b"x-webhook-signature",
                b"x-webhook-timestamp",
                b"x-webhook-delivery-id",
                b"x-webhook-event",
                b"x_webhook_signature",
                b"host",
                b"content-encoding",
                b"content-type",
                b"user-agent",
                b"transfer-encoding",
                b"x-forwarded-for",
            ]
        )
        | st.binary(min_size=1, max_size=20).map(bytes.lower),
        st.binary(max_size=100) | st.integers().map(lambda n: b"%d" % n),
    ).filter(lambda header: header[0] != b"content-length"),  # the server lets no other than the above pass
    max_size=12,
)


@given(headers=HEADERS, body=st.binary(max_size=300), path=st.text(max_size=50), signed=st.booleans())
@examples(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_whatever_is_our_failure(
    door: Door, headers: list[tuple[bytes, bytes]], body: bytes, path: str, signed: bool
) -> None:
    request = of_bytes(body, now=NOW)
    given = [*headers, *([(b"host", b"h"), *request.wire] if signed else [])]

    for asked in (f"/webhooks/{path}", "/webhooks/shop"):
        assert door.run(door.post(request, asked, given)).status_code < 500


ASCII = st.characters(min_codepoint=33, max_codepoint=126)
WORDS = st.text(max_size=20)
PRINTABLE = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=200)


@given(
    event_type=st.text(ASCII, min_size=1, max_size=128),
    object_id=PRINTABLE | st.none(),
    organization=PRINTABLE | st.none(),
    more=st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | WORDS, st.lists, max_leaves=5),
    occurred_at=st.datetimes(timezones=st.timezones()).map(datetime.isoformat),
    delivery_id=st.text(ASCII, min_size=1, max_size=200),
    agent=st.binary(max_size=50),
)
@examples(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_database_takes_every_event_that_parses(
    runtime: Runtime,
    event_type: str,
    object_id: str | None,
    organization: str | None,
    more: object,
    occurred_at: str,
    delivery_id: str,
    agent: bytes,
) -> None:
    data = {"id": object_id, "more": more}
    document = {"event": event_type, "data": data, "organization_id": organization, "created_at": occurred_at}
    body = json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")
    door = Door(runtime.settings, time.time(), lambda arrivals: inbox.accept(runtime.engine, arrivals))
    request = of_bytes(body, id=delivery_id)

    answer = door.run(door.post(request, headers=[(b"host", b"h"), (b"user-agent", agent), *request.wire]))

    door.close()
    assert answer.status_code in {200, 202, 400, 409}
