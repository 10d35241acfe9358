package resource

import (
	"context"
	"strconv"
	"strings"

	"barong/api/account"
	"barong/api/rest"
	"barong/api/view"
	"barong/db"
	"barong/internal/fault"
)

// maxCredential is the largest body with a new passkey, in bytes: attestations bring chains of certificates.
const maxCredential = 16 << 10

func (m *Module) passkeyRoutes() []rest.Route {
	id := rest.Param{Name: "id", In: rest.Path, Required: true, NotBlank: true, Doc: "Id of the passkey, from the list."}
	name := rest.Param{Name: "name", Required: true, NotBlank: true, Doc: "What its owner calls it, in at most 64 characters."}
	nameCodes := []fault.Code{"name.too_long", "name.invalid"}
	proof := func(in rest.In) []rest.Param {
		return []rest.Param{
			{Name: "password", In: in, Doc: "The account's password, unless it has a second factor."},
			{Name: "totp_code", In: in, Type: rest.Code, Doc: "Code of the second factor, when the account has one."},
		}
	}
	proofCodes := []fault.Code{
		"resource.user.missing_password", "resource.user.empty_password", "resource.user.invalid_password",
		"resource.user.missing_otp_code", "resource.user.invalid_otp", fault.TOTP, fault.TooMany,
	}
	return []rest.Route{
		{
			Method: "GET", Path: "/resource/passkeys", Summary: "Lists the caller's passkeys, oldest first.",
			Access: rest.User, Prefix: passkeys, Success: 200, Output: "[Passkey]", Added: true, Handle: m.listPasskeys,
		},
		{
			Method: "POST", Path: "/resource/passkeys/options", Summary: "Begins to make a passkey: what navigator.credentials.create needs.",
			Access: rest.User, Prefix: passkeys, Params: proof(rest.Form), Success: 201, Output: "{flow:string,publicKey:object}", Added: true,
			Handle: m.beginPasskey, Errors: proofCodes,
		},
		{
			Method: "POST", Path: "/resource/passkeys", Summary: "Adds a passkey that was just made.",
			Access: rest.User, Prefix: passkeys, Params: []rest.Param{
				{Name: "flow", Required: true, Doc: "The flow that the options came with. It can be used once, within five minutes."},
				{Name: "credential", Type: rest.JSONText, Required: true, Doc: "What navigator.credentials.create returned, in its JSON form."},
				name,
			},
			MaxBody: maxCredential, Success: 201, Output: "Passkey", Added: true, Handle: m.addPasskey,
			Errors: codes([]fault.Code{"resource.passkey.invalid", "resource.passkey.taken", "resource.passkey.limit"}, nameCodes),
		},
		{
			Method: "PATCH", Path: "/resource/passkeys/{id}", Summary: "Renames a passkey.",
			Access: rest.User, Prefix: passkeys, Params: []rest.Param{id, name}, Success: 200, Output: "Passkey", Added: true,
			Handle: m.renamePasskey, Errors: codes(nameCodes, []fault.Code{fault.NotFound}),
		},
		{
			Method: "DELETE", Path: "/resource/passkeys/{id}", Summary: "Removes a passkey.",
			Access: rest.User, Prefix: passkeys, Params: params([]rest.Param{id}, proof(rest.Query)), Success: 204, Added: true,
			Handle: m.deletePasskey, Errors: codes(proofCodes, []fault.Code{fault.NotFound}),
		},
	}
}

// listPasskeys answers GET /resource/passkeys.
func (m *Module) listPasskeys(ctx context.Context, c *rest.Call) error {
	rows, err := m.DB.Passkeys(ctx, c.User.ID)
	if err != nil {
		return err
	}
	return c.Answer(view.Passkeys(rows))
}

// proveOwner lets a change of passkeys through only with the second factor or, for who has none, the password.
func (m *Module) proveOwner(ctx context.Context, c *rest.Call) error {
	var in struct {
		Password db.NewText `param:"password"`
		Code     string     `param:"totp_code"`
	}
	c.Into(&in)
	if c.User.OTP {
		if strings.TrimSpace(in.Code) == "" {
			return fault.Invalid("resource.user.missing_otp_code")
		}
		return m.proveCode(ctx, c, in.Code, fault.New("resource.user.invalid_otp"))
	}
	if !in.Password.Given {
		return fault.Invalid("resource.user.missing_password")
	}
	password := *in.Password.Sent()
	if strings.TrimSpace(password) == "" {
		return fault.Invalid("resource.user.empty_password")
	}
	return m.provePassword(ctx, c, password, fault.New("resource.user.invalid_password"))
}

// beginPasskey answers POST /resource/passkeys/options.
func (m *Module) beginPasskey(ctx context.Context, c *rest.Call) error {
	if err := m.proveOwner(ctx, c); err != nil {
		return err
	}
	flow, options, err := m.Accounts.BeginPasskey(ctx, c.User)
	if err != nil {
		return err
	}
	return c.Answer(map[string]any{"flow": flow, "publicKey": options})
}

// addPasskey answers POST /resource/passkeys.
func (m *Module) addPasskey(ctx context.Context, c *rest.Call) error {
	var in struct {
		Flow       string `param:"flow"`
		Credential string `param:"credential"`
		Name       string `param:"name"`
	}
	c.Into(&in)
	name, wrong := account.PasskeyName(in.Name)
	if len(wrong) > 0 { // before the flow is used up
		return fault.Invalid(wrong...)
	}
	p, err := m.Accounts.MadePasskey(ctx, c.User, in.Flow, in.Credential)
	if err != nil {
		return err
	}
	p.Name = name
	err = m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		return u.AddPasskey(ctx, c.User, m.client(c), p)
	})
	if err != nil {
		return err
	}
	return c.Answer(view.NewPasskey(p))
}

// A passkeyReader is where passkeys are found: the database, or a unit of work.
type passkeyReader interface {
	Passkey(ctx context.Context, userID, id int64) (*db.Passkey, error)
}

// A passkeyInput is what calls about one passkey send.
type passkeyInput struct {
	ID   string `param:"id"`
	Name string `param:"name"`
}

// findPasskey finds the passkey of a user by the id that was sent.
func findPasskey(ctx context.Context, user *db.User, text string, from passkeyReader) (*db.Passkey, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, fault.New(fault.NotFound).Because(err)
	}
	p, err := from.Passkey(ctx, user.ID, id)
	return p, notFound(err)
}

// renamePasskey answers PATCH /resource/passkeys/{id}.
func (m *Module) renamePasskey(ctx context.Context, c *rest.Call) error {
	var in passkeyInput
	c.Into(&in)
	name, wrong := account.PasskeyName(in.Name)
	if len(wrong) > 0 {
		return fault.Invalid(wrong...)
	}
	var p *db.Passkey
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) (err error) {
		if p, err = findPasskey(ctx, c.User, in.ID, u); err != nil {
			return err
		}
		p.Name = name
		return u.RenamePasskey(ctx, p)
	})
	if err != nil {
		return err
	}
	return c.Answer(view.NewPasskey(p))
}

// deletePasskey answers DELETE /resource/passkeys/{id}. That there is one is looked at first, so that a code is not used up
// by a wrong id.
func (m *Module) deletePasskey(ctx context.Context, c *rest.Call) error {
	var in passkeyInput
	c.Into(&in)
	if _, err := findPasskey(ctx, c.User, in.ID, m.DB); err != nil {
		return err
	}
	if err := m.proveOwner(ctx, c); err != nil {
		return err
	}
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		if err := u.Lock(ctx, c.User); err != nil {
			return err
		}
		p, err := findPasskey(ctx, c.User, in.ID, u)
		if err != nil {
			return err
		}
		return u.RemovePasskey(ctx, c.User, m.client(c), p)
	})
	if err != nil {
		return err
	}
	return c.Done()
}
