"""Real processes, killed in the middle: nothing is lost, and the audit proves it."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from redis import Redis

from tests.acceptance.stack import SECRET, Sink, Stack, await_, delivery
from tests.services import private_redis

SLOW_HANDLER = """
import os, pathlib, time
from handlers import on

here = pathlib.Path(__file__).parent

@on("invoice.paid", timeout=3)
def slow(event, ctx):
    with (here / "starts").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    while not (here / "go").exists():
        time.sleep(0.01)
    ctx.emit("receipt.issued", {"invoice": event.object_id})
"""

QUICK_HANDLER = """
from handlers import on

@on("invoice.paid")
def quick(event, ctx):
    ctx.emit("receipt.issued", {"invoice": event.object_id})
"""


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_a_worker_killed_in_the_middle_of_a_handler_loses_nothing(stack: Stack) -> None:
    (stack.folder / "slow_handlers.py").write_text(SLOW_HANDLER)
    stack.start("serve", "work", "beat")
    request = delivery(1)
    assert httpx.post(f"{stack.url}/webhooks/shop", content=request.body, headers=request.headers).status_code == 202
    await_(lambda: lines(stack.folder / "starts"), "the handler has started")

    stack.kill("work")
    (stack.folder / "go").touch()
    stack.start("work")

    await_(lambda: stack.events("processed") == 1, "the event is processed by another worker")
    assert len(lines(stack.folder / "starts")) == 2
    assert stack.balance().holds
    assert stack.run("audit").stdout.strip() == (
        "received 1 = processed 1 + ignored 0 + dead 0 + waiting 0: in balance"
    )


def test_a_process_of_the_pool_killed_by_its_handler_does_not_take_the_rest_along(stack: Stack) -> None:
    (stack.folder / "deadly_handlers.py").write_text(
        "import os, signal\n"
        "from handlers import on\n"
        '@on("invoice.paid", timeout=0.5)\n'
        "def deadly(event, ctx):\n"
        '    if event.object_id == "inv_0":\n'
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    stack.environment["BILLHOOK_MAX_STARTS"] = "2"
    stack.start("serve", "work", "beat")

    with httpx.Client(trust_env=False) as client:
        for number in range(20):
            request = delivery(number)
            client.post(f"{stack.url}/webhooks/shop", content=request.body, headers=request.headers)

    await_(lambda: stack.events("processed") == 19 and stack.events("dead") == 1, "nineteen processed, one dead")
    assert stack.balance().holds


def test_a_receiver_killed_between_commit_and_enqueue_loses_nothing(server_stack: Stack) -> None:
    stack = server_stack
    (stack.folder / "quick_handlers.py").write_text(QUICK_HANDLER)
    # Given a Redis that takes connections but does not answer, so that the ring cannot go out
    with private_redis() as (server, url):
        stack.environment["BILLHOOK_REDIS_URL"] = url
        stack.start("serve")
        os.kill(server.pid, signal.SIGSTOP)
        request = delivery(1)

        # When the delivery is answered, which is after its commit, and the receiver is killed at once
        answer = httpx.post(f"{stack.url}/webhooks/shop", content=request.body, headers=request.headers, timeout=30)
        stack.kill("serve")
        os.kill(server.pid, signal.SIGCONT)

        # Then it was accepted, nobody was rung, and the sweep finds it
        assert answer.status_code == 202
        with Redis.from_url(url) as redis:
            assert redis.llen(stack.environment["BILLHOOK_REDIS_PREFIX"] + "events") == 0
        stack.start("work", "beat", "serve")
        await_(lambda: stack.events("processed") == 1, "the sweep rang for the event")
        assert stack.balance().holds
        again = httpx.post(f"{stack.url}/webhooks/shop", content=request.body, headers=request.headers)
        assert again.status_code == 200
        assert again.json()["data"]["id"] == answer.json()["data"]["id"]
        stack.stop()


def test_the_embedded_server_killed_during_a_burst_loses_nothing(embedded_stack: Stack) -> None:
    stack, burst = embedded_stack, 2_000
    (stack.folder / "quick_handlers.py").write_text(QUICK_HANDLER)
    with Sink() as sink:
        assert stack.run("endpoints", "add", sink.url).returncode == 0
        stack.start("serve", "work", "beat")
        killed = []

        def post(number: int) -> int:
            if number in {burst // 4, burst // 2}:
                killed.append(kill_embedded_server(stack))
            request = delivery(number)
            return clients.post(f"{stack.url}/webhooks/shop", content=request.body, headers=request.headers).status_code

        with httpx.Client(trust_env=False, timeout=60) as clients, ThreadPoolExecutor(16) as threads:
            statuses = list(threads.map(post, range(burst)))

        assert statuses == [202] * burst
        assert len(set(killed)) == 2
        await_(lambda: stack.events("processed") == burst, "all are processed", 90)
        await_(lambda: len({headers["webhook-id"] for headers, _ in sink.received}) == burst, "all are sent on", 90)
        assert stack.balance().holds


def kill_embedded_server(stack: Stack) -> int:
    """SIGKILL the server behind the state folder's socket; its process id."""
    with Redis(unix_socket_path=str(stack.folder / ".billhook" / "server.sock")) as redis:
        server = int(redis.info("server")["process_id"])
    os.kill(server, signal.SIGKILL)
    return server


@pytest.mark.parametrize("count", [50])
def test_simultaneous_posts_of_one_delivery_are_one_event_and_one_run(stack: Stack, count: int) -> None:
    (stack.folder / "quick_handlers.py").write_text(QUICK_HANDLER)
    stack.start("serve", "work", "beat")
    request = delivery(1)

    def post(_: int) -> httpx.Response:
        return httpx.post(f"{stack.url}/webhooks/shop", content=request.body, headers=request.headers, timeout=60)

    with ThreadPoolExecutor(count) as threads:
        answers = list(threads.map(post, range(count)))

    assert sorted(answer.status_code for answer in answers) == [200] * (count - 1) + [202]
    assert len({answer.json()["data"]["id"] for answer in answers}) == 1
    await_(lambda: stack.events("processed") == 1, "the event is processed")
    (listed,) = stack.run("events", "--json").stdout.splitlines()
    assert '"runs": 1' in listed

    # And the same id with other bytes is refused, and counted
    other = delivery(2, delivery_id="del_1")
    assert httpx.post(f"{stack.url}/webhooks/shop", content=other.body, headers=other.headers).status_code == 409
    assert '"conflicts": 1' in stack.run("events", "--json").stdout
    assert SECRET not in stack.log("serve") + stack.log("work")
