package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"barong/db"
	"barong/internal/bus"
	"barong/internal/bus/redisbus"
	"barong/internal/bus/sqlbus"
	"barong/internal/config"
	"barong/internal/crypto/secret"
	"barong/session"
	"barong/session/near"
	"barong/session/redisstore"
)

// joinTime is how long a start waits for Redis, or the database, to carry notices.
const joinTime = 10 * time.Second

func (v *server) openSecrets() error {
	c := v.config
	var created bool
	var err error
	if v.box, created, err = openBox(c); err != nil {
		return err
	}
	if created {
		v.log.Info("a secret key was generated", "file", config.SecretKeyFile)
	}
	v.reloads(func(next *config.Config) (func(), error) {
		if next.SecretKey == v.taken.SecretKey || !secret.Extends(next.SecretKey, v.taken.SecretKey) {
			return func() {}, nil
		}
		return func() {
			if err := v.box.Extend(next.SecretKey); err != nil {
				v.log.Error("the new secret key is not taken up", "error", err) // the list was judged before
				return
			}
			v.log.Info("the secret keys changed; the first seals", "keys", v.box.KeyIDs())
		}, nil
	})
	if v.keys, created, err = openKeys(c); err != nil {
		return err
	}
	if created {
		v.log.Info("a signing key was generated", "path", keyPath(c), "algorithm", c.JWTAlgorithm)
	}
	v.background(func(ctx context.Context) {
		v.keys.Watch(ctx, time.Second, v.signingKeysRead)
	})
	return nil
}

// openDatabase opens the database and sees to its schema. An embedded one is migrated and, when it is new, seeded; a
// shared one is left to the operator.
func (v *server) openDatabase(migrate bool) error {
	c := v.config
	var err error
	if v.db, err = db.Open(v.ctx, db.Options{
		URL: c.DatabaseURL.Reveal(), Sealer: v.box, Watcher: v.watcher(databaseName(c), db.Operations),
	}); err != nil {
		return fmt.Errorf("BARONG_DATABASE_URL=%s: %w", c.DatabaseURL, err)
	}
	v.watchDatabase()
	v.closing("database", v.db.Close)
	v.reloads(v.databaseLogin(v.db.LogInAs))
	pending, err := v.db.Pending(v.ctx)
	if err != nil {
		return err
	}
	if pending && !v.db.SQLite() && !migrate {
		return errors.New("the database's schema is behind this program: run \"barong migrate up\", or serve with --migrate")
	}
	if pending {
		done, err := v.db.MigrateUp(v.ctx)
		if err != nil {
			return err
		}
		v.log.Info("the schema was brought up to date", "migrations", len(done))
	}
	if v.db.SQLite() {
		users, err := v.db.CountUsers(v.ctx)
		if err != nil {
			return err
		}
		if users == 0 {
			if err := v.seed(v.db, c, v.log); err != nil {
				return err
			}
		}
	}
	if err := v.db.TryWrite(v.ctx); err != nil {
		v.log.Error("nobody can sign in, and nothing be changed, before this is mended; checks are answered meanwhile", "error", err)
	}
	v.ops.Store("database", v.db.Ping, v.db.TryWrite)
	if err := v.verifySeals(); err != nil {
		return err
	}
	v.background(v.normalizeEmails)
	v.background(v.indexNames)
	v.every(10*time.Minute, v.indexNames) // replicas of an older release may run on for a while
	return nil
}

// normalizeEmails puts the addresses that an older release has stored with A-labels into the form of today.
func (v *server) normalizeEmails(ctx context.Context) {
	changed, taken, err := v.db.NormalizeEmails(ctx)
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		v.log.Error("addresses of other scripts are not in one form; each is found in any all the same", "error", err)
	case changed > 0:
		v.log.Info("addresses of other scripts were put into one form", "accounts", changed)
	}
	for _, uid := range taken {
		v.log.Warn("two accounts have one address in two spellings; each signs in with its own. Close the one that is not used", "uid", uid)
	}
}

// indexNames makes the names that an older release has written findable without regard to case.
func (v *server) indexNames(ctx context.Context) {
	switch n, err := v.db.IndexNames(ctx); {
	case ctx.Err() != nil:
	case err != nil:
		v.log.Error("names of some profiles are found in their exact spelling only", "error", err)
	case n > 0:
		v.log.Info("names are found without regard to case now", "profiles", n)
	}
}

// verifySeals refuses to serve with a secret key that does not open what is stored: the right key could not read what would
// be written under it. Whatever else is wrong with a sealed row concerns that row alone, and is only logged.
func (v *server) verifySeals() error {
	switch err := v.db.VerifySeals(v.ctx); {
	case errors.Is(err, secret.ErrNoKey):
		return fmt.Errorf("BARONG_SECRET_KEY: it is not, or does not have, the key that the database's rows are sealed under: %w", err)
	case v.ctx.Err() != nil:
		return err
	case err != nil:
		v.log.Error("sealed columns are not in order", "error", err)
	}
	return nil
}

// openShared opens what replicas share beside the database: Redis, the bus, the sessions.
func (v *server) openShared() error {
	c := v.config
	if !v.db.SQLite() {
		v.watchClock("database", v.db.ServerTime)
	}
	o := bus.Options{Log: v.log}
	joining, cancel := context.WithTimeout(v.ctx, joinTime)
	defer cancel()
	if c.RedisURL != "" {
		client, login, err := redisstore.ConnectAs(c.RedisURL.Reveal(), c.RedisTimeout)
		if err != nil {
			return fmt.Errorf("BARONG_REDIS_URL=%s: %w", c.RedisURL, err)
		}
		v.redis = client
		v.reloads(v.redisLogin(login))
		v.watchRedis()
		v.closing("redis", client.Close)
		v.watchClock("redis", func(ctx context.Context) (time.Time, error) { return client.Time(ctx).Result() })
		store := redisstore.New(client)
		v.sessions = store
		pulse, err := db.OpenPulse(v.ctx, db.Options{URL: c.DatabaseURL.Reveal(), Sealer: v.box}, c.SessionCacheTTL)
		if err != nil {
			return fmt.Errorf("BARONG_DATABASE_URL=%s: %w", c.DatabaseURL, err)
		}
		v.closing("database probe", pulse.Close)
		v.reloads(v.databaseLogin(pulse.LogInAs))
		v.background(pulse.Run)
		o.SourceAnswers = pulse.Beats
		if err := redisstore.Await(joining, client); err != nil {
			return fmt.Errorf("BARONG_REDIS_URL=%s: %w", c.RedisURL, err)
		}
		shared, err := redisbus.Open(joining, client, o)
		if err != nil {
			return fmt.Errorf("BARONG_REDIS_URL=%s: %w", c.RedisURL, err)
		}
		v.bus = shared
		if drops, err := redisstore.Evicts(joining, client); err != nil {
			v.log.Debug("it is not known whether Redis drops keys when its memory is full", "error", err)
		} else if drops != "" {
			v.log.Warn(evictionWarning(drops).Error())
		}
		v.ops.Store("redis", store.Ping, store.TryWrite)
	} else {
		v.sessions = v.db.Sessions()
		shared, err := sqlbus.Open(joining, v.db, o)
		if err != nil {
			return fmt.Errorf("join the other replicas: %w", err)
		}
		v.bus = shared
	}
	v.closing("bus", v.bus.Close)
	v.ops.Part("bus", false, func(context.Context) error { return v.bus.Healthy(time.Now()) })
	v.db.PublishTo(v.bus.Publish)
	v.every(time.Minute, func(ctx context.Context) {
		if _, err := v.sessions.Purge(ctx, time.Now(), 10_000); err != nil {
			v.log.Warn("expired sessions were not purged", "error", err)
		}
		if err := v.db.PurgeEndedSessions(ctx, time.Now(), 10_000); err != nil {
			v.log.Warn("records of ended sessions were not purged", "error", err)
		}
	})

	sessions, apiKeys := near.Room(int64(c.SessionCacheMemory) << 20)
	v.log.Info("what is remembered is bounded", "memory_mib", c.SessionCacheMemory, "sessions", sessions, "api_keys", apiKeys)
	v.cache = near.New(near.Options{
		Store: v.sessions, Principals: v.db, APIKeys: v.db, TTL: c.SessionCacheTTL, Life: c.SessionExpireTime,
		MaxSessions: sessions, MaxAPIKeys: apiKeys,
		Fresh: func(loaded, now time.Time) bool { return v.bus.Fresh(loaded, now, c.SessionCacheTTL) },
		Record: func(ctx context.Context, s *session.Session) error {
			return v.db.Update(ctx, func(ctx context.Context, tx *db.Tx) error { return tx.EndSession(ctx, s) })
		},
		Read:  v.cacheReads(),
		Ended: func(key session.Key) { v.tell(bus.Notice{Kind: bus.SessionGone, Subject: key.String()}) },
		Log:   v.log,
	})
	v.onClose("sessions", v.cache.Close)
	v.bus.Subscribe(v.cache.Hear)
	v.bus.Subscribe(v.hear)
	for i, what := range []string{"sessions", "users", "api_keys"} {
		v.metrics.Gauge("barong_cache_entries", func() float64 {
			sessions, users, keys := v.cache.Len()
			return float64([]int{sessions, users, keys}[i])
		}, "kind", what)
	}
	return nil
}

// hear reads the signing keys again when a notice says that they changed. Package rules listens for itself.
func (v *server) hear(n bus.Notice) {
	if n.Kind != bus.SigningChanged {
		return
	}
	v.signingKeysRead(v.keys.Reload())
}

// signingKeysRead tells the log what came of reading the signing keys again.
func (v *server) signingKeysRead(changed bool, err error) {
	switch {
	case err != nil:
		v.log.Error("the signing keys cannot be read; those in use stay", "error", err)
	case changed:
		set := v.keys.Current()
		said := []any{"kid", set.KeyID()}
		if next, from := set.Next(time.Now()); next != "" {
			said = append(said, "next", next, "from", from)
		}
		v.log.Info("the signing keys changed", said...)
	}
}

// tell gives notices to every replica. Those that it does not reach find out within the cache's lifetime.
func (v *server) tell(notices ...bus.Notice) {
	ctx, cancel := context.WithTimeout(v.base, 2*time.Second)
	defer cancel()
	if err := v.bus.Publish(ctx, notices...); err != nil {
		v.log.Warn("other replicas were not told", "error", err)
	}
}
