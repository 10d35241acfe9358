package sms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"barong/internal/fault"
	"barong/internal/patience"

	"github.com/twilio/twilio-go/client"
	api "github.com/twilio/twilio-go/rest/api/v2010"
	verify "github.com/twilio/twilio-go/rest/verify/v2"
)

// Codes of a message that could not be sent.
const (
	notReachable fault.Code = "resource.phone.num_not_reachable"
	notValid     fault.Code = "resource.phone.num_not_valid"
	badContent   fault.Code = "resource.phone.sms_content_invalid"
	unsubscribed fault.Code = "resource.phone.unsubscribed_recipient"
	unexpected   fault.Code = "resource.phone.twilio_unexpected"
)

// refusals are the errors of Twilio's (https://www.twilio.com/docs/api/errors) that are the caller's business.
var refusals = map[int]fault.Code{21612: notReachable, 21614: notValid, 21618: badContent, 21610: unsubscribed}

// Errors of Verify that mean a wrong code: nothing was sent to that number or it has expired, too many were tried.
const (
	verifyNotFound   = 20404
	verifyMaxChecked = 60202
)

// twilio calls Twilio by its official client.
type twilio struct {
	Options
	base *url.URL // nil: Twilio's own
}

// client returns a client for calls that end with ctx.
func (t *twilio) client(ctx context.Context) *client.RequestHandler {
	c := &client.Client{
		// The client refuses credentials of other characters than letters and digits before it asks anybody; whether they
		// are right is the server's to say, so the transport puts them in.
		Credentials: client.NewCredentials("account", "token"),
		HTTPClient: &http.Client{
			Transport:     &transport{twilio: t, ctx: ctx},
			Timeout:       t.Timeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	c.SetAccountSid(t.AccountSID)
	return client.NewRequestHandler(c)
}

// transport gives the client's requests what the client itself cannot: a context, any credentials, another base address,
// and answers of a bounded size whose connections go back to the pool.
type transport struct {
	*twilio
	ctx context.Context
}

const maxAnswer = 1 << 20

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	// The request's own context carries the client's time-out.
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(t.ctx, func() { cancel(t.ctx.Err()) })()
	r = r.Clone(ctx)
	r.SetBasicAuth(t.AccountSID, t.AuthToken)
	if t.base != nil {
		r.URL.Scheme, r.URL.Host, r.Host = t.base.Scheme, t.base.Host, t.base.Host
		r.URL.Path = strings.TrimRight(t.base.Path, "/") + r.URL.Path
	}
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	answer.Body = io.NopCloser(bytes.NewReader(body))
	return answer, nil
}

// errorCode is the code of an error of Twilio's, 0 when it is none.
func errorCode(err error) int {
	var rest *client.TwilioRestError
	var v1 *client.RestErrorV1
	switch {
	case errors.As(err, &rest):
		return rest.Code
	case errors.As(err, &v1):
		return v1.Code
	}
	return 0
}

// refusal turns an error of a call into a fault. Twilio's own words repeat the number: only their code is kept.
func refusal(err error) error {
	code := errorCode(err)
	if code != 0 {
		err = fmt.Errorf("twilio error %d", code)
	}
	if known, ok := refusals[code]; ok {
		return fault.New(known).Because(err)
	}
	return fault.New(unexpected).Because(err)
}

func ptr(s string) *string { return &s }

// twilioSMS sends codes of ours as text messages.
type twilioSMS struct{ twilio }

func (t *twilioSMS) OwnCodes() bool { return true }

func (t *twilioSMS) Send(ctx context.Context, number, _, code string) error {
	defer patience.Outside(ctx)()
	_, err := api.NewApiService(t.client(ctx)).CreateMessage(&api.CreateMessageParams{
		To: ptr("+" + number), From: ptr(t.From), Body: ptr(t.text(code)),
	})
	if err != nil {
		return refusal(err)
	}
	return nil
}

func (t *twilioSMS) Verify(context.Context, string, string) (bool, error) { return false, errOwnCodes }

// twilioVerify leaves the codes to Twilio Verify.
type twilioVerify struct{ twilio }

func (t *twilioVerify) OwnCodes() bool { return false }

func (t *twilioVerify) Send(ctx context.Context, number, channel, _ string) error {
	defer patience.Outside(ctx)()
	_, err := verify.NewApiService(t.client(ctx)).CreateVerification(t.ServiceSID, &verify.CreateVerificationParams{
		To: ptr("+" + number), Channel: ptr(channel),
	})
	if err != nil {
		return refusal(err)
	}
	return nil
}

func (t *twilioVerify) Verify(ctx context.Context, number, code string) (bool, error) {
	defer patience.Outside(ctx)()
	params := &verify.CreateVerificationCheckParams{To: ptr("+" + number), Code: ptr(code)}
	check, err := verify.NewApiService(t.client(ctx)).CreateVerificationCheck(t.ServiceSID, params)
	switch errorCode(err) {
	case verifyNotFound, verifyMaxChecked:
		return false, nil
	}
	if err != nil {
		return false, refusal(err)
	}
	return check.Status != nil && *check.Status == "approved", nil
}

func (t *twilio) createService(ctx context.Context) (string, error) {
	service, err := verify.NewApiService(t.client(ctx)).CreateService(&verify.CreateServiceParams{FriendlyName: ptr(t.AppName)})
	if err != nil {
		return "", err
	}
	if service.Sid == nil || *service.Sid == "" {
		return "", errors.New("the answer names none")
	}
	return *service.Sid, nil
}
