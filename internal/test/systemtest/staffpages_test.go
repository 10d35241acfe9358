package systemtest

import (
	"testing"
	"time"
)

// staffPages are the pages of staff.
var staffPages = []place{
	{"/console/", ""},
	{"/console/users", "users"},
	{"/console/documents", ""},
	{"/console/permissions", "permissions"},
	{"/console/restrictions", ""},
	{"/console/activities", ""},
	{"/console/levels", ""},
	{"/console/keys", ""},
	{"/console/metrics", ""},
	{"/console/system", ""},
}

// Every page of the console is for everybody who may see it, and shows what strangers have typed as they typed it.
func TestPagesOfTheConsole(t *testing.T) {
	t.Parallel()
	s := newSite(t, newVault(), "envoy")
	p := s.holder(t)
	api := s.client()
	api.signIn(p.email, p.password).wants(t, "sign-in", 201)
	api.call("POST", "/resource/profiles", params{"first_name": evil, "last_name": evil, "city": evil})
	api.call("POST", "/resource/documents", newForm(t, map[string]string{
		"doc_type": "Passport", "doc_number": evil[:60], "doc_expire": time.Now().AddDate(2, 0, 0).Format(time.DateOnly),
	}, evil+".png", []byte("\x89PNG\r\n\x1a\n")))
	var me struct{ UID string }
	api.call("GET", "/resource/users/me", nil).wants(t, "who it is", 200).into(t, &me)
	s.client().call("POST", "/identity/sessions", params{"email": p.email, "password": p.password}, "User-Agent: "+evil).wants(t, "sign-in", 201)
	c := s.enters(t, &holder{email: adminEmail, password: adminPassword}, "/console/users")
	for _, at := range append(staffPages, place{"/console/users/" + me.UID, ""}) {
		t.Run(at.path, func(t *testing.T) {
			c.at(t)
			c.opens(at.path)
			c.settled()
			c.untouched(at.path)
			c.looks(at)
		})
	}
	t.Run("member", func(t *testing.T) {
		member := s.enters(t, p, "/accounts/")
		member.opens("/console/users")
		member.settled()
		if member.Has("table") {
			t.Error("a member is shown the console")
		}
	})
}
