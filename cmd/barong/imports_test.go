package main_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"barong/internal/test/testkit"
)

// rooms are the packages below cmd, in the order in which they build upon each other: what of this module each of them
// imports at most, and why no more. "*" at the end stands for whatever follows, test kits and cmd aside.
var rooms = []struct {
	packages, imports, why string
}{
	{"internal/fault internal/header internal/crypto/secret internal/crypto/jws internal/bus internal/device internal/email internal/patience " +
		"internal/crypto/passkey internal/phone internal/redirect internal/reqid internal/yamlfile session", "", "everybody builds upon it, so it builds upon nothing"},
	{"internal/crypto/keys", "internal/crypto/jws", "it reads keys, and knows nobody who signs with them"},
	{"web", "", "pages speak to the API from the browser"},
	{"internal/trusted", "internal/header", "the decision and the configuration both read it"},
	{"internal/config", "internal/crypto/secret internal/trusted internal/yamlfile", "what a value means is told by the judges that cmd gives it"},
	{"internal/openid", "internal/crypto/secret internal/email internal/patience internal/yamlfile", "it knows who somebody is elsewhere, and no account"},
	{"internal/listener", "internal/fault", "it serves whatever handler it is given"},
	{"internal/bus/redisbus session/redisstore", "internal/bus session", "stores without SQL must work without a database"},
	{"session/near", "internal/bus session", "a warm check stays in memory: stores are behind the interfaces of session"},
	{"policy", "internal/fault internal/yamlfile", "rules are compiled from values, wherever they are stored"},
	{"internal/geoip", "policy", "it answers where an address is, in the words of restrictions"},
	{"authz", "internal/fault internal/header internal/reqid internal/trusted policy session session/near", "a decision asks interfaces: who keeps what is plugged in by cmd"},
	{"envoy", "authz internal/fault internal/header internal/listener internal/pages internal/reqid", "a dialect reads, asks and writes; it knows no store and no rule"},
	{"internal/redirect", "", "where a link leads has nothing to do with who asks"},
	{"internal/pages", "internal/redirect", "it serves pages under their headers, and knows no route of the API"},
	{"db/counts", "", "it says what counts must be, in SQL alone"},
	{
		"db", "db/counts internal/bus internal/email internal/fault internal/reqid internal/crypto/secret internal/yamlfile policy session",
		"rows know the types that they hold, and nobody who asks for them",
	},
	{"internal/bus/sqlbus internal/delivery/outbox", "db internal/bus session", "what is kept in the database goes through db"},
	{"internal/limit", "db internal/fault", "it counts, and does not know what"},
	{"internal/rules", "authz db internal/bus policy", "it puts into force what is stored, and serves no route"},
	{"internal/trail", "db internal/crypto/secret", "it seals what is stored, and knows nobody who writes it"},
	{"internal/audit", "authz db internal/device internal/header internal/reqid", "it writes down what was decided"},
	{"internal/obs", "authz internal/fault internal/reqid", "metrics are told, they ask nobody"},
	{"internal/tracing", "authz envoy internal/reqid", "spans are told, they ask nobody"},
	{
		"internal/blob internal/captcha internal/delivery/events internal/delivery/mail internal/crypto/password internal/delivery/sms",
		"db internal/device internal/email internal/fault internal/crypto/jws internal/limit internal/delivery/outbox internal/patience internal/crypto/secret internal/trusted",
		"an adapter knows its library, and no rule about accounts",
	},
	{
		"internal/delivery/mailer", "api/account internal/crypto/jws internal/delivery/events internal/delivery/mail internal/delivery/outbox internal/fault internal/yamlfile",
		"it reads messages, and leaves to account whom a mail may reach",
	},
	{"internal/delivery/webhooks", "internal/crypto/secret internal/delivery/outbox internal/trusted internal/yamlfile", "an adapter knows its library, and no rule about accounts"},
	{"internal/seed", "db internal/crypto/secret internal/yamlfile policy", "it writes the first rows, and nothing else does that"},
	{"internal/importer", "api/account db internal/* policy", "it writes rows as the API would"},
	{"api/account", "db internal/* policy session", "rules about accounts know no route and no request"},
	{"api/staff", "api/account db internal/* policy session", "use cases know no route and no request"},
	{"api/view", "db session", "JSON objects are made of rows"},
	{"api/rest", "authz db internal/* policy", "the frame knows no module"},
	{"api/openapi", "api/rest api/view internal/fault", "documents are made from the routes"},
	{
		"api/admin api/identity api/management api/resource",
		"api/account api/rest api/staff api/view authz db internal/* policy session",
		"a section knows neither another one nor the checks of gateways",
	},
	{"api", "api/* db internal/* policy", "the API is served beside the checks, and does not call them"},
}

// libraries stay in the rooms that they were chosen for.
var libraries = []struct{ path, packages, why string }{
	{"database/sql", "db internal/bus/sqlbus internal/importer", "SQL has one home; the bus listens on a connection of its own, and imports read the database of the original"},
	{"github.com/jackc/pgx", "db internal/bus/sqlbus internal/test/testkit", "which driver speaks to Postgres is the business of db"},
	{"modernc.org/sqlite", "db", "which driver reads SQLite is the business of db"},
	{"github.com/uptrace/bun", "db db/counts", "SQL has one home"},
	{"github.com/redis/go-redis", "cmd/barong internal/bus/redisbus internal/limit internal/test/testkit session/redisstore", "everything must work without Redis"},
	{"github.com/valyala/fasthttp", "api api/rest cmd/barong envoy internal/test/apitest internal/listener internal/pages", "requests end at the edge: what is below takes values"},
	{"google.golang.org/grpc", "envoy", "one dialect speaks it"},
	{"github.com/envoyproxy/go-control-plane", "envoy", "one dialect speaks it"},
	{"github.com/casbin/casbin", "policy", "a rule has one meaning"},
	{"github.com/golang-jwt/jwt", "internal/crypto/jws internal/crypto/keys", "what a signature is worth is judged in one place"},
	{"github.com/chromedp", "internal/test/browsertest", "tests meet a browser as a person does, and know nothing of DevTools"},
	{"github.com/coreos/go-oidc", "internal/openid", "what a provider's word is worth is judged in one place"},
	{"golang.org/x/oauth2", "internal/openid", "the same"},
	{"github.com/zitadel/oidc", "internal/test/openidtest", "the program is no provider"},
	{"github.com/alecthomas/kong", "cmd/barong", "only the program has a command line"},
	{"go.opentelemetry.io/otel", "internal/tracing", "who makes spans is plugged in by cmd, and nothing of it runs without a collector"},
	{"github.com/VictoriaMetrics/metrics", "internal/obs", "parts are given what counts, and do not know how"},
}

// avoided is what the rooms that a check passes through do not reach, also by way of what they import.
var avoided = map[string]string{
	"database/sql":                "a decision asks interfaces, and SQL stands behind them",
	"github.com/uptrace/bun":      "a decision asks interfaces, and SQL stands behind them",
	"github.com/redis/go-redis":   "sessions come from a session.Store, whatever keeps them",
	"github.com/valyala/fasthttp": "four dialects fill the same Request, and one of them is gRPC",
	"google.golang.org/grpc":      "four dialects fill the same Request, and three of them are HTTP",
	"net/http":                    "nothing is asked over the network here",
}

// TestImports keeps every room to what it builds upon, and every library in its room.
func TestImports(t *testing.T) {
	const module = "barong/"
	cmd := exec.Command("go", "list", "-deps", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "./...")
	cmd.Dir = testkit.Root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	imports := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		imports[words[0]] = words[1:]
	}
	kit := func(name string) bool {
		return strings.HasSuffix(name, "test") || slices.Contains([]string{"internal/test/testkit", "internal/config/reference", "envoy/demo"}, name)
	}
	within := func(path, library string) bool { return path == library || strings.HasPrefix(path, library+"/") }

	known := map[string]bool{}
	for _, room := range rooms {
		for name := range strings.FieldsSeq(room.packages) {
			known[name] = true
			list, ok := imports[module+name]
			if !ok {
				t.Errorf("there is no package %s", name)
			}
			for _, path := range list {
				other, ours := strings.CutPrefix(path, module)
				allowed := slices.ContainsFunc(strings.Fields(room.imports), func(pattern string) bool {
					prefix, open := strings.CutSuffix(pattern, "*")
					return other == pattern || open && strings.HasPrefix(other, prefix) && !kit(other)
				})
				if ours && !allowed {
					t.Errorf("%s imports %s: %s", name, other, room.why)
				}
			}
		}
	}
	for path, list := range imports {
		name, ours := strings.CutPrefix(path, module)
		if !ours {
			continue
		}
		if !known[name] && !kit(name) && !strings.HasPrefix(name, "cmd/") {
			t.Errorf("%s has no row: say what it may import, and why no more", name)
		}
		for _, library := range libraries {
			if slices.ContainsFunc(list, func(p string) bool { return within(p, library.path) }) &&
				!slices.Contains(strings.Fields(library.packages), name) {
				t.Errorf("%s imports %s: %s", name, library.path, library.why)
			}
		}
	}
	for _, name := range []string{"authz", "policy", "session", "session/near", "internal/fault", "internal/trusted", "internal/header"} {
		seen := map[string]bool{}
		var walk func(path string)
		walk = func(path string) {
			if seen[path] {
				return
			}
			seen[path] = true
			for library, why := range avoided {
				// The interfaces in database/sql/driver come along with Casbin's identifiers; they open nothing.
				if path == library || within(path, library) && library != "database/sql" {
					t.Errorf("%s reaches %s: %s", name, path, why)
				}
			}
			for _, next := range imports[path] {
				walk(next)
			}
		}
		walk(module + name)
	}
	if len(imports) < 200 {
		t.Errorf("go list names only %d packages", len(imports))
	}
}
