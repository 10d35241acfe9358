package apitest

import (
	"bytes"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"barong/db"
)

// An Option is a part of a request.
type Option func(t testing.TB, r *request)

type request struct {
	server *Server
	header http.Header
	query  url.Values
	form   [][2]string
	files  []file
	body   []byte
	host   string
	asked  bool // a body was set, if an empty one
}

type file struct{ field, name, contentType, content string }

// As sends a gateway token of u.
func As(u *db.User) Option {
	return func(t testing.TB, r *request) { r.header.Set("Authorization", "Bearer "+r.server.token(t, u)) }
}

// Token sends a bearer token.
func Token(text string) Option { return Header("Authorization", "Bearer "+text) }

// Header sets a request header; Host sets the host.
func Header(name, value string) Option {
	return func(_ testing.TB, r *request) {
		if http.CanonicalHeaderKey(name) == "Host" {
			r.host = value
			return
		}
		r.header.Set(name, value)
	}
}

// IP lets the request come from an address.
func IP(addr string) Option { return Header("X-Real-Ip", addr) }

// HTTPS lets the request come over https.
func HTTPS() Option { return Header("X-Https", "on") }

// Query adds query parameters, given as name, value, name, value ...
func Query(pairs ...string) Option {
	return func(_ testing.TB, r *request) {
		for p := range slices.Chunk(pairs, 2) {
			r.query.Add(p[0], p[1])
		}
	}
}

// Form adds form parameters, given as name, value, name, value ... Together with File they make a multipart body.
func Form(pairs ...string) Option {
	return func(_ testing.TB, r *request) {
		r.asked = true
		for p := range slices.Chunk(pairs, 2) {
			r.form = append(r.form, [2]string{p[0], p[1]})
		}
	}
}

// File adds an uploaded file.
func File(field, name, contentType, content string) Option {
	return func(_ testing.TB, r *request) { r.files = append(r.files, file{field, name, contentType, content}) }
}

// JSON sends v as a JSON body.
func JSON(v any) Option {
	return func(t testing.TB, r *request) {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		Body("application/json", string(b))(t, r)
	}
}

// Body sends text as it is; an empty content type sends none.
func Body(contentType, text string) Option {
	return func(_ testing.TB, r *request) {
		r.body, r.asked = []byte(text), true
		if contentType != "" {
			r.header.Set("Content-Type", contentType)
		}
	}
}

// Cookie sends a cookie.
func Cookie(name, value string) Option {
	return func(_ testing.TB, r *request) { r.header.Add("Cookie", name+"="+value) }
}

// Encode is the body that options make, with its content type: for calls that are made without Do.
func Encode(t testing.TB, options ...Option) (contentType string, body []byte) {
	t.Helper()
	r := &request{header: http.Header{}, query: url.Values{}}
	for _, o := range options {
		o(t, r)
	}
	r.encode(t)
	return r.header.Get("Content-Type"), r.body
}

// An Answer is what a call got.
type Answer struct {
	Status int
	Header http.Header
	Body   string

	asked string // "POST /identity/users"
}

// transport keeps no connection beyond its use for long, and follows nothing.
var transport = &http.Client{
	Transport:     &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Second, DisableCompression: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Timeout:       time.Minute,
}

// Do calls a path below /api/v2, or a whole one when it begins with /api/, as a browser with a User-Agent would.
func (s *Server) Do(t testing.TB, method, path string, options ...Option) *Answer {
	t.Helper()
	r := &request{server: s, header: http.Header{"User-Agent": {UserAgent}}, query: url.Values{}}
	for _, o := range options {
		o(t, r)
	}
	r.encode(t)
	target := s.URL
	if !strings.HasPrefix(path, "/api/") && !strings.HasPrefix(path, "/.well-known/") {
		target += "/api/v2"
	}
	target += path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	var body io.Reader
	if r.asked {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, target, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = r.header
	if r.host != "" {
		req.Host = r.host
	}
	res, err := transport.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: read: %v", method, path, err)
	}
	a := &Answer{Status: res.StatusCode, Header: res.Header, Body: string(text), asked: method + " " + path}
	if r := s.note(method, strings.SplitN(path, "?", 2)[0], a); r != nil && r.Summary != "" { // a route that describes itself
		s.contract.check(t, r, method, a)
	}
	if a.Status >= 500 {
		t.Logf("%s answered %d %s", a.asked, a.Status, a.Body)
	}
	return a
}

// UserAgent is the browser that Do pretends to be.
const UserAgent = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"

func (r *request) encode(t testing.TB) {
	t.Helper()
	switch {
	case len(r.files) > 0:
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		for _, p := range r.form {
			if err := w.WriteField(p[0], p[1]); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range r.files {
			h := textproto.MIMEHeader{}
			h.Set("Content-Disposition", multipart.FileContentDisposition(f.field, f.name))
			h.Set("Content-Type", f.contentType)
			part, err := w.CreatePart(h)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(part, f.content); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		r.header.Set("Content-Type", w.FormDataContentType())
		r.body, r.asked = b.Bytes(), true
	case r.form != nil || r.asked && r.body == nil:
		var parts []string
		for _, p := range r.form {
			parts = append(parts, url.QueryEscape(p[0])+"="+url.QueryEscape(p[1]))
		}
		r.header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.body, r.asked = []byte(strings.Join(parts, "&")), true
	}
}

// Get is Do with that method, as are Post, Put, Patch and Delete.
func (s *Server) Get(t testing.TB, path string, options ...Option) *Answer {
	t.Helper()
	return s.Do(t, http.MethodGet, path, options...)
}

// Post is Do with POST.
func (s *Server) Post(t testing.TB, path string, options ...Option) *Answer {
	t.Helper()
	return s.Do(t, http.MethodPost, path, options...)
}

// Put is Do with PUT.
func (s *Server) Put(t testing.TB, path string, options ...Option) *Answer {
	t.Helper()
	return s.Do(t, http.MethodPut, path, options...)
}

// Patch is Do with PATCH.
func (s *Server) Patch(t testing.TB, path string, options ...Option) *Answer {
	t.Helper()
	return s.Do(t, http.MethodPatch, path, options...)
}

// Delete is Do with DELETE.
func (s *Server) Delete(t testing.TB, path string, options ...Option) *Answer {
	t.Helper()
	return s.Do(t, http.MethodDelete, path, options...)
}

// Codes are the error codes of the answer in their order, or nil.
func (a *Answer) Codes() []string {
	var body struct {
		Errors []string `json:"errors"`
	}
	if json.Unmarshal([]byte(a.Body), &body) != nil {
		return nil
	}
	return body.Errors
}

// Want fails the test unless the answer has this status and exactly these error codes (none: no errors at all).
func (a *Answer) Want(t testing.TB, status int, codes ...string) *Answer {
	t.Helper()
	if a.Status != status || !slices.Equal(a.Codes(), codes) {
		t.Fatalf("%s: got %d %s, want %d %q", a.asked, a.Status, a.Body, status, codes)
	}
	if a.Body != "" && strings.HasPrefix(a.Body, "{") && a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s: content type %q", a.asked, a.Header.Get("Content-Type"))
	}
	return a
}

// WantBody fails the test unless the answer has this status and body, byte for byte.
func (a *Answer) WantBody(t testing.TB, status int, body string) *Answer {
	t.Helper()
	if a.Status != status || a.Body != body {
		t.Fatalf("%s: got %d %s, want %d %s", a.asked, a.Status, a.Body, status, body)
	}
	return a
}

// Decode reads the body into v.
func (a *Answer) Decode(t testing.TB, v any) *Answer {
	t.Helper()
	if err := json.Unmarshal([]byte(a.Body), v); err != nil {
		t.Fatalf("%s: %v in %s", a.asked, err, a.Body)
	}
	return a
}

// Object is the body as an object; numbers are float64.
func (a *Answer) Object(t testing.TB) map[string]any {
	t.Helper()
	var v map[string]any
	a.Decode(t, &v)
	return v
}

// List is the body as a list of objects.
func (a *Answer) List(t testing.TB) []map[string]any {
	t.Helper()
	var v []map[string]any
	a.Decode(t, &v)
	return v
}

// Keys are the keys of the body's object in the order in which they stand there.
func (a *Answer) Keys(t testing.TB) []string {
	t.Helper()
	return ObjectKeys(t, a.Body)
}

// ObjectKeys are the keys of a JSON object in the order in which they stand there.
func ObjectKeys(t testing.TB, text string) []string {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		t.Fatalf("no object: %s", text)
	}
	var out []string
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			t.Fatal(err)
		}
		out = append(out, key.(string))
	}
	return out
}

// SetCookie finds a cookie that the answer sets, or nil.
func (a *Answer) SetCookie(name string) *http.Cookie {
	res := http.Response{Header: a.Header}
	for _, c := range res.Cookies() {
		if c.Name == name {
			return c
		}
	}
	return nil
}
