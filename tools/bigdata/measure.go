package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"barong/api/view"
	"barong/db"

	"github.com/uptrace/bun"
)

// A list is one list of the REST API with one choice of filters: what reads the rows of a page and makes the objects of
// the answer from them. Without pages it is one answer.
type list struct {
	section, name string
	read          func(ctx context.Context, p db.Page) (total int64, err error)
	single        bool
}

func ref[T any](v T) *T { return &v }

// lists are what is measured, as far as it matches only. The values of the filters are those of the generated data.
func lists(ctx context.Context, d *db.DB, s size, only *regexp.Regexp) ([]list, error) {
	b := &view.Builder{DB: d, FileURL: func(key string) string { return "/" + key }}
	var out []list
	add := func(section, name string, read func(ctx context.Context, p db.Page) (int64, error)) {
		out = append(out, list{section: section, name: name, read: read})
	}
	day := func(back int) *int64 { return ref(s.end.AddDate(0, 0, -back).Add(-5 * time.Hour).Unix()) } // amid a day
	text := func(query string, args ...any) (string, error) {
		var v string
		err := d.Bun().NewRaw(query, args...).Scan(ctx, &v)
		return v, err
	}

	users := func(name string, f db.UserFilter) {
		add("GET /admin/users", name, func(ctx context.Context, p db.Page) (int64, error) {
			rows, total, err := d.FindUsers(ctx, f, p)
			if err == nil {
				_, err = b.Users(ctx, rows)
			}
			return total, err
		})
	}
	uid, err := text("SELECT uid FROM users WHERE id = 1 + (SELECT count(*) / 2 FROM users)")
	if err != nil {
		return nil, fmt.Errorf("measure: %w", err)
	}
	email := fmt.Sprintf("user%d@example.com", s.users/3)
	users("no filter", db.UserFilter{})
	add("GET /admin/users", "extended", func(ctx context.Context, p db.Page) (int64, error) {
		rows, total, err := d.FindUsers(ctx, db.UserFilter{}, p)
		if err == nil {
			_, err = b.UsersWithProfile(ctx, rows)
		}
		return total, err
	})
	users("uid", db.UserFilter{UID: &uid})
	users("email", db.UserFilter{Email: &email})
	users("role=member", db.UserFilter{Role: ref("member")})
	users("role=admin", db.UserFilter{Role: ref("admin")})
	users("state=active", db.UserFilter{State: ref("active")})
	users("state=banned", db.UserFilter{State: ref("banned")})
	users("level=0", db.UserFilter{Level: ref(int64(0))})
	users("level=3", db.UserFilter{Level: ref(int64(3))})
	users("role=member, state=active, level=1", db.UserFilter{Role: ref("member"), State: ref("active"), Level: ref(int64(1))})
	users("role=broker, state=locked", db.UserFilter{Role: ref("broker"), State: ref("locked")})
	users("country=UA", db.UserFilter{Country: ref("UA")})
	users("country=LI", db.UserFilter{Country: ref("LI")})
	users("country=UA, state=active", db.UserFilter{Country: ref("UA"), State: ref("active")})
	users("country=UA, role=broker, level=3", db.UserFilter{Country: ref("UA"), Role: ref("broker"), Level: ref(int64(3))})
	users("first_name, common", db.UserFilter{FirstName: ref(firstName(0))})
	users("first_name, rare", db.UserFilter{FirstName: ref(firstName(firstNames - 1))})
	users("last_name, common", db.UserFilter{LastName: ref(lastName(0))})
	users("first_name, last_name", db.UserFilter{FirstName: ref(firstName(0)), LastName: ref(lastName(0))})
	users("first_name, country=UA", db.UserFilter{FirstName: ref(firstName(0)), Country: ref("UA")})
	users("first_name, last_name, country=UA", db.UserFilter{FirstName: ref(firstName(0)), LastName: ref(lastName(0)), Country: ref("UA")})
	users("first_name, state=active", db.UserFilter{FirstName: ref(firstName(0)), State: ref("active")})
	users("first_name, role=member, level=3", db.UserFilter{FirstName: ref(firstName(0)), Role: ref("member"), Level: ref(int64(3))})
	users("first_name, created, half a year", db.UserFilter{FirstName: ref(firstName(0)), From: day(182)})
	users("created, last day", db.UserFilter{From: day(1)})
	users("created, a month", db.UserFilter{From: day(60), To: day(30)})
	users("created, to half a year ago", db.UserFilter{To: day(182)})
	users("created, half a year, state=active", db.UserFilter{From: day(182), State: ref("active")})
	users("updated, last day", db.UserFilter{Updated: true, From: day(1)})
	users("updated, a month", db.UserFilter{Updated: true, From: day(60), To: day(30)})
	users("updated, half a year", db.UserFilter{Updated: true, From: day(182)})
	users("updated, half a year, role=member, level=3", db.UserFilter{Updated: true, From: day(182), Role: ref("member"), Level: ref(int64(3))})
	users("created, last week, country=UA", db.UserFilter{From: day(7), Country: ref("UA")})
	users("created, half a year, country=UA", db.UserFilter{From: day(182), Country: ref("UA")})
	users("created, half a year, country=UA, state=active", db.UserFilter{From: day(182), Country: ref("UA"), State: ref("active")})
	users("updated, half a year, country=UA", db.UserFilter{Updated: true, From: day(182), Country: ref("UA")})
	users("updated, a month, country=LI, level=3", db.UserFilter{Updated: true, From: day(60), To: day(30), Country: ref("LI"), Level: ref(int64(3))})

	pending := func(name string, f db.UserFilter) {
		add("GET /admin/users/documents/pending", name, func(ctx context.Context, p db.Page) (int64, error) {
			rows, total, err := d.FindPendingUsers(ctx, f, p)
			if err == nil {
				_, err = b.Users(ctx, rows)
			}
			return total, err
		})
	}
	pending("no filter", db.UserFilter{})
	add("GET /admin/users/documents/pending", "extended", func(ctx context.Context, p db.Page) (int64, error) {
		rows, total, err := d.FindPendingUsers(ctx, db.UserFilter{}, p)
		if err == nil {
			_, err = b.UsersWithKYC(ctx, rows)
		}
		return total, err
	})
	pending("state=active", db.UserFilter{State: ref("active")})
	pending("level=2", db.UserFilter{Level: ref(int64(2))})
	pending("role=member", db.UserFilter{Role: ref("member")})
	pending("country=UA, state=active", db.UserFilter{Country: ref("UA"), State: ref("active")})
	pending("country=UA", db.UserFilter{Country: ref("UA")})
	pending("created, half a year", db.UserFilter{From: day(182)})
	pending("first_name, last_name, country=UA", db.UserFilter{FirstName: ref(firstName(0)), LastName: ref(lastName(0)), Country: ref("UA")})

	add("GET /admin/profiles", "all", func(ctx context.Context, p db.Page) (int64, error) {
		rows, total, err := d.AllProfiles(ctx, p)
		if err == nil {
			b.Profiles(rows)
		}
		return total, err
	})

	labels := func(name, key, value string, scope *string) {
		add("GET /admin/users/labels", name, func(ctx context.Context, p db.Page) (int64, error) {
			rows, total, err := d.FindUsersByLabel(ctx, key, value, scope, p)
			if err == nil {
				_, err = b.Users(ctx, rows)
			}
			return total, err
		})
	}
	labels("email, verified", "email", "verified", nil)
	labels("email, verified, scope=private", "email", "verified", ref("private"))
	labels("document, verified", "document", "verified", nil)
	labels("newsletter, yes", "newsletter", "yes", nil)
	labels("theme, one of a thousand", "theme", "colour 7", nil)
	out = append(out, list{"GET /admin/users/labels/list", "", func(ctx context.Context, _ db.Page) (int64, error) {
		_, err := d.LabelCounts(ctx)
		return 0, err
	}, true})

	activities := func(name string, f db.ActivityFilter) {
		f.Category = db.CategoryUser
		add("GET /admin/activities", name, func(ctx context.Context, p db.Page) (int64, error) {
			rows, total, err := d.Activities(ctx, f, p)
			if err == nil {
				_, err = b.ActivitiesWithUser(ctx, rows)
			}
			return total, err
		})
	}
	target, err := text("SELECT uid FROM users WHERE id = 200")
	if err != nil {
		return nil, fmt.Errorf("measure: %w", err)
	}
	busiest, err := text("SELECT uid FROM users WHERE id = 1")
	if err != nil {
		return nil, fmt.Errorf("measure: %w", err)
	}
	activities("no filter", db.ActivityFilter{})
	activities("topic=session", db.ActivityFilter{Topic: ref("session")})
	activities("topic=user", db.ActivityFilter{Topic: ref("user")})
	activities("action=login", db.ActivityFilter{Action: ref("login")})
	activities("action=password reset", db.ActivityFilter{Action: ref("password reset")})
	activities("topic=session, action=login", db.ActivityFilter{Topic: ref("session"), Action: ref("login")})
	activities("topic=api_key, action=delete", db.ActivityFilter{Topic: ref("api_key"), Action: ref("delete")})
	activities("result=failed", db.ActivityFilter{Result: ref("failed")})
	activities("topic=session, action=login, result=failed", db.ActivityFilter{Topic: ref("session"), Action: ref("login"), Result: ref("failed")})
	activities("uid, the busiest", db.ActivityFilter{UID: &busiest})
	activities("uid", db.ActivityFilter{UID: &uid})
	activities("email, topic=session", db.ActivityFilter{Email: &email, Topic: ref("session")})
	activities("uid, the busiest, action=login, half a year", db.ActivityFilter{UID: &busiest, Action: ref("login"), From: day(182)})
	activities("from half a year ago", db.ActivityFilter{From: day(182)})
	activities("to half a year ago", db.ActivityFilter{To: day(182)})
	activities("from, to: a day", db.ActivityFilter{From: day(100), To: day(99)})
	activities("from, to: a month, topic=password", db.ActivityFilter{From: day(60), To: day(30), Topic: ref("password")})
	activities("from, to: half a year, topic, action", db.ActivityFilter{From: day(300), To: day(118), Topic: ref("session"), Action: ref("login")})

	admin := func(name string, f db.ActivityFilter) {
		f.Category = db.CategoryAdmin
		add("GET /admin/activities/admin", name, func(ctx context.Context, p db.Page) (int64, error) {
			rows, total, err := d.Activities(ctx, f, p)
			if err == nil {
				_, err = b.AdminActivities(ctx, rows)
			}
			return total, err
		})
	}
	admin("no filter", db.ActivityFilter{})
	admin("topic=users", db.ActivityFilter{Topic: ref("users")})
	admin("topic=levels", db.ActivityFilter{Topic: ref("levels")})
	admin("action=update", db.ActivityFilter{Action: ref("update")})
	admin("topic=permissions, action=delete", db.ActivityFilter{Topic: ref("permissions"), Action: ref("delete")})
	admin("result=denied", db.ActivityFilter{Result: ref("denied")})
	admin("topic=users, result=denied", db.ActivityFilter{Topic: ref("users"), Result: ref("denied")})
	admin("uid, the busiest", db.ActivityFilter{UID: &busiest})
	admin("uid, the busiest, topic=users, action=update", db.ActivityFilter{UID: &busiest, Topic: ref("users"), Action: ref("update")})
	admin("target_uid, the busiest", db.ActivityFilter{TargetUID: &busiest})
	admin("target_uid", db.ActivityFilter{TargetUID: &target})
	admin("from half a year ago", db.ActivityFilter{From: day(182)})
	admin("from, to: a month, topic=users", db.ActivityFilter{From: day(60), To: day(30), Topic: ref("users")})

	metrics := func(name string, from, to *int64) {
		out = append(out, list{"GET /admin/metrics", name, func(ctx context.Context, _ db.Page) (int64, error) {
			_, err := d.Metrics(ctx, from, to)
			return 0, err
		}, true})
	}
	metrics("all", nil, nil)
	metrics("created_from, created_to: a month", day(60), day(30))

	own := func(name string, f db.ActivityFilter) {
		add("GET /resource/users/activity/{topic}", name, func(ctx context.Context, p db.Page) (int64, error) {
			rows, total, err := d.Activities(ctx, f, p)
			b.Activities(rows)
			return total, err
		})
	}
	own("all, the busiest", db.ActivityFilter{UserID: 1})
	own("session, the busiest", db.ActivityFilter{UserID: 1, Topic: ref("session")})
	own("session", db.ActivityFilter{UserID: s.users / 3, Topic: ref("session")})
	return slices.DeleteFunc(out, func(l list) bool { return !only.MatchString(l.section + ": " + l.name) }), nil
}

// pageSize is the largest and the default size of a page of the API.
const pageSize = 100

// pages are the first, the middle and the last page of a list.
func pages(total int64) []int {
	last := max(1, int((total+pageSize-1)/pageSize))
	return []int{1, (last + 1) / 2, last}
}

// runs is how often a page is read. A page that takes long is read less often.
const runs = 9

// cost reads a page several times. It returns the median of the times it took, and the processor time of one reading.
func cost(m *meter, read func() error) (took, cpu time.Duration, err error) {
	if err := read(); err != nil { // the first one warms the caches
		return 0, 0, err
	}
	var before time.Duration
	if m != nil {
		before = m.used()
	}
	var all []time.Duration
	for begun := time.Now(); len(all) < runs && (len(all) < 3 || time.Since(begun) < 3*time.Second); {
		at := time.Now()
		if err := read(); err != nil {
			return 0, 0, err
		}
		all = append(all, time.Since(at))
	}
	if m != nil {
		cpu = (m.used() - before) / time.Duration(len(all))
	}
	slices.Sort(all)
	return all[len(all)/2], cpu, nil
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }

// measure prints a Markdown table of every list: milliseconds that a page took, and of processor time that it cost.
func measure(ctx context.Context, d *db.DB, s size, only *regexp.Regexp, out io.Writer) error {
	all, err := lists(ctx, d, s, only)
	if err != nil {
		return err
	}
	m, err := newMeter(ctx, d)
	if err != nil {
		return err
	}
	section := ""
	for _, l := range all {
		if l.section != section {
			section = l.section
			fmt.Fprintf(out, "\n`%s`\n\n| Filter | Total | First page | Middle page | Last page |\n| --- | ---: | ---: | ---: | ---: |\n", section)
		}
		total, err := l.read(ctx, db.Page{Number: 1, Size: pageSize})
		if err != nil {
			return fmt.Errorf("%s, %s: %w", l.section, l.name, err)
		}
		columns := []string{fmt.Sprint(total), "", "", ""}
		for i, number := range pages(total) {
			if l.single && i > 0 {
				columns[0] = ""
				break
			}
			took, cpu, err := cost(m, func() error {
				_, err := l.read(ctx, db.Page{Number: number, Size: pageSize})
				return err
			})
			if err != nil {
				return fmt.Errorf("%s, %s, page %d: %w", l.section, l.name, number, err)
			}
			columns[i+1] = millis(took)
			if m != nil {
				columns[i+1] += " / " + millis(cpu)
			}
		}
		fmt.Fprintf(out, "| %s | %s |\n", l.name, strings.Join(columns, " | "))
	}
	return nil
}

// recorder keeps the statements that are run.
type recorder struct{ statements []string }

func (r *recorder) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context { return ctx }

func (r *recorder) AfterQuery(_ context.Context, e *bun.QueryEvent) {
	r.statements = append(r.statements, e.Query)
}

// explain prints what runs for the middle page of each list.
func explain(ctx context.Context, d *db.DB, s size, only *regexp.Regexp, out io.Writer) error {
	all, err := lists(ctx, d, s, only)
	if err != nil {
		return err
	}
	var log recorder
	//lint:ignore SA1019 the handle that is measured makes the statements; a copy of it with a hook would see none
	d.Bun().AddQueryHook(&log)
	for _, l := range all {
		total, err := l.read(ctx, db.Page{Number: 1, Size: pageSize})
		if err != nil {
			return err
		}
		log.statements = nil
		if _, err := l.read(ctx, db.Page{Number: pages(total)[1], Size: pageSize}); err != nil {
			return err
		}
		fmt.Fprintf(out, "\n===== %s: %s\n", l.section, l.name)
		for _, statement := range slices.Clone(log.statements) {
			if !strings.HasPrefix(statement, "SELECT") && !strings.HasPrefix(statement, "WITH") {
				continue
			}
			var plan []string
			if err := d.Bun().NewRaw("EXPLAIN (ANALYZE, BUFFERS) "+statement).Scan(ctx, &plan); err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
			if len(statement) > 600 {
				statement = statement[:400] + " … " + statement[len(statement)-150:]
			}
			fmt.Fprintf(out, "\n%s\n%s\n", statement, strings.Join(plan, "\n"))
		}
	}
	return nil
}
