package config

import (
	"time"

	"barong/internal/crypto/secret"
	"barong/internal/trusted"
)

// A Config is the whole configuration, as it holds after flags, environment, file and defaults were laid over each other.
// It is immutable after Load.
//
// The struct is the only place where a setting is declared: the flag, the variable, the key of the file, the reference
// page and the help all come from its tags and comments. A comment's first word, the field's name, is left out there.
//
//	env         the variable; without BARONG_ and in lower case it is the file's key, with dashes the flag
//	alias       further variables that are read when env is not set, in this order
//	file        a key of the file alone, for what does not fit into a variable; its default is YAML
//	default     the text that holds when nothing is given
//	production  the default under BARONG_ENV=production, where that differs
//	compat      the default under BARONG_COMPAT=2.4.17, where that differs
//	oneof       the allowed words, separated by spaces; of a list, the allowed items
//	kind        a named form of text (see kinds); a question mark behind it allows the empty text
//	unit        what a bare number of a duration counts: "ms", "s", "m"; then only whole numbers are allowed
//	min, max    bounds of a number, in the unit
//	needs       when the setting is used: "NAME" when that one is not empty, "!NAME" when it is not given, "NAME=a b" when
//	            it is one of the words. What is not used is not judged
//	reload      "true": a change is taken up by a running server; see Config.Reloads
//	group       begins a group of settings
type Config struct {
	// Env is where the program runs. production refuses to start with what is only good for development: generated
	// keys, mock phone verification, default secrets, cookies without Secure. RAILS_ENV=production alone means production.
	Env string `group:"Service" env:"BARONG_ENV" default:"development" oneof:"development production"`
	// Compat chooses whose statuses and bodies are answered: those of the API reference, or those of the original's last
	// release.
	Compat string `env:"BARONG_COMPAT" default:"reference" oneof:"reference 2.4.17"`
	// ConfigFile is a YAML file with settings. Its keys are the variables in lower case without BARONG_, beside those of
	// the original's barong.yml, which are listed at the end of this page.
	ConfigFile string `env:"BARONG_CONFIG" default:"config/barong.yml" kind:"file?"`
	// ConfigFolder is where a file that is written as config/… is looked for when it is not there. The container image sets
	// /home/app/config, where deployments of the original mount their files.
	ConfigFolder string `env:"BARONG_CONFIG_FOLDER"`
	// AppName is the name of the service in authenticator apps and text messages.
	AppName string `env:"BARONG_APP_NAME" default:"Barong" kind:"text"`
	// Domain is where people reach the front end. Links in mails begin with it, with https:// before it unless it names a
	// scheme, and events carry it. Production wants your own.
	Domain string `env:"BARONG_DOMAIN" default:"openware.com" kind:"text"`
	// UIDPrefix begins the ids of users; ten hexadecimal digits follow.
	UIDPrefix string `env:"BARONG_UID_PREFIX" default:"ID" kind:"letters"`
	// APIPrefix is the path under which gateways publish the REST API: what permission rules see.
	APIPrefix string `env:"BARONG_API_PREFIX" default:"api/v2/barong" kind:"path"`

	// HTTPAddr is the listener of the check endpoints and the REST API. The container image sets 0.0.0.0:8080.
	HTTPAddr string `group:"Listeners" env:"BARONG_HTTP_ADDR" default:"127.0.0.1:8080" kind:"listen"`
	// Port replaces the port of BARONG_HTTP_ADDR, and nothing else of it; a flag --http-addr wins over it.
	Port string `env:"PORT" kind:"port?"`
	// CheckAddr is a listener of its own for the check endpoints alone. Nothing else can answer there, least of all with
	// a 200, and the main listener then refuses checks. Recommended in production. Empty: none.
	CheckAddr string `env:"BARONG_CHECK_ADDR" kind:"listen?"`
	// GRPCAddr is the listener of Envoy's gRPC ext_authz and of gRPC health. Empty turns it off.
	GRPCAddr string `env:"BARONG_GRPC_ADDR" default:"127.0.0.1:9191" kind:"listen?"`
	// OpsAddr is the listener of /livez, /readyz, /metrics and /debug/pprof. Empty turns it off.
	OpsAddr string `env:"BARONG_OPS_ADDR" default:"127.0.0.1:9090" kind:"listen?"`
	// DrainTime is how long a stop (SIGTERM) goes on taking requests, while /readyz answers 503 and every answer closes its
	// connection: until gateways and load balancers have noticed. It should be longer than they take for that. What is under
	// way then has eight seconds more; a second signal ends both waits.
	DrainTime time.Duration `env:"BARONG_DRAIN_TIME" default:"3s" max:"600"`

	// DatabaseURL is where the rows live: sqlite://path, or postgres://user:password@host/database?sslmode=…. A path begins
	// with a slash if it is absolute, and may be percent-encoded.
	DatabaseURL secret.URL `group:"Stores" env:"BARONG_DATABASE_URL" reload:"login" default:"sqlite://data/barong.db" kind:"database"`
	// DatabaseAdapter is read with the five below, as the original used them, when BARONG_DATABASE_URL is not set and one of
	// them is. Databases of the original on MySQL are brought in with "barong import".
	DatabaseAdapter string `env:"DATABASE_ADAPTER" kind:"adapter?" needs:"!BARONG_DATABASE_URL"`
	// DatabaseHost is the host of the Postgres server.
	DatabaseHost string `env:"DATABASE_HOST" default:"127.0.0.1" kind:"dbhost" needs:"!BARONG_DATABASE_URL"`
	// DatabasePort is the port of the Postgres server.
	DatabasePort string `env:"DATABASE_PORT" default:"5432" kind:"port" needs:"!BARONG_DATABASE_URL"`
	// DatabaseUser is the user to connect as.
	DatabaseUser string `env:"DATABASE_USER" reload:"true" default:"postgres" kind:"name" needs:"!BARONG_DATABASE_URL"`
	// DatabasePass is the password of DATABASE_USER.
	DatabasePass secret.Text `env:"DATABASE_PASS" reload:"true" needs:"!BARONG_DATABASE_URL"`
	// DatabaseName is the name of the database.
	DatabaseName string `env:"DATABASE_NAME" default:"barong_production" kind:"name" needs:"!BARONG_DATABASE_URL"`
	// RedisURL is where sessions, counters and notices live: redis://, rediss://, redis+cluster://h1:p1,h2:p2 or
	// redis+sentinel://h1:p1,h2:p2/master. Empty: the database keeps sessions.
	RedisURL secret.URL `env:"BARONG_REDIS_URL" reload:"login" kind:"redis?"`
	// RedisTimeout is how long an answer of Redis is waited for; asked for once more, it takes at most twice as long. A check
	// gives its stores half a second in all, so it should stay at or below 250ms, and above twice the time to Redis and back.
	RedisTimeout time.Duration `env:"BARONG_REDIS_TIMEOUT" default:"250ms" max:"60"`
	// SecretKey seals API-key secrets, second-factor secrets and personal data at rest: 32 random bytes in base64
	// (openssl rand -base64 32). Several keys are separated by commas, the newest first; one with "next:" before it opens and does
	// not seal yet. See "barong secrets rotate --help".
	// Empty, in development: generated into data/secret.key.
	SecretKey secret.Text `env:"BARONG_SECRET_KEY" reload:"keys" kind:"keys?"`

	// JWTPrivateKeyPath is the PEM file of the signing key, or a folder of such files, for rotation. The default folder is
	// filled by the first start in development.
	JWTPrivateKeyPath string `group:"Tokens" env:"BARONG_JWT_PRIVATE_KEY_PATH" alias:"JWT_PRIVATE_KEY_PATH" default:"data/jwt/" kind:"place"`
	// JWTAlgorithm is the signature algorithm; the signing key must fit it.
	JWTAlgorithm string `env:"BARONG_JWT_ALGORITHM" alias:"JWT_ALGORITHM" default:"RS256" oneof:"RS256 ES256 EdDSA"`
	// JWTExpireTime is the life of a gateway token.
	JWTExpireTime time.Duration `env:"BARONG_JWT_EXPIRE_TIME" default:"300" unit:"s" min:"1"`
	// MailTokenExpireTime is the life of a confirmation or reset token.
	MailTokenExpireTime time.Duration `env:"BARONG_MAIL_TOKEN_EXPIRE_TIME" default:"3600" unit:"s" min:"1"`
	// JWTReuse is the share of its life during which one signed token may be handed out again for the same session or
	// key. 0 signs on every check.
	JWTReuse float64 `env:"BARONG_JWT_REUSE" default:"0.5" min:"0" max:"0.95"`
	// JWTIssuer is the issuer that tokens carry, and must carry to be accepted.
	JWTIssuer string `env:"BARONG_JWT_ISSUER" alias:"JWT_ISSUER" default:"barong" kind:"text"`
	// JWTAudience is the audience that tokens carry; one that is accepted must name at least one of it.
	JWTAudience []string `env:"BARONG_JWT_AUDIENCE" alias:"JWT_AUDIENCE" default:"peatio,barong" min:"1"`
	// JWTDefaultLeeway is the tolerance for clocks that differ, where none of the three below is set.
	JWTDefaultLeeway time.Duration `env:"BARONG_JWT_DEFAULT_LEEWAY" alias:"JWT_DEFAULT_LEEWAY" default:"0" unit:"s" max:"3600"`
	// JWTIssuedAtLeeway is how far in the future a token may have been issued, by a replica whose clock is ahead; default:
	// BARONG_JWT_DEFAULT_LEEWAY if that is set, else 90.
	JWTIssuedAtLeeway time.Duration `env:"BARONG_JWT_ISSUED_AT_LEEWAY" alias:"JWT_ISSUED_AT_LEEWAY" unit:"s" max:"3600"`
	// JWTExpirationLeeway is how long ago a token may have expired; default: BARONG_JWT_DEFAULT_LEEWAY.
	JWTExpirationLeeway time.Duration `env:"BARONG_JWT_EXPIRATION_LEEWAY" alias:"JWT_EXPIRATION_LEEWAY" unit:"s" max:"3600"`
	// JWTNotBeforeLeeway is how far ahead a token's beginning may lie; default: BARONG_JWT_DEFAULT_LEEWAY if that is set, else
	// 90.
	JWTNotBeforeLeeway time.Duration `env:"BARONG_JWT_NOT_BEFORE_LEEWAY" alias:"JWT_NOT_BEFORE_LEEWAY" unit:"s" max:"3600"`

	// SessionName is the name of the session's cookie.
	SessionName string `group:"Sessions" env:"BARONG_SESSION_NAME" default:"_barong_session" kind:"token"`
	// SessionExpireTime is the sliding life of a session: without a request for so long it ends.
	SessionExpireTime time.Duration `env:"BARONG_SESSION_EXPIRE_TIME" default:"1800" unit:"s" min:"1"`
	// SessionMaxAge is the absolute life of a session, however busy it is.
	SessionMaxAge time.Duration `env:"BARONG_SESSION_MAX_AGE" default:"86400" unit:"s" min:"1"`
	// SessionBind is what a session is tied to: a cookie shown from elsewhere is refused. Of an item that ends in :log it is
	// only logged, and counted in the metric barong_session_mismatches_total. Empty ties it to nothing.
	SessionBind []string `env:"BARONG_SESSION_BIND" default:"user_agent,ip" oneof:"user_agent ip user_agent:log ip:log"`
	// SessionCacheTTL is the longest time that a replica may trust what it remembers of a session when it hears nothing
	// from the others.
	SessionCacheTTL time.Duration `env:"BARONG_SESSION_CACHE_TTL" default:"5s" max:"3600"`
	// SessionCacheMemory is how many MiB a replica may use for the sessions, users and API keys that it remembers, with their
	// tokens: 1.5 KiB each, of which four fifths are sessions. The least recently used give way, and are read again by their
	// next check. The whole process needs some 40 MiB besides, and up to twice as much while many are new.
	SessionCacheMemory int `env:"BARONG_SESSION_CACHE_MEMORY" default:"1920" min:"16" max:"1048576"`
	// CookieSecure is whether the cookie is sent over https only. auto: when the request came over https.
	CookieSecure string `env:"BARONG_COOKIE_SECURE" default:"auto" oneof:"auto true false"`
	// CookieSameSite is the cookie's SameSite attribute.
	CookieSameSite string `env:"BARONG_COOKIE_SAMESITE" default:"lax" oneof:"lax strict none" fold:"true"`
	// CookieDomain is the cookie's Domain attribute. Empty: the host that set it, and no other.
	CookieDomain string `env:"BARONG_COOKIE_DOMAIN" kind:"hostname?"`
	// CSRFProtection demands the X-CSRF-Token header of requests with a cookie that may change something.
	CSRFProtection bool `env:"BARONG_CSRF_PROTECTION" default:"true"`
	// LoginURL is where browsers (GET or HEAD, Accept: text/html) without a session are sent by forward-auth, and by Envoy
	// where it passes the header accept on: an address, or a path on the host that was asked for. The parameter rd names
	// what was asked for. Others get the error as JSON. Empty: browsers get it too. Default: /accounts/signin with
	// BARONG_PORTAL=on, as long as that page passes the check.
	LoginURL string `env:"BARONG_LOGIN_URL" kind:"link?"`

	// Portal is whether the pages for people are served: those of the portal below /accounts/ (sign-in, sign-up, one's own
	// account), and those of the console. off removes both, and browsers are told of refusals in JSON as programs are.
	Portal string `group:"Pages" env:"BARONG_PORTAL" default:"on" oneof:"on off"`
	// Console is whether the pages for staff are served, below /console/. What they may do there, permissions say.
	Console string `env:"BARONG_CONSOLE" default:"on" oneof:"on off" needs:"BARONG_PORTAL=on"`
	// PortalLogo is the picture in the header of the pages: a file .svg, .png, .jpg or .webp. Empty: none.
	PortalLogo string `env:"BARONG_PORTAL_LOGO" reload:"no" kind:"file?" needs:"BARONG_PORTAL=on"`
	// PortalCSS is a style sheet of your own, which is loaded after the built-in one. Empty: none.
	PortalCSS string `env:"BARONG_PORTAL_CSS" reload:"no" kind:"file?" needs:"BARONG_PORTAL=on"`
	// PortalLanguages is a folder of catalogues (de.json) for other languages, or for other words of the built-in ones,
	// English and Russian. Empty: these alone.
	PortalLanguages string `env:"BARONG_PORTAL_LANGUAGES" kind:"folder?" needs:"BARONG_PORTAL=on"`
	// PortalRedirects are the hosts to which people may be sent back after signing in (the parameter rd), beside the one
	// that they signed in at and those below BARONG_COOKIE_DOMAIN. One with a port allows that port alone.
	PortalRedirects []string `env:"BARONG_PORTAL_REDIRECTS" kind:"hosts" needs:"BARONG_PORTAL=on"`

	// WebauthnRPID is the domain that passkeys belong to (the RP ID of WebAuthn): that of the pages that ask for them, or a
	// parent of it. Passkeys that were made for another domain stop working. Empty: the host of BARONG_DOMAIN; where that is
	// an address, there are no passkeys.
	WebauthnRPID string `group:"Passkeys" env:"BARONG_WEBAUTHN_RP_ID" kind:"hostname?"`
	// WebauthnOrigins are the pages that may ask for passkeys. Apps for Android are written as
	// android:apk-key-hash:…. Empty: BARONG_DOMAIN with its scheme.
	WebauthnOrigins []string `env:"BARONG_WEBAUTHN_ORIGINS" kind:"pages"`

	// ProvidersFile lists the providers of OpenID Connect that people may sign in with: of each id, name, issuer, client_id,
	// client_secret or client_secret_file, scopes, sign_up, domains and trust_email; see docs/providers.md. Without it there are
	// none.
	ProvidersFile string `group:"Providers" env:"BARONG_PROVIDERS_FILE" reload:"true" default:"config/providers.yml" kind:"file?"`

	// TrustedProxies are the networks of the gateways and load balancers in front, whose X-Forwarded-* headers are
	// believed. loopback, private and cloudflare name the usual sets. The client is the rightmost address of
	// X-Forwarded-For outside of them. Empty trusts nobody.
	TrustedProxies trusted.Proxies `group:"Checks" env:"BARONG_TRUSTED_PROXIES" reload:"true" default:"loopback" compat:"cloudflare,private"`
	// Gateway is the content delivery network in front. akamai: True-Client-IP from a trusted peer names the client.
	Gateway string `env:"BARONG_GATEWAY" reload:"true" default:"cloudflare" oneof:"akamai cloudflare"`
	// AuthzRulesFile holds the paths that pass without credentials and those that nobody passes. It is read again when it
	// changes.
	AuthzRulesFile string `env:"BARONG_AUTHZ_RULES_FILE" default:"config/authz_rules.yml" kind:"file?"`
	// ManagementFile says which other services may call the management API, and for what: keychain, jwt and scopes, as in the
	// original's management_api.yml. Without it nobody may.
	ManagementFile string `env:"BARONG_MANAGEMENT_API_FILE" reload:"no" default:"config/management_api.yml" kind:"file?"`
	// CasbinModel is a Casbin model of your own for the permission rules. Empty: the built-in one, which is also the
	// fastest.
	CasbinModel string `env:"BARONG_CASBIN_MODEL" reload:"no" kind:"file?"`
	// APIKeySchemes are how calls of API keys may be signed: v1 (X-Auth-Apikey, -Nonce and -Signature, over a nonce), and
	// rfc9421 (Signature-Input and Signature, over the whole request).
	APIKeySchemes []string `env:"BARONG_APIKEY_SCHEMES" default:"v1,rfc9421" oneof:"v1 rfc9421"`
	// APIKeyNonceLifetime is how far an API key's nonce, a time in milliseconds, may be from now, or the second in which a
	// request was signed.
	APIKeyNonceLifetime time.Duration `env:"BARONG_APIKEY_NONCE_LIFETIME" default:"5000" unit:"ms" min:"1" max:"3600000"`
	// APIKeyReplay is who remembers nonces, so that a captured request works once only: nobody, each process for itself, or
	// Redis for all. Of requests that are signed whole each process remembers them at least.
	APIKeyReplay string `env:"BARONG_APIKEY_REPLAY" default:"local" compat:"off" oneof:"off local shared"`
	// MaxMindDBPath is a country database in MaxMind's format for restrictions by country and continent. Empty: a built-in
	// one.
	MaxMindDBPath string `env:"BARONG_MAXMINDDB_PATH" kind:"file?"`
	// GeoIPLang is the language in which restrictions may name countries and continents, beside English and ISO codes.
	GeoIPLang string `env:"BARONG_GEOIP_LANG" default:"en" oneof:"en de es fr ja ru"`
	// CORSOrigins are the web pages' origins that may call the REST API from a browser, or *.
	CORSOrigins []string `env:"BARONG_API_CORS_ORIGINS" reload:"true" default:"*" kind:"origins"`
	// CORSMaxAge is how long browsers may remember the answer to a preflight.
	CORSMaxAge time.Duration `env:"BARONG_API_CORS_MAX_AGE" reload:"true" default:"3600" unit:"s"`
	// CORSAllowCredentials lets those pages send the cookie along; not together with *.
	CORSAllowCredentials bool `env:"BARONG_API_CORS_ALLOW_CREDENTIALS" reload:"true" default:"false"`
	// RateLimits is whether guesses at passwords and codes are limited. off is for load tests.
	RateLimits string `env:"BARONG_RATE_LIMITS" default:"on" oneof:"on off"`

	// AdminEmail is the address of the first superadmin.
	AdminEmail string `group:"Accounts" env:"ADMIN_EMAIL" default:"admin@barong.io" kind:"email"`
	// AdminPassword is the first superadmin's password. Empty: a random one, printed once on the terminal, or else put into
	// a file below data/ that the log names.
	AdminPassword secret.Text `env:"ADMIN_PASSWORD"`
	// SeedsFile holds users, levels, permissions and restrictions for "barong seed". Without it the built-in ones hold.
	SeedsFile string `env:"BARONG_SEEDS_FILE" default:"config/seeds.yml" kind:"file?"`
	// PasswordRegexp is the form of a password. Look-ahead is supported.
	PasswordRegexp string `env:"BARONG_PASSWORD_REGEXP" default:"^(?=.*[[:lower:]])(?=.*[[:upper:]])(?=.*[[:digit:]])(?=.*[[:graph:]]).{8,80}$" kind:"text"`
	// PasswordMinEntropy is the least strength of a password, in bits.
	PasswordMinEntropy int `env:"BARONG_PASSWORD_MIN_ENTROPY" default:"14" max:"1000"`
	// PasswordUseDictionary makes passwords of common words count as weak.
	PasswordUseDictionary bool `env:"BARONG_PASSWORD_USE_DICTIONARY" default:"true"`
	// RequiredDocsExpire demands an expiry date of documents, not in the past.
	RequiredDocsExpire bool `env:"BARONG_REQUIRED_DOCS_EXPIRE" default:"true"`
	// DocNumLimit is the largest number of documents of one user.
	DocNumLimit int `env:"BARONG_DOC_NUM_LIMIT" default:"10" max:"100000"`
	// AuditKeep is how long activities are kept, which go by whole blocks of the sealed trail. 0: for ever.
	AuditKeep time.Duration `env:"BARONG_AUDIT_KEEP" default:"0"`

	// TOTPVaultURL is the Vault of the original. It is asked whether codes are right of those whose second factor an import
	// could not bring along, until they have enrolled anew. Empty: such codes are wrong.
	TOTPVaultURL string `env:"BARONG_TOTP_VAULT_URL" kind:"url?"`
	// TOTPVaultToken is a token of that Vault that may write totp/code/*.
	TOTPVaultToken secret.Text `env:"BARONG_TOTP_VAULT_TOKEN" needs:"BARONG_TOTP_VAULT_URL"`
	// TOTPVaultApp is the name under which 2.6 keeps second factors there.
	TOTPVaultApp string `env:"BARONG_TOTP_VAULT_APP" default:"barong" kind:"name" needs:"BARONG_TOTP_VAULT_URL"`

	// Captcha is the kind of puzzle in front of the endpoints that captcha_protected_endpoints names.
	Captcha string `group:"Captcha" env:"BARONG_CAPTCHA" reload:"true" default:"none" oneof:"none recaptcha geetest hcaptcha turnstile"`
	// CaptchaVerifyURL replaces the provider's verification address.
	CaptchaVerifyURL string `env:"BARONG_CAPTCHA_VERIFY_URL" reload:"true" kind:"url?" needs:"BARONG_CAPTCHA=recaptcha geetest hcaptcha turnstile"`
	// RecaptchaSiteKey is the public key for recaptcha.
	RecaptchaSiteKey string `env:"BARONG_RECAPTCHA_SITE_KEY" reload:"true" needs:"BARONG_CAPTCHA=recaptcha"`
	// RecaptchaSecretKey is the secret key for recaptcha.
	RecaptchaSecretKey secret.Text `env:"BARONG_RECAPTCHA_SECRET_KEY" reload:"true" needs:"BARONG_CAPTCHA=recaptcha"`
	// HCaptchaSiteKey is the public key for hcaptcha.
	HCaptchaSiteKey string `env:"BARONG_HCAPTCHA_SITE_KEY" reload:"true" needs:"BARONG_CAPTCHA=hcaptcha"`
	// HCaptchaSecretKey is the secret key for hcaptcha.
	HCaptchaSecretKey secret.Text `env:"BARONG_HCAPTCHA_SECRET_KEY" reload:"true" needs:"BARONG_CAPTCHA=hcaptcha"`
	// TurnstileSiteKey is the public key for turnstile.
	TurnstileSiteKey string `env:"BARONG_TURNSTILE_SITE_KEY" reload:"true" needs:"BARONG_CAPTCHA=turnstile"`
	// TurnstileSecretKey is the secret key for turnstile.
	TurnstileSecretKey secret.Text `env:"BARONG_TURNSTILE_SECRET_KEY" reload:"true" needs:"BARONG_CAPTCHA=turnstile"`
	// GeetestID is the public id for geetest.
	GeetestID string `env:"BARONG_GEETEST_ID" reload:"true" needs:"BARONG_CAPTCHA=geetest"`
	// GeetestKey is the secret key for geetest.
	GeetestKey secret.Text `env:"BARONG_GEETEST_KEY" reload:"true" needs:"BARONG_CAPTCHA=geetest"`

	// SMTPHost is the mail server. Empty: mails are written below data/outbox/.
	SMTPHost string `group:"Mail" env:"BARONG_SMTP_HOST" reload:"true" production:"localhost" kind:"hostname?"`
	// SMTPPort is the port of the mail server.
	SMTPPort string `env:"BARONG_SMTP_PORT" reload:"true" default:"1025" kind:"port" needs:"BARONG_SMTP_HOST"`
	// SMTPTLS is how the way to the mail server is encrypted. auto: from the start on port 465, else by STARTTLS when it is
	// offered. starttls: by STARTTLS, or no mail is sent. implicit: from the start. off: never.
	SMTPTLS string `env:"BARONG_SMTP_TLS" reload:"true" default:"auto" oneof:"auto starttls implicit off" fold:"true" needs:"BARONG_SMTP_HOST"`
	// SMTPUser is the user to log in as. Empty: no log-in.
	SMTPUser string `env:"BARONG_SMTP_USER" reload:"true" needs:"BARONG_SMTP_HOST"`
	// SMTPPassword is the password of BARONG_SMTP_USER.
	SMTPPassword secret.Text `env:"BARONG_SMTP_PASSWORD" reload:"true" needs:"BARONG_SMTP_HOST"`
	// SenderEmail is the address that mails come from. Production wants one of your own.
	SenderEmail string `env:"BARONG_SENDER_EMAIL" reload:"true" default:"noreply@barong.io" kind:"email"`
	// SenderName is the name beside that address.
	SenderName string `env:"BARONG_SENDER_NAME" reload:"true" default:"Barong" kind:"text?"`
	// DefaultLanguage is the language of mails to people who have not chosen one, or one that has no templates.
	DefaultLanguage string `env:"BARONG_DEFAULT_LANGUAGE" default:"en" kind:"language"`
	// MailTemplates is a folder with templates of your own, for other words or other languages. Empty: the built-in ones.
	MailTemplates string `env:"BARONG_MAIL_TEMPLATES" reload:"true" kind:"folder?"`
	// Mailer is who writes the mails on events. on: this program. off: another one, such as the original's mailer, which
	// hears of them from the message broker; this program then writes only those mails that no event tells of: about second
	// factors, API keys and passkeys.
	Mailer string `env:"BARONG_MAILER" default:"on" oneof:"on off"`
	// MailerFile says which events of other services are worth a mail: keychain, exchanges and events, as in the original's
	// mailer.yml. It is read where there is a message broker. Entries about this program's own events have no effect: those
	// mails are written anyway.
	MailerFile string `env:"BARONG_MAILER_FILE" reload:"no" default:"config/mailer.yml" kind:"file?" needs:"BARONG_MAILER=on"`

	// PhoneVerification is how a phone number is verified. mock writes the message below data/outbox/. none: there are no
	// phones, and the API does not have their routes.
	PhoneVerification string `group:"Phones" env:"BARONG_PHONE_VERIFICATION" default:"mock" oneof:"none mock twilio_sms twilio_verify"`
	// SMSContentTemplate is the text of the message; {{code}} becomes the code.
	SMSContentTemplate string `env:"BARONG_SMS_CONTENT_TEMPLATE" reload:"true" default:"Your verification code for Barong: {{code}}" kind:"template" needs:"BARONG_PHONE_VERIFICATION=mock twilio_sms twilio_verify"`
	// TwilioAccountSID is required by both kinds of Twilio.
	TwilioAccountSID string `env:"BARONG_TWILIO_ACCOUNT_SID" reload:"true" needs:"BARONG_PHONE_VERIFICATION=twilio_sms twilio_verify"`
	// TwilioAuthToken is required by both kinds of Twilio.
	TwilioAuthToken secret.Text `env:"BARONG_TWILIO_AUTH_TOKEN" reload:"true" needs:"BARONG_PHONE_VERIFICATION=twilio_sms twilio_verify"`
	// TwilioPhoneNumber is the sender of messages.
	TwilioPhoneNumber string `env:"BARONG_TWILIO_PHONE_NUMBER" reload:"true" default:"+15005550000" needs:"BARONG_PHONE_VERIFICATION=twilio_sms"`
	// TwilioServiceSID is the service of twilio_verify. Empty: one with the name of BARONG_APP_NAME is made.
	TwilioServiceSID string `env:"BARONG_TWILIO_SERVICE_SID" reload:"true" needs:"BARONG_PHONE_VERIFICATION=twilio_verify"`
	// TwilioAPIURL replaces scheme and host of all Twilio addresses.
	TwilioAPIURL string `env:"BARONG_TWILIO_API_URL" reload:"true" kind:"url?" needs:"BARONG_PHONE_VERIFICATION=twilio_sms twilio_verify"`

	// StorageProvider is where files of documents are kept. local keeps them below data/.
	StorageProvider string `group:"Files" env:"BARONG_STORAGE_PROVIDER" default:"local" oneof:"local google aws alicloud azure" fold:"true"`
	// StorageBucketName is the bucket or container.
	StorageBucketName string `env:"BARONG_STORAGE_BUCKET_NAME" default:"local" needs:"BARONG_STORAGE_PROVIDER=google aws alicloud azure"`
	// StorageAccessKey is the access key or account name.
	StorageAccessKey string `env:"BARONG_STORAGE_ACCESS_KEY" needs:"BARONG_STORAGE_PROVIDER=google aws alicloud azure"`
	// StorageSecretKey is the secret key that belongs to it.
	StorageSecretKey secret.Text `env:"BARONG_STORAGE_SECRET_KEY" needs:"BARONG_STORAGE_PROVIDER=google aws alicloud azure"`
	// StorageEndpoint replaces the provider's address, but not Google's.
	StorageEndpoint string `env:"BARONG_STORAGE_ENDPOINT" needs:"BARONG_STORAGE_PROVIDER=aws alicloud azure"`
	// StorageRegion is the bucket's region.
	StorageRegion string `env:"BARONG_STORAGE_REGION" needs:"BARONG_STORAGE_PROVIDER=google aws alicloud azure"`
	// StoragePathStyle puts the bucket into the path rather than the host name, as many stand-ins for S3 want it.
	StoragePathStyle bool `env:"BARONG_STORAGE_PATHSTYLE" default:"false" needs:"BARONG_STORAGE_PROVIDER=aws alicloud azure"`
	// UploadSizeMin is the least size of a file, in bytes.
	UploadSizeMin int `env:"BARONG_UPLOAD_SIZE_MIN_RANGE" default:"1" max:"1073741824"`
	// UploadSizeMax is the largest size of a file, in MiB.
	UploadSizeMax int `env:"BARONG_UPLOAD_SIZE_MAX_RANGE" default:"10" min:"1" max:"1024"`
	// UploadURLExpiration is the life of a signed link to a file, in minutes.
	UploadURLExpiration time.Duration `env:"BARONG_UPLOAD_AUTH_URL_EXPIRATION" default:"1" unit:"m" min:"1" max:"10080"`
	// UploadExtensions are the file name extensions that are accepted.
	UploadExtensions []string `env:"BARONG_UPLOAD_EXTENSION_WHITELIST" default:"jpg, jpeg, png, pdf" kind:"extensions"`

	// EventURL is the message broker for events, amqp:// or amqps://. It overrides the four below. No broker is contacted
	// unless one of the five is set.
	EventURL secret.URL `group:"Events" env:"BARONG_EVENT_API_RABBITMQ_URL" reload:"login" alias:"EVENT_API_RABBITMQ_URL" kind:"amqp?"`
	// EventHost is the host of the message broker.
	EventHost string `env:"BARONG_EVENT_API_RABBITMQ_HOST" default:"localhost" kind:"hostname" needs:"!BARONG_EVENT_API_RABBITMQ_URL"`
	// EventPort is the port of the message broker.
	EventPort string `env:"BARONG_EVENT_API_RABBITMQ_PORT" default:"5672" kind:"port" needs:"!BARONG_EVENT_API_RABBITMQ_URL"`
	// EventUsername is the user to log in as.
	EventUsername string `env:"BARONG_EVENT_API_RABBITMQ_USERNAME" reload:"true" default:"guest" needs:"!BARONG_EVENT_API_RABBITMQ_URL"`
	// EventPassword is the password of that user.
	EventPassword secret.Text `env:"BARONG_EVENT_API_RABBITMQ_PASSWORD" reload:"true" default:"guest" needs:"!BARONG_EVENT_API_RABBITMQ_URL"`
	// EventDurable declares the exchanges durable. The original's are not, and an exchange cannot be declared anew in
	// another way: delete the old ones first.
	EventDurable bool `env:"BARONG_EVENT_API_DURABLE" default:"false"`
	// NATSURL is the servers of NATS whose JetStream takes events, beside the message broker or in its place:
	// nats://user:password@host:port,host:port, or tls://. Empty: none.
	NATSURL secret.URL `env:"BARONG_EVENT_API_NATS_URL" kind:"nats?"`
	// NATSCredentials is the text of a file of credentials, as "nsc generate creds" makes it. Empty: the URL says who connects.
	NATSCredentials secret.Text `env:"BARONG_EVENT_API_NATS_CREDENTIALS" needs:"BARONG_EVENT_API_NATS_URL"`
	// NATSSubject begins the subjects; the name of the event follows, as in barong.events.model.user.created.
	NATSSubject string `env:"BARONG_EVENT_API_NATS_SUBJECT" default:"barong.events" kind:"subject" needs:"BARONG_EVENT_API_NATS_URL"`
	// NATSStream is the stream that takes these subjects. One that is there is used as it is; otherwise it is made.
	NATSStream string `env:"BARONG_EVENT_API_NATS_STREAM" default:"barong" kind:"token" needs:"BARONG_EVENT_API_NATS_URL"`
	// WebhooksFile says who is told of events by signed POSTs: see docs/operations.md. Without it nobody is.
	WebhooksFile string `env:"BARONG_WEBHOOKS_FILE" reload:"true" default:"config/webhooks.yml" kind:"file?"`

	// LogLevel is the least important level that is logged. The words of the original, fatal and unknown, mean error.
	LogLevel string `group:"Logs" env:"BARONG_LOG_LEVEL" reload:"true" alias:"LOG_LEVEL" default:"info" oneof:"debug info warn error fatal unknown" fold:"true"`
	// LogFormat is how log lines look. auto: text on a terminal, JSON elsewhere.
	LogFormat string `env:"BARONG_LOG_FORMAT" default:"auto" oneof:"auto json text"`
	// AccessLog is the share of checks that get a log line of their own: 0 is none, 1 all. A line says neither the query nor
	// any header.
	AccessLog float64 `env:"BARONG_ACCESS_LOG" reload:"true" default:"0" min:"0" max:"1"`

	// OTLPEndpoint is the OpenTelemetry collector that traces are sent to, by OTLP over HTTP, at /v1/traces below this address.
	// Empty, as is the next: there are no traces.
	OTLPEndpoint string `group:"Traces" env:"OTEL_EXPORTER_OTLP_ENDPOINT" kind:"url?"`
	// OTLPTraces replaces that for traces, and is used as it is.
	OTLPTraces string `env:"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" kind:"url?"`
	// TraceService is the name of the service in traces.
	TraceService string `env:"OTEL_SERVICE_NAME" default:"barong" kind:"text"`
	// TraceSampler chooses the traces that are recorded. Those that begin with parentbased do as the gateway's trace does
	// (the header traceparent, of a trusted proxy), and choose themselves where there is none.
	TraceSampler string `env:"OTEL_TRACES_SAMPLER" default:"parentbased_always_on" oneof:"always_on always_off traceidratio parentbased_always_on parentbased_always_off parentbased_traceidratio"`
	// TraceShare is the share of traces that traceidratio and parentbased_traceidratio record.
	TraceShare float64 `env:"OTEL_TRACES_SAMPLER_ARG" default:"1" min:"0" max:"1"`
	// TracesOff turns traces off, whatever else is set. Further variables of OpenTelemetry's exporter (OTEL_EXPORTER_OTLP_HEADERS,
	// _CERTIFICATE, _TIMEOUT and so on) and of its batches (OTEL_BSP_…) are read as its documentation says.
	TracesOff bool `env:"OTEL_SDK_DISABLED" default:"false"`

	// ActivationRequirements are the private labels that make a pending user active, with the value each must have.
	ActivationRequirements map[string]string `group:"File" file:"activation_requirements" default:"{email: verified}"`
	// StateTriggers are the private labels that give a user another state; where several do, the last in the file wins. A
	// trigger matches the whole key, or the key up to a dash or underscore.
	StateTriggers []StateTrigger `file:"state_triggers" default:"{banned: [ban, fraud], deleted: [delete], locked: [suspicious, lock]}"`
	// DocumentTypes are the types a document may have.
	DocumentTypes []string `file:"document_types" default:"[Passport, Identity card, Driver license, Utility Bill, Residental, Institutional]"`
	// UserStorageTitles are the titles under which users may store data of their own.
	UserStorageTitles []string `file:"user_storage_titles" default:"[]"`
	// CaptchaProtectedEndpoints are the endpoints that want a captcha, if BARONG_CAPTCHA chooses one. An empty list
	// protects none.
	CaptchaProtectedEndpoints []string `file:"captcha_protected_endpoints" reload:"true" default:"[user_create, password_reset, email_confirmation]" compat:"[]" oneof:"user_create session_create password_reset email_confirmation"`

	values   []Value
	warnings []string
	env      map[string]string
	files    map[string]string // where secrets were read from, by setting
	bad      map[string]bool   // settings whose value is refused
}

// A StateTrigger gives users a state once they have a private label of one of these keys.
type StateTrigger struct {
	State string
	Keys  []string
}

// retired are the variables that deployments of the original have and this program has no use for, with what takes their
// place. Those without BARONG_ belong to others as well, and are spoken of only in an environment that is the original's.
var retired = map[string]string{
	"BARONG_VAULT_ADDRESS":                 "secrets are sealed in the database, see BARONG_SECRET_KEY",
	"BARONG_VAULT_TOKEN":                   "secrets are sealed in the database, see BARONG_SECRET_KEY",
	"BARONG_VAULT_APP_NAME":                "secrets are sealed in the database, see BARONG_SECRET_KEY",
	"BARONG_SENTRY_DSN_BACKEND":            "errors are log lines and metrics",
	"BARONG_REDIS_CLUSTER":                 "write redis+cluster:// into BARONG_REDIS_URL",
	"BARONG_REDIS_PASSWORD":                "write it into BARONG_REDIS_URL",
	"BARONG_CRC32_SALT":                    "search indexes are keyed by BARONG_SECRET_KEY",
	"BARONG_API_DATA_MASKING_ENABLED":      "answers are those of 2.4, which masks nothing",
	"BARONG_SMTP_LOGO_LINK":                "mails hold no images; a layout of your own may, see BARONG_MAIL_TEMPLATES",
	"BARONG_STORAGE_SIGNATURE_VERSION":     "requests are signed by version 4",
	"BARONG_KYC_PROVIDER":                  "2.4 knows no KYC provider",
	"BARONG_KYCAID_AUTHORIZATION_TOKEN":    "2.4 knows no KYC provider",
	"BARONG_KYCAID_SANDBOX_MODE":           "2.4 knows no KYC provider",
	"BARONG_KYCAID_API_ENDPOINT":           "2.4 knows no KYC provider",
	"BARONG_KYCAID_FORM_ID":                "2.4 knows no KYC provider",
	"BARONG_PROFILE_DOUBLE_VERIFICATION":   "2.4 has one verification of a profile",
	"BARONG_FIRST_REGISTRATION_SUPERADMIN": "the first superadmin is seeded, see ADMIN_EMAIL",
	"BARONG_MGN_API_KEYS_USER":             "API keys are made by their owners",
	"BARONG_MGN_API_KEYS_SA":               "API keys are made by their owners",
	"BARONG_AUTH0_DOMAIN":                  "there is no log-in through Auth0",
	"BARONG_AUTH0_CLIENT_ID":               "there is no log-in through Auth0",
	"BARONG_EVENT_API_JWT_PRIVATE_KEY":     "events are signed with the key of BARONG_JWT_PRIVATE_KEY_PATH",
	"BARONG_EVENT_API_JWT_ALGORITHM":       "events are signed with BARONG_JWT_ALGORITHM",
	"JWT_PUBLIC_KEY":                       "the public key follows from the private one",
	"REDIS_URL":                            "sessions live at BARONG_REDIS_URL",
	"VAULT_ADDR":                           "secrets are sealed in the database, see BARONG_SECRET_KEY",
	"VAULT_TOKEN":                          "secrets are sealed in the database, see BARONG_SECRET_KEY",
	"DATABASE_COLLATION":                   "the database's own holds",
	"DISABLE_SPRING":                       "there is no Ruby",
	"SECRET_KEY_BASE":                      "secrets are sealed with BARONG_SECRET_KEY",
	"RAILS_MASTER_KEY":                     "there is no encrypted credentials file",
	"RAILS_MIN_THREADS":                    "one process uses all processors",
	"RAILS_MAX_THREADS":                    "one process uses all processors",
	"WEB_CONCURRENCY":                      "one process uses all processors",
	"RAILS_LOG_TO_STDOUT":                  "the log goes to standard error",
	"RAILS_LOG_TO_STDERR":                  "the log goes to standard error",
	"RAILS_SERVE_STATIC_FILES":             "there are none",
}
