package importer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/text/encoding/charmap"
)

// maxSegments bounds how often a dump may go to and fro between tables.
const maxSegments = 1 << 20

// A dump is a file of mysqldump. Opening it reads all of it once, which finds where its tables lie and that it is whole;
// nothing of it is kept.
type dump struct {
	file   stream
	size   int64 // of the file
	at     *counter
	tables map[string]*dumpTable // of the database that is read
	s      schema

	packed bool   // the file is compressed
	cursor *lexer // where reading has come to, to go on there
	shut   func() error
}

// A dumpTable is a table of a dump: the columns that its CREATE TABLE names, and where its rows are.
type dumpTable struct {
	columns  []string
	segments []segment
	rows     int64
	known    bool // created, locked or filled
}

// A segment is a run of INSERT statements of one table.
type segment struct {
	from, to int64 // offsets in the dump
	line     int
	charset  string
	mode
}

// A stream is a file that can be read again.
type stream interface {
	openAt(offset int64) (io.ReadCloser, error)
	Close() error
}

type plainFile struct{ f *os.File }

func (p plainFile) openAt(offset int64) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(p.f, offset, 1<<62)), nil
}
func (p plainFile) Close() error { return p.f.Close() }

// A spool keeps a stream that comes once, such as standard input, for as long as it is needed: encrypted under a key that
// is nowhere but in memory, in a file that has no name any more.
type spool struct {
	f     *os.File
	block cipher.Block
}

func newSpool(r io.Reader) (*spool, int64, error) {
	f, err := os.CreateTemp("", "barong-import-*")
	if err != nil {
		return nil, 0, fmt.Errorf("keep standard input: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("keep standard input: %w", err)
	}
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	s := &spool{f, block}
	w := bufio.NewWriterSize(f, 1<<20)
	n, err := io.Copy(cipher.StreamWriter{S: s.keys(0), W: w}, r)
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("keep standard input: %w: name the file rather than \"-\", or a folder with room in TMPDIR", err)
	}
	return s, n, nil
}

// keys is the key stream from a block's beginning. The key is used once, so the counter may begin at zero.
func (s *spool) keys(from int64) cipher.Stream {
	var iv [aes.BlockSize]byte
	binary.BigEndian.PutUint64(iv[8:], uint64(from/aes.BlockSize))
	return cipher.NewCTR(s.block, iv[:])
}

func (s *spool) openAt(offset int64) (io.ReadCloser, error) {
	start := offset - offset%aes.BlockSize
	r := cipher.StreamReader{S: s.keys(start), R: io.NewSectionReader(s.f, start, 1<<62)}
	_, err := io.CopyN(io.Discard, r, offset-start)
	return io.NopCloser(r), err
}
func (s *spool) Close() error { return s.f.Close() }

// A counter counts what was read of a file.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// openFile opens a dump by its path, or standard input for "-".
func openFile(ctx context.Context, path string, stdin io.Reader, progress func(done, all int64)) (*dump, error) {
	d := &dump{}
	if path == "-" {
		kept, n, err := newSpool(stdin)
		if err != nil {
			return nil, err
		}
		d.file, d.size = kept, n
	} else {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		switch {
		case err != nil:
		case info.IsDir():
			err = fmt.Errorf("a folder: name the file of mysqldump in it. What mydumper writes there is read by cat %s/*.sql | barong import -; what mysqldump --tab writes is not: make the dump without --tab", path)
		case info.Mode().IsRegular():
			d.file, d.size = plainFile{f}, info.Size()
		default: // a pipe
			d.file, d.size, err = newSpool(f)
			f.Close()
		}
		if err != nil {
			f.Close()
			return nil, err
		}
	}
	if err := d.scan(ctx, progress); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *dump) schema() *schema { return &d.s }

func (d *dump) close() error {
	return errors.Join(d.rest(), d.file.Close())
}

// rest ends the reading that is under way.
func (d *dump) rest() error {
	if d.cursor == nil {
		return nil
	}
	d.cursor = nil
	return d.shut()
}

// seek returns a lexer at a segment. A compressed dump is read on to there, or again from its beginning.
func (d *dump) seek(g segment) (*lexer, error) {
	if l := d.cursor; l != nil && l.offset() <= g.from && (d.packed || g.from-l.offset() < bufferSize) {
		return l, l.passTo(g.from)
	}
	if err := d.rest(); err != nil {
		return nil, err
	}
	start := int64(0)
	if d.at != nil && !d.packed {
		start = g.from
	}
	raw, err := d.file.openAt(start)
	if err != nil {
		return nil, err
	}
	first := d.at == nil
	d.at = &counter{r: raw, n: start}
	var r io.Reader = d.at
	if first || d.packed {
		if r, d.packed, err = unpack(bufio.NewReaderSize(d.at, 1<<20)); err != nil {
			return nil, errors.Join(err, raw.Close())
		}
	}
	d.cursor, d.shut = newLexer(r, start), raw.Close
	if u, ok := r.(*unpacked); ok {
		d.shut = func() error { u.close(); return raw.Close() }
	}
	if start == g.from {
		d.cursor.lines = max(g.line-1, 0)
	}
	return d.cursor, d.cursor.passTo(g.from)
}

// An unpacked dump is one that is decompressed while it is read.
type unpacked struct {
	r     io.Reader
	by    string
	close func()
}

func (u *unpacked) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if err != nil && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("what was compressed by %s is damaged: %w", u.by, err)
	}
	return n, err
}

// maxWindow bounds how far back a dump that is compressed by zstd may refer; zstd itself goes no further unless it is asked to.
const maxWindow = 128 << 20

// unpack decompresses what is compressed.
func unpack(r *bufio.Reader) (io.Reader, bool, error) {
	head, _ := r.Peek(8)
	for _, other := range []struct{ magic, command string }{
		{"\xfd7zXZ\x00", "xz -dc"},
		{"\x04\x22\x4d\x18", "lz4 -dc"},
		{"PK\x03\x04", "unzip -p"},
		{"7z\xbc\xaf\x27\x1c", "7z x -so"},
	} {
		if bytes.HasPrefix(head, []byte(other.magic)) {
			name, _, _ := strings.Cut(other.command, " ")
			return nil, false, fmt.Errorf("the dump is compressed by %s: decompress it first, or pipe it: %s FILE | barong import -", name, other.command)
		}
	}
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		z, err := gzip.NewReader(r)
		return &unpacked{z, "gzip", func() {}}, true, err
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, true, err
		}
		return &unpacked{z, "zstd", z.Close}, true, nil
	case bytes.HasPrefix(head, []byte("BZh")):
		return &unpacked{bzip2.NewReader(r), "bzip2", func() {}}, true, nil
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")):
		return nil, false, errors.New("the dump is UTF-16, as a shell of Windows writes what is sent to a file: make it by mysqldump --result-file=FILE")
	case bytes.HasPrefix(head, []byte("PGDMP")):
		return nil, false, errors.New("this is an archive of pg_dump, and no dump of mysqldump")
	case bytes.HasPrefix(head, []byte("SQLite f")):
		return nil, false, errors.New("this is a database of SQLite, and no dump of mysqldump")
	}
	return r, false, nil
}

// A scan is the first reading of a dump.
type scan struct {
	d         *dump
	l         *lexer
	database  string
	databases map[string]map[string]*dumpTable
	migration map[string][]string // versions, by database
	charset   string
	zone      string
	locks     int
	began     bool // there is a header that says that a line at the end follows
	opening   bool // settings stand at the beginning, as mysqldump writes them unless it is asked for a compact dump
	completed bool
	saved     bool            // a setting was saved that the end of the dump restores
	modes     map[string]mode // kept in variables
	sqlMode   string          // that was set last
	told      string          // by the program, on standard error, before the dump
	product   string          // whose dump it says that it is, if that is not MySQL
	last      *dumpTable
	segments  int
	statement int
	meta      map[string]string // environment, by database
}

func (d *dump) scan(ctx context.Context, progress func(done, all int64)) error {
	l, err := d.seek(segment{})
	if err != nil {
		return err
	}
	s := &scan{
		d: d, l: l, databases: map[string]map[string]*dumpTable{}, migration: map[string][]string{},
		charset: "utf8mb4", meta: map[string]string{}, modes: map[string]mode{},
	}
	if l.fill(3) && bytes.HasPrefix(l.buf, []byte("\xef\xbb\xbf")) {
		l.pos = 3
	}
	if err := s.warnings(); err != nil {
		return err
	}
	l.comment = s.remark
	defer func() { l.comment = nil }()
	for more := true; more; {
		if s.statement%256 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			progress(d.at.n, d.size)
		}
		if more, err = s.next(); err != nil {
			return err
		}
		s.statement++
	}
	return s.finish()
}

// programs begin the lines that programs write on standard error.
var programs = []string{"mysqldump: ", "mariadb-dump: ", "Warning: "}

// warnings passes over what a program has told on standard error before the dump, where both were sent to the same file, as
// containers with a terminal do. Whether the dump is whole is seen at its end.
func (s *scan) warnings() error {
	for {
		s.l.fill(len("mariadb-dump: "))
		if !slices.ContainsFunc(programs, func(p string) bool { return bytes.HasPrefix(s.l.buf[s.l.pos:s.l.end], []byte(p)) }) {
			return nil
		}
		text, err := s.l.restOfLine()
		if err != nil {
			return err
		}
		s.told = text
		if s.l.fill(1) {
			s.l.pos++ // the end of the line
		}
	}
}

// remark looks at the comments in which mysqldump says what it is, and that it has come to its end.
func (s *scan) remark(text []byte) {
	t := string(text)
	switch {
	case strings.HasPrefix(t, "-- MySQL dump "), strings.HasPrefix(t, "-- MariaDB dump "), strings.HasPrefix(t, "-- Dump created by MySQL pump"):
		s.began, s.opening, s.completed = true, true, false
	case strings.HasPrefix(t, "-- Dump completed"), strings.HasPrefix(t, "-- Dump end time"):
		s.completed = true
	case strings.HasPrefix(t, "-- PostgreSQL database dump"):
		s.product = "PostgreSQL"
	}
}

// next reads a statement; false at the end.
func (s *scan) next() (bool, error) {
	l := s.l
	if err := l.space(); err != nil {
		return false, err
	}
	from, line, conditional := l.offset(), l.line(), l.conditional
	if err := l.next(); err != nil {
		return false, err
	}
	if l.kind == tokenEnd {
		if l.conditional {
			return false, l.cut("a comment")
		}
		return false, nil
	}
	insert := l.is("INSERT") || l.is("REPLACE")
	if !insert && !l.ends() {
		s.last = nil
	}
	switch {
	case l.ends(), l.isMark(';'):
		return true, nil
	case insert:
		return true, s.insert(from, line, conditional)
	case l.is("SET"):
		return true, s.set()
	case l.is("USE"):
		if err := l.next(); err != nil {
			return false, err
		}
		s.database = string(l.text)
		return true, l.skip()
	case l.is("CREATE"):
		return true, s.create()
	case l.is("LOCK"):
		s.locks++
		return true, s.lock()
	case l.is("UNLOCK"):
		s.locks--
		return true, l.skip()
	case l.is("DELIMITER"):
		text, err := l.restOfLine()
		if err == nil && text == "" {
			err = l.failf("a DELIMITER without one")
		}
		l.delimiter = text
		return true, err
	}
	for _, word := range []string{"DROP", "ALTER", "COMMIT", "START", "BEGIN", "CHANGE", "FLUSH", "ANALYZE", "GRANT", "DO", "CALL", "TRUNCATE", "DELETE", "INSTALL"} {
		if l.is(word) {
			return true, l.skip()
		}
	}
	if conditional { // such as Percona's questions to a server about its engines
		return true, l.skip()
	}
	if l.is("mysqldump") || l.is("mariadb") {
		name := string(l.text)
		text, err := l.restOfLine()
		if err != nil {
			return false, err
		}
		return false, l.failf("%w: it holds what the program has told of an error: %s%s", errCut, name, clip(text, 300))
	}
	if s.product != "" {
		return false, l.failf("a dump of %s, and not of the original's MySQL", s.product)
	}
	return false, l.failf("no statement that mysqldump writes: it begins with %s", l.describe())
}

// set looks for the settings that change how the rest is read.
func (s *scan) set() error {
	l := s.l
	var words []string
	for {
		if err := l.next(); err != nil {
			return err
		}
		if l.kind == tokenEnd {
			return l.cut("a statement")
		}
		if l.ends() {
			break
		}
		word := string(l.text[:min(len(l.text), 1000)])
		if l.kind == tokenMark {
			word = string(rune(l.mark))
		}
		if len(words) < 64 {
			words = append(words, strings.ToUpper(word))
		}
	}
	for i, w := range words {
		value, setting, assigned := "", "", i+2 < len(words) && words[i+1] == "="
		if assigned {
			value = words[i+2]
			if setting = strings.TrimPrefix(value, "@@"); i+4 < len(words) && words[i+3] == "." { // @@SESSION.SQL_MODE
				setting = words[i+4]
			}
		}
		switch name := strings.TrimPrefix(w, "@@"); {
		case w == "NAMES" && i+1 < len(words):
			s.opening = true
			return s.setCharset(words[i+1])
		case name == "TIME_ZONE" && s.zone == "" && s.segments == 0 && value != "" && !strings.HasPrefix(value, "@"):
			s.zone = value
		case w == "SQL_NOTES" && value == "0":
			s.saved, s.opening = true, true
		case w == "SQL_NOTES" && value != "":
			s.saved = false
		case name == "SQL_MODE" && strings.HasPrefix(value, "@"):
			l.ansi, l.plain = s.modes[value].ansi, s.modes[value].plain
		case name == "SQL_MODE" && assigned:
			l.ansi, l.plain = sqlMode(value)
			s.sqlMode = value
		case strings.HasPrefix(w, "@") && setting == "SQL_MODE" && len(s.modes) < 1000:
			s.modes[w] = l.mode
		}
	}
	return nil
}

// sqlMode tells what a mode of SQL changes about reading: whether a name may stand in double quotes, and whether a
// backslash stands for itself.
func sqlMode(text string) (ansi, plain bool) {
	for word := range strings.SplitSeq(text, ",") {
		switch strings.TrimSpace(word) {
		case "ANSI_QUOTES", "ANSI", "DB2", "MAXDB", "MSSQL", "ORACLE", "POSTGRESQL": // the products' modes include it
			ansi = true
		case "NO_BACKSLASH_ESCAPES":
			plain = true
		}
	}
	return ansi, plain
}

// charsets are those in which a dump is read.
var charsets = []string{"utf8", "utf8mb3", "utf8mb4", "latin1", "binary"}

func (s *scan) setCharset(name string) error {
	if name = strings.ToLower(name); slices.Contains(charsets, name) {
		s.charset = name
		return nil
	}
	return s.l.failf("the dump is in the character set %q: make it by mysqldump --default-character-set=utf8mb4", clip(name, 40))
}

// table is where a table is kept, by the database in use.
func (s *scan) table(database, name string) *dumpTable {
	if s.databases[database] == nil {
		s.databases[database] = map[string]*dumpTable{}
	}
	t := s.databases[database][name]
	if t == nil {
		t = new(dumpTable)
		s.databases[database][name] = t
	}
	return t
}

// target reads the name of a table, with the database's before it or without.
func (s *scan) target() (t *dumpTable, database, name string, err error) {
	l := s.l
	database, name = s.database, string(l.text)
	if l.kind != tokenName && l.kind != tokenWord && l.kind != tokenString {
		return nil, "", "", l.failf("the name of a table is missing before %s", l.describe())
	}
	if err := l.next(); err != nil {
		return nil, "", "", err
	}
	if l.isMark('.') {
		if err := l.next(); err != nil {
			return nil, "", "", err
		}
		database, name = name, string(l.text)
		if err := l.next(); err != nil {
			return nil, "", "", err
		}
	}
	if len(s.databases) > 1000 || len(s.databases[database]) > 10_000 {
		return nil, "", "", l.failf("too many tables")
	}
	return s.table(database, name), database, name, nil
}

func (s *scan) lock() error {
	l := s.l
	if err := l.next(); err != nil { // TABLES
		return err
	}
	if err := l.next(); err != nil {
		return err
	}
	t, _, _, err := s.target()
	if err != nil {
		return err
	}
	t.known = true
	if l.ends() {
		return nil
	}
	return l.skip()
}

// create notes the columns of a table.
func (s *scan) create() error {
	l := s.l
	for _, word := range []string{"", "OR", "REPLACE"} {
		if word != "" && !l.is(word) {
			continue
		}
		if err := l.next(); err != nil {
			return err
		}
	}
	if !l.is("TABLE") {
		if l.ends() {
			return nil
		}
		return l.skip()
	}
	if err := l.next(); err != nil {
		return err
	}
	for _, word := range []string{"IF", "NOT", "EXISTS"} {
		if l.is(word) {
			if err := l.next(); err != nil {
				return err
			}
		}
	}
	t, _, _, err := s.target()
	if err != nil {
		return err
	}
	t.known = true
	if !l.isMark('(') { // CREATE TABLE … LIKE
		if l.ends() {
			return nil
		}
		return l.skip()
	}
	depth, first := 1, true
	t.columns = nil
	for depth > 0 {
		if err := l.next(); err != nil {
			return err
		}
		switch {
		case l.kind == tokenEnd:
			return l.cut("a CREATE TABLE")
		case l.isMark('('):
			depth++
		case l.isMark(')'):
			depth--
		case l.isMark(',') && depth == 1:
			first = true
			continue
		case first && depth == 1 && (l.kind == tokenName || l.kind == tokenString || l.kind == tokenWord && !slices.Contains(clauses, strings.ToUpper(string(l.text)))):
			if len(t.columns) == 10_000 {
				return l.failf("too many columns")
			}
			t.columns = append(t.columns, strings.ToLower(string(l.text)))
		}
		first = false
	}
	return l.skip()
}

// clauses are the words that begin what is no column in a CREATE TABLE.
var clauses = []string{"PRIMARY", "KEY", "UNIQUE", "INDEX", "CONSTRAINT", "FULLTEXT", "SPATIAL", "FOREIGN", "CHECK", "PERIOD"}

// insert counts the rows of an INSERT, and remembers where it is.
func (s *scan) insert(from int64, line int, conditional bool) error {
	l := s.l
	if l.plain {
		return l.failf("the dump sets SQL_MODE=%s, which changes what its texts mean: make it without", clip(s.sqlMode, 100))
	}
	m := l.mode
	m.conditional = conditional
	t, database, table, columns, err := s.into()
	if err != nil {
		return err
	}
	t.known = true
	table = strings.ToLower(table)
	l.discard = table != schemaMigrations && table != metadata
	defer func() { l.discard = false }()
	version, key, val := 0, 0, 1
	if columns == nil {
		columns = t.columns
	}
	if columns != nil {
		version, key, val = slices.Index(columns, "version"), slices.Index(columns, "key"), slices.Index(columns, "value")
	}
	values := make([]string, 0, 16)
	err = readRows(l, func(i int, _ tokenKind, text []byte, null bool) error {
		if i == 0 {
			values = values[:0]
		}
		if i < 16 && !l.discard {
			values = append(values, clip(string(text), 200))
		}
		return nil
	}, func(n int) error {
		t.rows++
		switch {
		case table == schemaMigrations && version >= 0 && version < len(values) && len(s.migration[database]) < 10_000:
			s.migration[database] = append(s.migration[database], values[version])
		case table == metadata && key >= 0 && val >= 0 && max(key, val) < len(values) && values[key] == "environment":
			s.meta[database] = values[val]
		}
		return nil
	})
	if err != nil {
		return err
	}
	if s.last == t {
		t.segments[len(t.segments)-1].to = l.offset()
		return nil
	}
	if s.segments++; s.segments > maxSegments {
		return l.failf("the dump goes to and fro between its tables more than %d times", maxSegments)
	}
	s.last = t
	t.segments = append(t.segments, segment{from, l.offset(), line, s.charset, m})
	return nil
}

// into reads the beginning of an INSERT, up to VALUES, and the columns that it names, or nil.
func (s *scan) into() (t *dumpTable, database, table string, columns []string, err error) {
	l := s.l
	if err = l.next(); err != nil {
		return nil, "", "", nil, err
	}
	for _, word := range []string{"LOW_PRIORITY", "DELAYED", "IGNORE", "INTO"} {
		if l.is(word) {
			if err = l.next(); err != nil {
				return nil, "", "", nil, err
			}
		}
	}
	if t, database, table, err = s.target(); err != nil {
		return nil, "", "", nil, err
	}
	columns, err = columnsAndValues(l)
	return t, database, table, columns, err
}

// columnsAndValues reads the columns that an INSERT names, if it does, and the word VALUES.
func columnsAndValues(l *lexer) ([]string, error) {
	var columns []string
	if l.isMark('(') {
		columns = []string{}
		for !l.isMark(')') {
			if err := l.next(); err != nil {
				return nil, err
			}
			switch {
			case l.kind == tokenName, l.kind == tokenWord, l.kind == tokenString:
				if len(columns) == 10_000 {
					return nil, l.failf("too many columns")
				}
				columns = append(columns, strings.ToLower(string(l.text)))
			case l.kind == tokenEnd:
				return nil, l.cut("an INSERT")
			case !l.isMark(',') && !l.isMark(')'):
				return nil, l.failf("%s among the columns of an INSERT", l.describe())
			}
		}
		if err := l.next(); err != nil {
			return nil, err
		}
	}
	if !l.is("VALUES") && !l.is("VALUE") {
		if l.kind == tokenEnd {
			return nil, l.cut("an INSERT")
		}
		return nil, l.failf("%s in an INSERT where VALUES belongs", l.describe())
	}
	return columns, nil
}

// readRows reads the rows of an INSERT, behind VALUES, to the end of the statement. It calls cell with each value, and
// done with their number at the end of each row.
func readRows(l *lexer, cell func(i int, kind tokenKind, text []byte, null bool) error, done func(n int) error) error {
	for {
		if err := l.next(); err != nil {
			return err
		}
		if l.kind == tokenEnd {
			return l.cut("an INSERT")
		}
		if !l.isMark('(') {
			return l.failf("%s in an INSERT where a row belongs", l.sort())
		}
		n := 0
		for {
			if err := readValue(l, n, cell); err != nil {
				return err
			}
			n++
			if err := l.next(); err != nil {
				return err
			}
			if l.isMark(')') {
				break
			}
			if !l.isMark(',') {
				if l.kind == tokenEnd {
					return l.cut("a row")
				}
				return l.failf("%s in a row where a comma belongs", l.sort())
			}
		}
		if err := done(n); err != nil {
			return err
		}
		if err := l.next(); err != nil {
			return err
		}
		switch {
		case l.kind == tokenEnd:
			return l.cut("an INSERT")
		case l.ends():
			return nil
		case l.is("ON"), l.is("AS"): // ON DUPLICATE KEY UPDATE …
			return l.skip()
		case !l.isMark(','):
			return l.failf("%s between the rows of an INSERT", l.sort())
		}
	}
}

// readValue reads one value: a text, with the name of its character set before it or without, a number, NULL.
func readValue(l *lexer, i int, cell func(int, tokenKind, []byte, bool) error) error {
	if err := l.next(); err != nil {
		return err
	}
	kind := l.kind
	if kind == tokenWord && l.text[0] == '_' { // _binary 'a', _utf8mb4 'b'
		charset := strings.ToLower(string(l.text[1:]))
		if err := l.next(); err != nil {
			return err
		}
		if l.kind != tokenString && l.kind != tokenBytes {
			return l.failf("%s behind the name of a character set", l.sort())
		}
		if charset != "binary" && !ascii(l.text) {
			if !slices.Contains(charsets, charset) {
				return l.failf("a text in the character set %q: make the dump by mysqldump --default-character-set=utf8mb4", clip(charset, 40))
			}
			text, err := decode(charset, l.text)
			if err != nil {
				return l.failf("%w", err)
			}
			l.text = append(l.text[:0], text...)
		}
		kind = tokenBytes // it is decoded
	}
	negative := false
	if l.isMark('-') || l.isMark('+') {
		negative = l.isMark('-')
		if err := l.next(); err != nil {
			return err
		}
		if kind = l.kind; kind != tokenWord {
			return l.failf("%s behind a sign", l.sort())
		}
	}
	switch kind {
	case tokenEnd:
		return l.cut("a row")
	case tokenString, tokenBytes:
		return cell(i, kind, l.text, false)
	case tokenWord:
		switch {
		case l.is("NULL"):
			return cell(i, kind, nil, true)
		case l.is("TRUE"):
			return cell(i, kind, []byte("1"), false)
		case l.is("FALSE"):
			return cell(i, kind, []byte("0"), false)
		case l.text[0] < '0' || l.text[0] > '9':
			return l.failf("%s in a row where a value belongs", l.sort())
		}
		text := l.text
		if negative {
			text = append([]byte("-"), text...)
		}
		return cell(i, kind, text, false)
	}
	return l.failf("%s in a row where a value belongs", l.sort())
}

// finish judges the whole dump: that it is whole, and which of its databases is the original's.
func (s *scan) finish() error {
	switch {
	case s.began && !s.completed:
		return fmt.Errorf("%w: its last line, \"-- Dump completed\", is missing; make it again, and see that mysqldump ends with status 0", errCut)
	case s.locks > 0:
		return fmt.Errorf("%w: a table that is locked is not unlocked any more", errCut)
	case s.saved:
		return fmt.Errorf("%w: the settings that its beginning saves are not restored any more", errCut)
	}
	var found, near []string
	for name, tables := range s.databases {
		fold(tables)
		known := func(table string) bool { return tables[table] != nil && tables[table].known }
		if !known(users) || !known(schemaMigrations) {
			continue
		}
		if near = append(near, name); known(apiKeys) {
			found = append(found, name)
		}
	}
	if len(found) == 0 { // a dump without CREATE TABLE does not tell of tables that are empty
		found = near
	}
	slices.Sort(found)
	switch len(found) {
	case 0:
		if s.told != "" {
			return fmt.Errorf("the dump holds no database of the original, but: %s", clip(s.told, 300))
		}
		return errors.New("the dump holds no database of the original: none in it has the tables users, schema_migrations and apikeys")
	case 1:
	default:
		return fmt.Errorf("the dump holds several databases that may be the original's (%s): make one of that database alone", strings.Join(found, ", "))
	}
	tables := s.databases[found[0]]
	v, err := findVersion(s.migration[found[0]])
	if err != nil {
		return err
	}
	d := s.d
	d.tables = tables
	d.s = schema{
		version: v.number, environment: s.meta[found[0]], columns: map[string][]string{}, counts: map[string]int64{},
		// A compact dump is told in UTC, too, and does not say so.
		zoned: s.zone != "" || !s.opening,
	}
	for name, t := range tables {
		if !t.known {
			continue
		}
		if _, ok := read[name]; !ok {
			if name != schemaMigrations && name != metadata {
				d.s.unknown = append(d.s.unknown, name)
			}
			continue
		}
		if t.columns == nil {
			t.columns = strings.Fields(v.columns[name])
		}
		d.s.columns[name], d.s.counts[name] = t.columns, t.rows
	}
	slices.Sort(d.s.unknown)
	d.s.counts[schemaMigrations] = tables[schemaMigrations].rows
	if t := tables[metadata]; t != nil {
		d.s.counts[metadata] = t.rows
	}
	if s.zone != "" && s.zone != "+00:00" && s.zone != "UTC" {
		return fmt.Errorf("the dump tells its timestamps in the time zone %q: make it without --skip-tz-utc", clip(s.zone, 40))
	}
	return d.s.check()
}

// fold names the tables that are read in lower case, as servers on Windows and macOS may not: one of another name is that
// table when it differs in case alone, and no other does.
func fold(tables map[string]*dumpTable) {
	for _, want := range append(slices.Collect(maps.Keys(read)), schemaMigrations, metadata) {
		if t := tables[want]; t != nil && t.known {
			continue
		}
		var like []string
		for name, t := range tables {
			if t.known && strings.EqualFold(name, want) {
				like = append(like, name)
			}
		}
		if len(like) == 1 {
			tables[want] = tables[like[0]]
			delete(tables, like[0])
		}
	}
}

// rows reads the rows of a table.
func (d *dump) rows(ctx context.Context, table string, f func(*row) error) error {
	t := d.tables[table]
	if t == nil {
		return nil
	}
	for _, g := range t.segments {
		l, err := d.seek(g)
		if err != nil {
			return err
		}
		if err := d.segment(ctx, l, t, g, f); err != nil {
			return ofTable(table, err)
		}
	}
	return nil
}

// segment reads the rows of a run of INSERT statements.
func (d *dump) segment(ctx context.Context, l *lexer, t *dumpTable, g segment, f func(*row) error) error {
	var (
		current []string // columns of the statement
		out     *row
		arena   = make([]byte, 0, 4096) // never nil: an empty text in it is no NULL
		ends    []int
	)
	l.mode = g.mode
	s := &scan{d: d, l: l, databases: map[string]map[string]*dumpTable{}}
	for n := 0; l.offset() < g.to; {
		if err := l.next(); err != nil {
			return err
		}
		if l.kind == tokenEnd {
			return errChanged
		}
		if l.ends() {
			continue
		}
		_, _, _, columns, err := s.into()
		if err != nil {
			return err
		}
		if columns == nil {
			columns = t.columns
		}
		if !slices.Equal(columns, current) || out == nil {
			current, out = columns, newRow(columns)
		}
		err = readRows(l, func(i int, kind tokenKind, text []byte, null bool) error {
			if i == 0 {
				arena, ends = arena[:0], ends[:0]
			}
			if i >= len(current) {
				return nil // told at the end of the row
			}
			if null {
				ends = append(ends, -1)
				return nil
			}
			switch {
			case kind == tokenBytes:
				text = bytes.ToValidUTF8(text, []byte(replacement))
			case kind == tokenString && !ascii(text):
				if text, err = decode(g.charset, text); err != nil {
					return l.failf("column %s: %w", current[i], err)
				}
			}
			if len(arena)+len(text) > 2*maxValue {
				return l.failf("a row of more than %d MiB", 2*maxValue>>20)
			}
			arena = append(arena, text...)
			ends = append(ends, len(arena))
			return nil
		}, func(count int) error {
			if count != len(current) {
				return l.failf("a row of %d values where the table has %d columns: make the dump with --complete-insert", count, len(current))
			}
			from := 0
			for i, end := range ends {
				if end < 0 {
					out.values[i] = nil
					continue
				}
				out.values[i] = arena[from:end:end]
				from = end
			}
			if n++; n%1024 == 0 {
				if err := ctx.Err(); err != nil {
					return err
				}
			}
			return f(out)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func ascii(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// decode turns a text of a dump into UTF-8.
func decode(charset string, text []byte) ([]byte, error) {
	if charset == "latin1" { // what MySQL calls so is Windows-1252
		return charmap.Windows1252.NewDecoder().Bytes(text)
	}
	if !utf8.Valid(text) {
		return nil, fmt.Errorf("a text is not in the character set %s, which the dump says that it is in: make it by mysqldump --default-character-set=utf8mb4", charset)
	}
	return text, nil
}
