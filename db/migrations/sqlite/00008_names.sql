-- +goose Up
-- Names are found without regard to case. Profiles whose blind indexes an older program wrote are made anew by the server,
-- since only it has the key; this finds them, and is empty when that is done.
CREATE INDEX profiles_not_folded ON profiles (id)
  WHERE substr(first_name_index, 1, 3) <> 'n1.' OR substr(last_name_index, 1, 3) <> 'n1.';

-- +goose Down
DROP INDEX profiles_not_folded;
