package resource_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/api/account"
	"barong/api/resource"
	"barong/db"
	"barong/internal/crypto/passkey"
	"barong/internal/crypto/passkey/passkeytest"
	"barong/internal/test/apitest"
)

// begun is a passkey that was begun to be made.
type begun struct {
	Flow      string
	PublicKey json.RawMessage
}

// beginPasskey proves who somebody is by their password.
func (b *bench) beginPasskey(t *testing.T, u *db.User) begun {
	t.Helper()
	var out begun
	a := b.Post(t, "/resource/passkeys/options", apitest.As(u), apitest.Form("password", apitest.Password)).Want(t, 201)
	if keys := a.Keys(t); !slices.Equal(keys, []string{"flow", "publicKey"}) {
		t.Errorf("members %q", keys)
	}
	a.Decode(t, &out)
	return out
}

func (b begun) end(name, credential string) apitest.Option {
	return apitest.JSON(map[string]any{"flow": b.Flow, "name": name, "credential": json.RawMessage(credential)})
}

func TestPasskeys(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		u, other := e.NewUser(t, nil), e.NewUser(t, nil)
		as := apitest.As(u)
		mine, elsewhere := b.signIn(t, u), b.signIn(t, u)
		b.Get(t, "/resource/passkeys", as).WantBody(t, 200, "[]")

		k := passkeytest.New(t, passkeytest.Ed25519)
		k.Flags |= passkeytest.BackupEligible | passkeytest.BackedUp
		flow := b.beginPasskey(t, u)
		const name = "  José's iPhone — 日本 👩‍💻 "
		a := b.Post(t, "/resource/passkeys", as, apitest.Cookie(cookieName, mine), flow.end(name, k.Make(t, flow.PublicKey, nil))).Want(t, 201)
		if keys := a.Keys(t); !slices.Equal(keys, []string{"id", "name", "created_at", "last_used_at", "backed_up", "transports"}) {
			t.Errorf("members %q", keys)
		}
		row := a.Object(t)
		if row["name"] != "José's iPhone — 日本 👩‍💻" || row["last_used_at"] != nil || row["backed_up"] != true ||
			fmt.Sprint(row["transports"]) != "[internal hybrid]" {
			t.Errorf("row %s", a.Body)
		}
		b.wantActivities(t, u, "session / passkey::create / succeed")
		mails := e.Mails(t)
		if len(mails) != 1 || mails[0].Kind != "passkey.created" || mails[0].To != u.Email || strings.Contains(mails[0].Text, "iPhone") {
			t.Errorf("mails %+v", mails)
		}
		b.wantEvents(t)
		if !b.alive(t, mine) || !b.alive(t, elsewhere) {
			t.Error("a session was ended")
		}
		b.Get(t, "/resource/passkeys", as).WantBody(t, 200, "["+a.Body+"]")
		b.Get(t, "/resource/passkeys", apitest.As(other)).WantBody(t, 200, "[]")

		// The next one excludes it; the same one again is taken, whoever asks.
		flow = b.beginPasskey(t, u)
		if !strings.Contains(string(flow.PublicKey), `"excludeCredentials":[{`) {
			t.Errorf("options %s", flow.PublicKey)
		}
		b.Post(t, "/resource/passkeys", as, flow.end("x", k.Make(t, flow.PublicKey, nil))).Want(t, 422, "resource.passkey.taken")
		theirs := b.beginPasskey(t, other)
		b.Post(t, "/resource/passkeys", apitest.As(other), theirs.end("x", k.Make(t, theirs.PublicKey, nil))).Want(t, 422, "resource.passkey.taken")

		id := fmt.Sprint(row["id"])
		renamed := b.Patch(t, "/resource/passkeys/"+id, as, apitest.Form("name", "Old phone")).Want(t, 200)
		if got := renamed.Object(t); got["name"] != "Old phone" || fmt.Sprint(got["id"]) != id {
			t.Errorf("renamed %s", renamed.Body)
		}
		for _, path := range []string{"0", "x", "-1", "99999999999999999999", "1e3"} {
			b.Patch(t, "/resource/passkeys/"+path, as, apitest.Form("name", "x")).Want(t, 404, "record.not_found")
		}
		b.Patch(t, "/resource/passkeys/%20", as, apitest.Form("name", "x")).Want(t, 422, "resource.passkey.empty_id")
		b.Delete(t, "/resource/passkeys/%20", as, apitest.Form("password", "x")).Want(t, 422, "resource.passkey.empty_id")
		b.Patch(t, "/resource/passkeys/"+id, apitest.As(other), apitest.Form("name", "mine")).Want(t, 404, "record.not_found")
		b.Delete(t, "/resource/passkeys/"+id, apitest.As(other), apitest.Query("password", apitest.Password)).Want(t, 404, "record.not_found")

		b.Delete(t, "/resource/passkeys/"+id, as, apitest.Form("password", apitest.Password)).WantBody(t, 204, "")
		b.Delete(t, "/resource/passkeys/"+id, as, apitest.Query("password", apitest.Password)).Want(t, 404, "record.not_found")
		b.Get(t, "/resource/passkeys", as).WantBody(t, 200, "[]")
		b.wantActivities(t, u, "session / passkey::create / succeed", "session / passkey::delete / succeed")
		b.wantMails(t, "passkey.deleted")
		if !b.alive(t, mine) || !b.alive(t, elsewhere) {
			t.Error("a session was ended")
		}
		// Removed with its user.
		e.NewPasskey(t, other, passkeytest.ES256)
		e.Update(t, func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.NewDelete().Model(other).WherePK().Exec(ctx)
			return err
		})
		if rows, err := e.DB.Passkeys(t.Context(), other.ID); err != nil || len(rows) != 0 {
			t.Errorf("passkeys %+v, %v of nobody", rows, err)
		}
	})
}

func TestPasskeyProof(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		plain, factor := e.NewUser(t, nil), e.NewUser(t, nil)
		e.NewPasskey(t, plain, passkeytest.ES256)
		e.NewPasskey(t, factor, passkeytest.ES256)
		secret := e.Enable2FA(t, factor)
		first := func(u *db.User) string {
			rows, err := e.DB.Passkeys(t.Context(), u.ID)
			if err != nil || len(rows) != 1 {
				t.Fatal(rows, err)
			}
			return fmt.Sprintf("/resource/passkeys/%d", rows[0].ID)
		}
		// Both ask for the same proof.
		ask := []func(u *db.User, pairs ...string) *apitest.Answer{
			func(u *db.User, pairs ...string) *apitest.Answer {
				return b.Post(t, "/resource/passkeys/options", apitest.As(u), apitest.Form(pairs...))
			},
			func(u *db.User, pairs ...string) *apitest.Answer {
				return b.Delete(t, first(u), apitest.As(u), apitest.Query(pairs...))
			},
		}
		for _, ask := range ask {
			ask(plain).Want(t, 422, "resource.user.missing_password")
			ask(plain, "totp_code", "123456").Want(t, 422, "resource.user.missing_password")
			ask(plain, "password", " ").Want(t, 422, "resource.user.empty_password")
			ask(plain, "password", "wrong").Want(t, 422, "resource.user.invalid_password")
			ask(factor, "password", apitest.Password).Want(t, 422, "resource.user.missing_otp_code")
			ask(factor, "totp_code", "").Want(t, 422, "resource.user.missing_otp_code")
			ask(factor, "totp_code", e.WrongCode(t, secret)).Want(t, 422, "resource.user.invalid_otp")
			ask(factor, "totp_code", "letter").Want(t, 422, "resource.user.invalid_otp")
		}
		b.Post(t, "/resource/passkeys/options", apitest.As(plain), apitest.JSON(map[string]any{"password": []string{"x"}, "totp_code": map[string]any{"a": 1}})).
			Want(t, 422, "invalid", "invalid")
		b.Delete(t, first(plain), apitest.As(plain), apitest.JSON(map[string]any{"password": []string{"x"}})).Want(t, 422, "invalid")
		used := e.Code(t, secret, 0)
		ask[0](factor, "totp_code", used[:3]+" "+used[3:]).Want(t, 201)
		for _, ask := range ask {
			ask(factor, "totp_code", used).Want(t, 422, "totp.error")
		}
		b.wantMails(t)
		// A wrong id uses up no code.
		e.Clock.Advance(time.Minute)
		code := e.Code(t, secret, 0)
		b.Delete(t, "/resource/passkeys/0", apitest.As(factor), apitest.Query("totp_code", code)).Want(t, 404, "record.not_found")
		b.Delete(t, first(factor), apitest.As(factor), apitest.Query("totp_code", code)).Want(t, 204)

		// Guesses are limited as at a sign-in.
		limited := e.NewUser(t, nil)
		e.NewPasskey(t, limited, passkeytest.ES256)
		for _, ask := range ask {
			var group sync.WaitGroup
			for range 20 {
				group.Go(func() { ask(limited, "password", "wrong").Want(t, 422, "resource.user.invalid_password") })
			}
			group.Wait()
			ask(limited, "password", apitest.Password).Want(t, 429, "request.rate_limited")
			e.Limits.Forget()
		}
	})
}

func TestPasskeyRefusals(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		u, other := e.NewUser(t, nil), e.NewUser(t, nil)
		as := apitest.As(u)
		add := func(who *db.User, flow begun, credential string) *apitest.Answer {
			t.Helper()
			return b.Post(t, "/resource/passkeys", apitest.As(who), flow.end("Phone", credential))
		}
		missing := []string{"resource.passkey.missing_flow", "resource.passkey.missing_credential", "resource.passkey.missing_name"}
		b.Post(t, "/resource/passkeys", as).Want(t, 422, append(slices.Clone(missing), "resource.passkey.empty_name")...)
		b.Patch(t, "/resource/passkeys/1", as).Want(t, 422, "resource.passkey.missing_name", "resource.passkey.empty_name")
		b.Patch(t, "/resource/passkeys/1", as, apitest.Form("name", " ")).Want(t, 422, "resource.passkey.empty_name")
		b.Patch(t, "/resource/passkeys/1", as, apitest.JSON(map[string]any{"name": []string{"x"}})).Want(t, 422, "invalid")
		b.Post(t, "/resource/passkeys", as, apitest.JSON(map[string]any{"flow": []int{1}, "credential": []int{1}, "name": map[string]any{"a": 1}})).
			Want(t, 422, "invalid", "invalid", "invalid")
		flow := b.beginPasskey(t, u)
		k := passkeytest.New(t, passkeytest.ES256)
		credential := k.Make(t, flow.PublicKey, nil)
		for name, code := range map[string]string{
			strings.Repeat("ä", 65): "name.too_long", "a\nb": "name.invalid", "a\u202eb": "name.invalid", "a\u2028b": "name.invalid",
		} {
			b.Post(t, "/resource/passkeys", as, flow.end(name, credential)).Want(t, 422, code)
			b.Patch(t, "/resource/passkeys/1", as, apitest.Form("name", name)).Want(t, 422, code)
		}
		// Nobody's megabyte is read, and none of these has used up the flow.
		huge, err := json.Marshal(strings.Repeat("x", 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		b.Post(t, "/resource/passkeys", as, flow.end("x", string(huge))).Want(t, 413, "request.too_large")
		add(other, flow, credential).Want(t, 422, "resource.passkey.invalid") // swapped
		add(u, flow, credential).Want(t, 201)
		add(u, flow, credential).Want(t, 422, "resource.passkey.invalid") // replayed

		for name, spoil := range map[string]func(*passkeytest.Ceremony){
			"wrong origin":         func(c *passkeytest.Ceremony) { c.Origin = "https://evil.example" },
			"wrong RP":             func(c *passkeytest.Ceremony) { c.RPID = "evil.example" },
			"no user verification": func(c *passkeytest.Ceremony) { c.Flags &^= passkeytest.Verified },
			"malformed CBOR":       func(c *passkeytest.Ceremony) { c.PublicKey = []byte{0xa5, 0x01} },
		} {
			flow := b.beginPasskey(t, u)
			if a := add(u, flow, passkeytest.New(t, passkeytest.ES256).Make(t, flow.PublicKey, spoil)); a.Status != 422 ||
				!slices.Equal(a.Codes(), []string{"resource.passkey.invalid"}) {
				t.Errorf("%s: %d %s", name, a.Status, a.Body)
			}
		}
		for _, credential := range []string{`""`, `"x"`, `null`, `{}`, `1`, `{"id":"AA","rawId":"AA","type":"public-key","response":{}}`} {
			flow := b.beginPasskey(t, u)
			add(u, flow, credential).Want(t, 422, "resource.passkey.invalid")
			add(u, flow, passkeytest.New(t, passkeytest.ES256).Make(t, flow.PublicKey, nil)).Want(t, 422, "resource.passkey.invalid")
		}
		flow = b.beginPasskey(t, u)
		e.Clock.Advance(5 * time.Minute)
		add(u, flow, passkeytest.New(t, passkeytest.ES256).Make(t, flow.PublicKey, nil)).Want(t, 422, "resource.passkey.invalid")
		// What was proved before the sessions were ended, as by a new password, counts no more.
		flow = b.beginPasskey(t, u)
		if err := e.Accounts.Update(t.Context(), func(ctx context.Context, unit *account.Unit) error {
			return unit.EndSessions(ctx, e.Fresh(t, u), nil)
		}); err != nil {
			t.Fatal(err)
		}
		add(u, flow, passkeytest.New(t, passkeytest.ES256).Make(t, flow.PublicKey, nil)).Want(t, 422, "resource.passkey.invalid")

		// Twenty, also in parallel.
		many := e.NewUser(t, nil)
		flows := make([]begun, passkey.MaxPerUser+3)
		for i := range flows {
			flows[i] = b.beginPasskey(t, many)
		}
		answers := make([]*apitest.Answer, len(flows))
		var group sync.WaitGroup
		for i := range flows {
			credential := passkeytest.New(t, passkeytest.ES256).Make(t, flows[i].PublicKey, nil)
			group.Go(func() { answers[i] = add(many, flows[i], credential) })
		}
		group.Wait()
		added := 0
		for _, a := range answers {
			if a.Status == 201 {
				added++
				continue
			}
			a.Want(t, 422, "resource.passkey.limit")
		}
		if added != passkey.MaxPerUser {
			t.Errorf("%d passkeys were added, want %d", added, passkey.MaxPerUser)
		}
		if rows := b.Get(t, "/resource/passkeys", apitest.As(many)).Want(t, 200).List(t); len(rows) != passkey.MaxPerUser {
			t.Errorf("%d passkeys, want %d", len(rows), passkey.MaxPerUser)
		}
	})
}

func TestPasskeysOfRelease(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	b := start(t, e, legacy)
	u := e.NewUser(t, nil)
	flow := b.beginPasskey(t, u)
	k := passkeytest.New(t, passkeytest.ES256)
	// As a form, with the credential as JSON text.
	a := b.Post(t, "/resource/passkeys", apitest.As(u), apitest.Body("application/x-www-form-urlencoded",
		url.Values{"flow": {flow.Flow}, "name": {"x"}, "credential": {k.Make(t, flow.PublicKey, nil)}}.Encode())).Want(t, 201)
	b.Delete(t, fmt.Sprintf("/resource/passkeys/%v", a.Object(t)["id"]), apitest.As(u), apitest.Query("password", apitest.Password)).Want(t, 204)
	none := start(t, e, func(o *resource.Options) { o.NoPasskeys = true })
	if a := none.Get(t, "/resource/passkeys", apitest.As(u)); a.Status != 404 {
		t.Errorf("without passkeys: %d %s", a.Status, a.Body)
	}
}
