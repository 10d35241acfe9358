package mail

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"
)

// Kinds of mails on events of other services that there are words for.
const (
	DepositUpdated     = "deposit.updated"
	WithdrawUpdated    = "withdraw.updated"
	BeneficiaryCreated = "beneficiary.created" // with the PIN that confirms it
)

var eventKinds = []string{DepositUpdated, WithdrawUpdated, BeneficiaryCreated}

// Words are what a mail on an event says in one language: Subject as it stands, Body a template. Where one is empty it is
// the block of the mail's kind.
type Words struct{ Subject, Body string }

// An EventMail is a mail on events of one kind. It is immutable.
type EventMail struct {
	r     *Renderer
	topic string
	words map[string]eventWords // by language
}

type eventWords struct {
	subject      string // as it stands, when block is nil
	subjectBlock *template.Template
	body         *template.Template
}

// functions are what templates may call beside those of text/template.
var functions = template.FuncMap{"upper": strings.ToUpper}

// Event makes a mail on events. topic is what it is counted by; kind names the blocks that stand in for words that are not
// given. Where no body is given, the mail is written in every language that has blocks. A mail without words in a language
// that is given, or in any, or with a template that fails, is an error.
func (r *Renderer) Event(topic, kind string, words map[string]Words) (*EventMail, error) {
	r = r.current()
	m := &EventMail{r: r, topic: topic, words: map[string]eventWords{}}
	blocks := true
	for _, w := range words {
		blocks = blocks && w.Body == ""
	}
	all := map[string]Words{}
	for language, t := range r.languages {
		if blocks && t.Lookup(kind+" subject") != nil && t.Lookup(kind+" body") != nil {
			all[language] = Words{}
		}
	}
	given := map[string]bool{}
	for language, w := range words {
		name := normal(language)
		if given[name] {
			return nil, fmt.Errorf("language %s: twice", name)
		}
		given[name], all[name] = true, w
	}
	for name, w := range all {
		if name == "" {
			return nil, errors.New("a language without a name")
		}
		e := eventWords{subject: oneLine(w.Subject, 200)}
		t, _ := r.pick(kind, name)
		if w.Body != "" {
			var err error
			if e.body, err = template.New(topic).Option("missingkey=error").Funcs(functions).Parse(w.Body); err != nil {
				return nil, fmt.Errorf("language %s: %w", name, err)
			}
		} else if t != nil {
			e.body = t.Lookup(kind + " body")
		}
		if e.body == nil {
			return nil, fmt.Errorf("language %s: there are no words for it", name)
		}
		if e.subject == "" && t != nil {
			e.subjectBlock = t.Lookup(kind + " subject")
		}
		if e.subject == "" && e.subjectBlock == nil {
			return nil, fmt.Errorf("language %s: there is no subject for it", name)
		}
		m.words[name] = e
	}
	if len(m.words) == 0 {
		return nil, errors.New("there are no words for it")
	}
	for _, language := range slices.Sorted(maps.Keys(m.words)) {
		if _, err := m.Render(language, Data{Email: "a@example.com"}); err != nil {
			return nil, fmt.Errorf("language %s: %w", language, err)
		}
	}
	return m, nil
}

// event is Event and its Render for a kind that has all its words in blocks.
func (r *Renderer) event(kind, language string, d Data) (Message, error) {
	t, language := r.pick(kind, language)
	if t == nil {
		return Message{}, fmt.Errorf("mail: no template of %q", kind)
	}
	return r.write(kind, d.Email, r.view(language, d), t.Lookup(kind+" subject"), t.Lookup(kind+" body"), nil)
}

// Render writes the mail in a language, or in one that is nearest to it: the language before the hyphen, the default,
// English, the first by name.
func (m *EventMail) Render(language string, d Data) (Message, error) {
	language = normal(language)
	short, _, _ := strings.Cut(language, "-")
	all := slices.Sorted(maps.Keys(m.words))
	for _, l := range append([]string{language, short, m.r.o.DefaultLanguage, "en"}, all...) {
		if w, ok := m.words[l]; ok {
			v := m.r.view(l, d)
			v.Subject = w.subject
			return m.r.write(m.topic, d.Email, v, w.subjectBlock, w.body, nil)
		}
	}
	return Message{}, fmt.Errorf("mail: no words of %q", m.topic)
}

// Record is a value of the event's record, by its path: "amount", "user.uid". It is empty where there is none.
func (v view) Record(path string) string { return value(v.event, "record."+path) }

// Changes is a value that was changed, as it was before.
func (v view) Changes(path string) string { return value(v.event, "changes."+path) }

// User is something of the reader's account: uid, role, level, state, language.
func (v view) User(name string) string { return oneLine(v.user[name], maxValue) }

// maxValue is how much of one value of an event a mail may hold, in bytes.
const maxValue = 200

// value is a text, number or truth in decoded JSON, as text.
func value(in map[string]any, path string) string {
	switch v := At(in, path).(type) {
	case string:
		return oneLine(v, maxValue)
	case json.Number:
		return oneLine(v.String(), maxValue)
	case float64, bool:
		return oneLine(fmt.Sprint(v), maxValue)
	}
	return ""
}

// At is what stands in decoded JSON at a path of names with dots between, nil where there is nothing.
func At(in map[string]any, path string) any {
	var v any = in
	for name := range strings.SplitSeq(path, ".") {
		members, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = members[name]
	}
	return v
}
