package systemtest

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"barong/internal/test/testkit"
)

// A mailServer is a real SMTP server on loopback.
type mailServer struct {
	addr string
	mu   sync.Mutex
	got  []letter
	errs []error
}

// A dialogue is one connection to a mailServer.
type dialogue struct{ s *mailServer }

func (dialogue) Reset()                               {}
func (dialogue) Logout() error                        { return nil }
func (dialogue) Mail(string, *smtp.MailOptions) error { return nil }
func (dialogue) Rcpt(string, *smtp.RcptOptions) error { return nil }

func (d dialogue) Data(r io.Reader) error {
	l, err := readLetter(r)
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	if err != nil {
		d.s.errs = append(d.s.errs, err)
		return err
	}
	d.s.got = append(d.s.got, l)
	return nil
}

func newMailServer(t *testing.T) *mailServer {
	t.Helper()
	s := &mailServer{}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return dialogue{s}, nil }))
	server.Domain = "mail.test"
	server.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // ends with Close
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, err := range s.errs {
			t.Errorf("a mail that cannot be read: %v", err)
		}
	})
	return s
}

// await waits for a mail to an address with a subject, and takes it.
func (s *mailServer) await(t *testing.T, to, subject string) letter {
	t.Helper()
	var found letter
	testkit.Eventually(t, patience, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, l := range s.got {
			if l.to == to && l.subject == subject {
				found = l
				s.got = append(s.got[:i:i], s.got[i+1:]...)
				return true
			}
		}
		return false
	})
	return found
}

// startEnvoy starts a real Envoy on the reference configuration, with other ports, before replicas and an upstream. The
// addresses of the replicas' APIs, and those of their checks, are separated by spaces.
func startEnvoy(t *testing.T, apis, checks, upstream string) (gateway string) {
	t.Helper()
	gateway = addr(t)
	startGateway(t, "envoy", gateway, apis, checks, upstream)
	return gateway
}

// startGateway starts a real gateway, envoy or traefik, on its reference configuration, with other ports. Envoy takes
// several replicas. What is given more stands at the end of the first file.
func startGateway(t *testing.T, name, gateway, apis, checks, upstream string, more ...string) {
	t.Helper()
	files := map[string][]string{"envoy": {"envoy.yaml"}, "traefik": {"traefik.yml", "traefik-dynamic.yml"}}[name]
	args := map[string][]string{
		"envoy":   {"-c", "envoy.yaml", "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warn"},
		"traefik": {"--configFile=traefik.yml"},
	}[name]
	dir := t.TempDir()
	for i, file := range files {
		text, err := os.ReadFile(filepath.Join(testkit.Root(t), "envoy", file))
		if err != nil {
			t.Fatal(err)
		}
		for i, port := range []string{"8000", "8080", "8081", "8090"} {
			text = regexp.MustCompile(`\b`+port+`\b`).ReplaceAll(text, fmt.Appendf(nil, "port%d", i))
		}
		for i, to := range []string{gateway, apis, checks, upstream} {
			text = putPorts(t, text, fmt.Appendf(nil, "port%d", i), strings.Fields(to))
		}
		if i == 0 {
			text = append(text, strings.Join(more, "")...)
		}
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Files that a configuration names are looked for in the working directory.
	line := append([]string{"-c", `cd "$0" && exec "$@"`, dir, testkit.Bin(t, name)}, args...)
	testkit.Start(t, "/bin/sh", line, []string{"HOME=" + dir}, func() error {
		res, err := probes.Get("http://" + gateway + "/.ready")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized {
			return fmt.Errorf("got %d", res.StatusCode)
		}
		return nil
	})
}

// putPorts writes the ports of addresses in the place of a name: each of them where a cluster of Envoy lists its endpoints,
// the first elsewhere.
func putPorts(t *testing.T, text, name []byte, addrs []string) []byte {
	t.Helper()
	var ports []string
	for _, to := range addrs {
		_, port, err := net.SplitHostPort(to)
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, port)
	}
	text = regexp.MustCompile(`(?m)^ *- endpoint: .*\n`).ReplaceAllFunc(text, func(line []byte) []byte {
		if !bytes.Contains(line, name) {
			return line
		}
		var lines []byte
		for _, port := range ports {
			lines = append(lines, bytes.ReplaceAll(line, name, []byte(port))...)
		}
		return lines
	})
	return bytes.ReplaceAll(text, name, []byte(ports[0]))
}

// A whole life of an account, through Envoy on its reference configuration: from the sign-up to the deletion.
func TestLife(t *testing.T) {
	t.Parallel()
	mails := newMailServer(t)
	host, port, err := net.SplitHostPort(mails.addr)
	if err != nil {
		t.Fatal(err)
	}
	upstream := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "served %s", strings.SplitN(r.Header.Get("Authorization"), " ", 2)[0])
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = upstream.Serve(l) }() // ends with Close
	t.Cleanup(func() { upstream.Close() })

	v := newVault()
	checks := addr(t)
	env := v.collector(t, "check", "POST /identity/users", "POST /identity/sessions", "POST /resource/phones/verify", "POST /resource/documents",
		"POST /resource/otp/enable", "POST /resource/api_keys", "PUT /resource/users/password", "DELETE /resource/users/me", "sqlite select")
	s := startServer(t, v, append(env, "BARONG_CHECK_ADDR="+checks, "BARONG_SMTP_HOST="+host, "BARONG_SMTP_PORT="+port,
		"BARONG_RATE_LIMITS=on", "BARONG_DOMAIN=front.example.com", "BARONG_JWT_ALGORITHM=RS256")...)
	s.keepSigningKeys()
	gateway := startEnvoy(t, s.api, checks, l.Addr().String())
	browse := func() *client { return newClient(gateway, v) }
	served := func(what string, r reply) {
		t.Helper()
		if r.status != 200 || r.body != "served Bearer" {
			t.Fatalf("%s: got %s", what, r)
		}
	}

	const email, password = "Somebody@Example.com", "Zt8-kWq3+vRn"
	const address = "somebody@example.com"
	c := browse()
	c.send("GET", account, nil).wants(t, "before the sign-up", 401, "authz.invalid_session")
	var me struct {
		State, UID  string
		Level       int
		OTP         bool
		Labels      []struct{ Key, Value, Scope string }
		Profiles    []struct{ State string }
		Phones      []struct{ Number string }
		DataStorage []any `json:"data_storages"`
	}
	c.signUp(email, password).wants(t, "sign-up", 201).into(t, &me)
	if me.State != "pending" || me.Level != 0 {
		t.Errorf("after the sign-up: %+v", me)
	}

	// The address is confirmed by the link in the mail.
	confirmation := mails.await(t, address, "Registration Confirmation")
	if !strings.HasPrefix(link.FindString(confirmation.text), "https://front.example.com/") {
		t.Errorf("the link of the mail: %s", confirmation.text)
	}
	token := confirmation.token(t, v)
	c.keepSession(c.call("POST", "/identity/users/email/confirm_code", params{"token": token})).wants(t, "confirmation", 201).into(t, &me)
	if me.State != "active" || me.Level != 1 {
		t.Errorf("after the confirmation: %+v", me)
	}
	browse().call("POST", "/identity/users/email/confirm_code", params{"token": token}).
		wants(t, "a second confirmation", 422, "identity.user.active_or_doesnt_exist")
	served("the session of the confirmation", c.send("GET", account, nil))

	second := browse()
	second.signIn(address, password).wants(t, "sign-in", 201)
	mails.await(t, address, "New Login")
	served("the second session", second.send("GET", account, nil))

	// A phone, verified by the code of the message.
	const number = "+1 (415) 555-2671"
	c.call("POST", "/resource/phones", params{"phone_number": number}).wants(t, "phone", 201)
	messages, err := filepath.Glob(filepath.Join(s.outbox(), "*.txt"))
	if err != nil || len(messages) != 1 {
		t.Fatalf("messages: %v, %v", messages, err)
	}
	message, err := os.ReadFile(messages[0])
	if err != nil {
		t.Fatal(err)
	}
	code := v.keep("phone code", regexp.MustCompile(`\b\d{6}\b`).FindString(string(message)))
	if !strings.HasPrefix(string(message), "To: +14155552671\n\n") || code == "" {
		t.Errorf("the message: %q", message)
	}
	c.call("POST", "/resource/phones/verify", params{"phone_number": number, "verification_code": code}).wants(t, "phone", 201).into(t, &me)
	if me.Level != 2 || len(me.Phones) != 1 {
		t.Errorf("after the phone: %+v", me)
	}

	c.call("POST", "/resource/profiles", params{
		"first_name": "Ada", "last_name": "Lovelace", "dob": "1990-12-10", "address": "12 St James's Square", "postcode": "SW1Y 4JH",
		"city": "London", "country": "GB", "confirm": true,
	}).wants(t, "profile", 201)
	var picture bytes.Buffer
	if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 40, 40))); err != nil {
		t.Fatal(err)
	}
	c.call("POST", "/resource/documents", newForm(t, map[string]string{
		"doc_type": "Passport", "doc_number": "AB 1234567", "doc_expire": time.Now().AddDate(2, 0, 0).Format(time.DateOnly),
	}, "passport.png", picture.Bytes())).wants(t, "document", 201)
	var documents []struct{ Upload string }
	c.call("GET", "/resource/documents", nil).wants(t, "documents", 200).into(t, &documents)
	if len(documents) != 1 {
		t.Fatalf("documents: %+v", documents)
	}
	file := documents[0].Upload
	if strings.HasPrefix(file, "/") {
		file = "http://" + s.api + file
	}
	res, err := probes.Get(file)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || res.StatusCode != 200 || !bytes.Equal(stored, picture.Bytes()) {
		t.Errorf("the file at %s: %d, %d bytes, %v", file, res.StatusCode, len(stored), err)
	}
	if res, err := probes.Get(strings.Replace(file, "signature=", "signature=0", 1)); err != nil || res.StatusCode < 400 {
		t.Errorf("the file with another signature: %v, %v", res, err)
	} else {
		res.Body.Close()
	}

	// The second factor ends the other sessions, and is asked for from then on.
	factor := c.enable2FA(t)
	served("the session that switched the second factor on", c.send("GET", account, nil))
	second.send("GET", account, nil).wants(t, "another session then", 401, "authz.invalid_session")
	mails.await(t, address, "Two-Factor Authentication Enabled")
	second = browse()
	second.signIn(address, password).wants(t, "sign-in without a code", 401, "identity.session.missing_otp")
	second.keepSession(second.call("POST", "/identity/sessions", params{"email": address, "password": password, "otp_code": factor.code(t)})).
		wants(t, "sign-in with a code", 201)
	served("the new session", second.send("GET", account, nil))

	// A bot calls with a key.
	s.later(factor)
	k := c.newKey(t, factor)
	bot := browse()
	signed := k.sign()
	served("a signed call", bot.send("GET", account, nil, signed...))
	bot.send("GET", account, nil, signed...).wants(t, "the same signature again", 401, "authz.signature_blacklisted")
	served("a signed call that changes something", bot.send("POST", account, params{}, k.sign()...))
	bot.send("GET", account, nil, signature(k.KID, "0123456789abcdef", time.Now().UnixMilli())...).
		wants(t, "a wrong signature", 401, "authz.invalid_signature")

	// Another password ends the other sessions; so does the old one.
	const next = "Gm4+xHd7-pLs"
	v.keep("password", next)
	c.call("PUT", "/resource/users/password", params{"old_password": password, "new_password": next, "confirm_password": next}).
		wants(t, "password change", 201)
	served("the session that changed the password", c.send("GET", account, nil))
	second.send("GET", account, nil).wants(t, "another session then", 401, "authz.invalid_session")
	mails.await(t, address, "Password Changed")
	browse().signIn(address, password).wants(t, "sign-in with the old password", 401, "identity.session.invalid_params")

	// Without the CSRF token nothing can be changed.
	bare := *c
	bare.csrf = ""
	bare.call("POST", "/resource/labels", params{"key": "some", "value": "thing"}).wants(t, "no CSRF token", 401, "authz.missing_csrf_token")

	// The end.
	s.later(factor)
	c.call("DELETE", "/resource/users/me?password="+strings.ReplaceAll(next, "+", "%2B")+"&otp_code="+factor.code(t), nil).
		wants(t, "deletion", 204)
	if r := c.send("GET", account, nil); r.status != 401 {
		t.Errorf("the session after the deletion: got %s", r)
	}
	if r := bot.send("GET", account, nil, k.sign()...); r.status != 401 {
		t.Errorf("the key after the deletion: got %s", r)
	}
	mails.await(t, address, "Account Deleted")
	browse().signIn(address, next).wants(t, "sign-in after the deletion", 401, "identity.session.deleted")

	// What personal data there was stands sealed in the database.
	for _, name := range []string{"barong.db", "barong.db-wal"} {
		b, err := os.ReadFile(filepath.Join(s.dir, "data", name))
		if err != nil {
			t.Fatal(err)
		}
		for _, personal := range []string{"Lovelace", "SW1Y 4JH", "4155552671", "AB 1234567", k.Secret, factor.secret, password, next} {
			if bytes.Contains(b, []byte(personal)) {
				t.Errorf("%s holds %q", name, personal)
			}
		}
	}
	for _, personal := range []string{"Lovelace", "SW1Y 4JH", "4155552671", "AB 1234567"} {
		v.keep("personal data", personal)
	}
	v.search(t, s.probe("/metrics").body)
}
