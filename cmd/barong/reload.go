package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"barong/db"
	"barong/internal/config"
	"barong/internal/crypto/secret"
	"barong/internal/delivery/events"
	"barong/internal/obs"
	"barong/session/redisstore"
)

// watchEvery is how often the files of settings are looked at.
const watchEvery = time.Second

// reloads has a part take up changed settings. f makes what will hold, and swap puts it in the place of what does: swaps are
// made when every part has what it needs, so that all or nothing is taken up.
func (v *server) reloads(f func(*config.Config) (swap func(), err error)) {
	v.reloaded = append(v.reloaded, f)
}

// refers has files looked at for changes, beside those that the settings name. Parts tell of theirs one after the other, each time
// that they take something up.
func (v *server) refers(files []string) { v.referred = append(v.referred, files...) }

// A notYet says that a setting cannot be taken up at the moment: a store does not let the new login in, or is away. It is tried
// again.
type notYet struct{ error }

func (n notYet) Unwrap() error { return n.error }

// How long a store is tried with a new login, and how soon it is tried again after it was not let in.
const (
	loginTime  = 5 * time.Second
	loginPause = 2 * time.Second
)

// newLogin takes up the user and password of a URL, once whoever is there lets them in. of is the URL in settings, try connects,
// and swap has connections that are made from now on use it. Another change of the URL needs a restart.
func (v *server) newLogin(
	name string, of func(*config.Config) secret.URL, try func(ctx context.Context, url secret.URL) error, swap func(url secret.URL) error,
) func(*config.Config) (func(), error) {
	return func(next *config.Config) (func(), error) {
		url, before := of(next), of(v.taken)
		if url == before || !url.SameButLogin(before) {
			return func() {}, nil
		}
		ctx, cancel := context.WithTimeout(v.base, loginTime)
		defer cancel()
		if err := try(ctx, url); err != nil {
			return nil, notYet{fmt.Errorf("%s=%s: the new login is not let in: %w", name, url, err)}
		}
		return func() {
			if err := swap(url); err != nil {
				v.log.Error("a new login is not taken up", "setting", name, "error", err) // it was judged before
			}
		}, nil
	}
}

// databaseLogin has a handle of the database log in anew.
func (v *server) databaseLogin(swap func(string) error) func(*config.Config) (func(), error) {
	if v.db.SQLite() {
		return func(*config.Config) (func(), error) { return func() {}, nil }
	}
	return v.newLogin("BARONG_DATABASE_URL", func(c *config.Config) secret.URL { return c.DatabaseURL },
		func(ctx context.Context, url secret.URL) error {
			d, err := db.Open(ctx, db.Options{URL: url.Reveal()})
			if err != nil {
				return err
			}
			return d.Close()
		},
		func(url secret.URL) error { return swap(url.Reveal()) })
}

func (v *server) redisLogin(login *redisstore.Login) func(*config.Config) (func(), error) {
	return v.newLogin("BARONG_REDIS_URL", func(c *config.Config) secret.URL { return c.RedisURL },
		func(ctx context.Context, url secret.URL) error {
			client, err := redisstore.ConnectWithin(url.Reveal(), v.config.RedisTimeout)
			if err != nil {
				return err
			}
			return errors.Join(client.Ping(ctx).Err(), client.Close())
		},
		func(url secret.URL) error { return login.Replace(url.Reveal()) })
}

func (v *server) brokerLogin(swap func(secret.URL)) func(*config.Config) (func(), error) {
	return v.newLogin("BARONG_EVENT_API_RABBITMQ_URL", (*config.Config).BrokerURL,
		func(ctx context.Context, url secret.URL) error {
			_, err := events.Probe(ctx, url)
			return err
		},
		func(url secret.URL) error {
			swap(url)
			return nil
		})
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
	var again time.Time // when what could not be taken up yet is tried again; zero for never
	reload := func() {
		err := v.reload()
		again = time.Time{}
		if err == nil {
			refused.Store(nil)
			return
		}
		if _, later := errors.AsType[notYet](err); later {
			again = time.Now().Add(loginPause)
		}
		if before := refused.Swap(&err); before != nil && (*before).Error() == err.Error() && !again.IsZero() {
			return // said already
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			v.log.Error("the settings were changed and are not taken up; those in force stay", "error", line)
		}
	}
	v.read = v.digests(v.taken)
	v.looked = v.looks()
	v.background(func(ctx context.Context) {
		hangup := make(chan os.Signal, 1)
		signal.Notify(hangup, syscall.SIGHUP)
		defer signal.Stop(hangup)
		t := time.NewTicker(watchEvery)
		defer t.Stop()
		seen := v.looks()
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
				v.log.Info("hangup: settings are taken up, and all that is remembered is read again")
				seen = v.looks()
				reload()
				v.cache.ForgetAll()
				v.rules.Poke()
			case <-t.C:
				// Of a file that is being written half may stand there: it is taken up when it stays as it is for a moment.
				if now := v.looks(); !maps.Equal(now, seen) {
					seen = now
					continue
				} else if v.stale(now) || !again.IsZero() && time.Now().After(again) {
					v.looked = now
					reload()
					seen = v.looks()
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

func (v *server) looks() map[string]look {
	out := map[string]look{}
	for _, path := range append(v.taken.Files(), v.referred...) {
		l := look{}
		if info, err := os.Stat(path); err == nil { // a link is followed: orchestrators change what it leads to
			l = look{info.ModTime().UnixNano(), info.Size(), true}
		}
		out[path] = l
	}
	return out
}

// digests are those of the files that are read at the start alone, by the settings that name them.
func (v *server) digests(c *config.Config) map[string][sha256.Size]byte {
	out := map[string][sha256.Size]byte{}
	for name, places := range c.ReadAtStart() {
		for _, path := range places {
			if text, err := os.ReadFile(path); err == nil {
				out[name] = sha256.Sum256(text)
			}
		}
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
	now := v.digests(next)
	for name := range next.ReadAtStart() {
		if now[name] != v.read[name] && !slices.Contains(restart, name) {
			restart = append(restart, name)
		}
	}
	if (v.config.BrokerURL() == "") != (next.BrokerURL() == "") && !slices.Contains(restart, "BARONG_EVENT_API_RABBITMQ_URL") {
		restart = append(restart, "BARONG_EVENT_API_RABBITMQ_URL")
	}
	slices.Sort(restart)
	swaps := make([]func(), 0, len(v.reloaded))
	for _, f := range v.reloaded {
		swap, err := f(next)
		if err != nil {
			return err
		}
		swaps = append(swaps, swap)
	}
	v.referred = nil
	for _, swap := range swaps {
		swap()
	}
	next.Keep(v.taken, restart)
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
