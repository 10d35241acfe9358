package account_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/api/account"
	"barong/db"
	"barong/internal/bus"
	"barong/internal/crypto/keys"
	"barong/internal/crypto/password"
	"barong/internal/crypto/secret"
	"barong/internal/delivery/mail"
	"barong/internal/fault"
	"barong/internal/limit"
	"barong/internal/test/dbtest"
	"barong/session"
)

// A bench is a service on a real database, with what it told the outside.
type bench struct {
	*account.Service
	t     *testing.T
	store session.Store
	ring  *keys.Ring

	mu      sync.Mutex
	now     time.Time
	events  []account.Event
	notices []bus.Notice
	dropped []string // kinds of mails that were not written
}

var browser = account.Client{IP: netip.MustParseAddr("192.0.2.7"), UserAgent: "Mozilla/5.0 Firefox/130.0", Country: "UA"}

// engines runs a test on SQLite and on Postgres.
func engines(t *testing.T, test func(t *testing.T, b *bench)) {
	t.Helper()
	for _, engine := range dbtest.Engines {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			test(t, newBench(t, engine))
		})
	}
}

var signing = sync.OnceValues(func() (*keys.Set, error) { return keys.New(keys.ES256) })

func newBench(t *testing.T, engine string) *bench {
	t.Helper()
	b := &bench{t: t, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	box, err := secret.New(secret.NewKey())
	must(t, err)
	d := dbtest.Open(t, engine, db.Options{Sealer: box, Now: b.clock})
	set, err := signing()
	must(t, err)
	policy, err := password.New(password.Options{MinEntropy: 14, UseDictionary: true, Regexp: passwordPattern})
	must(t, err)
	letters, err := mail.NewRenderer(mail.RendererOptions{Brand: "Barong", Domain: "exchange.example", DefaultLanguage: "en", Now: b.clock})
	must(t, err)
	b.store, b.ring = d.Sessions(), keys.Fixed(set, b.clock)
	b.Service = account.New(account.Options{
		Settings: account.Settings{
			UIDPrefix: "ID", Domain: "exchange.example", AppName: "Barong", DefaultLanguage: "en",
			SessionTTL: 30 * time.Minute, SessionMaxAge: 24 * time.Hour, MailTokenTTL: time.Hour,
			Issuer: "barong", Audience: []string{"peatio", "barong"},
			ActivationRequirements: map[string]string{"email": "verified"},
			StateTriggers: []account.Trigger{
				{State: "banned", Keys: []string{"ban", "fraud"}},
				{State: "deleted", Keys: []string{"delete"}},
				{State: "locked", Keys: []string{"suspicious", "lock"}},
			},
		},
		DB: d, Sessions: b.store, Keys: b.ring, Passwords: password.NewHasher(password.HasherOptions{MemoryKiB: 64, Passes: 1}), Policy: policy,
		Limits: limit.SQL(d, limit.Options{Hash: box.Index, Now: b.clock}), Letters: letters,
		FileURL: func(key string) string { return "https://files.example/" + key + "?a=b" },
		Publish: func(_ context.Context, _ *db.Tx, e account.Event) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.events = append(b.events, e)
			return nil
		},
		Notices: func(_ context.Context, n ...bus.Notice) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.notices = append(b.notices, n...)
			return nil
		},
		MailDropped: func(kind string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.dropped = append(b.dropped, kind)
		},
		UnknownBrowser: func(agent string) bool { return !strings.HasPrefix(agent, "Mozilla/") },
		Now:            b.clock,
		Log:            slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	d.PublishTo(b.Notices)
	must(t, d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		for _, role := range []string{"superadmin", "admin", "member"} {
			p := &db.Permission{Role: role, Verb: "ALL", Path: "api/v2", Action: "ACCEPT"}
			if err := tx.InsertPermission(ctx, db.Who{}, p); err != nil {
				return err
			}
		}
		for i, key := range []string{"email", "phone", "document"} {
			value := "verified"
			l := &db.Level{ID: int64(i + 1), Key: key, Value: &value, CreatedAt: tx.Now(), UpdatedAt: tx.Now()}
			if _, err := tx.NewInsert().Model(l).Exec(ctx); err != nil {
				return err
			}
		}
		return nil
	}))
	return b
}

const passwordPattern = `^(?=.*[[:lower:]])(?=.*[[:upper:]])(?=.*[[:digit:]])(?=.*[[:graph:]]).{8,80}$`

func (b *bench) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bench) advance(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

// user makes a user without going through sign-up.
func (b *bench) user(email string) *db.User {
	b.t.Helper()
	u := &db.User{
		UID: "ID" + strings.ToUpper(email[:4]), Email: email, PasswordDigest: "x", Role: "member", State: "pending",
	}
	must(b.t, b.DB.Update(b.t.Context(), func(ctx context.Context, tx *db.Tx) error { return tx.InsertUser(ctx, u) }))
	return u
}

// do runs one unit of work that must succeed, and returns what was published in it.
func (b *bench) do(f func(ctx context.Context, u *account.Unit) error) []account.Event {
	b.t.Helper()
	b.takeEvents()
	must(b.t, b.Update(b.t.Context(), f))
	return b.takeEvents()
}

// try runs one unit of work and returns its error.
func (b *bench) try(f func(ctx context.Context, u *account.Unit) error) error {
	return b.Update(b.t.Context(), f)
}

func (b *bench) takeEvents() []account.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	events := b.events
	b.events = nil
	return events
}

func (b *bench) takeNotices() []bus.Notice {
	b.mu.Lock()
	defer b.mu.Unlock()
	notices := b.notices
	b.notices = nil
	return notices
}

// stored reads a user's row.
func (b *bench) stored(u *db.User) *db.User {
	b.t.Helper()
	now, err := b.DB.UserByID(b.t.Context(), u.ID)
	must(b.t, err)
	return now
}

// open opens a session for a user as they stand now.
func (b *bench) open(u *db.User) *session.Session {
	b.t.Helper()
	now := b.stored(u)
	_, opened, err := b.OpenSession(b.t.Context(), browser, nil, now.UID, now.Epoch(), session.Password,
		func(context.Context, *account.Unit) error { return nil })
	must(b.t, err)
	return opened
}

// live reports whether a session still opens its user's account.
func (b *bench) live(s *session.Session) bool {
	b.t.Helper()
	found, err := b.store.Get(b.t.Context(), s.Key, b.clock())
	if err == session.ErrNotFound {
		return false
	}
	must(b.t, err)
	u, err := b.DB.UserByUID(b.t.Context(), s.UID)
	must(b.t, err)
	return found.Epoch == u.Epoch()
}

func names(events []account.Event) []string {
	out := []string{}
	for _, e := range events {
		out = append(out, e.Name)
	}
	return out
}

// told says in one line each what events say: the name, and the changes.
func told(events []account.Event) []string {
	out := []string{}
	for _, e := range events {
		line := e.Name
		if e.Changes != nil {
			line += " " + string(e.Changes)
		}
		out = append(out, line)
	}
	return out
}

func codes(err error) []fault.Code {
	if err == nil {
		return nil
	}
	return fault.As(err).Codes
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// member reads one member of a JSON object.
func member(t *testing.T, object json.RawMessage, name string) any {
	t.Helper()
	var m map[string]any
	must(t, json.Unmarshal(object, &m))
	return m[name]
}
