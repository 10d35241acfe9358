package sqlbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"barong/internal/bus"

	"github.com/jackc/pgx/v5"
)

// channel is the name that replicas on one database listen to; other databases have channels of their own.
const channel = "barong_bus"

// notify is the transport over LISTEN and NOTIFY. It has two connections of its own, one to listen and one to send: the
// pool may be exhausted just when something must be told.
type notify struct {
	url    func() string // of the moment: its login may change
	sender *pgx.Conn     // nil until needed, and after an error
}

func newNotify(url func() string) (*notify, error) {
	n := &notify{url: url}
	_, err := n.config()
	return n, err
}

func (n *notify) config() (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(n.url())
	if err != nil {
		return nil, errors.New("bus: the URL of Postgres cannot be read") // the driver's error may repeat the password
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 2 * time.Second // a server that hung is soon asked again
	}
	return config, nil
}

func (n *notify) connect(ctx context.Context) (*pgx.Conn, error) {
	config, err := n.config()
	if err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, config)
}

func (n *notify) Send(ctx context.Context, m bus.Message) error {
	payload, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if n.sender == nil {
		if n.sender, err = n.connect(ctx); err != nil {
			n.sender = nil
			return err
		}
	}
	if _, err = n.sender.Exec(ctx, "SELECT pg_notify($1, $2)", channel, string(payload)); err != nil {
		n.hangUp()
		return err
	}
	return nil
}

// hangUp closes the sending connection without waiting for a server that may not answer.
func (n *notify) hangUp() {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = n.sender.Close(ctx) // it ends either way
	n.sender = nil
}

func (n *notify) Listen(ctx context.Context, l bus.Listener) error {
	conn, err := n.connect(ctx)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_ = conn.Close(ctx) // it ends either way
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	l.Up()
	for {
		notification, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		var m bus.Message
		if err := json.Unmarshal([]byte(notification.Payload), &m); err != nil || m.Origin == "" {
			l.Gap("a message that cannot be read")
			continue
		}
		l.Hear(m)
	}
}

// MaxBytes is below the 8000 bytes that Postgres takes in its default configuration.
func (n *notify) MaxBytes() int { return 7900 }
func (n *notify) Polls() bool   { return false }

func (n *notify) Close() error {
	if n.sender != nil {
		n.hangUp()
	}
	return nil
}
