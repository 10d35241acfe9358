package systemtest

import (
	"bytes"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"barong/internal/test/browsertest"
	"barong/internal/test/testkit"
)

var update = flag.Bool("update", false, "write the pictures of docs/images anew")

// A place is a page of the portal or the console. Its picture, if it is named, stands in the documentation.
type place struct{ path, picture string }

// places are the pages of who is not signed in, and of a member.
var places = struct{ open, member []place }{
	open: []place{
		{"/accounts/signin", "signin"},
		{"/accounts/signup", "signup"},
		{"/accounts/forgot", ""},
		{"/accounts/confirmation", ""},
		{"/accounts/confirmation?confirmation_token=x", ""},
		{"/accounts/password_reset?reset_token=x", ""},
		{"/accounts/nothing", ""},
	},
	member: []place{
		{"/accounts/", "account"},
		{"/accounts/profile", ""},
		{"/accounts/phones", ""},
		{"/accounts/documents", "documents"},
		{"/accounts/security", "security"},
		{"/accounts/sessions", "sessions"},
		{"/accounts/keys", ""},
		{"/accounts/activity", ""},
		{"/accounts/activity?topic=session", ""},
		{"/accounts/delete", ""},
		{"/accounts/signout", ""},
	},
}

// settled waits until the page shows what it has to show.
func (c *guest) settled() {
	c.t.Helper()
	c.Await(`document.readyState === "complete" && document.querySelector("main h1") && !document.querySelector("[aria-busy=true]")`)
}

// looks holds that a page pleases everybody: axe-core in both schemes, and nothing that a narrow window cuts off.
func (c *guest) looks(at place) {
	c.t.Helper()
	for _, as := range []struct {
		name  string
		width int64
		dark  bool
	}{{"light", 1280, false}, {"dark", 1280, true}, {"narrow", 320, false}} {
		c.Resize(as.width, 800)
		c.Scheme(as.dark)
		c.Accessible(at.path + " " + as.name)
		if wide := browsertest.Eval[int64](c.Page, `document.documentElement.scrollWidth`); wide > as.width {
			c.t.Errorf("%s: %d pixels wide in a window of %d", at.path, wide, as.width)
		}
		if at.picture != "" && *update {
			c.picture(at.picture, as.name)
		}
	}
	c.Scheme(false)
	c.Resize(1280, 800)
}

// picture writes a picture of the page for the documentation.
func (c *guest) picture(name, as string) {
	c.t.Helper()
	switch {
	case as == "light":
	case as == "dark" && name == "signin":
		name += "-dark"
	default:
		return
	}
	c.Resize(1024, 720)
	c.Save(filepath.Join(testkit.Root(c.t), "docs", "images", name+".png"), false)
}

// aPicture writes a PNG like the photograph of a document into a folder, and returns its path.
func aPicture(t *testing.T) string {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, 480, 300))
	for y := range 300 {
		for x := range 480 {
			c := color.RGBA{R: 228, G: 232, B: 240, A: 255}
			switch {
			case x > 30 && x < 150 && y > 60 && y < 220:
				c = color.RGBA{R: 150, G: 160, B: 180, A: 255}
			case x > 180 && x < 440 && y > 60 && y%36 < 10 && y < 220:
				c = color.RGBA{R: 90, G: 100, B: 120, A: 255}
			case y > 250 && y%18 < 6:
				c = color.RGBA{R: 40, G: 44, B: 52, A: 255}
			}
			m.SetRGBA(x, y, c)
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "passport.png")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every page of the portal is for everybody: read by programs, in light and dark, in a narrow window.
func TestPagesOfThePortal(t *testing.T) {
	t.Parallel()
	s := newSite(t, newVault(), "envoy")
	stranger := s.visit(t, browsertest.Options{})
	for _, at := range places.open {
		t.Run(at.path, func(t *testing.T) {
			stranger.at(t)
			stranger.opens(at.path)
			stranger.settled()
			stranger.looks(at)
		})
	}
	t.Run("sizes", func(t *testing.T) { sizes(t, s) })
	t.Run("first paint", func(t *testing.T) {
		slow := s.visit(t, browsertest.Options{})
		slow.Slow(300, 50) // a phone on a bad day: 0.3 s and 400 kbit/s
		slow.opens("/accounts/signin")
		t.Logf("the sign-in page is painted after %s over 400 kbit/s and 300 ms", slow.FirstPaint().Round(time.Millisecond))
		slow.settled()
		begin := time.Now()
		slow.Reload()
		slow.settled()
		t.Logf("again, with what the browser kept: %s", time.Since(begin).Round(time.Millisecond))
	})
	t.Run("keyboard", func(t *testing.T) { byKeyboard(t, s) })

	p := s.holder(t)
	c := s.enters(t, p, "/accounts/security")
	c.switchOnFactor(p)
	c.looks(place{"/accounts/security with a second factor", ""})
	c.opens("/accounts/documents")
	c.Fill("doc_number", "AB 1234567")
	c.Fill("doc_expire", time.Now().AddDate(2, 0, 0).Format(time.DateOnly))
	c.Upload("upload", aPicture(t))
	c.sends("doc_number")
	c.AwaitText("AB 1234567")
	c.opens("/accounts/profile")
	c.Fill("first_name", "Grace")
	c.Fill("last_name", "Hopper")
	c.sends("first_name")
	for _, at := range places.member {
		t.Run(at.path, func(t *testing.T) {
			c.at(t)
			c.opens(at.path)
			c.settled()
			c.looks(at)
		})
	}
	t.Run("faults", func(t *testing.T) {
		stranger.at(t)
		stranger.opens("/accounts/signin")
		stranger.Fill("email", "nobody@example.com")
		stranger.Fill("password", "Wrong-one-9")
		stranger.sends("password")
		stranger.AwaitFault("identity.session.invalid_params")
		stranger.looks(place{"/accounts/signin after a refusal", ""})
	})
}

// byKeyboard signs in without a mouse.
func byKeyboard(t *testing.T, s *site) {
	p := s.holder(t)
	c := s.visit(t, browsertest.Options{})
	c.opens("/accounts/signin")
	c.settled()
	reach := func(name string) {
		t.Helper()
		for range 30 {
			if browsertest.Eval[bool](c.Page, fmt.Sprintf(`document.activeElement.getAttribute("name") === %q`, name)) {
				return
			}
			c.Key("\t")
		}
		t.Fatalf("30 steps do not lead to %s", name)
	}
	reach("email")
	c.Key(p.email)
	reach("password")
	c.Key(p.password)
	if outline := browsertest.Eval[string](c.Page, `getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).boxShadow`); outline == "nonenone" {
		t.Error("it is not seen where the keyboard is")
	}
	c.Key("\r")
	c.AwaitPath("/accounts/")
}

// sizes holds that the sign-in page takes 60 KB at most, and the portal 200 KB in all, compressed as a browser gets them.
func sizes(t *testing.T, s *site) {
	seen := map[string]int{}
	var total int
	// count adds what a page has fetched and no page before it, and returns what the page itself takes.
	count := func(c *guest) (sum int) {
		t.Helper()
		for _, r := range browsertest.Eval[[]struct {
			Name string
			Size int
		}](c.Page, `performance.getEntriesByType("resource").concat(performance.getEntriesByType("navigation"))
				.filter(e => e.name.includes("/accounts/")).map(e => ({name: e.name, size: e.encodedBodySize}))`) {
			sum += r.Size
			if _, ok := seen[r.Name]; !ok {
				seen[r.Name] = r.Size
				if strings.Contains(r.Name, "/accounts/assets/") {
					total += r.Size
				}
			}
		}
		return sum
	}
	transferred := func(path string) int {
		t.Helper()
		c := s.visit(t, browsertest.Options{})
		c.opens(path)
		c.settled()
		return count(c)
	}
	signin := transferred("/accounts/signin")
	if signin == 0 || signin > 60<<10 {
		t.Errorf("the sign-in page takes %d bytes, want at most %d", signin, 60<<10)
	}
	for _, at := range places.open {
		transferred(at.path)
	}
	c := s.enters(t, s.holder(t), "/accounts/")
	for _, at := range places.member {
		c.opens(at.path)
		c.settled()
		count(c)
	}
	if total > 200<<10 {
		t.Errorf("the portal takes %d bytes in all, want at most %d", total, 200<<10)
	}
	t.Logf("the sign-in page takes %d bytes, the portal %d", signin, total)
	for name := range seen {
		if !strings.Contains(name, "/accounts/assets/") {
			continue
		}
		r, err := http.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
		if cache := r.Header.Get("Cache-Control"); !strings.Contains(cache, "immutable") {
			t.Errorf("%s: Cache-Control %q", name, cache)
		}
	}
}

// evil is what somebody may type who wants a script of theirs to run.
const evil = `"'><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>{{hacked}}`

// untouched holds that nothing of what was typed has become a part of the page.
func (c *guest) untouched(what string) {
	c.t.Helper()
	if browsertest.Eval[bool](c.Page, `window.hacked !== undefined || !!document.querySelector("img[src=x]")`) {
		c.t.Errorf("%s: what was typed has become a part of the page", what)
	}
}

// Whatever people type is shown as it was typed, and no script of theirs runs; where one got in, the page's policy would
// stop it.
func TestScriptsOfStrangers(t *testing.T) {
	t.Parallel()
	s := newSite(t, newVault(), "envoy")

	t.Run("in the address", func(t *testing.T) {
		c := s.visit(t, browsertest.Options{})
		q := url.QueryEscape(evil)
		for _, path := range []string{
			"/accounts/signin?rd=" + q, "/accounts/signin?error=" + q, "/accounts/signin?rd=" + url.QueryEscape("javascript:window.hacked=1"),
			"/accounts/signup?rd=" + q + "&refid=" + q, "/accounts/confirmation?confirmation_token=" + q, "/accounts/password_reset?reset_token=" + q,
			"/accounts/signin?" + q + "=1#" + q, "/accounts/forgot?email=" + q + "&lang=" + q,
		} {
			c.opens(path)
			c.settled()
			c.untouched(path)
		}
		c.opens("/accounts/" + url.PathEscape(evil))
		c.Await(`document.readyState === "complete"`)
		c.untouched("a path")
	})
	t.Run("in what is kept", func(t *testing.T) {
		p := s.holder(t)
		c := s.visit(t, browsertest.Options{})
		c.NewAuthenticator()
		c.opens("/accounts/profile")
		c.signsIn(p)
		c.AwaitPath("/accounts/profile")
		for _, name := range []string{"first_name", "last_name", "city", "postcode", "address"} {
			c.Fill(name, evil)
		}
		c.sends("first_name")
		c.settled()
		c.untouched("the profile as it is sent")
		// A name that the API refuses is no way in; what it takes is shown.
		api := s.client()
		api.signIn(p.email, p.password).wants(t, "sign-in", 201)
		for _, name := range []string{"first_name", "last_name", "city", "postcode", "address"} {
			r := api.call("POST", "/resource/profiles", params{name: evil})
			if r.status >= 500 {
				t.Errorf("%s: got %s", name, r)
			}
			api.call("PUT", "/resource/profiles", params{name: evil})
		}
		api.call("POST", "/resource/documents", newForm(t, map[string]string{
			"doc_type": "Passport", "doc_number": evil[:60], "doc_expire": time.Now().AddDate(2, 0, 0).Format(time.DateOnly),
		}, evil+".png", []byte("\x89PNG\r\n\x1a\n")))
		api.call("POST", "/resource/labels", params{"key": "note", "value": evil})
		api.call("PUT", "/resource/users/me", params{"data": browsertest.JSON(map[string]string{"name": evil})})
		other := s.client()
		other.call("POST", "/identity/sessions", params{"email": p.email, "password": p.password}, "User-Agent: "+evil).wants(t, "sign-in", 201)
		c.opens("/accounts/security")
		c.Press(words(t, "en")("passkeys.add"))
		c.Fill("name", evil[:60])
		c.Fill("password", p.password)
		c.sends("password")
		c.settled()
		for _, at := range places.member {
			c.opens(at.path)
			c.settled()
			c.untouched(at.path)
		}
		c.opens("/accounts/activity")
		c.AwaitText(evil[:20])
	})
	t.Run("stopped by the policy", func(t *testing.T) {
		c := s.visit(t, browsertest.Options{})
		for what, get := range map[string]string{
			"an inline script":     `(() => { const s = document.createElement("script"); s.textContent = "window.hacked = 1"; document.body.append(s); })()`,
			"a handler":            `(() => { const d = document.createElement("div"); d.innerHTML = '<img src="data:," onerror="window.hacked = 1">'; document.body.append(d); })()`,
			"a script from abroad": `(() => { const s = document.createElement("script"); s.src = "http://elsewhere.test/x.js"; document.body.append(s); })()`,
			"a script of text":     `(() => { const s = document.createElement("script"); s.src = "data:text/javascript,window.hacked=1"; document.body.append(s); })()`,
			"a frame":              `(() => { const f = document.createElement("iframe"); f.src = "http://elsewhere.test/"; document.body.append(f); })()`,
			"a base":               `(() => { const b = document.createElement("base"); b.href = "http://elsewhere.test/"; document.head.append(b); })()`,
			"a style":              `(() => { const s = document.createElement("style"); s.textContent = "main { display: none }"; document.head.append(s); })()`,
			"a call abroad":        `fetch("http://elsewhere.test/").catch(() => {})`,
			"a form abroad":        `(() => { const f = document.createElement("form"); f.action = "http://elsewhere.test/"; f.method = "post"; document.body.append(f); f.submit(); })()`,
		} {
			c.opens("/accounts/signin")
			c.settled()
			c.Provoke("Content-Security-Policy", func() { browsertest.Eval[any](c.Page, `(`+get+`, null)`) })
			c.untouched(what)
		}
	})
	t.Run("in a frame", func(t *testing.T) {
		for path, origin := range map[string]string{
			"/accounts/signin": s.origin, "/accounts/": s.origin, "/docs": "http://" + s.api,
		} {
			r, err := http.Get(origin + path)
			if err != nil {
				t.Fatal(err)
			}
			r.Body.Close()
			policy := r.Header.Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
				if !strings.Contains(policy, want) {
					t.Errorf("%s: the policy %q lacks %s", path, policy, want)
				}
			}
			if strings.Contains(policy, "unsafe") {
				t.Errorf("%s: the policy %q", path, policy)
			}
			if r.Header.Get("X-Content-Type-Options") != "nosniff" || r.Header.Get("Referrer-Policy") != "no-referrer" ||
				r.Header.Get("Cross-Origin-Opener-Policy") != "same-origin" {
				t.Errorf("%s: headers %v", path, r.Header)
			}
		}
	})
}
