package redisstore

import (
	"encoding/hex"
	"errors"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"barong/session"
)

// A record is one session as Redis holds it. Its first byte says which form the rest has: form1 (form1.go), which earlier
// versions wrote, or form2. Nothing but this package reads a record: a script only compares it as a whole.
//
// In form2 the rest is a protocol buffer of the fields below. Every field that has no other note is there exactly once, so
// that what lacks a piece is no session. Fields that this version does not know are passed over, and kept by no change.
const (
	form1 = '1'
	form2 = '2'
	ended = 'd' // what a deletion leaves: the random word of its call follows
)

// The fields of form2. Times are in Unix milliseconds. A number that had another meaning once is never used again.
const (
	fieldGeneration = 1  // text: the generation in which it was opened
	fieldCall       = 2  // text: the random word of the call that created it
	fieldUID        = 3  // text
	fieldEpoch      = 4  // sint64
	fieldCSRF       = 5  // text
	fieldCountry    = 6  // text
	fieldIP         = 7  // bytes: netip.Addr.MarshalBinary
	fieldUserAgent  = 8  // bytes
	fieldCreated    = 9  // time
	fieldSeen       = 10 // time
	fieldExpires    = 11 // time
	fieldEnds       = 12 // time
	fieldMethods    = 13 // text, session.Methods.String; may be missing
	fieldAuthTime   = 14 // time; may be missing

	required = 1<<(fieldEnds+1) - 1<<fieldGeneration
)

const (
	generationLen = 32
	callLen       = 26 // of rand.Text

	maxTime = 999_999_999_999_999 // the year 33658: Redis counts lives in milliseconds, in 64 bits
	maxText = 1 << 10             // bytes of a text
)

var (
	errTime   = errors.New("time out of range")
	errLong   = errors.New("text too long")
	errWord   = errors.New("malformed generation") // that of another program: a session must bear no part of it
	errRecord = errors.New("malformed session record")
)

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

// A stored is a record as it was read: the session, and what the store needs to know besides.
type stored struct {
	session.Session
	form       byte
	generation string
	call       string
}

// encode makes the record of a session in form2.
func encode(v *stored) ([]byte, error) {
	if len(v.generation) != generationLen || len(v.call) != callLen {
		return nil, errWord
	}
	ip, err := v.IP.MarshalBinary()
	if err != nil {
		return nil, err
	}
	b := append(make([]byte, 0, 256+len(v.UserAgent)), form2)
	for _, text := range []struct {
		field protowire.Number
		text  string
	}{
		{fieldGeneration, v.generation},
		{fieldCall, v.call},
		{fieldUID, v.UID},
		{fieldCSRF, v.CSRF},
		{fieldCountry, v.Country},
		{fieldIP, string(ip)},
		{fieldUserAgent, v.UserAgent[:min(len(v.UserAgent), session.MaxUserAgent)]},
		{fieldMethods, v.Methods.String()},
	} {
		if len(text.text) > maxText {
			return nil, errLong
		}
		b = protowire.AppendString(protowire.AppendTag(b, text.field, protowire.BytesType), text.text)
	}
	for _, at := range []struct {
		field protowire.Number
		at    time.Time
	}{
		{fieldCreated, v.CreatedAt},
		{fieldSeen, v.SeenAt},
		{fieldExpires, expiry(&v.Session)},
		{fieldEnds, v.EndsAt},
		{fieldAuthTime, v.AuthTime},
	} {
		ms := at.at.UnixMilli()
		if at.field == fieldAuthTime && at.at.IsZero() {
			continue
		}
		if ms < 0 || ms > maxTime {
			return nil, errTime
		}
		b = protowire.AppendVarint(protowire.AppendTag(b, at.field, protowire.VarintType), uint64(ms))
	}
	b = protowire.AppendTag(b, fieldEpoch, protowire.VarintType)
	return protowire.AppendVarint(b, protowire.EncodeZigZag(v.Epoch)), nil
}

// decode reads the record of a key: ErrNotFound when it is none of this generation that lives at now. The session's texts
// are parts of the record.
func decode(key session.Key, record, generation string, now time.Time) (*stored, error) {
	if record == "" || record[0] == ended {
		return nil, session.ErrNotFound
	}
	v, ok := readRecord(record)
	if !ok {
		return nil, errRecord
	}
	v.Key = key
	if v.generation != generation || !v.Live(now) {
		return nil, session.ErrNotFound
	}
	return v, nil
}

// readRecord reads a record of whatever generation.
func readRecord(record string) (v *stored, ok bool) {
	switch {
	case record == "":
		return nil, false
	case record[0] == form1:
		v, ok = decode1(record)
	case record[0] == form2:
		v, ok = decode2(record)
	}
	if ok && v.AuthTime.IsZero() {
		v.AuthTime = v.CreatedAt
	}
	return v, ok
}

// rewrite makes the record of a session that was changed, in the form of the old one.
func (v *stored) rewrite(old string) ([]byte, error) {
	if v.form == form1 {
		return rewrite1(old, &v.Session), nil
	}
	v.SeenAt, v.ExpiresAt = storable(v.SeenAt), storable(v.ExpiresAt)
	return encode(v)
}

// storable is a time cut to what a record can have.
func storable(t time.Time) time.Time {
	return time.UnixMilli(min(max(t.UnixMilli(), 0), maxTime)).UTC()
}

func decode2(record string) (*stored, bool) {
	v := &stored{form: form2}
	b := []byte(record)
	seen := 0
	for at := 1; at < len(b); {
		field, kind, n := protowire.ConsumeTag(b[at:])
		if n < 0 {
			return nil, false
		}
		at += n
		if n = protowire.ConsumeFieldValue(field, kind, b[at:]); n < 0 {
			return nil, false
		}
		end := at + n
		if field <= fieldAuthTime {
			var ok bool
			switch kind {
			case protowire.BytesType:
				text, _ := protowire.ConsumeBytes(b[at:])
				ok = v.setText(field, record[end-len(text):end])
			case protowire.VarintType:
				number, _ := protowire.ConsumeVarint(b[at:])
				ok = v.setNumber(field, number)
			}
			if !ok || seen&(1<<field) != 0 {
				return nil, false
			}
			seen |= 1 << field
		}
		at = end
	}
	return v, seen&required == required
}

func (v *stored) setText(field protowire.Number, text string) bool {
	switch field {
	case fieldGeneration:
		v.generation = text
	case fieldCall:
		v.call = text
	case fieldUID:
		v.UID = text
	case fieldCSRF:
		v.CSRF = text
	case fieldCountry:
		v.Country = text
	case fieldIP:
		return v.IP.UnmarshalBinary([]byte(text)) == nil
	case fieldUserAgent:
		v.UserAgent = text
		return len(text) <= session.MaxUserAgent
	case fieldMethods:
		v.Methods = session.ParseMethods(text)
	default:
		return false
	}
	return len(text) <= maxText
}

func (v *stored) setNumber(field protowire.Number, number uint64) bool {
	at := time.UnixMilli(int64(number)).UTC()
	switch field {
	case fieldEpoch:
		v.Epoch = protowire.DecodeZigZag(number)
		return true
	case fieldCreated:
		v.CreatedAt = at
	case fieldSeen:
		v.SeenAt = at
	case fieldExpires:
		v.ExpiresAt = at
	case fieldEnds:
		v.EndsAt = at
	case fieldAuthTime:
		v.AuthTime = at
	default:
		return false
	}
	return number <= maxTime
}
