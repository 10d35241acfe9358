-- +goose Up
-- Exact totals and deep pages of the lists for staff. docs/lists.md tells how they are read, and what they cost.
--
-- Three tables of counts are kept by triggers: users and labels by blocks of 16,384 ids, activities by days. A list adds
-- them up to its total, and to the block or day where a page begins. Nobody waits for anybody to count: what changes is
-- inserted into a table of changes, and every 1,024th change adds those that are committed to the counts. The views
-- *_tallies are both together.
LOCK TABLE users, profiles, labels, activities IN SHARE ROW EXCLUSIVE MODE;

-- Seven days by number, as text that sorts like the numbers.
-- +goose StatementBegin
CREATE FUNCTION week_of(at TIMESTAMPTZ) RETURNS TEXT LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT lpad(greatest(0, least(9999, floor(extract(epoch FROM at) / 604800)))::bigint::text, 4, '0')
$$;
-- +goose StatementEnd

-- Users. Each counts once under the facet '', under the week of created and of updated, and under every country of their
-- profiles.
CREATE TABLE user_counts (
  facet TEXT COLLATE "C" NOT NULL,
  value TEXT COLLATE "C" NOT NULL,
  role TEXT NOT NULL,
  state TEXT NOT NULL,
  level BIGINT NOT NULL,
  block BIGINT NOT NULL,
  count BIGINT NOT NULL,
  PRIMARY KEY (facet, value, role, state, level, block)
);
CREATE TABLE user_count_changes (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  facet TEXT COLLATE "C" NOT NULL,
  value TEXT COLLATE "C" NOT NULL,
  role TEXT NOT NULL,
  state TEXT NOT NULL,
  level BIGINT NOT NULL,
  block BIGINT NOT NULL,
  change BIGINT NOT NULL
);
CREATE VIEW user_tallies AS
  SELECT facet, value, role, state, level, block, count FROM user_counts
  UNION ALL SELECT facet, value, role, state, level, block, change FROM user_count_changes;

-- +goose StatementBegin
CREATE FUNCTION user_counts_fold() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE c user_counts;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended('user_counts', 0)) THEN
    RETURN NULL; -- somebody else is at it
  END IF;
  FOR c IN
    WITH taken AS (DELETE FROM user_count_changes RETURNING *)
    INSERT INTO user_counts AS u (facet, value, role, state, level, block, count)
    SELECT facet, value, role, state, level, block, sum(change) FROM taken GROUP BY 1, 2, 3, 4, 5, 6 HAVING sum(change) <> 0
    ON CONFLICT (facet, value, role, state, level, block) DO UPDATE SET count = u.count + EXCLUDED.count
    RETURNING u.*
  LOOP
    IF c.count = 0 THEN
      DELETE FROM user_counts AS u WHERE u.facet = c.facet AND u.value = c.value AND u.role = c.role AND u.state = c.state
        AND u.level = c.level AND u.block = c.block;
    END IF;
  END LOOP;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER user_counts_fold AFTER INSERT ON user_count_changes
  FOR EACH ROW WHEN (NEW.id % 1024 = 0) EXECUTE FUNCTION user_counts_fold();

-- +goose StatementBegin
CREATE FUNCTION users_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT f.facet, f.value, u.role, u.state, u.level, u.id >> 14, count(*) FROM added AS u
  CROSS JOIN LATERAL (VALUES ('', ''), ('created', week_of(u.created_at)), ('updated', week_of(u.updated_at))) AS f (facet, value)
  GROUP BY 1, 2, 3, 4, 5, 6;
  RETURN NULL;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION users_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT f.facet, f.value, u.role, u.state, u.level, u.id >> 14, sum(u.change)
  FROM (
    SELECT id, role, state, level, created_at, updated_at, -1 AS change FROM gone
    UNION ALL SELECT id, role, state, level, created_at, updated_at, 1 FROM added
  ) AS u
  CROSS JOIN LATERAL (
    VALUES ('', ''), ('created', week_of(u.created_at)), ('updated', week_of(u.updated_at))
    UNION ALL SELECT DISTINCT 'country', p.country FROM profiles AS p WHERE p.user_id = u.id AND p.country IS NOT NULL
  ) AS f (facet, value)
  GROUP BY 1, 2, 3, 4, 5, 6 HAVING sum(u.change) <> 0;
  RETURN NULL;
END $$;
-- +goose StatementEnd
-- Before the row goes, while the profiles are still there.
-- +goose StatementBegin
CREATE FUNCTION users_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT f.facet, f.value, OLD.role, OLD.state, OLD.level, OLD.id >> 14, -1 FROM (
    VALUES ('', ''), ('created', week_of(OLD.created_at)), ('updated', week_of(OLD.updated_at))
    UNION ALL SELECT DISTINCT 'country', p.country FROM profiles AS p WHERE p.user_id = OLD.id AND p.country IS NOT NULL
  ) AS f (facet, value);
  RETURN OLD;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION users_emptied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM user_count_changes;
  DELETE FROM user_counts;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER users_added AFTER INSERT ON users
  REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION users_added();
CREATE TRIGGER users_changed AFTER UPDATE ON users
  REFERENCING OLD TABLE AS gone NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION users_changed();
CREATE TRIGGER users_removed BEFORE DELETE ON users FOR EACH ROW EXECUTE FUNCTION users_removed();
CREATE TRIGGER users_emptied AFTER TRUNCATE ON users FOR EACH STATEMENT EXECUTE FUNCTION users_emptied();

-- Profiles bring countries. One that a user has in two profiles counts once, so those who change the profiles, or the row,
-- of one user take turns.
-- +goose StatementBegin
CREATE FUNCTION profiles_recount(users_ BIGINT[], countries TEXT[], changes BIGINT[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF users_ IS NULL THEN
    RETURN;
  END IF;
  PERFORM 1 FROM users WHERE id = ANY (users_) ORDER BY id FOR NO KEY UPDATE;
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT 'country', t.country, u.role, u.state, u.level, u.id >> 14, sum(CASE WHEN p.now > 0 THEN 1 ELSE -1 END)
  FROM unnest(users_, countries, changes) AS t (user_id, country, change)
  JOIN users AS u ON u.id = t.user_id
  CROSS JOIN LATERAL (
    SELECT count(*) AS now FROM profiles AS p WHERE p.user_id = t.user_id AND p.country = t.country
  ) AS p
  WHERE (p.now > 0) <> (p.now - t.change > 0)
  GROUP BY 1, 2, 3, 4, 5, 6;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION profiles_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM profiles_recount(array_agg(user_id), array_agg(country), array_agg(n)) FROM (
    SELECT user_id, country, count(*) AS n FROM added WHERE country IS NOT NULL GROUP BY 1, 2
  ) AS t;
  RETURN NULL;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION profiles_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM profiles_recount(array_agg(user_id), array_agg(country), array_agg(n)) FROM (
    SELECT user_id, country, sum(n)::bigint AS n FROM (
      SELECT user_id, country, -1 AS n FROM gone UNION ALL SELECT user_id, country, 1 FROM added
    ) AS t WHERE country IS NOT NULL GROUP BY 1, 2 HAVING sum(n) <> 0
  ) AS t;
  RETURN NULL;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION profiles_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM profiles_recount(array_agg(user_id), array_agg(country), array_agg(n)) FROM (
    SELECT user_id, country, -count(*) AS n FROM gone WHERE country IS NOT NULL GROUP BY 1, 2
  ) AS t;
  RETURN NULL;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION profiles_emptied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM user_count_changes WHERE facet = 'country';
  DELETE FROM user_counts WHERE facet = 'country';
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER profiles_added AFTER INSERT ON profiles
  REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION profiles_added();
CREATE TRIGGER profiles_changed AFTER UPDATE ON profiles
  REFERENCING OLD TABLE AS gone NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION profiles_changed();
CREATE TRIGGER profiles_removed AFTER DELETE ON profiles
  REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION profiles_removed();
CREATE TRIGGER profiles_emptied AFTER TRUNCATE ON profiles FOR EACH STATEMENT EXECUTE FUNCTION profiles_emptied();

INSERT INTO user_counts (facet, value, role, state, level, block, count)
SELECT f.facet, f.value, u.role, u.state, u.level, u.id >> 14, count(*) FROM users AS u
CROSS JOIN LATERAL (VALUES ('', ''), ('created', week_of(u.created_at)), ('updated', week_of(u.updated_at))) AS f (facet, value)
GROUP BY 1, 2, 3, 4, 5, 6;
INSERT INTO user_counts (facet, value, role, state, level, block, count)
SELECT 'country', p.country, u.role, u.state, u.level, u.id >> 14, count(*)
FROM (SELECT DISTINCT user_id, country FROM profiles WHERE country IS NOT NULL) AS p JOIN users AS u ON u.id = p.user_id
GROUP BY 1, 2, 3, 4, 5, 6;

-- Labels.
CREATE TABLE label_counts (
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  scope TEXT NOT NULL,
  block BIGINT NOT NULL,
  count BIGINT NOT NULL,
  PRIMARY KEY (scope, key, value, block)
);
CREATE TABLE label_count_changes (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  scope TEXT NOT NULL,
  block BIGINT NOT NULL,
  change BIGINT NOT NULL
);
CREATE VIEW label_tallies AS
  SELECT key, value, scope, block, count FROM label_counts
  UNION ALL SELECT key, value, scope, block, change FROM label_count_changes;

-- +goose StatementBegin
CREATE FUNCTION label_counts_fold() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE c label_counts;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended('label_counts', 0)) THEN
    RETURN NULL;
  END IF;
  FOR c IN
    WITH taken AS (DELETE FROM label_count_changes RETURNING *)
    INSERT INTO label_counts AS l (key, value, scope, block, count)
    SELECT key, value, scope, block, sum(change) FROM taken GROUP BY 1, 2, 3, 4 HAVING sum(change) <> 0
    ON CONFLICT (scope, key, value, block) DO UPDATE SET count = l.count + EXCLUDED.count
    RETURNING l.*
  LOOP
    IF c.count = 0 THEN
      DELETE FROM label_counts AS l WHERE l.scope = c.scope AND l.key = c.key AND l.value = c.value AND l.block = c.block;
    END IF;
  END LOOP;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER label_counts_fold AFTER INSERT ON label_count_changes
  FOR EACH ROW WHEN (NEW.id % 1024 = 0) EXECUTE FUNCTION label_counts_fold();

-- Under the scope '*' counts who has the label in any, so those who change the labels, or the row, of one user take turns.
-- +goose StatementBegin
CREATE FUNCTION labels_recount(users_ BIGINT[], keys TEXT[], values_ TEXT[], scopes TEXT[], changes BIGINT[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  IF users_ IS NULL THEN
    RETURN;
  END IF;
  PERFORM 1 FROM users WHERE id = ANY (users_) ORDER BY id FOR NO KEY UPDATE;
  INSERT INTO label_count_changes (key, value, scope, block, change)
  SELECT key, value, scope, user_id >> 14, sum(change)
  FROM unnest(users_, keys, values_, scopes, changes) AS t (user_id, key, value, scope, change)
  GROUP BY 1, 2, 3, 4 HAVING sum(change) <> 0
  UNION ALL
  SELECT t.key, t.value, '*', t.user_id >> 14, sum(CASE WHEN l.now > 0 THEN 1 ELSE -1 END)
  FROM (
    SELECT user_id, key, value, sum(change) AS change
    FROM unnest(users_, keys, values_, changes) AS t (user_id, key, value, change) GROUP BY 1, 2, 3
  ) AS t
  CROSS JOIN LATERAL (
    SELECT count(*) AS now FROM labels AS l WHERE l.user_id = t.user_id AND l.key = t.key AND l.value = t.value
  ) AS l
  WHERE (l.now > 0) <> (l.now - t.change > 0)
  GROUP BY 1, 2, 4 HAVING sum(CASE WHEN l.now > 0 THEN 1 ELSE -1 END) <> 0;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION labels_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM labels_recount(array_agg(user_id), array_agg(key), array_agg(value), array_agg(scope), array_agg(1::bigint)) FROM added;
  RETURN NULL;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION labels_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM labels_recount(array_agg(user_id), array_agg(key), array_agg(value), array_agg(scope), array_agg(n)) FROM (
    SELECT user_id, key, value, scope, sum(n)::bigint AS n FROM (
      SELECT user_id, key, value, scope, -1 AS n FROM gone UNION ALL SELECT user_id, key, value, scope, 1 FROM added
    ) AS l GROUP BY 1, 2, 3, 4 HAVING sum(n) <> 0
  ) AS l;
  RETURN NULL;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION labels_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM labels_recount(array_agg(user_id), array_agg(key), array_agg(value), array_agg(scope), array_agg(-1::bigint)) FROM gone;
  RETURN NULL;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION labels_emptied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM label_count_changes;
  DELETE FROM label_counts;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER labels_added AFTER INSERT ON labels
  REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION labels_added();
CREATE TRIGGER labels_changed AFTER UPDATE ON labels
  REFERENCING OLD TABLE AS gone NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION labels_changed();
CREATE TRIGGER labels_removed AFTER DELETE ON labels
  REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION labels_removed();
CREATE TRIGGER labels_emptied AFTER TRUNCATE ON labels FOR EACH STATEMENT EXECUTE FUNCTION labels_emptied();

INSERT INTO label_counts (key, value, scope, block, count)
SELECT key, value, scope, user_id >> 14, count(*) FROM labels GROUP BY 1, 2, 3, 4
UNION ALL SELECT key, value, '*', user_id >> 14, count(DISTINCT user_id) FROM labels GROUP BY 1, 2, 4;

-- Activities. The counts by day lose their shards, which nobody needs who does not wait, and begin with what filters name.
ALTER TABLE activity_counts RENAME TO activity_counts_sharded;
ALTER INDEX activity_counts_pkey RENAME TO activity_counts_sharded_pkey;
CREATE TABLE activity_counts (
  category TEXT NOT NULL,
  topic TEXT NOT NULL,
  action TEXT NOT NULL,
  result TEXT NOT NULL,
  day TEXT COLLATE "C" NOT NULL,
  count BIGINT NOT NULL,
  PRIMARY KEY (category, topic, action, result, day)
);
CREATE TABLE activity_count_changes (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  category TEXT NOT NULL,
  topic TEXT NOT NULL,
  action TEXT NOT NULL,
  result TEXT NOT NULL,
  day TEXT COLLATE "C" NOT NULL,
  change BIGINT NOT NULL
);
CREATE VIEW activity_tallies AS
  SELECT category, topic, action, result, day, count FROM activity_counts
  UNION ALL SELECT category, topic, action, result, day, change FROM activity_count_changes;
INSERT INTO activity_counts (category, topic, action, result, day, count)
SELECT category, topic, action, result, day, sum(count) FROM activity_counts_sharded GROUP BY 1, 2, 3, 4, 5 HAVING sum(count) <> 0;
DROP TABLE activity_counts_sharded;

-- +goose StatementBegin
CREATE FUNCTION activity_counts_fold() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE c activity_counts;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended('activity_counts', 0)) THEN
    RETURN NULL;
  END IF;
  FOR c IN
    WITH taken AS (DELETE FROM activity_count_changes RETURNING *)
    INSERT INTO activity_counts AS a (category, topic, action, result, day, count)
    SELECT category, topic, action, result, day, sum(change) FROM taken GROUP BY 1, 2, 3, 4, 5 HAVING sum(change) <> 0
    ON CONFLICT (category, topic, action, result, day) DO UPDATE SET count = a.count + EXCLUDED.count
    RETURNING a.*
  LOOP
    IF c.count = 0 THEN
      DELETE FROM activity_counts AS a WHERE a.category = c.category AND a.topic = c.topic AND a.action = c.action
        AND a.result = c.result AND a.day = c.day;
    END IF;
  END LOOP;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER activity_counts_fold AFTER INSERT ON activity_count_changes
  FOR EACH ROW WHEN (NEW.id % 1024 = 0) EXECUTE FUNCTION activity_counts_fold();

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION activities_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO activity_count_changes (category, topic, action, result, day, change)
  SELECT category, CASE WHEN result <> 'denied' THEN topic ELSE '' END, CASE WHEN result <> 'denied' THEN action ELSE '' END,
    result, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), count(*)
  FROM added GROUP BY 1, 2, 3, 4, 5;
  RETURN NULL;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION activities_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO activity_count_changes (category, topic, action, result, day, change)
  SELECT category, CASE WHEN result <> 'denied' THEN topic ELSE '' END, CASE WHEN result <> 'denied' THEN action ELSE '' END,
    result, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), -count(*)
  FROM removed GROUP BY 1, 2, 3, 4, 5;
  RETURN NULL;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION activities_emptied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM activity_count_changes;
  DELETE FROM activity_counts;
  RETURN NULL;
END $$;
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
LOCK TABLE users, profiles, labels, activities IN SHARE ROW EXCLUSIVE MODE;
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

CREATE TABLE activity_counts_sharded (
  day TEXT COLLATE "C" NOT NULL,
  category TEXT NOT NULL,
  topic TEXT NOT NULL,
  action TEXT NOT NULL,
  result TEXT NOT NULL,
  shard BIGINT NOT NULL,
  count BIGINT NOT NULL,
  PRIMARY KEY (day, category, topic, action, result, shard)
);
INSERT INTO activity_counts_sharded (day, category, topic, action, result, shard, count)
SELECT day, category, topic, action, result, 0, sum(count) FROM activity_tallies GROUP BY 1, 2, 3, 4, 5;
DROP VIEW activity_tallies;
DROP TABLE activity_count_changes;
DROP TABLE activity_counts;
DROP FUNCTION activity_counts_fold();
ALTER TABLE activity_counts_sharded RENAME TO activity_counts;
ALTER INDEX activity_counts_sharded_pkey RENAME TO activity_counts_pkey;
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION activities_added() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE OR REPLACE FUNCTION activities_removed() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE OR REPLACE FUNCTION activities_emptied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM activity_counts;
  RETURN NULL;
END $$;
-- +goose StatementEnd

DROP TRIGGER labels_emptied ON labels;
DROP TRIGGER labels_removed ON labels;
DROP TRIGGER labels_changed ON labels;
DROP TRIGGER labels_added ON labels;
DROP FUNCTION labels_emptied();
DROP FUNCTION labels_removed();
DROP FUNCTION labels_changed();
DROP FUNCTION labels_added();
DROP FUNCTION labels_recount(BIGINT[], TEXT[], TEXT[], TEXT[], BIGINT[]);
DROP VIEW label_tallies;
DROP TABLE label_count_changes;
DROP FUNCTION label_counts_fold();
DROP TABLE label_counts;

DROP TRIGGER profiles_emptied ON profiles;
DROP TRIGGER profiles_removed ON profiles;
DROP TRIGGER profiles_changed ON profiles;
DROP TRIGGER profiles_added ON profiles;
DROP FUNCTION profiles_emptied();
DROP FUNCTION profiles_removed();
DROP FUNCTION profiles_changed();
DROP FUNCTION profiles_added();
DROP FUNCTION profiles_recount(BIGINT[], TEXT[], BIGINT[]);
DROP TRIGGER users_emptied ON users;
DROP TRIGGER users_removed ON users;
DROP TRIGGER users_changed ON users;
DROP TRIGGER users_added ON users;
DROP FUNCTION users_emptied();
DROP FUNCTION users_removed();
DROP FUNCTION users_changed();
DROP FUNCTION users_added();
DROP VIEW user_tallies;
DROP TABLE user_count_changes;
DROP FUNCTION user_counts_fold();
DROP TABLE user_counts;
DROP FUNCTION week_of(TIMESTAMPTZ);
