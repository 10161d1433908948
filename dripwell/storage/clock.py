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


def read(connection: Connection) -> Times:
    """Read both clocks in one statement."""
    row = connection.execute(
        text(
            "SELECT w AS wall_now, w + campaign_offset AS now FROM installation, LATERAL (SELECT wall() AS w) AS clock"
        )
    ).one()
    return Times(row.wall_now, row.now)


def forward(connection: Connection, to: datetime) -> Times:
    """Move campaign time forward to `to`; never back. Returns both clocks afterwards."""
    connection.execute(
        text("UPDATE installation SET campaign_offset = greatest(campaign_offset, :to - wall())"), {"to": to}
    )
    return read(connection)


def offset(connection: Connection) -> timedelta:
    """How far campaign time is ahead of wall time: zero in production."""
    value: timedelta = connection.execute(text("SELECT campaign_offset FROM installation")).scalar_one()
    return value
