// Package browsertest drives a real Chromium in tests, by way of its DevTools: the pages are opened, typed into and clicked
// as a person would. A [Page] is one window of a browser that nobody else uses, with cookies and passkeys of its own. All
// pages of a test binary share one process.
//
// What a page complains of fails its test: an error on its console, an exception, something that its Content-Security-Policy
// has blocked, a request to an origin that the test did not name, a dialog. [Page.Expect] and
// [Page.Provoke] are for tests that want one.
//
// Only tests import it.
package browsertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/remote"

	"barong/internal/test/testkit"
)

// patience bounds what must happen soon. It is far longer than what any machine needs: passing it is a defect.
const patience = time.Minute

// Options say how a person's browser is set up.
type Options struct {
	Width, Height int64  // of the window, in CSS pixels; 1280 by 800 when zero
	Dark          bool   // they prefer dark colours
	Motion        bool   // they do not mind motion; else pages are asked to reduce it
	Language      string // of the browser, such as "ru"; "en" when empty
}

// A Page is a window of a browser with a profile of its own.
type Page struct {
	t       testing.TB
	ctx     context.Context
	options Options

	mu         sync.Mutex
	origins    []string
	complaints []string
	expected   []string
	tolerant   bool                                                   // complaints do not fail the test
	standIns   map[string]func(url string) (contentType, body string) // by the beginning of the addresses
	aside      *[]string                                              // takes complaints that are provoked, and forgotten
}

// connected is the connection to the test binary's browser.
var connected = sync.OnceValues(func() (ctx context.Context, err error) {
	allocator, _ := remote.NewAllocator(context.Background(), address)
	ctx, _ = chromedp.NewContext(allocator)
	return ctx, chromedp.Do(ctx)
})

var address string

var addressOnce sync.Once

// Open opens a window until the end of the test.
func Open(t testing.TB, o Options) *Page {
	t.Helper()
	endpoint := testkit.Chromium(t)
	addressOnce.Do(func() { address = endpoint })
	parent, err := connected()
	if err != nil {
		t.Fatalf("browsertest: %v", err)
	}
	return open(t, parent, o, chromedp.WithNewBrowserContext())
}

// Tab opens another window of the same browser, with the same cookies.
func (p *Page) Tab(t testing.TB) *Page {
	t.Helper()
	return open(t, p.ctx, p.options)
}

func open(t testing.TB, parent context.Context, o Options, how ...chromedp.ContextOption) *Page {
	t.Helper()
	if o.Width == 0 {
		o.Width = 1280
	}
	if o.Height == 0 {
		o.Height = 800
	}
	if o.Language == "" {
		o.Language = "en"
	}
	p := &Page{t: t, options: o}
	ctx, cancel := chromedp.NewContext(parent, append(how, chromedp.WithListener(p.listen))...)
	p.ctx = ctx
	t.Cleanup(func() {
		if t.Failed() && ctx.Err() == nil {
			t.Logf("the window showed %s", p.describe())
		}
		cancel()
		for _, c := range p.take() {
			t.Errorf("the page complained: %s", c)
		}
	})
	version, err := chromedp.CallBrowser(ctx, browser.GetVersion, cdp.Empty{})
	if err != nil {
		t.Fatalf("browsertest: %v", err)
	}
	p.do(
		enable(log.Enable), enable(audits.Enable),
		command(emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{
			UserAgent: strings.Replace(version.UserAgent, "Headless", "", 1), AcceptLanguage: o.Language, Platform: "Linux x86_64",
		}),
		command(emulation.SetLocaleOverride, emulation.SetLocaleOverrideParams{Locale: strings.ReplaceAll(o.Language, "-", "_")}),
	)
	p.Resize(o.Width, o.Height)
	p.Scheme(o.Dark)
	return p
}

// For makes a part of the test the one that fails, until its end.
func (p *Page) For(t testing.TB) {
	before := p.t
	p.t = t
	t.Cleanup(func() { p.t = before })
}

func enable(c cdp.Command[cdp.Empty, cdp.Empty]) chromedp.Action[chromedp.Void] {
	return command(c, cdp.Empty{})
}

func command[P, R any](c cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	})
}

// do runs actions, and fails the test when one does not work within patience.
func (p *Page) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx); err != nil { // the window itself lives longer than an action
		p.t.Fatalf("browsertest: %v", err)
	}
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatalf("browsertest: %v at %s", err, p.describe())
	}
}

// listen takes down what the browser tells. It may not ask the browser anything.
func (p *Page) listen(event any) {
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		p.complain("exception: %s", (&chromedp.ExceptionError{ExceptionDetails: e.ExceptionDetails}).Error())
	case *runtime.EventConsoleAPICalled:
		switch e.Type {
		case runtime.ConsoleAPICalledTypeError, runtime.ConsoleAPICalledTypeWarning, runtime.ConsoleAPICalledTypeAssert:
			var words []string
			for _, arg := range e.Args {
				words = append(words, string(arg.Value)+arg.Description)
			}
			p.complain("console.%s: %s", e.Type, strings.Join(words, " "))
		}
	case *log.EventEntryAdded:
		// A refusal of the API is an answer like any other: pages show it.
		refusal := e.Entry.Source == log.EntrySourceNetwork && strings.Contains(e.Entry.Text, "responded with a status of")
		if !refusal && (e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning) {
			p.complain("console: %s: %s (%s)", e.Entry.Source, e.Entry.Text, e.Entry.URL)
		}
	case *audits.EventIssueAdded:
		if d := e.Issue.Details.ContentSecurityPolicyIssueDetails; d != nil {
			p.complain("Content-Security-Policy: %s blocked %s %s", d.ViolatedDirective, d.ContentSecurityPolicyViolationType, d.BlockedURL)
		}
	case *network.EventRequestWillBeSent:
		if origin := originOf(e.Request.URL); origin != "" && !p.known(origin) {
			p.complain("a request to another origin: %s %s", e.Request.Method, e.Request.URL)
		}
	case *fetch.EventRequestPaused:
		go p.standIn(e) // it asks the browser
	case *page.EventJavascriptDialogOpening:
		p.complain("a dialog: %s %q", e.Type, e.Message)
		go func() { // the page stands still until it is answered
			_, _ = chromedp.Call(p.ctx, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: true})
		}()
	}
}

// originOf is the origin of an address that is asked for over the network; empty for others.
func originOf(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

func (p *Page) known(origin string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.origins, origin)
}

func (p *Page) complain(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	what := fmt.Sprintf(format, args...)
	if p.aside != nil {
		*p.aside = append(*p.aside, what)
		return
	}
	for _, e := range p.expected {
		if strings.Contains(what, e) {
			return
		}
	}
	p.complaints = append(p.complaints, what)
}

// take returns the complaints that fail the test, and forgets them.
func (p *Page) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.complaints
	p.complaints = nil
	if p.tolerant {
		return nil
	}
	return out
}

// Allow lets the page ask another origin, such as "http://app.test:8000".
func (p *Page) Allow(origin string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.origins = append(p.origins, origin)
}

// StandIn answers the page in the place of somebody whose addresses begin like that, such as "https://vendor.example/path/". The
// browser judges by the page's policy as if they were asked themselves. No body is an answer that does not come.
func (p *Page) StandIn(prefix string, answer func(url string) (contentType, body string)) {
	p.t.Helper()
	p.Allow(originOf(prefix))
	p.mu.Lock()
	if p.standIns == nil {
		p.standIns = map[string]func(string) (string, string){}
	}
	p.standIns[prefix] = answer
	var patterns []*fetch.RequestPattern
	for prefix := range p.standIns {
		patterns = append(patterns, &fetch.RequestPattern{URLPattern: prefix + "*"})
	}
	p.mu.Unlock()
	p.do(command(fetch.Enable, fetch.EnableParams{Patterns: patterns}))
}

func (p *Page) standIn(e *fetch.EventRequestPaused) {
	p.mu.Lock()
	var answer func(string) (string, string)
	for prefix, a := range p.standIns {
		if strings.HasPrefix(e.Request.URL, prefix) {
			answer = a
		}
	}
	p.mu.Unlock()
	kind, body := answer(e.Request.URL)
	var err error
	if body == "" {
		_, err = chromedp.Call(p.ctx, fetch.FailRequest, fetch.FailRequestParams{RequestID: e.RequestID, ErrorReason: network.ErrorReasonConnectionFailed})
	} else {
		_, err = chromedp.Call(p.ctx, fetch.FulfillRequest, fetch.FulfillRequestParams{
			RequestID: e.RequestID, ResponseCode: 200, ResponseHeaders: []*fetch.HeaderEntry{{Name: "Content-Type", Value: kind}},
			Body: []byte(body),
		})
	}
	// A page that leads on gives up what it has asked for.
	if err != nil && p.ctx.Err() == nil && !strings.Contains(err.Error(), "Invalid InterceptionId") {
		p.complain("no answer in the place of %s: %v", e.Request.URL, err)
	}
}

// Scripts switches the scripts of pages off or on, as people may in their browsers. It holds for what is loaded from then on.
func (p *Page) Scripts(on bool) {
	p.t.Helper()
	p.do(command(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on}))
}

// Poke clicks in the middle of an element, whoever takes it there: what is in a frame answers for itself.
func (p *Page) Poke(css string) {
	p.t.Helper()
	p.AwaitElement(css)
	at := Eval[[]float64](p, fmt.Sprintf(`(e => { e.scrollIntoView({block: "center", behavior: "instant"}); const r = e.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]; })(%s)`, found(css)))
	p.do(chromedp.MouseClickXY(at[0], at[1]))
}

// Expect lets complaints pass that hold the words, from now on.
func (p *Page) Expect(words string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected = append(p.expected, words)
}

// Provoke runs f and waits until the page complains with the words. From then on it may complain of anything: a window in
// which something is provoked is of no use for anything else.
func (p *Page) Provoke(words string, f func()) {
	p.t.Helper()
	p.mu.Lock()
	p.tolerant, p.complaints = true, nil
	p.mu.Unlock()
	f()
	deadline := time.Now().Add(patience)
	for !strings.Contains(strings.Join(p.peek(), "\n"), words) {
		if time.Now().After(deadline) {
			p.t.Fatalf("browsertest: the page does not complain of %s: %q", words, p.peek())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Inject puts an inline script into the page, as a fault in it would let somebody do. The test fails unless the browser stops
// it for the page's Content-Security-Policy. What the page complains of meanwhile is forgotten.
func (p *Page) Inject(script string) {
	p.t.Helper()
	var aside []string
	p.mu.Lock()
	p.aside = &aside
	p.mu.Unlock()
	Eval[any](p, fmt.Sprintf(`(() => { const s = document.createElement("script"); s.textContent = %s; document.body.append(s); s.remove(); })()`, JSON(script)))
	said := func(words string) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return slices.ContainsFunc(aside, func(what string) bool { return strings.HasPrefix(what, words) })
	}
	// It is told twice, as an issue and on the console.
	for deadline := time.Now().Add(patience); !said("Content-Security-Policy: script-src-elem blocked") || !said("console: security: "); {
		if time.Now().After(deadline) {
			p.t.Fatalf("browsertest: the policy does not stop an inline script: %q at %s", aside, p.describe())
		}
		time.Sleep(5 * time.Millisecond)
	}
	p.mu.Lock()
	p.aside = nil
	p.mu.Unlock()
}

// Wide names what does not fit into the window: the page itself, and every part of it that has to be scrolled sideways.
func (p *Page) Wide() []string {
	p.t.Helper()
	return Eval[[]string](p, `(() => {
		const root = document.documentElement, out = [];
		if (root.scrollWidth > innerWidth) out.push("the page, by " + (root.scrollWidth - innerWidth) + " pixels");
		for (const e of document.body.querySelectorAll("*")) {
			if (e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 && ["auto", "scroll"].includes(getComputedStyle(e).overflowX)) {
				out.push(e.tagName + "." + e.className + ", by " + (e.scrollWidth - e.clientWidth) + " pixels");
			}
		}
		for (const e of document.querySelectorAll("table")) {
			const over = Math.round(e.getBoundingClientRect().right - e.parentElement.getBoundingClientRect().right);
			if (over > 1) out.push("a table over what is around it, by " + over + " pixels");
		}
		return out;
	})()`)
}

// Resize makes the window so large, in CSS pixels.
func (p *Page) Resize(width, height int64) {
	p.t.Helper()
	p.options.Width, p.options.Height = width, height
	p.do(chromedp.EmulateViewport(width, height))
}

// Scheme tells the page whether its reader prefers dark colours.
func (p *Page) Scheme(dark bool) {
	p.t.Helper()
	scheme, motion := "light", "reduce"
	if dark {
		scheme = "dark"
	}
	if p.options.Motion {
		motion = "no-preference"
	}
	p.options.Dark = dark
	p.do(command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: motion},
	}}))
}

// Go opens an address, and waits until it has been loaded. The page may ask its origin from then on.
func (p *Page) Go(address string) {
	p.t.Helper()
	if origin := originOf(address); !p.known(origin) {
		p.Allow(origin)
	}
	p.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		r, err := cdp.Call(ctx, t, page.Navigate, page.NavigateParams{URL: address})
		if err == nil && r.ErrorText != "" {
			err = errors.New(r.ErrorText)
		}
		return err
	}))
	// A page may lead on before it is complete: whatever it leads to is waited for.
	p.Await(`document.readyState === "complete"`)
}

// Reload loads the page again.
func (p *Page) Reload() {
	p.t.Helper()
	p.do(chromedp.Reload())
}

// URL is where the window is.
func (p *Page) URL() string {
	p.t.Helper()
	return Eval[string](p, `location.href`)
}

// Eval runs an expression of JavaScript in the page, awaits it when it is a promise, and decodes what comes of it. The
// page's Content-Security-Policy does not matter to it. An exception fails the test.
func Eval[T any](p *Page, expression string) T {
	p.t.Helper()
	v, err := evaluate[T](p, expression)
	if err != nil {
		p.t.Fatalf("browsertest: %s: %v at %s", shortened(expression), err, p.describe())
	}
	return v
}

// Failure runs an expression as Eval does, and returns the name of the exception that comes of it, such as "NotAllowedError";
// empty when none does.
func Failure(p *Page, expression string) string {
	p.t.Helper()
	return Eval[string](p, fmt.Sprintf("(async () => { try { await (%s); return ''; } catch (e) { return e.name; } })()", expression))
}

// JSON is v as an expression of JavaScript.
func JSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func shortened(s string) string {
	if len(s) > 300 {
		return s[:300] + "…"
	}
	return s
}

func evaluate[T any](p *Page, expression string) (T, error) {
	return evaluateWithin[T](p, patience, expression)
}

func evaluateWithin[T any](p *Page, d time.Duration, expression string) (T, error) {
	ctx, cancel := context.WithTimeout(p.ctx, d)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise, func(e *runtime.EvaluateParams) {
		yes := true
		e.UserGesture = &yes
	}))
}

// describe says what the window shows.
func (p *Page) describe() string {
	ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + "\n" + (document.body ? document.body.innerText : "")`))
	if err != nil {
		return "nothing: " + err.Error()
	}
	if len(text) > 5000 { // the end of a page is as likely to say what is wrong as its beginning
		text = text[:2500] + "…" + text[len(text)-2500:]
	}
	return text + "\n" + strings.Join(p.peek(), "\n")
}

func (p *Page) peek() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.complaints)
}

// Await waits until an expression of JavaScript is true; what is loaded meanwhile does not disturb it.
func (p *Page) Await(condition string) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		// What is asked while one page gives way to another may stay without an answer.
		ok, err := evaluateWithin[bool](p, patience/12, "!!("+condition+")")
		if err == nil && ok {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("browsertest: %s did not become true (%v): %s", condition, err, p.describe())
		}
		time.Sleep(25 * time.Millisecond)
	}
}

// AwaitPath waits until the window is at a path, and its document has been loaded.
func (p *Page) AwaitPath(path string) {
	p.t.Helper()
	p.Await(fmt.Sprintf(`location.pathname === %s && document.readyState === "complete"`, JSON(path)))
}

// AwaitText waits until the page shows the words.
func (p *Page) AwaitText(words string) {
	p.t.Helper()
	p.Await(fmt.Sprintf(`document.body && document.body.innerText.includes(%s)`, JSON(words)))
}

// AwaitElement waits until the page shows an element of a CSS selector.
func (p *Page) AwaitElement(css string) {
	p.t.Helper()
	p.Await(fmt.Sprintf(`[...document.querySelectorAll(%s)].some(e => e.checkVisibility())`, JSON(css)))
}

// AwaitGone waits until the page shows no element of a CSS selector.
func (p *Page) AwaitGone(css string) {
	p.t.Helper()
	p.Await(fmt.Sprintf(`![...document.querySelectorAll(%s)].some(e => e.checkVisibility())`, JSON(css)))
}

// Has tells whether the page shows an element of a CSS selector now.
func (p *Page) Has(css string) bool {
	p.t.Helper()
	return Eval[bool](p, fmt.Sprintf(`[...document.querySelectorAll(%s)].some(e => e.checkVisibility())`, JSON(css)))
}

// Text is what the first visible element of a CSS selector says.
func (p *Page) Text(css string) string {
	p.t.Helper()
	p.AwaitElement(css)
	return Eval[string](p, fmt.Sprintf(`[...document.querySelectorAll(%s)].find(e => e.checkVisibility()).innerText`, JSON(css)))
}

// AwaitFault waits until the page shows a refusal with that code.
func (p *Page) AwaitFault(code string) {
	p.t.Helper()
	p.AwaitElement(`[role=alert][data-code~=` + JSON(code) + `], [role=alert] [data-code~=` + JSON(code) + `]`)
}

// found is the first visible element of a CSS selector that is not disabled, or null.
func found(css string) string {
	return fmt.Sprintf(`[...document.querySelectorAll(%s)].find(e => e.checkVisibility() && !e.disabled)`, JSON(css))
}

// Click scrolls to the first visible element of a CSS selector, and clicks in its middle, wherever that leads.
func (p *Page) Click(css string) {
	p.t.Helper()
	p.click(found(css), css)
}

// Press clicks the button or link that says exactly this, by its text or its accessible name.
func (p *Page) Press(name string) {
	p.t.Helper()
	p.click(named(name), name)
}

func named(name string) string {
	return fmt.Sprintf(`[...document.querySelectorAll("button, a, summary, [role=button], [role=tab], [role=menuitem]")].find(e =>
		e.checkVisibility() && !e.disabled && [e.innerText, e.getAttribute("aria-label"), e.title].some(n => n && n.replace(/\s+/g, " ").trim() === %s))`, JSON(name))
}

func (p *Page) click(element, name string) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		p.Await(element)
		// Where it is once it stays there, unless something lies above it. A click that misses it, since the page has moved, is
		// noticed, and made again. A page that draws itself anew meanwhile may have put another element in its place: that
		// one is asked for when the click arrives, or a click that was answered would be made twice.
		at, err := evaluateWithin[[]float64](p, patience/12, fmt.Sprintf(`(async () => {
			const find = () => %s, frame = () => new Promise(requestAnimationFrame);
			const e = find();
			if (!e) return [];
			const place = () => { const r = e.getClientRects()[0]; return r ? [r.left + r.width / 2, r.top + r.height / 2] : [0, 0]; };
			e.scrollIntoView({block: "center", inline: "center", behavior: "instant"});
			let at = place();
			for (let still = 0; still < 3; ) {
				await frame();
				const now = place();
				still = now[0] === at[0] && now[1] === at[1] ? still + 1 : 0;
				at = now;
			}
			const top = document.elementFromPoint(...at);
			if (!top || !(e.contains(top) || top.contains(e) || [...(e.labels || [])].some(l => l.contains(top)))) return [];
			window.clicked = false;
			addEventListener("click", c => {
				window.clicked ||= [e, find()].some(e => e && c.composedPath().some(t => t === e || [...(e.labels || [])].includes(t)));
			}, {once: true, capture: true});
			return at;
		})()`, element))
		if err == nil && len(at) == 2 {
			p.do(chromedp.MouseClickXY(at[0], at[1]))
			if hit, err := evaluateWithin[bool](p, patience/12, `window.clicked !== false`); err != nil || hit { // or it has led to another page
				return
			}
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("browsertest: %s cannot be clicked (%v), or is covered by something else: %s", name, err, p.describe())
		}
	}
}

// Fill types into the field of that name, in place of what it holds. In a list it chooses the option of that value.
func (p *Page) Fill(name, text string) {
	p.t.Helper()
	p.FillAt(`[name=`+JSON(name)+`]`, text)
}

// FillAt is Fill for the field of a CSS selector. It takes the focus and types in one turn of the page: a page that gives the
// focus to another field meanwhile would have the text typed there.
func (p *Page) FillAt(css, text string) {
	p.t.Helper()
	element := found(css)
	deadline := time.Now().Add(patience)
	for {
		p.Await(element)
		switch Eval[string](p, fmt.Sprintf(`(() => {
			const e = %s, text = %s;
			if (!e) return "gone";
			e.scrollIntoView({block: "center", behavior: "instant"});
			e.focus();
			if (e.tagName === "SELECT") {
				if (![...e.options].some(o => o.value === text)) return "no option";
				e.value = text;
			} else if (["date", "time", "datetime-local", "month", "color", "range"].includes(e.type)) {
				Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(e, text);
			} else {
				e.select();
				text ? document.execCommand("insertText", false, text) : document.execCommand("delete");
				return e.value === text ? "set" : "not taken";
			}
			e.dispatchEvent(new Event("input", {bubbles: true}));
			e.dispatchEvent(new Event("change", {bubbles: true}));
			return "set";
		})()`, element, JSON(text))) {
		case "set":
			return
		case "no option":
			p.t.Fatalf("browsertest: %s has no option %q", css, text)
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("browsertest: %s does not take %q: %s", css, text, p.describe())
		}
		time.Sleep(25 * time.Millisecond)
	}
}

// Key presses keys, as github.com/chromedp/chromedp/kb names them: kb.Enter, "\t", "y".
func (p *Page) Key(keys string) {
	p.t.Helper()
	p.do(chromedp.KeyEvent(keys))
}

// Upload gives a file to the field of that name.
func (p *Page) Upload(name, file string) {
	p.t.Helper()
	css := `input[type=file][name=` + JSON(name) + `]`
	p.Await(fmt.Sprintf(`document.querySelector(%s)`, JSON(css)))
	p.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		object, err := chromedp.Evaluate[*runtime.RemoteObject](fmt.Sprintf(`document.querySelector(%s)`, JSON(css)))(ctx, t)
		if err != nil {
			return err
		}
		_, err = cdp.Call(ctx, t, dom.SetFileInputFiles, dom.SetFileInputFilesParams{Files: []string{file}, ObjectID: object.ObjectID})
		return err
	}))
}

// Picture is a PNG of what the window shows; of the whole page when whole is set.
func (p *Page) Picture(whole bool) []byte {
	p.t.Helper()
	p.Await(`document.fonts.status === "loaded"`)
	params := page.CaptureScreenshotParams{CaptureBeyondViewport: &whole}
	if whole {
		size := Eval[[]float64](p, `[document.documentElement.scrollWidth, document.documentElement.scrollHeight]`)
		params.Clip = &page.Viewport{Width: size[0], Height: size[1], Scale: 1}
	}
	var out []byte
	p.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		shot, err := cdp.Call(ctx, t, page.CaptureScreenshot, params)
		out = shot.Data
		return err
	}))
	return out
}

// Save writes a picture into a folder, which is made when it is not there.
func (p *Page) Save(path string, whole bool) {
	p.t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err = errors.Join(err, os.WriteFile(path, p.Picture(whole), 0o644)); err != nil {
		p.t.Fatalf("browsertest: %v", err)
	}
}

// Slow makes the network of the page slow: so many milliseconds until an answer begins, and so many kilobytes a second.
func (p *Page) Slow(milliseconds, kilobytes float64) {
	p.t.Helper()
	p.do(command(network.EmulateNetworkConditionsByRule, network.EmulateNetworkConditionsByRuleParams{
		MatchedNetworkConditions: []*network.Conditions{{
			Latency: milliseconds, DownloadThroughput: kilobytes * 1024, UploadThroughput: kilobytes * 1024,
		}},
	}))
}

// FirstPaint is how long it took from the beginning of the navigation until something was seen.
func (p *Page) FirstPaint() time.Duration {
	p.t.Helper()
	p.Await(`performance.getEntriesByName("first-contentful-paint").length > 0`)
	ms := Eval[float64](p, `performance.getEntriesByName("first-contentful-paint")[0].startTime`)
	return time.Duration(ms * float64(time.Millisecond))
}
