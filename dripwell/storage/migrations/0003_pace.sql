-- Warm-up and reputation: what slows a lane, a campaign or a mailbox group.

-- How many a call was for, where it can be read without the ids themselves: they lie outside of the row.
ALTER TABLE batch ADD COLUMN people integer GENERATED ALWAYS AS (cardinality(message_ids)) STORED;
UPDATE batch SET accepted_at = resolved_at + (SELECT campaign_offset FROM installation)
 WHERE outcome = 'accepted' AND accepted_at IS NULL;
-- What a day or an hour has accepted, over all campaigns and of one.
CREATE INDEX batch_marketing ON batch (accepted_at) INCLUDE (people)
 WHERE accepted_at IS NOT NULL AND kind = 'messages' AND lane IN ('drip', 'newsletter');

-- Who came too late, of the few messages that ever can: service mail. The others are in no such index.
CREATE INDEX message_expiring ON message (lane, valid_until) WHERE state = 'PLANNED' AND valid_until < 'infinity';

-- Why a receiving server turned a message away, when that is about us and not about the person: its reputation of us or
-- our volume (`reputation`), or no proof of who we are (`identity`). The classes are those of rules 2.6 and 4.5.
ALTER TABLE provider_event ADD COLUMN trouble text GENERATED ALWAYS AS (
  CASE WHEN type <> 'bounced' THEN NULL
       WHEN (coalesce(detail ->> 'status', '') || ' ' || coalesce(detail ->> 'reason', '')) ~ '\m5\.7\.(515|15)\M' THEN 'identity'
       WHEN detail ->> 'bounce_classification' ~* '^\s*(reputation|frequency)' THEN 'reputation' END) STORED;
-- The few events that breakers count. Deliveries are counted by what was accepted: no index on `message.delivery`, or
-- every one of its changes would write all indexes of its row.
CREATE INDEX provider_event_harm ON provider_event (campaign_at) WHERE type IN ('bounced', 'complained');

-- What a breaker closed and a person opens again. Scopes: lane:drip, group:gmail, campaign:7, ramp. Rows are kept: how
-- long a warm-up stood still, and where the windows of a breaker begin anew.
CREATE TABLE brake (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  scope           text NOT NULL CHECK (scope ~ '^(lane:[a-z]+|group:[a-z]+|campaign:[0-9]+|ramp)$'),
  reason          text NOT NULL,
  detail          jsonb NOT NULL DEFAULT '{}',
  since           timestamptz NOT NULL,
  released_at     timestamptz,
  released_by     text,
  released_reason text,
  CHECK ((released_at IS NULL) = (released_by IS NULL)),
  CHECK ((released_at IS NULL) = (released_reason IS NULL))
);
COMMENT ON COLUMN brake.since IS 'Campaign time, like released_at.';
CREATE UNIQUE INDEX brake_on ON brake (scope) WHERE released_at IS NULL;

-- When somebody last looked, and until when a long silence is being caught up on. Wall time.
CREATE TABLE pace_state (
  one            boolean PRIMARY KEY DEFAULT true CHECK (one),
  seen_at        timestamptz NOT NULL DEFAULT wall(),
  watched_at     timestamptz NOT NULL DEFAULT '-infinity',
  silent_since   timestamptz,
  catch_up_until timestamptz,
  CHECK ((silent_since IS NULL) = (catch_up_until IS NULL))
) WITH (fillfactor = 50);
INSERT INTO pace_state DEFAULT VALUES;
