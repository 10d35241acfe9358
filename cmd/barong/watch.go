package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"barong/api/identity"
	"barong/api/rest"
	"barong/db"
	"barong/internal/config"
	"barong/internal/fault"
	"barong/internal/listener"
	"barong/internal/obs"
	"barong/internal/tracing"
	"barong/session/near"
	"barong/session/redisstore"
)

// tracesURL is where traces are sent, or empty.
func tracesURL(c *config.Config) string {
	switch {
	case c.TracesOff:
		return ""
	case c.OTLPTraces != "":
		return c.OTLPTraces
	case c.OTLPEndpoint != "":
		return strings.TrimSuffix(c.OTLPEndpoint, "/") + "/v1/traces"
	}
	return ""
}

func (v *server) openTraces() error {
	c := v.config
	url := tracesURL(c)
	if url == "" {
		return nil
	}
	var err error
	if v.tracer, err = tracing.New(v.ctx, tracing.Options{
		URL: url, Service: c.TraceService, Version: obs.Built().Version, Sampler: c.TraceSampler, Share: c.TraceShare, Log: v.log,
	}); err != nil {
		return fmt.Errorf("%s=%s: %w", "OTEL_EXPORTER_OTLP_ENDPOINT", url, err)
	}
	v.flushing("traces", v.tracer.Close)
	return nil
}

// A watcher counts the calls of a store, and has them traced.
type watcher struct {
	name   string
	calls  *obs.Store
	tracer *tracing.Tracer // nil without traces
}

func (v *server) watcher(name string, operations []string) *watcher {
	return &watcher{name, v.metrics.Store(name, operations), v.tracer}
}

// Begin implements db.Watcher and redisstore.Watcher.
func (w *watcher) Begin(ctx context.Context, operation string) context.Context {
	if w.tracer == nil {
		return ctx
	}
	return w.tracer.Store(ctx, w.name, operation)
}

// End implements db.Watcher and redisstore.Watcher.
func (w *watcher) End(ctx context.Context, operation string, begun time.Time, err error) {
	w.calls.Observe(operation, time.Since(begun), err)
	if w.tracer != nil {
		w.tracer.Stored(ctx, err)
	}
}

// databaseName is the label of the database.
func databaseName(c *config.Config) string {
	if sqliteFile(c) != "" {
		return "sqlite"
	}
	return "postgres"
}

// watchPool tells how the connections of a store are used.
func (v *server) watchPool(store string, of func() (open, idle int, waits int64, waited time.Duration)) {
	v.metrics.Gauge("barong_pool_connections", func() float64 { open, idle, _, _ := of(); return float64(open - idle) }, "store", store, "state", "in_use")
	v.metrics.Gauge("barong_pool_connections", func() float64 { _, idle, _, _ := of(); return float64(idle) }, "store", store, "state", "idle")
	v.metrics.CounterFunc("barong_pool_waits_total", func() float64 { _, _, waits, _ := of(); return float64(waits) }, "store", store)
	v.metrics.CounterFunc("barong_pool_wait_seconds_total", func() float64 { _, _, _, waited := of(); return waited.Seconds() }, "store", store)
}

func (v *server) watchDatabase() {
	v.watchPool(databaseName(v.config), func() (int, int, int64, time.Duration) {
		p := v.db.Pool()
		return p.Open, p.Idle, p.Waits, p.Waited
	})
}

func (v *server) watchRedis() {
	redisstore.Watch(v.redis, v.watcher("redis", redisstore.Operations))
	v.watchPool("redis", func() (int, int, int64, time.Duration) {
		p := redisstore.PoolOf(v.redis)
		return p.Open, p.Idle, p.Waits, p.Waited
	})
}

// cacheKinds are the labels of what the near cache reads.
var cacheKinds = map[string]string{near.ReadSession: "sessions", near.ReadPrincipal: "users", near.ReadAPIKey: "api_keys"}

// cacheReads returns what counts the readings of the near cache.
func (v *server) cacheReads() func(what string, keys int, renewal bool) {
	waited, renewed := map[string]func(int){}, map[string]func(int){}
	for what, kind := range cacheKinds {
		waited[what] = v.metrics.Counter("barong_cache_reads_total", "kind", kind, "why", "check").Add
		renewed[what] = v.metrics.Counter("barong_cache_reads_total", "kind", kind, "why", "renewal").Add
	}
	return func(what string, keys int, renewal bool) {
		if renewal {
			renewed[what](keys)
		} else {
			waited[what](keys)
		}
	}
}

// signatures returns what counts the signatures of tokens.
func (v *server) signatures() func(took time.Duration, err error) {
	h := v.metrics.Histogram("barong_token_signature_duration_seconds")
	failed := v.metrics.Counter("barong_token_signature_errors_total")
	return func(took time.Duration, err error) {
		h.Update(took.Seconds())
		if err != nil {
			failed.Inc()
		}
	}
}

// signIns returns what counts the ends of sign-ins, by what people have proved who they are, with the code of the catalogue
// that refused them.
func (v *server) signIns() func(by, code string) {
	known := map[string]bool{"": true}
	for _, e := range fault.Catalogue() {
		known[string(e.Code)] = true
	}
	for _, by := range identity.Ways {
		v.metrics.Counter("barong_sign_ins_total", "by", by, "outcome", "success")
	}
	return func(by, code string) {
		if !known[code] {
			code = "other"
		}
		v.metrics.Counter("barong_sign_ins_total", "by", by, "outcome", cmp.Or(code, "success")).Inc()
	}
}

// traceCalls returns what traces calls of the REST API, or nil.
func (v *server) traceCalls() func(context.Context, *rest.Route, *fasthttp.RequestCtx) (context.Context, func(int)) {
	if v.tracer == nil {
		return nil
	}
	return func(ctx context.Context, r *rest.Route, rc *fasthttp.RequestCtx) (context.Context, func(int)) {
		var parent []byte
		if v.proxies.Trusted(listener.Peer(rc)) {
			parent = rc.Request.Header.Peek("Traceparent")
		}
		return v.tracer.Call(ctx, r.Method, r.Path, parent)
	}
}

var _ db.Watcher = (*watcher)(nil)
