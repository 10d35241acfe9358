package db_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"barong/db"
)

// TestNamesFoundInAnySpelling: staff finds people by name and country however they write them.
func TestNamesFoundInAnySpelling(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		ann := insertUser(t, d, "ID0000000001", "ann@example.com")
		bob := insertUser(t, d, "ID0000000002", "bob@example.com")
		insertProfiles(t, d,
			db.Profile{UserID: ann.ID, FirstName: ref("Zoë"), LastName: ref("O'Neill"), Country: ref("gb"), State: db.ProfileRejected},
			db.Profile{UserID: ann.ID, FirstName: ref("Zoë"), LastName: ref("Weiß"), Country: ref("GB"), State: db.ProfileVerified},
			db.Profile{UserID: bob.ID, FirstName: ref("ИВАН"), LastName: ref("می\u200cرا"), Country: ref("GB")},
		)
		for _, c := range []struct {
			f    db.UserFilter
			want []string
		}{
			{db.UserFilter{FirstName: ref("Zoë")}, []string{ann.UID}},
			{db.UserFilter{FirstName: ref("ZOË")}, []string{ann.UID}},
			{db.UserFilter{FirstName: ref("zoe\u0308 ")}, []string{ann.UID}},
			{db.UserFilter{FirstName: ref("zoe")}, nil},
			{db.UserFilter{FirstName: ref("zoë"), LastName: ref("o’neill")}, []string{ann.UID}},
			{db.UserFilter{LastName: ref("WEISS")}, []string{ann.UID}},
			{db.UserFilter{FirstName: ref("Иван"), LastName: ref("میرا")}, []string{bob.UID}},
			{db.UserFilter{LastName: ref("Zoë")}, nil}, // the other name
			{db.UserFilter{Country: ref("gB")}, []string{ann.UID, bob.UID}},
			{db.UserFilter{Country: ref("gb"), LastName: ref("weiß")}, []string{ann.UID}},
			{db.UserFilter{Country: ref("GB"), State: ref("banned")}, nil},
			{db.UserFilter{Country: ref("g")}, nil},
			{db.UserFilter{Country: ref("")}, nil},
		} {
			if got := found(t, d, c.f); !slices.Equal(got, c.want) {
				t.Errorf("%v: got %q, want %q", c.f, got, c.want)
			}
		}
	})
}

// TestIndexNames: names that an older release has indexed are found as they are spelled, and after IndexNames in any way.
func TestIndexNames(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		ann := insertUser(t, d, "ID0000000001", "ann@example.com")
		bob := insertUser(t, d, "ID0000000002", "bob@example.com")
		insertProfiles(t, d,
			db.Profile{UserID: ann.ID, FirstName: ref("Ann"), LastName: ref("Lee"), State: db.ProfileVerified},
			db.Profile{UserID: ann.ID, FirstName: ref("Ann"), State: db.ProfileRejected},
			db.Profile{UserID: bob.ID, LastName: ref("Lee")},
			db.Profile{UserID: bob.ID, State: db.ProfileRejected},
		)
		older := func(column, value, purpose string) {
			t.Helper()
			if _, err := d.Bun().ExecContext(t.Context(), "UPDATE profiles SET "+column+" = '"+d.Sealer().Index(value, purpose)+"' WHERE "+column+" IS NOT NULL"); err != nil {
				t.Fatal(err)
			}
		}
		older("first_name_index", "Ann", "profiles.first_name")
		older("last_name_index", "Lee", "profiles.last_name")
		if got := found(t, d, db.UserFilter{FirstName: ref("Ann")}); !slices.Equal(got, []string{ann.UID}) {
			t.Errorf("as it is spelled: %q", got)
		}
		if got := found(t, d, db.UserFilter{FirstName: ref("ann")}); len(got) != 0 {
			t.Errorf("in lower case, with an index of the older kind: %q", got)
		}
		if err := d.VerifySeals(t.Context()); err != nil {
			t.Errorf("an index of the older kind is taken for one of another key: %v", err)
		}
		for _, want := range []int{3, 0} {
			if n, err := d.IndexNames(t.Context()); err != nil || n != want {
				t.Errorf("indexed %d, want %d, %v", n, want, err)
			}
			for _, name := range []string{"Lee", "lee", "LEE"} {
				if got := found(t, d, db.UserFilter{LastName: &name}); !slices.Equal(got, []string{ann.UID, bob.UID}) {
					t.Errorf("%s: %q", name, got)
				}
			}
		}
		if err := d.VerifySeals(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func insertProfiles(t *testing.T, d *db.DB, list ...db.Profile) {
	t.Helper()
	if err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		for i := range list {
			if err := tx.InsertProfile(ctx, &list[i]); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// found are the uids of the users that fit, which their total must count.
func found(t *testing.T, d *db.DB, f db.UserFilter) []string {
	t.Helper()
	rows, total, err := d.FindUsers(t.Context(), f, db.Page{Number: 1, Size: 10})
	if err != nil || total != int64(len(rows)) {
		t.Fatalf("%v: %d of %d, %v", f, len(rows), total, err)
	}
	var uids []string
	for i := range rows {
		uids = append(uids, rows[i].UID)
	}
	return uids
}

// TestAddressesOfOlderReleases: an address that was stored with the A-labels of its domain is found in any spelling, and put
// into the normal form unless that is somebody else's; then each is found by their own.
func TestAddressesOfOlderReleases(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		unicode := insertUser(t, d, "ID0000000001", "u@bücher.example")
		twin := insertUser(t, d, "ID0000000002", "u@xn--bcher-kva.example")
		alone := insertUser(t, d, "ID0000000003", "v@XN--bcher-kva.example")
		insertUser(t, d, "ID0000000004", "w@bucher.example")
		find := func(want *db.User, spellings ...string) {
			t.Helper()
			for _, s := range spellings {
				if u, err := d.UserByEmail(t.Context(), s); err != nil || u.UID != want.UID {
					t.Errorf("%s: %+v, %v", s, u, err)
				}
			}
		}
		for _, want := range []int{1, 0} {
			find(unicode, "u@bücher.example", "U@BÜCHER.example")
			find(twin, "u@xn--bcher-kva.example")
			find(alone, "v@bücher.example", "v@xn--bcher-kva.example", "V@bu\u0308cher.example")
			for _, s := range []string{"v@bücher.example", "v@xn--bcher-kva.example"} {
				if got := found(t, d, db.UserFilter{Email: &s}); !slices.Equal(got, []string{alone.UID}) {
					t.Errorf("filter %s: %q", s, got)
				}
			}
			if _, err := d.UserByEmail(t.Context(), "x@bücher.example"); !errors.Is(err, db.ErrNotFound) {
				t.Errorf("nobody: %v", err)
			}
			n, taken, err := d.NormalizeEmails(t.Context())
			if err != nil || n != want || !slices.Equal(taken, []string{twin.UID}) {
				t.Errorf("changed %d, taken %q, %v", n, taken, err)
			}
			if u, err := d.UserByUID(t.Context(), alone.UID); err != nil || u.Email != "v@bücher.example" {
				t.Errorf("%+v, %v", u, err)
			}
		}
	})
}
