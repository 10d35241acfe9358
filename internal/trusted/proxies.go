// Package trusted knows the peers whose word about their clients is believed, and finds the client behind them. What
// BARONG_TRUSTED_PROXIES says is read here and nowhere else.
package trusted

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"barong/internal/header"
)

// Proxies are the peers whose word about their clients is believed, and the way to a client's address through them. They
// are immutable, Replaceable ones apart, and safe for concurrent use. The zero Proxies trust nobody.
type Proxies struct {
	networks []netip.Prefix // all, as String lists them
	v4       []network4
	v6       []netip.Prefix
	unix     bool
	akamai   bool

	now *atomic.Pointer[Proxies] // of those that are replaced: what they are now
}

// Replaceable returns proxies that Replace may make others of while they are in use.
func (p *Proxies) Replaceable() *Proxies {
	r := &Proxies{now: new(atomic.Pointer[Proxies])}
	r.now.Store(p)
	return r
}

// Replace makes others of proxies that come from Replaceable.
func (p *Proxies) Replace(others *Proxies) { p.now.Store(others) }

// current are the proxies themselves, or what they were replaced by last.
func (p *Proxies) current() *Proxies {
	if p.now != nil {
		return p.now.Load()
	}
	return p
}

// A network4 is an IPv4 network. Every check compares some with its peer and with each hop.
type network4 struct{ first, mask uint32 }

func number4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// namedNetworks are the sets that a list may name. private has loopback in it, as the original's had; cloudflare is the list
// that Cloudflare publishes (cloudflare.com/ips).
var namedNetworks = map[string][]string{
	"loopback": {"127.0.0.0/8", "::1/128"},
	// Loopback, RFC 1918 and RFC 4193.
	"private": {"127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"},
	"cloudflare": {
		"173.245.48.0/20", "103.21.244.0/22", "103.22.200.0/22", "103.31.4.0/22", "141.101.64.0/18", "108.162.192.0/18",
		"190.93.240.0/20", "188.114.96.0/20", "197.234.240.0/22", "198.41.128.0/17", "162.158.0.0/15", "104.16.0.0/13",
		"104.24.0.0/14", "172.64.0.0/13", "131.0.72.0/22",
		"2400:cb00::/32", "2606:4700::/32", "2803:f800::/32", "2405:b500::/32", "2405:8100::/32", "2a06:98c0::/29",
		"2c0f:f248::/32",
	},
}

// Loopback reports whether a host is this machine by its own word: localhost, or a loopback address.
func Loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// Parse reads a list, parted by commas, of networks in CIDR notation, addresses, and the words loopback, private and
// cloudflare. A peer on a unix socket has no address; it is on this machine, so whoever trusts 127.0.0.1 trusts it too.
func Parse(list string) (Proxies, error) {
	var p Proxies
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		names, ok := namedNetworks[strings.ToLower(item)]
		if !ok {
			names = []string{item}
		}
		for _, name := range names {
			network, ok := parseNetwork(name)
			if !ok {
				return Proxies{}, fmt.Errorf("trusted proxy %q is no network, address, or one of loopback, private, cloudflare", item)
			}
			p.add(network)
		}
	}
	p.unix = p.Trusted(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	return p, nil
}

// parseNetwork reads a network, or an address, which is a network of its own. It refuses zones, which cannot be compared,
// and what is partly IPv4 mapped to IPv6.
func parseNetwork(text string) (netip.Prefix, bool) {
	network, err := netip.ParsePrefix(text)
	if err != nil {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, false
		}
		network = netip.PrefixFrom(addr, addr.BitLen())
	}
	if addr := network.Addr(); addr.Is4In6() {
		if network.Bits() < 96 {
			return netip.Prefix{}, false
		}
		network = netip.PrefixFrom(addr.Unmap(), network.Bits()-96)
	}
	return network.Masked(), true
}

func (p *Proxies) add(network netip.Prefix) {
	if slices.Contains(p.networks, network) {
		return
	}
	p.networks = append(p.networks, network)
	if network.Addr().Is4() {
		mask := ^uint32(0) << (32 - network.Bits())
		p.v4 = append(p.v4, network4{number4(network.Addr()), mask})
	} else {
		p.v6 = append(p.v6, network)
	}
}

// Networks are those of the proxies.
func (p *Proxies) Networks() []netip.Prefix { return slices.Clone(p.current().networks) }

// String lists the networks, separated by commas.
func (p Proxies) String() string {
	networks := p.current().networks
	out := make([]string, len(networks))
	for i, network := range networks {
		out[i] = network.String()
	}
	return strings.Join(out, ",")
}

// WithTrueClientIP returns proxies that also believe True-Client-IP, before X-Forwarded-For (BARONG_GATEWAY=akamai).
func (p *Proxies) WithTrueClientIP() *Proxies {
	q := *p
	q.akamai = true
	return &q
}

// BelievesTrueClientIP reports whether True-Client-IP names the client.
func (p *Proxies) BelievesTrueClientIP() bool { return p.current().akamai }

// Trusted reports whether the peer is a trusted proxy. The zero Addr is a peer on a unix socket.
func (p *Proxies) Trusted(peer netip.Addr) bool {
	p, peer = p.current(), peer.Unmap()
	switch {
	case !peer.IsValid():
		return p.unix
	case peer.Is4():
		number := number4(peer)
		for _, n := range p.v4 {
			if number&n.mask == n.first {
				return true
			}
		}
		return false
	}
	peer = peer.WithZone("")
	for i := range p.v6 {
		if p.v6[i].Contains(peer) {
			return true
		}
	}
	return false
}

// Client returns the address of the client behind a peer, or the zero Addr when it cannot be told.
//
// A peer that is not trusted speaks for itself. From a trusted one the X-Forwarded-For lines, which are one list, are
// walked from the right: the first address outside the trusted ranges is the client, and an item that is no address ends
// the walk, since nobody knows then who wrote what stands before it. When all items are trusted the client is the peer;
// or, behind a unix socket, the last item, which is who reached the peer.
//
// Ports, brackets and zones are taken off, and IPv4 addresses mapped to IPv6 come back as IPv4.
func (p *Proxies) Client(peer netip.Addr, trueClientIP []byte, forwardedFor ...[]byte) netip.Addr {
	p, peer = p.current(), peer.Unmap().WithZone("")
	if !p.Trusted(peer) {
		return peer
	}
	if p.akamai {
		if text := header.TrimSpace(trueClientIP); len(text) > 0 {
			return parseHop(text)
		}
	}
	var last netip.Addr
	for i := len(forwardedFor) - 1; i >= 0; i-- {
		line := forwardedFor[i]
		for more := true; more; {
			item := line
			at := bytes.LastIndexByte(line, ',')
			if more = at >= 0; more {
				line, item = line[:at], line[at+1:]
			}
			hop := parseHop(header.TrimSpace(item))
			if !hop.IsValid() || !p.Trusted(hop) {
				return hop
			}
			if !last.IsValid() {
				last = hop
			}
		}
	}
	if !peer.IsValid() {
		return last
	}
	return peer
}

// parseHop reads an address as proxies write it: bare, with a port, in brackets, or with a zone. What is no address is
// the zero Addr.
func parseHop(text []byte) netip.Addr {
	if len(text) == 0 || len(text) > 64 { // 39 for an IPv6 address, then brackets, zone and port
		return netip.Addr{}
	}
	if text[0] == '[' {
		end := bytes.IndexByte(text, ']')
		if end < 0 || !isPort(text[end+1:]) || bytes.IndexByte(text[:end], ':') < 0 {
			return netip.Addr{}
		}
		text = text[1:end]
	} else if at := bytes.IndexByte(text, ':'); at >= 0 && bytes.IndexByte(text[at+1:], ':') < 0 {
		if !isPort(text[at:]) { // one colon: an IPv4 address and its port
			return netip.Addr{}
		}
		text = text[:at]
	}
	if at := bytes.IndexByte(text, '%'); at >= 0 {
		if at == len(text)-1 || bytes.IndexByte(text[:at], ':') < 0 {
			return netip.Addr{}
		}
		text = text[:at]
	}
	addr, err := netip.ParseAddr(header.View(text))
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap()
}

// isPort reports whether text is empty or a colon and a decimal number of up to five digits.
func isPort(text []byte) bool {
	if len(text) == 0 {
		return true
	}
	if text[0] != ':' || len(text) < 2 || len(text) > 6 {
		return false
	}
	for _, c := range text[1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// HTTPS reports whether the client came over https, as a trusted peer says in X-Forwarded-Proto. Of a list the first
// item counts, which is about the client.
func (p *Proxies) HTTPS(peer netip.Addr, forwardedProto []byte) bool {
	first, _, _ := bytes.Cut(forwardedProto, []byte{','})
	return p.Trusted(peer) && https.Is(header.TrimSpace(first))
}

// Host is the host that the client asked for: what a trusted peer says in X-Forwarded-Host, of a list the first item, or
// the Host header. It may be anything that a client can write there.
func (p *Proxies) Host(peer netip.Addr, forwardedHost, host []byte) string {
	first, _, _ := bytes.Cut(forwardedHost, []byte{','})
	if first = header.TrimSpace(first); len(first) > 0 && p.Trusted(peer) {
		host = first
	}
	return string(host)
}

var https = header.NewName("https")
