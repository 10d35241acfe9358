package account

import (
	"context"
	"net/netip"

	"barong/db"
	"barong/internal/fault"
	"barong/internal/limit"
)

// AllowAddress counts one use by a client under a rule, and is request.rate_limited when the rule's limit is reached.
func (s *Service) AllowAddress(ctx context.Context, r limit.Rule, ip netip.Addr) error {
	return s.limited(r.Take(ctx, s.Limits, network(ip, 32, 64)))
}

// PeekAddress is AllowAddress without counting.
func (s *Service) PeekAddress(ctx context.Context, r limit.Rule, ip netip.Addr) error {
	return s.limited(r.Peek(ctx, s.Limits, network(ip, 32, 64)))
}

// AllowEmail counts one use for an e-mail address, known or not, under a rule, and is request.rate_limited when the
// rule's limit is reached.
func (s *Service) AllowEmail(ctx context.Context, r limit.Rule, email string) error {
	return s.limited(r.Take(ctx, s.Limits, db.NormalEmail(email)))
}

// PasswordReason is the sentence in an activity for a new password that HashPassword refused; ok is false for any other
// error.
func PasswordReason(err error) (reason string, ok bool) {
	for _, r := range []struct {
		code   fault.Code
		reason string
	}{
		{"password.too_long", "Password is too long (maximum is 72 characters)"},
		{"password.requirements", "Password requirements"},
		{"password.weak", "Password weak"},
	} {
		f := fault.As(err)
		if f == nil || !f.Has(r.code) {
			continue
		}
		if reason != "" {
			reason += " and "
		}
		reason += r.reason
	}
	return reason, reason != ""
}
