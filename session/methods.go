package session

import "strings"

// Methods are the ways in which a user has proved who they are, as a set.
type Methods uint8

// The methods, named as in RFC 8176 where it has a name for them.
const (
	Password    Methods = 1 << iota // "pwd"
	Code                            // "otp": a one-time code of an authenticator
	HardwareKey                     // "hwk": a passkey that does not leave its device
	SoftwareKey                     // "swk": any other passkey
	Federated                       // "fed": an identity provider
	MailedToken                     // "email": a token that was sent to the user's address
)

var methodNames = [...]string{"pwd", "otp", "hwk", "swk", "fed", "email"}

// Has reports whether all of these methods are among them.
func (m Methods) Has(all Methods) bool { return m&all == all }

// Names are the names of the methods, in the order above.
func (m Methods) Names() []string {
	var names []string
	for i, name := range methodNames {
		if m.Has(1 << i) {
			names = append(names, name)
		}
	}
	return names
}

// String is the names, a space between each two. This is how stores keep them.
func (m Methods) String() string { return strings.Join(m.Names(), " ") }

// ParseMethods reads what String wrote. Names that this version does not know are left out: a session proves less then, never
// more.
func ParseMethods(text string) Methods {
	var m Methods
	for word := range strings.FieldsSeq(text) {
		for i, name := range methodNames {
			if word == name {
				m |= 1 << i
			}
		}
	}
	return m
}
