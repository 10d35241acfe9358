-- +goose Up
-- What keeps strangers from harming an account that they only know by name.
--
-- The networks that an account was signed in from are never shut out by what others do. mail_tokens keep the sealed text
-- of a token as well, so that who asks again is sent the same link. The index tells what the dearest digest of bcrypt costs.
CREATE TABLE user_networks (
  user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  network TEXT NOT NULL,
  seen_at INTEGER NOT NULL,
  PRIMARY KEY (user_id, network)
) WITHOUT ROWID;
ALTER TABLE mail_tokens ADD COLUMN token TEXT;
CREATE INDEX users_bcrypt ON users (substr(password_digest, 5, 2)) WHERE substr(password_digest, 1, 2) = '$2';

-- +goose Down
DROP INDEX users_bcrypt;
ALTER TABLE mail_tokens DROP COLUMN token;
DROP TABLE user_networks;
