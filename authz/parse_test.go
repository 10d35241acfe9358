package authz

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"barong/internal/trusted"
	"barong/session"
)

func TestCanonical(t *testing.T) {
	for _, tc := range []struct {
		target, path string
		refused      bool
	}{
		{target: "/api/v2/ranger/private/?stream=a.b", path: "api/v2/ranger/private"},
		{target: "/api/v2/peatio/public/markets.json", path: "api/v2/peatio/public/markets.json"},
		{target: "/a.b.c", path: "a.b.c"},
		{target: "/API/x%20y", path: "API/x y"},
		{target: "/a?path=zzz", path: "a"},
		{target: "/a?x=/../%2e;\\", path: "a"},
		{target: "/", path: ""},
		{target: "/?x", path: ""},
		{target: "/a/", path: "a"},
		{target: "/a/?x", path: "a"},
		{target: "/%41%62/~_-!$&'()*+,=:@", path: "Ab/~_-!$&'()*+,=:@"},
		{target: "/caf%C3%A9", path: "café"},
		{target: "/café", path: "café"},
		{target: "/.well-known/x", path: ".well-known/x"},
		{target: "/...", path: "..."},
		{target: "/..a/a..", path: "..a/a.."},

		{target: "", refused: true},
		{target: "a", refused: true},
		{target: "*", refused: true},
		{target: "http://host/a", refused: true},
		{target: "//", refused: true},
		{target: "//a", refused: true},
		{target: "/a//b", refused: true},
		{target: "/a//", refused: true},
		{target: "/a//?x", refused: true},
		{target: "/.", refused: true},
		{target: "/..", refused: true},
		{target: "/./a", refused: true},
		{target: "/a/../b", refused: true},
		{target: "/a/..", refused: true},
		{target: "/a/.?x", refused: true},
		{target: "/a/..?x", refused: true},
		{target: "/a/../", refused: true},
		{target: `/a\b`, refused: true},
		{target: "/a;b", refused: true},
		{target: "/a;x=1/../b", refused: true},
		{target: "/a#b", refused: true},
		{target: "/a?x#b", refused: true},
		{target: "/a\x00", refused: true},
		{target: "/a\x1f", refused: true},
		{target: "/a\tb", refused: true},
		{target: "/a\x7f", refused: true},
		{target: "/a\xff", refused: true},
		{target: "/a\xc0\xaf", refused: true},
		{target: "/%ff", refused: true},
		{target: "/%c0%af", refused: true},
		{target: "/\xc3%a9", refused: true},
		{target: "/%c3\xa9", refused: true},
		{target: "/%2e%2e/a", refused: true},
		{target: "/a%2Eb", refused: true},
		{target: "/a%2fb", refused: true},
		{target: "/a%2Fb", refused: true},
		{target: "/a%5cb", refused: true},
		{target: "/a%5Cb", refused: true},
		{target: "/a%25b", refused: true},
		{target: "/a%252e", refused: true},
		{target: "/a%00", refused: true},
		{target: "/a%0a", refused: true},
		{target: "/a%7f", refused: true},
		{target: "/a%3b", refused: true},
		{target: "/a%3B", refused: true},
		{target: "/a%23", refused: true},
		{target: "/a%3f", refused: true},
		{target: "/a%", refused: true},
		{target: "/a%4", refused: true},
		{target: "/a%4?1", refused: true},
		{target: "/a%zz", refused: true},
		{target: "/a%u0041", refused: true},
	} {
		path, ok := Canonical(tc.target)
		if ok == tc.refused || path != tc.path {
			t.Errorf("Canonical(%q) = %q, %v; want %q, %v", tc.target, path, ok, tc.path, !tc.refused)
		}
	}
}

// checkCanonical checks what holds of every target, and returns its path.
func checkCanonical(t interface{ Fatalf(string, ...any) }, target string) (string, bool) {
	path, ok := Canonical(target)
	if !ok {
		if path != "" {
			t.Fatalf("a refused target %q has the path %q", target, path)
		}
		return "", false
	}
	if strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/") || strings.Contains(path, "//") ||
		strings.ContainsAny(path, "\\;#?%\x00") || !utf8.ValidString(path) ||
		strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		t.Fatalf("Canonical(%q) = %q", target, path)
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			t.Fatalf("Canonical(%q) = %q has a dot segment", target, path)
		}
	}
	if again, ok := Canonical("/" + path); !ok || again != path {
		t.Fatalf("Canonical(%q) = %q, whose own is %q, %v", target, path, again, ok)
	}
	for _, spelling := range []string{target + "?x=1", strings.TrimSuffix(target, "/")} {
		if strings.Contains(target, "?") || spelling == "" {
			continue
		}
		if other, ok := Canonical(spelling); !ok || other != path {
			t.Fatalf("Canonical(%q) = %q, and of %q it is %q, %v", target, path, spelling, other, ok)
		}
	}
	return path, true
}

// Whatever escapes spell a path, there is one canonical form of it or none.
func TestSpellingsNeverDiffer(t *testing.T) {
	piece := rapid.SampledFrom([]string{
		"a", "b", "api", "v2", "é", " ", "/", "/", ".", "..", "//", ";", "\\", "#", "?", "%", "%2f", "%2e", "%5C", "%3b", "%41", "\x00", "\xff",
	})
	rapid.Check(t, func(t *rapid.T) {
		plain := "/" + strings.Join(rapid.SliceOfN(piece, 0, 12).Draw(t, "pieces"), "")
		path, ok := checkCanonical(t, plain)
		var escaped strings.Builder // the same path with some bytes escaped
		for i := range len(plain) {
			if c := plain[i]; i > 0 && c != '/' && c != '%' && rapid.Bool().Draw(t, "escape") {
				fmt.Fprintf(&escaped, "%%%02x", c)
			} else {
				escaped.WriteByte(c)
			}
		}
		if other, otherOK := Canonical(escaped.String()); ok && otherOK && other != path && !strings.Contains(plain, "?") {
			t.Fatalf("%q is %q, and %q is %q", plain, path, escaped.String(), other)
		}
	})
}

func FuzzCanonical(f *testing.F) {
	for _, s := range []string{
		"/api/v2/x?y=1", "/a%20b/", "/..%2f", "/%2e%2e/", "//", "/a;b", "/caf%C3%A9", "/\xff", "/a%", "/.well-known/x", "/a#b", `/\`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) { checkCanonical(t, target) })
}

func TestSent(t *testing.T) {
	c, err := NewCookies(CookieSettings{Name: "sid"})
	if err != nil {
		t.Fatal(err)
	}
	v, w := testID(1).String(), testID(2).String()
	for _, tc := range []struct {
		lines     string // parted by |
		values    string // parted by a comma
		ids       int
		ambiguous bool
	}{
		{"", "", 0, false},
		{"sid=" + v, v, 1, false},
		{"a=b; sid=" + v + "; c=d", v, 1, false},
		{"a=b;sid=" + v, v, 1, false},
		{"a=b|sid=" + v, v, 1, false},
		{"a=b|c=d|e=f|g=h|i=j|k=l|m=n|o=p|q=r|sid=" + v, v, 1, false},
		{"sid = " + v + " ", v, 1, false},
		{"; ; sid=" + v + ";", v, 1, false},
		{"xsid=" + v + "; sidx=" + v + "; SID=" + v, "", 0, false},
		{"sidsid=" + v + "; xsidsid=" + v, "", 0, false},
		{"sid", "", 0, false},
		{"sid; sid=" + v, v, 1, false},
		{"sid=", "", 0, false},
		{`sid="` + v + `"`, `"` + v + `"`, 0, false},
		{"sid=" + strings.ToUpper(v), strings.ToUpper(v), 0, false},
		{"sid=" + v + "0", v + "0", 0, false},
		{"a=sid=" + v, "", 0, false},
		{"a= sid=" + v, "", 0, false},
		{"theme=caf\xe9; sid=" + v + "; \xff=\xfe", v, 1, false},
		{strings.Repeat("a=b;", 1000) + "sid=" + v, v, 1, false},
		{"sid=" + v + "; theme=x; sid=" + v, v, 1, true},
		{"sid=" + v + "|sid=" + v, v, 1, true},
		{"sid=x; sid=" + v, "x," + v, 1, true},
		{"sid =x; sid=" + v, "x," + v, 1, true},
		{"sid=" + v + "|a=b; sid=" + w, v + "," + w, 2, true},
		{"sid=a; sid=b; sid=c; sid=" + v, "a,b,c," + v, 1, true},
		{"sid=a; sid=b; sid=c; sid=" + v + "; sid=b", "a,b,c," + v, 1, true},
		{"sid=a; sid=b; sid=c; sid=" + v + "; sid=", "a,b,c," + v, 0, true},
		{"sid=caf\xe9", "caf\xe9", 0, true},
	} {
		sent := c.Sent(bytes.Split([]byte(tc.lines), []byte{'|'})...)
		values := string(bytes.Join(sent.values[:min(sent.count, maxSent)], []byte{','}))
		if values != tc.values || len(sent.IDs()) != tc.ids || sent.Ambiguous() != tc.ambiguous || sent.odd() == utf8.ValidString(tc.values) {
			t.Errorf("cookies %.80q: values %q, ids %v, ambiguous %v; want %q, %d, %v",
				tc.lines, values, sent.IDs(), sent.Ambiguous(), tc.values, tc.ids, tc.ambiguous)
		}
	}
}

// plainSent are the values of the pairs of a name, by splitting the lines.
func plainSent(name string, lines ...[]byte) (values []string) {
	for _, pair := range strings.Split(string(bytes.Join(lines, []byte("; "))), ";") {
		key, value, ok := strings.Cut(pair, "=")
		if ok && strings.Trim(key, " \t") == name {
			values = append(values, strings.Trim(value, " \t"))
		}
	}
	return values
}

// What is found is what splitting the lines finds, however they are split into lines, and no other cookie matters.
func FuzzSent(f *testing.F) {
	v := testID(1).String()
	for _, s := range []string{
		"", "sid=" + v, "a=b; sid=" + v, "sid=" + v + "; sid=" + v, "=;==", "sid", ";;sid =" + v, "sidsid=x; \tsid\t=\ty", "a=\xff; sid=\xff",
		"sid=1;sid=2;sid=3;sid=4;sid=5",
	} {
		f.Add([]byte(s), []byte("theme=caf\xe9"))
		f.Add([]byte("sid=x"), []byte(s))
	}
	c, err := NewCookies(CookieSettings{Name: "sid"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, line, other []byte) {
		sent := c.Sent(line, other)
		values := plainSent("sid", line, other)
		var distinct []string
		valid := true
		for _, value := range values {
			if !slices.Contains(distinct, value) {
				distinct = append(distinct, value)
				valid = valid && (utf8.ValidString(value) || len(distinct) > maxSent)
			}
		}
		if sent.pairs != len(values) || sent.count != min(len(distinct), maxSent+1) || sent.odd() == valid {
			t.Fatalf("cookies %q and %q: %+v, want the values %q", line, other, sent, values)
		}
		for i, value := range sent.values[:min(sent.count, maxSent)] {
			if string(value) != distinct[i] {
				t.Fatalf("cookies %q and %q: value %d is %q, want %q", line, other, i, value, distinct[i])
			}
		}
		joined := c.Sent(append(append(bytes.Clone(line), "; "...), other...))
		if joined.pairs != sent.pairs || joined.count != sent.count || joined.odd() != sent.odd() {
			t.Fatalf("cookies %q and %q: %+v, and %+v in one line", line, other, sent, joined)
		}
		for _, id := range sent.IDs() {
			if !slices.Contains(distinct, id.String()) || sent.count > maxSent {
				t.Fatalf("cookies %q and %q: id %v was not sent", line, other, id)
			}
		}
	})
}

func TestExpire(t *testing.T) {
	for _, tc := range []struct {
		name, host string
		want       []string // domains
	}{
		{"s", "app.example.test", []string{"", "app.example.test", "example.test"}},
		{"s", "APP.Example.Test:8443", []string{"", "app.example.test", "example.test"}},
		{"s", "app.example.test.", []string{"", "app.example.test", "example.test"}},
		{"s", "example.test", []string{"", "example.test"}},
		{"s", "localhost", []string{""}},
		{"s", "localhost:8080", []string{""}},
		{"s", "", []string{""}},
		{"s", "127.0.0.1", []string{""}},
		{"s", "127.0.0.1:80", []string{""}},
		{"s", "[2001:db8::1]:80", []string{""}},
		{"s", "2001:db8::1", []string{""}},
		{"s", "a.example.test; Secure", []string{""}},
		{"s", "a.example.test\r\nX: y", []string{""}},
		{"s", "b\xc3\xbccher.example", []string{""}},
		{"s", strings.Repeat("a.", 200) + "test", []string{""}},
		{"__Host-s", "app.example.test", []string{""}},
	} {
		c, err := NewCookies(CookieSettings{Name: tc.name, Domain: map[bool]string{true: "other.test"}[tc.name == "s"], Secure: "always"})
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, domain := range tc.want {
			if domain != "" {
				domain = "; Domain=" + domain
			}
			want = append(want, tc.name+"=; Path=/"+domain+"; HttpOnly; SameSite=Lax; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Secure")
		}
		if got := c.Expire(tc.host, true); !slices.Equal(got, want) {
			t.Errorf("host %q: got %q, want %q", tc.host, got, want)
		}
	}
	c, err := NewCookies(CookieSettings{Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Expire(strings.Repeat("a.", 100)+"example.test", false); len(got) != 1+maxDomains || !strings.Contains(got[maxDomains], "; Domain=example.test;") {
		t.Errorf("a host of 102 labels: got %q", got)
	}
}

func TestCookies(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("", 3600))
	id := session.ID{}
	for _, tc := range []struct {
		set        CookieSettings
		https      bool
		attributes string
	}{
		{CookieSettings{Name: "s"}, false, "; Path=/; HttpOnly; SameSite=Lax; Expires=Mon, 02 Mar 2026 11:00:00 GMT; Max-Age=86400"},
		{CookieSettings{Name: "s"}, true, "; Path=/; HttpOnly; SameSite=Lax; Expires=Mon, 02 Mar 2026 11:00:00 GMT; Max-Age=86400; Secure"},
		{
			CookieSettings{Name: "s", Secure: "never", SameSite: "Strict", Domain: "example.com"},
			true,
			"; Path=/; Domain=example.com; HttpOnly; SameSite=Strict; Expires=Mon, 02 Mar 2026 11:00:00 GMT; Max-Age=86400",
		},
		{
			CookieSettings{Name: "__Host-s", Secure: "always", SameSite: "none"},
			false,
			"; Path=/; HttpOnly; SameSite=None; Expires=Mon, 02 Mar 2026 11:00:00 GMT; Max-Age=86400; Secure",
		},
	} {
		c, err := NewCookies(tc.set)
		if err != nil {
			t.Errorf("%+v: %v", tc.set, err)
			continue
		}
		if got, want := c.Set(id, now.Add(24*time.Hour), now, tc.https), tc.set.Name+"="+id.String()+tc.attributes; got != want {
			t.Errorf("%+v: %q, want %q", tc.set, got, want)
		}
		if got := c.Clear(tc.https); !strings.HasPrefix(got, tc.set.Name+"=; ") ||
			!strings.Contains(got, "; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0") {
			t.Errorf("Clear of %+v: %q", tc.set, got)
		}
	}
	for _, bad := range []CookieSettings{
		{},
		{Name: "a b"},
		{Name: "a;b"},
		{Name: "s", Secure: "maybe"},
		{Name: "s", SameSite: "loose"},
		{Name: "s", SameSite: "none"},
		{Name: "s", Domain: "a; Secure"},
		{Name: "__Host-s", Secure: "always", Domain: "example.com"},
		{Name: "__Secure-s"},
	} {
		if _, err := NewCookies(bad); err == nil {
			t.Errorf("NewCookies(%+v) says nothing", bad)
		}
	}
}

func TestAddHeader(t *testing.T) {
	akamai := new(trusted.Proxies).WithTrueClientIP()
	add := func(r *Request, lines ...string) {
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			r.AddHeader([]byte(name), []byte(value))
		}
	}
	for i, name := range [singles]string{
		userAgent: "user-agent", csrfToken: "x-csrf-token", apiKeyID: "x-auth-apikey", apiKeyNonce: "x-auth-nonce",
		apiKeySignature: "x-auth-signature", authorization: "authorization", trueClientIP: "true-client-ip",
		forwardedProto: "x-forwarded-proto", signatureInputs: "signature-input", signatures: "signature",
		contentDigest: "content-digest", hostName: "host", forwardedHost: "x-forwarded-host",
	} {
		var r Request
		add(&r, strings.ToUpper(name)+": v")
		// What the check of a signature alone reads is malformed for that one.
		signed := onlySigned&(1<<i) != 0
		malformed := func() bool {
			if signed {
				return r.headers.odd != 0 && !r.headers.malformed(akamai)
			}
			return r.headers.malformed(akamai)
		}
		if string(r.headers.single[i]) != "v" || r.headers.has != 1<<i || malformed() {
			t.Errorf("%s was not kept", name)
		}
		add(&r, name+": ")
		if !malformed() {
			t.Errorf("%s may be there twice", name)
		}
		if r.headers.malformed(new(trusted.Proxies)) == (i == trueClientIP || signed) {
			t.Errorf("%s twice, where nobody reads True-Client-IP: malformed %v", name, i == trueClientIP)
		}
		longest := min(singleHeaders[i].max, maxHeaderBytes-len(name))
		r.Reset()
		add(&r, name+": "+strings.Repeat("x", longest))
		if malformed() {
			t.Errorf("%s of %d bytes is refused", name, longest)
		}
		r.Reset()
		add(&r, name+": "+strings.Repeat("x", longest+1))
		if !malformed() {
			t.Errorf("%s may have more than %d bytes", name, longest)
		}
		r.Reset()
		add(&r, name+": caf\xe9")
		if credential := strings.HasPrefix(name, "x-auth-") || name == "x-csrf-token"; malformed() != credential {
			t.Errorf("%s that is no UTF-8: malformed %v, want %v", name, malformed(), credential)
		}
	}
	for name, lines := range map[string][]string{
		"many headers": strings.Split(strings.TrimSuffix(strings.Repeat("a: b\n", maxHeaders+1), "\n"), "\n"),
		"large header": {"a: " + strings.Repeat("x", maxHeaderBytes)},
	} {
		var r Request
		add(&r, lines[:len(lines)-1]...)
		if r.headers.malformed(akamai) {
			t.Errorf("%s: refused one too early", name)
		}
		add(&r, lines[len(lines)-1])
		if !r.headers.malformed(akamai) {
			t.Errorf("%s: not refused", name)
		}
	}
	for n := range 2*maxLines + 1 {
		var r Request
		var want [][]byte
		for i := range n {
			value := []byte{byte('a' + i)}
			want = append(want, value)
			r.AddHeader([]byte("Cookie"), value)
			r.AddHeader([]byte("X-Forwarded-For"), value)
		}
		if r.headers.malformed(akamai) || !slices.EqualFunc(r.headers.cookie.list(), want, bytes.Equal) ||
			!slices.EqualFunc(r.headers.forwarded.list(), want, bytes.Equal) {
			t.Errorf("%d lines: kept %q and %q", n, r.headers.cookie.list(), r.headers.forwarded.list())
		}
	}
	var r Request
	add(&r, "Cookie2: x", "X-Auth-Apikez: x", "authorizatioN2: x", "X_CSRF_TOKEN: x", "Origin: x", "X-Forwarded-Foo: x", "User_Agent: x")
	if r.headers.has != 0 || r.headers.cookie.count != 0 || r.headers.forwarded.count != 0 || r.headers.count != 7 {
		t.Errorf("headers with other names were kept: %+v", r.headers)
	}
}
