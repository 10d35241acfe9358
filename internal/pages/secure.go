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

// captchaOrigins are those from which the browser's part of a captcha comes, as the providers tell.
var captchaOrigins = map[string][]string{
	"recaptcha": {"https://www.google.com", "https://www.gstatic.com", "https://www.recaptcha.net"},
	"hcaptcha":  {"https://hcaptcha.com", "https://*.hcaptcha.com"},
	"turnstile": {"https://challenges.cloudflare.com"},
	"geetest":   {"https://*.geetest.com"},
}

// A Header is a field of an answer.
type Header struct{ Name, Value string }

// Headers are those of every page, widened by what a kind of captcha (BARONG_CAPTCHA) needs.
func Headers(captcha string) []Header {
	return []Header{
		{"Content-Security-Policy", widened(captchaOrigins[captcha])},
		{"Referrer-Policy", "no-referrer"},
		{"X-Content-Type-Options", "nosniff"},
		{"Cross-Origin-Opener-Policy", "same-origin"},
		{"Permissions-Policy", permissions},
	}
}

// widened is the policy with the origins of a captcha wherever it may load something from, and in a frame.
func widened(origins []string) string {
	if len(origins) == 0 {
		return policy
	}
	var all []string
	for directive := range strings.SplitSeq(policy, "; ") {
		switch name, _, _ := strings.Cut(directive, " "); name {
		case "script-src", "style-src", "img-src", "connect-src":
			directive += " " + strings.Join(origins, " ")
		case "form-action":
			all = append(all, "frame-src "+strings.Join(origins, " "))
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
