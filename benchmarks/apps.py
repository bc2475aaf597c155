"""What Billhook is compared with: a bare route, and the design that everybody writes first."""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import sys
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PATH = "/webhooks/shop"
SECRET = "benchmark-secret-0123456789"


async def raw(scope: Any, receive: Any, send: Any) -> None:
    """The least an ASGI server can be asked for; shows what the load generator can reach."""
    await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def bare() -> Starlette:
    """A route that answers 202 and does not read the body: 1.00."""

    async def accepted(_request: Request) -> Response:
        return Response(status_code=202)

    return Starlette(routes=[Route(PATH, accepted, methods=["POST"])])


def naive(database_url: str, redis_url: str, prefix: str) -> Starlette:
    """Per request: verify, SET NX, INSERT and commit, one Celery task; in the thread pool, as its libraries block."""
    from celery import Celery
    from redis import Redis
    from sqlalchemy import Column, LargeBinary, MetaData, String, Table, create_engine, insert

    engine = create_engine(database_url)
    metadata = MetaData()
    deliveries = Table(
        "naive_deliveries", metadata, Column("id", String(200), primary_key=True), Column("body", LargeBinary)
    )
    metadata.create_all(engine)
    redis = Redis.from_url(redis_url)
    celery = Celery("naive", broker=redis_url, set_as_current=False)
    celery.conf.update(broker_transport_options={"global_keyprefix": prefix}, task_ignore_result=True)

    @celery.task(name="naive.process")
    def process(delivery_id: str) -> None:
        """Nobody runs it: what is measured is the sending."""

    def store(delivery_id: str, timestamp: str, signature: str, body: bytes) -> Response:
        expected = hmac.new(SECRET.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(f"v1={expected}", signature):
            return Response(status_code=401)
        if not redis.set(f"{prefix}naive:{delivery_id}", 1, nx=True, ex=86_400):
            return Response(status_code=200)
        with engine.begin() as connection:
            connection.execute(insert(deliveries).values(id=delivery_id, body=body))
        process.delay(delivery_id)
        return Response(status_code=202)

    async def receive(request: Request) -> Response:
        headers = request.headers
        return await run_in_threadpool(
            store,
            headers["x-webhook-delivery-id"],
            headers["x-webhook-timestamp"],
            headers["x-webhook-signature"],
            await request.body(),
        )

    return Starlette(routes=[Route(PATH, receive, methods=["POST"])])


def main() -> None:
    """Serve the named one on a free port, which is printed, with the options that `billhook serve` uses."""
    name = sys.argv[1]
    app: Any
    if name == "naive":
        app = naive(*(os.environ[f"BENCHMARK_{part}"] for part in ("DATABASE_URL", "REDIS_URL", "PREFIX")))
    else:
        app = {"raw": lambda: raw, "bare": bare}[name]()
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"receiving on http://127.0.0.1:{listening.getsockname()[1]}{PATH}", file=sys.stderr, flush=True)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
