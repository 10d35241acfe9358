package envoy

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// plainScan is what a headerScanner finds, one byte after the other, in a block without bytes that fasthttp refuses in a
// value.
func plainScan(block []byte) (lines [][2]string, ok bool) {
	lengths, codings := 0, 0
	for len(block) > 0 {
		line, rest, found := bytes.Cut(block, []byte("\n"))
		if !found || !bytes.HasSuffix(line, []byte("\r")) {
			return nil, false
		}
		block, line = rest, line[:len(line)-1]
		if len(line) == 0 {
			if len(block) > 0 {
				return nil, false
			}
			break
		}
		name, value, found := bytes.Cut(line, []byte(":"))
		if !found || len(name) == 0 {
			return nil, false
		}
		for _, c := range name {
			if !strings.ContainsRune("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", rune(c)) {
				return nil, false
			}
		}
		lower, text := strings.ToLower(string(name)), strings.Trim(string(value), " \t")
		switch dashed := strings.ReplaceAll(lower, "_", "-"); {
		case lower == "content-length":
			lengths++
		case lower == "transfer-encoding" && strings.EqualFold(text, "chunked"):
			codings++
		case lower == "transfer-encoding", dashed != lower && slices.Contains(deciding[:], dashed):
			return nil, false
		}
		lines = append(lines, [2]string{string(name), text})
	}
	return lines, lengths+codings <= 1
}

// noValue reports whether fasthttp refuses a request with this byte within a value; TestControlBytes holds that it does.
func noValue(c byte) bool { return c < ' ' && c != '\t' && c != '\r' && c != '\n' || c == 0x7f }

func sameScan(t interface{ Fatalf(string, ...any) }, block []byte) {
	if slices.ContainsFunc(block, noValue) {
		return
	}
	for i, c := range block { // the same holds for one that ends no line
		if c == '\r' && (i+1 == len(block) || block[i+1] != '\n') {
			return
		}
	}
	want, wantOK := plainScan(block)
	var got [][2]string
	s := headerScanner{block: block}
	for s.next() {
		got = append(got, [2]string{string(s.name), string(s.value)})
	}
	if s.ok() != wantOK || wantOK && !slices.Equal(got, want) {
		t.Fatalf("%q: got %q, %v, want %q, %v", block, got, s.ok(), want, wantOK)
	}
}

// A walk from line to line finds what looking at each byte finds.
func TestHeaderScannerIsThePlainOne(t *testing.T) {
	name := rapid.OneOf(
		rapid.SampledFrom(deciding[:]), rapid.StringMatching(`[!-~]{1,30}`), rapid.StringMatching(`[A-Za-z0-9-]{1,40}`),
		rapid.Custom(func(t *rapid.T) string {
			return strings.ReplaceAll(rapid.SampledFrom(deciding[:]).Draw(t, "d"), "-", "_")
		}),
	)
	value := rapid.OneOf(
		rapid.StringMatching(`[ -~\t]{0,60}`), rapid.SampledFrom([]string{"chunked", "Chunked", "identity", "0", " 7\t"}), rapid.StringN(0, 20, 60),
	)
	block := rapid.Custom(func(t *rapid.T) []byte {
		var b []byte
		for range rapid.IntRange(0, 5).Draw(t, "lines") {
			b = append(b, name.Draw(t, "name")...)
			b = append(b, ':')
			b = append(b, value.Draw(t, "value")...)
			b = append(b, rapid.SampledFrom([]string{"\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\n "}).Draw(t, "end")...)
		}
		if rapid.Bool().Draw(t, "ended") {
			b = append(b, "\r\n"...)
		}
		for range rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "changes") {
			if len(b) > 0 {
				b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
			}
		}
		return b
	})
	rapid.Check(t, func(t *rapid.T) { sameScan(t, block.Draw(t, "block")) })
}

// Every byte at every place of a block.
func TestHeaderScannerSeesEveryByte(t *testing.T) {
	plain := "Host: example.com\r\nX-Forwarded-For: 203.0.113.7, 10.0.0.1\r\nContent-Length: 0\r\nx_y: z\r\n\r\n"
	for i := range plain {
		for c := range 256 {
			block := []byte(plain)
			block[i] = byte(c)
			sameScan(t, block)
		}
		sameScan(t, []byte(plain[:i]))
	}
}

func FuzzHeaderScanner(f *testing.F) {
	for _, block := range []string{
		"", "\r\n", "Host: example.com\r\n\r\n", "A: b\r\n c\r\n\r\n", "A: b\nC: d\r\n\r\n", "Cookie: \xff\r\n\r\n", "Cookie: é\r\n\r\n",
		"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding: identity\r\n\r\n", "User_Agent: x\r\n\r\n", ": x\r\n\r\n",
		"Upgrade-Insecure-Requests:1\r\nX-Auth-Nonce :2\r\n\r\n", "A: b\r\n\r\nC: d\r\n",
	} {
		f.Add([]byte(block))
	}
	f.Fuzz(func(t *testing.T, block []byte) { sameScan(t, block) })
}
