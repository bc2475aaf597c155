"""The client of the management API: what it asks, what it waits for, and how it says what went wrong.

A change goes under an `Idempotency-Key` of its own, the same for each time that it is sent, so an answer that was lost
is asked for again and nothing is done twice. Redirects are not followed: the key goes to nobody but whom it was given.
"""

from __future__ import annotations

import math
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from time import sleep
from typing import Any, NoReturn

import httpx

from receiver.cli.output import CommandError, WrongUse
from receiver.cli.remote.rows import Object
from receiver.versions import VERSION

PREFIX = "/api/v1"
PAGE = 200
"""How many of a list are asked for at once."""
LONGEST = 300.0
"""Seconds that one request waits because it is told to."""
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)
_KEY_IS_WRONG = "the key is missing, wrong, expired or revoked"


@dataclass(frozen=True, slots=True)
class Api:
    """The API of a Billhook elsewhere, asked with a key."""

    http: httpx.Client = field(repr=False)
    url: str

    def get(self, path: str, **query: Any) -> Any:
        """The data of one thing. Raises CommandError."""
        data = self._data(self._send("GET", path, params=_given(query)))
        if not isinstance(data, dict | list):
            raise CommandError(f"{self.url} answers with nothing, which is no answer of this API")
        return data

    def listed(self, path: str, *, limit: int | None = None, page: int = PAGE, **query: Any) -> Iterator[Any]:
        """The `limit` first of a list, page by page. Raises CommandError."""
        asked, left = _given(query), math.inf if limit is None else limit
        while left > 0:
            answer = self._send("GET", path, params=asked | {"limit": int(min(page, left))})
            data = self._data(answer)
            if not isinstance(data, list):
                raise CommandError(f"{self.url} answers with no list, which is no answer of this API")
            yield from data
            left -= len(data)
            after = _read(answer)["meta"]["pagination"]["next_cursor"]
            if after is None or not data:
                return
            asked["cursor"] = after

    def change(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Change something; the data of the answer. Raises CommandError."""
        once = {"Idempotency-Key": uuid.uuid4().hex}
        return self._data(self._send(method, path, headers=once, json=body))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """As `change`, by POST."""
        return self.change("POST", path, body)

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        waited, lost = 0.0, False
        while True:
            try:
                answer = self.http.request(method, f"{self.url}{PREFIX}{path}", **request)
            except UnicodeEncodeError:
                raise WrongUse("there is text that is no UTF-8 in what is asked for") from None
            except httpx.HTTPError as error:
                if lost or isinstance(error, _NEVER_SENT):
                    self._unreachable(error, method)
                lost = True
                continue
            wait = _told_to_wait(answer)
            if wait is None or waited + wait > LONGEST:
                return answer
            print(f"billhook: {self.url} has been asked too often; going on in {wait:g} s", file=sys.stderr)
            sleep(wait)
            waited += wait

    def _unreachable(self, error: httpx.HTTPError, method: str) -> NoReturn:
        reason = str(error) or type(error).__name__
        done = (
            ""
            if method == "GET" or isinstance(error, _NEVER_SENT)
            else "; look whether it was done before you repeat it"
        )
        raise CommandError(f"{self.url} does not answer: {reason}{done}")

    def _data(self, answer: httpx.Response) -> Any:
        if answer.status_code == 204:
            return None
        document = _read(answer)
        if answer.is_success and document.get("success") is True:
            return document["data"]
        if not answer.is_success and isinstance(error := document.get("error"), dict):
            self._refused(answer.status_code, error)
        hint = "it redirects, which is not followed" if answer.is_redirect else "which is no answer of this API"
        raise CommandError(f"{self.url} answers {answer.status_code}, {hint}; is the address right?")

    def _refused(self, status: int, error: Mapping[str, Any]) -> NoReturn:
        said = f"{error['code']}: {error['message']}{_told(error.get('details'))}"
        if status == 401:
            said = f"{self.url}: {_KEY_IS_WRONG}"
        raise (WrongUse if status == 400 else CommandError)(said)


def _read(answer: httpx.Response) -> Object:
    """The object in an answer; an empty one where there is none."""
    try:
        document = answer.json(object_hook=Object)
    except (ValueError, RecursionError):
        document = None
    return document if isinstance(document, Object) else Object()


def connect(url: str, key: str) -> Api:
    """The API at this address. Nothing is sent yet."""
    headers = {"Authorization": f"Bearer {key}", "User-Agent": f"billhook/{VERSION}", "Accept": "application/json"}
    return Api(httpx.Client(headers=headers, timeout=_TIMEOUT, follow_redirects=False), url)


def _given(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _told_to_wait(answer: httpx.Response) -> float | None:
    """Seconds after which it is to be asked again; None where it was not told so."""
    told = answer.headers.get("retry-after", "")
    if answer.status_code != 429 or not (told.isascii() and told.isdigit()):
        return None
    return max(float(told), 0.1)


def _told(details: Any) -> str:
    """What is told beside an error: the fields that are wrong, or a few values by name."""
    if isinstance(details, list):
        return "".join(f"; {one['field']}: {one['message']}" for one in details)
    if isinstance(details, dict) and details:
        return "".join(f"; {name}: {_plain(value)}" for name, value in details.items())
    return ""


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
