package account_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	"barong/internal/delivery/mail"
	"barong/internal/fault"
	"barong/internal/limit"
	"barong/session"
	"barong/session/near"

	"golang.org/x/crypto/bcrypt"
)

func TestValidEmail(t *testing.T) {
	for email, want := range map[string]bool{
		"a@b.io":                                true,
		"a@localhost":                           true,
		"first.last+tag@sub.example.com":        true,
		"o'hara_!#$%^&*{}/=?`|~@example.com":    true,
		"юзер@пример.рф":                        true,
		"u@उदाहरण.परीक्षा":                      true, // marks are part of words
		"u@例え.テスト":                              true,
		"u@xn--0.example":                       false, // no A-label
		"u@example.xn--0":                       false,
		"u@bü_cher.example":                     false,
		"u@" + strings.Repeat("ü", 63) + ".io":  false, // too long with its A-labels
		"u@ab\u202ec.example":                   false,
		strings.Repeat("a", 64) + "@b.io":       true,
		strings.Repeat("a", 65) + "@b.io":       false,
		"":                                      false,
		"a":                                     false,
		"@b.io":                                 false,
		"a@":                                    false,
		".a@b.io":                               false,
		"a.@b.io":                               false,
		"a..b@b.io":                             false,
		"a b@b.io":                              false,
		"a@b c.io":                              false,
		"a@-b.io":                               false,
		"a@b-.io":                               false,
		"a@b..io":                               false,
		"a@b.1o":                                false,
		"a@b.i-o":                               false,
		"a@[127.0.0.1]":                         false,
		"a@b@c.io":                              false,
		"a@b.io\nBcc: c@d.io":                   false,
		"a\x00@b.io":                            false,
		"a\xff@b.io":                            false,
		"字@b.io":                                false, // letters without case
		"a@" + strings.Repeat("b", 250) + ".io": false,
		"a@" + strings.Repeat("b.", 150) + "io": false,
		"a@b." + strings.Repeat("i", 64):        false,
		"a@" + strings.Repeat("b", 64) + ".io":  true,
		"\"quoted\"@b.io":                       true, // quotes are plain characters of an atom here
		"<a@b.io>":                              false,
		"a@b.io,c@d.io":                         false,
		"a@b.io.":                               false,
		"a@.b.io":                               false,
	} {
		if got := account.ValidEmail(email); got != want {
			t.Errorf("ValidEmail(%.40q): got %v, want %v", email, got, want)
		}
	}
}

const goodPassword = "Wm3#kdPq81zRo"

func (b *bench) signUp(in account.SignUp) (*db.User, session.ID, *session.Session, error) {
	if in.Password == "" {
		in.Password = goodPassword
	}
	return b.SignUp(b.t.Context(), browser, nil, in)
}

func TestSignUpRefusals(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		b.user("anna@example.com")
		long, scalar, bad := `"`+strings.Repeat("x", 1024)+`"`, "1", "{"
		huge := strings.Repeat("x", 1025)
		for _, c := range []struct {
			in   account.SignUp
			want []fault.Code
		}{
			{account.SignUp{Email: "anna@example.com"}, []fault.Code{"email.taken"}},
			{account.SignUp{Email: " ANNA@Example.Com "}, []fault.Code{"email.taken"}},
			{account.SignUp{Email: "anna"}, []fault.Code{"email.invalid"}},
			{account.SignUp{Email: "anna", Password: "Password1"}, []fault.Code{"email.invalid", "password.weak"}},
			{account.SignUp{Email: "new@b.io", Password: "simple"}, []fault.Code{"password.requirements"}},
			{
				account.SignUp{Email: "x", Password: strings.Repeat("aB3$", 25)},
				[]fault.Code{"password.too_long", "password.requirements", "email.invalid"},
			},
			{account.SignUp{Email: "x", Data: &bad, Password: "simple"}, []fault.Code{"data.invalid_format", "email.invalid", "password.requirements"}},
			{account.SignUp{Email: "new@b.io", Data: &long}, []fault.Code{"data.too_long"}},
			{account.SignUp{Email: "x", Data: &huge}, []fault.Code{"data.too_long", "data.invalid_format", "email.invalid"}},
			{account.SignUp{Email: "x", RefID: "XX0123456789"}, []fault.Code{"identity.user.invalid_referral_format"}},
			{account.SignUp{Email: "new@b.io", RefID: "id0123456789"}, []fault.Code{"identity.user.invalid_referral_format"}},
			{account.SignUp{Email: "new@b.io", RefID: "ID0123456789"}, []fault.Code{"identity.user.referral_doesnt_exist"}},
		} {
			_, _, _, err := b.signUp(c.in)
			same(t, c.in.Email, codes(err), c.want)
		}
		_, _, _, err := b.signUp(account.SignUp{Email: "scalar@b.io", Data: &scalar})
		must(t, err)
		if n, err := b.DB.CountUsers(t.Context()); err != nil || n != 2 {
			t.Errorf("%d users, %v", n, err)
		}
	})
}

func TestSignUp(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		referrer := b.user("otto@example.com")
		data := `{"language":"ru"}`
		u, id, opened, err := b.signUp(account.SignUp{Email: " Anna@Example.com", RefID: referrer.UID, Lang: "de", Data: &data})
		must(t, err)
		if u.Email != "anna@example.com" || u.Role != "member" || u.State != "pending" || len(u.UID) != 12 || *u.ReferralID != referrer.ID {
			t.Errorf("user: %+v", u)
		}
		if opened.Key != id.Key() || len(opened.CSRF) != 20 || !b.live(opened) || opened.IP != browser.IP {
			t.Errorf("session: %+v", opened)
		}
		events := b.takeEvents()
		same(t, "events", names(events), []string{"model.user.created", "system.user.email.confirmation.token"})
		if member(t, events[0].Record, "referral_uid") != referrer.UID {
			t.Errorf("record: %s", events[0].Record)
		}
		if member(t, events[1].Record, "language") != "DE" || member(t, events[1].Record, "domain") != "exchange.example" {
			t.Errorf("record: %s", events[1].Record)
		}
		token := member(t, events[1].Record, "token").(string)
		claims, err := b.ring.Verify(token, keys.Expect{Subject: "confirmation", Issuer: "barong", Audience: []string{"barong"}})
		must(t, err)
		if claims.UID != u.UID || claims.Email != u.Email || len(claims.ID) != 20 || claims.ResetToken != "" ||
			!claims.ExpiresAt.Equal(b.clock().Add(time.Hour)) {
			t.Errorf("claims: %+v", claims)
		}
		letters := b.letters()
		if len(letters) != 1 || letters[0].Kind != "user.email.confirmation.token" || letters[0].To != u.Email ||
			!strings.Contains(letters[0].Text, "https://exchange.example/accounts/confirmation?confirmation_token="+token+"&lang=ru") {
			t.Errorf("letters: %+v", letters)
		}
		rows, n, err := b.DB.Activities(t.Context(), db.ActivityFilter{UserID: u.ID}, db.Page{Number: 1, Size: 10})
		must(t, err)
		if n != 1 || rows[0].Topic != "account" || rows[0].Action != "signup" || rows[0].Result != "succeed" ||
			rows[0].UserIP != "192.0.2.7" || rows[0].Data != nil || rows[0].Category != "user" {
			t.Errorf("activities: %+v", rows)
		}
	})
}

// letters are the queued mails, oldest first; they are taken off the queue.
func (b *bench) letters() []mail.Message {
	b.t.Helper()
	items, err := b.DB.LeaseOutbox(b.t.Context(), "mail", 100, time.Minute, false)
	must(b.t, err)
	var out []mail.Message
	for _, item := range items {
		var l mail.Message
		must(b.t, json.Unmarshal(item.Payload, &l))
		out = append(out, l)
		must(b.t, b.DB.DeleteOutbox(b.t.Context(), item))
	}
	return out
}

// TestParallelSignUp lets one address sign up many times at once.
func TestParallelSignUp(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		made := 0
		for range 4 {
			wg.Go(func() {
				_, _, _, err := b.signUp(account.SignUp{Email: "anna@example.com"})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					made++
				} else if !fault.As(err).Has("email.taken") {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if made != 1 {
			t.Fatalf("%d accounts of one address", made)
		}
		u, err := b.DB.UserByEmail(t.Context(), "anna@example.com")
		must(t, err)
		sessions, err := b.ListSessions(t.Context(), u)
		must(t, err)
		if len(sessions) != 1 {
			t.Errorf("%d sessions", len(sessions))
		}
	})
}

func TestMailTokens(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u := b.user("anna@example.com")
		issue := func(kind account.TokenKind) keys.Claims {
			events := b.do(func(ctx context.Context, w *account.Unit) error { return w.IssueMailToken(ctx, u, kind, "") })
			if member(t, events[0].Record, "language") != "EN" {
				t.Errorf("record: %s", events[0].Record)
			}
			claims, err := b.ring.Verify(member(t, events[0].Record, "token").(string), keys.Expect{Subject: string(kind)})
			must(t, err)
			return claims
		}
		use := func(c keys.Claims, kind account.TokenKind) bool {
			used := false
			must(t, b.try(func(ctx context.Context, w *account.Unit) (err error) {
				used, err = w.UseMailToken(ctx, c.ID, u.ID, string(kind))
				return err
			}))
			return used
		}
		first, again, reset := issue(account.Confirmation), issue(account.Confirmation), issue(account.Reset)
		if again.ID != first.ID || again.ExpiresAt != first.ExpiresAt {
			t.Error("who asks again is sent another token, not the one that lives")
		}
		if len(reset.ResetToken) != 20 {
			t.Errorf("reset token: %+v", reset)
		}
		// Of what has little time left another is sent, which ends nothing either.
		b.advance(51 * time.Minute)
		second := issue(account.Confirmation)
		if second.ID == first.ID || issue(account.Confirmation).ID != second.ID {
			t.Error("a token is sent that ends before the mail is read")
		}
		for _, c := range []struct {
			what  string
			token keys.Claims
			kind  account.TokenKind
			want  bool
		}{
			{"a reset token as confirmation", reset, account.Confirmation, false},
			{"the older one", first, account.Confirmation, true},
			{"again", first, account.Confirmation, false},
			{"the other one", second, account.Confirmation, false},
			{"the reset token", reset, account.Reset, true},
		} {
			if got := use(c.token, c.kind); got != c.want {
				t.Errorf("%s: usable %v, want %v", c.what, got, c.want)
			}
		}
		if issue(account.Reset).ID == reset.ID {
			t.Error("a spent token is sent again")
		}
	})
}

func TestSignInAndOut(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u, _, first, err := b.signUp(account.SignUp{Email: "anna@example.com"})
		must(t, err)
		b.do(func(ctx context.Context, w *account.Unit) error { return w.PutLabel(ctx, u, "email", "verified") })
		b.takeEvents()
		b.letters()
		odd := account.Client{IP: browser.IP, UserAgent: "curl/8\x00\xff" + strings.Repeat("x", 2000)}
		id, opened, err := b.SignIn(t.Context(), odd, nil, u)
		must(t, err)
		if id.Key() == first.Key || opened.CSRF == first.CSRF || len(opened.UserAgent) != session.MaxUserAgent {
			t.Error("the session is not a new one")
		}
		for what, s := range map[string]*session.Session{"sign-up": first, "sign-in": opened} {
			if s.Methods != session.Password || !s.AuthTime.Equal(s.CreatedAt) {
				t.Errorf("the session of a %s began by %q at %v", what, s.Methods, s.AuthTime)
			}
		}
		events := b.takeEvents()
		same(t, "events", names(events), []string{"system.session.create"})
		if member(t, events[0].Record, "user_ip") != "192.0.2.7" {
			t.Errorf("record: %s", events[0].Record)
		}
		if l := b.letters(); len(l) != 1 || l[0].Kind != "session.create" || !strings.Contains(l[0].Text, "192.0.2.7") {
			t.Errorf("letters: %+v", l)
		}
		found, who, err := b.Current(t.Context(), id)
		must(t, err)
		if found.Key != opened.Key || who.ID != u.ID {
			t.Error("Current found another session")
		}
		// The same browser signs in again: its old session ends, others stay.
		again, third, err := b.SignIn(t.Context(), browser, []session.ID{id}, u)
		must(t, err)
		if b.live(opened) || !b.live(first) || !b.live(third) {
			t.Errorf("after a second sign-in: old %v, other %v, new %v", b.live(opened), b.live(first), b.live(third))
		}
		must(t, b.SignOut(t.Context(), browser, u, third))
		for _, unknown := range []session.ID{{}, again} {
			if _, _, err := b.Current(t.Context(), unknown); !errors.Is(err, session.ErrNotFound) {
				t.Errorf("Current(%v): %v", unknown, err)
			}
		}
		if err := b.SignOut(t.Context(), browser, u, third); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("signed out twice: %v", err)
		}
		var got []string
		rows, _, err := b.DB.Activities(t.Context(), db.ActivityFilter{UserID: u.ID}, db.Page{Number: 1, Size: 10})
		must(t, err)
		for _, a := range rows {
			got = append(got, a.Action)
		}
		same(t, "activities, newest first", got, []string{"logout", "login", "login", "signup"})
		if note := rows[2].Data; note == nil || *note != `{"note":"Detected suspicious browser"}` || len(rows[2].UserAgent) > session.MaxUserAgent {
			t.Errorf("activity of an odd browser: %+v", rows[2])
		}
		withCode := *u
		withCode.OTP = true
		_, second, err := b.SignIn(t.Context(), odd, nil, &withCode)
		must(t, err)
		if stored, err := b.Sessions.Get(t.Context(), second.Key, b.clock()); err != nil || stored.Methods != session.Password|session.Code {
			t.Errorf("the session of a sign-in with a code: %+v, %v", stored, err)
		}
		b.do(func(ctx context.Context, w *account.Unit) error { return w.SetState(ctx, u, "banned") })
		if _, _, err := b.Current(t.Context()); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("no cookie: %v", err)
		}
	})
}

// Of several sessions that one browser names the newest live one of one user counts, and none of different users.
func TestCurrentOfSeveral(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		anna, otto := b.user("anna@example.com"), b.user("otto@example.com")
		nothing := func(context.Context, *account.Unit) error { return nil }
		open := func(u *db.User) (session.ID, *session.Session) {
			id, s, err := b.OpenSession(t.Context(), browser, nil, u.UID, b.stored(u).Epoch(), session.Password, nothing)
			must(t, err)
			b.advance(time.Second)
			return id, s
		}
		older, _ := open(anna)
		newer, newest := open(anna)
		dead, ended := open(anna)
		others, _ := open(otto)
		must(t, b.SignOut(t.Context(), browser, anna, ended))
		for name, ids := range map[string][]session.ID{
			"newest first": {newer, older}, "newest last": {older, newer}, "with unknown ones": {{}, older, {1}, newer}, "with a dead one": {dead, newer},
		} {
			found, who, err := b.Current(t.Context(), ids...)
			if err != nil || found.Key != newest.Key || who.ID != anna.ID {
				t.Errorf("%s: %v, %v, %v", name, found, who, err)
			}
		}
		for name, ids := range map[string][]session.ID{"two users": {newer, others}, "one between": {older, others, newer}, "dead": {dead}} {
			if _, _, err := b.Current(t.Context(), ids...); !errors.Is(err, session.ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
		}
		must(t, b.SignOut(t.Context(), browser, anna, newest, older, newer, others))
		if _, _, err := b.Current(t.Context(), older, newer); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("signed out: %v", err)
		}
		if _, _, err := b.Current(t.Context(), others); err != nil {
			t.Errorf("another user's session: %v", err)
		}
	})
}

// TestSignInLosesToBan: an account that was closed, or whose password was changed, between proof and session gets none.
func TestSignInLosesToBan(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		for i, c := range []func(ctx context.Context, w *account.Unit, u *db.User) error{
			func(ctx context.Context, w *account.Unit, u *db.User) error { return w.SetState(ctx, u, "banned") },
			func(ctx context.Context, w *account.Unit, u *db.User) error { return w.SetPassword(ctx, u, "new", nil) },
		} {
			u := b.user(string(rune('a'+i)) + "nna@example.com")
			proved, changed := *u, *u
			b.do(func(ctx context.Context, w *account.Unit) error { return c(ctx, w, &changed) })
			_, _, err := b.SignIn(t.Context(), browser, nil, &proved)
			same(t, "sign-in", codes(err), []fault.Code{"identity.session.not_active"})
			left, err := b.store.List(t.Context(), u.UID, b.clock())
			must(t, err)
			if len(left) != 0 {
				t.Errorf("%d sessions left", len(left))
			}
		}
	})
}

func TestFailedUnitOpensNoSession(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u := b.user("anna@example.com")
		old := b.open(u)
		boom := errors.New("boom")
		_, _, err := b.OpenSession(t.Context(), browser, nil, u.UID, u.SessionEpoch, session.Password,
			func(context.Context, *account.Unit) error { return boom })
		if !errors.Is(err, boom) {
			t.Fatalf("got %v", err)
		}
		func() {
			defer func() { _ = recover() }()
			_, _, _ = b.OpenSession(t.Context(), browser, nil, u.UID, u.SessionEpoch, session.Password,
				func(context.Context, *account.Unit) error { panic("boom") })
		}()
		left, err := b.ListSessions(t.Context(), u)
		must(t, err)
		if len(left) != 1 || left[0].Key != old.Key {
			t.Errorf("sessions left: %d", len(left))
		}
	})
}

func TestEndOwn(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u, other := b.user("anna@example.com"), b.user("otto@example.com")
		mine, foreign := b.open(u), b.open(other)
		if err := b.EndOwn(t.Context(), u, foreign.Key); !errors.Is(err, session.ErrNotFound) || !b.live(foreign) {
			t.Errorf("ended somebody else's session: %v", err)
		}
		must(t, b.EndOwn(t.Context(), u, mine.Key))
		if b.live(mine) {
			t.Error("the session lives")
		}
	})
}

// A store that comes back with older data revives nothing: what ended, alone or with others, stays ended. What did not
// end lives on.
func TestWhatWasEndedStaysEnded(t *testing.T) {
	nothing := func(context.Context, *account.Unit) error { return nil }
	for _, c := range []struct {
		how  string
		end  func(b *bench, u *db.User, s *session.Session, id session.ID) error
		keep bool // the user's other session lives on
	}{
		{"signed out", func(b *bench, u *db.User, s *session.Session, _ session.ID) error {
			return b.SignOut(b.t.Context(), browser, u, s)
		}, true},
		{"ended from another", func(b *bench, u *db.User, s *session.Session, _ session.ID) error {
			return b.EndOwn(b.t.Context(), u, s.Key)
		}, true},
		{"replaced", func(b *bench, u *db.User, _ *session.Session, id session.ID) error {
			_, _, err := b.OpenSession(b.t.Context(), browser, []session.ID{id}, u.UID, b.stored(u).Epoch(), session.Password, nothing)
			return err
		}, true},
		{"replaced by another user's", func(b *bench, u *db.User, _ *session.Session, id session.ID) error {
			otto := b.user("otto@example.com")
			_, _, err := b.OpenSession(b.t.Context(), browser, []session.ID{id}, otto.UID, b.stored(otto).Epoch(), session.Password, nothing)
			return err
		}, true},
		{"with all of the user", func(b *bench, u *db.User, _ *session.Session, _ session.ID) error {
			return b.try(func(ctx context.Context, w *account.Unit) error { return w.EndSessions(ctx, u, nil) })
		}, false},
		{"with everybody's", func(b *bench, _ *db.User, _ *session.Session, _ session.ID) error {
			return b.EndEverybody(b.t.Context())
		}, false},
	} {
		t.Run(c.how, func(t *testing.T) {
			engines(t, func(t *testing.T, b *bench) {
				u := b.user("anna@example.com")
				id, ended, err := b.OpenSession(t.Context(), browser, nil, u.UID, b.stored(u).Epoch(), session.Password, nothing)
				must(t, err)
				other := b.open(u)
				must(t, c.end(b, u, ended, id))
				for _, s := range []*session.Session{ended, other} {
					if err := b.store.Create(t.Context(), s); err != nil && !errors.As(err, new(*db.ErrTaken)) {
						t.Fatal(err)
					}
				}
				now := b.stored(u)
				if _, _, err := b.Current(t.Context(), id); !errors.Is(err, session.ErrNotFound) {
					t.Errorf("the ended session: %v", err)
				}
				if err := b.EndOwn(t.Context(), now, ended.Key); !errors.Is(err, session.ErrNotFound) {
					t.Errorf("ended twice: %v", err)
				}
				cache := near.New(near.Options{Store: b.store, Principals: b.DB, APIKeys: b.DB, Now: b.clock})
				defer cache.Close()
				if _, err := cache.Session(t.Context(), ended.Key, b.clock()); !errors.Is(err, session.ErrNotFound) {
					t.Errorf("the ended session passes: %v", err)
				}
				list, err := b.ListSessions(t.Context(), now)
				must(t, err)
				_, err = cache.Session(t.Context(), other.Key, b.clock())
				lives := err == nil && slices.ContainsFunc(list, func(s *session.Session) bool { return s.Key == other.Key })
				if lives != c.keep || slices.ContainsFunc(list, func(s *session.Session) bool { return s.Key == ended.Key }) {
					t.Errorf("the other session lives: %v (%v), %d listed", lives, err, len(list))
				}
				// The record goes when the session could not live any longer.
				must(t, b.DB.PurgeEndedSessions(t.Context(), b.clock().Add(b.SessionMaxAge), 100))
				if got := b.stored(u).Principal(); got.HasEnded(ended.Key) != c.keep {
					t.Errorf("at the end of its life: %+v", got)
				}
				must(t, b.DB.PurgeEndedSessions(t.Context(), b.clock().Add(b.SessionMaxAge+2*time.Hour), 100))
				if got := b.stored(u).Principal(); got.Ended != "" {
					t.Errorf("long after: %+v", got)
				}
				b.open(u)
			})
		})
	}
}

// failing is a session store that does not delete.
type failing struct{ session.Store }

func (failing) Delete(context.Context, session.Key) error {
	return errors.New("OOM command not allowed")
}

// Signing out works as long as the database or the session store takes it.
func TestSignOutOfStoresThatFail(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u := b.user("anna@example.com")
		one, two := b.open(u), b.open(u)
		b.Sessions = failing{b.store}
		must(t, b.SignOut(t.Context(), browser, u, one))
		if list, err := b.ListSessions(t.Context(), b.stored(u)); err != nil || len(list) != 1 || list[0].Key != two.Key {
			t.Errorf("sessions left: %v, %v", list, err)
		}
		b.Sessions = b.store
		_, err := b.DB.Bun().ExecContext(t.Context(), "ALTER TABLE ended_sessions RENAME TO ended_elsewhere")
		must(t, err)
		must(t, b.SignOut(t.Context(), browser, u, two))
		if _, err := b.store.Get(t.Context(), two.Key, b.clock()); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("the session: %v", err)
		}
		if err := b.SignOut(t.Context(), browser, u, two); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("once more: %v", err)
		}
	})
}

// A user who has ended very many sessions one by one starts anew: the record does not grow without bound.
func TestEndedSessionsFold(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u := b.user("anna@example.com")
		must(t, b.DB.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			for range 1000 {
				s := &session.Session{Key: session.NewID().Key(), UID: u.UID, EndsAt: b.clock().Add(time.Hour)}
				if err := tx.EndSession(ctx, s); err != nil {
					return err
				}
			}
			return nil
		}))
		nothing := func(context.Context, *account.Unit) error { return nil }
		id, _, err := b.OpenSession(t.Context(), browser, nil, u.UID, b.stored(u).Epoch(), session.Password, nothing)
		must(t, err)
		_, next, err := b.OpenSession(t.Context(), browser, []session.ID{id}, u.UID, b.stored(u).Epoch(), session.Password, nothing)
		must(t, err)
		list, err := b.ListSessions(t.Context(), b.stored(u))
		must(t, err)
		if len(list) != 1 || list[0].Key != next.Key || b.stored(u).Principal().Ended != "" {
			t.Errorf("%d sessions, %d digits on record", len(list), len(b.stored(u).Principal().Ended))
		}
	})
}

func TestPasswords(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u, _, _, err := b.signUp(account.SignUp{Email: "anna@example.com"})
		must(t, err)
		check := func(u *db.User, password string, want bool) {
			t.Helper()
			got, err := b.VerifyPassword(t.Context(), u, password)
			if err != nil || got != want {
				t.Errorf("VerifyPassword(%q): %v, %v", password, got, err)
			}
		}
		check(u, goodPassword, true)
		check(u, goodPassword+"x", false)
		check(u, "", false)
		check(nil, goodPassword, false)
		old, err := bcrypt.GenerateFromPassword([]byte(goodPassword), bcrypt.MinCost)
		must(t, err)
		b.do(func(ctx context.Context, w *account.Unit) error { return w.SetPassword(ctx, u, string(old), nil) })
		mine := b.open(u)
		check(u, goodPassword+"x", false)
		if b.stored(u).PasswordDigest != string(old) {
			t.Error("a wrong password made a new digest")
		}
		check(u, goodPassword, true)
		if d := b.stored(u).PasswordDigest; !strings.HasPrefix(d, "$argon2id$") || u.PasswordDigest != d {
			t.Errorf("digest after a sign-in: %s", d)
		}
		if !b.live(mine) {
			t.Error("a new digest of the same password ended the sessions")
		}
		check(u, goodPassword, true)
		_, err = b.HashPassword(t.Context(), "Password1")
		same(t, "weak", codes(err), []fault.Code{"password.weak"})
	})
}

func TestPasswordTries(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		ctx := t.Context()
		at := netip.MustParseAddr
		guess := func(email, ip string) error { return b.PasswordTries(email, at(ip)).Begin(ctx) }
		right := func(email, ip string) {
			t.Helper()
			tries := b.PasswordTries(email, at(ip))
			must(t, tries.Begin(ctx))
			must(t, tries.Right(ctx))
		}
		refused := func(what, email, ip string) {
			t.Helper()
			same(t, what, codes(guess(email, ip)), []fault.Code{fault.TooMany})
		}
		// Twenty for an account and a network: neighbours and spellings count as one, others do not count.
		for i := range 20 {
			ip := fmt.Sprintf("2001:db8:0:%x::1", i)
			if err := guess([]string{"anna@example.com", " ANNA@example.com"}[i%2], ip); err != nil {
				t.Fatalf("guess %d: %v", i, err)
			}
		}
		refused("the pair", "Anna@example.com", "2001:db8:0:ff::1")
		for range 30 {
			right("anna@example.com", "2001:db8:0:100::1")
			right("anna@example.com", "192.0.2.1")
			right("otto@example.com", "2001:db8:0:ff::1")
		}
		for i := range 20 {
			must(t, guess("anna@example.com", fmt.Sprintf("192.0.2.%d", i)))
		}
		refused("the pair", "anna@example.com", "192.0.2.99")
		must(t, guess("anna@example.com", "192.0.3.1"))

		// A right password forgives the pair.
		for range 3 {
			for range 19 {
				must(t, guess("mary@example.com", "198.51.100.1"))
			}
			right("mary@example.com", "198.51.100.1")
			b.advance(15 * time.Minute)
		}

		// Thirty for a client, whatever the accounts; what is right, or could not be looked at, counts for nothing.
		for i := range 30 {
			right("ella@example.com", "203.0.113.1")
			undecided := b.PasswordTries("ella@example.com", at("203.0.113.1"))
			must(t, undecided.Begin(ctx))
			undecided.Undecided(ctx)
			must(t, guess(fmt.Sprintf("user%d@example.com", i/2), "203.0.113.1"))
		}
		refused("the client", "ella@example.com", "203.0.113.1")
		right("ella@example.com", "203.0.113.2")
		b.advance(15 * time.Minute)
		must(t, guess("ella@example.com", "203.0.113.1"))
	})
}

// TestStrangersCannotLockOut holds that what is guessed from everywhere refuses new networks, and never the owner's.
func TestStrangersCannotLockOut(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		ctx := t.Context()
		u, _, _, err := b.signUp(account.SignUp{Email: "anna@example.com"})
		must(t, err)
		home := browser.IP
		office := account.Client{IP: netip.MustParseAddr("198.51.100.7"), UserAgent: browser.UserAgent}
		_, _, err = b.SignIn(ctx, office, nil, u)
		must(t, err)
		guess := func(email string, ip netip.Addr) error { return b.PasswordTries(email, ip).Begin(ctx) }
		for i, email := range []string{u.Email, "nobody@example.com"} {
			var group sync.WaitGroup
			for range 4 {
				group.Go(func() {
					for range 49 + i { // the first account's last four are guesses
						if _, err := limit.WrongPasswordAccount.Take(ctx, b.Limits, email); err != nil {
							t.Error(err)
						}
					}
				})
			}
			group.Wait()
			for n := range 4 - 4*i {
				must(t, guess(email, netip.AddrFrom4([4]byte{10, byte(n), 0, 1})))
			}
			same(t, "a new network", codes(guess(email, netip.MustParseAddr("203.0.113.9"))), []fault.Code{fault.TooMany})
		}
		// The owner's networks go on, each with its own twenty, and a sign-in there gives strangers nothing.
		for _, ip := range []netip.Addr{home, office.IP, netip.MustParseAddr("198.51.100.200")} {
			tries := b.PasswordTries(u.Email, ip)
			must(t, tries.Begin(ctx))
			must(t, tries.Right(ctx))
		}
		same(t, "a new network", codes(guess(u.Email, netip.MustParseAddr("203.0.113.9"))), []fault.Code{fault.TooMany})
		for range 20 {
			must(t, guess(u.Email, home))
		}
		same(t, "the pair", codes(guess(u.Email, home)), []fault.Code{fault.TooMany})
		// Nobody else's networks help.
		same(t, "nobody's", codes(guess("nobody@example.com", home)), []fault.Code{fault.TooMany})
		b.advance(15 * time.Minute)
		must(t, guess(u.Email, netip.MustParseAddr("203.0.113.9")))
	})
}

// TestFiftySessions holds that a user's oldest session ends when there are too many, on every replica.
func TestFiftySessions(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u, other := b.user("anna@example.com"), b.user("otto@example.com")
		theirs := b.open(other)
		var keys []session.Key
		for range 52 {
			keys = append(keys, b.open(u).Key)
			b.advance(time.Second)
		}
		live, err := b.ListSessions(t.Context(), u)
		must(t, err)
		if len(live) != 50 || live[0].Key != keys[51] || live[49].Key != keys[2] {
			t.Errorf("%d sessions live", len(live))
		}
		told := b.takeNotices()
		for _, key := range keys[:2] {
			if !slices.Contains(told, bus.Notice{Kind: bus.SessionGone, Subject: key.String()}) {
				t.Error("the caches were not told")
			}
		}
		if !b.live(theirs) {
			t.Error("another user's session has ended")
		}
	})
}

func TestSignInLimit(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u, other := b.user("anna@example.com"), b.user("otto@example.com")
		for range limit.SignIn.Max {
			_, _, err := b.SignIn(t.Context(), browser, nil, u)
			must(t, err)
		}
		_, _, err := b.SignIn(t.Context(), browser, nil, u)
		same(t, "one too many", codes(err), []fault.Code{fault.TooMany})
		_, _, err = b.SignIn(t.Context(), browser, nil, other)
		must(t, err)
		b.advance(limit.SignIn.Window)
		_, _, err = b.SignIn(t.Context(), browser, nil, u)
		must(t, err)
	})
}
