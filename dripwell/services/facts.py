"""What one email may say about one person: fields, signed words and, in service emails, the facts of the call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from dripwell.content.render import Person, Skeleton
from dripwell.core.campaign import Site
from dripwell.core.tokens import Keys, Purpose, sign
from dripwell.services.versions import Published
from dripwell.storage import bookings
from dripwell.storage.bookings import Booking
from dripwell.storage.database import Connection
from dripwell.storage.messages import Addressee

REVISIONS = 1000
"""A booking email's round is booking id x 1,000 + revision: each change of a call has emails of its own."""

_BY_MESSAGE = frozenset({Purpose.CLICK, Purpose.VIEW, Purpose.UNSUBSCRIBE, Purpose.PREFERENCES, Purpose.BOOK})
ALL_PURPOSES = frozenset(Purpose)


def round_of(booking: Booking) -> int:
    """The round of this booking's emails in its present revision."""
    return booking.id * REVISIONS + booking.revision


def purposes_of(skeleton: Skeleton | None, *, marketing: bool) -> frozenset[Purpose]:
    """The links whose words this email needs: signing those of all doors for everybody would be half the work.

    None: an email that is rendered for each person may need any.
    """
    if skeleton is None:
        return ALL_PURPOSES
    used = {Purpose(slot.expression) for slot in skeleton.slots if slot.kind == "url"}
    return frozenset(used | {Purpose.UNSUBSCRIBE} if marketing else used)


def person(
    published: Published,
    keys: Keys,
    addressee: Addressee,
    extra: Mapping[str, str],
    wall_now: datetime,
    purposes: frozenset[Purpose] = ALL_PURPOSES,
) -> Person:
    """One addressee's values for rendering, with words for the links of these purposes. They carry opaque ids only."""
    words = {one.value: sign(keys, one, addressee.id, wall_now) for one in purposes if one in _BY_MESSAGE}
    if Purpose.CONFIRM in purposes:
        words[Purpose.CONFIRM.value] = sign(keys, Purpose.CONFIRM, addressee.enrollment_id, wall_now)
    if Purpose.CALL in purposes:
        words[Purpose.CALL.value] = sign(keys, Purpose.CALL, addressee.round // REVISIONS, wall_now)
    zone = ZoneInfo(published.site.clinic.timezone)
    fields = {name: str(value) for name, value in addressee.fields.items()}
    fields["email"] = addressee.address
    return Person(fields=fields, words=words, extra=extra, reason_date=long_date(addressee.joined_at.astimezone(zone)))


def extras(
    connection: Connection, published: Published, key: str, addressees: Sequence[Addressee]
) -> dict[int, dict[str, str]]:
    """What the service emails of these messages tell beyond the person, by message id."""
    name = published.campaign.name
    if name == "confirm":
        return {a.id: _asked_for(published.site, a) for a in addressees}
    if name == "booking":
        found: dict[int, dict[str, str]] = {}
        for addressee in addressees:
            booking = bookings.by_id(connection, addressee.round // REVISIONS)
            if booking is not None:
                found[addressee.id] = call(booking)
        return found
    return {}


def call(booking: Booking) -> dict[str, str]:
    """A booked call in words, in the person's own time zone."""
    local = booking.starts_at.astimezone(ZoneInfo(booking.timezone))
    voicemail = (
        "If you don’t answer, we leave a short voicemail." if booking.voicemail else "We don’t leave a voicemail."
    )
    return {
        "call_day": f"{local:%A, %B} {local.day}",
        "call_time": clock_time(local),
        "call_zone": f"{local:%Z}" if not f"{local:%Z}".startswith(("+", "-")) else booking.timezone,
        "phone": booking.phone,
        "phone_masked": f"•••• {booking.phone[-2:]}",
        "voicemail_line": voicemail,
    }


def _asked_for(site: Site, addressee: Addressee) -> dict[str, str]:
    form = next((form for form in site.forms if form.name == addressee.fields.get("form")), None)
    topic = site.topic(form.topic) if form else (site.topics[0] if site.topics else None)
    return {"topic_title": topic.title if topic else "", "topic_about": topic.about if topic else ""}


def long_date(moment: datetime) -> str:
    """`October 22, 2026`."""
    return _written(moment.date())


@lru_cache(maxsize=1000)
def _written(day: date) -> str:
    # A thousand people of one call joined on a handful of days.
    return f"{day:%B} {day.day}, {day.year}"


def clock_time(moment: datetime) -> str:
    """`9:15 AM`."""
    return f"{moment.hour % 12 or 12}:{moment:%M} {moment:%p}"
