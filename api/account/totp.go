package account

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"image/png"
	"net/url"
	"strconv"
	"strings"
	"time"

	"barong/db"
	"barong/internal/fault"
	"barong/internal/limit"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"
)

// ErrWrongCode says that a code is not the user's second factor now. Each module has its own code for it.
var ErrWrongCode = errors.New("account: wrong second-factor code")

// Parameters of the second factor (RFC 6238), those that every authenticator app takes.
const (
	totpPeriod = 30 // seconds
	totpDigits = otp.DigitsSix
	qrPixels   = 300
)

// A TOTP is a new second factor, to be shown once.
type TOTP struct {
	Secret  string // base32
	URL     string // otpauth://…
	Barcode string // the URL as a QR code: PNG in base64
}

// NewTOTP draws a second factor for a user. It does nothing until StoreTOTP keeps it.
func (s *Service) NewTOTP(user *db.User) (*TOTP, error) {
	key, err := totp.Generate(totp.GenerateOpts{
		Issuer: s.AppName, AccountName: user.Email, Period: totpPeriod, SecretSize: 20, Digits: totpDigits,
		Algorithm: otp.AlgorithmSHA1, Rand: rand.Reader,
	})
	if err != nil {
		return nil, fmt.Errorf("second factor: %w", err)
	}
	key, err = otp.NewKeyFromURL(s.otpauth(user.Email, key.Secret()))
	if err != nil {
		return nil, fmt.Errorf("second factor: %w", err)
	}
	picture, err := key.Image(qrPixels, qrPixels)
	if err != nil {
		return nil, fmt.Errorf("second factor: %w", err)
	}
	var b bytes.Buffer
	if err := png.Encode(&b, picture); err != nil {
		return nil, fmt.Errorf("second factor: %w", err)
	}
	return &TOTP{Secret: key.Secret(), URL: key.URL(), Barcode: base64.StdEncoding.EncodeToString(b.Bytes())}, nil
}

// otpauth is the URL of a second factor. Apps cut a name at a character that is not escaped, or show the escape of a space
// as a plus, so that only what is unreserved (RFC 3986, section 2.3) stands for itself.
func (s *Service) otpauth(account, secret string) string {
	escape := func(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }
	issuer := escape(s.AppName)
	return fmt.Sprintf("otpauth://totp/%s:%s?algorithm=SHA1&digits=%s&issuer=%s&period=%d&secret=%s",
		issuer, escape(account), totpDigits, issuer, totpPeriod, secret)
}

// StoreTOTP keeps a second factor in place of any older one. It counts once SetOTP has switched it on; while one is on,
// it cannot be replaced: resource.otp.already_enabled.
func (u *Unit) StoreTOTP(ctx context.Context, user *db.User, t *TOTP) error {
	if err := u.Lock(ctx, user); err != nil {
		return err
	}
	if user.OTP {
		return fault.New("resource.otp.already_enabled")
	}
	return u.PutTOTPKey(ctx, user.ID, t.Secret)
}

// provenTOTP refuses a secret of which no code was ever accepted: the user may not have it in their app.
func (u *Unit) provenTOTP(ctx context.Context, user *db.User) error {
	key, err := u.TOTPKey(ctx, user.ID)
	if errors.Is(err, db.ErrNotFound) || err == nil && key.LastStep == 0 {
		return ErrWrongCode
	}
	return err
}

// VerifyTOTP uses up a code of the user's second factor, pending or on. The error is ErrWrongCode; totp.error for a code
// that was used already, in parallel or before (RFC 6238, section 5.2); or request.rate_limited after too many wrong ones.
// A text that cannot be a code is wrong and no guess: it is not counted.
func (s *Service) VerifyTOTP(ctx context.Context, user *db.User, code string) error {
	return s.verifyCode(ctx, user, code, false)
}

// VerifySignInCode is VerifyTOTP that takes a recovery code as well, which it uses up.
func (s *Service) VerifySignInCode(ctx context.Context, user *db.User, code string) error {
	return s.verifyCode(ctx, user, code, true)
}

func (s *Service) verifyCode(ctx context.Context, user *db.User, code string, recovery bool) error {
	use := s.useTOTP
	switch {
	case consistsOf(code, totpDigits.Length(), "0123456789"):
	case recovery && consistsOf(strings.ToLower(code), recoveryCodeLength, recoveryAlphabet):
		use = s.useRecoveryCode
	default:
		return ErrWrongCode
	}
	// Counted before the code is looked at, so that parallel guesses cannot pass the limit together.
	if err := s.limited(limit.WrongTOTP.Take(ctx, s.Limits, user.UID)); err != nil {
		return err
	}
	if err := use(ctx, user, code); err != nil {
		return err
	}
	return limit.WrongTOTP.Reset(ctx, s.Limits, user.UID)
}

// consistsOf reports whether a text has so many characters, all of an alphabet of ASCII.
func consistsOf(text string, n int, alphabet string) bool {
	return len(text) == n && strings.Trim(text, alphabet) == ""
}

func (s *Service) useTOTP(ctx context.Context, user *db.User, code string) error {
	right, fresh, missing := false, false, false
	err := s.DB.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		right, fresh, missing = false, false, false
		// Whoever replaces the secret waits for the lock: the code of one must not be noted as that of another.
		if _, err := tx.LockUser(ctx, user.ID); err != nil {
			return err
		}
		key, err := tx.TOTPKey(ctx, user.ID)
		if missing = errors.Is(err, db.ErrNotFound); missing {
			return nil
		}
		if err != nil {
			return err
		}
		var step int64
		if step, right = matchingStep(key.Secret, code, s.Now()); !right {
			return nil
		}
		fresh, err = tx.UseTOTPStep(ctx, user.ID, step)
		return err
	})
	if err == nil && missing && user.OTP && s.OldFactor != nil {
		if right, err = s.OldFactor(ctx, user.UID, code); err != nil {
			return outage(err)
		}
		fresh = right // whoever judges it remembers it
	}
	switch {
	case err != nil:
		return unreadable(err)
	case !right:
		return ErrWrongCode
	case !fresh:
		return fault.New(fault.TOTP)
	}
	return nil
}

// unreadable is totp.error for a second factor that cannot be looked at; an outage stays one.
func unreadable(err error) error {
	if f := (*fault.Error)(nil); errors.As(err, &f) {
		return err
	}
	return fault.New(fault.TOTP).Because(err)
}

// matchingStep finds the time step, of the current one and its neighbours, whose code this is.
func matchingStep(secret, code string, now time.Time) (step int64, ok bool) {
	current := now.Unix() / totpPeriod
	for _, s := range []int64{current, current - 1, current + 1} {
		// An error means a code of another length: not this one.
		right, err := totp.ValidateCustom(code, secret, time.Unix(s*totpPeriod, 0), totp.ValidateOpts{
			Period: totpPeriod, Skew: 0, Digits: totpDigits, Algorithm: otp.AlgorithmSHA1,
		})
		if err == nil && right && !ok {
			step, ok = s, true
		}
	}
	return step, ok
}

// Recovery codes: ten of 80 random bits each, in groups that are easy to copy by hand.
const (
	recoveryCodes      = 10
	recoveryCodeBytes  = 10
	recoveryCodeLength = recoveryCodeBytes * 8 / 5
	recoveryAlphabet   = "abcdefghijklmnopqrstuvwxyz234567" // of base32, as we write it
)

// NewRecoveryCodes replaces the user's recovery codes and returns the new ones, which are kept as digests only: they can
// be shown just this once. Each signs in once in place of a code of the second factor.
func (u *Unit) NewRecoveryCodes(ctx context.Context, user *db.User) ([]string, error) {
	codes, digests := make([]string, recoveryCodes), make([]string, recoveryCodes)
	for i := range codes {
		b := make([]byte, recoveryCodeBytes)
		rand.Read(b) // never fails since Go 1.24
		plain := strings.ToLower(base32.StdEncoding.EncodeToString(b))
		codes[i] = plain[0:4] + "-" + plain[4:8] + "-" + plain[8:12] + "-" + plain[12:16]
		digests[i] = recoveryDigest(user.ID, plain)
	}
	return codes, u.PutRecoveryCodes(ctx, user.ID, digests)
}

// recoveryDigest needs no slow hash: 80 random bits cannot be guessed from it.
func recoveryDigest(userID int64, plain string) string {
	sum := sha256.Sum256([]byte("recovery:" + strconv.FormatInt(userID, 10) + ":" + plain))
	return hex.EncodeToString(sum[:])
}

func (s *Service) useRecoveryCode(ctx context.Context, user *db.User, code string) error {
	plain := strings.ToLower(code)
	used := false
	err := s.DB.Update(ctx, func(ctx context.Context, tx *db.Tx) (err error) {
		used, err = tx.UseRecoveryCode(ctx, user.ID, recoveryDigest(user.ID, plain))
		return err
	})
	if err != nil {
		return unreadable(err)
	}
	if !used {
		return ErrWrongCode
	}
	return nil
}
