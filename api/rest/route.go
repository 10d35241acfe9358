// Package rest is the frame of the REST API: what a route is, how a request's parameters are read and validated, how a
// caller is authenticated, how answers, errors and pages look. The endpoints themselves stand in the packages beside
// it. A route is data: the same table serves requests, checks parameters, and documents the API.
package rest

import (
	"cmp"

	"barong/internal/fault"
)

// Access says who may call a route.
type Access uint8

// The kinds of access.
const (
	Public Access = iota + 1 // anybody: identity. A row that does not say who may call is refused by New
	User                     // a bearer token of an open account: resource
	Staff                    // a bearer token whose role the permission rules let through: admin
	Signed                   // a message that other services have signed: management
)

// Bearer reports whether a call needs a bearer token.
func (a Access) Bearer() bool { return a == User || a == Staff }

// In is where a parameter is documented to stand. All places are read alike: the path wins over the body, the body
// over the query.
type In uint8

// The places of parameters.
const (
	Form In = iota
	Query
	Path
)

// Type is the type of a parameter.
type Type uint8

// The types of parameters. Values arrive as text or JSON; JSON numbers and booleans count as text.
const (
	String   Type = iota
	Integer       // optional sign and decimal digits
	Boolean       // true t yes y on 1, false f no n off 0, in lower, Capitalised or UPPER case
	Date          // a calendar date in any form of Day; handlers get YYYY-MM-DD
	Code          // a code from an app, a message or a list of recovery codes; handlers get it without spaces and dashes
	JSONText      // JSON text, or a JSON object; handlers get the text
	Files         // uploaded files, or one
	Any           // a string or an object: what captcha widgets send
	JSON          // any JSON value, in a form its text; see Call.Decode
	Object        // a JSON object
)

// A Param is one parameter of a route and the rules it must fit. Every rule that fails adds its code, in the order
// missing, type, empty, value; the codes left empty here follow from the route's Prefix and the parameter's name, and
// its Style words them.
type Param struct {
	Name     string
	In       In
	Type     Type
	Required bool
	NotBlank bool     // refuses a value that is empty, white space or null
	Values   []string // allowed values, if any
	Min, Max int64    // allowed range of an Integer, unless both are zero
	Default  string   // value of a parameter that is absent or null
	// ValueFirst lists the code for a value that is not allowed before the one for a blank value, as the original did
	// where it named the rules in that order.
	ValueFirst bool
	Secret     bool // one in the query counts as absent: queries end up in the logs of everything on the way
	Doc        string

	Missing  fault.Code // Prefix.missing_name
	Empty    fault.Code // Prefix.empty_name
	BadType  fault.Code // invalid
	BadValue fault.Code // value
}

// A Route is one operation of the API.
type Route struct {
	Method  string
	Path    string // below /api/v2, parameters in braces: "/resource/labels/{key}"
	Summary string
	Access  Access
	Scope   string // of a Signed route: its name in the list of who may sign for what
	Prefix  string // first part of the codes of Params: "identity.session"
	Style   *Style // how the module words what is wrong with Params; nil: Codes
	Params  []Param
	// Exactly one of these parameters must be present, else the code is added last.
	OneOf     []string
	OneOfCode fault.Code
	// Success is the status of the API reference, Legacy the one that release 2.4.17 sent (0: the same).
	Success, Legacy int
	// BadRequest says that the API reference lists 400 here: missing or blank required parameters answer 400 in
	// reference mode.
	BadRequest bool
	Output     Model // what a success answers; see Model
	// LegacyOutput is what release 2.4.17 answered, where it was something else.
	LegacyOutput Model
	Errors       []fault.Code // codes that the handler may answer besides those of Params
	Listed       []int        // further statuses that the API reference lists, for the API document
	MaxBody      int          // bytes; 0 means DefaultMaxBody, or 16 KiB where Access is Public
	// Parallel is how many calls of one user, or of one address to a Signed route, may run at the same time; a few more
	// wait, further ones are request.rate_limited. 0 is any number.
	Parallel int
	Added    bool // not part of the 2.4.0 reference
	Handle   HandlerFunc
}

// A Model names the shape of an answer for the API document: "UserWithFullInfo", "[Label]" for an array of it,
// "[User|UserWithKYC]" for an array of either, "code" for a bare number or null, "file", "any", "" for none, or an inline
// object as "{ping:string,version?:string}", where a "?" behind a member's name says that it may be absent. Types of
// members are string, integer, number, boolean, object, any or a model; a "?" behind one allows null.
type Model string

// DefaultMaxBody is the largest request body of a route that does not say otherwise, in bytes, and publicMaxBody that of one
// which anybody may call.
const (
	DefaultMaxBody = 256 << 10
	publicMaxBody  = 16 << 10
)

func (r *Route) maxBody() int {
	switch {
	case r.MaxBody > 0:
		return r.MaxBody
	case r.Access == Public:
		return publicMaxBody
	}
	return DefaultMaxBody
}

func (r *Route) style() *Style {
	if r.Style == nil {
		return Codes
	}
	return r.Style
}

// MissingCode is the code for the parameter's absence.
func (r *Route) MissingCode(p *Param) fault.Code {
	return cmp.Or(p.Missing, r.style().missing(r, p.Name))
}

// EmptyCode is the code for a blank parameter.
func (r *Route) EmptyCode(p *Param) fault.Code { return cmp.Or(p.Empty, r.style().empty(r, p.Name)) }

// TypeCode is the code for a parameter of the wrong type.
func (r *Route) TypeCode(p *Param) fault.Code { return cmp.Or(p.BadType, r.style().badType(p.Name)) }

// ValueCode is the code for a parameter outside its allowed values.
func (r *Route) ValueCode(p *Param) fault.Code { return cmp.Or(p.BadValue, r.style().badValue(p.Name)) }

func (p *Param) bounded() bool { return len(p.Values) > 0 || p.Min != 0 || p.Max != 0 }

// ValidationCodes are the codes that Params can cause, in order and without repeats. What stands in the path is never
// absent, and is always text.
func (r *Route) ValidationCodes() []fault.Code {
	var out []fault.Code
	seen := map[fault.Code]bool{}
	add := func(c fault.Code) {
		if c != "" && !seen[c] {
			seen[c] = true
			out = append(out, c)
		}
	}
	for i := range r.Params {
		p := &r.Params[i]
		if p.Required && p.In != Path {
			add(r.MissingCode(p))
		}
		if p.NotBlank {
			add(r.EmptyCode(p))
		}
		if p.In != Path || p.Type != String {
			add(r.TypeCode(p))
		}
		if p.bounded() {
			add(r.ValueCode(p))
		}
	}
	add(r.OneOfCode)
	return out
}

// Paginated are the two parameters of every list with pages.
var Paginated = []Param{
	{
		Name: "page", In: Query, Type: Integer, Default: "1", Min: 1, Max: maxPage,
		BadType: "non_integer_page", BadValue: "non_positive_page", Doc: "Page number (defaults to 1).",
	},
	{
		Name: "limit", In: Query, Type: Integer, Default: "100", Min: 1, Max: 100,
		BadType: "non_integer_limit", BadValue: "invalid_limit",
		Doc: "Number of users per page (defaults to 100, maximum is 100).",
	},
}

// maxPage keeps the offset of the largest page within 64 bits.
const maxPage = 1 << 40
