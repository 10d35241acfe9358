package resource

import (
	"context"
	"errors"

	"barong/api/account"
	"barong/api/rest"
	"barong/api/view"
	"barong/db"
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

// listAPIKeys answers GET /resource/api_keys.
func (m *Module) listAPIKeys(ctx context.Context, c *rest.Call) error {
	rows, total, err := m.DB.UserAPIKeys(ctx, c.User.ID, c.Page())
	if err != nil {
		return err
	}
	return c.AnswerPage(view.APIKeys(rows), total)
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
	k, err := m.Accounts.CreateAPIKey(ctx, c.User, m.client(c), account.KeyRequest{
		Algorithm: in.Algorithm, PublicKey: in.PublicKey, KID: in.KID, Scope: in.Scope,
	})
	if err != nil {
		return err
	}
	return c.Answer(m.view().NewAPIKeyWithSecret(k))
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
	k, err := m.Accounts.ChangeAPIKey(ctx, c.User, m.client(c), in.KID, account.KeyChange{
		Scope: in.Scope, State: in.State, AnyState: m.Legacy, // release 2.4.17 took any word
	})
	if err != nil {
		return notFound(err)
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
	if err := m.Accounts.DeleteAPIKey(ctx, c.User, m.client(c), in.KID); err != nil {
		return notFound(err)
	}
	return c.Done()
}
