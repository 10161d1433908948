"""Topics, pace, a pause, one series less, or none of it: all on one page."""

from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo

from starlette.responses import Response

from dripwell.core.network import truncated
from dripwell.core.tokens import Purpose, sign
from dripwell.core.window import zone_of
from dripwell.services import preferences
from dripwell.storage.clicks import Origin
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection
from dripwell.web.pages import own, unsubscribe
from dripwell.web.visit import LONG_AGO, Visit

SHOWS = ("pause", "fewer", "stop")
SAVED = "Saved. It counts from now on. An email that was already on its way may still arrive."
RESUMED = "The pause is over. Your emails go on where you left off, one at a time."


def page(visit: Visit) -> Response:
    """GET shows what is chosen; `?show=` brings one choice forward.

    POST keeps it, ends a pause, stops a series or unsubscribes.
    """
    if visit.acts and visit.field("do") == "leave":
        found = own.find(visit)
        return found if isinstance(found, Response) else _leave(visit, found.message_id)
    return own.answer(visit, lambda connection, origin, times: _answer(visit, connection, origin, times))


def _leave(visit: Visit, message_id: int) -> Response:
    word = sign(visit.installation.keys, Purpose.UNSUBSCRIBE, message_id, LONG_AGO)
    return unsubscribe.act(visit, message_id, "preferences", here=f"/u/{word}")


def _answer(visit: Visit, connection: Connection, origin: Origin, times: Times) -> Response:
    if not visit.acts:
        return _show(visit, connection, origin, times)
    now = preferences.read(connection, origin=origin, versions=visit.installation.versions, times=times)
    if now is None or now.left:
        return _show(visit, connection, origin, times)
    stop = visit.field("stop", 18)
    if stop.isascii() and stop.isdigit():
        stopped = preferences.stop_series(
            connection, subscriber_id=origin.subscriber_id, enrollment_id=int(stop), times=times
        )
        return _show(visit, connection, origin, times, note="This series has stopped." if stopped else "")
    match visit.field("do"):
        case "save":
            return _save(visit, connection, origin, times)
        case "resume":
            resumed = preferences.resume(connection, subscriber_id=origin.subscriber_id, times=times)
            return _again(visit, connection, origin, times, note=RESUMED if resumed else "")
        case _:
            return _show(visit, connection, origin, times)  # a body without our button must not give topics up


def _save(visit: Visit, connection: Connection, origin: Origin, times: Times) -> Response:
    pace = visit.field("pace")
    paused_until = None
    if pace == "pause":
        day = _date(visit.field("until"))
        paused_until = preferences.pause_end(day, _zone(visit, origin), times.now) if day else None
        if paused_until is None:
            error = "Choose a day after today, at most six months ahead."
            return _show(visit, connection, origin, times, error=error, show="pause")
    saved = preferences.save(
        connection,
        subscriber_id=origin.subscriber_id,
        site=visit.installation.site,
        topics=visit.form.getlist("topic"),
        pace=pace if pace in ("planned", "weekly") else origin.pace,
        paused_until=paused_until,
        times=times,
        page=f"{visit.installation.site.base_url}/p",  # without the word, which is a key
        network=truncated(visit.client),
    )
    return _again(visit, connection, origin, times, note=SAVED) if saved else own.erased(visit)


def _again(visit: Visit, connection: Connection, origin: Origin, times: Times, *, note: str) -> Response:
    after = visit.origin(connection, Purpose.PREFERENCES, times)
    return _show(visit, connection, after, times, note=note, show="")


def _show(
    visit: Visit,
    connection: Connection,
    origin: Origin,
    times: Times,
    *,
    note: str = "",
    error: str = "",
    show: str | None = None,
) -> Response:
    found = preferences.read(connection, origin=origin, versions=visit.installation.versions, times=times)
    if found is None:
        return own.erased(visit)
    zone = _zone(visit, origin)
    if show is None:
        show = visit.query.get("show", "")
    today = times.now.astimezone(zone).date()
    usual = today + preferences.USUAL_PAUSE
    until = found.paused_until.astimezone(zone).date() if found.paused_until else usual
    if show in ("pause", "fewer"):
        chosen = {"pause": "pause", "fewer": "weekly"}[show]
    else:
        chosen = "pause" if found.paused_until else found.pace
    return visit.look.page(
        "preferences.html",
        "Email preferences",
        status=422 if error else 200,
        here=visit.here,
        address=found.address,
        topics=visit.installation.site.topics,
        agreed=found.topics,
        series=found.series,
        left=found.left,
        chosen=chosen,
        until=until,
        first_day=today + preferences.SHORTEST_PAUSE,
        last_day=today + preferences.LONGEST_PAUSE,
        paused=found.paused_until is not None,
        stop_first=show == "stop",
        hint=show in SHOWS and not error,
        note=note,
        error=error,
    )


def _zone(visit: Visit, origin: Origin) -> ZoneInfo:
    site = visit.installation.site
    return (
        zone_of(site.window, origin.timezone, site.clinic.timezone)
        if site.window.zone == "subscriber"
        else ZoneInfo(site.clinic.timezone)
    )


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
