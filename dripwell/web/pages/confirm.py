"""Double opt-in: GET shows one button, POST makes it true."""

from __future__ import annotations

from starlette.responses import Response

from dripwell.core.errors import InvalidTokenError
from dripwell.core.tokens import Purpose
from dripwell.services import confirm
from dripwell.storage.database import Connection
from dripwell.web.visit import Visit


def page(visit: Visit) -> Response:
    """A link works for seven days; pressing the button twice is pressing it once."""
    visit.identity(Purpose.CONFIRM)
    installation = visit.installation
    with visit.transaction() as (connection, times):
        enrollment_id = visit.identity(Purpose.CONFIRM, times.wall_now)
        request = confirm.read(connection, enrollment_id=enrollment_id, site=installation.site)
    if request is None:
        raise InvalidTokenError("this request cannot be found")
    if visit.acts:

        def work(connection: Connection) -> confirm.Request | None:
            return confirm.confirm(
                connection, enrollment_id=enrollment_id, site=installation.site, versions=installation.versions
            )

        installation.database.retrying(work)
    if visit.acts or request.done:
        return visit.look.page("confirmed.html", "Your address is confirmed", topic=request.topic)
    return visit.look.page(
        "confirm.html",
        "Confirm your address",
        here=visit.here,
        address=request.address,
        topic=request.topic,
        consent=request.form.consent,
    )
