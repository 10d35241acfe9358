-- +goose Up
-- What "barong import" remembers: its runs, and of each row that it wrote when the row had last changed at its source. A
-- row that was changed here since has another updated_at, and is left alone by the next run.
CREATE TABLE imports (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  version TEXT NOT NULL,
  activities_through INTEGER NOT NULL,
  begun_at TIMESTAMP NOT NULL,
  finished_at TIMESTAMP NOT NULL
);
ALTER TABLE users ADD COLUMN source_updated_at TIMESTAMP;
ALTER TABLE totp_keys ADD COLUMN source_updated_at TIMESTAMP;
ALTER TABLE profiles ADD COLUMN source_updated_at TIMESTAMP;
ALTER TABLE phones ADD COLUMN source_updated_at TIMESTAMP;
ALTER TABLE documents ADD COLUMN source_updated_at TIMESTAMP;
ALTER TABLE labels ADD COLUMN source_updated_at TIMESTAMP;
ALTER TABLE levels ADD COLUMN source_updated_at TIMESTAMP;
ALTER TABLE permissions ADD COLUMN source_updated_at TIMESTAMP;
ALTER TABLE restrictions ADD COLUMN source_updated_at TIMESTAMP;
ALTER TABLE data_storages ADD COLUMN source_updated_at TIMESTAMP;
ALTER TABLE apikeys ADD COLUMN source_updated_at TIMESTAMP;

-- The labels of one user are few, those of one key and value are as many as there are users. The engine has no statistics,
-- and would look through the latter for each row; the plus signs keep it from that.
DROP TRIGGER labels_added;
-- +goose StatementBegin
CREATE TRIGGER labels_added AFTER INSERT ON labels BEGIN
  INSERT INTO label_count_changes (key, value, scope, block, change) VALUES (NEW.key, NEW.value, NEW.scope, NEW.user_id >> 14, 1);
  INSERT INTO label_count_changes (key, value, scope, block, change) SELECT NEW.key, NEW.value, '*', NEW.user_id >> 14, 1
  WHERE NOT EXISTS (
    SELECT 1 FROM labels AS l WHERE l.user_id = NEW.user_id AND +l.key = NEW.key AND +l.value = NEW.value AND l.id <> NEW.id);
END;
-- +goose StatementEnd
DROP TRIGGER labels_changed;
-- +goose StatementBegin
CREATE TRIGGER labels_changed AFTER UPDATE ON labels
WHEN OLD.key <> NEW.key OR OLD.value <> NEW.value OR OLD.scope <> NEW.scope OR OLD.user_id <> NEW.user_id
BEGIN
  INSERT INTO label_count_changes (key, value, scope, block, change) VALUES (OLD.key, OLD.value, OLD.scope, OLD.user_id >> 14, -1);
  INSERT INTO label_count_changes (key, value, scope, block, change) VALUES (NEW.key, NEW.value, NEW.scope, NEW.user_id >> 14, 1);
  INSERT INTO label_count_changes (key, value, scope, block, change) SELECT OLD.key, OLD.value, '*', OLD.user_id >> 14, -1
  WHERE NOT EXISTS (SELECT 1 FROM labels AS l WHERE l.user_id = OLD.user_id AND +l.key = OLD.key AND +l.value = OLD.value);
  INSERT INTO label_count_changes (key, value, scope, block, change) SELECT NEW.key, NEW.value, '*', NEW.user_id >> 14, 1
  WHERE (OLD.key <> NEW.key OR OLD.value <> NEW.value OR OLD.user_id <> NEW.user_id) AND NOT EXISTS (
    SELECT 1 FROM labels AS l WHERE l.user_id = NEW.user_id AND +l.key = NEW.key AND +l.value = NEW.value AND l.id <> NEW.id);
END;
-- +goose StatementEnd
DROP TRIGGER labels_removed;
-- +goose StatementBegin
CREATE TRIGGER labels_removed AFTER DELETE ON labels BEGIN
  INSERT INTO label_count_changes (key, value, scope, block, change) VALUES (OLD.key, OLD.value, OLD.scope, OLD.user_id >> 14, -1);
  INSERT INTO label_count_changes (key, value, scope, block, change) SELECT OLD.key, OLD.value, '*', OLD.user_id >> 14, -1
  WHERE NOT EXISTS (SELECT 1 FROM labels AS l WHERE l.user_id = OLD.user_id AND +l.key = OLD.key AND +l.value = OLD.value);
END;
-- +goose StatementEnd

-- +goose Down
ALTER TABLE apikeys DROP COLUMN source_updated_at;
ALTER TABLE data_storages DROP COLUMN source_updated_at;
ALTER TABLE restrictions DROP COLUMN source_updated_at;
ALTER TABLE permissions DROP COLUMN source_updated_at;
ALTER TABLE levels DROP COLUMN source_updated_at;
ALTER TABLE labels DROP COLUMN source_updated_at;
ALTER TABLE documents DROP COLUMN source_updated_at;
ALTER TABLE phones DROP COLUMN source_updated_at;
ALTER TABLE profiles DROP COLUMN source_updated_at;
ALTER TABLE totp_keys DROP COLUMN source_updated_at;
ALTER TABLE users DROP COLUMN source_updated_at;
DROP TABLE imports;
