"""What we keep, and how to see or delete it."""

from __future__ import annotations

from starlette.responses import Response

from dripwell.web.visit import Visit


def page(visit: Visit) -> Response:
    """The same page for everybody."""
    site = visit.look.site
    return visit.look.page(
        "privacy.html", "Your privacy", track_clicks=site.track_clicks, reply_to=site.reply_to, topics=site.topics
    )
