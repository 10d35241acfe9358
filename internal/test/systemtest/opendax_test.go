package systemtest

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"barong/internal/crypto/jws"
	"barong/internal/crypto/keys"
	"barong/internal/delivery/events/amqptest"
	"barong/internal/test/testkit"
)

// A composition is a compose file, as far as the test reads it.
type composition struct {
	Services map[string]struct {
		Image       string
		Command     []string
		Restart     string
		Environment map[string]string
		Volumes     []string
	}
	Volumes map[string]any
}

// kitVolumes are those of barong in the kit's own compose/app.yaml, and of its mailer in compose/daemons.yaml.
var kitVolumes = []string{
	"../config/secrets:/secrets:ro", "../config/barong/seeds.yml:/home/app/config/seeds.yml", "../config/barong/barong.yml:/home/app/config/barong.yml",
	"../config/barong/authz_rules.yml:/home/app/config/authz_rules.yml", "../config/barong/management_api.yml:/home/app/config/management_api.yml",
}

// kitEnvironment is config/barong.env, as the kit renders it; the edit of deploy/opendax/README.md is its last line.
const kitEnvironment = `
PORT=8001
LOG_LEVEL=warn
DISABLE_SPRING=true
RAILS_ENV=production
SECRET_KEY_BASE=64
DATABASE_HOST=db
DATABASE_PORT=3306
DATABASE_USER=root
DATABASE_PASS=changeme
DATABASE_ADAPTER="mysql2"
BARONG_STORAGE_PROVIDER=Google
BARONG_STORAGE_BUCKET_NAME=opendax-barong-docs-bucket
BARONG_STORAGE_ACCESS_KEY=changeme
BARONG_STORAGE_SECRET_KEY=changeme
BARONG_STORAGE_ENDPOINT=https://fra1.digitaloceanspaces.com
BARONG_STORAGE_SIGNATURE_VERSION=2
BARONG_STORAGE_REGION=fra1
BARONG_CAPTCHA=none
JWT_PRIVATE_KEY_PATH=/secrets/barong.key
BARONG_VAULT_TOKEN=changeme
BARONG_VAULT_ADDRESS=http://vault:8200
REDIS_URL=redis://redis:6379
BARONG_REDIS_URL=redis://redis:6379
BARONG_EVENT_API_JWT_ALGORITHM=RS256
BARONG_EVENT_API_RABBITMQ_HOST=rabbitmq
BARONG_EVENT_API_RABBITMQ_PORT=5672
BARONG_EVENT_API_RABBITMQ_USERNAME=guest
BARONG_EVENT_API_RABBITMQ_PASSWORD=guest
BARONG_SMTP_HOST=SMTPHOST
BARONG_SMTP_PORT=SMTPPORT
BARONG_SMTP_USER=
BARONG_SMTP_PASSWORD=
BARONG_DEFAULT_LANGUAGE=en
BARONG_SENDER_NAME=Exchange
BARONG_SENDER_EMAIL=noreply@exchange.test
BARONG_PASSWORD_MIN_ENTROPY=14
BARONG_PASSWORD_USE_DICTIONARY=false
BARONG_CSRF_PROTECTION=false
BARONG_APP_NAME=OpenDAX
BARONG_DOMAIN=http://www.app.local
BARONG_PHONE_VERIFICATION=none
`

// A kit is an OpenDAX of the test: its files, its other services, and what the compose file makes of them.
type kit struct {
	t       *testing.T
	dir     string
	compose composition
	env     []string // of barong's container
	api     string   // what its port 8001 is here
	checks  string   // and its port 8002
	private *rsa.PrivateKey
	broker  amqptest.Broker
	mails   *mailServer

	mu   sync.Mutex
	seen []*http.Request // by the other services
}

// write makes a file of the kit.
func (k *kit) write(name, text string) {
	k.t.Helper()
	path := filepath.Join(k.dir, "kit", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		k.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o400); err != nil {
		k.t.Fatal(err)
	}
}

// inside is where a path of the container is here.
func (k *kit) inside(path string) string {
	for _, folder := range []string{"/secrets", "/home/app/config"} {
		path = strings.ReplaceAll(path, folder, filepath.Join(k.dir, "container")+folder)
	}
	return path
}

// mount copies what a volume of barong's container shows there.
func (k *kit) mount(volume string) {
	k.t.Helper()
	parts := strings.Split(volume, ":")
	source, ours := strings.CutPrefix(parts[0], "../config/")
	if !ours { // a volume of its own
		if _, known := k.compose.Volumes[parts[0]]; !known {
			k.t.Errorf("volume %s is not declared", volume)
		}
		return
	}
	target := k.inside(parts[1])
	if target == parts[1] {
		k.t.Fatalf("volume %s shows something where nobody looks", volume)
	}
	source = filepath.Join(k.dir, "kit", source)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		k.t.Fatal(err)
	}
	info, err := os.Stat(source)
	if err != nil {
		k.t.Fatal(err)
	}
	files := []string{""}
	if info.IsDir() {
		entries, err := os.ReadDir(source)
		if err != nil {
			k.t.Fatal(err)
		}
		files = nil
		for _, e := range entries {
			files = append(files, e.Name())
		}
		if err := os.MkdirAll(target, 0o755); err != nil {
			k.t.Fatal(err)
		}
	}
	for _, name := range files {
		text, err := os.ReadFile(filepath.Join(source, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(target, name), text, 0o400) // as the README has their owner and mode
		}
		if err != nil {
			k.t.Fatal(err)
		}
	}
}

// replace replaces what must be there.
func (k *kit) replace(text, old, by string) string {
	k.t.Helper()
	if !strings.Contains(text, old) {
		k.t.Fatalf("%q has no %q", text, old)
	}
	return strings.ReplaceAll(text, old, by)
}

func newKit(t *testing.T) *kit {
	k := &kit{t: t, dir: t.TempDir(), api: addr(t), checks: addr(t), mails: newMailServer(t)}
	k.broker.Start(t, "")
	root := testkit.Root(t)
	text, err := os.ReadFile(filepath.Join(root, "deploy", "opendax", "barong.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &k.compose); err != nil {
		t.Fatal(err)
	}
	if k.private, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(k.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := base64.URLEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	k.write("secrets/barong.key", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k.private)})))
	k.write("secrets/barong.database-url", testkit.Postgres(t))
	k.write("secrets/barong.database-password", "not used here")
	k.write("secrets/barong.secret-key", secretKey+"\n")
	k.write("barong/seeds.yml", `
users:
  - { email: admin@exchange.test, password: `+adminPassword+`, role: admin, state: active, level: 3 }
  - { email: john@exchange.test, password: `+adminPassword+`, role: member, state: active, level: 3 }
levels:
  - { key: email, value: verified, description: "User clicked on the confirmation link" }
  - { key: phone, value: verified, description: "User entered a valid code from sms" }
  - { key: document, value: verified, description: "User personal documents have been verified" }
restrictions: {}
permissions:
 - { role: admin, verb: all, path: api/v2, action: accept }
 - { role: admin, verb: all, path: admin, action: accept }
 - { role: admin, verb: all, path: assets, action: accept }
 - { role: member, verb: all, path: api/v2/peatio, action: accept }
 - { role: member, verb: all, path: api/v2/ranger, action: accept }
 - { role: member, verb: all, path: api/v2/barong/resource, action: accept }
`)
	k.write("barong/barong.yml", "activation_requirements:\n  email: 'verified'\nuser_storage_titles:\nсaptcha_protected_endpoints: []\n")
	k.write("barong/authz_rules.yml", `
rules:
  pass:
    - api/v2/barong/identity
    - api/v2/peatio/public
    - api/v2/ranger/public
  block:
    - api/v2/barong/management
    - api/v2/peatio/management
`)
	k.write("barong/management_api.yml", "keychain:\n  applogic: { algorithm: RS256, value: "+public+" }\nscopes:\n  read_users: { mandatory_signers: [applogic], permitted_signers: [applogic] }\n")
	k.write("mailer.yml", `
keychain:
  barong: { algorithm: RS256, value: "`+public+`" }
  peatio: { algorithm: RS256, value: "`+public+`" }
exchanges:
  barong_system: { name: barong.events.system, signer: barong }
  peatio: { name: peatio.events.model, signer: peatio }
events:
- name: Session Create
  key: session.create
  exchange: barong_system
  templates:
    EN: { subject: New Login, template_path: session_create.en.html.erb }
- name: Deposit Accepted
  key: deposit.updated
  exchange: peatio
  expression: changes.state == "submitted" && record.state == "accepted"
  templates:
    EN: { subject: Deposit Accepted, template_path: deposit_accepted.en.html.erb }
`)
	k.write("mailer/templates/deposit_accepted.en.html.erb", "<p><%= @record.amount %></p>")

	barong := k.compose.Services["barong"]
	for _, volume := range append(slices.Clone(kitVolumes), barong.Volumes...) {
		k.mount(volume)
	}
	k.environment(root, barong.Environment)
	return k
}

// environment makes the variables of barong's container: the image's, under those of the kit, under those of the compose file.
func (k *kit) environment(root string, composed map[string]string) {
	k.t.Helper()
	image, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		k.t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(image)) {
		if rest, ok := strings.CutPrefix(line, "ENV "); ok {
			for pair := range strings.FieldsSeq(rest) {
				name, value, _ := strings.Cut(pair, "=")
				all[name] = value
			}
		}
	}
	host, port, err := net.SplitHostPort(k.mails.addr)
	if err != nil {
		k.t.Fatal(err)
	}
	for line := range strings.Lines(strings.NewReplacer("SMTPHOST", host, "SMTPPORT", port).Replace(kitEnvironment)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			all[name] = value
		}
	}
	maps.Copy(all, composed)
	// Where the container's neighbours and ports are here.
	valkey := strings.TrimPrefix(testkit.Valkey(k.t), "redis://")
	all["BARONG_REDIS_URL"] = k.replace(all["BARONG_REDIS_URL"], "barong-redis:6379", valkey)
	all["BARONG_EVENT_API_RABBITMQ_URL"] = k.replace(all["BARONG_EVENT_API_RABBITMQ_URL"], "rabbitmq:5672", k.broker.Addr())
	all["BARONG_HTTP_ADDR"] = k.replace(all["BARONG_HTTP_ADDR"], "0.0.0.0", "127.0.0.1")
	_, all["PORT"], _ = net.SplitHostPort(k.replace(all["PORT"], "8001", k.api))
	all["BARONG_CHECK_ADDR"] = k.replace(all["BARONG_CHECK_ADDR"], "0.0.0.0:8002", k.checks)
	all["BARONG_OPS_ADDR"] = k.replace(all["BARONG_OPS_ADDR"], "0.0.0.0:9090", addr(k.t))
	all["BARONG_DRAIN_TIME"] = "0" // nothing looks whether it is ready
	for _, name := range slices.Sorted(maps.Keys(all)) {
		k.env = append(k.env, name+"="+k.inside(all[name]))
	}
}

// run runs a command in barong's container to its end.
func (k *kit) run(args ...string) string {
	k.t.Helper()
	cmd := exec.CommandContext(k.t.Context(), testkit.Barong(k.t), args...)
	cmd.Dir, cmd.Env = k.t.TempDir(), k.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		k.t.Fatalf("barong %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// gateway starts Envoy on the kit's configuration, with the other services behind it.
func (k *kit) gateway() string {
	k.t.Helper()
	services := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k.mu.Lock()
		k.seen = append(k.seen, r)
		k.mu.Unlock()
		if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			n, _ := io.Copy(io.Discard, r.Body) // what came is told
			fmt.Fprintf(w, "service %d", n)
			return
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(conn, conn) // until the client goes
	}))
	k.t.Cleanup(services.Close)
	root, there := testkit.Root(k.t), services.Listener.Addr().String()
	gateway := addr(k.t)
	places := map[string]string{
		"0.0.0.0:8099": gateway, "127.0.0.1:9099": addr(k.t), "barong:8001": k.api, "barong:8002": k.checks,
		"applogic:8081": there, "arke:8081": there, "peatio:8000": there, "finex-api:8080": there, "rango:8080": there,
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy", "opendax", "envoy.yaml"))
	if err != nil {
		k.t.Fatal(err)
	}
	text = regexp.MustCompile(`\{ address: ([\w.-]+), port_value: (\d+) \}`).ReplaceAllFunc(text, func(found []byte) []byte {
		words := regexp.MustCompile(`[\w.-]+`).FindAllString(string(found), -1)
		place, known := places[words[1]+":"+words[3]]
		if !known {
			k.t.Fatalf("there is no %s", found)
		}
		delete(places, words[1]+":"+words[3])
		host, port, _ := net.SplitHostPort(place)
		return fmt.Appendf(nil, "{ address: %s, port_value: %s }", host, port)
	})
	if len(places) > 0 {
		k.t.Errorf("nothing is sent to %v", places)
	}
	file := filepath.Join(k.t.TempDir(), "barong.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		k.t.Fatal(err)
	}
	command := k.compose.Services["gateway"].Command
	if !slices.Contains(command, "/etc/envoy/"+filepath.Base(file)) {
		k.t.Errorf("the gateway reads another file: %v", command)
	}
	testkit.Start(k.t, "envoy", []string{"-c", file, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warn"}, nil, func() error {
		res, err := probes.Get("http://" + gateway + "/api/v2/peatio/account")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized {
			return fmt.Errorf("got %d", res.StatusCode)
		}
		return nil
	})
	k.take()
	return gateway
}

// take returns what the other services were asked since the last call.
func (k *kit) take() []*http.Request {
	k.mu.Lock()
	defer k.mu.Unlock()
	seen := k.seen
	k.seen = nil
	return seen
}

// TestOpenDAX runs what deploy/opendax makes of a kit: this program with the kit's files in the place of barong, of its
// mailer and of its setup step, behind a real Envoy, with Postgres, Valkey and a broker.
func TestOpenDAX(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.run("migrate", "up")
	k.run("seed")
	for name, service := range k.compose.Services {
		if name == "mailer" {
			if out := k.run(service.Command...); service.Restart != "no" || !strings.Contains(out, "barong") {
				t.Errorf("the kit's task that starts the mailer gets %q", out)
			}
		}
		for _, v := range service.Environment {
			if name == "barong-db" && strings.HasPrefix(v, "/secrets/") {
				if _, err := os.Stat(k.inside(v)); err != nil {
					t.Error(err)
				}
			}
		}
	}
	p := testkit.Start(t, testkit.Barong(t), k.compose.Services["barong"].Command, k.env, testkit.Answers("http://"+k.api+"/api/v2/identity/ping"))
	gateway := k.gateway()

	// send asks as a browser behind Traefik does.
	browser := &http.Client{Timeout: patience}
	cookie := ""
	send := func(method, path string, body io.Reader, headers ...string) (status int, text string, header http.Header) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+gateway+path, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Forwarded-For", "203.0.113.7")
		req.Header.Set("User-Agent", "Mozilla/5.0")
		req.Header.Set("Content-Type", "application/json")
		if cookie != "" {
			req.Header.Set("Cookie", cookie)
		}
		for i := 0; i+1 < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		res, err := browser.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b), res.Header
	}
	wants := func(status int, method, path string, headers ...string) string {
		t.Helper()
		got, text, _ := send(method, path, nil, headers...)
		if got != status {
			t.Errorf("%s %s: %d %s, want %d", method, path, got, text, status)
		}
		return text
	}

	// Nobody yet.
	wants(200, "GET", "/api/v2/barong/identity/ping")
	wants(401, "GET", "/api/v2/peatio/account/balances")
	wants(401, "GET", "/admin/peatio")
	wants(401, "POST", "/api/v2/barong/management/users/list") // the kit blocks it
	wants(404, "GET", "/api/v2/auth/api/v2/peatio/account")
	if seen := k.take(); len(seen) > 0 {
		t.Errorf("services were asked without leave: %v", seen[0].URL)
	}
	wants(200, "GET", "/api/v2/peatio/public/timestamp", "Authorization", "Bearer forged")
	if seen := k.take(); len(seen) != 1 || seen[0].RequestURI != "/api/v2/public/timestamp" || seen[0].Header.Get("Authorization") != "" {
		t.Errorf("a public call: %+v", seen)
	}

	// A member.
	status, text, header := send("POST", "/api/v2/barong/identity/sessions", strings.NewReader(`{"email":"john@exchange.test","password":"`+adminPassword+`"}`))
	if status != 200 {
		t.Fatalf("sign-in: %d %s", status, text)
	}
	cookie, _, _ = strings.Cut(header.Get("Set-Cookie"), ";")
	wants(200, "GET", "/api/v2/peatio/account/balances?x=1", "Authorization", "Bearer forged")
	seen := k.take()
	if len(seen) != 1 || seen[0].RequestURI != "/api/v2/account/balances?x=1" {
		t.Fatalf("services were asked %+v", seen)
	}
	k.judge(strings.TrimPrefix(seen[0].Header.Get("Authorization"), "Bearer "))
	if text := wants(200, "GET", "/api/v2/barong/resource/users/me"); !strings.Contains(text, `"email":"john@exchange.test"`) {
		t.Errorf("me: %s", text)
	}
	wants(401, "GET", "/admin/peatio")
	wants(401, "GET", "/api/v2/barong/admin/users")
	wants(400, "GET", "/api/v2/peatio/..%2fbarong/admin")
	large := bytes.Repeat([]byte("x"), 3<<20)
	if status, text, _ := send("POST", "/api/v2/peatio/account/withdraws", bytes.NewReader(large)); status != 200 || text != fmt.Sprintf("service %d", len(large)) {
		t.Errorf("a large body: %d %s", status, text)
	}
	k.take()
	if status, _, header := send("OPTIONS", "/api/v2/peatio/account", nil, "Origin", "http://www.app.local", "Access-Control-Request-Method", "POST"); status != 200 ||
		header.Get("Access-Control-Allow-Origin") != "http://www.app.local" {
		t.Errorf("a preflight of the front end: %d %v", status, header)
	}
	if got := k.socket(gateway, "/api/v2/ranger/private/?stream=order", cookie); got != "ping" {
		t.Errorf("a websocket: %q", got)
	}
	if seen := k.take(); len(seen) != 1 || seen[0].RequestURI != "/api/v2/ranger/private/?stream=order" || seen[0].Header.Get("Authorization") == "" {
		t.Errorf("a websocket: %+v", seen)
	}
	if got := k.socket(gateway, "/api/v2/ranger/private/?stream=order", ""); got != "401" {
		t.Errorf("a websocket of nobody: %q", got)
	}

	// Staff.
	status, text, header = send("POST", "/api/v2/barong/identity/sessions", strings.NewReader(`{"email":"admin@exchange.test","password":"`+adminPassword+`"}`))
	if status != 200 {
		t.Fatalf("sign-in: %d %s", status, text)
	}
	cookie, _, _ = strings.Cut(header.Get("Set-Cookie"), ";")
	wants(200, "GET", "/admin/peatio")
	if seen := k.take(); len(seen) != 1 || seen[0].RequestURI != "/admin/peatio" {
		t.Errorf("the panel of peatio: %+v", seen)
	}
	users := wants(200, "GET", "/api/v2/barong/admin/users?extended=true")

	// Mails: on its own events, on those of peatio, once, and none by the kit's mailer.
	var list []struct{ UID, Email string }
	if err := json.Unmarshal([]byte(users), &list); err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(list, func(u struct{ UID, Email string }) bool { return u.Email == "john@exchange.test" })
	if at < 0 {
		t.Fatalf("users %s", users)
	}
	k.mails.await(t, "john@exchange.test", "New Login")
	k.mails.await(t, "admin@exchange.test", "New Login")
	deposit := k.sign("peatio", map[string]any{
		"iss": "peatio", "jti": "one", "iat": time.Now().Unix(), "exp": time.Now().Unix() + 60,
		"event": map[string]any{
			"name":    "model.deposit.updated",
			"record":  map[string]any{"user": map[string]any{"uid": list[at].UID}, "amount": "0.5", "currency": "btc", "state": "accepted", "tid": "TID1"},
			"changes": map[string]any{"state": "submitted"},
		},
	})
	for range 2 {
		k.broker.Publish("peatio.events.model", "deposit.updated", deposit)
	}
	mail := k.mails.await(t, "john@exchange.test", "Deposit Accepted")
	if !strings.Contains(mail.text, "0.5 BTC") {
		t.Errorf("mail %q", mail.text)
	}
	testkit.Eventually(t, patience, func() bool {
		waiting, _ := k.broker.Queue("barong.mailer")
		return len(waiting) == 0 && k.broker.InHand("barong.mailer") == 0
	})
	if keys := k.broker.Keys(); !slices.Contains(keys, "session.create") {
		t.Errorf("other services were told %v", keys)
	}
	doctor := k.run("doctor", "--gateway-file", filepath.Join(testkit.Root(t), "deploy", "opendax", "envoy.yaml"))
	for _, want := range []string{`gateway .*envoy\.yaml +ok`, `management API +ok`, `mailer +ok .*1 events`, `database +ok`, `redis +ok`, `message broker +ok`} {
		if !regexp.MustCompile(want).MatchString(doctor) {
			t.Errorf("doctor does not say %q:\n%s", want, doctor)
		}
	}
	if status := p.Stop(); status != 0 {
		t.Errorf("ended with %d:\n%s", status, p.Output())
	}
	k.mails.mu.Lock()
	defer k.mails.mu.Unlock()
	for _, l := range k.mails.got {
		t.Errorf("a mail too many: %s to %s", l.subject, l.to)
	}
}

// judge verifies a token as the kit's services do, with the public key of barong.key, and looks at the claims they need.
func (k *kit) judge(token string) {
	k.t.Helper()
	set, err := keys.Load(k.inside("/secrets/barong.key"), "RS256", time.Now())
	if err != nil {
		k.t.Fatal(err)
	}
	var claims struct {
		Subject          string   `json:"sub"`
		Issuer           string   `json:"iss"`
		Audience         []string `json:"aud"`
		Email, Role, UID string
		Level            int
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		k.t.Fatalf("no token: %q", token)
	}
	value, err := base64.RawURLEncoding.DecodeString(parts[2])
	want, serr := set.Signature([]byte(parts[0] + "." + parts[1]))
	if err = cmp.Or(err, serr); err != nil || !bytes.Equal(value, want) { // RS256 has one signature
		k.t.Errorf("the token is not signed with barong.key: %v", err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil || claims.Subject != "session" || claims.Issuer != "barong" || !slices.Equal(claims.Audience, []string{"peatio", "barong"}) ||
		claims.Email != "john@exchange.test" || claims.Role != "member" || claims.UID == "" {
		k.t.Errorf("claims %s, %v", payload, err)
	}
}

// sign signs a message as a service of the kit: all have one key.
func (k *kit) sign(as string, claims map[string]any) []byte {
	k.t.Helper()
	set, err := keys.Load(k.inside("/secrets/barong.key"), "RS256", time.Now())
	if err != nil {
		k.t.Fatal(err)
	}
	text, err := json.Marshal(claims)
	if err != nil {
		k.t.Fatal(err)
	}
	m := jws.New(text)
	if err := m.Sign(as, set); err != nil {
		k.t.Fatal(err)
	}
	body, err := json.Marshal(m)
	if err != nil {
		k.t.Fatal(err)
	}
	return body
}

// socket opens a websocket through the gateway and returns what comes back of a ping, or the status of the refusal.
func (k *kit) socket(gateway, path, cookie string) string {
	k.t.Helper()
	conn, err := net.DialTimeout("tcp", gateway, patience)
	if err != nil {
		k.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		k.t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: www.app.local\r\nUser-Agent: Mozilla/5.0\r\nX-Forwarded-For: 203.0.113.7\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", path)
	if cookie != "" {
		fmt.Fprintf(conn, "Cookie: %s\r\n", cookie)
	}
	fmt.Fprint(conn, "\r\n")
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, &http.Request{Method: http.MethodGet})
	if err != nil {
		k.t.Fatal(err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Sprint(res.StatusCode)
	}
	fmt.Fprint(conn, "ping")
	b := make([]byte, 4)
	if _, err := io.ReadFull(in, b); err != nil {
		k.t.Fatal(err)
	}
	return string(b)
}
