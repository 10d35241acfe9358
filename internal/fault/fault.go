// Package fault owns the errors that callers see: a code per failure, and one catalogue that gives each code its HTTP
// status and its meaning. The program reads the code, the caller gets the answer, the operator reads the private cause
// in the log.
//
// A fault is a value: making one neither logs nor counts. Adapters translate driver errors into faults at their door,
// and the edge turns any error into an answer with As. The package depends on nothing but the standard library.
package fault

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// A Code names one failure, e.g. "authz.invalid_session". Codes are public: clients compare them.
type Code string

// Codes that several packages raise. All others are written where they arise, and must stand in the catalogue.
const (
	InternalError Code = "server.internal_error"
	NotFound      Code = "record.not_found"
	BadToken      Code = "jwt.decode_and_verify"
	TOTP          Code = "totp.error"
	MalformedBody Code = "request.malformed_body"
	TooLarge      Code = "request.too_large"
	TooMany       Code = "request.rate_limited"
	Unavailable   Code = "authz.unavailable"

	MalformedRequest Code = "authz.malformed_request"
	UntrustedProxy   Code = "authz.untrusted_proxy"
)

// An Error is a failure that a caller may be told about. The zero value is not useful; see New, Invalid and Text.
// An Error is immutable once made: the methods that change something return a copy.
type Error struct {
	Codes  []Code // in the order the body lists them; empty only when Text is set
	Status int    // HTTP status

	// RetryAfter is sent as Retry-After, in whole seconds rounded up, when it is above zero.
	RetryAfter time.Duration
	// Text, when not empty, makes the body {"error":Text} instead of {"errors":[Codes...]}: unknown routes, content
	// negotiation and a storage that cannot be reached answer that way.
	Text string
	// Err is the private cause: for the log, never for the caller. It may be nil.
	Err error
}

// New returns the fault of a code, with the status of its catalogue entry. A code that the catalogue does not know is
// a defect of this program: it becomes server.internal_error with a cause that names it.
func New(code Code) *Error {
	e, ok := Lookup(code)
	if !ok {
		return internal(fmt.Errorf("code %q is not in the catalogue", code))
	}
	return &Error{Codes: []Code{code}, Status: e.Status}
}

// Invalid returns a 422 that lists these codes in this order: the answer to input that does not fit. Without codes it
// is server.internal_error, since a refusal that names no reason is a defect.
func Invalid(codes ...Code) *Error {
	if len(codes) == 0 {
		return internal(errors.New("input was refused without a code"))
	}
	return &Error{Codes: append([]Code(nil), codes...), Status: 422}
}

// Plain returns a fault whose body is {"error":text}.
func Plain(status int, text string) *Error { return &Error{Status: status, Text: text} }

// RateLimited returns a 429 that tells the caller when to come back.
func RateLimited(after time.Duration) *Error {
	e := New(TooMany)
	e.RetryAfter = max(after, time.Second) // a Retry-After of 0 would invite the next attempt at once
	return e
}

func internal(cause error) *Error {
	return &Error{Codes: []Code{InternalError}, Status: 500, Err: cause}
}

// Error is for the log: the codes or the text, and the private cause. It must not be sent to a caller.
func (e *Error) Error() string {
	public := e.Text
	if public == "" {
		public = Join(e.Codes)
	}
	if e.Err == nil {
		return public
	}
	return public + ": " + e.Err.Error()
}

// Join lists codes in one line.
func Join(codes []Code) string {
	words := make([]string, len(codes))
	for i, c := range codes {
		words[i] = string(c)
	}
	return strings.Join(words, ", ")
}

// Unwrap returns the private cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is a fault with the same single code, so that errors.Is(err, fault.New(code)) works.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && len(t.Codes) == 1 && len(e.Codes) == 1 && t.Codes[0] == e.Codes[0]
}

// Has reports whether code is among the fault's codes.
func (e *Error) Has(code Code) bool {
	for _, c := range e.Codes {
		if c == code {
			return true
		}
	}
	return false
}

// Because returns a copy with this private cause.
func (e *Error) Because(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// WithStatus returns a copy with this HTTP status, where one code answers differently by compatibility mode or by rule.
func (e *Error) WithStatus(status int) *Error {
	c := *e
	c.Status = status
	return &c
}

// As returns the fault in err's chain. An error without one is a defect or an outage that nobody translated: it
// becomes server.internal_error, 500, with err as its cause. As(nil) is nil.
func As(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) && e != nil {
		if err != error(e) {
			return e.Because(err) // keep what the wrappers said, for the log
		}
		return e
	}
	return internal(err)
}
