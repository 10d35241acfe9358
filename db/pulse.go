package db

import (
	"context"
	"sync/atomic"
	"time"
)

// A Pulse knows whether the database has answered lately. It asks over a connection of its own, so that calls which queue
// for the others do not look like an outage. It is safe for concurrent use.
type Pulse struct {
	probe       *DB
	pause, life time.Duration
	start       time.Time
	last        atomic.Int64 // when what was answered last was asked: nanoseconds since start, which no step of the wall clock moves
}

// OpenPulse connects to a database that answers. It counts as answering until it has been silent for life, or for the 300
// milliseconds that three questions take where life is shorter. Run asks it.
func OpenPulse(ctx context.Context, o Options, life time.Duration) (*Pulse, error) {
	probe, err := Open(ctx, o)
	if err != nil {
		return nil, err
	}
	pause := min(max(life/4, 100*time.Millisecond), time.Second)
	return &Pulse{probe: probe, pause: pause, life: max(life, 3*pause), start: time.Now()}, nil
}

// Run asks until ctx ends.
func (p *Pulse) Run(ctx context.Context) {
	t := time.NewTicker(p.pause)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			p.ask(ctx)
		}
	}
}

func (p *Pulse) ask(ctx context.Context) {
	asked := time.Now()
	ctx, cancel := context.WithTimeout(ctx, p.life)
	defer cancel()
	if p.probe.Ping(ctx) == nil {
		p.last.Store(int64(asked.Sub(p.start)))
	}
}

// Beats reports whether the database has answered lately, as of now. It takes no lock and allocates nothing.
func (p *Pulse) Beats(now time.Time) bool {
	return int64(now.Sub(p.start))-p.last.Load() <= int64(p.life)
}

// LogInAs is that of DB.
func (p *Pulse) LogInAs(raw string) error { return p.probe.LogInAs(raw) }

// Close closes the connection. What is asked after that has no answer.
func (p *Pulse) Close() error { return p.probe.Close() }
