-- Reading fast: what ingest and the planner need of the record at size.

-- The auditor's questions about silence are asked by the time of the call.
CREATE INDEX batch_called ON batch (called_at) WHERE outcome = 'accepted';
-- Webhooks that were set aside are few among many that are done.
CREATE INDEX webhook_inbox_aside ON webhook_inbox (id) WHERE state = 'quarantined';
-- Ingest reads and marks rows in the order they came; both tables change in a corner only.
ALTER TABLE webhook_inbox SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- The planner picks one campaign at a time, so that a million people due in a paused one are never read past.
DROP INDEX enrollment_due;
CREATE INDEX enrollment_due ON enrollment (campaign_id, next_due_at, id) WHERE state = 'waiting';
-- What was decided too long ago to be sent on that word (T16).
CREATE INDEX message_stale ON message (campaign_id, fresh_until) WHERE state = 'PLANNED' AND lane IN ('drip', 'newsletter');
-- Every decision rewrites an enrollment: its dead rows are removed as those of message and batch are.
ALTER TABLE enrollment SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
-- How far wall time may be ahead of Redis, since a person looked and said that wall time is right.
ALTER TABLE installation ADD COLUMN clock_accepted interval NOT NULL DEFAULT '0';

-- Leaving in one statement: an unsubscribe is answered while somebody waits, and a dead mailing list bounces by the
-- thousand. Each statement in here sees what was committed before it, as if the statements had come one by one.
CREATE FUNCTION suppress_person(
  who bigint, in_scope text, why text, from_where text, proof text, then_state text, at_campaign timestamptz
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  person_hash bytea;
  passages bigint[];
  planned bigint[];
  standing bigint;
BEGIN
  SELECT addr_hash INTO person_hash FROM subscriber WHERE id = who;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  -- Lock order: enrollments by id, then messages by id.
  passages := ARRAY(SELECT enrollment.id
                      FROM enrollment JOIN campaign ON campaign.id = enrollment.campaign_id
                     WHERE enrollment.subscriber_id = who AND enrollment.state IN ('waiting', 'mailing')
                       AND (in_scope = 'all'
                            OR campaign.kind IN ('drip', 'newsletter')
                               AND in_scope IN ('marketing', 'topic:' || campaign.topic, 'campaign:' || campaign.name))
                     ORDER BY enrollment.id
                       FOR UPDATE OF enrollment);
  IF person_hash IS NOT NULL THEN
    SELECT max(seq) INTO standing
      FROM suppression
     WHERE addr_hash = person_hash AND scope = in_scope AND action = 'suppress' AND reason = why AND source = from_where
       AND seq > coalesce((SELECT max(seq) FROM suppression
                            WHERE addr_hash = person_hash AND scope = in_scope AND action = 'lift'), 0);
    IF standing IS NULL THEN
      INSERT INTO suppression (addr_hash, scope, action, reason, source, evidence)
      VALUES (person_hash, in_scope, 'suppress', why, from_where, proof)
      RETURNING seq INTO standing;
      INSERT INTO outbox (kind, detail)
      VALUES ('suppression', jsonb_build_object('addr_hash', encode(person_hash, 'hex'), 'scope', in_scope));
    END IF;
  END IF;
  IF passages <> '{}' THEN
    -- T15. A message that a batch already holds is left to that batch: its final check sees the ended enrollment.
    planned := ARRAY(SELECT id FROM message
                      WHERE enrollment_id = ANY(passages) AND state = 'PLANNED' ORDER BY id FOR UPDATE);
    IF planned <> '{}' THEN
      UPDATE message SET state = 'SUPPRESSED', reason = why, updated_at = wall() WHERE id = ANY(planned);
      INSERT INTO message_log (message_id, transition, actor, reason)
      SELECT id, 'T15', from_where, why FROM unnest(planned) AS id;
    END IF;
    UPDATE enrollment SET state = 'exited', ended_reason = why, ended_at = at_campaign, waits_for = NULL
     WHERE id = ANY(passages);
  END IF;
  IF in_scope IN ('all', 'marketing') THEN
    UPDATE subscriber SET state = then_state
     WHERE id = who AND state <> then_state AND state <> 'erased' AND (state <> 'undeliverable' OR then_state = 'active');
  END IF;
  RETURN coalesce(standing, 0);
END $$;
COMMENT ON FUNCTION suppress_person IS 'Stops everything in a scope for one person, now. The number of the ledger row, 0 for an erased person, NULL for none.';
