package main

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"barong/internal/config"

	"github.com/alecthomas/kong"
)

// cli is the command line. Every setting of package config is a flag, before or after the command; "serve --help" lists
// them.
type cli struct {
	Serve       serveCommand       `cmd:"" help:"Run everything: the check endpoints, the REST API, gRPC ext_authz and the operations listener."`
	Migrate     migrateCommand     `cmd:"" help:"Bring the database's schema up or down, or show its state."`
	Seed        seedCommand        `cmd:"" help:"Put users, levels, permissions and restrictions into the database, unless they are there."`
	Import      importCommand      `cmd:"" help:"Bring in the database of an original Barong: a dump of mysqldump, or a running MySQL."`
	Keys        keysCommand        `cmd:"" help:"Make, list or rotate the keys that sign tokens."`
	Policy      policyCommand      `cmd:"" help:"Explain the permission rules, or rehearse changes of them."`
	Audit       auditCommand       `cmd:"" help:"Export the audit trail."`
	Backup      backupCommand      `cmd:"" help:"Copy an embedded database, beside a running server."`
	Counts      countsCommand      `cmd:"" help:"Compare the counts behind the lists with the rows, or make them anew."`
	Users       usersCommand       `cmd:"" help:"Help, ban or promote a user when nobody can sign in to do it."`
	Outbox      outboxCommand      `cmd:"" help:"List what waits to leave (mails, events, webhooks), and have tried again what was given up."`
	Secrets     secretsCommand     `cmd:"" help:"Look after what is sealed in the database."`
	Config      configCommand      `cmd:"" help:"Print the effective configuration, and where each value comes from."`
	Healthcheck healthcheckCommand `cmd:"" help:"Exit with 0 when the server beside it is ready, for health checks of containers."`
	Doctor      doctorCommand      `cmd:"" help:"Check the configuration and everything that it names, and print what is wrong."`
	Version     versionCommand     `cmd:"" help:"Print version, commit and Go version."`

	kong.Plugins // the flags of the settings

	texts map[string]reflect.Value // of type *string, nil unless given; by flag
}

// A serveCommand runs the server.
type serveCommand struct {
	Migrate bool `help:"Bring the schema of a Postgres database up to date first; without it, a schema that is behind stops the start."`
}

// Help is shown below the command's usage.
func (serveCommand) Help() string {
	return "With no configuration at all it makes data/ with a database, keys and a first superadmin, and serves. Every flag " +
		"is also a variable and a key of the YAML file; docs/configuration.md describes them all."
}

// settings makes a flag of every setting. kong wants fields of a struct, so one is built.
func (c *cli) settings() {
	var fields []reflect.StructField
	var flags []string
	for _, s := range config.Settings() {
		if s.Flag == "" {
			continue
		}
		tag := fmt.Sprintf(`name:%q group:%q placeholder:%s help:%s`, s.Flag, s.Group, strconv.Quote(placeholder(s)),
			strconv.Quote(strings.ReplaceAll(help(s), "$", "$$")))
		fields = append(fields, reflect.StructField{
			Name: "F" + strconv.Itoa(len(fields)), Type: reflect.TypeFor[*string](), Tag: reflect.StructTag(tag),
		})
		flags = append(flags, s.Flag)
	}
	v := reflect.New(reflect.StructOf(fields))
	c.Plugins, c.texts = kong.Plugins{v.Interface()}, map[string]reflect.Value{}
	for i, flag := range flags {
		c.texts[flag] = v.Elem().Field(i)
	}
}

// printHelp shows the settings with serve alone: they would bury the help of every other command.
func (c *cli) printHelp(o kong.HelpOptions, ctx *kong.Context) error {
	if selected := ctx.Selected(); selected == nil || selected.Name != "serve" {
		for _, f := range ctx.Model.Flags {
			if _, ok := c.texts[f.Name]; ok {
				f.Hidden = true
			}
		}
	}
	return kong.DefaultHelpPrinter(o, ctx)
}

func help(s config.Setting) string {
	text := s.Help
	if s.Default != "" {
		text += " Default: " + s.Default + "."
	}
	return text + " (" + s.Name + ")"
}

func placeholder(s config.Setting) string {
	if words, ok := strings.CutPrefix(s.Allowed, "one of "); ok {
		return strings.ReplaceAll(words, ", ", "|")
	}
	return "..."
}

// given returns the settings that the command line holds, by flag.
func (c *cli) given() map[string]string {
	out := map[string]string{}
	for flag, text := range c.texts {
		if !text.IsNil() {
			out[flag] = text.Elem().String()
		}
	}
	return out
}
