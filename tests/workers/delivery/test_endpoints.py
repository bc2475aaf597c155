"""Endpoints: what they can be, who changed them, and that what is secret of them is shown once."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.workers.delivery.certificates import certificate, key_of, pem
from tests.workers.given import NOW, change, only, rows
from workers import database
from workers.app import Runtime
from workers.delivery import endpoints, keys
from workers.delivery.egress import Egress
from workers.delivery.endpoints import EndpointError, EndpointSpec, Made, NoEndpoint, Rules
from workers.models import AuditEntry, Delivery, Endpoint, EndpointKey, Message
from workers.vault import decrypt, open_vault

URL = "https://books.example.com/hooks?token=t0ken"
PUBLIC = Rules(Egress(), {"shop", "till"})
once = pytest.mark.parametrize("backend", ["embedded"], indirect=True)  # what is refused before the database is asked


def secret_of(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(range(size))).decode()


def add(runtime: Runtime, *, url: str = URL, rules: Rules = PUBLIC, secret: str | None = None, **fields: Any) -> Made:
    vault = open_vault(runtime.settings)
    spec = EndpointSpec(url=url, **fields)
    return endpoints.add(runtime.engine, vault, spec, rules, actor="ada", now=NOW, secret=secret)


def changed(runtime: Runtime, endpoint_id: str, changes: Mapping[str, Any]) -> Made:
    vault = open_vault(runtime.settings)
    later = NOW + timedelta(hours=1)
    return endpoints.change(runtime.engine, vault, endpoint_id, changes, PUBLIC, actor="bob", now=later)


def entries(runtime: Runtime) -> list[tuple[str, str]]:
    return [(entry.actor, entry.action) for entry in rows(runtime.engine, AuditEntry)]


# --- adding ---------------------------------------------------------------------------------------


def test_an_endpoint_is_stored_with_what_was_given(runtime: Runtime) -> None:
    made = add(
        runtime,
        event_types=("receipt.*", "customer.created", "receipt.*"),
        description="Books",
        sources=("shop",),
        forward=True,
        schedule=(0, 5, 0.5),
        rate=0,
        concurrency=3,
    )

    (row,) = endpoints.everyone(runtime.engine)
    assert (row.id, row.url, row.description, row.status) == (made.id, URL, "Books", "enabled")
    assert (row.event_types, row.sources, row.forward) == (["receipt.*", "customer.created"], ["shop"], True)
    assert (row.schedule, row.rate, row.concurrency, row.ca) == ([0, 5, 0.5], 0, 3, None)
    assert (row.disabled_reason, row.created_at, row.failures, row.signing) == (None, NOW, 0, "v1")
    assert made.id.startswith("ep_")
    assert endpoints.get(runtime.engine, made.id) == row


def test_what_is_not_given_is_the_usual(runtime: Runtime) -> None:
    add(runtime)

    row = only(runtime.engine, Endpoint)
    assert (row.event_types, row.sources, row.forward) == (["*"], [], False)
    assert (row.headers, row.schedule, row.rate, row.concurrency, row.ca, row.client_certificate) == (None,) * 6


def test_a_secret_is_made_and_told_once(runtime: Runtime) -> None:
    one, two = add(runtime), add(runtime, signing="v1,v1a")

    assert one.secret != two.secret
    assert one.public_key is None
    assert str(one.secret).startswith("whsec_")
    assert str(two.public_key).startswith("whpk_")
    assert not {"secret", "headers", "client_certificate"} & set(endpoints.everyone(runtime.engine)[0]._fields)


def test_with_ed25519_alone_nothing_secret_is_told(runtime: Runtime) -> None:
    made = add(runtime, signing="v1a")

    assert made.secret is None
    assert only(runtime.engine, EndpointKey).kind == "v1a"
    shown = endpoints.shown(runtime.engine, open_vault(runtime.settings), made.id, NOW)
    assert shown.public_keys == [made.public_key]


def test_what_is_secret_is_encrypted_at_rest_and_never_logged_or_noted(
    runtime: Runtime, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = certificate()
    with capture_logs() as lines, caplog.at_level(logging.DEBUG):
        secret = add(runtime, headers={"X-Key": "pa55word"}, client_certificate=pem(mine) + key_of(mine)).secret

    stored, row = only(runtime.engine, EndpointKey).secret, only(runtime.engine, Endpoint)
    key = str(secret).removeprefix("whsec_")
    assert key.encode() not in stored
    assert base64.b64decode(key) not in stored
    assert decrypt(open_vault(runtime.settings), stored) == secret
    assert b"pa55word" not in row.headers
    assert b"PRIVATE" not in row.client_certificate
    output = capsys.readouterr()
    told = str(lines) + caplog.text + output.out + output.err + str(rows(runtime.engine, AuditEntry))
    for hidden in (key, "pa55word", "PRIVATE", "t0ken"):
        assert hidden not in told


def test_a_spec_shows_nothing_secret_of_itself() -> None:
    spec = EndpointSpec(url=URL, headers={"X-Key": "pa55word"}, client_certificate="PRIVATE")

    assert not [hidden for hidden in ("t0ken", "pa55word", "PRIVATE") if hidden in repr(spec)]


def test_a_secret_may_be_brought(runtime: Runtime) -> None:
    for size in (24, 32, 64):
        assert add(runtime, secret=secret_of(size)).secret == secret_of(size)


def test_a_secret_that_is_none_is_refused_and_not_repeated(runtime: Runtime) -> None:
    for secret in (secret_of(23), secret_of(65), "whsec_not base64!", "whsec_", "plain-text-secret"):
        with pytest.raises(EndpointError) as failed:
            add(runtime, secret=secret)
        assert secret.removeprefix("whsec_") == "" or secret.removeprefix("whsec_") not in str(failed.value)
    with pytest.raises(EndpointError, match="for v1 only"):
        add(runtime, secret=secret_of(32), signing="v1a")
    assert rows(runtime.engine, Endpoint) == rows(runtime.engine, EndpointKey) == rows(runtime.engine, AuditEntry) == []


@once
@pytest.mark.parametrize(
    "url",
    [
        "ftp://books.example.com/",
        "http://127.0.0.1:8080/",
        "http://169.254.169.254/latest/meta-data/",
        "http://user:word@books.example.com/",
        "https://books.example.com:22/",
        "books.example.com",
    ],
)
def test_a_url_that_nothing_may_be_sent_to_is_refused(url: str, runtime: Runtime) -> None:
    with pytest.raises(EndpointError):
        add(runtime, url=url)
    assert rows(runtime.engine, Endpoint) == []


@once
def test_a_private_url_is_taken_where_its_network_is_allowed(runtime: Runtime) -> None:
    ours = Rules(Egress.of(runtime.settings), ())
    add(runtime, url="http://127.0.0.1:8080/", rules=ours)

    with pytest.raises(EndpointError, match="metadata"):
        add(runtime, url="http://169.254.169.254/", rules=ours)


ANOTHER = certificate()
WRONG: list[tuple[dict[str, Any], str]] = [
    *(
        ({"event_types": ("customer.*", pattern)}, "event type")
        for pattern in ("", "receipt.", "*.issued", "receipt*", "Receipt.Issued", "receipt..issued", "a b", "a" * 129)
    ),
    ({"event_types": ()}, "event type"),
    ({"event_types": tuple(f"a.b{n}" for n in range(201))}, "at most 200"),
    ({"sources": ("shop", "shpo")}, "no source 'shpo'; configured: shop, till"),
    ({"headers": {"Host": "x"}}, "'Host'"),
    ({"signing": "v2"}, "v1, v1a or v1,v1a"),
    ({"schedule": ()}, "1 to 20 waits"),
    ({"schedule": (0,) * 21}, "1 to 20 waits"),
    ({"schedule": (0, -1)}, "7 days"),
    ({"schedule": (7 * 24 * 3600 + 1,)}, "7 days"),
    ({"schedule": (float("nan"),)}, "7 days"),
    ({"schedule": (float("inf"),)}, "7 days"),
    ({"rate": -1}, "rate"),
    ({"rate": 100_001}, "rate"),
    ({"concurrency": 0}, "concurrency"),
    ({"concurrency": 1001}, "concurrency"),
    ({"description": "x" * 1001}, "description"),
    ({"ca": "no certificate"}, "no certificate in PEM"),
    ({"ca": ""}, "no certificate in PEM"),
    ({"ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, "no certificate in PEM"),
    ({"ca": pem(ANOTHER) + key_of(ANOTHER)}, "private key"),
    ({"ca": "x" * 65_537}, "more than 65536"),
    ({"client_certificate": pem(ANOTHER)}, "one private key"),
    ({"client_certificate": key_of(ANOTHER)}, "no certificate in PEM"),
    ({"client_certificate": pem(ANOTHER) + key_of(ANOTHER) * 2}, "it has 2"),
    ({"client_certificate": pem(ANOTHER) + key_of(certificate())}, "do not belong together"),
    ({"client_certificate": pem(certificate()) + pem(ANOTHER) + key_of(ANOTHER)}, "stands first"),
    ({"client_certificate": pem(ANOTHER) + key_of(ANOTHER, password=b"pa55word")}, "encrypted"),
    (
        {"client_certificate": f"{pem(ANOTHER)}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"},
        "cannot be read",
    ),
]


@once
@pytest.mark.parametrize(("fields", "said"), WRONG)
def test_a_field_that_cannot_be_so_is_refused_in_one_sentence(
    fields: dict[str, Any], said: str, runtime: Runtime
) -> None:
    with pytest.raises(EndpointError, match=said.replace("*", r"\*")) as refused:
        add(runtime, **fields)

    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300
    assert rows(runtime.engine, Endpoint) == rows(runtime.engine, AuditEntry) == []


@pytest.mark.parametrize("kind", ["rsa", "ec", "ed25519"])
@once
def test_a_certificate_with_its_key_and_authorities_are_taken(kind: str, runtime: Runtime) -> None:
    mine, issuer = certificate(kind), certificate()
    text = key_of(mine) + pem(mine) + pem(issuer)

    add(runtime, client_certificate=text, ca=pem(issuer) + pem(certificate()))

    row = only(runtime.engine, Endpoint)
    assert decrypt(open_vault(runtime.settings), row.client_certificate) == text
    assert row.ca.startswith(pem(issuer))


# --- changing -------------------------------------------------------------------------------------


def test_what_is_changed_is_changed_and_nothing_else(runtime: Runtime) -> None:
    mine = certificate()
    made = add(runtime, description="Books", headers={"X-Key": "1"}, ca=pem(mine), rate=5)
    before = only(runtime.engine, Endpoint)

    again = changed(runtime, made.id, {"rate": None, "event_types": ("receipt.*",), "forward": True})

    after = only(runtime.engine, Endpoint)
    assert {name for name in before._fields if before._mapping[name] != after._mapping[name]} == {
        *("rate", "event_types", "forward"),
    }
    assert (after.rate, after.event_types, after.forward) == (None, ["receipt.*"], True)
    assert again == Made(made.id)
    assert entries(runtime) == [("ada", "endpoint.add"), ("bob", "endpoint.update")]
    assert rows(runtime.engine, AuditEntry)[1].detail == {
        "endpoint": made.id,
        "rate": None,
        "event_types": ["receipt.*"],
        "forward": True,
    }


def test_every_field_can_be_changed(runtime: Runtime) -> None:
    made, mine = add(runtime), certificate()
    fields = {
        "url": "https://other.example.com/",
        "description": "x\0y",
        "event_types": ("a.b",),
        "sources": ("till",),
        "forward": True,
        "headers": {"X-Key": "1"},
        "signing": "v1,v1a",
        "schedule": (0, 1),
        "rate": 1,
        "concurrency": 2,
        "ca": pem(mine),
        "client_certificate": pem(mine) + key_of(mine),
    }
    assert fields.keys() == set(EndpointSpec.__dataclass_fields__)

    changed(runtime, made.id, fields)

    row = only(runtime.engine, Endpoint)
    assert (row.url, row.description, row.sources, row.schedule) == (fields["url"], "x\\x00y", ["till"], [0, 1])
    shown = endpoints.shown(runtime.engine, open_vault(runtime.settings), made.id, NOW + timedelta(hours=1))
    assert (shown.headers, shown.client_certificate, len(shown.public_keys)) == (["X-Key"], True, 1)


@once
def test_a_change_that_cannot_be_changes_nothing(runtime: Runtime) -> None:
    made = add(runtime)
    before = only(runtime.engine, Endpoint)

    with pytest.raises(EndpointError, match="nothing to change"):
        changed(runtime, made.id, {})
    for fields, _ in WRONG:
        with pytest.raises(EndpointError):
            changed(runtime, made.id, {"description": "new", **fields})

    assert only(runtime.engine, Endpoint) == before
    assert entries(runtime) == [("ada", "endpoint.add")]


@once
def test_what_is_left_as_it_was_is_not_judged_anew(runtime: Runtime) -> None:
    made = add(
        runtime, url="http://127.0.0.1:9/", rules=Rules(Egress.of(runtime.settings), {"gone"}), sources=("gone",)
    )

    changed(runtime, made.id, {"description": "Books"})

    assert only(runtime.engine, Endpoint).sources == ["gone"]


def test_another_way_to_sign_makes_what_it_needs_and_ends_what_it_does_not(runtime: Runtime) -> None:
    made = add(runtime)

    both = changed(runtime, made.id, {"signing": "v1,v1a"})
    assert both.secret is None
    assert both.public_key is not None
    asymmetric = changed(runtime, made.id, {"signing": "v1a"})

    assert asymmetric == Made(made.id)
    with database.read(runtime.engine) as connection:
        live = keys.load(connection, [made.id], NOW + timedelta(hours=1))[made.id]
    assert [key.kind for key in live] == ["v1a"]
    assert keys.public_keys(open_vault(runtime.settings), live) == [both.public_key]


def test_a_rotation_makes_each_kind_anew_and_is_noted(runtime: Runtime) -> None:
    made = add(runtime, signing="v1,v1a")

    vault, later = open_vault(runtime.settings), NOW + timedelta(hours=1)
    new = endpoints.rotate(runtime.engine, vault, made.id, overlap=timedelta(hours=2), actor="bob", now=later)

    assert new.secret not in (None, made.secret)
    assert new.public_key not in (None, made.public_key)
    shown = endpoints.shown(runtime.engine, vault, made.id, later)
    assert shown.public_keys == [new.public_key, made.public_key]
    assert {key.expires_at for key in shown.keys} == {None, later + timedelta(hours=2)}
    noted = rows(runtime.engine, AuditEntry)[1]
    assert (noted.actor, noted.action) == ("bob", "endpoint.rotate")
    assert noted.detail == {"endpoint": made.id, "kinds": ["v1", "v1a"], "overlap": 7200.0}


# --- enabling and disabling -----------------------------------------------------------------------


def test_an_endpoint_is_disabled_with_the_first_reason(runtime: Runtime) -> None:
    endpoint_id, other = add(runtime).id, add(runtime).id

    told = []
    for reason in ("it answered 410 Gone", "later"):
        with database.write(runtime.engine) as connection:
            told.append(endpoints.disable(connection, endpoint_id, reason))

    found = {row.id: (row.status, row.disabled_reason) for row in endpoints.everyone(runtime.engine)}
    assert found == {endpoint_id: ("disabled", "it answered 410 Gone"), other: ("enabled", None)}
    assert told == [[endpoint_id], []]


def test_many_are_disabled_at_once(runtime: Runtime) -> None:
    ids = [add(runtime).id for _ in range(3)]

    with database.write(runtime.engine) as connection:
        assert endpoints.disable(connection, ids[1:], "gone") == ids[1:]


def test_who_disables_an_endpoint_is_noted_once(runtime: Runtime) -> None:
    endpoint_id = add(runtime).id

    first, second = (
        endpoints.switch_off(runtime.engine, endpoint_id, "moving house", actor="bob", now=NOW) for _ in range(2)
    )

    assert (first, second) == (True, False)
    assert entries(runtime) == [("ada", "endpoint.add"), ("bob", "endpoint.disable")]
    assert only(runtime.engine, Endpoint).disabled_reason == "moving house"


def test_to_enable_forgets_all_failures(runtime: Runtime) -> None:
    endpoint_id = add(runtime).id
    failed = {"failures": 120, "failing_since": NOW, "warned_at": NOW, "held_until": NOW}
    change(runtime.engine, Endpoint, status="disabled", disabled_reason="it kept failing", **failed)

    before = endpoints.enable(runtime.engine, endpoint_id, actor="bob", now=NOW)

    row = only(runtime.engine, Endpoint)
    assert (row.status, row.disabled_reason, row.failures) == ("enabled", None, 0)
    assert (row.failing_since, row.warned_at, row.held_until) == (None, None, None)
    assert (before.status, before.failures) == ("disabled", 120)
    assert entries(runtime)[-1] == ("bob", "endpoint.enable")


# --- looking and testing --------------------------------------------------------------------------


def test_endpoints_are_listed_oldest_first(runtime: Runtime) -> None:
    ids = [add(runtime).id for _ in range(3)]

    assert [row.id for row in endpoints.everyone(runtime.engine)] == sorted(ids)


def test_an_endpoint_that_is_not_there_is_said_so(runtime: Runtime) -> None:
    engine, vault = runtime.engine, open_vault(runtime.settings)
    for call in (
        lambda: endpoints.get(engine, "ep_1"),
        lambda: endpoints.shown(engine, vault, "ep_1", NOW),
        lambda: changed(runtime, "ep_1", {"rate": 1}),
        lambda: endpoints.rotate(engine, vault, "ep_1", actor="bob", now=NOW),
        lambda: endpoints.enable(engine, "ep_1", actor="bob", now=NOW),
        lambda: endpoints.switch_off(engine, "ep_1", "x", actor="bob", now=NOW),
        lambda: endpoints.send_test(engine, "ep_1", actor="bob", now=NOW),
    ):
        with pytest.raises(NoEndpoint, match="there is no endpoint ep_1"):
            call()
    assert rows(engine, AuditEntry) == []


def test_a_test_goes_to_one_endpoint_whatever_it_wants(runtime: Runtime) -> None:
    mine, _other = add(runtime, event_types=("receipt.*",), sources=("shop",)).id, add(runtime).id

    delivery_id = endpoints.send_test(runtime.engine, mine, actor="bob", now=NOW)

    delivery, message = only(runtime.engine, Delivery), only(runtime.engine, Message)
    assert (delivery.id, delivery.endpoint_id, delivery.status) == (delivery_id, mine, "waiting")
    assert (delivery.next_attempt_at, delivery.ring_at) == (NOW, NOW)
    assert (message.type, message.event_id, message.source) == ("billhook.test", None, None)
    assert entries(runtime)[-1] == ("bob", "endpoint.test")


def test_a_disabled_endpoint_is_not_tested(runtime: Runtime) -> None:
    endpoint_id = add(runtime).id
    endpoints.switch_off(runtime.engine, endpoint_id, "moving", actor="bob", now=NOW)

    with pytest.raises(EndpointError, match="enable it first"):
        endpoints.send_test(runtime.engine, endpoint_id, actor="bob", now=NOW)
    assert rows(runtime.engine, Message) == []
