"""docs/api.md says what the API does. `python -m tests.receiver.api.test_guide` writes its tables."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.api import application
from receiver.api.errors import CODES
from tests.receiver.conftest import Serve
from tests.workers.given import change, received
from workers import api_keys
from workers.api_keys import SCOPES
from workers.app import Runtime
from workers.idempotency import KEPT, LONGEST
from workers.models import EventRow

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "api.md"


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of each."""
    for path, methods in application().openapi()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def scopes_of(operation: dict[str, Any]) -> list[str]:
    return [scope for scheme in operation["security"] for scopes in scheme.values() for scope in scopes]


def table_of_scopes() -> str:
    lines = ["| scope | for |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{scope}` | {meaning} |" for scope, meaning in SCOPES.items())]) + "\n"


def table_of_operations() -> str:
    lines = ["| request | what it does | scope |", "|---|---|---|"]
    for method, path, operation in operations():
        lines.append(f"| `{method} {path}` | {operation['summary']} | `{', '.join(scopes_of(operation))}` |")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """The guide with its tables as they should be."""
    for name, table in (("scopes", table_of_scopes()), ("operations", table_of_operations())):
        text = re.sub(rf"(<!-- {name}: [^>]*-->\n).*?(<!-- /{name} -->)", rf"\1{table}\2", text, flags=re.DOTALL)
    return text


def test_its_tables_are_those_of_the_api() -> None:
    text = GUIDE.read_text("utf-8")

    assert "`GET /events`" in text
    assert text == written(text), "run: python -m tests.receiver.api.test_guide"


def test_every_operation_needs_a_scope() -> None:
    assert [path for _, path, operation in operations() if not scopes_of(operation)] == []
    assert {scope for *_, operation in operations() for scope in scopes_of(operation)} == set(SCOPES)


def test_its_codes_are_those_of_the_api() -> None:
    rows = re.findall(r"^\| (\d{3}(?:, \d{3})*) \| (`[^|]*`) \|", GUIDE.read_text("utf-8"), re.MULTILINE)
    told = {code.strip("` ") for _, codes in rows for code in codes.split(",")}
    text = "".join(
        path.read_text("utf-8")
        for folder in ("receiver/api", "workers", "handlers")
        for path in (ROOT / folder).rglob("*.py")
    )

    assert set(CODES.values()) - told == set()
    assert [code for code in told if f'"{code}"' not in text] == []
    assert (KEPT.total_seconds(), LONGEST) == (24 * 3600, 255)


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_its_calls_are_answered(serve: Serve, runtime: Runtime) -> None:
    event_id = received(runtime.engine)
    change(runtime.engine, EventRow, status="dead", ring_at=None)
    made = api_keys.create(runtime.engine, "guide", ["full"], actor="test", now=datetime.now(UTC))
    client = serve(runtime).client
    block = GUIDE.read_text("utf-8").split("```console")[2].split("```")[0].replace("\\\n", " ")
    calls = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ curl")]

    answers = [curl(client, call, KEY=made.key, EVENT=event_id) for call in calls]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["data"][0]["id"] == event_id


def curl(client: httpx.Client, call: str, **variables: str) -> httpx.Response:
    """What curl would send."""
    for name, value in variables.items():
        call = call.replace(f"${name}", value)
    method, url, headers, body = "GET", "", {}, None
    words = iter(shlex.split(call)[1:])
    for word in words:
        match word:
            case "-H":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            case "-X":
                method = next(words)
            case "-d":
                body = next(words)
            case _:
                url = word.removeprefix("http://127.0.0.1:8000")
    return client.request(method, url, headers=headers, content=body)


if __name__ == "__main__":
    GUIDE.write_text(written(GUIDE.read_text("utf-8")), "utf-8")
