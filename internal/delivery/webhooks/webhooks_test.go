package webhooks_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/db"
	"barong/internal/crypto/secret"
	"barong/internal/delivery/outbox"
	"barong/internal/delivery/webhooks"
	"barong/internal/test/testkit"
)

const (
	one = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	two = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
)

// The vector of the specification's own libraries.
func TestSign(t *testing.T) {
	got, err := webhooks.Sign([]secret.Text{one, two}, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if first, second, ok := strings.Cut(got, " "); err != nil || first != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" || !ok || !strings.HasPrefix(second, "v1,") || second == first {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []secret.Text{"", "whsec_", "whsec_c2hvcnQ=", "no base64 at all"} {
		if _, err := webhooks.Sign([]secret.Text{bad}, "a", time.Now(), nil); err == nil || len(bad) > len("whsec_") && strings.Contains(err.Error(), string(bad)) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A receiver verifies what it gets as the specification says, by code that shares nothing with the sender's.
type receiver struct {
	*httptest.Server
	t  *testing.T
	mu sync.Mutex
	// answers are given one after the other, then 204.
	answers []int
	ids     []string
	got     map[string]string // event types by id, of those that were taken
}

func listen(t *testing.T, secret string, answers ...int) *receiver {
	r := &receiver{t: t, got: map[string]string{}, answers: answers}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		id, at := req.Header.Get("webhook-id"), req.Header.Get("webhook-timestamp")
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		if err != nil {
			t.Error(err)
		}
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + at + "." + string(body)))
		want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
		if !slices.Contains(strings.Fields(req.Header.Get("webhook-signature")), want) || req.Method != "POST" || req.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %v: not signed with this receiver's secret", req.Method, req.Header)
		}
		var seconds int64
		if _, err := fmt.Sscan(at, &seconds); err != nil || time.Since(time.Unix(seconds, 0)).Abs() > 5*time.Minute {
			t.Errorf("timestamp %q", at)
		}
		r.ids = append(r.ids, id)
		status := http.StatusNoContent
		if len(r.answers) > 0 {
			status, r.answers = r.answers[0], r.answers[1:]
		}
		if status < 300 {
			var m struct {
				Type      string
				Timestamp time.Time
				Data      struct{ Record map[string]any }
			}
			if err := json.Unmarshal(body, &m); err != nil || m.Type == "" || m.Timestamp.IsZero() || m.Data.Record["uid"] == nil || r.got[id] != "" {
				t.Errorf("%s %s, %v: %q came before", id, body, err, r.got[id])
			}
			r.got[id] = m.Type
		}
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) types() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, name := range r.got {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func parse(t *testing.T, text string) *webhooks.Config {
	t.Helper()
	c, err := webhooks.ParseConfig([]byte(text), func(name string) (string, bool) { return one, name == "HOOK_SECRET" })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func enqueue(t *testing.T, d *db.DB, c *webhooks.Config, names ...string) {
	t.Helper()
	if err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		for _, name := range names {
			if err := c.Enqueue(ctx, tx, webhooks.Event{Name: name, Record: json.RawMessage(`{"uid":"ID1"}`)}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// Each receiver gets what it wants, once, signed with its own secret, whatever it answers at first and however many
// replicas send; what it refuses for good is kept, and comes again when it is replayed.
func TestDelivery(t *testing.T) {
	for name, url := range map[string]func(*testing.T) string{
		"sqlite":   func(t *testing.T) string { return "sqlite://" + filepath.Join(t.TempDir(), "barong.db") },
		"postgres": func(t *testing.T) string { return testkit.Postgres(t) },
	} {
		t.Run(name, func(t *testing.T) {
			box, err := secret.New(secret.NewKey())
			if err != nil {
				t.Fatal(err)
			}
			at := url(t)
			open := func() *db.DB {
				d, err := db.Open(t.Context(), db.Options{URL: at, Sealer: box})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { d.Close() })
				return d
			}
			d := open()
			if _, err := d.MigrateUp(t.Context()); err != nil {
				t.Fatal(err)
			}
			all, some, gone := listen(t, one, 500, 302), listen(t, two), listen(t, one, 410)
			c := parse(t, `
networks: [loopback]
webhooks:
- {name: all, url: "`+all.URL+`/in?key=s3cret", secret: <%= ENV["HOOK_SECRET"] %>}
- {name: some, url: "`+some.URL+`", secret: "`+two+` , `+one+`", events: [model.user.*, system.session.create]}
- {name: gone, url: "`+gone.URL+`", secret: "`+one+`", events: [model.label.created]}
`)
			replicas := []*db.DB{d, open()}
			for _, d := range replicas {
				s := webhooks.New(webhooks.Options{Config: c, Log: slog.New(slog.DiscardHandler)})
				b, err := outbox.New(outbox.Options{
					Store: d, Kinds: s.Kinds(), Poll: 20 * time.Millisecond, Backoff: 5 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
				})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = errors.Join(b.Close(context.Background()), s.Close()) })
			}
			names := []string{"model.user.created", "model.user.updated", "model.label.created", "system.session.create"}
			enqueue(t, d, c, names...)
			testkit.Eventually(t, time.Minute, func() bool { return len(all.types()) == 4 && len(some.types()) == 3 })
			if got := all.types(); !slices.Equal(got, slices.Sorted(slices.Values(names))) {
				t.Errorf("all got %v", got)
			}
			if got := some.types(); !slices.Equal(got, []string{"model.user.created", "model.user.updated", "system.session.create"}) {
				t.Errorf("some got %v", got)
			}
			for id, name := range some.got {
				if all.got[id] != name {
					t.Errorf("%s is %s for one receiver and %s for another", id, name, all.got[id])
				}
			}
			if len(all.ids) != 6 {
				t.Errorf("%d attempts at a receiver that fails twice", len(all.ids))
			}
			var dead []db.OutboxEntry
			testkit.Eventually(t, time.Minute, func() bool {
				dead, err = d.Outbox(t.Context(), db.OutboxFilter{Dead: true}, 0, 10)
				return err == nil && len(dead) == 1
			})
			if e := dead[0]; e.Kind != "webhook:gone" || e.Topic != "model.label.created" || !strings.Contains(e.Reason, "410") || strings.Contains(e.Reason, gone.URL) {
				t.Errorf("given up: %+v", e)
			}
			if n, err := d.ReplayOutbox(t.Context(), db.OutboxFilter{Kind: "webhook:other"}); n != 0 || err != nil {
				t.Errorf("replayed %d of another kind, %v", n, err)
			}
			if n, err := d.ReplayOutbox(t.Context(), db.OutboxFilter{IDs: []int64{dead[0].ID}}); n != 1 || err != nil {
				t.Errorf("replayed %d, %v", n, err)
			}
			testkit.Eventually(t, time.Minute, func() bool { return len(gone.types()) == 1 })
			if gone.ids[0] != gone.ids[1] {
				t.Errorf("a replay has another id: %v", gone.ids)
			}
		})
	}
}

// TestReplace: other receivers take the place of those there are; whoever stays as they were is left alone.
func TestReplace(t *testing.T) {
	list := func(lines ...string) *webhooks.Config { return parse(t, "webhooks:\n"+strings.Join(lines, "\n")) }
	a, b := `- {name: a, url: "https://a.test", secret: "`+one+`"}`, `- {name: b, url: "https://b.test", secret: "`+one+`"}`
	s := webhooks.New(webhooks.Options{Config: list(a, b), Log: slog.New(slog.DiscardHandler)})
	for _, step := range []struct {
		to      *webhooks.Config
		changed []string
		without []string
	}{
		{list(a, b), nil, nil},
		{list(strings.Replace(a, "a.test", "c.test", 1), strings.Replace(b, "name: b", "name: c", 1)), []string{"webhook:a", "webhook:c"}, []string{"webhook:b"}},
		{list(), nil, []string{"webhook:a", "webhook:c"}},
		{list(strings.Replace(a, one, two, 1)), []string{"webhook:a"}, nil},
		{list(a), []string{"webhook:a"}, nil},
	} {
		kinds, without := s.Replace(step.to)
		if changed := slices.Sorted(maps.Keys(kinds)); !slices.Equal(changed, step.changed) || !slices.Equal(without, step.without) {
			t.Errorf("changed %v without %v, want %v without %v", changed, without, step.changed, step.without)
		}
	}
}

// A name that leads inwards is not followed, by whatever address, unless its network is allowed.
func TestInwardAddressesAreRefused(t *testing.T) {
	var asked bool
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer inside.Close()
	port := inside.URL[strings.LastIndexByte(inside.URL, ':'):]
	for _, c := range []struct{ url, networks, want string }{
		{"http://127.0.0.1" + port, "", "without TLS"},
		{"http://localhost" + port, "", "without TLS"},
		{"https://127.0.0.1" + port, "", "no public address"},
		{"https://localhost" + port, "", "no public address"},
		{"https://[::1]" + port, "", "no public address"},
		{"https://[::ffff:127.0.0.1]" + port, "", "no public address"},
		{"https://0.0.0.0" + port, "", "no public address"},
		{"https://10.0.0.1", "", "no public address"},
		{"https://192.168.1.1", "", "no public address"},
		{"https://100.64.0.1", "", "no public address"},
		{"https://169.254.169.254/latest/meta-data", "", "no public address"},
		{"https://[fe80::1]", "", "no public address"},
		{"https://[fd00::1]", "", "no public address"},
		{"https://[64:ff9b::7f00:1]", "", "no public address"},
		{"https://[2002:7f00:1::]", "", "no public address"},
		{"https://224.0.0.1", "", "no public address"},
		{"https://127.0.0.1" + port, "10.0.0.0/8", "no public address"},
		{"http://127.0.0.1" + port, "127.0.0.0/8", ""},
	} {
		asked = false
		config := parse(t, `{networks: ["`+c.networks+`"], webhooks: [{name: a, url: "`+c.url+`", secret: `+one+`}]}`)
		s := webhooks.New(webhooks.Options{Config: config, Log: slog.New(slog.DiscardHandler)})
		err := s.Kinds()["webhook:a"].Handler(t.Context(), "x", []byte(`{"id":"msg_1","body":{}}`))
		if c.want == "" {
			if err != nil || !asked {
				t.Errorf("%s with %q: %v", c.url, c.networks, err)
			}
		} else if err == nil || asked || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %q: %v, asked %v", c.url, c.networks, err, asked)
		}
		_ = s.Close()
	}
}

func TestParseConfigRefuses(t *testing.T) {
	good := `name: a, url: "https://a.example", secret: ` + one
	for text, want := range map[string]string{
		`webhooks: [{` + good + `}, {` + good + `}]`:                                     "two receivers",
		`webhooks: [{name: "A B", url: "https://a.example", secret: ` + one + `}]`:       "its name",
		`webhooks: [{name: a, url: "ftp://a.example", secret: ` + one + `}]`:             "its url",
		`webhooks: [{name: a, url: "https://u:hunter2@a.example", secret: ` + one + `}]`: "its url",
		`webhooks: [{name: a, url: "https://a.example"}]`:                                "secrets",
		`webhooks: [{name: a, url: "https://a.example", secret: hunter2}]`:               "a secret is",
		`webhooks: [{name: a, url: "https://a.example", secret_file: /nowhere}]`:         "secret_file",
		`webhooks: [{` + good + `, secret_file: /nowhere}]`:                              "both",
		`webhooks: [{` + good + `, events: [user.created]}]`:                             "no event",
		`webhooks: [{` + good + `, event: [model.user.created]}]`:                        "event",
		`webhook: []`:             "webhook",
		`networks: [inside]`:      "inside",
		`webhooks: [`:             "",
		`webhooks: {name: twice}`: "",
	} {
		if _, err := webhooks.ParseConfig([]byte(text), nil); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, empty := range []string{"", "# nothing", "webhooks: []", "networks: []"} {
		if c, err := webhooks.ParseConfig([]byte(empty), nil); err != nil || len(c.Receivers) != 0 {
			t.Errorf("%q: %+v, %v", empty, c, err)
		}
	}
}
