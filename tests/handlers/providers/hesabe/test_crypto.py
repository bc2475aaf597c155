from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import BillhookError
from handlers.providers.hesabe.crypto import Cipher, CipherError
from tests import samples

VECTORS = json.loads((Path(samples.__file__).parent / "hesabe" / "vectors.json").read_text())
KEY, IV = VECTORS["key"], VECTORS["iv"]
CIPHER = Cipher(KEY, IV)
BLOCKS: tuple[Literal[16, 32], ...] = (16, 32)


def vectors(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", VECTORS[kind], ids=[vector["name"] for vector in VECTORS[kind]])


@vectors("documented")
def test_every_published_ciphertext_is_read(vector: dict[str, Any]) -> None:
    assert CIPHER.decrypt(vector["ciphertext"]) == vector["plaintext"].encode()
    assert CIPHER.decrypt(vector["ciphertext"].encode()) == vector["plaintext"].encode()
    assert CIPHER.read(vector["ciphertext"]) == json.loads(vector["plaintext"])


@vectors("documented")
def test_every_published_ciphertext_is_written_again_byte_for_byte(vector: dict[str, Any]) -> None:
    for block in BLOCKS:
        assert (CIPHER.encrypt(vector["plaintext"], block=block) == vector["ciphertext"]) is vector[f"block{block}"]


def test_both_paddings_are_among_the_published_ciphertexts() -> None:
    alone = {(vector["block16"], vector["block32"]) for vector in VECTORS["documented"]}

    assert {(True, False), (False, True)} <= alone


@vectors("generated")
def test_both_paddings_are_written(vector: dict[str, Any]) -> None:
    for block in BLOCKS:
        ciphertext = CIPHER.encrypt(vector["plaintext"], block=block)
        assert ciphertext == vector[f"block{block}"]
        assert CIPHER.decrypt(ciphertext) == vector["plaintext"].encode()


def test_blocks_of_16_bytes_are_the_usual_ones() -> None:
    assert CIPHER.encrypt("{}") == CIPHER.encrypt(b"{}", block=16)


@vectors("refused")
def test_what_must_be_refused_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(CipherError):
        CIPHER.read(vector["ciphertext"])


@pytest.mark.parametrize("vector", [one for one in VECTORS["refused"] if not one["name"].startswith("valid pad")])
def test_what_has_no_right_padding_does_not_decrypt(vector: dict[str, Any]) -> None:
    with pytest.raises(CipherError):
        CIPHER.decrypt(vector["ciphertext"])


GOOD = CIPHER.encrypt("{}")


@pytest.mark.parametrize(
    "text",
    [
        *("", b"", " ", GOOD[:-1], GOOD[:-2], f"{GOOD}00", f" {GOOD}", f"{GOOD}\n", f"0x{GOOD[2:]}"),
        *(GOOD.replace(GOOD[0], "g"), f"{GOOD[:16]} {GOOD[17:]}", "é" * 32, b"\xff" * 32, "٣" * 32, "\ud800" * 32),
    ],
)
def test_only_whole_blocks_of_hexadecimal_digits_are_taken(text: str | bytes) -> None:
    with pytest.raises(CipherError):
        CIPHER.decrypt(text)


@pytest.mark.parametrize("value", [None, 1, [], {}, object(), "x", True])
def test_anything_whatever_gives_the_one_exception(value: Any) -> None:
    for reading in (CIPHER.decrypt, CIPHER.read):
        with pytest.raises(CipherError):
            reading(value)


@pytest.mark.parametrize("plaintext", ["[]", "1", "null", '"x"', "", "{", '{"a":NaN}', "{}{}", "[" * 100_000])
def test_a_ciphertext_that_hides_no_object_cannot_be_read(plaintext: str) -> None:
    with pytest.raises(CipherError):
        CIPHER.read(CIPHER.encrypt(plaintext))


def test_fractions_are_read_exactly() -> None:
    assert str(CIPHER.read(CIPHER.encrypt('{"net_amount":14.900}'))) == "{'net_amount': Decimal('14.900')}"


def test_capital_digits_are_read_as_well() -> None:
    assert CIPHER.decrypt(GOOD.upper()) == b"{}"


def test_another_key_gives_the_one_exception_or_nothing_that_can_be_read() -> None:
    request = VECTORS["documented"][0]["ciphertext"]
    for other in (Cipher(KEY[::-1], IV), Cipher("0" * 32, IV)):
        with pytest.raises(CipherError):
            other.read(request)


@given(plaintext=st.binary(max_size=200), block=st.sampled_from(BLOCKS))
def test_what_is_encrypted_decrypts(plaintext: bytes, block: Literal[16, 32]) -> None:
    ciphertext = CIPHER.encrypt(plaintext, block=block)

    assert CIPHER.decrypt(ciphertext) == plaintext
    assert len(ciphertext) % (2 * block) == 0
    assert ciphertext == ciphertext.lower()


@given(st.binary(max_size=400) | st.binary(min_size=16, max_size=96).map(bytes.hex) | st.text(max_size=64))
def test_any_input_is_read_or_gives_the_one_exception(text: str | bytes) -> None:
    try:
        plaintext = CIPHER.decrypt(text)
    except CipherError:
        return
    assert isinstance(plaintext, bytes)


@given(st.binary(min_size=16, max_size=96).map(lambda data: data[: len(data) // 16 * 16].hex()))
def test_any_blocks_are_an_object_or_give_the_one_exception(text: str) -> None:
    try:
        document = CIPHER.read(text)
    except CipherError:
        return
    assert isinstance(document, dict)


@pytest.mark.parametrize(
    ("key", "iv"), [("", IV), (KEY[1:], IV), (f"{KEY}0", IV), (KEY, ""), (KEY, IV[1:]), (KEY, KEY)]
)
def test_a_key_of_another_length_is_refused_without_being_quoted(key: str, iv: str) -> None:
    with pytest.raises(ValueError, match="key has") as refused:
        Cipher(key, iv)
    assert not key or key not in str(refused.value)


def test_a_key_has_ascii_characters_only() -> None:
    with pytest.raises(ValueError, match="the secret key"):
        Cipher("é" * 32, IV)
    with pytest.raises(ValueError, match="the IV key"):
        Cipher(KEY, "é" * 16)


def test_padding_to_other_blocks_and_lone_surrogates_are_refused() -> None:
    with pytest.raises(ValueError, match="16 or 32"):
        CIPHER.encrypt("{}", block=8)  # type: ignore[arg-type]  # what a caller without types may do
    with pytest.raises(CipherError, match="surrogates"):
        CIPHER.encrypt("\ud800")


def test_the_keys_show_nowhere() -> None:
    assert repr(CIPHER) == "<Cipher>"
    assert issubclass(CipherError, BillhookError)
    assert not hasattr(CIPHER, "__dict__")
