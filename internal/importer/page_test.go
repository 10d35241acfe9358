package importer_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"barong/internal/delivery/events/amqptest"
	"barong/internal/test/testkit"
)

// A mover follows docs/moving.md from top to bottom, in a folder of its own.
type mover struct {
	t      *testing.T
	dir    string
	env    []string
	old    string // URL of the original's MySQL on the evening
	vault  string
	api    string
	server *testkit.Process
	served int
}

func (m *mover) write(name string, text []byte) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o700); err != nil {
		m.t.Fatal(err)
	}
}

// run runs one line of the page.
func (m *mover) run(line string) {
	m.t.Helper()
	words := strings.Fields(line)
	switch {
	case words[0] == "export":
		for _, v := range words[1:] {
			v = os.Expand(v, func(name string) string {
				for _, set := range slices.Backward(m.env) {
					if value, ok := strings.CutPrefix(set, name+"="); ok {
						return value
					}
				}
				return ""
			})
			m.env = append(m.env, strings.ReplaceAll(v, "http://127.0.0.1:8200", m.vault))
		}
		return
	case words[0] == "unset":
		m.env = slices.DeleteFunc(m.env, func(v string) bool { return strings.HasPrefix(v, words[1]+"=") })
		return
	case line == "barong serve":
		if m.server != nil {
			if status := m.server.Stop(); status != 0 {
				m.t.Errorf("the replica ended with %d:\n%s", status, m.server.Output())
			}
		}
		m.server = testkit.Start(m.t, "/bin/sh", []string{"-c", `cd "$0" && exec barong serve`, m.dir}, m.env, testkit.Answers("http://"+m.api+"/api/v2/identity/ping"))
		m.served++
		return
	}
	line = strings.NewReplacer("http://127.0.0.1:8200", m.vault, "mysql://reader@db.internal/barong_production", "'"+m.old+"'").Replace(line)
	ctx, cancel := context.WithCancel(m.t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	cmd.Dir, cmd.Env = m.dir, append(os.Environ(), m.env...)
	out, err := cmd.CombinedOutput()
	want := 0
	if words[1] == "import" && !strings.Contains(line, "--verify") {
		want = 3 // the database has oddities, and the report tells of them
	}
	if status := cmd.ProcessState.ExitCode(); status != want {
		m.t.Errorf("%s: status %d, want %d: %v\n%s", line, status, want, err, out)
	}
}

// signIn signs in with the password that a user had in the original.
func (m *mover) signIn(email, code string) int {
	m.t.Helper()
	res, err := http.Post("http://"+m.api+"/api/v2/identity/sessions", "application/json", strings.NewReader(`{"email":"`+email+`","password":"Secret-Word-1","otp_code":"`+code+`"}`))
	if err != nil {
		m.t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body) // only the status matters
	return res.StatusCode
}

// TestPage runs every command of docs/moving.md, in its order and on both databases, with a stand-in of mysqldump, a server
// that speaks MySQL's protocol, and one that answers as Vault does.
func TestPage(t *testing.T) {
	t.Parallel()
	blocks := testkit.Blocks(t, "docs/moving.md")
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)})
	person := func(id int, name, role, updated string) []any {
		return []any{id, "ID" + strings.ToUpper(name), name + "@example.com", digest, role, nil, 1, 0, "active", nil, day1, updated}
	}
	add := func(people ...[]any) []table {
		return with(with(invented(), "users", func(t *table) { t.rows = append(t.rows, people...) }), "labels", func(t *table) {
			for _, p := range people {
				t.rows = append(t.rows, []any{100 + p[0].(int), p[0], "email", "verified", "private", nil, day1, day1})
			}
		})
	}
	before := sql(add(person(5, "anna", "member", day1), person(6, "ines", "member", day1)), style{})
	old := mysqlServer(t, add(person(5, "anna", "admin", day2), person(7, "late", "member", day2))) // ines is gone
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			m := &mover{t: t, dir: t.TempDir(), old: strings.Replace(old, ":hunter2@", "@", 1), vault: fakeVault(t)}
			var broker amqptest.Broker
			broker.Start(t, "")
			m.api = net.JoinHostPort("127.0.0.1", strconv.Itoa(testkit.FreePort(t)))
			url := "sqlite://" + filepath.Join(m.dir, "data", "barong.db")
			if engine == "postgres" {
				url = testkit.Postgres(t)
			}
			m.env = []string{
				"PATH=" + filepath.Join(m.dir, "bin") + ":" + os.Getenv("PATH"), "BARONG_DATABASE_URL=" + url,
				"BARONG_SECRET_KEY=MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY=", "BARONG_VAULT_TOKEN=root", "BARONG_MYSQL_PASSWORD=hunter2",
				"BARONG_HTTP_ADDR=" + m.api, "BARONG_OPS_ADDR=", "BARONG_GRPC_ADDR=", "BARONG_DRAIN_TIME=0", "BARONG_EVENT_API_RABBITMQ_URL=" + broker.URL(),
			}
			m.write("dump.sql", []byte(before))
			m.write("bin/mysqldump", []byte("#!/bin/sh\n[ \"$3\" = barong_production ] && exec cat "+filepath.Join(m.dir, "dump.sql")+"\n"))
			m.write("bin/barong", []byte("#!/bin/sh\nexec "+testkit.Barong(t)+" \"$@\"\n"))
			m.write("secrets/barong.key", key)

			ran := 0
			for _, block := range blocks {
				if block.Language != "sh" {
					t.Errorf("the page has a block that is not run: %s", block.Code)
				}
				for line := range strings.Lines(block.Code) {
					if line = strings.TrimSpace(line); line == "" {
						continue
					}
					m.run(line)
					if ran++; t.Failed() {
						t.Fatalf("the page ends at %q", line)
					}
					switch {
					case line == "barong serve" && m.served == 1: // beside the old one
						if got := m.signIn("anna@example.com", ""); got != http.StatusOK {
							t.Errorf("a person of the original signs in: %d", got)
						}
						if got := m.signIn("ines@example.com", ""); got != http.StatusOK {
							t.Errorf("a person of the original signs in: %d", got)
						}
					case line == "barong serve": // after the switch
						for email, want := range map[string]int{"anna@example.com": http.StatusOK, "late@example.com": http.StatusOK, "ines@example.com": http.StatusUnauthorized} {
							if got := m.signIn(email, ""); got != want {
								t.Errorf("%s signs in: %d, want %d", email, got, want)
							}
						}
						// Only Vault knows bob's second factor.
						for _, c := range []struct {
							code string
							want int
						}{{"", 401}, {"654321", 403}, {"123456", 200}} {
							if got := m.signIn("bob@localhost", c.code); got != c.want {
								t.Errorf("bob signs in with %q: %d, want %d", c.code, got, c.want)
							}
						}
					}
				}
			}
			if m.served != 2 || ran < 10 {
				t.Errorf("%d commands were run, %d of them servers", ran, m.served)
			}
			var report struct {
				Rows map[string]struct{ Imported int64 }
			}
			text, err := os.ReadFile(filepath.Join(m.dir, "delta.json"))
			if err == nil {
				err = json.NewDecoder(bytes.NewReader(text)).Decode(&report)
			}
			if err != nil || report.Rows["users"].Imported != 6 {
				t.Errorf("the report of the evening: %v, %v", report.Rows["users"], err)
			}
			if status := m.server.Stop(); status != 0 {
				t.Errorf("the replica ended with %d:\n%s", status, m.server.Output())
			}
		})
	}
}
