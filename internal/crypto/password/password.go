// Package password decides which passwords are good enough, and keeps them as digests.
//
// A Policy gives the codes that a new password earns and the entropy that POST /identity/password/validate shows. A
// Hasher makes and checks digests: argon2id for new ones, bcrypt for those an older installation made. The package logs
// nothing and keeps no password.
package password

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"barong/internal/fault"

	"github.com/dlclark/regexp2"
)

// Codes of a password that is refused, in the order in which they are listed.
const (
	TooLong      fault.Code = "password.too_long"
	Requirements fault.Code = "password.requirements"
	Weak         fault.Code = "password.weak"
)

// MaxLength is the longest password in characters. The original's digests know 72 bytes alone; see Hasher.
const MaxLength = 72

// Options are the settings of a Policy.
type Options struct {
	// Regexp is what a password must match, with look-ahead and POSIX classes as Ruby has them. ^ and $ stand for the
	// beginning and the end of the whole text, not of a line. Empty: everything matches.
	Regexp        string
	MinEntropy    float64 // bits
	UseDictionary bool    // score the 10,000 most common passwords as one character
}

// A Policy is a compiled set of rules. It is immutable and safe for concurrent use.
type Policy struct {
	form          *regexp2.Regexp // nil: any
	minEntropy    float64
	useDictionary bool
}

// New compiles the rules. The error of a regular expression that does not compile says what is wrong with it.
func New(o Options) (*Policy, error) {
	p := &Policy{minEntropy: o.MinEntropy, useDictionary: o.UseDictionary}
	if o.Regexp != "" {
		translated, err := translate(o.Regexp)
		if err != nil {
			return nil, fmt.Errorf("password pattern: %w", err)
		}
		if p.form, err = regexp2.Compile(translated, regexp2.None); err != nil {
			return nil, fmt.Errorf("password pattern: %w", err)
		}
		p.form.MatchTimeout = matchTimeout
	}
	return p, nil
}

// matchTimeout ends a match that backtracks without end. What has not matched by then does not.
const matchTimeout = 100 * time.Millisecond

// Entropy is the strength of a password in bits. It may be negative. Only the first 1,000 characters count.
func (p *Policy) Entropy(password string) float64 {
	if !p.useDictionary {
		return entropy(password, nil)
	}
	words, err := commonPasswords() // read once, and not when the program starts
	if err != nil {
		panic(fmt.Sprintf("password: %v", err)) // what is built in is damaged, which a test would have told
	}
	return entropy(password, words)
}

// Codes lists what is wrong with a new password; empty when nothing is. Among the codes of a whole account they stand
// together: in front when TooLong is one of them, behind all others otherwise.
func (p *Policy) Codes(password string) []fault.Code {
	var codes []fault.Code
	if utf8.RuneCountInString(password) > MaxLength {
		codes = append(codes, TooLong)
	}
	if !p.matches(password) {
		return append(codes, Requirements)
	}
	if p.Entropy(password) < p.minEntropy {
		codes = append(codes, Weak)
	}
	return codes
}

func (p *Policy) matches(password string) bool {
	if p.form == nil {
		return true
	}
	if !utf8.ValidString(password) || len(password) > 4*maxScored {
		return false
	}
	ok, err := p.form.MatchString(password)
	return ok && err == nil
}

// posix are the POSIX classes as Ruby means them, over Unicode, in the notation of a class's inside.
var posix = map[string]string{
	"lower": `\p{Ll}`, "upper": `\p{Lu}`, "alpha": `\p{L}\p{M}`, "digit": `\p{Nd}`, "alnum": `\p{L}\p{M}\p{Nd}`,
	"xdigit": `0-9A-Fa-f`, "punct": `\p{P}$+<=>^` + "`" + `|~`, "space": `\s`, "blank": `\p{Zs}\t`, "cntrl": `\p{Cc}`,
	"graph": `\p{L}\p{M}\p{N}\p{P}\p{S}\p{Cf}\p{Co}`, "print": `\p{L}\p{M}\p{N}\p{P}\p{S}\p{Cf}\p{Co}\p{Zs}`,
	"word": `\w`,
	// The negations that one class can say.
	"^lower": `\P{Ll}`, "^upper": `\P{Lu}`, "^digit": `\P{Nd}`, "^space": `\S`, "^cntrl": `\P{Cc}`, "^word": `\W`,
}

// translate rewrites a pattern of Ruby's for regexp2: POSIX classes, which regexp2 does not know, and ^ and $, which
// match at every line in Ruby, so that one good line would let any text pass.
func translate(pattern string) (string, error) {
	var b strings.Builder
	inside := false // of a class
	for i := 0; i < len(pattern); i++ {
		c, rest := pattern[i], pattern[i:]
		switch {
		case c == '\\' && i+1 < len(pattern):
			b.WriteString(pattern[i : i+2])
			i++
		case inside && strings.HasPrefix(rest, "[:"):
			name, _, ok := strings.Cut(rest[2:], ":]")
			class, known := posix[name]
			if !ok || !known {
				return "", fmt.Errorf("unknown class %q", rest[:min(len(rest), 14)])
			}
			b.WriteString(class)
			i += len("[:") + len(name) + len(":]") - 1
		case inside && c == ']':
			inside = false
			b.WriteByte(c)
		case inside:
			b.WriteByte(c)
		case c == '[':
			inside = true
			b.WriteByte(c)
			if strings.HasPrefix(pattern[i+1:], "^") {
				b.WriteByte('^')
				i++
			}
		case c == '^':
			b.WriteString(`\A`)
		case c == '$':
			b.WriteString(`\z`)
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}
