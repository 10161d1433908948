"""What we believe the provider has accepted, to be held against what it says itself (V8)."""

from __future__ import annotations

from sqlalchemy import text

from dripwell.storage.database import Connection


def accepted(connection: Connection) -> set[str]:
    """The public id, in hex, of every accepted message: what travels as `dw_m`."""
    rows = connection.execute(text("SELECT public_id FROM message WHERE state = 'ACCEPTED'"))
    return {row.public_id.hex for row in rows}
