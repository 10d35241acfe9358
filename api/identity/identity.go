// Package identity is the module of the REST API that needs no credential: sign-up, sign-in and -out, confirmation of
// addresses, reset of passwords, and what clients want to know about the service. The rules about accounts stand in
// package account; here parameters are read, attempts limited, and answers chosen.
//
// Nobody learns here whether an address has an account: what is refused, accepted or asked for looks alike, and takes
// as long, for known and unknown ones; see patiently.
package identity

import (
	"context"
	"errors"
	"slices"
	"time"

	"barong/api/account"
	"barong/api/rest"
	"barong/api/view"
	"barong/authz"
	"barong/db"
	"barong/internal/captcha"
	"barong/internal/crypto/keys"
	"barong/internal/fault"
	"barong/internal/limit"
	"barong/internal/redirect"
	"barong/session"
)

// Options are what a Module is made of. All are required but those that say otherwise.
type Options struct {
	Accounts *account.Service
	DB       *db.DB
	Cookies  *authz.Cookies
	FileURL  func(key string) string

	// Tokens verifies confirmation and reset tokens, which must be as MailToken says; its subject is set here.
	Tokens    Verifier
	MailToken keys.Expect
	JWKS      func() []byte // the public signing keys

	Captcha *captcha.Captcha
	Guarded func() []string // names of the operations that the captcha guards, at the moment: see the constants; nil guards none

	// Reload puts changed restrictions in force in this process; the other replicas follow a notice.
	Reload func(ctx context.Context) error

	NoPasskeys bool // there are no passkeys, and no routes for them

	LoginURL  string         // where people sign in; empty for the page of the portal
	Redirects redirect.Rules // where browsers may go on to from there

	// SignedIn is told how each sign-in ended: by what (one of Ways), and the code of its refusal, empty when there
	// was none. nil tells nobody.
	SignedIn func(by, code string)

	CORS    rest.CORS // pages of other origins that may call
	Domain  string    // where the front end lives, with or without a scheme
	Configs Configs
	Build   Build
	Entropy func(password string) float64
	Now     func() time.Time
}

// A Verifier verifies signed tokens. keys.Ring is one.
type Verifier interface {
	Verify(token string, want keys.Expect) (keys.Claims, error)
}

// The operations that a captcha can guard, as the configuration file names them.
const (
	userCreate        = "user_create"
	sessionCreate     = "session_create"
	passwordReset     = "password_reset"
	emailConfirmation = "email_confirmation"
)

// Configs are the settings that clients may know.
type Configs struct {
	SessionTTL        time.Duration
	PhoneVerification string // "none", "mock", "twilio_sms" or "twilio_verify"
	MinEntropy        int
	PasswordRegexp    string
}

// A Build says what this program is.
type Build struct {
	Tag, Commit string
	Date        time.Time
}

// What Options.SignedIn is told of.
const (
	ByPassword = "password"
	ByPasskey  = "passkey"
	ByProvider = "provider"
)

// Ways are all of them.
var Ways = []string{ByPassword, ByPasskey, ByProvider}

// counted is the handler of a sign-in, whose end is told.
func (m *Module) counted(by string, handle rest.HandlerFunc) rest.HandlerFunc {
	return func(ctx context.Context, c *rest.Call) error {
		err := handle(ctx, c)
		m.ended(by, err)
		return err
	}
}

// ended tells how a sign-in ended.
func (m *Module) ended(by string, err error) {
	if m.SignedIn == nil {
		return
	}
	code := ""
	if err != nil {
		code = "other"
		if f := fault.As(db.Translate(err)); len(f.Codes) > 0 {
			code = string(f.Codes[0])
		}
	}
	m.SignedIn(by, code)
}

// A Module answers the routes of identity. It is safe for concurrent use.
type Module struct {
	Options
}

// New returns a module.
func New(o Options) *Module {
	m := &Module{Options: o}
	if m.Guarded == nil {
		m.Guarded = func() []string { return nil }
	}
	return m
}

// Parameters that several routes have.
var (
	email = rest.Param{Name: "email", Required: true, NotBlank: true, Doc: "E-mail address of the account."}
	lang  = rest.Param{Name: "lang", Doc: "Language of the client, for the event: EN when absent."}
	// captchaResponse is ignored, but for its type, while no captcha guards the operation.
	captchaResponse = rest.Param{Name: "captcha_response", Type: rest.Any, Doc: "What the captcha's widget answered: a string or an object."}
)

// captchaCodes are the refusals of the captcha.
var captchaCodes = []fault.Code{"identity.captcha.required", "identity.captcha.mandatory_fields", "identity.captcha.verification_failed"}

// tokenCodes are the refusals of a mail token.
var tokenCodes = []fault.Code{
	"jwt.decode_and_verify.segments", "jwt.decode_and_verify.encoding", "jwt.decode_and_verify.algorithm",
	"jwt.decode_and_verify.raised", "jwt.decode_and_verify.expired", "jwt.decode_and_verify.reached",
	"jwt.decode_and_verify.iat", "jwt.decode_and_verify.jti", "jwt.decode_and_verify.sub", "jwt.decode_and_verify.iss",
	"jwt.decode_and_verify.aud",
}

func codes(lists ...[]fault.Code) []fault.Code { return slices.Concat(lists...) }

const (
	general  = "identity.general"
	sessions = "identity.session"
	users    = "identity.user"
)

// crossSite is the refusal of a call that a page of a stranger's site made.
const crossSite fault.Code = "authz.csrf_token_mismatch"

// Routes are the routes of the module.
func (m *Module) Routes() []rest.Route {
	newPassword := rest.Param{Name: "password", Required: true, NotBlank: true, Doc: "The new password."}
	langNotBlank := lang
	langNotBlank.NotBlank = true
	sessionCaptcha := captchaResponse
	sessionCaptcha.BadType = "identity.session.invalid_captcha_format"
	passwordCodes := []fault.Code{"password.too_long", "password.requirements", "password.weak"}
	limited := []fault.Code{fault.TooMany, crossSite}
	routes := []rest.Route{
		{
			Method: "GET", Path: "/identity/ping", Summary: "Answers, to show that the service can be reached.",
			Access: rest.Public, Prefix: general, Success: 200, Output: "{ping:string}", Handle: m.ping,
		},
		{
			Method: "GET", Path: "/identity/time", Summary: "Tells the service's time in seconds since 1970.",
			Access: rest.Public, Prefix: general, Success: 200, Output: "{time:integer}", Handle: m.time,
		},
		{
			Method: "GET", Path: "/identity/version", Summary: "Tells which release this is, and when it was built.",
			Access: rest.Public, Prefix: general, Success: 200, Output: "{git_tag:string,git_sha:string,build_date:string,version:string}", Handle: m.version,
		},
		{
			Method: "GET", Path: "/identity/configs", Summary: "Tells the settings that a client needs to know.",
			Access: rest.Public, Prefix: general, Success: 200, Handle: m.configs,
			Output: "{session_expire_time:integer,captcha_type:string,captcha_id?:string,phone_verification_type:string," +
				"password_min_entropy:integer,password_regexp:string,captcha_endpoints?:[string]}",
		},
		{
			Method: "GET", Path: "/identity/jwks", Summary: "Lists the public keys that verify the service's tokens (RFC 7517).",
			Access: rest.Public, Prefix: general, Success: 200, Output: "{keys:[object]}", Added: true, Handle: m.jwks,
		},
		{
			Method: "POST", Path: "/identity/password/validate", Summary: "Measures how hard a password is to guess, in bits.",
			Access: rest.Public, Prefix: general, Params: []rest.Param{
				{Name: "password", Required: true, Secret: true, Doc: "The password. It is not stored. In the body only."},
			},
			Success: 201, Output: "{entropy:number}", Handle: m.validatePassword,
		},
		{
			Method: "POST", Path: "/identity/sessions", Summary: "Signs in: opens a session and sets its cookie.",
			Access: rest.Public, Prefix: sessions, Params: []rest.Param{
				{Name: "email", Required: true, Doc: "E-mail address of the account."},
				{Name: "password", Required: true, Doc: "The account's password."},
				sessionCaptcha,
				{Name: "otp_code", Type: rest.Code, Doc: "Code of the second factor, or a recovery code, when the account has one."},
			},
			Success: 201, Legacy: 200, BadRequest: true, Output: "UserWithFullInfo", Handle: m.ownSite(m.counted(ByPassword, m.signIn)), Listed: []int{404},
			Errors: codes(captchaCodes, limited, []fault.Code{
				"identity.session.invalid_params", "identity.session.banned", "identity.session.deleted",
				"identity.session.not_active", "identity.session.missing_otp", "identity.session.invalid_otp", fault.TOTP,
			}),
		},
		{
			Method: "GET", Path: "/identity/sessions/current", Summary: "Tells whether the cookie's session is alive, whose it is, and its CSRF token.",
			Access: rest.Public, Prefix: sessions, Success: 200, Added: true, Handle: m.ownSite(m.showSession),
			Output: "{active:boolean,uid?:string,email?:string,csrf_token?:string}", Errors: []fault.Code{crossSite},
		},
		{
			Method: "DELETE", Path: "/identity/sessions", Summary: "Signs out: ends the session of the cookie.",
			Access: rest.Public, Prefix: sessions, Success: 204, Legacy: 200, Output: "code", Handle: m.ownSite(m.signOut),
			Errors: []fault.Code{"identity.session.not_found", crossSite},
		},
		{
			Method: "POST", Path: "/identity/users", Summary: "Signs up: creates an account, sends the confirmation mail and opens a session.",
			Access: rest.Public, Prefix: users, Params: []rest.Param{
				email, newPassword,
				{Name: "refid", Doc: "Uid of the user who recommended the service."},
				lang, captchaResponse,
				{Name: "data", Type: rest.JSONText, Doc: "Any JSON text of the client, of at most 1024 characters."},
			},
			Success: 201, BadRequest: true, Output: "UserWithFullInfo", Handle: m.ownSite(m.signUp),
			Errors: codes(captchaCodes, []fault.Code{
				"identity.user.invalid_referral_format", "identity.user.referral_doesnt_exist", "data.too_long",
				"role.doesnt_exist", "data.invalid_format", "email.invalid", "email.taken",
			}, passwordCodes, limited),
		},
		{
			Method: "GET", Path: "/identity/users/register_geetest", Summary: "Fetches the challenge that GeeTest's widget needs.",
			Access: rest.Public, Prefix: users, Success: 200, Output: "{gt:string,challenge:string}", Handle: m.registerCaptcha,
			Errors: []fault.Code{fault.NotFound, fault.Unavailable, fault.TooMany},
		},
		{
			Method: "POST", Path: "/identity/users/email/generate_code", Summary: "Sends the confirmation mail again.",
			Access: rest.Public, Prefix: users, Params: []rest.Param{email, lang, captchaResponse},
			Success: 201, BadRequest: true, Output: "code", Handle: m.ownSite(m.resendConfirmation),
			Errors: codes(captchaCodes, limited),
		},
		{
			Method: "POST", Path: "/identity/users/email/confirm_code", Summary: "Confirms the address with the token of the mail, and opens a session.",
			Access: rest.Public, Prefix: users, Params: []rest.Param{
				{Name: "token", Required: true, NotBlank: true, Doc: "Token of the confirmation mail."},
				langNotBlank,
			},
			Success: 201, BadRequest: true, Output: "UserWithFullInfo", Handle: m.ownSite(m.guessed(m.confirmEmail)),
			Errors: codes(tokenCodes, []fault.Code{
				"jwt.decode_and_verify.session", "jwt.decode_and_verify.reset", "identity.user.active_or_doesnt_exist",
				"identity.user.utilized_token",
			}, limited),
		},
		{
			Method: "POST", Path: "/identity/users/password/generate_code", Summary: "Sends a mail with a token that allows a new password.",
			Access: rest.Public, Prefix: users, Params: []rest.Param{email, lang, captchaResponse},
			Success: 201, BadRequest: true, Output: "code", Handle: m.ownSite(m.requestReset), Listed: []int{404},
			Errors: codes(captchaCodes, limited),
		},
		{
			Method: "POST", Path: "/identity/users/password/confirm_code", Summary: "Sets a new password with the token of the mail, and ends all sessions.",
			Access: rest.Public, Prefix: users, Params: []rest.Param{
				{
					Name: "reset_password_token", Required: true, NotBlank: true, Missing: "identity.user.missing_pass_token",
					Doc: "Token of the mail.",
				},
				newPassword,
				{Name: "confirm_password", Required: true, NotBlank: true, Doc: "The new password again."},
				lang,
			},
			Success: 201, BadRequest: true, Output: "code", Handle: m.ownSite(m.guessed(m.resetPassword)),
			Errors: codes([]fault.Code{"identity.user.passwords_doesnt_match"}, tokenCodes, []fault.Code{
				"jwt.decode_and_verify.session", "jwt.decode_and_verify.confirmation", "identity.user.utilized_token",
				fault.NotFound, "identity.session.banned", "identity.session.deleted",
			}, passwordCodes, limited),
		},
		{
			Method: "POST", Path: "/identity/users/access", Summary: "Lets the caller's address past the restrictions with a token from staff.",
			Access: rest.Public, Prefix: users, Params: []rest.Param{
				{Name: "whitelink_token", Required: true, NotBlank: true, Doc: "Token from staff; it works once."},
			},
			Success: 201, Output: "code", Added: true, Handle: m.ownSite(m.access),
			Errors: codes(limited, []fault.Code{"identity.user.access.invalid_token", "value.taken", "value.invalid"}),
		},
	}
	routes = append(routes, m.providerRoutes()...)
	if m.NoPasskeys {
		return routes
	}
	return append(routes, []rest.Route{
		{
			Method: "POST", Path: "/identity/sessions/passkey/options", Summary: "Begins a sign-in by passkey: what navigator.credentials.get needs.",
			Access: rest.Public, Prefix: sessions, Success: 201, Output: "{flow:string,publicKey:object}", Added: true, Handle: m.ownSite(m.beginPasskey),
			Errors: []fault.Code{crossSite},
		},
		{
			Method: "POST", Path: "/identity/sessions/passkey", Summary: "Signs in by passkey, which is both factors: opens a session and sets its cookie.",
			Access: rest.Public, Prefix: sessions, Params: []rest.Param{
				{Name: "flow", Required: true, Doc: "The flow that the options came with. It can be used once, within five minutes."},
				{Name: "credential", Type: rest.JSONText, Required: true, Doc: "What navigator.credentials.get returned, in its JSON form."},
			},
			Success: 201, BadRequest: true, Output: "UserWithFullInfo", Added: true, Handle: m.ownSite(m.counted(ByPasskey, m.signInByPasskey)),
			Errors: codes(limited, []fault.Code{
				"identity.session.invalid_passkey", "identity.session.banned", "identity.session.deleted", "identity.session.not_active",
			}),
		},
	}...)
}

// verifyCaptcha is the captcha's verdict on an operation, if one guards it. A client whose responses are refused too often
// is not looked at for a while: the verdict is a call of somebody else's service.
func (m *Module) verifyCaptcha(ctx context.Context, c *rest.Call, operation string) error {
	if !slices.Contains(m.Guarded(), operation) || m.Captcha.Kind() == captcha.None {
		return nil
	}
	if err := m.Accounts.PeekAddress(ctx, limit.CaptchaAddress, c.Client); err != nil {
		return err
	}
	var in struct {
		Response any `param:"captcha_response"` // a text or an object, as the captcha has it
	}
	c.Into(&in)
	err := m.Captcha.Verify(ctx, in.Response)
	if f := fault.As(err); f != nil && f.Has("identity.captcha.verification_failed") {
		if limited := m.Accounts.AllowAddress(ctx, limit.CaptchaAddress, c.Client); limited != nil {
			return limited
		}
	}
	return err
}

// client is who calls.
func (m *Module) client(c *rest.Call) account.Client { return m.Accounts.Client(c.Client, c.UserAgent) }

func (m *Module) view(c *rest.Call) *view.Builder {
	return &view.Builder{DB: m.DB, Legacy: c.Legacy, FileURL: m.FileURL}
}

// sent are the session cookies that the caller sent.
func (m *Module) sent(c *rest.Call) authz.Sent { return m.Cookies.Sent(c.Cookies()...) }

// expireOthers has the browser drop every session cookie that it sends here, if it sent more than one: which of them it
// would send next time is not ours to say. What is set after it stays.
func (m *Module) expireOthers(c *rest.Call, sent *authz.Sent) {
	if !sent.Ambiguous() {
		return
	}
	for _, text := range m.Cookies.Expire(c.AskedHost, c.HTTPS) {
		c.SetCookie(text)
	}
}

// answerSession hands a session that was just opened to its browser, and shows the user.
func (m *Module) answerSession(ctx context.Context, c *rest.Call, user *db.User, id session.ID, opened *session.Session) error {
	info, err := m.view(c).FullInfo(ctx, user, opened.CSRF)
	if err != nil {
		return err
	}
	sent := m.sent(c)
	m.handOver(c, &sent, id, opened)
	return c.Answer(info)
}

// verifyMailToken checks a confirmation or reset token. The error is the 422 that says why not.
func (m *Module) verifyMailToken(token string, kind account.TokenKind) (account.MailToken, error) {
	want := m.MailToken
	want.Subject = string(kind)
	claims, err := m.Tokens.Verify(token, want)
	if refused := (*keys.Error)(nil); errors.As(err, &refused) {
		err = fault.New(fault.BadToken + "." + fault.Code(refused.Cause)).Because(err)
	}
	return account.MailToken{
		ID: claims.ID, Email: claims.Email, UID: claims.UID,
		IssuedAt: claims.IssuedAt, ExpiresAt: claims.ExpiresAt, KeyID: claims.KeyID,
	}, err
}

// step is the grain of time in which an answer tells nothing: far longer than what a mail or an audit row takes.
const step = 100 * time.Millisecond

// patiently runs work and returns on a multiple of step since its beginning, so that the time of the answer does not
// tell whether there was an account to do something for.
func patiently(ctx context.Context, work func() error) error {
	begin := time.Now()
	err := work()
	pause := time.NewTimer(step - time.Since(begin)%step)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	}
	return err
}
