package systemtest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/mail"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
)

// browser is the User-Agent of every client.
const browser = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"

// A reply is what a call got. err is set when there was no answer, as from a server that was killed.
type reply struct {
	status int
	header http.Header
	body   string
	err    error
	took   time.Duration
	last   bool // of its connection
}

func (r reply) String() string { return fmt.Sprintf("%d %s %v", r.status, r.body, r.err) }

// code reports whether the reply is a refusal with this status and code.
func (r reply) code(status int, code string) bool {
	return r.err == nil && r.status == status && r.body == `{"errors":["`+code+`"]}`
}

// wants fails the test unless the reply has that status, and that code if one is given.
func (r reply) wants(t *testing.T, what string, status int, code ...string) reply {
	t.Helper()
	if r.err != nil || r.status != status || len(code) > 0 && !r.code(status, code[0]) {
		t.Fatalf("%s: got %s, want %d %v", what, r, status, code)
	}
	return r
}

// into decodes the reply's body.
func (r reply) into(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), v); err != nil {
		t.Fatalf("%s: %v", r, err)
	}
}

var transport = &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 5 * time.Second}

// A client is one browser or bot, at an address of its own.
type client struct {
	base   string // "http://127.0.0.1:8080"
	api    string // path of the API: the self-gated one, or what a gateway publishes
	ip     string // told by X-Forwarded-For; empty sends none
	cookie string
	csrf   string
	vault  *vault
	http   *http.Client
}

var clients atomic.Int64

// client returns a client of the server.
func (s *server) client() *client { return newClient(s.api, s.vault) }

func newClient(addr string, v *vault) *client {
	n := clients.Add(1)
	return &client{
		base: "http://" + addr, api: "/api/v2/barong", ip: fmt.Sprintf("203.0.%d.%d", n>>8&0xff, n&0xff), vault: v,
		http: &http.Client{Transport: transport, Timeout: patience},
	}
}

// at is the same client, with the same session, at another server.
func (c *client) at(s *server) *client {
	other := *c
	other.base = "http://" + s.api
	return &other
}

// send sends a request to a path of the server. A body of []byte goes out as it is, any other as JSON; headers are
// "Name: value" lines.
func (c *client) send(method, target string, body any, headers ...string) reply {
	var reader io.Reader
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case form:
		reader, kind = bytes.NewReader(b.body), b.kind
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return reply{err: err}
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, c.base+target, reader)
	if err != nil {
		return reply{err: err}
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	req.Header.Set("User-Agent", browser)
	if c.ip != "" {
		req.Header.Set("X-Forwarded-For", c.ip)
	}
	if c.cookie != "" {
		req.Header.Set("Cookie", c.cookie)
	}
	if c.csrf != "" {
		req.Header.Set("X-CSRF-Token", c.csrf)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	begin := time.Now()
	res, err := c.http.Do(req)
	if err != nil {
		return reply{err: err, took: time.Since(begin)}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	for _, cookie := range res.Cookies() {
		if cookie.Value != "" {
			c.cookie = cookie.Name + "=" + c.vault.keep("cookie", cookie.Value)
		}
	}
	if token, ok := strings.CutPrefix(res.Header.Get("Authorization"), "Bearer "); ok {
		c.vault.keep("token", token)
	}
	return reply{status: res.StatusCode, header: res.Header, body: string(b), err: err, took: time.Since(begin), last: res.Close}
}

// call calls the API.
func (c *client) call(method, path string, body any, headers ...string) reply {
	return c.send(method, c.api+path, body, headers...)
}

// check asks, as a gateway does, whether a GET of a path may pass.
func (c *client) check(path string, headers ...string) reply {
	return c.send("GET", "/api/v2/auth"+path, nil, headers...)
}

// account is a path that every member may use.
const account = "/api/v2/peatio/account/balances"

// params are the parameters of a call.
type params map[string]any

// checkPatiently asks again, for a while, when it cannot be told in time: a busy machine may take longer than a check has.
func (c *client) checkPatiently(path string, headers ...string) (r reply) {
	for range 20 {
		if r = c.check(path, headers...); !r.code(503, "authz.unavailable") {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return r
}

// ends waits until a replica that has just let the session pass refuses it: it hears of the end in a moment, not within the answer
// that another gave.
func (c *client) ends(t *testing.T, what string) {
	t.Helper()
	for ended := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		r := c.check(account)
		if r.status != 200 || time.Since(ended) > patience {
			r.wants(t, what, 401, "authz.invalid_session")
			return
		}
	}
}

// keepSession keeps what a call that opened a session has answered.
func (c *client) keepSession(r reply) reply {
	var user struct {
		CSRF string `json:"csrf_token"`
	}
	if r.err == nil && r.status == 201 && json.Unmarshal([]byte(r.body), &user) == nil {
		c.csrf = c.vault.keep("CSRF token", user.CSRF)
	}
	return r
}

func (c *client) signUp(email, password string) reply {
	c.vault.keep("password", password)
	return c.keepSession(c.call("POST", "/identity/users", params{"email": email, "password": password}))
}

func (c *client) signIn(email, password string) reply {
	c.vault.keep("password", password)
	return c.keepSession(c.call("POST", "/identity/sessions", params{"email": email, "password": password}))
}

// admin returns a client of the server that is signed in as the first superadmin.
func (s *server) admin() *client {
	s.t.Helper()
	c := s.client()
	c.signIn(adminEmail, adminPassword).wants(s.t, "the admin's sign-in", 201)
	return c
}

var people atomic.Int64

// member returns a client that has signed up, and its address and password.
func (s *server) member() (c *client, email, password string) {
	s.t.Helper()
	n := people.Add(1)
	c, email, password = s.client(), fmt.Sprintf("member%d@example.com", n), fmt.Sprintf("Yw4-nEk9+%dqZm", n)
	c.signUp(email, password).wants(s.t, "sign-up", 201)
	return c, email, password
}

// An authenticator is the app with somebody's second factor. Each of its codes works once.
type authenticator struct {
	secret string
	last   int64 // step
	vault  *vault
}

// code is a code that was not used yet. It waits when those that the server accepts now are used up.
func (a *authenticator) code(t *testing.T) string {
	t.Helper()
	for {
		now := time.Now().Unix() / 30
		// The code of the step to come is accepted too, unless the clock of this machine stands still until it is sent.
		if step := max(a.last+1, now); step <= now+1 {
			a.last = step
			code, err := totp.GenerateCode(a.secret, time.Unix(step*30, 0))
			if err != nil {
				t.Fatal(err)
			}
			return a.vault.keep("code", code)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// later makes a minute pass for every second factor of an embedded database: codes that were used are accepted again.
func (s *server) later(a *authenticator) {
	s.t.Helper()
	s.write(s.t, "UPDATE totp_keys SET last_step = 1")
	a.last = 0
}

// enable2FA switches the second factor on.
func (c *client) enable2FA(t *testing.T) *authenticator {
	t.Helper()
	var qr struct{ Data struct{ URL string } }
	c.call("POST", "/resource/otp/generate_qrcode", nil).wants(t, "QR code", 201).into(t, &qr)
	u, err := url.Parse(qr.Data.URL)
	if err != nil {
		t.Fatal(err)
	}
	a := &authenticator{secret: c.vault.keep("second factor", u.Query().Get("secret")), vault: c.vault}
	c.call("POST", "/resource/otp/enable", params{"code": a.code(t)}).wants(t, "second factor", 201)
	return a
}

// A key is an API key, whose nonces are never the same.
type key struct {
	KID    string `json:"kid"`
	Secret string `json:"secret"`
	last   atomic.Int64
}

// sign returns the headers of one call.
func (k *key) sign() []string {
	for {
		last := k.last.Load()
		if nonce := max(last+1, time.Now().UnixMilli()); k.last.CompareAndSwap(last, nonce) {
			return signature(k.KID, k.Secret, nonce)
		}
	}
}

func signature(kid, secret string, nonce int64) []string {
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%d%s", nonce, kid)
	return []string{
		"X-Auth-Apikey: " + kid, "X-Auth-Nonce: " + strconv.FormatInt(nonce, 10),
		"X-Auth-Signature: " + hex.EncodeToString(mac.Sum(nil)),
	}
}

// newKey makes an API key.
func (c *client) newKey(t *testing.T, a *authenticator) *key {
	t.Helper()
	k := &key{}
	c.call("POST", "/resource/api_keys", params{"algorithm": "HS256", "totp_code": a.code(t)}).wants(t, "API key", 201).into(t, k)
	c.vault.keep("API key's secret", k.Secret)
	return k
}

// A form is a body of multipart/form-data.
type form struct {
	body []byte
	kind string
}

// newForm makes a form of fields, and of one file named upload[].
func newForm(t *testing.T, fields map[string]string, file string, content []byte) form {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for name, value := range fields {
		if err := w.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	part, err := w.CreateFormFile("upload[]", file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return form{b.Bytes(), w.FormDataContentType()}
}

// A letter is a mail that arrived.
type letter struct{ id, to, subject, text string }

// readLetter reads a mail: its head, and its plain text.
func readLetter(r io.Reader) (letter, error) {
	m, err := mail.ReadMessage(r)
	if err != nil {
		return letter{}, err
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil {
		return letter{}, err
	}
	to, err := mail.ParseAddress(m.Header.Get("To"))
	if err != nil {
		return letter{}, err
	}
	l := letter{id: m.Header.Get("Message-Id"), to: to.Address, subject: subject}
	kind, attributes, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || !strings.HasPrefix(kind, "multipart/") {
		return l, fmt.Errorf("a mail of type %q: %w", kind, err)
	}
	part, err := multipart.NewReader(m.Body, attributes["boundary"]).NextPart() // decodes quoted-printable
	if err != nil {
		return l, err
	}
	text, err := io.ReadAll(part)
	l.text = string(text)
	return l, err
}

// letters are the mails of the server's outbox, oldest first.
func (s *server) letters() []letter {
	s.t.Helper()
	names, err := filepath.Glob(filepath.Join(s.outbox(), "*.eml"))
	if err != nil {
		s.t.Fatal(err)
	}
	slices.Sort(names)
	var out []letter
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			s.t.Fatal(err)
		}
		l, err := readLetter(f)
		f.Close()
		if err != nil {
			s.t.Fatalf("%s: %v", name, err)
		}
		out = append(out, l)
	}
	return out
}

var link = regexp.MustCompile(`https?://\S+`)

// token is the token in a mail's link.
func (l letter) token(t *testing.T, v *vault) string {
	t.Helper()
	u, err := url.Parse(link.FindString(l.text))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range u.Query() {
		if strings.HasSuffix(name, "token") {
			return v.keep("mail token", values[0])
		}
	}
	t.Fatalf("no token in %q", l.text)
	return ""
}
