"""Events over the API."""

from __future__ import annotations

from tests.receiver.api.conftest import Caller, refused
from tests.receiver.edge import Edge, accepted, delivery


def test_events_come_page_by_page(edge: Edge, caller: Caller) -> None:
    ids = [accepted(edge.post(delivery(number))) for number in range(5)]

    seen, cursor = [], None
    while True:
        answer = caller.call("GET", "/events", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        seen += [one["id"] for one in answer["data"]]
        cursor = answer["meta"]["pagination"]["next_cursor"]
        assert answer["meta"]["pagination"]["has_more"] is (cursor is not None)
        if cursor is None:
            break

    assert seen == sorted(ids, reverse=True)


def test_an_event_is_shown_with_its_bytes(edge: Edge, caller: Caller) -> None:
    request = delivery(1)
    event_id = accepted(edge.post(request))

    shown = caller.get(f"/events/{event_id}")

    assert shown["body"].encode() == request.body
    assert caller.call("GET", f"/events/{event_id}/body").content == request.body


def test_what_is_not_there(caller: Caller) -> None:
    refused(caller.call("GET", "/events/evt_none"), 404, "NOT_FOUND")
    refused(caller.call("GET", "/events", params={"cursor": "x"}), 400, "VALIDATION_ERROR")
    refused(caller.call("GET", "/events", params={"colour": "red"}), 400, "VALIDATION_ERROR")
    refused(caller.call("GET", "/events", params={"limit": "201"}), 400, "VALIDATION_ERROR")
    refused(caller.call("DELETE", "/events"), 405, "METHOD_NOT_ALLOWED")
