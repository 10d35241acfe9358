package systemtest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"barong/internal/test/browsertest"
)

// consolePages are the sections of the console, and something that each shows once it has read what it shows.
var consolePages = []struct{ path, shows string }{
	{"/console/", "Only what your role may do is shown."},
	{"/console/users", adminEmail},
	{"/console/documents", "Nobody waits."},
	{"/console/permissions", "api/v2/peatio/market"},
	{"/console/permissions?tab=who&role=member&verb=GET&path=api/v2/barong/admin/users", "No rule matches"},
	{"/console/permissions?tab=draft", "The draft is empty."},
	{"/console/permissions?tab=history", "the program itself"},
	{"/console/restrictions", "164.116.47.0/24"},
	{"/console/activities", "Sign-in"},
	{"/console/activities?of=staff", "In all"},
	{"/console/levels", "document"},
	{"/console/keys", "There are no keys."},
	{"/console/metrics", "Failed sign-ins"},
	{"/console/system", "BARONG_SMTP_HOST"},
}

// Staff do their work in the console at a real browser, behind a real gateway: they find people and close their accounts,
// decide about documents by a key, rehearse and save rules, and switch maintenance on and off. Every page works at any width
// and in any light, and offers what the role may do.
func TestConsoleInABrowser(t *testing.T) {
	t.Parallel()
	s := newSite(t, newVault(), "envoy")
	ann := s.holder(t)

	c := s.visit(t, browsertest.Options{})
	c.opens("/console/users?state=active")
	c.AwaitPath("/accounts/signin")
	c.Fill("email", adminEmail)
	c.Fill("password", adminPassword)
	c.Press("Sign in")
	c.AwaitPath("/console/users")
	c.AwaitText(ann.email)
	c.opens("/console/keys") // a page is gone back to by its address alone
	c.AwaitText("There are no keys.")

	annas := s.visit(t, browsertest.Options{})
	annas.opens(bare)
	annas.call("POST", "/identity/sessions", params{"email": ann.email, "password": ann.password}).wants(t, "sign-in", 201)

	t.Run("every page", func(t *testing.T) {
		c.at(t)
		for _, page := range consolePages {
			for _, look := range []struct {
				width int64
				dark  bool
			}{{1280, false}, {320, true}} {
				c.Resize(look.width, 900)
				c.Scheme(look.dark)
				c.opens(page.path)
				c.AwaitText(page.shows)
				c.Accessible(fmt.Sprintf("%s at %d px, dark %v", page.path, look.width, look.dark))
				if wide := browsertest.Eval[float64](c.Page, `document.documentElement.scrollWidth - innerWidth`); wide > 0 {
					t.Errorf("%s at %d px is %v px too wide", page.path, look.width, wide)
				}
			}
		}
		c.Resize(1280, 900)
		c.Scheme(false)
	})

	t.Run("an account is closed and opened", func(t *testing.T) {
		c.at(t)
		c.opens("/console/users?email=" + ann.email)
		c.Press(ann.email)
		c.AwaitText("Set this state")
		c.Accessible("an account")
		c.Fill("state", "banned")
		c.Press("Set this state")
		c.AwaitText("State of " + ann.email + ": Active → Banned")
		annas.call("GET", "/resource/users/me", nil).wants(t, "with a closed account", 401)
		c.Press("Undo State of " + ann.email)
		c.AwaitText("State of " + ann.email + ": Banned → Active")
		annas.call("POST", "/identity/sessions", params{"email": ann.email, "password": ann.password}).wants(t, "signing in again", 201)
	})

	t.Run("documents by a key", func(t *testing.T) {
		c.at(t)
		got := annas.run(`(async () => {
			const picture = document.createElement("canvas");
			picture.width = picture.height = 64;
			const blob = await new Promise(r => picture.toBlob(r, "image/png"));
			const form = new FormData();
			for (const [k, v] of Object.entries({doc_type: "Passport", doc_number: "AA123", doc_expire: "3020-01-01"})) form.set(k, v);
			form.append("upload[]", blob, "passport.png");
			const r = await fetch("/api/v2/barong/resource/documents", {method: "POST", body: form, headers: {"X-CSRF-Token": ` + browsertest.JSON(annas.csrf) + `}});
			return {Status: r.status, Body: await r.text()};
		})()`)
		got.wants(t, "a document", 201)
		c.opens("/console/documents")
		c.AwaitText(ann.email)
		c.AwaitText("AA123")
		c.Await(`document.querySelector(".paper img")?.naturalWidth === 64`)
		c.Accessible("the queue of documents")
		c.Await(`document.activeElement?.className === "review"`)
		c.Key("v")
		c.AwaitText("Documents of " + ann.email + ": waiting → verified")
		c.AwaitText("Nobody waits.")
		if me := annas.call("GET", "/resource/labels", nil); !strings.Contains(me.body, `"key":"document","value":"verified"`) {
			t.Errorf("the labels are %s", me.body)
		}
	})

	t.Run("a draft of rules", func(t *testing.T) {
		c.at(t)
		c.opens("/console/permissions?role=member")
		annas.call("GET", "/resource/labels", nil).wants(t, "before", 200)
		c.Press("New rule")
		c.Fill("action", "DROP")
		c.Fill("path", "api/v2/barong/resource/labels")
		c.Press("Put into the draft")
		c.AwaitText("It is in the draft.")
		c.opens("/console/permissions?tab=draft")
		c.Press("See what would turn")
		c.AwaitText("so many decisions would be others")
		c.Accessible("a draft and what would turn")
		annas.call("GET", "/resource/labels", nil).wants(t, "while it is a draft", 200)
		c.Press("Save, in force at once")
		c.AwaitText("Rules changed: 1: none → member DROP GET api/v2/barong/resource/labels")
		annas.call("GET", "/resource/labels", nil).wants(t, "once it is saved", 401)
		c.Press("Undo Rules changed: 1")
		c.AwaitText("Undone")
		annas.call("GET", "/resource/labels", nil).wants(t, "once it is undone", 200)

		c.opens("/console/permissions?role=superadmin")
		c.Press("New rule")
		c.Fill("action", "DROP")
		c.Fill("verb", "ALL")
		c.Fill("path", "api/v2/barong/admin")
		c.Press("Put into the draft")
		c.AwaitText("It is in the draft.")
		c.opens("/console/permissions?tab=draft")
		c.Press("Save, in force at once")
		c.AwaitFault("admin.permission.last_superadmin")
		c.Press("Empty the draft")
		c.AwaitText("The draft is empty.")
	})

	t.Run("maintenance", func(t *testing.T) {
		c.at(t)
		c.opens("/console/restrictions")
		c.AwaitElement(`input[name=letin]:checked`)
		c.Press("Switch maintenance on")
		c.AwaitText("Maintenance: off → on")
		c.AwaitText("Kept out")
		if got := fromElsewhere(t, s); got != 471 {
			t.Errorf("under maintenance somebody from elsewhere was answered %d", got)
		}
		c.Press("Switch maintenance off")
		c.AwaitText("Maintenance: on → off")
		if got := fromElsewhere(t, s); got != 401 {
			t.Errorf("after maintenance somebody from elsewhere was answered %d", got)
		}
	})

	t.Run("what the role may not do", func(t *testing.T) {
		annas.at(t)
		annas.opens("/console/")
		annas.AwaitText("Your role (member) has nothing to do here.")
		annas.Accessible("the console of a member")
		if annas.Has(`a[href="/console/users"]`) {
			t.Error("a member is offered what they may not do")
		}
	})
}

// fromElsewhere is what a check of somebody is answered whose address nobody has let in.
func fromElsewhere(t *testing.T, s *site) (status int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.checks+"/api/v2/auth/api/v2/peatio/account", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Forwarded-For", "203.0.113.9")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}
