-- Leaving once more.

-- As before, but for one thing: what stands already is written again for somebody who has asked to be mailed in between
-- and has not confirmed it. Otherwise their confirmation would look newer than every word against it.
CREATE OR REPLACE FUNCTION suppress_person(
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
    -- Whoever has asked anew since and leaves once more says something new: the request is overtaken by it.
    IF standing IS NULL
       OR EXISTS (SELECT FROM signup
                   WHERE signup.subscriber_id = who AND signup.confirmed_at IS NULL
                     AND signup.asked_wall > (SELECT suppression.at FROM suppression WHERE seq = standing)) THEN
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
