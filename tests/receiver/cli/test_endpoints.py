"""The commands about endpoints, as somebody at a terminal gives them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from receiver.cli.output import WrongUse
from receiver.cli.wishes import seconds, waits
from tests.receiver.cli.conftest import Billhook
from tests.workers.delivery.certificates import certificate, key_of, pem
from tests.workers.given import NOW, change, only, rows, rung
from workers import database
from workers.app import DELIVER, Runtime
from workers.delivery import headers, keys
from workers.delivery.endpoints import everyone
from workers.leases import utcnow
from workers.models import AuditEntry, Delivery, Endpoint, Message
from workers.settings import Settings
from workers.vault import open_vault

pytestmark = pytest.mark.usefixtures("configured")
once = pytest.mark.parametrize("backend", ["embedded"], indirect=True)  # what does not hang on the servers
URL = "https://example.com/hook"


@pytest.fixture
def endpoint_id(billhook: Billhook) -> str:
    """An endpoint as it is added with nothing but its URL."""
    (added,) = billhook("endpoints", "add", URL, "--json").objects
    return str(added["id"])


# --- add ------------------------------------------------------------------------------------------


def test_an_endpoint_is_added_and_its_secret_shown_once(
    billhook: Billhook, configured: Settings, engine: Engine
) -> None:
    ended = billhook(
        "endpoints", "add", URL, "--type", "invoice.*", "--type", "receipt.issued", "--description", "Shop"
    )

    assert ended.status == 0, ended
    first, second = ended.out.splitlines()
    endpoint_id, secret = first.split()[0], second.split()[-1]
    assert first == f"{endpoint_id} gets invoice.*, receipt.issued"
    assert second.startswith("its secret, shown only now: whsec_")
    row = only(engine, Endpoint)
    assert (row.id, row.url, row.event_types) == (endpoint_id, URL, ["invoice.*", "receipt.issued"])
    for shown in ("list", "show"):
        arguments = ["endpoints", shown] + ([endpoint_id] if shown == "show" else [])
        for listed in (billhook(*arguments), billhook(*arguments, "--json")):
            assert endpoint_id in listed.out
            assert secret not in listed.out + listed.err


def test_an_endpoint_is_added_with_all_that_it_can_have(
    billhook: Billhook, configured: Settings, engine: Engine, tmp_path: Path
) -> None:
    mine = certificate()
    (tmp_path / "ca.pem").write_text(pem(mine))
    (tmp_path / "us.pem").write_text(pem(mine) + key_of(mine))
    (tmp_path / "token").write_text("t0ken\n")

    ended = billhook(
        *("endpoints", "add", URL, "--source", "shop", "--forward", "--signing", "v1,v1a", "--schedule", "0,5s,1.5m"),
        *("--header", "X-Key: a=@b: c", "--header", "Authorization=@token", "--rate", "0", "--concurrency", "2"),
        *("--ca", "ca.pem", "--client-certificate", "us.pem", "--json"),
    )

    (added,) = ended.objects
    assert added["url"] == URL
    assert added["secret"].startswith("whsec_")
    assert added["public_key"].startswith("whpk_")
    row = only(engine, Endpoint)
    assert (row.sources, row.forward, row.signing, row.schedule) == (["shop"], True, "v1,v1a", [0, 5, 90])
    assert (row.rate, row.concurrency, row.ca) == (0, 2, pem(mine))
    opened = headers.opened(open_vault(configured), row.headers)
    assert opened == (("X-Key", "a=@b: c"), ("Authorization", "t0ken"))


def test_what_an_endpoint_gets_is_said_in_a_line(billhook: Billhook) -> None:
    ended = billhook("endpoints", "add", URL, "--source", "shop", "--forward", "--signing", "v1a")

    first, second = ended.out.splitlines()
    assert first.endswith(" gets * of shop, forwarded events too")
    assert second.startswith("its public key: whpk_")


def test_no_endpoints_are_no_error(billhook: Billhook) -> None:
    ended = billhook("endpoints", "list")

    assert (ended.status, ended.out) == (0, "")
    assert "billhook endpoints add" in ended.err


@once
@pytest.mark.parametrize(
    "url",
    [
        *("", "example.com", "ftp://example.com/", "https://", "https://user:pa55word@example.com/"),
        *("https://example.com/#part", "https://example.com/a b", "https://example.com\\@evil.com/", "https://[::1"),
        *("https://example.com:99999/", "https://example.com:22/", "https://example.com/" + "x" * 3000),
        *("http://127.0.0.1/hook", "http://10.0.0.1/", "http://[::1]/", "http://169.254.169.254/", "http://0x7f.1/"),
    ],
)
def test_a_url_that_cannot_be_an_endpoint_is_refused(url: str, billhook: Billhook, engine: Engine) -> None:
    said = billhook("endpoints", "add", "--", url).complaint(2)

    assert "pa55word" not in said
    assert everyone(engine) == []


@once
def test_a_private_network_is_allowed_where_the_settings_allow_it(
    billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_EGRESS_NETWORKS", "127.0.0.0/8")
    monkeypatch.setenv("BILLHOOK_EGRESS_PORTS", "*")

    assert billhook("endpoints", "add", "http://127.0.0.1:9000/hook").status == 0
    assert "metadata" in billhook("endpoints", "add", "http://169.254.169.254/").complaint(2)


@once
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--type", "invoice.*.paid"], "'invoice.*.paid'"),
        (["--type", "a.b,c.d"], "'a.b,c.d'"),
        (["--type", ""], "''"),
        (["--source", "shpo"], "no source 'shpo'; configured: shop"),
        (["--signing", "v2"], "v1, v1a or v1,v1a"),
        (["--schedule", "0,5x"], "--schedule: '5x' is no time"),
        (["--schedule", ""], "--schedule: '' is no time"),
        (["--schedule", "0,,5"], "--schedule: '' is no time"),
        (["--schedule", "8d"], "7 days"),
        (["--schedule", ",".join(["0"] * 21)], "1 to 20 waits"),
        (["--rate", "-1"], "rate"),
        (["--concurrency", "0"], "concurrency"),
        (["--header", "Host: pa55word"], "'Host'"),
        (["--header", "pa55word"], "--header: write 'Name: value', or Name=@FILE"),
        (["--header", "X-Key: pa55word\r\nHost: x"], "'X-Key'"),
        (["--header", "X-Key: 1", "--header", "X-Key: pa55word"], "'X-Key' stands twice"),
        (["--header", "X-Key:"], "'X-Key' has no value"),
        (["--header", "X-Key=@missing"], "--header X-Key: cannot read missing: No such file"),
        (["--ca", "missing"], "--ca: cannot read missing: No such file"),
        (["--ca", "binary"], "--ca: binary is not a text file"),
        (["--ca", "."], "--ca: cannot read .: Is a directory"),
        (["--client-certificate", "text"], "no certificate in PEM"),
    ],
)
def test_an_option_that_cannot_be_so_is_refused_in_one_line(
    options: list[str], said: str, billhook: Billhook, engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "text").write_text("pa55word")

    complaint = billhook("endpoints", "add", URL, *options).complaint(2)

    assert said in complaint
    assert "pa55word" not in complaint
    assert everyone(engine) == []


@pytest.mark.parametrize("backend", ["servers"], indirect=True)
def test_without_a_key_no_secret_is_stored(billhook: Billhook, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BILLHOOK_ENCRYPTION_KEYS")
    assert "BILLHOOK_ENCRYPTION_KEYS is not set" in billhook("endpoints", "add", URL).complaint()

    monkeypatch.setenv("BILLHOOK_ENCRYPTION_KEYS", "pa55word")
    said = billhook("endpoints", "add", URL).complaint()
    assert said.startswith("BILLHOOK_ENCRYPTION_KEYS")
    assert "pa55word" not in said
    assert everyone(engine) == []


# --- show and list --------------------------------------------------------------------------------


def test_all_that_may_be_known_of_an_endpoint_is_shown(billhook: Billhook, engine: Engine) -> None:
    (added,) = billhook(
        *("endpoints", "add", URL, "--signing", "v1,v1a", "--header", "X-Key: pa55word", "--schedule", "0,90"),
        *("--rate", "7", "--source", "shop", "--description", "[b]Books", "--json"),
    ).objects
    failing = {"failures": 7, "failing_since": NOW, "held_until": NOW + timedelta(hours=1)}
    change(engine, Endpoint, status="disabled", disabled_reason="it kept failing", **failing)
    billhook("endpoints", "rotate", added["id"])

    shown = billhook("endpoints", "show", added["id"])
    (as_json,) = billhook("endpoints", "show", added["id"], "--json").objects

    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    for line in (
        f"endpoint {added['id']} disabled",
        "disabled it kept failing",
        f"url {URL}",
        "description [b]Books",
        "event types *",
        "sources shop",
        "forwards no",
        "headers X-Key",
        "rate 7 a second",
        "concurrency 20 at once (the setting)",
        "schedule 0s, 90s",
        "failures 7 since 2026-06-05 14:00:00Z",
        "held until 2026-06-05 15:00:00Z",
        f"public key {added['public_key']}",
    ):
        assert line in lines
    assert len([line for line in lines if line.startswith("v1 secret of")]) == 2
    assert as_json["headers"] == ["X-Key"]
    assert added["public_key"] in as_json["public_keys"]
    assert as_json["public_keys"][0] != added["public_key"]
    assert {key["expires_at"] is None for key in as_json["keys"]} == {True, False}
    assert as_json["client_certificate"] is False
    for hidden in ("pa55word", added["secret"]):
        assert hidden not in shown.out + json.dumps(as_json)


def test_what_is_usual_is_shown_as_such(billhook: Billhook, endpoint_id: str) -> None:
    lines = [" ".join(line.split()) for line in billhook("endpoints", "show", endpoint_id).out.splitlines()]

    for line in ("sources all", "headers none of its own", "rate 100 a second (the setting)", "schedule the usual one"):
        assert line in lines


@once
@pytest.mark.parametrize(
    "command", [["show"], ["update", "--rate", "1"], ["enable"], ["disable"], ["rotate"], ["test"]], ids=lambda c: c[0]
)
def test_an_endpoint_that_is_not_there_is_one_line(command: list[str], billhook: Billhook) -> None:
    said = billhook("endpoints", command[0], "ep_1", *command[1:]).complaint(1)

    assert said == "there is no endpoint ep_1"


# --- update ---------------------------------------------------------------------------------------


def test_an_endpoint_is_changed_as_far_as_was_written(billhook: Billhook, endpoint_id: str, engine: Engine) -> None:
    ended = billhook(
        "endpoints", "update", endpoint_id, "--type", "a.b", "--forward", "--rate", "3", "--header", "X: 1"
    )

    assert (ended.status, ended.out) == (0, f"{endpoint_id} is changed: event types, headers, forward, rate\n")
    row = only(engine, Endpoint)
    assert (row.url, row.event_types, row.forward, row.rate) == (URL, ["a.b"], True, 3)

    billhook(
        "endpoints", "update", endpoint_id, "--no-forward", "--reset", "type", "--reset", "rate", "--reset", "header"
    )
    row = only(engine, Endpoint)
    assert (row.event_types, row.forward, row.rate, row.headers) == (["*"], False, None, None)
    assert [entry.action for entry in rows(engine, AuditEntry)] == ["endpoint.add", *["endpoint.update"] * 2]


def test_what_another_way_to_sign_needs_is_shown(billhook: Billhook, endpoint_id: str) -> None:
    ended = billhook("endpoints", "update", endpoint_id, "--signing", "v1,v1a")
    (back,) = billhook("endpoints", "update", endpoint_id, "--signing", "v1", "--json").objects

    assert ended.out.splitlines()[1].startswith("its public key: whpk_")
    assert back == {"id": endpoint_id, "secret": None, "public_key": None}


@once
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "nothing to change"),
        (
            ["--reset", "url"],
            "--reset: 'url' is none of ca, client-certificate, concurrency, description, forward, header",
        ),
        (["--reset", "rate", "--rate", "1"], "--reset: rate is given a value too"),
        (["--url", "http://10.0.0.1/"], "private"),
        (["--concurrency", "1001"], "concurrency"),
    ],
)
def test_a_change_that_cannot_be_is_refused_in_one_line(
    options: list[str], said: str, billhook: Billhook, endpoint_id: str, engine: Engine
) -> None:
    before = only(engine, Endpoint)

    assert said in billhook("endpoints", "update", endpoint_id, *options).complaint(2)
    assert only(engine, Endpoint) == before


# --- enable, disable, rotate, test ----------------------------------------------------------------


def test_an_endpoint_is_disabled_and_enabled_again(billhook: Billhook, endpoint_id: str, engine: Engine) -> None:
    assert (
        billhook("endpoints", "disable", endpoint_id, "--reason", "moving house").out == f"{endpoint_id} is disabled\n"
    )
    assert billhook("endpoints", "disable", endpoint_id).out == f"{endpoint_id} was disabled before\n"
    assert only(engine, Endpoint).disabled_reason == "moving house"
    assert "moving house" in billhook("endpoints", "list").out
    change(engine, Endpoint, failures=12)

    assert billhook("endpoints", "enable", endpoint_id).out == (
        f"{endpoint_id} is enabled; failures that are forgotten: 12\n"
    )
    assert billhook("endpoints", "enable", endpoint_id).out == f"{endpoint_id} is enabled\n"
    assert "@" in rows(engine, AuditEntry)[-1].actor


def test_a_rotation_prints_the_new_secret_once(billhook: Billhook, endpoint_id: str, engine: Engine) -> None:
    ended = billhook("endpoints", "rotate", endpoint_id, "--overlap", "2h")
    (again,) = billhook("endpoints", "rotate", endpoint_id, "--overlap", "0", "--json").objects

    secret, until = ended.out.splitlines()
    assert secret.startswith("its secret, shown only now: whsec_")
    assert until.startswith("what signed before does so until 20")
    assert again["secret"] not in ended.out
    assert again["id"] == endpoint_id
    with database.read(engine) as connection:
        (live,) = keys.load(connection, [endpoint_id], utcnow())[endpoint_id]
    assert live.expires_at is None
    assert billhook("endpoints", "rotate", endpoint_id, "--overlap", "0").out.endswith("does so no more\n")


@once
@pytest.mark.parametrize(
    ("overlap", "said"), [("soon", "'soon' is no time"), ("8d", "8d is longer than 7d"), ("-1h", "")]
)
def test_an_overlap_that_cannot_be_is_refused(overlap: str, said: str, billhook: Billhook, endpoint_id: str) -> None:
    complaint = billhook("endpoints", "rotate", endpoint_id, f"--overlap={overlap}").complaint(2)

    assert complaint.startswith("--overlap: ")
    assert said in complaint


def test_a_test_is_published_and_rung_for(
    billhook: Billhook, endpoint_id: str, runtime: Runtime, engine: Engine
) -> None:
    billhook("endpoints", "add", "https://other.example.com/")

    ended = billhook("endpoints", "test", endpoint_id)

    delivery = only(engine, Delivery)
    assert ended.out == f"{delivery.id} is on its way to {endpoint_id}\n"
    assert (delivery.endpoint_id, only(engine, Message).type) == (endpoint_id, "billhook.test")
    assert rung(runtime, "deliveries") == [(DELIVER, [delivery.id])]


def test_a_test_is_sent_all_the_same_where_no_redis_answers(
    billhook: Billhook, endpoint_id: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_REDIS_URL", "redis://127.0.0.1:1/0")

    (said,) = billhook("endpoints", "test", endpoint_id, "--json").objects

    assert said == {"endpoint": endpoint_id, "delivery": only(engine, Delivery).id, "rung": False}
    assert "find it by themselves" in billhook("endpoints", "test", endpoint_id).out


@once
def test_a_disabled_endpoint_is_not_tested(billhook: Billhook, endpoint_id: str, engine: Engine) -> None:
    billhook("endpoints", "disable", endpoint_id)

    assert "enable it first" in billhook("endpoints", "test", endpoint_id).complaint(1)
    assert rows(engine, Delivery) == []


# --- times ----------------------------------------------------------------------------------------

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "": 1}


@given(st.lists(st.tuples(st.integers(0, 9_999_999), st.sampled_from(sorted(UNITS))), min_size=1, max_size=25))
def test_waits_are_read_as_they_are_written(written: list[tuple[int, str]]) -> None:
    text = ", ".join(f"{number}{unit}" for number, unit in written)

    assert waits("--schedule", text) == tuple(number * UNITS[unit] for number, unit in written)


@given(st.text(max_size=12) | st.text("0123456789.smhd,-+e_ ٣", max_size=8))
def test_whatever_is_written_is_a_time_or_refused_by_the_options_name(text: str) -> None:
    try:
        found = seconds("--overlap", text)
    except WrongUse as error:
        said = str(error)
    else:
        assert 0 <= found < 1e12
        assert text[0] in "0123456789"
        said = ""
    assert not said or said.startswith(f"--overlap: {text!r} is no time")


def test_half_a_unit_is_a_time() -> None:
    assert [seconds("--overlap", text) for text in ("1.5h", "0.5", "0.25m")] == [5400, 0.5, 15]
    assert isinstance(seconds("--overlap", "1.5h"), int)


def test_what_is_stored_of_a_command_is_in_the_audit_log_without_secrets(billhook: Billhook, engine: Engine) -> None:
    billhook("endpoints", "add", f"{URL}?token=t0ken", "--header", "X-Key: pa55word")

    with database.read(engine) as connection:
        detail = connection.execute(select(AuditEntry.detail)).scalar_one()
    assert (detail["url"], detail["headers"]) == ("https://example.com", ["X-Key"])
