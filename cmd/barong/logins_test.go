package main_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/db"
	"barong/internal/crypto/secret"
	"barong/internal/delivery/events/amqptest"
	"barong/internal/test/testkit"
)

// TestReloadOfStores: a running server takes up new passwords of Postgres, Redis and the broker once these let it in, further
// secret keys, and the files of webhooks and providers; and says what it does not take up.
func TestReloadOfStores(t *testing.T) {
	t.Parallel()
	postgres, valkey := testkit.PostgresServer(t), testkit.ValkeyServer(t)
	broker := amqptest.Broker{User: "app", Password: "two"}
	broker.Start(t, "")
	super, err := db.Open(t.Context(), db.Options{URL: postgres.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer super.Close()
	sql := func(statements ...string) {
		t.Helper()
		for _, s := range statements {
			if _, err := super.Bun().ExecContext(t.Context(), s); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
		}
	}
	var hba string
	if err := super.Bun().NewRaw("SHOW hba_file").Scan(t.Context(), &hba); err != nil {
		t.Fatal(err)
	}
	sql("CREATE ROLE app LOGIN SUPERUSER PASSWORD 'one'",
		"COPY (SELECT 'host all app 127.0.0.1/32 scram-sha-256' UNION ALL SELECT 'host all all 127.0.0.1/32 trust') TO '"+hba+"'",
		"SELECT pg_reload_conf()")
	redis := valkey.Client(t).Conn() // which stays let in
	defer redis.Close()
	if err := redis.ConfigSet(t.Context(), "requirepass", "one").Err(); err != nil {
		t.Fatal(err)
	}

	var mu sync.Mutex
	told := map[string]int{} // by the receiver's path
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		told[r.URL.Path]++
	}))
	defer receiver.Close()
	times := func(path string) int {
		mu.Lock()
		defer mu.Unlock()
		return told[path]
	}

	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(file(name)+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file(name)+".new", file(name)); err != nil {
			t.Fatal(err)
		}
	}
	_, place, _ := strings.Cut(postgres.URL, "@")
	logins := func(password string) {
		t.Helper()
		write("database", "postgres://app:"+password+"@"+place)
		write("redis", "redis://:"+password+"@"+valkey.Addr)
		write("broker", "amqp://app:"+password+"@"+broker.Addr()+"/")
	}
	hook := func(path string) string {
		return `webhooks: [{name: crm, url: "` + receiver.URL + path + `", secret_file: ` + file("hook") + `, events: [model.user.created, model.user.updated]}]` + "\nnetworks: [loopback]\n"
	}
	provider := func(id string) string {
		return "- {id: " + id + ", name: " + id + ", issuer: 'https://idp.example', client_id: x, client_secret_file: " + file("client") + "}\n"
	}
	old, fresh := secret.NewKey().Reveal(), secret.NewKey().Reveal()
	logins("one")
	write("key", old)
	write("hook", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
	write("client", "s3cret\n")
	write("webhooks.yml", "")
	write("providers.yml", "")
	write("management.yml", "")
	api, ops := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	env := []string{
		"BARONG_HTTP_ADDR=" + api, "BARONG_OPS_ADDR=" + ops, "BARONG_GRPC_ADDR=", "BARONG_JWT_ALGORITHM=EdDSA", "BARONG_RATE_LIMITS=off",
		"ADMIN_EMAIL=root@b.test", "ADMIN_PASSWORD=Tr0ub4dor&3xyz", "BARONG_CAPTCHA=none",
		"BARONG_DATABASE_URL_FILE=" + file("database"), "BARONG_REDIS_URL_FILE=" + file("redis"), "BARONG_EVENT_API_RABBITMQ_URL_FILE=" + file("broker"),
		"BARONG_SECRET_KEY_FILE=" + file("key"), "BARONG_WEBHOOKS_FILE=" + file("webhooks.yml"), "BARONG_PROVIDERS_FILE=" + file("providers.yml"),
		"BARONG_MANAGEMENT_API_FILE=" + file("management.yml"),
	}
	p := testkit.Start(t, testkit.Barong(t), []string{"serve", "--migrate"}, env, testkit.Answers("http://"+ops+"/readyz"))
	get := func(url string) string {
		t.Helper()
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	stale := func() bool { return strings.Contains(get("http://"+ops+"/metrics"), "barong_config_stale 1\n") }
	ready := func() bool { return testkit.Answers("http://"+ops+"/readyz")() == nil }
	people := 0
	signUp := func() {
		t.Helper()
		people++
		resp, err := http.Post("http://"+api+"/api/v2/identity/users", "application/json",
			strings.NewReader(fmt.Sprintf(`{"email":"m%d@b.test","password":"Tr0ub4dor&3xyz"}`, people)))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 201 {
			t.Fatalf("sign-up: %d %s, %v", resp.StatusCode, text, err)
		}
	}
	play(t, dir, step{call: "seed", env: env, out: "created"}) // roles, beside the server
	testkit.Eventually(t, time.Minute, func() bool {
		return strings.Contains(get("http://"+ops+"/metrics"), "barong_policy_version ") && !strings.Contains(get("http://"+ops+"/metrics"), "barong_policy_version 0\n")
	})
	signUp()

	// Passwords that nobody has yet: what is in force stays, and the log has none of them.
	logins("two")
	testkit.Eventually(t, time.Minute, stale)
	signUp()
	sql("ALTER ROLE app PASSWORD 'two'")
	if err := redis.ConfigSet(t.Context(), "requirepass", "two").Err(); err != nil {
		t.Fatal(err)
	}
	// It tries again by itself, and then every connection can be made anew.
	testkit.Eventually(t, time.Minute, func() bool { return !stale() })
	sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
	if err := redis.ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
		t.Fatal(err)
	}
	if err := redis.ClientKillByFilter(t.Context(), "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, time.Minute, ready)
	signUp()
	testkit.Eventually(t, time.Minute, func() bool { return len(broker.Messages()) > 0 })

	// Everything else at once.
	write("key", "next:"+fresh+","+old)
	write("webhooks.yml", hook("/one"))
	write("providers.yml", provider("one"))
	write("management.yml", "# changed\n")
	testkit.Eventually(t, time.Minute, func() bool { return strings.Contains(get("http://"+api+"/api/v2/identity/providers"), `"one"`) })
	signUp()
	testkit.Eventually(t, time.Minute, func() bool { return times("/one") > 0 })
	// What another process seals under the new key, a row of the outbox, the server can read.
	before := times("/one")
	write("newer", fresh+","+old)
	rotated := append(env[:len(env):len(env)], "BARONG_SECRET_KEY_FILE="+file("newer"))
	play(t, dir, step{call: "secrets rotate", env: rotated, out: "everything is sealed under key"},
		step{call: "users role m1@b.test admin", env: rotated, out: "."})
	testkit.Eventually(t, time.Minute, func() bool { return times("/one") > before })

	// A file that is wrong leaves those in force; so does one that is gone.
	write("webhooks.yml", "webhooks: [{name: crm}]\n")
	write("providers.yml", provider("two"))
	testkit.Eventually(t, time.Minute, stale)
	before = times("/one")
	signUp()
	testkit.Eventually(t, time.Minute, func() bool { return times("/one") > before })
	if got := get("http://" + api + "/api/v2/identity/providers"); !strings.Contains(got, `"one"`) {
		t.Errorf("with a wrong file beside it, a good one is taken up: %s", got)
	}
	// The old key alone is no list to go on with, another host no login.
	write("webhooks.yml", hook("/two"))
	write("key", old)
	write("redis", "redis://:two@localhost.invalid:6379")
	testkit.Eventually(t, time.Minute, func() bool { return !stale() })
	signUp()
	testkit.Eventually(t, time.Minute, func() bool { return times("/two") > 0 })
	log := p.Output()
	for _, want := range []string{
		"the new login is not let in", "settings were taken up", "BARONG_DATABASE_URL, ", "who is told by webhooks has changed", "whom people may sign in with has changed",
		"the secret keys changed; the first seals", `"settings":"BARONG_MANAGEMENT_API_FILE"`, `"settings":"BARONG_MANAGEMENT_API_FILE, BARONG_REDIS_URL, BARONG_SECRET_KEY"`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q", want)
		}
	}
	for _, hidden := range []string{"app:one", "app:two", ":two@", fresh, old, "s3cret", "whsec_"} {
		if strings.Contains(log, hidden) {
			t.Errorf("the log says %q", hidden)
		}
	}
	if t.Failed() {
		t.Log(log)
	}
}
