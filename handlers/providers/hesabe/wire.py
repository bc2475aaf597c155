"""How a call to Hesabe travels: to which of its two APIs, what it is authorised with, and encrypted both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx
import orjson

from handlers.errors import ProviderError
from handlers.providers.hesabe.answers import UNAUTHORIZED, Reader, about
from handlers.providers.hesabe.credentials import Credentials
from handlers.providers.hesabe.session import Session
from handlers.providers.http import RestClient


class Wire:
    """Both APIs of one merchant. `options` are those of RestClient."""

    def __init__(
        self,
        keys: Credentials,
        merchant_api_url: str,
        gateway_url: str,
        *,
        clock: Callable[[], float],
        **options: Any,
    ) -> None:
        self._merchant_code = keys.merchant_code
        self._cipher = keys.cipher()
        self._reader = Reader(self._cipher, keys.secrets())
        self._access = {"accessCode": keys.access_code}
        self._merchant, self._gateway = (
            RestClient(url, {}, failure=self._reader.failure, clock=clock, **options)
            for url in (merchant_api_url, gateway_url)
        )
        self._session: Session | None = None
        if keys.username is not None and keys.password is not None:
            login = {"username": keys.username, "password": keys.password}
            self._session = Session(self._merchant, self._reader, login, clock=clock)

    def close(self) -> None:
        self._merchant.close()
        self._gateway.close()

    def merchant(self, method: str, path: str, *, query: Mapping[str, Any] | None = None, **members: Any) -> Any:
        """Call the merchant API with an object, and give what the answer is about. `query` travels plain, beside it."""
        call = self._encrypted(method, {"merchantCode": self._merchant_code, **members})
        if query is not None:
            call = {**call, "params": {**query, **call.get("params", {})}}
        if self._session is None:
            return about(self._exchange(self._merchant, method, path, self._access, call))
        token = self._session.access()
        try:
            return about(self._exchange(self._merchant, method, path, self._bearing(token), call))
        except ProviderError as error:
            if error.status != httpx.codes.UNAUTHORIZED and error.code != UNAUTHORIZED:
                raise
        # Turned away before anything was done, so that a call that changes something is made again, too.
        token = self._session.access(refused=token)
        return about(self._exchange(self._merchant, method, path, self._bearing(token), call))

    def enquire(self, path: str, **params: Any) -> dict[str, Any]:
        """Ask the gateway something, plain, and give the whole envelope."""
        return self._exchange(self._gateway, "GET", path, self._access, {"params": params})

    def order(self, method: str, path: str, **members: Any) -> Any:
        """Have the gateway do something, told by an object, and give what the answer is about."""
        call = self._encrypted(method, {"merchantCode": self._merchant_code, **members})
        return about(self._exchange(self._gateway, method, path, self._access, call))

    def bare(self, method: str, path: str) -> None:
        """Call the gateway with nothing but an address."""
        self._exchange(self._gateway, method, path, {}, {})

    def _exchange(
        self, rest: RestClient, method: str, path: str, headers: Mapping[str, str], call: Mapping[str, Any]
    ) -> dict[str, Any]:
        return self._reader.envelope(rest.exchange(method, path, headers=headers, **call))

    def _bearing(self, token: str) -> Mapping[str, str]:
        return {**self._access, "Authorization": f"Bearer {token}"}

    def _encrypted(self, method: str, members: Mapping[str, Any]) -> Mapping[str, Any]:
        data = {"data": self._cipher.encrypt(orjson.dumps(members))}
        return {"params": data} if method == "GET" else {"json": data}
