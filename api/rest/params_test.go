package rest

import (
	"bytes"
	"errors"
	"maps"
	"mime/multipart"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/valyala/fasthttp"
	"pgregory.net/rapid"

	"barong/internal/fault"
)

// request makes a context as a POST with this query, content type and body would.
func request(query, contentType, body string) *fasthttp.RequestCtx {
	rc := new(fasthttp.RequestCtx)
	rc.Request.Header.SetMethod("POST")
	rc.Request.SetRequestURI("/x")
	rc.Request.URI().SetQueryString(query)
	if contentType != "" {
		rc.Request.Header.SetContentType(contentType)
	}
	rc.Request.SetBodyString(body)
	return rc
}

func status(err error) int {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Status
	}
	return 0
}

const (
	jsonType = "application/json"
	formType = "application/x-www-form-urlencoded"
)

func TestReadArgs(t *testing.T) {
	str := func(s string) value { return value{kind: text, text: s} }
	num := func(s string) value { return value{kind: text, text: s, number: true} }
	items := func(s ...string) value { return value{kind: list, items: s} }
	for _, c := range []struct {
		name, query, contentType, body string
		want                           args
	}{
		{"nothing", "", "", "", args{}},
		{"query", "a=1&b=x+y%20z", "", "", args{"a": str("1"), "b": str("x y z")}},
		{"empty pairs", "&&a=1&", "", "", args{"a": str("1")}},
		{"bare name is null, empty is text", "a&b=", "", "", args{"a": {kind: null}, "b": str("")}},
		{"the last of a name counts", "a=1&a=2", "", "", args{"a": str("2")}},
		{"list", "a[]=1&a[]=2", "", "", args{"a": items("1", "2")}},
		{"member", "a[b]=1&a[c]=2", "", "", args{"a": {kind: object, raw: map[string]any{"b": "1", "c": "2"}}}},
		{"form", "", formType, "a=1&b=%C3%A9", args{"a": str("1"), "b": str("é")}},
		{"form with parameters of the type", "", formType + "; charset=utf-8", "a=1", args{"a": str("1")}},
		{"body wins over query", "a=q&b=q", formType, "a=f", args{"a": str("f"), "b": str("q")}},
		{"no type is JSON", "", "", `{"a":"b"}`, args{"a": str("b")}},
		{"JSON with odd parameters", "", "Application/JSON ; charset=utf-8; charset", `{"a":"x"}`, args{"a": str("x")}},
		{"form with the same parameter twice", "", formType + ";charset=utf-8;charset=utf-8", "a=x", args{"a": str("x")}},
		{"JSON scalars are text", "", jsonType, `{"a":5,"b":1.50,"c":true,"d":null,"e":"x"}`, args{
			"a": num("5"), "b": num("1.50"), "c": str("true"), "d": {kind: null}, "e": str("x"),
		}},
		{"JSON list", "", jsonType + "; charset=utf-8", `{"a":["x",5],"b":[]}`, args{"a": items("x", "5"), "b": {kind: list}}},
		{"JSON list of objects", "", jsonType, `{"a":[{}]}`, args{"a": {kind: list, other: true, array: []any{map[string]any{}}}}},
		{"JSON object", "", jsonType, `{"a":{"b":"c"}}`, args{"a": {kind: object, raw: map[string]any{"b": "c"}}}},
		{"unknown type without a body", "a=1", "text/plain", "", args{"a": str("1")}},
		{"unknown type and white space", "a=1", "text/plain", " \n", args{"a": str("1")}},
		{"JSON null", "a=1", jsonType, `null`, args{"a": str("1")}},
		{"JSON null without a type", "", "", " null\n", args{}},
		{"JSON empty list", "a=1", jsonType, ` [ ] `, args{"a": str("1")}},
		{"JSON list of something", "a=1", jsonType, `[1, null, {"b": 2}]`, args{"a": str("1")}},
		{"JSON number", "", jsonType, `5`, args{}},
		{"JSON text", "", jsonType, `"a"`, args{}},
		{"JSON boolean", "", jsonType, `false`, args{}},
		{"JSON white space", "a=1", jsonType, " \t\r\n", args{"a": str("1")}},
		{"form of white space", "", formType, "\r\n", args{}},
		{"multipart without a byte", "a=1", "multipart/form-data; boundary=x", "", args{"a": str("1")}},
		{"multipart without byte and boundary", "", "multipart/form-data", "", args{}},
		{"multipart without a part", "a=1", "multipart/form-data; boundary=x", "--x--\r\n", args{"a": str("1")}},
		{"multipart without part and line end", "", "multipart/form-data; boundary=x", "--x--", args{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _, err := readArgs(request(c.query, c.contentType, c.body), nil, 1000)
			for k, v := range got {
				v.query = false // its effect is that of Param.Secret
				got[k] = v
			}
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
	got, _, err := readArgs(request("id=q", formType, "id=f"), map[string]string{"id": "p"}, 1000)
	if err != nil || got["id"].text != "p" {
		t.Errorf("path: got %+v, %v", got, err)
	}
}

func TestReadArgsRefuses(t *testing.T) {
	many := strings.Repeat("a&", maxParams+1)
	for _, c := range []struct {
		name, query, contentType, body string
		want                           int
	}{
		{"bad escape in query", "a=%zz", "", "", 400},
		{"bad escape in name", "%=1", "", "", 400},
		{"invalid UTF-8 in query", "a=%ff", "", "", 400},
		{"NUL in query", "a=%00", "", "", 400},
		{"NUL in name", "a%00=1", "", "", 400},
		{"too many in query", many, "", "", 400},
		{"too many in form", "", formType, many, 400},
		{"long name", strings.Repeat("a", maxNameBytes+1) + "=1", "", "", 400},
		{"bad escape in form", "", formType, "a=%", 400},
		{"malformed JSON", "", jsonType, `{"a":`, 400},
		{"urlencoded without a type", "", "", "a=1", 400},
		{"JSON array and more", "", jsonType, `[1] [1]`, 400},
		{"JSON array without an end", "", jsonType, `[1`, 400},
		{"JSON null and more", "", jsonType, `null null`, 400},
		{"no JSON word", "", jsonType, `nil`, 400},
		{"two JSON values", "", jsonType, `{} {}`, 400},
		{"trailing garbage", "", jsonType, `{}x`, 400},
		{"NUL in JSON", "", jsonType, `{"a":"\u0000"}`, 400},
		{"NUL in a JSON list", "", jsonType, `{"a":["\u0000"]}`, 400},
		{"NUL in a JSON name", "", jsonType, `{"\u0000":1}`, 400},
		{"invalid UTF-8 in JSON", "", jsonType, "{\"a\":\"\xff\"}", 400},
		{"deep JSON", "", jsonType, `{"a":` + strings.Repeat("[", maxJSONDepth) + strings.Repeat("]", maxJSONDepth) + `}`, 400},
		{"too large", "", formType, "a=" + strings.Repeat("b", 1000), 413},
		{"other type", "", "text/plain", "x", 415},
		{"XML", "", "application/xml", "<x/>", 415},
		{"nonsense type", "", "a b c", "x", 415},
		{"multipart without a boundary", "", "multipart/form-data", "x", 400},
		{"multipart that is none", "", "multipart/form-data; boundary=x", "x", 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := readArgs(request(c.query, c.contentType, c.body), nil, 1000)
			if status(err) != c.want {
				t.Errorf("got %v, want %d", err, c.want)
			}
		})
	}
	_, _, err := readArgs(request("", "Text/Plain; charset=utf-8", "x"), nil, 1000)
	if f := fault.As(err); f.Text != "The provided content-type 'text/plain' is not supported." {
		t.Errorf("415: %q", f.Text)
	}
	_, _, err = readArgs(request("", "text/x\x7fé", "x"), nil, 1000)
	if f := fault.As(err); f.Status != 415 || !utf8.ValidString(f.Text) || strings.ContainsRune(f.Text, 0x7f) {
		t.Errorf("what a 415 repeats is not printable: %q", f.Text)
	}
}

func multipartBody(t testing.TB, fill func(w *multipart.Writer)) (contentType, body string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	fill(w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), b.String()
}

func TestReadMultipart(t *testing.T) {
	contentType, body := multipartBody(t, func(w *multipart.Writer) {
		for _, f := range [][2]string{{"a", "1"}, {"l[]", "x"}, {"l[]", "y"}, {"mixed[]", "z"}} {
			if err := w.WriteField(f[0], f[1]); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"one.png", "two.png"} {
			part, err := w.CreateFormFile("upload[]", name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := part.Write([]byte(name)); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"single", "mixed[]"} {
			if _, err := w.CreateFormFile(name, "three.png"); err != nil {
				t.Fatal(err)
			}
		}
	})
	rc := request("", strings.Replace(contentType, "multipart/form-data", "Multipart/Form-Data", 1), body)
	got, form, err := readArgs(rc, nil, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	defer form.RemoveAll()
	c := &Call{args: got}
	if c.String("a") != "1" || !slices.Equal(got["l"].items, []string{"x", "y"}) {
		t.Errorf("fields: %+v", got)
	}
	uploads, n := c.Files("upload")
	if n != 2 || len(uploads) != 2 || uploads[0].Filename != "one.png" || uploads[1].Filename != "two.png" {
		t.Errorf("files: %v of %d", uploads, n)
	}
	for name, want := range map[string][2]int{"single": {1, 1}, "a": {0, 1}, "l": {0, 2}, "mixed": {1, 2}, "absent": {0, 0}} {
		if files, n := c.Files(name); len(files) != want[0] || n != want[1] {
			t.Errorf("%s: %d files of %d, want %v", name, len(files), n, want)
		}
	}
	if _, _, err := readArgs(request("", contentType, body), nil, len(body)-1); status(err) != 413 {
		t.Errorf("one byte too long: %v", err)
	}
	many, long := multipartBody(t, func(w *multipart.Writer) {
		for range maxFiles + 1 {
			if _, err := w.CreateFormFile("f[]", "x"); err != nil {
				t.Fatal(err)
			}
		}
	})
	if _, _, err := readArgs(request("", many, long), nil, 1_000_000); status(err) != 400 {
		t.Errorf("too many files: %v", err)
	}
	nul, bad := multipartBody(t, func(w *multipart.Writer) { _ = w.WriteField("a", "\x00") })
	if _, _, err := readArgs(request("", nul, bad), nil, 1_000_000); status(err) != 400 {
		t.Errorf("NUL: %v", err)
	}
}

func TestValidate(t *testing.T) {
	r := &Route{Prefix: "p", Params: []Param{
		{Name: "a", Required: true, NotBlank: true},
		{Name: "b", NotBlank: true},
		{Name: "n", Type: Integer, Min: 1, Max: 9, BadType: "int_n", BadValue: "range_n"},
		{Name: "v", Values: []string{"x", "y"}},
		{Name: "f", Type: Boolean},
		{Name: "d", Type: Date},
		{Name: "o", Type: Any},
		{Name: "u", Type: Files},
		{Name: "j", Type: JSONText, NotBlank: true},
		{Name: "c", Type: Code, NotBlank: true},
	}}
	bounded := &Route{Prefix: "p", Params: []Param{{Name: "v", Required: true, NotBlank: true, Values: []string{"x"}}}}
	valueFirst := &Route{Prefix: "p", Params: []Param{
		{Name: "v", Required: true, NotBlank: true, Values: []string{"x"}, ValueFirst: true},
		{Name: "j", Type: JSON, NotBlank: true},
	}}
	same := &Route{Prefix: "p", Params: []Param{{Name: "n", Type: Integer, Min: 1, Max: 2, BadType: "one", BadValue: "one"}}}
	standard := &Route{Prefix: "p", Params: []Param{{Name: "c", Values: []string{"sms", "call"}, Default: "sms"}}}
	either := &Route{Prefix: "p", OneOf: []string{"a", "b"}, OneOfCode: "one_of", Params: []Param{{Name: "a"}, {Name: "b"}}}
	for _, c := range []struct {
		name     string
		r        *Route
		json     string
		want     []fault.Code
		required bool
	}{
		{"right", r, `{"a":"x"}`, nil, false},
		{"absent", r, `{}`, []fault.Code{"p.missing_a", "p.empty_a"}, true},
		{"null", r, `{"a":null}`, []fault.Code{"p.empty_a"}, true},
		{"white space", r, `{"a":" \t"}`, []fault.Code{"p.empty_a"}, true},
		{"number for a text", r, `{"a":5}`, nil, false},
		{"list for a text", r, `{"a":["x"]}`, []fault.Code{"invalid"}, false},
		{"empty list: type before blank", r, `{"a":[]}`, []fault.Code{"invalid", "p.empty_a"}, true},
		{"empty object", r, `{"a":{}}`, []fault.Code{"invalid", "p.empty_a"}, true},
		{"blank optional", r, `{"a":"x","b":""}`, []fault.Code{"p.empty_b"}, false},
		{"in order of declaration", r, `{"d":"x","n":"x","a":["x"]}`, []fault.Code{"invalid", "int_n", "range_n", "invalid"}, false},
		{"number in range", r, `{"a":"x","n":9}`, nil, false},
		{"signed number", r, `{"a":"x","n":"+9"}`, nil, false},
		{"number out of range", r, `{"a":"x","n":"10"}`, []fault.Code{"range_n"}, false},
		{"fraction", r, `{"a":"x","n":1.5}`, []fault.Code{"int_n", "range_n"}, false},
		{"number beyond 64 bits", r, `{"a":"x","n":99999999999999999999}`, []fault.Code{"int_n", "range_n"}, false},
		{"empty number", r, `{"a":"x","n":""}`, []fault.Code{"range_n"}, false},
		{"null number", r, `{"a":"x","n":null}`, nil, false},
		{"allowed value", r, `{"a":"x","v":"y"}`, nil, false},
		{"other value", r, `{"a":"x","v":"z"}`, []fault.Code{"value"}, false},
		{"case counts", r, `{"a":"x","v":"X"}`, []fault.Code{"value"}, false},
		{"boolean", r, `{"a":"x","f":"Yes"}`, nil, false},
		{"no boolean", r, `{"a":"x","f":"yEs"}`, []fault.Code{"invalid"}, false},
		{"date", r, `{"a":"x","d":"2000-02-29"}`, nil, false},
		{"no such day", r, `{"a":"x","d":"2001-02-29"}`, []fault.Code{"invalid"}, false},
		{"late year", r, `{"a":"x","d":"12000-02-29"}`, nil, false},
		{"no such day in a late year", r, `{"a":"x","d":"12001-02-29"}`, []fault.Code{"invalid"}, false},
		{"zeros before a year", r, `{"a":"x","d":"02000-02-28"}`, []fault.Code{"invalid"}, false},
		{"signed year", r, `{"a":"x","d":"+12000-02-28"}`, []fault.Code{"invalid"}, false},
		{"day first", r, `{"a":"x","d":"02-01-2000"}`, nil, false},
		{"no such day, day first", r, `{"a":"x","d":"29/02/2001"}`, []fault.Code{"invalid"}, false},
		{"list for a date", r, `{"a":"x","d":["02-01-2000"]}`, []fault.Code{"invalid"}, false},
		{"JSON text", r, `{"a":"x","j":"{\"k\":1}"}`, nil, false},
		{"object for JSON text", r, `{"a":"x","j":{"k":1}}`, nil, false},
		{"empty object for JSON text", r, `{"a":"x","j":{}}`, nil, false},
		{"list for JSON text", r, `{"a":"x","j":[1]}`, []fault.Code{"invalid"}, false},
		{"blank JSON text", r, `{"a":"x","j":" "}`, []fault.Code{"p.empty_j"}, false},
		{"code of nothing but dashes", r, `{"a":"x","c":" - - "}`, []fault.Code{"p.empty_c"}, false},
		{"object for a code", r, `{"a":"x","c":{"k":1}}`, []fault.Code{"invalid"}, false},
		{"object where any may stand", r, `{"a":"x","o":{"k":1}}`, nil, false},
		{"list where any may stand", r, `{"a":"x","o":["k"]}`, []fault.Code{"invalid"}, false},
		{"object for files", r, `{"a":"x","u":{}}`, []fault.Code{"invalid"}, false},
		{"absent and bounded", bounded, `{}`, []fault.Code{"p.missing_v", "p.empty_v", "value"}, true},
		{"null and bounded", bounded, `{"v":null}`, []fault.Code{"p.empty_v", "value"}, true},
		{"value before blank", valueFirst, `{"v":""}`, []fault.Code{"value", "p.empty_v"}, true},
		{"absent, value before blank", valueFirst, `{}`, []fault.Code{"p.missing_v", "value", "p.empty_v"}, true},
		{"type, value before blank", valueFirst, `{"v":[]}`, []fault.Code{"invalid", "value", "p.empty_v"}, true},
		{"any JSON", valueFirst, `{"v":"x","j":[{"k":1}]}`, nil, false},
		{"no JSON to speak of", valueFirst, `{"v":"x","j":[]}`, []fault.Code{"p.empty_j"}, false},
		{"a code once a parameter", same, `{"n":"x"}`, []fault.Code{"one"}, false},
		{"one of", either, `{"a":"x"}`, nil, false},
		{"both of", either, `{"a":"x","b":"y"}`, []fault.Code{"one_of"}, false},
		{"none of", either, `{}`, []fault.Code{"one_of"}, true},
		{"null where there is a default", standard, `{"c":null}`, nil, false},
		{"blank is no default", standard, `{"c":""}`, []fault.Code{"value"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := args{}
			if err := readJSON(a, []byte(c.json)); err != nil {
				t.Fatal(err)
			}
			codes, required := c.r.validate(a)
			if !slices.Equal(codes, c.want) || required != c.required {
				t.Errorf("got %q %v, want %q %v", codes, required, c.want, c.required)
			}
			if c.r == standard && len(c.want) == 0 && a["c"].text != "sms" {
				t.Errorf("default %+v", a["c"])
			}
		})
	}
}

// TestNormal: handlers read dates, codes and JSON texts in one form, whatever was sent.
func TestNormal(t *testing.T) {
	r := &Route{Prefix: "p", Params: []Param{{Name: "d", Type: Date}, {Name: "c", Type: Code}, {Name: "j", Type: JSONText}, {Name: "s"}}}
	for _, c := range []struct{ name, json, want string }{
		{"d", `"1990-02-28"`, "1990-02-28"},
		{"d", `"1990/02/28"`, "1990-02-28"},
		{"d", `"28/02/1990"`, "1990-02-28"},
		{"d", `"28-02-1990"`, "1990-02-28"},
		{"d", `"28.02.1990"`, "1990-02-28"},
		{"d", `" 28.02.1990\n"`, "1990-02-28"},
		{"d", `"31/12/12030"`, "12030-12-31"},
		{"d", `"29/02/2000"`, "2000-02-29"},
		{"c", `"123456"`, "123456"},
		{"c", `"595 886"`, "595886"},
		{"c", `"595-886\n"`, "595886"},
		{"c", `"\u200b595\u2013886\u00a0\ufeff"`, "595886"},
		{"c", `"１２３４５６"`, "123456"},
		{"c", `123456`, "123456"},
		{"c", `12345`, "012345"},
		{"c", `0`, "000000"},
		{"c", `"12345"`, "12345"}, // a text has lost nothing
		{"c", `-1234`, "-1234"},
		{"c", `1e5`, "1e5"},
		{"c", `1.5`, "1.5"},
		{"c", `"ABCD-efgh-2345-abcd"`, "ABCDefgh2345abcd"},
		{"c", `"٥٩٥٨٨٦"`, "٥٩٥٨٨٦"},
		{"c", `"` + strings.Repeat("1 ", maxCode) + `"`, strings.Repeat("1 ", maxCode)},
		{"j", `"{\"b\": 1}"`, `{"b": 1}`},
		{"j", `{"b":1.50,"a":["<é>",null,{}]}`, `{"a":["<é>",null,{}],"b":1.50}`},
		{"j", `{}`, `{}`},
		{"s", `" 28/02/1990 "`, " 28/02/1990 "},
	} {
		a := args{}
		if err := readJSON(a, []byte(`{"`+c.name+`":`+c.json+`}`)); err != nil {
			t.Fatal(err)
		}
		if codes, _ := r.validate(a); len(codes) > 0 || a[c.name].text != c.want {
			t.Errorf("%s %s: got %q %q, want %q", c.name, c.json, a[c.name].text, codes, c.want)
		}
	}
}

func TestDayRefuses(t *testing.T) {
	for _, text := range []string{
		"", " ", "x", "-", "--", "1990", "19900228", "1990-02-29", "1990-13-01", "1990-00-01", "1990-01-00", "31/04/1990", "00/01/1990",
		"13/13/1990", "02/28/1990", "1990.02.28", "28/02-1990", "28-02/1990", "28.02.90", "28/02/90", "90-02-28", "1/2/1990", "28/2/1990",
		"1990-2-28", "28/02/1990/1", "28/02/1990 10:00", "1990-02-28T00:00:00Z", "+1990-02-28", "28/02/+1990", "28/02/01990", "２８/02/1990",
		"28/02/99999999999",
	} {
		if day, ok := Day(text); ok {
			t.Errorf("%q is %s", text, day)
		}
	}
}

// TestEmptyFileInput: a file input in which nothing was chosen is no file, beside others or alone.
func TestEmptyFileInput(t *testing.T) {
	r := &Route{Prefix: "p", Params: []Param{{Name: "u", Type: Files, Required: true}, {Name: "s", NotBlank: true}}}
	empty := func(w *multipart.Writer, name string) {
		if _, err := w.CreatePart(map[string][]string{
			"Content-Disposition": {`form-data; name="` + name + `"; filename=""`}, "Content-Type": {"application/octet-stream"},
		}); err != nil {
			t.Fatal(err)
		}
	}
	file := func(w *multipart.Writer, name string) {
		if _, err := w.CreateFormFile(name, "a.png"); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		fill func(w *multipart.Writer)
		want []fault.Code
		n    int
	}{
		{"alone", func(w *multipart.Writer) { empty(w, "u") }, []fault.Code{"p.missing_u"}, 0},
		{"alone in a list", func(w *multipart.Writer) { empty(w, "u[]"); empty(w, "u[]") }, []fault.Code{"p.missing_u"}, 0},
		{"beside one", func(w *multipart.Writer) { empty(w, "u[]"); file(w, "u[]"); empty(w, "u[]") }, nil, 1},
		{"beside one of the plain name", func(w *multipart.Writer) { file(w, "u"); empty(w, "u") }, nil, 1},
		{"with a name it is a file", func(w *multipart.Writer) { file(w, "u[]") }, nil, 1},
		{"a text stays one", func(w *multipart.Writer) { _ = w.WriteField("u[]", "x"); file(w, "u[]") }, nil, 2},
		{"another parameter may not be blank", func(w *multipart.Writer) { file(w, "u"); empty(w, "s") }, []fault.Code{"p.empty_s"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			contentType, body := multipartBody(t, c.fill)
			a, form, err := readArgs(request("", contentType, body), nil, 10_000)
			if err != nil {
				t.Fatal(err)
			}
			defer form.RemoveAll()
			codes, _ := r.validate(a)
			if _, n := (&Call{args: a}).Files("u"); !slices.Equal(codes, c.want) || n != c.n {
				t.Errorf("got %q and %d, want %q and %d", codes, n, c.want, c.n)
			}
		})
	}
}

func TestSecretsInTheQueryAreAbsent(t *testing.T) {
	r := &Route{Prefix: "p", Params: []Param{{Name: "a", Required: true, Secret: true}, {Name: "b"}}}
	a, _, err := readArgs(request("a=1&b=2", formType, ""), nil, 1000)
	if err != nil {
		t.Fatal(err)
	}
	codes, required := r.validate(a)
	if !slices.Equal(codes, []fault.Code{"p.missing_a"}) || !required || a["b"].text != "2" || a["a"].kind != absent {
		t.Errorf("query: %q %v %+v", codes, required, a)
	}
	if a, _, err = readArgs(request("a=1", formType, "a=2"), nil, 1000); err != nil {
		t.Fatal(err)
	}
	if codes, _ := r.validate(a); len(codes) > 0 || a["a"].text != "2" {
		t.Errorf("body: %q %+v", codes, a)
	}
}

func TestEveryValidationCodeIsKnown(t *testing.T) {
	r := &Route{Prefix: "identity.user", Params: append([]Param{
		{Name: "email", Required: true, NotBlank: true},
		{Name: "state", Values: []string{"x"}},
	}, Paginated...)}
	want := []fault.Code{
		"identity.user.missing_email", "identity.user.empty_email", "invalid", "value",
		"non_integer_page", "non_positive_page", "non_integer_limit", "invalid_limit",
	}
	if got := r.ValidationCodes(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, c := range r.ValidationCodes() {
		if _, ok := fault.Lookup(c); !ok {
			t.Errorf("the catalogue lacks %s", c)
		}
	}
}

func TestTidy(t *testing.T) {
	for in, want := range map[string]string{
		"/identity/ping": "/identity/ping", "/identity/ping/": "/identity/ping", "//identity///ping//": "/identity/ping",
		"/identity/ping.json": "/identity/ping", "/identity/ping.xml": "/identity/ping.xml", "/": "/", "//": "/",
		"/restful_api.json": "/restful_api.json", "/openapi.json": "/openapi.json", "/a.json/": "/a",
		"/management/management.json": "/management/management.json", "/management.json": "/management",
	} {
		if got := tidy(in); got != want {
			t.Errorf("tidy(%q) = %q, want %q", in, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := "/" + rapid.StringOfN(rapid.SampledFrom([]rune("/a.json%2f")), 0, 12, -1).Draw(t, "path")
		if got := tidy(s); got == "" || got[0] != '/' || strings.Contains(got, "//") {
			t.Errorf("tidy(%q) = %q", s, got)
		}
	})
}

func TestParseOrigins(t *testing.T) {
	any, list, err := ParseOrigins(" https://A.example , http://b.example:8080,")
	if err != nil || any || !slices.Equal(list, []string{"https://a.example", "http://b.example:8080"}) {
		t.Errorf("got %v %q %v", any, list, err)
	}
	if any, _, err := ParseOrigins("https://a.example,*"); err != nil || !any {
		t.Errorf("star: %v %v", any, err)
	}
	for _, bad := range []string{"a.example", "ftp://a.example", "https://", "https://a.example/", "https://u@a.example", "https://a b"} {
		if _, _, err := ParseOrigins(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// FuzzReadArgs holds what the handlers rely on, whatever a stranger sends: no panic, a fault of the catalogue or values
// that a text column takes, and bounds on how much.
func FuzzReadArgs(f *testing.F) {
	f.Add("a=1&b[]=2&c[d]=3&e", "application/json", `{"a":["x",{"y":[null,1.5e3,true]}],"b":{}}`)
	f.Add("", formType, "a=%C3%A9&a[]=x&a[b]=c&=&[]=1&a[b][c]=d")
	f.Add("%", "", "{}")
	f.Add("a=%00", "multipart/form-data; boundary=x",
		"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x\r\n"+
			"Content-Disposition: form-data; name=\"f[]\"; filename=\"n\"\r\n\r\n1\r\n--x--\r\n")
	f.Add("", "multipart/form-data; boundary=\"", "--x")
	f.Add("", jsonType, `{"a":"\ud800"}`)
	f.Add("", "text/\x00", "x")
	f.Fuzz(func(t *testing.T, query, contentType, body string) {
		got, form, err := readArgs(request(query, contentType, body), map[string]string{"id": "1"}, 4096)
		if form != nil {
			defer form.RemoveAll()
		}
		if err != nil {
			if s := status(err); s != 400 && s != 413 && s != 415 {
				t.Fatalf("answers %v", err)
			}
			return
		}
		if len(got) > maxParams || got["id"].text != "1" {
			t.Fatalf("%d parameters, id %+v", len(got), got["id"])
		}
		for k, v := range got {
			for _, s := range append([]string{k, v.text}, v.items...) {
				if !clean(s) {
					t.Fatalf("%q = %q is let through", k, s)
				}
			}
			if v.kind == absent {
				t.Fatalf("%q is there and absent", k)
			}
		}
		r := &Route{Prefix: "p", Params: []Param{
			{Name: "a", Required: true, NotBlank: true},
			{Name: "b", Type: Integer, Min: 1, Max: 5},
			{Name: "c", Type: Any},
			{Name: "d", Type: Boolean},
			{Name: "e", Type: Date},
			{Name: "f", Type: Files},
		}}
		before := maps.Clone(got)
		codes, required := r.validate(got)
		if required && len(codes) == 0 {
			t.Fatal("a required parameter is missing without a code")
		}
		if c := (&Call{args: got}); len(codes) == 0 && before["b"].kind == text && before["b"].text != "" {
			if n := c.Int("b"); n < 1 || n > 5 {
				t.Fatalf("b = %d passes", n)
			}
		}
	})
}
