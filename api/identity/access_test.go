package identity_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"barong/api/identity"
	"barong/db"
	"barong/internal/bus"
	"barong/internal/test/apitest"
)

func TestAccess(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		root := e.NewStaff(t, "superadmin")
		link := func(token string) string {
			e.Update(t, func(ctx context.Context, tx *db.Tx) error {
				return tx.InsertWhitelink(ctx, token, root.ID, e.Clock.Now().Add(time.Hour))
			})
			return token
		}
		use := func(token, ip string) *apitest.Answer {
			return s.Post(t, "/identity/users/access", apitest.Form("whitelink_token", token), apitest.IP(ip))
		}
		s.Post(t, "/identity/users/access").Want(t, 422, "identity.user.missing_whitelink_token", "identity.user.empty_whitelink_token")
		s.Post(t, "/identity/users/access", apitest.Form("whitelink_token", " ")).Want(t, 422, "identity.user.empty_whitelink_token")
		s.Post(t, "/identity/users/access", apitest.JSON(map[string]any{"whitelink_token": []string{"x"}})).Want(t, 422, "invalid")
		use(strings.Repeat("0", 64), "203.0.113.1").Want(t, 422, "identity.user.access.invalid_token")

		e.Update(t, func(ctx context.Context, tx *db.Tx) error { // everybody is kept out
			return tx.InsertRestriction(ctx, db.Who{}, &db.Restriction{Category: "blacklist", Scope: "all", Value: "all", State: "enabled"})
		})
		if err := e.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		refused := func(ip string) bool {
			return e.Policy().Restrict(netip.MustParseAddr(ip), "api/v2/barong/identity/ping").Refused
		}
		if !refused("203.0.113.1") {
			t.Fatal("the restriction does not hold")
		}
		first := link(strings.Repeat("1", 64))
		e.Notices()
		use(first, "203.0.113.1").WantBody(t, 201, "201")
		if refused("203.0.113.1") || !refused("203.0.113.2") {
			t.Error("the change is not in force with the answer")
		}
		if got := notices(e); len(got) != 1 || got[0] != bus.PolicyChanged {
			t.Errorf("the replicas were told %v", got)
		}
		var rules []db.Restriction
		rules, err := e.DB.AllRestrictions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r := rules[len(rules)-1]; r.Category != "whitelist" || r.Scope != "ip" || r.Value != "203.0.113.1" || r.State != "enabled" || *r.Code != 401 {
			t.Errorf("rule %+v", r)
		}
		if a := e.Activities(t); len(a) != 1 || a[0].UserID != root.ID || a[0].Category != "admin" || a[0].Topic != "restrictions" || a[0].UserIP != "203.0.113.1" {
			t.Errorf("activities %+v", a)
		}
		use(first, "203.0.113.2").Want(t, 422, "identity.user.access.invalid_token")

		// An address that is there already spends no token.
		second := link(strings.Repeat("2", 64))
		use(second, "203.0.113.1").Want(t, 422, "value.taken")
		use(second, "no address").Want(t, 422, "value.invalid")
		use(second, "2001:db8::1").Want(t, 201)
		use(link(strings.Repeat("3", 64)), "::ffff:203.0.113.1").Want(t, 422, "value.taken")

		fourth := link(strings.Repeat("4", 64))
		n := 0
		statuses := parallel(5, func() int {
			return use(fourth, "198.51.100.7").Status
		})
		for _, c := range statuses {
			n += c
		}
		if statuses[201] != 1 || statuses[422] != 4 || n != 5 {
			t.Errorf("parallel uses by status: %v", statuses)
		}
		late := link(strings.Repeat("5", 64))
		e.Clock.Advance(time.Hour)
		use(late, "203.0.113.9").Want(t, 422, "identity.user.access.invalid_token")
	})
}

func TestAccessOfRelease(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	s := start(t, e, nil, apitest.Legacy)
	token := strings.Repeat("1", 64)
	e.Update(t, func(ctx context.Context, tx *db.Tx) error {
		return tx.InsertWhitelink(ctx, token, 0, e.Clock.Now().Add(time.Hour))
	})
	for _, ip := range []string{"203.0.113.1", "203.0.113.2"} { // it works until it expires
		s.Post(t, "/identity/users/access", apitest.Form("whitelink_token", token), apitest.IP(ip)).Want(t, 201)
	}
	s.Post(t, "/identity/users/access", apitest.Form("whitelink_token", token), apitest.IP("203.0.113.2")).Want(t, 422, "value.taken")
}

func TestAccessLimits(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	s := start(t, e, nil)
	try := func(ip string) *apitest.Answer {
		return s.Post(t, "/identity/users/access", apitest.Form("whitelink_token", "x"), apitest.IP(ip))
	}
	statuses := parallel(32, func() int { return try("203.0.113.1").Status })
	if statuses[422] != 30 || statuses[429] != 2 {
		t.Errorf("answers by status: %v", statuses)
	}
	if a := try("203.0.113.1").Want(t, 429, "request.rate_limited"); a.Header.Get("Retry-After") == "" {
		t.Error("429 without Retry-After")
	}
	try("203.0.113.2").Want(t, 422, "identity.user.access.invalid_token")
}

// TestAccessThatCannotReload holds that nobody is told of a change that is not in force.
func TestAccessThatCannotReload(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	s := start(t, e, func(o *identity.Options) {
		o.Reload = func(context.Context) error { return errors.New("no database") }
	})
	e.Update(t, func(ctx context.Context, tx *db.Tx) error {
		return tx.InsertWhitelink(ctx, "x", 0, e.Clock.Now().Add(time.Hour))
	})
	s.Post(t, "/identity/users/access", apitest.Form("whitelink_token", "x")).Want(t, 503, "authz.unavailable")
}
