// Package captcha asks a provider whether a person sits at the other end.
//
// Errors are faults: identity.captcha.required and .mandatory_fields, 400, for a response that is not there or not whole,
// identity.captcha.verification_failed, 422, for one that the provider does not confirm. That the provider cannot be
// reached is a failed verification too; the log tells it apart by the cause.
package captcha

import (
	"context"
	"crypto/md5" // what GeeTest version 3 is made of; see geetest
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"barong/internal/fault"
	"barong/internal/patience"
	"barong/internal/trusted"
)

// Kinds of captcha.
const (
	None      = "none"
	ReCaptcha = "recaptcha" // version 2
	HCaptcha  = "hcaptcha"
	Turnstile = "turnstile"
	GeeTest   = "geetest" // version 3, online
)

// Codes of a refusal.
const (
	required        fault.Code = "identity.captcha.required"
	mandatoryFields fault.Code = "identity.captcha.mandatory_fields"
	failed          fault.Code = "identity.captcha.verification_failed"
)

// Options are what New needs.
type Options struct {
	Kind               string
	SiteKey, SecretKey string // of the kind in use, but for GeeTest
	GeeTestID          string // used by Register whatever the kind
	GeeTestKey         string
	// VerifyURL replaces the provider's address of verification. It must be https, or lead to this machine. GeeTest's
	// register.php is looked for beside it.
	VerifyURL string
	Timeout   time.Duration // of a call; default 3 s
}

// A Captcha verifies responses. It is immutable, a Replaceable one apart, and safe for concurrent use.
type Captcha struct {
	o        Options
	verify   *url.URL // nil with None
	register *url.URL // GeeTest's
	http     *http.Client

	now *atomic.Pointer[Captcha] // of one that is replaced: what it is now
}

// Replaceable returns a captcha that Replace may make another of while it is in use.
func (c *Captcha) Replaceable() *Captcha {
	r := &Captcha{now: new(atomic.Pointer[Captcha])}
	r.now.Store(c)
	return r
}

// Replace makes another of a captcha that comes from Replaceable.
func (c *Captcha) Replace(other *Captcha) { c.now.Store(other) }

// current is the captcha itself, or what it was replaced by last.
func (c *Captcha) current() *Captcha {
	if c.now != nil {
		return c.now.Load()
	}
	return c
}

var verifyURLs = map[string]string{
	ReCaptcha: "https://www.google.com/recaptcha/api/siteverify",
	HCaptcha:  "https://api.hcaptcha.com/siteverify",
	Turnstile: "https://challenges.cloudflare.com/turnstile/v0/siteverify",
	GeeTest:   "https://api.geetest.com/validate.php",
}

const (
	maxResponse = 4000    // characters
	maxAnswer   = 1 << 16 // bytes
)

// New checks the settings. It calls nobody.
func New(o Options) (*Captcha, error) {
	c := &Captcha{o: o}
	switch o.Kind {
	case None:
	case GeeTest:
		if o.GeeTestID == "" || o.GeeTestKey == "" {
			return nil, fmt.Errorf("captcha: %s needs an id and a key", o.Kind)
		}
	case ReCaptcha, HCaptcha, Turnstile:
		if o.SecretKey == "" {
			return nil, fmt.Errorf("captcha: %s needs a secret key", o.Kind)
		}
	default:
		return nil, fmt.Errorf("captcha: no provider %q", o.Kind)
	}
	for _, a := range []struct {
		to   **url.URL
		kind string
	}{{&c.verify, o.Kind}, {&c.register, GeeTest}} {
		address := verifyURLs[a.kind]
		if o.VerifyURL != "" && (a.kind == o.Kind || o.Kind == None) {
			address = o.VerifyURL
		}
		if address == "" {
			continue
		}
		u, err := url.Parse(address)
		if err != nil || u.Host == "" || (u.Scheme != "https" && (u.Scheme != "http" || !trusted.Loopback(u.Hostname()))) {
			return nil, errors.New("captcha: the address to verify at is no https address")
		}
		*a.to = u
	}
	c.register = c.register.ResolveReference(&url.URL{Path: "register.php", RawQuery: url.Values{"gt": {o.GeeTestID}}.Encode()})
	timeout := o.Timeout
	if timeout <= 0 {
		timeout = 3 * time.Second
	}
	c.http = &http.Client{
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Kind is the kind in use.
func (c *Captcha) Kind() string { return c.current().o.Kind }

// SiteKey is what a page needs to show the captcha; empty for None and GeeTest.
func (c *Captcha) SiteKey() string {
	c = c.current()
	switch c.o.Kind {
	case ReCaptcha, HCaptcha, Turnstile:
		return c.o.SiteKey
	}
	return ""
}

// Verify checks the captcha_response of a request: a string, or for GeeTest a map[string]any. nil is an absent one. With
// None everything passes.
func (c *Captcha) Verify(ctx context.Context, response any) error {
	c = c.current()
	if c.o.Kind == None {
		return nil
	}
	defer patience.Outside(ctx)()
	switch r := response.(type) {
	case nil:
		return fault.New(required)
	case string:
		if strings.TrimSpace(r) == "" {
			return fault.New(required)
		}
	case map[string]any:
		if len(r) == 0 {
			return fault.New(required)
		}
	default:
		return fault.New("invalid")
	}
	var err error
	if c.o.Kind == GeeTest {
		err = c.geetest(ctx, response)
	} else {
		err = c.siteverify(ctx, response)
	}
	var f *fault.Error
	if err != nil && !errors.As(err, &f) {
		return fault.New(failed).Because(err)
	}
	return err
}

// siteverify is the call that reCAPTCHA introduced and the others took over.
func (c *Captcha) siteverify(ctx context.Context, response any) error {
	token, ok := response.(string)
	if !ok {
		return errors.New("the response is no string")
	}
	if utf8.RuneCountInString(token) > maxResponse {
		return errors.New("the response is too long")
	}
	body, err := c.post(ctx, c.verify, url.Values{"secret": {c.o.SecretKey}, "response": {token}})
	if err != nil {
		return err
	}
	var answer struct {
		Success bool     `json:"success"`
		Errors  []string `json:"error-codes"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return errors.New("the provider's answer is not readable")
	}
	if !answer.Success {
		return fmt.Errorf("not confirmed: %.200s", strings.Join(answer.Errors, ", "))
	}
	return nil
}

// geetest checks a response of GeeTest's version 3. Its sums are MD5 because the provider's are; what they protect is a
// challenge of minutes.
func (c *Captcha) geetest(ctx context.Context, response any) error {
	fields, _ := response.(map[string]any)
	var challenge, validate, seccode string
	for name, to := range map[string]*string{
		"geetest_challenge": &challenge, "geetest_validate": &validate, "geetest_seccode": &seccode,
	} {
		text, ok := fields[name].(string)
		if !ok || text == "" {
			return fault.New(mandatoryFields)
		}
		if len(text) > maxResponse {
			return errors.New("the response is too long")
		}
		*to = text
	}
	if !same(validate, sum(c.o.GeeTestKey+"geetest"+challenge)) {
		return errors.New("geetest_validate does not fit the challenge")
	}
	body, err := c.post(ctx, c.verify, url.Values{"seccode": {seccode}})
	if err != nil {
		return err
	}
	if !same(strings.TrimSpace(string(body)), sum(seccode)) {
		return errors.New("not confirmed")
	}
	return nil
}

// A Registration begins a captcha of GeeTest's.
type Registration struct {
	GT        string `json:"gt"`        // the provider's id of this application
	Challenge string `json:"challenge"` // 32 hexadecimal digits
}

// Registers reports whether Register has somebody to ask.
func (c *Captcha) Registers() bool {
	c = c.current()
	return c.o.GeeTestID != "" && c.o.GeeTestKey != ""
}

// Register fetches the challenge of a new captcha of GeeTest's, whatever the kind in use: 404 when no id of GeeTest's is
// set, 503 when GeeTest does not answer.
func (c *Captcha) Register(ctx context.Context) (Registration, error) {
	c = c.current()
	defer patience.Outside(ctx)()
	if !c.Registers() {
		return Registration{}, fault.New(fault.NotFound)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.register.String(), nil)
	if err != nil {
		return Registration{}, err
	}
	body, err := c.do(r)
	if err != nil {
		return Registration{}, fault.New(fault.Unavailable).Because(err)
	}
	challenge := strings.TrimSpace(string(body))
	if raw, err := hex.DecodeString(challenge); err != nil || len(raw) != md5.Size {
		return Registration{}, fault.New(fault.Unavailable).Because(errors.New("GeeTest sent no challenge"))
	}
	return Registration{GT: c.o.GeeTestID, Challenge: sum(challenge + c.o.GeeTestKey)}, nil
}

func sum(text string) string {
	s := md5.Sum([]byte(text))
	return hex.EncodeToString(s[:])
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func (c *Captcha) post(ctx context.Context, u *url.URL, form url.Values) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return c.do(r)
}

func (c *Captcha) do(r *http.Request) ([]byte, error) {
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the provider answers %d", answer.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = errors.New("the provider's answer is too long")
	}
	return body, err
}
