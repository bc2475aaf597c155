from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import httpx
import pytest
import uvicorn

from handlers.providers.hisab.client import HisabClient
from handlers.providers.hisab.sandbox import create_app
from tests.conftest import SECRET
from tests.workers.given import Clock, until
from tests.workers.schedule.given import KEY, Network, OneClient
from workers.app import Runtime
from workers.schedule.generator import Generator
from workers.settings import Settings, Source


@pytest.fixture(scope="module")
def api_url() -> Iterator[str]:
    """The sandbox, served for all tests of a module; each has a customer of its own."""
    heard = httpx.MockTransport(lambda _: httpx.Response(204))
    fake = create_app(webhook_url="http://127.0.0.1:9/", secret=SECRET, api_key=KEY, rate_limit=10**9, transport=heard)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(fake, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    until(lambda: server.started)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1"
    server.should_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture(scope="module")
def books(api_url: str) -> Iterator[HisabClient]:
    """A look at the sandbox past the network of the test."""
    with HisabClient(api_key=KEY, api_url=api_url) as client:
        yield client


@pytest.fixture
def settings(settings: Settings, api_url: str) -> Settings:
    """Settings whose source `shop` is that sandbox."""
    source = Source(provider="hisab", secrets=SECRET, api_key=KEY, api_url=api_url)
    return settings.model_copy(update={"sources": {"shop": source}})


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def generator(runtime: Runtime, api_url: str, network: Network, clock: Clock) -> Iterator[Generator]:
    with HisabClient(api_key=KEY, api_url=api_url, max_wait=0, transport=network) as client:
        yield Generator(
            engine=runtime.engine,
            settings=runtime.settings,
            clients=OneClient(runtime.settings, client),
            redis=runtime.redis,
            clock=clock,
            chance=lambda: 0.0,
        )


@pytest.fixture
def customer(api_url: str) -> str:
    """A customer of this test."""
    answer = httpx.post(
        f"{api_url}/customers", json={"name": "Atlas", "type": "b2c"}, headers={"Authorization": f"Bearer {KEY}"}
    )
    return str(answer.json()["data"]["id"])
