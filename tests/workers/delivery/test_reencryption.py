"""Re-encrypting: whatever is encrypted comes under the first key, once, whoever dies or changes it in between."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import LargeBinary

from tests.workers.delivery.certificates import certificate, key_of, pem
from tests.workers.given import NOW, only, rows
from workers import database, errands
from workers.app import Runtime
from workers.delivery import endpoints, headers, keys
from workers.delivery.egress import Egress
from workers.delivery.endpoints import EndpointSpec, Rules
from workers.delivery.reencryption import Found, Rewritten, outdated, reencrypt
from workers.models import AuditEntry, Endpoint, EndpointKey, Model
from workers.settings import Settings
from workers.vault import VaultError, decrypt, open_vault

OLD, NEW, STRANGE = (Fernet.generate_key().decode() for _ in range(3))
NOTHING = Found(Rewritten(), ())


def with_keys(runtime: Runtime, *written: str) -> Settings:
    return runtime.settings.model_copy(update={"encryption_keys": tuple(map(SecretStr, written))})


def add(runtime: Runtime, settings: Settings, **fields: Any) -> str:
    spec = EndpointSpec(url="https://books.example.com/hook", **fields)
    made = endpoints.add(runtime.engine, open_vault(settings), spec, Rules(Egress(), {"shop"}), actor="ada", now=NOW)
    return made.id


def again(runtime: Runtime, settings: Settings) -> Rewritten:
    return reencrypt(runtime.engine, settings, actor="ada@host", now=NOW)


def test_of_every_column_of_bytes_it_is_known_whether_it_is_encrypted() -> None:
    found = {
        str(column)
        for table in Model.metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, LargeBinary)
    }

    assert found == ENCRYPTED | PLAIN | GONE_WITHIN_A_DAY


ENCRYPTED = {"endpoints.headers", "endpoints.client_certificate", "endpoint_keys.secret"}
GONE_WITHIN_A_DAY = {"idempotency_keys.answer"}
PLAIN = {
    *("events.body", "events.body_hash", "messages.body", "steps.value", "attempts.response"),
    *("api_keys.digest", "idempotency_keys.request"),
}


def noted(runtime: Runtime) -> list[tuple[str, Any]]:
    return [(entry.actor, entry.detail) for entry in rows(runtime.engine, AuditEntry) if entry.action == "reencrypt"]


def test_all_that_an_endpoint_has_comes_under_the_first_key(runtime: Runtime) -> None:
    # Given an endpoint with two secrets, a header and a certificate, all under the old key
    old, both, new = with_keys(runtime, OLD), with_keys(runtime, NEW, OLD), with_keys(runtime, NEW)
    one = certificate()
    client = pem(one) + key_of(one)
    mine = add(runtime, old, signing="v1,v1a", headers={"X-Token": "t0ken"}, client_certificate=client)
    before = {row.id: decrypt(open_vault(old), row.secret) for row in rows(runtime.engine, EndpointKey)}

    # When it is encrypted anew
    assert outdated(runtime.engine, both) == Found(Rewritten(endpoints=1, values=4), ())
    assert again(runtime, both) == Rewritten(endpoints=1, values=4)

    # Then the new key alone opens all of it, to what it was
    vault, endpoint = open_vault(new), only(runtime.engine, Endpoint)
    assert {row.id: decrypt(vault, row.secret) for row in rows(runtime.engine, EndpointKey)} == before
    assert headers.opened(vault, endpoint.headers) == (("X-Token", "t0ken"),)
    assert decrypt(vault, endpoint.client_certificate) == client
    assert endpoint.id == mine
    # And once more there is nothing to do
    assert outdated(runtime.engine, new) == NOTHING
    assert again(runtime, both) == Rewritten()


def test_the_audit_log_has_who_did_it_and_how_much_and_no_secret(runtime: Runtime) -> None:
    add(runtime, with_keys(runtime, OLD))

    again(runtime, with_keys(runtime, NEW, OLD))

    assert noted(runtime) == [("ada@host", {"asked": {}, "endpoints": 1, "values": 1, "finished": True})]


def test_what_no_key_opens_is_named_and_left_and_holds_up_nothing_else(runtime: Runtime) -> None:
    strange = add(runtime, with_keys(runtime, STRANGE), headers={"X-Token": "t0ken"})
    add(runtime, with_keys(runtime, OLD))
    both = with_keys(runtime, NEW, OLD)
    stored = rows(runtime.engine, Endpoint)[0].headers

    assert outdated(runtime.engine, both) == Found(Rewritten(endpoints=1, values=1), (strange,))
    assert again(runtime, both) == Rewritten(endpoints=1, values=1)

    assert outdated(runtime.engine, both) == Found(Rewritten(), (strange,))
    assert rows(runtime.engine, Endpoint)[0].headers == stored


def test_who_dies_between_two_batches_leaves_what_can_be_read_and_the_next_does_the_rest(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "BATCH", 2)
    both = with_keys(runtime, NEW, OLD)
    for _ in range(5):
        add(runtime, with_keys(runtime, OLD))

    def die(_amount: Rewritten) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reencrypt(runtime.engine, both, actor="ada", now=NOW, done=die)

    assert noted(runtime) == [("ada", {"asked": {}, "endpoints": 2, "values": 2, "finished": False})]
    for row in rows(runtime.engine, EndpointKey):
        assert decrypt(open_vault(both), row.secret).startswith("whsec_")
    assert again(runtime, both) == Rewritten(endpoints=3, values=3)
    assert outdated(runtime.engine, with_keys(runtime, NEW)) == NOTHING


def test_two_at_once_and_a_rotation_beside_them_lose_no_secret(runtime: Runtime) -> None:
    old, both = with_keys(runtime, OLD), with_keys(runtime, NEW, OLD)
    mine = [add(runtime, old) for _ in range(10)]

    def rotate(endpoint_id: str) -> str | None:
        return endpoints.rotate(runtime.engine, open_vault(old), endpoint_id, actor="bob", now=NOW).secret

    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(again, runtime, both) for _ in range(2)]
        rotated = dict(zip(mine, threads.map(rotate, mine), strict=True))
        for call in calls:
            call.result()
    again(runtime, both)

    vault = open_vault(with_keys(runtime, NEW))
    with database.read(runtime.engine) as connection:
        signing = keys.load(connection, mine, NOW)
    assert {one: decrypt(vault, signing[one][0].secret) for one in mine} == rotated
    assert {len(signing[one]) for one in mine} == {2}


def test_without_a_key_it_is_refused_before_anything_is_done(runtime: Runtime) -> None:
    add(runtime, with_keys(runtime, OLD))
    keyless = with_keys(runtime).model_copy(update={"database_url": SecretStr("postgresql://nowhere/x")})

    with pytest.raises(VaultError, match="BILLHOOK_ENCRYPTION_KEYS"):
        again(runtime, keyless)

    assert noted(runtime) == []


def test_an_endpoint_whose_key_is_lost_gets_a_new_secret_and_is_whole_again(runtime: Runtime) -> None:
    strange, new = add(runtime, with_keys(runtime, STRANGE)), with_keys(runtime, NEW)
    assert outdated(runtime.engine, new).unreadable == (strange,)

    endpoints.rotate(runtime.engine, open_vault(new), strange, overlap=timedelta(0), actor="ada", now=NOW)

    assert outdated(runtime.engine, new) == NOTHING
