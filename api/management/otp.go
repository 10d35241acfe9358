package management

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"barong/api/account"
	"barong/api/rest"
	"barong/internal/crypto/jws"
	"barong/internal/fault"
)

var errCode = fault.Plain(422, "OTP code is invalid")

// signApproved answers POST /management/otp/sign: it adds this program's signature to a message that a user has approved
// with a code. A code approves once.
func (m *Module) signApproved(ctx context.Context, c *rest.Call) error {
	var in struct {
		UserUID string `param:"user_uid"`
		Code    string `param:"otp_code"`
		Message any    `param:"jwt"`
	}
	c.Into(&in)
	user, err := m.DB.UserByUID(ctx, in.UserUID)
	if err != nil {
		return found(err)
	}
	if user.State != account.Active {
		return errNoRecord
	}
	if !user.OTP {
		return fault.Plain(422, "Account has not enabled 2FA")
	}
	message, err := m.approvable(in.Message)
	if err != nil {
		return fault.Plain(422, fmt.Sprintf("JWT is invalid by the reason %q", err.Error()))
	}
	if err := m.Accounts.VerifyTOTP(ctx, user, in.Code); err != nil {
		return wrongCode(err)
	}
	if err := message.Sign(KeyID, m.Signer()); err != nil {
		return err
	}
	return c.Answer(message)
}

// wrongCode is the answer to a code that was not accepted.
func wrongCode(err error) error {
	if f := (*fault.Error)(nil); errors.As(err, &f) {
		switch {
		case !f.Has(fault.TOTP):
			return err
		case f.Err != nil: // it could not be looked at
			return fault.Plain(f.Status, string(fault.TOTP)).Because(err)
		}
		return errCode.Because(err) // it was used before
	}
	if errors.Is(err, account.ErrWrongCode) {
		return errCode.Because(err)
	}
	return err
}

// reserved are the claims by which a session token and an event are known. The key that signs here signs those too, so
// that a message with such a claim could be used as one.
var reserved = []string{"email", "event", "level", "role", "state", "sub", "uid"}

// approvable reads a message that is to be signed. Whoever is named by a signature must be in the keychain and have made
// it, and there must be one; and it must end, since its receivers take this program's word for as long as it lasts. The
// mode of release 2.4.17, which looked at neither, leaves both out.
func (m *Module) approvable(members any) (*jws.Message, error) {
	text, err := json.Marshal(members)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	message, err := jws.Parse(text)
	if err != nil {
		return nil, err
	}
	payload, err := message.Bytes()
	if err != nil {
		return nil, err
	}
	others := slices.DeleteFunc(slices.Clone(message.Signatures), func(s jws.Signature) bool { return s.Header.KeyID == KeyID })
	if len(others) == jws.MaxSignatures { // told before the code is used up
		return nil, errors.New("it has no room for a signature")
	}
	named, err := jws.Object(payload)
	if err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	for name, value := range named {
		for _, r := range append([]string{"iss"}, reserved...) {
			// Receivers that read JSON as Go does take "UID" for "uid".
			if strings.EqualFold(name, r) && (r != "iss" || m.ours(value)) {
				return nil, fmt.Errorf("the claim %s is reserved", r)
			}
		}
	}
	if m.Legacy {
		return message, nil
	}
	c, err := readClaims(payload, &Claims{})
	if err != nil {
		return nil, err
	}
	if now := m.Now(); c.Expires == nil || !now.Before(c.Expires.Time) || c.Expires.Sub(now) > maxLife {
		return nil, fmt.Errorf("exp must be in the future, and at most %v ahead", maxLife)
	}
	signers, err := message.Verify(m.Config.Keychain, slices.Collect(maps.Keys(m.Config.Keychain)))
	if err != nil {
		return nil, err
	}
	if len(signers) == 0 {
		return nil, errors.New("nobody whose key is known has signed it")
	}
	return message, nil
}

// ours reports whether the value of iss may be read as this program's own name: gateways let pass whatever this program has
// signed as the issuer of session tokens.
func (m *Module) ours(value json.RawMessage) bool {
	var issuer string
	return json.Unmarshal(value, &issuer) != nil || issuer == m.Issuer
}
