package mail

import (
	"encoding/json"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A token as long as one signed with RSA.
var token = "eyJhbGciOiJSUzI1NiJ9." + strings.Repeat("eyJzdWIiOiJjb25maXJtYXRpb24ifQ", 12) + "." + strings.Repeat("q-_A", 86)

const firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"

var inLink = regexp.MustCompile(`token=([^&\s"'<>)\]]+)`)

func renderer(t testing.TB, o RendererOptions) *Renderer {
	t.Helper()
	if o.Brand == "" {
		o.Brand = "Barong"
	}
	if o.Domain == "" {
		o.Domain = "openware.com"
	}
	if o.DefaultLanguage == "" {
		o.DefaultLanguage = "en"
	}
	r, err := NewRenderer(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSubjects(t *testing.T) {
	r := renderer(t, RendererOptions{})
	for _, c := range []struct{ kind, en, ru string }{
		{Confirmation, "Registration Confirmation", "Подтверждение Регистрации"},
		{ResetToken, "Password Reset", "Сброс Пароля"},
		{LabelCreated, "Phone verified", "Телефон Подтверждён"},
		{LabelUpdated, "Label Updated", "Телефон Подтверждён"},
		{SessionCreated, "New Login", "Новый Вход"},
	} {
		for language, want := range map[string]string{"en": c.en, "ru": c.ru} {
			m, err := r.Render(c.kind, language, Data{Email: "a@b.io", Token: "t"})
			if err != nil || m.Subject != want {
				t.Errorf("%s in %s: %q, %v", c.kind, language, m.Subject, err)
			}
		}
	}
}

func TestEveryKindInEveryLanguage(t *testing.T) {
	r := renderer(t, RendererOptions{})
	seen := map[string]bool{}
	for _, kind := range kinds {
		for _, language := range []string{"en", "ru"} {
			m, err := r.Render(kind, language, Data{
				Email: "ann@example.com", Token: token, IP: "203.0.113.7", UserAgent: firefox, Key: "504c76977710c01c",
			})
			if err != nil {
				t.Fatal(err)
			}
			if seen[m.ID] || m.ID == "" || m.Kind != kind || m.To != "ann@example.com" || m.Date.IsZero() {
				t.Errorf("%s: %+v", kind, m)
			}
			seen[m.ID] = true
			russian := strings.ContainsAny(m.Subject, "абвгдежзиклмнопрст")
			if m.Subject == "" || russian != (language == "ru") {
				t.Errorf("%s in %s: subject %q", kind, language, m.Subject)
			}
			for _, body := range []string{m.Text, m.HTML} {
				if !strings.Contains(body, "a…@example.com") || strings.Contains(body, "ann@") || !strings.Contains(body, "Barong") {
					t.Errorf("%s in %s: %s", kind, language, body)
				}
				if strings.Contains(body, "{{") || strings.Contains(body, "<no value>") || strings.Contains(body, "ZgotmplZ") {
					t.Errorf("%s in %s: unfinished: %s", kind, language, body)
				}
			}
			if strings.Contains(m.HTML, "<img") || strings.Contains(m.HTML, "url(") || strings.Contains(m.HTML, "<script") {
				t.Errorf("%s: fetches something", kind)
			}
			if !strings.Contains(m.HTML, `<html lang="`+language+`">`) {
				t.Errorf("%s: language of the page", kind)
			}
			if kind == SessionCreated && (!strings.Contains(m.Text, "203.0.113.7") || !strings.Contains(m.Text, "Firefox on Linux")) {
				t.Errorf("%s: %s", kind, m.Text)
			}
			if kind == APIKeyCreated && !strings.Contains(m.Text, "504c76977710c01c") {
				t.Errorf("%s: %s", kind, m.Text)
			}
		}
	}
}

func TestLinks(t *testing.T) {
	for _, c := range []struct{ domain, kind, language, want string }{
		{"openware.com", Confirmation, "en", "https://openware.com/accounts/confirmation?confirmation_token=TOKEN&lang=en"},
		{"openware.com", ResetToken, "RU", "https://openware.com/accounts/password_reset?reset_token=TOKEN&lang=ru"},
		{"http://localhost:3000/", ResetToken, "fr", "http://localhost:3000/accounts/password_reset?reset_token=TOKEN&lang=en"},
		{"https://example.com/app/", Confirmation, "", "https://example.com/app/accounts/confirmation?confirmation_token=TOKEN&lang=en"},
	} {
		m, err := renderer(t, RendererOptions{Domain: c.domain}).Render(c.kind, c.language, Data{Email: "a@b.io", Token: token})
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Replace(c.want, "TOKEN", token, 1)
		if !slices.Contains(strings.Split(m.Text, "\n"), want) {
			t.Errorf("no line of the text is %s:\n%s", want, m.Text)
		}
		if !strings.Contains(m.HTML, `<a href="`+html.EscapeString(want)+`"`) {
			t.Errorf("not in the HTML: %s\n%s", want, m.HTML)
		}
		for _, body := range []string{m.Text, html.UnescapeString(m.HTML)} {
			for _, found := range inLink.FindAllStringSubmatch(body, -1) {
				if found[1] != token {
					t.Errorf("a reader finds %q", found[1])
				}
			}
		}
	}
	if _, err := renderer(t, RendererOptions{}).Render(Confirmation, "en", Data{Email: "a@b.io"}); err == nil {
		t.Error("a link without a token")
	}
	for _, domain := range []string{"", "ftp://example.com", "javascript://x", "https://", "example.com?x=1", "u:p@example.com", "a b"} {
		if _, err := NewRenderer(RendererOptions{Domain: domain}); err == nil {
			t.Errorf("links may lead to %q", domain)
		}
	}
}

// TestMailsHoldNothingTyped renders every kind, by the built-in templates and by an operator's that shows all there is, of
// texts that somebody else chose.
func TestMailsHoldNothingTyped(t *testing.T) {
	dir := t.TempDir()
	var all strings.Builder
	for _, kind := range kinds {
		all.WriteString(`{{define "` + kind + ` subject"}}{{.Email}} {{.IP}} {{.UserAgent}} {{.Key}}{{end}}`)
		all.WriteString(`{{define "` + kind + ` body"}}{{.Data}} {{.Email}} {{.IP}} {{.UserAgent}} {{.Key}}{{end}}`)
	}
	if err := os.WriteFile(filepath.Join(dir, "xx.tmpl"), []byte(all.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	r := renderer(t, RendererOptions{Folder: dir})
	const typed = "Your funds are frozen, see https://evil.example/now"
	for _, evil := range []string{
		typed, firefox + " " + typed, "Mozilla/5.0 (" + typed + ") Gecko Firefox/1.0", "<b>" + typed + "</b>\r\nBcc: all@evil.example",
		"Mozilla/5.0 (X11; Linux) " + strings.ReplaceAll(typed, " ", "/1.0 "),
	} {
		for _, kind := range kinds {
			for _, language := range []string{"en", "ru", "xx"} {
				m, err := r.Render(kind, language, Data{
					Email: "v+funds-frozen.evil.example@example.com", Token: "t", IP: evil, UserAgent: evil, Key: evil,
				})
				if err != nil {
					t.Fatal(err)
				}
				for _, part := range []string{m.Subject, m.Text, m.HTML} {
					if strings.Contains(part, "evil") || strings.Contains(part, "frozen") || strings.Contains(part, "<b>") {
						t.Errorf("%s in %s: %s", kind, language, part)
					}
				}
				if m.To != "v+funds-frozen.evil.example@example.com" {
					t.Errorf("%s goes to %s", kind, m.To)
				}
			}
		}
	}
	m, err := r.Render(SessionCreated, "xx", Data{Email: "élan@example.com", IP: "2001:db8::1", UserAgent: firefox, Key: "504c76977710c01c"})
	if want := "é…@example.com 2001:db8::1 Firefox on Linux 504c76977710c01c"; err != nil || m.Subject != want {
		t.Errorf("subject %q, %v, want %q", m.Subject, err, want)
	}
}

func TestRenderProperties(t *testing.T) {
	r := renderer(t, RendererOptions{})
	rapid.Check(t, func(t *rapid.T) {
		d := Data{
			Email: rapid.String().Draw(t, "email"), IP: rapid.String().Draw(t, "ip"),
			UserAgent: rapid.String().Draw(t, "agent"), Key: rapid.String().Draw(t, "key"), Token: "t" + rapid.String().Draw(t, "token"),
		}
		kind := rapid.SampledFrom(kinds).Draw(t, "kind")
		m, err := r.Render(kind, rapid.String().Draw(t, "language"), d)
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(m.Subject, "\r\n") {
			t.Fatalf("subject %q", m.Subject)
		}
		plain, err := r.Render(kind, "en", Data{Email: "x", Token: "t", IP: d.IP, UserAgent: d.UserAgent})
		if err != nil || strings.Count(m.HTML, "<") != strings.Count(plain.HTML, "<") {
			t.Fatalf("data makes elements: %s", m.HTML)
		}
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var again Message
		if err := json.Unmarshal(raw, &again); err != nil || again.Text != strings.ToValidUTF8(m.Text, "\ufffd") {
			t.Fatalf("JSON changes it: %v", err)
		}
	})
}

func TestOperatorsTemplates(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("pt_BR.tmpl", `{{define "session.create subject"}}Novo acesso{{end}}{{define "session.create body"}}De {{.IP}}{{end}}`)
	write("en.tmpl", `{{define "label.updated subject"}}Phone verified{{end}}`)
	r := renderer(t, RendererOptions{Folder: dir, DefaultLanguage: "RU", Now: func() time.Time { return time.Unix(0, 0) }})
	for _, c := range []struct{ kind, language, subject string }{
		{SessionCreated, "pt-br", "Novo acesso"},
		{SessionCreated, "PT_BR", "Novo acesso"},
		{SessionCreated, "en-GB", "New Login"},
		{SessionCreated, "EN", "New Login"},
		{SessionCreated, "", "Новый Вход"},                             // the default
		{OTPEnabled, "pt-br", "Двухфакторная Аутентификация Включена"}, // not translated
		{LabelUpdated, "en", "Phone verified"},
		{LabelCreated, "en", "Phone verified"},
	} {
		m, err := r.Render(c.kind, c.language, Data{Email: "a@b.io"})
		if err != nil || m.Subject != c.subject {
			t.Errorf("%s in %q: %q, %v", c.kind, c.language, m.Subject, err)
		}
	}
	write("layout.html", `<p>{{.Subject}}</p>`)
	m, err := renderer(t, RendererOptions{Folder: dir}).Render(LabelUpdated, "en", Data{})
	if err != nil || m.HTML != "<p>Phone verified</p>" {
		t.Errorf("%q, %v", m.HTML, err)
	}
	for name, text := range map[string]string{
		"de.tmpl": `{{define "x"}}`, "fr.tmpl": `{{define "session.create body"}}{{.Password}}{{end}}{{define "session.create subject"}}x{{end}}`,
		"layout.html": `{{.Nothing}}`,
	} {
		write(name, text)
		if _, err := NewRenderer(RendererOptions{Domain: "x.io", DefaultLanguage: "en", Folder: dir}); err == nil {
			t.Errorf("%s is accepted", name)
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := NewRenderer(RendererOptions{Domain: "x.io", Folder: filepath.Join(dir, "absent")}); err == nil {
		t.Error("an absent folder is accepted")
	}
}

func TestOfLabel(t *testing.T) {
	for _, c := range []struct {
		created           bool
		scope, key, value string
		want              string
	}{
		{true, "private", "phone", "verified", LabelCreated},
		{false, "private", "phone", "verified", LabelUpdated},
		{true, "public", "phone", "verified", ""},
		{true, "private", "email", "verified", ""},
		{true, "private", "phone", "rejected", ""},
		{true, "private", "document", "pending", ""},
		{false, "private", "document", "verified", DocumentVerified},
		{false, "private", "document", "rejected", DocumentRejected},
		{false, "private", "profile", "verified", ProfileVerified},
		{false, "private", "profile", "rejected", ProfileRejected},
		{true, "private", "profile", "submitted", ""},
		{true, "private", "profile:verified", "", ""},
	} {
		if kind, ok := OfLabel(c.created, c.scope, c.key, c.value); kind != c.want || ok != (c.want != "") {
			t.Errorf("%+v: %q %v", c, kind, ok)
		}
	}
}
