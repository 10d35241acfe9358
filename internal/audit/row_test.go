package audit

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"barong/authz"

	"pgregory.net/rapid"
)

const firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"

func TestTopic(t *testing.T) {
	for path, want := range map[string]string{
		"api/v2/barong/admin/users/role": "users", "admin/deposits": "deposits", "api/v2/admin": "general", "admin": "general",
		"": "general", "api/v2/peatio/admin/markets/x": "markets", "api/superadmin/x": "general", "administration/x": "general",
		"api/v2/admin/admin/x": "admin",
	} {
		if got := topicOf(path); got != want {
			t.Errorf("%q: got %q, want %q", path, got, want)
		}
	}
}

func TestAction(t *testing.T) {
	for method, want := range map[string]string{
		"POST": "create", "PUT": "update", "PATCH": "update", "GET": "read", "DELETE": "delete", "HEAD": "system", "OPTIONS": "system",
	} {
		if got := actionOf(method); got != want {
			t.Errorf("%s: got %q, want %q", method, got, want)
		}
	}
}

const boundary = "----x"

func multipartBody(parts ...string) string {
	return "--" + boundary + "\r\n" + strings.Join(parts, "\r\n--"+boundary+"\r\n") + "\r\n--" + boundary + "--\r\n"
}

func TestData(t *testing.T) {
	const form, jsonType = "application/x-www-form-urlencoded", "application/json; charset=utf-8"
	field := func(name, value string) string {
		return fmt.Sprintf("Content-Disposition: form-data; name=%q\r\n\r\n%s", name, value)
	}
	for _, tc := range []struct {
		name, query, ctype, body string
		want, target             string
	}{
		{"nothing", "", "", "", `{"path":"p"}`, ""},
		{"query", "user_uid=ID1&x=a+b%21", "", "", `{"user_uid":"ID1","x":"a b!","path":"p"}`, "ID1"},
		{"uid before user_uid", "user_uid=ID1&uid=ID2", "", "", `{"user_uid":"ID1","uid":"ID2","path":"p"}`, "ID2"},
		{"unknown uid", "uid=nobody", "", "", `{"uid":"nobody","path":"p"}`, "nobody"},
		{"body overrides the query", "uid=ID1", form, "uid=ID2", `{"uid":["ID1","ID2"],"path":"p"}`, "ID2"},
		{"given twice", "a=1&a=2&a=", "", "", `{"a":["1","2",""],"path":"p"}`, ""},
		{"name that is JSON", "1=x&null", "", "", `{"1":"x","null":"","path":"p"}`, ""},
		{"own names", "path=x&note=y&cut=z", "", "", `{"path_param":"x","note_param":"y","cut_param":"z","path":"p"}`, ""},
		{"bad escapes", "a=%zz&%=1", "", "", `{"a":"%zz","%":"1","path":"p"}`, ""},
		{"not UTF-8", "a=%ff&b=%00", "", "", `{"a":"\ufffd","b":"\u0000","path":"p"}`, ""},
		{"semicolons", "uid=ID1;b=2", "", "", `{"uid":"ID1","b":"2","path":"p"}`, "ID1"},
		{"form", "", form, "uid=ID1&state=banned", `{"uid":"ID1","state":"banned","path":"p"}`, "ID1"},
		{"form without type", "", "", "uid=ID1", `{"uid":"ID1","path":"p"}`, "ID1"},
		{"json", "", jsonType, `{"uid":"ID1","level":3,"deep":{"a":[1,{"b":null}]}}`, `{"uid":"ID1","level":3,"deep":{"a":[1,{"b":null}]},"path":"p"}`, "ID1"},
		{"json uid that is a number", "", jsonType, `{"uid":12345678901234567890}`, `{"uid":12345678901234567890,"path":"p"}`, "12345678901234567890"},
		{"json without type", "", "", ` {"uid":"ID1"}`, `{"uid":"ID1","path":"p"}`, "ID1"},
		{"json under the type of a form", "", form, `{"uid":"ID1"}`, `{"uid":"ID1","path":"p"}`, "ID1"},
		{"json with a name twice", "", jsonType, `{"uid":"ID1","uid":"ID2"}`, `{"uid":["ID1","ID2"],"path":"p"}`, "ID2"},
		{"json that is cut", "", jsonType, `{"uid":"ID1","x":{"password":"hun`, `{"uid":"ID1","x":"[unreadable]","cut":true,"path":"p"}`, "ID1"},
		{"json that ends early", "", jsonType, `{"uid":"ID1"`, `{"uid":"ID1","cut":true,"path":"p"}`, "ID1"},
		{"json list", "", jsonType, `[{"password":"x"},2]`, `{"body":[{"password":"[REDACTED]"},2],"path":"p"}`, ""},
		{"json text", "", jsonType, `"hunter2"`, `{"body":"[unreadable: 9 bytes]","path":"p"}`, ""},
		{"bad json", "", jsonType, `{hunter2`, `{"body":"[unreadable: 8 bytes]","cut":true,"path":"p"}`, ""},
		{"text", "", "text/plain", "password is hunter2", `{"body":"[unreadable: 19 bytes]","path":"p"}`, ""},
		{"binary", "", "", "\xff\xfe\x00", `{"body":"[unreadable: 3 bytes]","path":"p"}`, ""},
		{"bad type", "", "???", "uid=ID1", `{"uid":"ID1","path":"p"}`, "ID1"},
		{
			"multipart", "", "multipart/form-data; boundary=" + boundary, multipartBody(field("uid", "ID1"), field("password", "x"),
				"Content-Disposition: form-data; name=\"upload\"; filename=\"passport.png\"\r\nContent-Type: image/png\r\n\r\nPNG"),
			`{"uid":"ID1","password":"[REDACTED]","upload":"[file]","path":"p"}`, "ID1",
		},
		{
			"multipart that is cut", "", "multipart/form-data; boundary=" + boundary, multipartBody(field("uid", "ID1"), field("x", "abc"))[:90],
			`{"uid":"ID1","cut":true,"path":"p"}`, "ID1",
		},
		{"multipart without boundary", "", "multipart/form-data", "x", `{"body":"[unreadable: 1 bytes]","path":"p"}`, ""},
		{
			"secrets", "password=a&old_password=b&new_password=c&confirm_password=d&otp_code=e&totp_code=f&code=g&secret=h&token=i&tokens=j" +
				"&reset_password_token=k&verification_code=l&whitelink_token=m&captcha_response=n&user%5Bpassword%5D=o&PassWord=p&x-secret-y=q&otp=123456" +
				"&pass%2577ord=r&client.secret=s",
			"", "", `{"password":"[REDACTED]","old_password":"[REDACTED]","new_password":"[REDACTED]","confirm_password":"[REDACTED]",` +
				`"otp_code":"[REDACTED]","totp_code":"[REDACTED]","code":"[REDACTED]","secret":"[REDACTED]","token":"[REDACTED]","tokens":"[REDACTED]",` +
				`"reset_password_token":"[REDACTED]","verification_code":"[REDACTED]","whitelink_token":"[REDACTED]","captcha_response":"[REDACTED]",` +
				`"user[password]":"[REDACTED]","PassWord":"[REDACTED]","x-secret-y":"[REDACTED]","otp":"[REDACTED]","pass%77ord":"[REDACTED]",` +
				`"client.secret":"[REDACTED]","path":"p"}`, "",
		},
		{
			"no secrets", "otp=false&country=UA&postcode=1&email=a%40b&country_code=1&page=2&verb=get", "", "",
			`{"otp":"false","country":"UA","postcode":"1","email":"a@b","country_code":"1","page":"2","verb":"get","path":"p"}`, "",
		},
		{
			"switch in JSON", "", jsonType, `{"otp":true,"deep":{"Token":{"a":1},"code":[1,2]}}`,
			`{"otp":true,"deep":{"Token":"[REDACTED]","code":"[REDACTED]"},"path":"p"}`, "",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := &authz.AuditEntry{Path: "p", Query: tc.query, ContentType: tc.ctype, Body: []byte(tc.body), UserAgent: firefox}
			p := readParams(e)
			if got := p.data(e); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
			if got := p.target(); got != tc.target {
				t.Errorf("got target %q, want %q", got, tc.target)
			}
		})
	}
}

func TestHugeInput(t *testing.T) {
	big := strings.Repeat("x", 3<<20)
	for _, e := range []*authz.AuditEntry{
		{Path: "p", Body: []byte("uid=ID1&a=" + big), ContentType: "application/x-www-form-urlencoded"},
		{Path: "p", Body: []byte(`{"uid":"ID1","a":"` + big + `"}`), ContentType: "application/json"},
		{Path: "p", Body: []byte(`{"uid":"ID1","a":["` + big[:900_000] + `"]}`), ContentType: "application/json"},
		{Path: "p", Body: []byte(`{"uid":"ID1","a":` + strings.Repeat("[", 200_000)), ContentType: "application/json"},
		{Path: "p", Query: "uid=ID1&" + strings.Repeat("a=b&", 100_000)},
		{Path: "p", Query: "uid=ID1&" + strings.Repeat("%00", 200_000) + "=" + strings.Repeat("%00", 200_000)},
		{Path: strings.Repeat("\"", 100_000), Query: "uid=ID1&cut=x&" + big},
	} {
		p := readParams(e)
		data := p.data(e)
		var back map[string]any
		if err := json.Unmarshal([]byte(data), &back); err != nil || len(data) > 100_000 || back["path"] == nil || back["cut"] != true {
			t.Errorf("got %d bytes, %v, %.200s", len(data), err, data)
		}
		if p.target() != "ID1" {
			t.Errorf("got target %q", p.target())
		}
	}
}

func TestRow(t *testing.T) {
	w := &Writer{o: Options{Country: func(a netip.Addr) string { return map[string]string{"1.2.3.4": "UA"}[a.String()] }}}
	now := time.Date(2026, 1, 2, 3, 4, 5, 600, time.FixedZone("", 3600))
	allowed := w.row(&authz.AuditEntry{
		UserID: 7, Method: "PUT", Path: "api/v2/barong/admin/users", Query: "uid=ID9", Topic: "money", Allowed: true,
		Client: netip.MustParseAddr("1.2.3.4"), UserAgent: firefox,
	}, now)
	if allowed.UserID != 7 || allowed.Category != "admin" || allowed.Result != "succeed" || allowed.Topic != "money" || allowed.Action != "update" ||
		*allowed.TargetUID != "ID9" || allowed.UserIP != "1.2.3.4" || *allowed.UserIPCountry != "UA" || allowed.UserAgent != firefox ||
		allowed.CreatedAt != time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC) || allowed.Count != 1 ||
		*allowed.Data != `{"uid":"ID9","path":"api/v2/barong/admin/users"}` {
		t.Errorf("got %+v %s", allowed, *allowed.Data)
	}
	denied := w.row(&authz.AuditEntry{UserID: 7, Method: "HEAD", Path: "api/v2/barong/admin/users/role"}, now)
	if denied.Result != "denied" || denied.Topic != "users" || denied.Action != "system" || denied.TargetUID != nil || denied.UserIP != "" ||
		denied.UserIPCountry != nil || *denied.Data != `{"path":"api/v2/barong/admin/users/role","note":"Detected suspicious browser"}` {
		t.Errorf("got %+v %s", denied, *denied.Data)
	}
}

// TestSecretsNeverShow puts a secret under a secret's name into random requests.
func TestSecretsNeverShow(t *testing.T) {
	const hidden = "hunter2hunter2"
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"password", "New_Password", "otp_code", "code", "user[token]", "clientSecret", "captcha_response"}).Draw(t, "name")
		other := rapid.StringMatching(`[a-z]{1,5}=[a-z%&;=\[\]{}"]{0,8}`)
		e := &authz.AuditEntry{Path: "p"}
		switch rapid.IntRange(0, 3).Draw(t, "where") {
		case 0:
			e.Query = strings.Join(append(rapid.SliceOfN(other, 0, 3).Draw(t, "others"), name+"="+hidden), "&")
		case 1:
			e.Body = []byte(strings.Join(append(rapid.SliceOfN(other, 0, 3).Draw(t, "others"), name+"="+hidden), "&"))
		case 2:
			body, _ := json.Marshal(map[string]any{"a": []any{map[string]any{name: hidden}}, name: []any{hidden}})
			e.Body = body[:rapid.IntRange(1, len(body)).Draw(t, "cut")]
		case 3:
			body := multipartBody(fmt.Sprintf("Content-Disposition: form-data; name=%q\r\n\r\n%s", name, hidden))
			e.Body, e.ContentType = []byte(body[:rapid.IntRange(1, len(body)).Draw(t, "cut")]), "multipart/form-data; boundary="+boundary
		}
		if data := readParams(e).data(e); strings.Contains(data, "hunter2") || !json.Valid([]byte(data)) {
			t.Fatalf("got %s of %+v", data, e)
		}
	})
}

// FuzzData: whatever a stranger sends, the row's data is valid JSON with the path, of bounded size, and the target is
// what the query or body names.
func FuzzData(f *testing.F) {
	for _, seed := range [][3]string{
		{"uid=ID1&password=x", "application/json", `{"a":{"b":[1,2]},"token":"x"}`},
		{"?1=x&&=&%zz", "", "{"},
		{"a;b;c", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b--"},
		{"\xff=\x00", "application/x-www-form-urlencoded", "path=1&note=2&cut=3&cut=4"},
		{"", "application/json", "[[[[[[1]]]]]]"},
		{"", "multipart/mixed; boundary=\"\"", "--"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, query, ctype, body string) {
		e := &authz.AuditEntry{Path: "a/path", Query: query, ContentType: ctype, Body: []byte(body), UserAgent: body}
		p := readParams(e)
		data := p.data(e)
		var back map[string]any
		if err := json.Unmarshal([]byte(data), &back); err != nil || back["path"] != "a/path" || len(data) > 2*maxData || !utf8.ValidString(data) {
			t.Fatalf("%v: %.300s", err, data)
		}
		p.target()
	})
}
