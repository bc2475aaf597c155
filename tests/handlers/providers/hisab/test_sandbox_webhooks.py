"""The sandbox's webhooks, on real sockets: order, retries, faults, and what survives a restart."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from handlers.errors import VerificationError
from handlers.event import Event
from handlers.providers.hisab import PROVIDER
from handlers.providers.hisab.sandbox import create_app
from tests.handlers.providers.hisab.sandbox_given import INVOICE, KEY, SECRET
from tests.handlers.providers.sandbox.served import PATIENCE, Arrived, Sink, receiving, serving

INBOUND = PROVIDER.inbound({})


@pytest.fixture
def sink() -> Iterator[Sink]:
    with receiving() as found:
        yield found


def client(address: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {KEY}"}
    return httpx.Client(base_url=f"{address}/api/v1", headers=headers, trust_env=False, timeout=PATIENCE)


def create(http: httpx.Client) -> str:
    return str(http.post("/invoices", json=INVOICE).json()["data"]["id"])


def arm(http: httpx.Client, **fault: Any) -> None:
    assert http.post(f"{address_of(http)}/sandbox/faults", json=fault).status_code == 201


def address_of(http: httpx.Client) -> str:
    return str(http.base_url).removesuffix("/api/v1/")


def read(arrived: Arrived) -> Event:
    INBOUND.verify(arrived.wire, arrived.body, [INBOUND.key(SECRET)], time.time())
    return INBOUND.parse(arrived.wire, arrived.body)


def delivery_ids(arrived: list[Arrived]) -> list[str]:
    return [one.headers["x-webhook-delivery-id"] for one in arrived]


def settled(http: httpx.Client) -> list[dict[str, Any]]:
    """All deliveries, newest first, once none waits."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = http.get(f"{address_of(http)}/sandbox/webhooks").json()["deliveries"]
        if all(delivery["state"] != "waiting" for delivery in found):
            return list(found)
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_webhooks_leave_in_the_order_of_the_changes_and_hold_up_no_call(sink: Sink) -> None:
    sink.answering.clear()
    with serving(create_app(webhook_url=sink.url, secret=SECRET)) as address, client(address) as http:
        ids = [create(http) for _ in range(5)]
        sink.answering.set()
        arrived = sink.take(5)

    assert [read(one).object_id for one in arrived] == ids


def test_a_slow_endpoint_keeps_no_other_waiting(sink: Sink) -> None:
    with receiving() as slow:
        slow.answering.clear()
        app = create_app(webhooks=[(slow.url, SECRET), (sink.url, SECRET)])
        with serving(app) as address, client(address) as http:
            for _ in range(3):
                create(http)
            assert len(sink.take(3)) == 3
            assert slow.arrived.qsize() == 1
            slow.answering.set()
            slow.take(3)


def test_a_webhook_that_fails_is_sent_again_under_its_id_and_signed_anew(sink: Sink) -> None:
    sink.statuses.put(500)
    sink.statuses.put(302)
    app = create_app(webhook_url=sink.url, secret=SECRET, retry_delays=(0.01, 0.01))
    with serving(app) as address, client(address) as http:
        create(http)
        arrived = sink.take(3)
        (delivery,) = settled(http)

    assert len(set(delivery_ids(arrived))) == len({one.body for one in arrived}) == 1
    assert [read(one).type for one in arrived] == ["invoice.created"] * 3
    assert [attempt["status"] for attempt in delivery["attempts"]] == [500, 302, 204]
    assert delivery["state"] == "delivered"


def test_a_duplicate_comes_under_the_same_id(sink: Sink) -> None:
    with serving(create_app(webhook_url=sink.url, secret=SECRET)) as address, client(address) as http:
        arm(http, kind="duplicate")
        create(http)
        create(http)
        ids = delivery_ids(sink.take(3))

    assert ids[0] == ids[1] != ids[2]


def test_a_duplicate_may_come_under_another_id(sink: Sink) -> None:
    with serving(create_app(webhook_url=sink.url, secret=SECRET)) as address, client(address) as http:
        arm(http, kind="duplicate_other_id")
        create(http)
        first, second = sink.take(2)

    assert first.body == second.body
    assert len(set(delivery_ids([first, second]))) == 2


def test_a_reordered_webhook_comes_after_the_next_one(sink: Sink) -> None:
    with serving(create_app(webhook_url=sink.url, secret=SECRET)) as address, client(address) as http:
        arm(http, kind="reorder", seconds=PATIENCE)
        first, second = create(http), create(http)
        arrived = sink.take(2)

    assert [read(one).object_id for one in arrived] == [second, first]


def test_a_reordered_webhook_comes_even_if_there_is_no_next_one(sink: Sink) -> None:
    with serving(create_app(webhook_url=sink.url, secret=SECRET)) as address, client(address) as http:
        arm(http, kind="reorder", seconds=0.05)
        invoice_id = create(http)
        (arrived,) = sink.take(1)

    assert read(arrived).object_id == invoice_id


def test_a_delayed_webhook_is_late(sink: Sink) -> None:
    with serving(create_app(webhook_url=sink.url, secret=SECRET)) as address, client(address) as http:
        arm(http, kind="delay", seconds=0.2)
        began = time.monotonic()
        first, second = create(http), create(http)
        arrived = sink.take(2)
        took = time.monotonic() - began

    assert [read(one).object_id for one in arrived] == [second, first]
    assert took >= 0.2


def test_a_dropped_webhook_comes_at_the_second_attempt(sink: Sink) -> None:
    app = create_app(webhook_url=sink.url, secret=SECRET, retry_delays=(0.01,))
    with serving(app) as address, client(address) as http:
        arm(http, kind="drop")
        create(http)
        sink.take(1)
        (delivery,) = settled(http)

    assert [(attempt["status"], attempt["faults"]) for attempt in delivery["attempts"]] == [(None, ["drop"]), (204, [])]


@pytest.mark.parametrize("kind", ["wrong_signature", "stale_timestamp"])
def test_a_webhook_that_cannot_be_verified_is_followed_by_one_that_can(sink: Sink, kind: str) -> None:
    sink.statuses.put(401)
    app = create_app(webhook_url=sink.url, secret=SECRET, retry_delays=(0.01,))
    with serving(app) as address, client(address) as http:
        arm(http, kind=kind)
        create(http)
        forged, sound = sink.take(2)

    with pytest.raises(VerificationError):
        read(forged)
    assert read(sound).type == "invoice.created"


def test_what_a_killed_sandbox_had_not_sent_it_sends_after_its_restart(sink: Sink, tmp_path: Path) -> None:
    path = tmp_path / "hisab.db"
    sink.answering.clear()
    with serving(create_app(path=path, webhook_url=sink.url, secret=SECRET)) as address, client(address) as http:
        invoice_id = create(http)
        http.post(f"/invoices/{invoice_id}/finalize")
    unanswered = sink.take(1)
    sink.answering.set()

    with serving(create_app(path=path)) as address, client(address) as http:
        arrived = sink.take(2)
        invoice = http.get(f"/invoices/{invoice_id}").json()["data"]

    assert delivery_ids(unanswered) == delivery_ids(arrived)[:1]
    assert [read(one).type for one in arrived] == ["invoice.created", "invoice.finalized"]
    assert (invoice["status"], invoice["invoice_number"]) == ("finalized", "FAC-2026-0142")


KILLED = """
import sys, uvicorn
from pathlib import Path
from handlers.providers.hisab.sandbox import create_app
app = create_app(path=Path(sys.argv[1]), webhook_url=sys.argv[2], secret=sys.argv[3])
uvicorn.run(app, fd=int(sys.argv[4]), log_level="warning")
"""


def test_a_process_that_is_killed_loses_no_webhook(sink: Sink, tmp_path: Path) -> None:
    path = tmp_path / "hisab.db"
    sink.answering.clear()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path), sink.url, SECRET, str(listener.fileno())],
            pass_fds=(listener.fileno(),),
        )
        try:
            with client(f"http://127.0.0.1:{listener.getsockname()[1]}") as http:
                ids = [create(http) for _ in range(3)]
        finally:
            process.kill()
            process.wait(PATIENCE)
    sink.answering.set()
    sink.take(1)

    with serving(create_app(path=path)):
        arrived = sink.take(3)

    assert [read(one).object_id for one in arrived] == ids


def test_a_delivery_is_replayed_under_its_id(sink: Sink) -> None:
    with serving(create_app(webhook_url=sink.url, secret=SECRET)) as address, client(address) as http:
        create(http)
        first = sink.take(1)
        http.post(f"{address}/sandbox/webhooks/{delivery_ids(first)[0]}/replay")
        second = sink.take(1)

    assert delivery_ids(first) == delivery_ids(second)
    assert first[0].body == second[0].body


def test_what_falls_due_is_told_when_nobody_calls(sink: Sink) -> None:
    """A schedule that is due two seconds after the start, by the sandbox's clock and by the machine's."""
    start = datetime(2026, 6, 30, 22, 59, 58, tzinfo=UTC)
    with serving(create_app(webhook_url=sink.url, secret=SECRET, clock=start)) as address, client(address) as http:
        item = {"description": "Hosting", "quantity": 1, "unit_price": 100}
        schedule = {"customer_id": "cus_2b81fe", "frequency": "monthly", "start_date": "2026-07-01", "items": [item]}
        assert http.post("/recurring-invoices", json=schedule).status_code == 201
        (arrived,) = sink.take(1)

    event = read(arrived)
    assert (event.type, event.data["issue_date"]) == ("invoice.created", "2026-07-01")
    assert event.occurred_at == datetime(2026, 6, 30, 23, tzinfo=UTC)
