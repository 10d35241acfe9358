package admin

import (
	"context"

	"barong/api/rest"
	"barong/api/view"
	"barong/db"
	"barong/internal/fault"
	"barong/internal/rules"
	"barong/policy"
)

// consoleRoutes are those that pages for staff need beside the lists of the original.
func (m *Module) consoleRoutes() []rest.Route {
	return []rest.Route{
		{
			Method: "GET", Path: "/admin/system", Summary: "Shows how the process that answers is: its version, parts, rules and signing keys; to superadmins also its settings, with secrets masked.",
			Access: rest.Staff, Prefix: system, Success: 200, Output: "System", Added: true, Handle: m.showSystem,
		},
		{
			Method: "GET", Path: "/admin/api_keys/list", Summary: "Lists everybody's API keys with their owners, without their secrets.",
			Access: rest.Staff, Prefix: apiKeys, Params: params([]rest.Param{
				{Name: "uid", In: rest.Query, Doc: "Uid of the owner."},
				{Name: "kid", In: rest.Query, Doc: "Id of the key."},
				{
					Name: "state", In: rest.Query, Values: []string{"active", "inactive"}, BadValue: "admin.apikey.invalid_state",
					Doc: "active, or inactive for every other.",
				},
			}, rest.Paginated),
			Success: 200, Output: "[OwnedAPIKey]", Added: true, Handle: m.listAllAPIKeys,
		},
		{
			Method: "POST", Path: "/admin/permissions/changes", Summary: "Makes several changes of the permission rules, all of them or none. They are in force at once.",
			Access: rest.Staff, Prefix: permissions, Params: []rest.Param{changesParam}, Success: 201, Output: "code", Added: true,
			Handle: m.changePermissions, Errors: codes([]fault.Code{
				"admin.permission.doesnt_exist", "op.inclusion", "changes.invalid", fault.MalformedBody,
			}, ruleCodes),
		},
		{
			Method: "GET", Path: "/admin/permissions/history", Summary: "Lists who changed which permission rule or restriction, with how it stood before and after, newest first.",
			Access: rest.Staff, Prefix: permissions, Params: params([]rest.Param{{
				Name: "subject", In: rest.Query, Values: []string{"permission", "restriction"}, BadValue: "admin.permission.invalid_subject",
				Doc: "permission or restriction; both when absent.",
			}}, rest.Paginated),
			Success: 200, Output: "[RuleChange]", Added: true, Handle: m.listRuleChanges,
		},
	}
}

// showSystem answers GET /admin/system.
func (m *Module) showSystem(ctx context.Context, c *rest.Call) error {
	s, err := m.System(ctx)
	if err != nil {
		return err
	}
	if c.User.Role != policy.Superadmin { // addresses of servers, and what they said, are for those who run them
		s.Settings = nil
		for i := range s.Parts {
			s.Parts[i].Reason = ""
		}
	}
	return c.Answer(s)
}

// listAllAPIKeys answers GET /admin/api_keys/list.
func (m *Module) listAllAPIKeys(ctx context.Context, c *rest.Call) error {
	f := db.APIKeyFilter{UID: c.Optional("uid"), KID: c.Optional("kid"), State: c.Optional("state")}
	rows, total, err := m.DB.AllAPIKeys(ctx, f, c.Page())
	if err != nil {
		return err
	}
	return c.AnswerPage(view.OwnedAPIKeys(rows), total)
}

// changePermissions answers POST /admin/permissions/changes.
func (m *Module) changePermissions(ctx context.Context, c *rest.Call) error {
	var changes []rules.Change
	if err := c.Decode("changes", &changes); err != nil {
		return err
	}
	return done(c, m.desk.ChangePermissions(ctx, c.User, changes))
}

// listRuleChanges answers GET /admin/permissions/history.
func (m *Module) listRuleChanges(ctx context.Context, c *rest.Call) error {
	var in struct {
		Subject string `param:"subject"`
	}
	c.Into(&in)
	rows, total, err := m.DB.PolicyChanges(ctx, in.Subject, c.Page())
	if err != nil {
		return err
	}
	return c.AnswerPage(view.RuleChanges(rows), total)
}
