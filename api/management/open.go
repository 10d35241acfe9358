package management

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"barong/api/rest"
	"barong/internal/crypto/jws"
	"barong/internal/fault"
)

// Refusals of a message, in the order in which they are looked for.
var (
	errQuery      = fault.Plain(400, "Query parameters are not allowed.")
	errBodyType   = fault.Plain(400, "Only JSON body is accepted.")
	errParse      = fault.Plain(400, "Couldn't parse JWT.")
	errVerify     = fault.Plain(401, "Failed to verify JWT.")
	errSignatures = fault.Plain(401, "Not enough signatures for the action.")
)

// maxLife is how far the end of a message may lie ahead: so long its id is remembered.
const maxLife = 24 * time.Hour

// clockSkew is how far the clocks of replicas may be apart: one that is ahead must not forget what another still accepts.
const clockSkew = time.Minute

// maxID is the longest jti, in bytes.
const maxID = 256

// Open verifies the message of a call and returns the JSON object of its parameters. It is the Open of rest.Options.
//
// A message must end (exp) and be named (jti), and counts once, on whichever replica: a recorded one cannot be sent again.
// Where it names the method or the path that it is for, it is refused elsewhere. Release 2.4.17's mode checks exp when it
// is there, and lets messages be repeated, as the original did.
func (m *Module) Open(ctx context.Context, r *rest.Route, sent rest.Message) ([]byte, error) {
	switch {
	case sent.Query:
		return nil, errQuery
	case sent.ContentType != "application/json":
		return nil, errBodyType
	case !json.Valid(sent.Body):
		return nil, errParse
	}
	scope, ok := m.Config.Scopes[r.Scope]
	if !ok {
		return nil, errVerify.Because(fmt.Errorf("scope %s is not configured", r.Scope))
	}
	message, err := jws.Parse(sent.Body)
	if err != nil {
		return nil, errVerify.Because(err)
	}
	signers, err := message.Verify(m.Config.Keychain, scope.Permitted)
	if err != nil {
		return nil, errVerify.Because(err)
	}
	if len(signers) == 0 { // unsigned: nothing of it is decoded
		return nil, errSignatures.Because(errors.New("nobody who may has signed it"))
	}
	payload, err := message.Bytes()
	if err != nil {
		return nil, errVerify.Because(err)
	}
	wanted := m.Config.Claims
	wanted.ID = wanted.ID || !m.Legacy
	c, err := readClaims(payload, &wanted)
	if err != nil {
		return nil, errVerify.Because(err)
	}
	now := m.Now()
	if err := m.judge(c, r, now); err != nil {
		return nil, errVerify.Because(err)
	}
	for _, id := range scope.Mandatory {
		if !slices.Contains(signers, id) {
			return nil, errSignatures.Because(fmt.Errorf("the signature of %s is missing", id))
		}
	}
	if !m.Legacy {
		if err := m.once(ctx, c, now); err != nil {
			return nil, err
		}
	}
	m.Log.InfoContext(ctx, "management call", "method", r.Method, "path", r.Path, "signers", strings.Join(signers, ","))
	if c.Data == nil {
		return []byte("{}"), nil
	}
	return c.Data, nil
}

// once notes the id of a message, and refuses one that was noted before, whoever has signed it: signatures can be left out
// of a recorded message.
func (m *Module) once(ctx context.Context, c *claims, now time.Time) error {
	life := c.Expires.Sub(now) + m.Config.Claims.Leeway + clockSkew
	wait, err := m.Memory.Take(ctx, "management.jti:"+*c.ID, 1, life)
	if err != nil {
		return fault.New(fault.Unavailable).Because(err)
	}
	if wait > 0 {
		return errVerify.Because(errors.New("the message was sent before"))
	}
	return nil
}

// claims are those of a message (RFC 7519), and its parameters.
type claims struct {
	Expires, NotBefore, IssuedAt *number
	ID, Issuer, Subject          *string
	Audience                     []string
	Method, Path                 *string
	Data                         json.RawMessage // a JSON object; nil: none
}

// A number is a time: whole or broken seconds since 1970.
type number struct{ time.Time }

func (n *number) UnmarshalJSON(text []byte) error {
	var seconds float64
	if err := json.Unmarshal(text, &seconds); err != nil {
		return errors.New("not a number")
	}
	if seconds < 0 || seconds > 1e11 {
		return errors.New("not a time")
	}
	n.Time = time.UnixMilli(int64(seconds * 1000))
	return nil
}

// readClaims reads a payload: when it ends and begins, what it is for, its data, and of the other claims those that the
// rules ask for. Claims that are null count as absent.
func readClaims(payload []byte, rules *Claims) (*claims, error) {
	members, err := jws.Object(payload)
	if err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	c := new(claims)
	var audience json.RawMessage
	for _, claim := range []struct {
		name   string
		wanted bool
		into   any
	}{
		{"exp", true, &c.Expires},
		{"nbf", true, &c.NotBefore},
		{"method", true, &c.Method},
		{"path", true, &c.Path},
		{"data", true, &c.Data},
		{"iat", rules.IssuedAt, &c.IssuedAt},
		{"jti", rules.ID, &c.ID},
		{"iss", rules.Issuers != nil, &c.Issuer},
		{"sub", rules.Subject != "", &c.Subject},
		{"aud", rules.Audience != nil, &audience},
	} {
		text, ok := members[claim.name]
		if !ok || !claim.wanted || string(text) == "null" {
			continue
		}
		if err := json.Unmarshal(text, claim.into); err != nil {
			return nil, fmt.Errorf("claim %s: %w", claim.name, err)
		}
	}
	if audience != nil {
		if c.Audience, err = oneOrMore(audience); err != nil {
			return nil, fmt.Errorf("claim aud: %w", err)
		}
	}
	if c.Data != nil && c.Data[0] != '{' {
		if list := []any(nil); json.Unmarshal(c.Data, &list) != nil || len(list) > 0 {
			return nil, errors.New("data is no object")
		}
		c.Data = nil // an empty list is how some languages write an empty object
	}
	return c, nil
}

func oneOrMore(text json.RawMessage) (list []string, err error) {
	if text[0] == '"' {
		list = make([]string, 1)
		return list, json.Unmarshal(text, &list[0])
	}
	return list, json.Unmarshal(text, &list)
}

// judge says what is wrong with the claims of a message.
func (m *Module) judge(c *claims, r *rest.Route, now time.Time) error {
	rules := m.Config.Claims
	switch {
	case !m.Legacy && (c.Expires == nil || c.ID == nil || *c.ID == ""):
		return errors.New("exp and jti are needed")
	case !m.Legacy && c.Expires.Sub(now) > maxLife:
		return fmt.Errorf("exp is more than %v ahead", maxLife)
	case c.ID != nil && len(*c.ID) > maxID:
		return fmt.Errorf("jti is longer than %d bytes", maxID)
	case c.Expires != nil && !rules.IgnoreExpiration && !now.Before(c.Expires.Add(rules.Leeway)):
		return errors.New("expired")
	case c.NotBefore != nil && !rules.IgnoreNotBefore && now.Before(c.NotBefore.Add(-rules.Leeway)):
		return errors.New("not valid yet")
	case rules.IssuedAt && (c.IssuedAt == nil || now.Before(c.IssuedAt.Add(-rules.Leeway))):
		return errors.New("iat is missing or in the future")
	case rules.ID && (c.ID == nil || *c.ID == ""):
		return errors.New("jti is missing")
	case rules.Issuers != nil && (c.Issuer == nil || !slices.Contains(rules.Issuers, *c.Issuer)):
		return errors.New("iss does not fit")
	case rules.Subject != "" && (c.Subject == nil || *c.Subject != rules.Subject):
		return errors.New("sub does not fit")
	case rules.Audience != nil && !slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(rules.Audience, a) }):
		return errors.New("aud does not fit")
	case c.Method != nil && !strings.EqualFold(*c.Method, r.Method):
		return errors.New("it is for another method")
	case c.Path != nil && *c.Path != rest.Base+r.Path && *c.Path != r.Path:
		return errors.New("it is for another path")
	}
	return nil
}
