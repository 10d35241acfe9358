package systemtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"barong/internal/test/browsertest"
	"barong/internal/test/testkit"
)

// sites are what people are put before, with the language that they speak: each gateway, each store and each language once.
var sites = []struct {
	name, gateway, language string
	stores                  func(t *testing.T) []string
}{
	{"Envoy, SQLite, English", "envoy", "en", func(*testing.T) []string { return nil }},
	{"Traefik, Postgres and Valkey, Russian", "traefik", "ru", func(t *testing.T) []string {
		return []string{"BARONG_DATABASE_URL=" + testkit.Postgres(t), "BARONG_REDIS_URL=" + testkit.Valkey(t), "BARONG_SECRET_KEY=" + secretKey}
	}},
}

// Every way through the portal, as people go it: with a browser, a mailbox, a phone and an authenticator app; and those
// through the console, whose outcome somebody else feels at a browser of their own.
func TestJourneys(t *testing.T) {
	t.Parallel()
	for _, at := range sites {
		t.Run(at.name, func(t *testing.T) {
			t.Parallel()
			// One address of this machine is the gateway's, and the others are those of people.
			v := newVault()
			provider, file := elsewhere(t, v)
			s := newSite(t, v, at.gateway, append(at.stores(t), "BARONG_TRUSTED_PROXIES=127.0.0.1", "BARONG_PROVIDERS_FILE="+file)...)
			s.provider = provider
			s.speaks(t, at.language)
			for _, journey := range []struct {
				name string
				walk func(t *testing.T, s *site)
			}{
				{"there and back", thereAndBack},
				{"sign-up", signUpByMail},
				{"forgotten password", forgottenPassword},
				{"second factor", secondFactor},
				{"passkey", passkeyOfAPerson},
				{"provider", byProvider},
				{"API key", keyOfAPerson},
				{"profile", profileOfAPerson},
				{"sessions", sessionsOfAPerson},
				{"pressed twice", pressedTwice},
				{"refusal", refusedInWords},
				{"languages", twoLanguages},
				{"end of an account", endOfAnAccount},
				{"console: at work", atWork},
				{"console: people", feltByStaff},
				{"console: documents and levels", raisedLevel},
				{"console: permissions", feltPermission},
				{"console: restrictions and maintenance", feltMaintenance},
				{"console: activities", savedActivities},
			} {
				t.Run(journey.name, func(t *testing.T) { journey.walk(t, s) })
			}
		})
	}
}

// The pages read the answers of the last release, too.
func TestPortalUnderCompat(t *testing.T) {
	t.Parallel()
	keyOfAPerson(t, newSite(t, newVault(), "envoy", "BARONG_COMPAT=2.4.17"))
}

// words are the texts of the portal and the console in a language, by their keys.
func words(t *testing.T, language string) func(key string, values ...string) string {
	t.Helper()
	all := map[string]string{}
	for _, file := range []string{language, "console." + language} {
		b, err := os.ReadFile(filepath.Join(testkit.Root(t), "web", "src", "lang", file+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &all); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	// values are pairs of a name in the text and what stands for it.
	return func(key string, values ...string) string {
		text, ok := all[key]
		if !ok {
			t.Fatalf("there is no text %s", key)
		}
		for i := 0; i+1 < len(values); i += 2 {
			text = strings.ReplaceAll(text, "{"+values[i]+"}", values[i+1])
		}
		return text
	}
}

// laterOf makes a minute pass for every second factor: codes that were used are accepted again.
func (s *site) laterOf(t *testing.T, a *authenticator) {
	t.Helper()
	for _, e := range s.env {
		if address, ok := strings.CutPrefix(e, "BARONG_DATABASE_URL=postgres:"); ok {
			d, err := pgx.Connect(t.Context(), "postgres:"+address)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close(t.Context())
			if _, err := d.Exec(t.Context(), "UPDATE totp_keys SET last_step = 1"); err != nil {
				t.Fatal(err)
			}
			a.last = 0
			return
		}
	}
	s.later(a)
}

// signsIn types what the sign-in page asks for.
func (c *guest) signsIn(p *holder) {
	c.t.Helper()
	c.AwaitPath("/accounts/signin")
	c.Fill("email", p.email)
	c.Fill("password", p.password)
	c.sends("password")
	if p.factor != nil {
		c.Fill("otp_code", p.factor.code(c.t))
		c.sends("otp_code")
	}
}

// goes presses a link or button that leads to a page of that path and title.
func (c *guest) goes(link, path, title string) {
	c.t.Helper()
	c.Press(link)
	c.AwaitPath(path)
	c.Await(fmt.Sprintf(`document.querySelector("main h1").innerText === %q`, title))
	c.settled()
}

// focused waits until the keyboard is somewhere again after what it was at has gone.
func (c *guest) focused() {
	c.t.Helper()
	c.Await(`document.activeElement && document.activeElement !== document.body`)
}

// sends sends the form with the field of that name, by its button.
func (c *guest) sends(field string) {
	c.t.Helper()
	c.Click(fmt.Sprintf(`form:has([name=%q]) button[type=submit]`, field))
}

// enters opens the portal, signs in and is at a page of it.
func (s *site) enters(t *testing.T, p *holder, path string) *guest {
	t.Helper()
	c := s.visit(t, browsertest.Options{})
	c.opens(path)
	c.signsIn(p)
	page, _, _ := strings.Cut(path, "?")
	c.AwaitPath(page)
	c.AwaitElement("main h1")
	return c
}

// signsOut ends the session, here.
func (c *guest) signsOut() {
	c.t.Helper()
	c.opens("/accounts/signout")
	c.Click("main form button[type=submit]")
	c.Await(`location.pathname !== "/accounts/signout"`)
}

// served waits for the page of the service, which says whom the gateway has told it of.
func (c *guest) served(email string) {
	c.t.Helper()
	c.Await(`document.querySelector("#email")`)
	if got := c.Text("#email"); got != email {
		c.t.Errorf("the service was told of %q, want %q", got, email)
	}
}

// thereAndBack asks for a page behind the gateway, is sent to the sign-in, and comes back to that very page.
func thereAndBack(t *testing.T, s *site) {
	p := s.holder(t)
	c := s.visit(t, browsertest.Options{})
	const page = account + "?page=2&sort=%2Bdate"
	c.opens("/accounts/forgot")
	c.opens(page)
	c.AwaitPath("/accounts/signin")
	c.Fill("email", p.email)
	c.Fill("password", "Wrong"+p.password)
	c.sends("password")
	c.AwaitFault("identity.session.invalid_params")
	c.signsIn(p)
	c.served(p.email)
	if got := c.URL(); got != s.origin+page {
		t.Errorf("came back to %s, want %s", got, s.origin+page)
	}
	// The way back leads past the sign-in: it would lead here again.
	browsertest.Eval[any](c.Page, `(history.back(), null)`)
	c.AwaitPath("/accounts/forgot")
	if r, err := (&http.Transport{}).RoundTrip(httptest.NewRequest("GET", "http://"+s.api+"/", nil)); err != nil || r.StatusCode != 302 || r.Header.Get("Location") != "/accounts/" {
		t.Errorf("the root of the program: %v, %v", r, err)
	}
	// Signed out in another tab, a page with somebody's data does not stay.
	c.opens("/accounts/")
	c.AwaitText(p.email)
	tab := &guest{Page: c.Tab(t), t: t, s: s}
	tab.signsOut()
	c.AwaitPath("/accounts/signin")
	tab.signsIn(p)
	tab.AwaitPath("/accounts/")
	c.AwaitPath("/accounts/") // and the sign-in page goes on
	c.signsOut()
	c.opens(account)
	c.AwaitPath("/accounts/signin")
}

// signUpByMail makes an account, opens the link in the mail, and is at the page that it wanted first.
func signUpByMail(t *testing.T, s *site) {
	say := s.say
	c := s.visit(t, browsertest.Options{})
	n := browsing.Add(1)
	p := &holder{email: fmt.Sprintf("new%d@example.com", n), password: s.vault.keep("password", "Rb8-wNc5+zKtq")}
	c.opens(account)
	c.AwaitPath("/accounts/signin")
	c.goes(say("signup.link"), "/accounts/signup", say("signup.title"))
	c.Fill("email", p.email)
	c.Fill("password", "weak")
	c.AwaitText(say("strength.weak"))
	c.sends("password")
	c.AwaitElement("[role=alert][data-code]")
	c.Fill("password", p.password)
	c.sends("password")
	c.AwaitText(say("signup.mail", "email", p.email))
	l := s.mail(t, p.email, "Registration Confirmation")
	l.token(t, s.vault)
	c.Go(link.FindString(l.text))
	c.served(p.email)
	c.opens("/accounts/")
	c.AwaitText(say("state.active"))

	// The link works once. Who comes too late is told, and gets on.
	late := s.visit(t, browsertest.Options{})
	late.Go(link.FindString(l.text))
	late.AwaitFault("identity.user.active_or_doesnt_exist")
	late.goes(say("signin.link"), "/accounts/signin", say("signin.title"))
	late.signsIn(p)
	late.AwaitPath("/accounts/")
}

// forgottenPassword asks for a mail, sets another password by its link, and signs in with that.
func forgottenPassword(t *testing.T, s *site) {
	say := s.say
	p := s.holder(t)
	c := s.visit(t, browsertest.Options{})
	c.opens("/accounts/signin")
	c.goes(say("signin.forgot"), "/accounts/forgot", say("forgot.title"))
	c.Fill("email", p.email)
	c.sends("email")
	c.AwaitText(say("forgot.sent", "email", p.email))
	l := s.mail(t, p.email, "Password Reset")
	l.token(t, s.vault)
	c.Go(link.FindString(l.text))
	c.AwaitPath("/accounts/password_reset")
	old := *p
	p.password = s.vault.keep("password", "Vt3-mXp9+kLsy")
	c.Fill("password", p.password)
	c.Fill("confirm_password", p.password+"x")
	c.sends("confirm_password")
	c.AwaitElement("[role=alert][data-code]")
	c.Fill("confirm_password", p.password)
	c.sends("confirm_password")
	c.AwaitPath("/accounts/signin")
	c.signsIn(&old)
	c.AwaitFault("identity.session.invalid_params")
	c.signsIn(p)
	c.AwaitPath("/accounts/")

	// The link works once, and says how to get another.
	c = s.visit(t, browsertest.Options{})
	c.Go(link.FindString(l.text))
	c.Fill("password", "Vt3-mXp9+kLsyz")
	c.Fill("confirm_password", "Vt3-mXp9+kLsyz")
	c.sends("confirm_password")
	c.AwaitElement("[role=alert][data-code]")
	c.goes(say("reset.another"), "/accounts/forgot", say("forgot.title"))
}

// pressedTwice presses buttons as impatient people do: what they do is done once.
func pressedTwice(t *testing.T, s *site) {
	c := s.enters(t, s.holder(t), "/accounts/security")
	// sent counts the changes that a script in the page makes it ask for, before it ends. What a page reads does not count: it
	// may still be at it.
	sent := func(script string) int {
		t.Helper()
		return browsertest.Eval[int](c.Page, `(async () => {
			const real = window.fetch;
			let n = 0;
			window.fetch = (...call) => {
				if (call[1]?.method !== "GET") n++;
				return real(...call);
			};
			const again = b => b.dispatchEvent(new MouseEvent("click", {bubbles: true, cancelable: true, detail: 2}));
			`+script+`
			window.fetch = real;
			return n;
		})()`)
	}
	c.AwaitElement("[aria-labelledby=otp] button")
	if n := sent(`const b = document.querySelector("[aria-labelledby=otp] button"); b.click(); b.click();`); n != 1 {
		t.Errorf("a button that was pressed twice at once sent %d", n)
	}
	c.AwaitElement("img.qr")
	c.opens("/accounts/confirmation")
	c.Fill("email", "nobody@example.com")
	// The second press of a double click comes when the first has been answered.
	if n := sent(`
		const b = document.querySelector("main form button[type=submit]");
		b.click();
		while (!document.querySelector("main [role=status].notice")) await new Promise(done => setTimeout(done, 10));
		again(b);
		await new Promise(done => setTimeout(done, 10));`); n != 1 {
		t.Errorf("a form that was sent by a double click was sent %d times", n)
	}
}

// switchOnFactor switches the second factor on as with a phone: by the picture on the screen. It returns the recovery codes.
func (c *guest) switchOnFactor(p *holder) (codes []string) {
	c.t.Helper()
	say := c.s.say
	c.opens("/accounts/security")
	c.Press(say("otp.begin"))
	u, err := url.Parse(c.ReadQR("img.qr"))
	if err != nil || u.Scheme != "otpauth" || u.Host != "totp" {
		c.t.Fatalf("the picture says %v, %v", u, err)
	}
	p.factor = &authenticator{secret: c.s.vault.keep("second factor", u.Query().Get("secret")), vault: c.s.vault}
	if typed := strings.ReplaceAll(c.Text(".copy code"), " ", ""); typed != p.factor.secret {
		c.t.Errorf("the key to type is %q, and the picture says %q", typed, p.factor.secret)
	}
	c.Fill("code", p.factor.code(c.t))
	c.sends("code")
	c.AwaitElement(".codes code")
	codes = browsertest.Eval[[]string](c.Page, `[...document.querySelectorAll(".codes code")].map(e => e.innerText)`)
	for _, code := range codes {
		c.s.vault.keep("recovery code", code)
	}
	c.Press(say("otp.codes.kept"))
	return codes
}

// secondFactor switches it on by the QR code, signs in with a code and with a recovery code, and switches it off.
func secondFactor(t *testing.T, s *site) {
	say := s.say
	p := s.holder(t)
	c := s.enters(t, p, "/accounts/security")
	codes := c.switchOnFactor(p)
	if len(codes) < 5 {
		t.Fatalf("recovery codes: %v", codes)
	}
	s.mail(t, p.email, "Two-Factor Authentication Enabled")

	second := s.visit(t, browsertest.Options{})
	second.opens(account)
	second.AwaitPath("/accounts/signin")
	second.Fill("email", p.email)
	second.Fill("password", p.password)
	second.sends("password")
	second.Fill("otp_code", "000000")
	second.sends("otp_code")
	second.AwaitElement("[role=alert][data-code]")
	second.Fill("otp_code", p.factor.code(t))
	second.sends("otp_code")
	second.served(p.email)

	third := s.visit(t, browsertest.Options{})
	third.opens(account)
	third.AwaitPath("/accounts/signin")
	third.Fill("email", p.email)
	third.Fill("password", p.password)
	third.sends("password")
	third.Fill("otp_code", codes[0])
	third.sends("otp_code")
	third.served(p.email)

	// A recovery code works once.
	fourth := s.visit(t, browsertest.Options{})
	fourth.opens("/accounts/signin")
	fourth.Fill("email", p.email)
	fourth.Fill("password", p.password)
	fourth.sends("password")
	fourth.Fill("otp_code", codes[0])
	fourth.sends("otp_code")
	fourth.AwaitElement("[role=alert][data-code]")
	fourth.Fill("otp_code", codes[1])
	fourth.sends("otp_code")
	fourth.AwaitPath("/accounts/")

	s.laterOf(t, p.factor)
	fourth.opens("/accounts/security")
	fourth.Press(say("otp.disable"))
	fourth.Fill("code", p.factor.code(t))
	fourth.sends("code")
	fourth.AwaitText(say("otp.off.done"))
	p.factor = nil
	c = s.enters(t, p, "/accounts/security")
	c.AwaitText(say("otp.begin"))
}

// passkeyOfAPerson makes a passkey on the security page, signs in with it alone, renames and removes it.
func passkeyOfAPerson(t *testing.T, s *site) {
	say := s.say
	p := s.holder(t)
	c := s.visit(t, browsertest.Options{})
	device := c.NewAuthenticator()
	c.opens("/accounts/security")
	c.signsIn(p)
	c.AwaitPath("/accounts/security")
	c.AwaitText(say("passkeys.add"))
	// Whoever sees the form types at once: its first field has the focus before the form is painted.
	if got := browsertest.Eval[string](c.Page, fmt.Sprintf(`new Promise(done => {
		[...document.querySelectorAll("button")].find(b => b.innerText === %q).click();
		requestAnimationFrame(() => done(document.activeElement.name));
	})`, say("passkeys.add"))); got != "name" {
		t.Errorf("the form that has just been opened has the focus at %q", got)
	}
	c.Fill("name", "This laptop")
	c.Fill("password", "Wrong"+p.password)
	c.sends("password")
	c.AwaitFault("resource.user.invalid_password")
	c.Fill("password", p.password)
	c.sends("password")
	c.AwaitText(say("passkeys.added"))
	if len(device.Passkeys()) != 1 {
		t.Fatalf("the authenticator holds %d passkeys", len(device.Passkeys()))
	}
	s.mail(t, p.email, "New Passkey")
	device.Present(false)
	c.signsOut()
	c.opens(account)
	c.AwaitPath("/accounts/signin")
	// The browser has been asked already, for the list below the address: what it was asked while nobody was there stays
	// without an answer.
	c.Await(`performance.getEntriesByType("resource").some(e => e.name.endsWith("/identity/sessions/passkey/options") && e.responseEnd > 0)`)
	c.settled()
	device.Present(true)
	c.Press(say("signin.passkey"))
	c.served(p.email)
	// Where the address is typed the browser offers the passkey by itself.
	c.signsOut()
	c.AwaitPath("/accounts/")

	c.opens("/accounts/security")
	c.Press(say("rename") + " This laptop")
	const old = "מחשב (ישן)" // written from the right
	c.Fill("name", old)
	c.sends("name")
	c.AwaitText(say("passkeys.renamed"))
	c.Press(say("remove") + " " + old)
	c.AwaitText(say("passkeys.remove.text", "name", "\u2068"+old+"\u2069")) // the words around it keep their order
	c.Fill("password", p.password)
	c.sends("password")
	c.AwaitText(say("passkeys.removed"))
	c.focused()
	s.mail(t, p.email, "Passkey Removed")
	c.signsOut()
	c.AwaitFault("identity.session.invalid_passkey")
}

// keyOfAPerson makes API keys of both kinds, tries the line that the page shows of each in a terminal, and switches one off.
func keyOfAPerson(t *testing.T, s *site) {
	say := s.say
	p := s.holder(t)
	c := s.enters(t, p, "/accounts/keys")
	c.AwaitText(say("keys.otp")) // only with a second factor
	c.switchOnFactor(p)
	c.opens("/accounts/keys")
	dir := t.TempDir()
	terminal := func(line string) string {
		t.Helper()
		cmd := exec.Command("sh", "-c", line)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		return string(out)
	}
	// made waits for a key, and returns what the page shows of it to keep. The line to paste is tried as it stands.
	made := func(kept int) []string {
		t.Helper()
		s.laterOf(t, p.factor)
		c.Fill("totp_code", p.factor.code(t))
		c.sends("totp_code")
		c.AwaitText(say("keys.made"))
		shown := browsertest.Eval[[]string](c.Page, `[...document.querySelectorAll(".keep .copy code")].map(e => e.innerText)`)
		if len(shown) != kept+1 {
			t.Fatalf("shown were %q", shown)
		}
		line := shown[kept]
		if !strings.Contains(line, shown[0]) || !strings.Contains(line, s.origin+"/api/v2/barong/resource/users/me") {
			t.Errorf("the line to paste: %s", line)
		}
		if out := terminal(line); !strings.Contains(out, p.email) {
			t.Errorf("the line to paste: %s\nprints %s", line, out)
		}
		return shown
	}

	c.Press(say("keys.make"))
	c.Fill("algorithm", "Ed25519")
	c.Fill("public_key", strings.TrimSpace(terminal(c.Text("[name=public_key] ~ .hint code"))))
	made(1)
	c.Press(say("close"))

	c.Press(say("keys.make"))
	c.Fill("algorithm", "HS256")
	shown := made(2)
	c.AwaitText(say("keys.once"))
	k := &key{KID: shown[0], Secret: s.vault.keep("API key's secret", shown[1])}
	bot := newClient(strings.TrimPrefix(s.origin, "http://"), s.vault)
	if r := bot.send("GET", account, nil, k.sign()...); r.status != 200 || !strings.Contains(r.body, p.email) {
		t.Errorf("a signed call: got %s", r)
	}
	c.Press(say("keys.kept"))
	if strings.Contains(browsertest.Eval[string](c.Page, `document.body.innerText`), k.Secret) {
		t.Error("the secret is shown a second time")
	}
	s.laterOf(t, p.factor)
	c.Press(say("keys.off") + " " + k.KID)
	c.Fill("totp_code", p.factor.code(t))
	c.sends("totp_code")
	c.AwaitText(say("keys.off.done"))
	if r := bot.send("GET", account, nil, k.sign()...); r.status != http.StatusUnauthorized {
		t.Errorf("a call with a key that is off: got %s", r)
	}
}

// message is the code in the newest message to a number.
func (s *site) message(t *testing.T, number string) (code string) {
	t.Helper()
	testkit.Eventually(t, patience, func() bool {
		files, err := filepath.Glob(filepath.Join(s.outbox(), "*.txt"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err == nil && strings.HasPrefix(string(b), "To: "+number+"\n") {
				code = regexp.MustCompile(`\b\d{6}\b`).FindString(string(b))
			}
		}
		return code != ""
	})
	return s.vault.keep("phone code", code)
}

// profileOfAPerson keeps a draft, finds it again, and submits it.
func profileOfAPerson(t *testing.T, s *site) {
	say := s.say
	p := s.holder(t)
	c := s.enters(t, p, "/accounts/profile")
	c.Fill("first_name", "Grace")
	c.Fill("last_name", "Hopper")
	c.sends("first_name")
	c.AwaitText(say("profile.saved"))
	c.Reload()
	c.AwaitElement(`[name=first_name]`)
	if got := browsertest.Eval[string](c.Page, `document.querySelector("[name=first_name]").value`); got != "Grace" {
		t.Errorf("the draft holds %q", got)
	}
	for name, text := range map[string]string{
		"dob": "1990-12-09", "country": "US", "city": "New York", "postcode": "10001", "address": "1 Navy Yard",
	} {
		c.Fill(name, text)
	}
	// The session ends meanwhile: what was typed is there again after signing in.
	other := s.client()
	other.signIn(p.email, p.password).wants(t, "sign-in", 201)
	other.call("DELETE", "/resource/sessions", nil).wants(t, "the end of other sessions", 204)
	c.sends("first_name")
	c.AwaitFault("authz.invalid_session")
	c.signsIn(p)
	c.AwaitPath("/accounts/profile")
	c.AwaitText(say("typed.kept"))
	if got := browsertest.Eval[string](c.Page, `["dob", "country", "city", "address"].map(n => document.querySelector("[name=" + n + "]").value).join()`); got != "1990-12-09,US,New York,1 Navy Yard" {
		t.Errorf("after signing in again the form holds %q", got)
	}
	c.Click(`[name=confirm]`)
	c.sends("first_name")
	c.AwaitText(say("profile.submitted"))
	c.AwaitText("Hopper")
}

// sessionsOfAPerson ends the session of one of two browsers from the other, and finds it in the history.
func sessionsOfAPerson(t *testing.T, s *site) {
	say := s.say
	p := s.holder(t)
	c, other := s.enters(t, p, "/accounts/sessions"), s.enters(t, p, "/accounts/")
	c.Reload()
	c.Press(say("sessions.others"))
	c.AwaitText(say("sessions.others.done"))
	c.focused()
	other.opens(account)
	other.AwaitPath("/accounts/signin")
	c.opens("/accounts/activity")
	c.AwaitElement("tbody tr")
}

// refusedInWords opens what the account may not see, is told so in words, and comes back as somebody who may.
func refusedInWords(t *testing.T, s *site) {
	p := s.holder(t)
	c := s.enters(t, p, "/accounts/")
	const page = "/api/v2/nobody/allowed/this"
	c.opens(page)
	c.AwaitFault("authz.invalid_permission")
	c.AwaitText(p.email)
	if lang := browsertest.Eval[string](c.Page, `document.documentElement.lang`); lang != s.language {
		t.Errorf("the page about a refusal is in %q", lang)
	}
	c.looks(place{path: "the page of a refusal", picture: "refused"})
	s.admin().call("POST", "/admin/permissions", params{"role": "superadmin", "verb": "all", "path": page[1:], "action": "accept"}).
		wants(t, "a rule", 201)
	c.Click(`a[href^="/accounts/signout"]`)
	c.AwaitPath("/accounts/signout")
	c.Click("main form button[type=submit]")
	c.signsIn(&holder{email: adminEmail, password: adminPassword})
	c.served(adminEmail)
	if got := c.URL(); got != s.origin+page {
		t.Errorf("came back to %s", got)
	}
}

// twoLanguages reads the sign-in in the browser's language and in another that is chosen, which is remembered, and in which
// what is on the page already is said at once.
func twoLanguages(t *testing.T, s *site) {
	other := map[string]string{"en": "ru", "ru": "en"}[s.language]
	say := words(t, other)
	c := s.visit(t, browsertest.Options{})
	c.opens("/accounts/signin")
	c.AwaitText(s.say("signin.forgot"))
	if lang := browsertest.Eval[string](c.Page, `document.documentElement.lang`); lang != s.language {
		t.Errorf("the page says that it is in %q", lang)
	}
	c.Fill("email", "nobody@example.com")
	c.Fill("password", "Wd6-hJk2+qTz")
	c.sends("password")
	c.AwaitText(s.say("code.identity.session.invalid_params"))
	c.Fill("language", other)
	c.AwaitText(say("signin.forgot"))
	c.AwaitText(say("code.identity.session.invalid_params"))
	c.Reload()
	c.AwaitText(say("signin.forgot"))
	if lang := browsertest.Eval[string](c.Page, `document.documentElement.lang`); lang != other {
		t.Errorf("the page that is loaded again says that it is in %q", lang)
	}
}

// endOfAnAccount deletes an account, which does not sign in any more.
func endOfAnAccount(t *testing.T, s *site) {
	p := s.holder(t)
	c := s.enters(t, p, "/accounts/delete")
	c.Fill("password", p.password)
	c.sends("password")
	c.AwaitPath("/accounts/signin")
	s.mail(t, p.email, "Account Deleted")
	c.signsIn(p)
	c.AwaitFault("identity.session.deleted")
}
