package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"barong/db"
	"barong/internal/crypto/secret"
	"barong/internal/test/testkit"
)

// TestOneNameForARequest: what a refused call is named by its gateway stands in its answer, the log, the audit trail and
// its trace, which goes on into the stores.
func TestOneNameForARequest(t *testing.T) {
	t.Parallel()
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
		"BARONG_SECRET_KEY=" + secret.NewKey().Reveal(), "BARONG_ACCESS_LOG=1", "BARONG_CSRF_PROTECTION=false",
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
	verified(t, p, dir, env, len(rows))
}

// verified: what a server has written is sealed by when it has stopped, and whoever changes it in the database is found out.
func verified(t *testing.T, p *testkit.Process, dir string, env []string, rows int) {
	t.Helper()
	if status := p.Stop(); status != 0 {
		t.Errorf("it stops with status %d", status)
	}
	out, errs, status := call(t, dir, env, "audit", "verify")
	m := regexp.MustCompile(`\A(\d+) rows in \d+ blocks, \S+Z(?: to \S+Z)?\nthe trail is whole\nhead (\d+:[0-9a-f]{64})\n\z`).FindStringSubmatch(out)
	if status != 0 || m == nil || m[1] != strconv.Itoa(rows) {
		t.Fatalf("audit verify ends with %d, and says of %d rows:\n%s%s", status, rows, out, errs)
	}
	if log := p.Output(); !strings.Contains(log, `"head":"`+m[2]+`"`) {
		t.Errorf("the head %s is not in the log:\n%s", m[2], log)
	}
	d, err := db.Open(t.Context(), db.Options{URL: "sqlite://" + filepath.Join(dir, "barong.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, statement := range []string{
		"UPDATE activities SET result = 'failed' WHERE id = 1", "DELETE FROM activities WHERE id = 2",
	} {
		if _, err := d.Bun().ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	play(t, dir,
		step{
			call: "audit verify --head " + m[2], env: env, status: 3,
			out: `\Aedited id 1 in block \d+, \S+Z\ndeleted id 2 in block \d+, [^\n]+\n.*^the trail is NOT whole: 2 findings about 2 rows\nhead ` + m[2] + `\n\z`,
		},
		step{call: "audit verify --json", env: env, status: 3, out: `\A\{"kind":"edited","block":\d+,"first_id":1,"last_id":1,"rows":1,"from":"\S+Z","until":"\S+Z"\}\n\{"kind":"deleted",.*\{"whole":false,`},
		step{call: "audit verify --from " + m[2], env: env, out: `\A0 rows in 0 blocks\nthe trail is whole\nhead ` + m[2] + `\n\z`},
		step{call: "audit verify", env: append(env[:len(env):len(env)], "BARONG_SECRET_KEY="+secret.NewKey().Reveal()), status: 3, out: `^no_key block`},
	)
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
