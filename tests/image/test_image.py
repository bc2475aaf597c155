"""The image, built by the Dockerfile's own steps and run as an engine would: see `places` for where.

The strongest place that the machine allows is taken, and said. TEST_IMAGE=root and TEST_IMAGE=folder insist on one.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from redis import Redis

from tests.acceptance.stack import SECRET, await_, delivery
from tests.conftest import new_database
from tests.image import image, machine
from tests.image.image import Image
from tests.image.places import Folder, Place, Root
from tests.image.test_dockerfile import LOCKS, pins
from tests.services import free_port

PYTHON_OF_THE_ROOT = "3.11.2"
HANDLER = """
import os
from handlers import on

@on("invoice.paid")
def receipt(event, ctx):
    ctx.emit("receipt.issued", {"user": os.getuid()})
"""


def place(folder: Path) -> Place:
    """The strongest place that this machine allows."""
    locks = [image.ROOT / lock for lock in LOCKS]
    insisted = os.environ.get("TEST_IMAGE", "")
    lacks = "one was not asked for" if insisted == "folder" else machine.lacks()
    if not lacks:
        try:
            return Root(folder, machine.clean_root(), machine.wheels(locks, PYTHON_OF_THE_ROOT))
        except subprocess.CalledProcessError as error:
            lacks = f"{error.cmd[0]} failed"
    assert insisted != "root", lacks
    return Folder(folder, machine.wheels(locks, platform.python_version()), lacks)


@pytest.fixture(scope="module")
def built(request: pytest.FixtureRequest) -> Iterator[Image]:
    """The image."""
    with tempfile.TemporaryDirectory(prefix="billhook-image-", dir=machine.scratch()) as folder:
        Path(folder).chmod(0o755)
        chosen = place(Path(folder))
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            sys.stderr.write(f"\nthe image is built in {chosen.says}\n")
        made = image.build(chosen, {"VERSION": "1.2.3", "REVISION": "abc"})
        made.path("/app/receipts.py").write_text(HANDLER)
        yield made


@pytest.fixture(scope="module")
def options(built: Image, postgres_url: str, redis_url: str) -> Iterator[dict[str, str]]:
    """Options for a database that the image itself has migrated."""
    prefix = f"billhook-image-{uuid.uuid4().hex[:12]}:"
    with new_database(postgres_url) as database_url:
        chosen = {
            "database_url": database_url,
            "redis_url": redis_url,
            "redis_prefix": prefix,
            "encryption_keys": "G0jP2vqcdPz6m2nV7FvH1k9H0Xx0vVn3vUoS4yqcF2U=",
            "sources": json.dumps({"shop": {"provider": "hisab", "secrets": [SECRET]}}),
            "handlers": "receipts.py",
            "listen": f"0.0.0.0:{free_port()}",
        }
        migrated = built.billhook("migrate", **chosen)
        assert (migrated.returncode, migrated.stdout[:19]) == (0, "migrated the schema"), migrated.stderr
        yield chosen
    with Redis.from_url(redis_url) as redis:
        for key in redis.scan_iter(f"{prefix}*"):
            redis.delete(key)


def test_it_has_what_is_locked_and_the_project_and_nothing_else(built: Image) -> None:
    listing = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    listed = json.loads(built.run("python", "-c", listing).stdout)
    installed = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in listed.items()}

    locked = {name: pin.removeprefix("==").partition(" ; ") for name, pin in pins("requirements-image.lock").items()}
    assert installed.pop("billhook") == "0.1.0"
    assert installed.items() <= {(name, version) for name, (version, _, _) in locked.items()}
    assert {name for name, (_, _, condition) in locked.items() if not condition} <= installed.keys()


def test_it_has_neither_a_compiler_nor_what_it_was_built_with(built: Image) -> None:
    programs = {path.name for path in built.path("/opt/billhook/bin").iterdir()}

    assert "billhook" in programs
    assert {"pip", "hatchling"} & programs == set()
    if built.place.is_confined:
        assert built.run("sh", "-c", "command -v cc gcc g++ make").stdout == ""


def test_all_of_it_is_compiled(built: Image) -> None:
    code = [path for path in built.path("/opt/billhook/lib").rglob("*.py") if "__pycache__" not in path.parts]
    compiled = {
        path.parent.parent / f"{path.name.partition('.')[0]}.py"
        for path in built.path("/opt/billhook/lib").rglob("__pycache__/*.pyc")
    }

    assert len(code) > 1000
    assert [path for path in code if path not in compiled] == []
    if built.place.is_confined:
        assert list(built.path("/usr/lib/python3.11/asyncio/__pycache__").glob("tasks.*.pyc"))


def test_it_says_what_it_is(built: Image) -> None:
    titles = {name.removeprefix("org.opencontainers.image."): value for name, value in built.labels.items()}

    assert (titles["title"], titles["version"], titles["revision"]) == ("Billhook", "1.2.3", "abc")
    assert titles["licenses"] == "Apache-2.0"
    assert built.user == "10001:10001"
    assert (built.entrypoint, built.command) == (["billhook"], ["serve"])


def test_its_settings_are_those_of_a_container(built: Image) -> None:
    shown = built.billhook("settings", "--json")

    rows = {row["option"]: row for row in map(json.loads, shown.stdout.splitlines())}
    assert shown.stderr == ""
    assert (rows["BILLHOOK_LISTEN"]["value"], rows["BILLHOOK_LISTEN"]["from"]) == ("0.0.0.0:8000", "BILLHOOK_LISTEN")
    assert rows["BILLHOOK_STATE_DIR"]["value"].endswith("/var/lib/billhook")
    assert {name for name, row in rows.items() if row["from"] != "default"} == {"BILLHOOK_LISTEN", "BILLHOOK_STATE_DIR"}


def test_only_the_folder_for_what_is_temporary_can_be_written(built: Image) -> None:
    tried = built.run(
        "sh", "-c", "for f in / /app /opt/billhook /var/lib/billhook /tmp; do touch $f/x && echo $f; done"
    )

    if built.place.is_confined:
        assert tried.stdout.split() == ["/tmp"]
        owned = [path for path in built.path("/").rglob("*") if path.lstat().st_uid == 10001]
        assert owned == [built.path("/var/lib/billhook")]


def test_a_schema_that_is_there_is_left_as_it_is(built: Image, options: dict[str, str]) -> None:
    again = built.billhook("migrate", **options)

    assert again.stdout.startswith("the schema is at ")
    assert (again.returncode, again.stderr) == (0, "")


def test_all_commands_do_their_work_as_process_1_and_end_when_they_are_told_to(
    built: Image, options: dict[str, str]
) -> None:
    url = f"http://127.0.0.1:{options['listen'].rpartition(':')[2]}"
    with (
        built.started(**options) as serve,
        built.started("work", **options) as work,
        built.started("beat", **options) as beat,
    ):
        serve.says("receiving on")
        work.says("working on events, deliveries, schedules with 1 handler")
        beat.says("ticking")
        assert httpx.get(f"{url}/readyz", trust_env=False).json() == {"status": "ok"}
        await_(lambda: all(process.healthy() for process in (serve, work, beat)), "all are healthy")

        request = delivery(1)
        answer = httpx.post(f"{url}/webhooks/shop", content=request.body, headers=request.headers, trust_env=False)
        assert answer.status_code == 202
        await_(lambda: emitted(options), "the handler has run")

        for process in (serve, work, beat) if built.place.is_process_1 else ():
            status = process.status()
            assert status["NSpid"].split()[1:] == ["1"]
            if built.place.is_confined:
                assert set(status["Uid"].split() + status["Gid"].split()) == {"10001"}
                assert (int(status["CapEff"], 16), int(status["CapBnd"], 16), status["NoNewPrivs"]) == (0, 0, "1")
        assert {name: process.stop() for name, process in (("serve", serve), ("work", work), ("beat", beat))} == {
            "serve": 0,
            "work": 0,
            "beat": 0,
        }
        assert "Traceback" not in serve.log + work.log + beat.log
    if built.place.is_confined:
        assert emitted(options) == [{"user": 10001}]


def test_a_receiver_that_does_not_answer_is_not_healthy(built: Image, options: dict[str, str]) -> None:
    with built.started(**options) as serve:
        serve.says("receiving on")
        assert serve.healthy()

        os.kill(serve.pid, signal.SIGSTOP)

        assert not serve.healthy()


@pytest.mark.parametrize(("command", "status"), [("serve", 0), ("work", 0), ("beat", 0), ("migrate", 143)])
def test_a_process_1_that_is_told_to_end_while_it_still_starts_ends_at_once(
    built: Image, options: dict[str, str], command: str, status: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        options = {**options, "database_url": f"postgresql://billhook@127.0.0.1:{silent.getsockname()[1]}/billhook"}
        with built.started(command, **options) as process:
            connection, _ = silent.accept()  # it waits for the database now
            with connection:
                assert process.stop() == status


def test_any_other_user_will_do(built: Image, options: dict[str, str]) -> None:
    audited = replace(built, user="1000650000:0").billhook("audit", **options)

    assert audited.stdout.endswith(": in balance\n"), audited.stderr


def emitted(options: dict[str, str]) -> list[dict[str, Any]]:
    """What the handler has emitted."""
    with psycopg.connect(options["database_url"]) as connection:
        return [json.loads(body)["data"] for (body,) in connection.execute("SELECT body FROM messages")]
