package authz

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"barong/internal/crypto/keys"
	"barong/internal/fault"
	"barong/internal/test/testkit"
	"barong/internal/trusted"
	"barong/policy"
	"barong/session"
	"barong/session/near"
)

// decide checks one request of a member's browser.
func (w *world) decide(method, target string, id session.ID) Decision {
	var r Request
	var d Decision
	browser(&r, method, target, id)
	w.engine.Check(context.Background(), &r, &d)
	return d
}

func (w *world) wantAllow(t *testing.T, id session.ID) Decision {
	t.Helper()
	d := w.decide("GET", ownPath, id)
	if d.Effect != Allow || d.Status != 200 || d.Code != "" || len(d.Authorization) == 0 {
		t.Fatalf("effect %v, status %d, code %q; want allow", d.Effect, d.Status, d.Code)
	}
	return d
}

func (w *world) wantDeny(t *testing.T, id session.ID, code fault.Code) Decision {
	t.Helper()
	d := w.decide("GET", ownPath, id)
	if d.Effect != Deny || d.Code != string(code) || d.Status != fault.New(code).Status || d.Authorization != nil {
		t.Fatalf("effect %v, status %d, code %q; want %s", d.Effect, d.Status, d.Code, code)
	}
	return d
}

func TestWarmChecksAskNoStore(t *testing.T) {
	w := newWorld(t, testRules(10), nil)
	id := w.addMember(0, testKID)
	check := func() {
		w.wantAllow(t, id)
		var r Request
		var d Decision
		bot(&r, w, testKID, "GET", ownPath, 0)
		if w.engine.Check(context.Background(), &r, &d); d.Effect != Allow {
			t.Fatal(d.Code)
		}
	}
	check()
	calls, signed := w.calls(), w.signed.Load()
	if calls != 3 || signed != 2 {
		t.Errorf("the first checks made %d calls and %d signatures, want 3 and 2", calls, signed)
	}
	for range 100 {
		check()
	}
	if w.calls() != calls || w.signed.Load() != signed || w.touches.Load() != 0 {
		t.Errorf("200 warm checks made %d calls, %d signatures and %d touches",
			w.calls()-calls, w.signed.Load()-signed, w.touches.Load())
	}
}

// The near cache knows who, never what may be done: the same session gets two verdicts for two paths.
func TestVerdictIsNotCached(t *testing.T) {
	w := newWorld(t, testRules(10), nil)
	id := w.addMember(0, "")
	for range 2 {
		w.wantAllow(t, id)
		if d := w.decide("GET", "/api/v2/other", id); d.Code != "authz.invalid_permission" {
			t.Errorf("code %q", d.Code)
		}
	}
	snapshot, err := policy.Compile(testRules(0))
	if err != nil {
		t.Fatal(err)
	}
	w.rules.Store(snapshot)
	w.wantDeny(t, id, "authz.invalid_permission")
}

func decodeToken(t *testing.T, authorization []byte) (header, claims map[string]any) {
	t.Helper()
	compact, ok := strings.CutPrefix(string(authorization), "Bearer ")
	parts := strings.Split(compact, ".")
	if !ok || len(parts) != 3 {
		t.Fatalf("authorization %q", authorization)
	}
	for i, into := range []*map[string]any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(text, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}

func TestTokenClaims(t *testing.T) {
	w := newWorld(t, testRules(10), nil)
	id := w.addMember(0, "")
	_, claims := decodeToken(t, w.wantAllow(t, id).Authorization)
	jti, _ := claims["jti"].(string)
	if !regexp.MustCompile(`^[0-9a-f]{20}$`).MatchString(jti) {
		t.Errorf("jti %q", jti)
	}
	delete(claims, "jti")
	want := map[string]any{
		"iat": float64(epoch.Unix()), "exp": float64(epoch.Unix() + 300), "sub": "session", "iss": "barong",
		"aud": []any{"peatio", "barong"}, "uid": "ID0000000000", "email": "user0@example.com", "role": "member",
		"level": 3.0, "state": "active", "referral_id": nil,
	}
	got, _ := json.Marshal(claims)
	if expected, _ := json.Marshal(want); string(got) != string(expected) {
		t.Errorf("claims %s, want %s", got, expected)
	}
	w.principals["ID0000000000"] = session.Principal{UID: "ID0000000000", Role: "member", State: "pending", ReferralID: 42}
	w.cache.ForgetUser("ID0000000000")
	if _, claims = decodeToken(t, w.wantAllow(t, id).Authorization); claims["referral_id"] != 42.0 || claims["state"] != "pending" {
		t.Errorf("claims %v", claims)
	}
	verified, err := w.signer.Load().Verify(strings.TrimPrefix(string(w.wantAllow(t, id).Authorization), "Bearer "),
		keys.Expect{Subject: "session", Issuer: "barong", Audience: []string{"barong"}}, w.now())
	if err != nil {
		t.Errorf("the token does not verify: %v (%v)", err, verified)
	}
}

// A session's token tells how and when it began, where that is wanted; an API key has not begun.
func TestTokensTellHowSessionsBegan(t *testing.T) {
	for _, wanted := range []bool{true, false} {
		w := newWorld(t, testRules(10), func(_ *world, _ *near.Options, o *Options) { o.Token.Beginning = wanted })
		id, old := w.addMember(0, testKID), w.addMember(1, "")
		began := w.sessions[id.Key()]
		began.Methods, began.AuthTime = session.Password|session.Code, epoch.Add(-time.Hour)
		w.sessions[id.Key()] = began
		before := w.sessions[old.Key()] // of a version that did not keep it
		before.AuthTime = epoch.Add(-2 * time.Hour)
		w.sessions[old.Key()] = before
		_, claims := decodeToken(t, w.wantAllow(t, id).Authorization)
		_, oldClaims := decodeToken(t, w.wantAllow(t, old).Authorization)
		var r Request
		var d Decision
		bot(&r, w, testKID, "GET", ownPath, 0)
		w.engine.Check(t.Context(), &r, &d)
		_, keyClaims := decodeToken(t, d.Authorization)
		want := [][2]any{{nil, nil}, {nil, nil}, {nil, nil}}
		if wanted {
			want[0] = [2]any{[]any{"pwd", "otp"}, float64(epoch.Add(-time.Hour).Unix())}
			want[1] = [2]any{nil, float64(epoch.Add(-2 * time.Hour).Unix())}
		}
		for i, c := range []map[string]any{claims, oldClaims, keyClaims} {
			if got := [2]any{c["amr"], c["auth_time"]}; !reflect.DeepEqual(got, want[i]) {
				t.Errorf("token %d, wanted %v: %v, want %v", i, wanted, got, want[i])
			}
		}
	}
}

func TestTokenIsReusedForItsShare(t *testing.T) {
	w := newWorld(t, testRules(10), func(_ *world, _ *near.Options, o *Options) { o.Token.Reuse = 0.5 })
	id, other := w.addMember(0, ""), w.addMember(1, "")
	first := string(w.wantAllow(t, id).Authorization)
	w.advance(112 * time.Second) // before 3/4 of the 150 s
	if string(w.wantAllow(t, id).Authorization) != first || w.signed.Load() != 1 {
		t.Error("the token was not handed out again")
	}
	if string(w.wantAllow(t, other).Authorization) == first {
		t.Error("another session got the same token")
	}
	w.advance(38 * time.Second)
	if string(w.wantAllow(t, id).Authorization) == first {
		t.Error("the token was handed out again after its share")
	}
}

func TestTokenInUseIsReplacedInTheBackground(t *testing.T) {
	w := newWorld(t, testRules(10), nil)
	id := w.addMember(0, "")
	first := string(w.wantAllow(t, id).Authorization)
	w.advance(115 * time.Second)
	if string(w.wantAllow(t, id).Authorization) != first {
		t.Error("a check waited for a signature though its token was still good")
	}
	testkit.Eventually(t, 5*time.Second, func() bool { return w.signed.Load() == 2 })
	testkit.Eventually(t, 5*time.Second, func() bool { return string(w.wantAllow(t, id).Authorization) != first })
	w.advance(100 * time.Second) // the first one's share is over, the second one's is not
	w.wantAllow(t, id)
	if n := w.signed.Load(); n != 2 {
		t.Errorf("%d signatures, want 2", n)
	}
}

func TestNoReuseSignsEveryTime(t *testing.T) {
	w := newWorld(t, testRules(10), func(_ *world, _ *near.Options, o *Options) { o.Token.Reuse = 0 })
	id := w.addMember(0, "")
	seen := map[string]bool{}
	for range 10 {
		seen[string(w.wantAllow(t, id).Authorization)] = true
	}
	if len(seen) != 10 || w.signed.Load() != 10 {
		t.Errorf("%d tokens and %d signatures, want 10", len(seen), w.signed.Load())
	}
}

// A gatedSigner signs when told to.
type gatedSigner struct {
	Signer
	gate chan struct{}
}

func (g gatedSigner) SignPayload(payload []byte) ([]byte, error) {
	<-g.gate
	return g.Signer.SignPayload(payload)
}

func TestChecksShareASignature(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		w := newWorld(t, testRules(10), func(w *world, _ *near.Options, o *Options) {
			o.Signer = func() Signer { return gatedSigner{w, gate} }
		})
		id := w.addMember(0, "")
		var group sync.WaitGroup
		for range 50 {
			group.Go(func() { w.wantAllow(t, id) })
		}
		// One whose time is up while the others wait.
		ctx, cancel := context.WithCancel(context.Background())
		group.Go(func() {
			var r Request
			var d Decision
			synctest.Wait()
			browser(&r, "GET", ownPath, id)
			if w.engine.Check(ctx, &r, &d); d.Effect != Deny || d.Code != "authz.unavailable" {
				t.Errorf("effect %v, code %q; want unavailable", d.Effect, d.Code)
			}
		})
		time.Sleep(time.Second)
		cancel()
		synctest.Wait()
		close(gate)
		group.Wait()
		if n := w.signed.Load(); n != 1 {
			t.Errorf("%d signatures, want 1", n)
		}
	})
}

func TestSigningKeyChange(t *testing.T) {
	w := newWorld(t, testRules(10), nil)
	id := w.addMember(0, "")
	old, _ := decodeToken(t, w.wantAllow(t, id).Authorization)
	set, err := keys.New(keys.ES256)
	if err != nil {
		t.Fatal(err)
	}
	w.signer.Store(set)
	header, _ := decodeToken(t, w.wantAllow(t, id).Authorization)
	if header["kid"] != set.KeyID() || header["kid"] == old["kid"] || header["alg"] != "ES256" {
		t.Errorf("header %v after the change to key %s", header, set.KeyID())
	}
}

// After an invalidation no token says what was before, whoever is signing what at that moment.
func TestNoStaleTokenAfterInvalidation(t *testing.T) {
	w := newWorld(t, testRules(10), func(_ *world, c *near.Options, o *Options) {
		o.Token.Reuse = 0.9
		c.Life = 24 * time.Hour // the clock below may run an hour before anybody has slid the expiry
	})
	id := w.addMember(0, "")
	w.sessions[id.Key()] = func(s session.Session) session.Session { s.ExpiresAt = s.EndsAt; return s }(w.sessions[id.Key()])
	var felt atomic.Int64
	var stop atomic.Bool
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			for !stop.Load() {
				want := felt.Load()
				d := w.decide("GET", ownPath, id)
				if d.Effect == Deny && d.Code == "authz.unavailable" {
					continue // it changed too often while it was read
				}
				if d.Effect != Allow {
					t.Errorf("code %q", d.Code)
					return
				}
				_, claims := decodeToken(t, d.Authorization)
				if level, _ := claims["level"].(float64); int64(level) < want {
					t.Errorf("level %v in a token after the change to %d", level, want)
					return
				}
			}
		})
	}
	for level := int64(10); level < 310; level++ {
		w.mu.Lock()
		p := w.principals["ID0000000000"]
		p.Level = int32(level)
		w.principals["ID0000000000"] = p
		w.mu.Unlock()
		w.cache.ForgetUser("ID0000000000")
		felt.Store(level)
		if level%20 == 0 {
			w.advance(250 * time.Second) // make tokens due
		}
	}
	stop.Store(true)
	group.Wait()
}

func TestChangesBiteAtTheNextCheck(t *testing.T) {
	w := newWorld(t, testRules(10), nil)
	id := w.addMember(0, testKID)
	uid := "ID0000000000"
	key := func() string {
		var r Request
		var d Decision
		bot(&r, w, testKID, "GET", ownPath, 0)
		w.engine.Check(context.Background(), &r, &d)
		return d.Code
	}
	change := func(f func(p *session.Principal)) {
		w.mu.Lock()
		p := w.principals[uid]
		f(&p)
		w.principals[uid] = p
		w.mu.Unlock()
		w.cache.ForgetUser(uid)
	}
	w.wantAllow(t, id)
	change(func(p *session.Principal) { p.State = "banned" })
	w.wantDeny(t, id, "authz.user_not_active")
	if code := key(); code != "authz.invalid_session" {
		t.Errorf("key of a banned user: %q", code)
	}
	change(func(p *session.Principal) { p.State, p.OTP = "active", false })
	w.wantAllow(t, id)
	if code := key(); code != "authz.disabled_2fa" {
		t.Errorf("key without second factor: %q", code)
	}
	change(func(p *session.Principal) { p.Role, p.OTP = "guest", true })
	w.wantDeny(t, id, "authz.invalid_permission")
	change(func(p *session.Principal) { p.Role, p.Epoch = "member", 1 })
	w.wantDeny(t, id, "authz.invalid_session")
	change(func(p *session.Principal) { p.Epoch = 0 })
	w.wantAllow(t, id)
	if code := key(); code != "" {
		t.Errorf("key: %q", code)
	}
	w.mu.Lock()
	w.apiKeys[testKID] = session.APIKey{KID: testKID, UID: uid, Secret: []byte(testSecret)}
	w.mu.Unlock()
	w.cache.ForgetKey(testKID)
	if code := key(); code != "authz.apikey_not_active" {
		t.Errorf("inactive key: %q", code)
	}
	_ = worldStore{w}.Delete(t.Context(), id.Key())
	w.cache.ForgetSession(id.Key())
	w.wantDeny(t, id, "authz.invalid_session")
}

// What cannot be told is refused, and never looks like a logout.
func TestOutage(t *testing.T) {
	w := newWorld(t, testRules(10), nil)
	id := w.addMember(0, testKID)
	w.down.Store(true)
	w.wantDeny(t, id, "authz.unavailable")
	var r Request
	var d Decision
	bot(&r, w, testKID, "GET", ownPath, 0)
	if w.engine.Check(context.Background(), &r, &d); d.Code != "authz.unavailable" || d.Status != 503 {
		t.Errorf("API key: status %d, code %q", d.Status, d.Code)
	}
	if d := w.decide("GET", "/api/v2/peatio/public", id); d.Effect != Pass {
		t.Errorf("pass list: effect %v, code %q", d.Effect, d.Code)
	}
	r.Reset()
	browser(&r, "POST", ownPath, id)
	r.AddHeader([]byte("X-CSRF-Token"), []byte(testCSRF))
	if w.engine.Check(context.Background(), &r, &d); d.Code != "authz.unavailable" {
		t.Errorf("POST: code %q, want no word about the CSRF token", d.Code)
	}
	w.down.Store(false)
	w.wantAllow(t, id)

	signer := w.engine.tokens.signer
	w.engine.tokens.signer = func() Signer { return nil }
	w.cache.ForgetSession(id.Key())
	w.wantDeny(t, id, "authz.unavailable")
	w.engine.tokens.signer = func() Signer { return noSigner{} }
	w.wantDeny(t, id, "authz.unavailable")
	w.engine.tokens.signer = signer
	w.wantAllow(t, id)

	w.rules.Store(nil)
	w.wantDeny(t, id, "authz.unavailable")
	if d := w.decide("GET", "/api/v2/peatio/public", id); d.Effect != Deny || d.Status != 503 {
		t.Errorf("without rules the pass list gives effect %v, status %d", d.Effect, d.Status)
	}
}

// An operator's model that fails gives no answer at all.
func TestUndecidedPermissions(t *testing.T) {
	src := testRules(0)
	src.Permissions = []policy.Permission{{ID: 1, Role: "member", Verb: "GET", Path: "(", Action: "ACCEPT"}}
	src.Model = `[request_definition]
r = sub, act, obj
[policy_definition]
p = sub, act, obj, eft
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub == p.sub && regexMatch(r.obj, p.obj)
`
	w := newWorld(t, testRules(1), nil)
	snapshot, err := policy.Compile(src)
	if err != nil {
		t.Fatal(err)
	}
	w.rules.Store(snapshot)
	w.wantDeny(t, w.addMember(0, ""), "authz.unavailable")
}

func TestPanicLeavesADenial(t *testing.T) {
	w := newWorld(t, testRules(10), nil)
	id := w.addMember(0, "")
	w.engine.sampler = panicking{}
	d := Decision{Effect: Allow, Status: 200, Authorization: []byte("Bearer left.over")}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		var r Request
		browser(&r, "GET", ownPath, id)
		w.engine.Check(context.Background(), &r, &d)
	}()
	if d.Effect != Deny || d.Authorization != nil || d.Status != 503 || d.Code != "authz.unavailable" {
		t.Errorf("a panic left %+v", d)
	}
}

type panicking struct{}

func (panicking) Sample(string, string, string, bool) { panic("sampler") }

func TestMismatch(t *testing.T) {
	for _, compat := range []bool{false, true} {
		w := newWorld(t, testRules(10), func(_ *world, _ *near.Options, o *Options) { o.Compat = compat })
		id := w.addMember(0, "")
		w.wantAllow(t, id)
		var r Request
		var d Decision
		r.Method, r.Target, r.Peer = "GET", ownPath, netip.MustParseAddr("10.0.0.2")
		r.AddHeader([]byte("Cookie"), []byte("_barong_session="+id.String()))
		r.AddHeader([]byte("User-Agent"), []byte("thief"))
		if w.engine.Check(context.Background(), &r, &d); d.Code != "authz.client_session_mismatch" || d.SetCookie != "" || d.Session == nil {
			t.Errorf("compat %v: code %q, cookie %q, session %v", compat, d.Code, d.SetCookie, d.Session)
		}
		if compat {
			w.wantDeny(t, id, "authz.invalid_session")
		} else {
			w.wantAllow(t, id)
		}
	}
}

func TestLongUserAgentIsCut(t *testing.T) {
	w := newWorld(t, testRules(10), nil)
	id := w.addMember(0, "")
	long := strings.Repeat("x", session.MaxUserAgent)
	s := w.sessions[id.Key()]
	s.UserAgent = long
	w.sessions[id.Key()] = s
	for agent, want := range map[string]Effect{long: Allow, long + "more": Allow, long[1:]: Deny, "": Deny} {
		var r Request
		var d Decision
		r.Method, r.Target, r.Peer = "GET", ownPath, netip.MustParseAddr("203.0.113.7")
		r.AddHeader([]byte("Cookie"), []byte("_barong_session="+id.String()))
		r.AddHeader([]byte("User-Agent"), []byte(agent))
		if w.engine.Check(context.Background(), &r, &d); d.Effect != want {
			t.Errorf("agent of %d bytes: effect %v, code %q", len(agent), d.Effect, d.Code)
		}
	}
}

func TestSlidingExpiry(t *testing.T) {
	w := newWorld(t, testRules(10), nil)
	id := w.addMember(0, "")
	if d := w.wantAllow(t, id); d.SetCookie != "" {
		t.Errorf("cookie %q right after the sign-in", d.SetCookie)
	}
	for renewal := range int64(30) {
		w.advance(25 * time.Minute)
		d := w.wantAllow(t, id)
		if !strings.HasPrefix(d.SetCookie, "_barong_session="+id.String()+"; Path=/; HttpOnly; SameSite=Lax; ") ||
			!strings.HasSuffix(d.SetCookie, "; Secure") {
			t.Fatalf("renewal %d: cookie %q", renewal, d.SetCookie)
		}
		if again := w.wantAllow(t, id); again.SetCookie != "" {
			t.Fatalf("renewal %d is done twice", renewal)
		}
		testkit.Eventually(t, 5*time.Second, func() bool {
			found, err := w.cache.Session(t.Context(), id.Key(), w.now())
			return w.touches.Load() == renewal+1 && err == nil && found.Session.SeenAt().Equal(w.now())
		})
	}
	w.advance(40 * time.Minute)
	if d := w.wantDeny(t, id, "authz.client_session_mismatch"); d.Session != nil {
		t.Errorf("an expired session is handed on: %v", d.Session)
	}
	w.wantDeny(t, id, "authz.invalid_session")
}

// The session slides though a later step refuses.
func TestRefusalSlidesToo(t *testing.T) {
	w := newWorld(t, testRules(10), nil)
	id := w.addMember(0, "")
	w.advance(5 * time.Minute)
	if d := w.decide("GET", "/api/v2/other", id); d.Code != "authz.invalid_permission" || d.SetCookie == "" {
		t.Errorf("code %q, cookie %q", d.Code, d.SetCookie)
	}
}

func TestAudit(t *testing.T) {
	src := testRules(1)
	src.Permissions = append(src.Permissions, policy.Permission{
		ID: 9, Role: "member", Verb: "POST", Path: "api/v2/service0", Action: "AUDIT", Topic: "orders",
	})
	w := newWorld(t, src, nil)
	id := w.addMember(0, "")
	post := func(target string) (Decision, *Request) {
		var d Decision
		r := &Request{Body: []byte(`{"price":1}`), ContentType: "application/json"}
		browser(r, "POST", target, id)
		r.AddHeader([]byte("X-CSRF-Token"), []byte(testCSRF))
		w.engine.Check(context.Background(), r, &d)
		return d, r
	}
	d, r := post("/api/v2/service0/account?uid=ID2")
	if d.Effect != Allow || len(w.entries) != 1 {
		t.Fatalf("effect %v, %d rows", d.Effect, len(w.entries))
	}
	r.Body[2] = 'X' // the row is a copy
	got, _ := json.Marshal(w.entries[0])
	want, _ := json.Marshal(AuditEntry{
		UserID: 1, UID: "ID0000000000", Role: "member", Method: "POST", Path: "api/v2/service0/account", Query: "uid=ID2",
		ContentType: "application/json", Body: []byte(`{"price":1}`), Topic: "orders", Allowed: true,
		Client: netip.MustParseAddr("203.0.113.7"), UserAgent: testAgent, At: w.now(),
	})
	if string(got) != string(want) {
		t.Errorf("row %s, want %s", got, want)
	}
	if w.wantAllow(t, id); len(w.entries) != 1 {
		t.Error("a GET that no AUDIT rule names was recorded")
	}
	// A body that flows is loaded for what is recorded alone, and what would be allowed is refused without it.
	for _, c := range []struct {
		target string
		err    error
		code   string
		body   string
		rows   int
	}{
		{"/api/v2/service0/account", nil, "", "loaded", 1},
		{"/api/v2/service0/account", io.ErrUnexpectedEOF, "authz.unavailable", "", 0},
		{"/api/v2/service0/other", nil, "authz.invalid_permission", "loaded", 1},
		{"/api/v2/service0/other", io.ErrUnexpectedEOF, "authz.invalid_permission", "", 1},
	} {
		w.entries = nil
		r := &Request{LoadBody: func(r *Request) error {
			if c.err == nil {
				r.Body = []byte("loaded")
			}
			return c.err
		}}
		browser(r, "POST", c.target, id)
		r.AddHeader([]byte("X-CSRF-Token"), []byte(testCSRF))
		w.engine.Check(context.Background(), r, &d)
		if d.Code != c.code || len(w.entries) != c.rows || c.rows > 0 && string(w.entries[0].Body) != c.body {
			t.Errorf("%s, %v: %q, rows %v", c.target, c.err, d.Code, w.entries)
		}
	}
	untouched := &Request{LoadBody: func(*Request) error { t.Error("a body was loaded that nobody records"); return nil }}
	browser(untouched, "POST", "/api/v2/service0/account", id)
	w.engine.Check(context.Background(), untouched, &d) // without a CSRF token
	if d.Code != "authz.missing_csrf_token" {
		t.Errorf("code %q", d.Code)
	}
	w.entries = w.entries[:1]
	if d, _ = post("/api/v2/service0/other"); d.Code != "authz.invalid_permission" || len(w.entries) != 2 {
		t.Fatalf("code %q, %d rows", d.Code, len(w.entries))
	}
	if e := w.entries[1]; e.Allowed || e.Topic != "" || e.Path != "api/v2/service0/other" || e.Query != "" {
		t.Errorf("row of a refusal: %+v", e)
	}
	w.audited = errors.New("disk full")
	if d, _ = post("/api/v2/service0/account"); d.Effect != Deny || d.Code != "authz.unavailable" || d.Authorization != nil {
		t.Errorf("allowed though the row is lost: effect %v, code %q", d.Effect, d.Code)
	}
	if d, _ = post("/api/v2/service0/other"); d.Code != "authz.invalid_permission" {
		t.Errorf("a refusal whose row is lost: code %q", d.Code)
	}
	w.engine.auditor = nil
	if d, _ = post("/api/v2/service0/account"); d.Code != "authz.unavailable" {
		t.Errorf("allowed though nobody records: code %q", d.Code)
	}
	if d, _ = post("/api/v2/service0/other"); d.Code != "authz.invalid_permission" {
		t.Errorf("a refusal that nobody records: code %q", d.Code)
	}
}

func TestSampler(t *testing.T) {
	w := newWorld(t, testRules(1), func(w *world, _ *near.Options, o *Options) { o.Sampler = w })
	id := w.addMember(0, "")
	w.wantAllow(t, id)
	w.decide("HEAD", "/api/v2/other", id)
	w.decide("GET", "/api/v2/peatio/public", id)
	want := []string{"member GET api/v2/service0/account/balances true", "member HEAD api/v2/other false"}
	if !slices.Equal(w.samples, want) {
		t.Errorf("samples %q, want %q", w.samples, want)
	}
}

func TestDecisionSaysWhatDecided(t *testing.T) {
	w := newWorld(t, testRules(1), nil)
	id := w.addMember(0, "")
	for target, rule := range map[string]string{
		"/api/v2/peatio/public/x":     "api/v2/peatio/public",
		"/api/v2/peatio/management/x": "api/v2/peatio/management",
		ownPath:                       "api/v2/service0/account",
		"/api/v2/other":               "",
	} {
		if d := w.decide("GET", target, id); d.Rule != rule {
			t.Errorf("%s: rule %q, want %q", target, d.Rule, rule)
		}
	}
}

func TestUntrustedForwarderIsReportedOnceAMinute(t *testing.T) {
	var log strings.Builder
	w := newWorld(t, testRules(1), func(_ *world, _ *near.Options, o *Options) {
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	check := func() {
		var r Request
		var d Decision
		r.Method, r.Target, r.Peer = "GET", ownPath, netip.MustParseAddr("192.0.2.1")
		r.AddHeader([]byte("X-Forwarded-For"), []byte("203.0.113.7"))
		if w.engine.Check(context.Background(), &r, &d); d.Client != r.Peer {
			t.Errorf("client %v", d.Client)
		}
	}
	for range 10 {
		check()
	}
	if n := strings.Count(log.String(), "192.0.2.1"); n != 1 {
		t.Errorf("%d reports, want 1:\n%s", n, log.String())
	}
	w.advance(time.Minute)
	if check(); strings.Count(log.String(), "192.0.2.1") != 2 {
		t.Error("no second report a minute later")
	}
}

func TestNewChecksItsOptions(t *testing.T) {
	w := newWorld(t, testRules(1), nil)
	good := Options{
		Policy: w.rules.Load, Cache: w.cache, Signer: func() Signer { return w }, Proxies: new(trusted.Proxies), Cookies: w.engine.cookies,
		Token: TokenSettings{Life: time.Minute, Issuer: "i", Audience: []string{"a"}},
	}
	for name, spoil := range map[string]func(*Options){
		"no policy":   func(o *Options) { o.Policy = nil },
		"no cache":    func(o *Options) { o.Cache = nil },
		"no signer":   func(o *Options) { o.Signer = nil },
		"no proxies":  func(o *Options) { o.Proxies = nil },
		"no cookies":  func(o *Options) { o.Cookies = nil },
		"no life":     func(o *Options) { o.Token.Life = 0 },
		"reuse of 1":  func(o *Options) { o.Token.Reuse = 1 },
		"less than 0": func(o *Options) { o.Token.Reuse = -0.1 },
		"no issuer":   func(o *Options) { o.Token.Issuer = "" },
		"no audience": func(o *Options) { o.Token.Audience = nil },
		"":            func(*Options) {},
	} {
		o := good
		spoil(&o)
		e, err := New(o)
		if (err == nil) != (name == "") {
			t.Errorf("%s: error %v", name, err)
		}
		if e != nil {
			e.Close()
			e.Close()
		}
	}
	if _, err := ParseBinding("ip,agent"); err == nil {
		t.Error("an unknown binding is taken")
	}
	for list, want := range map[string]Binding{
		"": {}, " user_agent , ip": {UserAgent: true, IP: true}, "ip:log": {LogIP: true}, "user_agent:log,ip": {LogUserAgent: true, IP: true},
		"user_agent:log, ip:log": {LogUserAgent: true, LogIP: true},
	} {
		if b, err := ParseBinding(list); err != nil || b != want {
			t.Errorf("binding %q: %+v, %v, want %+v", list, b, err, want)
		}
	}
	for _, bad := range []string{"log", "ip:", "ip:warn", "ip:log:log", ":log", "IP"} {
		if _, err := ParseBinding(bad); err == nil {
			t.Errorf("binding %q is taken", bad)
		}
	}
}

// What is only watched passes, is counted each time, and told of once a second.
func TestWatchedBindings(t *testing.T) {
	var out strings.Builder
	counts := map[string]int{}
	w := newWorld(t, testRules(10), func(_ *world, _ *near.Options, o *Options) {
		o.Bind = Binding{LogUserAgent: true, LogIP: true}
		o.Log = slog.New(slog.NewTextHandler(&out, nil))
		o.Mismatch = func(item string) { counts[item]++ }
	})
	id := w.addMember(0, "")
	check := func(agent, forwarded string) {
		t.Helper()
		var r Request
		var d Decision
		r.Method, r.Target, r.Peer = "GET", ownPath, netip.MustParseAddr("10.0.0.2")
		r.AddHeader([]byte("User-Agent"), []byte(agent))
		r.AddHeader([]byte("Cookie"), []byte("_barong_session="+id.String()))
		r.AddHeader([]byte("X-Forwarded-For"), []byte(forwarded))
		if w.engine.Check(context.Background(), &r, &d); d.Effect != Allow {
			t.Errorf("%q from %s: effect %v, code %q", agent, forwarded, d.Effect, d.Code)
		}
	}
	check(testAgent, "203.0.113.7")
	if len(counts) != 0 || out.Len() != 0 {
		t.Errorf("one that fits: counted %v, told %q", counts, &out)
	}
	for range 3 {
		check(testAgent, "192.0.2.1")
	}
	if told := out.String(); counts[BindIP] != 3 || len(counts) != 1 || strings.Count(told, "level=WARN") != 1 ||
		!strings.Contains(told, "item=ip uid=ID0000000000 was=203.0.113.7 is=192.0.2.1") {
		t.Errorf("another network: counted %v, told %q", counts, told)
	}
	w.advance(time.Second)
	check("caf\xe9", "203.0.113.7")
	if told := out.String(); counts[BindUserAgent] != 1 || strings.Count(told, "level=WARN") != 2 || !strings.Contains(told, "is=caf!") {
		t.Errorf("another agent: counted %v, told %q", counts, told)
	}
	check("other", "192.0.2.9")
	if told := out.String(); counts[BindUserAgent] != 2 || counts[BindIP] != 4 || strings.Count(told, "level=WARN") != 2 {
		t.Errorf("both: counted %v, told %q", counts, told)
	}
}

// A peer that is no trusted proxy is told of once a minute, and each of its requests is counted.
func TestUntrustedForwarder(t *testing.T) {
	var out strings.Builder
	n := 0
	w := newWorld(t, testRules(10), func(_ *world, _ *near.Options, o *Options) {
		o.Log = slog.New(slog.NewTextHandler(&out, nil))
		o.Forwarder = func() { n++ }
	})
	stranger, forwarded := netip.MustParseAddr("198.51.99.1"), []byte("203.0.113.7")
	if got := w.engine.Client(netip.MustParseAddr("10.0.0.2"), nil, forwarded); got.String() != "203.0.113.7" {
		t.Errorf("behind a proxy: %v", got)
	}
	if got := w.engine.Client(stranger, nil); got != stranger || n != 0 || out.Len() != 0 {
		t.Errorf("a stranger that forwards nothing: %v, counted %d, told %q", got, n, &out)
	}
	for range 3 {
		if got := w.engine.Client(stranger, nil, forwarded); got != stranger {
			t.Errorf("got %v", got)
		}
	}
	if told := out.String(); n != 3 || strings.Count(told, "level=WARN") != 1 || !strings.Contains(told, "peer=198.51.99.1") ||
		!strings.Contains(told, "BARONG_TRUSTED_PROXIES") || !strings.Contains(told, "sign-in") {
		t.Errorf("counted %d, told %q", n, told)
	}
	w.advance(time.Minute)
	w.engine.Client(stranger, nil, forwarded)
	if strings.Count(out.String(), "level=WARN") != 2 {
		t.Errorf("told %q", &out)
	}
}

func TestLocalNonces(t *testing.T) {
	var clock atomic.Int64
	now := func() time.Time { return epoch.Add(time.Duration(clock.Load())) }
	n := NewLocalNonces(64*nonceShards, now)
	use := func(kid string, nonce time.Time) (bool, error) {
		return n.FirstUse(context.Background(), kid, strconv.FormatInt(nonce.UnixMilli(), 10), now().Add(10*time.Second))
	}
	want := func(kid string, nonce time.Time, first bool) {
		t.Helper()
		if got, err := use(kid, nonce); err != nil || got != first {
			t.Errorf("FirstUse(%s, %v) at %v = %v, %v; want %v", kid, nonce, now(), got, err, first)
		}
	}
	want("a", epoch, true)
	want("a", epoch, false)
	want("a", epoch.Add(time.Microsecond), false)
	want("b", epoch, true)
	want("a", epoch.Add(time.Millisecond), true)
	for range 99 {
		clock.Add(int64(100 * time.Millisecond))
		want("a", epoch, false)
		want("a", now(), true)
	}
	clock.Add(int64(100 * time.Millisecond))
	want("a", epoch, true) // ten seconds are over, and with them its lifetime

	full := 0
	for i := range 200 * nonceShards {
		if _, err := use("a", epoch.Add(time.Duration(i)*time.Hour)); err != nil {
			if !errors.Is(err, errNoncesFull) {
				t.Fatal(err)
			}
			full++
		}
	}
	if full < 100*nonceShards {
		t.Errorf("a full memory refused %d of %d", full, 200*nonceShards)
	}
	clock.Add(int64(21 * time.Second))
	want("a", epoch.Add(1000*time.Hour), true)
}

// A full memory of nonces refuses rather than forgets.
func TestFullNonceMemoryIsUnavailable(t *testing.T) {
	w := newWorld(t, testRules(1), func(w *world, _ *near.Options, o *Options) { o.Nonces = fullNonces{} })
	w.addMember(0, testKID)
	var r Request
	var d Decision
	bot(&r, w, testKID, "GET", ownPath, 0)
	if w.engine.Check(context.Background(), &r, &d); d.Code != "authz.unavailable" || d.Status != 503 {
		t.Errorf("status %d, code %q", d.Status, d.Code)
	}
}

type fullNonces struct{}

func (fullNonces) FirstUse(context.Context, string, string, time.Time) (bool, error) {
	return true, errNoncesFull
}

// Of parallel replays exactly one passes.
func TestParallelReplay(t *testing.T) {
	w := newWorld(t, testRules(1), func(w *world, _ *near.Options, o *Options) { o.Nonces = NewLocalNonces(0, w.now) })
	w.addMember(0, testKID)
	for round := range 20 {
		w.advance(time.Millisecond)
		var allowed, replayed atomic.Int64
		var group sync.WaitGroup
		for range 16 {
			group.Go(func() {
				var r Request
				var d Decision
				bot(&r, w, testKID, "GET", ownPath, 0)
				switch w.engine.Check(context.Background(), &r, &d); d.Code {
				case "":
					allowed.Add(1)
				case "authz.signature_blacklisted":
					replayed.Add(1)
				}
			})
		}
		group.Wait()
		if allowed.Load() != 1 || replayed.Load() != 15 {
			t.Fatalf("round %d: %d allowed, %d replayed; want 1 and 15", round, allowed.Load(), replayed.Load())
		}
	}
}

// Whatever is sent, only a principal with the right to it is allowed, and a decision says one thing.
func TestNothingStrangeIsAllowed(t *testing.T) {
	w := newWorld(t, testRules(2), func(w *world, _ *near.Options, o *Options) { o.Nonces = NewLocalNonces(0, w.now) })
	id := w.addMember(0, testKID)
	names := rapid.SampledFrom([]string{
		"Cookie", "cookie", "User-Agent", "X-CSRF-Token", "X-Auth-Apikey", "X-Auth-Nonce", "X-Auth-Signature", "Authorization",
		"X-Forwarded-For", "True-Client-IP", "X-Forwarded-Proto", "Client-Ip", "Origin", "X-HTTP-Method-Override",
	})
	values := rapid.OneOf(
		rapid.SampledFrom([]string{
			"", " ", "_barong_session=", "_barong_session=" + id.String()[:63], "_barong_session=" + strings.ToUpper(id.String()),
			testKID, testSecret, testAgent, testCSRF, "203.0.113.7", "1772366400000", "0", "https", sign("1772366400000", testKID, "x"),
		}),
		rapid.String(),
	)
	methods := rapid.SampledFrom([]string{"GET", "POST", "TRACE", "OPTIONS", "get", "CONNECT", "", "G\x00T"})
	targets := rapid.OneOf(rapid.SampledFrom([]string{ownPath, "/", "/api/v2/peatio/public/x", "/api/v2/peatio/management", "/a/../b"}), rapid.String())
	rapid.Check(t, func(t *rapid.T) {
		var r Request
		r.Method, r.Target, r.Peer = methods.Draw(t, "method"), targets.Draw(t, "target"), netip.MustParseAddr("10.0.0.2")
		for range rapid.IntRange(0, 8).Draw(t, "headers") {
			r.AddHeader([]byte(names.Draw(t, "name")), []byte(values.Draw(t, "value")))
		}
		var d Decision
		w.engine.Check(context.Background(), &r, &d)
		path, ok := Canonical(r.Target)
		switch d.Effect {
		case Allow:
			t.Fatalf("allowed: %+v", r)
		case Pass:
			if !ok || !strings.HasPrefix(path, "api/v2/peatio/public") || d.Status != 200 || d.Code != "" || d.Authorization != nil {
				t.Fatalf("passed %q: %+v", r.Target, d)
			}
		case Deny:
			if _, known := fault.Lookup(fault.Code(d.Code)); !known || d.Status < 400 || d.Status > 599 || d.Authorization != nil {
				t.Fatalf("denied with %+v", d)
			}
		}
	})
}

func FuzzCheck(f *testing.F) {
	f.Add("GET", ownPath, "a=b", "203.0.113.7", "1", "kid", "00")
	f.Add("POST", "/%2e", "_barong_session="+testID(0).String(), "unknown", "", "", "")
	f.Add("TRACE", "/api/v2/peatio/public?x#y", ";;=;", ",", "9999999999999999999", testKID, strings.Repeat("0", 64))
	w := newWorld(f, testRules(1), nil)
	w.addMember(7, testKID)
	f.Fuzz(func(t *testing.T, method, target, cookie, forwarded, nonce, kid, signature string) {
		var r Request
		var d Decision
		r.Method, r.Target, r.Peer = method, target, netip.MustParseAddr("10.0.0.2")
		r.AddHeader([]byte("Cookie"), []byte(cookie))
		r.AddHeader([]byte("X-Forwarded-For"), []byte(forwarded))
		if nonce+kid+signature != "" {
			r.AddHeader([]byte("X-Auth-Nonce"), []byte(nonce))
			r.AddHeader([]byte("X-Auth-Apikey"), []byte(kid))
			r.AddHeader([]byte("X-Auth-Signature"), []byte(signature))
		}
		w.engine.Check(context.Background(), &r, &d)
		if d.Effect == Allow || d.Effect == Deny && (d.Status < 400 || d.Code == "") {
			t.Errorf("effect %v, status %d, code %q", d.Effect, d.Status, d.Code)
		}
	})
}
