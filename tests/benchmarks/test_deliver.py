from __future__ import annotations

import os
import sys
from pathlib import Path

import httpx
import pytest

from benchmarks.deliver import report
from benchmarks.exchanges import exchanged
from benchmarks.servers import ServerError
from benchmarks.sink import SLOW, sink
from tests.services import free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark listens on 127.0.0.1 to 127.0.0.20")


def test_the_sink_takes_what_the_bare_loop_sends_and_tells_when_it_came(tmp_path: Path) -> None:
    with sink(tmp_path, dict(os.environ), slowness=0.0) as found:
        done = exchanged(found.urls(), 60, 7)

        assert done.count == 60
        assert done.rate > 0
        assert found.count() == 60 + 20  # one to each endpoint before the clock starts
        moments = [at for _, at in found.arrivals()]
        assert moments == sorted(moments)
        assert found.count() == 0


def test_a_slow_path_is_answered_when_its_time_has_come(tmp_path: Path) -> None:
    with sink(tmp_path, dict(os.environ), slowness=0.2) as found:
        answer = httpx.post(found.urls(SLOW)[0], headers={"webhook-id": "msg_1"}, content=b"{}", trust_env=False)

        assert answer.status_code == 202
        assert answer.elapsed.total_seconds() >= 0.2
        assert [message_id for message_id, _ in found.arrivals()] == ["msg_1"]


def test_a_bare_loop_that_reaches_nobody_says_so_in_one_line() -> None:
    with pytest.raises(ServerError, match=r"the bare loop: no connection: connection refused"):
        exchanged([f"http://127.0.0.1:{free_port()}/hook"], 1, 1)


def test_each_rate_stands_beside_the_loop_with_as_many_endpoints(capsys: pytest.CaptureFixture[str]) -> None:
    report(
        {
            "bare loop, one endpoint": [1000.0, 1200.0, 800.0],
            "bare loop, 20 endpoints": [2000.0, 2000.0, 2000.0],
            "billhook, one endpoint": [500.0, 900.0, 400.0],
            "billhook, 20 endpoints": [500.0, 500.0, 500.0],
            "a Celery task for each": [100.0, 100.0, 100.0],
        }
    )

    lines = {line[:28].strip(): line[28:].split() for line in capsys.readouterr().out.splitlines()}
    assert lines["billhook, one endpoint"] == ["500", "0.50", "(0.50-0.75)", "5.00", "(4.00-9.00)"]
    assert lines["billhook, 20 endpoints"] == ["500", "0.25", "(0.25-0.25)", "5.00", "(5.00-5.00)"]
