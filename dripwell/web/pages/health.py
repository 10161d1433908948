"""Whether this host can serve: for a load balancer, without secrets."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from dripwell.core.errors import DripwellError
from dripwell.web.visit import Visit


def page(visit: Visit) -> Response:
    """200 while PostgreSQL answers, else 503. Redis may be away: then everything is only slower."""
    try:
        with visit.transaction():
            database = "ok"
    except DripwellError:
        database = "away"
    redis = "ok" if visit.installation.fast.is_there() else "away"
    return JSONResponse({"database": database, "redis": redis}, status_code=200 if database == "ok" else 503)
