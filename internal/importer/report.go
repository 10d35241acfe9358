package importer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// maxItems is how many items of one kind a report lists; beyond, it counts them.
const maxItems = 100_000

// A Report tells what an import did, or would do. It names rows by their ids and users by their uids, and holds no personal
// data and no secret.
type Report struct {
	Summary
	Reports map[string]*Items `json:"reports"`

	counting bool // items are counted alone
}

// A Summary is a report without its lists.
type Summary struct {
	SchemaVersion  string                 `json:"schema_version"`
	Environment    string                 `json:"environment,omitempty"`
	DryRun         bool                   `json:"dry_run"`
	Rows           map[string]*TableCount `json:"rows"`
	UnknownTables  []string               `json:"unknown_tables"`  // that were not read
	UnknownColumns map[string][]string    `json:"unknown_columns"` // that have no home here, by table
	Counts         map[string]int64       `json:"counts"`          // of the items of each kind
	Notes          []string               `json:"notes"`
	BegunAt        time.Time              `json:"begun_at"`
	Seconds        float64                `json:"seconds"`
}

// A TableCount counts the rows of a table. Imported are those that stand here now by an import: Written of them were
// written by this one, as new ones or in place of older ones.
type TableCount struct {
	InDump   int64            `json:"in_dump"`
	MaxID    int64            `json:"max_id"`
	Imported int64            `json:"imported"`
	Written  int64            `json:"written"`
	Removed  int64            `json:"removed"`
	Skipped  map[string]int64 `json:"skipped"`
}

func newReport() *Report {
	return &Report{
		Summary: Summary{
			Rows: map[string]*TableCount{}, UnknownTables: []string{}, UnknownColumns: map[string][]string{}, Counts: map[string]int64{},
			Notes: []string{},
		},
		Reports: map[string]*Items{},
	}
}

// silence is a report that nobody reads.
func silence() *Report {
	r := newReport()
	r.counting = true
	return r
}

// Items are what there is to tell of one kind. They are kept as JSON, a line each: as maps, a hundred thousand of them would
// take ten times the memory.
type Items struct{ lines bytes.Buffer }

func (l *Items) add(what any) {
	enc := json.NewEncoder(&l.lines)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(what); err != nil {
		panic(fmt.Sprintf("importer: an item of the report is no JSON: %v", err)) // items are texts and numbers
	}
}

// all walks the items, each as JSON.
func (l *Items) all() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for line := range bytes.Lines(l.lines.Bytes()) {
			if !yield(bytes.TrimSuffix(line, []byte("\n"))) {
				return
			}
		}
	}
}

// MarshalJSON makes a list of the items.
func (l *Items) MarshalJSON() ([]byte, error) {
	return slices.Concat([]byte("["), bytes.Join(slices.Collect(l.all()), []byte(",")), []byte("]")), nil
}

// UnmarshalJSON reads what MarshalJSON has made.
func (l *Items) UnmarshalJSON(text []byte) error {
	var all []json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return err
	}
	*l = Items{}
	for _, what := range all {
		l.add(what)
	}
	return nil
}

// table is the count of a table.
func (r *Report) table(name string) *TableCount {
	t := r.Rows[name]
	if t == nil {
		t = &TableCount{Skipped: map[string]int64{}}
		r.Rows[name] = t
	}
	return t
}

// An item says what is to be told about a row: words and the values beside them.
type item = map[string]any

// add notes an item of a kind.
func (r *Report) add(kind string, what any) {
	r.Counts[kind]++
	if r.counting || r.Counts[kind] > maxItems {
		return
	}
	if r.Reports[kind] == nil {
		r.Reports[kind] = new(Items)
	}
	r.Reports[kind].add(what)
}

// skip notes that a row is not imported, and why.
func (r *Report) skip(table, kind string, what any) {
	r.table(table).Skipped[kind]++
	r.add(kind, what)
}

// Clean reports whether there is nothing to tell.
func (r *Report) Clean() bool {
	return len(r.Counts) == 0 && len(r.UnknownTables) == 0 && len(r.UnknownColumns) == 0
}

// WriteJSON writes the report as one JSON object, a line for each item.
func (r *Report) WriteJSON(w io.Writer) error {
	var head bytes.Buffer
	enc := json.NewEncoder(&head)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r.Summary); err != nil {
		return err
	}
	b := bufio.NewWriter(w) // whose errors come at the end
	b.Write(bytes.TrimSuffix(head.Bytes(), []byte("\n}\n")))
	b.WriteString(",\n  \"reports\": {")
	next := ""
	for _, kind := range slices.Sorted(maps.Keys(r.Reports)) {
		fmt.Fprintf(b, "%s\n    %q: [", next, kind)
		next = ""
		for what := range r.Reports[kind].all() {
			fmt.Fprintf(b, "%s\n      %s", next, what)
			next = ","
		}
		b.WriteString("\n    ]")
		next = ","
	}
	b.WriteString("\n  }\n}\n")
	return b.Flush()
}

// meanings tell what each kind of item is, and what to do about it.
var meanings = map[string]string{
	"activity_category":         "Activities of an unknown category became activities of users.",
	"activity_data_redacted":    "Passwords, codes and tokens were taken out of the data of activities, which the original stored in clear.",
	"activity_data_unreadable":  "The data of activities was no JSON and may have held a secret: it was left out.",
	"activity_result":           "Activities of an unknown result became failed ones.",
	"activity_time":             "Activities without a time have that of the one before.",
	"apikey_holder":             "API keys of service accounts, which have no home here, were left out.",
	"apikey_kid_twice":          "API keys of the same key id: the newest was kept.",
	"apikey_scope_unreadable":   "The scope of API keys could not be read: they have none now.",
	"apikey_without_secret":     "API keys without a secret are inactive. Give Vault's secrets (--vault), and import again.",
	"changed_here":              "Rows that changed at the source and here, too, were left as they are here.",
	"data_storage_twice":        "Data storages of one user and title: the newest was kept.",
	"digest_unusable":           "Users whose password is no bcrypt digest cannot sign in before they reset it.",
	"document_file_missing":     "The file of documents is not in the store: copy uploads/ of the original there.",
	"document_file_name":        "The file of documents has a name that the original cannot have given: it cannot be shown.",
	"gone_at_source":            "Users who are gone at the source, but have something that was made here, were kept.",
	"label_scope":               "Labels of a scope other than public and private were left out.",
	"label_twice":               "Labels of one user, key and scope: the newest was kept.",
	"level_differs_from_labels": "The level of users is another than their private labels give. It was kept; the next label sets it.",
	"level_twice":               "Levels of the same key and value: the first was kept.",
	"made_here":                 "Rows that are in the way of something made here were left out.",
	"orphan":                    "Rows of users who do not exist were left out; activities of such users were kept.",
	"otp_without_secret":        "Users with a second factor whose secret is missing. Give it (--vault, --totp), or reset them as an admin.",
	"permission_twice":          "Permissions that are there several times were all kept.",
	"phone_invalid":             "Phones whose number has no digit were left out.",
	"phone_twice":               "Phones of one user and number: the verified or else the older one was kept.",
	"phone_verified_by_two":     "Phone numbers that several users have verified: the first keeps it, the others' are not verified any more.",
	"profile_state_null":        "Profiles without a state became drafted.",
	"profile_state_unknown":     "Profiles of an unknown state became drafted.",
	"profile_two_open":          "Several open profiles of one user: the newest stays open, the others became rejected.",
	"referrer_gone":             "Users whose referrer does not exist have none now.",
	"refers_to_itself":          "Users who refer to themselves. It was kept.",
	"removed_here":              "Rows that an earlier import brought and that were deleted here were not brought back.",
	"restriction_invalid":       "Restrictions that mean nothing, such as a network that is none, were left out.",
	"restriction_twice":         "Restrictions of one category, scope and value: an enabled one was kept, else the newest.",
	"role_without_permissions":  "Users of a role that no permission names.",
	"sealed_unreadable":         "Values that the secret key base does not open were left out.",
	"state_differs_from_labels": "The state of users is another than their private labels give. It counts as set by an admin, and stays.",
	"time_invalid":              "Times and dates that are none, such as 0000-00-00: of a row's two times the other stands for it, else there is none.",
	"totp_unusable":             "Second factors of another kind than six digits of SHA-1 each 30 seconds were left out.",
}

// WriteText writes the report for people to read.
func (r *Report) WriteText(w io.Writer) error {
	what := "Imported"
	if r.DryRun {
		what = "A dry run: nothing was written. It would import"
	}
	fmt.Fprintf(w, "%s a database of schema %s", what, r.SchemaVersion)
	if r.Environment != "" {
		fmt.Fprintf(w, " (%s)", clip(r.Environment, 40))
	}
	fmt.Fprintf(w, " in %.1f s.\n\n", r.Seconds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TABLE\tIN SOURCE\tIMPORTED\tWRITTEN NOW\tREMOVED\tSKIPPED")
	for _, name := range append(slices.Clone(tables), totpKeys) {
		c := r.Rows[name]
		if c == nil {
			continue
		}
		var skipped []string
		for _, reason := range slices.Sorted(maps.Keys(c.Skipped)) {
			skipped = append(skipped, fmt.Sprintf("%d %s", c.Skipped[reason], reason))
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%s\n", name, c.InDump, c.Imported, c.Written, c.Removed, strings.Join(skipped, ", "))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, kind := range slices.Sorted(maps.Keys(r.Counts)) {
		fmt.Fprintf(w, "\n%s: %d. %s\n", kind, r.Counts[kind], meanings[kind])
		const shown = 5
		n := 0
		for what := range r.Reports[kind].all() {
			if n++; n > shown {
				fmt.Fprintf(w, "  … and %d more (--report FILE lists them)\n", r.Counts[kind]-shown)
				break
			}
			fmt.Fprintf(w, "  %s\n", what)
		}
	}
	if len(r.UnknownTables) > 0 {
		fmt.Fprintf(w, "\nTables that have no home here: %s\n", strings.Join(r.UnknownTables, ", "))
	}
	for _, name := range slices.Sorted(maps.Keys(r.UnknownColumns)) {
		fmt.Fprintf(w, "\nColumns of %s that have no home here: %s\n", name, strings.Join(r.UnknownColumns[name], ", "))
	}
	for _, note := range r.Notes {
		fmt.Fprintf(w, "\n%s\n", note)
	}
	if r.Clean() {
		_, err := fmt.Fprintln(w, "\nThere is nothing to tell.")
		return err
	}
	return nil
}
