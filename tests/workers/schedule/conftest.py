from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from handlers.providers.hisab.client import HisabClient
from handlers.providers.http import trust
from tests.conftest import SECRET
from tests.workers.given import Clock
from tests.workers.schedule.given import KEY, Network, OneClient, served
from workers.app import Runtime
from workers.schedule.generator import Generator
from workers.settings import Settings, Source


@pytest.fixture(scope="module")
def api_url() -> Iterator[str]:
    """The sandbox, served for all tests of a module; each has a customer of its own."""
    with served(rate_limit=10**9) as url:
        yield url


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
        f"{api_url}/customers",
        json={"name": "Atlas", "type": "b2c"},
        headers={"Authorization": f"Bearer {KEY}"},
        verify=trust(),
    )
    return str(answer.json()["data"]["id"])
