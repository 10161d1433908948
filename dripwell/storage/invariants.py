"""V1 to V11 of the record: each statement returns no row, ever. A row is an alarm.

V6, V7 and V8 need more than the record, so they are checked where the rest is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import TextClause, text

from dripwell.storage.database import Connection

# nobody_twice (V1): a message is in at most one batch whose email may have gone out. A held one counts until an
# operator has decided about it (T14).
_NOBODY_TWICE = text("""
SELECT called.message_id
  FROM batch CROSS JOIN LATERAL unnest(batch.message_ids) AS called (message_id)
 WHERE batch.kind = 'messages'
   AND (batch.state IN ('CALLING', 'UNKNOWN')
        OR batch.outcome = 'accepted'
        OR (batch.outcome = 'held'
            AND NOT EXISTS (SELECT FROM message_log
                             WHERE message_log.message_id = called.message_id AND message_log.batch_id = batch.id
                               AND message_log.transition = 'T14')))
 GROUP BY called.message_id
HAVING count(*) > 1
 LIMIT 20
""")

# nothing_stuck (V2): no batch outlives its time, and no message waits in a batch that is over.
_NOTHING_STUCK = text("""
SELECT id
  FROM batch
 WHERE (state = 'OPEN' AND lease_until < wall() - interval '60 s')
    OR (state = 'CALLING' AND called_at < wall() - interval '120 s')
    OR (state = 'UNKNOWN' AND coalesce(replayed_at, called_at) < wall() - interval '25 h')
 UNION ALL
SELECT message.batch_id
  FROM message LEFT JOIN batch ON batch.id = message.batch_id
 WHERE message.state = 'IN_BATCH' AND (batch.id IS NULL OR batch.state = 'DONE')
 LIMIT 20
""")

# one_place (V3): who is mailing has exactly one open message, who waits has none, and nothing is planned for who left.
_ONE_PLACE = text("""
SELECT enrollment.id
  FROM enrollment
  LEFT JOIN message ON message.enrollment_id = enrollment.id AND message.state IN ('PLANNED', 'IN_BATCH', 'HELD')
 GROUP BY enrollment.id
HAVING (enrollment.state = 'mailing' AND count(message.id) <> 1)
    OR (enrollment.state = 'waiting' AND count(message.id) > 0)
    OR (enrollment.state IN ('finished', 'exited') AND bool_or(message.state = 'PLANNED'))
 LIMIT 20
""")

# not_forgotten (V3): in a running campaign nobody is due for an hour without a reason to wait.
_NOT_FORGOTTEN = text("""
SELECT enrollment.id
  FROM enrollment
  JOIN campaign ON campaign.id = enrollment.campaign_id AND campaign.state = 'running'
 CROSS JOIN installation
 WHERE enrollment.state = 'waiting' AND enrollment.waits_for IS NULL
   AND enrollment.next_due_at < wall() + installation.campaign_offset - interval '1 h'
 LIMIT 20
""")

# nobody_after_leaving (V4): no suppression that the final check of a batch could see binds anybody in it, unless a
# lift that it could see as well came later.
_NOBODY_AFTER_LEAVING = text("""
SELECT batch.id, message.id AS message_id
  FROM batch
 CROSS JOIN LATERAL unnest(batch.message_ids) AS called (message_id)
  JOIN message ON message.id = called.message_id
  JOIN campaign ON campaign.id = batch.campaign_id
  JOIN suppression ON suppression.addr_hash = message.addr_hash AND suppression.action = 'suppress'
   AND suppression.scope = ANY(CASE WHEN batch.lane IN ('drip', 'newsletter')
                                    THEN ARRAY['all', 'marketing', 'topic:' || campaign.topic,
                                               'campaign:' || campaign.name]
                                    ELSE ARRAY['all'] END)
 WHERE batch.kind = 'messages' AND pg_visible_in_snapshot(suppression.xid, batch.checked_snapshot)
   AND NOT EXISTS (SELECT FROM suppression AS lift
                    WHERE lift.addr_hash = suppression.addr_hash AND lift.scope = suppression.scope
                      AND lift.action = 'lift' AND lift.seq > suppression.seq
                      AND pg_visible_in_snapshot(lift.xid, batch.checked_snapshot))
 LIMIT 20
""")

# has_proof (V5): an accepted message is in the accepted batch it names.
_HAS_PROOF = text("""
SELECT message.id
  FROM message
 WHERE message.state = 'ACCEPTED'
   AND NOT EXISTS (SELECT FROM batch
                    WHERE batch.id = message.batch_id AND batch.outcome = 'accepted'
                      AND message.id = ANY(batch.message_ids))
 LIMIT 20
""")

# gap_and_limit (V9): no two marketing emails to one person within the gap, and no more in a span than it allows.
_GAP_AND_LIMIT = text("""
SELECT subscriber_id
  FROM (SELECT subscriber_id,
               accepted_at - lag(accepted_at, 1) OVER person AS gap,
               accepted_at - lag(accepted_at, CAST(:emails AS integer)) OVER person AS over
          FROM message
         WHERE accepted_at IS NOT NULL AND lane IN ('drip', 'newsletter')
        WINDOW person AS (PARTITION BY subscriber_id ORDER BY accepted_at)) AS mailed
 WHERE mailed.gap < make_interval(secs => :gap) OR mailed.over < make_interval(secs => :per)
 LIMIT 20
""")

# own_text (V10): the version a batch was rendered from is its own campaign's.
_OWN_TEXT = text("""
SELECT batch.id
  FROM batch JOIN campaign_version ON campaign_version.id = batch.version_id
 WHERE campaign_version.campaign_id <> batch.campaign_id
 LIMIT 20
""")

# erased (V11): nothing that names the person is left.
_ERASED = text("""
SELECT subscriber.id
  FROM subscriber
 WHERE subscriber.state = 'erased'
   AND (subscriber.address IS NOT NULL
        OR subscriber.addr_hash IS NOT NULL
        OR subscriber.fields <> '{}'
        OR EXISTS (SELECT FROM message
                    WHERE message.subscriber_id = subscriber.id AND message.addr_hash IS NOT NULL))
 LIMIT 20
""")

STATEMENTS: Mapping[str, TextClause] = {
    "V1 nobody twice": _NOBODY_TWICE,
    "V2 nothing stuck": _NOTHING_STUCK,
    "V3 every enrollment in one place": _ONE_PLACE,
    "V3 nothing due and forgotten": _NOT_FORGOTTEN,
    "V4 nobody after an unsubscribe": _NOBODY_AFTER_LEAVING,
    "V5 accepted has its proof": _HAS_PROOF,
    "V9 gap and weekly limit": _GAP_AND_LIMIT,
    "V10 a text is its own campaign's": _OWN_TEXT,
    "V11 erased is erased": _ERASED,
}


@dataclass(frozen=True, slots=True)
class Pace:
    """What V9 holds everybody to: at most `emails` within `per`, and `gap` between two."""

    gap: timedelta = timedelta(hours=20)
    emails: int = 3
    per: timedelta = timedelta(days=7)


def broken(connection: Connection, pace: Pace = Pace()) -> dict[str, list[Any]]:
    """Run every invariant; returns up to 20 rows of each that does not hold, by name. Empty: all is well.

    `pace` is the installation's, from `limits` in site.yaml.
    """
    values = {"gap": pace.gap.total_seconds(), "emails": pace.emails, "per": pace.per.total_seconds()}
    found = {}
    for name, statement in STATEMENTS.items():
        rows = connection.execute(statement, values if statement is _GAP_AND_LIMIT else {}).all()
        if rows:
            found[name] = [tuple(row) for row in rows]
    return found
