package main_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/internal/test/testkit"
)

// TestWebhooks: a server tells a receiver what happens, without a broker; what the receiver wants no more is shown by a
// command and comes again by another.
func TestWebhooks(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	status := http.StatusGone
	got := map[string]bool{} // ids of what was taken
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if status < 300 {
			got[r.Header.Get("webhook-id")] = true
		}
		w.WriteHeader(status)
	}))
	defer receiver.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "webhooks.yml")
	if err := os.WriteFile(file, []byte(`
networks: [loopback]
webhooks:
- {name: crm, url: "`+receiver.URL+`/hooks?key=s3cret", secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, events: [model.user.created]}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	api, ops := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	env := []string{
		"BARONG_HTTP_ADDR=" + api, "BARONG_OPS_ADDR=" + ops, "BARONG_GRPC_ADDR=", "BARONG_JWT_ALGORITHM=EdDSA",
		"BARONG_DATABASE_URL=sqlite://" + filepath.Join(dir, "barong.db"), "BARONG_WEBHOOKS_FILE=" + file, "ADMIN_PASSWORD=Tr0ub4dor&3xyz",
	}
	testkit.Start(t, testkit.Barong(t), []string{"serve"}, env, testkit.Answers("http://"+ops+"/readyz"))
	resp, err := http.Post("http://"+api+"/api/v2/identity/users", "application/json", strings.NewReader(`{"email":"m@b.test","password":"Tr0ub4dor&3xyz"}`))
	if err != nil || resp.StatusCode != 201 {
		t.Fatalf("sign-up: %v, %v", resp, err)
	}
	resp.Body.Close()
	testkit.Eventually(t, time.Minute, func() bool {
		out, _, _ := call(t, dir, env, "outbox", "list", "--dead")
		return strings.Contains(out, "webhook:crm")
	})
	play(
		t, dir,
		step{call: "outbox list --dead", env: env, out: `webhook:crm +model\.user\.created .*given up +receiver crm answers 410`, not: "s3cret|m@b.test"},
		step{call: "outbox list --kind mail --dead", env: env, out: `\AID +KIND[^\n]*\n\z`},
		step{call: "outbox replay", env: env, status: 2, errs: "--all"},
		step{call: "outbox replay 999", env: env, status: 1, out: `\A0 tried again`, errs: "1 of the numbers"},
	)
	mu.Lock()
	status = http.StatusOK
	mu.Unlock()
	play(t, dir, step{call: "outbox replay --kind webhook:crm", env: env, out: `\A1 tried again\n\z`})
	testkit.Eventually(t, time.Minute, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) == 1
	})
	testkit.Eventually(t, time.Minute, func() bool {
		out, _, _ := call(t, dir, env, "outbox", "list")
		return !strings.Contains(out, "webhook:crm")
	})
	play(
		t, dir,
		step{call: "outbox drop --all", env: env, out: `\A0 deleted`},
		step{call: "serve", env: append(env[:len(env):len(env)], "BARONG_WEBHOOKS_FILE=/nowhere"), status: 2, errs: "BARONG_WEBHOOKS_FILE"},
	)
}

// TestDoctorThrough: the doctor looks at a gateway from outside, and takes no address that is none.
func TestDoctorThrough(t *testing.T) {
	t.Parallel()
	open := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "everything") }))
	defer open.Close()
	dir := t.TempDir()
	env := []string{"BARONG_DATABASE_URL=sqlite://" + filepath.Join(dir, "barong.db"), "BARONG_OPS_ADDR="}
	play(
		t, dir,
		step{
			call: "doctor --through " + open.URL + " --path /orders --kind nginx", env: env, status: 1,
			out: `through 127\.0\.0\.1:\d+: /orders without a credential +FAILED +it is served to everybody.*200 everything; compare nginx: auth_request /\.check;`,
		},
		step{call: "doctor --through gateway.example", env: env, status: 2, errs: "--through"},
		step{call: "doctor --through http://127.0.0.1:1", env: env, status: 1, out: `through 127\.0\.0\.1:1 +FAILED`},
	)
}
