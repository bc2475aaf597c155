"""Headers of an endpoint's own: which can be sent, and that their values are told to nobody."""

from __future__ import annotations

import re

import httpx
import pytest
from cryptography.fernet import Fernet, MultiFernet
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.given import CountingVault
from workers.delivery.errors import EndpointError
from workers.delivery.headers import MAX_BYTES, MAX_HEADERS, check, denied, opened, stored
from workers.delivery.sender import OWN_HEADERS
from workers.vault import VaultError

SECRET = "Bearer t0ken-of-the-gateway"
VAULT = MultiFernet([Fernet(Fernet.generate_key())])


def refusal(*given_headers: tuple[str, str]) -> str:
    with pytest.raises(EndpointError) as refused:
        check(dict(given_headers))
    return str(refused.value)


@pytest.mark.parametrize(
    "name", ["Authorization", "X-Api-Key", "x-amz-meta", "Accept", "Date", "a", "X-Forwarded", "!#$%"]
)
def test_a_header_that_means_something_to_the_endpoint_only_can_be_set(name: str) -> None:
    check({name: SECRET})


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "content-type", "Content-Length", "CONTENT-ENCODING", "Content-Digest", "Transfer-Encoding", "TE"),
        *("Trailer", "Connection", "Upgrade", "Keep-Alive", "Proxy-Authorization", "proxy-connection", "Expect"),
        *("User-Agent", "Accept-Encoding", "Cookie", "HTTP2-Settings", "Forwarded", "X-Forwarded-For", "Via"),
        *("Webhook-Id", "webhook-signature", "Webhook-Timestamp", "Svix-Signature", "Billhook-Event", "X-Real-IP"),
        *("X-HTTP-Method-Override", "x-method-override"),
    ],
)
def test_a_header_that_the_wire_or_billhook_speaks_with_is_refused_by_its_name(name: str) -> None:
    assert refusal((name, SECRET)) == f"the header {name!r} cannot be set"


def test_whatever_the_sender_sets_itself_is_refused_before() -> None:
    assert [name for name in OWN_HEADERS if not denied(name)] == []


@pytest.mark.parametrize(
    "name",
    ["", "X Key", "X-Key:", "X-Key\r\nHost", "X-Key\n", "X-Key\0", "X-Clé", "X-Key ", "(x)", "X/Key", "X-Ké" * 50],
)
def test_a_name_that_is_none_is_refused(name: str) -> None:
    said = refusal((name, SECRET))

    assert "is not the name of a header" in said
    assert said.isascii()
    assert said.isprintable()
    assert len(said) < 400


@pytest.mark.parametrize(
    "value",
    [
        f"{SECRET}\r\nHost: x",
        f"{SECRET}\n",
        f"{SECRET}\0",
        f"{SECRET}é",
        f"{SECRET}\x7f",
        f" {SECRET}",
        f"{SECRET}\t",
        "",
    ],
)
def test_a_value_that_cannot_be_sent_is_refused_and_not_repeated(value: str) -> None:
    said = refusal(("X-Key", value))

    assert "'X-Key'" in said
    assert "t0ken" not in said


def test_a_name_stands_once_however_it_is_spelt() -> None:
    assert refusal(("X-Key", "1"), ("x-key", "2")) == "the header 'x-key' stands twice"


def test_there_are_at_most_so_many_and_so_large() -> None:
    check({f"X-{number}": "v" for number in range(MAX_HEADERS)})
    check({"X": "v" * (MAX_BYTES - 5)})

    assert refusal(*((f"X-{number}", "v") for number in range(MAX_HEADERS + 1))).endswith(
        "20 headers of its own, not 21"
    )
    assert "8192 bytes" in refusal(("X", "v" * (MAX_BYTES - 4)))


def test_what_is_stored_tells_nothing_and_is_opened_as_it_was_given() -> None:
    given_headers = {"X-Key": SECRET, "authorization": "Basic eDp5"}

    kept = stored(VAULT, given_headers)

    assert kept is not None
    assert b"t0ken" not in kept
    assert b"authorization" not in kept
    assert opened(VAULT, kept) == (("X-Key", SECRET), ("authorization", "Basic eDp5"))
    assert stored(VAULT, {}) is None
    assert opened(VAULT, None) == ()


def test_what_cannot_be_sent_is_not_stored() -> None:
    with pytest.raises(EndpointError, match="'Host'"):
        stored(VAULT, {"Host": "x"})


def test_with_another_key_they_cannot_be_read() -> None:
    with pytest.raises(VaultError, match="BILLHOOK_ENCRYPTION_KEYS"):
        opened(MultiFernet([Fernet(Fernet.generate_key())]), stored(VAULT, {"X-Key": SECRET}))


ANY = st.text(max_size=30) | st.text("X-abc \r\n:\0", max_size=8)


def complaint(wanted: dict[str, str]) -> str | None:
    try:
        check(wanted)
    except EndpointError as error:
        return str(error)
    return None


@given(st.dictionaries(ANY, ANY, max_size=4))
def test_whatever_is_asked_for_is_either_sent_as_it_is_or_refused_in_one_line(wanted: dict[str, str]) -> None:
    if (said := complaint(wanted)) is not None:
        assert said.isprintable()
        return
    request = httpx.Request("POST", "https://x/", headers=[*wanted.items(), ("User-Agent", "Billhook")], content=b"{}")
    for name, value in wanted.items():
        assert re.fullmatch(r"[!-9;-~]+", name)
        assert request.headers.get_list(name) == [value]
    assert request.headers.raw.count((b"User-Agent", b"Billhook")) == 1
    assert request.headers["host"] == "x"


def test_they_are_decrypted_once() -> None:
    vault = CountingVault()
    kept = stored(vault, {"X-Key": SECRET})

    assert opened(vault, kept) == opened(vault, kept) == (("X-Key", SECRET),)
    assert vault.decrypted == 1
