package keys_test

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barong/internal/crypto/keys"
)

func edPublic(x []byte) ed25519.PublicKey { return ed25519.PublicKey(x) }

func edVerify(public, text, signature []byte) bool { return ed25519.Verify(public, text, signature) }

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// part returns part i of a token, decoded.
func part(t testing.TB, token string, i int) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[i])
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// publicPEM is the public half of the signing key as a file would hold it.
func publicPEM(t testing.TB, s *keys.Set) []byte {
	t.Helper()
	var doc struct{ Keys []struct{ X string } }
	if err := json.Unmarshal(s.JWKS(noon), &doc); err != nil {
		t.Fatal(err)
	}
	x, err := base64.RawURLEncoding.DecodeString(doc.Keys[0].X)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(edPublic(x))
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// TestVerifyRefusesForms is about everything that is wrong before the claims are read.
func TestVerifyRefusesForms(t *testing.T) {
	s, err := keys.New(keys.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := keys.New(keys.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := keys.New(keys.RS256)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(s *keys.Set, c any) string {
		token, err := s.Sign(c)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := sign(s, claims(nil))
	parts := strings.Split(good, ".")
	header := func(h string) string { return b64(h) + "." + parts[1] + "." + parts[2] }
	hs256 := func(h string, secret []byte) string {
		text := b64(h) + "." + parts[1]
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(text))
		return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	public := publicPEM(t, s)
	last := parts[2][len(parts[2])-1]
	// 64 bytes leave the last letter two bits that mean nothing: another letter with the same four is another spelling.
	twin := string(last + 1)
	for name, c := range map[string]struct {
		token string
		want  keys.Cause
	}{
		"empty":                        {"", keys.CauseSegments},
		"one part":                     {parts[0], keys.CauseSegments},
		"two parts":                    {parts[0] + "." + parts[1], keys.CauseSegments},
		"unsigned":                     {parts[0] + "." + parts[1] + ".", keys.CauseSegments},
		"four parts":                   {good + "." + parts[2], keys.CauseSegments},
		"a million dots":               {strings.Repeat(".", 1_000_000), keys.CauseSegments},
		"dots up to the limit":         {strings.Repeat(".", keys.MaxTokenSize), keys.CauseSegments},
		"too long":                     {good + strings.Repeat("A", keys.MaxTokenSize), keys.CauseSegments},
		"header no base64":             {"*." + parts[1] + "." + parts[2], keys.CauseEncoding},
		"header no JSON":               {header("x"), keys.CauseEncoding},
		"header null":                  {header("null"), keys.CauseEncoding},
		"header a list":                {header("[]"), keys.CauseEncoding},
		"header padded":                {parts[0] + "=." + parts[1] + "." + parts[2], keys.CauseEncoding},
		"claims no base64":             {parts[0] + ".*." + parts[2], keys.CauseEncoding},
		"no algorithm":                 {header(`{"kid":"` + s.KeyID() + `"}`), keys.CauseAlgorithm},
		"algorithm in capitals":        {header(`{"ALG":"EdDSA"}`), keys.CauseAlgorithm},
		"algorithm a number":           {header(`{"alg":1}`), keys.CauseAlgorithm},
		"none":                         {header(`{"alg":"none"}`), keys.CauseAlgorithm},
		"None":                         {header(`{"alg":"None","kid":"` + s.KeyID() + `"}`), keys.CauseAlgorithm},
		"HS256 with the public key":    {hs256(`{"alg":"HS256"}`, public), keys.CauseAlgorithm},
		"HS256 with the kid, too":      {hs256(`{"alg":"HS256","kid":"`+s.KeyID()+`"}`, public), keys.CauseAlgorithm},
		"HS256 without the line break": {hs256(`{"alg":"HS256"}`, public[:len(public)-1]), keys.CauseAlgorithm},
		"RS256 for an EdDSA key":       {header(`{"alg":"RS256","kid":"` + s.KeyID() + `"}`), keys.CauseAlgorithm},
		"RS256 by a stranger":          {sign(rs, claims(nil)), keys.CauseAlgorithm},
		"crit":                         {header(`{"alg":"EdDSA","kid":"` + s.KeyID() + `","crit":["exp"]}`), keys.CauseAlgorithm},
		"crit empty":                   {header(`{"alg":"EdDSA","crit":[]}`), keys.CauseAlgorithm},
		"kid unknown":                  {sign(stranger, claims(nil)), keys.CauseSignature},
		"kid a path":                   {header(`{"alg":"EdDSA","kid":"../../dev/null"}`), keys.CauseSignature},
		"kid empty":                    {header(`{"alg":"EdDSA","kid":""}`), keys.CauseSignature},
		"kid no text":                  {header(`{"alg":"EdDSA","kid":["` + s.KeyID() + `"]}`), keys.CauseSignature},
		"kid of another key":           {strings.Replace(sign(stranger, claims(nil)), strings.Split(sign(stranger, claims(nil)), ".")[0], parts[0], 1), keys.CauseSignature},
		"claims changed":               {parts[0] + "." + b64(strings.Replace(part(t, good, 1), "member", "superadmin", 1)) + "." + parts[2], keys.CauseSignature},
		"header changed":               {header(`{"alg":"EdDSA","kid":"` + s.KeyID() + `" }`), keys.CauseSignature},
		"signature cut":                {good[:len(good)-2], keys.CauseSignature},
		"signature no base64":          {parts[0] + "." + parts[1] + ".***", keys.CauseSignature},
		"signature spelled otherwise":  {good[:len(good)-1] + twin, keys.CauseSignature},
		"signature padded":             {good + "==", keys.CauseSignature},
		"a line break":                 {good + "\n", keys.CauseSignature},
		"a space before":               {" " + good, keys.CauseEncoding},
	} {
		if _, err := s.Verify(c.token, want, noon); cause(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if _, err := s.Verify(good, want, noon); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

// TestVerifyJudgesClaims is about tokens whose signature is good.
func TestVerifyJudgesClaims(t *testing.T) {
	s, err := keys.New(keys.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	unix := noon.Unix()
	type change = map[string]any
	lenient := want
	lenient.ExpirationLeeway, lenient.NotBeforeLeeway, lenient.IssuedAtLeeway = 10*time.Second, 10*time.Second, 10*time.Second
	anybody := keys.Expect{Subject: keys.SubjectSession}
	for _, c := range []struct {
		name    string
		changes change
		expect  keys.Expect
		want    keys.Cause
	}{
		{"good", nil, want, ""},
		{"expires now", change{"exp": unix}, want, keys.CauseExpired},
		{"expires in a second", change{"exp": unix + 1}, want, ""},
		{"fraction of a second left", change{"exp": float64(unix) + 0.5}, want, ""},
		{"no expiry", change{"exp": nil}, want, keys.CauseExpired},
		{"expiry a text", change{"exp": "9999999999"}, want, keys.CauseExpired},
		{"expiry beyond all dates", change{"exp": 1e300}, want, keys.CauseExpired},
		{"expiry wraps around", change{"exp": float64(1 << 62)}, want, keys.CauseExpired},
		{"expired within the leeway", change{"exp": unix - 9}, lenient, ""},
		{"expired at the leeway", change{"exp": unix - 10}, lenient, keys.CauseExpired},
		{"issued in the future", change{"iat": unix + 1}, want, keys.CauseIssuedAt},
		{"issued within the leeway", change{"iat": unix + 10}, lenient, ""},
		{"issued beyond the leeway", change{"iat": unix + 11}, lenient, keys.CauseIssuedAt},
		{"issued at a text", change{"iat": "now"}, want, keys.CauseIssuedAt},
		{"no time of issue", change{"iat": nil}, want, ""},
		{"not before later", change{"nbf": unix + 1}, want, keys.CauseNotBefore},
		{"not before within the leeway", change{"nbf": unix + 10}, lenient, ""},
		{"not before now", change{"nbf": unix}, want, ""},
		{"not before a text", change{"nbf": "now"}, want, keys.CauseNotBefore},
		{"other issuer", change{"iss": "peatio"}, want, keys.CauseIssuer},
		{"issuer in capitals", change{"iss": "Barong"}, want, keys.CauseIssuer},
		{"no issuer", change{"iss": nil}, want, keys.CauseIssuer},
		{"no issuer wanted", change{"iss": nil}, anybody, ""},
		{"other audience", change{"aud": []string{"peatio"}}, want, keys.CauseAudience},
		{"audience a text", change{"aud": "barong"}, want, ""},
		{"audience a number", change{"aud": 1}, want, keys.CauseAudience},
		{"no audience", change{"aud": nil}, want, keys.CauseAudience},
		{"no audience wanted", change{"aud": nil}, anybody, ""},
		{"no id", change{"jti": nil}, want, keys.CauseID},
		{"id a number", change{"jti": 1}, want, keys.CauseID},
		{"id blank", change{"jti": " "}, want, keys.CauseID},
		{"confirmation as session", change{"sub": "confirmation"}, want, "confirmation"},
		{"reset as session", change{"sub": "reset"}, want, "reset"},
		{"session as reset", nil, keys.Expect{Subject: keys.SubjectReset}, "session"},
		{"no subject", change{"sub": nil}, want, keys.CauseSubject},
		{"a stranger's subject is not echoed", change{"sub": "<script>"}, want, keys.CauseSubject},
		{"subject a list", change{"sub": []string{"session"}}, want, keys.CauseSubject},
		{"nothing expected", nil, keys.Expect{}, "session"},
		{"nothing expected, no subject", change{"sub": ""}, keys.Expect{}, keys.CauseSubject},
		{"several faults: audience first", change{"aud": "x", "exp": 1, "iss": "x", "sub": "x"}, want, keys.CauseAudience},
		{"several faults: then expiry", change{"exp": 1, "iss": "x", "sub": "x"}, want, keys.CauseExpired},
		{"several faults: then issuer", change{"iss": "x", "jti": nil, "sub": "x"}, want, keys.CauseIssuer},
	} {
		token, err := s.Sign(claims(c.changes))
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Verify(token, c.expect, noon)
		if cause(err) != c.want {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if err != nil && got.UID != "" {
			t.Errorf("%s: refused, and yet claims %+v came out", c.name, got)
		}
	}
}

// TestTokensWithoutKeyIDAreTriedWithEveryKey signs as the original did, with nothing but the algorithm in the header.
func TestTokensWithoutKeyIDAreTriedWithEveryKey(t *testing.T) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(t.TempDir(), "k.pem")
	if err := os.WriteFile(p, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims(nil))
	if err != nil {
		t.Fatal(err)
	}
	text := b64(`{"alg":"EdDSA"}`) + "." + b64(string(payload))
	token := text + "." + b64(string(ed25519.Sign(private, []byte(text))))
	if _, err := load(t, p, keys.EdDSA, noon).Verify(token, want, noon); err != nil {
		t.Errorf("before the rotation: %v", err)
	}
	if _, err := keys.Rotate(p, keys.EdDSA, noon.Add(time.Hour), noon); err != nil {
		t.Fatal(err)
	}
	s := load(t, p, keys.EdDSA, noon)
	if _, err := s.Verify(token, want, noon.Add(time.Minute)); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
	late := want
	late.ExpirationLeeway = 2 * time.Hour
	if _, err := s.Verify(token, late, noon.Add(time.Hour)); cause(err) != keys.CauseSignature {
		t.Errorf("once the key has retired: %v", err)
	}
}

// TestRingHearsOfRotations has another process rotate: a token of its new key is accepted at once, and Watch takes the
// key for signing.
func TestRingHearsOfRotations(t *testing.T) {
	for _, to := range []string{keys.EdDSA, keys.ES256} {
		p := path(t, keys.EdDSA, true)
		var clock atomic.Int64
		now := func() time.Time { return noon.Add(time.Duration(clock.Load())) }
		ring, err := keys.Open(p, keys.EdDSA, now)
		if err != nil {
			t.Fatal(err)
		}
		id, err := keys.Rotate(p, to, noon.Add(time.Hour), noon)
		if err != nil {
			t.Fatal(err)
		}
		token, err := load(t, p, to, noon).Sign(claims(nil))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ring.Verify(token, want); err == nil {
			t.Error("files are read again without a pause")
		}
		clock.Store(int64(time.Second))
		_, err = ring.Verify(token, want)
		if to == keys.EdDSA && (err != nil || ring.Current().KeyID() != id) {
			t.Errorf("the new key is not taken: %v, signs with %s", err, ring.Current().KeyID())
		}
		// A ring that is set to another algorithm cannot take the key, and keeps what it has.
		if to != keys.EdDSA && (err == nil || ring.Current().KeyID() == id) {
			t.Errorf("a key of another algorithm was taken")
		}
	}
}

func TestWatchReportsChangesAndErrors(t *testing.T) {
	p := path(t, keys.EdDSA, false)
	ring, err := keys.Open(p, keys.EdDSA, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	changes := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ring.Watch(ctx, time.Millisecond, func(_ bool, err error) {
			select {
			case changes <- err:
			default:
			}
		})
	}()
	id, err := keys.Rotate(p, keys.EdDSA, time.Now().Add(time.Hour), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := <-changes; err != nil || ring.Current().KeyID() != id {
		t.Errorf("change: %v, signs with %s, want %s", err, ring.Current().KeyID(), id)
	}
	if token, err := ring.Sign(claims(map[string]any{"iat": time.Now().Unix(), "exp": time.Now().Unix() + 60})); err != nil {
		t.Error(err)
	} else if _, err := ring.Verify(token, want); err != nil {
		t.Error(err)
	}
	cancel()
	<-done
}

// The files are read every second: what is wrong with them is told when it changes, and not every second.
func TestWatchReportsAnErrorOnce(t *testing.T) {
	p := path(t, keys.EdDSA, false)
	var reads atomic.Int64
	ring, err := keys.Open(p, keys.EdDSA, func() time.Time { reads.Add(1); return time.Now() })
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(text []byte) {
		t.Helper()
		next := filepath.Join(t.TempDir(), "next")
		if err := errors.Join(os.WriteFile(next, text, 0o600), os.Rename(next, p)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	reports, done := make(chan error), make(chan struct{})
	go func() {
		defer close(done)
		ring.Watch(ctx, time.Millisecond, func(_ bool, err error) {
			select {
			case reports <- err:
			case <-ctx.Done():
			}
		})
	}()
	replace([]byte("nonsense"))
	if err := <-reports; err == nil {
		t.Error("nonsense is no error")
	}
	for n := reads.Load(); reads.Load() == n; { // until the same file has been read again
		time.Sleep(time.Millisecond)
	}
	if err := os.Remove(p); err != nil {
		t.Fatal(err)
	}
	if err := <-reports; !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the next report is %v", err)
	}
	replace(append(good, '\n'))
	if err := <-reports; err != nil {
		t.Errorf("once the key is back: %v", err)
	}
	cancel()
	<-done
}

func TestRotationsAtOnceLoseNoKey(t *testing.T) {
	for _, folder := range []bool{false, true} {
		p := path(t, keys.EdDSA, folder)
		ids := map[string]bool{load(t, p, keys.EdDSA, noon).KeyID(): true}
		var mu sync.Mutex
		var wg sync.WaitGroup
		stop := make(chan struct{})
		var readers sync.WaitGroup
		// Whoever reads meanwhile always finds a whole set that can sign.
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				s, err := keys.Load(p, keys.EdDSA, noon)
				if err != nil {
					t.Errorf("read during a rotation: %v", err)
					return
				}
				if _, err := s.Sign(claims(nil)); err != nil {
					t.Error(err)
				}
			}
		})
		for i := range 8 {
			wg.Go(func() {
				// In a folder the names of files begin with the time.
				id, err := keys.Rotate(p, keys.EdDSA, noon.Add(time.Hour), noon.Add(time.Duration(i)*time.Second))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				ids[id] = true
				mu.Unlock()
			})
		}
		wg.Wait()
		close(stop)
		readers.Wait()
		all, err := keys.List(p, noon.Add(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		active := 0
		for _, k := range all {
			if !ids[k.ID] {
				t.Errorf("key %s came from nowhere", k.ID)
			}
			delete(ids, k.ID)
			if k.State == keys.StateActive {
				active++
			}
		}
		if len(ids) > 0 || active != 1 {
			t.Errorf("folder %v: %d keys lost, %d sign", folder, len(ids), active)
		}
		left, err := filepath.Glob(filepath.Join(filepath.Dir(p), ".new-key-*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	s, err := keys.New(keys.EdDSA)
	if err != nil {
		f.Fatal(err)
	}
	good, err := s.Sign(claims(nil))
	if err != nil {
		f.Fatal(err)
	}
	parts := strings.Split(good, ".")
	for _, seed := range []string{
		good, "", ".", "..", "a.b.c", parts[0] + "." + parts[1] + ".", parts[0] + ".e30." + parts[2],
		b64(`{"alg":"none"}`) + "." + parts[1] + ".", b64(`{"alg":"HS256"}`) + "." + parts[1] + "." + parts[2],
		b64(`{"alg":"EdDSA","kid":"","crit":["x"]}`) + "." + parts[1] + "." + parts[2],
		b64(`{"alg":"EdDSA"}`) + "." + parts[1] + "." + parts[2], good + "\n", good + "=", strings.Repeat(".", 9000),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		got, err := s.Verify(token, want, noon)
		if err == nil && token != good {
			t.Fatalf("a forged token is accepted: %q", token)
		}
		if err != nil {
			if cause(err) == "" || strings.Contains(string(cause(err)), "no *Error") {
				t.Fatalf("no *Error: %v", err)
			}
			if got.UID != "" || got.Role != "" {
				t.Fatalf("refused, and yet claims %+v came out", got)
			}
		}
	})
}
