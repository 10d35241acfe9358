package rest

import (
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
		if err != nil || params["boundary"] == "" {
			return nil, errMalformed.Because(err)
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
	if len(rc.Request.Body()) == 0 {
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
	members, ok := top.(map[string]any)
	if !ok {
		return errMalformed // the original took an array or a scalar for "no parameters" and hid the caller's mistake
	}
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
		return value{kind: text, text: v.String()}
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
			codes = append(codes, r.oneOfCode(given))
			required = required || len(given) == 0
		}
	}
	return codes, required
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
	case String, Integer, Boolean, Date:
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
		return validDate(v.text)
	case String, Files, Any, JSON, Object:
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

// validDate accepts a calendar date as YYYY-MM-DD and nothing else, but that the year may be one beyond 9999: whether
// that is sensible is for the handler to say.
func validDate(s string) bool {
	year, day, _ := strings.Cut(s, "-")
	if n, err := strconv.ParseUint(year, 10, 32); err == nil && len(year) > 4 && year[0] != '0' {
		s = strconv.FormatUint(2000+n%400, 10) + "-" + day // the calendar is the same every 400 years
	}
	_, err := time.Parse(time.DateOnly, s)
	return err == nil
}
