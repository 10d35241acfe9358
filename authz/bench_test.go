package authz

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"barong/policy"
	"barong/session"
	"barong/session/near"
)

const testAgent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"

const (
	testKID    = "61d025b8573501c2"
	testSecret = "2d0b4979c7fe6986daa8e21d1dc0644f"
	testCSRF   = "0123456789abcdef0123"
)

// testID is the session id of number i.
func testID(i int) session.ID {
	var seed [8]byte
	binary.BigEndian.PutUint64(seed[:], uint64(i))
	return sha256.Sum256(seed[:])
}

// addMember opens session number i for user number i, a member whose API key has the id kid, if that is not empty.
func (w *world) addMember(i int, kid string) session.ID {
	id := testID(i)
	uid := fmt.Sprintf("ID%010X", i)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.principals[uid] = session.Principal{
		UserID: int64(i) + 1, UID: uid, Email: fmt.Sprintf("user%d@example.com", i),
		Role: "member", State: "active", Level: 3, OTP: true,
	}
	w.sessions[id.Key()] = session.Session{
		Key: id.Key(), UID: uid, CSRF: testCSRF, IP: netip.MustParseAddr("203.0.113.7"), UserAgent: testAgent, Country: "NL",
		CreatedAt: w.now(), SeenAt: w.now(), ExpiresAt: w.now().Add(30 * time.Minute), EndsAt: w.now().Add(24 * time.Hour),
	}
	if kid != "" {
		w.apiKeys[kid] = session.APIKey{KID: kid, UID: uid, Secret: []byte(testSecret), Active: true}
	}
	return id
}

// testRules are n permissions of which the first lets members read their account, and the usual lists.
func testRules(n int) policy.Source {
	src := policy.Source{Lists: policy.DefaultLists(), Restrictions: []policy.Restriction{
		{ID: 1, Category: "blacklist", Scope: "ip_subnet", Value: "198.51.100.0/24", Enabled: true},
	}}
	for i := range n {
		src.Permissions = append(src.Permissions, policy.Permission{
			ID: int64(i) + 1, Role: "member", Verb: "ALL", Path: "api/v2/service" + strconv.Itoa(i) + "/account", Action: "ACCEPT",
		})
	}
	return src
}

// browser is a request as a gateway passes a browser's on.
func browser(r *Request, method, target string, id session.ID) {
	r.Method, r.Target, r.Peer = method, target, netip.MustParseAddr("10.0.0.2")
	r.AddHeader([]byte("Host"), []byte("example.com"))
	r.AddHeader([]byte("User-Agent"), []byte(testAgent))
	r.AddHeader([]byte("Accept"), []byte("application/json"))
	r.AddHeader([]byte("Cookie"), []byte("theme=dark; _barong_session="+id.String()+"; lang=en"))
	r.AddHeader([]byte("X-Forwarded-For"), []byte("203.0.113.7"))
	r.AddHeader([]byte("X-Forwarded-Proto"), []byte("https"))
}

// bot is a request as a gateway passes a bot's on, with a nonce so far from now.
func bot(r *Request, w *world, kid, method, target string, offset time.Duration) {
	r.Method, r.Target, r.Peer = method, target, netip.MustParseAddr("10.0.0.2")
	nonce := strconv.FormatInt(w.now().Add(offset).UnixMilli(), 10)
	r.AddHeader([]byte("User-Agent"), []byte("bot/1.0"))
	r.AddHeader([]byte("X-Auth-Apikey"), []byte(kid))
	r.AddHeader([]byte("X-Auth-Nonce"), []byte(nonce))
	r.AddHeader([]byte("X-Auth-Signature"), []byte(sign(nonce, kid, testSecret)))
	r.AddHeader([]byte("X-Forwarded-For"), []byte("203.0.113.7"))
}

func sign(nonce, kid, secret string) string {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(nonce + kid))
	return hex.EncodeToString(m.Sum(nil))
}

const ownPath = "/api/v2/service0/account/balances?limit=10"

// benchmarkCheck measures warm checks of the requests, which must all have that effect.
func benchmarkCheck(b *testing.B, w *world, want Effect, requests []Request) {
	ctx := context.Background()
	for i := range requests {
		var d Decision
		if w.engine.Check(ctx, &requests[i], &d); d.Effect != want {
			b.Fatalf("effect %v, code %q", d.Effect, d.Code)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var d Decision
		for i := 0; pb.Next(); i++ {
			r := &requests[i%len(requests)]
			if w.engine.Check(ctx, r, &d); d.Effect != want {
				b.Errorf("effect %v, code %q", d.Effect, d.Code)
				return
			}
		}
	})
}

func oneBrowser(b *testing.B, rules int, method, target string) (*world, []Request) {
	w := newWorld(b, testRules(rules), nil)
	r := make([]Request, 1)
	browser(&r[0], method, target, w.addMember(0, testKID))
	return w, r
}

func BenchmarkCheckCookieAllow(b *testing.B) {
	for _, rules := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("permissions=%d", rules), func(b *testing.B) {
			w, r := oneBrowser(b, rules, "GET", ownPath)
			benchmarkCheck(b, w, Allow, r)
		})
	}
}

func BenchmarkCheckCookieDeny(b *testing.B) {
	b.Run("session", func(b *testing.B) {
		w, r := oneBrowser(b, 10, "POST", ownPath) // no CSRF token
		benchmarkCheck(b, w, Deny, r)
	})
	b.Run("permission", func(b *testing.B) {
		w, r := oneBrowser(b, 10, "GET", "/api/v2/other")
		w.engine.auditor = nil
		benchmarkCheck(b, w, Deny, r)
	})
}

func BenchmarkCheckPass(b *testing.B) {
	w, r := oneBrowser(b, 10, "GET", "/api/v2/peatio/public/markets")
	benchmarkCheck(b, w, Pass, r)
}

func BenchmarkCheckBlock(b *testing.B) {
	w, r := oneBrowser(b, 10, "GET", "/api/v2/peatio/management/x")
	benchmarkCheck(b, w, Deny, r)
}

func BenchmarkCheckAPIKey(b *testing.B) {
	for _, rules := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("permissions=%d", rules), func(b *testing.B) {
			w := newWorld(b, testRules(rules), nil)
			w.addMember(0, testKID)
			r := make([]Request, 1)
			bot(&r[0], w, testKID, "GET", ownPath, 0)
			benchmarkCheck(b, w, Allow, r)
		})
	}
}

func BenchmarkCheckSigned(b *testing.B) {
	for name, kid := range map[string]string{"hmac": testKID, "ed25519": testPublicKID} {
		b.Run(name, func(b *testing.B) {
			w := signingWorld(b, func(_ *world, o *Options) { o.Nonces = forgetful{} })
			r := make([]Request, 1)
			signedRequest{kid: kid}.fill(&r[0], w)
			benchmarkCheck(b, w, Allow, r)
		})
	}
}

// BenchmarkCheckAPIKeyNonces measures what remembering a nonce adds. Each iteration has a nonce of its own.
func BenchmarkCheckAPIKeyNonces(b *testing.B) {
	n := NewLocalNonces(64<<20, func() time.Time { return epoch })
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		at := strconv.Itoa(i)
		if first, err := n.FirstUse(context.Background(), testKID, at, epoch.Add(time.Duration(i/10000)*time.Millisecond)); err != nil || !first {
			b.Fatal(first, err)
		}
	}
}

// BenchmarkCheckSessions measures how the number of sessions in memory matters. The checks go through 1,000 of them in
// turn: with more, the requests themselves would not fit the processor's cache, which is not the engine's doing.
func BenchmarkCheckSessions(b *testing.B) {
	for _, sessions := range []int{1_000, 1_000_000} {
		token := constantSigner("Bearer the.same.token")
		w := newWorld(b, testRules(10), func(_ *world, _ *near.Options, o *Options) {
			o.Signer = func() Signer { return &token } // a signature each would take a minute
		})
		requests := make([]Request, 1_000)
		w.remember(b, sessions, func(i int, id session.ID) {
			if i%(sessions/len(requests)) == 0 {
				browser(&requests[i/(sessions/len(requests))], "GET", ownPath, id)
			}
		})
		b.Run(strconv.Itoa(sessions), func(b *testing.B) { benchmarkCheck(b, w, Allow, requests) })
	}
}

// remember opens n sessions of n users and has the cache remember them; the world's stores do not.
func (w *world) remember(t testing.TB, n int, each func(i int, id session.ID)) {
	for i := range n {
		id := w.addMember(i, "")
		if _, err := w.cache.Session(context.Background(), id.Key(), w.now()); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		clear(w.sessions)
		clear(w.principals)
		w.mu.Unlock()
		each(i, id)
	}
}

type constantSigner string

func (s *constantSigner) SignPayload([]byte) ([]byte, error) { return []byte(*s), nil }
func (*constantSigner) KeyID() string                        { return "k" }
