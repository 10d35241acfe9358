package resource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"strings"
	"time"

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
	return answerList(m, c, rows, func(rows []db.Profile) any { return m.view().Profiles(rows) })
}

// A profileInput is what a call says about the caller.
type profileInput struct {
	rest.Person
	Confirm bool `param:"confirm"`
}

// fill makes what was sent in a profile.
func (in *profileInput) fill(p *db.Profile) {
	edit := in.Edit()
	edit.Apply(p)
	p.State = db.ProfileDrafted
	if in.Confirm {
		p.State = db.ProfileSubmitted
	}
}

// createProfile answers POST /resource/profiles.
func (m *Module) createProfile(ctx context.Context, c *rest.Call) error {
	var in profileInput
	c.Into(&in)
	var p *db.Profile
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		p = &db.Profile{UserID: c.User.ID}
		in.fill(p)
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
	var in profileInput
	c.Into(&in)
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
		in.fill(&p)
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
	return answerList(m, c, rows, m.view().OwnDocuments)
}

// documentTypes answers GET /resource/documents/types.
func (m *Module) documentTypes(_ context.Context, c *rest.Call) error {
	return c.Answer(struct {
		Types          []string `json:"types"`
		Extensions     []string `json:"extensions"`
		ExpiryRequired bool     `json:"expiry_required"`
		Limit          int      `json:"limit"`
		MaxBytes       int64    `json:"max_bytes"`
	}{append([]string{}, m.DocumentTypes...), append([]string{}, m.Extensions...), m.ExpireRequired, m.DocumentLimit, m.MaxUpload})
}

// maxUploads bounds the body of an upload: every file that may still be added at its largest, and what surrounds them.
func (m *Module) maxUploads() int {
	const around = 1 << 20
	return int(min(int64(max(m.DocumentLimit, 1))*m.MaxUpload+around, 1<<30))
}

// parallelUploads is how many uploads of one user may run at the same time: the files of each wait on the disk.
func (m *Module) parallelUploads() int {
	if !m.RateLimits {
		return 0
	}
	return 4
}

// upload answers POST /resource/documents. Either all files of a request are stored or none.
func (m *Module) upload(ctx context.Context, c *rest.Call) error {
	expire := strings.TrimSpace(c.String("doc_expire"))
	switch {
	case expire == "" && m.ExpireRequired, len(expire) > len(time.DateOnly):
		return fault.Invalid("resource.documents.invalid_format")
	case m.ExpireRequired && expire < m.today():
		return fault.Invalid("resource.documents.already_expired")
	}
	uploads, sent := c.Files("upload")
	stored, err := m.DB.CountDocuments(ctx, c.User.ID)
	if err != nil {
		return err
	}
	if err := m.roomFor(stored, sent); err != nil {
		return err
	}
	var wrong []fault.Code
	if sent != len(uploads) || sent == 0 {
		wrong = []fault.Code{"upload.blank"}
	} else if wrong, err = m.inspect(uploads); err != nil {
		return err
	}
	if wrong = append(wrong, account.ValidateDocument(m.DocumentTypes, c.String("doc_type"), c.String("doc_number"), c.Optional("metadata"))...); len(wrong) > 0 {
		return fault.Invalid(wrong...)
	}
	rows, err := m.storeFiles(ctx, c, uploads, expire)
	if err != nil {
		return err
	}
	err = m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
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
		for _, d := range rows {
			if err := u.InsertDocument(ctx, d); err != nil {
				return err
			}
			if err := u.DocumentCreated(ctx, c.User, d); err != nil {
				return err
			}
		}
		return u.DocumentPending(ctx, c.User)
	})
	if err != nil {
		m.Accounts.DropFiles(ctx, m.Files, rows...)
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
	head := make([]byte, blob.HeadSize)
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

// storeFiles stores the files of a call and returns the rows that are to be inserted for them. It stores all or none.
func (m *Module) storeFiles(ctx context.Context, c *rest.Call, uploads []*multipart.FileHeader, expire string) ([]*db.Document, error) {
	ids, err := m.DB.NewDocumentIDs(ctx, len(uploads))
	if err != nil {
		return nil, err
	}
	number, kind := c.String("doc_number"), c.String("doc_type")
	rows := make([]*db.Document, 0, len(uploads))
	for i, file := range uploads {
		stored, name, err := m.storeFile(ctx, ids[i], file)
		if err != nil {
			m.Accounts.DropFiles(ctx, m.Files, rows...)
			return nil, err
		}
		d := &db.Document{
			ID: ids[i], UserID: c.User.ID, DocType: &kind, DocNumber: &number, Metadata: c.Optional("metadata"),
			Upload: &stored.Key, UploadName: &name, ContentType: &stored.ContentType,
		}
		if expire != "" {
			d.DocExpire = &expire
		}
		rows = append(rows, d)
	}
	return rows, nil
}

func (m *Module) storeFile(ctx context.Context, id int64, file *multipart.FileHeader) (stored blob.File, name string, err error) {
	content, err := file.Open()
	if err != nil {
		return blob.File{}, "", fmt.Errorf("read upload: %w", err)
	}
	defer content.Close()
	name = blob.Name(file.Filename)
	stored, err = m.Files.Put(ctx, id, name, io.NewSectionReader(content, 0, file.Size))
	return stored, name, err
}
