package resource

import (
	"context"
	"errors"
	"time"

	"barong/api/account"
	"barong/api/rest"
	"barong/api/view"
	"barong/db"
	"barong/internal/fault"
	"barong/internal/limit"
	"barong/internal/phone"
	"barong/internal/sms"
)

// codeLife is how long a code that was sent may be used.
const codeLife = 10 * time.Minute

var errNumberTaken = fault.New("resource.phone.number_exist")

// listPhones answers GET /resource/phones.
func (m *Module) listPhones(ctx context.Context, c *rest.Call) error {
	rows, err := m.DB.Phones(ctx, c.User.ID)
	if err != nil {
		return err
	}
	return c.Answer(view.Phones(rows))
}

// readNumber reads the number of a call, which nobody may have verified yet.
func (m *Module) readNumber(ctx context.Context, c *rest.Call) (number, country string, err error) {
	number, country, ok := phone.Parse(c.String("phone_number"))
	if !ok {
		return "", "", fault.New("resource.phone.invalid_num")
	}
	verified, err := m.DB.PhoneVerified(ctx, number)
	if err != nil {
		return "", "", err
	}
	if verified {
		return "", "", errNumberTaken
	}
	return number, country, nil
}

// ownPhone is the caller's phone of a number.
func (m *Module) ownPhone(ctx context.Context, c *rest.Call, number string) (*db.Phone, error) {
	p, err := m.DB.Phone(ctx, c.User.ID, number)
	if errors.Is(err, db.ErrNotFound) {
		return nil, fault.New("resource.phone.doesnt_exist")
	}
	return p, err
}

// allowMessage counts one message to the caller's phones: they cost money, and annoy whoever else has the number.
func (m *Module) allowMessage(ctx context.Context, c *rest.Call) error {
	for _, rule := range []limit.Rule{limit.PhoneResend, limit.PhoneDaily} {
		wait, err := rule.Take(ctx, m.Limits, c.User.UID)
		if err != nil {
			return fault.New(fault.Unavailable).Because(err)
		}
		if wait > 0 {
			return fault.RateLimited(wait)
		}
	}
	return nil
}

// freshCode puts the digest of a new code into the row, where the codes are made here, and returns the code.
func (m *Module) freshCode(p *db.Phone) (code string) {
	p.CodeDigest, p.CodeExpiresAt, p.CodeAttempts = nil, nil, 0
	if !m.SMS.OwnCodes() {
		return ""
	}
	code = sms.NewCode()
	digest, until := sms.Digest(m.Codes, p.Number, code), m.DB.Now().Add(codeLife)
	p.CodeDigest, p.CodeExpiresAt = &digest, &until
	return code
}

// send sends the code of a row that is stored. When it fails the row stays, and another code can be asked for.
func (m *Module) send(ctx context.Context, c *rest.Call, p *db.Phone, code string) error {
	channel := c.String("channel")
	if err := m.SMS.Send(ctx, p.Number, channel, code); err != nil {
		return err
	}
	return c.Answer(map[string]string{"message": "Code was sent successfully via " + channel})
}

// addPhone answers POST /resource/phones.
func (m *Module) addPhone(ctx context.Context, c *rest.Call) error {
	number, country, err := m.readNumber(ctx, c)
	if err != nil {
		return err
	}
	exists := fault.New("resource.phone.exists")
	if _, err := m.DB.Phone(ctx, c.User.ID, number); err == nil {
		return exists
	} else if !errors.Is(err, db.ErrNotFound) {
		return err
	}
	if err := m.allowMessage(ctx, c); err != nil {
		return err
	}
	p := &db.Phone{UserID: c.User.ID, Number: number, Country: country}
	code := m.freshCode(p)
	err = m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error { return u.InsertPhone(ctx, p) })
	var taken *db.ErrTaken
	if errors.As(err, &taken) {
		return exists
	}
	if err != nil {
		return err
	}
	return m.send(ctx, c, p, code)
}

// resendCode answers POST /resource/phones/send_code.
func (m *Module) resendCode(ctx context.Context, c *rest.Call) error {
	number, _, err := m.readNumber(ctx, c)
	if err != nil {
		return err
	}
	p, err := m.ownPhone(ctx, c, number)
	if err != nil {
		return err
	}
	if err := m.allowMessage(ctx, c); err != nil {
		return err
	}
	code := m.freshCode(p)
	if err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error { return u.UpdatePhone(ctx, p) }); err != nil {
		return err
	}
	return m.send(ctx, c, p, code)
}

// verifyPhone answers POST /resource/phones/verify.
func (m *Module) verifyPhone(ctx context.Context, c *rest.Call) error {
	number, _, err := m.readNumber(ctx, c)
	if err != nil {
		return err
	}
	p, err := m.ownPhone(ctx, c, number)
	if err != nil {
		return err
	}
	wrong := fault.New("resource.phone.verification_invalid")
	right := false
	if !m.SMS.OwnCodes() {
		if right, err = m.SMS.Check(ctx, number, c.String("verification_code")); err != nil {
			return err
		}
		if !right {
			return wrong
		}
	}
	err = m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		if err := u.Lock(ctx, c.User); err != nil {
			return err
		}
		if p, err = u.Phone(ctx, c.User.ID, number); err != nil {
			return err
		}
		if m.SMS.OwnCodes() {
			if right = m.codeFits(p, c.String("verification_code")); !right {
				p.CodeAttempts++ // kept although the call is refused, so that guesses count
				return u.UpdatePhone(ctx, p)
			}
		}
		now := u.Now()
		p.ValidatedAt, p.CodeDigest, p.CodeExpiresAt = &now, nil, nil
		if err := u.UpdatePhone(ctx, p); err != nil {
			return err
		}
		return u.PutLabel(ctx, c.User, "phone", "verified")
	})
	var taken *db.ErrTaken
	if errors.As(err, &taken) { // somebody else verified it meanwhile
		return errNumberTaken
	}
	if err != nil {
		return err
	}
	if !right {
		return wrong
	}
	return m.answerMe(ctx, c, c.User)
}

// codeFits reports whether a code is the one last sent to the phone, still good, and not guessed at too often.
func (m *Module) codeFits(p *db.Phone, code string) bool {
	if p.CodeDigest == nil || p.CodeExpiresAt == nil || !m.DB.Now().Before(*p.CodeExpiresAt) {
		return false
	}
	if m.RateLimits && p.CodeAttempts >= limit.WrongSMSCodes {
		return false
	}
	return sms.Matches(m.Codes, *p.CodeDigest, p.Number, code)
}
