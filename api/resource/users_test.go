package resource_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"barong/api/account"
	"barong/api/resource"
	"barong/db"
	"barong/internal/test/apitest"
)

func TestMe(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		ref := e.NewUser(t, nil)
		u := e.NewUser(t, func(u *db.User) { u.ReferralID = &ref.ID })
		me := b.Get(t, "/resource/users/me", apitest.As(u)).Want(t, 200)
		want := []string{
			"email", "uid", "role", "level", "otp", "state", "referral_uid", "data", "created_at", "updated_at", "labels", "phones",
			"profiles", "data_storages",
		}
		if got := me.Keys(t); !slices.Equal(got, want) {
			t.Errorf("members %q", got)
		}
		if got := me.Object(t); got["uid"] != u.UID || got["referral_uid"] != ref.UID || got["data"] != nil {
			t.Errorf("me: %v", got)
		}
		if a := b.Do(t, "HEAD", "/resource/users/me", apitest.As(u)); a.Status != 200 || a.Body != "" {
			t.Errorf("HEAD: %d %q", a.Status, a.Body)
		}

		put := func(o apitest.Option) *apitest.Answer { return b.Put(t, "/resource/users/me", apitest.As(u), o) }
		if got := put(apitest.Form("data", `{"bar":"baz"}`, "role", "superadmin")).Want(t, 201).Object(t); got["data"] != `{"bar":"baz"}` || got["role"] != "member" {
			t.Errorf("data: %v", got)
		}
		b.wantEvents(t, "model.user.updated")
		put(apitest.Form("data", `{"bar":"baz"}`)).Want(t, 201)
		b.wantEvents(t)
		put(apitest.JSON(map[string]any{"data": 5})).Want(t, 201)
		object := apitest.JSON(map[string]any{"data": map[string]any{"a": "<b>"}})
		if got := put(object).Want(t, 201).Object(t)["data"]; got != `{"a":"<b>"}` {
			t.Errorf("an object is not stored as its text: %v", got)
		}
		start(t, e, legacy).Put(t, "/resource/users/me", apitest.As(u), object).Want(t, 422, "invalid")
		for _, c := range []struct {
			option apitest.Option
			codes  []string
		}{
			{apitest.Form(), []string{"resource.user.missing_data", "resource.user.empty_data"}},
			{apitest.Form("data", " "), []string{"resource.user.empty_data"}},
			{apitest.JSON(map[string]any{"data": nil}), []string{"resource.user.empty_data"}},
			{apitest.JSON(map[string]any{"data": []string{"x"}}), []string{"invalid"}},
			{apitest.JSON(map[string]any{"data": map[string]string{"a": strings.Repeat("ж", 1017)}}), []string{"data.too_long"}},
			{apitest.Form("data", "{"), []string{"data.invalid_format"}},
			{apitest.Form("data", `{"a":"`+strings.Repeat("ж", 1017)+`"}`), []string{"data.too_long"}},
			{apitest.Form("data", strings.Repeat("x", 1025)), []string{"data.too_long", "data.invalid_format"}},
		} {
			put(c.option).Want(t, 422, c.codes...)
		}
		put(apitest.Form("data", `{"a":"`+strings.Repeat("ж", 1016)+`"}`)).Want(t, 201)
		put(apitest.Body("application/json", "{bad")).Want(t, 400, "request.malformed_body")
		b.wantActivities(t, u)
	})
}

func TestDeleteMe(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		u := b.member(t)
		secret := e.Enable2FA(t, u)
		cookie, elsewhere := b.signIn(t, u), b.signIn(t, u)
		e.Update(t, func(ctx context.Context, tx *db.Tx) error {
			return tx.InsertAPIKey(ctx, &db.APIKey{UserID: u.ID, KID: "k1", Algorithm: "HS256", State: "active", Secret: "s"})
		})
		del := func(pairs ...string) *apitest.Answer {
			return b.Delete(t, "/resource/users/me", apitest.As(u), apitest.Query(pairs...), apitest.Cookie(cookieName, cookie))
		}
		del().Want(t, 422, "resource.user.missing_password", "resource.user.empty_password")
		del("password", " ").Want(t, 422, "resource.user.empty_password")
		del("password", apitest.Password, "otp_code", "").Want(t, 422, "resource.user.empty_otp_code")
		del("password", "wrong", "otp_code", "123456").Want(t, 422, "resource.user.invalid_password")
		del("password", apitest.Password).Want(t, 422, "resource.user.missing_otp_code")
		del("password", apitest.Password, "otp_code", e.WrongCode(t, secret)).Want(t, 422, "resource.user.invalid_otp")
		b.Delete(t, "/resource/users/me", apitest.As(u), apitest.JSON(map[string]any{"password": []string{"x"}, "otp_code": map[string]int{}})).
			Want(t, 422, "invalid", "invalid", "resource.user.empty_otp_code")
		b.wantUser(t, u, 1, "active", true)

		used := e.Code(t, secret, 0)
		if err := e.Accounts.VerifyTOTP(t.Context(), u, used); err != nil {
			t.Fatal(err)
		}
		del("password", apitest.Password, "otp_code", used).Want(t, 422, "totp.error")
		e.Events()
		a := b.Delete(t, "/resource/users/me", apitest.As(u), apitest.Cookie(cookieName, cookie),
			apitest.Form("password", apitest.Password, "otp_code", e.Code(t, secret, 1))).WantBody(t, 204, "")
		if c := a.SetCookie(cookieName); c == nil || c.Value != "" || c.MaxAge >= 0 {
			t.Errorf("the browser keeps its cookie: %v", c)
		}
		b.wantUser(t, u, 1, "deleted", true)
		b.wantLabels(t, u, "private delete:by_user", "private email:verified")
		b.wantEvents(t, "model.user.updated", "model.label.created", "system.user.account.deleted")
		b.wantMails(t, "user.account.deleted")
		b.wantActivities(t, u, "user / delete / succeed")
		if b.alive(t, cookie) || b.alive(t, elsewhere) {
			t.Error("a session outlives its account")
		}
		if k, err := e.DB.APIKey(t.Context(), "k1"); err != nil || k.Active {
			t.Errorf("API key: %+v, %v", k, err)
		}
		del("password", apitest.Password).Want(t, 401, "authz.user_not_active")

		// Without a second factor, and the answer of the last release.
		plain := b.member(t)
		start(t, e, legacy).Delete(t, "/resource/users/me", apitest.As(plain), apitest.Query("password", apitest.Password)).WantBody(t, 200, "200")
		b.wantUser(t, plain, 1, "deleted", false)

		// Somebody must be left to look after the rest.
		root := e.NewStaff(t, "superadmin")
		b.Delete(t, "/resource/users/me", apitest.As(root), apitest.Query("password", apitest.Password)).Want(t, 422, "admin.permission.last_superadmin")
		b.wantUser(t, root, 0, "active", false)
		b.wantLabels(t, root)
	})
}

// TestGuesses holds the limits on what a stolen session could be used to guess.
func TestGuesses(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	b := start(t, e)
	u := e.NewUser(t, nil)
	secret := e.Enable2FA(t, u)
	for range 20 {
		b.Delete(t, "/resource/users/me", apitest.As(u), apitest.Query("password", "wrong")).Want(t, 422, "resource.user.invalid_password")
	}
	limited := b.Delete(t, "/resource/users/me", apitest.As(u), apitest.Query("password", apitest.Password)).Want(t, 429, "request.rate_limited")
	if limited.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	change := apitest.Form("old_password", apitest.Password, "new_password", fresh, "confirm_password", fresh)
	b.Put(t, "/resource/users/password", apitest.As(u), change).Want(t, 429, "request.rate_limited")
	e.Clock.Advance(16 * time.Minute)
	b.Put(t, "/resource/users/password", apitest.As(u), change).Want(t, 201)

	for range 5 {
		b.Post(t, "/resource/otp/verify", apitest.As(u), apitest.Form("code", e.WrongCode(t, secret))).Want(t, 422, "resource.otp.invalid")
	}
	good := e.Code(t, secret, 0)
	for _, path := range []string{"verify", "disable", "recovery_codes"} {
		b.Post(t, "/resource/otp/"+path, apitest.As(u), apitest.Form("code", good)).Want(t, 429, "request.rate_limited")
	}
	b.Post(t, "/resource/api_keys", apitest.As(u), apitest.Form("algorithm", "HS256", "totp_code", good)).Want(t, 429, "request.rate_limited")
	b.Patch(t, "/resource/api_keys/k", apitest.As(u), apitest.Form("totp_code", good)).Want(t, 429, "request.rate_limited")
	b.Delete(t, "/resource/api_keys/k", apitest.As(u), apitest.Query("totp_code", good)).Want(t, 429, "request.rate_limited")
	b.Delete(t, "/resource/users/me", apitest.As(u), apitest.Query("password", fresh, "otp_code", good)).Want(t, 429, "request.rate_limited")

	// A secret that is still pending is guessed at no more often.
	pending := e.NewUser(t, nil)
	b.Post(t, "/resource/otp/generate_qrcode", apitest.As(pending)).Want(t, 201)
	for range 5 {
		b.Post(t, "/resource/otp/enable", apitest.As(pending), apitest.Form("code", "12345")).Want(t, 422, "resource.otp.invalid") // no guess
		b.Post(t, "/resource/otp/enable", apitest.As(pending), apitest.Form("code", "000000")).Want(t, 422, "resource.otp.invalid")
	}
	b.Post(t, "/resource/otp/enable", apitest.As(pending), apitest.Form("code", "12345")).Want(t, 422, "resource.otp.invalid")
	b.Post(t, "/resource/otp/enable", apitest.As(pending), apitest.Form("code", "000000")).Want(t, 429, "request.rate_limited")
}

const fresh = "Wm3#kdPq81zRo"

func TestChangePassword(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b, old := start(t, e), start(t, e, legacy)
		u := e.NewUser(t, nil)
		cookie, elsewhere := b.signIn(t, u), b.signIn(t, u)
		put := func(b *bench, o apitest.Option) *apitest.Answer {
			return b.Put(t, "/resource/users/password", apitest.As(u), apitest.Cookie(cookieName, cookie), o)
		}
		missing := []string{
			"resource.user.missing_old_password", "resource.user.empty_old_password", "resource.user.missing_new_password",
			"resource.user.empty_new_password", "resource.user.missing_confirm_password", "resource.user.empty_confirm_password",
		}
		put(b, apitest.Form()).Want(t, 400, missing...)
		put(old, apitest.Form()).Want(t, 422, missing...)
		put(b, apitest.Form("old_password", "", "new_password", " ", "confirm_password", "")).
			Want(t, 400, missing[1], missing[3], missing[5])
		put(b, apitest.JSON(map[string]any{"old_password": []int{1}, "new_password": "a", "confirm_password": "b", "lang": []int{1}})).
			Want(t, 422, "invalid", "invalid")
		b.wantActivities(t, u)
		three := func(old, fresh, confirm string) apitest.Option {
			return apitest.Form("old_password", old, "new_password", fresh, "confirm_password", confirm)
		}
		long := "Aa1" + strings.Repeat("x", 78)
		put(b, three("wrong", fresh, fresh+"x")).Want(t, 422, "resource.password.doesnt_match")
		put(b, three("wrong", fresh, fresh)).Want(t, 400, "resource.password.prev_pass_not_correct")
		put(b, three(apitest.Password, apitest.Password, apitest.Password)).Want(t, 400, "resource.password.no_change_provided")
		put(b, three(apitest.Password, "password", "password")).Want(t, 422, "password.requirements")
		put(b, three(apitest.Password, "Passw0rd!", "Passw0rd!")).Want(t, 422, "password.weak")
		put(b, three(apitest.Password, long, long)).Want(t, 422, "password.too_long", "password.requirements")
		if !b.alive(t, elsewhere) {
			t.Error("a refused change ended a session")
		}
		failed := "password / password change / failed "
		b.wantActivities(
			t, u, failed+`{"reason":"New passwords don't match"}`, failed+`{"reason":"Previous password is not correct"}`,
			failed+`{"reason":"New password cant be the same, as old one"}`, failed+`{"reason":"Password requirements"}`, failed+`{"reason":"Password weak"}`,
			failed+`{"reason":"Password is too long (maximum is 72 characters) and Password requirements"}`,
		)
		b.wantEvents(t)
		put(b, apitest.JSON(map[string]any{"old_password": apitest.Password, "new_password": fresh, "confirm_password": fresh, "lang": "ru"})).
			WantBody(t, 201, "201")
		for _, event := range b.wantEvents(t, "model.user.updated", "system.user.password.change")[1:] {
			var record struct{ Language string }
			if err := json.Unmarshal(event.Record, &record); err != nil || record.Language != "RU" {
				t.Errorf("event %s, %v", event.Record, err)
			}
		}
		b.wantMails(t, "user.password.change")
		if got := b.activities(t, u); got[len(got)-1] != "password / password change / succeed" || len(got) != 7 {
			t.Errorf("activities %q", got)
		}
		if !b.alive(t, cookie) || b.alive(t, elsewhere) {
			t.Error("the other session is to end, and this one to stay")
		}
		ok, err := e.Accounts.VerifyPassword(t.Context(), e.Fresh(t, u), fresh)
		if err != nil || !ok {
			t.Errorf("the new password: %v, %v", ok, err)
		}
		// Two changes at once cannot both replace the password that they prove.
		token := e.Token(t, u)
		wantCount(t, atOnce(2, func(i int) int {
			next := fmt.Sprintf("Wm3kdPq81zRo%d", i)
			return b.call(t, "PUT", "/resource/users/password", form, token,
				[]byte("old_password=Wm3%23kdPq81zRo&new_password="+next+"&confirm_password="+next))
		}), map[int]int{201: 1, 400: 1})
	})
}

func TestActivity(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b, old := start(t, e), start(t, e, legacy)
		u := e.NewUser(t, nil)
		get := func(topic string, o ...apitest.Option) *apitest.Answer {
			return b.Get(t, "/resource/users/activity/"+topic, append(o, apitest.As(u))...)
		}
		get("all").Want(t, 422, "resource.user.no_activity")
		get("all", apitest.Query("result", "failed")).WantBody(t, 200, "[]")
		c := e.Accounts.Client(netip.MustParseAddr("127.0.0.1"), apitest.UserAgent)
		record := func(topic, action, result, reason string) {
			t.Helper()
			if err := e.Accounts.Update(t.Context(), func(ctx context.Context, un *account.Unit) error {
				return un.Record(ctx, u, c, topic, action, result, reason)
			}); err != nil {
				t.Fatal(err)
			}
		}
		record("account", "signup", account.Succeed, "")
		record("session", "login", account.Failed, "Invalid Email or Password")
		begin := e.Clock.Now().Unix()
		e.Clock.Advance(time.Hour)
		record("session", "login", account.Succeed, "")
		record("password", "password change", account.Succeed, "")

		all := get("all").Want(t, 200)
		if total := all.Header.Get("Total"); total != "4" {
			t.Errorf("Total %s", total)
		}
		list := all.List(t)
		if len(list) != 4 || list[0]["topic"] != "password" || list[3]["action"] != "signup" {
			t.Fatalf("all: %s", all.Body)
		}
		var raw []json.RawMessage
		all.Decode(t, &raw)
		want := []string{"user_ip", "user_agent", "topic", "action", "result", "data", "created_at"}
		if keys := apitest.ObjectKeys(t, string(raw[2])); !slices.Equal(keys, want) || list[2]["data"] != `{"reason":"Invalid Email or Password"}` {
			t.Errorf("item %s", raw[2])
		}
		old.Get(t, "/resource/users/activity/all", apitest.As(u)).Want(t, 200).Decode(t, &raw)
		want = []string{
			"id", "user_id", "target_uid", "category", "user_ip", "user_agent", "topic", "action", "result", "data", "created_at",
		}
		if keys := apitest.ObjectKeys(t, string(raw[0])); !slices.Equal(keys, want) {
			t.Errorf("item of the last release %s", raw[0])
		}
		for topic, n := range map[string]int{"session": 2, "password": 1, "account": 1} {
			if got := get(topic).Want(t, 200).List(t); len(got) != n {
				t.Errorf("%s: %v", topic, got)
			}
		}
		get("otp").Want(t, 422, "resource.user.no_activity")
		get("otp", apitest.Query("time_from", "0")).WantBody(t, 200, "[]")
		for _, topic := range []string{"nothing", "ALL", "api_key"} {
			get(topic).Want(t, 422, "resource.user.wrong_topic")
		}
		get("%20").Want(t, 422, "resource.user.empty_topic")
		b.Get(t, "/resource/users/activity", apitest.As(u)).WantBody(t, 404, `{"error":"Route is not found"}`)
		for _, c := range []struct {
			query []string
			n     int
		}{
			{[]string{"result", "failed"}, 1},
			{[]string{"result", "denied"}, 0},
			{[]string{"time_from", fmt.Sprint(begin + 60)}, 2},
			{[]string{"time_to", fmt.Sprint(begin + 60)}, 2},
			{[]string{"time_from", fmt.Sprint(begin - 60), "time_to", fmt.Sprint(begin + 60), "result", "succeed"}, 1},
			{[]string{"time_from", "9223372036854775807"}, 0},
			{[]string{"time_to", "-9223372036854775808"}, 0},
			{[]string{"time_from", "-9223372036854775808", "time_to", "9223372036854775807"}, 4},
			{[]string{"limit", "3"}, 3},
			{[]string{"limit", "3", "page", "2"}, 1},
			{[]string{"page", "9"}, 0},
		} {
			if got := get("all", apitest.Query(c.query...)).Want(t, 200).List(t); len(got) != c.n {
				t.Errorf("%q: %d rows, want %d", c.query, len(got), c.n)
			}
		}
		for _, c := range []struct {
			query []string
			codes []string
		}{
			{[]string{"page", "abc"}, []string{"non_integer_page", "non_positive_page"}},
			{[]string{"page", ""}, []string{"non_positive_page"}},
			{[]string{"limit", "1.5"}, []string{"non_integer_limit", "invalid_limit"}},
			{[]string{"limit", "101"}, []string{"invalid_limit"}},
			{[]string{"time_from", "x", "time_to", "y"}, []string{"resource.user.non_integer_time_from", "resource.user.non_integer_time_to"}},
			{[]string{"time_from", "", "time_to", " ", "result", ""}, []string{
				"resource.user.empty_time_from", "resource.user.non_integer_time_to", "resource.user.empty_time_to", "resource.user.empty_result",
			}},
			{[]string{"result[]", "failed"}, []string{"invalid"}},
		} {
			get("all", apitest.Query(c.query...)).Want(t, 422, c.codes...)
		}
		get("nothing", apitest.Query("page", "0")).Want(t, 422, "non_positive_page")
		// The last release knew no filters, and ignored what it did not know.
		if got := old.Get(t, "/resource/users/activity/all", apitest.As(u), apitest.Query("result", "denied", "time_from", "x", "time_to", "")).
			Want(t, 200).List(t); len(got) != 4 {
			t.Errorf("filtered by the last release: %d rows", len(got))
		}
		if got := b.Get(t, "/resource/users/activity/all", apitest.As(e.NewUser(t, nil))); got.Status != 422 {
			t.Errorf("somebody else's activities: %s", got.Body)
		}
	})
}

func TestSessions(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		u, stranger := e.NewUser(t, nil), e.NewUser(t, nil)
		first, second := b.signIn(t, u), b.signIn(t, u)
		foreign := b.signIn(t, stranger)
		list := func(cookie string) []map[string]any {
			t.Helper()
			return b.Get(t, "/resource/sessions", apitest.As(u), apitest.Cookie(cookieName, cookie)).Want(t, 200).List(t)
		}
		got := list(first)
		if len(got) != 2 {
			t.Fatalf("sessions: %v", got)
		}
		current := 0
		id := ""
		for _, s := range got {
			if s["current"] == true {
				current++
				id = s["id"].(string)
			}
			if s["user_ip"] != "192.0.2.7" || s["device"] != "Firefox on Linux" ||
				fmt.Sprint(s["amr"]) != "[pwd]" || s["auth_time"] != s["created_at"] {
				t.Errorf("session %v", s)
			}
		}
		if current != 1 {
			t.Errorf("%d are this browser's", current)
		}
		others := b.Get(t, "/resource/sessions", apitest.As(stranger)).Want(t, 200).List(t)
		for _, id := range []string{others[0]["id"].(string), "nothing", strings.Repeat("0", 64)} {
			b.Delete(t, "/resource/sessions/"+id, apitest.As(u)).Want(t, 404, "record.not_found")
		}
		b.Delete(t, "/resource/sessions/%20", apitest.As(u)).Want(t, 422, "resource.session.empty_id")
		b.Delete(t, "/resource/sessions/"+id, apitest.As(u)).WantBody(t, 204, "")
		if b.alive(t, first) || !b.alive(t, second) || !b.alive(t, foreign) {
			t.Error("that session is to end, and no other")
		}
		b.Delete(t, "/resource/sessions/"+id, apitest.As(u)).Want(t, 404, "record.not_found")

		third := b.signIn(t, u)
		b.Delete(t, "/resource/sessions", apitest.As(u), apitest.Cookie(cookieName, third)).WantBody(t, 204, "")
		if b.alive(t, second) || !b.alive(t, third) || len(list(third)) != 1 {
			t.Error("all but this browser's are to end")
		}
		// Somebody else's cookie keeps nothing.
		b.Delete(t, "/resource/sessions", apitest.As(u), apitest.Cookie(cookieName, foreign)).WantBody(t, 204, "")
		if b.alive(t, third) || !b.alive(t, foreign) {
			t.Error("all of the caller's are to end, and nobody else's")
		}
	})
}

func TestDataStorage(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		u := b.member(t)
		post := func(title, data string) *apitest.Answer {
			return b.Post(t, "/resource/data_storage", apitest.As(u), apitest.Form("title", title, "data", data))
		}
		b.Post(t, "/resource/data_storage", apitest.As(u)).Want(
			t, 422, "resource.datastorage.missing_title", "resource.datastorage.empty_title",
			"resource.datastorage.missing_data", "resource.datastorage.empty_data",
		)
		post("", " ").Want(t, 422, "resource.datastorage.empty_title", "resource.datastorage.empty_data")
		b.Post(t, "/resource/data_storage", apitest.As(u), apitest.JSON(map[string]any{"title": []string{"personal"}, "data": []int{1}})).
			Want(t, 422, "invalid", "invalid")
		post("other", "{}").Want(t, 422, "title.inclusion")
		post("Personal", "{}").Want(t, 422, "title.inclusion")
		post("profile", "{}").Want(t, 422, "title.inclusion", "title.exclusion")
		post("user", "{}").Want(t, 422, "title.exclusion")
		post(strings.Repeat("x", 65), "{}").Want(t, 422, "title.too_long")
		post("personal", "{").Want(t, 422, "data.invalid_format")
		post("personal", strings.Repeat("x", 5121)).Want(t, 422, "data.too_long", "data.invalid_format")
		post("other", `"`+strings.Repeat("x", 5119)+`"`).Want(t, 422, "data.too_long", "title.inclusion")
		b.wantEvents(t)
		post("personal", `"`+strings.Repeat("ж", 5118)+`"`).WantBody(t, 201, "201")
		b.wantEvents(t, "model.label.created", "model.data_storage.created")
		b.wantLabels(t, u, "private email:verified", "private personal:recorded")
		post("personal", "{}").Want(t, 422, "title.taken")
		post("PERSONAL", "x").Want(t, 422, "data.invalid_format", "title.taken", "title.inclusion")
		post("Odd title", "{}").WantBody(t, 201, "201")
		b.wantLabels(t, u, "private email:verified", "private personal:recorded")
		b.wantEvents(t, "model.data_storage.created")
		b.label(t, u, "licence", "verified", account.Private)
		post("licence", "{}").WantBody(t, 201, "201")
		b.wantLabels(t, u, "private email:verified", "private licence:verified", "private personal:recorded")
		b.wantUser(t, u, 1, "active", false)
		if got := b.Get(t, "/resource/users/me", apitest.As(u)).Object(t)["data_storages"].([]any); len(got) != 3 {
			t.Errorf("data storages: %v", got)
		}
		b.wantActivities(t, u)

		two := b.member(t)
		token := e.Token(t, two)
		wantCount(t, atOnce(4, func(int) int {
			return b.call(t, "POST", "/resource/data_storage", form, token, []byte("title=personal&data={}"))
		}), map[int]int{201: 1, 422: 3})
	})
	e := apitest.New(t, "sqlite")
	b := start(t, e, func(o *resource.Options) { o.StorageTitles = nil })
	b.Post(t, "/resource/data_storage", apitest.As(e.NewUser(t, nil)), apitest.Form("title", "personal", "data", "{}")).Want(t, 422, "title.inclusion")
}

// TestUndecided holds that a password that could not be looked at is no wrong one.
func TestUndecided(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite", func(o *account.Options) { o.Passwords = brokenHasher{} })
	b := start(t, e)
	u := e.NewUser(t, nil)
	for range 25 {
		if a := b.Delete(t, "/resource/users/me", apitest.As(u), apitest.Query("password", "x")); a.Status != 500 {
			t.Fatalf("got %d %s", a.Status, a.Body)
		}
	}
}

type brokenHasher struct{}

var errBroken = errors.New("broken")

func (brokenHasher) Hash(context.Context, string) (string, error) { return "", errBroken }
func (brokenHasher) Verify(context.Context, string, string) (ok, stale bool, err error) {
	return false, false, errBroken
}
func (brokenHasher) VerifyNothing(context.Context, string) error { return errBroken }

// TestWhatPagesNeedToKnow holds what a page asks for before it can show levels, and a form for documents.
func TestWhatPagesNeedToKnow(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		u := b.member(t)
		b.Get(t, "/resource/documents/types", apitest.As(u)).WantBody(t, 200,
			`{"types":["Passport","Identity card"],"extensions":["jpg","jpeg","png","pdf"],"expiry_required":true,"limit":4,"max_bytes":4096}`)
		levels, err := e.DB.Levels(t.Context())
		if err != nil || len(levels) < 3 {
			t.Fatalf("levels %v, %v", levels, err)
		}
		var want []string
		for _, l := range levels {
			want = append(want, fmt.Sprintf(`{"id":%d,"key":%q,"value":%q}`, l.ID, l.Key, *l.Value))
		}
		b.Get(t, "/resource/levels", apitest.As(u)).WantBody(t, 200, "["+strings.Join(want, ",")+"]")
	})
}
