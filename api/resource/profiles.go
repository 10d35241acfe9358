package resource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"slices"
	"strings"
	"unicode/utf8"

	"barong/api/account"
	"barong/api/rest"
	"barong/db"
	"barong/internal/blob"
	"barong/internal/fault"
)

// listProfiles answers GET /resource/profiles/me.
func (m *Module) listProfiles(ctx context.Context, c *rest.Call) error {
	rows, err := m.DB.Profiles(ctx, c.User.ID)
	if err != nil {
		return err
	}
	if len(rows) == 0 && !m.Legacy {
		return fault.New("resource.profile.not_exist")
	}
	return c.Answer(m.view().Profiles(rows))
}

// fill puts the parameters that were sent into a profile.
func fill(c *rest.Call, p *db.Profile) {
	for _, f := range []struct {
		name string
		to   **string
	}{
		{"first_name", &p.FirstName},
		{"last_name", &p.LastName},
		{"dob", &p.DOB},
		{"address", &p.Address},
		{"postcode", &p.Postcode},
		{"city", &p.City},
		{"country", &p.Country},
		{"metadata", &p.Metadata},
	} {
		if c.Has(f.name) {
			*f.to = c.Optional(f.name)
		}
	}
	if p.DOB != nil && strings.TrimSpace(*p.DOB) == "" {
		p.DOB = nil
	}
	p.State = db.ProfileDrafted
	if c.Bool("confirm") {
		p.State = db.ProfileSubmitted
	}
}

// createProfile answers POST /resource/profiles.
func (m *Module) createProfile(ctx context.Context, c *rest.Call) error {
	var p *db.Profile
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		p = &db.Profile{UserID: c.User.ID}
		fill(c, p)
		return u.CreateProfile(ctx, c.User, p)
	})
	if err != nil {
		var f *fault.Error
		if m.Legacy && errors.As(err, &f) && f.Has("state.exists") {
			return f.WithStatus(422)
		}
		return err
	}
	return c.Answer(m.view().NewProfile(p))
}

// updateProfile answers PUT /resource/profiles.
func (m *Module) updateProfile(ctx context.Context, c *rest.Call) error {
	var p db.Profile
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		if err := u.Lock(ctx, c.User); err != nil {
			return err
		}
		before, err := u.ProfileIn(ctx, c.User.ID, db.ProfileDrafted)
		if errors.Is(err, db.ErrNotFound) {
			return fault.New("resource.profile.doesnt_exist_or_not_editable")
		}
		if err != nil {
			return err
		}
		p = *before
		fill(c, &p)
		return u.UpdateProfile(ctx, c.User, before, &p)
	})
	if err != nil {
		return err
	}
	return c.Answer(m.view().NewProfile(&p))
}

// listDocuments answers GET /resource/documents.
func (m *Module) listDocuments(ctx context.Context, c *rest.Call) error {
	rows, err := m.DB.Documents(ctx, c.User.ID)
	if err != nil {
		return err
	}
	return c.Answer(m.view().OwnDocuments(rows))
}

// maxUploads bounds the body of an upload: every file that may still be added at its largest, and what surrounds them.
func (m *Module) maxUploads() int {
	const around = 1 << 20
	return int(min(int64(max(m.DocumentLimit, 1))*m.MaxUpload+around, 1<<30))
}

// upload answers POST /resource/documents. Either all files of a request are stored or none.
func (m *Module) upload(ctx context.Context, c *rest.Call) error {
	expire := strings.TrimSpace(c.String("doc_expire"))
	if m.ExpireRequired {
		if expire == "" {
			return fault.Invalid("resource.documents.invalid_format")
		}
		if expire < m.today() {
			return fault.Invalid("resource.documents.already_expired")
		}
	}
	uploads, ok := c.Files("upload")
	stored, err := m.DB.CountDocuments(ctx, c.User.ID)
	if err != nil {
		return err
	}
	if err := m.roomFor(stored, len(uploads)); err != nil {
		return err
	}
	var wrong []fault.Code
	if !ok || len(uploads) == 0 {
		wrong = []fault.Code{"upload.blank"}
	} else if wrong, err = m.inspect(uploads); err != nil {
		return err
	}
	if wrong = append(wrong, m.checkDocument(c)...); len(wrong) > 0 {
		return fault.Invalid(wrong...)
	}
	var keys []string
	undo := func() {
		for _, key := range keys {
			if err := m.Files.Delete(context.WithoutCancel(ctx), key); err != nil {
				m.Accounts.Log.Warn("a file of a refused upload is left in the store", "key", key, "error", err)
			}
		}
		keys = nil
	}
	err = m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		undo() // of an earlier run that lost a race
		if err := u.Lock(ctx, c.User); err != nil {
			return err
		}
		stored, err := u.CountDocuments(ctx, c.User.ID)
		if err != nil {
			return err
		}
		if err := m.roomFor(stored, len(uploads)); err != nil {
			return err
		}
		for _, file := range uploads {
			key, err := m.uploadOne(ctx, c, u, file, expire)
			if key != "" {
				keys = append(keys, key)
			}
			if err != nil {
				return err
			}
		}
		return m.documentPending(ctx, c, u)
	})
	if err != nil {
		undo()
		return err
	}
	return c.Done()
}

func (m *Module) roomFor(stored, more int) error {
	if stored > m.DocumentLimit {
		return fault.New("resource.documents.limit_reached")
	}
	if stored+more > m.DocumentLimit {
		return fault.New("resource.documents.limit_will_be_reached")
	}
	return nil
}

// inspect lists what is wrong with the first file that is refused.
func (m *Module) inspect(uploads []*multipart.FileHeader) ([]fault.Code, error) {
	head := make([]byte, 3072)
	for _, file := range uploads {
		content, err := file.Open()
		if err != nil {
			return nil, fmt.Errorf("read upload: %w", err)
		}
		n, err := io.ReadFull(content, head)
		if cerr := content.Close(); cerr != nil {
			return nil, fmt.Errorf("read upload: %w", cerr)
		}
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("read upload: %w", err)
		}
		if _, wrong := m.Files.Inspect(file.Filename, file.Size, head[:n]); len(wrong) > 0 {
			return wrong, nil
		}
	}
	return nil, nil
}

// uploadOne stores one file and its row. The key comes back with an error, too, once the file is stored.
func (m *Module) uploadOne(
	ctx context.Context, c *rest.Call, u *account.Unit, file *multipart.FileHeader, expire string,
) (string, error) {
	name := blob.Name(file.Filename)
	number, kind := c.String("doc_number"), c.String("doc_type")
	d := &db.Document{
		UserID: c.User.ID, DocType: &kind, DocNumber: &number, Metadata: c.Optional("metadata"), UploadName: &name,
	}
	if expire != "" {
		d.DocExpire = &expire
	}
	if err := u.InsertDocument(ctx, d); err != nil {
		return "", err
	}
	content, err := file.Open()
	if err != nil {
		return "", fmt.Errorf("read upload: %w", err)
	}
	defer content.Close()
	stored, err := m.Files.Put(ctx, d.ID, name, content)
	if err != nil {
		return "", err
	}
	if err := u.SetDocumentUpload(ctx, d, stored.Key, stored.ContentType); err != nil {
		return stored.Key, err
	}
	return stored.Key, u.DocumentCreated(ctx, c.User, d)
}

// documentPending has staff look at the documents, unless they are verified already.
func (m *Module) documentPending(ctx context.Context, c *rest.Call, u *account.Unit) error {
	l, err := u.Label(ctx, c.User.ID, "document", account.Private)
	if err == nil && l.Value == "verified" {
		return nil
	}
	if err != nil && !errors.Is(err, db.ErrNotFound) {
		return err
	}
	return u.PutLabel(ctx, c.User, "document", "pending")
}

// maxDocNumber is the longest document number, in characters.
const maxDocNumber = 128

func (m *Module) checkDocument(c *rest.Call) []fault.Code {
	var out []fault.Code
	if !slices.Contains(m.DocumentTypes, c.String("doc_type")) {
		out = append(out, "doc_type.inclusion")
	}
	out = append(out, account.CheckMetadata(c.Optional("metadata"))...)
	number := c.String("doc_number")
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
