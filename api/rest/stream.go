package rest

import (
	"context"
	"io"
	"sync"
	"time"

	"barong/internal/listener"
)

// Bounds of answers that are sent while they are read. Each holds a file and a buffer for as long as its client reads.
const (
	streams    = 256 // at the same time
	streamsOne = 4   // of one thing
)

// A Stream is an answer that is sent while it is read.
type Stream struct {
	ContentType string
	Size        int64 // bytes
	Body        io.ReadCloser
}

// Stream answers with what open returns, which is closed when it was sent or its client is gone. Calls for the same thing
// wait for each other when there are many; the error is request.rate_limited when they are too many, or that of open.
func (c *Call) Stream(ctx context.Context, thing any, open func() (Stream, error)) error {
	one, err := c.server.streamsOne.enter(ctx, thing)
	if err != nil {
		return err
	}
	all, err := c.server.streams.enter(ctx, nil)
	if err != nil {
		one()
		return err
	}
	leave := sync.OnceFunc(func() {
		all()
		one()
	})
	s, err := open()
	if err != nil {
		leave()
		return err
	}
	c.rc.SetStatusCode(c.status())
	c.rc.Response.Header.SetContentType(s.ContentType)
	c.rc.Response.SetBodyStream(&place{ReadCloser: s.Body, leave: leave}, int(s.Size))
	_ = c.rc.SetWriteDeadline(time.Now().Add(listener.TransferTime(s.Size))) // a client that is gone fails when written to
	return nil
}

// A place is the body of a stream. fasthttp closes it, whatever becomes of the answer.
type place struct {
	io.ReadCloser
	leave func()
}

// Close implements io.Closer.
func (p *place) Close() error {
	defer p.leave()
	return p.ReadCloser.Close()
}
