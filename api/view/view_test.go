package view_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"barong/api/view"
	"barong/db"
	"barong/internal/crypto/secret"
	"barong/internal/test/dbtest"
)

const at = `"2026-03-01T12:00:00Z"`

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ptr[T any](v T) *T { return &v }

func is(t *testing.T, what string, got any, want string) {
	t.Helper()
	b, err := json.Marshal(got)
	must(t, err)
	if string(b) != want {
		t.Errorf("%s: got\n%s\nwant\n%s", what, b, want)
	}
}

// people fills a database with a referrer and n users who have one of everything.
func people(t *testing.T, engine string, n int) (*db.DB, []db.User) {
	t.Helper()
	box, err := secret.New(secret.NewKey())
	must(t, err)
	now := time.Date(2026, 3, 1, 12, 0, 0, 700, time.UTC)
	d := dbtest.Open(t, engine, db.Options{Sealer: box, Now: func() time.Time { return now }})
	must(t, d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		root := db.User{UID: "IDROOT", Email: "root@example.com", PasswordDigest: "x", Role: "superadmin", State: "active"}
		if err := tx.InsertUser(ctx, &root); err != nil {
			return err
		}
		for i := range n {
			u := db.User{
				UID: fmt.Sprintf("ID%d", i), Email: fmt.Sprintf("u%d@example.com", i), PasswordDigest: "x", Role: "member",
				State: "pending", Data: ptr(`{"language":"en"}`), ReferralID: &root.ID,
			}
			if err := tx.InsertUser(ctx, &u); err != nil {
				return err
			}
			verified := tx.Now()
			doc := &db.Document{UserID: u.ID, DocType: ptr("Passport"), DocNumber: ptr("AA1"), DocExpire: ptr("3020-01-22"), Metadata: ptr("{}"), Upload: ptr("1/x.png"), ContentType: ptr("image/png")}
			for _, insert := range []func() error{
				func() error {
					return tx.InsertLabel(ctx, &db.Label{UserID: u.ID, Key: "email", Value: "verified", Scope: "private", Description: ptr("why")})
				},
				func() error {
					return tx.InsertPhone(ctx, &db.Phone{UserID: u.ID, Country: "GB", Number: fmt.Sprintf("44741808%04d", i), ValidatedAt: &verified})
				},
				func() error {
					return tx.InsertProfile(ctx, &db.Profile{
						UserID: u.ID, FirstName: ptr("Anna"), DOB: ptr("1990-02-28"), State: db.ProfileVerified, Metadata: ptr(`{"a": {"b":[1]}}`),
					})
				},
				func() error { return tx.InsertDocument(ctx, doc) },
				func() error {
					return tx.InsertDataStorage(ctx, &db.DataStorage{UserID: u.ID, Title: "personal", Data: `{"a":1}`})
				},
			} {
				if err := insert(); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	users, _, err := d.FindUsers(t.Context(), db.UserFilter{Role: ptr("member")}, db.Page{Number: 1, Size: 100})
	must(t, err)
	return d, users
}

func builder(d *db.DB, legacy bool) *view.Builder {
	return &view.Builder{DB: d, Legacy: legacy, FileURL: func(key string) string { return "https://files.example/" + key }}
}

const (
	profile = `{"first_name":"Anna","last_name":null,"dob":"1990-02-28","address":null,"postcode":null,"city":null,"country":null,` +
		`"state":"verified","metadata":%s,"created_at":` + at + `,"updated_at":` + at + `}`
	phone   = `{"country":"GB","number":"447418080000","validated_at":"2026-03-01T12:00:00.000Z"}`
	storage = `{"title":"personal","data":"{\"a\":1}","created_at":` + at + `,"updated_at":` + at + `}`
)

func TestUsers(t *testing.T) {
	for _, engine := range dbtest.Engines {
		d, users := people(t, engine, 1)
		u := &users[0]
		for _, legacy := range []bool{false, true} {
			b := builder(d, legacy)
			shown := fmt.Sprintf(profile, map[bool]string{false: `{"a":{"b":[1]}}`, true: `"{\"a\": {\"b\":[1]}}"`}[legacy])
			upload := map[bool]string{false: `"https://files.example/1/x.png"`, true: `{"url":"https://files.example/1/x.png"}`}[legacy]
			what := fmt.Sprintf("%s, legacy %v: ", engine, legacy)

			full, err := b.FullInfo(t.Context(), u, "")
			must(t, err)
			rest := `"data":"{\"language\":\"en\"}","created_at":` + at + `,"updated_at":` + at + `,` +
				`"labels":[{"key":"email","value":"verified","scope":"private","created_at":` + at + `,"updated_at":` + at + `}],` +
				`"phones":[` + phone + `],"profiles":[` + shown + `],"data_storages":[` + storage + `]}`
			head := `{"email":"u0@example.com","uid":"ID0","role":"member","level":0,"otp":false,"state":"pending","referral_uid":"IDROOT",`
			is(t, what+"UserWithFullInfo", full, head+rest)
			full, err = b.FullInfo(t.Context(), u, "0123456789abcdef0123")
			must(t, err)
			is(t, what+"UserWithFullInfo with session", full, head+`"csrf_token":"0123456789abcdef0123",`+rest)

			short, err := b.Users(t.Context(), users)
			must(t, err)
			is(t, what+"User", short, `[`+head+`"data":"{\"language\":\"en\"}"}]`)

			head = `{"email":"u0@example.com","uid":"ID0","role":"member","level":0,"otp":false,"state":"pending",` +
				`"data":"{\"language\":\"en\"}","profiles":[` + shown + `],`
			tail := `"referral_uid":"IDROOT","created_at":` + at + `,"updated_at":` + at + `}`
			extended, err := b.UsersWithProfile(t.Context(), users)
			must(t, err)
			is(t, what+"UserWithProfile", extended, `[`+head+tail+`]`)

			all, err := b.UserWithKYC(t.Context(), u)
			must(t, err)
			is(t, what+"UserWithKYC", all, head+
				`"labels":[{"key":"email","value":"verified","scope":"private","description":"why","created_at":`+at+`,"updated_at":`+at+`}],`+
				`"phones":[`+phone+`],"documents":[{"upload":`+upload+`,"doc_type":"Passport","doc_number":"AA1","doc_expire":"3020-01-22",`+
				`"metadata":"{}","created_at":`+at+`,"updated_at":`+at+`}],"data_storages":[`+storage+`],`+tail)

			documents, err := d.Documents(t.Context(), u.ID)
			must(t, err)
			own := `,"metadata":"{}","created_at":` + at + `,"updated_at":` + at
			if legacy {
				own = ""
			}
			is(t, what+"own documents", b.OwnDocuments(documents),
				`[{"upload":`+upload+`,"doc_type":"Passport","doc_number":"AA1","doc_expire":"3020-01-22"`+own+`}]`)
		}
		nobody, err := builder(d, false).Users(t.Context(), nil)
		must(t, err)
		is(t, "no users", nobody, `[]`)
		root, err := d.UserByUID(t.Context(), "IDROOT")
		must(t, err)
		empty, err := builder(d, false).UserWithKYC(t.Context(), root)
		must(t, err)
		is(t, "a user without anything", empty, `{"email":"root@example.com","uid":"IDROOT","role":"superadmin","level":0,"otp":false,`+
			`"state":"active","data":null,"profiles":[],"labels":[],"phones":[],"documents":[],"data_storages":[],"referral_uid":null,`+
			`"created_at":`+at+`,"updated_at":`+at+`}`)
	}
}

func TestMetadata(t *testing.T) {
	for _, c := range []struct {
		text            *string
		value, asLegacy string
	}{
		{nil, "null", "null"},
		{ptr(`{"a":1}`), `{"a":1}`, `"{\"a\":1}"`},
		{ptr(`[1, 2]`), `[1,2]`, `"[1, 2]"`},
		{ptr(`5`), `5`, `"5"`},
		{ptr(`"x"`), `"x"`, `"\"x\""`},
		{ptr(`null`), `null`, `"null"`},
		{ptr(`no json`), `"no json"`, `"no json"`}, // imported
		{ptr(``), `""`, `""`},
	} {
		p := &db.Profile{Metadata: c.text}
		is(t, "metadata", (&view.Builder{}).NewProfile(p).Metadata, c.value)
		is(t, "metadata, legacy", (&view.Builder{Legacy: true}).NewProfile(p).Metadata, c.asLegacy)
	}
}

func TestAPIKey(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	k := &db.APIKey{KID: "504c76977710c01c", Algorithm: "HS256", State: "active", Secret: "0f8d", CreatedAt: now, UpdatedAt: now}
	head := `{"kid":"504c76977710c01c","algorithm":"HS256","scope":[],"state":"active",`
	tail := `"created_at":` + at + `,"updated_at":` + at + `}`
	is(t, "listed", view.NewAPIKey(k), head+tail)
	is(t, "created", (&view.Builder{}).NewAPIKeyWithSecret(k), head+`"secret":"0f8d",`+tail)
	is(t, "created, legacy", (&view.Builder{Legacy: true}).NewAPIKeyWithSecret(k), head+`"secret":{"auth":null,"data":{"value":"0f8d"},`+
		`"lease_duration":2764800,"lease_id":"","metadata":null,"renewable":false,"warnings":null,"wrap_info":null},`+tail)
}

func TestRules(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const ms = `"2026-03-01T12:00:00.000Z"`
	is(t, "permissions", view.Permissions([]db.Permission{{
		ID: 1, Role: "admin", Verb: "ALL", Path: "api/v2", Action: "ACCEPT", CreatedAt: now, UpdatedAt: now,
	}}), `[{"id":1,"action":"ACCEPT","role":"admin","verb":"ALL","path":"api/v2","topic":null,"created_at":`+ms+`,"updated_at":`+ms+`}]`)
	is(t, "restrictions", view.Restrictions([]db.Restriction{{
		ID: 1, Category: "blacklist", Scope: "ip", Value: "192.0.2.1", Code: ptr(401), State: "enabled", CreatedAt: now, UpdatedAt: now,
	}}), `[{"id":1,"category":"blacklist","scope":"ip","value":"192.0.2.1","code":401,"state":"enabled","created_at":`+ms+`,"updated_at":`+ms+`}]`)
	is(t, "levels", view.Levels([]db.Level{{ID: 1, Key: "email", Value: ptr("verified")}}), `[{"id":1,"key":"email","value":"verified"}]`)
	is(t, "no levels", view.Levels(nil), `[]`)
}

func TestActivities(t *testing.T) {
	d, users := people(t, "sqlite", 1)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	row := db.Activity{
		ID: 7, UserID: users[0].ID, Category: "user", UserIP: "192.0.2.7", UserAgent: "x", Topic: "session", Action: "login",
		Result: "failed", Data: ptr(`{"reason":"no"}`), Count: 1, CreatedAt: now,
	}
	fields := `"user_ip":"192.0.2.7","user_agent":"x","topic":"session","action":"login","result":"failed","data":"{\"reason\":\"no\"}",`
	is(t, "own", builder(d, false).Activities([]db.Activity{row}), `[{`+fields+`"created_at":`+at+`}]`)
	is(t, "own, legacy", builder(d, true).Activities([]db.Activity{row}), fmt.Sprintf(
		`[{"id":7,"user_id":%d,"target_uid":null,"category":"user",%s"created_at":"2026-03-01T12:00:00.000Z"}]`, users[0].ID, fields))

	const user = `{"email":"u0@example.com","uid":"ID0","role":"member","level":0,"otp":false,"state":"pending",` +
		`"referral_uid":"IDROOT","data":"{\"language\":\"en\"}"}`
	const root = `{"email":"root@example.com","uid":"IDROOT","role":"superadmin","level":0,"otp":false,"state":"active",` +
		`"referral_uid":null,"data":null}`
	gone := row
	gone.UserID = 999
	listed, err := builder(d, false).ActivitiesWithUser(t.Context(), []db.Activity{row, gone})
	must(t, err)
	is(t, "for staff", listed, `[{`+fields+`"user":`+user+`,"created_at":`+at+`},{`+fields+`"user":null,"created_at":`+at+`}]`)

	row.TargetUID, gone.TargetUID, gone.UserID = ptr("IDROOT"), ptr("IDGONE"), row.UserID
	admin, err := builder(d, false).AdminActivities(t.Context(), []db.Activity{row, gone})
	must(t, err)
	is(t, "of staff", admin, `[{`+fields+`"admin":`+user+`,"target":`+root+`,"created_at":`+at+`},`+
		`{`+fields+`"admin":`+user+`,"target":null,"created_at":`+at+`}]`)
}

// counting counts the reads, each of which is one query.
type counting struct {
	view.Reader
	n int
}

func (c *counting) UsersByID(ctx context.Context, ids ...int64) ([]db.User, error) {
	c.n++
	return c.Reader.UsersByID(ctx, ids...)
}

func (c *counting) UsersByUID(ctx context.Context, uids ...string) ([]db.User, error) {
	c.n++
	return c.Reader.UsersByUID(ctx, uids...)
}

func (c *counting) ReferrerUIDs(ctx context.Context, ids []int64) (map[int64]string, error) {
	c.n++
	return c.Reader.ReferrerUIDs(ctx, ids)
}

func (c *counting) Labels(ctx context.Context, ids ...int64) ([]db.Label, error) {
	c.n++
	return c.Reader.Labels(ctx, ids...)
}

func (c *counting) Phones(ctx context.Context, ids ...int64) ([]db.Phone, error) {
	c.n++
	return c.Reader.Phones(ctx, ids...)
}

func (c *counting) Profiles(ctx context.Context, ids ...int64) ([]db.Profile, error) {
	c.n++
	return c.Reader.Profiles(ctx, ids...)
}

func (c *counting) Documents(ctx context.Context, ids ...int64) ([]db.Document, error) {
	c.n++
	return c.Reader.Documents(ctx, ids...)
}

func (c *counting) DataStorages(ctx context.Context, ids ...int64) ([]db.DataStorage, error) {
	c.n++
	return c.Reader.DataStorages(ctx, ids...)
}

// TestQueriesDoNotGrow: a page of many users costs as many queries as a page of one.
func TestQueriesDoNotGrow(t *testing.T) {
	d, users := people(t, "sqlite", 20)
	var rows []db.Activity
	for i := range users {
		rows = append(rows, db.Activity{UserID: users[i].ID, TargetUID: &users[i].UID})
	}
	counter := &counting{Reader: d}
	b := builder(d, false)
	b.DB = counter
	for name, show := range map[string]func(n int) error{
		"Users":            func(n int) error { _, err := b.Users(t.Context(), users[:n]); return err },
		"UsersWithProfile": func(n int) error { _, err := b.UsersWithProfile(t.Context(), users[:n]); return err },
		"UsersWithKYC":     func(n int) error { _, err := b.UsersWithKYC(t.Context(), users[:n]); return err },
		"ActivitiesWithUser": func(n int) error {
			_, err := b.ActivitiesWithUser(t.Context(), rows[:n])
			return err
		},
		"AdminActivities": func(n int) error { _, err := b.AdminActivities(t.Context(), rows[:n]); return err },
	} {
		var counts []int
		for _, n := range []int{1, 20} {
			counter.n = 0
			must(t, show(n))
			counts = append(counts, counter.n)
		}
		if counts[0] == 0 || counts[0] != counts[1] {
			t.Errorf("%s: %d queries for one user, %d for twenty", name, counts[0], counts[1])
		}
	}
}
