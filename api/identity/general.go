package identity

import (
	"context"

	"barong/api/rest"
	"barong/internal/fault"
	"barong/internal/limit"
)

func (m *Module) ping(_ context.Context, c *rest.Call) error {
	return c.Answer(struct {
		Ping string `json:"ping"`
	}{"pong"})
}

func (m *Module) time(_ context.Context, c *rest.Call) error {
	return c.Answer(struct {
		Time int64 `json:"time"`
	}{m.Now().Unix()})
}

func (m *Module) version(_ context.Context, c *rest.Call) error {
	return c.Answer(struct {
		GitTag    string `json:"git_tag"`
		GitSHA    string `json:"git_sha"`
		BuildDate string `json:"build_date"`
		Version   string `json:"version"`
	}{m.Build.Tag, m.Build.Commit, m.Build.Date.Format("2006-01-02T15:04:05.000-07:00"), m.Build.Tag})
}

func (m *Module) configs(_ context.Context, c *rest.Call) error {
	var guarded *[]string
	if !c.Legacy {
		names := append([]string{}, m.Guarded()...)
		guarded = &names
	}
	return c.Answer(struct {
		SessionExpireTime     int64  `json:"session_expire_time"`
		CaptchaType           string `json:"captcha_type"`
		CaptchaID             string `json:"captcha_id,omitempty"`
		PhoneVerificationType string `json:"phone_verification_type"`
		PasswordMinEntropy    int    `json:"password_min_entropy"`
		PasswordRegexp        string `json:"password_regexp"`
		// What the captcha guards, by the words of the configuration file. Release 2.4.17 did not tell.
		CaptchaEndpoints *[]string `json:"captcha_endpoints,omitempty"`
	}{
		int64(m.Configs.SessionTTL.Seconds()), m.Captcha.Kind(), m.Captcha.SiteKey(), m.Configs.PhoneVerification, m.Configs.MinEntropy,
		"(?-mix:" + m.Configs.PasswordRegexp + ")", guarded,
	})
}

// How the public keys are served, here and below /.well-known. A rotated key signs at once, and whoever meets an
// unknown key id asks again, so the age is short.
const (
	jwksType  = "application/json"
	jwksCache = "public, max-age=60"
)

// A Document is an answer that needs no call: what to send, and how.
type Document struct {
	ContentType, CacheControl string
	Body                      []byte
}

// JWKSDocument is the JWK set of the public signing keys (RFC 7517).
func (m *Module) JWKSDocument() Document { return Document{jwksType, jwksCache, m.JWKS()} }

func (m *Module) jwks(_ context.Context, c *rest.Call) error {
	d := m.JWKSDocument()
	c.SetHeader("Cache-Control", d.CacheControl)
	c.Bytes(d.ContentType, d.Body)
	return nil
}

// validatePassword answers POST /identity/password/validate. Only the strength is measured; the pattern is not applied.
func (m *Module) validatePassword(_ context.Context, c *rest.Call) error {
	var in struct {
		Password *string `param:"password"`
	}
	c.Into(&in)
	if in.Password == nil {
		return fault.Invalid("invalid")
	}
	return c.Answer(struct {
		Entropy float64 `json:"entropy"`
	}{m.Entropy(*in.Password)})
}

// registerCaptcha answers GET /identity/users/register_geetest.
func (m *Module) registerCaptcha(ctx context.Context, c *rest.Call) error {
	if m.Captcha.Registers() {
		if err := m.Accounts.AllowAddress(ctx, limit.CaptchaAddress, c.Client); err != nil {
			return err
		}
	}
	begun, err := m.Captcha.Register(ctx)
	if err != nil {
		return err
	}
	return c.Answer(begun)
}
