package rest

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/valyala/fasthttp"
)

// CORS says which pages of other origins may call the API (the Fetch standard, section 3.2). The zero CORS lets none.
type CORS struct {
	Any         bool     // every origin, without credentials
	Origins     []string // exact origins, lower case: "https://exchange.example"
	MaxAge      int      // seconds that a browser may remember a preflight
	Credentials bool     // pages may send cookies

	now *atomic.Pointer[CORS] // of those that are replaced: what they are now
}

// Replaceable returns settings that Replace may make others of while they are in use, in every copy.
func (c CORS) Replaceable() CORS {
	r := CORS{now: new(atomic.Pointer[CORS])}
	r.now.Store(&c)
	return r
}

// Replace makes others of settings that come from Replaceable.
func (c *CORS) Replace(others CORS) { c.now.Store(&others) }

// current are the settings themselves, or what they were replaced by last.
func (c *CORS) current() *CORS {
	if c.now != nil {
		return c.now.Load()
	}
	return c
}

// AllowsAny reports whether pages of every origin may call.
func (c *CORS) AllowsAny() bool { return c.current().Any }

const corsMethods = "GET, POST, DELETE, PUT, PATCH, OPTIONS, HEAD"

// ParseOrigins reads a comma separated list of origins, or "*".
func ParseOrigins(list string) (all bool, origins []string, err error) {
	for item := range strings.SplitSeq(list, ",") {
		item = strings.ToLower(strings.TrimSpace(item))
		switch u, perr := url.Parse(item); {
		case item == "":
		case item == "*":
			all = true
		case perr != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Scheme+"://"+u.Host != item:
			return false, nil, fmt.Errorf("%q is no origin: want http://host or https://host, with a port if any", item)
		default:
			origins = append(origins, item)
		}
	}
	return all, origins, nil
}

// Lists reports whether the origin is one of Origins, without regard to case.
func (c *CORS) Lists(origin string) bool {
	return slices.Contains(c.current().Origins, strings.ToLower(origin))
}

// allowed is the value of Access-Control-Allow-Origin for the request, or empty.
func (c *CORS) allowed(rc *fasthttp.RequestCtx) string {
	c = c.current()
	origin := string(rc.Request.Header.Peek(fasthttp.HeaderOrigin))
	switch {
	case origin == "":
		return ""
	case c.Lists(origin):
		return origin
	case c.Any:
		return "*"
	}
	return ""
}

// preflight answers a CORS preflight and reports whether the request was one.
func (c *CORS) preflight(rc *fasthttp.RequestCtx) bool {
	if !rc.IsOptions() || len(rc.Request.Header.Peek(fasthttp.HeaderOrigin)) == 0 ||
		len(rc.Request.Header.Peek(fasthttp.HeaderAccessControlRequestMethod)) == 0 {
		return false
	}
	rc.SetStatusCode(fasthttp.StatusOK)
	if c.allowed(rc) != "" {
		if asked := rc.Request.Header.Peek(fasthttp.HeaderAccessControlRequestHeaders); len(asked) > 0 && len(asked) < 4096 {
			rc.Response.Header.SetBytesV(fasthttp.HeaderAccessControlAllowHeaders, asked)
		}
	}
	return true
}

// decorate adds the headers that let a page of another origin read the answer, errors included.
func (c *CORS) decorate(rc *fasthttp.RequestCtx) {
	c = c.current()
	h := &rc.Response.Header
	if !c.Any || len(c.Origins) > 0 {
		h.Add(fasthttp.HeaderVary, fasthttp.HeaderOrigin)
	}
	origin := c.allowed(rc)
	if origin == "" {
		return
	}
	h.Set(fasthttp.HeaderAccessControlAllowOrigin, origin)
	h.Set(fasthttp.HeaderAccessControlAllowMethods, corsMethods)
	h.Set(fasthttp.HeaderAccessControlExposeHeaders, "Total, Page, Per-Page, Link, Retry-After")
	h.Set(fasthttp.HeaderAccessControlMaxAge, strconv.Itoa(c.MaxAge))
	if c.Credentials && origin != "*" {
		h.Set(fasthttp.HeaderAccessControlAllowCredentials, "true")
	}
}
