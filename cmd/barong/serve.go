package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"barong/api"
	"barong/api/management"
	"barong/authz"
	"barong/db"
	"barong/envoy"
	"barong/internal/audit"
	"barong/internal/bus"
	"barong/internal/config"
	"barong/internal/crypto/keys"
	"barong/internal/crypto/passkey"
	"barong/internal/crypto/secret"
	"barong/internal/geoip"
	"barong/internal/limit"
	"barong/internal/obs"
	"barong/internal/pages"
	"barong/internal/rules"
	"barong/internal/tracing"
	"barong/internal/trusted"
	"barong/session"
	"barong/session/near"
)

// How long a stop may take after BARONG_DRAIN_TIME, whatever hangs meanwhile: first checks and calls under way, then all parts
// together, of which one may take flushTime to write what it was left with. Parts that are taken apart when closeTime is over
// have lastTime each, which is enough where nothing hangs.
const (
	drainTime = 8 * time.Second
	closeTime = 8 * time.Second
	flushTime = 5 * time.Second
	lastTime  = 50 * time.Millisecond
)

// Run serves until the context ends.
func (s serveCommand) Run(p *program) error {
	c, services, err := p.startable()
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	level.Set(obs.Level(c.LogLevel))
	log := obs.NewLogAt(p.stderr, level, c.LogFormat)
	if err := keepInside(secretVariable, secretFlag); err != nil {
		log.Warn("secrets of this process may be seen from beside it", "error", err)
	}
	for _, w := range c.Warnings() {
		log.Warn("configuration", "warning", w)
	}
	for _, warning := range services.Warnings {
		log.Warn("who may call the management API", "file", c.ManagementFile, "warning", warning)
	}
	v := &server{program: p, config: c, taken: c, level: level, log: log, metrics: obs.NewMetrics(), services: services, started: time.Now()}
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
	taken    *config.Config // what holds of it by now; see reload
	level    *slog.LevelVar
	looked   map[string]look              // the files of settings, as they were when they were taken up or refused
	read     map[string][sha256.Size]byte // digests of the files that are read at the start alone
	referred []string                     // files of secrets that files of settings name
	reloaded []func(*config.Config) (swap func(), err error)
	services management.Config
	log      *slog.Logger
	metrics  *obs.Metrics
	ops      *obs.Ops
	tracer   *tracing.Tracer // nil without traces

	box      *secret.Box
	keys     *keys.Ring
	db       *db.DB
	redis    redis.UniversalClient // nil without Redis
	bus      bus.Bus
	sessions session.Store
	cache    *near.Cache
	geo      *geoip.Locator
	rules    *rules.Rules
	audit    *audit.Writer
	proxies  *trusted.Proxies
	cookies  *authz.Cookies
	engine   *authz.Engine
	attempts limit.Limiter   // counters of all replicas
	passkeys *passkey.Party  // nil where there are none
	site     *pages.Site     // nil where pages are off
	refusals *pages.Refusals // nil where pages are off
	gateway  *envoy.Handler
	api      *api.API

	started time.Time
	base    context.Context // of everything that runs in the background; ends last
	work    sync.WaitGroup
	parts   []part
}

// A part is something that close takes apart.
type part struct {
	name string
	stop func(ctx context.Context) error
}

// flushing has f called when the server stops, before what was registered earlier. The context says how long that may take;
// nobody waits for it longer. An error is logged.
func (v *server) flushing(name string, f func(ctx context.Context) error) {
	v.parts = append(v.parts, part{name, f})
}

// closing is flushing with what writes nothing at its end.
func (v *server) closing(name string, f func() error) {
	v.flushing(name, func(context.Context) error { return f() })
}

// onClose is closing with what cannot fail.
func (v *server) onClose(name string, f func()) {
	v.closing(name, func() error { f(); return nil })
}

func (v *server) close() {
	end := time.Now().Add(closeTime)
	for _, p := range slices.Backward(v.parts) {
		if err := stopWithin(min(flushTime, max(lastTime, time.Until(end))), p.stop); err != nil {
			v.log.Warn("a part did not stop in order", "part", p.name, "error", err)
		}
	}
}

// stopWithin calls stop, and leaves it to itself when its time is over.
func stopWithin(limit time.Duration, stop func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- stop(ctx) }()
	// What writes at its end sees the end of its time itself, and says what it lost; what only closes does not.
	select {
	case err := <-stopped:
		return err
	case <-time.After(limit + lastTime):
		return fmt.Errorf("it takes longer than %s", limit)
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
	v.onClose("work in the background", func() {
		stop()
		v.work.Wait()
	})
	for _, step := range []func() error{
		v.openTraces,
		v.openSecrets,
		func() error { return v.openDatabase(migrate) },
		v.openShared,
		v.openRules,
		v.openPasskeys,
		v.openPages,
		v.openEngine,
		v.openAPI,
		v.openReload,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
