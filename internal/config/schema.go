package config

import (
	"cmp"
	"reflect"
	"regexp"
	"strings"
	"time"
	"unicode"

	"barong/internal/trusted"
)

// An object is a piece of a JSON schema.
type object = map[string]any

// Schema is the JSON schema (draft 7, which editors of YAML read) of the YAML file with settings. It refuses nothing that Load
// accepts but names that nobody knows, of which Load warns. What only the machine can tell, such as whether a file exists, it
// does not judge.
func Schema() map[string]any {
	properties := object{}
	for _, s := range documented() {
		if s.Key == "" {
			continue
		}
		field := reflect.TypeFor[Config]().Field(s.index)
		p := valueSchema(field.Type, s.tag)
		p["description"] = description(&s)
		properties[s.Key] = p
		if s.FromFile {
			properties[s.Key+strings.ToLower(fileSuffix)] = object{
				"description": "The path of a file that holds " + s.title() + ".", "type": "string", "minLength": 1,
			}
		}
	}
	for name, instead := range retired {
		key, ours := strings.CutPrefix(name, "BARONG_")
		if key = strings.ToLower(key); ours && properties[key] == nil {
			properties[key] = object{"deprecationMessage": "No effect: " + instead + ".", "description": "No effect: " + instead + "."}
		}
	}
	return object{
		"$schema": "http://json-schema.org/draft-07/schema#", "$comment": `Generated from internal/config/settings.go by "make docs".`,
		"title": "Settings of barong (config/barong.yml)", "type": []string{"object", "null"},
		"properties": properties, "additionalProperties": false,
	}
}

func description(s *Setting) string {
	text := s.Help
	if s.Default != "" {
		text += " Default: " + s.Default + "."
	}
	if s.Name != "" {
		text += " (" + s.Name + ")"
	}
	return text
}

// schemaPatterns are the kinds of text as patterns, as far as one can say them.
var schemaPatterns = map[string]string{
	"text":     `[\s\S]`,
	"letters":  `^[A-Za-z]{2,6}$`,
	"language": `^[A-Za-z]{2}$`,
	"token":    `^[A-Za-z0-9_-]+$`,
	"path":     `^/*[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*/*$`,
	"listen":   `^(unix:/|[^ /@]*:[0-9]{1,10}$)`,
	"port":     `^0*[0-9]{1,5}$`,
	"hostname": `^[A-Za-z0-9._:\[\]-]+$`,
	"dbhost":   `^(/[^\s@:]*|[A-Za-z0-9._:\[\]-]+)$`,
	"name":     `[\s\S]`,
	"email":    `@`,
	"url":      `^[Hh][Tt][Tt][Pp][Ss]?://.`,
	"link":     `^(/|[Hh][Tt][Tt][Pp][Ss]?://.)`,
	"place":    `[\s\S]`,
	"adapter":  `^[A-Za-z]`,
	"database": `^(sqlite:|postgres(ql)?://)[\s\S]`,
	"redis":    `^rediss?(\+cluster|\+sentinel)?://[\s\S]`,
	"amqp":     `^amqps?://[\s\S]`,
	"keys":     `^[A-Za-z0-9+/=,\s]{43,}$`,
	"template": `\{\{code\}\}`,
	"file":     `[\s\S]`,
	"folder":   `[\s\S]`,
}

// itemPatterns are the kinds of the items of a list.
var itemPatterns = map[string]string{
	"origins":    `\*|https?://[A-Za-z0-9_.:\[\]-]+/?`,
	"pages":      `https?://[A-Za-z0-9_.:\[\]-]+/?|android:apk-key-hash:[A-Za-z0-9_-]{43}`,
	"hosts":      `[A-Za-z0-9_.:\[\]-]+`,
	"extensions": `\.?[A-Za-z0-9]{1,10}`,
}

// networks are the items of a list of networks.
var networks = folded("loopback|private|cloudflare") + `|[0-9A-Fa-f]*[.:][0-9A-Fa-f:.]*(/[0-9]{1,3})?`

// textSchema is a text that matches a pattern. What YAML takes for a number or a truth value is read as a text, too.
func textSchema(pattern string) object {
	re, types := regexp.MustCompile(pattern), []string{"string"}
	if re.MatchString("5") {
		types = append(types, "number")
	}
	if re.MatchString("true") {
		types = append(types, "boolean")
	}
	return object{"type": types, "pattern": pattern}
}

// valueSchema is what the file may hold for a field. Any value may also be written as a text, as in a variable.
func valueSchema(t reflect.Type, tag reflect.StructTag) object {
	words := strings.Fields(tag.Get("oneof"))
	name, optional := strings.CutSuffix(tag.Get("kind"), "?")
	low, high := bounds(tag)
	number := func(kind, text string) object {
		n := object{"type": kind, "minimum": low, "maximum": high}
		return object{"anyOf": []object{n, {"type": "string", "pattern": text}}}
	}
	switch {
	case t == reflect.TypeFor[trusted.Proxies]():
		return listSchema(networks)
	case t == reflect.TypeFor[time.Duration]() && tag.Get("unit") != "":
		return number("integer", `^[0-9]+$`)
	case t == reflect.TypeFor[time.Duration]():
		return object{"anyOf": []object{
			{"type": "integer", "minimum": low, "maximum": high},
			{"type": "string", "pattern": `^([0-9]+d?|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$`},
		}}
	case t == reflect.TypeFor[[]StateTrigger]():
		return object{"type": []string{"object", "null"}, "additionalProperties": listSchema(`[^,]*`)}
	}
	switch t.Kind() {
	case reflect.Bool:
		return object{"enum": []any{true, false, "true", "false"}}
	case reflect.Int:
		return number("integer", `^[0-9]+$`)
	case reflect.Float64:
		return number("number", `^([0-9]+(\.[0-9]+)?|\.[0-9]+)$`)
	case reflect.Slice:
		if len(words) > 0 {
			return listSchema(strings.Join(words, "|"))
		}
		return listSchema(cmp.Or(itemPatterns[name], `[^,]*`))
	case reflect.Map:
		return object{"type": []string{"object", "null"}, "additionalProperties": textSchema(`[\s\S]*`)}
	}
	switch {
	case len(words) > 0:
		var values []any
		for _, word := range words {
			values = append(values, word)
			if word == "true" || word == "false" { // as YAML reads it
				values = append(values, word == "true")
			}
		}
		choice := object{"enum": values}
		if tag.Get("fold") == "true" {
			choice = object{"type": "string", "pattern": "^(" + folded(strings.Join(words, "|")) + ")$"}
		}
		if tag.Get("default") == "" {
			return object{"anyOf": []object{choice, {"enum": []any{"", nil}}}}
		}
		return choice
	case name == "":
		return object{"type": []string{"string", "number", "boolean", "null"}}
	}
	text := textSchema(schemaPatterns[name])
	if name == "port" {
		text["minimum"], text["maximum"] = 0, 65535
	}
	if !optional {
		return text
	}
	return object{"anyOf": []object{text, {"enum": []any{"", nil}}}}
}

// listSchema is a list of items that match a pattern, or a text of them with commas between.
func listSchema(pattern string) object {
	text := textSchema(`^\s*(` + pattern + `)?\s*(,\s*(` + pattern + `)?\s*)*$`)
	return object{"anyOf": []object{text, {"type": "array", "items": text}, {"type": "null"}}}
}

// folded is a pattern of words that matches them in any case.
func folded(words string) string {
	var b strings.Builder
	for _, r := range words {
		if upper := unicode.ToUpper(r); upper != r {
			b.WriteString("[" + string(upper) + string(r) + "]")
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
