package systemtest

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"sync"
	"testing"
	"time"

	"barong/db"
)

// wholly are the headers by which a GET of a path without a query is signed whole (RFC 9421), once.
func wholly(path, kid string, sign func(base string) []byte) []string {
	input := fmt.Sprintf(`("@method" "@path" "@query");created=%d;keyid=%q;nonce=%q`, time.Now().Unix(), kid, rand.Text())
	base := fmt.Sprintf("\"@method\": GET\n\"@path\": %s\n\"@query\": ?\n\"@signature-params\": %s", path, input)
	return []string{"Signature-Input: barong=" + input, "Signature: barong=:" + base64.StdEncoding.EncodeToString(sign(base)) + ":"}
}

// Of one signed request that is sent many times at once, to two replicas that share a memory of nonces, one passes.
func TestSignedReplays(t *testing.T) {
	t.Parallel()
	// A request stays good for as long as a busy machine may take to send it everywhere.
	c := newCluster(t, true, "BARONG_APIKEY_REPLAY=shared", "BARONG_APIKEY_NONCE_LIFETIME=600000")
	p := c.person(true)
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	const own = "e123456789abcdef"
	if err := c.db.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		return tx.InsertAPIKey(ctx, &db.APIKey{UserID: p.ID, KID: own, Algorithm: "Ed25519", State: "active", PublicKey: public})
	}); err != nil {
		t.Fatal(err)
	}
	bySecret := func(base string) []byte {
		mac := hmac.New(sha256.New, []byte(p.secret))
		mac.Write([]byte(base))
		return mac.Sum(nil)
	}
	byKey := func(base string) []byte { return ed25519.Sign(private, []byte(base)) }
	for name, sign := range map[string]func() []string{
		"HS256":   func() []string { return wholly(account, p.kid, bySecret) },
		"Ed25519": func() []string { return wholly(account, own, byKey) },
	} {
		c.a.client().check(account, sign()...).wants(t, name+" at one replica", 200)
		c.b.client().check(account, sign()...).wants(t, name+" at the other", 200)
		for range 20 {
			headers := sign()
			replies := make([]reply, 8)
			var wg sync.WaitGroup
			for i := range replies {
				at := c.a
				if i%2 == 1 {
					at = c.b
				}
				wg.Go(func() { replies[i] = at.client().check(account, headers...) })
			}
			wg.Wait()
			passed := 0
			for _, r := range replies {
				switch {
				case r.err == nil && r.status == 200:
					passed++
				case !r.code(401, "authz.signature_blacklisted"):
					t.Errorf("%s, a replay: got %s", name, r)
				}
			}
			if passed != 1 {
				t.Errorf("%s: %d of %d equal requests passed", name, passed, len(replies))
			}
		}
	}
}
