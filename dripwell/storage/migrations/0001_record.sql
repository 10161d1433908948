-- The stage-1 record. States are text with a CHECK, so a dump reads. SQL of PostgreSQL 15, no extensions.
-- Two clocks: columns that a marketer can see hold campaign time; leases, retries and proofs hold wall time.

CREATE FUNCTION wall() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
  SELECT coalesce(nullif(current_setting('dripwell.wall', true), '')::timestamptz, clock_timestamp())
$$;
COMMENT ON FUNCTION wall() IS 'The wall clock. Tests set dripwell.wall on their connection; nobody else does.';

CREATE TABLE installation (
  one                    boolean PRIMARY KEY DEFAULT true CHECK (one),
  campaign_offset        interval NOT NULL DEFAULT '0' CHECK (campaign_offset >= '0'),
  epoch                  integer NOT NULL DEFAULT 1,
  suppression_generation integer NOT NULL DEFAULT 1
);
INSERT INTO installation DEFAULT VALUES;

CREATE TABLE subscriber (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  public_id    uuid NOT NULL,
  address      text,
  addr_hash    bytea UNIQUE,
  state        text NOT NULL CHECK (state IN ('unconfirmed', 'active', 'unsubscribed', 'undeliverable', 'erased')),
  timezone     text,
  fields       jsonb NOT NULL DEFAULT '{}',
  tags         text[] NOT NULL DEFAULT '{}',
  pace         text NOT NULL DEFAULT 'planned' CHECK (pace IN ('planned', 'weekly')),
  paused_until timestamptz,
  joined_at    timestamptz NOT NULL,
  CHECK ((state = 'erased') = (address IS NULL)),
  CHECK ((address IS NULL) = (addr_hash IS NULL))
) WITH (fillfactor = 90);

-- What a person agreed to, in which words: append-only, the newest row of a topic counts.
CREATE TABLE consent (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  subscriber_id bigint NOT NULL REFERENCES subscriber,
  topic         text NOT NULL,
  action        text NOT NULL CHECK (action IN ('give', 'withdraw')),
  source        text NOT NULL,
  wording       text NOT NULL DEFAULT '',
  given_at      timestamptz NOT NULL,
  recorded_at   timestamptz NOT NULL DEFAULT wall()
);
CREATE INDEX consent_of_subscriber ON consent (subscriber_id, topic, id);

CREATE TABLE campaign (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  public_id     uuid NOT NULL UNIQUE,
  name          text NOT NULL UNIQUE,
  kind          text NOT NULL CHECK (kind IN ('drip', 'newsletter', 'service')),
  state         text NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'running', 'paused', 'stopped', 'archived')),
  topic         text NOT NULL,
  version_id    bigint,
  launch_at     timestamptz,
  enroll_cursor bigint NOT NULL DEFAULT 0,
  enroll_until  bigint NOT NULL DEFAULT 0
);

CREATE TABLE campaign_version (
  id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  campaign_id    bigint NOT NULL REFERENCES campaign,
  number         integer NOT NULL,
  definition     jsonb NOT NULL,
  structure_hash text NOT NULL,
  content_hash   text NOT NULL,
  applied_by     text NOT NULL,
  applied_at     timestamptz NOT NULL DEFAULT wall(),
  UNIQUE (campaign_id, number),
  UNIQUE (campaign_id, id)
);
ALTER TABLE campaign ADD FOREIGN KEY (id, version_id) REFERENCES campaign_version (campaign_id, id);

-- Every click link of a version: the target of a redirect comes from here, never from the query string.
CREATE TABLE link (
  version_id bigint NOT NULL REFERENCES campaign_version,
  step_key   text NOT NULL,
  number     integer NOT NULL,
  target     text NOT NULL CHECK (target = 'book' OR target LIKE 'https://%' OR target LIKE 'http://%'),
  PRIMARY KEY (version_id, step_key, number)
);

CREATE TABLE approval (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  campaign_id  bigint NOT NULL REFERENCES campaign,
  version_id   bigint NOT NULL REFERENCES campaign_version,
  content_hash text NOT NULL,
  approved_by  text NOT NULL,
  approved_at  timestamptz NOT NULL DEFAULT wall(),
  FOREIGN KEY (campaign_id, version_id) REFERENCES campaign_version (campaign_id, id)
);
CREATE INDEX approval_of_campaign ON approval (campaign_id, content_hash);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON campaign_version FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON link FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON approval FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE enrollment (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  subscriber_id bigint NOT NULL REFERENCES subscriber,
  campaign_id   bigint NOT NULL REFERENCES campaign,
  round         bigint NOT NULL DEFAULT 1,
  version_id    bigint NOT NULL,
  state         text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'mailing', 'finished', 'exited')),
  cursor_key    text,
  joined_at     timestamptz NOT NULL,
  anchor_at     timestamptz NOT NULL,
  next_due_at   timestamptz NOT NULL,
  waits_for     text,
  ended_reason  text,
  ended_at      timestamptz,
  UNIQUE (subscriber_id, campaign_id, round),
  FOREIGN KEY (campaign_id, version_id) REFERENCES campaign_version (campaign_id, id),
  CHECK ((state = 'exited') = (ended_reason IS NOT NULL)),
  CHECK ((state IN ('finished', 'exited')) = (ended_at IS NOT NULL))
) WITH (fillfactor = 85);
CREATE INDEX enrollment_due ON enrollment (next_due_at, id) WHERE state = 'waiting';
CREATE INDEX enrollment_of_campaign ON enrollment (campaign_id, state);

CREATE TABLE batch (
  id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind             text NOT NULL DEFAULT 'messages' CHECK (kind IN ('messages', 'test')),
  provider         text NOT NULL,
  lane             text NOT NULL CHECK (lane IN ('confirm', 'booking', 'drip', 'newsletter')),
  campaign_id      bigint NOT NULL REFERENCES campaign,
  step_key         text NOT NULL,
  version_id       bigint NOT NULL,
  variant          integer NOT NULL DEFAULT 0,
  state            text NOT NULL CHECK (state IN ('OPEN', 'CALLING', 'UNKNOWN', 'DONE')),
  outcome          text CHECK (outcome IN ('accepted', 'refused', 'not_sent', 'stalled', 'lease', 'empty', 'absent', 'held')),
  owner_nonce      uuid NOT NULL,
  host             text NOT NULL,
  boot_id          text NOT NULL,
  pid              integer NOT NULL,
  lease_until      timestamptz NOT NULL,
  called_at        timestamptz,
  checked_at       timestamptz,
  checked_snapshot pg_snapshot,
  resolved_at      timestamptz,
  asked_at         timestamptz,
  empty_rounds     integer NOT NULL DEFAULT 0,
  http_status      integer,
  detail           text,
  x_message_id     text,
  payload_sha256   bytea,
  message_ids      bigint[] NOT NULL,
  FOREIGN KEY (campaign_id, version_id) REFERENCES campaign_version (campaign_id, id),
  CHECK ((state = 'DONE') = (outcome IS NOT NULL)),
  CHECK (state = 'OPEN' OR outcome IN ('lease', 'not_sent', 'empty', 'refused') OR called_at IS NOT NULL)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX batch_open ON batch (state, id) WHERE state <> 'DONE';

CREATE TABLE message (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  public_id     uuid NOT NULL,
  enrollment_id bigint NOT NULL REFERENCES enrollment,
  subscriber_id bigint NOT NULL REFERENCES subscriber,
  campaign_id   bigint NOT NULL REFERENCES campaign,
  step_key      text NOT NULL,
  lane          text NOT NULL CHECK (lane IN ('confirm', 'booking', 'drip', 'newsletter')),
  state         text NOT NULL CHECK (state IN ('PLANNED', 'IN_BATCH', 'ACCEPTED', 'REJECTED', 'SUPPRESSED', 'SKIPPED', 'HELD')),
  reason        text,
  batch_id      bigint REFERENCES batch,
  due_at        timestamptz NOT NULL,
  fresh_until   timestamptz NOT NULL DEFAULT 'infinity',
  valid_until   timestamptz NOT NULL DEFAULT 'infinity',
  retry_at      timestamptz NOT NULL DEFAULT '-infinity',
  lapses        integer NOT NULL DEFAULT 0,
  attempts      integer NOT NULL DEFAULT 0,
  addr_hash     bytea,
  accepted_at   timestamptz,
  delivery      text CHECK (delivery IN ('processed', 'deferred', 'delivered', 'dropped', 'bounced', 'complained')),
  updated_at    timestamptz NOT NULL DEFAULT wall(),
  UNIQUE (enrollment_id, step_key),
  CHECK ((state = 'ACCEPTED') = (accepted_at IS NOT NULL)),
  CHECK (state NOT IN ('REJECTED', 'SUPPRESSED', 'SKIPPED', 'HELD') OR reason IS NOT NULL),
  CHECK (state NOT IN ('IN_BATCH', 'ACCEPTED') OR batch_id IS NOT NULL),
  CHECK (state <> 'PLANNED' OR batch_id IS NULL)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX message_claim ON message (lane, campaign_id, step_key, due_at, id) WHERE state = 'PLANNED';
CREATE INDEX message_in_batch ON message (batch_id) WHERE state = 'IN_BATCH';
CREATE INDEX message_held ON message (updated_at) WHERE state = 'HELD';
CREATE INDEX message_accepted ON message (subscriber_id, accepted_at) WHERE accepted_at IS NOT NULL;
CREATE INDEX message_of_campaign ON message (campaign_id, step_key, state);
-- At most one open marketing message per person over all campaigns: gaps and weekly limits are free of races.
CREATE UNIQUE INDEX message_one_open ON message (subscriber_id)
  WHERE state IN ('PLANNED', 'IN_BATCH') AND lane IN ('drip', 'newsletter');

CREATE TABLE message_log (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  message_id bigint NOT NULL REFERENCES message,
  transition text NOT NULL,
  batch_id   bigint,
  actor      text NOT NULL,
  reason     text NOT NULL DEFAULT '',
  at         timestamptz NOT NULL DEFAULT wall()
);
CREATE INDEX message_log_of_message ON message_log (message_id);

CREATE TABLE suppression (
  seq       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  xid       xid8 NOT NULL DEFAULT pg_current_xact_id(),
  addr_hash bytea NOT NULL,
  scope     text NOT NULL CHECK (scope IN ('all', 'marketing') OR scope LIKE 'topic:%' OR scope LIKE 'campaign:%'),
  action    text NOT NULL CHECK (action IN ('suppress', 'lift')),
  reason    text NOT NULL,
  source    text NOT NULL,
  evidence  text NOT NULL DEFAULT '',
  at        timestamptz NOT NULL DEFAULT wall()
);
CREATE INDEX suppression_of_address ON suppression (addr_hash, scope, seq);
CREATE INDEX suppression_follower ON suppression (xid);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON suppression FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE webhook_inbox (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  raw         bytea NOT NULL,
  state       text NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'done', 'quarantined')),
  tries       integer NOT NULL DEFAULT 0,
  error       text,
  received_at timestamptz NOT NULL DEFAULT wall()
);
CREATE INDEX webhook_inbox_new ON webhook_inbox (id) WHERE state = 'new';

CREATE TABLE provider_event (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  dedupe      text NOT NULL UNIQUE,
  sg_event_id text,
  message_id  bigint REFERENCES message,
  batch_id    bigint REFERENCES batch,
  type        text NOT NULL,
  at          timestamptz NOT NULL,
  campaign_at timestamptz NOT NULL,
  received_at timestamptz NOT NULL DEFAULT wall(),
  detail      jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX provider_event_of_message ON provider_event (message_id);
CREATE INDEX provider_event_of_batch ON provider_event (batch_id);

CREATE TABLE click (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  message_id bigint NOT NULL REFERENCES message,
  number     integer NOT NULL,
  at         timestamptz NOT NULL,
  wall_at    timestamptz NOT NULL DEFAULT wall()
);
CREATE INDEX click_of_message ON click (message_id);

-- What happened to a person that a goal, an exit or a trigger may ask about, in campaign time.
CREATE TABLE happening (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  subscriber_id bigint NOT NULL REFERENCES subscriber,
  event         text NOT NULL,
  at            timestamptz NOT NULL
);
CREATE INDEX happening_of_subscriber ON happening (subscriber_id, event, at);

CREATE TABLE booking (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  subscriber_id bigint NOT NULL REFERENCES subscriber,
  message_id    bigint REFERENCES message,
  host_id       integer NOT NULL DEFAULT 1 CHECK (host_id BETWEEN 1 AND 9000000),
  start_minute  bigint NOT NULL CHECK (start_minute BETWEEN 0 AND 999999000),
  minutes       integer NOT NULL CHECK (minutes BETWEEN 1 AND 600),
  state         text NOT NULL DEFAULT 'booked' CHECK (state IN ('booked', 'canceled')),
  revision      integer NOT NULL DEFAULT 1,
  ask_for       text NOT NULL DEFAULT '',
  phone         text NOT NULL,
  voicemail     boolean NOT NULL DEFAULT false,
  timezone      text NOT NULL,
  wording       text NOT NULL DEFAULT '',
  booked_at     timestamptz NOT NULL,
  span          int8range GENERATED ALWAYS AS
                (int8range(host_id * 1000000000::bigint + start_minute, host_id * 1000000000::bigint + start_minute + minutes)) STORED,
  CONSTRAINT booking_no_double EXCLUDE USING gist (span WITH &&) WHERE (state = 'booked')
);
COMMENT ON COLUMN booking.start_minute IS 'Minutes since 1970-01-01 00:00 UTC, in campaign time.';
CREATE INDEX booking_of_subscriber ON booking (subscriber_id);

CREATE TABLE call_wish (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  subscriber_id bigint NOT NULL REFERENCES subscriber,
  phone         text NOT NULL,
  words         text NOT NULL,
  at            timestamptz NOT NULL
);
COMMENT ON TABLE call_wish IS '"None of these times work": when suits the person, in their words.';

CREATE TABLE lane_state (
  lane             text PRIMARY KEY CHECK (lane IN ('confirm', 'booking', 'drip', 'newsletter')),
  breaker          text NOT NULL DEFAULT 'closed' CHECK (breaker IN ('closed', 'open', 'half_open')),
  breaker_until    timestamptz,
  breaker_reason   text,
  breaker_opened   integer NOT NULL DEFAULT 0,
  failures         integer NOT NULL DEFAULT 0,
  failing_since    timestamptz,
  batch_limit      integer NOT NULL DEFAULT 100 CHECK (batch_limit BETWEEN 1 AND 1000),
  last_campaign_id bigint NOT NULL DEFAULT 0,
  last_step_key    text NOT NULL DEFAULT ''
) WITH (fillfactor = 50);
INSERT INTO lane_state (lane) VALUES ('confirm'), ('booking'), ('drip'), ('newsletter');

CREATE TABLE worker (
  queue         text NOT NULL,
  host          text NOT NULL,
  boot_id       text NOT NULL,
  pid           integer NOT NULL,
  last_pass     timestamptz NOT NULL DEFAULT wall(),
  last_progress timestamptz,
  PRIMARY KEY (queue, host, pid)
) WITH (fillfactor = 50);

-- What may safely happen twice: pushing suppressions to Redis.
CREATE TABLE outbox (
  id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind    text NOT NULL,
  detail  jsonb NOT NULL DEFAULT '{}',
  done_at timestamptz
) WITH (fillfactor = 50);
CREATE INDEX outbox_open ON outbox (id) WHERE done_at IS NULL;

CREATE TABLE activity (
  id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  actor  text NOT NULL,
  action text NOT NULL,
  about  text NOT NULL,
  detail jsonb NOT NULL DEFAULT '{}',
  at     timestamptz NOT NULL DEFAULT wall()
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON activity FOR EACH ROW EXECUTE FUNCTION refuse_change();
