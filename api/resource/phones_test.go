package resource_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"barong/api/account"
	"barong/api/resource"
	"barong/internal/delivery/sms"
	"barong/internal/limit"
	"barong/internal/test/apitest"
)

const (
	mobile  = "447418084106"
	another = "14155552671"
)

func TestPhones(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b, old := start(t, e), start(t, e, legacy)
		u := b.member(t)
		as := apitest.As(u)
		post := func(path string, o apitest.Option) *apitest.Answer {
			e.Limits.Forget()
			return b.Post(t, "/resource/phones"+path, as, o)
		}
		b.Get(t, "/resource/phones", as).WantBody(t, 200, "[]")
		missing := []string{"resource.phone.missing_phone_number", "resource.phone.empty_phone_number"}
		for _, path := range []string{"", "/send_code"} {
			post(path, apitest.Form()).Want(t, 400, missing...)
			old.Post(t, "/resource/phones"+path, as).Want(t, 422, missing...)
			post(path, apitest.Form("phone_number", " ", "channel", "x")).Want(t, 400, missing[1], "resource.phone.invalid_channel")
			post(path, apitest.JSON(map[string]any{"phone_number": []string{"x"}})).Want(t, 422, "invalid")
			post(path, apitest.JSON(map[string]any{"phone_number": mobile, "channel": []string{"sms"}})).Want(t, 422, "invalid")
			for _, channel := range []string{"pigeon", "", "SMS"} {
				post(path, apitest.Form("phone_number", mobile, "channel", channel)).Want(t, 422, "resource.phone.invalid_channel")
			}
			for _, number := range []string{"123", "abc", "+1", "447418", mobile + "000", "0000000000", strings.Repeat("4", 1000)} {
				post(path, apitest.Form("phone_number", number)).Want(t, 400, "resource.phone.invalid_num")
			}
		}
		post("/verify", apitest.Form()).Want(t, 400, append(missing, "resource.phone.missing_verification_code", "resource.phone.empty_verification_code")...)
		post("/verify", apitest.Form("phone_number", "", "verification_code", "")).Want(t, 400, missing[1], "resource.phone.empty_verification_code")
		post("/verify", apitest.JSON(map[string]any{"phone_number": mobile, "verification_code": []string{"1"}})).Want(t, 422, "invalid")
		post("/verify", apitest.Form("phone_number", "123", "verification_code", "12345")).Want(t, 400, "resource.phone.invalid_num")
		post("/verify", apitest.Form("phone_number", mobile, "verification_code", "12345")).Want(t, 404, "resource.phone.doesnt_exist")
		post("/send_code", apitest.Form("phone_number", mobile)).Want(t, 404, "resource.phone.doesnt_exist")
		if got := b.messages(t); len(got) != 0 {
			t.Errorf("messages %q", got)
		}

		post("", apitest.Form("phone_number", "+44 (0)7418 084106")).WantBody(t, 201, `{"message":"Code was sent successfully via sms"}`)
		first := b.code(t, mobile)
		b.Get(t, "/resource/phones", as).WantBody(t, 200, `[{"country":"GB","number":"`+mobile+`","validated_at":null}]`)
		for _, number := range []string{mobile, "+" + mobile, "00" + mobile} {
			post("", apitest.Form("phone_number", number)).Want(t, 400, "resource.phone.exists")
		}
		post("/verify", apitest.Form("phone_number", mobile, "verification_code", other(first))).Want(t, 404, "resource.phone.verification_invalid")
		post("/send_code", apitest.Form("phone_number", mobile, "channel", "call")).WantBody(t, 201, `{"message":"Code was sent successfully via call"}`)
		code := b.code(t, mobile)
		if code == first {
			t.Log("the same code was drawn twice, once in a million")
		} else {
			post("/verify", apitest.Form("phone_number", mobile, "verification_code", first)).Want(t, 404, "resource.phone.verification_invalid")
		}
		b.wantEvents(t)
		b.wantActivities(t, u)
		for range limit.WrongSMSCodes { // what cannot be a code is no guess
			post("/verify", apitest.Form("phone_number", mobile, "verification_code", code+"0")).Want(t, 404, "resource.phone.verification_invalid")
			post("/verify", apitest.Form("phone_number", mobile, "verification_code", "code")).Want(t, 404, "resource.phone.verification_invalid")
		}
		number, err := strconv.Atoi(code) // without the zeros that it begins with
		if err != nil {
			t.Fatal(err)
		}
		a := post("/verify", apitest.JSON(map[string]any{"phone_number": mobile, "verification_code": number})).Want(t, 201)
		if got := a.Object(t); got["uid"] != u.UID || got["level"] != float64(2) || got["csrf_token"] != nil || len(got["phones"].([]any)) != 1 {
			t.Errorf("verified %v", got)
		}
		b.wantLabels(t, u, "private email:verified", "private phone:verified")
		b.wantUser(t, u, 2, "active", false)
		b.wantEvents(t, "model.user.updated", "model.label.created")
		b.wantActivities(t, u, "phone / verify / succeed")
		if got := b.Get(t, "/resource/phones", as).List(t)[0]["validated_at"]; len(fmt.Sprint(got)) != len("2006-01-02T15:04:05.000Z") {
			t.Errorf("validated_at %v", got)
		}

		// Verified is verified, for everybody.
		stranger := b.member(t)
		for _, path := range []string{"", "/send_code", "/verify"} {
			for _, who := range []apitest.Option{as, apitest.As(stranger)} {
				e.Limits.Forget()
				b.Post(t, "/resource/phones"+path, who, apitest.Form("phone_number", mobile, "verification_code", code)).
					Want(t, 400, "resource.phone.number_exist")
			}
		}

		// What staff has said of an earlier phone is replaced.
		b.label(t, stranger, "phone", "rejected", account.Private)
		b.Post(t, "/resource/phones", apitest.As(stranger), apitest.Form("phone_number", another)).Want(t, 201)
		b.Post(t, "/resource/phones/verify", apitest.As(stranger), apitest.Form("phone_number", another, "verification_code", b.code(t, another))).Want(t, 201)
		b.wantLabels(t, stranger, "private email:verified", "private phone:verified")
	})
}

// TestPhoneCodes holds how long a code lives, and how often it can be guessed at.
func TestPhoneCodes(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		u := b.member(t)
		send := func() string {
			t.Helper()
			e.Limits.Forget()
			b.Post(t, "/resource/phones/send_code", apitest.As(u), apitest.Form("phone_number", mobile)).Want(t, 201)
			return b.code(t, mobile)
		}
		verify := func(code string) *apitest.Answer {
			return b.Post(t, "/resource/phones/verify", apitest.As(u), apitest.Form("phone_number", mobile, "verification_code", code))
		}
		b.Post(t, "/resource/phones", apitest.As(u), apitest.Form("phone_number", mobile)).Want(t, 201)
		code := b.code(t, mobile)
		for range 5 {
			verify(other(code)).Want(t, 404, "resource.phone.verification_invalid")
		}
		for range 2 { // five wrong ones are enough
			if a := verify(code).Want(t, 429, "request.rate_limited"); a.Header.Get("Retry-After") == "" {
				t.Error("429 without Retry-After")
			}
		}
		start(t, e, func(o *resource.Options) { o.Phones.Unlimited = true }).
			Post(t, "/resource/phones/verify", apitest.As(u), apitest.Form("phone_number", mobile, "verification_code", other(code))).Want(t, 404, "resource.phone.verification_invalid")
		code = send()
		e.Clock.Advance(10*time.Minute + time.Second)
		verify(code).Want(t, 404, "resource.phone.verification_invalid")

		// Guesses at once do not pass the limit together.
		code = send()
		token := e.Token(t, u)
		wantCount(t, atOnce(8, func(i int) int {
			return b.call(t, "POST", "/resource/phones/verify", form, token, []byte(fmt.Sprintf("phone_number=%s&verification_code=%s%d", mobile, other(code)[:5], i)))
		}), map[int]int{404: 5, 429: 3})
		verify(code).Want(t, 429, "request.rate_limited")

		// Two people who both have the phone in their hands: the first one keeps it.
		code = send()
		two := b.member(t)
		b.Post(t, "/resource/phones", apitest.As(two), apitest.Form("phone_number", mobile)).Want(t, 201)
		codes, tokens := []string{code, b.code(t, mobile)}, []string{e.Token(t, u), e.Token(t, two)}
		wantCount(t, atOnce(2, func(i int) int {
			return b.call(t, "POST", "/resource/phones/verify", form, tokens[i], []byte("phone_number="+mobile+"&verification_code="+codes[i]))
		}), map[int]int{201: 1, 400: 1})
		verified := 0
		for _, who := range []string{strings.Join(b.labels(t, u), " "), strings.Join(b.labels(t, two), " ")} {
			if strings.Contains(who, "phone:verified") {
				verified++
			}
		}
		if verified != 1 {
			t.Errorf("%d people have verified the number", verified)
		}

		// One code verifies once, and a phone that is verified stays so, whatever comes at the same time.
		three := b.member(t)
		b.Post(t, "/resource/phones", apitest.As(three), apitest.Form("phone_number", another)).Want(t, 201)
		code, token = b.code(t, another), e.Token(t, three)
		atOnce(6, func(i int) int {
			if i%2 == 0 {
				return b.call(t, "POST", "/resource/phones/verify", form, token, []byte("phone_number="+another+"&verification_code="+code))
			}
			return b.call(t, "POST", "/resource/phones/send_code", form, token, []byte("phone_number="+another))
		})
		p, err := e.DB.Phone(t.Context(), three.ID, another)
		if err != nil || (p.ValidatedAt != nil) != strings.Contains(strings.Join(b.labels(t, three), " "), "phone:verified") {
			t.Errorf("phone %+v with labels %q, %v", p, b.labels(t, three), err)
		}
	})
}

// TestPhoneLimits holds how many messages a user can have sent.
func TestPhoneLimits(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	b := start(t, e)
	u, owner := b.member(t), b.member(t)
	b.Post(t, "/resource/phones", apitest.As(owner), apitest.Form("phone_number", another)).Want(t, 201)
	b.Post(t, "/resource/phones/verify", apitest.As(owner), apitest.Form("phone_number", another, "verification_code", b.code(t, another))).Want(t, 201)

	b.Post(t, "/resource/phones", apitest.As(u), apitest.Form("phone_number", mobile)).Want(t, 201)
	resend := func() *apitest.Answer {
		return b.Post(t, "/resource/phones/send_code", apitest.As(u), apitest.Form("phone_number", mobile))
	}
	for range 3 {
		resend().Want(t, 201)
	}
	if wait := resend().Want(t, 429, "request.rate_limited").Header.Get("Retry-After"); wait == "" || wait == "0" {
		t.Errorf("Retry-After %q", wait)
	}
	b.Post(t, "/resource/phones", apitest.As(u), apitest.Form("phone_number", "447418084107")).Want(t, 429, "request.rate_limited")
	if got := b.Get(t, "/resource/phones", apitest.As(u)).List(t); len(got) != 1 {
		t.Errorf("a refused call left %v", got)
	}
	sent := 4
	for range 6 {
		e.Clock.Advance(3 * time.Minute)
		for resend().Status == 201 {
			sent++
		}
	}
	if sent != 20 {
		t.Errorf("%d messages in a day", sent)
	}
	// Asking who has verified a number counts too.
	for _, path := range []string{"", "/send_code", "/verify"} {
		b.Post(t, "/resource/phones"+path, apitest.As(u), apitest.Form("phone_number", another, "verification_code", "1")).
			Want(t, 429, "request.rate_limited")
	}
	e.Clock.Advance(24 * time.Hour)
	resend().Want(t, 201)
}

func TestPhoneVendor(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{sms.TwilioSMS, sms.TwilioVerify} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			e := apitest.New(t, "sqlite")
			tw := newTwilio(t)
			b := start(t, e, tw.through(t, kind))
			u := b.member(t)
			post := func(path string, pairs ...string) *apitest.Answer {
				e.Limits.Forget()
				return b.Post(t, "/resource/phones"+path, apitest.As(u), apitest.Form(append(pairs, "phone_number", mobile)...))
			}
			refusals := map[int]string{
				21612: "resource.phone.num_not_reachable", 21614: "resource.phone.num_not_valid", 21618: "resource.phone.sms_content_invalid",
				21610: "resource.phone.unsubscribed_recipient", 20003: "resource.phone.twilio_unexpected",
			}
			// A phone that no message reached is there, and can be added again.
			for code, want := range refusals {
				tw.refusing(mobile, code)
				post("").Want(t, 422, want)
				if got := b.Get(t, "/resource/phones", apitest.As(u)).List(t); len(got) != 1 {
					t.Errorf("phones %v", got)
				}
				post("/verify", "verification_code", "424242").Want(t, 404, "resource.phone.verification_invalid")
				post("/send_code").Want(t, 422, want)
			}
			tw.refusing(mobile, 0)
			post("", "channel", "call").WantBody(t, 201, `{"message":"Code was sent successfully via call"}`)
			post("").Want(t, 400, "resource.phone.exists")
			sent, code := tw.last(t), "424242"
			switch kind {
			case sms.TwilioSMS:
				code = sixDigits.FindString(sent["Body"])
				if sent["path"] != "/2010-04-01/Accounts/AC42/Messages.json" || sent["To"] != "+"+mobile || sent["Body"] != "Code: "+code || code == "" {
					t.Errorf("sent %v", sent)
				}
			default:
				if sent["path"] != "/v2/Services/VA1/Verifications" || sent["To"] != "+"+mobile || sent["Channel"] != "call" {
					t.Errorf("sent %v", sent)
				}
			}
			post("/verify", "verification_code", other(code)).Want(t, 404, "resource.phone.verification_invalid")
			if kind == sms.TwilioVerify {
				for vendor, want := range refusals {
					post("/send_code").Want(t, 201)
					tw.refusing(mobile, vendor)
					post("/verify", "verification_code", code).Want(t, 422, want)
					tw.refusing(mobile, 0)
				}
				// Nothing was sent, as far as Twilio knows.
				tw.refusing(mobile, 20404)
				post("/verify", "verification_code", code).Want(t, 404, "resource.phone.verification_invalid")
				tw.refusing(mobile, 0)
				// The guesses are counted here as well.
				post("/send_code").Want(t, 201)
				for range 5 {
					post("/verify", "verification_code", "111111").Want(t, 404, "resource.phone.verification_invalid")
				}
				calls := len(tw.sent)
				post("/verify", "verification_code", code).Want(t, 429, "request.rate_limited")
				if len(tw.sent) != calls {
					t.Error("Twilio was asked once more")
				}
				post("/send_code").Want(t, 201)
			}
			if got := post("/verify", "verification_code", code).Want(t, 201).Object(t); got["level"] != float64(2) {
				t.Errorf("verified %v", got)
			}
			b.wantLabels(t, u, "private email:verified", "private phone:verified")
		})
	}
}

// TestPhoneOutbox holds that a mocked message that cannot be written is told.
func TestPhoneOutbox(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	b := start(t, e)
	u := b.member(t)
	if err := os.WriteFile(b.texts, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.Post(t, "/resource/phones", apitest.As(u), apitest.Form("phone_number", mobile)).Want(t, 422, "resource.phone.twilio_unexpected")
	if err := os.Remove(b.texts); err != nil {
		t.Fatal(err)
	}
	b.Post(t, "/resource/phones", apitest.As(u), apitest.Form("phone_number", mobile)).Want(t, 201)
	b.Post(t, "/resource/phones/verify", apitest.As(u), apitest.Form("phone_number", mobile, "verification_code", b.code(t, mobile))).Want(t, 201)
}
