package resource_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/api/account"
	"barong/api/resource"
	"barong/api/rest"
	"barong/authz"
	"barong/db"
	"barong/internal/blob"
	"barong/internal/delivery/sms"
	"barong/internal/test/apitest"
	"barong/session"
)

func TestMain(m *testing.M) {
	apitest.Main(m, resource.New(resource.Options{}).Routes(),
		// The sentence itself comes instead; see TestDocumentFiles.
		"POST /resource/documents: upload.<sentence>",
	)
}

const cookieName = "_barong_session"

// A bench is the module on a started server.
type bench struct {
	*apitest.Server
	env   *apitest.Env
	files *blob.Store
	texts string // folder of the mocked messages
}

// legacy makes the module answer as BARONG_COMPAT=2.4.17.
func legacy(o *resource.Options) { o.Legacy = true }

// start serves the module on the stores of e.
func start(t *testing.T, e *apitest.Env, changes ...func(*resource.Options)) *bench {
	t.Helper()
	cookies, err := authz.NewCookies(authz.CookieSettings{Name: cookieName})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{env: e, texts: filepath.Join(t.TempDir(), "outbox")}
	b.files, err = blob.Open(blob.Options{
		Provider: blob.Local, Folder: filepath.Join(e.Folder, "files"), Key: bytes.Repeat([]byte("k"), 32), Path: "/" + apitest.Prefix + "/files/",
		Extensions: []string{"jpg", "jpeg", "png", "pdf"}, MinSize: 1, MaxSize: maxUpload, URLLife: time.Minute, Now: e.Clock.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.files.Close() })
	mock, err := sms.New(t.Context(), sms.Options{
		Kind: sms.Mock, Template: "Code: {{code}}", Folder: b.texts, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	o := resource.Options{
		Accounts: e.Accounts, DB: e.DB, Cookies: cookies,
		Phones: account.Phones{Accounts: e.Accounts, SMS: mock, Codes: e.Box},
		Documents: account.Documents{
			Accounts: e.Accounts, Files: b.files, Types: []string{"Passport", "Identity card"}, Limit: 4, ExpireRequired: true, MaxUpload: maxUpload,
			Extensions: []string{"jpg", "jpeg", "png", "pdf"},
		},
		StorageTitles: []string{"personal", "Odd title", "user", "licence", strings.Repeat("x", 65)},
		RateLimits:    true,
		Abilities:     func(role string) []string { return []string{"GET /admin/" + role} },
	}
	for _, change := range changes {
		change(&o)
	}
	b.Server = e.Serve(t, resource.New(o).Routes(), func(r *rest.Options) { r.Legacy = o.Legacy })
	return b
}

const maxUpload = 4096

// signIn opens a session for a user and returns its cookie's value.
func (b *bench) signIn(t *testing.T, u *db.User) string {
	t.Helper()
	c := b.env.Accounts.Client(netip.MustParseAddr("192.0.2.7"), apitest.UserAgent)
	id, _, err := b.env.Accounts.OpenSession(t.Context(), c, nil, u.UID, b.env.Fresh(t, u).Epoch(), session.Password, nothing)
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}

// alive reports whether a cookie still names a session that could be used.
func (b *bench) alive(t *testing.T, cookie string) bool {
	t.Helper()
	id, ok := session.ParseID([]byte(cookie))
	if !ok {
		return false
	}
	_, _, err := b.env.Accounts.Current(t.Context(), id)
	if err != nil && !errors.Is(err, session.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// activities are topic, action, result and data of a user's audit rows, one text each.
func (b *bench) activities(t *testing.T, u *db.User) []string {
	t.Helper()
	out := []string{}
	for _, a := range b.env.Activities(t) {
		if a.UserID != u.ID {
			continue
		}
		text := a.Topic + " / " + a.Action + " / " + a.Result
		if a.Data != nil {
			text += " " + *a.Data
		}
		if a.UserIP != "127.0.0.1" || a.UserAgent != apitest.UserAgent {
			t.Errorf("activity of %s from %q with %q", text, a.UserIP, a.UserAgent)
		}
		out = append(out, text)
	}
	return out
}

func (b *bench) wantActivities(t *testing.T, u *db.User, want ...string) {
	t.Helper()
	if got := b.activities(t, u); !slices.Equal(got, want) {
		t.Errorf("activities:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (b *bench) wantEvents(t *testing.T, want ...string) []account.Event {
	t.Helper()
	events := b.env.Events()
	names := make([]string, len(events))
	for i, event := range events {
		names[i] = event.Name
	}
	if !slices.Equal(names, want) {
		t.Errorf("events %q, want %q", names, want)
	}
	return events
}

func (b *bench) wantMails(t *testing.T, want ...string) {
	t.Helper()
	if got := b.env.MailKinds(t); !slices.Equal(got, want) {
		t.Errorf("mails %q, want %q", got, want)
	}
}

// member stores a user who has confirmed their address: level 1.
func (b *bench) member(t *testing.T) *db.User {
	t.Helper()
	u := b.env.NewUser(t, nil)
	b.label(t, u, "email", "verified", account.Private)
	b.wantUser(t, u, 1, "active", false)
	return u
}

// label gives a user a label as the program would.
func (b *bench) label(t *testing.T, u *db.User, key, value, scope string) {
	t.Helper()
	b.update(t, func(un *account.Unit) error {
		_, err := un.CreateLabel(t.Context(), u, key, value, scope, nil)
		return err
	})
	b.env.Events()
	b.env.Mails(t)
}

// labels are a user's labels as "scope key:value", sorted.
func (b *bench) labels(t *testing.T, u *db.User) []string {
	t.Helper()
	rows, err := b.env.DB.Labels(t.Context(), u.ID)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, l := range rows {
		out = append(out, l.Scope+" "+l.Key+":"+l.Value)
	}
	slices.Sort(out)
	return out
}

func (b *bench) wantLabels(t *testing.T, u *db.User, want ...string) {
	t.Helper()
	if got := b.labels(t, u); !slices.Equal(got, want) {
		t.Errorf("labels %q, want %q", got, want)
	}
}

// wantUser holds a user's row to level, state and second factor.
func (b *bench) wantUser(t *testing.T, u *db.User, level int, state string, otp bool) {
	t.Helper()
	if got := b.env.Fresh(t, u); got.Level != level || got.State != state || got.OTP != otp {
		t.Errorf("user at level %d, %s, 2FA %v; want %d, %s, %v", got.Level, got.State, got.OTP, level, state, otp)
	}
}

// update runs f in a unit of work that must commit.
func (b *bench) update(t *testing.T, f func(u *account.Unit) error) {
	t.Helper()
	if err := b.env.Accounts.Update(t.Context(), func(_ context.Context, u *account.Unit) error { return f(u) }); err != nil {
		t.Fatal(err)
	}
}

func nothing(context.Context, *account.Unit) error { return nil }

// atOnce calls f at once from n goroutines and counts the statuses that it returns.
func atOnce(n int, f func(i int) int) map[int]int {
	out := make([]int, n)
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-begin
			out[i] = f(i)
		})
	}
	close(begin)
	wg.Wait()
	count := map[int]int{}
	for _, status := range out {
		count[status]++
	}
	return count
}

// call is one request outside the test's goroutine, where t must not fail.
func (b *bench) call(t *testing.T, method, path, contentType, token string, body []byte) int {
	req, err := http.NewRequestWithContext(t.Context(), method, b.URL+"/api/v2"+path, bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Error(err)
	}
	return res.StatusCode
}

const form = "application/x-www-form-urlencoded"

func wantCount(t *testing.T, got, want map[int]int) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("statuses %v, want %v", got, want)
	}
}

// texts are the mocked messages so far, in no order.
func (b *bench) messages(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(b.texts, "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	out := make([]string, len(names))
	for i, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out[i] = string(raw)
	}
	return out
}

var sixDigits = regexp.MustCompile(`\b[0-9]{6}\b`)

// code takes the one mocked message to a number, with its code, out of the folder.
func (b *bench) code(t *testing.T, number string) string {
	t.Helper()
	found := ""
	for _, text := range b.messages(t) {
		if strings.HasPrefix(text, "To: +"+number+"\n") {
			if found != "" {
				t.Fatalf("two messages to %s", number)
			}
			found = sixDigits.FindString(strings.TrimPrefix(text, "To: +"+number))
		}
	}
	if found == "" {
		t.Fatalf("no code was sent to %s: %q", number, b.messages(t))
	}
	if err := os.RemoveAll(b.texts); err != nil {
		t.Fatal(err)
	}
	return found
}

// other is another code of six digits.
func other(code string) string {
	if code[0] == '0' {
		return "1" + code[1:]
	}
	return "0" + code[1:]
}

// A twilio is a stand-in for Twilio. It keeps what was sent and refuses numbers with codes of its errors.
type twilio struct {
	*httptest.Server
	mu     sync.Mutex
	refuse map[string]int
	sent   []map[string]string
	status int // of refusals
}

func newTwilio(t *testing.T) *twilio {
	tw := &twilio{refuse: map[string]int{}, status: 400}
	tw.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tw.mu.Lock()
		defer tw.mu.Unlock()
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		call := map[string]string{"path": r.URL.Path}
		for k := range r.PostForm {
			call[k] = r.PostForm.Get(k)
		}
		tw.sent = append(tw.sent, call)
		w.Header().Set("Content-Type", "application/json")
		answer := map[string]any{"sid": "X1", "status": "pending"}
		if code := tw.refuse[r.PostForm.Get("To")]; code != 0 {
			w.WriteHeader(tw.status)
			answer = map[string]any{"code": code, "message": "refused", "status": tw.status}
		} else {
			w.WriteHeader(201)
			if r.PostForm.Get("Code") == "424242" {
				answer["status"] = "approved"
			}
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(tw.Close)
	return tw
}

func (tw *twilio) last(t *testing.T) map[string]string {
	t.Helper()
	tw.mu.Lock()
	defer tw.mu.Unlock()
	if len(tw.sent) == 0 {
		t.Fatal("nothing was sent")
	}
	return tw.sent[len(tw.sent)-1]
}

func (tw *twilio) refusing(number string, code int) {
	tw.mu.Lock()
	defer tw.mu.Unlock()
	tw.refuse["+"+number] = code
}

// through sends by Twilio, in one of its two kinds.
func (tw *twilio) through(t *testing.T, kind string) func(*resource.Options) {
	t.Helper()
	p, err := sms.New(t.Context(), sms.Options{
		Kind: kind, Template: "Code: {{code}}", AccountSID: "AC42", AuthToken: "secret", From: "+15005550000", ServiceSID: "VA1",
		AppName: "Barong", APIURL: tw.URL, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(o *resource.Options) { o.Phones.SMS = p }
}

// Files whose content is what their names say.
func pngFile(t testing.TB) string {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 1, 1))); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func jpegFile(t testing.TB) string {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, 1, 1)), nil); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const pdfFile = "%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"

// TestAccess asks every route of the table for its answer to strangers, to closed accounts and to users who are gone.
func TestAccess(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	b := start(t, e)
	u := e.NewUser(t, nil)
	banned := e.NewUser(t, func(u *db.User) { u.State = "banned" })
	gone := *u
	gone.UID = "ID0000000000"
	pending := e.NewUser(t, func(u *db.User) { u.State = "pending" })
	for _, r := range resource.New(resource.Options{}).Routes() {
		path := regexp.MustCompile(`{[a-z]+}`).ReplaceAllString(r.Path, "abc")
		b.Do(t, r.Method, path).Want(t, 401, "jwt.decode_and_verify")
		b.Do(t, r.Method, path, apitest.Token("x.y.z")).Want(t, 401, "jwt.decode_and_verify")
		b.Do(t, r.Method, path, apitest.As(banned)).Want(t, 401, "authz.user_not_active")
		b.Do(t, r.Method, path, apitest.As(&gone)).Want(t, 404, "record.not_found")
		if r.Access != rest.User {
			t.Errorf("%s %s is open to others than users", r.Method, r.Path)
		}
	}
	b.Get(t, "/resource/users/me", apitest.As(pending)).Want(t, 200)
}

// TestOwnLists holds that the lists of what one user owns come whole, and in pages to who asks for them.
func TestOwnLists(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	b, old := start(t, e), start(t, e, legacy)
	u := b.member(t)
	as := apitest.As(u)
	for _, key := range []string{"one", "two"} {
		b.label(t, u, key, "yes", account.Public)
	}
	for _, path := range []string{"/resource/labels", "/resource/phones", "/resource/documents", "/resource/profiles/me"} {
		b.Get(t, path, as, apitest.Query("page", "x", "limit", "y")).
			Want(t, 422, "non_integer_page", "non_positive_page", "non_integer_limit", "invalid_limit")
		old.Get(t, path, as, apitest.Query("page", "x", "limit", "y")).Want(t, 200)
	}
	b.Get(t, "/resource/phones", as, apitest.Query("page", "1")).WantBody(t, 200, "[]")
	if whole := b.Get(t, "/resource/labels", as).Want(t, 200); len(whole.List(t)) != 3 || whole.Header.Get("Total") != "" {
		t.Errorf("whole: %s with Total %q", whole.Body, whole.Header.Get("Total"))
	}
	var seen []any
	for _, c := range []struct {
		query       []string
		n           int
		size, links string
	}{
		{[]string{"limit", "2"}, 2, "2", "last next"},
		{[]string{"limit", "2", "page", "2"}, 1, "2", "first prev"},
		{[]string{"page", "1"}, 3, "100", ""},
		{[]string{"page", "1099511627776"}, 0, "100", "first prev"},
	} {
		a := b.Get(t, "/resource/labels", as, apitest.Query(c.query...)).Want(t, 200)
		list := a.List(t)
		if h := a.Header; len(list) != c.n || h.Get("Total") != "3" || h.Get("Per-Page") != c.size ||
			strings.Join(relation.FindAllString(h.Get("Link"), -1), " ") != c.links {
			t.Errorf("%q: %s with %v", c.query, a.Body, h)
		}
		if c.size == "2" {
			for _, l := range list {
				seen = append(seen, l["key"])
			}
		}
	}
	if !slices.Equal(seen, []any{"email", "one", "two"}) {
		t.Errorf("pages of %v", seen)
	}
}

var relation = regexp.MustCompile(`\b(first|prev|last|next)\b`)

// What the caller's role may do is asked for that role.
func TestAbilities(t *testing.T) {
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		e.Permit(t, "support", "GET", apitest.Prefix+"/admin/users")
		b.Get(t, "/resource/abilities", apitest.As(e.NewStaff(t, "support"))).
			WantBody(t, 200, `{"role":"support","calls":["GET /admin/support"]}`)
	})
}
