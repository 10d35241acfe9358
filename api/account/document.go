package account

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"barong/db"
	"barong/internal/blob"
	"barong/internal/fault"
)

// Files keep what is uploaded. blob.Store does.
type Files interface {
	Inspect(name string, size int64, head []byte) (contentType string, codes []fault.Code)
	Put(ctx context.Context, documentID int64, name string, content blob.Content) (blob.File, error)
	Delete(ctx context.Context, key string) error
	URL(key string) string
}

// Documents keep what proves who users are: the files in a store, and a row for each in the database. It is safe for
// concurrent use.
type Documents struct {
	Accounts *Service
	Files    Files

	Types          []string // that a document may have
	Limit          int      // documents that one user may send
	ExpireRequired bool     // a document must name a day of expiry that has not passed
	MaxUpload      int64    // bytes of one file
	Extensions     []string // of the files that are taken, without a dot
}

// A Paper is what is said of a document.
type Paper struct {
	Type, Number string
	Expire       string // the day, YYYY-MM-DD; empty for none
	Metadata     *string
}

// An Upload is a file as it was sent.
type Upload struct {
	Name    string // as the client calls it
	Content blob.Content
}

// An Expiry is what a day of expiry is worth.
type Expiry uint8

// What a day of expiry may be.
const (
	ExpiryFine Expiry = iota
	ExpiryMissing
	ExpiryBeyond // a year that no column holds
	ExpiryPassed
)

// Expiry judges a day of expiry. Unless one is required, none is fine, and so is one that has passed.
func (d *Documents) Expiry(day string) Expiry {
	switch {
	case day == "" && d.ExpireRequired:
		return ExpiryMissing
	case len(day) > len(time.DateOnly):
		return ExpiryBeyond
	case d.ExpireRequired && day < d.Accounts.Now().UTC().Format(time.DateOnly):
		return ExpiryPassed
	}
	return ExpiryFine
}

// Room refuses more documents of a user than they may send: resource.documents.limit_reached or limit_will_be_reached.
func (d *Documents) Room(ctx context.Context, user *db.User, more int) error {
	stored, err := d.Accounts.DB.CountDocuments(ctx, user.ID)
	if err != nil {
		return err
	}
	return d.room(stored, more)
}

func (d *Documents) room(stored, more int) error {
	if stored > d.Limit {
		return fault.New("resource.documents.limit_reached")
	}
	if stored+more > d.Limit {
		return fault.New("resource.documents.limit_will_be_reached")
	}
	return nil
}

// Inspect lists what is wrong with the first file that is refused.
func (d *Documents) Inspect(uploads ...Upload) ([]fault.Code, error) {
	head := make([]byte, blob.HeadSize)
	for _, u := range uploads {
		n, err := u.Content.ReadAt(head, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read upload: %w", err)
		}
		if _, wrong := d.Files.Inspect(u.Name, u.Content.Size(), head[:n]); len(wrong) > 0 {
			return wrong, nil
		}
	}
	return nil, nil
}

// maxDocNumber is the longest document number, in characters.
const maxDocNumber = 128

// Validate lists what is wrong with what a document says of itself, its expiry aside.
func (d *Documents) Validate(p *Paper) []fault.Code {
	var out []fault.Code
	if !slices.Contains(d.Types, p.Type) {
		out = append(out, "doc_type.inclusion")
	}
	out = append(out, ValidateMetadata(p.Metadata)...)
	if utf8.RuneCountInString(p.Number) > maxDocNumber {
		out = append(out, "doc_number.too_long")
	}
	for _, r := range p.Number {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && r != '-' && !strings.ContainsRune(" \t\n\v\f\r", r) {
			return append(out, "doc_number.invalid")
		}
	}
	return out
}

// Send stores what a user sends, all files or none, and has staff look at it. The limit holds for parallel calls as well.
func (d *Documents) Send(ctx context.Context, user *db.User, p *Paper, uploads ...Upload) error {
	return d.add(ctx, user, p, uploads, func(ctx context.Context, u *Unit) error {
		stored, err := u.CountDocuments(ctx, user.ID)
		if err != nil {
			return err
		}
		return d.room(stored, len(uploads))
	}, true)
}

// SendFor stores a file that another service sends for a user, for whom no limit holds. pending has staff look at it.
func (d *Documents) SendFor(ctx context.Context, user *db.User, p *Paper, upload Upload, pending bool) error {
	return d.add(ctx, user, p, []Upload{upload}, func(context.Context, *Unit) error { return nil }, pending)
}

func (d *Documents) add(
	ctx context.Context, user *db.User, p *Paper, uploads []Upload, may func(context.Context, *Unit) error, pending bool,
) error {
	rows, err := d.store(ctx, user, p, uploads)
	if err != nil {
		return err
	}
	err = d.Accounts.Update(ctx, func(ctx context.Context, u *Unit) error {
		if err := u.Lock(ctx, user); err != nil {
			return err
		}
		if err := may(ctx, u); err != nil {
			return err
		}
		for _, row := range rows { // copies: this may run again
			if err := u.InsertDocument(ctx, &row); err != nil {
				return err
			}
			if err := u.DocumentCreated(ctx, user, &row); err != nil {
				return err
			}
		}
		if !pending {
			return nil
		}
		return u.documentPending(ctx, user)
	})
	if err != nil {
		d.drop(ctx, rows)
	}
	return err
}

// store stores files, all or none, and returns the rows that are to be inserted for them.
func (d *Documents) store(ctx context.Context, user *db.User, p *Paper, uploads []Upload) ([]db.Document, error) {
	ids, err := d.Accounts.DB.NewDocumentIDs(ctx, len(uploads))
	if err != nil {
		return nil, err
	}
	rows := make([]db.Document, 0, len(uploads))
	for i, u := range uploads {
		name := blob.Name(u.Name)
		file, err := d.Files.Put(ctx, ids[i], name, u.Content)
		if err != nil {
			d.drop(ctx, rows)
			return nil, err
		}
		row := db.Document{
			ID: ids[i], UserID: user.ID, DocType: &p.Type, DocNumber: &p.Number, Metadata: p.Metadata,
			Upload: &file.Key, UploadName: &name, ContentType: &file.ContentType,
		}
		if p.Expire != "" {
			row.DocExpire = &p.Expire
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// drop removes the files of documents that came to nothing, even when the caller has gone.
func (d *Documents) drop(ctx context.Context, rows []db.Document) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for i := range rows {
		if err := d.Files.Delete(ctx, *rows[i].Upload); err != nil {
			d.Accounts.Log.WarnContext(ctx, "a file of a refused upload is left in the store", "key", *rows[i].Upload, "error", err)
		}
	}
}

// documentPending has staff look at the user's documents, unless they are verified already.
func (u *Unit) documentPending(ctx context.Context, user *db.User) error {
	l, err := u.Label(ctx, user.ID, "document", Private)
	if err == nil && l.Value == "verified" {
		return nil
	}
	if err != nil && !errors.Is(err, db.ErrNotFound) {
		return err
	}
	return u.PutLabel(ctx, user, "document", "pending")
}
