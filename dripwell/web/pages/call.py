"""A booked call: what was agreed, a calendar entry, another time, or no call after all."""

from __future__ import annotations

import hashlib
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from icalendar import Calendar, Event
from starlette.responses import RedirectResponse, Response

from dripwell.core import calls
from dripwell.core.calls import Slot
from dripwell.core.errors import InvalidTokenError
from dripwell.core.tokens import Purpose
from dripwell.services import book
from dripwell.services.book import Booked, Gone
from dripwell.storage import bookings, clicks
from dripwell.storage.bookings import Booking
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection
from dripwell.web.pages.book import Sheet, diary, read_zone, times_page
from dripwell.web.visit import Visit


def page(visit: Visit) -> Response:
    """What was agreed, or that it is canceled or over."""
    with visit.transaction() as (connection, times):
        booking = _booking(visit, connection)
    return _show(visit, booking, times)


def cancel(visit: Visit) -> Response:
    """GET shows one button; POST cancels. No reason is asked."""
    if visit.acts:
        visit.identity(Purpose.CALL)
        visit.installation.database.retrying(
            lambda connection: book.cancel(connection, diary(visit), booking_id=_booking(visit, connection).id)
        )
        return RedirectResponse(_call_path(visit), status_code=303)
    with visit.transaction() as (connection, times):
        booking = _booking(visit, connection)
    if not book.is_open(booking, times.now):
        return _show(visit, booking, times)
    return visit.look.page(
        "cancel.html",
        "Cancel this call",
        here=visit.here,
        call=_call_path(visit),
        booking=booking,
        zone=ZoneInfo(booking.timezone),
    )


def change(visit: Visit) -> Response:
    """Choose another time, check it, and only then the call moves."""
    visit.identity(Purpose.CALL)
    step = visit.field("step")
    if visit.acts and step == "change":
        return visit.installation.database.retrying(lambda connection: _change(visit, connection))
    with visit.installation.database.transaction() as connection:
        clicks.read_only(connection)
        times = visit.times(connection)
        booking = _booking(visit, connection)
        if not book.is_open(booking, times.now):
            return _show(visit, booking, times)
        sheet = _sheet(visit, booking)
        slots = _free(visit, connection, booking, sheet, times)
    old = Slot(booking.start_minute, booking.minutes)
    if step == "time" and sheet.start is not None:
        if sheet.start in {slot.start for slot in slots} and book.hold(
            visit.installation.fast, visit.installation.site, sheet.start, booking.subscriber_id
        ):
            return visit.look.page(
                "change.html",
                "Check the new time",
                here=visit.here,
                call=_call_path(visit),
                sheet=sheet,
                old=old,
                new=Slot(sheet.start, booking.minutes),
                zone=ZoneInfo(sheet.zone),
            )
        left = tuple(slot for slot in slots if slot.start != sheet.start)
        return _gone(visit, sheet, left, calls.nearest(left, sheet.start), old)
    note = "Choose one of these times." if step == "time" else ""
    return times_page(visit, sheet, slots, note=note, old=old)


def calendar(visit: Visit) -> Response:
    """A calendar entry that says "Phone call" and the number that calls, nothing else about it."""
    with visit.transaction() as (connection, times):
        booking = _booking(visit, connection)
    site = visit.installation.site
    entry = Event()
    host = urlsplit(site.base_url).hostname or "localhost"
    entry.add("uid", f"{hashlib.sha256(b'call/%d/%d' % (booking.id, booking.subscriber_id)).hexdigest()[:32]}@{host}")
    entry.add("dtstamp", times.wall_now)
    entry.add("dtstart", booking.starts_at)
    entry.add("dtend", booking.ends_at)
    entry.add("sequence", booking.revision - 1)
    entry.add("summary", site.consultation.title)
    entry.add("description", f"The call comes from {site.consultation.caller_id}.")
    entry.add("status", "CANCELLED" if booking.state == "canceled" else "CONFIRMED")
    entry.add("class", "PRIVATE")
    whole = Calendar()
    whole.add("prodid", "-//Dripwell//Phone call//EN")
    whole.add("version", "2.0")
    whole.add("method", "PUBLISH")
    whole.add_component(entry)
    headers = {"content-disposition": 'attachment; filename="phone-call.ics"'}
    return Response(whole.to_ical(), media_type="text/calendar", headers=headers)


def _booking(visit: Visit, connection: Connection) -> Booking:
    identity = visit.identity(Purpose.CALL)
    found = bookings.by_id(connection, identity) if identity < 2**63 else None
    if found is None:
        raise InvalidTokenError("there is no such call")
    return found


def _show(visit: Visit, booking: Booking, times: Times) -> Response:
    if booking.state == "canceled":
        title = "This call is canceled"
    elif times.now >= booking.starts_at:
        title = "This call is over"
    else:
        title = "Your call is booked"
    return visit.look.page(
        "call.html",
        title,
        call=_call_path(visit),
        booking=booking,
        zone=ZoneInfo(booking.timezone),
        is_open=book.is_open(booking, times.now),
    )


def _change(visit: Visit, connection: Connection) -> Response:
    times = visit.times(connection)
    booking = _booking(visit, connection)
    sheet = _sheet(visit, booking)
    if sheet.start is None:
        slots = _free(visit, connection, booking, sheet, times)
        return times_page(visit, sheet, slots, note="Choose one of these times.", old=_slot(booking))
    result = book.change(connection, diary(visit), booking_id=booking.id, start=sheet.start, zone=ZoneInfo(sheet.zone))
    match result:
        case Booked():
            return RedirectResponse(_call_path(visit), status_code=303)
        case Gone(nearest):
            slots = _free(visit, connection, booking, sheet, times)
            return _gone(visit, sheet, slots, nearest, _slot(booking))
        case None:
            return _show(visit, booking, times)


def _gone(visit: Visit, sheet: Sheet, slots: tuple[Slot, ...], nearest: tuple[Slot, ...], old: Slot) -> Response:
    note = "Somebody else has just taken that time. These are the nearest free times; your call stands as it was."
    return times_page(visit, sheet.without_time(), slots, note=note, offer=nearest, old=old)


def _free(visit: Visit, connection: Connection, booking: Booking, sheet: Sheet, times: Times) -> tuple[Slot, ...]:
    zone = ZoneInfo(sheet.zone)
    slots = book.free(connection, visit.installation.site, zone, times.now, besides=booking.id)
    others = tuple(slot for slot in slots if slot.start != booking.start_minute)
    return book.not_held(others, visit.installation.fast, booking.subscriber_id)


def _sheet(visit: Visit, booking: Booking) -> Sheet:
    return read_zone(visit, booking.timezone)


def _slot(booking: Booking) -> Slot:
    return Slot(booking.start_minute, booking.minutes)


def _call_path(visit: Visit) -> str:
    return f"/b/call/{visit.word}"
