"""Endpoints over the API: which there are, to set them up and change them, and to send what failed or is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from receiver.cli.remote.rows import named, row, written

if TYPE_CHECKING:
    from receiver.cli.remote.client import Api
    from workers.delivery.endpoints import Made, Shown
    from workers.delivery.recover import Span
    from workers.models import AnyRow


def everyone(api: Api) -> Sequence[AnyRow]:
    """As `workers.delivery.endpoints.everyone`: all of them, oldest first."""
    return [row({**_health(one.pop("health")), **one}) for one in api.listed("/endpoints")][::-1]


def shown(api: Api, endpoint_id: str) -> tuple[Shown, int, int]:
    """An endpoint, and which rate and concurrency are in force. Raises CommandError where there is none."""
    from workers.delivery.endpoints import Shown

    whole, health = api.get(_path(endpoint_id)), api.get(_path(endpoint_id, "/health"))
    rate, concurrency = whole.pop("rate_in_force"), whole.pop("concurrency_in_force")
    beside = {
        "headers": whole.pop("header_names"),
        "public_keys": whole.pop("public_keys"),
        "keys": [row(one) for one in whole.pop("secrets")],
        "client_certificate": whole.pop("client_certificate"),
    }
    return Shown(row({**whole, **_health(health), "warned_at": health["warned_at"]}), **beside), rate, concurrency


def add(api: Api, url: str, fields: Mapping[str, Any]) -> Made:
    """As `workers.delivery.endpoints.add`. Raises CommandError."""
    return _made(api.post("/endpoints", {"url": url, **fields}))


def change(api: Api, endpoint_id: str, changes: Mapping[str, Any]) -> Made:
    """As `workers.delivery.endpoints.change`. Raises CommandError."""
    return _made(api.change("PATCH", _path(endpoint_id), changes))


def enable(api: Api, endpoint_id: str) -> int:
    """Send to it again; how many failures are forgotten. Raises CommandError."""
    before = api.get(_path(endpoint_id, "/health"))
    api.post(_path(endpoint_id, "/enable"))
    return int(before["failures"])


def disable(api: Api, endpoint_id: str, reason: str) -> bool:
    """Send nothing more to it; False where it was disabled before. Raises CommandError."""
    before = api.get(_path(endpoint_id))
    api.post(_path(endpoint_id, "/disable"), {"reason": reason})
    return bool(before["status"] == "enabled")


def rotate(api: Api, endpoint_id: str, overlap: timedelta) -> tuple[Made, datetime]:
    """A new secret, and until when the old ones sign too. Raises CommandError."""
    found = api.post(_path(endpoint_id, "/rotate"), {"expires_in": int(overlap.total_seconds())})
    return _made(found | {"id": endpoint_id}), datetime.fromisoformat(found["old_until"])


def send_test(api: Api, endpoint_id: str) -> str:
    """As `workers.delivery.endpoints.send_test`. Raises CommandError."""
    return str(api.post(_path(endpoint_id, "/test"))["id"])


def recover(
    api: Api, endpoint_id: str, span: Span, *, dry_run: bool = False, done: Callable[[int], object] = lambda _more: None
) -> int:
    """Send again what failed in this span, or count it; how many. Raises CommandError."""
    return _in_parts(api, _path(endpoint_id, "/recover"), _body(span, dry_run), done)


def missing(
    api: Api,
    endpoint_id: str,
    span: Span,
    *,
    forwarded: bool,
    dry_run: bool = False,
    done: Callable[[int], object] = lambda _more: None,
) -> int:
    """Send what it never got of this span, or count it; how many. Raises CommandError."""
    return _in_parts(api, _path(endpoint_id, "/missing"), _body(span, dry_run) | {"forwarded": forwarded}, done)


def _in_parts(api: Api, path: str, body: dict[str, Any], done: Callable[[int], object]) -> int:
    total = 0
    while True:
        found = api.post(path, body)
        total += int(found["deliveries"])
        done(found["deliveries"])
        if found["next_cursor"] is None:
            return total
        body = body | {"cursor": found["next_cursor"]}


def _body(span: Span, dry_run: bool) -> dict[str, Any]:
    return {"since": written(span.since), "until": written(span.until), "dry_run": dry_run}


def _path(endpoint_id: str, verb: str = "") -> str:
    return f"/endpoints/{named(endpoint_id)}{verb}"


def _health(found: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of an endpoint that its health has."""
    return {name: found[name] for name in ("failures", "failing_since", "held_until")}


def _made(found: Mapping[str, Any]) -> Made:
    from workers.delivery.endpoints import Made

    return Made(found["id"], found["secret"], found["public_key"])
