package obs

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"sync/atomic"
	"time"
)

// partTimeout bounds what one part may take to say how it is.
const partTimeout = 2 * time.Second

// Ops is the listener for operators: probes, metrics and profiles. Anybody who reaches it may read them, so it belongs on
// loopback or a network of operators; nothing that it answers can be mistaken for the decision of a check.
type Ops struct {
	metrics  *Metrics
	log      *slog.Logger
	stopping atomic.Bool

	mu    sync.Mutex
	parts []part
}

type part struct {
	name      string
	essential bool
	check     func(context.Context) error
	asked     chan struct{} // one item a call under way
}

// maxAsked bounds the calls of one part that have not come back: a part that hangs must not pile them up.
const maxAsked = 8

// NewOps returns a listener without parts.
func NewOps(m *Metrics, log *slog.Logger) *Ops { return &Ops{metrics: m, log: log} }

// Part adds a part that /readyz asks. An essential part that fails makes the process not ready; any other is only
// reported. check is called from many goroutines and should honour its context; its error is shown to operators.
func (o *Ops) Part(name string, essential bool, check func(context.Context) error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.parts = append(o.parts, part{name, essential, check, make(chan struct{}, maxAsked)})
}

// writeEvery is how often Store tries a write, at most.
const writeEvery = 5 * time.Second

// Store adds an essential part that keeps something: it has to answer each time, and to have taken a write lately.
func (o *Ops) Store(name string, answers, write func(context.Context) error) {
	write = AtMostEvery(writeEvery, write)
	o.Part(name, true, func(ctx context.Context) error {
		if err := answers(ctx); err != nil {
			return err
		}
		return write(ctx)
	})
}

// An attempt is one call of a check under AtMostEvery.
type attempt struct {
	begun time.Time
	done  chan struct{} // closed at its end
	err   error         // to be read after done
}

func (a *attempt) over() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// AtMostEvery is a check that is made anew at most once in a pause, by one caller at a time: the others are told what it
// said last, or wait for what it will say. It suits checks that cost something, such as a write.
func AtMostEvery(pause time.Duration, check func(context.Context) error) func(context.Context) error {
	var mu sync.Mutex
	var latest *attempt
	return func(ctx context.Context) error {
		mu.Lock()
		a := latest
		if a == nil || a.over() && time.Since(a.begun) >= pause {
			a = &attempt{begun: time.Now(), done: make(chan struct{}), err: errors.New("the check panicked")}
			latest = a
			go func() {
				defer close(a.done)
				defer func() { _ = recover() }() // which the error tells
				// None of the callers' contexts: each of them may give up alone.
				ctx, cancel := context.WithTimeout(context.Background(), partTimeout)
				defer cancel()
				a.err = check(ctx)
			}()
		}
		mu.Unlock()
		select {
		case <-a.done:
			return a.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Stopping makes /readyz answer 503 from now on, so that load balancers look elsewhere before the listeners close.
func (o *Ops) Stopping() { o.stopping.Store(true) }

// PartState is how one part is.
type PartState struct {
	Status    string `json:"status"` // "ok" or "failed"
	Essential bool   `json:"essential"`
	Reason    string `json:"reason,omitempty"`
}

// State is the answer of /readyz.
type State struct {
	Status string               `json:"status"` // "ready", "not ready" or "stopping"
	Parts  map[string]PartState `json:"parts"`
}

// State asks every part, all at once.
func (o *Ops) State(ctx context.Context) State {
	o.mu.Lock()
	parts := o.parts[:len(o.parts):len(o.parts)]
	o.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, partTimeout)
	defer cancel()
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i := range parts {
		wg.Go(func() { errs[i] = parts[i].ask(ctx) })
	}
	wg.Wait()
	s := State{Status: "ready", Parts: map[string]PartState{}}
	for i, p := range parts {
		state := PartState{Status: "ok", Essential: p.essential}
		if errs[i] != nil {
			state.Status, state.Reason = "failed", errs[i].Error()
			if p.essential {
				s.Status = "not ready"
			}
		}
		s.Parts[p.name] = state
	}
	if o.stopping.Load() {
		s.Status = "stopping"
	}
	return s
}

// ask calls check and gives up at the end of ctx, whether check honours it or not.
func (p part) ask(ctx context.Context) error {
	select {
	case p.asked <- struct{}{}:
	default:
		return errors.New("earlier questions are still without an answer")
	}
	done := make(chan error, 1)
	go func() {
		defer func() {
			<-p.asked
			if recover() != nil {
				done <- errors.New("the check panicked")
			}
		}()
		done <- p.check(ctx)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return errors.New("no answer in time")
	}
}

// Handler serves /livez, /readyz, /metrics and /debug/pprof/.
func (o *Ops) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		s := o.State(r.Context())
		status := http.StatusOK
		if s.Status != "ready" {
			status = http.StatusServiceUnavailable
		}
		answer(w, status, s)
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		o.metrics.Write(w)
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not shown: it may hold secrets", http.StatusForbidden)
	})
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the reader is gone
}

// Serve answers on ln until ctx ends, then closes it. Profiles that are still being taken are given up. It returns nil
// once ctx has ended, else why it stopped.
func (o *Ops) Serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{
		Handler: o.Handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(o.log.Handler(), slog.LevelWarn),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	err := srv.Serve(ln)
	if ctx.Err() != nil {
		return nil
	}
	return err
}
