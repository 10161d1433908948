-- Restore: witnesses, quarantine and the epochs of the call journal.

-- While `quarantined_at` is set nobody is called: it is asked in the claim, in the mark and in the final check.
ALTER TABLE installation ADD COLUMN quarantined_at timestamptz;
ALTER TABLE installation ADD COLUMN quarantine_reason text;
-- When the journals of lost calls were replayed in this quarantine.
ALTER TABLE installation ADD COLUMN replayed_at timestamptz;
ALTER TABLE installation ADD CHECK ((quarantined_at IS NULL) = (quarantine_reason IS NULL));
-- Batches of this epoch have a greater id. An epoch begins with a quarantine.
ALTER TABLE installation ADD COLUMN epoch_batch bigint NOT NULL DEFAULT 0;
-- Whose witnesses speak about this record; given at the first start, so that no two copies of a template share it.
ALTER TABLE installation ADD COLUMN identity uuid;
-- The cluster whose transaction ids `suppression.xid` and `batch.checked_snapshot` are.
ALTER TABLE installation ADD COLUMN system_identifier text;

-- A dump that is loaded into another cluster brings transaction ids that mean nothing there, so they are written anew:
-- in quarantine, and nothing else of a row may change.
CREATE FUNCTION refuse_change_of_fact() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE'
     AND ROW(NEW.seq, NEW.addr_hash, NEW.scope, NEW.action, NEW.reason, NEW.source, NEW.evidence, NEW.at)
         IS NOT DISTINCT FROM ROW(OLD.seq, OLD.addr_hash, OLD.scope, OLD.action, OLD.reason, OLD.source, OLD.evidence, OLD.at)
     AND EXISTS (SELECT FROM installation WHERE quarantined_at IS NOT NULL) THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
DROP TRIGGER append_only ON suppression;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON suppression FOR EACH ROW EXECUTE FUNCTION refuse_change_of_fact();

-- Calls made before there was a journal have no line in it.
UPDATE installation SET epoch_batch = coalesce((SELECT max(id) FROM batch), 0);
-- When a batch came back out of a journal: from then on evidence for it is waited for.
ALTER TABLE batch ADD COLUMN replayed_at timestamptz;
