package password

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxScored is how many characters of a password count.
const maxScored = 1000

// entropy is the strength of a password in bits: the least of the scores of the password, of its lower-case form, of
// its forms with keyboard runs masked, and with words in use (d not nil) of its forms with a common password masked.
func entropy(password string, d *dictionary) float64 {
	p := truncate(password, maxScored)
	lower := strings.ToLower(p)
	least := min(score(p), score(lower))
	for _, form := range []string{p, reverse(p)} {
		least = min(least, score(form), score(maskRuns(form)))
	}
	if d == nil {
		return least
	}
	for _, form := range spellings(lower) {
		if from, to := d.first(form); from >= 0 {
			form = form[:from] + mask + form[to:]
		}
		least = min(least, score(form))
	}
	return least
}

// mask stands for a run or a word that is worth no more than one character.
const mask = "*"

// score is the plain entropy: a value per position, less for a character that was there before, and a bonus or a
// malus for the mixture.
func score(s string) float64 {
	var (
		bits  float64
		ascii [utf8.RuneSelf]float64 // 0: not seen yet
		wide  map[rune]float64
		i     int

		upper, lower, digit, other, space bool
	)
	for _, r := range s {
		weight := 1.0
		if r < utf8.RuneSelf {
			if w := ascii[r]; w != 0 {
				weight = w
			}
			ascii[r] = weight * 0.75
		} else {
			if w, ok := wide[r]; ok {
				weight = w
			} else if wide == nil {
				wide = make(map[rune]float64)
			}
			wide[r] = weight * 0.75
		}
		switch {
		case i == 0:
			bits += 4
		case i < 8:
			bits += 2 * weight
		case i < 20:
			bits += 1.5 * weight
		default:
			bits += weight
		}
		i++
		upper = upper || unicode.IsUpper(r)
		lower = lower || unicode.IsLower(r)
		digit = digit || unicode.IsDigit(r)
		space = space || r == ' '
		other = other || (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != ' '
	}
	switch {
	case upper && lower && digit && other:
		bits += 6
	case upper && lower && other:
		bits += 5
	case digit && !upper && !lower && other:
		bits -= 2
	case digit && !upper && !lower:
		bits -= 6
	}
	if !space {
		bits -= 2
	} else if wordCount(s) > 3 {
		bits++
	}
	return bits
}

// wordCount counts what white space separates; white space in front counts as one more, as in the original's answers.
func wordCount(s string) int {
	isSpace := func(r rune) bool { return r == ' ' || r >= '\t' && r <= '\r' }
	n := len(strings.FieldsFunc(s, isSpace))
	if r, _ := utf8.DecodeRuneInString(s); n > 0 && isSpace(r) {
		n++
	}
	return n
}

// runs are the walks over a keyboard and through the alphabet: the rows, the columns slanting down and up, with and
// without the keys right of the letters, the number pad, the letters. Where a text could follow two of them, the first
// counts.
var runs = [...]string{
	"1234567890-", "qwertyuiop", "asdfghjkl;", "zxcvbnm,./",
	`1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.0p;/-['=]:?_{"+}`,
	"1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
	`qazwsxedcrfvtgbyhnujmik,ol.p;/-['=]:?_{"+}`,
	"qazwsxedcrfvtgbyhnujmikolp",
	`]"/=[;.-pl,0okm9ijn8uhb7ygv6tfc5rdx4esz3wa2q1`,
	"pl0okm9ijn8uhb7ygv6tfc5rdx4esz3wa2q1",
	`]"/[;.pl,okmijnuhbygvtfcrdxeszwaq`,
	"plokmijnuhbygvtfcrdxeszwaq",
	"014725836914702583697894561230258/369*+-*/",
	"abcdefghijklmnopqrstuvwxyz",
}

const minRun, maxRun = 3, 6

// runOf finds the run that a text of minRun bytes is part of. A hyphen ends a run: that is how the original scored.
var runOf = func() map[string]string {
	m := make(map[string]string)
	for _, run := range runs {
		for i := 0; i+minRun <= len(run); i++ {
			part := run[i : i+minRun]
			if _, ok := m[part]; !ok && !strings.Contains(part, "-") {
				m[part] = run
			}
		}
	}
	return m
}()

// maskRuns replaces every part of a run, of three to six characters, by one mask, from left to right.
func maskRuns(s string) string {
	var b strings.Builder
	done := 0
	for i := 0; i+minRun <= len(s); {
		run, ok := runOf[s[i:i+minRun]]
		if !ok {
			i++
			continue
		}
		end := i + minRun
		for end < len(s) && end-i < maxRun && s[end] != '-' && strings.Contains(run, s[i:end+1]) {
			end++
		}
		b.WriteString(s[done:i])
		b.WriteString(mask)
		i, done = end, end
	}
	if done == 0 {
		return s
	}
	b.WriteString(s[done:])
	return b.String()
}

// What a lower-case password may stand for: every key hit one row too high, to the right or to the left of the key
// meant, and digits or signs for the letters they resemble.
var (
	downRight = strings.NewReplacer("a", "z", "q", "a", "1", "q", "s", "x", "w", "s", "2", "w", "d", "c", "e", "d",
		"3", "e", "f", "v", "r", "f", "4", "r", "g", "b", "t", "g", "5", "t", "h", "n", "y", "h", "6", "y", "j", "m",
		"u", "j", "7", "u", "i", "k", "8", "i", "o", "l", "9", "o", "0", "p")
	downLeft = strings.NewReplacer("2", "q", "w", "a", "3", "w", "s", "z", "e", "s", "4", "e", "d", "x", "r", "d",
		"5", "r", "f", "c", "t", "f", "6", "t", "g", "v", "y", "g", "7", "y", "h", "b", "u", "h", "8", "u", "j", "n",
		"i", "j", "9", "i", "k", "m", "o", "k", "0", "o", "p", "l", "-", "p")
	leetI = strings.NewReplacer("@", "a", "!", "i", "$", "s", "1", "i", "2", "z", "3", "e", "4", "a", "5", "s",
		"6", "g", "7", "t", "8", "b", "9", "g", "0", "o")
	leetL = strings.NewReplacer("@", "a", "!", "i", "$", "s", "1", "l", "2", "z", "3", "e", "4", "a", "5", "s",
		"6", "g", "7", "t", "8", "b", "9", "g", "0", "o")
)

// spellings lists the forms of a lower-case password in which a common one is looked for: itself, and translated ones
// read in both directions.
func spellings(lower string) []string {
	forms := []string{lower}
	add := func(r *strings.Replacer) {
		form := r.Replace(lower)
		forms = append(forms, form, reverse(form))
	}
	if !strings.ContainsAny(lower, "zxcvbnm,./<>?") { // those keys have none below them
		add(downRight)
		add(downLeft)
	}
	if strings.ContainsAny(lower, "@!$0123456789") {
		add(leetI)
		add(leetL)
	}
	return forms
}

func reverse(s string) string {
	r := []rune(s)
	slices.Reverse(r)
	return string(r)
}

// truncate cuts s to n characters.
func truncate(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}
