-- Sending under faults: finding one bad row among many, additive growth of batches, and who a provider may mail.

-- A refused call that names no row is split: `suspect_of` is the refused batch whose culprit these messages may hold.
ALTER TABLE message ADD COLUMN suspect_of bigint REFERENCES batch;
-- How often the fast set called this address suppressed and the ledger said no.
ALTER TABLE message ADD COLUMN doubts integer NOT NULL DEFAULT 0;
CREATE INDEX message_suspect ON message (lane, suspect_of) WHERE suspect_of IS NOT NULL AND state IN ('PLANNED', 'IN_BATCH');

ALTER TABLE batch ADD COLUMN suspects_of bigint REFERENCES batch;
COMMENT ON COLUMN batch.suspects_of IS 'This call is a part of that refused batch, to find who in it is refused.';
-- Campaign time, like message.accepted_at: what a day has accepted is a sum over few rows.
ALTER TABLE batch ADD COLUMN accepted_at timestamptz;
CREATE INDEX batch_accepted ON batch (accepted_at) WHERE accepted_at IS NOT NULL;

-- Below the threshold a batch limit doubles, above it grows by a step; after a bad end the threshold is half.
ALTER TABLE lane_state ADD COLUMN batch_threshold integer NOT NULL DEFAULT 1000 CHECK (batch_threshold BETWEEN 1 AND 1000);
-- While the breaker is half open, one call tries; until then nobody else does.
ALTER TABLE lane_state ADD COLUMN trial_until timestamptz;

-- Whom a provider without a business associate agreement must not mail.
ALTER TABLE subscriber ADD COLUMN relationship text NOT NULL DEFAULT 'prospect'
  CHECK (relationship IN ('prospect', 'patient', 'unknown'));

-- The database's clock against time that only runs forward: a jump stops planning until a person says it is right.
ALTER TABLE installation ADD COLUMN wall_seen timestamptz;
ALTER TABLE installation ADD COLUMN clock_alarm text;

-- Whoever called had begun by then, so the time that evidence may take counts from here, and not from the mark.
ALTER TABLE batch ADD COLUMN unknown_at timestamptz;

-- The provider named who is at fault: others in the call are not in doubt for it.
ALTER TABLE batch ADD COLUMN refused_row integer;
