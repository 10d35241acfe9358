package resource

import (
	"context"

	"barong/api/rest"
	"barong/api/view"
	"barong/db"
)

// listPhones answers GET /resource/phones.
func (m *Module) listPhones(ctx context.Context, c *rest.Call) error {
	rows, err := m.DB.Phones(ctx, c.User.ID)
	if err != nil {
		return err
	}
	return answerList(m, c, rows, func(rows []db.Phone) any { return view.Phones(rows) })
}

// A phoneInput is what calls about a phone send.
type phoneInput struct {
	Number  string `param:"phone_number"`
	Channel string `param:"channel"`
	Code    string `param:"verification_code"`
}

// addPhone answers POST /resource/phones.
func (m *Module) addPhone(ctx context.Context, c *rest.Call) error {
	var in phoneInput
	c.Into(&in)
	if err := m.Phones.Add(ctx, c.User, in.Number, in.Channel); err != nil {
		return err
	}
	return answerSent(c, in.Channel)
}

// resendCode answers POST /resource/phones/send_code.
func (m *Module) resendCode(ctx context.Context, c *rest.Call) error {
	var in phoneInput
	c.Into(&in)
	if err := m.Phones.Resend(ctx, c.User, in.Number, in.Channel); err != nil {
		return err
	}
	return answerSent(c, in.Channel)
}

func answerSent(c *rest.Call, channel string) error {
	return c.Answer(map[string]string{"message": "Code was sent successfully via " + channel})
}

// verifyPhone answers POST /resource/phones/verify.
func (m *Module) verifyPhone(ctx context.Context, c *rest.Call) error {
	var in phoneInput
	c.Into(&in)
	if err := m.Phones.Verify(ctx, c.User, m.client(c), in.Number, in.Code); err != nil {
		return err
	}
	return m.answerMe(ctx, c, c.User)
}
