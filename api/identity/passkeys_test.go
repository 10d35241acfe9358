package identity_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/api/identity"
	"barong/db"
	"barong/internal/crypto/passkey/passkeytest"
	"barong/internal/limit"
	"barong/internal/test/apitest"
	"barong/session"
)

// begun is a sign-in that was begun.
type begun struct {
	Flow      string
	PublicKey json.RawMessage
}

func begin(t *testing.T, s *apitest.Server) begun {
	t.Helper()
	var b begun
	a := s.Post(t, "/identity/sessions/passkey/options").Want(t, 201)
	if keys := a.Keys(t); !slices.Equal(keys, []string{"flow", "publicKey"}) {
		t.Errorf("members %q", keys)
	}
	a.Decode(t, &b)
	return b
}

// end sends a credential, as an object.
func (b begun) end(credential string) apitest.Option {
	return apitest.JSON(map[string]any{"flow": b.Flow, "credential": json.RawMessage(credential)})
}

const wrongPasskey = "identity.session.invalid_passkey"

func TestSignInByPasskey(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		old := start(t, e, nil, apitest.Legacy)
		u := e.NewUser(t, nil)
		e.Enable2FA(t, u) // a passkey is both factors
		k := e.NewPasskey(t, u, passkeytest.Ed25519)
		e.Mails(t)
		e.Events()

		b := begin(t, s)
		a := s.Post(t, "/identity/sessions/passkey", b.end(k.Get(t, b.PublicKey, nil)), apitest.IP("203.0.113.7")).Want(t, 201)
		cookie, _ := opened(t, a)
		if a.Object(t)["uid"] != u.UID || !alive(t, e, cookie) {
			t.Errorf("answer %s", a.Body)
		}
		if live, err := e.Accounts.ListSessions(t.Context(), u); err != nil || len(live) != 1 || live[0].Methods != session.HardwareKey {
			t.Errorf("sessions %+v, %v", live, err)
		}
		wantActivities(t, e, "session login succeed")
		wantEvents(t, e, "system.session.create")
		if kinds := e.MailKinds(t); !slices.Equal(kinds, []string{"session.create"}) {
			t.Errorf("mails %q", kinds)
		}
		row, err := e.DB.Passkeys(t.Context(), u.ID)
		if err != nil || row[0].LastUsedAt == nil {
			t.Errorf("passkey %+v, %v", row, err)
		}
		// The same browser again, as a form, in the mode of the last release.
		b = begin(t, old)
		again, _ := opened(t, old.Post(t, "/identity/sessions/passkey", apitest.Cookie(cookieName, cookie),
			apitest.Form("flow", b.Flow, "credential", k.Get(t, b.PublicKey, nil))).Want(t, 201))
		if again == cookie || alive(t, e, cookie) || !alive(t, e, again) {
			t.Error("the session of the same browser was not replaced")
		}
		// A pending account may.
		pending := e.NewUser(t, func(u *db.User) { u.State = "pending" })
		p := e.NewPasskey(t, pending, passkeytest.ES256)
		b = begin(t, s)
		s.Post(t, "/identity/sessions/passkey", b.end(p.Get(t, b.PublicKey, nil))).Want(t, 201)
	})
}

func TestPasskeyParameters(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	s := start(t, e, nil)
	old := start(t, e, nil, apitest.Legacy)
	missing := []string{"identity.session.missing_flow", "identity.session.missing_credential"}
	s.Post(t, "/identity/sessions/passkey").Want(t, 400, missing...)
	old.Post(t, "/identity/sessions/passkey").Want(t, 422, missing...)
	b := begin(t, s)
	for _, credential := range []any{
		"", "x", "{", "null", "{}", nil, 1, true,
		map[string]any{},
		map[string]any{"id": "AA", "rawId": "AA", "type": "public-key"},
		map[string]any{"id": 1},
		map[string]any{"id": "AA", "rawId": "AA", "type": "public-key", "response": map[string]any{
			"clientDataJSON": "e30", "authenticatorData": "AAAA", "signature": "AA", "userHandle": "AA",
		}},
		`{"id":"AA"}{"id":"AA"}`, strings.Repeat("[", 30),
	} {
		s.Post(t, "/identity/sessions/passkey", apitest.JSON(map[string]any{"flow": b.Flow, "credential": credential})).Want(t, 401, wrongPasskey)
		e.Limits.Forget()
	}
	for _, flow := range []any{"", "x", nil, 1, "s1.00000000.AAAA", strings.Repeat("x", 8000)} {
		s.Post(t, "/identity/sessions/passkey", apitest.JSON(map[string]any{"flow": flow, "credential": map[string]any{}})).Want(t, 401, wrongPasskey)
	}
	s.Post(t, "/identity/sessions/passkey", apitest.JSON(map[string]any{"flow": []string{"x"}, "credential": []any{map[string]any{}}})).
		Want(t, 422, "invalid", "invalid")
	// Nobody's megabyte is read.
	s.Post(t, "/identity/sessions/passkey", apitest.JSON(map[string]any{"flow": b.Flow, "credential": strings.Repeat("x", 1<<20)})).
		Want(t, 413, "request.too_large")
	s.Post(t, "/identity/sessions/passkey", apitest.Body("application/json", `{"flow":"x","credential":`+strings.Repeat(`{"a":`, 40)+"1"+strings.Repeat("}", 40)+"}")).
		Want(t, 400, "request.malformed_body")
	for _, path := range []string{"/identity/sessions/passkey", "/identity/sessions/passkey/options"} {
		s.Post(t, path, apitest.Header("Sec-Fetch-Site", "cross-site"), apitest.Form("flow", "x", "credential", "x")).
			Want(t, 401, "authz.csrf_token_mismatch")
	}
	if rows := activities(t, e); len(rows) != 0 {
		t.Errorf("activities %q of nobody", rows)
	}
	none := start(t, e, func(o *identity.Options) { o.NoPasskeys = true })
	if a := none.Post(t, "/identity/sessions/passkey/options"); a.Status != 404 {
		t.Errorf("without passkeys: %d %s", a.Status, a.Body)
	}
}

func TestPasskeyRefusals(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		u, other := e.NewUser(t, nil), e.NewUser(t, nil)
		k, foreign := e.NewPasskey(t, u, passkeytest.ES256), e.NewPasskey(t, other, passkeytest.ES256)
		e.Mails(t)
		end := func(b begun, credential string) *apitest.Answer {
			t.Helper()
			return s.Post(t, "/identity/sessions/passkey", b.end(credential))
		}
		for name, spoil := range map[string]func(*passkeytest.Ceremony){
			"wrong origin":         func(c *passkeytest.Ceremony) { c.Origin = "https://evil.example" },
			"wrong RP":             func(c *passkeytest.Ceremony) { c.RPID = "evil.example" },
			"no user verification": func(c *passkeytest.Ceremony) { c.Flags &^= passkeytest.Verified },
			"another user":         func(c *passkeytest.Ceremony) { c.Handle = []byte(other.UID) },
			"another's passkey":    func(c *passkeytest.Ceremony) { c.ID = foreign.ID },
			"another's whole":      func(c *passkeytest.Ceremony) { c.ID, c.Handle = foreign.ID, foreign.Handle },
			"unknown":              func(c *passkeytest.Ceremony) { c.ID = make([]byte, 16) },
			"wrong signature":      func(c *passkeytest.Ceremony) { c.Forge = func(s []byte) []byte { return s[1:] } },
		} {
			b := begin(t, s)
			if a := end(b, k.Get(t, b.PublicKey, spoil)); a.Status != 401 || !slices.Equal(a.Codes(), []string{wrongPasskey}) || a.SetCookie(cookieName) != nil {
				t.Errorf("%s: %d %s", name, a.Status, a.Body)
			}
		}
		for _, row := range e.Activities(t) {
			if row.Topic != "session" || row.Action != "login" || row.Result != "failed" || *row.Data != `{"reason":"Invalid passkey"}` {
				t.Errorf("activity %+v", row)
			}
		}
		// A flow works once, whatever became of it, and not for long.
		b := begin(t, s)
		credential := k.Get(t, b.PublicKey, nil)
		end(b, credential).Want(t, 201)
		end(b, credential).Want(t, 401, wrongPasskey)
		end(b, k.Get(t, b.PublicKey, nil)).Want(t, 401, wrongPasskey)
		b = begin(t, s)
		end(b, "{}").Want(t, 401, wrongPasskey)
		end(b, k.Get(t, b.PublicKey, nil)).Want(t, 401, wrongPasskey)
		b = begin(t, s)
		e.Clock.Advance(5 * time.Minute)
		end(b, k.Get(t, b.PublicKey, nil)).Want(t, 401, wrongPasskey)
		// One that was begun to make a passkey signs nobody in.
		flow, options, err := e.Accounts.BeginPasskey(t.Context(), u)
		if err != nil {
			t.Fatal(err)
		}
		asked, err := json.Marshal(options)
		if err != nil {
			t.Fatal(err)
		}
		end(begun{Flow: flow}, k.Get(t, asked, nil)).Want(t, 401, wrongPasskey)

		// States are told to who has the passkey, alone.
		for state, code := range map[string]string{"banned": "banned", "deleted": "deleted", "locked": "not_active"} {
			closed := e.NewUser(t, func(u *db.User) { u.State = state })
			key := e.NewPasskey(t, closed, passkeytest.ES256)
			b := begin(t, s)
			end(b, key.Get(t, b.PublicKey, nil)).Want(t, 401, "identity.session."+code)
			b = begin(t, s)
			end(b, key.Get(t, b.PublicKey, func(c *passkeytest.Ceremony) { c.Origin = "https://evil.example" })).Want(t, 401, wrongPasskey)
		}
		// A removed one is unknown.
		e.Update(t, func(ctx context.Context, tx *db.Tx) error {
			rows, err := tx.Passkeys(ctx, u.ID)
			if err != nil {
				return err
			}
			return tx.DeletePasskey(ctx, &rows[0])
		})
		b = begin(t, s)
		end(b, k.Get(t, b.PublicKey, nil)).Want(t, 401, wrongPasskey)
	})
}

func TestPasskeyCounter(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		u := e.NewUser(t, nil)
		k := e.NewPasskey(t, u, passkeytest.ES256)
		k.Count = 4 // it begins to count
		signIn := func(spoil func(*passkeytest.Ceremony)) *apitest.Answer {
			t.Helper()
			b := begin(t, s)
			return s.Post(t, "/identity/sessions/passkey", b.end(k.Get(t, b.PublicKey, spoil)))
		}
		signIn(nil).Want(t, 201)
		signIn(nil).Want(t, 201)
		e.Mails(t)
		e.Events()
		for i, count := range []uint32{5, 6, 0} {
			signIn(func(c *passkeytest.Ceremony) { c.Count = count }).Want(t, 401, wrongPasskey)
			mails := e.Mails(t)
			if len(mails) != 1 || mails[0].Kind != "passkey.copied" || mails[0].To != u.Email || !strings.Contains(mails[0].Text, "127.0.0.1") ||
				strings.Contains(mails[0].Text, "Phone") {
				t.Fatalf("count %d: mails %+v", count, mails)
			}
			if row := activities(t, e)[2]; i == 0 && row != `session login failed {"reason":"Invalid passkey"}` {
				t.Errorf("activity %s", row)
			}
		}
		wantEvents(t, e)
		k.Count = 6
		signIn(nil).Want(t, 201)

		// Two copies that come together: one of them.
		k.Count = 100
		e.Mails(t)
		const n = 4
		answers, flows := make([]*apitest.Answer, n), make([]begun, n)
		for i := range flows {
			flows[i] = begin(t, s)
		}
		var group sync.WaitGroup
		for i := range flows {
			credential := k.Get(t, flows[i].PublicKey, func(c *passkeytest.Ceremony) { c.Count = 200 })
			group.Go(func() { answers[i] = s.Post(t, "/identity/sessions/passkey", flows[i].end(credential)) })
		}
		group.Wait()
		passed := 0
		for _, a := range answers {
			if a.Status == 201 {
				passed++
				continue
			}
			a.Want(t, 401, wrongPasskey)
		}
		kinds := e.MailKinds(t)
		slices.Sort(kinds)
		if passed != 1 || !slices.Equal(kinds, []string{"passkey.copied", "passkey.copied", "passkey.copied", "session.create"}) {
			t.Errorf("%d of %d passed, mails %q", passed, n, kinds)
		}
	})
}

func TestPasskeyLimits(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	s := start(t, e, nil)
	u := e.NewUser(t, nil)
	k := e.NewPasskey(t, u, passkeytest.ES256)
	signIn := func(spoil func(*passkeytest.Ceremony)) *apitest.Answer {
		t.Helper()
		b := begin(t, s)
		return s.Post(t, "/identity/sessions/passkey", b.end(k.Get(t, b.PublicKey, spoil)))
	}
	for range limit.SignIn.Max {
		signIn(nil).Want(t, 201)
	}
	a := signIn(nil).Want(t, 429, "request.rate_limited")
	if a.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	e.Limits.Forget()
	wrong := func(c *passkeytest.Ceremony) { c.Origin = "https://evil.example" }
	var group sync.WaitGroup
	for range limit.WrongPasswordAddress.Max {
		group.Go(func() { signIn(wrong).Want(t, 401, wrongPasskey) })
	}
	group.Wait()
	signIn(nil).Want(t, 429, "request.rate_limited")
	// Others are not shut out, nor is the account from elsewhere.
	b := begin(t, s)
	s.Post(t, "/identity/sessions/passkey", b.end(k.Get(t, b.PublicKey, nil)), apitest.IP("203.0.113.9")).Want(t, 201)
}
