-- +goose Up
-- Identities: who a user is at an identity provider (OpenID Connect), by its issuer and the subject that it calls them. None
-- of it is secret. A user has one identity of an issuer at most.
CREATE TABLE identities (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  provider TEXT NOT NULL,
  issuer TEXT NOT NULL,
  subject TEXT NOT NULL,
  email TEXT NOT NULL,
  last_used_at TIMESTAMP,
  created_at TIMESTAMP NOT NULL,
  updated_at TIMESTAMP NOT NULL
);
CREATE UNIQUE INDEX identities_subject ON identities (issuer, subject);
CREATE UNIQUE INDEX identities_user_id ON identities (user_id, issuer);

-- +goose Down
DROP TABLE identities;
