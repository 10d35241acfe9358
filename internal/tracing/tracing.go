// Package tracing makes spans of checks, calls and what they ask of the stores, and sends them to a collector by OTLP over
// HTTP. Nothing of it runs unless a collector is configured.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"

	"barong/authz"
	"barong/envoy"
	"barong/internal/reqid"
)

// Options are what New needs. What they do not name, such as certificates and batches, the variables of OpenTelemetry
// (OTEL_EXPORTER_OTLP_…, OTEL_BSP_…, OTEL_RESOURCE_ATTRIBUTES) say.
type Options struct {
	URL     string // where the collector takes traces: "http://collector:4318/v1/traces"
	Service string // service.name
	Version string // service.version
	Sampler string // one of Samplers
	Share   float64
	Log     *slog.Logger
}

// Samplers are the names of OTEL_TRACES_SAMPLER. Those that are parentbased_ do as the gateway's trace does, if there is one.
var Samplers = []string{
	"always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio",
}

func sampler(name string, share float64) (trace.Sampler, error) {
	switch name {
	case "always_on":
		return trace.AlwaysSample(), nil
	case "always_off":
		return trace.NeverSample(), nil
	case "traceidratio":
		return trace.TraceIDRatioBased(share), nil
	case "parentbased_always_on", "":
		return trace.ParentBased(trace.AlwaysSample()), nil
	case "parentbased_always_off":
		return trace.ParentBased(trace.NeverSample()), nil
	case "parentbased_traceidratio":
		return trace.ParentBased(trace.TraceIDRatioBased(share)), nil
	}
	return nil, fmt.Errorf("tracing: unknown sampler %q", name)
}

// A Tracer makes spans and sends them. It is safe for concurrent use.
type Tracer struct {
	provider *trace.TracerProvider
	tracer   api.Tracer
}

var _ envoy.Tracer = (*Tracer)(nil)

// New returns a tracer that sends in batches, in the background; what the collector does not take in time is dropped, and
// told in the log at most once a minute. Close it.
func New(ctx context.Context, o Options) (*Tracer, error) {
	choice, err := sampler(o.Sampler, o.Share)
	if err != nil {
		return nil, err
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(o.URL))
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	about, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", o.Service), attribute.String("service.version", o.Version),
	), resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	var told atomic.Int64
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		now, last := time.Now().Unix(), told.Load()
		if now-last >= 60 && told.CompareAndSwap(last, now) {
			o.Log.Warn("traces are lost", "error", err)
		}
	}))
	p := trace.NewTracerProvider(trace.WithSampler(choice), trace.WithBatcher(exporter), trace.WithResource(about))
	return &Tracer{provider: p, tracer: p.Tracer("barong", api.WithInstrumentationVersion(o.Version))}, nil
}

// Close sends what waits, until ctx ends.
func (t *Tracer) Close(ctx context.Context) error { return t.provider.Shutdown(ctx) }

// parent is a traceparent header.
type parent string

// Get implements propagation.TextMapCarrier.
func (p parent) Get(name string) string {
	if name == "traceparent" {
		return string(p)
	}
	return ""
}

// Set implements propagation.TextMapCarrier.
func (parent) Set(string, string) {}

// Keys implements propagation.TextMapCarrier.
func (parent) Keys() []string { return []string{"traceparent"} }

// begin begins the span of a request in the trace of a traceparent header, or in a new one where that is odd or empty. A
// context without a trace that is recorded is told nothing.
func (t *Tracer) begin(ctx context.Context, name string, header []byte, attributes ...attribute.KeyValue) (context.Context, api.Span) {
	if len(header) > 0 {
		ctx = propagation.TraceContext{}.Extract(ctx, parent(header))
	}
	ctx, span := t.tracer.Start(ctx, name, api.WithSpanKind(api.SpanKindServer), api.WithAttributes(attributes...))
	if span.IsRecording() {
		ctx = reqid.WithTrace(ctx, span.SpanContext().TraceID().String())
	}
	return ctx, span
}

// Check implements envoy.Tracer.
func (t *Tracer) Check(ctx context.Context, header []byte) (context.Context, envoy.Span) {
	ctx, span := t.begin(ctx, "check", header)
	if !span.IsRecording() {
		return ctx, nil
	}
	return ctx, check{span}
}

// A check is the span of one.
type check struct{ api.Span }

// Decided implements envoy.Span. The path is the canonical one, without its query.
func (s check) Decided(r *authz.Request, d *authz.Decision, id string) {
	s.SetAttributes(
		attribute.String("barong.dialect", r.Dialect.String()), attribute.String("http.request.method", string([]byte(r.Method))),
		attribute.String("url.path", string([]byte(d.Path))), attribute.Int("http.response.status_code", d.Status),
		attribute.String("barong.credential", d.Credential.String()), attribute.String("barong.request_id", id),
	)
	if d.Code != "" {
		s.SetAttributes(attribute.String("barong.code", d.Code))
	}
	if d.Principal != nil {
		s.SetAttributes(attribute.String("enduser.id", d.Principal.UID))
	}
	if d.Status >= 500 {
		s.SetStatus(codes.Error, d.Code)
	}
	s.End()
}

// Call begins the span of a call of the REST API, which end ends. route is its pattern.
func (t *Tracer) Call(ctx context.Context, method, route string, header []byte) (traced context.Context, end func(status int)) {
	ctx, span := t.begin(ctx, method+" "+route, header, attribute.String("http.request.method", method),
		attribute.String("http.route", route), attribute.String("barong.request_id", reqid.From(ctx)))
	return ctx, func(status int) {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if status >= 500 {
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}

// Store begins the span of a call of a store, in the span of its context; what belongs to none has none.
func (t *Tracer) Store(ctx context.Context, store, operation string) context.Context {
	parent := api.SpanFromContext(ctx)
	before, within := ctx.Value(ofStore{}).(*stored)
	if within && before != nil { // a commit comes with the context of its begin
		parent = before.parent
	}
	if !parent.IsRecording() {
		if within {
			return context.WithValue(ctx, ofStore{}, (*stored)(nil))
		}
		return ctx
	}
	ctx, span := t.tracer.Start(api.ContextWithSpan(ctx, parent), store+" "+operation, api.WithSpanKind(api.SpanKindClient),
		api.WithAttributes(attribute.String("db.system.name", store), attribute.String("db.operation.name", operation)))
	return context.WithValue(ctx, ofStore{}, &stored{span, parent})
}

// ofStore is the key of the *stored whose call a context is for.
type ofStore struct{}

// stored is the span of a call of a store, and what it is within.
type stored struct{ span, parent api.Span }

// Stored ends the span that Store began.
func (t *Tracer) Stored(ctx context.Context, err error) {
	s, _ := ctx.Value(ofStore{}).(*stored)
	if s == nil {
		return
	}
	if err != nil { // its text may quote what was stored
		s.span.SetStatus(codes.Error, fmt.Sprintf("%T", err))
	}
	s.span.End()
}
