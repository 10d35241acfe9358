package importer

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The tables of the original, each under the name that it has here, too.
const (
	levels       = "levels"
	permissions  = "permissions"
	restrictions = "restrictions"
	users        = "users"
	profiles     = "profiles"
	phones       = "phones"
	documents    = "documents"
	labels       = "labels"
	dataStorages = "data_storages"
	apiKeys      = "apikeys"
	activities   = "activities"

	totpKeys = "totp_keys" // here alone: the original's are in its Vault

	schemaMigrations = "schema_migrations"
	metadata         = "ar_internal_metadata"
)

// tables are the tables that are read, in the order in which they are written.
var tables = []string{
	levels, permissions, restrictions, users, profiles, phones, documents, labels, dataStorages, apiKeys, activities,
}

// A source is a database of the original, as it stood at one moment. It can be read several times.
type source interface {
	// schema tells what there is.
	schema() *schema
	// rows calls f with each row of a table, in the order in which they lie there, which is that of their ids as a rule.
	// A table that does not exist has no rows. A row is valid until f returns.
	rows(ctx context.Context, table string, f func(r *row) error) error
	close() error
}

// A schema is what a source holds.
type schema struct {
	version     string // of the original's schema: its highest migration
	environment string // the original's environment, "production"; may be empty
	zoned       bool   // timestamps are told in UTC, whatever the zone of the server
	columns     map[string][]string
	counts      map[string]int64
	unknown     []string // tables that are not read
}

// A version is a schema of the original that can be read.
type version struct {
	number, releases string
	columns          map[string]string // of the tables, as they lie in a row, where a dump does not tell
}

// Every other version is refused: columns may mean something else there.
var versions = []version{
	{"20190108115333", "2.0, and the dump of OpenDAX", columnsOf20190108},
	{"20200318152130", "2.4.0", columnsOf20200318},
	{"20200429082843", "2.4.9 to 2.4.17", columnsOf20200429},
	{"20200701115721", "2.5", columnsOf20200701},
	{"20210407094208", "2.6", columnsOf20210407},
}

var (
	columnsOf20190108 = map[string]string{
		users:      "id uid email password_digest role level otp state referral_id created_at updated_at",
		profiles:   "id user_id first_name last_name dob address postcode city country metadata created_at updated_at",
		phones:     "id user_id country number code validated_at created_at updated_at",
		documents:  "id user_id upload doc_type doc_number doc_expire metadata created_at updated_at",
		labels:     "id user_id key value scope created_at updated_at",
		levels:     "id key value description created_at updated_at",
		apiKeys:    "id user_id kid algorithm scope state created_at updated_at",
		activities: "id user_id user_ip user_agent topic action result data created_at",
	}
	columnsOf20200318 = changed(columnsOf20190108, map[string]string{
		users:        "id uid email password_digest role data level otp state referral_id created_at updated_at",
		profiles:     "id user_id first_name last_name dob address postcode city country state metadata created_at updated_at",
		labels:       "id user_id key value scope description created_at updated_at",
		activities:   "id user_id target_uid category user_ip user_agent topic action result data created_at",
		permissions:  "id action role verb path topic created_at updated_at",
		restrictions: "id scope value state created_at updated_at",
		dataStorages: "id user_id title data created_at updated_at",
	})
	columnsOf20200429 = changed(columnsOf20200318, map[string]string{
		restrictions: "id category scope value code state created_at updated_at",
	})
	columnsOf20200701 = changed(columnsOf20200429, map[string]string{
		profiles: "id user_id author applicant_id first_name last_name dob address postcode city country state metadata" +
			" created_at updated_at",
		documents: "id user_id upload doc_type doc_number doc_expire identificator metadata created_at updated_at doc_issue doc_category",
		apiKeys:   "id user_id kid algorithm scope secret_encrypted state created_at updated_at",
	})
	columnsOf20210407 = changed(columnsOf20200701, map[string]string{
		users: "id uid username email password_digest role data level otp state referral_id created_at updated_at",
		profiles: "id user_id author applicant_id first_name_encrypted last_name_encrypted dob_encrypted address_encrypted" +
			" postcode city country state metadata created_at updated_at",
		phones: "id user_id country code number_encrypted number_index validated_at created_at updated_at",
		documents: "id user_id upload doc_type doc_expire doc_number_encrypted doc_number_index doc_issue doc_category identificator" +
			" metadata created_at updated_at",
		apiKeys:    "id key_holder_account_id key_holder_account_type kid algorithm scope secret_encrypted state created_at updated_at",
		activities: "id user_id target_uid category user_ip user_ip_country user_agent topic action result data created_at",
	})
)

func changed(from, by map[string]string) map[string]string {
	out := map[string]string{schemaMigrations: "version", metadata: "key value created_at updated_at"}
	for _, m := range []map[string]string{from, by} {
		for table, columns := range m {
			out[table] = columns
		}
	}
	return out
}

// read are the columns that are read, or that need no reading, because what they hold is known otherwise: the clear code
// of a phone is worth nothing after its minutes, and the indexes of 2.6 are made anew. Others are listed in the report.
var read = map[string]string{
	users:        "id uid email password_digest role data level otp state referral_id created_at updated_at",
	profiles:     "id user_id first_name last_name dob address first_name_encrypted last_name_encrypted dob_encrypted address_encrypted postcode city country state metadata created_at updated_at",
	phones:       "id user_id country number number_encrypted number_index code validated_at created_at updated_at",
	documents:    "id user_id upload doc_type doc_number doc_number_encrypted doc_number_index doc_expire metadata created_at updated_at",
	labels:       "id user_id key value scope description created_at updated_at",
	levels:       "id key value description created_at updated_at",
	apiKeys:      "id user_id key_holder_account_id key_holder_account_type kid algorithm scope secret_encrypted state created_at updated_at",
	activities:   "id user_id target_uid category user_ip user_ip_country user_agent topic action result data created_at",
	permissions:  "id action role verb path topic created_at updated_at",
	restrictions: "id category scope value code state created_at updated_at",
	dataStorages: "id user_id title data created_at updated_at",
}

// needed are the columns without which a table means nothing.
var needed = map[string]string{
	users: "id uid email password_digest role level state created_at updated_at", profiles: "id user_id created_at updated_at",
	phones: "id user_id country created_at updated_at", documents: "id user_id created_at updated_at",
	labels: "id user_id key value scope created_at updated_at", levels: "id key value created_at updated_at",
	apiKeys: "id kid algorithm state created_at updated_at", activities: "id user_id topic action result created_at",
	permissions: "id action role verb path created_at updated_at", restrictions: "id scope value state created_at updated_at",
	dataStorages: "id user_id title data created_at updated_at",
}

// findVersion finds a schema's version by the applied migrations, or says why it cannot be read.
func findVersion(migrations []string) (*version, error) {
	if len(migrations) == 0 {
		return nil, fmt.Errorf("the table %s is empty: this is no database of the original", schemaMigrations)
	}
	highest := slices.Max(migrations)
	for i := range versions {
		if versions[i].number == highest {
			return &versions[i], nil
		}
	}
	var known []string
	for _, v := range versions {
		known = append(known, v.number+" ("+v.releases+")")
	}
	return nil, fmt.Errorf("the schema's version is %q, which is not known: bring the original to one of these releases, let it migrate its database, and try again: %s",
		clip(highest, 40), strings.Join(known, ", "))
}

// check reports what keeps a schema's tables from being read.
func (s *schema) check() error {
	for table, columns := range needed {
		have, ok := s.columns[table]
		if !ok {
			continue
		}
		for _, c := range strings.Fields(columns) {
			if !slices.Contains(have, c) {
				return fmt.Errorf("the table %s has no column %s: this is no database of the original", table, c)
			}
		}
	}
	return nil
}

// unread lists the columns that have no home here.
func (s *schema) unread() map[string][]string {
	out := map[string][]string{}
	for table, columns := range s.columns {
		for _, c := range columns {
			if known, ok := read[table]; ok && !slices.Contains(strings.Fields(known), c) {
				out[table] = append(out[table], c)
			}
		}
	}
	return out
}

// A value of a row; nil is NULL.
type value []byte

// A row is one of a table.
type row struct {
	index  map[string]int // of the columns
	values []value
}

// newRow makes a row for these columns.
func newRow(columns []string) *row {
	r := &row{index: make(map[string]int, len(columns)), values: make([]value, len(columns))}
	for i, c := range columns {
		r.index[c] = i
	}
	return r
}

// has reports whether there is such a column.
func (r *row) has(column string) bool {
	_, ok := r.index[column]
	return ok
}

// raw is a column's value; nil when it is NULL or absent.
func (r *row) raw(column string) value {
	i, ok := r.index[column]
	if !ok {
		return nil
	}
	return r.values[i]
}

// replacement is what stands for a byte that neither engine keeps in a text.
const replacement = "\uFFFD"

// optional is a column's text, or nil.
func (r *row) optional(column string) *string {
	v := r.raw(column)
	if v == nil {
		return nil
	}
	s := string(v)
	if bytes.IndexByte(v, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", replacement)
	}
	return &s
}

// text is a column's text, empty for NULL.
func (r *row) text(column string) string {
	if s := r.optional(column); s != nil {
		return *s
	}
	return ""
}

// number is a column's number.
func (r *row) number(column string) (int64, bool) {
	v := r.raw(column)
	if len(v) == 0 || len(v) > 20 || v[0] == '+' {
		return 0, false
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	return n, err == nil
}

// flag is whether a column of yes and no says yes: a number that is not zero, or a bit, which dumps and servers tell as a byte.
func (r *row) flag(column string) bool {
	if v := r.raw(column); len(v) == 1 && v[0] <= 1 {
		return v[0] == 1
	}
	n, _ := r.number(column)
	return n != 0
}

// id is the row's own number. A row without one, or with one that no sequence draws, belongs to no table of the original.
func (r *row) id() (int64, error) {
	n, ok := r.number("id")
	if !ok || n <= 0 {
		return 0, fmt.Errorf("a row has the id %q, which no table of the original gives", clip(r.text("id"), 40))
	}
	return n, nil
}

// clip shortens a text for a message.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
