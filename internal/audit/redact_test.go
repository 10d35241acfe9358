package audit

import "testing"

func TestRedactText(t *testing.T) {
	for _, c := range []struct {
		text, want           string
		redacted, unreadable bool
	}{
		{`{"uid": "A",  "state":"banned"}`, `{"uid": "A",  "state":"banned"}`, false, false},
		{`{"a": 1, "password" :  "x" , "b": 2}`, `{"a": 1, "password" :  "[REDACTED]" , "b": 2}`, true, false},
		{`{"user": {"otp_code": "1"}, "list": [{"token": {"a": "b"}}]}`, `{"user": {"otp_code": "[REDACTED]"}, "list": [{"token": "[REDACTED]"}]}`, true, false},
		{`{"otp": true, "code": 12345, "state": null}`, `{"otp": true, "code": "[REDACTED]", "state": null}`, true, false},
		{`{"body": "{\"password\":\"x\",\"b\":1}"}`, `{"body": "{\"password\":\"[REDACTED]\",\"b\":1}"}`, true, false},
		{`"{\"pin\":1}"`, `"{\"pin\":\"[REDACTED]\"}"`, true, false},
		{`[]`, `[]`, false, false},
		{`123`, `123`, false, false},
		{``, ``, false, false},
		{`no JSON at all {`, `no JSON at all {`, false, false},
		{`{"reason":"Invalid Email or Password"}`, `{"reason":"Invalid Email or Password"}`, false, false},
		{`{"email":"a","password":"cut off in the mid`, `[unreadable: 43 bytes]`, false, true},
		{`password=x&email=y`, `[unreadable: 18 bytes]`, false, true},
		{`{"otp_code"=>"1"}`, `[unreadable: 17 bytes]`, false, true},
		{`{"a":1} {"password":"x"}`, `[unreadable: 24 bytes]`, false, true},
	} {
		got, redacted, unreadable := RedactText(c.text)
		if got != c.want || redacted != c.redacted || unreadable != c.unreadable {
			t.Errorf("%s: got %s, %v, %v", c.text, got, redacted, unreadable)
		}
	}
}
