-- +goose Up
-- How the user of a session has proved who they are (names of RFC 8176, a space between each two), and when, in Unix
-- milliseconds. Sessions of the version before have neither: no method, and 0, which stands for when they were created.
ALTER TABLE sessions ADD COLUMN methods TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN auth_time BIGINT NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE sessions DROP COLUMN auth_time;
ALTER TABLE sessions DROP COLUMN methods;
