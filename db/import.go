package db

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
)

// An Import writes rows of another database under the ids that they have there, in one transaction. It neither judges nor
// changes them: that is package importer's part. Each row keeps, in source_updated_at, when it had last changed at its
// source, so that a later import knows what it may replace: a row of which updated_at is another was changed here.
type Import struct {
	*Tx
	conn    bun.Conn
	dropped []string // statements that make the indexes again that were dropped
	written IDRange  // ids of activities; zero for none
}

// ErrImporting says that another import writes into the database.
var ErrImporting = errors.New("another import into this database is under way")

// Import runs f in one write transaction and commits it unless f returns an error. Caches are told nothing: see
// Tx.Notify.
func (d *DB) Import(ctx context.Context, f func(ctx context.Context, im *Import) error) error {
	conn, err := d.Bun().Conn(ctx)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	defer conn.Close()
	if d.sqlite {
		restore, err := d.prepareImport(ctx, conn)
		if err != nil {
			return fmt.Errorf("import: %w", err)
		}
		defer restore()
	}
	var theirs error // of the source, as often as of this database
	_, err = d.within(ctx, conn, func(ctx context.Context, tx *Tx) error {
		if !d.sqlite {
			_, err := tx.ExecContext(ctx, "LOCK TABLE imports IN SHARE ROW EXCLUSIVE MODE NOWAIT")
			if sqlState(err) == "55P03" {
				return ErrImporting
			} else if err != nil {
				return fmt.Errorf("import: %w", err)
			}
		}
		// What the import deletes itself is nothing that somebody took away here.
		if _, err := tx.ExecContext(ctx, "INSERT INTO import_removals (name, id) VALUES ('', 0)"); err != nil {
			return fmt.Errorf("import: %w", err)
		}
		if theirs = f(ctx, &Import{Tx: tx, conn: conn}); theirs != nil {
			return theirs
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM import_removals WHERE name = ''")
		return err
	})
	if theirs != nil {
		return theirs
	}
	return Translate(err)
}

// importCache is how much SQLite keeps of pages while it imports, and how much it sorts at once, in KiB. A page takes twice
// its size in memory: its allocator gives out powers of two, and there are notes beside it.
const importCache = 32 << 10

// prepareImport gives SQLite a larger memory of pages, while most of them change, and has it sort in files beside the
// database, which it removes from the folder as soon as it has made them: in memory, where it sorts otherwise, the indexes of
// ten million activities would take gigabytes. What they hold stands in clear in the database as well.
func (d *DB) prepareImport(ctx context.Context, conn bun.Conn) (restore func(), err error) {
	path, err := SQLitePath(d.URL())
	if err != nil {
		return nil, err
	}
	folder := strings.ReplaceAll(filepath.Dir(path), "'", "''")
	for _, pragma := range []string{fmt.Sprintf("cache_size = -%d", importCache), "temp_store_directory = '" + folder + "'", "temp_store = FILE"} {
		if _, err := conn.ExecContext(ctx, "PRAGMA "+pragma); err != nil {
			return nil, err
		}
	}
	return func() {
		for _, pragma := range []string{"cache_size = -2000", "temp_store = MEMORY", "temp_store_directory = ''"} {
			_, _ = conn.ExecContext(context.WithoutCancel(ctx), "PRAGMA "+pragma) // the connection is closed soon
		}
	}, nil
}

// An Importable is a row that an Import can write: a *User, *TOTPKey, *Profile, *Phone, *Document, *Label, *Level,
// *Permission, *Restriction, *DataStorage, *APIKey or *Activity. Its times are whole seconds, UTC.
type Importable interface {
	// ImportKey is the row's id.
	ImportKey() int64
	importTable() *importTable
	// importRow is the row in the order of the table's columns; s seals what must not stand in clear.
	importRow(s importSealer) []any
}

// An importSealer seals a value of a column, and makes its blind index.
type importSealer interface {
	sealed(v *string, table, column string, owner int64) *string
	indexed(v *string, purpose string) *string
}

func (q queries) sealed(v *string, table, column string, owner int64) *string {
	return q.seal(v, table, column, owner)
}
func (q queries) indexed(v *string, purpose string) *string { return q.index(v, purpose) }

// clear leaves values as they are, for comparing rows.
type clear struct{}

func (clear) sealed(v *string, _, _ string, _ int64) *string { return v }
func (clear) indexed(*string, string) *string                { return nil }

// An importTable is a table that an Import writes. changed is the column that tells when a row last changed. mark is an
// expression of what else decides whether a row is to be replaced. unique are expressions of its unique keys, as
// texts: no imported row may have one that a row has which was made or changed here.
type importTable struct {
	name    string
	key     string
	columns []string
	changed string
	mark    string
	unique  []string
	spread  bool // the next id leaves room; see Finish
}

func newImportTable(name, columns string) *importTable {
	return &importTable{name: name, key: "id", columns: strings.Fields(columns), changed: "updated_at", mark: "0", spread: true}
}

var importTables = map[string]*importTable{}

func register(t *importTable) *importTable {
	importTables[t.name] = t
	return t
}

var (
	importUsers = register(func() *importTable {
		t := newImportTable("users", "id uid email password_digest role data level otp state state_manual referral_id created_at updated_at")
		t.mark = "coalesce(referral_id, 0) * 2 + CASE WHEN state_manual THEN 1 ELSE 0 END"
		return t
	}())
	importTOTPKeys = register(&importTable{
		name: "totp_keys", key: "user_id", columns: []string{"user_id", "secret", "created_at"}, changed: "created_at",
		mark: "last_step",
	})
	importProfiles = register(func() *importTable {
		t := newImportTable("profiles", "id user_id first_name first_name_index last_name last_name_index dob address postcode city country"+
			" state metadata created_at updated_at")
		t.mark, t.unique = "state", []string{"CASE WHEN state IN (0, 1) THEN CAST(user_id AS TEXT) END"}
		return t
	}())
	importPhones = register(func() *importTable {
		t := newImportTable("phones", "id user_id country number number_index validated_at created_at updated_at")
		t.mark = "CASE WHEN validated_at IS NULL THEN 0 ELSE 1 END"
		t.unique = []string{"CAST(user_id AS TEXT) || '/' || number_index", "CASE WHEN validated_at IS NOT NULL THEN number_index END"}
		return t
	}())
	importDocuments = register(newImportTable("documents",
		"id user_id upload upload_name content_type doc_type doc_number doc_number_index doc_expire metadata created_at updated_at"))
	importLabels = register(func() *importTable {
		t := newImportTable("labels", "id user_id key value scope description created_at updated_at")
		t.unique = []string{"CAST(user_id AS TEXT) || '/' || scope || '/' || key"}
		return t
	}())
	importLevels = register(func() *importTable {
		t := newImportTable("levels", "id key value description created_at updated_at")
		t.unique, t.spread = []string{"CASE WHEN value IS NOT NULL THEN key || '/' || value END"}, false
		return t
	}())
	importPermissions = register(func() *importTable {
		t := newImportTable("permissions", "id role verb path action topic created_at updated_at")
		t.spread = false
		return t
	}())
	importRestrictions = register(func() *importTable {
		t := newImportTable("restrictions", "id category scope value code state created_at updated_at")
		t.unique, t.spread = []string{"scope || '/' || category || '/' || value"}, false
		return t
	}())
	importDataStorages = register(func() *importTable {
		t := newImportTable("data_storages", "id user_id title data created_at updated_at")
		t.unique = []string{"CAST(user_id AS TEXT) || '/' || lower(title)"}
		return t
	}())
	importAPIKeys = register(func() *importTable {
		t := newImportTable("apikeys", "id user_id kid algorithm scope state secret created_at updated_at")
		t.mark = "CASE WHEN state = 'inactive' THEN 1 ELSE 0 END" // perhaps because its secret was not found
		t.unique = []string{"kid"}
		return t
	}())
	importActivities = register(func() *importTable {
		t := newImportTable("activities", "id user_id target_uid category user_ip user_ip_country user_agent topic action result data count created_at")
		t.changed = ""
		return t
	}())
)

func (u *User) ImportKey() int64        { return u.ID }
func (k *TOTPKey) ImportKey() int64     { return k.UserID }
func (p *Profile) ImportKey() int64     { return p.ID }
func (p *Phone) ImportKey() int64       { return p.ID }
func (d *Document) ImportKey() int64    { return d.ID }
func (l *Label) ImportKey() int64       { return l.ID }
func (l *Level) ImportKey() int64       { return l.ID }
func (p *Permission) ImportKey() int64  { return p.ID }
func (r *Restriction) ImportKey() int64 { return r.ID }
func (d *DataStorage) ImportKey() int64 { return d.ID }
func (k *APIKey) ImportKey() int64      { return k.ID }
func (a *Activity) ImportKey() int64    { return a.ID }

func (u *User) importTable() *importTable        { return importUsers }
func (k *TOTPKey) importTable() *importTable     { return importTOTPKeys }
func (p *Profile) importTable() *importTable     { return importProfiles }
func (p *Phone) importTable() *importTable       { return importPhones }
func (d *Document) importTable() *importTable    { return importDocuments }
func (l *Label) importTable() *importTable       { return importLabels }
func (l *Level) importTable() *importTable       { return importLevels }
func (p *Permission) importTable() *importTable  { return importPermissions }
func (r *Restriction) importTable() *importTable { return importRestrictions }
func (d *DataStorage) importTable() *importTable { return importDataStorages }
func (k *APIKey) importTable() *importTable      { return importAPIKeys }
func (a *Activity) importTable() *importTable    { return importActivities }

func (u *User) importRow(importSealer) []any {
	return []any{
		u.ID, u.UID, u.Email, u.PasswordDigest, u.Role, u.Data, int64(u.Level), u.OTP, u.State, u.StateManual, u.ReferralID,
		u.CreatedAt, u.UpdatedAt,
	}
}

func (k *TOTPKey) importRow(s importSealer) []any {
	return []any{k.UserID, s.sealed(&k.Secret, "totp_keys", "secret", k.UserID), k.CreatedAt}
}

func (p *Profile) importRow(s importSealer) []any {
	seal := func(v *string, column string) *string { return s.sealed(v, "profiles", column, p.UserID) }
	return []any{
		p.ID, p.UserID, seal(p.FirstName, "first_name"), s.indexed(p.FirstName, purposeFirstName),
		seal(p.LastName, "last_name"), s.indexed(p.LastName, purposeLastName), seal(p.DOB, "dob"), seal(p.Address, "address"),
		seal(p.Postcode, "postcode"), seal(p.City, "city"), p.Country, int64(p.State), p.Metadata, p.CreatedAt, p.UpdatedAt,
	}
}

func (p *Phone) importRow(s importSealer) []any {
	return []any{
		p.ID, p.UserID, p.Country, s.sealed(&p.Number, "phones", "number", p.UserID), s.indexed(&p.Number, purposePhone), p.ValidatedAt,
		p.CreatedAt, p.UpdatedAt,
	}
}

func (d *Document) importRow(s importSealer) []any {
	return []any{
		d.ID, d.UserID, d.Upload, d.UploadName, d.ContentType, d.DocType, s.sealed(d.DocNumber, "documents", "doc_number", d.UserID),
		s.indexed(d.DocNumber, purposeDocNumber), d.DocExpire, d.Metadata, d.CreatedAt, d.UpdatedAt,
	}
}

func (l *Label) importRow(importSealer) []any {
	return []any{l.ID, l.UserID, l.Key, l.Value, l.Scope, l.Description, l.CreatedAt, l.UpdatedAt}
}

func (l *Level) importRow(importSealer) []any {
	return []any{l.ID, l.Key, l.Value, l.Description, l.CreatedAt, l.UpdatedAt}
}

func (p *Permission) importRow(importSealer) []any {
	return []any{p.ID, p.Role, p.Verb, p.Path, p.Action, p.Topic, p.CreatedAt, p.UpdatedAt}
}

func (r *Restriction) importRow(importSealer) []any {
	var code *int64
	if r.Code != nil {
		n := int64(*r.Code)
		code = &n
	}
	return []any{r.ID, r.Category, r.Scope, r.Value, code, r.State, r.CreatedAt, r.UpdatedAt}
}

func (d *DataStorage) importRow(importSealer) []any {
	return []any{d.ID, d.UserID, d.Title, d.Data, d.CreatedAt, d.UpdatedAt}
}

func (k *APIKey) importRow(s importSealer) []any {
	return []any{
		k.ID, k.UserID, k.KID, k.Algorithm, k.ScopeJSON, k.State, s.sealed(&k.Secret, "apikeys", "secret:"+k.KID, k.UserID), k.CreatedAt,
		k.UpdatedAt,
	}
}

func (a *Activity) importRow(importSealer) []any {
	return []any{
		a.ID, a.UserID, a.TargetUID, a.Category, a.UserIP, a.UserIPCountry, a.UserAgent, a.Topic, a.Action, a.Result, a.Data,
		int64(a.Count), a.CreatedAt,
	}
}

// changedAt is when the row last changed at its source, as its table tells; nil in a table that does not.
func (t *importTable) changedAt(row []any) any {
	if t.changed == "" {
		return nil
	}
	return row[slices.Index(t.columns, t.changed)]
}

// ImportDigest is a keyed digest of a row in clear, blind indexes left out. Equal rows have equal digests.
func ImportDigest(r Importable, key []byte) [16]byte {
	mac := hmac.New(sha256.New, key)
	var n [9]byte
	write := func(kind byte, length uint64, text string) {
		n[0] = kind
		binary.BigEndian.PutUint64(n[1:], length)
		mac.Write(n[:])
		mac.Write([]byte(text))
	}
	for _, v := range r.importRow(clear{}) {
		switch v := v.(type) {
		case string:
			write('s', uint64(len(v)), v)
		case *string:
			if v == nil {
				write('0', 0, "")
			} else {
				write('s', uint64(len(*v)), *v)
			}
		case int64:
			write('i', uint64(v), "")
		case *int64:
			if v == nil {
				write('0', 0, "")
			} else {
				write('i', uint64(*v), "")
			}
		case bool:
			write('b', uint64(len(strconv.FormatBool(v))), "")
		case time.Time:
			write('t', uint64(v.Unix()), "")
		case *time.Time:
			if v == nil {
				write('0', 0, "")
			} else {
				write('t', uint64(v.Unix()), "")
			}
		default:
			panic(fmt.Sprintf("db: a row to import holds a %T", v))
		}
	}
	return [16]byte(mac.Sum(nil))
}

// ImportTable names the table of a row.
func ImportTable(r Importable) string { return r.importTable().name }

// A Held is a row that an import wrote.
type Held struct {
	ID     int64
	At     int64 // when it had last changed at its source, in Unix seconds
	Edited bool  // it was changed here since
	Mark   int64 // see ImportMark
}

// ImportMark is what beside its time decides whether a row is to be replaced: of a user the referrer and whether the state
// was set by hand, of a profile the state, of a phone whether it is verified. (Of an API key a Held tells whether it is inactive; its
// secret, which may be found later, decides.) Two rows of one mark and one time are the same.
func ImportMark(r Importable) int64 {
	switch r := r.(type) {
	case *User:
		var mark int64
		if r.ReferralID != nil {
			mark = *r.ReferralID * 2
		}
		if r.StateManual {
			mark++
		}
		return mark
	case *Profile:
		return int64(r.State)
	case *Phone:
		if r.ValidatedAt != nil {
			return 1
		}
	}
	return 0
}

// ImportTime is when a row last changed at its source, in Unix seconds; 0 for an activity, which never does.
func ImportTime(r Importable) int64 {
	at, ok := r.importTable().changedAt(r.importRow(clear{})).(time.Time)
	if !ok {
		return 0
	}
	return at.Unix()
}

// Held are the rows of a table that imports wrote, by id.
func (q queries) Held(ctx context.Context, table string) ([]Held, error) {
	t := importTables[table]
	at, edited := "extract(epoch FROM source_updated_at)::bigint", "%s <> source_updated_at"
	if q.db.sqlite {
		at = "CAST(strftime('%%s', substr(source_updated_at, 1, 19)) AS INTEGER)"
		at = strings.ReplaceAll(at, "%%", "%")
	}
	rows, err := q.idb.QueryContext(ctx, fmt.Sprintf("SELECT %s, %s, %s, %s FROM %s WHERE source_updated_at IS NOT NULL ORDER BY 1",
		t.key, at, fmt.Sprintf(edited, t.changed), t.mark, t.name))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", table, err)
	}
	defer rows.Close()
	var out []Held
	for rows.Next() {
		var h Held
		if err := rows.Scan(&h.ID, &h.At, &h.Edited, &h.Mark); err != nil {
			return nil, fmt.Errorf("read %s: %w", table, err)
		}
		out = append(out, h)
	}
	return out, rows.Err()
}

// EditedHere are the keys of the rows of a table that an import wrote and that were changed here since.
func (q queries) EditedHere(ctx context.Context, table string) ([]int64, error) {
	t := importTables[table]
	var ids []int64
	err := q.idb.NewRaw("SELECT "+t.key+" FROM "+t.name+" WHERE "+t.changed+" <> source_updated_at").Scan(ctx, &ids)
	return ids, Translate(err)
}

// RemovedHere are the keys of the rows of a table that an import wrote and that were deleted here since, ascending. Users are never
// deleted here, and activities have no such keys.
func (q queries) RemovedHere(ctx context.Context, table string) ([]int64, error) {
	var ids []int64
	err := q.idb.NewRaw("SELECT id FROM import_removals WHERE name = ? ORDER BY id", table).Scan(ctx, &ids)
	return ids, Translate(err)
}

// EachImportedUser calls f with the id and the uid of each user whom an import wrote.
func (q queries) EachImportedUser(ctx context.Context, f func(id int64, uid string)) error {
	rows, err := q.idb.QueryContext(ctx, "SELECT id, uid FROM users WHERE source_updated_at IS NOT NULL")
	if err != nil {
		return fmt.Errorf("read users: %w", Translate(err))
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var uid string
		if err := rows.Scan(&id, &uid); err != nil {
			return fmt.Errorf("read users: %w", Translate(err))
		}
		f(id, uid)
	}
	return Translate(rows.Err())
}

// MadeHere counts the rows of a table that no import wrote, and names the keys of a few of them.
func (q queries) MadeHere(ctx context.Context, table string) (n int64, some []int64, err error) {
	t := importTables[table]
	from := " FROM " + t.name + " WHERE source_updated_at IS NULL"
	if err := q.idb.NewRaw("SELECT count(*)"+from).Scan(ctx, &n); err != nil || n == 0 {
		return n, nil, Translate(err)
	}
	err = q.idb.NewRaw("SELECT "+t.key+from+" ORDER BY 1 LIMIT 10").Scan(ctx, &some)
	return n, some, Translate(err)
}

// MadeHereIDs are the keys of the rows of a table that no import wrote.
func (q queries) MadeHereIDs(ctx context.Context, table string) ([]int64, error) {
	t := importTables[table]
	var ids []int64
	err := q.idb.NewRaw("SELECT "+t.key+" FROM "+t.name+" WHERE source_updated_at IS NULL").Scan(ctx, &ids)
	return ids, Translate(err)
}

// Occupied are the unique keys of a table's rows that were made or changed here, and their ids as texts behind a "#". See
// ImportKeys for the same of a row.
func (q queries) Occupied(ctx context.Context, table string) (map[string]bool, error) {
	t := importTables[table]
	out := map[string]bool{}
	for _, expression := range append([]string{"'#' || CAST(" + t.key + " AS TEXT)"}, t.unique...) {
		var keys []string
		err := q.idb.NewRaw("SELECT k FROM (SELECT "+expression+" AS k FROM "+t.name+" WHERE source_updated_at IS NULL OR "+
			t.changed+" <> source_updated_at) AS s WHERE k IS NOT NULL").Scan(ctx, &keys)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", table, Translate(err))
		}
		for _, k := range keys {
			out[k] = true
		}
	}
	return out, nil
}

// ImportKeys are the unique keys of a row, as Occupied tells them.
func (im *Import) ImportKeys(r Importable) []string {
	keys := []string{"#" + strconv.FormatInt(r.ImportKey(), 10)}
	owner := func(id int64) string { return strconv.FormatInt(id, 10) }
	switch r := r.(type) {
	case *Profile:
		if r.State == ProfileDrafted || r.State == ProfileSubmitted {
			keys = append(keys, owner(r.UserID))
		}
	case *Phone:
		index := *im.index(&r.Number, purposePhone)
		keys = append(keys, owner(r.UserID)+"/"+index)
		if r.ValidatedAt != nil {
			keys = append(keys, index)
		}
	case *Label:
		keys = append(keys, owner(r.UserID)+"/"+r.Scope+"/"+r.Key)
	case *Level:
		if r.Value != nil {
			keys = append(keys, r.Key+"/"+*r.Value)
		}
	case *Restriction:
		keys = append(keys, r.Scope+"/"+r.Category+"/"+r.Value)
	case *DataStorage:
		keys = append(keys, owner(r.UserID)+"/"+strings.ToLower(r.Title))
	case *APIKey:
		keys = append(keys, r.KID)
	}
	return keys
}

// HeldSecret is the secret of an API key that an import wrote, or empty when the key has another key id now.
func (im *Import) HeldSecret(ctx context.Context, id int64, kid string) (string, error) {
	var k APIKey
	err := im.NewSelect().Model(&k).Where("id = ? AND kid = ?", id, kid).Scan(ctx)
	if err = Translate(err); errors.Is(err, ErrNotFound) {
		return "", nil
	}
	if err == nil {
		err = im.openKey(&k)
	}
	if err != nil {
		return "", fmt.Errorf("read the secret of API key %d: %w", id, err)
	}
	return k.Secret, nil
}

// Remove deletes rows that an import wrote.
func (im *Import) Remove(ctx context.Context, table string, ids []int64) error {
	t := importTables[table]
	for some := range slices.Chunk(ids, 500) {
		if _, err := im.NewDelete().Table(t.name).Where("? IN (?)", bun.Ident(t.key), bun.List(some)).Exec(ctx); err != nil {
			return fmt.Errorf("delete from %s: %w", table, Translate(err))
		}
	}
	return nil
}

// RemoveUsers deletes users whom an import wrote and who are gone at its source, and returns those who stay, because they,
// or something of theirs, were made or changed here.
func (im *Import) RemoveUsers(ctx context.Context, ids []int64) (kept []int64, err error) {
	for some := range slices.Chunk(ids, 500) {
		q := im.NewSelect().Table("users").Column("id").Where("id IN (?)", bun.List(some))
		var theirs []string
		for _, child := range []string{"profiles", "phones", "documents", "labels", "data_storages", "apikeys"} {
			theirs = append(theirs, "EXISTS (SELECT 1 FROM "+child+" AS c WHERE c.user_id = users.id AND (c.source_updated_at IS NULL"+
				" OR c.updated_at <> c.source_updated_at))")
		}
		var stay []int64
		err := q.Where("updated_at <> source_updated_at OR "+strings.Join(theirs, " OR ")).Order("id").Scan(ctx, &stay)
		if err != nil {
			return nil, fmt.Errorf("delete users: %w", Translate(err))
		}
		kept = append(kept, stay...)
		gone := slices.DeleteFunc(slices.Clone(some), func(id int64) bool { return slices.Contains(stay, id) })
		if err := im.Remove(ctx, "users", gone); err != nil {
			return nil, err
		}
	}
	return kept, nil
}

// FreeAddresses takes the addresses of users who are to be written anew, so that one of them can have what was another's.
func (im *Import) FreeAddresses(ctx context.Context, ids []int64) error {
	for some := range slices.Chunk(ids, 500) {
		_, err := im.NewUpdate().Table("users").Set("email = '#' || CAST(id AS TEXT)").Where("id IN (?)", bun.List(some)).Exec(ctx)
		if err != nil {
			return fmt.Errorf("free addresses: %w", Translate(err))
		}
	}
	return nil
}

// Insert writes new rows of one table.
func (im *Import) Insert(ctx context.Context, rows []Importable) error {
	if len(rows) == 0 {
		return nil
	}
	t := rows[0].importTable()
	if t == importActivities {
		for _, r := range rows {
			if id := r.ImportKey(); im.written.Last == 0 {
				im.written = IDRange{id, id}
			} else {
				im.written = IDRange{min(im.written.First, id), max(im.written.Last, id)}
			}
		}
	}
	columns := t.columns
	if t.changed != "" {
		columns = append(slices.Clip(columns), "source_updated_at")
	}
	next := func(r Importable) []any {
		row := r.importRow(im.queries)
		if t.changed != "" {
			row = append(row, t.changedAt(row))
		}
		return row
	}
	if im.db.sqlite {
		return im.insertEach(ctx, t, columns, rows, next)
	}
	err := im.conn.Raw(func(driver any) error {
		conn := driver.(*stdlib.Conn).Conn()
		i := 0
		_, err := conn.CopyFrom(ctx, pgx.Identifier{t.name}, columns, pgx.CopyFromFunc(func() ([]any, error) {
			if i == len(rows) {
				return nil, nil
			}
			i++
			return next(rows[i-1]), nil
		}))
		return err
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", t.name, Translate(err))
	}
	return nil
}

func (im *Import) insertEach(ctx context.Context, t *importTable, columns []string, rows []Importable, next func(Importable) []any) error {
	stmt, err := im.PrepareContext(ctx, "INSERT INTO "+t.name+" ("+strings.Join(columns, ", ")+") VALUES (?"+
		strings.Repeat(", ?", len(columns)-1)+")")
	if err != nil {
		return fmt.Errorf("write %s: %w", t.name, err)
	}
	defer stmt.Close()
	for _, r := range rows {
		if _, err := stmt.ExecContext(ctx, next(r)...); err != nil {
			return fmt.Errorf("write %s, id %d: %w", t.name, r.ImportKey(), Translate(err))
		}
	}
	return nil
}

// Rewrite writes users anew whom an import wrote: what else belongs to them stays.
func (im *Import) Rewrite(ctx context.Context, rows []Importable) error {
	for _, r := range rows {
		t := r.importTable()
		row := r.importRow(im.queries)
		q := im.NewUpdate().Table(t.name).Where("? = ?", bun.Ident(t.key), r.ImportKey())
		for i, c := range t.columns[1:] {
			q = q.Set("? = ?", bun.Ident(c), row[i+1])
		}
		if _, err := q.Set("source_updated_at = ?", t.changedAt(row)).Exec(ctx); err != nil {
			return fmt.Errorf("write %s, id %d: %w", t.name, r.ImportKey(), Translate(err))
		}
	}
	return nil
}

// SetReferrers stores who referred users, when all users are there.
func (im *Import) SetReferrers(ctx context.Context, users, referrers []int64) error {
	const most = 500
	for len(users) > 0 {
		n := min(most, len(users))
		var q strings.Builder
		for i := range n {
			if i > 0 {
				q.WriteString(", ")
			}
			fmt.Fprintf(&q, "(CAST(%d AS bigint), CAST(%d AS bigint))", users[i], referrers[i])
		}
		if _, err := im.ExecContext(ctx, "UPDATE users SET referral_id = v.column2 FROM (VALUES "+q.String()+") AS v WHERE users.id = v.column1"); err != nil {
			return fmt.Errorf("write referrers: %w", Translate(err))
		}
		users, referrers = users[n:], referrers[n:]
	}
	return nil
}

// Unindex drops the indexes of activities while there are none: to make them at the end takes a fraction of the time that
// keeping them up takes. Finish makes them again.
func (im *Import) Unindex(ctx context.Context) error {
	any, err := im.NewSelect().Table("activities").Exists(ctx)
	if err != nil || any {
		return Translate(err)
	}
	query := "SELECT indexname AS name, indexdef AS sql FROM pg_indexes WHERE schemaname = current_schema() AND tablename = 'activities'" +
		" AND indexname <> 'activities_pkey'"
	if im.db.sqlite {
		query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'activities' AND sql IS NOT NULL"
	}
	var indexes []struct {
		Name string
		SQL  string `bun:"sql"`
	}
	if err := im.NewRaw(query).Scan(ctx, &indexes); err != nil {
		return Translate(err)
	}
	for _, i := range indexes {
		if _, err := im.ExecContext(ctx, "DROP INDEX "+i.Name); err != nil {
			return fmt.Errorf("drop index %s: %w", i.Name, err)
		}
		im.dropped = append(im.dropped, i.SQL)
	}
	return nil
}

// A Run is an import that was brought to its end.
type Run struct {
	bun.BaseModel `bun:"table:imports"`

	ID                int64  `bun:",pk,autoincrement"`
	Version           string // of the original's schema
	ActivitiesThrough int64  // the highest id of an activity at the source
	BegunAt           time.Time
	FinishedAt        time.Time
}

// idsBetween is how far above the highest id of the source new rows begin here: a rehearsal may make some before the last
// import comes, whose rows keep their ids, too. Levels, permissions and restrictions have none: who edits them knows their ids.
const idsBetween = 1_000_000

// Finish ends an import: indexes are made again, ids that are drawn from now on lie above those of the source, and the run
// is on record.
func (im *Import) Finish(ctx context.Context, run *Run, highest map[string]int64) error {
	for _, statement := range im.dropped {
		if _, err := im.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("make an index again: %w", err)
		}
	}
	for name, id := range highest {
		t := importTables[name]
		if id == 0 || t == nil || t.key != "id" {
			continue
		}
		if t.spread {
			id += idsBetween
		}
		var err error
		if im.db.sqlite {
			_, err = im.NewRaw("INSERT INTO sqlite_sequence (name, seq) SELECT ?, 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?)",
				name, name).Exec(ctx)
			if err == nil {
				_, err = im.NewRaw("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", id, name).Exec(ctx)
			}
		} else {
			var at int64
			err = im.NewRaw("SELECT setval(pg_get_serial_sequence(?, 'id'), greatest(?, (SELECT max(last) FROM (SELECT coalesce(max(id), 1) AS last FROM ?"+
				" UNION ALL SELECT last_value FROM ?) AS s)))", name, id, bun.Ident(name), bun.Ident(name+"_id_seq")).Scan(ctx, &at)
		}
		if err != nil {
			return fmt.Errorf("move the ids of %s on: %w", name, err)
		}
	}
	if im.written.Last != 0 {
		if err := im.NoteLateRange(ctx, im.written); err != nil {
			return fmt.Errorf("have imported activities sealed: %w", err)
		}
	}
	run.FinishedAt = im.Now()
	if _, err := im.NewInsert().Model(run).Returning("id").Exec(ctx); err != nil {
		return fmt.Errorf("record the import: %w", Translate(err))
	}
	return nil
}

// LastImport is the latest import that was brought to its end, or ErrNotFound.
func (q queries) LastImport(ctx context.Context) (*Run, error) {
	r := new(Run)
	if err := q.idb.NewSelect().Model(r).Order("id DESC").Limit(1).Scan(ctx); err != nil {
		return nil, Translate(err)
	}
	return r, nil
}

// EachImportable calls f with each row of a table by id, opened.
func (q queries) EachImportable(ctx context.Context, table string, f func(Importable) error) error {
	switch table {
	case "users":
		return eachPage(ctx, q, table, nil, func(u *User) Importable { return u }, f)
	case "totp_keys":
		return eachPage(ctx, q, table, func(k *TOTPKey) error {
			v, err := q.open(&k.Sealed, "totp_keys", "secret", k.UserID)
			if err == nil {
				k.Secret = *v
			}
			return err
		}, func(k *TOTPKey) Importable { return k }, f)
	case "profiles":
		return eachPage(ctx, q, table, nil, func(r *sealedProfile) Importable { return r }, func(r Importable) error {
			p, err := q.openProfile(r.(*sealedProfile))
			if err != nil {
				return err
			}
			return f(p)
		})
	case "phones":
		return eachPage(ctx, q, table, q.openPhone, func(p *Phone) Importable { return p }, f)
	case "documents":
		return eachPage(ctx, q, table, func(d *Document) (err error) {
			d.DocNumber, err = q.open(d.SealedNumber, "documents", "doc_number", d.UserID)
			return err
		}, func(d *Document) Importable { return d }, f)
	case "labels":
		return eachPage(ctx, q, table, nil, func(l *Label) Importable { return l }, f)
	case "levels":
		return eachPage(ctx, q, table, nil, func(l *Level) Importable { return l }, f)
	case "permissions":
		return eachPage(ctx, q, table, nil, func(p *Permission) Importable { return p }, f)
	case "restrictions":
		return eachPage(ctx, q, table, nil, func(r *Restriction) Importable { return r }, f)
	case "data_storages":
		return eachPage(ctx, q, table, nil, func(d *DataStorage) Importable { return d }, f)
	case "apikeys":
		return eachPage(ctx, q, table, q.openKey, func(k *APIKey) Importable { return k }, f)
	case "activities":
		return eachPage(ctx, q, table, nil, func(a *Activity) Importable { return a }, f)
	}
	return errors.New("db: no table " + table)
}

func (r *sealedProfile) ImportKey() int64             { return r.ID }
func (r *sealedProfile) importTable() *importTable    { return importProfiles }
func (r *sealedProfile) importRow(importSealer) []any { panic("db: a sealed profile is opened before") }

func eachPage[T any](
	ctx context.Context, q queries, table string, open func(*T) error, as func(*T) Importable, f func(Importable) error,
) error {
	const size = 2000
	key := bun.Ident(importTables[table].key)
	for after := int64(-1 << 62); ; {
		var rows []T
		if err := q.idb.NewSelect().Model(&rows).Where("? > ?", key, after).OrderExpr("?", key).Limit(size).Scan(ctx); err != nil {
			return fmt.Errorf("read %s: %w", table, Translate(err))
		}
		for i := range rows {
			if open != nil {
				if err := open(&rows[i]); err != nil {
					return fmt.Errorf("read %s: %w", table, err)
				}
			}
			r := as(&rows[i])
			after = r.ImportKey()
			if err := f(r); err != nil {
				return err
			}
		}
		if len(rows) < size {
			return nil
		}
	}
}

// ActivitiesAfter are the ids of the activities above one.
func (im *Import) ActivitiesAfter(ctx context.Context, id int64) (map[int64]bool, error) {
	var ids []int64
	if err := im.NewSelect().Table("activities").Column("id").Where("id > ?", id).Scan(ctx, &ids); err != nil {
		return nil, Translate(err)
	}
	out := make(map[int64]bool, len(ids))
	for _, id := range ids {
		out[id] = true
	}
	return out, nil
}

// HasTOTPKey reports whether a user has a second factor.
func (im *Import) HasTOTPKey(ctx context.Context, userID int64) (bool, error) {
	ok, err := im.NewSelect().Model((*TOTPKey)(nil)).Where("user_id = ?", userID).Exists(ctx)
	return ok, Translate(err)
}
