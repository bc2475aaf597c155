"""How long after the answer to its delivery a handler starts, when nothing else happens."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from pathlib import Path

import httpx

from benchmarks.apps import SECRET
from benchmarks.servers import BILLHOOK, ServerError, announced, billhook, billhook_environment
from benchmarks.services import Services
from handlers.providers import PROVIDERS
from handlers.testing import signed_request

_HANDLERS = """
import time
from handlers import on

@on("*")
def note(event, ctx):
    with open({path!r}, "a") as file:
        file.write(f"{{event.id}} {{time.time()}}\\n")
"""
_PACE = 0.1
_LONGEST = 60.0


def quiet_latencies(folder: Path, services: Services, count: int) -> list[float]:
    """Seconds from the 202 to the handler's start, for each of so many paced deliveries."""
    place = folder / "latency"
    place.mkdir()
    noted = place / "noted"
    noted.touch()
    (place / "latency_handlers.py").write_text(_HANDLERS.format(path=str(noted)))
    environment = billhook_environment(place, services) | {"BILLHOOK_HANDLERS": str(place / "latency_handlers.py")}
    command = [*BILLHOOK, "work", "--queues", "events"]
    with ExitStack() as stack:
        server = stack.enter_context(billhook("latency", place, services))
        stack.enter_context(announced("billhook work", command, environment, place, re.compile("working on")))
        client = stack.enter_context(httpx.Client(trust_env=False))
        url = f"http://127.0.0.1:{server.port}/webhooks/shop"
        answered = dict(_deliver(client, url, number) for number in range(count))
        deadline = time.monotonic() + _LONGEST
        while noted.read_text().count("\n") < count:
            if time.monotonic() > deadline:
                raise ServerError(f"not every delivery was handled within {_LONGEST:g} s")
            time.sleep(0.05)
    started = dict(line.split() for line in noted.read_text().splitlines())
    # The handler may begin before the client has read the answer.
    return [max(0.0, float(started[event_id]) - at) for event_id, at in answered.items()]


def _deliver(client: httpx.Client, url: str, number: int) -> tuple[str, float]:
    provider = PROVIDERS["hisab"]
    sample = provider.sample("invoice.paid")
    body = {**sample, "data": {**sample["data"], "id": f"quiet_{number}"}}
    request = signed_request(provider, "invoice.paid", SECRET, body=body)
    answer = client.post(url, content=request.body, headers=request.headers)
    at = time.time()
    if answer.status_code != 202:
        raise ServerError(f"a delivery was answered {answer.status_code}: {answer.text}")
    time.sleep(_PACE)
    event_id: str = answer.json()["data"]["id"]
    return event_id, at
