package management

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"barong/api/account"
	"barong/api/rest"
	"barong/db"
	"barong/internal/blob"
	"barong/internal/fault"
)

// maxDocument bounds the body of a document, in bytes: the file is base64 in a payload that is base64. Where nobody may
// send any, it is what others may send.
func (m *Module) maxDocument() int {
	if _, ok := m.Config.Scopes["write_documents"]; !ok {
		return 0
	}
	const around = 256 << 10
	file := min(m.MaxUpload, 256<<20)
	return file/9*16 + file/4 + around // room for a file that is a little too large, so that it is told so
}

// storeDocument answers POST /management/documents.
func (m *Module) storeDocument(ctx context.Context, c *rest.Call) error {
	user, err := m.DB.UserByUID(ctx, c.String("uid"))
	if errors.Is(err, db.ErrNotFound) {
		return c.Refuse(422, map[string][]string{"errors": {"user doesnt exist"}})
	}
	if err != nil {
		return err
	}
	content, err := base64.StdEncoding.Strict().DecodeString(c.String("upload"))
	if err != nil || strings.ContainsAny(c.String("upload"), "\r\n") {
		return fault.Plain(422, "upload is invalid")
	}
	name := blob.Name(c.String("filename") + "." + strings.TrimPrefix(c.String("file_ext"), "."))
	if codes := m.validateDocument(c, name, content); codes != nil {
		return fault.Plain(422, enumerated(sentences(codes)))
	}
	ids, err := m.DB.NewDocumentIDs(ctx, 1)
	if err != nil {
		return err
	}
	file, err := m.Files.Put(ctx, ids[0], name, bytes.NewReader(content))
	if err != nil {
		return err
	}
	kind, number := c.String("doc_type"), c.String("doc_number")
	d := db.Document{
		ID: ids[0], UserID: user.ID, DocType: &kind, DocNumber: &number, Metadata: c.Optional("metadata"),
		Upload: &file.Key, UploadName: &name, ContentType: &file.ContentType,
	}
	if expire := c.String("doc_expire"); expire != "" {
		d.DocExpire = &expire
	}
	err = m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		if err := u.Lock(ctx, user); err != nil {
			return err
		}
		row := d // this may run again
		if err := u.InsertDocument(ctx, &row); err != nil {
			return err
		}
		if err := u.DocumentCreated(ctx, user, &row); err != nil {
			return err
		}
		if !c.Bool("update_labels") {
			return nil
		}
		return u.DocumentPending(ctx, user)
	})
	if err != nil {
		m.Accounts.DropFiles(ctx, m.Files, &d)
		return err
	}
	return c.Done()
}

// validateDocument lists the rules that a document breaks, in the order of the original.
func (m *Module) validateDocument(c *rest.Call, name string, content []byte) []fault.Code {
	_, codes := m.Files.Inspect(name, int64(len(content)), content[:min(len(content), blob.HeadSize)])
	codes = append(codes, account.ValidateDocument(m.DocumentTypes, c.String("doc_type"), c.String("doc_number"), c.Optional("metadata"))...)
	switch expire := c.String("doc_expire"); {
	case !m.ExpireRequired:
	case expire == "":
		codes = append(codes, "doc_expire.blank")
	case len(expire) > len(time.DateOnly) || expire < m.Now().UTC().Format(time.DateOnly):
		codes = append(codes, "doc_expire.invalid")
	}
	return codes
}
