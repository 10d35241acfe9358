package systemtest

import (
	"encoding/json"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"barong/internal/test/browsertest"
)

// atWork signs the first superadmin in at the page of the console that was asked for, which stays open for the journeys that
// follow, and tries what the console lets go.
func atWork(t *testing.T, s *site) {
	c := s.enters(t, &holder{email: adminEmail, password: adminPassword}, "/console/users?state=active")
	c.AwaitText(adminEmail)
	if got := c.URL(); got != s.origin+"/console/users?state=active" {
		t.Errorf("came back to %s", got)
	}
	c.Fill("language", map[string]string{"en": "ru", "ru": "en"}[s.language])
	c.Await(`document.querySelector("main h1").innerText === ` + browsertest.JSON(words(t, map[string]string{"en": "ru", "ru": "en"}[s.language])("c.users")))
	c.Fill("language", s.language)
	c.goes(s.say("c.system"), "/console/system", s.say("c.system"))
	c.AwaitText("BARONG_SMTP_HOST")
	c.signsOut()

	member := s.knows(t, browsertest.Options{}, s.holder(t), "/console/")
	member.AwaitText(s.say("c.start.nothing", "role", "member"))
	if member.Has(`a[href="/console/users"]`) {
		t.Error("a member is offered what they may not do")
	}
	member.opens("/console/users")
	member.settled()
	if member.Has("table") {
		t.Error("a member is shown the console")
	}
}

// office is the console with the first superadmin at it, at a page.
func (s *site) office(t *testing.T, path string) *guest {
	t.Helper()
	c := s.knows(t, browsertest.Options{}, &holder{email: adminEmail, password: adminPassword}, path)
	c.settled()
	return c
}

// changed waits until the console says what was changed, from what to what.
func (c *guest) changed(what, before, after string) {
	c.t.Helper()
	c.AwaitText(what + ": " + before + " → " + after)
}

// feltByStaff is at a page of the service while staff does things to its account: each is felt by the next click.
func feltByStaff(t *testing.T, s *site) {
	say := s.say
	p := s.holder(t)
	c := s.enters(t, p, "/accounts/")
	c.opens(account)
	c.served(p.email)
	// felt holds that the next click leads out, and that signing in again leads back to the page.
	felt := func() {
		t.Helper()
		begun := time.Now()
		c.Reload()
		c.AwaitPath("/accounts/signin")
		t.Logf("felt by the browser that reloads after %s at most", time.Since(begun).Round(time.Millisecond))
	}

	staff := s.office(t, "/console/users")
	staff.Press(say("c.users.search"))
	staff.Fill("email", p.email)
	staff.sends("email")
	staff.Press(p.email)
	staff.AwaitText(say("c.state.set"))
	state := say("c.state.of", "email", p.email)
	staff.Fill("state", "banned")
	staff.Press(say("c.state.set"))
	staff.changed(state, say("state.active"), say("state.banned"))
	felt()
	c.signsIn(p)
	c.AwaitFault("identity.session.banned")
	c.AwaitText(say("code.identity.session.banned"))
	staff.Press(say("c.undo") + " " + state)
	staff.changed(state, say("state.banned"), say("state.active"))
	c.signsIn(p)
	c.served(p.email)

	staff.Reload()
	staff.Press(say("c.sessions.end"))
	staff.Click(".confirm button.danger")
	staff.AwaitText(say("c.sessions.none"))
	felt()
	c.signsIn(p)
	c.served(p.email)

	staff.Press(say("c.label.add"))
	staff.Fill("key", "vip")
	staff.Fill("value", "gold")
	staff.Fill("scope", "public")
	staff.sends("key")
	label := say("c.label.of", "key", "vip", "scope", say("c.scope.public"), "email", p.email)
	staff.changed(label, say("c.gone"), "gold")
	if r := c.call("GET", "/resource/labels", nil); !strings.Contains(r.body, `"key":"vip","value":"gold"`) {
		t.Errorf("the labels are %s", r)
	}

	staff.Fill("role", "superadmin")
	staff.Press(say("c.role.set"))
	staff.changed(say("c.role.of", "email", p.email), "member", "superadmin")
	felt()
	c.signsIn(p)
	c.served(p.email)
	c.opens("/accounts/")
	c.goes(say("console.link"), "/console/", say("c.start"))

	// A second factor that was lost is switched off by staff.
	api := s.client()
	api.signIn(p.email, p.password).wants(t, "sign-in", 201)
	p.factor = api.enable2FA(t)
	staff.Reload()
	staff.Press(say("c.otp.off"))
	staff.Click(".confirm button.danger")
	staff.changed(say("c.otp.of", "email", p.email), say("c.on"), say("c.off"))
	p.factor = nil
	s.enters(t, p, "/accounts/")
}

// raisedLevel confirms a phone and uploads a document, which staff reject, and verify on second thought: the owner is told each
// time, and is at a higher level in the end.
func raisedLevel(t *testing.T, s *site) {
	say := s.say
	p := s.holder(t)
	c := s.enters(t, p, "/accounts/phones")
	number := "+1415555" + strings.TrimPrefix(time.Unix(browsing.Add(1), 0).UTC().Format("0405"), "-")
	c.Fill("phone_number", "12")
	c.sends("phone_number")
	c.AwaitFault("resource.phone.invalid_num")
	c.Fill("phone_number", number)
	c.sends("phone_number")
	c.Fill("verification_code", "000000")
	c.sends("verification_code")
	c.AwaitFault("resource.phone.verification_invalid")
	c.Fill("verification_code", s.message(t, number))
	c.sends("verification_code")
	c.AwaitText(say("phones.done", "number", number))
	c.opens("/accounts/")
	c.AwaitText(say("overview.level", "level", "2"))
	c.goes(say("level.go"), "/accounts/documents", say("documents.title"))
	c.AwaitElement("[name=upload]")
	c.Fill("doc_number", "AB 1234567")
	c.Fill("doc_expire", time.Now().AddDate(2, 0, 0).Format(time.DateOnly))
	c.Upload("upload", aPicture(t))
	c.sends("doc_number")
	c.AwaitText(say("documents.done"))
	c.AwaitText(say("label.pending"))

	staff := s.office(t, "/console/documents")
	staff.AwaitText(p.email)
	staff.AwaitText("AB 1234567")
	staff.Await(`document.querySelector(".paper img")?.naturalWidth === 480`)
	staff.Await(`document.activeElement?.className === "review"`)
	what := say("c.documents.of", "email", p.email)
	staff.Key("r")
	staff.changed(what, say("c.documents.pending"), say("c.documents.rejected"))
	s.mail(t, p.email, "Document Rejected")
	c.Reload()
	c.AwaitText(say("documents.rejected"))
	staff.Press(say("c.undo") + " " + what)
	staff.changed(what, say("c.documents.rejected"), say("c.documents.pending"))
	staff.Await(`document.activeElement?.className === "review"`)
	// A key that is held down judges nobody.
	browsertest.Eval[bool](staff.Page, `document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key: "r", repeat: true, bubbles: true, cancelable: true}))`)
	staff.Key("v")
	staff.changed(what, say("c.documents.pending"), say("c.documents.verified"))
	staff.AwaitText(say("c.documents.none"))
	s.mail(t, p.email, "Document Verified")
	c.Reload()
	c.AwaitText(say("label.verified"))
	c.opens("/accounts/")
	c.AwaitText(say("overview.level", "level", "3"))
}

// feltPermission closes a page of the service to members by a rule: as a draft it is in force for nobody, the console says whom
// it would turn away, and once it is saved somebody who is at that page is told so by the next click. Taken back, they are in.
func feltPermission(t *testing.T, s *site) {
	say := s.say
	p := s.holder(t)
	c := s.enters(t, p, "/accounts/")
	c.opens(account)
	c.served(p.email)
	const path = "api/v2/peatio/account"

	staff := s.office(t, "/console/permissions?role=member")
	draft := func(role, verb, path string) {
		t.Helper()
		staff.opens("/console/permissions?role=" + role)
		staff.Press(say("c.permissions.add"))
		staff.Fill("action", "DROP")
		staff.Fill("verb", verb)
		staff.Fill("path", path)
		staff.Press(say("c.draft.add"))
		staff.AwaitText(say("c.draft.added"))
		staff.opens("/console/permissions?tab=draft")
	}
	draft("member", "GET", path)
	c.Reload()
	c.served(p.email)
	staff.Press(say("c.draft.preview"))
	turned, _, _ := strings.Cut(say("c.draft.turns.text"), "{")
	staff.AwaitText(turned)
	if turns := staff.Text("section[aria-labelledby=turns] table"); !strings.Contains(turns, path) {
		t.Errorf("what would turn: %s", turns)
	}
	staff.Press(say("c.draft.save"))
	rules := say("c.draft.saved", "n", "1")
	staff.changed(rules, say("c.gone"), "member DROP GET "+path)
	c.Reload()
	c.AwaitFault("authz.invalid_permission")
	staff.opens("/console/permissions?tab=who&" + url.Values{"role": {"member"}, "verb": {"GET"}, "path": {path}}.Encode())
	staff.AwaitText(say("c.refused"))
	staff.AwaitText(say("c.who.decides"))
	// What is left empty is asked for before anything is done.
	staff.opens("/console/permissions?tab=who")
	staff.sends("by")
	staff.AwaitFault("admin.permission.empty_path")
	staff.opens("/console/permissions")
	staff.Press(say("c.permissions.add"))
	staff.sends("topic")
	staff.AwaitFault("admin.permission.empty_role")
	staff.opens("/console/users")
	staff.Press(say("c.users.label"))
	staff.sends("scope")
	staff.AwaitFault("admin.user.missing_value")

	// What was changed on this visit is gone with the page. The opposite takes it back, by the history and a draft.
	staff.opens("/console/permissions?tab=history")
	staff.AwaitText(path)
	staff.opens("/console/permissions?role=member")
	staff.Press(say("remove") + " member DROP GET " + path)
	staff.AwaitText(say("c.draft.added"))
	staff.opens("/console/permissions?tab=draft")
	staff.Press(say("c.draft.save"))
	staff.changed(rules, "member DROP GET "+path, say("c.gone"))
	c.opens(account)
	c.served(p.email)
	staff.Press(say("c.undo") + " " + rules)
	staff.AwaitText(say("c.undone"))
	c.Reload()
	c.AwaitFault("authz.invalid_permission")
	staff.Press(say("remove") + " member DROP GET " + path)
	staff.opens("/console/permissions?tab=draft")
	staff.Press(say("c.draft.save"))
	staff.changed(rules, "member DROP GET "+path, say("c.gone"))
	c.opens(account)
	c.served(p.email)

	// A draft after which none could act is refused, and stays to be mended.
	draft("superadmin", "ALL", "api/v2/barong/admin")
	staff.Press(say("c.draft.save"))
	staff.AwaitFault("admin.permission.last_superadmin")
	staff.Press(say("c.draft.clear"))
	staff.AwaitText(say("c.draft.none"))
}

// feltMaintenance is at a page of the service, in another network, when staff begin maintenance: it is told to come back, and
// is let in when that is over. Other restrictions are made, switched and removed.
func feltMaintenance(t *testing.T, s *site) {
	say := s.say
	p := s.holder(t)
	c := s.elsewhere(t).enters(t, p, "/accounts/")
	c.opens(account)
	c.served(p.email)

	staff := s.office(t, "/console/restrictions")
	staff.AwaitElement(`input[name=letin]:checked`)
	staff.Press(say("c.maintenance.on"))
	staff.changed(say("c.maintenance"), say("c.off"), say("c.on"))
	c.Reload()
	c.AwaitFault("authz.restrict.maintenance")
	staff.Press(say("c.maintenance.off"))
	staff.changed(say("c.maintenance"), say("c.on"), say("c.off"))
	c.Click("main a.button") // try again
	c.served(p.email)

	staff.Press(say("c.restriction.add"))
	staff.Fill("category", "blacklist")
	staff.Fill("scope", "ip")
	staff.Fill("value", "127.0.0.2")
	staff.sends("value")
	rule := say("c.category.blacklist") + ": " + say("c.scope.ip") + " 127.0.0.2"
	staff.changed(rule, say("c.gone"), say("c.on"))
	c.Reload()
	c.AwaitFault("authz.restrict.blacklist")
	staff.Press(say("c.switch.off") + " " + rule)
	staff.changed(rule, say("c.on"), say("c.off"))
	c.Reload()
	c.served(p.email)
	staff.Press(say("remove") + " " + rule)
	staff.Click(".confirm button.danger")
	staff.changed(rule, say("c.off"), say("c.gone"))
	staff.focused()

	// A rule for everybody lets in who switches it on, as the switch does: their address is let in again where that was taken back.
	var sessions []struct {
		IP      string `json:"user_ip"`
		Current bool
	}
	r := staff.call("GET", "/resource/sessions", nil)
	r.wants(t, "sessions", 200)
	if err := json.Unmarshal([]byte(r.body), &sessions); err != nil {
		t.Fatal(err)
	}
	own := say("c.category.whitelist") + ": " + say("c.scope.ip") + " "
	for _, one := range sessions {
		if one.Current {
			own += one.IP
		}
	}
	staff.Press(say("c.switch.off") + " " + own)
	staff.changed(own, say("c.on"), say("c.off"))
	everybody := say("c.category.maintenance") + ": " + say("c.scope.all") + " all"
	staff.Press(say("c.switch.on") + " " + everybody)
	staff.changed(everybody, say("c.off"), say("c.on"))
	c.Reload()
	c.AwaitFault("authz.restrict.maintenance")
	staff.Press(say("c.switch.off") + " " + everybody)
	staff.changed(everybody, say("c.on"), say("c.off"))

	staff.Press(say("c.whitelink.make"))
	line := staff.Text(".keep pre code")
	if out, err := exec.Command("sh", "-c", line+" --interface 127.0.0.3 --silent --show-error --fail-with-body").CombinedOutput(); err != nil {
		t.Errorf("%s: %v, %s", line, err, out)
	}
}

// savedActivities finds what was done by its filters, and saves it as files.
func savedActivities(t *testing.T, s *site) {
	say := s.say
	p := s.holder(t)
	other := s.client()
	other.call("POST", "/identity/sessions", params{"email": p.email, "password": p.password}, `User-Agent: =HYPERLINK("x")`).wants(t, "sign-in", 201)
	staff := s.office(t, "/console/activities?topic=session&email="+url.QueryEscape(p.email))
	staff.AwaitText("=HYPERLINK")
	// A file is kept here instead of on a disk.
	browsertest.Eval[any](staff.Page, `(URL.createObjectURL = b => { b.text().then(t => { window.saved = t; }); return "data:,"; }, HTMLAnchorElement.prototype.click = () => {}, null)`)
	for kind, want := range map[string]string{"jsonl": `"email":"` + p.email + `"`, "csv": `,"'=HYPERLINK(""x"")",`} {
		browsertest.Eval[any](staff.Page, `(window.saved = undefined, null)`)
		staff.Press(say("c.export." + kind))
		staff.Await(`window.saved !== undefined`)
		if file := browsertest.Eval[string](staff.Page, `window.saved`); !strings.Contains(file, want) {
			t.Errorf("%s: the file is %s", kind, file)
		}
	}
	staff.opens("/console/activities?of=staff&target_uid=nobody")
	staff.AwaitText(say("c.activities.none"))
	// A page behind the last is no list of nothing.
	for _, path := range []string{"/console/activities", "/accounts/activity"} {
		staff.opens(path + "?topic=session&page=999")
		staff.AwaitText(say("pager.beyond", "page", "999"))
		staff.Press(say("pager.first"))
		staff.AwaitElement("main table")
		if got, want := staff.URL(), s.origin+path+"?topic=session"; got != want {
			t.Errorf("the first page is %s, want %s", got, want)
		}
		staff.opens(path + "?topic=session&page=1.5")
		staff.AwaitElement("main table")
	}
}
