package management

import (
	"errors"
	"slices"
	"strings"

	"barong/internal/fault"
)

// phrases are what the kinds of the catalogue's codes are called in sentences. Other kinds are their own phrase.
var phrases = map[string]string{
	"blank":     "can't be blank",
	"exists":    "already exists",
	"inclusion": "is not included in the list",
	"invalid":   "is invalid",
	"taken":     "has already been taken",
}

// whole are the phrases of codes whose kind alone would say another thing.
var whole = map[fault.Code]string{
	"data.invalid_format": "data is not json compatible string",
	"data.too_long":       "is too long (maximum is 1024 characters)",
	"doc_number.invalid":  "only allows letters and digits",
	"doc_number.too_long": "is too long (maximum is 128 characters)",
	"postcode.too_short":  "is too short (minimum is 2 characters)",
	"key.too_short":       "is too short (minimum is 3 characters)",
	"value.too_short":     "is too short (minimum is 3 characters)",
	"metadata.too_long":   "is too long (maximum is 65535 characters)",
	"password.too_long":   "is too long (maximum is 72 characters)",
}

// attribute and phrase are the two halves of a code's sentence.
func attribute(code fault.Code) string {
	name, _, _ := strings.Cut(string(code), ".")
	return name
}

func phrase(code fault.Code) string {
	if p, ok := whole[code]; ok {
		return p
	}
	_, kind, _ := strings.Cut(string(code), ".")
	if p, ok := phrases[kind]; ok {
		return p
	}
	if kind == "too_long" {
		return "is too long (maximum is 255 characters)"
	}
	return kind
}

// sentence says a code in words: "Email has already been taken".
func sentence(code fault.Code) string {
	name := strings.ReplaceAll(attribute(code), "_", " ")
	if name == "" {
		return phrase(code)
	}
	return strings.ToUpper(name[:1]) + name[1:] + " " + phrase(code)
}

// sentences say codes in words, one each.
func sentences(codes []fault.Code) []string {
	out := make([]string, len(codes))
	for i, code := range codes {
		out[i] = sentence(code)
	}
	return out
}

// listed are codes in words by attribute.
func listed(codes []fault.Code) map[string][]string {
	out := map[string][]string{}
	for _, code := range codes {
		out[attribute(code)] = append(out[attribute(code)], sentence(code))
	}
	return out
}

// enumerated are sentences as one: "A, B, and C".
func enumerated(list []string) string {
	switch n := len(list); n {
	case 0, 1:
		return strings.Join(list, "")
	case 2:
		return list[0] + " and " + list[1]
	default:
		return strings.Join(list[:n-1], ", ") + ", and " + list[n-1]
	}
}

// groups begin the codes that are about a call and not about a row.
var groups = []string{"admin", "authz", "identity", "jwt", "record", "request", "resource", "server", "totp"}

// broken are the codes of the rules about a row that err says were broken; none when it says something else.
func broken(err error) []fault.Code {
	var f *fault.Error
	if !errors.As(err, &f) || f.Text != "" || f.Status != 422 && f.Status != 409 {
		return nil
	}
	if slices.ContainsFunc(f.Codes, func(c fault.Code) bool { return slices.Contains(groups, attribute(c)) }) {
		return nil
	}
	return f.Codes
}
