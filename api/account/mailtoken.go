package account

import (
	"context"
	"errors"
	"strings"

	"barong/db"
	"barong/internal/crypto/keys"
	"barong/internal/crypto/secret"
)

// A TokenKind is what a one-time token sent by mail is for: its subject, and its kind in the table of tokens.
type TokenKind string

// The kinds of mail tokens.
const (
	Confirmation TokenKind = keys.SubjectConfirmation // confirms the address
	Reset        TokenKind = keys.SubjectReset        // allows a new password
)

// Language is the field language of an event: the lang parameter in upper case, EN when there is none.
func Language(lang string) string {
	if lang = strings.ToUpper(strings.TrimSpace(lang)); lang != "" {
		return storable(lang, 32)
	}
	return "EN"
}

// IssueMailToken sends the user a token, by event and mail: the one they were sent before, if it lives for a while yet, so
// that whoever asks for another takes nothing from a link that is in the mailbox already. The transaction that uses a
// token calls UseMailToken with its jti and the kind, which ends all of the kind. It is told to nobody else, least of all
// to who asked for it.
func (u *Unit) IssueMailToken(ctx context.Context, user *db.User, kind TokenKind, lang string) error {
	// Whoever asks at the same time gets the same token.
	if _, err := u.LockUser(ctx, user.ID); err != nil {
		return err
	}
	token, err := u.LiveMailToken(ctx, user.ID, string(kind), u.s.Now().Add(u.s.MailTokenTTL/freshFor))
	if errors.Is(err, db.ErrNotFound) {
		token, err = u.newMailToken(ctx, user, kind)
	}
	if err != nil {
		return err
	}
	return u.mailTokenIssued(ctx, user, kind, lang, token)
}

// MailToken makes a token that is sent to nobody, for an operator who hands it on.
func (u *Unit) MailToken(ctx context.Context, user *db.User, kind TokenKind) (string, error) {
	if _, err := u.LockUser(ctx, user.ID); err != nil {
		return "", err
	}
	return u.newMailToken(ctx, user, kind)
}

// freshFor is the share of its life, a sixth, that a token must have left to be sent again: time to read the mail.
const freshFor = 6

func (u *Unit) newMailToken(ctx context.Context, user *db.User, kind TokenKind) (string, error) {
	now := u.s.Now().UTC()
	expires := now.Add(u.s.MailTokenTTL)
	claims := struct {
		IssuedAt   int64    `json:"iat"`
		ExpiresAt  int64    `json:"exp"`
		Subject    string   `json:"sub"`
		Issuer     string   `json:"iss"`
		Audience   []string `json:"aud"`
		ID         string   `json:"jti"`
		Email      string   `json:"email"`
		UID        string   `json:"uid"`
		ResetToken string   `json:"reset_token,omitempty"`
	}{
		IssuedAt: now.Unix(), ExpiresAt: expires.Unix(), Subject: string(kind), Issuer: u.s.Issuer,
		Audience: u.s.Audience, ID: secret.RandomHex(10), Email: user.Email, UID: user.UID,
	}
	if kind == Reset {
		claims.ResetToken = secret.RandomHex(10)
	}
	token, err := u.s.Keys.Sign(claims)
	if err != nil {
		return "", err
	}
	return token, u.InsertMailToken(ctx, claims.ID, user.ID, string(kind), token, expires)
}
