package envoy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	extauthzfilter "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// A Finding is a line of a gateway's configuration that takes the check away or makes it judge what a client may forge.
type Finding struct {
	Line    int
	Setting string // as it stands there
	Why     string
	// Open says that requests pass unchecked that should be checked.
	Open bool
	// Signed says that it is about requests that are signed whole (RFC 9421) alone.
	Signed bool
}

func (f Finding) String() string { return fmt.Sprintf("line %d: %s: %s", f.Line, f.Setting, f.Why) }

// Linted is what Lint makes of a file.
type Linted struct {
	Gateway string // whose configuration it is; empty when nothing of it was understood
	Asks    bool   // it has a check asked; a file that is a part of a configuration need not
	Found   []Finding
	// Unasked is where requests are sent on in a file that has no check asked; nil for none. What includes others may have
	// it asked there.
	Unasked *Finding
}

// maxLint is the largest file that Lint reads, in bytes.
const maxLint = 8 << 20

// weak are the settings, of gateways and of what writes their configurations, that must not be on.
var weak = map[string]Finding{
	"failure_mode_allow": {Why: "every request passes as soon as barong cannot be asked", Open: true}, // Envoy
	"failureModeAllow":   {Why: "every request passes as soon as barong cannot be asked", Open: true},
	"failOpen":           {Why: "every request passes as soon as barong cannot be asked", Open: true}, // Istio, Envoy Gateway
	"fail_open":          {Why: "every request passes as soon as barong cannot be asked", Open: true},
	"trustForwardHeader": {Why: "clients may say which path they ask for"}, // Traefik
}

// Lint looks for what defeats the check in a gateway's configuration: a check that is not asked at all, one that is switched
// off for a part, settings that open it, and headers of signed requests that the check does not get, or gets as clients write
// them. It reads Envoy's, Istio's, Envoy Gateway's, Contour's, ingress-nginx's
// and Traefik's configurations as YAML or JSON, of one or several documents, Envoy's filter by its own schema; nginx.conf,
// Caddyfiles and HAProxy's by their grammar; and anything else, such as templates, line by line. That nothing is found does not mean
// that the file is right: compare it with the reference beside this package.
func Lint(text []byte) (Linted, error) {
	if len(text) > maxLint {
		return Linted{}, fmt.Errorf("larger than %d bytes", maxLint)
	}
	l := linter{seen: map[*yaml.Node]bool{}}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || !structured(&doc) { // no YAML, or a text that happens to be some
			return lintText(string(text)), nil
		}
		l.walk("", &doc)
	}
	l.conclude()
	slices.SortStableFunc(l.Found, func(a, b Finding) int { return a.Line - b.Line })
	return l.Linted, nil
}

// structured reports whether a document is more than a text.
func structured(doc *yaml.Node) bool {
	return len(doc.Content) == 1 && (doc.Content[0].Kind != yaml.ScalarNode || doc.Content[0].Tag == "!!null")
}

type linter struct {
	Linted
	seen   map[*yaml.Node]bool // an anchor is looked at once
	routes *yaml.Node          // what sends requests on, which some check must stand before
	asked  *yaml.Node          // what has the check asked
	passes []passed            // the lists of headers that reach the check
	framed bool                // something is said about X-Original-Framing elsewhere
}

// marks are the keys, and values of kind and @type, by which configurations are told, and those by which they have a check
// asked. What ends in a star matches any ending.
var marks = []struct {
	mark, gateway string
	asks, routes  bool
}{
	{mark: "static_resources", gateway: "Envoy"},
	{mark: "staticResources", gateway: "Envoy"},
	{mark: "dynamic_resources", gateway: "Envoy"},
	{mark: "virtual_hosts", gateway: "Envoy"},
	{mark: "type.googleapis.com/envoy.*", gateway: "Envoy"},
	{mark: typeURL + "network.http_connection_manager.v3.HttpConnectionManager", gateway: "Envoy", routes: true},
	{mark: typeURL + "http.ext_authz.v3.ExtAuthz", gateway: "Envoy", asks: true},
	{mark: "envoyExtAuthzHttp", gateway: "Istio", asks: true},
	{mark: "envoyExtAuthzGrpc", gateway: "Istio", asks: true},
	{mark: "AuthorizationPolicy", gateway: "Istio"},
	{mark: "EnvoyFilter", gateway: "Istio"},
	{mark: "SecurityPolicy", gateway: "Envoy Gateway"},
	{mark: "ClientTrafficPolicy", gateway: "Envoy Gateway"},
	{mark: "extAuth", gateway: "Envoy Gateway", asks: true},
	{mark: "HTTPProxy", gateway: "Contour"},
	{mark: "ExtensionService", gateway: "Contour"},
	{mark: "extensionRef", gateway: "Contour", asks: true},
	{mark: "nginx.ingress.kubernetes.io/auth-url", gateway: "ingress-nginx", asks: true},
	{mark: "nginx.ingress.kubernetes.io/*", gateway: "ingress-nginx"},
	{mark: "forwardAuth", gateway: "Traefik", asks: true},
	{mark: "entryPoints", gateway: "Traefik"},
	{mark: "routers", gateway: "Traefik", routes: true},
	{mark: "IngressRoute", gateway: "Traefik"},
	{mark: "handler: reverse_proxy", gateway: "Caddy", routes: true},
	{mark: "handler: *", gateway: "Caddy"},
	{mark: "uri: " + ForwardAuthPath + "*", gateway: "Caddy", asks: true},
}

const typeURL = "type.googleapis.com/envoy.extensions.filters."

// note takes in a mark at a node.
func (l *linter) note(text string, n *yaml.Node) {
	for _, m := range marks {
		prefix, any := strings.CutSuffix(m.mark, "*")
		if text != m.mark && !(any && strings.HasPrefix(text, prefix)) {
			continue
		}
		if l.Gateway == "" || m.asks {
			l.Gateway = m.gateway
		}
		l.Asks = l.Asks || m.asks
		if m.asks && l.asked == nil {
			l.asked = n
		}
		if m.routes && l.routes == nil {
			l.routes = n
		}
	}
}

// conclude finds that requests are sent on and nothing asks, and what is missing from what is asked.
func (l *linter) conclude() {
	l.signatures()
	if l.routes != nil && !l.Asks {
		l.Unasked = &Finding{
			Line: l.routes.Line, Setting: l.routes.Value, Why: "requests are sent on and nothing has them checked", Open: true,
		}
	}
}

// walk looks at a node that stands under a key.
func (l *linter) walk(key string, n *yaml.Node) {
	if n == nil || l.seen[n] {
		return
	}
	l.seen[n] = true
	l.walk(key, n.Alias)
	if n.Kind != yaml.MappingNode {
		for _, item := range n.Content {
			l.walk(key, item)
		}
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		l.note(name.Value, name)
		if name.Value == "@type" || name.Value == "kind" {
			l.note(value.Value, value)
			l.parse(value, n)
		}
		if name.Value == "handler" || name.Value == "uri" { // of Caddy's JSON
			l.note(name.Value+": "+value.Value, value)
		}
		if slices.Contains(passing, name.Value) {
			l.passes = append(l.passes, passed{name, headersIn(value)})
			continue
		}
		l.framed = l.framed || isFraming(name) || isFraming(value) ||
			value.Kind == yaml.SequenceNode && slices.ContainsFunc(value.Content, isFraming)
		f, ok := weak[name.Value]
		if name.Value == "disabled" && (strings.Contains(key, "ext_authz") || key == "authPolicy") { // ExtAuthzPerRoute, Contour's HTTPProxy
			f, ok = Finding{Why: "what this route matches passes unchecked"}, true
		}
		if ok && on(value.Value) {
			f.Line, f.Setting = name.Line, name.Value+": "+value.Value
			l.Found = append(l.Found, f)
		}
		l.walk(name.Value, value)
	}
}

// passing are the keys of the lists of headers that reach the check: those of Envoy, Istio, Envoy Gateway and Traefik.
var passing = []string{"allowed_headers", "allowedHeaders", "includeRequestHeadersInCheck", "headersToExtAuth", "authRequestHeaders"}

// A passed is a list of headers that reach the check.
type passed struct {
	key   *yaml.Node
	names []string // in lower case; nil where a pattern may name any
}

// headersIn are the headers that a list names, by texts or by Envoy's patterns; nil where not all patterns are plain texts.
func headersIn(n *yaml.Node) []string {
	names := []string{}
	var look func(key string, n *yaml.Node) bool
	look = func(key string, n *yaml.Node) bool {
		switch n.Kind {
		case yaml.ScalarNode:
			switch key {
			case "", "patterns", "exact":
				names = append(names, strings.ToLower(n.Value))
			case "ignore_case", "ignoreCase":
			default:
				return false
			}
			return true
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				if !look(n.Content[i].Value, n.Content[i+1]) {
					return false
				}
			}
			return true
		case yaml.SequenceNode:
			return !slices.ContainsFunc(n.Content, func(item *yaml.Node) bool { return !look(key, item) })
		case yaml.AliasNode, yaml.DocumentNode: // which might lead back here
		}
		return false
	}
	if !look("", n) {
		return nil
	}
	return names
}

func isFraming(n *yaml.Node) bool { return nameFraming.Is([]byte(n.Value)) }

// What may be wrong with the headers of requests that are signed whole.
const (
	withoutSignature = "calls of API keys that sign the whole request (RFC 9421) are refused, for the check does not get "
	forgedFraming    = "clients may say in X-Original-Framing that they send no body, which their signature then need not cover: set or remove that header"
)

// signatures looks for the headers of requests that are signed whole: that they reach the check, and that clients do not say
// themselves whether they send a body.
func (l *linter) signatures() {
	if l.asked == nil {
		return
	}
	told := l.Gateway == "Traefik" || l.Gateway == "ingress-nginx" // without a list every header reaches the check
	for _, p := range l.passes {
		told = p.names == nil || slices.Contains(p.names, "x-original-framing")
		var missing []string
		for _, name := range []string{"signature", "signature-input", "content-digest"} {
			if p.names != nil && !slices.Contains(p.names, name) {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			l.Found = append(l.Found, Finding{
				Line: p.key.Line, Setting: p.key.Value, Why: withoutSignature + strings.Join(missing, ", "), Signed: true,
			})
		}
	}
	if told && !l.framed {
		l.Found = append(l.Found, Finding{Line: l.asked.Line, Setting: l.asked.Value, Why: forgedFraming, Signed: true})
	}
}

// parse reads what Envoy's filter is made of as Envoy does: it would refuse a field that it does not know, and run without
// the change that was wanted.
func (l *linter) parse(kind, n *yaml.Node) {
	var m proto.Message
	switch kind.Value {
	case typeURL + "http.ext_authz.v3.ExtAuthz":
		m = new(extauthzfilter.ExtAuthz)
	case typeURL + "http.ext_authz.v3.ExtAuthzPerRoute":
		m = new(extauthzfilter.ExtAuthzPerRoute)
	default:
		return
	}
	var fields map[string]any
	if err := n.Decode(&fields); err != nil {
		return // by an alias to itself, or keys that are no text: the gateway's own parser says so
	}
	delete(fields, "@type")
	dropTyped(fields)
	text, err := json.Marshal(fields)
	if err != nil {
		return
	}
	if err := protojson.Unmarshal(text, m); err != nil {
		// Where in the JSON, whose lines are not those of the file.
		why := protoPrefix.ReplaceAllString(err.Error(), "")
		l.Found = append(l.Found, Finding{Line: kind.Line, Setting: kind.Value, Why: "Envoy does not take it: " + why})
	}
}

func on(value string) bool {
	return slices.Contains([]string{"true", "yes", "on"}, strings.ToLower(value))
}

// dropTyped drops what is of a type of its own, such as another extension, whose schema is not here.
func dropTyped(value any) {
	switch v := value.(type) {
	case map[string]any:
		for key, item := range v {
			if inner, ok := item.(map[string]any); ok && inner["@type"] != nil {
				delete(v, key)
				continue
			}
			dropTyped(item)
		}
	case []any:
		for _, item := range v {
			dropTyped(item)
		}
	}
}

// protoPrefix is what protojson begins its errors with, by chance with one space or another.
var protoPrefix = regexp.MustCompile(`proto:[\s\x{a0}]+|\(line \d+:\d+\): `)

// Settings of files that are neither YAML nor JSON.
var (
	assigned = regexp.MustCompile(`["']?\b([A-Za-z_]+)["']?\s*[:=]\s*["']?(?i:true|yes|on)\b`)
	// A check that failed is answered with success: nginx takes whatever its error page answers.
	failedIsFine = regexp.MustCompile(`\berror_page\s[^;]*\b5\d\d\b[^;]*=\s*2\d\d\b`)
	// What names a check, in templates and in forms of configurations that are read by no grammar here.
	asking = regexp.MustCompile(`(?i)\b(ext_authz|envoyExtAuthz(?:Http|Grpc)|forwardAuth|auth-url)\b`)
)

// askingLines are lines of nginx.conf and Caddyfiles that have a check asked.
var askingLines = regexp.MustCompile(`(?m)^\s*(auth_request|forward_auth)\s+[^\s;]*[/:]`)

// askers are the gateways of asking.
var askers = map[string]string{
	"ext_authz": "Envoy", "envoyextauthzhttp": "Istio", "envoyextauthzgrpc": "Istio", "forwardauth": "Traefik", "auth-url": "ingress-nginx",
}

// lintText reads nginx.conf, a Caddyfile or lines.
func lintText(text string) Linted {
	var l Linted
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(line, "#")
		for _, m := range assigned.FindAllStringSubmatch(line, -1) {
			if f, ok := weak[m[1]]; ok {
				f.Line, f.Setting = n, m[0]
				l.Found = append(l.Found, f)
			}
		}
		if m := failedIsFine.FindString(line); m != "" {
			l.Found = append(l.Found, Finding{Line: n, Setting: m, Why: "a check that fails is answered with success", Open: true})
		}
		if m := asking.FindString(line); m != "" {
			l.Gateway, l.Asks = askers[strings.ToLower(m)], true
		}
	}
	if l.Gateway == "" {
		l.haproxy(text)
	}
	if l.Gateway == "" {
		l.nginx(text)
	}
	if l.Gateway == "" {
		l.caddy(text)
	}
	if m := askingLines.FindStringSubmatch(text); m != nil && l.Gateway == "" { // a template of them, or one with a program in it
		l.Gateway, l.Asks = map[string]string{"auth_request": "nginx", "forward_auth": "Caddy"}[m[1]], true
	}
	slices.SortStableFunc(l.Found, func(a, b Finding) int { return a.Line - b.Line })
	return l
}

// What haproxy.cfg is told by: sections begin without a space, and what stands in them is indented or not.
var (
	haproxySection = regexp.MustCompile(`^(global|defaults|frontend|backend|listen|resolvers|peers|userlist|program|cache)(\s+[^{;]*)?$`)
	haproxyLine    = regexp.MustCompile(`^(bind|server|default_backend|use_backend|http-request|mode)\s+\S`)
	// A script that asks: the one beside this package, or the known one of others.
	haproxyAsks = regexp.MustCompile(`^http-request\s+lua\.(barong|auth-request|auth-intercept)\b`)
	// What refuses all that the script did not let pass.
	haproxyGuard = regexp.MustCompile(`^http-request\s+(deny|return|reject|tarpit|silent-drop)\b.*\s(unless|if\s+!)\s*\{\s*var\(txn\.`)
	haproxySends = regexp.MustCompile(`^(default_backend|use_backend|server)\s+\S`)
	haproxyOpens = regexp.MustCompile(`^http-request\s+allow\b`)
	haproxyBinds = regexp.MustCompile(`^bind\s+(\S+)`)
)

// haproxy looks at haproxy.cfg. HAProxy goes on to the next rule when a script fails: one that asks needs a rule behind it
// that refuses what the script did not let pass.
func (l *Linted) haproxy(text string) {
	type line struct {
		n    int
		text string
	}
	var sections [][]line // of those that take clients, what stands in them
	var known, inside bool
	n := 0
	for text := range strings.Lines(text) {
		n++
		trimmed := strings.TrimSpace(text)
		if trimmed == "" || trimmed[0] == '#' {
			continue
		}
		if before, _, ok := strings.Cut(trimmed, " #"); ok {
			trimmed = strings.TrimSpace(before)
		}
		if m := haproxySection.FindStringSubmatch(trimmed); m != nil {
			inside = m[1] == "frontend" || m[1] == "listen"
			if inside {
				sections = append(sections, nil)
			}
			known = true
			continue
		}
		if !known {
			return // no section to begin with
		}
		if haproxyLine.MatchString(trimmed) {
			l.Gateway = "HAProxy"
		}
		if inside {
			i := len(sections) - 1
			sections[i] = append(sections[i], line{n, trimmed})
		}
	}
	if l.Gateway == "" {
		return
	}
	for _, section := range sections {
		var asks, sends, opens *line
		guarded, clients := false, false
		for i := range section {
			at := &section[i]
			switch {
			case haproxyAsks.MatchString(at.text) && asks == nil:
				asks = at
				l.Asks = true
			case haproxyGuard.MatchString(at.text):
				guarded = guarded || asks != nil
			case haproxyOpens.MatchString(at.text) && asks == nil && opens == nil:
				opens = at
			case haproxySends.MatchString(at.text) && sends == nil:
				sends = at
			}
			if m := haproxyBinds.FindStringSubmatch(at.text); m != nil { // no client reaches a socket of this machine
				clients = clients || !strings.HasPrefix(m[1], "unix@") && !strings.HasPrefix(m[1], "abns@") && m[1][0] != '/'
			}
		}
		switch {
		case asks == nil && sends != nil && clients && l.Unasked == nil:
			l.Unasked = &Finding{
				Line: sends.n, Setting: sends.text, Why: "requests are sent on and no lua script has them checked", Open: true,
			}
		case asks != nil && !guarded:
			l.Found = append(l.Found, Finding{
				Line: asks.n, Setting: asks.text, Open: true,
				Why: "HAProxy goes on when a script fails: refuse behind it whatever it did not let pass, by a variable that it sets",
			})
		}
		if asks != nil && opens != nil {
			l.Found = append(l.Found, Finding{Line: opens.n, Setting: opens.text, Why: "what this matches passes unchecked"})
		}
	}
}

// A directive is a statement of nginx.conf or of a Caddyfile.
type directive struct {
	line  int
	words []string
	block []directive // nil for none
}

// nginx looks at nginx.conf, or a part of one.
func (l *Linted) nginx(text string) {
	words, ok := tokens(text, true)
	if !ok {
		return
	}
	all, rest, ok := block(words, true, 0)
	if !ok || len(rest) > 0 {
		return
	}
	var sends, asks *directive
	framed := false
	var look func(ds []directive, inside []directive)
	look = func(ds, inside []directive) {
		for i := range ds {
			d := &ds[i]
			switch d.words[0] {
			case "http", "server", "location", "upstream", "proxy_pass":
				l.Gateway = "nginx"
			}
			framed = framed || d.framing()
			switch d.words[0] {
			case "auth_request":
				if len(d.words) > 1 && d.words[1] != "off" {
					l.Asks = true
					if asks == nil {
						asks = d
					}
				} else if forwards(ds) && !own(ds, inside) {
					l.Found = append(l.Found, Finding{
						Line: d.line, Setting: "auth_request off", Why: "what this location matches passes unchecked",
					})
				}
			case "proxy_pass", "fastcgi_pass", "grpc_pass", "uwsgi_pass", "scgi_pass":
				if sends == nil {
					sends = d
				}
			}
			if d.block != nil {
				look(d.block, append(slices.Clone(inside), *d))
			}
		}
	}
	look(all, nil)
	l.unframed(asks, framed)
	if l.Gateway != "" && sends != nil && !l.Asks {
		l.Unasked = &Finding{
			Line: sends.line, Setting: strings.Join(sends.words, " "), Open: true,
			Why: "requests are sent on and no auth_request has them checked",
		}
	}
}

// framing reports whether a directive says something about X-Original-Framing, or may, since it includes another file.
func (d *directive) framing() bool {
	if d.words[0] == "include" || d.words[0] == "import" {
		last := d.words[len(d.words)-1]
		return !strings.HasSuffix(last, "mime.types") && !strings.HasSuffix(last, "_params")
	}
	return slices.ContainsFunc(d.words, func(word string) bool {
		return nameFraming.Is([]byte(strings.TrimLeft(word, "+->?"))) // signs of Caddyfiles
	})
}

// unframed finds a check that is asked where nothing is said about X-Original-Framing. nginx and Caddy hand every header of
// the client's on to it.
func (l *Linted) unframed(asks *directive, framed bool) {
	if asks != nil && !framed {
		l.Found = append(l.Found, Finding{Line: asks.line, Setting: strings.Join(asks.words, " "), Why: forgedFraming, Signed: true})
	}
}

// forwards reports whether a location sends requests on.
func forwards(ds []directive) bool {
	return slices.ContainsFunc(ds, func(d directive) bool { return strings.HasSuffix(d.words[0], "_pass") })
}

// own reports whether no client reaches a location: it asks the check itself, or answers a refusal.
func own(ds, inside []directive) bool {
	if slices.ContainsFunc(ds, func(d directive) bool { return d.words[0] == "internal" }) {
		return true
	}
	return len(inside) > 0 && len(inside[len(inside)-1].words) > 1 && strings.HasPrefix(inside[len(inside)-1].words[1], "@")
}

// senders are the directives of a Caddyfile by which it is told.
var senders = []string{"reverse_proxy", "php_fastcgi", "file_server", "respond", "handle", "handle_path", "route", "redir", "rewrite"}

// caddy looks at a Caddyfile.
func (l *Linted) caddy(text string) {
	words, ok := tokens(text, false)
	if !ok {
		return
	}
	all, rest, ok := block(words, false, 0)
	if !ok || len(rest) > 0 {
		return
	}
	var sends, asks *directive
	framed := false
	var look func(ds []directive)
	look = func(ds []directive) {
		for i := range ds {
			d := &ds[i]
			framed = framed || d.framing()
			switch {
			case d.words[0] == "forward_auth":
				l.Gateway, l.Asks = "Caddy", true
				if asks == nil {
					asks = d
				}
			case slices.Contains(senders, d.words[0]):
				l.Gateway = "Caddy"
				if sends == nil && (d.words[0] == "reverse_proxy" || d.words[0] == "php_fastcgi") {
					sends = d
				}
			}
			look(d.block)
		}
	}
	look(all)
	l.unframed(asks, framed)
	if sends != nil && !l.Asks {
		l.Unasked = &Finding{
			Line: sends.line, Setting: strings.Join(sends.words, " "), Open: true,
			Why: "requests are sent on and no forward_auth has them checked",
		}
	}
}

// A token is a word, or the sign that ends or begins something: ";" and the end of a line (as "\n"), "{" and "}".
type token struct {
	text string
	line int
	sign bool
}

// tokens cuts a text into words. In nginx.conf statements end with semicolons, and signs need no space around them; in a
// Caddyfile they end with the line, and signs stand alone.
func tokens(text string, nginx bool) ([]token, bool) {
	var out []token
	line := 1
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '\n':
			if !nginx {
				out = append(out, token{"\n", line, true})
			}
			line++
			i++
		case c == ' ' || c == '\t' || c == '\r':
			i++
		case c == '#':
			for i < len(text) && text[i] != '\n' {
				i++
			}
		case nginx && strings.IndexByte("{};", c) >= 0:
			out = append(out, token{string(c), line, true})
			i++
		default:
			begin, at := i, line
			for i < len(text) {
				c := text[i]
				if (c == '"' || c == '\'' && nginx || c == '`' && !nginx) && i == begin { // quoted as a whole
					end := i + 1
					for end < len(text) && text[end] != c {
						if text[end] == '\\' && c != '`' {
							end++
						}
						end++
					}
					if end >= len(text) {
						return nil, false
					}
					line += strings.Count(text[i:end], "\n")
					i = end + 1
					break
				}
				if strings.IndexByte(" \t\r\n", c) >= 0 || nginx && c == ';' || nginx && c == '{' && text[i-1] != '$' {
					break
				}
				if nginx && c == '$' && i+1 < len(text) && text[i+1] == '{' { // a variable
					if end := strings.IndexByte(text[i:], '}'); end > 0 {
						i += end
					}
				}
				if c == '\\' {
					i++
				}
				i++
			}
			i = min(i, len(text))
			word := text[begin:i]
			out = append(out, token{strings.Trim(word, "\"'`"), at, !nginx && (word == "{" || word == "}")})
		}
	}
	return out, true
}

// maxDepth is how deep blocks may lie in each other.
const maxDepth = 64

// block reads statements until the end of a block, or of the text at depth 0. rest is what comes after it.
func block(words []token, nginx bool, depth int) (out []directive, rest []token, ok bool) {
	if depth > maxDepth {
		return nil, nil, false
	}
	var d directive
	end := func() {
		if len(d.words) > 0 {
			out = append(out, d)
		}
		d = directive{}
	}
	for len(words) > 0 {
		w := words[0]
		words = words[1:]
		switch {
		case !w.sign:
			if len(d.words) == 0 {
				d.line = w.line
			}
			d.words = append(d.words, w.text)
		case w.text == "{":
			if len(d.words) == 0 {
				if nginx {
					return nil, nil, false
				}
				d.line, d.words = w.line, []string{""} // a Caddyfile's options
			}
			if d.block, words, ok = block(words, nginx, depth+1); !ok {
				return nil, nil, false
			}
			end()
		case w.text == "}":
			if depth == 0 || nginx && len(d.words) > 0 {
				return nil, nil, false
			}
			end()
			return out, words, true
		default: // the end of a statement
			end()
		}
	}
	if depth > 0 || nginx && len(d.words) > 0 {
		return nil, nil, false
	}
	end()
	return out, nil, true
}
