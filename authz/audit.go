package authz

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"barong/internal/header"
	"barong/session"
)

// An Auditor writes the rows of what was refused by permission, and of what an AUDIT rule wants recorded.
type Auditor interface {
	// Audit returns once the row cannot be lost any more. The entry, and what its texts and bytes are views of, is the
	// caller's again from then on: what is kept is a Clone. An error refuses a request that would have been allowed.
	Audit(ctx context.Context, e *AuditEntry) error
}

// An AuditEntry is one decision to be recorded. What the client sent stands in it as it came, secrets included.
type AuditEntry struct {
	UserID      int64
	UID, Role   string
	Method      string
	Path        string // canonical
	Query       string // raw, without "?"
	ContentType string
	Body        []byte     // what the gateway passed on
	Topic       string     // of the AUDIT rule; empty when it has none, and for a refusal
	Allowed     bool       // the decision; what the service behind made of it is not known
	Client      netip.Addr // the zero Addr when unknown
	UserAgent   string
	RequestID   string    // see package reqid; filled in by the Auditor from the context, if it is stored
	At          time.Time // of the decision; the zero Time is now
}

// Clone returns a copy that is a view of nothing.
func (e *AuditEntry) Clone() *AuditEntry {
	c := *e
	for _, text := range []*string{&c.UID, &c.Role, &c.Method, &c.Path, &c.Query, &c.ContentType, &c.Topic, &c.UserAgent, &c.RequestID} {
		*text = strings.Clone(*text)
	}
	c.Body = bytes.Clone(c.Body)
	return &c
}

// A Sampler counts what the permissions are asked and answer. It is called on every identified check, must be cheap and
// must not block. path is a view: it is copied if it is kept.
type Sampler interface {
	Sample(role, verb, path string, allowed bool)
}

func (c *check) audit(ctx context.Context, p *session.Principal, topic string, allowed bool) error {
	if c.engine.auditor == nil {
		if allowed {
			return errNoAuditor
		}
		return nil
	}
	r, d := c.request, c.decision
	if r.LoadBody != nil {
		if err := r.LoadBody(r); err != nil && allowed { // a refusal is recorded without it
			return fmt.Errorf("read body: %w", err)
		}
	}
	_, query, _ := strings.Cut(r.Target, "?")
	e := auditEntries.Get().(*AuditEntry)
	defer func() {
		*e = AuditEntry{} // views of what is not ours any more
		auditEntries.Put(e)
	}()
	*e = AuditEntry{
		UserID: p.UserID, UID: p.UID, Role: p.Role, Method: r.Method, Path: d.Path, Query: query,
		ContentType: r.ContentType, Body: r.Body,
		Topic: topic, Allowed: allowed, Client: d.Client, UserAgent: header.View(r.headers.single[userAgent]), At: c.now,
	}
	return c.engine.auditor.Audit(ctx, e)
}

// auditEntries are kept: whoever asks for what is forbidden may do so as often as there is time for.
var auditEntries = sync.Pool{New: func() any { return new(AuditEntry) }}
