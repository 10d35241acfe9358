package systemtest

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"barong/internal/crypto/jws"
	"barong/internal/crypto/jws/jwstest"
)

// TestManagement has another service call two replicas: one alone accepts a message, also where limits are lifted, and
// the API is not to be had the way that everybody takes.
func TestManagement(t *testing.T) {
	applogic := jwstest.New(t)
	file := filepath.Join(t.TempDir(), "management_api.yml")
	text := "keychain: {applogic: " + applogic.Entry() + "}\nscopes:\n"
	for _, scope := range []string{"read_users", "write_users", "write_labels", "otp_sign"} {
		text += "  " + scope + ": {permitted_signers: [applogic], mandatory_signers: [applogic]}\n"
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, true, "BARONG_MANAGEMENT_API_FILE="+file, "BARONG_RATE_LIMITS=off")
	message := func(data any) *jws.Message {
		payload, err := json.Marshal(params{"exp": time.Now().Add(time.Minute).Unix(), "jti": rand.Text(), "data": data})
		if err != nil {
			t.Fatal(err)
		}
		m := jws.New(payload)
		if err := m.Sign("applogic", applogic); err != nil {
			t.Fatal(err)
		}
		return m
	}
	a, b := c.a.client(), c.b.client()
	const base = "/api/v2/management"

	m := message(params{"email": "made@example.com", "password": memberPassword})
	var user struct{ UID, State string }
	r := a.send("POST", base+"/users", m).wants(t, "a user is made", 201)
	r.into(t, &user)
	for _, replica := range []*client{a, b} {
		replica.send("POST", base+"/users", m).wants(t, "a message that was sent before", 401)
	}
	b.send("POST", base+"/labels", message(params{"user_uid": user.UID, "key": "email", "value": "verified"})).wants(t, "a label", 201)
	signedIn := a.signIn("made@example.com", memberPassword).wants(t, "the user signs in", 201)
	signedIn.into(t, &user)
	if user.State != "active" {
		t.Errorf("the user is %s", user.State)
	}
	a.check(account).wants(t, "a check of the user", 200)
	b.send("POST", base+"/labels", message(params{"user_uid": user.UID, "key": "ban", "value": "fraud"})).wants(t, "a ban", 201)
	deadline := time.Now().Add(patience)
	for a.check(account).status == 200 {
		if time.Now().After(deadline) {
			t.Fatal("a banned user passes")
		}
		time.Sleep(10 * time.Millisecond)
	}

	// The second factor approves what another service asks for.
	p := c.person(true)
	approved := message(params{"amount": "1"})
	var signed jws.Message
	ask := params{"user_uid": p.UID, "otp_code": p.authenticator.code(t), "jwt": approved}
	b.send("POST", base+"/otp/sign", message(ask)).wants(t, "an approval", 201).into(t, &signed)
	if len(signed.Signatures) != 2 || signed.Payload != approved.Payload {
		t.Errorf("%+v", signed)
	}

	admin := c.admin.at(c.b)
	for _, other := range []*client{a, admin} {
		other.send("POST", "/api/v2/barong/management/users/list", message(params{})).wants(t, "the way everybody takes", 401)
		other.send("POST", "/api/v2/auth/api/v2/barong/management/users/list", nil).wants(t, "a check of it", 401)
	}
	document := a.send("GET", base+"/management.json", nil).wants(t, "the document", 200)
	if !strings.Contains(document.body, `"/management/users/import"`) || strings.Contains(a.send("GET", "/api/v2/restful_api.json", nil).body, "/management/") {
		t.Error("the documents do not tell the APIs apart")
	}
}
