// Package resource is the module of the REST API in which people look after their own account: profile, documents,
// phones, labels, second factor, API keys, sessions, history. Every route needs a bearer token of an open account. The
// rules about accounts stand in package account; here parameters are read, limits kept, and answers chosen.
package resource

import (
	"context"
	"slices"
	"strings"

	"barong/api/account"
	"barong/api/rest"
	"barong/api/view"
	"barong/authz"
	"barong/db"
	"barong/internal/fault"
	"barong/session"
)

// Options are what a Module is made of. All are required.
type Options struct {
	Accounts  *account.Service
	Documents account.Documents
	Phones    account.Phones // not looked at where NoPhones is
	DB        *db.DB
	Cookies   *authz.Cookies

	StorageTitles []string // what may be stored under; empty refuses every title

	Abilities func(role string) []string // the calls for staff that a role may make, as "GET /admin/users"

	NoPhones   bool // there are no phones, and no routes for them
	NoPasskeys bool // the same of passkeys
	Legacy     bool
	RateLimits bool // false lifts the limit on uploads at the same time, for load tests
}

// A Module answers the routes of resource. It is safe for concurrent use.
type Module struct {
	Options
}

// New returns a module.
func New(o Options) *Module { return &Module{Options: o} }

func (m *Module) view() *view.Builder {
	return &view.Builder{DB: m.DB, Legacy: m.Legacy, FileURL: m.Documents.Files.URL}
}

func (m *Module) client(c *rest.Call) account.Client { return m.Accounts.Client(c.Client, c.UserAgent) }

// current is the caller's own session, whose cookie came along, or nil: the one that a change of credentials keeps.
func (m *Module) current(ctx context.Context, c *rest.Call) *session.Session {
	sent := m.Cookies.Sent(c.Cookies()...)
	s, user, err := m.Accounts.Current(ctx, sent.IDs()...)
	if err != nil || user.ID != c.User.ID {
		return nil
	}
	return s
}

// answerMe answers with the caller's account as it is now stored.
func (m *Module) answerMe(ctx context.Context, c *rest.Call, user *db.User) error {
	full, err := m.view().FullInfo(ctx, user, "")
	if err != nil {
		return err
	}
	return c.Answer(full)
}

// answerList answers with a list: whole, as ever, or the page of it that was asked for. The lists of one user are short
// enough to be read whole.
func answerList[Row any](m *Module, c *rest.Call, rows []Row, show func([]Row) any) error {
	if m.Legacy || !c.Has("page") && !c.Has("limit") {
		return c.Answer(show(rows))
	}
	page := c.Page()
	from := min((page.Number-1)*page.Size, len(rows))
	return c.AnswerPage(show(rows[from:min(from+page.Size, len(rows))]), int64(len(rows)))
}

// record stores one activity of the caller, on its own: for attempts that failed.
func (m *Module) record(ctx context.Context, c *rest.Call, topic, action, result, reason string) error {
	return m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		return u.Record(ctx, c.User, m.client(c), topic, action, result, reason)
	})
}

// Prefixes of the codes of parameters.
const (
	users       = "resource.user"
	labels      = "resource.label"
	profiles    = "resource.profile"
	documents   = "resource.document"
	phones      = "resource.phone"
	otp         = "resource.otp"
	apiKeys     = "resource.apikey"
	dataStorage = "resource.datastorage"
	sessions    = "resource.session"
	passkeys    = "resource.passkey"
	providers   = "resource.provider"
)

var (
	passwordCodes = []fault.Code{"password.too_long", "password.requirements", "password.weak"}
	labelCodes    = []fault.Code{"key.too_short", "key.too_long", "key.invalid", "key.taken", "key.exclusion", "value.too_short", "value.too_long", "value.invalid", "resource.labels.limit_reached"}
	profileCodes  = []fault.Code{
		"first_name.too_long", "first_name.invalid", "last_name.too_long", "last_name.invalid", "dob.invalid",
		"city.too_long", "city.invalid", "country.must have alpha2 or alpha3 format",
		"postcode.too_short", "postcode.too_long", "postcode.invalid", "address.too_long", "address.invalid",
		"metadata.invalid_format", "metadata.too_long",
	}
	smsCodes = []fault.Code{
		"resource.phone.num_not_reachable", "resource.phone.num_not_valid", "resource.phone.sms_content_invalid",
		"resource.phone.unsubscribed_recipient", "resource.phone.twilio_unexpected", fault.TooMany,
	}
	guardCodes = []fault.Code{"resource.api_key.2fa_disabled", "resource.api_key.invalid_totp", fault.TOTP, fault.TooMany}
)

func codes(lists ...[]fault.Code) []fault.Code { return slices.Concat(lists...) }

func params(lists ...[]rest.Param) []rest.Param { return slices.Concat(lists...) }

// Routes are the routes of the module.
func (m *Module) Routes() []rest.Route {
	number := rest.Param{Name: "phone_number", Required: true, NotBlank: true, Doc: "The number with its country code."}
	channel := rest.Param{
		Name: "channel", Values: []string{"sms", "call"}, Default: "sms", BadValue: "resource.phone.invalid_channel",
		Doc: "How the code is sent: sms or call.",
	}
	code := rest.Param{Name: "code", Type: rest.Code, Required: true, NotBlank: true, Doc: "Code of the authenticator app."}
	kid := rest.Param{Name: "kid", In: rest.Path, Required: true, NotBlank: true, Doc: "Id of the key."}
	labelKey := rest.Param{Name: "key", In: rest.Path, Required: true, NotBlank: true, Doc: "Key of the label."}
	profile := []rest.Param{
		{Name: "first_name"},
		{Name: "last_name"},
		{Name: "dob", Type: rest.Date, Doc: "Date of birth."},
		{Name: "address"},
		{Name: "postcode"},
		{Name: "city"},
		{Name: "country", Doc: "ISO 3166-1 code, alpha-2 or alpha-3."},
		{Name: "metadata", Type: rest.JSONText, Doc: "Further facts: JSON text, or an object."},
		{Name: "confirm", Type: rest.Boolean, Doc: "Submits the profile for verification."},
	}
	filters := []rest.Param{
		{Name: "time_from", In: rest.Query, Type: rest.Integer, NotBlank: true, BadType: "resource.user.non_integer_time_from", Doc: "Earliest time, in seconds since 1970."},
		{Name: "time_to", In: rest.Query, Type: rest.Integer, NotBlank: true, BadType: "resource.user.non_integer_time_to", Doc: "Latest time, in seconds since 1970."},
		{Name: "result", In: rest.Query, NotBlank: true, Doc: "succeed, failed or denied."},
	}
	pages := slices.Clone(rest.Paginated)
	for i := range pages {
		pages[i].Default = "" // without them the list comes whole, and without the headers of a page
	}
	userData := rest.JSONText
	if m.Legacy { // release 2.4.17 ignored what it did not know, and is on record with refusing an object here
		filters, pages = nil, nil
		userData = rest.String
	}
	routes := []rest.Route{
		{
			Method: "GET", Path: "/resource/users/me", Summary: "Shows the caller's account.",
			Access: rest.User, Prefix: users, Success: 200, Output: "UserWithFullInfo", Handle: m.me,
		},
		{
			Method: "GET", Path: "/resource/abilities", Summary: "Lists the calls for staff that the caller's role may make.",
			Access: rest.User, Prefix: users, Success: 200, Output: "{role:string,calls:[string]}", Added: true, Handle: m.listAbilities,
		},
		{
			Method: "PUT", Path: "/resource/users/me", Summary: "Replaces the caller's data.",
			Access: rest.User, Prefix: users, Params: []rest.Param{
				{Name: "data", Type: userData, Required: true, NotBlank: true, Doc: "JSON text of at most 1024 characters."},
			},
			Success: 201, BadRequest: false, Output: "UserWithFullInfo", Added: true, Handle: m.setData,
			Errors: []fault.Code{"data.too_long", "data.invalid_format"},
		},
		{
			Method: "DELETE", Path: "/resource/users/me", Summary: "Closes the caller's account for good.",
			Access: rest.User, Prefix: users, Params: []rest.Param{
				{Name: "password", In: rest.Query, Required: true, NotBlank: true, Doc: "The account's password."},
				{Name: "otp_code", In: rest.Query, Type: rest.Code, NotBlank: true, Doc: "Code of the second factor, when the account has one."},
			},
			Success: 204, Legacy: 200, Output: "code", Handle: m.deleteMe,
			Errors: []fault.Code{
				"resource.user.invalid_password", "resource.user.missing_otp_code", "resource.user.invalid_otp",
				fault.TOTP, fault.TooMany, "admin.permission.last_superadmin",
			},
		},
		{
			Method: "GET", Path: "/resource/users/activity/{topic}", Summary: "Lists what happened to the caller's account, newest first.",
			Access: rest.User, Prefix: users, Params: params([]rest.Param{
				{Name: "topic", In: rest.Path, Required: true, NotBlank: true, Doc: "all, password, session, otp or account."},
			}, filters, rest.Paginated),
			Success: 200, Output: "[Activity]", LegacyOutput: "[LegacyActivity]", Handle: m.activity,
			Errors: []fault.Code{"resource.user.wrong_topic", "resource.user.no_activity"},
		},
		{
			Method: "PUT", Path: "/resource/users/password", Summary: "Changes the caller's password and ends the other sessions.",
			Access: rest.User, Prefix: users, Params: []rest.Param{
				{Name: "old_password", Required: true, NotBlank: true, Doc: "The password so far."},
				{Name: "new_password", Required: true, NotBlank: true, Doc: "The new password."},
				{Name: "confirm_password", Required: true, NotBlank: true, Doc: "The new password once more."},
				{Name: "lang", Doc: "Language of the client, for the event: EN when absent."},
			},
			Success: 201, BadRequest: true, Output: "code", Handle: m.changePassword,
			Errors: codes([]fault.Code{
				"resource.password.doesnt_match", "resource.password.prev_pass_not_correct", "resource.password.no_change_provided",
				fault.TooMany,
			}, passwordCodes),
		},
		{
			Method: "GET", Path: "/resource/labels", Summary: "Lists the caller's labels.",
			Access: rest.User, Prefix: labels, Params: pages, Success: 200, Output: "[Label]", Handle: m.listLabels,
		},
		{
			Method: "GET", Path: "/resource/labels/{key}", Summary: "Shows one of the caller's labels.",
			Access: rest.User, Prefix: labels, Params: []rest.Param{labelKey}, BadRequest: true,
			Success: 200, Output: "Label", Handle: m.getLabel,
		},
		{
			Method: "POST", Path: "/resource/labels", Summary: "Adds a public label.",
			Access: rest.User, Prefix: labels, Params: []rest.Param{
				{Name: "key", Required: true, NotBlank: true, Doc: "Three to 255 of a-z 0-9 _ -."},
				{Name: "value", Required: true, NotBlank: true, Doc: "Three to 255 of a-z 0-9 _ -."},
			},
			Success: 201, BadRequest: true, Output: "Label", Handle: m.createLabel, Errors: labelCodes,
		},
		{
			Method: "PATCH", Path: "/resource/labels/{key}", Summary: "Changes the value of a public label.",
			Access: rest.User, Prefix: labels, Params: []rest.Param{
				labelKey,
				{Name: "value", Required: true, NotBlank: true, Doc: "Three to 255 of a-z 0-9 _ -."},
			},
			Success: 200, BadRequest: true, Output: "Label", Handle: m.updateLabel,
			Errors: []fault.Code{fault.NotFound, "resource.labels.private", "value.too_short", "value.too_long", "value.invalid"},
		},
		{
			Method: "DELETE", Path: "/resource/labels/{key}", Summary: "Removes a public label.",
			Access: rest.User, Prefix: labels, Params: []rest.Param{labelKey}, BadRequest: true,
			Success: 204, Handle: m.deleteLabel, Errors: []fault.Code{fault.NotFound, "resource.labels.private"},
		},
		{
			Method: "GET", Path: "/resource/profiles/me", Summary: "Lists the caller's profiles.",
			Access: rest.User, Prefix: profiles, Params: pages, Success: 200, Output: "[Profile]", Handle: m.listProfiles,
			Errors: []fault.Code{"resource.profile.not_exist"},
		},
		{
			Method: "POST", Path: "/resource/profiles", Summary: "Creates a profile, as a draft or submitted.",
			Access: rest.User, Prefix: profiles, Params: profile, BadRequest: true,
			Success: 201, Output: "Profile", Handle: m.createProfile,
			Errors: codes(profileCodes, []fault.Code{"state.exists"}),
		},
		{
			Method: "PUT", Path: "/resource/profiles", Summary: "Changes the drafted profile, or submits it.",
			Access: rest.User, Prefix: profiles, Params: profile,
			Success: 200, Output: "Profile", Handle: m.updateProfile,
			Errors: codes([]fault.Code{"resource.profile.doesnt_exist_or_not_editable"}, profileCodes),
		},
		{
			Method: "GET", Path: "/resource/documents", Summary: "Lists the caller's documents.",
			Access: rest.User, Prefix: documents, Params: pages, Success: 200, Output: "[Document]", LegacyOutput: "[LegacyDocument]",
			Handle: m.listDocuments,
		},
		{
			Method: "GET", Path: "/resource/documents/types", Summary: "Tells which documents can be uploaded, and how many and how large.",
			Access: rest.User, Prefix: documents, Success: 200, Added: true, Handle: m.documentTypes,
			Output: "{types:[string],extensions:[string],expiry_required:boolean,limit:integer,max_bytes:integer}",
		},
		{
			Method: "GET", Path: "/resource/levels", Summary: "Lists the levels of accounts: the private label that each needs beside those before it.",
			Access: rest.User, Prefix: users, Success: 200, Output: "[Level]", Added: true, Handle: m.listLevels,
		},
		{
			Method: "POST", Path: "/resource/documents", Summary: "Uploads the files of a document.",
			Access: rest.User, Prefix: documents, Params: []rest.Param{
				{Name: "doc_type", Required: true, NotBlank: true, Doc: "Type of the document, such as Passport."},
				{Name: "doc_number", Required: true, NotBlank: true, Doc: "Its number: letters, digits, dashes and spaces."},
				{Name: "upload", Type: rest.Files, Required: true, Doc: "One or several files, as upload[]."},
				{Name: "doc_expire", Type: rest.Date, BadType: "resource.documents.expire_not_a_date", Doc: "The day on which it expires."},
				{Name: "metadata", Type: rest.JSONText, Doc: "Further facts: JSON text, or an object."},
			},
			MaxBody: m.maxUploads(), Parallel: m.parallelUploads(), Success: 201, BadRequest: true, Output: "code", Handle: m.upload,
			Errors: []fault.Code{
				"resource.documents.invalid_format", "resource.documents.already_expired", "resource.documents.limit_reached",
				"resource.documents.limit_will_be_reached", "upload.<sentence>", "upload.blank", "doc_type.inclusion",
				"metadata.invalid_format", "metadata.too_long", "doc_number.too_long", "doc_number.invalid", fault.TooMany,
			},
		},
		{
			Method: "GET", Path: "/resource/phones", Summary: "Lists the caller's phones.",
			Access: rest.User, Prefix: phones, Params: pages, Success: 200, Output: "[Phone]", Handle: m.listPhones,
		},
		{
			Method: "POST", Path: "/resource/phones", Summary: "Adds a phone and sends a code to it.",
			Access: rest.User, Prefix: phones, Params: []rest.Param{number, channel}, BadRequest: true,
			Success: 201, Output: "{message:string}", Handle: m.addPhone, Listed: []int{404},
			Errors: codes([]fault.Code{"resource.phone.invalid_num", "resource.phone.number_exist", "resource.phone.exists"}, smsCodes),
		},
		{
			Method: "POST", Path: "/resource/phones/send_code", Summary: "Sends another code to a phone.",
			Access: rest.User, Prefix: phones, Params: []rest.Param{number, channel}, BadRequest: true,
			Success: 201, Output: "{message:string}", Handle: m.resendCode,
			Errors: codes([]fault.Code{"resource.phone.invalid_num", "resource.phone.number_exist", "resource.phone.doesnt_exist"}, smsCodes),
		},
		{
			Method: "POST", Path: "/resource/phones/verify", Summary: "Verifies a phone by the code that was sent to it.",
			Access: rest.User, Prefix: phones, Params: []rest.Param{
				number,
				{Name: "verification_code", Type: rest.Code, Required: true, NotBlank: true, Doc: "The code from the message."},
			},
			BadRequest: true, Success: 201, Output: "UserWithFullInfo", Handle: m.verifyPhone,
			Errors: codes([]fault.Code{"resource.phone.invalid_num", "resource.phone.number_exist", "resource.phone.doesnt_exist", "resource.phone.verification_invalid"}, smsCodes),
		},
		{
			Method: "POST", Path: "/resource/otp/generate_qrcode", Summary: "Makes a new second factor, to be enabled with a code of it.",
			Access: rest.User, Prefix: otp, Success: 201, Handle: m.generateQRCode,
			Output: "{auth:any,data:object,lease_duration:integer,lease_id:string,metadata:any,renewable:boolean,warnings:any,wrap_info:any}",
			Errors: []fault.Code{"resource.otp.already_enabled"},
		},
		{
			Method: "POST", Path: "/resource/otp/enable", Summary: "Switches the second factor on and ends the other sessions.",
			Access: rest.User, Prefix: otp, Params: []rest.Param{
				code,
				{Name: "recovery_codes", Type: rest.Boolean, Doc: "Makes recovery codes as well, and answers with them: they are shown this once."},
			},
			BadRequest: true, Success: 201, Output: "integer|{codes:[string]}", Handle: m.enableOTP,
			Errors: []fault.Code{"resource.otp.already_enabled", "resource.otp.invalid", fault.TOTP, fault.TooMany},
		},
		{
			Method: "POST", Path: "/resource/otp/disable", Summary: "Switches the second factor off.",
			Access: rest.User, Prefix: otp, Params: []rest.Param{code}, BadRequest: true, Success: 201, Legacy: 200, Output: "code",
			Handle: m.disableOTP, Errors: []fault.Code{"resource.otp.not_enabled", "resource.otp.invalid", fault.TOTP, fault.TooMany},
		},
		{
			Method: "POST", Path: "/resource/otp/verify", Summary: "Checks a code of the second factor and uses it up.",
			Access: rest.User, Prefix: otp, Params: []rest.Param{code}, BadRequest: true, Success: 201, Output: "code",
			Handle: m.verifyOTP, Errors: []fault.Code{"resource.otp.already_enabled", "resource.otp.invalid", fault.TOTP, fault.TooMany},
		},
		{
			Method: "POST", Path: "/resource/otp/recovery_codes", Summary: "Makes ten codes that each sign in once in place of the second factor; older ones stop working.",
			Access: rest.User, Prefix: otp, Params: []rest.Param{code}, BadRequest: true, Success: 201, Output: "{codes:[string]}", Added: true,
			Handle: m.newRecoveryCodes, Errors: []fault.Code{"resource.otp.not_enabled", "resource.otp.invalid", fault.TOTP, fault.TooMany},
		},
		{
			Method: "GET", Path: "/resource/api_keys", Summary: "Lists the caller's API keys, without their secrets.",
			Access: rest.User, Prefix: apiKeys, Params: rest.Paginated, Success: 200, Output: "[APIKey]", Listed: []int{400},
			Handle: m.listAPIKeys,
		},
		{
			Method: "POST", Path: "/resource/api_keys", Summary: "Creates an API key. Of HS256 it makes a secret and shows it, this once.",
			Access: rest.User, Prefix: apiKeys, Params: []rest.Param{
				{Name: "algorithm", Required: true, NotBlank: true, Doc: "HS256, or Ed25519 with a public key of yours."},
				{Name: "public_key", NotBlank: true, Doc: "Of Ed25519: PEM, or base64 of its 32 bytes."},
				{Name: "kid", NotBlank: true, Doc: "Ignored: the id is made here."},
				{Name: "scope", NotBlank: true, Doc: "What the key is for, separated by commas."},
				{
					Name: "totp_code", Type: rest.Code, Required: true, NotBlank: true, Missing: "resource.api_key.missing_totp",
					Doc: "Code of the second factor.",
				},
			},
			BadRequest: true, Success: 201, Output: "APIKey", Handle: m.createAPIKey,
			Errors: codes(guardCodes, []fault.Code{"kid.blank", "algorithm.inclusion", "public_key.blank", "public_key.invalid", "scope.too_long"}),
		},
		{
			Method: "PATCH", Path: "/resource/api_keys/{kid}", Summary: "Changes scope or state of an API key.",
			Access: rest.User, Prefix: apiKeys, Params: []rest.Param{
				kid,
				{Name: "scope", NotBlank: true, Doc: "What the key is for, separated by commas."},
				{Name: "state", NotBlank: true, Doc: "active or inactive; disabled is the same as inactive."},
				{Name: "totp_code", Type: rest.Code, Required: true, NotBlank: true, Doc: "Code of the second factor."},
			},
			BadRequest: true, Success: 200, Output: "APIKey", Handle: m.updateAPIKey,
			Errors: codes(guardCodes, []fault.Code{fault.NotFound, "state.inclusion", "state.too_long", "scope.too_long"}),
		},
		{
			Method: "DELETE", Path: "/resource/api_keys/{kid}", Summary: "Removes an API key.",
			Access: rest.User, Prefix: apiKeys, Params: []rest.Param{
				kid,
				{Name: "totp_code", In: rest.Query, Type: rest.Code, Required: true, NotBlank: true, Doc: "Code of the second factor."},
			},
			BadRequest: true, Success: 204, Handle: m.deleteAPIKey, Errors: codes(guardCodes, []fault.Code{fault.NotFound}),
		},
		{
			Method: "POST", Path: "/resource/data_storage", Summary: "Stores a JSON text under one of the configured titles, once.",
			Access: rest.User, Prefix: dataStorage, Params: []rest.Param{
				{Name: "title", Required: true, NotBlank: true, Doc: "One of the configured titles."},
				{Name: "data", Type: rest.JSONText, Required: true, NotBlank: true, Doc: "JSON text of at most 5120 characters."},
			},
			Success: 201, Output: "code", Handle: m.store,
			Errors: []fault.Code{"data.too_long", "data.invalid_format", "title.taken", "title.inclusion", "title.exclusion", "title.too_long"},
		},
		{
			Method: "GET", Path: "/resource/sessions", Summary: "Lists the caller's sessions, newest first.",
			Access: rest.User, Prefix: sessions, Success: 200, Output: "[Session]", Added: true, Handle: m.listSessions,
		},
		{
			Method: "DELETE", Path: "/resource/sessions", Summary: "Ends the caller's sessions but the one of this browser.",
			Access: rest.User, Prefix: sessions, Success: 204, Added: true, Handle: m.endSessions,
		},
		{
			Method: "DELETE", Path: "/resource/sessions/{id}", Summary: "Ends one of the caller's sessions.",
			Access: rest.User, Prefix: sessions, Params: []rest.Param{
				{Name: "id", In: rest.Path, Required: true, NotBlank: true, Doc: "Id of the session, from the list."},
			},
			Success: 204, Added: true, Handle: m.endSession, Errors: []fault.Code{fault.NotFound},
		},
	}
	routes = append(routes, m.providerRoutes()...)
	if !m.NoPasskeys {
		routes = append(routes, m.passkeyRoutes()...)
	}
	if m.NoPhones {
		routes = slices.DeleteFunc(routes, func(r rest.Route) bool { return strings.HasPrefix(r.Path, "/resource/phones") })
	}
	return routes
}
