package resource

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"filippo.io/edwards25519"

	"barong/api/account"
	"barong/api/rest"
	"barong/api/view"
	"barong/db"
	"barong/internal/crypto/secret"
	"barong/internal/fault"
)

// Reasons in the activities of the second factor.
const (
	alreadyEnabled = "2FA has been already enabled for this account"
	notEnabled     = "2FA has not been enabled for this account"
	wrongCode      = "OTP code is invalid"
)

// refuseOTP records a failed attempt and returns why.
func (m *Module) refuseOTP(ctx context.Context, c *rest.Call, action, reason string, f *fault.Error) error {
	if err := m.record(ctx, c, "otp", action, account.Failed, reason); err != nil {
		return err
	}
	return f
}

// useCode uses up a code of the caller's second factor; a wrong one is recorded.
func (m *Module) useCode(ctx context.Context, c *rest.Call, action string) error {
	var in struct {
		Code string `param:"code"`
	}
	c.Into(&in)
	err := m.Accounts.VerifyTOTP(ctx, c.User, in.Code)
	if errors.Is(err, account.ErrWrongCode) {
		return m.refuseOTP(ctx, c, action, wrongCode, fault.New("resource.otp.invalid"))
	}
	return err
}

// qrEnvelope is the answer of the secret store that the original passed on; front ends read data from it.
type qrEnvelope struct {
	Auth          any    `json:"auth"`
	Data          qrData `json:"data"`
	LeaseDuration int    `json:"lease_duration"`
	LeaseID       string `json:"lease_id"`
	Metadata      any    `json:"metadata"`
	Renewable     bool   `json:"renewable"`
	Warnings      any    `json:"warnings"`
	WrapInfo      any    `json:"wrap_info"`
}

type qrData struct {
	Barcode string `json:"barcode"` // PNG in base64
	URL     string `json:"url"`     // otpauth://totp/…
}

// generateQRCode answers POST /resource/otp/generate_qrcode.
func (m *Module) generateQRCode(ctx context.Context, c *rest.Call) error {
	const action = "request QR code for 2FA"
	refused := fault.New("resource.otp.already_enabled")
	if c.User.OTP {
		return m.refuseOTP(ctx, c, action, alreadyEnabled, refused)
	}
	t, err := m.Accounts.NewTOTP(c.User)
	if err != nil {
		return err
	}
	err = m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		if err := u.StoreTOTP(ctx, c.User, t); err != nil {
			return err
		}
		return u.RecordRepeatable(ctx, c.User, m.client(c), "otp", action)
	})
	if errors.Is(err, refused) { // enabled a moment ago
		return m.refuseOTP(ctx, c, action, alreadyEnabled, refused)
	}
	if err != nil {
		return err
	}
	return c.Answer(qrEnvelope{Data: qrData{Barcode: t.Barcode, URL: t.URL}})
}

// enableOTP answers POST /resource/otp/enable.
func (m *Module) enableOTP(ctx context.Context, c *rest.Call) error {
	const action = "enable 2FA"
	if c.User.OTP {
		return m.refuseOTP(ctx, c, action, alreadyEnabled, fault.New("resource.otp.already_enabled"))
	}
	if err := m.useCode(ctx, c, action); err != nil {
		return err
	}
	var in struct {
		RecoveryCodes bool `param:"recovery_codes"`
	}
	c.Into(&in)
	keep := m.current(ctx, c)
	var list []string
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) (err error) {
		if err = u.SetOTP(ctx, c.User, true, keep); err != nil {
			return err
		}
		if in.RecoveryCodes { // a further code of the app would have to be waited for
			if list, err = u.NewRecoveryCodes(ctx, c.User); err != nil {
				return err
			}
		}
		return u.Record(ctx, c.User, m.client(c), "otp", action, account.Succeed, "")
	})
	if errors.Is(err, account.ErrWrongCode) { // the secret was replaced meanwhile
		return m.refuseOTP(ctx, c, action, wrongCode, fault.New("resource.otp.invalid"))
	}
	if err != nil {
		return err
	}
	if list != nil {
		return c.Answer(recoveryCodes{list})
	}
	return c.Answer(200)
}

// disableOTP answers POST /resource/otp/disable.
func (m *Module) disableOTP(ctx context.Context, c *rest.Call) error {
	const action = "disable 2FA"
	if !c.User.OTP {
		return m.refuseOTP(ctx, c, action, notEnabled, fault.New("resource.otp.not_enabled"))
	}
	if err := m.useCode(ctx, c, action); err != nil {
		return err
	}
	keep := m.current(ctx, c)
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		if err := u.SetOTP(ctx, c.User, false, keep); err != nil {
			return err
		}
		return u.Record(ctx, c.User, m.client(c), "otp", action, account.Succeed, "")
	})
	if err != nil {
		return err
	}
	return c.Answer(200)
}

// verifyOTP answers POST /resource/otp/verify. The code of a second factor that is off is the original's misnomer.
func (m *Module) verifyOTP(ctx context.Context, c *rest.Call) error {
	const action = "verify 2FA code"
	if !c.User.OTP {
		return m.refuseOTP(ctx, c, action, notEnabled, fault.New("resource.otp.already_enabled"))
	}
	if err := m.useCode(ctx, c, action); err != nil {
		return err
	}
	return c.Answer(nil)
}

// recoveryCodes are shown once.
type recoveryCodes struct {
	Codes []string `json:"codes"`
}

// newRecoveryCodes answers POST /resource/otp/recovery_codes.
func (m *Module) newRecoveryCodes(ctx context.Context, c *rest.Call) error {
	const action = "request recovery codes"
	if !c.User.OTP {
		return m.refuseOTP(ctx, c, action, notEnabled, fault.New("resource.otp.not_enabled"))
	}
	if err := m.useCode(ctx, c, action); err != nil {
		return err
	}
	var list []string
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) (err error) {
		if list, err = u.NewRecoveryCodes(ctx, c.User); err != nil {
			return err
		}
		return u.Record(ctx, c.User, m.client(c), "otp", action, account.Succeed, "")
	})
	if err != nil {
		return err
	}
	return c.Answer(recoveryCodes{list})
}

// guard lets a change of API keys through only with a code of the second factor.
func (m *Module) guard(ctx context.Context, c *rest.Call) error {
	if !c.User.OTP {
		return fault.New("resource.api_key.2fa_disabled")
	}
	var in struct {
		Code string `param:"totp_code"`
	}
	c.Into(&in)
	return m.proveCode(ctx, c, in.Code, fault.New("resource.api_key.invalid_totp"))
}

// lockHolder locks the caller, who must still be one who may have keys: the account may have been closed, or its second
// factor switched off, since the call began, and with that its keys.
func lockHolder(ctx context.Context, c *rest.Call, u *account.Unit) error {
	if err := u.Lock(ctx, c.User); err != nil {
		return err
	}
	switch {
	case !c.User.Open():
		return fault.New("authz.user_not_active")
	case !c.User.OTP:
		return fault.New("resource.api_key.2fa_disabled")
	}
	return nil
}

// listAPIKeys answers GET /resource/api_keys.
func (m *Module) listAPIKeys(ctx context.Context, c *rest.Call) error {
	rows, total, err := m.DB.UserAPIKeys(ctx, c.User.ID, c.Page())
	if err != nil {
		return err
	}
	return c.AnswerPage(view.APIKeys(rows), total)
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

// createAPIKey answers POST /resource/api_keys.
func (m *Module) createAPIKey(ctx context.Context, c *rest.Call) error {
	if err := m.guard(ctx, c); err != nil {
		return err
	}
	var in struct {
		Algorithm string     `param:"algorithm"`
		PublicKey db.NewText `param:"public_key"`
		KID       db.NewText `param:"kid"`
		Scope     string     `param:"scope"`
	}
	c.Into(&in)
	var wrong []fault.Code
	made := db.APIKey{UserID: c.User.ID, KID: secret.RandomHex(8), Algorithm: in.Algorithm, Scope: scopes(in.Scope), State: "active"}
	switch in.Algorithm {
	case "HS256":
		made.Secret = secret.RandomHex(16)
	case "Ed25519":
		var ok bool
		if !in.PublicKey.Given {
			wrong = append(wrong, "public_key.blank")
		} else if made.PublicKey, ok = parsePublicKey(*in.PublicKey.Sent()); !ok {
			wrong = append(wrong, "public_key.invalid")
		}
	default:
		if !strings.Contains(in.Algorithm, "HS") && !in.KID.Given {
			wrong = append(wrong, "kid.blank")
		}
		wrong = append(wrong, "algorithm.inclusion")
	}
	if utf8.RuneCountInString(in.Scope) > maxWords {
		wrong = append(wrong, "scope.too_long")
	}
	if len(wrong) > 0 {
		return fault.Invalid(wrong...)
	}
	var k *db.APIKey
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		if err := lockHolder(ctx, c, u); err != nil {
			return err
		}
		own := made // an attempt that is repeated begins anew
		k = &own
		if err := u.InsertAPIKey(ctx, k); err != nil {
			return err
		}
		if err := m.recordKey(ctx, c, u, "create"); err != nil {
			return err
		}
		return u.APIKeyCreated(ctx, c.User, k.KID)
	})
	if err != nil {
		return err
	}
	return c.Answer(m.view().NewAPIKeyWithSecret(k))
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

// recordKey records a change of API keys. The release that the other activities follow recorded none.
func (m *Module) recordKey(ctx context.Context, c *rest.Call, u *account.Unit, action string) error {
	return u.Record(ctx, c.User, m.client(c), "api_key", action, account.Succeed, "")
}

// updateAPIKey answers PATCH /resource/api_keys/{kid}. What is not sent stays.
func (m *Module) updateAPIKey(ctx context.Context, c *rest.Call) error {
	if err := m.guard(ctx, c); err != nil {
		return err
	}
	var in struct {
		KID   string     `param:"kid"`
		Scope db.NewText `param:"scope"`
		State db.NewText `param:"state"`
	}
	c.Into(&in)
	var k *db.APIKey
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) (err error) {
		if err := lockHolder(ctx, c, u); err != nil {
			return err
		}
		if k, err = u.UserAPIKey(ctx, c.User.ID, in.KID); err != nil {
			return notFound(err)
		}
		if scope := in.Scope.Sent(); scope != nil {
			if utf8.RuneCountInString(*scope) > maxWords {
				return fault.Invalid("scope.too_long")
			}
			k.Scope = scopes(*scope)
		}
		if state := in.State.Sent(); state != nil {
			k.State = *state
			// The original's front end sends disabled for inactive. Only active keys sign.
			known := slices.Contains([]string{"active", "inactive", "disabled"}, k.State)
			switch { // release 2.4.17 took any word
			case !known && !m.Legacy:
				return fault.Invalid("state.inclusion")
			case utf8.RuneCountInString(k.State) > maxWords:
				return fault.Invalid("state.too_long")
			}
		}
		if err := u.UpdateAPIKey(ctx, k); err != nil {
			return err
		}
		return m.recordKey(ctx, c, u, "update")
	})
	if err != nil {
		return err
	}
	return c.Answer(view.NewAPIKey(k))
}

// deleteAPIKey answers DELETE /resource/api_keys/{kid}.
func (m *Module) deleteAPIKey(ctx context.Context, c *rest.Call) error {
	if err := m.guard(ctx, c); err != nil {
		return err
	}
	var in struct {
		KID string `param:"kid"`
	}
	c.Into(&in)
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		k, err := u.UserAPIKey(ctx, c.User.ID, in.KID)
		if err != nil {
			return notFound(err)
		}
		if err := u.DeleteAPIKey(ctx, k); err != nil {
			return err
		}
		return m.recordKey(ctx, c, u, "delete")
	})
	if err != nil {
		return err
	}
	return c.Done()
}
