-- +goose Up
-- One row that is written now and then, to tell whether the database takes writes.
CREATE TABLE probes (
  name TEXT PRIMARY KEY,
  tried_at BIGINT NOT NULL
);

-- +goose Down
DROP TABLE probes;
