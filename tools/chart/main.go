// Command chart writes what deploy/helm/barong repeats of the rest of the repository, in the repository that it is run in:
// the settings that its schema allows, the table of values in its README, and the files that it ships.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"barong/internal/config"
	"barong/internal/test/testkit"
)

// folder is where the chart is, below the repository's root.
const folder = "deploy/helm/barong"

// shipped are the files that the chart has a copy of.
var shipped = map[string]string{
	"files/envoy.yaml":       "envoy/envoy.yaml",
	"files/barong.rules.yml": "deploy/prometheus/barong.rules.yml",
	"files/barong.json":      "deploy/grafana/barong.json",
}

// own are the settings that the chart makes of other values.
var own = []string{
	"BARONG_HTTP_ADDR", "PORT", "BARONG_CHECK_ADDR", "BARONG_GRPC_ADDR", "BARONG_OPS_ADDR", "BARONG_DRAIN_TIME",
	"BARONG_CONFIG_FOLDER", "BARONG_JWT_PRIVATE_KEY_PATH", "BARONG_JWT_ALGORITHM",
}

func main() {
	root, err := testkit.FindRoot()
	if err == nil {
		err = write(root)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func write(root string) error {
	files, err := generated(root)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(root, folder, name), files[name], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generated are the files of the chart that follow from others, by their names in it.
func generated(root string) (map[string][]byte, error) {
	out := map[string][]byte{}
	var err error
	for name, source := range shipped {
		if out[name], err = os.ReadFile(filepath.Join(root, source)); err != nil {
			return nil, err
		}
	}
	schema, err := os.ReadFile(filepath.Join(root, folder, "values.schema.json"))
	if err != nil {
		return nil, err
	}
	if out["values.schema.json"], err = withSettings(schema); err != nil {
		return nil, fmt.Errorf("values.schema.json: %w", err)
	}
	values, err := os.ReadFile(filepath.Join(root, folder, "values.yaml"))
	if err != nil {
		return nil, err
	}
	table, err := tableOf(values)
	if err != nil {
		return nil, fmt.Errorf("values.yaml: %w", err)
	}
	readme, err := os.ReadFile(filepath.Join(root, folder, "README.md"))
	if err != nil {
		return nil, err
	}
	const heading = "## Values\n"
	before, _, found := strings.Cut(string(readme), heading)
	if !found {
		return nil, fmt.Errorf("README.md has no %q", strings.TrimSpace(heading))
	}
	out["README.md"] = []byte(before + heading + "\n<!-- Generated from values.yaml by \"make docs\". -->\n\n" + table)
	return out, nil
}

// withSettings puts the program's settings into a schema: those that hold secrets among what is read from Secrets, the others
// among the plain ones, and the names of files that the program looks for.
func withSettings(schema []byte) ([]byte, error) {
	var doc map[string]any
	if err := json.Unmarshal(schema, &doc); err != nil {
		return nil, err
	}
	definitions, ok := doc["definitions"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("there are no definitions")
	}
	plain, secret, files := map[string]any{}, map[string]any{}, map[string]any{}
	for _, s := range config.Settings() {
		if name, ok := strings.CutPrefix(s.Default, "config/"); ok && s.Name != "" {
			files[name] = map[string]any{"type": "string", "description": s.Help}
		}
		switch {
		case s.Name == "" || slices.Contains(own, s.Name):
		case s.FromFile:
			secret[s.Name] = map[string]any{"allOf": []any{map[string]any{"$ref": "#/definitions/secret"}}, "description": s.Help}
		default:
			plain[s.Name] = map[string]any{"type": []string{"string", "number", "boolean", "null"}, "description": s.Help + " Allowed: " + s.Allowed + "."}
		}
	}
	for name, properties := range map[string]any{"settings": plain, "secretSettings": secret, "files": files} {
		definitions[name] = map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(doc)
	return out.Bytes(), err
}

// tableOf is the table of the values that a comment beginning with "# --" describes.
func tableOf(values []byte) (string, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(values, &doc); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("| Value | Default | What |\n| --- | --- | --- |\n")
	var walk func(prefix string, n *yaml.Node) error
	walk = func(prefix string, n *yaml.Node) error {
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			name := prefix + key.Value
			_, help, described := strings.Cut("\n"+key.HeadComment, "\n# -- ")
			switch {
			case described:
				var plain any
				if err := value.Decode(&plain); err != nil {
					return err
				}
				def, err := json.Marshal(plain)
				if err != nil {
					return err
				}
				cell := strings.ReplaceAll(strings.ReplaceAll(help, "\n# ", " "), "|", `\|`)
				fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", name, strings.ReplaceAll(string(def), "|", `\|`), cell)
			case value.Kind == yaml.MappingNode && len(value.Content) > 0:
				if err := walk(name+".", value); err != nil {
					return err
				}
			default:
				return fmt.Errorf("line %d: no comment says what %s is", key.Line, name)
			}
		}
		return nil
	}
	err := walk("", doc.Content[0])
	return b.String(), err
}
