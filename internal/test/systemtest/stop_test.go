package systemtest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"barong/internal/test/testkit"
)

// stopTime is how long a stop may take, with time to spare: BARONG_DRAIN_TIME, what drains and what is written out at the end
// have limits, 21 seconds in all. Orchestrators wait for 30 by default.
const stopTime = 30 * time.Second

// stop sends SIGTERM and waits for the end.
func (s *server) stop() time.Duration {
	s.t.Helper()
	begin := time.Now()
	if err := s.process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	status := s.process.Wait()
	if took := time.Since(begin); status != 0 || took > stopTime {
		s.t.Errorf("the stop took %s and ended with %d:\n%s", took, status, s.process.Output())
	}
	return time.Since(begin)
}

// Under load, a stop lets every request that was taken be answered, and what was answered is recorded.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	s := startServer(t, newVault())
	admin := s.admin()
	known, email, password := s.member()
	var stopping atomic.Bool
	var mu sync.Mutex
	answers := map[string]int{}
	var rules []string
	var load sync.WaitGroup
	begin := func(what string, want int, ask func(n int) reply) {
		load.Go(func() {
			for n := 0; ; n++ {
				late := stopping.Load() // a refused connection is all right only then
				r := ask(n)
				mu.Lock()
				switch {
				case r.err == nil && r.status == want:
					answers[what]++
				case r.err == nil || !late && !stopping.Load():
					t.Errorf("%s: got %s", what, r)
				case !strings.Contains(r.err.Error(), "connection refused"):
					// A connection that was idle may close under a request: HTTP/1.1 clients send such a one again, and net/http
					// does, but for a POST.
					if !strings.Contains(r.err.Error(), "EOF") && !strings.Contains(r.err.Error(), "reset") {
						t.Errorf("%s: %v", what, r.err)
					}
				}
				mu.Unlock()
				if r.err != nil {
					return
				}
			}
		})
	}
	for range 4 {
		begin("check", 200, func(int) reply { return known.check(account) })
	}
	begin("sign-in", 201, func(int) reply { return s.client().signIn(email, password) })
	begin("rule", 201, func(n int) reply {
		path := fmt.Sprintf("api/v2/stop/%d", n)
		r := admin.call("POST", "/admin/permissions", params{"role": "member", "verb": "get", "path": path, "action": "accept"})
		if r.status == 201 {
			mu.Lock()
			rules = append(rules, path)
			mu.Unlock()
		}
		return r
	})
	denials := 0
	begin("denial", 401, func(n int) reply {
		r := known.check(fmt.Sprintf("/denied/%d", n))
		if r.code(401, "authz.invalid_permission") {
			mu.Lock()
			denials++
			mu.Unlock()
		}
		return r
	})
	testkit.Eventually(t, patience, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return answers["sign-in"] >= 3 && answers["rule"] >= 10 && answers["denial"] >= 10 && answers["check"] >= 100
	})
	stopping.Store(true)
	took := s.stop()
	load.Wait()
	t.Logf("stopped within %s after %v", took.Round(time.Millisecond), answers)

	s.start()
	admin = s.admin()
	audited := map[string]bool{}
	denied := 0
	for _, a := range pages[struct{ Topic, Result, Data string }](t, admin, "/admin/activities/admin") {
		var data struct{ Path string }
		if err := json.Unmarshal([]byte(a.Data), &data); err != nil {
			t.Fatalf("%+v: %v", a, err)
		}
		if a.Result == "denied" && strings.HasPrefix(data.Path, "denied/") {
			denied++
		}
		if a.Topic == "permissions" {
			audited[regexp.MustCompile(`api/v2/stop/\d+`).FindString(a.Data)] = true
		}
	}
	for _, path := range rules {
		if !audited[path] {
			t.Errorf("no audit row of the rule for %s", path)
		}
	}
	if denied < denials {
		t.Errorf("%d audit rows of %d denials", denied, denials)
	}
}

// Replicas that are stopped and started one after the other lose no request of gateways that look at /readyz and go to
// another replica when they cannot connect: not one on a connection that was kept, and not one on a new one.
func TestRestartsLoseNothing(t *testing.T) {
	t.Parallel()
	v := newVault()
	env := []string{
		"BARONG_DATABASE_URL=" + testkit.Postgres(t), "BARONG_SECRET_KEY=" + secretKey, "BARONG_DRAIN_TIME=1s",
		"BARONG_JWT_PRIVATE_KEY_PATH=" + filepath.Join(t.TempDir(), "keys") + "/",
	}
	replicas := []*server{newServer(t, v, env...), newServer(t, v, env...)}
	replicas[0].must("keys", "generate")
	replicas[0].must("migrate", "up")
	replicas[0].must("seed")
	for _, s := range replicas {
		s.start()
	}
	known, _, _ := replicas[0].member()
	var ready [2]atomic.Bool
	done := make(chan struct{})
	var work sync.WaitGroup
	for i, s := range replicas {
		ready[i].Store(true)
		work.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(50 * time.Millisecond):
					ready[i].Store(s.probe("/readyz").status == 200)
				}
			}
		})
	}
	var passed, elsewhere, told atomic.Int64
	for n := range 4 {
		ats := []*client{known.at(replicas[0]), known.at(replicas[1])}
		for _, at := range ats {
			at.http = newClient("", v).http
		}
		work.Go(func() {
			for turn := n; ; turn++ {
				select {
				case <-done:
					return
				default:
				}
				i := turn % 2
				if !ready[i].Load() && ready[1-i].Load() {
					i = 1 - i
				}
				r := ats[i].check(account)
				if r.err != nil && strings.Contains(r.err.Error(), "connection refused") {
					elsewhere.Add(1)
					r = ats[1-i].check(account)
				}
				if r.status != 200 {
					t.Errorf("replica %d: got %s", i, r)
					return
				}
				if r.last {
					told.Add(1)
				}
				passed.Add(1)
			}
		})
	}
	for i, s := range replicas {
		testkit.Eventually(t, patience, func() bool { return ready[0].Load() && ready[1].Load() && passed.Load() > int64(100*(i+1)) })
		s.stop()
		s.start()
	}
	after := passed.Load()
	testkit.Eventually(t, patience, func() bool { return passed.Load() > after+100 })
	close(done)
	work.Wait()
	t.Logf("%d requests passed, %d of them at the other replica; %d answers closed their connection", passed.Load(), elsewhere.Load(), told.Load())
	if told.Load() == 0 {
		t.Error("no answer closed its connection, so nobody was told")
	}
}

// A second SIGTERM ends a stop that waits for a slow client, and still in order.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	s := startServer(t, newVault(), "BARONG_DRAIN_TIME=1m")
	conn, err := net.Dial("tcp", s.api)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// A request that does not end: the stop waits for it.
	const begun = "POST /api/v2/barong/identity/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" +
		"Content-Length: 100\r\n\r\n{"
	if _, err := conn.Write([]byte(begun)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	begin := time.Now()
	if err := s.process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, patience, func() bool { return strings.Contains(s.process.Output(), `"msg":"stopping"`) })
	first := time.Since(begin)
	// Load balancers are told before anything closes.
	if r := s.probe("/readyz"); r.status != 503 {
		t.Errorf("readyz during a stop: got %s", r)
	}
	if err := s.process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	status := s.process.Wait()
	took := time.Since(begin)
	t.Logf("stopping after %s, ended after %s", first.Round(time.Millisecond), took.Round(time.Millisecond))
	if status != 0 || took > 30*time.Second {
		t.Errorf("the second signal ended the stop after %s with %d", took, status)
	}
}

// A stop while the stores are away does not hang.
func TestStopDuringOutage(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"Postgres hangs", "Postgres is gone", "both hang"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			pg, vk := testkit.PostgresServer(t), testkit.ValkeyServer(t)
			s := newServer(t, newVault(), "BARONG_DATABASE_URL="+pg.URL, "BARONG_REDIS_URL="+vk.URL, "BARONG_SECRET_KEY="+secretKey)
			s.must("migrate", "up")
			s.must("seed")
			s.start()
			known, email, password := s.member()
			known.check(account).wants(t, "check", 200)
			switch how {
			case "Postgres hangs":
				pg.Pause()
				defer pg.Resume()
			case "Postgres is gone":
				pg.Kill()
			default:
				pg.Pause()
				defer pg.Resume()
				vk.Pause()
				defer vk.Resume()
			}
			// Work is under way that cannot be done.
			var waiting sync.WaitGroup
			waiting.Go(func() { s.client().signIn(email, password) })
			waiting.Go(func() { known.check("/denied") })
			time.Sleep(100 * time.Millisecond)
			t.Logf("stopped within %s", s.stop().Round(time.Millisecond))
			waiting.Wait()
		})
	}
}

// A start that cannot be is one line that says why, and a status.
func TestStartErrors(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() }) // after the subtests, which run in parallel
	unreadable := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(unreadable, []byte("-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := testkit.Postgres(t)
	for name, c := range map[string]struct {
		env    []string
		status int
		want   string // regular expression of the last line
	}{
		"a bad number": {[]string{"BARONG_JWT_EXPIRE_TIME=soon"}, 2, `^barong: BARONG_JWT_EXPIRE_TIME="soon" is not allowed: .*seconds`},
		"a bad choice": {
			[]string{"BARONG_PHONE_VERIFICATION=pigeon"},
			2,
			`^barong: BARONG_PHONE_VERIFICATION="pigeon" is not allowed: .*twilio_sms`,
		},
		"a bad secret": {[]string{"BARONG_SECRET_KEY=hunter2hunter2"}, 2, `^barong: BARONG_SECRET_KEY="\*\*\*" is not allowed: `},
		"an unsafe production": {
			[]string{"BARONG_ENV=production"}, 2, `^barong: BARONG_`,
		},
		"a schema that is behind": {
			[]string{"BARONG_DATABASE_URL=" + empty, "BARONG_SECRET_KEY=" + secretKey},
			1,
			`^barong: .*barong migrate up.*--migrate`,
		},
		"a database that is not there": {
			[]string{"BARONG_DATABASE_URL=postgres://barong:hunter2hunter2@127.0.0.1:1/x", "BARONG_SECRET_KEY=" + secretKey},
			1,
			`^barong: BARONG_DATABASE_URL=postgres://barong:\*\*\*@127\.0\.0\.1:1/x: `,
		},
		"a Redis that is not there": {
			[]string{"BARONG_REDIS_URL=redis://:hunter2hunter2@127.0.0.1:1"},
			1,
			`^barong: BARONG_REDIS_URL=redis://:\*\*\*@127\.0\.0\.1:1: `,
		},
		"a port in use": {
			[]string{"BARONG_HTTP_ADDR=" + taken.Addr().String()},
			1,
			`^barong: BARONG_HTTP_ADDR=` + regexp.QuoteMeta(taken.Addr().String()) + `: .*address already in use`,
		},
		"a key that cannot be read": {
			[]string{"BARONG_JWT_PRIVATE_KEY_PATH=" + unreadable}, 2, `^barong: BARONG_JWT_PRIVATE_KEY_PATH=".*key\.pem" is not allowed: a PEM file`,
		},
		"a key that is not there": {
			[]string{"BARONG_JWT_PRIVATE_KEY_PATH=absent.pem"}, 2, `^barong: BARONG_JWT_PRIVATE_KEY_PATH="absent\.pem" is not allowed: a PEM file`,
		},
		"a key of another kind": {
			[]string{"BARONG_JWT_PRIVATE_KEY_PATH=keys/", "BARONG_JWT_ALGORITHM=RS256"}, 2, `^barong: BARONG_JWT_ALGORITHM=RS256 does not fit the EdDSA key`,
		},
		"lists that are none": {
			[]string{"BARONG_AUTHZ_RULES_FILE=" + unreadable}, 2, `^barong: BARONG_AUTHZ_RULES_FILE=".*key\.pem" is not allowed: a file with lists of paths: `,
		},
		"a model that is none": {
			[]string{"BARONG_CASBIN_MODEL=" + unreadable}, 2, `^barong: BARONG_CASBIN_MODEL=".*key\.pem" is not allowed: a Casbin model: `,
		},
		"seeds that are none": {
			[]string{"BARONG_SEEDS_FILE=" + unreadable}, 2, `^barong: BARONG_SEEDS_FILE=".*key\.pem" is not allowed: a file with seeds: `,
		},
		"a cookie that browsers refuse": {
			[]string{"BARONG_COOKIE_SAMESITE=none"}, 2, `^barong: BARONG_COOKIE_SAMESITE=none needs BARONG_COOKIE_SECURE=true`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, newVault(), c.env...)
			s.vault.keep("password", "hunter2hunter2")
			if name == "a key of another kind" {
				if out, status := s.barong([]string{"BARONG_JWT_ALGORITHM=EdDSA"}, "keys", "generate"); status != 0 {
					t.Fatal(out)
				}
			}
			begin := time.Now()
			out, status := s.barong(nil, "serve")
			lines := strings.Split(strings.TrimSpace(out), "\n")
			last := lines[len(lines)-1]
			if status != c.status || !regexp.MustCompile(c.want).MatchString(last) || time.Since(begin) > patience {
				t.Errorf("status %d after %s, want %d and %s:\n%s", status, time.Since(begin), c.status, c.want, out)
			}
			if strings.Contains(out, "goroutine") {
				t.Errorf("a stack trace:\n%s", out)
			}
			s.vault.search(t, out)
		})
	}
}

// With another secret key than the one that the data was sealed with, the server does not start, and changes nothing.
func TestAnotherSecretKey(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"SQLite", "Postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			var env []string
			if engine == "Postgres" {
				env = append(env, "BARONG_DATABASE_URL="+testkit.Postgres(t))
			}
			s := newServer(t, newVault(), append(env, "BARONG_SECRET_KEY="+secretKey)...)
			if engine == "Postgres" {
				s.must("migrate", "up")
				s.must("seed")
			}
			s.start()
			c, email, password := s.member()
			factor := c.enable2FA(t)
			k := c.newKey(t, factor)
			s.stop()

			other := base64.StdEncoding.EncodeToString([]byte("another key, of thirty-two bytes"))
			out, status := s.barong([]string{"BARONG_SECRET_KEY=" + other}, "serve")
			if status != 1 && status != 2 || !strings.Contains(out, "BARONG_SECRET_KEY") {
				t.Errorf("with another key: status %d\n%s", status, out)
			}
			if out, status := s.barong([]string{"BARONG_SECRET_KEY=" + other}, "secrets", "rotate"); status == 0 {
				t.Errorf("with another key everything could be sealed anew:\n%s", out)
			}
			s.vault.search(t, out)

			s.start()
			s.client().signIn(email, password).wants(t, "sign-in", 401, "identity.session.missing_otp")
			s.client().check(account, k.sign()...).wants(t, "a signed call with the right key again", 200)
		})
	}
}
