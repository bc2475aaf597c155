"""`/endpoints`: the subscribers' URLs, what they get and how it is sent to them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Body, Query, Request, Response, Security
from pydantic import Field

from receiver.api import deliveries
from receiver.api.access import Running, caller
from receiver.api.answers import Many, Model, Moment, One, Pages, many, refusals, tagged
from receiver.api.changes import Change, IfMatch, changing, expect
from receiver.api.deliveries import Delivery
from receiver.api.endpoint_fields import ChangedEndpoint, EndpointId, WantedEndpoint
from receiver.api.endpoint_health import Health
from workers.api_keys import Caller
from workers.app import DELIVER, Runtime
from workers.delivery import endpoints, keys
from workers.delivery.egress import Egress
from workers.delivery.endpoints import EndpointSpec, Made, Rules, State
from workers.leases import utcnow
from workers.vault import open_vault

router = APIRouter(prefix="/endpoints", tags=["endpoints"])

Read = Annotated[Caller, Security(caller, scopes=["endpoints:read"])]
Changes = Annotated[Change, changing("endpoints:write")]


class Endpoint(Model):
    """An endpoint as it was set up."""

    id: str
    url: str
    description: str
    event_types: list[str]
    sources: list[str]
    forward: bool
    signing: str
    schedule: list[float] | None
    rate: int | None
    concurrency: int | None
    status: Literal["enabled", "disabled"]
    disabled_reason: str | None
    created_at: Moment


class ListedEndpoint(Endpoint):
    """An endpoint and how it is."""

    health: Health


class Secret(Model):
    """That there is a secret which signs; never the secret."""

    kind: Literal["v1", "v1a"]
    created_at: Moment
    expires_at: Moment | None = Field(description="When it ends, after a rotation.")


class WholeEndpoint(Endpoint):
    """All of an endpoint that may be shown. How it does stands at `/endpoints/{id}/health`."""

    header_names: list[str] = Field(description="Of its own headers; their values are never shown.")
    ca: str | None
    client_certificate: bool = Field(description="Whether it has one.")
    rate_in_force: int = Field(description="Its own rate, or else the setting; 0 is without limit.")
    concurrency_in_force: int = Field(description="Its own, or else the setting.")
    public_keys: list[str] = Field(description="`whpk_…`, to verify `v1a` with; the newest first.")
    secrets: list[Secret] = Field(description="Those that sign, the newest first.")


class NewSecret(Model):
    """What signs from now on, for whoever verifies."""

    secret: str | None = Field(description="`whsec_…`, shown only now; null where no `v1` secret was made.")
    public_key: str | None = Field(description="`whpk_…`; null where no `v1a` key was made.")


class MadeEndpoint(WholeEndpoint, NewSecret):
    """An endpoint, and the secret that was made for it just now."""


class RotatedSecret(NewSecret):
    """What signs from now on, and until when what signed before does so too."""

    endpoint_id: str
    old_until: Moment


class Rotation(Model):
    """How a new secret takes over."""

    expires_in: int = Field(
        int(keys.OVERLAP.total_seconds()),
        ge=0,
        le=int(keys.LONGEST_OVERLAP.total_seconds()),
        description="Seconds for which the old secrets sign too; with 0 they end at once.",
    )


class Disabling(Model):
    """Why an endpoint is disabled."""

    reason: str = Field("somebody disabled it", min_length=1, max_length=500, description="For whoever asks later.")


class Wanted(Pages):
    """Which endpoints; all that is given must fit."""

    listed = "ep"

    status: Literal["enabled", "disabled"] | None = None
    state: State | None = Query(None, description="How they are.")
    search: str | None = Query(None, min_length=1, max_length=200, description="In the URL or the description.")


@router.get("", summary="List endpoints", responses=refusals())
def list_endpoints(wanted: Annotated[Wanted, Query()], running: Running, _caller: Read) -> Many[ListedEndpoint]:
    """The newest first, each with how it is."""
    now = utcnow()
    found = endpoints.listed(
        running.engine,
        now,
        status=wanted.status,
        state=wanted.state,
        search=wanted.search,
        after=wanted.after,
        limit=wanted.limit,
    )
    return many(found, lambda row: ListedEndpoint.of(row, health=Health.of(row, state=endpoints.state(row, now))))


@router.post(
    "", status_code=201, summary="Create an endpoint", response_model=One[MadeEndpoint], responses=refusals(409)
)
def create_endpoint(wanted: WantedEndpoint, change: Changes) -> Response:
    """Have messages sent to a URL. The secret that signs them is shown in this answer, and never again.

    The URL is checked: an address that is not public is refused, whatever its spelling, unless
    `BILLHOOK_EGRESS_NETWORKS` names its network; a name is checked each time it is resolved.
    """
    spec = EndpointSpec(**{name: getattr(wanted, name) for name in WantedEndpoint.model_fields if name != "secret"})
    vault = change.vault

    def make() -> MadeEndpoint:
        made = endpoints.add(
            change.runtime.engine,
            vault,
            spec,
            _rules(change.runtime),
            actor=change.actor,
            now=change.now,
            secret=wanted.secret,
        )
        return _made(change.runtime, made)

    return change.carry_out(make, status=201)


@router.get("/{endpoint_id}", summary="Show an endpoint", response_model=One[WholeEndpoint], responses=refusals(404))
def show_endpoint(
    endpoint_id: EndpointId, request: Request, running: Running, _caller: Read
) -> Response | One[WholeEndpoint]:
    """One endpoint as it was set up. Its ETag changes with that, and not with how the endpoint does.

    An endpoint is never deleted, for what was sent to it stays readable; disable it instead.
    """
    return tagged(request, _whole(running, endpoint_id))


@router.patch(
    "/{endpoint_id}", summary="Change an endpoint", response_model=One[MadeEndpoint], responses=refusals(404, 409, 412)
)
def change_endpoint(
    endpoint_id: EndpointId, changed: ChangedEndpoint, change: Changes, if_match: IfMatch = None
) -> Response:
    """Change what is given, and nothing else; null makes what may be null as usual again.

    A kind of signature that is added gets a new secret, which is shown in this answer only; one that is taken away
    signs no more at once.
    """
    engine, vault = change.runtime.engine, change.vault
    changes = {name: getattr(changed, name) for name in changed.model_fields_set}

    def do() -> MadeEndpoint:
        endpoints.hold(engine, endpoint_id)
        expect(_whole(change.runtime, endpoint_id), if_match)
        rules = _rules(change.runtime)
        made = endpoints.change(engine, vault, endpoint_id, changes, rules, actor=change.actor, now=change.now)
        return _made(change.runtime, made)

    return change.carry_out(do)


@router.post(
    "/{endpoint_id}/rotate",
    summary="Give an endpoint a new secret",
    response_model=One[RotatedSecret],
    responses=refusals(404, 409),
)
def rotate_secret(
    endpoint_id: EndpointId, change: Changes, rotation: Annotated[Rotation | None, Body()] = None
) -> Response:
    """Make a new secret, which is shown in this answer only; the older ones sign beside it until they end."""
    overlap = timedelta(seconds=(rotation or Rotation()).expires_in)
    engine, vault = change.runtime.engine, change.vault

    def do() -> RotatedSecret:
        made = endpoints.rotate(engine, vault, endpoint_id, overlap=overlap, actor=change.actor, now=change.now)
        until = change.now + overlap
        return RotatedSecret(endpoint_id=made.id, secret=made.secret, public_key=made.public_key, old_until=until)

    return change.carry_out(do)


@router.post(
    "/{endpoint_id}/test",
    status_code=202,
    summary="Send a test message",
    response_model=One[Delivery],
    responses=refusals(404, 409),
)
def send_test(endpoint_id: EndpointId, change: Changes) -> Response:
    """Publish a `billhook.test` message to this endpoint alone, to be signed, sent and tried again like any other."""
    engine, rung = change.runtime.engine, list[str]()

    def do() -> Delivery:
        rung[:] = [endpoints.send_test(engine, endpoint_id, actor=change.actor, now=change.now)]
        return deliveries.shown(engine, rung[0])

    return change.carry_out(do, status=202, rings=[(DELIVER, rung)])


@router.post(
    "/{endpoint_id}/enable",
    summary="Enable an endpoint",
    response_model=One[WholeEndpoint],
    responses=refusals(404, 409),
)
def enable_endpoint(endpoint_id: EndpointId, change: Changes) -> Response:
    """Send to it again, or at once; its failures, and what held it off, are forgotten.

    What was cancelled while it was disabled is sent only when it is asked for: see `recover` and `missing`.
    """

    def do() -> WholeEndpoint:
        endpoints.enable(change.runtime.engine, endpoint_id, actor=change.actor, now=change.now)
        return _whole(change.runtime, endpoint_id)

    return change.carry_out(do)


@router.post(
    "/{endpoint_id}/disable",
    summary="Disable an endpoint",
    response_model=One[WholeEndpoint],
    responses=refusals(404, 409),
)
def disable_endpoint(
    endpoint_id: EndpointId, change: Changes, disabling: Annotated[Disabling | None, Body()] = None
) -> Response:
    """Send nothing more to it; what waits for it is cancelled when its turn comes. Disabled, it stays as it is."""
    reason = (disabling or Disabling()).reason

    def do() -> WholeEndpoint:
        endpoints.switch_off(change.runtime.engine, endpoint_id, reason, actor=change.actor, now=change.now)
        return _whole(change.runtime, endpoint_id)

    return change.carry_out(do)


def _whole(running: Runtime, endpoint_id: str) -> WholeEndpoint:
    settings = running.settings
    found = endpoints.shown(running.engine, open_vault(settings), endpoint_id, utcnow())
    rate, concurrency = found.row.rate, found.row.concurrency
    return WholeEndpoint.of(
        found.row,
        rate_in_force=settings.endpoint_rate if rate is None else rate,
        concurrency_in_force=settings.endpoint_concurrency if concurrency is None else concurrency,
        header_names=list(found.headers),
        client_certificate=found.client_certificate,
        public_keys=list(found.public_keys),
        secrets=[Secret.of(key) for key in found.keys],
    )


def _made(running: Runtime, made: Made) -> MadeEndpoint:
    whole = _whole(running, made.id)
    return MadeEndpoint(**dict(whole), secret=made.secret, public_key=made.public_key)


def _rules(running: Runtime) -> Rules:
    return Rules(Egress.of(running.settings), running.settings.sources.keys())
