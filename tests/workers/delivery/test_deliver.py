from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import orjson
import pytest
from cryptography.fernet import Fernet
from prometheus_client import REGISTRY
from sqlalchemy import select, update
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from tests.services import free_port
from tests.workers.delivery.given import (
    HERE,
    LEASE,
    TLS,
    Reply,
    Subscriber,
    a_sender,
    add,
    answering,
    by_endpoint,
    publish_some,
)
from tests.workers.given import NOW, Clock, change, fill_queue, only, rows, rung
from workers import database, leases
from workers.app import DELIVER, Runtime
from workers.delivery import endpoints, flight, targets
from workers.delivery.deliver import Courier, Prepared, Verdict, request
from workers.delivery.deliver import classify as classified
from workers.delivery.egress import Egress
from workers.delivery.exchange import MAX_KEPT, Answer, Request
from workers.delivery.flight import deliver
from workers.delivery.sender import Sender
from workers.models import Attempt, Delivery, Endpoint, EndpointKey, Message
from workers.retry import DELIVERY_SCHEDULE

# What is sent


def test_a_subscriber_verifies_what_it_gets_with_the_standard_library(courier: Courier, subscriber: Subscriber) -> None:
    _, secret = add(courier, subscriber.url)

    assert deliver(replace(courier, clock=leases.utcnow), publish_some(courier)) == 1

    (headers,), (body,) = subscriber.headers, subscriber.bodies
    document = Webhook(secret).verify(body, headers)
    assert document["type"] == "receipt.issued"
    assert document["data"] == {"invoice": "inv_1"}
    assert headers["webhook-id"] == only(courier.engine, Message).id
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == "Billhook/test"
    assert only(courier.engine, Delivery).status == "succeeded"


def test_the_exact_bytes_are_sent_whatever_they_are(courier: Courier, subscriber: Subscriber) -> None:
    _, secret = add(courier, subscriber.url)
    deliveries = publish_some(courier)
    odd = b'{ "n":\t1.0,\r\n "\xc3\xa9": "\\u0000" }\n'
    change(courier.engine, Message, body=odd)

    deliver(replace(courier, clock=leases.utcnow), deliveries)

    assert subscriber.bodies == [odd]
    Webhook(secret).verify(odd, subscriber.headers[0])


def test_a_message_keeps_its_id_and_gets_a_fresh_timestamp_with_each_attempt(
    courier: Courier, subscriber: Subscriber, clock: Clock
) -> None:
    add(courier, subscriber.url)
    deliveries = publish_some(courier)
    subscriber.reply = answering(500)

    for wait in (5, 300, 1):
        deliver(courier, deliveries)
        clock.turn(wait)

    first, second, third = subscriber.headers
    assert first["webhook-id"] == second["webhook-id"] == third["webhook-id"] == only(courier.engine, Message).id
    stamps = [int(headers["webhook-timestamp"]) - int(NOW.timestamp()) for headers in subscriber.headers]
    assert stamps == [0, 5, 305]
    assert len({headers["webhook-signature"] for headers in subscriber.headers}) == 3
    assert subscriber.bodies[0] == subscriber.bodies[1] == subscriber.bodies[2]


def test_each_endpoint_has_a_signature_of_its_own(courier: Courier, subscriber: Subscriber) -> None:
    secrets = [add(courier, subscriber.url)[1] for _ in range(2)]

    deliver(replace(courier, clock=leases.utcnow), publish_some(courier))

    for secret in secrets:
        good = 0
        for headers, body in zip(subscriber.headers, subscriber.bodies, strict=True):
            try:
                Webhook(secret).verify(body, headers)
                good += 1
            except Exception as error:
                assert "No matching signature" in str(error)  # noqa: PT017 - the other endpoint's
        assert good == 1


# What an answer means


def classify(answer: Answer, attempt: int) -> Verdict:
    return classified(answer, attempt, schedule=DELIVERY_SCHEDULE, chance=0.0)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_success(status: int) -> None:
    assert classify(Answer(status, 1), 1) == Verdict("succeeded")


@pytest.mark.parametrize("status", [301, 302, 304, 307, 400, 401, 404, 408, 409, 413, 429, 500, 502, 503, 504])
def test_anything_else_is_tried_again(status: int) -> None:
    assert classify(Answer(status, 1), 1) == Verdict("waiting", timedelta(seconds=5))
    assert classify(Answer(status, 1), len(DELIVERY_SCHEDULE)) == Verdict("exhausted")


@pytest.mark.parametrize("error", ["dns", "connect", "tls", "timeout", "disconnected", "protocol", "unexpected"])
def test_no_answer_is_tried_again(error: str) -> None:
    answer = Answer(None, 1, error=error, detail="no answer")  # type: ignore[arg-type]

    assert classify(answer, 2) == Verdict("waiting", timedelta(minutes=5))


def test_gone_ends_the_delivery() -> None:
    assert classify(Answer(410, 1), 1) == Verdict("exhausted")


@pytest.mark.parametrize("error", ["refused", "unsendable"])
def test_what_our_own_rules_forbid_is_not_tried_again(error: str) -> None:
    answer = Answer(None, 1, error=error, detail="deliveries to loopback addresses are refused")  # type: ignore[arg-type]

    assert classify(answer, 1) == Verdict("refused")


def test_retry_after_is_a_floor() -> None:
    def wait(retry_after: float, attempt: int = 1) -> timedelta | None:
        return classify(Answer(503, 1, retry_after=retry_after), attempt).wait

    assert wait(3600) == timedelta(hours=1)
    assert wait(1) == timedelta(seconds=5)
    assert wait(60, attempt=3) == timedelta(minutes=30)
    assert wait(10**9) == timedelta(days=1)


def test_every_kind_of_answer_is_recorded_as_it_came(courier: Courier, subscriber: Subscriber, clock: Clock) -> None:
    add(courier, subscriber.url)
    deliveries = publish_some(courier)
    replies = [
        answering(302, b"moved", Location="/elsewhere"),
        answering(404, b"\xff\x00 not text"),
        answering(500, b"x" * (MAX_KEPT + 1)),
        answering(200, b"thanks"),
    ]
    for number, reply in enumerate(replies, start=1):
        subscriber.reply = reply
        clock.now = only(courier.engine, Delivery).next_attempt_at
        deliver(courier, deliveries)
        assert len(subscriber.bodies) == number

    attempts = rows(courier.engine, Attempt)
    found = {attempt.number: (attempt.status, attempt.response, attempt.error) for attempt in attempts}
    assert found == {
        1: (302, b"moved", None),
        2: (404, b"\xff\x00 not text", None),
        3: (500, b"x" * MAX_KEPT, None),
        4: (200, b"thanks", None),
    }
    delivery = only(courier.engine, Delivery)
    assert (delivery.status, delivery.attempts, delivery.ended_at, delivery.ring_at) == (
        "succeeded",
        4,
        clock.now,
        None,
    )
    assert {attempt.delivery_id for attempt in attempts} == {delivery.id}
    assert all(0 <= attempt.duration_ms < 5_000 for attempt in attempts)
    waits = [timedelta(), timedelta(seconds=5), timedelta(seconds=305), timedelta(seconds=2105)]
    assert {attempt.number: attempt.started_at - NOW for attempt in attempts} == dict(enumerate(waits, start=1))


def test_an_answer_that_repeats_the_headers_of_the_endpoint_is_kept_without_them(
    courier: Courier, subscriber: Subscriber
) -> None:
    add(
        courier,
        subscriber.url,
        headers={"authorization": "Bearer gateway-t0ken", "x-key": 'a "quoted" key', "x-n": "1"},
    )
    subscriber.reply = answering(
        403, rb'{"Authorization":"Bearer gateway-t0ken","k":"a \"quoted\" key","n":"1"} gateway-t0ken'
    )

    deliver(courier, publish_some(courier))

    assert only(courier.engine, Attempt).response == b'{"Authorization":"********","k":"********","n":"1"} ********'


@pytest.mark.parametrize("within", [1, 5, 6, 12, 19])
def test_an_answer_that_is_cut_within_such_a_value_is_kept_without_its_beginning(
    within: int, courier: Courier, subscriber: Subscriber
) -> None:
    before = b"." * (MAX_KEPT - within)
    add(courier, subscriber.url, headers={"x-key": "Bearer gateway-t0ken"})
    subscriber.reply = answering(403, before + b"Bearer gateway-t0ken and more")

    deliver(courier, publish_some(courier))

    kept = only(courier.engine, Attempt).response
    assert kept == before + (b"********" if within > 5 else b"Bearer"[:within])


def test_an_answer_that_breaks_off_within_such_a_value_is_kept_without_its_beginning(
    courier: Courier, subscriber: Subscriber
) -> None:
    values = {"x-old": "token1", "x-key": "Bearer token1-verysecret-abcdefgh"}
    add(courier, subscriber.url, headers=values)
    subscriber.reply = answering(403, b"you sent Bearer token1 and Bearer token1-verysecret-ab")

    deliver(courier, publish_some(courier))

    assert only(courier.engine, Attempt).response == b"you sent Bearer ******** and ********"


def test_an_endpoint_that_does_not_answer_is_an_attempt_too(
    courier: Courier, subscriber: Subscriber, clock: Clock
) -> None:
    hung = threading.Event()

    def hang() -> Reply:
        hung.wait(10)
        return 204, {}, b""

    subscriber.reply = hang
    slow, _ = add(courier, subscriber.url)
    closed, _ = add(courier, f"http://127.0.0.1:{free_port()}/")
    impatient = a_sender(deadline=0.2)

    deliver(replace(courier, sender=impatient), publish_some(courier))
    hung.set()
    impatient.close()

    found = by_endpoint(courier)
    errors = {attempt.delivery_id: (attempt.status, attempt.error) for attempt in rows(courier.engine, Attempt)}
    assert errors == {found[slow].id: (None, "timeout"), found[closed].id: (None, "connect")}
    for delivery in found.values():
        assert (delivery.status, delivery.next_attempt_at) == ("waiting", NOW + timedelta(seconds=5))


def test_retry_after_of_a_real_answer_is_waited_for(courier: Courier, subscriber: Subscriber) -> None:
    add(courier, subscriber.url)
    subscriber.reply = answering(429, Retry_After="3600")

    deliver(courier, publish_some(courier))

    delivery = only(courier.engine, Delivery)
    assert delivery.next_attempt_at == delivery.ring_at == NOW + timedelta(hours=1)


def test_jitter_only_lengthens_a_wait(courier: Courier, subscriber: Subscriber) -> None:
    add(courier, subscriber.url)
    subscriber.reply = answering(500)

    deliver(replace(courier, chance=lambda: 0.5), publish_some(courier))

    assert only(courier.engine, Delivery).next_attempt_at == NOW + timedelta(seconds=5.5)


def test_a_delivery_is_exhausted_after_the_whole_schedule(
    courier: Courier, subscriber: Subscriber, clock: Clock
) -> None:
    add(courier, subscriber.url)
    deliveries = publish_some(courier)
    subscriber.reply = answering(500)
    moments: list[timedelta] = []

    while (delivery := only(courier.engine, Delivery)).status == "waiting":
        clock.now = delivery.next_attempt_at - timedelta(milliseconds=1)
        assert deliver(courier, deliveries) == 0
        clock.now = delivery.next_attempt_at
        assert deliver(courier, deliveries) == 1
        moments.append(clock.now - NOW)

    assert [later - earlier for earlier, later in zip([timedelta(), *moments], moments, strict=False)] == list(
        DELIVERY_SCHEDULE
    )
    assert (delivery.status, delivery.attempts, delivery.ring_at) == ("exhausted", 10, None)
    assert len(subscriber.bodies) == len(rows(courier.engine, Attempt)) == 10
    assert only(courier.engine, Endpoint).status == "enabled"
    assert deliver(courier, deliveries) == 0


# Endpoints that get nothing more


def test_after_410_an_endpoint_gets_nothing_more(courier: Courier, subscriber: Subscriber, clock: Clock) -> None:
    add(courier, subscriber.url, concurrency=1)
    deliveries = publish_some(courier, 2)
    subscriber.reply = answering(410)

    deliver(courier, deliveries)

    statuses = sorted((row.status, row.ring_at) for row in rows(courier.engine, Delivery))
    assert statuses == [("cancelled", None), ("exhausted", None)]
    assert len(subscriber.bodies) == 1
    endpoint = only(courier.engine, Endpoint)
    assert (endpoint.status, endpoint.disabled_reason) == ("disabled", "it answered 410 Gone")
    assert publish_some(courier) == []


def test_what_waits_for_a_disabled_endpoint_is_cancelled_and_the_rest_is_sent(
    courier: Courier, subscriber: Subscriber
) -> None:
    good, _ = add(courier, subscriber.url)
    bad, _ = add(courier, subscriber.url)
    deliveries = publish_some(courier)
    with database.write(courier.engine) as connection:
        endpoints.disable(connection, bad, "it kept failing")

    assert deliver(courier, deliveries) == 1

    found = by_endpoint(courier)
    assert (found[good].status, found[bad].status) == ("succeeded", "cancelled")
    assert found[bad].ended_at == NOW
    assert {attempt.delivery_id for attempt in rows(courier.engine, Attempt)} == {found[good].id}


def test_a_forbidden_address_is_refused_for_good_and_said_of_the_endpoint(
    courier: Courier, subscriber: Subscriber
) -> None:
    add(courier, subscriber.url)
    strict = a_sender(egress=Egress(ports=None))

    deliver(replace(courier, sender=strict), publish_some(courier))
    strict.close()

    assert subscriber.bodies == []
    delivery, attempt, endpoint = (only(courier.engine, table) for table in (Delivery, Attempt, Endpoint))
    assert (delivery.status, delivery.attempts, delivery.ring_at) == ("refused", 1, None)
    assert (attempt.status, attempt.error) == (None, "refused")
    assert endpoint.status == "disabled"
    assert endpoint.disabled_reason.startswith("deliveries to loopback addresses are refused")


# Leases


def test_what_is_not_due_ended_or_unknown_is_not_attempted(
    courier: Courier, subscriber: Subscriber, clock: Clock
) -> None:
    add(courier, subscriber.url)
    deliveries = publish_some(courier)
    deliver(courier, deliveries)

    assert deliver(courier, [*deliveries, "dlv_unknown"]) == 0
    assert deliver(courier, []) == 0
    clock.turn(10**7)
    assert deliver(courier, deliveries) == 0
    assert len(subscriber.bodies) == 1


class Dying(Sender):
    """Its process dies when all answers are there and none is recorded."""

    def begin(self, requests: Mapping[str, Request], ended: Callable[[Mapping[str, Answer]], None]) -> None:
        answered = threading.Event()
        super().begin(requests, lambda _: answered.set())
        answered.wait(10)
        raise SystemExit("killed")


def test_a_process_that_dies_before_it_recorded_leaves_the_delivery_to_another(
    courier: Courier, subscriber: Subscriber, clock: Clock
) -> None:
    add(courier, subscriber.url)
    deliveries = publish_some(courier)
    dying = Dying(user_agent="Billhook/test", egress=HERE, tls=TLS)
    with pytest.raises(SystemExit):
        deliver(replace(courier, sender=dying), deliveries)
    dying.close()

    assert deliver(courier, deliveries) == 0
    clock.turn(LEASE.total_seconds())
    assert deliver(courier, deliveries) == 1

    assert len({headers["webhook-id"] for headers in subscriber.headers}) == 1
    delivery = only(courier.engine, Delivery)
    assert (delivery.status, delivery.attempts, delivery.starts) == ("succeeded", 1, 2)
    assert only(courier.engine, Attempt).number == 1


@pytest.mark.parametrize("late", [500, 410])
def test_who_lost_the_lease_records_nothing(courier: Courier, subscriber: Subscriber, clock: Clock, late: int) -> None:
    add(courier, subscriber.url)
    deliveries = publish_some(courier)
    other = replace(courier, sender=a_sender())

    def overtaken() -> Reply:
        if len(subscriber.bodies) == 1:
            clock.turn(LEASE.total_seconds())
            assert deliver(other, deliveries) == 1
            return late, {}, b"late"
        return 200, {}, b"in time"

    subscriber.reply = overtaken
    with capture_logs() as lines:
        deliver(courier, deliveries)
    other.sender.close()

    delivery, attempt = only(courier.engine, Delivery), only(courier.engine, Attempt)
    assert (delivery.status, delivery.attempts) == ("succeeded", 1)
    assert (attempt.number, attempt.response) == (1, b"in time")
    assert only(courier.engine, Endpoint).status == "enabled"
    assert [line["action"] for line in lines] == ["delivery_attempted", "lease_lost"]


def test_processes_that_get_the_same_deliveries_make_each_once(courier: Courier, subscriber: Subscriber) -> None:
    add(courier, subscriber.url)
    deliveries = publish_some(courier, 30)

    def work(turn: int) -> int:
        own = replace(courier, sender=a_sender())
        try:
            return deliver(own, deliveries[turn:] + deliveries[:turn])
        finally:
            own.sender.close()

    with ThreadPoolExecutor(3) as threads:
        made = list(threads.map(work, (0, 10, 20)))

    assert sum(made) == len(subscriber.bodies) == len(rows(courier.engine, Attempt)) == 30
    assert len({headers["webhook-id"] for headers in subscriber.headers}) == 30
    assert {row.status for row in rows(courier.engine, Delivery)} == {"succeeded"}


def test_a_secret_that_cannot_be_read_blocks_no_other_delivery(courier: Courier, subscriber: Subscriber) -> None:
    good, _ = add(courier, subscriber.url)
    lost, _ = add(courier, subscriber.url)
    foreign = Fernet(Fernet.generate_key()).encrypt(b"whsec_" + base64.b64encode(bytes(32)))
    with database.write(courier.engine) as connection:
        connection.execute(update(EndpointKey).where(EndpointKey.endpoint_id == lost).values(secret=foreign))
    deliveries = publish_some(courier)

    with capture_logs() as lines:
        deliver(courier, deliveries)

    found = by_endpoint(courier)
    assert found[good].status == "succeeded"
    assert len(subscriber.bodies) == 1
    # The key may come back with the next deployment: the delivery waits, and not in a busy loop.
    assert (found[lost].status, found[lost].attempts) == ("waiting", 0)
    assert any(lost in str(line) or found[lost].id in str(line) for line in lines)
    assert foreign.decode() not in str(lines)


# Secrets


def test_no_secret_signature_url_or_body_is_logged(
    courier: Courier, subscriber: Subscriber, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    _, secret = add(courier, subscriber.url)
    add(courier, f"http://127.0.0.1:{free_port()}/?token=t0ken")

    with capture_logs() as lines, caplog.at_level(logging.DEBUG):
        deliver(courier, publish_some(courier))

    printed = capfd.readouterr()
    written = str(lines) + caplog.text + printed.out + printed.err
    signatures = [headers["webhook-signature"] for headers in subscriber.headers]
    for hidden in (secret.removeprefix("whsec_"), "t0ken", "inv_1", *signatures):
        assert hidden not in written
    attempted = [line for line in lines if line["action"] == "delivery_attempted"]
    assert sorted(line["outcome"] for line in attempted) == ["succeeded", "waiting"]


def test_no_secret_or_body_is_in_the_repr_of_what_is_sent(courier: Courier) -> None:
    endpoint_id, secret = add(courier, "http://127.0.0.1:9/?token=t0ken")
    publish_some(courier)
    with database.read(courier.engine) as connection:
        row = connection.execute(select(*Delivery.__table__.columns)).one()

        target = targets.look_up(connection, courier.vault, [endpoint_id], defaults=courier.defaults, now=NOW)
        message = connection.execute(select(*Message.__table__.columns)).one()
    prepared = Prepared(row, target[endpoint_id], message)

    for shown in (repr(prepared), repr(request(prepared, 0)), repr(courier)):
        assert secret.removeprefix("whsec_") not in shown
        assert "inv_1" not in shown
        assert "t0ken" not in shown


# The sweep and the tasks


def test_the_sweep_rings_for_what_is_due_until_it_is_taken(
    runtime: Runtime, courier: Courier, subscriber: Subscriber, clock: Clock
) -> None:
    add(courier, subscriber.url)
    (delivery,) = publish_some(courier)
    subscriber.reply = answering(500)
    deliver(courier, [delivery])

    clock.turn(4.9)
    assert flight.sweep(runtime, clock) == 0
    clock.turn(0.1)
    assert [flight.sweep(runtime, clock) for _ in range(2)] == [1, 1]
    assert rung(runtime, "deliveries") == [(DELIVER, [delivery])] * 2
    deliver(courier, [delivery])
    assert flight.sweep(runtime, clock) == 0


def test_the_sweep_rings_once_for_an_endpoint_however_much_is_due_there(
    runtime: Runtime, courier: Courier, clock: Clock
) -> None:
    for _ in range(2):
        add(courier, "http://127.0.0.1:9/")
    publish_some(courier, 30)

    assert flight.sweep(runtime, clock) == 2

    ((task, found),) = rung(runtime, "deliveries")
    assert task == DELIVER
    assert {row.endpoint_id for row in rows(courier.engine, Delivery) if row.id in found} == set(by_endpoint(courier))


def test_the_sweep_rings_for_a_delivery_whose_process_died(runtime: Runtime, courier: Courier, clock: Clock) -> None:
    add(courier, "http://127.0.0.1:9/")
    (delivery,) = publish_some(courier)
    with database.write(courier.engine) as connection:
        leases.claim(connection, Delivery, [delivery], now=clock(), lease=LEASE)

    assert flight.sweep(runtime, clock) == 0
    clock.turn(LEASE.total_seconds())
    assert flight.sweep(runtime, clock) == 1


def test_the_sweep_is_quiet_while_the_queue_is_full(runtime: Runtime, courier: Courier, clock: Clock) -> None:
    add(courier, "http://127.0.0.1:9/")
    publish_some(courier)
    clock.turn(60)
    fill_queue(runtime, "deliveries")

    assert flight.sweep(runtime, clock) == 0
    runtime.redis.delete(f"{runtime.settings.redis_prefix}deliveries")
    assert flight.sweep(runtime, clock) == 1


@pytest.fixture
def own(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Iterator[Courier]:
    """The courier that a worker makes for itself."""
    settings = runtime.settings.model_copy(update={"egress_networks": ("127.0.0.0/8",), "egress_ports": ("*",)})
    monkeypatch.setattr("workers.app._runtimes", [replace(runtime, settings=settings)])
    flight._flight.cache_clear()
    yield flight._flight()._courier
    flight._land()
    flight._flight.cache_clear()


def test_the_task_delivers_with_the_settings_of_its_process(own: Courier, subscriber: Subscriber) -> None:
    _, secret = add(own, subscriber.url)

    flight.deliver_task(publish_some(own))
    flying = flight._flight()
    with flying._stirred:
        assert flying._stirred.wait_for(lambda: flying.attempted == 1, 10)

    assert orjson.loads(subscriber.bodies[0]) == Webhook(secret).verify(subscriber.bodies[0], subscriber.headers[0])
    assert subscriber.headers[0]["user-agent"].startswith("Billhook/")
    assert only(own.engine, Delivery).status == "succeeded"


def test_a_lease_is_longer_than_an_exchange_can_take(runtime: Runtime, own: Courier) -> None:
    assert own.lease >= timedelta(seconds=runtime.settings.delivery_timeout + runtime.settings.lease_grace)


def test_the_sweep_task_sweeps_by_the_real_clock(runtime: Runtime, courier: Courier) -> None:
    add(courier, "http://127.0.0.1:9/")
    deliveries = publish_some(courier)
    change(courier.engine, Delivery, ring_at=leases.utcnow())

    flight.sweep_task()

    assert rung(runtime, "deliveries") == [(DELIVER, deliveries)]


def test_a_proxy_that_is_away_spends_no_attempt_and_does_not_count_against_the_endpoint(
    courier: Courier, subscriber: Subscriber
) -> None:
    add(courier, subscriber.url)
    nowhere = a_sender(egress=replace(HERE, proxy=f"http://127.0.0.1:{free_port()}"))

    deliver(replace(courier, sender=nowhere), publish_some(courier))
    nowhere.close()

    delivery, endpoint = only(courier.engine, Delivery), only(courier.engine, Endpoint)
    assert (delivery.status, delivery.attempts, delivery.again) == ("waiting", 0, False)
    assert delivery.next_attempt_at == delivery.ring_at == NOW + timedelta(seconds=30)
    assert (endpoint.failures, endpoint.held_until) == (0, None)
    assert rows(courier.engine, Attempt) == []


def turns() -> tuple[float, ...]:
    """How often the breaker of an endpoint has opened and closed."""
    counted = (
        REGISTRY.get_sample_value("billhook_endpoint_changes_total", {"change": it}) for it in ("held", "released")
    )
    return tuple(count or 0.0 for count in counted)


def test_it_is_counted_once_that_an_endpoint_is_held_off_and_once_that_it_is_released(
    courier: Courier, clock: Clock, subscriber: Subscriber
) -> None:
    add(courier, subscriber.url)
    opened, closed = turns()
    subscriber.reply = answering(503)

    (delivery,) = publish_some(courier)
    for attempt in range(2):
        deliver(courier, [delivery])
        assert only(courier.engine, Delivery).attempts == attempt + 1
        assert turns() == (opened + 1, closed)
        clock.turn(24 * 3600)
    subscriber.reply = answering(200)
    deliver(courier, [delivery])

    assert only(courier.engine, Delivery).status == "succeeded"
    assert turns() == (opened + 1, closed + 1)
