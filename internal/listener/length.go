package listener

import (
	"bytes"
	"reflect"
	"unsafe"

	"github.com/valyala/fasthttp"
)

// fasthttp waits for the first bytes of a body whose length it knows, before the handler may see the headers: whoever sends
// none is told nothing. It does not of one whose length it does not know. So the length is kept from it until the handler
// begins.

// hideLength makes a body of a known length one of an unknown length.
func hideLength(h *fasthttp.RequestHeader) { h.SetContentLength(chunkedBody) }

// restoreLength undoes hideLength, before anything was read of the body.
func restoreLength(ctx *fasthttp.RequestCtx) {
	h := &ctx.Request.Header
	if h.ContentLength() != chunkedBody {
		return
	}
	length := sentLength(h.RawHeaders())
	if length < 0 {
		return
	}
	h.SetContentLength(length)
	// What is known of the length nowhere else: the stream took it over when it was made.
	stream := reflect.ValueOf(ctx.RequestBodyStream()).Elem().FieldByName("contentLength")
	*(*int)(unsafe.Pointer(stream.UnsafeAddr())) = length
}

var (
	nameContentLength    = []byte("content-length")
	nameTransferEncoding = []byte("transfer-encoding")
)

// sentLength is the length of a body as a header block tells it; -1 when it does not, or tells of a coding as well.
func sentLength(block []byte) int {
	length := -1
	for len(block) > 0 {
		line, rest, _ := bytes.Cut(block, []byte("\n"))
		block = rest
		name, value, ok := bytes.Cut(line, []byte(":"))
		switch {
		case !ok:
		case bytes.EqualFold(name, nameTransferEncoding):
			return -1
		case bytes.EqualFold(name, nameContentLength):
			n, err := fasthttp.ParseUint(bytes.TrimSpace(value))
			if err != nil {
				return -1
			}
			length = n
		}
	}
	return length
}
