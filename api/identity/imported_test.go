package identity_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"testing"
	"time"

	"barong/db"
	"barong/internal/test/apitest"
)

// TestLinksOfTheOriginal: mails that the original sent before its database was imported are honoured, once.
func TestLinksOfTheOriginal(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		// signed is a token as the original signs it, without a key id in the header.
		signed := func(u *db.User, kind string, age time.Duration) string {
			claims := e.Claims(u)
			claims["sub"], claims["iat"], claims["exp"] = kind, e.Clock.Now().Add(-age).Unix(), e.Clock.Now().Add(time.Hour-age).Unix()
			body, err := json.Marshal(claims)
			if err != nil {
				t.Fatal(err)
			}
			set := e.Keys.Current()
			head := `{"alg":"` + set.Algorithm() + `"}`
			text := base64.RawURLEncoding.EncodeToString([]byte(head)) + "." + base64.RawURLEncoding.EncodeToString(body)
			signature, err := set.Signature([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			return text + "." + base64.RawURLEncoding.EncodeToString(signature)
		}
		confirm := func(token string) *apitest.Answer {
			return s.Post(t, "/identity/users/email/confirm_code", apitest.Form("token", token))
		}
		reset := func(token string) *apitest.Answer {
			return s.Post(t, "/identity/users/password/confirm_code",
				apitest.Form("reset_password_token", token, "password", otherPassword, "confirm_password", otherPassword))
		}
		pending := e.NewUser(t, func(u *db.User) { u.State = "pending" })
		active, other := e.NewUser(t, nil), e.NewUser(t, nil)
		const spent = "identity.user.utilized_token"

		confirm(signed(pending, "confirmation", time.Minute)).Want(t, 422, spent) // nothing was imported
		reset(signed(active, "reset", time.Minute)).Want(t, 422, spent)
		e.Update(t, func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.NewInsert().Model(&db.Run{Version: "20200429082843", BegunAt: tx.Now(), FinishedAt: tx.Now().Add(-10 * time.Second)}).Exec(ctx)
			return err
		})
		confirm(signed(pending, "confirmation", time.Second)).Want(t, 422, spent) // issued after it
		claims := e.Claims(pending)
		claims["sub"], claims["iat"] = "confirmation", e.Clock.Now().Add(-time.Minute).Unix()
		confirm(e.Sign(t, claims)).Want(t, 422, spent) // of this program, which knows its own
		confirm(signed(pending, "reset", time.Minute)).Want(t, 422, "jwt.decode_and_verify.reset")
		confirm(signed(pending, "confirmation", 2*time.Hour)).Want(t, 422, "jwt.decode_and_verify.expired")

		link := signed(pending, "confirmation", time.Minute)
		if got := confirm(link).Want(t, 201).Object(t)["state"]; got != "active" {
			t.Errorf("state %v", got)
		}
		confirm(link).Want(t, 422, "identity.user.active_or_doesnt_exist")

		link, another := signed(active, "reset", time.Minute), signed(active, "reset", 2*time.Minute)
		reset(link).Want(t, 201)
		reset(link).Want(t, 422, spent)
		reset(another).Want(t, 422, spent) // the password is new since
		s.Post(t, "/identity/sessions", apitest.Form("email", active.Email, "password", otherPassword)).Want(t, 201)

		// A link of this program that was used ends the original's, too.
		s.Post(t, "/identity/users/password/generate_code", apitest.Form("email", other.Email)).WantBody(t, 201, "201")
		reset(apitest.MailToken(t, e.Events())).Want(t, 201)
		reset(signed(other, "reset", time.Minute)).Want(t, 422, spent)
	})
}
