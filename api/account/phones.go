package account

import (
	"context"
	"errors"
	"time"

	"barong/db"
	"barong/internal/delivery/sms"
	"barong/internal/fault"
	"barong/internal/limit"
	"barong/internal/phone"
)

// Phones prove that users hold the numbers that they name. It is safe for concurrent use.
type Phones struct {
	Accounts *Service
	SMS      sms.Provider
	Codes    sms.Indexer // keys the digests of codes

	Unlimited bool // wrong codes are not counted, for load tests
}

// codeLife is how long a code that was sent may be used.
const codeLife = 10 * time.Minute

var (
	errNumberTaken = fault.New("resource.phone.number_exist")
	errPhoneExists = fault.New("resource.phone.exists")
	errNoPhone     = fault.New("resource.phone.doesnt_exist")
)

// number reads a number as it was sent, which nobody may have verified yet. That somebody has is told as rarely as messages
// are sent, so that nobody can ask through all numbers.
func (s *Phones) number(ctx context.Context, user *db.User, text string) (number, country string, err error) {
	number, country, ok := phone.Parse(text)
	if !ok {
		return "", "", fault.New("resource.phone.invalid_num")
	}
	verified, err := s.Accounts.DB.PhoneVerified(ctx, number)
	if err != nil {
		return "", "", err
	}
	if verified {
		if err := s.allow(ctx, user, limit.PhoneDaily); err != nil {
			return "", "", err
		}
		return "", "", errNumberTaken
	}
	return number, country, nil
}

// allow counts one attempt of the user under each rule.
func (s *Phones) allow(ctx context.Context, user *db.User, rules ...limit.Rule) error {
	for _, rule := range rules {
		if err := s.Accounts.limited(rule.Take(ctx, s.Accounts.Limits, user.UID)); err != nil {
			return err
		}
	}
	return nil
}

// allowMessage counts one message to the user's phones: they cost money, and annoy whoever else has the number.
func (s *Phones) allowMessage(ctx context.Context, user *db.User) error {
	return s.allow(ctx, user, limit.PhoneResend, limit.PhoneDaily)
}

// known refuses a number that is none of the user's phones.
func (s *Phones) known(ctx context.Context, user *db.User, number string) error {
	_, err := s.Accounts.DB.Phone(ctx, user.ID, number)
	if errors.Is(err, db.ErrNotFound) {
		return errNoPhone
	}
	return err
}

// lockedPhone locks a user and reads their phone of a number. One that was verified meanwhile is refused.
func (u *Unit) lockedPhone(ctx context.Context, user *db.User, number string) (*db.Phone, error) {
	if err := u.Lock(ctx, user); err != nil {
		return nil, err
	}
	p, err := u.Phone(ctx, user.ID, number)
	switch {
	case errors.Is(err, db.ErrNotFound):
		return nil, errNoPhone
	case err == nil && p.ValidatedAt != nil:
		return nil, errNumberTaken
	}
	return p, err
}

// newCode starts a new code: it puts its digest into the row, where the codes are made here, and returns the code.
// CodeExpiresAt says in any case that a message was sent.
func (s *Phones) newCode(p *db.Phone) (code string) {
	until := s.Accounts.DB.Now().Add(codeLife)
	p.CodeDigest, p.CodeExpiresAt, p.CodeAttempts = nil, &until, 0
	if !s.SMS.OwnCodes() {
		return ""
	}
	code = sms.NewCode()
	d := sms.Digest(s.Codes, p.Number, code)
	p.CodeDigest = &d
	return code
}

// send sends the code of a row that is stored. When it fails the row stays, marked as one to which nothing was sent: it can
// be added again, or be sent another code.
func (s *Phones) send(ctx context.Context, user *db.User, sent *db.Phone, channel, code string) error {
	err := s.SMS.Send(ctx, sent.Number, channel, code)
	if err == nil {
		return nil
	}
	forget := s.Accounts.Update(context.WithoutCancel(ctx), func(ctx context.Context, u *Unit) error {
		p, err := u.lockedPhone(ctx, user, sent.Number)
		if err != nil || p.CodeExpiresAt == nil || !p.CodeExpiresAt.Equal(*sent.CodeExpiresAt) || codeDigest(p) != codeDigest(sent) {
			return nil // verified, or another code was sent meanwhile
		}
		p.CodeDigest, p.CodeExpiresAt = nil, nil
		return u.UpdatePhone(ctx, p)
	})
	if forget != nil {
		s.Accounts.Log.WarnContext(ctx, "mark a phone to which no code was sent", "error", forget)
	}
	return err
}

func codeDigest(p *db.Phone) string {
	if p.CodeDigest == nil {
		return ""
	}
	return *p.CodeDigest
}

// Add gives a user a phone and sends it a code, by "sms" or "call". One to which nothing was sent may be added again.
func (s *Phones) Add(ctx context.Context, user *db.User, text, channel string) error {
	number, country, err := s.number(ctx, user, text)
	if err != nil {
		return err
	}
	if p, err := s.Accounts.DB.Phone(ctx, user.ID, number); err == nil && p.CodeExpiresAt != nil {
		return errPhoneExists
	} else if err != nil && !errors.Is(err, db.ErrNotFound) {
		return err
	}
	if err := s.allowMessage(ctx, user); err != nil {
		return err
	}
	var p *db.Phone
	var code string
	err = s.Accounts.Update(ctx, func(ctx context.Context, u *Unit) (err error) {
		if err := u.Lock(ctx, user); err != nil {
			return err
		}
		if p, err = u.Phone(ctx, user.ID, number); errors.Is(err, db.ErrNotFound) {
			p = &db.Phone{UserID: user.ID, Number: number, Country: country}
			code = s.newCode(p)
			return u.InsertPhone(ctx, p)
		}
		if err != nil {
			return err
		}
		if p.CodeExpiresAt != nil || p.ValidatedAt != nil {
			return errPhoneExists
		}
		code = s.newCode(p)
		return u.UpdatePhone(ctx, p)
	})
	if err != nil {
		return err
	}
	return s.send(ctx, user, p, channel, code)
}

// Resend sends another code to a phone of the user, by "sms" or "call".
func (s *Phones) Resend(ctx context.Context, user *db.User, text, channel string) error {
	number, _, err := s.number(ctx, user, text)
	if err != nil {
		return err
	}
	if err := s.known(ctx, user, number); err != nil {
		return err
	}
	if err := s.allowMessage(ctx, user); err != nil {
		return err
	}
	var p *db.Phone
	var code string
	err = s.Accounts.Update(ctx, func(ctx context.Context, u *Unit) (err error) {
		if p, err = u.lockedPhone(ctx, user, number); err != nil {
			return err
		}
		code = s.newCode(p)
		return u.UpdatePhone(ctx, p)
	})
	if err != nil {
		return err
	}
	return s.send(ctx, user, p, channel, code)
}

// Verify proves with a code that the user holds a number: by label and activity. A wrong one is
// resource.phone.verification_invalid.
func (s *Phones) Verify(ctx context.Context, user *db.User, c Client, text, code string) error {
	number, _, err := s.number(ctx, user, text)
	if err != nil {
		return err
	}
	if err := s.known(ctx, user, number); err != nil {
		return err
	}
	right, err := s.try(ctx, user, number, code)
	if err != nil {
		return err
	}
	if !right {
		return fault.New("resource.phone.verification_invalid")
	}
	err = s.Accounts.Update(ctx, func(ctx context.Context, u *Unit) error {
		p, err := u.lockedPhone(ctx, user, number)
		if err != nil {
			return err
		}
		now := u.Now()
		p.ValidatedAt, p.CodeDigest, p.CodeExpiresAt = &now, nil, nil
		if err := u.UpdatePhone(ctx, p); err != nil {
			return err
		}
		if err := u.PutLabel(ctx, user, "phone", "verified"); err != nil {
			return err
		}
		return u.Record(ctx, user, c, "phone", "verify", Succeed, "")
	})
	if taken := (*db.ErrTaken)(nil); errors.As(err, &taken) { // somebody else verified it meanwhile
		return errNumberTaken
	}
	return err
}

// try reports whether a code is the one last sent to the number. The try is counted before the code is looked at, so that
// parallel guesses cannot pass the limit together; beyond it not even the right one is accepted, for as long as it lives. A
// text that cannot be a code is no try.
func (s *Phones) try(ctx context.Context, user *db.User, number, code string) (bool, error) {
	if !sms.CanBeCode(s.SMS, code) {
		return false, nil
	}
	var p *db.Phone
	err := s.Accounts.Update(ctx, func(ctx context.Context, u *Unit) (err error) {
		if p, err = u.lockedPhone(ctx, user, number); err != nil {
			return err
		}
		p.CodeAttempts++
		return u.UpdatePhone(ctx, p)
	})
	now := s.Accounts.DB.Now()
	switch {
	case err != nil:
		return false, err
	case p.CodeExpiresAt == nil || !now.Before(*p.CodeExpiresAt):
		return false, nil
	case !s.Unlimited && p.CodeAttempts > limit.WrongSMSCodes:
		return false, fault.RateLimited(p.CodeExpiresAt.Sub(now))
	case !s.SMS.OwnCodes():
		return s.SMS.Verify(ctx, number, code)
	}
	return sms.Matches(s.Codes, codeDigest(p), number, code), nil
}
