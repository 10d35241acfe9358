package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"barong/internal/crypto/secret"
	"barong/internal/yamlfile"

	"go.yaml.in/yaml/v3"
)

// Where a value can come from.
const (
	fromDefault = "default"
	fromFile    = "file"
	fromEnv     = "env"
	fromFlag    = "flag"
)

const maxFileSize = 1 << 20

// A Setting is the declaration of one field of Config.
type Setting struct {
	Name    string   // the variable; empty for a key of the file alone
	Aliases []string // further variables
	Key     string   // key of the file
	Flag    string   // without the dashes; empty for a key of the file alone
	Group   string
	Default string // as it would be written; Production and Compat where they differ, else empty
	Allowed string // in words
	Help    string // from the comment
	Secret  bool

	FromFile bool // it is also read from the file that its variable with _FILE names

	Production, Compat string

	field string // of Config
	index int
	tag   reflect.StructTag
}

// title is what messages call the setting.
func (s *Setting) title() string {
	if s.Name == "" {
		return s.Key
	}
	return s.Name
}

// declared reads the tags once. Help is filled in by Settings, which has to parse the source.
var declared = sync.OnceValue(func() []Setting {
	var (
		out   []Setting
		group string
	)
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		if g, ok := f.Tag.Lookup("group"); ok {
			group = g
		}
		s := Setting{
			Name: f.Tag.Get("env"), Key: f.Tag.Get("file"), Group: group, Default: f.Tag.Get("default"),
			Production: f.Tag.Get("production"), Compat: f.Tag.Get("compat"),
			field: f.Name, index: i, tag: f.Tag,
		}
		if a := f.Tag.Get("alias"); a != "" {
			s.Aliases = strings.Split(a, ",")
		}
		if s.Name != "" {
			s.Key = strings.ToLower(strings.TrimPrefix(s.Name, "BARONG_"))
			s.Flag = strings.ReplaceAll(s.Key, "_", "-")
			if s.Key == "config" || s.Key == "config_folder" {
				s.Key = "" // the file cannot say where it is
			}
		}
		s.Secret = f.Type == reflect.TypeFor[secret.Text]()
		s.FromFile = s.Secret || f.Type == reflect.TypeFor[secret.URL]()
		s.Allowed = allowed(f.Type, f.Tag)
		out = append(out, s)
	}
	return out
})

// A Judge judges the value of one variable more closely than its declaration can. The error says what is allowed, and holds
// nothing of the value.
type Judge struct {
	Name  string
	Judge func(value string) error
}

// Load reads the configuration. flags holds what was given on the command line by Setting.Flag; environ is as
// os.Environ returns it. The error is an *Error with a line for every bad value; what could be read is returned beside it,
// so that Validate can tell what else is wrong.
func Load(flags map[string]string, environ []string, judges ...Judge) (*Config, error) {
	c := &Config{env: map[string]string{}, files: map[string]string{}, bad: map[string]bool{}}
	l := loader{c: c, flags: flags, env: c.env, judges: judges, trimmed: map[string]bool{}}
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok {
			l.env[name] = strings.TrimRightFunc(value, unicode.IsSpace)
			l.trimmed[name] = len(l.env[name]) < len(value)
		}
	}
	l.load()
	if len(l.problems) > 0 {
		return c, &Error{Problems: l.lines()}
	}
	return c, nil
}

type loader struct {
	c        *Config
	flags    map[string]string
	env      map[string]string
	trimmed  map[string]bool // variables that white space was taken from
	judges   []Judge
	file     map[string]*yaml.Node
	path     string // of the file
	problems []told
}

// told is a problem: a line about a setting, or, with no name, about the file.
type told struct{ about, line string }

func (l *loader) lines() []string {
	var out []string
	for _, p := range l.problems {
		if !slices.Contains(out, p.line) {
			out = append(out, p.line)
		}
	}
	return out
}

func (l *loader) problem(about, format string, args ...any) {
	l.problems = append(l.problems, told{about, fmt.Sprintf(format, args...)})
	l.c.bad[about] = true
}

func (l *loader) warn(format string, args ...any) {
	if line := fmt.Sprintf(format, args...); !slices.Contains(l.c.warnings, line) {
		l.c.warnings = append(l.c.warnings, line)
	}
}

func (l *loader) load() {
	settings := declared()
	// Where the file is, and which defaults hold, must be known before everything else.
	for _, first := range []string{"BARONG_CONFIG_FOLDER", "BARONG_CONFIG", "BARONG_ENV", "BARONG_COMPAT"} {
		i := slices.IndexFunc(settings, func(s Setting) bool { return s.Name == first })
		l.set(&settings[i])
		if first == "BARONG_CONFIG" && l.c.ConfigFile != "" && len(l.problems) == 0 {
			l.readFile()
		}
	}
	early := l.problems
	l.c.values, l.problems = nil, nil
	for i := range settings {
		l.set(&settings[i])
	}
	l.problems = append(l.problems, early...) // of the file itself; the others are there already
	l.leaveOutUnused(settings)
	l.unknown(settings)
	l.derive()
}

// A given is what was found for a setting, and where.
type given struct {
	text           string
	source, origin string
	node           *yaml.Node // in the file
	called         string     // the name to complain about
	from           string     // the file of a secret
}

// find finds what a setting was given in the strongest source that has something. ok is false where it has nothing, or what
// it has cannot be read.
func (l *loader) find(s *Setting) (g given, ok bool) {
	g = given{source: fromDefault, called: s.title()}
	if text, found := l.flags[s.Flag]; found && s.Flag != "" {
		return given{text: text, source: fromFlag, origin: "--" + s.Flag, called: s.title()}, true
	}
	names := append([]string{s.Name}, s.Aliases...)
	if s.Name == "BARONG_ENV" && unquote(l.env["RAILS_ENV"]) == "production" {
		names = append(names, "RAILS_ENV")
	}
	for _, name := range names {
		text, found := l.env[name]
		found = found && name != ""
		if found && s.tag.Get("kind") != "" && strings.HasPrefix(s.tag.Get("kind"), "port") && serviceURL.MatchString(unquote(text)) {
			l.warn("%s=%s is Kubernetes' own, about a Service of that name, and is ignored", name, secret.Redact(text))
			found = false
		}
		path := unquote(l.env[name+fileSuffix])
		if !s.FromFile {
			path = ""
		}
		switch {
		case path != "" && text != "":
			l.problem(s.title(), "%s and %s%s are both set: keep one of them", name, name, fileSuffix)
			return g, false
		case path != "":
			return l.readSecret(s, path, given{source: fromEnv, origin: name + fileSuffix, called: name})
		case found:
			if l.trimmed[name] {
				l.warn("white space at the end of %s is dropped", name)
			}
			if bare := unquote(text); bare != text && s.Secret {
				l.warn("%s is in quotes: they are part of its value", name)
			} else if bare != text {
				l.warn("%s is in quotes: they are dropped", name)
				text = bare
			}
			return given{text: text, source: fromEnv, origin: name, called: name}, true
		}
	}
	if n, found := l.file[s.Key]; found && s.Key != "" {
		g = given{node: n, source: fromFile, origin: l.path, called: s.title()}
		if s.Name == "" {
			return g, true
		}
		var err error
		if g.text, err = scalar(n); err != nil {
			l.problem(s.title(), "%s in %s, line %d: %s", s.Key, l.path, n.Line, err)
			return g, false
		}
		g.text = strings.TrimRightFunc(g.text, unicode.IsSpace)
		return g, true
	}
	if n, found := l.file[s.Key+strings.ToLower(fileSuffix)]; found && s.Key != "" && s.FromFile {
		path, err := scalar(n)
		if err != nil {
			l.problem(s.title(), "%s in %s, line %d: %s", s.Key+strings.ToLower(fileSuffix), l.path, n.Line, err)
			return g, false
		}
		if path != "" {
			return l.readSecret(s, path, given{node: n, source: fromFile, origin: l.path, called: s.title()})
		}
	}
	return g, true
}

// fileSuffix makes of a secret's variable the one that names a file with it.
const fileSuffix = "_FILE"

// maxSecretFile is the longest file of a secret, in bytes.
const maxSecretFile = 64 << 10

// readSecret reads the file of a secret.
func (l *loader) readSecret(s *Setting, path string, g given) (given, bool) {
	path = l.place(path)
	f, err := os.Open(path)
	if err == nil {
		defer f.Close()
		var text []byte
		if text, err = io.ReadAll(io.LimitReader(f, maxSecretFile+1)); err == nil && len(text) > maxSecretFile {
			err = fmt.Errorf("%s is larger than %d bytes", path, maxSecretFile)
		}
		g.text = strings.TrimRightFunc(string(text), unicode.IsSpace)
	}
	if err != nil {
		l.problem(s.title(), "%s", problem(g.called+fileSuffix, path, "the path of a file that can be read: "+err.Error()))
		return g, false
	}
	g.from = path
	l.c.files[s.Name] = path
	return g, true
}

// place is where a file is: where its path says, or else in the folder that stands in for config/.
func (l *loader) place(path string) string {
	rest, ok := strings.CutPrefix(path, "config/")
	if !ok || l.c.ConfigFolder == "" {
		return path
	}
	if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return path
	}
	other := filepath.Join(l.c.ConfigFolder, rest)
	if _, err := os.Stat(other); err != nil {
		return path
	}
	return other
}

// serviceURL is what Kubernetes puts into the variable <SERVICE>_PORT of each Pod.
var serviceURL = regexp.MustCompile(`^(tcp|udp|sctp)://`)

// unquote takes the quotes off a text that is in quotes, as some readers of environment files leave them.
func unquote(s string) string {
	if n := len(s); n >= 2 && (s[0] == '"' || s[0] == '\'') && s[0] == s[n-1] {
		return s[1 : n-1]
	}
	return s
}

// set finds the value of a setting in the strongest source that has one, and stores it.
func (l *loader) set(s *Setting) {
	field := reflect.ValueOf(l.c).Elem().Field(s.index)
	g, ok := l.find(s)
	if !ok {
		return
	}
	v := Value{Name: s.title(), Source: g.source, Origin: g.origin}
	found := g.source != fromDefault
	if !found {
		g.text = s.Default
		if s.Production != "" && l.c.Production() {
			g.text = s.Production
		}
		if s.Compat != "" && l.c.Original() {
			g.text = s.Compat
		}
	}
	if s.Name == "" { // a key of the file alone: its default is YAML too
		if g.node == nil {
			g.node = mustYAML(g.text)
		}
		if err := decodeNode(field, g.node, s.tag); err != nil {
			l.problem(s.title(), "%s in %s, line %d: %s", s.Key, l.path, g.node.Line, err)
			return
		}
		v.Text = show(field)
		l.c.values = append(l.c.values, v)
		return
	}
	kind := s.tag.Get("kind")
	if strings.HasPrefix(kind, "file") || strings.HasPrefix(kind, "folder") || kind == "place" {
		g.text = l.place(g.text)
	}
	if !found && strings.HasPrefix(kind, "file") && g.text != "" {
		// A default path is only an offer.
		if _, err := os.Stat(g.text); errors.Is(err, fs.ErrNotExist) {
			g.text = ""
		}
	}
	if !found && g.text == "" && s.tag.Get("default") == "" { // the field's zero value, whatever the kind
		l.c.values = append(l.c.values, v)
		return
	}
	allowed, ok := decode(field, g.text, s.tag)
	if !ok && kind == "database" && isMySQL(g.text) {
		allowed = toImport
	}
	for _, j := range l.judges {
		if ok && j.Name == s.Name && g.text != "" {
			if err := j.Judge(g.text); err != nil {
				allowed, ok = strings.Join(strings.Fields(err.Error()), " "), false
			}
		}
	}
	if !ok {
		field.SetZero()
		shown := g.text
		if s.Secret && shown != "" {
			shown = secret.Mask
		}
		p := problem(g.called, shown, allowed)
		switch {
		case g.from != "":
			p += " (" + g.from + ")"
		case g.node != nil:
			p += fmt.Sprintf(" (%s, line %d)", l.path, g.node.Line)
		}
		l.problem(s.title(), "%s", p)
		return
	}
	v.Text = display(field, g.text)
	l.c.values = append(l.c.values, v)
}

// leaveOutUnused forgets what was given to settings that nothing uses as the others stand, and what is wrong with it. What
// was given to no effect is told.
func (l *loader) leaveOutUnused(settings []Setting) {
	bad := l.c.bad
	idle := map[string][]string{} // by reason
	var reasons []string
	for i := range settings {
		s := &settings[i]
		why, used := l.used(s)
		if used || (!bad[s.Name] && !l.c.given(s.Name)) {
			continue
		}
		l.problems = slices.DeleteFunc(l.problems, func(p told) bool { return p.about == s.Name })
		text := l.c.value(s.Name)
		field := reflect.ValueOf(l.c).Elem().Field(s.index)
		field.SetZero()
		if s.Default != "" {
			decode(field, s.Default, s.tag)
		}
		l.c.values = slices.DeleteFunc(l.c.values, func(v Value) bool { return v.Name == s.Name })
		l.c.values = append(l.c.values, Value{Name: s.Name, Text: display(field, s.Default), Source: fromDefault})
		wrong := bad[s.Name]
		delete(bad, s.Name)
		if text != "" || wrong { // what is left empty is not meant
			if idle[why] == nil {
				reasons = append(reasons, why)
			}
			idle[why] = append(idle[why], s.Name)
		}
	}
	for _, why := range reasons {
		have := "has"
		if len(idle[why]) > 1 {
			have = "have"
		}
		l.warn("%s %s no effect %s", strings.Join(idle[why], ", "), have, why)
	}
	order := func(v Value) int {
		return slices.IndexFunc(settings, func(s Setting) bool { return s.title() == v.Name })
	}
	slices.SortStableFunc(l.c.values, func(a, b Value) int { return order(a) - order(b) })
}

// used reports whether a setting is used as the others stand, by its tag "needs"; why says why not.
func (l *loader) used(s *Setting) (why string, used bool) {
	bad := l.c.bad
	needs := s.tag.Get("needs")
	if needs == "" {
		return "", true
	}
	if name, ok := strings.CutPrefix(needs, "!"); ok {
		return "beside " + name, !bad[name] && (!l.c.given(name) || l.c.value(name) == "")
	}
	name, words, choice := strings.Cut(needs, "=")
	value := l.c.value(name)
	if !choice {
		return "without " + name, bad[name] || value != ""
	}
	return "with " + name + "=" + value, bad[name] || slices.Contains(strings.Fields(words), strings.ToLower(value))
}

// readFile parses the file into its top-level keys.
func (l *loader) readFile() {
	l.path = l.c.ConfigFile
	f, err := os.Open(l.path)
	if err != nil {
		l.problem("BARONG_CONFIG", "BARONG_CONFIG: %s", err)
		return
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err == nil && len(text) > maxFileSize {
		err = fmt.Errorf("larger than %d bytes", maxFileSize)
	}
	if err != nil {
		l.problem("BARONG_CONFIG", "BARONG_CONFIG: %s: %s", l.path, err)
		return
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		l.problem("BARONG_CONFIG", "BARONG_CONFIG: %s: %s", l.path, strings.ReplaceAll(err.Error(), "\n", " "))
		return
	}
	l.file = map[string]*yaml.Node{}
	if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
		return // nothing but comments
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		l.problem("BARONG_CONFIG", "BARONG_CONFIG: %s: not a mapping of keys to values", l.path)
		return
	}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		if _, twice := l.file[key.Value]; twice {
			l.problem("", "%s in %s, line %d: the key stands there twice", key.Value, l.path, key.Line)
		}
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		l.file[key.Value] = value
	}
}

// unknown warns of variables and keys that nobody reads. A misspelt one is worth more than a shrug: a deployment file
// with a Cyrillic letter in a key is in wide use.
func (l *loader) unknown(settings []Setting) {
	variables, keys := map[string]bool{}, map[string]bool{}
	for i := range settings {
		variables[settings[i].Name] = true
		for _, a := range settings[i].Aliases {
			variables[a] = true
		}
		keys[settings[i].Key] = true
		if settings[i].FromFile {
			for _, name := range append(settings[i].Aliases, settings[i].Name) {
				variables[name+fileSuffix] = true
			}
			keys[settings[i].Key+strings.ToLower(fileSuffix)] = true
		}
	}
	theirs := l.originals()
	var strange []string
	for name := range l.env {
		_, gone := retired[name]
		ours := strings.HasPrefix(name, "BARONG_") && !variables[name] && !l.serviceVariable(name)
		if ours || gone && len(theirs) > 0 {
			strange = append(strange, name)
		}
	}
	slices.Sort(strange)
	for _, name := range strange {
		if why, ok := retired[name]; ok {
			l.warn("%s has no effect: %s", name, why)
			continue
		}
		l.warn("%s is not a known setting%s", name, suggestion(name, variables))
	}
	strange = strange[:0]
	for key := range l.file {
		if !keys[key] || key == "" {
			strange = append(strange, key)
		}
	}
	slices.Sort(strange)
	for _, key := range strange {
		if why, ok := retired["BARONG_"+strings.ToUpper(key)]; ok {
			l.warn("%s in %s has no effect: %s", key, l.path, why)
			continue
		}
		l.warn("%+q in %s is not a known setting%s%s", secret.Redact(key), l.path, suggestion(key, keys), foreignLetters(key))
	}
	if len(theirs) > 0 && !l.c.given("BARONG_COMPAT") && !l.c.bad["BARONG_COMPAT"] {
		l.warn("this environment is the original's (%s), and BARONG_COMPAT is not set: answers have the statuses and bodies of the "+
			"API reference (400 for a missing parameter, 201 and 204 where the last release sent 200), API-key nonces count once, "+
			"whitelinks open once, sessions are kept when their binding does not fit, and X-Forwarded-* is believed from loopback "+
			"alone; BARONG_COMPAT=2.4.17 answers as the original's last release, BARONG_COMPAT=reference confirms the present mode",
			strings.Join(theirs, ", "))
	}
}

// originals lists the variables by which an environment is known to be the original's.
func (l *loader) originals() []string {
	var out []string
	for name := range l.env {
		_, gone := retired[name]
		switch {
		case name == "DATABASE_ADAPTER", strings.HasPrefix(name, "VAULT_"), strings.HasPrefix(name, "EVENT_API_"),
			strings.HasPrefix(name, "BARONG_VAULT_"), gone && strings.HasPrefix(name, "BARONG_EVENT_API_"),
			slices.Contains(theirBroker, name):
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// theirBroker are the original's variables of the message broker.
var theirBroker = []string{
	"BARONG_EVENT_API_RABBITMQ_HOST", "BARONG_EVENT_API_RABBITMQ_PORT", "BARONG_EVENT_API_RABBITMQ_USERNAME",
	"BARONG_EVENT_API_RABBITMQ_PASSWORD",
}

// serviceNames are the names of the variables that Kubernetes makes for a Service whose name begins with barong.
var serviceNames = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?)$`)

// serviceVariable reports a variable that is Kubernetes' own.
func (l *loader) serviceVariable(name string) bool {
	return serviceNames.MatchString(name) && (!strings.HasSuffix(name, "_PORT") || strings.HasSuffix(name, "_SERVICE_PORT") ||
		serviceURL.MatchString(l.env[name]) || strings.Contains(name, "_TCP_") || strings.Contains(name, "_UDP_"))
}

// foreignLetters names the letters of a key that only look like those of a known one.
func foreignLetters(key string) string {
	var out strings.Builder
	for i, r := range []rune(key) {
		script := ""
		switch {
		case unicode.Is(unicode.Cyrillic, r):
			script = "Cyrillic"
		case unicode.Is(unicode.Greek, r):
			script = "Greek"
		case r > unicode.MaxASCII:
			script = "not ASCII"
		default:
			continue
		}
		fmt.Fprintf(&out, "; letter %d, %c, is %U (%s)", i+1, r, r, script)
	}
	return out.String()
}

// suggestion finds the known name that differs in at most two letters.
func suggestion(name string, known map[string]bool) string {
	best := yamlfile.Similar(name, slices.Collect(maps.Keys(known))...)
	if best == "" {
		return ""
	}
	return ": did you mean " + best + "?"
}

// clockLeeway is how far the clock of another replica may be ahead: its tokens are accepted all the same.
const clockLeeway = 90 * time.Second

// derive fills in what follows from several settings.
func (l *loader) derive() {
	c := l.c
	for _, d := range []struct {
		name string
		to   reflect.Value
		own  time.Duration // where BARONG_JWT_DEFAULT_LEEWAY is not set
	}{
		{"BARONG_JWT_ISSUED_AT_LEEWAY", reflect.ValueOf(&c.JWTIssuedAtLeeway), clockLeeway},
		{"BARONG_JWT_EXPIRATION_LEEWAY", reflect.ValueOf(&c.JWTExpirationLeeway), 0},
		{"BARONG_JWT_NOT_BEFORE_LEEWAY", reflect.ValueOf(&c.JWTNotBeforeLeeway), clockLeeway},
	} {
		if c.given(d.name) {
			continue
		}
		leeway := d.own
		if c.given("BARONG_JWT_DEFAULT_LEEWAY") {
			leeway = c.JWTDefaultLeeway
		}
		d.to.Elem().SetInt(int64(leeway))
		l.revalue(d.name, fmt.Sprint(int64(leeway.Seconds())), "BARONG_JWT_DEFAULT_LEEWAY")
	}
	if c.Port != "" && c.Source("BARONG_HTTP_ADDR") != fromFlag && !strings.HasPrefix(c.HTTPAddr, "unix:") {
		host, _, err := net.SplitHostPort(c.HTTPAddr)
		if err == nil {
			c.HTTPAddr = net.JoinHostPort(host, c.Port)
			l.revalue("BARONG_HTTP_ADDR", c.HTTPAddr, "PORT")
		}
	}
	if c.HasPortal() && c.InPlaceOfPages() {
		if c.given("BARONG_PORTAL") {
			l.problem("BARONG_PORTAL", "%s", problem("BARONG_PORTAL", c.Portal, "off, since BARONG_API_PREFIX="+c.APIPrefix+
				" is where its pages would be"))
		}
		c.Portal = "off"
		l.revalue("BARONG_PORTAL", c.Portal, "BARONG_API_PREFIX")
	}
	if c.HasPortal() && !c.given("BARONG_LOGIN_URL") && !c.bad["BARONG_LOGIN_URL"] {
		c.LoginURL = SignIn
		for i := range c.values {
			if v := &c.values[i]; v.Name == "BARONG_LOGIN_URL" {
				v.Text = SignIn
			}
		}
	}
	if c.LogLevel == "fatal" || c.LogLevel == "unknown" {
		c.LogLevel = "error"
		l.revalue("BARONG_LOG_LEVEL", c.LogLevel, "BARONG_LOG_LEVEL")
	}
	l.deriveDatabase()
	l.warnOfSettings()
}

// deriveDatabase makes the database's URL of the original's variables.
func (l *loader) deriveDatabase() {
	c := l.c
	if c.given("BARONG_DATABASE_URL") || c.bad["BARONG_DATABASE_URL"] {
		return
	}
	named := ""
	for _, name := range []string{
		"DATABASE_ADAPTER", "DATABASE_HOST", "DATABASE_PORT", "DATABASE_USER", "DATABASE_PASS", "DATABASE_NAME",
	} {
		if named == "" && c.given(name) {
			named = name
		}
	}
	if named == "" {
		return
	}
	if c.DatabaseAdapter == "mysql2" || c.DatabaseAdapter == "" && c.DatabasePort == "3306" {
		if c.DatabaseAdapter != "" {
			named = "DATABASE_ADAPTER"
		} else {
			named = "DATABASE_PORT"
		}
		l.problem(named, "%s", problem(named, unquote(cmp.Or(l.env[named], c.value(named))), toImport))
		return
	}
	u := url.URL{Scheme: "postgres", Host: net.JoinHostPort(c.DatabaseHost, c.DatabasePort), Path: "/" + c.DatabaseName}
	u.User = url.User(c.DatabaseUser)
	if c.DatabasePass != "" {
		u.User = url.UserPassword(c.DatabaseUser, c.DatabasePass.Reveal())
	}
	c.DatabaseURL = secret.URL(u.String())
	l.revalue("BARONG_DATABASE_URL", c.DatabaseURL.String(), named)
}

func (c *Config) value(name string) string {
	for i := range c.values {
		if c.values[i].Name == name {
			return c.values[i].Text
		}
	}
	return ""
}

// revalue notes that a setting's value came from another one.
func (l *loader) revalue(name, text, from string) {
	for i := range l.c.values {
		if l.c.values[i].Name == from {
			from := l.c.values[i]
			for j := range l.c.values {
				if v := &l.c.values[j]; v.Name == name {
					v.Text, v.Source, v.Origin = text, from.Source, from.Origin
				}
			}
		}
	}
}
