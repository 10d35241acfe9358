-- +goose Up
-- Messages of other services that were dealt with, so that one that comes again is not. Their ids are digests.
CREATE TABLE heard_messages (
  id TEXT PRIMARY KEY,
  ends_at BIGINT NOT NULL
);
CREATE INDEX heard_messages_ends_at ON heard_messages (ends_at);

-- +goose Down
DROP TABLE heard_messages;
