-- +goose Up
-- How many activities there are, by day, kept by triggers: counting ten million rows for the header of a list takes
-- seconds, adding up a few thousand takes milliseconds. Topic and action are not told apart for what was denied: there
-- they come from whatever path somebody thought of. A backend adds to one of four shards, so that sign-ins do not wait for
-- each other; only the sum of the shards means anything.
CREATE TABLE activity_counts (
  day TEXT COLLATE "C" NOT NULL,
  category TEXT NOT NULL,
  topic TEXT NOT NULL,
  action TEXT NOT NULL,
  result TEXT NOT NULL,
  shard BIGINT NOT NULL,
  count BIGINT NOT NULL,
  PRIMARY KEY (day, category, topic, action, result, shard)
);

INSERT INTO activity_counts (day, category, topic, action, result, shard, count)
SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), category,
  CASE WHEN result <> 'denied' THEN topic ELSE '' END, CASE WHEN result <> 'denied' THEN action ELSE '' END, result, 0, count(*)
FROM activities GROUP BY 1, 2, 3, 4, 5;

-- +goose StatementBegin
CREATE FUNCTION activities_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO activity_counts AS c (day, category, topic, action, result, shard, count)
  SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), category,
    CASE WHEN result <> 'denied' THEN topic ELSE '' END, CASE WHEN result <> 'denied' THEN action ELSE '' END, result,
    pg_backend_pid() % 4, count(*)
  FROM added GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
  ON CONFLICT (day, category, topic, action, result, shard) DO UPDATE SET count = c.count + EXCLUDED.count;
  RETURN NULL;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION activities_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO activity_counts AS c (day, category, topic, action, result, shard, count)
  SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), category,
    CASE WHEN result <> 'denied' THEN topic ELSE '' END, CASE WHEN result <> 'denied' THEN action ELSE '' END, result,
    pg_backend_pid() % 4, -count(*)
  FROM removed GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
  ON CONFLICT (day, category, topic, action, result, shard) DO UPDATE SET count = c.count + EXCLUDED.count;
  RETURN NULL;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION activities_emptied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM activity_counts;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER activities_added AFTER INSERT ON activities
  REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION activities_added();
CREATE TRIGGER activities_removed AFTER DELETE ON activities
  REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION activities_removed();
CREATE TRIGGER activities_emptied AFTER TRUNCATE ON activities
  FOR EACH STATEMENT EXECUTE FUNCTION activities_emptied();

-- A list by topic is walked newest first: an index with the action between topic and id would have to be sorted.
DROP INDEX activities_topic;
CREATE INDEX activities_topic ON activities (category, topic, id);
CREATE INDEX activities_result ON activities (category, result, id);

-- +goose Down
DROP INDEX activities_result;
DROP INDEX activities_topic;
CREATE INDEX activities_topic ON activities (category, topic, action, id);
DROP TRIGGER activities_emptied ON activities;
DROP TRIGGER activities_removed ON activities;
DROP TRIGGER activities_added ON activities;
DROP FUNCTION activities_emptied();
DROP FUNCTION activities_removed();
DROP FUNCTION activities_added();
DROP TABLE activity_counts;
