package envoy

import (
	"net/url"
	"strings"
	"testing"

	"barong/authz"
)

// FuzzSplitURL: an address that is split has all its bytes in its parts, and other readers see the same host and path.
func FuzzSplitURL(f *testing.F) {
	for _, seed := range []string{
		"/x", "https://app.example/x?a=b#c", "http://[::1]:80/", "HTTPS://A:443/%2e%2e/", "https://a@b/c", "https:///x", `https://a\b/c`,
		"//evil/x", "https://a?/b", "ftp://a/b", "/x?https://a/b", "https://[::1/x", "https://a:b/c", "://a/", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, address string) {
		scheme, host, target, ok := splitURL(address)
		if !ok {
			return
		}
		if !strings.HasPrefix(target, "/") {
			t.Fatalf("%q has the target %q", address, target)
		}
		whole := target
		if scheme != "" || host != "" {
			whole = scheme + "://" + host + target
		}
		if whole != address {
			t.Fatalf("%q became %q", address, whole)
		}
		path, ok := authz.Canonical(target)
		u, err := url.Parse(address)
		if !ok || err != nil {
			return // refused, or one that nobody reads
		}
		if u.Host != host || strings.TrimSuffix(strings.TrimPrefix(u.Path, "/"), "/") != path {
			t.Fatalf("%q: host %q, path %q; read as %q, %q", address, host, path, u.Host, u.Path)
		}
	})
}
