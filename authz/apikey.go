package authz

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"barong/internal/header"
	"barong/session"
	"barong/session/near"
)

// maxKID is the longest API key id that is looked up. Our own have 16 hexadecimal digits.
const maxKID = 64

// keyHeaders are the bits of the headers of scheme v1.
const keyHeaders = 1<<apiKeyID | 1<<apiKeyNonce | 1<<apiKeySignature

// byAPIKey decides a request with at least one of the three API-key headers (scheme v1). Whatever can be told without the key is
// computed before it is looked up, and the answers come in the original's order: headers, key, nonce, signature, use of
// the nonce, key state, owner.
func (c *check) byAPIKey(ctx context.Context) {
	e, d, h := c.engine, c.decision, &c.request.headers
	d.Credential = APIKey
	kid, nonce, signature := h.single[apiKeyID], h.single[apiKeyNonce], h.single[apiKeySignature]
	if blank(kid) || blank(nonce) || blank(signature) {
		d.refuse(invalidKeyHeaders)
		return
	}
	if e.noKeyHeaders {
		d.refuse(invalidKeyHeaders)
		return
	}
	at, number := parseNonce(nonce)
	timely := number && e.nearNow(at, c.now)
	sum, wellFormed := parseSignature(signature)

	found, err := e.cacheKey(ctx, kid, c.now)
	mac := found.MAC
	if err != nil {
		if !errors.Is(err, session.ErrNotFound) {
			c.unavailable(ctx, "API key", err)
			return
		}
		mac = e.nobody // the same work as for a key that exists
	}
	signed := mac.Verify(nonce, kid, &sum) && wellFormed
	if err == nil {
		d.KID = found.Key.KID
	}
	switch {
	case err != nil:
		d.refuse(unexistentKey)
		return
	case !number:
		d.refuse(nonceNotValid)
		return
	case !timely:
		d.refuse(nonceExpired)
		return
	case !signed:
		d.refuse(invalidSignature)
		return
	}
	if e.nonces == nil || c.firstUse(ctx, e.nonces, found, bytes.TrimLeft(nonce, "0"), c.now.Add(2*e.nonceLifetime)) {
		c.byOwner(ctx, found)
	}
}

// cacheKey finds an API key and its owner. The error is session.ErrNotFound when there is none, also when none may have
// such an id.
func (e *Engine) cacheKey(ctx context.Context, kid []byte, now time.Time) (near.FoundKey, error) {
	if !plausibleKID(kid) {
		return near.FoundKey{}, session.ErrNotFound
	}
	return e.cache.APIKey(ctx, header.View(kid), now)
}

// firstUse reports whether a key whose signature was verified uses a nonce for the first time, and refuses otherwise. The
// nonce is remembered until then.
func (c *check) firstUse(ctx context.Context, nonces Nonces, found near.FoundKey, nonce []byte, until time.Time) bool {
	c.decision.Principal = found.Principal
	first, err := nonces.FirstUse(ctx, found.Key.KID, header.View(nonce), until)
	switch {
	case err != nil:
		c.unavailable(ctx, "nonce", err)
		return false
	case !first:
		c.decision.refuse(nonceUsed)
		return false
	}
	return true
}

// byOwner decides what a key may do that proved itself.
func (c *check) byOwner(ctx context.Context, found near.FoundKey) {
	d := c.decision
	d.Principal = found.Principal
	switch {
	case !found.Key.Active:
		d.refuse(keyNotActive)
	case found.Principal == nil || !found.Principal.Open():
		d.refuse(invalidSession)
	case !found.Principal.OTP:
		d.refuse(disabled2FA)
	default:
		c.byRole(ctx, found.Principal, nil, found.Token)
	}
}

func blank(value []byte) bool { return len(bytes.TrimSpace(value)) == 0 }

// plausibleKID reports whether a key of that id may exist at all.
func plausibleKID(kid []byte) bool {
	if len(kid) > maxKID {
		return false
	}
	for _, c := range kid {
		if c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// parseNonce reads a positive decimal number of at most 19 digits: Unix milliseconds.
func parseNonce(text []byte) (ms uint64, ok bool) {
	if len(text) == 0 || len(text) > 19 {
		return 0, false
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		ms = ms*10 + uint64(c-'0') // 19 digits fit in 64 bits
	}
	return ms, ms > 0
}

// nearNow reports whether a nonce is less than its lifetime away from now, on either side.
func (e *Engine) nearNow(nonce uint64, now time.Time) bool {
	ms := uint64(max(0, now.UnixMilli()))
	distance := max(ms, nonce) - min(ms, nonce)
	return distance < uint64(e.nonceLifetime/time.Millisecond)
}

// parseSignature reads 64 lower-case hexadecimal digits.
func parseSignature(text []byte) (sum [sha256.Size]byte, ok bool) {
	id, ok := session.ParseID(text)
	return id, ok
}
