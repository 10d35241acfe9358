package blob

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

const (
	// callTimeout bounds one call of a store, whatever the caller's context allows; an upload has it for each timedSize bytes.
	callTimeout = 60 * time.Second
	timedSize   = 16 << 20
	// A call that fails for a reason that may pass is made once more, after this pause.
	retryPause = 200 * time.Millisecond
	// maxAnswer bounds what is read of an answer that says what went wrong, in bytes.
	maxAnswer = 64 << 10
)

// A remote is a bucket behind HTTP. In S3 and in Azure alike, a file is an address, and the method says what to do with it;
// they differ in the headers of an upload and in how a request is signed, which is what a service knows.
type remote struct {
	client *http.Client
	service
}

// A service is one of the languages that buckets speak.
type service interface {
	// address is where the file of a key is.
	address(key string) *url.URL
	// describe sets the headers of an upload.
	describe(h http.Header, contentType string)
	// sign signs a request; content is what it uploads, or nil.
	sign(r *http.Request, content Content) error
	// presign signs an address that hands a file out for that long.
	presign(ctx context.Context, key string, life time.Duration) (string, error)
}

func newRemote(s service) *remote {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	return &remote{service: s, client: &http.Client{
		Transport: transport, Timeout: callTimeout,
		// A signature is good for one address alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (b *remote) put(ctx context.Context, key, contentType string, content Content) error {
	answer, err := b.call(ctx, http.MethodPut, key, func(h http.Header) { b.describe(h, contentType) }, content)
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

func (b *remote) get(ctx context.Context, key string) (int64, io.ReadCloser, error) {
	answer, err := b.call(ctx, http.MethodGet, key, nil, nil)
	if err != nil {
		return 0, nil, err
	}
	if answer.ContentLength < 0 {
		_ = answer.Body.Close() // nothing of it is used
		return 0, nil, errors.New("the store does not tell the size of the file")
	}
	return answer.ContentLength, answer.Body, nil
}

func (b *remote) stat(ctx context.Context, key string) error {
	answer, err := b.call(ctx, http.MethodHead, key, nil, nil)
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

func (b *remote) remove(ctx context.Context, key string) error {
	answer, err := b.call(ctx, http.MethodDelete, key, nil, nil)
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

func (b *remote) close() { b.client.CloseIdleConnections() }

// call makes a call, twice if need be, and returns an answer of success; close its body. ErrNotFound says that there is no
// such file. No more of content is read when call has returned.
func (b *remote) call(ctx context.Context, method, key string, describe func(http.Header), content Content) (*http.Response, error) {
	answer, again, err := b.try(ctx, method, key, describe, content)
	if err == nil || !again || ctx.Err() != nil {
		return answer, err
	}
	select {
	case <-ctx.Done():
		return nil, err
	case <-time.After(retryPause):
	}
	answer, _, err = b.try(ctx, method, key, describe, content)
	return answer, err
}

// try makes a call once; again says that another attempt may do better.
func (b *remote) try(ctx context.Context, method, key string, describe func(http.Header), content Content) (answer *http.Response, again bool, err error) {
	r := (&http.Request{Method: method, URL: b.address(key), Header: http.Header{}}).WithContext(ctx)
	r.Header.Set("Accept-Encoding", "identity") // what is stored, as it is
	if describe != nil {
		describe(r.Header)
	}
	client := *b.client
	if content != nil {
		client.Timeout *= time.Duration(1 + content.Size()/timedSize)
		r.ContentLength = content.Size()
		if r.Body = http.NoBody; r.ContentLength > 0 {
			body := newBody(content)
			r.Body = body
			// The client may answer before it has let go of the body.
			defer func() { <-body.closed }()
		}
	}
	if err := b.sign(r, content); err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, false, fmt.Errorf("sign request: %w", err)
	}
	answer, err = client.Do(r)
	if err != nil {
		return nil, true, err
	}
	if answer.StatusCode >= 200 && answer.StatusCode < 300 {
		return answer, false, nil
	}
	defer answer.Body.Close()
	switch status := answer.StatusCode; status {
	case http.StatusNotFound:
		return nil, false, fmt.Errorf("%w (%w)", ErrNotFound, reason(answer))
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		again = true
	default:
		again = status >= 500
	}
	return nil, again, reason(answer)
}

// reason is what an answer of failure says: both S3 and Azure write a code and a sentence.
func reason(answer *http.Response) error {
	var said struct{ Code, Message string }
	_ = xml.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(&said) // without it, the status has to do
	if said.Code == "" {
		said.Code = answer.Header.Get("x-ms-error-code")
	}
	text := "the store answers " + answer.Status
	for _, s := range []string{said.Code, said.Message} {
		if s != "" {
			text += ": " + s
		}
	}
	if region := answer.Header.Get("x-amz-bucket-region"); region != "" && answer.StatusCode/100 == 3 {
		text += " (the bucket is in the region " + region + ")"
	}
	return errors.New(text)
}

// A body is the body of a request. Once it is closed, nothing is read any more.
type body struct {
	mu      sync.Mutex
	content *io.SectionReader // nil once closed
	closed  chan struct{}
}

func newBody(c Content) *body {
	return &body{content: io.NewSectionReader(c, 0, c.Size()), closed: make(chan struct{})}
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.content == nil {
		return 0, http.ErrBodyReadAfterClose
	}
	return b.content.Read(p)
}

func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.content != nil {
		b.content = nil
		close(b.closed)
	}
	return nil
}
