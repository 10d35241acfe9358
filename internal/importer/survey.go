package importer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"barong/api/account"
	"barong/db"
	"barong/policy"
)

// A survey is what must be known of the whole source before one of its rows can be judged. It keeps some 24 bytes a user, and
// the few rows that are in each other's way; while it looks for those, 4 bytes a row of one table.
type survey struct {
	o      *Options
	src    source
	opener *opener
	report *Report

	people people
	roles  map[string]bool
	levels []db.Level

	// The facts that decide about level and state, a set of bits for each person: the requirements of an active account,
	// the triggers of a state, the steps of the levels.
	facts []byte
	width int                                   // of one set
	judge func(i int) (level int, state string) // what the labels of a person give

	drop map[string]map[int64]bool // ids of rows that are not imported, by table; told already
	open map[int64]bool            // profiles that become rejected
	lost map[int64]bool            // phones that are not verified any more
}

// people are the users of the source: their ids, in ascending order, and their uids, by which reports name them.
type people struct {
	ids   []int64
	uids  []byte // of each, behind its length
	marks []int  // where in uids those of some begin, each markEvery'th
}

const markEvery = 16

func (p *people) find(id int64) (int, bool) { return slices.BinarySearch(p.ids, id) }

func (p *people) add(id int64, uid []byte) {
	if len(p.ids)%markEvery == 0 {
		p.marks = append(p.marks, len(p.uids))
	}
	p.ids = append(p.ids, id)
	p.uids = append(binary.AppendUvarint(p.uids, uint64(len(uid))), uid...)
}

func (p *people) uid(i int) []byte {
	at := p.uids[p.marks[i/markEvery]:]
	for n := i % markEvery; ; n-- {
		length, width := binary.Uvarint(at)
		uid, rest := at[width:width+int(length)], at[width+int(length):]
		if n == 0 {
			return uid
		}
		at = rest
	}
}

// uidOf is a user's uid, or empty.
func (p *people) uidOf(id int64) string {
	if i, ok := p.find(id); ok {
		return string(p.uid(i))
	}
	return ""
}

// expected is how many rows a table seems to have, to make room for what is kept of each at once.
func expected(src source, table string) int {
	return int(min(max(src.schema().counts[table], 0), 1<<24))
}

// maxRules bounds tables that are held in memory as a whole.
const maxRules = 200_000

func (s *survey) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		s.sealing, s.rules, s.users, s.labels, s.profiles, s.phones, s.apiKeys, s.storages,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *survey) dropped(table string, id int64) {
	if s.drop[table] == nil {
		s.drop[table] = map[int64]bool{}
	}
	s.drop[table][id] = true
}

// rules reads levels, permissions and restrictions.
func (s *survey) rules(ctx context.Context) error {
	n := 0
	bounded := func(f func(r *row) error) func(r *row) error {
		return func(r *row) error {
			if n++; n > maxRules {
				return fmt.Errorf("more than %d levels, permissions and restrictions: this is no database of the original", maxRules)
			}
			return f(r)
		}
	}
	seen := map[string]int64{}
	err := s.src.rows(ctx, levels, bounded(func(r *row) error {
		id, err := r.id()
		if err != nil {
			return err
		}
		l := db.Level{ID: id, Key: r.text("key"), Value: r.optional("value")}
		if l.Value != nil {
			name := l.Key + "\x00" + *l.Value
			if kept, twice := seen[name]; twice {
				s.dropped(levels, id)
				s.report.skip(levels, "level_twice", item{"key": l.Key, "kept": kept, "dropped": id})
				return nil
			}
			seen[name] = id
		}
		s.levels = append(s.levels, l)
		return nil
	}))
	if err != nil {
		return err
	}
	slices.SortFunc(s.levels, func(a, b db.Level) int { return int(a.ID - b.ID) })
	type rule struct{ role, verb, path, action string }
	times, order := map[rule]int{}, []rule{}
	err = s.src.rows(ctx, permissions, bounded(func(r *row) error {
		p := rule{r.text("role"), strings.ToUpper(r.text("verb")), r.text("path"), strings.ToUpper(r.text("action"))}
		s.roles[p.role] = true
		if times[p]++; times[p] == 2 {
			order = append(order, p)
		}
		return nil
	}))
	if err != nil {
		return err
	}
	for _, p := range order {
		s.report.add("permission_twice", item{"role": p.role, "verb": p.verb, "path": p.path, "action": p.action, "count": times[p]})
	}
	return s.restrictions(ctx, bounded)
}

// mapRestriction reads a restriction, without judging it.
func mapRestriction(r *row) (db.Restriction, error) {
	id, err := r.id()
	if err != nil {
		return db.Restriction{}, err
	}
	out := db.Restriction{
		ID: id, Category: r.text("category"), Scope: r.text("scope"), Value: r.text("value"), State: r.text("state"),
	}
	switch out.Category {
	case "", "denylist": // before there were categories, and what 2.5 calls it
		out.Category = "blacklist"
	case "allowlist":
		out.Category = "whitelist"
	}
	if code, ok := r.number("code"); ok {
		n := int(code)
		out.Code = &n
	} else if out.Category != "whitelist" {
		n := policy.DefaultCode(out.Category, out.Scope)
		out.Code = &n
	}
	return out, nil
}

func (s *survey) restrictions(ctx context.Context, bounded func(func(r *row) error) func(r *row) error) error {
	type candidate struct {
		db.Restriction
		updated time.Time
	}
	groups, order := map[string][]candidate{}, []string{}
	err := s.src.rows(ctx, restrictions, bounded(func(r *row) error {
		out, err := mapRestriction(r)
		if err != nil {
			return err
		}
		check := policy.Restriction{ID: out.ID, Category: out.Category, Scope: out.Scope, Value: out.Value}
		if out.Code != nil {
			check.Code = *out.Code
		}
		if check.Code == 0 && out.Code != nil {
			check.Code = 1 // a code of zero is none that may be asked for
		}
		if len(policy.ValidateRestriction(check)) > 0 || out.State != "enabled" && out.State != "disabled" {
			s.dropped(restrictions, out.ID)
			s.report.skip(restrictions, "restriction_invalid", item{"id": out.ID, "value": clip(out.Value, 80)})
			return nil
		}
		at, _ := parseTime(r.raw("updated_at"))
		key := out.Category + "\x00" + out.Scope + "\x00" + out.Value
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], candidate{out, at})
		return nil
	}))
	if err != nil {
		return err
	}
	for _, key := range order {
		all := groups[key]
		if len(all) == 1 {
			continue
		}
		keep := slices.MaxFunc(all, func(a, b candidate) int {
			if enabled := order2(a.State == "enabled", b.State == "enabled"); enabled != 0 {
				return enabled
			}
			if c := a.updated.Compare(b.updated); c != 0 {
				return c
			}
			return int(a.ID - b.ID)
		})
		var ids []int64
		for _, c := range all {
			if ids = append(ids, c.ID); c.ID != keep.ID {
				s.dropped(restrictions, c.ID)
				s.report.table(restrictions).Skipped["restriction_twice"]++
			}
		}
		slices.Sort(ids)
		s.report.add("restriction_twice", item{"category": keep.Category, "scope": keep.Scope, "value": keep.Value, "ids": ids, "keep": keep.ID})
	}
	return nil
}

// order2 orders false before true.
func order2(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// users reads who there is, and stops at two users of one address.
func (s *survey) users(ctx context.Context) error {
	p := &s.people
	sorted := true
	n := expected(s.src, users)
	*p = people{ids: make([]int64, 0, n), uids: make([]byte, 0, 13*n), marks: make([]int, 0, n/markEvery+1)} // ID and ten digits
	err := s.src.rows(ctx, users, func(r *row) error {
		id, err := r.id()
		if err != nil {
			return fmt.Errorf("table users: %w", err)
		}
		if n := len(p.ids); n > 0 && id <= p.ids[n-1] {
			sorted = false
		}
		p.add(id, []byte(r.text("uid")))
		return nil
	})
	if err != nil {
		return err
	}
	if len(p.ids) == 0 { // they are the last of a dump, whose end mysqldump --compact does not mark
		for table, rows := range s.src.schema().counts {
			if rows > 0 && slices.Contains(strings.Fields(needed[table]), "user_id") {
				return fmt.Errorf("the table users is empty, and others hold what belongs to users: the source is cut short, or was made without them")
			}
		}
	}
	if !sorted {
		p.sort()
		for i := 1; i < len(p.ids); i++ {
			if p.ids[i] == p.ids[i-1] {
				return fmt.Errorf("two users have the id %d: the source holds the table users twice, or is damaged", p.ids[i])
			}
		}
	}
	byAddress, order, err := repeated(ctx, s.src, users,
		func(r *row) (string, bool, error) { return db.NormalEmail(r.text("email")), true, nil },
		func(r *row) (string, error) { return fmt.Sprintf("%s (id %s)", r.text("uid"), r.text("id")), nil })
	if err != nil {
		return err
	}
	if len(order) > 0 {
		var lines []string
		for i, address := range order {
			if i == 20 {
				lines = append(lines, fmt.Sprintf("and %d more", len(order)-i))
				break
			}
			lines = append(lines, address+": "+strings.Join(byAddress[address], " and "))
		}
		return fmt.Errorf("several users have the same e-mail address, trimmed and in lower case: change all but one of them in the original, and import again: %s",
			strings.Join(lines, "; "))
	}
	byUID, order, err := repeated(ctx, s.src, users, func(r *row) (string, bool, error) { return r.text("uid"), true, nil },
		func(r *row) (string, error) { return r.text("id"), nil })
	if err != nil {
		return err
	}
	if len(order) > 0 {
		return fmt.Errorf("several users have the uid %s (ids %s): this is no database of the original", clip(order[0], 255), strings.Join(byUID[order[0]], ", "))
	}
	return nil
}

func (p *people) sort() {
	order := make([]int, len(p.ids))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return int(p.ids[a] - p.ids[b]) })
	var out people
	for _, i := range order {
		out.add(p.ids[i], p.uid(i))
	}
	*p = out
}

// repeated finds the rows of a table that have a key in common with another: of each such key, in the order in which they
// lie there, what pick makes of its rows. It keeps 4 bytes a row, and what was picked.
func repeated[T any](
	ctx context.Context, src source, table string, key func(*row) (string, bool, error), pick func(*row) (T, error),
) (groups map[string][]T, order []string, err error) {
	seed := maphash.MakeSeed()
	hash := func(k string) uint32 { return uint32(maphash.String(seed, k)) }
	hashes := make([]uint32, 0, expected(src, table))
	err = src.rows(ctx, table, func(r *row) error {
		k, ok, err := key(r)
		if ok {
			hashes = append(hashes, hash(k))
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(hashes)
	often := map[uint32]bool{}
	for i := 1; i < len(hashes); i++ {
		if hashes[i] == hashes[i-1] {
			often[hashes[i]] = true
		}
	}
	hashes = nil
	if len(often) == 0 {
		return nil, nil, nil
	}
	groups = map[string][]T{}
	err = src.rows(ctx, table, func(r *row) error {
		k, ok, err := key(r)
		if err != nil || !ok || !often[hash(k)] {
			return err
		}
		v, err := pick(r)
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], v)
		return err
	})
	order = slices.DeleteFunc(order, func(k string) bool { return len(groups[k]) < 2 }) // of one hash by chance
	return groups, order, err
}

// owner is the user whom a row belongs to; false when there is none.
func (s *survey) owner(r *row) (int64, bool) {
	column := "user_id"
	if !r.has(column) {
		column = "key_holder_account_id"
	}
	id, ok := r.number(column)
	if !ok {
		return 0, false
	}
	_, ok = s.people.find(id)
	return id, ok
}

// A rival is one of several rows of which one may stay.
type rival struct {
	id, user         int64
	created, updated time.Time
	verified         *time.Time
}

func (s *survey) rival(r *row) (rival, error) {
	id, err := r.id()
	user, _ := s.owner(r)
	v := rival{id: id, user: user}
	v.created, _ = parseTime(r.raw("created_at"))
	v.updated, _ = parseTime(r.raw("updated_at"))
	if at, ok := parseTime(r.raw("validated_at")); ok {
		v.verified = &at
	}
	return v, err
}

// newest orders rivals by their last change, then by their ids.
func newest(a, b rival) int {
	if c := a.updated.Compare(b.updated); c != 0 {
		return c
	}
	return int(a.id - b.id)
}

// labels collects what decides about level and state, and finds labels that are there twice. As in the original, of a
// key that is there twice the last row decides about the state, and each about the level.
func (s *survey) labels(ctx context.Context) error {
	settings := s.o.Account
	type requirement struct{ key, value string }
	var required []requirement
	for key, value := range settings.ActivationRequirements {
		required = append(required, requirement{key, value})
	}
	single := make([]account.Settings, len(settings.StateTriggers))
	for i, t := range settings.StateTriggers {
		single[i] = account.Settings{StateTriggers: []account.Trigger{{State: "\x00fits", Keys: t.Keys}}}
	}
	triggers := len(required)
	steps := triggers + len(single)
	s.width = (steps + len(s.levels) + 7) / 8
	s.facts = make([]byte, s.width*len(s.people.ids))
	fits := map[string][]int{} // triggers by key
	err := s.src.rows(ctx, labels, func(r *row) error {
		if string(r.raw("scope")) != account.Private {
			return nil
		}
		user, _ := s.owner(r)
		i, ok := s.people.find(user)
		if !ok {
			return nil
		}
		set := s.facts[i*s.width : (i+1)*s.width]
		key, value := r.text("key"), r.text("value")
		for n, q := range required {
			if strings.EqualFold(q.key, key) {
				set[n/8] &^= 1 << (n % 8)
				if strings.EqualFold(q.value, value) {
					set[n/8] |= 1 << (n % 8)
				}
			}
		}
		fitting, known := fits[key]
		if !known {
			for n := range single {
				if single[n].StateOf([]db.Label{{Key: key, Scope: account.Private}}) == "\x00fits" {
					fitting = append(fitting, triggers+n)
				}
			}
			if len(fits) < 100_000 {
				fits[key] = fitting
			}
		}
		for _, n := range fitting {
			set[n/8] |= 1 << (n % 8)
		}
		for n := range s.levels {
			if l := &s.levels[n]; l.Value != nil && strings.EqualFold(l.Key, key) && strings.EqualFold(*l.Value, value) {
				set[(steps+n)/8] |= 1 << ((steps + n) % 8)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.judge = func(i int) (level int, state string) {
		set := s.facts[i*s.width : (i+1)*s.width]
		has := func(n int) bool { return set[n/8]&(1<<(n%8)) != 0 }
		var forState, forLevel []db.Label
		for n, q := range required {
			if has(n) {
				forState = append(forState, db.Label{Key: q.key, Value: q.value, Scope: account.Private})
			}
		}
		for n, t := range settings.StateTriggers {
			if has(triggers+n) && len(t.Keys) > 0 {
				forState = append(forState, db.Label{Key: t.Keys[0], Scope: account.Private})
			}
		}
		for n := range s.levels {
			if l := &s.levels[n]; has(steps + n) {
				forLevel = append(forLevel, db.Label{Key: l.Key, Value: *l.Value, Scope: account.Private})
			}
		}
		return account.LevelOf(s.levels, forLevel), settings.StateOf(forState)
	}
	groups, order, err := repeated(ctx, s.src, labels, func(r *row) (string, bool, error) {
		user, ok := s.owner(r)
		scope := r.text("scope")
		return fmt.Sprintf("%d\x00%s\x00%s", user, r.text("key"), scope), ok && (scope == account.Private || scope == account.Public), nil
	}, s.rival)
	if err != nil {
		return err
	}
	for _, k := range order {
		parts := strings.SplitN(k, "\x00", 2)
		key, scope, _ := cutLast(parts[1], "\x00")
		s.keepOne(labels, "label_twice", groups[k], newest, item{"key": key, "scope": scope})
	}
	return nil
}

// keepOne keeps the greatest of rivals and drops the others.
func (s *survey) keepOne(table, kind string, all []rival, compare func(a, b rival) int, also item) {
	keep := slices.MaxFunc(all, compare)
	for _, v := range all {
		if v.id == keep.id {
			continue
		}
		s.dropped(table, v.id)
		what := item{"kept": keep.id, "dropped": v.id}
		if also["kid"] == nil {
			what["user"] = s.people.uidOf(v.user)
		}
		for k, v := range also {
			what[k] = v
		}
		s.report.skip(table, kind, what)
	}
}

// profiles finds users with several open profiles.
func (s *survey) profiles(ctx context.Context) error {
	groups, order, err := repeated(ctx, s.src, profiles, func(r *row) (string, bool, error) {
		user, ok := s.owner(r)
		state, _ := profileState(r)
		return fmt.Sprint(user), ok && (state == db.ProfileDrafted || state == db.ProfileSubmitted), nil
	}, s.rival)
	if err != nil {
		return err
	}
	for _, k := range order {
		all := groups[k]
		keep := slices.MaxFunc(all, func(a, b rival) int {
			if c := a.created.Compare(b.created); c != 0 {
				return c
			}
			return int(a.id - b.id)
		})
		var ids []int64
		for _, v := range all {
			ids = append(ids, v.id)
		}
		slices.Sort(ids)
		for _, id := range ids {
			if id != keep.id {
				s.open[id] = true
				s.report.add("profile_two_open", item{"user": s.people.uidOf(keep.user), "ids": ids, "kept_open": keep.id, "becomes_rejected": id})
			}
		}
	}
	return nil
}

// profileState is a profile's state here, and what is odd about the original's.
func profileState(r *row) (state int, kind string) {
	n, ok := r.number("state")
	switch {
	case !ok && !r.has("state"):
		return db.ProfileDrafted, ""
	case !ok:
		return db.ProfileDrafted, "profile_state_null"
	case n == db.ProfileDrafted, n == db.ProfileSubmitted, n == db.ProfileVerified, n == db.ProfileRejected:
		return int(n), ""
	}
	return db.ProfileDrafted, "profile_state_unknown"
}

// phoneNumber is a phone's number in digits.
func (s *survey) phoneNumber(r *row) (string, error) {
	number, _, err := s.unsealed(r, "number")
	if err != nil || number == nil {
		return "", err
	}
	return strings.Map(func(c rune) rune {
		if '0' <= c && c <= '9' {
			return c
		}
		return -1
	}, *number), nil
}

// unsealed is a column that 2.6 seals, and older releases do not; false says that it does not open.
func (s *survey) unsealed(r *row, column string) (v *string, ok bool, err error) {
	if r.has(column) {
		return r.optional(column), true, nil
	}
	sealed := r.text(column + "_encrypted")
	if sealed == "" {
		return nil, true, nil
	}
	v, ok = s.opener.open(sealed)
	return v, ok, nil
}

// enough values that do not open say that the secret key base is another's, and not that they are damaged.
const enough = 1000

// sealing tries the secret key base of 2.6 on sealed values, until one opens.
func (s *survey) sealing(ctx context.Context) error {
	if !s.sealed() {
		return nil
	}
	errStop := errors.New("stop")
	tried := 0
	for _, table := range []string{profiles, phones, documents} {
		err := s.src.rows(ctx, table, func(r *row) error {
			for column := range r.index {
				sealed := ""
				if strings.HasSuffix(column, "_encrypted") {
					sealed = r.text(column)
				}
				if sealed == "" {
					continue
				}
				if s.opener.base == "" {
					return errBase
				}
				if _, ok := s.opener.open(sealed); ok {
					tried = 0
					return errStop
				}
				if tried++; tried == enough {
					return errStop
				}
			}
			return nil
		})
		switch {
		case errors.Is(err, errStop):
			if tried == 0 {
				return nil
			}
			return fmt.Errorf("the secret key base that was given opens no sealed value: %w", errBase)
		case err != nil:
			return err
		}
	}
	if tried > 0 {
		return fmt.Errorf("the secret key base that was given opens no sealed value: %w", errBase)
	}
	return nil
}

// sealed reports whether the source is of a release that seals columns.
func (s *survey) sealed() bool {
	for _, table := range []string{profiles, phones, documents} {
		if slices.ContainsFunc(s.src.schema().columns[table], func(c string) bool { return strings.HasSuffix(c, "_encrypted") }) {
			return true
		}
	}
	return false
}

// phones finds numbers that a user has twice, and numbers that several users have verified.
func (s *survey) phones(ctx context.Context) error {
	type rivalPhone struct {
		rival
		number string
	}
	pick := func(r *row) (rivalPhone, error) {
		v, err := s.rival(r)
		if err != nil {
			return rivalPhone{}, err
		}
		number, err := s.phoneNumber(r)
		return rivalPhone{v, number}, err
	}
	groups, order, err := repeated(ctx, s.src, phones, func(r *row) (string, bool, error) {
		user, ok := s.owner(r)
		number, err := s.phoneNumber(r)
		return fmt.Sprintf("%d/%s", user, number), ok && number != "", err
	}, s.rival)
	if err != nil {
		return err
	}
	for _, k := range order {
		s.keepOne(phones, "phone_twice", groups[k], func(a, b rival) int { return firstVerified(b, a) }, nil)
	}
	verified, order, err := repeated(ctx, s.src, phones, func(r *row) (string, bool, error) {
		_, ok := s.owner(r)
		if _, valid := parseTime(r.raw("validated_at")); !ok || !valid {
			return "", false, nil
		}
		number, err := s.phoneNumber(r)
		return number, number != "", err
	}, pick)
	if err != nil {
		return err
	}
	for _, k := range order {
		all := slices.DeleteFunc(verified[k], func(p rivalPhone) bool { return s.drop[phones][p.id] })
		if len(all) < 2 {
			continue
		}
		keep := slices.MinFunc(all, func(a, b rivalPhone) int { return firstVerified(a.rival, b.rival) })
		for _, p := range all {
			if p.id != keep.id {
				s.lost[p.id] = true
				s.report.add("phone_verified_by_two", item{
					"keeps": s.people.uidOf(keep.user), "loses": s.people.uidOf(p.user), "kept": keep.id, "unverified": p.id,
				})
			}
		}
	}
	return nil
}

// firstVerified orders phones: verified ones by when they were, then the others by when they were made.
func firstVerified(a, b rival) int {
	if c := order2(a.verified == nil, b.verified == nil); c != 0 {
		return c
	}
	if a.verified != nil {
		if c := a.verified.Compare(*b.verified); c != 0 {
			return c
		}
	}
	if c := a.created.Compare(b.created); c != 0 {
		return c
	}
	return int(a.id - b.id)
}

func (s *survey) apiKeys(ctx context.Context) error {
	groups, order, err := repeated(ctx, s.src, apiKeys, func(r *row) (string, bool, error) {
		_, ok := s.owner(r)
		return r.text("kid"), ok && !service(r), nil
	}, s.rival)
	if err != nil {
		return err
	}
	for _, k := range order {
		s.keepOne(apiKeys, "apikey_kid_twice", groups[k], newest, item{"kid": k})
	}
	return nil
}

// service reports that an API key is not a user's.
func service(r *row) bool {
	return r.has("key_holder_account_type") && r.text("key_holder_account_type") != "User"
}

func (s *survey) storages(ctx context.Context) error {
	groups, order, err := repeated(ctx, s.src, dataStorages, func(r *row) (string, bool, error) {
		user, ok := s.owner(r)
		return fmt.Sprintf("%d/%s", user, lowerTitle(r.text("title"))), ok, nil
	}, s.rival)
	if err != nil {
		return err
	}
	for _, k := range order {
		s.keepOne(dataStorages, "data_storage_twice", groups[k], newest, nil)
	}
	return nil
}

// lowerTitle folds a title as far as both engines do, or further.
func lowerTitle(title string) string { return strings.ToLower(title) }
