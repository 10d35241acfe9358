package identity

import (
	"context"
	"errors"

	"barong/api/account"
	"barong/api/rest"
	"barong/internal/fault"
)

// beginPasskey answers POST /identity/sessions/passkey/options. Nobody is named, so nothing is told.
func (m *Module) beginPasskey(_ context.Context, c *rest.Call) error {
	flow, options, err := m.Accounts.Passkeys.BeginGet()
	if err != nil {
		return err
	}
	return c.Answer(map[string]any{"flow": flow, "publicKey": options})
}

// signInByPasskey answers POST /identity/sessions/passkey.
func (m *Module) signInByPasskey(ctx context.Context, c *rest.Call) error {
	var in struct {
		Flow       string `param:"flow"`
		Credential string `param:"credential"`
	}
	c.Into(&in)
	client := m.client(c)
	proof, err := m.Accounts.VerifyPasskey(ctx, client, in.Flow, in.Credential)
	if err != nil {
		return m.refusePasskey(ctx, c, proof, err)
	}
	user := proof.User
	if err := m.admissible(ctx, c, user); err != nil {
		return err
	}
	sent := m.sent(c)
	id, opened, err := m.Accounts.SignInByPasskey(ctx, client, sent.IDs(), proof)
	if err != nil {
		return m.refusePasskey(ctx, c, proof, err)
	}
	return m.answerSession(ctx, c, user, id, opened)
}

// refusePasskey records a refusal where it is known whose passkey was shown, and answers alike whether it is or not.
func (m *Module) refusePasskey(ctx context.Context, c *rest.Call, proof *account.Proof, err error) error {
	if !errors.Is(err, account.ErrPasskey) {
		return err
	}
	return patiently(ctx, func() error {
		if proof.User != nil {
			if err := m.recordFailure(ctx, c, proof.User, "login", "Invalid passkey"); err != nil {
				return err
			}
		}
		return fault.New("identity.session.invalid_passkey").Because(err)
	})
}
