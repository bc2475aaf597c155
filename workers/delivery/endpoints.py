"""Endpoints: the subscribers' URLs, what they want, and how it is sent to them.

Every change that somebody makes is in the audit log, written in the same transaction. An endpoint is never deleted:
what was sent to it stays readable, and one that is disabled costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from cryptography.fernet import MultiFernet
from sqlalchemy import Connection, Engine, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from workers import audit_log, database, ids
from workers.delivery import headers, keys
from workers.delivery.errors import EndpointError, NoEndpoint, WrongState
from workers.delivery.keys import Made
from workers.delivery.messages import Outgoing, publish_to
from workers.delivery.specs import EndpointSpec, Rules, check, columns
from workers.listing import Page, page
from workers.models import AnyRow, Endpoint, prose

__all__ = [
    "EndpointError", "EndpointSpec", "Made", "NoEndpoint", "Rules", "Shown", "State", "WrongState", "add", "change",
    "disable", "enable", "everyone", "get", "hold", "listed", "rotate", "send_test", "shown", "state", "switch_off",
]  # fmt: skip

TEST = "billhook.test"
_HIDDEN = frozenset({"headers", "client_certificate"})
_OPEN_TO_ALL = [column for column in Endpoint.__table__.columns if column.name not in _HIDDEN]


@dataclass(frozen=True, slots=True)
class Shown:
    """All of an endpoint that may be shown."""

    row: AnyRow
    headers: Sequence[str]
    """Names."""
    public_keys: Sequence[str]
    """`whpk_…`, newest first."""
    keys: Sequence[AnyRow]
    """The live ones, newest first: `kind`, `created_at`, `expires_at`."""
    client_certificate: bool
    """Whether it has one."""


def add(
    engine: Engine,
    vault: MultiFernet,
    spec: EndpointSpec,
    rules: Rules,
    *,
    actor: str,
    now: datetime,
    secret: str | None = None,
) -> Made:
    """Store an endpoint with its secrets; a v1 secret may be brought. Raises EndpointError."""
    check(spec, rules)
    endpoint_id = ids.new("ep")
    row = {"id": endpoint_id, "status": "enabled", "created_at": now, **columns(vault, spec)}
    with database.write(engine) as connection:
        connection.execute(database.insert(connection, Endpoint), [row])
        made = keys.make(connection, vault, endpoint_id, keys.kinds(spec.signing), now=now, secret=secret)
        detail = {"endpoint": endpoint_id, **spec.described()}
        audit_log.note(connection, actor, "endpoint.add", detail, now)
    return made


def change(
    engine: Engine,
    vault: MultiFernet,
    endpoint_id: str,
    changes: Mapping[str, Any],
    rules: Rules,
    *,
    actor: str,
    now: datetime,
) -> Made:
    """Change these fields of an `EndpointSpec`; what keys had to be made for another `signing`.

    A kind that no longer signs ends at once. Raises EndpointError.
    """
    if not changes:
        raise EndpointError("there is nothing to change")
    with database.write(engine) as connection:
        row = _locked(connection, endpoint_id)
        spec = EndpointSpec(**{"url": row.url, "signing": row.signing, **changes})
        check(spec, rules, changes)
        values = {name: value for name, value in columns(vault, spec).items() if name in changes}
        connection.execute(update(Endpoint).where(Endpoint.id == endpoint_id).values(**values))
        before, after = keys.kinds(row.signing), keys.kinds(spec.signing)
        keys.expire(connection, endpoint_id, [kind for kind in before if kind not in after], at=now)
        made = keys.make(connection, vault, endpoint_id, [kind for kind in after if kind not in before], now=now)
        detail = {"endpoint": endpoint_id, **spec.described(changes)}
        audit_log.note(connection, actor, "endpoint.update", detail, now)
    return made


def rotate(
    engine: Engine,
    vault: MultiFernet,
    endpoint_id: str,
    *,
    overlap: timedelta = keys.OVERLAP,
    actor: str,
    now: datetime,
) -> Made:
    """Give an endpoint new secrets; the older ones sign too until `overlap` (0 to 7 days) is over.

    Raises EndpointError.
    """
    with database.write(engine) as connection:
        row = _locked(connection, endpoint_id)
        wanted = keys.kinds(row.signing)
        made = keys.rotate(connection, vault, endpoint_id, wanted, overlap=overlap, now=now)
        detail = {"endpoint": endpoint_id, "kinds": list(wanted), "overlap": overlap.total_seconds()}
        audit_log.note(connection, actor, "endpoint.rotate", detail, now)
    return made


def enable(engine: Engine, endpoint_id: str, *, actor: str, now: datetime) -> AnyRow:
    """Send to an endpoint again, or at once, its failures forgotten; its row as it was. Raises NoEndpoint."""
    with database.write(engine) as connection:
        row = _locked(connection, endpoint_id)
        fresh = {"failures": 0, "failing_since": None, "warned_at": None, "held_until": None}
        enabled = update(Endpoint).where(Endpoint.id == endpoint_id)
        connection.execute(enabled.values(status="enabled", disabled_reason=None, **fresh))
        audit_log.note(connection, actor, "endpoint.enable", {"endpoint": endpoint_id, "failures": row.failures}, now)
    return row


def switch_off(engine: Engine, endpoint_id: str, reason: str, *, actor: str, now: datetime) -> bool:
    """Disable an endpoint because somebody wants it; False where it was disabled before. Raises NoEndpoint."""
    with database.write(engine) as connection:
        _locked(connection, endpoint_id)
        changed = disable(connection, endpoint_id, prose(reason))
        if changed:
            audit_log.note(connection, actor, "endpoint.disable", {"endpoint": endpoint_id, "reason": reason}, now)
    return bool(changed)


def disable(connection: Connection, endpoint_ids: str | Sequence[str], reason: str) -> list[str]:
    """Stop sending to endpoints; what waits for them is cancelled when its turn comes. Those that were enabled."""
    wanted = [endpoint_ids] if isinstance(endpoint_ids, str) else endpoint_ids
    disabled = (
        update(Endpoint)
        .where(Endpoint.id.in_(wanted), Endpoint.status == "enabled")
        .values(status="disabled", disabled_reason=reason)
        .returning(Endpoint.id)
    )
    return sorted(connection.execute(disabled).scalars())


def send_test(engine: Engine, endpoint_id: str, *, actor: str, now: datetime) -> str:
    """Publish a message to one endpoint, to be sent like any other; the delivery's id, to be rung.

    Raises WrongState where the endpoint is disabled: a delivery would be cancelled.
    """
    message = Outgoing(ids.new("msg"), None, TEST, b'{"message":"This is a test."}')
    with database.write(engine) as connection:
        if _locked(connection, endpoint_id).status != "enabled":
            raise WrongState(f"the endpoint {endpoint_id} is disabled: enable it first")
        delivery_id = publish_to(connection, endpoint_id, message, now=now)
        audit_log.note(connection, actor, "endpoint.test", {"endpoint": endpoint_id, "message": message.id}, now)
    return delivery_id


def everyone(engine: Engine) -> Sequence[AnyRow]:
    """All endpoints, oldest first, without what is secret of them."""
    with database.read(engine) as connection:
        return connection.execute(select(*_OPEN_TO_ALL).order_by(Endpoint.id)).all()


State = Literal["sound", "failing", "held", "disabled"]
"""How an endpoint is: `failing` after its last attempts failed, `held` where nothing is sent to it for a while."""


def state(row: AnyRow, now: datetime) -> State:
    """How an endpoint is, of which the row is one of `everyone`."""
    if row.status != "enabled":
        return "disabled"
    if row.held_until is not None and row.held_until > now:
        return "held"
    return "failing" if row.failures else "sound"


def listed(
    engine: Engine,
    now: datetime,
    *,
    status: str | None = None,
    state: State | None = None,
    search: str | None = None,
    after: str | None = None,
    limit: int,
) -> Page:
    """A page of `everyone`, newest first: all that is given fits them; `search` is in their URL or description."""
    meant = [] if state is None else _in_state(state, now)
    if status is not None:
        meant.append(Endpoint.status == status)
    if search is not None:
        meant.append(
            or_(*(column.icontains(search, autoescape=True) for column in (Endpoint.url, Endpoint.description)))
        )
    with database.read(engine) as connection:
        return page(connection, select(*_OPEN_TO_ALL).where(*meant), Endpoint.id, after=after, limit=limit)


def _in_state(state: State, now: datetime) -> list[ColumnElement[bool]]:
    if state == "disabled":
        return [Endpoint.status != "enabled"]
    enabled = Endpoint.status == "enabled"
    if state == "held":
        return [enabled, Endpoint.held_until > now]
    free = or_(Endpoint.held_until.is_(None), Endpoint.held_until <= now)
    return [enabled, free, Endpoint.failures > 0 if state == "failing" else Endpoint.failures == 0]


def hold(engine: Engine, endpoint_id: str) -> None:
    """Keep others from changing an endpoint until the transaction that this is a part of ends. Raises NoEndpoint."""
    with database.write(engine) as connection:
        _locked(connection, endpoint_id)


def get(engine: Engine, endpoint_id: str) -> AnyRow:
    """One of `everyone`. Raises NoEndpoint."""
    with database.read(engine) as connection:
        row = connection.execute(select(*_OPEN_TO_ALL).where(Endpoint.id == endpoint_id)).first()
    if row is None:
        raise NoEndpoint(f"there is no endpoint {endpoint_id}")
    return row


def shown(engine: Engine, vault: MultiFernet, endpoint_id: str, now: datetime) -> Shown:
    """All that may be shown of an endpoint. Raises NoEndpoint, VaultError."""
    row = get(engine, endpoint_id)
    secret = select(Endpoint.headers, Endpoint.client_certificate.is_not(None)).where(Endpoint.id == endpoint_id)
    with database.read(engine) as connection:
        stored, certificate = connection.execute(secret).one()
        live = keys.load(connection, [endpoint_id], now).get(endpoint_id, ())
    return Shown(row, headers.names(vault, stored), keys.public_keys(vault, live), live, certificate)


def _locked(connection: Connection, endpoint_id: str) -> AnyRow:
    """The endpoint, which nobody else changes until this transaction ends. Raises NoEndpoint."""
    mine = select(*_OPEN_TO_ALL).where(Endpoint.id == endpoint_id)
    # Whoever publishes a message meanwhile refers to the endpoint, and need not wait.
    row = connection.execute(mine.with_for_update(key_share=True)).first()
    if row is None:
        raise NoEndpoint(f"there is no endpoint {endpoint_id}")
    return row
