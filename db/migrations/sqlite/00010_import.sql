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
