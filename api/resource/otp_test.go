package resource_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"image/png"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/db"
	"barong/internal/limit"
	"barong/internal/test/apitest"
)

// secretOf reads the secret in an answer with a QR code.
func secretOf(t *testing.T, a *apitest.Answer) string {
	t.Helper()
	data := a.Object(t)["data"].(map[string]any)
	address, err := url.Parse(data["url"].(string))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(data["barcode"].(string))
	if err != nil {
		t.Fatal(err)
	}
	if picture, err := png.Decode(bytes.NewReader(raw)); err != nil || picture.Bounds().Dx() != 300 {
		t.Errorf("barcode: %v", err)
	}
	q := address.Query()
	if address.Scheme != "otpauth" || address.Host != "totp" || q.Get("issuer") != "Barong" || q.Get("digits") != "6" ||
		q.Get("period") != "30" || q.Get("algorithm") != "SHA1" || len(q.Get("secret")) != 32 {
		t.Errorf("url %s", address)
	}
	return q.Get("secret")
}

func TestOTP(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b, old := start(t, e), start(t, e, legacy)
		u := b.member(t)
		cookie, elsewhere := b.signIn(t, u), b.signIn(t, u)
		post := func(path string, o apitest.Option) *apitest.Answer {
			return b.Post(t, "/resource/otp/"+path, apitest.As(u), apitest.Cookie(cookieName, cookie), o)
		}
		for _, path := range []string{"enable", "disable", "verify", "recovery_codes"} {
			post(path, apitest.Form()).Want(t, 400, "resource.otp.missing_code", "resource.otp.empty_code")
			old.Post(t, "/resource/otp/"+path, apitest.As(u)).Want(t, 422, "resource.otp.missing_code", "resource.otp.empty_code")
			post(path, apitest.Form("code", " ")).Want(t, 400, "resource.otp.empty_code")
			post(path, apitest.JSON(map[string]any{"code": []string{"1"}})).Want(t, 422, "invalid")
			post(path, apitest.JSON(map[string]any{"code": nil})).Want(t, 400, "resource.otp.empty_code")
		}
		b.wantActivities(t, u)
		var want []string
		lately := 0 // the first row of the last minute: what repeats is folded into those
		row := func(action, reason string) {
			text := "otp / " + action + " / succeed"
			if reason != "" {
				text = "otp / " + action + ` / failed {"reason":"` + reason + `"}`
			}
			if !slices.Contains(want[lately:], text) {
				want = append(want, text)
			}
		}
		const wrong, off, on = "OTP code is invalid", "2FA has not been enabled for this account", "2FA has been already enabled for this account"
		post("enable", apitest.Form("code", "123456")).Want(t, 422, "resource.otp.invalid") // no secret yet
		row("enable 2FA", wrong)
		post("disable", apitest.Form("code", "123456")).Want(t, 400, "resource.otp.not_enabled")
		row("disable 2FA", off)
		post("verify", apitest.Form("code", "123456")).Want(t, 400, "resource.otp.already_enabled")
		row("verify 2FA code", off)
		post("recovery_codes", apitest.Form("code", "123456")).Want(t, 400, "resource.otp.not_enabled")
		row("request recovery codes", off)

		a := post("generate_qrcode", apitest.Form()).Want(t, 201)
		row("request QR code for 2FA", "")
		if keys := a.Keys(t); !slices.Equal(keys, []string{"auth", "data", "lease_duration", "lease_id", "metadata", "renewable", "warnings", "wrap_info"}) {
			t.Errorf("envelope %q", keys)
		}
		first := secretOf(t, a)
		secret := secretOf(t, post("generate_qrcode", apitest.Form()).Want(t, 201))
		row("request QR code for 2FA", "")
		if first == secret {
			t.Fatal("the same secret again")
		}
		post("enable", apitest.Form("code", e.Code(t, first, 0))).Want(t, 422, "resource.otp.invalid") // replaced
		row("enable 2FA", wrong)
		b.wantUser(t, u, 1, "active", false)
		b.wantEvents(t)
		used := e.Code(t, secret, 0)
		post("enable", apitest.Form("code", used[:3]+" "+used[3:]+"\n")).WantBody(t, 201, "200") // as apps show it
		row("enable 2FA", "")
		b.wantUser(t, u, 1, "active", true)
		b.wantLabels(t, u, "private email:verified", "private otp:enabled")
		b.wantEvents(t, "model.user.updated", "model.label.created")
		b.wantMails(t, "otp.enabled")
		if !b.alive(t, cookie) || b.alive(t, elsewhere) {
			t.Error("the other session is to end, and this one to stay")
		}
		post("generate_qrcode", apitest.Form()).Want(t, 400, "resource.otp.already_enabled")
		row("request QR code for 2FA", on)
		post("enable", apitest.Form("code", "123456")).Want(t, 400, "resource.otp.already_enabled")
		row("enable 2FA", on)
		b.wantActivities(t, u, want...)

		for path, action := range map[string]string{"verify": "verify 2FA code", "disable": "disable 2FA", "recovery_codes": "request recovery codes"} {
			e.Limits.Forget()
			post(path, apitest.Form("code", e.WrongCode(t, secret))).Want(t, 422, "resource.otp.invalid")
			post(path, apitest.Form("code", used)).Want(t, 422, "totp.error")
			row(action, wrong)
			b.wantActivities(t, u, want...)
		}
		e.Limits.Forget()
		post("verify", apitest.Form("code", " "+e.Code(t, secret, 1)+" ")).WantBody(t, 201, "null")
		b.wantActivities(t, u, want...) // a success is not recorded

		e.Clock.Advance(rest60)
		lately = len(want)
		codes := post("recovery_codes", apitest.Form("code", e.Code(t, secret, 0))).Want(t, 201).Object(t)["codes"].([]any)
		row("request recovery codes", "")
		if len(codes) != 10 || !regexp.MustCompile(`^([a-z2-7]{4}-){3}[a-z2-7]{4}$`).MatchString(codes[0].(string)) {
			t.Errorf("codes %q", codes)
		}
		post("verify", apitest.Form("code", codes[0].(string))).Want(t, 422, "resource.otp.invalid") // they sign in, and nothing else
		row("verify 2FA code", wrong)
		if err := e.Accounts.VerifySignInCode(t.Context(), e.Fresh(t, u), strings.ReplaceAll(codes[0].(string), "-", "")); err != nil {
			t.Errorf("sign in with a recovery code: %v", err)
		}

		e.Update(t, func(ctx context.Context, tx *db.Tx) error {
			return tx.InsertAPIKey(ctx, &db.APIKey{UserID: u.ID, KID: "k1", Algorithm: "HS256", State: "active", Secret: "s"})
		})
		elsewhere = b.signIn(t, u)
		e.Events()
		e.Mails(t)
		post("disable", apitest.Form("code", e.Code(t, secret, 1))).WantBody(t, 201, "200")
		row("disable 2FA", "")
		b.wantActivities(t, u, want...)
		b.wantUser(t, u, 1, "active", false)
		b.wantLabels(t, u, "private email:verified")
		b.wantEvents(t, "model.user.updated")
		b.wantMails(t, "otp.disabled")
		if !b.alive(t, cookie) || b.alive(t, elsewhere) {
			t.Error("the other session is to end, and this one to stay")
		}
		if k, err := e.DB.APIKey(t.Context(), "k1"); err != nil || k.Active {
			t.Errorf("API key: %+v, %v", k, err)
		}
		if _, err := e.DB.TOTPKey(t.Context(), u.ID); err == nil {
			t.Error("the secret is still there")
		}
		post("disable", apitest.Form("code", "123456")).Want(t, 400, "resource.otp.not_enabled")

		v := b.member(t)
		old.Post(t, "/resource/otp/disable", apitest.As(v), apitest.Form("code", e.Code(t, e.Enable2FA(t, v), 0))).WantBody(t, 200, "200")
	})
}

// TestOTPEnabledWithRecoveryCodes holds that one code of the app is enough to switch the second factor on and to get the
// recovery codes, and that a refused one makes none.
func TestOTPEnabledWithRecoveryCodes(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		u := b.member(t)
		enable := func(code string, flag any) *apitest.Answer {
			return b.Post(t, "/resource/otp/enable", apitest.As(u), apitest.JSON(map[string]any{"code": code, "recovery_codes": flag}))
		}
		secret := secretOf(t, b.Post(t, "/resource/otp/generate_qrcode", apitest.As(u)).Want(t, 201))
		enable(e.Code(t, secret, 0), "maybe").Want(t, 422, "invalid")
		enable(e.WrongCode(t, secret), true).Want(t, 422, "resource.otp.invalid")
		codes := enable(e.Code(t, secret, 0), true).Want(t, 201).Object(t)["codes"].([]any)
		b.wantUser(t, u, 1, "active", true)
		if len(codes) != 10 {
			t.Fatalf("codes %q", codes)
		}
		if err := e.Accounts.VerifySignInCode(t.Context(), e.Fresh(t, u), strings.ReplaceAll(codes[9].(string), "-", "")); err != nil {
			t.Errorf("sign in with a recovery code: %v", err)
		}

		v := b.member(t)
		secret = secretOf(t, b.Post(t, "/resource/otp/generate_qrcode", apitest.As(v)).Want(t, 201))
		b.Post(t, "/resource/otp/enable", apitest.As(v), apitest.JSON(map[string]any{"code": e.Code(t, secret, 0), "recovery_codes": false})).
			WantBody(t, 201, "200")
	})
}

const rest60 = 60e9 // two time steps of a second factor

// TestOTPUsedOnce holds that a pending secret's code is used once too: enable answers totp.error for an old one.
func TestOTPUsedOnce(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	b := start(t, e)
	u := b.member(t)
	code := e.Code(t, secretOf(t, b.Post(t, "/resource/otp/generate_qrcode", apitest.As(u))), 0)
	if err := e.Accounts.VerifyTOTP(t.Context(), u, code); err != nil {
		t.Fatal(err)
	}
	b.Post(t, "/resource/otp/enable", apitest.As(u), apitest.Form("code", code)).Want(t, 422, "totp.error")
	b.wantUser(t, u, 1, "active", false)
}

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b, old := start(t, e), start(t, e, legacy)
		u, plain := b.member(t), b.member(t)
		secret := e.Enable2FA(t, u)
		as := apitest.As(u)
		post := func(b *bench, o apitest.Option) *apitest.Answer { return b.Post(t, "/resource/api_keys", as, o) }
		patch := func(b *bench, kid string, o apitest.Option) *apitest.Answer {
			return b.Patch(t, "/resource/api_keys/"+kid, as, o)
		}
		del := func(b *bench, kid string, o apitest.Option) *apitest.Answer {
			return b.Delete(t, "/resource/api_keys/"+kid, as, o)
		}
		// now is a code that was never used.
		now := func() string {
			e.Clock.Advance(30e9)
			e.Limits.Forget()
			return e.Code(t, secret, 0)
		}

		a := b.Get(t, "/resource/api_keys", as).WantBody(t, 200, "[]")
		if a.Header.Get("Total") != "0" || a.Header.Get("Page") != "1" || a.Header.Get("Per-Page") != "100" || a.Header.Get("Link") != "" {
			t.Errorf("headers %v", a.Header)
		}
		b.Post(t, "/resource/api_keys", apitest.As(plain), apitest.Form("algorithm", "HS256", "totp_code", "123456")).Want(t, 400, "resource.api_key.2fa_disabled")
		b.Patch(t, "/resource/api_keys/abc", apitest.As(plain), apitest.Form("totp_code", "123456")).Want(t, 400, "resource.api_key.2fa_disabled")
		b.Delete(t, "/resource/api_keys/abc", apitest.As(plain), apitest.Query("totp_code", "123456")).Want(t, 400, "resource.api_key.2fa_disabled")

		algorithm := []string{"resource.apikey.missing_algorithm", "resource.apikey.empty_algorithm"}
		code := []string{"resource.api_key.missing_totp", "resource.apikey.empty_totp_code"}
		post(b, apitest.Form()).Want(t, 400, append(slices.Clone(algorithm), code...)...)
		post(old, apitest.Form()).Want(t, 422, append(slices.Clone(algorithm), code...)...)
		post(b, apitest.Form("algorithm", "", "kid", "", "scope", "", "totp_code", "")).
			Want(t, 400, algorithm[1], "resource.apikey.empty_kid", "resource.apikey.empty_scope", code[1])
		post(b, apitest.Form("algorithm", "Ed25519", "public_key", "", "totp_code", "1")).Want(t, 422, "resource.apikey.empty_public_key")
		post(b, apitest.Form("algorithm", "HS256")).Want(t, 400, code...)
		post(b, apitest.Form("algorithm", "HS256", "scope", " ", "totp_code", "1")).Want(t, 422, "resource.apikey.empty_scope")
		post(b, apitest.JSON(map[string]any{"algorithm": []string{"HS256"}, "totp_code": []string{"1"}, "scope": map[string]int{"a": 1}, "kid": []string{"x"}})).
			Want(t, 422, "invalid", "invalid", "invalid", "invalid")
		post(b, apitest.Form("algorithm", "HS256", "totp_code", e.WrongCode(t, secret))).Want(t, 422, "resource.api_key.invalid_totp")
		post(b, apitest.Form("algorithm", "RS256", "totp_code", now())).Want(t, 422, "kid.blank", "algorithm.inclusion")
		post(b, apitest.Form("algorithm", "HS512", "kid", "mine", "totp_code", now())).Want(t, 422, "algorithm.inclusion")
		post(b, apitest.Form("algorithm", "HS256", "scope", strings.Repeat("x", 256), "totp_code", now())).Want(t, 422, "scope.too_long")
		b.wantActivities(t, u)

		used := now()
		a = post(b, apitest.Form("algorithm", "HS256", "kid", "mine", "scope", "trade, sell", "totp_code", used)).Want(t, 201)
		key := a.Object(t)
		kid, _ := key["kid"].(string)
		plainSecret, _ := key["secret"].(string)
		if !slices.Equal(a.Keys(t), []string{"kid", "algorithm", "scope", "state", "secret", "created_at", "updated_at"}) || !apitest.Hex(kid, 16) ||
			!apitest.Hex(plainSecret, 32) || key["state"] != "active" || fmt.Sprint(key["scope"]) != "[trade  sell]" || key["algorithm"] != "HS256" {
			t.Errorf("key %s", a.Body)
		}
		if k, err := e.DB.APIKey(t.Context(), kid); err != nil || string(k.Secret) != plainSecret || !k.Active || k.UID != u.UID {
			t.Errorf("stored %+v, %v", k, err)
		}
		b.wantMails(t, "api_key.created")
		b.wantEvents(t)
		b.wantActivities(t, u, "api_key / create / succeed")
		post(b, apitest.Form("algorithm", "HS256", "totp_code", used)).Want(t, 422, "totp.error")
		patch(b, kid, apitest.Form("totp_code", used)).Want(t, 422, "totp.error")
		del(b, kid, apitest.Query("totp_code", used)).Want(t, 422, "totp.error")
		if got := post(old, apitest.Form("algorithm", "HS256", "totp_code", now())).Want(t, 201).Object(t); fmt.Sprint(got["scope"]) != "[]" ||
			!apitest.Hex(got["secret"].(map[string]any)["data"].(map[string]any)["value"].(string), 32) {
			t.Errorf("key of the last release %v", got)
		}

		list := b.Get(t, "/resource/api_keys", as, apitest.Query("limit", "1")).Want(t, 200)
		if rows := list.List(t); len(rows) != 1 || rows[0]["kid"] != kid || rows[0]["secret"] != nil || list.Header.Get("Total") != "2" ||
			strings.Count(list.Header.Get("Link"), "rel=") != 2 {
			t.Errorf("list %s, %v", list.Body, list.Header)
		}
		if rows := b.Get(t, "/resource/api_keys", as, apitest.Query("page", "3")).Want(t, 200); rows.Body != "[]" || rows.Header.Get("Total") != "2" {
			t.Errorf("page 3: %s", rows.Body)
		}
		b.Get(t, "/resource/api_keys", apitest.As(plain)).WantBody(t, 200, "[]")
		b.Get(t, "/resource/api_keys", as, apitest.Query("page", "x", "limit", "y")).
			Want(t, 422, "non_integer_page", "non_positive_page", "non_integer_limit", "invalid_limit")

		missing := []string{"resource.apikey.missing_totp_code", "resource.apikey.empty_totp_code"}
		patch(b, kid, apitest.Form()).Want(t, 400, missing...)
		patch(old, kid, apitest.Form()).Want(t, 422, missing...)
		patch(b, kid, apitest.Form("scope", "", "state", "", "totp_code", "")).
			Want(t, 400, "resource.apikey.empty_scope", "resource.apikey.empty_state", missing[1])
		patch(b, kid, apitest.JSON(map[string]any{"scope": []string{"x"}, "state": []string{"x"}, "totp_code": []string{"1"}})).Want(t, 422, "invalid", "invalid", "invalid")
		patch(b, "%20", apitest.Form("totp_code", "123456")).Want(t, 400, "resource.apikey.empty_kid")
		patch(b, "abc", apitest.Form("totp_code", e.WrongCode(t, secret))).Want(t, 422, "resource.api_key.invalid_totp")
		patch(b, "abc", apitest.Form("totp_code", now())).Want(t, 404, "record.not_found")
		patch(b, kid, apitest.Form("state", "odd", "totp_code", now())).Want(t, 422, "state.inclusion")
		patch(b, kid, apitest.Form("scope", strings.Repeat("x", 256), "totp_code", now())).Want(t, 422, "scope.too_long")
		e.Notices()
		a = patch(b, kid, apitest.Form("state", "inactive", "algorithm", "none", "totp_code", now())).Want(t, 200)
		if got := a.Object(t); got["state"] != "inactive" || fmt.Sprint(got["scope"]) != "[trade  sell]" || got["algorithm"] != "HS256" || strings.Contains(a.Body, "secret") {
			t.Errorf("key %v", got)
		}
		if notices := e.Notices(); len(notices) != 1 || notices[0].Subject != kid {
			t.Errorf("notices %v", notices)
		}
		if k, err := e.DB.APIKey(t.Context(), kid); err != nil || k.Active {
			t.Errorf("stored %+v, %v", k, err)
		}
		patch(b, kid, apitest.Form("state", "active", "totp_code", now())).Want(t, 200)
		for _, b := range []*bench{b, old} { // what the original's front end sends for inactive
			if got := patch(b, kid, apitest.Form("state", "disabled", "totp_code", now())).Want(t, 200).Object(t); got["state"] != "disabled" {
				t.Errorf("key %v", got)
			}
			if k, err := e.DB.APIKey(t.Context(), kid); err != nil || k.Active {
				t.Errorf("stored %+v, %v", k, err)
			}
		}
		// As ever, what is empty at the end of the list is no scope.
		if got := patch(b, kid, apitest.Form("scope", ", one,two,,", "totp_code", now())).Want(t, 200); !strings.Contains(got.Body, `"scope":[""," one","two"]`) {
			t.Errorf("scopes %s", got.Body)
		}
		if got := patch(b, kid, apitest.Form("scope", ",,", "totp_code", now())).Want(t, 200); !strings.Contains(got.Body, `"scope":[]`) {
			t.Errorf("no scopes %s", got.Body)
		}
		if got := patch(b, kid, apitest.Form("scope", "one", "state", "active", "totp_code", now())).Want(t, 200).Object(t); fmt.Sprint(got["scope"]) != "[one]" {
			t.Errorf("key %v", got)
		}
		if got := patch(old, kid, apitest.Form("state", "odd", "totp_code", now())).Want(t, 200).Object(t); got["state"] != "odd" {
			t.Errorf("key of the last release %v", got)
		}

		patch(old, kid, apitest.Form("state", strings.Repeat("x", 256), "totp_code", now())).Want(t, 422, "state.too_long")

		stranger := b.member(t)
		e.Enable2FA(t, stranger)
		b.Patch(t, "/resource/api_keys/"+kid, apitest.As(stranger), apitest.Form("state", "inactive", "totp_code", e.Code(t, secret, 0))).Want(t, 404, "record.not_found")
		b.Delete(t, "/resource/api_keys/"+kid, apitest.As(stranger), apitest.Query("totp_code", e.Code(t, secret, 1))).Want(t, 404, "record.not_found")

		del(b, kid, apitest.Query()).Want(t, 400, missing...)
		del(old, kid, apitest.Query()).Want(t, 422, missing...)
		del(b, kid, apitest.Query("totp_code", "")).Want(t, 400, missing[1])
		del(b, kid, apitest.JSON(map[string]any{"totp_code": []string{"1"}})).Want(t, 422, "invalid")
		del(b, "%20", apitest.Query("totp_code", "123456")).Want(t, 400, "resource.apikey.empty_kid")
		del(b, kid, apitest.Form("totp_code", e.WrongCode(t, secret))).Want(t, 422, "resource.api_key.invalid_totp")
		del(b, kid, apitest.Query("totp_code", now())).WantBody(t, 204, "")
		del(b, kid, apitest.Form("totp_code", now())).Want(t, 404, "record.not_found")
		if got := b.activities(t, u); got[len(got)-1] != "api_key / delete / succeed" {
			t.Errorf("activities %q", got)
		}

		// The owner's own key pair: nothing secret is made.
		public, _, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		encoded := base64.StdEncoding.EncodeToString(public)
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		block := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		for text, b := range map[string]*bench{encoded: b, strings.TrimRight(encoded, "="): b, block: b, block + "\n": old} {
			a := post(b, apitest.Form("algorithm", "Ed25519", "public_key", text, "totp_code", now())).Want(t, 201)
			key := a.Object(t)
			if !slices.Equal(a.Keys(t), []string{"kid", "algorithm", "public_key", "scope", "state", "created_at", "updated_at"}) ||
				key["public_key"] != encoded || key["algorithm"] != "Ed25519" {
				t.Errorf("key %s", a.Body)
			}
			kid := key["kid"].(string)
			if k, err := e.DB.APIKey(t.Context(), kid); err != nil || len(k.Secret) != 0 || !bytes.Equal(k.PublicKey, public) || !k.Active {
				t.Errorf("stored %+v, %v", k, err)
			}
			if k, err := e.DB.APIKeysOf(t.Context(), []string{kid}); err != nil || !bytes.Equal(k[0].PublicKey, public) {
				t.Errorf("stored %+v, %v", k, err)
			}
			if got := patch(b, kid, apitest.Form("scope", "one", "totp_code", now())).Want(t, 200).Object(t); got["public_key"] != encoded {
				t.Errorf("changed %v", got)
			}
			if body := b.Get(t, "/resource/api_keys", as).Want(t, 200).Body; !strings.Contains(body, `"public_key":"`+encoded+`"`) {
				t.Errorf("list %s", body)
			}
			del(b, kid, apitest.Query("totp_code", now())).Want(t, 204)
		}
		rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		if der, err = x509.MarshalPKIXPublicKey(rsaKey.Public()); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{
			"x", encoded + "A", encoded[:40], block + block, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
			base64.StdEncoding.EncodeToString(make([]byte, 32)),                             // of a small order
			base64.StdEncoding.EncodeToString(append([]byte{1}, make([]byte, 31)...)),       // of order one
			base64.StdEncoding.EncodeToString(append([]byte{2}, make([]byte, 31)...)),       // not on the curve
			base64.StdEncoding.EncodeToString(append(bytes.Repeat([]byte{0xff}, 31), 0x7f)), // beyond the field
		} {
			post(b, apitest.Form("algorithm", "Ed25519", "public_key", text, "totp_code", now())).Want(t, 422, "public_key.invalid")
		}
		post(old, apitest.Form("algorithm", "Ed25519", "totp_code", now())).Want(t, 422, "public_key.blank")

		// One code makes one key.
		form, token := []byte("algorithm=HS256&totp_code="+now()), e.Token(t, u)
		wantCount(t, atOnce(4, func(int) int {
			return b.call(t, "POST", "/resource/api_keys", "application/x-www-form-urlencoded", token, form)
		}), map[int]int{201: 1, 422: 3})
		if _, total, err := e.DB.UserAPIKeys(t.Context(), u.ID, db.Page{Number: 1, Size: 100}); err != nil || total != 2 {
			t.Errorf("%d keys, %v", total, err)
		}
	})
}

// hooked are limits that let something happen once a code was accepted, and before the change that it was for.
type hooked struct {
	limit.Limiter
	then func()
}

func (h *hooked) Reset(ctx context.Context, key string) error {
	err := h.Limiter.Reset(ctx, key)
	h.then()
	return err
}

// TestKeysOfAnAccountThatJustChanged holds that a key is neither made nor revived for an account that was closed, or that
// lost its second factor, while the call was under way: its keys were switched off for good.
func TestKeysOfAnAccountThatJustChanged(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	for name, c := range map[string]struct {
		column string
		change func(u *db.User)
		want   int
		code   string
	}{
		"banned":            {"state", func(u *db.User) { u.State = "banned" }, 401, "authz.user_not_active"},
		"second factor off": {"otp", func(u *db.User) { u.OTP = false }, 400, "resource.api_key.2fa_disabled"},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, e)
			u := e.NewUser(t, nil)
			secret := e.Enable2FA(t, u)
			as := apitest.As(u)
			kid, _ := b.Post(t, "/resource/api_keys", as, apitest.Form("algorithm", "HS256", "totp_code", e.Code(t, secret, 0))).Want(t, 201).Object(t)["kid"].(string)
			for method, path := range map[string]string{"POST": "/resource/api_keys", "PATCH": "/resource/api_keys/" + kid} {
				e.Clock.Advance(rest60)
				e.Limits.Limiter = &hooked{e.Limits.Limiter, func() {
					changed := *u
					c.change(&changed)
					e.Update(t, func(ctx context.Context, tx *db.Tx) error { return tx.UpdateUser(ctx, &changed, c.column) })
				}}
				b.Do(t, method, path, as, apitest.Form("algorithm", "HS256", "state", "active", "totp_code", e.Code(t, secret, 0))).Want(t, c.want, c.code)
				e.Limits.Limiter = e.Limits.Limiter.(*hooked).Limiter
				e.Update(t, func(ctx context.Context, tx *db.Tx) error { return tx.UpdateUser(ctx, u, c.column) })
			}
		})
	}
}

// TestRepeatsGrowNoTable holds that what members can do again and again for nothing gives one row, which counts.
func TestRepeatsGrowNoTable(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		u, other := b.member(t), b.member(t)
		rows := func() map[string]int {
			t.Helper()
			out := map[string]int{}
			for _, row := range e.Activities(t) {
				if row.UserID == u.ID {
					out[row.Action+" "+row.Result] += row.Count * 1000
					out[row.Action+" "+row.Result]++
				}
			}
			return out
		}
		disable := func(who *db.User, o ...apitest.Option) {
			b.Post(t, "/resource/otp/disable", append(o, apitest.As(who), apitest.Form("code", "123456"))...).Want(t, 400, "resource.otp.not_enabled")
		}
		var group sync.WaitGroup
		for range 5 {
			group.Go(func() { disable(u) })
		}
		group.Wait()
		disable(other)
		for range 3 {
			b.Post(t, "/resource/otp/generate_qrcode", apitest.As(u)).Want(t, 201)
			b.Put(t, "/resource/users/password", apitest.As(u), apitest.Form("old_password", "x", "new_password", "y", "confirm_password", "z")).
				Want(t, 422, "resource.password.doesnt_match")
		}
		want := map[string]int{"disable 2FA failed": 5001, "request QR code for 2FA succeed": 3001, "password change failed": 3001}
		if got := rows(); !maps.Equal(got, want) {
			t.Errorf("counts and rows %v, want %v", got, want)
		}
		// Another reason, and another address, are told apart, but not without end.
		b.Put(t, "/resource/users/password", apitest.As(u), apitest.Form("old_password", "x", "new_password", fresh, "confirm_password", fresh)).
			Want(t, 400, "resource.password.prev_pass_not_correct")
		for i := range 30 {
			disable(u, apitest.IP(fmt.Sprintf("203.0.113.%d", i)))
		}
		got := rows()
		if got["password change failed"] != 4002 || got["disable 2FA failed"]/1000 != 35 || got["disable 2FA failed"]%1000 > 20 {
			t.Errorf("counts and rows %v", got)
		}
		e.Clock.Advance(2 * time.Minute)
		disable(u)
		if after := rows(); after["disable 2FA failed"] != got["disable 2FA failed"]+1001 {
			t.Errorf("two minutes later: %v", after)
		}
	})
}
