package mailer

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"barong/internal/crypto/jws/jwstest"
	"barong/internal/delivery/events"
	"barong/internal/delivery/mail"
)

func letters(t testing.TB) *mail.Renderer {
	t.Helper()
	r, err := mail.NewRenderer(mail.RendererOptions{Brand: "Exchange", Domain: "exchange.test", DefaultLanguage: "en"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// head is a file with one key, the same for both signers as in the kit, to which a test appends its events.
func head(s *jwstest.Service) string {
	return `
keychain:
  barong: ` + s.Entry() + `
  peatio: ` + s.Entry() + `
exchanges:
  barong_system: { name: barong.events.system, signer: barong }
  barong_model: { name: barong.events.model, signer: barong }
  peatio: { name: peatio.events.model, signer: peatio }
events:
`
}

// kitEvents are entries as deployments have them: of the last 2.4 kit and of 2.6, with languages in capitals.
const kitEvents = `
- name: Email Confirmation
  key: user.email.confirmation.token
  exchange: barong_system
  templates:
    EN: { subject: Registration Confirmation, template_path: email_confirmation.en.html.erb }
    RU: { subject: Подтверждение Регистрации, template_path: email_confirmation.ru.html.erb }
- name: Label Created
  key: label.created
  exchange: barong_model
  expression: |
    record.key in ["phone", "profile", "document"] &&
    record.value in ["verified", "rejected"]
  templates:
    EN: { subject: Account Details Updated, template_path: label_created.en.html.erb }
- name: Deposit Accepted
  key: deposit.updated
  exchange: peatio
  expression: changes.state == "submitted" && record.state == "accepted"
  templates:
    EN: { subject: Deposit Accepted, template_path: deposit_accepted.en.html.erb }
- name: Session Create
  key: session.create
  exchange: barong_system
  templates:
    EN: { subject: New Login, template_path: session_create.en.html.erb }
- name: Withdrawal Succeed
  key: withdraw.updated
  exchange: peatio
  templates:
    EN: { subject: Withdrawal Succeed, template_path: withdraw_succeed.en.html.erb }
- name: New Beneficiary
  key: beneficiary.created
  exchange: peatio
  templates:
    EN: { subject: New Beneficiary, template_path: new_beneficiary.en.html.erb }
- name: Resend beneficiary
  key: beneficiary.updated
  exchange: peatio
  expression:
    and:
       record.state: 'pending'
  templates:
    EN: { subject: Resend Beneficiary, template_path: new_beneficiary.en.html.erb }
`

func parse(t *testing.T, text string, folders ...string) *Config {
	t.Helper()
	c, err := ParseConfig([]byte(text), letters(t), folders, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFileOfTheKit(t *testing.T) {
	c := parse(t, head(jwstest.New(t))+kitEvents)
	want := []events.Binding{
		{Exchange: "peatio.events.model", Key: "deposit.updated"},
		{Exchange: "peatio.events.model", Key: "withdraw.updated"},
		{Exchange: "peatio.events.model", Key: "beneficiary.created"},
		{Exchange: "peatio.events.model", Key: "beneficiary.updated"},
	}
	if got := c.Bindings(); !slices.Equal(got, want) {
		t.Errorf("heard are %v", got)
	}
	if len(c.Warnings) > 0 {
		t.Errorf("warnings %q", c.Warnings)
	}
	again := c.events[3].mail
	for language, subject := range map[string]string{"en": "Resend Beneficiary", "EN": "Resend Beneficiary", "ru": "Новый Получатель", "fr": "Resend Beneficiary"} {
		m, err := again.Render(language, mail.Data{Email: "ann@a.test", Event: map[string]any{"record": map[string]any{"pin": "123456", "currency": "btc"}}})
		if err != nil || m.Subject != subject || m.Kind != "beneficiary.updated" || !strings.Contains(m.Text, "123456") || !strings.Contains(m.Text, "BTC") {
			t.Errorf("%s: %q %q %v", language, m.Subject, m.Text, err)
		}
	}
}

// TestFileOfTheOriginal: the file as it comes has no keys yet; nothing of it is refused, and nothing heard.
func TestFileOfTheOriginal(t *testing.T) {
	c := parse(t, `
keychain:
  barong: { algorithm: RS256, value: "changeme" }
  peatio: { algorithm: RS256, value: "changeme" }
exchanges:
  peatio: { name: peatio.events.model, signer: peatio }
events:
  - { name: Deposit Accepted, key: deposit.updated, exchange: peatio, templates: { en: { subject: Deposit Accepted, template_path: deposit_accepted.en.html.erb } } }
`)
	if len(c.Bindings()) > 0 || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "keychain.peatio has no key yet") {
		t.Errorf("%v, %q", c.Bindings(), c.Warnings)
	}
	for _, empty := range []string{"", "{}", "events:", "events: []"} {
		if c := parse(t, empty); len(c.Bindings()) > 0 {
			t.Errorf("%q: %v", empty, c.Bindings())
		}
	}
}

// TestWords: an operator's own words, beside the file or in the place of a template in Ruby.
func TestWords(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{
		"templates/vip.en.tmpl":                     `{{define "x"}}{{end}}Dear {{.User "uid"}}, your {{.Record "thing.name"}} is {{upper (.Record "state")}}, it was {{.Changes "state"}}{{.Record "nothing.here"}}.`,
		"mailer/templates/deposit_accepted.en.tmpl": "Ours: {{.Record \"amount\"}}.",
		"templates/old.html":                        "<p><%= record.amount %></p>",
		"templates/empty.tmpl":                      " \n",
		"templates/bad.tmpl":                        "{{.Nothing}}",
	} {
		file := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	folders := []string{folder, filepath.Join(folder, "templates"), filepath.Join(folder, "mailer", "templates")}
	s := jwstest.New(t)
	c := parse(t, head(s)+`
- { key: thing.updated, exchange: peatio, templates: { en: { subject: "It's {{a}} thing", template_path: vip.en.tmpl } } }
- { key: deposit.updated, exchange: peatio, templates: { en: { template_path: deposit_accepted.en.html.erb } } }
- { key: label.updated, exchange: barong_model, templates: { en: { subject: Vip, template_path: vip.en.tmpl } } }
`, folders...)
	if n := len(c.events); n != 3 {
		t.Fatalf("%d entries", n)
	}
	event := map[string]any{"record": map[string]any{"thing": map[string]any{"name": "<b>car</b>\n\nInjected"}, "state": "done", "amount": "3"}, "changes": map[string]any{"state": true}}
	m, err := c.events[0].mail.Render("ru", mail.Data{Email: "ann@a.test", User: map[string]string{"uid": "ID1"}, Event: event})
	if err != nil || m.Subject != "It's {{a}} thing" || !strings.HasPrefix(m.Text, "Dear ID1, your <b>car</b> Injected is DONE, it was true.\n\n") ||
		!strings.Contains(m.HTML, "&lt;b&gt;car&lt;/b&gt; Injected") || !strings.Contains(m.HTML, `lang="en"`) {
		t.Errorf("%q\n%s\n%s\n%v", m.Subject, m.Text, m.HTML, err)
	}
	if m, err = c.events[1].mail.Render("en", mail.Data{Email: "ann@a.test", Event: event}); err != nil || !strings.HasPrefix(m.Text, "Ours: 3.") || m.Subject != "Deposit Updated" {
		t.Errorf("%q %q %v", m.Subject, m.Text, err)
	}
	for entry, want := range map[string]string{
		`{ key: thing.updated, exchange: peatio, templates: { en: { subject: S, template_path: old.html } } }`:         "template in Ruby",
		`{ key: thing.updated, exchange: peatio, templates: { en: { subject: S, template_path: old.html.erb } } }`:     "no words",
		`{ key: thing.updated, exchange: peatio, templates: { en: { subject: S, template_path: missing.tmpl } } }`:     `no file "missing.tmpl"`,
		`{ key: thing.updated, exchange: peatio, templates: { en: { subject: S, template_path: empty.tmpl } } }`:       "is empty",
		`{ key: thing.updated, exchange: peatio, templates: { en: { subject: S, template_path: bad.tmpl } } }`:         "Nothing",
		`{ key: thing.updated, exchange: peatio, templates: { en: { template_path: vip.en.tmpl } } }`:                  "no subject",
		`{ key: thing.updated, exchange: peatio, templates: { en: { subject: S, template_path: ../../etc/passwd } } }`: "leads out",
		`{ key: thing.updated, exchange: peatio }`:                                                                     "no words",
		`{ key: deposit.updated, exchange: peatio, templates: { en: { subject: a }, EN: { subject: b } } }`:            "twice",
		`{ key: deposit.updated, exchange: nowhere }`:                                                                  "not listed under exchanges",
		`{ exchange: peatio }`: "key is needed",
		`{ key: deposit.updated, exchange: peatio, expresion: a }`:                   "expression is meant",
		`{ key: deposit.updated, exchange: peatio, wait_until: "record.date" }`:      "wait_until: mails are sent when the event comes",
		`{ key: deposit.updated, exchange: peatio, Delay: 60 }`:                      "Delay: mails are sent when the event comes",
		`{ key: deposit.updated, exchange: peatio, expression: { xor: { a: b } } }`:  "not one of and, or, not",
		`{ key: deposit.updated, exchange: peatio, expression: "record.state = 1" }`: "not understood",
		`{ key: deposit.updated, exchange: peatio, expression: [1] }`:                "neither a text nor a mapping",
	} {
		_, err := ParseConfig([]byte(head(s)+"- "+entry+"\n"), letters(t), folders, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", entry, err)
		}
	}
	for text, want := range map[string]string{
		"keychain: {peatio: {algorithm: HS256, value: abc}}\nexchanges: {peatio: {name: x, signer: peatio}}\nevents: [{key: deposit.updated, exchange: peatio}]": "HS256",
		"keychain: {peatio: {algorithm: RS256, value: '!'}}\nexchanges: {peatio: {name: x, signer: peatio}}\nevents: [{key: deposit.updated, exchange: peatio}]": "keychain.peatio",
		"exchanges: {peatio: {name: x, signer: peatio}}\nevents: [{key: deposit.updated, exchange: peatio}]":                                                     "not in the keychain",
		"exchanges: {peatio: {signer: peatio}}\nevents: [{key: deposit.updated, exchange: peatio}]":                                                              "name is needed",
		"events: {a: b}":               "cannot unmarshal",
		"a: [":                         "did not find",
		strings.Repeat("#", maxFile+1): "larger than",
	} {
		if _, err := ParseConfig([]byte(text), letters(t), nil, nil); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "mailer.") {
			t.Errorf("%.200s: %v", text, err)
		}
	}
	other := jwstest.New(t)
	two := strings.Replace(head(s), "exchanges:", "  other: "+other.Entry()+"\nexchanges:\n  again: { name: peatio.events.model, signer: other }", 1) +
		"- { key: deposit.updated, exchange: peatio }\n- { key: deposit.updated, exchange: again }\n"
	if _, err := ParseConfig([]byte(two), letters(t), nil, nil); err == nil || !strings.Contains(err.Error(), "cannot as well") {
		t.Errorf("two signers of one exchange: %v", err)
	}
}

// holds evaluates an expression as a file has it, over an event.
func holds(t *testing.T, text, event string) bool {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text), &n); err != nil {
		t.Fatal(err)
	}
	e, err := readExpression(n.Content[0], func(string) {})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return e(decodeJSON([]byte(event)).(map[string]any))
}

func TestExpressions(t *testing.T) {
	const event = `{"name":"model.deposit.updated","record":{"state":"accepted","currency":"btc","amount":"0.10","level":3,"big":1.50,"otp":true,"nothing":null,"list":[1]},"changes":{"state":"submitted"}}`
	for text, want := range map[string]bool{
		`{and: {record.state: accepted}}`:                                    true,
		`{and: {record.state: accepted, record.currency: eth}}`:              false,
		`{AND: {record.state: accepted, record.level: 3}}`:                   true,
		`{or: {record.state: rejected, record.currency: btc}}`:               true,
		`{or: {record.state: rejected}}`:                                     false,
		`{not: {record.state: accepted}}`:                                    false,
		`{not: {record.state: accepted, record.currency: eth}}`:              true, // unless all of them hold
		`{and: {record.level: 3.0}}`:                                         true,
		`{and: {record.level: "3"}}`:                                         false,
		`{and: {record.big: 1.5}}`:                                           true,
		`{and: {record.otp: true}}`:                                          true,
		`{and: {record.nothing: null, record.absent: null}}`:                 true,
		`{and: {record.list: [1]}}`:                                          false,
		`{and: {name: model.deposit.updated}}`:                               true,
		`{and: {record.state: accepted}, or: {record.state: rejected}}`:      true, // the first alone, as in the original
		`'changes.state == "submitted" && record.state == "accepted"'`:       true,
		`'changes.state == "submitted" and record.state == "rejected"'`:      false,
		`'record.state in ["succeed", "accepted"]'`:                          true,
		`'record.state in []'`:                                               false,
		`'record.state not in ["succeed", "accepted"]'`:                      false,
		`'not (record.state in ["succeed"]) && record.level == 3'`:           true,
		`'!record.otp || record.level != 3'`:                                 false,
		`'record.otp'`:                                                       true,
		`'record.state'`:                                                     false, // no truth value
		`'record.level == 3.00 && record.big == 1.5'`:                        true,
		`'record?.user?.uid == nil'`:                                         true,
		`'record.state == "a" || record.state == "b" or record.otp'`:         true,
		`'record.otp || record.otp && false'`:                                true, // and binds closer
		`"record.currency == 'btc'"`:                                         true,
		`'record.currency == "b\"tc"'`:                                       false,
		`'record.absent != "x"'`:                                             true,
		`"record.key in [\"phone\"] &&\n  record.value in [\"verified\"]\n"`: false,
	} {
		if got := holds(t, text, event); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	for _, text := range []string{
		`record.state ==`, `== "a"`, `(record.otp`, `record.otp)`, `record.state in "a"`, `record.state in ["a"`, `record.state in ["a" "b"]`,
		`record.state not "a"`, `"a`, `'a\`, `record..state`, `record.`, `record.state == 1x`, `record.state = "a"`, `record.level > 2`, `len(record)`,
		`record.state matches "a"`, `record.state == "a\n"`, strings.Repeat("(", 100) + "record.otp" + strings.Repeat(")", 100),
		strings.Repeat("!", 100) + "record.otp", strings.Repeat(" ", maxExpression) + "record.otp", `record.otp &&`, `-`,
	} {
		if _, err := parseExpression(text); err == nil {
			t.Errorf("%.100q is accepted", text)
		}
	}
}

func FuzzExpression(f *testing.F) {
	for _, seed := range []string{`changes.state == "a" && !(b in ["x", 'y', 1, nil]) || c`, `not a not in [true]`, `"\"`, `é == 'ü'`, `((a))`, `a?.b == -1.5e3`} {
		f.Add(seed)
	}
	event := decodeJSON([]byte(`{"record":{"state":"a","n":1e400,"long":` + strings.Repeat("9", 100) + `}}`)).(map[string]any)
	f.Fuzz(func(t *testing.T, text string) {
		e, err := parseExpression(text)
		if err != nil {
			return
		}
		holds := e(event)
		if again := e(event); again != holds {
			t.Error("it does not always say the same")
		}
		if negated, err := parseExpression("!(" + text + ")"); err == nil && negated(event) == holds {
			t.Error("its negation says the same")
		}
	})
}
