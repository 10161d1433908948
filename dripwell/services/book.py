"""Booking a phone call: offer times, hold one for a while, book, change, cancel, or hear what would suit instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from dripwell.core import calls
from dripwell.core.address import address_hash
from dripwell.core.calls import Slot
from dripwell.core.campaign import Site
from dripwell.core.states import Reason
from dripwell.services import facts, happen, leave, serve
from dripwell.services.versions import Versions
from dripwell.storage import bookings, clock, subscribers
from dripwell.storage.bookings import Booking
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection
from dripwell.storage.fast import Fast

MOST_CHANGES = 50
"""After so many changes of one booking, the clinic is the one to call; its emails are numbered below 1,000."""
MOST_WISHES = 3
"""How many wishes of one person a day reach the front desk."""
_PHONE = re.compile(r"\+?[0-9 ()./-]{7,30}")

NEAR = 150
"""How many of the next free times are checked for holds before a page offers them."""


@dataclass(frozen=True, slots=True)
class Diary:
    """What booking needs of this installation."""

    site: Site
    versions: Versions
    pepper: bytes
    new_id: Callable[[], UUID]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a person told us about the call. `wording` is the consent they gave to it."""

    phone: str
    ask_for: str
    voicemail: bool
    timezone: str
    wording: str


@dataclass(frozen=True, slots=True)
class Booked:
    """The call stands. `fresh` is False when it stood before."""

    booking: Booking
    fresh: bool = True


@dataclass(frozen=True, slots=True)
class Gone:
    """The time went to somebody else; these are the nearest three."""

    nearest: tuple[Slot, ...]


def free(connection: Connection, site: Site, zone: ZoneInfo, now: datetime, *, besides: int = 0) -> tuple[Slot, ...]:
    """Every slot that is not booked, seen from `zone`; `besides` is a booking that counts as free."""
    first, last = calls.bounds(now)
    taken = bookings.taken(connection, first, last, besides=besides)
    return calls.free(site.consultation, ZoneInfo(site.clinic.timezone), zone, now, taken)


def not_held(slots: tuple[Slot, ...], fast: Fast, subscriber_id: int) -> tuple[Slot, ...]:
    """Those that nobody else is just filling in the form for; all of them while that is unknown.

    Only the nearest are asked about: holds are a courtesy, and whoever chooses a far one is asked again then.
    """
    held = fast.held([_hold_key(slot.start) for slot in slots[:NEAR]], str(subscriber_id))
    return tuple(slot for slot in slots if _hold_key(slot.start) not in held) if held else slots


def hold(fast: Fast, site: Site, start: int, subscriber_id: int) -> bool:
    """Keep a time for this person while they fill in the rest; False only when somebody else surely has it."""
    return fast.hold(_hold_key(start), str(subscriber_id), site.consultation.hold.at_most()) is not False


def book(
    connection: Connection, diary: Diary, *, subscriber_id: int, message_id: int | None, start: int, answers: Answers
) -> Booked | Gone:
    """Book the call that starts at minute `start`, in the caller's transaction, with everything that follows from it.

    Somebody who has a call already keeps that one: `Booked.fresh` is False. The emails to the person and to the front
    desk are planned in the same transaction, and the goal of their series is reached.
    """
    bookings.lock_diary(connection)
    times = clock.read(connection)
    standing = bookings.upcoming(connection, subscriber_id, calls.minute_of(times.now))
    if standing is not None:
        return Booked(standing, fresh=False)
    zone = ZoneInfo(answers.timezone)
    slots = free(connection, diary.site, zone, times.now)
    slot = next((slot for slot in slots if slot.start == start), None)
    if slot is None:
        return Gone(calls.nearest(slots, start))
    booking_id = bookings.add(
        connection,
        subscriber_id=subscriber_id,
        message_id=message_id,
        start_minute=slot.start,
        minutes=slot.minutes,
        ask_for=answers.ask_for,
        phone=answers.phone,
        voicemail=answers.voicemail,
        timezone=answers.timezone,
        wording=answers.wording,
        now=times.now,
    )
    if booking_id is None:
        return Gone(calls.nearest([other for other in slots if other != slot], start))
    booking = _read_again(connection, booking_id)
    happen.record(connection, diary.versions, subscriber_id, happen.BOOKED, times)
    _tell(connection, diary, booking, "booked", times)
    return Booked(booking)


def change(
    connection: Connection, diary: Diary, *, booking_id: int, start: int, zone: ZoneInfo
) -> Booked | Gone | None:
    """Move a booked call. None: it was canceled, has started, or was changed too often."""
    bookings.lock_diary(connection)
    times = clock.read(connection)
    booking = bookings.by_id(connection, booking_id)
    if booking is None or not is_open(booking, times.now) or booking.revision > MOST_CHANGES:
        return None
    if booking.start_minute == start:
        return Booked(booking, fresh=False)
    slots = free(connection, diary.site, zone, times.now, besides=booking.id)
    slot = next((slot for slot in slots if slot.start == start), None)
    if slot is None or not bookings.move(
        connection, booking.id, booking.revision, start_minute=slot.start, minutes=slot.minutes, timezone=zone.key
    ):
        return Gone(calls.nearest([other for other in slots if other != slot], start))
    _drop_unmailed(connection, booking, times)
    moved = _read_again(connection, booking.id)
    _tell(connection, diary, moved, "changed", times)
    return Booked(moved)


def cancel(connection: Connection, diary: Diary, *, booking_id: int) -> Booking | None:
    """Cancel a call that has not started; a second time changes nothing. None: there is no such call, or it is over."""
    bookings.lock_diary(connection)
    times = clock.read(connection)
    booking = bookings.by_id(connection, booking_id)
    if booking is None or booking.state == "canceled":
        return booking
    if not is_open(booking, times.now) or not bookings.cancel(connection, booking.id):
        return None
    canceled = _read_again(connection, booking.id)
    happen.record(connection, diary.versions, booking.subscriber_id, happen.CANCELED, times)
    _drop_unmailed(connection, booking, times)
    _tell(connection, diary, canceled, "canceled", times)
    return canceled


def wish(connection: Connection, diary: Diary, *, subscriber_id: int, phone: str, words: str) -> None:
    """Keep when suits a person who found no time, and tell the front desk; more than three a day are ignored."""
    times = clock.read(connection)
    found = bookings.wish(
        connection,
        subscriber_id=subscriber_id,
        phone=phone,
        words=words,
        now=times.now,
        since=times.now - timedelta(days=1),
        most=MOST_WISHES,
    )
    if found is not None:
        # Revision 0 is no booking's, so a wish never shares a round with one.
        _notify(connection, diary, found * facts.REVISIONS, times)


def is_open(booking: Booking, now: datetime) -> bool:
    """Whether the call can still be changed or canceled: until it starts."""
    return booking.state == "booked" and now < booking.starts_at


def check_phone(text: str) -> str | None:
    """The number as typed, trimmed, or None when nobody could call it."""
    trimmed = " ".join(text.split())
    digits = sum(letter.isdigit() for letter in trimmed)
    return trimmed if _PHONE.fullmatch(trimmed) and 7 <= digits <= 15 else None


def _tell(connection: Connection, diary: Diary, booking: Booking, step: str, times: Times) -> None:
    serve.plan_service(
        connection,
        campaign="booking",
        step_key=step,
        subscriber_id=booking.subscriber_id,
        round=facts.round_of(booking),
        now=times.now,
        valid_until=max(booking.starts_at, times.now + timedelta(hours=1)),
    )
    _notify(connection, diary, facts.round_of(booking), times)


def _notify(connection: Connection, diary: Diary, round: int, times: Times) -> None:
    serve.plan_service(
        connection,
        campaign="notice",
        step_key="notice",
        subscriber_id=_front_desk(connection, diary, times),
        round=round,
        now=times.now,
    )


def _front_desk(connection: Connection, diary: Diary, times: Times) -> int:
    address = diary.site.consultation.notify
    hashed = address_hash(diary.pepper, address)
    new = subscribers.add(
        connection,
        public_id=diary.new_id(),
        address=address,
        addr_hash=hashed,
        state="active",
        timezone=None,
        fields={},
        tags=(),
        now=times.now,
    )
    if new is not None:
        return new
    known = subscribers.by_hash(connection, hashed)
    assert known is not None  # the address is taken, so its row is there
    return known.id


def _drop_unmailed(connection: Connection, booking: Booking, times: Times) -> None:
    """The email about the state before this change is not mailed any more, if it was not yet."""
    ids = bookings.service_enrollments(connection, booking.subscriber_id, facts.round_of(booking))
    leave.end(connection, enrollment_ids=ids, reason=Reason.EXPIRED, times=times, actor=leave.PAGE)


def _read_again(connection: Connection, booking_id: int) -> Booking:
    booking = bookings.by_id(connection, booking_id)
    assert booking is not None  # written a moment ago, in this transaction
    return booking


def _hold_key(start: int) -> str:
    return f"{bookings.HOST}:{start}"
