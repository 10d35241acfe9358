package pages

import (
	"html"
	"net/url"
	"strconv"
	"strings"
)

// A Refusal is what the page about a refused request says.
type Refusal struct {
	Status int
	Code   string // of the catalogue
	// Languages is the browser's Accept-Language.
	Languages string
	// Email and Role are who is signed in. Empty where that is not to be told, since the session is somebody else's.
	Email, Role string
	// Back is the address that was asked for.
	Back string
	// Portal is where the portal is: empty for the host that was asked, or an origin such as https://login.example.
	Portal string
	// RequestID is the id by which whoever runs the gateway finds the request.
	RequestID string
}

// Refusals make the pages about refused requests. A nil one makes none.
type Refusals struct {
	name    string
	head    string // of every page, from the style sheets on
	headers func() []Header
}

// NewRefusals returns the maker of pages of a service of that name, which link to the style sheets and go out under the
// headers.
func NewRefusals(name string, styles []string, headers func() []Header) *Refusals {
	var head strings.Builder
	for _, href := range styles {
		head.WriteString(`<link rel="stylesheet" href="` + html.EscapeString(href) + `">`)
	}
	return &Refusals{name: name, head: head.String(), headers: headers}
}

// Headers are those that the pages go out under, without their type.
func (r *Refusals) Headers() []Header { return r.headers() }

// Page is the page in HTML, on one line: some gateways carry it in a header.
func (r *Refusals) Page(about Refusal) string {
	language, words := speak(about.Languages)
	w := words.of(about.Code)
	esc := html.EscapeString
	var b strings.Builder
	b.WriteString(`<!doctype html><html lang="` + language + `"><head><meta charset="utf-8">` +
		`<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">` +
		`<title>` + esc(w.title) + ` · ` + esc(r.name) + `</title>` + r.head + `</head><body><main class="card"><h1>` + esc(w.title) + `</h1>` +
		`<p role="alert" data-code="` + esc(about.Code) + `">` + esc(w.text) + `</p>`)
	if about.Email != "" {
		b.WriteString(`<p>` + words.who(`<strong>`+esc(plain(about.Email))+`</strong>`, esc(plain(about.Role))) + `</p>`)
	}
	b.WriteString(`<p class="actions">`)
	link := func(class, to, text string) {
		b.WriteString(`<a` + class + ` href="` + esc(to) + `">` + esc(text) + `</a> `)
	}
	back := "?rd=" + url.QueryEscape(about.Back)
	const button = ` class="button"`
	switch w.next {
	case another:
		link(button, about.Portal+"/accounts/signout"+back, words.another)
		link("", about.Portal+"/accounts/", words.account)
	case again:
		link(button, about.Portal+"/accounts/signin"+back, words.again)
	case retry:
		link(button, about.Back, words.retry)
	default:
		link(button, about.Portal+"/accounts/", words.account)
	}
	b.WriteString(`</p><p><small class="muted"><code>` + esc(about.Code) + `</code> · ` + strconv.Itoa(about.Status) + ` · ` + esc(words.request) +
		` <code>` + esc(plain(about.RequestID)) + `</code></small></p></main></body></html>`)
	return b.String()
}

// plain drops what would end the line.
func plain(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, s)
}

// A step is what there is to do about a refusal.
type step uint8

const (
	home    step = iota // one's own account
	another             // sign in as somebody else
	again               // sign in
	retry               // the same page, later
)

type words struct {
	title, text string
	next        step
}

type language struct {
	codes                                   map[string]words // a prefix for a family of codes, "" for any other
	another, again, retry, account, request string
	who                                     func(email, role string) string // both are HTML
}

// of finds the words for a code, or for the family that it belongs to.
func (l *language) of(code string) words {
	for {
		if w, ok := l.codes[code]; ok {
			return w
		}
		code = code[:max(strings.LastIndexByte(code, '.'), 0)]
	}
}

// speak chooses the language that a browser wants most among those there are.
func speak(accept string) (string, *language) {
	best, weight := "en", -1.0
	for i, item := range strings.Split(accept[:min(len(accept), 512)], ",") {
		tag, parameters, _ := strings.Cut(item, ";")
		tag, _, _ = strings.Cut(strings.ToLower(strings.TrimSpace(tag)), "-")
		if languages[tag] == nil || i >= 32 {
			continue
		}
		q := 1.0
		if value, ok := strings.CutPrefix(strings.TrimSpace(parameters), "q="); ok {
			var err error
			if q, err = strconv.ParseFloat(value, 64); err != nil || !(q >= 0 && q <= 1) {
				continue
			}
		}
		if q > max(weight, 0) {
			best, weight = tag, q
		}
	}
	return best, languages[best]
}

var languages = map[string]*language{
	"en": {
		codes: map[string]words{
			"authz.invalid_permission": {
				"You may not open this page",
				"Your account has no permission for it. Ask whoever looks after this site for it, or sign in with an account that has it.", another,
			},
			"authz.user_not_active": {
				"Your account is closed",
				"It may not be used at present. If you think that this is a mistake, write to whoever looks after this site.", another,
			},
			"authz.client_session_mismatch": {
				"Please sign in again",
				"Your session began in another browser or in another network, and counts only there.", again,
			},
			"authz.permission_denied":    {"This address is closed", "Nobody may open it from outside, whoever they are.", home},
			"authz.restrict.maintenance": {"We will be back soon", "This site is being worked on. Try again a little later.", retry},
			"authz.restrict": {
				"Not available from where you are",
				"Whoever looks after this site does not let your network or country in. Try from another network.", retry,
			},
			"authz.access_restricted": {
				"Not available from where you are",
				"Whoever looks after this site does not let your network or country in. Try from another network.", retry,
			},
			"authz.ambiguous_path": {"This address cannot be read", "It can be understood in more than one way. Look at the link that brought you here.", home},
			"authz.unavailable":    {"Please try again in a moment", "It could not be told just now whether you may open this page. Nothing is wrong with your account.", retry},
			"":                     {"This page was refused", "Your request was not let through. Try again, and tell whoever looks after this site the code below if that does not help.", retry},
		},
		another: "Sign in as somebody else", again: "Sign in", retry: "Try again", account: "Your account", request: "Request",
		who: func(email, role string) string { return "You are signed in as " + email + " (" + role + ")." },
	},
	"ru": {
		codes: map[string]words{
			"authz.invalid_permission": {
				"Эта страница вам недоступна",
				"У вашего аккаунта нет права её открыть. Попросите его у администратора сайта или войдите под аккаунтом, у которого оно есть.", another,
			},
			"authz.user_not_active": {
				"Ваш аккаунт закрыт",
				"Сейчас им нельзя пользоваться. Если вы считаете, что это ошибка, напишите администратору сайта.", another,
			},
			"authz.client_session_mismatch": {
				"Войдите ещё раз",
				"Ваш сеанс начат в другом браузере или в другой сети и действует только там.", again,
			},
			"authz.permission_denied":    {"Этот адрес закрыт", "Снаружи его не может открыть никто.", home},
			"authz.restrict.maintenance": {"Мы скоро вернёмся", "На сайте идут работы. Попробуйте немного позже.", retry},
			"authz.restrict": {
				"Отсюда сайт недоступен",
				"Администратор сайта не пускает вашу сеть или страну. Попробуйте из другой сети.", retry,
			},
			"authz.access_restricted": {
				"Отсюда сайт недоступен",
				"Администратор сайта не пускает вашу сеть или страну. Попробуйте из другой сети.", retry,
			},
			"authz.ambiguous_path": {"Этот адрес нельзя прочесть", "Его можно понять по-разному. Проверьте ссылку, по которой вы пришли.", home},
			"authz.unavailable":    {"Попробуйте ещё раз через минуту", "Сейчас не удалось узнать, можно ли вам открыть эту страницу. С вашим аккаунтом всё в порядке.", retry},
			"":                     {"В этой странице отказано", "Запрос не пропущен. Попробуйте ещё раз, а если не поможет, сообщите администратору сайта код, который указан ниже.", retry},
		},
		another: "Войти под другим аккаунтом", again: "Войти", retry: "Попробовать ещё раз", account: "Ваш аккаунт", request: "Запрос",
		who: func(email, role string) string { return "Вы вошли как " + email + " (" + role + ")." },
	},
}
