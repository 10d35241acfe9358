package rest

import (
	"strings"

	"barong/internal/fault"
)

// A Style is how a module words what is wrong with the parameters of a call.
type Style struct {
	missing, empty    func(r *Route, name string) fault.Code
	badType, badValue func(name string) fault.Code
	oneOf             func(r *Route, given []string) fault.Code // given are those of OneOf that there are: none, or several
	refusal           func(status int, codes []fault.Code) *fault.Error
}

// Codes is the style for front ends: {"errors":["identity.user.missing_email"]}.
var Codes = &Style{
	missing:  func(r *Route, name string) fault.Code { return fault.Code(r.Prefix + ".missing_" + name) },
	empty:    func(r *Route, name string) fault.Code { return fault.Code(r.Prefix + ".empty_" + name) },
	badType:  func(string) fault.Code { return "invalid" },
	badValue: func(string) fault.Code { return "value" },
	oneOf:    func(r *Route, _ []string) fault.Code { return r.OneOfCode },
	refusal:  func(status int, codes []fault.Code) *fault.Error { return fault.Invalid(codes...).WithStatus(status) },
}

// Sentences is the style for other services, with the words of the original: {"error":"uid is missing, key is empty"}.
var Sentences = &Style{
	missing:  func(_ *Route, name string) fault.Code { return fault.Code(name + " is missing") },
	empty:    func(_ *Route, name string) fault.Code { return fault.Code(name + " is empty") },
	badType:  func(name string) fault.Code { return fault.Code(name + " is invalid") },
	badValue: func(name string) fault.Code { return fault.Code(name + " does not have a valid value") },
	oneOf: func(r *Route, given []string) fault.Code {
		if len(given) == 0 {
			return fault.Code(strings.Join(r.OneOf, ", ") + " are missing, exactly one parameter must be provided")
		}
		return fault.Code(strings.Join(given, ", ") + " are mutually exclusive")
	},
	refusal: func(status int, codes []fault.Code) *fault.Error { return fault.Plain(status, fault.Join(codes)) },
}
