// Package sms proves that somebody holds a phone number: it sends codes to numbers, by one of three providers, and makes
// and keeps the codes where the provider does not.
//
// A refusal of the provider's is an answer, so it is called within the request. Every error is a fault, 422, with one of
// the resource.phone codes; the number and the code are in none of them.
package sms

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/url"
	"strings"
	"time"

	"barong/internal/delivery/outbox"
	"barong/internal/fault"
)

// Kinds of provider.
const (
	Mock         = "mock"
	TwilioSMS    = "twilio_sms"
	TwilioVerify = "twilio_verify"
)

// A Provider sends codes. Numbers are international digits without a plus. Safe for concurrent use.
type Provider interface {
	// OwnCodes reports whether the caller makes the codes and verifies them; otherwise Verify does.
	OwnCodes() bool
	// Send sends a code, or with OwnCodes false asks the provider to send one of its own, by "sms" or "call". A provider
	// that knows no calls sends a text all the same.
	Send(ctx context.Context, number, channel, code string) error
	// Verify asks the provider whether this is the code it has sent. It works with OwnCodes false alone.
	Verify(ctx context.Context, number, code string) (bool, error)
}

// Options are what New needs.
type Options struct {
	Kind     string
	Template string       // text of a message; {{code}} stands for the code
	Log      *slog.Logger // default slog.Default()

	Folder string // Mock: where messages are written

	AccountSID, AuthToken string // Twilio's credentials
	From                  string // TwilioSMS: the sender's number
	ServiceSID            string // TwilioVerify: the service; one named AppName is made when it is empty
	AppName               string
	APIURL                string        // replaces scheme and host of Twilio's products
	Timeout               time.Duration // of one call; default 5 s
}

// New returns the provider. For TwilioVerify without a service it makes one, so it may call Twilio.
func New(ctx context.Context, o Options) (Provider, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Kind != TwilioVerify && !strings.Contains(o.Template, placeholder) {
		return nil, fmt.Errorf("sms: the text of the message has no %s", placeholder)
	}
	switch o.Kind {
	case Mock:
		return &mock{o}, nil
	case TwilioSMS, TwilioVerify:
		if o.AccountSID == "" || o.AuthToken == "" {
			return nil, fmt.Errorf("sms: %s needs an account SID and an auth token", o.Kind)
		}
		t := twilio{Options: o}
		if o.APIURL != "" {
			u, err := url.Parse(o.APIURL)
			if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
				return nil, fmt.Errorf("sms: %q is no URL of an API", o.APIURL)
			}
			t.base = u
		}
		if o.Kind == TwilioSMS {
			return &twilioSMS{t}, nil
		}
		if t.ServiceSID == "" {
			sid, err := t.createService(ctx)
			if err != nil {
				return nil, fmt.Errorf("sms: make a Verify service: %w", err)
			}
			o.Log.Info("made a Verify service at Twilio; set its SID to keep it", "service_sid", sid)
			t.ServiceSID = sid
		}
		return &twilioVerify{t}, nil
	}
	return nil, fmt.Errorf("sms: no provider %q: it is %s, %s or %s", o.Kind, Mock, TwilioSMS, TwilioVerify)
}

const placeholder = "{{code}}"

func (o *Options) text(code string) string { return strings.ReplaceAll(o.Template, placeholder, code) }

// mock writes messages as files, for development.
type mock struct{ o Options }

func (m *mock) OwnCodes() bool { return true }

func (m *mock) Send(_ context.Context, number, _, code string) error {
	path, err := outbox.WriteFile(m.o.Folder, ".txt", "To: +"+number+"\n\n"+m.o.text(code)+"\n")
	if err != nil {
		return fault.New(unexpected).Because(err)
	}
	m.o.Log.Info("text message written to a file, for phone verification is mocked", "file", path)
	return nil
}

var errOwnCodes = errors.New("sms: this provider does not verify codes")

func (m *mock) Verify(context.Context, string, string) (bool, error) { return false, errOwnCodes }

// codeLength is the number of digits of a code.
const codeLength = 6

// NewCode draws a code of six digits.
func NewCode() string {
	n, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return fmt.Sprintf("%0*d", codeLength, n)
}

// CanBeCode reports whether a text has the form of a code that p sends. A provider that makes its own may make them of
// four to ten digits.
func CanBeCode(p Provider, code string) bool {
	least, most := codeLength, codeLength
	if !p.OwnCodes() {
		least, most = 4, 10
	}
	return len(code) >= least && len(code) <= most && strings.Trim(code, "0123456789") == ""
}

// An Indexer makes keyed digests: a db.Sealer.
type Indexer interface {
	Index(value, purpose string) string
	Indexes(value, purpose string) []string
}

// purpose is of the keyed digests of codes.
const purpose = "phones.code"

func text(number, code string) string { return number + ":" + code }

// Digest is what to store of a code. It is keyed, since a code has too few digits for an open one to hide it, and bound to
// the number it was sent to.
func Digest(k Indexer, number, code string) string { return k.Index(text(number, code), purpose) }

// Matches reports, in constant time, whether a code is the one of a stored digest, which another replica may have made under
// another key while keys are rotated.
func Matches(k Indexer, digest, number, code string) bool {
	same := 0
	for _, d := range k.Indexes(text(number, code), purpose) {
		same |= subtle.ConstantTimeCompare([]byte(digest), []byte(d))
	}
	return same == 1
}
