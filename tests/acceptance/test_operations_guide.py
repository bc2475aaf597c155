"""What the operations page says to do for a backup, a restore and a lost Redis, done by a shell as it stands there.

The programs of PostgreSQL are those of the private server that the tests bring along, so that they fit it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psycopg
import pytest
from redis import Redis

from handlers.providers.hisab.client import HisabClient
from handlers.providers.hisab.sandbox import create_app
from handlers.testing import SignedRequest
from tests.acceptance.forked import forking
from tests.acceptance.stack import SECRET, Sink, Stack, await_, delivery
from tests.acceptance.test_rolling import Load
from tests.handlers.providers.sandbox.served import serving
from tests.services import private_postgres, private_redis
from tests.workers.given import rows
from tests.workers.test_inbox import arrival
from workers import database, inbox
from workers.audit import audit
from workers.models import Delivery, EventRow
from workers.settings import Settings
from workers.vault import decrypt, open_vault

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
KEY = "hisab_test_sandbox"
HANDLERS = """
import pathlib
from handlers import on

@on("invoice.*")
def receipt(event, ctx):
    with (pathlib.Path(__file__).parent / "handled").open("a") as file:
        file.write(f"{event.type} {event.object_id}\\n")
    ctx.emit("receipt.issued", {"invoice": event.object_id})
"""
REDIS_CLI = """#!{python}
import sys
from redis import Redis

_, option, url, *command = sys.argv
assert option == "-u"
answer = Redis.from_url(url).execute_command(*command)
print("OK" if answer is True else answer)
"""
"""For machines that have no `redis-cli`: what the page uses of it."""


def blocks(heading: str) -> list[str]:
    """The console blocks below a heading, in their order."""
    found = re.search(rf"^(#+) {heading}\n(.*?)(?=^#{{1,3}} |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    fenced = re.findall(r"^( *)```console\n(.*?)^\1```$", found[2], re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in fenced]


@dataclass(frozen=True)
class Operator:
    """Who reads the page at a terminal: an environment, a folder, and programs on the path."""

    environment: dict[str, str]
    folder: Path
    programs: tuple[Path, ...]

    def follow(self, block: str) -> list[str]:
        """Give each command of a block, check what is shown of its answer, and return what each said."""
        given = re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
        assert given
        return [self.give(command, shown) for command, shown in given]

    def give(self, command: str, shown: str = "") -> str:
        """Give one command; what it said."""
        path = ":".join(map(str, (*self.programs, os.environ["PATH"])))
        ended = subprocess.run(
            ["sh", "-c", command],
            env=self.environment | {"PATH": path},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, (command, ended)
        for line in shown.splitlines():
            assert re.search(re.escape(line).replace("…", ".*"), ended.stdout), (command, line, ended)
        return ended.stdout


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `billhook`, and with `redis-cli` where the machine has none."""
    folder = tmp_path_factory.mktemp("bin")
    if shutil.which("redis-cli") is None:
        (folder / "redis-cli").write_text(REDIS_CLI.format(python=sys.executable))
        (folder / "redis-cli").chmod(0o755)
    with forking(folder / "billhook"):
        yield folder


@dataclass(frozen=True)
class Site:
    """A Billhook whose databases are all its own, and who looks after it."""

    stack: Stack
    operator: Operator
    sink: Sink
    postgres_url: str
    """Without a database."""

    def execute(self, statement: str) -> None:
        with psycopg.connect(f"{self.postgres_url}/postgres", autocommit=True) as connection:
            connection.execute(statement.encode())

    def kill(self) -> None:
        """Have all processes end at once, with the machines that they ran on."""
        for name in list(self.stack.processes):
            self.stack.kill(name)

    def post(self, requests: Iterable[SignedRequest]) -> list[int]:
        """Deliver; the statuses of the answers."""
        with httpx.Client(trust_env=False, timeout=30) as client:
            url = f"{self.stack.url}/webhooks/shop"
            return [client.post(url, content=one.body, headers=one.headers).status_code for one in requests]

    def handled(self) -> Counter[str]:
        """How often the handler was given each."""
        noted = self.stack.folder / "handled"
        return Counter(noted.read_text().splitlines() if noted.exists() else ())

    def times(self) -> Counter[str]:
        """How often each message arrived."""
        return Counter(headers["webhook-id"] for headers, _ in self.sink.received)

    def quiet(self, sent: int) -> None:
        """Wait until so many messages have arrived and nothing is left to do."""
        await_(lambda: len(self.sink.received) >= sent, f"{sent} messages arrive")
        await_(lambda: self.stack.events("waiting") == 0, "no event waits")
        succeeded = {"succeeded"}
        await_(lambda: {row.status for row in rows(self.stack.engine, Delivery)} == succeeded, "that is written down")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Iterator[Site]:
    """A receiver, a worker and a beat at work; the handler notes what it was given and sends a message of each."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "my_handlers.py").write_text(HANDLERS)
    with private_postgres() as (postgres_url, of_postgres), private_redis() as (_, redis_url), Sink() as sink:
        environment = {
            "BILLHOOK_DATABASE_URL": f"{postgres_url.replace('postgres@', 'billhook@')}/billhook",
            "BILLHOOK_REDIS_URL": redis_url,
            "BILLHOOK_ENCRYPTION_KEYS": "G0jP2vqcdPz6m2nV7FvH1k9H0Xx0vVn3vUoS4yqcF2U=",
            "ADMIN_URL": f"{postgres_url}/postgres",
        }
        stack = Stack(folder, environment)
        operator = Operator(stack.environ, folder, (programs, of_postgres))
        found = Site(stack, operator, sink, postgres_url)
        found.execute("CREATE ROLE billhook LOGIN")
        found.execute("CREATE DATABASE billhook OWNER billhook")
        operator.give("billhook migrate")
        operator.give(f"billhook endpoints add {sink.url} --rate 0")
        stack.start("serve", "work", "beat")
        yield found
        found.kill()
        stack.stop()


@contextmanager
def hisab(site: Site) -> Iterator[HisabClient]:
    """Hisab's sandbox, which sends what is done there to the receiver, once; commands may ask its API."""
    target = (f"{site.stack.url}/webhooks/shop", SECRET)
    with serving(create_app(webhooks=[target], rate_limit=10**6, retry_delays=())) as url:
        source = {"provider": "hisab", "secrets": [SECRET], "api_key": KEY, "api_url": f"{url}/api/v1"}
        site.operator.environment["BILLHOOK_SOURCES"] = json.dumps({"shop": source})
        with HisabClient(api_key=KEY, api_url=f"{url}/api/v1") as client:
            yield client


def paid(client: HisabClient) -> list[str]:
    """Make an invoice that is paid; what has happened to it."""
    item = {"description": "Integration services", "quantity": 8, "unit_price": 1300}
    today = datetime.now(UTC).date().isoformat()
    invoice_id = str(client.invoices.create(customer_id="cus_2b81fe", issue_date=today, items=[item])["id"])
    client.invoices.finalize(invoice_id)
    client.invoices.pay(invoice_id)
    return [f"invoice.{what} {invoice_id}" for what in ("created", "finalized", "paid")]


def named(numbers: range) -> list[str]:
    return [f"invoice.paid inv_{number}" for number in numbers]


def test_a_redis_that_is_emptied_under_load_loses_and_doubles_nothing(site: Site) -> None:
    (to_empty,) = blocks("Redis")
    load = Load(site.stack.url, threads=2)
    with load.going():
        for _ in range(2):
            await_(lambda before=load.posted: load.posted > before + 50, "deliveries come")  # type: ignore[misc]
            site.operator.follow(to_empty)
        await_(lambda before=load.posted: load.posted > before + 50, "deliveries come")  # type: ignore[misc]
    site.quiet(load.posted)

    assert load.answers == {202: load.posted}
    assert site.post([delivery(0)]) == [200]
    assert site.handled() == Counter(named(range(load.posted)))
    assert set(site.times().values()) == {1}
    assert len(site.times()) == load.posted
    assert site.stack.balance().holds


def test_a_database_that_is_set_back_gets_back_what_it_lost_exactly_once(site: Site) -> None:
    stack, operator, sink = site.stack, site.operator, site.sink
    to_dump, to_restore = blocks("Backup and restore")[:2]
    to_look, to_take_in, to_end = blocks("A database that was set back")
    earlier, handled, sent = stack.events(), site.handled(), len(sink.received)
    before, since = [[delivery(number) for number in numbers] for numbers in (BEFORE, SINCE)]
    with hisab(site) as client:
        # Given events before a backup and after it, all handled and sent on
        assert site.post(before) == [202] * 10
        kept = named(BEFORE) + paid(client)
        site.quiet(sent + 13)
        operator.follow(to_dump)
        assert site.post(since) == [202] * 10
        lost = named(SINCE) + paid(client)
        site.quiet(sent + 26)
        assert site.handled() - handled == Counter(kept + lost)
        ids = set(site.times())

        # When the database is lost under them, they are lost too, and it is restored as the page says
        site.execute("DROP DATABASE billhook WITH (FORCE)")
        assert site.post([delivery(-99)]) == [503]
        site.kill()
        operator.follow(to_restore)
        operator.follow(to_look)
        assert stack.events() == earlier + 13
        stack.start("serve")
        with Redis.from_url(stack.environment["BILLHOOK_REDIS_URL"]) as redis:
            assert len(list(redis.scan_iter("billhook:seen:*"))) >= 26, "Redis knows them all"

        # Then what is sent again is taken in where it was lost, and the rest is found at the provider
        assert site.post(before + since) == [200] * 10 + [202] * 10
        _, taken = operator.follow(to_take_in)
        assert taken.splitlines()[1].split() == ["shop", "8", "3", "5", "0"], "three, and the sandbox's two customers"
        assert operator.follow(to_take_in)[1].splitlines()[1].split() == ["shop", "8", "8", "0", "0"]
        stack.start("work", "beat")
        site.quiet(sent + 39)
        operator.follow(to_end)

    # And each is there once; outside only what was lost was done twice, its messages under new ids
    assert site.handled() - handled == Counter(kept + lost * 2)
    stored = [f"{row.type} {row.object_id}" for row in rows(stack.engine, EventRow) if row.object_kind == "invoice"]
    assert Counter(stored) == handled + Counter(kept + lost)
    assert set(site.times().values()) == {1}
    assert len(set(site.times()) - ids) == 13
    assert stack.balance().holds


BEFORE, SINCE = range(-10, 0), range(-20, -10)


def test_a_database_of_sqlite_is_backed_up_while_it_is_written_and_restored_with_its_key(
    tmp_path: Path, programs: Path
) -> None:
    # Given a database that somebody is writing to, with an endpoint's secret, while it is copied
    settings = Settings(state_dir=tmp_path / ".billhook")
    operator = Operator({}, tmp_path, (programs, Path(sys.executable).parent))
    to_copy, to_restore = blocks("Backup and restore")[2:]
    earlier, under_way, later = (arrival(f"del_{number}", b"%d" % number) for number in range(3))
    engine = database.connect(settings)
    database.ensure_schema(settings, engine)
    sealed = open_vault(settings).encrypt(b"whsec_kept")
    inbox.accept(engine, [earlier])
    with database.write(engine) as connection:
        inbox.store(connection, [under_way])
        operator.follow(to_copy)
    inbox.accept(engine, [later])

    # When all of it is gone, and restored as the page says
    engine.dispose()
    shutil.rmtree(settings.state_dir)
    settings.state_dir.mkdir()
    operator.follow(to_restore)

    # Then what was committed by then is known, nothing else is, and the secret can be read
    restored = database.connect(settings)
    assert [row.id for row in rows(restored, EventRow)] == [earlier.id]
    again = [arrival(f"del_{number}", b"%d" % number) for number in range(3)]
    assert [outcome.kind for outcome in inbox.accept(restored, again)] == ["duplicate", "accepted", "accepted"]
    assert decrypt(open_vault(settings), sealed) == "whsec_kept"
    assert audit(restored).holds
    restored.dispose()
