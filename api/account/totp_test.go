package account_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"image/png"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/api/account"
	"barong/db"
	"barong/internal/fault"
	"barong/internal/limit"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"
)

func (b *bench) totp(u *db.User) *account.TOTP {
	b.t.Helper()
	secondFactor, err := b.NewTOTP(u)
	must(b.t, err)
	must(b.t, b.try(func(ctx context.Context, w *account.Unit) error { return w.StoreTOTP(ctx, u, secondFactor) }))
	return secondFactor
}

func (b *bench) code(s *account.TOTP, after time.Duration) string {
	b.t.Helper()
	code, err := totp.GenerateCode(s.Secret, b.clock().Add(after))
	must(b.t, err)
	return code
}

func TestNewTOTP(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u := b.user("anna@example.com")
		s := b.totp(u)
		if want := "otpauth://totp/Barong:anna%40example.com?algorithm=SHA1&digits=6&issuer=Barong&period=30&secret=" + s.Secret; s.URL != want {
			t.Errorf("URL: got %s, want %s", s.URL, want)
		}
		if _, err := url.Parse(s.URL); err != nil || len(s.Secret) != 32 {
			t.Errorf("secret of %d characters, %v", len(s.Secret), err)
		}
		app := b.AppName
		b.AppName = "My Exchange & Co: 100% / é+?#"
		odd := b.totp(b.user("o'b+é@example.com"))
		b.AppName = app
		want := "otpauth://totp/My%20Exchange%20%26%20Co%3A%20100%25%20%2F%20%C3%A9%2B%3F%23:o%27b%2B%C3%A9%40example.com" +
			"?algorithm=SHA1&digits=6&issuer=My%20Exchange%20%26%20Co%3A%20100%25%20%2F%20%C3%A9%2B%3F%23&period=30&secret=" + odd.Secret
		if odd.URL != want {
			t.Errorf("URL: got %s, want %s", odd.URL, want)
		}
		if key, err := otp.NewKeyFromURL(odd.URL); err != nil || key.Issuer() != "My Exchange & Co: 100% / é+?#" {
			t.Errorf("an app reads %s, %v", key, err)
		}
		picture, err := base64.StdEncoding.DecodeString(s.Barcode)
		must(t, err)
		image, err := png.Decode(bytes.NewReader(picture))
		must(t, err)
		if size := image.Bounds().Size(); size.X != 300 || size.Y != 300 {
			t.Errorf("picture of %v", size)
		}
	})
}

func TestSecondFactorLife(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u := b.user("anna@example.com")
		on := func(ctx context.Context, w *account.Unit) error { return w.SetOTP(ctx, u, true, nil) }
		if err := b.try(on); !errors.Is(err, account.ErrWrongCode) {
			t.Errorf("switched on without a secret: %v", err)
		}
		if err := b.VerifyTOTP(t.Context(), u, "123456"); !errors.Is(err, account.ErrWrongCode) {
			t.Errorf("a code without a secret: %v", err)
		}
		s := b.totp(u)
		if err := b.try(on); !errors.Is(err, account.ErrWrongCode) {
			t.Errorf("switched on without a code: %v", err)
		}
		setup := b.code(s, 0)
		must(t, b.VerifyTOTP(t.Context(), u, setup))
		mine, other := b.open(u), b.open(u)
		same(t, "on", told(b.do(func(ctx context.Context, w *account.Unit) error { return w.SetOTP(ctx, u, true, mine) })),
			[]string{`model.user.updated {"otp":false}`, "model.label.created"})
		if !b.live(mine) || b.live(other) {
			t.Errorf("sessions after switching on: mine %v, other %v", b.live(mine), b.live(other))
		}
		same(t, "the code that set it up signs in", codes(b.VerifySignInCode(t.Context(), u, setup)), []fault.Code{fault.TOTP})
		replaced, err := b.NewTOTP(u)
		must(t, err)
		same(t, "another secret while on", codes(b.try(func(ctx context.Context, w *account.Unit) error {
			return w.StoreTOTP(ctx, u, replaced)
		})), []fault.Code{"resource.otp.already_enabled"})
		b.advance(30 * time.Second)
		must(t, b.VerifySignInCode(t.Context(), u, b.code(s, 30*time.Second)))
		same(t, "a step before the last used", codes(b.VerifyTOTP(t.Context(), u, b.code(s, 0))), []fault.Code{fault.TOTP})
		for _, wrong := range []time.Duration{-60 * time.Second, 60 * time.Second} {
			if err := b.VerifyTOTP(t.Context(), u, b.code(s, wrong)); !errors.Is(err, account.ErrWrongCode) {
				t.Errorf("a code %v away: %v", wrong, err)
			}
		}
		b.key(u, "k1")
		same(t, "off", told(b.do(func(ctx context.Context, w *account.Unit) error { return w.SetOTP(ctx, u, false, mine) })),
			[]string{`model.user.updated {"otp":true}`})
		if b.keyActive(u, "k1") {
			t.Error("an API key is active without a second factor")
		}
		if _, err := b.DB.TOTPKey(t.Context(), u.ID); !errors.Is(err, db.ErrNotFound) {
			t.Errorf("the secret stayed: %v", err)
		}
		if _, err := b.DB.Label(t.Context(), u.ID, "otp", "private"); !errors.Is(err, db.ErrNotFound) {
			t.Errorf("the label stayed: %v", err)
		}
	})
}

// TestCodeWorksOnce uses one code many times at once, against RFC 6238, section 5.2.
func TestCodeWorksOnce(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u := b.user("anna@example.com")
		s := b.totp(u)
		for range 5 {
			code := b.code(s, 0)
			var mu sync.Mutex
			accepted := 0
			var wg sync.WaitGroup
			for range 5 {
				wg.Go(func() {
					err := b.VerifyTOTP(t.Context(), u, code)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil:
						accepted++
					case !fault.As(err).Has(fault.TOTP):
						t.Errorf("got %v", err)
					}
				})
			}
			wg.Wait()
			if accepted != 1 {
				t.Fatalf("one code was accepted %d times", accepted)
			}
			must(t, limit.WrongTOTP.Reset(t.Context(), b.Limits, u.UID))
			b.advance(30 * time.Second)
		}
	})
}

func TestWrongCodesLock(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u := b.user("anna@example.com")
		s := b.totp(u)
		// What cannot be a code is no guess.
		for range 3 {
			for _, text := range []string{"", "x", "00000", "0000000", "00000x", "０００００", "0000 00", "abcdefghijklmnop", "abcd-efgh-ijkl-mnop"} {
				if err := b.VerifyTOTP(t.Context(), u, text); !errors.Is(err, account.ErrWrongCode) {
					t.Fatalf("%q: got %v", text, err)
				}
			}
			for _, text := range []string{"abcdefghijklmno1", "abcdefghijklmno", "abcdefghijklmnopq"} {
				if err := b.VerifySignInCode(t.Context(), u, text); !errors.Is(err, account.ErrWrongCode) {
					t.Fatalf("%q: got %v", text, err)
				}
			}
		}
		for range 3 {
			if err := b.VerifyTOTP(t.Context(), u, "000000"); !errors.Is(err, account.ErrWrongCode) {
				t.Fatalf("got %v", err)
			}
		}
		must(t, b.VerifyTOTP(t.Context(), u, b.code(s, 0)))
		for range 5 {
			if err := b.VerifyTOTP(t.Context(), u, "000000"); !errors.Is(err, account.ErrWrongCode) {
				t.Fatalf("got %v", err)
			}
		}
		b.advance(30 * time.Second)
		err := b.VerifyTOTP(t.Context(), u, b.code(s, 0))
		same(t, "the right code after five wrong ones", codes(err), []fault.Code{fault.TooMany})
		if f := fault.As(err); f.Status != 429 || f.RetryAfter <= 0 {
			t.Errorf("status %d, retry after %v", f.Status, f.RetryAfter)
		}
		b.advance(15 * time.Minute)
		must(t, b.VerifyTOTP(t.Context(), u, b.code(s, 0)))
	})
}

func TestRecoveryCodes(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u, other := b.user("anna@example.com"), b.user("otto@example.com")
		b.totp(u)
		b.totp(other)
		var list, old []string
		draw := func(to *[]string) {
			must(t, b.try(func(ctx context.Context, w *account.Unit) (err error) {
				*to, err = w.NewRecoveryCodes(ctx, u)
				return err
			}))
		}
		draw(&old)
		draw(&list)
		seen := map[string]bool{}
		for i, c := range list {
			seen[c] = true
			list[i], old[i] = strings.ReplaceAll(c, "-", ""), strings.ReplaceAll(old[i], "-", "") // as a parameter comes in
		}
		if len(list) != 10 || len(seen) != 10 {
			t.Fatalf("codes: %v", list)
		}
		wrong := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, account.ErrWrongCode) {
				t.Errorf("%s: got %v", what, err)
			}
		}
		must(t, b.VerifySignInCode(t.Context(), u, list[0]))
		wrong("used", b.VerifySignInCode(t.Context(), u, list[0]))
		must(t, b.VerifySignInCode(t.Context(), u, strings.ToUpper(list[1])))
		wrong("of an older list", b.VerifySignInCode(t.Context(), u, old[2]))
		wrong("of somebody else", b.VerifySignInCode(t.Context(), other, list[2]))
		wrong("where only the second factor counts", b.VerifyTOTP(t.Context(), u, list[2]))
		must(t, b.VerifySignInCode(t.Context(), u, list[2]))
	})
}

// TestCodeProvesItsOwnSecretAlone holds that a secret which somebody else puts in place while a code is looked at is not
// proven by that code: whoever holds a stolen session would else have their own secret switched on by its owner.
func TestCodeProvesItsOwnSecretAlone(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		u := b.user("anna@example.com")
		s := b.totp(u)
		other := *u
		replaced := make(chan error, 1)
		clock := b.Now
		b.Now = sync.OnceValue(func() time.Time { // asked between the secret and the mark that its code was used
			go func() {
				second, err := b.NewTOTP(&other)
				if err == nil {
					err = b.try(func(ctx context.Context, w *account.Unit) error { return w.StoreTOTP(ctx, &other, second) })
				}
				replaced <- err
			}()
			select {
			case err := <-replaced:
				replaced <- err
			case <-time.After(300 * time.Millisecond): // it has to wait, which is as good
			}
			return clock()
		})
		must(t, b.VerifyTOTP(t.Context(), u, b.code(s, 0)))
		b.Now = clock
		must(t, <-replaced)
		err := b.try(func(ctx context.Context, w *account.Unit) error { return w.SetOTP(ctx, u, true, nil) })
		if !errors.Is(err, account.ErrWrongCode) {
			t.Errorf("switched on: %v", err)
		}
	})
}

// TestOldFactor: where an import could not bring a second factor along, whoever still knows it judges the codes, and nobody
// else's.
func TestOldFactor(t *testing.T) {
	engines(t, func(t *testing.T, b *bench) {
		imported, enrolled, without := b.user("anna@example.com"), b.user("bob@example.com"), b.user("carol@example.com")
		imported.OTP, enrolled.OTP = true, true
		b.totp(without) // pending: never switched on
		s := func() *account.TOTP {
			enrolled.OTP = false
			defer func() { enrolled.OTP = true }()
			return b.totp(enrolled)
		}()
		if err := b.VerifyTOTP(t.Context(), imported, "123456"); !errors.Is(err, account.ErrWrongCode) {
			t.Errorf("with nobody to ask: %v", err)
		}
		asked := 0
		var outage error
		b.OldFactor = func(_ context.Context, uid, code string) (bool, error) {
			if asked++; uid != imported.UID {
				t.Errorf("asked about %s", uid)
			}
			return code == "123456", outage
		}
		must(t, b.VerifyTOTP(t.Context(), imported, "123456"))
		if err := b.VerifyTOTP(t.Context(), imported, "654321"); !errors.Is(err, account.ErrWrongCode) {
			t.Errorf("a wrong code: %v", err)
		}
		must(t, b.VerifyTOTP(t.Context(), enrolled, b.code(s, 0)))
		for _, u := range []*db.User{enrolled, without} {
			if err := b.VerifyTOTP(t.Context(), u, "123456"); !errors.Is(err, account.ErrWrongCode) {
				t.Errorf("a code of somebody else's: %v", err)
			}
		}
		if asked != 2 {
			t.Errorf("asked %d times", asked)
		}
		outage = errors.New("away")
		same(t, "while it is away", codes(b.VerifyTOTP(t.Context(), imported, "123456")), []fault.Code{fault.Unavailable})
		outage = nil
		for range 5 {
			_ = b.VerifyTOTP(t.Context(), imported, "654321") // each a guess
		}
		asked = 0
		same(t, "after too many guesses", codes(b.VerifyTOTP(t.Context(), imported, "123456")), []fault.Code{fault.TooMany})
		if asked != 0 {
			t.Error("it was asked in spite of the limit")
		}
	})
}
