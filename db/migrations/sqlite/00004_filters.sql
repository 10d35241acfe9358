-- +goose Up
-- What the filters of lists for staff still had to look up row by row. docs/lists.md tells how they are read, and what
-- they cost.
--
-- profile_facts and document_queue are narrow copies, kept by triggers, of what filters ask of a profile, or of documents
-- that wait, and of its owner: one index answers them. The counts of users get two facets more, for the countries by week
-- of created and of updated (no country holds a slash), and profiles are counted by blocks of their own ids.
INSERT INTO user_counts (facet, value, role, state, level, block, count)
SELECT 'country created', p.country || '/' || printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(u.created_at, 1, 19)) / 604800, 0)))),
  u.role, u.state, u.level, u.id >> 14, count(*)
FROM (SELECT DISTINCT user_id, country FROM profiles WHERE country IS NOT NULL) AS p JOIN users AS u ON u.id = p.user_id
GROUP BY 1, 2, 3, 4, 5, 6
UNION ALL SELECT 'country updated', p.country || '/' || printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(u.updated_at, 1, 19)) / 604800, 0)))),
  u.role, u.state, u.level, u.id >> 14, count(*)
FROM (SELECT DISTINCT user_id, country FROM profiles WHERE country IS NOT NULL) AS p JOIN users AS u ON u.id = p.user_id
GROUP BY 1, 2, 3, 4, 5, 6
UNION ALL SELECT 'profiles', '', '', '', 0, id >> 14, count(*) FROM profiles GROUP BY 6;

CREATE TABLE profile_facts (
  profile_id INTEGER PRIMARY KEY,
  user_id INTEGER NOT NULL,
  first_name_index TEXT,
  last_name_index TEXT,
  country TEXT,
  role TEXT NOT NULL,
  state TEXT NOT NULL,
  level INTEGER NOT NULL,
  created_at TIMESTAMP NOT NULL,
  updated_at TIMESTAMP NOT NULL
);
INSERT INTO profile_facts
SELECT p.id, u.id, p.first_name_index, p.last_name_index, p.country, u.role, u.state, u.level, u.created_at, u.updated_at
FROM profiles AS p JOIN users AS u ON u.id = p.user_id ORDER BY p.id;
CREATE INDEX profile_facts_user_id ON profile_facts (user_id);
CREATE INDEX profile_facts_first_name ON profile_facts
  (first_name_index, last_name_index, country, user_id, role, state, level, created_at, updated_at);
CREATE INDEX profile_facts_last_name ON profile_facts
  (last_name_index, country, user_id, role, state, level, created_at, updated_at);
CREATE INDEX profile_facts_country ON profile_facts (country, user_id, role, state, level, created_at, updated_at);
DROP INDEX profiles_first_name_index;
DROP INDEX profiles_last_name_index;
DROP INDEX profiles_country;

CREATE TABLE document_queue (
  label_id INTEGER PRIMARY KEY,
  user_id INTEGER NOT NULL,
  since TIMESTAMP NOT NULL,
  role TEXT NOT NULL,
  state TEXT NOT NULL,
  level INTEGER NOT NULL,
  created_at TIMESTAMP NOT NULL,
  updated_at TIMESTAMP NOT NULL
);
INSERT INTO document_queue
SELECT l.id, u.id, l.updated_at, u.role, u.state, u.level, u.created_at, u.updated_at FROM labels AS l JOIN users AS u ON u.id = l.user_id
WHERE l.scope = 'private' AND l.key = 'document' AND l.value IN ('pending', 'replaced') ORDER BY l.updated_at;
CREATE INDEX document_queue_user_id ON document_queue (user_id);
CREATE INDEX document_queue_since ON document_queue (since, user_id, role, state, level, created_at, updated_at);
DROP INDEX labels_waiting;

-- Users.
-- +goose StatementBegin
CREATE TRIGGER users_spread AFTER UPDATE ON users
WHEN OLD.role <> NEW.role OR OLD.state <> NEW.state OR OLD.level <> NEW.level OR OLD.created_at <> NEW.created_at
  OR OLD.updated_at <> NEW.updated_at
BEGIN
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT 'country created', c.country || '/' || printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(OLD.created_at, 1, 19)) / 604800, 0)))),
    OLD.role, OLD.state, OLD.level, OLD.id >> 14, -1 FROM (SELECT DISTINCT country FROM profiles WHERE user_id = OLD.id AND country IS NOT NULL) AS c
  UNION ALL SELECT 'country updated', c.country || '/' || printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(OLD.updated_at, 1, 19)) / 604800, 0)))),
    OLD.role, OLD.state, OLD.level, OLD.id >> 14, -1 FROM (SELECT DISTINCT country FROM profiles WHERE user_id = OLD.id AND country IS NOT NULL) AS c;
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT 'country created', c.country || '/' || printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(NEW.created_at, 1, 19)) / 604800, 0)))),
    NEW.role, NEW.state, NEW.level, NEW.id >> 14, 1 FROM (SELECT DISTINCT country FROM profiles WHERE user_id = NEW.id AND country IS NOT NULL) AS c
  UNION ALL SELECT 'country updated', c.country || '/' || printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(NEW.updated_at, 1, 19)) / 604800, 0)))),
    NEW.role, NEW.state, NEW.level, NEW.id >> 14, 1 FROM (SELECT DISTINCT country FROM profiles WHERE user_id = NEW.id AND country IS NOT NULL) AS c;
  UPDATE profile_facts SET role = NEW.role, state = NEW.state, level = NEW.level, created_at = NEW.created_at, updated_at = NEW.updated_at
  WHERE user_id = NEW.id;
  UPDATE document_queue SET role = NEW.role, state = NEW.state, level = NEW.level, created_at = NEW.created_at, updated_at = NEW.updated_at
  WHERE user_id = NEW.id;
END;
-- +goose StatementEnd
-- Before the row goes, while the profiles are still there.
-- +goose StatementBegin
CREATE TRIGGER users_withdrawn BEFORE DELETE ON users BEGIN
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT 'country created', c.country || '/' || printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(OLD.created_at, 1, 19)) / 604800, 0)))),
    OLD.role, OLD.state, OLD.level, OLD.id >> 14, -1 FROM (SELECT DISTINCT country FROM profiles WHERE user_id = OLD.id AND country IS NOT NULL) AS c
  UNION ALL SELECT 'country updated', c.country || '/' || printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(OLD.updated_at, 1, 19)) / 604800, 0)))),
    OLD.role, OLD.state, OLD.level, OLD.id >> 14, -1 FROM (SELECT DISTINCT country FROM profiles WHERE user_id = OLD.id AND country IS NOT NULL) AS c;
END;
-- +goose StatementEnd

-- Profiles.
-- +goose StatementBegin
CREATE TRIGGER profiles_listed AFTER INSERT ON profiles BEGIN
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT 'country created', NEW.country || '/' || printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(u.created_at, 1, 19)) / 604800, 0)))),
    u.role, u.state, u.level, u.id >> 14, 1 FROM users AS u
  WHERE u.id = NEW.user_id AND NEW.country IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM profiles AS p WHERE p.user_id = NEW.user_id AND p.country = NEW.country AND p.id <> NEW.id);
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT 'country updated', NEW.country || '/' || printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(u.updated_at, 1, 19)) / 604800, 0)))),
    u.role, u.state, u.level, u.id >> 14, 1 FROM users AS u
  WHERE u.id = NEW.user_id AND NEW.country IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM profiles AS p WHERE p.user_id = NEW.user_id AND p.country = NEW.country AND p.id <> NEW.id);
  INSERT INTO profile_facts
  SELECT NEW.id, u.id, NEW.first_name_index, NEW.last_name_index, NEW.country, u.role, u.state, u.level, u.created_at, u.updated_at
  FROM users AS u WHERE u.id = NEW.user_id;
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change) VALUES ('profiles', '', '', '', 0, NEW.id >> 14, 1);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER profiles_listed_anew AFTER UPDATE ON profiles
WHEN OLD.user_id <> NEW.user_id OR OLD.first_name_index IS NOT NEW.first_name_index OR OLD.last_name_index IS NOT NEW.last_name_index
  OR OLD.country IS NOT NEW.country
BEGIN
  DELETE FROM profile_facts WHERE profile_id = OLD.id;
  INSERT INTO profile_facts
  SELECT NEW.id, u.id, NEW.first_name_index, NEW.last_name_index, NEW.country, u.role, u.state, u.level, u.created_at, u.updated_at
  FROM users AS u WHERE u.id = NEW.user_id;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER profiles_moved AFTER UPDATE ON profiles
WHEN OLD.country IS NOT NEW.country OR OLD.user_id <> NEW.user_id
BEGIN
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT 'country created', OLD.country || '/' || printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(u.created_at, 1, 19)) / 604800, 0)))),
    u.role, u.state, u.level, u.id >> 14, -1 FROM users AS u
  WHERE u.id = OLD.user_id AND OLD.country IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM profiles AS p WHERE p.user_id = OLD.user_id AND p.country = OLD.country);
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT 'country updated', OLD.country || '/' || printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(u.updated_at, 1, 19)) / 604800, 0)))),
    u.role, u.state, u.level, u.id >> 14, -1 FROM users AS u
  WHERE u.id = OLD.user_id AND OLD.country IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM profiles AS p WHERE p.user_id = OLD.user_id AND p.country = OLD.country);
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT 'country created', NEW.country || '/' || printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(u.created_at, 1, 19)) / 604800, 0)))),
    u.role, u.state, u.level, u.id >> 14, 1 FROM users AS u
  WHERE u.id = NEW.user_id AND NEW.country IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM profiles AS p WHERE p.user_id = NEW.user_id AND p.country = NEW.country AND p.id <> NEW.id);
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT 'country updated', NEW.country || '/' || printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(u.updated_at, 1, 19)) / 604800, 0)))),
    u.role, u.state, u.level, u.id >> 14, 1 FROM users AS u
  WHERE u.id = NEW.user_id AND NEW.country IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM profiles AS p WHERE p.user_id = NEW.user_id AND p.country = NEW.country AND p.id <> NEW.id);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER profiles_unlisted AFTER DELETE ON profiles BEGIN
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT 'country created', OLD.country || '/' || printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(u.created_at, 1, 19)) / 604800, 0)))),
    u.role, u.state, u.level, u.id >> 14, -1 FROM users AS u
  WHERE u.id = OLD.user_id AND OLD.country IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM profiles AS p WHERE p.user_id = OLD.user_id AND p.country = OLD.country);
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT 'country updated', OLD.country || '/' || printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(u.updated_at, 1, 19)) / 604800, 0)))),
    u.role, u.state, u.level, u.id >> 14, -1 FROM users AS u
  WHERE u.id = OLD.user_id AND OLD.country IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM profiles AS p WHERE p.user_id = OLD.user_id AND p.country = OLD.country);
  DELETE FROM profile_facts WHERE profile_id = OLD.id;
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change) VALUES ('profiles', '', '', '', 0, OLD.id >> 14, -1);
END;
-- +goose StatementEnd

-- Labels.
-- +goose StatementBegin
CREATE TRIGGER labels_queued AFTER INSERT ON labels WHEN NEW.key = 'document' BEGIN
  INSERT INTO document_queue
  SELECT NEW.id, u.id, NEW.updated_at, u.role, u.state, u.level, u.created_at, u.updated_at FROM users AS u
  WHERE u.id = NEW.user_id AND NEW.scope = 'private' AND NEW.key = 'document' AND NEW.value IN ('pending', 'replaced');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER labels_queued_anew AFTER UPDATE ON labels WHEN OLD.key = 'document' OR NEW.key = 'document' BEGIN
  DELETE FROM document_queue WHERE label_id = OLD.id;
  INSERT INTO document_queue
  SELECT NEW.id, u.id, NEW.updated_at, u.role, u.state, u.level, u.created_at, u.updated_at FROM users AS u
  WHERE u.id = NEW.user_id AND NEW.scope = 'private' AND NEW.key = 'document' AND NEW.value IN ('pending', 'replaced');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER labels_dequeued AFTER DELETE ON labels WHEN OLD.key = 'document' BEGIN
  DELETE FROM document_queue WHERE label_id = OLD.id;
END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER labels_dequeued;
DROP TRIGGER labels_queued_anew;
DROP TRIGGER labels_queued;
CREATE INDEX labels_waiting ON labels (updated_at, user_id)
  WHERE scope = 'private' AND key = 'document' AND value IN ('pending', 'replaced');
DROP TABLE document_queue;
DROP TRIGGER profiles_unlisted;
DROP TRIGGER profiles_moved;
DROP TRIGGER profiles_listed_anew;
DROP TRIGGER profiles_listed;
CREATE INDEX profiles_first_name_index ON profiles (first_name_index, last_name_index, country, user_id);
CREATE INDEX profiles_last_name_index ON profiles (last_name_index, country, user_id);
CREATE INDEX profiles_country ON profiles (country, user_id);
DROP TABLE profile_facts;
DROP TRIGGER users_withdrawn;
DROP TRIGGER users_spread;
DELETE FROM user_counts WHERE facet IN ('profiles', 'country created', 'country updated');
