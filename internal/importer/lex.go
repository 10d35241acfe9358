package importer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Bounds of what the lexer keeps of a dump. Nothing else of it stays in memory, however long its lines are.
const (
	maxValue   = 32 << 20 // bytes of one value: MEDIUMTEXT, the longest type of the tables that are read, holds half of it
	maxWord    = 1 << 10  // bytes of a name, a number or a keyword
	bufferSize = 256 << 10
)

// A tokenKind says what a token is.
type tokenKind int

const (
	tokenEnd    tokenKind = iota // of the dump
	tokenWord                    // a keyword, a name without quotes, or a number: in the lexer's text
	tokenName                    // a quoted name
	tokenString                  // a text without its quotes and escapes
	tokenBytes                   // a hexadecimal or binary literal, decoded
	tokenMark                    // one character of punctuation: in the lexer's mark
	tokenStop                    // the delimiter that ends a statement
)

// A lexer reads the tokens of a dump, a piece at a time. It knows the part of MySQL's lexical grammar that mysqldump
// writes: texts with backslash escapes, quoted names, literals in hexadecimal, comments, and the conditional comments
// whose content is code.
type lexer struct {
	r        io.Reader
	buf      []byte // buf[pos:end] is read and not yet looked at
	pos, end int
	err      error // of the reader, kept until the buffer is used up

	base    int64 // offset in the dump of buf[0]
	lines   int   // ends of lines before buf[counted]
	counted int

	mode

	kind    tokenKind
	mark    byte
	text    []byte // of the token, valid until the next one
	discard bool   // texts are passed over and not kept

	comment func(text []byte) // told the beginning of each comment that runs to the end of its line; may be nil
}

// A mode is what statements before have said about how to read on.
type mode struct {
	conditional bool   // within /*! … */
	delimiter   string // that ends statements
	ansi        bool   // "…" is a name and no text
	plain       bool   // a backslash in a text stands for itself
}

func newLexer(r io.Reader, offset int64) *lexer {
	return &lexer{r: r, buf: make([]byte, bufferSize), base: offset, mode: mode{delimiter: ";"}}
}

// errCut says that the dump ends where it must not.
var errCut = errors.New("the dump is cut short")

// offset is where in the dump the lexer is.
func (l *lexer) offset() int64 { return l.base + int64(l.pos) }

// failf makes an error that says where in the dump it is.
func (l *lexer) failf(format string, args ...any) error {
	return fmt.Errorf("line %d: %w", l.line(), fmt.Errorf(format, args...))
}

// line is the number of the line where the lexer is.
func (l *lexer) line() int {
	l.lines += bytes.Count(l.buf[l.counted:l.pos], []byte{'\n'})
	l.counted = l.pos
	return l.lines + 1
}

// fill reads on, so that at least n bytes are there, and reports whether they are.
func (l *lexer) fill(n int) bool {
	for l.end-l.pos < n {
		if l.err != nil {
			return false
		}
		if l.pos > 0 {
			l.line()
			l.base += int64(l.pos)
			copy(l.buf, l.buf[l.pos:l.end])
			l.end -= l.pos
			l.pos, l.counted = 0, 0
		}
		m, err := l.r.Read(l.buf[l.end:])
		l.end += m
		l.err = err
	}
	return true
}

// passTo passes over everything before an offset.
func (l *lexer) passTo(offset int64) error {
	for l.offset() < offset {
		if !l.fill(1) {
			if err := l.ended(); err != nil {
				return err
			}
			return errChanged
		}
		l.pos += int(min(offset-l.offset(), int64(l.end-l.pos)))
	}
	return nil
}

// errChanged says that a dump is not any more what it was when it was opened.
var errChanged = errors.New("the dump was changed while it was read")

// ended tells why there is nothing more: nil at the plain end of the dump.
func (l *lexer) ended() error {
	switch {
	case l.err == io.EOF:
		return nil
	case errors.Is(l.err, io.ErrUnexpectedEOF): // of a decompressor
		return fmt.Errorf("%w: its compressed form ends too early", errCut)
	}
	return l.err
}

// cut is the error of a dump that ends within something.
func (l *lexer) cut(what string) error {
	if err := l.ended(); err != nil {
		return err
	}
	return l.failf("%w: it ends within %s", errCut, what)
}

// space passes over white space and comments, and enters and leaves conditional comments.
func (l *lexer) space() error {
	for l.fill(1) {
		c := l.buf[l.pos]
		switch {
		case c == ' ' || c == '\n' || c == '\t' || c == '\r':
			l.pos++
		case c == '#', c == '-' && l.fill(2) && l.buf[l.pos+1] == '-' && (!l.fill(3) || l.buf[l.pos+2] <= ' '):
			if err := l.lineComment(); err != nil {
				return err
			}
		case c == '/' && l.fill(2) && l.buf[l.pos+1] == '*':
			if err := l.blockComment(); err != nil {
				return err
			}
		case c == '*' && l.conditional && l.fill(2) && l.buf[l.pos+1] == '/':
			l.pos += 2
			l.conditional = false
		default:
			return nil
		}
	}
	return l.ended()
}

func (l *lexer) lineComment() error {
	var head []byte
	for l.fill(1) {
		rest := l.buf[l.pos:l.end]
		i := bytes.IndexByte(rest, '\n')
		if i >= 0 {
			rest = rest[:i]
		}
		if n := 200 - len(head); n > 0 {
			head = append(head, rest[:min(n, len(rest))]...)
		}
		l.pos += len(rest)
		if i >= 0 {
			break
		}
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return l.failf("a NUL byte: no text file, or a damaged one")
	}
	if l.comment != nil {
		l.comment(head)
	}
	return nil
}

// blockComment passes over a comment, or enters a conditional one: /*!40101 … */, /*M!100616 … */. What asks for a
// version that no server has is a comment, too: /*M!999999\- enable the sandbox mode */.
func (l *lexer) blockComment() error {
	l.fill(16)
	head := l.buf[l.pos+2 : l.end]
	mark := 0
	if bytes.HasPrefix(head, []byte("!")) {
		mark = 1
	} else if bytes.HasPrefix(head, []byte("M!")) {
		mark = 2
	}
	if mark > 0 && !l.conditional {
		digits := 0
		for mark+digits < len(head) && digits < 6 && '0' <= head[mark+digits] && head[mark+digits] <= '9' {
			digits++
		}
		if string(head[mark:mark+digits]) != "999999" {
			l.pos += 2 + mark + digits
			l.conditional = true
			return nil
		}
	}
	l.pos += 2
	for l.fill(2) {
		i := bytes.IndexByte(l.buf[l.pos:l.end-1], '*')
		switch {
		case i < 0:
			l.pos = l.end - 1
		case l.buf[l.pos+i+1] == '/':
			l.pos += i + 2
			return nil
		default:
			l.pos += i + 1
		}
	}
	return l.cut("a comment")
}

// next reads a token.
func (l *lexer) next() error {
	l.text = l.text[:0]
	if err := l.space(); err != nil {
		return err
	}
	if !l.fill(1) {
		l.kind = tokenEnd
		return l.ended()
	}
	c := l.buf[l.pos]
	switch {
	case l.stops(c):
		l.pos += len(l.delimiter)
		l.kind = tokenStop
		return nil
	case c == '`' || c == '"' && l.ansi:
		l.pos++
		l.kind = tokenName
		return l.name(c)
	case c == '\'' || c == '"':
		l.pos++
		l.kind = tokenString
		return l.quoted(c)
	case c == '0' && l.fill(2) && l.buf[l.pos+1] == 'x':
		l.pos += 2
		return l.hexadecimal()
	case wordByte(c):
		l.kind = tokenWord
		if err := l.word(); err != nil {
			return err
		}
		return l.literal()
	case c < ' ' || c == 0x7f:
		return l.failf("a control byte (0x%02x): no dump of mysqldump, or a damaged one", c)
	}
	l.pos++
	l.kind, l.mark = tokenMark, c
	return nil
}

// stops reports whether the delimiter is next. c is the byte that is next.
func (l *lexer) stops(c byte) bool {
	n := len(l.delimiter)
	return c == l.delimiter[0] && l.fill(n) && string(l.buf[l.pos:l.pos+n]) == l.delimiter
}

func wordByte(c byte) bool {
	return c == '_' || c == '$' || c == '@' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}

// word reads a name without quotes, a keyword, or a number: 12, 0.5, 1e-7.
func (l *lexer) word() error {
	number := '0' <= l.buf[l.pos] && l.buf[l.pos] <= '9'
	for l.fill(1) {
		c := l.buf[l.pos]
		exponent := number && (c == '+' || c == '-') && len(l.text) > 0 && l.text[len(l.text)-1]|0x20 == 'e'
		if !wordByte(c) && !exponent && !(number && c == '.') || l.stops(c) {
			break
		}
		if len(l.text) == maxWord {
			return l.failf("a word of more than %d bytes: no dump of mysqldump, or a damaged one", maxWord)
		}
		l.text = append(l.text, c)
		l.pos++
	}
	return nil
}

// hexadecimal reads the digits of 0x12AB.
func (l *lexer) hexadecimal() error {
	l.kind = tokenBytes
	half, has := byte(0), false
	for l.fill(1) {
		d := hexDigit(l.buf[l.pos])
		if d < 0 {
			break
		}
		l.pos++
		if has {
			if err := l.keep(half<<4 | byte(d)); err != nil {
				return err
			}
		}
		half, has = byte(d), !has
	}
	if has {
		return l.failf("an odd number of hexadecimal digits")
	}
	return nil
}

// literal turns what began as a word into the value that it is: x'12AB', b'0101'.
func (l *lexer) literal() error {
	if len(l.text) != 1 || !l.fill(1) || l.buf[l.pos] != '\'' {
		return nil
	}
	base := l.text[0] | 0x20
	if base != 'x' && base != 'b' {
		return nil
	}
	l.pos++
	l.text = l.text[:0]
	discard := l.discard
	l.discard = false
	err := l.quoted('\'')
	l.discard = discard
	if err != nil {
		return err
	}
	return l.digits(string(l.text), base)
}

func (l *lexer) digits(text string, base byte) error {
	l.kind = tokenBytes
	l.text = l.text[:0]
	width, per := 2, 4
	if base == 'b' {
		width, per = 8, 1
	}
	text = strings.Repeat("0", (width-len(text)%width)%width) + text
	for i := 0; i < len(text); i += width {
		var b byte
		for _, c := range []byte(text[i : i+width]) {
			d := hexDigit(c)
			if d < 0 || base == 'b' && d > 1 {
				return l.failf("%q is no digit of a literal", c)
			}
			b = b<<per | byte(d)
		}
		l.text = append(l.text, b)
	}
	return nil
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// keep adds to the token's text, unless texts are discarded.
func (l *lexer) keep(b ...byte) error {
	if l.discard {
		return nil
	}
	if len(l.text)+len(b) > maxValue {
		return l.failf("a value of more than %d MiB, which no column of the tables that are read can hold", maxValue>>20)
	}
	l.text = append(l.text, b...)
	return nil
}

// escapes are the bytes that a backslash and a letter stand for. Other letters stand for themselves.
var escapes = [256]byte{'0': 0, 'n': '\n', 'r': '\r', 't': '\t', 'b': '\b', 'Z': 0x1a}

// quoted reads a text to its closing quote. A quote within is doubled, or behind a backslash.
func (l *lexer) quoted(quote byte) error {
	escape := byte('\\')
	if l.plain {
		escape = quote
	}
	for l.fill(1) {
		rest := l.buf[l.pos:l.end]
		n := 0
		for n < len(rest) && rest[n] != quote && rest[n] != escape && rest[n] != 0 {
			n++
		}
		if err := l.keep(rest[:n]...); err != nil {
			return err
		}
		l.pos += n
		if n == len(rest) {
			continue
		}
		switch {
		case rest[n] == 0:
			return l.failf("a NUL byte within a text, which mysqldump writes as \\0: the dump is damaged")
		case rest[n] == '\\': // which is where reading stops only if it escapes
			if !l.fill(2) {
				return l.cut("a text")
			}
			c := l.buf[l.pos+1]
			l.pos += 2
			if e := escapes[c]; e != 0 || c == '0' {
				c = e
			}
			if err := l.keep(c); err != nil {
				return err
			}
		case l.fill(2) && l.buf[l.pos+1] == quote:
			l.pos += 2
			if err := l.keep(quote); err != nil {
				return err
			}
		default:
			l.pos++
			return nil
		}
	}
	return l.cut("a text")
}

// name reads a quoted name to its closing quote, which is doubled within.
func (l *lexer) name(quote byte) error {
	for l.fill(1) {
		c := l.buf[l.pos]
		l.pos++
		if c == quote {
			if !l.fill(1) || l.buf[l.pos] != quote {
				return nil
			}
			l.pos++
		}
		if len(l.text) == maxWord || c == 0 {
			return l.failf("a name of more than %d bytes, or with a NUL byte", maxWord)
		}
		l.text = append(l.text, c)
	}
	return l.cut("a name")
}

// is reports whether the token is that keyword, in any case.
func (l *lexer) is(keyword string) bool {
	return l.kind == tokenWord && len(l.text) == len(keyword) && strings.EqualFold(string(l.text), keyword)
}

// isMark reports whether the token is that character.
func (l *lexer) isMark(c byte) bool { return l.kind == tokenMark && l.mark == c }

// ends reports whether the token ends a statement.
func (l *lexer) ends() bool { return l.kind == tokenEnd || l.kind == tokenStop }

// describe names the token for an error, in a few characters.
func (l *lexer) describe() string {
	switch l.kind {
	case tokenEnd:
		return "the end"
	case tokenStop:
		return "the end of a statement"
	case tokenMark:
		return fmt.Sprintf("%q", string(rune(l.mark)))
	case tokenWord, tokenName:
		return fmt.Sprintf("%q", l.text[:min(len(l.text), 40)])
	}
	return "a text"
}

// sort names the kind of the token for an error about a row, of which nothing may be shown.
func (l *lexer) sort() string {
	if l.kind == tokenWord || l.kind == tokenName {
		return "a word"
	}
	return l.describe()
}

// skip passes over the rest of a statement, to its delimiter.
func (l *lexer) skip() error {
	discard := l.discard
	l.discard = true
	defer func() { l.discard = discard }()
	for {
		if err := l.next(); err != nil {
			return err
		}
		if l.kind == tokenEnd {
			return l.cut("a statement")
		}
		if l.ends() {
			return nil
		}
	}
}

// restOfLine reads to the end of the line.
func (l *lexer) restOfLine() (string, error) {
	var line []byte
	for l.fill(1) && l.buf[l.pos] != '\n' {
		if len(line) == maxWord {
			return "", l.failf("a line of more than %d bytes", maxWord)
		}
		line = append(line, l.buf[l.pos])
		l.pos++
	}
	return strings.TrimSpace(string(line)), nil
}
