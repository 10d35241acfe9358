package systemtest

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/internal/test/testkit"
)

// header is a token's head.
func header(t *testing.T, authorization string) (kid, alg string) {
	t.Helper()
	segment, _, _ := strings.Cut(strings.TrimPrefix(authorization, "Bearer "), ".")
	b, err := base64.RawURLEncoding.DecodeString(segment)
	var h struct{ Kid, Alg string }
	if err != nil || json.Unmarshal(b, &h) != nil || h.Kid == "" {
		t.Fatalf("the token's head is %q, %v", b, err)
	}
	return h.Kid, h.Alg
}

// kids are the ids of the published keys.
func (s *server) kids() []string {
	s.t.Helper()
	var set struct{ Keys []struct{ Kid string } }
	s.client().send("GET", "/.well-known/jwks.json", nil).wants(s.t, "JWKS", 200).into(s.t, &set)
	var out []string
	for _, k := range set.Keys {
		out = append(out, k.Kid)
	}
	return out
}

// Keys are rotated beside a running server: the new one signs at once, and tokens of the old one are still good.
func TestKeysRotateBesideTheServer(t *testing.T) {
	t.Parallel()
	s := startServer(t, newVault())
	c, _, _ := s.member()
	c.send("POST", "/api/v2/barong/identity/users/email/generate_code", params{"email": "nobody@example.com"}).wants(t, "nobody's mail", 201)
	before := c.check(account).wants(t, "check", 200).header.Get("Authorization")
	old, _ := header(t, before)
	if kids := s.kids(); len(kids) != 1 || kids[0] != old {
		t.Fatalf("published: %v, signing: %s", kids, old)
	}
	confirmation := s.confirmation()

	// Checks go on while the keys change; every token is of a key that is published by then.
	stop := make(chan struct{})
	var checks sync.WaitGroup
	checks.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			r := c.check(account)
			if r.status != 200 {
				t.Errorf("a check while keys rotate: got %s", r)
				return
			}
		}
	})
	out := s.must("keys", "rotate")
	after := c.check(account).wants(t, "check after the rotation", 200).header.Get("Authorization")
	fresh, _ := header(t, after)
	close(stop)
	checks.Wait()
	if fresh == old || !strings.Contains(out, fresh) {
		t.Errorf("after the rotation %s signs; the command says\n%s", fresh, out)
	}
	kids := strings.Join(s.kids(), " ")
	if !strings.Contains(kids, old) || !strings.Contains(kids, fresh) {
		t.Errorf("published: %s; want %s and %s", kids, old, fresh)
	}
	// A token of each, as a gateway injects it.
	for what, token := range map[string]string{"old": before, "new": after} {
		bare := s.client()
		bare.send("GET", "/api/v2/resource/users/me", nil, "Authorization: "+token).wants(t, "a token of the "+what+" key", 200)
	}
	c.call("POST", "/identity/users/email/confirm_code", params{"token": confirmation.token(t, s.vault)}).
		wants(t, "the link of a mail that the old key signed", 201)
	if list := s.must("keys", "list"); !strings.Contains(list, old) || !strings.Contains(list, fresh) {
		t.Errorf("keys list:\n%s", list)
	}
	s.stop()
	s.start()
	if kids := strings.Join(s.kids(), " "); !strings.Contains(kids, old) || !strings.Contains(kids, fresh) {
		t.Errorf("published after a restart: %s", kids)
	}
	s.client().send("GET", "/api/v2/resource/users/me", nil, "Authorization: "+before).wants(t, "a token of the old key after a restart", 200)

	// A service that asks for the keys each second, and never because it meets one that it does not know, refuses nothing while
	// a key that was published five seconds ahead takes over. A restart in between forgets nothing.
	asked, known := time.Now(), s.kids()
	out = s.must("keys", "rotate", "--in", "5s")
	s.stop()
	s.start()
	testkit.Eventually(t, patience, func() bool {
		if time.Since(asked) > time.Second {
			asked, known = time.Now(), s.kids()
		}
		kid, _ := header(t, c.check(account).wants(t, "a check while a key is coming", 200).header.Get("Authorization"))
		if !slices.Contains(known, kid) && time.Since(asked) < 4*time.Second { // else the test itself was held up
			t.Fatalf("%s signs, and is not among the keys of a moment ago: %v", kid, known)
		}
		return kid != fresh
	})
	now, _ := header(t, c.check(account).wants(t, "a check by the key that came", 200).header.Get("Authorization"))
	if list := s.must("keys", "list"); !strings.Contains(out, now) || !regexp.MustCompile(regexp.QuoteMeta(now)+` +EdDSA +active`).MatchString(list) {
		t.Errorf("%s signs; the command said\n%s\nand the list\n%s", now, out, list)
	}
}

// confirmation waits for the mail that confirms the only member's address.
func (s *server) confirmation() letter {
	s.t.Helper()
	var found letter
	testkit.Eventually(s.t, patience, func() bool {
		for _, l := range s.letters() {
			if l.subject == "Registration Confirmation" {
				found = l
				return true
			}
		}
		return false
	})
	return found
}

// The commands work beside a server on SQLite, and what they change is in force there at once.
func TestCommandsBesideTheServer(t *testing.T) {
	t.Parallel()
	s := startServer(t, newVault())
	c, _, _ := s.member()
	factor := c.enable2FA(t)
	k := c.newKey(t, factor)
	bot := s.client()
	bot.check(account, k.sign()...).wants(t, "a signed call", 200)

	// The explanation agrees with the server.
	for path, want := range map[string]string{
		"/api/v2/peatio/account/x": "ALLOWED", "/api/v2/barong/admin/users": "DENIED", "/api/v2/peatio/public/x": "ALLOWED",
		"/api/v2/peatio/management/x": "DENIED",
	} {
		out, status := s.barong(nil, "policy", "check", "--role", "member", "--method", "GET", path)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		allowed := want == "ALLOWED"
		if lines[len(lines)-1] != want || (status == 0) != allowed {
			t.Errorf("policy check of %s: status %d\n%s", path, status, out)
		}
		if r := c.check(path); (r.status == 200) != allowed {
			t.Errorf("the server on %s: got %s", path, r)
		}
	}

	// A seed: people can sign in, and rules are in force, without a restart.
	const seeds = `
users:
  - {email: seeded@example.com, password: "Pz6+vKw2-qTm", role: member, state: active, level: 1}
permissions:
  - {role: member, verb: all, path: api/v2/seeded, action: accept}
`
	c.check("/api/v2/seeded").wants(t, "before the seed", 401, "authz.invalid_permission")
	file := filepath.Join(s.dir, "more.yml")
	if err := os.WriteFile(file, []byte(seeds), 0o600); err != nil {
		t.Fatal(err)
	}
	s.vault.keep("password", "Pz6+vKw2-qTm")
	if out := s.must("seed", "--file", file); !strings.Contains(out, "seeded@example.com") {
		t.Errorf("seed:\n%s", out)
	}
	testkit.Eventually(t, patience, func() bool { return c.check("/api/v2/seeded").status == 200 })
	s.client().signIn("seeded@example.com", "Pz6+vKw2-qTm").wants(t, "sign-in of who was seeded", 201)
	if out := s.must("seed", "--file", file); !strings.Contains(out, "0 created, 0 changed") {
		t.Errorf("a second seed:\n%s", out)
	}

	// The audit trail.
	admin := s.admin()
	admin.call("POST", "/admin/permissions", params{"role": "member", "verb": "get", "path": "api/v2/exported", "action": "accept"}).
		wants(t, "rule", 201)
	out := s.must("audit", "export", "--category", "admin")
	if !strings.Contains(out, "api/v2/exported") || !strings.Contains(out, `"topic":"permissions"`) {
		t.Errorf("audit export:\n%s", out)
	}
	everything := s.must("audit", "export")
	for _, topic := range []string{`"action":"signup"`, `"action":"login"`, `"action":"enable 2FA"`} {
		if !strings.Contains(everything, topic) {
			t.Errorf("audit export has no %s", topic)
		}
	}
	s.vault.search(t, everything)

	// Another secret key: put before the first, the server restarted, everything sealed anew beside it; then the first
	// is taken away, as the command's help says.
	first := strings.TrimSpace(s.file("data", "secret.key"))
	second := base64.StdEncoding.EncodeToString([]byte("another key, of thirty-two bytes"))
	s.vault.keep("secret key", first)
	s.vault.keep("secret key", second)
	env := s.env
	s.stop()
	s.env = append(append([]string{}, env...), "BARONG_SECRET_KEY="+second+","+first)
	s.start()
	bot.check(account, k.sign()...).wants(t, "a signed call under both keys", 200)
	if out := s.must("secrets", "rotate"); !strings.Contains(out, "everything is sealed under key") {
		t.Errorf("secrets rotate:\n%s", out)
	}
	bot.check(account, k.sign()...).wants(t, "a signed call after the rotation", 200)
	s.later(factor)
	c.newKey(t, factor)
	s.stop()
	s.env = append(append([]string{}, env...), "BARONG_SECRET_KEY="+second)
	s.start()
	s.must("secrets", "rotate")
	bot.check(account, k.sign()...).wants(t, "a signed call under the new key alone", 200)
	s.later(factor)
	c.newKey(t, factor)
	if out, status := s.barong(nil, "doctor"); status != 0 {
		t.Errorf("doctor: status %d\n%s", status, out)
	}
	if out, status := s.barong(nil, "healthcheck"); status != 0 {
		t.Errorf("healthcheck: status %d\n%s", status, out)
	}
	s.stop()
	if out, status := s.barong(nil, "healthcheck"); status == 0 {
		t.Errorf("healthcheck of a server that is stopped: status %d\n%s", status, out)
	}
}
