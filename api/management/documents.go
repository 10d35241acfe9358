package management

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"strings"

	"barong/api/account"
	"barong/api/rest"
	"barong/db"
	"barong/internal/blob"
	"barong/internal/fault"
)

// maxDocument bounds the body of a document, in bytes: the file is base64 in a payload that is base64. Where no service may
// send documents, other calls' bound holds.
func (m *Module) maxDocument() int {
	if _, ok := m.Config.Scopes["write_documents"]; !ok {
		return 0
	}
	const around = 256 << 10
	file := int(min(m.Documents.MaxUpload, 256<<20))
	return file/9*16 + file/4 + around // room for a file that is a little too large, so that it is told so
}

// storeDocument answers POST /management/documents.
func (m *Module) storeDocument(ctx context.Context, c *rest.Call) error {
	var in struct {
		UID          string  `param:"uid"`
		Upload       string  `param:"upload"` // base64
		Filename     string  `param:"filename"`
		FileExt      string  `param:"file_ext"`
		Type         string  `param:"doc_type"`
		Number       string  `param:"doc_number"`
		Expire       string  `param:"doc_expire"`
		Metadata     *string `param:"metadata"`
		UpdateLabels bool    `param:"update_labels"`
	}
	c.Into(&in)
	user, err := m.DB.UserByUID(ctx, in.UID)
	if errors.Is(err, db.ErrNotFound) {
		return c.Refuse(422, map[string][]string{"errors": {"user doesnt exist"}})
	}
	if err != nil {
		return err
	}
	content, err := base64.StdEncoding.Strict().DecodeString(in.Upload)
	if err != nil || strings.ContainsAny(in.Upload, "\r\n") {
		return fault.Plain(422, "upload is invalid")
	}
	file := account.Upload{Name: blob.Name(in.Filename + "." + strings.TrimPrefix(in.FileExt, ".")), Content: bytes.NewReader(content)}
	paper := account.Paper{Type: in.Type, Number: in.Number, Expire: in.Expire, Metadata: in.Metadata}
	wrong, err := m.validateDocument(&paper, file)
	if err != nil {
		return err
	}
	if len(wrong) > 0 {
		return fault.Plain(422, enumerated(sentences(wrong)))
	}
	if err := m.Documents.SendFor(ctx, user, &paper, file, in.UpdateLabels); err != nil {
		return err
	}
	return c.Done()
}

// validateDocument lists the rules that a document breaks, in the order of the original, which looked at an expiry only
// where one is required.
func (m *Module) validateDocument(p *account.Paper, file account.Upload) ([]fault.Code, error) {
	wrong, err := m.Documents.Inspect(file)
	if err != nil {
		return nil, err
	}
	wrong = append(wrong, m.Documents.Validate(p)...)
	switch expiry := m.Documents.Expiry(p.Expire); {
	case !m.Documents.ExpireRequired:
	case expiry == account.ExpiryMissing:
		wrong = append(wrong, "doc_expire.blank")
	case expiry != account.ExpiryFine:
		wrong = append(wrong, "doc_expire.invalid")
	}
	return wrong, nil
}
