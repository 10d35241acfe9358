package policy

import "slices"

// methods are the registered HTTP methods (iana.org/assignments/http-methods) that ask for a path. CONNECT asks for a
// tunnel and PRI begins an HTTP/2 connection: neither is among them. Those that a rule can grant by name come first.
var methods = [...]string{
	"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE",
	"OPTIONS", "TRACE", "ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "COPY", "LABEL", "LINK", "LOCK", "MERGE",
	"MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE", "ORDERPATCH", "PROPFIND", "PROPPATCH", "QUERY",
	"REBIND", "REPORT", "SEARCH", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE", "UPDATEREDIRECTREF", "VERSION-CONTROL",
}

// named is how many of the methods a rule can grant by name. Only a rule for ALL grants the others.
const named = 6

// Methods are those for which there can be rules, the ones that a rule can grant by name first.
func Methods() []string { return slices.Clone(methods[:]) }

// methodIndex is the number of a method in methods, or -1. Methods are case-sensitive (RFC 9110 section 9.1).
func methodIndex(method string) int {
	for i := range methods { // those that most requests have stand first
		if methods[i] == method {
			return i
		}
	}
	return -1
}

// Method reports whether a request with that method can be judged. Any other, in lower case too, is no request for a path.
func Method(method string) bool { return methodIndex(method) >= 0 }

// onlyByAll tells the verbs that no ACCEPT row of their own can grant, only one for ALL.
func onlyByAll(verb string) bool { return methodIndex(verb) >= named }
