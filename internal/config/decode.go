package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"barong/internal/crypto/secret"
	"barong/internal/trusted"

	"go.yaml.in/yaml/v3"
)

// A kind is a form of text: what it is in words, and how it is read. read returns the text to store, and false for one
// that is not of the kind.
type kind struct {
	allowed string
	read    func(string) (string, bool)
}

func matches(pattern string) func(string) (string, bool) {
	re := regexp.MustCompile(pattern)
	return func(s string) (string, bool) { return s, re.MatchString(s) }
}

func matched(pattern string) func(string) bool { return regexp.MustCompile(pattern).MatchString }

func when(ok func(string) bool) func(string) (string, bool) {
	return func(s string) (string, bool) { return s, ok(s) }
}

// kinds are the values of the tag "kind".
var kinds = map[string]kind{
	"text":     {"any text but the empty one", when(func(s string) bool { return s != "" })},
	"letters":  {"2 to 6 letters", func(s string) (string, bool) { _, ok := twoToSix(s); return strings.ToUpper(s), ok }},
	"language": {"two letters, such as en", func(s string) (string, bool) { _, ok := twoLetters(s); return strings.ToLower(s), ok }},
	"token":    {"letters, digits, - and _", matches(`^[A-Za-z0-9_-]+$`)},
	"path":     {"a path such as api/v2/barong", readPrefix},
	"listen":   {"host:port, or unix:/path", when(isListen)},
	"port":     {"a port number, 0 to 65535", when(isPort)},
	"hostname": {"a host name or an address, without a port", when(isHost)},
	"dbhost":   {"a host name or an address, without a port, or the folder of a socket", when(func(s string) bool { return isHost(s) || isSocket(s) })},
	"name":     {"a name, and no URL", when(func(s string) bool { return s != "" && secret.Redact(s) == s })},
	"email":    {"an e-mail address", when(isEmail)},
	"url":      {"a URL that begins with http:// or https://", when(isURL)},
	"link":     {"a URL that begins with http:// or https://, or a path that begins with /", when(isLink)},
	"place":    {"the path of a file or folder", when(func(s string) bool { return s != "" })},
	"adapter":  {"postgresql", readAdapter},
	"database": {"sqlite://path, or postgres://user:password@host/database", readDatabase},
	"redis": {
		"redis://, rediss://, redis+cluster://h1:p1,h2:p2 or redis+sentinel://h1:p1,h2:p2/master",
		hasScheme("redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel"),
	},
	"amqp":     {"a URL that begins with amqp:// or amqps://", hasScheme("amqp", "amqps")},
	"nats":     {"a URL that begins with nats:// or tls://", hasScheme("nats", "tls")},
	"subject":  {"words of letters, digits, - and _, parted by dots", matches(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)},
	"keys":     {"one or several keys of 32 random bytes in base64, separated by commas", when(func(s string) bool { return secret.Validate(s) == nil })},
	"template": {"a text with {{code}} in it", when(func(s string) bool { return strings.Contains(s, "{{code}}") })},
	"file":     {"the path of a file that exists", when(func(s string) bool { return exists(s, false) })},
	"folder":   {"the path of a folder that exists", when(func(s string) bool { return exists(s, true) })},
}

// listKinds are those of the items of a list.
var listKinds = map[string]kind{
	"origins":    {"a list of origins such as https://example.com, separated by commas, or *", readOrigin},
	"pages":      {"a list of origins such as https://example.com, or android:apk-key-hash:…, separated by commas", readPage},
	"hosts":      {"a list of hosts such as app.example.com or app.example.com:8443, separated by commas", readHost},
	"extensions": {"a list of file name extensions, separated by commas", readExtension},
}

var (
	twoToSix   = matches(`^[A-Za-z]{2,6}$`)
	twoLetters = matches(`^[A-Za-z]{2}$`)
	segments   = matches(`^[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*$`)
	digits     = matches(`^[0-9]+$`)
	fraction   = matches(`^([0-9]+(\.[0-9]+)?|\.[0-9]+)$`)
	origin     = matches(`^https?://([A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$`)
	androidApp = matches(`^android:apk-key-hash:[A-Za-z0-9_-]{43}$`)
	extension  = matches(`^[a-z0-9]{1,10}$`)
	hostPort   = matches(`^([a-z0-9_]([a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$`)
)

func readPrefix(s string) (string, bool) {
	s, ok := segments(strings.Trim(s, "/"))
	return s, ok && !slices.ContainsFunc(strings.Split(s, "/"), func(p string) bool { return p == "." || p == ".." })
}

func isListen(s string) bool {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		return strings.HasPrefix(path, "/")
	}
	host, port, err := net.SplitHostPort(s)
	return err == nil && isPort(port) && !strings.ContainsAny(host, " /@")
}

var (
	isName   = matched(`^[A-Za-z0-9._-]+$`)
	isSocket = matched(`^/[^\s@:]*$`)
)

// isHost takes no port: what has a colon is an IPv6 address.
func isHost(s string) bool {
	if isName(s) {
		return true
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	a, err := netip.ParseAddr(bare)
	return err == nil && a.Is6() && a.Zone() == "" && (bare == s || s == "["+bare+"]")
}

func isPort(s string) bool {
	_, ok := digits(s)
	_, err := strconv.ParseUint(s, 10, 16)
	return ok && err == nil
}

func isEmail(s string) bool {
	a, err := mail.ParseAddress(s)
	return err == nil && a.Address == s && a.Name == ""
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// isLink takes a path, too, but not "//host" and what browsers make of "/\": those leave the site unnoticed.
func isLink(s string) bool {
	if strings.HasPrefix(s, "/") {
		u, err := url.Parse(s)
		return err == nil && u.Host == "" && !strings.ContainsAny(s, "\\ ")
	}
	return isURL(s)
}

func hasScheme(schemes ...string) func(string) (string, bool) {
	return func(s string) (string, bool) {
		scheme, rest, ok := strings.Cut(s, "://")
		return s, ok && rest != "" && slices.Contains(schemes, scheme) && !strings.ContainsAny(s, " \t\r\n")
	}
}

// readDatabase leaves what follows the scheme to the database's own package.
func readDatabase(s string) (string, bool) {
	if path, ok := strings.CutPrefix(s, "sqlite:"); ok {
		return s, strings.Trim(path, "/") != ""
	}
	return hasScheme("postgres", "postgresql")(s)
}

// readAdapter reads the original's name of a database.
func readAdapter(s string) (string, bool) {
	switch word := strings.ToLower(s); {
	case slices.Contains([]string{"postgresql", "postgres", "postgis", "pg"}, word):
		return "postgresql", true
	case isMySQL(word):
		return "mysql2", true
	}
	return s, false
}

// isMySQL reports a name of MySQL, however it is spelt, as an adapter or as the scheme of a URL.
func isMySQL(s string) bool {
	word, _, _ := strings.Cut(strings.ToLower(s), "://")
	return strings.Contains(word, "mysql") || strings.Contains(word, "maria") || word == "trilogy"
}

// toImport says what to do about MySQL.
const toImport = "this program runs on Postgres and SQLite; bring the MySQL database in with \"barong import\", then set " +
	"BARONG_DATABASE_URL or DATABASE_ADAPTER=postgresql"

func exists(path string, folder bool) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir() == folder
}

func readOrigin(s string) (string, bool) {
	if s == "*" {
		return s, true
	}
	return origin(strings.TrimSuffix(s, "/"))
}

func readPage(s string) (string, bool) {
	if app, ok := androidApp(s); ok {
		return app, true
	}
	return origin(strings.TrimSuffix(s, "/"))
}

func readHost(s string) (string, bool) {
	s, ok := hostPort(strings.ToLower(s))
	_, port, err := net.SplitHostPort(s)
	return s, ok && (err != nil || isPort(port) && port != "0") && !strings.Contains(s, "..")
}

func readExtension(s string) (string, bool) {
	return extension(strings.ToLower(strings.TrimPrefix(s, ".")))
}

// units are what a bare number of a duration can count.
var units = map[string]struct {
	d    time.Duration
	name string
}{"": {time.Second, "seconds"}, "s": {time.Second, "seconds"}, "ms": {time.Millisecond, "milliseconds"}, "m": {time.Minute, "minutes"}}

// maxWhole bounds every number, so that no product overflows: a hundred years in seconds.
const maxWhole = 3155760000

// bounds are the tags "min" and "max" as numbers.
func bounds(tag reflect.StructTag) (low, high float64) {
	high = maxWhole
	if s := tag.Get("min"); s != "" {
		low, _ = strconv.ParseFloat(s, 64)
	}
	if s := tag.Get("max"); s != "" {
		high, _ = strconv.ParseFloat(s, 64)
	}
	return low, high
}

// allowed says in words what a field takes.
func allowed(t reflect.Type, tag reflect.StructTag) string {
	low, high := bounds(tag)
	plain := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	limit := "from " + plain(low) + " to " + plain(high)
	if high == maxWhole {
		limit = "of at least " + plain(low)
	}
	words := strings.ReplaceAll(tag.Get("oneof"), " ", ", ")
	name, optional := strings.CutSuffix(tag.Get("kind"), "?")
	if t == reflect.TypeFor[time.Duration]() {
		if tag.Get("unit") != "" {
			return fmt.Sprintf("a whole number of %s %s", units[tag.Get("unit")].name, limit)
		}
		return "a time such as 500ms, 30s, 5m, 12h or 90d, or seconds"
	}
	if t == reflect.TypeFor[trusted.Proxies]() {
		return "a list of networks such as 10.0.0.0/8, separated by commas, or loopback, private, cloudflare"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number " + limit
	case reflect.Float64:
		return "a number " + limit
	case reflect.Slice:
		switch {
		case words != "":
			return "a list of " + words + ", separated by commas"
		case listKinds[name].allowed != "":
			return listKinds[name].allowed
		case t == reflect.TypeFor[[]StateTrigger]():
			return "a mapping of states to lists of label keys"
		}
		return "a list, separated by commas"
	case reflect.Map:
		return "a mapping of label keys to values"
	}
	switch {
	case words != "":
		return "one of " + words
	case name != "" && optional:
		return kinds[name].allowed + ", or nothing"
	case name != "":
		return kinds[name].allowed
	}
	return "any text"
}

// decode stores text in a field. Otherwise it returns false, and what is allowed.
func decode(field reflect.Value, text string, tag reflect.StructTag) (string, bool) {
	ok := false
	switch p := field.Addr().Interface().(type) {
	case *bool:
		*p, ok = text == "true", text == "true" || text == "false"
	case *int:
		var n int64
		n, ok = whole(text, tag)
		*p = int(n)
	case *float64:
		low, high := bounds(tag)
		f, err := strconv.ParseFloat(text, 64)
		_, plain := fraction(text)
		*p, ok = f, err == nil && plain && f >= low && f <= high
	case *time.Duration:
		*p, ok = duration(text, tag)
	case *[]string:
		*p, ok = list(split(text), tag)
	case *trusted.Proxies:
		var err error
		*p, err = trusted.Parse(text)
		ok = err == nil
	default: // string, secret.Text, secret.URL
		if text, ok = word(text, tag); ok {
			field.SetString(text)
		}
	}
	return allowed(field.Type(), tag), ok
}

// word reads a text by the tags "oneof", "fold" and "kind".
func word(text string, tag reflect.StructTag) (string, bool) {
	if words := tag.Get("oneof"); words != "" {
		if tag.Get("fold") == "true" {
			text = strings.ToLower(text)
		}
		return text, slices.Contains(strings.Fields(words), text) || text == "" && tag.Get("default") == ""
	}
	name, optional := strings.CutSuffix(tag.Get("kind"), "?")
	if name == "" || text == "" && optional {
		return text, true
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r == 0 }) {
		return "", false
	}
	return kinds[name].read(text)
}

// whole reads a number of digits alone.
func whole(text string, tag reflect.StructTag) (int64, bool) {
	low, high := bounds(tag)
	n, err := strconv.ParseInt(text, 10, 64)
	_, plain := digits(text)
	return n, err == nil && plain && float64(n) >= low && float64(n) <= high
}

func duration(text string, tag reflect.StructTag) (time.Duration, bool) {
	if n, ok := whole(text, tag); ok {
		return time.Duration(n) * units[tag.Get("unit")].d, true
	}
	if tag.Get("unit") != "" || strings.HasPrefix(text, "-") || strings.HasPrefix(text, "+") {
		return 0, false
	}
	var d time.Duration
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, ok := whole(days, "")
		if !ok || n > maxWhole/86400 {
			return 0, false
		}
		d = time.Duration(n) * 24 * time.Hour
	} else {
		var err error
		if d, err = time.ParseDuration(text); err != nil {
			return 0, false
		}
	}
	low, high := bounds(tag)
	return d, d.Seconds() >= low && d.Seconds() <= high
}

// split cuts a list at commas and drops white space and empty items.
func split(text string) []string {
	items := []string{}
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// list judges the items of a list.
func list(items []string, tag reflect.StructTag) ([]string, bool) {
	out := []string{}
	words := strings.Fields(tag.Get("oneof"))
	for _, item := range items {
		if len(words) > 0 && !slices.Contains(words, item) {
			return nil, false
		}
		if k, ok := listKinds[tag.Get("kind")]; ok {
			if item, ok = k.read(item); !ok {
				return nil, false
			}
		}
		if !slices.Contains(out, item) {
			out = append(out, item)
		}
	}
	return out, tag.Get("min") == "" || len(out) > 0
}

// scalar makes the text of a setting from its value in the file: a plain value, or a list of them.
func scalar(node *yaml.Node) (string, error) {
	switch {
	case node.Kind == yaml.ScalarNode && node.Tag == "!!null":
		return "", nil
	case node.Kind == yaml.ScalarNode:
		return node.Value, nil
	case node.Kind == yaml.SequenceNode:
		items, err := scalars(node)
		return strings.Join(items, ","), err
	}
	return "", errors.New("a plain value or a list is needed")
}

// scalars reads a list of plain values. One plain value counts as a list of those between its commas, and nothing as
// the empty list.
func scalars(node *yaml.Node) ([]string, error) {
	if node.Kind == yaml.ScalarNode {
		if node.Tag == "!!null" {
			return []string{}, nil
		}
		return split(node.Value), nil
	}
	if node.Kind != yaml.SequenceNode {
		return nil, errors.New("a list is needed")
	}
	items := []string{}
	for _, n := range node.Content {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			return nil, errors.New("an item of the list is no plain value")
		}
		items = append(items, n.Value)
	}
	return items, nil
}

func mustYAML(text string) *yaml.Node {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil { // a constant of this package
		panic("config: default " + text + ": " + err.Error())
	}
	return doc.Content[0]
}

// decodeNode stores the value of a key that the file alone can have.
func decodeNode(field reflect.Value, node *yaml.Node, tag reflect.StructTag) error {
	switch p := field.Addr().Interface().(type) {
	case *[]string:
		items, err := scalars(node)
		if err != nil {
			return err
		}
		items, ok := list(items, tag)
		if !ok {
			return errors.New("allowed is " + allowed(field.Type(), tag))
		}
		*p = items
	case *map[string]string:
		*p = map[string]string{}
		return pairs(node, func(key string, value *yaml.Node) error {
			if value.Kind != yaml.ScalarNode || value.Tag == "!!null" {
				return fmt.Errorf("%s has no plain value", key)
			}
			(*p)[key] = value.Value
			return nil
		})
	case *[]StateTrigger:
		*p = []StateTrigger{}
		return pairs(node, func(key string, value *yaml.Node) error {
			keys, err := scalars(value)
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			*p = append(*p, StateTrigger{State: key, Keys: keys})
			return nil
		})
	}
	return nil
}

// pairs walks a mapping in its order.
func pairs(node *yaml.Node, f func(key string, value *yaml.Node) error) error {
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		return nil
	}
	if node.Kind != yaml.MappingNode {
		return errors.New("a mapping is needed")
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i].Value
		if key == "" || seen[key] {
			return fmt.Errorf("the key %q is empty or stands there twice", key)
		}
		seen[key] = true
		if err := f(key, node.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// display is the text of a variable's value for people: as it was written, but for what hides itself, and passwords in
// URLs.
func display(field reflect.Value, text string) string {
	switch v := field.Interface().(type) {
	case secret.Text:
		return v.String()
	case secret.URL:
		return v.String()
	case string:
		return secret.Redact(v)
	case []string:
		return secret.Redact(strings.Join(v, ","))
	}
	return text
}

// show is the text of a value that only the file can give.
func show(field reflect.Value) string {
	switch v := field.Interface().(type) {
	case []string:
		return strings.Join(v, ", ")
	case map[string]string:
		var out []string
		for _, k := range slices.Sorted(maps.Keys(v)) {
			out = append(out, k+": "+v[k])
		}
		return strings.Join(out, ", ")
	case []StateTrigger:
		var out []string
		for _, t := range v {
			out = append(out, t.State+": "+strings.Join(t.Keys, " "))
		}
		return strings.Join(out, ", ")
	}
	return ""
}
