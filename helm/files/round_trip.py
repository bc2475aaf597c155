"""Send a signed sample and wait until its handlers have run: round_trip.py URL SOURCE EVENT."""

import json
import subprocess
import sys
import time

WITHIN = 60.0
"""Seconds after which an event that still waits has failed the test."""


def billhook(*arguments: str) -> dict[str, object]:
    """What a command prints, which is one JSON object; ends this process where it fails."""
    ended = subprocess.run(["billhook", *arguments], stdout=subprocess.PIPE, check=False)  # noqa: S603, S607
    if ended.returncode:
        sys.exit(f"billhook {arguments[0]} failed: {ended.stdout.decode().strip()}")
    answer: dict[str, object] = json.loads(ended.stdout)
    return answer


def main(url: str, source: str, event_type: str) -> None:
    """The test."""
    stored = billhook("send", event_type, "--source", source, "--url", url)["data"]
    assert isinstance(stored, dict), stored  # noqa: S101
    until = time.monotonic() + WITHIN
    event: dict[str, object] = {}
    while time.monotonic() < until:
        event = billhook("event", stored["id"], "--json")
        if event["status"] != "waiting":
            break
        time.sleep(1)
    print(f"{stored['id']} is {event['status']}")  # noqa: T201
    sys.exit(event["status"] != "processed")


main(*sys.argv[1:])
