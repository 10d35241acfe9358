package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"barong/envoy"
	"barong/internal/config"
)

// through looks at a gateway from outside.
func (d doctorCommand) through(ctx context.Context, c *config.Config, line func(what, detail string, err error)) error {
	at, err := url.Parse(d.Through)
	if err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" || strings.Trim(at.Path, "/") != "" || at.User != nil {
		return &usageError{fmt.Errorf("--through=%q is no address such as https://gateway.example", d.Through)}
	}
	for _, path := range []string{d.Path, d.Public, d.Echo} {
		if path != "" && !strings.HasPrefix(path, "/") {
			return &usageError{fmt.Errorf("%q is no path: it begins with a slash", path)}
		}
	}
	tried, err := envoy.Probe(ctx, envoy.Probing{
		Gateway: at, Kind: d.Kind, Echo: d.Echo, Origin: d.Origin,
		Guarded: cmp.Or(d.Path, "/"+c.APIPrefix+"/resource/users/me"), Public: cmp.Or(d.Public, "/"+c.APIPrefix+"/identity/ping"),
	})
	if err != nil {
		line("through "+at.Host, "", err)
		return nil
	}
	for _, t := range tried {
		what := "through " + at.Host + ": " + t.What
		if t.Why == "" {
			line(what, "", nil)
			continue
		}
		text := t.Why + "; it answers " + t.Got
		if t.Mend != "" {
			text += "; compare " + t.Mend
		}
		if t.Open {
			line(what, "", errors.New(text))
		} else {
			line(what, "", warning(text))
		}
	}
	return nil
}
