"""The Hesabe sandbox without a network: its documented samples, and whom it turns away with which body."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from handlers.providers.hesabe.crypto import Cipher
from handlers.providers.hesabe.sandbox import create_app
from tests import samples
from tests.handlers.providers.hesabe.server import ACCESS_CODE, IV_KEY, PASSWORD, SECRET_KEY, USERNAME, sealed

VECTORS = {
    vector["name"]: vector
    for vector in json.loads((Path(samples.__file__).parent / "hesabe" / "vectors.json").read_text())["documented"]
}
NOW = datetime(2025, 10, 5, 12, 37, 13, tzinfo=UTC)
"""When Hesabe answered the documented request: its answer is of 15:37:13 in Kuwait."""
INVOICE = {
    "merchantCode": "842217",
    "mobileNumber": "66666666",
    "customerName": "TEST",
    "referenceNumber": "12349899",
    "amount": "20.000",
    "countryCode": "965",
    "invoiceType": "1",
    "invoiceSubType": "3",
    "allocatePayType": "1,2",
    "description": "Invoice testing",
    "customerEmail": "test@gmail.com",
    "expiresAt": "2025-12-12",
    "webhook": "https://billhook.test/webhooks/pay/word",
}
"""Step 1 of "Single invoice"."""
SUBSCRIPTION = INVOICE | {
    "countryCode": "+965",
    "invoiceSubType": "0",
    "allocatePayType": [1, 2, 5, 10],
    "subscription": "1",
    "frequency": "1",
    "noofRecurrence": "12",
    "SubscriptionType": "0",
    "startDate": "2025-10-31",
}
"""As "Create subscription invoice" has it; automatic by its sample."""

INVALID = {"status": False, "code": 506, "message": "Invalid Request Data", "response": None}
NOT_FOUND = {"status": False, "message": "Request not found, Please verify the request data", "response": None}
INTERNAL = {"message": "Internal server error occurred"}
UNAUTHORIZED = {"status": False, "message": "Invalid Signature.", "response": None}


class Sandbox:
    """In process: its webhooks have arrived when a call returns."""

    def __init__(self, *statuses: int, **options: Any) -> None:
        self.posted: list[httpx.Request] = []
        self.wall = NOW.timestamp()
        self._statuses = list(statuses) or [200]
        settings: dict[str, Any] = {"clock": NOW, "retry_delays": ()}
        self.app = create_app(
            **(settings | options), now=lambda: self.wall, transport=httpx.MockTransport(self._receive)
        )
        self._token: str | None = None

    def _receive(self, request: httpx.Request) -> httpx.Response:
        self.posted.append(request)
        return httpx.Response(self._statuses[min(len(self.posted), len(self._statuses)) - 1])

    def send(self, method: str, path: str, **content: Any) -> httpx.Response:
        """Any request, as it is."""

        async def exchange() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://sandbox.test") as client:
                return await client.request(method, path, **content)

        return asyncio.run(exchange())

    def log_in(self) -> dict[str, Any]:
        answer = self.send("POST", "/api/v1/login", json={"username": USERNAME, "password": PASSWORD})
        token: dict[str, Any] = answer.json()["response"]["token"]
        return token

    @property
    def headers(self) -> dict[str, str]:
        if self._token is None:
            self._token = self.log_in()["access_token"]
        return {"accessCode": ACCESS_CODE, "Authorization": f"Bearer {self._token}"}

    def post_sealed(
        self, method: str, path: str, hidden: str, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        content = {"params": {"data": hidden}} if method == "GET" else {"json": {"data": hidden}}
        return self.send(method, path, headers=self.headers if headers is None else headers, **content)

    def call(self, method: str, path: str, /, **members: Any) -> httpx.Response:
        """Call the merchant API, or capture, with an object that has the merchant's code."""
        return self.post_sealed(method, path, self.hidden(**({"merchantCode": "842217"} | members)))

    @staticmethod
    def hidden(**members: Any) -> str:
        """As a client encrypts: padded to 16 bytes."""
        return sealed(members, bits=128)

    def create(self, **changes: Any) -> dict[str, Any]:
        """A new invoice of the sample, changed."""
        return opened(self.call("POST", "/api/v1/invoice", **(INVOICE | changes)))["response"]  # type: ignore[no-any-return]  # JSON

    def pay(self, invoice: Mapping[str, Any], outcome: str = "pay", **form: str) -> httpx.Response:
        """What the customer does on the page."""
        return self.send("POST", httpx.URL(invoice["url"]).path, data={"outcome": outcome, **form})

    def told(self) -> list[dict[str, Any]]:
        """The bodies of the webhooks."""
        return [json.loads(request.content) for request in self.posted]

    def admin(self, method: str, path: str, **body: Any) -> Any:
        answer = self.send(method, f"/sandbox{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def enquire(self, token: str, **params: str) -> httpx.Response:
        return self.send("GET", f"/api/transaction/{token}", headers={"accessCode": ACCESS_CODE}, params=params)


def opened(answer: httpx.Response) -> dict[str, Any]:
    """The object that an encrypted answer hides."""
    assert answer.is_success, (answer.status_code, answer.text, answer.headers.get("x-sandbox-reason"))
    text = answer.text if answer.headers["content-type"].startswith("text/") else answer.json()["response"]
    return Cipher(SECRET_KEY, IV_KEY).read(text)


def test_the_documented_request_is_answered_as_documented_to_the_letter() -> None:
    sandbox = Sandbox()

    answer = sandbox.post_sealed("POST", "/api/v1/invoice", VECTORS["single-invoice request"]["ciphertext"])

    # what no two invoices share is put in; the rest is compared byte for byte
    found = Cipher(SECRET_KEY, IV_KEY).decrypt(answer.json()["response"]).decode()
    recorded = VECTORS["single-invoice response"]["plaintext"]
    for pattern in (
        r'"id":146[0-9]+',
        r'"token":"84[0-9]+"',
        r'"access_key":"[0-9A-Z]{8}"',
        r"http:[^\"]+/s\\/[0-9A-Z]{8}",
    ):
        found = re.sub(pattern, re.search(pattern, recorded)[0].replace("\\", r"\\"), found, count=1)  # type: ignore[index]  # found below
    assert found == recorded


@pytest.mark.parametrize("name", ["TEST", "T", "A customer with a longer name", "أحمد", '😀/\\"'])
def test_answers_are_padded_to_32_bytes_and_written_as_php_writes_json(name: str) -> None:
    answer = Sandbox().call("POST", "/api/v1/invoice", **(INVOICE | {"customerName": name}))

    hidden = bytes.fromhex(answer.json()["response"])
    plain = Cipher(SECRET_KEY, IV_KEY).decrypt(answer.json()["response"])
    assert answer.headers["content-type"] == "application/json"
    assert len(hidden) % 32 == 0
    assert 1 <= len(hidden) - len(plain) <= 32
    assert plain.isascii()
    assert b"/" not in plain.replace(b"\\/", b"")
    assert json.loads(plain)["response"]["customer"]["name"] == name


def test_ids_rise_and_tokens_begin_with_merchant_and_time() -> None:
    sandbox = Sandbox()

    first, second = sandbox.create(), sandbox.create()

    assert (first["id"], second["id"]) == (14685, 14686)
    assert first["token"].startswith("841759667833")
    assert re.fullmatch("[0-9]{22}", second["token"])
    assert first["token"] != second["token"]
    assert first["url"] == f"http://sandbox.test/s/{first['access_key']}"
    assert first["created_at"] == "2025-10-05 15:37:13"


def test_an_invoice_is_read_again_without_an_envelope_and_with_the_types_of_that_page() -> None:
    sandbox = Sandbox()
    created = sandbox.create(
        language="en", itemsList=[{"itemTitle": "A", "rate": "20.000", "quantity": "1", "amount": "20.000"}]
    )

    again = opened(sandbox.call("GET", f"/api/v1/invoice/{created['id']}"))

    assert (created["merchant_id"], created["invoice_sub_type"]) == (84, "3")
    assert (again["merchant_id"], again["invoice_sub_type"]) == ("84", 3)
    assert set(created) - set(again) == {"en_sms", "ar_sms"}
    assert (
        again["products"]
        == created["products"]
        == [{"itemTitle": "A", "rate": "20.000", "quantity": "1", "amount": "20.000"}]
    )
    assert (again["language"], again["transaction"]) == ("en", None)


def test_an_invoice_without_a_reference_number_gets_one() -> None:
    sandbox = Sandbox()
    without = {
        name: value
        for name, value in INVOICE.items()
        if name not in ("referenceNumber", "description", "customerEmail")
    }

    invoice = opened(sandbox.call("POST", "/api/v1/invoice", **without))["response"]

    assert re.fullmatch("84[0-9]{7}", invoice["reference_number"])
    assert (invoice["description"], invoice["customer"]["email"]) == ("", "")


def test_the_documented_cancellation_cancels_once() -> None:
    sandbox = Sandbox()
    invoice = sandbox.create()
    path, hidden = f"/api/v1/invoice/{invoice['token']}", VECTORS["cancel invoice request"]["ciphertext"]

    first, second = (sandbox.post_sealed("PUT", path, hidden) for _ in range(2))

    assert first.json()["response"] == VECTORS["cancel invoice response"]["ciphertext"]
    assert (second.status_code, second.json()) == (
        400,
        {"status": False, "message": "Invoice status update failed", "response": None},
    )
    assert opened(sandbox.call("GET", f"/api/v1/invoice/{invoice['id']}"))["invoice_status"] == 3


def test_a_paid_invoice_cannot_be_cancelled_or_sent_again() -> None:
    sandbox = Sandbox()
    invoice = sandbox.create()
    sandbox.pay(invoice)

    cancelled = sandbox.call("PUT", f"/api/v1/invoice/{invoice['token']}", statusId="3")
    resent = sandbox.call(
        "POST", "/api/v1/invoice/resend", mobileNumber="66666666", resendId=str(invoice["id"]), countryCode="965"
    )

    assert cancelled.status_code == 400
    assert (resent.status_code, resent.json()) == (506, INVALID)


def test_an_invoice_is_sent_again_to_the_number_that_is_given() -> None:
    sandbox = Sandbox()
    invoice = sandbox.create(invoiceSubType="0", language="en")

    answer = opened(
        sandbox.call(
            "POST", "/api/v1/invoice/resend", mobileNumber="55555555", resendId=str(invoice["id"]), countryCode="+965"
        )
    )

    assert (answer["message"], answer["response"]["id"]) == ("Invoice Resent Successfully", invoice["id"])
    messages = sandbox.admin("GET", "")["messages"]
    assert [message["recipient"] for message in messages] == ["96555555555", "96566666666"]
    assert messages[0]["text"] == f"{invoice['en_sms']} {invoice['url']}"


def test_a_call_without_the_ciphertext_or_with_a_wrong_one_is_invalid() -> None:
    sandbox = Sandbox()
    other_key = Cipher("a" * 32, IV_KEY).encrypt(json.dumps(INVOICE))
    other_iv = Cipher(SECRET_KEY, "a" * 16).encrypt(json.dumps(INVOICE))
    no_object = Cipher(SECRET_KEY, IV_KEY).encrypt("[]")
    half_a_pair = Cipher(SECRET_KEY, IV_KEY).encrypt('{"merchantCode":"842217","customerName":"\\ud800"}')
    bodies: list[Any] = [{"data": text} for text in (other_key, other_iv, no_object, half_a_pair, "", "xyz", 1)]

    answers = [
        sandbox.send("POST", "/api/v1/invoice", headers=sandbox.headers, json=body) for body in (*bodies, {}, [])
    ]
    answers.append(sandbox.send("POST", "/api/v1/invoice", headers=sandbox.headers, content=b"\xff{"))

    assert [(answer.status_code, answer.json()) for answer in answers] == [(506, INVALID)] * 10
    assert all(
        "data" in answer.headers["x-sandbox-reason"] or "body" in answer.headers["x-sandbox-reason"]
        for answer in answers
    )


def test_another_merchants_code_is_an_invalid_merchant() -> None:
    answer = Sandbox().call("POST", "/api/v1/invoice", **(INVOICE | {"merchantCode": "842218"}))

    assert answer.json() == {"status": False, "code": 501, "message": "Invalid Merchant", "response": None}


@pytest.mark.parametrize("path", ["/api/v1/invoice", "/api/v1/invoice/", "/api/v1/refund"])
def test_access_code_and_bearer_token_are_both_needed(path: str) -> None:
    sandbox = Sandbox()
    whole = sandbox.headers
    lacking: list[dict[str, str]] = [
        {},
        {"accessCode": ACCESS_CODE},
        {"Authorization": whole["Authorization"]},
        whole | {"accessCode": "c333729b"},
        whole | {"Authorization": "Bearer x.y.z"},
        whole | {"Authorization": whole["Authorization"].replace("Bearer", "Basic")},
    ]

    answers = [sandbox.post_sealed("POST", path, sealed(INVOICE), headers) for headers in lacking]

    assert [(answer.status_code, answer.json()) for answer in answers] == [(401, UNAUTHORIZED)] * 6


def test_the_documented_call_without_a_token_is_served_where_no_login_is_required() -> None:
    sandbox = Sandbox(login_required=False)
    hidden = VECTORS["single-invoice request"]["ciphertext"]

    answer = sandbox.post_sealed("POST", "/api/v1/invoice", hidden, {"accessCode": ACCESS_CODE})

    assert opened(answer)["message"] == "Invoice generated successfully"


def test_a_login_is_answered_as_documented_and_ends_after_15_minutes() -> None:
    sandbox = Sandbox()

    answer = sandbox.send("POST", "/api/v1/login", json={"username": "Test", "password": "Test@1234"}).json()

    assert (answer["status"], answer["message"]) == (True, "Success")
    token = answer["response"]["token"]
    assert (token["token_type"], token["expires_in"]) == ("Bearer", 900)
    assert token["access_token"].startswith("eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.")
    headers = {"accessCode": ACCESS_CODE, "Authorization": f"Bearer {token['access_token']}"}
    for after, status in ((899, 404), (900, 401)):
        sandbox.wall = NOW.timestamp() + after
        assert (
            sandbox.post_sealed("GET", "/api/v1/invoice/1", sealed({"merchantCode": "842217"}), headers).status_code
            == status
        )


def test_a_refresh_token_works_once_and_ends_the_token_it_came_with() -> None:
    sandbox = Sandbox()
    first = sandbox.log_in()

    def refresh() -> httpx.Response:
        return sandbox.send("POST", "/api/v1/token-refresh", json={"refreshToken": first["refresh_token"]})

    second = refresh().json()["response"]["token"]
    again = refresh()

    assert (again.status_code, again.json()) == (401, UNAUTHORIZED)
    statuses = {}
    for name, token in (("first", first), ("second", second)):
        headers = {"accessCode": ACCESS_CODE, "Authorization": f"Bearer {token['access_token']}"}
        statuses[name] = sandbox.post_sealed(
            "GET", "/api/v1/refund/", sealed({"merchantCode": "842217"}), headers
        ).status_code
    assert statuses == {"first": 401, "second": 200}


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ({"username": "Test", "password": "test@1234"}, 401, UNAUTHORIZED),
        ({"username": "test", "password": "Test@1234"}, 401, UNAUTHORIZED),
        ({"username": "Test", "password": "كلمة"}, 401, UNAUTHORIZED),
        ({"username": "Test"}, 404, NOT_FOUND),
        ([], 404, NOT_FOUND),
    ],
)
def test_a_wrong_login_is_refused(body: Any, status: int, expected: dict[str, Any]) -> None:
    answer = Sandbox().send("POST", "/api/v1/login", json=body)

    assert (answer.status_code, answer.json()) == (status, expected)


def test_a_refresh_token_is_no_access_token() -> None:
    sandbox = Sandbox()
    token = sandbox.log_in()
    headers = {"accessCode": ACCESS_CODE, "Authorization": f"Bearer {token['refresh_token']}"}

    assert sandbox.post_sealed("POST", "/api/v1/invoice", sealed(INVOICE), headers).status_code == 401
    assert (
        sandbox.send("POST", "/api/v1/token-refresh", json={"refreshToken": token["access_token"]}).status_code == 401
    )


@pytest.mark.parametrize(
    ("method", "path", "members"),
    [
        ("GET", "/api/v1/invoice/14685", {}),
        ("GET", "/api/v1/invoice/99999999999999999999999", {}),
        ("GET", "/api/v1/invoice/²", {}),
        ("PUT", "/api/v1/invoice/8417596678339677489", {"statusId": "3"}),
        ("POST", "/api/v1/invoice/resend", {"mobileNumber": "66666666", "resendId": "1782", "countryCode": "965"}),
        ("POST", "/api/v1/refund", {"refundAmount": "10.000", "refundMethod": "1", "token": "84221717575602869"}),
        ("GET", "/api/v1/refund/1461", {}),
        ("DELETE", "/api/v1/refund/1461", {}),
        ("GET", "/api/v1/nothing", {}),
        ("PATCH", "/api/v1/invoice", {}),
    ],
)
def test_what_is_not_there_is_not_found(method: str, path: str, members: dict[str, Any]) -> None:
    answer = Sandbox().call(method, path, **members)

    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


def test_an_unknown_transaction_has_a_body_of_its_own() -> None:
    answer = Sandbox().enquire("84221716951937729753667644493")

    expected = {"status": False, "message": "Transaction not found", "data": None}
    assert (answer.status_code, answer.json()) == (404, expected)


def test_a_fault_answers_as_documented_and_a_limit_says_when() -> None:
    sandbox = Sandbox()
    sandbox.admin("POST", "/faults", kind="error", match="POST /api/v1/invoice")
    broken = sandbox.call("POST", "/api/v1/invoice", **INVOICE)
    sandbox.admin("POST", "/faults", kind="too_many")
    limited = sandbox.call("POST", "/api/v1/invoice", **INVOICE)

    assert (broken.status_code, broken.json()) == (500, INTERNAL)
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "1")
    assert sandbox.create()["id"] == 14685


def test_a_file_keeps_invoices_credentials_and_settings(tmp_path: Path) -> None:
    path = tmp_path / "hesabe.db"
    before = Sandbox(path=path, on_demand="0")
    invoice = before.create()
    before.app.state.machine.store.close()

    after = Sandbox(path=path)

    assert opened(after.call("GET", f"/api/v1/invoice/{invoice['id']}"))["token"] == invoice["token"]
    assert after.admin("GET", "")["settings"]["on_demand"] == "0"
    assert after.create()["id"] == invoice["id"] + 1


@pytest.mark.parametrize(
    "options", [{"on_demand": "2"}, {"webhooks": [("ftp://x", "")]}, {"faults": {"nonsense": 1.0}}]
)
def test_what_cannot_be_is_refused_at_the_start(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"on_demand|webhook|fault"):
        create_app(**options)
