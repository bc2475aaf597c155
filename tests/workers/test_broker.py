"""Both clients of Redis, told of the same servers by one URL: with TLS, with sentinels, with passwords of both."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis import RedisError
from structlog.testing import capture_logs

from receiver.cli.doctor import bell
from receiver.cli.doctor.finding import Finding, Site
from tests.redis_servers import NAME, PASSWORD, SENTINEL_PASSWORD, Watched, door, watched
from tests.services import private_redis
from tests.workers.delivery.authority import LOOPBACK, Authority
from tests.workers.given import restarted, rung
from workers import app, broker, embedded
from workers.app import PROCESS, Runtime, ring
from workers.redis_url import parse
from workers.settings import Settings, SettingsError

SECRETS = f":{quote(PASSWORD, safe='')}@"
OF_SENTINELS = f"sentinel_password={quote(SENTINEL_PASSWORD, safe='')}"


@dataclass(frozen=True)
class Files:
    """What a client of a TLS server needs, as PEM in files."""

    authority: Path
    stranger: Path
    certificate: Path
    key: Path
    locked: Path


AUTHORITY = Authority("of the platform")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder, client = tmp_path_factory.mktemp("tls"), AUTHORITY.issue("billhook")
    found = Files(*(folder / f"{name}.pem" for name in ("authority", "stranger", "certificate", "key", "locked")))
    found.authority.write_text(AUTHORITY.certificate)
    found.stranger.write_text(Authority("of somebody else").certificate)
    found.certificate.write_text(client.certificate)
    found.key.write_text(client.both().removeprefix(client.certificate))
    found.locked.write_text(client.both(password=b"opens it"))
    return found


@contextmanager
def started(folder: Path, url: str) -> Iterator[Runtime]:
    runtime = restarted(Settings(state_dir=folder / "state", redis_url=url))
    try:
        yield runtime
    finally:
        runtime.redis.close()
        runtime.engine.dispose()
        app.app.close()


def works(folder: Path, url: str) -> bool:
    """Whether both clients reach the server; either both do or none."""
    with started(folder, url) as runtime:
        heard = ring(PROCESS, ["evt_1"])
        try:
            assert rung(runtime, "events") == [(PROCESS, ["evt_1"])]
        except RedisError:
            assert not heard
        return heard


@pytest.fixture(scope="module")
def tls_port() -> Iterator[int]:
    """A server whose certificate is for 127.0.0.1."""
    with private_redis() as (_, url), door(port_of(url), AUTHORITY.server(LOOPBACK)) as port:
        yield port


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


@pytest.mark.parametrize(
    ("host", "options", "reached"),
    [
        ("127.0.0.1", "?ssl_ca_certs={authority}", True),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "?ssl_ca_certs={stranger}", False),
        ("127.0.0.1", "?ssl_cert_reqs=none", True),
        ("localhost", "?ssl_ca_certs={authority}", False),
        ("localhost", "?ssl_ca_certs={authority}&ssl_check_hostname=false", True),
    ],
)
def test_a_server_is_believed_by_its_certificate(
    host: str, options: str, reached: bool, tls_port: int, files: Files, tmp_path: Path
) -> None:
    assert works(tmp_path, f"rediss://{host}:{tls_port}/1{options.format(**vars(files))}") == reached


@pytest.fixture(scope="module")
def asking_port() -> Iterator[int]:
    """A server that wants to see a certificate too."""
    context = AUTHORITY.server(LOOPBACK, asks=AUTHORITY.certificate)
    with private_redis() as (_, url), door(port_of(url), context) as port:
        yield port


@pytest.mark.parametrize(
    ("options", "reached"),
    [
        ("", False),
        ("&ssl_certfile={certificate}&ssl_keyfile={key}", True),
        ("&ssl_certfile={locked}&ssl_password=opens%20it", True),
    ],
)
def test_a_client_shows_its_certificate(
    options: str, reached: bool, asking_port: int, files: Files, tmp_path: Path
) -> None:
    url = f"rediss://127.0.0.1:{asking_port}?ssl_ca_certs={files.authority}{options.format(**vars(files))}"

    assert works(tmp_path, url) == reached


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("ssl_ca_certs=/nowhere/ca.pem", "ssl_ca_certs cannot be read: No such file or directory"),
        ("ssl_ca_certs={key}", "ssl_ca_certs holds no certificate"),
        ("ssl_certfile={certificate}", "ssl_certfile holds no certificate and key that belong together"),
        ("ssl_certfile={locked}", "or ssl_password does not open it"),
        ("ssl_certfile={locked}&ssl_password=s3cret", "or ssl_password does not open it"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_at_the_start(
    options: str, said: str, files: Files, tmp_path: Path
) -> None:
    settings = Settings(state_dir=tmp_path, redis_url=f"rediss://127.0.0.1:1?{options.format(**vars(files))}")

    with pytest.raises(SettingsError, match=f"BILLHOOK_REDIS_URL: .*{said}") as refused:
        app.start(settings)

    assert "s3cret" not in str(refused.value)


def test_both_clients_use_the_database_that_the_url_of_a_socket_names(tmp_path: Path) -> None:
    server = embedded.ensure(tmp_path / "state")

    assert works(tmp_path, f"{server.redis_url}?db=3")


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched(tmp_path_factory.mktemp("redis")) as servers:
        yield servers


def test_sentinels_say_where_the_master_is(redis: Watched, tmp_path: Path) -> None:
    assert works(tmp_path, f"redis+sentinel://{SECRETS}{redis.hosts}/{NAME}/2?{OF_SENTINELS}")

    with redis.ask(redis.master()) as master:
        assert {key.split("=")[0] for key in master.info("keyspace")} == {"db2"}


@pytest.mark.parametrize(
    ("credentials", "name", "options"),
    [
        (SECRETS, NAME, ""),
        (SECRETS, NAME, "?sentinel_password=another-s3cret"),
        (":another-s3cret@", NAME, f"?{OF_SENTINELS}"),
        (SECRETS, "another", f"?{OF_SENTINELS}"),
    ],
)
def test_a_wrong_password_or_name_is_an_outage_and_shows_nowhere(
    credentials: str, name: str, options: str, redis: Watched, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with capture_logs() as lines:
        assert not works(tmp_path, f"redis+sentinel://{credentials}{redis.hosts}/{name}{options}")

    for secret in (PASSWORD, SENTINEL_PASSWORD, "another-s3cret"):
        assert secret not in str(lines) + "".join(capfd.readouterr())


def test_the_first_sentinel_may_be_gone(redis: Watched, tmp_path: Path) -> None:
    hosts = f"127.0.0.1:1,{redis.hosts}"

    assert works(tmp_path, f"redis+sentinel://{SECRETS}{hosts}/{NAME}?{OF_SENTINELS}")


def test_the_doctor_names_the_master_and_the_sentinels_that_do_not_answer(redis: Watched, tmp_path: Path) -> None:
    def found(hosts: str) -> Finding:
        url = f"redis+sentinel://{SECRETS}{hosts}/{NAME}?{OF_SENTINELS}"
        settings = Settings(state_dir=tmp_path, redis_url=url)
        (sentinels,) = bell.of_sentinels(Site(settings, None, broker.client(parse(url), 5.0)))
        return sentinels

    master = f"the master of {NAME} is 127.0.0.1:{redis.master()}"
    assert found(redis.hosts) == Finding("sentinels", "ok", f"{master}; all 3 answer")
    some = found(f"{redis.hosts},127.0.0.1:1")
    assert (some.level, some.said) == ("warning", f"{master}; 1 of 4 do not answer: 127.0.0.1:1")


def test_threads_that_ask_at_once_lose_no_sentinel(redis: Watched) -> None:
    # Given two sentinels, of which the first is gone and the second takes its time
    url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{redis.sentinels[0]}/{NAME}?{OF_SENTINELS}"
    sentinels: Any = getattr(broker.client(parse(url), 5.0).connection_pool, "sentinel_manager")  # noqa: B009 - untyped
    gone, there = sentinels.sentinels
    both, answer = threading.Barrier(2), there.sentinel_masters
    there.sentinel_masters = lambda: (both.wait(10), answer())[1]

    # When two threads ask for the master at once
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(sentinels.discover_master, [NAME, NAME]))

    # Then both are known still, and who answered is asked first
    assert found == [("127.0.0.1", redis.master())] * 2
    assert sentinels.sentinels == [there, gone]


def test_tls_is_for_the_sentinels_and_for_the_servers(files: Files, tmp_path: Path) -> None:
    with watched(tmp_path, AUTHORITY.server(LOOPBACK)) as redis:
        rest = f"{SECRETS}{redis.hosts}/{NAME}?{OF_SENTINELS}"

        assert works(tmp_path, f"rediss+sentinel://{rest}&ssl_ca_certs={files.authority}")
        assert not works(tmp_path, f"rediss+sentinel://{rest}&ssl_ca_certs={files.stranger}")
