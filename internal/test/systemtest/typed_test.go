package systemtest

import (
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"barong/internal/test/browsertest"
)

// evil is what somebody may type who wants a script of theirs to run.
const evil = `"'><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>{{hacked}}`

// untouched holds that nothing of what was typed has become a part of the page.
func (c *guest) untouched(what string) {
	c.t.Helper()
	if browsertest.Eval[bool](c.Page, `window.hacked !== undefined || !!document.querySelector("img[src=x]")`) {
		c.t.Errorf("%s: what was typed has become a part of the page", what)
	}
}

// promote makes somebody a superadmin.
func (s *site) promote(t *testing.T, p *holder) {
	t.Helper()
	s.admin().call("POST", "/admin/users/role", params{"uid": s.uid(t, p), "role": "superadmin"}).wants(t, "a role", 201)
}

// uid is the id of somebody's account.
func (s *site) uid(t *testing.T, p *holder) string {
	t.Helper()
	api := s.client()
	api.signIn(p.email, p.password).wants(t, "sign-in", 201)
	var me struct{ UID string }
	api.call("GET", "/resource/users/me", nil).wants(t, "who it is", 200).into(t, &me)
	return me.UID
}

// grace makes an account of which every page has something to show. Her address and her name are as long as they may be,
// but on the pictures of the documentation.
func (s *site) grace(t *testing.T) *holder {
	t.Helper()
	address, name := strings.Repeat("grace", 11)+"%d@"+strings.Repeat("navy", 15)+".example.com", strings.Repeat("Hopper", 40)
	if *update {
		address, name = "grace%d@example.com", "Hopper"
	}
	p := s.holderAt(t, address)
	api := s.client()
	api.signIn(p.email, p.password).wants(t, "sign-in", 201)
	api.call("POST", "/resource/profiles", params{"first_name": "Grace", "last_name": name}).wants(t, "a profile", 201)
	picture, err := os.ReadFile(aPicture(t))
	if err != nil {
		t.Fatal(err)
	}
	api.call("POST", "/resource/documents", newForm(t, map[string]string{
		"doc_type": "Passport", "doc_number": "AB 1234567", "doc_expire": time.Now().AddDate(2, 0, 0).Format(time.DateOnly),
	}, "passport.png", picture)).wants(t, "a document", 201)
	p.factor = api.enable2FA(t)
	api.newKey(t, p.factor)
	s.later(p.factor)
	return p
}

// mallory types what should run as a script wherever somebody may type, as do staff about that account. What is not let in today
// may be there since long ago, so it stands in the database. It returns the id.
func (s *site) mallory(t *testing.T) (uid string) {
	t.Helper()
	p := s.holder(t)
	uid = s.uid(t, p)
	api, admin := s.client(), s.admin()
	api.signIn(p.email, p.password).wants(t, "sign-in", 201)
	p.factor = api.enable2FA(t)
	expiry := time.Now().AddDate(2, 0, 0).Format(time.DateOnly)
	document := func(number, metadata string) form {
		return newForm(t, map[string]string{"doc_type": "Passport", "doc_number": number, "doc_expire": expiry, "metadata": metadata}, evil+".png", []byte("\x89PNG\r\n\x1a\n"))
	}
	for _, w := range []struct {
		c            *client
		method, path string
		body         any
		status       int
	}{
		{api, "POST", "/resource/profiles", params{"first_name": evil, "last_name": evil, "city": evil, "postcode": evil, "address": evil}, 422},
		{api, "POST", "/resource/profiles", params{"first_name": "Mallory", "last_name": "O'Script", "metadata": browsertest.JSON(params{evil: evil})}, 201},
		{api, "POST", "/resource/documents", document(evil[:60], "{}"), 422},
		{api, "POST", "/resource/documents", document("AB 666", browsertest.JSON(params{evil: evil})), 201},
		{api, "POST", "/resource/phones", params{"phone_number": evil}, 400},
		{api, "POST", "/resource/labels", params{"key": "note", "value": evil}, 422},
		{api, "POST", "/resource/labels", params{"key": "note", "value": "plain"}, 201},
		{api, "PUT", "/resource/users/me", params{"data": browsertest.JSON(params{"language": s.language, "note": evil})}, 201},
		{api, "POST", "/resource/data_storage", params{"title": evil, "data": evil}, 422},
		{api, "POST", "/resource/api_keys", params{"algorithm": "HS256", "scope": evil, "totp_code": p.factor.code(t)}, 201},
		{admin, "POST", "/admin/users/labels", params{"uid": uid, "key": "remark", "value": evil, "scope": "private"}, 422},
		{admin, "POST", "/admin/users/labels", params{"uid": uid, "key": "remark", "value": "plain", "description": evil, "scope": "private"}, 201},
		{admin, "POST", "/admin/permissions", params{"role": "member", "verb": "GET", "path": evil, "action": "ACCEPT", "topic": evil}, 201},
		{admin, "POST", "/admin/restrictions", params{"scope": "ip", "value": evil[:60], "category": "blacklist"}, 422},
		{s.client(), "POST", "/identity/users", params{"email": evil + "@example.com", "password": p.password}, 422},
	} {
		if r := w.c.call(w.method, w.path, w.body); r.status != w.status {
			t.Errorf("%s %s: got %s, want %d", w.method, w.path, r, w.status)
		}
	}
	s.later(p.factor)
	s.client().call("POST", "/identity/sessions", params{"email": p.email, "password": p.password, "otp_code": p.factor.code(t)}, "User-Agent: "+evil).
		wants(t, "a sign-in", 201)
	for _, statement := range []string{
		"UPDATE labels SET value = ?1 WHERE key IN ('note', 'remark')",
		"INSERT INTO data_storages (user_id, title, data, created_at, updated_at) SELECT id, ?1, ?1, created_at, created_at FROM users WHERE uid = ?2",
	} {
		s.write(t, statement, evil, uid)
	}
	return uid
}

// write changes the embedded database of a server past it.
func (s *server) write(t *testing.T, statement string, values ...any) {
	t.Helper()
	d, err := sql.Open("sqlite", "file:"+filepath.Join(s.dir, "data", "barong.db")+"?_txlock=immediate&_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.ExecContext(t.Context(), statement, values...); err != nil {
		t.Fatal(err)
	}
}

// typed types what should run as a script into the address of every page, and into every field, and sends it.
func typed(t *testing.T, s *site, uid string) {
	t.Run("in the address", func(t *testing.T) {
		q := url.QueryEscape(evil)
		c := s.visit(t, browsertest.Options{})
		for _, path := range []string{
			"/accounts/signin?rd=" + q, "/accounts/signin?error=" + q, "/accounts/signin?rd=" + url.QueryEscape("javascript:window.hacked=1"),
			"/accounts/signup?rd=" + q + "&refid=" + q, "/accounts/confirmation?confirmation_token=" + q, "/accounts/password_reset?reset_token=" + q,
			"/accounts/signin?" + q + "=1#" + q, "/accounts/forgot?email=" + q + "&lang=" + q, "/accounts/" + url.PathEscape(evil[:30]),
		} {
			c.opens(path)
			c.settled()
			c.untouched(path)
		}
		c = s.office(t, "/console/")
		for _, path := range []string{
			"/console/users?uid=" + q + "&email=" + q + "&role=" + q + "&first_name=" + q + "&state=" + q + "&from=" + q + "&page=" + q,
			"/console/users?key=" + q + "&value=" + q + "&scope=" + q, "/console/users/" + url.PathEscape(evil[:30]), "/console/" + url.PathEscape(evil[:30]),
			"/console/permissions?tab=" + q + "&role=" + q, "/console/permissions?tab=who&role=" + q + "&verb=" + q + "&path=" + q + "#" + q,
			"/console/permissions?tab=history&subject=" + q, "/console/restrictions?category=" + q + "&scope=" + q,
			"/console/activities?of=staff&topic=" + q + "&action=" + q + "&result=" + q + "&to=" + q, "/console/keys?kid=" + q + "&state=" + q, "/console/metrics?days=" + q,
			"/accounts/activity?topic=" + q + "&page=" + q, "/accounts/signout?rd=" + q, "/api/v2/nobody/" + url.PathEscape(evil[:30]) + "?" + q,
		} {
			c.opens(path)
			c.settled()
			c.untouched(path)
		}
	})
	t.Run("in every field", func(t *testing.T) {
		p := s.holder(t)
		s.promote(t, p)
		api := s.client()
		api.signIn(p.email, p.password).wants(t, "sign-in", 201)
		p.factor = api.enable2FA(t)
		stranger, member := s.visit(t, browsertest.Options{}), s.knows(t, browsertest.Options{}, p, bare)
		member.NewAuthenticator()
		for _, at := range fields {
			c := member
			if at.open {
				c = stranger
			}
			path := strings.ReplaceAll(at.path, "{uid}", uid)
			visit := func() {
				t.Helper()
				c.opens(path)
				c.settled()
				for _, key := range at.press {
					c.Press(s.say(key))
				}
				browsertest.Eval[any](c.Page, `(document.querySelectorAll("details").forEach(d => d.open = true), null)`)
			}
			visit()
			var names []string
			for i := 0; ; i++ {
				if i > 0 && c.URL() != s.origin+path {
					visit()
				}
				typed := browsertest.Eval[[]string](c.Page, fmt.Sprintf(typeInto, i, browsertest.JSON(evil)))
				if typed == nil {
					break
				}
				names = append(names, typed...)
				c.settled()
				c.untouched(fmt.Sprintf("%s, form %d", path, i+1))
			}
			if got := strings.Join(names, " "); got != at.names {
				t.Errorf("%s has the fields %q, and not %q", path, got, at.names)
			}
		}
	})
	t.Run("stopped by the policy", func(t *testing.T) {
		c := s.visit(t, browsertest.Options{})
		c.opens("/accounts/signin")
		c.settled()
		for what, get := range map[string]string{
			"a handler":            `(() => { const d = document.createElement("div"); d.innerHTML = '<img src="data:," onerror="window.hacked = 1">'; document.body.append(d); })()`,
			"a script from abroad": `(() => { const s = document.createElement("script"); s.src = "http://elsewhere.test/x.js"; document.body.append(s); })()`,
			"a script of text":     `(() => { const s = document.createElement("script"); s.src = "data:text/javascript,window.hacked=1"; document.body.append(s); })()`,
			"a frame":              `(() => { const f = document.createElement("iframe"); f.src = "http://elsewhere.test/"; document.body.append(f); })()`,
			"a base":               `(() => { const b = document.createElement("base"); b.href = "http://elsewhere.test/"; document.head.append(b); })()`,
			"a style":              `(() => { const s = document.createElement("style"); s.textContent = "main { display: none }"; document.head.append(s); })()`,
			"a call abroad":        `fetch("http://elsewhere.test/").catch(() => {})`,
			"a form abroad":        `(() => { const f = document.createElement("form"); f.action = "http://elsewhere.test/"; f.method = "post"; document.body.append(f); f.submit(); })()`,
		} {
			c.Provoke("Content-Security-Policy", func() { browsertest.Eval[any](c.Page, `(`+get+`, null)`) })
			c.untouched(what)
		}
	})
}

// typeInto types into the fields of form number %d of a page, sends it, and returns their names: null when there is no such form.
const typeInto = `(() => {
	const kinds = ["text", "email", "password", "tel", "search", "textarea"];
	const fields = e => [...e.querySelectorAll("input, textarea")].filter(e => kinds.includes(e.type) && e.checkVisibility());
	const places = [...document.querySelectorAll("main form")].filter(f => fields(f).length > 0);
	const alone = [...document.querySelectorAll("main .field")].filter(e => !e.closest("form") && fields(e).length > 0);
	const place = [...places, ...alone][%d];
	if (!place) return null;
	for (const e of fields(place)) {
		Object.getOwnPropertyDescriptor(e.constructor.prototype, "value").set.call(e, %s);
		e.dispatchEvent(new Event("input", {bubbles: true}));
	}
	const names = fields(place).map(e => e.name);
	place.requestSubmit?.();
	return names;
})()`

// fields are all that people can type into, page by page and form by form, with what is pressed before they are seen.
var fields = []struct {
	path  string
	open  bool // to strangers
	press []string
	names string
}{
	{"/accounts/signin", true, nil, "email password"},
	{"/accounts/signup", true, nil, "email password refid"},
	{"/accounts/forgot", true, nil, "email"},
	{"/accounts/confirmation", true, nil, "email"},
	{"/accounts/password_reset?reset_token=x", true, nil, "password confirm_password"},
	{"/accounts/profile", false, nil, "first_name last_name city postcode address"},
	{"/accounts/phones", false, nil, "phone_number"},
	{"/accounts/documents", false, nil, "doc_number"},
	{"/accounts/security", false, []string{"passkeys.add", "otp.disable"}, "code name totp_code old_password new_password confirm_password"},
	{"/accounts/keys", false, []string{"keys.make"}, "scope totp_code"},
	{"/accounts/delete", false, nil, "password otp_code"},
	{"/console/users", false, nil, "email uid role level first_name last_name country key value"},
	{"/console/users/{uid}", false, nil, "role key value description first_name last_name address postcode city country"},
	{"/console/permissions?role=member", false, nil, "role path topic"},
	{"/console/permissions?tab=who", false, nil, "role path"},
	{"/console/restrictions", false, nil, "value code"},
	{"/console/activities?of=staff", false, nil, "topic action uid email target_uid"},
	{"/console/keys", false, nil, "uid kid"},
	{"/console/system", false, nil, "seek"},
}
