package importer

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Second factors are found by what either release calls them, in either file.
func TestExportedFactors(t *testing.T) {
	const secret, other = "RQ2EURVYDFWB2CZ5IGFFFLY6YAWJSKFY", "NWBLK42QWBFIPZEVTL6HUMHVEKHJIWAE"
	write := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	export := write("vault.json", `{"totp": {"totp/keys/ID1": {"url": "otpauth://totp/X:a?secret=`+secret+`"}, "opendax_ID2": "`+secret+`", "other_ID3": "`+secret+`"}}`)
	lines := write("totp.csv", "uid,url\nopendax_ID4,otpauth://totp/X:a?secret="+other+"\nID5,"+other+"\n")
	s, err := NewSecrets(export, lines, "", "", "opendax")
	if err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[string]string{"ID1": secret, "ID2": secret, "ID3": "", "ID4": other, "ID5": other, "ID6": ""} {
		if got, err := s.secondFactor(t.Context(), uid); got != want || err != nil {
			t.Errorf("%s: %q, %v", uid, got, err)
		}
	}
	// Files in which one name stands before all are of that name, whatever is said of it.
	one := write("one.json", `{"totp": {"theirs_ID1": "`+secret+`"}, "transit": {"vault:v1:aa": "plain", "vault:v1:bb": {"plaintext": "cGxhaW4="}}}`)
	if s, err = NewSecrets(one, "", "", "", "barong"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.secondFactor(t.Context(), "ID1"); got != secret || err != nil {
		t.Errorf("the only name: %q, %v", got, err)
	}
	for _, sealed := range []string{"vault:v1:aa", "vault:v1:bb"} {
		if got, err := s.apiKey(t.Context(), "k", sealed); got != "plain" || err != nil {
			t.Errorf("a sealed key: %q, %v", got, err)
		}
	}
}

// A Vault that fails for a moment is asked again; one that is sealed is told of before the work.
func TestVaultThatFails(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1/sys/health":
			w.WriteHeader(http.StatusServiceUnavailable)
		case asked == 0:
			asked++
			w.WriteHeader(http.StatusTooManyRequests)
		default:
			_, _ = w.Write([]byte(`{"data": {"value": "plain"}}`)) // to a test
		}
	}))
	defer server.Close()
	s, err := NewSecrets("", "", server.URL+"/v1/", "root", "barong")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := s.apiKey(t.Context(), "k", ""); v != "plain" || err != nil || asked != 1 {
		t.Errorf("asked again: %q, %v", v, err)
	}
	if _, err := Open(t.Context(), Options{Source: "none", Secrets: s}); err == nil || !strings.Contains(err.Error(), "unseal it") {
		t.Errorf("sealed: %v", err)
	}
}
