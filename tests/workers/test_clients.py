from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from celery import signals

from handlers.errors import ProviderUnavailable
from handlers.providers.hisab.client import HisabClient
from workers.clients import Clients
from workers.settings import Settings, Source

SECRET = "whsec_test_secret_key_123456"


def clients(**sources: Source) -> Clients:
    return Clients(Settings(sources=sources))


@pytest.fixture
def api() -> Iterator[tuple[str, list[str]]]:
    """An API that answers every call with a customer, and the keys that called it."""
    keys: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(f"{self.path} {self.headers['authorization']}")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"success": true, "data": {"id": "cus_1"}}')

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1", keys
        server.shutdown()
        thread.join()


def test_a_source_is_called_at_its_address_with_its_key(api: tuple[str, list[str]]) -> None:
    url, keys = api
    with clients(
        one=Source(provider="hisab", secrets=SECRET, api_key="key_one", api_url=url),
        two=Source(provider="hisab", secrets=SECRET, api_key="key_two", api_url=url),
    ) as made:
        for name in ("one", "two"):
            assert made.get(name).customers.get("cus_1") == {"id": "cus_1"}

    assert keys == ["/v1/customers/cus_1 Bearer key_one", "/v1/customers/cus_1 Bearer key_two"]


def test_a_client_is_made_once() -> None:
    with clients(shop=Source(provider="hisab", secrets=SECRET, api_key="hisab_test_key")) as made:
        client = made.get("shop")
        assert isinstance(client, HisabClient)
        assert made.get("shop") is client


def closed(client: HisabClient) -> bool:
    try:
        client.customers.get("cus_1")
    except RuntimeError as error:  # httpx's own, before anything is sent
        return "closed" in str(error)
    return False


def test_clients_are_closed_together_and_made_anew_when_they_are_asked_for(api: tuple[str, list[str]]) -> None:
    source = Source(provider="hisab", secrets=SECRET, api_key="key_one", api_url=api[0])

    with clients(one=source, two=source) as made:
        before = [made.get("one"), made.get("two")]
        assert not any(closed(client) for client in before)
        made.close()
        assert all(closed(client) for client in before)
        after = made.get("one")
        assert not closed(after)

    assert closed(after)


def test_a_process_of_the_workers_pool_closes_its_clients_when_it_ends(api: tuple[str, list[str]]) -> None:
    made = clients(shop=Source(provider="hisab", secrets=SECRET, api_key="key_one", api_url=api[0]))
    client = made.get("shop")
    assert not closed(client)

    signals.worker_process_shutdown.send(None, pid=1, exitcode=0)

    assert closed(client)


def test_an_unknown_source_is_named() -> None:
    with pytest.raises(ProviderUnavailable, match="'nope'") as failed:
        clients().get("nope")

    assert failed.value.code == "NO_SOURCE"


def test_a_source_without_a_key_says_which_variable_is_missing() -> None:
    made = clients(shop=Source(provider="hisab", secrets=SECRET))

    with pytest.raises(ProviderUnavailable, match="BILLHOOK_SOURCES__SHOP__API_KEY") as failed:
        made.get("shop")

    assert failed.value.code == "NO_API_KEY"


def test_a_handler_may_name_a_source_or_its_provider_or_neither() -> None:
    with clients(
        shop=Source(provider="hisab", secrets=SECRET, api_key="key_one", api_url="http://127.0.0.1:1/v1"),
        books=Source(provider="hibr", secrets=SECRET, api_key="hibr_test_1"),
    ) as made:
        shop = made.get("shop")
        assert made.meant(None, "shop") is made.meant("shop", "books") is made.meant("hisab", "books") is shop


def test_of_several_sources_of_a_provider_the_events_own_is_meant() -> None:
    with clients(
        one=Source(provider="hisab", secrets=SECRET, api_key="key_one"),
        two=Source(provider="hisab", secrets=SECRET, api_key="key_two"),
    ) as made:
        assert made.meant("hisab", "two") is made.get("two")
        with pytest.raises(ProviderUnavailable, match="name one: one, two"):
            made.meant("hisab", "elsewhere")


def test_a_name_that_is_neither_is_said_to_be_no_source() -> None:
    with pytest.raises(ProviderUnavailable, match="there is no source 'nope'"):
        clients().meant("nope", "shop")


def test_an_api_key_of_the_wrong_form_is_named_and_not_quoted() -> None:
    made = clients(pay=Source(provider="hesabe", secrets="a" * 24, api_key="842217:only-half"))

    with pytest.raises(ProviderUnavailable, match="the client of source 'pay' cannot be made") as caught:
        made.get("pay")
    assert "only-half" not in str(caught.value)
