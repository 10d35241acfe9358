package keys

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// MaxTokenSize is the longest token, in bytes, that is looked at.
const MaxTokenSize = 8 << 10

// The subjects that separate the kinds of tokens, which share keys, issuer and audience.
const (
	SubjectSession      = "session"
	SubjectConfirmation = "confirmation"
	SubjectReset        = "reset"
)

// A Cause is the last part of the code "jwt.decode_and_verify.<cause>" by which a refused token is reported.
type Cause string

// Why a token is refused. A token for another known purpose has that subject as its cause ("session", "confirmation",
// "reset"), as the original said; nothing else a stranger wrote is ever echoed.
const (
	CauseSegments  Cause = "segments"  // not three parts, unsigned, or too long
	CauseEncoding  Cause = "encoding"  // header or claims are not base64url of a JSON object
	CauseAlgorithm Cause = "algorithm" // not the algorithm of a live key, or a critical header extension
	CauseSignature Cause = "raised"    // signature wrong, or made with an unknown key
	CauseExpired   Cause = "expired"   // exp passed, or missing
	CauseNotBefore Cause = "reached"   // nbf not reached
	CauseIssuedAt  Cause = "iat"       // iat not a number, or in the future
	CauseID        Cause = "jti"       // jti missing
	CauseSubject   Cause = "sub"
	CauseIssuer    Cause = "iss"
	CauseAudience  Cause = "aud"
)

// An Error says why a token was refused.
type Error struct {
	Cause Cause
	Err   error // more for the log; may be nil
}

func (e *Error) Error() string {
	if e.Err == nil {
		return "token refused: " + string(e.Cause)
	}
	return "token refused: " + string(e.Cause) + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// errUnknownKey marks a refusal that a newer set of keys might turn into an acceptance.
var errUnknownKey = errors.New("no live key has the id in the header")

// Expect is what a token must be to be accepted.
type Expect struct {
	Subject  string   // exactly; never empty
	Issuer   string   // exactly; empty: any
	Audience []string // at least one of them; empty: any

	ExpirationLeeway time.Duration
	NotBeforeLeeway  time.Duration
	IssuedAtLeeway   time.Duration
}

// Claims is what an accepted token says. Fields that the token does not have, or not in the right type, are zero.
type Claims struct {
	ID        string
	Subject   string
	Issuer    string
	Audience  []string
	IssuedAt  time.Time // zero if the token has none
	ExpiresAt time.Time

	UID        string
	Email      string
	Role       string
	State      string
	Level      int
	ReferralID *int64
	ResetToken string

	KeyID string // in the header; empty for a token of the original, which names no key
}

// Verify accepts a compact token that a live key of the set signed and that is as want says at now; otherwise the error is
// an [*Error]. Signature and algorithm come first, then aud, exp, iat, iss, jti, nbf and sub in that order, so that a
// token with several faults is reported as the original did. A token without a key id is tried with every live key of its
// algorithm; one with a key id only with that key.
func (s *Set) Verify(token string, want Expect, now time.Time) (Claims, error) {
	candidates, methods, err := s.candidates(token, now)
	if err != nil {
		return Claims{}, err
	}
	parser := jwt.NewParser(jwt.WithValidMethods(methods), jwt.WithoutClaimsValidation(), jwt.WithJSONNumber(), jwt.WithStrictDecoding())
	claims := jwt.MapClaims{}
	parsed, err := parser.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) {
		return jwt.VerificationKeySet{Keys: candidates}, nil
	})
	switch {
	case errors.Is(err, jwt.ErrTokenMalformed):
		return Claims{}, &Error{CauseEncoding, err}
	case err != nil:
		return Claims{}, &Error{CauseSignature, err}
	}
	out, err := judge(claims, want, now)
	out.KeyID, _ = parsed.Header["kid"].(string)
	return out, err
}

// candidates reads the header of token and returns the keys that may have signed it, with the one method they allow. It
// refuses before any cryptography whatever the header rules out.
func (s *Set) candidates(token string, now time.Time) ([]jwt.VerificationKey, []string, error) {
	if len(token) > MaxTokenSize {
		return nil, nil, &Error{CauseSegments, fmt.Errorf("longer than %d bytes", MaxTokenSize)}
	}
	header, rest, _ := strings.Cut(token, ".")
	_, signature, ok := strings.Cut(rest, ".")
	if !ok || signature == "" || strings.Contains(signature, ".") {
		return nil, nil, &Error{Cause: CauseSegments}
	}
	text, err := base64.RawURLEncoding.DecodeString(header)
	if err != nil {
		return nil, nil, &Error{CauseEncoding, err}
	}
	// A map, not a struct: encoding/json would take "ALG" for "alg".
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil || members == nil {
		return nil, nil, &Error{CauseEncoding, err}
	}
	if _, ok := members["crit"]; ok {
		return nil, nil, &Error{CauseAlgorithm, errors.New("critical header extensions are not supported")}
	}
	var algorithm string
	if json.Unmarshal(members["alg"], &algorithm) != nil {
		return nil, nil, &Error{CauseAlgorithm, errors.New("no algorithm in the header")}
	}
	var (
		keys  []jwt.VerificationKey
		named *key // the live key with the id in the header
	)
	id, hasID := members["kid"]
	var kid string
	if hasID && json.Unmarshal(id, &kid) != nil {
		kid = "" // not a text: names no key
	}
	fits := false
	for _, k := range s.keys {
		if !k.live(now) {
			continue
		}
		if hasID && k.id == kid {
			named = k
		}
		if k.algorithm == algorithm {
			fits = true
			if !hasID || k.id == kid {
				keys = append(keys, k.public)
			}
		}
	}
	switch {
	case !fits, named != nil && named.algorithm != algorithm:
		err := errors.New("not the algorithm of a live key")
		if hasID && named == nil {
			err = errUnknownKey // a rotation to another algorithm looks like this
		}
		return nil, nil, &Error{CauseAlgorithm, err}
	case len(keys) == 0:
		return nil, nil, &Error{CauseSignature, errUnknownKey}
	}
	// A signature that is no base64url is a wrong signature, as in the original, and not an encoding fault. Strict, and
	// without the line breaks that the decoder would skip: one token has one spelling.
	if _, err := base64.RawURLEncoding.Strict().DecodeString(signature); err != nil || strings.ContainsAny(signature, "\r\n") {
		return nil, nil, &Error{CauseSignature, err}
	}
	return keys, []string{algorithm}, nil
}

// judge compares the claims of a token whose signature is good with what is wanted.
func judge(claims jwt.MapClaims, want Expect, now time.Time) (Claims, error) {
	audience, err := claims.GetAudience()
	if len(want.Audience) > 0 && (err != nil || !slices.ContainsFunc(audience, func(a string) bool {
		return slices.Contains(want.Audience, a)
	})) {
		return Claims{}, &Error{Cause: CauseAudience}
	}
	expires, has, ok := date(claims, "exp")
	if !has || !ok || !now.Add(-want.ExpirationLeeway).Before(expires) {
		return Claims{}, &Error{Cause: CauseExpired}
	}
	issued, has, ok := date(claims, "iat")
	if has && (!ok || issued.After(now.Add(want.IssuedAtLeeway))) {
		return Claims{}, &Error{Cause: CauseIssuedAt}
	}
	issuer := text(claims, "iss")
	if want.Issuer != "" && issuer != want.Issuer {
		return Claims{}, &Error{Cause: CauseIssuer}
	}
	id := text(claims, "jti")
	if strings.TrimSpace(id) == "" {
		return Claims{}, &Error{Cause: CauseID}
	}
	notBefore, has, ok := date(claims, "nbf")
	if has && (!ok || notBefore.After(now.Add(want.NotBeforeLeeway))) {
		return Claims{}, &Error{Cause: CauseNotBefore}
	}
	subject := text(claims, "sub")
	if want.Subject == "" || subject != want.Subject {
		switch subject {
		case SubjectSession, SubjectConfirmation, SubjectReset:
			return Claims{}, &Error{Cause: Cause(subject)}
		}
		return Claims{}, &Error{Cause: CauseSubject}
	}
	c := Claims{
		ID: id, Subject: subject, Issuer: issuer, Audience: audience, IssuedAt: issued, ExpiresAt: expires,
		UID: text(claims, "uid"), Email: text(claims, "email"), Role: text(claims, "role"), State: text(claims, "state"),
		ResetToken: text(claims, "reset_token"),
	}
	if n, ok := number(claims, "level"); ok {
		c.Level = int(n)
	}
	if n, ok := number(claims, "referral_id"); ok {
		c.ReferralID = &n
	}
	return c, nil
}

// date reads a time claim, which is a number of seconds since 1970 (RFC 7519, NumericDate).
func date(claims jwt.MapClaims, name string) (t time.Time, has, ok bool) {
	v, has := claims[name]
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, has, false
	}
	seconds, err := n.Float64()
	if err != nil || math.Abs(seconds) > 1<<40 { // beyond any date; a larger number would wrap around
		return time.Time{}, has, false
	}
	whole, part := math.Modf(seconds)
	return time.Unix(int64(whole), int64(part*1e9)), has, true
}

func text(claims jwt.MapClaims, name string) string {
	s, _ := claims[name].(string)
	return s
}

func number(claims jwt.MapClaims, name string) (int64, bool) {
	n, ok := claims[name].(json.Number)
	if !ok {
		return 0, false
	}
	i, err := n.Int64()
	return i, err == nil
}
