package main_test

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"barong/internal/test/testkit"
)

// TestNATS: a server tells NATS what happens while the message broker beside it is away; what the stream does not take is
// shown by a command and comes again by another.
func TestNATS(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t, "")
	conn, err := nats.Connect(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	stream := jetstream.StreamConfig{Name: "events", Subjects: []string{"auth.>"}, MaxMsgSize: 64}
	if _, err := js.CreateStream(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	api, ops := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	env := []string{
		"BARONG_HTTP_ADDR=" + api, "BARONG_OPS_ADDR=" + ops, "BARONG_GRPC_ADDR=", "BARONG_JWT_ALGORITHM=EdDSA", "ADMIN_PASSWORD=Tr0ub4dor&3xyz",
		"BARONG_DATABASE_URL=sqlite://" + filepath.Join(dir, "barong.db"), fmt.Sprintf("BARONG_EVENT_API_RABBITMQ_URL=amqp://guest:guest@127.0.0.1:%d", testkit.FreePort(t)),
		"BARONG_EVENT_API_NATS_URL=nats://u:hunter2@" + s.Addr, "BARONG_EVENT_API_NATS_SUBJECT=auth", "BARONG_EVENT_API_NATS_STREAM=events",
	}
	p := testkit.Start(t, testkit.Barong(t), []string{"serve"}, env, testkit.Answers("http://"+ops+"/readyz"))
	signUp := func(email string) {
		t.Helper()
		resp, err := http.Post("http://"+api+"/api/v2/identity/users", "application/json", strings.NewReader(`{"email":"`+email+`","password":"Tecohvi0-Xuq"}`))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("sign-up: %d", resp.StatusCode)
		}
	}
	inStream := func() (out []string) {
		t.Helper()
		st, err := js.Stream(t.Context(), "events")
		if err != nil {
			t.Fatal(err)
		}
		for seq := uint64(1); seq <= st.CachedInfo().State.LastSeq; seq++ {
			m, err := st.GetMsg(t.Context(), seq)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, m.Subject)
		}
		return out
	}
	signUp("a@b.test")
	testkit.Eventually(t, time.Minute, func() bool {
		out, _, _ := call(t, dir, env, "outbox", "list", "--dead", "--kind", "nats")
		return strings.Count(out, "given up") == 2
	})
	play(
		t, dir,
		step{call: "outbox list --dead", env: env, out: `nats +model\.user\.created .*given up +NATS: publish: message size exceeds maximum allowed`, not: "hunter2|a@b.test"},
		step{call: "outbox list --kind event", env: env, out: `event +model\.user\.created`, not: "given up"}, // it waits, and holds nobody back
		step{call: "doctor", env: env, status: 1, out: `nats +ok +nats://u:\*\*\*@127\.0\.0\.1:\d+, nats-server 2\.[0-9.]+, stream events`, not: "hunter2"},
		step{
			call: "doctor", env: []string{fmt.Sprintf("BARONG_EVENT_API_NATS_URL=tls://127.0.0.1:%d", testkit.FreePort(t))}, status: 1,
			out: `nats +FAILED +tls://127\.0\.0\.1:\d+: NATS: connect: `,
		},
		step{
			call: "serve", status: 2, env: []string{"BARONG_EVENT_API_NATS_URL=nats://u:hunter2/x@h"}, out: ".",
			errs: `BARONG_EVENT_API_NATS_URL="nats://u:\*\*\*@h" is not allowed: malformed user or password`, not: "hunter2",
		},
	)
	stream.MaxMsgSize = -1
	if _, err := js.UpdateStream(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	play(t, dir, step{call: "outbox replay --kind nats", env: env, out: "2"})
	testkit.Eventually(t, time.Minute, func() bool { return len(inStream()) == 2 })
	signUp("b@b.test")
	want := []string{"auth.model.user.created", "auth.system.user.email.confirmation.token"}
	testkit.Eventually(t, time.Minute, func() bool { return len(inStream()) == 4 })
	if got := inStream(); !slices.Equal(got[2:], want) {
		t.Errorf("got %v", got)
	}
	testkit.Eventually(t, time.Minute, func() bool { // what is in the stream is counted a moment later
		resp, err := http.Get("http://" + ops + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{
			`barong_outbox_attempts_total{kind="nats",outcome="delivered"} 4`, `barong_outbox_attempts_total{kind="nats",outcome="dead"} 2`,
			`barong_outbox_attempts_total{kind="event",outcome="delivered"} 0`,
		} {
			if !strings.Contains(string(text), line) {
				return false
			}
		}
		return true
	})
	if status := p.Stop(); status != 0 || strings.Contains(p.Output(), "hunter2") {
		t.Errorf("it ended with %d, and wrote\n%s", status, p.Output())
	}
}
