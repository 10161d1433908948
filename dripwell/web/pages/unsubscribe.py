"""Leaving: one button on GET, done on POST, whoever posts it and however (RFC 8058)."""

from __future__ import annotations

import logging

from starlette.responses import PlainTextResponse, Response

from dripwell.core.errors import InvalidTokenError, UnavailableError
from dripwell.core.tokens import Purpose, sign
from dripwell.services import leave
from dripwell.storage import clicks, clock, spool
from dripwell.storage.database import Connection
from dripwell.web.pages import own
from dripwell.web.visit import Visit

log = logging.getLogger("dripwell.web")

UNDO_WORDING = "Was that a mistake? Press Undo, and you keep getting our emails."
"""Stands above the button, and in the ledger of whoever pressed it."""
REASONS = {
    "often": "Too many emails",
    "useless": "Not useful to me",
    "found": "I found what I needed",
    "upsetting": "It was upsetting",
    "unasked": "I don’t remember asking for these",
}


def page(visit: Visit) -> Response:
    """GET shows the button. POST unsubscribes, unless its body says `do=undo` or `do=why`."""
    if not visit.acts:
        try:
            return _ask(visit)
        except InvalidTokenError:
            return own.lost(visit)
    try:
        message_id = visit.identity(Purpose.UNSUBSCRIBE)
    except InvalidTokenError:
        # The same-looking answer (rules 3.2). Nobody gets here from our page: it shows no button for such a link.
        log.warning("an unsubscribe came with a link that cannot be read")
        return _short() if _is_one_click(visit) else done(visit, can_undo=True)
    match visit.field("do"):
        case "undo":
            return _undo(visit, message_id)
        case "why":
            return _why(visit, message_id)
        case _:
            return act(visit, message_id, "one-click" if _is_one_click(visit) else "page")


def act(visit: Visit, message_id: int, how: str, *, here: str | None = None) -> Response:
    """Unsubscribe the person this message was for, on disk before the page says so.

    `here` is this message's unsubscribe path, when the POST came from another page.
    """
    installation = visit.installation
    place = spool.path_in(installation.settings.state_dir)
    try:
        member = leave.leave_for_good(installation.database, installation.journal, place, message_id, how)
    except (OSError, UnavailableError) as error:
        log.error("an unsubscribe could not be kept safely: %s", type(error).__name__)
        return visit.look.unavailable()
    if member is not None:
        installation.fast.add([member])
    if how == "one-click":
        return _short()
    try:
        with visit.transaction() as (connection, times):
            origin = clicks.origin(connection, message_id)
            can_undo = origin is None or leave.can_undo(connection, subscriber_id=origin.subscriber_id, times=times)
    except UnavailableError:
        origin, can_undo = None, False
    if origin is not None and origin.address is None:
        return _nobody(visit)
    return done(visit, can_undo=can_undo, here=here)


def _is_one_click(visit: Visit) -> bool:
    return "List-Unsubscribe" in visit.form


def _short() -> Response:
    """What a mail program gets (RFC 8058): nobody reads it, so nothing more is asked of PostgreSQL for it."""
    return PlainTextResponse("You are unsubscribed.\n")


def done(visit: Visit, *, can_undo: bool, here: str | None = None) -> Response:
    """The one page after it; `here` is where undo and the reason go."""
    return visit.look.page(
        "unsubscribed.html",
        "You are unsubscribed",
        here=here or visit.here,
        can_undo=can_undo,
        undo=UNDO_WORDING,
        reasons=REASONS,
    )


def _ask(visit: Visit) -> Response:
    message_id = visit.identity(Purpose.UNSUBSCRIBE)
    address = preferences = None
    try:
        with visit.transaction() as (connection, times):
            origin = clicks.origin(connection, message_id)
            if origin is not None and origin.address is None:
                return _nobody(visit)
            if origin is not None:
                address = origin.address
                preferences = f"/p/{sign(visit.installation.keys, Purpose.PREFERENCES, message_id, times.wall_now)}"
    except UnavailableError:
        log.warning("the unsubscribe page is shown without an address: PostgreSQL does not answer")
    return visit.look.page("unsubscribe.html", "Unsubscribe", here=visit.here, address=address, preferences=preferences)


def _nobody(visit: Visit) -> Response:
    """An email from before an erasure: whoever has the address now is somebody else to us, and this link not theirs."""
    return visit.look.page("unsubscribe_nobody.html", "This link names nobody any more")


def _undo(visit: Visit, message_id: int) -> Response:
    def work(connection: Connection) -> tuple[clicks.Origin | None, bool]:
        origin = clicks.origin(connection, message_id)
        if origin is None:
            return None, False
        times = clock.read(connection)
        return origin, leave.undo(connection, subscriber_id=origin.subscriber_id, wording=UNDO_WORDING, times=times)

    origin, undone = visit.installation.database.retrying(work)
    if origin is not None and origin.addr_hash is not None and undone:
        visit.installation.fast.remove([(origin.addr_hash, "marketing")])
    if undone:
        return visit.look.page("undone.html", "You get our emails again", here=visit.here)
    return visit.look.page("not_undone.html", "This cannot be undone here", here=visit.here)


def _why(visit: Visit, message_id: int) -> Response:
    why = visit.field("why")
    if why in REASONS:
        with visit.transaction() as (connection, _):
            origin = clicks.origin(connection, message_id)
            if origin is not None:
                clicks.note_reason(connection, message_id, origin.campaign_name, why)
    return visit.look.page("thanks.html", "Thank you", text="You are unsubscribed. There is nothing more to do.")
