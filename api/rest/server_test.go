package rest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"barong/api/rest"
	"barong/db"
	"barong/internal/fault"
	"barong/internal/test/apitest"
	"barong/internal/test/dbtest"
	"barong/internal/test/testkit"
	"barong/policy"
)

// routes are one of each kind; what they answer shows what the handler was given.
func routes() []rest.Route {
	echo := func(_ context.Context, c *rest.Call) error {
		out := map[string]any{"a": c.Optional("a"), "n": c.Int("n"), "id": c.String("id")}
		if c.User != nil {
			out["uid"] = c.User.UID
		}
		return c.Answer(out)
	}
	done := func(_ context.Context, c *rest.Call) error { return c.Done() }
	a := rest.Param{Name: "a", Required: true, NotBlank: true, Missing: "identity.user.missing_email", Empty: "identity.user.empty_email"}
	return []rest.Route{
		{Method: "GET", Path: "/identity/ping", Access: rest.Public, Success: 200, Handle: func(_ context.Context, c *rest.Call) error {
			return c.Answer(map[string]string{"ping": "pong"})
		}},
		{Method: "POST", Path: "/identity/echo", Access: rest.Public, Success: 201, Legacy: 200, BadRequest: true, Params: []rest.Param{
			a, {Name: "n", Type: rest.Integer, Min: 1, Max: 9, BadType: "non_integer_page", BadValue: "non_positive_page"},
		}, Handle: echo},
		{Method: "POST", Path: "/identity/strict", Access: rest.Public, Success: 201, Params: []rest.Param{a}, Handle: done},
		{Method: "POST", Path: "/identity/tree", Access: rest.Public, Success: 200, Params: []rest.Param{{Name: "j", Type: rest.JSON}}, Handle: func(_ context.Context, c *rest.Call) error {
			var tree []struct {
				K int64 `json:"k"`
			}
			if err := c.Decode("j", &tree); err != nil {
				return err
			}
			return c.Answer(tree)
		}},
		{Method: "DELETE", Path: "/identity/gone", Access: rest.Public, Success: 204, Legacy: 200, Handle: done},
		{Method: "GET", Path: "/identity/list", Access: rest.Public, Success: 200, Params: rest.Paginated, Handle: func(_ context.Context, c *rest.Call) error {
			return c.AnswerPage([]int{1, 2}, c.Int("total"))
		}},
		{Method: "GET", Path: "/identity/panic", Access: rest.Public, Success: 200, Handle: func(context.Context, *rest.Call) error { panic("boom") }},
		{Method: "GET", Path: "/identity/broken", Access: rest.Public, Success: 200, Handle: func(context.Context, *rest.Call) error {
			return errors.New("private words")
		}},
		{Method: "GET", Path: "/identity/busy", Access: rest.Public, Success: 200, Handle: func(context.Context, *rest.Call) error {
			return fault.RateLimited(1500 * time.Millisecond)
		}},
		{Method: "GET", Path: "/identity/slow", Access: rest.Public, Success: 200, Handle: func(ctx context.Context, _ *rest.Call) error {
			<-ctx.Done()
			return ctx.Err()
		}},
		{Method: "GET", Path: "/resource/me", Access: rest.User, Success: 200, Handle: echo},
		{Method: "PATCH", Path: "/resource/things/{id}", Access: rest.User, Success: 200, Params: []rest.Param{a}, Handle: echo},
		{Method: "PUT", Path: "/resource/upload", Access: rest.User, Success: 200, MaxBody: 1 << 20, Handle: func(_ context.Context, c *rest.Call) error {
			uploads, sent := c.Files("f")
			if len(uploads) != 1 || sent != 1 {
				return fault.Invalid("invalid")
			}
			f, err := uploads[0].Open()
			if err != nil {
				return err
			}
			defer f.Close()
			n, err := io.Copy(io.Discard, f)
			if err != nil {
				return err
			}
			return c.Answer(map[string]any{"bytes": n})
		}},
		{Method: "GET", Path: "/admin/users/{id}", Access: rest.Staff, Success: 200, Handle: echo},
		{Method: "GET", Path: "/admin/users/labels", Access: rest.Staff, Success: 200, Handle: done},
	}
}

func start(t *testing.T, options ...func(*rest.Options)) (*apitest.Env, *apitest.Server) {
	t.Helper()
	e := apitest.New(t, "sqlite")
	return e, e.Serve(t, routes(), options...)
}

func TestRouting(t *testing.T) {
	_, s := start(t)
	const unknown = `{"error":"Route is not found"}`
	for _, path := range []string{"/identity/ping", "/identity/ping/", "//identity//ping", "/identity/ping.json", "/identity/ping?x=1"} {
		s.Get(t, path, apitest.Header("Accept", "application/xml")).Want(t, 200).WantBody(t, 200, `{"ping":"pong"}`)
	}
	for _, c := range [][2]string{
		{"POST", "/identity/ping"},
		{"PATCH", "/identity/ping"},
		{"GET", "/identity/nothing"},
		{"GET", "/identity"},
		{"GET", "/nothing"},
		{"GET", "/identity/ping.xml"},
		{"GET", "/identity/%70ing"},
		{"GET", "/Identity/ping"},
		{"GET", "/x/../identity/ping"},
		{"GET", "/x/%2e%2e/identity/ping"},
		{"GET", "/identity%2fping"},
		{"GET", "/auth/api/v2/barong/identity/ping"},
	} {
		s.Do(t, c[0], c[1]).WantBody(t, 404, unknown)
	}
	// A method in a header or a form is nobody's business: permissions look at the real one.
	s.Post(t, "/identity/ping", apitest.Header("X-HTTP-Method-Override", "GET"), apitest.Form("_method", "GET")).WantBody(t, 404, unknown)
	if a := s.Do(t, "HEAD", "/identity/ping"); a.Status != 200 || a.Body != "" || a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("HEAD: %d %q %v", a.Status, a.Body, a.Header)
	}
	if a := s.Do(t, "OPTIONS", "/identity/ping"); a.Status != 204 || a.Header.Get("Allow") != "OPTIONS, GET, HEAD" || a.Body != "" {
		t.Errorf("OPTIONS: %d %v", a.Status, a.Header)
	}
	if a := s.Get(t, "/identity/ping"); a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control: %q", a.Header.Get("Cache-Control"))
	}
	for _, target := range []string{"/", "/api/v2", "/api/v3/identity/ping", "/identity/ping", "/api%2fv2/identity/ping"} {
		res := raw(t, s, "GET "+target+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(res, "HTTP/1.1 404 ") || !strings.HasSuffix(res, "\r\n\r\nNot found") {
			t.Errorf("%s: %q", target, res)
		}
	}
}

// raw sends bytes as they are and returns all that comes back.
func raw(t *testing.T, s *apitest.Server, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(bufio.NewReader(conn))
	if err != nil && len(b) == 0 {
		t.Fatal(err)
	}
	return string(b)
}

func TestParametersAndStatuses(t *testing.T) {
	e, s := start(t)
	legacy := e.Serve(t, routes(), apitest.Legacy)
	s.Post(t, "/identity/echo", apitest.Form("a", "x")).WantBody(t, 201, `{"a":"x","id":"","n":0}`)
	legacy.Post(t, "/identity/echo", apitest.JSON(map[string]any{"a": 5, "n": 9})).WantBody(t, 200, `{"a":"5","id":"","n":9}`)
	s.Post(t, "/identity/echo", apitest.Query("a", "q", "n", "2"), apitest.Form("a", "f")).WantBody(t, 201, `{"a":"f","id":"","n":2}`)
	s.Delete(t, "/identity/gone").WantBody(t, 204, "")
	legacy.Delete(t, "/identity/gone").WantBody(t, 200, "200")

	// Missing or blank and required: 400 where the route says so, unless it must look like 2.4.17.
	for _, c := range []struct {
		server *apitest.Server
		path   string
		want   int
	}{{s, "/identity/echo", 400}, {s, "/identity/strict", 422}, {legacy, "/identity/echo", 422}} {
		c.server.Post(t, c.path).Want(t, c.want, "identity.user.missing_email", "identity.user.empty_email")
		c.server.Post(t, c.path, apitest.Form("a", " ")).Want(t, c.want, "identity.user.empty_email")
	}
	s.Post(t, "/identity/echo", apitest.Form("n", "x")).
		Want(t, 400, "identity.user.missing_email", "identity.user.empty_email", "non_integer_page", "non_positive_page")
	s.Post(t, "/identity/echo", apitest.Form("a", "x", "n", "10")).Want(t, 422, "non_positive_page")
	s.Post(t, "/identity/echo", apitest.JSON(map[string]any{"a": []string{"x"}})).Want(t, 422, "invalid")

	s.Post(t, "/identity/echo", apitest.Body("application/json", "{")).Want(t, 400, "request.malformed_body")
	s.Post(t, "/identity/echo?a=%zz").Want(t, 400, "request.malformed_body")
	s.Post(t, "/identity/echo", apitest.Body("text/plain", "a=x")).
		WantBody(t, 415, `{"error":"The provided content-type 'text/plain' is not supported."}`)
	const most = 16 << 10 // of a call that anybody may make
	big := strings.Repeat("x", most)
	s.Post(t, "/identity/echo", apitest.Form("a", big)).Want(t, 413, "request.too_large")
	s.Post(t, "/identity/echo", apitest.Form("a", big[:most-2])).Want(t, 201)
	// Without a length the body is counted as it comes.
	chunk := fmt.Sprintf("%x\r\n%s\r\n", len(big), big)
	res := raw(t, s, "POST /api/v2/identity/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"+chunk+chunk+"0\r\n\r\n")
	if !strings.HasPrefix(res, "HTTP/1.1 413 ") || !strings.Contains(strings.ToLower(res), "connection: close") {
		t.Errorf("chunked: %.300q", res)
	}
}

func TestDecode(t *testing.T) {
	_, s := start(t)
	const tree = `[{"k":9007199254740993},{"k":0}]`
	s.Post(t, "/identity/tree", apitest.Body("application/json", `{"j":`+tree+`}`)).WantBody(t, 200, tree)
	s.Post(t, "/identity/tree", apitest.Form("j", tree)).WantBody(t, 200, tree)
	s.Post(t, "/identity/tree", apitest.Query("j", tree)).WantBody(t, 200, tree)
	for _, bad := range []string{`{"j":{"k":1}}`, `{"j":[1]}`, `{"j":["x",{}]}`, `{"j":[{"k":"1"}]}`, `{"j":[{"other":1}]}`, `{}`, `{"j":null}`} {
		s.Post(t, "/identity/tree", apitest.Body("application/json", bad)).Want(t, 400, "request.malformed_body")
	}
	for _, bad := range []string{"", "x", tree + "1", strings.Repeat("[", 40) + strings.Repeat("]", 40)} {
		s.Post(t, "/identity/tree", apitest.Form("j", bad)).Want(t, 400, "request.malformed_body")
	}
}

func TestUploads(t *testing.T) {
	e, s := start(t)
	u := e.NewUser(t, nil)
	png := strings.Repeat("p", 700_000)
	s.Put(t, "/resource/upload", apitest.As(u), apitest.File("f", "a.png", "image/png", png)).WantBody(t, 200, `{"bytes":700000}`)
	s.Put(t, "/resource/upload", apitest.As(u), apitest.Form("f", "text")).Want(t, 422, "invalid")
	s.Put(t, "/resource/upload", apitest.As(u), apitest.File("f", "a.png", "image/png", png+png)).Want(t, 413, "request.too_large")
	s.Put(t, "/resource/upload", apitest.File("f", "a.png", "image/png", png)).Want(t, 401, "jwt.decode_and_verify")
	self := "/api/v2/barong/resource/upload"
	s.Put(t, self, apitest.As(u), apitest.File("f", "a.png", "image/png", png)).WantBody(t, 200, `{"bytes":700000}`)
}

func TestFailures(t *testing.T) {
	_, s := start(t)
	for _, path := range []string{"/identity/panic", "/identity/broken"} {
		a := s.Get(t, path).Want(t, 500, "server.internal_error")
		if strings.Contains(a.Body, "boom") || strings.Contains(a.Body, "private") {
			t.Errorf("%s tells its cause: %s", path, a.Body)
		}
	}
	s.Get(t, "/identity/ping").Want(t, 200) // and life goes on
	if a := s.Get(t, "/identity/busy").Want(t, 429, "request.rate_limited"); a.Header.Get("Retry-After") != "2" {
		t.Errorf("Retry-After: %q", a.Header.Get("Retry-After"))
	}
	base, stop := context.WithCancel(t.Context())
	_, s = start(t, func(o *rest.Options) { o.Base = base })
	time.AfterFunc(50*time.Millisecond, stop)
	s.Get(t, "/identity/slow").Want(t, 503, "authz.unavailable")
}

// TestOutage holds that a database that is gone reads as an outage and not as a defect.
func TestOutage(t *testing.T) {
	server := testkit.PostgresServer(t)
	d := dbtest.At(t, db.Options{URL: server.URL})
	e, s := start(t, func(o *rest.Options) { o.Users = d })
	u := e.NewUser(t, nil)
	s.Get(t, "/resource/me", apitest.As(u)).Want(t, 404, "record.not_found")
	server.Stop()
	for range 3 { // the connection that breaks, and those that cannot be made
		s.Get(t, "/resource/me", apitest.As(u)).Want(t, 503, "authz.unavailable")
	}
	server.Start(t)
	s.Get(t, "/resource/me", apitest.As(u)).Want(t, 404, "record.not_found")
}

func TestAuthentication(t *testing.T) {
	e, s := start(t)
	u := e.NewUser(t, nil)
	s.Get(t, "/resource/me", apitest.As(u)).WantBody(t, 200, `{"a":null,"id":"","n":0,"uid":"`+u.UID+`"}`)
	for name, change := range map[string]func(c map[string]any){
		"expired":            func(c map[string]any) { c["exp"] = e.Clock.Now().Unix() - 1 },
		"no expiry":          func(c map[string]any) { delete(c, "exp") },
		"not yet valid":      func(c map[string]any) { c["nbf"] = e.Clock.Now().Unix() + 60 },
		"issued tomorrow":    func(c map[string]any) { c["iat"] = e.Clock.Now().Unix() + 60 },
		"no id":              func(c map[string]any) { delete(c, "jti") },
		"confirmation":       func(c map[string]any) { c["sub"] = "confirmation" },
		"reset":              func(c map[string]any) { c["sub"] = "reset" },
		"foreign issuer":     func(c map[string]any) { c["iss"] = "other" },
		"foreign audience":   func(c map[string]any) { c["aud"] = []string{"other"} },
		"no user":            func(c map[string]any) { delete(c, "uid") },
		"user of other type": func(c map[string]any) { c["uid"] = 5 },
	} {
		claims := e.Claims(u)
		change(claims)
		if a := s.Get(t, "/resource/me", apitest.Token(e.Sign(t, claims))); a.Status != 401 || !slices.Equal(a.Codes(), []string{"jwt.decode_and_verify"}) {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	good := e.Token(t, u)
	for _, header := range []string{"", "Bearer", "Bearer ", "bearer " + good, "Basic " + good, good, "Bearer " + good + "x", "Bearer a.b.c", "Bearer  " + good} {
		s.Get(t, "/resource/me", apitest.Header("Authorization", header)).Want(t, 401, "jwt.decode_and_verify")
	}
	res := raw(t, s, "GET /api/v2/resource/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer x\r\nAuthorization: Bearer "+good+"\r\n\r\n")
	if !strings.HasPrefix(res, "HTTP/1.1 400 ") || !strings.HasSuffix(res, `{"errors":["authz.malformed_request"]}`) {
		t.Errorf("two tokens: %q", res)
	}
	unknown := *u
	unknown.UID = "ID0000000000"
	s.Get(t, "/resource/me", apitest.As(&unknown)).Want(t, 404, "record.not_found")
	for _, state := range []string{"banned", "deleted", "locked", "whatever"} {
		closed := e.NewUser(t, func(u *db.User) { u.State = state })
		s.Get(t, "/resource/me", apitest.As(closed)).Want(t, 401, "authz.user_not_active")
	}
	s.Get(t, "/resource/me", apitest.As(e.NewUser(t, func(u *db.User) { u.State = "pending" }))).Want(t, 200)
	// The token is looked at before the body, and the body before its parameters.
	s.Patch(t, "/resource/things/5", apitest.Body("application/json", "{")).Want(t, 401, "jwt.decode_and_verify")
	s.Patch(t, "/resource/things/5", apitest.As(u), apitest.Body("application/json", "{")).Want(t, 400, "request.malformed_body")
	s.Patch(t, "/resource/things/5", apitest.As(u), apitest.Form("a", "x", "id", "6")).Want(t, 200)
	if got := s.Patch(t, "/resource/things/a%20b", apitest.As(u), apitest.Form("a", "x", "id", "6")).Object(t)["id"]; got != "a b" {
		t.Errorf("path parameter: %v", got)
	}
	s.Patch(t, "/resource/things/%00", apitest.As(u), apitest.Form("a", "x")).Want(t, 400, "request.malformed_body")
	spoilt := raw(t, s, "PATCH /api/v2/resource/things/%zz?a=x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "+good+"\r\n\r\n")
	if !strings.HasPrefix(spoilt, "HTTP/1.1 400 ") || !strings.HasSuffix(spoilt, `{"errors":["request.malformed_body"]}`) {
		t.Errorf("a spoilt path parameter: %q", spoilt)
	}
	if a := s.Do(t, "OPTIONS", "/resource/me"); a.Status != 401 {
		t.Errorf("OPTIONS without a token: %d", a.Status)
	}
	if a := s.Do(t, "OPTIONS", "/resource/me", apitest.As(u)); a.Status != 204 || a.Header.Get("Allow") != "OPTIONS, GET, HEAD" {
		t.Errorf("OPTIONS: %d %v", a.Status, a.Header)
	}
}

func TestStaff(t *testing.T) {
	e, s := start(t)
	root, member := e.NewStaff(t, "superadmin"), e.NewUser(t, nil)
	e.Permit(t, "support", "GET", apitest.Prefix+"/admin/users")
	e.Drop(t, "support", "GET", apitest.Prefix+"/admin/users/labels")
	support := e.NewStaff(t, "support")
	s.Get(t, "/admin/users/ID1", apitest.As(root)).Want(t, 200)
	s.Get(t, "/admin/users/ID1", apitest.As(support)).Want(t, 200)
	s.Get(t, "/admin/users/labels", apitest.As(root)).WantBody(t, 200, "200")
	if len(e.Audited()) != 0 {
		t.Error("what is allowed is the gateway's to record")
	}
	s.Get(t, "/admin/users/ID1?uid=ID2", apitest.As(member), apitest.IP("203.0.113.9")).Want(t, 401, "authz.invalid_permission")
	got := e.Audited()
	if len(got) != 1 || got[0].UID != member.UID || got[0].Role != "member" || got[0].Method != "GET" ||
		got[0].Path != apitest.Prefix+"/admin/users/ID1" || got[0].Query != "uid=ID2" || got[0].Client.String() != "203.0.113.9" ||
		got[0].UserAgent != apitest.UserAgent {
		t.Errorf("audited %+v", got)
	}
	for _, path := range []string{"/admin/users/labels", "/admin//users//labels/", "/admin/users/labels.json"} {
		s.Get(t, path, apitest.As(support)).Want(t, 401, "authz.invalid_permission")
	}
	for _, path := range []string{"/admin/users/%6cabels", "/admin/users/%2e%2e", "/admin/users/a%2fb", "/admin/users/a;b"} {
		if a := s.Get(t, path, apitest.As(support)); a.Status < 400 {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	// HEAD needs its own rule or one for ALL, OPTIONS only ALL.
	for method, want := range map[string]int{"HEAD": 401, "OPTIONS": 401} {
		if a := s.Do(t, method, "/admin/users/ID1", apitest.As(support)); a.Status != want {
			t.Errorf("%s: %d", method, a.Status)
		}
		if a := s.Do(t, method, "/admin/users/ID1", apitest.As(root)); a.Status/100 != 2 {
			t.Errorf("%s by root: %d", method, a.Status)
		}
	}
	// The role in the token is that of its day; the database's counts.
	token := e.Token(t, root)
	e.Update(t, func(ctx context.Context, tx *db.Tx) error {
		root.Role = "member"
		return tx.UpdateUser(ctx, root, "role")
	})
	s.Get(t, "/admin/users/ID1", apitest.Token(token)).Want(t, 401, "authz.invalid_permission")

	none := e.Serve(t, routes(), func(o *rest.Options) { o.Policy = func() *policy.Snapshot { return nil } })
	none.Get(t, "/admin/users/ID1", apitest.As(support)).Want(t, 503, "authz.unavailable")
}

func TestSelfGate(t *testing.T) {
	var asked []string
	e, s := start(t, func(o *rest.Options) {
		o.Gate = func(rc *fasthttp.RequestCtx, load func()) bool {
			if len(rc.Request.Header.Peek("X-Audit")) > 0 {
				load()
			}
			body := "unread"
			if !rc.Request.IsBodyStream() {
				body = string(rc.Request.Body())
			}
			asked = append(asked, string(rc.Method())+" "+string(rc.Request.Header.RequestURI())+" "+body)
			if len(rc.Request.Header.Peek("X-Refuse")) > 0 {
				rest.WriteFault(rc, fault.New("authz.invalid_session"))
				return false
			}
			return true
		}
	})
	s.Get(t, "/api/v2/barong/identity/ping?x=1").WantBody(t, 200, `{"ping":"pong"}`)
	s.Post(t, "/api/v2/barong/identity/echo", apitest.Form("a", "x")).Want(t, 201)
	s.Post(t, "/api/v2/barong/identity/echo", apitest.Form("a", "x"), apitest.Header("X-Audit", "1")).Want(t, 201)
	s.Get(t, "/api/v2/barong/identity/ping", apitest.Header("X-Refuse", "1")).Want(t, 401, "authz.invalid_session")
	s.Get(t, "/api/v2/barong/nothing").WantBody(t, 404, `{"error":"Route is not found"}`)
	want := []string{
		"GET /api/v2/barong/identity/ping?x=1 ", "POST /api/v2/barong/identity/echo unread", "POST /api/v2/barong/identity/echo a=x", "GET /api/v2/barong/identity/ping ",
		"GET /api/v2/barong/nothing ",
	}
	if !slices.Equal(asked, want) {
		t.Errorf("the gate saw %q, want %q", asked, want)
	}
	asked = nil
	// The path that is judged is the one that is served; what the gate calls ambiguous it must see as it came.
	for path, judged := range map[string]string{
		"/identity/ping.json": "/identity/ping", "/identity/ping.json/?x=.json": "/identity/ping?x=.json", "/identity/ping/": "/identity/ping/",
		"/identity/ping.json//": "/identity/ping.json//", "//identity/ping": "//identity/ping", "/openapi.json": "/openapi.json",
	} {
		asked = nil
		s.Get(t, "/api/v2/barong"+path)
		if want := "GET /api/v2/barong" + judged + " "; len(asked) != 1 || asked[0] != want {
			t.Errorf("%s: the gate saw %q, want %q", path, asked, want)
		}
	}
	asked = nil
	s.Get(t, "/identity/ping").Want(t, 200)
	if len(asked) != 0 {
		t.Errorf("the gate was asked about a call from a gateway: %q", asked)
	}
	// A body is too large for the route, or for anybody; who is refused for another reason is told that one.
	large := apitest.Form("a", strings.Repeat("x", rest.DefaultMaxBody))
	for _, o := range [][]apitest.Option{nil, {apitest.Header("X-Audit", "1")}} {
		s.Post(t, "/api/v2/barong/identity/echo", append(o, large)...).Want(t, 413, "request.too_large")
		s.Post(t, "/api/v2/barong/identity/echo", append(o, large, apitest.Header("X-Refuse", "1"))...).Want(t, 401, "authz.invalid_session")
	}
	// Direct calls of staff routes are judged by the path that the gateway would see, wherever they arrive.
	e.Permit(t, "support", "GET", apitest.Prefix+"/admin/users")
	s.Get(t, "/api/v2/barong/admin/users/ID1", apitest.As(e.NewStaff(t, "support"))).Want(t, 200)
}

// TestClientIsOfTheHead holds that headers behind a body, which no gateway has vouched for, do not tell who calls.
func TestClientIsOfTheHead(t *testing.T) {
	var clients []netip.Addr
	list := append(routes(), rest.Route{
		Method: "POST", Path: "/identity/whoami", Access: rest.Public, Success: 200, Handle: func(_ context.Context, c *rest.Call) error {
			clients = append(clients, c.Client)
			return c.Done()
		},
	})
	e := apitest.New(t, "sqlite")
	s := e.Serve(t, list, func(o *rest.Options) {
		o.Client = func(rc *fasthttp.RequestCtx) rest.Caller {
			addr, _ := netip.ParseAddr(string(rc.Request.Header.Peek("True-Client-Ip")))
			return rest.Caller{Addr: addr}
		}
	})
	for _, path := range []string{"/api/v2/barong/identity/whoami", "/api/v2/identity/whoami"} {
		res := raw(t, s, "POST "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"+
			"2\r\n{}\r\n0\r\nTrue-Client-Ip: 192.0.2.66\r\n\r\n")
		if !strings.HasPrefix(res, "HTTP/1.1 200 ") {
			t.Errorf("%s: %q", path, res)
		}
	}
	if want := []netip.Addr{{}, {}}; !slices.Equal(clients, want) {
		t.Errorf("clients %v", clients)
	}
}

// TestWaitIsNotTheClients holds that a call which had to wait outside still has time to send its body.
func TestWaitIsNotTheClients(t *testing.T) {
	list := routes()
	for _, r := range routes() {
		if r.Path == "/resource/upload" {
			r.Path, r.Parallel = "/resource/line", 1
			list = append(list, r)
		}
	}
	e := apitest.New(t, "sqlite")
	s := e.Serve(t, list, func(o *rest.Options) {
		client := o.Client
		o.Client = func(rc *fasthttp.RequestCtx) rest.Caller {
			if err := rc.SetReadDeadline(time.Unix(1, 0)); err != nil { // its time is over
				t.Error(err)
			}
			return client(rc)
		}
	})
	u := e.NewUser(t, nil)
	for range 2 {
		s.Put(t, "/resource/line", apitest.As(u), apitest.File("f", "a.bin", "application/octet-stream", strings.Repeat("x", 1<<19))).
			WantBody(t, 200, `{"bytes":524288}`)
	}
}

func TestPages(t *testing.T) {
	_, s := start(t)
	for _, c := range []struct{ query, page, size, link string }{
		{"total=0", "1", "100", ""},
		{"total=100", "1", "100", ""},
		{"total=101", "1", "100", `<?page=2&total=101>; rel="last", <?page=2&total=101>; rel="next"`},
		{"total=25&limit=10&page=2", "2", "10", `<?limit=10&page=1&total=25>; rel="first", ` +
			`<?limit=10&page=1&total=25>; rel="prev", <?limit=10&page=3&total=25>; rel="last", ` +
			`<?limit=10&page=3&total=25>; rel="next"`},
		{"total=25&limit=10&page=9", "9", "10", `<?limit=10&page=1&total=25>; rel="first", ` +
			`<?limit=10&page=8&total=25>; rel="prev"`},
	} {
		total, _, _ := strings.Cut(strings.TrimPrefix(c.query, "total="), "&")
		a := s.Get(t, "/identity/list?"+c.query, apitest.Header("Host", "a.test")).WantBody(t, 200, "[1,2]")
		for name, want := range map[string]string{"Total": total, "Page": c.page, "Per-Page": c.size, "Link": c.link} {
			if got := a.Header.Get(name); got != want {
				t.Errorf("%s: %s %q, want %q", c.query, name, got, want)
			}
		}
	}
	if a := s.Get(t, "/api/v2/barong/identity/list?total=101", apitest.Header("Host", "a.test"), apitest.HTTPS()); !strings.HasPrefix(
		a.Header.Get("Link"), "<?page=2&total=101>") {
		t.Errorf("below the published path: %q", a.Header.Get("Link"))
	}
	for query, codes := range map[string][]string{
		"page=abc": {"non_integer_page", "non_positive_page"}, "page=": {"non_positive_page"}, "page=0": {"non_positive_page"},
		"page=-1": {"non_positive_page"}, "page=9223372036854775807": {"non_positive_page"}, "limit=x": {"non_integer_limit", "invalid_limit"},
		"limit=101": {"invalid_limit"}, "limit=0": {"invalid_limit"}, "page=0&limit=0": {"non_positive_page", "invalid_limit"},
	} {
		s.Get(t, "/identity/list?"+query).Want(t, 422, codes...)
	}
}

func TestCORS(t *testing.T) {
	const good, bad = "https://app.example", "https://evil.example"
	_, s := start(t, func(o *rest.Options) { o.CORS = rest.CORS{Origins: []string{good}, MaxAge: 600, Credentials: true} })
	origin := func(o string) apitest.Option { return apitest.Header("Origin", o) }
	headers := func(a *apitest.Answer) [4]string {
		return [4]string{
			a.Header.Get("Access-Control-Allow-Origin"), a.Header.Get("Access-Control-Allow-Credentials"),
			a.Header.Get("Access-Control-Allow-Methods"), a.Header.Get("Access-Control-Max-Age"),
		}
	}
	allowed := [4]string{good, "true", "GET, POST, DELETE, PUT, PATCH, OPTIONS, HEAD", "600"}
	for _, path := range []string{"/identity/ping", "/identity/panic", "/identity/nothing", "/resource/me"} {
		if got := headers(s.Get(t, path, origin(good))); got != allowed {
			t.Errorf("%s: %q", path, got)
		}
		a := s.Get(t, path, origin(bad))
		if got := headers(a); got != ([4]string{}) || a.Header.Get("Vary") != "Origin" {
			t.Errorf("%s of a stranger: %q, Vary %q", path, got, a.Header.Get("Vary"))
		}
		if got := headers(s.Get(t, path)); got != ([4]string{}) {
			t.Errorf("%s without an origin: %q", path, got)
		}
	}
	ask := []apitest.Option{
		apitest.Header("Access-Control-Request-Method", "PUT"), apitest.Header("Access-Control-Request-Headers", "x-csrf-token"),
	}
	a := s.Do(t, http.MethodOptions, "/resource/me", append(ask, origin(good))...).WantBody(t, 200, "")
	if headers(a) != allowed || a.Header.Get("Access-Control-Allow-Headers") != "x-csrf-token" {
		t.Errorf("preflight: %v", a.Header)
	}
	a = s.Do(t, http.MethodOptions, "/resource/me", append(ask, origin(bad))...).WantBody(t, 200, "")
	if headers(a) != ([4]string{}) || a.Header.Get("Access-Control-Allow-Headers") != "" {
		t.Errorf("preflight of a stranger: %v", a.Header)
	}
	_, s = start(t, func(o *rest.Options) { o.CORS = rest.CORS{Any: true, MaxAge: 1, Credentials: true} })
	if got := headers(s.Get(t, "/identity/ping", origin(bad))); got[0] != "*" || got[1] != "" {
		t.Errorf("any origin: %q", got)
	}
}

func TestObserve(t *testing.T) {
	type seen struct {
		path   string
		status int
	}
	got := make(chan seen, 10)
	_, s := start(t, func(o *rest.Options) {
		o.Observe = func(r *rest.Route, status int, took time.Duration) {
			if took <= 0 {
				t.Error("no time has passed")
			}
			got <- seen{r.Path, status}
		}
	})
	for path, want := range map[string]int{"/identity/ping": 200, "/identity/panic": 500, "/resource/me": 401} {
		s.Get(t, path)
		if o := <-got; o != (seen{path, want}) {
			t.Errorf("%s: observed %v", path, o)
		}
	}
}
