package envoy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Probing says what Probe asks a gateway for.
type Probing struct {
	Gateway *url.URL // where clients reach it: scheme and host
	// Guarded is a path that nobody without a credential may have, and Public one that everybody may.
	Guarded, Public string
	// Echo is a public path of a service that answers with what it was given, headers and all; empty for none. Without it
	// nobody can tell from outside what reaches a service.
	Echo string
	// Origin is that of a front end that may call from a browser; empty for none.
	Origin string
	// Kind is "envoy", "traefik", "caddy", "nginx" or "haproxy", where it is known; empty asks the gateway.
	Kind string
	TLS  *tls.Config // default: the certificate is verified for the host
}

// A Probed is one thing that Probe has tried.
type Probed struct {
	What string
	Got  string // what came back, when something is wrong
	Why  string // what is wrong with that; empty when nothing is
	Mend string // the lines of a configuration that mend it, of the gateway or of each kind
	// Open says that somebody gets what they must not have. What is wrong otherwise keeps people out, or from knowing why.
	Open bool
}

// tooLong is how many bytes of cookies no gateway and no listener of this program takes.
const tooLong = 60 << 10

// probeWait bounds one question.
const probeWait = 15 * time.Second

// prober is one run of Probe.
type prober struct {
	Probing
	address string
	canary  string
	out     []Probed
}

// An answer is what came back.
type probeAnswer struct {
	status int
	header http.Header
	body   string
}

func (a *probeAnswer) String() string {
	if a == nil {
		return "no answer"
	}
	body := strings.Join(strings.Fields(a.body), " ")
	if len(body) > 120 {
		body = strings.ToValidUTF8(body[:120], "") + "…"
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", a.status, body))
}

// code is the code of a refusal of this program's.
func (a *probeAnswer) code() string {
	code, ok := strings.CutPrefix(a.body, `{"errors":["`)
	if !ok {
		return ""
	}
	code, _, _ = strings.Cut(code, `"`)
	return code
}

// Probe sends what strangers and careless clients send through a gateway, and says what comes of it: odd paths, forged
// headers, preflights, large bodies and cookies. It signs in nowhere and changes nothing. The error says that the gateway
// cannot be asked at all.
func Probe(ctx context.Context, o Probing) ([]Probed, error) {
	p := &prober{Probing: o, canary: "canary-" + strings.ToLower(rand.Text()[:12])}
	port := o.Gateway.Port()
	if port == "" {
		port = map[string]string{"https": "443"}[o.Gateway.Scheme]
		if port == "" {
			port = "80"
		}
	}
	p.address = net.JoinHostPort(o.Gateway.Hostname(), port)
	first, err := p.ask(ctx, "GET", p.Guarded, "")
	if err != nil {
		return nil, err
	}
	if p.Kind == "" {
		p.Kind = kindOf(first.header.Get("Server"))
	}
	if !p.guarded(first) {
		return p.out, nil
	}
	p.public(ctx)
	p.oddPaths(ctx)
	p.forgedHeaders(ctx)
	p.echoed(ctx)
	p.refusals(ctx)
	p.preflights(ctx)
	p.large(ctx)
	return p.out, nil
}

func kindOf(server string) string {
	server = strings.ToLower(server)
	for _, kind := range []string{"envoy", "caddy", "nginx"} {
		if strings.HasPrefix(server, kind) {
			return kind
		}
	}
	return "" // Traefik and HAProxy do not say
}

// ask sends a request as it is: no client would send some of them. Headers are "Name: value" lines.
func (p *prober) ask(ctx context.Context, method, target, body string, headers ...string) (*probeAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if p.Gateway.Scheme == "https" {
		config := p.TLS.Clone()
		if config == nil {
			config = &tls.Config{}
		}
		config.NextProtos = []string{"http/1.1"}
		if config.ServerName == "" {
			config.ServerName = p.Gateway.Hostname()
		}
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = secure
	}
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: barong-doctor\r\nConnection: close\r\n", method, target, p.Gateway.Host)
	framed := false
	for _, h := range headers {
		text.WriteString(h + "\r\n")
		framed = framed || strings.HasPrefix(strings.ToLower(h), "content-length:")
	}
	if body != "" && !framed {
		fmt.Fprintf(&text, "Content-Length: %d\r\n", len(body))
	}
	text.WriteString("\r\n")
	sent := make(chan error, 1)
	go func() { // a gateway may answer before it has taken everything
		_, err := conn.Write(text.Bytes())
		if err == nil && body != "" {
			_, err = io.WriteString(conn, body)
		}
		sent <- err
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return nil, fmt.Errorf("the connection broke off: %w", errors.Join(err, tried(sent)))
	}
	defer resp.Body.Close()
	a := &probeAnswer{status: resp.StatusCode, header: resp.Header}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("the answer broke off: %w", err)
	}
	a.body = string(answer)
	return a, nil
}

// tried is how the sending of a request has ended, if it has.
func tried(sent chan error) error {
	select {
	case err := <-sent:
		return err
	default:
		return nil
	}
}

// found adds what was tried. why is empty when all is well.
func (p *prober) found(what string, a *probeAnswer, err error, open bool, why string, m mend) {
	f := Probed{What: what, Open: open, Why: why}
	if why != "" {
		f.Got, f.Mend = a.String(), m.lines(p.Kind)
		if err != nil {
			f.Got = err.Error()
		}
	}
	p.out = append(p.out, f)
}

// guarded looks at the answer to a request without any credential. What it says decides whether more makes sense.
func (p *prober) guarded(a *probeAnswer) bool {
	what := p.Guarded + " without a credential"
	switch code := a.code(); {
	case a.status < 400 && a.status != http.StatusFound:
		p.found(what, a, nil, true, "it is served to everybody: no check stands before it, or the rules pass it", mendCheck)
		return false
	case code == "authz.unavailable", code == "authz.untrusted_proxy", a.status >= 500:
		p.found(what, a, nil, false, "barong cannot be asked, or does not know this gateway (BARONG_TRUSTED_PROXIES)", mendCheck)
		return false
	case a.status == http.StatusFound:
		p.found(what, a, nil, false, "", mend{})
	case strings.HasPrefix(code, "authz."):
		p.found(what, a, nil, false, "", mend{})
	case a.status == http.StatusUnauthorized || a.status == http.StatusForbidden:
		p.found(what, a, nil, false, "it is refused, and the client is not told by which code: the answer of the check is lost on the way", mendRefusal)
	default:
		p.found(what, a, nil, false, "this is no refusal of a check: is there such a path behind this gateway?", mend{})
		return false
	}
	if a.header.Get("Cache-Control") != "no-store" && a.status != http.StatusFound {
		p.found("a refusal is not kept by caches", a, nil, false, "Cache-Control: no-store is lost on the way", mendRefusal)
	}
	return true
}

// public looks at what everybody may have: the rest rests on it.
func (p *prober) public(ctx context.Context) {
	a, err := p.ask(ctx, "GET", p.Public, "")
	why := ""
	if err != nil || a.status >= 400 {
		why = "everybody should have this path; give another with --public, or look at config/authz_rules.yml"
	}
	p.found(p.Public+" without a credential", a, err, false, why, mend{})
}

// oddPaths asks for the guarded path in ways that lead past the public one. None may be served.
func (p *prober) oddPaths(ctx context.Context) {
	public, guarded := strings.TrimSuffix(p.Public, "/"), strings.TrimPrefix(p.Guarded, "/")
	climb := func(step string) string { return public + strings.Repeat(step, strings.Count(public, "/")) }
	first, rest, _ := strings.Cut(guarded, "/")
	targets := []string{
		climb("/..") + "/" + guarded,
		climb("/%2e%2e") + "/" + guarded,
		climb("/.%2E") + "/" + guarded,
		climb("/..%2f") + guarded,
		climb("/..%2F") + guarded,
		climb("%2f..") + "%2f" + guarded,
		climb("/..;") + "/" + guarded,
		public + ";x=1" + strings.Repeat("/..", strings.Count(public, "/")) + "/" + guarded,
		climb(`\..`) + `\` + strings.ReplaceAll(guarded, "/", `\`),
		climb("%5c..") + "%5c" + guarded,
		climb("/%252e%252e") + "/" + guarded,
		public + "%00" + strings.TrimPrefix(climb("/.."), public) + "/" + guarded,
		public + "#/" + strings.TrimPrefix(climb("/.."), public) + "/" + guarded,
		public + "%23" + strings.TrimPrefix(climb("/.."), public) + "/" + guarded,
		public + "%3f" + strings.TrimPrefix(climb("/.."), public) + "/" + guarded,
		"//" + guarded,
		"/./" + guarded,
		"/" + first + "//" + rest,
		"/" + first + "/./" + rest,
		"/" + first + ";/" + rest,
		"/" + first + "/x/../" + rest,
		"/" + first + "/x/..%2f" + rest,
		"/" + first + "%2f" + rest,
		"/%" + fmt.Sprintf("%02x", first[0]) + first[1:] + "/" + rest,
		p.Guarded + "/",
		p.Guarded + "%20",
		p.Guarded + "?" + strings.TrimPrefix(p.Public, "/"),
		p.Gateway.Scheme + "://" + p.Gateway.Host + p.Guarded,
	}
	bad := 0
	for _, target := range targets {
		a, err := p.ask(ctx, "GET", target, "")
		if err != nil || a.status >= 300 { // a gateway may break off, or send elsewhere: nothing was served
			continue
		}
		if echo, _ := p.ask(ctx, "GET", p.Public, ""); echo != nil && echo.status == a.status && echo.body == a.body {
			continue // it is the public path by every reading
		}
		bad++
		p.found("GET "+target, a, nil, true, "a stranger is served: the gateway or the service reads the path otherwise than it was judged", mendPaths)
	}
	if bad == 0 {
		p.found(fmt.Sprintf("%d spellings of %s that lead past %s", len(targets), p.Guarded, p.Public), nil, nil, false, "", mend{})
	}
}

// forgeries are headers by which a client says what only gateways may: each would lead to the public path, or make the
// client somebody else.
func (p *prober) forgeries() [][]string {
	return [][]string{
		{"Authorization: Bearer " + p.canary},
		{"X-Forwarded-Uri: " + p.Public, "X-Forwarded-Method: GET"},
		{"X-Original-URI: " + p.Public, "X-Original-Method: GET"},
		{"X-Original-URL: " + p.Public, "X-Rewrite-URL: " + p.Public},
		{"X-Envoy-Original-Path: " + p.Public},
		{"X-Forwarded-Prefix: " + p.Public},
		{"X-HTTP-Method-Override: OPTIONS", "X-HTTP-Method: OPTIONS", "X-Method-Override: OPTIONS"},
		{"X-Auth-Status: 200"},
		{"X-Envoy-Auth-Headers-To-Remove: cookie", "X-Envoy-Internal: true"},
		{"Connection: close, X-Forwarded-Uri, X-Original-URI, Authorization"},
		{"X_Forwarded_Uri: " + p.Public, "X_Original_URI: " + p.Public},
		{"Content-Length: 0", "Transfer-Encoding: chunked"},
	}
}

// forgedHeaders sends them where a credential is needed.
func (p *prober) forgedHeaders(ctx context.Context) {
	bad, all := 0, p.forgeries()
	for _, forged := range all {
		a, err := p.ask(ctx, "GET", p.Guarded, "", forged...)
		if err != nil || a.status >= 300 {
			continue
		}
		bad++
		p.found(strings.Join(forged, ", "), a, nil, true, "a stranger is served: the check believes what the client says", mendForged)
	}
	if bad == 0 {
		p.found(fmt.Sprintf("%d sets of forged headers", len(all)), nil, nil, false, "", mend{})
	}
}

// onlyGateways are the headers that must not reach a service when a client sends them.
var onlyGateways = []string{
	"Authorization", "X-Forwarded-Uri", "X-Forwarded-Method", "X-Original-URI", "X-Original-Method", "X-Original-URL", "X-Rewrite-URL",
	"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "True-Client-IP", "Client-IP", "Forwarded", "X_Forwarded_For",
}

// echoed sends them to a service that says what it was given.
func (p *prober) echoed(ctx context.Context) {
	if p.Echo == "" {
		return
	}
	control, err := p.ask(ctx, "GET", p.Echo, "", "X-Probe: "+p.canary)
	if err != nil || control.status != http.StatusOK || !strings.Contains(control.body, p.canary) {
		p.found(p.Echo+" as an echo", control, err, false, "it is no public path that answers with the headers it was given", mend{})
		return
	}
	for _, name := range onlyGateways {
		value := p.canary
		if name == "Authorization" {
			value = "Bearer " + p.canary
		}
		a, err := p.ask(ctx, "GET", p.Echo, "", name+": "+value)
		why := ""
		if err == nil && a.status < 300 && strings.Contains(a.body, p.canary) {
			why = "what a client says there reaches the service as if the gateway said it"
		}
		p.found(name+" of a client's at "+p.Echo, a, err, why != "", why, mendHeader(name))
	}
	a, err := p.ask(ctx, "GET", p.Echo, "", "X-Forwarded-For: 192.0.2.77")
	why := ""
	if err == nil && a.status < 300 {
		// Appended, it stands before the true address, and services that read from the left are misled by their own doing.
		for _, alone := range []string{`"192.0.2.77"`, ": 192.0.2.77\n", ": 192.0.2.77\r\n"} {
			if strings.Contains(a.body, alone) {
				why = "the client's address is what the client says"
			}
		}
	}
	p.found("X-Forwarded-For of a client's at "+p.Echo, a, err, why != "", why, mendAddress)
}

// refusals looks at whether clients learn why they are refused.
func (p *prober) refusals(ctx context.Context) {
	a, err := p.ask(ctx, "GET", p.Guarded, "", "X-Auth-Apikey: "+p.canary)
	why := ""
	if err != nil || a.status != http.StatusUnprocessableEntity || a.code() != "authz.invalid_api_key_headers" {
		why = "half an API key is refused with 422 authz.invalid_api_key_headers; here the status or the code is lost"
	}
	p.found("status and code of a refusal", a, err, false, why, mendRefusal)
	if err == nil {
		why = ""
		if a.header.Get("X-Request-Id") == "" {
			why = "a refusal does not say which request it is about"
		}
		p.found("X-Request-Id of a refusal", a, nil, false, why, mendRequestID)
		for _, name := range []string{"Authorization", "X-Envoy-Auth-Headers-To-Remove"} {
			if a.header.Get(name) != "" {
				p.found(name+" in an answer", a, nil, true, "clients see what is meant for the gateway", mendCheck)
			}
		}
	}
}

// preflights asks as browsers do for pages of other origins.
func (p *prober) preflights(ctx context.Context) {
	stranger := "https://" + p.canary + ".example"
	preflight := []string{"Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: x-csrf-token"}
	a, err := p.ask(ctx, "OPTIONS", p.Guarded, "", append(preflight, "Origin: "+stranger)...)
	why := ""
	if err == nil && a.header.Get("Access-Control-Allow-Credentials") == "true" && slices.Contains([]string{stranger, "*"}, a.header.Get("Access-Control-Allow-Origin")) {
		why = "pages of every origin may call with the cookies of whoever looks at them"
	}
	p.found("a preflight of a page from anywhere", a, err, why != "", why, mendCORS)
	if p.Origin == "" {
		return
	}
	a, err = p.ask(ctx, "OPTIONS", p.Guarded, "", append(preflight, "Origin: "+p.Origin)...)
	why = ""
	if err != nil || a.status != http.StatusOK && a.status != http.StatusNoContent || a.header.Get("Access-Control-Allow-Origin") != p.Origin {
		why = "browsers do not let this page call: the gateway has to answer preflights, before the check"
	}
	p.found("a preflight of "+p.Origin, a, err, false, why, mendCORS)
	a, err = p.ask(ctx, "GET", p.Guarded, "", "Origin: "+p.Origin)
	why = ""
	if err != nil || a.header.Get("Access-Control-Allow-Origin") != p.Origin {
		why = "this page cannot read why it was refused: refusals need the headers of CORS, too"
	}
	p.found("a refusal that "+p.Origin+" reads", a, err, false, why, mendCORS)
}

// cookies sends so many bytes of them, in one line, as browsers do, and in several, as comes of HTTP/2. judge is asked what is
// wrong with the status of the answer.
func (p *prober) cookies(ctx context.Context, size int, judge func(status int) string) {
	var lines []string
	for left := size; left > 0; left -= 3000 {
		lines = append(lines, "Cookie: c"+fmt.Sprint(left)+"="+strings.Repeat("x", min(left, 3000)))
	}
	for form, headers := range map[string][]string{"in one line": {"Cookie: c=" + strings.Repeat("x", size)}, "in several lines": lines} {
		a, err := p.ask(ctx, "GET", p.Guarded, "", headers...)
		why := ""
		if err != nil {
			why = "a request with that many cookies has no answer"
		} else {
			why = judge(a.status)
		}
		p.found(fmt.Sprintf("cookies of %d KiB %s", size>>10, form), a, err, false, why, mendCookies)
	}
}

// large sends what is long and allowed.
func (p *prober) large(ctx context.Context) {
	for _, size := range []int{64 << 10, 2 << 20, 11 << 20} {
		a, err := p.ask(ctx, "POST", p.Guarded, strings.Repeat("x", size), "Content-Type: application/octet-stream")
		why := ""
		if err != nil || a.status >= 500 || a.status == http.StatusRequestEntityTooLarge || a.status == http.StatusBadRequest {
			why = "a stranger should be told 401: uploads of this size do not get through, or the check breaks on them"
		}
		p.found(fmt.Sprintf("a body of %d KiB", size>>10), a, err, false, why, mendBody)
	}
	for _, size := range []int{4 << 10, 12 << 10, 20 << 10} {
		p.cookies(ctx, size, func(status int) string {
			if status >= 500 || status == http.StatusBadRequest || status == http.StatusRequestHeaderFieldsTooLarge {
				return "browsers collect cookies of this size for one domain, and would be refused for ever"
			}
			return ""
		})
	}
	p.cookies(ctx, tooLong, func(status int) string {
		if status != http.StatusRequestHeaderFieldsTooLarge {
			return "headers that are too large are refused with 431, so that who sends them learns that it is their size"
		}
		return ""
	})
}
