package management_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"barong/api/account"
	"barong/api/management"
	"barong/api/rest"
	"barong/db"
	"barong/internal/blob"
	"barong/internal/crypto/jws"
	"barong/internal/crypto/jws/jwstest"
	"barong/internal/limit"
	"barong/internal/test/apitest"
)

// A bench is the module on a started server, and the services that know it.
type bench struct {
	*apitest.Server
	env      *apitest.Env
	folder   string // of the files
	services map[string]*jwstest.Service
}

// start serves the module on the stores of e. The scopes want applogic's signature, and write_users also peatio's.
func start(t *testing.T, e *apitest.Env, changes ...func(*management.Options)) *bench {
	t.Helper()
	b := &bench{env: e, folder: filepath.Join(e.Folder, "files"), services: map[string]*jwstest.Service{
		"applogic": jwstest.New(t), "peatio": jwstest.New(t), "stranger": jwstest.New(t),
	}}
	config, err := management.ParseConfig(b.file(""), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	files, err := blob.Open(blob.Options{
		Provider: blob.Local, Folder: b.folder, Key: bytes.Repeat([]byte("k"), 32), Path: "/" + apitest.Prefix + "/files/",
		Extensions: []string{"jpg", "png", "pdf"}, MinSize: 1, MaxSize: 4096, URLLife: time.Minute, Now: e.Clock.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { files.Close() })
	o := management.Options{
		Config: config, Accounts: e.Accounts, DB: e.DB, Memory: e.Limits,
		Documents: account.Documents{Accounts: e.Accounts, Files: files, Types: []string{"Passport"}, ExpireRequired: true, MaxUpload: 4096},
		Signer:    func() jws.Signer { return e.Keys.Current() },
		Issuer:    apitest.Issuer, Now: e.Clock.Now, Log: slog.New(slog.DiscardHandler),
	}
	for _, change := range changes {
		change(&o)
	}
	m := management.New(o)
	b.Server = e.Serve(t, m.Routes(), func(r *rest.Options) { r.Legacy, r.Open = o.Legacy, m.Open })
	return b
}

// file is a management_api.yml of the bench's services; jwt are the lines below that key.
func (b *bench) file(jwt string) []byte {
	var f strings.Builder
	f.WriteString("keychain:\n")
	for _, name := range []string{"applogic", "peatio"} {
		fmt.Fprintf(&f, "  %s: %s\n", name, b.services[name].Entry())
	}
	f.WriteString("jwt: {" + jwt + "}\nscopes:\n")
	for _, scope := range []string{"read_users", "read_labels", "write_labels", "write_documents", "otp_sign"} {
		f.WriteString("  " + scope + ": {permitted_signers: [applogic, peatio], mandatory_signers: [applogic]}\n")
	}
	f.WriteString("  write_users: {permitted_signers: [applogic, peatio], mandatory_signers: [applogic, peatio]}\n")
	return []byte(f.String())
}

var serial atomic.Int64

// claims are those of a good message with this data.
func (b *bench) claims(data any) map[string]any {
	now := b.env.Clock.Now().Unix()
	return map[string]any{"iat": now, "exp": now + 60, "jti": fmt.Sprint("m", serial.Add(1)), "iss": "applogic", "data": data}
}

// with are the claims with changes; a nil removes one.
func with(claims, changes map[string]any) map[string]any {
	out := maps.Clone(claims)
	for k, v := range changes {
		if out[k] = v; v == nil {
			delete(out, k)
		}
	}
	return out
}

// sign is a message with these claims, signed by these services.
func (b *bench) sign(t *testing.T, claims any, signers ...string) *jws.Message {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	m := jws.New(payload)
	for _, name := range signers {
		if err := m.Sign(name, b.services[name]); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// An answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// send makes a request below /api/v2/management.
func (b *bench) send(t *testing.T, method, path, contentType, body string) answer {
	t.Helper()
	return b.request(t, method, rest.Base+"/management"+path, contentType, body)
}

func (b *bench) request(t *testing.T, method, path, contentType, body string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, b.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	got, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	out, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{got.StatusCode, got.Header, string(out)}
}

// call sends data in a good message that both services have signed.
func (b *bench) call(t *testing.T, method, path string, data any) answer {
	t.Helper()
	return b.send(t, method, path, "application/json", text(t, b.sign(t, b.claims(data), "applogic", "peatio")))
}

func (b *bench) post(t *testing.T, path string, data any) answer {
	t.Helper()
	return b.call(t, "POST", path, data)
}

// want201 checks that the answer shows the user of an address.
func (a answer) want201(t *testing.T, address string) {
	t.Helper()
	if a.status != 201 || !strings.Contains(a.body, `"email":"`+address+`"`) {
		t.Errorf("%d %s, want 201 and %s", a.status, a.body, address)
	}
}

func (a answer) want(t *testing.T, status int, body string) {
	t.Helper()
	if a.status != status || a.body != body {
		t.Errorf("%d %s, want %d %s", a.status, a.body, status, body)
	}
}

// into wants the status, and reads the body.
func (a answer) into(t *testing.T, status int, v any) {
	t.Helper()
	if a.status != status {
		t.Fatalf("%d %s, want %d", a.status, a.body, status)
	}
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
}

type object = map[string]any

const (
	failed = `{"error":"Failed to verify JWT."}`
	few    = `{"error":"Not enough signatures for the action."}`
)

func TestMessages(t *testing.T) {
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		u := e.NewUser(t, nil)
		data := object{"user_uid": u.UID}
		good := func(changes object) string {
			return text(t, b.sign(t, with(b.claims(data), changes), "applogic"))
		}
		list := func(body string) answer { return b.send(t, "POST", "/labels/list", "application/json", body) }

		list(good(nil)).want(t, 201, "[]")
		const noRoute = `{"error":"Route is not found"}`
		for _, method := range []string{"GET", "PUT", "DELETE", "PATCH", "OPTIONS"} {
			b.send(t, method, "/labels/list", "application/json", good(nil)).want(t, 404, noRoute)
		}
		// What 2.6 and its kits have besides, whoever signs: docs/moving.md says so.
		for _, path := range []string{
			"/nothing", "/service_accounts/get", "/service_accounts/list", "/service_accounts/create", "/service_accounts/update", "/service_accounts/delete",
			"/api_keys", "/api_keys/list", "/api_keys/update", "/attachments", "/attachments/upload", "/phones", "/phones/get", "/phones/delete",
		} {
			b.send(t, "POST", path, "application/json", good(nil)).want(t, 404, noRoute)
		}
		b.request(t, "POST", "/"+apitest.Prefix+"/management/labels/list", "application/json", good(nil)).want(t, 404, noRoute)
		b.send(t, "POST", "/labels/list?a=1", "application/json", good(nil)).want(t, 400, `{"error":"Query parameters are not allowed."}`)
		for _, kind := range []string{"application/json; charset=utf-8", "text/plain", ""} {
			b.send(t, "POST", "/labels/list", kind, good(nil)).want(t, 400, `{"error":"Only JSON body is accepted."}`)
		}
		for _, body := range []string{"", "x", `{"payload":`, good(nil) + "x"} {
			list(body).want(t, 400, `{"error":"Couldn't parse JWT."}`)
		}
		b.send(t, "POST", "/timestamp", "application/json", good(nil)).want(t, 401, failed) // a scope that is not configured

		now := e.Clock.Now().Unix()
		for what, changes := range map[string]object{
			"expired": {"exp": now}, "long expired": {"exp": 1}, "without an end": {"exp": nil}, "null end": {"exp": json.RawMessage("null")},
			"end too far": {"exp": now + 2*86400}, "end of text": {"exp": "soon"}, "end of another size": {"exp": 1e300},
			"without id": {"jti": nil}, "empty id": {"jti": ""}, "id too long": {"jti": strings.Repeat("x", 257)}, "id of another type": {"jti": 7},
			"not yet valid": {"nbf": now + 60}, "for another method": {"method": "PUT"}, "for another path": {"path": "/api/v2/management/labels/delete"},
			"data of a list": {"data": []int{1}}, "data of a text": {"data": "x"},
		} {
			if a := list(good(changes)); a.status != 401 || a.body != failed {
				t.Errorf("%s: %d %s", what, a.status, a.body)
			}
		}
		list(good(object{"nbf": now, "method": "post", "path": "/api/v2/management/labels/list"})).want(t, 201, "[]")
		for _, none := range []any{nil, object{}, []int{}} {
			list(good(object{"data": none})).want(t, 422, `{"error":"user_uid is missing, user_uid is empty"}`)
		}

		// A message counts once, also with fewer signatures than when it was first sent.
		m := b.sign(t, b.claims(data), "applogic", "peatio")
		list(text(t, m)).want(t, 201, "[]")
		list(text(t, m)).want(t, 401, failed)
		m.Signatures = m.Signatures[:1]
		list(text(t, m)).want(t, 401, failed)

		// Who has signed.
		claims := b.claims(data)
		list(text(t, b.sign(t, claims))).want(t, 401, few)
		list(text(t, b.sign(t, claims, "peatio"))).want(t, 401, few)
		list(text(t, b.sign(t, claims, "stranger"))).want(t, 401, few)
		b.send(t, "POST", "/users", "application/json", text(t, b.sign(t, b.claims(object{}), "applogic"))).want(t, 401, few)
		forged := b.sign(t, claims)
		if err := forged.Sign("applogic", b.services["stranger"]); err != nil {
			t.Fatal(err)
		}
		list(text(t, forged)).want(t, 401, failed)
		spoiled := b.sign(t, claims, "applogic")
		spoiled.Signatures = append(spoiled.Signatures, jws.Signature{
			Protected: spoiled.Signatures[0].Protected, Header: jws.Header{KeyID: "peatio"}, Value: spoiled.Signatures[0].Value,
		})
		list(text(t, spoiled)).want(t, 401, failed)
		changed := b.sign(t, claims, "applogic")
		changed.Payload = b.sign(t, with(claims, object{"data": object{"user_uid": "ID0"}})).Payload
		list(text(t, changed)).want(t, 401, failed)

		// The algorithm is the key's, whatever the message says: a public key is no secret.
		for _, alg := range []string{"HS256", "none", "RS256", ""} {
			m := b.sign(t, claims)
			protected := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"` + alg + `"}`))
			mac := hmac.New(sha256.New, b.services["applogic"].PEM)
			mac.Write([]byte(protected + "." + m.Payload))
			value := base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
			if alg == "none" {
				value = ""
			}
			m.Signatures = []jws.Signature{{Protected: protected, Header: jws.Header{KeyID: "applogic"}, Value: value}}
			if a := list(text(t, m)); a.status != 401 || a.body != failed {
				t.Errorf("%s: %d %s", alg, a.status, a.body)
			}
		}
		// What would take much memory is refused by its first part.
		many := `{"payload":"e30","signatures":[` + strings.Repeat("1,", 100_000) + "1]}"
		for _, body := range []string{many, strings.Replace(many, "1,1,", `{},{},`, 1), `{"a":{}` + manyMembers() + "}"} {
			list(body).want(t, 401, failed)
		}
		if a := list(`{"payload":"` + strings.Repeat("A", 300<<10) + `","signatures":[]}`); a.status != 413 {
			t.Errorf("%d %s", a.status, a.body)
		}

		// Nothing of all this has used the message up.
		list(text(t, b.sign(t, claims, "applogic"))).want(t, 201, "[]")

		// The memory of messages is down.
		down := start(t, e, func(o *management.Options) { o.Memory = forgetful{o.Memory} })
		if a := down.post(t, "/labels/list", data); a.status != 503 {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
}

func manyMembers() string {
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, `,"m%d":1`, i)
	}
	return b.String()
}

// A forgetful memory is one that cannot be reached.
type forgetful struct{ limit.Limiter }

func (forgetful) Take(context.Context, string, int, time.Duration) (time.Duration, error) {
	return 0, errors.New("unreachable")
}

func TestMessagesOfTheOriginal(t *testing.T) {
	e := apitest.New(t, "sqlite")
	b := start(t, e, func(o *management.Options) { o.Legacy = true })
	u := e.NewUser(t, nil)
	message := text(t, b.sign(t, object{"data": object{"user_uid": u.UID}}, "applogic"))
	for range 2 {
		b.send(t, "POST", "/labels/list", "application/json", message).want(t, 201, "[]")
	}
	expired := b.sign(t, object{"exp": e.Clock.Now().Unix() - 1, "data": object{"user_uid": u.UID}}, "applogic")
	b.send(t, "POST", "/labels/list", "application/json", text(t, expired)).want(t, 401, failed)
}

func TestClaimRules(t *testing.T) {
	e := apitest.New(t, "sqlite")
	plain := start(t, e)
	u := e.NewUser(t, nil)
	now := e.Clock.Now().Unix()
	for _, c := range []struct {
		jwt     string
		good    object
		refused []object
	}{
		{"verify_iss: true, iss: [a, b]", object{"iss": "b"}, []object{{"iss": "c"}, {"iss": nil}}},
		{"verify_iss: true, iss: a", object{"iss": "a"}, []object{{"iss": "b"}}},
		{"verify_aud: true, aud: barong", object{"aud": []string{"x", "barong"}}, []object{{"aud": "x"}, {"aud": nil}, {"aud": []string{}}}},
		{"verify_sub: true, sub: s", object{"sub": "s"}, []object{{"sub": "t"}, {"sub": nil}}},
		{"verify_iat: true", object{"iat": now}, []object{{"iat": now + 60}, {"iat": nil}}},
		{"verify_jti: true, leeway: 30", object{"exp": now - 20, "nbf": now + 20}, []object{{"exp": now - 40}, {"nbf": now + 40}}},
	} {
		b := start(t, e, func(o *management.Options) {
			config, err := management.ParseConfig(plain.file(c.jwt), false, nil)
			if err != nil {
				t.Fatal(err)
			}
			o.Config = config
		})
		b.services = plain.services
		ask := func(changes object) answer {
			claims := with(b.claims(object{"user_uid": u.UID}), changes)
			return b.send(t, "POST", "/labels/list", "application/json", text(t, b.sign(t, claims, "applogic")))
		}
		ask(c.good).want(t, 201, "[]")
		for _, changes := range c.refused {
			if a := ask(changes); a.status != 401 || a.body != failed {
				t.Errorf("%s, %v: %d %s", c.jwt, changes, a.status, a.body)
			}
		}
	}
}

func TestTimestamp(t *testing.T) {
	e := apitest.New(t, "sqlite")
	b := start(t, e, func(o *management.Options) { o.Config.Scopes["tools"] = o.Config.Scopes["read_users"] })
	b.post(t, "/timestamp", object{}).want(t, 200, fmt.Sprintf(`{"timestamp":%d}`, e.Clock.Now().Unix()))
}

func TestSignApproved(t *testing.T) {
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		u := e.NewUser(t, nil)
		now := e.Clock.Now().Unix()
		later := now + 60
		inner := b.sign(t, object{"exp": now + 3600, "data": object{"amount": "1.5"}}, "applogic")
		ask := func(user *db.User, code string, message any) answer {
			return b.post(t, "/otp/sign", object{"user_uid": user.UID, "otp_code": code, "jwt": message})
		}
		ask(u, "123456", inner).want(t, 422, `{"error":"Account has not enabled 2FA"}`)
		secret := e.Enable2FA(t, u)
		code := e.Code(t, secret, 0)
		ask(&db.User{UID: "ID0"}, "", "text").want(t, 422, `{"error":"otp_code is empty, jwt is invalid"}`)
		ask(&db.User{UID: "ID0"}, code, inner).want(t, 404, `{"error":"Record is not found"}`)
		pending := e.NewUser(t, func(u *db.User) { u.State = "pending" })
		e.Enable2FA(t, pending)
		ask(pending, code, inner).want(t, 404, `{"error":"Record is not found"}`)
		b.post(t, "/otp/sign", object{}).want(t, 422, `{"error":"user_uid is missing, user_uid is empty, otp_code is missing, otp_code is empty, jwt is missing, jwt is empty"}`)
		ask(u, code, "text").want(t, 422, `{"error":"jwt is invalid"}`)
		ask(u, code, []int{1}).want(t, 422, `{"error":"jwt is invalid"}`)
		ask(u, code, object{"a": 1}).want(t, 422, `{"error":"JWT is invalid by the reason \"payload is missing\""}`)
		ask(u, code, b.sign(t, object{"exp": later}, "stranger")).want(t, 422, `{"error":"JWT is invalid by the reason \"nobody whose key is known has signed it\""}`)
		// What a session token or an event has, also as receivers take it that do not mind case, and our own issuer.
		for claim, name := range map[string]string{
			"sub": "sub", "event": "event", "uid": "uid", "email": "email", "role": "role", "UID": "uid", "\u017fub": "sub", "iss": "iss", "Iss": "iss",
		} {
			ask(u, code, b.sign(t, object{claim: apitest.Issuer, "exp": later}, "applogic")).
				want(t, 422, `{"error":"JWT is invalid by the reason \"the claim `+name+` is reserved\""}`)
		}
		for _, exp := range []any{nil, 1, now, now + 2*86400, "soon"} {
			if a := ask(u, code, b.sign(t, with(object{"iss": "applogic"}, object{"exp": exp}), "applogic")); a.status != 422 || !strings.Contains(a.body, "exp") {
				t.Errorf("exp %v: %d %s", exp, a.status, a.body)
			}
		}
		full := b.sign(t, object{"exp": later}, "applogic")
		for len(full.Signatures) < jws.MaxSignatures {
			full.Signatures = append(full.Signatures, full.Signatures[0])
		}
		ask(u, code, full).want(t, 422, `{"error":"JWT is invalid by the reason \"it has no room for a signature\""}`)
		ask(u, e.WrongCode(t, secret), inner).want(t, 422, `{"error":"OTP code is invalid"}`)

		var signed jws.Message
		ask(u, code, inner).into(t, 201, &signed)
		if signed.Payload != inner.Payload || len(signed.Signatures) != 2 || signed.Signatures[0] != inner.Signatures[0] {
			t.Fatalf("%+v", signed)
		}
		added := signed.Signatures[1]
		protected, err := base64.RawURLEncoding.DecodeString(added.Protected)
		if err != nil || string(protected) != `{"alg":"EdDSA"}` || added.Header.KeyID != management.KeyID {
			t.Errorf("%s %+v %v", protected, added, err)
		}
		again, err := e.Keys.Current().Signature([]byte(added.Protected + "." + signed.Payload)) // EdDSA signs alike each time
		if err != nil || base64.RawURLEncoding.EncodeToString(again) != added.Value {
			t.Errorf("another signature: %v", err)
		}
		ask(u, code, inner).want(t, 422, `{"error":"OTP code is invalid"}`) // it was used

		// An older signature of this name is replaced.
		e.Clock.Advance(time.Minute)
		stale := *inner
		stale.Signatures = append(slices.Clone(stale.Signatures), jws.Signature{Protected: added.Protected, Header: added.Header, Value: "AAAA"})
		ask(u, e.Code(t, secret, 0), stale).into(t, 201, &signed)
		if len(signed.Signatures) != 2 || signed.Signatures[1].Value == "AAAA" {
			t.Errorf("%+v", signed)
		}
	})
}

func TestLabels(t *testing.T) {
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		u := e.NewUser(t, func(u *db.User) { u.State = "pending" })
		label := func(changes object) object {
			return with(object{"user_uid": u.UID, "key": "email", "value": "verified"}, changes)
		}
		b.post(t, "/labels", object{}).want(t, 422,
			`{"error":"user_uid is missing, user_uid is empty, key is missing, key is empty, value is missing, value is empty"}`)
		b.post(t, "/labels", label(object{"key": " ", "value": []int{1}})).want(t, 422, `{"error":"key is empty, value is invalid"}`)
		b.post(t, "/labels", label(object{"user_uid": "ID0"})).want(t, 404, `{"error":"Record is not found"}`)
		b.post(t, "/labels", label(object{"key": "a!", "description": strings.Repeat("x", 256)})).want(t, 422,
			`{"description":["Description is too long (maximum is 255 characters)"],"key":["Key is too short (minimum is 3 characters)","Key is invalid"]}`)

		e.Events()
		var got object
		b.post(t, "/labels", label(object{"scope": "public"})).into(t, 201, &got)
		if got["key"] != "email" || got["value"] != "verified" || got["scope"] != "private" || len(got) != 5 {
			t.Errorf("%v", got)
		}
		if now := e.Fresh(t, u); now.Level != 1 || now.State != "active" {
			t.Errorf("level %d, state %s", now.Level, now.State)
		}
		if names := e.EventNames(); !slices.Equal(names, []string{"model.user.updated", "model.user.updated", "model.label.created"}) {
			t.Errorf("%v", names)
		}
		b.post(t, "/labels", label(nil)).want(t, 422, `{"key":["Key has already been taken"]}`)

		put := func(changes object) answer { return b.call(t, "PUT", "/labels", label(changes)) }
		put(object{"value": "rejected", "description": "why"}).into(t, 200, &got)
		if now := e.Fresh(t, u); got["value"] != "rejected" || now.Level != 0 {
			t.Errorf("%v, level %d", got, now.Level)
		}
		put(object{"value": "!"}).want(t, 422, `{"value":["Value is too short (minimum is 3 characters)","Value is invalid"]}`)
		put(object{"key": "other", "replace": "maybe"}).want(t, 422, `{"error":"replace is invalid"}`)
		put(object{"key": "other", "replace": false}).want(t, 404, `{"error":"label doesnt exist"}`)
		put(object{"key": "other"}).into(t, 200, &got)
		if got["scope"] != "private" {
			t.Errorf("%v", got)
		}
		put(object{"key": "other", "scope": ""}).into(t, 200, &got) // it is there
		put(object{"key": "shown", "scope": "public"}).into(t, 200, &got)
		if got["scope"] != "public" {
			t.Errorf("%v", got)
		}

		var list []object
		b.post(t, "/labels/list", object{"user_uid": u.UID}).into(t, 201, &list)
		if len(list) != 3 || list[0]["description"] != "why" || len(list[0]) != 6 {
			t.Errorf("%v", list)
		}
		b.post(t, "/labels/list", object{"user_uid": "ID0"}).want(t, 404, `{"error":"Record is not found"}`)

		b.post(t, "/labels/delete", object{"user_uid": u.UID, "key": "shown"}).want(t, 404, `{"error":"Record is not found"}`) // it is public
		if a := b.post(t, "/labels/delete", object{"user_uid": u.UID, "key": "other"}); a.status != 204 || a.body != "" {
			t.Errorf("%d %s", a.status, a.body)
		}
		b.post(t, "/labels/delete", object{"user_uid": u.UID, "key": "other"}).want(t, 404, `{"error":"Record is not found"}`)
	})
}

func TestUsersOfLabels(t *testing.T) {
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		var users []*db.User
		for range 3 {
			users = append(users, e.NewUser(t, nil))
		}
		begin := e.Clock.Now().Unix()
		give := func(u *db.User, value, scope string) {
			t.Helper()
			if err := e.Accounts.Update(t.Context(), func(ctx context.Context, un *account.Unit) error {
				_, err := un.CreateLabel(ctx, u, "colour", value, scope, nil)
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		give(users[0], "red", account.Private)
		give(users[0], "red", account.Public)
		give(users[1], "blue", account.Private)
		e.Clock.Advance(time.Hour)
		give(users[2], "red", account.Private)
		find := func(changes object) []string {
			t.Helper()
			a := b.post(t, "/labels/filter/users", with(object{"key": "colour"}, changes))
			var list []object
			a.into(t, 200, &list)
			var uids []string
			for _, u := range list {
				uids = append(uids, u["uid"].(string))
			}
			return uids
		}
		uids := func(of ...int) (out []string) {
			for _, i := range of {
				out = append(out, users[i].UID)
			}
			return out
		}
		for _, c := range []struct {
			changes object
			want    []string
		}{
			{nil, uids(0, 0, 1, 2)}, // once for each label
			{object{"value": "red"}, uids(0, 0, 2)},
			{object{"value": "red", "scope": "private"}, uids(0, 2)},
			{object{"to": begin + 60}, uids(0, 0, 1)},
			{object{"from": begin + 60, "range": "updated"}, uids(2)},
			{object{"key": "none"}, nil},
			{object{"limit": 2, "page": 2}, uids(1, 2)},
		} {
			if got := find(c.changes); !slices.Equal(got, c.want) {
				t.Errorf("%v: %v, want %v", c.changes, got, c.want)
			}
		}
		a := b.post(t, "/labels/filter/users", object{"key": "colour", "limit": 1, "page": 2, "extended": true})
		h := a.header
		if want := `<?page=1>; rel="first", <?page=1>; rel="prev", <?page=4>; rel="last", <?page=3>; rel="next"`; h.Get("Link") != want {
			t.Errorf("%s, want %s", h.Get("Link"), want)
		}
		if h.Get("Total") != "4" || h.Get("Per-Page") != "1" || h.Get("Page") != "2" || !strings.Contains(a.body, `"profiles":[]`) {
			t.Errorf("%v %s", h, a.body)
		}
		b.post(t, "/labels/filter/users", object{"extended": "x", "range": "x", "page": 0, "limit": 101}).want(t, 422,
			`{"error":"key is missing, key is empty, extended Non boolean extended value, range Invalid range, page non_positive_page, limit invalid_limit"}`)
	})
}

func TestShowAndListUsers(t *testing.T) {
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		claimed, verified := e.NewUser(t, nil), e.NewUser(t, nil)
		now := e.Clock.Now()
		e.Update(t, func(ctx context.Context, tx *db.Tx) error {
			for _, p := range []*db.Phone{
				{UserID: claimed.ID, Country: "GB", Number: "447418084106"},
				{UserID: verified.ID, Country: "GB", Number: "447418084106", ValidatedAt: &now},
				{UserID: claimed.ID, Country: "GB", Number: "447418084107"},
			} {
				if err := tx.InsertPhone(ctx, p); err != nil {
					return err
				}
			}
			return nil
		})
		for _, c := range []struct {
			data object
			want *db.User
		}{
			{object{"uid": claimed.UID}, claimed},
			{object{"email": strings.ToUpper(claimed.Email)}, claimed},
			{object{"phone_num": "447418084106"}, verified}, // rather who has proven it
			{object{"phone_num": "+44 7418 084107"}, claimed},
		} {
			var got object
			b.post(t, "/users/get", c.data).into(t, 201, &got)
			if got["uid"] != c.want.UID || got["documents"] == nil || got["phones"] == nil {
				t.Errorf("%v: %v", c.data, got)
			}
		}
		for _, data := range []object{{"uid": "ID0"}, {"email": "nobody@barong.test"}, {"phone_num": "447418084108"}, {"phone_num": "12"}, {"uid": "a\u0000b"}} {
			a := b.post(t, "/users/get", data)
			if a.status != 404 && a.status != 400 {
				t.Errorf("%v: %d %s", data, a.status, a.body)
			}
		}
		b.post(t, "/users/get", object{}).want(t, 422, `{"error":"uid, email, phone_num are missing, exactly one parameter must be provided"}`)
		b.post(t, "/users/get", object{"uid": "a", "email": "b"}).want(t, 422, `{"error":"uid, email are mutually exclusive"}`)
		b.post(t, "/users/get", object{"uid": ""}).want(t, 422, `{"error":"uid is empty"}`)
		b.post(t, "/users/get", object{"uid": "a", "phone_num": ""}).want(t, 422, `{"error":"phone_num is empty, uid, phone_num are mutually exclusive"}`)

		var list []object
		b.post(t, "/users/list", object{"email": verified.Email, "extended": true}).into(t, 200, &list)
		if len(list) != 1 || list[0]["uid"] != verified.UID || list[0]["profiles"] == nil {
			t.Errorf("%v", list)
		}
		b.post(t, "/users/list", object{"role": "admin"}).want(t, 200, "[]")
		b.post(t, "/users/list", object{"range": "x", "level": "x"}).want(t, 422, `{"error":"range Non positive page, level is invalid"}`)
	})
}

func TestMakeAndUpdateUsers(t *testing.T) {
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		referrer := e.NewUser(t, nil)
		e.Events()
		var got object
		b.post(t, "/users", object{"email": "New@Barong.test", "password": apitest.Password, "referral_uid": referrer.UID}).into(t, 201, &got)
		if got["email"] != "new@barong.test" || got["role"] != "member" || got["state"] != "pending" || got["referral_uid"] != referrer.UID {
			t.Errorf("%v", got)
		}
		if names := e.EventNames(); !slices.Equal(names, []string{"model.user.created"}) {
			t.Errorf("%v", names)
		}
		uid := got["uid"].(string)
		b.post(t, "/users", object{"email": "u@xn--bcher-kva.example", "password": apitest.Password}).want201(t, "u@bücher.example")
		b.post(t, "/users", object{"email": "u@BÜCHER.example", "password": apitest.Password}).want(t, 422, `{"error":["Email has already been taken"]}`)
		b.post(t, "/users/import", object{"email": "u@xn--bcher-kva.example", "password_digest": digest}).want(t, 422, `{"error":"User already exists by this email"}`)
		b.post(t, "/users/get", object{"email": "u@xn--bcher-kva.example"}).want201(t, "u@bücher.example")
		for _, spelling := range []string{"u@bücher.example", "u@xn--bcher-kva.example"} {
			if list := b.post(t, "/users/list", object{"email": spelling}); list.status != 200 || !strings.Contains(list.body, `"email":"u@bücher.example"`) {
				t.Errorf("filter by %s: %d %s", spelling, list.status, list.body)
			}
		}
		b.post(t, "/users", object{"email": "new@barong.test", "password": "x"}).want(t, 422,
			`{"error":["Email has already been taken","Password requirements"]}`)
		b.post(t, "/users", object{"email": "x"}).want(t, 422, `{"error":"password is missing, password is empty"}`)
		b.post(t, "/users", object{"email": "other@barong.test", "password": apitest.Password, "referral_uid": "ID0"}).want(t, 422, `{"error":"Referral doesn't exist"}`)

		b.post(t, "/users/update", object{"uid": uid, "data": `{"language":"ru"}`}).into(t, 201, &got)
		if got["data"] != `{"language":"ru"}` {
			t.Errorf("%v", got)
		}
		b.post(t, "/users/update", object{"uid": uid, "data": "{"}).want(t, 422, `{"error":["Data data is not json compatible string"]}`)
		b.post(t, "/users/update", object{"uid": "ID0", "data": "{}"}).want(t, 422, `{"error":"user.doesnt_exist"}`)
		b.post(t, "/users/update", object{"uid": uid, "data": []int{}}).want(t, 422, `{"error":"data is invalid, data is empty"}`)
		b.post(t, "/users/update", object{"uid": uid, "data": object{"language": "fr"}}).into(t, 201, &got)
		if got["data"] != `{"language":"fr"}` {
			t.Errorf("an object is not stored as its text: %v", got)
		}
	})
}

// digest is a bcrypt digest of "secret".
const digest = "$2a$04$5OZ4q5bFz6UvYUbqz6dMauPhbJc1B9T0b4YBS0bHnK3Q2TBQxqZ1C"

func TestImportUsers(t *testing.T) {
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		all := object{
			"email": "Old@Barong.test", "password_digest": digest, "phone": "+44 7418 084106", "first_name": "Ann", "last_name": "Lee",
			"dob": "1990-02-03", "country": "GB", "state": "submitted",
		}
		ask := func(changes object) answer { return b.post(t, "/users/import", with(all, changes)) }
		b.post(t, "/users/import", object{}).want(t, 422, `{"error":"email is missing, email is empty, password_digest is missing, password_digest is empty"}`)
		ask(object{"state": "", "dob": "x"}).want(t, 422, `{"error":"dob is invalid, state is empty"}`)
		ask(object{"state": "odd"}).want(t, 422, `{"error":["State is not included in the list"]}`)
		for _, email := range []string{"@", "x", "a@b\r\nbcc: c@d", "<a@b>", "a@b,c@d", "A <a@b>", "a\u202e@b.test", "a b@c.test"} {
			ask(object{"email": email}).want(t, 422, `{"error":["Email is invalid"]}`)
		}
		ask(object{"password_digest": strings.Replace(digest, "$04$", "$15$", 1)}).want(t, 422, `{"error":["Password digest is invalid"]}`)
		ask(object{"password_digest": "x", "phone": "12", "email": "x"}).want(t, 422, `{"error":["Email is invalid","Password digest is invalid","Number is invalid"]}`)
		ask(object{"country": "XXX"}).want(t, 422, `{"error":["Country must have alpha2 or alpha3 format"]}`)
		if _, err := e.DB.UserByEmail(t.Context(), "old@barong.test"); err == nil { // all or nothing
			t.Error("a user of a refused import is there")
		}
		e.Events()
		var got object
		ask(nil).into(t, 201, &got)
		profiles := got["profiles"].([]any)
		if got["email"] != "old@barong.test" || got["state"] != "pending" || len(profiles) != 1 || profiles[0].(object)["state"] != "submitted" {
			t.Errorf("%v", got)
		}
		if names := e.EventNames(); !slices.Equal(names, []string{"model.user.created", "model.label.created", "model.profile.created"}) {
			t.Errorf("%v", names)
		}
		u, err := e.DB.UserByEmail(t.Context(), "old@barong.test")
		if err != nil || u.PasswordDigest != digest {
			t.Fatalf("%+v %v", u, err)
		}
		phones, err := e.DB.Phones(t.Context(), u.ID)
		if err != nil || len(phones) != 1 || phones[0].Number != "447418084106" || phones[0].ValidatedAt == nil {
			t.Errorf("%+v %v", phones, err)
		}
		ask(object{"referral_uid": "ID0"}).want(t, 422, `{"error":"User already exists by this email"}`)
		ask(object{"email": "third@barong.test", "referral_uid": "ID0"}).want(t, 422, `{"error":"Referral doesn't exist"}`)
		ask(object{"email": "fourth@barong.test", "phone": nil, "metadata": "not json"}).into(t, 201, &got) // no parameter of this call
		ask(object{"email": "other@barong.test"}).want(t, 422, `{"error":["Number has already been taken"]}`)
		if _, err := e.DB.UserByEmail(t.Context(), "other@barong.test"); err == nil {
			t.Error("a user of a refused import is there")
		}
	})
}

func TestProfiles(t *testing.T) {
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		u := e.NewUser(t, nil)
		ask := func(changes object) answer {
			return b.post(t, "/profiles", with(object{"uid": u.UID, "first_name": "Ann"}, changes))
		}
		ask(object{"uid": "ID0"}).want(t, 422, `{"error":"user.doesnt_exist"}`)
		ask(object{"country": "XXX", "metadata": "{"}).want(t, 422, `{"error":["Country must have alpha2 or alpha3 format","Metadata invalid_format"]}`)
		var got object
		ask(nil).into(t, 201, &got)
		if p := got["profiles"].([]any); len(p) != 1 || p[0].(object)["state"] != "drafted" {
			t.Errorf("%v", got)
		}
		ask(nil).want(t, 422, `{"error":["State already exists"]}`)
		ask(object{"state": "verified"}).into(t, 201, &got)
		labels, err := e.DB.Labels(t.Context(), u.ID)
		if err != nil || len(labels) != 1 || labels[0].Value != "verified" {
			t.Errorf("%+v %v", labels, err)
		}
	})
}

func TestDocuments(t *testing.T) {
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		b := start(t, e)
		u := e.NewUser(t, nil)
		pdf := []byte("%PDF-1.4\n%âãÏÓ\n1 0 obj\n<<>>\nendobj\n")
		all := object{
			"uid": u.UID, "doc_type": "Passport", "doc_number": "AB-1", "filename": "pass port", "file_ext": "pdf",
			"upload": base64.StdEncoding.EncodeToString(pdf), "doc_expire": e.Clock.Now().AddDate(1, 0, 0).Format("02.01.2006"),
		}
		ask := func(changes object) answer { return b.post(t, "/documents", with(all, changes)) }
		b.post(t, "/documents", object{"doc_expire": "x", "update_labels": "x"}).want(t, 422, `{"error":"uid is missing, uid is empty, `+
			`doc_type is missing, doc_type is empty, doc_number is missing, doc_number is empty, filename is missing, filename is empty, `+
			`file_ext is missing, file_ext is empty, upload is missing, doc_expire management.documents.expire_not_a_date, `+
			`update_labels management.documents.update_labels_inalid"}`)
		ask(object{"uid": "ID0"}).want(t, 422, `{"errors":["user doesnt exist"]}`)
		ask(object{"upload": "%"}).want(t, 422, `{"error":"upload is invalid"}`)
		ask(object{"doc_type": "Odd", "doc_number": "!", "doc_expire": "2001-01-01"}).want(t, 422,
			`{"error":"Doc type is not included in the list, Doc number only allows letters and digits, and Doc expire is invalid"}`)
		ask(object{"doc_expire": "01/02/2001"}).want(t, 422, `{"error":"Doc expire is invalid"}`)
		ask(object{"doc_expire": "31.02.2101"}).want(t, 422, `{"error":"doc_expire management.documents.expire_not_a_date"}`)
		ask(object{"doc_expire": nil, "metadata": "{"}).want(t, 422, `{"error":"Metadata invalid_format and Doc expire can't be blank"}`)
		if a := ask(object{"file_ext": "exe"}); a.status != 422 || !strings.Contains(a.body, "not allowed to upload") {
			t.Errorf("%d %s", a.status, a.body)
		}
		if a := ask(object{"upload": strings.Repeat("AAAA", 2000)}); a.status != 422 {
			t.Errorf("%d %s", a.status, a.body)
		}
		if a := ask(object{"upload": strings.Repeat("AAAA", 100_000)}); a.status != 413 {
			t.Errorf("%d %s", a.status, a.body)
		}
		if n := files(t, b.folder); n != 0 {
			t.Errorf("%d files of refused documents", n)
		}

		e.Events()
		ask(object{"update_labels": false}).want(t, 201, "201")
		if names := e.EventNames(); !slices.Equal(names, []string{"model.document.created"}) {
			t.Errorf("%v", names)
		}
		ask(nil).want(t, 201, "201")
		labels, err := e.DB.Labels(t.Context(), u.ID)
		if err != nil || len(labels) != 1 || labels[0].Key != "document" || labels[0].Value != "pending" {
			t.Errorf("%+v %v", labels, err)
		}
		rows, err := e.DB.Documents(t.Context(), u.ID)
		if err != nil || len(rows) != 2 || *rows[0].DocNumber != "AB-1" || *rows[0].UploadName != "pass_port.pdf" || files(t, b.folder) != 2 {
			t.Errorf("%+v %v", rows, err)
		}
	})
}

// files counts the documents in a folder.
func files(t *testing.T, folder string) (n int) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasSuffix(path, ".attrs") {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRoutes holds that every route is signed, has a scope that can be configured, and stands below /management.
func TestRoutes(t *testing.T) {
	entry := jwstest.New(t).Entry()
	routes := management.New(management.Options{}).Routes()
	if len(routes) != 14 {
		t.Errorf("%d routes", len(routes))
	}
	for _, r := range routes {
		config, err := management.ParseConfig([]byte("keychain: {a: "+entry+"}\n"+
			"scopes: {"+r.Scope+": {permitted_signers: [a], mandatory_signers: [a]}}"), false, nil)
		if err != nil || r.Access != rest.Signed || len(config.Warnings) > 0 || !strings.HasPrefix(r.Path, "/management/") || r.Method != "POST" && r.Method != "PUT" {
			t.Errorf("%+v", r)
		}
	}
}
