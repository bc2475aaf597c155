from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from handlers.providers import PROVIDERS
from receiver.cli import app
from tests.conftest import SECRET
from tests.receiver.cli.conftest import Billhook
from tests.receiver.conftest import Serve
from tests.receiver.edge import Edge, serving, stored
from tests.services import free_port
from workers.app import Runtime
from workers.settings import Settings

NEW_SECRET = "whsec_never_to_be_shown"


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__PROVIDER", "hisab")
    monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__SECRETS", SECRET)


# --- settings -------------------------------------------------------------------------------------


def test_every_option_is_listed_as_a_table(billhook: Billhook) -> None:
    ended = billhook("settings")

    assert ended.status == 0
    assert ended.err == ""
    first, *lines = ended.out.splitlines()
    assert first.split() == ["option", "value", "default", "from", "help"]
    assert [line.split()[0] for line in lines if line.startswith("BILLHOOK_")] == [
        f"BILLHOOK_{name.upper()}" for name in Settings.model_fields
    ]


def test_every_option_is_listed_as_json(billhook: Billhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLHOOK_LISTEN", "0.0.0.0:9000")

    rows = billhook("settings", "--json").objects

    assert len(rows) == len(Settings.model_fields)
    (listen,) = [row for row in rows if row["option"] == "BILLHOOK_LISTEN"]
    assert listen == {
        "option": "BILLHOOK_LISTEN",
        "value": "0.0.0.0:9000",
        "default": "127.0.0.1:8000",
        "from": "BILLHOOK_LISTEN",
        "help": "Where the receiver listens: host:port.",
    }


def test_no_secret_is_listed(billhook: Billhook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text(f"{NEW_SECRET}\n{NEW_SECRET}2\n")
    Path("billhook.toml").write_text(f'redis_url = "redis://:{NEW_SECRET}@h:6379/0"\n')
    for name, value in {
        "DATABASE_URL": f"postgresql://u:{NEW_SECRET}@h/d",
        "ENCRYPTION_KEYS": f"{NEW_SECRET},{NEW_SECRET}",
        "SOURCES__SHOP__PROVIDER": "hisab",
        "SOURCES__SHOP__SECRETS_FILE": str(tmp_path / "secrets"),
        "SOURCES__SHOP__API_KEY": NEW_SECRET,
    }.items():
        monkeypatch.setenv(f"BILLHOOK_{name}", value)

    for arguments in (["settings"], ["settings", "--json"]):
        ended = billhook(*arguments)

        assert ended.status == 0
        assert NEW_SECRET not in ended.out + ended.err
        assert ended.out.count("********") >= 4
        assert "shop (hisab, 2 secrets)" in ended.out


def test_a_variable_that_is_no_option_is_pointed_out(billhook: Billhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLHOOK_LISEN", NEW_SECRET)

    ended = billhook("settings", "--json")

    assert ended.status == 0
    assert ended.err == "billhook: BILLHOOK_LISEN is set but is no option; it has no effect\n"
    assert len(ended.objects) == len(Settings.model_fields)


@pytest.mark.parametrize("value", ["handlers/[a-z]*.py", "x[bold]y", "a[/b]c", "a[link=x].py"])
def test_a_value_is_printed_as_it_is(value: str, billhook: Billhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLHOOK_HANDLERS", value)

    ended = billhook("settings")

    assert ended.status == 0
    assert value in ended.out


def test_help_explains_a_command() -> None:
    ended = CliRunner().invoke(app, ["settings", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})

    assert ended.exit_code == 0
    assert "Secrets are masked" in ended.output


# --- send -----------------------------------------------------------------------------------------


@contextmanager
def answering(status: int, body: bytes) -> Iterator[Edge]:
    """A server that gives everybody this answer."""

    async def app(scope: object, receive: object, send: object) -> None:
        await send(
            {"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]}
        )  # type: ignore[operator]
        await send({"type": "http.response.body", "body": body})  # type: ignore[operator]

    with serving(app, lifespan=False) as edge:
        yield edge


def test_a_sample_is_sent_and_its_answer_printed(
    billhook: Billhook, configured: Settings, serve: Serve, runtime: Runtime, engine: Engine
) -> None:
    url = f"http://127.0.0.1:{serve(runtime).port}"

    ended = billhook("send", "invoice.paid", "--url", url, "--times", "3")
    again = billhook("send", "invoice.paid", "--url", url)

    first, *repeats = ended.objects
    assert ended.status == 0
    assert first["status"] == 202
    assert [(reply["status"], reply["data"]["id"]) for reply in repeats] == [(200, first["data"]["id"])] * 2
    assert [reply["status"] for reply in again.objects] == [202]
    assert stored(engine) == 2


def test_a_sample_goes_where_the_receiver_listens(
    billhook: Billhook, shop: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(202, b'{"success": true}') as edge:
        monkeypatch.setenv("BILLHOOK_LISTEN", f"127.0.0.1:{edge.port}")

        assert billhook("send", "invoice.paid").objects == [{"status": 202, "success": True}]


def test_a_forged_sample_is_refused(
    billhook: Billhook, configured: Settings, serve: Serve, runtime: Runtime, engine: Engine
) -> None:
    ended = billhook("send", "invoice.paid", "--url", f"http://127.0.0.1:{serve(runtime).port}", "--forged")

    assert ended.status == 1
    assert [(reply["status"], reply["error"]["code"]) for reply in ended.objects] == [(401, "UNAUTHORIZED")]
    assert stored(engine) == 0


def test_without_a_server_a_sample_is_not_sent(billhook: Billhook, shop: None) -> None:
    url = f"http://127.0.0.1:{free_port()}"

    said = billhook("send", "invoice.paid", "--url", url).complaint()

    assert said.startswith(f"{url}/webhooks/shop does not answer: ")
    assert "billhook serve" in said


def test_a_secret_that_stands_in_the_path_is_not_shown(billhook: Billhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLHOOK_SOURCES__PAY__PROVIDER", "hesabe")
    monkeypatch.setenv("BILLHOOK_SOURCES__PAY__SECRETS", "w" * 32)
    monkeypatch.setenv("BILLHOOK_SOURCES__PAY__API_KEY", "code:access:secret:iv")

    said = billhook("send", "transaction.successful", "--url", f"http://127.0.0.1:{free_port()}").complaint()

    assert "/webhooks/pay/… does not answer: " in said
    assert "w" * 32 not in said


def test_a_public_key_cannot_send_and_the_secret_beside_it_does(
    billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    monkeypatch.setenv("BILLHOOK_SOURCES__PARTNER__PROVIDER", "standard")
    monkeypatch.setenv("BILLHOOK_SOURCES__PARTNER__SECRETS", public)

    assert "only public keys" in billhook("send", "invoice.paid").complaint()

    monkeypatch.setenv("BILLHOOK_SOURCES__PARTNER__SECRETS", f"{public},whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    with answering(202, b"{}") as edge:
        ended = billhook("send", "invoice.paid", "--url", f"http://127.0.0.1:{edge.port}")

    assert ended.status == 0


@pytest.mark.parametrize("url", ["nonsense", "ftp://h", "http://", "http://[::1", "http://a b", "http://h:port", ""])
def test_a_url_that_is_none_is_refused(
    url: str, billhook: Billhook, shop: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_LISTEN", f"127.0.0.1:{free_port()}")

    assert "does not answer" in billhook("send", "invoice.paid", "--url", url).complaint()


@pytest.mark.parametrize("body", [b"", b"<html>502</html>", b"[1]", b"null", b"\xff"])
def test_an_answer_that_is_not_ours_is_printed_as_text(body: bytes, billhook: Billhook, shop: None) -> None:
    with answering(502, body) as edge:
        ended = billhook("send", "invoice.paid", "--url", f"http://127.0.0.1:{edge.port}")

    assert ended.status == 1
    assert ended.objects == [{"status": 502, "body": body.decode("utf-8", "replace")}]


def test_an_event_type_without_a_sample_is_refused(billhook: Billhook, shop: None) -> None:
    said = billhook("send", "invoice.eaten").complaint(2)

    assert "invoice.eaten" in said
    assert all(event_type in said for event_type in PROVIDERS["hisab"].events)


def test_a_source_must_be_known(billhook: Billhook, shop: None) -> None:
    said = billhook("send", "invoice.paid", "--source", "other").complaint(2)

    assert said == "--source: there is no source 'other'; configured: shop"


def test_without_a_source_nothing_is_sent(billhook: Billhook) -> None:
    assert "configured: none" in billhook("send", "invoice.paid").complaint(2)


def test_of_two_sources_one_must_be_chosen(billhook: Billhook, shop: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLHOOK_SOURCES__OTHER__PROVIDER", "hisab")
    monkeypatch.setenv("BILLHOOK_SOURCES__OTHER__SECRETS", NEW_SECRET)

    said = billhook("send", "invoice.paid").complaint(2)

    assert "--source" in said
    assert "other, shop" in said
