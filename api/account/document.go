package account

import (
	"context"
	"errors"
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

// DropFiles removes the files of documents that came to nothing, even when the caller has gone.
func (s *Service) DropFiles(ctx context.Context, files Files, rows ...*db.Document) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for _, d := range rows {
		if err := files.Delete(ctx, *d.Upload); err != nil {
			s.Log.WarnContext(ctx, "a file of a refused upload is left in the store", "key", *d.Upload, "error", err)
		}
	}
}

// maxDocNumber is the longest document number, in characters.
const maxDocNumber = 128

// ValidateDocument lists what is wrong with what a document says of itself; types are those it may have.
func ValidateDocument(types []string, docType, number string, metadata *string) []fault.Code {
	var out []fault.Code
	if !slices.Contains(types, docType) {
		out = append(out, "doc_type.inclusion")
	}
	out = append(out, ValidateMetadata(metadata)...)
	if utf8.RuneCountInString(number) > maxDocNumber {
		out = append(out, "doc_number.too_long")
	}
	for _, r := range number {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && r != '-' && !strings.ContainsRune(" \t\n\v\f\r", r) {
			return append(out, "doc_number.invalid")
		}
	}
	return out
}

// DocumentPending has staff look at the user's documents, unless they are verified already.
func (u *Unit) DocumentPending(ctx context.Context, user *db.User) error {
	l, err := u.Label(ctx, user.ID, "document", Private)
	if err == nil && l.Value == "verified" {
		return nil
	}
	if err != nil && !errors.Is(err, db.ErrNotFound) {
		return err
	}
	return u.PutLabel(ctx, user, "document", "pending")
}
