package captcha

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/internal/fault"
)

// provider is a stand-in on loopback.
type provider struct {
	*httptest.Server
	mu     sync.Mutex
	path   string
	form   url.Values
	calls  int
	answer http.HandlerFunc
}

func newProvider(t *testing.T) *provider {
	p := &provider{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		p.calls++
		p.path, p.form = r.Method+" "+r.URL.Path, r.Form
		p.answer(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *provider) says(f http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = f
}

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(s)) }
}

func status(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(n)
		w.Write([]byte(`{"success":true}`))
	}
}

func open(t *testing.T, o Options) *Captcha {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// want checks a fault's code and status; 0 is no fault.
func want(t *testing.T, what string, err error, code fault.Code, status int) {
	t.Helper()
	if status == 0 {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return
	}
	var f *fault.Error
	if !errors.As(err, &f) || f.Status != status || len(f.Codes) != 1 || f.Codes[0] != code {
		t.Errorf("%s: %v, want %d %s", what, err, status, code)
	}
}

func TestNonePassesEverything(t *testing.T) {
	c := open(t, Options{Kind: None, SiteKey: "s"})
	for _, response := range []any{nil, "", "x", 7, map[string]any{}} {
		if err := c.Verify(t.Context(), response); err != nil {
			t.Errorf("%v: %v", response, err)
		}
	}
	if c.SiteKey() != "" || c.Kind() != None {
		t.Errorf("%q %q", c.SiteKey(), c.Kind())
	}
}

func TestSiteverify(t *testing.T) {
	p := newProvider(t)
	for _, kind := range []string{ReCaptcha, HCaptcha, Turnstile} {
		c := open(t, Options{Kind: kind, SiteKey: "site", SecretKey: "secret&", VerifyURL: p.URL + "/siteverify", Timeout: 100 * time.Millisecond})
		if c.SiteKey() != "site" || c.Kind() != kind {
			t.Errorf("%q %q", c.SiteKey(), c.Kind())
		}
		p.says(text(`{"success":true,"hostname":"x"}`))
		want(t, "confirmed", c.Verify(t.Context(), "to ken"), "", 0)
		if p.path != "POST /siteverify" || p.form.Get("secret") != "secret&" || p.form.Get("response") != "to ken" || len(p.form) != 2 {
			t.Errorf("%s %v", p.path, p.form)
		}
		want(t, "longest", c.Verify(t.Context(), strings.Repeat("é", 4000)), "", 0)

		before := p.calls
		want(t, "absent", c.Verify(t.Context(), nil), required, 400)
		want(t, "empty", c.Verify(t.Context(), ""), required, 400)
		want(t, "blank", c.Verify(t.Context(), " \t\n"), required, 400)
		want(t, "empty object", c.Verify(t.Context(), map[string]any{}), required, 400)
		want(t, "object", c.Verify(t.Context(), map[string]any{"a": "b"}), failed, 422)
		want(t, "number", c.Verify(t.Context(), 7.0), "invalid", 422)
		want(t, "list", c.Verify(t.Context(), []any{"a"}), "invalid", 422)
		want(t, "too long", c.Verify(t.Context(), strings.Repeat("x", 4001)), failed, 422)
		if p.calls != before {
			t.Error("the provider was asked")
		}

		for what, answer := range map[string]http.HandlerFunc{
			"refused":       text(`{"success":false,"error-codes":["timeout-or-duplicate"]}`),
			"silent":        text(`{}`),
			"text for bool": text(`{"success":"true"}`),
			"null":          text(`null`),
			"no JSON":       text(`true`),
			"empty":         text(``),
			"endless":       text(`{"success":true,"x":"` + strings.Repeat("x", maxAnswer) + `"}`),
			"500":           status(500),
			"redirect":      status(302),
			"hang-up":       func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			"slow":          func(http.ResponseWriter, *http.Request) { time.Sleep(250 * time.Millisecond) },
		} {
			p.says(answer)
			want(t, what, c.Verify(t.Context(), "token"), failed, 422)
		}
	}
	c := open(t, Options{Kind: ReCaptcha, SecretKey: "secret", VerifyURL: p.URL})
	p.says(text(`{"success":true}`))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	want(t, "cancelled", c.Verify(ctx, "token"), failed, 422)
	p.Close()
	want(t, "nobody there", c.Verify(t.Context(), "token"), failed, 422)
}

func TestGeeTest(t *testing.T) {
	p := newProvider(t)
	c := open(t, Options{Kind: GeeTest, GeeTestID: "id", GeeTestKey: "key", VerifyURL: p.URL + "/v3/validate.php", Timeout: 200 * time.Millisecond})
	challenge := strings.Repeat("0f", 17) // two more digits than were given out, as the page sends it
	good := func() map[string]any {
		return map[string]any{
			"geetest_challenge": challenge, "geetest_seccode": "sec|jordan", "geetest_validate": sum("keygeetest" + challenge),
		}
	}
	p.says(text(sum("sec|jordan") + "\n"))
	want(t, "confirmed", c.Verify(t.Context(), good()), "", 0)
	if p.path != "POST /v3/validate.php" || p.form.Get("seccode") != "sec|jordan" || len(p.form) != 1 {
		t.Errorf("%s %v", p.path, p.form)
	}
	before := p.calls
	for _, name := range []string{"geetest_challenge", "geetest_validate", "geetest_seccode"} {
		for _, value := range []any{nil, "", 7.0, []any{}} {
			r := good()
			r[name] = value
			want(t, name, c.Verify(t.Context(), r), mandatoryFields, 400)
		}
		r := good()
		delete(r, name)
		want(t, name, c.Verify(t.Context(), r), mandatoryFields, 400)
		r[name] = strings.Repeat("x", 4001)
		want(t, "long "+name, c.Verify(t.Context(), r), failed, 422)
	}
	want(t, "string", c.Verify(t.Context(), "token"), mandatoryFields, 400)
	want(t, "absent", c.Verify(t.Context(), nil), required, 400)
	r := good()
	r["geetest_validate"] = sum("other" + "geetest" + challenge)
	want(t, "forged", c.Verify(t.Context(), r), failed, 422)
	if p.calls != before {
		t.Error("the provider was asked")
	}
	for what, answer := range map[string]http.HandlerFunc{
		"refused": text("false"), "other": text(sum("other")), "empty": text(""), "404": status(404), "redirect": status(301),
	} {
		p.says(answer)
		want(t, what, c.Verify(t.Context(), good()), failed, 422)
	}
}

func TestRegister(t *testing.T) {
	p := newProvider(t)
	c := open(t, Options{Kind: GeeTest, GeeTestID: "i d", GeeTestKey: "key", VerifyURL: p.URL + "/v3/validate.php"})
	given := strings.Repeat("ab", 16)
	p.says(text(given))
	got, err := c.Register(t.Context())
	if err != nil || got.GT != "i d" || got.Challenge != sum(given+"key") {
		t.Errorf("%+v, %v", got, err)
	}
	if p.path != "GET /v3/register.php" || p.form.Get("gt") != "i d" {
		t.Errorf("%s %v", p.path, p.form)
	}
	for what, answer := range map[string]http.HandlerFunc{
		"unknown id": text("0"), "empty": text(""), "a page": text("<html>"), "500": status(500), "no hex": text(strings.Repeat("x", 32)),
	} {
		p.says(answer)
		_, err := c.Register(t.Context())
		want(t, what, err, fault.Unavailable, 503)
	}
	p.Close()
	_, err = c.Register(t.Context())
	want(t, "nobody there", err, fault.Unavailable, 503)
	_, err = open(t, Options{Kind: None}).Register(t.Context())
	want(t, "no id", err, fault.NotFound, 404)
}

func TestAddresses(t *testing.T) {
	for kind, host := range map[string]string{
		ReCaptcha: "www.google.com", HCaptcha: "api.hcaptcha.com", Turnstile: "challenges.cloudflare.com", GeeTest: "api.geetest.com",
	} {
		c := open(t, Options{Kind: kind, SecretKey: "s", GeeTestID: "i", GeeTestKey: "k"})
		if c.verify.Host != host || c.verify.Scheme != "https" || c.register.String() != "https://api.geetest.com/register.php?gt=i" {
			t.Errorf("%s: %v %v", kind, c.verify, c.register)
		}
	}
	for _, o := range []Options{
		{Kind: ""},
		{Kind: "maths"},
		{Kind: ReCaptcha},
		{Kind: HCaptcha, SiteKey: "s"},
		{Kind: GeeTest, GeeTestID: "i"},
		{Kind: ReCaptcha, SecretKey: "s", VerifyURL: "http://captcha.example/verify"},
		{Kind: ReCaptcha, SecretKey: "s", VerifyURL: "captcha.example"},
		{Kind: ReCaptcha, SecretKey: "s", VerifyURL: "ftp://127.0.0.1/"},
		{Kind: None, VerifyURL: "http://captcha.example/verify"},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}
