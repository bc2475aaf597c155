"""Events to test handlers with, made of the providers' documented samples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson

from handlers.event import AT_RECEIPT, Event, to_json
from handlers.providers import PROVIDERS
from handlers.vocabulary import INTERNAL

_SAMPLED_AT = datetime(2026, 6, 5, 14, 0, tzinfo=UTC)
_SCHEDULE = {"schedule_id": "sch_01M802JFQ4", "name": "Hosting", "customer_id": "cus_2b81fe"}
_DUE = {**_SCHEDULE, "occurrence_id": "occ_01M802JFQ4", "due_on": "2026-06-05"}
_INVOICE = {"id": "inv_8f3a91", "number": "FAC-2026-0142", "status": "sent", "total": "12480.00", "currency": "MAD"}
_INACTIVE = {"code": "CUSTOMER_INACTIVE", "message": "the customer is not active"}
_ENDPOINT = {"endpoint_id": "ep_01M802JFQ4", "description": "ledger"}
_FAILING = {**_ENDPOINT, "failures": 60, "failing_since": "2026-06-05T02:00:00+00:00", "reason": None}
_OWN_SAMPLES: Mapping[str, Mapping[str, Any]] = {
    "recurring.generated": {**_DUE, "invoice": _INVOICE},
    "recurring.failed": {**_DUE, "error": _INACTIVE, "invoice_id": None, "schedule_paused": False},
    "recurring.completed": {**_SCHEDULE, "generated": 11, "failed": 0, "skipped": 1},
    "billhook.endpoint.warned": _FAILING,
    "billhook.endpoint.disabled": {**_FAILING, "reason": "every attempt failed for 5 days"},
    "billhook.endpoint.recovered": _FAILING,
    "billhook.delivery.exhausted": {
        "delivery_id": "dlv_01M802JFQ4",
        "message_id": "msg_01M802JFQ4",
        "type": "receipt.issued",
        "endpoint_id": "ep_01M802JFQ4",
        "attempts": 10,
    },
}
_ABOUT = {"recurring": "schedule", "billhook.endpoint": "endpoint", "billhook.delivery": "delivery"}
"""The kind of object that Billhook's own events are about, by what their types begin with."""


def event(
    type: str,  # noqa: A002 - the field's word
    *,
    provider: str = "hisab",
    data: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Event:
    """The event of the provider's documented sample, read as its deliveries are, so that its views work.

    `data` overrules fields of the sample's resource, `fields` those of the event: `id`, `source` (default: the
    provider's name), `occurred_at`, `received_at`, … `options` are those of the source. A type without a sample is
    what its `data` says. The provider `billhook` has the events that Billhook itself reports. The id follows from the
    content: the same content twice is one event, as it would be if it were delivered twice.

    Raises ValueError for an unknown provider and for a type with neither sample nor data, ParseError for data that the
    provider would not send, TypeError for a field that events have not.
    """
    if provider == INTERNAL:
        found = _own(type, data)
    elif provider in PROVIDERS:
        found = _of_provider(provider, type, data, options or {})
    else:
        raise ValueError(f"there is no provider {provider!r}; there is {', '.join(PROVIDERS)} and {INTERNAL}")
    given = {"provider": provider, "source": provider} | fields
    occurred_at = given.get("occurred_at", found.occurred_at)
    if occurred_at == AT_RECEIPT:  # what the inbox does
        occurred_at = given.get("received_at", _SAMPLED_AT)
    made = replace(found, **({"received_at": occurred_at, "occurred_at": occurred_at} | given))
    return made if made.id else replace(made, id=_id(made))


def samples(provider: str) -> tuple[str, ...]:
    """The event types that a provider has a sample of; `billhook` is one. Raises KeyError for an unknown provider."""
    return tuple(_OWN_SAMPLES) if provider == INTERNAL else PROVIDERS[provider].events


def _own(type: str, data: Mapping[str, Any] | None) -> Event:  # noqa: A002 - the field's word
    sample = _OWN_SAMPLES.get(type)
    if sample is None and data is None:
        raise _no_sample(INTERNAL, type, samples(INTERNAL))
    resource = {**(sample or {}), **(data or {})}
    kind = _ABOUT.get(type.rpartition(".")[0], "schedule")
    return _plain(type, resource, kind, resource.get(f"{kind}_id"))


def _of_provider(
    name: str,
    type: str,  # noqa: A002 - the field's word
    data: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> Event:
    provider = PROVIDERS[name]
    inbound = provider.inbound(options)
    header = provider.event_header or inbound.type_header
    headers = [] if header is None else [(header, type.encode())]
    try:
        # A copy, because the sample may be the provider's own.
        sample = orjson.loads(orjson.dumps(provider.sample(type)))
    except KeyError:
        if data is None:
            raise _no_sample(name, type, provider.events) from None
        bare = _plain(type, dict(data), type.partition(".")[0], data.get("id"))
        return replace(bare, views=provider.views)
    read = inbound.parse(headers, orjson.dumps(sample))
    if data is None:
        return read
    _resource(sample, read.data).update(data)
    return inbound.parse(headers, orjson.dumps(sample, default=str))


def _plain(type: str, data: dict[str, Any], kind: str, object_id: object) -> Event:  # noqa: A002 - the field's word
    made = Event(
        type=type,
        data=data,
        occurred_at=_SAMPLED_AT,
        object_kind=None if object_id is None else kind,
        object_id=None if object_id is None else str(object_id),
    )
    return replace(made, body=to_json(made))


def _no_sample(provider: str, type: str, known: Sequence[str]) -> ValueError:  # noqa: A002 - the field's word
    return ValueError(f"{provider} has no sample of {type!r}, so give data; it has one of {', '.join(known)}")


def _resource(body: dict[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The object in a body that an event's data was read from; the body itself where it is spread over that."""
    return next((found for found in _objects(body) if found and found.items() <= data.items()), body)


def _objects(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A body and the objects in it, the outer ones first."""
    level = [body]
    while level:
        yield from level
        level = [child for parent in level for child in parent.values() if isinstance(child, dict)]


def _id(made: Event) -> str:
    parts = (made.source, made.type, made.occurred_at.isoformat(), made.object_id or "")
    digest = hashlib.sha256("\n".join(parts).encode() + b"\n" + made.body).hexdigest()
    return f"evt_0{digest[:25].upper()}"  # a ULID's letters, of which the first is 7 at most
