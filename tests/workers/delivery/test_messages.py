from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import orjson
import pytest
from sqlalchemy import Engine, update

from tests.workers.given import NOW, endpoint, only, received, rows
from workers import database, ids
from workers.app import Runtime
from workers.delivery import endpoints
from workers.delivery.messages import Outgoing, publish, publish_to
from workers.models import Delivery, Endpoint, Message

RECEIPT = Outgoing("msg_1", None, "receipt.issued", b'{"n":1}')


def published(engine: Engine, *outgoing: Outgoing) -> list[str]:
    with database.write(engine) as connection:
        return publish(connection, outgoing, now=NOW)


def test_a_message_goes_to_the_endpoints_that_want_its_type(runtime: Runtime) -> None:
    exact, prefix, everything, several = (
        endpoint(runtime, *types)
        for types in (["receipt.issued"], ["receipt.*"], ["*"], ["customer.*", "receipt.issued", "receipt.*"])
    )
    for types in (["receipt"], ["receipt.issued.late"], ["receipts.*"], ["customer.*"]):
        endpoint(runtime, *types)

    deliveries = published(runtime.engine, RECEIPT)

    made = rows(runtime.engine, Delivery)
    assert sorted(delivery.endpoint_id for delivery in made) == sorted([exact, prefix, everything, several])
    assert sorted(deliveries) == [delivery.id for delivery in made]


def test_a_disabled_endpoint_gets_nothing(runtime: Runtime) -> None:
    enabled, disabled = endpoint(runtime, "*"), endpoint(runtime, "*")
    with database.write(runtime.engine) as connection:
        endpoints.disable(connection, disabled, "it answered 410 Gone")

    published(runtime.engine, RECEIPT)

    assert only(runtime.engine, Delivery).endpoint_id == enabled


def test_the_first_attempt_waits_as_the_schedule_of_the_endpoint_says(runtime: Runtime) -> None:
    patient = endpoint(runtime, "*")
    with database.write(runtime.engine) as connection:
        connection.execute(update(Endpoint).where(Endpoint.id == patient).values(schedule=[3600, 5]))
    usual = endpoint(runtime, "*")

    published(runtime.engine, RECEIPT)

    due = {row.endpoint_id: row.next_attempt_at for row in rows(runtime.engine, Delivery)}
    assert due == {patient: NOW + timedelta(hours=1), usual: NOW}


def test_an_endpoint_that_is_added_later_gets_nothing_of_before(runtime: Runtime) -> None:
    published(runtime.engine, RECEIPT)
    endpoint(runtime, "*")

    assert published(runtime.engine, RECEIPT) == []
    assert rows(runtime.engine, Delivery) == []


def test_the_body_is_fixed_once_as_standard_webhooks_recommends(runtime: Runtime) -> None:
    data = b'{"total":"12480.00","name":"\xc3\x89t\xc3\xa9"}'

    published(runtime.engine, Outgoing("msg_1", None, "receipt.issued", data))

    message = only(runtime.engine, Message)
    assert message.body == (b'{"type":"receipt.issued","timestamp":"2026-06-05T14:00:00+00:00","data":' + data + b"}")
    assert orjson.loads(message.body)["data"]["total"] == "12480.00"


def test_a_delivery_waits_to_be_made_at_once(runtime: Runtime) -> None:
    endpoint(runtime, "*")

    published(runtime.engine, RECEIPT)

    delivery = only(runtime.engine, Delivery)
    assert (delivery.status, delivery.attempts, delivery.next_attempt_at) == ("waiting", 0, NOW)
    assert NOW <= delivery.ring_at <= NOW + timedelta(seconds=30)


def test_a_message_published_before_is_left_as_it_is(runtime: Runtime) -> None:
    endpoint(runtime, "*")
    first = published(runtime.engine, RECEIPT)

    again = published(runtime.engine, Outgoing("msg_1", None, "receipt.issued", b'{"n":2}'), RECEIPT)

    assert again == []
    assert orjson.loads(only(runtime.engine, Message).body)["data"] == {"n": 1}
    assert [delivery.id for delivery in rows(runtime.engine, Delivery)] == first


def test_of_many_messages_only_the_new_ones_are_delivered(runtime: Runtime) -> None:
    endpoint(runtime, "*")
    published(runtime.engine, *(Outgoing(f"msg_{n:03d}", None, "receipt.issued", b"{}") for n in range(0, 300, 2)))

    made = published(runtime.engine, *(Outgoing(f"msg_{n:03d}", None, "receipt.issued", b"{}") for n in range(300)))

    assert len(made) == 1  # of one endpoint
    assert len(rows(runtime.engine, Message)) == len(rows(runtime.engine, Delivery)) == 300


def test_nothing_to_publish_is_nothing(engine: Engine) -> None:
    assert published(engine) == []


def test_a_message_is_taken_back_with_its_cause(runtime: Runtime) -> None:
    endpoint(runtime, "*")
    event_id = received(runtime.engine)

    def fail() -> None:
        with database.write(runtime.engine) as connection:
            publish(connection, [Outgoing("msg_1", event_id, "receipt.issued", b"{}")], now=NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert rows(runtime.engine, Message) == rows(runtime.engine, Delivery) == []


def test_an_endpoint_without_types_gets_nothing(runtime: Runtime) -> None:
    endpoint(runtime, "*")
    with database.write(runtime.engine) as connection:
        connection.execute(update(Endpoint).values(event_types=[]))

    assert published(runtime.engine, RECEIPT) == []


# --- what an endpoint asks for --------------------------------------------------------------------


def got(engine: Engine, *outgoing: Outgoing) -> set[str]:
    """Which endpoints get a message."""
    made = published(engine, *outgoing)
    return {delivery.endpoint_id for delivery in rows(engine, Delivery) if delivery.id in made}


def test_an_endpoint_with_sources_gets_only_what_comes_of_them(runtime: Runtime) -> None:
    everything, of_shop = endpoint(runtime), endpoint(runtime, sources=("shop",))
    of_till = endpoint(runtime, sources=("shop", "till"))

    def of(source: str | None) -> set[str]:
        return got(runtime.engine, Outgoing(ids.new("msg"), None, "receipt.issued", b"{}", source=source))

    assert of("shop") == {everything, of_shop, of_till}
    assert of("till") == {everything, of_till}
    assert of("mill") == {everything}
    assert of(None) == {everything}


def test_a_message_has_the_source_of_its_event(runtime: Runtime) -> None:
    published(runtime.engine, replace(RECEIPT, source="shop"))

    message = only(runtime.engine, Message)
    assert (message.source, message.forwarded, message.content_type) == ("shop", False, "application/json")


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("*", False),
        ("billhook.*", True),
        ("billhook.endpoint.*", True),
        ("billhook.endpoint.disabled", True),
        ("billhook.delivery.*", False),
        ("billhooks.*", False),
    ],
)
def test_billhooks_own_messages_go_to_who_asks_for_them_by_name(pattern: str, wanted: bool, runtime: Runtime) -> None:
    asks = endpoint(runtime, "receipt.*", pattern, sources=("shop",))

    notice = Outgoing("msg_1", None, "billhook.endpoint.disabled", b"{}")

    assert got(runtime.engine, notice) == ({asks} if wanted else set())


def test_an_endpoint_that_is_spoken_of_can_be_left_out(runtime: Runtime) -> None:
    sick, other = endpoint(runtime, "billhook.*"), endpoint(runtime, "billhook.*")

    with database.write(runtime.engine) as connection:
        publish(connection, [Outgoing("msg_1", None, "billhook.endpoint.disabled", b"{}")], now=NOW, never_to=sick)

    assert only(runtime.engine, Delivery).endpoint_id == other


def test_a_forwarded_message_is_its_bytes_and_goes_to_who_forwards(runtime: Runtime) -> None:
    endpoint(runtime)
    forwards, both = endpoint(runtime, "invoice.*", forward=True), endpoint(runtime, forward=True)
    body = b'{"total": 10400.00, "total": 1e2}\n\xff'
    raw = Outgoing("msg_1", None, "invoice.paid", body, forwarded=True, content_type="text/plain; charset=latin-1")

    assert got(runtime.engine, raw) == {forwards, both}
    assert got(runtime.engine, replace(RECEIPT, id="msg_2")) >= {both}
    message = rows(runtime.engine, Message)[0]
    assert (message.body, message.forwarded, message.content_type) == (body, True, "text/plain; charset=latin-1")


def test_a_message_can_be_for_one_endpoint_alone(runtime: Runtime) -> None:
    endpoint(runtime)
    mine = endpoint(runtime, "customer.*", sources=("till",))

    with database.write(runtime.engine) as connection:
        delivery_id = publish_to(connection, mine, replace(RECEIPT, source="shop"), now=NOW)

    delivery, message = only(runtime.engine, Delivery), only(runtime.engine, Message)
    assert (delivery.id, delivery.endpoint_id, delivery.message_id) == (delivery_id, mine, message.id)
    assert orjson.loads(message.body)["type"] == "receipt.issued"


def test_the_body_of_a_message_is_not_in_its_repr() -> None:
    assert "pa55word" not in repr(replace(RECEIPT, data=b"pa55word"))
