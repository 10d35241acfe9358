package obs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"barong/authz"
	"barong/internal/crypto/secret"
	"barong/internal/fault"
	"barong/internal/obs"
	"barong/internal/reqid"
)

func TestLogMasksSecretsByName(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		var out bytes.Buffer
		log := obs.NewLog(&out, "debug", format)
		for _, key := range []string{
			"password", "Password", "token", "access_token", "reset-token", "cookie", "Set-Cookie", "authorization", "secret", "client_secret",
			"X-CSRF-Token", "otp_code", "private_key", "admin_password", "X-Auth-Signature", "query",
		} {
			log.Info("message", key, "hunter2")
			log.WithGroup("request").With(key, "hunter2").Warn("message", slog.Group("headers", slog.String(key, "hunter2")))
			log.Error("message", key, []byte("hunter2"))
		}
		log.Info("message", "key", secret.Text("hunter2"), "url", secret.URL("redis://:hunter2@h"))
		if strings.Contains(out.String(), "hunter2") || strings.Contains(out.String(), "aHVudGVyMg") {
			t.Errorf("%s: a secret shows:\n%s", format, out.String())
		}
		out.Reset()
		log.Info("message", "code", "authz.invalid_session", "path", "api/v2/x", "kid", "k1", "token", "")
		for _, want := range []string{"authz.invalid_session", "api/v2/x", "k1"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: %q is masked: %s", format, want, out.String())
			}
		}
		if strings.Contains(out.String(), "***") {
			t.Errorf("%s: nothing secret, and yet masked: %s", format, out.String())
		}
	}
}

func TestLogLevelsAndFormats(t *testing.T) {
	for level, lines := range map[string]int{"debug": 4, "info": 3, "warn": 2, "error": 1} {
		var out bytes.Buffer
		log := obs.NewLog(&out, level, "auto") // no terminal: JSON
		log.Debug("d")
		log.Info("i")
		log.Warn("w")
		log.Error("e")
		got := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(got) != lines {
			t.Errorf("%s: %d lines, want %d", level, len(got), lines)
		}
		for _, line := range got {
			var doc map[string]any
			if err := json.Unmarshal([]byte(line), &doc); err != nil || doc["level"] == nil || doc["time"] == nil || doc["msg"] == nil {
				t.Errorf("%s: %q, %v", level, line, err)
			}
		}
	}
	var out bytes.Buffer
	obs.NewLog(&out, "info", "text").Info("hello", "a", 1)
	if !strings.Contains(out.String(), "msg=hello a=1") {
		t.Errorf("text: %s", out.String())
	}
}

func written(m *obs.Metrics) string {
	var out bytes.Buffer
	m.Write(&out)
	return out.String()
}

func TestChecksAreCounted(t *testing.T) {
	m := obs.NewMetrics()
	m.Observe(authz.EnvoyHTTP, authz.Allow, "", authz.Cookie)
	m.Observe(authz.EnvoyHTTP, authz.Allow, "", authz.Cookie)
	m.Observe(authz.EnvoyGRPC, authz.Pass, "", authz.NoCredential)
	m.Observe(authz.AuthRequest, authz.Deny, "authz.invalid_session", authz.NoCredential)
	m.Observe(authz.SelfGate, authz.Deny, `made"up`, authz.APIKey)
	m.Observe(authz.SelfGate, authz.Deny, "also made up", authz.APIKey)
	m.Observe(authz.Dialect(200), authz.Deny, "", authz.Cookie)
	m.Observe(authz.SelfGate, authz.Effect(200), "", authz.Cookie)
	m.Observe(authz.SelfGate, authz.Deny, "", authz.Credential(200))
	got := written(m)
	for _, want := range []string{
		"# TYPE barong_checks_total counter\n",
		`barong_checks_total{decision="allow",code="",credential="cookie",dialect="envoy_http"} 2` + "\n",
		`barong_checks_total{decision="pass",code="",credential="none",dialect="envoy_grpc"} 1` + "\n",
		`barong_checks_total{decision="deny",code="authz.invalid_session",credential="none",dialect="auth_request"} 1` + "\n",
		`barong_checks_total{decision="deny",code="other",credential="api_key",dialect="self"} 2` + "\n",
		`barong_checks_total{decision="allow",code="",credential="api_key",dialect="forward_auth"} 0` + "\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no line %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "made") {
		t.Error("a code from outside the catalogue made a series")
	}
}

// TestEveryCheckCodeHasItsOwnSeries: "other" is for defects alone.
func TestEveryCheckCodeHasItsOwnSeries(t *testing.T) {
	m := obs.NewMetrics()
	for _, e := range fault.Catalogue() {
		if strings.HasPrefix(string(e.Code), "authz.") {
			m.Observe(authz.EnvoyHTTP, authz.Deny, string(e.Code), authz.Cookie)
			if want := `code="` + string(e.Code) + `"`; !strings.Contains(written(m), want) {
				t.Errorf("no series with %s", want)
			}
		}
	}
}

func TestRoutesGaugesAndText(t *testing.T) {
	m := obs.NewMetrics()
	r := m.Route("GET", "/admin/users/{uid}")
	r.Observe(200, 3*time.Millisecond)
	r.Observe(404, time.Second)
	r.Observe(-7, time.Second)
	depth := 5.0
	m.Gauge("barong_outbox_depth", func() float64 { return depth }, "kind", "mail")
	m.Gauge("barong_outbox_depth", func() float64 { return depth + 1 }, "kind", "mail") // replaces it
	m.Gauge("barong_odd", func() float64 { return 1 }, "label", "a\"b\\c\nd")
	m.Counter("barong_things_total").Inc()
	got := written(m)
	for _, want := range []string{
		`barong_http_requests_total{method="GET",route="/admin/users/{uid}",status="200"} 1`,
		`barong_http_requests_total{method="GET",route="/admin/users/{uid}",status="404"} 1`,
		`barong_http_requests_total{method="GET",route="/admin/users/{uid}",status="0"} 1`,
		`barong_http_request_duration_seconds_bucket{method="GET",route="/admin/users/{uid}",le="0.005"} 1`,
		`barong_http_request_duration_seconds_count{method="GET",route="/admin/users/{uid}"} 3`,
		"# TYPE barong_http_request_duration_seconds histogram",
		`barong_outbox_depth{kind="mail"} 6`,
		`barong_odd{label="a\"b\\c\nd"} 1`,
		"barong_things_total 1",
		"barong_build_info{version=", "# TYPE go_goroutines gauge", "process_resident_memory_bytes",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	line := regexp.MustCompile(`^(# (HELP|TYPE) .*|[a-z_]+(\{([A-Za-z_]+="(\\.|[^"\\])*",? ?)*\})? \S+)$`)
	for text := range strings.Lines(got) {
		if !line.MatchString(strings.TrimSuffix(text, "\n")) {
			t.Errorf("not the text format: %q", text)
		}
	}
}

func TestCountingAtOnce(t *testing.T) {
	m := obs.NewMetrics()
	r := m.Route("GET", "/x")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				m.Observe(authz.EnvoyHTTP, authz.Deny, "authz.csrf_token_mismatch", authz.Cookie)
				r.Observe(422, time.Millisecond)
			}
		})
	}
	for range 20 {
		written(m)
	}
	wg.Wait()
	got := written(m)
	if !strings.Contains(got, `code="authz.csrf_token_mismatch",credential="cookie",dialect="envoy_http"} 8000`) ||
		!strings.Contains(got, `status="422"} 8000`) {
		t.Errorf("counts are lost:\n%s", got)
	}
}

func newOps() *obs.Ops { return obs.NewOps(obs.NewMetrics(), slog.New(slog.DiscardHandler)) }

func get(t *testing.T, h http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

func TestReadiness(t *testing.T) {
	o := newOps()
	var broken, minor error
	o.Part("database", true, func(context.Context) error { return broken })
	o.Part("events", false, func(context.Context) error { return minor })
	for _, c := range []struct {
		name          string
		broken, minor error
		status        int
		want          string
	}{
		{"all well", nil, nil, 200, `{"status":"ready","parts":{"database":{"status":"ok","essential":true},"events":{"status":"ok","essential":false}}}`},
		{"a minor part", nil, errors.New("no broker"), 200, `"events":{"status":"failed","essential":false,"reason":"no broker"}`},
		{"an essential part", errors.New("no database"), nil, 503, `{"status":"not ready","parts":{"database":{"status":"failed","essential":true,"reason":"no database"}`},
		{"well again", nil, nil, 200, `"status":"ready"`},
	} {
		broken, minor = c.broken, c.minor
		w := get(t, o.Handler(), "/readyz")
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s, want %d %s", c.name, w.Code, w.Body, c.status, c.want)
		}
	}
	o.Stopping()
	if w := get(t, o.Handler(), "/readyz"); w.Code != 503 || !strings.Contains(w.Body.String(), `"status":"stopping"`) {
		t.Errorf("stopping: %d %s", w.Code, w.Body)
	}
	if w := get(t, o.Handler(), "/livez"); w.Code != 200 {
		t.Errorf("a process that stops is not alive: %d", w.Code)
	}
}

func TestPartsThatHangOrPanic(t *testing.T) {
	o := newOps()
	release := make(chan struct{})
	var once sync.Once
	defer once.Do(func() { close(release) })
	o.Part("hangs", true, func(context.Context) error { <-release; return nil })
	o.Part("panics", true, func(context.Context) error { panic("oh") })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	s := o.State(ctx)
	if s.Status != "not ready" || s.Parts["hangs"].Reason != "no answer in time" || !strings.Contains(s.Parts["panics"].Reason, "panicked") {
		t.Errorf("%+v", s)
	}
	// However often it is asked, only so many calls hang.
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		s = o.State(ctx)
		cancel()
	}
	if !strings.Contains(s.Parts["hangs"].Reason, "earlier questions") {
		t.Errorf("%+v", s.Parts["hangs"])
	}
	once.Do(func() { close(release) })
	for deadline := time.Now().Add(10 * time.Second); o.State(t.Context()).Parts["hangs"].Status != "ok"; {
		if time.Now().After(deadline) {
			t.Fatal("the part does not recover")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestOpsServes(t *testing.T) {
	o := newOps()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- o.Serve(ctx, ln) }()
	base := "http://" + ln.Addr().String()
	for path, want := range map[string]struct {
		status int
		text   string
	}{
		"/livez":                         {200, "alive"},
		"/readyz":                        {200, "ready"},
		"/metrics":                       {200, "# TYPE barong_checks_total counter"},
		"/debug/pprof/":                  {200, "goroutine"},
		"/debug/pprof/goroutine?debug=1": {200, "goroutine profile"},
		"/debug/pprof/cmdline":           {403, "secrets"},
		"/":                              {404, ""},
		"/api/v2/auth/x":                 {404, ""},
	} {
		resp, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != want.status || !strings.Contains(string(body), want.text) {
			t.Errorf("%s: %d, %v, want %d and %q in\n%.200s", path, resp.StatusCode, err, want.status, want.text, body)
		}
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if err := o.Serve(t.Context(), ln); err == nil {
		t.Error("a closed listener is no error")
	}
}

func TestBuilt(t *testing.T) {
	b := obs.Built()
	if b.Version == "" || b.Commit == "" || !strings.HasPrefix(b.Go, "go1") {
		t.Errorf("%+v", b)
	}
	if _, err := time.Parse(time.RFC3339, b.Date); err != nil {
		t.Errorf("date: %v", err)
	}
	if got := fmt.Sprint(b.Tag); strings.TrimPrefix(got, "v") != b.Version {
		t.Errorf("tag %s, version %s", b.Tag, b.Version)
	}
}

func BenchmarkObserve(b *testing.B) {
	m := obs.NewMetrics()
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			m.Observe(authz.EnvoyHTTP, authz.Deny, "authz.invalid_session", authz.NoCredential)
		}
	})
}

// A store has to answer each time, and to take a write now and then.
func TestStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answers, writes error
		asked, written := 0, 0
		ops := obs.NewOps(obs.NewMetrics(), slog.New(slog.DiscardHandler))
		ops.Store("database", func(context.Context) error { asked++; return answers }, func(context.Context) error { written++; return writes })
		ready := func(want, reason string) {
			t.Helper()
			s := ops.State(t.Context())
			if part := s.Parts["database"]; s.Status != want || !part.Essential || part.Reason != reason {
				t.Errorf("%+v, want %s, %q", s, want, reason)
			}
			time.Sleep(time.Second)
		}
		ready("ready", "")
		writes = errors.New("it is read-only")
		ready("ready", "") // the write of a second ago counts
		answers = errors.New("it is gone")
		ready("not ready", "it is gone")
		answers = nil
		time.Sleep(5 * time.Second)
		ready("not ready", "it is read-only")
		if asked != 4 || written != 2 {
			t.Errorf("asked %d times, written %d times, want 4 and 2", asked, written)
		}
	})
}

// A check that costs something is made at most once in a pause, and for all who ask meanwhile.
func TestAtMostEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		var fault error
		hold := make(chan struct{})
		check := obs.AtMostEvery(5*time.Second, func(ctx context.Context) error {
			if _, ok := ctx.Deadline(); !ok {
				t.Error("the check is not bounded")
			}
			switch n := calls.Add(1); n {
			case 2:
				<-hold
			case 4:
				panic("check")
			}
			return fault
		})
		ask := func(want bool) {
			t.Helper()
			if err := check(t.Context()); (err == nil) != want {
				t.Errorf("call %d: %v", calls.Load(), err)
			}
		}
		ask(true)
		fault = errors.New("read-only")
		ask(true) // what was said last
		time.Sleep(5 * time.Second)
		var group sync.WaitGroup
		for range 10 {
			group.Go(func() { ask(false) })
		}
		impatient, cancel := context.WithCancel(t.Context())
		group.Go(func() {
			if err := check(impatient); !errors.Is(err, context.Canceled) {
				t.Errorf("who gives up is told %v", err)
			}
		})
		synctest.Wait()
		cancel()
		time.Sleep(10 * time.Second) // it is still under way, and made no second time
		group.Go(func() { ask(false) })
		synctest.Wait()
		close(hold)
		group.Wait()
		if n := calls.Load(); n != 2 {
			t.Errorf("%d calls, want 2", n)
		}
		time.Sleep(5 * time.Second)
		fault = nil
		ask(true)
		time.Sleep(5 * time.Second)
		ask(false) // it panicked
		time.Sleep(5 * time.Second)
		ask(true)
	})
}

func TestChecksAreTimed(t *testing.T) {
	m := obs.NewMetrics()
	m.Took(authz.EnvoyHTTP, true, 3*time.Microsecond, 16)
	m.Took(authz.EnvoyHTTP, true, 5*time.Microsecond, 16)
	m.Took(authz.EnvoyHTTP, true, 5001*time.Nanosecond, 16)
	m.Took(authz.EnvoyHTTP, false, time.Hour, 1)
	m.Took(authz.SelfGate, false, -time.Second, 1) // a clock that jumps
	m.Took(authz.Dialect(200), false, time.Second, 1)
	got := written(m)
	for _, want := range []string{
		"# TYPE barong_check_duration_seconds histogram\n",
		`barong_check_duration_seconds_bucket{dialect="envoy_http",warm="true",le="5e-06"} 32` + "\n",
		`barong_check_duration_seconds_bucket{dialect="envoy_http",warm="true",le="1e-05"} 48` + "\n",
		`barong_check_duration_seconds_bucket{dialect="envoy_http",warm="true",le="+Inf"} 48` + "\n",
		`barong_check_duration_seconds_count{dialect="envoy_http",warm="true"} 48` + "\n",
		`barong_check_duration_seconds_bucket{dialect="envoy_http",warm="false",le="2.5"} 0` + "\n",
		`barong_check_duration_seconds_bucket{dialect="envoy_http",warm="false",le="+Inf"} 1` + "\n",
		`barong_check_duration_seconds_sum{dialect="envoy_http",warm="false"} 3600` + "\n",
		`barong_check_duration_seconds_bucket{dialect="self",warm="false",le="5e-06"} 1` + "\n",
		`barong_check_duration_seconds_sum{dialect="self",warm="false"} 0` + "\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no line %q in\n%s", want, got)
		}
	}
}

func TestStoresAndCounterFunctions(t *testing.T) {
	m := obs.NewMetrics()
	s := m.Store("redis", []string{"get", "other"})
	s.Observe("get", 2*time.Millisecond, nil)
	s.Observe("get", 2*time.Millisecond, errors.New("away"))
	s.Observe("made up", time.Second, nil)
	for i, store := range []string{"redis", "postgres", "redis"} {
		m.CounterFunc("barong_pool_waits_total", func() float64 { return float64(i) }, "store", store)
	}
	got := written(m)
	for _, want := range []string{
		`barong_store_call_duration_seconds_bucket{store="redis",operation="get",le="0.0025"} 2` + "\n",
		`barong_store_errors_total{store="redis",operation="get"} 1` + "\n",
		`barong_store_errors_total{store="redis",operation="other"} 0` + "\n",
		"# TYPE barong_pool_waits_total counter\n" + `barong_pool_waits_total{store="postgres"} 1` + "\n" + `barong_pool_waits_total{store="redis"} 2` + "\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no line %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "made up") {
		t.Error("an operation from outside the set made a series")
	}
}

func TestLogNamesTheRequest(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		var out bytes.Buffer
		log := obs.NewLog(&out, "info", format).With("part", "x")
		ctx := reqid.WithTrace(reqid.With(t.Context(), "one"), "two")
		log.InfoContext(ctx, "named")
		log.Info("nameless")
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], "one") || !strings.Contains(lines[0], "two") || !strings.Contains(lines[0], "request_id") ||
			strings.Contains(lines[1], "request_id") || strings.Contains(lines[1], "trace_id") {
			t.Errorf("%s: %q", format, lines)
		}
	}
}
