package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"barong/internal/fault"

	"github.com/valyala/fasthttp"
	"golang.org/x/text/unicode/norm"
)

// Bounds of what a stranger may send in one request.
const (
	maxParams    = 256
	maxFiles     = 32
	maxNameBytes = 256
	maxJSONDepth = 32
)

type kind uint8

const (
	absent kind = iota
	null
	text
	list
	object
	files
)

// A value is one parameter as it arrived.
type value struct {
	kind  kind
	text  string
	items []string // texts of a list; a list of anything else has other set
	other bool
	array []any // the list when other is set
	raw   map[string]any
	files []*multipart.FileHeader
	query bool // it stood in the query
	// number says that text is a JSON number, which has lost the zeros it began with.
	number bool
}

type args map[string]value

var errMalformed = fault.New(fault.MalformedBody)

// readArgs merges query, body and path parameters. Malformed input is a 400 of the catalogue, an unknown content type
// the 415 of the original.
func readArgs(rc *fasthttp.RequestCtx, path map[string]string, limit int) (args, *multipart.Form, error) {
	out := args{}
	if err := readPairs(out, string(rc.URI().QueryString())); err != nil {
		return nil, nil, err
	}
	for k, v := range out {
		v.query = true
		out[k] = v
	}
	var form *multipart.Form
	switch string(rc.Method()) {
	case "POST", "PUT", "PATCH", "DELETE":
		body := args{}
		var err error
		if form, err = readBody(rc, body, limit); err != nil {
			return nil, form, err
		}
		for k, v := range body {
			out[k] = v
		}
	}
	for k, v := range path {
		out[k] = value{kind: text, text: v}
	}
	if len(out) > maxParams {
		return nil, form, errMalformed
	}
	return out, form, nil
}

// readBody reads a body of at most limit bytes. The form of a multipart body, if one comes back, is to be removed.
func readBody(rc *fasthttp.RequestCtx, out args, limit int) (*multipart.Form, error) {
	ctype := string(rc.Request.Header.ContentType())
	if isMultipart(rc) {
		_, params, err := mime.ParseMediaType(ctype)
		if err != nil {
			params = nil // it does no harm where there is nothing to read
		}
		form, err := readForm(rc, params["boundary"], limit)
		if err != nil {
			return nil, err
		}
		return form, readMultipart(out, form)
	}
	if err := readLimited(rc, limit); err != nil {
		return nil, err
	}
	return nil, readPlain(rc, out, ctype)
}

func readPlain(rc *fasthttp.RequestCtx, out args, ctype string) error {
	if len(bytes.TrimSpace(rc.Request.Body())) == 0 {
		return nil
	}
	// Parameters say nothing that matters here, so odd ones do no harm.
	media := strings.ToLower(ctype)
	if i := strings.IndexAny(media, ";,"); i >= 0 {
		media = media[:i]
	}
	switch media = strings.TrimSpace(media); {
	case ctype == "", media == "application/json":
		return readJSON(out, rc.Request.Body())
	case media == "application/x-www-form-urlencoded":
		return readPairs(out, string(rc.Request.Body()))
	}
	return fault.Plain(415, "The provided content-type '"+printable(media)+"' is not supported.")
}

// printable cuts what an answer repeats of the caller's text.
func printable(s string) string {
	if len(s) > 100 {
		s = s[:100]
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
}

func readPairs(out args, encoded string) error {
	if strings.Count(encoded, "&") >= maxParams {
		return errMalformed
	}
	for encoded != "" {
		var pair string
		pair, encoded, _ = strings.Cut(encoded, "&")
		if pair == "" {
			continue
		}
		k, v, hasValue := strings.Cut(pair, "=")
		key, err1 := url.QueryUnescape(k)
		val, err2 := url.QueryUnescape(v)
		if err1 != nil || err2 != nil || !clean(key) || !clean(val) {
			return errMalformed
		}
		if err := put(out, key, value{kind: text, text: val}, hasValue); err != nil {
			return err
		}
	}
	return nil
}

// clean refuses what no text column takes: invalid UTF-8 and NUL.
func clean(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// put stores one form field: "a" a scalar, "a[]" an item of a list, "a[b]" a member of an object. A bare name without
// "=" is null.
func put(out args, key string, v value, hasValue bool) error {
	if len(key) > maxNameBytes {
		return errMalformed
	}
	if !hasValue && v.kind == text {
		v = value{kind: null}
	}
	name, rest, nested := strings.Cut(key, "[")
	if !nested || name == "" {
		out[key] = v
		return nil
	}
	have := out[name]
	switch {
	case rest == "]" && v.kind == files:
		have.kind, have.files = files, append(have.files, v.files...)
	case rest == "]":
		have.kind, have.items = list, append(have.items, v.text)
	default:
		inner, _, _ := strings.Cut(rest, "]")
		if have.raw == nil {
			have.raw = map[string]any{}
		}
		have.kind, have.raw[inner] = object, v.text
	}
	out[name] = have
	return nil
}

func readJSON(out args, body []byte) error {
	if !utf8.Valid(body) || tooDeep(body) {
		return errMalformed
	}
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.UseNumber()
	var top any
	if err := dec.Decode(&top); err != nil {
		return errMalformed.Because(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errMalformed
	}
	members, _ := top.(map[string]any) // clients send null, a list or a scalar where they have no parameters
	for k, v := range members {
		got := jsonValue(v)
		if len(k) > maxNameBytes || !clean(k) || !clean(got.text) || slices.ContainsFunc(got.items, func(s string) bool { return !clean(s) }) {
			return errMalformed
		}
		out[k] = got
	}
	return nil
}

// tooDeep reports nesting that only an attack has. Brackets inside strings count too, which is generous enough.
func tooDeep(body []byte) bool {
	depth, inString := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > maxJSONDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

func jsonValue(v any) value {
	switch v := v.(type) {
	case nil:
		return value{kind: null}
	case string:
		return value{kind: text, text: v}
	case json.Number:
		return value{kind: text, text: v.String(), number: true}
	case bool:
		return value{kind: text, text: strconv.FormatBool(v)}
	case []any:
		out := value{kind: list}
		for _, item := range v {
			if got := jsonValue(item); got.kind == text {
				out.items = append(out.items, got.text)
			} else {
				out.other, out.array = true, v
			}
		}
		return out
	case map[string]any:
		return value{kind: object, raw: v}
	}
	return value{kind: object}
}

func readMultipart(out args, form *multipart.Form) error {
	n := 0
	for key, values := range form.Value {
		if n += len(values); n > maxParams || !clean(key) {
			return errMalformed
		}
		for _, v := range values {
			if !clean(v) {
				return errMalformed
			}
			if err := put(out, key, value{kind: text, text: v}, true); err != nil {
				return err
			}
		}
	}
	for key, headers := range form.File {
		if n += len(headers); n > maxFiles+maxParams || len(headers) > maxFiles || !clean(key) {
			return errMalformed
		}
		if err := put(out, key, value{kind: files, files: headers}, true); err != nil {
			return err
		}
	}
	return nil
}

func blank(v value) bool {
	switch v.kind {
	case absent, null:
		return true
	case text:
		return strings.TrimSpace(v.text) == ""
	case list:
		return len(v.items) == 0 && !v.other
	case object:
		return len(v.raw) == 0
	case files:
	}
	return false
}

// validate applies the route's rules. required reports that a missing or blank required parameter is among the faults.
func (r *Route) validate(a args) (codes []fault.Code, required bool) {
	for i := range r.Params {
		p := &r.Params[i]
		v := a[p.Name]
		if p.Secret && v.query {
			delete(a, p.Name)
			v = value{}
		}
		if v.kind != absent {
			if v = p.normal(v); v.kind == absent {
				delete(a, p.Name)
			} else {
				a[p.Name] = v
			}
		}
		first := len(codes)
		add := func(c fault.Code) { // a code is listed once a parameter
			if !slices.Contains(codes[first:], c) {
				codes = append(codes, c)
			}
		}
		if !p.Required && p.Default != "" && (v.kind == absent || v.kind == null) {
			a[p.Name] = value{kind: text, text: p.Default}
			continue
		}
		if v.kind == absent && !p.Required {
			continue
		}
		bad := v.kind != absent && !p.fits(v)
		empty := p.NotBlank && blank(v)
		outside := p.bounded() && (v.kind != null || p.Required) && !p.allows(v, bad)
		required = required || v.kind == absent || empty && p.Required
		if v.kind == absent {
			add(r.MissingCode(p))
		}
		if bad {
			add(r.TypeCode(p))
		}
		if outside && p.ValueFirst {
			add(r.ValueCode(p))
		}
		if empty {
			add(r.EmptyCode(p))
		}
		if outside {
			add(r.ValueCode(p))
		}
	}
	if len(r.OneOf) > 0 {
		var given []string
		for _, name := range r.OneOf {
			if a[name].kind != absent {
				given = append(given, name)
			}
		}
		if len(given) != 1 {
			codes = append(codes, r.style().oneOf(r, given))
			required = required || len(given) == 0
		}
	}
	return codes, required
}

// normal is a value in the one form that handlers read.
func (p *Param) normal(v value) value {
	switch p.Type {
	case Date:
		if day, ok := Day(v.text); ok && v.kind == text {
			v.text = day
		}
	case Code:
		if v.kind == text {
			v.text = normalCode(v.text, v.number)
		}
	case JSONText:
		if v.kind == object {
			if encoded, err := v.encode(); err == nil {
				v = value{kind: text, text: string(encoded), query: v.query}
			}
		}
	case Files:
		return withoutEmptyParts(v)
	case String, Integer, Boolean, Any, JSON, Object:
	}
	return v
}

// withoutEmptyParts leaves out what a browser sends for a file input in which nothing was chosen: a part without name and
// bytes.
func withoutEmptyParts(v value) value {
	switch {
	case v.kind == text && v.text == "":
		return value{}
	case len(v.items) == 0:
		return v
	}
	items := slices.DeleteFunc(slices.Clone(v.items), func(s string) bool { return s == "" })
	if len(items) == 0 && len(v.files) == 0 && !v.other {
		return value{}
	}
	v.items = items
	return v
}

// codeDigits is how many digits the codes of authenticator apps and of messages have.
const codeDigits = 6

// maxCode is the longest text that is looked at as a code, in bytes.
const maxCode = 256

// normalCode is a code as it was made, of one that was copied from a screen or a message: in plain letters and digits,
// without what stands between its groups and around it. A number has lost the zeros it began with.
func normalCode(s string, number bool) string {
	if number {
		if len(s) < codeDigits && strings.Trim(s, "0123456789") == "" {
			return strings.Repeat("0", codeDigits-len(s)) + s
		}
		return s
	}
	if len(s) > maxCode {
		return s
	}
	const minus = '\u2212'
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.In(r, unicode.Pd, unicode.Cf) || r == minus { // Cf: zero-width characters
			return -1
		}
		return r
	}, norm.NFKC.String(s))
}

// encode is the JSON text of a list or an object.
func (v value) encode() ([]byte, error) {
	var from any
	switch {
	case v.kind == object:
		from = v.raw
	case v.other:
		from = v.array
	default:
		from = v.items
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(from); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func (p *Param) fits(v value) bool {
	if v.kind == null {
		return true
	}
	switch p.Type {
	case Any:
		return v.kind == text || v.kind == object
	case Files:
		return v.kind == files || v.kind == list || v.kind == text
	case JSON:
		return v.kind != files
	case Object:
		return v.kind == object
	case String, Integer, Boolean, Date, Code, JSONText:
	}
	if v.kind != text {
		return false
	}
	if v.text == "" {
		return true // blank fits every type; whether it may be blank is NotBlank's question
	}
	switch p.Type {
	case Integer:
		_, ok := parseInt(v.text)
		return ok
	case Boolean:
		_, ok := parseBool(v.text)
		return ok
	case Date:
		_, ok := Day(v.text)
		return ok
	case String, Code, JSONText, Files, Any, JSON, Object:
	}
	return true
}

func (p *Param) allows(v value, badType bool) bool {
	if len(p.Values) > 0 {
		if v.kind == list && !v.other {
			return len(v.items) > 0 && !slices.ContainsFunc(v.items, func(s string) bool { return !slices.Contains(p.Values, s) })
		}
		return v.kind == text && slices.Contains(p.Values, v.text)
	}
	if badType {
		return false
	}
	n, ok := parseInt(v.text)
	return ok && n >= p.Min && n <= p.Max
}

func parseInt(s string) (int64, bool) {
	if s == "" || len(s) > 20 {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

func parseBool(s string) (v, ok bool) {
	switch s {
	case "1", "on", "On", "ON", "t", "T", "true", "True", "TRUE", "y", "Y", "yes", "Yes", "YES":
		return true, true
	case "0", "off", "Off", "OFF", "f", "F", "false", "False", "FALSE", "n", "N", "no", "No", "NO":
		return false, true
	}
	return false, false
}

// Day reads a calendar date in the forms that people and front ends write: YYYY-MM-DD, YYYY/MM/DD, and day first
// DD/MM/YYYY, DD-MM-YYYY, DD.MM.YYYY. It returns YYYY-MM-DD. The year may be one beyond 9999: whether that is sensible is
// for the handler to say.
func Day(text string) (date string, ok bool) {
	text = strings.TrimSpace(text)
	i := strings.IndexAny(text, "-/.")
	if i < 0 {
		return "", false
	}
	parts := strings.Split(text, text[i:i+1])
	if len(parts) != 3 {
		return "", false
	}
	year, month, day := parts[0], parts[1], parts[2]
	if len(day) >= 4 {
		year, day = day, year
	} else if text[i] == '.' {
		return "", false
	}
	n, err := strconv.ParseUint(year, 10, 32)
	if err != nil || len(year) < 4 || len(year) > 4 && year[0] == '0' {
		return "", false
	}
	date = year + "-" + month + "-" + day
	probe := date
	if len(year) > 4 { // the calendar is the same every 400 years
		probe = strconv.FormatUint(2000+n%400, 10) + "-" + month + "-" + day
	}
	_, err = time.Parse(time.DateOnly, probe)
	return date, err == nil
}
