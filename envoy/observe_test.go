package envoy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/authz"
	"barong/envoy"
	"barong/internal/obs"
	"barong/internal/reqid"
)

// asTheyAsk are requests of each dialect for one target, with headers of the client's.
var asTheyAsk = map[string]func(headers ...string) string{
	"ext_authz": func(headers ...string) string {
		return request("GET", "/api/v2/auth/orders?token=s3cret", "", headers...)
	},
	"forward_auth": func(headers ...string) string {
		return request("GET", "/api/v2/forward-auth", "", append(headers, "X-Forwarded-Method: GET", "X-Forwarded-Uri: /orders?token=s3cret")...)
	},
	"auth_request": func(headers ...string) string {
		return request("GET", "/api/v2/auth-request", "", append(headers, "X-Original-Method: GET", "X-Original-URI: /orders?token=s3cret")...)
	},
}

var turnedAway = authz.Decision{Status: 401, Code: "authz.invalid_session", Path: "orders"}

// A refusal carries the name of its request: the one that came, or one that was made, and the decision knows the same.
func TestRefusalsCarryTheNameOfTheirRequest(t *testing.T) {
	var known string
	checker := &script{check: func(ctx context.Context, _ *authz.Request, d *authz.Decision) {
		known = reqid.From(ctx)
		*d = turnedAway
	}}
	addr := checks(t, envoy.Options{Checker: checker})
	for name, wire := range asTheyAsk {
		for sent, want := range map[string]string{
			"X-Request-Id: 0c3a3f4e-1d0f": "0c3a3f4e-1d0f", "x-request-id: Root=1-67;x": "", "X-Request-Id: <a>": "", "Accept: */*": "",
			"X-Request-Id: " + strings.Repeat("x", reqid.MaxLen+1): "",
		} {
			r, _ := raw(t, addr, wire(sent))
			got := r.Header.Values(reqid.Header)
			if r.Status != 401 || len(got) != 1 || got[0] != known || want != "" && got[0] != want || want == "" && len(got[0]) != reqid.MadeLen {
				t.Errorf("%s, %q: status %d, %q, the decision knew %q", name, sent, r.Status, got, known)
			}
		}
	}
	if r := get(t, checks(t, envoy.Options{Checker: says(allow)}), "/api/v2/auth/orders", "X-Request-Id: one"); len(r.Header.Values(reqid.Header)) != 0 {
		t.Errorf("an allowed check answers %v", r.Header)
	}
}

// The access log has the share of checks that it was told, with nothing that is secret.
func TestAccessLog(t *testing.T) {
	secrets := []string{
		"X-Request-Id: one", "Cookie: _barong_session=s3cret", "Authorization: Bearer s3cret", "X-CSRF-Token: s3cret",
		"X-Auth-Apikey: s3cret", "X-Auth-Signature: s3cret", "User-Agent: s3cret",
	}
	for share, bounds := range map[float64][2]int{0: {0, 0}, 1: {300, 300}, 0.5: {75, 225}} {
		var out syncBuffer
		addr := checks(t, envoy.Options{Checker: says(turnedAway), AccessLog: share, Log: obs.NewLog(&out, "info", "json")})
		for range 100 {
			for _, wire := range asTheyAsk {
				raw(t, addr, wire(secrets...))
			}
		}
		lines := out.lines()
		if len(lines) < bounds[0] || len(lines) > bounds[1] {
			t.Errorf("share %v: %d lines of 300", share, len(lines))
		}
		for _, line := range lines {
			var l struct {
				Level, Msg, Path, Code, Method, Dialect string
				Status                                  int
				RequestID                               string `json:"request_id"`
				Seconds                                 float64
			}
			if err := json.Unmarshal([]byte(line), &l); err != nil || l.Msg != "check" || l.Level != "INFO" || l.Path != "orders" || l.Status != 401 ||
				l.Code != "authz.invalid_session" || l.RequestID != "one" || l.Dialect == "" || l.Seconds <= 0 || strings.Contains(line, "s3cret") {
				t.Fatalf("%v: %s", err, line)
			}
		}
	}
}

type syncBuffer struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.Write(p)
}

func (b *syncBuffer) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(strings.Split(b.out.String(), "\n"), func(l string) bool { return l == "" })
}

// spans is a Tracer that remembers.
type spans struct {
	mu      sync.Mutex
	parents []string
	decided []string
}

type spanKey struct{}

func (s *spans) Check(ctx context.Context, parent []byte) (context.Context, envoy.Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parents = append(s.parents, string(parent))
	return reqid.WithTrace(context.WithValue(ctx, spanKey{}, s), "4bf92f35"), s
}

func (s *spans) Decided(r *authz.Request, d *authz.Decision, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.decided = append(s.decided, r.Dialect.String()+" "+d.Code+" "+id)
}

// The span of a check has the parent that a trusted gateway names, reaches the stores, and is in the log.
func TestChecksAreTraced(t *testing.T) {
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for name, trusted := range map[string]bool{"trusted": true, "stranger": false} {
		var s spans
		var out syncBuffer
		reached := false
		checker := &script{check: func(ctx context.Context, _ *authz.Request, d *authz.Decision) {
			under, cancel := context.WithTimeout(ctx, time.Minute) // as stores do
			defer cancel()
			reached = under.Value(spanKey{}) == &s && reqid.From(under) == "one"
			*d = turnedAway
		}}
		o := envoy.Options{Checker: checker, Tracer: &s, AccessLog: 1, Log: obs.NewLog(&out, "info", "json"), Trusted: everyone}
		if !trusted {
			o.Trusted = nobody
		}
		r := get(t, checks(t, o), "/api/v2/auth/orders", "Traceparent: "+parent, "X-Request-Id: one")
		want := parent
		if !trusted {
			want = ""
		}
		if r.Status != http.StatusUnauthorized || !reached || !slices.Equal(s.parents, []string{want}) ||
			!slices.Equal(s.decided, []string{"envoy_http authz.invalid_session one"}) {
			t.Errorf("%s: %d, reached %v, parents %q, spans %q", name, r.Status, reached, s.parents, s.decided)
		}
		if l := out.lines(); len(l) != 1 || !strings.Contains(l[0], `"trace_id":"4bf92f35"`) || !strings.Contains(l[0], `"request_id":"one"`) {
			t.Errorf("%s: log %q", name, l)
		}
	}
}

// times is an Observer of durations.
type times struct {
	observed
	mu         sync.Mutex
	warm, cold uint64
	longest    time.Duration
}

func (o *times) Took(_ authz.Dialect, warm bool, took time.Duration, checks uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if warm {
		o.warm += checks
	} else {
		o.cold += checks
		o.longest = max(o.longest, took)
	}
}

// Every check that waited for something is timed, and of the others one in TimedOf, for all of them.
func TestChecksAreTimed(t *testing.T) {
	const waits = 20 * time.Millisecond
	var o times
	checker := &script{check: func(ctx context.Context, r *authz.Request, d *authz.Decision) {
		if strings.HasPrefix(r.Target, "/cold") {
			<-ctx.Done() // as one that asks a store
		}
		*d = allow
	}}
	h := envoy.New(envoy.Options{Checker: checker, Trusted: everyone, Observer: &o, Timeout: waits})
	ctx := prepared(t, request("GET", "/api/v2/auth/warm", ""))
	const n = 200 * envoy.TimedOf
	for range n {
		ctx.Response.Reset()
		h.ServeChecks(ctx)
	}
	// Which of them is timed is a matter of chance where tasks do not last.
	if o.cold != 0 || o.warm < n/2 || o.warm > 2*n {
		t.Errorf("of %d warm checks %d were told of as warm, and %d as cold", n, o.warm, o.cold)
	}
	cold := prepared(t, request("GET", "/api/v2/auth/cold", ""))
	for range 3 {
		cold.Response.Reset()
		h.ServeChecks(cold)
	}
	if o.cold != 3 || o.longest < waits {
		t.Errorf("3 cold checks: %d, the longest %v", o.cold, o.longest)
	}
}
