"""V1 to V11 of the record: each statement returns no row, ever. A row is an alarm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import text

from dripwell.storage.database import Connection

STATEMENTS: Mapping[str, str] = {
    "V1 nobody twice": """
SELECT mid FROM batch b CROSS JOIN LATERAL unnest(b.message_ids) AS mid
 WHERE b.kind = 'messages' AND (b.state IN ('CALLING', 'UNKNOWN') OR b.outcome = 'accepted'
    OR (b.outcome = 'held' AND NOT EXISTS (SELECT FROM message_log l
         WHERE l.message_id = mid AND l.batch_id = b.id AND l.transition = 'T14')))
 GROUP BY mid HAVING count(*) > 1""",
    "V2 nothing stuck": """
SELECT id FROM batch WHERE (state = 'OPEN' AND lease_until < wall() - interval '60 s')
    OR (state = 'CALLING' AND called_at < wall() - interval '120 s')
    OR (state = 'UNKNOWN' AND called_at < wall() - interval '25 h')
UNION ALL
SELECT m.batch_id FROM message m LEFT JOIN batch b ON b.id = m.batch_id
 WHERE m.state = 'IN_BATCH' AND (b.id IS NULL OR b.state = 'DONE')""",
    "V3 every enrollment in one place": """
SELECT e.id FROM enrollment e LEFT JOIN message m ON m.enrollment_id = e.id AND m.state IN ('PLANNED', 'IN_BATCH', 'HELD')
 GROUP BY e.id HAVING (e.state = 'mailing' AND count(m.id) <> 1) OR (e.state = 'waiting' AND count(m.id) > 0)
    OR (e.state IN ('finished', 'exited') AND bool_or(m.state = 'PLANNED'))""",
    "V3 nothing due and forgotten": """
SELECT e.id FROM enrollment e JOIN campaign c ON c.id = e.campaign_id AND c.state = 'running' CROSS JOIN installation i
 WHERE e.state = 'waiting' AND e.waits_for IS NULL AND e.next_due_at < wall() + i.campaign_offset - interval '1 h'""",
    "V4 nobody after an unsubscribe": """
SELECT b.id, m.id AS message_id FROM batch b CROSS JOIN LATERAL unnest(b.message_ids) AS mid
  JOIN message m ON m.id = mid JOIN campaign c ON c.id = b.campaign_id
  JOIN suppression s ON s.addr_hash = m.addr_hash AND s.action = 'suppress'
   AND s.scope = ANY (CASE WHEN b.lane IN ('drip', 'newsletter')
       THEN ARRAY['all', 'marketing', 'topic:' || c.topic, 'campaign:' || c.name] ELSE ARRAY['all'] END)
 WHERE b.kind = 'messages' AND pg_visible_in_snapshot(s.xid, b.checked_snapshot)
   AND NOT EXISTS (SELECT FROM suppression l WHERE l.addr_hash = s.addr_hash AND l.scope = s.scope
       AND l.action = 'lift' AND l.seq > s.seq AND pg_visible_in_snapshot(l.xid, b.checked_snapshot))""",
    "V5 accepted has its proof": """
SELECT m.id FROM message m WHERE m.state = 'ACCEPTED' AND NOT EXISTS (
  SELECT FROM batch b WHERE b.id = m.batch_id AND b.outcome = 'accepted' AND m.id = ANY (b.message_ids))""",
    "V9 gap and weekly limit": """
SELECT subscriber_id FROM (SELECT subscriber_id, accepted_at - lag(accepted_at, 1) OVER w AS gap,
    accepted_at - lag(accepted_at, 3) OVER w AS fourth FROM message
   WHERE accepted_at IS NOT NULL AND lane IN ('drip', 'newsletter')
  WINDOW w AS (PARTITION BY subscriber_id ORDER BY accepted_at)) AS t
 WHERE gap < interval '20 h' OR fourth < interval '7 days'""",
    "V10 a text is its own campaign's": """
SELECT b.id FROM batch b JOIN campaign_version v ON v.id = b.version_id WHERE v.campaign_id <> b.campaign_id""",
    "V11 erased is erased": """
SELECT s.id FROM subscriber s WHERE s.state = 'erased' AND (s.address IS NOT NULL OR s.addr_hash IS NOT NULL
   OR s.fields <> '{}' OR EXISTS (SELECT FROM message m WHERE m.subscriber_id = s.id AND m.addr_hash IS NOT NULL))""",
}


def broken(connection: Connection) -> dict[str, list[Any]]:
    """Run every invariant; returns the rows of those that do not hold, by name. Empty: all is well."""
    found = {}
    for name, statement in STATEMENTS.items():
        rows = connection.execute(text(statement + " LIMIT 20")).all()
        if rows:
            found[name] = [tuple(row) for row in rows]
    return found
