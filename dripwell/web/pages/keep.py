"""Whether somebody of whom nothing was heard for long wants to stay: GET shows one button, POST keeps them."""

from __future__ import annotations

from starlette.responses import Response

from dripwell.core.tokens import Purpose
from dripwell.services import retention
from dripwell.storage.database import Connection
from dripwell.web.visit import Visit


def page(visit: Visit) -> Response:
    """The link works until the answer is given, or the person is erased. Pressing the button twice is pressing once."""
    message_id = visit.identity(Purpose.KEEP)
    if visit.acts:

        def work(connection: Connection) -> bool:
            return retention.stay(connection, message_id, visit.times(connection))

        visit.installation.database.retrying(work)
        return visit.look.page("kept.html", "You stay", nothing=False)
    with visit.transaction() as (connection, _):
        address = retention.is_asked(connection, message_id)
    if address is None:
        return visit.look.page("kept.html", "Nothing waits for an answer", nothing=True)
    return visit.look.page("keep.html", "Do you want to stay?", here=visit.here, address=address)
