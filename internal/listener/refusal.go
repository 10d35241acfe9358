package listener

import (
	"strconv"

	"github.com/valyala/fasthttp"

	"barong/internal/fault"
)

// Header names and values of refusals, in the spelling that goes on the wire.
var (
	nameCacheControl = []byte("Cache-Control")
	nameAuthStatus   = []byte("X-Auth-Status")
	nameAuthCode     = []byte("X-Auth-Code")

	valueNoStore = []byte("no-store")
	valueJSON    = []byte("application/json")
)

// WriteRefusal makes the answer a refusal with one code, which nobody may keep. It leaves headers that are there already.
func WriteRefusal(ctx *fasthttp.RequestCtx, status int, code fault.Code) {
	ctx.Response.Header.SetCanonical(nameCacheControl, valueNoStore)
	ctx.Response.Header.SetContentTypeBytes(valueJSON)
	ctx.Response.SetStatusCode(status)
	// Codes are our own constants, of letters, dots and underscores.
	ctx.Response.AppendBodyString(`{"errors":["`)
	ctx.Response.AppendBodyString(string(code))
	ctx.Response.AppendBodyString(`"]}`)
}

// Refuse replaces whatever the answer was by a refusal. A connection that was to close closes.
func Refuse(ctx *fasthttp.RequestCtx, status int, code fault.Code) {
	closing := ctx.Response.ConnectionClose()
	ctx.Response.Reset()
	if closing {
		ctx.SetConnectionClose()
	}
	WriteRefusal(ctx, status, code)
}

// RepeatStatus repeats status and code of an answer in headers, where nginx can read them: its auth_request hands neither
// the status nor the body on. No code is repeated where there is none.
func RepeatStatus(ctx *fasthttp.RequestCtx, status int, code fault.Code) {
	var digits [4]byte
	ctx.Response.Header.SetCanonical(nameAuthStatus, strconv.AppendInt(digits[:0], int64(status), 10))
	if code != "" {
		ctx.Response.Header.SetBytesK(nameAuthCode, string(code))
	}
}
