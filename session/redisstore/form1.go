package redisstore

import (
	"strconv"
	"time"

	"barong/session"
)

// form1 is the form in which earlier versions wrote records. A session keeps the form in which it was opened, so that while
// replicas of both versions run they agree on it; none is opened in form1. Numbers have a fixed width in digits:
//
//	offset  length
//	     0       1  form1
//	     1      32  generation in which it was opened
//	    33      26  random word of the call that created it
//	    59      15  SeenAt, like all times in Unix milliseconds, with leading zeros
//	    74      15  ExpiresAt
//	    89      15  EndsAt
//	   104      15  CreatedAt
//	   119      20  Epoch, with leading zeros; the first place may be a minus sign
//	   139          texts, each after its length in two bytes, the higher first: UID, CSRF, Country, IP, UserAgent
const (
	atGeneration = 1
	atCall       = atGeneration + generationLen
	atSeen       = atCall + callLen
	atExpires    = atSeen + timeLen
	atEnds       = atExpires + timeLen
	atCreated    = atEnds + timeLen
	atEpoch      = atCreated + timeLen
	atTexts      = atEpoch + epochLen

	timeLen  = 15
	epochLen = 20
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

func appendTime(b []byte, t time.Time) []byte {
	return appendDigits(b, uint64(min(max(t.UnixMilli(), 0), maxTime)), timeLen)
}

func appendEpoch(b []byte, epoch int64) []byte {
	if epoch < 0 {
		return appendDigits(append(b, '-'), -uint64(epoch), epochLen-1)
	}
	return appendDigits(b, uint64(epoch), epochLen)
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

func decode1(record string) (*stored, bool) {
	if len(record) < atTexts {
		return nil, false
	}
	seen, ok1 := digits(record[atSeen:atExpires])
	expires, ok2 := digits(record[atExpires:atEnds])
	ends, ok3 := digits(record[atEnds:atCreated])
	created, ok4 := digits(record[atCreated:atEpoch])
	epoch, ok5 := parseEpoch(record[atEpoch:atTexts])
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 {
		return nil, false
	}
	uid, rest, ok1 := cutText(record[atTexts:], maxText)
	csrf, rest, ok2 := cutText(rest, maxText)
	country, rest, ok3 := cutText(rest, maxText)
	address, rest, ok4 := cutText(rest, maxText)
	agent, rest, ok5 := cutText(rest, session.MaxUserAgent)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || rest != "" {
		return nil, false
	}
	v := &stored{form: form1, generation: record[atGeneration:atCall], call: record[atCall:atSeen], Session: session.Session{
		UID: uid, Epoch: epoch, CSRF: csrf, UserAgent: agent, Country: country,
		SeenAt: time.UnixMilli(seen).UTC(), ExpiresAt: time.UnixMilli(expires).UTC(),
		EndsAt: time.UnixMilli(ends).UTC(), CreatedAt: time.UnixMilli(created).UTC(),
	}}
	return v, v.IP.UnmarshalBinary([]byte(address)) == nil
}

// rewrite1 is a record of form1 with what can change of a session.
func rewrite1(record string, v *session.Session) []byte {
	b := append([]byte(nil), record[:atSeen]...)
	b = appendTime(appendTime(b, v.SeenAt), expiry(v))
	b = append(b, record[atEnds:atEpoch]...)
	return append(appendEpoch(b, v.Epoch), record[atTexts:]...)
}
