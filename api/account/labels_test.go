package account_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"barong/api/account"
	"barong/db"
	"barong/internal/fault"

	"pgregory.net/rapid"
)

func TestValidateLabel(t *testing.T) {
	long := strings.Repeat("k", 256)
	for _, c := range []struct {
		key, value, scope string
		want              []fault.Code
	}{
		{"note", "one", "public", nil},
		{"  NoTe ", " OnE ", "private", nil},
		{"a_b-9", "x_y-0", "public", nil},
		{strings.Repeat("k", 255), "one", "public", nil},
		{long, "one", "public", []fault.Code{"key.too_long"}},
		{"note", long, "public", []fault.Code{"value.too_long"}},
		{"ab", "one", "public", []fault.Code{"key.too_short"}},
		{"a b", "one", "public", []fault.Code{"key.invalid"}},
		{"note", "a!", "public", []fault.Code{"value.too_short", "value.invalid"}},
		{"x", "y", "weird", []fault.Code{"scope.inclusion", "key.too_short", "value.too_short"}},
		{"note", "one", "PRIVATE", []fault.Code{"scope.inclusion"}},
		{"ключ", "one", "public", []fault.Code{"key.invalid"}},
		{" ", "one", "public", []fault.Code{"key.blank", "key.too_short", "key.invalid"}},
	} {
		same(t, fmt.Sprintf("ValidateLabel(%.20q, %.20q, %q)", c.key, c.value, c.scope),
			account.ValidateLabel(c.key, c.value, c.scope), c.want)
	}
}

func TestStateOf(t *testing.T) {
	s := account.Settings{
		ActivationRequirements: map[string]string{"email": "verified", "phone": "verified"},
		StateTriggers: []account.Trigger{
			{State: "banned", Keys: []string{"ban", "fraud"}}, {State: "locked", Keys: []string{"lock"}},
		},
	}
	verified := []db.Label{
		{Key: "email", Value: "verified", Scope: "private"}, {Key: "phone", Value: "verified", Scope: "private"},
	}
	with := func(keys ...string) []db.Label {
		labels := slices.Clone(verified)
		for _, k := range keys {
			scope := "private"
			if k, public := strings.CutPrefix(k, "public:"); public {
				labels = append(labels, db.Label{Key: k, Value: "yes", Scope: "public"})
				continue
			}
			labels = append(labels, db.Label{Key: k, Value: "yes", Scope: scope})
		}
		return labels
	}
	for _, c := range []struct {
		labels []db.Label
		want   string
	}{
		{nil, "pending"},
		{verified[:1], "pending"},
		{verified, "active"},
		{[]db.Label{verified[0], {Key: "phone", Value: "verified", Scope: "public"}}, "pending"},
		{with("ban"), "banned"},
		{with("BAN-2019"), "banned"}, // of an old release of the original
		{[]db.Label{{Key: "EMAIL", Value: "Verified", Scope: "private"}, verified[1]}, "active"},
		{with("ban-2026"), "banned"},
		{with("ban_2026"), "banned"},
		{with("banned"), "active"},
		{with("bank-account"), "active"},
		{with("band-member"), "active"},
		{with("not-ban"), "active"},
		{with("public:ban"), "active"},
		{with("lock", "ban"), "locked"},
		{with("fraud"), "banned"},
		{with("lockdown"), "active"},
	} {
		if got := s.StateOf(c.labels); got != c.want {
			t.Errorf("StateOf(%v): got %s, want %s", c.labels, got, c.want)
		}
	}
}

func TestLabelErrors(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u := b.user("anna@example.com")
		create := func(key, value, scope string) error {
			return b.try(func(ctx context.Context, w *account.Unit) error {
				_, err := w.CreateLabel(ctx, u, key, value, scope, nil)
				return err
			})
		}
		must(t, create("note", "one", "public"))
		same(t, "again", codes(create("note", "two", "public")), []fault.Code{"key.taken"})
		same(t, "again, spelled otherwise", codes(create(" NOTE ", "x", "public")), []fault.Code{"key.taken", "value.too_short"})
		must(t, create("note", "one", "private"))
		update := func(key, scope, value string) error {
			return b.try(func(ctx context.Context, w *account.Unit) error {
				_, err := w.UpdateLabel(ctx, u, key, scope, value, nil)
				return err
			})
		}
		same(t, "bad value", codes(update("note", "public", "?")), []fault.Code{"value.too_short", "value.invalid"})
		if err := update("nothing", "public", "one"); !errors.Is(err, db.ErrNotFound) {
			t.Errorf("update of no label: got %v", err)
		}
		if err := b.try(func(ctx context.Context, w *account.Unit) error {
			return w.DeleteLabel(ctx, u, "nothing", "public")
		}); !errors.Is(err, db.ErrNotFound) {
			t.Errorf("delete of no label: got %v", err)
		}
		long := strings.Repeat("x", 256)
		same(t, "long description", codes(b.try(func(ctx context.Context, w *account.Unit) error {
			_, err := w.CreateLabel(ctx, u, "other", "one", "public", &long)
			return err
		})), []fault.Code{"description.too_long"})
	})
}

// TestLabelEvents holds the order in which label changes are told to that of the original.
func TestLabelEvents(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u := b.user("anna@example.com")
		put := func(key, value string) []account.Event {
			return b.do(func(ctx context.Context, w *account.Unit) error { return w.PutLabel(ctx, u, key, value) })
		}
		events := put("email", "verified")
		same(t, "email verified", told(events), []string{
			`model.user.updated {"level":0}`, `model.user.updated {"state":"pending"}`, "model.label.created",
		})
		if got := string(events[2].Record); !strings.Contains(got, `"user":{"uid":"IDANNA","email":"anna@example.com","role":"member",`+
			`"level":1,"otp":false,"state":"active","referral_uid":null,"created_at":"2026-03-01T12:00:00Z",`+
			`"updated_at":"2026-03-01T12:00:00Z"}`) {
			t.Errorf("label record: got %s", got)
		}
		if state := member(t, events[0].Record, "state"); state != "pending" {
			t.Errorf("record of the level's event: state %v, want the old one", state)
		}
		same(t, "again", told(put("email", "verified")), []string{})
		put("phone", "verified")
		same(t, "document pending", told(put("document", "pending")), []string{"model.label.created"})
		same(t, "document verified", told(put("document", "verified")), []string{
			`model.user.updated {"level":2}`, "system.document.verified", `model.label.updated {"value":"pending"}`,
		})
		same(t, "document rejected", told(put("document", "rejected")), []string{
			`model.user.updated {"level":3}`, "system.document.rejected", `model.label.updated {"value":"verified"}`,
		})
		why := "blurred"
		same(t, "only the description", told(b.do(func(ctx context.Context, w *account.Unit) error {
			_, err := w.UpdateLabel(ctx, u, "document", "private", "rejected", &why)
			return err
		})), []string{`model.label.updated {"description":null}`})
		same(t, "public label", told(b.do(func(ctx context.Context, w *account.Unit) error {
			_, err := w.CreateLabel(ctx, u, "ban", "yes", "public", nil)
			return err
		})), []string{"model.label.created"})
		same(t, "email label deleted", told(b.do(func(ctx context.Context, w *account.Unit) error {
			return w.DeleteLabel(ctx, u, "email", "private")
		})), []string{`model.user.updated {"level":2,"state":"active"}`})
		same(t, "document label deleted", told(b.do(func(ctx context.Context, w *account.Unit) error {
			return w.DeleteLabel(ctx, u, "document", "private")
		})), []string{})
		same(t, "self-deletion", told(b.do(func(ctx context.Context, w *account.Unit) error {
			return w.DeleteAccount(ctx, u)
		})), []string{`model.user.updated {"state":"pending"}`, "model.label.created", "system.user.account.deleted"})
	})
}

// A labelModel is what labels mean, in its plainest form.
type labelModel struct {
	private, public map[string]string
	manual          string
}

func (m *labelModel) level() int {
	for i, key := range []string{"email", "phone", "document"} {
		if m.private[key] != "verified" {
			return i
		}
	}
	return 3
}

func (m *labelModel) state() string {
	if m.manual != "" {
		return m.manual
	}
	state := "pending"
	if m.private["email"] == "verified" {
		state = "active"
	}
	for _, t := range []struct{ state, keys string }{{"banned", "ban fraud"}, {"deleted", "delete"}, {"locked", "suspicious lock"}} {
		for key := range m.private {
			word := key
			if i := strings.IndexAny(key, "-_"); i >= 0 {
				word = key[:i]
			}
			if slices.Contains(strings.Fields(t.keys), word) {
				state = t.state
			}
		}
	}
	return state
}

// TestLevelAndStateFollowLabels holds level and state to a plain model over random changes of labels and states.
func TestLevelAndStateFollowLabels(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		n := 0
		rapid.Check(t, func(r *rapid.T) {
			n++
			u := b.user(fmt.Sprintf("%04d@example.com", n))
			m := &labelModel{private: map[string]string{}, public: map[string]string{}}
			keys := rapid.SampledFrom([]string{
				"email", "phone", "document", "ban", "ban-x", "bank", "lock_a", "lockdown", "delete", "suspicious", "note",
			})
			values := rapid.SampledFrom([]string{"verified", "pending", "rejected"})
			scopes := rapid.SampledFrom([]string{"private", "private", "public"})
			for range rapid.IntRange(1, 8).Draw(r, "steps") {
				key, value, scope := keys.Draw(r, "key"), values.Draw(r, "value"), scopes.Draw(r, "scope")
				labels := m.private
				if scope == "public" {
					labels = m.public
				}
				_, there := labels[key]
				step := rapid.SampledFrom([]string{"create", "update", "delete", "put", "state"}).Draw(r, "step")
				err := b.try(func(ctx context.Context, w *account.Unit) error {
					switch step {
					case "create":
						_, err := w.CreateLabel(ctx, u, key, value, scope, nil)
						return err
					case "update":
						_, err := w.UpdateLabel(ctx, u, key, scope, value, nil)
						return err
					case "delete":
						return w.DeleteLabel(ctx, u, key, scope)
					case "put":
						return w.PutLabel(ctx, u, key, value)
					}
					return w.SetState(ctx, u, []string{"active", "pending", "banned"}[len(value)%3])
				})
				switch step {
				case "create":
					if there != (err != nil) {
						r.Fatalf("create %s: %v, there %v", key, err, there)
					}
					if !there {
						labels[key] = value
					}
				case "update":
					if there != (err == nil) {
						r.Fatalf("update %s: %v, there %v", key, err, there)
					}
					if there {
						labels[key] = value
					}
				case "delete":
					if there != (err == nil) {
						r.Fatalf("delete %s: %v, there %v", key, err, there)
					}
					delete(labels, key)
				case "put":
					if err != nil {
						r.Fatalf("put %s: %v", key, err)
					}
					m.private[key] = value
				case "state":
					if err != nil {
						r.Fatalf("set state: %v", err)
					}
					m.manual = []string{"active", "pending", "banned"}[len(value)%3]
				}
				now := b.stored(u)
				if now.Level != m.level() || now.State != m.state() {
					r.Fatalf("after %s %s:%s %s: level %d state %s, want %d %s",
						step, key, value, scope, now.Level, now.State, m.level(), m.state())
				}
				if err == nil && (u.Level != now.Level || u.State != now.State || u.SessionEpoch != now.SessionEpoch) {
					r.Fatalf("the caller's user differs from the stored one: %+v, %+v", u, now)
				}
			}
		})
	})
}

// TestParallelLabels lets many writers of one account work at once: none of them may decide on what is no longer true.
func TestParallelLabels(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		for round := range 5 {
			u := b.user(fmt.Sprintf("%04d@example.com", round))
			var wg sync.WaitGroup
			for _, key := range []string{"document", "phone", "email", "note", "lock-a"} {
				wg.Go(func() {
					mine := *u
					if err := b.try(func(ctx context.Context, w *account.Unit) error {
						return w.PutLabel(ctx, &mine, key, "verified")
					}); err != nil {
						t.Errorf("put %s: %v", key, err)
					}
				})
			}
			wg.Wait()
			if now := b.stored(u); now.Level != 3 || now.State != "locked" {
				t.Fatalf("round %d: level %d state %s, want 3 locked", round, now.Level, now.State)
			}
		}
	})
}
