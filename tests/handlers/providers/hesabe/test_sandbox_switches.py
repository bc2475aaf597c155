"""What can be done to the Hesabe sandbox under /sandbox."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.providers.hesabe.credentials import read
from handlers.providers.hesabe.crypto import Cipher
from tests.handlers.providers.hesabe.server import PASSWORD, SECRET_KEY
from tests.handlers.providers.hesabe.test_sandbox import INVOICE, Sandbox, opened


def test_the_state_shows_merchants_and_no_secret() -> None:
    sandbox = Sandbox()

    invoice = sandbox.create()

    state = sandbox.send("GET", "/sandbox")

    assert [one["url"] for one in state.json()["invoices"]] == [invoice["url"]]
    assert state.json()["merchants"] == [{"merchantCode": "842217", "id": 84, "name": "test"}]
    assert state.json()["settings"] == {
        "on_demand": "1",
        "login_required": True,
        "tells_captures": True,
        "tells_refunds": True,
    }
    assert SECRET_KEY not in state.text
    assert PASSWORD not in state.text


def test_a_lie_changes_so_many_webhooks_and_never_the_record() -> None:
    sandbox = Sandbox()
    sandbox.admin("POST", "/lies", amount="1.000", status="SUCCESSFUL", times=2)
    for _ in range(3):
        sandbox.pay(sandbox.create(), "fail")

    false, again, true = sandbox.told()
    assert again["amount"] == "1.000"
    assert (false["amount"], false["status"]) == ("1.000", "SUCCESSFUL")
    assert false["blocks"][0]["text"]["text"] == "TRANSACTION SUCCESSFUL"
    assert (true["amount"], true["status"]) == ("20.000", "FAILED")
    record = sandbox.enquire(false["token"]).json()["data"]
    assert (record["amount"], record["status"]) == ("20.000", "FAILED")


def test_lies_last_until_they_are_switched_off() -> None:
    sandbox = Sandbox()
    sandbox.admin("POST", "/lies", token="0" * 29, times=None)
    for _ in range(2):
        sandbox.pay(sandbox.create())
    assert sandbox.admin("GET", "")["lies"] == [{"left": None, "token": "0" * 29}]
    sandbox.admin("DELETE", "/lies")
    sandbox.pay(sandbox.create())

    assert [told["token"] == "0" * 29 for told in sandbox.told()] == [True, True, False]


@pytest.mark.parametrize("body", [{}, {"times": 2}, {"times": 0, "amount": "1"}, {"amount": 1}])
def test_a_lie_without_a_change_is_refused(body: dict[str, Any]) -> None:
    assert Sandbox().send("POST", "/sandbox/lies", json=body).status_code == 400


def test_another_merchant_has_credentials_and_invoices_of_its_own() -> None:
    sandbox = Sandbox()
    mine = sandbox.create()

    key = sandbox.admin("POST", "/keys", name="other")["key"]

    other = read(key)
    token = sandbox.send("POST", "/api/v1/login", json={"username": other.username, "password": other.password}).json()[
        "response"
    ]["token"]["access_token"]
    cipher = Cipher(other.secret_key, other.iv_key)
    headers = {"accessCode": other.access_code, "Authorization": f"Bearer {token}"}
    foreign = {"accessCode": other.access_code, "Authorization": sandbox.headers["Authorization"]}
    hidden = cipher.encrypt(f'{{"merchantCode":"{other.merchant_code}"}}')
    path = f"/api/v1/invoice/{mine['id']}"
    assert sandbox.post_sealed("GET", path, hidden, headers).status_code == 404
    assert sandbox.post_sealed("GET", path, hidden, foreign).status_code == 401
    listed = sandbox.post_sealed("GET", "/api/v1/refund/", hidden, headers).json()["response"]
    assert cipher.read(listed)["response"]["stats"]["total_refund_request_count"] == 0


def test_an_access_code_can_be_revoked() -> None:
    sandbox = Sandbox()
    assert sandbox.headers
    (key,) = sandbox.admin("GET", "")["keys"]

    sandbox.admin("DELETE", f"/keys/{key['id']}")

    assert sandbox.call("POST", "/api/v1/invoice", **INVOICE).status_code == 401


def test_all_tokens_can_be_ended() -> None:
    sandbox = Sandbox()
    token = sandbox.log_in()
    assert opened(sandbox.call("GET", "/api/v1/refund/"))["status"] is True

    sandbox.admin("POST", "/tokens")

    assert sandbox.call("GET", "/api/v1/refund/").status_code == 401
    again = sandbox.send("POST", "/api/v1/token-refresh", json={"refreshToken": token["refresh_token"]})
    assert again.status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/subscriptions/1", {"declines": 1}, 404),
        ("/subscriptions/1", {"declines": -1}, 400),
        ("/settings", {"on_demand": "2"}, 400),
        ("/settings", {"login_required": "no"}, 400),
    ],
)
def test_a_switch_that_cannot_be_says_why(path: str, body: dict[str, Any], status: int) -> None:
    answer = Sandbox().send("POST", f"/sandbox{path}", json=body)

    assert answer.status_code == status
    assert answer.json()["error"]


def test_a_fault_of_webhooks_strikes_by_event_type() -> None:
    sandbox = Sandbox()
    sandbox.admin("POST", "/faults", kind="duplicate", match="transaction.successful")
    sandbox.pay(sandbox.create(), "fail")
    sandbox.pay(sandbox.create())

    assert [told["status"] for told in sandbox.told()] == ["FAILED", "SUCCESSFUL", "SUCCESSFUL"]


def test_an_endpoint_is_configured_without_a_use_for_its_secret() -> None:
    sandbox = Sandbox()
    sandbox.admin("POST", "/webhooks", url="http://one.test/", secret="unused")
    sandbox.pay(sandbox.create(webhook=None))

    assert [str(request.url) for request in sandbox.posted] == ["http://one.test/"]
