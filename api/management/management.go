// Package management is the module of the REST API for other services: each call is a message that the services whose word
// it takes have signed. It is reached inside the network alone, never through a gateway and not by the
// self-gated API. Without a management_api.yml nobody may sign for anything, and every call is refused.
package management

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"barong/api/account"
	"barong/api/rest"
	"barong/api/view"
	"barong/db"
	"barong/internal/crypto/jws"
	"barong/internal/fault"
	"barong/internal/limit"
)

// KeyID is the name under which this program signs messages for others.
const KeyID = "barong"

// Options are what a Module is made of. All but Config are required.
type Options struct {
	Config    Config
	Accounts  *account.Service
	Documents account.Documents
	DB        *db.DB
	Signer    func() jws.Signer // the key of the moment
	Memory    limit.Limiter     // of the messages that were accepted; one that forgets lets them be repeated

	Issuer string // of session tokens

	Legacy bool // release 2.4.17 answers, and what it let messages leave out
	Now    func() time.Time
	Log    *slog.Logger
}

// A Module answers the routes of management. It is safe for concurrent use.
type Module struct {
	Options
}

// New returns a module.
func New(o Options) *Module { return &Module{Options: o} }

// parallelDocuments is how many documents are taken in from an address at the same time: each stands in memory, before it
// is known who sends it.
const parallelDocuments = 4

func (m *Module) view() *view.Builder {
	return &view.Builder{DB: m.DB, Legacy: m.Legacy, FileURL: m.Documents.Files.URL}
}

var errNoRecord = fault.Plain(404, "Record is not found")

// found turns the absence of a row that a call names into its answer.
func found(err error) error {
	if errors.Is(err, db.ErrNotFound) {
		return errNoRecord.Because(err)
	}
	return err
}

// Shorthands for parameters.
func required(name, doc string) rest.Param {
	return rest.Param{Name: name, Required: true, NotBlank: true, Doc: doc}
}

func optional(name, doc string) rest.Param { return rest.Param{Name: name, NotBlank: true, Doc: doc} }

func params(lists ...[]rest.Param) []rest.Param { return slices.Concat(lists...) }

// pages are the parameters of lists, with the words that they have here.
var pages = func() []rest.Param {
	list := slices.Clone(rest.Paginated)
	for i := range list {
		p := &list[i]
		p.In, p.BadType, p.BadValue = rest.Form, fault.Code(p.Name)+" "+p.BadType, fault.Code(p.Name)+" "+p.BadValue
	}
	return list
}()

// The profile of a person, as two routes take it.
var person = []rest.Param{
	optional("first_name", "First name."), optional("last_name", "Last name."),
	{Name: "dob", Type: rest.Date, NotBlank: true, Doc: "Date of birth."},
	optional("address", "Address."), optional("postcode", "Postcode."), optional("city", "City."),
	optional("country", "Country, as ISO 3166-1 alpha-2 or alpha-3."),
	optional("state", "State of the profile: drafted (the default), submitted, verified or rejected."),
}

func between(doc string) []rest.Param {
	return []rest.Param{
		{Name: "from", Type: rest.Integer, Doc: "Earliest " + doc + ", in seconds since 1970."},
		{Name: "to", Type: rest.Integer, Doc: "Latest " + doc + ", in seconds since 1970."},
	}
}

func ranged(wrong fault.Code) rest.Param {
	return rest.Param{Name: "range", Values: []string{"created", "updated"}, BadValue: wrong, Doc: "Which time from and to bound."}
}

var extended = rest.Param{
	Name: "extended", Type: rest.Boolean, Default: "false", BadType: "extended Non boolean extended value",
	Doc: "Whether users are shown with their profiles.",
}

// Routes are the routes of the module.
func (m *Module) Routes() []rest.Route {
	uid := required("uid", "Uid of the user.")
	userUID := required("user_uid", "Uid of the user.")
	key, value := required("key", "Key of the label."), required("value", "Value of the label.")
	description := optional("description", "What the label means.")
	referral := optional("referral_uid", "Uid of who recommended us.")
	return []rest.Route{
		{
			Method: "POST", Path: "/management/timestamp", Summary: "Tells the time.",
			Access: rest.Signed, Scope: "tools", Style: rest.Sentences, Added: true,
			Success: 200, Output: "{timestamp:integer}",
			Handle: m.timestamp,
		},
		{
			Method: "POST", Path: "/management/otp/sign", Summary: "Signs a message that a user has approved with their second factor.",
			Access: rest.Signed, Scope: "otp_sign", Style: rest.Sentences, Added: true,
			Params: []rest.Param{
				userUID,
				{Name: "otp_code", Type: rest.Code, Required: true, NotBlank: true, Doc: "Code of the user's second factor."},
				{Name: "jwt", Type: rest.Object, Required: true, NotBlank: true, Doc: "The message, as JWS in general JSON form."},
			},
			Success: 201, Output: "{payload:string,signatures:any}", Handle: m.signApproved,
		},
		{
			Method: "POST", Path: "/management/labels/filter/users", Summary: "Lists the users who have a label.",
			Access: rest.Signed, Scope: "read_users", Style: rest.Sentences, Added: true,
			Params: params([]rest.Param{
				key, optional("value", "Value of the label."), optional("scope", "Scope of the label."), extended, ranged("range Invalid range"),
			}, between("time of the label"), pages),
			Success: 200, Output: "[User|UserWithProfile]", Handle: m.listByLabel,
		},
		{
			Method: "POST", Path: "/management/labels/list", Summary: "Lists the labels of a user.",
			Access: rest.Signed, Scope: "read_labels", Style: rest.Sentences, Added: true,
			Params:  []rest.Param{userUID},
			Success: 201, Output: "[AdminLabelView]", Handle: m.listLabels,
		},
		{
			Method: "POST", Path: "/management/labels", Summary: "Gives a user a private label.",
			Access: rest.Signed, Scope: "write_labels", Style: rest.Sentences, Added: true,
			Params: []rest.Param{userUID, key, value, description}, Success: 201, Output: "Label", Handle: m.createLabel,
		},
		{
			Method: "PUT", Path: "/management/labels", Summary: "Gives a private label of a user another value.",
			Access: rest.Signed, Scope: "write_labels", Style: rest.Sentences, Added: true,
			Params: []rest.Param{
				userUID, key, value, description,
				{Name: "scope", Doc: "Scope of a label that is made (defaults to private)."},
				{Name: "replace", Type: rest.Boolean, Default: "true", Doc: "Whether the label is made when there is none."},
			},
			Success: 200, Output: "Label", Handle: m.putLabel,
		},
		{
			Method: "POST", Path: "/management/labels/delete", Summary: "Takes a private label from a user.",
			Access: rest.Signed, Scope: "write_labels", Style: rest.Sentences, Added: true,
			Params: []rest.Param{userUID, key}, Success: 204, Handle: m.deleteLabel,
		},
		{
			Method: "POST", Path: "/management/users/get", Summary: "Shows a user.",
			Access: rest.Signed, Scope: "read_users", Style: rest.Sentences, Added: true,
			Params: []rest.Param{optional("uid", "Uid."), optional("email", "E-mail."), optional("phone_num", "Phone number.")},
			OneOf:  []string{"uid", "email", "phone_num"}, Success: 201, Output: "UserWithKYC", Handle: m.showUser,
		},
		{
			Method: "POST", Path: "/management/users/list", Summary: "Lists users.",
			Access: rest.Signed, Scope: "read_users", Style: rest.Sentences, Added: true,
			Params: params([]rest.Param{extended, ranged("range Non positive page")}, between("time of the user"), []rest.Param{
				{Name: "uid", Doc: "Uid."},
				{Name: "email", Doc: "E-mail."},
				{Name: "role", Doc: "Role."},
				{Name: "first_name", Doc: "First name."},
				{Name: "last_name", Doc: "Last name."},
				{Name: "country", Doc: "Country."},
				{Name: "level", Type: rest.Integer, Doc: "Level."},
				{Name: "state", Doc: "State."},
			}, pages),
			Success: 200, Output: "[User|UserWithProfile]", Handle: m.listUsers,
		},
		{
			Method: "POST", Path: "/management/users", Summary: "Makes a user.",
			Access: rest.Signed, Scope: "write_users", Style: rest.Sentences, Added: true,
			Params:  []rest.Param{required("email", "E-mail."), {Name: "password", Required: true, NotBlank: true, Secret: true, Doc: "Password."}, referral},
			Success: 201, Output: "UserWithProfile", Handle: m.createUser,
		},
		{
			Method: "POST", Path: "/management/users/update", Summary: "Replaces the data of a user.",
			Access: rest.Signed, Scope: "write_users", Style: rest.Sentences, Added: true,
			Params: []rest.Param{uid, {Name: "data", Type: rest.JSONText, Required: true, NotBlank: true, Doc: "The data: JSON text, or an object."}}, Success: 201, Output: "UserWithProfile",
			Handle: m.updateUser,
		},
		{
			Method: "POST", Path: "/management/users/import", Summary: "Takes over a user with the digest of their password.",
			Access: rest.Signed, Scope: "write_users", Style: rest.Sentences, Added: true,
			Params: params([]rest.Param{
				required("email", "E-mail."),
				{Name: "password_digest", Required: true, NotBlank: true, Secret: true, Doc: "bcrypt digest of the password."},
				referral, optional("phone", "Phone number, taken for verified."),
			}, person),
			Success: 201, Output: "UserWithProfile", Handle: m.importUser,
		},
		{
			Method: "POST", Path: "/management/profiles", Summary: "Gives a user a profile.",
			Access: rest.Signed, Scope: "write_users", Style: rest.Sentences, Added: true,
			Params:  params([]rest.Param{uid}, person, []rest.Param{{Name: "metadata", Type: rest.JSONText, NotBlank: true, Doc: "JSON text, or an object."}}),
			Success: 201, Output: "UserWithProfile", Handle: m.createProfile,
		},
		{
			Method: "POST", Path: "/management/documents", Summary: "Stores a document of a user.",
			Access: rest.Signed, Scope: "write_documents", Style: rest.Sentences, Added: true,
			Params: []rest.Param{
				uid, required("doc_type", "Type of the document."), required("doc_number", "Number of the document."),
				required("filename", "Name of the file, without extension."), required("file_ext", "Extension of the file."),
				{Name: "upload", Required: true, Doc: "The file, as base64."},
				{Name: "doc_expire", Type: rest.Date, BadType: "doc_expire management.documents.expire_not_a_date", Doc: "The day on which it expires."},
				{
					Name: "update_labels", Type: rest.Boolean, Default: "true", BadType: "update_labels management.documents.update_labels_inalid",
					Doc: "Whether staff is to look at the documents.",
				},
				{Name: "metadata", Type: rest.JSONText, Doc: "JSON text, or an object."},
			},
			Success: 201, Output: "code", MaxBody: m.maxDocument(), Parallel: parallelDocuments, Handle: m.storeDocument,
		},
	}
}

// timestamp answers POST /management/timestamp.
func (m *Module) timestamp(_ context.Context, c *rest.Call) error {
	return c.Answer(map[string]int64{"timestamp": m.Now().Unix()})
}
