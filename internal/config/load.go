package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"

	"barong/internal/secret"

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
			if s.Key == "config" {
				s.Key = "" // the file cannot say where it is
			}
		}
		s.Secret = f.Type == reflect.TypeFor[secret.Text]()
		s.Allowed = allowed(f.Type, f.Tag)
		out = append(out, s)
	}
	return out
})

// Load reads the configuration. flags holds what was given on the command line by Setting.Flag; environ is as
// os.Environ returns it. The error is an *Error with a line for every bad value.
func Load(flags map[string]string, environ []string) (*Config, error) {
	l := loader{c: &Config{env: map[string]string{}}, flags: flags}
	l.env = l.c.env
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok {
			l.env[name] = value
		}
	}
	l.load()
	if len(l.problems) > 0 {
		return nil, &Error{Problems: l.problems}
	}
	return l.c, nil
}

type loader struct {
	c        *Config
	flags    map[string]string
	env      map[string]string
	file     map[string]*yaml.Node
	path     string // of the file
	problems []string
}

func (l *loader) problem(format string, args ...any) {
	l.problems = append(l.problems, fmt.Sprintf(format, args...))
}

func (l *loader) warn(format string, args ...any) {
	l.c.warnings = append(l.c.warnings, fmt.Sprintf(format, args...))
}

func (l *loader) load() {
	settings := declared()
	// Where the file is, and which defaults hold, must be known before everything else.
	for _, first := range []string{"BARONG_CONFIG", "BARONG_ENV", "BARONG_COMPAT"} {
		i := slices.IndexFunc(settings, func(s Setting) bool { return s.Name == first })
		l.set(&settings[i])
		if first == "BARONG_CONFIG" && l.c.ConfigFile != "" && len(l.problems) == 0 {
			l.readFile()
		}
	}
	problems := slices.Clone(l.problems)
	l.c.values, l.problems = nil, nil
	for i := range settings {
		l.set(&settings[i])
	}
	for _, p := range problems { // of the file itself
		if !slices.Contains(l.problems, p) {
			l.problems = append(l.problems, p)
		}
	}
	l.unknown(settings)
	if len(l.problems) == 0 {
		l.derive()
	}
}

// set finds the value of a setting in the strongest source that has one, and stores it.
func (l *loader) set(s *Setting) {
	field := reflect.ValueOf(l.c).Elem().Field(s.index)
	v := Value{Name: s.title(), Source: fromDefault}
	var node *yaml.Node
	text, found := l.flags[s.Flag]
	found = found && s.Flag != ""
	if found {
		v.Source, v.Origin = fromFlag, "--"+s.Flag
	}
	for _, name := range append([]string{s.Name}, s.Aliases...) {
		if value, ok := l.env[name]; ok && name != "" && !found {
			text, found = value, true
			v.Source, v.Origin = fromEnv, name
		}
	}
	if n, ok := l.file[s.Key]; ok && s.Key != "" && !found {
		node, found = n, true
		v.Source, v.Origin = fromFile, l.path
	}
	called := s.title()
	if v.Source == fromEnv {
		called = v.Origin
	}
	if !found {
		text = s.Default
		if s.Production != "" && l.c.Production() {
			text = s.Production
		}
		if s.Compat != "" && l.c.Original() {
			text = s.Compat
		}
	}
	switch {
	case s.Name == "": // a key of the file alone: its default is YAML too
		if node == nil {
			node = mustYAML(s.Default)
		}
		if err := decodeNode(field, node, s.tag); err != nil {
			l.problem("%s in %s, line %d: %s", s.Key, l.path, node.Line, err)
			return
		}
		v.Text = show(field)
	case node != nil:
		var err error
		if text, err = scalar(node); err != nil {
			l.problem("%s in %s, line %d: %s", s.Key, l.path, node.Line, err)
			return
		}
		fallthrough
	default:
		if !found && strings.HasPrefix(s.tag.Get("kind"), "file") && text != "" {
			// A default path is only an offer.
			if _, err := os.Stat(text); errors.Is(err, fs.ErrNotExist) {
				text = ""
			}
		}
		if !found && text == "" && s.tag.Get("default") == "" {
			// Nothing given and no default: the field's zero value, whatever the kind.
			break
		}
		if allowed, ok := decode(field, text, s.tag); !ok {
			shown := text
			if s.Secret && text != "" {
				shown = secret.Mask
			} else if field.Type() == reflect.TypeFor[secret.URL]() {
				shown = secret.URL(text).String()
			}
			p := problem(called, shown, allowed)
			if node != nil {
				p += fmt.Sprintf(" (%s, line %d)", l.path, node.Line)
			}
			l.problems = append(l.problems, p)
			return
		}
		v.Text = display(field, text)
	}
	l.c.values = append(l.c.values, v)
}

// readFile parses the file into its top-level keys.
func (l *loader) readFile() {
	l.path = l.c.ConfigFile
	f, err := os.Open(l.path)
	if err != nil {
		l.problem("BARONG_CONFIG: %s", err)
		return
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err == nil && len(text) > maxFileSize {
		err = fmt.Errorf("larger than %d bytes", maxFileSize)
	}
	if err != nil {
		l.problem("BARONG_CONFIG: %s: %s", l.path, err)
		return
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		l.problem("BARONG_CONFIG: %s: %s", l.path, strings.ReplaceAll(err.Error(), "\n", " "))
		return
	}
	l.file = map[string]*yaml.Node{}
	if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
		return // nothing but comments
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		l.problem("BARONG_CONFIG: %s: not a mapping of keys to values", l.path)
		return
	}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		if _, twice := l.file[key.Value]; twice {
			l.problem("%s in %s, line %d: the key stands there twice", key.Value, l.path, key.Line)
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
	}
	var strange []string
	for name := range l.env {
		if strings.HasPrefix(name, "BARONG_") && !variables[name] {
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
		l.warn("%+q in %s is not a known setting%s", key, l.path, suggestion(key, keys))
	}
}

// suggestion finds the known name that differs in at most two letters.
func suggestion(name string, known map[string]bool) string {
	best, least := "", 3
	for k := range known {
		if d := distance(name, k, 3); k != "" && (d < least || d == least && best != "" && k < best) {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return ": did you mean " + best + "?"
}

// distance is the number of letters to add, drop or change between a and b, or at least most when it is not less.
func distance(a, b string, most int) int {
	x, y := []rune(a), []rune(b)
	if len(x)-len(y) >= most || len(y)-len(x) >= most {
		return most
	}
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := range x {
		diagonal := row[0]
		row[0] = i + 1
		for j := range y {
			cost := diagonal
			if x[i] != y[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return row[len(y)]
}

// derive fills in what follows from several settings.
func (l *loader) derive() {
	c := l.c
	for _, d := range []struct {
		name string
		to   reflect.Value
	}{
		{"BARONG_JWT_ISSUED_AT_LEEWAY", reflect.ValueOf(&c.JWTIssuedAtLeeway)},
		{"BARONG_JWT_EXPIRATION_LEEWAY", reflect.ValueOf(&c.JWTExpirationLeeway)},
		{"BARONG_JWT_NOT_BEFORE_LEEWAY", reflect.ValueOf(&c.JWTNotBeforeLeeway)},
	} {
		if !c.given(d.name) {
			d.to.Elem().SetInt(int64(c.JWTDefaultLeeway))
			l.revalue(d.name, fmt.Sprint(int64(c.JWTDefaultLeeway.Seconds())), "BARONG_JWT_DEFAULT_LEEWAY")
		}
	}
	if c.Port != "" && c.Source("BARONG_HTTP_ADDR") != fromFlag && !strings.HasPrefix(c.HTTPAddr, "unix:") {
		host, _, err := net.SplitHostPort(c.HTTPAddr)
		if err == nil {
			c.HTTPAddr = net.JoinHostPort(host, c.Port)
			l.revalue("BARONG_HTTP_ADDR", c.HTTPAddr, "PORT")
		}
	}
	if c.LogLevel == "fatal" || c.LogLevel == "unknown" {
		c.LogLevel = "error"
		l.revalue("BARONG_LOG_LEVEL", c.LogLevel, "BARONG_LOG_LEVEL")
	}
	l.deriveDatabase()
	l.doubts()
}

// deriveDatabase makes the database's URL of the original's variables.
func (l *loader) deriveDatabase() {
	c := l.c
	if c.given("BARONG_DATABASE_URL") {
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
		l.problem("%s", problem(named, c.value(named),
			"this program runs on Postgres and SQLite; import the MySQL database into Postgres, then set DATABASE_ADAPTER=postgresql "+
				"or BARONG_DATABASE_URL"))
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
