package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"barong/api/account"
	"barong/api/rest"
	"barong/db"
	"barong/internal/fault"
	"barong/internal/limit"
)

// access answers POST /identity/users/access: it puts the caller's address on the whitelist. The token is spent, unless
// release 2.4.17 must be matched, where it works until it expires.
func (m *Module) access(ctx context.Context, c *rest.Call) error {
	var in struct {
		Token string `param:"whitelink_token"`
	}
	c.Into(&in)
	link, err := m.DB.Whitelink(ctx, in.Token)
	if err != nil && !errors.Is(err, db.ErrNotFound) {
		return err
	}
	if link == nil || link.Used && !c.Legacy {
		if err := m.Accounts.AllowAddress(ctx, limit.WhitelinkAddress, c.Client); err != nil {
			return err
		}
		return errAccess
	}
	address := c.Client.Unmap().WithZone("")
	if !address.IsValid() {
		return fault.Invalid("value.invalid")
	}
	err = m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		if !c.Legacy {
			if mine, err := u.UseWhitelink(ctx, in.Token); err != nil {
				return err
			} else if !mine {
				return errAccess
			}
		}
		return m.whitelist(ctx, u, c, link.UserID, address.String())
	})
	if taken := (*db.ErrTaken)(nil); errors.As(err, &taken) {
		return fault.Invalid("value.taken")
	}
	if err != nil {
		return err
	}
	if err := m.Reload(ctx); err != nil {
		return fault.New(fault.Unavailable).Because(fmt.Errorf("reload restrictions: %w", err))
	}
	return c.Done()
}

var errAccess = fault.New("identity.user.access.invalid_token")

// whitelist adds the rule in the name of the member of staff who gave the token out, and records from where it was used.
func (m *Module) whitelist(ctx context.Context, u *account.Unit, c *rest.Call, staffID int64, address string) error {
	code := http.StatusUnauthorized // as the original stores with every whitelist rule of an address; nobody is sent it
	rule := &db.Restriction{Category: "whitelist", Scope: "ip", Value: address, Code: &code, State: "enabled"}
	staff, err := u.UserByID(ctx, staffID)
	if errors.Is(err, db.ErrNotFound) {
		return u.InsertRestriction(ctx, db.Who{}, rule)
	}
	if err != nil {
		return err
	}
	if err := u.InsertRestriction(ctx, db.Who{UserID: staff.ID, UID: staff.UID}, rule); err != nil {
		return err
	}
	data, err := json.Marshal(map[string]any{"id": rule.ID, "value": address, "note": "whitelink used"})
	if err != nil {
		return fmt.Errorf("encode activity: %w", err)
	}
	text := string(data)
	return u.InsertActivities(ctx, db.Activity{
		UserID: staff.ID, Category: db.CategoryAdmin, UserIP: address, UserAgent: c.UserAgent,
		Topic: "restrictions", Action: "create", Result: db.ResultSucceed, Data: &text,
	})
}
