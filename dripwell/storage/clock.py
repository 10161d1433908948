"""Both clocks, read from the database once per unit of work. No host's clock decides anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text

from dripwell.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Times:
    """`wall_now`: leases, retries, proofs. `now`: campaign time, everything a marketer sees. Aware UTC.

    `alarm`: why nobody trusts them (`services.clockwatch`); then nobody is planned for, and no marketing lane mails.
    """

    wall_now: datetime
    now: datetime
    alarm: str | None = None


# read: both clocks from one reading, so that they differ by the offset exactly.
_READ = text("""
SELECT clock.wall_now, clock.wall_now + installation.campaign_offset AS now, installation.clock_alarm AS alarm
  FROM installation, LATERAL (SELECT wall() AS wall_now) AS clock
""")


def read(connection: Connection) -> Times:
    """Read both clocks in one statement."""
    row = connection.execute(_READ).one()
    return Times(row.wall_now, row.now, row.alarm)


# forward: the offset only grows.
_FORWARD = text("UPDATE installation SET campaign_offset = greatest(campaign_offset, :to - wall())")


def forward(connection: Connection, to: datetime) -> Times:
    """Move campaign time forward to `to`; never back. Returns both clocks afterwards."""
    connection.execute(_FORWARD, {"to": to})
    return read(connection)


# offset: campaign time minus wall time.
_OFFSET = text("SELECT campaign_offset FROM installation")


def offset(connection: Connection) -> timedelta:
    """How far campaign time is ahead of wall time: zero in production."""
    value: timedelta = connection.execute(_OFFSET).scalar_one()
    return value


@dataclass(frozen=True, slots=True)
class Watched:
    """What the record knows about its own clock. `seen`: wall time at the last look of any process."""

    wall_now: datetime
    seen: datetime | None
    alarm: str | None
    accepted: timedelta  # how far wall time may be ahead of Redis: a person looked


# watched, see: the row is small and hot, so it is written at most every five seconds.
_WATCHED = text("""
SELECT wall() AS wall_now, wall_seen AS seen, clock_alarm AS alarm, clock_accepted AS accepted
  FROM installation
""")
_SEE = text("""
UPDATE installation SET wall_seen = :wall_now
 WHERE wall_seen IS NULL OR wall_seen NOT BETWEEN CAST(:wall_now AS timestamptz) - interval '5 s' AND :wall_now
""")


def watched(connection: Connection) -> Watched:
    """Read wall time, and what is known about it."""
    return Watched(**connection.execute(_WATCHED).one()._mapping)


def see(connection: Connection, wall_now: datetime) -> None:
    """Remember that it was this late."""
    connection.execute(_SEE, {"wall_now": wall_now})


# raise_alarm: the first reason stays.
_RAISE_ALARM = text("UPDATE installation SET clock_alarm = :reason WHERE clock_alarm IS NULL")


def raise_alarm(connection: Connection, reason: str) -> bool:
    """Stop whatever follows the calendar, everywhere; False when it was stopped already."""
    return connection.execute(_RAISE_ALARM, {"reason": reason}).rowcount == 1


# accept: only what is alarmed.
_ACCEPT = text("""
UPDATE installation SET clock_alarm = NULL, clock_accepted = :ahead, wall_seen = wall()
 WHERE clock_alarm IS NOT NULL
""")


def accept(connection: Connection, ahead: timedelta) -> bool:
    """Wall time is right, a person says, and may be `ahead` of Redis; False when nobody doubted it."""
    return connection.execute(_ACCEPT, {"ahead": ahead}).rowcount == 1
