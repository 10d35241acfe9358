package authz

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"barong/session"
	"barong/session/near"
)

// A Signer is one signing key. keys.Set is one.
type Signer interface {
	// SignPayload returns the compact token over payload, which is the JSON of the claims.
	SignPayload(payload []byte) ([]byte, error)
	// KeyID names the key. Tokens of another key are not handed out again.
	KeyID() string
}

// TokenSettings describe the tokens of an Allow.
type TokenSettings struct {
	Life      time.Duration // BARONG_JWT_EXPIRE_TIME, whole seconds
	Reuse     float64       // BARONG_JWT_REUSE: share of Life, from 0 to below 1; 0 signs on every check
	Issuer    string        // BARONG_JWT_ISSUER
	Audience  []string      // BARONG_JWT_AUDIENCE
	Beginning bool          // tokens of sessions tell how and when these began: claims amr and auth_time
}

// claims are the claims of a gateway token, in the order in which they are written. Those that all tokens have stand first:
// see near.TokenHead.
type claims struct {
	Subject    string   `json:"sub"`
	Issuer     string   `json:"iss"`
	Audience   []string `json:"aud"`
	IssuedAt   int64    `json:"iat"`
	Expires    int64    `json:"exp"`
	ID         string   `json:"jti"`
	UID        string   `json:"uid"`
	Email      string   `json:"email"`
	Role       string   `json:"role"`
	Level      int      `json:"level"`
	State      string   `json:"state"`
	ReferralID *int64   `json:"referral_id"` // users.id of the referrer; there even when null

	// How the user of the session has proved who they are (RFC 8176), and when, in seconds (OpenID Connect Core, section 2).
	Methods  []string `json:"amr,omitempty"`
	AuthTime int64    `json:"auth_time,omitempty"`
}

// lastShare is the last part of the reuse window, in which a token in use is replaced in the background, so that the check
// that comes after the window does not have to wait for a signature.
const lastShare = 0.25

// maxRefreshes bounds the tokens that wait to be signed in the background. One that finds no place is signed by the first
// check after its window.
const maxRefreshes = 1 << 12

// tokens sign, and hand out again what was signed.
type tokens struct {
	signer func() Signer
	set    TokenSettings
	window time.Duration // how long a token is handed out again; 0 not at all
	last   int64         // nanoseconds: a token that is handed out no longer than that is to be replaced
	start  time.Time     // near.Token.Until counts from here
	now    func() time.Time
	signed func(took time.Duration, err error)
	log    *slog.Logger

	common []byte                         // what the claims of every token begin with
	head   atomic.Pointer[near.TokenHead] // of the token that was signed last

	mu      sync.Mutex
	signing map[*near.TokenSlot]chan struct{} // closed when the signature under way is there

	// busy holds a place for each signature under way. There are fewer than processors: a storm of new sessions must not
	// keep the checks waiting that need no signature.
	busy  chan struct{}
	alone bool // there is one processor

	refreshes chan refresh
	quit      chan struct{}
	stop      sync.Once
	workers   sync.WaitGroup
}

type refresh struct {
	slot      *near.TokenSlot
	token     *near.Token // to be replaced
	principal *session.Principal
	session   *near.Session
}

func newTokens(o *Options, workers int) *tokens {
	t := &tokens{
		signer: o.Signer, set: o.Token, now: o.Now, signed: o.Signed, log: o.Log,
		window: time.Duration(float64(o.Token.Life) * o.Token.Reuse), start: o.Now(),
		signing: make(map[*near.TokenSlot]chan struct{}),
		busy:    make(chan struct{}, workers), alone: runtime.GOMAXPROCS(0) == 1,
		refreshes: make(chan refresh, maxRefreshes), quit: make(chan struct{}),
	}
	if t.signed == nil {
		t.signed = func(time.Duration, error) {}
	}
	t.last = int64(float64(t.window) * lastShare)
	t.common, _, _ = bytes.Cut(t.payload(&claims{Subject: subject, Issuer: o.Token.Issuer, Audience: o.Token.Audience}), []byte(`"iat"`))
	if t.window > 0 {
		t.workers.Add(workers)
		for range workers {
			go t.worker()
		}
	}
	return t
}

func (t *tokens) close() {
	t.stop.Do(func() { close(t.quit) })
	t.workers.Wait()
}

func (t *tokens) worker() {
	defer t.workers.Done()
	for {
		select {
		case <-t.quit:
			return
		case r := <-t.refreshes:
			if err := t.refresh(r); err != nil {
				r.token.Refreshing.Store(false)
				t.log.LogAttrs(context.Background(), slog.LevelError, "a token could not be signed", slog.Any("error", err))
			}
		}
	}
}

// authorization returns the token for p in session s, which is nil for an API key: the one last signed for the slot
// if it may be handed out again, else a new one. Checks that need the same one share a signature. A slot is that of one
// session, whose beginning never changes.
func (t *tokens) authorization(
	ctx context.Context, slot *near.TokenSlot, p *session.Principal, s *near.Session, now time.Time,
) (*near.Token, error) {
	signer := t.signer()
	if signer == nil {
		return nil, errors.New("authz: there is no signing key")
	}
	if t.window <= 0 {
		return t.sign(signer, p, s, now)
	}
	token := slot.Load()
	if !t.usable(token, signer, p, now) {
		var err error
		if token, err = t.current(ctx, slot, signer, p, s, now); err != nil {
			return nil, err
		}
	}
	if t.since(now) >= token.Until-t.last {
		t.refreshLater(slot, token, p, s)
	}
	return token, nil
}

// current returns the slot's token, and signs one if need be.
func (t *tokens) current(
	ctx context.Context, slot *near.TokenSlot, signer Signer, p *session.Principal, s *near.Session, now time.Time,
) (*near.Token, error) {
	for {
		if token := slot.Load(); t.usable(token, signer, p, now) {
			return token, nil
		}
		done, first := t.begin(slot)
		if first {
			return t.signInto(ctx, slot, nil, signer, p, s, now)
		}
		select {
		case <-done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// since is a time on the clock of tokens, which no step of the wall clock moves.
func (t *tokens) since(now time.Time) int64 { return int64(now.Sub(t.start)) }

// usable reports whether a token says what a new one would say, and may still be handed out.
func (t *tokens) usable(token *near.Token, signer Signer, p *session.Principal, now time.Time) bool {
	return token != nil && t.since(now) < token.Until && now.UnixNano() < token.Expires && token.Head.KeyID == signer.KeyID() &&
		(token.Principal == p || sameClaims(token.Principal, p))
}

// sameClaims reports whether the tokens of two principals say the same.
func sameClaims(a, b *session.Principal) bool {
	return a.UID == b.UID && a.Email == b.Email && a.Role == b.Role && a.Level == b.Level && a.State == b.State &&
		a.ReferralID == b.ReferralID
}

// begin claims the slot's signature. first is false when somebody else is at it until done.
func (t *tokens) begin(slot *near.TokenSlot) (done chan struct{}, first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if done, ok := t.signing[slot]; ok {
		return done, false
	}
	done = make(chan struct{})
	t.signing[slot] = done
	return done, true
}

// signInto signs a new token, puts it into the slot and ends what begin began. With old, it only replaces that one.
func (t *tokens) signInto(
	ctx context.Context, slot *near.TokenSlot, old *near.Token, signer Signer, p *session.Principal, s *near.Session, now time.Time,
) (*near.Token, error) {
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		close(t.signing[slot])
		delete(t.signing, slot)
	}()
	select {
	case t.busy <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	begin := time.Now()
	defer func() { t.leave(time.Since(begin)) }()
	// Somebody else may have ended just before this one began.
	if token := slot.Load(); token != old && t.usable(token, signer, p, now) {
		return token, nil
	}
	token, err := t.sign(signer, p, s, now)
	if err != nil {
		return nil, err
	}
	if old == nil {
		slot.Store(token)
	} else {
		slot.CompareAndSwap(old, token)
	}
	return token, nil
}

// leave lets another signature begin. On a single processor it first leaves other checks as much time as the signature
// took: Go's scheduler would let the signatures that wait go before everything that comes in.
func (t *tokens) leave(took time.Duration) {
	if t.alone {
		time.AfterFunc(took, func() { <-t.busy })
		return
	}
	<-t.busy
}

func (t *tokens) refreshLater(slot *near.TokenSlot, token *near.Token, p *session.Principal, s *near.Session) {
	if !token.Refreshing.CompareAndSwap(false, true) {
		return
	}
	select {
	case t.refreshes <- refresh{slot, token, p, s}:
	default:
		token.Refreshing.Store(false)
	}
}

func (t *tokens) refresh(r refresh) error {
	if r.slot.Load() != r.token {
		return nil // replaced or forgotten meanwhile
	}
	if _, first := t.begin(r.slot); !first {
		return nil
	}
	signer := t.signer()
	if signer == nil {
		signer = noSigner{}
	}
	_, err := t.signInto(context.Background(), r.slot, r.token, signer, r.principal, r.session, t.now())
	return err
}

type noSigner struct{}

func (noSigner) SignPayload([]byte) ([]byte, error) {
	return nil, errors.New("authz: there is no signing key")
}
func (noSigner) KeyID() string { return "" }

func (t *tokens) sign(signer Signer, p *session.Principal, s *near.Session, now time.Time) (*near.Token, error) {
	var id [10]byte
	rand.Read(id[:]) // never fails since Go 1.24: a broken source ends the process
	c := claims{
		IssuedAt: now.Unix(), Expires: now.Unix() + int64(t.set.Life/time.Second),
		Subject: subject, Issuer: t.set.Issuer, Audience: t.set.Audience, ID: hex.EncodeToString(id[:]),
		UID: p.UID, Email: p.Email, Role: p.Role, Level: int(p.Level), State: p.State,
	}
	if p.ReferralID != 0 {
		c.ReferralID = &p.ReferralID
	}
	if t.set.Beginning && s != nil {
		c.Methods, c.AuthTime = s.Methods.Names(), s.AuthTime().Unix()
	}
	payload := t.payload(&c)
	keyID := signer.KeyID()
	begin := time.Now()
	compact, err := signer.SignPayload(payload)
	t.signed(time.Since(begin), err)
	if err != nil {
		return nil, fmt.Errorf("sign token: %w", err)
	}
	head := t.headOf(keyID, compact, payload)
	token := near.NewToken(head, compact[len(head.Text)-len(scheme):])
	token.Principal = p
	token.Until, token.Expires = t.since(now)+int64(t.window), now.Add(t.window).UnixNano()
	return token, nil
}

const (
	scheme  = "Bearer "
	subject = "session"
)

func (t *tokens) payload(c *claims) []byte {
	payload, err := json.Marshal(c)
	if err != nil {
		panic(err) // texts and numbers are JSON
	}
	return payload
}

// headOf returns what a token has in common with others: its header, and its claims up to the first that is its own.
func (t *tokens) headOf(keyID string, compact, payload []byte) *near.TokenHead {
	n := bytes.IndexByte(compact, '.') + 1
	if digits := len(t.common) / 3 * 4; bytes.HasPrefix(payload, t.common) && n+digits <= len(compact) {
		n += digits // four digits are three bytes, whatever follows
	}
	head := t.head.Load()
	if head == nil || head.KeyID != keyID || head.Text[len(scheme):] != string(compact[:n]) {
		head = &near.TokenHead{Text: scheme + string(compact[:n]), KeyID: keyID}
		t.head.Store(head)
	}
	return head
}
