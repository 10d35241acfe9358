package account

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"slices"
	"strings"
	"unicode/utf8"

	"filippo.io/edwards25519"

	"barong/db"
	"barong/internal/crypto/secret"
	"barong/internal/fault"
)

// A KeyRequest is what a user says of an API key that is to be made.
type KeyRequest struct {
	Algorithm string     // HS256, whose secret is made here, or Ed25519
	PublicKey db.NewText // of Ed25519: PEM, or base64 of its 32 bytes
	KID       db.NewText // is ignored, but for the codes of a refusal: the id is made here
	Scope     string     // words, separated by commas
}

// A KeyChange is what a user wants of an API key. What is not given stays.
type KeyChange struct {
	Scope    db.NewText // words, separated by commas
	State    db.NewText // active, inactive, or disabled, which is the same as inactive
	AnyState bool       // any word may be a state, as in release 2.4.17; only active keys sign
}

// CreateAPIKey makes an API key of a user, who is told by mail. The caller has proved the second factor.
func (s *Service) CreateAPIKey(ctx context.Context, user *db.User, c Client, r KeyRequest) (*db.APIKey, error) {
	made, err := r.key(user)
	if err != nil {
		return nil, err
	}
	var k *db.APIKey
	err = s.Update(ctx, func(ctx context.Context, u *Unit) error {
		if err := u.lockHolder(ctx, user); err != nil {
			return err
		}
		own := made // an attempt that is repeated begins anew
		k = &own
		if err := u.InsertAPIKey(ctx, k); err != nil {
			return err
		}
		if err := u.recordKey(ctx, user, c, "create"); err != nil {
			return err
		}
		return u.APIKeyCreated(ctx, user, k.KID)
	})
	return k, err
}

// key is the key that is asked for, or the codes of what is wrong with the request.
func (r *KeyRequest) key(user *db.User) (db.APIKey, error) {
	var wrong []fault.Code
	made := db.APIKey{UserID: user.ID, KID: secret.RandomHex(8), Algorithm: r.Algorithm, Scope: scopes(r.Scope), State: "active"}
	switch r.Algorithm {
	case "HS256":
		made.Secret = secret.RandomHex(16)
	case "Ed25519":
		var ok bool
		if !r.PublicKey.Given {
			wrong = append(wrong, "public_key.blank")
		} else if made.PublicKey, ok = parsePublicKey(*r.PublicKey.Sent()); !ok {
			wrong = append(wrong, "public_key.invalid")
		}
	default:
		if !strings.Contains(r.Algorithm, "HS") && !r.KID.Given {
			wrong = append(wrong, "kid.blank")
		}
		wrong = append(wrong, "algorithm.inclusion")
	}
	if utf8.RuneCountInString(r.Scope) > maxWords {
		wrong = append(wrong, "scope.too_long")
	}
	if len(wrong) > 0 {
		return made, fault.Invalid(wrong...)
	}
	return made, nil
}

// ChangeAPIKey changes scope or state of an API key of a user. One that they do not have is db.ErrNotFound.
func (s *Service) ChangeAPIKey(ctx context.Context, user *db.User, c Client, kid string, change KeyChange) (k *db.APIKey, err error) {
	err = s.Update(ctx, func(ctx context.Context, u *Unit) (err error) {
		if err := u.lockHolder(ctx, user); err != nil {
			return err
		}
		if k, err = u.UserAPIKey(ctx, user.ID, kid); err != nil {
			return err
		}
		if err := change.apply(k); err != nil {
			return err
		}
		if err := u.UpdateAPIKey(ctx, k); err != nil {
			return err
		}
		return u.recordKey(ctx, user, c, "update")
	})
	return k, err
}

func (c *KeyChange) apply(k *db.APIKey) error {
	if scope := c.Scope.Sent(); scope != nil {
		if utf8.RuneCountInString(*scope) > maxWords {
			return fault.Invalid("scope.too_long")
		}
		k.Scope = scopes(*scope)
	}
	if state := c.State.Sent(); state != nil {
		k.State = *state
		// The original's front end sends disabled for inactive.
		known := slices.Contains([]string{"active", "inactive", "disabled"}, k.State)
		switch {
		case !known && !c.AnyState:
			return fault.Invalid("state.inclusion")
		case utf8.RuneCountInString(k.State) > maxWords:
			return fault.Invalid("state.too_long")
		}
	}
	return nil
}

// DeleteAPIKey removes an API key of a user. One that they do not have is db.ErrNotFound.
func (s *Service) DeleteAPIKey(ctx context.Context, user *db.User, c Client, kid string) error {
	return s.Update(ctx, func(ctx context.Context, u *Unit) error {
		k, err := u.UserAPIKey(ctx, user.ID, kid)
		if err != nil {
			return err
		}
		if err := u.Tx.DeleteAPIKey(ctx, k); err != nil {
			return err
		}
		return u.recordKey(ctx, user, c, "delete")
	})
}

// lockHolder locks a user, who must still be one who may have keys: the account may have been closed, or its second factor
// switched off, since the call began, and with that its keys.
func (u *Unit) lockHolder(ctx context.Context, user *db.User) error {
	if err := u.Lock(ctx, user); err != nil {
		return err
	}
	switch {
	case !user.Open():
		return fault.New("authz.user_not_active")
	case !user.OTP:
		return fault.New("resource.api_key.2fa_disabled")
	}
	return nil
}

// recordKey records a change of API keys. The release that the other activities follow recorded none.
func (u *Unit) recordKey(ctx context.Context, user *db.User, c Client, action string) error {
	return u.Record(ctx, user, c, "api_key", action, Succeed, "")
}

// maxWords is the longest list of scopes as it is sent, and the longest state, in characters.
const maxWords = 255

// scopes splits a comma separated list. As ever, its items are not trimmed, and what is empty at its end is no item.
func scopes(text string) []string {
	if text = strings.TrimRight(text, ","); text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// parsePublicKey reads an Ed25519 public key: PEM (PKIX), or base64 of its 32 bytes. It reports false for any other text,
// and for the few points under which signatures of anybody are valid.
func parsePublicKey(text string) ([]byte, bool) {
	var public []byte
	if block, rest := pem.Decode([]byte(text)); block != nil {
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil || strings.TrimSpace(string(rest)) != "" {
			return nil, false
		}
		public, _ = parsed.(ed25519.PublicKey)
	} else {
		var err error
		text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(strings.TrimSpace(text), "="))
		if public, err = base64.RawStdEncoding.Strict().DecodeString(text); err != nil {
			return nil, false
		}
	}
	point, err := new(edwards25519.Point).SetBytes(public)
	if err != nil || !bytes.Equal(point.Bytes(), public) {
		return nil, false
	}
	return public, new(edwards25519.Point).MultByCofactor(point).Equal(edwards25519.NewIdentityPoint()) == 0
}
