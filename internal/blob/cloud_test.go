package blob

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/internal/fault"
)

// What the stand-ins accept.
const (
	accessKey = "AK" // also the storage account
	secretKey = "c2VjcmV0"
)

// cloud is a stand-in for the HTTP interfaces of S3 and Azure, as far as a store uses them. It verifies every signature,
// from what arrives and by the rules that Amazon and Microsoft publish, and serves nothing that is not signed.
type cloud struct {
	*httptest.Server
	token    string // that S3's requests have to bring, if any
	mu       sync.Mutex
	objects  map[string][]byte
	headers  map[string]http.Header
	requests []*http.Request
	fails    int // how many calls are answered by 503
	broken   bool
}

func newCloud(t *testing.T) *cloud {
	c := &cloud{objects: map[string][]byte{}, headers: map[string]http.Header{}}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *cloud) seen() []*http.Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

func (c *cloud) failNext(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fails = n
}

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, r)
	key, ms := r.URL.Path, r.Header.Get("x-ms-version") != "" || r.URL.Query().Has("sig")
	if ms {
		key += " of Azure"
	}
	if err == nil {
		err = c.verify(r, body, ms)
	}
	switch {
	case c.fails > 0:
		c.fails--
		w.WriteHeader(http.StatusServiceUnavailable)
	case c.broken:
		w.WriteHeader(http.StatusForbidden)
	case err != nil:
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `<Error><Code>SignatureDoesNotMatch</Code><Message>%s</Message></Error>`, err)
	case strings.HasPrefix(r.URL.Path, "/elsewhere/"):
		w.Header().Set("x-amz-bucket-region", "eu-south-2")
		w.WriteHeader(http.StatusMovedPermanently)
		fmt.Fprint(w, `<?xml version="1.0"?><Error><Code>PermanentRedirect</Code><Message>Not here.</Message></Error>`)
	case !strings.HasPrefix(r.URL.Path, "/kyc/"):
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `<?xml version="1.0"?><Error><Code>NoSuchBucket</Code></Error>`)
	case r.Method == http.MethodPut:
		c.objects[key], c.headers[key] = body, r.Header
		if ms {
			w.WriteHeader(http.StatusCreated)
		}
	case c.objects[key] == nil:
		w.Header().Set("x-ms-error-code", "BlobNotFound")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>`)
	case r.Method == http.MethodDelete:
		delete(c.objects, key)
		if ms {
			w.WriteHeader(http.StatusAccepted)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Content-Length", fmt.Sprint(len(c.objects[key])))
		if r.Method == http.MethodGet {
			w.Write(c.objects[key])
		}
	}
}

func (c *cloud) verify(r *http.Request, body []byte, ms bool) error {
	switch {
	case r.URL.Query().Has("sig"):
		return verifySAS(r)
	case ms:
		return verifySharedKey(r)
	case r.URL.Query().Has("X-Amz-Signature"):
		return c.verifyPresigned(r)
	}
	return c.verifyV4(r, body)
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	io.WriteString(h, text)
	return h.Sum(nil)
}

// v4 is the signature, by version 4, of a request that signs these headers.
func v4(r *http.Request, scope, date, signedHeaders, query, payload string) (string, error) {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if !regexp.MustCompile(`^(?:[A-Za-z0-9_.~/-]|%[0-9A-F]{2})*$`).MatchString(path) {
		return "", fmt.Errorf("the path %q is not encoded as S3 does", path)
	}
	parts := strings.Split(scope, "/") // date/region/s3/aws4_request
	if len(parts) != 4 || !strings.HasPrefix(date, parts[0]) || parts[2] != "s3" || parts[3] != "aws4_request" {
		return "", fmt.Errorf("scope %q", scope)
	}
	canonical := r.Method + "\n" + path + "\n" + query + "\n"
	for name := range strings.SplitSeq(signedHeaders, ";") {
		value := strings.Join(r.Header.Values(name), ",")
		if name == "host" {
			value = r.Host
		}
		canonical += name + ":" + strings.TrimSpace(value) + "\n"
	}
	canonical += "\n" + signedHeaders + "\n" + payload
	key := []byte("AWS4" + secretKey)
	for _, part := range parts {
		key = mac(key, part)
	}
	return hex.EncodeToString(mac(key, fmt.Sprintf("AWS4-HMAC-SHA256\n%s\n%s\n%x", date, scope, sha256.Sum256([]byte(canonical))))), nil
}

func (c *cloud) verifyV4(r *http.Request, body []byte) error {
	m := regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/]+)/([^,]+), SignedHeaders=([^,]+), Signature=(.+)$`).
		FindStringSubmatch(r.Header.Get("Authorization"))
	if m == nil || m[1] != accessKey {
		return fmt.Errorf("authorization %q", r.Header.Get("Authorization"))
	}
	payload := r.Header.Get("X-Amz-Content-Sha256")
	if payload != fmt.Sprintf("%x", sha256.Sum256(body)) {
		return errors.New("the sum is not that of the body")
	}
	for name := range r.Header { // Amazon wants its own headers signed, and the type
		name = strings.ToLower(name)
		if (strings.HasPrefix(name, "x-amz-") || name == "content-type" || name == "host") && !slices.Contains(strings.Split(m[3], ";"), name) {
			return fmt.Errorf("%s is not signed", name)
		}
	}
	if r.Header.Get("X-Amz-Security-Token") != c.token {
		return errors.New("the token is missing")
	}
	if want, err := v4(r, m[2], r.Header.Get("X-Amz-Date"), m[3], r.URL.RawQuery, payload); err != nil || want != m[4] {
		return fmt.Errorf("signature %s, want %s, %v", m[4], want, err)
	}
	return nil
}

func (c *cloud) verifyPresigned(r *http.Request) error {
	q := r.URL.Query()
	at, err := time.Parse("20060102T150405Z", q.Get("X-Amz-Date"))
	life, _ := strconv.Atoi(q.Get("X-Amz-Expires"))
	owner, scope, _ := strings.Cut(q.Get("X-Amz-Credential"), "/")
	if err != nil || time.Now().After(at.Add(time.Duration(life)*time.Second)) || owner != accessKey || q.Get("X-Amz-Security-Token") != c.token {
		return fmt.Errorf("address %s", r.URL)
	}
	var pairs []string
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if !strings.HasPrefix(pair, "X-Amz-Signature=") {
			pairs = append(pairs, pair)
		}
	}
	sort.Strings(pairs)
	want, err := v4(r, scope, q.Get("X-Amz-Date"), q.Get("X-Amz-SignedHeaders"), strings.Join(pairs, "&"), "UNSIGNED-PAYLOAD")
	if err != nil || want != q.Get("X-Amz-Signature") {
		return fmt.Errorf("signature %s, want %s, %v", q.Get("X-Amz-Signature"), want, err)
	}
	return nil
}

func azureMAC(text string) string {
	key, _ := base64.StdEncoding.DecodeString(secretKey)
	return base64.StdEncoding.EncodeToString(mac(key, text))
}

func verifySharedKey(r *http.Request) error {
	length := ""
	if r.ContentLength > 0 {
		length = fmt.Sprint(r.ContentLength)
	}
	text := r.Method + "\n"
	for _, name := range []string{
		"Content-Encoding", "Content-Language", "", "Content-MD5", "Content-Type", "Date", "If-Modified-Since", "If-Match",
		"If-None-Match", "If-Unmodified-Since", "Range",
	} {
		if name == "" {
			text += length + "\n"
			continue
		}
		text += r.Header.Get(name) + "\n"
	}
	var own []string
	for name, values := range r.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-ms-") {
			own = append(own, name+":"+values[0]+"\n")
		}
	}
	sort.Strings(own)
	path, query, _ := strings.Cut(r.RequestURI, "?")
	if query != "" {
		return fmt.Errorf("query %q", query)
	}
	text += strings.Join(own, "") + "/" + accessKey + path
	if at, err := http.ParseTime(r.Header.Get("x-ms-date")); err != nil || time.Since(at).Abs() > 15*time.Minute {
		return fmt.Errorf("date %q", r.Header.Get("x-ms-date"))
	}
	if got, want := r.Header.Get("Authorization"), "SharedKey "+accessKey+":"+azureMAC(text); got != want {
		return fmt.Errorf("authorization %s, want %s", got, want)
	}
	return nil
}

func verifySAS(r *http.Request) error {
	q := r.URL.Query()
	until, err := time.Parse(time.RFC3339, q.Get("se"))
	if err != nil || !time.Now().Before(until) || (r.Method != http.MethodGet && r.Method != http.MethodHead) || q.Get("sp") != "r" {
		return fmt.Errorf("%s %s", r.Method, r.URL)
	}
	want := azureMAC(strings.Join([]string{
		q.Get("sp"), q.Get("st"), q.Get("se"), "/blob/" + accessKey + r.URL.Path, q.Get("si"), q.Get("sip"), q.Get("spr"),
		q.Get("sv"), q.Get("sr"), "", q.Get("ses"), q.Get("rscc"), q.Get("rscd"), q.Get("rsce"), q.Get("rscl"), q.Get("rsct"),
	}, "\n"))
	if q.Get("sig") != want {
		return fmt.Errorf("sig %s, want %s", q.Get("sig"), want)
	}
	return nil
}

// TestAzureSignatures holds signatures against those that Microsoft's own library for Go made of the same.
func TestAzureSignatures(t *testing.T) {
	now := time.Date(2026, 11, 30, 11, 2, 44, 0, time.UTC)
	b, err := openAzure(Options{AccessKey: "acme", SecretKey: secretKey, Bucket: "kyc", Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	a := b.service.(*azure)
	const imported = "uploads/document/upload/7/Паспорт+1.pdf"
	for _, c := range []struct{ method, key, want string }{
		{"PUT", "42/a.jpg", "AamISy82AeNqDZogYhAHqVV6/OxhHx+Z6Ka2BWEHKUU="},
		{"GET", "42/a.jpg", "xDpiq8YWqhGHtDbw42xevg7satBD2Ild+XsExtEN6i4="},
		{"DELETE", "42/a.jpg", "mol96nNQebUWu/oWXu5e33/s6YKDrXzQBwTTDqA2Og4="},
		{"HEAD", "42/a.jpg", "SNm7Bv2z121u8HEWI2TBTgSg9fiqYut4MbFkHijakLo="},
		{"PUT", imported, "lRFCIDhgMLp0wnlOA1unOmMdSJf+lI8ZCdlqAk+4jVc="},
		{"GET", imported, "CL9KS18Z/F5HDWLCJRz7i1W4bWF7WSlyjxB0rcEsJL8="},
		{"DELETE", imported, "Kz4qUiItsx4CpkarJ01oFrMpWjsKIB4Osn+4atOhAM4="},
		{"HEAD", imported, "ugOBSxO9Gqixr4yU0Fp/J1DW89ZJ+Nfx+WzV2EhRuvg="},
	} {
		r := &http.Request{Method: c.method, URL: a.address(c.key), Header: http.Header{
			"X-Ms-Version": {"2026-06-06"}, "X-Ms-Date": {"Mon, 30 Nov 2026 11:02:44 GMT"},
		}}
		if c.method == "PUT" {
			r.ContentLength = 2
			r.Header.Set("Content-Type", "application/octet-stream")
			r.Header["x-ms-blob-type"] = []string{"BlockBlob"} // in any case
		}
		if got := a.mac(a.stringToSign(r)); got != c.want {
			t.Errorf("%s %s: %s, of %q", c.method, c.key, got, a.stringToSign(r))
		}
	}
	now = time.Unix(1_700_000_000, 0)
	address, err := a.presign(t.Context(), imported, time.Minute)
	if want := "https://acme.blob.core.windows.net/kyc/uploads%2Fdocument%2Fupload%2F7%2F%D0%9F%D0%B0%D1%81%D0%BF%D0%BE%D1%80%D1%82+1.pdf" +
		"?se=2023-11-14T22%3A14%3A20Z&sig=Y19CpYy879iS9lKIscmJg0VHqrhH0iD5sp3iNcMw9bY%3D&sp=r&sr=b&sv=2021-12-02"; address != want || err != nil {
		t.Errorf("%s, %v", address, err)
	}
}

// fetch gets what an address hands out, as a browser would.
func fetch(t *testing.T, address string) (int, []byte) {
	t.Helper()
	answer, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, content
}

func TestCloudHandsOut(t *testing.T) {
	stores(t, func(t *testing.T, o Options) {
		if o.Endpoint == "" {
			return // api tests the addresses of the local store
		}
		s := open(t, o)
		f, err := s.Put(t.Context(), 42, "a.jpg", bytes.NewReader(jpg))
		if err != nil {
			t.Fatal(err)
		}
		imported := ImportedKey(7, "Паспорт+1.pdf")
		if err := s.bucket.put(t.Context(), imported, "application/pdf", bytes.NewReader(pdf)); err != nil {
			t.Fatal(err)
		}
		for key, want := range map[string][]byte{f.Key: jpg, imported: pdf} {
			if _, content := read(t, s, key); !bytes.Equal(content, want) {
				t.Errorf("%s: %d bytes", key, len(content))
			}
			if there, err := s.Exists(t.Context(), key); !there || err != nil {
				t.Errorf("%s: %v, %v", key, there, err)
			}
			address := s.URL(key)
			if status, content := fetch(t, address); status != 200 || !bytes.Equal(content, want) {
				t.Errorf("%s: %d, %q", address, status, content)
			}
			u, err := url.Parse(address)
			if err != nil {
				t.Fatal(err)
			}
			other := *u
			other.RawPath, other.Path = "", "/kyc/43/"+strings.Repeat("0", 32)+".jpg"
			longer := *u
			longer.RawQuery = strings.NewReplacer("X-Amz-Expires=60", "X-Amz-Expires=600", "se=20", "se=21").Replace(u.RawQuery)
			for _, forged := range []*url.URL{&other, &longer} {
				if status, _ := fetch(t, forged.String()); status != 403 || forged.String() == address {
					t.Errorf("%s: %d", forged, status)
				}
			}
			if err := s.Delete(t.Context(), key); err != nil {
				t.Error(err)
			}
			if there, err := s.Exists(t.Context(), key); there || err != nil {
				t.Errorf("%s: %v, %v", key, there, err)
			}
		}
	})
}

// TestUploadHeaders holds what a cloud is told of a file, which is what it hands it out with.
func TestUploadHeaders(t *testing.T) {
	for provider, prefix := range map[string]string{AWS: "", Azure: "X-Ms-Blob-"} {
		c := newCloud(t)
		o := options(t)
		o.Provider, o.Endpoint, o.PathStyle, o.Bucket, o.AccessKey, o.SecretKey = provider, c.URL, true, "kyc", accessKey, secretKey
		if _, err := open(t, o).Put(t.Context(), 1, "a.pdf", bytes.NewReader(pdf)); err != nil {
			t.Fatal(err)
		}
		h := c.seen()[0].Header
		for name, want := range map[string]string{
			"Content-Type": "application/pdf", "Content-Disposition": "attachment", "Cache-Control": "private, no-store",
		} {
			if got := h.Get(prefix + name); got != want {
				t.Errorf("%s: %s is %q", provider, name, got)
			}
		}
	}
}

func TestCloudOutages(t *testing.T) {
	for _, provider := range []string{AWS, Azure} {
		c := newCloud(t)
		o := options(t)
		o.Provider, o.Endpoint, o.PathStyle, o.Bucket, o.AccessKey, o.SecretKey = provider, c.URL, true, "kyc", accessKey, secretKey
		s := open(t, o)
		content := append(slices.Clone(pdf), bytes.Repeat([]byte("x"), 4<<20)...)

		c.failNext(1) // passes
		f, err := s.Put(t.Context(), 1, "a.pdf", bytes.NewReader(content))
		if err != nil {
			t.Fatalf("%s: %v", provider, err)
		}
		c.failNext(1)
		if _, got := read(t, s, f.Key); !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes", provider, len(got))
		}
		c.failNext(2) // lasts
		before := len(c.seen())
		if _, err := s.Put(t.Context(), 1, "a.pdf", bytes.NewReader(pdf)); !errors.As(err, new(*fault.Error)) || !strings.Contains(errors.Unwrap(err).Error(), "503") {
			t.Errorf("%s: %v", provider, err)
		}
		if n := len(c.seen()) - before; n != 2 {
			t.Errorf("%s: %d calls", provider, n)
		}
		for bucket, want := range map[string]string{"absent": "NoSuchBucket", "elsewhere": "PermanentRedirect: Not here. (the bucket is in the region eu-south-2)"} {
			o.Bucket = bucket
			_, err := open(t, o).Put(t.Context(), 1, "a.pdf", bytes.NewReader(pdf))
			if !errors.As(err, new(*fault.Error)) || !strings.Contains(errors.Unwrap(err).Error(), want) {
				t.Errorf("%s: %s: %v", provider, bucket, errors.Unwrap(err))
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Delete(ctx, f.Key); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", provider, err)
		}
		o.Bucket, o.SecretKey = "kyc", "b3RoZXI="
		if _, err := open(t, o).Put(t.Context(), 1, "a.pdf", bytes.NewReader(pdf)); err == nil || !strings.Contains(errors.Unwrap(err).Error(), "SignatureDoesNotMatch") {
			t.Errorf("%s: another key: %v", provider, err)
		}
	}
}

// TestAmazonKeys takes the keys from where Amazon's own tools do, when the settings have none.
func TestAmazonKeys(t *testing.T) {
	machine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/keys" {
			fmt.Fprintf(w, `{"AccessKeyId":%q,"SecretAccessKey":%q,"Token":"t2","Expiration":%q}`, accessKey, secretKey,
				time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
			return
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(machine.Close)
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_WEB_IDENTITY_TOKEN_FILE",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
	} {
		t.Setenv(name, "")
	}
	for _, name := range []string{"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"} {
		t.Setenv(name, filepath.Join(t.TempDir(), "absent"))
	}
	for what, c := range map[string]struct {
		environment map[string]string
		token       string
		works       bool
	}{
		"environment": {map[string]string{"AWS_ACCESS_KEY_ID": accessKey, "AWS_SECRET_ACCESS_KEY": secretKey, "AWS_SESSION_TOKEN": "t1"}, "t1", true},
		"machine":     {map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": machine.URL + "/keys"}, "t2", true},
		"nowhere":     {map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": machine.URL + "/none"}, "", false},
	} {
		t.Run(what, func(t *testing.T) {
			for name, value := range c.environment {
				t.Setenv(name, value)
			}
			cloud := newCloud(t)
			cloud.token = c.token
			o := options(t)
			o.Provider, o.Endpoint, o.PathStyle, o.Bucket = AWS, cloud.URL, true, "kyc"
			s := open(t, o)
			f, err := s.Put(t.Context(), 1, "a.pdf", bytes.NewReader(pdf))
			if !c.works {
				if !errors.As(err, new(*fault.Error)) || s.URL("1/"+strings.Repeat("0", 32)+".pdf") != "" || len(cloud.seen()) != 0 {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if status, content := fetch(t, s.URL(f.Key)); status != 200 || !bytes.Equal(content, pdf) {
				t.Errorf("%d, %q", status, content)
			}
		})
	}
}
