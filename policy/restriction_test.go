package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var unknownClient netip.Addr

// places is a Locator by table.
type places map[string]Place

func (p places) Place(addr netip.Addr) (Place, bool) {
	place, ok := p[addr.String()]
	return place, ok
}

var world = places{
	"1.1.1.1": {Country: "UA", CountryName: "Ukraine", CountryLocal: "Украина", Continent: "EU", ContinentName: "Europe", ContinentLocal: "Европа"},
	"2.2.2.2": {Country: "US", CountryName: "United States", Continent: "NA", ContinentName: "North America"},
	"2001::1": {Country: "JP", CountryName: "Japan", Continent: "AS", ContinentName: "Asia"},
	"3.3.3.3": {Continent: "EU", ContinentName: "Europe"},
}

// restricts reads lines "category scope value [code]" with _ for a space, numbered from 1; a line that begins with - is
// disabled.
func restricts(lines ...string) []Restriction {
	out := make([]Restriction, 0, len(lines))
	for i, line := range lines {
		line, off := strings.CutPrefix(line, "-")
		f := append(strings.Fields(line), "0")
		r := Restriction{ID: int64(i + 1), Category: f[0], Scope: f[1], Value: strings.ReplaceAll(f[2], "_", " "), Enabled: !off}
		fmt.Sscan(f[3], &r.Code)
		out = append(out, r)
	}
	return out
}

func TestRestrict(t *testing.T) {
	const api = "api/v2/x"
	for _, tc := range []struct {
		name         string
		rules        []string
		client, path string
		want         string // "status code by id" or "passes" or "passes by id"
	}{
		{"no rules", nil, "1.1.1.1", api, "passes"},
		{"ip", []string{"blacklist ip 1.1.1.1"}, "1.1.1.1", api, "401 blacklist by 1"},
		{"another ip", []string{"blacklist ip 1.1.1.1"}, "1.1.1.2", api, "passes"},
		{"disabled", []string{"-blacklist ip 1.1.1.1"}, "1.1.1.1", api, "passes"},
		{"disabled and senseless", []string{"-blacklist ip nonsense"}, "1.1.1.1", api, "passes"},
		{"mapped client", []string{"blacklist ip 1.1.1.1"}, "::ffff:1.1.1.1", api, "401 blacklist by 1"},
		{"mapped rule", []string{"blacklist ip ::ffff:1.1.1.1"}, "1.1.1.1", api, "401 blacklist by 1"},
		{"ipv6", []string{"blacklist ip 2001:0::1"}, "2001::1", api, "401 blacklist by 1"},
		{"zone of a client", []string{"blacklist ip fe80::1"}, "fe80::1%eth0", api, "401 blacklist by 1"},
		{"subnet, first address", []string{"blacklist ip_subnet 10.1.2.0/23"}, "10.1.2.0", api, "403 blacklist by 1"},
		{"subnet, last address", []string{"blacklist ip_subnet 10.1.2.0/23"}, "10.1.3.255", api, "403 blacklist by 1"},
		{"subnet, before", []string{"blacklist ip_subnet 10.1.2.0/23"}, "10.1.1.255", api, "passes"},
		{"subnet, after", []string{"blacklist ip_subnet 10.1.2.0/23"}, "10.1.4.0", api, "passes"},
		{"subnet with host bits", []string{"blacklist ip_subnet 10.1.2.77/24"}, "10.1.2.1", api, "403 blacklist by 1"},
		{"whole of IPv4", []string{"blacklist ip_subnet 0.0.0.0/0"}, "255.255.255.255", api, "403 blacklist by 1"},
		{"whole of IPv4 is not IPv6", []string{"blacklist ip_subnet 0.0.0.0/0"}, "2001::1", api, "passes"},
		{"whole of IPv6", []string{"blacklist ip_subnet ::/0"}, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", api, "403 blacklist by 1"},
		{"ipv6 subnet", []string{"blacklist ip_subnet 2001::/16"}, "2001:ffff::", api, "403 blacklist by 1"},
		{"mapped subnet", []string{"blacklist ip_subnet ::ffff:10.0.0.0/104"}, "10.200.0.1", api, "403 blacklist by 1"},
		{"single address", []string{"blacklist ip_subnet 10.0.0.1/32"}, "10.0.0.1", api, "403 blacklist by 1"},
		{"inner subnet is not first", []string{"blacklist ip_subnet 10.0.0.0/8 434", "blacklist ip_subnet 10.1.0.0/16 435"}, "10.1.0.1", api, "434 blacklist by 1"},
		{"inner subnet is first", []string{"blacklist ip_subnet 10.1.0.0/16 435", "blacklist ip_subnet 10.0.0.0/8 434"}, "10.1.0.1", api, "435 blacklist by 1"},
		{"after the inner subnet", []string{"blacklist ip_subnet 10.1.0.0/16 435", "blacklist ip_subnet 10.0.0.0/8 434"}, "10.2.0.0", api, "434 blacklist by 2"},
		{"all before ip", []string{"blacklist ip 1.1.1.1 410", "blacklist all all 411"}, "1.1.1.1", api, "411 blacklist by 2"},
		{"ip before subnet", []string{"blacklist ip_subnet 1.0.0.0/8 410", "blacklist ip 1.1.1.1 411"}, "1.1.1.1", api, "411 blacklist by 2"},
		{"subnet before country", []string{"blacklist country UA 410", "blacklist ip_subnet 1.0.0.0/8 411"}, "1.1.1.1", api, "411 blacklist by 2"},
		{"country before continent", []string{"blacklist continent EU 410", "blacklist country UA 411"}, "1.1.1.1", api, "411 blacklist by 2"},
		{"continent alone", []string{"blacklist continent EU"}, "1.1.1.1", api, "423 blacklist by 1"},
		{"continent of a place without country", []string{"blacklist country UA", "blacklist continent eu"}, "3.3.3.3", api, "423 blacklist by 2"},
		{"country by code", []string{"blacklist country ua"}, "1.1.1.1", api, "423 blacklist by 1"},
		{"country by alpha-3 code", []string{"blacklist country Usa"}, "2.2.2.2", api, "423 blacklist by 1"},
		{"country by name", []string{"blacklist country united_STATES"}, "2.2.2.2", api, "423 blacklist by 1"},
		{"country by local name", []string{"blacklist country УКРАИНА"}, "1.1.1.1", api, "423 blacklist by 1"},
		{"continent by name", []string{"blacklist continent north_america"}, "2.2.2.2", api, "423 blacklist by 1"},
		{"continent by local name", []string{"blacklist continent европа"}, "1.1.1.1", api, "423 blacklist by 1"},
		{"first rule among code and name", []string{"blacklist country Ukraine 410", "blacklist country UA 411"}, "1.1.1.1", api, "410 blacklist by 1"},
		{"country by IPv6", []string{"blacklist country Japan"}, "2001::1", api, "423 blacklist by 1"},
		{"unknown place", []string{"blacklist country UA", "blacklist continent EU"}, "192.168.0.1", api, "passes"},
		{"whitelist ends the search", []string{"maintenance all all", "blacklist all all", "whitelist country UA"}, "1.1.1.1", api, "passes by 3"},
		{"maintenance before blacklist", []string{"blacklist all all", "maintenance all all"}, "1.1.1.1", api, "471 maintenance by 2"},
		{"maintenance with a code", []string{"maintenance all all 472"}, "1.1.1.1", api, "472 maintenance by 1"},
		{"maintenance of a country", []string{"maintenance country UA"}, "1.1.1.1", api, "471 maintenance by 1"},
		{"blacklist before blocklogin", []string{"blocklogin all all", "blacklist ip 1.1.1.1"}, "1.1.1.1", "api/v2/barong/identity/sessions", "401 blacklist by 2"},
		{"blocklogin", []string{"blocklogin country UA"}, "1.1.1.1", "api/v2/barong/identity/sessions", "423 blocklogin by 1"},
		{"blocklogin by the suffix that the API forgives", []string{"blocklogin all all"}, "1.1.1.1", "api/v2/barong/identity/sessions.json", "401 blocklogin by 1"},
		{"blocklogin elsewhere", []string{"blocklogin all all"}, "1.1.1.1", "api/v2/barong/identity/sessions/x", "passes"},
		{"whitelink path", []string{"blacklist all all", "maintenance all all"}, "1.1.1.1", "api/v2/barong/identity/users/access", "passes"},
		{"unknown client is blacklisted", []string{"blacklist ip 9.9.9.9 433"}, "", api, "433 blacklist by 1"},
		{"unknown client is blacklisted by country", []string{"blacklist country UA"}, "", api, "423 blacklist by 1"},
		{"unknown client is not whitelisted", []string{"whitelist all all", "blacklist ip 9.9.9.9"}, "", api, "401 blacklist by 2"},
		{"unknown client without rules", []string{"whitelist all all"}, "", api, "passes"},
		{"code outside 400 to 599", []string{"blacklist ip 1.1.1.1 200"}, "1.1.1.1", api, "401 blacklist by 1"},
		{"value with spaces around", []string{"blacklist country _UA_"}, "1.1.1.1", api, "423 blacklist by 1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := compile(t, Source{Restrictions: restricts(tc.rules...), Locator: world})
			var client netip.Addr
			if tc.client != "" {
				client = netip.MustParseAddr(tc.client)
			}
			o := s.Restrict(client, tc.path)
			got := "passes"
			if o.Refused {
				got = fmt.Sprintf("%d %s", o.Status, strings.TrimPrefix(o.Code, "authz.restrict."))
			}
			if o.Rule != nil {
				got += fmt.Sprintf(" by %d", o.Rule.ID)
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestRestrictAtAnotherPrefix(t *testing.T) {
	s := compile(t, Source{Restrictions: restricts("blocklogin all all"), Prefix: "auth/"})
	if o := s.Restrict(netip.MustParseAddr("1.1.1.1"), "auth/identity/sessions"); !o.Refused {
		t.Errorf("got %+v", o)
	}
	if o := s.Restrict(netip.MustParseAddr("1.1.1.1"), "api/v2/barong/identity/sessions"); o.Refused {
		t.Errorf("got %+v", o)
	}
}

// countingLocator counts how often it is asked.
type countingLocator struct{ n int }

func (c *countingLocator) Place(netip.Addr) (Place, bool) { c.n++; return Place{Country: "UA"}, true }

func TestPlaceIsAskedOnceAndOnlyIfNeeded(t *testing.T) {
	l := new(countingLocator)
	s := compile(t, Source{Restrictions: restricts("blacklist ip 1.1.1.1"), Locator: l})
	s.Restrict(netip.MustParseAddr("1.1.1.2"), "x")
	if l.n != 0 {
		t.Errorf("asked %d times without a rule by place", l.n)
	}
	s = compile(t, Source{Locator: l, Restrictions: restricts(
		"whitelist country US", "whitelist continent NA", "maintenance country US", "blacklist country US", "blacklist continent AF",
	)})
	s.Restrict(netip.MustParseAddr("1.1.1.2"), "x")
	if l.n != 1 {
		t.Errorf("asked %d times, want once", l.n)
	}
}

func TestCompileRefusesRestrictions(t *testing.T) {
	for _, tc := range []struct {
		rule Restriction
		want string
	}{
		{Restriction{Category: "greylist", Scope: "all", Value: "all"}, "category.inclusion"},
		{Restriction{Category: "blacklist", Scope: "planet", Value: "all"}, "scope.inclusion"},
		{Restriction{Category: "blacklist", Scope: "ip", Value: " "}, "value.blank"},
		{Restriction{Category: "blacklist", Scope: "country", Value: strings.Repeat("ü", 65)}, "value.too_long"},
		{Restriction{Category: "blacklist", Scope: "ip", Value: "256.1.1.1"}, "value.invalid"},
		{Restriction{Category: "blacklist", Scope: "ip", Value: "01.1.1.1"}, "value.invalid"},
		{Restriction{Category: "blacklist", Scope: "ip", Value: "fe80::1%eth0"}, "value.invalid"},
		{Restriction{Category: "blacklist", Scope: "ip_subnet", Value: "1.1.1.1"}, "value.invalid"},
		{Restriction{Category: "blacklist", Scope: "ip_subnet", Value: "1.1.1.0/33"}, "value.invalid"},
		{Restriction{Category: "blacklist", Scope: "ip_subnet", Value: "300.1.1.0/24"}, "value.invalid"},
		{Restriction{Category: "blacklist", Scope: "country", Value: "UA"}, "no source of places"},
	} {
		tc.rule.ID, tc.rule.Enabled = 5, true
		_, err := Compile(Source{Restrictions: []Restriction{tc.rule}})
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "restriction 5") {
			t.Errorf("%+v: got %v, want %q", tc.rule, err, tc.want)
		}
	}
}

func TestValidateRestriction(t *testing.T) {
	got := ValidateRestriction(Restriction{Category: "x", Scope: "y", Value: "", Code: 200})
	if want := []string{"category.inclusion", "scope.inclusion", "value.blank", "code.inclusion"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for code, want := range map[int]bool{0: true, 399: false, 400: true, 599: true, 600: false, -1: false} {
		got := ValidateRestriction(Restriction{Category: "blacklist", Scope: "all", Value: "all", Code: code})
		if (len(got) == 0) != want {
			t.Errorf("code %d: got %q", code, got)
		}
	}
}

func TestDefaultCode(t *testing.T) {
	for _, tc := range []struct {
		category, scope string
		want            int
	}{
		{"maintenance", "ip", 471},
		{"blacklist", "continent", 423},
		{"blacklist", "country", 423},
		{"blacklist", "ip_subnet", 403},
		{"blacklist", "ip", 401},
		{"whitelist", "all", 401},
		{"blocklogin", "country", 423},
	} {
		if got := DefaultCode(tc.category, tc.scope); got != tc.want {
			t.Errorf("%s %s: got %d, want %d", tc.category, tc.scope, got, tc.want)
		}
	}
}

// TestSpansEqualNetworks holds the flattened networks to asking each network in turn.
func TestSpansEqualNetworks(t *testing.T) {
	genNetwork := rapid.Custom(func(t *rapid.T) netip.Prefix {
		if rapid.Bool().Draw(t, "v6") {
			var a [16]byte
			a[0], a[1], a[15] = rapid.SampledFrom([]byte{0, 32, 255}).Draw(t, "a"), rapid.Byte().Draw(t, "b"), rapid.Byte().Draw(t, "c")
			return netip.PrefixFrom(netip.AddrFrom16(a), rapid.IntRange(0, 128).Draw(t, "bits"))
		}
		var a [4]byte
		a[0], a[3] = rapid.SampledFrom([]byte{0, 10, 255}).Draw(t, "a"), rapid.Byte().Draw(t, "b")
		return netip.PrefixFrom(netip.AddrFrom4(a), rapid.IntRange(0, 32).Draw(t, "bits"))
	})
	rapid.Check(t, func(t *rapid.T) {
		networks := rapid.SliceOfN(genNetwork, 0, 12).Draw(t, "networks")
		var rules []Restriction
		for i, n := range networks {
			rules = append(rules, Restriction{ID: int64(i + 1), Category: "blacklist", Scope: "ip_subnet", Value: n.String(), Enabled: true})
		}
		s, err := Compile(Source{Restrictions: rules})
		if err != nil {
			t.Fatal(err)
		}
		ask := func(client netip.Addr) {
			var want int64
			for i, n := range networks {
				if n.Masked().Contains(client) {
					want = int64(i + 1)
					break
				}
			}
			var got int64
			if o := s.Restrict(client, "x"); o.Refused {
				got = o.Rule.ID
			}
			if got != want {
				t.Fatalf("%v: got rule %d, want %d", client, got, want)
			}
		}
		for _, n := range networks {
			first, last := n.Masked().Addr(), lastAddr(n.Masked())
			for _, client := range []netip.Addr{n.Addr(), first, last, first.Prev(), last.Next()} {
				if client.IsValid() && !client.Is4In6() {
					ask(client)
				}
			}
		}
		ask(netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, "last")}))
	})
}

// FuzzRestrictionValue: what is declared valid compiles, and a rule by address refuses the address that it names.
func FuzzRestrictionValue(f *testing.F) {
	for _, seed := range []struct{ scope, value string }{
		{"ip", "1.2.3.4"},
		{"ip", "::ffff:1.2.3.4"},
		{"ip", "fe80::1%25en0"},
		{"ip", "1.2.3"},
		{"ip_subnet", "10.0.0.0/8"},
		{"ip_subnet", "::/0"},
		{"ip_subnet", "::ffff:1.2.3.0/120"},
		{"ip_subnet", "1.2.3.4/-1"},
		{"country", "UA"},
		{"country", "Côte d’Ivoire"},
		{"continent", "\xff"},
		{"all", "all"},
		{"", ""},
	} {
		f.Add(seed.scope, seed.value)
	}
	f.Fuzz(func(t *testing.T, scope, value string) {
		r := Restriction{ID: 1, Category: "blacklist", Scope: scope, Value: value, Enabled: true}
		s, err := Compile(Source{Restrictions: []Restriction{r}, Locator: places{}})
		if valid := len(ValidateRestriction(r)) == 0; valid != (err == nil) {
			t.Fatalf("valid %v, compile %v", valid, err)
		}
		if err != nil {
			return
		}
		text, _, _ := strings.Cut(value, "/")
		if addr, err := netip.ParseAddr(text); err == nil && (scope == "ip" || scope == "ip_subnet" && !addr.Is4In6()) {
			if !s.Restrict(addr, "x").Refused {
				t.Fatalf("%s %q does not refuse %v", scope, value, addr)
			}
		}
		if !s.Restrict(unknownClient, "x").Refused {
			t.Fatalf("%s %q lets an unknown client through", scope, value)
		}
	})
}

func BenchmarkRestrict(b *testing.B) {
	var rules []Restriction
	for i := range 10_000 {
		rules = append(rules, Restriction{
			ID: int64(i + 1), Category: "blacklist", Scope: "ip_subnet", Enabled: true,
			Value: fmt.Sprintf("10.%d.%d.0/24", i/256, i%256),
		})
	}
	rules = append(rules, restricts("blacklist country UA", "blacklist continent EU")...)
	s := compile(b, Source{Restrictions: rules, Locator: world})
	client := netip.MustParseAddr("2.2.2.2")
	b.ReportAllocs()
	for b.Loop() {
		sink = s.Restrict(client, "api/v2/x").Refused
	}
}
