"""An email in the browser."""

from __future__ import annotations

from starlette.responses import HTMLResponse, Response

from dripwell.core.errors import InvalidTokenError
from dripwell.core.tokens import Purpose
from dripwell.services import view
from dripwell.web.visit import Visit

# Emails carry their styles in themselves. Their pictures and links stay on our host, and a page cannot be framed.
_CSP = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src {images}; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)


def page(visit: Visit) -> Response:
    """The email this word names, as it was mailed."""
    message_id = visit.identity(Purpose.VIEW)
    installation = visit.installation
    with visit.transaction() as (connection, _):
        html = view.html(connection, message_id=message_id, versions=installation.versions, keys=installation.keys)
    if html is None:
        raise InvalidTokenError("this email cannot be shown")
    images = f"'self' {installation.site.base_url}/art/"
    return HTMLResponse(html, headers={"content-security-policy": _CSP.format(images=images)})
