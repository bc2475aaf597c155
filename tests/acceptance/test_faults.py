"""Faults of real processes, reported to a server that takes Sentry's envelopes."""

from __future__ import annotations

import json

import httpx

from tests.acceptance.stack import SECRET, Stack, await_, delivery
from tests.acceptance.watchers import Sentry

HANDLERS = f"""
from handlers import on

@on("invoice.paid", retries=1, backoff=0.1)
def receipt(event, ctx):
    token = "a value of a variable"
    ctx.logger.exception("not a fault yet")
    raise LookupError("no such shop: {SECRET}")
"""


def test_a_dead_run_is_reported_once_without_body_variables_and_secrets(server_stack: Stack) -> None:
    stack = server_stack
    (stack.folder / "my_handlers.py").write_text(HANDLERS)
    request = delivery(1)
    with Sentry() as sentry:
        stack.environment["BILLHOOK_SENTRY_DSN"] = sentry.dsn
        stack.start("serve", "work", "beat")
        answer = httpx.post(f"{stack.url}/webhooks/shop", content=request.body, headers=request.headers)
        await_(lambda: stack.events("dead") == 1, "the run is dead")
        await_(lambda: sentry.events, "it is reported")
        for name in ("work", "serve", "beat"):
            stack.processes[name].terminate()
            assert stack.processes[name].wait(20) == 0
        (event,) = sentry.events

    assert {name: event["tags"][name] for name in ("event_id", "event_type", "source", "handler", "process")} == {
        "event_id": answer.json()["data"]["id"],
        "event_type": "invoice.paid",
        "source": "shop",
        "handler": "my_handlers.receipt",
        "process": "work",
    }
    (found,) = event["exception"]["values"]
    assert (found["type"], found["value"]) == ("LookupError", "no such shop: ********")
    assert [frame["function"] for frame in found["stacktrace"]["frames"]][-1] == "receipt"
    assert event["release"].startswith("billhook@")
    whole = json.dumps(event)
    for hidden in (SECRET, "a value of a variable", "inv_1", "0123456789abcdef"):
        assert hidden not in whole.replace('token = "a value of a variable"', "")
    assert stack.environment["BILLHOOK_SENTRY_DSN"] not in stack.log("work")
