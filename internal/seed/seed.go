// Package seed puts users, levels, permissions and restrictions of a file, or the built-in ones, into a database unless
// they are there.
package seed

import (
	"context"
	"crypto/rand"
	_ "embed" // the built-in seeds
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"

	"barong/db"
	"barong/internal/crypto/secret"
	"barong/policy"
)

//go:embed default.yml
var defaultSeeds []byte

// Seeds are users, levels, permissions and restrictions to be put into the database unless they are there.
type Seeds struct {
	users, levels, permissions, restrictions []entry

	warnings   []string
	firstUsers bool // the users are for a database without a superadmin
}

// Default are the built-in seeds: three levels, the usual permissions, sample restrictions that are switched off,
// and the first superadmin, whose address and password are the variables ADMIN_EMAIL and ADMIN_PASSWORD. Unless
// ADMIN_EMAIL asks for that very account, it is made only while there is no superadmin.
func Default(getenv func(string) (string, bool)) (*Seeds, error) {
	s, err := Parse(defaultSeeds, getenv)
	if err != nil {
		return nil, fmt.Errorf("built-in seeds: %w", err)
	}
	_, named := getenv("ADMIN_EMAIL")
	s.firstUsers = !named
	return s, nil
}

// At returns the seeds for an API that is published at prefix and not at policy.DefaultPrefix: a permission that names the
// API follows it there, and one for all that is beside the usual place also holds for an unusual one.
func (s *Seeds) At(prefix string) *Seeds {
	beside := path.Dir(policy.DefaultPrefix)
	usual := strings.HasPrefix(prefix+"/", beside+"/")
	out := *s
	out.permissions = nil
	for _, e := range s.permissions {
		where := e.text("path")
		if moved := policy.PathAt(prefix, where); moved != where {
			e = e.withPath(moved)
		}
		out.permissions = append(out.permissions, e)
		if rest, ok := strings.CutPrefix(where, beside); ok && !usual && (rest == "" || rest == "/") {
			out.permissions = append(out.permissions, e.withPath(prefix+rest))
		}
	}
	return &out
}

func (e entry) withPath(to string) entry {
	e.fields = maps.Clone(e.fields)
	e.fields["path"] = &to
	return e
}

// An Error says what is wrong with an entry. Its text is what operators of the original know; the line is beside it.
type Error struct {
	Line    int // of the entry in the seeds file
	Message string
}

func (e *Error) Error() string { return e.Message }

// Options are what Run needs beside the seeds. Only Hash must be set.
type Options struct {
	Hash      func(password string) (digest string, err error)
	UIDPrefix string       // of new users' uids; empty for "ID"
	Random    func([]byte) // for uids and passwords; nil for crypto/rand
	// State tells an account's state from its private labels; nil asks for the label email:verified alone. A seed that
	// says otherwise wins, as an admin's decision does.
	State func([]db.Label) string
	// Created is called for each new user, within the transaction; it may be nil.
	Created func(context.Context, *db.Tx, *db.User) error
	// Deliver hands over passwords that were made, before the commit, so that none is lost; it may be called again when a
	// transaction is. It may be nil. An error of it undoes everything.
	Deliver func(*Report) error
}

// An Outcome is what became of an entry.
type Outcome string

// The outcomes.
const (
	Created   Outcome = "created"
	Changed   Outcome = "changed"
	LeftAlone Outcome = "left alone"
)

// An Item is an entry and what became of it.
type Item struct {
	Kind     string // "level", "permission", "user", "restriction"
	Name     string
	Outcome  Outcome
	Note     string      // how what was left alone differs from the entry; may be empty
	Password secret.Text // made for a new user who had none; it is known nowhere else
}

// A Report lists the entries in the order in which they were looked at.
type Report struct{ Items []Item }

// Count counts the entries with an outcome; an empty kind counts those of every kind.
func (r *Report) Count(kind string, outcome Outcome) int {
	n := 0
	for i := range r.Items {
		if r.Items[i].Outcome == outcome && (kind == "" || r.Items[i].Kind == kind) {
			n++
		}
	}
	return n
}

// Run puts levels, permissions, users and restrictions, in this order, into the database unless they are there, all in
// one transaction: after an error nothing has changed. It is safe to run again, and beside a running server. An entry
// that is there already stays as it is, whatever admins have made of it since; only a level's description and a
// permission's topic follow a file that gives another. The error is a *Error when an entry is wrong.
func Run(ctx context.Context, d *db.DB, s *Seeds, o Options) (*Report, error) {
	if o.UIDPrefix == "" {
		o.UIDPrefix = "ID"
	}
	if o.Random == nil {
		o.Random = func(b []byte) { _, _ = rand.Read(b) } // it never fails
	}
	if o.State == nil {
		o.State = func(labels []db.Label) string {
			for i := range labels {
				if labels[i].Key == "email" && labels[i].Value == "verified" {
					return "active"
				}
			}
			return "pending"
		}
	}
	run := seeding{seeds: s, options: o}
	if err := run.prepareUsers(ctx, d); err != nil {
		return nil, err
	}
	err := d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		run.report = new(Report) // of this attempt
		if err := tx.LockRules(ctx); err != nil {
			return fmt.Errorf("seed: %w", err)
		}
		for _, step := range [...]func(context.Context, *db.Tx) error{run.levels, run.permissions, run.users, run.restrictions} {
			if err := step(ctx, tx); err != nil {
				return err
			}
		}
		if o.Deliver != nil {
			return o.Deliver(run.report)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return run.report, nil
}

type seeding struct {
	seeds    *Seeds
	options  Options
	accounts []newUser
	report   *Report
}

func (s *seeding) note(kind, name string, outcome Outcome, note string) {
	s.report.Items = append(s.report.Items, Item{Kind: kind, Name: name, Outcome: outcome, Note: note})
}

func (s *seeding) levels(ctx context.Context, tx *db.Tx) error {
	have, err := tx.Levels(ctx)
	if err != nil {
		return fmt.Errorf("seed levels: %w", err)
	}
next:
	for i, e := range s.seeds.levels {
		key, value, description := e.text("key"), e.text("value"), e.fields["description"]
		name := key + ":" + value
		for _, field := range [...]string{"key", "value"} {
			if strings.TrimSpace(e.text(field)) == "" {
				return e.errorf("Can't create level: %s is blank", field)
			}
		}
		id := int64(i + 1)
		for j := range have {
			l := &have[j]
			if l.Key == key && l.Value != nil && *l.Value == value {
				if description == nil || l.Description != nil && *l.Description == *description {
					s.note("level", name, LeftAlone, "")
					continue next
				}
				l.Description = description
				if err := tx.DescribeLevel(ctx, l); err != nil {
					return fmt.Errorf("seed level %s: %w", name, err)
				}
				s.note("level", name, Changed, "description")
				continue next
			}
			if l.ID == id {
				return e.errorf("Can't create level %s: level %d is %s already", name, id, l.Key)
			}
		}
		l := db.Level{ID: id, Key: key, Value: &value, Description: description}
		if err := tx.InsertLevel(ctx, &l); err != nil {
			return fmt.Errorf("seed level %s: %w", name, err)
		}
		have = append(have, l)
		s.note("level", name, Created, "")
	}
	if len(have) == 0 {
		return nil
	}
	if err := tx.FollowLevels(ctx); err != nil {
		return fmt.Errorf("seed levels: %w", err)
	}
	return nil
}

func (s *seeding) permissions(ctx context.Context, tx *db.Tx) error {
	type rule struct{ role, verb, path, action string }
	rows, err := tx.AllPermissions(ctx)
	if err != nil {
		return fmt.Errorf("seed permissions: %w", err)
	}
	have := make(map[rule]*db.Permission, len(rows))
	for i := range rows {
		p := &rows[i]
		r := rule{p.Role, strings.ToUpper(p.Verb), p.Path, strings.ToUpper(p.Action)}
		if have[r] == nil {
			have[r] = p
		}
	}
	for _, e := range s.seeds.permissions {
		r := rule{e.text("role"), strings.ToUpper(e.text("verb")), e.text("path"), strings.ToUpper(e.text("action"))}
		topic, name := e.fields["topic"], strings.Join([]string{r.role, r.action, r.verb, r.path}, " ")
		check := policy.Permission{Role: r.role, Verb: r.verb, Path: r.path, Action: r.action, Topic: e.text("topic")}
		if err := check.Validate(); err != nil {
			return e.errorf("Can't create permission: %s (%s)", err, name)
		}
		p := have[r]
		switch {
		case p == nil:
			p = &db.Permission{Role: r.role, Verb: r.verb, Path: r.path, Action: r.action, Topic: topic}
			if err := tx.InsertPermission(ctx, db.Who{}, p); err != nil {
				return fmt.Errorf("seed permission %s: %w", name, err)
			}
			have[r] = p
			s.note("permission", name, Created, "")
		case topic != nil && (p.Topic == nil || *p.Topic != *topic):
			before := *p
			p.Topic = topic
			if err := tx.UpdatePermission(ctx, db.Who{}, &before, p); err != nil {
				return fmt.Errorf("seed permission %s: %w", name, err)
			}
			s.note("permission", name, Changed, "topic")
		default:
			s.note("permission", name, LeftAlone, "")
		}
	}
	return nil
}

func (s *seeding) restrictions(ctx context.Context, tx *db.Tx) error {
	rows, err := tx.AllRestrictions(ctx)
	if err != nil {
		return fmt.Errorf("seed restrictions: %w", err)
	}
next:
	for _, e := range s.seeds.restrictions {
		for _, field := range [...]struct{ key, missing string }{
			{"category", "category missing in restrictions seed"},
			{"scope", "scope is missing in restrictions seed"},
			{"value", "value is missing in restrictions seed"},
			{"state", "state is missing in restrictions seed"},
		} {
			if e.fields[field.key] == nil {
				return e.errorf("%s", field.missing)
			}
		}
		r := db.Restriction{Category: e.text("category"), Scope: e.text("scope"), Value: e.text("value"), State: e.text("state")}
		name := strings.Join([]string{r.Category, r.Scope, r.Value}, " ")
		code := policy.DefaultCode(r.Category, r.Scope)
		if text := e.fields["code"]; text != nil {
			if code, err = strconv.Atoi(*text); err != nil || !policy.ValidCode(code) {
				return e.errorf("Can't create restriction: code.inclusion (%s: %q is not within 400 to 599)", name, *text)
			}
		}
		r.Code = &code
		wrong := policy.ValidateRestriction(policy.Restriction{Category: r.Category, Scope: r.Scope, Value: r.Value, Code: code})
		if r.State != "enabled" && r.State != "disabled" {
			wrong = append(wrong, "state.inclusion")
		}
		if len(wrong) > 0 {
			return e.errorf("Can't create restriction: %s (%s %s)", strings.Join(wrong, "; "), name, r.State)
		}
		for i := range rows {
			there := &rows[i]
			if there.Category != r.Category || there.Scope != r.Scope || there.Value != r.Value {
				continue
			}
			note := ""
			if there.State != r.State {
				note = "it is " + there.State
			}
			s.note("restriction", name, LeftAlone, note)
			continue next
		}
		if err := tx.InsertRestriction(ctx, db.Who{}, &r); err != nil {
			return fmt.Errorf("seed restriction %s: %w", name, err)
		}
		rows = append(rows, r)
		s.note("restriction", name, Created, r.State)
	}
	return nil
}

// A newUser is a user's entry, checked, with the digest of the password.
type newUser struct {
	entry     entry
	user      db.User
	level     int
	state     *string
	generated secret.Text // the password, if it was made here
}

// prepareUsers checks the users and hashes passwords of those that are not there, which takes too long to do while the
// transaction keeps others waiting.
func (s *seeding) prepareUsers(ctx context.Context, d *db.DB) error {
	s.accounts = nil
	for _, e := range s.seeds.users {
		u := newUser{entry: e, state: e.fields["state"]}
		email := db.NormalEmail(e.text("email"))
		if email == "" {
			return e.errorf("Email missing in users seed")
		}
		level, err := strconv.Atoi(e.text("level"))
		if err != nil || level < 0 {
			return e.errorf("Level is missing for user %s", e.text("email"))
		}
		u.level, u.user.Email, u.user.Role, u.user.UID = level, email, "member", e.text("uid")
		if role := e.text("role"); role != "" {
			u.user.Role = role
		}
		if data := e.fields["data"]; data != nil {
			if !json.Valid([]byte(*data)) || utf8.RuneCountInString(*data) > 1024 {
				return e.errorf("Can't create user '%s': data is no JSON text of at most 1024 characters", email)
			}
			u.user.Data = data
		}
		if local, domain, ok := strings.Cut(email, "@"); !ok || local == "" || domain == "" || len(email) > 255 ||
			strings.ContainsAny(email, " \t,;<>") || strings.Contains(domain, "@") {
			return e.errorf("Can't create user '%s': it is no e-mail address", email)
		}
		if id := e.fields["referral_id"]; id != nil {
			referrer, err := strconv.ParseInt(*id, 10, 64)
			if err != nil {
				return e.errorf("Can't create user '%s': referral_id is no number", email)
			}
			u.user.ReferralID = &referrer
		}
		if otp := e.text("otp"); otp != "" && otp != "false" {
			return e.errorf("Can't create user '%s': a second factor cannot be seeded", email)
		}
		switch _, err := d.UserByEmail(ctx, email); {
		case err == nil:
		case !errors.Is(err, db.ErrNotFound):
			return fmt.Errorf("seed user %s: %w", email, err)
		default:
			if err := s.setPassword(&u); err != nil {
				return fmt.Errorf("seed user %s: %w", email, err)
			}
		}
		s.accounts = append(s.accounts, u)
	}
	return nil
}

func (s *seeding) setPassword(u *newUser) error {
	if u.user.PasswordDigest = u.entry.text("password_digest"); u.user.PasswordDigest != "" {
		return nil
	}
	password := secret.Text(u.entry.text("password"))
	if password == "" {
		password = s.newPassword()
		u.generated = password
	}
	digest, err := s.options.Hash(password.Reveal())
	u.user.PasswordDigest = digest
	return err
}

// newPassword draws 240 bits as 40 base64 characters, with letters of both cases and a digit among them, as rules for
// passwords like to have it.
func (s *seeding) newPassword() secret.Text {
	for {
		var b [30]byte
		s.options.Random(b[:])
		text := base64.StdEncoding.EncodeToString(b[:])
		if strings.ContainsAny(text, "0123456789") && strings.ToLower(text) != text && strings.ToUpper(text) != text {
			return secret.Text(text)
		}
	}
}

func (s *seeding) users(ctx context.Context, tx *db.Tx) error {
	if s.seeds.firstUsers {
		there, err := tx.RoleHeld(ctx, policy.Superadmin)
		if err != nil {
			return fmt.Errorf("seed users: %w", err)
		}
		if there {
			for i := range s.accounts {
				s.note("user", s.accounts[i].user.Email, LeftAlone, "there is a superadmin")
			}
			return nil
		}
	}
	levels, err := tx.Levels(ctx)
	if err != nil {
		return fmt.Errorf("seed users: %w", err)
	}
	for i := range s.accounts {
		if err := s.user(ctx, tx, s.accounts[i], levels); err != nil {
			return err
		}
	}
	return nil
}

func (s *seeding) user(ctx context.Context, tx *db.Tx, account newUser, levels []db.Level) error {
	u, e := &account.user, &account.entry
	switch _, err := tx.UserByEmail(ctx, u.Email); {
	case err == nil:
		s.note("user", u.Email, LeftAlone, "")
		return nil
	case !errors.Is(err, db.ErrNotFound):
		return fmt.Errorf("seed user %s: %w", u.Email, err)
	case u.PasswordDigest == "":
		return fmt.Errorf("seed user %s: the account has gone while seeding", u.Email)
	}
	known, err := tx.RoleExists(ctx, u.Role)
	if err != nil {
		return fmt.Errorf("seed user %s: %w", u.Email, err)
	}
	if !known {
		return e.errorf("Can't create user '%s': no permission names the role %q", u.Email, u.Role)
	}
	var labels []db.Label
	for n := 1; n <= account.level; n++ {
		if n > len(levels) || levels[n-1].ID != int64(n) || levels[n-1].Value == nil {
			return e.errorf("No enough levels found in database to grant the user to level %d", account.level)
		}
		labels = append(labels, db.Label{Key: levels[n-1].Key, Value: *levels[n-1].Value, Scope: "private"})
	}
	u.Level, u.State = account.level, s.options.State(labels)
	if account.state != nil && *account.state != u.State {
		u.State, u.StateManual = *account.state, true
	}
	if u.UID == "" {
		if u.UID, err = tx.NewUID(ctx, s.options.UIDPrefix, s.options.Random); err != nil {
			return fmt.Errorf("seed user %s: %w", u.Email, err)
		}
	}
	var taken *db.ErrTaken
	if err := tx.InsertUser(ctx, u); errors.As(err, &taken) {
		return e.errorf("Can't create user '%s': uid %s is taken", u.Email, u.UID)
	} else if err != nil {
		return fmt.Errorf("seed user %s: %w", u.Email, err)
	}
	for i := range labels {
		labels[i].UserID = u.ID
		if err := tx.InsertLabel(ctx, &labels[i]); err != nil {
			return fmt.Errorf("seed user %s: %w", u.Email, err)
		}
	}
	if s.options.Created != nil {
		if err := s.options.Created(ctx, tx, u); err != nil {
			return fmt.Errorf("seed user %s: %w", u.Email, err)
		}
	}
	s.report.Items = append(s.report.Items, Item{
		Kind: "user", Name: u.Email, Outcome: Created, Note: u.Role, Password: account.generated,
	})
	return nil
}
