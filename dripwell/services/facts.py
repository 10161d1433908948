"""What one email may say about one person: fields, signed words and, in service emails, the facts of the call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache
from operator import attrgetter
from zoneinfo import ZoneInfo

from dripwell.content.render import Person, Skeleton
from dripwell.core.campaign import Site
from dripwell.core.tokens import Keys, Purpose, signer
from dripwell.services import confirm
from dripwell.services.versions import Published
from dripwell.storage import bookings, signups
from dripwell.storage.bookings import Booking
from dripwell.storage.database import Connection
from dripwell.storage.messages import Addressee
from dripwell.storage.signups import Signup

REVISIONS = 1000
"""A booking email's round is booking id x 1,000 + revision: each change of a call has emails of its own."""

_MESSAGE: Callable[[Addressee], int] = attrgetter("id")
_IDENTITY: Mapping[Purpose, Callable[[Addressee], int]] = {
    Purpose.CLICK: _MESSAGE,
    Purpose.VIEW: _MESSAGE,
    Purpose.UNSUBSCRIBE: _MESSAGE,
    Purpose.PREFERENCES: _MESSAGE,
    Purpose.BOOK: _MESSAGE,
    Purpose.KEEP: _MESSAGE,
    Purpose.CONFIRM: attrgetter("enrollment_id"),
    Purpose.CALL: lambda addressee: addressee.round // REVISIONS,
}
"""The id that a word in an email carries, by its purpose."""
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


Signers = Mapping[str, Callable[[Addressee], str]]
"""By purpose, what makes one addressee's word for its links."""


def signers(keys: Keys, wall_now: datetime, purposes: Iterable[Purpose] = ALL_PURPOSES) -> Signers:
    """What signs the words of these purposes. Made once for everybody in a call."""
    return {purpose.value: _signer(keys, purpose, wall_now) for purpose in purposes if purpose in _IDENTITY}


def _signer(keys: Keys, purpose: Purpose, wall_now: datetime) -> Callable[[Addressee], str]:
    word, identity = signer(keys, purpose, wall_now), _IDENTITY[purpose]
    return lambda addressee: word(identity(addressee))


def person(published: Published, addressee: Addressee, extra: Mapping[str, str], signers: Signers) -> Person:
    """One addressee's values for rendering, with words for the links of these signers. They carry opaque ids only."""
    words = {purpose: word(addressee) for purpose, word in signers.items()}
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
        requests = signups.of_mails(connection, [a.enrollment_id for a in addressees])
        return {a.id: _asked_for(published.site, requests.get(a.enrollment_id)) for a in addressees}
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


def _asked_for(site: Site, request: Signup | None) -> dict[str, str]:
    asked = confirm.asked_for(request, site) if request is not None else ()
    topics = [topic for one in asked if (topic := site.topic(one.topic)) is not None] or list(site.topics[:1])
    return {
        "topic_title": "” and “".join(topic.title for topic in topics),  # the email puts the outer quotes
        "topic_about": topics[0].about if topics else "",
    }


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
