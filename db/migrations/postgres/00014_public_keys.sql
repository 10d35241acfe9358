-- +goose Up
-- The public key of an API key that signs with Ed25519: base64 of 32 bytes. Such a key has no secret.
ALTER TABLE apikeys ADD COLUMN public_key TEXT;

-- +goose Down
ALTER TABLE apikeys DROP COLUMN public_key;
