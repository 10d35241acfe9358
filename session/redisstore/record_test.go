package redisstore

import (
	"errors"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"barong/session"

	"pgregory.net/rapid"
)

const (
	testGeneration = "00112233445566778899aabbccddeeff"
	testCall       = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

func ms(n int64) time.Time { return time.UnixMilli(n).UTC() }

func testSession() *session.Session {
	return &session.Session{
		Key: session.Key{1, 2, 31: 3}, UID: "ID0000000001", Epoch: 3, CSRF: "0123456789abcdef0123",
		IP: netip.MustParseAddr("203.0.113.7"), UserAgent: "Mozilla/5.0 (X11; Linux x86_64)", Country: "NL",
		Methods: session.Password | session.Code, AuthTime: ms(1_600_000_000_002), CreatedAt: ms(1_600_000_000_000), SeenAt: ms(1_600_000_000_001),
		ExpiresAt: ms(1_600_000_100_000), EndsAt: ms(1_600_000_200_000),
	}
}

func encoded(t interface{ Fatal(...any) }, v *session.Session) string {
	b, err := encode(&stored{Session: *v, generation: testGeneration, call: testCall})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What other replicas read, of this version and of others, changes with its first byte alone.
func TestForms(t *testing.T) {
	t.Parallel()
	want := "2" + "\x0a\x20" + testGeneration + "\x12\x1a" + testCall + "\x1a\x0cID0000000001" +
		"\x2a\x140123456789abcdef0123" + "\x32\x02NL" + "\x3a\x04\xcb\x00\x71\x07" +
		"\x42\x1fMozilla/5.0 (X11; Linux x86_64)" + "\x6a\x07pwd otp" +
		"\x48\x80\x80\xba\xbb\xc8\x2e" + "\x50\x81\x80\xba\xbb\xc8\x2e" + "\x58\xa0\x8d\xc0\xbb\xc8\x2e" +
		"\x60\xc0\x9a\xc6\xbb\xc8\x2e" + "\x70\x82\x80\xba\xbb\xc8\x2e" + "\x20\x06"
	if got := encoded(t, testSession()); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := name(session.Key{0xab, 31: 1}); got != "barong:session:ab"+strings.Repeat("0", 61)+"1" {
		t.Errorf("name %q", got)
	}
	before := testSession()
	before.Methods, before.AuthTime = 0, before.CreatedAt
	got, err := decode(before.Key, oldRecord(3), testGeneration, before.SeenAt)
	if err != nil || got.Session != *before {
		t.Errorf("a record of the version before: %+v, %v, want %+v", got, err, before)
	}
	// A field of a later version says nothing here.
	later := want + "\x7a\x03new" + "\x80\x01\x07"
	got, err = decode(before.Key, later, testGeneration, before.SeenAt)
	if err != nil || got.Session != *testSession() {
		t.Errorf("a record with more fields: %+v, %v", got, err)
	}
}

// oldRecord is testSession, with an epoch, as the version before this one wrote it: how and when it began was not kept.
func oldRecord(epoch int64) string {
	return "1" + testGeneration + testCall +
		"001600000000001" + "001600000100000" + "001600000200000" + "001600000000000" + string(appendEpoch(nil, epoch)) +
		"\x00\x0cID0000000001" + "\x00\x140123456789abcdef0123" + "\x00\x02NL" + "\x00\x04\xcb\x00\x71\x07" +
		"\x00\x1fMozilla/5.0 (X11; Linux x86_64)"
}

// A session of the version before keeps its form when it is changed, for the replicas that do not know another yet.
func TestOldFormIsKept(t *testing.T) {
	t.Parallel()
	for _, epoch := range []int64{0, 3, -1, math.MaxInt64, math.MinInt64} {
		record := oldRecord(1)
		v, err := decode(testSession().Key, record, testGeneration, ms(0))
		if err != nil {
			t.Fatal(err)
		}
		v.Epoch, v.SeenAt, v.ExpiresAt = epoch, ms(1_600_000_000_777), ms(1_600_000_300_000) // beyond its end
		changed, err := v.rewrite(record)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Replace(oldRecord(epoch), "001600000000001"+"001600000100000", "001600000000777"+"001600000200000", 1)
		if string(changed) != want {
			t.Errorf("epoch %d: %q, want %q", epoch, changed, want)
		}
	}
}

func TestRecordRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := func(most int) *rapid.Generator[string] {
			return rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, most), func(b []byte) string { return string(b) })
		}
		at := rapid.Int64Range(0, maxTime)
		v := &session.Session{
			UID: text(40).Draw(t, "uid"), Epoch: rapid.Int64().Draw(t, "epoch"), CSRF: text(40).Draw(t, "csrf"),
			Country: text(maxText).Draw(t, "country"), UserAgent: text(session.MaxUserAgent).Draw(t, "agent"),
			Methods:  session.Methods(rapid.Uint8Max(uint8(session.MailedToken<<1-1)).Draw(t, "methods")),
			AuthTime: ms(at.Draw(t, "auth time")), CreatedAt: ms(at.Draw(t, "created")), SeenAt: ms(at.Draw(t, "seen")), EndsAt: ms(at.Draw(t, "ends")),
		}
		v.ExpiresAt = ms(rapid.Int64Range(0, v.EndsAt.UnixMilli()).Draw(t, "expires"))
		copy(v.Key[:], text(len(v.Key)).Draw(t, "key"))
		switch a := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address"); rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			v.IP = netip.AddrFrom4([4]byte(a[:4]))
		case 1:
			v.IP = netip.AddrFrom16([16]byte(a))
		case 2:
			v.IP = netip.AddrFrom16([16]byte(a)).WithZone(text(20).Draw(t, "zone"))
		}
		record := encoded(t, v)
		got, err := decode(v.Key, record, testGeneration, v.ExpiresAt.Add(-1))
		if err != nil || got.Session != *v {
			t.Fatalf("got %+v, %v, want %+v", got, err, v)
		}
		for _, now := range []time.Time{v.ExpiresAt, v.EndsAt} {
			if _, err := decode(v.Key, record, testGeneration, now); !errors.Is(err, session.ErrNotFound) {
				t.Fatalf("at %s: %v, want ErrNotFound", now, err)
			}
		}
		// Nothing that lacks a piece, or has one too many, is a session.
		cut := record[:rapid.IntRange(1, len(record)-1).Draw(t, "cut")]
		for _, broken := range []string{cut, record + "\x00"} {
			if got, err := decode(v.Key, broken, testGeneration, ms(0)); err == nil || errors.Is(err, session.ErrNotFound) {
				t.Fatalf("%q: %+v, %v, want an error that is not ErrNotFound", broken, got, err)
			}
		}
	})
}

func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(v *session.Session){
		"before 1970":      func(v *session.Session) { v.SeenAt = ms(-1) },
		"too late":         func(v *session.Session) { v.EndsAt = ms(maxTime + 1) },
		"expired in 1969":  func(v *session.Session) { v.ExpiresAt = ms(-1) },
		"the zero time":    func(v *session.Session) { v.CreatedAt = time.Time{} },
		"too long a UID":   func(v *session.Session) { v.UID = strings.Repeat("u", maxText+1) },
		"too long a token": func(v *session.Session) { v.CSRF = strings.Repeat("u", maxText+1) },
		"a long country":   func(v *session.Session) { v.Country = strings.Repeat("u", maxText+1) },
		"a long zone":      func(v *session.Session) { v.IP = netip.IPv6Unspecified().WithZone(strings.Repeat("u", maxText)) },
	} {
		v := testSession()
		change(v)
		if b, err := encode(&stored{Session: *v, generation: testGeneration, call: testCall}); err == nil {
			t.Errorf("%s: %q, want an error", name, b)
		}
	}
	if _, err := encode(&stored{Session: *testSession(), generation: "short", call: testCall}); err == nil {
		t.Error("a malformed generation is accepted")
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	good, now := oldRecord(3), encoded(t, testSession())
	with := func(at int, text string) string { return good[:at] + text + good[at+len(text):] }
	for name, c := range map[string]struct {
		record, generation string
		absent             bool // ErrNotFound, or another error
	}{
		"nothing":                     {"", testGeneration, true},
		"deleted":                     {string(ended) + testCall + good, testGeneration, true},
		"another generation":          {good, testCall + "000000", true},
		"no generation":               {good, "", true},
		"another form":                {"3" + now[1:], testGeneration, false},
		"the other form's number":     {with(0, "2"), testGeneration, false},
		"a field twice":               {now + "\x20\x06", testGeneration, false},
		"a text for a number":         {now[:len(now)-2] + "\x22\x01x", testGeneration, false},
		"a number for a text":         {strings.Replace(now, "\x32\x02NL", "\x30\x02", 1), testGeneration, false},
		"no epoch":                    {now[:len(now)-2], testGeneration, false},
		"too late a time":             {strings.Replace(now, "\x48\x80\x80\xba\xbb\xc8\x2e", "\x48\xff\xff\xff\xff\xff\xff\xff\x7f", 1), testGeneration, false},
		"a text beyond the end":       {strings.Replace(now, "\x32\x02NL", "\x32\xff\xff\x03NL", 1), testGeneration, false},
		"an address of 3 bytes":       {strings.Replace(now, "\x3a\x04\xcb", "\x3a\x03", 1), testGeneration, false},
		"a foreign text":              {"hello", testGeneration, false},
		"a letter in SeenAt":          {with(atSeen, "x"), testGeneration, false},
		"a sign in ExpiresAt":         {with(atExpires, "+"), testGeneration, false},
		"a minus in EndsAt":           {with(atEnds, "-"), testGeneration, false},
		"a space in CreatedAt":        {with(atCreated, " "), testGeneration, false},
		"a plus in Epoch":             {with(atEpoch, "+"), testGeneration, false},
		"an underscore in Epoch":      {with(atEpoch+1, "_"), testGeneration, false},
		"too large an Epoch":          {with(atEpoch, "09999999999999999999"), testGeneration, false},
		"a UID beyond the end":        {with(atTexts, "\x03\xff"), testGeneration, false},
		"a length beyond the largest": {with(atTexts, "\xff\xff") + strings.Repeat("x", 1<<16), testGeneration, false},
		"an address of three bytes":   {strings.Replace(good, "\x00\x04\xcb", "\x00\x03", 1), testGeneration, false},
		"a User-Agent too long": {
			strings.Replace(good, "\x00\x1fMoz", "\x02\x01Moz", 1) + strings.Repeat("x", 513-31), testGeneration, false,
		},
	} {
		v, err := decode(session.Key{}, c.record, c.generation, ms(0))
		if err == nil || errors.Is(err, session.ErrNotFound) != c.absent {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}

func TestAppendDigits(t *testing.T) {
	t.Parallel()
	for epoch, want := range map[int64]string{
		0: "00000000000000000000", 1: "00000000000000000001", -1: "-0000000000000000001",
		math.MaxInt64: "09223372036854775807", math.MinInt64: "-9223372036854775808",
	} {
		got := string(appendEpoch(nil, epoch))
		if n, ok := parseEpoch(got); got != want || !ok || n != epoch {
			t.Errorf("%d: %q, read as %d, %v", epoch, got, n, ok)
		}
	}
	for at, want := range map[time.Time]string{
		{}: "000000000000000", ms(0): "000000000000000", ms(1_600_000_000_001): "001600000000001",
		ms(maxTime): "999999999999999", ms(maxTime + 1): "999999999999999",
	} {
		if got := string(appendTime(nil, at)); got != want {
			t.Errorf("%s: %q, want %q", at, got, want)
		}
	}
}

// Whatever lies under a session's key is a session that can be written back as it was read, or none.
func FuzzDecode(f *testing.F) {
	bare := testSession()
	bare.IP, bare.UserAgent, bare.Country, bare.CSRF, bare.Epoch = netip.Addr{}, "", "", "", math.MinInt64
	zone := testSession()
	zone.IP, zone.UserAgent = netip.MustParseAddr("fe80::1%eth0"), strings.Repeat("\xff", session.MaxUserAgent)
	for _, v := range []*session.Session{testSession(), bare, zone} {
		record := encoded(f, v)
		f.Add(record)
		f.Add(record[:len(record)-1])
		f.Add("3" + record[1:])
	}
	f.Add(oldRecord(3))
	f.Add(oldRecord(3)[:atTexts])
	f.Add(string(ended) + testCall)
	f.Add("")
	f.Add("hello")
	f.Fuzz(func(t *testing.T, record string) {
		key := session.Key{7}
		v, err := decode(key, record, testGeneration, ms(0))
		if err != nil {
			return
		}
		if v.generation != testGeneration || v.Key != key || !v.Live(ms(0)) || len(v.UserAgent) > session.MaxUserAgent {
			t.Fatalf("%q is read as %+v", record, v)
		}
		again, err := decode(key, encoded(t, &v.Session), testGeneration, ms(0))
		v.ExpiresAt = expiry(&v.Session)
		if err != nil || again.Session != v.Session {
			t.Errorf("%q is read as %+v, and again as %+v, %v", record, v, again, err)
		}
	})
}
