"""The provider's events: checked at the door on the raw bytes, kept as they came, read later."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from dripwell.bootstrap import Installation
from dripwell.core.errors import UnavailableError
from dripwell.storage import events
from dripwell.web.visit import read_body

log = logging.getLogger("dripwell.web")
LARGEST = 5 * 1024 * 1024


def endpoint(installation: Installation) -> Callable[[Request], Awaitable[Response]]:
    """204 once the body is in the inbox; 413, 401 or 503 with nothing kept. The provider tries again after a 503."""

    async def answer(request: Request) -> Response:
        body = await read_body(request, LARGEST)
        if body is None:
            return Response(status_code=413)
        return Response(status_code=await run_in_threadpool(_take, installation, request.headers, body))

    return answer


def _take(installation: Installation, headers: Mapping[str, str], body: bytes) -> int:
    if installation.door is None or not installation.door.is_genuine(headers, body):
        log.warning("a webhook without a valid signature was turned away (%d bytes)", len(body))
        return 401
    try:
        with installation.database.transaction() as connection:
            # Beat rings for it: a NOTIFY here would make every webhook wait for the commit of the one before.
            events.put_inbox(connection, body)
    except UnavailableError:
        return 503
    return 204
