"""The API does what its description says, whatever is asked: thousands of requests made of the description itself."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.conftest import SECRET
from tests.receiver.api.conftest import Caller
from tests.receiver.conftest import Serve
from tests.receiver.edge import accepted, delivery
from tests.workers.schedule.given import KEY, served
from workers import api_keys
from workers.app import Runtime
from workers.settings import Source

EXAMPLES = 4
"""For each operation and phase; beside these each operation has what covers the corners of its types."""


@pytest.mark.parametrize("backend", ["servers"], indirect=True)
def test_no_request_whatever_is_answered_otherwise_than_described(
    serve: Serve, runtime: Runtime, tmp_path: Path
) -> None:
    with served(rate_limit=10**9) as api_url:
        source = Source(provider="hisab", secrets=SECRET, api_key=KEY, api_url=api_url)
        edge = serve(runtime, sources={"shop": source}, api_rate=10**6, failed_verifications=10**6)
        made = api_keys.create(runtime.engine, "test", ["full"], actor="test", now=datetime.now(UTC))
        caller = Caller(edge.client, made.key)
        for number in range(3):
            accepted(edge.post(delivery(number)))
        caller.post("/endpoints", {"url": "https://example.com/hooks", "event_types": ["*"]}, status=201)
        caller.post("/messages", {"type": "receipt.issued", "data": {}}, status=202)

        run = [
            "run", f"http://127.0.0.1:{edge.port}/api/v1/openapi.json", "--header", f"Authorization: Bearer {made.key}",
            "--max-examples", str(EXAMPLES), "--seed", "1", "--generation-database", "none", "--no-color",
            "--checks", "all", "--exclude-checks", "positive_data_acceptance",
            # It would end the key that it calls with.
            "--exclude-path", "/keys/{key_id}/revoke",
            "--continue-on-failure",
        ]  # fmt: skip
        program = Path(sys.executable).with_name("schemathesis")
        ended = subprocess.run([program, *run], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout[-20_000:]
    generated = re.search(r"(\d+) generated", ended.stdout)
    assert generated is not None
    assert int(generated[1]) >= 2_000
    assert "Stateful" in ended.stdout
