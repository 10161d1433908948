"""Whose pages these are: the person a preferences link belongs to, or a page that says what to do instead."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from dripwell.core.errors import InvalidTokenError
from dripwell.core.tokens import Purpose
from dripwell.storage import clicks
from dripwell.storage.clicks import Origin
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection
from dripwell.web.visit import Visit

Work = Callable[[Connection, Origin, Times], Response]


def answer(visit: Visit, work: Work) -> Response:
    """Do `work` in one transaction for the person whose link this is; only a POST can write in it.

    A link that is not ours, an expired one and an erased person get a page that helps.
    """
    if not _is_ours(visit):  # before any server is asked
        return lost(visit)

    def run(connection: Connection, times: Times) -> Response:
        found = _find(visit, connection, times)
        return found if isinstance(found, Response) else work(connection, found, times)

    if visit.acts:
        return visit.installation.database.retrying(lambda connection: run(connection, visit.times(connection)))
    with visit.transaction() as (connection, times):
        return run(connection, times)


def find(visit: Visit) -> Origin | Response:
    """The person whose link this is, for what needs transactions of its own; else the page that `answer` gives."""
    if not _is_ours(visit):
        return lost(visit)
    with visit.transaction() as (connection, times):
        return _find(visit, connection, times)


def lost(visit: Visit) -> Response:
    """A link that is not whole, or none of ours: how to leave all the same. It says the same whatever the reason."""
    return visit.look.page("lost.html", "This link is not complete", status=404)


def erased(visit: Visit) -> Response:
    """Nobody is behind this link any more."""
    return visit.look.page("erased.html", "There is nothing here any more", status=410)


def _is_ours(visit: Visit) -> bool:
    try:
        visit.identity(Purpose.PREFERENCES)
    except InvalidTokenError:
        return False
    return True


def _find(visit: Visit, connection: Connection, times: Times) -> Origin | Response:
    try:
        message_id = visit.identity(Purpose.PREFERENCES, times.wall_now)
    except InvalidTokenError:  # it is ours, so it is only too old
        return visit.look.page("expired.html", "This link has expired", status=410)
    origin = clicks.origin(connection, message_id)
    if origin is None:
        return lost(visit)
    return erased(visit) if origin.address is None else origin
