// Package email knows the spellings of e-mail addresses: which of them are one address, which is shown, and which goes to
// mail servers. Whether an address is accepted at all is for others to say.
package email

import (
	"slices"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// domains maps domain names between Unicode and their A-labels, as browsers do (UTS 46, non-transitional).
var domains = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(), idna.StrictDomainName(true), idna.VerifyDNSLength(true))

// Normal is the form in which addresses are stored, compared and shown: trimmed, composed (NFC), in lower case, the domain in
// the Unicode of its A-labels. Addresses of which the domains have equal A-labels have equal normal forms. A domain that has
// no A-labels stays as it is.
func Normal(address string) string {
	local, domain, ok := split(lower(address))
	if !ok {
		return local
	}
	return local + "@" + display(domain)
}

// lower is an address trimmed, composed and in lower case.
func lower(address string) string {
	return norm.NFC.String(strings.ToLower(norm.NFC.String(strings.TrimSpace(address))))
}

func split(address string) (local, domain string, ok bool) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return address, "", false
	}
	return address[:at], address[at+1:], true
}

// plain reports a domain that is its own A-labels and Unicode.
func plain(domain string) bool {
	return strings.IndexFunc(domain, func(r rune) bool { return r >= 0x80 }) < 0 && !strings.Contains(domain, "xn--")
}

func display(domain string) string {
	if plain(domain) {
		return domain
	}
	ascii, err := domains.ToASCII(domain)
	if err != nil {
		return domain
	}
	unicode, err := domains.ToUnicode(ascii)
	if err != nil {
		return ascii
	}
	if again, err := domains.ToASCII(unicode); err != nil || again != ascii {
		return ascii
	}
	return unicode
}

// ASCIIDomain is an address, in any form, with the A-labels of its domain, as mail servers take it. ok is false when the
// domain has none.
func ASCIIDomain(address string) (text string, ok bool) {
	local, domain, ok := split(address)
	if !ok || plain(domain) {
		return address, ok
	}
	ascii, err := domains.ToASCII(domain)
	return local + "@" + ascii, err == nil
}

// Spellings are the forms in which an address may be stored, the likeliest first: as it was typed in lower case, which is
// what older releases kept, the normal form, and the one with A-labels. Most addresses have one.
func Spellings(address string) []string {
	out := []string{strings.ToLower(strings.TrimSpace(address))}
	normal := Normal(address)
	ascii, ok := ASCIIDomain(normal)
	if !ok {
		ascii = normal
	}
	for _, s := range []string{normal, ascii} {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
