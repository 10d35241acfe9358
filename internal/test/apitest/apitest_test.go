package apitest

import (
	"slices"
	"testing"
	"time"

	"barong/api/rest"
	"barong/internal/fault"
)

func TestMatch(t *testing.T) {
	routes := []rest.Route{
		{Method: "GET", Path: "/users/{uid}"}, {Method: "GET", Path: "/users/labels"}, {Method: "PUT", Path: "/users/{uid}/x"},
	}
	for asked, want := range map[[2]string]int{
		{"GET", "/users/ID1"}: 0, {"GET", "/users/labels"}: 1, {"PUT", "/api/v2/users/labels/x"}: 2,
		{"GET", "/users"}: -1, {"GET", "/users/a/b"}: -1, {"PUT", "/users/labels"}: -1, {"GET", "/labels/users"}: -1,
	} {
		got := match(routes, asked[0], asked[1])
		if want < 0 && got != nil || want >= 0 && got != &routes[want] {
			t.Errorf("%s %s: %+v, want route %d", asked[0], asked[1], got, want)
		}
	}
}

func TestGapsAreWhatNoTestShowed(t *testing.T) {
	r := rest.Route{
		Method: "POST", Path: "/things/{id}", Success: 201, Legacy: 200, Prefix: "p", Errors: []fault.Code{"a.shown", "a.excused", "a.gap"},
		Params: []rest.Param{{Name: "x", Required: true}},
	}
	s := &Server{routes: []rest.Route{r}}
	s.note("POST", "/things/5", &Answer{Status: 201, Body: `{}`})
	s.note("POST", "/things/5", &Answer{Status: 422, Body: `{"errors":["p.missing_x","a.shown"]}`})
	s.note("GET", "/things/5", &Answer{Status: 200, Body: `{"errors":["a.gap"]}`})
	got := gaps(s.routes, []string{"POST /things/{id}: a.excused"})
	want := []string{"POST /things/{id}: 200 (2.4.17)", "POST /things/{id}: invalid", "POST /things/{id}: a.gap"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestEnv holds what the helpers promise to the tests that use them.
func TestEnv(t *testing.T) {
	Each(t, func(t *testing.T, e *Env) {
		u := e.NewUser(t, nil)
		if ok, err := e.Accounts.VerifyPassword(t.Context(), u, Password); err != nil || !ok {
			t.Errorf("password: %v, %v", ok, err)
		}
		secret := e.Enable2FA(t, u)
		if err := e.Accounts.VerifyTOTP(t.Context(), u, e.WrongCode(t, secret)); err == nil {
			t.Error("a wrong code is right")
		}
		if err := e.Accounts.VerifyTOTP(t.Context(), u, e.Code(t, secret, 0)); err != nil {
			t.Errorf("code: %v", err)
		}
		for range 2 {
			if wait, err := e.Limits.Take(t.Context(), "k", 1, time.Minute); err != nil || wait != 0 {
				t.Errorf("limit: %v, %v", wait, err)
			}
			e.Limits.Forget()
		}
		claims, err := e.Keys.Verify(e.Token(t, u), Expect())
		if err != nil || claims.UID != u.UID {
			t.Errorf("token: %+v, %v", claims, err)
		}
		e.Clock.Advance(10 * time.Minute)
		if _, err := e.Keys.Verify(e.Sign(t, e.Claims(u)), Expect()); err != nil {
			t.Errorf("token after a while: %v", err)
		}
		if !e.Policy().HasRole("member") || e.Policy().HasRole("support") {
			t.Error("roles")
		}
		e.Permit(t, "support", "GET", Prefix+"/admin")
		if !e.Policy().HasRole("support") {
			t.Error("a new rule is not in force")
		}
	})
}
