from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.receiver.edge import Edge
from workers import api_keys
from workers.app import Runtime


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody with a key, who calls the API of a receiver that runs."""

    client: httpx.Client
    key: str

    def call(self, method: str, path: str, *, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        """Ask for something, `path` without `/api/v1`."""
        mine = {"authorization": f"Bearer {self.key}"} | (headers or {})
        return self.client.request(method, f"/api/v1{path}", headers=mine, **body)

    def get(self, path: str, **params: Any) -> Any:
        """The data of a successful answer."""
        return ok(self.call("GET", path, params=params))

    def post(self, path: str, body: Any = None, *, status: int = 200, **headers: str) -> Any:
        """Change something; the data of the answer, which has this status."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return ok(self.call("POST", path, json=body, headers=named), status)


def ok(answer: httpx.Response, status: int = 200) -> Any:
    """Check that the answer is a success; its data."""
    assert answer.status_code == status, answer.text
    document = answer.json()
    assert document["success"] is True
    return document["data"]


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that the answer is this refusal, in the envelope of all refusals; the error."""
    assert answer.status_code == status, answer.text
    document = answer.json()
    assert document["success"] is False
    assert document["error"]["code"] == code, document
    assert "`billhook " not in document["error"]["message"], "whoever asks has no command line"
    return dict(document["error"])


CallerWith = Callable[..., Caller]


@pytest.fixture
def caller_with(runtime: Runtime, edge: Edge) -> CallerWith:
    """Makes somebody whose key has these scopes; `full` without any."""

    def make(*scopes: str, name: str = "test") -> Caller:
        made = api_keys.create(runtime.engine, name, scopes or ("full",), actor="test", now=datetime.now(UTC))
        return Caller(edge.client, made.key)

    return make


@pytest.fixture
def caller(caller_with: CallerWith) -> Caller:
    """Somebody who may do everything."""
    return caller_with()
