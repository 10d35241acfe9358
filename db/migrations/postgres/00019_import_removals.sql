-- +goose Up
-- The rows that an import wrote and that were deleted here since, so that the next one does not bring them back: a revoked API key
-- that works again, a rule that somebody took away. While an import deletes rows itself, a row without a name stands here, which
-- nobody else sees. Users are never deleted here.
CREATE TABLE import_removals (
  name TEXT NOT NULL,
  id BIGINT NOT NULL,
  PRIMARY KEY (name, id)
);
-- +goose StatementBegin
CREATE FUNCTION note_import_removal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM import_removals WHERE name = '') THEN
    INSERT INTO import_removals (name, id) VALUES (TG_TABLE_NAME, (to_jsonb(OLD) ->> TG_ARGV[0])::bigint) ON CONFLICT DO NOTHING;
  END IF;
  RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER totp_keys_removed_here AFTER DELETE ON totp_keys FOR EACH ROW
WHEN (OLD.source_updated_at IS NOT NULL) EXECUTE FUNCTION note_import_removal('user_id');
CREATE TRIGGER profiles_removed_here AFTER DELETE ON profiles FOR EACH ROW
WHEN (OLD.source_updated_at IS NOT NULL) EXECUTE FUNCTION note_import_removal('id');
CREATE TRIGGER phones_removed_here AFTER DELETE ON phones FOR EACH ROW
WHEN (OLD.source_updated_at IS NOT NULL) EXECUTE FUNCTION note_import_removal('id');
CREATE TRIGGER documents_removed_here AFTER DELETE ON documents FOR EACH ROW
WHEN (OLD.source_updated_at IS NOT NULL) EXECUTE FUNCTION note_import_removal('id');
CREATE TRIGGER labels_removed_here AFTER DELETE ON labels FOR EACH ROW
WHEN (OLD.source_updated_at IS NOT NULL) EXECUTE FUNCTION note_import_removal('id');
CREATE TRIGGER levels_removed_here AFTER DELETE ON levels FOR EACH ROW
WHEN (OLD.source_updated_at IS NOT NULL) EXECUTE FUNCTION note_import_removal('id');
CREATE TRIGGER permissions_removed_here AFTER DELETE ON permissions FOR EACH ROW
WHEN (OLD.source_updated_at IS NOT NULL) EXECUTE FUNCTION note_import_removal('id');
CREATE TRIGGER restrictions_removed_here AFTER DELETE ON restrictions FOR EACH ROW
WHEN (OLD.source_updated_at IS NOT NULL) EXECUTE FUNCTION note_import_removal('id');
CREATE TRIGGER data_storages_removed_here AFTER DELETE ON data_storages FOR EACH ROW
WHEN (OLD.source_updated_at IS NOT NULL) EXECUTE FUNCTION note_import_removal('id');
CREATE TRIGGER apikeys_removed_here AFTER DELETE ON apikeys FOR EACH ROW
WHEN (OLD.source_updated_at IS NOT NULL) EXECUTE FUNCTION note_import_removal('id');

-- +goose Down
DROP TRIGGER apikeys_removed_here ON apikeys;
DROP TRIGGER data_storages_removed_here ON data_storages;
DROP TRIGGER restrictions_removed_here ON restrictions;
DROP TRIGGER permissions_removed_here ON permissions;
DROP TRIGGER levels_removed_here ON levels;
DROP TRIGGER labels_removed_here ON labels;
DROP TRIGGER documents_removed_here ON documents;
DROP TRIGGER phones_removed_here ON phones;
DROP TRIGGER profiles_removed_here ON profiles;
DROP TRIGGER totp_keys_removed_here ON totp_keys;
DROP FUNCTION note_import_removal();
DROP TABLE import_removals;
