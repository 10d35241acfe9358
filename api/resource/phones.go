package resource

import (
	"context"
	"errors"
	"time"

	"barong/api/account"
	"barong/api/rest"
	"barong/api/view"
	"barong/db"
	"barong/internal/delivery/sms"
	"barong/internal/fault"
	"barong/internal/limit"
	"barong/internal/phone"
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
	return answerList(m, c, rows, func(rows []db.Phone) any { return view.Phones(rows) })
}

// A phoneInput is what calls about a phone send.
type phoneInput struct {
	Number  string `param:"phone_number"`
	Channel string `param:"channel"`
	Code    string `param:"verification_code"`
}

// readNumber reads a number that was sent, which nobody may have verified yet. That somebody has is told as rarely as
// messages are sent, so that nobody can ask through all numbers.
func (m *Module) readNumber(ctx context.Context, c *rest.Call, text string) (number, country string, err error) {
	number, country, ok := phone.Parse(text)
	if !ok {
		return "", "", fault.New("resource.phone.invalid_num")
	}
	verified, err := m.DB.PhoneVerified(ctx, number)
	if err != nil {
		return "", "", err
	}
	if verified {
		if err := m.allow(ctx, c, limit.PhoneDaily); err != nil {
			return "", "", err
		}
		return "", "", errNumberTaken
	}
	return number, country, nil
}

// A phoneReader is a *db.DB, or a unit of work.
type phoneReader interface {
	Phone(ctx context.Context, userID int64, number string) (*db.Phone, error)
}

// ownPhone is the caller's phone of a number.
func ownPhone(ctx context.Context, c *rest.Call, from phoneReader, number string) (*db.Phone, error) {
	p, err := from.Phone(ctx, c.User.ID, number)
	if errors.Is(err, db.ErrNotFound) {
		return nil, fault.New("resource.phone.doesnt_exist")
	}
	return p, err
}

// lockedPhone is ownPhone of a locked user; a phone that was verified meanwhile is refused.
func lockedPhone(ctx context.Context, c *rest.Call, u *account.Unit, number string) (*db.Phone, error) {
	if err := u.Lock(ctx, c.User); err != nil {
		return nil, err
	}
	p, err := ownPhone(ctx, c, u, number)
	if err == nil && p.ValidatedAt != nil {
		return nil, errNumberTaken
	}
	return p, err
}

// allow counts one attempt of the caller under each rule.
func (m *Module) allow(ctx context.Context, c *rest.Call, rules ...limit.Rule) error {
	for _, rule := range rules {
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

// allowMessage counts one message to the caller's phones: they cost money, and annoy whoever else has the number.
func (m *Module) allowMessage(ctx context.Context, c *rest.Call) error {
	return m.allow(ctx, c, limit.PhoneResend, limit.PhoneDaily)
}

// freshCode starts a new code: it puts its digest into the row, where the codes are made here, and returns the code.
// CodeExpiresAt says in any case that a message was sent.
func (m *Module) freshCode(p *db.Phone) (code string) {
	until := m.DB.Now().Add(codeLife)
	p.CodeDigest, p.CodeExpiresAt, p.CodeAttempts = nil, &until, 0
	if !m.SMS.OwnCodes() {
		return ""
	}
	code = sms.NewCode()
	d := sms.Digest(m.Codes, p.Number, code)
	p.CodeDigest = &d
	return code
}

// send sends the code of a row that is stored, and answers. When it fails the row stays, marked as one to which nothing
// was sent: it can be added again, or be sent another code.
func (m *Module) send(ctx context.Context, c *rest.Call, sent *db.Phone, channel, code string) error {
	err := m.SMS.Send(ctx, sent.Number, channel, code)
	if err == nil {
		return c.Answer(map[string]string{"message": "Code was sent successfully via " + channel})
	}
	forget := m.Accounts.Update(context.WithoutCancel(ctx), func(ctx context.Context, u *account.Unit) error {
		p, err := lockedPhone(ctx, c, u, sent.Number)
		if err != nil || p.CodeExpiresAt == nil || !p.CodeExpiresAt.Equal(*sent.CodeExpiresAt) || digest(p) != digest(sent) {
			return nil // verified, or another code was sent meanwhile
		}
		p.CodeDigest, p.CodeExpiresAt = nil, nil
		return u.UpdatePhone(ctx, p)
	})
	if forget != nil {
		m.Accounts.Log.WarnContext(ctx, "mark a phone to which no code was sent", "error", forget)
	}
	return err
}

func digest(p *db.Phone) string {
	if p.CodeDigest == nil {
		return ""
	}
	return *p.CodeDigest
}

var errPhoneExists = fault.New("resource.phone.exists")

// addPhone answers POST /resource/phones.
func (m *Module) addPhone(ctx context.Context, c *rest.Call) error {
	var in phoneInput
	c.Into(&in)
	number, country, err := m.readNumber(ctx, c, in.Number)
	if err != nil {
		return err
	}
	if p, err := m.DB.Phone(ctx, c.User.ID, number); err == nil && p.CodeExpiresAt != nil {
		return errPhoneExists
	} else if err != nil && !errors.Is(err, db.ErrNotFound) {
		return err
	}
	if err := m.allowMessage(ctx, c); err != nil {
		return err
	}
	var p *db.Phone
	var code string
	err = m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		if err := u.Lock(ctx, c.User); err != nil {
			return err
		}
		var err error
		if p, err = u.Phone(ctx, c.User.ID, number); errors.Is(err, db.ErrNotFound) {
			p = &db.Phone{UserID: c.User.ID, Number: number, Country: country}
			code = m.freshCode(p)
			return u.InsertPhone(ctx, p)
		}
		if err != nil {
			return err
		}
		if p.CodeExpiresAt != nil || p.ValidatedAt != nil {
			return errPhoneExists
		}
		code = m.freshCode(p)
		return u.UpdatePhone(ctx, p)
	})
	if err != nil {
		return err
	}
	return m.send(ctx, c, p, in.Channel, code)
}

// resendCode answers POST /resource/phones/send_code.
func (m *Module) resendCode(ctx context.Context, c *rest.Call) error {
	var in phoneInput
	c.Into(&in)
	number, _, err := m.readNumber(ctx, c, in.Number)
	if err != nil {
		return err
	}
	if _, err := ownPhone(ctx, c, m.DB, number); err != nil {
		return err
	}
	if err := m.allowMessage(ctx, c); err != nil {
		return err
	}
	var p *db.Phone
	var code string
	err = m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) (err error) {
		if p, err = lockedPhone(ctx, c, u, number); err != nil {
			return err
		}
		code = m.freshCode(p)
		return u.UpdatePhone(ctx, p)
	})
	if err != nil {
		return err
	}
	return m.send(ctx, c, p, in.Channel, code)
}

// verifyPhone answers POST /resource/phones/verify.
func (m *Module) verifyPhone(ctx context.Context, c *rest.Call) error {
	var in phoneInput
	c.Into(&in)
	number, _, err := m.readNumber(ctx, c, in.Number)
	if err != nil {
		return err
	}
	if _, err := ownPhone(ctx, c, m.DB, number); err != nil {
		return err
	}
	right, err := m.tryCode(ctx, c, number, in.Code)
	if err != nil {
		return err
	}
	if !right {
		return fault.New("resource.phone.verification_invalid")
	}
	err = m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		p, err := lockedPhone(ctx, c, u, number)
		if err != nil {
			return err
		}
		now := u.Now()
		p.ValidatedAt, p.CodeDigest, p.CodeExpiresAt = &now, nil, nil
		if err := u.UpdatePhone(ctx, p); err != nil {
			return err
		}
		if err := u.PutLabel(ctx, c.User, "phone", "verified"); err != nil {
			return err
		}
		return u.Record(ctx, c.User, m.client(c), "phone", "verify", account.Succeed, "")
	})
	var taken *db.ErrTaken
	if errors.As(err, &taken) { // somebody else verified it meanwhile
		return errNumberTaken
	}
	if err != nil {
		return err
	}
	return m.answerMe(ctx, c, c.User)
}

// tryCode reports whether a code is the one last sent to the number. The try is counted before the code is looked at, so
// that parallel guesses cannot pass the limit together; beyond it not even the right one is, for as long as it lives. A
// text that cannot be a code is no try.
func (m *Module) tryCode(ctx context.Context, c *rest.Call, number, code string) (bool, error) {
	if !sms.CanBeCode(m.SMS, code) {
		return false, nil
	}
	var p *db.Phone
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) (err error) {
		if p, err = lockedPhone(ctx, c, u, number); err != nil {
			return err
		}
		p.CodeAttempts++
		return u.UpdatePhone(ctx, p)
	})
	now := m.DB.Now()
	switch {
	case err != nil:
		return false, err
	case p.CodeExpiresAt == nil || !now.Before(*p.CodeExpiresAt):
		return false, nil
	case m.RateLimits && p.CodeAttempts > limit.WrongSMSCodes:
		return false, fault.RateLimited(p.CodeExpiresAt.Sub(now))
	case !m.SMS.OwnCodes():
		return m.SMS.Verify(ctx, number, code)
	}
	return sms.Matches(m.Codes, digest(p), number, code), nil
}
