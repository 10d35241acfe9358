package browsertest_test

import (
	"bytes"
	"fmt"
	"image/png"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"

	"barong/internal/test/browsertest"
)

// A page that tries everything that a test looks for, when its buttons are pressed.
const trial = `<!doctype html>
<html lang="en"><head><title>Trial</title><style>@media (prefers-color-scheme: dark) { body { background: #000; color: #fff } }</style></head>
<body><main><h1>Trial</h1>
<form><label>Name <input name="name" value="before"></label> <label>Kind <select name="kind"><option value="a">A<option value="b">B</select></label>
<button>Send</button></form>
<p id="said"></p><img id="qr" src="/qr.png" alt="A code" width="200" height="200">
<script src="/trial.js"></script></main></body></html>`

const script = `document.querySelector("form").onsubmit = e => {
	e.preventDefault();
	const f = new FormData(e.target);
	document.querySelector("#said").textContent = "sent " + f.get("name") + " " + f.get("kind");
};`

func serve(t *testing.T) (origin string) {
	t.Helper()
	matrix, err := qrcode.NewQRCodeWriter().Encode("otpauth://totp/x?secret=ABC", gozxing.BarcodeFormat_QR_CODE, 200, 200, nil)
	if err != nil {
		t.Fatal(err)
	}
	var picture bytes.Buffer
	if err := png.Encode(&picture, matrix); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src *")
		switch r.URL.Path {
		case "/":
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, trial)
		case "/trial.js":
			w.Header().Set("Content-Type", "text/javascript")
			fmt.Fprint(w, script)
		case "/qr.png":
			_, _ = w.Write(picture.Bytes())
		case "/language":
			fmt.Fprint(w, r.Header.Get("Accept-Language"))
		default:
			http.Error(w, "no", http.StatusForbidden)
		}
	}))
	t.Cleanup(s.Close)
	return strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
}

// A page that gives the focus to another field at any moment does not get there what is typed here.
func TestFillBesideAnotherFocus(t *testing.T) {
	p := browsertest.Open(t, browsertest.Options{})
	p.Go(serve(t) + "/")
	browsertest.Eval[any](p, `document.body.insertAdjacentHTML("beforeend", "<input name=second>"),
		setInterval(() => document.querySelector("[name=name]").focus(), 1)`)
	p.Fill("name", "first")
	for i := range 50 {
		p.Fill("second", fmt.Sprint("second ", i))
	}
	if got := browsertest.Eval[[]string](p, `["name", "second"].map(n => document.querySelector("[name=" + n + "]").value)`); !slices.Equal(got, []string{"first", "second 49"}) {
		t.Errorf("the fields hold %q", got)
	}
}

// A person types, chooses, sends, looks and is looked at.
func TestPage(t *testing.T) {
	origin := serve(t)
	p := browsertest.Open(t, browsertest.Options{Width: 600, Height: 400, Dark: true, Language: "ru"})
	p.Go(origin + "/")
	p.Fill("name", "Привет, \"world\"")
	p.Fill("kind", "b")
	p.Press("Send")
	p.AwaitText(`sent Привет, "world" b`)
	p.FillAt("[name=name]", "")
	p.Key("typed\r")
	p.AwaitText("sent typed b")
	if got := p.ReadQR("#qr"); got != "otpauth://totp/x?secret=ABC" {
		t.Errorf("the code says %q", got)
	}
	picture, err := png.Decode(bytes.NewReader(p.Picture(false)))
	if err != nil || picture.Bounds().Dx() != 600 || picture.Bounds().Dy() != 400 {
		t.Fatalf("a picture of %v, %v", picture.Bounds(), err)
	}
	if r, g, b, _ := picture.At(590, 390).RGBA(); r+g+b != 0 {
		t.Errorf("dark is %d %d %d", r, g, b)
	}
	p.Scheme(false)
	p.Resize(320, 500)
	if got := browsertest.Eval[[]any](p, `[innerWidth, matchMedia("(prefers-color-scheme: dark)").matches, matchMedia("(prefers-reduced-motion: reduce)").matches, navigator.language]`); fmt.Sprint(got) != "[320 false true ru]" {
		t.Errorf("the page sees %v", got)
	}
	if got := browsertest.Eval[string](p, `fetch("/language").then(r => r.text())`); !strings.HasPrefix(got, "ru") {
		t.Errorf("the server is told of the language %q", got)
	}
	p.Accessible("the trial")
	browsertest.Eval[any](p, `document.querySelector("label").replaceWith(document.querySelector("input"))`)
	if found := p.Violations(); !slices.ContainsFunc(found, func(v string) bool { return strings.HasPrefix(v, "label ") }) {
		t.Errorf("a field without a label: %q", found)
	}
	p.Slow(200, 20)
	p.Reload()
	if d := p.FirstPaint(); d < 200*1e6 {
		t.Errorf("painted after %s on a network that takes 200 ms", d)
	}
	other := browsertest.Open(t, browsertest.Options{})
	other.Go(origin + "/")
	browsertest.Eval[any](p, `document.cookie = "a=b"`)
	if got := browsertest.Eval[string](other, `document.cookie`); got != "" {
		t.Errorf("another person has the cookie %q", got)
	}
}

// A button that the page draws anew while it is about to be pressed is pressed once.
func TestPressDrawnAnew(t *testing.T) {
	p := browsertest.Open(t, browsertest.Options{})
	p.Go(serve(t) + "/")
	browsertest.Eval[any](p, `(() => {
		let pressed = 0;
		const draw = () => {
			const b = document.createElement("button");
			b.textContent = "Go on";
			b.onclick = () => { document.querySelector("#said").textContent = "pressed " + ++pressed; b.remove(); };
			document.querySelector("#again")?.remove();
			b.id = "again";
			document.querySelector("main").append(b);
		};
		draw();
		const listen = window.addEventListener; // which is the last that Press asks for before it clicks
		window.addEventListener = (...args) => { listen.apply(window, args); window.addEventListener = listen; draw(); };
	})()`)
	p.Press("Go on")
	p.AwaitText("pressed 1")
}

// Whatever goes wrong in a page is noticed.
func TestComplaints(t *testing.T) {
	origin := serve(t)
	p := browsertest.Open(t, browsertest.Options{})
	p.Go(origin + "/")
	for provoke, want := range map[string]string{
		`setTimeout(() => { throw new Error("broken") })`: "broken",
		`Promise.reject(new Error("unhandled")) && 1`:     "unhandled",
		`console.error("oh", 1)`:                          "console.error",
		`console.warn("oh")`:                              "console.warning",
		`setTimeout(() => alert("hello"))`:                "a dialog",
		`fetch("http://127.0.0.1:1/").catch(() => {})`:    "another origin",
		`(s => { s.textContent = "window.ran = 1"; document.body.append(s) })(document.createElement("script"))`: "script-src",
		`(d => { d.innerHTML = '<img src="http://elsewhere.test/x.png">'; })(document.body)`:                     "img-src",
	} {
		p.Provoke(want, func() { browsertest.Eval[any](p, `(`+provoke+`, null)`) })
	}
	// An answer of 403 is no fault of the page, which shows it.
	q := browsertest.Open(t, browsertest.Options{})
	q.Go(origin + "/")
	browsertest.Eval[any](q, `fetch("/refused").then(() => null)`)
}
