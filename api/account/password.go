package account

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"barong/db"
	digests "barong/internal/crypto/password"
	"barong/internal/fault"
	"barong/internal/limit"
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

// VerifyPassword reports whether the password is the user's. A nil user, for an address that nobody has, takes as long
// and is never right. A digest of an older kind is replaced by a new one of the same password, which is no change of the
// account: it ends no session and makes no event.
func (s *Service) VerifyPassword(ctx context.Context, user *db.User, password string) (bool, error) {
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
			return tx.RenewDigest(ctx, user.ID, user.PasswordDigest, digest)
		})
	}
	if err != nil {
		s.Log.WarnContext(ctx, "renew password digest", "uid", user.UID, "error", err)
		return
	}
	user.PasswordDigest = digest
}

// Asking says in the context on whose behalf passwords are hashed, so that one client does not make all others wait: the
// client's address and, if one is named, the account.
func (s *Service) Asking(ctx context.Context, ip netip.Addr, email string) context.Context {
	return digests.For(ctx, network(ip, 32, 64), db.NormalEmail(email))
}

// Tries count one try at the password of an account from one client: for the account and the client's network, so that a
// stranger's guesses do not shut the owner out; for the account, which shuts out networks that its owner never signed in
// from; and for the client, whatever the account.
type Tries struct {
	s                         *Service
	account, network, address string
	overall                   bool // it is counted for the account
}

// PasswordTries is a try at the password of an address, known or not, from a client.
func (s *Service) PasswordTries(email string, ip netip.Addr) *Tries {
	return &Tries{s: s, account: db.NormalEmail(email), network: network(ip, 24, 56), address: network(ip, 32, 64)}
}

// network is the network of an address with so many bits; "unknown" when there is no address.
func network(ip netip.Addr, bits4, bits6 int) string {
	ip = ip.Unmap().WithZone("")
	bits := bits6
	switch {
	case !ip.IsValid():
		return "unknown"
	case ip.Is4() && bits4 == 32:
		return ip.String()
	case ip.Is4():
		bits = bits4
	}
	prefix, err := ip.Prefix(bits)
	if err != nil { // the callers' bits fit every address
		panic("account: " + err.Error())
	}
	return prefix.String()
}

func (t *Tries) pair() string { return t.account + " " + t.network }

// Begin counts the try before the password is looked at, so that parallel guesses cannot pass a limit together. The error
// is request.rate_limited when a limit is reached. Right or Undecided take it back; a wrong one stays counted.
func (t *Tries) Begin(ctx context.Context) (err error) {
	// First the pair: what one account gets from one network does not use up what others get from that address.
	if err := t.s.limited(limit.WrongPassword.Take(ctx, t.s.Limits, t.pair())); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			t.giveBack(ctx, limit.WrongPassword, t.pair())
		}
	}()
	if err := t.s.limited(limit.WrongPasswordAddress.Take(ctx, t.s.Limits, t.address)); err != nil {
		return err
	}
	err = t.s.limited(limit.WrongPasswordAccount.Take(ctx, t.s.Limits, t.account))
	if err == nil {
		t.overall = true
		return nil
	}
	if f := fault.As(err); f != nil && f.Has(fault.TooMany) {
		known, kerr := t.s.DB.KnownNetwork(ctx, t.account, t.network)
		switch {
		case kerr != nil:
			err = kerr
		case known:
			return nil
		}
	}
	t.giveBack(ctx, limit.WrongPasswordAddress, t.address)
	return err
}

// Right forgets the wrong tries of the account from this network: its owner is there. The counters of the account and of
// the client get only this try back; otherwise whoever guesses at other accounts could clear the count by signing in to
// their own.
func (t *Tries) Right(ctx context.Context) error {
	t.giveBackShared(ctx)
	return t.Forgive(ctx)
}

// Forgive forgets the wrong tries of the account from this network.
func (t *Tries) Forgive(ctx context.Context) error {
	return limit.WrongPassword.Reset(ctx, t.s.Limits, t.pair())
}

// Undecided takes the try back: the password could not be looked at.
func (t *Tries) Undecided(ctx context.Context) {
	t.giveBackShared(ctx)
	t.giveBack(ctx, limit.WrongPassword, t.pair())
}

func (t *Tries) giveBackShared(ctx context.Context) {
	t.giveBack(ctx, limit.WrongPasswordAddress, t.address)
	if t.overall {
		t.giveBack(ctx, limit.WrongPasswordAccount, t.account)
	}
}

// giveBack takes an attempt back, also when the caller has gone. A failure only leaves it counted.
func (t *Tries) giveBack(ctx context.Context, r limit.Rule, key string) {
	if err := r.Refund(context.WithoutCancel(ctx), t.s.Limits, key); err != nil {
		t.s.Log.WarnContext(ctx, "take back a password try", "error", err)
	}
}

// Welcome notes that the owner of an account was there, in a network that others' guesses must not shut out from now on.
func (u *Unit) Welcome(ctx context.Context, user *db.User, c Client) error {
	return u.RememberNetwork(ctx, user.ID, network(c.IP, 24, 56))
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
