package geoip

import (
	"encoding/binary"
	"maps"
	"math/bits"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"barong/policy"
)

var _ policy.Locator = (*Locator)(nil)

func TestEmbedded(t *testing.T) {
	l := Embedded()
	for addr, want := range map[string]string{
		"8.8.8.8":               "US",
		"::ffff:8.8.8.8":        "US",
		"193.0.6.139":           "NL",
		"2620:0:2d0:200::7":     "US",
		"2001:dc7:1000::1%eth0": "CN",
		"10.0.0.1":              "",
		"192.168.1.1":           "",
		"127.0.0.1":             "",
		"0.0.0.0":               "",
		"255.255.255.255":       "",
		"::1":                   "",
		"::":                    "",
		"fe80::1":               "",
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": "",
	} {
		a := netip.MustParseAddr(addr)
		if got := l.Country(a); got != want {
			t.Errorf("%s: got %q, want %q", addr, got, want)
		}
		if _, ok := l.Place(a); ok != (want != "") {
			t.Errorf("%s: Place found it: %v", addr, ok)
		}
	}
	if got := l.Country(netip.Addr{}); got != "" {
		t.Errorf("no address: got %q", got)
	}
	want := policy.Place{Country: "US", CountryName: "United States", Continent: "NA", ContinentName: "North America"}
	if got, _ := l.Place(netip.MustParseAddr("8.8.8.8")); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestTable(t *testing.T) {
	if len(nations) != 250 {
		t.Errorf("got %d countries, want 249 and Kosovo", len(nations))
	}
	names := map[string]bool{}
	for code, n := range nations {
		if len(code) != 2 || strings.ToUpper(code) != code || continentNames[n.continent] == "" || n.name == "" || names[n.name] {
			t.Errorf("%s: %+v", code, n)
		}
		names[n.name] = true
	}
	// The policy knows the same codes: it warns of others.
	var rules []policy.Restriction
	for i, code := range slices.Sorted(maps.Keys(nations)) {
		rules = append(rules, policy.Restriction{ID: int64(i), Category: "blacklist", Scope: "country", Value: code, Enabled: true})
	}
	for i, code := range slices.Sorted(maps.Keys(continentNames)) {
		rules = append(rules, policy.Restriction{ID: int64(1000 + i), Category: "blacklist", Scope: "continent", Value: code, Enabled: true})
	}
	s, err := policy.Compile(policy.Source{Restrictions: rules, Locator: Embedded()})
	if err != nil || len(s.Warnings()) != 0 {
		t.Errorf("got %v, warnings %q", err, s.Warnings())
	}
}

// place is a record as MaxMind writes it.
func place(country, name, local, continent, continentName, continentLocal string) map[string]any {
	return map[string]any{
		"continent": map[string]any{"code": continent, "geoname_id": uint32(1), "names": map[string]any{"en": continentName, "de": continentLocal}},
		"country":   map[string]any{"iso_code": country, "geoname_id": uint32(2), "names": map[string]any{"en": name, "de": local}},
	}
}

func open(t *testing.T, lang string, networks map[string]any) (*Locator, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.mmdb")
	if err := os.WriteFile(path, writeDB(networks), 0o600); err != nil {
		t.Fatal(err)
	}
	return Open(path, lang)
}

func TestOpen(t *testing.T) {
	l, err := open(t, "de", map[string]any{
		"1.2.3.0/24":    place("DE", "Germany", "Deutschland", "EU", "Europe", "Europa"),
		"1.2.4.0/24":    map[string]any{"country": map[string]any{"iso_code": "JP"}},
		"1.2.5.0/24":    map[string]any{"country_code": "BR"},
		"1.2.6.0/24":    map[string]any{"continent": map[string]any{"code": "AF"}},
		"1.2.7.0/24":    map[string]any{"traits": map[string]any{"x": "y"}},
		"2001:db8::/32": place("JP", "Japan", "Japan", "AS", "Asia", "Asien"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]policy.Place{
		"1.2.3.4":        {Country: "DE", CountryName: "Germany", CountryLocal: "Deutschland", Continent: "EU", ContinentName: "Europe", ContinentLocal: "Europa"},
		"::ffff:1.2.3.4": {Country: "DE", CountryName: "Germany", CountryLocal: "Deutschland", Continent: "EU", ContinentName: "Europe", ContinentLocal: "Europa"},
		"1.2.4.4":        {Country: "JP", CountryName: "Japan", Continent: "AS", ContinentName: "Asia"},
		"1.2.5.4":        {Country: "BR", CountryName: "Brazil", Continent: "SA", ContinentName: "South America"},
		"1.2.6.4":        {Continent: "AF", ContinentName: "Africa"},
		"1.2.7.4":        {},
		"1.2.8.4":        {},
		"2001:db8::7":    {Country: "JP", CountryName: "Japan", CountryLocal: "Japan", Continent: "AS", ContinentName: "Asia", ContinentLocal: "Asien"},
		"2001:db9::7":    {},
	} {
		for range 2 { // read, then remembered
			got, ok := l.Place(netip.MustParseAddr(addr))
			if got != want || ok != (want != policy.Place{}) {
				t.Errorf("%s: got %+v, %v, want %+v", addr, got, ok, want)
			}
			if country := l.Country(netip.MustParseAddr(addr)); country != want.Country {
				t.Errorf("%s: got country %q, want %q", addr, country, want.Country)
			}
		}
	}
	if _, ok := l.Place(netip.Addr{}); ok {
		t.Error("no address has a place")
	}
}

func TestOpenInParallel(t *testing.T) {
	l, err := open(t, "en", map[string]any{
		"1.0.0.0/8": place("DE", "Germany", "", "EU", "Europe", ""), "2.0.0.0/8": place("FR", "France", "", "EU", "Europe", ""),
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 200 {
				if got := l.Country(netip.AddrFrom4([4]byte{1, 0, 0, byte(i)})); got != "DE" {
					t.Errorf("got %q", got)
				}
				if got := l.Country(netip.AddrFrom4([4]byte{2, 0, 0, byte(i)})); got != "FR" {
					t.Errorf("got %q", got)
				}
			}
		})
	}
	wg.Wait()
}

func TestOpenRefuses(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "absent.mmdb"), "en"); err == nil {
		t.Error("opened what is not there")
	}
	if _, err := open(t, "en", map[string]any{"1.0.0.0/8": map[string]any{"autonomous_system_number": uint32(7)}}); err == nil || !strings.Contains(err.Error(), "no countries") {
		t.Errorf("a database of other things: got %v", err)
	}
	if _, err := open(t, "en", map[string]any{"1.0.0.0/8": map[string]any{"country": "DE"}}); err == nil {
		t.Error("opened a database whose records have another form")
	}
	whole := writeDB(map[string]any{"1.0.0.0/8": place("DE", "Germany", "", "EU", "Europe", "")})
	for name, data := range map[string][]byte{
		"empty": {}, "no database": []byte("hello"), "cut": whole[len(whole)/2:],
		"damaged": append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, whole[6:]...),
	} {
		path := filepath.Join(t.TempDir(), "bad.mmdb")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, "en"); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

func BenchmarkPlace(b *testing.B) {
	path := filepath.Join(b.TempDir(), "test.mmdb")
	if err := os.WriteFile(path, writeDB(map[string]any{
		"0.0.0.0/8": place(strings.Repeat("x", 280), "", "", "", "", ""), "1.0.0.0/8": place("DE", "Germany", "", "EU", "Europe", ""),
	}), 0o600); err != nil {
		b.Fatal(err)
	}
	file, err := Open(path, "en")
	if err != nil {
		b.Fatal(err)
	}
	for name, l := range map[string]*Locator{"embedded": Embedded(), "file": file} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			addr := netip.MustParseAddr("1.2.3.4")
			for b.Loop() {
				if _, ok := l.Place(addr); !ok {
					b.Fatal("no place")
				}
			}
		})
	}
}

// writeDB writes networks and their records in the MaxMind DB file format 2.0: an IPv6 tree of 24-bit records, IPv4
// below ::/96, a separator, the data, and the metadata behind its marker.
func writeDB(networks map[string]any) []byte {
	type branch struct{ node, data int } // one of them set; data is an offset plus one
	nodes := [][2]branch{{}}
	var data []byte
	for _, text := range slices.Sorted(maps.Keys(networks)) {
		network := netip.MustParsePrefix(text)
		length, address := network.Bits(), network.Addr().As16()
		if network.Addr().Is4() {
			length += 96
			var v4 [16]byte
			copy(v4[12:], network.Addr().AsSlice())
			address = v4
		}
		offset := len(data)
		data = appendValue(data, networks[text])
		at := 0
		for i := range length {
			bit := address[i/8] >> (7 - i%8) & 1
			if i == length-1 {
				nodes[at][bit] = branch{data: offset + 1}
				break
			}
			if nodes[at][bit].node == 0 {
				nodes = append(nodes, [2]branch{})
				nodes[at][bit].node = len(nodes) - 1
			}
			at = nodes[at][bit].node
		}
	}
	var out []byte
	for _, n := range nodes {
		for _, b := range n {
			record := len(nodes) // nothing there
			switch {
			case b.node != 0:
				record = b.node
			case b.data != 0:
				record = len(nodes) + 16 + b.data - 1
			}
			out = append(out, byte(record>>16), byte(record>>8), byte(record))
		}
	}
	out = append(append(out, make([]byte, 16)...), data...)
	return appendValue(append(out, "\xab\xcd\xefMaxMind.com"...), map[string]any{
		"binary_format_major_version": uint16(2), "binary_format_minor_version": uint16(0), "build_epoch": uint64(1_700_000_000),
		"database_type": "GeoLite2-Country", "description": map[string]any{"en": "places of a test"}, "ip_version": uint16(6),
		"languages": []string{"en", "de"}, "node_count": uint32(len(nodes)), "record_size": uint16(24),
	})
}

func appendValue(to []byte, value any) []byte {
	control := func(kind, size int) {
		var long []byte
		if size >= 29 { // no value of these tests is longer than 284 bytes
			long, size = []byte{byte(size - 29)}, 29
		}
		if kind > 7 {
			to = append(to, byte(size), byte(kind-7))
		} else {
			to = append(to, byte(kind<<5|size))
		}
		to = append(to, long...)
	}
	number := func(kind int, n uint64) {
		size := (bits.Len64(n) + 7) / 8
		control(kind, size)
		to = append(to, binary.BigEndian.AppendUint64(nil, n)[8-size:]...)
	}
	switch v := value.(type) {
	case string:
		control(2, len(v))
		to = append(to, v...)
	case uint16:
		number(5, uint64(v))
	case uint32:
		number(6, uint64(v))
	case uint64:
		number(9, v)
	case map[string]any:
		control(7, len(v))
		for _, key := range slices.Sorted(maps.Keys(v)) {
			to = appendValue(appendValue(to, key), v[key])
		}
	case []string:
		control(11, len(v))
		for _, s := range v {
			to = appendValue(to, s)
		}
	}
	return to
}
