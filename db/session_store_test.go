package db_test

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"barong/db"
	"barong/internal/test/dbtest"
	"barong/session"
	"barong/session/sessiontest"
)

// versionBefore stores a session as the version did that knew nothing of methods, and reads it.
func versionBefore(t *testing.T, d *db.DB) {
	v := &session.Session{
		Key: session.NewID().Key(), UID: "ID0000000001", Epoch: 3, CSRF: "0123456789abcdef0123", Country: "NL",
		IP: netip.MustParseAddr("203.0.113.7"), UserAgent: "curl/8", AuthTime: time.UnixMilli(1).UTC(), CreatedAt: time.UnixMilli(1).UTC(),
		SeenAt: time.UnixMilli(2).UTC(), ExpiresAt: time.UnixMilli(3_000).UTC(), EndsAt: time.UnixMilli(4_000).UTC(),
	}
	_, err := d.Bun().NewRaw(`INSERT INTO sessions
		(key, uid, epoch, csrf, ip, user_agent, country, created_at, seen_at, expires_at, ends_at)
		VALUES (?, 'ID0000000001', 3, '0123456789abcdef0123', '203.0.113.7', 'curl/8', 'NL', 1, 2, 3000, 4000)`, v.Key.String()).Exec(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.Sessions().Get(t.Context(), v.Key, v.CreatedAt)
	if err != nil || *got != *v {
		t.Errorf("got %+v, %v, want %+v", got, err, v)
	}
}

func TestSessionsOfTheVersionBefore(t *testing.T) {
	dbtest.Each(t, versionBefore)
}

// One database an engine for all, in turns: to make thirty takes longer than everything else.
func TestSessionStore(t *testing.T) {
	for _, engine := range dbtest.Engines {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			store := dbtest.Open(t, engine, db.Options{}).Sessions()
			var turn sync.Mutex
			sessiontest.Run(t, func(t *testing.T) session.Store {
				turn.Lock()
				t.Cleanup(turn.Unlock)
				if _, err := store.DeleteAll(t.Context()); err != nil {
					t.Fatal(err)
				}
				return store
			})
		})
	}
}
