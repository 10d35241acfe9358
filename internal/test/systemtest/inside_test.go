package systemtest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"barong/internal/test/testkit"
)

// collector starts a collector of traces, and returns the variables that have a server send it all. When the test ends, and
// all secrets are known, none may stand in them; and spans with the wanted names must be there.
func (v *vault) collector(t *testing.T, want ...string) (env []string) {
	t.Helper()
	var mu sync.Mutex
	var got []*collector.ExportTraceServiceRequest
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m := new(collector.ExportTraceServiceRequest)
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = proto.Unmarshal(body, m)
		}
		if err != nil {
			t.Errorf("traces that cannot be read: %v", err)
		}
		mu.Lock()
		got = append(got, m)
		mu.Unlock()
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(func() { // the server has stopped, and has sent what it had
		sink.Close()
		names := map[string]int{}
		for _, m := range got {
			for _, resource := range m.ResourceSpans {
				for _, scope := range resource.ScopeSpans {
					for _, s := range scope.Spans {
						names[s.Name]++
						// Random digits could look like a code of six.
						s.TraceId, s.SpanId, s.ParentSpanId = nil, nil, nil
						s.Attributes = slices.DeleteFunc(s.Attributes, func(a *common.KeyValue) bool { return a.Key == "barong.request_id" })
					}
				}
			}
			v.search(t, prototext.Format(m))
		}
		for _, name := range want {
			if names[name] == 0 {
				t.Errorf("there is no span %s among %v", name, names)
			}
		}
	})
	return []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + sink.URL, "OTEL_BSP_SCHEDULE_DELAY=200",
		"OTEL_EXPORTER_OTLP_HEADERS=X-Collector-Token=" + v.keep("token of the collector", "Vd6-hTq3+mXs"),
	}
}

// keepSigningKeys has the vault know the private keys of a server, line by line.
func (s *server) keepSigningKeys() {
	s.t.Helper()
	lines := 0
	err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(b), "-----BEGIN ") {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") && len(line) >= 16 {
				s.vault.keep("signing key", line)
				lines++
			}
		}
		return nil
	})
	if err != nil || lines == 0 {
		s.t.Fatalf("%d lines of signing keys, %v", lines, err)
	}
}

// What a process knows does not show: not in its log, its metrics, traces and probes, what it refuses, the commands beside it,
// nor where the system shows a process's environment, arguments and memory.
func TestSecretsStayInside(t *testing.T) {
	t.Parallel()
	v := newVault()
	pg, vk := testkit.PostgresServer(t), testkit.ValkeyServer(t)
	database := v.keep("password of Postgres", "Pj7-wRn2+cLk")
	memory := v.keep("password of Valkey", "Sx4+bGm9-tQv")
	if err := vk.Client(t).ConfigSet(t.Context(), "requirepass", memory).Err(); err != nil {
		t.Fatal(err)
	}
	mails := v.keep("password of the mail server", "Bq8-rLw5+xTz")
	storage := v.keep("key of the storage", "Fm3+kVp7-hYd")
	flag := v.keep("password in a flag", "Zc9-nQs2+gWj")
	host, port, _ := strings.Cut(newMailServer(t).addr, ":")
	env := append(v.collector(t, "check", "POST /identity/sessions", "POST /resource/api_keys", "postgres select"),
		"BARONG_DATABASE_URL="+strings.Replace(pg.URL, ":barong@", ":"+database+"@", 1), "BARONG_REDIS_URL=redis://:"+memory+"@"+vk.Addr)
	s := newServer(t, v, append(env, "BARONG_SECRET_KEY="+secretKey, "BARONG_SMTP_HOST="+host, "BARONG_SMTP_PORT="+port, "BARONG_SMTP_USER=barong",
		"BARONG_SMTP_PASSWORD="+mails, "BARONG_STORAGE_SECRET_KEY="+storage, "VAULT_TOKEN="+v.keep("an original's variable", "hvs.CAESIJ4qv8K2"))...)
	s.must("migrate", "up")
	s.must("seed")
	s.start("--admin-password", adminPassword, "--event-api-rabbitmq-password="+flag)

	c, email, password := s.member()
	factor := c.enable2FA(t)
	k := c.newKey(t, factor)
	c.check(account).wants(t, "check", 200)
	s.client().check(account, k.sign()...).wants(t, "a signed call", 200)
	s.keepSigningKeys()
	admin := s.admin()
	wrong := v.keep("wrong password", "Wrong9-guess+x")

	// Refusals of every kind hold nothing of what was sent.
	stranger := s.client()
	stranger.cookie = "_barong_session=" + v.keep("cookie of nobody", strings.Repeat("0123456789abcdef", 4))
	for what, r := range map[string]reply{
		"a wrong password":        s.client().signIn(email, wrong),
		"a missing second factor": s.client().signIn(email, password),
		"a wrong code": s.client().call("POST", "/identity/sessions",
			params{"email": email, "password": password, "otp_code": v.keep("wrong code", "918273")}),
		"a session of nobody":     stranger.check(account),
		"a wrong signature":       s.client().check(account, signature(k.KID, v.keep("wrong secret", "0123456789abcdef"), 1)...),
		"a malformed key":         s.client().check(account, "X-Auth-Apikey: "+k.KID, "X-Auth-Signature: "+v.keep("not hexadecimal", "zzzz-not-a-signature")),
		"a token that is none":    s.client().send("GET", "/api/v2/resource/users/me", nil, "Authorization: Bearer "+v.keep("not a token", "aaaaaaaa.bbbbbbbb.cccccccc")),
		"a body that is no JSON":  s.client().send("POST", "/api/v2/identity/sessions", form{[]byte(`{"password":"` + wrong), "application/json"}),
		"a password that is weak": s.client().signUp("weak@example.com", v.keep("weak password", "abcdefgh")),
		"a wrong mail token":      s.client().call("POST", "/identity/users/email/confirm_code", params{"token": v.keep("mail token", "not.a.token-at-all")}),
		"no such path":            s.client().send("GET", "/api/v2/"+v.keep("password in a path", "Kx7-tBn4+wMv"), nil),
		"no such route":           admin.call("PUT", "/admin/nothing", params{"password": wrong}),
	} {
		if r.err != nil || r.status < 400 {
			t.Errorf("%s: got %s", what, r)
		}
		v.search(t, r.body)
		v.search(t, fmt.Sprint(r.header))
	}
	for _, path := range []string{"/metrics", "/readyz", "/livez", "/healthz", "/debug/pprof/cmdline"} {
		r := s.probe(path)
		if path == "/metrics" && r.status != http.StatusOK {
			t.Errorf("%s: %s", path, r)
		}
		v.search(t, r.body)
	}
	for _, args := range [][]string{{"config"}, {"doctor"}, {"audit", "export"}, {"policy", "check", "--role", "member", "--method", "GET", account}} {
		out, _ := s.barong(nil, args...)
		if out == "" {
			t.Errorf("barong %v prints nothing", args)
		}
		v.search(t, out)
	}

	// The same user may read these files of a process, and the arguments are everybody's.
	for _, name := range []string{"environ", "cmdline"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", s.process.Pid, name))
		if err != nil {
			t.Fatal(err)
		}
		v.search(t, string(b))
		if text := string(b); name == "environ" && (!strings.Contains(text, "BARONG_HTTP_ADDR="+s.api) || !strings.Contains(text, "BARONG_SECRET_KEY=")) {
			t.Errorf("the environment has more blanked than its secrets, or is another's: %q", text)
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", s.process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	// What cannot be reached is told about, and not by what opens it.
	vk.Kill()
	pg.Kill()
	unknown := s.client()
	unknown.cookie = "_barong_session=" + v.keep("another cookie of nobody", strings.Repeat("fedcba9876543210", 4))
	for what, r := range map[string]reply{"a check": unknown.check(account), "a sign-in": s.client().signIn(email, password)} {
		r.wants(t, what+" while the stores are gone", 503)
		v.search(t, r.body)
	}
	testkit.Eventually(t, patience, func() bool { return s.probe("/readyz").status == http.StatusServiceUnavailable })
	for _, path := range []string{"/readyz", "/metrics"} {
		v.search(t, s.probe(path).body)
	}
	if out, status := s.barong(nil, "doctor"); status == 0 || out == "" {
		t.Errorf("barong doctor while the stores are gone: %d %s", status, out)
	} else {
		v.search(t, out)
	}
	if !regexp.MustCompile(`Max core file size +1 +1 `).Match(limits) {
		t.Errorf("a crash may leave the memory in a core:\n%s", limits)
	}
}

// Links in mails are of the configured domain, whatever host a client says that it asked.
func TestLinksAreOfTheConfiguredDomain(t *testing.T) {
	t.Parallel()
	s := startServer(t, newVault(), "BARONG_DOMAIN=front.example.com")
	_, email, _ := s.member()
	const evil = "evil.example.net"
	for path, body := range map[string]string{
		"/api/v2/identity/users":                        `{"email":"poisoned@example.com","password":"Yw4-nEk9+7qZm"}`,
		"/api/v2/identity/users/password/generate_code": `{"email":"` + email + `"}`,
	} {
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+s.api+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = evil
		for _, name := range []string{"X-Forwarded-Host", "X-Original-Host", "X-Host", "Forwarded", "X-Forwarded-Server", "X-Forwarded-Proto"} {
			req.Header.Set(name, evil)
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 201 {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
	}
	for what, want := range map[string]string{"Registration Confirmation": "poisoned@example.com", "Password Reset": email} {
		var found letter
		testkit.Eventually(t, patience, func() bool {
			for _, l := range s.letters() {
				if l.to == want && strings.Contains(l.subject, strings.Fields(what)[0]) {
					found = l
					return true
				}
			}
			return false
		})
		if !strings.HasPrefix(link.FindString(found.text), "https://front.example.com/") || strings.Contains(found.text, evil) {
			t.Errorf("%s: %q", what, found.text)
		}
	}
}
