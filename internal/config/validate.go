package config

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"

	"barong/internal/crypto/secret"
	"barong/internal/trusted"
)

// defaultPasswords are those that examples and the original's documents use.
var defaultPasswords = []string{"changeme", "admin", "password", "secret", "barong", "guest", "postgres", "0lDHd9ufs9t@"}

// Validate refuses combinations that "barong serve" must not start with. The error is an *Error that lists all of them.
func (c *Config) Validate() error {
	var problems []string
	refuse := func(when bool, format string, args ...any) {
		if !when {
			return
		}
		for i, a := range args {
			if text, ok := a.(string); ok {
				args[i] = secret.Redact(text)
			}
		}
		line := fmt.Sprintf(format, args...)
		for _, name := range variable.FindAllString(line, -1) {
			if c.bad[name] { // what it would be is not known, and Load has told of it
				return
			}
		}
		problems = append(problems, line)
	}
	twilio := strings.HasPrefix(c.PhoneVerification, "twilio_")
	refuse(twilio && c.TwilioAccountSID == "", "BARONG_PHONE_VERIFICATION=%s needs BARONG_TWILIO_ACCOUNT_SID", c.PhoneVerification)
	refuse(twilio && c.TwilioAuthToken == "", "BARONG_PHONE_VERIFICATION=%s needs BARONG_TWILIO_AUTH_TOKEN", c.PhoneVerification)
	refuse(c.PhoneVerification == "twilio_sms" && c.TwilioPhoneNumber == "", "BARONG_PHONE_VERIFICATION=twilio_sms needs BARONG_TWILIO_PHONE_NUMBER")
	refuse(c.CORSAllowCredentials && slices.Contains(c.CORSOrigins, "*"),
		"BARONG_API_CORS_ALLOW_CREDENTIALS=true is not allowed together with BARONG_API_CORS_ORIGINS=*: name the origins")
	const drop = "browsers refuse such a cookie otherwise"
	refuse(c.CookieSameSite == "none" && c.CookieSecure != "true", "BARONG_COOKIE_SAMESITE=none needs BARONG_COOKIE_SECURE=true: %s", drop)
	hostOnly := strings.HasPrefix(c.SessionName, "__Host-")
	refuse((hostOnly || strings.HasPrefix(c.SessionName, "__Secure-")) && c.CookieSecure != "true",
		"BARONG_SESSION_NAME=%s needs BARONG_COOKIE_SECURE=true: %s", c.SessionName, drop)
	refuse(hostOnly && c.CookieDomain != "", "BARONG_SESSION_NAME=%s needs an empty BARONG_COOKIE_DOMAIN: %s", c.SessionName, drop)
	refuse(c.APIKeyReplay == "shared" && c.RedisURL == "", "BARONG_APIKEY_REPLAY=shared needs BARONG_REDIS_URL")
	refuse(c.StorageProvider != "local" && (c.StorageAccessKey == "" || c.StorageSecretKey == ""),
		"BARONG_STORAGE_PROVIDER=%s needs BARONG_STORAGE_ACCESS_KEY and BARONG_STORAGE_SECRET_KEY", c.StorageProvider)
	refuse(c.StorageProvider != "local" && c.StorageBucketName == "", "BARONG_STORAGE_PROVIDER=%s needs BARONG_STORAGE_BUCKET_NAME",
		c.StorageProvider)
	refuse(c.StorageProvider == "alicloud" && c.StorageEndpoint == "" && c.StorageRegion == "",
		"BARONG_STORAGE_PROVIDER=alicloud needs BARONG_STORAGE_ENDPOINT or BARONG_STORAGE_REGION")
	refuse(c.TOTPVaultURL != "" && c.TOTPVaultToken == "", "BARONG_TOTP_VAULT_URL needs BARONG_TOTP_VAULT_TOKEN")
	refuse(c.Mailer == "off" && c.BrokerURL() == "",
		"BARONG_MAILER=off needs BARONG_EVENT_API_RABBITMQ_URL: nobody would hear whom to send a confirmation mail")
	listeners := map[string]string{}
	for _, l := range []struct{ name, addr string }{
		{"BARONG_HTTP_ADDR", c.HTTPAddr}, {"BARONG_CHECK_ADDR", c.CheckAddr}, {"BARONG_GRPC_ADDR", c.GRPCAddr}, {"BARONG_OPS_ADDR", c.OpsAddr},
	} {
		other, taken := listeners[l.addr]
		refuse(l.addr != "" && taken && !strings.HasSuffix(l.addr, ":0"), "%s and %s are both %s", other, l.name, l.addr)
		listeners[l.addr] = l.name
	}
	if c.Production() {
		const in = "BARONG_ENV=production: "
		refuse(c.GeneratedKeys(), in+"set BARONG_JWT_PRIVATE_KEY_PATH; a signing key is generated in development only")
		refuse(c.SecretKey == "", in+"set BARONG_SECRET_KEY; a secret key is generated in development only")
		refuse(c.PhoneVerification == "mock", in+"BARONG_PHONE_VERIFICATION=mock is for development only; allowed are twilio_sms, "+
			"twilio_verify and none, which does without phones")
		refuse(slices.Contains(othersDomains, host(c.Domain)),
			in+"BARONG_DOMAIN=%s is somebody else's, and links in mails would lead there; set your own", c.Domain)
		_, sender, _ := strings.Cut(c.SenderEmail, "@")
		refuse(slices.Contains(othersDomains, strings.ToLower(sender)),
			in+"BARONG_SENDER_EMAIL=%s is somebody else's; set an address of your own", c.SenderEmail)
		refuse(c.CookieSecure == "false", in+"BARONG_COOKIE_SECURE=false would send sessions in clear; allowed are auto and true")
		refuse(slices.Contains(defaultPasswords, c.AdminPassword.Reveal()), in+"ADMIN_PASSWORD is one of the well-known ones")
		refuse(c.EventURL == "" && c.BrokerURL() != "" && c.EventPassword == "guest",
			in+"BARONG_EVENT_API_RABBITMQ_PASSWORD is the default one")
		key, _ := c.captchaSecret()
		refuse(c.Captcha != "none" && key == "", in+"BARONG_CAPTCHA=%s needs its keys", c.Captcha)
	}
	if problems != nil {
		return &Error{Problems: problems}
	}
	return nil
}

// variable finds the names of settings in a line.
var variable = regexp.MustCompile(`[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|PORT`)

// othersDomains are those of the defaults, which belong to the original's makers.
var othersDomains = []string{"openware.com", "www.openware.com", "barong.io", "www.barong.io"}

// host is the host of a domain as BARONG_DOMAIN may hold it: with a scheme, a port, a path or none of them.
func host(domain string) string {
	if _, rest, ok := strings.Cut(domain, "://"); ok {
		domain = rest
	}
	if end := strings.IndexAny(domain, "/?#"); end >= 0 {
		domain = domain[:end]
	}
	if h, _, err := net.SplitHostPort(domain); err == nil {
		domain = h
	}
	return strings.ToLower(strings.TrimSuffix(domain, "."))
}

// password is the one in a URL's user part.
func password(raw string) string {
	_, rest, _ := strings.Cut(raw, "://")
	at := strings.LastIndexByte(rest, '@')
	if at < 0 {
		return ""
	}
	_, p, _ := strings.Cut(rest[:at], ":")
	return p
}

// captchaSecret is the secret key of the chosen kind of captcha, and the variable that holds it.
func (c *Config) captchaSecret() (key, name string) {
	switch c.Captcha {
	case "recaptcha":
		return c.RecaptchaSecretKey.Reveal(), "BARONG_RECAPTCHA_SECRET_KEY"
	case "hcaptcha":
		return c.HCaptchaSecretKey.Reveal(), "BARONG_HCAPTCHA_SECRET_KEY"
	case "turnstile":
		return c.TurnstileSecretKey.Reveal(), "BARONG_TURNSTILE_SECRET_KEY"
	case "geetest":
		return c.GeetestKey.Reveal(), "BARONG_GEETEST_KEY"
	}
	return "", ""
}

// warnOfSettings warns of what is allowed but hardly meant.
func (l *loader) warnOfSettings() {
	c := l.c
	if key, name := c.captchaSecret(); c.Captcha != "none" && key == "" {
		l.warn("BARONG_CAPTCHA=%s without %s refuses every captcha", c.Captcha, name)
	}
	if c.Captcha != "none" && c.Source("captcha_protected_endpoints") == fromDefault {
		protected := "nothing is protected, as in the original"
		if len(c.CaptchaProtectedEndpoints) > 0 {
			protected = "protected are " + strings.Join(c.CaptchaProtectedEndpoints, ", ")
		}
		l.warn("captcha_protected_endpoints is not set in the configuration's file, where its first letter is often a Cyrillic с "+
			"(U+0441) instead of c: %s", protected)
	}
	for _, p := range c.TrustedProxies.Networks() {
		if p.Bits() == 0 {
			l.warn("BARONG_TRUSTED_PROXIES has %s: everybody may then claim to be anybody's gateway", p)
		}
	}
	if len(c.CORSOrigins) > 1 && slices.Contains(c.CORSOrigins, "*") {
		l.warn("BARONG_API_CORS_ORIGINS has a *: the other origins have no effect")
	}
	if c.Production() {
		if _, domain, _ := strings.Cut(c.AdminEmail, "@"); slices.Contains(othersDomains, strings.ToLower(domain)) && c.SeedsFile == "" {
			l.warn("ADMIN_EMAIL=%s is somebody else's: whoever has that mailbox can reset the first superadmin's password", c.AdminEmail)
		}
		if c.SMTPTLS == "off" && c.SMTPUser != "" && !trusted.Loopback(c.SMTPHost) {
			l.warn("BARONG_SMTP_TLS=off sends BARONG_SMTP_PASSWORD and all mail in clear")
		}
		if slices.Contains(defaultPasswords, password(c.DatabaseURL.Reveal())) {
			l.warn("BARONG_DATABASE_URL has one of the well-known passwords")
		}
		if !c.CSRFProtection {
			l.warn("BARONG_CSRF_PROTECTION=false lets other sites act for people who are signed in")
		}
		if c.RateLimits == "off" {
			l.warn("BARONG_RATE_LIMITS=off lets anybody guess passwords and codes without end")
		}
		if !onThisMachine(c.OpsAddr) {
			l.warn("BARONG_OPS_ADDR=%s is open to other machines: metrics and profiles are for operators alone", c.OpsAddr)
		}
	}
}

// onThisMachine reports whether other machines cannot reach a listener: it is on a loopback address or a unix socket, or
// there is none.
func onThisMachine(listen string) bool {
	if listen == "" || strings.HasPrefix(listen, "unix:") {
		return true
	}
	host, _, err := net.SplitHostPort(listen)
	return err == nil && trusted.Loopback(host)
}
