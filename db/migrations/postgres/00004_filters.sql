-- +goose Up
-- What the filters of lists for staff still had to look up row by row. docs/lists.md tells how they are read, and what
-- they cost.
--
-- profile_facts and document_queue are narrow copies, kept by triggers, of what filters ask of a profile, or of documents
-- that wait, and of its owner: one index answers them. The counts of users get two facets more, for the countries by week
-- of created and of updated, and profiles are counted by blocks of their own ids.
LOCK TABLE users, profiles, labels IN SHARE ROW EXCLUSIVE MODE;

-- The facets of one country of a user. No country holds a slash.
-- +goose StatementBegin
CREATE FUNCTION country_weeks(country TEXT, created_at TIMESTAMPTZ, updated_at TIMESTAMPTZ) RETURNS TABLE (facet TEXT, value TEXT)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  VALUES ('country created', country || '/' || week_of(created_at)), ('country updated', country || '/' || week_of(updated_at))
$$;
-- +goose StatementEnd

INSERT INTO user_counts (facet, value, role, state, level, block, count)
SELECT f.facet, f.value, u.role, u.state, u.level, u.id >> 14, count(*)
FROM (SELECT DISTINCT user_id, country FROM profiles WHERE country IS NOT NULL) AS p JOIN users AS u ON u.id = p.user_id
CROSS JOIN LATERAL country_weeks(p.country, u.created_at, u.updated_at) AS f
GROUP BY 1, 2, 3, 4, 5, 6
UNION ALL SELECT 'profiles', '', '', '', 0, id >> 14, count(*) FROM profiles GROUP BY 6;

CREATE TABLE profile_facts (
  profile_id BIGINT NOT NULL,
  user_id BIGINT NOT NULL,
  first_name_index TEXT,
  last_name_index TEXT,
  country TEXT,
  role TEXT NOT NULL,
  state TEXT NOT NULL,
  level BIGINT NOT NULL,
  created_at TIMESTAMPTZ NOT NULL,
  updated_at TIMESTAMPTZ NOT NULL
);
INSERT INTO profile_facts
SELECT p.id, u.id, p.first_name_index, p.last_name_index, p.country, u.role, u.state, u.level, u.created_at, u.updated_at
FROM profiles AS p JOIN users AS u ON u.id = p.user_id ORDER BY p.id;
ALTER TABLE profile_facts ADD PRIMARY KEY (profile_id);
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
  label_id BIGINT PRIMARY KEY,
  user_id BIGINT NOT NULL,
  since TIMESTAMPTZ NOT NULL,
  role TEXT NOT NULL,
  state TEXT NOT NULL,
  level BIGINT NOT NULL,
  created_at TIMESTAMPTZ NOT NULL,
  updated_at TIMESTAMPTZ NOT NULL
);
INSERT INTO document_queue
SELECT l.id, u.id, l.updated_at, u.role, u.state, u.level, u.created_at, u.updated_at FROM labels AS l JOIN users AS u ON u.id = l.user_id
WHERE l.scope = 'private' AND l.key = 'document' AND l.value IN ('pending', 'replaced') ORDER BY l.updated_at;
CREATE INDEX document_queue_user_id ON document_queue (user_id);
CREATE INDEX document_queue_since ON document_queue (since, user_id, role, state, level, created_at, updated_at);
DROP INDEX labels_waiting;
ANALYZE profile_facts, document_queue, user_counts;

-- Users.
-- +goose StatementBegin
CREATE FUNCTION users_spread() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT f.facet, f.value, u.role, u.state, u.level, NEW.id >> 14, sum(u.change)
  FROM (SELECT DISTINCT p.country FROM profiles AS p WHERE p.user_id = NEW.id AND p.country IS NOT NULL) AS c
  CROSS JOIN (
    VALUES (OLD.role, OLD.state, OLD.level, OLD.created_at, OLD.updated_at, -1), (NEW.role, NEW.state, NEW.level, NEW.created_at, NEW.updated_at, 1)
  ) AS u (role, state, level, created_at, updated_at, change)
  CROSS JOIN LATERAL country_weeks(c.country, u.created_at, u.updated_at) AS f
  GROUP BY 1, 2, 3, 4, 5 HAVING sum(u.change) <> 0;
  UPDATE profile_facts SET role = NEW.role, state = NEW.state, level = NEW.level, created_at = NEW.created_at, updated_at = NEW.updated_at
  WHERE user_id = NEW.id;
  UPDATE document_queue SET role = NEW.role, state = NEW.state, level = NEW.level, created_at = NEW.created_at, updated_at = NEW.updated_at
  WHERE user_id = NEW.id;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER users_spread AFTER UPDATE ON users FOR EACH ROW
  WHEN ((OLD.role, OLD.state, OLD.level, OLD.created_at, OLD.updated_at)
    IS DISTINCT FROM (NEW.role, NEW.state, NEW.level, NEW.created_at, NEW.updated_at))
  EXECUTE FUNCTION users_spread();
-- Before the row goes, while the profiles are still there.
-- +goose StatementBegin
CREATE FUNCTION users_withdrawn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT f.facet, f.value, OLD.role, OLD.state, OLD.level, OLD.id >> 14, -1
  FROM (SELECT DISTINCT p.country FROM profiles AS p WHERE p.user_id = OLD.id AND p.country IS NOT NULL) AS c
  CROSS JOIN LATERAL country_weeks(c.country, OLD.created_at, OLD.updated_at) AS f;
  RETURN OLD;
END $$;
-- +goose StatementEnd
CREATE TRIGGER users_withdrawn BEFORE DELETE ON users FOR EACH ROW EXECUTE FUNCTION users_withdrawn();

-- Profiles.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION profiles_recount(users_ BIGINT[], countries TEXT[], changes BIGINT[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF users_ IS NULL THEN
    RETURN;
  END IF;
  PERFORM 1 FROM users WHERE id = ANY (users_) ORDER BY id FOR NO KEY UPDATE;
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT f.facet, f.value, u.role, u.state, u.level, u.id >> 14, sum(CASE WHEN p.now > 0 THEN 1 ELSE -1 END)
  FROM unnest(users_, countries, changes) AS t (user_id, country, change)
  JOIN users AS u ON u.id = t.user_id
  CROSS JOIN LATERAL (
    SELECT count(*) AS now FROM profiles AS p WHERE p.user_id = t.user_id AND p.country = t.country
  ) AS p
  CROSS JOIN LATERAL (
    VALUES ('country', t.country) UNION ALL SELECT w.facet, w.value FROM country_weeks(t.country, u.created_at, u.updated_at) AS w
  ) AS f (facet, value)
  WHERE (p.now > 0) <> (p.now - t.change > 0)
  GROUP BY 1, 2, 3, 4, 5, 6;
END $$;
-- +goose StatementEnd
-- Who adds a profile, or changes one, and who changes the user take turns, so that the facts are those of both.
-- +goose StatementBegin
CREATE FUNCTION profiles_listed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM users WHERE id IN (OLD.user_id, NEW.user_id) ORDER BY id FOR NO KEY UPDATE;
  IF TG_OP <> 'INSERT' THEN
    DELETE FROM profile_facts WHERE profile_id = OLD.id;
  END IF;
  IF TG_OP <> 'DELETE' THEN
    INSERT INTO profile_facts
    SELECT NEW.id, u.id, NEW.first_name_index, NEW.last_name_index, NEW.country, u.role, u.state, u.level, u.created_at, u.updated_at
    FROM users AS u WHERE u.id = NEW.user_id;
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER profiles_listed AFTER INSERT OR DELETE ON profiles FOR EACH ROW EXECUTE FUNCTION profiles_listed();
CREATE TRIGGER profiles_listed_anew AFTER UPDATE ON profiles FOR EACH ROW
  WHEN ((OLD.id, OLD.user_id, OLD.first_name_index, OLD.last_name_index, OLD.country)
    IS DISTINCT FROM (NEW.id, NEW.user_id, NEW.first_name_index, NEW.last_name_index, NEW.country))
  EXECUTE FUNCTION profiles_listed();
-- +goose StatementBegin
CREATE FUNCTION profiles_counted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO user_count_changes (facet, value, role, state, level, block, change)
  SELECT 'profiles', '', '', '', 0, id >> 14, CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END * count(*) FROM changed GROUP BY 6;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER profiles_counted AFTER INSERT ON profiles
  REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION profiles_counted();
CREATE TRIGGER profiles_discounted AFTER DELETE ON profiles
  REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION profiles_counted();
-- +goose StatementBegin
CREATE FUNCTION profiles_cleared() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM profile_facts;
  DELETE FROM user_count_changes WHERE facet IN ('profiles', 'country created', 'country updated');
  DELETE FROM user_counts WHERE facet IN ('profiles', 'country created', 'country updated');
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER profiles_cleared AFTER TRUNCATE ON profiles FOR EACH STATEMENT EXECUTE FUNCTION profiles_cleared();

-- Labels.
-- +goose StatementBegin
CREATE FUNCTION labels_queued() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM users WHERE id IN (OLD.user_id, NEW.user_id) ORDER BY id FOR NO KEY UPDATE;
  IF TG_OP <> 'INSERT' THEN
    DELETE FROM document_queue WHERE label_id = OLD.id;
  END IF;
  IF TG_OP <> 'DELETE' AND NEW.scope = 'private' AND NEW.key = 'document' AND NEW.value IN ('pending', 'replaced') THEN
    INSERT INTO document_queue
    SELECT NEW.id, u.id, NEW.updated_at, u.role, u.state, u.level, u.created_at, u.updated_at FROM users AS u WHERE u.id = NEW.user_id;
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER labels_queued AFTER INSERT ON labels FOR EACH ROW
  WHEN (NEW.key = 'document') EXECUTE FUNCTION labels_queued();
CREATE TRIGGER labels_queued_anew AFTER UPDATE ON labels FOR EACH ROW
  WHEN (OLD.key = 'document' OR NEW.key = 'document') EXECUTE FUNCTION labels_queued();
CREATE TRIGGER labels_dequeued AFTER DELETE ON labels FOR EACH ROW
  WHEN (OLD.key = 'document') EXECUTE FUNCTION labels_queued();
-- +goose StatementBegin
CREATE FUNCTION labels_cleared() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM document_queue;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER labels_cleared AFTER TRUNCATE ON labels FOR EACH STATEMENT EXECUTE FUNCTION labels_cleared();

-- +goose Down
LOCK TABLE users, profiles, labels IN SHARE ROW EXCLUSIVE MODE;
DROP TRIGGER labels_cleared ON labels;
DROP TRIGGER labels_dequeued ON labels;
DROP TRIGGER labels_queued_anew ON labels;
DROP TRIGGER labels_queued ON labels;
DROP FUNCTION labels_cleared();
DROP FUNCTION labels_queued();
CREATE INDEX labels_waiting ON labels (updated_at, user_id)
  WHERE scope = 'private' AND key = 'document' AND value IN ('pending', 'replaced');
DROP TABLE document_queue;

DROP TRIGGER profiles_cleared ON profiles;
DROP TRIGGER profiles_discounted ON profiles;
DROP TRIGGER profiles_counted ON profiles;
DROP TRIGGER profiles_listed_anew ON profiles;
DROP TRIGGER profiles_listed ON profiles;
DROP FUNCTION profiles_cleared();
DROP FUNCTION profiles_counted();
DROP FUNCTION profiles_listed();
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION profiles_recount(users_ BIGINT[], countries TEXT[], changes BIGINT[]) RETURNS void LANGUAGE plpgsql AS $$
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
CREATE INDEX profiles_first_name_index ON profiles (first_name_index, last_name_index, country, user_id);
CREATE INDEX profiles_last_name_index ON profiles (last_name_index, country, user_id);
CREATE INDEX profiles_country ON profiles (country, user_id);
DROP TABLE profile_facts;

DROP TRIGGER users_withdrawn ON users;
DROP TRIGGER users_spread ON users;
DROP FUNCTION users_withdrawn();
DROP FUNCTION users_spread();
DROP FUNCTION country_weeks(TEXT, TIMESTAMPTZ, TIMESTAMPTZ);
DELETE FROM user_count_changes WHERE facet IN ('profiles', 'country created', 'country updated');
DELETE FROM user_counts WHERE facet IN ('profiles', 'country created', 'country updated');
