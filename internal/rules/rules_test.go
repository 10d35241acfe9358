package rules

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/authz"
	"barong/db"
	"barong/internal/bus"
	"barong/internal/geoip"
	"barong/internal/test/dbtest"
	"barong/internal/test/testkit"
	"barong/policy"
)

var _ authz.Sampler = (*Sampler)(nil)

// A logBuffer may be written by a goroutine while the test reads it.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type world struct {
	*Rules
	db  *db.DB
	log *logBuffer
}

// start makes Rules over a fresh database. change may set Options.
func start(t *testing.T, url string, change func(*Options)) *world {
	t.Helper()
	d := dbtest.At(t, db.Options{URL: url})
	b := bus.NewLocal()
	d.PublishTo(b.Publish)
	w := &world{db: d, log: new(logBuffer)}
	o := Options{DB: d, Bus: b, Locator: geoip.Embedded(), Log: slog.New(slog.NewTextHandler(w.log, nil))}
	if change != nil {
		change(&o)
	}
	var err error
	if w.Rules, err = New(o); err != nil {
		t.Fatal(err)
	}
	w.tick = 5 * time.Millisecond
	return w
}

func sqlite(t *testing.T) string { return dbtest.URL(t, "sqlite") }

func bothEngines(t *testing.T, run func(t *testing.T, url string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { run(t, sqlite(t)) })
	t.Run("postgres", func(t *testing.T) { run(t, dbtest.URL(t, "postgres")) })
}

// run keeps Run going until the test ends.
func (w *world) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

func (w *world) update(t *testing.T, f func(ctx context.Context, tx *db.Tx) error) {
	t.Helper()
	if err := w.db.Update(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}

// permit stores a permission "role verb path action".
func (w *world) permit(t *testing.T, line string) *db.Permission {
	t.Helper()
	f := strings.Fields(line)
	p := &db.Permission{Role: f[0], Verb: f[1], Path: f[2], Action: f[3]}
	w.update(t, func(ctx context.Context, tx *db.Tx) error { return tx.InsertPermission(ctx, db.Who{}, p) })
	return p
}

func (w *world) reload(t *testing.T) {
	t.Helper()
	if err := w.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (w *world) allowed(role, verb, path string) bool {
	return w.Snapshot().Permit(role, verb, path).Allow
}

// eventually waits for what a running goroutine must bring about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

func TestReload(t *testing.T) {
	bothEngines(t, func(t *testing.T, url string) {
		w := start(t, url, nil)
		if w.Snapshot() != nil || w.Status().Ready() {
			t.Fatal("has rules before the first load")
		}
		w.reload(t)
		if w.allowed("m", "GET", "a") || !w.Status().Ready() {
			t.Fatal("an empty database allows something")
		}
		p := w.permit(t, "m GET a ACCEPT")
		w.reload(t)
		if !w.allowed("m", "GET", "a/b") || w.Status().Version != 1 {
			t.Errorf("not allowed: %+v", w.Status())
		}
		code := 433
		w.update(t, func(ctx context.Context, tx *db.Tx) error {
			return errors.Join(tx.DeletePermission(ctx, db.Who{}, p),
				tx.InsertRestriction(ctx, db.Who{}, &db.Restriction{Category: "blacklist", Scope: "country", Value: "US", Code: &code, State: "enabled"}),
				tx.InsertRestriction(ctx, db.Who{}, &db.Restriction{Category: "blacklist", Scope: "all", Value: "all", State: "disabled"}))
		})
		w.reload(t)
		if w.allowed("m", "GET", "a") || w.Status().Version != 4 {
			t.Errorf("still allowed: %+v", w.Status())
		}
		if o := w.Snapshot().Restrict(netip.MustParseAddr("8.8.8.8"), "a"); !o.Refused || o.Status != 433 {
			t.Errorf("got %+v", o)
		}
		if o := w.Snapshot().Restrict(netip.MustParseAddr("193.0.6.139"), "a"); o.Refused {
			t.Errorf("got %+v", o)
		}
	})
}

// TestReloadCoversWhatWasCommitted: after each of many parallel edits, the editor's own Reload has it in force.
func TestReloadCoversWhatWasCommitted(t *testing.T) {
	w := start(t, sqlite(t), nil)
	w.run(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 5 {
				path := fmt.Sprintf("p%d/%d", i, n)
				err := w.db.Update(context.Background(), func(ctx context.Context, tx *db.Tx) error {
					return tx.InsertPermission(ctx, db.Who{}, &db.Permission{Role: "m", Verb: "GET", Path: path, Action: "ACCEPT"})
				})
				if err == nil {
					err = w.Reload(context.Background())
				}
				if err != nil || !w.allowed("m", "GET", path) {
					t.Errorf("%s is not in force after Reload: %v", path, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestReloadGivesUpWithItsCaller(t *testing.T) {
	w := start(t, sqlite(t), nil)
	w.reload(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.Reload(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if s := w.Status(); s.Error != "" {
		t.Errorf("a caller who gave up is no failure: %+v", s)
	}
	w.reload(t)
}

func TestRunHearsOfChanges(t *testing.T) {
	bothEngines(t, func(t *testing.T, url string) {
		w := start(t, url, func(o *Options) { o.Poll = time.Hour })
		w.reload(t)
		w.run(t)
		w.permit(t, "m GET a ACCEPT")
		eventually(t, "the bus brings the change", func() bool { return w.allowed("m", "GET", "a") })
		// Somebody edits by hand, and sends the signal.
		w.update(t, func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.ExecContext(ctx, "UPDATE permissions SET action = 'DROP'")
			return err
		})
		w.Poke()
		eventually(t, "the signal brings the change", func() bool { return !w.allowed("m", "GET", "a") })
	})
}

func TestRunFindsWhatNoNoticeTold(t *testing.T) {
	w := start(t, sqlite(t), func(o *Options) { o.Bus, o.Poll = nil, 10*time.Millisecond })
	w.reload(t)
	w.run(t)
	w.permit(t, "m GET a ACCEPT")
	eventually(t, "asking brings the change", func() bool { return w.allowed("m", "GET", "a") })
}

func TestBadTableKeepsTheLastGood(t *testing.T) {
	w := start(t, sqlite(t), func(o *Options) { o.Poll = time.Hour })
	w.permit(t, "m GET a ACCEPT")
	w.reload(t)
	bad := w.permit(t, "m SING b ACCEPT")
	for range 3 {
		if err := w.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), `permission 2 (m ACCEPT SING b): verb "SING" is unknown`) {
			t.Fatalf("got %v", err)
		}
	}
	if err := w.Stale(); err == nil || !strings.Contains(err.Error(), "the rules of version 1 stay in force since ") ||
		!strings.HasSuffix(err.Error(), `verb "SING" is unknown`) {
		t.Errorf("stale: %v", err)
	}
	s := w.Status()
	if !w.allowed("m", "GET", "a") || s.Version != 1 || s.Error == "" || s.Since.IsZero() || !s.Ready() {
		t.Errorf("got %+v", s)
	}
	if n := strings.Count(w.log.String(), "level=ERROR"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, w.log)
	}
	w.run(t)
	w.update(t, func(ctx context.Context, tx *db.Tx) error { return tx.DeletePermission(ctx, db.Who{}, bad) })
	eventually(t, "it is good again", func() bool { return w.Status().Error == "" && w.Status().Version == 3 })
	if err := w.Stale(); err != nil {
		t.Errorf("the rules are those that are stored, and stale: %v", err)
	}
	eventually(t, "it says so", func() bool { return strings.Contains(w.log.String(), "good again") })
}

func TestRetryAfterAnOutage(t *testing.T) {
	server := testkit.PostgresServer(t)
	w := start(t, server.URL, func(o *Options) { o.Poll = 20 * time.Millisecond })
	w.permit(t, "m GET a ACCEPT")
	w.reload(t)
	w.run(t)
	server.Kill()
	eventually(t, "the outage shows", func() bool { return w.Status().Error != "" })
	if !w.allowed("m", "GET", "a") || !w.Status().Ready() {
		t.Error("the rules went with the database")
	}
	server.Start(t)
	eventually(t, "it is over", func() bool { return w.Status().Error == "" })
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestListsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "authz_rules.yml")
	w := start(t, sqlite(t), func(o *Options) { o.ListsFile, o.Poll = file, time.Hour })
	w.reload(t)
	blocked := func(path string) bool { _, ok := w.Snapshot().Blocked(path); return ok }
	if !blocked("api/v2/barong/management/x") {
		t.Error("the built-in lists do not hold without a file")
	}
	w.run(t)
	write(t, file, "rules: {block: [secret]}\n")
	eventually(t, "the new file is read", func() bool { return blocked("secret") && !blocked("api/v2/barong/management/x") })
	write(t, file, "rules:\n  block:\n    - other\n    - <%= secret %>\n")
	eventually(t, "the template is refused", func() bool { return strings.Contains(w.Status().Error, "line 4: the only templates") })
	if !blocked("secret") || blocked("other") {
		t.Error("the last good lists are gone")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the missing file is noticed", func() bool { return strings.Contains(w.Status().Error, "no such file") })
	if !blocked("secret") {
		t.Error("a file that has gone unblocks its paths")
	}
	write(t, file, "rules: {block: [third]}\n")
	eventually(t, "it is back", func() bool { return w.Status().Error == "" && blocked("third") })
}

// Pages pass beside the built-in lists. A rules file says all that passes, since what it does not list may be a path of
// somebody's own service; that its pages are then out of reach is told.
func TestPages(t *testing.T) {
	file := filepath.Join(t.TempDir(), "authz_rules.yml")
	w := start(t, sqlite(t), func(o *Options) { o.ListsFile, o.Poll, o.Pages = file, time.Hour, []string{"accounts", "console"} })
	w.reload(t)
	passed := func(method, path string) bool { _, ok := w.Snapshot().Passed(method, path); return ok }
	if !passed("GET", "accounts/signin") || !passed("HEAD", "console") || passed("POST", "accounts/signin") || passed("GET", "accountsX") {
		t.Error("pages do not pass beside the built-in lists as they should")
	}
	w.run(t)
	write(t, file, "rules: {pass: [public, console/]}\n")
	eventually(t, "the file is read", func() bool { return passed("GET", "public") })
	if passed("GET", "accounts/signin") {
		t.Error("what the file does not list passes")
	}
	if log := w.log.String(); !strings.Contains(log, "accounts is not on the list pass") || strings.Contains(log, "console is not on the list") {
		t.Errorf("the log says %s", log)
	}
	write(t, file, "rules: {pass: [accounts, console]}\n")
	eventually(t, "the pages are listed", func() bool { return passed("GET", "accounts/signin") })
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

func TestRequiredFiles(t *testing.T) {
	absent := filepath.Join(t.TempDir(), "absent")
	w := start(t, sqlite(t), func(o *Options) { o.ListsFile, o.ListsRequired = absent, true })
	if err := w.Reload(t.Context()); err == nil || w.Snapshot() != nil {
		t.Errorf("got %v", err)
	}
	w = start(t, sqlite(t), func(o *Options) { o.ModelFile = absent })
	if err := w.Reload(t.Context()); err == nil || w.Snapshot() != nil {
		t.Errorf("got %v", err)
	}
	if _, err := New(Options{}); err == nil {
		t.Error("made without a database")
	}
	if _, err := New(Options{DB: w.db, ListsRequired: true}); err == nil {
		t.Error("made without the file that is required")
	}
}

func TestModelFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "model.conf")
	anyRole := strings.Replace(policy.ShippedModel(), "r.role == p.role", `(r.role == p.role || p.role == "*")`, 1)
	write(t, file, anyRole)
	w := start(t, sqlite(t), func(o *Options) { o.ModelFile, o.Poll = file, time.Hour })
	w.permit(t, "* ALL api/v2/barong ACCEPT")
	w.reload(t)
	if !w.Snapshot().OwnModel() || !w.allowed("m", "GET", "api/v2/barong/x") {
		t.Error("the operator's model does not decide")
	}
	rows, err := w.db.AllPermissions(t.Context())
	if err != nil || !w.SuperadminCanAct(Permissions(rows)) || policy.SuperadminCanAct(Permissions(rows), "") {
		t.Errorf("the guard does not ask the operator's model: %v", err)
	}
	w.run(t)
	write(t, file, "nonsense")
	eventually(t, "the bad model shows", func() bool { return strings.Contains(w.Status().Error, "casbin model") })
	if !w.allowed("m", "GET", "api/v2/barong/x") {
		t.Error("the last good model is gone")
	}
	write(t, file, policy.ShippedModel())
	eventually(t, "the shipped model decides", func() bool { return !w.Snapshot().OwnModel() })
	if w.SuperadminCanAct(Permissions(rows)) {
		t.Error("the guard asks a model of before")
	}
}

func TestWarningsAreLoggedOnce(t *testing.T) {
	w := start(t, sqlite(t), nil)
	w.permit(t, "m GET /a ACCEPT")
	w.reload(t)
	w.permit(t, "m GET a ACCEPT")
	w.reload(t)
	if n := strings.Count(w.log.String(), "begins with a slash"); n != 1 {
		t.Errorf("warned %d times:\n%s", n, w.log)
	}
}

func TestReloadWithoutNews(t *testing.T) {
	w := start(t, sqlite(t), nil)
	w.permit(t, "m GET a ACCEPT")
	w.reload(t)
	before := w.Snapshot()
	w.reload(t)
	if w.Snapshot() != before {
		t.Error("the same rules were compiled again")
	}
}

// What is asked for every four seconds is asked for at the fourth tick, however ticks stray.
func TestDue(t *testing.T) {
	r := &Rules{tick: time.Second}
	for after, want := range map[time.Duration]bool{
		0: false, 3 * time.Second: false, 3400 * time.Millisecond: false, 3999 * time.Millisecond: true,
		4 * time.Second: true, 4400 * time.Millisecond: true, time.Minute: true,
	} {
		if got := r.due(after, 4*time.Second); got != want {
			t.Errorf("after %v: due is %v", after, got)
		}
	}
	if DefaultPoll+time.Second > 5*time.Second {
		t.Errorf("the rules are asked for every %v, too seldom to be felt within five seconds", DefaultPoll)
	}
}

// Refresh brings the same into force as Reload, over edits of every kind, though it reads only what has changed; what was
// edited by hand is Reload's alone.
func TestRefreshIsReload(t *testing.T) {
	t.Parallel()
	bothEngines(t, func(t *testing.T, url string) {
		w := start(t, url, nil)
		if err := w.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		random := rand.New(rand.NewPCG(1, 2))
		var permissions []*db.Permission
		var restrictions []*db.Restriction
		for step := range 60 {
			w.update(t, func(ctx context.Context, tx *db.Tx) error {
				for range 1 + random.IntN(3) { // several edits in one commit, of the same row as well
					var err error
					switch n := random.IntN(6); {
					case n == 0 || len(permissions) == 0:
						p := &db.Permission{Role: "r", Verb: "GET", Path: fmt.Sprintf("p/%d", step), Action: "ACCEPT"}
						if err = tx.InsertPermission(ctx, db.Who{}, p); err == nil {
							permissions = append(permissions, p)
						}
					case n == 1:
						i := random.IntN(len(permissions))
						err = tx.DeletePermission(ctx, db.Who{}, permissions[i])
						permissions = slices.Delete(permissions, i, i+1)
					case n == 2:
						i := random.IntN(len(permissions))
						after := *permissions[i]
						after.Path += "x"
						err = tx.UpdatePermission(ctx, db.Who{}, permissions[i], &after)
						permissions[i] = &after
					case n == 3 || len(restrictions) == 0:
						r := &db.Restriction{Category: "blacklist", Scope: "ip", Value: fmt.Sprintf("10.0.%d.%d", step, random.IntN(250)), State: "enabled"}
						if err = tx.InsertRestriction(ctx, db.Who{}, r); err == nil {
							restrictions = append(restrictions, r)
						}
					case n == 4:
						i := random.IntN(len(restrictions))
						err = tx.DeleteRestriction(ctx, db.Who{}, restrictions[i])
						restrictions = slices.Delete(restrictions, i, i+1)
					default:
						i := random.IntN(len(restrictions))
						after := *restrictions[i]
						after.State = map[string]string{"enabled": "disabled", "disabled": "enabled"}[after.State]
						err = tx.UpdateRestriction(ctx, db.Who{}, restrictions[i], &after)
						restrictions[i] = &after
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
			if err := w.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := w.loaded
			want, err := w.read(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			if !equalSources(&got, &want) || !slices.Equal(w.Snapshot().Permissions(), want.Permissions) {
				t.Fatalf("step %d: got %+v, want %+v", step, got, want)
			}
		}
		if _, err := w.db.Bun().ExecContext(t.Context(), "UPDATE permissions SET path = 'by/hand'"); err != nil {
			t.Fatal(err)
		}
		if err := w.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(w.Snapshot().Permissions(), func(p policy.Permission) bool { return p.Path == "by/hand" }) {
			t.Error("Refresh read everything")
		}
		if err := w.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, p := range w.Snapshot().Permissions() {
			if p.Path != "by/hand" {
				t.Fatalf("Reload did not read %s", p)
			}
		}
	})
}
