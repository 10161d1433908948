-- Suppressing: the provider's lists and ours.

-- What the provider must be told about an address. A note says "look at the ledger and make the provider's list agree";
-- what is to be done follows from the ledger at that moment, so a late or doubled note does no harm. Wall time.
CREATE TABLE provider_note (
  id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  addr_hash bytea NOT NULL,
  kind      text NOT NULL DEFAULT 'ledger' CHECK (kind IN ('ledger', 'asked')),
  noted_at  timestamptz NOT NULL DEFAULT wall(),
  due_at    timestamptz NOT NULL DEFAULT '-infinity',
  tries     integer NOT NULL DEFAULT 0,
  done_at   timestamptz,
  result    text,
  CHECK ((done_at IS NULL) = (result IS NULL))
) WITH (fillfactor = 50);
COMMENT ON COLUMN provider_note.kind IS 'asked: the person wants our mail again, so a confirmation must be able to arrive.';
CREATE INDEX provider_note_open ON provider_note (due_at, id) WHERE done_at IS NULL;
CREATE INDEX provider_note_of_address ON provider_note (addr_hash);
CREATE INDEX provider_note_done ON provider_note (done_at) WHERE done_at IS NOT NULL;

-- The notes write themselves, whoever writes the ledger: a page, an import, an operator, a confirmed opt-in, a restore.
-- What the provider itself told us, it knows.
CREATE FUNCTION note_for_provider() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO provider_note (addr_hash) VALUES (NEW.addr_hash);
  RETURN NULL;
END $$;
CREATE TRIGGER note_for_provider AFTER INSERT ON suppression FOR EACH ROW
  WHEN (NEW.scope = 'all' AND NEW.source NOT IN ('provider', 'provider-sync')
        OR NEW.scope = 'marketing' AND NEW.action = 'lift')
  EXECUTE FUNCTION note_for_provider();

-- Whom the provider had on which list when we last looked, and whom we put there ourselves (`pushed_at`).
CREATE TABLE provider_entry (
  list      text NOT NULL CHECK (list IN ('bounces', 'spam_reports', 'invalid_emails', 'unsubscribes')),
  addr_hash bytea NOT NULL,
  listed_at timestamptz,
  pushed_at timestamptz,
  look      integer NOT NULL DEFAULT 0,
  PRIMARY KEY (list, addr_hash)
) WITH (fillfactor = 70);
CREATE INDEX provider_entry_of_address ON provider_entry (addr_hash);

-- Where each pull stands. A look begins when it is due, goes page by page, and is at its end when a page is not full.
-- A whole look reads the list from its beginning, another one what was added of late. Wall time.
CREATE TABLE provider_list (
  list        text PRIMARY KEY CHECK (list IN ('bounces', 'spam_reports', 'invalid_emails', 'unsubscribes')),
  due_at      timestamptz NOT NULL DEFAULT '-infinity',
  look        integer NOT NULL DEFAULT 0,
  began_at    timestamptz,
  since       timestamptz,
  next_offset integer NOT NULL DEFAULT 0,
  page_sha256 bytea,
  held_until  timestamptz NOT NULL DEFAULT '-infinity',
  looked_at   timestamptz,
  whole_at    timestamptz,
  entries     integer NOT NULL DEFAULT 0,
  unreadable  integer NOT NULL DEFAULT 0,
  added       integer NOT NULL DEFAULT 0,
  lifted      integer NOT NULL DEFAULT 0,
  CHECK (began_at IS NOT NULL OR next_offset = 0)
) WITH (fillfactor = 50);
COMMENT ON COLUMN provider_list.since IS 'Of the look under way: entries from then on; NULL: all.';
INSERT INTO provider_list (list) VALUES ('bounces'), ('spam_reports'), ('invalid_emails'), ('unsubscribes');

-- Why nobody asks the provider about its lists just now, and until when.
CREATE TABLE provider_quiet (
  one      boolean PRIMARY KEY DEFAULT true CHECK (one),
  until    timestamptz NOT NULL DEFAULT '-infinity',
  reason   text NOT NULL DEFAULT '',
  failures integer NOT NULL DEFAULT 0,
  since    timestamptz
) WITH (fillfactor = 50);
INSERT INTO provider_quiet DEFAULT VALUES;

-- How often a mailbox turned an email away, when somebody asks whether it is still there.
CREATE INDEX provider_event_soft ON provider_event (message_id, campaign_at) WHERE type = 'bounced';
