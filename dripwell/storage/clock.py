"""Both clocks, read from the database once per unit of work. No host's clock decides anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text

from dripwell.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Times:
    """`wall_now`: leases, retries, proofs. `now`: campaign time, everything a marketer sees. Aware UTC."""

    wall_now: datetime
    now: datetime


# read: both clocks from one reading, so that they differ by the offset exactly.
_READ = text("""
SELECT clock.wall_now, clock.wall_now + installation.campaign_offset AS now
  FROM installation, LATERAL (SELECT wall() AS wall_now) AS clock
""")


def read(connection: Connection) -> Times:
    """Read both clocks in one statement."""
    row = connection.execute(_READ).one()
    return Times(row.wall_now, row.now)


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
