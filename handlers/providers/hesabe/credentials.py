"""What a merchant calls Hesabe with: five or six strings from its panel, carried in one `api_key`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any

from handlers.providers.hesabe import exact_json
from handlers.providers.hesabe.crypto import Cipher

_VISIBLE = re.compile(r"[!-~]{1,200}")
_FORM = "merchant_code:access_code:secret_key:iv_key[:username:password], or a JSON object with these names"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Of one merchant. Without `username` and `password` (the panel's login) calls go without a bearer token.

    Raises ValueError that names what is wrong and quotes nothing.
    """

    merchant_code: str = field(repr=False)
    access_code: str = field(repr=False)
    secret_key: str = field(repr=False)
    iv_key: str = field(repr=False)
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        # The first goes into a JSON text, the second into a header.
        for name in ("merchant_code", "access_code"):
            value = getattr(self, name)
            if not (isinstance(value, str) and _VISIBLE.fullmatch(value)):
                raise ValueError(f"{name} must be a string of 1 to 200 printable ASCII characters without a space")
        for name in ("secret_key", "iv_key"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a string")
        self.cipher()
        login: tuple[object, object] = (self.username, self.password)
        if not all(value is None or (isinstance(value, str) and value) for value in login) or login.count(None) == 1:
            raise ValueError("username and password are two strings that are not empty, or both left out")

    def cipher(self) -> Cipher:
        return Cipher(self.secret_key, self.iv_key)

    def secrets(self) -> tuple[str, ...]:
        """What no log may show."""
        return tuple(
            value for value in (self.access_code, self.secret_key, self.iv_key, self.password) if value is not None
        )


_NAMES = tuple(one.name for one in fields(Credentials))


def read(api_key: str | None, **given: str | None) -> Credentials:
    """The credentials in `api_key` and in single values, which win. Raises ValueError that quotes nothing.

    `api_key` is `merchant_code:access_code:secret_key:iv_key`, with `:username:password` behind it or not, or a JSON
    object with these names. Only a password may hold a colon in the first form.
    """
    values: dict[str, Any] = {} if api_key is None else _taken_apart(api_key)
    values |= {name: value for name, value in given.items() if value is not None}
    missing = [name for name in _NAMES[:4] if name not in values]
    if missing:
        raise ValueError(f"the credentials lack {', '.join(missing)}; api_key is {_FORM}")
    return Credentials(**values)


def _taken_apart(api_key: str) -> dict[str, Any]:
    if api_key.lstrip().startswith("{"):
        try:
            document = exact_json.read(api_key.encode())
        except ValueError:
            document = None
        if not isinstance(document, dict) or not set(document) <= set(_NAMES):
            raise ValueError(f"the api_key cannot be read; it is {_FORM}")
        return document
    parts = api_key.split(":", len(_NAMES) - 1)
    if len(parts) not in {4, 6}:
        raise ValueError(f"the api_key cannot be read; it is {_FORM}")
    return dict(zip(_NAMES, parts, strict=False))
