-- +goose Up
-- Which request caused an activity: the name in X-Request-Id, which the log and the answer have as well. Rows of before have none.
ALTER TABLE activities ADD COLUMN request_id TEXT;

-- +goose Down
ALTER TABLE activities DROP COLUMN request_id;
