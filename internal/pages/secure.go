// Package pages serves what people look at: the pages of the portal and of the console, which package web makes, the page
// about a refused request, and the page about the API. It owns the headers under which a browser runs any of them.
package pages

import (
	"strings"

	"github.com/valyala/fasthttp"
)

// policy is the Content-Security-Policy of every page: nothing from elsewhere, nothing inline, no frame around it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// permissions is the Permissions-Policy of every page: passkeys are its own business, and no page needs what else a browser
// can ask its user for.
const permissions = "camera=(), display-capture=(), geolocation=(), hid=(), microphone=(), midi=(), payment=(), serial=(), usb=(), " +
	"publickey-credentials-create=(self), publickey-credentials-get=(self)"

// captchaSources are what the browser's part of a captcha loads, by directive, as the providers tell: no more of a provider than
// that. Google's host has answers that run as a script whatever they are asked for, so that it is let in by its path.
var captchaSources = map[string]map[string]string{
	"recaptcha": {
		"script-src":  "https://www.google.com/recaptcha/ https://www.gstatic.com/recaptcha/",
		"img-src":     "https://www.gstatic.com/recaptcha/",
		"connect-src": "https://www.google.com/recaptcha/",
		"frame-src":   "https://www.google.com/recaptcha/ https://recaptcha.google.com/recaptcha/",
	},
	"hcaptcha": {
		"script-src":  "https://hcaptcha.com https://*.hcaptcha.com",
		"style-src":   "https://hcaptcha.com https://*.hcaptcha.com",
		"connect-src": "https://hcaptcha.com https://*.hcaptcha.com",
		"frame-src":   "https://hcaptcha.com https://*.hcaptcha.com",
	},
	"turnstile": {"script-src": "https://challenges.cloudflare.com", "frame-src": "https://challenges.cloudflare.com"},
	"geetest": {
		"script-src": "https://*.geetest.com", "style-src": "https://*.geetest.com", "img-src": "https://*.geetest.com",
		"connect-src": "https://*.geetest.com",
	},
}

// A Header is a field of an answer.
type Header struct{ Name, Value string }

// Headers are those of every page, widened by what a kind of captcha (BARONG_CAPTCHA) needs.
func Headers(captcha string) []Header {
	return []Header{
		{"Content-Security-Policy", widened(captchaSources[captcha])},
		{"Referrer-Policy", "no-referrer"},
		{"X-Content-Type-Options", "nosniff"},
		{"Cross-Origin-Opener-Policy", "same-origin"},
		{"Permissions-Policy", permissions},
	}
}

// widened is the policy with what a captcha loads.
func widened(sources map[string]string) string {
	if len(sources) == 0 {
		return policy
	}
	var all []string
	for directive := range strings.SplitSeq(policy, "; ") {
		name, _, _ := strings.Cut(directive, " ")
		if more := sources[name]; more != "" {
			directive += " " + more
		}
		if more := sources["frame-src"]; more != "" && name == "form-action" { // pages have no frames without it
			all = append(all, "frame-src "+more)
		}
		all = append(all, directive)
	}
	return strings.Join(all, "; ")
}

// secure sets the headers.
func secure(rc *fasthttp.RequestCtx, headers []Header) {
	for _, h := range headers {
		rc.Response.Header.Set(h.Name, h.Value)
	}
}
