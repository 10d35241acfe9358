// Package phone reads phone numbers. It knows the numbering plans of the world and nothing else.
package phone

import (
	"strings"

	"github.com/nyaruka/phonenumbers"
)

// maxDigits bounds what is looked at: E.164 has 15 digits, and a trunk zero or an international prefix may be among them.
const maxDigits = 32

// Parse reads an international number as people write it: "+44 (0)7418 084106", "00447418084106", "447418084106". Number
// is the country code and the national number in digits, without plus and without the national trunk zero; country is
// ISO 3166-1 alpha-2, found by range where countries share a code. ok is false for what is in no numbering plan.
func Parse(text string) (number, country string, ok bool) {
	if len(text) > 4*maxDigits {
		return "", "", false
	}
	digits := strings.TrimPrefix(Digits(text), "00") // the most common international prefix
	if digits == "" || len(digits) > maxDigits {
		return "", "", false
	}
	n, err := phonenumbers.Parse("+"+digits, "")
	if err != nil || !phonenumbers.IsValidNumber(n) {
		return "", "", false
	}
	country = phonenumbers.GetRegionCodeForNumber(n)
	if len(country) != 2 || country == "ZZ" { // "001": a number of no country, such as satellite telephones'
		return "", "", false
	}
	return strings.TrimPrefix(phonenumbers.Format(n, phonenumbers.E164), "+"), country, true
}

// Digits is a text without what is no digit.
func Digits(text string) string {
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, text)
}
