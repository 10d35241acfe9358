package resource_test

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/api/account"
	"barong/api/resource"
	"barong/db"
	"barong/internal/blob"
	"barong/internal/fault"
	"barong/internal/test/apitest"
)

// stored are the files in the store.
func (b *bench) stored(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(b.env.Folder, "files", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// document is a good one but for its files; changes replace fields, with "-" leaving one out.
func document(changes ...string) apitest.Option {
	fields := []string{"doc_type", "Passport", "doc_number", "AA1234BB", "doc_expire", "3020-01-22"}
	for c := range slices.Chunk(changes, 2) {
		at := slices.Index(fields, c[0])
		switch {
		case at < 0:
			fields = append(fields, c...)
		case c[1] == "-":
			fields = slices.Delete(fields, at, at+2)
		default:
			fields[at+1] = c[1]
		}
	}
	return apitest.Form(fields...)
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		now := e.Clock.Now().UTC()
		e.Clock.Advance(now.Truncate(24 * time.Hour).Add(36 * time.Hour).Sub(now)) // noon: today stays today
		b, old := start(t, e), start(t, e, legacy)
		u := b.member(t)
		as, file := apitest.As(u), apitest.File("upload[]", "a.png", "image/png", pngFile(t))
		b.Get(t, "/resource/documents", as).WantBody(t, 200, "[]")
		post := func(o ...apitest.Option) *apitest.Answer { return b.Post(t, "/resource/documents", append(o, as)...) }

		all := []string{
			"resource.document.missing_doc_type", "resource.document.empty_doc_type", "resource.document.missing_doc_number",
			"resource.document.empty_doc_number", "resource.document.missing_upload",
		}
		post().Want(t, 400, all...)
		old.Post(t, "/resource/documents", as).Want(t, 422, all...)
		post(apitest.Form("doc_type", "", "doc_number", " ", "doc_expire", "")).Want(t, 400, all[1], all[3], all[4])
		post(file, apitest.Form("doc_expire", "zz")).Want(t, 400, all[0], all[1], all[2], all[3], "resource.documents.expire_not_a_date")
		post(apitest.JSON(map[string]any{"doc_type": []string{"x"}, "doc_number": map[string]int{"a": 1}, "upload": []string{"x"}, "doc_expire": "3020-01-22"})).
			Want(t, 422, "invalid", "invalid")
		post(apitest.JSON(map[string]any{"doc_type": "Passport", "doc_number": "1", "upload": map[string]int{"a": 1}, "doc_expire": "3020-01-22"})).
			Want(t, 422, "invalid")
		yesterday := e.Clock.Now().UTC().AddDate(0, 0, -1).Format(time.DateOnly)
		for _, c := range []struct {
			changes []string
			codes   []string
		}{
			{[]string{"doc_expire", "-"}, []string{"resource.documents.invalid_format"}},
			{[]string{"doc_expire", ""}, []string{"resource.documents.invalid_format"}},
			{[]string{"doc_expire", "3020-13-01"}, []string{"resource.documents.expire_not_a_date"}},
			{[]string{"doc_expire", "20-01-01"}, []string{"resource.documents.expire_not_a_date"}},
			{[]string{"doc_expire", "31/02/3020"}, []string{"resource.documents.expire_not_a_date"}},
			{[]string{"doc_expire", "01/22/3020"}, []string{"resource.documents.expire_not_a_date"}},
			{[]string{"doc_expire", "22/01/2001"}, []string{"resource.documents.already_expired"}},
			{[]string{"doc_expire", "22/01/13020"}, []string{"resource.documents.invalid_format"}},
			{[]string{"doc_expire", "13020-01-22"}, []string{"resource.documents.invalid_format"}},
			{[]string{"doc_expire", "13020-02-30"}, []string{"resource.documents.expire_not_a_date"}},
			{[]string{"doc_expire", yesterday}, []string{"resource.documents.already_expired"}},
			{[]string{"doc_type", "passport"}, []string{"doc_type.inclusion"}},
			{[]string{"doc_number", "@"}, []string{"doc_number.invalid"}},
			{[]string{"doc_number", "Ä1"}, []string{"doc_number.invalid"}},
			{[]string{"doc_number", strings.Repeat("a", 129)}, []string{"doc_number.too_long"}},
			{[]string{"doc_number", strings.Repeat("@", 129)}, []string{"doc_number.too_long", "doc_number.invalid"}},
			{[]string{"metadata", "{ bar }"}, []string{"metadata.invalid_format"}},
			{[]string{"metadata", ""}, []string{"metadata.invalid_format"}},
			{[]string{"metadata", `"` + strings.Repeat("x", 65535) + `"`}, []string{"metadata.too_long"}},
			{[]string{"doc_type", "x", "doc_number", "@", "metadata", "x"}, []string{"doc_type.inclusion", "metadata.invalid_format", "doc_number.invalid"}},
		} {
			post(file, document(c.changes...)).Want(t, 422, c.codes...)
		}
		for _, o := range []apitest.Option{apitest.Form("upload[]", "http://example.test/a.png"), apitest.Form("upload", "abc")} {
			post(document(), o).Want(t, 422, "upload.blank")
		}
		emptyFile := apitest.Form("upload[]", "") // in multipart, an input in which nothing was chosen reads like this
		post(document(), emptyFile).Want(t, 400, "resource.document.missing_upload")
		post(document(), file, apitest.Form("upload[]", "text")).Want(t, 422, "upload.blank")
		post(document(), file, apitest.Form("upload[]", "1", "upload[]", "2", "upload[]", "3", "upload[]", "4")).
			Want(t, 400, "resource.documents.limit_will_be_reached")
		post(apitest.JSON(map[string]any{"doc_type": "x", "doc_number": "1", "upload": []string{}, "doc_expire": "3020-01-22"})).
			Want(t, 422, "upload.blank", "doc_type.inclusion")
		b.wantEvents(t)

		today := e.Clock.Now().UTC().Format(time.DateOnly)
		dayFirst := e.Clock.Now().UTC().Format("02/01/2006")
		post(document("doc_expire", dayFirst, "doc_number", "AA-12 34", "metadata", `{"a":1}`), emptyFile, emptyFile,
			apitest.File("upload[]", `C:\x\päss port.PNG`, "text/plain", pngFile(t)), apitest.File("upload[]", "b.png", "image/png", jpegFile(t))).
			WantBody(t, 201, "201")
		events := b.wantEvents(t, "model.document.created", "model.document.created", "model.label.created")
		b.wantLabels(t, u, "private document:pending", "private email:verified")
		b.wantUser(t, u, 1, "active", false)
		b.wantActivities(t, u)
		var record struct {
			Upload  string `json:"upload"`
			DocType string `json:"doc_type"`
		}
		if err := json.Unmarshal(events[0].Record, &record); err != nil || record.DocType != "Passport" {
			t.Errorf("event %s, %v", events[0].Record, err)
		}
		rows, err := e.DB.Documents(t.Context(), u.ID)
		if err != nil || len(rows) != 2 || *rows[0].UploadName != "päss_port.PNG" || *rows[0].ContentType != "image/png" || *rows[1].ContentType != "image/jpeg" {
			t.Fatalf("rows %+v, %v", rows, err)
		}
		if address, err := url.QueryUnescape(record.Upload); err != nil || address != "http://files.test/"+*rows[0].Upload {
			t.Errorf("address %s, %v", record.Upload, err)
		}
		for i, row := range rows {
			_, content, err := b.files.Open(t.Context(), *row.Upload)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := io.ReadAll(content)
			content.Close()
			if err != nil || string(raw) != []string{pngFile(t), jpegFile(t)}[i] {
				t.Errorf("file %d: %q, %v", i, raw, err)
			}
		}

		a := b.Get(t, "/resource/documents", as).Want(t, 200)
		var items []json.RawMessage
		a.Decode(t, &items)
		want := []string{"upload", "doc_type", "doc_number", "doc_expire", "metadata", "created_at", "updated_at"}
		if keys := apitest.ObjectKeys(t, string(items[0])); !slices.Equal(keys, want) {
			t.Errorf("item %s", items[0])
		}
		first := a.List(t)[0]
		if address, _ := first["upload"].(string); !strings.HasPrefix(address, "/"+apitest.Prefix+"/files/"+*rows[0].Upload+"?expires=") ||
			first["doc_number"] != "AA-12 34" || first["doc_expire"] != today || first["metadata"] != `{"a":1}` {
			t.Errorf("item %v", first)
		}
		old.Get(t, "/resource/documents", as).Want(t, 200).Decode(t, &items)
		if keys := apitest.ObjectKeys(t, string(items[0])); !slices.Equal(keys, []string{"upload", "doc_type", "doc_number", "doc_expire"}) ||
			!strings.HasPrefix(string(items[0]), `{"upload":{"url":"`) {
			t.Errorf("item of the last release %s", items[0])
		}

		// A single file is one of a list. Verified documents stay verified, whatever comes; others are pending again.
		b.label(t, u, "phone", "verified", account.Private)
		b.update(t, func(un *account.Unit) error { return un.PutLabel(t.Context(), u, "document", "verified") })
		post(document(), apitest.File("upload", "c.pdf", "application/pdf", pdfFile)).WantBody(t, 201, "201")
		b.wantLabels(t, u, "private document:verified", "private email:verified", "private phone:verified")
		b.wantUser(t, u, 3, "active", false)
		b.update(t, func(un *account.Unit) error { return un.PutLabel(t.Context(), u, "document", "rejected") })
		post(document(), file).WantBody(t, 201, "201")
		b.wantLabels(t, u, "private document:pending", "private email:verified", "private phone:verified")

		// Four is the limit of this server. A refused call leaves nothing behind.
		post(document(), file).Want(t, 400, "resource.documents.limit_will_be_reached")
		start(t, e, func(o *resource.Options) { o.Documents.Limit = 3 }).Post(t, "/resource/documents", as, document(), file).
			Want(t, 400, "resource.documents.limit_reached")
		if got := b.stored(t); len(got) != 4 {
			t.Errorf("files %q", got)
		}
		// A public label of that key is not taken for the program's own.
		v := b.member(t)
		b.label(t, v, "document", "verified", account.Public)
		b.Post(t, "/resource/documents", apitest.As(v), document(), file).Want(t, 201)
		b.wantLabels(t, v, "private document:pending", "private email:verified", "public document:verified")
		start(t, e, func(o *resource.Options) { o.Documents.ExpireRequired = false }).
			Post(t, "/resource/documents", apitest.As(v), document("doc_expire", "2001-01-01"), file).WantBody(t, 201, "201")
		start(t, e, func(o *resource.Options) { o.Documents.ExpireRequired = false }).
			Post(t, "/resource/documents", apitest.As(v), document("doc_expire", "13020-01-22"), file).Want(t, 422, "resource.documents.invalid_format")
		b.wantUser(t, v, 1, "active", false)
	})
}

// TestDocumentFiles holds that a file's content is what its name says, and that one bad file spoils the call.
func TestDocumentFiles(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	b := start(t, e)
	u := e.NewUser(t, nil)
	kind := func(extension string) string {
		return `upload.You are not allowed to upload "` + extension + `" files, allowed types: jpg, jpeg, png, pdf`
	}
	const html, svg = "<!doctype html><html><script>alert(1)</script></html>", `<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`
	for name, c := range map[string]struct{ content, code string }{
		"a.txt":     {"plain text", kind("txt")},
		"a":         {pngFile(t), kind("")},
		"a.svg":     {svg, kind("svg")},
		"a.png.exe": {pngFile(t), kind("exe")},
		"a.png":     {"", "upload.File size should be greater than 1 Byte"},
		"b.png":     {pngFile(t) + strings.Repeat("x", maxUpload), "upload.File size should be less than 4 KB"},
		"c.png":     {"GIF89a", "upload.invalid_extension"},
		"d.pdf":     {html, "upload.invalid_extension"},
		"e.jpg":     {svg, "upload.invalid_extension"},
		"f.jpg":     {"plain text", "upload.invalid_extension"},
	} {
		b.Post(t, "/resource/documents", apitest.As(u), document(), apitest.File("upload[]", name, "image/png", c.content)).
			Want(t, 422, c.code, "upload.blank")
		b.Post(t, "/resource/documents", apitest.As(u), document("doc_number", "@"), apitest.File("upload[]", "good.png", "image/png", pngFile(t)),
			apitest.File("upload[]", name, "image/png", c.content)).Want(t, 422, c.code, "upload.blank", "doc_number.invalid")
	}
	if got := b.stored(t); len(got) != 0 {
		t.Errorf("files %q", got)
	}
	whole := pngFile(t) + strings.Repeat("x", maxUpload-len(pngFile(t)))
	b.Post(t, "/resource/documents", apitest.As(u), document(), apitest.File("upload[]", "a.png", "image/png", whole)).WantBody(t, 201, "201")
	b.Post(t, "/resource/documents", apitest.As(u), document(), apitest.File("upload[]", "a.png", "image/png", strings.Repeat("x", 4*maxUpload+1<<20))).
		Want(t, 413, "request.too_large")
	if got := b.stored(t); len(got) != 1 {
		t.Errorf("files %q", got)
	}
}

// An upset is a store that fails at the second file.
type upset struct {
	*blob.Store
	puts int
}

func (f *upset) Put(ctx context.Context, id int64, name string, content blob.Content) (blob.File, error) {
	if f.puts++; f.puts == 2 {
		return blob.File{}, fault.Plain(422, "Connection error")
	}
	return f.Store.Put(ctx, id, name, content)
}

func TestDocumentStoreFails(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	u := e.NewUser(t, nil)
	a, c := apitest.File("upload[]", "a.png", "image/png", pngFile(t)), apitest.File("upload[]", "c.pdf", "application/pdf", pdfFile)
	b := start(t, e, func(o *resource.Options) { o.Documents.Files = &upset{Store: o.Documents.Files.(*blob.Store)} })
	b.Post(t, "/resource/documents", apitest.As(u), document(), a, c).WantBody(t, 422, `{"error":"Connection error"}`)
	if n, err := e.DB.CountDocuments(t.Context(), u.ID); err != nil || n != 0 || len(b.stored(t)) != 0 {
		t.Errorf("%d rows, files %q, %v", n, b.stored(t), err)
	}
	b.wantEvents(t)
	b.wantLabels(t, u)

	// Nothing can be written where the folder is a file.
	if err := os.RemoveAll(filepath.Join(e.Folder, "files")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(e.Folder, "files"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.Post(t, "/resource/documents", apitest.As(u), document(), a).WantBody(t, 422, `{"error":"Connection error"}`)
	b.wantLabels(t, u)
}

// TestDocumentsAtOnce holds the limit against parallel uploads.
func TestDocumentsAtOnce(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		u := e.NewUser(t, nil)
		file := apitest.File("upload[]", "a.png", "image/png", pngFile(t))
		contentType, body := apitest.Encode(t, document(), file, file)
		token := e.Token(t, u)
		wantCount(t, atOnce(6, func(int) int {
			return b.call(t, "POST", "/resource/documents", contentType, token, body)
		}), map[int]int{201: 2, 400: 4})
		rows, err := e.DB.Documents(t.Context(), u.ID)
		if err != nil || len(rows) != 4 {
			t.Fatalf("%d documents, %v", len(rows), err)
		}
		keys := map[string]bool{}
		for _, row := range rows {
			keys[*row.Upload] = true
		}
		if files := b.stored(t); len(keys) != 4 || len(files) != 4 {
			t.Errorf("keys %v, files %q", keys, files)
		}
	})
}

// A stuck store takes no file until it is told to go on.
type stuck struct {
	*blob.Store
	goOn chan struct{}
}

func (f *stuck) Put(ctx context.Context, id int64, name string, content blob.Content) (blob.File, error) {
	<-f.goOn
	return f.Store.Put(ctx, id, name, content)
}

// TestUploadsInLine holds how many uploads of one user run and wait at the same time.
func TestUploadsInLine(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	u := e.NewUser(t, nil)
	store := &stuck{goOn: make(chan struct{})}
	goOn := sync.OnceFunc(func() { close(store.goOn) })
	defer goOn()
	b := start(t, e, func(o *resource.Options) {
		store.Store = o.Documents.Files.(*blob.Store)
		o.Documents.Files, o.Documents.Limit = store, 100
	})
	file := apitest.File("upload[]", "a.png", "image/png", pngFile(t))
	contentType, body := apitest.Encode(t, document(), file)
	token := e.Token(t, u)
	const inLine = 16 // four that run and three that wait for each of them
	statuses := make(chan int, inLine+1)
	for range inLine + 1 {
		go func() { statuses <- b.call(t, "POST", "/resource/documents", contentType, token, body) }()
	}
	if status := <-statuses; status != 429 { // whichever came last; the line is full
		t.Fatalf("status %d", status)
	}
	if a := b.Post(t, "/resource/documents", apitest.As(u), document(), file).Want(t, 429, "request.rate_limited"); a.Header.Get("Retry-After") == "" {
		t.Error("429 without Retry-After")
	}
	b.Get(t, "/resource/documents", apitest.As(u)).WantBody(t, 200, "[]")
	goOn()
	for range inLine {
		if status := <-statuses; status != 201 {
			t.Errorf("status %d", status)
		}
	}
	b.Post(t, "/resource/documents", apitest.As(u), document(), file).Want(t, 201)
	if n, err := e.DB.CountDocuments(t.Context(), u.ID); err != nil || n != inLine+1 {
		t.Errorf("%d documents, %v", n, err)
	}
}

var _ account.Files = (*blob.Store)(nil)

// TestDocumentOfStaff holds that nobody sees the documents of others.
func TestDocumentOfStaff(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	b := start(t, e)
	u, root := e.NewUser(t, nil), e.NewStaff(t, "superadmin")
	e.Update(t, func(ctx context.Context, tx *db.Tx) error { return tx.InsertDocument(ctx, &db.Document{UserID: u.ID}) })
	b.Get(t, "/resource/documents", apitest.As(root)).WantBody(t, 200, "[]")
}
