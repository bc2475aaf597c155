from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.signing import STANDARD, SVIX, hmac_key, sign
from receiver import listen
from receiver.listen import Answers, Delivery, create_app, read_secrets
from workers.delivery import keys

NOW = 1_795_334_113
BODY = b'{"type":"receipt.issued","data":{}}'
FIRST, SECOND = ("whsec_" + base64.b64encode(bytes([byte]) * 32).decode() for byte in b"12")
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = "whpk_" + base64.b64encode(PRIVATE.public_key().public_bytes_raw()).decode()


@dataclass
class Sink:
    """A sink without a socket, and what it told."""

    secrets: Sequence[str] = ()
    answers: Answers = field(default_factory=Answers)
    told: list[tuple[str, Delivery]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._app = create_app(
            read_secrets(self.secrets),
            self.answers,
            now=lambda: float(NOW),
            seen=lambda delivery: self.told.append(("seen", delivery)),
            answered=lambda delivery: self.told.append(("answered", delivery)),
        )

    def post(
        self, headers: dict[str, str], body: bytes | AsyncIterator[bytes] = BODY, **request: str
    ) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://sink") as client:
                method, path = request.get("method", "POST"), request.get("path", "/")
                return await client.request(method, path, headers=headers, content=body)

        return asyncio.run(send())

    @property
    def last(self) -> Delivery:
        return self.told[-1][1]


def signed(*secrets: str | Ed25519PrivateKey, name: str = "msg_1", timestamp: int = NOW) -> dict[str, str]:
    signers = [hmac_key(STANDARD, one) if isinstance(one, str) else one for one in secrets]
    return keys.signed(signers, name, timestamp, BODY)


# --- the verdict ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signers", "words"),
    [
        ([FIRST], "verified with secret 1 (v1)"),
        ([SECOND], "verified with secret 2 (v1)"),
        ([PRIVATE], "verified with secret 3 (v1a)"),
        ([SECOND, FIRST], "verified with secret 1 (v1) and secret 2 (v1)"),
        ([FIRST, PRIVATE], "verified with secret 1 (v1) and secret 3 (v1a)"),
    ],
)
def test_it_is_told_with_which_secrets_a_delivery_verifies(signers: list[str | Ed25519PrivateKey], words: str) -> None:
    sink = Sink([FIRST, SECOND, PUBLIC])

    answer = sink.post(signed(*signers))

    assert answer.status_code == 204
    assert (sink.last.verdict.verified, sink.last.verdict.words) == (True, words)


def test_the_headers_of_svix_are_verified_too() -> None:
    sink = Sink([FIRST])
    headers = sign(SVIX, hmac_key(SVIX, FIRST), delivery_id="msg_1", timestamp=NOW, body=BODY)

    sink.post(headers)

    assert (sink.last.verdict.verified, sink.last.id) == (True, "msg_1")


@pytest.mark.parametrize(
    ("headers", "reason", "words"),
    [
        (signed(SECOND), "bad_signature", "no signature fits"),
        (signed(PRIVATE), "bad_signature", "signed by v1a, which takes a public key whpk_"),
        (signed(FIRST) | {"webhook-id": "msg_2"}, "bad_signature", "no signature fits"),
        (signed(FIRST, timestamp=NOW - 301), "stale_timestamp", "more than 300 seconds away"),
        ({}, "missing_header", "Webhook-Signature is missing"),
    ],
)
def test_what_does_not_verify_is_answered_401_and_told_why(headers: dict[str, str], reason: str, words: str) -> None:
    sink = Sink([FIRST])

    answer = sink.post(headers)

    assert answer.status_code == 401
    assert (sink.last.verdict.verified, sink.last.verdict.reason) == (False, reason)
    assert words in sink.last.verdict.words


def test_without_a_secret_it_says_that_nothing_was_verified() -> None:
    sink = Sink()

    answer = sink.post(signed(FIRST))

    assert answer.status_code == 204
    assert sink.last.verdict.verified is None
    assert "not verified" in sink.last.verdict.words


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("whsk_c2VjcmV0", "secret 2 is a private key"),
        ("whsec_not base64!", "secret 2: a secret of Standard Webhooks is whsec_"),
        ("whpk_c2hvcnQ=", "secret 2: a public key is whpk_"),
        ("whsec_", "secret 2: the secret is empty"),
    ],
)
def test_a_secret_that_is_none_is_refused_without_being_quoted(secret: str, words: str) -> None:
    with pytest.raises(ValueError, match="secret 2") as refused:
        read_secrets([FIRST, secret])

    assert words in str(refused.value)
    assert secret.partition("_")[2] == "" or secret not in str(refused.value)
    assert "key=" not in repr(read_secrets([FIRST]))


# --- what it answers ------------------------------------------------------------------------------


def test_each_message_is_answered_in_turn_and_the_last_status_stays() -> None:
    sink = Sink([FIRST], Answers((503, 500, 204), retry_after=30))

    first = [sink.post(signed(FIRST, name="msg_1")) for _ in range(4)]
    other = sink.post(signed(SECOND, name="msg_2"))

    assert [answer.status_code for answer in first] == [503, 500, 204, 204]
    assert [answer.headers.get("retry-after") for answer in first] == ["30", "30", None, None]
    assert other.status_code == 503
    assert [delivery.before for event, delivery in sink.told if event == "seen"] == [0, 1, 2, 3, 0]


def test_a_delivery_is_shown_before_it_is_answered() -> None:
    sink = Sink(answers=Answers(delay=0.01))

    sink.post(signed(FIRST))

    assert [event for event, _ in sink.told] == ["seen", "answered"]


def test_any_method_and_path_is_taken_as_it_came() -> None:
    sink = Sink()

    sink.post({}, b"", method="DELETE", path="/a%20b/c?d=%2F")

    assert (sink.last.method, sink.last.path, sink.last.id) == ("DELETE", "/a%20b/c?d=%2F", None)


def test_a_body_that_is_too_large_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "MAX_BODY", 1000)
    sink = Sink([FIRST])

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 400

    answer = sink.post(signed(FIRST), endless())

    assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    assert sink.last.verdict.reason == "too_large"
    assert len(sink.last.body) == 1000


def test_the_oldest_ids_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "MAX_IDS", 2)
    sink = Sink()

    for name in ("a", "b", "a", "c", "b", "a"):
        sink.post({"webhook-id": name})

    assert [delivery.before for event, delivery in sink.told if event == "seen"] == [0, 0, 1, 0, 0, 0]
