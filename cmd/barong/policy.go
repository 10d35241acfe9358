package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"barong/db"
	"barong/internal/config"
	"barong/internal/geoip"
	"barong/internal/rules"
	"barong/policy"
)

// A policyCommand holds the commands about the permission rules.
type policyCommand struct {
	Check   policyCheck   `cmd:"" help:"Explain what is answered to the request of a role or a user, rule by rule."`
	Preview policyPreview `cmd:"" help:"Rehearse changes of the rules on the recent decisions of all replicas."`
}

// A policyCheck explains one decision.
type policyCheck struct {
	Role   string `required:"" xor:"who" help:"The role that asks." placeholder:"ROLE"`
	UID    string `required:"" xor:"who" help:"The uid of the user who asks." placeholder:"UID"`
	Method string `required:"" help:"The method of the request." placeholder:"METHOD"`
	Path   string `arg:"" help:"The path as gateways publish it, such as api/v2/barong/resource/users/me."`
}

// Help is shown below the command's usage.
func (policyCheck) Help() string {
	return "Prints the rules that match, in stored order, what each does, and which decides; under them ALLOWED or DENIED. The exit " +
		"status is 0 for the one and 1 for the other. A user whose account is closed is denied. Restrictions, which look at where a client comes from, are left out."
}

// Run explains.
func (k policyCheck) Run(p *program) error {
	r, closeRules, err := p.openRules()
	if err != nil {
		return err
	}
	defer closeRules()
	var c *rules.Explanation
	if k.UID != "" {
		c, err = r.ExplainUser(p.ctx, k.UID, k.Method, k.Path)
	} else {
		c, err = r.Explain(k.Role, k.Method, k.Path)
	}
	if errors.Is(err, rules.ErrPath) {
		fmt.Fprintf(p.stdout, "the path can be read in two ways: every check refuses it with authz.ambiguous_path\nDENIED\n")
		return errFailed
	}
	if errors.Is(err, db.ErrNotFound) {
		return fmt.Errorf("there is no user %s", k.UID)
	}
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "RULE\tROLE\tVERB\tPATH\tACTION\tDOES")
	for _, m := range c.Matches {
		does := m.Does
		if m.Decides {
			does += ", decides"
		}
		if m.Topic != "" {
			does += ", topic " + m.Topic
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", m.ID, m.Role, m.Verb, m.Path, m.Action, does)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(c.Matches) == 0 {
		fmt.Fprintln(p.stdout, "no rule matches")
	}
	if c.Block != "" {
		fmt.Fprintf(p.stdout, "block list: %s refuses, whatever the rules say\n", c.Block)
	} else if c.Pass != "" {
		fmt.Fprintf(p.stdout, "pass list: %s lets anybody through, whatever the rules say\n", c.Pass)
	}
	if c.State != "" {
		fmt.Fprintf(p.stdout, "user %s: role %s, state %s\n", c.UID, c.Role, c.State)
	}
	if c.Allowed {
		fmt.Fprintln(p.stdout, "ALLOWED")
		return nil
	}
	fmt.Fprintln(p.stdout, "DENIED")
	return errFailed
}

// A policyPreview rehearses changes.
type policyPreview struct {
	File   string   `help:"A JSON list of changes, as the API takes them: {\"op\": \"create|update|delete\", \"id\": …, \"role\": …, \"verb\": …, \"path\": …, \"action\": …}; - reads standard input." placeholder:"FILE"`
	Create []string `help:"A rule to be created, as role:verb:path:action. May be repeated." placeholder:"RULE" sep:"none"`
	Delete []int64  `help:"The number of a rule to be deleted. May be repeated." placeholder:"ID"`
}

// Help is shown below the command's usage.
func (policyPreview) Help() string {
	return "Prints the recent requests to which the answer would be another, the most frequent first. Nothing is changed. The " +
		"changes of the file come first, then the deletions, then the creations."
}

// Run rehearses.
func (v policyPreview) Run(p *program) error {
	changes, err := v.changes(p.stdin)
	if err != nil {
		return &usageError{err}
	}
	r, closeRules, err := p.openRules()
	if err != nil {
		return err
	}
	defer closeRules()
	turns, err := r.Preview(p.ctx, changes)
	if wrong, ok := errors.AsType[*rules.ChangeError](err); ok {
		if errors.Is(wrong.Err, db.ErrNotFound) {
			return fmt.Errorf("change %d: there is no rule %d", wrong.Index+1, changes[wrong.Index].ID)
		}
		return wrong
	}
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ROLE\tVERB\tPATH\tNOW\tTHEN\tBY\tCOUNT\tLAST SEEN")
	allowed, refused := 0, 0
	for _, t := range turns {
		by := t.RuleAfter
		if t.After {
			allowed++
		} else {
			refused++
			if by == "" {
				by = "no rule"
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", t.Role, t.Verb, t.Path, answered(t.Before), answered(t.After), by, t.Count,
			t.Seen.UTC().Format(time.RFC3339))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%d newly allowed, %d newly refused\n", allowed, refused)
	return err
}

func answered(allow bool) string {
	if allow {
		return "allowed"
	}
	return "refused"
}

// changes reads what the command line asks for.
func (v policyPreview) changes(stdin io.Reader) ([]rules.Change, error) {
	var changes []rules.Change
	if v.File != "" {
		in := stdin
		if v.File != "-" {
			f, err := os.Open(v.File)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			in = f
		}
		dec := json.NewDecoder(in)
		dec.DisallowUnknownFields()
		if err := dec.Decode(&changes); err != nil {
			return nil, fmt.Errorf("--file %s: %w", v.File, err)
		}
	}
	for _, id := range v.Delete {
		changes = append(changes, rules.Change{Op: "delete", ID: id})
	}
	for _, text := range v.Create {
		part := strings.Split(text, ":")
		if len(part) != 4 {
			return nil, fmt.Errorf("--create %s: a rule is role:verb:path:action", text)
		}
		changes = append(changes, rules.Change{Op: "create", Role: &part[0], Verb: &part[1], Path: &part[2], Action: &part[3]})
	}
	if len(changes) == 0 {
		return nil, errors.New("there is nothing to rehearse: give --file, --create or --delete")
	}
	return changes, nil
}

// openRules loads the policy that servers with this configuration have in force.
func (p *program) openRules() (r *rules.Rules, closeRules func(), err error) {
	c, err := p.config()
	if err != nil {
		return nil, nil, err
	}
	d, err := p.openRows(c)
	if err != nil {
		return nil, nil, err
	}
	if err = p.current(d); err == nil {
		r, err = loadRules(p.ctx, c, d)
	}
	if err != nil {
		return nil, nil, errors.Join(err, d.Close())
	}
	return r, func() { d.Close() }, nil
}

// loadRules reads and compiles everything that the policy is made of, once.
func loadRules(ctx context.Context, c *config.Config, d *db.DB) (*rules.Rules, error) {
	places, err := openPlaces(c)
	if err != nil {
		return nil, err
	}
	if err := validateRuleFiles(c); err != nil {
		return nil, err
	}
	r, err := rules.New(ruleOptions(c, d, places))
	if err != nil {
		return nil, err
	}
	return r, r.Reload(ctx)
}

// validateRuleFiles tells a file that makes no sense from the rules in the database, so that the variable is named.
func validateRuleFiles(c *config.Config) error {
	var errs []error
	if c.AuthzRulesFile != "" {
		text, err := os.ReadFile(c.AuthzRulesFile)
		if err == nil {
			_, err = policy.ParseLists(text, c.Lookup)
		}
		if err != nil {
			errs = append(errs, config.Bad("BARONG_AUTHZ_RULES_FILE", c.AuthzRulesFile, "a file with lists of paths: "+oneLine(err)))
		}
	}
	if c.CasbinModel != "" {
		text, err := os.ReadFile(c.CasbinModel)
		if err == nil {
			_, err = policy.Compile(policy.Source{Model: string(text), Prefix: c.APIPrefix})
		}
		if err != nil {
			errs = append(errs, config.Bad("BARONG_CASBIN_MODEL", c.CasbinModel, "a Casbin model: "+oneLine(err)))
		}
	}
	return config.Join(errs...)
}

// ruleOptions are those that follow from the configuration. A rules file that was asked for must be there.
func ruleOptions(c *config.Config, d *db.DB, places *geoip.Locator) rules.Options {
	return rules.Options{
		DB: d, ListsFile: c.AuthzRulesFile, ListsRequired: c.AuthzRulesFile != "" && c.Source("BARONG_AUTHZ_RULES_FILE") != "default",
		Getenv: c.Lookup, ModelFile: c.CasbinModel, Prefix: c.APIPrefix, Pages: pagePaths(c), Locator: places,
	}
}

// pagePaths are the paths below which there are pages for people.
func pagePaths(c *config.Config) (paths []string) {
	if c.HasPortal() {
		paths = append(paths, "accounts")
	}
	if c.HasConsole() {
		paths = append(paths, "console")
	}
	return paths
}

// openPlaces opens the source of countries and continents: the operator's, or the built-in one.
func openPlaces(c *config.Config) (*geoip.Locator, error) {
	if c.MaxMindDBPath == "" {
		return geoip.Embedded(), nil
	}
	places, err := geoip.Open(c.MaxMindDBPath, c.GeoIPLang)
	if err != nil {
		return nil, config.Bad("BARONG_MAXMINDDB_PATH", c.MaxMindDBPath, err.Error())
	}
	return places, nil
}
