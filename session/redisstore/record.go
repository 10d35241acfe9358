package redisstore

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strconv"
	"time"

	"barong/session"
)

// A record is one session as Redis holds it: a text that is read with one GET and decoded without a copy. What scripts
// compare or change has its place at its beginning, in digits, which Lua reads and writes as they are:
//
//	offset  length
//	     0       1  kind: live, or ended for what a deletion leaves behind
//	     1      32  generation in which it was opened
//	    33      26  random word of the call that created it (rand.Text)
//	    59      15  SeenAt, like all times in Unix milliseconds, with leading zeros
//	    74      15  ExpiresAt
//	    89      15  EndsAt
//	   104      15  CreatedAt
//	   119      20  Epoch, with leading zeros; the first place may be a minus sign
//	   139          texts, each after its length in two bytes, the higher first: UID, CSRF, Country, IP, UserAgent
//
// What a deletion leaves is the kind, the random word of that call, and the record as far as the UID.
const (
	live  = '1' // another layout takes another digit
	ended = 'd'

	generationLen = 32
	callLen       = 26
	timeLen       = 15
	epochLen      = 20

	atGeneration = 1
	atCall       = atGeneration + generationLen
	atSeen       = atCall + callLen
	atExpires    = atSeen + timeLen
	atEnds       = atExpires + timeLen
	atCreated    = atEnds + timeLen
	atEpoch      = atCreated + timeLen
	atTexts      = atEpoch + epochLen
)

const (
	maxTime = 999_999_999_999_999 // fits timeLen, and Lua's numbers hold it exactly: the year 33658
	maxText = 1 << 10             // bytes of a text
)

var (
	errTime   = errors.New("time out of range")
	errLong   = errors.New("text too long")
	errWord   = errors.New("malformed generation") // that of another program: a session must bear no part of it
	errRecord = errors.New("malformed session record")
)

// appendDigits appends n, which is not negative, with leading zeros to the width.
func appendDigits(b []byte, n uint64, width int) []byte {
	for range width {
		b = append(b, '0')
	}
	for i := len(b) - 1; n > 0; i-- {
		b[i] += byte(n % 10)
		n /= 10
	}
	return b
}

func appendTime(b []byte, ms int64) []byte { return appendDigits(b, uint64(ms), timeLen) }

// timeArg is a time for a script, cut to what a record can have.
func timeArg(t time.Time) []byte { return appendTime(nil, min(max(t.UnixMilli(), 0), maxTime)) }

func appendEpoch(b []byte, epoch int64) []byte {
	if epoch < 0 {
		return appendDigits(append(b, '-'), -uint64(epoch), epochLen-1)
	}
	return appendDigits(b, uint64(epoch), epochLen)
}

func appendText[T ~string | ~[]byte](b []byte, text T) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(text))), text...)
}

// expiry is when a new session expires.
func expiry(v *session.Session) time.Time {
	if v.ExpiresAt.After(v.EndsAt) {
		return v.EndsAt
	}
	return v.ExpiresAt
}

// name is the name of a session's key.
func name(key session.Key) string {
	var b [len(sessionPrefix) + 2*len(key)]byte
	copy(b[:], sessionPrefix)
	hex.Encode(b[len(sessionPrefix):], key[:])
	return string(b[:])
}

// encode makes the record of a session opened in a generation by a call.
func encode(v *session.Session, generation, call string) ([]byte, error) {
	if len(generation) != generationLen || len(call) != callLen {
		return nil, errWord
	}
	b := make([]byte, 0, atTexts+10+len(v.UID)+len(v.CSRF)+len(v.Country)+16+len(v.UserAgent))
	b = append(b, live)
	b = append(b, generation...)
	b = append(b, call...)
	for _, t := range []time.Time{v.SeenAt, expiry(v), v.EndsAt, v.CreatedAt} {
		ms := t.UnixMilli()
		if ms < 0 || ms > maxTime {
			return nil, errTime
		}
		b = appendTime(b, ms)
	}
	b = appendEpoch(b, v.Epoch)
	ip, err := v.IP.MarshalBinary()
	if err != nil {
		return nil, err
	}
	if max(len(v.UID), len(v.CSRF), len(v.Country), len(ip)) > maxText {
		return nil, errLong
	}
	b = appendText(b, v.UID)
	b = appendText(b, v.CSRF)
	b = appendText(b, v.Country)
	b = appendText(b, ip)
	return appendText(b, v.UserAgent[:min(len(v.UserAgent), session.MaxUserAgent)]), nil
}

// digits reads a number of nothing but digits, at most 18 of them.
func digits(text string) (n int64, ok bool) {
	for i := range len(text) {
		d := text[i] - '0'
		if d > 9 {
			return 0, false
		}
		n = n*10 + int64(d)
	}
	return n, true
}

func parseEpoch(text string) (epoch int64, ok bool) {
	if text[0] != '0' && text[0] != '-' { // ParseInt allows a plus sign
		return 0, false
	}
	epoch, err := strconv.ParseInt(text, 10, 64)
	return epoch, err == nil
}

// cutText takes a text of at most so many bytes from the beginning of b.
func cutText(b string, most int) (text, rest string, ok bool) {
	if len(b) < 2 {
		return "", "", false
	}
	n := int(b[0])<<8 | int(b[1])
	b = b[2:]
	if n > most || n > len(b) {
		return "", "", false
	}
	return b[:n], b[n:], true
}

// decodeHead reads a record as far as its UID.
func decodeHead(head string) (uid string, created int64, ok bool) {
	if len(head) < atTexts {
		return "", 0, false
	}
	if created, ok = digits(head[atCreated:atEpoch]); !ok {
		return "", 0, false
	}
	uid, _, ok = cutText(head[atTexts:], maxText)
	return uid, created, ok
}

// decode reads the record of a key: ErrNotFound when it is none of this generation that lives at now. The session's texts
// are parts of the record.
func decode(key session.Key, record, generation string, now time.Time) (*session.Session, error) {
	if record == "" || record[0] == ended {
		return nil, session.ErrNotFound
	}
	if record[0] != live || len(record) < atTexts {
		return nil, errRecord
	}
	if record[atGeneration:atCall] != generation {
		return nil, session.ErrNotFound
	}
	seen, ok1 := digits(record[atSeen:atExpires])
	expires, ok2 := digits(record[atExpires:atEnds])
	ends, ok3 := digits(record[atEnds:atCreated])
	created, ok4 := digits(record[atCreated:atEpoch])
	epoch, ok5 := parseEpoch(record[atEpoch:atTexts])
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 {
		return nil, errRecord
	}
	uid, rest, ok1 := cutText(record[atTexts:], maxText)
	csrf, rest, ok2 := cutText(rest, maxText)
	country, rest, ok3 := cutText(rest, maxText)
	address, rest, ok4 := cutText(rest, maxText)
	agent, rest, ok5 := cutText(rest, session.MaxUserAgent)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || rest != "" {
		return nil, errRecord
	}
	v := &session.Session{
		Key: key, UID: uid, Epoch: epoch, CSRF: csrf, UserAgent: agent, Country: country,
		SeenAt: time.UnixMilli(seen).UTC(), ExpiresAt: time.UnixMilli(expires).UTC(),
		EndsAt: time.UnixMilli(ends).UTC(), CreatedAt: time.UnixMilli(created).UTC(),
	}
	if v.IP.UnmarshalBinary([]byte(address)) != nil {
		return nil, errRecord
	}
	if !v.Live(now) {
		return nil, session.ErrNotFound
	}
	return v, nil
}
