package pages

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"barong/internal/redirect"
)

// An Asset is a file that pages are made of. Its path says what is in it.
type Asset struct {
	Type         string // with its charset
	Plain        []byte
	Gzip, Brotli []byte // nil where it does not pay
}

// A Source has the pages. Package web is the one.
type Source interface {
	// Page is the HTML of a page by its whole path; known is false where there is no such page, which its HTML then says.
	Page(path string) (html []byte, known bool)
	// Asset is a file by its path below AssetsPath.
	Asset(path string) (*Asset, bool)
}

// Where pages are.
const (
	portalPath   = "/accounts"
	consolePath  = "/console"
	AssetsPath   = "/accounts/assets/"
	continuePath = "/accounts/continue"
)

// Options are what a Site is made of.
type Options struct {
	Source    Source
	Console   bool
	Headers   func() []Header // of every page; see the function of that name
	Redirects redirect.Rules
	// Host is the host that a browser asked for, with its port.
	Host func(rc *fasthttp.RequestCtx) string
}

// A Site serves the pages of the portal and of the console. It is immutable.
type Site struct{ o Options }

// NewSite returns a site.
func NewSite(o Options) *Site { return &Site{o: o} }

// Handle answers a request for a page, or what belongs to one, and reports whether it did. Paths are compared as they were
// sent: what is spelt otherwise is no page.
func (s *Site) Handle(rc *fasthttp.RequestCtx) bool {
	target, query, _ := bytes.Cut(rc.Request.Header.RequestURI(), []byte("?"))
	path := string(target)
	switch {
	case path == "/", below(path, portalPath):
	case below(path, consolePath) && s.o.Console:
	default:
		return false
	}
	if !rc.IsGet() && !rc.IsHead() {
		secure(rc, s.o.Headers())
		rc.Response.Header.Set(fasthttp.HeaderAllow, "GET, HEAD")
		rc.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
		rc.SetStatusCode(fasthttp.StatusMethodNotAllowed)
		return true
	}
	switch {
	case path == "/" || path == portalPath:
		s.lead(rc, redirect.Home)
	case path == consolePath:
		s.lead(rc, consolePath+"/")
	case path == continuePath:
		target, _ := s.o.Redirects.Target(returnTo(string(query)), s.o.Host(rc))
		s.lead(rc, target)
	case strings.HasPrefix(path, AssetsPath):
		s.asset(rc, path[len(AssetsPath):])
	default:
		html, known := s.o.Source.Page(path)
		if html == nil {
			return false
		}
		secure(rc, s.o.Headers())
		rc.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
		rc.Response.Header.SetContentType("text/html; charset=utf-8")
		if !known {
			rc.SetStatusCode(fasthttp.StatusNotFound)
		}
		rc.SetBody(html)
	}
	return true
}

func below(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '/')
}

// returnTo is the parameter rd of a query. One that is there twice says nothing.
func returnTo(query string) string {
	args := fasthttp.AcquireArgs()
	defer fasthttp.ReleaseArgs(args)
	args.Parse(query)
	values := args.PeekMulti("rd")
	if len(values) != 1 {
		return ""
	}
	return string(values[0])
}

func (s *Site) lead(rc *fasthttp.RequestCtx, location string) {
	secure(rc, s.o.Headers())
	h := &rc.Response.Header
	h.Set(fasthttp.HeaderCacheControl, "no-store")
	h.Set(fasthttp.HeaderLocation, location)
	h.SetNoDefaultContentType(true)
	rc.SetStatusCode(fasthttp.StatusFound)
}

// asset sends a file, compressed as the browser takes it.
func (s *Site) asset(rc *fasthttp.RequestCtx, name string) {
	secure(rc, s.o.Headers())
	h := &rc.Response.Header
	a, ok := s.o.Source.Asset(name)
	if !ok {
		h.Set(fasthttp.HeaderCacheControl, "no-store") // it may come with the next version
		rc.SetStatusCode(fasthttp.StatusNotFound)
		rc.SetBodyString("Not found")
		return
	}
	h.SetContentType(a.Type)
	h.Set(fasthttp.HeaderCacheControl, "public, max-age=31536000, immutable")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	body := a.Plain
	if a.Gzip != nil || a.Brotli != nil {
		h.Set(fasthttp.HeaderVary, fasthttp.HeaderAcceptEncoding)
		accept := string(rc.Request.Header.Peek(fasthttp.HeaderAcceptEncoding))
		switch {
		case a.Brotli != nil && accepts(accept, "br"):
			body = a.Brotli
			h.Set(fasthttp.HeaderContentEncoding, "br")
		case a.Gzip != nil && accepts(accept, "gzip"):
			body = a.Gzip
			h.Set(fasthttp.HeaderContentEncoding, "gzip")
		}
	}
	rc.Response.SetBodyRaw(body) // nobody changes it
}

// accepts reports whether an Accept-Encoding takes a coding: by its name or by a star, and not with a weight of zero.
func accepts(accept, coding string) bool {
	star := false
	for item := range strings.SplitSeq(accept, ",") {
		name, parameters, _ := strings.Cut(item, ";")
		name = strings.ToLower(strings.TrimSpace(name))
		if name != coding && name != "*" {
			continue
		}
		taken := true
		if q, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(parameters)), "q="); ok {
			weight, err := strconv.ParseFloat(q, 64)
			taken = err == nil && weight > 0
		}
		if name == coding {
			return taken
		}
		star = taken
	}
	return star
}
