package resource

import (
	"context"
	"fmt"
	"io"
	"mime/multipart"
	"strings"

	"barong/api/account"
	"barong/api/rest"
	"barong/internal/fault"
)

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
	d := &m.Documents
	return c.Answer(struct {
		Types          []string `json:"types"`
		Extensions     []string `json:"extensions"`
		ExpiryRequired bool     `json:"expiry_required"`
		Limit          int      `json:"limit"`
		MaxBytes       int64    `json:"max_bytes"`
	}{append([]string{}, d.Types...), append([]string{}, d.Extensions...), d.ExpireRequired, d.Limit, d.MaxUpload})
}

// maxUploads bounds the body of an upload: every file that may still be added at its largest, and what surrounds them.
func (m *Module) maxUploads() int {
	const around = 1 << 20
	return int(min(int64(max(m.Documents.Limit, 1))*m.Documents.MaxUpload+around, 1<<30))
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
	var in struct {
		Type     string  `param:"doc_type"`
		Number   string  `param:"doc_number"`
		Expire   string  `param:"doc_expire"`
		Metadata *string `param:"metadata"`
	}
	c.Into(&in)
	paper := account.Paper(in)
	paper.Expire = strings.TrimSpace(in.Expire)
	switch m.Documents.Expiry(paper.Expire) {
	case account.ExpiryMissing, account.ExpiryBeyond:
		return fault.Invalid("resource.documents.invalid_format")
	case account.ExpiryPassed:
		return fault.Invalid("resource.documents.already_expired")
	case account.ExpiryFine:
	}
	files, sent := c.Files("upload")
	if err := m.Documents.Room(ctx, c.User, sent); err != nil {
		return err
	}
	uploads, done, err := open(files)
	if err != nil {
		return err
	}
	defer done()
	var wrong []fault.Code
	if sent != len(files) || sent == 0 {
		wrong = []fault.Code{"upload.blank"}
	} else if wrong, err = m.Documents.Inspect(uploads...); err != nil {
		return err
	}
	if wrong = append(wrong, m.Documents.Validate(&paper)...); len(wrong) > 0 {
		return fault.Invalid(wrong...)
	}
	if err := m.Documents.Send(ctx, c.User, &paper, uploads...); err != nil {
		return err
	}
	return c.Done()
}

// open opens the files of a call, until done is called.
func open(files []*multipart.FileHeader) (uploads []account.Upload, done func(), err error) {
	var opened []io.Closer
	done = func() {
		for _, file := range opened {
			_ = file.Close() // it was only read
		}
	}
	for _, file := range files {
		content, err := file.Open()
		if err != nil {
			done()
			return nil, nil, fmt.Errorf("read upload: %w", err)
		}
		opened = append(opened, content)
		uploads = append(uploads, account.Upload{Name: file.Filename, Content: io.NewSectionReader(content, 0, file.Size)})
	}
	return uploads, done, nil
}
