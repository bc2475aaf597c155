"""GET /changelog, and the notice of a deprecation (HIBR API reference, Versioning and Changelog).

Published is what an entry says: date, version, type of change (additive, behavior, breaking) and the endpoints that are
affected; and that a version is announced as deprecated by the event hibr.api.deprecation at least 12 months before its
sunset. The names of the fields, that it is a list resource, that it needs no key, and what `data.object` of the event
is made of are the sandbox's own choices.
"""

from __future__ import annotations

from datetime import date

from sqlalchemy import select
from starlette.responses import JSONResponse, Response

from handlers.providers.hibr.client import VERSION
from handlers.providers.hibr.sandbox.access import announce
from handlers.providers.hibr.sandbox.tables import Account, Change
from handlers.providers.sandbox.machine import Call

TYPES = ("additive", "behavior", "breaking")
LAUNCH = Change(
    date=VERSION, version=VERSION, type=TYPES[0], description="The first version.", endpoints=["/v1/{resource}"]
)


def listed(call: Call) -> Response:
    """The entries, newest first."""
    names = ("date", "version", "type", "description", "endpoints")
    changes = [*call.session.scalars(select(Change).order_by(Change.number.desc())), LAUNCH]
    data = [{"object": "change", **{name: getattr(change, name) for name in names}} for change in changes]
    return JSONResponse({"object": "list", "data": data, "pagination": {"next_cursor": None, "has_more": False}})


def deprecate(call: Call, version: str, sunset: date) -> None:
    """Announce the end of a version to all accounts. Raises ValueError less than 12 months before it."""
    today = call.now.date()
    if sunset < a_year_after(today):
        raise ValueError("sunset: a version is deprecated at least 12 months before it ends")
    call.session.add(
        Change(
            date=today.isoformat(),
            version=version,
            type="breaking",
            description=f"Version {version} is deprecated; it ends on {sunset.isoformat()}.",
            endpoints=["/v1/{resource}"],
        )
    )
    notice = {"object": "api_version", "version": version, "sunset": sunset.isoformat()}
    for account in call.session.scalars(select(Account).order_by(Account.id)).all():
        announce(
            call.machine,
            call.session,
            "hibr.api.deprecation",
            {"object": notice, "previous_attributes": {}},
            account=account,
            now=call.now,
        )


def a_year_after(day: date) -> date:
    try:
        return day.replace(year=day.year + 1)
    except ValueError:  # 29 February
        return day.replace(year=day.year + 1, month=3, day=1)
