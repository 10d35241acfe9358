package db

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"barong/internal/email"

	"github.com/uptrace/bun"
)

// Purposes of the blind indexes, which separate equal values of different columns.
const (
	purposeFirstName = "profiles.first_name"
	purposeLastName  = "profiles.last_name"
	purposePhone     = "phones.number"
	purposeDocNumber = "documents.doc_number"
)

func (q queries) seal(v *string, table, column string, owner int64) *string {
	if v == nil {
		return nil
	}
	s := q.db.sealer.Seal([]byte(*v), sealedAt(table, column, owner))
	return &s
}

func (q queries) open(v *string, table, column string, owner int64) (*string, error) {
	if v == nil {
		return nil, nil
	}
	plain, err := q.db.sealer.Open(*v, sealedAt(table, column, owner))
	if err != nil {
		return nil, fmt.Errorf("%s.%s of user %d: %w", table, column, owner, err)
	}
	s := string(plain)
	return &s, nil
}

func (q queries) index(v *string, purpose string) *string {
	if v == nil {
		return nil
	}
	s := blindIndex(q.db.sealer, *v, purpose)
	return &s
}

func (q queries) sealProfile(p *Profile) *sealedProfile {
	seal := func(v *string, column string) *string { return q.seal(v, "profiles", column, p.UserID) }
	return &sealedProfile{
		ID: p.ID, UserID: p.UserID,
		FirstName: seal(p.FirstName, "first_name"), FirstNameIndex: q.index(p.FirstName, purposeFirstName),
		LastName: seal(p.LastName, "last_name"), LastNameIndex: q.index(p.LastName, purposeLastName),
		DOB: seal(p.DOB, "dob"), Address: seal(p.Address, "address"), Postcode: seal(p.Postcode, "postcode"),
		City: seal(p.City, "city"), Country: p.Country, State: p.State, Metadata: p.Metadata,
		CreatedAt: p.CreatedAt, UpdatedAt: p.UpdatedAt,
	}
}

func (q queries) openProfile(r *sealedProfile) (*Profile, error) {
	p := &Profile{
		ID: r.ID, UserID: r.UserID, Country: r.Country, State: r.State, Metadata: r.Metadata,
		CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
	}
	for _, f := range []struct {
		to     **string
		from   *string
		column string
	}{
		{&p.FirstName, r.FirstName, "first_name"},
		{&p.LastName, r.LastName, "last_name"},
		{&p.DOB, r.DOB, "dob"},
		{&p.Address, r.Address, "address"},
		{&p.Postcode, r.Postcode, "postcode"},
		{&p.City, r.City, "city"},
	} {
		v, err := q.open(f.from, "profiles", f.column, r.UserID)
		if err != nil {
			return nil, err
		}
		*f.to = v
	}
	return p, nil
}

func (q queries) profiles(ctx context.Context, sel func(*bun.SelectQuery) *bun.SelectQuery) ([]Profile, error) {
	var rows []sealedProfile
	if err := sel(q.idb.NewSelect().Model(&rows)).Scan(ctx); err != nil {
		return nil, Translate(err)
	}
	out := make([]Profile, 0, len(rows))
	for i := range rows {
		p, err := q.openProfile(&rows[i])
		if err != nil {
			return nil, err
		}
		out = append(out, *p)
	}
	return out, nil
}

// Profiles are the profiles of these users, by id.
func (q queries) Profiles(ctx context.Context, userIDs ...int64) ([]Profile, error) {
	if len(userIDs) == 0 {
		return []Profile{}, nil
	}
	return q.profiles(ctx, func(s *bun.SelectQuery) *bun.SelectQuery {
		return s.Where("user_id IN (?)", bun.List(userIDs)).Order("id")
	})
}

// AllProfiles is one page of everybody's profiles by id, and how many there are in all.
func (q queries) AllProfiles(ctx context.Context, page Page) ([]Profile, int64, error) {
	rows := []Profile{}
	var total int64
	err := q.snapshot(ctx, func(q queries) error {
		var blocks []part
		err := q.idb.NewRaw("SELECT block AS place, sum(count) AS count FROM user_tallies WHERE facet = 'profiles' AND value = ''"+
			" GROUP BY 1 HAVING sum(count) <> 0 ORDER BY 1").Scan(ctx, &blocks)
		total = sum(blocks)
		if err != nil || page.beyond(total) {
			return Translate(err)
		}
		first, last, skip, n := window(blocks, page)
		s := new(listQuery).add("SELECT id FROM profiles WHERE id >= ? AND id < ?", first.Place<<blockBits, (last.Place+1)<<blockBits)
		ids, err := q.walk(ctx, s, byID, page, skip, n)
		if err != nil {
			return err
		}
		rows, err = q.profiles(ctx, func(s *bun.SelectQuery) *bun.SelectQuery { return s.Where("id IN (?)", bun.List(ids)).Order("id") })
		return err
	})
	return rows, total, err
}

// ProfileIn finds the user's one profile in any of these states (the latest when several), or ErrNotFound.
func (q queries) ProfileIn(ctx context.Context, userID int64, states ...int) (*Profile, error) {
	rows, err := q.profiles(ctx, func(s *bun.SelectQuery) *bun.SelectQuery {
		return s.Where("user_id = ?", userID).Where("state IN (?)", bun.List(states)).Order("id DESC").Limit(1)
	})
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, ErrNotFound
	}
	return &rows[0], nil
}

// InsertProfile stores a new profile. A second drafted or submitted one of a user is ErrTaken.
func (tx *Tx) InsertProfile(ctx context.Context, p *Profile) error {
	p.CreatedAt, p.UpdatedAt = tx.Now(), tx.Now()
	r := tx.sealProfile(p)
	if _, err := tx.NewInsert().Model(r).Returning("id").Exec(ctx); err != nil {
		return fmt.Errorf("insert profile: %w", Translate(err))
	}
	p.ID = r.ID
	return nil
}

// UpdateProfile stores every field of a profile.
func (tx *Tx) UpdateProfile(ctx context.Context, p *Profile) error {
	p.UpdatedAt = tx.Now()
	if _, err := tx.NewUpdate().Model(tx.sealProfile(p)).ExcludeColumn("id", "user_id", "created_at").WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("update profile: %w", Translate(err))
	}
	return nil
}

// Phones are the phones of these users, by id.
func (q queries) Phones(ctx context.Context, userIDs ...int64) ([]Phone, error) {
	rows := []Phone{}
	if len(userIDs) == 0 {
		return rows, nil
	}
	if err := q.idb.NewSelect().Model(&rows).Where("user_id IN (?)", bun.List(userIDs)).Order("id").Scan(ctx); err != nil {
		return nil, Translate(err)
	}
	for i := range rows {
		if err := q.openPhone(&rows[i]); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

func (q queries) openPhone(p *Phone) error {
	v, err := q.open(&p.Sealed, "phones", "number", p.UserID)
	if err == nil {
		p.Number = *v
	}
	return err
}

// Phone finds one of a user's phones by number, or ErrNotFound.
func (q queries) Phone(ctx context.Context, userID int64, number string) (*Phone, error) {
	p := new(Phone)
	err := q.idb.NewSelect().Model(p).Where("user_id = ?", userID).
		Where("number_index IN (?)", bun.List(q.db.sealer.Indexes(number, purposePhone))).Scan(ctx)
	if err != nil {
		return nil, Translate(err)
	}
	return p, q.openPhone(p)
}

// PhoneVerified reports whether anybody has verified that number.
func (q queries) PhoneVerified(ctx context.Context, number string) (bool, error) {
	ok, err := q.idb.NewSelect().Model((*Phone)(nil)).
		Where("number_index IN (?)", bun.List(q.db.sealer.Indexes(number, purposePhone))).Where("validated_at IS NOT NULL").Exists(ctx)
	return ok, Translate(err)
}

// UserByPhone finds who has that number, or ErrNotFound: who has verified it, else who claimed it first.
func (q queries) UserByPhone(ctx context.Context, number string) (*User, error) {
	u := new(User)
	err := q.idb.NewSelect().Model(u).Join("JOIN phones AS ph ON ph.user_id = u.id").
		Where("ph.number_index IN (?)", bun.List(q.db.sealer.Indexes(number, purposePhone))).
		OrderExpr("ph.validated_at IS NULL, ph.id").Limit(1).Scan(ctx)
	if err != nil {
		return nil, Translate(err)
	}
	return u, nil
}

// InsertPhone stores a new phone. One the user already has is ErrTaken.
func (tx *Tx) InsertPhone(ctx context.Context, p *Phone) error {
	p.CreatedAt, p.UpdatedAt = tx.Now(), tx.Now()
	p.Sealed = *tx.seal(&p.Number, "phones", "number", p.UserID)
	p.NumberIndex = tx.db.sealer.Index(p.Number, purposePhone)
	if err := tx.otherPhone(ctx, p, "phones_user_id", "user_id = ?", p.UserID); err != nil {
		return fmt.Errorf("insert phone: %w", err)
	}
	if _, err := tx.NewInsert().Model(p).Returning("id").Exec(ctx); err != nil {
		return fmt.Errorf("insert phone: %w", Translate(err))
	}
	return nil
}

// otherPhone is ErrTaken, of an index, when another phone has the number among those that a condition names. The database
// holds the same, but for numbers that stand under the indexes of several keys while those are rotated.
func (tx *Tx) otherPhone(ctx context.Context, p *Phone, index, where string, args ...any) error {
	all := tx.db.sealer.Indexes(p.Number, purposePhone)
	if len(all) == 1 {
		return nil
	}
	taken, err := tx.NewSelect().Model((*Phone)(nil)).Where("number_index IN (?)", bun.List(all)).Where("id <> ?", p.ID).
		Where(where, args...).Exists(ctx)
	if err != nil {
		return Translate(err)
	}
	if taken {
		return &ErrTaken{Index: index}
	}
	return nil
}

// UpdatePhone stores a phone's code and verification. A number that somebody else has verified is ErrTaken.
func (tx *Tx) UpdatePhone(ctx context.Context, p *Phone) error {
	p.UpdatedAt = tx.Now()
	if p.ValidatedAt != nil {
		if err := tx.otherPhone(ctx, p, "phones_verified", "validated_at IS NOT NULL"); err != nil {
			return fmt.Errorf("update phone: %w", err)
		}
	}
	_, err := tx.NewUpdate().Model(p).Column("code_digest", "code_expires_at", "code_attempts", "validated_at", "updated_at").
		WherePK().Exec(ctx)
	if err != nil {
		return fmt.Errorf("update phone: %w", Translate(err))
	}
	return nil
}

// Documents are the documents of these users, by id.
func (q queries) Documents(ctx context.Context, userIDs ...int64) ([]Document, error) {
	rows := []Document{}
	if len(userIDs) == 0 {
		return rows, nil
	}
	if err := q.idb.NewSelect().Model(&rows).Where("user_id IN (?)", bun.List(userIDs)).Order("id").Scan(ctx); err != nil {
		return nil, Translate(err)
	}
	for i := range rows {
		v, err := q.open(rows[i].SealedNumber, "documents", "doc_number", rows[i].UserID)
		if err != nil {
			return nil, err
		}
		rows[i].DocNumber = v
	}
	return rows, nil
}

// CountDocuments counts a user's documents.
func (q queries) CountDocuments(ctx context.Context, userID int64) (int, error) {
	n, err := q.idb.NewSelect().Model((*Document)(nil)).Where("user_id = ?", userID).Count(ctx)
	return int(n), Translate(err)
}

// NewDocumentIDs draws n ids for documents that are to be inserted: a file's key holds its document's id, and files are
// stored before the transaction that makes their documents, so that none waits for a file store. An id that is not used
// stays a gap.
func (d *DB) NewDocumentIDs(ctx context.Context, n int) ([]int64, error) {
	var ids []int64
	err := d.Update(ctx, func(ctx context.Context, tx *Tx) error {
		ids = ids[:0]
		if !d.sqlite {
			return tx.NewRaw("SELECT nextval(pg_get_serial_sequence('documents', 'id')) FROM generate_series(1, ?)", n).Scan(ctx, &ids)
		}
		// The table behind AUTOINCREMENT, which has no row before the first insert.
		var last []int64
		err := tx.NewRaw("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'documents' RETURNING seq", n).Scan(ctx, &last)
		if err == nil && len(last) == 0 {
			last = []int64{int64(n)}
			_, err = tx.NewRaw("INSERT INTO sqlite_sequence (name, seq) VALUES ('documents', ?)", n).Exec(ctx)
		}
		if err != nil {
			return err
		}
		for id := last[0] - int64(n) + 1; id <= last[0]; id++ {
			ids = append(ids, id)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("draw document ids: %w", err)
	}
	return ids, nil
}

// InsertDocument stores a new document, under its ID if that is not zero.
func (tx *Tx) InsertDocument(ctx context.Context, d *Document) error {
	d.CreatedAt, d.UpdatedAt = tx.Now(), tx.Now()
	d.SealedNumber = tx.seal(d.DocNumber, "documents", "doc_number", d.UserID)
	d.DocNumberIndex = tx.index(d.DocNumber, purposeDocNumber)
	if _, err := tx.NewInsert().Model(d).Returning("id").Exec(ctx); err != nil {
		return fmt.Errorf("insert document: %w", Translate(err))
	}
	return nil
}

// DocumentByUpload finds the document whose file has that key, or ErrNotFound.
func (q queries) DocumentByUpload(ctx context.Context, key string) (*Document, error) {
	if !storable(key) {
		return nil, ErrNotFound
	}
	d := new(Document)
	if err := q.idb.NewSelect().Model(d).Where("upload = ?", key).Limit(1).Scan(ctx); err != nil {
		return nil, Translate(err)
	}
	return d, nil
}

// InsertMailToken keeps a one-time token, sealed, until it expires. Others of its kind stay usable beside it.
func (tx *Tx) InsertMailToken(ctx context.Context, jti string, userID int64, kind, token string, expires time.Time) error {
	_, err := tx.NewDelete().Table("mail_tokens").Where("user_id = ?", userID).Where("kind = ?", kind).
		Where("(expires_at <= ? OR used_at IS NOT NULL)", tx.Now().UnixMilli()).Exec(ctx)
	if err != nil {
		return Translate(err)
	}
	row := map[string]any{
		"jti": jti, "user_id": userID, "kind": kind, "expires_at": expires.UnixMilli(),
		"token": tx.db.sealer.Seal([]byte(token), mailTokenContext(jti)),
	}
	_, err = tx.NewInsert().Model(&row).Table("mail_tokens").Exec(ctx)
	return Translate(err)
}

func mailTokenContext(jti string) string { return "mail_tokens.token:" + jti }

// LiveMailToken is the text of a user's unused token that lives longest, if it outlives until, or ErrNotFound. One whose
// key has left the key list counts as none.
func (q queries) LiveMailToken(ctx context.Context, userID int64, kind string, until time.Time) (string, error) {
	var row struct {
		JTI   string `bun:"jti"`
		Token *string
	}
	err := q.idb.NewSelect().Table("mail_tokens").Column("jti", "token").Where("user_id = ?", userID).Where("kind = ?", kind).
		Where("used_at IS NULL").Where("expires_at > ?", until.UnixMilli()).Order("expires_at DESC", "jti").Limit(1).Scan(ctx, &row)
	if err != nil {
		return "", Translate(err)
	}
	if row.Token == nil {
		return "", ErrNotFound
	}
	token, err := q.db.sealer.Open(*row.Token, mailTokenContext(row.JTI))
	if err != nil {
		return "", ErrNotFound
	}
	return string(token), nil
}

// UseMailToken spends a one-time token, and with it the user's others of the kind. It reports false when the token was
// spent before, or never was.
func (tx *Tx) UseMailToken(ctx context.Context, jti string, userID int64, kind string) (bool, error) {
	spend := func(and string, args ...any) (int64, error) {
		r, err := tx.NewUpdate().Table("mail_tokens").Set("used_at = ?", tx.Now().UnixMilli()).Where("user_id = ?", userID).
			Where("kind = ?", kind).Where("used_at IS NULL").Where(and, args...).Exec(ctx)
		if err != nil {
			return 0, Translate(err)
		}
		return r.RowsAffected()
	}
	n, err := spend("jti = ?", jti)
	if err != nil || n != 1 {
		return false, err
	}
	_, err = spend("jti <> ?", jti)
	return err == nil, err
}

// MailTokenUsable reports whether UseMailToken would succeed.
func (q queries) MailTokenUsable(ctx context.Context, jti string, userID int64, kind string) (bool, error) {
	ok, err := q.idb.NewSelect().Table("mail_tokens").Where("jti = ?", jti).Where("user_id = ?", userID).
		Where("kind = ?", kind).Where("used_at IS NULL").Exists(ctx)
	return ok, Translate(err)
}

// An ImportedMailToken is a one-time token that the original sent before its database was imported.
type ImportedMailToken struct {
	JTI                 string
	UserID              int64
	Kind                string
	IssuedAt, ExpiresAt time.Time
}

// importedKind is the kind of an imported token in the table of tokens, where it stands when it was used, until it expires.
func (t *ImportedMailToken) importedKind() string { return "imported " + t.Kind }

// ImportedMailTokenUsable reports whether UseImportedMailToken would succeed: the token is unknown here, it was issued before
// the last import, and no token of its kind was used since.
func (q queries) ImportedMailTokenUsable(ctx context.Context, t ImportedMailToken) (bool, error) {
	last, err := q.LastImport(ctx)
	if errors.Is(err, ErrNotFound) || err == nil && t.IssuedAt.After(last.FinishedAt) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	known, err := q.idb.NewSelect().Table("mail_tokens").WhereGroup(" AND ", func(s *bun.SelectQuery) *bun.SelectQuery {
		return s.Where("jti = ?", t.JTI).WhereOr("user_id = ? AND kind IN (?, ?) AND used_at IS NOT NULL", t.UserID, t.Kind, t.importedKind())
	}).Exists(ctx)
	return err == nil && !known, Translate(err)
}

// UseImportedMailToken spends a token of the original, once, and with it the user's own tokens of the kind.
func (tx *Tx) UseImportedMailToken(ctx context.Context, t ImportedMailToken) (bool, error) {
	usable, err := tx.ImportedMailTokenUsable(ctx, t)
	if err != nil || !usable {
		return false, err
	}
	now := tx.Now().UnixMilli()
	row := map[string]any{
		// Kept longer than any leeway in the reading of the expiry, after which nobody accepts it anyway.
		"jti": t.JTI, "user_id": t.UserID, "kind": t.importedKind(), "expires_at": t.ExpiresAt.Add(time.Hour).UnixMilli(), "used_at": now,
	}
	r, err := tx.NewInsert().Model(&row).Table("mail_tokens").On("CONFLICT (jti) DO NOTHING").Exec(ctx)
	if err != nil {
		return false, Translate(err)
	}
	if n, err := r.RowsAffected(); err != nil || n != 1 {
		return false, err
	}
	_, err = tx.NewUpdate().Table("mail_tokens").Set("used_at = ?", now).Where("user_id = ?", t.UserID).Where("kind = ?", t.Kind).
		Where("used_at IS NULL").Exec(ctx)
	return err == nil, Translate(err)
}

// networksKept is how many networks are remembered of an account, those it was signed in from last.
const networksKept = 20

// RememberNetwork notes that an account was signed in from a network.
func (tx *Tx) RememberNetwork(ctx context.Context, userID int64, network string) error {
	now := tx.Now().UnixMilli()
	r, err := tx.NewRaw(`INSERT INTO user_networks AS n (user_id, network, seen_at) VALUES (?0, ?1, ?2)
		ON CONFLICT (user_id, network) DO UPDATE SET seen_at = ?2 WHERE n.seen_at < ?3`,
		userID, network, now, now-time.Hour.Milliseconds()).Exec(ctx)
	if err != nil {
		return fmt.Errorf("remember a network: %w", Translate(err))
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return err
	}
	_, err = tx.NewRaw(`DELETE FROM user_networks WHERE user_id = ?0 AND network NOT IN
		(SELECT network FROM user_networks WHERE user_id = ?0 ORDER BY seen_at DESC, network LIMIT ?1)`, userID, networksKept).Exec(ctx)
	if err != nil {
		return fmt.Errorf("remember a network: %w", Translate(err))
	}
	return nil
}

// KnownNetwork reports whether the account of an address, if there is one, was signed in from a network.
func (q queries) KnownNetwork(ctx context.Context, address, network string) (bool, error) {
	if !storable(address) {
		return false, nil
	}
	known, err := q.idb.NewSelect().Table("user_networks").Where("network = ?", network).
		Where("user_id IN (SELECT id FROM users WHERE lower(email) IN (?))", bun.List(email.Spellings(address))).Exists(ctx)
	return known, Translate(err)
}

// DearestBcrypt is the highest cost, not above most, of the stored password digests of bcrypt; 0 when there are none.
func (q queries) DearestBcrypt(ctx context.Context, most int) (int, error) {
	var cost []string
	err := q.idb.NewRaw(`SELECT substr(password_digest, 5, 2) FROM users WHERE substr(password_digest, 1, 2) = '$2'
		AND substr(password_digest, 5, 2) <= ? ORDER BY substr(password_digest, 5, 2) DESC LIMIT 1`, fmt.Sprintf("%02d", most)).
		Scan(ctx, &cost)
	if err != nil || len(cost) == 0 {
		return 0, Translate(err)
	}
	n, err := strconv.Atoi(cost[0])
	if err != nil { // no digest that can be read
		return 0, nil
	}
	return n, nil
}
