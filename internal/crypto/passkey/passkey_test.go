package passkey_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/internal/crypto/passkey"
	"barong/internal/crypto/passkey/passkeytest"
	"barong/internal/crypto/secret"
)

// A world is a relying party, a clock and a memory.
type world struct {
	*passkey.Party
	now  time.Time
	lock sync.Mutex
	seen map[string]bool
}

func (w *world) Take(_ context.Context, key string, most int, _ time.Duration) (time.Duration, error) {
	w.lock.Lock()
	defer w.lock.Unlock()
	if most != 1 {
		return 0, errors.New("a flow is to be used once")
	}
	if w.seen[key] {
		return time.Minute, nil
	}
	w.seen[key] = true
	return 0, nil
}

func newWorld(t testing.TB, changes ...func(*passkey.Options)) *world {
	t.Helper()
	box, err := secret.New(secret.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{now: time.Now(), seen: map[string]bool{}}
	o := passkey.Options{
		ID: "barong.test", Origins: []string{passkeytest.Origin}, Name: "Barong", Sealer: box, Memory: w,
		Now: func() time.Time { return w.now },
	}
	for _, change := range changes {
		change(&o)
	}
	if w.Party, err = passkey.New(o); err != nil {
		t.Fatal(err)
	}
	return w
}

func raw(t testing.TB, options any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var ann = passkey.User{Handle: "ID0000000001", Name: "ann@example.com", Epoch: 3}

// add makes a passkey of ann.
func (w *world) add(t testing.TB, k *passkeytest.Key, spoil func(*passkeytest.Ceremony)) (*passkey.Credential, error) {
	t.Helper()
	flow, options, err := w.BeginCreate(ann)
	if err != nil {
		t.Fatal(err)
	}
	return w.Create(t.Context(), ann, flow, k.Make(t, raw(t, options), spoil))
}

// use signs in with it.
func (w *world) use(t testing.TB, k *passkeytest.Key, c *passkey.Credential, spoil func(*passkeytest.Ceremony)) (*passkey.Use, error) {
	t.Helper()
	flow, options, err := w.BeginGet()
	if err != nil {
		t.Fatal(err)
	}
	return w.Get(t.Context(), flow, k.Get(t, raw(t, options), spoil), finds(c))
}

func finds(c *passkey.Credential) func(context.Context, string) (string, *passkey.Credential, error) {
	return func(_ context.Context, id string) (string, *passkey.Credential, error) {
		if id != c.ID {
			return "", nil, passkey.ErrInvalid
		}
		return ann.Handle, c, nil
	}
}

func TestCeremonies(t *testing.T) {
	for name, algorithm := range map[string]int{"ES256": passkeytest.ES256, "Ed25519": passkeytest.Ed25519} {
		t.Run(name, func(t *testing.T) {
			w, k := newWorld(t), passkeytest.New(t, algorithm)
			k.Count = 7
			c, err := w.add(t, k, func(c *passkeytest.Ceremony) {
				c.Transports = []string{"usb", "telepathy", "internal", "usb"}
				c.Extensions = map[string]any{"credProps": map[string]any{"rk": true}, "unheard": 1} // that nobody asked for
			})
			if err != nil {
				t.Fatal(err)
			}
			if c.ID != base64.RawURLEncoding.EncodeToString(k.ID) || c.SignCount != 7 || c.BackedUp || c.BackupEligible ||
				!slices.Equal(c.Transports, []string{"internal", "usb"}) {
				t.Errorf("credential %+v", c)
			}
			used, err := w.use(t, k, c, nil)
			if err != nil || used.SignCount != 8 || used.BackedUp {
				t.Errorf("used %+v, %v", used, err)
			}
		})
	}
	w, k := newWorld(t), passkeytest.New(t, passkeytest.ES256)
	k.Flags |= passkeytest.BackupEligible
	c, err := w.add(t, k, nil)
	if err != nil || !c.BackupEligible || c.BackedUp {
		t.Fatalf("synced passkey %+v, %v", c, err)
	}
	k.Flags |= passkeytest.BackedUp
	for range 2 { // it does not count
		if used, err := w.use(t, k, c, nil); err != nil || used.SignCount != 0 || !used.BackedUp {
			t.Errorf("used %+v, %v", used, err)
		}
	}
}

func TestOptions(t *testing.T) {
	w, k := newWorld(t), passkeytest.New(t, passkeytest.ES256)
	c, err := w.add(t, k, nil)
	if err != nil {
		t.Fatal(err)
	}
	who := ann
	who.Have = []passkey.Credential{*c}
	_, options, err := w.BeginCreate(who)
	if err != nil {
		t.Fatal(err)
	}
	var created struct {
		RP                     struct{ ID, Name string }
		User                   struct{ ID, Name, DisplayName string }
		Challenge              string
		Timeout                int
		PubKeyCredParams       []struct{ Alg int }
		ExcludeCredentials     []struct{ ID, Type string }
		AuthenticatorSelection struct {
			ResidentKey, UserVerification string
			RequireResidentKey            bool
		}
		Attestation string
	}
	if err := json.Unmarshal(raw(t, options), &created); err != nil {
		t.Fatal(err)
	}
	handle := base64.RawURLEncoding.EncodeToString([]byte(ann.Handle))
	if created.RP.ID != "barong.test" || created.RP.Name != "Barong" || created.User.ID != handle || created.User.Name != ann.Name ||
		len(created.Challenge) < 22 || created.Timeout != 300_000 || len(created.ExcludeCredentials) != 1 || created.ExcludeCredentials[0].ID != c.ID ||
		created.AuthenticatorSelection.ResidentKey != "required" || created.AuthenticatorSelection.UserVerification != "required" ||
		!created.AuthenticatorSelection.RequireResidentKey || created.Attestation != "none" || len(created.PubKeyCredParams) != 3 {
		t.Errorf("options of a new passkey %s", raw(t, options))
	}
	_, options, err = w.BeginGet()
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(raw(t, options), &got); err != nil {
		t.Fatal(err)
	}
	if got["rpId"] != "barong.test" || got["userVerification"] != "required" || got["allowCredentials"] != nil || got["timeout"] != 300_000.0 {
		t.Errorf("options of a sign-in %s", raw(t, options))
	}
}

// spoils are what is refused in both ceremonies.
var spoils = map[string]func(*passkeytest.Ceremony){
	"another page":               func(c *passkeytest.Ceremony) { c.Origin = "https://barong.test.evil.example" },
	"a page over http":           func(c *passkeytest.Ceremony) { c.Origin = "http://barong.test" },
	"another port":               func(c *passkeytest.Ceremony) { c.Origin = "https://barong.test:8443" },
	"a page below":               func(c *passkeytest.Ceremony) { c.Origin = "https://app.barong.test" },
	"no page":                    func(c *passkeytest.Ceremony) { c.Origin = "null" },
	"an app":                     func(c *passkeytest.Ceremony) { c.Origin = "android:apk-key-hash:" + strings.Repeat("A", 43) },
	"within a stranger's page":   func(c *passkeytest.Ceremony) { c.CrossOrigin = true },
	"another service":            func(c *passkeytest.Ceremony) { c.RPID = "evil.example" },
	"no user verification":       func(c *passkeytest.Ceremony) { c.Flags &^= passkeytest.Verified },
	"nobody present":             func(c *passkeytest.Ceremony) { c.Flags &^= passkeytest.Present },
	"another challenge":          func(c *passkeytest.Ceremony) { c.Challenge = base64.RawURLEncoding.EncodeToString(make([]byte, 32)) },
	"no challenge":               func(c *passkeytest.Ceremony) { c.Challenge = "" },
	"no ceremony":                func(c *passkeytest.Ceremony) { c.Type = "" },
	"a backup of what has none":  func(c *passkeytest.Ceremony) { c.Flags |= passkeytest.BackedUp },
	"bytes behind the data":      func(c *passkeytest.Ceremony) { c.Trailing = []byte{0xa0} },
	"half a map behind the data": func(c *passkeytest.Ceremony) { c.Trailing, c.Flags = []byte{0xbf, 0x61}, c.Flags|0x80 },
}

func TestRefusals(t *testing.T) {
	w, k := newWorld(t), passkeytest.New(t, passkeytest.ES256)
	c, err := w.add(t, k, nil)
	if err != nil {
		t.Fatal(err)
	}
	long := passkeytest.New(t, passkeytest.ES256)
	long.ID = bytes.Repeat([]byte("x"), 1024)
	making := map[string]func(*passkeytest.Ceremony){
		"the other ceremony": func(c *passkeytest.Ceremony) { c.Type = "webauthn.get" },
		"no key":             func(c *passkeytest.Ceremony) { c.PublicKey = nil },
		"another algorithm":  func(c *passkeytest.Ceremony) { c.PublicKey = []byte{0xa2, 0x01, 0x02, 0x03, 0x38, 0x22} }, // ES384
		"a huge key": func(c *passkeytest.Ceremony) { // RS256
			c.PublicKey = append([]byte{0xa4, 0x01, 0x03, 0x03, 0x39, 0x01, 0x00, 0x20, 0x59, 0x08, 0x00}, bytes.Repeat([]byte{0xff}, 2048)...)
			c.PublicKey = append(c.PublicKey, 0x21, 0x43, 0x01, 0x00, 0x01)
		},
		"deep CBOR": func(c *passkeytest.Ceremony) { c.PublicKey = bytes.Repeat([]byte{0x81}, 4000) },
		"CBOR without end": func(c *passkeytest.Ceremony) {
			c.PublicKey = []byte{0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		},
		"an unknown attestation": func(c *passkeytest.Ceremony) { c.Format = "mine" },
		"an empty attestation":   func(c *passkeytest.Ceremony) { c.Format = "tpm" },
	}
	getting := map[string]func(*passkeytest.Ceremony){
		"the other ceremony":    func(c *passkeytest.Ceremony) { c.Type = "webauthn.create" },
		"another user":          func(c *passkeytest.Ceremony) { c.Handle = []byte("ID0000000002") },
		"no user":               func(c *passkeytest.Ceremony) { c.Handle = nil },
		"another passkey":       func(c *passkeytest.Ceremony) { c.ID = bytes.Repeat([]byte("y"), 32) },
		"a wrong signature":     func(c *passkeytest.Ceremony) { c.Forge = func(s []byte) []byte { s[len(s)-1] ^= 1; return s } },
		"no signature":          func(c *passkeytest.Ceremony) { c.Forge = func([]byte) []byte { return nil } },
		"what may now leave it": func(c *passkeytest.Ceremony) { c.Flags |= passkeytest.BackupEligible },
	}
	for name, spoil := range spoils {
		making[name], getting[name] = spoil, spoil
	}
	for name, spoil := range making {
		if made, err := w.add(t, passkeytest.New(t, passkeytest.ES256), spoil); !errors.Is(err, passkey.ErrInvalid) {
			t.Errorf("making, %s: %+v, %v, want ErrInvalid", name, made, err)
		}
	}
	if made, err := w.add(t, long, nil); !errors.Is(err, passkey.ErrInvalid) {
		t.Errorf("an id of 1024 bytes: %+v, %v, want ErrInvalid", made, err)
	}
	for name, spoil := range getting {
		if used, err := w.use(t, k, c, spoil); !errors.Is(err, passkey.ErrInvalid) {
			t.Errorf("signing in, %s: %+v, %v, want ErrInvalid", name, used, err)
		}
	}
	if _, err := w.use(t, k, c, nil); err != nil { // none of them did any harm
		t.Error(err)
	}
	// Somebody else's key under the same id.
	thief := passkeytest.New(t, passkeytest.ES256)
	thief.ID, thief.Handle = k.ID, k.Handle
	if used, err := w.use(t, thief, c, nil); !errors.Is(err, passkey.ErrInvalid) {
		t.Errorf("another key: %+v, %v, want ErrInvalid", used, err)
	}
}

func TestCounter(t *testing.T) {
	w, k := newWorld(t), passkeytest.New(t, passkeytest.Ed25519)
	k.Count = 10
	c, err := w.add(t, k, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, count := range []uint32{9, 10, 0} {
		if used, err := w.use(t, k, c, func(c *passkeytest.Ceremony) { c.Count = count }); !errors.Is(err, passkey.ErrCounter) {
			t.Errorf("count %d after 10: %+v, %v, want ErrCounter", count, used, err)
		}
	}
	if used, err := w.use(t, k, c, func(c *passkeytest.Ceremony) { c.Count = 1<<32 - 1 }); err != nil || used.SignCount != 1<<32-1 {
		t.Errorf("the highest count: %+v, %v", used, err)
	}
	// A wrong signature tells nothing about copies.
	if _, err := w.use(t, k, c, func(c *passkeytest.Ceremony) {
		c.Count, c.Forge = 1, func(s []byte) []byte { s[0] ^= 1; return s }
	}); !errors.Is(err, passkey.ErrInvalid) {
		t.Errorf("a forged count: %v", err)
	}
}

func TestFlows(t *testing.T) {
	w, k := newWorld(t), passkeytest.New(t, passkeytest.ES256)
	c, err := w.add(t, k, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	refuse := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, passkey.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", what, err)
		}
	}
	begin := func() (string, json.RawMessage) {
		t.Helper()
		flow, options, err := w.BeginGet()
		if err != nil {
			t.Fatal(err)
		}
		return flow, raw(t, options)
	}
	beginCreate := func(u passkey.User) (string, json.RawMessage) {
		t.Helper()
		flow, options, err := w.BeginCreate(u)
		if err != nil {
			t.Fatal(err)
		}
		return flow, raw(t, options)
	}
	get := func(flow, credential string) error {
		_, err := w.Get(ctx, flow, credential, finds(c))
		return err
	}

	flow, options := begin()
	sent := k.Get(t, options, nil)
	other, _ := begin()
	refuse("the credential of another flow", get(other, sent))
	if err := get(flow, sent); err != nil {
		t.Error(err)
	}
	refuse("a flow used before", get(flow, sent))
	refuse("a flow used before, anew", get(flow, k.Get(t, options, nil)))

	flow, options = begin()
	w.now = w.now.Add(passkey.FlowLife - time.Millisecond)
	if err := get(flow, k.Get(t, options, nil)); err != nil {
		t.Errorf("the last moment: %v", err)
	}
	flow, options = begin()
	w.now = w.now.Add(passkey.FlowLife)
	refuse("an expired flow", get(flow, k.Get(t, options, nil)))

	flow, options = begin()
	spoiled := []byte(flow)
	spoiled[len(spoiled)-1] ^= 1
	for name, f := range map[string]string{
		"no flow": "", "a changed flow": string(spoiled), "a cut flow": flow[:len(flow)-8], "a long flow": strings.Repeat("x", 1<<20),
	} {
		refuse(name, get(f, k.Get(t, options, nil)))
	}
	if err := get(flow, k.Get(t, options, nil)); err != nil {
		t.Errorf("none of those used it up: %v", err)
	}

	flow, options = beginCreate(ann)
	refuse("a flow of the other ceremony", get(flow, k.Get(t, options, nil)))
	fresh := passkeytest.New(t, passkeytest.ES256)
	made := fresh.Make(t, options, nil)
	bob, later := ann, ann
	bob.Handle, later.Epoch = "ID0000000002", 4
	for name, who := range map[string]passkey.User{"another user": bob, "a later epoch": later} {
		_, err = w.Create(ctx, who, flow, made)
		refuse(name, err)
	}
	signIn, _ := begin()
	_, err = w.Create(ctx, ann, signIn, made)
	refuse("a flow of a sign-in", err)
	if _, err := w.Create(ctx, ann, flow, made); err != nil {
		t.Errorf("those did not use it up: %v", err)
	}
	_, err = w.Create(ctx, ann, flow, made)
	refuse("a flow used before", err)

	// Of parallel uses one wins.
	flow, options = begin()
	sent = k.Get(t, options, nil)
	errs := make([]error, 8)
	var group sync.WaitGroup
	for i := range errs {
		group.Go(func() { _, errs[i] = w.Get(ctx, flow, sent, finds(c)) })
	}
	group.Wait()
	if n := len(slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, passkey.ErrInvalid) })); n != 1 {
		t.Errorf("%d of 8 uses of one flow passed", n)
	}
	outage := errors.New("down")
	flow, options = begin()
	if _, err := w.Get(ctx, flow, k.Get(t, options, nil), func(context.Context, string) (string, *passkey.Credential, error) {
		return "", nil, outage
	}); !errors.Is(err, outage) || errors.Is(err, passkey.ErrInvalid) {
		t.Errorf("an outage: %v", err)
	}
}

func TestOf(t *testing.T) {
	for domain, want := range map[string][2]string{
		"openware.com":             {"openware.com", "https://openware.com"},
		"http://localhost:3000/":   {"localhost", "http://localhost:3000"},
		"https://App.Example.com.": {"app.example.com", "https://app.example.com"},
		"example.com:8443/a?b#c":   {"example.com", "https://example.com:8443"},
		"münchen.example":          {"xn--mnchen-3ya.example", "https://xn--mnchen-3ya.example"},
		"192.0.2.7":                {"192.0.2.7", "https://192.0.2.7"},
	} {
		if id, origin := passkey.Of(domain); id != want[0] || origin != want[1] {
			t.Errorf("%s: %s, %s, want %s", domain, id, origin, want)
		}
	}
}

func TestParties(t *testing.T) {
	box, err := secret.New(secret.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id      string
		origins []string
		ok      bool
		foreign int
	}{
		{"example.com", []string{"https://example.com", "https://a.example.com:8443"}, true, 0},
		{"example.com", []string{"https://example.org", "https://notexample.com"}, true, 2},
		{"localhost", []string{"http://localhost:3000"}, true, 0},
		{"example.com", []string{"https://example.com", "android:apk-key-hash:" + strings.Repeat("A", 43)}, true, 0},
		{"192.0.2.7", []string{"https://192.0.2.7"}, false, 0},
		{"2001:db8::1", []string{"https://example.com"}, false, 0},
		{"", []string{"https://example.com"}, false, 0},
		{"example.com", nil, false, 0},
	} {
		p, err := passkey.New(passkey.Options{ID: c.id, Origins: c.origins, Name: "B", Sealer: box, Now: time.Now})
		if (err == nil) != c.ok || c.ok && len(p.Foreign()) != c.foreign {
			t.Errorf("%q %q: %v", c.id, c.origins, err)
		}
	}
	app := "android:apk-key-hash:" + strings.Repeat("A", 43)
	w, k := newWorld(t, func(o *passkey.Options) { o.Origins = append(o.Origins, app) }), passkeytest.New(t, passkeytest.ES256)
	c, err := w.add(t, k, func(c *passkeytest.Ceremony) { c.Origin = app })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.use(t, k, c, nil); err != nil { // a page of the same service
		t.Error(err)
	}
}

// FuzzCredentials holds that no credential, whatever it says, does more than be refused.
func FuzzCredentials(f *testing.F) {
	w, k := newWorld(f), passkeytest.New(f, passkeytest.ES256)
	flow, options, err := w.BeginCreate(ann)
	if err != nil {
		f.Fatal(err)
	}
	_ = flow
	f.Add(k.Make(f, raw(f, options), nil))
	f.Add(k.Get(f, raw(f, options), nil))
	f.Add(`{"id":"AA","rawId":"AA","type":"public-key","response":{"clientDataJSON":"e30","attestationObject":"oA"}}`)
	f.Fuzz(func(t *testing.T, credential string) {
		flow, _, err := w.BeginCreate(ann)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := w.Create(t.Context(), ann, flow, credential); !errors.Is(err, passkey.ErrInvalid) {
			t.Errorf("made %+v, %v", c, err)
		}
		flow, _, err = w.BeginGet()
		if err != nil {
			t.Fatal(err)
		}
		stored := &passkey.Credential{ID: base64.RawURLEncoding.EncodeToString(k.ID), PublicKey: "oA"}
		if u, err := w.Get(t.Context(), flow, credential, finds(stored)); !errors.Is(err, passkey.ErrInvalid) {
			t.Errorf("used %+v, %v", u, err)
		}
	})
}
