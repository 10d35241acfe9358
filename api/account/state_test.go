package account_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"barong/api/account"
	"barong/db"
	"barong/internal/bus"
	"barong/internal/fault"
	"barong/policy"
	"barong/session"
)

// change is one that ends sessions, for the tests of what stays alive.
type change struct {
	name  string
	apply func(ctx context.Context, w *account.Unit, u *db.User, keep *session.Session) error
	keeps bool // the session that asked for it
}

func changes() []change {
	return []change{
		{"password", func(ctx context.Context, w *account.Unit, u *db.User, keep *session.Session) error {
			return w.SetPassword(ctx, u, "digest", keep)
		}, true},
		{"end others", func(ctx context.Context, w *account.Unit, u *db.User, keep *session.Session) error {
			return w.EndSessions(ctx, u, keep)
		}, true},
		{"password and again", func(ctx context.Context, w *account.Unit, u *db.User, keep *session.Session) error {
			if err := w.SetPassword(ctx, u, "digest", keep); err != nil {
				return err
			}
			return w.EndSessions(ctx, u, keep)
		}, true},
		{"role", func(ctx context.Context, w *account.Unit, u *db.User, _ *session.Session) error {
			return w.SetRole(ctx, u, "admin")
		}, false},
		{"ban", func(ctx context.Context, w *account.Unit, u *db.User, _ *session.Session) error {
			return w.SetState(ctx, u, "banned")
		}, false},
		{"ban by label", func(ctx context.Context, w *account.Unit, u *db.User, _ *session.Session) error {
			return w.PutLabel(ctx, u, "ban-2026", "yes")
		}, false},
		{"deletion", func(ctx context.Context, w *account.Unit, u *db.User, _ *session.Session) error {
			return w.DeleteAccount(ctx, u)
		}, false},
		{"deletion after an admin's decision", func(ctx context.Context, w *account.Unit, u *db.User, _ *session.Session) error {
			if err := w.SetState(ctx, u, "active"); err != nil {
				return err
			}
			return w.DeleteAccount(ctx, u)
		}, false},
	}
}

func TestSessionsEnd(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		for i, c := range changes() {
			u, other := b.user(string(rune('a'+i))+"nna@example.com"), b.user(string(rune('a'+i))+"xxx@example.com")
			mine, second, foreign := b.open(u), b.open(u), b.open(other)
			b.takeNotices()
			b.do(func(ctx context.Context, w *account.Unit) error { return c.apply(ctx, w, u, mine) })
			if b.live(mine) != c.keeps {
				t.Errorf("%s: the asking session lives: %v, want %v", c.name, !c.keeps, c.keeps)
			}
			if b.live(second) {
				t.Errorf("%s: another session of the user lives", c.name)
			}
			if !b.live(foreign) {
				t.Errorf("%s: somebody else's session ended", c.name)
			}
			left, err := b.store.List(t.Context(), u.UID, b.clock())
			must(t, err)
			if want := map[bool]int{true: 1}[c.keeps]; len(left) != want {
				t.Errorf("%s: %d sessions left in the store, want %d", c.name, len(left), want)
			}
			told := map[bus.Notice]bool{}
			for _, n := range b.takeNotices() {
				told[n] = true
			}
			if !told[bus.Notice{Kind: bus.UserChanged, Subject: u.UID}] {
				t.Errorf("%s: no replica hears that the user changed: %v", c.name, told)
			}
			if c.keeps && !told[bus.Notice{Kind: bus.SessionGone, Subject: mine.Key.String()}] {
				t.Errorf("%s: no replica forgets the old epoch of the kept session: %v", c.name, told)
			}
		}
	})
}

// TestDeadSessionStaysDead: a session that a change ended must not be kept by the next one.
func TestDeadSessionStaysDead(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u, other := b.user("anna@example.com"), b.user("otto@example.com")
		dead, foreign := b.open(u), b.open(other)
		must(t, b.DB.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error { return tx.EndSessions(ctx, u) }))
		for _, keep := range []*session.Session{dead, foreign} {
			b.do(func(ctx context.Context, w *account.Unit) error { return w.SetPassword(ctx, u, "digest", keep) })
		}
		if b.live(dead) {
			t.Error("a dead session came back to life")
		}
		if !b.live(foreign) {
			t.Error("a session of somebody else changed its epoch")
		}
	})
}

// TestFailedUnitEndsNothing: what a unit would have ended stays when it does not commit.
func TestFailedUnitEndsNothing(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u := b.user("anna@example.com")
		mine := b.open(u)
		boom := errors.New("boom")
		if err := b.try(func(ctx context.Context, w *account.Unit) error {
			if err := w.SetState(ctx, u, "banned"); err != nil {
				return err
			}
			return boom
		}); !errors.Is(err, boom) {
			t.Fatalf("got %v", err)
		}
		if !b.live(mine) || b.stored(u).State != "pending" {
			t.Error("a unit that was rolled back left its mark")
		}
	})
}

func (b *bench) key(u *db.User, kid string) {
	b.t.Helper()
	must(b.t, b.DB.Update(b.t.Context(), func(ctx context.Context, tx *db.Tx) error {
		return tx.InsertAPIKey(ctx, &db.APIKey{UserID: u.ID, KID: kid, Algorithm: "HS256", State: "active", Secret: "00"})
	}))
}

func (b *bench) keyActive(u *db.User, kid string) bool {
	b.t.Helper()
	k, err := b.DB.UserAPIKey(b.t.Context(), u.ID, kid)
	must(b.t, err)
	return k.State == "active"
}

func TestAPIKeysFollowState(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u := b.user("anna@example.com")
		b.do(func(ctx context.Context, w *account.Unit) error { return w.PutLabel(ctx, u, "email", "verified") })
		b.key(u, "k1")
		b.do(func(ctx context.Context, w *account.Unit) error { return w.PutLabel(ctx, u, "phone", "verified") })
		if !b.keyActive(u, "k1") {
			t.Error("a level made the key inactive")
		}
		b.do(func(ctx context.Context, w *account.Unit) error { return w.DeleteLabel(ctx, u, "email", "private") })
		if b.keyActive(u, "k1") {
			t.Error("the key of a pending user is active")
		}
		b.do(func(ctx context.Context, w *account.Unit) error { return w.PutLabel(ctx, u, "email", "verified") })
		if b.keyActive(u, "k1") {
			t.Error("a key came back by itself")
		}
		b.key(u, "k2")
		b.do(func(ctx context.Context, w *account.Unit) error { return w.SetState(ctx, u, "locked") })
		if b.keyActive(u, "k2") {
			t.Error("the key of a locked user is active")
		}
	})
}

func TestAdminStateStays(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u := b.user("anna@example.com")
		same(t, "unknown state", codes(b.try(func(ctx context.Context, w *account.Unit) error {
			return w.SetState(ctx, u, "bannd")
		})), []fault.Code{"state.inclusion"})
		same(t, "ban", told(b.do(func(ctx context.Context, w *account.Unit) error { return w.SetState(ctx, u, "banned") })),
			[]string{`model.user.updated {"state":"pending"}`})
		b.do(func(ctx context.Context, w *account.Unit) error { return w.PutLabel(ctx, u, "email", "verified") })
		if now := b.stored(u); now.State != "banned" || now.Level != 1 {
			t.Errorf("after confirmation: state %s level %d, want banned 1", now.State, now.Level)
		}
		b.do(func(ctx context.Context, w *account.Unit) error { return w.SetState(ctx, u, "active") })
		b.do(func(ctx context.Context, w *account.Unit) error { return w.PutLabel(ctx, u, "fraud", "yes") })
		if now := b.stored(u); now.State != "active" {
			t.Errorf("a trigger won over an admin: %s", now.State)
		}
	})
}

func TestRoles(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u := b.user("anna@example.com")
		role := func(u *db.User, role string) error {
			return b.try(func(ctx context.Context, w *account.Unit) error { return w.SetRole(ctx, u, role) })
		}
		same(t, "no such role", codes(role(u, "nobody")), []fault.Code{"role.doesnt_exist"})
		must(t, role(u, "superadmin"))
		same(t, "the last superadmin", codes(role(u, "member")), []fault.Code{"admin.permission.last_superadmin"})
		for name, f := range map[string]func(ctx context.Context, w *account.Unit) error{
			"ban":      func(ctx context.Context, w *account.Unit) error { return w.SetState(ctx, u, "banned") },
			"label":    func(ctx context.Context, w *account.Unit) error { return w.PutLabel(ctx, u, "fraud", "yes") },
			"deletion": func(ctx context.Context, w *account.Unit) error { return w.DeleteAccount(ctx, u) },
		} {
			same(t, "the last superadmin: "+name, codes(b.try(f)), []fault.Code{"admin.permission.last_superadmin"})
		}
		if now := b.stored(u); now.State != "pending" || now.Role != "superadmin" {
			t.Errorf("the last superadmin became %s %s", now.State, now.Role)
		}
	})
}

// TestSuperadminsCannotRemoveEachOther lets all superadmins be degraded at once: one is left.
func TestSuperadminsCannotRemoveEachOther(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		var all []*db.User
		for _, email := range []string{"anna@example.com", "otto@example.com", "ella@example.com"} {
			u := b.user(email)
			must(t, b.try(func(ctx context.Context, w *account.Unit) error { return w.SetRole(ctx, u, "superadmin") }))
			all = append(all, u)
		}
		for _, act := range []func(ctx context.Context, w *account.Unit, u *db.User) error{
			func(ctx context.Context, w *account.Unit, u *db.User) error { return w.SetRole(ctx, u, "member") },
			func(ctx context.Context, w *account.Unit, u *db.User) error { return w.SetState(ctx, u, "locked") },
		} {
			var wg sync.WaitGroup
			for _, u := range all {
				wg.Go(func() {
					mine := *u
					err := b.try(func(ctx context.Context, w *account.Unit) error { return act(ctx, w, &mine) })
					if err != nil && !fault.As(err).Has("admin.permission.last_superadmin") {
						t.Errorf("got %v", err)
					}
				})
			}
			wg.Wait()
			left, err := b.DB.OthersOpen(t.Context(), policy.Superadmin, 0)
			must(t, err)
			if left != 1 {
				t.Fatalf("%d superadmins left, want 1", left)
			}
		}
	})
}

func TestData(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u := b.user("anna@example.com")
		set := func(data string) func(ctx context.Context, w *account.Unit) error {
			return func(ctx context.Context, w *account.Unit) error { return w.SetData(ctx, u, data) }
		}
		same(t, "data", told(b.do(set(`{"language":"ru"}`))), []string{"model.user.updated {}"})
		same(t, "same data", told(b.do(set(`{"language":"ru"}`))), []string{})
		same(t, "no JSON", codes(b.try(set(`{`))), []fault.Code{"data.invalid_format"})
		same(t, "empty", codes(b.try(set(``))), []fault.Code{"data.invalid_format"})
		long := make([]byte, 1025)
		for i := range long {
			long[i] = 'x'
		}
		same(t, "too long", codes(b.try(set(string(long)))), []fault.Code{"data.too_long", "data.invalid_format"})
	})
}
