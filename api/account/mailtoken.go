package account

import (
	"context"
	"strings"

	"barong/db"
	"barong/internal/keys"
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

// IssueMailToken makes a token for the user and sends it off by event and mail. Only the latest of a kind works: the
// transaction that uses it calls UseMailToken with its jti and the kind. It is told to nobody else, least of all to who
// asked for it.
func (u *Unit) IssueMailToken(ctx context.Context, user *db.User, kind TokenKind, lang string) error {
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
		Audience: u.s.Audience, ID: randomHex(10), Email: user.Email, UID: user.UID,
	}
	if kind == Reset {
		claims.ResetToken = randomHex(10)
	}
	token, err := u.s.Keys.Sign(claims)
	if err != nil {
		return err
	}
	if err := u.InsertMailToken(ctx, claims.ID, user.ID, string(kind), expires); err != nil {
		return err
	}
	return u.mailTokenIssued(ctx, user, kind, lang, token)
}
