package seed_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"barong/db"
	"barong/internal/seed"
	"barong/internal/test/dbtest"
	"barong/policy"
)

// environment is a getenv by table.
func environment(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

func plainHash(password string) (string, error) { return "digest of " + password, nil }

func seedText(t *testing.T, d *db.DB, text string, env ...string) (*seed.Report, error) {
	t.Helper()
	s, err := seed.Parse([]byte(text), environment(env...))
	if err != nil {
		t.Fatal(err)
	}
	return seed.Run(t.Context(), d, s, seed.Options{Hash: plainHash})
}

// outcomes shows a report, a line an entry.
func outcomes(r *seed.Report) string {
	var out []string
	for _, i := range r.Items {
		line := fmt.Sprintf("%s %s: %s", i.Kind, i.Name, i.Outcome)
		if i.Note != "" {
			line += ", " + i.Note
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func policyRules(t *testing.T, d *db.DB) []policy.Permission {
	t.Helper()
	rows, err := d.AllPermissions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []policy.Permission
	for _, r := range rows {
		out = append(out, policy.Permission{ID: r.ID, Role: r.Role, Verb: r.Verb, Path: r.Path, Action: r.Action})
	}
	return out
}

func TestDefaultSeeds(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		seeds, err := seed.Default(environment())
		if err != nil {
			t.Fatal(err)
		}
		report, err := seed.Run(t.Context(), d, seeds, seed.Options{Hash: plainHash})
		if err != nil {
			t.Fatal(err)
		}
		for kind, want := range map[string]int{"level": 3, "permission": 151, "user": 1, "restriction": 6} {
			if got := report.Count(kind, seed.Created); got != want {
				t.Errorf("created %d of %s, want %d", got, kind, want)
			}
		}
		u, err := d.UserByEmail(t.Context(), "admin@barong.io")
		if err != nil {
			t.Fatal(err)
		}
		var password string
		for _, i := range report.Items {
			if i.Kind == "user" {
				password = i.Password.Reveal()
			}
		}
		if len(password) != 40 || u.PasswordDigest != "digest of "+password {
			t.Errorf("got password %q, digest %q", password, u.PasswordDigest)
		}
		if strings.Contains(fmt.Sprintf("%v %+v", report, report.Items), password) {
			t.Error("the report prints the password")
		}
		if u.Role != "superadmin" || u.State != "active" || u.StateManual || u.Level != 1 || u.OTP || !strings.HasPrefix(u.UID, "ID") || len(u.UID) != 12 {
			t.Errorf("got %+v", u)
		}
		labels, err := d.Labels(t.Context(), u.ID)
		if err != nil || len(labels) != 1 || labels[0].Key != "email" || labels[0].Value != "verified" || labels[0].Scope != "private" {
			t.Errorf("got labels %+v, %v", labels, err)
		}
		restrictions, err := d.AllRestrictions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range restrictions {
			got = append(got, fmt.Sprintf("%s %s %s %s %d", r.State, r.Category, r.Scope, r.Value, *r.Code))
		}
		if want := []string{
			"disabled whitelist country UA 423", "disabled maintenance all all 471", "disabled blacklist ip 164.116.47.255 433",
			"disabled blacklist ip_subnet 164.116.47.0/24 434", "disabled blacklist country USA 435", "disabled blacklist continent SA 436",
		}; !slices.Equal(got, want) {
			t.Errorf("got restrictions %q", got)
		}

		// Again, the second time with an admin's changes: nothing moves.
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			r := restrictions[1]
			before := r
			r.State = "enabled"
			return tx.UpdateRestriction(ctx, db.Who{}, &before, &r)
		})
		report, err = seed.Run(t.Context(), d, seeds, seed.Options{Hash: plainHash})
		if err != nil {
			t.Fatal(err)
		}
		if n := report.Count("", seed.LeftAlone); n != 161 || len(report.Items) != 161 {
			t.Errorf("left %d of %d alone", n, len(report.Items))
		}
		if s := outcomes(report); !strings.Contains(s, "restriction maintenance all all: left alone, it is enabled") ||
			!strings.Contains(s, "user admin@barong.io: left alone, there is a superadmin") {
			t.Errorf("got %s", s)
		}

		// Another address makes another account only when it is asked for by name.
		named, err := seed.Default(environment("ADMIN_EMAIL", "Root@Example.com", "ADMIN_PASSWORD", "it's: #1 \"x\""))
		if err != nil {
			t.Fatal(err)
		}
		report, err = seed.Run(t.Context(), d, named, seed.Options{Hash: plainHash, UIDPrefix: "AB"})
		if err != nil || report.Count("user", seed.Created) != 1 {
			t.Fatalf("%v, %s", err, outcomes(report))
		}
		u, err = d.UserByEmail(t.Context(), "root@example.com")
		if err != nil || u.PasswordDigest != "digest of it's: #1 \"x\"" || !strings.HasPrefix(u.UID, "AB") {
			t.Errorf("got %+v, %v", u, err)
		}
		for _, i := range report.Items {
			if i.Password != "" {
				t.Errorf("reports a password that was given: %s", i.Name)
			}
		}
	})
}

// TestDefaultPermissions resolves the default rules as the table of the original's documentation does, its two slips
// mended: who may do what in the admin API, and what is recorded.
func TestDefaultPermissions(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		if !d.SQLite() {
			return // the rules are the same text
		}
		seeds, err := seed.Default(environment())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := seed.Run(t.Context(), d, seeds, seed.Options{Hash: plainHash}); err != nil {
			t.Fatal(err)
		}
		rules := policyRules(t, d)
		s, err := policy.Compile(policy.Source{Permissions: rules})
		if err != nil || len(s.Warnings()) != 0 {
			t.Fatalf("%v, %q", err, s.Warnings())
		}
		if !policy.SuperadminCanAct(rules, "") {
			t.Error("the superadmin cannot act")
		}
		roles := []string{"superadmin", "admin", "accountant", "compliance", "technical", "support"}
		others := []string{"trader", "member", "broker", "manager", "partner"}
		for _, tc := range []struct{ calls, want string }{
			{"GET levels", "Y Y Y - Y -"},
			{"GET profiles", "Y Y Y - Y -"},
			{"PUT profiles", "Y* Y* - - - -"},
			{"GET restrictions", "Y Y Y - Y -"},
			{"POST restrictions; PUT restrictions; DELETE restrictions; POST restrictions/whitelink", "Y* Y* - - - -"},
			{"GET metrics; GET activities", "Y Y Y Y Y Y"},
			{"GET activities/admin", "Y - - - - -"},
			{"GET permissions", "Y - - - - -"},
			{"POST permissions; PUT permissions; DELETE permissions; POST users/role", "Y* - - - - -"},
			{"GET api_keys", "Y Y Y - Y -"},
			{"GET users; GET users/ID1; GET users/documents/pending; GET users/labels; GET users/labels/list", "Y Y Y Y Y Y"},
			{"PUT users; POST users/update", "Y* Y* Y* Y* - -"},
			{"POST users/labels; POST users/labels/update; PUT users/labels; DELETE users/labels", "Y* Y* - Y* - -"},
			{"DELETE users/data_storage", "Y* Y* - Y* - -"},
		} {
			for call := range strings.SplitSeq(tc.calls, "; ") {
				verb, path, _ := strings.Cut(call, " ")
				var got []string
				for _, role := range roles {
					v := s.Permit(role, verb, "api/v2/barong/admin/"+path)
					word := "-"
					if v.Allow {
						word = "Y"
						if v.Audit {
							word += "*"
						}
					}
					got = append(got, word)
				}
				if strings.Join(got, " ") != tc.want {
					t.Errorf("%s: got %s, want %s", call, strings.Join(got, " "), tc.want)
				}
				for _, role := range others {
					if s.Permit(role, verb, "api/v2/barong/admin/"+path).Allow {
						t.Errorf("%s may %s", role, call)
					}
				}
			}
		}
		for _, role := range slices.Concat(roles, others) {
			for call, want := range map[string]bool{
				"GET api/v2/ranger/private": true, "PUT api/v2/barong/resource/users/password": true,
				"GET api/v2/peatio/account/balances": true, "POST api/v2/peatio/market/orders": true, "GET api/v2/applogic/x": true,
				"GET api/v2/finex/x": role == "superadmin" || role == "admin",
			} {
				verb, path, _ := strings.Cut(call, " ")
				if got := s.Permit(role, verb, path).Allow; got != want {
					t.Errorf("%s %s: got %v", role, call, got)
				}
			}
		}
	})
}

func TestSeedErrors(t *testing.T) {
	const levels = "levels:\n  - {key: email, value: verified}\n"
	const rules = "permissions:\n  - {role: admin, verb: all, path: api, action: accept}\n"
	bothEngines(t, func(t *testing.T, d *db.DB) {
		for _, tc := range []struct {
			name, text, want string
			line             int
		}{
			{"no email", "users:\n  - {level: 1}\n", "Email missing in users seed", 2},
			{"blank email", "users:\n  - {email: '', level: 1}\n", "Email missing in users seed", 2},
			{"no level", "users:\n  - {email: admin@peatio.tech}\n", "Level is missing for user admin@peatio.tech", 2},
			{"level in words", "users:\n  - {email: admin@peatio.tech, level: one}\n", "Level is missing for user admin@peatio.tech", 2},
			{"too few levels", levels + rules + "users:\n  - {email: a@b.c, level: 3, role: admin}\n", "No enough levels found in database to grant the user to level 3", 6},
			{"unknown role", levels + rules + "users:\n  - {email: a@b.c, level: 1, role: king}\n", `Can't create user 'a@b.c': no permission names the role "king"`, 6},
			{"no address", "users:\n  - {email: nobody, level: 1}\n", "Can't create user 'nobody': it is no e-mail address", 2},
			{"data", "users:\n  - {email: a@b.c, level: 1, data: '{'}\n", "Can't create user 'a@b.c': data is no JSON text of at most 1024 characters", 2},
			{"second factor", "users:\n  - {email: a@b.c, level: 1, otp: true}\n", "Can't create user 'a@b.c': a second factor cannot be seeded", 2},
			{"permission verb", "permissions:\n  - {role: a, verb: sing, path: a, action: accept}\n", `Can't create permission: verb "SING" is unknown (a ACCEPT SING a)`, 2},
			{"permission without path", "permissions:\n\n  - {role: a, verb: get, action: accept}\n", "Can't create permission: path is blank (a ACCEPT GET )", 3},
			{"level without value", "levels:\n  - {key: a}\n", "Can't create level: value is blank", 2},
			{"no category", "restrictions:\n  - {scope: all, value: all, state: enabled}\n", "category missing in restrictions seed", 2},
			{"no scope", "restrictions:\n  - {category: maintenance, value: all, state: enabled}\n", "scope is missing in restrictions seed", 2},
			{"no value", "restrictions:\n  - {category: maintenance, scope: all, state: enabled}\n", "value is missing in restrictions seed", 2},
			{"no state", "restrictions:\n  - {category: maintenance, scope: all, value: all}\n", "state is missing in restrictions seed", 2},
			{"code 200", "restrictions:\n  - {category: blacklist, scope: all, value: all, state: enabled, code: 200}\n", `Can't create restriction: code.inclusion (blacklist all all: "200" is not within 400 to 599)`, 2},
			{"state", "restrictions:\n  - {category: blacklist, scope: all, value: all, state: 'on'}\n", "Can't create restriction: state.inclusion (blacklist all all on)", 2},
			{"address", "restrictions:\n  - {category: blacklist, scope: ip, value: 1.2.3, state: disabled}\n", "Can't create restriction: value.invalid (blacklist ip 1.2.3 disabled)", 2},
			{"category", "restrictions:\n  - {category: greylist, scope: planet, value: x, state: disabled}\n", "Can't create restriction: category.inclusion; scope.inclusion (greylist planet x disabled)", 2},
		} {
			_, err := seedText(t, d, tc.text)
			var wrong *seed.Error
			if !errors.As(err, &wrong) || err.Error() != tc.want || wrong.Line != tc.line {
				t.Errorf("%s: got %v at %+v, want %q at line %d", tc.name, err, wrong, tc.want, tc.line)
			}
		}
		// Not a row of all that is left behind.
		for _, table := range []string{"users", "levels", "permissions", "restrictions", "labels", "policy_changes"} {
			var n int
			if err := d.Bun().NewSelect().Table(table).ColumnExpr("count(*)").Scan(t.Context(), &n); err != nil || n != 0 {
				t.Errorf("%s has %d rows, %v", table, n, err)
			}
		}
	})
}

func TestSeedAgain(t *testing.T) {
	const text = `
levels:
  - {key: email, value: verified, description: <%= ENV.fetch('WORDS', 'one') %>}
  - {key: phone, value: verified}
permissions:
  - {role: admin, verb: Get, path: api, action: Accept}
  - {role: admin, verb: ALL, path: api, action: AUDIT, topic: <%= ENV["TOPIC"] %>}
users:
  - {email: Ann@Example.com, level: 2, role: admin, uid: ID1234567890, password: secret, data: '{"language":"de"}'}
  - {email: bob@example.com, level: 0, role: admin, state: banned, password_digest: $2a$10$abc}
  - {email: eve@example.com, level: 0, role: admin}
restrictions:
  - {category: whitelist, scope: ip, value: '::1', state: enabled}
`
	bothEngines(t, func(t *testing.T, d *db.DB) {
		report, err := seedText(t, d, text)
		if err != nil || report.Count("", seed.Created) != 8 || len(report.Items) != 8 {
			t.Fatalf("%v\n%s", err, outcomes(report))
		}
		for email, want := range map[string]db.User{
			"ann@example.com": {UID: "ID1234567890", State: "active", Level: 2, PasswordDigest: "digest of secret"},
			"bob@example.com": {State: "banned", StateManual: true, PasswordDigest: "$2a$10$abc"},
			"eve@example.com": {State: "pending"},
		} {
			u, err := d.UserByEmail(t.Context(), email)
			if err != nil {
				t.Fatal(err)
			}
			if u.State != want.State || u.StateManual != want.StateManual || u.Level != want.Level || want.UID != "" && u.UID != want.UID ||
				want.PasswordDigest != "" && u.PasswordDigest != want.PasswordDigest {
				t.Errorf("%s: got %+v", email, u)
			}
		}
		// What is stored in another case is the same rule.
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.NewUpdate().Table("permissions").Set("verb = 'get'").Where("id = 1").Exec(ctx)
			return err
		})
		report, err = seedText(t, d, text, "WORDS", "two", "TOPIC", "money")
		if err != nil {
			t.Fatal(err)
		}
		if got, want := outcomes(report), strings.TrimSpace(`
level email:verified: changed, description
level phone:verified: left alone
permission admin ACCEPT GET api: left alone
permission admin AUDIT ALL api: changed, topic
user ann@example.com: left alone
user bob@example.com: left alone
user eve@example.com: left alone
restriction whitelist ip ::1: left alone`); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		report, err = seedText(t, d, text) // without the variable there is no topic to set
		if err != nil || report.Count("permission", seed.LeftAlone) != 2 {
			t.Errorf("%v\n%s", err, outcomes(report))
		}
		// A level that another takes the place of is refused; a new one goes to the end, and counting goes on behind it.
		if _, err := seedText(t, d, "levels:\n  - {key: face, value: seen}\n"); err == nil || err.Error() != "Can't create level face:seen: level 1 is email already" {
			t.Errorf("got %v", err)
		}
		level := db.Level{Key: "x", Value: ref("y")}
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.NewInsert().Model(&level).Returning("id").Exec(ctx)
			return err
		})
		if level.ID != 3 {
			t.Errorf("the next level is %d", level.ID)
		}
	})
}

func TestSeedHooks(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		seeds, err := seed.Default(environment())
		if err != nil {
			t.Fatal(err)
		}
		fail := errors.New("no")
		if _, err := seed.Run(t.Context(), d, seeds, seed.Options{Hash: func(string) (string, error) { return "", fail }}); !errors.Is(err, fail) {
			t.Errorf("got %v", err)
		}
		var created []string
		_, err = seed.Run(t.Context(), d, seeds, seed.Options{
			Hash:  plainHash,
			State: func(labels []db.Label) string { return "locked by " + labels[0].Key },
			Created: func(_ context.Context, _ *db.Tx, u *db.User) error {
				created = append(created, u.Email)
				return nil
			},
		})
		if err != nil || !slices.Equal(created, []string{"admin@barong.io"}) {
			t.Fatalf("%v, %q", err, created)
		}
		u, err := d.UserByEmail(t.Context(), "admin@barong.io")
		if err != nil || u.State != "active" || !u.StateManual {
			t.Errorf("got %+v, %v", u, err)
		}
	})
}

func TestParseSeeds(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "", ""},
		{"empty lists", "users:\nlevels: []\n", ""},
		{"both templates", "users:\n  - email: \"<%= ENV[\"X\"] %>\"\n    password: <%=ENV.fetch( 'Y' , \"a b\" )%>\n", ""},
		{"template in a comment", "# <%= ENV['X'] %>\n", ""},
		{"other template", "users:\n  - email: <%= `id` %>\n", "line 2: the only templates"},
		{"code", "<% 1.times do %>\n", "line 1: the only templates"},
		{"fetch without default", "users:\n  - email: <%= ENV.fetch('X') %>\n", ""},
		{"fetch of nothing", "\n\nusers: <%= ENV.fetch('Y') %>\n", "line 3: the variable Y is not set"},
		{"expression", "users:\n  - email: <%= ENV['X'] || 'a' %>\n", ""},
		{"empty mappings", "users: {}\nlevels: {}\npermissions: {}\nrestrictions: {}\n# - { category: whitelist }\n", ""},
		{"misspelt list", "user:\n", `line 1: unknown key "user": users is meant`},
		{"other list", "wallets:\n", ""},
		{"other column", "users:\n  - {email: a, admin: true, id: 1, created_at: [x]}\n", ""},
		{"twice", "users:\n  - email: a\n    email: b\n", "line 3: key email is there twice"},
		{"list twice", "users:\nusers:\n", "line 2: key users is there twice"},
		{"no list", "users: a\n", "line 1: users is no list"},
		{"no mapping", "users:\n  - a\n", "line 2: an entry of users is no mapping"},
		{"nested", "users:\n  - email: [a]\n", "line 2: email is no text"},
		{"alias", "levels:\n  - &a {key: a}\n  - *a\n", "line 3: an entry of levels is no mapping"},
		{"top", "- a\n", "line 1: want users"},
		{"documents", "users:\n---\nusers:\n", "more than one document"},
		{"mark", "users: [{email: '\ue0000\ue001'}]", "private-use"},
		{"mark as escape", "users: [{email: \"\\ue0009\\ue001\"}]", ""},
		{"YAML", "users: [", "seeds file: "},
		{"large", "# " + strings.Repeat("x", 4<<20), "larger than"},
	} {
		_, err := seed.Parse([]byte(tc.text), environment("X", "y: {z: 1}\nusers:"))
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

// FuzzParseSeeds: whatever the file, and whatever the variable in it, nothing panics and errors name the file; and a
// variable adds no entry.
func FuzzParseSeeds(f *testing.F) {
	for _, seed := range []string{
		"users:\n  - {email: <%= ENV['X'] %>, level: 1}\n", "levels: [{key: a, value: '<%= ENV.fetch(\"Y\", \"b\") %>'}]", "<%", "users: &a [*a]",
		"restrictions:\n  - {category: blacklist, scope: ip, value: 1.2.3.4, state: enabled, code: 433}\n", "users: [{email: \"\\ue0000\\ue001\"}]",
	} {
		f.Add(seed, "a: b\n- c")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		if value == "" { // which makes nothing of its place
			value = "y"
		}
		_, err := seed.Parse([]byte(text), environment("X", value))
		_, plain := seed.Parse([]byte(text), environment("X", "x"))
		if (err == nil) != (plain == nil) {
			t.Fatalf("with the value %v, with another %v", err, plain)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "seeds file: ") {
			t.Fatalf("got error %q", err)
		}
	})
}

// bothEngines runs a test on a new database of each engine.
func bothEngines(t *testing.T, run func(t *testing.T, d *db.DB)) {
	t.Helper()
	dbtest.Each(t, run)
}

func update(t testing.TB, d *db.DB, f func(ctx context.Context, tx *db.Tx) error) {
	t.Helper()
	if err := d.Update(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}

func ref[T any](v T) *T { return &v }
