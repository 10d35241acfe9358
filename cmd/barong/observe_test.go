package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"barong/internal/test/testkit"
)

// TestOneNameForARequest: what a refused call is named by its gateway stands in its answer, the log, the audit trail and
// its trace, which goes on into the stores.
func TestOneNameForARequest(t *testing.T) {
	var mu sync.Mutex
	spans := map[string][]string{} // names by trace
	named := map[string]string{}   // request ids by trace
	sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m collector.ExportTraceServiceRequest
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = proto.Unmarshal(body, &m)
		}
		if err != nil || r.Header.Get("X-Collector-Token") != "s3cret" {
			t.Errorf("collector: %v, headers %v", err, r.Header)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, resource := range m.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				for _, s := range scope.Spans {
					trace := fmt.Sprintf("%x", s.TraceId)
					spans[trace] = append(spans[trace], s.Name)
					for _, a := range s.Attributes {
						if a.Key == "barong.request_id" {
							named[trace] = a.Value.GetStringValue()
						}
					}
				}
			}
		}
	}))
	defer sink.Close()

	dir := t.TempDir()
	api, ops := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	env := []string{
		"BARONG_HTTP_ADDR=" + api, "BARONG_OPS_ADDR=" + ops, "BARONG_GRPC_ADDR=", "BARONG_JWT_ALGORITHM=EdDSA",
		"ADMIN_EMAIL=root@b.test", "ADMIN_PASSWORD=Tr0ub4dor&3xyz", "BARONG_DATABASE_URL=sqlite://" + filepath.Join(dir, "barong.db"),
		"BARONG_ACCESS_LOG=1", "BARONG_CSRF_PROTECTION=false",
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + sink.URL, "OTEL_EXPORTER_OTLP_HEADERS=X-Collector-Token=s3cret", "OTEL_BSP_SCHEDULE_DELAY=50",
	}
	p := testkit.Start(t, testkit.Barong(t), []string{"serve"}, env, testkit.Answers("http://"+ops+"/readyz"))
	call := func(method, path, body string, headers ...string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+api+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		for i := 0; i+1 < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	parent := func(trace string) string { return "00-" + trace + "-00f067aa0ba902b7-01" }

	signIn := call("POST", "/api/v2/identity/sessions", `{"email":"root@b.test","password":"Tr0ub4dor&3xyz"}`, "X-Request-Id", "sign-in-1")
	if signIn.StatusCode != 200 && signIn.StatusCode != 201 || signIn.Header.Get("X-Request-Id") != "sign-in-1" || len(signIn.Cookies()) != 1 {
		t.Fatalf("sign-in: %d %v", signIn.StatusCode, signIn.Header)
	}
	signUp := call("POST", "/api/v2/identity/users", `{"email":"m@b.test","password":"Tr0ub4dor&3xyz"}`)
	if signUp.StatusCode != 201 || len(signUp.Cookies()) != 1 {
		t.Fatalf("sign-up: %d %v", signUp.StatusCode, signUp.Header)
	}
	cookie := signUp.Cookies()[0].Name + "=" + signUp.Cookies()[0].Value
	// A check that reads the session from the store, is refused by the rules and recorded.
	check := call("POST", "/api/v2/auth/api/v2/nowhere", "", "X-Request-Id", "check-1", "Traceparent", parent(trace), "Cookie", cookie, "User-Agent", "Go-http-client/1.1")
	if check.StatusCode != 401 || check.Header.Get("X-Request-Id") != "check-1" {
		t.Fatalf("check: %d %v", check.StatusCode, check.Header)
	}
	// A call through the gate of its own, which has one name for both.
	gated := call("GET", "/api/v2/barong/resource/users/me", "", "Cookie", cookie, "User-Agent", "Go-http-client/1.1")
	if made := gated.Header.Get("X-Request-Id"); gated.StatusCode != 200 || len(made) != 32 {
		t.Errorf("gated call: %d %v", gated.StatusCode, gated.Header)
	}
	if r := call("GET", "/api/v2/barong/resource/users/me", "", "X-Request-Id", "gate-1"); r.StatusCode != 401 || r.Header.Get("X-Request-Id") != "gate-1" {
		t.Errorf("call that the gate refuses: %d %v", r.StatusCode, r.Header)
	}

	var rows []string
	out := strings.Builder{}
	for _, line := range exported(t, dir, env) {
		fmt.Fprintln(&out, line)
		var row struct {
			Action    string
			RequestID string `json:"request_id"`
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row.Action+" "+row.RequestID)
	}
	if !slices.Contains(rows, "login sign-in-1") || !slices.Contains(rows, "create check-1") {
		t.Errorf("audit trail: %v\n%s", rows, out.String())
	}
	testkit.Eventually(t, time.Minute, func() bool {
		mu.Lock()
		defer mu.Unlock()
		names := spans[trace]
		return named[trace] == "check-1" && slices.Contains(names, "check") && slices.Contains(names, "sqlite select")
	})
	log := p.Output()
	found := false
	for line := range strings.Lines(log) {
		found = found || strings.Contains(line, `"request_id":"check-1"`) && strings.Contains(line, `"trace_id":"`+trace) &&
			strings.Contains(line, "authz.invalid_permission")
	}
	if !found || strings.Contains(log, signUp.Cookies()[0].Value) {
		t.Errorf("the log does not name the check, or names the cookie:\n%s", log)
	}
}

// exported is the audit trail, a line each.
func exported(t *testing.T, dir string, env []string) []string {
	t.Helper()
	file := filepath.Join(dir, "export.jsonl")
	play(t, dir, step{call: "audit export -o " + file, env: env, errs: "activities"})
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}
