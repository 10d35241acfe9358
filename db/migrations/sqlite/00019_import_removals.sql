-- +goose Up
-- The rows that an import wrote and that were deleted here since, so that the next one does not bring them back: a revoked API key
-- that works again, a rule that somebody took away. While an import deletes rows itself, a row without a name stands here, which
-- nobody else sees. Users are never deleted here.
CREATE TABLE import_removals (
  name TEXT NOT NULL,
  id INTEGER NOT NULL,
  PRIMARY KEY (name, id)
) WITHOUT ROWID;
-- +goose StatementBegin
CREATE TRIGGER totp_keys_removed_here AFTER DELETE ON totp_keys
WHEN OLD.source_updated_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM import_removals WHERE name = '')
BEGIN
  INSERT OR IGNORE INTO import_removals (name, id) VALUES ('totp_keys', OLD.user_id);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER profiles_removed_here AFTER DELETE ON profiles
WHEN OLD.source_updated_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM import_removals WHERE name = '')
BEGIN
  INSERT OR IGNORE INTO import_removals (name, id) VALUES ('profiles', OLD.id);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER phones_removed_here AFTER DELETE ON phones
WHEN OLD.source_updated_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM import_removals WHERE name = '')
BEGIN
  INSERT OR IGNORE INTO import_removals (name, id) VALUES ('phones', OLD.id);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER documents_removed_here AFTER DELETE ON documents
WHEN OLD.source_updated_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM import_removals WHERE name = '')
BEGIN
  INSERT OR IGNORE INTO import_removals (name, id) VALUES ('documents', OLD.id);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER labels_removed_here AFTER DELETE ON labels
WHEN OLD.source_updated_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM import_removals WHERE name = '')
BEGIN
  INSERT OR IGNORE INTO import_removals (name, id) VALUES ('labels', OLD.id);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER levels_removed_here AFTER DELETE ON levels
WHEN OLD.source_updated_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM import_removals WHERE name = '')
BEGIN
  INSERT OR IGNORE INTO import_removals (name, id) VALUES ('levels', OLD.id);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER permissions_removed_here AFTER DELETE ON permissions
WHEN OLD.source_updated_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM import_removals WHERE name = '')
BEGIN
  INSERT OR IGNORE INTO import_removals (name, id) VALUES ('permissions', OLD.id);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER restrictions_removed_here AFTER DELETE ON restrictions
WHEN OLD.source_updated_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM import_removals WHERE name = '')
BEGIN
  INSERT OR IGNORE INTO import_removals (name, id) VALUES ('restrictions', OLD.id);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER data_storages_removed_here AFTER DELETE ON data_storages
WHEN OLD.source_updated_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM import_removals WHERE name = '')
BEGIN
  INSERT OR IGNORE INTO import_removals (name, id) VALUES ('data_storages', OLD.id);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER apikeys_removed_here AFTER DELETE ON apikeys
WHEN OLD.source_updated_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM import_removals WHERE name = '')
BEGIN
  INSERT OR IGNORE INTO import_removals (name, id) VALUES ('apikeys', OLD.id);
END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER apikeys_removed_here;
DROP TRIGGER data_storages_removed_here;
DROP TRIGGER restrictions_removed_here;
DROP TRIGGER permissions_removed_here;
DROP TRIGGER levels_removed_here;
DROP TRIGGER labels_removed_here;
DROP TRIGGER documents_removed_here;
DROP TRIGGER phones_removed_here;
DROP TRIGGER profiles_removed_here;
DROP TRIGGER totp_keys_removed_here;
DROP TABLE import_removals;
