"""`billhook sandbox` as a process: what it says, what it serves, and what it refuses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.receiver.cli.conftest import Billhook


@contextmanager
def sandbox(folder: Path, *arguments: str, **variables: str) -> Iterator[tuple[str, list[str]]]:
    """A sandbox that runs: its address, and the lines it said first."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BILLHOOK_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "receiver.cli", "sandbox", "--port", "0", *arguments],
        cwd=folder,
        env=environment | {f"BILLHOOK_{name}": value for name, value in variables.items()},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        said = [process.stderr.readline() for _ in range(1 + ("--source" in arguments or "--webhook" in arguments))]
        found = re.search(r"http://127\.0\.0\.1:\d+", said[0])
        assert found is not None, said + process.stderr.readlines()
        yield found[0], said
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def call(url: str, path: str) -> httpx.Response:
    return httpx.get(f"{url}{path}", headers={"authorization": "Bearer hisab_live_***"}, trust_env=False)


def test_it_answers_the_first_curl_line_of_hisabs_documents(tmp_path: Path) -> None:
    with sandbox(tmp_path, "--memory") as (url, said):
        # The socket listens before the line is said; the first answer may take until the app is up.
        answer = call(url, "/api/v1/invoices")

    assert answer.status_code == 200
    assert answer.json()["success"] is True
    assert "hisab sandbox" in said[0]
    assert list(tmp_path.iterdir()) == []


def test_it_keeps_its_books_in_the_state_folder(tmp_path: Path) -> None:
    customer = {"name": "Kept SARL", "type": "b2c"}
    with sandbox(tmp_path) as (url, _):
        headers = {"authorization": "Bearer hisab_live_***"}
        made = httpx.post(f"{url}/api/v1/customers", json=customer, headers=headers, trust_env=False).json()["data"]
    with sandbox(tmp_path) as (url, _):
        again = call(url, f"/api/v1/customers/{made['id']}").json()["data"]

    assert again["name"] == "Kept SARL"
    assert (tmp_path / ".billhook" / "sandbox-hisab.db").exists()


def test_its_webhooks_go_to_the_source_of_the_settings_and_no_secret_is_shown(tmp_path: Path) -> None:
    variables = {"SOURCES__SHOP__PROVIDER": "hisab", "SOURCES__SHOP__SECRETS": "whsec_a_secret_of_the_shop"}
    with sandbox(tmp_path, "--memory", "--source", "shop", **variables) as (url, said):
        endpoints = call(url, "/sandbox").json()["webhooks"]

    assert "/webhooks/shop" in str(endpoints)
    assert "whsec_a_secret" not in "".join(said) + str(endpoints)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--provider", "stripe"], "has no sandbox; there is hisab, hibr, hesabe"),
        (["--source", "nobody"], "there is no source 'nobody'"),
        (["--webhook", "http://127.0.0.1/x"], "write SECRET@http://host/path"),
        (["--clock", "yesterday"], "is no date or moment"),
        (["--fault", "duplicate=often"], "is not KIND=RATE"),
        (["--fault", "explode=1"], "a fault is one of duplicate"),
        (["--port", "70000"], "65535"),
    ],
)
def test_what_it_cannot_do_is_said_in_one_line(
    arguments: list[str], words: str, billhook: Billhook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    ended = billhook("sandbox", "--memory", *arguments)

    assert ended.status in {1, 2}
    assert words in ended.err
    assert "Traceback" not in ended.err


def test_a_source_of_another_provider_is_refused(billhook: Billhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__PROVIDER", "hisab")
    monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__SECRETS", "secret")

    said = billhook("sandbox", "--provider", "hibr", "--source", "shop", "--memory").complaint()

    assert "is of provider hisab" in said
