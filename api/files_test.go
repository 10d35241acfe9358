package api

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"barong/db"
	"barong/internal/blob"
	"barong/internal/test/apitest"
)

// local opens a store of files in a folder of e.
func local(t *testing.T, e *apitest.Env) *blob.Store {
	t.Helper()
	s, err := blob.Open(blob.Options{
		Provider: blob.Local, Folder: filepath.Join(e.Folder, "files"), Key: bytes.Repeat([]byte("k"), 32), Path: "/" + apitest.Prefix + "/files/",
		Extensions: []string{"png", "pdf"}, MinSize: 1, MaxSize: 11 << 20, URLLife: time.Minute, Now: e.Clock.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

const pdf = "%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"

// keep stores a PDF of a document, and the document itself if it is named.
func keep(t *testing.T, e *apitest.Env, s *blob.Store, id int64, name string) (key string) {
	t.Helper()
	f, err := s.Put(t.Context(), id, "a.pdf", strings.NewReader(pdf))
	if err != nil {
		t.Fatal(err)
	}
	if name != "" {
		d := &db.Document{ID: id, UserID: e.NewUser(t, nil).ID, Upload: &f.Key, UploadName: &name, ContentType: &f.ContentType}
		e.Update(t, func(ctx context.Context, tx *db.Tx) error { return tx.InsertDocument(ctx, d) })
	}
	return f.Key
}

// TestFiles holds that a file is handed out by its signed address alone, and never as something that a browser runs.
func TestFiles(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		files := local(t, e)
		s := e.Serve(t, fileRoutes(e.DB, files))
		key, nameless := keep(t, e, files, 7, "my päss.pdf"), keep(t, e, files, 8, "")

		for _, c := range []struct{ key, disposition string }{
			{key, `attachment; filename*=utf-8''my%20p%C3%A4ss.pdf`},
			{nameless, "attachment"},
		} {
			a := s.Get(t, files.URL(c.key)).WantBody(t, 200, pdf)
			for name, want := range map[string]string{
				"Content-Type": "application/pdf", "Content-Disposition": c.disposition, "X-Content-Type-Options": "nosniff",
				"Content-Security-Policy": "default-src 'none'; sandbox", "Cache-Control": "private, no-store",
			} {
				if got := a.Header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if a := s.Do(t, "HEAD", files.URL(c.key)); a.Status != 200 || a.Body != "" || a.Header.Get("Content-Length") != strconv.Itoa(len(pdf)) {
				t.Errorf("HEAD: %d %v", a.Status, a.Header)
			}
			s.Get(t, plain(files.URL(c.key))).WantBody(t, 200, pdf) // as gateways rewrite it
		}

		// A file that the original stored stays where it is.
		old := blob.ImportedKey(9, "паспорт+1..JPEG")
		place := filepath.Join(e.Folder, "files", filepath.FromSlash(old))
		if err := os.MkdirAll(filepath.Dir(place), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(place, []byte(pdf), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, address := range []string{files.URL(old), plain(files.URL(old))} {
			if a := s.Get(t, address).WantBody(t, 200, pdf); a.Header.Get("Content-Type") != "image/jpeg" {
				t.Errorf("type %s", a.Header.Get("Content-Type"))
			}
			s.Get(t, strings.Replace(address, "/9/", "/8/", 1)).Want(t, 404, "record.not_found")
		}
		for _, name := range []string{"", ".", "..", "a/b", "a b", "../../../../etc/passwd", "a%2f", strings.Repeat("a", 300)} {
			if got := blob.ImportedKey(9, name); got != "" {
				t.Errorf("%q has the key %s", name, got)
			}
		}

		good := files.URL(key)
		path, query, _ := strings.Cut(good, "?")
		expires, signature, _ := strings.Cut(query, "&")
		_, foreign, _ := strings.Cut(files.URL(nameless), "&")
		folder := strings.TrimSuffix(path, key)
		other := folder + strings.Replace(key, "7/", "9/", 1)
		for _, address := range []string{
			path, path + "?" + expires, path + "?" + signature, path + "?expires=&signature=",
			path + "?" + expires + "&" + foreign,                                  // of another file
			path + "?" + strings.Replace(expires, "=", "=9", 1) + "&" + signature, // that lives longer
			path + "?" + expires + "&" + strings.ToUpper(signature[:12]) + signature[12:],
			path + "?expires=x&" + signature, other + "?" + query, path + "x?" + query,
			folder + "7/..%2f..%2fbarong.db?" + query, folder + "7/%2e%2e?" + query, folder + "..%2f7/" + path[len(folder)+2:] + "?" + query,
		} {
			for _, address := range []string{address, plain(address)} {
				if a := s.Get(t, address); a.Status != 404 || strings.Contains(a.Body, "PDF") {
					t.Errorf("%s: %d %s", address, a.Status, a.Body)
				}
			}
		}
		s.Get(t, path, apitest.Query("expires[]", "1", "signature[a]", "1")).Want(t, 422, "invalid", "invalid")
		s.Post(t, good).WantBody(t, 404, `{"error":"Route is not found"}`)

		e.Clock.Advance(time.Minute + time.Second)
		s.Get(t, good).Want(t, 404, "record.not_found")
		again := files.URL(key)
		s.Get(t, again).Want(t, 200)
		if err := files.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		s.Get(t, again).Want(t, 404, "record.not_found")

		// Whatever else lies in the folder has no address.
		if err := os.WriteFile(filepath.Join(e.Folder, "files", "index.html"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.Get(t, folder+"index.html").WantBody(t, 404, `{"error":"Route is not found"}`)
	})
}

// plain is a published address as gateways rewrite it for this process.
func plain(address string) string {
	return "/api/v2/" + strings.TrimPrefix(address, "/"+apitest.Prefix+"/")
}

// TestStalledDownloads holds that who asks for files and reads none of them takes neither memory nor, for long, a place.
func TestStalledDownloads(t *testing.T) {
	e := apitest.New(t, "sqlite")
	files := local(t, e)
	s := e.Serve(t, fileRoutes(e.DB, files))
	large := pdf + strings.Repeat("%", 10<<20)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	var addresses []string
	for id := range 4 {
		f, err := files.Put(t.Context(), int64(id+1), "a.pdf", strings.NewReader(large))
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, files.URL(f.Key))
	}
	before := heap()
	var stalled []*http.Response
	for range 4 {
		for _, address := range addresses {
			res, err := http.Get(s.URL + address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { res.Body.Close() })
			if res.StatusCode != 200 || res.ContentLength != int64(len(large)) {
				t.Fatalf("%v", res)
			}
			stalled = append(stalled, res)
		}
	}
	if grown := heap() - before; grown > 8<<20 {
		t.Errorf("%d downloads that wait take %d MB", len(stalled), grown>>20)
	}
	// A fifth of the same file waits for a place, which the first that goes on makes.
	done := make(chan int, 1)
	go func() {
		res, err := http.Get(s.URL + addresses[0])
		if err != nil {
			done <- -1
			return
		}
		defer res.Body.Close()
		n, _ := io.Copy(io.Discard, res.Body)
		done <- int(n)
	}()
	if n, err := io.Copy(io.Discard, stalled[0].Body); n != int64(len(large)) || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	stalled[4].Body.Close() // and one who leaves gives up a place as well
	if n := <-done; n != len(large) {
		t.Errorf("the fifth read %d bytes", n)
	}
	for _, res := range stalled {
		res.Body.Close()
	}
	for range 8 {
		s.Get(t, addresses[0]).Want(t, 200)
	}
}

// TestFilesElsewhere holds that nothing is served of a store that serves by itself.
func TestFilesElsewhere(t *testing.T) {
	t.Parallel()
	s, err := blob.Open(blob.Options{
		Provider: blob.AWS, Bucket: "b", AccessKey: "a", SecretKey: "s", Region: "eu-west-1", Extensions: []string{"png"}, MaxSize: 1, URLLife: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if routes := fileRoutes(nil, s); len(routes) != 0 {
		t.Errorf("routes %v", routes)
	}
}
