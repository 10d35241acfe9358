package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"fortio.org/fortio/periodic"
	fortiolog "fortio.org/log"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	vegeta "github.com/tsenart/vegeta/v12/lib"
	"github.com/valyala/fasthttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func init() { fortiolog.SetLogLevelQuiet(fortiolog.Critical) } // its progress would stand between our lines

// A caller makes one request after the other on a connection of its own.
type caller interface {
	call() error
	close()
}

// A load is what a closed loop did.
type load struct {
	requests int64
	took     time.Duration
	p50, p99 time.Duration
}

// loop keeps all callers busy for d: each sends its next request when it has the answer to the last.
func loop(callers []caller, d time.Duration) (load, error) {
	runner := periodic.NewPeriodicRunner(&periodic.RunnerOptions{
		NumThreads: len(callers), QPS: -1, Duration: d, Resolution: 1e-6, Percentiles: []float64{50, 99}, Out: io.Discard,
	})
	loops, runners := make([]*runnable, len(callers)), make([]periodic.Runnable, len(callers))
	for i, c := range callers {
		loops[i] = &runnable{caller: c}
		runners[i] = loops[i]
	}
	runner.Options().Runners = runners
	result := runner.Run()
	for _, l := range loops {
		if l.err != nil {
			return load{}, l.err
		}
	}
	l := load{requests: result.DurationHistogram.Count, took: result.ActualDuration}
	for _, p := range result.DurationHistogram.Percentiles {
		at := time.Duration(p.Value * float64(time.Second))
		if p.Percentile == 50 {
			l.p50 = at
		} else {
			l.p99 = at
		}
	}
	return l, nil
}

// pace has all callers together send so many requests a second, each at its own moment, and measures from that moment on:
// one that had to wait for the answer before it is late by as much. An HTTP client that is made for it, as vegeta's, takes
// more of a processor than the server does, and so cannot reach half of its load.
func pace(callers []caller, rate float64, d time.Duration) (p50, p99 time.Duration, err error) {
	took := make([][]time.Duration, len(callers))
	errs := make([]error, len(callers))
	begin := time.Now().Add(time.Millisecond)
	between := time.Duration(float64(time.Second) * float64(len(callers)) / rate)
	var group sync.WaitGroup
	for i, c := range callers {
		group.Go(func() {
			due := begin.Add(between * time.Duration(i) / time.Duration(len(callers)))
			for end := begin.Add(d); due.Before(end); due = due.Add(between) {
				if wait := time.Until(due); wait > 0 {
					time.Sleep(wait)
				}
				if errs[i] = c.call(); errs[i] != nil {
					return
				}
				took[i] = append(took[i], time.Since(due))
			}
		})
	}
	group.Wait()
	all := slices.Concat(took...)
	if err := errors.Join(errs...); err != nil {
		return 0, 0, err
	}
	if len(all) == 0 {
		return 0, 0, fmt.Errorf("no answer within %v", d)
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)*99/100], nil
}

type runnable struct {
	caller caller
	err    error
}

func (r *runnable) Run(context.Context, periodic.ThreadID) (bool, string) {
	if r.err != nil {
		time.Sleep(time.Millisecond) // until the time is over
		return false, ""
	}
	r.err = r.caller.call()
	return r.err == nil, ""
}

// An httpCaller sends requests that are ready as bytes, so that the load costs little beside what it loads, and reads the
// answers as fasthttp's client does.
type httpCaller struct {
	conn     net.Conn
	in       *bufio.Reader
	response fasthttp.Response
	requests [][]byte // sent in turn
	next     int
	status   int // that every answer must have; 0: 200, or 503
	prepare  func(request []byte)

	lenient    bool // up to a percent of other answers is no failure: a store under load may be late
	calls, odd int
}

func newHTTPCaller(addr string, status int, requests ...[]byte) (*httpCaller, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &httpCaller{conn: conn, in: bufio.NewReaderSize(conn, 8<<10), requests: requests, status: status}, nil
}

func (c *httpCaller) close() { _ = c.conn.Close() } // whatever was to be measured has been

// exchange sends the next request, and returns the status of its answer.
func (c *httpCaller) exchange() (int, error) {
	request := c.requests[c.next]
	if c.next++; c.next == len(c.requests) {
		c.next = 0
	}
	if c.prepare != nil {
		c.prepare(request)
	}
	if _, err := c.conn.Write(request); err != nil {
		return 0, err
	}
	if err := c.response.Read(c.in); err != nil {
		return 0, fmt.Errorf("read the answer: %w", err)
	}
	return c.response.StatusCode(), nil
}

func (c *httpCaller) call() error {
	got, err := c.exchange()
	if err != nil {
		return err
	}
	if c.status == 0 && (got == 200 || got == 503) {
		return nil
	}
	c.calls++
	if got != c.status {
		if c.odd++; c.lenient && c.odd <= 1+c.calls/100 {
			return nil
		}
		return fmt.Errorf("got %d %s, want %d", got, c.response.Body(), c.status)
	}
	return nil
}

// ask sends one request and returns the answer as it came.
func ask(addr string, request []byte) (*answer, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second)) // a connection that is gone fails below
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	a := &answer{Status: r.StatusCode, Body: string(body)}
	for name, values := range r.Header {
		for _, value := range values {
			if name != "Date" && name != "Content-Length" {
				a.Headers = append(a.Headers, [2]string{name, value})
			}
		}
	}
	return a, nil
}

// size is how many bytes the answer is on the wire, but for the date.
func (a *answer) size() int {
	n := len(a.Body)
	for _, h := range a.Headers {
		n += len(h[0]) + len(h[1]) + len(": \r\n")
	}
	return n
}

// wire makes a request's bytes.
func wire(method, target string, headers ...string) []byte {
	return []byte(method + " " + target + " HTTP/1.1\r\nHost: example.com\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n")
}

// forwarded are the headers that gateways add.
var forwarded = []string{
	"X-Forwarded-For: " + clientIP, "X-Forwarded-Proto: https", "X-Request-Id: 0c3a3f4e-1d0f-4ee1-8a44-4f3f4d1f6f3b",
	"Content-Length: 0",
}

// browserOf are the headers of person i's browser.
func browserOf(i int) []string {
	return append([]string{
		"User-Agent: " + userAgent, "Accept: application/json, text/plain, */*", "Accept-Language: en-US,en;q=0.9",
		"Cookie: theme=dark; " + cookieName + "=" + sessionIDOf(i).String() + "; lang=en",
	}, forwarded...)
}

// The ways in which bots sign: a nonce (scheme 1), or the whole request (RFC 9421) with a secret or with a key of their own.
const (
	schemeNonce   = ""
	schemeHMAC    = "hmac-sha256"
	schemeEd25519 = "ed25519"
)

// A signer fills into a request what changes with every call, and keeps its length.
type signer interface{ sign(request []byte) }

// botOf is a request of person i's bot for a target of the check, below prefix, and what signs it.
func botOf(i int, scheme, prefix, target string) ([]byte, signer) {
	if scheme == schemeNonce {
		return byNonce(i, prefix+target)
	}
	return byRFC9421(i, scheme, prefix, target)
}

// A nonceSigner fills in nonce and signature of scheme 1.
type nonceSigner struct {
	kid       string
	secret    []byte
	last      int64 // nonce
	nonce     int   // where it stands
	signature int
}

const (
	noncePlace     = "0000000000000"
	signaturePlace = "0000000000000000000000000000000000000000000000000000000000000000"
)

func byNonce(i int, target string) ([]byte, *nonceSigner) {
	s := &nonceSigner{kid: kidOf(i), secret: []byte(secretOf(i))}
	request := wire("GET", target, append([]string{
		"User-Agent: bot/1.0", "Accept: application/json", "X-Auth-Apikey: " + s.kid, "X-Auth-Nonce: " + noncePlace,
		"X-Auth-Signature: " + signaturePlace,
	}, forwarded...)...)
	s.nonce = bytes.Index(request, []byte("X-Auth-Nonce: ")) + len("X-Auth-Nonce: ")
	s.signature = bytes.Index(request, []byte("X-Auth-Signature: ")) + len("X-Auth-Signature: ")
	return request, s
}

func (s *nonceSigner) sign(request []byte) {
	s.last = max(s.last+1, time.Now().UnixMilli())
	nonce := strconv.AppendInt(request[s.nonce:s.nonce], s.last, 10)
	mac := hmac.New(sha256.New, s.secret)
	mac.Write(nonce)
	mac.Write([]byte(s.kid))
	var sum [sha256.Size]byte
	hex.Encode(request[s.signature:], mac.Sum(sum[:0]))
}

// A wholeSigner fills in the second, the nonce and the signature of RFC 9421.
type wholeSigner struct {
	key       func(base []byte) []byte
	base      []byte // what is signed
	last      int64  // nonce
	places    [2]int // of created in the base and in the request
	nonces    [2]int
	signature int
}

const (
	createdPlace   = "0000000000"
	wholeNonce     = "00000000000000000000"
	wholeSignature = "barong=:"
)

func byRFC9421(i int, scheme, prefix, target string) ([]byte, *wholeSigner) {
	s := &wholeSigner{}
	kid, size := kidOf(i), sha256.Size
	mac := hmac.New(sha256.New, []byte(secretOf(i)))
	s.key = func(base []byte) []byte {
		mac.Reset()
		mac.Write(base)
		return mac.Sum(nil)
	}
	if scheme == schemeEd25519 {
		own := keyOf(i)
		kid, size = ownKidOf(i), ed25519.SignatureSize
		s.key = func(base []byte) []byte { return ed25519.Sign(own, base) }
	}
	path, query, _ := strings.Cut(target, "?")
	input := fmt.Sprintf(`("@method" "@path" "@query");created=%s;keyid=%q;nonce="%s"`, createdPlace, kid, wholeNonce)
	s.base = fmt.Appendf(nil, "\"@method\": GET\n\"@path\": %s\n\"@query\": ?%s\n\"@signature-params\": %s", path, query, input)
	request := wire("GET", prefix+target, append([]string{
		"User-Agent: bot/1.0", "Accept: application/json", "Signature-Input: barong=" + input,
		"Signature: " + wholeSignature + base64.StdEncoding.EncodeToString(make([]byte, size)) + ":",
	}, forwarded...)...)
	for i, text := range [][]byte{s.base, request} {
		s.places[i] = bytes.Index(text, []byte(createdPlace))
		s.nonces[i] = bytes.Index(text, []byte(wholeNonce))
	}
	s.signature = bytes.Index(request, []byte(wholeSignature)) + len(wholeSignature)
	return request, s
}

func (s *wholeSigner) sign(request []byte) {
	now := time.Now()
	s.last = max(s.last+1, now.UnixNano()) // of 19 digits
	for i, text := range [][]byte{s.base, request} {
		strconv.AppendInt(text[s.places[i]:s.places[i]], now.Unix(), 10)
		strconv.AppendInt(text[s.nonces[i]+1:s.nonces[i]+1], s.last, 10)
	}
	base64.StdEncoding.Encode(request[s.signature:], s.key(s.base))
}

// signed makes a caller sign each of its requests.
func signed(c *httpCaller, signers []signer) {
	c.prepare = func(request []byte) {
		signers[(c.next+len(signers)-1)%len(signers)].sign(request)
	}
}

// A grpcCaller makes checks over gRPC.
type grpcCaller struct {
	conn    *grpc.ClientConn
	client  auth.AuthorizationClient
	request *auth.CheckRequest
}

func newGRPCCaller(addr string, request *auth.CheckRequest) (*grpcCaller, error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &grpcCaller{conn: conn, client: auth.NewAuthorizationClient(conn), request: request}, nil
}

func (c *grpcCaller) close() { c.conn.Close() }

func (c *grpcCaller) call() error {
	answer, err := c.client.Check(context.Background(), c.request)
	if err == nil && answer.GetOkResponse() == nil {
		err = fmt.Errorf("got %v, want an allow", answer)
	}
	return err
}

// checkRequest is what Envoy sends over gRPC for person i.
func checkRequest(i int, target string) *auth.CheckRequest {
	headers := map[string]string{":method": "GET", ":path": target, ":authority": "example.com"}
	for _, line := range browserOf(i) {
		name, value, _ := strings.Cut(line, ": ")
		if name != "Content-Length" {
			headers[strings.ToLower(name)] = value
		}
	}
	return &auth.CheckRequest{Attributes: &auth.AttributeContext{
		Request: &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{
			Method: "GET", Path: target, Host: "example.com", Scheme: "https", Protocol: "HTTP/1.1", Headers: headers,
		}},
	}}
}

// at sends requests at a constant rate, whatever the answers take, and returns how long they took.
func at(rate int, d time.Duration, url string, headers []string, status int) (p50, p99 time.Duration, err error) {
	h := http.Header{}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		if name != "Content-Length" {
			h.Set(name, value)
		}
	}
	attacker := vegeta.NewAttacker(vegeta.Connections(64), vegeta.Workers(64), vegeta.KeepAlive(true))
	defer attacker.Stop()
	var m vegeta.Metrics
	for r := range attacker.Attack(vegeta.NewStaticTargeter(vegeta.Target{Method: "GET", URL: url, Header: h}),
		vegeta.Rate{Freq: rate, Per: time.Second}, d, "") {
		m.Add(r)
		if r.Error != "" || int(r.Code) != status {
			err = fmt.Errorf("got %d %s, want %d", r.Code, r.Error, status)
		}
	}
	m.Close()
	return m.Latencies.P50, m.Latencies.P99, err
}
