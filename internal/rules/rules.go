// Package rules keeps the policy in force in step with where its rules are stored: the tables of permissions and
// restrictions, the file of path lists, and an operator's own Casbin model. It reloads when one of them changes, and
// rehearses changes on a sample of recent decisions. What rules mean is package policy's business.
package rules

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"barong/db"
	"barong/internal/bus"
	"barong/policy"
)

// Options are what New needs. DB must be set.
type Options struct {
	DB  *db.DB
	Bus bus.Bus // brings the news of changes; without it they are found by asking the database

	ListsFile     string                                     // BARONG_AUTHZ_RULES_FILE; empty for the built-in lists
	ListsRequired bool                                       // the operator named the file: that it is missing is an error, and not the built-in lists
	Getenv        func(name string) (value string, set bool) // finds the variables that the lists read; nil: none is set
	ModelFile     string                                     // of an operator's own Casbin model; empty for the shipped one

	Locator policy.Locator
	Prefix  string        // BARONG_API_PREFIX; empty for policy.DefaultPrefix
	Pages   []string      // paths of pages for people, which pass beside the built-in lists; nil: there are none
	Poll    time.Duration // how often the database is asked whether rules changed; 0 is DefaultPoll
	Now     func() time.Time
	Log     *slog.Logger
}

// DefaultPoll is how often the database is asked for news that the bus may have lost. It leaves a second of the five that
// are promised for the answer and for the reload.
const DefaultPoll = 4 * time.Second

// Times of Run.
const (
	filePoll   = time.Second      // how often the files are looked at
	fullReload = time.Minute      // how often everything is read again, for rows that were edited by hand
	flushEvery = 15 * time.Second // how often samples of decisions are stored
	firstRetry = time.Second      // after a reload that failed; doubled each time
	lastRetry  = 4 * time.Second  // what was edited meanwhile is felt as soon as what the bus lost
	loadTime   = 10 * time.Second // that one reload of Run may take
)

// Rules hold the policy in force. They are safe for concurrent use.
type Rules struct {
	o       Options
	engine  *policy.Engine
	sampler *Sampler
	log     *slog.Logger
	wake    chan struct{} // news; it holds one, which stands for any number

	calls atomic.Int64 // of Reload and Refresh so far
	all   atomic.Bool  // Run is to read everything

	// The rest belongs to whoever holds turn, which has room for one.
	turn     chan struct{}
	covered  [2]coverage // by the latest complete load, and by the latest that read everything
	loaded   policy.Source
	files    [2]fileState
	hadLists bool // the lists have come from the file before
	warned   []string

	model atomic.Pointer[string] // text of the operator's model as loaded, empty for the shipped one
	tick  time.Duration
}

// A coverage says which calls have been answered.
type coverage struct {
	calls  int64 // that the load began after
	result error
}

// Indexes of Rules.covered.
const (
	byAny   = 0
	byWhole = 1
)

// A fileState tells whether a file is the one that was read.
type fileState struct {
	modified time.Time
	size     int64
	there    bool
}

// New makes Rules that hold none yet: call Reload, and keep Run running.
func New(o Options) (*Rules, error) {
	switch {
	case o.DB == nil:
		return nil, errors.New("rules: no database")
	case o.ListsRequired && o.ListsFile == "":
		return nil, errors.New("rules: no rules file")
	}
	if o.Poll <= 0 {
		o.Poll = DefaultPoll
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Rules{
		o: o, engine: policy.NewEngine(o.Now), sampler: NewSampler(), log: o.Log, tick: filePoll,
		wake: make(chan struct{}, 1), turn: make(chan struct{}, 1),
	}
	r.model.Store(new(string))
	if o.Bus != nil {
		o.Bus.Subscribe(func(n bus.Notice) {
			switch n.Kind {
			case bus.Everything:
				r.Poke()
			case bus.PolicyChanged:
				r.hear()
			}
		})
	}
	return r, nil
}

// Snapshot is the policy in force; nil, which refuses everything, before the first good Reload.
func (r *Rules) Snapshot() *policy.Snapshot { return r.engine.Snapshot() }

// Status says how fresh the policy in force is.
func (r *Rules) Status() policy.Status { return r.engine.Status() }

// Stale says why the rules in force are not those that are stored, and since when; nil when they are.
func (r *Rules) Stale() error {
	if st := r.Status(); st.Error != "" {
		return fmt.Errorf("the rules of version %d stay in force since %s: %s", st.Version, st.Since.UTC().Format(time.RFC3339), st.Error)
	}
	return nil
}

// Sampler samples the decisions that Preview rehearses changes on.
func (r *Rules) Sampler() *Sampler { return r.sampler }

// Poke makes Run reload everything soon, what was edited by hand included. It never blocks.
func (r *Rules) Poke() {
	r.all.Store(true)
	r.hear()
}

// hear makes Run look soon for what has changed.
func (r *Rules) hear() {
	select {
	case r.wake <- struct{}{}:
	default: // the news that waits covers this one
	}
}

// Reload reads and compiles everything. When it returns nil, what was committed before the call is in force in this
// process. Parallel calls share loads: each waits for one that began after the call. On error the last good policy
// stays, and Status has the error.
func (r *Rules) Reload(ctx context.Context) error { return r.bring(ctx, byWhole) }

// Refresh is Reload, but of the tables it reads only what has changed through this program since the last time: where there
// are thousands of rules, that is nearly all that an edit costs.
func (r *Rules) Refresh(ctx context.Context) error { return r.bring(ctx, byAny) }

func (r *Rules) bring(ctx context.Context, by int) error {
	call := r.calls.Add(1)
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return fmt.Errorf("reload rules: %w", ctx.Err())
	}
	if r.covered[by].calls >= call {
		return r.covered[by].result
	}
	covers := r.calls.Load() // all these calls were made before the load begins
	before := r.engine.Status()
	some := by == byAny && before.Ready() && before.Error == ""
	err := r.load(ctx, before, some)
	if err != nil && ctx.Err() != nil {
		return err // this caller gave up, which says nothing to the others
	}
	r.covered[byAny] = coverage{covers, err}
	if !some {
		r.covered[byWhole] = r.covered[byAny]
	}
	return err
}

// load does one reload. It logs an error and a warning once, and again only after they have changed.
func (r *Rules) load(ctx context.Context, before policy.Status, some bool) error {
	src, err := r.read(ctx, some)
	switch {
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil:
		r.engine.Fail(err)
	case r.engine.Snapshot() != nil && equalSources(&src, &r.loaded):
		r.engine.Confirm()
	default:
		err = r.engine.Load(src)
	}
	if err != nil {
		if err.Error() != before.Error {
			r.log.ErrorContext(ctx, "rules: the last good ones stay in force", "error", err, "version", before.Version)
		}
		return err
	}
	r.loaded = src
	r.model.Store(&src.Model)
	if before.Error != "" {
		r.log.InfoContext(ctx, "rules: good again", "version", src.Version)
	}
	s := r.engine.Snapshot()
	if warnings := s.Warnings(); !slices.Equal(warnings, r.warned) {
		r.warned = warnings
		for _, w := range warnings {
			r.log.WarnContext(ctx, "rules: "+w)
		}
	}
	if src.Version != before.Version || !before.Ready() {
		r.log.InfoContext(ctx, "rules: in force", "version", src.Version, "permissions", len(src.Permissions),
			"restrictions", len(src.Restrictions), "own_model", s.OwnModel())
	}
	return nil
}

func equalSources(a, b *policy.Source) bool {
	return a.Version == b.Version && a.Model == b.Model && slices.Equal(a.Permissions, b.Permissions) &&
		slices.Equal(a.Restrictions, b.Restrictions) && slices.Equal(a.Pages, b.Pages) && reflect.DeepEqual(a.Lists, b.Lists)
}

// read reads the files, and of the tables all rows, or with some only those that have changed since the rules that are
// loaded.
func (r *Rules) read(ctx context.Context, some bool) (policy.Source, error) {
	src := policy.Source{Locator: r.o.Locator, Prefix: r.o.Prefix, Lists: policy.DefaultLists().At(r.o.Prefix), Pages: r.o.Pages}
	// The state is taken before the file is read: a change between the two is then found by the next look.
	r.files = r.look()
	if r.o.ListsFile != "" {
		switch data, err := os.ReadFile(r.o.ListsFile); {
		case err == nil:
			if src.Lists, err = policy.ParseLists(data, r.o.Getenv); err != nil {
				return src, err
			}
			r.hadLists, src.Pages = true, nil
			src.Lists.Warnings = append(src.Lists.Warnings, r.unreachable(&src.Lists)...)
		case errors.Is(err, fs.ErrNotExist) && !r.o.ListsRequired && !r.hadLists:
			// A default path with nothing there. One that has gone is another matter: an editor may be about to put it
			// back, and until then the paths that it blocks must stay blocked.
		default:
			return src, fmt.Errorf("rules file: %w", err)
		}
	}
	if r.o.ModelFile != "" {
		data, err := os.ReadFile(r.o.ModelFile)
		if err != nil {
			return src, fmt.Errorf("casbin model: %w", err)
		}
		if src.Model = string(data); strings.TrimSpace(src.Model) == "" {
			return src, fmt.Errorf("casbin model %s: it is empty", r.o.ModelFile)
		}
	}
	if some {
		delta, err := r.o.DB.RulesSince(ctx, r.loaded.Version)
		if err != nil {
			return src, err
		}
		if delta.Version >= r.loaded.Version { // else the tables are others: those of a backup
			src.Version = delta.Version
			src.Permissions = merged(r.loaded.Permissions, Permissions(delta.Permissions), delta.GonePermissions,
				func(p *policy.Permission) int64 { return p.ID })
			src.Restrictions = merged(r.loaded.Restrictions, restrictionsOf(delta.Restrictions), delta.GoneRestrictions,
				func(p *policy.Restriction) int64 { return p.ID })
			return src, nil
		}
	}
	set, err := r.o.DB.Rules(ctx)
	if err != nil {
		return src, err
	}
	src.Version, src.Permissions, src.Restrictions = set.Version, Permissions(set.Permissions), restrictionsOf(set.Restrictions)
	return src, nil
}

// merged are rows by id with those that changed in their places, and without those that are gone. changed and gone are
// sorted by id as well.
func merged[R any](rows, changed []R, gone []int64, id func(*R) int64) []R {
	if len(changed)+len(gone) == 0 {
		return rows
	}
	out := make([]R, 0, len(rows)+len(changed))
	for i := range rows {
		at := id(&rows[i])
		for len(changed) > 0 && id(&changed[0]) < at {
			out, changed = append(out, changed[0]), changed[1:]
		}
		for len(gone) > 0 && gone[0] < at {
			gone = gone[1:]
		}
		switch {
		case len(gone) > 0 && gone[0] == at:
		case len(changed) > 0 && id(&changed[0]) == at:
			out, changed = append(out, changed[0]), changed[1:]
		default:
			out = append(out, rows[i])
		}
	}
	return append(out, changed...)
}

// unreachable warns of pages that nobody reaches through a gateway who is not signed in already. A rules file says all that
// passes: what it does not list may be a path of somebody's own service.
func (r *Rules) unreachable(l *policy.Lists) (warnings []string) {
	for _, page := range r.o.Pages {
		if !slices.Contains(l.Pass, page) && !slices.Contains(l.Pass, page+"/") {
			warnings = append(warnings, fmt.Sprintf("rules file: %s is not on the list pass, so that people who are not signed in do not reach "+
				"the pages below /%s/ through a gateway: add it, or switch the pages off (BARONG_PORTAL=off, BARONG_CONSOLE=off)", page, page))
		}
	}
	return warnings
}

// Permission is a row as the policy knows it.
func Permission(row *db.Permission) policy.Permission {
	p := policy.Permission{ID: row.ID, Role: row.Role, Verb: row.Verb, Path: row.Path, Action: row.Action}
	if row.Topic != nil {
		p.Topic = *row.Topic
	}
	return p
}

// Permissions are rows as the policy knows them.
func Permissions(rows []db.Permission) []policy.Permission {
	out := make([]policy.Permission, 0, len(rows))
	for i := range rows {
		out = append(out, Permission(&rows[i]))
	}
	return out
}

func restrictionsOf(rows []db.Restriction) []policy.Restriction {
	var out []policy.Restriction
	for i := range rows {
		out = append(out, Restriction(&rows[i]))
	}
	return out
}

// Restriction is a row as the policy knows it.
func Restriction(row *db.Restriction) policy.Restriction {
	r := policy.Restriction{
		ID: row.ID, Category: row.Category, Scope: row.Scope, Value: row.Value, Enabled: strings.EqualFold(row.State, "enabled"),
	}
	if row.Code != nil {
		r.Code = *row.Code
	}
	return r
}

func (r *Rules) look() [2]fileState {
	var out [2]fileState
	for i, path := range [...]string{r.o.ListsFile, r.o.ModelFile} {
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err == nil {
			out[i] = fileState{info.ModTime(), info.Size(), true}
		}
	}
	return out
}

// Run reloads on news, on a change of a file and on a change of the tables that no news told of, retries what failed,
// and stores samples of decisions, until ctx is done.
func (r *Rules) Run(ctx context.Context) {
	ticker := time.NewTicker(r.tick)
	defer ticker.Stop()
	start := time.Now() // how long things wait is measured by the running clock, not by the one of the rows
	asked, full, flushed := start, start, start
	var (
		wait  time.Duration
		retry time.Time
	)
	for {
		news := false
		select {
		case <-ctx.Done():
			r.stop(ctx)
			return
		case <-r.wake:
			news = true
		case <-ticker.C:
		}
		now := time.Now()
		if r.due(now.Sub(flushed), flushEvery) {
			flushed = now
			r.flush(ctx)
		}
		all := r.all.Swap(false)
		switch {
		case all, r.due(now.Sub(full), fullReload), !retry.IsZero() && !now.Before(retry), r.fileChanged(ctx):
			all = true
		case news:
		case r.due(now.Sub(asked), r.o.Poll) && retry.IsZero():
			asked = now
			if !r.moved(ctx) {
				continue
			}
		default:
			continue
		}
		loading, cancel := context.WithTimeout(ctx, loadTime)
		bring := r.Refresh
		if all {
			bring = r.Reload
		}
		err := bring(loading)
		if err != nil && loading.Err() != nil && ctx.Err() == nil {
			r.engine.Fail(err) // nobody gave up: the database does not answer
		}
		cancel()
		if err != nil {
			wait = min(max(2*wait, firstRetry), lastRetry)
			retry = time.Now().Add(wait)
			continue
		}
		asked, wait, retry = now, 0, time.Time{}
		if all {
			full = now
		}
	}
}

// due reports, at a tick, whether what is to be done every so often is due after so long. Ticks come a little early or late:
// what then falls just short of its time would wait for another whole tick.
func (r *Rules) due(after, every time.Duration) bool { return after >= every-r.tick/2 }

// fileChanged reports whether a file is another than the one that was read.
func (r *Rules) fileChanged(ctx context.Context) bool {
	if r.o.ListsFile == "" && r.o.ModelFile == "" {
		return false
	}
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return false
	}
	return r.look() != r.files
}

// moved reports whether the tables have another version than the policy in force, or do not answer: the reload then
// finds out why.
func (r *Rules) moved(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, loadTime)
	defer cancel()
	version, err := r.o.DB.PolicyVersion(ctx)
	return err != nil || version != r.Status().Version
}

func (r *Rules) flush(ctx context.Context) {
	if err := r.store(ctx); err != nil {
		r.log.WarnContext(ctx, "rules: samples of decisions are lost", "error", err)
	}
}

// stop stores the last samples after ctx is done.
func (r *Rules) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	r.flush(ctx)
}
