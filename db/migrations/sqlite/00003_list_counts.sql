-- +goose Up
-- Exact totals and deep pages of the lists for staff. docs/lists.md tells how they are read, and what they cost.
--
-- Three tables of counts are kept by triggers: users and labels by blocks of 16,384 ids, activities by days. A list adds
-- them up to its total, and to the block or day where a page begins. The views *_tallies and *_count_changes stand where
-- Postgres, in which many write at once, has a table of changes besides; here what is inserted into the latter is
-- counted at once.

-- Users. Each counts once under the facet '', under the week of created and of updated (seven days by number, as text
-- that sorts like the numbers), and under every country of their profiles.
CREATE TABLE user_counts (
  facet TEXT NOT NULL,
  value TEXT NOT NULL,
  role TEXT NOT NULL,
  state TEXT NOT NULL,
  level INTEGER NOT NULL,
  block INTEGER NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (facet, value, role, state, level, block)
) WITHOUT ROWID;
CREATE VIEW user_tallies AS SELECT facet, value, role, state, level, block, count FROM user_counts;
CREATE VIEW user_count_changes AS SELECT facet, value, role, state, level, block, count AS change FROM user_counts;
-- +goose StatementBegin
CREATE TRIGGER user_counts_change INSTEAD OF INSERT ON user_count_changes BEGIN
  INSERT INTO user_counts (facet, value, role, state, level, block, count)
  VALUES (NEW.facet, NEW.value, NEW.role, NEW.state, NEW.level, NEW.block, NEW.change)
  ON CONFLICT (facet, value, role, state, level, block) DO UPDATE SET count = count + excluded.count;
  DELETE FROM user_counts WHERE facet = NEW.facet AND value = NEW.value AND role = NEW.role AND state = NEW.state
    AND level = NEW.level AND block = NEW.block AND count = 0;
END;
-- +goose StatementEnd

INSERT INTO user_counts (facet, value, role, state, level, block, count)
SELECT '', '', role, state, level, id >> 14, count(*) FROM users GROUP BY 1, 2, 3, 4, 5, 6
UNION ALL SELECT 'created',
  printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(created_at, 1, 19)) / 604800, 0)))), role, state, level, id >> 14, count(*)
FROM users GROUP BY 1, 2, 3, 4, 5, 6
UNION ALL SELECT 'updated',
  printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(updated_at, 1, 19)) / 604800, 0)))), role, state, level, id >> 14, count(*)
FROM users GROUP BY 1, 2, 3, 4, 5, 6
UNION ALL SELECT 'country', p.country, u.role, u.state, u.level, u.id >> 14, count(*)
FROM (SELECT DISTINCT user_id, country FROM profiles WHERE country IS NOT NULL) AS p JOIN users AS u ON u.id = p.user_id
GROUP BY 1, 2, 3, 4, 5, 6;

-- +goose StatementBegin
CREATE TRIGGER users_added AFTER INSERT ON users BEGIN
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT f.facet, f.value, NEW.role, NEW.state, NEW.level, NEW.id >> 14, 1 FROM (
    SELECT '' AS facet, '' AS value
    UNION ALL SELECT 'created', printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(NEW.created_at, 1, 19)) / 604800, 0))))
    UNION ALL SELECT 'updated', printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(NEW.updated_at, 1, 19)) / 604800, 0))))
  ) AS f;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER users_changed AFTER UPDATE ON users
WHEN OLD.role <> NEW.role OR OLD.state <> NEW.state OR OLD.level <> NEW.level OR OLD.created_at <> NEW.created_at
  OR OLD.updated_at <> NEW.updated_at
BEGIN
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT f.facet, f.value, OLD.role, OLD.state, OLD.level, OLD.id >> 14, -1 FROM (
    SELECT '' AS facet, '' AS value
    UNION ALL SELECT 'created', printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(OLD.created_at, 1, 19)) / 604800, 0))))
    UNION ALL SELECT 'updated', printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(OLD.updated_at, 1, 19)) / 604800, 0))))
    UNION ALL SELECT * FROM (SELECT DISTINCT 'country', p.country FROM profiles AS p WHERE p.user_id = OLD.id AND p.country IS NOT NULL)
  ) AS f;
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT f.facet, f.value, NEW.role, NEW.state, NEW.level, NEW.id >> 14, 1 FROM (
    SELECT '' AS facet, '' AS value
    UNION ALL SELECT 'created', printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(NEW.created_at, 1, 19)) / 604800, 0))))
    UNION ALL SELECT 'updated', printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(NEW.updated_at, 1, 19)) / 604800, 0))))
    UNION ALL SELECT * FROM (SELECT DISTINCT 'country', p.country FROM profiles AS p WHERE p.user_id = NEW.id AND p.country IS NOT NULL)
  ) AS f;
END;
-- +goose StatementEnd
-- Before the row goes, while the profiles are still there.
-- +goose StatementBegin
CREATE TRIGGER users_removed BEFORE DELETE ON users BEGIN
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT f.facet, f.value, OLD.role, OLD.state, OLD.level, OLD.id >> 14, -1 FROM (
    SELECT '' AS facet, '' AS value
    UNION ALL SELECT 'created', printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(OLD.created_at, 1, 19)) / 604800, 0))))
    UNION ALL SELECT 'updated', printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(OLD.updated_at, 1, 19)) / 604800, 0))))
    UNION ALL SELECT * FROM (SELECT DISTINCT 'country', p.country FROM profiles AS p WHERE p.user_id = OLD.id AND p.country IS NOT NULL)
  ) AS f;
END;
-- +goose StatementEnd

-- Profiles bring countries. One that a user has in two profiles counts once.
-- +goose StatementBegin
CREATE TRIGGER profiles_added AFTER INSERT ON profiles WHEN NEW.country IS NOT NULL BEGIN
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT 'country', NEW.country, u.role, u.state, u.level, u.id >> 14, 1 FROM users AS u
  WHERE u.id = NEW.user_id AND NOT EXISTS (
    SELECT 1 FROM profiles AS p WHERE p.user_id = NEW.user_id AND p.country = NEW.country AND p.id <> NEW.id);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER profiles_changed AFTER UPDATE ON profiles
WHEN OLD.country IS NOT NEW.country OR OLD.user_id <> NEW.user_id
BEGIN
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT 'country', OLD.country, u.role, u.state, u.level, u.id >> 14, -1 FROM users AS u
  WHERE u.id = OLD.user_id AND OLD.country IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM profiles AS p WHERE p.user_id = OLD.user_id AND p.country = OLD.country);
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT 'country', NEW.country, u.role, u.state, u.level, u.id >> 14, 1 FROM users AS u
  WHERE u.id = NEW.user_id AND NEW.country IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM profiles AS p WHERE p.user_id = NEW.user_id AND p.country = NEW.country AND p.id <> NEW.id);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER profiles_removed AFTER DELETE ON profiles WHEN OLD.country IS NOT NULL BEGIN
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT 'country', OLD.country, u.role, u.state, u.level, u.id >> 14, -1 FROM users AS u
  WHERE u.id = OLD.user_id AND NOT EXISTS (
    SELECT 1 FROM profiles AS p WHERE p.user_id = OLD.user_id AND p.country = OLD.country);
END;
-- +goose StatementEnd

-- Labels.
CREATE TABLE label_counts (
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  scope TEXT NOT NULL,
  block INTEGER NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (scope, key, value, block)
) WITHOUT ROWID;
CREATE VIEW label_tallies AS SELECT key, value, scope, block, count FROM label_counts;
CREATE VIEW label_count_changes AS SELECT key, value, scope, block, count AS change FROM label_counts;
-- +goose StatementBegin
CREATE TRIGGER label_counts_change INSTEAD OF INSERT ON label_count_changes BEGIN
  INSERT INTO label_counts (key, value, scope, block, count) VALUES (NEW.key, NEW.value, NEW.scope, NEW.block, NEW.change)
  ON CONFLICT (scope, key, value, block) DO UPDATE SET count = count + excluded.count;
  DELETE FROM label_counts WHERE scope = NEW.scope AND key = NEW.key AND value = NEW.value AND block = NEW.block AND count = 0;
END;
-- +goose StatementEnd
INSERT INTO label_counts (key, value, scope, block, count)
SELECT key, value, scope, user_id >> 14, count(*) FROM labels GROUP BY 1, 2, 3, 4
UNION ALL SELECT key, value, '*', user_id >> 14, count(DISTINCT user_id) FROM labels GROUP BY 1, 2, 4;
-- Under the scope '*' counts who has the label in any.
-- +goose StatementBegin
CREATE TRIGGER labels_added AFTER INSERT ON labels BEGIN
  INSERT INTO label_count_changes (key, value, scope, block, change) VALUES (NEW.key, NEW.value, NEW.scope, NEW.user_id >> 14, 1);
  INSERT INTO label_count_changes (key, value, scope, block, change) SELECT NEW.key, NEW.value, '*', NEW.user_id >> 14, 1
  WHERE NOT EXISTS (
    SELECT 1 FROM labels AS l WHERE l.user_id = NEW.user_id AND l.key = NEW.key AND l.value = NEW.value AND l.id <> NEW.id);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER labels_changed AFTER UPDATE ON labels
WHEN OLD.key <> NEW.key OR OLD.value <> NEW.value OR OLD.scope <> NEW.scope OR OLD.user_id <> NEW.user_id
BEGIN
  INSERT INTO label_count_changes (key, value, scope, block, change) VALUES (OLD.key, OLD.value, OLD.scope, OLD.user_id >> 14, -1);
  INSERT INTO label_count_changes (key, value, scope, block, change) VALUES (NEW.key, NEW.value, NEW.scope, NEW.user_id >> 14, 1);
  INSERT INTO label_count_changes (key, value, scope, block, change) SELECT OLD.key, OLD.value, '*', OLD.user_id >> 14, -1
  WHERE NOT EXISTS (SELECT 1 FROM labels AS l WHERE l.user_id = OLD.user_id AND l.key = OLD.key AND l.value = OLD.value);
  INSERT INTO label_count_changes (key, value, scope, block, change) SELECT NEW.key, NEW.value, '*', NEW.user_id >> 14, 1
  WHERE (OLD.key <> NEW.key OR OLD.value <> NEW.value OR OLD.user_id <> NEW.user_id) AND NOT EXISTS (
    SELECT 1 FROM labels AS l WHERE l.user_id = NEW.user_id AND l.key = NEW.key AND l.value = NEW.value AND l.id <> NEW.id);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER labels_removed AFTER DELETE ON labels BEGIN
  INSERT INTO label_count_changes (key, value, scope, block, change) VALUES (OLD.key, OLD.value, OLD.scope, OLD.user_id >> 14, -1);
  INSERT INTO label_count_changes (key, value, scope, block, change) SELECT OLD.key, OLD.value, '*', OLD.user_id >> 14, -1
  WHERE NOT EXISTS (SELECT 1 FROM labels AS l WHERE l.user_id = OLD.user_id AND l.key = OLD.key AND l.value = OLD.value);
END;
-- +goose StatementEnd

-- Activities. The counts by day begin with what filters name, and have no shards, which nobody needs who does not wait.
DROP TRIGGER activities_added;
DROP TRIGGER activities_removed;
ALTER TABLE activity_counts RENAME TO activity_counts_sharded;
CREATE TABLE activity_counts (
  category TEXT NOT NULL,
  topic TEXT NOT NULL,
  action TEXT NOT NULL,
  result TEXT NOT NULL,
  day TEXT NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (category, topic, action, result, day)
) WITHOUT ROWID;
INSERT INTO activity_counts (category, topic, action, result, day, count)
SELECT category, topic, action, result, day, sum(count) FROM activity_counts_sharded GROUP BY 1, 2, 3, 4, 5 HAVING sum(count) <> 0;
DROP TABLE activity_counts_sharded;
CREATE VIEW activity_tallies AS SELECT category, topic, action, result, day, count FROM activity_counts;
CREATE VIEW activity_count_changes AS SELECT category, topic, action, result, day, count AS change FROM activity_counts;
-- +goose StatementBegin
CREATE TRIGGER activity_counts_change INSTEAD OF INSERT ON activity_count_changes BEGIN
  INSERT INTO activity_counts (category, topic, action, result, day, count)
  VALUES (NEW.category, NEW.topic, NEW.action, NEW.result, NEW.day, NEW.change)
  ON CONFLICT (category, topic, action, result, day) DO UPDATE SET count = count + excluded.count;
  DELETE FROM activity_counts WHERE category = NEW.category AND topic = NEW.topic AND action = NEW.action
    AND result = NEW.result AND day = NEW.day AND count = 0;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER activities_added AFTER INSERT ON activities BEGIN
  INSERT INTO activity_count_changes (category, topic, action, result, day, change)
  VALUES (NEW.category, CASE WHEN NEW.result <> 'denied' THEN NEW.topic ELSE '' END,
    CASE WHEN NEW.result <> 'denied' THEN NEW.action ELSE '' END, NEW.result, substr(NEW.created_at, 1, 10), 1);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER activities_removed AFTER DELETE ON activities BEGIN
  INSERT INTO activity_count_changes (category, topic, action, result, day, change)
  VALUES (OLD.category, CASE WHEN OLD.result <> 'denied' THEN OLD.topic ELSE '' END,
    CASE WHEN OLD.result <> 'denied' THEN OLD.action ELSE '' END, OLD.result, substr(OLD.created_at, 1, 10), -1);
END;
-- +goose StatementEnd

-- Indexes. Those that begin with the exact kind of a row serve every filter on a part of it: the counts say which kinds
-- there are.
DROP INDEX users_role;
DROP INDEX users_state;
DROP INDEX users_level;
DROP INDEX users_created_at;
DROP INDEX users_updated_at;
CREATE INDEX users_kind ON users (role, state, level, id);
CREATE INDEX users_created_at ON users (created_at, id, role, state, level);
CREATE INDEX users_updated_at ON users (updated_at, id, role, state, level);

DROP INDEX profiles_first_name_index;
DROP INDEX profiles_last_name_index;
CREATE INDEX profiles_first_name_index ON profiles (first_name_index, last_name_index, country, user_id);
CREATE INDEX profiles_last_name_index ON profiles (last_name_index, country, user_id);

DROP INDEX labels_key;
CREATE INDEX labels_key ON labels (key, value, scope, user_id);
CREATE INDEX labels_waiting ON labels (updated_at, user_id)
  WHERE scope = 'private' AND key = 'document' AND value IN ('pending', 'replaced');

DROP INDEX activities_user_id;
DROP INDEX activities_user_topic;
DROP INDEX activities_category;
DROP INDEX activities_topic;
DROP INDEX activities_action;
DROP INDEX activities_result;
DROP INDEX activities_metrics;
DROP INDEX activities_target_uid;
CREATE INDEX activities_kind ON activities (category, topic, action, result, created_at, id);
CREATE INDEX activities_user_id ON activities (user_id, created_at, id, category, topic, action, result);
CREATE INDEX activities_target_uid ON activities (target_uid, created_at, id, category, topic, action, result)
  WHERE target_uid IS NOT NULL;
CREATE INDEX activities_denied ON activities (category, created_at, id, topic, action) WHERE result = 'denied';

-- +goose Down
DROP INDEX activities_denied;
DROP INDEX activities_target_uid;
DROP INDEX activities_user_id;
DROP INDEX activities_kind;
CREATE INDEX activities_user_id ON activities (user_id, id);
CREATE INDEX activities_user_topic ON activities (user_id, topic, id);
CREATE INDEX activities_category ON activities (category, id);
CREATE INDEX activities_topic ON activities (category, topic, id);
CREATE INDEX activities_action ON activities (category, action, id);
CREATE INDEX activities_result ON activities (category, result, id);
CREATE INDEX activities_metrics ON activities (topic, action, result, created_at);
CREATE INDEX activities_target_uid ON activities (target_uid, id);
DROP INDEX labels_waiting;
DROP INDEX labels_key;
CREATE INDEX labels_key ON labels (key, value, scope, updated_at);
DROP INDEX profiles_last_name_index;
DROP INDEX profiles_first_name_index;
CREATE INDEX profiles_first_name_index ON profiles (first_name_index);
CREATE INDEX profiles_last_name_index ON profiles (last_name_index);
DROP INDEX users_updated_at;
DROP INDEX users_created_at;
DROP INDEX users_kind;
CREATE INDEX users_role ON users (role, id);
CREATE INDEX users_state ON users (state, id);
CREATE INDEX users_level ON users (level, id);
CREATE INDEX users_created_at ON users (created_at, id);
CREATE INDEX users_updated_at ON users (updated_at, id);

DROP TRIGGER activities_added;
DROP TRIGGER activities_removed;
DROP VIEW activity_count_changes;
DROP VIEW activity_tallies;
ALTER TABLE activity_counts RENAME TO activity_counts_by_kind;
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
SELECT day, category, topic, action, result, 0, count FROM activity_counts_by_kind;
DROP TABLE activity_counts_by_kind;
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

DROP TRIGGER labels_removed;
DROP TRIGGER labels_changed;
DROP TRIGGER labels_added;
DROP VIEW label_count_changes;
DROP VIEW label_tallies;
DROP TABLE label_counts;
DROP TRIGGER profiles_removed;
DROP TRIGGER profiles_changed;
DROP TRIGGER profiles_added;
DROP TRIGGER users_removed;
DROP TRIGGER users_changed;
DROP TRIGGER users_added;
DROP VIEW user_count_changes;
DROP VIEW user_tallies;
DROP TABLE user_counts;
