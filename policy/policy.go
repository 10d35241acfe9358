// Package policy holds the rules of a deployment and answers from them: the permissions of roles, the restrictions by
// address and place, and the lists of blocked and passed paths. It reads no database, file or network; whoever does
// hands it a Source.
//
// A Source is compiled into a Snapshot, which never changes. Compile checks everything and refuses the whole Source
// when one rule makes no sense, naming it, since a rule that is silently skipped may be the one that refuses. An Engine
// holds the Snapshot in force and replaces it in one step, so no request ever sees half a reload; when a reload fails,
// the last good Snapshot stays and the Engine says so.
//
// # Paths
//
// Rules and requests name paths without a leading slash, compared exactly, byte by byte. The request's path must be
// canonical already: decoded once, no empty or dot segments, no trailing slash. What grants is narrow, what refuses is
// wide: an ACCEPT row or a pass entry "a/b" matches at a segment boundary (a/b, a/b/c, a/b.json), while a DROP row, an
// AUDIT row or a block entry "a/b" matches everything that starts with it (a/bc too). An entry that ends in a slash is
// at its boundary already. A wide "a/b/" also matches the path "a/b" itself, because a client's trailing slash is
// dropped when its path is made canonical.
//
// # Permissions
//
// Casbin defines what permissions mean: model.conf, with one matcher function for paths. A Casbin enforcement looks at
// every row, so for the shipped model Compile builds a prefix tree per role and verb, whose answer takes time by the
// length of the path and not by the number of rules; a property test holds both equal. An operator's own Casbin model
// is run by Casbin itself, behind a bounded cache.
package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"
)

// DefaultPrefix is the public path of this API when none is configured.
const DefaultPrefix = "api/v2/barong"

// A Source is everything a Snapshot is made of, as stored.
type Source struct {
	Permissions  []Permission
	Restrictions []Restriction
	Lists        Lists
	Model        string  // the operator's own Casbin model; empty for the shipped one
	Locator      Locator // finds the place of an address; needed when a country or continent rule is enabled
	Prefix       string  // public path of this API without leading slash; empty for DefaultPrefix
	// Pages are the paths below which this process has pages for people, without slashes at their ends. GET and HEAD of them
	// pass, where the lists are the built-in ones.
	Pages   []string
	Version int64 // of the stored rules, handed back by Snapshot.Version
}

// A Snapshot is a compiled, immutable set of rules, safe for concurrent use. A nil Snapshot decides nothing and so
// refuses everything: Permit answers Undecided, Blocked true, Passed false, and Restrict 503.
type Snapshot struct {
	version     int64
	prefix      string       // without trailing slash
	files       string       // below which this API hands out files
	permissions []Permission // by id, then as given
	roles       map[string]*roleRules
	roleNames   []string
	own         *ownModel // nil for the shipped model
	pages       []string
	lists       Lists
	block, pass *node
	restrict    restrictions
	warnings    []string
}

// Compile checks a Source and makes it a Snapshot. The error names the first rule that is wrong.
func Compile(src Source) (*Snapshot, error) { return CompileAfter(nil, src) }

// CompileAfter is Compile, and takes over from the Snapshot before what is the same in both, which is cheaper when few of
// the rules have changed. The result is that of Compile in every respect. before may be nil.
func CompileAfter(before *Snapshot, src Source) (*Snapshot, error) {
	prefix := src.Prefix
	if prefix == "" {
		prefix = DefaultPrefix
	}
	if err := validateEntry(prefix); err != nil {
		return nil, fmt.Errorf("path prefix %q: %w", prefix, err)
	}
	s := &Snapshot{
		version: src.Version,
		prefix:  strings.TrimSuffix(prefix, "/"),
		files:   strings.TrimSuffix(prefix, "/") + "/files/",
		pages:   slices.Clone(src.Pages),
		lists:   Lists{Pass: slices.Clone(src.Lists.Pass), Block: slices.Clone(src.Lists.Block)},
		block:   new(node),
		pass:    new(node),

		warnings: slices.Clone(src.Lists.Warnings),
	}
	if err := s.compilePermissions(src.Permissions, before); err != nil {
		return nil, err
	}
	if err := s.compileLists(); err != nil {
		return nil, err
	}
	if err := s.compileRestrictions(src.Restrictions, src.Locator, before); err != nil {
		return nil, err
	}
	s.warnOfPrefix()
	if model := strings.TrimSpace(src.Model); model != "" && model != strings.TrimSpace(shippedModel) {
		own, err := newOwnModel(src.Model, s.permissions)
		if err != nil {
			return nil, err
		}
		s.own = own
	}
	return s, nil
}

// Version is Source.Version.
func (s *Snapshot) Version() int64 {
	if s == nil {
		return 0
	}
	return s.version
}

// Warnings lists rules, and keys of the rules file, that are legal and can never have an effect, one sentence each, for the
// log.
func (s *Snapshot) Warnings() []string {
	if s == nil {
		return nil
	}
	return slices.Clone(s.warnings)
}

// OwnModel reports whether an operator's Casbin model decides instead of the shipped one.
func (s *Snapshot) OwnModel() bool { return s != nil && s.own != nil }

// Roles lists the roles that occur in the permissions, sorted.
func (s *Snapshot) Roles() []string {
	if s == nil {
		return nil
	}
	return slices.Clone(s.roleNames)
}

// HasRole reports whether role occurs in the permissions, exactly as written. Users may only have such a role.
func (s *Snapshot) HasRole(role string) bool {
	if s == nil {
		return false
	}
	_, ok := s.roles[role]
	return ok
}

// Permissions returns a copy of the permissions in the order in which they are looked at: by id.
func (s *Snapshot) Permissions() []Permission {
	if s == nil {
		return nil
	}
	return slices.Clone(s.permissions)
}

// Blocked reports whether path starts with an entry of the block list, and with which.
func (s *Snapshot) Blocked(path string) (rule string, ok bool) {
	if s == nil {
		return "", true
	}
	var h hits
	s.block.walk(path, &h, nil)
	if i, ok := h.get(drop); ok {
		return s.lists.Block[i], true
	}
	return "", false
}

// Passed reports whether path is at or below an entry of the pass list, and which. The block list is asked first.
//
// GET and HEAD of the files that this API hands out pass whatever the list says: the browser that follows a link to one
// sends no token, and the signature in the link is what opens it. So do GET and HEAD of Source.Pages, and no other method:
// what stands there takes none. The rule of both is the path below which they are.
func (s *Snapshot) Passed(method, path string) (rule string, ok bool) {
	if s == nil {
		return "", false
	}
	var h hits
	s.pass.walk(path, &h, nil)
	if i, ok := h.get(accept); ok {
		return s.lists.Pass[i], true
	}
	if method != "GET" && method != "HEAD" {
		return "", false
	}
	if strings.HasPrefix(path, s.files) {
		return s.files, true
	}
	for _, page := range s.pages {
		if rest, ok := strings.CutPrefix(path, page); ok && (rest == "" || rest[0] == '/') {
			return page, true
		}
	}
	return "", false
}

func (s *Snapshot) compileLists() error {
	for i, entry := range s.lists.Block {
		if err := validateEntry(entry); err != nil {
			return fmt.Errorf("block entry %q: %w", entry, err)
		}
		s.block.add(entry, drop, int32(i))
	}
	for i, entry := range s.lists.Pass {
		if err := validateEntry(entry); err != nil {
			return fmt.Errorf("pass entry %q: %w", entry, err)
		}
		s.pass.add(entry, accept, int32(i))
	}
	return nil
}

// warnOfPrefix warns of rules about the place where this API is published by default when it is published elsewhere.
func (s *Snapshot) warnOfPrefix() {
	below := func(path, prefix string) bool {
		rest, ok := strings.CutPrefix(path, prefix)
		return ok && (rest == "" || rest[0] == '/')
	}
	if below(s.prefix, DefaultPrefix) { // there, or so near that rules may be meant for both
		return
	}
	permissions, entries := 0, 0
	for i := range s.permissions {
		if below(s.permissions[i].Path, DefaultPrefix) {
			permissions++
		}
	}
	for _, list := range [][]string{s.lists.Pass, s.lists.Block} {
		for _, entry := range list {
			if below(entry, DefaultPrefix) {
				entries++
			}
		}
	}
	if permissions+entries > 0 {
		s.warnings = append(s.warnings, fmt.Sprintf("%d permissions and %d entries of the path lists are about %s, but this API is "+
			"published at %s (BARONG_API_PREFIX): they have no effect on it", permissions, entries, DefaultPrefix, s.prefix))
	}
}

// A Place is where an address is: ISO 3166-1 alpha-2 country and two-letter continent code, and their names in English
// and in the configured language. What is unknown is empty.
type Place struct {
	Country, CountryName, CountryLocal       string
	Continent, ContinentName, ContinentLocal string
}

// A Locator finds the place of an address. It must be safe for concurrent use, quick, and not fail: a source whose data
// may be damaged checks it when loading. ok is false when the address has no known place (a private one, for example).
type Locator interface {
	Place(addr netip.Addr) (place Place, ok bool)
}

// maxText bounds roles, paths and topics, in bytes. They come from operators; the bound keeps a damaged table out.
const maxText = 4096

func validateText(what, s string) error {
	switch {
	case len(s) > maxText:
		return fmt.Errorf("%s is longer than %d bytes", what, maxText)
	case !utf8.ValidString(s):
		return fmt.Errorf("%s is not valid UTF-8", what)
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("%s has a control character", what)
	}
	return nil
}
