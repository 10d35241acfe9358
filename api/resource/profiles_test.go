package resource_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"barong/api/account"
	"barong/db"
	"barong/internal/test/apitest"
)

func TestProfiles(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b, old := start(t, e), start(t, e, legacy)
		u := b.member(t)
		as := apitest.As(u)
		post := func(b *bench, o apitest.Option) *apitest.Answer { return b.Post(t, "/resource/profiles", as, o) }
		put := func(b *bench, o apitest.Option) *apitest.Answer { return b.Put(t, "/resource/profiles", as, o) }

		b.Get(t, "/resource/profiles/me", as).Want(t, 404, "resource.profile.not_exist")
		old.Get(t, "/resource/profiles/me", as).WantBody(t, 200, "[]")
		put(b, apitest.Form("first_name", "Ann")).Want(t, 404, "resource.profile.doesnt_exist_or_not_editable")
		put(b, apitest.Form("dob", "zz")).Want(t, 422, "invalid")

		a := post(b, apitest.Form(
			"first_name", "  Mary   Ann ", "last_name", "O'Hara-Smith", "dob", "1990-02-28", "address", "28/2 Kevin Brook; Miami, USA",
			"postcode", " 12  34 ", "city", " New   York ", "country", "UKR", "metadata", `{"a":{"b":[1]}}`, "state", "verified", "confirm", "",
		)).Want(t, 201)
		want := []string{
			"first_name", "last_name", "dob", "address", "postcode", "city", "country", "state", "metadata", "created_at", "updated_at",
		}
		if !slices.Equal(a.Keys(t), want) || !strings.Contains(a.Body, `"metadata":{"a":{"b":[1]}}`) {
			t.Errorf("profile %s", a.Body)
		}
		got := a.Object(t)
		for name, value := range map[string]string{
			"first_name": "Mary Ann", "last_name": "O'Hara-Smith", "dob": "1990-02-28", "address": "28/2 Kevin Brook; Miami, USA",
			"postcode": "12 34", "city": "New York", "country": "UKR", "state": "drafted",
		} {
			if got[name] != value {
				t.Errorf("%s: %v, want %s", name, got[name], value)
			}
		}
		b.wantLabels(t, u, "private email:verified", "private profile:drafted")
		b.wantEvents(t, "model.label.created", "model.profile.created")
		if got := old.Get(t, "/resource/profiles/me", as).Want(t, 200).Body; !strings.Contains(got, `"metadata":"{\"a\":{\"b\":[1]}}"`) {
			t.Errorf("the last release sends text: %s", got)
		}

		post(b, apitest.Form()).Want(t, 409, "state.exists")
		post(old, apitest.Form()).Want(t, 422, "state.exists")
		post(b, apitest.Form("first_name", "@")).Want(t, 422, "first_name.invalid", "state.exists")

		// Every rule, in the order of the last release.
		long := strings.Repeat("x", 256)
		post(b, apitest.Form("first_name", long, "last_name", long, "city", long, "postcode", long, "address", long)).Want(
			t, 422, "first_name.too_long", "last_name.too_long", "city.too_long", "postcode.too_long", "address.too_long", "state.exists")
		tomorrow := e.Clock.Now().Add(49 * time.Hour).UTC().Format(time.DateOnly)
		for _, answer := range []*apitest.Answer{
			post(b, apitest.Form("first_name", "@", "last_name", "@", "dob", tomorrow, "city", "@", "country", "Ukraine", "postcode", "1", "address", "@", "metadata", "{ bar }")),
			put(b, apitest.Form("first_name", "@", "last_name", "@", "dob", tomorrow, "city", "@", "country", "Ukraine", "postcode", "1", "address", "@", "metadata", "{ bar }")),
		} {
			codes := []string{
				"first_name.invalid", "last_name.invalid", "dob.invalid", "city.invalid", "country.must have alpha2 or alpha3 format",
				"postcode.too_short", "address.invalid", "metadata.invalid_format", "state.exists",
			}
			if len(answer.Codes()) < len(codes) {
				codes = codes[:len(codes)-1] // an update is no second profile
			}
			answer.Want(t, 422, codes...)
		}
		put(b, apitest.Form("first_name", long, "last_name", long, "city", long, "postcode", long, "address", long)).Want(
			t, 422, "first_name.too_long", "last_name.too_long", "city.too_long", "postcode.too_long", "address.too_long")
		for _, write := range []func(*bench, apitest.Option) *apitest.Answer{post, put} {
			for _, o := range []apitest.Option{
				apitest.Form("postcode", "@@"), apitest.Form("metadata", ""), apitest.Form("metadata", `"`+strings.Repeat("x", 70000)+`"`),
			} {
				if a := write(b, o); a.Status != 422 || len(a.Codes()) == 0 {
					t.Errorf("got %d %s", a.Status, a.Body)
				}
			}
			for _, o := range []apitest.Option{
				apitest.Form("dob", "29/02/1990"), apitest.Form("dob", "02/28/1990"), apitest.Form("dob", "20000102"), apitest.Form("confirm", "maybe"),
				apitest.JSON(map[string]any{"first_name": []string{"x"}}),
			} {
				write(b, o).Want(t, 422, "invalid")
			}
		}
		post(b, apitest.JSON(map[string]any{"first_name": map[string]int{}, "confirm": "maybe", "dob": "x"})).Want(t, 422, "invalid", "invalid", "invalid")

		// Only what is sent changes; nothing changes nothing.
		e.Events()
		if got := put(b, apitest.Form("city", "Kyiv")).Want(t, 200).Object(t); got["city"] != "Kyiv" || got["first_name"] != "Mary Ann" || got["state"] != "drafted" {
			t.Errorf("profile %v", got)
		}
		b.wantEvents(t, "model.profile.updated")
		put(b, apitest.Form("city", "Kyiv")).Want(t, 200)
		b.wantEvents(t)
		for i, dob := range []string{"03/02/1991", "04-02-1991", "05.02.1991", "1991/02/06"} { // as the original's front end sends it
			for _, b := range []*bench{b, old} {
				if got := put(b, apitest.Form("dob", dob)).Want(t, 200).Object(t)["dob"]; got != fmt.Sprintf("1991-02-0%d", i+3) {
					t.Errorf("%s is %v", dob, got)
				}
			}
		}
		for _, b := range []*bench{b, old} { // metadata as it was read
			read := put(b, apitest.JSON(map[string]any{"metadata": map[string]any{"a": []int{1}}})).Want(t, 200).Object(t)["metadata"]
			put(b, apitest.JSON(map[string]any{"metadata": read})).Want(t, 200)
		}
		if p, err := e.DB.ProfileIn(t.Context(), u.ID, db.ProfileDrafted); err != nil || *p.Metadata != `{"a":[1]}` {
			t.Errorf("metadata %+v, %v", p, err)
		}
		if got := put(b, apitest.JSON(map[string]any{"dob": "", "metadata": nil})).Want(t, 200).Object(t); got["dob"] != nil || got["metadata"] != nil {
			t.Errorf("profile %v", got)
		}
		e.Events()
		if got := put(b, apitest.Form("confirm", "1")).Want(t, 200).Object(t); got["state"] != "submitted" {
			t.Errorf("profile %v", got)
		}
		b.wantLabels(t, u, "private email:verified", "private profile:submitted")
		b.wantEvents(t, "model.label.updated", "model.profile.updated")
		put(b, apitest.Form("city", "Kyiv")).Want(t, 404, "resource.profile.doesnt_exist_or_not_editable")
		post(b, apitest.Form()).Want(t, 409, "state.exists")
		b.wantActivities(t, u)

		// A public label of that key is not taken for the program's own.
		v := b.member(t)
		b.label(t, v, "profile", "mine", account.Public)
		b.Post(t, "/resource/profiles", apitest.As(v), apitest.Form("confirm", "yes", "country", "us")).Want(t, 201)
		b.wantLabels(t, v, "private email:verified", "private profile:submitted", "public profile:mine")

		// Documents were verified for another person.
		w := b.member(t)
		b.label(t, w, "phone", "verified", account.Private)
		b.label(t, w, "document", "verified", account.Private)
		b.wantUser(t, w, 3, "active", false)
		b.Post(t, "/resource/profiles", apitest.As(w), apitest.Form("first_name", "Ann", "confirm", "true")).Want(t, 201)
		b.wantLabels(t, w, "private document:replaced", "private email:verified", "private phone:verified", "private profile:submitted")
		b.wantUser(t, w, 2, "active", false)

		two := b.member(t)
		token := e.Token(t, two)
		wantCount(t, atOnce(4, func(int) int {
			return b.call(t, "POST", "/resource/profiles", form, token, []byte("first_name=Ann"))
		}), map[int]int{201: 1, 409: 3})
	})
}
