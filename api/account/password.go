package account

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"barong/db"
	"barong/internal/fault"
	"barong/internal/limit"
	digests "barong/internal/password"
)

// Passwords hashes and verifies passwords. Both are slow on purpose, and bounded in how many run at once.
type Passwords interface {
	Hash(ctx context.Context, password string) (digest string, err error)
	// Verify reports whether the password is that of the digest, and whether the digest should be made anew.
	Verify(ctx context.Context, digest, password string) (ok, stale bool, err error)
	// VerifyNothing takes as long as Verify, for an account that does not exist.
	VerifyNothing(ctx context.Context, password string) error
}

// A PasswordPolicy lists the rules that a new password breaks: password.too_long, password.requirements, password.weak.
type PasswordPolicy interface {
	Codes(password string) []fault.Code
}

// HashPassword makes the digest of a new password, or a 422 that lists the rules it breaks.
func (s *Service) HashPassword(ctx context.Context, password string) (string, error) {
	if codes := s.Policy.Codes(password); len(codes) > 0 {
		return "", fault.Invalid(codes...)
	}
	return s.Passwords.Hash(ctx, password)
}

// CheckPassword reports whether the password is the user's. A nil user, for an address that nobody has, takes as long
// and is never right. A digest of an older kind is replaced by a new one of the same password, which is no change of the
// account: it ends no session and makes no event.
func (s *Service) CheckPassword(ctx context.Context, user *db.User, password string) (bool, error) {
	if user == nil {
		return false, s.Passwords.VerifyNothing(ctx, password)
	}
	ok, stale, err := s.Passwords.Verify(ctx, user.PasswordDigest, password)
	if errors.Is(err, digests.ErrDigest) { // nobody's password, as if it were wrong: an error would tell the account apart
		s.Log.ErrorContext(ctx, "a stored password digest cannot be read", "uid", user.UID)
		return false, nil
	}
	if err != nil || !ok {
		return false, err
	}
	if stale {
		s.rehash(ctx, user, password)
	}
	return true, nil
}

// rehash stores a new digest unless the password was changed meanwhile. A failure is only logged: the old one still works.
func (s *Service) rehash(ctx context.Context, user *db.User, password string) {
	digest, err := s.Passwords.Hash(ctx, password)
	if err == nil {
		err = s.DB.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.NewUpdate().Model((*db.User)(nil)).Set("password_digest = ?", digest).
				Where("id = ?", user.ID).Where("password_digest = ?", user.PasswordDigest).Exec(ctx)
			return err
		})
	}
	if err != nil {
		s.Log.WarnContext(ctx, "renew password digest", "uid", user.UID, "error", err)
		return
	}
	user.PasswordDigest = digest
}

// Tries counts wrong passwords for one account from one client.
type Tries struct {
	s                *Service
	account, address string
}

// PasswordTries are the counters for guessing the password of an address, known or not, from a client.
func (s *Service) PasswordTries(email string, ip netip.Addr) *Tries {
	return &Tries{s: s, account: db.NormalEmail(email), address: network(ip)}
}

// network is what counts as one client: an IPv4 address, or the /64 of an IPv6 address, which one household or machine
// can draw from at will.
func network(ip netip.Addr) string {
	ip = ip.Unmap().WithZone("")
	switch {
	case !ip.IsValid():
		return "unknown"
	case ip.Is4():
		return ip.String()
	}
	prefix, err := ip.Prefix(64)
	if err != nil { // 64 bits fit every IPv6 address
		panic("account: " + err.Error())
	}
	return prefix.String()
}

// Begin counts one try before the password is looked at, so that parallel guesses cannot pass the limit together. The
// error is request.rate_limited when account or client have used up theirs. Wrong, Right or Undecided must follow.
func (t *Tries) Begin(ctx context.Context) error {
	if err := t.s.limited(limit.WrongPasswordAddress.Peek(ctx, t.s.Limits, t.address)); err != nil {
		return err
	}
	return t.s.limited(limit.WrongPassword.Take(ctx, t.s.Limits, t.account))
}

// Wrong counts a wrong password against the client too.
func (t *Tries) Wrong(ctx context.Context) error {
	_, err := limit.WrongPasswordAddress.Take(ctx, t.s.Limits, t.address)
	return err
}

// Right forgets the account's wrong tries: its owner is back. The client's stay, or guessing other accounts could be
// washed clean by signing in to one's own.
func (t *Tries) Right(ctx context.Context) error {
	return limit.WrongPassword.Reset(ctx, t.s.Limits, t.account)
}

// Undecided takes the try back: the password could not be looked at.
func (t *Tries) Undecided(ctx context.Context) {
	if err := limit.WrongPassword.Refund(context.WithoutCancel(ctx), t.s.Limits, t.account); err != nil {
		t.s.Log.WarnContext(ctx, "take back a password try", "error", err)
	}
}

func (s *Service) limited(wait time.Duration, err error) error {
	if err != nil {
		return err
	}
	if wait > 0 {
		return fault.RateLimited(wait)
	}
	return nil
}
