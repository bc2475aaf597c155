from __future__ import annotations

import json
from typing import Any

import pytest

from handlers.providers.hesabe.client import HesabeClient
from handlers.providers.hesabe.credentials import Credentials, read
from tests.handlers.providers.hesabe.server import (
    ACCESS_CODE,
    API_KEY,
    IV_KEY,
    MERCHANT_CODE,
    PASSWORD,
    SECRET_KEY,
    USERNAME,
)

KEYS = {
    "merchant_code": MERCHANT_CODE,
    "access_code": ACCESS_CODE,
    "secret_key": SECRET_KEY,
    "iv_key": IV_KEY,
}
LOGIN = {"username": USERNAME, "password": PASSWORD}
SHORT_KEY = ":".join(KEYS.values())


def changed(**changes: Any) -> str:
    return json.dumps({**KEYS, **changes})


def test_one_string_carries_all_credentials() -> None:
    assert read(API_KEY) == Credentials(**KEYS, **LOGIN)
    assert read(SHORT_KEY) == Credentials(**KEYS)
    assert read(json.dumps({**KEYS, **LOGIN})) == Credentials(**KEYS, **LOGIN)
    assert read(f"\n {json.dumps(KEYS)}\n") == Credentials(**KEYS)


def test_each_may_be_given_by_itself() -> None:
    assert read(None, **KEYS, **LOGIN) == Credentials(**KEYS, **LOGIN)
    assert read(SHORT_KEY, **LOGIN, access_code=None) == Credentials(**KEYS, **LOGIN)
    assert read(API_KEY, access_code="another").access_code == "another"


def test_a_password_may_hold_colons() -> None:
    assert read(f"{SHORT_KEY}:me:a:b::c").password == "a:b::c"


@pytest.mark.parametrize(
    "api_key",
    [
        *("", ":", "hesabe_live_secret", f"{SHORT_KEY}:secret", f"{SHORT_KEY}::", f"{SHORT_KEY}:secret:"),
        *(f"{SHORT_KEY}::secret", SHORT_KEY.replace(SECRET_KEY, "secret"), SHORT_KEY.replace(IV_KEY, "secret")),
        *(f":{ACCESS_CODE}:{SECRET_KEY}:{IV_KEY}", f"1:sec\nret:{SECRET_KEY}:{IV_KEY}"),
        *(f"1:é:{SECRET_KEY}:{IV_KEY}", f"1:{'x' * 201}:{SECRET_KEY}:{IV_KEY}"),
        *("{", "{}", "{]", '{"secret": 1}', json.dumps({**KEYS, "secret": "secret"}), '{"merchant_code": "secret"}'),
        *(changed(merchant_code=842217), changed(secret_key=None), changed(iv_key=[]), changed(access_code=None)),
        *(changed(username="secret"), changed(username="", password=""), changed(username=1, password="secret")),
        '{"a": "\ud800"}',
    ],
)
def test_what_cannot_be_credentials_is_refused_and_not_quoted(api_key: str) -> None:
    with pytest.raises(ValueError, match=r"api_key|key has|must be|username and password") as refused:
        HesabeClient(api_key=api_key)
    assert "secret\n" not in str(refused.value)
    assert not any(value in str(refused.value) for value in (*KEYS.values(), "hesabe_live_secret", "xxx"))
    assert refused.value.__cause__ is None


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="lack secret_key, iv_key; api_key is merchant_code:access_code"):
        HesabeClient(merchant_code=MERCHANT_CODE, access_code=ACCESS_CODE)


def test_credentials_show_in_no_repr() -> None:
    credentials = read(API_KEY)
    with HesabeClient(api_key=API_KEY) as client:
        shown = [repr(credentials), str(credentials), repr(client), repr(vars(client)), repr(vars(client._wire))]

    parts: list[Any] = [*KEYS.values(), PASSWORD]
    assert not any(part in text for part in parts for text in shown if text != repr(vars(client._wire)))
    assert not any(part in shown[-1] for part in (SECRET_KEY, IV_KEY, PASSWORD))
