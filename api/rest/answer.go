package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"barong/db"
	"barong/internal/fault"
	"barong/internal/reqid"
)

// status is what a success of the route answers.
func (c *Call) status() int {
	if c.Legacy && c.Route.Legacy != 0 {
		return c.Route.Legacy
	}
	return c.Route.Success
}

// Answer sends v as JSON with the route's success status; a 204 has no body.
func (c *Call) Answer(v any) error {
	st := c.status()
	c.rc.SetStatusCode(st)
	if st == fasthttp.StatusNoContent {
		return nil
	}
	return c.json(v)
}

// Done answers a call that has no object of its own: the bare number of the status, as the original's clients know it,
// or nothing with a 204.
func (c *Call) Done() error { return c.Answer(c.status()) }

// AnswerPage sends one page of a list and describes it in the headers Total, Per-Page, Page and Link (RFC 8288). Links are
// references of a query alone: what they are relative to is the address that the client used, which gateways rewrite.
func (c *Call) AnswerPage(rows any, total int64) error {
	page := c.Page()
	h := &c.rc.Response.Header
	h.Set("Total", strconv.FormatInt(total, 10))
	h.Set("Per-Page", strconv.Itoa(page.Size))
	h.Set("Page", strconv.Itoa(page.Number))
	if links := c.links(page, total); links != "" {
		h.Set(fasthttp.HeaderLink, links)
	}
	return c.Answer(rows)
}

func (c *Call) links(page db.Page, total int64) string {
	last := int((total + int64(page.Size) - 1) / int64(page.Size))
	query, err := url.ParseQuery(string(c.rc.URI().QueryString()))
	if err != nil {
		return "" // readArgs has refused such a query already
	}
	var out []string
	link := func(number int, rel string) {
		query.Set("page", strconv.Itoa(number))
		out = append(out, fmt.Sprintf(`<?%s>; rel=%q`, query.Encode(), rel))
	}
	if page.Number > 1 {
		link(1, "first")
		link(page.Number-1, "prev")
	}
	if page.Number < last {
		link(last, "last")
		link(page.Number+1, "next")
	}
	return strings.Join(out, ", ")
}

// Redirect sends the browser elsewhere, with the route's success status.
func (c *Call) Redirect(location string) error {
	c.rc.SetStatusCode(c.status())
	c.rc.Response.Header.Set(fasthttp.HeaderLocation, location)
	return nil
}

// Told is the code of a refusal that its receiver is told otherwise than by an answer that is an error. The log has the
// cause, as of any other.
func (c *Call) Told(err error) fault.Code {
	f := toFault(err)
	c.server.logRefusal(reqid.With(c.server.Base, requestID(c.rc)), c.Route, f)
	if len(f.Codes) == 0 {
		return fault.InternalError
	}
	return f.Codes[0]
}

// Refuse answers with a status and a body of its own, where callers know another form than that of a fault. Whoever
// returns it must have changed nothing.
func (c *Call) Refuse(status int, body any) error {
	c.rc.SetStatusCode(status)
	return c.json(body)
}

var contentJSON = []byte("application/json")

func (c *Call) json(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the answer of %s %s: %w", c.Route.Method, c.Route.Path, err)
	}
	c.rc.Response.Header.SetContentTypeBytes(contentJSON)
	c.rc.SetBody(b)
	return nil
}

// Bytes answers with a body that is no JSON.
func (c *Call) Bytes(contentType string, body []byte) {
	c.rc.SetStatusCode(c.status())
	c.rc.Response.Header.SetContentType(contentType)
	c.rc.SetBody(body)
}

// WriteFault makes err the response, and returns the fault that the caller is told.
func WriteFault(rc *fasthttp.RequestCtx, err error) *fault.Error {
	f := toFault(err)
	rc.SetStatusCode(f.Status)
	rc.Response.Header.SetContentTypeBytes(contentJSON)
	if f.RetryAfter > 0 {
		seconds := int64((f.RetryAfter + 999_999_999) / 1_000_000_000)
		rc.Response.Header.Set(fasthttp.HeaderRetryAfter, strconv.FormatInt(seconds, 10))
	}
	var body any
	if f.Text != "" {
		body = map[string]string{"error": f.Text}
	} else {
		body = map[string][]fault.Code{"errors": f.Codes}
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil { // strings only: cannot fail
		panic("rest: encode fault: " + err.Error())
	}
	rc.SetBodyString(strings.TrimSuffix(b.String(), "\n"))
	return f
}

// toFault is fault.As, and tells an outage of the database from a defect: the former is 503 and may be tried again.
func toFault(err error) *fault.Error {
	err = db.Translate(err)
	if f := (*fault.Error)(nil); !errors.As(err, &f) && errors.Is(err, db.ErrNotFound) {
		return fault.New(fault.NotFound).Because(err)
	}
	return fault.As(err)
}
