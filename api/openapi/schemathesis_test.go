package openapi_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"barong/internal/crypto/secret"
	"barong/internal/test/testkit"
)

const adminEmail, adminPassword = "admin@barong.test", "Tecohvi0-Xuq"

// A server is the program on a port of its own.
type server struct {
	t      *testing.T
	base   string // http://127.0.0.1:port/api/v2
	client *http.Client
}

// serve runs the program until the end of the test, with a superadmin and no rate limits.
func serve(t *testing.T, database string, env ...string) *server {
	t.Helper()
	api, ops := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	env = append(env, "BARONG_HTTP_ADDR="+api, "BARONG_OPS_ADDR="+ops, "BARONG_GRPC_ADDR=", "BARONG_RATE_LIMITS=off", "BARONG_LOG_LEVEL=error",
		"BARONG_JWT_EXPIRE_TIME=3600", "BARONG_SECRET_KEY="+secret.NewKey().Reveal(), "ADMIN_EMAIL="+adminEmail, "ADMIN_PASSWORD="+adminPassword)
	if database != "" {
		env = append(env, "BARONG_DATABASE_URL="+database)
		for _, args := range [][]string{{"migrate", "up"}, {"seed"}} {
			c := exec.CommandContext(t.Context(), testkit.Barong(t), args...)
			c.Dir, c.Env = t.TempDir(), append(os.Environ(), env...)
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", args, err, out)
			}
		}
	}
	testkit.Start(t, testkit.Barong(t), []string{"serve"}, env, func() error {
		res, err := http.Get("http://" + ops + "/readyz")
		if err != nil {
			return err
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("got %d", res.StatusCode)
		}
		return nil
	})
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &server{t, "http://" + api + "/api/v2", &http.Client{Jar: jar}}
}

// call sends a form, or a GET without one, and returns the answer's header. The call must succeed.
func (s *server) call(path, token string, form url.Values) http.Header {
	s.t.Helper()
	method := http.MethodPost
	if form == nil {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0")
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	res, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= 300 {
		s.t.Fatalf("%s: %d %s, %v", path, res.StatusCode, body, err)
	}
	return res.Header
}

// token signs the superadmin in and has a check hand out a token.
func (s *server) token() string {
	s.t.Helper()
	s.call("/identity/sessions", "", url.Values{"email": {adminEmail}, "password": {adminPassword}})
	token := s.call("/auth/api/v2/barong/admin/users", "", nil).Get("Authorization")
	if !strings.HasPrefix(token, "Bearer ") {
		s.t.Fatalf("the check answers with %q", token)
	}
	return token
}

// TestSchemathesis has Schemathesis make up requests from the document of a running server, good and bad ones, and hold
// the answers to it: no 5xx, no status, type, header or body that the document does not tell of, nothing without a token.
// The seed is fixed, so that a run can be repeated; other ones are for those who look for more.
func TestSchemathesis(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, database, phases, examples string
		env                              []string
	}{
		{"reference", testkit.Postgres(t), "coverage,fuzzing,stateful", "8", nil},
		{"2.4.17", "", "fuzzing", "6", []string{"BARONG_COMPAT=2.4.17"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, c.database, c.env...)
			token := s.token()
			// Something to be found in every list.
			s.call("/resource/labels", token, url.Values{"key": {"colour"}, "value": {"green"}})
			s.call("/resource/profiles", token, url.Values{"first_name": {"Ann"}, "dob": {"1990-02-28"}, "metadata": {`{"a":1}`}})
			s.call("/resource/phones", token, url.Values{"phone_number": {"447418084106"}})
			s.client.Jar = nil
			s.call("/identity/users", "", url.Values{"email": {"member@barong.test"}, "password": {"Wm3#kdPq81zRo"}})

			// One worker: in Python 3.11 threads share the counter by which its parser, of which Hypothesis makes use, watches
			// how deep it is, so that two may fail at once with "AST constructor recursion depth mismatch".
			var out bytes.Buffer
			st := exec.CommandContext(
				t.Context(), filepath.Join(testkit.Tools(t), "bin", "schemathesis"), "run", s.base+"/openapi.json", "--url", s.base,
				"--header", "Authorization:"+token, "--phases", c.phases, "--max-examples", c.examples, "--seed", "240",
				"--workers", "1", "--no-shrink", "--continue-on-failure", "--warnings", "off", "--no-color", "--checks",
				"not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,ignored_auth",
			)
			st.Dir, st.Stdout, st.Stderr = t.TempDir(), &out, &out
			if err := st.Run(); err != nil {
				t.Fatalf("schemathesis: %v\n%s", err, out.String())
			}
			if !strings.Contains(out.String(), "No issues found") {
				t.Fatalf("schemathesis ended without a verdict:\n%s", out.String())
			}
		})
	}
}
