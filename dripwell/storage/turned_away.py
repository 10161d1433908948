"""What became of the emails to one person, for the question whether the mailbox is still there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import text

from dripwell.core.bounces import Turned, is_mailbox_unavailable
from dripwell.storage import arrays
from dripwell.storage.database import Connection

# history: bounces and deliveries of late, in campaign time.
_HISTORY = text("""
SELECT message.subscriber_id, event.message_id, event.campaign_at, event.type,
       coalesce(event.detail ->> 'bounce_classification', '') AS classification,
       coalesce(event.detail ->> 'status', '') AS status
  FROM message JOIN provider_event AS event ON event.message_id = message.id
 WHERE message.subscriber_id = ANY(CAST(:ids AS bigint[]))
   AND event.type IN ('bounced', 'delivered') AND event.campaign_at >= :since
 ORDER BY event.campaign_at, event.id
""")


def history(connection: Connection, people: Sequence[int], now: datetime, within: timedelta) -> dict[int, list[Turned]]:
    """Of each of these people, the emails that were delivered or that found the mailbox unavailable, oldest first."""
    found: dict[int, list[Turned]] = defaultdict(list)
    if people:
        values = {"ids": arrays.numbers(sorted(set(people))), "since": now - within}
        for row in connection.execute(_HISTORY, values):
            if row.type == "delivered":
                found[row.subscriber_id].append(Turned(row.message_id, row.campaign_at, delivered=True))
            elif is_mailbox_unavailable(row.classification, row.status):
                found[row.subscriber_id].append(Turned(row.message_id, row.campaign_at))
    return found
