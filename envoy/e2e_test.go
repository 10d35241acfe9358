package envoy_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/pquerna/otp/totp"

	"barong/internal/pages"
	"barong/internal/test/openidtest"
	"barong/internal/test/testkit"
)

// Who asks. The gateways reach the program from 127.0.0.1, the only trusted proxy; clients come from elsewhere.
const (
	here       = "127.0.0.2"
	restricted = "127.0.0.3"

	adminEmail    = "admin@example.com"
	adminPassword = "Kq7!vNz3-Rw9xTb2"
)

// A client is one browser or bot at one address.
type client struct {
	http    *http.Client
	base    string // of the gateway, "http://127.0.0.1:8000"
	session string // cookie
	csrf    string
}

func newClient(t *testing.T, addr, from string) *client {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, addr)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &client{http: &http.Client{Transport: transport, Timeout: 20 * time.Second}, base: "http://" + addr}
}

// call sends a request with the session's cookie and the headers, "Name: value" lines. A body goes out as JSON.
func (c *client) call(t *testing.T, method, target string, body any, headers ...string) reply {
	t.Helper()
	if body == nil {
		return c.send(t, method, target, nil, headers...)
	}
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return c.send(t, method, target, bytes.NewReader(b), append(headers, "Content-Type: application/json")...)
}

// send sends a body as it is. Redirects are followed.
func (c *client) send(t *testing.T, method, target string, body io.Reader, headers ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.base+target, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0")
	if c.session != "" {
		req.Header.Set("Cookie", c.session)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	res, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, cookie := range res.Cookies() {
		c.session = cookie.Name + "=" + cookie.Value
	}
	return reply{Status: res.StatusCode, Header: res.Header, Body: string(b), URL: res.Request.URL}
}

// open signs in or up, and keeps the session.
func (c *client) open(t *testing.T, target, email, password string) {
	t.Helper()
	r := c.call(t, "POST", target, map[string]string{"email": email, "password": password})
	var user struct {
		CSRF string `json:"csrf_token"`
	}
	if err := json.Unmarshal([]byte(r.Body), &user); r.Status != 201 || err != nil || user.CSRF == "" || c.session == "" {
		t.Fatalf("sign in: got %+v", r)
	}
	c.csrf = "X-CSRF-Token: " + user.CSRF
}

func refused(t *testing.T, what string, r reply, status int, code string) {
	t.Helper()
	if r.Status != status || r.Body != `{"errors":["`+code+`"]}` || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		t.Errorf("%s: got %+v, want %d %s", what, r, status, code)
	}
}

// A key signs calls of the API, each with a nonce of its own.
type key struct {
	KID     string             `json:"kid"`
	Secret  string             `json:"secret"`
	private ed25519.PrivateKey // instead of a secret
}

func (k key) headers(nonce int64) []string {
	mac := hmac.New(sha256.New, []byte(k.Secret))
	fmt.Fprintf(mac, "%d%s", nonce, k.KID)
	return []string{
		"X-Auth-Apikey: " + k.KID, "X-Auth-Nonce: " + strconv.FormatInt(nonce, 10),
		"X-Auth-Signature: " + hex.EncodeToString(mac.Sum(nil)),
	}
}

// newKey signs somebody up at the program itself, switches the second factor on, and makes an API key of an algorithm.
func newKey(t *testing.T, addr, email, algorithm string) key {
	t.Helper()
	c := newClient(t, addr, here)
	c.open(t, "/api/v2/barong/identity/users", email, adminPassword)
	r := c.call(t, "POST", "/api/v2/barong/resource/otp/generate_qrcode", nil, c.csrf)
	var qr struct {
		Data struct {
			URL string `json:"url"`
		} `json:"data"`
	}
	err := json.Unmarshal([]byte(r.Body), &qr)
	if r.Status != 201 || err != nil {
		t.Fatalf("second factor: got %+v", r)
	}
	u, err := url.Parse(qr.Data.URL)
	if err != nil {
		t.Fatal(err)
	}
	// Each step's code is accepted once, and the steps beside the current one are accepted too.
	now := time.Now()
	code := func(at time.Time) string {
		code, err := totp.GenerateCode(u.Query().Get("secret"), at)
		if err != nil {
			t.Fatal(err)
		}
		return code
	}
	if r := c.call(t, "POST", "/api/v2/barong/resource/otp/enable", map[string]string{"code": code(now)}, c.csrf); r.Status != 201 {
		t.Fatalf("second factor: got %+v", r)
	}
	var k key
	parameters := map[string]string{"algorithm": algorithm, "totp_code": code(now.Add(30 * time.Second))}
	if algorithm == "Ed25519" {
		var public ed25519.PublicKey
		if public, k.private, err = ed25519.GenerateKey(nil); err != nil {
			t.Fatal(err)
		}
		parameters["public_key"] = base64.StdEncoding.EncodeToString(public)
	}
	r = c.call(t, "POST", "/api/v2/barong/resource/api_keys", parameters, c.csrf)
	if err := json.Unmarshal([]byte(r.Body), &k); r.Status != 201 || err != nil || (k.Secret == "") != (k.private != nil) {
		t.Fatalf("API key: got %+v", r)
	}
	return k
}

// publicKey returns a key of the published set.
func publicKey(t *testing.T, addr string) jwt.Keyfunc {
	t.Helper()
	r := newClient(t, addr, here).call(t, "GET", "/.well-known/jwks.json", nil)
	var set struct {
		Keys []struct{ Kid, Kty, N, E string }
	}
	if err := json.Unmarshal([]byte(r.Body), &set); r.Status != 200 || err != nil {
		t.Fatalf("keys: got %+v", r)
	}
	return func(token *jwt.Token) (any, error) {
		for _, k := range set.Keys {
			n, err1 := base64.RawURLEncoding.DecodeString(k.N)
			e, err2 := base64.RawURLEncoding.DecodeString(k.E)
			if err := errors.Join(err1, err2); err != nil || k.Kty != "RSA" {
				return nil, fmt.Errorf("key %+v: %w", k, err)
			}
			if k.Kid == token.Header["kid"] {
				return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}, nil
			}
		}
		return nil, fmt.Errorf("no key %v", token.Header["kid"])
	}
}

// world is the program and the service that all gateways of a test stand before.
type world struct {
	program  *testkit.Process
	service  *upstream
	provider *openidtest.Provider // that people may sign in with, as "one"
	ports    ports
	keys     jwt.Keyfunc
	bot, own key   // with a secret, and with a key pair of its owner's
	last     int64 // nonce
}

// nonce is the time in milliseconds, never the same twice.
func (w *world) nonce() int64 {
	w.last = max(w.last+1, time.Now().UnixMilli())
	return w.last
}

// newWorld starts the program on its embedded default. Whoever comes from the restricted address is refused with 471.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{service: newUpstream(t), provider: openidtest.Start(t)}
	w.ports = ports{
		api: testkit.FreePort(t), checks: testkit.FreePort(t), grpc: testkit.FreePort(t), upstream: w.service.port,
	}
	w.program = startProgram(t, "BARONG_HTTP_ADDR="+local(w.ports.api), "BARONG_CHECK_ADDR="+local(w.ports.checks),
		"BARONG_GRPC_ADDR="+local(w.ports.grpc), "BARONG_LOGIN_URL="+signin, "BARONG_PROVIDERS_FILE="+providersFile(t, w.provider))
	api := local(w.ports.api)
	w.keys = publicKey(t, api)
	w.bot = newKey(t, api, "bot@example.com", "HS256")
	w.own = newKey(t, api, "own@example.com", "Ed25519")
	admin := newClient(t, api, here)
	admin.open(t, "/api/v2/barong/identity/sessions", adminEmail, adminPassword)
	if r := admin.call(t, "POST", "/api/v2/barong/admin/restrictions",
		map[string]any{"scope": "ip", "value": restricted, "category": "blacklist", "code": 471}, admin.csrf); r.Status != 201 {
		t.Fatalf("restriction: got %+v", r)
	}
	return w
}

// startProgram runs the program until the end of the test, in an empty folder, and waits until it is ready.
func startProgram(t *testing.T, env ...string) *testkit.Process {
	t.Helper()
	ops := local(testkit.FreePort(t))
	env = append(env, "BARONG_OPS_ADDR="+ops, "BARONG_TRUSTED_PROXIES=127.0.0.1/32",
		"ADMIN_EMAIL="+adminEmail, "ADMIN_PASSWORD="+adminPassword)
	return testkit.Start(t, testkit.Barong(t), []string{"serve"}, env, testkit.Answers("http://"+ops+"/readyz"))
}

// arrived checks that a call reached the service, once and with a token that verifies, and returns the token's claims.
func (w *world) arrived(t *testing.T, what string, r reply) jwt.MapClaims {
	t.Helper()
	seen := w.service.take()
	if r.Status != 200 || len(seen) != 1 {
		t.Errorf("%s: got %+v, the service %+v", what, r, seen)
		return jwt.MapClaims{}
	}
	return w.claims(t, what, seen[0])
}

// claims checks the token that the service got with a call, and returns what it says.
func (w *world) claims(t *testing.T, what string, d delivery) jwt.MapClaims {
	t.Helper()
	claims := jwt.MapClaims{}
	token := strings.TrimPrefix(d.Header["authorization"], "Bearer ")
	if _, err := jwt.ParseWithClaims(token, claims, w.keys, jwt.WithValidMethods([]string{"RS256"}), jwt.WithIssuer("barong"),
		jwt.WithAudience("peatio"), jwt.WithSubject("session"), jwt.WithExpirationRequired()); err != nil {
		t.Errorf("%s: the service's token %q: %v", what, token, err)
	}
	return claims
}

const (
	account = "/api/v2/peatio/account/balances" // needs a session or a key
	public  = "/api/v2/peatio/public/markets"   // on the pass list
	blocked = "/api/v2/peatio/management/ping"  // on the block list
	signin  = "/api/v2/peatio/public/signin"    // the login page
)

// forgeries are headers by which a client claims to be another, elsewhere, or after something else. None must matter.
var forgeries = [][]string{
	{"Authorization: Bearer forged"},
	{"X-Forwarded-Uri: " + public, "X-Forwarded-Method: GET"},
	{"X-Original-URI: " + public, "X-Original-Method: GET"},
	{"X-Original-URL: " + public, "X-Rewrite-URL: " + public},
	{"X-Envoy-Original-Path: " + public, "X-Envoy-Original-Method: GET"},
	{"X-Forwarded-Prefix: /api/v2/peatio/public"},
	{"X-HTTP-Method-Override: GET"},
	{"X-HTTP-Method: GET", "X-Method-Override: GET"},
	{"X-Forwarded-For: " + here},
	{"X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1", "True-Client-IP: " + here, "Client-IP: " + here, "Forwarded: for=" + here},
	{"X-Forwarded-Host: example.com", "X-Forwarded-Proto: https"},
	{"X-Auth-Status: 200", "X-Auth-Code: none"},
	{"X-Envoy-Auth-Headers-To-Remove: cookie", "X-Envoy-Internal: true"},
}

// hopByHop asks a gateway to drop what it adds for the check.
const hopByHop = "Connection: close, X-Forwarded-For, X-Forwarded-Uri, X-Forwarded-Method, X-Original-URI, X-Original-Method, Authorization"

// The whole way, through each gateway: refused, signed in, passed with a token, signed out, refused.
func TestEndToEnd(t *testing.T) {
	w := newWorld(t)
	addrs := map[string]string{}
	for _, g := range append(slices.Concat(gateways, controlled), ingressNginx) {
		addrs[g.name] = g.start(t, w.ports)
	}
	w.service.take()
	for _, g := range slices.Concat(gateways, controlled) {
		t.Run(g.name, func(t *testing.T) { w.walk(t, addrs[g.name]) })
	}
	t.Run("ingress-nginx", func(t *testing.T) { w.throughIngressNginx(t, addrs["ingress-nginx"]) })
	t.Run("samples", func(t *testing.T) { w.samples(t, addrs["envoy over HTTP"]) })
	s := w.openSessions(t)
	w.dialects(t, s)
	for _, g := range gateways {
		t.Run(g.name+" with a provider", func(t *testing.T) { w.throughProvider(t, addrs[g.name]) })
		t.Run(g.name+" as browsers are", func(t *testing.T) { w.throughGateway(t, addrs[g.name], s) })
	}
	t.Run("listeners", func(t *testing.T) {
		for _, target := range []string{
			"/api/v2/identity/ping", "/api/v2/barong/identity/ping", "/.well-known/jwks.json", "/api/v2/openapi.json", "/docs",
			"/livez", "/readyz", "/metrics", "/",
		} {
			if r := get(t, local(w.ports.checks), target); r.Status != 404 {
				t.Errorf("the listener for checks answered %s with %+v", target, r)
			}
		}
		for _, target := range []string{"/api/v2/auth/" + public[1:], "/api/v2/forward-auth", "/api/v2/auth-request"} {
			if r := get(t, local(w.ports.api), target, "X-Forwarded-Method: GET", "X-Forwarded-Uri: "+public,
				"X-Original-Method: GET", "X-Original-URI: "+public); r.Status != 404 {
				t.Errorf("the main listener answered %s with %+v", target, r)
			}
		}
	})
	w.program.Kill()
	for _, g := range append(slices.Concat(gateways, controlled), ingressNginx) {
		t.Run(g.name+" alone", func(t *testing.T) {
			c := newClient(t, addrs[g.name], here)
			for _, target := range []string{account, public, blocked, "/api/v2/barong/identity/ping"} {
				want := g.checkless
				if g.name == ingressNginx.name && target == "/api/v2/barong/identity/ping" { // which is barong's own to check
					want = 502
				}
				if r := c.call(t, "GET", target, nil); r.Status != want || len(w.service.take()) != 0 {
					t.Errorf("%s: got %+v", target, r)
				} else if g.checkless == 503 && !strings.HasSuffix(g.name, "writes it") { // those have no words for it
					refused(t, target, r, 503, "authz.unavailable")
				}
			}
		})
	}
}

func (w *world) walk(t *testing.T, addr string) {
	stranger, c := newClient(t, addr, here), newClient(t, addr, here)
	refused(t, "a stranger", stranger.call(t, "GET", account, nil), 401, "authz.invalid_session")
	refused(t, "a stranger who changes", stranger.call(t, "POST", account, nil), 401, "authz.missing_csrf_token")
	refused(t, "a blocked path", stranger.call(t, "GET", blocked, nil), 401, "authz.permission_denied")
	if r := stranger.call(t, "GET", public, nil, "Authorization: Bearer forged"); r.Status != 200 {
		t.Errorf("a public path: got %+v", r)
	}
	if seen := w.service.take(); len(seen) != 1 || seen[0].Header["authorization"] != "" {
		t.Errorf("a public path: the service got %+v", seen)
	}

	c.open(t, "/api/v2/barong/identity/sessions", adminEmail, adminPassword)
	claims := w.arrived(t, "a session", c.call(t, "GET", account, nil))
	if claims["email"] != adminEmail || claims["role"] != "superadmin" {
		t.Errorf("the token says %+v", claims)
	}
	w.arrived(t, "a forged token", c.call(t, "GET", account, nil, "Authorization: Bearer forged"))
	if r := c.call(t, "HEAD", account, nil); r.Status != 200 || r.Body != "" || len(w.service.take()) != 1 {
		t.Errorf("HEAD: got %+v", r)
	}
	refused(t, "no CSRF token", c.call(t, "POST", account, map[string]int{"a": 1}), 401, "authz.missing_csrf_token")
	refused(t, "a wrong CSRF token", c.call(t, "POST", account, nil, "X-CSRF-Token: 00000000000000000000"), 401, "authz.csrf_token_mismatch")
	refused(t, "a blocked path with a session", c.call(t, "GET", blocked, nil), 401, "authz.permission_denied")
	if seen := w.service.take(); len(seen) != 0 {
		t.Errorf("what was refused reached the service: %+v", seen)
	}
	w.arrived(t, "a CSRF token", c.call(t, "POST", account, map[string]int{"a": 1}, c.csrf))
	if r := c.call(t, "GET", "/api/v2/barong/resource/users/me", nil); r.Status != 200 || !strings.Contains(r.Body, adminEmail) {
		t.Errorf("the API behind the gateway: got %+v", r)
	}

	w.browse(t, stranger, c)
	w.people(t, stranger, c, addr)

	signed := w.bot.headers(w.nonce())
	if claims := w.arrived(t, "an API key", stranger.call(t, "POST", account, nil, signed...)); claims["email"] != "bot@example.com" {
		t.Errorf("the token says %+v", claims)
	}
	refused(t, "a replayed API key", stranger.call(t, "GET", account, nil, signed...), 401, "authz.signature_blacklisted")
	refused(t, "half an API key", stranger.call(t, "GET", account, nil, signed[:2]...), 422, "authz.invalid_api_key_headers")

	w.signedWhole(t, stranger)

	far := newClient(t, addr, restricted)
	far.session, far.csrf = c.session, c.csrf
	refused(t, "a restricted address", far.call(t, "GET", account, nil), 471, "authz.restrict.blacklist")
	w.service.take()
	for _, forged := range forgeries {
		what := strings.Join(forged, ", ")
		refused(t, what+" by a stranger", stranger.call(t, "GET", account, nil, forged...), 401, "authz.invalid_session")
		refused(t, what+" on a blocked path", c.call(t, "GET", blocked, nil, forged...), 401, "authz.permission_denied")
		refused(t, what+" without a CSRF token", c.call(t, "DELETE", account, nil, forged...), 401, "authz.missing_csrf_token")
		refused(t, what+" from a restricted address", far.call(t, "GET", public, nil, forged...), 471, "authz.restrict.blacklist")
	}
	for _, method := range []string{"GET", "POST"} {
		if r := stranger.call(t, method, account, nil, hopByHop); r.Status < 400 {
			t.Errorf("hop by hop: got %+v", r)
		}
		if r := far.call(t, method, public, nil, hopByHop); r.Status != 471 && r.Status != 400 {
			t.Errorf("hop by hop from a restricted address: got %+v", r)
		}
	}
	w.broken(t, addr)
	if seen := w.service.take(); len(seen) != 0 {
		t.Errorf("what was refused reached the service: %+v", seen)
	}
	w.odd(t, addr)

	if r := c.call(t, "DELETE", "/api/v2/barong/identity/sessions", nil, c.csrf); r.Status != 204 && r.Status != 200 {
		t.Errorf("sign out: got %+v", r)
	}
	refused(t, "after signing out", c.call(t, "GET", account, nil), 401, "authz.invalid_session")
}

// sign signs a request whole (RFC 9421). Components are names with their values, in order.
func (k key) sign(nonce int64, components ...string) []string {
	var base, names strings.Builder
	for i := 0; i < len(components); i += 2 {
		fmt.Fprintf(&base, "%q: %s\n", components[i], components[i+1])
		fmt.Fprintf(&names, " %q", components[i])
	}
	input := fmt.Sprintf("(%s);created=%d;keyid=%q;nonce=\"nonce-%d\"", strings.TrimSpace(names.String()), time.Now().Unix(), k.KID, nonce)
	base.WriteString(`"@signature-params": ` + input)
	var signature []byte
	if k.private != nil {
		signature = ed25519.Sign(k.private, []byte(base.String()))
	} else {
		mac := hmac.New(sha256.New, []byte(k.Secret))
		mac.Write([]byte(base.String()))
		signature = mac.Sum(nil)
	}
	return []string{"Signature-Input: barong=" + input, "Signature: barong=:" + base64.StdEncoding.EncodeToString(signature) + ":"}
}

// signedWhole sends requests that are signed whole. Traefik and Istio do not tell whether there is a body,
// and Envoy not where there is no Content-Length, as in this DELETE.
func (w *world) signedWhole(t *testing.T, c *client) {
	t.Helper()
	host := strings.TrimPrefix(c.base, "http://")
	sum := sha256.Sum256([]byte("{}"))
	digest := "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
	target := account + "?page=2&a=%20b"
	get := w.bot.sign(w.nonce(), "@method", "GET", "@path", account, "@query", "?page=2&a=%20b", "@authority", host)
	w.arrived(t, "signed whole", c.send(t, "GET", target, nil, get...))
	refused(t, "signed whole, again", c.send(t, "GET", target, nil, get...), 401, "authz.signature_blacklisted")
	w.arrived(t, "signed by its target", c.send(t, "GET", target, nil,
		w.bot.sign(w.nonce(), "@method", "GET", "@target-uri", c.base+target)...))
	refused(t, "signed for another query", c.send(t, "GET", account+"?page=3", nil,
		w.bot.sign(w.nonce(), "@method", "GET", "@path", account, "@query", "?page=2")...), 401, "authz.invalid_signature")
	refused(t, "not parsed", c.send(t, "GET", target, nil, "Signature-Input: x"), 422, "authz.malformed_signature")
	post := w.bot.sign(w.nonce(), "@method", "POST", "@target-uri", c.base+target, "content-digest", digest)
	w.arrived(t, "a body and its digest", c.send(t, "POST", target, strings.NewReader("{}"), append(post, "Content-Digest: "+digest)...))
	own := w.own.sign(w.nonce(), "@method", "POST", "@path", account, "@query", "?page=2&a=%20b", "content-digest", digest)
	own = append(own, "Content-Digest: "+digest)
	if w.arrived(t, "a key pair of one's own", c.send(t, "POST", target, strings.NewReader("{}"), own...))["email"] != "own@example.com" {
		t.Error("a key pair of one's own: another token")
	}
	refused(t, "a key pair of one's own, again", c.send(t, "POST", target, strings.NewReader("{}"), own...), 401, "authz.signature_blacklisted")
	refused(t, "a key pair of one's own, for another path", c.send(t, "GET", account+"/x", nil,
		w.own.sign(w.nonce(), "@method", "GET", "@path", account, "@query", "?")...), 401, "authz.invalid_signature")
	// In one piece: HAProxy closes the connection under a body that it has refused, and Go's client then tells of that alone.
	for what, body := range map[string]string{"a body": "Content-Length: 2\r\n\r\n{}", "a body in chunks": "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"} {
		head := append([]string{"POST " + target + " HTTP/1.1", "Host: " + host}, w.bot.sign(w.nonce(), "@method", "POST", "@target-uri", c.base+target)...)
		refused(t, what+" and no digest", rawFrom(t, host, here, strings.Join(head, "\r\n")+"\r\n"+body), 401, "authz.invalid_signature")
	}
	for _, method := range []string{"POST", "DELETE"} {
		r := c.send(t, method, target, nil, append(w.bot.sign(w.nonce(), "@method", method, "@target-uri", c.base+target),
			"X-Original-Framing: HTTP/1.1 0")...)
		name := t.Name()
		never := strings.Contains(name, "/traefik") || strings.Contains(name, "Istio")
		if never || strings.Contains(name, "/envoy") && method == "DELETE" {
			refused(t, method+" where nobody tells of bodies", r, 401, "authz.invalid_signature")
		} else if w.arrived(t, method+" without a body", r)["email"] != "bot@example.com" {
			t.Errorf("%s without a body: another token", method)
		}
	}
}

// browse follows what the program links to, as browsers do: a stranger to the login page, who is signed in to further
// pages, and anybody to the file of a document.
func (w *world) browse(t *testing.T, stranger, c *client) {
	page := "Accept: text/html,application/xhtml+xml,*/*;q=0.8"
	target := account + "?tab=a%20b&x"
	if r := stranger.call(t, "GET", target, nil, page); r.Status != 200 || r.URL.Path != signin || r.URL.Host != strings.TrimPrefix(c.base, "http://") ||
		r.URL.Query().Get("rd") != c.base+target {
		t.Errorf("a browser: got %+v", r)
	}
	if r := stranger.call(t, "GET", "/", nil, page); r.Status != 200 || r.URL.Path != signin || r.URL.Query().Get("rd") != c.base+"/" {
		t.Errorf("a browser at the address alone: got %+v", r)
	}
	w.service.take()
	w.arrived(t, "a browser with a session", c.call(t, "GET", target, nil, page))
	refused(t, "a form", stranger.call(t, "POST", account, nil, page), 401, "authz.missing_csrf_token")

	r := c.call(t, "GET", "/api/v2/barong/admin/users?limit=1&order=asc", nil)
	next := regexp.MustCompile(`<([^>]*)>; rel="next"`).FindStringSubmatch(r.Header.Get("Link"))
	if r.Status != 200 || next == nil {
		t.Fatalf("users: got %+v", r)
	}
	reference, err := r.URL.Parse(next[1])
	if err != nil {
		t.Fatal(err)
	}
	if second := c.call(t, "GET", strings.TrimPrefix(reference.String(), c.base), nil); second.Status != 200 || second.Header.Get("Page") != "2" ||
		second.Body == r.Body || !strings.HasPrefix(second.Body, `[{"`) {
		t.Errorf("%s: got %+v", reference, second)
	}

	file := append([]byte("\x89PNG\r\n\x1a\n"), bytes.Repeat([]byte{1}, 3<<20)...)
	r = c.upload(t, "/api/v2/barong/resource/documents", "passport.png", file, map[string]string{
		"doc_type": "Passport", "doc_number": "AA1234BB", "doc_expire": "3020-01-22",
	})
	if r.Status != 201 {
		t.Fatalf("upload: got %+v", r)
	}
	var documents []struct{ Upload string }
	r = c.call(t, "GET", "/api/v2/barong/resource/documents", nil)
	if err := json.Unmarshal([]byte(r.Body), &documents); err != nil || len(documents) == 0 {
		t.Fatalf("documents: got %+v", r)
	}
	link := documents[len(documents)-1].Upload
	if !strings.HasPrefix(link, "/api/v2/barong/files/") {
		t.Errorf("the document is at %s", link)
	}
	if r := stranger.call(t, "GET", link, nil, page); r.Status != 200 || r.Body != string(file) ||
		!strings.HasPrefix(r.Header.Get("Content-Disposition"), "attachment") {
		t.Errorf("%s: got %d, %d bytes, %+v", link, r.Status, len(r.Body), r.Header)
	}
	if r := stranger.call(t, "HEAD", link, nil); r.Status != 200 {
		t.Errorf("HEAD %s: got %+v", link, r)
	}
	for what, spoiled := range map[string]string{
		"another signature": link[:len(link)-1] + string(link[len(link)-1]^1), "no signature": link[:strings.Index(link, "?")],
	} {
		if r := stranger.call(t, "GET", spoiled, nil); r.Status != 404 || r.Body != `{"errors":["record.not_found"]}` {
			t.Errorf("%s: got %+v", what, r)
		}
	}
	refused(t, "a change to a file", stranger.call(t, "DELETE", link, nil), 401, "authz.missing_csrf_token")
	refused(t, "what stands beside files", stranger.call(t, "GET", "/api/v2/barong/filesystem", nil), 401, "authz.invalid_session")
	if seen := w.service.take(); len(seen) != 0 {
		t.Errorf("the service got %+v", seen)
	}
}

// people opens pages as people do: those of the portal need no session, and who is signed in and refused is told so.
func (w *world) people(t *testing.T, stranger, c *client, addr string) {
	t.Helper()
	const browser = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"
	for _, target := range []string{"/accounts/signin?rd=%2Fx", "/accounts/", "/console/users"} {
		r := stranger.call(t, "GET", target, nil, browser)
		if r.Status != 200 || r.URL.Path != strings.Split(target, "?")[0] || !strings.HasPrefix(r.Body, "<!doctype html>") ||
			r.Header.Get("Content-Security-Policy") != pages.Headers("")[0].Value || r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got %+v", target, r)
		}
		for _, m := range regexp.MustCompile(`(?:src|href)="(/accounts/assets/[^"]+)"`).FindAllStringSubmatch(r.Body, -1) {
			asset := stranger.call(t, "GET", m[1], nil, "Accept-Encoding: br")
			if asset.Status != 200 || len(asset.Body) == 0 || !strings.Contains(asset.Header.Get("Cache-Control"), "immutable") {
				t.Errorf("%s: got %d, %d bytes, %v", m[1], asset.Status, len(asset.Body), asset.Header)
			}
		}
	}
	for target, want := range map[string]string{"/accounts": "/accounts/", "/console": "/console/"} {
		if r := stranger.call(t, "GET", target, nil, browser); r.Status != 200 || r.URL.Path != want {
			t.Errorf("%s: got %d at %s", target, r.Status, r.URL)
		}
	}
	refused(t, "a form to the pages", stranger.call(t, "POST", "/accounts/signin", nil, browser), 401, "authz.missing_csrf_token")
	refused(t, "what stands beside them", stranger.call(t, "GET", "/accountsX", nil), 401, "authz.invalid_session")

	w.redirects(t, addr)

	member := newClient(t, addr, here)
	email := fmt.Sprintf("member-%d@example.com", w.nonce())
	member.open(t, "/api/v2/barong/identity/users", email, adminPassword)
	r := member.call(t, "GET", "/api/v2/barong/admin/users", nil, browser, "Accept-Language: ru")
	if r.Status != 401 || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/html") || !strings.Contains(r.Body, email) ||
		!strings.Contains(r.Body, `data-code="authz.invalid_permission"`) || !strings.Contains(r.Body, `<html lang="ru">`) ||
		!strings.Contains(r.Body, `href="/accounts/assets/style`) {
		t.Errorf("a member at the door of staff: got %+v", r)
	}
	refused(t, "a program at the door of staff", member.call(t, "GET", "/api/v2/barong/admin/users", nil), 401, "authz.invalid_permission")
	far := newClient(t, addr, restricted)
	if r := far.call(t, "GET", "/accounts/", nil, browser); r.Status != 471 || r.Body != `{"errors":["authz.restrict.blacklist"]}` {
		t.Errorf("a stranger from a restricted address: got %+v", r)
	}
	far.session = c.session
	if r := far.call(t, "GET", account, nil, browser); r.Status != 471 || !strings.Contains(r.Body, adminEmail) ||
		!strings.Contains(r.Body, `data-code="authz.restrict.blacklist"`) {
		t.Errorf("somebody from a restricted address: got %+v", r)
	}
	if seen := w.service.take(); len(seen) != 0 {
		t.Errorf("the service got %+v", seen)
	}
}

// redirects tries where a link may lead after signing in, by the table of package redirect.
func (w *world) redirects(t *testing.T, addr string) {
	t.Helper()
	text, err := os.ReadFile("../internal/redirect/cases.json")
	if err != nil {
		t.Fatal(err)
	}
	var groups []struct {
		Host, Domain        string
		Hosts, Follow, Home []string
	}
	if err := json.Unmarshal(text, &groups); err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, g := range groups {
		if g.Host == "" || g.Domain != "" || len(g.Hosts) > 0 { // of other settings
			continue
		}
		for _, rd := range append(g.Follow, g.Home...) {
			want := rd
			if slices.Contains(g.Home, rd) {
				want = "/accounts/"
			}
			wire := request("GET", "/accounts/continue?rd="+url.QueryEscape(rd), "", "Connection: close")
			r := rawFrom(t, addr, here, strings.Replace(wire, "Host: gateway", "Host: "+g.Host, 1))
			if r.Status != 302 || r.Header.Get("Location") != want {
				t.Errorf("at %s %q leads to %d %q", g.Host, rd, r.Status, r.Header.Get("Location"))
			}
			tried++
		}
	}
	if tried < 40 {
		t.Errorf("only %d were tried", tried)
	}
}

// upload sends a form with a file.
func (c *client) upload(t *testing.T, target, name string, file []byte, fields map[string]string) reply {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for name, value := range fields {
		if err := form.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	part, err := form.CreateFormFile("upload[]", name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write(file); err != nil {
		t.Fatal(err)
	}
	if err := form.Close(); err != nil {
		t.Fatal(err)
	}
	return c.send(t, "POST", target, &body, "Content-Type: "+form.FormDataContentType(), c.csrf)
}

// broken sends what no browser sends: all of it is refused, whoever refuses it.
func (w *world) broken(t *testing.T, addr string) {
	signed := w.bot.headers(w.nonce())
	for what, headers := range map[string][]string{
		"a malformed cookie":     {"Cookie: =;;==;_barong_session;\"_barong_session"},
		"an empty session":       {"Cookie: _barong_session="},
		"two sessions":           {"Cookie: _barong_session=a; _barong_session=b"},
		"two lines of sessions":  {"Cookie: _barong_session=a", "Cookie: _barong_session=b"},
		"an odd session":         {"Cookie: _barong_session=../../%00"},
		"a cookie of 64 KiB":     {"Cookie: a=" + strings.Repeat("x", 64<<10)},
		"a session of 24 KiB":    {"Cookie: _barong_session=" + strings.Repeat("x", 24<<10)},
		"Latin-1":                {"User-Agent: caf\xe9"},
		"a control byte":         {"User-Agent: a\x01b"},
		"an API key twice":       append(signed, signed[0]),
		"an underscore alias":    {"X_Forwarded_For: " + here},
		"a thousand headers":     strings.Split(strings.Repeat("X-A: b\n", 1000)+"X-B: c", "\n"),
		"both framings":          {"Content-Length: 0", "Transfer-Encoding: chunked"},
		"a folded header":        {"X-A: b\r\n c"},
		"a space in a name":      {"X-A : b"},
		"two hosts":              {"Host: other"},
		"a carriage return only": {"X-A: b\rCookie: _barong_session=x"},
	} {
		r, _ := raw(t, addr, request("GET", account, "", append(headers, "Connection: close")...))
		if r.Status < 400 {
			t.Errorf("%s: got %+v", what, r)
		}
	}
	for _, method := range []string{"TRACE", "PURGE", "get", "CONNECT", "OPTIONS"} {
		r, _ := raw(t, addr, request(method, account, "", "Connection: close"))
		answered := method == "OPTIONS" && r.Status == 204 && strings.HasSuffix(t.Name(), "/ingress-nginx") // by itself, whatever is asked
		if r.Status < 400 && !answered {
			t.Errorf("%s: got %+v", method, r)
		}
	}
}

// odd sends targets of many readings as a stranger, who may see public paths alone: in every reading, what was served
// is one.
func (w *world) odd(t *testing.T, addr string) {
	for _, target := range oddTargets {
		r, _ := raw(t, addr, request("GET", target, "", "Connection: close"))
		seen := w.service.take()
		if r.Header.Get("Cross-Origin-Opener-Policy") != "" && len(seen) == 0 {
			continue // a page of the program's own
		}
		if r.Status >= 400 || r.Status == 301 {
			if len(seen) != 0 {
				t.Errorf("%s: got %+v, and the service %+v", target, r, seen)
			}
			continue
		}
		if len(seen) != 1 {
			t.Errorf("%s: got %+v, and the service %+v", target, r, seen)
			continue
		}
		for _, reading := range readings(seen[0].Target) {
			if strings.Contains(reading, "%") {
				continue // the judged path has its escapes decoded
			}
			if !strings.HasPrefix(reading, "/api/v2/peatio/public/") && reading != "/api/v2/peatio/public" {
				t.Errorf("%s: a stranger was served %q, which reads %q", target, seen[0].Target, reading)
			}
		}
	}
}

// One listener for checks and API: no spelling of a check reaches a route of the API, and none of a route a check.
func TestChecksBesideTheAPI(t *testing.T) {
	addr := local(testkit.FreePort(t))
	startProgram(t, "BARONG_HTTP_ADDR="+addr, "BARONG_GRPC_ADDR=")
	if r := get(t, addr, "/api/v2/identity/ping"); r.Status != 200 {
		t.Fatalf("the API: got %+v", r)
	}
	if r := get(t, addr, "/api/v2/auth"+public); r.Status != 200 || r.Header.Get("X-Envoy-Auth-Headers-To-Remove") != "authorization" {
		t.Fatalf("a check of a public path: got %+v", r)
	}
	for _, target := range []string{
		"/x/..%2f..%2fidentity/ping", "/x/..%2F..%2Fidentity/ping", "/../identity/ping", "/x/../../identity/ping", "/..;/identity/ping",
		"/%2e%2e/identity/ping", "/x/%2e%2e/%2e%2e/identity/ping", `/..\identity\ping`, "//identity/ping", "/..%5cidentity/ping",
		"/x/..%2f..%2f..%2f..%2f.well-known/jwks.json", "/%2e%2e/%2e%2e/%2e%2e/docs",
	} {
		if r := get(t, addr, "/api/v2/auth"+target); r.Body != `{"errors":["authz.ambiguous_path"]}` || r.Status != 400 {
			t.Errorf("a check of %s: got %+v", target, r)
		}
	}
	for _, target := range []string{
		"/api/v2/%61uth" + public, "/api/v2/identity/../auth" + public, "/api/v2/identity/%2e%2e/auth" + public,
		"/api/v2/identity/..%2fauth" + public, "/API/V2/AUTH" + public, "/api/v2/auth;x" + public, "//api/v2/auth" + public,
		"/api/v2/forward-auth/", "/api/v2/barong/../forward-auth", "http://" + addr + "/api/v2/auth" + public,
	} {
		if r := get(t, addr, target, "X-Forwarded-Method: GET", "X-Forwarded-Uri: "+public); r.Status != 400 ||
			r.Body != `{"errors":["authz.malformed_request"]}` {
			t.Errorf("%s: got %+v", target, r)
		}
	}
	// The API gated by this process itself wants what a gateway would want.
	stranger := newClient(t, addr, here)
	refused(t, "a stranger", stranger.call(t, "GET", "/api/v2/barong/resource/users/me", nil), 401, "authz.invalid_session")
	refused(t, "a forged token", stranger.call(t, "GET", "/api/v2/barong/resource/users/me", nil, "Authorization: Bearer forged"),
		401, "authz.invalid_session")
	stranger.open(t, "/api/v2/barong/identity/sessions", adminEmail, adminPassword)
	if r := stranger.call(t, "GET", "/api/v2/barong/resource/users/me", nil); r.Status != 200 || !strings.Contains(r.Body, adminEmail) {
		t.Errorf("signed in: got %+v", r)
	}
}
