package config

import (
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// source is the declaration of Config, whose comments are the help texts.
//
//go:embed settings.go
var source string

// Settings lists the declaration of every setting, in order.
func Settings() []Setting { return slices.Clone(documented()) }

var documented = sync.OnceValue(func() []Setting {
	help := comments()
	out := slices.Clone(declared())
	for i := range out {
		out[i].Help = help[out[i].field]
	}
	return out
})

// comments reads the comments of Config's fields from the source, without the name and verb that they begin with.
func comments() map[string]string {
	f, err := parser.ParseFile(token.NewFileSet(), "settings.go", source, parser.ParseComments)
	if err != nil { // it compiled
		panic("config: " + err.Error())
	}
	out := map[string]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || spec.Name.Name != "Config" {
			return true
		}
		for _, field := range spec.Type.(*ast.StructType).Fields.List {
			text := strings.Join(strings.Fields(field.Doc.Text()), " ")
			for _, name := range field.Names {
				text = strings.TrimPrefix(text, name.Name+" ")
				text = strings.TrimPrefix(strings.TrimPrefix(text, "is "), "are ")
				out[name.Name] = capital(text)
			}
		}
		return false
	})
	return out
}

func capital(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + s[n:]
}

// Reference returns the reference page in Markdown.
func Reference() string {
	var b strings.Builder
	b.WriteString(`# Configuration

<!-- Generated from internal/config/settings.go by "make docs". -->

A setting is taken from the first of: its flag, its variable, its key in the YAML file, its default. The flag of
` + "`BARONG_HTTP_ADDR` is `--http-addr`, its key in the file is `http_addr`" + `, and so for every other.
A variable that is set but empty counts as set. White space at the end of a value is dropped. A secret, and a URL that may
hold one, is also read from the file that the variable with ` + "`_FILE`" + ` behind it names (` + "`ADMIN_PASSWORD_FILE`" + `, in the YAML
file ` + "`admin_password_file`" + `). A bad value stops the program with exit status 2 and one line that names the variable, the value
without passwords, and what is allowed; all lines come at once. What nothing uses as the other settings stand is not
judged: that it has no effect is a warning, as is a name that nobody knows. A default path that does not exist
stands for built-in values; a path that is given must exist. ` + "`barong config`" + ` prints what holds, and from where.
[troubleshooting.md](troubleshooting.md) says what to do when a start is refused.

A change of what is marked with ↻, in the YAML file, in the file of a secret or in the file that the setting names, is taken up by a running server, within
seconds or at a SIGHUP; see [operations.md](operations.md#changing-settings). What is not marked needs a restart.
`)
	group := ""
	for _, s := range documented() {
		if s.Group != group {
			group = s.Group
			fmt.Fprintf(&b, "\n## %s\n", group)
			if group == "File" {
				b.WriteString("\nThese are keys of the file alone, as in the original's `barong.yml`.\n")
			}
			fmt.Fprintf(&b, "\n| %s | Default | Allowed | Meaning |\n| --- | --- | --- | --- |\n",
				map[bool]string{true: "Key", false: "Variable"}[group == "File"])
		}
		name := code(s.title())
		for _, a := range s.Aliases {
			name += ", " + code(a)
		}
		def := "empty"
		if s.Default != "" {
			def = code(s.Default)
		}
		if s.Production != "" {
			def += "; in production " + code(s.Production)
		}
		if s.Compat != "" {
			def += "; with `BARONG_COMPAT=2.4.17` " + code(s.Compat)
		}
		help := s.Help + reloads[s.tag.Get("reload")]
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, def, cell(s.Allowed), cell(help))
	}
	b.WriteString("\n## Without effect\n\nDeployments of the original set these variables. One with `BARONG_` is a warning; so are the others\n" +
		"in an environment that is the original's.\n\n| Variable | Instead |\n| --- | --- |\n")
	for _, name := range slices.Sorted(maps.Keys(retired)) {
		fmt.Fprintf(&b, "| %s | %s |\n", code(name), cell(capital(retired[name])))
	}
	return b.String()
}

// code and cell escape what would end a cell of a table.
func code(s string) string { return "`" + cell(s) + "`" }

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
