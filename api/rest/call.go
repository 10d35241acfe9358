package rest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/netip"
	"strings"

	"github.com/valyala/fasthttp"

	"barong/db"
)

// A Call is one request to a route, after its caller was authenticated and its parameters were validated. It is used by
// one goroutine and must not be kept: the server uses the request's buffers again once the handler has returned. Every
// string it hands out is a copy.
type Call struct {
	Route *Route
	// User is the caller, read from the database for this call; nil on a Public route.
	User *db.User
	// Client is the caller's address behind trusted proxies, or the zero Addr when it could not be told.
	Client    netip.Addr
	UserAgent string // as header.UTF8 makes it
	HTTPS     bool   // the caller came over https, as far as a trusted proxy says so
	// AskedHost is the host that the caller asked for: that of the gateway, as far as a trusted proxy says it.
	AskedHost string
	// Legacy asks for the statuses and bodies of release 2.4.17.
	Legacy bool

	rc     *fasthttp.RequestCtx
	server *Server
	held   []func() // give back what the call has of the budget of bodies
	args   args
	form   *multipart.Form
}

func (c *Call) giveBack() {
	for _, give := range c.held {
		give()
	}
}

// Has reports whether the parameter is there, blank and null ones included.
func (c *Call) Has(name string) bool { return c.args[name].kind != absent }

// String is the text of a parameter: empty when it is absent or null.
func (c *Call) String(name string) string { return c.args[name].text }

// Optional is the text of a parameter: nil when it is absent or null.
func (c *Call) Optional(name string) *string {
	v := c.args[name]
	if v.kind != text {
		return nil
	}
	return &v.text
}

// Null reports whether the parameter was sent as JSON null (or as a bare name in a form).
func (c *Call) Null(name string) bool { return c.args[name].kind == null }

// Int is the number of an Integer parameter: 0 when it is absent or blank.
func (c *Call) Int(name string) int64 {
	n, _ := parseInt(strings.TrimSpace(c.args[name].text))
	return n
}

// Bool is the value of a Boolean parameter: false when it is absent or blank.
func (c *Call) Bool(name string) bool {
	v, _ := parseBool(c.args[name].text)
	return v
}

// Files are the uploaded files of a parameter, and n how many things were sent: files, or texts where a file should be.
func (c *Call) Files(name string) (uploads []*multipart.FileHeader, n int) {
	v := c.args[name]
	n = len(v.files) + max(len(v.items), len(v.array))
	if v.kind == text && v.text != "" {
		n++
	}
	return v.files, n
}

// Value is an Any parameter: nil, a string, or a map[string]any.
func (c *Call) Value(name string) any {
	switch v := c.args[name]; v.kind {
	case text:
		return v.text
	case object:
		return v.raw
	case absent, null, list, files:
	}
	return nil
}

// Decode reads a JSON parameter into a value: from a member of a JSON body, or from its text. What does not fit, members
// that the value does not know among it, is a malformed body.
func (c *Call) Decode(name string, into any) error {
	v := c.args[name]
	encoded := []byte(v.text)
	if v.kind == list || v.kind == object {
		var err error
		if encoded, err = v.encode(); err != nil {
			return fmt.Errorf("decode %s: %w", name, err)
		}
	}
	if tooDeep(encoded) {
		return errMalformed
	}
	dec := json.NewDecoder(bytes.NewReader(encoded))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return errMalformed.Because(fmt.Errorf("%s: %w", name, err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errMalformed
	}
	return nil
}

// Page is the page that a route with Paginated parameters was asked for. Where they have no default, the first page has
// number 1, and a page 100 rows.
func (c *Call) Page() db.Page {
	return db.Page{Number: int(max(c.Int("page"), 1)), Size: int(cmp.Or(c.Int("limit"), 100))}
}

// Number is the value of an Integer parameter: nil when it is absent or null, 0 when it is blank.
func (c *Call) Number(name string) *int64 {
	if !c.Has(name) || c.Null(name) {
		return nil
	}
	n := c.Int(name)
	return &n
}

// UserFilter reads the filters of a list of users: uid, email, role, state, first_name, last_name, country, level, and
// range, from and to.
func (c *Call) UserFilter() db.UserFilter {
	var in struct {
		UID       *string `param:"uid"`
		Email     *string `param:"email"`
		Role      *string `param:"role"`
		State     *string `param:"state"`
		FirstName *string `param:"first_name"`
		LastName  *string `param:"last_name"`
		Country   *string `param:"country"`
		Level     *int64  `param:"level"`
		Range     string  `param:"range"`
		From      *int64  `param:"from"`
		To        *int64  `param:"to"`
	}
	c.Into(&in)
	f := db.UserFilter{
		UID: in.UID, Email: in.Email, Role: in.Role, State: in.State, FirstName: in.FirstName, LastName: in.LastName,
		Country: in.Country, Level: in.Level, Updated: in.Range == "updated", From: in.From, To: in.To,
	}
	if f.Level != nil && c.String("level") == "" {
		*f.Level = -1 // a blank level is nobody's
	}
	return f
}

// Cookies are the Cookie header lines: views, good until the call ends.
func (c *Call) Cookies() [][]byte { return c.rc.Request.Header.PeekAll(fasthttp.HeaderCookie) }

// Cookie is the value of a cookie, or empty. Of several it is the first.
func (c *Call) Cookie(name string) string {
	r := http.Request{Header: http.Header{}}
	for _, line := range c.Cookies() {
		r.Header.Add(fasthttp.HeaderCookie, string(line))
	}
	if found, err := r.Cookie(name); err == nil {
		return found.Value
	}
	return ""
}

// Head reports a call by HEAD, which may have no effect.
func (c *Call) Head() bool { return c.rc.IsHead() }

// Origin is the Origin header, or empty.
func (c *Call) Origin() string { return string(c.rc.Request.Header.Peek(fasthttp.HeaderOrigin)) }

// Host is the host that this process was asked for: the caller's, or one that a gateway has put in its place.
func (c *Call) Host() string { return string(c.rc.Host()) }

// Header is a request header, or empty.
func (c *Call) Header(name string) string { return string(c.rc.Request.Header.Peek(name)) }

// SetCookie adds a Set-Cookie header.
func (c *Call) SetCookie(text string) { c.rc.Response.Header.Add(fasthttp.HeaderSetCookie, text) }

// SetHeader sets a response header.
func (c *Call) SetHeader(name, value string) { c.rc.Response.Header.Set(name, value) }

// A HandlerFunc answers a call. What it returns as an error becomes the answer instead, by its fault.
type HandlerFunc = func(ctx context.Context, c *Call) error
