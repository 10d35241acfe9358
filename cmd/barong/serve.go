package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/valyala/fasthttp"

	"barong/api"
	"barong/api/account"
	"barong/api/admin"
	"barong/api/identity"
	"barong/api/management"
	"barong/api/resource"
	"barong/api/rest"
	"barong/authz"
	"barong/db"
	"barong/envoy"
	"barong/internal/audit"
	"barong/internal/blob"
	"barong/internal/bus"
	"barong/internal/bus/redisbus"
	"barong/internal/bus/sqlbus"
	"barong/internal/captcha"
	"barong/internal/config"
	"barong/internal/device"
	"barong/internal/events"
	"barong/internal/geoip"
	"barong/internal/jws"
	"barong/internal/keys"
	"barong/internal/limit"
	"barong/internal/mail"
	"barong/internal/obs"
	"barong/internal/outbox"
	"barong/internal/password"
	"barong/internal/rules"
	"barong/internal/secret"
	"barong/internal/sms"
	"barong/session"
	"barong/session/redisstore"
	"barong/session/sqlstore"
)

// joinTime is how long a start waits for Redis, or the database, to carry notices.
const joinTime = 10 * time.Second

// How long a stop may take after BARONG_DRAIN_TIME: first checks and calls under way, then what they left to be written.
const (
	drainTime = 8 * time.Second
	flushTime = 5 * time.Second
)

// settleTime is when a start is over, and what it needed can be given back to the system.
const settleTime = 2 * time.Second

// Run serves until the context ends.
func (s serveCommand) Run(p *program) error {
	c, services, err := p.startable()
	if err != nil {
		return err
	}
	log := obs.NewLog(p.stderr, c.LogLevel, c.LogFormat)
	for _, w := range c.Warnings() {
		log.Warn("configuration", "warning", w)
	}
	for _, doubt := range services.Doubts {
		log.Warn("who may call the management API", "file", c.ManagementFile, "warning", doubt)
	}
	v := &server{program: p, config: c, log: log, metrics: obs.NewMetrics(), services: services}
	v.ops = obs.NewOps(v.metrics, log)
	defer v.close()
	if err := v.open(s.Migrate); err != nil {
		return err
	}
	return v.serve()
}

// A server is a running program: what open has made, in the order in which close takes it apart again.
type server struct {
	*program
	config   *config.Config
	services management.Config
	log      *slog.Logger
	metrics  *obs.Metrics
	ops      *obs.Ops

	box      *secret.Box
	keys     *keys.Ring
	db       *db.DB
	redis    redis.UniversalClient // nil without Redis
	bus      bus.Bus
	sessions session.Store
	cache    *session.Cache
	geo      *geoip.Locator
	rules    *rules.Rules
	audit    *audit.Writer
	proxies  *authz.Proxies
	cookies  *authz.Cookies
	engine   *authz.Engine
	gateway  *envoy.Handler
	api      *api.API

	base    context.Context // of everything that runs in the background; ends last
	work    sync.WaitGroup
	closers []func()
}

// onClose has f called when the server stops, before what was registered earlier.
func (v *server) onClose(f func()) { v.closers = append(v.closers, f) }

// closing has an error of a part that stops logged.
func (v *server) closing(part string, f func() error) {
	v.onClose(func() {
		if err := f(); err != nil {
			v.log.Warn("a part did not stop in order", "part", part, "error", err)
		}
	})
}

func (v *server) close() {
	for i := len(v.closers) - 1; i >= 0; i-- {
		v.closers[i]()
	}
}

// background runs f until the server stops.
func (v *server) background(f func(ctx context.Context)) {
	v.work.Add(1)
	go func() {
		defer v.work.Done()
		f(v.base)
	}()
}

// every runs f now and then until the server stops.
func (v *server) every(pause time.Duration, f func(ctx context.Context)) {
	v.background(func(ctx context.Context) {
		t := time.NewTicker(pause)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				f(ctx)
			}
		}
	})
}

// open makes every part, from the stores upwards.
func (v *server) open(migrate bool) error {
	base, stop := context.WithCancel(context.Background())
	v.base = base
	v.onClose(func() {
		stop()
		v.work.Wait()
	})
	for _, step := range []func() error{
		v.openSecrets,
		func() error { return v.openDatabase(migrate) },
		v.openShared,
		v.openRules,
		v.openEngine,
		v.openAPI,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

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
	if v.keys, created, err = openKeys(c); err != nil {
		return err
	}
	if created {
		v.log.Info("a signing key was generated", "path", keyPath(c), "algorithm", c.JWTAlgorithm)
	}
	v.background(func(ctx context.Context) {
		v.keys.Watch(ctx, time.Second, func(changed bool, err error) {
			if err != nil {
				v.log.Error("the signing keys cannot be read; those in use stay", "error", err)
			} else if changed {
				v.log.Info("the signing keys changed", "kid", v.keys.Current().KeyID())
			}
		})
	})
	return nil
}

// openDatabase opens the database and sees to its schema. An embedded one is migrated and, when it is new, seeded; a
// shared one is left to the operator.
func (v *server) openDatabase(migrate bool) error {
	c := v.config
	var err error
	if v.db, err = db.Open(v.ctx, db.Options{URL: c.DatabaseURL.Reveal(), Sealer: v.box}); err != nil {
		return fmt.Errorf("BARONG_DATABASE_URL=%s: %w", c.DatabaseURL, err)
	}
	v.closing("database", v.db.Close)
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
	v.ops.Part("database", true, takesWrites(v.db.Ping, v.db.TryWrite))
	if err := v.checkSeals(); err != nil {
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

// writeEvery is how often /readyz tries a write, at most.
const writeEvery = 5 * time.Second

// takesWrites is the check of a store, which has to answer each time and to have taken a write lately.
func takesWrites(answers, write func(context.Context) error) func(context.Context) error {
	write = obs.AtMostEvery(writeEvery, write)
	return func(ctx context.Context) error {
		if err := answers(ctx); err != nil {
			return err
		}
		return write(ctx)
	}
}

// checkSeals refuses to serve with a secret key that does not open what is stored: what would be written then, the right
// key could not read. Anything else that is wrong with a sealed row is that row's, and only told.
func (v *server) checkSeals() error {
	switch err := v.db.CheckSeals(v.ctx); {
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
		v.watchClock("database", func(ctx context.Context) (time.Time, error) { return databaseTime(ctx, v.db) })
	}
	o := bus.Options{Log: v.log}
	joining, cancel := context.WithTimeout(v.ctx, joinTime)
	defer cancel()
	if c.RedisURL != "" {
		client, err := redisstore.ConnectWithin(c.RedisURL.Reveal(), c.RedisTimeout)
		if err != nil {
			return fmt.Errorf("BARONG_REDIS_URL=%s: %w", c.RedisURL, err)
		}
		v.redis = client
		v.closing("redis", client.Close)
		v.watchClock("redis", func(ctx context.Context) (time.Time, error) { return client.Time(ctx).Result() })
		store := redisstore.New(client)
		v.sessions = store
		shared, err := redisbus.Open(joining, client, o)
		if err != nil {
			return fmt.Errorf("BARONG_REDIS_URL=%s: %w", c.RedisURL, err)
		}
		v.bus = shared
		if drops, err := redisstore.Evicts(joining, client); err != nil {
			v.log.Debug("it is not known whether Redis drops keys when its memory is full", "error", err)
		} else if drops != "" {
			v.log.Warn(evictionDoubt(drops).Error())
		}
		v.ops.Part("redis", true, takesWrites(store.Ping, store.TryWrite))
	} else {
		v.sessions = sqlstore.New(v.db)
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

	answers, err := v.databaseAnswers()
	if err != nil {
		return err
	}
	v.cache = session.NewCache(session.CacheOptions{
		Store: v.sessions, Principals: v.db, APIKeys: v.db, TTL: c.SessionCacheTTL, Life: c.SessionExpireTime,
		Fresh: func(loaded, now time.Time) bool {
			return v.bus.Fresh(loaded, now, c.SessionCacheTTL) && (now.Sub(loaded) <= c.SessionCacheTTL || answers(now))
		},
		Record: func(ctx context.Context, s *session.Session) error {
			return v.db.Update(ctx, func(ctx context.Context, tx *db.Tx) error { return tx.EndSession(ctx, s) })
		},
		Ended: func(key session.Key) { v.tell(bus.Notice{Kind: bus.SessionGone, Subject: key.String()}) },
		Log:   v.log,
	})
	v.onClose(v.cache.Close)
	v.bus.Subscribe(v.forget)
	for i, what := range []string{"sessions", "users", "api_keys"} {
		v.metrics.Gauge("barong_cache_entries", func() float64 {
			sessions, users, keys := v.cache.Len()
			return float64([]int{sessions, users, keys}[i])
		}, "kind", what)
	}
	return nil
}

// databaseAnswers returns whether the database has answered within the cache's lifetime. Where Redis carries the notices
// a database that is gone would otherwise go unnoticed: who is known would pass for as long as it stays away. It is asked
// over a connection of its own, so that calls which queue for the others do not look like an outage.
func (v *server) databaseAnswers() (func(now time.Time) bool, error) {
	if v.redis == nil {
		return func(time.Time) bool { return true }, nil // the bus is the database
	}
	probe, err := db.Open(v.ctx, db.Options{URL: v.config.DatabaseURL.Reveal(), Sealer: v.box})
	if err != nil {
		return nil, fmt.Errorf("BARONG_DATABASE_URL=%s: %w", v.config.DatabaseURL, err)
	}
	v.closing("database probe", probe.Close)
	pause := min(max(v.config.SessionCacheTTL/4, 100*time.Millisecond), time.Second)
	life := max(v.config.SessionCacheTTL, 3*pause)
	start := time.Now()
	var last atomic.Int64 // nanoseconds since start, which no step of the wall clock moves
	v.every(pause, func(ctx context.Context) {
		asked := time.Now()
		ctx, cancel := context.WithTimeout(ctx, life)
		defer cancel()
		if probe.Ping(ctx) == nil {
			last.Store(int64(asked.Sub(start)))
		}
	})
	return func(now time.Time) bool { return int64(now.Sub(start))-last.Load() <= int64(life) }, nil
}

// forget makes the near cache forget what a notice names.
func (v *server) forget(n bus.Notice) {
	switch n.Kind {
	case bus.UserChanged:
		v.cache.ForgetUser(n.Subject)
	case bus.SessionGone:
		if key, ok := session.ParseKey(n.Subject); ok {
			v.cache.ForgetSession(key)
		}
	case bus.SessionsGone:
		v.cache.ForgetSessions()
	case bus.KeyChanged:
		v.cache.ForgetKey(n.Subject)
	case bus.Everything:
		v.cache.ForgetAll()
	case bus.SigningChanged:
		if _, err := v.keys.Reload(); err != nil {
			v.log.Error("the signing keys cannot be read; those in use stay", "error", err)
		}
	case bus.PolicyChanged: // package rules listens for itself
	}
}

// tell gives notices to every replica. An error is logged by the bus: the others find out within the cache's lifetime.
func (v *server) tell(notices ...bus.Notice) {
	ctx, cancel := context.WithTimeout(v.base, 2*time.Second)
	defer cancel()
	if err := v.bus.Publish(ctx, notices...); err != nil {
		v.log.Warn("other replicas were not told", "error", err)
	}
}

func (v *server) openRules() error {
	c := v.config
	geo, err := openPlaces(c)
	if err != nil {
		return err
	}
	v.geo = geo
	o := ruleOptions(c, v.db, geo)
	o.Bus, o.Log = v.bus, v.log
	r, err := rules.New(o)
	if err != nil {
		return err
	}
	v.rules = r
	if err := r.Reload(v.ctx); err != nil {
		return fmt.Errorf("the rules: %w", err)
	}
	// It stores what it has sampled when it stops, so it stops before the database closes.
	running, stop := context.WithCancel(v.base)
	stopped := make(chan struct{})
	v.onClose(func() {
		stop()
		<-stopped
	})
	go func() {
		defer close(stopped)
		r.Run(running)
	}()
	v.background(func(ctx context.Context) {
		hangup := make(chan os.Signal, 1)
		signal.Notify(hangup, syscall.SIGHUP)
		defer signal.Stop(hangup)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
				v.log.Info("hangup: all that is remembered is read again")
				v.cache.ForgetAll()
				r.Poke()
			}
		}
	})
	v.ops.Part("policy", false, func(context.Context) error { return stale(r) })
	v.metrics.Gauge("barong_policy_version", func() float64 { return float64(r.Status().Version) })
	v.metrics.Gauge("barong_policy_stale", func() float64 {
		if stale(r) != nil {
			return 1
		}
		return 0
	})
	v.audit = audit.New(audit.Options{DB: v.db, Country: v.geo.Country, Log: v.log})
	v.closing("audit", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), flushTime)
		defer cancel()
		return v.audit.Close(ctx)
	})
	if c.AuditKeep > 0 {
		v.every(time.Hour, func(ctx context.Context) {
			if n, err := v.db.PurgeActivities(ctx, time.Now().Add(-c.AuditKeep)); err != nil {
				v.log.Warn("old activities were not purged", "error", err)
			} else if n > 0 {
				v.log.Info("old activities were purged", "rows", n)
			}
		})
	}
	return nil
}

// stale says why the rules in force are not those that are stored.
func stale(r *rules.Rules) error {
	if st := r.Status(); st.Error != "" {
		return fmt.Errorf("the rules of version %d stay in force since %s: %s", st.Version, st.Since.UTC().Format(time.RFC3339), st.Error)
	}
	return nil
}

// forwarders is the metric of the calls whose X-Forwarded-For was ignored, since their peer is no trusted proxy.
const forwarders = "barong_untrusted_forwarders_total"

func (v *server) openEngine() error {
	c := v.config
	proxies, err := authz.ParseProxies(c.TrustedProxies.String())
	if err != nil {
		return config.Bad("BARONG_TRUSTED_PROXIES", c.TrustedProxies, err.Error())
	}
	if c.Gateway == "akamai" {
		proxies = proxies.WithTrueClientIP()
	}
	v.proxies = proxies
	if v.cookies, err = authz.NewCookies(authz.CookieSettings{
		Name: c.SessionName, Secure: c.CookieSecure, SameSite: c.CookieSameSite, Domain: c.CookieDomain,
	}); err != nil {
		return config.Bad("BARONG_COOKIE_SAMESITE", c.CookieSameSite, err.Error())
	}
	var nonces authz.Nonces
	switch c.APIKeyReplay {
	case "local":
		nonces = authz.NewLocalNonces(0, time.Now)
	case "shared":
		if v.redis == nil {
			return config.Bad("BARONG_APIKEY_REPLAY", "shared", "needs BARONG_REDIS_URL")
		}
		nonces = redisstore.NewNonces(v.redis)
	}
	binding, err := authz.ParseBinding(strings.Join(c.SessionBind, ","))
	if err != nil {
		return config.Bad("BARONG_SESSION_BIND", c.SessionBind, err.Error())
	}
	mismatches := map[string]func(){}
	for _, item := range []string{authz.BindUserAgent, authz.BindIP} {
		mismatches[item] = v.metrics.Counter("barong_session_mismatches_total", "item", item).Inc
	}
	v.engine, err = authz.New(authz.Options{
		Policy: v.rules.Snapshot, Cache: v.cache, Signer: func() authz.Signer { return v.keys.Current() },
		Proxies: v.proxies, Cookies: v.cookies,
		Token: authz.TokenSettings{
			Life: c.JWTExpireTime, Reuse: c.JWTReuse, Issuer: c.JWTIssuer, Audience: c.JWTAudience,
		},
		CSRF: c.CSRFProtection, Bind: binding,
		NonceLifetime: c.APIKeyNonceLifetime, Nonces: nonces, Auditor: v.audit, Sampler: v.rules.Sampler(), Compat: c.Original(),
		Forwarder: v.metrics.Counter(forwarders).Inc, Mismatch: func(item string) { mismatches[item]() },
		Log: v.log,
	})
	if err != nil {
		return err
	}
	v.onClose(v.engine.Close)
	v.gateway = envoy.New(envoy.Options{
		Checker: v.engine, Trusted: v.proxies.Trusted, LoginURL: c.LoginURL, Observer: v.metrics, Log: v.log, Base: v.base,
	})
	return nil
}

// outboxFolder is where mails and messages go when nothing else is configured.
var outboxFolder = filepath.Join(config.DataFolder, "outbox")

// openMail makes the letters, and how the outbox sends them.
func (v *server) openMail(limits limit.Limiter) (*mail.Renderer, outbox.Kind, error) {
	c := v.config
	letters, err := newLetters(c)
	if err != nil {
		return nil, outbox.Kind{}, err
	}
	port, err := strconv.Atoi(c.SMTPPort)
	if err != nil {
		return nil, outbox.Kind{}, config.Bad("BARONG_SMTP_PORT", c.SMTPPort, "a port")
	}
	sender, err := mail.NewSender(mail.SenderOptions{
		FromName: c.SenderName, FromEmail: c.SenderEmail, Host: c.SMTPHost, Port: port, User: c.SMTPUser,
		Password: c.SMTPPassword.Reveal(), Security: mail.Security(c.SMTPTLS), Folder: outboxFolder, Log: v.log,
	})
	if err != nil {
		return nil, outbox.Kind{}, err
	}
	v.closing("mail", sender.Close)
	return letters, outbox.Kind{Handler: mail.Handler(sender, limits, v.mailDropped("limit"))}, nil
}

// mailDropped counts a mail that is not sent, for a reason.
func (v *server) mailDropped(reason string) func(kind string) {
	return func(kind string) {
		v.metrics.Counter("barong_mails_dropped_total", "kind", kind, "reason", reason).Inc()
	}
}

// openEvents makes how the outbox publishes events.
func (v *server) openEvents() (outbox.Kind, error) {
	c := v.config
	o := events.Options{
		URL: c.BrokerURL(), Durable: c.EventDurable, Signer: func() jws.Signer { return v.keys.Current() }, Log: v.log,
	}
	if c.Original() {
		o.Expiry = events.Expiry
	}
	publisher, err := events.New(o)
	if err != nil {
		return outbox.Kind{}, config.Bad("BARONG_EVENT_API_RABBITMQ_URL", c.BrokerURL(), err.Error())
	}
	v.closing("events", publisher.Close)
	return events.Kind(publisher), nil
}

// publish takes an event into the outbox.
func publish(ctx context.Context, tx *db.Tx, e account.Event) error {
	return events.Enqueue(ctx, tx, events.Event(e))
}

// openOutbox starts to deliver what is queued. It returns how events get there, or nil when there is no broker for them:
// then none is queued.
func (v *server) openOutbox(limits limit.Limiter) (
	letters *mail.Renderer, publishEvent func(context.Context, *db.Tx, account.Event) error, err error,
) {
	kinds := map[string]outbox.Kind{}
	if letters, kinds[mail.OutboxKind], err = v.openMail(limits); err != nil {
		return nil, nil, err
	}
	if v.config.BrokerURL() != "" {
		if kinds[events.OutboxKind], err = v.openEvents(); err != nil {
			return nil, nil, err
		}
		publishEvent = publish
	}
	queue, err := outbox.New(outbox.Options{
		Store: v.db, Kinds: kinds, Log: v.log,
		Observe: func(kind, outcome string) {
			v.metrics.Counter("barong_outbox_attempts_total", "kind", kind, "outcome", outcome).Inc()
		},
	})
	if err != nil {
		return nil, nil, err
	}
	v.closing("outbox", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), flushTime)
		defer cancel()
		return queue.Close(ctx)
	})
	for kind := range kinds {
		v.metrics.Gauge("barong_outbox_waiting", func() float64 { n, _ := queue.Depth(kind); return float64(n) }, "kind", kind)
		v.metrics.Gauge("barong_outbox_dead", func() float64 { _, n := queue.Depth(kind); return float64(n) }, "kind", kind)
	}
	return letters, publishEvent, nil
}

// counters count attempts, for all replicas.
func (v *server) counters() limit.Limiter {
	o := limit.Options{Hash: v.box.Index}
	if v.redis != nil {
		return limit.Redis(v.redis, o)
	}
	l := limit.SQL(v.db, o)
	v.every(time.Minute, func(ctx context.Context) {
		if _, err := l.Purge(ctx, 10_000); err != nil {
			v.log.Warn("old counters were not purged", "error", err)
		}
	})
	return l
}

// hasher checks passwords, and is told what the dearest digests in the database cost: an import may bring others.
func (v *server) hasher() *password.Hasher {
	h := password.NewHasher(password.HasherOptions{})
	look := func(ctx context.Context) {
		cost, err := v.db.DearestBcrypt(ctx, password.MaxBcryptCost)
		if err != nil {
			v.log.Warn("it was not looked up what password digests cost", "error", err)
			return
		}
		h.SetSlowest(cost)
	}
	look(v.ctx)
	v.every(time.Minute, look)
	return h
}

func (v *server) openAPI() error {
	c := v.config
	counters := v.counters()
	limits := counters
	if c.RateLimits == "off" {
		limits = limit.Off
	}
	letters, publishEvent, err := v.openOutbox(limits)
	if err != nil {
		return err
	}
	strength, err := password.New(password.Options{
		Regexp: c.PasswordRegexp, MinEntropy: float64(c.PasswordMinEntropy), UseDictionary: c.PasswordUseDictionary,
	})
	if err != nil {
		return config.Bad("BARONG_PASSWORD_REGEXP", c.PasswordRegexp, err.Error())
	}
	files, err := v.openFiles()
	if err != nil {
		return err
	}
	texts, err := v.openSMS()
	if err != nil {
		return err
	}
	puzzle, err := v.captcha()
	if err != nil {
		return err
	}
	accounts := account.New(account.Options{
		Settings: account.Settings{
			UIDPrefix: c.UIDPrefix, Domain: c.Domain, AppName: c.AppName, DefaultLanguage: c.DefaultLanguage,
			SessionTTL: c.SessionExpireTime, SessionMaxAge: c.SessionMaxAge, MailTokenTTL: c.MailTokenExpireTime,
			Issuer: c.JWTIssuer, Audience: c.JWTAudience,
			ActivationRequirements: c.ActivationRequirements, StateTriggers: triggers(c),
		},
		DB: v.db, Sessions: v.sessions, Keys: v.keys, Passwords: v.hasher(),
		Policy: strength, Limits: limits, Letters: letters, MailDropped: v.mailDropped("unconfirmed"), FileURL: files.URL, Publish: publishEvent, Notices: v.bus.Publish,
		Country: v.geo.Country, UnknownBrowser: device.UnknownBrowser, Now: time.Now, Log: v.log,
	})
	all, origins, err := rest.ParseOrigins(strings.Join(c.CORSOrigins, ","))
	if err != nil {
		return config.Bad("BARONG_API_CORS_ORIGINS", strings.Join(c.CORSOrigins, ","), err.Error())
	}
	expect := keys.Expect{
		Subject: keys.SubjectSession, Issuer: c.JWTIssuer, Audience: c.JWTAudience,
		ExpirationLeeway: c.JWTExpirationLeeway, NotBeforeLeeway: c.JWTNotBeforeLeeway, IssuedAtLeeway: c.JWTIssuedAtLeeway,
	}
	cors := rest.CORS{
		Any: all, Origins: origins, MaxAge: int(c.CORSMaxAge / time.Second), Credentials: c.CORSAllowCredentials,
	}
	mailToken := expect
	mailToken.Subject = "" // set where one is verified
	build := obs.Built()
	built, err := time.Parse(time.RFC3339, build.Date)
	if err != nil {
		return fmt.Errorf("date of the build: %w", err)
	}
	metrics := map[*rest.Route]*obs.Route{}
	var lock sync.Mutex
	v.api, err = api.New(api.Options{
		Rest: rest.Options{
			Users: v.db, Tokens: v.keys, Expect: expect, Policy: v.rules.Snapshot, Prefix: c.APIPrefix,
			Gate: v.gateway.Gate, Client: v.client, Audit: v.audit, CORS: cors, Legacy: c.Original(), Base: v.base, Log: v.log,
			Observe: func(r *rest.Route, status int, took time.Duration) {
				lock.Lock()
				m := metrics[r]
				if m == nil {
					m = v.metrics.Route(r.Method, r.Path)
					metrics[r] = m
				}
				lock.Unlock()
				m.Observe(status, took)
			},
		},
		Identity: identity.Options{
			Accounts: accounts, DB: v.db, Cookies: v.cookies, FileURL: files.URL, Tokens: v.keys, MailToken: mailToken,
			JWKS: v.keys.JWKS, Captcha: puzzle, Guarded: c.CaptchaProtectedEndpoints, Reload: v.rules.Reload, CORS: cors,
			Domain: c.Domain, Entropy: strength.Entropy, Now: time.Now,
			Configs: identity.Configs{
				SessionTTL: c.SessionExpireTime, PhoneVerification: c.PhoneVerification, MinEntropy: c.PasswordMinEntropy,
				PasswordRegexp: c.PasswordRegexp,
			},
			Build: identity.Build{Tag: build.Version, Commit: build.Commit, Date: built},
		},
		Resource: resource.Options{
			Accounts: accounts, DB: v.db, Cookies: v.cookies, Files: files, SMS: texts, Codes: v.box, Limits: limits, Now: time.Now,
			DocumentTypes: c.DocumentTypes, StorageTitles: c.UserStorageTitles, DocumentLimit: c.DocNumLimit,
			ExpireRequired: c.RequiredDocsExpire, MaxUpload: int64(c.UploadSizeMax) << 20, Legacy: c.Original(),
			RateLimits: c.RateLimits != "off", NoPhones: texts == nil,
		},
		Admin: admin.Options{
			Accounts: accounts, DB: v.db, Rules: v.rules, Cookies: v.cookies, FileURL: files.URL, Legacy: c.Original(),
		},
		Management: management.Options{
			Config: v.services, Accounts: accounts, DB: v.db, Files: files, Memory: counters,
			Signer: func() jws.Signer { return v.keys.Current() }, Issuer: c.JWTIssuer, DocumentTypes: c.DocumentTypes,
			ExpireRequired: c.RequiredDocsExpire, MaxUpload: c.UploadSizeMax << 20, Legacy: c.Original(), Now: time.Now, Log: v.log,
		},
		Files: files, Version: build.Version,
	})
	return err
}

// openSMS makes what proves phone numbers: nothing, where there are no phones.
func (v *server) openSMS() (sms.Provider, error) {
	c := v.config
	if c.PhoneVerification == "none" {
		return nil, nil
	}
	texts, err := sms.New(v.ctx, sms.Options{
		Kind: c.PhoneVerification, Template: c.SMSContentTemplate, Log: v.log, Folder: outboxFolder,
		AccountSID: c.TwilioAccountSID, AuthToken: c.TwilioAuthToken.Reveal(), From: c.TwilioPhoneNumber,
		ServiceSID: c.TwilioServiceSID, AppName: c.AppName, APIURL: c.TwilioAPIURL,
	})
	if err != nil {
		return nil, fmt.Errorf("BARONG_PHONE_VERIFICATION=%s: %w", c.PhoneVerification, err)
	}
	return texts, nil
}

func (v *server) openFiles() (*blob.Store, error) {
	files, err := openStore(v.ctx, v.config, v.box, v.log)
	if err != nil {
		return nil, err
	}
	v.closing("files", files.Close)
	return files, nil
}

func (v *server) captcha() (*captcha.Captcha, error) {
	c := v.config
	o := captcha.Options{
		Kind: c.Captcha, VerifyURL: c.CaptchaVerifyURL, GeeTestID: c.GeetestID, GeeTestKey: c.GeetestKey.Reveal(),
	}
	switch c.Captcha {
	case captcha.ReCaptcha:
		o.SiteKey, o.SecretKey = c.RecaptchaSiteKey, c.RecaptchaSecretKey.Reveal()
	case captcha.HCaptcha:
		o.SiteKey, o.SecretKey = c.HCaptchaSiteKey, c.HCaptchaSecretKey.Reveal()
	case captcha.Turnstile:
		o.SiteKey, o.SecretKey = c.TurnstileSiteKey, c.TurnstileSecretKey.Reveal()
	}
	puzzle, err := captcha.New(o)
	if err != nil {
		return nil, config.Bad("BARONG_CAPTCHA", c.Captcha, err.Error())
	}
	return puzzle, nil
}

// client is who calls the REST API.
func (v *server) client(rc *fasthttp.RequestCtx) rest.Caller {
	h := &rc.Request.Header
	peer := envoy.Peer(rc)
	return rest.Caller{
		Addr:  v.engine.Client(peer, h.Peek("True-Client-Ip"), h.PeekAll("X-Forwarded-For")...),
		HTTPS: v.proxies.HTTPS(peer, h.Peek("X-Forwarded-Proto")),
		Host:  v.proxies.Host(peer, h.Peek("X-Forwarded-Host"), rc.Host()),
	}
}

// handle is the main listener's handler: what is no check is the REST API.
func (v *server) handle(rc *fasthttp.RequestCtx) {
	if !v.gateway.Handle(rc) {
		v.api.Handle(rc)
	}
}

// handleWithoutChecks is the main listener's handler when the checks have one of their own.
func (v *server) handleWithoutChecks(rc *fasthttp.RequestCtx) {
	if !envoy.RefuseChecks(rc) {
		v.api.Handle(rc)
	}
}

// serve listens until the context ends or a listener fails, then drains.
func (v *server) serve() error {
	c := v.config
	failed := make(chan error, 4)
	var leaving []interface {
		Leave()
		Shutdown(ctx context.Context) error
	}
	listeners := []struct {
		name, setting, addr string
		handler             fasthttp.RequestHandler
	}{{"http", "BARONG_HTTP_ADDR", c.HTTPAddr, v.handle}}
	if c.CheckAddr != "" {
		listeners[0].handler = v.handleWithoutChecks
		listeners = append(listeners, struct {
			name, setting, addr string
			handler             fasthttp.RequestHandler
		}{"check", "BARONG_CHECK_ADDR", c.CheckAddr, v.gateway.ServeChecks})
	}
	var serving []any
	for _, l := range listeners {
		ln, err := listen(l.setting, l.addr)
		if err != nil {
			return err
		}
		srv := envoy.NewServer(l.handler, envoy.ServerOptions{Log: v.log})
		leaving = append(leaving, srv)
		serving = append(serving, l.name, ln.Addr().String())
		go func() { failed <- srv.Serve(ln) }()
	}
	if c.GRPCAddr != "" {
		ln, err := listen("BARONG_GRPC_ADDR", c.GRPCAddr)
		if err != nil {
			return err
		}
		g := envoy.NewGRPC(v.gateway)
		leaving = append(leaving, g)
		serving = append(serving, "grpc", ln.Addr().String())
		go func() { failed <- g.Serve(ln) }()
	}
	if c.OpsAddr != "" {
		ln, err := listen("BARONG_OPS_ADDR", c.OpsAddr)
		if err != nil {
			return err
		}
		serving = append(serving, "ops", ln.Addr().String())
		v.background(func(ctx context.Context) {
			if err := v.ops.Serve(ctx, ln); err != nil {
				v.log.Error("the operations listener failed", "error", err)
			}
		})
	}
	v.log.Info("serving", serving...)
	v.background(func(ctx context.Context) { // a start needs some memory that a server does without
		select {
		case <-ctx.Done():
		case <-time.After(settleTime):
			debug.FreeOSMemory()
			if _, err := releaseProgram(); err != nil {
				v.log.Debug("the pages of the program stay in memory", "error", err)
			}
		}
	})

	var err error
	select {
	case <-v.ctx.Done():
		v.log.Info("stopping")
	case err = <-failed:
		err = fmt.Errorf("a listener failed: %w", err)
	}
	v.ops.Stopping()
	// A second signal ends the waits, for gateways and for slow clients. What is left to be written is written all the same.
	again, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, part := range leaving {
		part.Leave()
	}
	if err == nil {
		select { // until nobody sends anything here any more
		case <-again.Done():
		case <-time.After(c.DrainTime):
		}
	}
	ctx, cancel := context.WithTimeout(again, drainTime)
	defer cancel()
	var drained sync.WaitGroup
	for _, part := range leaving {
		drained.Go(func() {
			if err := part.Shutdown(ctx); err != nil {
				v.log.Warn("requests were cut off", "error", err)
			}
		})
	}
	drained.Wait()
	return err
}

// listen opens the listener of a setting: host:port, or a unix socket for "unix:/path". The error names the setting.
func listen(setting, addr string) (ln net.Listener, err error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		ln, err = listenUnix(path)
	} else {
		ln, err = net.Listen("tcp", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("%s=%s: %w", setting, addr, err)
	}
	return ln, nil
}

// listenUnix opens a unix socket. One that a process left behind is replaced.
func listenUnix(path string) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		return nil, errors.Join(fmt.Errorf("somebody listens on %s already", path), conn.Close())
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return net.Listen("unix", path)
}
