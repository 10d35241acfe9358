package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"barong/envoy"
	"barong/internal/listener"
)

// settleTime is when a start is over, and what it needed can be given back to the system.
const settleTime = 2 * time.Second

// handle is the main listener's handler: what is no check is a page or the REST API.
func (v *server) handle(rc *fasthttp.RequestCtx) {
	if !v.gateway.Handle(rc) {
		v.answer(rc)
	}
}

// handleWithoutChecks is the main listener's handler when the checks have one of their own.
func (v *server) handleWithoutChecks(rc *fasthttp.RequestCtx) {
	if !envoy.RefuseChecks(rc) {
		v.answer(rc)
	}
}

// answer answers what is no check.
func (v *server) answer(rc *fasthttp.RequestCtx) {
	if v.site == nil || !v.site.Handle(rc) {
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
		srv := listener.New(l.handler, listener.Options{Log: v.log, Trusted: v.proxies.Trusted})
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
			giveBack(ctx)
		}
	})

	var err error
	select {
	case <-v.ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("a listener failed: %w", err)
	}
	// A second signal ends the waits, for gateways and for slow clients. What is left to be written is written all the same.
	again, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	v.ops.Stopping()
	if err == nil {
		v.log.Info("stopping")
	}
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

// listen opens the listener of a setting, which the error names.
func listen(setting, addr string) (net.Listener, error) {
	ln, err := listener.Open(addr)
	if err != nil {
		return nil, fmt.Errorf("%s=%s: %w", setting, addr, err)
	}
	return ln, nil
}
