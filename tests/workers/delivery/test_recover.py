from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine, select, update

from tests.workers.delivery.given import Subscriber, add, answering, by_endpoint, publish_some
from tests.workers.given import NOW, Clock, change, only, received, rows, until, waits_for_a_lock
from workers import database, errands, ids, retention
from workers.audit import audit
from workers.delivery import endpoints
from workers.delivery.deliver import Courier
from workers.delivery.deliveries import FAILED
from workers.delivery.endpoints import EndpointError, NoEndpoint
from workers.delivery.errors import DeliveryError
from workers.delivery.flight import deliver
from workers.delivery.line import lines
from workers.delivery.messages import Outgoing, publish
from workers.delivery.recover import Retried, Span, failed, fill, missing, recover, retry
from workers.models import AnyRow, Attempt, AuditEntry, Delivery, Endpoint, EventRow, Message

URL = "https://example.com/"
ALL = Span(NOW - timedelta(days=1))
HOUR = timedelta(hours=1)
servers = pytest.mark.parametrize("backend", ["servers"], indirect=True)  # SQLite has one writer at a time


def ended(engine: Engine, delivery_id: str, *, status: str = "exhausted", at: datetime = NOW) -> str:
    """Have a delivery be as if it had ended so, after two attempts."""
    went = {"attempts": 2, "starts": 2, "again": True, "next_attempt_at": at}
    with database.write(engine) as connection:
        mine = update(Delivery).where(Delivery.id == delivery_id)
        connection.execute(mine.values(status=status, ring_at=None, ended_at=at, **went))
    return delivery_id


def published(courier: Courier, kind: str = "receipt.issued", *, at: datetime = NOW, **fields: object) -> str:
    """A message of then, for whoever wants it; its id."""
    outgoing = Outgoing(ids.new("msg"), None, kind, b"{}", **fields)  # type: ignore[arg-type]
    with database.write(courier.engine) as connection:
        publish(connection, [outgoing], now=at)
    return outgoing.id


def delivery(courier: Courier, delivery_id: str) -> AnyRow:
    (row,) = [row for row in rows(courier.engine, Delivery) if row.id == delivery_id]
    return row


def noted(courier: Courier) -> list[tuple[str, str, dict[str, object]]]:
    """What the audit log tells of deliveries."""
    entries = [(row.actor, row.action, row.detail) for row in rows(courier.engine, AuditEntry)]
    return [entry for entry in entries if entry[1] not in ("endpoint.add", "endpoint.enable", "endpoint.disable")]


def redelivered(kind: str) -> float:
    return REGISTRY.get_sample_value("billhook_redelivered_total", {"kind": kind}) or 0.0


def again(courier: Courier, *delivery_ids: str, succeeded: bool = False) -> Retried:
    return retry(courier.engine, delivery_ids, actor="amal", now=courier.clock(), succeeded=succeeded)


def all_again(courier: Courier, endpoint_id: str, span: Span = ALL) -> int:
    return recover(courier.engine, endpoint_id, span, actor="amal", now=courier.clock())


def filled(courier: Courier, endpoint_id: str, span: Span = ALL, *, forwarded: bool = False) -> int:
    """How many deliveries are missing; they are made."""
    before = missing(courier.engine, endpoint_id, span, forwarded=forwarded)
    made = fill(courier.engine, endpoint_id, span, actor="amal", now=courier.clock(), forwarded=forwarded)
    assert made == before
    return made


# --- some, by their ids ---------------------------------------------------------------------------


def test_an_exhausted_delivery_is_sent_again_under_its_id_with_its_whole_schedule_before_it(
    courier: Courier, subscriber: Subscriber, clock: Clock
) -> None:
    add(courier, subscriber.url, schedule=(0, 5))
    (delivery_id,) = publish_some(courier)
    subscriber.reply = answering(400)
    deliver(courier, [delivery_id])
    clock.turn(5)
    deliver(courier, [delivery_id])
    assert only(courier.engine, Delivery).status == "exhausted"
    clock.turn(3600)

    assert again(courier, delivery_id) == Retried([delivery_id], [])

    row = only(courier.engine, Delivery)
    assert (row.status, row.again, row.attempts, row.prior) == ("waiting", True, 2, 2)
    assert row.next_attempt_at == row.ring_at == clock.now
    assert row.ended_at is None
    assert audit(courier.engine).holds
    deliver(courier, [delivery_id])
    assert only(courier.engine, Delivery).next_attempt_at == clock.now + timedelta(seconds=5)
    subscriber.reply = answering(204)
    clock.turn(5)
    deliver(courier, [delivery_id])
    assert only(courier.engine, Delivery).status == "succeeded"
    assert {headers["webhook-id"] for headers in subscriber.headers} == {only(courier.engine, Delivery).message_id}
    assert sorted(attempt.number for attempt in rows(courier.engine, Attempt)) == [1, 2, 3, 4]


def test_whatever_failed_is_due_now_and_it_is_written_down_and_counted(courier: Courier) -> None:
    add(courier, URL)
    made = sorted(publish_some(courier, len(FAILED)))
    for delivery_id, status in zip(made, FAILED, strict=True):
        ended(courier.engine, delivery_id, status=status)
    before = redelivered("retried")

    assert again(courier, *reversed(made), made[0]) == Retried(made, [])

    assert {row.status for row in rows(courier.engine, Delivery)} == {"waiting"}
    assert noted(courier) == [("amal", "delivery.retry", {"deliveries": made})]
    assert redelivered("retried") == before + len(FAILED)


def test_what_succeeded_is_sent_once_more_only_where_that_is_asked(courier: Courier, subscriber: Subscriber) -> None:
    add(courier, subscriber.url)
    (delivery_id,) = publish_some(courier)
    deliver(courier, [delivery_id])

    with pytest.raises(DeliveryError, match=f"^{delivery_id} succeeded: say --succeeded to send the same message"):
        again(courier, delivery_id)
    assert again(courier, delivery_id, succeeded=True).due == [delivery_id]
    deliver(courier, [delivery_id])

    assert len(subscriber.bodies) == 2
    assert len({headers["webhook-id"] for headers in subscriber.headers}) == 1
    row = only(courier.engine, Delivery)
    assert (row.status, row.attempts, row.prior) == ("succeeded", 2, 1)
    assert audit(courier.engine).holds


def test_what_waits_is_due_now_and_keeps_its_place_in_its_schedule(
    courier: Courier, subscriber: Subscriber, clock: Clock
) -> None:
    add(courier, subscriber.url, schedule=(0, 60, 600))
    (delivery_id,) = publish_some(courier)
    subscriber.reply = answering(400)
    deliver(courier, [delivery_id])

    for _ in range(2):
        assert again(courier, delivery_id).due == [delivery_id]

    row = only(courier.engine, Delivery)
    assert (row.next_attempt_at, row.ring_at, row.prior) == (NOW, NOW, 0)
    assert len(noted(courier)) == 1
    deliver(courier, [delivery_id])
    assert only(courier.engine, Delivery).next_attempt_at == NOW + timedelta(seconds=600)


def test_what_is_under_way_is_left_alone(courier: Courier) -> None:
    add(courier, URL)
    (delivery_id,) = publish_some(courier)
    change(courier.engine, Delivery, status="running", starts=1, fence=1)
    before = only(courier.engine, Delivery)

    assert again(courier, delivery_id) == Retried([], [delivery_id])

    assert only(courier.engine, Delivery) == before
    assert noted(courier) == []


def test_of_several_all_are_sent_again_or_none(courier: Courier) -> None:
    add(courier, URL)
    failed_one = ended(courier.engine, *publish_some(courier))

    with pytest.raises(DeliveryError, match=r"^there is no delivery dlv_1, dlv_2$"):
        again(courier, failed_one, "dlv_2", "dlv_1")

    assert only(courier.engine, Delivery).status == "exhausted"


def test_nothing_is_begun_for_a_disabled_endpoint(courier: Courier) -> None:
    endpoint_id, _ = add(courier, URL)
    failed_one = ended(courier.engine, *publish_some(courier))
    endpoints.switch_off(courier.engine, endpoint_id, "it moved", actor="amal", now=NOW)
    asked: list[Callable[[], object]] = [
        lambda: again(courier, failed_one),
        lambda: failed(courier.engine, endpoint_id, ALL),
        lambda: all_again(courier, endpoint_id),
        lambda: missing(courier.engine, endpoint_id, ALL),
        lambda: fill(courier.engine, endpoint_id, ALL, actor="amal", now=NOW),
    ]

    for one in asked:
        with pytest.raises(EndpointError) as refused:
            one()
        assert str(refused.value) == (f"the endpoint {endpoint_id} is disabled and would get nothing: enable it first")

    assert only(courier.engine, Delivery).status == "exhausted"
    assert noted(courier) == []


def test_an_endpoint_that_is_none_is_said_to_be_none(courier: Courier) -> None:
    for one in (failed, missing):
        with pytest.raises(NoEndpoint, match=r"^there is no endpoint ep_1$"):
            one(courier.engine, "ep_1", ALL)


# --- all that failed at an endpoint ---------------------------------------------------------------


def test_all_that_failed_at_an_endpoint_in_a_span_is_sent_again_once(courier: Courier) -> None:
    endpoint_id, _ = add(courier, URL)
    made = publish_some(courier, 7)
    add(courier, URL)
    (elsewhere,) = [row.id for row in publish_and_find(courier) if row.endpoint_id != endpoint_id]
    for delivery_id, status in zip(made, (*FAILED, "succeeded", "waiting"), strict=False):
        ended(courier.engine, delivery_id, status=status)
    ended(courier.engine, made[5], at=NOW - 2 * HOUR)
    ended(courier.engine, made[6], at=NOW + HOUR)
    ended(courier.engine, elsewhere)
    span, before = Span(NOW - HOUR, NOW + HOUR), redelivered("recovered")

    assert failed(courier.engine, endpoint_id, span) == 3
    assert all_again(courier, endpoint_id, span) == 3
    assert all_again(courier, endpoint_id, span) == failed(courier.engine, endpoint_id, span) == 0

    statuses = [delivery(courier, delivery_id).status for delivery_id in (*made, elsewhere)]
    assert statuses == [*["waiting"] * 3, "succeeded", "waiting", "exhausted", "exhausted", "exhausted"]
    asked = {"endpoint": endpoint_id, "since": (NOW - HOUR).isoformat(), "until": (NOW + HOUR).isoformat()}
    first, second = noted(courier)
    assert first == ("amal", "endpoint.recover", {"asked": asked, "deliveries": 3, "finished": True})
    assert second == ("amal", "endpoint.recover", {"asked": asked, "deliveries": 0, "finished": True})
    assert redelivered("recovered") == before + 3


def publish_and_find(courier: Courier) -> list[AnyRow]:
    made = publish_some(courier)
    return [row for row in rows(courier.engine, Delivery) if row.id in made]


def test_an_endpoint_that_is_enabled_again_gets_what_was_cancelled_only_when_somebody_asks(
    courier: Courier, subscriber: Subscriber
) -> None:
    endpoint_id, _ = add(courier, subscriber.url)
    made = publish_some(courier, 3)
    endpoints.switch_off(courier.engine, endpoint_id, "it moved", actor="amal", now=NOW)
    deliver(courier, made)
    assert {row.status for row in rows(courier.engine, Delivery)} == {"cancelled"}

    endpoints.enable(courier.engine, endpoint_id, actor="amal", now=NOW)
    deliver(courier, made)
    assert subscriber.bodies == []
    assert all_again(courier, endpoint_id) == 3
    deliver(courier, made)

    assert len(subscriber.bodies) == 3
    assert {row.status for row in rows(courier.engine, Delivery)} == {"succeeded"}
    assert audit(courier.engine).holds


def test_what_is_sent_again_never_stands_before_a_first_attempt(courier: Courier) -> None:
    endpoint_id, _ = add(courier, URL)
    old = ended(courier.engine, *publish_some(courier), status="cancelled")
    change(courier.engine, Delivery, attempts=0, again=False)
    all_again(courier, endpoint_id)
    (new,) = publish_some(courier)

    with database.read(courier.engine) as connection:
        line = lines(connection, [endpoint_id], now=NOW, most=10)[endpoint_id]

    assert (line.first, line.again) == ([new], [old])


class Died(BaseException):
    """The process is no more."""


def die(_amount: object) -> None:
    raise Died


def test_a_process_that_dies_leaves_whole_batches_and_the_next_call_goes_on(
    courier: Courier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "BATCH", 2)
    endpoint_id, _ = add(courier, URL)
    made = [ended(courier.engine, delivery_id) for delivery_id in sorted(publish_some(courier, 5))]

    with pytest.raises(Died):
        recover(courier.engine, endpoint_id, ALL, actor="amal", now=NOW, done=die)

    assert [delivery(courier, one).status for one in made] == ["waiting"] * 2 + ["exhausted"] * 3
    ((_, _, detail),) = noted(courier)
    assert (detail["deliveries"], detail["finished"]) == (2, False)
    assert all_again(courier, endpoint_id) == 3
    assert {row.status for row in rows(courier.engine, Delivery)} == {"waiting"}


def test_an_endpoint_that_is_disabled_meanwhile_ends_it(courier: Courier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "BATCH", 2)
    endpoint_id, _ = add(courier, URL)
    made = [ended(courier.engine, delivery_id) for delivery_id in sorted(publish_some(courier, 3))]

    def gone(_amount: object) -> None:
        endpoints.switch_off(courier.engine, endpoint_id, "it moved", actor="omar", now=NOW)

    with pytest.raises(EndpointError, match="is disabled"):
        recover(courier.engine, endpoint_id, ALL, actor="amal", now=NOW, done=gone)

    assert [delivery(courier, one).status for one in made] == ["waiting", "waiting", "exhausted"]


def test_of_two_at_once_each_delivery_is_sent_again_by_one(courier: Courier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "BATCH", 3)
    endpoint_id, _ = add(courier, URL)
    for delivery_id in publish_some(courier, 20):
        ended(courier.engine, delivery_id)

    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(all_again, courier, endpoint_id) for _ in range(2)]
        assert sum(one.result(30) for one in both) == 20

    assert {row.status for row in rows(courier.engine, Delivery)} == {"waiting"}
    assert {row.prior for row in rows(courier.engine, Delivery)} == {2}


@servers
def test_what_is_just_being_deleted_is_not_sent_again(courier: Courier) -> None:
    endpoint_id, _ = add(courier, URL)
    event_id = received(courier.engine)
    published(courier)
    change(courier.engine, Message, event_id=event_id)
    change(courier.engine, EventRow, status="processed", ring_at=None)
    ended(courier.engine, only(courier.engine, Delivery).id)

    with ThreadPoolExecutor(1) as thread:
        with database.write(courier.engine) as connection:
            connection.execute(select(EventRow.id).with_for_update())
            recovering = thread.submit(all_again, courier, endpoint_id)
            until(lambda: waits_for_a_lock(courier.engine))
            retention._delete_events(connection, [event_id], NOW + HOUR)
        assert recovering.result(30) == 0

    assert rows(courier.engine, Delivery) == []


# --- all that an endpoint never got ---------------------------------------------------------------


def test_an_endpoint_gets_what_was_published_before_it_was_added(courier: Courier, subscriber: Subscriber) -> None:
    published(courier, at=NOW - 2 * HOUR)
    wanted = [published(courier, at=NOW - HOUR), published(courier, at=NOW - HOUR)]
    endpoint_id, _ = add(courier, subscriber.url)
    had = published(courier)
    span, before = Span(NOW - HOUR), redelivered("missing")

    assert filled(courier, endpoint_id, span) == 2
    assert filled(courier, endpoint_id, span) == 0

    assert sorted(row.message_id for row in rows(courier.engine, Delivery)) == sorted([*wanted, had])
    assert redelivered("missing") == before + 2
    first, _ = noted(courier)
    asked = {"endpoint": endpoint_id, "forwarded": False, "since": (NOW - HOUR).isoformat()}
    assert first == ("amal", "endpoint.missing", {"asked": asked, "deliveries": 2, "finished": True})
    assert audit(courier.engine).holds
    deliver(courier, [row.id for row in rows(courier.engine, Delivery)])
    assert {row.status for row in rows(courier.engine, Delivery)} == {"succeeded"}
    assert len(subscriber.bodies) == 3


def test_and_what_was_published_while_it_was_disabled(courier: Courier) -> None:
    endpoint_id, _ = add(courier, URL)
    endpoints.switch_off(courier.engine, endpoint_id, "it moved", actor="amal", now=NOW)
    wanted = published(courier)
    endpoints.enable(courier.engine, endpoint_id, actor="amal", now=NOW)

    assert filled(courier, endpoint_id) == 1
    assert only(courier.engine, Delivery).message_id == wanted


def test_it_gets_only_what_it_wants(courier: Courier) -> None:
    wanted = published(courier, "receipt.issued", source="shop")
    published(courier, "invoice.noted", source="shop")
    published(courier, "receipt.issued", source="other")
    published(courier, "receipt.issued")
    endpoint_id, _ = add(courier, URL, event_types=("receipt.*", "billhook.*"))
    change(courier.engine, Endpoint, sources=["shop"])

    assert filled(courier, endpoint_id) == 1
    assert only(courier.engine, Delivery).message_id == wanted


def test_what_billhook_itself_told_is_over(courier: Courier) -> None:
    published(courier, "billhook.endpoint.warned")
    published(courier, "billhook.test")
    endpoint_id, _ = add(courier, URL, event_types=("billhook.*", "*"))

    assert filled(courier, endpoint_id) == 0


def test_what_was_forwarded_is_sent_where_that_is_asked_and_the_endpoint_forwards(courier: Courier) -> None:
    emitted = published(courier, "receipt.issued")
    received_one = published(courier, "invoice.paid", forwarded=True, received_at=NOW)
    (plain, _), (forwarding, _) = add(courier, URL), add(courier, URL, forward=True)

    with pytest.raises(EndpointError, match="nothing forwarded: change it to forward first"):
        missing(courier.engine, plain, ALL, forwarded=True)
    assert filled(courier, plain) == 1
    assert filled(courier, forwarding) == 1
    assert filled(courier, forwarding, forwarded=True) == 1

    assert by_endpoint(courier)[plain].message_id == emitted
    theirs = {row.message_id for row in rows(courier.engine, Delivery) if row.endpoint_id == forwarding}
    assert theirs == {emitted, received_one}


def test_what_is_missing_comes_in_batches_behind_first_attempts(
    courier: Courier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "BATCH", 2)
    old = {published(courier) for _ in range(5)}
    endpoint_id, _ = add(courier, URL)

    with pytest.raises(Died):
        fill(courier.engine, endpoint_id, ALL, actor="amal", now=NOW, done=die)
    assert len(rows(courier.engine, Delivery)) == 2
    assert filled(courier, endpoint_id) == 3
    (new,) = publish_some(courier)

    with database.read(courier.engine) as connection:
        line = lines(connection, [endpoint_id], now=NOW, most=10)[endpoint_id]
    assert line.first == [new]
    assert {delivery(courier, one).message_id for one in line.again} == old


def test_of_two_at_once_each_message_is_sent_by_one(courier: Courier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "BATCH", 3)
    for _ in range(12):
        published(courier)
    endpoint_id, _ = add(courier, URL)

    def one() -> int:
        return fill(courier.engine, endpoint_id, ALL, actor="amal", now=NOW)

    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(one) for _ in range(2)]
        assert sum(result.result(30) for result in both) == 12

    assert len(rows(courier.engine, Delivery)) == 12
