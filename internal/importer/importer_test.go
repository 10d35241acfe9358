package importer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"barong/api/account"
	"barong/db"
	"barong/internal/crypto/password"
	"barong/internal/importer"
	"barong/internal/test/dbtest"
)

var rules = account.Settings{
	ActivationRequirements: map[string]string{"email": "verified"},
	StateTriggers:          []account.Trigger{{State: "banned", Keys: []string{"ban", "fraud"}}, {State: "locked", Keys: []string{"lock"}}},
}

const (
	exported = `{"kv": {"secret/barong/api_key/kid1": {"value": "1f34920fbd01f40072e3cf3478625540"}, "secret/barong/api_key/kid2": {"value": "00000000000000000000000000000002"}},
		"totp": {"IDA": "otpauth://totp/X:a?algorithm=SHA1&digits=6&period=30&secret=RQ2EURVYDFWB2CZ5IGFFFLY6YAWJSKFY"}}`
	factorA = "RQ2EURVYDFWB2CZ5IGFFFLY6YAWJSKFY"
)

func noSecrets(t testing.TB) *importer.Secrets {
	t.Helper()
	s, err := importer.NewSecrets("", "", "", "", "barong")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func options(t testing.TB, source string, change ...func(o *importer.Options)) importer.Options {
	t.Helper()
	s, err := importer.NewSecrets(file(t, exported), "", "", "", "barong")
	if err != nil {
		t.Fatal(err)
	}
	o := importer.Options{Source: source, Secrets: s, Account: &rules, Now: time.Now}
	for _, f := range change {
		f(&o)
	}
	return o
}

// empty opens a new database of an engine.
func empty(t testing.TB, engine string) *db.DB {
	t.Helper()
	return dbtest.Open(t, engine, db.Options{})
}

func engines(t *testing.T, f func(t *testing.T, d *db.DB)) {
	for _, engine := range dbtest.Engines {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			f(t, empty(t, engine))
		})
	}
}

// bring imports and compares; both must agree.
func bring(t testing.TB, d *db.DB, o importer.Options) *importer.Report {
	t.Helper()
	s, err := importer.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	report, err := s.Import(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Verify(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Equal() {
		text, _ := json.MarshalIndent(c, "", " ")
		t.Errorf("after an import, source and database differ: %s", text)
	}
	return report
}

// rows are all rows of a database by table, as JSON without what is sealed, each kind in its own way.
func content(t testing.TB, d *db.DB) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, name := range []string{
		"levels", "permissions", "restrictions", "users", "totp_keys", "profiles", "phones", "documents", "labels", "data_storages", "apikeys", "activities",
	} {
		err := d.EachImportable(t.Context(), name, func(r db.Importable) error {
			switch r := r.(type) {
			case *db.TOTPKey:
				r.Sealed = ""
			case *db.Phone:
				r.Sealed, r.NumberIndex = "", ""
			case *db.Document:
				r.SealedNumber, r.DocNumberIndex = nil, nil
			case *db.APIKey:
				if r.Sealed = ""; r.State == "inactive" {
					r.Secret = "" // drawn by chance
				}
			}
			text, err := json.Marshal(r)
			out[name] = append(out[name], string(text))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func p[T any](v T) *T { return &v }

func at(text string) time.Time {
	t, err := time.Parse(time.DateTime, text)
	if err != nil {
		panic(err)
	}
	return t
}

// check compares one row of the database.
func check[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	g, _ := json.Marshal(got)
	w, _ := json.Marshal(want)
	if string(g) != string(w) {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}

// What each table of the original becomes, twice in a row, on both engines.
func TestImport(t *testing.T) {
	t.Parallel()
	source := file(t, sql(invented(), style{lines: true}))
	text := strings.ReplaceAll(odd, "\x00", "\uFFFD")
	engines(t, func(t *testing.T, d *db.DB) {
		report := bring(t, d, options(t, source))
		first := content(t, d)
		again := bring(t, d, options(t, source))
		if second := content(t, d); !maps.EqualFunc(first, second, slices.Equal) {
			t.Errorf("the second import has changed something:\n%v\n%v", first, second)
		}
		check(t, "reports again", again.Reports, report.Reports)
		if n := again.Rows["users"].Written + again.Rows["activities"].Written + again.Rows["labels"].Written; n != 0 {
			t.Errorf("the second import wrote %d rows anew", n)
		}
		ctx := t.Context()
		users, err := d.UsersByID(ctx, 1, 2, 3, 4)
		if err != nil {
			t.Fatal(err)
		}
		check(t, "users", users, []db.User{
			{ID: 1, UID: "IDA", Email: "root@example.com", PasswordDigest: digest, Role: "superadmin", Data: &text, Level: 2, OTP: true, State: "active", CreatedAt: at(day1), UpdatedAt: at(day2)},
			{ID: 2, UID: "idb-of-an-older-prefix", Email: "bob@localhost", PasswordDigest: digest, Role: "member", Data: p("null"), Level: 1, OTP: true, State: "active", StateManual: true, ReferralID: p(int64(4)), CreatedAt: at(day1), UpdatedAt: at(day1)},
			{ID: 3, UID: "IDC", Email: "carol@example.com", PasswordDigest: digest, Role: "vip", Data: p(""), Level: 1, State: "banned", StateManual: true, ReferralID: p(int64(3)), CreatedAt: at(day1), UpdatedAt: at(day1)},
			{ID: 4, UID: "IDD", Email: "dave@example.com", PasswordDigest: "x", Role: "member", Level: 5, State: "banned", CreatedAt: at(day1), UpdatedAt: at(day1)},
		})
		hasher := password.NewHasher(password.HasherOptions{})
		if ok, _, err := hasher.Verify(ctx, users[0].PasswordDigest, "Secret-Word-1"); err != nil || !ok {
			t.Errorf("the old password does not fit: %v, %v", ok, err)
		}
		factor, err := d.TOTPKey(ctx, 1)
		if err != nil || factor.Secret != factorA {
			t.Errorf("second factor: %v, %v", factor, err)
		}
		profiles, err := d.Profiles(ctx, 1, 2, 3)
		if err != nil {
			t.Fatal(err)
		}
		check(t, "profiles", profiles, []db.Profile{
			{ID: 1, UserID: 1, FirstName: p("Zoë"), LastName: p("O'Secret-Name"), DOB: p("1990-02-28"), Address: &text, Postcode: p("01001"), City: p("Kyiv"), Country: p("UA"), State: 3, Metadata: p("{broken"), CreatedAt: at(day1), UpdatedAt: at(day1)},
			{ID: 2, UserID: 2, State: 4, CreatedAt: at(day1), UpdatedAt: at(day1)},
			{ID: 3, UserID: 2, FirstName: p("Secret-Name"), State: 1, Metadata: p(""), CreatedAt: at(day2), UpdatedAt: at(day2)},
			{ID: 4, UserID: 3, FirstName: p("x"), State: 0, CreatedAt: at(day1), UpdatedAt: at(day1)},
		})
		type phone struct {
			ID, UserID int64
			Number     string
			At         *time.Time
		}
		var phones []phone
		rows, err := d.Phones(ctx, 1, 2, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			phones = append(phones, phone{r.ID, r.UserID, r.Number, r.ValidatedAt})
			if r.CodeDigest != nil {
				t.Errorf("phone %d has a code", r.ID)
			}
		}
		check(t, "phones", phones, []phone{
			{1, 1, "380670000001", p(at(day1))}, {2, 2, "380670000001", nil}, {4, 2, "380670000002", p(at(day2))},
		})
		if found, err := d.Phone(ctx, 1, "380670000001"); err != nil || found.ID != 1 {
			t.Errorf("a phone is not found by its number: %v, %v", found, err)
		}
		documents, err := d.Documents(ctx, 2)
		if err != nil {
			t.Fatal(err)
		}
		for i := range documents {
			documents[i].SealedNumber, documents[i].DocNumberIndex = nil, nil
		}
		check(t, "documents", documents, []db.Document{
			{ID: 1, UserID: 2, Upload: p("uploads/document/upload/1/паспорт+1.JPEG"), UploadName: p("паспорт+1.JPEG"), ContentType: p("image/jpeg"), DocType: p("Military ID"), DocNumber: p("SECRET-DOC"), DocExpire: p("2031-12-01"), Metadata: p(`{"a":1}`), CreatedAt: at(day1), UpdatedAt: at(day1)},
			{ID: 2, UserID: 2, DocType: p("Passport"), Metadata: p(""), CreatedAt: at(day1), UpdatedAt: at(day1)},
			{ID: 3, UserID: 2, DocNumber: p("N"), CreatedAt: at(day1), UpdatedAt: at(day1)},
		})
		var labels []string
		all, err := d.Labels(ctx, 1, 2, 3, 4)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range all {
			labels = append(labels, fmt.Sprintf("%d %s:%s %s", l.ID, l.Key, l.Value, l.Scope))
		}
		check(t, "labels", labels, []string{
			"1 EMAIL:Verified private", "2 email:verified private", "4 email:verified private", "5 band-member:x public", "6 email:verified private",
			"7 ban:by-support private", "8 phone:verified private",
		})
		type key struct {
			ID     int64
			KID    string
			Scope  []string
			State  string
			Secret string
		}
		var keys []key
		err = d.EachImportable(ctx, "apikeys", func(r db.Importable) error {
			k := r.(*db.APIKey)
			if k.State == "inactive" && len(k.Secret) == 32 {
				k.Secret = "random"
			}
			keys = append(keys, key{k.ID, k.KID, k.Scope, k.State, k.Secret})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		check(t, "keys", keys, []key{
			{1, "kid1", []string{}, "active", "1f34920fbd01f40072e3cf3478625540"},
			{3, "kid3", []string{}, "inactive", "random"},
			{4, "kid2", []string{}, "active", "00000000000000000000000000000002"},
		})
		var activities []string
		err = d.EachImportable(ctx, "activities", func(r db.Importable) error {
			a := r.(*db.Activity)
			target, data := "-", "-"
			if a.TargetUID != nil {
				target = *a.TargetUID
			}
			if a.Data != nil {
				data = *a.Data
			}
			activities = append(activities, fmt.Sprintf("%d %d %s %s %s %s %s", a.ID, a.UserID, target, a.Category, a.Result, data, a.CreatedAt.Format(time.DateTime)))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		check(t, "activities", activities, []string{
			"1 1 - user succeed - " + day1,
			`2 1 IDB admin succeed {"uid": "IDB", "password": "[REDACTED]", "user": {"otp_code": "[REDACTED]"}, "state": "banned"} ` + day1,
			"3 77 - user failed [unreadable: 27 bytes] " + day2,
			"4 2 - user failed {\"nul\":\"a\uFFFDb\"} " + day2,
		})
		if _, total, err := d.Activities(ctx, db.ActivityFilter{Category: "user"}, db.Page{Number: 1, Size: 1}); err != nil || total != 3 {
			t.Errorf("the counts say %d activities of users, %v", total, err)
		}
		var restrictions []string
		rr, err := d.AllRestrictions(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rr {
			restrictions = append(restrictions, fmt.Sprintf("%d %s %s %s %v %s", r.ID, r.Category, r.Scope, r.Value, r.Code != nil && *r.Code == 433, r.State))
		}
		check(t, "restrictions", restrictions, []string{"2 blacklist ip 203.0.113.66 true enabled", "4 whitelist country UA false enabled"})
		pp, err := d.AllPermissions(ctx)
		if err != nil || len(pp) != 3 || pp[0].Verb != "ALL" || pp[0].Action != "ACCEPT" || pp[1].ID != 5 {
			t.Errorf("permissions: %+v, %v", pp, err)
		}
		counts := map[string]int64{
			"activity_data_redacted": 1, "activity_data_unreadable": 1, "activity_result": 1, "activity_time": 2, "apikey_kid_twice": 1,
			"apikey_without_secret": 1, "digest_unusable": 1, "document_file_name": 1, "label_scope": 1, "label_twice": 1,
			"level_differs_from_labels": 1, "orphan": 4, "otp_without_secret": 1, "permission_twice": 1, "phone_invalid": 1, "phone_twice": 1,
			"phone_verified_by_two": 1, "profile_state_null": 1, "profile_state_unknown": 1, "profile_two_open": 1, "referrer_gone": 1,
			"refers_to_itself": 1, "restriction_invalid": 1, "restriction_twice": 1, "role_without_permissions": 1,
			"state_differs_from_labels": 2, "time_invalid": 2,
		}
		check(t, "counts", report.Counts, counts)
		// New rows are numbered above all of the source.
		u := &db.User{UID: "IDNEW", Email: "new@example.com", Role: "member", State: "pending"}
		err = d.Update(ctx, func(ctx context.Context, tx *db.Tx) error { return tx.InsertUser(ctx, u) })
		if err != nil || u.ID <= 4 {
			t.Errorf("a new user: id %d, %v", u.ID, err)
		}
	})
}

// Nothing that must not stand in clear is in what the databases keep, nor in a report.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, d *db.DB) {
		report := bring(t, d, options(t, file(t, sql(invented(), style{}))))
		var text strings.Builder
		if err := report.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		if err := report.WriteJSON(&text); err != nil {
			t.Fatal(err)
		}
		secrets := []string{"Secret-Name", "1990-02-28", "380670000001", "SECRET-DOC", "LEAK-", "54321", "1f34920fbd01f40072e3cf3478625540", factorA}
		for _, secret := range append(secrets, digest, "root@example.com", "bob@localhost") {
			if strings.Contains(text.String(), secret) {
				t.Errorf("the report holds %s", secret)
			}
		}
		for name, content := range kept(t, d) {
			for _, secret := range secrets {
				if strings.Contains(content, secret) {
					t.Errorf("%s holds %s in clear", name, secret)
				}
			}
		}
	})
}

// kept is what a database keeps: the files of SQLite, the rows of Postgres as it stores them.
func kept(t *testing.T, d *db.DB) map[string]string {
	t.Helper()
	out := map[string]string{}
	if path, ok := strings.CutPrefix(d.URL(), "sqlite://"); ok {
		for _, suffix := range []string{"", "-wal"} {
			text, err := os.ReadFile(path + suffix)
			if err != nil {
				t.Fatal(err)
			}
			out["the database"+suffix] = string(text)
		}
		return out
	}
	var tables []string
	if err := d.Bun().NewRaw("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()").Scan(t.Context(), &tables); err != nil {
		t.Fatal(err)
	}
	for _, name := range tables {
		var rows []string
		if err := d.Bun().NewRaw(`SELECT t::text FROM "`+name+`" AS t`).Scan(t.Context(), &rows); err != nil {
			t.Fatal(err)
		}
		out["table "+name] = strings.Join(rows, "\n")
	}
	if out["table users"] == "" || out["table activities"] == "" {
		t.Error("nothing is looked through")
	}
	return out
}

// Each form of a dump says the same: what one has brought in is what the others hold, and what their reports tell.
func TestForms(t *testing.T) {
	t.Parallel()
	held := map[string]*db.DB{}
	var want *importer.Report
	for _, engine := range dbtest.Engines {
		held[engine] = empty(t, engine)
		want = bring(t, held[engine], options(t, file(t, sql(invented(), style{}))))
	}
	holds := func(t *testing.T, o importer.Options) {
		t.Helper()
		s, err := importer.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for _, engine := range dbtest.Engines {
			c, err := s.Verify(t.Context(), held[engine])
			if err != nil {
				t.Fatal(err)
			}
			if !c.Equal() {
				text, _ := json.Marshal(c)
				t.Errorf("%s: it is another: %s", engine, text)
			}
		}
		report, err := s.DryRun(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for kind, n := range want.Counts {
			if kind != "time_invalid" && report.Counts[kind] != n || report.Counts[kind] == 0 {
				t.Errorf("%s: %d are told, want %d", kind, report.Counts[kind], n)
			}
		}
	}
	for name, text := range dumpForms(invented()) {
		t.Run(name, func(t *testing.T) {
			holds(t, options(t, file(t, text)))
			if name == "gzip" || name == "rows on lines of their own" {
				holds(t, options(t, "-", func(o *importer.Options) { o.Stdin = strings.NewReader(text) }))
			}
		})
	}
	t.Run("latin1", func(t *testing.T) {
		d := empty(t, "sqlite")
		bring(t, d, options(t, file(t, sql(invented(), style{charset: "latin1"}))))
		got, want := content(t, d), content(t, held["sqlite"])
		for _, table := range []string{"users", "profiles", "labels"} {
			check(t, table, got[table], want[table])
		}
	})
}

// A large statement on one line is read in pieces; a small dump of many rows in one statement crosses many buffers.
func TestLongLines(t *testing.T) {
	t.Parallel()
	long := with(invented(), "users", func(t *table) {
		for i := 10; i < 5010; i++ {
			t.rows = append(t.rows, []any{i, fmt.Sprint("ID", i), fmt.Sprintf("u%d@example.com", i), digest, "member", strings.Repeat("ü'\\", i%300), 0, 0, "pending", i + 1, day1, day1})
		}
		t.rows = append(t.rows, []any{5010, "IDLAST", "last@example.com", digest, "member", strings.Repeat("x\n", 1<<20), 0, 0, "pending", nil, day1, day1})
	})
	engines(t, func(t *testing.T, d *db.DB) {
		report := bring(t, d, options(t, file(t, sql(long, style{}))))
		if n := report.Rows["users"].Imported; n != 5005 {
			t.Errorf("%d users", n)
		}
		u, err := d.UsersByID(t.Context(), 309, 5009, 5010)
		if err != nil || *u[0].Data != strings.Repeat("ü'\\", 9) || *u[1].ReferralID != 5010 || len(*u[2].Data) != 2<<20 {
			t.Errorf("%v", err)
		}
	})
}

// However long texts are, few are held at once. (Not beside other tests, whose memory would count.)
func TestLongTextsTakeLittle(t *testing.T) {
	const most = 30 << 20 // of 62 MB
	text := strings.Repeat("x", 60_000)
	many := with(invented(), "activities", func(t *table) {
		for i := 10; i < 1040; i++ {
			t.rows = append(t.rows, []any{i, 1, nil, "user", "::1", "agent", "session", "login", "succeed", `{"a":"` + text + `"}`, day1})
		}
	})
	source, looked, held := file(t, sql(many, style{lines: true})), 0, uint64(0)
	many = nil
	s, err := importer.Open(t.Context(), options(t, source, func(o *importer.Options) {
		o.Progress = func(p importer.Progress) {
			if p.Step != "activities" {
				return
			}
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			looked, held = looked+1, max(held, m.HeapAlloc)
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Import(t.Context(), empty(t, "sqlite")); err != nil {
		t.Fatal(err)
	}
	if looked != 1 || held > most {
		t.Errorf("%d bytes were held, in %d looks", held, looked)
	}
}

// A dump that is not whole, not of mysqldump, or hostile is refused, and the database stays as it was.
func TestBadDumps(t *testing.T) {
	t.Parallel()
	whole := sql(invented(), style{lines: true})
	compact := sql(invented(), style{compact: true})
	cut := func(text, at string) string { return text[:strings.Index(text, at)] }
	targets := []*db.DB{empty(t, "sqlite"), empty(t, "postgres")}
	for name, c := range map[string]struct{ text, want string }{
		"empty":                      {"", "holds no database of the original"},
		"cut before the last line":   {cut(whole, "-- Dump completed"), "cut short"},
		"cut between tables":         {cut(whole, "DROP TABLE IF EXISTS `phones`"), "cut short"},
		"cut within a row":           {cut(whole, "Zoë"), "cut short"},
		"cut within a statement":     {cut(compact, ",(3,'IDC'"), "cut short"},
		"cut before the users":       {cut(compact, "INSERT INTO `users`"), "cut short"},
		"cut within a create":        {cut(whole, "KEY `index_x` (`id`,`updated_at`(10))"), "cut short"},
		"compressed and cut":         {compressed(whole)[:len(compressed(whole))/2], "cut short"},
		"of pg_dump":                 {"--\n-- PostgreSQL database dump\n--\nSET statement_timeout = 0;\nSELECT pg_catalog.set_config('search_path', '', false);\n", "a dump of PostgreSQL"},
		"of sqlite3":                 {"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n", `begins with "PRAGMA"`},
		"JSON":                       {`{"users": []}`, `begins with "{"`},
		"NUL bytes":                  {strings.Repeat("\x00", 4096), "control byte"},
		"NUL bytes within":           {strings.Replace(whole, "bob@localhost", "bob@\x00\x00\x00\x00", 1), "NUL byte"},
		"UTF-16":                     {"\xff\xfe-\x00-\x00", "UTF-16"},
		"xz":                         {"\xfd7zXZ\x00....", "xz -dc FILE"},
		"zstd and cut":               {zstandard(whole)[:len(zstandard(whole))/2], "cut short"},
		"zstd of something else":     {"\x28\xb5\x2f\xfd....", "by zstd is damaged"},
		"an error in its place":      {"mysqldump: Got error: 1045: Access denied for user 'x' when trying to connect\n", "Access denied"},
		"an error at its end":        {cut(whole, "DROP TABLE IF EXISTS `phones`") + "mysqldump: Error 2013: Lost connection to MySQL server during query\n", "Lost connection"},
		"two, the second cut":        {whole + cut(whole, "-- Dump completed"), "cut short"},
		"Latin that says UTF-8":      {strings.Replace(compact, "'Zoë'", "_utf8mb4'Zo\xeb'", 1), "not in the character set utf8mb4"},
		"a text of another charset":  {strings.Replace(compact, "'Zoë'", "_cp1251'Zo\xeb'", 1), `"cp1251"`},
		"another charset":            {sql(invented(), style{charset: "cp1251"}), `"cp1251"`},
		"Latin where UTF-8 is said":  {strings.Replace(sql(invented(), style{charset: "latin1"}), "SET NAMES latin1", "SET NAMES utf8mb4", 1), "is not in the character set utf8mb4"},
		"no backslash escapes":       {strings.Replace(whole, "NO_AUTO_VALUE_ON_ZERO", "NO_BACKSLASH_ESCAPES", 1), "NO_BACKSLASH_ESCAPES"},
		"an unknown version":         {strings.Replace(whole, "20200429082843", "20991231000000", 1), `"20991231000000"`},
		"an older version":           {sql(with(invented(), "schema_migrations", func(t *table) { t.rows = [][]any{{"20181101143041"}} }), style{}), `"20181101143041"`},
		"another product":            {strings.ReplaceAll(whole, "`users`", "`members`"), "holds no database of the original"},
		"two of the original":        {compact + "USE `b`;\n" + compact, "several databases"},
		"a row too short":            {strings.Replace(sql(invented(), style{bare: true}), "(1,'IDA',", "(1,", 1), "--complete-insert"},
		"garbage in a row":           {strings.Replace(compact, "(1,'IDA',", "(1,NOW(),", 1), "where a value belongs"},
		"a quote in a name":          {strings.Replace(compact, "O\\'Secret-Name", "O'Secret-Name", 1), "a word in a row where a comma belongs"},
		"garbage between rows":       {strings.Replace(compact, "),(3,'IDC'", ") x (3,'IDC'", 1), "between the rows"},
		"two of one address":         {sql(with(invented(), "users", func(t *table) { t.set(3, "email", "ROOT@example.com") }), style{}), "IDA (id 1) and IDC (id 3)"},
		"two of one uid":             {sql(with(invented(), "users", func(t *table) { t.set(3, "uid", "IDA") }), style{}), "uid IDA"},
		"an id that is none":         {strings.Replace(compact, "(1,'IDA',", "(-7,'IDA',", 1), `the id "-7"`},
		"a value without end":        {compact + "INSERT INTO `users` VALUES (1,'" + strings.Repeat("a", 1<<20), "cut short"},
		"a word without end":         {"INSERT " + strings.Repeat("a", 1<<20), "more than 1024 bytes"},
		"a name without end":         {"USE `" + strings.Repeat("a", 1<<20), "more than 1024 bytes"},
		"a conditional without end":  {compact + "/*!40101 SET NAMES utf8;", "cut short"},
		"a comment without end":      {compact + "/* " + strings.Repeat("a", 1<<20), "cut short"},
		"a column that is not there": {strings.ReplaceAll(whole, "`password_digest`", "`crypted`"), "no column password_digest"},
	} {
		for _, d := range targets {
			s, err := importer.Open(t.Context(), options(t, file(t, c.text)))
			if err == nil {
				_, err = s.Import(t.Context(), d)
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
		}
	}
	for _, d := range targets {
		if rows := content(t, d); len(rows) != 0 {
			t.Errorf("something was written: %v", rows)
		}
	}
}

// What was imported follows the source, unless it was changed here.
func TestDelta(t *testing.T) {
	t.Parallel()
	other := digest[:len(digest)-8] + "ABCDEFGH"
	const day3, day4 = "2020-03-04 05:06:07", "2020-04-05 06:07:08"
	engines(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		bring(t, d, options(t, file(t, sql(invented(), style{})), func(o *importer.Options) { o.Secrets = noSecrets(t) }))
		// Meanwhile here: a label of the user 3 and a profile are changed, and a label and an activity are made.
		err := d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
			l, err := tx.Label(ctx, 3, "email", "private")
			if err != nil {
				return err
			}
			l.Value = "here"
			if err := tx.UpdateLabel(ctx, l); err != nil {
				return err
			}
			if err := tx.InsertLabel(ctx, &db.Label{UserID: 4, Key: "note", Value: "here", Scope: "public"}); err != nil {
				return err
			}
			return tx.InsertActivities(ctx, db.Activity{UserID: 1, Category: "user", Topic: "here", Action: "here", Result: "succeed"})
		})
		if err != nil {
			t.Fatal(err)
		}
		later := with(invented(), "users", func(t *table) {
			t.set(2, "password_digest", other)
			t.set(2, "updated_at", day3)
			t.set(2, "email", "dave@example.com") // two of one person, who has changed their addresses over
			t.set(4, "email", "bob@localhost")
			t.set(4, "updated_at", day3)
			t.rows = append(t.rows, []any{5, "IDE", "eva@example.com", digest, "member", nil, 0, 0, "pending", 1, day3, day3})
		})
		later = with(later, "labels", func(t *table) {
			t.set(4, "value", "there")
			t.set(4, "updated_at", day4) // changed here, too
			t.remove(7)                  // the ban is lifted
			t.set(8, "id", 88)           // deleted and made again
			t.rows = append(t.rows, []any{11, 4, "note", "there", "public", nil, day3, day3}, []any{12, 5, "email", "verified", "private", nil, day3, day3})
		})
		later = with(later, "phones", func(t *table) { t.remove(1) }) // so that the other's is verified
		later = with(later, "apikeys", func(t *table) { t.remove(1) })
		later = with(later, "permissions", func(t *table) { t.remove(6) })
		later = with(later, "activities", func(t *table) {
			t.rows = append(t.rows, []any{5, 5, nil, "user", "::1", "agent", "account", "signup", "succeed", nil, day3})
		})
		source := file(t, sql(later, style{}))
		for range 2 {
			report := func() *importer.Report {
				s, err := importer.Open(ctx, options(t, source))
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				r, err := s.Import(ctx, d)
				if err != nil {
					t.Fatal(err)
				}
				return r
			}()
			if report.Counts["changed_here"] != 1 || report.Counts["made_here"] != 1 {
				t.Errorf("reports: %v", report.Counts)
			}
			got := content(t, d)
			all := strings.Join(slices.Concat(got["users"], got["labels"], got["phones"], got["permissions"], got["activities"]), "\n")
			for _, want := range []string{other, `"IDE"`, `"UID":"IDD","Email":"bob@localhost"`, `"Value":"here"`, `"Topic":"here"`, `"Action":"signup"`, `"ID":88`} {
				if !strings.Contains(all, want) {
					t.Errorf("%s is not there: %s", want, all)
				}
			}
			for _, gone := range []string{`"there"`, `"ban"`, `"ID":6,"role"`, `{"id":6`} {
				if strings.Contains(all, gone) {
					t.Errorf("%s is there", gone)
				}
			}
			if n := len(got["apikeys"]); n != 2 || !strings.Contains(got["apikeys"][1], "00000000000000000000000000000002") {
				t.Errorf("API keys: %v", got["apikeys"])
			}
			if phone, err := d.Phone(ctx, 2, "380670000001"); err != nil || phone.ValidatedAt == nil {
				t.Errorf("the phone is not verified: %+v, %v", phone, err)
			}
			if k, err := d.TOTPKey(ctx, 1); err != nil || k.Secret != factorA {
				t.Errorf("the second factor has not come after: %v", err)
			}
		}
		off := with(later, "users", func(t *table) {
			t.set(1, "otp", 0)
			t.set(1, "updated_at", day4)
		})
		s, err := importer.Open(ctx, options(t, file(t, sql(off, style{}))))
		if err == nil {
			_, err = s.Import(ctx, d)
			s.Close()
		}
		if _, none := d.TOTPKey(ctx, 1); err != nil || !errors.Is(none, db.ErrNotFound) {
			t.Errorf("a second factor that is off at the source: %v, %v", none, err)
		}
	})
}

// An import that comes again without Vault's secrets keeps those that an earlier one found: keys go on signing, also those that have
// changed at the source since, and the report names only what has no secret.
func TestDeltaWithoutSecrets(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, d *db.DB) {
		bring(t, d, options(t, file(t, sql(invented(), style{}))))
		bare := func(o *importer.Options) { o.Secrets = noSecrets(t) }
		secret := func(kid string, active bool, want string) {
			t.Helper()
			k, err := d.APIKey(t.Context(), kid)
			if err != nil || k.Active != active || string(k.Secret) != want {
				t.Errorf("the key %s is %+v, %v", kid, k, err)
			}
		}
		const first, second = "1f34920fbd01f40072e3cf3478625540", "00000000000000000000000000000002"
		for range 2 {
			report := bring(t, d, options(t, file(t, sql(invented(), style{})), bare))
			if n := report.Rows["apikeys"].Written; n != 0 {
				t.Errorf("%d keys were written anew", n)
			}
			check(t, "reports", []any{report.Reports["apikey_without_secret"], report.Reports["otp_without_secret"]}, []any{
				[]any{"kid3"}, []any{"idb-of-an-older-prefix"},
			})
			secret("kid1", true, first)
			secret("kid2", true, second)
		}
		const day3, day4 = "2020-03-04 05:06:07", "2020-04-05 06:07:08"
		changed := func(state, at string) importer.Options {
			return options(t, file(t, sql(with(invented(), "apikeys", func(t *table) {
				t.set(1, "state", state)
				t.set(1, "updated_at", at)
			}), style{})), bare)
		}
		bring(t, d, changed("disabled", day3))
		secret("kid1", false, first)
		bring(t, d, changed("active", day4))
		secret("kid1", true, first)
	})
}

// What an import brought and somebody deleted here stays away: an API key, a rule, a label, a second factor that its owner has
// enrolled anew. What an import deletes itself, since it is gone at the source, comes when it is there again.
func TestRemovedHere(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		source := options(t, file(t, sql(invented(), style{})))
		bring(t, d, source)
		err := d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
			return errors.Join(
				tx.DeleteAPIKey(ctx, &db.APIKey{ID: 3}), tx.DeletePermission(ctx, db.Who{}, &db.Permission{ID: 5}), tx.DeleteLabel(ctx, &db.Label{ID: 2}),
				tx.DeleteTOTPKey(ctx, 1), tx.PutTOTPKey(ctx, 1, "enrolled here"),
			)
		})
		if err != nil {
			t.Fatal(err)
		}
		// Beside a source that lacks a user meanwhile, since somebody took an older dump.
		older := with(invented(), "users", func(t *table) { t.remove(4) })
		for _, o := range []importer.Options{options(t, file(t, sql(older, style{}))), source, source} {
			report := bring(t, d, o)
			if n := report.Counts["removed_here"]; n != 3 {
				t.Errorf("%d rows were reported, want 3: %v", n, report.Counts)
			}
			all := content(t, d)
			for table, gone := range map[string]string{"apikeys": `"ID":3,`, "permissions": `"id":5,`, "labels": `"ID":2,`} {
				if rows := strings.Join(all[table], "\n"); strings.Contains(rows, gone) {
					t.Errorf("%s: %s is back: %s", table, gone, rows)
				}
			}
			if k, err := d.TOTPKey(ctx, 1); err != nil || k.Secret != "enrolled here" {
				t.Errorf("the second factor that was enrolled here: %v, %v", k, err)
			}
		}
		if labels := strings.Join(content(t, d)["labels"], "\n"); !strings.Contains(labels, `"ID":6,`) || !strings.Contains(labels, `"ID":7,`) {
			t.Errorf("the labels of the user who came back: %s", labels)
		}
	})
}

// A database that is in use already is no target.
func TestRefusesForeignUsers(t *testing.T) {
	t.Parallel()
	source := file(t, sql(invented(), style{}))
	for name, make := range map[string]func(ctx context.Context, tx *db.Tx) error{
		"users": func(ctx context.Context, tx *db.Tx) error {
			return tx.InsertUser(ctx, &db.User{UID: "IDX", Email: "x@example.com", Role: "member", State: "active"})
		},
		"permissions": func(ctx context.Context, tx *db.Tx) error {
			return tx.InsertPermission(ctx, db.Who{}, &db.Permission{Role: "member", Verb: "ALL", Path: "api", Action: "ACCEPT"})
		},
	} {
		d := empty(t, "sqlite")
		if err := d.Update(t.Context(), make); err != nil {
			t.Fatal(err)
		}
		s, err := importer.Open(t.Context(), options(t, source))
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Import(t.Context(), d)
		if err == nil || !strings.Contains(err.Error(), "1 "+name+" that are not from an import") {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
		if got := content(t, d); len(got["labels"]) != 0 {
			t.Errorf("%s: something was written", name)
		}
	}
}

// A source that is not the one of the imports before is refused, and so is a second import at the same time.
func TestRefusesAnotherSource(t *testing.T) {
	t.Parallel()
	other := file(t, strings.ReplaceAll(sql(invented(), style{}), "ID", "XY"))
	d := empty(t, "postgres")
	bring(t, d, options(t, file(t, sql(invented(), style{}))))
	before := content(t, d)
	brings := func() error {
		s, err := importer.Open(t.Context(), options(t, other))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_, err = s.Import(t.Context(), d)
		return err
	}
	if err := brings(); err == nil || !strings.Contains(err.Error(), "of 4 users, 1 are in this source") {
		t.Errorf("another source: %v", err)
	}
	var second error
	err := d.Import(t.Context(), func(context.Context, *db.Import) error { second = brings(); return nil })
	if err != nil || !errors.Is(second, db.ErrImporting) {
		t.Errorf("a second import: %v, %v", err, second)
	}
	if after := content(t, d); !maps.EqualFunc(after, before, slices.Equal) {
		t.Error("something was written")
	}
}

// The comparison finds a row that is missing, one too many, and one that is different.
func TestVerifyFindsDifferences(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, d *db.DB) {
		o := options(t, file(t, sql(invented(), style{})))
		bring(t, d, o)
		for _, statement := range []string{
			"DELETE FROM activities WHERE id = 3", "UPDATE labels SET value = 'x' WHERE id = 2", "UPDATE users SET level = 9 WHERE id = 4",
			"INSERT INTO permissions (id, role, verb, path, action, created_at, updated_at, source_updated_at) SELECT 7, role, verb, path, action, created_at, updated_at, source_updated_at FROM permissions WHERE id = 5",
		} {
			if _, err := d.Bun().ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		s, err := importer.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		c, err := s.Verify(t.Context(), d)
		if err != nil || c.Equal() {
			t.Fatalf("equal: %v", err)
		}
		for table, want := range map[string][3][]int64{
			"activities": {{3}, {}, {}}, "labels": {{}, {}, {2}}, "users": {{}, {}, {4}}, "permissions": {{}, {7}, {}}, "phones": {{}, {}, {}},
		} {
			n := c.Tables[table]
			check(t, table, [3][]int64{n.Missing, n.Extra, n.Different}, want)
			if n.Equal != (table == "phones") || n.Equal != (n.SourceDigest == n.TargetDigest) {
				t.Errorf("%s: equal %v, %s and %s", table, n.Equal, n.SourceDigest, n.TargetDigest)
			}
		}
	})
}
