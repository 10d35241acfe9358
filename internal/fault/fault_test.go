package fault

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestStatusOfEveryCheckCode(t *testing.T) {
	for code, want := range map[Code]int{
		"authz.restrict.maintenance":      471,
		"authz.restrict.blacklist":        401,
		"authz.restrict.blocklogin":       401,
		"authz.access_restricted":         401,
		"authz.permission_denied":         401,
		"authz.missing_csrf_token":        401,
		"authz.csrf_token_mismatch":       401,
		"authz.invalid_session":           401,
		"authz.client_session_mismatch":   401,
		"authz.user_not_active":           401,
		"authz.invalid_permission":        401,
		"authz.invalid_api_key_headers":   422,
		"authz.unexistent_apikey":         401,
		"authz.nonce_not_valid_timestamp": 401,
		"authz.nonce_expired":             401,
		"authz.nonce_from_future":         401,
		"authz.signature_blacklisted":     401,
		"authz.invalid_signature":         401,
		"authz.apikey_not_active":         401,
		"authz.disabled_2fa":              401,
		"authz.ambiguous_path":            400,
		"authz.malformed_request":         400,
		"authz.untrusted_proxy":           403,
		"authz.unavailable":               503,
		"request.malformed_body":          400,
		"request.too_large":               413,
		"request.rate_limited":            429,
		"server.internal_error":           500,
		"record.not_found":                404,
		"totp.error":                      422,
		"jwt.decode_and_verify":           401,
	} {
		got := New(code)
		if got.Status != want || !slices.Equal(got.Codes, []Code{code}) {
			t.Errorf("New(%q) = status %d, codes %v; want %d", code, got.Status, got.Codes, want)
		}
	}
}

func TestLookup(t *testing.T) {
	for _, tc := range []struct {
		code   Code
		status int // 0: not known
	}{
		{"identity.session.missing_otp", 401}, // a fixed code wins over the missing_ family
		{"resource.user.missing_otp_code", 422},
		{"identity.user.missing_pass_token", 422},
		{"identity.user.empty_reset_password_token", 422},
		{"resource.apikey.empty_totp_code", 422},
		{"admin.restriction.empty_expire_time", 422},
		{"jwt.decode_and_verify.expired", 422},
		{"jwt.decode_and_verify.", 0},
		{"email.taken", 422},
		{"password.requirements", 422},
		{"code.inclusion", 422},
		{"state.inclusion", 422},
		{"country.must have alpha2 or alpha3 format", 422},
		{"upload.blank", 422},
		{`upload.You are not allowed to upload "txt" files, allowed types: jpg, jpeg, png, pdf`, 422},
		{"resource.phone.number_exist", 400},
		{"state.exists", 409},
		{"invalid", 422},
		{"value", 422},
		{"", 0},
		{".", 0},
		{"email.", 0},
		{".taken", 0},
		{"email.nonsense", 0},
		{"authz.missing_everything", 0},
		{"other.group.missing_x", 0},
		{"Email.taken", 0},
	} {
		e, ok := Lookup(tc.code)
		if ok != (tc.status != 0) || e.Status != tc.status {
			t.Errorf("Lookup(%q) = %d, %v; want %d", tc.code, e.Status, ok, tc.status)
		}
		if ok && e.Code != tc.code {
			t.Errorf("Lookup(%q) answers for %q", tc.code, e.Code)
		}
	}
}

func TestCatalogueIsSortedUniqueAndExplained(t *testing.T) {
	all := Catalogue()
	if !slices.IsSortedFunc(all, func(a, b Entry) int { return strings.Compare(string(a.Code), string(b.Code)) }) {
		t.Error("the catalogue is not sorted, so Lookup misses entries")
	}
	seen := map[Code]bool{}
	for _, e := range append(all, Patterns()...) {
		if seen[e.Code] {
			t.Errorf("%s stands twice", e.Code)
		}
		seen[e.Code] = true
		if e.Status < 400 || e.Status > 599 {
			t.Errorf("%s has status %d", e.Code, e.Status)
		}
		if !strings.HasSuffix(e.Meaning, ".") || strings.ContainsAny(e.Meaning, "\n|") {
			t.Errorf("%s: meaning %q is not one sentence of a table", e.Code, e.Meaning)
		}
	}
	for _, e := range Catalogue() {
		if got, ok := Lookup(e.Code); !ok || got != e {
			t.Errorf("Lookup(%q) = %v, %v", e.Code, got, ok)
		}
	}
	all[0].Status = 200
	if Catalogue()[0].Status == 200 {
		t.Error("a caller changed the catalogue")
	}
}

func TestUnknownCodeIsADefect(t *testing.T) {
	e := New("no.such.code")
	if e.Status != 500 || !e.Has(InternalError) || !strings.Contains(e.Error(), "no.such.code") {
		t.Errorf("New of an unknown code = %v, status %d", e, e.Status)
	}
	if e := Invalid(); e.Status != 500 {
		t.Errorf("Invalid without codes has status %d", e.Status)
	}
}

func TestAs(t *testing.T) {
	if As(nil) != nil {
		t.Error("As(nil) is not nil")
	}
	e := As(io.ErrUnexpectedEOF)
	if e.Status != 500 || e.Codes[0] != InternalError || !errors.Is(e, io.ErrUnexpectedEOF) {
		t.Errorf("As of a foreign error = %v, status %d", e, e.Status)
	}
	inner := New("email.taken").Because(errors.New("duplicate key"))
	if got := As(inner); got != inner {
		t.Errorf("As(%v) = %v", inner, got)
	}
	wrapped := As(fmt.Errorf("create user: %w", inner))
	if wrapped.Status != 422 || wrapped.Codes[0] != "email.taken" || !strings.Contains(wrapped.Error(), "create user") {
		t.Errorf("As of a wrapped fault = %v, status %d", wrapped, wrapped.Status)
	}
	if !errors.Is(fmt.Errorf("x: %w", inner), New("email.taken")) || errors.Is(inner, New("email.blank")) {
		t.Error("errors.Is does not compare faults by their code")
	}
}

func TestCopies(t *testing.T) {
	e := New(Unavailable)
	if c := e.Because(io.EOF).WithStatus(502); e.Err != nil || e.Status != 503 || c.Status != 502 || c.Err != io.EOF {
		t.Errorf("original %v, copy %v", e, c)
	}
	codes := []Code{"email.blank", "password.weak"}
	inv := Invalid(codes...)
	codes[0] = "changed"
	if inv.Codes[0] != "email.blank" || inv.Status != 422 || inv.Error() != "email.blank, password.weak" {
		t.Errorf("Invalid = %v, status %d", inv, inv.Status)
	}
	if p := Plain(404, "Route is not found"); p.Error() != "Route is not found" || p.Status != 404 {
		t.Errorf("Plain = %v", p)
	}
	if r := RateLimited(0); r.Status != 429 || r.RetryAfter != time.Second {
		t.Errorf("RateLimited(0) = %v, retry after %v", r, r.RetryAfter)
	}
}

func FuzzLookup(f *testing.F) {
	for _, e := range Catalogue() {
		f.Add(string(e.Code))
	}
	for _, s := range []string{"a.b.missing_c", "upload.", "jwt.decode_and_verify.x", "....", "é.taken"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, ok := Lookup(Code(s))
		if ok && (e.Code != Code(s) || e.Status < 400) {
			t.Errorf("Lookup(%q) = %v", s, e)
		}
	})
}
