// Package webhooks tells other services what happened by POST, signed as Standard Webhooks (standardwebhooks.com) say: it
// takes events into the outbox, once for each receiver that wants them and in the transactions that cause them, and sends
// them from there.
//
// An event is delivered at least once to each receiver, in any order. One that comes again has the same id (webhook-id).
//
// Receivers are named by the operator, and their names may resolve to anything. Each connection is therefore made to an
// address that was looked at: a public one, or one of the networks that the operator allows.
package webhooks

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"

	"barong/internal/crypto/secret"
	"barong/internal/delivery/outbox"
)

// KindPrefix begins the kinds of webhooks in the outbox; the receiver's name follows.
const KindPrefix = "webhook:"

// Times of deliveries.
const (
	timeout    = 20 * time.Second   // of one, as the specification recommends
	maxAge     = 3 * 24 * time.Hour // of an event that no attempt delivers
	maxBackoff = time.Hour
	atOnce     = 4 // deliveries to one receiver
)

// maxAnswer is how much of an answer is read, in bytes. Only its status counts; a connection is used again when its answer
// ends within them.
const maxAnswer = 16 << 10

// An Event tells what happened. Record and Changes are JSON objects; Changes is nil unless something was updated.
type Event struct {
	Name    string // "model.user.updated"
	Record  json.RawMessage
	Changes json.RawMessage
}

// queued is an event in the outbox. Its id and time are made there, so that it keeps them however often it is sent.
type queued struct {
	ID   string          `json:"id"`
	Body json.RawMessage `json:"body"`
}

// body is what a receiver gets, in the form that the specification recommends.
type body struct {
	Type      string `json:"type"`
	Timestamp string `json:"timestamp"` // RFC 3339
	Data      data   `json:"data"`
}

type data struct {
	Record  json.RawMessage `json:"record"`
	Changes json.RawMessage `json:"changes,omitempty"`
}

// Queue is the part of a transaction that events are queued with.
type Queue interface {
	Now() time.Time
	Enqueue(ctx context.Context, kind, topic string, payload []byte) error
}

// Enqueue takes an event into the outbox for each receiver that wants it. It has one id for all of them.
func (c *Config) Enqueue(ctx context.Context, tx Queue, e Event) error {
	var payload []byte
	for i := range c.Receivers {
		r := &c.Receivers[i]
		if !r.wants(e.Name) {
			continue
		}
		if payload == nil {
			text, err := json.Marshal(body{Type: e.Name, Timestamp: tx.Now().UTC().Format(time.RFC3339), Data: data{e.Record, e.Changes}})
			if err == nil {
				payload, err = json.Marshal(queued{ID: "msg_" + strings.ReplaceAll(uuid.NewString(), "-", ""), Body: text})
			}
			if err != nil {
				return fmt.Errorf("encode webhook: %w", err)
			}
		}
		if err := tx.Enqueue(ctx, KindPrefix+r.Name, e.Name, payload); err != nil {
			return err
		}
	}
	return nil
}

// Sign is the value of the header webhook-signature: one for each secret, so that a receiver may change its own.
func Sign(secrets []secret.Text, id string, at time.Time, payload []byte) (string, error) {
	var out []string
	for _, s := range secrets {
		key, err := key(s)
		if err != nil {
			return "", err
		}
		m := hmac.New(sha256.New, key)
		fmt.Fprintf(m, "%s.%d.", id, at.Unix())
		m.Write(payload)
		out = append(out, "v1,"+base64.StdEncoding.EncodeToString(m.Sum(nil)))
	}
	return strings.Join(out, " "), nil
}

// key reads a secret: base64 of 24 to 64 bytes, behind "whsec_" or not.
func key(s secret.Text) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s.Reveal(), "whsec_"))
	if err != nil || len(raw) < 24 || len(raw) > 64 {
		return nil, errors.New("a secret is whsec_ and base64 of 24 to 64 random bytes; \"openssl rand -base64 32\" makes such")
	}
	return raw, nil
}

// Options are what New needs.
type Options struct {
	Config *Config
	TLS    *tls.Config      // default: certificates are verified against the system's authorities
	Log    *slog.Logger     // default slog.Default()
	Now    func() time.Time // default time.Now
}

// A Sender delivers webhooks. It is safe for concurrent use. Close it, after the outbox.
type Sender struct {
	o    Options
	now  atomic.Pointer[Config]
	http *http.Client
}

// New returns a sender. It connects to nobody yet.
func New(o Options) *Sender {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Sender{o: o}
	s.now.Store(o.Config)
	s.http = &http.Client{
		Transport: &http.Transport{
			Proxy: nil, // an address that was looked at is the one that is spoken to
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				d := net.Dialer{Timeout: timeout / 2, Control: func(_, address string, _ syscall.RawConn) error { return s.now.Load().mayDial(ctx, address) }}
				return d.DialContext(ctx, network, address)
			},
			TLSClientConfig: o.TLS, TLSHandshakeTimeout: timeout / 2, ResponseHeaderTimeout: timeout, MaxResponseHeaderBytes: maxAnswer,
			MaxIdleConnsPerHost: atOnce, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       timeout,
	}
	return s
}

// Close ends the connections.
func (s *Sender) Close() error {
	s.http.CloseIdleConnections()
	return nil
}

// Kinds are how the outbox delivers to each receiver. What nobody takes for three days is given up.
func (s *Sender) Kinds() map[string]outbox.Kind { return s.kinds(s.now.Load(), nil) }

// Replace has others told from now on. What it returns is what the outbox must change: how those that are new, or others than they
// were, are delivered to, and the kinds of those that are gone.
func (s *Sender) Replace(c *Config) (kinds map[string]outbox.Kind, without []string) {
	before := s.now.Swap(c)
	for i := range before.Receivers {
		if name := before.Receivers[i].Name; c.find(name) == nil {
			without = append(without, KindPrefix+name)
		}
	}
	return s.kinds(c, before), without
}

func (c *Config) find(name string) *Receiver {
	for i := range c.Receivers {
		if c.Receivers[i].Name == name {
			return &c.Receivers[i]
		}
	}
	return nil
}

// Enqueue is that of the Config of the moment.
func (s *Sender) Enqueue(ctx context.Context, tx Queue, e Event) error {
	return s.now.Load().Enqueue(ctx, tx, e)
}

// kinds are the kinds of the receivers of a file, but for those that were the same in another.
func (s *Sender) kinds(c, before *Config) map[string]outbox.Kind {
	kinds := map[string]outbox.Kind{}
	for i := range c.Receivers {
		r := &c.Receivers[i]
		if before != nil {
			if have := before.find(r.Name); have != nil && reflect.DeepEqual(have, r) {
				continue
			}
		}
		kinds[KindPrefix+r.Name] = outbox.Kind{
			Handler: func(ctx context.Context, _ string, payload []byte) error { return s.deliver(ctx, r, payload) },
			Timeout: timeout + 5*time.Second, MaxAge: maxAge, MaxBackoff: maxBackoff, Concurrency: atOnce,
		}
	}
	return kinds
}

// clear is the key of contexts whose connection is not encrypted.
type clear struct{}

// deliver sends one event. It is delivered when the receiver answers 2xx.
func (s *Sender) deliver(ctx context.Context, r *Receiver, payload []byte) error {
	var q queued
	if err := json.Unmarshal(payload, &q); err != nil || q.ID == "" {
		return outbox.Permanent(errors.New("the queued webhook is not readable")) // its text stays out of the log
	}
	now := s.o.Now()
	signature, err := Sign(r.Secrets, q.ID, now, q.Body)
	if err != nil {
		return outbox.Permanent(err)
	}
	if r.url.Scheme == "http" {
		ctx = context.WithValue(ctx, clear{}, true)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url.String(), bytes.NewReader(q.Body))
	if err != nil {
		return outbox.Permanent(errors.New("the receiver's address cannot be asked"))
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "barong")
	req.Header.Set("Webhook-Id", q.ID)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	req.Header.Set("Webhook-Signature", signature)
	resp, err := s.http.Do(req)
	if err != nil {
		return withoutAddress(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)); err != nil {
		s.o.Log.DebugContext(ctx, "the answer to a webhook broke off", "receiver", r.Name, "error", err) // its status counts
	}
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
		return nil
	case resp.StatusCode == http.StatusGone: // "do not send me more of these"
		return outbox.Permanent(fmt.Errorf("receiver %s answers 410: it is gone; take it out of the file of receivers", r.Name))
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return fmt.Errorf("receiver %s answers %d: redirects are not followed", r.Name, resp.StatusCode)
	}
	return fmt.Errorf("receiver %s answers %d", r.Name, resp.StatusCode)
}

// withoutAddress takes the address off an error of the client: its path and query may be a secret.
func withoutAddress(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

// errForbidden says that a receiver's name leads where it must not.
var errForbidden = errors.New("it is no public address, and in none of the networks that the file of receivers allows")

// mayDial refuses addresses that are not public and not allowed. What is not encrypted goes to allowed ones alone.
func (c *Config) mayDial(ctx context.Context, address string) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return errForbidden
	}
	addr := to.Addr().Unmap().WithZone("")
	for _, network := range c.Networks.Networks() {
		if network.Contains(addr) {
			return nil
		}
	}
	if inClear, _ := ctx.Value(clear{}).(bool); inClear {
		return fmt.Errorf("connect to %s: without TLS only networks that the file of receivers allows are spoken to", addr)
	}
	if !public(addr) {
		return fmt.Errorf("connect to %s: %w", addr, errForbidden)
	}
	return nil
}

// special are networks that are not public, beside those that netip knows (IANA's registries of special addresses).
var special = func() (out []netip.Prefix) {
	for _, text := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
		"240.0.0.0/4", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}()

// public reports whether an address is one of the Internet's.
func public(addr netip.Addr) bool {
	if !addr.IsGlobalUnicast() || addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsMulticast() {
		return false
	}
	for _, network := range special {
		if network.Contains(addr) {
			return false
		}
	}
	return true
}
