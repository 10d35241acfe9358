//go:build cgo

package systemtest

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"barong/internal/test/testkit"
)

// While Postgres's disk is full, what is only read goes on for longer than memory would last, what must be added is refused as
// an outage, and signing out works. When the server's own log finds no room, it ends; nothing that was answered is lost then.
func TestFullDiskOfPostgres(t *testing.T) {
	t.Parallel()
	pg, disk := testkit.PostgresOnDisk(t)
	vk := testkit.ValkeyServer(t)
	s := newServer(t, newVault(), "BARONG_DATABASE_URL="+durable(pg.URL), "BARONG_REDIS_URL="+vk.URL, "BARONG_SECRET_KEY="+secretKey,
		"BARONG_SESSION_CACHE_TTL="+cacheTTL.String())
	s.must("migrate", "up")
	s.must("seed")
	s.start()
	known, _, _ := s.member()
	a := known.enable2FA(t)
	bot, k := s.client(), known.newKey(t, a)
	leaving, email, password := s.member()
	leaving.check(account).wants(t, "a session", 200)
	admin := s.admin()
	var me struct{ UID string }
	known.call("GET", "/resource/users/me", nil).wants(t, "one's own account", 200).into(t, &me)
	label := func(key string) reply {
		return admin.call("POST", "/admin/users/labels", params{"uid": me.UID, "key": key, "value": "kept", "scope": "private"})
	}
	label("before").wants(t, "a label", 201)
	connect := func() *pgx.Conn {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), pg.URL)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	conn := connect()
	for _, statement := range []string{tight, "SELECT pg_switch_wal()", "CHECKPOINT"} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	conn.Close(t.Context())

	disk.Fill(t)
	filled := time.Now()
	for what, ask := range map[string]func() reply{
		"a sign-up": func() reply { return s.client().signUp("late@example.com", "Yw4-nEk9+0qZm") },
		"a sign-in": func() reply { return s.client().signIn(email, password) },
		"a label":   func() reply { return label("late") },
		"a phone":   func() reply { return known.call("POST", "/resource/phones", params{"phone_number": "+14155550123"}) },
		"a rule": func() reply {
			return admin.call("POST", "/admin/permissions", params{"role": "member", "verb": "all", "path": "late", "action": "drop"})
		},
		"a profile": func() reply { return known.call("POST", "/resource/profiles", params{"first_name": "Late"}) },
		"a new password by mail": func() reply {
			return s.client().call("POST", "/identity/users/password/generate_code", params{"email": email})
		},
	} {
		ask().wants(t, what+" while the disk is full", 503, "authz.unavailable")
	}
	leaving.call("DELETE", "/identity/sessions", nil).wants(t, "signing out while the disk is full", 204)
	testkit.Eventually(t, patience, func() bool {
		status, parts := s.parts()
		return status == http.StatusServiceUnavailable && strings.Contains(parts["database"].Reason, "No space left")
	})
	time.Sleep(time.Until(filled.Add(cacheTTL + time.Second)))
	known.check(account).wants(t, "a session after memory is over", 200)
	bot.check(account, k.sign()...).wants(t, "an API key after memory is over", 200)
	leaving.check(account).wants(t, "the session that was signed out", 401, "authz.invalid_session")

	endlessLog(t, pg)
	label("later").wants(t, "a label without Postgres", 503, "authz.unavailable")
	disk.Free(t)
	pg.Start(t)
	testkit.Eventually(t, patience, func() bool { return s.probe("/readyz").status == http.StatusOK })
	label("after").wants(t, "a label with room", 201)
	known.check(account).wants(t, "a session", 200)
	leaving.check(account).wants(t, "the session that was signed out", 401, "authz.invalid_session")
	s.client().signIn(email, password).wants(t, "a sign-in", 201)
	conn = connect()
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), "SELECT key FROM labels WHERE value = 'kept' ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || !slices.Equal(keys, []string{"before", "after"}) {
		t.Errorf("labels: %v, %v", keys, err)
	}
}
