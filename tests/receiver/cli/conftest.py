from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from receiver.cli import main
from tests.receiver.cli.terminal import Ended
from workers import database, logs
from workers.app import Runtime
from workers.settings import Settings

Billhook = Callable[..., Ended]


@pytest.fixture
def billhook(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Billhook]:
    """Run a command in this process, which spares it the start; how it ended."""
    opened: list[Engine] = []
    connect = database.connect

    def connected(settings: Settings) -> Engine:
        opened.append(connect(settings))
        return opened[-1]

    # A command may leave connections to the end of its process, and logs to whom the process belongs.
    monkeypatch.setattr(database, "connect", connected)
    monkeypatch.setattr(logs, "configure", lambda _settings: None)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["billhook", *arguments])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        return Ended(status, *capsys.readouterr())

    with capture_logs():  # which a receiver of the test would print among what a command prints
        yield run
    for engine in opened:
        engine.dispose()


@pytest.fixture
def configured(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The environment says what the settings of `runtime` say; private networks are not allowed."""
    settings = runtime.settings
    variables = {
        "STATE_DIR": str(settings.state_dir),
        "REDIS_PREFIX": settings.redis_prefix,
        "ENCRYPTION_KEYS": settings.encryption_keys[0].get_secret_value(),
        "SOURCES__SHOP__PROVIDER": "hisab",
        "SOURCES__SHOP__SECRETS": settings.sources["shop"].secrets[0].get_secret_value(),
        "SOURCES__SHOP__API_KEY": "hisab_test_key",
        "SOURCES__SHOP__TIMEZONE": "Africa/Casablanca",
    }
    if settings.database_url:
        variables["DATABASE_URL"] = settings.database_url.get_secret_value()
    if settings.redis_url:
        variables["REDIS_URL"] = settings.redis_url.get_secret_value()
    for name, value in variables.items():
        monkeypatch.setenv(f"BILLHOOK_{name}", value)
    assert "BILLHOOK_EGRESS_NETWORKS" not in os.environ
    return settings
