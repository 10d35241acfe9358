package policy

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"barong/internal/fault"
)

// A Restriction is one row of the restrictions table.
type Restriction struct {
	ID       int64
	Category string // whitelist, maintenance, blacklist, blocklogin
	Scope    string // all, ip, ip_subnet, country, continent
	Value    string // by scope: anything, an address, a CIDR, or an ISO 3166-1 or continent code or a name
	Code     int    // HTTP status of the refusal, 400 to 599; any other number means the default
	Enabled  bool
}

// String names the restriction in errors and explanations.
func (r Restriction) String() string {
	return fmt.Sprintf("restriction %d (%s %s %s)", r.ID, r.Category, r.Scope, r.Value)
}

// Categories returns the categories in the order in which they are asked.
func Categories() []string { return slices.Clone(categoryNames[:]) }

// Scopes returns the scopes in the order in which they are asked.
func Scopes() []string { return slices.Clone(scopeNames[:]) }

const (
	whitelist = iota
	maintenance
	blacklist
	blocklogin
	categories
)

const (
	scopeAll = iota
	scopeIP
	scopeSubnet
	scopeCountry
	scopeContinent
	scopes
)

var (
	categoryNames = [categories]string{"whitelist", "maintenance", "blacklist", "blocklogin"}
	scopeNames    = [scopes]string{"all", "ip", "ip_subnet", "country", "continent"}
	refusalCodes  = [categories]string{
		maintenance: "authz.restrict.maintenance",
		blacklist:   "authz.restrict.blacklist",
		blocklogin:  "authz.restrict.blocklogin",
	}
)

// undecided refuses where there are no rules to ask.
var undecided = Outcome{Refused: true, Code: string(fault.Unavailable), Status: fault.Unavailable.Status()}

// DefaultCode is the status of a restriction that has no code of its own.
func DefaultCode(category, scope string) int {
	if category == categoryNames[maintenance] {
		return fault.Code(refusalCodes[maintenance]).Status()
	}
	switch scope {
	case scopeNames[scopeContinent], scopeNames[scopeCountry]:
		return 423
	case scopeNames[scopeSubnet]:
		return 403
	}
	return 401
}

// ValidCode reports whether a restriction may refuse with code. A success or redirect would let the request through.
func ValidCode(code int) bool { return code >= 400 && code <= 599 }

// MaxValue is how long a restriction's value may be, in characters.
const MaxValue = 64

// ValidateRestriction checks a restriction that is about to be stored. It returns the error codes of what is wrong, in
// the order category, scope, value, code ("value.invalid", ...), or none. A Code of 0 asks for the default.
func ValidateRestriction(r Restriction) []string {
	var wrong []string
	if !slices.Contains(categoryNames[:], r.Category) {
		wrong = append(wrong, "category.inclusion")
	}
	if !slices.Contains(scopeNames[:], r.Scope) {
		wrong = append(wrong, "scope.inclusion")
	}
	switch {
	case strings.TrimSpace(r.Value) == "":
		wrong = append(wrong, "value.blank")
	case utf8.RuneCountInString(r.Value) > MaxValue:
		wrong = append(wrong, "value.too_long")
	case !ValidValue(r.Scope, r.Value):
		wrong = append(wrong, "value.invalid")
	}
	if r.Code != 0 && !ValidCode(r.Code) {
		wrong = append(wrong, "code.inclusion")
	}
	return wrong
}

// ValidValue reports whether value makes sense for scope: an IPv4 or IPv6 address for ip, a network in CIDR notation
// for ip_subnet. Other scopes take any text.
func ValidValue(scope, value string) bool {
	switch scope {
	case scopeNames[scopeIP]:
		_, err := parseAddr(value)
		return err == nil
	case scopeNames[scopeSubnet]:
		_, err := parseSubnet(value)
		return err == nil
	}
	return utf8.ValidString(value)
}

func parseAddr(value string) (netip.Addr, error) {
	a, err := netip.ParseAddr(value)
	if err != nil {
		return netip.Addr{}, err
	}
	if a.Zone() != "" {
		return netip.Addr{}, errors.New("an address with a zone is no client's")
	}
	return a.Unmap(), nil
}

func parseSubnet(value string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(value)
	if err != nil {
		return netip.Prefix{}, err
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 { // clients are compared as IPv4
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// An Outcome is what the restrictions say to a client. Its zero value lets it go on to the next check.
type Outcome struct {
	Refused bool
	Code    string       // "authz.restrict.blacklist", ...; empty unless Refused
	Status  int          // HTTP status of the refusal
	Rule    *Restriction // the rule that refused, or the whitelist rule that ended the search; to be read only; may be nil
}

// restrictions are the enabled rules, compiled.
type restrictions struct {
	any      bool
	rules    []Restriction // enabled, by id then as given, with their true code
	sets     [categories]ruleSet
	locator  Locator
	given    []Restriction // what they were compiled from
	warnings []string
	access   string // the one path that no restriction covers, so that a whitelink can be redeemed
	login    string // the path that blocklogin covers, also with a suffix such as ".json", which the API forgives
}

// A ruleSet is the rules of one category. Rules are numbered in stored order; where several match within a scope, the
// lowest number counts, so that its code is the answer.
type ruleSet struct {
	first     [scopes]int32 // first rule of each scope, or none
	ips       map[netip.Addr]int32
	subnets   []span
	country   map[string]int32 // by folded code or name
	continent map[string]int32
}

const none = int32(-1)

// A span is a range of addresses and the first rule whose network covers it. Spans do not overlap and are sorted, so
// that one binary search stands for all networks.
type span struct {
	first, last netip.Addr
	rule        int32
}

// compileRestrictions checks the enabled rules; disabled ones are not looked at. Those of the Snapshot before are taken over
// when they are the same.
func (s *Snapshot) compileRestrictions(rows []Restriction, locator Locator, before *Snapshot) error {
	if before != nil && before.prefix == s.prefix && before.restrict.locator == locator && slices.Equal(before.restrict.given, rows) {
		s.restrict = before.restrict
	} else if err := s.restrict.compile(s.prefix, rows, locator); err != nil {
		return err
	}
	s.warnings = append(s.warnings, s.restrict.warnings...)
	return nil
}

func (c *restrictions) compile(prefix string, rows []Restriction, locator Locator) error {
	c.locator, c.access, c.login = locator, prefix+"/identity/users/access", prefix+"/identity/sessions"
	c.given = slices.Clone(rows)
	for _, r := range rows {
		if r.Enabled {
			c.rules = append(c.rules, r)
		}
	}
	c.any = len(c.rules) > 0
	slices.SortStableFunc(c.rules, func(a, b Restriction) int { return cmp.Compare(a.ID, b.ID) })
	for i := range c.sets {
		c.sets[i] = ruleSet{
			first: [scopes]int32{none, none, none, none, none},
			ips:   map[netip.Addr]int32{}, country: map[string]int32{}, continent: map[string]int32{},
		}
	}
	var subnets [categories][]numberedPrefix
	for i := range c.rules {
		r := &c.rules[i]
		if r.Code != 0 && !ValidCode(r.Code) {
			c.warnings = append(c.warnings, fmt.Sprintf("%s: code %d is not within 400 to 599, so the default is used", r, r.Code))
		}
		if !ValidCode(r.Code) {
			r.Code = DefaultCode(r.Category, r.Scope)
		}
		if wrong := ValidateRestriction(*r); len(wrong) > 0 {
			return fmt.Errorf("%s: %s", r, strings.Join(wrong, ", "))
		}
		category, scope := slices.Index(categoryNames[:], r.Category), slices.Index(scopeNames[:], r.Scope)
		set, no := &c.sets[category], int32(i)
		if set.first[scope] == none {
			set.first[scope] = no
		}
		switch scope {
		case scopeIP:
			addr, err := parseAddr(r.Value)
			if err != nil {
				return fmt.Errorf("%s: %w", r, err)
			}
			keepFirst(set.ips, addr, no)
		case scopeSubnet:
			network, err := parseSubnet(r.Value)
			if err != nil {
				return fmt.Errorf("%s: %w", r, err)
			}
			subnets[category] = append(subnets[category], numberedPrefix{network, no})
		case scopeCountry, scopeContinent:
			if locator == nil {
				return fmt.Errorf("%s: there is no source of places", r)
			}
			value := strings.TrimSpace(r.Value)
			if !knownCode(scope, value) {
				c.warnings = append(c.warnings, fmt.Sprintf(
					"%s: %s is no code of a %s, so it matches only where the place data has that name", r, value, r.Scope))
			}
			if scope == scopeContinent {
				keepFirst(set.continent, foldText(value), no)
				break
			}
			keepFirst(set.country, foldText(value), no)
			if alpha2, ok := alpha2Of(value); ok {
				keepFirst(set.country, foldText(alpha2), no)
			}
		}
	}
	for i := range c.sets {
		c.sets[i].subnets = flatten(subnets[i])
	}
	return nil
}

// knownCode tells a value that is as short as a code and none, "UK" for example, from codes and names.
func knownCode(scope int, value string) bool {
	if len(value) > 3 {
		return true
	}
	if scope == scopeContinent {
		return slices.Contains(continents[:], strings.ToUpper(value))
	}
	if len(value) == 2 {
		return knownAlpha2(value)
	}
	_, ok := alpha2Of(value)
	return ok
}

func keepFirst[K comparable](m map[K]int32, k K, no int32) {
	if _, ok := m[k]; !ok {
		m[k] = no
	}
}

type numberedPrefix struct {
	netip.Prefix
	no int32
}

// flatten turns networks into sorted spans. Two networks are either apart or one within the other, so a sweep with a
// stack of the networks that are open does it.
func flatten(networks []numberedPrefix) []span {
	slices.SortFunc(networks, func(a, b numberedPrefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()), cmp.Compare(a.no, b.no))
	})
	var (
		spans []span
		open  []span     // from the outermost network inwards; rule is the first rule of it and all around it
		next  netip.Addr // the first address that no span covers yet, within the innermost open network
	)
	closeUntil := func(addr netip.Addr) { // close the networks that end before addr; all of them if addr is the zero Addr
		for len(open) > 0 {
			top := open[len(open)-1]
			if addr.IsValid() && addr.Compare(top.last) <= 0 {
				return
			}
			open = open[:len(open)-1]
			if next.IsValid() && next.Compare(top.last) <= 0 {
				spans = append(spans, span{next, top.last, top.rule})
				next = top.last.Next() // the zero Addr after the last address of all: nothing is left to cover
			}
		}
	}
	for _, n := range networks {
		first := n.Addr()
		closeUntil(first)
		rule := n.no
		if len(open) > 0 {
			top := open[len(open)-1]
			if next.IsValid() && next.Compare(first) < 0 {
				spans = append(spans, span{next, first.Prev(), top.rule})
			}
			rule = min(rule, top.rule)
		}
		next = first
		open = append(open, span{first, lastAddr(n.Prefix), rule})
	}
	closeUntil(netip.Addr{})
	return spans
}

// lastAddr is the last address of a masked network.
func lastAddr(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(raw)*8; bit++ {
		raw[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(raw)
	return last
}

// Restrict says whether the restrictions refuse a client that asks for a canonical path. The categories are asked in
// the order whitelist, maintenance, blacklist, blocklogin, and within each the scopes all, ip, ip_subnet, country,
// continent; the first match decides, and one of whitelist ends the search. The zero Addr is a client whose address
// could not be told: no whitelist rule matches it and every other rule does.
func (s *Snapshot) Restrict(client netip.Addr, path string) Outcome {
	if s == nil {
		return undecided
	}
	c := &s.restrict
	if !c.any || path == c.access {
		return Outcome{}
	}
	client = client.Unmap().WithZone("")
	where := whereabouts{client: client, locator: c.locator}
	for category := range c.sets {
		if category == whitelist && !client.IsValid() || category == blocklogin && !c.signsIn(path) {
			continue
		}
		no := c.sets[category].match(&where)
		if no == none {
			continue
		}
		rule := &c.rules[no]
		if category == whitelist {
			return Outcome{Rule: rule}
		}
		return Outcome{Refused: true, Code: refusalCodes[category], Status: rule.Code, Rule: rule}
	}
	return Outcome{}
}

// signsIn reports whether the path is the one of sign-ins, in any spelling that the API answers.
func (c *restrictions) signsIn(path string) bool {
	suffix, ok := strings.CutPrefix(path, c.login)
	return ok && (suffix == "" || suffix[0] == '.')
}

// whereabouts is a client and its place, which is looked up once, and only if a rule asks for it.
type whereabouts struct {
	client  netip.Addr
	locator Locator
	asked   bool
	known   bool
	place   Place
}

func (w *whereabouts) look() bool {
	if !w.asked {
		w.asked = true
		w.place, w.known = w.locator.Place(w.client)
	}
	return w.known
}

func (set *ruleSet) match(w *whereabouts) int32 {
	if !w.client.IsValid() {
		for _, no := range set.first {
			if no != none {
				return no
			}
		}
		return none
	}
	if set.first[scopeAll] != none {
		return set.first[scopeAll]
	}
	if no, ok := set.ips[w.client]; ok {
		return no
	}
	if no := set.subnet(w.client); no != none {
		return no
	}
	if set.first[scopeCountry] != none && w.look() {
		if no := firstNamed(set.country, w.place.Country, w.place.CountryName, w.place.CountryLocal); no != none {
			return no
		}
	}
	if set.first[scopeContinent] != none && w.look() {
		return firstNamed(set.continent, w.place.Continent, w.place.ContinentName, w.place.ContinentLocal)
	}
	return none
}

func (set *ruleSet) subnet(client netip.Addr) int32 {
	at, found := slices.BinarySearchFunc(set.subnets, client, func(s span, a netip.Addr) int { return s.first.Compare(a) })
	if !found {
		at--
	}
	if at < 0 || client.Compare(set.subnets[at].last) > 0 {
		return none
	}
	return set.subnets[at].rule
}

func firstNamed(rules map[string]int32, names ...string) int32 {
	best := none
	for _, name := range names {
		if name == "" {
			continue
		}
		var buf [MaxValue * utf8.UTFMax]byte
		if no, ok := rules[string(fold(buf[:0], name))]; ok && (best == none || no < best) {
			best = no
		}
	}
	return best
}

// foldText makes texts that differ only in case equal.
func foldText(s string) string { return string(fold(nil, s)) }

func fold(dst []byte, s string) []byte {
	for _, r := range s {
		dst = utf8.AppendRune(dst, unicode.ToLower(unicode.ToUpper(r)))
	}
	return dst
}
