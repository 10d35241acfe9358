package main

import (
	"context"
	"maps"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"barong/internal/config"
	"barong/internal/obs"
)

// watchEvery is how often the files of settings are looked at.
const watchEvery = time.Second

// reloads has a part take up changed settings. f makes what will hold, and swap puts it in the place of what does: swaps are
// made when every part has what it needs, so that all or nothing is taken up.
func (v *server) reloads(f func(*config.Config) (swap func(), err error)) {
	v.reloaded = append(v.reloaded, f)
}

// openReload takes up settings that change, and forgets what is remembered at a hangup.
func (v *server) openReload() error {
	v.reloads(func(c *config.Config) (func(), error) {
		return func() {
			v.level.Set(obs.Level(c.LogLevel))
			v.gateway.LogShare(c.AccessLog)
		}, nil
	})
	var refused atomic.Pointer[error] // why the settings are not those of the files
	v.ops.Part("configuration", false, func(context.Context) error {
		if err := refused.Load(); err != nil {
			return *err
		}
		return nil
	})
	v.metrics.Gauge("barong_config_stale", func() float64 {
		if refused.Load() != nil {
			return 1
		}
		return 0
	})
	reload := func() {
		err := v.reload()
		if err == nil {
			refused.Store(nil)
			return
		}
		refused.Store(&err)
		for line := range strings.SplitSeq(err.Error(), "\n") {
			v.log.Error("the settings were changed and are not taken up; those in force stay", "error", line)
		}
	}
	v.looked = looks(v.taken)
	v.background(func(ctx context.Context) {
		hangup := make(chan os.Signal, 1)
		signal.Notify(hangup, syscall.SIGHUP)
		defer signal.Stop(hangup)
		t := time.NewTicker(watchEvery)
		defer t.Stop()
		seen := looks(v.taken)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
				v.log.Info("hangup: settings are taken up, and all that is remembered is read again")
				seen = looks(v.taken)
				reload()
				v.cache.ForgetAll()
				v.rules.Poke()
			case <-t.C:
				// Of a file that is being written half may stand there: it is taken up when it stays as it is for a moment.
				if now := looks(v.taken); !maps.Equal(now, seen) {
					seen = now
					continue
				} else if v.stale(now) {
					v.looked = now
					reload()
					seen = looks(v.taken)
					v.looked = seen
				}
			}
		}
	})
	return nil
}

// stale reports whether the files are others than those that were taken up, or refused.
func (v *server) stale(now map[string]look) bool { return !maps.Equal(now, v.looked) }

// A look is what a file looks like from outside.
type look struct {
	modified int64
	size     int64
	there    bool
}

func looks(c *config.Config) map[string]look {
	out := map[string]look{}
	for _, path := range c.Files() {
		l := look{}
		if info, err := os.Stat(path); err == nil { // a link is followed: orchestrators change what it leads to
			l = look{info.ModTime().UnixNano(), info.Size(), true}
		}
		out[path] = l
	}
	return out
}

// reload reads the settings again and takes up those that have changed and can be, all of them or none. Its error says why
// none were.
func (v *server) reload() error {
	next, err := v.load()
	if err = config.Join(err, next.Validate(), validateTemplates(next)); err != nil {
		return err
	}
	changed, restart := v.taken.Changed(next)
	swaps := make([]func(), 0, len(v.reloaded))
	for _, f := range v.reloaded {
		swap, err := f(next)
		if err != nil {
			return err
		}
		swaps = append(swaps, swap)
	}
	for _, swap := range swaps {
		swap()
	}
	v.taken = next
	for _, w := range next.Warnings() {
		v.log.Warn("configuration", "warning", w)
	}
	if len(changed) > 0 {
		v.log.Info("settings were taken up", "settings", strings.Join(changed, ", "))
	}
	if len(restart) > 0 {
		v.log.Warn("settings were changed that need a restart", "settings", strings.Join(restart, ", "))
	}
	return nil
}
