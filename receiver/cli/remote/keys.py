"""API keys over the API: to make one, list them and end one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from receiver.cli.remote.rows import named, row, values, written

if TYPE_CHECKING:
    from datetime import datetime

    from receiver.cli.remote.client import Api
    from workers.api_keys import NewKey
    from workers.models import AnyRow


def create(api: Api, name: str, scopes: Sequence[str], *, expires_at: datetime | None) -> NewKey:
    """As `workers.api_keys.create`, of scopes that the calling key has itself. Raises CommandError."""
    from workers.api_keys import NewKey

    made = api.post("/keys", {"name": name, "scopes": list(scopes), "expires_at": written(expires_at)})
    return NewKey(made["id"], made["key"], tuple(made["scopes"]))


def everyone(api: Api) -> list[dict[str, Any]]:
    """All keys, the newest first."""
    return [values(one) for one in api.get("/keys")]


def get(api: Api, key_id: str) -> AnyRow:
    """One key. Raises CommandError where there is none."""
    return row(api.get(f"/keys/{named(key_id)}"))


def revoke(api: Api, key_id: str) -> AnyRow:
    """End a key; as it is then. Raises CommandError."""
    return row(api.post(f"/keys/{named(key_id)}/revoke"))
