-- +goose Up
-- Sessions that were ended one by one. The store that kept them may come back without knowing it: the row says it again
-- whenever the user is read, until the session could not live any longer.
CREATE TABLE ended_sessions (
  uid TEXT NOT NULL,
  key TEXT NOT NULL,
  ends_at BIGINT NOT NULL,
  PRIMARY KEY (uid, key)
);
CREATE INDEX ended_sessions_ends_at ON ended_sessions (ends_at);

-- How often the sessions of everybody were ended. It counts as part of each user's session epoch.
CREATE TABLE session_era (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  era BIGINT NOT NULL
);
INSERT INTO session_era VALUES (1, 0);

-- +goose Down
DROP TABLE session_era;
DROP TABLE ended_sessions;
