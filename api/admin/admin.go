// Package admin is the module of the REST API for staff: users, their labels, profiles and sessions, and the rules that
// say who may do what. A call needs a bearer token, and the permission rules must let the caller's role call the
// published path (package rest sees to both). Handlers read a call and answer it; what staff may do stands in package staff.
package admin

import (
	"context"
	"slices"

	"barong/api/account"
	"barong/api/rest"
	"barong/api/staff"
	"barong/api/view"
	"barong/authz"
	"barong/db"
	"barong/internal/fault"
	"barong/internal/rules"
)

// Options are what a Module is made of. All are required.
type Options struct {
	Accounts *account.Service
	DB       *db.DB
	Rules    *rules.Rules // the policy that the server asks; edits are in force there before they are answered
	Cookies  *authz.Cookies
	FileURL  func(key string) string
	System   func(ctx context.Context) (view.System, error) // how the process is

	Legacy bool // parameters and bodies of release 2.4.17
}

// A Module answers the routes of admin. It is safe for concurrent use.
type Module struct {
	Options
	desk *staff.Desk
}

// New returns a module.
func New(o Options) *Module {
	return &Module{Options: o, desk: &staff.Desk{Accounts: o.Accounts, Rules: o.Rules}}
}

// done answers a call that was to change something.
func done(c *rest.Call, err error) error {
	if err != nil {
		return err
	}
	return c.Done()
}

func (m *Module) view() *view.Builder {
	return &view.Builder{DB: m.DB, Legacy: m.Legacy, FileURL: m.FileURL}
}

// Prefixes of the codes of parameters.
const (
	users        = "admin.user"
	profiles     = "admin.profile"
	restrictions = "admin.restriction"
	permissions  = "admin.permission"
	activities   = "admin.activity"
	metrics      = "admin.metric"
	levels       = "admin.level"
	apiKeys      = "admin.apikey"
	system       = "admin.system"
)

// Parameters that several routes have.
var (
	uid = rest.Param{Name: "uid", Required: true, NotBlank: true, Doc: "Uid of the user."}
	row = rest.Param{Name: "id", Type: rest.Integer, Required: true, NotBlank: true, Doc: "Id of the row, from the list."}
	// The bounds of a list in time.
	from = rest.Param{Name: "from", In: rest.Query, Type: rest.Integer, Doc: "Earliest time, in seconds since 1970."}
	to   = rest.Param{Name: "to", In: rest.Query, Type: rest.Integer, Doc: "Latest time, in seconds since 1970."}
)

// in is a parameter in another place.
func in(place rest.In, p rest.Param) rest.Param {
	p.In = place
	return p
}

// optional is a parameter that may be absent.
func optional(p rest.Param) rest.Param {
	p.Required = false
	return p
}

// params lists parameters one after the other.
func params(lists ...[]rest.Param) []rest.Param { return slices.Concat(lists...) }

// since24 are parameters that release 2.4.17 does not have.
func (m *Module) since24(list ...rest.Param) []rest.Param {
	if m.Legacy {
		return nil
	}
	return list
}

// Routes are the routes of the module.
func (m *Module) Routes() []rest.Route {
	return slices.Concat(
		m.userRoutes(), m.labelRoutes(), m.profileRoutes(), m.permissionRoutes(), m.restrictionRoutes(), m.activityRoutes(),
		m.consoleRoutes(),
	)
}

// userCodes are the refusals of an edit of a user.
var userCodes = []fault.Code{"admin.user.doesnt_exist", "admin.user.superadmin_change"}

func codes(lists ...[]fault.Code) []fault.Code { return slices.Concat(lists...) }

func (m *Module) userRoutes() []rest.Route {
	filters := params([]rest.Param{
		{
			Name: "extended", In: rest.Query, Type: rest.Boolean, Default: "false", BadType: "admin.user.non_boolean_extended",
			Doc: "Shows all there is to know about each user.",
		},
		{Name: "uid", In: rest.Query},
		{Name: "email", In: rest.Query},
		{Name: "role", In: rest.Query},
		{Name: "first_name", In: rest.Query, Doc: "As it stands in a profile; with last_name and country, in the same one."},
		{Name: "last_name", In: rest.Query},
		{Name: "country", In: rest.Query},
		{Name: "level", In: rest.Query, Type: rest.Integer},
		{Name: "state", In: rest.Query},
		{
			Name: "range", In: rest.Query, Default: "created", Values: []string{"created", "updated"},
			BadValue: "admin.user.invalid_range", Doc: "The time that from and to bound: created or updated.",
		},
		from, to,
	}, rest.Paginated)
	update := []rest.Param{
		uid,
		{Name: "state", NotBlank: true, Doc: "pending, active, banned, deleted, locked, or another that is configured. It stays until staff sets another."},
		{Name: "otp", Type: rest.Boolean, NotBlank: true, Doc: "false switches the second factor off."},
	}
	either := []string{"state", "otp"}
	updateCodes := codes(userCodes, []fault.Code{
		"admin.user.update_himself", "admin.user.enable_2fa", "admin.user.state_no_change", "admin.user.otp_no_change",
		"state.inclusion",
	})
	return []rest.Route{
		{
			Method: "GET", Path: "/admin/users", Summary: "Lists users.",
			Access: rest.Staff, Prefix: users, Params: filters, Success: 200, Output: "[User|UserWithProfile]", Handle: m.listUsers,
		},
		{
			Method: "GET", Path: "/admin/users/documents/pending", Summary: "Lists users whose documents wait for staff, the longest waiting first.",
			Access: rest.Staff, Prefix: users, Params: filters, Success: 200, Output: "[User|UserWithKYC]", Handle: m.listPending,
		},
		{
			Method: "GET", Path: "/admin/users/{uid}", Summary: "Shows all there is to know about a user.",
			Access: rest.Staff, Prefix: users, Params: []rest.Param{in(rest.Path, uid)}, Success: 200, Output: "UserWithKYC", Handle: m.showUser,
			Errors: []fault.Code{"admin.user.doesnt_exist"},
		},
		{
			Method: "PUT", Path: "/admin/users", Summary: "Sets the state of a user, or switches their second factor off.",
			Access: rest.Staff, Prefix: users, Params: update, OneOf: either, OneOfCode: "admin.user.one_of_state_otp",
			Success: 200, Output: "code", Handle: m.updateUser, Errors: updateCodes,
		},
		{
			Method: "POST", Path: "/admin/users/update", Summary: "Sets the state of a user, or switches their second factor off.",
			Access: rest.Staff, Prefix: users, Params: update, OneOf: either, OneOfCode: "admin.user.one_of_state_otp",
			Success: 201, Legacy: 200, Output: "code", Handle: m.updateUser, Errors: updateCodes,
		},
		{
			Method: "POST", Path: "/admin/users/role", Summary: "Gives a user another role and ends their sessions.",
			Access: rest.Staff, Prefix: users, Params: []rest.Param{
				uid,
				{Name: "role", Required: true, NotBlank: true, Doc: "A role that some permission names, not above the caller's own."},
			},
			Success: 201, Legacy: 200, Output: "code", Handle: m.setRole,
			Errors: codes(userCodes, []fault.Code{"admin.user.update_himself", "admin.user.role_no_change", "role.doesnt_exist"}),
		},
		{
			Method: "DELETE", Path: "/admin/users/data_storage", Summary: "Deletes a data storage of a user.",
			Access: rest.Staff, Prefix: users, Params: []rest.Param{
				in(rest.Query, uid),
				{Name: "title", In: rest.Query, Required: true, NotBlank: true, Doc: "Title of the data storage."},
			},
			Success: 204, Legacy: 200, LegacyOutput: "UserWithKYC", Handle: m.deleteStorage,
			Errors: codes(userCodes, []fault.Code{"admin.storage.doesnt_exist"}),
		},
		{
			Method: "GET", Path: "/admin/users/{uid}/sessions", Summary: "Lists the sessions of a user, newest first.",
			Access: rest.Staff, Prefix: users, Params: []rest.Param{in(rest.Path, uid)}, Success: 200, Output: "[Session]", Added: true,
			Handle: m.listSessions, Errors: []fault.Code{"admin.user.doesnt_exist"},
		},
		{
			Method: "DELETE", Path: "/admin/users/{uid}/sessions", Summary: "Ends all sessions of a user.",
			Access: rest.Staff, Prefix: users, Params: []rest.Param{in(rest.Path, uid)}, Success: 204, Added: true,
			Handle: m.endSessions, Errors: userCodes,
		},
		{
			Method: "DELETE", Path: "/admin/users/{uid}/sessions/{id}", Summary: "Ends one session of a user.",
			Access: rest.Staff, Prefix: users, Params: []rest.Param{
				in(rest.Path, uid),
				{Name: "id", In: rest.Path, Required: true, NotBlank: true, Doc: "Id of the session, from the list."},
			},
			Success: 204, Added: true, Handle: m.endSession, Errors: codes(userCodes, []fault.Code{fault.NotFound}),
		},
		{
			Method: "GET", Path: "/admin/api_keys", Summary: "Lists the API keys of a user, without their secrets.",
			Access: rest.Staff, Prefix: apiKeys, Params: params([]rest.Param{in(rest.Query, uid)}, rest.Paginated),
			Success: 200, Output: "[APIKey]", Added: true, Handle: m.listAPIKeys, Errors: []fault.Code{"admin.user.doesnt_exist"},
		},
	}
}

func (m *Module) labelRoutes() []rest.Route {
	key := rest.Param{Name: "key", Required: true, NotBlank: true, Doc: "Key of the label: three to 255 of a-z 0-9 _ -."}
	value := rest.Param{Name: "value", Required: true, NotBlank: true, Doc: "Value of the label: three to 255 of a-z 0-9 _ -."}
	scope := rest.Param{Name: "scope", Required: true, NotBlank: true, Doc: "public or private. Private labels move level and state."}
	description := rest.Param{Name: "description", NotBlank: true, Doc: "What staff wants to remember about it, at most 255 characters."}
	created := optional(scope)
	created.Default = account.Public
	valueCodes := []fault.Code{"value.too_short", "value.too_long", "value.invalid", "description.too_long"}
	newCodes := codes([]fault.Code{"scope.inclusion", "key.too_short", "key.too_long", "key.invalid", "key.taken"}, valueCodes)
	himself := []fault.Code{"admin.user.update_himself"}
	absent := []fault.Code{"admin.label.doesnt_exist"}
	search := []rest.Param{
		{Name: "key", In: rest.Query, Required: true, Doc: "Key of the label."},
		{Name: "value", In: rest.Query, Required: true, Doc: "Value of the label."},
	}
	return []rest.Route{
		{
			Method: "GET", Path: "/admin/users/labels", Summary: "Lists users who have a label.",
			Access: rest.Staff, Prefix: users, Params: params(search, m.since24(rest.Param{Name: "scope", In: rest.Query, Doc: "public or private; both when absent."}), rest.Paginated),
			Success: 200, Output: "[User]", Handle: m.listByLabel,
		},
		{
			Method: "GET", Path: "/admin/users/labels/list", Summary: "Counts the private labels by key and value.",
			Access: rest.Staff, Prefix: users, Success: 200, Output: "object", Handle: m.countLabels,
		},
		{
			Method: "POST", Path: "/admin/users/labels", Summary: "Adds a label to a user.",
			Access: rest.Staff, Prefix: users, Params: []rest.Param{uid, key, value, description, created},
			Success: 201, Legacy: 200, Output: "code", Handle: m.createLabel, Errors: codes(userCodes, himself, newCodes),
		},
		{
			Method: "POST", Path: "/admin/users/labels/update", Summary: "Changes a label of a user, or adds it.",
			Access: rest.Staff, Prefix: users, Params: []rest.Param{
				uid, key, scope, value, description,
				{
					Name: "replace", Type: rest.Boolean, Default: "true", BadType: "admin.user.non_boolean_replace",
					Doc: "false changes a label only where there is one.",
				},
			},
			Success: 201, Legacy: 200, BadRequest: true, Output: "code", Handle: m.putLabel,
			Errors: codes(userCodes, himself, absent, newCodes),
		},
		{
			Method: "PUT", Path: "/admin/users/labels", Summary: "Changes value and description of a label of a user.",
			Access: rest.Staff, Prefix: users, Params: []rest.Param{uid, key, scope, description, value}, BadRequest: true,
			Success: 200, Output: "code", Handle: m.updateLabel, Errors: codes(userCodes, himself, absent, valueCodes),
		},
		{
			Method: "DELETE", Path: "/admin/users/labels", Summary: "Removes a label of a user.",
			Access: rest.Staff, Prefix: users, Params: []rest.Param{in(rest.Query, uid), in(rest.Query, key), in(rest.Query, scope)},
			Success: 204, Legacy: 200, Output: "code", Handle: m.deleteLabel, Errors: codes(userCodes, himself, absent),
		},
	}
}

func (m *Module) profileRoutes() []rest.Route {
	return []rest.Route{
		{
			Method: "GET", Path: "/admin/levels", Summary: "Lists the levels of verification.",
			Access: rest.Staff, Prefix: levels, Params: m.since24(rest.Paginated...), Success: 200, Output: "[Level]", Handle: m.listLevels,
		},
		{
			Method: "GET", Path: "/admin/profiles", Summary: "Lists everybody's profiles.",
			Access: rest.Staff, Prefix: profiles, Params: rest.Paginated, Success: 200, Output: "[Profile]", Handle: m.listProfiles,
		},
		{
			Method: "PUT", Path: "/admin/profiles", Summary: "Decides on a submitted profile, or corrects it.",
			Access: rest.Staff, Prefix: profiles, Params: []rest.Param{
				{Name: "uid", Required: true, Doc: "Uid of the user."},
				{Name: "first_name"},
				{Name: "last_name"},
				{Name: "dob", Type: rest.Date, Doc: "Date of birth."},
				{Name: "address"},
				{Name: "postcode"},
				{Name: "city"},
				{Name: "country", Doc: "ISO 3166-1 code, alpha-2 or alpha-3."},
				{Name: "state", Doc: "drafted, submitted, verified or rejected."},
				{Name: "metadata", Type: rest.JSONText, Doc: "Further facts: JSON text, or an object."},
			},
			Success: 200, BadRequest: true, Output: "Profile", Handle: m.updateProfile,
			Errors: []fault.Code{
				"admin.profiles.doesnt_exist_or_not_editable", "admin.profiles.superadmin_change", "state.inclusion",
				"first_name.too_long", "first_name.invalid", "last_name.too_long", "last_name.invalid", "dob.invalid",
				"city.too_long", "city.invalid", "country.must have alpha2 or alpha3 format",
				"postcode.too_short", "postcode.too_long", "postcode.invalid", "address.too_long", "address.invalid",
				"metadata.invalid_format", "metadata.too_long",
			},
		},
	}
}

// ruleCodes are the refusals of an edit of a permission rule.
var ruleCodes = []fault.Code{
	"admin.permissions.invalid_verb", "admin.permissions.invalid_action", "admin.permission.role_doesnt_exist",
	"role.too_long", "role.invalid", "path.too_long", "path.invalid", "topic.too_long", "topic.invalid",
	"admin.user.superadmin_change", "admin.permission.last_superadmin",
}

// changesParam are several changes of permission rules.
var changesParam = rest.Param{
	Name: "changes", Type: rest.JSON, Required: true, NotBlank: true,
	Doc: `A list of changes, made one after the other: objects with "op" (create, update or delete), "id", "role", "verb", "path", "action", "topic".`,
}

func (m *Module) permissionRoutes() []rest.Route {
	fields := []rest.Param{
		{Name: "role", Required: true, NotBlank: true, Doc: "Role that the rule is for, not above the caller's own."},
		{Name: "verb", Required: true, NotBlank: true, Doc: "get, post, put, patch, delete, head or all."},
		{Name: "path", Required: true, NotBlank: true, Doc: "Beginning of the published path, without a slash before it."},
		{Name: "action", Required: true, NotBlank: true, Doc: "accept, drop or audit. A drop beats any accept."},
		{Name: "topic", NotBlank: true, Doc: "Topic of what an audit rule records."},
	}
	changed := make([]rest.Param, len(fields))
	for i, p := range fields {
		changed[i] = optional(p)
	}
	return []rest.Route{
		{
			Method: "GET", Path: "/admin/permissions", Summary: "Lists the permission rules.",
			Access: rest.Staff, Prefix: permissions, Params: rest.Paginated, Success: 200, Output: "[Permission]", Handle: m.listPermissions,
		},
		{
			Method: "POST", Path: "/admin/permissions", Summary: "Adds a permission rule, which is in force at once.",
			Access: rest.Staff, Prefix: permissions, Params: fields,
			Success: 201, Legacy: 200, Output: "code", Handle: m.createPermission, Errors: ruleCodes,
		},
		{
			Method: "PUT", Path: "/admin/permissions", Summary: "Changes a permission rule.",
			Access: rest.Staff, Prefix: permissions, Params: params([]rest.Param{row}, changed), Success: 200, Output: "code", Handle: m.updatePermission,
			Errors: codes([]fault.Code{"admin.permission.doesnt_exist"}, ruleCodes),
		},
		{
			Method: "DELETE", Path: "/admin/permissions", Summary: "Removes a permission rule.",
			Access: rest.Staff, Prefix: permissions, Params: []rest.Param{in(rest.Query, row)},
			Success: 204, Legacy: 200, Output: "code", Handle: m.deletePermission, Errors: []fault.Code{
				"admin.permission.doesnt_exist", "admin.user.superadmin_change", "admin.permission.last_superadmin",
			},
		},
		{
			Method: "POST", Path: "/admin/permissions/check", Summary: "Explains, rule by rule, what the request of a role, or of a user, would be answered.",
			Access: rest.Staff, Prefix: permissions, Params: []rest.Param{
				{Name: "role", NotBlank: true, Doc: "Role that asks."},
				{Name: "uid", NotBlank: true, Doc: "Uid of the user who asks, in place of a role. Whose account is closed is refused."},
				{Name: "verb", Required: true, NotBlank: true, Doc: "Method of the request."},
				{Name: "path", Required: true, NotBlank: true, Doc: "Published path of the request."},
			},
			OneOf: []string{"role", uid.Name}, OneOfCode: "admin.permission.one_of_role_uid",
			Success: 200, Added: true, Handle: m.checkPermission,
			Output: "{uid?:string,state?:string,role:string,verb:string,path:string,allowed:boolean,block?:string,pass?:string," +
				"permitted:boolean,audit:boolean,topic?:string,matches:[object],version:integer}",
			Errors: []fault.Code{"admin.permissions.invalid_verb", "authz.ambiguous_path", "admin.user.doesnt_exist"},
		},
		{
			Method: "POST", Path: "/admin/permissions/preview", Summary: "Rehearses changes of the permission rules on recent requests, and lists those that would be answered otherwise.",
			Access: rest.Staff, Prefix: permissions, Params: []rest.Param{changesParam},
			Success: 200, Output: "[object]", Added: true, Handle: m.previewPermissions,
			Errors: []fault.Code{
				"admin.permission.doesnt_exist", "admin.permissions.invalid_verb", "admin.permissions.invalid_action",
				"op.inclusion", "changes.invalid", fault.MalformedBody,
			},
		},
	}
}

func (m *Module) restrictionRoutes() []rest.Route {
	scope := rest.Param{
		Name: "scope", Required: true, NotBlank: true, Values: scopes, BadValue: "admin.restriction.invalid_scope",
		Doc: "What the value is: continent, country, ip, ip_subnet, or all for everybody.",
	}
	category := rest.Param{
		Name: "category", Required: m.Legacy, NotBlank: true, Values: categories, BadValue: "admin.restriction.invalid_category",
		ValueFirst: true, Doc: "whitelist lets through, maintenance and blacklist refuse, blocklogin refuses sign-ins and ends all sessions.",
	}
	if !m.Legacy {
		category.Default = "blacklist" // the 2.4.0 reference knows no category: its rules refuse
	}
	value := rest.Param{Name: "value", Required: true, NotBlank: true, Doc: "Address, network in CIDR notation, or code or name of the place."}
	state := rest.Param{
		Name: "state", NotBlank: true, Values: []string{"enabled", "disabled"}, Default: "enabled",
		BadValue: "admin.restriction.invalid_state", Doc: "enabled or disabled.",
	}
	code := rest.Param{Name: "code", Type: rest.Integer, NotBlank: true, Doc: "Status of the refusal, 400 to 599."}
	changed := []rest.Param{optional(scope), optional(category), optional(value), state, code}
	for i := range changed {
		changed[i].Default = ""
	}
	filterScope, filterCategory := in(rest.Query, optional(scope)), in(rest.Query, optional(category))
	filterCategory.Default, filterCategory.ValueFirst = "", false
	// The original took any text for the bounds, and no number was no bound.
	since, until := from, to
	if m.Legacy {
		since.Type, until.Type = rest.String, rest.String
	}
	ruleCodes := []fault.Code{"value.too_long", "value.invalid", "value.taken", "code.inclusion"}
	return []rest.Route{
		{
			Method: "GET", Path: "/admin/restrictions", Summary: "Lists the restrictions.",
			Access: rest.Staff, Prefix: restrictions, Params: params([]rest.Param{
				filterScope, filterCategory,
				{
					Name: "range", In: rest.Query, Default: "created", Values: []string{"created", "updated"},
					BadValue: "admin.restriction.invalid_range", Doc: "The time that from and to bound: created or updated.",
				},
			}, rest.Paginated, []rest.Param{since, until}),
			Success: 200, Output: "[Restriction]", Handle: m.listRestrictions,
		},
		{
			Method: "POST", Path: "/admin/restrictions", Summary: "Adds a restriction, which is in force at once.",
			Access: rest.Staff, Prefix: restrictions, Params: []rest.Param{scope, value, category, state, code},
			Success: 201, Legacy: 200, Output: "code", Handle: m.createRestriction, Errors: ruleCodes,
		},
		{
			Method: "PUT", Path: "/admin/restrictions", Summary: "Changes a restriction.",
			Access: rest.Staff, Prefix: restrictions, Params: params([]rest.Param{row}, changed), Success: 200, Output: "code", Handle: m.updateRestriction,
			Errors: codes([]fault.Code{"admin.restriction.doesnt_exist"}, ruleCodes),
		},
		{
			Method: "DELETE", Path: "/admin/restrictions", Summary: "Removes a restriction.",
			Access: rest.Staff, Prefix: restrictions, Params: []rest.Param{in(rest.Query, row)},
			Success: 204, Legacy: 200, Output: "code", Handle: m.deleteRestriction, Errors: []fault.Code{"admin.restriction.doesnt_exist"},
		},
		{
			Method: "POST", Path: "/admin/restrictions/whitelink", Summary: "Makes a token that lets whoever has it past the restrictions, from their address.",
			Access: rest.Staff, Prefix: restrictions, Params: []rest.Param{
				{
					Name: "expire_time", Type: rest.Integer, NotBlank: true, Default: "1", Min: 1, Max: 30, BadValue: "invalid_expire",
					Doc: "For how many days or hours it works, 1 to 30.",
				},
				{
					Name: "range", NotBlank: true, Default: "day", Values: []string{"day", "hour"}, BadValue: "invalid_range",
					Doc: "day or hour.",
				},
			},
			Success: 201, Output: "{whitelink_token:string}", Added: true, Handle: m.createWhitelink,
		},
	}
}

func (m *Module) activityRoutes() []rest.Route {
	text := func(name, doc string) rest.Param {
		return rest.Param{Name: name, In: rest.Query, BadType: fault.Code(activities + ".non_string_" + name), Doc: doc}
	}
	filters := params([]rest.Param{
		text("topic", "What it was about."),
		text("action", "What was done."),
		text("uid", "Uid of who did it."),
		text("email", "Address of who did it."),
		from, to,
	}, rest.Paginated)
	result := m.since24(rest.Param{Name: "result", In: rest.Query, Doc: "How it ended: succeed, failed or denied."})
	return []rest.Route{
		{
			Method: "GET", Path: "/admin/metrics", Summary: "Counts sign-ups, sign-ins and waiting applications, by day.",
			Access: rest.Staff, Prefix: metrics, Params: []rest.Param{
				{Name: "created_from", In: rest.Query, Doc: "First moment that counts: seconds since 1970, or a day as YYYY-MM-DD."},
				{Name: "created_to", In: rest.Query, Doc: "Last moment that counts: seconds since 1970, or a day as YYYY-MM-DD."},
			},
			Success: 200, Handle: m.metrics,
			Output: "{signups:object,sucessful_logins:object,failed_logins:object,pending_applications:integer}",
		},
		{
			Method: "GET", Path: "/admin/activities", Summary: "Lists what users did with their accounts, newest first.",
			Access: rest.Staff, Prefix: activities, Params: params(filters, result),
			Success: 200, Output: "[ActivityWithUser]", Handle: m.listActivities,
		},
		{
			Method: "GET", Path: "/admin/activities/admin", Summary: "Lists what staff did, and who was refused, newest first.",
			Access: rest.Staff, Prefix: activities, Params: params(filters, []rest.Param{
				text("target_uid", "Uid of the user whom it was done to."),
				{
					Name: "range", In: rest.Query, Default: "created", Values: []string{"created"},
					BadValue: "admin.activity.invalid_range", Doc: "The time that from and to bound: created.",
				},
			}, result),
			Success: 200, Output: "[AdminActivity]", Handle: m.listAdminActivities,
		},
	}
}
