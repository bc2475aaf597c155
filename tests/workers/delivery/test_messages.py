from __future__ import annotations

from datetime import timedelta

import orjson
import pytest
from sqlalchemy import Engine, update

from tests.workers.given import NOW, only, received, rows
from workers import database
from workers.app import Runtime
from workers.delivery import endpoints
from workers.delivery.messages import Outgoing, publish
from workers.models import Delivery, Endpoint, Message
from workers.vault import open_vault

RECEIPT = Outgoing("msg_1", None, "receipt.issued", b'{"n":1}')


def add(runtime: Runtime, *event_types: str) -> str:
    endpoint_id, _ = endpoints.add(
        runtime.engine,
        open_vault(runtime.settings),
        "http://127.0.0.1:9/hook",
        event_types=event_types,
        allow_private=True,
        now=NOW,
    )
    return endpoint_id


def published(engine: Engine, *outgoing: Outgoing) -> list[str]:
    with database.write(engine) as connection:
        return publish(connection, outgoing, now=NOW)


def test_a_message_goes_to_the_endpoints_that_want_its_type(runtime: Runtime) -> None:
    exact, prefix, everything, several = (
        add(runtime, *types)
        for types in (["receipt.issued"], ["receipt.*"], ["*"], ["customer.*", "receipt.issued", "receipt.*"])
    )
    for types in (["receipt"], ["receipt.issued.late"], ["receipts.*"], ["customer.*"]):
        add(runtime, *types)

    deliveries = published(runtime.engine, RECEIPT)

    made = rows(runtime.engine, Delivery)
    assert sorted(delivery.endpoint_id for delivery in made) == sorted([exact, prefix, everything, several])
    assert sorted(deliveries) == [delivery.id for delivery in made]


def test_a_disabled_endpoint_gets_nothing(runtime: Runtime) -> None:
    enabled, disabled = add(runtime, "*"), add(runtime, "*")
    with database.write(runtime.engine) as connection:
        endpoints.disable(connection, disabled, "it answered 410 Gone")

    published(runtime.engine, RECEIPT)

    assert only(runtime.engine, Delivery).endpoint_id == enabled


def test_an_endpoint_that_is_added_later_gets_nothing_of_before(runtime: Runtime) -> None:
    published(runtime.engine, RECEIPT)
    add(runtime, "*")

    assert published(runtime.engine, RECEIPT) == []
    assert rows(runtime.engine, Delivery) == []


def test_the_body_is_fixed_once_as_standard_webhooks_recommends(runtime: Runtime) -> None:
    data = b'{"total":"12480.00","name":"\xc3\x89t\xc3\xa9"}'

    published(runtime.engine, Outgoing("msg_1", None, "receipt.issued", data))

    message = only(runtime.engine, Message)
    assert message.body == (b'{"type":"receipt.issued","timestamp":"2026-06-05T14:00:00+00:00","data":' + data + b"}")
    assert orjson.loads(message.body)["data"]["total"] == "12480.00"


def test_a_delivery_waits_to_be_made_at_once(runtime: Runtime) -> None:
    add(runtime, "*")

    published(runtime.engine, RECEIPT)

    delivery = only(runtime.engine, Delivery)
    assert (delivery.status, delivery.attempts, delivery.next_attempt_at) == ("waiting", 0, NOW)
    assert NOW <= delivery.ring_at <= NOW + timedelta(seconds=30)


def test_a_message_published_before_is_left_as_it_is(runtime: Runtime) -> None:
    add(runtime, "*")
    first = published(runtime.engine, RECEIPT)

    again = published(runtime.engine, Outgoing("msg_1", None, "receipt.issued", b'{"n":2}'), RECEIPT)

    assert again == []
    assert orjson.loads(only(runtime.engine, Message).body)["data"] == {"n": 1}
    assert [delivery.id for delivery in rows(runtime.engine, Delivery)] == first


def test_of_many_messages_only_the_new_ones_are_delivered(runtime: Runtime) -> None:
    add(runtime, "*")
    published(runtime.engine, *(Outgoing(f"msg_{n:03d}", None, "receipt.issued", b"{}") for n in range(0, 300, 2)))

    made = published(runtime.engine, *(Outgoing(f"msg_{n:03d}", None, "receipt.issued", b"{}") for n in range(300)))

    assert len(made) == 150
    assert len(rows(runtime.engine, Message)) == len(rows(runtime.engine, Delivery)) == 300


def test_nothing_to_publish_is_nothing(engine: Engine) -> None:
    assert published(engine) == []


def test_a_message_is_taken_back_with_its_cause(runtime: Runtime) -> None:
    add(runtime, "*")
    event_id = received(runtime.engine)

    def fail() -> None:
        with database.write(runtime.engine) as connection:
            publish(connection, [Outgoing("msg_1", event_id, "receipt.issued", b"{}")], now=NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert rows(runtime.engine, Message) == rows(runtime.engine, Delivery) == []


def test_an_endpoint_without_types_gets_nothing(runtime: Runtime) -> None:
    add(runtime, "*")
    with database.write(runtime.engine) as connection:
        connection.execute(update(Endpoint).values(event_types=[]))

    assert published(runtime.engine, RECEIPT) == []
