package pages

import (
	"bytes"
	"compress/gzip"
	"io"
	"mime"
	"path"
	"strings"

	"github.com/swaggest/swgui/v5/static"
	"github.com/valyala/fasthttp"
)

// DocsPath is the address of the page about the API.
const DocsPath = "/docs"

const docsPage = `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Barong</title>` +
	`<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" type="image/png" href="/docs/favicon-32x32.png">` +
	`<link rel="stylesheet" href="/docs/swagger-ui.css"></head><body><main id="swagger-ui"></main>` +
	`<script src="/docs/swagger-ui-bundle.js"></script><script src="/docs/swagger-ui-standalone-preset.js"></script>` +
	`<script src="/docs/start.js"></script></body></html>`

// Docs serves the page about the API that a document at an address describes, and what belongs to it, all of it by itself.
// It answers requests whose path is DocsPath or below it.
func Docs(document string) fasthttp.RequestHandler {
	headers := Headers("")
	start := []byte(`window.onload = function () { window.ui = SwaggerUIBundle({ url: "` + document + `", dom_id: "#swagger-ui", ` +
		`deepLinking: true, layout: "StandaloneLayout", showExtensions: true, validatorUrl: null, ` +
		`presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset] }); };`)
	return func(rc *fasthttp.RequestCtx) {
		secure(rc, headers)
		h := &rc.Response.Header
		target, _, _ := bytes.Cut(rc.Request.Header.RequestURI(), []byte("?"))
		switch name := strings.Trim(strings.TrimPrefix(string(target), DocsPath), "/"); name {
		case "":
			h.SetContentType("text/html; charset=utf-8")
			h.Set(fasthttp.HeaderCacheControl, "no-store")
			rc.SetBodyString(docsPage)
		case "start.js":
			h.SetContentType("text/javascript; charset=utf-8")
			rc.SetBody(start)
		default:
			if !sendStatic(rc, name) {
				rc.SetStatusCode(fasthttp.StatusNotFound)
				rc.SetBodyString("Not found")
			}
		}
	}
}

// sendStatic sends a file of Swagger UI, compressed as it is kept when the browser takes it so.
func sendStatic(rc *fasthttp.RequestCtx, name string) bool {
	h := &rc.Response.Header
	plain, err := static.FS.ReadFile(name)
	if err != nil {
		if plain, err = static.FS.ReadFile(name + ".gz"); err != nil {
			return false
		}
		h.Set(fasthttp.HeaderVary, fasthttp.HeaderAcceptEncoding)
		if accepts(string(rc.Request.Header.Peek(fasthttp.HeaderAcceptEncoding)), "gzip") {
			h.Set(fasthttp.HeaderContentEncoding, "gzip")
		} else {
			reader, err := gzip.NewReader(bytes.NewReader(plain))
			if err != nil {
				return false
			}
			if plain, err = io.ReadAll(reader); err != nil {
				return false
			}
		}
	}
	h.SetContentType(mime.TypeByExtension(path.Ext(name)))
	h.Set(fasthttp.HeaderCacheControl, "public, max-age=3600")
	rc.SetBody(plain)
	return true
}
