package blob

import (
	"bytes"
	"cmp"
	"errors"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"barong/internal/fault"

	"pgregory.net/rapid"
)

var (
	jpg = func() []byte {
		var b bytes.Buffer
		if err := jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, 64, 64)), nil); err != nil {
			panic(err)
		}
		return b.Bytes()
	}()
	pngFile = func() []byte {
		var b bytes.Buffer
		if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 64, 64))); err != nil {
			panic(err)
		}
		return b.Bytes()
	}()
	pdf = []byte("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer << /Root 1 0 R >>\n%%EOF\n")
)

func options(t testing.TB) Options {
	return Options{
		Provider: "Local", Folder: filepath.Join(t.TempDir(), "files"), Key: bytes.Repeat([]byte{7}, 32), Path: "/api/files/",
		Extensions: []string{"jpg", "jpeg", " PNG", ".pdf"}, MinSize: 1, MaxSize: 10 << 20, URLLife: time.Minute,
	}
}

func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func read(t *testing.T, s *Store, key string) (File, []byte) {
	t.Helper()
	f, r, err := s.Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return f, content
}

// stores are every kind of store, the clouds as stand-ins on loopback.
func stores(t *testing.T, f func(t *testing.T, o Options)) {
	t.Run("local", func(t *testing.T) { f(t, options(t)) })
	for _, provider := range []string{AWS, Google, AliCloud} {
		t.Run(provider, func(t *testing.T) {
			c := newCloud(t)
			o := options(t)
			o.Provider, o.Endpoint, o.PathStyle = strings.ToUpper(provider), c.URL, true
			o.Bucket, o.AccessKey, o.SecretKey = "kyc", accessKey, secretKey
			f(t, o)
			for _, r := range c.seen() {
				if r.URL.RawQuery != "" {
					continue // a signed address
				}
				auth := r.Header.Get("Authorization")
				if !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential=AK/") || strings.Contains(auth, "accept-encoding") ||
					!strings.HasPrefix(r.URL.Path, "/kyc/") {
					t.Errorf("%s %s: %s", r.Method, r.URL.Path, auth)
				}
			}
		})
	}
	t.Run("azure", func(t *testing.T) {
		c := newCloud(t)
		o := options(t)
		o.Provider, o.Endpoint, o.Bucket, o.AccessKey, o.SecretKey = "Azure", c.URL, "kyc", accessKey, secretKey
		f(t, o)
		for _, r := range c.seen() {
			if r.URL.RawQuery != "" {
				continue // a signed address
			}
			if auth := r.Header.Get("Authorization"); !strings.HasPrefix(auth, "SharedKey AK:") || !strings.HasPrefix(r.URL.Path, "/kyc/") {
				t.Errorf("%s %s: %s", r.Method, r.URL.Path, auth)
			}
		}
	})
}

func TestPutOpenDelete(t *testing.T) {
	stores(t, func(t *testing.T, o Options) {
		s := open(t, o)
		big := append(slices.Clone(pdf), bytes.Repeat([]byte("x"), 6<<20)...)
		for _, c := range []struct {
			name, extension, kind string
			content               []byte
		}{
			{"front.jpg", "jpg", "image/jpeg", jpg},
			{"FRONT.JPEG", "jpeg", "image/jpeg", jpg},
			{`C:\scans\me.PNG`, "png", "image/png", pngFile},
			{"../../etc/passwd.pdf", "pdf", "application/pdf", pdf},
			{"big.pdf", "pdf", "application/pdf", big},
			{"a.png", "jpg", "image/jpeg", jpg}, // the content decides
			{"a.jpg", "pdf", "application/pdf", pdf},
			{"a.pdf", "png", "image/png", pngFile},
		} {
			f, err := s.Put(t.Context(), 42, c.name, bytes.NewReader(c.content))
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if !strings.HasPrefix(f.Key, "42/") || !strings.HasSuffix(f.Key, "."+c.extension) || len(f.Key) != 3+32+1+len(c.extension) ||
				f.ContentType != c.kind || f.Size != int64(len(c.content)) {
				t.Errorf("%s: %+v", c.name, f)
			}
			g, content := read(t, s, f.Key)
			if g != f || !bytes.Equal(content, c.content) {
				t.Errorf("%s: reads back as %+v, %d bytes", c.name, g, len(content))
			}
			if err := s.Delete(t.Context(), f.Key); err != nil {
				t.Error(err)
			}
			if _, _, err := s.Open(t.Context(), f.Key); !errors.Is(err, ErrNotFound) {
				t.Errorf("after deletion: %v", err)
			}
			if err := s.Delete(t.Context(), f.Key); err != nil {
				t.Errorf("twice: %v", err)
			}
		}
	})
}

func TestRefusals(t *testing.T) {
	stores(t, func(t *testing.T, o Options) {
		o.MinSize, o.MaxSize = 20, 10<<10
		s := open(t, o)
		allowed := " files, allowed types: jpg, jpeg, png, pdf"
		for _, c := range []struct {
			name    string
			content []byte
			want    fault.Code
		}{
			{"a.txt", jpg, `upload.You are not allowed to upload "txt"` + fault.Code(allowed)},
			{"noextension", jpg, `upload.You are not allowed to upload ""` + fault.Code(allowed)},
			{"a.svg", jpg, `upload.You are not allowed to upload "svg"` + fault.Code(allowed)},
			{"a.jpg.html", jpg, `upload.You are not allowed to upload "html"` + fault.Code(allowed)},
			{"a.jpg", jpg[:19], "upload.File size should be greater than 20 Bytes"},
			{"a.jpg", nil, "upload.File size should be greater than 20 Bytes"},
			{"a.pdf", append(slices.Clone(pdf), make([]byte, 10<<10)...), "upload.File size should be less than 10 KB"},
			{"a.png", []byte("GIF89a" + strings.Repeat("x", 20)), "upload.invalid_extension"},
			{"a.jpg", []byte("<html><script>alert(1)</script></html>" + strings.Repeat(" ", 20)), "upload.invalid_extension"},
			{"a.png", []byte(`<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script/></svg>`), "upload.invalid_extension"},
			{"a.pdf", []byte(strings.Repeat("plain text ", 10)), "upload.invalid_extension"},
			{"a.pdf", []byte("MZ" + strings.Repeat("\x90\x00", 100)), "upload.invalid_extension"},
		} {
			_, err := s.Put(t.Context(), 1, c.name, bytes.NewReader(c.content))
			var f *fault.Error
			if !errors.As(err, &f) || f.Status != 422 || !slices.Equal(f.Codes, []fault.Code{c.want, "upload.blank"}) {
				t.Errorf("%s: %v", c.name, err)
			}
			if _, codes := s.Inspect(c.name, int64(len(c.content)), c.content[:min(len(c.content), HeadSize)]); !slices.Equal(codes, f.Codes) {
				t.Errorf("%s: inspected as %v", c.name, codes)
			}
		}
		if _, err := s.Put(t.Context(), 0, "a.jpg", bytes.NewReader(jpg)); err == nil {
			t.Error("a document without id")
		}
		// What fails half-way leaves nothing behind, whoever is to blame.
		for _, c := range []*broken{{5000, errGone}, {5000, io.EOF}, {0, errGone}} {
			if _, err := s.Put(t.Context(), 1, "a.pdf", c); err == nil || errors.As(err, new(*fault.Error)) {
				t.Errorf("broken upload: %v", err)
			}
		}
		if _, err := s.Put(t.Context(), 1, "a.pdf", &broken{10 << 10, errGone}); err != nil {
			t.Error(err) // the same, whole
		} else if s.Local() {
			os.RemoveAll(filepath.Join(o.Folder, "1"))
		}
		if s.Local() {
			filepath.WalkDir(o.Folder, func(path string, d os.DirEntry, err error) error {
				if err != nil || !d.IsDir() {
					t.Errorf("left: %s %v", path, err)
				}
				return nil
			})
		}
	})
}

var errGone = errors.New("gone")

// broken is a PDF of 10 KB of which only so many bytes can be read.
type broken struct {
	readable int
	err      error
}

func (*broken) Size() int64 { return 10 << 10 }

func (b *broken) ReadAt(p []byte, off int64) (int, error) {
	whole := append(slices.Clone(pdf), make([]byte, 10<<10)...)
	n := copy(p, whole[min(int(off), b.readable):b.readable])
	if n < len(p) {
		return n, b.err
	}
	return n, nil
}

func TestNothingIsStoredHalf(t *testing.T) {
	c := newCloud(t)
	o := options(t)
	o.Provider, o.Endpoint, o.PathStyle, o.Bucket, o.AccessKey, o.SecretKey, o.MaxSize = AWS, c.URL, true, "kyc", "AK", "s", 10<<10
	s := open(t, o)
	if _, err := s.Put(t.Context(), 1, "a.pdf", bytes.NewReader(append(slices.Clone(pdf), make([]byte, 1<<20)...))); err == nil {
		t.Error("stored")
	}
	if _, err := s.Put(t.Context(), 1, "a.pdf", &broken{5000, errGone}); err == nil {
		t.Error("stored")
	}
	// Nor of what cannot be read again: the sum of a file is known, and then its end is lost.
	lost := &losing{broken: broken{10 << 10, errGone}}
	if _, err := s.Put(t.Context(), 1, "a.pdf", lost); err == nil || errors.As(err, new(*fault.Error)) {
		t.Errorf("a lost end: %v", err)
	}
	if len(c.objects) != 0 {
		t.Errorf("%d objects", len(c.objects))
	}
}

// losing can be read once.
type losing struct {
	broken
	once bool
}

func (l *losing) ReadAt(p []byte, off int64) (int, error) {
	n, err := l.broken.ReadAt(p, off)
	if l.once = l.once || off+int64(n) == l.Size(); l.once {
		l.readable = 5000
	}
	return n, err
}

func TestUnreachableStore(t *testing.T) {
	for _, provider := range []string{AWS, Azure} {
		c := newCloud(t)
		o := options(t)
		o.Provider, o.Endpoint, o.PathStyle, o.Bucket, o.AccessKey, o.SecretKey = provider, c.URL, true, "kyc", "AK", "c2VjcmV0"
		s := open(t, o)
		for _, breakIt := range []func(){
			func() { c.mu.Lock(); c.broken = true; c.mu.Unlock() },
			c.Close,
		} {
			breakIt()
			_, err := s.Put(t.Context(), 1, "a.pdf", bytes.NewReader(pdf))
			var f *fault.Error
			if !errors.As(err, &f) || f.Status != 422 || f.Text != "Connection error" {
				t.Errorf("%s: %v", provider, err)
			}
			key := "1/" + strings.Repeat("0", 32) + ".pdf"
			if _, _, err := s.Open(t.Context(), key); err == nil || errors.Is(err, ErrNotFound) {
				t.Errorf("%s: open: %v", provider, err)
			}
			if err := s.Delete(t.Context(), key); err == nil {
				t.Errorf("%s: deleted", provider)
			}
		}
	}
}

func TestLocalAddresses(t *testing.T) {
	o := options(t)
	now := time.Unix(1_700_000_000, 0)
	o.Now = func() time.Time { return now }
	s := open(t, o)
	f, err := s.Put(t.Context(), 42, "a.jpg", bytes.NewReader(jpg))
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(s.URL(f.Key))
	if err != nil {
		t.Fatal(err)
	}
	key, expires, signature := strings.TrimPrefix(u.Path, o.Path), u.Query().Get("expires"), u.Query().Get("signature")
	if key != f.Key || expires != "1700000060" || len(signature) != 64 {
		t.Errorf("%s", u)
	}
	other := open(t, func() Options { o := o; o.Key = bytes.Repeat([]byte{8}, 32); return o }())
	for _, c := range []struct {
		s                       *Store
		key, expires, signature string
		at                      int64
		want                    bool
	}{
		{s, key, expires, signature, 0, true},
		{s, key, expires, signature, 59, true},
		{s, key, expires, signature, 60, false},
		{s, key, "1700000061", signature, 0, false},
		{s, key, "", signature, 0, false},
		{s, key, expires, "", 0, false},
		{s, key, expires, strings.ToUpper(signature), 0, false},
		{s, strings.Replace(key, "42/", "43/", 1), expires, signature, 0, false},
		{s, "42/../" + key, expires, signature, 0, false},
		{other, key, expires, signature, 0, false},
	} {
		now = time.Unix(1_700_000_000+c.at, 0)
		if got := c.s.Verify(c.key, c.expires, c.signature); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	for _, dir := range []string{o.Folder, filepath.Join(o.Folder, "42")} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, info.Mode(), err)
		}
	}
	for _, key := range []string{"", "42", "/etc/passwd", "../secret", "42/../../x", "42/" + strings.Repeat("0", 32), f.Key + "\x00"} {
		if s.URL(key) != "" {
			t.Errorf("an address for %q", key)
		}
		if _, _, err := s.Open(t.Context(), key); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", key, err)
		}
		if err := s.Delete(t.Context(), key); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func TestCloudAddresses(t *testing.T) {
	key := "42/" + strings.Repeat("0", 32) + ".jpg"
	for _, c := range []struct {
		o      Options
		prefix string
		query  []string
	}{
		{Options{Provider: AWS}, "https://kyc.s3.us-east-1.amazonaws.com/" + key + "?", []string{"X-Amz-Expires=120", "X-Amz-Signature="}},
		{Options{Provider: AWS, Region: "cn-north-1"}, "https://kyc.s3.cn-north-1.amazonaws.com.cn/" + key + "?", nil},
		{Options{Provider: AWS, Bucket: "kyc.example.com"}, "https://s3.us-east-1.amazonaws.com/kyc.example.com/" + key + "?", nil},
		{Options{Provider: AWS, Endpoint: "https://10.0.0.1/store/"}, "https://10.0.0.1/store/kyc/" + key + "?", nil},
		{Options{Provider: Azure, Endpoint: "http://127.0.0.1:10000/AK"}, "http://127.0.0.1:10000/AK/kyc/" + url.PathEscape(key) + "?", nil},
		{Options{Provider: AWS, Region: "eu-west-3", PathStyle: true}, "https://s3.eu-west-3.amazonaws.com/kyc/" + key + "?", []string{"eu-west-3"}},
		{Options{Provider: AWS, Endpoint: "minio.example:9000", PathStyle: true}, "https://minio.example:9000/kyc/" + key + "?", nil},
		{Options{Provider: Google}, "https://storage.googleapis.com/kyc/" + key + "?", []string{"X-Amz-Expires=120", "X-Amz-SignedHeaders=host&"}},
		{Options{Provider: AliCloud, Region: "oss-cn-shanghai"}, "https://kyc.oss-cn-shanghai.aliyuncs.com/" + key + "?", []string{"cn-shanghai%2Fs3"}},
		{Options{Provider: Azure}, "https://AK.blob.core.windows.net/kyc/" + url.PathEscape(key) + "?", []string{"sig=", "sp=r&", "se="}},
	} {
		base := options(t)
		c.o.Extensions, c.o.MinSize, c.o.MaxSize, c.o.URLLife = base.Extensions, base.MinSize, base.MaxSize, 2*time.Minute
		c.o.Bucket, c.o.AccessKey, c.o.SecretKey = cmp.Or(c.o.Bucket, "kyc"), accessKey, secretKey
		s := open(t, c.o)
		address := s.URL(key)
		if !strings.HasPrefix(address, c.prefix) {
			t.Errorf("%s: %s", c.o.Provider, address)
		}
		for _, part := range c.query {
			if !strings.Contains(address+"&", part) {
				t.Errorf("%s: no %s in %s", c.o.Provider, part, address)
			}
		}
		if strings.Contains(address, "c2VjcmV0") || s.Local() || s.Verify(key, "9999999999", "") {
			t.Errorf("%s: %s", c.o.Provider, address)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for what, change := range map[string]func(*Options){
		"provider":  func(o *Options) { o.Provider = "ftp" },
		"no key":    func(o *Options) { o.Key = nil },
		"short key": func(o *Options) { o.Key = []byte("short") },
		"svg":       func(o *Options) { o.Extensions = append(o.Extensions, "SVG") },
		"html":      func(o *Options) { o.Extensions = []string{".html"} },
		"odd":       func(o *Options) { o.Extensions = []string{"a/b"} },
		"sizes":     func(o *Options) { o.MinSize = o.MaxSize + 1 },
		"no life":   func(o *Options) { o.URLLife = 0 },
		"no path":   func(o *Options) { o.Path = "api/files" },
		"google":    func(o *Options) { o.Provider = Google; o.Bucket = "kyc" },
		"half a key": func(o *Options) {
			o.Provider, o.Bucket, o.AccessKey = AWS, "kyc", "AK"
		},
		"no bucket": func(o *Options) { o.Provider, o.AccessKey, o.SecretKey = AWS, "AK", "s" },
		"an ARN": func(o *Options) {
			o.Provider, o.Bucket, o.AccessKey, o.SecretKey = AWS, "arn:aws:s3:us-east-1:1:accesspoint/kyc", "AK", "s"
		},
		"a directory": func(o *Options) {
			o.Provider, o.Bucket, o.AccessKey, o.SecretKey = AWS, "kyc--use1-az4--x-s3", "AK", "s"
		},
		"no region":   func(o *Options) { o.Provider, o.Bucket, o.AccessKey, o.SecretKey = AliCloud, "kyc", "AK", "s" },
		"azure":       func(o *Options) { o.Provider, o.AccessKey, o.SecretKey = Azure, "AK", "c2VjcmV0" },
		"azure's key": func(o *Options) { o.Provider, o.Bucket, o.AccessKey, o.SecretKey = Azure, "kyc", "AK", "!" },
		"endpoint": func(o *Options) {
			o.Provider, o.Bucket, o.AccessKey, o.SecretKey, o.Endpoint = AWS, "kyc", "AK", "s", "ftp://x"
		},
	} {
		o := options(t)
		change(&o)
		if s, err := Open(o); err == nil {
			s.Close()
			t.Errorf("%s is accepted", what)
		}
	}
}

func TestName(t *testing.T) {
	for client, want := range map[string]string{
		"me.jpg": "me.jpg", "my pass port.jpg": "my_pass_port.jpg", `C:\scans\me.png`: "me.png", "../../etc/passwd": "passwd",
		"Паспорт+1-2_3.pdf": "Паспорт+1-2_3.pdf", "": "unnamed", "/": "unnamed", "..": "_..", "...": "_...", "a/": "a",
		"a\"b<c>\r\n.jpg": "a_b_c___.jpg", "\xff.jpg": "_.jpg", strings.Repeat("a", 300) + ".pdf": strings.Repeat("a", 251) + ".pdf",
	} {
		if got := Name(client); got != want {
			t.Errorf("%q: %q, want %q", client, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		name := Name(rapid.String().Draw(t, "name"))
		if name == "" || len(name) > 255 || strings.ContainsAny(name, "/\\\"'<>;\r\n ") || strings.Trim(name, ".") == "" {
			t.Fatalf("%q", name)
		}
		if again := Name(name); again != name {
			t.Fatalf("%q becomes %q", name, again)
		}
	})
}

func TestHumanSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 Bytes", 1: "1 Byte", 2: "2 Bytes", 1023: "1023 Bytes", 1024: "1 KB", 1536: "1.5 KB", 10 << 20: "10 MB",
		1234567: "1.18 MB", 123 << 20: "123 MB", 5 << 30: "5 GB", 1 << 40: "1 TB",
	} {
		if got := humanSize(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func FuzzInspect(f *testing.F) {
	s := open(f, options(f))
	f.Add("a.jpg", jpg[:200])
	f.Add("a.png", pngFile[:60])
	f.Add("a.png", jpg[:200])
	f.Add("a.pdf", pdf)
	f.Add("a.pdf", []byte("<html>%PDF-1.7"))
	f.Add("../a.jpeg\x00.svg", []byte("<svg>"))
	f.Fuzz(func(t *testing.T, name string, head []byte) {
		kind, kept, codes := s.inspect(name, int64(len(head)), head)
		if (kind == "") == (codes == nil) {
			t.Fatalf("%q: %q and %v", name, kind, codes)
		}
		if kind != "" && kind != contentTypes(kept) {
			t.Errorf("%q is accepted as %q and would be served as %q", name, kind, contentTypes(kept))
		}
	})
}
