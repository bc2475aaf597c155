"""Real processes in fair weather: a delivery goes all the way, and everything stops when it is told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import httpx
from standardwebhooks.webhooks import Webhook

from tests.acceptance.stack import Sink, Stack, await_, delivery
from tests.services import free_port

HANDLERS = """
from handlers import Context, Event, on

@on("invoice.paid", backoff=0.1)
def receipt(event: Event, ctx: Context) -> None:
    if ctx.attempt == 1:
        raise RuntimeError("the first attempt fails")
    ctx.emit("receipt.issued", {"invoice": event.object_id, "total": event.data["total"]})

@on("customer.*")
async def welcome(event: Event, ctx: Context) -> None:
    ctx.emit("customer.welcomed", {"customer": event.object_id})
"""


def test_a_delivery_is_handled_retried_and_sent_on_with_a_signature_that_verifies(stack: Stack) -> None:
    (stack.folder / "my_handlers.py").write_text(HANDLERS)
    with Sink() as sink:
        endpoint = json.loads(stack.run("endpoints", "add", sink.url, "--type", "receipt.*", "--json").stdout)
        stack.start("serve", "work", "beat")

        for number, event_type in enumerate(("invoice.paid", "customer.created", "invoice.sent")):
            request = delivery(number, event_type)
            answer = httpx.post(f"{stack.url}/webhooks/shop", content=request.body, headers=request.headers)
            assert answer.status_code == 202

        await_(lambda: stack.balance().waiting == 0 and sink.received, "all is handled and sent on")
        (headers, body) = sink.received[0]
        assert Webhook(endpoint["secret"]).verify(body, headers)["data"] == {"invoice": "inv_0", "total": "12480.00"}
        assert str(stack.balance()) == "received 3 = processed 2 + ignored 1 + dead 0 + waiting 0: in balance"
        listed = [json.loads(line) for line in stack.run("events", "--json").stdout.splitlines()]
        assert {event["type"]: event["status"] for event in listed} == {
            "invoice.paid": "processed",
            "customer.created": "processed",
            "invoice.sent": "ignored",
        }


def test_every_process_ends_well_when_it_is_told_to(stack: Stack) -> None:
    (stack.folder / "my_handlers.py").write_text(HANDLERS)
    stack.start("serve", "work", "beat")
    await_(lambda: "working on" in stack.log("work") and "ticking" in stack.log("beat"), "all have started")

    for process in stack.processes.values():
        process.send_signal(signal.SIGTERM)

    assert {name: process.wait(30) for name, process in stack.processes.items()} == {"serve": 0, "work": 0, "beat": 0}
    assert "Traceback" not in stack.log("serve") + stack.log("work") + stack.log("beat")


def test_a_worker_that_stops_hands_back_what_it_has_not_begun(stack: Stack) -> None:
    (stack.folder / "my_handlers.py").write_text(
        "import pathlib, time\n"
        "from handlers import on\n"
        "here = pathlib.Path(__file__).parent\n"
        '@on("invoice.paid")\n'
        "def paced(event, ctx):\n"
        '    with (here / "starts").open("a") as file:\n'
        '        file.write("x")\n'
        "    time.sleep(0.3)\n"
    )
    stack.environment["BILLHOOK_WORKER_PROCESSES"] = "1"
    stack.start("serve")
    with httpx.Client(trust_env=False) as client:
        for number in range(20):
            request = delivery(number)
            client.post(f"{stack.url}/webhooks/shop", content=request.body, headers=request.headers)
    stack.start("work", "beat")
    starts = stack.folder / "starts"
    await_(starts.exists, "the first handler runs")

    stack.processes["work"].send_signal(signal.SIGTERM)

    assert stack.processes["work"].wait(20) == 0
    assert 1 <= len(starts.read_text()) < 20
    assert stack.balance().holds
    stack.start("work")
    await_(lambda: stack.events("processed") == 20, "another worker does the rest")
    assert len(starts.read_text()) == 20


def test_up_runs_everything_until_it_is_interrupted(embedded_stack: Stack) -> None:
    stack = embedded_stack
    stack.environment["BILLHOOK_LISTEN"] = f"127.0.0.1:{stack.port}"
    (stack.folder / "my_handlers.py").write_text(HANDLERS)
    stack.start("up")
    await_(stack.receives, "the receiver answers")

    sent = stack.run("send", "customer.created", "--url", stack.url)
    assert json.loads(sent.stdout)["status"] == 202
    await_(lambda: stack.events("processed") == 1, "the event is processed")
    stack.processes["up"].send_signal(signal.SIGINT)

    assert stack.processes["up"].wait(30) == 0
    await_(lambda: not _processes_of(stack), "nothing of it is left, the embedded server included")


def test_up_stops_everything_when_one_of_them_cannot_start(embedded_stack: Stack) -> None:
    stack = embedded_stack
    (stack.folder / "broken_handlers.py").write_text("import nothing_of_this_name\n")

    ended = stack.run("up")

    assert ended.returncode == 1
    assert "ModuleNotFoundError" in ended.stderr
    assert "broken_handlers.py:1" in ended.stderr
    assert "billhook work" in ended.stderr
    assert "Traceback" not in ended.stderr


DEAF = """
import os
from workers import worker

# A worker that in its first life takes itself for idle and unheard: what a broken connection can make of it.
if os.environ.setdefault("TEST_LIFE", "first") == "first":
    os.environ["TEST_LIFE"] = "second"
    worker._idle = worker._waiting = lambda *_: True
    worker.Watch._heard = lambda *_, **__: None
    worker.Watch.__init__.__kwdefaults__["deaf_after"] = 1.0
else:
    os.write(2, b"the same program, in its second life\\n")
from receiver.cli import main
main()
"""


def test_a_worker_that_has_gone_deaf_starts_itself_anew_under_the_same_process_id(stack: Stack) -> None:
    (stack.folder / "my_handlers.py").write_text(HANDLERS)
    stack.start("serve", "beat")
    with (stack.folder / "deaf.log").open("wb") as log:
        deaf = subprocess.Popen(
            [sys.executable, "-c", DEAF, "work"],
            env=stack.environ,
            cwd=stack.folder,
            stderr=log,
            start_new_session=True,
        )
    stack.processes["deaf"] = deaf
    await_(lambda: stack.log("deaf").count("working on") == 2, "it has started anew")
    assert stack.log("deaf").count("the same program, in its second life") == 1

    request = delivery(1, "customer.created")
    httpx.post(f"{stack.url}/webhooks/shop", content=request.body, headers=request.headers)

    await_(lambda: stack.events("processed") == 1, "it works again")
    assert deaf.poll() is None
    deaf.send_signal(signal.SIGTERM)
    assert deaf.wait(20) == 0


def test_worker_and_beat_serve_their_metrics(stack: Stack) -> None:
    (stack.folder / "my_handlers.py").write_text(HANDLERS)
    port = free_port()
    stack.environment["BILLHOOK_METRICS_LISTEN"] = f"127.0.0.1:{port}"
    stack.start("serve", "work")
    request = delivery(1, "customer.created")
    httpx.post(f"{stack.url}/webhooks/shop", content=request.body, headers=request.headers)

    def counted() -> bool:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        return 'billhook_runs_total{handler="my_handlers.welcome",outcome="succeeded"} 1.0' in text

    await_(lambda: stack.events("processed") == 1, "the event is processed")
    await_(counted, "what a process of the pool counted is served by the worker")


def test_a_worker_counts_the_processes_of_its_pool_that_are_killed_but_not_those_it_ends_itself(
    server_stack: Stack,
) -> None:
    stack = server_stack
    (stack.folder / "my_handlers.py").write_text(HANDLERS)
    port = free_port()
    stack.environment |= {"BILLHOOK_METRICS_LISTEN": f"127.0.0.1:{port}", "BILLHOOK_WORKER_PROCESSES": "1"}
    stack.start("work")
    await_(lambda: "working on" in stack.log("work"), "it works")
    process = stack.processes["work"]

    def lost() -> str:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        return "\n".join(line for line in text.splitlines() if line.startswith("billhook_worker_processes_lost_total"))

    assert lost() == ""
    os.kill(await_(lambda: next(iter(_children(process.pid)), 0), "a process of the pool is there"), signal.SIGKILL)

    await_(lambda: lost() == 'billhook_worker_processes_lost_total{reason="killed"} 1.0', "it is counted")
    process.terminate()
    assert process.wait(20) == 0
    assert stack.log("work").count('"action":"process_lost"') == 1


def _children(parent: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout.split()[2:]
    return [int(pid) for pid, ppid in zip(listed[::2], listed[1::2], strict=True) if int(ppid) == parent]


def _processes_of(stack: Stack) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(stack.folder) in line and sys.executable in line]


def test_a_probe_is_told_whether_worker_and_beat_do_their_work(server_stack: Stack) -> None:
    stack = server_stack
    stack.environment |= {"TMPDIR": str(stack.folder), "BILLHOOK_HANDLERS": ""}
    assert "no worker and no beat has begun here" in stack.run("alive").stderr
    stack.start("work")
    await_(lambda: stack.run("alive").returncode == 0, "the worker is alive")

    stack.processes["work"].send_signal(signal.SIGSTOP)

    await_(lambda: stack.run("alive", "--within", "3").returncode == 1, "it is known to be stuck")
    stack.processes["work"].send_signal(signal.SIGCONT)
    await_(lambda: stack.run("alive", "--within", "3").returncode == 0, "it is alive again")
    stack.kill("work")
    (stack.folder / "billhook-work.alive").unlink()
    stack.start("beat")
    await_(lambda: "`billhook beat` did something" in stack.run("alive").stdout, "the beat is alive")
