from __future__ import annotations

import time
from dataclasses import replace

import orjson
import pytest

from handlers.errors import VerificationError
from handlers.providers import PROVIDERS, Provider
from handlers.signing import STANDARD, key_bytes
from handlers.testing import signed_request

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HISAB = PROVIDERS["hisab"]
EVERY_SAMPLE = [(provider, event_type) for provider in PROVIDERS.values() for event_type in provider.events]
NOW = 1_780_668_000


@pytest.mark.parametrize(("provider", "event_type"), EVERY_SAMPLE)
def test_every_sample_of_every_provider_is_accepted_by_its_receiver(provider: Provider, event_type: str) -> None:
    request = signed_request(provider, event_type, SECRET, delivery_id="del_1", now=NOW)

    verified = provider.verify(request.wire, request.body, [key_bytes(provider.scheme, SECRET)], NOW)
    event = provider.parse(request.wire, request.body)

    assert (verified.delivery_id, verified.timestamp) == ("del_1", NOW)
    assert event.type == event_type


def test_the_event_type_is_repeated_where_the_provider_repeats_it() -> None:
    request = signed_request(HISAB, "invoice.paid", SECRET, delivery_id="del_1", now=NOW)

    assert request.headers["x-webhook-event"] == "invoice.paid"
    assert request.headers["content-type"] == "application/json"


def test_a_forged_delivery_is_refused() -> None:
    request = signed_request(HISAB, "invoice.paid", SECRET, now=NOW, forged=True)

    with pytest.raises(VerificationError) as refused:
        HISAB.verify(request.wire, request.body, [key_bytes(HISAB.scheme, SECRET)], NOW)

    assert refused.value.reason == "bad_signature"


def test_bytes_are_signed_as_they_are() -> None:
    body = b'{ "event": "plan.changed" }'

    request = signed_request(HISAB, "plan.changed", SECRET, body=body, now=NOW)

    assert request.body is body
    assert HISAB.verify(request.wire, body, [SECRET.encode()], NOW).timestamp == NOW


def test_a_document_takes_the_place_of_the_sample() -> None:
    document = {**HISAB.sample("invoice.paid"), "organization_id": "org_2"}

    request = signed_request(HISAB, "invoice.paid", SECRET, body=document)

    assert orjson.loads(request.body) == document
    assert HISAB.parse(request.wire, request.body).organization == "org_2"


def test_each_delivery_has_its_own_id_and_the_time_of_the_clock() -> None:
    first, second = (signed_request(HISAB, "invoice.paid", SECRET) for _ in range(2))

    ids = {
        HISAB.verify(request.wire, request.body, [SECRET.encode()], time.time()).delivery_id
        for request in (first, second)
    }
    assert len(ids) == 2


def test_a_scheme_in_base64_is_signed_too() -> None:
    provider = replace(HISAB, scheme=STANDARD, event_header=None)

    request = signed_request(provider, "invoice.paid", SECRET, delivery_id="msg_1", now=NOW)

    assert request.headers["webhook-signature"].startswith("v1,")
    assert set(request.headers) == {"content-type", "webhook-id", "webhook-timestamp", "webhook-signature"}


def test_an_event_type_without_a_sample_needs_a_body() -> None:
    with pytest.raises(KeyError):
        signed_request(HISAB, "plan.changed", SECRET)


def test_a_secret_shows_in_no_repr() -> None:
    assert SECRET not in repr(signed_request(HISAB, "invoice.paid", SECRET))
