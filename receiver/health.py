"""`/livez`, `/readyz`, `/metrics`: for those who run the receiver."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from workers import database


def livez(_request: Request) -> Response:
    """The process answers; that is all it says."""
    return JSONResponse({"status": "ok"})


def readyz(request: Request) -> Response:
    """Whether deliveries should be sent here. Redis is not asked: without it they are accepted all the same.

    Over the schema of a newer version they are: while that takes over, the older one goes on receiving.
    """
    if request.app.state.draining:
        return JSONResponse({"status": "draining"}, 503)
    try:
        revision = database.revision(request.app.state.runtime.engine)
    except SQLAlchemyError:
        return JSONResponse({"status": "unavailable", "database": "does not answer"}, 503)
    if not database.fits(revision):
        return JSONResponse({"status": "unavailable", "database": "schema too old: run `billhook migrate`"}, 503)
    return JSONResponse({"status": "ok"})


def metrics(_request: Request) -> Response:
    """The metrics of this process, in Prometheus' text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
