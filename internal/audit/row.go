package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"barong/authz"
	"barong/db"
	"barong/internal/device"
	"barong/internal/header"
)

// Bounds of what is kept of one request, in bytes unless said otherwise.
const (
	maxBody   = 1 << 20   // that are read of a body
	maxParams = 500       // parameters
	maxValue  = 4 << 10   // of one parameter
	maxName   = 256       // of a parameter's name
	maxData   = 60 * 1024 // of all, as JSON
)

// row makes the activity of a decision.
func (w *Writer) row(e *authz.AuditEntry, now time.Time) db.Activity {
	p := readParams(e)
	a := db.Activity{
		UserID: e.UserID, Category: db.CategoryAdmin, UserAgent: header.View(header.UTF8(header.BytesOf(e.UserAgent))), Action: actionOf(e.Method), Topic: e.Topic,
		Result: db.ResultDenied, Count: 1, CreatedAt: now.UTC().Truncate(time.Second),
	}
	if e.Allowed {
		a.Result = db.ResultSucceed
	}
	if a.Topic == "" {
		a.Topic = topicOf(e.Path)
	}
	if target := p.target(); target != "" {
		a.TargetUID = &target
	}
	if e.Client.IsValid() {
		a.UserIP = e.Client.String()
		if country := w.o.Country(e.Client); country != "" {
			a.UserIPCountry = &country
		}
	}
	if e.RequestID != "" {
		a.RequestID = &e.RequestID
	}
	data := p.data(e)
	a.Data = &data
	return a
}

// topicOf is the segment after the first segment "admin", or "general" when there is none.
func topicOf(path string) string {
	admin := false
	for segment := range strings.SplitSeq(path, "/") {
		if admin && segment != "" {
			return segment
		}
		admin = segment == "admin"
	}
	return "general"
}

func actionOf(method string) string {
	switch method {
	case "POST":
		return "create"
	case "PUT", "PATCH":
		return "update"
	case "GET":
		return "read"
	case "DELETE":
		return "delete"
	}
	return "system"
}

// A param is a parameter as it arrived: a text, or any value of a JSON body.
type param struct {
	name  string
	value any
}

// params are a request's parameters in the order in which they arrived, those of the query first.
type params struct {
	all []param
	cut bool // there was more than is read
}

func (p *params) add(name string, value any) {
	if len(p.all) == maxParams {
		p.cut = true
		return
	}
	p.all = append(p.all, param{name, value})
}

// target is the uid that the request is about: the last parameter uid, which is the one that counts where a name is
// given twice, else the last user_uid. It is kept even if nobody has that uid.
func (p *params) target() string {
	for _, name := range [...]string{"uid", "user_uid"} {
		for _, have := range slices.Backward(p.all) {
			if have.name != name {
				continue
			}
			switch v := have.value.(type) {
			case string:
				if v != "" {
					return v
				}
			case json.Number:
				return v.String()
			}
		}
	}
	return ""
}

// readParams reads what a service behind the gateway may read: query, and form, JSON or multipart body. Nothing in it
// is an error.
func readParams(e *authz.AuditEntry) *params {
	p := new(params)
	p.form(e.Query)
	body := e.Body
	if len(body) > maxBody {
		body, p.cut = body[:maxBody], true
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return p
	}
	media, attributes, err := mime.ParseMediaType(e.ContentType)
	if err != nil {
		media = ""
	}
	before := len(p.all)
	switch first := bytes.TrimLeft(body, " \t\r\n")[0]; {
	case strings.HasPrefix(media, "multipart/"):
		p.multipart(body, attributes["boundary"])
	case media == "application/json" || strings.HasSuffix(media, "+json") || first == '{' || first == '[':
		// Gateways may pass a body on without its type: what looks like JSON is read so.
		p.json(body)
	case media == "application/x-www-form-urlencoded", media == "" && utf8.Valid(body):
		p.form(string(body))
	}
	if len(p.all) == before { // a text may hold anything, a password too, so it is not kept
		p.add("body", fmt.Sprintf("[unreadable: %d bytes]", len(e.Body)))
	}
	return p
}

func (p *params) form(text string) {
	for pair := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '&' || r == ';' }) {
		name, value, _ := strings.Cut(pair, "=")
		p.add(unescape(name), unescape(value))
	}
}

// unescape decodes a part of a form, or leaves it as it is when it cannot be decoded.
func unescape(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	return s
}

// json reads the members of an object, as far as the body goes; a list is the parameter "body".
func (p *params) json(body []byte) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if bytes.TrimLeft(body, " \t\r\n")[0] != '{' {
		var v []any
		if dec.Decode(&v) == nil {
			p.add("body", v)
		}
		return
	}
	if _, err := dec.Token(); err != nil {
		return
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			p.cut = true
			return
		}
		var v any
		if err := dec.Decode(&v); err != nil {
			p.cut = true
			p.add(fmt.Sprint(name), "[unreadable]")
			return
		}
		p.add(fmt.Sprint(name), v)
	}
	if _, err := dec.Token(); err != nil {
		p.cut = true
	}
}

// multipart reads the fields of a form; of a file, that there was one.
func (p *params) multipart(body []byte, boundary string) {
	if boundary == "" {
		return
	}
	r := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		part, err := r.NextRawPart()
		if err != nil {
			p.cut = p.cut || !bytes.Contains(body, []byte("--"+boundary+"--"))
			return
		}
		if part.FileName() != "" {
			p.add(part.FormName(), "[file]")
			continue
		}
		text, err := io.ReadAll(io.LimitReader(part, maxValue+1))
		if err != nil {
			p.cut = true
		}
		p.add(part.FormName(), string(text))
	}
}

// Names in data that are this program's own. A parameter of that name gets another.
var ownNames = []string{"path", "note", "cut", "others"}

// data is the JSON object that is kept of a request: its parameters without secrets, the checked path, and a note when
// the user agent is no known browser. A name that is given several times has a list of values.
func (p *params) data(e *authz.AuditEntry) string {
	var (
		names  []string
		values = map[string][]any{}
		cut    = p.cut
	)
	for _, have := range p.all {
		name := shorten(have.name, maxName)
		cut = cut || len(have.name) > maxName
		if slices.Contains(ownNames, name) {
			name += "_param"
		}
		if values[name] == nil {
			names = append(names, name)
		}
		values[name] = append(values[name], redact(have.name, have.value))
	}
	var out bytes.Buffer
	out.WriteByte('{')
	write := func(name string, value any) {
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		out.Write(encode(name))
		out.WriteByte(':')
		out.Write(encode(value))
	}
	for _, name := range names {
		var value any = values[name]
		if one := values[name]; len(one) == 1 {
			value = one[0]
		}
		text := encode(value)
		if len(text) > maxValue {
			s, plain := value.(string)
			if !plain {
				s = string(text)
			}
			value, cut = shorten(s, maxValue/2), true
		}
		if out.Len()+len(encode(name))+len(encode(value)) > maxData {
			cut = true
			continue // a shorter one may still fit
		}
		write(name, value)
	}
	if cut {
		write("cut", true)
	}
	write("path", shorten(e.Path, maxValue))
	if device.UnknownBrowser(e.UserAgent) {
		write("note", "Detected suspicious browser")
	}
	out.WriteByte('}')
	return out.String()
}

func encode(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // texts, numbers of valid JSON, and lists and objects of these: cannot fail
		return []byte(`"[unreadable]"`)
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

// shorten cuts a text to n bytes at a rune's edge, and says so.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
