package systemtest

import (
	"database/sql"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// A copy of the embedded database that was made beside the running server, and the keys and files beside it, are all
// there is to an account: sessions, keys, second factors and files are there when a server starts on them.
func TestBackup(t *testing.T) {
	t.Parallel()
	s := startServer(t, newVault())
	c, email, password := s.member()
	factor := c.enable2FA(t)
	k := c.newKey(t, factor)

	// Somebody is writing all the time.
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				s.client().signIn(email, "Wrong9-guess+x")
			}
		}
	})
	restored := newServer(t, s.vault)
	if err := os.CopyFS(filepath.Join(restored.dir, "data", "jwt"), os.DirFS(filepath.Join(s.dir, "data", "jwt"))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(restored.dir, "data", "secret.key"), []byte(s.file("data", "secret.key")), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := sql.Open("sqlite", "file:"+filepath.Join(s.dir, "data", "barong.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.ExecContext(t.Context(), "VACUUM INTO ?", filepath.Join(restored.dir, "data", "barong.db"))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	close(stop)
	writer.Wait()
	if err != nil {
		t.Fatal(err)
	}
	s.stop()

	restored.start()
	c.at(restored).check(account).wants(t, "a session of before", 200)
	restored.client().check(account, k.sign()...).wants(t, "a key of before", 200)
	restored.later(factor)
	restored.client().call("POST", "/identity/sessions", params{"email": email, "password": password, "otp_code": factor.code(t)}).
		wants(t, "sign-in", 201)
}

// Replicas are restarted one after the other under load: whoever asks one that serves is answered, and nobody is logged
// out.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, true)
	at := c.open(c.person(false))
	stop := make(chan struct{})
	var callers sync.WaitGroup
	asked := 0
	callers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			// As a gateway does, go to the other one when the first does not accept.
			r := at.at(c.a).checkPatiently(account)
			if r.err != nil {
				r = at.at(c.b).checkPatiently(account)
			}
			if r.status != 200 {
				t.Errorf("a check while replicas are restarted: got %s", r)
				return
			}
			asked++
			time.Sleep(time.Millisecond)
		}
	})
	for _, s := range []*server{c.a, c.b, c.a} {
		s.stop()
		s.start()
		at.at(s).checkPatiently(account).wants(t, "a replica that has just started", 200)
	}
	close(stop)
	callers.Wait()
	t.Logf("%d checks passed meanwhile", asked)
}
