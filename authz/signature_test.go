package authz

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"

	"barong/session"
	"barong/session/near"
)

const testPublicKID = "a1b2c3d4e5f60718"

var testPrivateKey = ed25519.NewKeyFromSeed([]byte("0123456789abcdef0123456789abcdef"))

// A signedRequest is a request that its client signs whole, and what is spoiled about it afterwards.
type signedRequest struct {
	kid, method, target string
	components          string            // as in Signature-Input
	parameters          string            // behind created, keyid and nonce
	nonce               string            // empty is one of its own
	age                 time.Duration     // of created
	values              map[string]string // of components, instead of those that the request has
	body                string
	digest              string // instead of the body's, which is sent if there is a body
	content             Content
	secret              string // instead of the right one

	label            string // instead of barong
	input, signature string // of the fields, instead of the right ones; %s is the right one
	headers          []string
	dialect          Dialect
	peer             string
}

var testNonces atomic.Int64

func digestField(body string) string {
	sum := sha256.Sum256([]byte(body))
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

// signatureBase is built by the letter of RFC 9421, section 2.5, from values of components.
func signatureBase(components, parameters string, values map[string]string) string {
	var b strings.Builder
	for name := range strings.FieldsSeq(components) {
		fmt.Fprintf(&b, "%s: %s\n", name, values[strings.Trim(name, `"`)])
	}
	return b.String() + `"@signature-params": (` + components + ")" + parameters
}

func (s signedRequest) fill(r *Request, w *world) {
	if s.kid == "" {
		s.kid = testKID
	}
	if s.method == "" {
		s.method = "GET"
	}
	if s.target == "" {
		s.target = ownPath
	}
	if s.components == "" {
		s.components = `"@method" "@path" "@query"`
		if s.body != "" {
			s.components += ` "content-digest"`
		}
	}
	if s.nonce == "" {
		s.nonce = fmt.Sprintf("nonce-%016d", testNonces.Add(1))
	}
	if s.label == "" {
		s.label = ownLabel
	}
	if s.digest == "" && s.body != "" {
		s.digest = digestField(s.body)
	}
	if s.secret == "" {
		s.secret = testSecret
	}
	path, query, _ := strings.Cut(s.target, "?")
	values := map[string]string{
		"@method": s.method, "@path": path, "@query": "?" + query, "@authority": "app.example", "content-digest": s.digest,
		"@target-uri": "https://app.example" + s.target,
	}
	for name, value := range s.values {
		values[name] = value
	}
	parameters := fmt.Sprintf(";created=%d;keyid=\"%s\";nonce=\"%s\"%s", w.now().Add(-s.age).Unix(), s.kid, s.nonce, s.parameters)
	base := signatureBase(s.components, parameters, values)
	var signature []byte
	if s.kid == testPublicKID {
		signature = ed25519.Sign(testPrivateKey, []byte(base))
	} else {
		m := hmac.New(sha256.New, []byte(s.secret))
		m.Write([]byte(base))
		signature = m.Sum(nil)
	}
	input := s.label + "=(" + s.components + ")" + parameters
	if s.input != "" {
		input = strings.ReplaceAll(s.input, "%s", input)
	}
	field := s.label + "=:" + base64.StdEncoding.EncodeToString(signature) + ":"
	if s.signature != "" {
		field = strings.ReplaceAll(s.signature, "%s", field)
	}
	r.Dialect, r.Method, r.Target, r.Content = s.dialect, s.method, s.target, s.content
	r.Peer = netip.MustParseAddr("10.0.0.2")
	if s.peer != "" {
		r.Peer = netip.MustParseAddr(s.peer)
	}
	if s.content == UnknownContent {
		r.Content = NoContent
		if s.body != "" {
			r.Content = HasContent
		}
	}
	for _, line := range append([]string{
		"Host: App.Example", "X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https", "Signature-Input: " + input, "Signature: " + field,
		"Content-Digest: " + s.digest,
	}, s.headers...) {
		name, value, _ := strings.Cut(line, ": ")
		if value != "" && value != "-" {
			r.AddHeader([]byte(name), []byte(value))
		}
	}
}

// signingWorld has a key of either algorithm.
func signingWorld(t testing.TB, change func(*world, *Options)) *world {
	w := newWorld(t, testRules(10), func(w *world, _ *near.Options, o *Options) {
		if change != nil {
			change(w, o)
		}
	})
	w.addMember(0, testKID)
	w.addPublicKey()
	for kid, change := range map[string]func(*session.APIKey){
		"switchedoff": func(k *session.APIKey) { k.Active = false }, "secretless": func(k *session.APIKey) { k.Secret = nil },
	} {
		k := w.apiKeys[testKID]
		k.KID = kid
		change(&k)
		w.apiKeys[kid] = k
	}
	return w
}

// addPublicKey gives whoever has the usual key one of Ed25519 as well.
func (w *world) addPublicKey() {
	k := w.apiKeys[testKID]
	k.KID, k.Secret, k.PublicKey = testPublicKID, nil, testPrivateKey.Public().(ed25519.PublicKey)
	w.apiKeys[testPublicKID] = k
}

// forgetful takes every use of a nonce for the first.
type forgetful struct{}

func (forgetful) FirstUse(context.Context, string, string, time.Time) (bool, error) { return true, nil }

func TestSignedRequests(t *testing.T) {
	const malformed, invalid, expired = "authz.malformed_signature", "authz.invalid_signature", "authz.nonce_expired"
	const uri = `"@method" "@target-uri"`
	sum := sha512.Sum512([]byte("{}"))
	strong := "sha-512=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
	weak := "md5=:" + base64.StdEncoding.EncodeToString(sum[:16]) + ":"
	for _, tc := range []struct {
		name string
		signedRequest
		want string
	}{
		{"HMAC", signedRequest{}, ""},
		{"Ed25519", signedRequest{kid: testPublicKID}, ""},
		{"HMAC, named", signedRequest{parameters: `;alg="hmac-sha256"`}, ""},
		{"Ed25519, named", signedRequest{kid: testPublicKID, parameters: `;alg="ed25519"`}, ""},
		{"the algorithm of the other kind of key", signedRequest{parameters: `;alg="ed25519"`}, invalid},
		{"the other way round", signedRequest{kid: testPublicKID, parameters: `;alg="hmac-sha256"`}, invalid},
		{"an algorithm that no key has", signedRequest{parameters: `;alg="rsa-pss-sha512"`}, invalid},
		{"an empty algorithm", signedRequest{parameters: `;alg=""`}, invalid},
		{"an algorithm that is a token", signedRequest{parameters: `;alg=ed25519`}, malformed},
		{"a wrong secret", signedRequest{secret: "x"}, invalid},
		{"an unknown key", signedRequest{kid: "unknown"}, "authz.unexistent_apikey"},
		{"an empty key id", signedRequest{kid: " "}, "authz.unexistent_apikey"},
		{"an inactive key", signedRequest{kid: "switchedoff"}, "authz.apikey_not_active"},
		{"a key without a secret", signedRequest{kid: "secretless", secret: "-"}, invalid},
		{"no permission", signedRequest{target: "/api/v2/other"}, "authz.invalid_permission"},

		{"created before", signedRequest{age: 4 * time.Second}, ""},
		{"created after", signedRequest{age: -4 * time.Second}, ""},
		{"created too long ago", signedRequest{age: 6 * time.Second}, expired},
		{"created too far ahead", signedRequest{age: -6 * time.Second}, expired},
		{"expires later", signedRequest{parameters: fmt.Sprintf(";expires=%d", epoch.Unix()+1)}, ""},
		{"expires now", signedRequest{parameters: fmt.Sprintf(";expires=%d", epoch.Unix())}, expired},
		{"a tag and what else is signed", signedRequest{parameters: `;tag="app";x=?0;y;z=:AA==:;a=*b`}, ""},
		{"a nonce of 16", signedRequest{nonce: "sixteen-letters."}, ""},
		{"a nonce of 15", signedRequest{nonce: "fifteen-letters"}, malformed},
		{"a nonce of 128", signedRequest{nonce: strings.Repeat("x", 128)}, ""},
		{"a nonce of 129", signedRequest{nonce: strings.Repeat("x", 129)}, malformed},
		{"a nonce of 128 quotes", signedRequest{nonce: strings.Repeat(`\"`, 128)}, ""},
		{"a nonce of 15 quotes", signedRequest{nonce: strings.Repeat(`\"`, 15)}, malformed},

		{"the target", signedRequest{components: uri}, ""},
		{"the target and all else", signedRequest{components: `"@authority" "@query" "@target-uri" "@path" "@method"`}, ""},
		{"the authority", signedRequest{components: `"@authority" "@method" "@path" "@query"`}, ""},
		{"another authority", signedRequest{components: `"@authority" ` + uri, values: map[string]string{"@authority": "other.example"}}, invalid},
		{"another scheme", signedRequest{components: uri, values: map[string]string{"@target-uri": "http://app.example" + ownPath}}, invalid},
		{"authority from a peer that is not trusted", signedRequest{components: `"@authority" "@method" "@path" "@query"`, peer: "192.0.2.1"}, malformed},
		{"target from a peer that is not trusted", signedRequest{components: uri, peer: "192.0.2.1"}, malformed},
		{"a peer that is not trusted", signedRequest{peer: "192.0.2.1"}, ""},
		{"the host of a check that carries the client's elsewhere", signedRequest{components: uri, dialect: ForwardAuth}, malformed},
		{"that host", signedRequest{components: uri, dialect: AuthRequest, headers: []string{"X-Forwarded-Host: app.example:443"}}, ""},
		{"a port of its own", signedRequest{
			components: uri, dialect: ForwardAuth, headers: []string{"X-Forwarded-Host: app.example:8443"},
			values: map[string]string{"@target-uri": "https://app.example:8443" + ownPath},
		}, ""},
		{"two hosts", signedRequest{components: uri, headers: []string{"Host: app.example"}}, malformed},
		{"two hosts that nobody reads", signedRequest{headers: []string{"Host: other.example"}}, ""},
		{"this process's own host", signedRequest{components: `"@authority" "@method" "@path" "@query"`, dialect: SelfGate, peer: "192.0.2.1"}, ""},

		{"no query", signedRequest{target: "/api/v2/service0/account"}, ""},
		{"an empty query", signedRequest{target: "/api/v2/service0/account?"}, ""},
		{"no query, signed as nothing", signedRequest{target: "/api/v2/service0/account", values: map[string]string{"@query": ""}}, invalid},
		{"another query", signedRequest{values: map[string]string{"@query": "?limit=100"}}, invalid},
		{"another path", signedRequest{values: map[string]string{"@path": "/api/v2/service0/account"}}, invalid},
		{"another method", signedRequest{method: "DELETE", values: map[string]string{"@method": "GET"}}, invalid},
		{"the method in lower case", signedRequest{values: map[string]string{"@method": "get"}}, invalid},

		{"no method", signedRequest{components: `"@path" "@query"`}, invalid},
		{"no path", signedRequest{components: `"@method" "@query"`}, invalid},
		{"no query", signedRequest{components: `"@method" "@path"`}, invalid},
		{"nothing", signedRequest{components: ` `, input: `barong=();created=1;keyid="k";nonce="0123456789abcdef"`}, "authz.unexistent_apikey"},
		{"a component twice", signedRequest{components: `"@method" "@path" "@query" "@path"`}, malformed},
		{"a component in upper case", signedRequest{components: `"@Method" "@path" "@query"`}, malformed},
		{"a header in upper case", signedRequest{components: `"@method" "@path" "@query" "Content-Digest"`, digest: strong}, malformed},
		{"a component that cannot be told", signedRequest{components: `"@method" "@path" "@query" "x-forwarded-for"`}, malformed},
		{"the status of an answer", signedRequest{components: `"@method" "@path" "@query" "@status"`}, malformed},
		{"one parameter of the query", signedRequest{components: `"@method" "@path" "@query-param";name="limit"`}, malformed},
		{"a component of another message", signedRequest{components: `"@method";req "@path" "@query"`}, malformed},
		{"a member of the digest", signedRequest{components: `"@method" "@path" "@query" "content-digest";key="sha-256"`, digest: strong}, malformed},
		{"a component that is a token", signedRequest{components: `@method @path @query`}, malformed},
		{"a component that is a token beside strings", signedRequest{components: `"@method" "@path" "@query" date`}, malformed},

		{"a body", signedRequest{method: "POST", body: "{}"}, ""},
		{"a body by its SHA-512", signedRequest{method: "POST", body: "{}", digest: strong}, ""},
		{"a body by two digests", signedRequest{method: "POST", body: "{}", digest: weak + ", " + strong}, ""},
		{"a body by a weak digest", signedRequest{method: "POST", body: "{}", digest: weak}, invalid},
		{"a body whose digest is not covered", signedRequest{method: "POST", body: "{}", components: `"@method" "@path" "@query"`}, invalid},
		{"a body that a GET has", signedRequest{body: "{}", components: `"@method" "@path" "@query"`}, invalid},
		{"a body, and another digest", signedRequest{method: "POST", body: "{}", values: map[string]string{"content-digest": strong}}, invalid},
		{"no body, and the digest of nothing", signedRequest{method: "POST", content: NoContent, body: "", digest: digestField(""), components: `"@method" "@path" "@query" "content-digest"`}, ""},
		{"no body", signedRequest{method: "POST"}, ""},
		{"a covered digest that is not there", signedRequest{components: `"@method" "@path" "@query" "content-digest"`}, malformed},
		{"a digest cut short", signedRequest{method: "POST", body: "{}", digest: "sha-256=:AAAA:"}, invalid},
		{"a digest that is none", signedRequest{method: "POST", body: "{}", digest: "sha-256=AAAA"}, malformed},
		{"two digests of one kind", signedRequest{method: "POST", body: "{}", digest: strong + ", " + strong}, malformed},
		{"two lines of digests", signedRequest{method: "POST", body: "{}", headers: []string{"Content-Digest: " + strong}}, "authz.malformed_request"},

		{"another label", signedRequest{label: "sig1"}, ""},
		{"the label among others", signedRequest{
			input: `a=("@authority");created=1;keyid="x", %s,z=("@status";req "x-y";bs);tag="t"`, signature: `a=:AA==:, %s, z=:AAAA:;q=1`,
		}, ""},
		{"two labels of others", signedRequest{label: "sig1", input: `%s, sig2=()`, signature: `%s, sig2=:AA==:`}, malformed},
		{"the label twice", signedRequest{input: `%s, %s`}, malformed},
		{"the signature twice", signedRequest{signature: `%s, %s`}, malformed},
		{"a label in upper case", signedRequest{label: "Barong"}, malformed},
		{"no signature", signedRequest{signature: "-"}, malformed},
		{"a signature of another label", signedRequest{signature: "x%s"}, malformed},
		{"a signature that is a string", signedRequest{signature: `barong="AAAA"`}, malformed},
		{"a signature that is no base64", signedRequest{signature: `barong=:A:`}, malformed},
		{"a signature of spare bits", signedRequest{signature: `barong=:AB==:`}, malformed},
		{"an empty signature", signedRequest{signature: `barong=::`}, invalid},
		{"a long signature", signedRequest{signature: `barong=:` + strings.Repeat("AAAA", 100) + `:`}, invalid},
		{"more behind the signature", signedRequest{signature: `%s x`}, malformed},
		{"a comma behind the input", signedRequest{input: `%s,`}, malformed},
		{"an input that is no list", signedRequest{input: `barong`}, malformed},
		{"an input that is a string", signedRequest{input: `barong="@method"`}, malformed},
		{"spaces that mean nothing", signedRequest{input: `%s`, components: `"@method"  "@path" "@query"`}, invalid}, // since they were signed
		{"too long", signedRequest{input: `%s, x=()` + strings.Repeat(";a", 4096)}, "authz.malformed_request"},
		{"two inputs", signedRequest{headers: []string{"Signature-Input: x=()"}}, "authz.malformed_request"},
		{"two signatures", signedRequest{headers: []string{"Signature: x=:AAAA:"}}, "authz.malformed_request"},
		{"no created", signedRequest{input: `barong=("@method");keyid="k";nonce="0123456789abcdef"`}, malformed},
		{"no key id", signedRequest{input: `barong=("@method");created=1;nonce="0123456789abcdef"`}, malformed},
		{"no nonce", signedRequest{input: `barong=("@method");created=1;keyid="k"`}, malformed},
		{"created twice", signedRequest{parameters: ";created=1"}, malformed},
		{"created as a text", signedRequest{input: `barong=("@method");created="1";keyid="k";nonce="0123456789abcdef"`}, malformed},
		{"created in fractions", signedRequest{input: `barong=("@method");created=1.5;keyid="k";nonce="0123456789abcdef"`}, malformed},
		{"created with a zero", signedRequest{input: `barong=("@method");created=01;keyid="k";nonce="0123456789abcdef"`}, malformed},
		{"created of a number that fits nothing", signedRequest{input: `barong=("@method");created=1234567890123456;keyid="k";nonce="0123456789abcdef"`}, malformed},
		{"both schemes", signedRequest{headers: []string{"X-Auth-Apikey: " + testKID}}, "authz.malformed_request"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := signingWorld(t, nil)
			var r Request
			var d Decision
			tc.fill(&r, w)
			w.engine.Check(context.Background(), &r, &d)
			if d.Code != tc.want || (d.Effect == Allow) != (tc.want == "") || d.Credential != APIKey {
				t.Errorf("effect %v, status %d, code %q; want %q", d.Effect, d.Status, d.Code, tc.want)
			}
			again := d
			if w.engine.Check(context.Background(), &r, &d); again.Effect == Allow && d.Code != "authz.signature_blacklisted" {
				t.Errorf("again: effect %v, code %q", d.Effect, d.Code)
			}
		})
	}
}

// What a gateway does not say about a body is not believed to be none, but of methods whose bodies mean nothing.
func TestContentThatIsNotTold(t *testing.T) {
	w := signingWorld(t, nil)
	for method, want := range map[string]Effect{"GET": Allow, "HEAD": Allow, "POST": Deny, "PUT": Deny, "PATCH": Deny, "DELETE": Deny} {
		for components, want := range map[string]Effect{`"@method" "@path" "@query"`: want, `"@method" "@path" "@query" "content-digest"`: Allow} {
			var r Request
			var d Decision
			signedRequest{method: method, components: components, digest: digestField("")}.fill(&r, w)
			r.Content = UnknownContent
			if w.engine.Check(context.Background(), &r, &d); d.Effect != want {
				t.Errorf("%s of %s: effect %v, code %q", method, components, d.Effect, d.Code)
			}
		}
	}
}

// Sent twice, also at the same time, a signed request passes once, whatever is remembered of the nonces of scheme v1.
func TestSignedReplays(t *testing.T) {
	for name, change := range map[string]func(*world, *Options){
		"replay off": func(_ *world, o *Options) { o.Compat = true },
		"local":      func(w *world, o *Options) { o.Nonces = NewLocalNonces(0, w.now) },
	} {
		w := signingWorld(t, change)
		for _, kid := range []string{testKID, testPublicKID} {
			var r Request
			signedRequest{kid: kid, nonce: "the-same-for-both-keys"}.fill(&r, w)
			var passed, replayed atomic.Int32
			var group sync.WaitGroup
			for range 16 {
				group.Go(func() {
					var d Decision
					switch w.engine.Check(context.Background(), &r, &d); {
					case d.Effect == Allow:
						passed.Add(1)
					case d.Code == "authz.signature_blacklisted":
						replayed.Add(1)
					}
				})
			}
			if group.Wait(); passed.Load() != 1 || replayed.Load() != 15 {
				t.Errorf("%s: %d passed, %d were told to be replays", name, passed.Load(), replayed.Load())
			}
		}
	}
	w := signingWorld(t, func(_ *world, o *Options) { o.Nonces = fullNonces{} })
	var r Request
	var d Decision
	signedRequest{}.fill(&r, w)
	if w.engine.Check(context.Background(), &r, &d); d.Status != 503 {
		t.Errorf("nothing can be remembered: status %d, code %q", d.Status, d.Code)
	}
}

// A scheme that is switched off: nobody signs by it, and Signature-Input, which others use too, is not looked at.
func TestSchemes(t *testing.T) {
	for _, tc := range []struct {
		noV1, noSignatures   bool
		v1, signed, together string
	}{
		{false, false, "", "", "authz.malformed_request"},
		{true, false, "authz.invalid_api_key_headers", "", "authz.malformed_request"},
		{false, true, "", "authz.invalid_session", ""},
		{true, true, "authz.invalid_api_key_headers", "authz.invalid_session", "authz.invalid_api_key_headers"},
	} {
		w := signingWorld(t, func(_ *world, o *Options) { o.NoKeyHeaders, o.NoSignatures = tc.noV1, tc.noSignatures })
		var v1, signed, together Request
		bot(&v1, w, testKID, "GET", ownPath, 0)
		signedRequest{}.fill(&signed, w)
		bot(&together, w, testKID, "GET", ownPath, 0)
		together.AddHeader([]byte("Signature-Input"), []byte("nonsense"))
		for name, c := range map[string]struct {
			r    *Request
			want string
		}{"v1": {&v1, tc.v1}, "rfc9421": {&signed, tc.signed}, "both": {&together, tc.together}} {
			var d Decision
			if w.engine.Check(context.Background(), c.r, &d); d.Code != c.want {
				t.Errorf("%+v, %s: code %q, want %q", tc, name, d.Code, c.want)
			}
		}
	}
	// An Ed25519 key has no secret, and so no signature of scheme v1: not that of an empty secret either.
	w := signingWorld(t, nil)
	for _, kid := range []string{testPublicKID, "secretless"} {
		nonce := fmt.Sprint(w.now().UnixMilli())
		var r Request
		var d Decision
		r.Method, r.Target, r.Peer = "GET", ownPath, netip.MustParseAddr("10.0.0.2")
		for name, value := range map[string]string{"X-Auth-Apikey": kid, "X-Auth-Nonce": nonce, "X-Auth-Signature": sign(nonce, kid, "")} {
			r.AddHeader([]byte(name), []byte(value))
		}
		if w.engine.Check(context.Background(), &r, &d); d.Code != "authz.invalid_signature" {
			t.Errorf("%s: effect %v, code %q", kid, d.Effect, d.Code)
		}
	}
}

// Sections B.2.5 and B.2.6 of RFC 9421.
func TestVectors(t *testing.T) {
	secret, err := base64.StdEncoding.DecodeString("uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=\n-----END PUBLIC KEY-----\n"))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	message := map[string]string{
		"date": "Tue, 20 Apr 2021 02:07:55 GMT", "@method": "POST", "@path": "/foo", "@authority": "example.com",
		"content-type": "application/json", "content-length": "18",
	}
	for _, tc := range []struct {
		name, components, parameters, signature string
		key                                     session.APIKey
	}{
		{
			"sig-b25", `"date" "@authority" "content-type"`, `;created=1618884473;keyid="test-shared-secret"`,
			"sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
			session.APIKey{Secret: secret},
		},
		{
			"sig-b26", `"date" "@method" "@path" "@authority" "content-type" "content-length"`, `;created=1618884473;keyid="test-key-ed25519"`,
			"sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
			session.APIKey{PublicKey: public.(ed25519.PublicKey)},
		},
	} {
		r := fieldReader{text: []byte("(" + tc.components + ")" + tc.parameters)}
		if !r.innerList(nil) || r.at != len(r.text) {
			t.Errorf("%s: the input cannot be read", tc.name)
		}
		signature, ok := parseSignatureField([]byte(tc.signature), []byte(tc.name))
		if !ok {
			t.Fatalf("%s: the signature cannot be read", tc.name)
		}
		s := &signatureScratch{base: []byte(signatureBase(tc.components, tc.parameters, message))}
		found := foundKey(&tc.key)
		if !s.verify(found, signature) {
			t.Errorf("%s: the signature of the RFC is refused", tc.name)
		}
		s.base[0] ^= 1
		if s.verify(found, signature) {
			t.Errorf("%s: the signature fits another message", tc.name)
		}
	}
}

// FuzzSignatureFields holds the reader to another implementation: what it takes the other takes as well, for the same.
func FuzzSignatureFields(f *testing.F) {
	for _, seed := range []string{
		`barong=("@method" "@path" "@query");created=1;keyid="k";nonce="0123456789abcdef"`, `a=(), barong=("@method"  "@target-uri" );x;y=?0;z=*t`,
		`barong=:AAAA:;q=1,	b=::`, `sha-256=:AA==:, sha-512=:AAA=:`, `a=("\"\\" 1 -1 ?1 tok/en :AA==:;p)`, `a=1`, `a`, `a=(),`, "barong=(\"@method\")\t",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, field []byte) {
		dictionary, err := httpsfv.UnmarshalDictionary([]string{string(field)})
		var s signatureInput
		if s.parse(field) {
			if err != nil {
				t.Fatalf("%q is taken, which is %v", field, err)
			}
			member, _ := dictionary.Get(string(s.label))
			list, ok := member.(httpsfv.InnerList)
			if !ok || len(list.Items) != s.count {
				t.Fatalf("%q is taken for a list of %d", field, s.count)
			}
			for i, item := range list.Items {
				if item.Value != componentNames[s.covered[i]] || len(item.Params.Names()) > 0 {
					t.Errorf("%q: component %d is %v", field, i, item.Value)
				}
			}
			if created, _ := list.Params.Get("created"); created != s.created {
				t.Errorf("%q: created is %v, not %d", field, created, s.created)
			}
			own, err := httpsfv.Marshal(httpsfv.List{list})
			if err != nil {
				t.Fatal(err)
			}
			w := check{request: &Request{}}
			scratch := &signatureScratch{input: s}
			scratch.input.has, scratch.input.count = 0, 0 // of the base, only the last line
			_ = w.writeBase(scratch)
			_, parameters, _ := strings.Cut(own, ")")
			if got := string(scratch.base); got != `"@signature-params": ()`+parameters {
				t.Errorf("%q: signed as %s, not %s", field, got, parameters)
			}
		}
		for _, label := range []string{"barong", "a"} {
			text, ok := parseSignatureField(field, []byte(label))
			if !ok {
				continue
			}
			if err != nil {
				t.Fatalf("%q is taken, which is %v", field, err)
			}
			member, _ := dictionary.Get(label)
			if item, ok := member.(httpsfv.Item); !ok || base64.StdEncoding.EncodeToString(item.Value.([]byte)) != string(text) {
				t.Errorf("%q: the signature is %q", field, text)
			}
		}
		if strong, ok := parseDigest(field); ok && err != nil {
			t.Errorf("%q is taken, which is %v (%v)", field, err, strong)
		}
	})
}
