package systemtest

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	sitepages "barong/internal/pages"
	"barong/internal/test/browsertest"
	"barong/internal/test/testkit"
)

// A puzzler stands in the place of the providers of captchas: what they send to browsers, each in the form of its own, and
// what they say to the program. An answer counts once, and only if a browser was given it.
type puzzler struct {
	*httptest.Server
	key     string // the secret one
	last    atomic.Int64
	refuses atomic.Bool // the next answers
	silent  atomic.Bool // browsers get nothing

	mu    sync.Mutex
	given map[string]bool
}

func newPuzzler(t *testing.T, key string) *puzzler {
	p := &puzzler{key: key, given: map[string]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /siteverify", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"success": %t}`, r.FormValue("secret") == key && p.takes(r.FormValue("response")))
	})
	mux.HandleFunc("GET /register.php", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, md5Of(r.FormValue("gt"))) })
	mux.HandleFunc("POST /validate.php", func(w http.ResponseWriter, r *http.Request) {
		if code := r.FormValue("seccode"); p.takes(code) {
			fmt.Fprint(w, md5Of(code))
		}
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func md5Of(text string) string {
	sum := md5.Sum([]byte(text))
	return hex.EncodeToString(sum[:])
}

func (p *puzzler) gives() string {
	answer := fmt.Sprintf("answer-%d-of-a-person", p.last.Add(1))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.given[answer] = true
	return answer
}

func (p *puzzler) takes(answer string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.given[answer]
	delete(p.given, answer)
	return known && !p.refuses.Load()
}

// siteverify is how a widget of one of the three that are alike draws itself: by a second script, and in a frame, which tells its
// answer when somebody clicks in it. It keeps the answer in a field as well, in the middle of the form.
const siteverify = `window.%s = {
	ready: f => f(),
	render(at, o) {
		const s = document.createElement("script");
		s.src = %q;
		s.onload = () => {
			const frame = document.createElement("iframe"), field = document.createElement("textarea");
			Object.assign(frame, {src: %q + "?k=" + o.sitekey, title: "A puzzle", width: o.size === "compact" ? 164 : 302, height: 76});
			frame.style.border = "0";
			field.name = "widget-response";
			at.append(frame, field);
			addEventListener("message", e => {
				if (e.source !== frame.contentWindow) return;
				field.value = e.data;
				o.callback(e.data);
				frame.dataset.solved = "yes";
			});
		};
		document.head.append(s);
	},
};`

// aFrame is what stands in the frame.
const aFrame = `<!doctype html><html lang="en"><title>A puzzle</title><button style="width: 100%%; height: 60px" onclick='parent.postMessage(%q, "*")'>I am a person</button></html>`

// gtjs is the script of GeeTest, which asks for more by scripts, and draws itself into the page.
const gtjs = `window.initGeetest = (o, done) => {
	const load = (url) => { const s = document.createElement("script"); s.src = url; s.onerror = () => o.onError({}); document.head.append(s); };
	let solved = () => {}, answer;
	window.geetest_type = () => done({
		appendTo(at) {
			const style = document.createElement("link"), b = document.createElement("button");
			Object.assign(style, {rel: "stylesheet", href: "https://static.geetest.com/static/wind/style.css"});
			document.head.append(style);
			Object.assign(b, {type: "button", textContent: "I am a person"});
			b.onclick = () => load("https://api.geetest.com/ajax.php?challenge=" + o.challenge);
			at.append(b);
			window.geetest_done = a => { answer = a; solved(); b.dataset.solved = "yes"; };
		},
		onReady: f => f(), onError: () => {}, onSuccess: f => { solved = f; }, getValidate: () => answer,
	});
	load("https://api.geetest.com/gettype.php?gt=" + o.gt);
};`

// stands has the puzzler answer a browser in the place of every provider.
func (p *puzzler) stands(c *guest) {
	const script, page = "text/javascript", "text/html"
	at := func(prefix string, answer func(url string) (kind, body string)) {
		c.StandIn(prefix, func(url string) (string, string) {
			if p.silent.Load() {
				return "", ""
			}
			return answer(url)
		})
	}
	for _, like := range []struct{ name, first, second, frame string }{
		{"grecaptcha", "https://www.google.com/recaptcha/api.js", "https://www.gstatic.com/recaptcha/releases/x/recaptcha__en.js", "https://www.google.com/recaptcha/api2/anchor"},
		{"hcaptcha", "https://js.hcaptcha.com/1/api.js", "https://newassets.hcaptcha.com/captcha/v1/x/hcaptcha.js", "https://newassets.hcaptcha.com/captcha/v1/x/frame.html"},
		{"turnstile", "https://challenges.cloudflare.com/turnstile/v0/api.js", "https://challenges.cloudflare.com/turnstile/v0/g/x/more.js", "https://challenges.cloudflare.com/cdn-cgi/frame"},
	} {
		at(like.first, func(string) (string, string) {
			return script, fmt.Sprintf(siteverify, like.name, like.second, like.frame)
		})
		at(like.second, func(string) (string, string) { return script, "// what is drawn" })
		at(like.frame, func(string) (string, string) { return page, fmt.Sprintf(aFrame, p.gives()) })
	}
	at("https://static.geetest.com/static/tools/gt.js", func(string) (string, string) { return script, gtjs })
	at("https://static.geetest.com/static/wind/", func(string) (string, string) { return "text/css", ".geetest { color: red }" })
	at("https://api.geetest.com/gettype.php", func(string) (string, string) { return script, "geetest_type()" })
	at("https://api.geetest.com/ajax.php", func(address string) (string, string) {
		u, _ := url.Parse(address)
		challenge, code := u.Query().Get("challenge"), p.gives()
		return script, "geetest_done(" + browsertest.JSON(map[string]string{
			"geetest_challenge": challenge, "geetest_validate": md5Of(p.key + "geetest" + challenge), "geetest_seccode": code,
		}) + ")"
	})
}

// Every kind of captcha, in a real browser and under the real policy: the widget comes by the provider's script, its answer goes
// along with the form once, and who has not solved it, or has but is not believed, or gets no widget at all, is told and gets on.
func TestCaptchasInABrowser(t *testing.T) {
	t.Parallel()
	v := newVault()
	puzzles := newPuzzler(t, v.keep("captcha's secret key", "Gk4-pWz8+nRc"))
	file := filepath.Join(t.TempDir(), "barong.yml")
	write := func(kind string) {
		t.Helper()
		check := puzzles.URL + "/siteverify"
		if kind == "geetest" {
			check = puzzles.URL + "/validate.php"
		}
		if err := os.WriteFile(file, fmt.Appendf(nil, `captcha: %[1]s
captcha_protected_endpoints: [user_create, session_create]
`+map[bool]string{true: "", false: "captcha_verify_url: %[2]s\n"}[kind == "none"]+map[string]string{
			"none": "", "recaptcha": "recaptcha_site_key: site\nrecaptcha_secret_key: %[3]q\n", "hcaptcha": "hcaptcha_site_key: site\nhcaptcha_secret_key: %[3]q\n",
			"turnstile": "turnstile_site_key: site\nturnstile_secret_key: %[3]q\n", "geetest": "geetest_id: site\ngeetest_key: %[3]q\n",
		}[kind], kind, check, puzzles.key), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("none")
	s := newSite(t, v, "envoy", "BARONG_CONFIG="+file)
	say, p := s.say, s.holder(t)
	chooses := func(kind string) {
		t.Helper()
		write(kind)
		if err := s.process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		want := sitepages.Headers(kind)[0].Value
		testkit.Eventually(t, patience, func() bool {
			r := s.client().call("GET", "/identity/configs", nil)
			page := newClient(strings.TrimPrefix(s.origin, "http://"), v).send("GET", "/accounts/signin", nil, "Accept: text/html")
			return strings.Contains(r.body, `"captcha_type":"`+kind+`"`) && page.header.Get("Content-Security-Policy") == want
		})
	}

	for _, kind := range []string{"recaptcha", "hcaptcha", "turnstile", "geetest"} {
		t.Run(kind, func(t *testing.T) {
			chooses(kind)
			c := s.visit(t, browsertest.Options{})
			c.at(t)
			puzzles.stands(c)
			// solves clicks on the widget, as a person would.
			solves := func() {
				t.Helper()
				if kind == "geetest" {
					c.Click(".captcha button:not([data-solved])")
				} else {
					c.AwaitElement(".captcha iframe:not([data-solved])")
					c.settled()
					testkit.Eventually(t, patience, func() bool { // what is in it may come late
						c.Poke(".captcha iframe")
						return browsertest.Eval[bool](c.Page, `!!document.querySelector(".captcha iframe[data-solved]")`)
					})
				}
				c.AwaitElement(".captcha [data-solved]")
			}

			c.opens(account)
			c.AwaitPath("/accounts/signin")
			c.AwaitElement(map[bool]string{true: ".captcha button", false: ".captcha iframe"}[kind == "geetest"])
			c.settled() // what is being loaded fades in, and is of no colour until then
			c.Accessible("a sign-in with a puzzle")
			c.Fill("email", p.email)
			c.Fill("password", p.password)
			c.sends("password")
			c.AwaitFault("identity.captcha.required")
			// What a widget puts into the form for itself is not for the program.
			browsertest.Eval[any](c.Page, `(window.sent = [], window.plainly = fetch, window.fetch = (u, o) => { sent.push(String(o?.body)); return plainly(u, o); }, null)`)
			puzzles.refuses.Store(true)
			solves()
			c.sends("password")
			c.AwaitFault("identity.captcha.verification_failed")
			if sent := browsertest.Eval[string](c.Page, `sent.join()`); !strings.Contains(sent, `"captcha_response":`) || strings.Contains(sent, "widget-response") {
				t.Errorf("the page has sent %s", sent)
			}
			puzzles.refuses.Store(false)
			solves()
			c.sends("password")
			c.served(p.email)

			n := browsing.Add(1)
			c.signsOut()
			c.opens("/accounts/signup")
			c.Fill("email", fmt.Sprintf("puzzled%d@example.com", n))
			c.Fill("password", v.keep("password", "Rb8-wNc5+zKtq"))
			solves()
			c.sends("password")
			c.AwaitText(say("signup.mail", "email", fmt.Sprintf("puzzled%d@example.com", n)))
		})
	}

	t.Run("none comes", func(t *testing.T) {
		chooses("recaptcha")
		c := s.visit(t, browsertest.Options{Width: 320, Height: 700})
		c.at(t)
		c.Expect("net::ERR_CONNECTION_FAILED")
		puzzles.stands(c)
		puzzles.silent.Store(true)
		c.opens("/accounts/signin")
		c.AwaitFault("portal.captcha_missing")
		c.Accessible("a sign-in whose puzzle does not come")
		puzzles.silent.Store(false)
		c.Press(say("again"))
		c.AwaitElement(".captcha iframe")
		c.AwaitGone("[role=alert]")
		if wide := c.Wide(); len(wide) > 0 {
			t.Errorf("too wide: %s", wide)
		}
	})
	// The provider's host has more to give than its captcha.
	t.Run("nothing else of theirs", func(t *testing.T) {
		for what, get := range map[string]string{
			"a script": `(() => { const s = document.createElement("script"); s.src = "https://www.google.com/complete/search?client=chrome&jsonp=hacked"; document.body.append(s); })()`,
			"a frame":  `(() => { const f = document.createElement("iframe"); f.src = "https://www.google.com/maps"; document.body.append(f); })()`,
			"a call":   `fetch("https://www.google.com/collect").catch(() => {})`,
		} {
			c := s.visit(t, browsertest.Options{})
			puzzles.stands(c)
			c.opens("/accounts/forgot")
			c.settled()
			c.Provoke("Content-Security-Policy", func() { browsertest.Eval[any](c.Page, `(`+get+`, null)`) })
			c.untouched(what)
		}
	})
}
