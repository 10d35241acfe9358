package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"barong/internal/crypto/jws"
	"barong/internal/delivery/events/amqptest"
	"barong/internal/test/testkit"
)

// TestEvents: what happens while the message broker is away is told, in order, once it is there.
func TestEvents(t *testing.T) {
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
