package sms

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/internal/crypto/secret"
	"barong/internal/fault"
)

// standIn is a server on loopback that answers as Twilio does.
type standIn struct {
	*httptest.Server
	mu    sync.Mutex
	calls []call
	fail  map[string]int   // number to error code
	odd   http.HandlerFunc // when set, answers everything
}

type call struct {
	path           string
	form           url.Values
	user, password string
}

func newStandIn(t *testing.T) *standIn {
	s := &standIn{fail: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *standIn) serve(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	user, password, _ := r.BasicAuth()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call{r.Method + " " + r.URL.Path, r.PostForm, user, password})
	if s.odd != nil {
		s.odd(w, r)
		return
	}
	answer := func(status int, body map[string]any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(body)
	}
	if code := s.fail[r.PostForm.Get("To")]; code != 0 {
		answer(400, map[string]any{"code": code, "message": "no to " + r.PostForm.Get("To"), "status": 400})
		return
	}
	switch {
	case strings.HasSuffix(r.URL.Path, "/Messages.json"):
		answer(201, map[string]any{"sid": "SM0", "status": "queued", "num_segments": "1", "error_code": nil})
	case strings.HasSuffix(r.URL.Path, "/Verifications"):
		answer(201, map[string]any{"sid": "VE0", "status": "pending", "valid": false})
	case strings.HasSuffix(r.URL.Path, "/VerificationCheck"):
		status := "pending"
		if r.PostForm.Get("Code") == "424242" {
			status = "approved"
		}
		answer(201, map[string]any{"sid": "VE0", "status": status, "valid": status == "approved"})
	case strings.HasSuffix(r.URL.Path, "/Services"):
		answer(201, map[string]any{"sid": "VA123", "friendly_name": r.PostForm.Get("FriendlyName")})
	default:
		answer(404, map[string]any{"code": 20404, "message": "not found", "status": 404})
	}
}

func (s *standIn) last(t *testing.T) call {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.calls) == 0 {
		t.Fatal("no call")
	}
	return s.calls[len(s.calls)-1]
}

func (s *standIn) provider(t *testing.T, o Options) Provider {
	t.Helper()
	o.APIURL, o.AccountSID, o.AuthToken, o.From = s.URL, "AC42", "se-cr:et", "+15005550000"
	o.Template, o.AppName, o.Log = "Your code: {{code}} ({{code}})", "Barong", slog.New(slog.DiscardHandler)
	p, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTwilioSMS(t *testing.T) {
	s := newStandIn(t)
	p := s.provider(t, Options{Kind: TwilioSMS})
	if !p.OwnCodes() {
		t.Error("codes are ours")
	}
	if err := p.Send(t.Context(), "14155552671", "call", "012345"); err != nil {
		t.Fatal(err)
	}
	c := s.last(t)
	if c.path != "POST /2010-04-01/Accounts/AC42/Messages.json" || c.user != "AC42" || c.password != "se-cr:et" ||
		c.form.Get("To") != "+14155552671" || c.form.Get("From") != "+15005550000" ||
		c.form.Get("Body") != "Your code: 012345 (012345)" {
		t.Errorf("%+v", c)
	}
	if _, err := p.Verify(t.Context(), "14155552671", "012345"); err == nil {
		t.Error("it checks codes")
	}
}

func TestTwilioVerify(t *testing.T) {
	s := newStandIn(t)
	p := s.provider(t, Options{Kind: TwilioVerify})
	if c := s.last(t); c.path != "POST /v2/Services" || c.form.Get("FriendlyName") != "Barong" {
		t.Errorf("%+v", c)
	}
	if p.OwnCodes() {
		t.Error("codes are Twilio's")
	}
	if err := p.Send(t.Context(), "14155552671", "call", ""); err != nil {
		t.Fatal(err)
	}
	if c := s.last(t); c.path != "POST /v2/Services/VA123/Verifications" || c.form.Get("To") != "+14155552671" || c.form.Get("Channel") != "call" {
		t.Errorf("%+v", c)
	}
	for code, want := range map[string]bool{"424242": true, "000000": false} {
		if ok, err := p.Verify(t.Context(), "14155552671", code); ok != want || err != nil {
			t.Errorf("%s: %v, %v", code, ok, err)
		}
	}
	if c := s.last(t); c.path != "POST /v2/Services/VA123/VerificationCheck" || c.form.Get("To") != "+14155552671" {
		t.Errorf("%+v", c)
	}
	// What Twilio no longer knows, or will not check any more, is a wrong code.
	for _, code := range []int{20404, 60202} {
		s.fail["+14155552671"] = code
		if ok, err := p.Verify(t.Context(), "14155552671", "424242"); ok || err != nil {
			t.Errorf("%d: %v, %v", code, ok, err)
		}
	}
	s.fail["+14155552671"] = 20003
	if ok, err := p.Verify(t.Context(), "14155552671", "424242"); ok || fault.As(err).Codes[0] != unexpected {
		t.Errorf("%v, %v", ok, err)
	}

	n := len(s.calls)
	s.provider(t, Options{Kind: TwilioVerify, ServiceSID: "VA9"})
	if len(s.calls) != n {
		t.Error("another service was made")
	}
	s.odd = func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("{}")) }
	if _, err := New(t.Context(), Options{Kind: TwilioVerify, AccountSID: "AC42", AuthToken: "x", APIURL: s.URL}); err == nil {
		t.Error("started without a service")
	}
}

func TestTwilioRefusals(t *testing.T) {
	s := newStandIn(t)
	for _, kind := range []string{TwilioSMS, TwilioVerify} {
		p := s.provider(t, Options{Kind: kind, ServiceSID: "VA9"})
		for code, want := range map[int]fault.Code{
			21612: "resource.phone.num_not_reachable", 21614: "resource.phone.num_not_valid",
			21618: "resource.phone.sms_content_invalid", 21610: "resource.phone.unsubscribed_recipient",
			21211: "resource.phone.twilio_unexpected", 60203: "resource.phone.twilio_unexpected",
		} {
			s.fail["+14155552671"] = code
			err := p.Send(t.Context(), "14155552671", "sms", "012345")
			var f *fault.Error
			if !errors.As(err, &f) || f.Status != 422 || len(f.Codes) != 1 || f.Codes[0] != want {
				t.Errorf("%s %d: %v", kind, code, err)
			}
			if strings.Contains(err.Error(), "14155552671") || strings.Contains(err.Error(), "012345") {
				t.Errorf("the error tells too much: %v", err)
			}
		}
	}
}

func TestTwilioTrouble(t *testing.T) {
	s := newStandIn(t)
	p := s.provider(t, Options{Kind: TwilioSMS, Timeout: 50 * time.Millisecond})
	release := make(chan struct{})
	defer close(release)
	check := func(what string, ctx context.Context) {
		t.Helper()
		err := p.Send(ctx, "14155552671", "sms", "012345")
		if f := fault.As(err); f == nil || f.Status != 422 || f.Codes[0] != unexpected || strings.Contains(err.Error(), "012345") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, odd := range map[string]http.HandlerFunc{
		"a page":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502); w.Write([]byte("<html>")) },
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok")) },
		"a redirect": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(302)
		},
		"a hang-up": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"sid":"` + strings.Repeat("x", maxAnswer)))
		},
		"no answer":    func(http.ResponseWriter, *http.Request) { time.Sleep(200 * time.Millisecond) },
		"empty error":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"foreign JSON": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400); w.Write([]byte(`{"code":"x"}`)) },
	} {
		s.mu.Lock()
		s.odd = odd
		s.mu.Unlock()
		check(what, t.Context())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check("cancelled", ctx)
	s.Close()
	check("nobody there", t.Context())
}

func TestMock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "outbox")
	p, err := New(t.Context(), Options{Kind: Mock, Folder: dir, Template: "Код: {{code}}", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if !p.OwnCodes() {
		t.Error("codes are ours")
	}
	if err := p.Send(t.Context(), "447418084106", "sms", "000042"); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	raw, err := os.ReadFile(files[0])
	if err != nil || string(raw) != "To: +447418084106\n\nКод: 000042\n" {
		t.Errorf("%q, %v", raw, err)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := p.Verify(t.Context(), "447418084106", "000042"); err == nil {
		t.Error("it checks codes")
	}
	if err := os.WriteFile(dir+"2", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err = New(t.Context(), Options{Kind: Mock, Folder: dir + "2", Template: "{{code}}"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Send(t.Context(), "447418084106", "sms", "000042"); fault.As(err).Codes[0] != unexpected {
		t.Errorf("no folder: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, o := range []Options{
		{Kind: ""},
		{Kind: "pigeon", Template: "{{code}}"},
		{Kind: Mock, Template: "no code"},
		{Kind: TwilioSMS, Template: "{{code}}"},
		{Kind: TwilioSMS, Template: "{{code}}", AccountSID: "AC42"},
		{Kind: TwilioVerify, AuthToken: "x"},
		{Kind: TwilioSMS, Template: "{{code}}", AccountSID: "AC42", AuthToken: "x", APIURL: "localhost:1"},
	} {
		if _, err := New(t.Context(), o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

func TestCodes(t *testing.T) {
	box, err := secret.New("b3V0Ym94IHRlc3RzIHNlYWwgd2l0aCB0aGlzIGtleSE=")
	if err != nil {
		t.Fatal(err)
	}
	form, seen := regexp.MustCompile(`^[0-9]{6}$`), map[string]bool{}
	for range 200 {
		code := NewCode()
		if !form.MatchString(code) {
			t.Fatalf("code %q", code)
		}
		seen[code] = true
	}
	if len(seen) < 190 {
		t.Errorf("%d different codes of 200", len(seen))
	}
	d := Digest(box, "447418084106", "000042")
	if strings.Contains(d, "42") && strings.Contains(d, "447418084106") {
		t.Errorf("digest %s", d)
	}
	for _, c := range []struct {
		number, code string
		want         bool
	}{
		{"447418084106", "000042", true},
		{"447418084106", "000043", false},
		{"447418084107", "000042", false},
		{"447418084106", "", false},
		{"4474180841060", "00042", false},
	} {
		if got := Matches(box, d, c.number, c.code); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if Matches(box, "", "447418084106", "000042") {
		t.Error("an empty digest fits")
	}
}
