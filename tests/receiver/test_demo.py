"""`billhook demo` as a user runs it without a terminal, and the endpoint that it checks signatures at."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from handlers.signing import STANDARD, hmac_key, sign
from receiver.demo.sink import create_app

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
BODY = b'{"type":"receipt.issued","timestamp":"2026-06-05T14:00:00Z","data":{"invoice":"inv_8f3a91"}}'
HAPPENINGS = (
    *("started", "received", "refused", "duplicate", "handled", "failed", "retried", "ignored", "discarded"),
    *("sent on", "verified", "scheduled", "generated", "issued"),
)


def test_the_demo_shows_each_happening_and_leaves_nothing_behind(tmp_path: Path) -> None:
    # a configuration of the user's that nothing could run with
    (tmp_path / "billhook.toml").write_text('listen = "nowhere"\n')
    theirs = {"BILLHOOK_DATABASE_URL": "postgresql://127.0.0.1:1/none", "BILLHOOK_REDIS_URL": "redis://127.0.0.1:1/0"}
    # pytest's own folder has too long a name for the path of a socket
    with tempfile.TemporaryDirectory(prefix="demo-test-") as temporary:
        environment = {**os.environ, **theirs, "TMPDIR": temporary, "PYTHONUTF8": "1"}

        done = subprocess.run(
            [sys.executable, "-m", "receiver.cli", "demo"],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=180,
            check=False,
        )

        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        shown = re.findall(r"^ *\d+ ✓ [\d:.]{12} (.{9}) ", done.stdout, re.MULTILINE)
        assert {happening.rstrip() for happening in shown} == set(HAPPENINGS)
        assert "✗" not in done.stdout
        assert "received 15 = processed 10 + ignored 5 + dead 0 + waiting 0: in balance" in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 100
        assert processes_with(temporary) == []
        assert list(Path(temporary).iterdir()) == []


def processes_with(folder: str) -> list[str]:
    """Processes that have this folder in their command line or environment; where there is no /proc, none is found."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            texts = [(process / name).read_bytes() for name in ("cmdline", "environ")]
        except OSError:  # it has ended, or is another user's
            continue
        if any(os.fsencode(folder) in text for text in texts):
            found.append(texts[0].replace(b"\x00", b" ").decode(errors="replace"))
    return found


def headers(body: bytes, secret: str = SECRET) -> dict[str, str]:
    return sign(STANDARD, hmac_key(STANDARD, secret), delivery_id="msg_1", timestamp=int(time.time()), body=body)


def post(app: Starlette, body: bytes, given: dict[str, str]) -> httpx.Response:
    async def exchange() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://endpoint") as client:
            return await client.post("/", content=body, headers=given)

    return asyncio.run(exchange())


def test_the_endpoint_accepts_what_we_sign() -> None:
    app = create_app(SECRET)

    answer = post(app, BODY, headers(BODY))

    assert answer.status_code == 204
    [received] = app.state.received
    assert (received.id, received.type, received.refused) == ("msg_1", "receipt.issued", None)


@pytest.mark.parametrize(
    ("body", "secret", "instead"),
    [
        pytest.param(BODY.replace(b"inv_8f3a91", b"inv_8f3a92"), SECRET, {}, id="altered body"),
        pytest.param(b"\xff", SECRET, {}, id="not text"),
        pytest.param(BODY, "whsec_" + base64.b64encode(b"x" * 32).decode(), {}, id="another secret"),
        pytest.param(BODY, SECRET, {"webhook-timestamp": "1780668000"}, id="another time"),
        pytest.param(BODY, SECRET, {"webhook-signature": "v1"}, id="malformed signature"),
        pytest.param(BODY, SECRET, {"webhook-signature": ""}, id="no signature"),
    ],
)
def test_the_endpoint_refuses_what_does_not_verify(body: bytes, secret: str, instead: dict[str, str]) -> None:
    app = create_app(SECRET)

    answer = post(app, body, {**headers(BODY, secret), **instead})

    assert answer.status_code == 401
    [received] = app.state.received
    assert received.refused
