-- +goose Up
CREATE TABLE users (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  uid TEXT NOT NULL CHECK (length(uid) <= 255),
  email TEXT NOT NULL CHECK (length(email) <= 255),
  password_digest TEXT NOT NULL,
  role TEXT NOT NULL DEFAULT 'member',
  data TEXT,
  level INTEGER NOT NULL DEFAULT 0,
  otp BOOLEAN NOT NULL DEFAULT FALSE,
  state TEXT NOT NULL DEFAULT 'pending',
  state_manual BOOLEAN NOT NULL DEFAULT FALSE,
  referral_id INTEGER REFERENCES users (id) ON DELETE SET NULL,
  session_epoch INTEGER NOT NULL DEFAULT 0,
  created_at TIMESTAMP NOT NULL,
  updated_at TIMESTAMP NOT NULL
);
CREATE UNIQUE INDEX users_uid ON users (uid);
CREATE UNIQUE INDEX users_email ON users (lower(email));
CREATE INDEX users_role ON users (role, id);
CREATE INDEX users_state ON users (state, id);
CREATE INDEX users_level ON users (level, id);
CREATE INDEX users_created_at ON users (created_at, id);
CREATE INDEX users_updated_at ON users (updated_at, id);
CREATE INDEX users_referral_id ON users (referral_id);

CREATE TABLE totp_keys (
  user_id INTEGER PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
  secret TEXT NOT NULL,
  last_step INTEGER NOT NULL DEFAULT 0,
  created_at TIMESTAMP NOT NULL
);

CREATE TABLE recovery_codes (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  digest TEXT NOT NULL,
  used_at TIMESTAMP,
  created_at TIMESTAMP NOT NULL
);
CREATE UNIQUE INDEX recovery_codes_user_id ON recovery_codes (user_id, digest);

CREATE TABLE profiles (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  first_name TEXT,
  first_name_index TEXT,
  last_name TEXT,
  last_name_index TEXT,
  dob TEXT,
  address TEXT,
  postcode TEXT,
  city TEXT,
  country TEXT,
  state INTEGER NOT NULL DEFAULT 0,
  metadata TEXT,
  created_at TIMESTAMP NOT NULL,
  updated_at TIMESTAMP NOT NULL
);
CREATE INDEX profiles_user_id ON profiles (user_id);
CREATE INDEX profiles_first_name_index ON profiles (first_name_index);
CREATE INDEX profiles_last_name_index ON profiles (last_name_index);
CREATE INDEX profiles_country ON profiles (country, user_id);
CREATE UNIQUE INDEX profiles_open ON profiles (user_id) WHERE state IN (0, 1);

CREATE TABLE phones (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  country TEXT NOT NULL,
  number TEXT NOT NULL,
  number_index TEXT NOT NULL,
  code_digest TEXT,
  code_expires_at TIMESTAMP,
  code_attempts INTEGER NOT NULL DEFAULT 0,
  validated_at TIMESTAMP,
  created_at TIMESTAMP NOT NULL,
  updated_at TIMESTAMP NOT NULL
);
CREATE UNIQUE INDEX phones_user_id ON phones (user_id, number_index);
CREATE UNIQUE INDEX phones_verified ON phones (number_index) WHERE validated_at IS NOT NULL;
CREATE INDEX phones_number_index ON phones (number_index);

CREATE TABLE documents (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  upload TEXT,
  upload_name TEXT,
  content_type TEXT,
  doc_type TEXT,
  doc_number TEXT,
  doc_number_index TEXT,
  doc_expire TEXT,
  metadata TEXT,
  created_at TIMESTAMP NOT NULL,
  updated_at TIMESTAMP NOT NULL
);
CREATE INDEX documents_user_id ON documents (user_id);

CREATE TABLE labels (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  scope TEXT NOT NULL DEFAULT 'public' CHECK (scope IN ('public', 'private')),
  description TEXT,
  created_at TIMESTAMP NOT NULL,
  updated_at TIMESTAMP NOT NULL
);
CREATE UNIQUE INDEX labels_user_id ON labels (user_id, key, scope);
CREATE INDEX labels_key ON labels (key, value, scope, updated_at);

CREATE TABLE levels (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  key TEXT NOT NULL,
  value TEXT,
  description TEXT,
  created_at TIMESTAMP NOT NULL,
  updated_at TIMESTAMP NOT NULL
);
CREATE UNIQUE INDEX levels_key ON levels (key, value);

CREATE TABLE apikeys (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  kid TEXT NOT NULL,
  algorithm TEXT NOT NULL,
  scope TEXT,
  state TEXT NOT NULL DEFAULT 'active',
  secret TEXT NOT NULL,
  created_at TIMESTAMP NOT NULL,
  updated_at TIMESTAMP NOT NULL
);
CREATE UNIQUE INDEX apikeys_kid ON apikeys (kid);
CREATE INDEX apikeys_user_id ON apikeys (user_id, id);

CREATE TABLE activities (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL,
  target_uid TEXT,
  category TEXT NOT NULL CHECK (category IN ('admin', 'user')),
  user_ip TEXT NOT NULL,
  user_ip_country TEXT,
  user_agent TEXT NOT NULL,
  topic TEXT NOT NULL,
  action TEXT NOT NULL,
  result TEXT NOT NULL CHECK (result IN ('succeed', 'failed', 'denied')),
  data TEXT,
  count INTEGER NOT NULL DEFAULT 1,
  created_at TIMESTAMP NOT NULL
);
CREATE INDEX activities_user_id ON activities (user_id, id);
CREATE INDEX activities_user_topic ON activities (user_id, topic, id);
CREATE INDEX activities_category ON activities (category, id);
CREATE INDEX activities_topic ON activities (category, topic, action, id);
CREATE INDEX activities_action ON activities (category, action, id);
CREATE INDEX activities_target_uid ON activities (target_uid, id);
CREATE INDEX activities_created_at ON activities (category, created_at, id);
CREATE INDEX activities_metrics ON activities (topic, action, result, created_at);

CREATE TABLE permissions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  role TEXT NOT NULL,
  verb TEXT NOT NULL,
  path TEXT NOT NULL,
  action TEXT NOT NULL,
  topic TEXT,
  created_at TIMESTAMP NOT NULL,
  updated_at TIMESTAMP NOT NULL
);
CREATE INDEX permissions_role ON permissions (role);
CREATE INDEX permissions_topic ON permissions (topic);

CREATE TABLE restrictions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  category TEXT NOT NULL,
  scope TEXT NOT NULL,
  value TEXT NOT NULL,
  code INTEGER,
  state TEXT NOT NULL DEFAULT 'enabled',
  created_at TIMESTAMP NOT NULL,
  updated_at TIMESTAMP NOT NULL
);
CREATE UNIQUE INDEX restrictions_value ON restrictions (scope, category, value);

-- Who changed which rule, when, and how it stood before and after.
CREATE TABLE policy_changes (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER,
  uid TEXT,
  subject TEXT NOT NULL,
  subject_id INTEGER NOT NULL,
  action TEXT NOT NULL,
  before TEXT,
  after TEXT,
  created_at TIMESTAMP NOT NULL
);
CREATE INDEX policy_changes_subject ON policy_changes (subject, subject_id, id);

-- A bounded sample of recent decisions, to rehearse rule changes on.
CREATE TABLE decision_samples (
  role TEXT NOT NULL,
  verb TEXT NOT NULL,
  path TEXT NOT NULL,
  allowed BOOLEAN NOT NULL,
  count INTEGER NOT NULL,
  seen_at INTEGER NOT NULL,
  PRIMARY KEY (role, verb, path)
);
CREATE INDEX decision_samples_seen_at ON decision_samples (seen_at);

CREATE TABLE data_storages (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  title TEXT NOT NULL,
  data TEXT NOT NULL,
  created_at TIMESTAMP NOT NULL,
  updated_at TIMESTAMP NOT NULL
);
CREATE UNIQUE INDEX data_storages_title ON data_storages (user_id, lower(title));

-- What must leave the process after a commit: mails and events, sealed.
CREATE TABLE outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  topic TEXT NOT NULL,
  payload TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  next_at INTEGER NOT NULL,
  leased_until INTEGER NOT NULL DEFAULT 0,
  last_error TEXT,
  dead BOOLEAN NOT NULL DEFAULT FALSE,
  created_at TIMESTAMP NOT NULL
);
CREATE INDEX outbox_next_at ON outbox (kind, dead, next_at, id);

-- One-time tokens sent by mail: which is the latest of its kind, and which were used. Times are Unix milliseconds.
CREATE TABLE mail_tokens (
  jti TEXT PRIMARY KEY,
  user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  kind TEXT NOT NULL,
  expires_at INTEGER NOT NULL,
  used_at INTEGER
);
CREATE INDEX mail_tokens_user_id ON mail_tokens (user_id, kind);
CREATE INDEX mail_tokens_expires_at ON mail_tokens (expires_at);

CREATE TABLE whitelinks (
  digest TEXT PRIMARY KEY,
  user_id INTEGER,
  expires_at INTEGER NOT NULL,
  used_at INTEGER
);

CREATE TABLE sessions (
  key TEXT PRIMARY KEY,
  uid TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  csrf TEXT NOT NULL,
  ip TEXT NOT NULL,
  user_agent TEXT NOT NULL,
  country TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  seen_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  ends_at INTEGER NOT NULL
);
CREATE INDEX sessions_uid ON sessions (uid, created_at);
CREATE INDEX sessions_expires_at ON sessions (expires_at);

-- Notices for other processes on the same file: a command beside a running server.
CREATE TABLE bus_notices (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  origin TEXT NOT NULL,
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  created_at INTEGER NOT NULL
);

CREATE TABLE rate_counters (
  key TEXT PRIMARY KEY,
  window_start INTEGER NOT NULL,
  count INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
);
CREATE INDEX rate_counters_expires_at ON rate_counters (expires_at);

-- +goose Down
DROP TABLE rate_counters;
DROP TABLE bus_notices;
DROP TABLE sessions;
DROP TABLE whitelinks;
DROP TABLE mail_tokens;
DROP TABLE outbox;
DROP TABLE data_storages;
DROP TABLE decision_samples;
DROP TABLE policy_changes;
DROP TABLE restrictions;
DROP TABLE permissions;
DROP TABLE activities;
DROP TABLE apikeys;
DROP TABLE levels;
DROP TABLE labels;
DROP TABLE documents;
DROP TABLE phones;
DROP TABLE profiles;
DROP TABLE recovery_codes;
DROP TABLE totp_keys;
DROP TABLE users;
