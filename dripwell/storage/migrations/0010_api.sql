-- The API: keys, what was answered before, events under their sender's own id, and going through a series again.

-- A key is shown once; what is kept is the SHA-256 of its 256 random bits, and its beginning, to tell keys apart.
CREATE TABLE api_key (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name        text NOT NULL,
  prefix      text NOT NULL,
  secret_hash bytea NOT NULL UNIQUE CHECK (length(secret_hash) = 32),
  scopes      text[] NOT NULL CHECK (scopes <> '{}'),
  per_minute  integer NOT NULL CHECK (per_minute > 0),
  made_by     text NOT NULL,
  made_at     timestamptz NOT NULL DEFAULT wall(),
  expires_at  timestamptz,
  revoked_at  timestamptz,
  last_used   date
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX api_key_name ON api_key (name) WHERE revoked_at IS NULL;
COMMENT ON COLUMN api_key.last_used IS 'The UTC day, so that a key in use is written once a day.';

-- How much of its minute a key has used. Apart from the key, since it is written at every request.
CREATE TABLE api_use (
  api_key_id bigint PRIMARY KEY REFERENCES api_key,
  minute     timestamptz NOT NULL,
  used       integer NOT NULL
) WITH (fillfactor = 50);

-- What was answered under an Idempotency-Key, for a day. The request is kept as a keyed hash, the answer names nobody.
CREATE TABLE api_answer (
  api_key_id    bigint NOT NULL REFERENCES api_key,
  repeat_key    text NOT NULL,
  request_hash  bytea NOT NULL,
  status        integer,
  body          json,
  subscriber_id bigint,
  at            timestamptz NOT NULL DEFAULT wall(),
  PRIMARY KEY (api_key_id, repeat_key)
);
CREATE INDEX api_answer_at ON api_answer (at);
CREATE INDEX api_answer_of_subscriber ON api_answer (subscriber_id);

-- An event that its sender tells twice, under an id of their own, happened once.
ALTER TABLE happening ADD COLUMN sender_id text;
CREATE UNIQUE INDEX happening_of_sender ON happening (subscriber_id, event, sender_id) WHERE sender_id IS NOT NULL;

-- Nobody is in one campaign twice at a time. A service email may be asked for again while the last one is on its way.
ALTER TABLE enrollment ADD COLUMN repeats boolean NOT NULL DEFAULT false;
UPDATE enrollment SET repeats = true FROM campaign WHERE campaign.id = enrollment.campaign_id AND campaign.kind = 'service';
CREATE UNIQUE INDEX enrollment_one_open ON enrollment (subscriber_id, campaign_id)
  WHERE state IN ('waiting', 'mailing') AND NOT repeats;
COMMENT ON COLUMN enrollment.repeats IS 'Of a service campaign: several rounds may be open at once.';
