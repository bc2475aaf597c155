from __future__ import annotations

import time

import httpx

from handlers.providers.hisab.sandbox import create_app
from tests.handlers.providers.sandbox.served import receiving, serving

SECRET = "whsec_test_secret_key_123456"


def test_a_delivery_whose_endpoint_is_gone_fails_when_it_is_replayed() -> None:
    with receiving() as sink:
        app = create_app(webhook_url=sink.url, secret=SECRET, retry_delays=(0.01,))
        with serving(app) as url, httpx.Client(base_url=url, trust_env=False) as http:
            key = {"authorization": "Bearer hisab_live_***"}
            http.post("/api/v1/customers", json={"name": "Atlas", "type": "b2c"}, headers=key)
            sink.take(1)
            endpoint = http.get("/sandbox").json()["webhooks"][0]["id"]
            assert http.delete(f"/sandbox/webhooks/{endpoint}").is_success

            def deliveries() -> list[tuple[str, str]]:
                found = http.get("/sandbox/webhooks").json()["deliveries"]
                return [(one["delivery_id"], one["state"]) for one in found]

            http.post(f"/sandbox/webhooks/{deliveries()[0][0]}/replay", json={})

            deadline = time.monotonic() + 10
            while "waiting" in {state for _, state in deliveries()} and time.monotonic() < deadline:
                time.sleep(0.01)
            assert sorted(state for _, state in deliveries()) == ["delivered", "failed"]
    assert sink.arrived.empty()
