from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handlers.recipes import forwarding
from handlers.recipes.forwarding import FolderQueue, forward
from handlers.testing import event, run


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("QUEUE_FOLDER", str(tmp_path / "queue"))
    forwarding.queue.cache_clear()
    yield tmp_path / "queue"
    forwarding.queue.cache_clear()


def messages(folder: Path) -> list[Any]:
    return [json.loads(file.read_bytes()) for file in sorted(folder.iterdir())]


def test_an_event_is_in_the_queue_under_its_id(folder: Path) -> None:
    ran = run(forward, event("invoice.paid", data={"customer": {"name": "شركة"}, "lines": [1, 2.5, None]}))

    assert ran.outcome == "succeeded", ran.trace
    assert os.listdir(folder) == [f"{ran.event.id}.json"]
    (message,) = messages(folder)
    assert message == {
        "id": ran.event.id,
        "type": "invoice.paid",
        "occurred_at": "2026-06-05T14:00:00+00:00",
        "data": ran.event.data,
    }


def test_a_repeated_start_puts_the_same_message_into_its_own_place(folder: Path) -> None:
    store = run(forward, event("invoice.paid")).store
    run(forward, event("invoice.paid"), store=store)
    run(forward, event("invoice.voided"), store=store)

    assert sorted(message["type"] for message in messages(folder)) == ["invoice.paid", "invoice.voided"]


def test_the_connection_is_made_when_it_is_first_needed_and_then_kept(folder: Path) -> None:
    assert not folder.exists()

    assert forwarding.queue() is forwarding.queue()
    assert folder.exists()


def test_a_queue_that_takes_nothing_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "queue").write_text("a file")

    assert run(forward, event("invoice.paid")).outcome == "failed"


def test_whoever_reads_the_queue_sees_whole_messages_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append([file.name for file in folder.glob("*.json")])
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)

    FolderQueue(folder).publish("evt_1", "{}")

    assert seen == [[]]
    assert messages(folder) == [{}]
