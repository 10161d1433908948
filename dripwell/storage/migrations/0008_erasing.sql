-- Erasing: a person leaves every table. What numbers need stays, without anything that says who it was.

-- One row for every erasure, with nothing in it that says of whom, but for `sealed`: the address, for the provider, in
-- a form that takes the installation's secret to read. It is gone when the provider has answered.
CREATE TABLE erasure (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  subscriber_id bigint NOT NULL REFERENCES subscriber,
  state         text NOT NULL DEFAULT 'begun' CHECK (state IN ('begun', 'asking', 'asked', 'done')),
  actor         text NOT NULL,
  begun_at      timestamptz NOT NULL DEFAULT wall(),
  erased_at     timestamptz,
  sealed        bytea,
  provider      text NOT NULL DEFAULT '',
  tries         integer NOT NULL DEFAULT 0,
  retry_at      timestamptz NOT NULL DEFAULT '-infinity',
  answer        text NOT NULL DEFAULT '',
  job_id        text NOT NULL DEFAULT '',
  done_at       timestamptz,
  CHECK ((state = 'begun') = (erased_at IS NULL)),
  CHECK ((state = 'asking') = (sealed IS NOT NULL)),
  CHECK ((state = 'done') = (done_at IS NOT NULL))
) WITH (fillfactor = 50);
COMMENT ON COLUMN erasure.state IS 'begun: a call that names the person is under way. asking: the record is clean, the '
  'provider has not answered. asked: what ran beside it may have written once more. done.';
CREATE UNIQUE INDEX erasure_open ON erasure (subscriber_id) WHERE state <> 'done';
CREATE INDEX erasure_waiting ON erasure (state, retry_at) WHERE state <> 'done';

CREATE INDEX subscriber_erased ON subscriber (id) WHERE state = 'erased';
-- Who never confirmed: retention looks for them again with every slice.
CREATE INDEX subscriber_unconfirmed ON subscriber (id) WHERE state = 'unconfirmed';
-- What an erasure looks up: what was written about a person or an email, and notes that the fast set has had.
CREATE INDEX activity_of_subscriber ON activity ((detail ->> 'subscriber')) WHERE detail ->> 'subscriber' IS NOT NULL;
CREATE INDEX activity_of_message ON activity ((detail ->> 'message')) WHERE detail ->> 'message' IS NOT NULL;
CREATE INDEX activity_with_words ON activity (id) WHERE detail ?| ARRAY['why', 'reason', 'from', 'to'];
CREATE INDEX outbox_pushed ON outbox ((detail ->> 'addr_hash')) WHERE kind = 'suppression' AND done_at IS NOT NULL;
-- Whom the ledger knows as erased: an import asks it, and so does whoever looks for people a backup brought back.
CREATE INDEX suppression_erased ON suppression (addr_hash) WHERE reason = 'erased';
-- Bodies of webhooks that were read: they hold addresses, and nobody reads them again.
CREATE INDEX webhook_inbox_read ON webhook_inbox (id) WHERE state = 'done' AND raw <> '';

-- Append-only rows change in one kind of transaction: one that erases, and says so (SET LOCAL dripwell.erasing = 'on').
DROP TRIGGER append_only ON activity;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON activity FOR EACH ROW
  WHEN (current_setting('dripwell.erasing', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION refuse_change();

-- Of the suppression ledger it may take the proof, which names a message of the person; the row itself stays for ever.
CREATE FUNCTION refuse_change_but_evidence() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND NEW.evidence = ''
     AND ROW(NEW.seq, NEW.xid, NEW.addr_hash, NEW.scope, NEW.action, NEW.reason, NEW.source, NEW.at)
         IS NOT DISTINCT FROM ROW(OLD.seq, OLD.xid, OLD.addr_hash, OLD.scope, OLD.action, OLD.reason, OLD.source, OLD.at)
  THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
DROP TRIGGER append_only ON suppression;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON suppression FOR EACH ROW
  WHEN (current_setting('dripwell.erasing', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION refuse_change_of_fact();
CREATE TRIGGER append_only_but_evidence BEFORE UPDATE OR DELETE ON suppression FOR EACH ROW
  WHEN (current_setting('dripwell.erasing', true) = 'on') EXECUTE FUNCTION refuse_change_but_evidence();

-- What a provider told, without the person: `provider_event.trouble` is made from it and must stay the same.
CREATE FUNCTION event_without_person(trouble text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE trouble WHEN 'identity' THEN '{"status": "5.7.515"}'::jsonb
                      WHEN 'reputation' THEN '{"bounce_classification": "reputation"}'::jsonb
                      ELSE '{}'::jsonb END
$$;
-- Anything that looks like an address, in any text of a document.
CREATE FUNCTION without_addresses(detail jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
  SELECT regexp_replace(detail::text, '[^[:space:]"<>(),;:@\\]*@[^[:space:]"<>(),;:@\\]+', '[address]', 'g')::jsonb
$$;

-- A webhook that comes late brings nobody back; and of an event that belongs to no message of ours no address is kept,
-- since nobody could find it again when its person wants to be erased.
CREATE FUNCTION forget_the_erased() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM fresh WHERE message_id IS NULL) THEN
    UPDATE provider_event SET detail = without_addresses(provider_event.detail)
      FROM fresh
     WHERE provider_event.id = fresh.id AND fresh.message_id IS NULL AND provider_event.detail::text LIKE '%@%';
  END IF;
  IF EXISTS (SELECT FROM subscriber WHERE state = 'erased') THEN
    UPDATE provider_event SET detail = event_without_person(provider_event.trouble)
      FROM fresh JOIN message ON message.id = fresh.message_id JOIN subscriber ON subscriber.id = message.subscriber_id
     WHERE provider_event.id = fresh.id AND subscriber.state = 'erased';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER forget_the_erased AFTER INSERT ON provider_event REFERENCING NEW TABLE AS fresh
  FOR EACH STATEMENT EXECUTE FUNCTION forget_the_erased();

-- How far the daily pass of retention is, by the ids of rows, and when it last ended (wall time).
CREATE TABLE retention_state (
  one      boolean PRIMARY KEY DEFAULT true CHECK (one),
  events   bigint NOT NULL DEFAULT 0,
  clicks   bigint NOT NULL DEFAULT 0,
  people   bigint NOT NULL DEFAULT 0,
  asked    integer NOT NULL DEFAULT 0,
  ended_at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);
COMMENT ON COLUMN retention_state.asked IS 'How many silent people this day''s pass has asked so far.';
INSERT INTO retention_state DEFAULT VALUES;

-- Who has been silent for long was asked whether we may go on; without an answer they are erased. Campaign time.
CREATE TABLE quiet_question (
  subscriber_id bigint PRIMARY KEY REFERENCES subscriber,
  round         integer NOT NULL DEFAULT 1,
  asked_at      timestamptz NOT NULL,
  kept_at       timestamptz
) WITH (fillfactor = 70);
