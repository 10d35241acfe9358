package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"barong/internal/crypto/jws"
	"barong/internal/crypto/jws/jwstest"
	"barong/internal/delivery/events/amqptest"
	"barong/internal/test/testkit"
)

// TestEvents: what happens while the message broker is away is told, in order, once it is there.
func TestEvents(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		compat  string
		expires bool
	}{{"reference", false}, {"2.4.17", true}} {
		t.Run(c.compat, func(t *testing.T) {
			dir := t.TempDir()
			api, ops := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
			broker := testkit.FreePort(t)
			env := []string{
				"BARONG_COMPAT=" + c.compat, "BARONG_HTTP_ADDR=" + api, "BARONG_OPS_ADDR=" + ops, "BARONG_GRPC_ADDR=",
				"BARONG_JWT_ALGORITHM=EdDSA", "ADMIN_PASSWORD=Tr0ub4dor&3xyz", "BARONG_LOG_LEVEL=debug",
				"BARONG_DATABASE_URL=sqlite://" + filepath.Join(dir, "barong.db"),
				fmt.Sprintf("BARONG_EVENT_API_RABBITMQ_PORT=%d", broker), "BARONG_EVENT_API_RABBITMQ_HOST=127.0.0.1",
				"BARONG_EVENT_API_RABBITMQ_PASSWORD=hunter2hunter2",
			}
			p := testkit.Start(t, testkit.Barong(t), []string{"serve"}, env, testkit.Answers("http://"+ops+"/readyz"))
			for _, name := range []string{"a", "b"} {
				resp, err := http.Post("http://"+api+"/api/v2/identity/users", "application/json",
					strings.NewReader(`{"email":"`+name+`@b.test","password":"Tecohvi0-Xuq"}`))
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusCreated {
					t.Fatalf("sign-up without a broker: %d", resp.StatusCode)
				}
			}
			b := amqptest.Broker{User: "guest", Password: "hunter2hunter2"}
			b.Start(t, fmt.Sprintf("127.0.0.1:%d", broker))
			testkit.Eventually(t, time.Minute, func() bool { return len(b.Messages()) == 4 })
			if got := b.Keys(); !slices.Equal(got, []string{
				"user.created", "user.email.confirmation.token", "user.created", "user.email.confirmation.token",
			}) {
				t.Errorf("got %v", got)
			}
			for _, m := range b.Messages() {
				parsed, err := jws.Parse(m.Body)
				if err != nil {
					t.Fatal(err)
				}
				text, err := parsed.Bytes()
				if err != nil {
					t.Fatal(err)
				}
				var claims struct {
					Exp   *int64 `json:"exp"`
					Event struct {
						Record struct{ Token string }
					}
				}
				if err := json.Unmarshal(text, &claims); err != nil {
					t.Fatal(err)
				}
				if expires := claims.Exp != nil; expires != c.expires {
					t.Errorf("%s: expires: %v", m.Key, expires)
				}
				if token := claims.Event.Record.Token; token != "" && strings.Contains(p.Output(), token) {
					t.Error("the log holds a token")
				}
			}
			if status := p.Stop(); status != 0 {
				t.Errorf("ended with %d", status)
			}
			if strings.Contains(p.Output(), "hunter2") {
				t.Error("the log holds the broker's password")
			}
			if made, orderly := b.Connections(); made != 1 || orderly != 1 {
				t.Errorf("%d connections, %d closed in order", made, orderly)
			}
		})
	}
}

func TestDoctorLooksAtTheBroker(t *testing.T) {
	t.Parallel()
	var b amqptest.Broker
	b.Start(t, "")
	play(t, t.TempDir(),
		step{call: "doctor", out: "configuration +ok", not: "message broker"},
		step{
			call: "doctor", env: []string{"BARONG_EVENT_API_RABBITMQ_URL=" + b.URL()},
			out: `message broker +ok +amqp://guest:\*\*\*@127\.0\.0\.1:\d+/, a broker for tests 1`, not: "FAILED",
		},
		step{
			call: "doctor", status: 1, env: []string{"BARONG_EVENT_API_RABBITMQ_URL=amqp://guest:hunter2@" + b.Addr()},
			out: `message broker +FAILED +amqp://guest:\*\*\*@.*ACCESS_REFUSED`, not: "hunter2",
		},
		step{
			call: "doctor", status: 1, env: []string{fmt.Sprintf("BARONG_EVENT_API_RABBITMQ_PORT=%d", testkit.FreePort(t))},
			out: `message broker +FAILED +amqp://guest:\*\*\*@localhost:\d+/: message broker: connect: .*refused`,
		},
		step{
			call: "serve", status: 2, env: []string{"BARONG_EVENT_API_RABBITMQ_URL=amqp://guest:hunter2/x@h"}, out: ".",
			errs: `BARONG_EVENT_API_RABBITMQ_URL="amqp://guest:\*\*\*@h" is not allowed: it cannot be read`, not: "hunter2",
		},
	)
}

// TestMailer: what other services tell is mailed by a server that has a mailer.yml, and no mail is written twice beside
// another mailer.
func TestMailer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var b amqptest.Broker
	b.Start(t, "")
	peatio := jwstest.New(t)
	file := filepath.Join(dir, "mailer.yml")
	entries := "keychain: {peatio: " + peatio.Entry() + "}\nexchanges: {peatio: {name: peatio.events.model, signer: peatio}}\n" +
		"events: [{key: beneficiary.created, exchange: peatio, templates: {EN: {subject: New Beneficiary, template_path: new_beneficiary.en.html.erb}}}]\n"
	if err := os.WriteFile(file, []byte(entries), 0o600); err != nil {
		t.Fatal(err)
	}
	api, ops := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	env := []string{
		"BARONG_HTTP_ADDR=" + api, "BARONG_OPS_ADDR=" + ops, "BARONG_GRPC_ADDR=", "BARONG_JWT_ALGORITHM=EdDSA", "ADMIN_PASSWORD=Tr0ub4dor&3xyz",
		"BARONG_DATABASE_URL=sqlite://" + filepath.Join(dir, "barong.db"), "BARONG_EVENT_API_RABBITMQ_URL=" + b.URL(), "BARONG_MAILER_FILE=" + file,
		"BARONG_DRAIN_TIME=0",
	}
	start := func(more ...string) (p *testkit.Process, mails func() []string) {
		p = testkit.Start(t, testkit.Barong(t), []string{"serve"}, slices.Concat(env, more), testkit.Answers("http://"+ops+"/readyz"))
		folder, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return p, func() (out []string) {
			files, err := filepath.Glob(filepath.Join(folder, "data", "outbox", "*.eml"))
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range files {
				text, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, string(text))
			}
			return out
		}
	}
	signUp := func(email string) {
		resp, err := http.Post("http://"+api+"/api/v2/identity/users", "application/json", strings.NewReader(`{"email":"`+email+`","password":"Tecohvi0-Xuq"}`))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("sign-up: %d", resp.StatusCode)
		}
	}
	p, mails := start()
	testkit.Eventually(t, time.Minute, func() bool { return len(b.Bindings("barong.mailer")) == 1 })
	message := jws.New(fmt.Appendf(nil, `{"iss":"peatio","jti":"1","iat":%d,"exp":%[1]d,"event":{"name":"model.beneficiary.created",`+
		`"record":{"user":{"email":"admin@barong.io"},"currency":"btc","name":"cold","pin":"731004"}}}`, time.Now().Unix()+30))
	if err := message.Sign("peatio", peatio); err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		b.Publish("peatio.events.model", "beneficiary.created", body)
	}
	b.Publish("peatio.events.model", "beneficiary.created", []byte("hostile"))
	signUp("a@b.test")
	testkit.Eventually(t, time.Minute, func() bool { return len(mails()) == 2 })
	testkit.Eventually(t, time.Minute, func() bool {
		dead, _ := b.Queue("barong.mailer.dead")
		return len(dead) == 1 && b.InHand("barong.mailer") == 0
	})
	all := strings.Join(mails(), "\n")
	if len(mails()) != 2 || !strings.Contains(all, "731004") || !strings.Contains(all, "Subject: New Beneficiary") || !strings.Contains(all, "Registration Confirmation") {
		t.Errorf("mails:\n%s", all)
	}
	resp, err := http.Get("http://" + ops + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	metrics := string(text)
	for _, want := range []string{
		`barong_mailer_messages_total{outcome="mailed"} 1`, `barong_mailer_messages_total{outcome="repeated"} 2`,
		`barong_mailer_messages_total{outcome="dead"} 1`, `barong_mailer_connected 1`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics have no %s", want)
		}
	}
	if status := p.Stop(); status != 0 || strings.Contains(p.Output(), "731004") || !strings.Contains(p.Output(), "set aside") {
		t.Errorf("ended with %d:\n%s", status, p.Output())
	}

	before := len(b.Messages())
	p, mails = start("BARONG_MAILER=off")
	signUp("c@b.test")
	testkit.Eventually(t, time.Minute, func() bool { return len(b.Messages()) == before+2 })
	if got := b.Keys()[before:]; !slices.Equal(got, []string{"user.created", "user.email.confirmation.token"}) {
		t.Errorf("told are %v", got)
	}
	if status := p.Stop(); status != 0 {
		t.Errorf("ended with %d", status)
	}
	if got := mails(); len(got) != 0 {
		t.Errorf("mails beside another mailer:\n%s", got)
	}
	broker := "BARONG_EVENT_API_RABBITMQ_URL=" + b.URL()
	play(t, dir,
		step{call: "doctor", env: []string{broker, "BARONG_MAILER_FILE=" + file}, out: `mailer +ok +.*mailer\.yml: 1 events of other services`, not: "FAILED"},
		step{call: "doctor", env: []string{broker, "BARONG_MAILER_FILE=" + file, "BARONG_MAILER=off"}, out: "configuration +ok", not: "mailer +ok"},
		step{
			call: "serve", status: 2, env: []string{"BARONG_MAILER=off"}, out: ".",
			errs: "BARONG_MAILER=off needs BARONG_EVENT_API_RABBITMQ_URL: nobody would hear",
		},
	)
	if err := os.WriteFile(file, []byte(strings.NewReplacer("template_path: new_beneficiary.en.html.erb", "template_path: other.en.html.erb", "beneficiary.created", "thing.created").Replace(entries)), 0o600); err != nil {
		t.Fatal(err)
	}
	play(t, dir, step{
		call: "serve", status: 2, env: []string{broker, "BARONG_MAILER_FILE=" + file}, out: ".",
		errs: `BARONG_MAILER_FILE=.*keychain, exchanges and events: events\[0\] \(thing\.created\): templates: language en: there are no words for it`,
	})
}
