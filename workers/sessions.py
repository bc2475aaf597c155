"""Sessions that were ended by signing out, before their time was over.

A session is a cookie that was signed; only of those that were ended early something is stored. So a cookie that
somebody copied is worth nothing once its owner has signed out. Ids begin with the moment they were made, so what is
older than a session lasts is one range of the index, and is forgotten.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Engine, delete, select

from workers import database, ids
from workers.models import EndedSession

LASTS = timedelta(hours=12)
"""After which somebody has to sign in again."""
_PREFIX = "ses"


def new() -> str:
    """The id of a session that begins now."""
    return ids.new(_PREFIX)


def end(engine: Engine, session_id: str) -> None:
    """Let nobody in with this session again. It may have been ended before."""
    with database.write(engine) as connection:
        connection.execute(database.insert(connection, EndedSession).values(id=session_id).on_conflict_do_nothing())


def ended(engine: Engine, session_id: str) -> bool:
    """Whether this session was ended."""
    with database.read(engine) as connection:
        return connection.execute(select(EndedSession.id).where(EndedSession.id == session_id)).first() is not None


def over(now: datetime) -> ColumnElement[bool]:
    """Of those that were ended: which would be over by now anyway, with an hour to be safe."""
    return EndedSession.id < ids.since(_PREFIX, now - LASTS)


def forget(connection: Connection, now: datetime, limit: int) -> int:
    """Delete so many of those whose time is over anyway; how many."""
    some = select(EndedSession.id).where(over(now)).order_by(EndedSession.id).limit(limit)
    return connection.execute(delete(EndedSession).where(EndedSession.id.in_(some))).rowcount
