-- +goose Up
-- How many activities there are, by day, kept by triggers: counting ten million rows for the header of a list takes
-- seconds, adding up a few thousand takes milliseconds. Topic and action are not told apart for what was denied: there
-- they come from whatever path somebody thought of. Shards are for Postgres, where many write at once.
CREATE TABLE activity_counts (
  day TEXT NOT NULL,
  category TEXT NOT NULL,
  topic TEXT NOT NULL,
  action TEXT NOT NULL,
  result TEXT NOT NULL,
  shard INTEGER NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (day, category, topic, action, result, shard)
) WITHOUT ROWID;

INSERT INTO activity_counts (day, category, topic, action, result, shard, count)
SELECT substr(created_at, 1, 10), category,
  CASE WHEN result <> 'denied' THEN topic ELSE '' END, CASE WHEN result <> 'denied' THEN action ELSE '' END, result, 0, count(*)
FROM activities GROUP BY 1, 2, 3, 4, 5;

-- +goose StatementBegin
CREATE TRIGGER activities_added AFTER INSERT ON activities BEGIN
  INSERT INTO activity_counts (day, category, topic, action, result, shard, count)
  VALUES (substr(NEW.created_at, 1, 10), NEW.category, CASE WHEN NEW.result <> 'denied' THEN NEW.topic ELSE '' END,
    CASE WHEN NEW.result <> 'denied' THEN NEW.action ELSE '' END, NEW.result, 0, 1)
  ON CONFLICT (day, category, topic, action, result, shard) DO UPDATE SET count = count + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER activities_removed AFTER DELETE ON activities BEGIN
  UPDATE activity_counts SET count = count - 1
  WHERE day = substr(OLD.created_at, 1, 10) AND category = OLD.category
    AND topic = CASE WHEN OLD.result <> 'denied' THEN OLD.topic ELSE '' END
    AND action = CASE WHEN OLD.result <> 'denied' THEN OLD.action ELSE '' END AND result = OLD.result AND shard = 0;
END;
-- +goose StatementEnd

-- A list by topic is walked newest first: an index with the action between topic and id would have to be sorted.
DROP INDEX activities_topic;
CREATE INDEX activities_topic ON activities (category, topic, id);
CREATE INDEX activities_result ON activities (category, result, id);

-- +goose Down
DROP INDEX activities_result;
DROP INDEX activities_topic;
CREATE INDEX activities_topic ON activities (category, topic, action, id);
DROP TRIGGER activities_removed;
DROP TRIGGER activities_added;
DROP TABLE activity_counts;
