//go:build sample

package importer_test

import (
	"bytes"
	"compress/gzip"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
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

// The facts that the import of the sample must produce, as they are handed over with it.
type facts struct {
	Version string `json:"schema_version"`
	Rows    map[string]struct {
		InDump   int64  `json:"in_dump"`
		MaxID    int64  `json:"max_id"`
		Imported *int64 `json:"imported"`
	}
	Users        []map[string]any
	Permissions  []map[string]any
	Levels       []map[string]any
	Restrictions []map[string]any
	Reports      map[string][]any
	Activities   struct {
		Rows    int
		Samples []map[string]any
	}
	Forbidden []string `json:"must_not_appear_in_the_new_database"`
}

// sampleRules are those of the original where no barong.yml says otherwise.
var sampleRules = account.Settings{
	ActivationRequirements: map[string]string{"email": "verified"},
	StateTriggers: []account.Trigger{
		{State: "banned", Keys: []string{"ban", "fraud"}}, {State: "deleted", Keys: []string{"delete"}}, {State: "locked", Keys: []string{"suspicious", "lock"}},
	},
}

func sampleFolder(t *testing.T) string {
	t.Helper()
	folder := os.Getenv("SAMPLE")
	if folder == "" {
		folder = filepath.Join("..", "..", "..", "shared", "import")
	}
	return folder
}

func unzipped(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatalf("%v: SAMPLE names the folder of the sample, which is no part of this repository", err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A literal is a value of a dump that is no text.
type literal string

// parsed takes the sample apart without any help of the importer: its rows stand on lines of their own.
func parsed(t *testing.T, dump []byte) []table {
	t.Helper()
	created := regexp.MustCompile("(?s)CREATE TABLE `(\\w+)` \\(\n(.*?)\n\\) ENGINE")
	column := regexp.MustCompile("(?m)^  `(\\w+)` ")
	var out []table
	for _, m := range created.FindAllSubmatch(dump, -1) {
		tb := table{name: string(m[1])}
		var columns []string
		for _, c := range column.FindAllSubmatch(m[2], -1) {
			columns = append(columns, string(c[1]))
		}
		tb.columns = strings.Join(columns, " ")
		_, rest, found := bytes.Cut(dump, []byte("\nINSERT INTO `"+tb.name+"` VALUES\n"))
		if !found {
			out = append(out, tb)
			continue
		}
		for {
			var line []byte
			line, rest, _ = bytes.Cut(rest, []byte("\n"))
			tb.rows = append(tb.rows, parsedRow(t, line[1:]))
			if bytes.HasSuffix(line, []byte(");")) {
				break
			}
		}
		out = append(out, tb)
	}
	return out
}

func parsedRow(t *testing.T, line []byte) (row []any) {
	t.Helper()
	unescape := map[byte]byte{'0': 0, 'n': '\n', 'r': '\r', 't': '\t', 'b': '\b', 'Z': 0x1a}
	for {
		if line[0] == '\'' {
			var text []byte
			i := 1
			for ; line[i] != '\''; i++ {
				c := line[i]
				if c == '\\' {
					i++
					var ok bool
					if c, ok = unescape[line[i]]; !ok {
						c = line[i]
					}
				}
				text = append(text, c)
			}
			row, line = append(row, string(text)), line[i+1:]
		} else {
			i := bytes.IndexAny(line, ",)")
			if word := string(line[:i]); word == "NULL" {
				row = append(row, nil)
			} else {
				row = append(row, literal(word))
			}
			line = line[i:]
		}
		if line[0] == ')' {
			return row
		}
		line = line[1:]
	}
}

// TestSample imports the sample in each form of a dump and from a running server, into both databases, twice, and holds
// what comes of it to the facts.
func TestSample(t *testing.T) {
	folder := sampleFolder(t)
	dump := unzipped(t, filepath.Join(folder, "sample.sql.gz"))
	var want facts
	if err := json.Unmarshal(unzipped(t, filepath.Join(folder, "expected.json.gz")), &want); err != nil {
		t.Fatal(err)
	}
	tables := parsed(t, dump)
	forms := map[string]string{"as it is": file(t, string(dump)), "compressed by gzip": filepath.Join(folder, "sample.sql.gz")}
	for name, f := range dumpForms(tables) {
		forms[name] = file(t, f)
	}
	forms["a running server"] = mysqlServer(t, tables)
	for name, source := range forms {
		for _, engine := range dbtest.Engines {
			t.Run(name+"/"+engine, func(t *testing.T) {
				secrets, err := importer.NewSecrets(filepath.Join(folder, "vault.json"), filepath.Join(folder, "totp.csv"), "", "", "barong")
				if err != nil {
					t.Fatal(err)
				}
				d := empty(t, engine)
				o := importer.Options{Source: source, Secrets: secrets, Account: &sampleRules, Now: time.Now}
				report := bring(t, d, o)
				first := content(t, d)
				again := bring(t, d, o)
				if second := content(t, d); !maps.EqualFunc(first, second, slices.Equal) {
					t.Error("the second import has changed something")
				}
				for table, rows := range again.Rows {
					if rows.Written != 0 && table != "apikeys" && table != "totp_keys" { // whose secrets may have been found since
						t.Errorf("the second import wrote %d rows of %s", rows.Written, table)
					}
				}
				want.hold(t, d, report, name == "as it is" && engine == "sqlite")
			})
		}
	}
}

// hold compares a database, and the report of its import, with the facts. passwords tries those as well, which takes time.
func (want *facts) hold(t *testing.T, d *db.DB, report *importer.Report, passwords bool) {
	ctx := t.Context()
	if report.SchemaVersion != want.Version {
		t.Errorf("version %s", report.SchemaVersion)
	}
	for table, n := range want.Rows {
		got := report.Rows[table]
		if got == nil || got.InDump != n.InDump || got.MaxID != n.MaxID && n.MaxID > 0 || n.Imported != nil && got.Imported != *n.Imported {
			t.Errorf("%s: %+v, want %+v", table, got, n)
		}
	}
	same := func(what string, got, expected any) {
		t.Helper()
		g, _ := json.Marshal(got)
		w, _ := json.Marshal(expected)
		if !bytes.Equal(g, w) {
			t.Errorf("%s: %s, want %s", what, g, w)
		}
	}
	moment := func(at time.Time) string { return at.UTC().Format(time.RFC3339) }
	people := map[int64]*db.User{}
	uids := map[int64]string{}
	each := func(table string, f func(db.Importable)) {
		t.Helper()
		if err := d.EachImportable(ctx, table, func(r db.Importable) error { f(r); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	each("users", func(r db.Importable) { u := r.(*db.User); people[u.ID], uids[u.ID] = u, u.UID })
	theirs := map[string]map[int64][]map[string]any{}
	add := func(kind string, user int64, row map[string]any) {
		if theirs[kind] == nil {
			theirs[kind] = map[int64][]map[string]any{}
		}
		theirs[kind][user] = append(theirs[kind][user], row)
	}
	each("labels", func(r db.Importable) {
		l := r.(*db.Label)
		add("labels", l.UserID, map[string]any{
			"id": l.ID, "key": l.Key, "value": l.Value, "scope": l.Scope, "description": l.Description,
			"created_at": moment(l.CreatedAt), "updated_at": moment(l.UpdatedAt),
		})
	})
	states := map[int]string{db.ProfileDrafted: "drafted", db.ProfileSubmitted: "submitted", db.ProfileVerified: "verified", db.ProfileRejected: "rejected"}
	each("profiles", func(r db.Importable) {
		p := r.(*db.Profile)
		add("profiles", p.UserID, map[string]any{
			"id": p.ID, "first_name": p.FirstName, "last_name": p.LastName, "dob": p.DOB, "address": p.Address, "postcode": p.Postcode,
			"city": p.City, "country": p.Country, "state": states[p.State], "metadata": p.Metadata, "created_at": moment(p.CreatedAt),
			"updated_at": moment(p.UpdatedAt),
		})
	})
	each("phones", func(r db.Importable) {
		p := r.(*db.Phone)
		var at any
		if p.ValidatedAt != nil {
			at = moment(*p.ValidatedAt)
		}
		add("phones", p.UserID, map[string]any{"id": p.ID, "country": p.Country, "number": p.Number, "validated_at": at, "created_at": moment(p.CreatedAt)})
	})
	each("documents", func(r db.Importable) {
		x := r.(*db.Document)
		add("documents", x.UserID, map[string]any{
			"id": x.ID, "upload_name": x.UploadName, "key": x.Upload, "doc_type": x.DocType, "doc_number": x.DocNumber, "doc_expire": x.DocExpire,
			"metadata": x.Metadata, "created_at": moment(x.CreatedAt),
		})
	})
	each("data_storages", func(r db.Importable) {
		x := r.(*db.DataStorage)
		add("data_storages", x.UserID, map[string]any{"id": x.ID, "title": x.Title, "data": x.Data})
	})
	each("apikeys", func(r db.Importable) {
		k := r.(*db.APIKey)
		row := map[string]any{"id": k.ID, "kid": k.KID, "scope": k.Scope, "state": k.State, "created_at": moment(k.CreatedAt)}
		row["secret"] = string(k.Secret)
		add("api_keys", k.UserID, row)
	})
	factors := map[int64]string{}
	each("totp_keys", func(r db.Importable) { k := r.(*db.TOTPKey); factors[k.UserID] = k.Secret })
	activities := map[int64]*db.Activity{}
	each("activities", func(r db.Importable) { a := r.(*db.Activity); activities[a.ID] = a })
	if len(activities) != want.Activities.Rows {
		t.Errorf("%d activities", len(activities))
	}
	for _, s := range want.Activities.Samples {
		a := activities[int64(s["id"].(float64))]
		if a == nil {
			t.Errorf("no activity %v", s["id"])
			continue
		}
		got := map[string]any{
			"id": a.ID, "user_id": a.UserID, "target_uid": a.TargetUID, "category": a.Category, "user_ip": a.UserIP, "user_agent": a.UserAgent,
			"topic": a.Topic, "action": a.Action, "result": a.Result, "data": a.Data, "created_at": moment(a.CreatedAt),
		}
		for k, v := range got {
			if w, ok := s[k]; ok && !(k == "data" && a.Data != nil && (strings.Contains(*a.Data, "REDACTED") || strings.Contains(*a.Data, "\uFFFD"))) && !(k == "created_at" && w == nil) {
				same(fmt.Sprintf("activity %d, %s", a.ID, k), v, w)
			}
		}
	}
	hasher := password.NewHasher(password.HasherOptions{})
	if len(people) != len(want.Users) {
		t.Errorf("%d users", len(people))
	}
	for _, w := range want.Users {
		uid := w["uid"].(string)
		u := people[int64(w["id"].(float64))]
		if u == nil {
			t.Errorf("%s is missing", uid)
			continue
		}
		var referrer any
		if u.ReferralID != nil {
			referrer = uids[*u.ReferralID]
		}
		for k, v := range map[string]any{
			"uid": u.UID, "email_stored": u.Email, "role": u.Role, "level": u.Level, "state": u.State, "otp": u.OTP, "data": u.Data, "digest": u.PasswordDigest,
			"referral_uid": referrer, "created_at": moment(u.CreatedAt), "updated_at": moment(u.UpdatedAt), "state_manual": u.StateManual,
		} {
			if expected, ok := w[k]; ok {
				same(uid+", "+k, v, expected)
			}
		}
		if secret, ok := w["totp_secret"].(string); ok && factors[u.ID] != secret {
			t.Errorf("%s: another second factor", uid)
		}
		if text, ok := w["password"].(string); ok && passwords {
			if right, _, err := hasher.Verify(ctx, u.PasswordDigest, text); (err == nil && right) != strings.HasPrefix(u.PasswordDigest, "$2") {
				t.Errorf("%s: the password: %v, %v", uid, right, err)
			}
		}
		for _, kind := range []string{"labels", "profiles", "phones", "documents", "data_storages", "api_keys"} {
			expected, _ := w[kind].([]any)
			got := theirs[kind][u.ID]
			if len(got) != len(expected) {
				t.Errorf("%s has %d %s, want %d", uid, len(got), kind, len(expected))
				continue
			}
			for i, e := range expected {
				e := e.(map[string]any)
				for k, v := range got[i] {
					if x, ok := e[k]; ok && !(k == "secret" && x == nil) {
						same(fmt.Sprintf("%s, %s %v, %s", uid, kind, e["id"], k), v, x)
					}
				}
				if vector, ok := e["vector"].(map[string]any); ok {
					mac := hmac.New(sha256.New, []byte(got[i]["secret"].(string)))
					mac.Write([]byte(vector["nonce"].(string) + got[i]["kid"].(string)))
					if hex.EncodeToString(mac.Sum(nil)) != vector["signature"] {
						t.Errorf("%s: the key %v signs in another way", uid, e["kid"])
					}
				}
			}
		}
	}
	var permissions, levels, restrictions []map[string]any
	each("permissions", func(r db.Importable) {
		p := r.(*db.Permission)
		permissions = append(permissions, map[string]any{"id": p.ID, "action": p.Action, "role": p.Role, "verb": p.Verb, "path": p.Path, "topic": p.Topic})
	})
	each("levels", func(r db.Importable) {
		l := r.(*db.Level)
		levels = append(levels, map[string]any{"id": l.ID, "key": l.Key, "value": l.Value, "description": l.Description})
	})
	each("restrictions", func(r db.Importable) {
		x := r.(*db.Restriction)
		restrictions = append(restrictions, map[string]any{"id": x.ID, "category": x.Category, "scope": x.Scope, "value": x.Value, "code": x.Code, "state": x.State})
	})
	same("permissions", permissions, want.Permissions)
	same("levels", levels, want.Levels)
	same("restrictions", restrictions, want.Restrictions)

	var told map[string][]any
	text, err := json.Marshal(report.Reports)
	if err == nil {
		err = json.Unmarshal(text, &told)
	}
	if err != nil {
		t.Fatal(err)
	}
	for kind, expected := range want.Reports {
		for _, e := range expected {
			if !slices.ContainsFunc(told[kind], func(g any) bool { return agree(g, e) }) {
				t.Errorf("the report does not tell of %s: %v, but %v", kind, e, told[kind])
			}
		}
		if len(told[kind]) != len(expected) {
			t.Errorf("the report tells of %d %s, want %d", len(told[kind]), kind, len(expected))
		}
	}
	all := strings.Join(slices.Concat(slices.Collect(maps.Values(content(t, d)))...), "\n") + string(text)
	for _, word := range want.Forbidden {
		if strings.Contains(all, word) {
			t.Errorf("%s is in the new database, or in the report", word)
		}
	}
	if path, ok := strings.CutPrefix(d.URL(), "sqlite://"); ok {
		for _, suffix := range []string{"", "-wal"} {
			raw, err := os.ReadFile(path + suffix)
			if err != nil {
				t.Fatal(err)
			}
			for _, word := range want.Forbidden {
				if bytes.Contains(raw, []byte(word)) {
					t.Errorf("%s is in the file of the database%s", word, suffix)
				}
			}
		}
	}
}

// agree reports whether two items are equal in what both tell.
func agree(got, want any) bool {
	g, ok1 := got.(map[string]any)
	w, ok2 := want.(map[string]any)
	if !ok1 || !ok2 {
		return got == want
	}
	common := 0
	for k, v := range w {
		if x, ok := g[k]; ok {
			if fmt.Sprint(x) != fmt.Sprint(v) && k != "why" && k != "note" {
				return false
			}
			common++
		}
	}
	return common > 0
}
