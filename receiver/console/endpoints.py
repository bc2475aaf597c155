"""Endpoints: the subscribers' URLs, how they do, and what may be done about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from starlette.requests import Request
from starlette.responses import Response
from starlette_admin.actions import row_action

from receiver.console.rows import LIMIT, Asked, Cell, Doing, Filter, Rows, say
from workers.app import DELIVER, ring
from workers.delivery import deliveries, endpoints
from workers.delivery.deliveries import Wanted
from workers.delivery.endpoints import Made, NoEndpoint, Shown, State
from workers.leases import utcnow
from workers.listing import Page
from workers.models import AnyRow
from workers.vault import open_vault

STATES: tuple[str, ...] = get_args(State)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint as its page has it."""

    id: str
    row: AnyRow
    state: str
    shown: Shown
    deliveries: Sequence[AnyRow]


class EndpointView(Rows):
    """The endpoints."""

    key = "endpoints"
    menu_label = "Endpoints"
    display_name = "endpoint"
    icon = "fa-solid fa-tower-broadcast"
    sees = "endpoints:read"
    changes = "endpoints:write"
    searched = "URL or description"
    empty = (
        "No endpoints yet. An endpoint is where messages are sent on to: add one here, or with "
        "`billhook endpoints add`."
    )
    new = ("new-endpoint", "New endpoint")
    detail_template = "endpoint.html"
    row_actions = ("test", "rotate", "enable", "disable")
    fields = (
        Cell("id", "Endpoint", shown="code"),
        Cell("url", "URL"),
        Cell("description", "Description"),
        Cell("event_types", "Event types"),
        Cell("state", "State", shown="state", getter=lambda _request, row: endpoints.state(row, utcnow())),
        Cell("failures", "Failures"),
    )

    def filters(self) -> Sequence[Filter]:
        return (Filter("state", "State", STATES),)

    def page(self, asked: Asked) -> Page:
        state = cast("State | None", asked["state"])
        return endpoints.listed(self._engine, utcnow(), state=state, search=asked.q, after=asked.after, limit=LIMIT)

    def one(self, row_id: str) -> Any:
        try:
            shown = endpoints.shown(self._engine, open_vault(self._runtime.settings), row_id, utcnow())
        except NoEndpoint:
            return None
        newest = deliveries.newest(self._engine, Wanted(endpoint_id=row_id), limit=10).rows
        return Endpoint(row_id, shown.row, endpoints.state(shown.row, utcnow()), shown, newest)

    def offered(self, name: str, row: Any) -> bool:
        if name == "enable":
            return bool(row.status != "enabled" or row.failures)
        return bool(row.status == "enabled" or name == "rotate")

    @row_action(
        name="test",
        text="Send a test",
        header="Send a test?",
        confirmation="The endpoint gets a message billhook.test, the way that every message goes.",
        submit_btn_text="Send",
        icon_class="fa-solid fa-flask",
        action_btn_class="btn btn-primary",
    )
    async def test(self, request: Request, pk: str) -> None:
        def do(doing: Doing) -> str:
            delivery_id = endpoints.send_test(self._engine, pk, actor=doing.actor, now=doing.now)
            ring(DELIVER, [delivery_id])
            return delivery_id

        say(request, f"The test is on its way: {await self.carry_out(request, do)}.")

    @row_action(
        name="rotate",
        text="Rotate secret",
        header="Rotate the secret?",
        confirmation="The endpoint gets a new signing secret, which is shown once. The old one signs beside it for "
        "24 hours.",
        submit_btn_text="Rotate",
        icon_class="fa-solid fa-arrows-rotate",
        custom_response=True,
    )
    async def rotate(self, request: Request, pk: str) -> Response:
        def do(doing: Doing) -> Made:
            vault = open_vault(self._runtime.settings)
            return endpoints.rotate(self._engine, vault, pk, actor=doing.actor, now=doing.now)

        return shown_once(self, request, await self.carry_out(request, do), "The secret is rotated")

    @row_action(
        name="enable",
        text="Enable",
        header="Enable this endpoint?",
        confirmation="Messages are sent to it again, and its failures are forgotten. What was cancelled meanwhile "
        "stays so: `billhook endpoints missing` sends it.",
        submit_btn_text="Enable",
        icon_class="fa-solid fa-play",
    )
    async def enable(self, request: Request, pk: str) -> None:
        await self.carry_out(
            request, lambda doing: endpoints.enable(self._engine, pk, actor=doing.actor, now=doing.now)
        )
        say(request, "The endpoint is enabled.")

    @row_action(
        name="disable",
        text="Disable",
        header="Disable this endpoint?",
        confirmation="Nothing more is sent to it, and what waits for it is cancelled.",
        submit_btn_text="Disable",
        submit_btn_class="btn btn-danger",
        icon_class="fa-solid fa-stop",
        form='<form><label class="form-label mt-3" for="reason">Why, for whoever asks later</label>'
        '<input class="form-control" id="reason" name="reason" maxlength="200"></form>',
    )
    async def disable(self, request: Request, pk: str) -> None:
        def do(doing: Doing) -> bool:
            reason = doing.form.get("reason") or "somebody disabled it"
            return endpoints.switch_off(self._engine, pk, reason, actor=doing.actor, now=doing.now)

        changed = await self.carry_out(request, do)
        say(request, "The endpoint is disabled." if changed else "The endpoint was disabled before.")


def shown_once(view: Any, request: Request, made: Made, title: str) -> Response:
    """The page that shows what was made for an endpoint, this once."""
    back = request.url_for("admin:detail", key="endpoints").include_query_params(pk=made.id)
    told = [("Signing secret", made.secret), ("Public key", made.public_key)]
    context = {"title": title, "of": made.id, "told": [(label, value) for label, value in told if value], "back": back}
    response: Response = view._admin.templates.TemplateResponse(request, "once.html", context)
    return response
