"""The management API: everything that is stored can be read, and what a person may do can be done, under `/api/v1`.

`create_api` is the composition root; a module for each resource says what can be asked of it.
"""

from __future__ import annotations

from functools import cache

from fastapi import FastAPI

from receiver.api import (
    audit,
    deliveries,
    endpoint_health,
    endpoints,
    events,
    keys,
    messages,
    recovering,
    recurring,
    replays,
    runs,
    sources,
    stats,
)
from receiver.api.doorman import Doorman
from receiver.api.edge import Edge
from receiver.api.errors import register
from receiver.api.gate import Gate
from receiver.api.schema import described
from receiver.api.services import Services
from receiver.throttle import Throttle
from receiver.versions import VERSION
from workers.app import Runtime
from workers.clients import Clients
from workers.schedule.at_once import AtOnce
from workers.schedule.browsing import Counts
from workers.schedule.generator import Generator

PREFIX = "/api/v1"
RESOURCES = (
    events, replays, runs, sources, messages, deliveries, endpoints, endpoint_health, recovering, recurring, stats,
    keys, audit,
)  # fmt: skip
"""In the order in which they are described."""


def create_api(runtime: Runtime, clients: Clients) -> Edge:
    """The application under `/api/v1`, over this process's database, Redis, and clients of the sources' APIs."""
    services = Services(
        runtime=runtime,
        doorman=Doorman(runtime, Throttle(runtime.settings.failed_verifications)),
        at_once=AtOnce(
            Generator(engine=runtime.engine, settings=runtime.settings, clients=clients, redis=runtime.redis)
        ),
        counts=Counts(),
    )
    return Edge(Gate(application(), services), runtime.settings.max_body_bytes)


@cache
def application() -> FastAPI:
    """All operations, with what describes them."""
    api = FastAPI(
        title="Billhook",
        version=VERSION,
        openapi_url=None,  # served to callers alone, by `described`
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # It would trace each call by itself, with its path and what it refused, and may bring an exporter of its own.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    for resource in RESOURCES:
        api.include_router(resource.router)
    described(api)
    register(api)
    return api
