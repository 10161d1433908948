"""Booked calls. The exclusion constraint `booking_no_double` is the promise; everything else here is courtesy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from dripwell.storage.database import Connection, violated

HOST = 1
"""The one diary of stage 1."""


@dataclass(frozen=True, slots=True)
class Booking:
    """A call, booked or canceled. `start_minute` counts from 1970 in campaign time; each change raises `revision`."""

    id: int
    subscriber_id: int
    message_id: int | None
    start_minute: int
    minutes: int
    state: str
    revision: int
    ask_for: str
    phone: str
    voicemail: bool
    timezone: str
    booked_at: datetime

    @property
    def starts_at(self) -> datetime:
        """When the call starts, aware UTC, campaign time."""
        return datetime.fromtimestamp(self.start_minute * 60, UTC)

    @property
    def ends_at(self) -> datetime:
        """When the call is over at the planned length."""
        return self.starts_at + timedelta(minutes=self.minutes)


_COLUMNS = (
    "id, subscriber_id, message_id, start_minute, minutes, state, revision,"
    " ask_for, phone, voicemail, timezone, booked_at"
)
_BY_ID = text(f"SELECT {_COLUMNS} FROM booking WHERE id = :id")


def by_id(connection: Connection, booking_id: int) -> Booking | None:
    """The booking with this id."""
    row = connection.execute(_BY_ID, {"id": booking_id}).one_or_none()
    return None if row is None else Booking(**row._mapping)


# lock_diary: one at a time may change this host's calls. Bookings are rare, and without it two people who want one
# slot would meet inside the exclusion constraint and deadlock there.
_LOCK_DIARY = text("SELECT pg_advisory_xact_lock(hashtextextended('dripwell.diary', :host))")


def lock_diary(connection: Connection, host: int = HOST) -> None:
    """Keep others from changing this diary until the transaction ends."""
    connection.execute(_LOCK_DIARY, {"host": host})


_UPCOMING = text(f"""
SELECT {_COLUMNS} FROM booking
 WHERE subscriber_id = :subscriber_id AND state = 'booked' AND start_minute > :minute
 ORDER BY start_minute LIMIT 1
""")


def upcoming(connection: Connection, subscriber_id: int, minute: int) -> Booking | None:
    """This person's next call that starts after `minute`."""
    row = connection.execute(_UPCOMING, {"subscriber_id": subscriber_id, "minute": minute}).one_or_none()
    return None if row is None else Booking(**row._mapping)


_UPCOMING_ALL = text(f"""
SELECT {_COLUMNS} FROM booking
 WHERE state = 'booked' AND start_minute + minutes > :minute
 ORDER BY start_minute
""")


def upcoming_all(connection: Connection, minute: int) -> list[Booking]:
    """Every booked call that is not over at `minute`, in order."""
    return [Booking(**row._mapping) for row in connection.execute(_UPCOMING_ALL, {"minute": minute})]


# taken: what is booked in a stretch of time, written so that the exclusion constraint's index answers it.
_TAKEN = text("""
SELECT start_minute, start_minute + minutes AS end_minute FROM booking
 WHERE state = 'booked' AND id <> :except
   AND span && int8range(CAST(:host AS bigint) * 1000000000 + :first, CAST(:host AS bigint) * 1000000000 + :last)
 ORDER BY start_minute
""")


def taken(
    connection: Connection, first: int, last: int, *, host: int = HOST, besides: int = 0
) -> list[tuple[int, int]]:
    """The booked [start, end) minutes that touch [first, last), in order; the booking `besides` is left out."""
    rows = connection.execute(_TAKEN, {"host": host, "first": first, "last": last, "except": besides})
    return [(row.start_minute, row.end_minute) for row in rows]


_ADD = text("""
INSERT INTO booking (subscriber_id, message_id, host_id, start_minute, minutes, ask_for, phone, voicemail, timezone,
                     wording, booked_at)
VALUES (:subscriber_id, :message_id, :host, :start_minute, :minutes, :ask_for, :phone, :voicemail, :timezone,
        :wording, :now)
RETURNING id
""")


def add(
    connection: Connection,
    *,
    subscriber_id: int,
    message_id: int | None,
    start_minute: int,
    minutes: int,
    ask_for: str,
    phone: str,
    voicemail: bool,
    timezone: str,
    wording: str,
    now: datetime,
    host: int = HOST,
) -> int | None:
    """Book a call and return its id, or None when the time is taken. The caller's transaction goes on either way."""
    values = {
        "subscriber_id": subscriber_id,
        "message_id": message_id,
        "host": host,
        "start_minute": start_minute,
        "minutes": minutes,
        "ask_for": ask_for,
        "phone": phone,
        "voicemail": voicemail,
        "timezone": timezone,
        "wording": wording,
        "now": now,
    }
    try:
        with connection.begin_nested():
            identity: int = connection.execute(_ADD, values).scalar_one()
    except IntegrityError as error:
        if violated(error) == "booking_no_double":
            return None
        raise
    return identity


_MOVE = text("""
UPDATE booking SET start_minute = :start_minute, minutes = :minutes, timezone = :timezone, revision = revision + 1
 WHERE id = :id AND state = 'booked' AND revision = :revision
""")


def move(
    connection: Connection, booking_id: int, revision: int, *, start_minute: int, minutes: int, timezone: str
) -> bool:
    """Give a booked call another time. False: the time is taken, or the booking is no longer at `revision`."""
    values = {
        "id": booking_id,
        "revision": revision,
        "start_minute": start_minute,
        "minutes": minutes,
        "timezone": timezone,
    }
    try:
        with connection.begin_nested():
            return connection.execute(_MOVE, values).rowcount == 1
    except IntegrityError as error:
        if violated(error) == "booking_no_double":
            return False
        raise


_CANCEL = text("UPDATE booking SET state = 'canceled', revision = revision + 1 WHERE id = :id AND state = 'booked'")


def cancel(connection: Connection, booking_id: int) -> bool:
    """Cancel a booked call; False when it was not booked any more."""
    return connection.execute(_CANCEL, {"id": booking_id}).rowcount == 1


_WISH = text("""
INSERT INTO call_wish (subscriber_id, phone, words, at)
SELECT :subscriber_id, :phone, :words, :now
 WHERE (SELECT count(*) FROM call_wish WHERE subscriber_id = :subscriber_id AND at > :since) < :most
RETURNING id
""")


def wish(
    connection: Connection, *, subscriber_id: int, phone: str, words: str, now: datetime, since: datetime, most: int
) -> int | None:
    """Keep when suits a person, in their words; None when they left `most` such wishes since `since` already."""
    values = {"subscriber_id": subscriber_id, "phone": phone, "words": words, "now": now, "since": since, "most": most}
    found: int | None = connection.execute(_WISH, values).scalar()
    return found


# service_enrollments: the open enrollments of one round of the booking emails.
_SERVICE_ENROLLMENTS = text("""
SELECT enrollment.id
  FROM enrollment JOIN campaign ON campaign.id = enrollment.campaign_id
 WHERE enrollment.subscriber_id = :subscriber_id AND campaign.name = 'booking' AND enrollment.round = :round
   AND enrollment.state IN ('waiting', 'mailing')
""")


def service_enrollments(connection: Connection, subscriber_id: int, round: int) -> list[int]:
    """The enrollment whose booking email of this round is not mailed yet, if there is one."""
    values = {"subscriber_id": subscriber_id, "round": round}
    return list(connection.execute(_SERVICE_ENROLLMENTS, values).scalars())


# wishes: what people wrote who found no time, the newest first. A wish is answered by a call that was booked later.
_WISHES = text("""
SELECT call_wish.id, call_wish.phone, call_wish.words, call_wish.at
  FROM call_wish
 WHERE NOT EXISTS (SELECT FROM booking
                    WHERE booking.subscriber_id = call_wish.subscriber_id AND booking.booked_at > call_wish.at)
 ORDER BY call_wish.at DESC, call_wish.id DESC
 LIMIT :limit
""")


def wishes(connection: Connection, limit: int) -> list[Any]:
    """The newest unanswered wishes: id, phone, words (the person's own, escape them), at (campaign time)."""
    return list(connection.execute(_WISHES, {"limit": limit}))
