package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"barong/db"
	"barong/internal/bus"
	"barong/internal/bus/redisbus"
	"barong/internal/bus/sqlbus"
	"barong/internal/config"
	"barong/session/redisstore"
)

// tellTimeout bounds what a command spends on telling running servers what it changed.
const tellTimeout = 3 * time.Second

// hearTime is what servers need to hear it, at most: on SQLite they look every 40 ms. A command ends after it, so that
// whoever ran it finds the change in force.
const hearTime = 100 * time.Millisecond

// openBus joins the bus that the servers use: Redis if there is one, else the database. Closing comes last to first: the
// bus, then what closeBus closes.
func openBus(ctx context.Context, c *config.Config, d *db.DB, o bus.Options) (b *bus.Shared, closeBus func() error, err error) {
	if c.RedisURL == "" {
		b, err = sqlbus.Open(ctx, d, o)
		return b, func() error { return nil }, err
	}
	client, err := redisstore.ConnectWithin(c.RedisURL.Reveal(), c.RedisTimeout)
	if err != nil {
		return nil, nil, err
	}
	if b, err = redisbus.Open(ctx, client, o); err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	return b, client.Close, nil
}

// tell lets running servers know at once what a command has changed. That they cannot be told is no failure of the
// change: they find out by themselves, later.
func (p *program) tell(c *config.Config, d *db.DB, notices ...bus.Notice) {
	ctx, cancel := context.WithTimeout(p.ctx, tellTimeout)
	defer cancel()
	b, closeBus, err := openBus(ctx, c, d, bus.Options{})
	if err == nil {
		err = errors.Join(b.Publish(ctx, notices...), b.Close(), closeBus())
	}
	if err != nil {
		fmt.Fprintf(p.stderr, "warning: running servers could not be told, and find out by themselves: %v\n", err)
		return
	}
	select {
	case <-time.After(hearTime):
	case <-p.ctx.Done():
	}
}

// tellOfKeys lets running servers read the signing keys again. Those watch the files anyway; so a database that is not
// there yet, or not up to date, is no reason for a word.
func (p *program) tellOfKeys(c *config.Config) {
	notice := bus.Notice{Kind: bus.SigningChanged}
	if c.RedisURL != "" {
		p.tell(c, nil, notice)
		return
	}
	if file := sqliteFile(c); file != "" {
		if _, err := os.Stat(file); err != nil {
			return
		}
	}
	ctx, cancel := context.WithTimeout(p.ctx, tellTimeout)
	defer cancel()
	d, err := db.Open(ctx, db.Options{URL: c.DatabaseURL.Reveal()})
	if err != nil {
		return
	}
	defer d.Close()
	if pending, err := d.Pending(ctx); err != nil || pending {
		return
	}
	p.tell(c, d, notice)
}
