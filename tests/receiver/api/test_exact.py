"""Bodies are read without floating point, and only what is JSON is one."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from receiver.api.exact import read


@pytest.mark.parametrize("number", ["10400.10", "0.1", "123456789012345.1234567891", "0.30000000000000001", "1e2"])
def test_a_number_stays_what_was_written(number: str) -> None:
    (found,) = read(f"[{number}]".encode())

    assert isinstance(found, Decimal)
    assert found.as_tuple() == Decimal(number).as_tuple()


def test_whole_numbers_and_all_else_are_as_ever() -> None:
    assert read('{"a": [1, -0, true, null, "é", "\\ud83d\\ude00"]}'.encode()) == {"a": [1, 0, True, None, "é", "😀"]}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[NaN]", b"[Infinity]", b"[-Infinity]", b'"\xff"', b'"\xed\xa0\x80"', b'["\\ud800"]',
        b'{"\\udfff": 1}', b"\xef\xbb\xbf[]", b"[" * 100_000, b"[1e99999999999999999999999]", b"9" * 5_000,
    ],
)  # fmt: skip
def test_what_is_no_json_is_told_so(body: bytes) -> None:
    with pytest.raises(json.JSONDecodeError):
        read(body)
