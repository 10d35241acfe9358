package account_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"barong/api/account"
	"barong/db"
	"barong/internal/fault"
)

func text(s string) *string { return &s }

func TestProfileRules(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u := b.user("anna@example.com")
		create := func(p db.Profile) error {
			p.State = db.ProfileVerified // of which one can have many
			return b.try(func(ctx context.Context, w *account.Unit) error { return w.CreateProfile(ctx, u, &p) })
		}
		for _, c := range []struct {
			what string
			p    db.Profile
			want []fault.Code
		}{
			{"empty", db.Profile{}, nil},
			{"blank fields", db.Profile{FirstName: text(""), DOB: text(""), Postcode: text(" "), Country: text("")}, nil},
			{"full", db.Profile{
				FirstName: text("  Anna   Maria "), LastName: text("O'Hara-Smith"), DOB: text("1990-02-28"),
				Address: text(`28/2 Kevin Brook; "A" & (B): #1, c\d~e.`), Postcode: text("AB1 2CD"), City: text("St. Petersburg–2~'x"),
				Country: text("ukr"), Metadata: text(`{"a":1}`),
			}, nil},
			{"other scripts", db.Profile{FirstName: text("Ганна"), LastName: text("नेहा"), City: text("東京"), Country: text("ua")}, nil},
			{"everything wrong", db.Profile{
				FirstName: text("$$"), LastName: text("$$"), City: text("**"), Country: text("zzz"), Postcode: text("1"),
				Address: text("**"), Metadata: text("x"),
			}, []fault.Code{
				"first_name.invalid", "last_name.invalid", "city.invalid", "country.must have alpha2 or alpha3 format",
				"postcode.too_short", "address.invalid", "metadata.invalid_format",
			}},
			{
				"long",
				db.Profile{FirstName: text(strings.Repeat("ж", 256)), Address: text(strings.Repeat("x", 256))},
				[]fault.Code{"first_name.too_long", "address.too_long"},
			},
			{"255 letters", db.Profile{FirstName: text(strings.Repeat("ж", 255))}, nil},
			{"dot in a name", db.Profile{FirstName: text("J. R."), LastName: text("Smith Sr.")}, nil},
			{"dots between words", db.Profile{FirstName: text("太郎"), LastName: text("山田・太郎")}, nil},
			{"other dots between words", db.Profile{FirstName: text("迪丽热巴·迪力木拉提"), LastName: text("ﾔﾏﾀﾞ･ﾀﾛｳ")}, nil},
			{"apostrophes of keyboards", db.Profile{
				FirstName: text("D’Arcy"), LastName: text("O’Neill"), City: text("L‘Aquila"), Address: text("1  O’Connell ＇St"),
			}, nil},
			{"joiners", db.Profile{FirstName: text("می\u200cرا"), LastName: text("ක්\u200dෂ"), City: text("نجف\u200cآباد"), Address: text("نجف\u200cآباد")}, nil},
			{"joiners that join nothing", db.Profile{FirstName: text("\u200cAnna\u200d \u200d Maria\u200c"), LastName: text("\u200d")}, nil},
			{"what is no name", db.Profile{FirstName: text("Anna\u200b"), LastName: text("a/b")}, []fault.Code{"first_name.invalid", "last_name.invalid"}},
			{"an address in a name", db.Profile{FirstName: text("https://x.example"), LastName: text("x@example.com")}, []fault.Code{"first_name.invalid", "last_name.invalid"}},
			{"dots between words elsewhere", db.Profile{City: text("山・田"), Postcode: text("1.2")}, []fault.Code{"city.invalid", "postcode.invalid"}},
			{"no date", db.Profile{DOB: text("1990-02-30")}, []fault.Code{"dob.invalid"}},
			{"future", db.Profile{DOB: text("2026-03-03")}, []fault.Code{"dob.invalid"}},
			{"tomorrow, for those east of us", db.Profile{DOB: text("2026-03-02")}, nil},
			{"no country", db.Profile{Country: text("XX")}, []fault.Code{"country.must have alpha2 or alpha3 format"}},
			{"empty metadata", db.Profile{Metadata: text("")}, []fault.Code{"metadata.invalid_format"}},
			{"long metadata", db.Profile{Metadata: text(`"` + strings.Repeat("x", 65535) + `"`)}, []fault.Code{"metadata.too_long"}},
		} {
			same(t, c.what, codes(create(c.p)), c.want)
		}
		stored, err := b.DB.Profiles(t.Context(), u.ID)
		must(t, err)
		if *stored[2].FirstName != "Anna Maria" || stored[1].DOB != nil || *stored[1].FirstName != "" {
			t.Errorf("stored: %q, %v", *stored[2].FirstName, stored[1].DOB)
		}
		has := func(p db.Profile) bool {
			return slices.ContainsFunc(stored, func(s db.Profile) bool {
				return s.LastName != nil && s.FirstName != nil && *s.FirstName == *p.FirstName && *s.LastName == *p.LastName &&
					(p.City == nil || *p.City == *s.City && *p.Address == *s.Address)
			})
		}
		for _, want := range []db.Profile{
			{FirstName: text("D'Arcy"), LastName: text("O'Neill"), City: text("L'Aquila"), Address: text("1  O'Connell 'St")},
			{FirstName: text("می\u200cرا"), LastName: text("ක්\u200dෂ")},
			{FirstName: text("Anna Maria"), LastName: text("")},
		} {
			if !has(want) {
				t.Errorf("%s %s is not stored", *want.FirstName, *want.LastName)
			}
		}
	})
}

func TestProfileLife(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u := b.user("anna@example.com")
		for _, key := range []string{"email", "phone", "document"} {
			b.do(func(ctx context.Context, w *account.Unit) error { return w.PutLabel(ctx, u, key, "verified") })
		}
		label := func(key string) string {
			t.Helper()
			l, err := b.DB.Label(t.Context(), u.ID, key, "private")
			if err != nil {
				return "none"
			}
			return l.Value
		}
		create := func(state int) func(ctx context.Context, w *account.Unit) error {
			return func(ctx context.Context, w *account.Unit) error {
				return w.CreateProfile(ctx, u, &db.Profile{FirstName: text("Anna"), State: state})
			}
		}
		update := func(change func(p *db.Profile)) func(ctx context.Context, w *account.Unit) error {
			return func(ctx context.Context, w *account.Unit) error {
				if err := w.Lock(ctx, u); err != nil {
					return err
				}
				before, err := w.ProfileIn(ctx, u.ID, db.ProfileDrafted, db.ProfileSubmitted)
				if err != nil {
					return err
				}
				after := *before
				change(&after)
				return w.UpdateProfile(ctx, u, before, &after)
			}
		}
		// The owner's own public label of that name is left alone.
		b.do(func(ctx context.Context, w *account.Unit) error {
			_, err := w.CreateLabel(ctx, u, "profile", "mine", "public", nil)
			return err
		})
		same(t, "draft", told(b.do(create(db.ProfileDrafted))), []string{
			"model.label.created", `model.user.updated {"level":3}`, `model.label.updated {"value":"verified"}`, "model.profile.created",
		})
		if label("profile") != "drafted" || label("document") != "replaced" {
			t.Errorf("after a draft: profile %s, document %s", label("profile"), label("document"))
		}
		b.do(func(ctx context.Context, w *account.Unit) error { return w.PutLabel(ctx, u, "document", "verified") })
		err := b.try(create(db.ProfileDrafted))
		same(t, "a second draft", codes(err), []fault.Code{"state.exists"})
		if fault.As(err).Status != 409 {
			t.Errorf("a second draft: status %d", fault.As(err).Status)
		}
		err = b.try(func(ctx context.Context, w *account.Unit) error {
			return w.CreateProfile(ctx, u, &db.Profile{City: text("*"), State: db.ProfileSubmitted})
		})
		same(t, "a bad second draft", codes(err), []fault.Code{"city.invalid", "state.exists"})
		same(t, "nothing changed", told(b.do(update(func(*db.Profile) {}))), []string{})
		same(t, "metadata", told(b.do(update(func(p *db.Profile) { p.Metadata = text("[1]") }))), []string{`model.profile.updated {"metadata":null}`})
		if label("document") != "verified" {
			t.Error("metadata took back the verification")
		}
		same(t, "submitted", told(b.do(update(func(p *db.Profile) { p.FirstName, p.State = text("Annette"), db.ProfileSubmitted }))),
			[]string{
				`model.label.updated {"value":"drafted"}`,
				`model.user.updated {"level":3}`, `model.label.updated {"value":"verified"}`,
				`model.profile.updated {"first_name":"Anna","state":"drafted"}`,
			})
		if label("profile") != "submitted" || label("document") != "replaced" || b.stored(u).Level != 2 {
			t.Errorf("after submission: profile %s, document %s", label("profile"), label("document"))
		}
		b.do(func(ctx context.Context, w *account.Unit) error { return w.PutLabel(ctx, u, "document", "verified") })
		b.letters()
		b.do(update(func(p *db.Profile) { p.State = db.ProfileVerified }))
		if label("profile") != "verified" || label("document") != "verified" || b.stored(u).Level != 3 {
			t.Errorf("after verification: profile %s, document %s", label("profile"), label("document"))
		}
		if l := b.letters(); len(l) != 1 || l[0].Kind != "profile.verified" {
			t.Errorf("letters: %+v", l)
		}
		if l, err := b.DB.Label(t.Context(), u.ID, "profile", "public"); err != nil || l.Value != "mine" {
			t.Errorf("the owner's label: %+v, %v", l, err)
		}
	})
}

// TestRecords holds the records of the remaining events to their exact form.
func TestRecords(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u := b.user("anna@example.com")
		const who = `{"uid":"IDANNA","email":"anna@example.com","role":"member","level":0,"otp":false,"state":"pending",` +
			`"referral_uid":null,"created_at":"2026-03-01T12:00:00Z","updated_at":"2026-03-01T12:00:00Z"}`
		const times = `"created_at":"2026-03-01T12:00:00Z","updated_at":"2026-03-01T12:00:00Z"`
		now := b.DB.Now()
		for _, c := range []struct {
			name, want string
			tell       func(ctx context.Context, w *account.Unit) error
		}{
			{
				"model.document.created", `{"user":` + who + `,"upload":"https%3A%2F%2Ffiles.example%2F1%2Fx.png%3Fa%3Db",` +
					`"doc_type":"Passport","doc_number":"AA\u003c1",` + times + `}`,
				func(ctx context.Context, w *account.Unit) error {
					return w.DocumentCreated(ctx, u, &db.Document{
						Upload: text("1/x.png"), DocType: text("Passport"), DocNumber: text("AA<1"), CreatedAt: now, UpdatedAt: now,
					})
				},
			},
			{
				"model.data_storage.created", `{"user":` + who + `,"title":"personal","data":"{\"a\":1}",` + times + `}`,
				func(ctx context.Context, w *account.Unit) error {
					return w.DataStorageCreated(ctx, u, &db.DataStorage{Title: "personal", Data: `{"a":1}`, CreatedAt: now, UpdatedAt: now})
				},
			},
			{
				"system.user.email.confirmed", `{"user":` + who + `,"language":"RU","domain":"exchange.example"}`,
				func(ctx context.Context, w *account.Unit) error { return w.EmailConfirmed(ctx, u, "ru") },
			},
			{
				"system.user.password.reset", `{"user":` + who + `,"language":"EN","domain":"exchange.example"}`,
				func(ctx context.Context, w *account.Unit) error { return w.PasswordReset(ctx, u, " ") },
			},
			{
				"system.user.password.change", `{"user":` + who + `,"language":"EN","domain":"exchange.example"}`,
				func(ctx context.Context, w *account.Unit) error { return w.PasswordChanged(ctx, u, "") },
			},
			{
				"system.session.create", `{"user":` + who + `,"user_ip":"192.0.2.7","user_agent":"Mozilla/5.0 Firefox/130.0"}`,
				func(ctx context.Context, w *account.Unit) error { return w.SessionCreated(ctx, u, browser) },
			},
		} {
			events := b.do(c.tell)
			if len(events) != 1 || events[0].Name != c.name || string(events[0].Record) != c.want || events[0].Changes != nil {
				t.Errorf("%s: got %v\n%s\nwant\n%s", c.name, names(events), events[0].Record, c.want)
			}
		}
		// Who has not confirmed gets no mail of these, and it is counted; who has gets them.
		if l := b.letters(); len(l) != 0 || !slices.Equal(b.dropped, []string{"user.password.reset", "user.password.change", "session.create"}) {
			t.Errorf("%d letters, dropped %v", len(l), b.dropped)
		}
		tell := func() []string {
			t.Helper()
			b.dropped = nil
			b.do(func(ctx context.Context, w *account.Unit) error { return w.SessionCreated(ctx, u, browser) })
			b.do(func(ctx context.Context, w *account.Unit) error { return w.PasswordReset(ctx, u, "") })
			var kinds []string
			for _, l := range b.letters() {
				kinds = append(kinds, l.Kind)
			}
			return kinds
		}
		both := []string{"session.create", "user.password.reset"}
		b.do(func(ctx context.Context, w *account.Unit) error { return w.PutLabel(ctx, u, "email", "verified") })
		same(t, "after confirming", tell(), both)
		b.do(func(ctx context.Context, w *account.Unit) error { return w.SetState(ctx, u, "locked") })
		same(t, "confirmed and locked", tell(), both)
		b.do(func(ctx context.Context, w *account.Unit) error {
			return w.DeleteLabel(ctx, u, "email", account.Private)
		})
		same(t, "locked without having confirmed", tell(), nil)
		b.do(func(ctx context.Context, w *account.Unit) error { return w.SetState(ctx, u, "active") })
		same(t, "vouched for by staff", tell(), both)
		// Confirmation and reset are for everybody.
		other := b.user("otto@example.com")
		for _, kind := range []account.TokenKind{account.Confirmation, account.Reset} {
			b.do(func(ctx context.Context, w *account.Unit) error { return w.IssueMailToken(ctx, other, kind, "") })
		}
		if l := b.letters(); len(l) != 2 {
			t.Errorf("%d letters to who has not confirmed", len(l))
		}
	})
}
