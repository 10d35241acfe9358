package tracing_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	wire "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"barong/authz"
	"barong/internal/reqid"
	"barong/internal/tracing"
	"barong/session"
)

// received is a collector of traces.
type received struct {
	*httptest.Server
	mu    sync.Mutex
	spans map[string]*wire.Span // by name
	about map[string]string     // attributes of the resource
}

func collect(t *testing.T) *received {
	r := &received{spans: map[string]*wire.Span{}, about: map[string]string{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		var m collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &m)
		}
		if err != nil || req.URL.Path != "/v1/traces" || req.Method != http.MethodPost {
			t.Errorf("%s %s: %v", req.Method, req.URL.Path, err)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, resource := range m.ResourceSpans {
			for _, a := range resource.Resource.Attributes {
				r.about[a.Key] = a.Value.GetStringValue()
			}
			for _, scope := range resource.ScopeSpans {
				for _, s := range scope.Spans {
					r.spans[s.Name] = s
				}
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *received) tracer(t *testing.T, sampler string) *tracing.Tracer {
	t.Helper()
	tracer, err := tracing.New(t.Context(), tracing.Options{
		URL: r.URL + "/v1/traces", Service: "barong", Version: "1.2.3", Sampler: sampler, Share: 1, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return tracer
}

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	spanID  = "00f067aa0ba902b7"
)

func attributes(s *wire.Span) map[string]string {
	out := map[string]string{}
	for _, a := range s.GetAttributes() {
		out[a.Key] = a.Value.GetStringValue()
		if n := a.Value.GetIntValue(); n != 0 {
			out[a.Key] = fmt.Sprint(n)
		}
	}
	return out
}

func TestSpansOfACheck(t *testing.T) {
	r := collect(t)
	tracer := r.tracer(t, "")
	ctx, span := tracer.Check(reqid.With(t.Context(), "one"), []byte("00-"+traceID+"-"+spanID+"-01"))
	if reqid.Trace(ctx) != traceID || reqid.From(ctx) != "one" {
		t.Errorf("the context has trace %q and request %q", reqid.Trace(ctx), reqid.From(ctx))
	}
	begun := tracer.Store(ctx, "postgres", "begin")
	tracer.Stored(begun, nil)
	tracer.Stored(tracer.Store(begun, "postgres", "commit"), errors.New("value 's3cret' is taken"))
	tracer.Stored(tracer.Store(ctx, "redis", "get"), nil)
	request := &authz.Request{Method: "GET", Target: "/orders?token=s3cret"}
	span.Decided(request, &authz.Decision{
		Effect: authz.Deny, Status: 503, Code: "authz.unavailable", Path: "orders", Principal: &session.Principal{UID: "ID1"}, Credential: authz.Cookie,
	}, "one")
	callCtx, end := tracer.Call(reqid.With(t.Context(), "two"), "GET", "/admin/users/{uid}", nil)
	tracer.Stored(tracer.Store(callCtx, "sqlite", "select"), nil)
	end(200)
	tracer.Stored(tracer.Store(t.Context(), "sqlite", "of nobody"), nil)
	if err := tracer.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(r.spans) != 6 {
		t.Errorf("%d spans: %v", len(r.spans), r.spans)
	}
	check := r.spans["check"]
	if hex.EncodeToString(check.GetTraceId()) != traceID || hex.EncodeToString(check.GetParentSpanId()) != spanID {
		t.Errorf("check is not in the gateway's trace: %v", check)
	}
	for key, want := range map[string]string{
		"barong.dialect": "envoy_http", "http.request.method": "GET", "url.path": "orders", "http.response.status_code": "503",
		"barong.code": "authz.unavailable", "barong.credential": "cookie", "enduser.id": "ID1", "barong.request_id": "one",
	} {
		if got := attributes(check)[key]; got != want {
			t.Errorf("check has %s %q, want %q", key, got, want)
		}
	}
	for _, name := range []string{"postgres begin", "postgres commit", "redis get"} {
		if s := r.spans[name]; string(s.GetParentSpanId()) != string(check.GetSpanId()) {
			t.Errorf("%s is not within the check: %v", name, s)
		}
	}
	if s := r.spans["postgres commit"]; s.GetStatus().GetCode() != wire.Status_STATUS_CODE_ERROR || s.GetStatus().GetMessage() != "*errors.errorString" {
		t.Errorf("a failure is told as %v", s.GetStatus())
	}
	call, query := r.spans["GET /admin/users/{uid}"], r.spans["sqlite select"]
	if attributes(call)["barong.request_id"] != "two" || string(query.GetParentSpanId()) != string(call.GetSpanId()) || len(call.GetParentSpanId()) != 0 {
		t.Errorf("call %v, its query %v", call, query)
	}
	if r.about["service.name"] != "barong" || r.about["service.version"] != "1.2.3" {
		t.Errorf("the resource is %v", r.about)
	}
}

func TestWhatIsRecorded(t *testing.T) {
	recorded, unrecorded := "00-"+traceID+"-"+spanID+"-01", "00-"+traceID+"-"+spanID+"-00"
	for _, c := range []struct {
		sampler, parent string
		spans           int
		within          bool // the gateway's trace
	}{
		{"parentbased_always_on", recorded, 1, true},
		{"parentbased_always_on", unrecorded, 0, false},
		{"parentbased_always_on", "", 1, false},
		{"parentbased_always_on", "00-" + traceID + "-0000000000000000-01", 1, false},
		{"parentbased_always_on", "not a parent", 1, false},
		{"parentbased_always_off", recorded, 1, true},
		{"parentbased_always_off", "", 0, false},
		{"always_on", unrecorded, 1, true},
		{"always_off", recorded, 0, false},
	} {
		r := collect(t)
		tracer := r.tracer(t, c.sampler)
		ctx, span := tracer.Check(t.Context(), []byte(c.parent))
		tracer.Stored(tracer.Store(ctx, "redis", "get"), nil)
		if (span != nil) != (c.spans > 0) {
			t.Errorf("%+v: span %v", c, span)
		}
		if span != nil {
			span.Decided(&authz.Request{}, &authz.Decision{}, "one")
		}
		if err := tracer.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if len(r.spans) != 2*c.spans || c.spans > 0 && (hex.EncodeToString(r.spans["check"].GetTraceId()) == traceID) != c.within {
			t.Errorf("%+v: %v", c, r.spans)
		}
	}
	if _, err := tracing.New(t.Context(), tracing.Options{URL: "http://127.0.0.1:1/", Sampler: "made up"}); err == nil {
		t.Error("an unknown sampler is taken")
	}
}
