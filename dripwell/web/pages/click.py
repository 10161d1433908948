"""A followed link: 302 to the stored target, or a page of ours. Never a URL out of the request."""

from __future__ import annotations

import re

from starlette.responses import Response

from dripwell.core.errors import InvalidTokenError
from dripwell.core.tokens import Purpose, verify
from dripwell.services import click
from dripwell.web.visit import LONG_AGO, Visit

_PLACE = re.compile(r"([A-Za-z0-9_-]{30,60})-(0|[1-9][0-9]{0,3})", re.ASCII)


def page(visit: Visit) -> Response:
    """`<word>-<number>`: GET counts when this installation tracks clicks, HEAD never does."""
    place = _PLACE.fullmatch(visit.word)
    if place is None:
        raise InvalidTokenError("this link is not complete")
    installation = visit.installation
    # A click's word does not expire, so no clock is asked before the signature is known to be ours.
    message_id = verify(installation.keys, Purpose.CLICK, place[1], LONG_AGO)
    with installation.database.transaction() as connection:
        target = click.resolve(
            connection,
            message_id=message_id,
            number=int(place[2]),
            keys=installation.keys,
            record=visit.method == "GET" and installation.site.track_clicks,
        )
    if target is None:
        raise InvalidTokenError("this link leads nowhere any more")
    # A URL is ASCII on the wire; stored targets were checked when their version was published.
    return Response(status_code=302, headers={"location": target.encode("ascii", "ignore").decode()})
