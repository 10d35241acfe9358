package trusted

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
)

func TestClient(t *testing.T) {
	for _, tc := range []struct {
		trusted, peer, forwarded, want string // several lines are parted by |
	}{
		{"loopback", "127.0.0.1", "203.0.113.7", "203.0.113.7"},
		{"loopback", "127.0.0.1", "", "127.0.0.1"},
		{"loopback", "::1", "203.0.113.7", "203.0.113.7"},
		{"loopback", "::ffff:127.0.0.1", "203.0.113.7", "203.0.113.7"},
		{"loopback", "10.0.0.1", "203.0.113.7", "10.0.0.1"},
		{"", "127.0.0.1", "203.0.113.7", "127.0.0.1"},
		{"private", "10.0.0.1", "6.6.6.6, 203.0.113.7, 192.168.1.1", "203.0.113.7"},
		{"private", "10.0.0.1", "6.6.6.6|203.0.113.7|192.168.1.1,172.16.9.9", "203.0.113.7"},
		{"private", "10.0.0.1", "10.1.1.1, 192.168.1.1", "10.0.0.1"},
		{"private", "fd00::1", "2001:db8::1", "2001:db8::1"},
		{"cloudflare", "162.158.1.1", "6.6.6.6, 2001:db8::7", "2001:db8::7"},
		{"cloudflare", "2606:4700::1", "203.0.113.7, 104.16.0.1", "203.0.113.7"},
		{"192.0.2.0/24,198.51.100.7", "198.51.100.7", "203.0.113.7,192.0.2.9", "203.0.113.7"},
		{"192.0.2.0/24, 198.51.100.7", "198.51.100.8", "203.0.113.7", "198.51.100.8"},
		{"::ffff:10.0.0.0/104", "10.9.9.9", "203.0.113.7", "203.0.113.7"},

		{"loopback", "", "203.0.113.7", "203.0.113.7"},
		{"127.0.0.0/8,::1/128", "", "203.0.113.7", "203.0.113.7"},
		{"private", "", "203.0.113.7", "203.0.113.7"},
		{"10.0.0.0/8", "", "203.0.113.7", "none"},
		{"loopback", "", "127.0.0.5", "127.0.0.5"},
		{"loopback", "", "", "none"},

		{"loopback", "127.0.0.1", "203.0.113.7:1234", "203.0.113.7"},
		{"loopback", "127.0.0.1", "[2001:db8::7]:443", "2001:db8::7"},
		{"loopback", "127.0.0.1", "[2001:db8::7]", "2001:db8::7"},
		{"loopback", "127.0.0.1", "fe80::7%eth0", "fe80::7"},
		{"loopback", "127.0.0.1", "[fe80::7%25eth0]:1", "fe80::7"},
		{"loopback", "127.0.0.1", "::ffff:203.0.113.7", "203.0.113.7"},
		{"loopback", "127.0.0.1", "  203.0.113.7\t", "203.0.113.7"},

		{"loopback", "127.0.0.1", "unknown", "none"},
		{"loopback", "127.0.0.1", "203.0.113.7, unknown", "none"},
		{"loopback", "127.0.0.1", "203.0.113.7,", "none"},
		{"loopback", "127.0.0.1", "203.0.113.7, , 127.0.0.1", "none"},
		{"loopback", "127.0.0.1", "_hidden", "none"},
		{"loopback", "127.0.0.1", "203.0.113", "none"},
		{"loopback", "127.0.0.1", "203.0.113.07", "none"},
		{"loopback", "127.0.0.1", "203.0.113.7:", "none"},
		{"loopback", "127.0.0.1", "203.0.113.7:x", "none"},
		{"loopback", "127.0.0.1", "203.0.113.7:123456", "none"},
		{"loopback", "127.0.0.1", "203.0.113.7%eth0", "none"},
		{"loopback", "127.0.0.1", "[203.0.113.7]", "none"},
		{"loopback", "127.0.0.1", "[2001:db8::7", "none"},
		{"loopback", "127.0.0.1", "[2001:db8::7]x", "none"},
		{"loopback", "127.0.0.1", "fe80::7%", "none"},
		{"loopback", "127.0.0.1", `"203.0.113.7"`, "none"},
		{"loopback", "127.0.0.1", strings.Repeat("1", 65), "none"},
	} {
		p, err := Parse(tc.trusted)
		if err != nil {
			t.Fatal(err)
		}
		var peer netip.Addr
		if tc.peer != "" {
			peer = netip.MustParseAddr(tc.peer)
		}
		var lines [][]byte
		if tc.forwarded != "" {
			lines = bytes.Split([]byte(tc.forwarded), []byte{'|'})
		}
		got := p.Client(peer, []byte("192.0.2.99"), lines...)
		if want := tc.want; want == "none" && got.IsValid() || want != "none" && got.String() != want {
			t.Errorf("trusting %q, peer %q, forwarded %q: client %v, want %s", tc.trusted, tc.peer, tc.forwarded, got, want)
		}
	}
}

func TestTrueClientIP(t *testing.T) {
	loopback, err := Parse("loopback")
	if err != nil {
		t.Fatal(err)
	}
	p := loopback.WithTrueClientIP()
	for _, tc := range []struct{ peer, sent, want string }{
		{"127.0.0.1", "198.51.100.1", "198.51.100.1"},
		{"127.0.0.1", " 198.51.100.1 ", "198.51.100.1"},
		{"127.0.0.1", "127.0.0.9", "127.0.0.9"},
		{"127.0.0.1", "", "203.0.113.7"},
		{"127.0.0.1", " ", "203.0.113.7"},
		{"127.0.0.1", "garbage", "none"},
		{"127.0.0.1", "198.51.100.1, 198.51.100.2", "none"},
		{"192.0.2.1", "198.51.100.1", "192.0.2.1"},
	} {
		got := p.Client(netip.MustParseAddr(tc.peer), []byte(tc.sent), []byte("203.0.113.7"))
		if want := tc.want; want == "none" && got.IsValid() || want != "none" && got.String() != want {
			t.Errorf("peer %s, True-Client-IP %q: client %v, want %s", tc.peer, tc.sent, got, want)
		}
	}
	if loopback.akamai {
		t.Error("WithTrueClientIP changed what it was called on")
	}
}

func TestParse(t *testing.T) {
	for _, bad := range []string{"nonsense", "10.0.0.0/33", "fe80::1%eth0", "10.0.0.0/8;", "loopback,privat", "fe80::1%eth0/64", "unix", "::ffff:0:0/90", "127.0.0.1 10.0.0.1"} {
		if _, err := Parse(bad); err == nil || !strings.Contains(err.Error(), "trusted proxy") {
			t.Errorf("Parse(%q) = %v", bad, err)
		}
	}
	p, err := Parse("Cloudflare")
	if err != nil || len(p.v4) != 15 || len(p.v6) != 7 {
		t.Errorf("cloudflare: %d IPv4 and %d IPv6 networks, error %v; want 15 and 7", len(p.v4), len(p.v6), err)
	}
	if p, err = Parse(" , "); err != nil || p.Trusted(netip.MustParseAddr("127.0.0.1")) || p.Trusted(netip.Addr{}) {
		t.Errorf("an empty list trusts somebody, error %v", err)
	}
}

func TestHTTPS(t *testing.T) {
	p, err := Parse("loopback")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		peer, proto string
		want        bool
	}{
		{"127.0.0.1", "https", true},
		{"127.0.0.1", "HTTPS , http", true},
		{"127.0.0.1", "http,https", false},
		{"127.0.0.1", "", false},
		{"192.0.2.1", "https", false},
	} {
		if got := p.HTTPS(netip.MustParseAddr(tc.peer), []byte(tc.proto)); got != tc.want {
			t.Errorf("HTTPS(%s, %q) = %v", tc.peer, tc.proto, got)
		}
	}
}

// What a stranger writes before the last trusted hop's own item never matters.
func FuzzClient(f *testing.F) {
	for _, s := range []string{"", "6.6.6.6", "unknown, 10.0.0.1", "[::1]:80", "fe80::1%a,", ",,,", "1.2.3.4:99999"} {
		f.Add([]byte(s))
	}
	p, err := Parse("loopback,10.0.0.0/8")
	if err != nil {
		f.Fatal(err)
	}
	peer, client := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("203.0.113.7")
	f.Fuzz(func(t *testing.T, forged []byte) {
		if got := p.Client(peer, nil, append(bytes.Clone(forged), ", 203.0.113.7, 10.0.0.3"...)); got != client {
			t.Errorf("forged %q: client %v", forged, got)
		}
		if got := p.Client(peer, nil, forged, []byte("203.0.113.7")); got != client {
			t.Errorf("forged %q in a line of its own: client %v", forged, got)
		}
		got := p.Client(peer, nil, forged)
		if got.IsValid() && got != peer && p.Trusted(got) || got.Is4In6() || got.Zone() != "" {
			t.Errorf("forged %q alone: client %v", forged, got)
		}
	})
}

func TestLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true,
		"": false, "0.0.0.0": false, "::": false, "localhost.example.com": false, "127.0.0.1.example.com": false, "10.0.0.1": false, "127.1": false,
	} {
		if got := Loopback(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

// What uses proxies that are replaced finds the others at once, by every method.
func TestReplace(t *testing.T) {
	first, err := Parse("10.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	second, err := Parse("192.0.2.0/24")
	if err != nil {
		t.Fatal(err)
	}
	peer, hop := netip.MustParseAddr("192.0.2.1"), []byte("203.0.113.7")
	p := first.Replaceable()
	asked := p.Trusted // as handlers keep it
	if asked(peer) || p.Client(peer, nil, hop) != peer || p.String() != "10.0.0.0/8" || p.BelievesTrueClientIP() || p.HTTPS(peer, []byte("https")) {
		t.Error("at first the second holds")
	}
	p.Replace(second.WithTrueClientIP())
	if !asked(peer) || p.Client(peer, nil, hop).String() != "203.0.113.7" || p.String() != "192.0.2.0/24" || !p.BelievesTrueClientIP() ||
		!p.HTTPS(peer, []byte("https")) || len(p.Networks()) != 1 || first.Trusted(peer) {
		t.Error("the second does not hold")
	}
}
