"""What we keep, for how long, and how to see or erase it."""

from __future__ import annotations

from starlette.responses import Response

from dripwell.core.campaign import Site
from dripwell.services import retention
from dripwell.web.visit import Visit

_WORDS = {"state": "the state you live in"}
"""A field's name in words, where the name alone says too little."""


def page(visit: Visit) -> Response:
    """The same page for everybody."""
    site = visit.look.site
    return visit.look.page(
        "privacy.html",
        "Your privacy",
        track_clicks=site.track_clicks,
        reply_to=site.reply_to,
        asked=asked(site),
        keep_events=site.keep_events,
        keep_quiet=site.keep_quiet_subscribers,
        unconfirmed_days=retention.UNCONFIRMED_FOR.days,
        answer_days=retention.ANSWER_WITHIN.days,
    )


def asked(site: Site) -> tuple[str, ...]:
    """What the forms of this clinic ask for besides the address, in words, each once."""
    names = dict.fromkeys(name for form in site.forms for name, _ in form.asks if name != "email")
    return tuple(_WORDS.get(name, name.replace("_", " ")) for name in names)
