package admin_test

import (
	"slices"
	"strings"
	"testing"

	"barong/db"
	"barong/internal/test/apitest"
)

func TestListLevels(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const all = `[{"id":1,"key":"email","value":"verified"},{"id":2,"key":"phone","value":"verified"},{"id":3,"key":"document","value":"verified"}]`
		if a := w.s.Get(t, "/admin/levels", apitest.As(w.root)).WantBody(t, 200, all); a.Header.Get("Total") != "3" {
			t.Errorf("headers %v", a.Header)
		}
		a := w.s.Get(t, "/admin/levels", w.ask("page", "2", "limit", "2")...).WantBody(t, 200, `[{"id":3,"key":"document","value":"verified"}]`)
		if a.Header.Get("Page") != "2" || !strings.Contains(a.Header.Get("Link"), `rel="prev"`) {
			t.Errorf("headers %v", a.Header)
		}
		w.s.Get(t, "/admin/levels", w.ask("page", "1099511627776")...).WantBody(t, 200, "[]")
		paged(t, w.s, "/admin/levels", "3", apitest.As(w.root))
		if a := w.old.Get(t, "/admin/levels", w.ask("page", "x", "limit", "1")...).WantBody(t, 200, all); a.Header.Get("Total") != "" {
			t.Errorf("2.4.17 knew no pages here: %v", a.Header)
		}
	})
}

func TestListProfiles(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice, bob := w.NewUser(t, nil), w.NewUser(t, nil)
		w.profile(t, bob, db.Profile{FirstName: ptr("Bob"), Metadata: ptr(`{"a":1}`)})
		w.profile(t, alice, db.Profile{DOB: ptr("1990-02-28"), State: db.ProfileSubmitted})
		paged(t, w.s, "/admin/profiles", "2", apitest.As(w.root))
		a := w.s.Get(t, "/admin/profiles", apitest.As(w.root)).Want(t, 200)
		list := a.List(t)
		if list[0]["uid"] != bob.UID || list[1]["uid"] != alice.UID || list[1]["dob"] != "1990-02-28" || list[1]["state"] != "submitted" {
			t.Errorf("got %s", a.Body)
		}
		if _, ok := list[0]["metadata"].(map[string]any); !ok {
			t.Errorf("metadata %v", list[0]["metadata"])
		}
		old := w.old.Get(t, "/admin/profiles", apitest.As(w.root)).Want(t, 200).List(t)
		if _, ok := old[0]["uid"]; ok || old[0]["metadata"] != `{"a":1}` {
			t.Errorf("2.4.17: %v", old[0])
		}
	})
}

func TestUpdateProfile(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		adm := w.staff(t, "admin")
		alice := w.NewUser(t, nil)
		do := func(form ...string) *apitest.Answer {
			t.Helper()
			return w.s.Put(t, "/admin/profiles", w.as(form...)...)
		}
		do().Want(t, 400, "admin.profile.missing_uid")
		w.old.Put(t, "/admin/profiles", w.as()...).Want(t, 422, "admin.profile.missing_uid")
		do("uid", "").Want(t, 404, "admin.profiles.doesnt_exist_or_not_editable")
		do("uid", "ID0000000000", "state", "verified").Want(t, 404, "admin.profiles.doesnt_exist_or_not_editable")
		do("uid", alice.UID, "state", "verified").Want(t, 404, "admin.profiles.doesnt_exist_or_not_editable")
		w.profile(t, alice, db.Profile{State: db.ProfileVerified})
		do("uid", alice.UID, "state", "rejected").Want(t, 404, "admin.profiles.doesnt_exist_or_not_editable")
		w.profile(t, alice, db.Profile{
			FirstName: ptr("Alice"), LastName: ptr("Smith"), DOB: ptr("1990-02-28"), Country: ptr("UKR"),
			Metadata: ptr(`{"a":{"b":[1]}}`), State: db.ProfileSubmitted,
		})
		long := strings.Repeat("x", 256)
		for _, c := range []struct {
			form []string
			want []string
		}{
			{[]string{"dob", "xx"}, []string{"invalid"}},
			{[]string{"dob", "2990-01-01"}, []string{"dob.invalid"}},
			{[]string{"state", "nothing"}, []string{"state.inclusion"}},
			{[]string{"state", ""}, []string{"state.inclusion"}},
			{
				[]string{"country", "zzz", "first_name", "$$", "last_name", "$$", "metadata", "x", "postcode", "1", "address", "**", "city", "**"},
				[]string{
					"first_name.invalid", "last_name.invalid", "city.invalid", "country.must have alpha2 or alpha3 format",
					"postcode.too_short", "address.invalid", "metadata.invalid_format",
				},
			},
			{
				[]string{"first_name", long, "last_name", long, "city", long, "postcode", long, "address", long, "metadata", `"` + strings.Repeat("x", 65536) + `"`},
				[]string{"first_name.too_long", "last_name.too_long", "city.too_long", "postcode.too_long", "address.too_long", "metadata.too_long"},
			},
			{[]string{"postcode", "*?"}, []string{"postcode.invalid"}},
		} {
			do(append([]string{"uid", alice.UID}, c.form...)...).Want(t, 422, c.want...)
		}
		w.profile(t, w.root, db.Profile{State: db.ProfileSubmitted})
		w.s.Put(t, "/admin/profiles", apitest.As(adm), apitest.Form("uid", w.root.UID, "state", "verified")).
			Want(t, 422, "admin.profiles.superadmin_change")

		w.Events()
		a := do("uid", alice.UID, "first_name", " Joe  ", "city", " New  York ", "country", "us").Want(t, 200)
		if o := a.Object(t); o["first_name"] != "Joe" || o["city"] != "New York" || o["country"] != "us" || o["last_name"] != "Smith" || o["state"] != "submitted" {
			t.Errorf("got %s", a.Body)
		}
		if _, ok := a.Object(t)["uid"]; ok {
			t.Error("a profile of its own names its owner")
		}
		w.EventNames()
		do("uid", alice.UID).Want(t, 200)
		if got := w.EventNames(); len(got) > 0 {
			t.Errorf("nothing changed, and there were events %q", got)
		}
		w.s.Put(t, "/admin/profiles", apitest.As(w.root), apitest.JSON(map[string]any{"uid": alice.UID, "dob": nil, "state": "verified"})).Want(t, 200)
		if got := w.EventNames(); !slices.Contains(got, "model.profile.updated") {
			t.Errorf("events %q", got)
		}
		w.wantLabels(t, alice, "profile=verified private")
		do("uid", alice.UID, "state", "rejected").Want(t, 404, "admin.profiles.doesnt_exist_or_not_editable")
		do("uid", w.root.UID, "state", "drafted").Want(t, 200) // back to its owner
	})
}
