-- Importing: a file is taken in once, however often it is begun.

-- One file, taken in with one statement. Progress and counts move in the transaction of each slice, so that a run that
-- is killed goes on where its last commit was.
CREATE TABLE import_run (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  file            text NOT NULL,
  sha256          bytea NOT NULL,
  settings_sha256 bytea NOT NULL,
  settings        jsonb NOT NULL,
  topics          text[] NOT NULL,
  source          text NOT NULL,
  wording         text NOT NULL,
  given_at        timestamptz,
  actor           text NOT NULL,
  begun_at        timestamptz NOT NULL DEFAULT wall(),
  finished_at     timestamptz,
  rows_read       bigint NOT NULL DEFAULT 0,
  added           bigint NOT NULL DEFAULT 0,
  known           bigint NOT NULL DEFAULT 0,
  suppressed      bigint NOT NULL DEFAULT 0,
  leaving         bigint NOT NULL DEFAULT 0,
  refused         bigint NOT NULL DEFAULT 0,
  duplicates      bigint NOT NULL DEFAULT 0,
  unsaid          bigint NOT NULL DEFAULT 0,
  CHECK (rows_read = added + known + leaving + refused)
);
COMMENT ON COLUMN import_run.file IS 'The name without its folders.';
COMMENT ON COLUMN import_run.settings_sha256 IS 'Of everything else that decides what the file means: the same file with other words is another run.';
COMMENT ON COLUMN import_run.source IS 'What the operator stated for the whole file; each row may say more. consent.source is import:<id>.';
CREATE INDEX import_run_of_file ON import_run (sha256, settings_sha256, id);

-- The rows that could not be taken, by line. A reason holds no address, but may quote a cell, until somebody is erased.
CREATE TABLE import_refusal (
  run_id bigint NOT NULL REFERENCES import_run,
  line   bigint NOT NULL,
  reason text NOT NULL,
  PRIMARY KEY (run_id, line)
);
CREATE INDEX import_refusal_quoting ON import_refusal (run_id, line) WHERE reason LIKE '%`%';

-- The last import that named this person: how the same address in two rows of a file is told without keeping a list.
-- No foreign key, which would cost a look-up a row; nothing deletes from import_run.
ALTER TABLE subscriber ADD COLUMN import_id bigint;
