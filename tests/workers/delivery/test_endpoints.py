from __future__ import annotations

import base64
import logging

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from tests.workers.given import NOW, only, rows
from workers import database
from workers.app import Runtime
from workers.delivery import endpoints
from workers.delivery.endpoints import EndpointError
from workers.models import Endpoint
from workers.vault import decrypt, open_vault

URL = "https://books.example.com/hooks?token=t0ken"


def secret_of(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(range(size))).decode()


def add(runtime: Runtime, url: str = URL, *, private: bool = False, **options: object) -> tuple[str, str]:
    vault = open_vault(runtime.settings)
    return endpoints.add(runtime.engine, vault, url, allow_private=private, now=NOW, **options)  # type: ignore[arg-type]


def test_an_endpoint_is_stored_with_what_was_given(runtime: Runtime) -> None:
    endpoint_id, _ = add(runtime, event_types=["receipt.*", "customer.created"], description="Books")

    (row,) = endpoints.everyone(runtime.engine)
    assert (row.id, row.url, row.description, row.status) == (endpoint_id, URL, "Books", "enabled")
    assert (row.event_types, row.disabled_reason, row.created_at) == (["receipt.*", "customer.created"], None, NOW)
    assert endpoint_id.startswith("ep_")


def test_a_secret_is_made_and_told_once(runtime: Runtime) -> None:
    _, one = add(runtime)
    _, two = add(runtime)

    assert one != two
    assert one.startswith("whsec_")
    assert len(base64.b64decode(one.removeprefix("whsec_"), validate=True)) == 32
    assert not hasattr(endpoints.everyone(runtime.engine)[0], "secret")


def test_a_secret_is_encrypted_at_rest_and_never_logged(
    runtime: Runtime, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with capture_logs() as lines, caplog.at_level(logging.DEBUG):
        _, secret = add(runtime)

    stored = only(runtime.engine, Endpoint).secret
    key = secret.removeprefix("whsec_")
    assert key.encode() not in stored
    assert base64.b64decode(key) not in stored
    assert decrypt(open_vault(runtime.settings), stored) == secret
    output = capsys.readouterr()
    assert key not in str(lines) + caplog.text + output.out + output.err


def test_a_secret_may_be_brought(runtime: Runtime) -> None:
    for size in (24, 32, 64):
        assert add(runtime, secret=secret_of(size))[1] == secret_of(size)


def test_a_secret_that_is_none_is_refused_and_not_repeated(runtime: Runtime) -> None:
    for secret in (secret_of(23), secret_of(65), "whsec_not base64!", "whsec_", "plain-text-secret"):
        with pytest.raises(EndpointError) as failed:
            add(runtime, secret=secret)
        assert secret.removeprefix("whsec_") == "" or secret.removeprefix("whsec_") not in str(failed.value)
    assert rows(runtime.engine, Endpoint) == []


def test_a_url_that_nothing_may_be_sent_to_is_refused(runtime: Runtime) -> None:
    for url in (
        "ftp://books.example.com/",
        "http://127.0.0.1:8080/",
        "http://169.254.169.254/latest/meta-data/",
        "http://user:word@books.example.com/",
        "books.example.com",
    ):
        with pytest.raises(EndpointError):
            add(runtime, url)
    assert rows(runtime.engine, Endpoint) == []


def test_a_private_url_is_taken_where_that_is_allowed(runtime: Runtime) -> None:
    add(runtime, "http://127.0.0.1:8080/", private=True)

    with pytest.raises(EndpointError, match="metadata"):
        add(runtime, "http://169.254.169.254/", private=True)


def test_a_type_that_could_never_match_is_refused(runtime: Runtime) -> None:
    for pattern in ("", "receipt.", "*.issued", "receipt*", "Receipt.Issued", "receipt..issued", "a b"):
        with pytest.raises(EndpointError, match="event type"):
            add(runtime, event_types=["customer.*", pattern])
    assert rows(runtime.engine, Endpoint) == []


def test_an_endpoint_that_would_get_nothing_is_refused(runtime: Runtime) -> None:
    with pytest.raises(EndpointError, match="event type"):
        add(runtime, event_types=[])


def test_an_endpoint_is_disabled_with_the_first_reason(runtime: Runtime) -> None:
    endpoint_id, _ = add(runtime)
    other, _ = add(runtime)

    for reason in ("it answered 410 Gone", "later"):
        with database.write(runtime.engine) as connection:
            endpoints.disable(connection, endpoint_id, reason)

    found = {row.id: (row.status, row.disabled_reason) for row in endpoints.everyone(runtime.engine)}
    assert found == {endpoint_id: ("disabled", "it answered 410 Gone"), other: ("enabled", None)}


def test_endpoints_are_listed_oldest_first(engine: Engine, runtime: Runtime) -> None:
    ids = [add(runtime)[0] for _ in range(3)]

    assert [row.id for row in endpoints.everyone(engine)] == sorted(ids)
