package systemtest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"barong/internal/test/testkit"
)

// rulesPage has the worked examples of rules.
const rulesPage = "docs/rules.md"

// TestRulesPage loads each example of docs/rules.md into the real program, and asks it every line of the example's table.
func TestRulesPage(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(testkit.Root(t), rulesPage))
	if err != nil {
		t.Fatal(err)
	}
	for _, example := range []struct{ name, heading string }{
		{"exchange", "An exchange"}, {"company", "Tools inside a company"}, {"machines", "An API for machines"},
	} {
		t.Run(example.name, func(t *testing.T) {
			t.Parallel()
			_, section, found := strings.Cut(string(text), "\n## "+example.heading+"\n")
			if !found {
				t.Fatalf("%s has no %s", rulesPage, example.heading)
			}
			section, _, _ = strings.Cut(section, "\n## ")
			rows := tableRows(section)
			if len(rows) < 10 {
				t.Fatalf("%d rows", len(rows))
			}
			e := newExample(t, example.name, rows)
			recorded := 0
			for _, row := range rows {
				e.ask(row)
				if strings.HasSuffix(row["Answer"], "on record") {
					recorded++
				}
			}
			if got := e.recorded(); got != recorded {
				t.Errorf("%d rows are on record, want %d", got, recorded)
			}
			if example.name == "exchange" {
				e.explained()
			}
		})
	}
}

// tableRows are the rows of a table of a page, by column.
func tableRows(section string) (rows []map[string]string) {
	var columns []string
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case columns == nil:
			columns = cells
		case strings.HasPrefix(cells[0], "---"):
		default:
			row := map[string]string{}
			for i, cell := range cells {
				row[strings.Trim(columns[i], "`")] = cell
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// An example is a server with the rules of the page, and a person for each role that a table names.
type example struct {
	t       *testing.T
	server  *server
	clients map[string]*client // signed in, by what the column Who says
	keys    map[string]*key
}

var roleOf = regexp.MustCompile("`([a-z]+)`")

func newExample(t *testing.T, name string, rows []map[string]string) *example {
	t.Helper()
	v := newVault()
	e := &example{t: t, clients: map[string]*client{}, keys: map[string]*key{}}
	e.server = newServer(t, v, "BARONG_AUTHZ_RULES_FILE=authz_rules.yml", "BARONG_SEEDS_FILE=seeds.yml")
	// The page's rules alone, and people who are no part of the example.
	password := v.keep("password", "Zw3-rules+Qx8k")
	var people strings.Builder
	addresses := map[string]string{} // by what the column Who says
	people.WriteString("users:\n")
	for _, row := range rows {
		who := row["Who"]
		if role := roleOf.FindStringSubmatch(who); role != nil && addresses[who] == "" {
			addresses[who] = fmt.Sprintf("%s%d@example.com", role[1], len(addresses))
			fmt.Fprintf(&people, "- {email: %s, password: %q, role: %s, state: active, level: 1}\n", addresses[who], password, role[1])
		}
	}
	for file, text := range map[string]string{
		"authz_rules.yml": testkit.Sample(t, rulesPage, name+"/authz_rules.yml"), "seeds.yml": testkit.Sample(t, rulesPage, name+"/seeds.yml"), "people.yml": people.String(),
	} {
		if name != "exchange" && file == "seeds.yml" {
			text += "\nlevels: [{key: email, value: verified}]\n"
		}
		if err := os.WriteFile(filepath.Join(e.server.dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e.server.start()
	e.server.must("seed", "--file", "people.yml")
	for _, row := range rows {
		who := row["Who"]
		if addresses[who] == "" || e.clients[who] != nil {
			continue
		}
		c := e.server.client()
		c.ip = row["From"]
		if _, elsewhere := row["From"]; !elsewhere {
			c.ip = "198.51.100.7"
		}
		signIn := func(code string) {
			t.Helper()
			c.keepSession(c.call("POST", "/identity/sessions", params{"email": addresses[who], "password": password, "otp_code": code})).wants(t, who+" signs in", 201)
		}
		signIn("")
		if strings.HasPrefix(who, "key of") {
			e.keys[who] = c.newKey(t, c.enable2FA(t))
			c.cookie, c.csrf = "", ""
		}
		if strings.HasSuffix(who, "with a code") {
			factor := c.enable2FA(t)
			e.server.later(factor)
			signIn(factor.code(t))
		}
		e.clients[who] = c
	}
	return e
}

// ask asks what a row of a table says, as a gateway does, and compares the answer.
func (e *example) ask(row map[string]string) {
	e.t.Helper()
	what := fmt.Sprintf("%s %s %s", row["Who"], row["From"], row["Request"])
	method, path, _ := strings.Cut(row["Request"], " ")
	status, rest, _ := strings.Cut(row["Answer"], " ")
	status, note := strings.TrimSuffix(status, ","), strings.Trim(rest, "`")
	want, err := strconv.Atoi(status)
	if err != nil {
		e.t.Fatalf("%s: %v", what, err)
	}
	c := e.server.client()
	if known := e.clients[row["Who"]]; known != nil {
		other := *known
		c = &other
	} else if row["Who"] != "nobody" {
		e.t.Fatalf("%s: nobody knows who that is", what)
	}
	if row["From"] != "" {
		c.ip = row["From"]
	}
	var headers []string
	if k := e.keys[row["Who"]]; k != nil {
		headers = k.sign()
	}
	var r reply
	for range 20 { // a machine that is busy may not answer in time
		if r = c.send(method, "/api/v2/auth"+path, nil, headers...); !r.code(503, "authz.unavailable") {
			break
		}
	}
	token, allowed := strings.CutPrefix(r.header.Get("Authorization"), "Bearer ")
	switch {
	case r.err != nil || r.status != want:
		e.t.Errorf("%s: got %s, want %s", what, r, row["Answer"])
	case want != 200 && method != "HEAD" && !r.code(want, note):
		e.t.Errorf("%s: got %s, want %s", what, r, row["Answer"])
	case want == 200 && allowed == (note == "nobody"):
		e.t.Errorf("%s: got the token %q, want %s", what, token, row["Answer"])
	}
	if allowed {
		var claims struct {
			Role string
			AMR  []string
		}
		text, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
		if err != nil || json.Unmarshal(text, &claims) != nil {
			e.t.Fatal(err)
		}
		if role := roleOf.FindStringSubmatch(row["Who"]); claims.Role != role[1] {
			e.t.Errorf("%s: the token says the role is %s", what, claims.Role)
		}
		if amr, there := row["amr"]; there && strings.Join(claims.AMR, " ") != strings.Trim(amr, "`") {
			e.t.Errorf("%s: the token says amr is %v, want %s", what, claims.AMR, amr)
		}
	}
}

// recorded is the number of rows that AUDIT rules have made.
func (e *example) recorded() int {
	e.t.Helper()
	n := 0
	for line := range strings.Lines(e.server.must("audit", "export")) {
		if !strings.HasPrefix(line, "{") {
			continue // how many there are
		}
		var row struct{ Topic string }
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			e.t.Fatalf("%s: %v", line, err)
		}
		if row.Topic == "withdraw" || row.Topic == "payroll" {
			n++
		}
	}
	return n
}

// explained follows the commands about what was refused.
func (e *example) explained() {
	e.t.Helper()
	r := &reader{t: e.t, dir: e.server.dir, env: append(slices.Clone(e.server.env), "PATH="+onPath(e.t)+":"+os.Getenv("PATH"))}
	var blocks []testkit.Block
	for _, b := range testkit.Blocks(e.t, rulesPage) {
		if b.Name == "" {
			blocks = append(blocks, b)
		}
	}
	if len(blocks) < 4 {
		e.t.Fatalf("%d blocks", len(blocks))
	}
	r.follow(blocks)
}

// onPath is a folder with the program, for PATH.
func onPath(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(testkit.Barong(t), filepath.Join(dir, "barong")); err != nil {
		t.Fatal(err)
	}
	return dir
}
