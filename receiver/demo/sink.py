"""The sink: the endpoint of the demo. It checks every message with `standardwebhooks`, a library that is not ours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from standardwebhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


@dataclass(frozen=True, slots=True)
class Received:
    """One message as it came in; `refused` says why the library did not accept it, None: it did."""

    id: str
    type: str
    refused: str | None
    at: datetime


def create_app(secret: str) -> Starlette:
    """An endpoint at `/` with the signing secret `secret` (`whsec_…`); `app.state.received` lists what came in.

    Answers 204 to a message that verifies, and 401 to any other.
    """
    webhook = Webhook(secret)
    received: list[Received] = []

    async def receive(request: Request) -> Response:
        body = await request.body()
        refused = _check(webhook, body, dict(request.headers))
        received.append(
            Received(
                id=request.headers.get("webhook-id", ""),
                type="" if refused else json.loads(body)["type"],
                refused=refused,
                at=datetime.now(UTC),
            )
        )
        return Response(status_code=401 if refused else 204)

    app = Starlette(routes=[Route("/", receive, methods=["POST"])])
    app.state.received = received
    return app


def _check(webhook: Webhook, body: bytes, headers: dict[str, str]) -> str | None:
    try:
        webhook.verify(body, headers, json_parse=False)
    except (WebhookVerificationError, ValueError) as error:  # ValueError: a body or signature it cannot even read
        return str(error) or type(error).__name__
    return None
