-- Sign-up: who agreed to what, in which words, from where, and when it was confirmed.

-- The very words that were shown, kept once. A version is a hash of its words, so a row never changes. It goes when
-- nobody is left who was shown it: a file's own words may name a person.
CREATE TABLE wording (
  version  text PRIMARY KEY,
  words    text NOT NULL,
  first_at timestamptz NOT NULL DEFAULT wall()
);
CREATE TRIGGER immutable BEFORE UPDATE ON wording FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- No foreign key to `wording`, whose rows go only when no row names them: an import writes a million consents in the
-- same words.
ALTER TABLE consent
  ADD COLUMN wording_version text,
  ADD COLUMN asked_at     timestamptz,
  ADD COLUMN confirmed_at timestamptz,
  ADD COLUMN page         text NOT NULL DEFAULT '',
  ADD COLUMN network      text NOT NULL DEFAULT '',
  ADD CHECK (wording = '' OR wording_version IS NULL);
COMMENT ON COLUMN consent.wording IS 'The words themselves, in rows older than the table of wordings.';
COMMENT ON COLUMN consent.wording_version IS 'The row of `wording` with the very words; null: unknown, or see the column wording.';
COMMENT ON COLUMN consent.given_at IS 'Campaign time from which it holds, like asked_at and confirmed_at.';
COMMENT ON COLUMN consent.network IS 'The truncated network address it came from: /24 or /48. Empty: not over the web.';

CREATE FUNCTION refuse_change_but_erasing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('dripwell.erasing', true) = 'on' THEN
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
  END IF;
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
COMMENT ON FUNCTION refuse_change_but_erasing IS 'Append-only, but for the transaction that erases a person: SET LOCAL dripwell.erasing = ''on''.';
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON consent
  FOR EACH ROW EXECUTE FUNCTION refuse_change_but_erasing();
CREATE TRIGGER append_only BEFORE DELETE ON wording FOR EACH ROW EXECUTE FUNCTION refuse_change_but_erasing();

-- One row a request: a person may ask through several forms before confirming any. `fields` and the time zone count
-- once the request is confirmed: until then anybody may have typed them.
CREATE TABLE signup (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  subscriber_id bigint NOT NULL REFERENCES subscriber,
  form          text NOT NULL,
  source        text NOT NULL,
  asked_at      timestamptz NOT NULL,
  asked_wall    timestamptz NOT NULL DEFAULT wall(),
  page          text NOT NULL DEFAULT '',
  network       text NOT NULL DEFAULT '',
  timezone      text,
  fields        jsonb NOT NULL DEFAULT '{}',
  confirmed_at  timestamptz
);
CREATE INDEX signup_of_subscriber ON signup (subscriber_id, id);
COMMENT ON COLUMN signup.asked_at IS 'Campaign time, like confirmed_at.';

-- What a request asks for, the form's own topic first. None: whatever its form says when the button is pressed.
CREATE TABLE signup_topic (
  signup_id       bigint NOT NULL REFERENCES signup ON DELETE CASCADE,
  number          integer NOT NULL,
  topic           text NOT NULL,
  wording_version text NOT NULL,
  PRIMARY KEY (signup_id, number),
  UNIQUE (signup_id, topic)
);

-- The confirmation emails of a request: the first, and those that were asked for again.
CREATE TABLE signup_mail (
  enrollment_id bigint PRIMARY KEY REFERENCES enrollment,
  signup_id     bigint NOT NULL REFERENCES signup ON DELETE CASCADE,
  at            timestamptz NOT NULL DEFAULT wall()
);
CREATE INDEX signup_mail_of_signup ON signup_mail (signup_id);
CREATE INDEX signup_mail_by_time ON signup_mail (at);
-- The round of a confirmation's enrollment. Rounds were the day once, so these begin beyond every day.
CREATE SEQUENCE signup_round START WITH 1000000;

-- One row for each time something was asked within the last hour, for limits that hold without Redis. Of a network the
-- truncated address.
CREATE TABLE form_count (
  id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key text NOT NULL,
  at  timestamptz NOT NULL DEFAULT wall()
);
CREATE INDEX form_count_of_key ON form_count (key, at);
CREATE INDEX form_count_by_time ON form_count (at);

-- Requests made before there were rows for them: the form was a field of the person.
WITH asked AS (
  SELECT enrollment.id AS enrollment_id, enrollment.subscriber_id, enrollment.joined_at,
         subscriber.fields ->> 'form' AS form,
         (SELECT min(consent.given_at) FROM consent
           WHERE consent.subscriber_id = enrollment.subscriber_id AND consent.source = 'confirm:' || enrollment.id) AS done
    FROM enrollment
    JOIN campaign ON campaign.id = enrollment.campaign_id AND campaign.name = 'confirm' AND campaign.kind = 'service'
    JOIN subscriber ON subscriber.id = enrollment.subscriber_id AND subscriber.fields ? 'form'
), kept AS (
  INSERT INTO signup (id, subscriber_id, form, source, asked_at, confirmed_at)
  OVERRIDING SYSTEM VALUE
  SELECT enrollment_id, subscriber_id, form, 'form ' || form, joined_at, done FROM asked
  RETURNING id
)
INSERT INTO signup_mail (enrollment_id, signup_id) SELECT id, id FROM kept;
SELECT setval(pg_get_serial_sequence('signup', 'id'), coalesce((SELECT max(id) FROM signup), 0) + 1, false);
UPDATE subscriber SET fields = fields - 'form'
 WHERE fields ? 'form' AND EXISTS (SELECT FROM signup WHERE signup.subscriber_id = subscriber.id);
