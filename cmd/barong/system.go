package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"barong/api/view"
	"barong/internal/crypto/keys"
	"barong/internal/obs"
)

// system says how this process is.
func (v *server) system(ctx context.Context) (view.System, error) {
	c, build, now := v.config, obs.Built(), time.Now()
	state, rules, snapshot := v.ops.State(ctx), v.rules.Status(), v.rules.Snapshot()
	s := view.System{
		Version: build.Version, Commit: build.Commit, BuiltAt: build.Date, StartedAt: view.Sec(v.started), Environment: c.Env,
		Compat: c.Compat, Status: state.Status, Parts: []view.Part{}, Keys: []view.SignKey{},
		Policy: view.PolicyAge{
			Version: rules.Version, LoadedAt: view.Sec(rules.Loaded), Age: int64(now.Sub(rules.Loaded) / time.Second),
			OwnModel: snapshot.OwnModel(), Error: rules.Error, Warnings: append([]string{}, snapshot.Warnings()...),
		},
	}
	for _, name := range slices.Sorted(maps.Keys(state.Parts)) {
		p := state.Parts[name]
		s.Parts = append(s.Parts, view.Part{Name: name, Status: p.Status, Essential: p.Essential, Reason: p.Reason})
	}
	all, err := keys.List(c.JWTPrivateKeyPath, now)
	if err != nil {
		return view.System{}, fmt.Errorf("signing keys: %w", err)
	}
	for _, k := range all {
		s.Keys = append(s.Keys, view.SignKey{KID: k.ID, Algorithm: k.Algorithm, State: k.String()})
	}
	for _, value := range c.Values() {
		s.Settings = append(s.Settings, view.Setting{Name: value.Name, Value: value.Text, Source: value.Source})
	}
	return s, nil
}
