"""Booking a call in three short steps: a time, where to call, a check. Each step says that nothing is booked yet.

What a person has answered so far travels in hidden fields of the next POST, so it stands in no address and no log.
Every step checks all of it again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

from starlette.responses import RedirectResponse, Response

from dripwell.core import calls
from dripwell.core.calls import Slot
from dripwell.core.tokens import Purpose, sign
from dripwell.services import book
from dripwell.services.book import Answers, Booked, Diary, Gone
from dripwell.storage import bookings, clicks
from dripwell.storage.clicks import Origin
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection
from dripwell.web.visit import Visit

CONSENT = "Call me at this number for this consultation."
STAGES = {"": (3, 4), "more": (7, 6), "all": (calls.AHEAD, 99)}
"""How many days, and how many times of each, are shown at first, after "Show more days", and after that."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """The answers so far. `start` is None until a time is chosen."""

    zone: str
    show: str = ""
    start: int | None = None
    phone: str = ""
    ask_for: str = ""
    voicemail: bool = False
    consent: bool = False

    def without_time(self) -> Sheet:
        """The same answers, the time to be chosen again."""
        return replace(self, start=None)

    @property
    def errors(self) -> dict[str, str]:
        """What is missing in step two, by field."""
        found = {}
        if book.check_phone(self.phone) is None:
            found["phone"] = "Write the number with its area code, such as (555) 010-0199."
        if not self.ask_for:
            found["ask_for"] = "Write the name we should ask for."
        if not self.consent:
            found["consent"] = "Tick this, so that we may call you."
        return found


def page(visit: Visit) -> Response:
    """GET offers times, or shows the call that is booked. POST goes a step on; only `step=book` and `step=wish` act."""
    visit.identity(Purpose.BOOK)
    step = visit.field("step")
    if visit.acts and step in ("book", "wish"):
        return visit.installation.database.retrying(
            lambda connection: (_book if step == "book" else _wish)(visit, connection)
        )
    with visit.installation.database.transaction() as connection:
        clicks.read_only(connection)  # the steps before the last change nothing either
        times = visit.times(connection)
        origin = visit.origin(connection, Purpose.BOOK, times)
        standing = bookings.upcoming(connection, origin.subscriber_id, calls.minute_of(times.now))
        if standing is not None:
            return _already(visit, standing, times)
        sheet = read_sheet(visit, origin)
        slots = _free(visit, connection, origin.subscriber_id, sheet, times)
    match step:
        case "time":
            return _after_time(visit, origin, sheet, slots)
        case "details":
            return _details(visit, sheet, sheet.errors) if sheet.errors else _check(visit, sheet)
        case "edit-details":
            return _details(visit, sheet, {})
        case "wish-form":
            return visit.look.page(
                "wish.html", "Tell us when suits you", here=visit.here, sheet=sheet, words="", errors={}
            )
        case _:
            return times_page(visit, sheet, slots)


def read_sheet(visit: Visit, origin: Origin) -> Sheet:
    """What this POST carries, or a first sheet with what we know: the zone and the first name."""
    known_name = "" if visit.acts else str(origin.fields.get("first_name", ""))[:60]
    return replace(
        read_zone(visit, origin.timezone),
        phone=visit.field("phone", 40),
        ask_for=visit.field("ask_for", 60) or known_name,
        voicemail=visit.field("voicemail") == "yes",
        consent=visit.field("consent") == "yes",
    )


def read_zone(visit: Visit, own: str | None) -> Sheet:
    """The zone, the stage and the time that this POST carries; `own` is the zone to begin with."""
    clinic = visit.installation.site.clinic.timezone
    begin = own if own and _is_zone(own) else clinic
    zone, show, start = visit.field("zone"), visit.field("show"), visit.field("t", 9)
    return Sheet(
        zone=zone if zone in {begin, clinic, *calls.OFFERED_ZONES} else begin,
        show=show if show in STAGES else "",
        start=int(start) if start.isascii() and start.isdigit() else None,
    )


def times_page(
    visit: Visit,
    sheet: Sheet,
    slots: tuple[Slot, ...],
    *,
    note: str = "",
    offer: tuple[Slot, ...] = (),
    old: Slot | None = None,
) -> Response:
    """The times to choose from; `offer` are three to begin with, `old` is the time of a call that is being moved."""
    zone = ZoneInfo(sheet.zone)
    stage = sheet.show
    if visit.field("step") == "more":
        stage = "more" if stage == "" else "all"
    days, each = STAGES[stage]
    shown = calls.by_day(slots, zone, days=days, each=each)
    site = visit.installation.site
    zones = dict.fromkeys((sheet.zone, site.clinic.timezone, *calls.OFFERED_ZONES))
    return visit.look.page(
        "times.html",
        "Choose a time",
        status=409 if note else 200,
        here=visit.here,
        sheet=replace(sheet, show=stage),
        zone=zone,
        zones=tuple(zones),
        days=shown,
        offer=offer,
        more=stage != "all" and sum(len(day.slots) for day in shown) < len(slots),
        note=note,
        old=old,
        minutes=calls.length_of(site.consultation),
    )


def diary(visit: Visit) -> Diary:
    """What the booking service needs."""
    installation = visit.installation
    return Diary(installation.site, installation.versions, installation.pepper, installation.new_id)


def call_path(visit: Visit, booking_id: int, wall_now: datetime) -> str:
    """The page of one booked call."""
    return f"/b/call/{sign(visit.installation.keys, Purpose.CALL, booking_id, wall_now)}"


def _free(visit: Visit, connection: Connection, subscriber_id: int, sheet: Sheet, times: Times) -> tuple[Slot, ...]:
    slots = book.free(connection, visit.installation.site, ZoneInfo(sheet.zone), times.now)
    return book.not_held(slots, visit.installation.fast, subscriber_id)


def _after_time(visit: Visit, origin: Origin, sheet: Sheet, slots: tuple[Slot, ...]) -> Response:
    if sheet.start is None:
        return times_page(visit, sheet, slots, note="Choose one of these times.")
    fast, site = visit.installation.fast, visit.installation.site
    is_free = sheet.start in {slot.start for slot in slots}
    if not is_free or not book.hold(fast, site, sheet.start, origin.subscriber_id):
        left = tuple(slot for slot in slots if slot.start != sheet.start)
        return _gone(visit, sheet, left, calls.nearest(left, sheet.start))
    return _check(visit, sheet) if visit.field("phone") and not sheet.errors else _details(visit, sheet, {})


def _gone(visit: Visit, sheet: Sheet, slots: tuple[Slot, ...], nearest: tuple[Slot, ...]) -> Response:
    note = "Somebody else has just taken that time. Your answers are kept; these are the nearest free times."
    return times_page(visit, sheet.without_time(), slots, note=note, offer=nearest)


def _details(visit: Visit, sheet: Sheet, errors: dict[str, str]) -> Response:
    return visit.look.page(
        "details.html",
        "Where should we call?",
        status=422 if errors else 200,
        here=visit.here,
        sheet=sheet,
        errors=errors,
        consent=CONSENT,
        when=_when(sheet),
    )


def _check(visit: Visit, sheet: Sheet) -> Response:
    return visit.look.page("check.html", "Check and book", here=visit.here, sheet=sheet, when=_when(sheet))


def _book(visit: Visit, connection: Connection) -> Response:
    times = visit.times(connection)
    origin = visit.origin(connection, Purpose.BOOK, times)
    sheet = read_sheet(visit, origin)
    phone = book.check_phone(sheet.phone)
    if sheet.start is None:
        slots = _free(visit, connection, origin.subscriber_id, sheet, times)
        return times_page(visit, sheet, slots, note="Choose one of these times.")
    if sheet.errors or phone is None:
        return _details(visit, sheet, sheet.errors)
    answers = Answers(phone, sheet.ask_for, sheet.voicemail, sheet.zone, CONSENT)
    result = book.book(
        connection,
        diary(visit),
        subscriber_id=origin.subscriber_id,
        message_id=origin.message_id,
        start=sheet.start,
        answers=answers,
    )
    match result:
        case Booked(booking, fresh) if fresh or booking.start_minute == sheet.start:
            return RedirectResponse(call_path(visit, booking.id, times.wall_now), status_code=303)
        case Booked(booking):
            return _already(visit, booking, times)
        case Gone(nearest):
            return _gone(visit, sheet, _free(visit, connection, origin.subscriber_id, sheet, times), nearest)


def _wish(visit: Visit, connection: Connection) -> Response:
    times = visit.times(connection)
    origin = visit.origin(connection, Purpose.BOOK, times)
    sheet, words = read_sheet(visit, origin), visit.field("words", 300)
    phone = book.check_phone(sheet.phone)
    errors = {name: text for name, text in sheet.errors.items() if name == "phone"}
    if not words:
        errors["words"] = "Write a day or a time of day, such as “Mondays after 5 PM”."
    if errors or phone is None:
        return visit.look.page(
            "wish.html", "Tell us when suits you", status=422, here=visit.here, sheet=sheet, words=words, errors=errors
        )
    book.wish(connection, diary(visit), subscriber_id=origin.subscriber_id, phone=phone, words=words)
    text = "We have your number and when suits you. Somebody calls you to agree on a time. Nothing is booked yet."
    return visit.look.page("thanks.html", "Thank you", text=text)


def _already(visit: Visit, booking: bookings.Booking, times: Times) -> Response:
    return visit.look.page(
        "already.html",
        "You have a call booked",
        booking=booking,
        zone=ZoneInfo(booking.timezone),
        call=call_path(visit, booking.id, times.wall_now),
    )


def _when(sheet: Sheet) -> tuple[datetime, ZoneInfo] | None:
    if sheet.start is None:
        return None
    return Slot(sheet.start, 0).starts_at, ZoneInfo(sheet.zone)


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True
