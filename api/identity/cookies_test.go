package identity_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"barong/internal/test/apitest"
)

// domains are those of the session cookies that an answer has dropped, "host" for a host's own, and what it has set last.
func domains(t *testing.T, a *apitest.Answer) (dropped []string, set string) {
	t.Helper()
	for _, line := range a.Header.Values("Set-Cookie") {
		c, err := http.ParseSetCookie(line)
		if err != nil || c.Name != cookieName || set != "" {
			t.Fatalf("cookies %q: %v", a.Header.Values("Set-Cookie"), err)
		}
		switch domain := c.Domain; {
		case c.Value != "":
			set = c.Value
		case c.MaxAge >= 0:
			t.Errorf("%q drops nothing", line)
		case domain == "":
			dropped = append(dropped, "host")
		default:
			dropped = append(dropped, domain)
		}
	}
	return dropped, set
}

func lines(values ...string) apitest.Option {
	return apitest.Header("Cookie", cookieName+"="+strings.Join(values, "; theme=x; "+cookieName+"="))
}

// Signing in once mends what makes a browser send more than one session cookie.
func TestSignInDropsOtherCookies(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		u, other := e.NewUser(t, nil), e.NewUser(t, nil)
		host := apitest.Header("Host", "app.example.test:8443")
		all := []string{"host", "app.example.test", "example.test"}
		form := apitest.Form("email", u.Email, "password", apitest.Password)
		first, _ := signIn(t, s, u)
		second, _ := signIn(t, s, u)
		planted, _ := signIn(t, s, other)
		for name, c := range map[string]struct {
			sent []string
			want []string // dropped
			ends []string // sessions
		}{
			"none":                  {nil, nil, nil},
			"one that is unknown":   {[]string{"x"}, nil, nil},
			"the same twice":        {[]string{"x", "x"}, all, nil},
			"two":                   {[]string{"x", "y"}, all, nil},
			"five, of which one is": {[]string{"a", "b", "c", "d", second}, all, nil},
			"no UTF-8":              {[]string{"caf\xe9"}, all, nil},
			"of two users":          {[]string{first, planted, "x"}, all, []string{first, planted}},
		} {
			options := []apitest.Option{form, host}
			if c.sent != nil {
				options = append(options, lines(c.sent...))
			}
			a := s.Post(t, "/identity/sessions", options...).Want(t, 201)
			dropped, set := domains(t, a)
			if !slices.Equal(dropped, c.want) || set == "" || !alive(t, e, set) {
				t.Errorf("%s: dropped %q, want %q, and set %q", name, dropped, c.want, set)
			}
			for _, cookie := range c.ends {
				if alive(t, e, cookie) {
					t.Errorf("%s: a session that was replaced is alive", name)
				}
			}
		}
		if !alive(t, e, second) {
			t.Error("one of too many cookies ended a session")
		}
		a := s.Post(t, "/identity/sessions", apitest.Form("email", u.Email, "password", "wrong"), host, lines("x", "y")).Want(t, 401, "identity.session.invalid_params")
		if set := a.Header.Values("Set-Cookie"); len(set) != 0 {
			t.Errorf("a refused sign-in set %q", set)
		}
		a = s.Post(t, "/identity/sessions", form, apitest.Header("Host", "192.0.2.1:80"), lines("x", "y")).Want(t, 201)
		if dropped, _ := domains(t, a); !slices.Equal(dropped, []string{"host"}) {
			t.Errorf("at an address: dropped %q", dropped)
		}
		a = s.Post(t, "/identity/users", apitest.Form("email", "new@barong.test", "password", apitest.Password), host, lines("x", "y")).Want(t, 201)
		if dropped, set := domains(t, a); !slices.Equal(dropped, all) || set == "" {
			t.Errorf("sign-up: dropped %q and set %q", dropped, set)
		}
	})
}

func TestSignOutOfSeveralCookies(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		u, other := e.NewUser(t, nil), e.NewUser(t, nil)
		host := apitest.Header("Host", "app.example.test")
		want := []string{"host", "app.example.test", "example.test", "host"} // the last is that of every sign-out
		older, _ := signIn(t, s, u)
		newer, _ := signIn(t, s, u)
		kept, _ := signIn(t, s, u)
		a := s.Delete(t, "/identity/sessions", host, lines("x", newer, older)).Want(t, 204)
		if dropped, _ := domains(t, a); !slices.Equal(dropped, want) {
			t.Errorf("dropped %q, want %q", dropped, want)
		}
		if alive(t, e, older) || alive(t, e, newer) || !alive(t, e, kept) {
			t.Errorf("after a sign-out: older %v, newer %v, another browser's %v", alive(t, e, older), alive(t, e, newer), alive(t, e, kept))
		}
		planted, _ := signIn(t, s, other)
		for name, sent := range map[string][]string{
			"of two users": {kept, planted}, "too many": {"a", "b", "c", "d", kept}, "two that are unknown": {"a", "b"},
		} {
			a = s.Delete(t, "/identity/sessions", host, lines(sent...)).Want(t, 404, "identity.session.not_found")
			if dropped, _ := domains(t, a); !slices.Equal(dropped, want[:3]) || !alive(t, e, kept) || !alive(t, e, planted) {
				t.Errorf("%s: dropped %q", name, dropped)
			}
		}
		if set := s.Delete(t, "/identity/sessions", host, lines("x")).Want(t, 404, "identity.session.not_found").Header.Values("Set-Cookie"); len(set) != 0 {
			t.Errorf("a sign-out with one unknown cookie set %q", set)
		}
		a = s.Delete(t, "/identity/sessions", host, lines(kept)).Want(t, 204)
		if dropped, _ := domains(t, a); !slices.Equal(dropped, []string{"host"}) {
			t.Errorf("a sign-out with one cookie: dropped %q", dropped)
		}
	})
}

// A User-Agent of any bytes is kept as the checks compare it.
func TestSignInWithAnyBytes(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		u := e.NewUser(t, nil)
		signIn(t, s, u, apitest.Header("User-Agent", "Caf\xe9/1.0 \xff"), apitest.Header("CF-IPCity", "K\xf6ln"),
			apitest.Header("Cookie", "theme=caf\xe9"))
		live, err := e.Accounts.ListSessions(t.Context(), u)
		if err != nil || len(live) != 1 || live[0].UserAgent != "Caf!/1.0 !" {
			t.Errorf("sessions %+v, %v", live, err)
		}
		if row := e.Activities(t)[0]; row.UserAgent != "Caf!/1.0 !" {
			t.Errorf("activity %+v", row)
		}
	})
}
