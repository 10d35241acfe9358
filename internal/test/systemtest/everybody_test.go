package systemtest

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	sitepages "barong/internal/pages"
	"barong/internal/test/browsertest"
)

// firstPaint holds what a browser has to fetch before it shows the sign-in page: little, and all of it named by the page itself,
// so that over any network the name is there after two round trips, and the form with it when so many bytes have come. Another
// language is one more file, and one round trip more. Time itself is told and not held, since it is that of this machine.
func firstPaint(t *testing.T, s *site) {
	res, err := http.Get(s.origin + "/accounts/signin")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for language, others := range map[string]int{"en": 0, "ru": 1} {
		c := s.visit(t, browsertest.Options{Language: language})
		c.Slow(300, 50) // a phone on a bad day: 0.3 s and 400 kbit/s
		begun := time.Now()
		c.opens("/accounts/signin")
		c.settled()
		whole, painted := time.Since(begun), c.FirstPaint()
		had := browsertest.Eval[[]struct {
			Name  string
			Size  int
			Paint bool // it was there by then
		}](c.Page, `performance.getEntriesByType("resource").filter(e => e.name.includes("/accounts/assets/")).map(e => ({name: new URL(e.name).pathname,
			size: e.encodedBodySize, paint: e.responseEnd <= performance.getEntriesByName("first-contentful-paint")[0].startTime}))`)
		sum, paint, files := len(page), len(page), 1
		for _, r := range had {
			sum += r.Size
			if r.Paint {
				files++
				paint += r.Size
			}
			if !strings.Contains(string(page), `"`+r.Name+`"`) {
				others--
			}
		}
		if others < 0 || len(had) > 9 || sum > 40<<10 {
			t.Errorf("%s: the form takes %d files of %d bytes: %v", language, len(had)+1, sum, had)
		}
		begin := time.Now()
		c.Reload()
		c.settled()
		t.Logf("%s: over 400 kbit/s and 300 ms, painted after %s, with %d files of %d bytes; the form is there after %s, with %d files of %d bytes, and after %s with what the browser kept",
			language, painted.Round(time.Millisecond), files, paint, whole.Round(time.Millisecond), len(had)+1, sum, time.Since(begin).Round(time.Millisecond))
	}
}

// withoutScripts holds what the pages say where their program cannot run, or does not come.
func withoutScripts(t *testing.T, s *site) {
	c := s.visit(t, browsertest.Options{Width: 320, Height: 700})
	c.Scripts(false)
	for _, path := range []string{"/accounts/signin", "/console/"} {
		c.opens(path)
		c.AwaitText("JavaScript")
		c.AwaitGone(".late")
		if wide := c.Wide(); len(wide) > 0 {
			t.Errorf("%s without scripts is too wide: %s", path, wide)
		}
	}
	c.Scripts(true)
	c.opens("/accounts/signin")
	c.settled()
	if c.Has("noscript, .late") {
		t.Error("the page says that it does not work where it does")
	}
	slow := s.visit(t, browsertest.Options{})
	slow.Expect("net::ERR_CONNECTION_FAILED")
	slow.StandIn(s.origin+"/accounts/assets/portal-", func(string) (string, string) { return "", "" })
	slow.opens("/accounts/signin")
	const seen = `getComputedStyle(document.querySelector(".late a")).visibility === "visible"`
	if browsertest.Eval[bool](slow.Page, seen) {
		t.Error("the page says at once that it takes long")
	}
	browsertest.Eval[any](slow.Page, `(document.querySelector(".late").getAnimations()[0].finish(), null)`) // after some seconds
	slow.Await(seen)
}

// byKeyboard signs in with a second factor and changes a rule without a mouse. Wherever the keyboard is it is seen, and after a
// refusal it is where something can be mended.
func byKeyboard(t *testing.T, s *site) {
	say := s.say
	p := s.holder(t)
	s.promote(t, p)
	api := s.client()
	api.signIn(p.email, p.password).wants(t, "sign-in", 201)
	p.factor = api.enable2FA(t)
	c := s.visit(t, browsertest.Options{})
	// at is where the keyboard is: the name of a field, or what a link or a button says.
	at := func() string {
		t.Helper()
		return browsertest.Eval[string](c.Page, `(e => e.getAttribute("name") ?? e.innerText.replace(/\s+/g, " ").trim())(document.activeElement)`)
	}
	reach := func(what string) {
		t.Helper()
		var trail []string
		for range 150 {
			got := at()
			if got == what || strings.HasPrefix(got, what+" ") {
				return
			}
			trail = append(trail, got)
			c.Key("\t")
			if !browsertest.Eval[bool](c.Page, `(e => e === document.body || (s => s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2)(getComputedStyle(e)))(document.activeElement)`) {
				t.Errorf("it is not seen that the keyboard is at %q", at())
			}
		}
		t.Fatalf("150 steps do not lead to %q, but by %q", what, trail)
	}
	press := func(what string) {
		t.Helper()
		reach(what)
		c.Key("\r")
	}
	c.opens("/console/permissions?role=member")
	c.AwaitPath("/accounts/signin")
	c.settled()
	reach("email")
	c.Key(p.email)
	reach("password")
	c.Key("Wrong" + p.password + "\r")
	c.AwaitFault("identity.session.invalid_params")
	c.Await(`document.activeElement?.getAttribute("role") === "alert"`)
	reach("password")
	c.Key(p.password + "\r") // what was there is selected
	c.Await(`document.activeElement?.name === "otp_code"`)
	c.Key("000000\r")
	c.AwaitFault("identity.session.invalid_otp")
	c.Await(`document.activeElement?.name === "otp_code" && document.activeElement.getAttribute("aria-invalid") === "true"`)
	c.Key(strings.Repeat("\b", 6) + p.factor.code(t) + "\r")
	c.AwaitPath("/console/permissions")
	c.settled()

	c.Key("\t")
	if got := at(); got != say("skip") {
		t.Errorf("the first step leads to %q", got)
	}
	c.Key("\r")
	c.Await(`document.activeElement?.id === "main"`)
	press(say("c.edit"))
	c.Await(`document.activeElement?.name === "role"`)
	reach("path")
	c.Key("api/v2/peatio/account/by/keyboard\r")
	c.AwaitText(say("c.draft.added"))
	c.Await(`document.activeElement !== document.body`)
	press(say("c.draft.update"))
	c.AwaitText(say("c.draft.preview"))
	press(say("c.draft.preview"))
	c.AwaitElement("[aria-labelledby=turns]")
	press(say("c.draft.save"))
	c.AwaitText(say("c.draft.saved", "n", "1"))
	c.AwaitText(say("c.permissions.add")) // the list of rules is there: it comes by itself, and takes the keyboard to its top
	c.settled()
	press(say("c.undo"))
	c.AwaitText(say("c.undone"))

	// Who does not want to see things move sees them fade.
	for motion, want := range map[bool]string{false: "appear", true: "turn"} {
		c := s.visit(t, browsertest.Options{Motion: motion})
		c.opens("/accounts/signin")
		if got := browsertest.Eval[string](c.Page, `(e => { e.className = "spinner"; document.body.append(e); return getComputedStyle(e).animationName; })(document.createElement("i"))`); got != want {
			t.Errorf("motion %v: what goes on is shown by %q", motion, got)
		}
		if !motion && browsertest.Eval[bool](c.Page, `[...document.querySelectorAll("*")].some(e => (s => parseFloat(s.transitionDuration) > 0 || s.scrollBehavior === "smooth")(getComputedStyle(e)))`) {
			t.Error("something moves")
		}
	}
}

// secured holds the headers of every page and of every refusal, through gateways.
func secured(t *testing.T, s *site, staff []place, origins ...string) {
	want := map[string]string{"Cache-Control": "no-store"}
	for _, h := range sitepages.Headers("none") {
		want[h.Name] = h.Value
	}
	for _, name := range []string{"Content-Security-Policy", "Referrer-Policy", "X-Content-Type-Options", "Cross-Origin-Opener-Policy", "Permissions-Policy"} {
		if want[name] == "" {
			t.Errorf("pages have no %s", name)
		}
	}
	if policy := want["Content-Security-Policy"]; !strings.Contains(policy, "frame-ancestors 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %q", policy)
	}
	for _, origin := range origins {
		host := strings.TrimPrefix(origin, "http://")
		stranger, member := newClient(host, s.vault), newClient(host, s.vault)
		for _, c := range []*client{stranger, member} {
			c.http = &http.Client{Transport: transport, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		}
		p := s.holder(t)
		member.signIn(p.email, p.password).wants(t, "sign-in", 201)
		held := func(c *client, method, path string, status int, html bool) {
			t.Helper()
			r := c.send(method, path, nil, "Accept: text/html")
			if r.err != nil || r.status != status || strings.HasPrefix(r.header.Get("Content-Type"), "text/html") != html {
				t.Errorf("%s %s: got %d %s %v", method, path, r.status, r.header.Get("Content-Type"), r.err)
			}
			for name, value := range want {
				if got := r.header.Values(name); !slices.Equal(got, []string{value}) {
					t.Errorf("%s %s: %s is %q", method, path, name, got)
				}
			}
		}
		for _, at := range slices.Concat(places.open, places.member, staff) {
			path, _, _ := strings.Cut(at.path, "?")
			status := 200
			if strings.HasSuffix(path, "/nothing") {
				status = 404
			}
			held(stranger, "GET", path, status, true)
		}
		held(stranger, "GET", "/accounts/continue?rd=https://elsewhere.test/", 302, false)
		held(stranger, "GET", "/accounts", 302, false)
		held(stranger, "GET", "/console", 302, false)
		held(stranger, "GET", "/accounts/assets/nothing.js", 404, false)
		held(member, "GET", "/api/v2/nobody/allowed/this", 401, true)
	}
}
