package envoy

import (
	"bytes"

	"github.com/valyala/fasthttp"

	"barong/authz"
	"barong/internal/header"
)

// nameFraming is the header in which a gateway that does not hand the client's Content-Length on says how the client's
// request is framed: the version of HTTP, and behind a space its Content-Length, or its Transfer-Encoding, or nothing, or a
// dash: "HTTP/1.1 17", "HTTP/1.1 chunked", "HTTP/2.0 -". It is believed from trusted peers only.
var nameFraming = header.NewName("x-original-framing")

// A framing is what is known of how the client's request is framed.
type framing struct {
	value []byte
	lines int
}

// content says whether the client's request has a body. In HTTP/1 one that is not framed has none; in later versions only
// its end shows that.
func (f *framing) content() authz.Content {
	if f.lines != 1 {
		return authz.UnknownContent
	}
	version, length, _ := bytes.Cut(f.value, []byte(" "))
	switch length = header.TrimSpace(length); {
	case len(length) > 0 && len(bytes.Trim(length, "0")) == 0:
		return authz.NoContent
	case len(length) > 0 && string(length) != "-":
		return authz.HasContent
	case bytes.HasPrefix(version, []byte("HTTP/1.")):
		return authz.NoContent
	}
	return authz.UnknownContent
}

// framed reports whether a request has a body.
func framed(h *fasthttp.RequestHeader) bool {
	n := h.ContentLength()
	return n > 0 || n == -1
}
