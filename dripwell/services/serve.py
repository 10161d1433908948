"""Service emails: confirmations, booked calls and staff notices, planned in the transaction that calls for them."""

from __future__ import annotations

from datetime import datetime

from dripwell.core.errors import NotFoundError
from dripwell.core.keys import message_id
from dripwell.services.versions import SERVICE_LANES
from dripwell.storage import campaigns, enrollments, messages
from dripwell.storage.database import Connection
from dripwell.storage.messages import NewMessage


def plan_service(
    connection: Connection,
    *,
    campaign: str,
    step_key: str,
    subscriber_id: int,
    round: int,
    now: datetime,
    valid_until: datetime | None = None,
) -> int:
    """Plan one service email (confirm, booking, notice) in the caller's transaction, and ring its lane on commit.

    Returns the enrollment it is mailed in.

    `round` counts the request or booking: the same round and step never makes a second message.
    """
    row = campaigns.by_name(connection, campaign)
    if row is None or row.version_id is None:
        raise NotFoundError(
            f"the service emails `{campaign}` are not stored yet: run `dripwell run` or `dripwell apply`"
        )
    enrollment_id, public_id, addr_hash = enrollments.add_service(
        connection, subscriber_id=subscriber_id, campaign_id=row.id, version_id=row.version_id, round=round, now=now
    )
    lane = SERVICE_LANES[campaign]
    messages.add_planned(
        connection,
        [
            NewMessage(
                public_id=message_id(row.public_id, public_id, step_key, round),
                enrollment_id=enrollment_id,
                subscriber_id=subscriber_id,
                campaign_id=row.id,
                step_key=step_key,
                lane=lane,
                due_at=now,
                valid_until=valid_until,
                addr_hash=addr_hash,
            )
        ],
    )
    campaigns.ring(connection, lane)
    return enrollment_id
