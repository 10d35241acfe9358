package importer

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// An endless reader gives the same text again and again, up to a number of bytes.
type endless struct {
	head, again string
	left        int64
}

func (e *endless) Read(b []byte) (int, error) {
	if e.head != "" {
		n := copy(b, e.head)
		e.head = e.head[n:]
		return n, nil
	}
	if e.left <= 0 {
		return 0, io.EOF
	}
	n := 0
	for n < len(b) {
		n += copy(b[n:], e.again)
	}
	e.left -= int64(n)
	return n, nil
}

// Whatever is endless in a dump ends with an error or is passed over, in little memory.
func TestEndlessDumpsAllocateLittle(t *testing.T) {
	block := strings.Repeat("a", 64<<10)
	for name, c := range map[string]struct{ head, again, want string }{
		"a text":        {"INSERT INTO `users` VALUES (1,'", block, "cut short"},
		"a known text":  {"INSERT INTO `schema_migrations` VALUES ('", block, "more than 32 MiB"},
		"a comment":     {"/* ", block, "cut short"},
		"a line":        {"-- ", block, "no database of the original"},
		"one line":      {"INSERT INTO `users` VALUES (0)", strings.Repeat(",(1,'b',10,NULL)", 4<<10), "cut short"},
		"a statement":   {"DROP ", strings.Repeat("a ", 32<<10), "cut short"},
		"a create":      {"CREATE TABLE `users` (", strings.Repeat("`a` int,", 8<<10), "too many columns"},
		"statements":    {"", strings.Repeat("USE abc;", 8<<10), "no database of the original"},
		"hexadecimal":   {"INSERT INTO `users` VALUES (0x", strings.Repeat("00", 32<<10), "cut short"},
		"binary digits": {"INSERT INTO `users` VALUES (b'", strings.Repeat("0", 32<<10), "more than 32 MiB"},
	} {
		much := int64(8 << 20) // of what is read and not kept
		most := uint64(6 << 20)
		if strings.Contains(c.want, "MiB") { // one value is kept up to its bound
			much, most = maxValue+4<<20, 8*maxValue
		}
		r := io.Reader(&endless{c.head, c.again, much})
		d := &dump{file: once{r}}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := d.scan(t.Context(), func(int64, int64) {})
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > most && !raceEnabled {
			t.Errorf("%s: it took %d MiB", name, took>>20)
		}
	}
}

// once is a file that is read once.
type once struct{ r io.Reader }

func (o once) openAt(int64) (io.ReadCloser, error) { return io.NopCloser(o.r), nil }
func (o once) Close() error                        { return nil }

// A spool gives back what went in, from anywhere, and its file has no clear text.
func TestSpool(t *testing.T) {
	text := strings.Repeat("secret words and more of them, ", 10_000)
	s, n, err := newSpool(strings.NewReader(text))
	if err != nil || n != int64(len(text)) {
		t.Fatal(n, err)
	}
	defer s.Close()
	for _, from := range []int64{0, 1, 15, 16, 17, 4097, n - 1} {
		r, err := s.openAt(from)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != text[from:] {
			t.Errorf("from %d: %v, %q", from, err, got[:min(len(got), 40)])
		}
	}
	raw, err := io.ReadAll(io.NewSectionReader(s.f, 0, n))
	if err != nil || bytes.Contains(raw, []byte("secret")) {
		t.Errorf("the file holds what it must not: %v", err)
	}
}

// What bzip2 has compressed is read, and what it has not whole is told of. The other ways to compress are in TestForms.
func TestBzip2(t *testing.T) {
	const text = "-- MySQL dump 10.13\nUSE `barong`;\n"
	packed, err := base64.StdEncoding.DecodeString("QlpoOTFBWSZTWd85kUYAAAPfgAAQQANoCAIGKgB0g9IgIAAxQAABkyDG1NoZExMB6o9+jRSciopUnMyoEwd4FocA4B+LuSKcKEhvnMijAA==")
	if err != nil {
		t.Fatal(err)
	}
	read := func(packed []byte) (string, error) {
		r, _, err := unpack(bufio.NewReader(bytes.NewReader(packed)))
		if err != nil {
			return "", err
		}
		got, err := io.ReadAll(r)
		return string(got), err
	}
	if got, err := read(packed); got != text || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := read(packed[:len(packed)-8]); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut short: %v", err)
	}
	packed[20] ^= 1
	if _, err := read(packed); err == nil || !strings.Contains(err.Error(), "by bzip2 is damaged") {
		t.Errorf("damaged: %v", err)
	}
}

// FuzzLexer holds the lexer to how mysqldump writes a text: what is written is read, whatever pieces it comes in; and to
// its promises about any input: it ends, with an error or without one, and never reads a text beyond its end.
func FuzzLexer(f *testing.F) {
	f.Add("quote ' double \" backslash \\ newline\n nul \x00 ctrl-z \x1a", "INSERT INTO `a` VALUES (1,'b',NULL);")
	f.Add("", "/*!40101 SET NAMES utf8 */; -- x\n# y\n/* z */ 0x00 x'00' b'1' _binary 'a' -1.5e-7")
	f.Add("'';--", "'a''b\\'c' \"d\" `e``f`")
	escape := strings.NewReplacer("\\", "\\\\", "'", "\\'", "\"", "\\\"", "\n", "\\n", "\r", "\\r", "\x1a", "\\Z", "\x00", "\\0", "\t", "\\t", "\b", "\\b")
	f.Fuzz(func(t *testing.T, text, source string) {
		for _, written := range []string{
			"'" + escape.Replace(text) + "'", "'" + strings.ReplaceAll(escape.Replace(text), `\'`, "''") + "'", `"` + escape.Replace(text) + `"`,
		} {
			for _, r := range []io.Reader{strings.NewReader(written + ";"), iotest.OneByteReader(strings.NewReader(written + ";"))} {
				l := newLexer(r, 0)
				if err := l.next(); err != nil || l.kind != tokenString || string(l.text) != text {
					t.Fatalf("%q is read as %q: %v", written, l.text, err)
				}
				if err := l.next(); err != nil || !l.ends() {
					t.Fatalf("behind %q comes %s: %v", written, l.describe(), err)
				}
			}
		}
		tokens := func(r io.Reader) (out []string, failed bool) {
			l := newLexer(r, 0)
			for range len(source) + 1 {
				if err := l.next(); err != nil {
					return out, true
				}
				if l.kind == tokenEnd {
					return out, false
				}
				out = append(out, string(rune('0'+int(l.kind)))+string(rune(l.mark))+string(l.text))
			}
			t.Fatalf("%q has more tokens than bytes", source)
			return nil, false
		}
		whole, failed := tokens(strings.NewReader(source))
		pieces, failedToo := tokens(iotest.OneByteReader(strings.NewReader(source)))
		if failed != failedToo || strings.Join(whole, "\x00") != strings.Join(pieces, "\x00") {
			t.Fatalf("%q is read as %q and, in pieces, as %q", source, whole, pieces)
		}
		d := &dump{file: once{strings.NewReader(source)}}
		if err := d.scan(t.Context(), func(int64, int64) {}); err == nil && d.s.version == "" {
			t.Fatal(errors.New("a dump without a version is accepted"))
		}
	})
}
