package main

import (
	"context"
	_ "embed" // the statements
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"barong/db"

	"github.com/jackc/pgx/v5"
)

// statements make users, labels and activities. A line "--: name" begins each.
//
//go:embed data.sql
var statements string

// statement is the one of that name, without parameters: $users and the like stand in it as text.
func statement(name string, values ...any) string {
	_, rest, ok := strings.Cut(statements, "--: "+name+"\n")
	if !ok {
		panic("bigdata: no statement " + name)
	}
	rest, _, _ = strings.Cut(rest, "\n--: ")
	for i := 0; i < len(values); i += 2 {
		rest = strings.ReplaceAll(rest, values[i].(string), fmt.Sprint(values[i+1]))
	}
	return strings.TrimSpace(rest)
}

// A size says how much data there is to be. End is the time of the youngest row.
type size struct {
	users, activities int64
	end               time.Time
}

// names are drawn with the squared share of a random number: the first of them are common, the last are rare.
const (
	firstNames = 500
	lastNames  = 3000
)

func firstName(i int) string { return fmt.Sprintf("First%03d", i) }
func lastName(i int) string  { return fmt.Sprintf("Last%04d", i) }

// countries, the most common first, by a share of a thousand.
var countries = []struct {
	code  string
	share int
}{
	{"UA", 260},
	{"US", 140},
	{"DE", 100},
	{"GB", 80},
	{"TR", 70},
	{"NG", 60},
	{"BR", 60},
	{"IN", 50},
	{"VN", 40},
	{"PL", 30},
	{"FR", 30},
	{"ES", 20},
	{"IT", 20},
	{"JP", 15},
	{"KR", 10},
	{"CA", 5},
	{"CH", 4},
	{"SE", 3},
	{"IS", 2},
	{"LI", 1},
}

func country(r *rand.Rand) string {
	n := r.IntN(1000)
	for _, c := range countries {
		if n -= c.share; n < 0 {
			return c.code
		}
	}
	return countries[0].code
}

func skewed(r *rand.Rand, n int) int {
	x := r.Float64()
	return int(x * x * float64(n))
}

// activitiesAtATime is how many activities one statement makes.
const activitiesAtATime = 250_000

// generate fills an empty, migrated database. The same size gives the same rows, but for what is sealed.
func generate(ctx context.Context, d *db.DB, s size, log io.Writer) error {
	conn, err := pgx.Connect(ctx, d.URL())
	if err != nil {
		return fmt.Errorf("generate: %w", err)
	}
	defer conn.Close(ctx)
	exec := func(sql string) error {
		begun := time.Now()
		tag, err := conn.Exec(ctx, sql)
		if err != nil {
			return fmt.Errorf("generate: %w\n%s", err, sql)
		}
		what, _, _ := strings.Cut(sql, "\n")
		fmt.Fprintf(log, "%6.1f s  %s  %s\n", time.Since(begun).Seconds(), tag, what[:min(len(what), 90)])
		return nil
	}
	for _, setting := range []string{"synchronous_commit = off", "maintenance_work_mem = '512MB'", "work_mem = '128MB'", "timezone = 'UTC'"} {
		if _, err := conn.Exec(ctx, "SET "+setting); err != nil {
			return fmt.Errorf("generate: %w", err)
		}
	}
	// Making an index at the end is several times faster than keeping it up to date row by row.
	rows, err := conn.Query(ctx, statement("indexes"))
	if err != nil {
		return fmt.Errorf("generate: %w", err)
	}
	indexes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Name, Definition string }])
	if err != nil {
		return fmt.Errorf("generate: %w", err)
	}
	for _, i := range indexes {
		if _, err := conn.Exec(ctx, "DROP INDEX "+i.Name); err != nil {
			return fmt.Errorf("generate: %w", err)
		}
	}
	end := "timestamptz '" + s.end.UTC().Format(time.RFC3339) + "'"
	if err := exec("SELECT setseed(0.5)"); err != nil {
		return err
	}
	if err := exec(statement("users", "$users", s.users, "$end", end)); err != nil {
		return err
	}
	if err := exec(statement("labels", "$end", end)); err != nil {
		return err
	}
	begun := time.Now()
	n, err := people(ctx, d, conn, s)
	if err != nil {
		return fmt.Errorf("generate: %w", err)
	}
	fmt.Fprintf(log, "%6.1f s  %d profiles, phones and documents\n", time.Since(begun).Seconds(), n)
	for first := int64(1); first <= s.activities; first += activitiesAtATime {
		err := exec(statement("activities", "$first", first, "$last", min(first+activitiesAtATime-1, s.activities),
			"$activities", s.activities, "$users", s.users, "$end", end))
		if err != nil {
			return err
		}
	}
	for _, i := range indexes {
		if err := exec(i.Definition); err != nil {
			return err
		}
	}
	return exec("VACUUM (ANALYZE)")
}

// people makes profiles, phones and documents, whose sealed columns only this program can make: each is sealed for its
// row, and has its blind index.
func people(ctx context.Context, d *db.DB, conn *pgx.Conn, s size) (int64, error) {
	rows, err := conn.Query(ctx, "SELECT id, level, state, created_at, updated_at FROM users ORDER BY id")
	if err != nil {
		return 0, err
	}
	type user struct {
		ID, Level        int64
		State            string
		Created, Updated time.Time
	}
	users, err := pgx.CollectRows(rows, pgx.RowToStructByPos[user])
	if err != nil {
		return 0, err
	}
	seal := func(table, column string, owner int64, text string) string {
		return d.Sealer().Seal([]byte(text), fmt.Sprintf("%s.%s:%d", table, column, owner))
	}
	var first, last []string
	for i := range firstNames {
		index, _ := db.NameIndexes(d.Sealer(), firstName(i), "")
		first = append(first, index)
	}
	for i := range lastNames {
		_, index := db.NameIndexes(d.Sealer(), "", lastName(i))
		last = append(last, index)
	}
	r := rand.New(rand.NewPCG(1, 2))
	var profiles, phones, documents [][]any
	var total int64
	flush := func() error {
		for _, t := range []struct {
			table   string
			columns string
			rows    *[][]any
		}{
			{"profiles", "user_id first_name first_name_index last_name last_name_index dob address postcode city country state metadata created_at updated_at", &profiles},
			{"phones", "user_id country number number_index validated_at created_at updated_at", &phones},
			{"documents", "user_id upload doc_type doc_number doc_number_index doc_expire metadata created_at updated_at", &documents},
		} {
			n, err := conn.CopyFrom(ctx, pgx.Identifier{t.table}, strings.Fields(t.columns), pgx.CopyFromRows(*t.rows))
			if err != nil {
				return err
			}
			total += n
			*t.rows = (*t.rows)[:0]
		}
		return nil
	}
	for _, u := range users {
		// Who has a level has told their name, most of the others have not; some were rejected and tried again.
		n := 0
		if u.Level > 1 || r.IntN(100) < 30 {
			n = 1
			if r.IntN(100) < 8 {
				n = 2
			}
		}
		at := country(r)
		for i := range n {
			state := db.ProfileRejected
			if i == n-1 {
				state = []int{db.ProfileDrafted, db.ProfileSubmitted, db.ProfileVerified, db.ProfileVerified}[u.Level%4]
			}
			f, l := skewed(r, firstNames), skewed(r, lastNames)
			profiles = append(profiles, []any{
				u.ID, seal("profiles", "first_name", u.ID, firstName(f)), first[f],
				seal("profiles", "last_name", u.ID, lastName(l)), last[l], seal("profiles", "dob", u.ID, "1990-01-02"),
				seal("profiles", "address", u.ID, fmt.Sprintf("%d Long Street", u.ID%500)), seal("profiles", "postcode", u.ID, "01001"),
				seal("profiles", "city", u.ID, "Kyiv"), at, state, `{"nationality":"ukrainian"}`, u.Created, u.Updated,
			})
			if r.IntN(100) < 20 { // the next one tells of another country
				at = country(r)
			}
		}
		if u.Level > 1 {
			number := fmt.Sprintf("380%09d", u.ID)
			phones = append(phones, []any{
				u.ID, "UA", seal("phones", "number", u.ID, number), d.Sealer().Index(number, "phones.number"), u.Created, u.Created, u.Created,
			})
			if u.Level > 2 || r.IntN(100) < 5 {
				number := fmt.Sprintf("AA%06d", u.ID)
				documents = append(documents, []any{
					u.ID, fmt.Sprintf("%d/0123456789abcdef.jpg", u.ID), "Passport", seal("documents", "doc_number", u.ID, number),
					d.Sealer().Index(number, "documents.doc_number"), "2030-01-01", nil, u.Created, u.Updated,
				})
			}
		}
		if len(profiles) >= 20_000 {
			if err := flush(); err != nil {
				return total, err
			}
		}
	}
	return total, flush()
}
