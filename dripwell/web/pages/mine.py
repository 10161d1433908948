"""What we keep about you: to read, to take along, and to erase. One's own signed link is enough for all three."""

from __future__ import annotations

import json
from typing import Any
from zoneinfo import ZoneInfo

from starlette.responses import Response

from dripwell.core.calls import minute_of
from dripwell.core.errors import NotFoundError
from dripwell.core.window import zone_of
from dripwell.services import erase, mine, plain
from dripwell.storage import bookings
from dripwell.storage.clicks import Origin
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection
from dripwell.web.pages import own
from dripwell.web.visit import Visit


def page(visit: Visit) -> Response:
    """Everything, in words; the address masked, since a link can be passed on."""

    def show(connection: Connection, origin: Origin, times: Times) -> Response:
        found = _everything(connection, origin)
        if found is None:
            return own.erased(visit)
        site = visit.installation.site
        zone = zone_of(site.window, origin.timezone, site.clinic.timezone)
        titles = mine.titles(connection, visit.installation.versions, found)
        told = plain.sections(found, site, zone, titles)
        return visit.look.page("data.html", "Your data", sections=told, zone=zone.key, base=_base(visit))

    return own.answer(visit, show)


def download(visit: Visit) -> Response:
    """Everything as JSON, to keep or to hand on. It changes nothing, so GET it is; nobody may cache it."""

    def save(connection: Connection, origin: Origin, times: Times) -> Response:
        found = _everything(connection, origin)
        if found is None:
            return own.erased(visit)
        return Response(
            json.dumps(found, ensure_ascii=False, indent=2) + "\n",
            media_type="application/json",
            headers={"content-disposition": 'attachment; filename="my-data.json"'},
        )

    return own.answer(visit, save)


def erasing(visit: Visit) -> Response:
    """GET says what goes and what stays, with one button. POST with that button erases."""
    if visit.acts and visit.field("do") == "erase":
        found = own.find(visit)
        return found if isinstance(found, Response) else _erase(visit, found)
    return own.answer(visit, lambda connection, origin, times: _ask(visit, connection, origin, times))


def _ask(visit: Visit, connection: Connection, origin: Origin, times: Times) -> Response:
    call = bookings.upcoming(connection, origin.subscriber_id, minute_of(times.now))
    return visit.look.page(
        "erase.html",
        "Erase your data?",
        address=origin.address,
        call=call,
        zone=ZoneInfo(call.timezone) if call is not None else None,
        base=_base(visit),
        here=visit.here,
    )


def _erase(visit: Visit, origin: Origin) -> Response:
    installation = visit.installation
    try:
        erasure = erase.erase(
            installation.database,
            origin.subscriber_id,
            pepper=installation.pepper,
            actor="subscriber",
            failpoint=installation.failpoint,
            kept=installation.journal,
        )
    except NotFoundError:
        return own.erased(visit)
    return visit.look.page("erasing.html", "Your data is erased", complete=erasure.complete)


def _everything(connection: Connection, origin: Origin) -> dict[str, Any] | None:
    try:
        return mine.everything(connection, origin.subscriber_id)
    except NotFoundError:
        return None  # erased since the link was read


def _base(visit: Visit) -> str:
    """The preferences page of the same person."""
    return f"/p/{visit.word}"
