"""Deliveries over the API: which there are, how one went, and to have some sent now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from receiver.cli.remote.rows import content, named, row, written

if TYPE_CHECKING:
    from receiver.cli.remote.client import Api
    from workers.delivery.deliveries import Shown, Wanted
    from workers.delivery.recover import Retried
    from workers.models import AnyRow


def newest(api: Api, wanted: Wanted, *, limit: int) -> Sequence[AnyRow]:
    """As `workers.delivery.deliveries.newest`."""
    found = api.listed(
        "/deliveries",
        endpoint_id=wanted.endpoint_id,
        message_id=wanted.message_id,
        status=list(dict.fromkeys(wanted.statuses)) or None,
        since=written(wanted.since),
        until=written(wanted.until),
        limit=limit,
    )
    return [row(one) for one in found]


def shown(api: Api, delivery_id: str) -> Shown:
    """As `workers.delivery.deliveries.shown`. Raises CommandError where there is none."""
    from workers.delivery.deliveries import Shown

    found = api.get(f"/deliveries/{named(delivery_id)}")
    made, request = found.pop("attempts_made"), found.pop("request")
    leased = found.pop("leased_until")
    found["next_attempt_at"] = found["next_attempt_at"] or leased
    sent = {name: request[name] for name in ("url", "content_type")} | {"body": content(request, "body")}
    return Shown(row(found, **sent), [_attempt(one) for one in made])


def retry(api: Api, delivery_ids: Sequence[str], *, succeeded: bool) -> Retried:
    """As `workers.delivery.recover.retry`. Raises CommandError."""
    from workers.delivery.recover import Retried

    found = api.post("/deliveries/retry", {"ids": list(delivery_ids), "succeeded": succeeded})
    return Retried(found["due"], found["under_way"])


def _attempt(found: dict[str, Any]) -> AnyRow:
    response = content(found, "response")
    return row({name: value for name, value in found.items() if name != "response_base64"}, response=response)
