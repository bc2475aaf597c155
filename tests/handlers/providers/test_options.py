"""What the options of a source are checked for, before the first delivery comes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers import signing
from handlers.providers import PROVIDERS, Inbound
from handlers.providers.generic.webhook import GenericOptions
from handlers.providers.provider import Options, read_options
from handlers.signing import TOKEN
from tests.handlers.providers.senders import SENDERS, Sender

HISAB, HIBR, STANDARD, GENERIC = (PROVIDERS[name] for name in ("hisab", "hibr", "standard", "generic"))
SIGNED = {"signature": "X-Signature"}


def complaint(provider: str, options: Mapping[str, Any]) -> str:
    with pytest.raises(ValueError, match=r"option") as refused:
        PROVIDERS[provider].inbound(options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# --- of all providers -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(PROVIDERS))
def test_an_option_that_a_provider_has_not_is_refused_with_those_it_has(name: str) -> None:
    said = complaint(name, {**(SIGNED if name == "generic" else {}), "colour": "red"})

    assert said.startswith("there is no option colour; this provider takes: ")
    for known in {"hisab": ["format"], "hibr": ["livemode"], "generic": ["signature", "content", "type"]}.get(name, []):
        assert known in said
    if name in {"standard", "hesabe"}:
        assert said.endswith(": none")


@pytest.mark.parametrize("sender", [pytest.param(sender, id=sender.name) for sender in SENDERS])
def test_the_options_of_every_sender_of_the_suite_are_taken(sender: Sender) -> None:
    inbound = sender.inbound

    assert isinstance(inbound, Inbound)
    assert set(sender.names) <= inbound.once
    assert sender.signature not in inbound.kept
    assert inbound.kept - {inbound.type_header} == inbound.once - {scheme.signature for scheme in inbound.schemes}


NAMES = st.sampled_from(["format", "livemode", *GenericOptions.model_fields]) | st.text(max_size=12)
WRITTEN = st.sampled_from(
    ["{id}", "{timestamp}.{body}", "{body}", "X-A", "x-a", "t=", ",", "header:X-A", "data.id", "hex"]
)
VALUES = WRITTEN | st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.lists(st.text())


@given(st.dictionaries(NAMES, VALUES))
def test_any_options_are_taken_or_refused_with_one_line(options: dict[str, Any]) -> None:
    for provider in PROVIDERS.values():
        for chosen in (options, {**SIGNED, **options}):
            try:
                result: object = provider.inbound(chosen)
            except ValueError as refused:
                result = str(refused)
            assert isinstance(result, Inbound) or re.match("(there is no option|options?) ", str(result))


def test_options_do_not_change_once_they_are_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read_options(Options, {}).colour = "red"  # type: ignore[attr-defined]


# --- Hisab, HIBR, Standard Webhooks ---------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "Older", "v1", 1, None, True, ["older"]])
def test_hisab_has_two_formats(value: object) -> None:
    said = complaint("hisab", {"format": value})

    assert said.startswith("option format: ")
    assert "'current'" in said
    assert "'older'" in said


@pytest.mark.parametrize("value", [True, False, "true", "false", None])
def test_the_livemode_of_hibr_may_be_written_as_a_variable_has_it(value: object) -> None:
    assert HIBR.inbound({"livemode": value}).schemes == HIBR.inbound({}).schemes


@pytest.mark.parametrize("value", ["live", "", 2, [], "None"])
def test_the_livemode_of_hibr_is_true_or_false(value: object) -> None:
    assert complaint("hibr", {"livemode": value}).startswith("option livemode: ")


def test_a_source_of_standard_webhooks_takes_both_names() -> None:
    inbound = STANDARD.inbound({})

    assert inbound.schemes == (signing.STANDARD, signing.SVIX)
    assert inbound.once == signing.STANDARD.headers | signing.SVIX.headers


# --- any other sender -----------------------------------------------------------------------------


def test_a_described_source_needs_the_header_of_the_signature_and_nothing_else() -> None:
    assert complaint("generic", {}).startswith("option signature: ")
    (scheme,) = GENERIC.inbound(SIGNED).schemes
    assert scheme.headers == {b"x-signature"}


@pytest.mark.parametrize("option", ["signature", "timestamp", "id"])
@pytest.mark.parametrize("value", ["", "X Signature", "X-Signature:", "X-Signatür", "X-A\r\nX-B", "x" * 101, 7])
def test_a_header_has_a_name_that_headers_have(option: str, value: object) -> None:
    assert complaint("generic", {**SIGNED, option: value}).startswith(f"option {option}: ")


@pytest.mark.parametrize("value", ["", ".", "a.", ".a", "a..b", "header:", "header:X Y", "header:é", "header:a:b", 7])
def test_a_place_is_a_header_or_a_path(value: object) -> None:
    for option in ("type", "key", "object", "time", "organization"):
        assert complaint("generic", {**SIGNED, option: value}).startswith(f"option {option}: ")


@pytest.mark.parametrize("value", ["type", "data.object.id", "a b.c", "é", "header:X-Type", "0", "headers.type"])
def test_other_places_are_taken(value: str) -> None:
    assert isinstance(GENERIC.inbound({**SIGNED, "type": value}), Inbound)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"content": ""}, "content"),
        ({"content": "{timestamp}"}, "content"),
        ({"content": "{time}.{body}"}, "content"),
        ({"content": "{timestamp}.{body}"}, "timestamp"),
        ({"content": "{id}.{body}"}, "id"),
        ({"stamp": "t="}, "separator"),
        ({"stamp": "t=", "separator": ",", "timestamp": "X-Time"}, "timestamp"),
        ({"timestamp": "x-signature", "content": "{timestamp}{body}"}, "different headers"),
        ({"id": "X-SIGNATURE"}, "different headers"),
        ({"id": "X-A", "timestamp": "x-a", "content": "{timestamp}{body}"}, "different headers"),
        ({"encoding": "base32"}, "encoding"),
        ({"unit": "minutes"}, "unit"),
        ({"secret_encoding": "hex"}, "secret_encoding"),
        ({"mark": "v1,", "separator": ","}, "separator"),
        ({"stamp": "t,", "separator": ","}, "separator"),
        ({"mark": "t=", "stamp": "t=", "separator": ","}, "stamp"),
    ],
)
def test_what_could_never_verify_is_refused_by_the_name_of_the_option(options: dict[str, str], named: str) -> None:
    assert named in complaint("generic", {**SIGNED, **options})


@pytest.mark.parametrize("between", ["", "0", "17"])
@pytest.mark.parametrize("parts", [("{id}", "{timestamp}"), ("{timestamp}", "{id}")])
def test_an_id_and_a_time_that_run_into_each_other_are_refused(parts: tuple[str, str], between: str) -> None:
    # evt_0 at 1700000000 would have the signature of evt_ at 01700000000.
    placed = {**SIGNED, "id": "X-Id", "timestamp": "X-Time"}

    assert "no digit" in complaint("generic", {**placed, "content": f"{between.join(parts)}.{{body}}"})
    assert isinstance(GENERIC.inbound({**placed, "content": f"{'.'.join(parts)}.{{body}}"}), Inbound)


@pytest.mark.parametrize("options", [{}, {"id": "X-Id"}, {"id": "X-Other", "content": "{id}.{body}"}])
def test_the_key_of_an_event_stands_in_no_header_that_is_not_signed(options: dict[str, str]) -> None:
    # Whoever repeats a delivery would write another one there, and have it stored once more.
    assert complaint("generic", {**SIGNED, **options, "key": "header:X-Id"}).startswith("option key ")


def test_the_key_of_an_event_may_be_the_signed_id() -> None:
    options = {"id": "X-Id", "content": "{id}.{body}", "key": "header:x-id"}

    assert GENERIC.inbound({**SIGNED, **options}).signs_id


@pytest.mark.parametrize("options", [{"timestamp": "X-Time"}, {"stamp": "t=", "separator": ","}])
def test_a_time_that_is_not_signed_makes_nothing_fresh_and_is_refused(options: dict[str, str]) -> None:
    # Whoever repeats an old delivery would write the present time beside it.
    assert "{timestamp}" in complaint("generic", {**SIGNED, **options})
    assert isinstance(GENERIC.inbound({**SIGNED, **options, "content": "{timestamp}{body}"}), Inbound)


@pytest.mark.parametrize(
    ("options", "secret", "key"),
    [
        ({}, "whsec_AAAA", b"whsec_AAAA"),
        ({"secret_encoding": "base64"}, "whsec_AAAA", b"\0\0\0"),
        ({"secret_encoding": "base64"}, "AAAA", b"\0\0\0"),
    ],
)
def test_the_secret_of_a_described_source_is_its_own_bytes_or_base64(
    options: dict[str, str], secret: str, key: bytes
) -> None:
    assert GENERIC.inbound({**SIGNED, **options}).key(secret) == key


@pytest.mark.parametrize("secret", ["not base64", "A", "whpk_AAAA", ""])
def test_a_secret_that_is_not_base64_is_refused_where_it_should_be(secret: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        GENERIC.inbound({**SIGNED, "secret_encoding": "base64"}).key(secret)


# --- a secret in the path -------------------------------------------------------------------------

UNSIGNED = Inbound(schemes=(), parse=HISAB.inbound({}).parse)


@pytest.mark.parametrize(
    "secret", ["x" * 24, "x" * 200, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"]
)
def test_a_secret_in_the_path_is_long_and_needs_no_escape(secret: str) -> None:
    assert UNSIGNED.key(secret) == secret.encode()


@pytest.mark.parametrize(
    "secret", ["", "x" * 23, "x" * 201, "x" * 24 + "/", "x" * 24 + "\n", "x" * 24 + "%20", "x" * 24 + ".", "é" * 24]
)
def test_another_secret_in_the_path_is_refused_and_not_quoted(secret: str) -> None:
    with pytest.raises(ValueError, match="24 to 200") as refused:
        UNSIGNED.key(secret)
    assert not secret or secret not in str(refused.value)
    assert TOKEN.fullmatch(secret) is None


def test_a_provider_that_does_not_sign_has_no_headers_of_its_own() -> None:
    assert (UNSIGNED.once, UNSIGNED.kept) == (frozenset(), frozenset())
