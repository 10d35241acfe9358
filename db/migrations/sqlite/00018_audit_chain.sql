-- +goose Up
-- The audit trail as a chain of sealed blocks (package trail): a block has the hashes of the activities that it holds, and the
-- hash of the block before. What a purge leaves of a block is everything but the entries.
CREATE TABLE audit_blocks (
  seq INTEGER PRIMARY KEY,
  previous BLOB NOT NULL,
  sealed_at TIMESTAMP NOT NULL,
  row_count INTEGER NOT NULL,
  after_id INTEGER NOT NULL,
  through_id INTEGER NOT NULL,
  first_id INTEGER NOT NULL,
  last_id INTEGER NOT NULL,
  from_at TIMESTAMP NOT NULL,
  until_at TIMESTAMP NOT NULL,
  salt BLOB NOT NULL,
  digest BLOB NOT NULL,
  awaited BLOB NOT NULL,
  entries BLOB,
  seal TEXT NOT NULL,
  purge TEXT
);
CREATE INDEX audit_blocks_until_at ON audit_blocks (until_at) WHERE purge IS NULL;
CREATE INDEX audit_blocks_kept ON audit_blocks (seq) WHERE purge IS NULL;
CREATE INDEX audit_blocks_last_id ON audit_blocks (last_id, first_id);

-- Ranges of ids in which an import has written activities below those that are sealed already.
CREATE TABLE audit_late (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  first_id INTEGER NOT NULL,
  last_id INTEGER NOT NULL
);

-- +goose Down
DROP TABLE audit_late;
DROP TABLE audit_blocks;
