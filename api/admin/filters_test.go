package admin_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"barong/api/admin"
	"barong/api/rest"
	"barong/internal/test/apitest"
)

// anything is what has been more than a value to somebody's SQL, or to somebody who reads numbers and dates.
var anything = []string{
	"'", "''", `"`, "`", `\`, `\'`, `\\`, "'; DROP TABLE users; --", "' OR '1'='1", "1 OR 1=1", "1--1", "--", "-1", "- 1", "-9223372036854775808",
	"9223372036854775808", "1e309", "NaN", "0x10", "%", "%%", "_", "%25", "a%00b", "?", "?0", "$1", "{}", "[]", "null", "NULL", "true", "/*", "*/",
	";", "\n", "\u2028", "\u202e", "ﬀ", "é", "\U0001f600", "{{.}}", "${x}", "1900-13-45", "0000-00-00", "9999-12-31", strings.Repeat("a", 5000),
	strings.Repeat("9", 400), "\x00", "\xff\xfe", "user'::text", "E'\\x00'", "1;SELECT pg_sleep(9)",
}

// TestFiltersTakeAnything sends each filter of each list what a database might read as something else. Nothing of it is an
// error of the server, on either engine.
func TestFiltersTakeAnything(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		asked := 0
		for _, r := range admin.New(admin.Options{}).Routes() {
			if r.Method != "GET" {
				continue
			}
			names := []string{"page", "limit", "order_by", "ordering", "nobody_knows"}
			for _, p := range r.Params {
				if p.In != rest.Path {
					names = append(names, p.Name)
				}
			}
			for _, value := range anything {
				path := r.Path
				for from := strings.IndexByte(path, '{'); from >= 0; from = strings.IndexByte(path, '{') {
					to := strings.IndexByte(path, '}')
					path = path[:from] + url.PathEscape(strings.ReplaceAll(value, "/", "")) + "x" + path[to+1:]
				}
				for _, name := range names {
					asked++
					a := w.s.Get(t, fmt.Sprintf("%s?%s=%s", path, url.QueryEscape(name), url.QueryEscape(value)), apitest.As(w.root))
					if a.Status >= 500 {
						t.Errorf("GET %s with %s=%q: %d %s", path, name, value, a.Status, a.Body)
					}
				}
			}
		}
		if asked < 1000 {
			t.Errorf("only %d questions", asked)
		}
	})
}
